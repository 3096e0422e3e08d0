"""The ledger's promises, held by the table and by the unit tests' ledger in memory alike."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count, pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.errors import DropreelError
from dropreel.model.ledger import Attempt, AttemptState, Ledger, RunClosed
from dropreel.model.messages import NextAttempt, SubmitRequest
from dropreel.model.prices import billed
from dropreel.model.provider import Refusal, Unclear
from dropreel.render.admission import RunId, Waiter
from dropreel.render.submission import CALL_LIFE_SECONDS, submit
from tests.support.admission_fakes import LATER, ledger_table, write_outcome
from tests.support.render_account import LEDGER, REGION
from tests.support.render_fakes import (
    JOB,
    NOON,
    PLAN,
    RUNCOMFY,
    SUBMIT_SETTINGS,
    TICKET,
    WAVESPEED,
    FakeClock,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

AGAIN = "postponed begun"
SECOND_RUN = JOB.model_copy(update={"run": 2})
MINUTE = timedelta(minutes=1)
KEEPS: Mapping[str, Mapping[str, object]] = {
    "accepted": {"request_id": TICKET.request_id, "accepted_at": LATER},
    "postponed": {"code": "ProviderThrottled", "message": "Too many."},
    "refused": {"code": "NoCredit", "message": "Not enough credit."},
    "lost": {
        "request_id": TICKET.request_id,
        "accepted_at": TICKET.submitted_at,
        "code": "RenderFailed",
        "message": "No face.",
    },
}
"""What the ledger keeps of each outcome of an attempt."""

# The examples of a property share a table: each has a job, or a time, of its own.
_examples = count(1)
a_property = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def table() -> "Iterator[DynamoDBClient]":
    with ledger_table() as client:
        yield client


@pytest.fixture(params=["table", "memory"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    if request.param == "memory":
        return MemoryLedger()
    return DynamoDBLedger(LEDGER, request.getfixturevalue("table"))


def begin(ledger: Ledger, number: int = 1) -> Attempt | None:
    return ledger.begin(JOB.id, NextAttempt(attempt=number), RUNCOMFY, NOON)


def attempt_after(ledger: Ledger, steps: str) -> Attempt:
    """The first attempt of the job, as it was begun first."""
    first = begin(ledger)
    assert first
    for step in steps.split():
        if step == "begun":
            assert begin(ledger)
        else:
            write_outcome(ledger, first, step)
    return first


# Attempts


def test_attempt_is_begun_once_and_found_as_it_was_begun(ledger: Ledger) -> None:
    next_attempt = NextAttempt(attempt=2, offer=1)
    attempt = ledger.begin(JOB.id, next_attempt, WAVESPEED, NOON)

    assert ledger.begin(JOB.id, next_attempt, WAVESPEED, NOON) is None

    assert attempt is not None
    assert ledger.find(JOB.id, 2) == attempt
    assert (attempt.state, attempt.begun_at, attempt.offer) == (AttemptState.BEGUN, NOON, 1)
    assert (attempt.provider, attempt.endpoint) == (WAVESPEED.provider, WAVESPEED.endpoint)
    assert ledger.find(JOB.id, 1) is None
    assert ledger.find("another-job", 2) is None


@pytest.mark.parametrize("steps", ["accepted", "postponed", "refused", "accepted lost", "lost"])
def test_outcome_is_kept_and_only_what_was_postponed_is_begun_again(
    ledger: Ledger, steps: str
) -> None:
    attempt = attempt_after(ledger, steps)
    state = AttemptState(steps.rsplit(maxsplit=1)[-1])
    for _ in range(2):
        assert ledger.find(JOB.id, 1) == attempt.model_copy(update={"state": state, **KEEPS[state]})
        write_outcome(ledger, attempt, state)  # again, because its answer was lost

    again = begin(ledger)

    assert (again is not None) is (state is AttemptState.POSTPONED)
    if again:
        assert again.state is AttemptState.BEGUN
        assert ledger.find(JOB.id, 1) == again


@pytest.mark.parametrize(
    ("since", "late"),
    [
        (since, late)
        for since in ("accepted", "accepted lost", "lost", "refused", "postponed", AGAIN)
        for late in ("accepted", "postponed", "refused")
        if since != late
    ],
)
def test_late_outcome_undoes_nothing(ledger: Ledger, since: str, late: str) -> None:
    attempt = attempt_after(ledger, since)
    before = ledger.find(JOB.id, 1)

    with pytest.raises((ClientError, RuntimeError)):
        write_outcome(ledger, attempt, late)

    assert ledger.find(JOB.id, 1) == before


@pytest.mark.parametrize("there", ["nothing", "another request", "refused", "postponed"])
def test_attempt_is_lost_only_by_the_request_that_was_accepted(ledger: Ledger, there: str) -> None:
    if there == "another request":
        ledger.accept(attempt_after(ledger, ""), "req-0", NOON)
    elif there != "nothing":
        attempt_after(ledger, there)
    before = ledger.attempts(JOB.id)

    with pytest.raises((ClientError, RuntimeError)):
        ledger.lose(JOB.id, TICKET, "RenderFailed", "No face.")

    assert ledger.attempts(JOB.id) == before


def test_attempts_of_a_job_come_in_order_and_alone(ledger: Ledger) -> None:
    for number in (1, 10, 2, 11):
        assert begin(ledger, number)
    ledger.begin("another-job", NextAttempt(), RUNCOMFY, NOON)
    ledger.close(JOB, NOON)

    assert [attempt.number for attempt in ledger.attempts(JOB.id)] == [1, 2, 10, 11]


def test_attempts_and_runs_outlive_the_execution_names_and_expire(
    table: "DynamoDBClient",
) -> None:
    ledger = DynamoDBLedger(LEDGER, table)
    begin(ledger)
    ledger.close(SECOND_RUN, NOON)

    items = table.scan(TableName=LEDGER)["Items"]

    assert {item["pk"]["S"] for item in items} == {f"job#{JOB.id}"}
    assert sorted(item["sk"]["S"] for item in items) == ["attempt#001", "run#002"]
    for item in items:
        assert int(item["expires_at"]["N"]) - NOON.timestamp() > 90 * 86_400


@pytest.mark.parametrize("since", ["", "accepted", "postponed", "refused", "accepted lost"])
def test_copy_of_a_begin_undoes_nothing_whenever_it_comes(
    table: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    """As boto3 sends one when the first answer is lost, or as the network held it back."""
    begin, sent = table.transact_write_items, list[Callable[[], object]]()

    def remembered(**request: Any) -> object:  # noqa: ANN401
        sent.append(partial(begin, **request))
        return sent[-1]()

    monkeypatch.setattr(table, "transact_write_items", remembered)
    ledger = DynamoDBLedger(LEDGER, table)
    attempt_after(ledger, since)
    before = ledger.find(JOB.id, 1)
    assert before is not None
    assert before.state == (since.split() or ["begun"])[-1]

    with suppress(ClientError) if since else nullcontext():
        sent[0]()

    assert ledger.find(JOB.id, 1) == before


# Turns


@given(
    per_minute=st.integers(1, 20),
    arrivals=st.lists(st.integers(0, 150_000), min_size=1, max_size=14),
)
@example(per_minute=7, arrivals=[0] * 8)  # 60 s do not divide evenly
@example(per_minute=11, arrivals=[0] * 12)
@a_property
def test_no_minute_has_more_turns_than_it_may_and_none_is_later_than_it_must(
    ledger: Ledger, per_minute: int, arrivals: list[int]
) -> None:
    # Given calls that come whenever they like, and clocks that disagree
    start = NOON + timedelta(days=next(_examples))
    nows = [start + timedelta(milliseconds=arrival) for arrival in arrivals]

    turns = [ledger.take_turn(WAVESPEED.provider, per_minute, now) for now in nows]

    apart = timedelta(milliseconds=60_000 / per_minute + 1)
    assert turns[0] == nows[0]
    for now, (before, next_attempt) in zip(nows[1:], pairwise(turns), strict=True):
        assert max(now, before) <= next_attempt <= max(now, before + apart)
        assert before < next_attempt
    for first, last in zip(turns, turns[per_minute:], strict=False):
        assert last - first >= MINUTE


def test_each_provider_has_turns_of_its_own(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.take_turn(WAVESPEED.provider, 2, NOON)

    assert ledger.take_turn(RUNCOMFY.provider, 2, NOON) == NOON
    assert ledger.take_turn(WAVESPEED.provider, 2, NOON) == NOON + 1.5 * MINUTE


@pytest.mark.parametrize("between", ["nothing there yet", "a turn that is over"])
def test_turn_that_another_call_takes_in_between_is_not_given_twice(
    table: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    """The other call is quicker whenever this one has looked."""
    rival = DynamoDBLedger(LEDGER, boto3.client("dynamodb", region_name=REGION))
    update_item, rival_takes = table.update_item, [True]
    now = NOON + 10 * MINUTE

    def refused_and_overtaken(**request: Any) -> Any:  # noqa: ANN401
        try:
            return update_item(**request)
        except ClientError:
            if rival_takes:
                rival_takes.clear()
                assert rival.take_turn(WAVESPEED.provider, 2, now) == now
            raise

    if between == "a turn that is over":
        rival.take_turn(WAVESPEED.provider, 2, NOON)
    monkeypatch.setattr(table, "update_item", refused_and_overtaken)

    next_attempt = DynamoDBLedger(LEDGER, table).take_turn(WAVESPEED.provider, 2, now)

    assert next_attempt == now + 0.5 * MINUTE
    assert rival_takes == []


# Runs


def test_runs_of_a_job_come_in_order_and_alone(ledger: Ledger) -> None:
    begin(ledger)
    for number in (2, 10, 1):
        ledger.close(JOB.model_copy(update={"run": number}), NOON)
    ledger.close(JOB.model_copy(update={"id": "another-job"}), NOON)

    runs = ledger.runs(JOB.id)

    assert [(run.job_id, run.number) for run in runs] == [(JOB.id, 1), (JOB.id, 2), (JOB.id, 10)]


def test_nothing_is_begun_for_a_run_that_is_closed(ledger: Ledger) -> None:
    assert not ledger.is_closed(SECOND_RUN)
    ledger.close(SECOND_RUN, NOON)

    with pytest.raises(RunClosed):
        ledger.begin(JOB.id, NextAttempt(attempt=1), RUNCOMFY, NOON, run=2)

    assert (ledger.is_closed(SECOND_RUN), ledger.is_closed(JOB)) == (True, False)
    assert ledger.attempts(JOB.id) == ()
    assert ledger.begin(JOB.id, NextAttempt(attempt=1), RUNCOMFY, NOON, run=1)


def test_end_of_one_run_is_not_the_end_of_another(ledger: Ledger) -> None:
    ledger.close(SECOND_RUN, NOON)
    ledger.end(JOB, "RenderFailed", LATER)

    first, second = ledger.runs(JOB.id)
    assert (first.closed_at, first.ended_at, first.outcome) == (None, LATER, "RenderFailed")
    assert (second.closed_at, second.ended_at, second.outcome) == (NOON, None, None)


@given(
    writes=st.lists(
        st.tuples(st.sampled_from(["close", "VideoReady", "RenderFailed"]), st.integers(0, 3600)),
        max_size=6,
    )
)
@example(writes=[("close", 0), ("close", 60)])
@example(writes=[("close", 0), ("RenderFailed", 30), ("close", 90), ("VideoReady", 90)])
@a_property
def test_what_was_written_first_of_a_run_stands(
    ledger: Ledger, writes: list[tuple[str, int]]
) -> None:
    job = JOB.model_copy(update={"id": f"property-{next(_examples)}"})
    for what, after_seconds in writes:
        at = NOON + timedelta(seconds=after_seconds)
        if what == "close":
            ledger.close(job, at)
        else:
            ledger.end(job, what, at)

    closed = [after for what, after in writes if what == "close"]
    ended = [write for write in writes if write[0] != "close"]
    runs = ledger.runs(job.id)
    assert len(runs) == min(1, len(writes))
    for run in runs:
        assert run.closed_at == (NOON + timedelta(seconds=closed[0]) if closed else None)
        assert run.ended_at == (NOON + timedelta(seconds=ended[0][1]) if ended else None)
        assert run.outcome == (ended[0][0] if ended else None)


def test_run_that_asked_to_be_admitted_is_known_with_its_plan(table: "DynamoDBClient") -> None:
    waiter = Waiter(
        run=RunId.of(SECOND_RUN),
        attempt=1,
        route=billed(PLAN),
        offer=0,
        started_at=LATER,
        task_token="a token",
    )
    DynamoDBSlots(LEDGER, table).join(waiter, PLAN)
    ledger = DynamoDBLedger(LEDGER, table)
    ledger.close(SECOND_RUN, LATER)

    [run] = ledger.runs(JOB.id)

    assert (run.number, run.plan, run.started_at, run.closed_at) == (2, PLAN, LATER, LATER)
    assert "a token" not in run.model_dump_json()


# Never pay twice, whatever is cut off where


class Killed(BaseException):
    """The function's environment is gone: nothing after this point runs."""


@dataclass
class Call:
    """One call of submit: what the provider says, where the function dies, when the next comes."""

    says: str
    dies: str
    repeats: bool
    pause_seconds: float

    def at(self, point: str) -> None:
        if point == self.dies:
            raise Killed


_KINDS = {"begin": "begin", "accept": "outcome", "postpone": "outcome", "refuse": "outcome"}
_POINTS = [
    f"{when} {what}" for what in ("begin", "call", "outcome") for when in ("before", "after")
]
_PASSING = {
    "throttled": Refusal("ProviderThrottled", "Too many requests.", again=True),
    "unavailable": Refusal("ProviderUnavailable", "Unavailable.", again=True),
}
_SAYS: Mapping[str, str | Exception] = {
    **_PASSING,
    "accepted": "req-1",
    "no credit": Refusal("NoCredit", "Not enough credit."),
    "nothing": Unclear("No answer."),
}
calls_of_submit = st.lists(
    st.builds(
        Call,
        says=st.sampled_from([*_SAYS, *_PASSING]),
        dies=st.sampled_from(["", "", "", "", *_POINTS]),
        repeats=st.booleans(),
        pause_seconds=st.sampled_from([0, 1, CALL_LIFE_SECONDS, 1000]),
    ),
    min_size=1,
    max_size=7,
)


class MortalLedger:
    """The ledger of a function that may die before and after each of its writes."""

    def __init__(self, ledger: Ledger, call: Call) -> None:
        self._ledger = ledger
        self._call = call

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the ledger has
        there = getattr(self._ledger, name)
        if name not in _KINDS:
            return there

        def write(*args: object, **named: object) -> object:
            self._call.at(f"before {_KINDS[name]}")
            answer = there(*args, **named)
            self._call.at(f"after {_KINDS[name]}")
            return answer

        return write


class WitnessProvider(ScriptedProvider):
    """Remembers what it said in each call, also to those that did not live to hear it."""

    def __init__(self) -> None:
        super().__init__("runcomfy")
        self.said: list[str] = []
        self.call: Call | None = None

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        assert self.call
        if self.call.dies == "before call":  # who can tell what has left by then
            self.said.append("nothing")
            raise Killed
        self.said.append(self.call.says)
        self.call.at("after call")
        said = _SAYS[self.call.says]
        if isinstance(said, Exception):
            raise said
        return said


UPLOADS: Any = SimpleNamespace(
    exists=lambda bucket, pinned: True,
    presigned_url=lambda bucket, pinned, valid_seconds: "https://uploads.example/anna",
)


@given(calls=calls_of_submit)
@a_property
def test_attempt_that_may_have_been_accepted_is_never_sent_again(
    ledger: Ledger, calls: list[Call]
) -> None:
    job = JOB.model_copy(update={"id": f"property-{next(_examples)}"})
    plan = PLAN.model_copy(update={"job": job})
    provider, clock, next_attempt = WitnessProvider(), FakeClock(), NextAttempt()

    for call in calls:
        provider.call = call
        with suppress(DropreelError, Killed):
            submission = submit(
                SubmitRequest(plan=plan, next=next_attempt),
                ledger=cast("Ledger", MortalLedger(ledger, call)),
                providers=by_name(provider),
                uploads=UPLOADS,
                clock=clock,
                seconds_left=lambda: 80,
                settings=SUBMIT_SETTINGS,
                jitter=lambda: 1,
            )
            if not (call.repeats or submission.falls_over):
                next_attempt = submission.next
        clock.pass_seconds(call.pause_seconds)

    # All but the last were definitely refused, and only for now.
    assert set(provider.said[:-1]) <= set(_PASSING)
