"""The interface to a provider. Each provider has one module in `providers/` that satisfies it."""

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, Field

from dropreel.model.catalog import ProviderName
from dropreel.model.closure import Account

QUEUE_TIMEOUT_SECONDS = 120 * 60.0
RENDER_TIMEOUT_SECONDS = 60 * 60.0
"""As in the template."""


class RenderState(StrEnum):
    """The state of an accepted render."""

    QUEUED = "queued"
    RENDERING = "rendering"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Ticket(BaseModel, frozen=True):
    """The proof that a provider accepted an attempt."""

    provider: ProviderName
    endpoint: str
    request_id: str
    attempt: int = Field(ge=1)
    offer: int = Field(ge=0, description="The offer's place in the plan's route.")
    submitted_at: datetime
    queue_timeout_seconds: float = Field(
        default=QUEUE_TIMEOUT_SECONDS, description="From the submission. Fixed then."
    )
    render_timeout_seconds: float = Field(
        default=RENDER_TIMEOUT_SECONDS,
        description="From when a poll first saw it rendering. Fixed at the submission.",
    )


class FailureCause(StrEnum):
    """Why an accepted render failed, as far as the next step depends on it."""

    MODERATED = "moderated"
    BAD_INPUT = "bad input"
    MEDIA_UNREADABLE = "media unreadable"  # fresh URLs may help
    NO_CREDIT = "no credit"
    OTHER = "other"


class Answer(BaseModel, frozen=True):
    """A provider's answer to a poll."""

    state: RenderState
    message: str = Field(default="", description="The provider's words, without any URL.")
    cause: FailureCause = Field(default=FailureCause.OTHER, description="Of a failure.")


class Result(BaseModel, frozen=True):
    """The output of a completed render. Its URL grants access, so no step dumps, logs or returns
    it."""

    video_url: str | None = Field(
        repr=False, description="Of the first video; None when the output has none."
    )
    nsfw: bool | None = Field(
        default=None, description="The provider's detector's result; None when it has none."
    )
    actual_usd: float | None = Field(
        default=None, description="What was charged; None when the result does not say."
    )


class Lookup(BaseModel, frozen=True):
    """What a look into a provider's list of requests found."""

    request_id: str | None = Field(default=None, description="Of the request with our files.")
    listed: int = Field(description="The requests for the endpoint in that time.")
    readable: int = Field(description="Those among them that show their files.")
    read_of_more: int = Field(
        default=0, description="How many entries were read of a longer list; 0 for a whole list."
    )


class RenderLost(Exception):
    """The result says that the render failed or was cancelled; `answer` is as from a poll."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


class Refusal(Exception):
    """The provider refused a submission: it accepted nothing, so nothing is paid.

    `code` is the name of the `DropreelError` that ends the job if there is no retry (`again`).
    `closes_provider` says that the account was refused, not this model or request: so every job
    would be.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        again: bool = False,
        retry_after_seconds: float = 0,
        closes_provider: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.again = again
        self.closes_provider = closes_provider
        self.retry_after_seconds = retry_after_seconds


class Unclear(Exception):
    """Sent, with no usable answer: the provider may have accepted the request."""


class Unreachable(Exception):
    """A call about an accepted request got no answer. The request's state is unknown."""

    def __init__(self, message: str, *, retry_after_seconds: float = 0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class UnknownRequest(Exception):
    """The provider does not know the request id."""


class Provider(Protocol):
    """A provider's API. Its answers contain no token, and it logs no URL."""

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        """Request one render at an endpoint, in one call. Returns the request id.

        Raises `Refusal` (certainly not accepted) or `Unclear` (perhaps accepted).
        """

    def ask(self, ticket: Ticket) -> Answer:
        """The state of an accepted request. Raises `Unreachable` or `UnknownRequest`."""

    def result(self, ticket: Ticket) -> Result:
        """The output of a completed render. Raises `RenderLost`, `Unreachable` or
        `UnknownRequest`."""

    def cancel(self, ticket: Ticket) -> bool:
        """Cancel a request that is still queued. True when the provider confirms it.

        Raises `Unreachable`.
        """

    def ask_account(self) -> Account:
        """Ask by a free call whether the stored token, read anew, is accepted, and whether there
        is credit. Raises nothing: no usable answer is a state, too."""

    @property
    def lists_requests(self) -> bool:
        """Whether the provider publishes a list of requests, so that `find` may be called."""

    def find(
        self,
        endpoint: str,
        urls: Collection[str],
        since: datetime,
        until: datetime,
        known: Collection[str],
    ) -> Lookup:
        """Look for a request of that time that has all these input URLs, whatever their signatures.

        Requests in `known` do not count. Raises `Unreachable`.
        """

    def cost(self, ticket: Ticket) -> float | None:
        """The US dollars charged for a completed render, by one short call. None when there is no
        bill yet, or the provider publishes no way. Raises `Unreachable`."""

    def forget(self, ticket: Ticket) -> bool:
        """Delete the provider's record of a delivered render. True when it is gone; False when the
        provider deleted nothing, or publishes no way. Raises `Unreachable`."""
