"""What Dropreel asks of a provider. One module per provider speaks its dialect (`runcomfy`)."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from dropreel.model.catalog import ProviderName

QUEUE_TIMEOUT_SECONDS = 120 * 60.0
RENDER_TIMEOUT_SECONDS = 60 * 60.0
"""The template's defaults."""


class RenderState(StrEnum):
    """Where accepted work stands, in our words."""

    QUEUED = "queued"
    RENDERING = "rendering"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Ticket(BaseModel):
    """The proof that a provider accepted an attempt."""

    model_config = ConfigDict(frozen=True)

    provider: ProviderName
    endpoint: str
    request_id: str
    attempt: int = Field(ge=1)
    offer: int = Field(ge=0, description="The offer's place in the plan's route.")
    submitted_at: datetime
    queue_timeout_seconds: float = Field(
        default=QUEUE_TIMEOUT_SECONDS, description="From the submission. Fixed by then."
    )
    render_timeout_seconds: float = Field(
        default=RENDER_TIMEOUT_SECONDS,
        description="From when a poll first saw it rendering. Fixed when it was submitted.",
    )
    is_recorded: bool = Field(
        default=True, description="False when the ledger could not note it at the time."
    )


class FailureCause(StrEnum):
    """Why accepted work failed, as far as it decides what to do about it."""

    MODERATED = "moderated"
    BAD_INPUT = "bad input"
    MEDIA_UNREADABLE = "media unreadable"  # fresh URLs may help
    NO_CREDIT = "no credit"
    OTHER = "other"


class Answer(BaseModel):
    """A provider's answer to 'how far is it?'."""

    model_config = ConfigDict(frozen=True)

    state: RenderState
    message: str = Field(default="", description="The provider's words, without any URL.")
    cause: FailureCause = Field(default=FailureCause.OTHER, description="Of a failure.")


class Result(BaseModel):
    """The output of a completed render. Its URL grants access: it must not leave the function
    that asked for it, so this is never dumped, logged or returned by a step."""

    model_config = ConfigDict(frozen=True)

    video_url: str | None = Field(
        repr=False, description="Of the first video; None when the output offers none."
    )
    nsfw: bool | None = Field(
        default=None, description="What the provider's detector says; None when it has none."
    )


class RenderLost(Exception):
    """The result says that the render failed or was cancelled: `answer` is what a poll would have
    been told."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


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

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        """Ask for one render of an offer's endpoint, once, and return the request id.

        Raises `Refusal` (certainly not accepted) or `Unclear` (perhaps accepted).
        """

    def ask(self, ticket: Ticket) -> Answer:
        """The state of accepted work. Raises `Unreachable` or `UnknownRequest`."""

    def result(self, ticket: Ticket) -> Result:
        """What a completed render offers. Raises `RenderLost`, `Unreachable` (ask again) or
        `UnknownRequest`."""

    def cancel(self, ticket: Ticket) -> bool:
        """Cancel work that is still queued. True when the provider says it is cancelled.

        Raises `Unreachable`.
        """
