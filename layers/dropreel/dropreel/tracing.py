"""The one tracer of all handlers. Apart from the logger, because it brings the AWS SDK along."""

from aws_lambda_powertools import Tracer

# Tracing HTTP calls would write result URLs, which grant access, into the traces.
tracer = Tracer(service="dropreel", auto_patch=False, patch_modules=["boto3"])
