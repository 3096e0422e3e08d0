"""The data that the steps of one render pass on through Step Functions.

Small, without secrets and without URLs that grant access: the execution's history shows all of it.
"""

from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from dropreel.model.catalog import AudioFormat, ImageFormat, OptionValue, ProviderName
from dropreel.model.job import Input, Job
from dropreel.model.provider import RenderState, Ticket


class _Message(BaseModel):
    """Passed between the steps of an execution."""

    # Its errors would else quote prompts and task tokens.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class ImageFacts(_Message):
    """Of the copy that is sent."""

    format: ImageFormat
    width: int
    height: int
    size_bytes: int


class AudioFacts(_Message):
    """Of the copy that is sent."""

    format: AudioFormat
    duration_seconds: float
    size_bytes: int


class PlannedOffer(_Message):
    """An offer that takes the job's media and options, and the request for it."""

    provider: ProviderName
    endpoint: str
    fields: dict[str, OptionValue] = Field(
        description="The request's body in the provider's spelling, without the media's URLs."
    )


class Plan(_Message):
    """Prepare's answer: a valid job, and the offers that take it."""

    job: Job
    route: tuple[PlannedOffer, ...] = Field(min_length=1, description="In order of preference.")
    image: Input = Field(description="The copy that is sent, in the work bucket.")
    image_facts: ImageFacts
    audio: Input | None
    audio_facts: AudioFacts | None
    changes: tuple[str, ...] = Field(default=(), description="What was changed, in sentences.")
    sha256: dict[str, str] = Field(
        default_factory=dict, description="Of the bytes that were read, by the upload's key."
    )
    first_attempt: int = Field(
        default=1, ge=1, description="The number of this run's first attempt."
    )
    resume: Ticket | None = Field(
        default=None,
        description="A request of an earlier run that the provider may still have: this run waits "
        "for it instead of submitting again.",
    )


class Repetition(_Message):
    """Prepare's answer instead of a plan: there is nothing to render."""

    same_as: str = Field(
        description="The id of the job of the same contents, which has made the video or makes it."
    )


class Checked(_Message):
    """Prepare's answer to a dry run instead of a plan: admit and submit cannot read it."""

    checked: Plan = Field(description="What a render would begin with.")


class NextAttempt(_Message):
    """The next submission. The state machine passes it back unchanged."""

    attempt: int = Field(default=1, ge=1)
    offer: int = Field(default=0, ge=0, description="The offer's place in the plan's route.")
    tries: int = Field(
        default=0, ge=0, description="Calls to the provider for this attempt so far."
    )
    throttled_since: AwareDatetime | None = Field(
        default=None, description="When the provider first answered 'too many requests'."
    )
    is_paced: bool = Field(
        default=False, description="Whether the next call has its place within the minute."
    )
    unclear: str | None = Field(
        default=None,
        description="Why it is unknown whether the attempt was accepted. It is looked up, and "
        "never sent again.",
    )
    looks: int = Field(default=0, ge=0, description="At the provider's list of requests so far.")


class Submission(_Message):
    """Submit's answer: a ticket, or how long to wait and what to submit or to look up then."""

    ticket: Ticket | None = None
    wait_seconds: int = Field(ge=0, description="Until the next poll or the next try.")
    next: NextAttempt = NextAttempt()
    falls_over: bool = Field(
        default=False,
        description="Whether `next` is another attempt, which has to be admitted first.",
    )


class Progress(_Message):
    """Poll's answer: how far the render is, and when to poll again."""

    state: RenderState
    wait_seconds: int = Field(ge=0)
    rendering_since: datetime | None = Field(
        default=None, description="When a poll first saw it rendering."
    )
    completed_at: datetime | None = Field(
        default=None, description="When a poll first saw it complete."
    )
    next: NextAttempt | None = Field(
        default=None, description="How to submit again, after the render failed."
    )
    unknown_since: datetime | None = Field(
        default=None, description="Since when the provider does not know the request."
    )
    message: str = Field(default="", description="The provider's last words about the render.")


class _Planned(_Message):
    plan: Plan

    @property
    def job(self) -> Job:
        return self.plan.job


_MAX_RETRIES = 10_000
"""Of a state: more than the definition allows. Throttled calls count, too."""


class AdmitRequest(_Planned):
    """Admit's input. A call with the task token lets the waiting execution go on."""

    next: NextAttempt = NextAttempt()
    task_token: str = Field(repr=False)
    retry: int = Field(ge=0, lt=_MAX_RETRIES, description="Of this state, since the last redrive.")
    redrive: int = Field(default=0, ge=0, description="Of the execution.")
    started_at: AwareDatetime = Field(description="When the execution started.")

    @property
    def attempt(self) -> int:
        return self.next.attempt

    @property
    def call(self) -> int:
        """Orders the calls for this attempt: the highest has the newest token."""
        return _MAX_RETRIES * self.redrive + self.retry


class SubmitRequest(_Planned):
    """Submit's input."""

    next: NextAttempt = NextAttempt()
    started_at: AwareDatetime | None = Field(
        default=None,
        description="When the execution started. None in an execution that 0.1.0 started.",
    )

    @property
    def attempt(self) -> int:
        return self.next.attempt


class ActiveRender(_Planned):
    """Poll's and deliver's input: a render that a provider has accepted."""

    ticket: Ticket
    progress: Progress | None = None
    started_at: AwareDatetime = Field(description="When the execution started.")

    @property
    def attempt(self) -> int:
        return self.ticket.attempt


class EndedJob(_Message):
    """Announce's input: a run whose outcome is in the ledger."""

    job: Job
    execution: str = Field(description="The execution's ARN.")
    started_at: AwareDatetime = Field(description="When the execution started.")
