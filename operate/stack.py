"""The adapter to a deployed stack."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError
from pydantic import ValidationError

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.uploads import UsedUploads
from dropreel.model.job import Job
from dropreel.model.ledger import Attempt, Outcome, Run
from operate.choice import Execution
from operate.errors import OperateError

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

PATIENT: Final = Config(retries={"mode": "standard", "max_attempts": 10})
"""Step Functions throttles many calls a second: growing waits keep the pace."""

_UNSUCCESSFUL: Final[tuple[Literal["FAILED", "ABORTED", "TIMED_OUT"], ...]] = (
    "FAILED",
    "ABORTED",
    "TIMED_OUT",
)


class NoSuchStack(OperateError):
    """These credentials see no stack of this name."""


class OutputMissing(OperateError):
    """The stack is not Dropreel's, or an older version's."""


class Outputs(dict[str, str]):
    """A stack's outputs. One that is missing raises `OutputMissing`."""

    def __missing__(self, key: str) -> str:
        raise OutputMissing(f"The stack has no output {key}.")


def outputs_of(stack: str) -> Outputs:
    """Raises `NoSuchStack`."""
    client = boto3.client("cloudformation", config=PATIENT)
    try:
        (described,) = client.describe_stacks(StackName=stack)["Stacks"]
    except (ClientError, ParamValidationError) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] != "ValidationError":
            raise
        raise NoSuchStack(f'There is no stack "{stack}" in {client.meta.region_name}.') from None
    return Outputs({one["OutputKey"]: one["OutputValue"] for one in described.get("Outputs", [])})


def environment_of(function: str) -> dict[str, str]:
    """The environment variables of a function, which hold the stack's settings."""
    client = boto3.client("lambda", config=PATIENT)
    found = client.get_function_configuration(FunctionName=function)
    return found.get("Environment", {}).get("Variables", {})


class DeployedStack:
    """Satisfies `choice.Stack`."""

    def __init__(self, outputs: Outputs) -> None:
        """Raises `OutputMissing`."""
        self._state_machine_arn = outputs["StateMachineArn"]
        table = outputs["LedgerTable"]
        self._states: SFNClient = boto3.client("stepfunctions", config=PATIENT)
        self._ledger = DynamoDBLedger(table, boto3.client("dynamodb", config=PATIENT))
        self._uploads = UsedUploads(table, boto3.client("dynamodb", config=PATIENT))

    def execution(self, name: str) -> Execution | None:
        arn = self._state_machine_arn.replace(":stateMachine:", ":execution:", 1)
        try:
            described = self._states.describe_execution(executionArn=f"{arn}:{name}")
        except self._states.exceptions.ExecutionDoesNotExist:
            return None
        try:
            job = Job.model_validate_json(described.get("input", ""))
        except ValidationError:
            return None
        if not job.is_run_by(described["executionArn"]):
            return None  # started by hand: it did nothing
        return Execution(
            name=described["name"],
            status=described["status"],
            started_at=described["startDate"],
            stopped_at=described.get("stopDate"),
            error=described.get("error"),
            job=job,
        )

    def unsuccessful_since(self, since: datetime) -> Iterator[Execution]:
        """Those that stopped since then, without executions that were started by hand."""
        pages = self._states.get_paginator("list_executions")
        for status in _UNSUCCESSFUL:
            # Sorted by start: an execution that started long ago may have stopped just now.
            for page in pages.paginate(
                stateMachineArn=self._state_machine_arn, statusFilter=status
            ):
                for listed in page["executions"]:
                    if listed.get("stopDate", listed["startDate"]) < since:
                        continue
                    if execution := self.execution(listed["name"]):
                        yield execution

    def start(self, job: Job) -> bool:
        try:
            self._states.start_execution(
                stateMachineArn=self._state_machine_arn,
                name=job.execution_name,
                input=job.model_dump_json(),
            )
        except self._states.exceptions.ExecutionAlreadyExists:
            return False
        return True

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        return self._ledger.attempts(job_id)

    def runs(self, job_id: str) -> tuple[Run, ...]:
        return self._ledger.runs(job_id)

    def record(self, job_id: str) -> tuple[list[Run], list[Attempt], dict[int, Outcome]]:
        return self._ledger.record(job_id)

    def outcome(self, job: Job, started_at: datetime) -> Outcome | None:
        return self._ledger.outcome(job, started_at)

    def last_drop(self, job: Job) -> str | None:
        return self._uploads.last_drop(job)
