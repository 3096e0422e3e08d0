"""The ledger: what was submitted, written down before it is sent and completed after.

An attempt is begun, then accepted, postponed or refused; an accepted one may be lost. One that
stays begun was sent with no known outcome: nobody may send it again, because that could be paid
twice.
"""

from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from dropreel.model.catalog import ProviderName
from dropreel.model.job import Job
from dropreel.model.messages import NextAttempt, Plan, PlannedOffer
from dropreel.model.provider import QUEUE_TIMEOUT_SECONDS, RENDER_TIMEOUT_SECONDS, Ticket


class AttemptState(StrEnum):
    BEGUN = "begun"
    ACCEPTED = "accepted"
    POSTPONED = "postponed"  # refused for now: the only state that may be begun again
    REFUSED = "refused"
    LOST = "lost"  # accepted, and then failed, cancelled or forgotten at the provider


class Attempt(BaseModel):
    """One paid render that a job asks of an offer, at most once."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    number: int = Field(ge=1)
    run: int = Field(default=1, ge=1, description="Of the job, that made it.")
    provider: ProviderName
    endpoint: str
    offer: int = Field(ge=0, description="The offer's place in the plan's route.")
    state: AttemptState
    begun_at: datetime
    begun_by: str = Field(description="Names the one call that may accept or refuse it.")
    request_id: str | None = Field(default=None, description="Given once it is accepted.")
    accepted_at: datetime | None = None
    code: str | None = Field(
        default=None, description="Why it was postponed, refused or lost: an error's name."
    )
    message: str = Field(default="", description="The same in words, without any URL.")
    estimated_usd: float | None = Field(default=None, description="What it was expected to cost.")
    queue_timeout_seconds: float = QUEUE_TIMEOUT_SECONDS
    render_timeout_seconds: float = RENDER_TIMEOUT_SECONDS

    @property
    def ticket(self) -> Ticket | None:
        """The proof that the provider accepted it, unless it is known to be lost."""
        if self.state is not AttemptState.ACCEPTED or not (self.request_id and self.accepted_at):
            return None
        return self.ticket_for(self.request_id, self.accepted_at)

    def ticket_for(
        self, request_id: str, accepted_at: datetime, *, is_recorded: bool = True
    ) -> Ticket:
        return Ticket(
            provider=self.provider,
            endpoint=self.endpoint,
            request_id=request_id,
            attempt=self.number,
            offer=self.offer,
            submitted_at=accepted_at,
            queue_timeout_seconds=self.queue_timeout_seconds,
            render_timeout_seconds=self.render_timeout_seconds,
            is_recorded=is_recorded,
        )


class Run(BaseModel):
    """One execution of a job, as far as the ledger knows of it."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    number: int = Field(ge=1)
    plan: Plan | None = Field(default=None, description="Once it asked to be admitted.")
    started_at: datetime | None = None
    admitted_at: datetime | None = None
    rendered_at: datetime | None = None
    closed_at: datetime | None = Field(
        default=None, description="When conclude began: nothing of it is admitted from then on."
    )
    ended_at: datetime | None = None
    outcome: str | None = Field(
        default=None, description="`VideoReady` or an error's code, once all is said and done."
    )


class Admitted(BaseModel):
    """What an attempt of a run was admitted for."""

    model_config = ConfigDict(frozen=True)

    offer: int = Field(description="The offer's place in the plan's route.")
    estimated_usd: float | None = Field(description="None when its price is not known.")


class RunClosed(Exception):
    """The run is being concluded, or was, or its attempt has left its slot: nothing may be sent
    for it any more."""


class Ledger(Protocol):
    """Reads see every write that came before; writes are conditional and may be repeated."""

    def find(self, job_id: str, number: int) -> Attempt | None:
        """The attempt as it stands."""

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        """All attempts of a job, in order."""

    def admitted(self, job: Job, attempt: int) -> Admitted | None:
        """What an attempt of the job's run was admitted for; None when it was not."""

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
        """Take the right to send an attempt that nobody has sent, or that was postponed.

        None when another call has it: then nothing may be sent. Raises `RunClosed`.
        """

    def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
        """The provider took it. Only for the call that began the attempt."""

    def postpone(self, attempt: Attempt, code: str, message: str) -> None:
        """The provider took nothing for now. Only for the call that began the attempt."""

    def refuse(self, attempt: Attempt, code: str, message: str) -> None:
        """The provider took nothing, and that is that. Only for the call that began it."""

    def lose(self, job_id: str, ticket: Ticket, code: str, message: str) -> None:
        """The provider took it and brings no video. Only for the request that it took."""

    def confirm(self, job_id: str, ticket: Ticket) -> None:
        """The provider took it, and the ledger could not note that at the time."""

    def is_closed(self, job: Job) -> bool:
        """Whether the run is being concluded, or was."""

    def take_turn(self, provider: ProviderName, per_minute: int, now: datetime) -> datetime:
        """The next free moment for a call, of which no minute has more than so many. Each call
        takes one, whether it is used or not."""

    def runs(self, job_id: str) -> tuple[Run, ...]:
        """All runs of a job, in order."""

    def resume(self, plan: Plan, now: datetime) -> None:
        """The plan's job waits for what an earlier run was accepted for, without being admitted."""

    def close(self, job: Job, now: datetime) -> None:
        """The run is being concluded. May be repeated: the first time stands."""

    def end(self, job: Job, outcome: str, now: datetime) -> None:
        """All is said and done. May be repeated: the first outcome stands."""
