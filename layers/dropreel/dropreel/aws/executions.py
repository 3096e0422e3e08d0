"""The state machine's executions: adapters for starting them, for finding those that ended, and
for telling conclude of one."""

import json
from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from dropreel.aws import clients
from dropreel.model.executions import EndedExecution, Ending, UnhappyEnd
from dropreel.model.job import Job

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_stepfunctions import SFNClient


class Executions:
    """Made once per function environment."""

    def __init__(self, state_machine_arn: str, client: "SFNClient | None" = None) -> None:
        self._state_machine_arn = state_machine_arn
        self._client = client or clients.stepfunctions()

    def start(self, job: Job) -> None:
        """Start the job's execution, unless it was started before.

        AWS answers a second start with success while the first one runs, and with
        ExecutionAlreadyExists for 90 days after it.
        """
        try:
            self._client.start_execution(
                stateMachineArn=self._state_machine_arn,
                name=job.execution_name,
                input=job.model_dump_json(),
            )
        except self._client.exceptions.ExecutionAlreadyExists:
            return

    def ended(self, status: UnhappyEnd) -> Iterator[EndedExecution]:
        """The executions that ended like this and that Step Functions still knows, which it does
        for 90 days: the last started first."""
        pages = self._client.get_paginator("list_executions").paginate(
            stateMachineArn=self._state_machine_arn,
            statusFilter=status,
            PaginationConfig={"PageSize": 1000},
        )
        for page in pages:
            for one in page["executions"]:
                started_at = one["startDate"]
                yield EndedExecution(
                    one["executionArn"], status, started_at, one.get("stopDate", started_at)
                )

    def ending(self, execution: EndedExecution) -> Ending | None:
        """How one ended; None when Step Functions knows it no more, or it runs again."""
        try:
            told = self._client.describe_execution(executionArn=execution.arn)
        except self._client.exceptions.ExecutionDoesNotExist:
            return None
        if told["status"] != execution.status:
            return None
        return Ending(told.get("input", ""), told.get("error"), told.get("cause"))


class ConcludeFunction:
    """Conclude, told as EventBridge tells it. Made once per function environment."""

    def __init__(self, name: str, client: "LambdaClient | None" = None) -> None:
        self._name = name
        self._given = client

    @cached_property
    def _client(self) -> "LambdaClient":
        """Made when it is first needed: most sweeps find nothing to conclude."""
        return self._given or clients.functions()

    def tell(self, execution: EndedExecution, ending: Ending) -> None:
        """Let conclude know, without waiting for what it does: it has retries and dead letters of
        its own."""
        event = {
            "detail-type": "Step Functions Execution Status Change",
            "source": "aws.states",
            "detail": {
                "executionArn": execution.arn,
                "status": execution.status,
                "startDate": _milliseconds(execution.started_at),
                "stopDate": _milliseconds(execution.stopped_at),
                "input": ending.input,
                "error": ending.error,
                "cause": ending.cause,
            },
        }
        self._client.invoke(
            FunctionName=self._name,
            InvocationType="Event",
            Payload=json.dumps(event).encode(),
        )


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
