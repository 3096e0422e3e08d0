"""The one logger, tracer and metrics of all functions.

Nothing here, and nothing that uses it, logs an event whole: events hold keys that people chose.
"""

import logging

from aws_lambda_powertools import Logger, Tracer

logger = Logger(service="dropreel")

# Tracing HTTP calls would write result URLs, which grant access, into the traces.
tracer = Tracer(service="dropreel", auto_patch=False, patch_modules=["boto3"])

# httpx logs each URL it asks for; ours are secrets.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)
