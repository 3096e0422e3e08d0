"""The tracer of all handlers. Not next to the logger, because it imports the AWS SDK."""

from aws_lambda_powertools import Tracer

# No patches: traces of HTTP calls would hold result URLs, which grant access, and traces of AWS
# calls slow every cold start.
tracer = Tracer(service="dropreel", auto_patch=False)
