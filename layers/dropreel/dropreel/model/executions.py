"""Executions that ended, as Step Functions lists and describes them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

UnhappyEnd = Literal["ABORTED", "TIMED_OUT", "FAILED"]


@dataclass(frozen=True)
class EndedExecution:
    """One that ended without success, from a listing."""

    arn: str
    status: UnhappyEnd
    started_at: datetime
    stopped_at: datetime


@dataclass(frozen=True)
class Ending:
    """What it was started with, and what it ended with."""

    input: str
    error: str | None
