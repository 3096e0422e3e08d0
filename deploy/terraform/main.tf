terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

# By URL: the template is larger than the 51,200 bytes that CloudFormation takes as text.
resource "aws_cloudformation_stack" "dropreel" {
  name         = var.stack_name
  template_url = var.template_url
  capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
  parameters   = { for name, value in local.parameters : name => value if value != null }
  tags         = var.tags
}

output "next_commands" {
  description = "What to run after the first apply. S3 begins to send events after about five minutes."
  value       = "make token STACK=${var.stack_name}, then make check STACK=${var.stack_name}"
}
