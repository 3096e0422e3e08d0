# Made by `make terraform` from template.yaml.

output "version" {
  description = "The version of Dropreel that is deployed."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "Version", null)
}

output "upload_bucket" {
  description = "Drop a picture and a voice of the same name here, under UploadPrefix."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "UploadBucket", null)
}

output "video_bucket" {
  description = "Videos, manifests, error files and check files come here."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "VideoBucket", null)
}

output "upload_prefix" {
  description = "The prefix in the upload bucket under which to drop."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "UploadPrefix", null)
}

output "work_bucket" {
  description = "Copies that providers fetch. Nobody needs to look here."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "WorkBucket", null)
}

output "uploader_policy_arn" {
  description = "The policy for who drops files. It allows the folder that their tag dropreel-folder names."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "UploaderPolicyArn", null)
}

output "reader_policy_arn" {
  description = "The policy for who reads videos. It allows the folder that their tag dropreel-folder names."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "ReaderPolicyArn", null)
}

output "event_bus_name" {
  description = "The bus of the events that docs/events.md lists."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "EventBusName", null)
}

output "event_bus_arn" {
  description = "Its ARN, for rules in another stack."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "EventBusArn", null)
}

output "event_archive_arn" {
  description = "The archive to replay events from."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "EventArchiveArn", null)
}

output "state_machine_arn" {
  description = "One execution of it renders one job."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "StateMachineArn", null)
}

output "runcomfy_token_arn" {
  description = "The secret to store RunComfy's token in."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "RunComfyTokenArn", null)
}

output "wavespeed_token_arn" {
  description = "The secret to store WaveSpeedAI's token in."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "WaveSpeedTokenArn", null)
}

output "ledger_table" {
  description = "The table that records attempts, slots, queues and spend."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "LedgerTable", null)
}

output "sweep_function_name" {
  description = "The function behind `make sweep`. It also runs every hour."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "SweepFunctionName", null)
}

output "watch_function_name" {
  description = "The function that measures the queues, and asks the providers when you call it."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "WatchFunctionName", null)
}

output "intake_queue_url" {
  description = "Uploads wait here for the intake function."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "IntakeQueueUrl", null)
}

output "intake_dead_letters_url" {
  description = "Uploads that intake could not process. Should be empty."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "IntakeDeadLettersUrl", null)
}

output "undelivered_events_url" {
  description = "Events that EventBridge could not deliver. Should be empty."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "UndeliveredEventsUrl", null)
}

output "unconcluded_jobs_url" {
  description = "Ended executions that could not be concluded. Should be empty."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "UnconcludedJobsUrl", null)
}

output "notify_topic_arn" {
  description = "The topic of notices to people and of alarms. Subscribe here."
  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "NotifyTopicArn", null)
}
