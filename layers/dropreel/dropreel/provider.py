"""What Dropreel asks of a provider. One module per provider speaks its dialect (`runcomfy`)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from dropreel.catalog import ProviderName


class RenderState(StrEnum):
    """Where accepted work stands, in our words."""

    QUEUED = "queued"
    RENDERING = "rendering"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Answer(BaseModel):
    """A provider's answer to 'how far is it?'."""

    model_config = ConfigDict(frozen=True)

    state: RenderState
    message: str = Field(default="", description="The provider's words, without any URL.")


class Refusal(Exception):
    """A definite no to a submission: nothing was accepted, nothing will be paid.

    `code` is the name of the `DropreelError` that it becomes when nobody tries again.
    """

    def __init__(
        self, code: str, message: str, *, again: bool = False, retry_after_seconds: float = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.again = again
        self.retry_after_seconds = retry_after_seconds


class Unclear(Exception):
    """Sent, and no usable answer: the provider may have accepted the work."""


class Unreachable(Exception):
    """A question about accepted work got no answer this time. Says nothing about the work."""

    def __init__(self, message: str, *, retry_after_seconds: float = 0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class UnknownRequest(Exception):
    """The provider does not know the request id."""


class Provider(Protocol):
    """A hosted video model's API. No answer of it ever carries a token or leaves a URL in a log."""

    name: ProviderName

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        """Ask for one render of an offer's endpoint, once, and return the request id.

        Raises `Refusal` (certainly not accepted) or `Unclear` (perhaps accepted).
        """

    def ask(self, request_id: str) -> Answer:
        """The state of accepted work. Raises `Unreachable` or `UnknownRequest`."""

    def video_url(self, request_id: str) -> str | None:
        """Where the first video of a completed render lies; None if its output offers none.

        The URL grants access: it must not leave the function that asked for it.
        Raises `Unreachable` or `UnknownRequest`.
        """

    def cancel(self, request_id: str) -> bool:
        """Cancel work that is still queued. True when the provider says it is cancelled.

        Raises `Unreachable`.
        """
