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
  answer gives back, when the run is over already, serves within a minute.)

What an owner allows may change while jobs wait. So it counts when a job is served: what its render
costs by today's prices, and whether its offer may be asked at all. A job goes on to the next offer
of its route when its own has no price beside a limit on spending, or when its provider is paused:
the run says which offer it was admitted for, and that is the one to be asked. Nobody calls when a
setting changes or a day begins, so every minute somebody serves who waits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Literal, NamedTuple, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from dropreel.attempts import NOT_SUBMITTED, is_kept
from dropreel.catalog import ProviderName
from dropreel.errors import DropreelError, ExecutionAborted, PriceUnknown, SpendLimitReached
from dropreel.job import Job, execution_name
from dropreel.ledger import Attempt
from dropreel.observability import logger
from dropreel.prices import CATALOG_ONLY, Billed, Prices, billed, estimated_usd
from dropreel.render import AdmitRequest, Plan

_LOOKS_AT_MOST = 1000
"""So often one call may look at a queue, and so much of one it looks at; only after a long silence
does one come near."""

_GIVES_AT_MOST = 4
"""So many slots one call may give that has something else to do, too. It gives more than the one
that it made free, so that what was left lying is soon taken up: each of those it serves does the
same in the end. It gives no more, because while many jobs end at once there is always another free
slot, and one call would serve them all until its time is up."""

_RACES_AT_MOST = 20
"""So often may others change a run between a look at it and the write that follows."""


ASIDE = "~"
"""Sorts after every digit, with which a place begins otherwise."""


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

    run: RunId
    attempt: int = Field(ge=1, description="What it wants to submit.")
    route: tuple[Billed, ...]
    offer: int = Field(ge=0, description="The offer that it waits for: its place in the route.")
    started_at: AwareDatetime = Field(description="Of the execution; the queue's order.")
    is_aside: bool = Field(default=False, description="Behind all others: see `_step_aside`.")
    task_token: str = Field(repr=False)
    call: int = Field(
        default=0, description="Counts the state's tries: the highest has the valid token."
    )

    @property
    def provider(self) -> ProviderName:
        return self.route[self.offer].provider

    @property
    def place(self) -> str:
        """In the queue: sorts by the start of the execution, and after all others when aside."""
        since = self.started_at.astimezone(UTC)
        return f"{ASIDE * self.is_aside}{since:%Y-%m-%dT%H:%M:%S.%f}Z#{self.run.execution_name}"


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
        return (self.place, self.slot, self.charged_on) != (None, None, None)


class Day(NamedTuple):
    """What was submitted in a day (UTC), but for what was given back."""

    renders: int = 0
    spent_usd: Decimal = Decimal(0)


class Refund(Enum):
    """What a run that leaves an attempt gives back to the day that it was charged on."""

    ALL = auto()  # nothing was submitted
    USD = auto()  # it was, and is not paid for; it counts among the day's renders
    NOTHING = auto()  # it may be paid for


class Granting(Enum):
    """What became of an attempt to give a slot."""

    DONE = auto()
    OVERTAKEN = auto()  # another call was quicker: look again
    NO_ROOM = auto()  # in the day, by now
    CLOSED = auto()  # the run is over, or is at another attempt


class FreeSlot(NamedTuple):
    """A slot to be had."""

    number: int
    expired: Lease | None = None  # the lease to be taken back first


class Served(Enum):
    """What serving one waiter came to."""

    GIVEN = auto()
    GONE = auto()  # its execution is: what it was given is given back
    MOVED = auto()  # to the queue of another offer
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

    def move(self, waiter: Waiter, to: Waiter) -> bool:
        """Into another place, with the same token. False when it does not wait like this any
        more."""

    def day(self, day: date) -> Day: ...

    def grant(
        self,
        waiter: Waiter,
        slot: int,
        *,
        by: str,
        until: datetime,
        now: datetime,
        usd: Decimal | None,
        limits: "Limits",
    ) -> Granting:
        """The end of the wait, the slot and the charge to the day, all or nothing."""

    def renew(self, lease: Lease, until: datetime) -> Lease | None:
        """The lease as it is from now on; None when somebody else has the slot by now."""

    def take_back(self, lease: Lease) -> bool:
        """Its slot is free from now on. False when somebody else has it by now."""

    def dismiss(self, waiter: Waiter) -> None:
        """Out of the queue, unless it is not there any more, or waits with another token."""

    def free(self, run: RunId, standing: Standing, rendered_at: datetime) -> bool:
        """The render is over: give its slot back, if the run holds it still, and let the charge
        stand. False when the run stands differently by now."""

    def leave(self, run: RunId, standing: Standing, refund: Refund) -> bool:
        """Give back the place or the slot, and close the charge: give it back to its day, or let
        it stand. All or nothing, and for this attempt once and for all. False when the run or its
        attempt stands differently by now."""


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

    in_flight: Mapping[ProviderName, int]  # 0 pauses a provider
    lease: Mapping[ProviderName, timedelta]
    daily_renders: int | None = None
    daily_usd: Decimal | None = None
    on_daily_usd: Literal["wait", "fail"] = "wait"
    prices: Prices = CATALOG_ONLY


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
        run, route = RunId.of(plan.job), billed(plan)
        standing = self.slots.standing(run)
        if standing.attempt is not None and standing.attempt > turn.attempt:
            return  # a call that Step Functions gave up on long ago
        comes_back = standing.attempt is not None and standing.attempt < turn.attempt
        if comes_back:
            self._leave(run, before=turn.attempt)
        waiter = Waiter(
            run=run,
            attempt=turn.attempt,
            route=route,
            offer=turn.offer,
            started_at=request.started_at,
            task_token=request.task_token,
            call=request.call,
        )
        offer = self._offer_to_ask(waiter)
        if offer is not None:
            waiter = waiter.model_copy(update={"offer": offer})
        if offer is None and (standing.slot is None or comes_back):
            self.executions.refuse(request.task_token, self._price_unknown(waiter))
        elif self.slots.join(waiter, plan):
            logger.info("In the queue for a slot", provider=waiter.provider, job_id=run.job_id)
        else:
            self._answer_instead(run, waiter)
        # Only now, so that it keeps its turn when it asks the same provider again.
        if comes_back:
            self._serve_all(run.execution_name)
        else:
            self._serve_first(waiter.provider, by=run.execution_name)

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
        self._serve_all(run.execution_name)

    def serve_all(self) -> None:
        """Serve every queue, and tell all holders of slots again: most of them know. The sweep."""
        self._serve_all(by="", is_thorough=True)

    def serve_waiting(self, call: str) -> None:
        """Serve all who may go on by now: a setting was changed, or a day has begun. Every minute,
        so it looks at no more than it must."""
        self._serve_all(call, is_thorough=True)

    # Leaving

    def _leave(self, run: RunId, before: int | None = None) -> None:
        """The run gives back what it has; or only what an attempt before this one has."""
        for standing in self._looks_at(run):
            is_later = before and standing.attempt and standing.attempt >= before
            if is_later or not standing.has_something:
                return
            if self.slots.leave(run, standing, self._refund(run, standing)):
                return

    def _refund(self, run: RunId, standing: Standing) -> Refund:
        attempt = self.attempts.find(run.job_id, standing.attempt or 0)
        if attempt is None or attempt.state in NOT_SUBMITTED:
            return Refund.ALL
        return Refund.NOTHING if is_kept(attempt) else Refund.USD

    def _looks_at(self, run: RunId) -> Iterator[Standing]:
        """How the run stands, looked at anew each time that it has changed under the last look."""
        for _ in range(_RACES_AT_MOST):
            yield self.slots.standing(run)
        raise RuntimeError("The run changed under each look.")

    # Serving

    def _serve_all(self, by: str, *, is_thorough: bool = False) -> None:
        to_serve = [*ProviderName]
        while to_serve:
            provider = to_serve.pop(0)
            if self._serve(provider, by, is_thorough=is_thorough):
                to_serve += [other for other in ProviderName if other not in (provider, *to_serve)]

    def _serve_first(
        self, provider: ProviderName, by: str, first_of_all: int | None = None
    ) -> None:
        """Serve one queue; the others, too, when that changed something for them."""
        if self._serve(provider, by, first_of_all):
            self._serve_all(by)

    def _serve(
        self,
        provider: ProviderName,
        by: str,
        first_of_all: int | None = None,
        *,
        is_thorough: bool = False,
    ) -> bool:
        """Give free slots to who waits, the one that the caller made free `first_of_all`; all of
        them only if the call has nothing else to do. Returns whether there is something new for
        the other queues: somebody was gone, and gave back what it had, or has moved there."""
        leases = self.slots.leases(provider)
        mine = [lease for lease in leases if lease.granted_by == by or not by]
        is_news = False
        for lease in mine:
            is_news |= not self._tell_again(lease)
        if mine:
            leases = self.slots.leases(provider)
        if not self.limits.in_flight[provider]:
            return is_news | (is_thorough and self._empty(provider))
        given = 0
        for _ in range(_LOOKS_AT_MOST):
            now = self.clock()
            # The queue is looked at only when there is something to give, and then no more of it
            # than that: what a job costs does not grow with the number of those that wait.
            turn = self._next_turn(provider, leases, first_of_all, now)
            if turn is None:
                return is_news
            waiter, free = turn
            served = self._serve_one(waiter, free, by, now)
            is_news |= served in (Served.GONE, Served.MOVED)
            given += served is Served.GIVEN
            if served is Served.WAITS_ON or (given >= _GIVES_AT_MOST and not is_thorough):
                return is_news
            leases = self.slots.leases(provider)
            if served is Served.OTHERWISE:
                self._tell_unheard(waiter, leases, by)
        logger.warning("More jobs wait than one call may serve", provider=provider)
        return is_news

    def _empty(self, provider: ProviderName) -> bool:
        """Let who waits for a paused provider go elsewhere, as far as it can. Returns whether
        somebody did."""
        waiters = self.slots.first_waiters(provider, _LOOKS_AT_MOST)
        return Served.MOVED in [self._go_elsewhere(waiter) for waiter in waiters]

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
        if elsewhere := self._go_elsewhere(waiter):
            return elsewhere
        usd = estimated_usd(waiter.route[waiter.offer], self.limits.prices)
        if over := self._over_a_limit(waiter, usd, now):
            return over
        if free.expired and not self._is_taken_back(free.expired, now):
            return Served.OTHERWISE
        granted = self.slots.grant(
            waiter,
            free.number,
            by=by,
            until=now + self.limits.lease[waiter.provider],
            now=now,
            usd=usd,
            limits=self.limits,
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

    # What the owner allows

    def _offer_to_ask(self, waiter: Waiter) -> int | None:
        """The first offer from its own on that has a price, when it needs one, and whose provider
        is not paused; or is, when all are. None when none has a price."""
        payable = [
            place
            for place in range(waiter.offer, len(waiter.route))
            if not self._lacks_a_price(waiter.route[place])
        ]
        is_open = [it for it in payable if self.limits.in_flight[waiter.route[it].provider]]
        return next(iter(is_open or payable), None)

    def _go_elsewhere(self, waiter: Waiter) -> Served | None:
        """None when it waits where it should."""
        offer = self._offer_to_ask(waiter)
        if offer == waiter.offer:
            return None
        if offer is None:
            return self._refuse(waiter, self._price_unknown(waiter))
        to = waiter.model_copy(update={"offer": offer, "is_aside": False})
        logger.info(
            "Goes on to the next offer, before anything was submitted",
            job_id=waiter.run.job_id,
            passed_over=waiter.provider,
            provider=to.provider,
        )
        return self._move(waiter, to, Served.MOVED)

    def _over_a_limit(self, waiter: Waiter, usd: Decimal | None, now: datetime) -> Served | None:
        """None when the day has room for it."""
        limits, job_id = self.limits, waiter.run.job_id
        if not limits.daily_renders and not limits.daily_usd:
            return None
        day = self.slots.day(now.date())
        if limits.daily_renders and day.renders >= limits.daily_renders:
            logger.info(
                "Waits for midnight UTC, and so does who comes after it: the day has had the "
                "renders of DailyRenderLimit",
                job_id=job_id,
                renders=day.renders,
                daily_render_limit=limits.daily_renders,
            )
            return Served.WAITS_ON
        if not limits.daily_usd or not usd or day.spent_usd + usd <= limits.daily_usd:
            return None
        if limits.on_daily_usd == "fail":
            return self._refuse(waiter, _spent(limits.daily_usd, usd, day, now))
        if usd > limits.daily_usd:
            return self._step_aside(waiter, usd, limits.daily_usd)
        logger.info(
            "Waits for midnight UTC or a refund, and so does who comes after it: the day has no "
            "room for it within DailySpendLimitUsd",
            job_id=job_id,
            estimated_usd=str(usd),
            spent_usd=str(day.spent_usd),
            daily_spend_limit_usd=str(limits.daily_usd),
        )
        return Served.WAITS_ON

    def _step_aside(self, waiter: Waiter, usd: Decimal, limit_usd: Decimal) -> Served:
        """No midnight makes room for it: it waits for its owner, behind all whom one can help."""
        logger.warning(
            "Waits until DailySpendLimitUsd is raised, and lets all others go first: its render "
            "alone costs more than a whole day may",
            job_id=waiter.run.job_id,
            estimated_usd=str(usd),
            daily_spend_limit_usd=str(limit_usd),
        )
        if waiter.is_aside:
            return Served.WAITS_ON
        return self._move(waiter, waiter.model_copy(update={"is_aside": True}), Served.OTHERWISE)

    def _move(self, waiter: Waiter, to: Waiter, moved: Served) -> Served:
        if self.slots.move(waiter, to):
            return moved
        self.slots.dismiss(waiter)  # if it was left over there
        return Served.OTHERWISE

    def _refuse(self, waiter: Waiter, error: DropreelError) -> Served:
        self.executions.refuse(waiter.task_token, error)
        self.slots.dismiss(waiter)
        return Served.OTHERWISE

    def _lacks_a_price(self, render: Billed) -> bool:
        return bool(self.limits.daily_usd) and estimated_usd(render, self.limits.prices) is None

    def _price_unknown(self, waiter: Waiter) -> PriceUnknown:
        unknown = [str(render) for render in waiter.route if self._lacks_a_price(render)]
        return PriceUnknown(
            f"DailySpendLimitUsd is set, and nobody has said the price of {', '.join(unknown)}."
        )


def _spent(limit_usd: Decimal, usd: Decimal, day: Day, now: datetime) -> SpendLimitReached:
    if usd > limit_usd:
        return SpendLimitReached(
            f"This render costs about {usd} USD, more than a whole day's limit of {limit_usd} USD."
        )
    return SpendLimitReached(
        f"This render costs about {usd} USD; {day.spent_usd} USD of the {limit_usd} USD of "
        f"{now:%Y-%m-%d} (UTC) are spent."
    )


def _over() -> ExecutionAborted:
    return ExecutionAborted("This run of the job is over: a redrive cannot go on with it.")
