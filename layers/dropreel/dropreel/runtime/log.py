"""The logger of all functions. Never log a whole event: it holds keys that people chose."""

import logging
from typing import Protocol

from aws_lambda_powertools import Logger

logger = Logger(service="dropreel")

# httpx logs the URL of each request; ours are secrets.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)


class NamedJob(Protocol):
    """A job, or its summary in an event."""

    @property
    def id(self) -> str: ...
    @property
    def run(self) -> int: ...
    @property
    def folder(self) -> str: ...


def job_keys(job: NamedJob) -> dict[str, object]:
    """Names the job in a log line."""
    return {"job_id": job.id, "run": job.run, "folder": job.folder}
