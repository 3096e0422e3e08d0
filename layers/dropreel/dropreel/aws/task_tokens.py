"""Executions that wait with a task token: an adapter for Step Functions."""

import json
from functools import cached_property
from typing import TYPE_CHECKING

from dropreel.aws import clients
from dropreel.model.errors import DropreelError, FinalAnswer
from dropreel.model.executions import execution_arn

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient


class WaitingExecutions:
    """Satisfies `admission.WaitingExecutions`."""

    def __init__(self, state_machine_arn: str, client: "SFNClient | None" = None) -> None:
        self._state_machine_arn = state_machine_arn
        self._given = client

    @cached_property
    def _client(self) -> "SFNClient":
        """Made on first use: most calls of poll, conclude and sweep notify nobody."""
        return self._given or clients.stepfunctions()

    @cached_property
    def _token_is_void(self) -> tuple[type[Exception], ...]:
        of_sfn = self._client.exceptions
        return of_sfn.TaskTimedOut, of_sfn.TaskDoesNotExist, of_sfn.InvalidToken

    def go_on(self, task_token: str) -> bool:
        try:
            self._client.send_task_success(taskToken=task_token, output="{}")
        except self._token_is_void:
            return False
        return True

    def refuse(self, task_token: str, error: DropreelError) -> bool:
        """Fail the task with the error in the form that Lambda gives a raised one."""
        try:
            self._client.send_task_failure(
                taskToken=task_token,
                error=FinalAnswer.__name__,
                cause=json.dumps({"errorMessage": str(error)}),
            )
        except self._token_is_void:
            return False
        return True

    def is_running(self, name: str) -> bool:
        arn = execution_arn(self._state_machine_arn, name)
        try:
            described = self._client.describe_execution(executionArn=arn)
        except self._client.exceptions.ExecutionDoesNotExist:
            return False
        return described["status"] in ("RUNNING", "PENDING_REDRIVE")
