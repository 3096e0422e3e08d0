# Made by `make terraform` from template.yaml.

variable "template_url" {
  description = "The URL that `make package` printed. A new version has a new URL."
  type        = string
  nullable    = false
}

variable "stack_name" {
  description = "The name of the stack. Its functions and its event bus carry it."
  type        = string
  default     = "dropreel"
  nullable    = false
  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,49}$", var.stack_name)) && !can(regex("(?i)^(aws|ssm)", var.stack_name)) && var.stack_name != "default"
    error_message = "At most 50 letters, digits and hyphens, beginning with a letter, not with \"aws\" or \"ssm\"; not \"default\"."
  }
}

variable "tags" {
  description = "Tags of the stack. CloudFormation puts them on everything in it that takes tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "model" {
  description = "The model of jobs that do not name one."
  type        = string
  default     = "wan-2.2-speech-to-video"
  nullable    = false
  validation {
    condition     = contains(["wan-2.2-speech-to-video", "wan-2.2-image-to-video", "wan-2.6-flash-image-to-video", "infinitetalk"], var.model)
    error_message = "Model: one of wan-2.2-speech-to-video, wan-2.2-image-to-video, wan-2.6-flash-image-to-video, infinitetalk."
  }
}

variable "settle_seconds" {
  description = "How long the files of a job must have been still before it starts, counted from the newest of them."
  type        = number
  default     = 20
  nullable    = false
  validation {
    condition     = var.settle_seconds >= 0 && var.settle_seconds <= 900
    error_message = "SettleSeconds: at least 0 and at most 900."
  }
}

variable "incomplete_after_minutes" {
  description = "How long an upload waits for its partner before `Upload Incomplete` is sent."
  type        = number
  default     = 60
  nullable    = false
  validation {
    condition     = var.incomplete_after_minutes >= 0 && var.incomplete_after_minutes <= 10080
    error_message = "IncompleteAfterMinutes: at least 0 and at most 10080."
  }
}

variable "shared_folders" {
  description = "Folders below UploadPrefix whose files every job may name, such as faces/, with commas between. A job may name other files only in its own top folder."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|[^/,. *][^,*]*/(,[^/,. *][^,*]*/)*)$)$", var.shared_folders))
    error_message = "SharedFolders: folders below UploadPrefix, each ending in /, with commas between, such as faces/,music/."
  }
}

variable "queue_timeout_minutes" {
  description = "How long a render may wait in the provider's own queue. Then it is cancelled, if the provider allows that, and the job goes to its next offer."
  type        = number
  default     = 120
  nullable    = false
  validation {
    condition     = var.queue_timeout_minutes >= 1 && var.queue_timeout_minutes <= 600
    error_message = "QueueTimeoutMinutes: at least 1 and at most 600."
  }
}

variable "render_timeout_minutes" {
  description = "How long a render may take after it has begun. A model that is known to be slow may take longer, by the length of the voice. A change applies to later submissions."
  type        = number
  default     = 60
  nullable    = false
  validation {
    condition     = var.render_timeout_minutes >= 1 && var.render_timeout_minutes <= 600
    error_message = "RenderTimeoutMinutes: at least 1 and at most 600."
  }
}

variable "runcomfy_max_in_flight" {
  description = "How many renders RunComfy may have at once. Other jobs wait, at no cost. 0 pauses it: the renders that it has are finished, and other jobs wait or go to the next offer."
  type        = number
  default     = 10
  nullable    = false
  validation {
    condition     = var.runcomfy_max_in_flight >= 0 && var.runcomfy_max_in_flight <= 500
    error_message = "RunComfyMaxInFlight: at least 0 and at most 500."
  }
}

variable "wavespeed_max_in_flight" {
  description = "How many renders WaveSpeedAI may have at once. Other jobs wait, at no cost. 0 pauses it: the renders that it has are finished, and other jobs wait or go to the next offer."
  type        = number
  default     = 2
  nullable    = false
  validation {
    condition     = var.wavespeed_max_in_flight >= 0 && var.wavespeed_max_in_flight <= 500
    error_message = "WaveSpeedMaxInFlight: at least 0 and at most 500."
  }
}

variable "runcomfy_max_submits_per_minute" {
  description = "How many requests for a render RunComfy gets in a minute. 0 is no limit."
  type        = number
  default     = 0
  nullable    = false
  validation {
    condition     = var.runcomfy_max_submits_per_minute >= 0 && var.runcomfy_max_submits_per_minute <= 10000
    error_message = "RunComfyMaxSubmitsPerMinute: at least 0 and at most 10000."
  }
}

variable "wavespeed_max_submits_per_minute" {
  description = "How many requests for a render WaveSpeedAI gets in a minute. 0 is no limit."
  type        = number
  default     = 2
  nullable    = false
  validation {
    condition     = var.wavespeed_max_submits_per_minute >= 0 && var.wavespeed_max_submits_per_minute <= 10000
    error_message = "WaveSpeedMaxSubmitsPerMinute: at least 0 and at most 10000."
  }
}

variable "daily_render_limit" {
  description = "How many renders may be submitted in a day (UTC), to all providers together. Other jobs wait for midnight UTC. 0 is no limit."
  type        = number
  default     = 200
  nullable    = false
  validation {
    condition     = var.daily_render_limit >= 0 && var.daily_render_limit <= 1000000
    error_message = "DailyRenderLimit: at least 0 and at most 1000000."
  }
}

variable "daily_spend_limit_usd" {
  description = "How many US dollars the renders of a day (UTC) may cost, by estimated prices. 0 is no limit. With a limit, an offer without a known price is not used: see CatalogOverrides."
  type        = number
  default     = 0
  nullable    = false
  validation {
    condition     = var.daily_spend_limit_usd >= 0 && var.daily_spend_limit_usd <= 1000000
    error_message = "DailySpendLimitUsd: at least 0 and at most 1000000."
  }
}

variable "on_spend_limit" {
  description = "What happens to a job above DailySpendLimitUsd."
  type        = string
  default     = "wait"
  nullable    = false
  validation {
    condition     = contains(["wait", "fail"], var.on_spend_limit)
    error_message = "OnSpendLimit: one of wait, fail."
  }
}

variable "catalog_overrides" {
  description = "What you know better than the table of models, as JSON: for each offer, its prices, its limits, and whether it is on. See docs/deploying.md."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = length(var.catalog_overrides) <= 2000
    error_message = "CatalogOverrides: must be JSON such as {\"wan-ai/wan-2-2/speech-to-video\": {\"usd_per_second\": {\"480p\": 0.04}}}."
  }
}

variable "delete_after_delivery" {
  description = "Whether the provider's record of a delivered render is deleted. Only WaveSpeedAI publishes a way to do it."
  type        = bool
  default     = false
  nullable    = false
}

variable "existing_upload_bucket" {
  description = "A bucket of yours to drop into, instead of a new one. Its configuration is left alone: see docs/deploying.md for what you must switch on. Change it only when nothing runs or waits."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])$)$", var.existing_upload_bucket))
    error_message = "ExistingUploadBucket: must be the name of a bucket."
  }
}

variable "upload_prefix" {
  description = "The prefix in the upload bucket under which people drop. Everything under it is theirs to drop and Dropreel's to render, also what was there before. Change it only when nothing runs or waits."
  type        = string
  default     = "inbox/"
  nullable    = false
  validation {
    condition     = length(var.upload_prefix) <= 200 && can(regex("^(?:^([A-Za-z0-9_][A-Za-z0-9_ !.()=@+-]*/)+$)$", var.upload_prefix))
    error_message = "UploadPrefix: must be folders such as media/inbox/, in ASCII, with / at the end."
  }
}

variable "existing_video_bucket" {
  description = "A bucket of yours for the videos, instead of a new one. It must be another one than the upload bucket, and versioned. Its configuration is left alone."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])$)$", var.existing_video_bucket))
    error_message = "ExistingVideoBucket: must be the name of a bucket."
  }
}

variable "existing_event_bus_arn" {
  description = "A bus of yours for the events, instead of a new one."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|arn:[a-z0-9-]+:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9_.-]+)$)$", var.existing_event_bus_arn))
    error_message = "ExistingEventBusArn: must be the ARN of an event bus."
  }
}

variable "existing_ledger_table" {
  description = "The ledger of an earlier stack of Dropreel that is deleted, instead of a new one. No two stacks may share one. Set it only at the first deploy: the attempts of jobs that run, and the day's spend, are in the ledger. With another one, renders could be paid twice."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|[A-Za-z0-9_.-]{3,255})$)$", var.existing_ledger_table))
    error_message = "ExistingLedgerTable: must be the name of a table."
  }
}

variable "existing_runcomfy_secret_arn" {
  description = "A secret of yours that holds RunComfy's token as its plain text, instead of a new one."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|arn:[a-z0-9-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+)$)$", var.existing_runcomfy_secret_arn))
    error_message = "ExistingRunComfySecretArn: must be the whole ARN of a secret."
  }
}

variable "existing_wavespeed_secret_arn" {
  description = "A secret of yours that holds WaveSpeedAI's token as its plain text, instead of a new one."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|arn:[a-z0-9-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+)$)$", var.existing_wavespeed_secret_arn))
    error_message = "ExistingWaveSpeedSecretArn: must be the whole ARN of a secret."
  }
}

variable "kms_key_arn" {
  description = "A key of yours for all that this stack makes to keep data, instead of AWS's own keys. docs/deploying.md has the key policy that it needs."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|arn:[a-z0-9-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+)$)$", var.kms_key_arn))
    error_message = "KmsKeyArn: must be the ARN of a symmetric key in this region, not of an alias."
  }
}

variable "permissions_boundary_arn" {
  description = "A managed policy that bounds each role of this stack. It must allow what the roles do."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|arn:[a-z0-9-]+:iam::([0-9]{12}|aws):policy/[A-Za-z0-9_+=,.@/-]+)$)$", var.permissions_boundary_arn))
    error_message = "PermissionsBoundaryArn: must be the ARN of a managed policy."
  }
}

variable "subnet_ids" {
  description = "Subnets of yours to run the functions in. They need a way to the providers and to AWS: see docs/deploying.md."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|subnet-[0-9a-f]{8,17}(,subnet-[0-9a-f]{8,17}){0,15})$)$", var.subnet_ids))
    error_message = "SubnetIds: must be at most 16 ids of subnets, with commas between and no spaces."
  }
}

variable "security_group_ids" {
  description = "The security groups of the functions in SubnetIds. They must allow HTTPS to the outside."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|sg-[0-9a-f]{8,17}(,sg-[0-9a-f]{8,17}){0,4})$)$", var.security_group_ids))
    error_message = "SecurityGroupIds: must be at most 5 ids of security groups, with commas between and no spaces."
  }
}

variable "access_log_bucket" {
  description = "A bucket of yours that gets the access logs of the buckets that this stack makes. See docs/deploying.md for the policy that it needs."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])$)$", var.access_log_bucket))
    error_message = "AccessLogBucket: must be the name of a bucket."
  }
}

variable "notify_email" {
  description = "An e-mail address for notices of ready and failed videos and of incomplete uploads, and for alarms. AWS first sends it a link to confirm."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = length(var.notify_email) <= 254 && can(regex("^(?:^(|[^\\s@,;:\"'<>()]+@[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)+)$)$", var.notify_email))
    error_message = "NotifyEmail: must be one e-mail address."
  }
}

variable "notify_topic_arn" {
  description = "A topic of yours for notices and alarms, instead of a new one. docs/deploying.md has the policy that it needs."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|arn:[a-z0-9-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256})$)$", var.notify_topic_arn))
    error_message = "NotifyTopicArn: must be the ARN of a standard topic in this region."
  }
}

variable "keep_uploads_days" {
  description = "How many days an upload is kept in the bucket that this stack makes. 0 is for ever. Replaced and deleted versions are kept for 100 days more."
  type        = string
  default     = "0"
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(0|[1-9][0-9]{2,3})$)$", var.keep_uploads_days))
    error_message = "KeepUploadsDays: must be 0, or 100 to 9999, because a job may wait for 90 days."
  }
}

variable "keep_videos_days" {
  description = "How many days videos, manifests and error files are kept in the bucket that this stack makes, and replaced and deleted versions of them as long again. 0 is for ever."
  type        = string
  default     = "0"
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(0|[1-9][0-9]{2,3})$)$", var.keep_videos_days))
    error_message = "KeepVideosDays: must be 0, or 100 to 9999, because a job may wait for 90 days."
  }
}

variable "keep_work_days" {
  description = "How many days the copies that providers fetch are kept, and hidden versions as long again. 0 is for ever."
  type        = string
  default     = "100"
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(0|[1-9][0-9]{2,3})$)$", var.keep_work_days))
    error_message = "KeepWorkDays: must be 0, or 100 to 9999, because a job may wait for 90 days."
  }
}

variable "keep_events_days" {
  description = "How many days an archive of the event bus keeps Dropreel's events, so that a consumer that was down can get them again. 0 is no archive. Of a bus of another account or region there is none."
  type        = string
  default     = "30"
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(0|[1-9][0-9]{0,3})$)$", var.keep_events_days))
    error_message = "KeepEventsDays: must be 0 to 9999."
  }
}

variable "event_reader_accounts" {
  description = "Other accounts that may make rules for Dropreel's events on the bus that this stack makes, with commas between. They see all folders."
  type        = string
  default     = ""
  nullable    = false
  validation {
    condition     = can(regex("^(?:^(|[0-9]{12}(,[0-9]{12}){0,49})$)$", var.event_reader_accounts))
    error_message = "EventReaderAccounts: must be at most 50 account ids of 12 digits, with commas between and no spaces."
  }
}

variable "log_retention_days" {
  description = "How many days the logs are kept."
  type        = number
  default     = 30
  nullable    = false
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1827, 3653], var.log_retention_days)
    error_message = "LogRetentionDays: one of 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1827, 3653."
  }
}

variable "architecture" {
  description = "The processor of the functions. The layers must be built for the same one (see Makefile)."
  type        = string
  default     = null # that of the packaged template
  validation {
    condition     = var.architecture == null ? true : contains(["arm64", "x86_64"], var.architecture)
    error_message = "Architecture: one of arm64, x86_64."
  }
}

variable "tracing" {
  description = "Active: AWS X-Ray traces the functions and the state machine. PassThrough: nothing is traced anew, for a region without X-Ray."
  type        = string
  default     = "Active"
  nullable    = false
  validation {
    condition     = contains(["Active", "PassThrough"], var.tracing)
    error_message = "Tracing: one of Active, PassThrough."
  }
}

locals {
  parameters = {
    Model                        = var.model
    SettleSeconds                = var.settle_seconds
    IncompleteAfterMinutes       = var.incomplete_after_minutes
    SharedFolders                = var.shared_folders
    QueueTimeoutMinutes          = var.queue_timeout_minutes
    RenderTimeoutMinutes         = var.render_timeout_minutes
    RunComfyMaxInFlight          = var.runcomfy_max_in_flight
    WaveSpeedMaxInFlight         = var.wavespeed_max_in_flight
    RunComfyMaxSubmitsPerMinute  = var.runcomfy_max_submits_per_minute
    WaveSpeedMaxSubmitsPerMinute = var.wavespeed_max_submits_per_minute
    DailyRenderLimit             = var.daily_render_limit
    DailySpendLimitUsd           = var.daily_spend_limit_usd
    OnSpendLimit                 = var.on_spend_limit
    CatalogOverrides             = var.catalog_overrides
    DeleteAfterDelivery          = var.delete_after_delivery
    ExistingUploadBucket         = var.existing_upload_bucket
    UploadPrefix                 = var.upload_prefix
    ExistingVideoBucket          = var.existing_video_bucket
    ExistingEventBusArn          = var.existing_event_bus_arn
    ExistingLedgerTable          = var.existing_ledger_table
    ExistingRunComfySecretArn    = var.existing_runcomfy_secret_arn
    ExistingWaveSpeedSecretArn   = var.existing_wavespeed_secret_arn
    KmsKeyArn                    = var.kms_key_arn
    PermissionsBoundaryArn       = var.permissions_boundary_arn
    SubnetIds                    = var.subnet_ids
    SecurityGroupIds             = var.security_group_ids
    AccessLogBucket              = var.access_log_bucket
    NotifyEmail                  = var.notify_email
    NotifyTopicArn               = var.notify_topic_arn
    KeepUploadsDays              = var.keep_uploads_days
    KeepVideosDays               = var.keep_videos_days
    KeepWorkDays                 = var.keep_work_days
    KeepEventsDays               = var.keep_events_days
    EventReaderAccounts          = var.event_reader_accounts
    LogRetentionDays             = var.log_retention_days
    Architecture                 = var.architecture
    Tracing                      = var.tracing
  }
}
