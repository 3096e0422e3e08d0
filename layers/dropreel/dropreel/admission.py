"""Admission: which job gets a slot of its provider, and when.

A slot is one of the renders that a provider's account may have in flight. Every job first joins
its provider's queue, with the task token by which its execution is told to go on. Then whoever has
changed something serves the queue: a job that joined, a render that is over, a run that ended, the
daily sweep. The first in the queue gets a free slot, until either runs out. Whoever writes last
sees what all others wrote, so that no slot stays free beside a job that waits for it.

The queue is ordered by when the executions started: who was dropped first is served first, also
when it comes from another offer that refused it.

Every step may be cut off and run again:
- a slot is given in one transaction with the end of the wait and with the day's spend, and given
  back in one with the end of the charge;
- an attempt is admitted once: what has left neither comes back nor is submitted, however late a
  call for it comes;
- whoever gave it tells the execution afterwards, and tells it again when called again;
- a slot is a lease. When it has run out without having been returned, whoever needs it makes sure
  that its holder was told, and takes it back;
- a refund makes room in every queue, so every queue is served after one. (What a provider's late
  answer gives back, when the run is over already, serves with the next end or with the sweep.)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Literal, NamedTuple, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from dropreel.attempts import is_kept
from dropreel.catalog import ProviderName
from dropreel.errors import DropreelError, ExecutionAborted, PriceUnknown, SpendLimitReached
from dropreel.job import Job, execution_name
from dropreel.ledger import Attempt
from dropreel.observability import logger
from dropreel.render import AdmitRequest, Plan

_LOOKS_AT_MOST = 1000
"""So often one call may look at a queue; only a sweep after a long silence comes near."""

_GIVES_AT_MOST = 4
"""So many slots one call may give, but for the sweep. It gives more than the one that it made
free, so that what was left lying is soon taken up: each of those it serves does the same in the
end. It gives no more, because while many jobs end at once there is always another free slot, and
one call would serve them all until its time is up."""

_RACES_AT_MOST = 20
"""So often may others change a run between a look at it and the write that follows."""


class RunId(NamedTuple):
    """Names one execution of a job."""

    job_id: str
    number: int

    @classmethod
    def of(cls, job: Job) -> "RunId":
        return cls(job.id, job.run)

    @property
    def execution_name(self) -> str:
        return execution_name(self.job_id, self.number)


class Waiter(BaseModel):
    """A run that waits for a slot."""

    model_config = ConfigDict(frozen=True)

    provider: ProviderName
    run: RunId
    attempt: int = Field(ge=1, description="What it wants to submit.")
    started_at: AwareDatetime = Field(description="Of the execution; the queue's order.")
    estimated_usd: Decimal | None
    task_token: str = Field(repr=False)
    call: int = Field(
        default=0, description="Counts the state's tries: the highest has the valid token."
    )

    @property
    def place(self) -> str:
        """In the queue: sorts by the start of the execution."""
        since = self.started_at.astimezone(UTC)
        return f"{since:%Y-%m-%dT%H:%M:%S.%f}Z#{self.run.execution_name}"


class Lease(BaseModel):
    """A slot that is taken."""

    model_config = ConfigDict(frozen=True)

    provider: ProviderName
    slot: int = Field(ge=0)
    run: RunId
    granted_by: str = Field(description="The execution on whose behalf it was given.")
    until: AwareDatetime


class Standing(BaseModel):
    """How a run stands with admission."""

    model_config = ConfigDict(frozen=True)

    provider: ProviderName | None = None
    attempt: int | None = Field(default=None, description="That it was last admitted for, or is.")
    place: str | None = Field(default=None, description="In the queue, while it waits.")
    slot: int | None = None
    task_token: str | None = Field(default=None, repr=False, description="It waits or waited with.")
    charged_usd: Decimal | None = None
    charged_on: date | None = None
    left_attempt: int = Field(default=0, description="The last that gave back what it had.")
    is_closed: bool = False

    @property
    def has_something(self) -> bool:
        return (self.place, self.slot, self.charged_usd) != (None, None, None)


class Granting(Enum):
    """What became of an attempt to give a slot."""

    DONE = auto()
    OVERTAKEN = auto()  # another call was quicker: look again
    NO_ROOM = auto()  # in the day's spend, by now
    CLOSED = auto()  # the run is over, or is at another attempt


class FreeSlot(NamedTuple):
    """A slot to be had."""

    number: int
    expired: Lease | None = None  # the lease to be taken back first


class Served(Enum):
    """What serving one waiter came to."""

    GIVEN = auto()
    GONE = auto()  # its execution is: what it was given is given back
    OTHERWISE = auto()  # it is refused, or another call was quicker: look again
    WAITS_ON = auto()


class Slots(Protocol):
    """The ledger's side of it. Reads see every write before them, and every write is conditional:
    it happens once, or says that things have changed."""

    def standing(self, run: RunId) -> Standing: ...

    def join(self, waiter: Waiter, plan: Plan) -> bool:
        """Into the queue, or with a newer token. False when the run has its slot or is over."""

    def first_waiters(self, provider: ProviderName, at_most: int) -> Sequence[Waiter]: ...

    def leases(self, provider: ProviderName) -> Sequence[Lease]: ...

    def spent_usd(self, day: date) -> Decimal: ...

    def grant(
        self,
        waiter: Waiter,
        slot: int,
        *,
        by: str,
        until: datetime,
        now: datetime,
        limit_usd: Decimal | None,
    ) -> Granting:
        """The end of the wait, the slot and the spend, all or nothing."""

    def renew(self, lease: Lease, until: datetime) -> Lease | None:
        """The lease as it is from now on; None when somebody else has the slot by now."""

    def take_back(self, lease: Lease) -> bool:
        """Its slot is free from now on. False when somebody else has it by now."""

    def dismiss(self, waiter: Waiter) -> None:
        """Out of the queue, unless it is not there any more, or waits with another token."""

    def free(self, run: RunId, standing: Standing, rendered_at: datetime) -> bool:
        """The render is over: give its slot back, if the run holds it still, and let the charge
        stand. False when the run stands differently by now."""

    def leave(self, run: RunId, standing: Standing, *, refund: bool) -> bool:
        """Give back the place or the slot, and close the charge: give it back to its day, or let
        it stand. All or nothing, and for this attempt once and for all. False when the run stands
        differently by now, or when its attempt has begun and there is nothing to refund."""


class Executions(Protocol):
    """The executions that wait."""

    def go_on(self, task_token: str) -> bool:
        """False when nobody waits for it any more: told before, or gone."""

    def refuse(self, task_token: str, error: DropreelError) -> bool:
        """The same with an error."""

    def is_running(self, name: str) -> bool: ...


class Attempts(Protocol):
    """The ledger's attempts."""

    def find(self, job_id: str, number: int) -> Attempt | None: ...


@dataclass(frozen=True)
class Limits:
    """What an account's owner allows."""

    in_flight: Mapping[ProviderName, int]
    lease: Mapping[ProviderName, timedelta]
    daily_usd: Decimal | None = None
    on_daily_usd: Literal["wait", "fail"] = "wait"


@dataclass(frozen=True)
class Admission:
    """Gives slots and takes them back."""

    slots: Slots
    executions: Executions
    attempts: Attempts
    clock: Callable[[], datetime]
    limits: Limits

    def admit(self, request: AdmitRequest) -> None:
        """Let the run join the queue of its offer's provider, and serve that.

        The answer goes to the execution by its task token: now, when there is a slot, or whenever
        there is one. May be called again, with a newer token.
        """
        plan, turn = request.plan, request.next
        run, offer = RunId.of(plan.job), plan.route[turn.offer]
        standing = self.slots.standing(run)
        if standing.attempt is not None and standing.attempt > turn.attempt:
            return  # a call that Step Functions gave up on long ago
        comes_back = standing.attempt is not None and standing.attempt < turn.attempt
        if comes_back:
            self._leave(run, before=turn.attempt)
        waiter = Waiter(
            provider=offer.provider,
            run=run,
            attempt=turn.attempt,
            started_at=request.started_at,
            estimated_usd=_decimal(offer.estimated_usd),
            task_token=request.task_token,
            call=request.call,
        )
        if error := self._without_a_price(waiter, f"{offer.provider}'s {offer.endpoint}"):
            self.executions.refuse(request.task_token, error)
        elif not self.slots.join(waiter, plan):
            self._answer_instead(run, waiter)
        # Only now, so that it keeps its turn when it asks the same provider again.
        if comes_back:
            self.serve_all(by=run.execution_name)
        else:
            self._serve_first(offer.provider, by=run.execution_name)

    def rendered(self, job: Job, attempt: int) -> None:
        """The provider is done with the run's attempt: its slot goes to the next waiter."""
        run = RunId.of(job)
        for standing in self._looks_at(run):
            if standing.slot is None or standing.attempt != attempt:
                break
            if self.slots.free(run, standing, self.clock()):
                break
        if standing.provider:
            self._serve_first(standing.provider, by=run.execution_name, first_of_all=standing.slot)

    def leave(self, job: Job) -> None:
        """Out of the queue and out of the slot, whichever it is, and on with the next.

        The estimate goes back to its day, unless the render may be paid for.
        """
        run = RunId.of(job)
        standing = self.slots.standing(run)
        self._leave(run)
        if standing.task_token and (standing.place or standing.slot is not None):
            # Who waits with it after all was redriven before this end was known.
            self.executions.refuse(standing.task_token, _over())
        self.serve_all(by=run.execution_name)

    def serve_all(self, by: str = "") -> None:
        """Serve every queue. Without a name it is the sweep, which tells all holders of slots
        again: most of them know."""
        to_serve = [*ProviderName]
        while to_serve:
            provider = to_serve.pop(0)
            if self._serve(provider, by=by) and self.limits.daily_usd:
                to_serve += [other for other in ProviderName if other not in (provider, *to_serve)]

    # Leaving

    def _leave(self, run: RunId, before: int | None = None) -> None:
        """The run gives back what it has; or only what an attempt before this one has."""
        for standing in self._looks_at(run):
            is_later = before and standing.attempt and standing.attempt >= before
            if is_later or not standing.has_something:
                return
            if self.slots.leave(run, standing, refund=not self._may_be_paid(run, standing)):
                return

    def _may_be_paid(self, run: RunId, standing: Standing) -> bool:
        attempt = self.attempts.find(run.job_id, standing.attempt or 0)
        return attempt is not None and is_kept(attempt)

    def _looks_at(self, run: RunId) -> Iterator[Standing]:
        """How the run stands, looked at anew each time that it has changed under the last look."""
        for _ in range(_RACES_AT_MOST):
            yield self.slots.standing(run)
        raise RuntimeError("The run changed under each look.")

    # Serving

    def _serve_first(
        self, provider: ProviderName, by: str, first_of_all: int | None = None
    ) -> None:
        """Serve one queue; the others, too, when that gave something back to the day."""
        if self._serve(provider, by, first_of_all) and self.limits.daily_usd:
            self.serve_all(by)

    def _serve(self, provider: ProviderName, by: str, first_of_all: int | None = None) -> bool:
        """Give free slots to who waits, the one that the caller made free `first_of_all`. Returns
        whether somebody was gone, and gave back what it had."""
        leases = self.slots.leases(provider)
        mine = [lease for lease in leases if lease.granted_by == by or not by]
        someone_was_gone = False
        for lease in mine:
            someone_was_gone |= not self._tell_again(lease)
        if mine:
            leases = self.slots.leases(provider)
        given = 0
        for _ in range(_LOOKS_AT_MOST):
            now = self.clock()
            # The queue is looked at only when there is something to give, and then no more of it
            # than that: what a job costs does not grow with the number of those that wait.
            turn = self._next_turn(provider, leases, first_of_all, now)
            if turn is None:
                return someone_was_gone
            waiter, free = turn
            served = self._serve_one(waiter, free, by, now)
            someone_was_gone |= served is Served.GONE
            given += served is Served.GIVEN
            if served is Served.WAITS_ON or (by and given >= _GIVES_AT_MOST):
                return someone_was_gone
            leases = self.slots.leases(provider)
            if served is Served.OTHERWISE:
                self._tell_unheard(waiter, leases, by)
        logger.warning("More jobs wait than one call may serve", provider=provider)
        return someone_was_gone

    def _next_turn(
        self,
        provider: ProviderName,
        leases: Sequence[Lease],
        first_of_all: int | None,
        now: datetime,
    ) -> tuple[Waiter, FreeSlot] | None:
        """The first in the queue, and a slot for it.

        When several slots are free, several calls are about to give them. Each takes the one that
        it made free, and of the queue the place that the slot has among the free ones, so that
        they do not all reach for the same. With a limit on spending the order is strict.
        """
        slots = self._slots_to_have(provider, leases, now)
        if not slots:
            return None
        place = 0
        if not self.limits.daily_usd:
            place = next((i for i, free in enumerate(slots) if free.number == first_of_all), 0)
        waiters = self.slots.first_waiters(provider, place + 1)
        return (waiters[-1], slots[place]) if waiters else None

    def _serve_one(self, waiter: Waiter, free: FreeSlot, by: str, now: datetime) -> Served:
        """Give who is next what it waits for."""
        if error := self._refusal(waiter, now):
            if self.limits.on_daily_usd == "wait" and not self._can_never_fit(waiter):
                logger.info("Waits for room in a day's spend", job_id=waiter.run.job_id)
                return Served.WAITS_ON
            self.executions.refuse(waiter.task_token, error)
            self.slots.dismiss(waiter)
            return Served.OTHERWISE
        if free.expired and not self._is_taken_back(free.expired, now):
            return Served.OTHERWISE
        granted = self.slots.grant(
            waiter,
            free.number,
            by=by,
            until=now + self.limits.lease[waiter.provider],
            now=now,
            limit_usd=self.limits.daily_usd,
        )
        if granted is Granting.DONE:
            logger.info(
                "Slot given",
                provider=waiter.provider,
                slot=free.number,
                job_id=waiter.run.job_id,
            )
            return Served.GIVEN if self._tell(waiter.run, waiter.task_token) else Served.GONE
        if granted is Granting.CLOSED:
            self.slots.dismiss(waiter)
        return Served.OTHERWISE

    def _tell_unheard(self, waiter: Waiter, leases: Sequence[Lease], by: str) -> None:
        """Another call was quicker; or this very one, if the answer to its first try was lost."""
        for lease in leases:
            if lease.run == waiter.run and lease.granted_by == by:
                self._tell_again(lease)

    def _answer_instead(self, run: RunId, waiter: Waiter) -> None:
        """The run may not join: an earlier call had it admitted, but its answer came too soon for
        this token; or it is over, and somebody redrives its execution."""
        standing = self.slots.standing(run)
        if standing.slot is not None and standing.attempt == waiter.attempt:
            self.executions.go_on(waiter.task_token)
        elif standing.is_closed or standing.left_attempt >= waiter.attempt:
            self.executions.refuse(waiter.task_token, _over())

    def _tell_again(self, lease: Lease) -> bool:
        """Who gave the slot may have been cut off before telling. The lease begins anew first:
        its holder may only begin now. False when its execution is gone."""
        if not self.slots.renew(lease, self.clock() + self.limits.lease[lease.provider]):
            return True
        task_token = self._token_of(lease)
        return task_token is None or self._tell(lease.run, task_token)

    def _token_of(self, lease: Lease) -> str | None:
        standing = self.slots.standing(lease.run)
        return standing.task_token if standing.slot == lease.slot else None

    def _tell(self, run: RunId, task_token: str) -> bool:
        """Tell the holder of a slot to go on. False when its execution is gone: it is skipped."""
        if self.executions.go_on(task_token) or self.executions.is_running(run.execution_name):
            return True
        logger.info("Its execution is gone: skipped", job_id=run.job_id)
        self._leave(run)
        return False

    def _slots_to_have(
        self, provider: ProviderName, leases: Sequence[Lease], now: datetime
    ) -> Sequence[FreeSlot]:
        """The free slots, lowest first, then those whose lease has run out; no more than there is
        room for, while slots above a lowered limit are still taken."""
        at_most = self.limits.in_flight[provider]
        expired = [lease for lease in leases if lease.until <= now]
        room = at_most - (len(leases) - len(expired))
        taken = {lease.slot for lease in leases}
        free = (
            *(FreeSlot(slot) for slot in range(at_most) if slot not in taken),
            *(FreeSlot(lease.slot, lease) for lease in expired if lease.slot < at_most),
        )
        return free[: max(room, 0)]

    def _is_taken_back(self, lease: Lease, now: datetime) -> bool:
        """Make the slot of an expired lease free; False when its holder was still waiting to be
        told, and begins now. It is renewed before it is told: both may be cut off."""
        renewed = self.slots.renew(lease, now + self.limits.lease[lease.provider])
        if renewed is None:
            return False
        task_token = self._token_of(renewed)
        if task_token and self.executions.go_on(task_token):
            return False
        return self.slots.take_back(renewed)

    # Spending

    def _refusal(self, waiter: Waiter, now: datetime) -> PriceUnknown | SpendLimitReached | None:
        if error := self._without_a_price(waiter, f"This render at {waiter.provider}"):
            return error
        limit, estimate = self.limits.daily_usd, waiter.estimated_usd
        if not limit or not estimate:
            return None
        if estimate > limit:
            return SpendLimitReached(
                f"This render costs about {estimate} USD, more than a whole day's limit of "
                f"{limit} USD."
            )
        spent = self.slots.spent_usd(now.date())
        if spent + estimate <= limit:
            return None
        return SpendLimitReached(
            f"This render costs about {estimate} USD; {spent} USD of the {limit} USD of "
            f"{now:%Y-%m-%d} (UTC) are spent."
        )

    def _without_a_price(self, waiter: Waiter, what: str) -> PriceUnknown | None:
        """Asked when a job comes, and again when it is served: the limit may be set meanwhile."""
        if not self.limits.daily_usd or waiter.estimated_usd is not None:
            return None
        return PriceUnknown(
            f"{what} has no known price in the resolution that is asked for, and "
            "DailySpendLimitUsd is set."
        )

    def _can_never_fit(self, waiter: Waiter) -> bool:
        limit, estimate = self.limits.daily_usd, waiter.estimated_usd
        return bool(limit and (estimate is None or estimate > limit))


def _over() -> ExecutionAborted:
    return ExecutionAborted("This run of the job is over: a redrive cannot go on with it.")


def _decimal(usd: float | None) -> Decimal | None:
    """Money is counted exactly: in steps of a ten-thousandth, as estimates are."""
    return None if usd is None else Decimal(str(round(usd, 4)))
