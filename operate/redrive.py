"""The uploads on which intake failed: send them through intake again, or delete them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3

from dropreel.inbox.messages import key_in
from operate.errors import OperateError
from operate.stack import PATIENT

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_HIDDEN_SECONDS = 600
"""A person may think for so long; a queue hides what is shown to them meanwhile."""

_BATCH = 10  # SQS: entries of a call


class NotDeleted(OperateError):
    """SQS kept some of the messages."""


def redrive(dead_letters_url: str) -> None:
    """Move the dead letters back to the queue that they came from."""
    sqs = boto3.client("sqs", config=PATIENT)
    queue = sqs.get_queue_attributes(QueueUrl=dead_letters_url, AttributeNames=["QueueArn"])
    sqs.start_message_move_task(SourceArn=queue["Attributes"]["QueueArn"])


@dataclass(frozen=True)
class DeadLetter:
    """A message that intake gave up on."""

    message_id: str
    key: str | None
    receipt: str

    def __str__(self) -> str:
        return self.key or f"a message that names no file ({self.message_id})"


class DeadLetters:
    def __init__(self, url: str) -> None:
        self._url = url
        self._sqs: SQSClient = boto3.client("sqs", config=PATIENT)

    def hide(self) -> Sequence[DeadLetter]:
        """All of them. Nobody else sees them for ten minutes, or until they are shown again."""
        return list(self._received())

    def _received(self) -> Iterator[DeadLetter]:
        while messages := self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=_BATCH,
            VisibilityTimeout=_HIDDEN_SECONDS,
            WaitTimeSeconds=1,  # asks all of the queue's servers
        ).get("Messages"):
            for one in messages:
                yield DeadLetter(one["MessageId"], key_in(one["Body"]), one["ReceiptHandle"])

    def show(self, letters: Sequence[DeadLetter]) -> None:
        """Undo `hide`."""
        for some in _batches(letters):
            self._sqs.change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": one.receipt, "VisibilityTimeout": 0}
                    for n, one in enumerate(some)
                ],
            )

    def delete(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these, and none that came since. Raises `NotDeleted`."""
        kept = 0
        for some in _batches(letters):
            answer = self._sqs.delete_message_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": one.receipt} for n, one in enumerate(some)
                ],
            )
            kept += len(answer.get("Failed", []))
        if kept:
            raise NotDeleted(f"{kept} of {len(letters)} messages are still there. Try again.")


def _batches(letters: Sequence[DeadLetter]) -> Iterator[Sequence[DeadLetter]]:
    return (letters[first : first + _BATCH] for first in range(0, len(letters), _BATCH))
