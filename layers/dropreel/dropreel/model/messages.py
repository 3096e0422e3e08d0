"""What the steps of one render hand to each other through Step Functions.

Small, and free of secrets and of URLs that grant access: all of it can be read in the history.
"""

from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from dropreel.model.catalog import AudioFormat, ImageFormat, OptionValue, ProviderName
from dropreel.model.job import Input, Job
from dropreel.model.provider import RenderState, Ticket


class ImageFacts(BaseModel):
    """What a picture really is, whatever its name says."""

    model_config = ConfigDict(frozen=True)

    format: ImageFormat
    width: int
    height: int
    size_bytes: int


class AudioFacts(BaseModel):
    """What a recording really is, whatever its name says."""

    model_config = ConfigDict(frozen=True)

    format: AudioFormat
    duration_seconds: float
    size_bytes: int


class PlannedOffer(BaseModel):
    """An offer that accepts everything that the job brings, and what it will be told."""

    model_config = ConfigDict(frozen=True)

    provider: ProviderName
    endpoint: str
    fields: dict[str, OptionValue] = Field(
        description="The request's body in the provider's spelling, without the media's URLs."
    )


class Plan(BaseModel):
    """Prepare's answer: a job that may be paid for, and the offers that it can go to."""

    model_config = ConfigDict(frozen=True)

    job: Job
    route: tuple[PlannedOffer, ...] = Field(min_length=1, description="In order of preference.")
    image: Input = Field(description="What is sent: a copy under `work/`.")
    image_facts: ImageFacts
    audio: Input | None
    audio_facts: AudioFacts | None
    changes: tuple[str, ...] = Field(default=(), description="What was changed, in sentences.")
    sha256: dict[str, str] = Field(
        default_factory=dict, description="Of the bytes that were read, by the upload's key."
    )
    first_attempt: int = Field(
        default=1, ge=1, description="Of this run: earlier attempts were another run's."
    )
    resume: Ticket | None = Field(
        default=None,
        description="What a provider accepted in an earlier run and may still have: it is waited "
        "for and delivered, not submitted again.",
    )


class NextAttempt(BaseModel):
    """What submit is to do next. The state machine hands it back as it is."""

    model_config = ConfigDict(frozen=True)

    attempt: int = Field(default=1, ge=1)
    offer: int = Field(default=0, ge=0, description="The offer's place in the plan's route.")
    tries: int = Field(
        default=0, ge=0, description="Calls to the provider for this attempt so far."
    )
    throttled_since: AwareDatetime | None = Field(
        default=None, description="When the provider first answered 'too many requests'."
    )
    is_paced: bool = Field(
        default=False, description="Whether the next call has its turn within the minute."
    )


class Submission(BaseModel):
    """Submit's answer: a ticket, or how long to wait and what to try then."""

    model_config = ConfigDict(frozen=True)

    ticket: Ticket | None = None
    wait_seconds: int = Field(ge=0, description="Until the next question or the next try.")
    next: NextAttempt = NextAttempt()
    falls_over: bool = Field(
        default=False, description="`next` is another attempt: it needs to be admitted first."
    )


class Progress(BaseModel):
    """Poll's answer: how far the render is, and when to ask again."""

    model_config = ConfigDict(frozen=True)

    state: RenderState
    wait_seconds: int = Field(ge=0)
    rendering_since: datetime | None = Field(
        default=None, description="When a poll first saw the render begun."
    )
    completed_at: datetime | None = Field(
        default=None, description="When a poll first saw the render completed."
    )
    next: NextAttempt | None = Field(
        default=None, description="The render failed and is to be submitted again like this."
    )
    unknown_since: datetime | None = Field(
        default=None, description="When the provider first did not know it, and has not since."
    )


class AdmitRequest(BaseModel):
    """What admit is called with. The token is how the waiting execution is told to go on."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    next: NextAttempt = NextAttempt()
    task_token: str = Field(repr=False)
    retry: int = Field(ge=0, lt=1000, description="Of this state, since the last redrive.")
    redrive: int = Field(default=0, ge=0, description="Of the execution.")
    started_at: AwareDatetime = Field(description="When the execution started.")

    @property
    def call(self) -> int:
        """Counts the calls for this attempt: a later one has the newer token."""
        return 1000 * self.redrive + self.retry


class SubmitRequest(BaseModel):
    """What submit is called with."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    next: NextAttempt = NextAttempt()


class ActiveRender(BaseModel):
    """What poll and deliver are called with: a render that a provider has accepted."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    ticket: Ticket
    progress: Progress | None = None
    started_at: AwareDatetime | None = Field(
        default=None, description="When the execution started."
    )
