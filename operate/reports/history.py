"""Reads what became of an execution: its steps from Step Functions, its lines from the logs."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.exceptions import ClientError
from pydantic import AwareDatetime, BaseModel

from operate.stack import PATIENT

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_stepfunctions import SFNClient

STEPS: Final = (
    *("intake", "prepare", "admit", "submit", "poll", "deliver", "conclude", "announce", "sweep"),
)
_MAX_PAGES: Final = 25
"""Of a history: 25,000 events are the most it can have. Of a log group: enough for weeks."""
MAX_LINES: Final = 500
_URL: Final = re.compile(r"[a-z]+://\S+")
_SHOWN_KEYS: Final = ("provider", "slot", "attempt", "code", "estimated_usd")


class Visit(BaseModel, frozen=True):
    """A state of the execution, from its entry to its exit."""

    step: str
    entered_at: AwareDatetime
    left_at: AwareDatetime | None = None
    faults: dict[str, int] = {}
    """How often a call failed and was tried again, by error."""


class LogLine(BaseModel, frozen=True):
    at: AwareDatetime
    step: str
    level: str
    run: int | None
    message: str


def visits(machine_arn: str, execution: str) -> list[Visit]:
    """Of the tasks. Empty when Step Functions has forgotten the execution."""
    client: SFNClient = boto3.client("stepfunctions", config=PATIENT)
    pages = client.get_paginator("get_execution_history").paginate(
        executionArn=execution_arn(machine_arn, execution),
        includeExecutionData=False,  # it holds task tokens
        PaginationConfig={"PageSize": 1000},
    )
    try:
        events = [event for page in islice(pages, _MAX_PAGES) for event in page["events"]]
    except client.exceptions.ExecutionDoesNotExist:
        return []
    return list(visits_in(events))


def execution_arn(machine_arn: str, execution: str) -> str:
    return f"{machine_arn.replace(':stateMachine:', ':execution:', 1)}:{execution}"


def visits_in(events: Sequence[Any]) -> Iterator[Visit]:
    """One branch: the states follow one another."""
    step, entered_at, faults = "", None, Counter[str]()
    for event in events:
        if event["type"] == "TaskStateEntered":
            step, entered_at = event["stateEnteredEventDetails"]["name"], event["timestamp"]
            faults.clear()
        elif event["type"] in ("TaskFailed", "TaskTimedOut") and entered_at:
            details = event.get("taskFailedEventDetails") or event.get("taskTimedOutEventDetails")
            faults[(details or {}).get("error", "an error")] += 1
        elif event["type"] == "TaskStateExited" and entered_at:
            yield _visit(step, entered_at, event["timestamp"], faults)
            entered_at = None
    if entered_at:
        yield _visit(step, entered_at, None, faults)


def _visit(
    step: str, entered_at: datetime, left_at: datetime | None, faults: Counter[str]
) -> Visit:
    return Visit(step=step, entered_at=entered_at, left_at=left_at, faults=dict(faults))


def log_lines(stack: str, job_id: str, since: datetime, until: datetime) -> list[LogLine]:
    """The last lines that name the job, in order, `MAX_LINES` at most. Raises `ClientError` when
    the logs may not be read."""
    with ThreadPoolExecutor(len(STEPS)) as pool:
        parts = pool.map(lambda step: _lines_of(stack, step, job_id, since, until), STEPS)
    lines = sorted((line for part in parts for line in part), key=lambda line: line.at)
    return lines[-MAX_LINES:]


def log_group(stack: str, step: str) -> str:
    return f"/aws/lambda/{stack}-{step}"


def _lines_of(
    stack: str, step: str, job_id: str, since: datetime, until: datetime
) -> list[LogLine]:
    client: CloudWatchLogsClient = boto3.client("logs", config=PATIENT)
    pages = client.get_paginator("filter_log_events").paginate(
        logGroupName=log_group(stack, step),
        filterPattern=f'"{job_id}"',
        startTime=int(since.timestamp() * 1000),
        endTime=int(until.timestamp() * 1000),
    )
    try:
        events = [event for page in islice(pages, _MAX_PAGES) for event in page["events"]]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return []
        raise
    read = (_line(step, event["timestamp"], event["message"], job_id) for event in events)
    return [line for line in read if line]


def _line(step: str, timestamp_ms: int, text: str, job_id: str) -> LogLine | None:
    """Only what our own lines say: a traceback can hold anything."""
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("job_id") != job_id:
        return None
    extra = [f"{name}={fields[name]}" for name in _SHOWN_KEYS if fields.get(name) is not None]
    message = " ".join([str(fields.get("message", "")), *extra])
    run = fields.get("run")
    return LogLine(
        at=datetime.fromtimestamp(timestamp_ms / 1000, UTC),
        step=step,
        level=str(fields.get("level", "")),
        run=run if isinstance(run, int) else None,
        message=_URL.sub("(a URL)", message),
    )
