"""What the steps of one render hand to each other through Step Functions.

Small, and free of secrets and of URLs that grant access: all of it can be read in the history.
"""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from dropreel.catalog import AudioFormat, ImageFormat, ProviderName
from dropreel.job import Job
from dropreel.provider import RenderState


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


class Plan(BaseModel):
    """Validate's answer: a job that may be paid for, and the offer that it goes to."""

    model_config = ConfigDict(frozen=True)

    job: Job
    provider: ProviderName
    endpoint: str
    image: ImageFacts
    audio: AudioFacts
    estimated_usd: float | None = None


class Ticket(BaseModel):
    """The proof that a provider accepted an attempt."""

    model_config = ConfigDict(frozen=True)

    provider: ProviderName
    request_id: str
    attempt: int = Field(ge=1)
    submitted_at: datetime


class Submission(BaseModel):
    """Submit's answer: a ticket, or, while the provider takes nothing, how long to wait."""

    model_config = ConfigDict(frozen=True)

    ticket: Ticket | None = None
    wait_seconds: int = Field(ge=0, description="Until the next question or the next try.")
    tries: int = Field(ge=1, description="Calls to the provider so far, this one included.")


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


class SubmitRequest(BaseModel):
    """What submit is called with."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    attempt: int = Field(default=1, ge=1)
    tries: int = Field(default=0, ge=0, description="Calls to the provider before this one.")


class Underway(BaseModel):
    """What poll and deliver are called with: a render that a provider has accepted."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    ticket: Ticket
    progress: Progress | None = None
