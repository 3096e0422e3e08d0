"""The queue that feeds intake: an adapter for what intake itself puts there."""

import json
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import BaseModel

from dropreel.aws import clients

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class IntakeQueue:
    """Made once per function environment."""

    def __init__(self, url: str, client: "SQSClient | None" = None) -> None:
        self._url = url
        self._given = client

    @cached_property
    def _client(self) -> "SQSClient":
        """Made when it is first needed, for the sake of cold starts."""
        return self._given or clients.sqs()

    def send(self, message: BaseModel, delay_seconds: int) -> None:
        """Let intake have the message after the delay; SQS holds one for at most 900 seconds."""
        self._client.send_message(
            QueueUrl=self._url,
            MessageBody=_body(message),
            DelaySeconds=delay_seconds,
        )


def _body(message: BaseModel) -> str:
    """In ASCII, because a key may hold characters that SQS does not take."""
    return json.dumps(message.model_dump(mode="json"))
