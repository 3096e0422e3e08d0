"""Admission: which job gets a slot of its provider, and when.

Every job first joins its provider's queue, with the task token that lets its execution continue.
Every call that changes something then gives the first job of each queue a free slot; a call every
minute gives all. The last writer sees all that the others wrote, so no slot stays free while a job
waits. The queue is ordered by the start of the executions. Limits and prices count when a job is
served.

Every step may be interrupted and run again:
- one transaction gives the slot, ends the wait and charges the day; one returns slot and charge;
- an attempt is admitted once: after it has left, no late call brings it back or submits it;
- the call that gave a slot notifies the execution afterwards, and again when it is repeated;
- a slot is a lease: a call that needs an expired one first makes sure that its holder was notified.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, auto
from typing import NamedTuple, Protocol

from pydantic import AwareDatetime, BaseModel, Field

from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.closure import Closure
from dropreel.model.errors import DropreelError, ExecutionAborted
from dropreel.model.job import Job, execution_name
from dropreel.model.ledger import Attempt
from dropreel.model.messages import AdmitRequest, Plan
from dropreel.model.prices import Billed, billed, estimated_usd
from dropreel.render.attempts import MAY_BE_PAID, NOT_SUBMITTED
from dropreel.render.spending import Day, Limits, Room
from dropreel.runtime.log import logger

_MAX_LOOKS = 1000
"""How often one call reads a queue, and how many waiters it reads at once."""

_MAX_RACES = 20
"""How often other calls may change a run between our read and our write."""

_WAITS_FOR = {
    Room.NO_RENDERS_LEFT: "Waits for midnight UTC, for DailyRenderLimit",
    Room.NO_USD_LEFT: "Waits for midnight UTC, for DailySpendLimitUsd",
    Room.NEVER: "Waits until DailySpendLimitUsd is raised",
}

ASIDE = "~"
"""Sorts after every digit; the other queue keys begin with one."""


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

    @property
    def log_keys(self) -> dict[str, object]:
        """For a line that may be about another job than the call's own: its folder is not known."""
        own = logger.get_current_keys()
        if (own.get("job_id"), own.get("run")) == (self.job_id, self.number):
            return {}
        return {"job_id": self.job_id, "run": self.number, "folder": None, "attempt": None}


class Waiter(BaseModel, frozen=True):
    """A run that waits for a slot."""

    run: RunId
    attempt: int = Field(ge=1, description="To be submitted.")
    route: tuple[Billed, ...]
    offer: int = Field(ge=0, description="Index in the route of the offer that it waits for.")
    first: int | None = Field(
        default=None, description="Of the first offer that it may ask; None: that one."
    )
    started_at: AwareDatetime = Field(
        description="Start of the execution; after a refused account, of the refused attempt. It "
        "orders the queue."
    )
    is_aside: bool = Field(default=False, description="Queued behind all others.")
    task_token: str = Field(repr=False)
    call: int = Field(default=0, description="Try of the state: the highest has the valid token.")

    @property
    def provider(self) -> ProviderName:
        return self.route[self.offer].provider

    @property
    def queue_key(self) -> str:
        """Sorts by the start of the execution, and after all others when aside."""
        since = self.started_at.astimezone(UTC)
        return f"{ASIDE * self.is_aside}{since:%Y-%m-%dT%H:%M:%S.%f}Z#{self.run.execution_name}"


class Lease(BaseModel, frozen=True):
    """A slot that is taken."""

    provider: ProviderName
    slot: int = Field(ge=0)
    run: RunId
    granted_by: str = Field(description="The call that gave the slot.")
    until: AwareDatetime


class RunState(BaseModel, frozen=True):
    """What admission has recorded of a run."""

    provider: ProviderName | None = None
    attempt: int | None = Field(default=None, description="The last that joined a queue.")
    queue_key: str | None = Field(default=None, description="While it waits.")
    slot: int | None = None
    task_token: str | None = Field(default=None, repr=False, description="The latest.")
    charged_usd: Decimal | None = None
    charged_on: date | None = None
    left_attempt: int = Field(default=0, description="The last that left.")
    is_closed: bool = False

    @property
    def holds_anything(self) -> bool:
        return (self.queue_key, self.slot, self.charged_on) != (None, None, None)


class Refund(Enum):
    """What an attempt that ends gives back to the day that it was charged to."""

    ALL = auto()  # nothing was submitted
    USD = auto()  # submitted and not paid: it counts among the day's renders
    NOTHING = auto()  # it may be paid


class Granting(Enum):
    """The result of a try to give a slot."""

    DONE = auto()
    OVERTAKEN = auto()  # another call took the slot or moved the waiter
    NO_ROOM = auto()  # the day has no room any more
    CLOSED = auto()  # the run is over, or is at another attempt


class FreeSlot(NamedTuple):
    number: int
    expired: Lease | None = None  # to be taken back first


class Served(Enum):
    """The result of serving one waiter."""

    GIVEN = auto()
    GONE = auto()  # its execution has ended, and it gave its slot back
    MOVED = auto()  # to the queue of another offer
    LOOK_AGAIN = auto()  # it was refused, or another call was quicker
    STILL_WAITS = auto()


class Slots(Protocol):
    """Slots, queues and spending in the ledger. Reads are strongly consistent. Every write is
    conditional: it happens once, or returns that the state has changed."""

    def run_state(self, run: RunId) -> RunState: ...

    def join(self, waiter: Waiter, plan: Plan, started_at: datetime | None = None) -> bool:
        """Queue the run, or renew its token. False when the run has its slot or is over.
        `started_at` is its start, when it queues as if it had started later."""

    def first_waiters(self, provider: ProviderName, at_most: int) -> Sequence[Waiter]: ...

    def waiting_before(self, waiter: Waiter, at_most: int) -> int:
        """How many wait before it in its queue, counted up to `at_most`."""

    def leases(self, provider: ProviderName) -> Sequence[Lease]: ...

    def move(self, waiter: Waiter, to: Waiter) -> bool:
        """Requeue it with the same token. False when its place or attempt has changed."""

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
        """End the wait, give the slot and charge the day, all or nothing."""

    def renew(self, lease: Lease, until: datetime) -> Lease | None:
        """Returns the renewed lease; None when the lease has changed."""

    def take_back(self, lease: Lease) -> bool:
        """Free its slot. False when the lease has changed."""

    def dismiss(self, waiter: Waiter) -> None:
        """Take it out of the queue, unless it waits with another token by now."""

    def free(self, run: RunId, run_state: RunState, rendered_at: datetime) -> bool:
        """The render is over: give its slot back and keep the charge. False when the run has
        changed."""

    def leave(self, run: RunId, run_state: RunState, refund: Refund) -> bool:
        """Leave the queue or the slot, and settle the charge: refund it to its day, or keep it.
        All or nothing, and final for this attempt. False when the run or its attempt has
        changed."""


class WaitingExecutions(Protocol):
    """The executions that wait."""

    def go_on(self, task_token: str) -> bool:
        """False when no execution waits with this token: notified before, or ended."""

    def refuse(self, task_token: str, error: DropreelError) -> bool:
        """Fail the execution. False as in `go_on`."""

    def is_running(self, name: str) -> bool: ...


@dataclass(frozen=True)
class Admission:
    """Gives slots and takes them back."""

    slots: Slots
    executions: WaitingExecutions
    find_attempt: Callable[[str, int], Attempt | None]
    clock: Callable[[], datetime]
    limits: Limits
    closures: Callable[[], Iterable[Closure]]

    def admit(self, request: AdmitRequest) -> Waiter | None:
        """Put the run into the queue of its offer's provider, and serve that queue.

        The answer goes to the execution by its task token, as soon as there is a slot. May be
        called again with a newer token. Returns its place if the run joins a queue for the first
        time, else None.
        """
        plan, next_attempt = request.plan, request.next
        run = RunId.of(plan.job)
        run_state = self.slots.run_state(run)
        latest_attempt = run_state.attempt or next_attempt.attempt
        if latest_attempt > next_attempt.attempt:
            logger.info("A call that Step Functions gave up on: nothing to do")
            return None
        comes_back = latest_attempt < next_attempt.attempt
        if comes_back:
            self._leave(run, before=next_attempt.attempt)
        route = billed(plan)
        now = self._at_present()
        offer = now.limits.offer_to_ask(route, next_attempt.offer)
        place = next_attempt.offer if offer is None else offer
        waiter = Waiter(
            run=run,
            attempt=next_attempt.attempt,
            route=route,
            offer=place,
            first=next_attempt.offer,
            started_at=self._queues_since(request, route[place].provider),
            task_token=request.task_token,
            call=request.call,
        )
        joined = False
        if offer is None and (run_state.slot is None or comes_back):
            logger.info("Refused: no offer has a price")
            self.executions.refuse(request.task_token, self.limits.price_unknown(route))
        elif joined := self.slots.join(waiter, plan, request.started_at):
            logger.info("In the queue for a slot", provider=waiter.provider)
        else:
            self._answer_instead(run, waiter)
        # Only now, so that it is served first when it asks the same provider again.
        now._serve(self.limits.in_flight if comes_back else [waiter.provider], run.execution_name)
        return waiter if joined and run_state.attempt is None else None

    def _queues_since(self, request: AdmitRequest, provider: ProviderName) -> datetime:
        """An attempt whose refusal closed the provider puts its run behind those that waited then:
        what is refused for one job alone, such as a render above the balance, may not take each
        trial from them."""
        if request.attempt > request.plan.first_attempt:
            before = self.find_attempt(request.job.id, request.attempt - 1)
            if before and before.closes_provider and before.provider == provider:
                return before.begun_at
        return request.started_at

    def estimated_usd(self, waiter: Waiter) -> float | None:
        """Of a render at its offer. None when the price is not known."""
        usd = estimated_usd(waiter.route[waiter.offer], self.limits.catalog)
        return None if usd is None else float(usd)

    def rendered(self, job: Job, attempt: int) -> None:
        """The provider has finished the run's attempt: its slot goes to the next waiter."""
        run = RunId.of(job)
        run_state = self._change(
            run,
            lambda seen: seen.slot is not None and seen.attempt == attempt,
            lambda seen: self.slots.free(run, seen, self.clock()),
        )
        if run_state.provider:
            self._at_present()._serve([run_state.provider], run.execution_name)

    def leave(self, job: Job) -> None:
        """Take the run out of its queue or slot, and serve all queues. The estimate goes back to
        its day, unless the render may be paid."""
        run = RunId.of(job)
        run_state = self.slots.run_state(run)
        self._leave(run)
        if run_state.task_token and (run_state.queue_key or run_state.slot is not None):
            # A redriven execution may already wait with this token.
            self.executions.refuse(run_state.task_token, _run_is_over())
        self._at_present()._serve(self.limits.in_flight, run.execution_name)

    def serve_all(self) -> None:
        """Serve all queues, and notify all holders of slots again: for the full sweep."""
        self._at_present()._serve(self.limits.in_flight, by="", all_free=True)

    def serve_waiting(self, call: str) -> None:
        """Give all free slots: a setting may have changed, or a day begun."""
        self._at_present()._serve(self.limits.in_flight, by=call, all_free=True)

    def present_limits(self) -> Limits:
        """The limits, while some providers are closed."""
        return self.limits.while_closed(self.closures())

    def _at_present(self) -> "Admission":
        return replace(self, limits=self.present_limits())

    # Leaving

    def _leave(self, run: RunId, before: int | None = None) -> None:
        """The run gives back all it holds; or only what an attempt before `before` holds."""
        self._change(
            run,
            lambda seen: seen.holds_anything and not (before and (seen.attempt or 0) >= before),
            lambda seen: self.slots.leave(run, seen, self._refund(run, seen)),
        )

    def _refund(self, run: RunId, run_state: RunState) -> Refund:
        attempt = self.find_attempt(run.job_id, run_state.attempt or 0)
        if attempt is None or attempt.state in NOT_SUBMITTED:
            return Refund.ALL
        return Refund.NOTHING if attempt.state in MAY_BE_PAID else Refund.USD

    def _change(
        self, run: RunId, applies: Callable[[RunState], bool], change: Callable[[RunState], bool]
    ) -> RunState:
        """Change the run while `applies` holds; read it again when another call was quicker.
        Returns the run as it was before the change."""
        for _ in range(_MAX_RACES):
            seen = self.slots.run_state(run)
            if not applies(seen) or change(seen):
                return seen
        raise RuntimeError(f"{run} changed at each of {_MAX_RACES} tries.")

    # Serving

    def _serve(self, providers: Iterable[ProviderName], by: str, *, all_free: bool = False) -> None:
        """Serve these queues; the others, too, when that changed something for them."""
        to_serve = list(providers)
        while to_serve:
            provider = to_serve.pop(0)
            if self._serve_queue(provider, by, all_free=all_free):
                to_serve += [
                    other for other in self.limits.in_flight if other not in (provider, *to_serve)
                ]

    def _serve_queue(self, provider: ProviderName, by: str, *, all_free: bool) -> bool:
        """Give one free slot, or all. Returns whether the other queues are to be served, too: a
        waiter has moved there, or had ended and gave back its charge."""
        leases = self.slots.leases(provider)
        given_before = [lease for lease in leases if lease.granted_by == by or not by]
        affects_others = False in [self._notify_again(lease) for lease in given_before]
        if given_before:
            leases = self.slots.leases(provider)
        if not self.limits.in_flight[provider]:
            return affects_others | (all_free and self._move_all(provider))
        for _ in range(_MAX_LOOKS):
            now = self.clock()
            # Only its first entry is read, and only when there is a slot to give: the cost of a
            # job does not grow with the number of waiters.
            free = self._free_slot(provider, leases, now)
            waiter = next(iter(self.slots.first_waiters(provider, 1)), None) if free else None
            if waiter is None or free is None:
                return affects_others
            served = self._serve_one(waiter, free, by, now)
            affects_others |= served in (Served.GONE, Served.MOVED)
            if served is Served.STILL_WAITS or (served is Served.GIVEN and not all_free):
                return affects_others
            leases = self.slots.leases(provider)
            if served is Served.LOOK_AGAIN:
                # This call may have given the slot, if the answer to its first try was lost.
                for lease in leases:
                    if lease.run == waiter.run and lease.granted_by == by:
                        self._notify_again(lease)
        logger.warning("More jobs wait than one call may serve", provider=provider)
        return affects_others

    def _move_all(self, provider: ProviderName) -> bool:
        """Move the waiters of a paused or closed provider to other offers. Returns whether one
        moved."""
        waiters = self.slots.first_waiters(provider, _MAX_LOOKS)
        served = [self._move_on(waiter) for waiter in waiters]
        closure = self.limits.closed.get(provider)
        if closure and (stay := served.count(None)):
            logger.warning(
                "%d waiting until %s is open: %s",
                stay,
                TITLES.get(provider, provider),
                closure.message,
                provider=provider,
                error_code=closure.code,
            )
        return Served.MOVED in served

    def _serve_one(self, waiter: Waiter, free: FreeSlot, by: str, now: datetime) -> Served:
        if moved := self._move_on(waiter):
            return moved
        usd = estimated_usd(waiter.route[waiter.offer], self.limits.catalog)
        if held := self._hold_if_over_limit(waiter, usd, now):
            return held
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
                extra=waiter.run.log_keys,
            )
            return Served.GIVEN if self._notify(waiter.run, waiter.task_token) else Served.GONE
        if granted is Granting.CLOSED:
            logger.info("Its run is over: out of the queue", extra=waiter.run.log_keys)
            self.slots.dismiss(waiter)
        return Served.LOOK_AGAIN

    # Notifying

    def _answer_instead(self, run: RunId, waiter: Waiter) -> None:
        """The run may not join: it has been admitted, and the notification went to an older token;
        or it is over, and somebody redrives its execution."""
        run_state = self.slots.run_state(run)
        if run_state.slot is not None and run_state.attempt == waiter.attempt:
            logger.info("Has its slot already: goes on")
            self.executions.go_on(waiter.task_token)
        elif run_state.is_closed or run_state.left_attempt >= waiter.attempt:
            logger.info("Its run is over: refused")
            self.executions.refuse(waiter.task_token, _run_is_over())
        else:
            logger.info("Waits already, by a newer call")

    def _notify_again(self, lease: Lease) -> bool:
        """The call that gave the slot may have been interrupted before it notified the holder. The
        lease is renewed first: the holder may begin only now. False when its execution has ended.
        """
        if not self.slots.renew(lease, self.clock() + self.limits.lease[lease.provider]):
            return True
        task_token = self._token_of(lease)
        return task_token is None or self._notify(lease.run, task_token)

    def _token_of(self, lease: Lease) -> str | None:
        run_state = self.slots.run_state(lease.run)
        return run_state.task_token if run_state.slot == lease.slot else None

    def _notify(self, run: RunId, task_token: str) -> bool:
        """Let the holder of a slot go on. False when its execution has ended: it leaves."""
        if self.executions.go_on(task_token) or self.executions.is_running(run.execution_name):
            return True
        logger.info("Its execution has ended: skipped", extra=run.log_keys)
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
        """Free the slot of an expired lease. False when its holder had not been notified: it begins
        now. The lease is renewed before that, because both may be interrupted."""
        renewed = self.slots.renew(lease, now + self.limits.lease[lease.provider])
        if renewed is None:
            return False
        task_token = self._token_of(renewed)
        if task_token and self.executions.go_on(task_token):
            return False
        return self.slots.take_back(renewed)

    # The owner's limits

    def _move_on(self, waiter: Waiter) -> Served | None:
        """Move a waiter to the offer that it is to ask. None when it waits for that already."""
        first = waiter.offer if waiter.first is None else waiter.first
        offer = self.limits.offer_to_ask(waiter.route, first, waiter.offer)
        if offer == waiter.offer:
            return None
        if offer is None:
            return self._refuse(waiter, self.limits.price_unknown(waiter.route))
        to = waiter.model_copy(update={"offer": offer, "is_aside": False})
        logger.info(
            "Moved to another offer before anything was submitted",
            extra=waiter.run.log_keys,
            passed_over=waiter.provider,
            provider=to.provider,
        )
        return self._move(waiter, to, Served.MOVED)

    def _hold_if_over_limit(
        self, waiter: Waiter, usd: Decimal | None, now: datetime
    ) -> Served | None:
        """Let it wait, or refuse it. None when the day has room for the render."""
        if not self.limits.daily_renders and not self.limits.daily_usd:
            return None
        day = self.slots.day(now.date())
        room = self.limits.room_for(usd, day)
        if room is Room.THERE:
            return None
        if room is not Room.NO_RENDERS_LEFT and self.limits.on_daily_usd == "fail":
            return self._refuse(waiter, self.limits.spend_reached(usd, day, now))
        logger.info(
            _WAITS_FOR[room],
            extra=waiter.run.log_keys,
            estimated_usd=str(usd),
            renders=day.renders,
            spent_usd=str(day.spent_usd),
            daily_render_limit=self.limits.daily_renders,
            daily_spend_limit_usd=str(self.limits.daily_usd),
        )
        if room is not Room.NEVER or waiter.is_aside:
            return Served.STILL_WAITS
        # No new day makes room for it: it waits for the owner, behind all that can go on.
        return self._move(waiter, waiter.model_copy(update={"is_aside": True}), Served.LOOK_AGAIN)

    def _move(self, waiter: Waiter, to: Waiter, moved: Served) -> Served:
        if self.slots.move(waiter, to):
            return moved
        self.slots.dismiss(waiter)  # if its run is over or waits elsewhere
        return Served.LOOK_AGAIN

    def _refuse(self, waiter: Waiter, error: DropreelError) -> Served:
        self.executions.refuse(waiter.task_token, error)
        self.slots.dismiss(waiter)
        return Served.LOOK_AGAIN


def _run_is_over() -> ExecutionAborted:
    return ExecutionAborted("This run of the job is over: a redrive cannot go on with it.")
