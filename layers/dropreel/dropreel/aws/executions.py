"""The state machine's executions: start one, list the ended ones, call conclude for one."""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from dropreel.aws import clients
from dropreel.model.executions import EndedExecution, Ending, UnhappyEnd
from dropreel.model.job import Job

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_stepfunctions import SFNClient


class Executions:
    def __init__(self, state_machine_arn: str, client: "SFNClient | None" = None) -> None:
        self._state_machine_arn = state_machine_arn
        self._given = client

    @cached_property
    def _client(self) -> "SFNClient":
        """Made on first use: the first upload of a pair starts nothing, nor do most sweeps."""
        return self._given or clients.stepfunctions()

    def start(self, job: Job) -> None:
        """Start the job's execution, unless it was started before.

        A second start succeeds without effect while the first execution runs; for 90 days after
        that it raises ExecutionAlreadyExists.
        """
        with suppress(self._client.exceptions.ExecutionAlreadyExists):
            self._client.start_execution(
                stateMachineArn=self._state_machine_arn,
                name=job.execution_name,
                input=job.model_dump_json(),
            )

    def ended(self, status: UnhappyEnd) -> Iterator[EndedExecution]:
        """The executions of the last 90 days that ended like this, the last started first."""
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
        """How one ended. None when Step Functions has deleted it, or it was redriven."""
        try:
            described = self._client.describe_execution(executionArn=execution.arn)
        except self._client.exceptions.ExecutionDoesNotExist:
            return None
        if described["status"] != execution.status:
            return None
        return Ending(described.get("input", ""), described.get("error"))


class ConcludeFunction:
    """Calls conclude with what it reads of EventBridge's event."""

    def __init__(self, name: str, client: "LambdaClient | None" = None) -> None:
        self._name = name
        self._given = client

    @cached_property
    def _client(self) -> "LambdaClient":
        """Made on first use: most sweeps find nothing to conclude."""
        return self._given or clients.functions()

    def invoke(self, execution: EndedExecution, ending: Ending) -> None:
        """Asynchronous, so that conclude's own retries and dead-letter queue apply."""
        event = {
            "detail": {
                "executionArn": execution.arn,
                "status": execution.status,
                "startDate": execution.started_at.isoformat(),
                "input": ending.input,
                "error": ending.error,
            },
        }
        self._client.invoke(
            FunctionName=self._name,
            InvocationType="Event",
            Payload=json.dumps(event).encode(),
        )
