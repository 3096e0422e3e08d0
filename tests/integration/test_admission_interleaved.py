"""Admission under random interleavings, crashes and repeats: calls of many functions at once, of
which any may be held between any two of its requests to AWS, and killed before or after one.

Settings change in between: a provider is paused, a price is not known or too high for a day. A
provider refuses the account and is closed, tried again, and opened.

`make hunt EXAMPLES=3000` looks further than the suite does.
"""

import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dropreel.aws.closures import DynamoDBClosures
from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.catalog import MODELS, TITLES, Offer, ProviderName
from dropreel.model.closure import Account, AccountState
from dropreel.model.job import Job
from dropreel.model.ledger import Attempt
from dropreel.model.messages import NextAttempt
from dropreel.render.attempts import NOT_SUBMITTED
from dropreel.render.closing import after_question, close
from tests.support.admission_fakes import (
    FakeExecutions,
    admission_with,
    job_named,
    ledger_table,
    request_of,
    write_outcome,
)
from tests.support.render_account import create_ledger_table
from tests.support.render_fakes import RUNCOMFY, WAVESPEED, FakeClock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MODEL = MODELS["wan-2.2-speech-to-video"]
ROUTE = (WAVESPEED.model_copy(update={"fields": {"resolution": "720p"}}), RUNCOMFY)
USD = {"wavespeed": Decimal("0.15"), "runcomfy": Decimal("0.1")}
SECONDS = 3.5  # of the fakes' recording
DEAR_USD = Decimal("0.6")  # more than a day may cost


class Killed(BaseException):
    """The function's environment is gone."""


class Call(threading.Thread):
    """One call of a function. It stops before each request to AWS, until it is let go on."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self._may_go_on = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        self.kill_before = self.kill_after = False
        self.is_over = False
        self.failure: BaseException | None = None
        self.start()
        self._has_stopped.acquire()

    def run(self) -> None:
        try:
            self.pause()
            self.work()
        except BaseException as failure:
            self.failure = failure
        finally:
            self.is_over = True
            self._has_stopped.release()

    def pause(self) -> None:
        """In the call's own thread: stop here until somebody advances the call."""
        self._has_stopped.release()
        self._may_go_on.acquire()
        if self.kill_before:
            raise Killed

    def advance(self) -> None:
        """In the test's thread: let the call make one more request."""
        self._may_go_on.release()
        self._has_stopped.acquire()


class Stepped:
    """A client or an adapter, with a stop before each of its requests."""

    def __init__(self, real: object) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the real one has
        there = getattr(self._real, name)
        call = threading.current_thread()
        if not callable(there) or not isinstance(call, Call) or name == "exceptions":
            return there

        def stepped(*args: object, **kwargs: object) -> object:
            call.pause()
            answer = there(*args, **kwargs)
            if call.kill_after:
                raise Killed
            return answer

        return stepped


@pytest.fixture(scope="module", autouse=True)
def account() -> Iterator[None]:
    with ledger_table() as Machine.client:
        yield


_tables = 0


class Machine(RuleBasedStateMachine):
    client: "DynamoDBClient"
    slots, jobs_at_most = 2, 8
    limit_usd: str | None = "0.5"
    limit_renders: int | None = 4

    @initialize()
    def open(self) -> None:
        global _tables  # noqa: PLW0603 - an account's tables
        _tables += 1
        self.table = f"ledger{_tables}"
        create_ledger_table(self.client, self.table)
        self.executions = FakeExecutions()
        self.clock = FakeClock()
        self.ledger = DynamoDBLedger(self.table, self.client)
        self.closures = DynamoDBClosures(self.table, self.client)
        self.minutes = 0
        self.deploy(paused=None, unpriced=None, is_dear=False)
        self.calls: list[Call] = []
        self.crashed: list[Callable[[], object]] = []  # which the platform calls again
        self.jobs: list[Job] = []
        self.attempt: dict[str, int] = {}
        self.offer: dict[str, int] = {}  # the first that the attempt may ask
        self.asked: list[Attempt] = []  # which the provider has not answered yet
        self.retries: dict[str, int] = {}
        self.lives: set[str] = set()  # jobs whose execution has not ended
        self.overdue: set[str] = set()
        # What was surely spent, and what may have been: a stopped job may have been admitted.
        self.spent, self.perhaps_spent = Decimal(0), Decimal(0)
        self.refused_late = 0

    @rule(
        paused=st.sampled_from([None, *TITLES]),
        unpriced=st.sampled_from([None, *TITLES]),
        is_dear=st.booleans(),
    )
    def deploy(
        self, paused: ProviderName | None, unpriced: ProviderName | None, is_dear: bool
    ) -> None:
        """Calls that run already have the settings of before."""
        self.is_changed = True  # until a call has acted on it
        self.paused = paused
        self.usd = USD | ({"wavespeed": DEAR_USD} if is_dear else {})
        if unpriced:
            del self.usd[unpriced]
        stepped: Any = Stepped(self.client)
        stepped_executions: Any = Stepped(self.executions)
        self.admission = admission_with(
            DynamoDBSlots(self.table, stepped),
            stepped_executions,
            DynamoDBLedger(self.table, stepped),
            self.clock,
            DynamoDBClosures(self.table, stepped),
            in_flight={it: 0 if it is paused else self.slots for it in TITLES},
            daily_renders=self.limit_renders,
            daily_usd=self.limit_usd,
            catalog={"of ROUTE": MODEL.model_copy(update={"route": tuple(self._offers())})},
        )

    def _offers(self) -> Iterator[Offer]:
        """Of the route: a render costs what `usd` says."""
        for offer in MODEL.route:
            usd = self.usd.get(offer.provider)
            prices = {} if usd is None else dict.fromkeys(("480p", "720p"), float(usd) / SECONDS)
            yield Offer.model_validate(
                offer.model_dump(exclude={"billed_in_whole_seconds", "billed_at_least_seconds"})
                | {"usd_per_second": prices}
            )

    # What happens in an account

    def _call(self, work: Callable[[], object]) -> None:
        self.calls.append(Call(work))

    def _admit(self, job: Job, *, attempt: int, offer: int, retry: int = 0) -> None:
        self.attempt[job.id], self.retries[job.id] = attempt, retry
        self.offer[job.id] = offer
        self.overdue.discard(job.id)  # whatever it has is given anew
        request = request_of(
            job,
            attempt=attempt,
            offer=offer,
            retry=retry,
            minute=-self.jobs.index(job),  # the later it comes, the earlier it was started
            route=ROUTE,
        )
        self.executions.wait(job.execution_name, request.task_token)
        self._call(lambda: self.admission.admit(request))

    @rule()
    @precondition(lambda self: len(self.jobs) < self.jobs_at_most)
    def start(self) -> None:
        job = job_named(f"job{len(self.jobs)}")
        self.jobs.append(job)
        self.lives.add(job.id)
        self._admit(job, attempt=1, offer=0)

    @rule(data=st.data(), steps=st.integers(1, 12))
    @precondition(lambda self: self.calls)
    def advance(self, data: st.DataObject, steps: int) -> None:
        call = self._draw_call(data)
        for _ in range(steps):
            if not call.is_over:
                self._advance(call)

    def _draw_call(self, data: st.DataObject) -> Call:
        return self.calls[data.draw(st.integers(0, len(self.calls) - 1), "call")]

    def _advance(self, call: Call) -> None:
        call.advance()
        if call.is_over:
            self.calls.remove(call)
            if isinstance(call.failure, Killed):
                self.crashed.append(call.work)
            elif call.failure:
                raise call.failure
        for job in self.jobs:
            if job.id in self.lives and job.execution_name in self.executions.refused:
                self._end(job, is_concluded=True)

    @rule(data=st.data(), after=st.booleans())
    @precondition(lambda self: self.calls)
    def kill(self, data: st.DataObject, after: bool) -> None:
        call = self._draw_call(data)
        call.kill_before, call.kill_after = not after, after
        self._advance(call)

    @rule(data=st.data())
    @precondition(lambda self: self.crashed)
    def call_again(self, data: st.DataObject) -> None:
        which = data.draw(st.integers(0, len(self.crashed) - 1), "call")
        self._call(self.crashed.pop(which))

    @rule(data=st.data())
    @precondition(lambda self: self._waiting())
    def retry_admit(self, data: st.DataObject) -> None:
        """Step Functions lost the answer of admit: it calls again, with a newer token."""
        job = data.draw(st.sampled_from(self._waiting()), "job")
        self._admit(
            job,
            attempt=self.attempt[job.id],
            offer=self.offer[job.id],
            retry=self.retries[job.id] + 1,
        )

    @rule(data=st.data(), kept=st.booleans())
    @precondition(lambda self: self._going())
    def finish(self, data: st.DataObject, kept: bool) -> None:
        """The render is over, well or not; the execution ends with it."""
        job = data.draw(st.sampled_from(self._going()), "job")
        if kept:
            self._render(job)
        else:
            self._end(job, is_concluded=True)

    def _render(self, job: Job) -> None:
        """The provider accepts it, so it is paid."""
        attempt = self._begin(job)
        write_outcome(self.ledger, attempt, "accepted")
        self.spent += _usd(attempt)
        self._end(job)
        self._call(partial(self.admission.rendered, job, attempt.number))

    @rule(data=st.data(), outcome=st.sampled_from(["refused", "lost"]))
    @precondition(lambda self: self._going())
    def fall_over(self, data: st.DataObject, outcome: str) -> None:
        job = data.draw(st.sampled_from(self._going()), "job")
        attempt = self._begin(job)
        write_outcome(self.ledger, attempt, outcome)
        self._admit(job, attempt=attempt.number + 1, offer=attempt.number % 2)

    @rule(data=st.data())
    @precondition(lambda self: self._going())
    def refuse_the_account(self, data: st.DataObject) -> None:
        """Its provider is closed, and the job comes back: also one that got its slot before."""
        job = data.draw(st.sampled_from(self._going()), "job")
        attempt = self._begin(job)
        refused = self.ledger.refuse(attempt, "NoCredit", "Empty.", closes_provider=True)
        now = self.clock()
        close(
            self.closures,
            refused.provider,
            "NoCredit",
            "Empty.",
            asked_at=refused.begun_at,
            now=now,
        )
        self.is_changed = True
        self._admit(job, attempt=attempt.number + 1, offer=self.offer[job.id])

    @rule(data=st.data())
    @precondition(lambda self: self.closures.all())
    def ask_a_closed_provider(self, data: st.DataObject) -> None:
        """The first good answer puts it on trial, the next one opens it."""
        seen = data.draw(st.sampled_from(self.closures.all()), "closure")
        now = self.clock() + (timedelta() if seen.trial_at is None else timedelta(hours=1))
        account = Account(state=AccountState.ACCEPTED)
        becomes = after_question(seen, account, now, at_once=True)
        assert self.closures.put(becomes, seen) if becomes else self.closures.open(seen)
        self.is_changed = True

    @rule(data=st.data(), is_concluded=st.booleans())
    @precondition(lambda self: self.lives)
    def abort(self, data: st.DataObject, is_concluded: bool) -> None:
        """Someone stops the execution; conclude is called for it, or the event is lost."""
        job = data.draw(st.sampled_from([j for j in self.jobs if j.id in self.lives]), "job")
        self.perhaps_spent += DEAR_USD
        self._end(job, is_concluded=is_concluded)

    @rule(data=st.data())
    @precondition(lambda self: self._going())
    def stop_while_it_is_submitted(self, data: st.DataObject) -> None:
        """Nobody knows yet what the provider will say."""
        job = data.draw(st.sampled_from(self._going()), "job")
        attempt = self._begin(job)
        self.asked.append(attempt)
        self.perhaps_spent += _usd(attempt)
        self._end(job, is_concluded=True)

    @rule(data=st.data(), accepts=st.booleans())
    @precondition(lambda self: self.asked)
    def answer(self, data: st.DataObject, accepts: bool) -> None:
        attempt = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1), "attempt"))
        if accepts:
            self.perhaps_spent -= _usd(attempt)
            self.spent += _usd(attempt)
            write_outcome(self.ledger, attempt, "accepted")
        else:  # its run has ended, so its day stays charged
            self.refused_late += 1
            write_outcome(self.ledger, attempt, "refused")

    def _begin(self, job: Job) -> Attempt:
        """As submit does."""
        number = self.attempt[job.id]
        admitted = self.ledger.admitted(job, number)
        assert admitted
        attempt = self.ledger.begin(
            job.id,
            NextAttempt(attempt=number, offer=admitted.offer),
            ROUTE[admitted.offer],
            self.clock(),
            estimated_usd=admitted.estimated_usd,
        )
        assert attempt
        return attempt

    def _end(self, job: Job, *, is_concluded: bool = False) -> None:
        """End its execution, and call conclude for it if `is_concluded`."""

        def conclude() -> None:
            self.ledger.close(job, self.clock())
            self.admission.leave(job)

        self.executions.end(job.execution_name)
        self.lives.discard(job.id)
        if is_concluded:
            self._call(conclude)

    @rule()
    def sweep(self) -> None:
        self._call(self.admission.serve_all)

    @rule()
    def minute(self) -> None:
        self.minutes += 1
        self._call(partial(self.admission.serve_waiting, f"minute {self.minutes}"))

    @rule(days=st.integers(1, 2))
    def time_passes(self, days: int) -> None:
        """Longer than a lease: jobs that still render are overdue. Then comes the full sweep."""
        self.overdue |= {job.id for job in self._going()}
        self.clock.now += days * timedelta(days=1)
        self.sweep()

    @rule()
    def settle(self) -> None:
        """Every call ends. Then no job waits that could go on, without any other call; after a
        change of settings, once the next minute's call has ended."""
        self._let_calls_end()
        if self.is_changed:
            self.minute()
            self._let_calls_end()
            self.is_changed = False
        items = self._items()
        for provider in TITLES:
            taken = [i for i in items if i["pk"]["S"] == f"slots#{provider}"]
            waiting = [i for i in items if i["pk"]["S"] == f"waiters#{provider}"]
            if not (slots := self._slots_of(provider)):
                assert not [i for i in waiting if self._may_go_elsewhere(i)]
            elif not self._is_day_full(self.usd.get(provider, Decimal(0))):
                assert len(taken) >= slots or not waiting, (taken, waiting)
        holders = {i["job_id"]["S"] for i in items if i["pk"]["S"].startswith("slots#")}
        assert not [job.stem for job in self._waiting() if job.id in holders]

    def _slots_of(self, provider: ProviderName) -> int:
        closed = {it.provider: it.max_in_flight for it in self.closures.all()}
        return 0 if provider is self.paused else min(self.slots, closed.get(provider, self.slots))

    def _may_go_elsewhere(self, waiter: dict[str, Any]) -> bool:
        """Whether another offer can be asked, while its own is paused or closed."""
        others = ROUTE[int(waiter["first"]["N"]) :]
        return any(
            self._slots_of(offer.provider) and (not self.limit_usd or offer.provider in self.usd)
            for offer in others
        )

    def _is_day_full(self, usd: Decimal) -> bool:
        day = DynamoDBSlots(self.table, self.client).day(self.clock().date())
        is_spent = self.limit_usd and day.spent_usd + usd > Decimal(self.limit_usd)
        return bool(is_spent or (self.limit_renders and day.renders >= self.limit_renders))

    def _let_calls_end(self) -> None:
        while self.calls or self.crashed:
            while self.calls:
                self._advance(self.calls[0])
            while self.crashed:
                self._call(self.crashed.pop())

    # What is seen of it

    def _items(self) -> list[dict[str, Any]]:
        items: list[Any] = self.client.scan(TableName=self.table, ConsistentRead=True)["Items"]
        return items

    def _alive(self, *, waits: bool) -> list[Job]:
        alive = (job for job in self.jobs if job.id in self.lives)
        return [job for job in alive if self.executions.waits(job.execution_name) is waits]

    def _waiting(self) -> list[Job]:
        return self._alive(waits=True)

    def _going(self) -> list[Job]:
        """Let go on, and not waiting for anything."""
        running = self._alive(waits=False)
        return [job for job in running if job.execution_name not in self.executions.refused]

    @invariant()
    def never_more_in_flight_than_allowed(self) -> None:
        there: dict[int, list[str]] = {0: [], 1: []}
        for job in self._going():
            admitted = self.ledger.admitted(job, self.attempt[job.id])
            assert admitted
            if job.id not in self.overdue:
                there[admitted.offer].append(job.stem)
        assert max(len(stems) for stems in there.values()) <= self.slots, there

    @invariant()
    def the_spend_and_the_renders_are_those_of_the_runs(self) -> None:
        items = self._items()
        days = [item for item in items if item["pk"]["S"] == "spend"]
        spent = [_decimal(day, "spent_usd") for day in days]
        renders = [_decimal(day, "renders") for day in days]
        assert all(0 <= usd <= Decimal(self.limit_usd or "Infinity") for usd in spent)
        assert all(0 <= number <= (self.limit_renders or 99) for number in renders)
        runs = [item for item in items if item["sk"]["S"].startswith("run#")]
        kept = (_decimal(run, "charged_usd") + _decimal(run, "kept_usd") for run in runs)
        assert sum(spent) == sum(kept)
        admitted = {
            (run["pk"]["S"], f"attempt#{int(run['attempt']['N']):03}")
            for run in runs
            if "charged_on" in run
        }
        submitted = {
            (item["pk"]["S"], item["sk"]["S"])
            for item in items
            if item["sk"]["S"].startswith("attempt#") and item["state"]["S"] not in NOT_SUBMITTED
        }
        charged = len(admitted | submitted)
        assert charged <= sum(renders) <= charged + self.refused_late

    def teardown(self) -> None:
        """In the end every job has been served, and every slot is free."""
        if not hasattr(self, "calls"):
            return
        try:
            self._let_everything_end()
        finally:
            for call in self.calls:
                call.kill_before = True
                call.advance()
            self.client.delete_table(TableName=self.table)

    def _let_everything_end(self) -> None:
        self.deploy(paused=None, unpriced=None, is_dear=False)
        for closure in self.closures.all():
            self.closures.open(closure)
        for _ in range(40):
            self._let_calls_end()
            going = self._going()
            for job in going:
                self._render(job)
            if not going and not self.lives:
                break
            if not going:
                self.clock.now += timedelta(days=1)
                self.sweep()
        assert self.lives == set()
        for _ in self.jobs:  # whose abort was not announced is skipped
            self.clock.now += timedelta(days=1)
            self.sweep()
            self._let_calls_end()
        left = self._items()
        spent = sum(_decimal(item, "spent_usd") for item in left)
        assert self.spent <= spent <= self.spent + self.perhaps_spent
        # Announce, which is not here, takes a run from the open ones.
        assert {item["pk"]["S"].partition("#")[0] for item in left} <= {"job", "open", "spend"}


class MachineWithoutLimit(Machine):
    """Where calls that serve at the same time take different slots and waiters."""

    slots, jobs_at_most = 4, 14
    limit_usd = limit_renders = None


def _usd(attempt: Attempt) -> Decimal:
    """What it was admitted for."""
    return Decimal(str(attempt.estimated_usd or 0))


def _decimal(item: dict[str, Any], name: str) -> Decimal:
    return Decimal(item[name]["N"]) if name in item else Decimal(0)


TestAdmissionInterleaved = Machine.TestCase
TestAdmissionWithoutLimit = MachineWithoutLimit.TestCase
TestAdmissionInterleaved.settings = TestAdmissionWithoutLimit.settings = settings(
    max_examples=int(os.environ.get("EXAMPLES", "10")),
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
    # Not shrunk: that takes longer than the suite may, and longer than reading the steps.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    report_multiple_bugs=False,
)
