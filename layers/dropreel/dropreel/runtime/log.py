"""The one logger of all functions.

Nothing that uses it logs an event whole: events hold keys that people chose.
"""

import logging

from aws_lambda_powertools import Logger

logger = Logger(service="dropreel")

# httpx logs each URL it asks for; ours are secrets.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)
