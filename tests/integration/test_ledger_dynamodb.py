"""The ledger's promises, held by the table and by the unit tests' ledger in memory alike."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from io import BytesIO
from itertools import count, pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dropreel.aws.ledger import DynamoDBLedger, listed_run
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.errors import DropreelError
from dropreel.model.ledger import Attempt, AttemptState, Ledger, ListedRun, Outcome, RunClosed
from dropreel.model.messages import NextAttempt, SubmitRequest
from dropreel.model.prices import billed
from dropreel.model.provider import Lookup, Refusal, Ticket, Unclear
from dropreel.render.admission import RunId, Waiter
from dropreel.render.submission import CALL_LIFE_SECONDS, submit
from tests.support.admission_fakes import LATER, ledger_table, write_outcome
from tests.support.conclusion_bench import FAILED, READY
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
    MemoryClosures,
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

OUTCOMES = (READY, FAILED)

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


def test_all_that_is_known_of_a_job_outlives_its_execution_names_and_expires(
    table: "DynamoDBClient",
) -> None:
    ledger = DynamoDBLedger(LEDGER, table)
    begin(ledger)
    ledger.close(SECOND_RUN, NOON)
    ledger.end(SECOND_RUN, NOON, READY, NOON)

    items = table.scan(TableName=LEDGER)["Items"]

    assert {item["pk"]["S"] for item in items} == {f"job#{JOB.id}"}
    assert sorted(item["sk"]["S"] for item in items) == ["attempt#001", "outcome#002", "run#002"]
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


def test_first_close_of_a_run_stands(ledger: Ledger) -> None:
    for at in (LATER, NOON, LATER + MINUTE):
        ledger.close(JOB, at)

    [run] = ledger.runs(JOB.id)
    assert run.closed_at == LATER


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


# Outcomes


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["ready", "failed"])
def test_outcome_is_read_back_as_it_was_written(ledger: Ledger, outcome: Outcome) -> None:
    ledger.close(JOB, NOON)  # a run without an outcome yet
    assert ledger.outcome(JOB, NOON) is None

    assert ledger.end(JOB, NOON, outcome, LATER) == outcome

    assert ledger.outcome(JOB, NOON) == outcome
    assert ledger.outcome(SECOND_RUN, NOON) is None
    assert ledger.outcome(JOB.model_copy(update={"id": "another-job"}), NOON) is None
    assert [run.number for run in ledger.runs(JOB.id)] == [1]


@given(
    writes=st.lists(
        st.tuples(st.sampled_from([*OUTCOMES, "sent"]), st.integers(0, 3600)), max_size=6
    )
)
@example(writes=[(FAILED, 0), ("sent", 10), (READY, 20), ("sent", 30)])
@a_property
def test_first_outcome_and_first_mark_of_a_run_stand(
    ledger: Ledger, writes: list[tuple[Outcome | str, int]]
) -> None:
    job = JOB.model_copy(update={"id": f"property-{next(_examples)}"})
    expected: Outcome | None = None

    for what, after_seconds in writes:
        now = NOON + timedelta(seconds=after_seconds)
        if isinstance(what, Outcome):
            expected = expected or what
            assert ledger.end(job, NOON, what, now) == expected
        elif expected:
            is_first = expected.sent_at is None
            expected = expected.model_copy(update={"sent_at": expected.sent_at or now})
            assert ledger.mark_sent(job, now) is is_first
        else:
            with pytest.raises((ClientError, KeyError)):
                ledger.mark_sent(job, now)
        assert ledger.outcome(job, NOON) == expected


@pytest.mark.parametrize("milliseconds", [-998, -1, -0.4, 0.4, 1, 998])
def test_clocks_of_one_start_may_differ_by_less_than_a_second(
    ledger: Ledger, milliseconds: float
) -> None:
    """The context object gives it as text, EventBridge in milliseconds."""
    same_start = NOON + timedelta(milliseconds=milliseconds)
    ledger.end(JOB, NOON, FAILED, LATER)

    assert ledger.outcome(JOB, same_start) == FAILED
    assert ledger.end(JOB, same_start, READY, LATER) == FAILED


def test_outcome_of_an_execution_that_had_the_name_91_days_ago_is_replaced(
    ledger: Ledger,
) -> None:
    """The table deletes what has expired within days, and not at once."""
    long_ago = NOON - timedelta(days=91)
    ledger.end(JOB, long_ago, FAILED, long_ago)
    ledger.mark_sent(JOB, long_ago)
    assert ledger.outcome(JOB, NOON) is None

    assert ledger.end(JOB, NOON, READY, LATER) == READY

    assert ledger.outcome(JOB, NOON) == READY


@pytest.mark.parametrize("rival_comes", ["before", "after"])
def test_of_two_writers_of_an_outcome_one_wins(
    table: "DynamoDBClient", monkeypatch: pytest.MonkeyPatch, rival_comes: str
) -> None:
    """Deliver and conclude have both seen that there is none."""
    rival = DynamoDBLedger(LEDGER, boto3.client("dynamodb", region_name=REGION))
    put_item, returned = table.put_item, list[Outcome]()

    def rival_ends() -> None:
        returned.append(rival.end(JOB, NOON, FAILED, LATER))

    def put(**request: Any) -> object:  # noqa: ANN401
        if rival_comes == "before":
            rival_ends()
        try:
            return put_item(**request)
        finally:
            if rival_comes == "after":
                rival_ends()

    monkeypatch.setattr(table, "put_item", put)

    returned.append(DynamoDBLedger(LEDGER, table).end(JOB, NOON, READY, LATER))

    winner = FAILED if rival_comes == "before" else READY
    assert returned == [winner, winner]
    assert rival.outcome(JOB, NOON) == winner


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
    lists: bool

    def at(self, point: str) -> None:
        if point == self.dies:
            raise Killed


_KINDS = {
    "begin": "begin",
    "accept": "outcome",
    "postpone": "outcome",
    "refuse": "outcome",
    "confirm": "adoption",
}
_POINTS = [
    f"{when} {what}"
    for what in ("begin", "call", "outcome", "adoption")
    for when in ("before", "after")
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
        lists=st.booleans(),
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
    """Remembers what it said in each call, also to those that did not live to hear it. Its list may
    have what it took in."""

    def __init__(self) -> None:
        super().__init__("runcomfy", lookups=())
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

    def find(self, *_: object) -> Lookup:
        assert self.call
        took = {"accepted", "nothing"} & {*self.said}
        return Lookup(
            request_id="req-1" if took and self.call.lists else None, listed=1, readable=1
        )


UPLOADS: Any = SimpleNamespace(
    exists=lambda bucket, pinned: True,
    open=lambda bucket, pinned: BytesIO(b"x"),
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
    tickets: set[Ticket] = set()

    for call in calls:
        provider.call = call
        with suppress(DropreelError, Killed):
            submission = submit(
                SubmitRequest(plan=plan, next=next_attempt),
                ledger=cast("Ledger", MortalLedger(ledger, call)),
                closures=MemoryClosures(),
                providers=by_name(provider),
                uploads=UPLOADS,
                clock=clock,
                seconds_left=lambda: 80,
                settings=SUBMIT_SETTINGS,
                recorded=lambda attempt, ticket: None,
                jitter=lambda: 1,
            )
            if submission.ticket:
                tickets.add(submission.ticket)
            if not (call.repeats or submission.falls_over):
                next_attempt = submission.next
        clock.pass_seconds(call.pause_seconds)

    # All but the last were definitely refused, and only for now.
    assert set(provider.said[:-1]) <= set(_PASSING)
    assert len(tickets) <= 1
    if tickets:
        [sent] = ledger.attempts(job.id)
        assert {sent.ticket} == tickets


# Lists of runs


def listed(table: "DynamoDBClient", pk: str) -> list[ListedRun]:
    got = table.query(
        TableName=LEDGER,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": pk}},
    )
    return [listed_run(item) for item in got["Items"]]


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_run_is_listed_as_open_when_it_may_join_a_queue(
    table: "DynamoDBClient", is_closed: bool
) -> None:
    ledger = DynamoDBLedger(LEDGER, table)
    if is_closed:
        ledger.close(JOB, NOON)

    for call in range(2):  # the second renews the token
        joined = DynamoDBSlots(LEDGER, table).join(
            Waiter(
                run=RunId.of(JOB),
                attempt=1,
                route=billed(PLAN),
                offer=0,
                started_at=NOON,
                task_token=f"token {call}",
                call=call,
            ),
            PLAN,
        )
        assert joined is not is_closed

    assert listed(table, "open") == ([] if is_closed else [ListedRun.open(JOB, NOON)])


def test_a_run_that_is_over_is_not_listed_as_open_again(table: "DynamoDBClient") -> None:
    """Its first poll may come after conclude."""
    ledger = DynamoDBLedger(LEDGER, table)
    ledger.close(JOB, NOON)

    ledger.resume(PLAN, NOON, LATER)

    assert listed(table, "open") == []


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["ready", "failed"])
def test_a_run_that_ends_moves_to_the_list_of_its_last_day(
    table: "DynamoDBClient", outcome: Outcome
) -> None:
    ledger = DynamoDBLedger(LEDGER, table)
    ledger.resume(PLAN, NOON, LATER)
    assert listed(table, "open") == [ListedRun.open(JOB, NOON)]

    for _ in range(2):  # a call that is cut off is repeated
        ledger.list_ended(outcome)

    assert listed(table, "open") == []
    (run,) = listed(table, f"ended#{outcome.detail.ended_at:%Y-%m-%d}")
    assert (run.job_id, run.number, run.name) == (JOB.id, 1, f"{JOB.folder}{JOB.stem}")
    assert (run.code, run.ended_at) == (outcome.code, outcome.detail.ended_at)
    render = outcome.detail.render
    assert [made.number for made in run.renders] == [
        made.number for made in (render.attempts if render else ())
    ]
    assert {made.message for made in run.renders} <= {""}
