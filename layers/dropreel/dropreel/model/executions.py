"""Executions that ended, as Step Functions lists and describes them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

UnhappyEnd = Literal["ABORTED", "TIMED_OUT", "FAILED"]


def execution_arn(state_machine_arn: str, name: str) -> str:
    return f"{state_machine_arn.replace(':stateMachine:', ':execution:', 1)}:{name}"


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
