"""The state machine's executions: an adapter for StartExecution."""

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from dropreel.job import Job

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient


class Executions:
    """Starts renders. Made once per function environment."""

    def __init__(self, state_machine_arn: str, client: "SFNClient | None" = None) -> None:
        self._state_machine_arn = state_machine_arn
        self._client: SFNClient = client or boto3.client(
            "stepfunctions", config=Config(retries={"mode": "standard", "max_attempts": 5})
        )

    def start(self, job: Job) -> None:
        """Start the job's execution, unless it was started before.

        AWS answers a second start with success while the first one runs, and with
        ExecutionAlreadyExists for 90 days after it.
        """
        try:
            self._client.start_execution(
                stateMachineArn=self._state_machine_arn,
                name=job.id,
                input=job.model_dump_json(),
            )
        except self._client.exceptions.ExecutionAlreadyExists:
            return
