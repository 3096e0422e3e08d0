"""The logger of all functions. Never log a whole event: it holds keys that people chose."""

import logging

from aws_lambda_powertools import Logger

from dropreel.model.job import Job

logger = Logger(service="dropreel")

# httpx logs the URL of each request; ours are secrets.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)


def job_keys(job: Job) -> dict[str, object]:
    """Names the job in a log line."""
    return {"job_id": job.id, "run": job.run, "folder": job.folder}
