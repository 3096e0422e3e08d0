"""Admission: which job gets a slot of its provider, and when.

A slot is one of the renders that a provider's account may have in flight. Every job first joins
its provider's queue, with the task token that lets its execution continue. Then whoever changed
something serves the queue: a job that joined, a render that is over, a run that ended, the sweep.
The call gives the first job in the queue a free slot. Whoever writes last sees what all others
wrote, so that no slot stays free while a job waits for it.

The queue is ordered by the start of the executions: first dropped, first served, also for a job
that comes from another offer which refused it.

Every step may be interrupted and run again:
- one transaction gives the slot, ends the wait and charges the day; one returns slot and charge;
- an attempt is admitted once: after it has left it neither comes back nor is submitted, however
  late a call for it arrives;
- the call that gave a slot notifies the execution afterwards, and again when it is repeated;
- a slot is a lease. When it expires without having been returned, the next call that needs it
  makes sure that its holder was notified, and takes it back;
- a refund makes room in every queue, so every queue is served after one.

A call gives one slot to each queue, because each job that it admits does the same at its end; every
minute a call of its own gives all that are free. That call also acts on changed settings and on a
new day. So limits and prices count at the moment when a job is served: a job goes on to the next
offer of its route when its own has no price beside a limit on spending, or when its provider is
paused. The run says which offer it was admitted for, and submit asks that one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, auto
from typing import NamedTuple, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from dropreel.model.catalog import ProviderName
from dropreel.model.errors import DropreelError, ExecutionAborted
from dropreel.model.job import Job, execution_name
from dropreel.model.ledger import Attempt
from dropreel.model.messages import AdmitRequest, Plan
from dropreel.model.prices import Billed, billed, estimated_usd
from dropreel.render.attempts import NOT_SUBMITTED, is_kept
from dropreel.render.spending import Day, Limits, Room, offer_to_ask, price_unknown, room_for, spent
from dropreel.runtime.log import logger

_MAX_LOOKS = 1000
"""At a queue by one call, and waiters that it looks at."""

_MAX_RACES = 20
"""How often others may change a run between our read of it and our write."""

ASIDE = "~"
"""Sorts after every digit; other places begin with one."""


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
    def queue_key(self) -> str:
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


class RunState(BaseModel):
    """How a run stands with admission."""

    model_config = ConfigDict(frozen=True)

    provider: ProviderName | None = None
    attempt: int | None = Field(default=None, description="That it was last admitted for, or is.")
    queue_key: str | None = Field(default=None, description="In the queue, while it waits.")
    slot: int | None = None
    task_token: str | None = Field(default=None, repr=False, description="It waits or waited with.")
    charged_usd: Decimal | None = None
    charged_on: date | None = None
    left_attempt: int = Field(default=0, description="The last that gave back what it had.")
    is_closed: bool = False

    @property
    def has_something(self) -> bool:
        return (self.queue_key, self.slot, self.charged_on) != (None, None, None)


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
    LOOK_AGAIN = auto()  # it is refused, or another call was quicker
    WAITS_ON = auto()


class Slots(Protocol):
    """Slots, queues and spending in the ledger. Reads are strongly consistent. Every write is
    conditional: it happens once, or reports that the state has changed."""

    def run_state(self, run: RunId) -> RunState: ...

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
        limits: Limits,
    ) -> Granting:
        """The end of the wait, the slot and the charge to the day, all or nothing."""

    def renew(self, lease: Lease, until: datetime) -> Lease | None:
        """The lease as it is from now on; None when somebody else has the slot by now."""

    def take_back(self, lease: Lease) -> bool:
        """Its slot is free from now on. False when somebody else has it by now."""

    def dismiss(self, waiter: Waiter) -> None:
        """Out of the queue, unless it is not there any more, or waits with another token."""

    def free(self, run: RunId, run_state: RunState, rendered_at: datetime) -> bool:
        """The render is over: give its slot back, if the run holds it still, and let the charge
        stand. False when the run stands differently by now."""

    def leave(self, run: RunId, run_state: RunState, refund: Refund) -> bool:
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
class Admission:
    """Gives slots and takes them back."""

    slots: Slots
    executions: Executions
    attempts: Attempts
    clock: Callable[[], datetime]
    limits: Limits

    def admit(self, request: AdmitRequest) -> None:
        """Put the run into the queue of its offer's provider, and serve that queue.

        The answer goes to the execution by its task token: now, when there is a slot, or as soon
        as there is one. May be called again, with a newer token.
        """
        plan, next_attempt = request.plan, request.next
        run = RunId.of(plan.job)
        run_state = self.slots.run_state(run)
        if run_state.attempt is not None and run_state.attempt > next_attempt.attempt:
            return  # a call that Step Functions gave up on long ago
        comes_back = run_state.attempt is not None and run_state.attempt < next_attempt.attempt
        if comes_back:
            self._leave(run, before=next_attempt.attempt)
        waiter = Waiter(
            run=run,
            attempt=next_attempt.attempt,
            route=billed(plan),
            offer=next_attempt.offer,
            started_at=request.started_at,
            task_token=request.task_token,
            call=request.call,
        )
        offer = offer_to_ask(waiter.route, waiter.offer, self.limits)
        if offer is not None:
            waiter = waiter.model_copy(update={"offer": offer})
        if offer is None and (run_state.slot is None or comes_back):
            self.executions.refuse(request.task_token, price_unknown(waiter.route, self.limits))
        elif self.slots.join(waiter, plan):
            logger.info("In the queue for a slot", provider=waiter.provider, job_id=run.job_id)
        else:
            self._answer_instead(run, waiter)
        # Only now, so that it keeps its turn when it asks the same provider again.
        self._serve([*self.limits.in_flight] if comes_back else [waiter.provider], run)

    def rendered(self, job: Job, attempt: int) -> None:
        """The provider is done with the run's attempt: its slot goes to the next waiter."""
        run = RunId.of(job)
        run_state = self._change(
            run,
            lambda seen: seen.slot is not None and seen.attempt == attempt,
            lambda seen: self.slots.free(run, seen, self.clock()),
        )
        if run_state.provider:
            self._serve([run_state.provider], run)

    def leave(self, job: Job) -> None:
        """Take the run out of the queue or the slot that it has, and serve who waits.

        The estimate goes back to its day, unless the render may be paid for.
        """
        run = RunId.of(job)
        run_state = self.slots.run_state(run)
        self._leave(run)
        if run_state.task_token and (run_state.queue_key or run_state.slot is not None):
            # A redriven execution may already wait with this token.
            self.executions.refuse(run_state.task_token, _run_is_over())
        self._serve([*self.limits.in_flight], run)

    def serve_all(self) -> None:
        """Serve every queue, and notify all holders of slots again, for the daily sweep."""
        self._serve([*self.limits.in_flight], by="", everyone=True)

    def serve_waiting(self, call: str) -> None:
        """Serve all jobs that can go on by now: a setting was changed, or a day has begun."""
        self._serve([*self.limits.in_flight], by=call, everyone=True)

    # Leaving

    def _leave(self, run: RunId, before: int | None = None) -> None:
        """The run gives back what it has; or only what an attempt before this one has."""
        self._change(
            run,
            lambda seen: seen.has_something and not (before and (seen.attempt or 0) >= before),
            lambda seen: self.slots.leave(run, seen, self._refund(run, seen)),
        )

    def _refund(self, run: RunId, run_state: RunState) -> Refund:
        attempt = self.attempts.find(run.job_id, run_state.attempt or 0)
        if attempt is None or attempt.state in NOT_SUBMITTED:
            return Refund.ALL
        return Refund.NOTHING if is_kept(attempt) else Refund.USD

    def _change(
        self,
        run: RunId,
        applies: Callable[[RunState], bool],
        change: Callable[[RunState], bool],
    ) -> RunState:
        """Change the run while it applies, with a new look each time that others were quicker.
        Returns the run as it was last seen before the change."""
        for _ in range(_MAX_RACES):
            seen = self.slots.run_state(run)
            if not applies(seen) or change(seen):
                return seen
        raise RuntimeError("The run changed under each look.")

    # Serving

    def _serve(
        self, providers: Sequence[ProviderName], by: RunId | str, *, everyone: bool = False
    ) -> None:
        """Serve these queues; the others, too, when that changed something for them."""
        caller = by.execution_name if isinstance(by, RunId) else by
        to_serve = list(providers)
        while to_serve:
            provider = to_serve.pop(0)
            if self._serve_queue(provider, caller, everyone=everyone):
                others = [it for it in self.limits.in_flight if it not in (provider, *to_serve)]
                to_serve += others

    def _serve_queue(self, provider: ProviderName, by: str, *, everyone: bool) -> bool:
        """Give a free slot to the first waiter, or all free slots to `everyone`. Returns whether
        there is news for the other queues: a waiter was gone and gave back what it had, or has
        moved there."""
        leases = self.slots.leases(provider)
        mine = [lease for lease in leases if lease.granted_by == by or not by]
        heard = [self._notify_again(lease) for lease in mine]
        is_news = not all(heard)
        if mine:
            leases = self.slots.leases(provider)
        if not self.limits.in_flight[provider]:
            return is_news | (everyone and self._move_everyone(provider))
        for _ in range(_MAX_LOOKS):
            now = self.clock()
            # The queue is read only when there is a slot to give, and only its first entry: the
            # cost of a job does not grow with the number of waiters.
            free = self._free_slot(provider, leases, now)
            waiter = next(iter(self.slots.first_waiters(provider, 1)), None) if free else None
            if waiter is None or free is None:
                return is_news
            served = self._serve_one(waiter, free, by, now)
            is_news |= served in (Served.GONE, Served.MOVED)
            if served is Served.WAITS_ON or (served is Served.GIVEN and not everyone):
                return is_news
            leases = self.slots.leases(provider)
            if served is Served.LOOK_AGAIN:
                self._notify_if_given(waiter, leases, by)
        logger.warning("More jobs wait than one call may serve", provider=provider)
        return is_news

    def _move_everyone(self, provider: ProviderName) -> bool:
        """Move the waiters of a paused provider to their next offers. Returns whether one moved."""
        waiters = self.slots.first_waiters(provider, _MAX_LOOKS)
        return Served.MOVED in [self._move_on(waiter) for waiter in waiters]

    def _serve_one(self, waiter: Waiter, free: FreeSlot, by: str, now: datetime) -> Served:
        if moved := self._move_on(waiter):
            return moved
        usd = estimated_usd(waiter.route[waiter.offer], self.limits.prices)
        if over := self._over_a_limit(waiter, usd, now):
            return over
        if free.expired and not self._take_back_expired(free.expired, now):
            return Served.LOOK_AGAIN
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
            return Served.GIVEN if self._notify(waiter.run, waiter.task_token) else Served.GONE
        if granted is Granting.CLOSED:
            self.slots.dismiss(waiter)
        return Served.LOOK_AGAIN

    # Notifying

    def _notify_if_given(self, waiter: Waiter, leases: Sequence[Lease], by: str) -> None:
        """Another call was quicker; or this very one, if the answer to its first try was lost."""
        for lease in leases:
            if lease.run == waiter.run and lease.granted_by == by:
                self._notify_again(lease)

    def _answer_instead(self, run: RunId, waiter: Waiter) -> None:
        """The run may not join: an earlier call had it admitted, but its answer came too soon for
        this token; or it is over, and somebody redrives its execution."""
        run_state = self.slots.run_state(run)
        if run_state.slot is not None and run_state.attempt == waiter.attempt:
            self.executions.go_on(waiter.task_token)
        elif run_state.is_closed or run_state.left_attempt >= waiter.attempt:
            self.executions.refuse(waiter.task_token, _run_is_over())

    def _notify_again(self, lease: Lease) -> bool:
        """The call that gave the slot may have been interrupted before it notified the holder. The
        lease is renewed first: the holder may begin only now. False when its execution is gone."""
        if not self.slots.renew(lease, self.clock() + self.limits.lease[lease.provider]):
            return True
        task_token = self._token_of(lease)
        return task_token is None or self._notify(lease.run, task_token)

    def _token_of(self, lease: Lease) -> str | None:
        run_state = self.slots.run_state(lease.run)
        return run_state.task_token if run_state.slot == lease.slot else None

    def _notify(self, run: RunId, task_token: str) -> bool:
        """Let the holder of a slot go on. False when its execution is gone: it is skipped."""
        if self.executions.go_on(task_token) or self.executions.is_running(run.execution_name):
            return True
        logger.info("Its execution is gone: skipped", job_id=run.job_id)
        self._leave(run)
        return False

    # Slots

    def _free_slot(
        self, provider: ProviderName, leases: Sequence[Lease], now: datetime
    ) -> FreeSlot | None:
        """The lowest free slot, else one whose lease has expired; none while slots above a lowered
        limit are still taken."""
        max_in_flight = self.limits.in_flight[provider]
        expired = [lease for lease in leases if lease.until <= now]
        if len(leases) - len(expired) >= max_in_flight:
            return None
        taken = {lease.slot for lease in leases}
        free = (
            *(FreeSlot(slot) for slot in range(max_in_flight) if slot not in taken),
            *(FreeSlot(lease.slot, lease) for lease in expired if lease.slot < max_in_flight),
        )
        return next(iter(free), None)

    def _take_back_expired(self, lease: Lease, now: datetime) -> bool:
        """Free the slot of an expired lease. False when its holder still waited to be notified, and
        begins now. The lease is renewed before that: both may be interrupted."""
        renewed = self.slots.renew(lease, now + self.limits.lease[lease.provider])
        if renewed is None:
            return False
        task_token = self._token_of(renewed)
        if task_token and self.executions.go_on(task_token):
            return False
        return self.slots.take_back(renewed)

    # What the owner allows

    def _move_on(self, waiter: Waiter) -> Served | None:
        """Move a waiter to the offer that it should ask. None when it is there already."""
        offer = offer_to_ask(waiter.route, waiter.offer, self.limits)
        if offer == waiter.offer:
            return None
        if offer is None:
            return self._refuse(waiter, price_unknown(waiter.route, self.limits))
        to = waiter.model_copy(update={"offer": offer, "is_aside": False})
        logger.info(
            "Goes on to the next offer, before anything was submitted",
            job_id=waiter.run.job_id,
            passed_over=waiter.provider,
            provider=to.provider,
        )
        return self._move(waiter, to, Served.MOVED)

    def _over_a_limit(self, waiter: Waiter, usd: Decimal | None, now: datetime) -> Served | None:
        """None when the day has room for the render."""
        if not self.limits.daily_renders and not self.limits.daily_usd:
            return None
        day = self.slots.day(now.date())
        match room_for(usd, day, self.limits):
            case Room.THERE:
                return None
            case Room.NO_RENDERS_LEFT:
                self._log_wait(waiter, "Waits for midnight UTC, for DailyRenderLimit", usd, day)
                return Served.WAITS_ON
            case _ if self.limits.on_daily_usd == "fail":
                return self._refuse(waiter, spent(usd, day, self.limits, now))
            case Room.NO_USD_LEFT:
                self._log_wait(waiter, "Waits for midnight UTC, for DailySpendLimitUsd", usd, day)
                return Served.WAITS_ON
            case Room.NEVER:
                self._log_wait(waiter, "Waits until DailySpendLimitUsd is raised", usd, day)
                return self._step_aside(waiter)

    def _step_aside(self, waiter: Waiter) -> Served:
        """No new day makes room for it: it waits for the owner, behind all that can go on."""
        if waiter.is_aside:
            return Served.WAITS_ON
        aside = waiter.model_copy(update={"is_aside": True})
        return self._move(waiter, aside, Served.LOOK_AGAIN)

    def _log_wait(self, waiter: Waiter, what: str, usd: Decimal | None, day: Day) -> None:
        logger.info(
            what,
            job_id=waiter.run.job_id,
            estimated_usd=str(usd),
            renders=day.renders,
            spent_usd=str(day.spent_usd),
            daily_render_limit=self.limits.daily_renders,
            daily_spend_limit_usd=str(self.limits.daily_usd),
        )

    def _move(self, waiter: Waiter, to: Waiter, moved: Served) -> Served:
        if self.slots.move(waiter, to):
            return moved
        self.slots.dismiss(waiter)  # if it was left over there
        return Served.LOOK_AGAIN

    def _refuse(self, waiter: Waiter, error: DropreelError) -> Served:
        self.executions.refuse(waiter.task_token, error)
        self.slots.dismiss(waiter)
        return Served.LOOK_AGAIN


def _run_is_over() -> ExecutionAborted:
    return ExecutionAborted("This run of the job is over: a redrive cannot go on with it.")
