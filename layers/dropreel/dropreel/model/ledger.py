"""The ledger: each submission is written before it is sent, and its outcome after.

An attempt is begun, then accepted, postponed or refused; an accepted one may be lost. One that
stays begun was sent with unknown outcome: sending it again could be paid twice, so nobody may.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, Field

from dropreel.model.catalog import ProviderName
from dropreel.model.events import (
    AttemptSummary,
    DetailType,
    Ended,
    JobChecked,
    VideoFailed,
    VideoReady,
)
from dropreel.model.job import Job, execution_name
from dropreel.model.messages import NextAttempt, Plan, PlannedOffer
from dropreel.model.provider import QUEUE_TIMEOUT_SECONDS, RENDER_TIMEOUT_SECONDS, Ticket

SAME_START = timedelta(seconds=1)
"""The context object and the status event give one start time, in milliseconds at best."""


class AttemptState(StrEnum):
    BEGUN = "begun"
    ACCEPTED = "accepted"
    POSTPONED = "postponed"  # refused for now: the only state that may be begun again
    REFUSED = "refused"
    LOST = "lost"  # accepted, and then failed, cancelled or forgotten at the provider


class Attempt(BaseModel, frozen=True):
    """One paid render of a job at an offer, sent at most once."""

    job_id: str
    number: int = Field(ge=1)
    run: int = Field(default=1, ge=1, description="The job's run that made it.")
    provider: ProviderName
    endpoint: str
    offer: int = Field(ge=0, description="The offer's place in the plan's route.")
    state: AttemptState
    begun_at: datetime
    begun_by: str = Field(description="The one call that may accept or refuse it.")
    request_id: str | None = Field(default=None, description="Set once it is accepted.")
    accepted_at: datetime | None = None
    code: str | None = Field(
        default=None, description="Why it was postponed, refused or lost: an error's name."
    )
    message: str = Field(default="", description="The same in words, without any URL.")
    closes_provider: bool = Field(
        default=False, description="Whether the refusal was of the account, for all jobs."
    )
    estimated_usd: float | None = Field(default=None, description="What it was expected to cost.")
    actual_usd: float | None = Field(default=None, description="What the provider charged.")
    queue_timeout_seconds: float = QUEUE_TIMEOUT_SECONDS
    render_timeout_seconds: float = RENDER_TIMEOUT_SECONDS

    @property
    def ticket(self) -> Ticket | None:
        """The proof that the provider accepted it, unless it is known to be lost."""
        if self.state is not AttemptState.ACCEPTED or not (self.request_id and self.accepted_at):
            return None
        return self.ticket_for(self.request_id, self.accepted_at)

    def ticket_for(self, request_id: str, accepted_at: datetime) -> Ticket:
        return Ticket(
            provider=self.provider,
            endpoint=self.endpoint,
            request_id=request_id,
            attempt=self.number,
            offer=self.offer,
            submitted_at=accepted_at,
            queue_timeout_seconds=self.queue_timeout_seconds,
            render_timeout_seconds=self.render_timeout_seconds,
        )


class Run(BaseModel, frozen=True):
    """One execution of a job, in the ledger."""

    job_id: str
    number: int = Field(ge=1)
    plan: Plan | None = Field(default=None, description="Set once it asks for admission.")
    started_at: datetime | None = None
    admitted_at: datetime | None = None
    rendered_at: datetime | None = None
    closed_at: datetime | None = Field(
        default=None, description="When conclude began: from then on nothing is admitted."
    )


class Outcome(BaseModel, frozen=True):
    """How a run ended. It is written once, and the run's event is sent from it."""

    detail: Ended
    sent_at: datetime | None = Field(
        default=None, description="Set after the event was sent. Without it, it is sent again."
    )

    @property
    def detail_type(self) -> DetailType:
        match self.detail:
            case VideoReady():
                return DetailType.VIDEO_READY
            case VideoFailed():
                return DetailType.VIDEO_FAILED
            case JobChecked():
                return DetailType.JOB_CHECKED

    @property
    def code(self) -> str:
        """An error's code, or `VideoReady`, or `JobChecked`."""
        if isinstance(self.detail, VideoFailed | JobChecked) and self.detail.error:
            return self.detail.error.code
        return type(self.detail).__name__


class ListedRun(BaseModel, frozen=True):
    """A run in the ledger's lists, which show many runs in few reads: of the open ones, and of
    those that ended on a day."""

    job_id: str
    number: int = Field(ge=1)
    name: str = Field(description="Folder and stem, such as `team/anna`.")
    model: str
    started_at: datetime
    ended_at: datetime | None = Field(default=None, description="None while it is open.")
    code: str | None = Field(default=None, description="`VideoReady`, or an error's code.")
    renders: tuple[AttemptSummary, ...] = Field(
        default=(), description="Its submissions, without the providers' words."
    )

    @classmethod
    def open(cls, job: Job, started_at: datetime) -> "ListedRun":
        return cls(
            job_id=job.id,
            number=job.run,
            name=f"{job.folder}{job.stem}",
            model=job.model,
            started_at=started_at,
        )

    @classmethod
    def ended(cls, outcome: Outcome) -> "ListedRun":
        detail = outcome.detail
        render = detail.render
        return cls(
            job_id=detail.job.id,
            number=detail.job.run,
            name=f"{detail.job.folder}{detail.job.stem}",
            model=detail.job.model,
            started_at=detail.job.started_at,
            ended_at=detail.ended_at,
            code=outcome.code,
            renders=tuple(
                made.model_copy(update={"message": ""})
                for made in (render.attempts if render else ())
            ),
        )

    @property
    def execution_name(self) -> str:
        return execution_name(self.job_id, self.number)


class Admitted(BaseModel, frozen=True):
    """The admission of an attempt."""

    offer: int = Field(description="The offer's place in the plan's route.")
    estimated_usd: float | None = Field(description="None when the price is not known.")


class RunClosed(Exception):
    """Conclude has begun for the run, or its attempt has left its slot: nothing may be sent."""


class Ledger(Protocol):
    """Reads see every write that came before; writes are conditional and may be repeated."""

    def find(self, job_id: str, number: int) -> Attempt | None:
        """The attempt in its current state."""

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        """All attempts of a job, in order."""

    def admitted(self, job: Job, attempt: int) -> Admitted | None:
        """The admission of an attempt of the job's run; None when it was not admitted."""

    def begin(
        self,
        job_id: str,
        next_attempt: NextAttempt,
        offer: PlannedOffer,
        now: datetime,
        *,
        run: int = 1,
        queue_timeout_seconds: float = QUEUE_TIMEOUT_SECONDS,
        render_timeout_seconds: float = RENDER_TIMEOUT_SECONDS,
        estimated_usd: float | None = None,
    ) -> Attempt | None:
        """Claim an attempt that was not sent yet, or was postponed.

        None when another call holds the claim: then nothing may be sent. Raises `RunClosed`.
        """

    def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
        """The provider accepted it. Only for the call that began the attempt."""

    def postpone(self, attempt: Attempt, code: str, message: str) -> None:
        """The provider refused it for now. Only for the call that began the attempt."""

    def refuse(
        self, attempt: Attempt, code: str, message: str, *, closes_provider: bool = False
    ) -> Attempt:
        """The provider refused it for good. Only for the call that began the attempt. Returns the
        refused attempt."""

    def lose(self, job_id: str, ticket: Ticket, code: str, message: str) -> None:
        """The provider accepted it and delivers no video. Only for the accepted request."""

    def confirm(self, job_id: str, ticket: Ticket) -> None:
        """The provider accepted it, and the ledger could not be written at the time."""

    def settle(self, job_id: str, ticket: Ticket, actual_usd: float) -> None:
        """Note what the provider charged for a delivered attempt, and correct what its day has
        spent by the difference. May be repeated: the first time counts."""

    def is_closed(self, job: Job) -> bool:
        """Whether conclude has begun for the run."""

    def take_turn(self, provider: ProviderName, per_minute: int, now: datetime) -> datetime:
        """Reserve the next free moment for a call, with at most so many a minute."""

    def runs(self, job_id: str) -> tuple[Run, ...]:
        """All runs of a job, in order."""

    def resume(self, plan: Plan, started_at: datetime, now: datetime) -> None:
        """The run that started then waits for an earlier run's request, and needs no admission."""

    def close(self, job: Job, now: datetime) -> None:
        """Conclude begins. May be repeated: the first time counts."""

    def end(self, job: Job, started_at: datetime, outcome: Outcome, now: datetime) -> Outcome:
        """Write the outcome of a run, unless it has one. Returns the one that is written."""

    def outcome(self, job: Job, started_at: datetime) -> Outcome | None:
        """The outcome of the run that started then; None while it has none."""

    def list_ended(self, outcome: Outcome) -> None:
        """Take the run from the list of the open ones to that of its last day. May be repeated."""

    def mark_sent(self, job: Job, now: datetime) -> bool:
        """The event of the run's outcome was sent. False when that was marked before."""
