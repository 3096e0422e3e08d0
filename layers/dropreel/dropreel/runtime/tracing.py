"""The one tracer of all handlers. Apart from the logger, because it brings the AWS SDK along."""

from aws_lambda_powertools import Tracer

# Nothing is patched: tracing HTTP calls would write result URLs, which grant access, into the
# traces, and tracing each call to AWS costs every cold start.
tracer = Tracer(service="dropreel", auto_patch=False)
