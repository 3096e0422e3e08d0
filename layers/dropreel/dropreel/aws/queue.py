"""The queue of intake's messages: an adapter for SQS."""

import json
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import BaseModel

from dropreel.aws import clients

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class IntakeQueue:
    def __init__(self, url: str, client: "SQSClient | None" = None) -> None:
        self._url = url
        self._given = client

    @cached_property
    def _client(self) -> "SQSClient":
        """Made on first use: a client adds 0.1 s to a start."""
        return self._given or clients.sqs()

    def send(self, message: BaseModel, delay_seconds: int) -> None:
        """Send intake a message, after a delay of at most 900 seconds (a limit of SQS)."""
        body = json.dumps(message.model_dump(mode="json"))  # ASCII: SQS refuses some characters
        self._client.send_message(QueueUrl=self._url, MessageBody=body, DelaySeconds=delay_seconds)
