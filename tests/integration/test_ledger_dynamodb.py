"""The ledger's promises, held by the table and by the unit tests' ledger in memory alike."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count, pairwise
from typing import Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.errors import DropreelError
from dropreel.model.job import Input
from dropreel.model.ledger import Attempt, AttemptState, Ledger, RunClosed
from dropreel.model.messages import Next, SubmitRequest
from dropreel.model.prices import billed
from dropreel.model.provider import Refusal, Unclear
from dropreel.render.admission import RunId, Waiter
from dropreel.render.submission import CALL_LIFE_SECONDS, submit
from tests.support.render_account import (
    LEDGER,
    REGION,
    RenderAccount,
    create_ledger_table,
    render_account,
)
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

JOB_ID = "anna-0123456789abcdef"
LATER = NOON + timedelta(seconds=30, microseconds=250)
SECOND_RUN = JOB.model_copy(update={"run": 2})
MINUTE = timedelta(minutes=1)

# The examples of a property share a table: each has a job, or a time, of its own.
_examples = count(1)
a_property = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    with render_account(monkeypatch) as account:
        yield account


@pytest.fixture(params=["table", "memory"])
def ledger(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """With nothing of the account but its table, which is quicker."""
    if request.param == "memory":
        yield MemoryLedger()
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("dynamodb", region_name=REGION)
        create_ledger_table(client)
        yield DynamoDBLedger(LEDGER, client)


def begin(ledger: Ledger, number: int = 1) -> Attempt | None:
    return ledger.begin(JOB_ID, Next(attempt=number), RUNCOMFY, NOON)


def begun(ledger: Ledger, number: int = 1) -> Attempt:
    attempt = begin(ledger, number)
    assert attempt is not None
    return attempt


def test_unknown_job_has_no_attempt(ledger: Ledger) -> None:
    assert ledger.find(JOB_ID, 1) is None
    assert ledger.attempts(JOB_ID) == ()


def test_begun_attempt_is_found_as_it_was_begun(ledger: Ledger) -> None:
    attempt = begun(ledger)

    assert attempt.state is AttemptState.BEGUN
    assert ledger.find(JOB_ID, 1) == attempt
    assert ledger.find(JOB_ID, 2) is None
    assert ledger.find("another-job", 1) is None


def test_second_call_cannot_begin_what_the_first_has_begun(ledger: Ledger) -> None:
    first = begun(ledger)

    assert begin(ledger) is None
    assert ledger.find(JOB_ID, 1) == first


def test_accepted_attempt_keeps_its_request_id_and_is_never_begun_again(ledger: Ledger) -> None:
    attempt = begun(ledger)

    ledger.accept(attempt, "req-1", LATER)

    assert begin(ledger) is None
    found = ledger.find(JOB_ID, 1)
    assert found is not None
    assert (found.state, found.request_id) == (AttemptState.ACCEPTED, "req-1")
    assert (found.begun_at, found.accepted_at) == (NOON, LATER)


def test_attempt_remembers_which_offer_it_was_sent_to(ledger: Ledger) -> None:
    ledger.begin(JOB_ID, Next(attempt=2, offer=1), WAVESPEED, NOON)

    found = ledger.find(JOB_ID, 2)
    assert found is not None
    assert (found.provider, found.endpoint) == (WAVESPEED.provider, WAVESPEED.endpoint)
    assert found.offer == 1


def test_postponed_attempt_may_be_begun_again(ledger: Ledger) -> None:
    ledger.postpone(begun(ledger), "ProviderThrottled", "Too many.")
    postponed = ledger.find(JOB_ID, 1)
    assert postponed is not None
    assert (postponed.state, postponed.code) == (AttemptState.POSTPONED, "ProviderThrottled")

    again = begun(ledger)

    assert ledger.find(JOB_ID, 1) == again
    assert again.state is AttemptState.BEGUN


def test_refused_attempt_keeps_its_reason_and_is_never_begun_again(ledger: Ledger) -> None:
    ledger.refuse(begun(ledger), "NoCredit", "Not enough credit.")

    assert begin(ledger) is None
    refused = ledger.find(JOB_ID, 1)
    assert refused is not None
    assert (refused.state, refused.code) == (AttemptState.REFUSED, "NoCredit")
    assert refused.message == "Not enough credit."


def test_attempt_that_was_given_up_keeps_its_reason_and_is_never_begun_again(
    ledger: Ledger,
) -> None:
    attempt = begun(ledger)

    for _ in range(2):  # two calls may find it dead
        ledger.give_up(attempt, "SubmissionUnclear", "No answer.")

    assert begin(ledger) is None
    assert ledger.find(JOB_ID, 1) == attempt.model_copy(
        update={
            "state": AttemptState.UNCLEAR,
            "code": "SubmissionUnclear",
            "message": "No answer.",
        }
    )


@pytest.mark.parametrize("since", ["accepted", "refused", "lost", "postponed", "begun again"])
def test_attempt_that_has_its_outcome_is_not_given_up(ledger: Ledger, since: str) -> None:
    attempt = begun(ledger)
    if since in ("accepted", "lost"):
        ledger.accept(attempt, TICKET.request_id, NOON)
    if since == "lost":
        ledger.lose(JOB_ID, TICKET, "RenderFailed", "No face.")
    if since == "refused":
        ledger.refuse(attempt, "NoCredit", "Not enough credit.")
    if since in ("postponed", "begun again"):
        ledger.postpone(attempt, "ProviderThrottled", "Too many.")
    if since == "begun again":
        begun(ledger)
    before = ledger.find(JOB_ID, 1)

    with pytest.raises((ClientError, RuntimeError)):
        ledger.give_up(attempt, "SubmissionUnclear", "No answer.")

    assert ledger.find(JOB_ID, 1) == before


def test_attempt_that_was_given_up_is_not_accepted_late(ledger: Ledger) -> None:
    attempt = begun(ledger)
    ledger.give_up(attempt, "SubmissionUnclear", "No answer.")
    given_up = ledger.find(JOB_ID, 1)

    with pytest.raises((ClientError, RuntimeError)):
        ledger.accept(attempt, "req-1", LATER)

    assert ledger.find(JOB_ID, 1) == given_up


@pytest.mark.parametrize("recorded", [True, False])
def test_lost_attempt_keeps_its_request_and_is_never_begun_again(
    ledger: Ledger, recorded: bool
) -> None:
    attempt = begun(ledger)
    if recorded:
        ledger.accept(attempt, TICKET.request_id, TICKET.submitted_at)

    for _ in range(2):
        ledger.lose(JOB_ID, TICKET, "RenderFailed", "No face.")

    assert begin(ledger) is None
    assert ledger.find(JOB_ID, 1) == attempt.model_copy(
        update={
            "state": AttemptState.LOST,
            "request_id": TICKET.request_id,
            "accepted_at": TICKET.submitted_at,
            "code": "RenderFailed",
            "message": "No face.",
        }
    )


@pytest.mark.parametrize("there", ["nothing", "another request", "a refusal", "a postponement"])
def test_attempt_is_lost_only_by_the_request_that_was_accepted(ledger: Ledger, there: str) -> None:
    if there != "nothing":
        attempt = begun(ledger)
    if there == "another request":
        ledger.accept(attempt, "req-0", NOON)
    if there == "a refusal":
        ledger.refuse(attempt, "NoCredit", "Not enough credit.")
    if there == "a postponement":
        ledger.postpone(attempt, "ProviderThrottled", "Too many.")
    before = ledger.attempts(JOB_ID)

    with pytest.raises((ClientError, RuntimeError)):
        ledger.lose(JOB_ID, TICKET, "RenderFailed", "No face.")

    assert ledger.attempts(JOB_ID) == before


def test_writing_the_same_outcome_twice_changes_nothing(ledger: Ledger) -> None:
    attempt = begun(ledger)
    ledger.accept(attempt, "req-1", LATER)
    once = ledger.find(JOB_ID, 1)

    ledger.accept(attempt, "req-1", LATER)

    assert ledger.find(JOB_ID, 1) == once


def test_late_refusal_cannot_undo_the_call_that_came_after_it(ledger: Ledger) -> None:
    first = begun(ledger)
    ledger.postpone(first, "ProviderThrottled", "Too many.")
    second = begun(ledger)

    with pytest.raises((ClientError, RuntimeError)):
        ledger.refuse(first, "ProviderThrottled", "Too many.")

    assert ledger.find(JOB_ID, 1) == second


def test_lost_attempt_is_not_accepted_late(ledger: Ledger) -> None:
    attempt = begun(ledger)
    ledger.lose(JOB_ID, TICKET, "RenderFailed", "No face.")
    lost = ledger.find(JOB_ID, 1)

    with pytest.raises((ClientError, RuntimeError)):
        ledger.accept(attempt, TICKET.request_id, LATER)

    assert ledger.find(JOB_ID, 1) == lost


def test_attempts_of_a_job_come_in_order(ledger: Ledger) -> None:
    for number in (1, 10, 2, 11):
        begun(ledger, number)
    ledger.begin("another-job", Next(), RUNCOMFY, NOON)

    assert [attempt.number for attempt in ledger.attempts(JOB_ID)] == [1, 2, 10, 11]


def test_attempts_outlive_the_execution_names_and_then_expire(account: RenderAccount) -> None:
    begun(account.ledger)

    [item] = account.dynamodb.scan(TableName=LEDGER)["Items"]

    assert (item["pk"], item["sk"]) == ({"S": f"job#{JOB_ID}"}, {"S": "attempt#001"})
    kept_seconds = int(item["expires_at"]["N"]) - NOON.timestamp()
    assert kept_seconds > 90 * 86_400


@pytest.mark.parametrize("late", ["begin", "accept"])
@pytest.mark.parametrize("since", ["accepted", "postponed", "refused", "lost", "unclear"])
def test_late_copy_of_a_write_undoes_nothing(
    account: RenderAccount, monkeypatch: pytest.MonkeyPatch, late: str, since: str
) -> None:
    # Given a write of which the network holds a copy back
    client = boto3.client("dynamodb")
    sent: list[Callable[[], object]] = []

    def remembering(write: Callable[..., object]) -> Callable[..., object]:
        def written(**request: object) -> object:
            sent.append(partial(write, **request))
            return write(**request)

        return written

    slow = DynamoDBLedger(LEDGER, client)
    for name in ("update_item", "transact_write_items"):
        monkeypatch.setattr(client, name, remembering(getattr(client, name)))
    attempt = begun(slow)
    if since == "postponed":
        slow.postpone(attempt, "ProviderThrottled", "Too many.")
    elif since == "refused":
        slow.refuse(attempt, "NoCredit", "Not enough credit.")
    elif since == "unclear":
        slow.give_up(attempt, "SubmissionUnclear", "No answer.")
    else:
        slow.accept(attempt, TICKET.request_id, NOON)
    if since == "lost":
        slow.lose(JOB_ID, TICKET, "RenderFailed", "No face.")
    before = slow.find(JOB_ID, 1)

    # When it arrives at last
    with suppress(ClientError):
        sent[0 if late == "begin" else 1]()

    assert before is not None
    assert before.state == since
    assert slow.find(JOB_ID, 1) == before


@pytest.mark.parametrize("write", ["begin", "accept", "postpone", "refuse", "give up"])
def test_write_whose_answer_is_lost_may_be_sent_again(
    account: RenderAccount, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    # Given a client that sends every write twice, as boto3 does when the first answer is lost
    client = boto3.client("dynamodb")

    def twice(write: Callable[..., object]) -> Callable[..., object]:
        def written(**request: object) -> object:
            write(**request)
            return write(**request)

        return written

    lossy = DynamoDBLedger(LEDGER, client)
    for name in ("put_item", "transact_write_items"):
        monkeypatch.setattr(client, name, twice(getattr(client, name)))

    attempt = begun(lossy)
    if write == "accept":
        lossy.accept(attempt, "req-1", LATER)
    if write == "refuse":
        lossy.refuse(attempt, "NoCredit", "Not enough credit.")
    if write == "postpone":
        lossy.postpone(attempt, "ProviderThrottled", "Too many.")
    if write == "give up":
        lossy.give_up(attempt, "SubmissionUnclear", "No answer.")

    found = lossy.find(JOB_ID, 1)
    assert found is not None
    assert (
        found.state
        == {
            "begin": "begun",
            "accept": "accepted",
            "postpone": "postponed",
            "refuse": "refused",
            "give up": "unclear",
        }[write]
    )


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
    for now, (before, turn) in zip(nows[1:], pairwise(turns), strict=True):
        assert max(now, before) <= turn <= max(now, before + apart)
        assert before < turn
    for first, last in zip(turns, turns[per_minute:], strict=False):
        assert last - first >= MINUTE


def test_each_provider_has_turns_of_its_own(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.take_turn(WAVESPEED.provider, 2, NOON)

    assert ledger.take_turn(RUNCOMFY.provider, 2, NOON) == NOON
    assert ledger.take_turn(WAVESPEED.provider, 2, NOON) == NOON + 1.5 * MINUTE


@pytest.mark.parametrize("between", ["nothing there yet", "a turn that is over"])
def test_turn_that_another_call_takes_in_between_is_not_given_twice(
    account: RenderAccount, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    # Given another call that is quicker whenever this one has looked
    client = boto3.client("dynamodb")
    update_item, rival_takes = client.update_item, [True]
    now = NOON + 10 * MINUTE

    def refused_and_overtaken(**request: Any) -> Any:  # noqa: ANN401
        try:
            return update_item(**request)
        except ClientError:
            if rival_takes:
                rival_takes.clear()
                assert account.ledger.take_turn(WAVESPEED.provider, 2, now) == now
            raise

    if between == "a turn that is over":
        account.ledger.take_turn(WAVESPEED.provider, 2, NOON)
    overtaken = DynamoDBLedger(LEDGER, client)
    monkeypatch.setattr(client, "update_item", refused_and_overtaken)

    assert overtaken.take_turn(WAVESPEED.provider, 2, now) == now + 0.5 * MINUTE
    assert rival_takes == []


# Runs


def test_unknown_job_has_no_run(ledger: Ledger) -> None:
    assert ledger.runs(JOB.id) == ()


def test_runs_of_a_job_come_in_order_and_alone(ledger: Ledger) -> None:
    begun(ledger)
    for number in (2, 10, 1):
        ledger.close(JOB.model_copy(update={"run": number}), NOON)
    ledger.close(JOB.model_copy(update={"id": "another-job"}), NOON)

    assert [(run.job_id, run.number) for run in ledger.runs(JOB.id)] == [
        (JOB.id, 1),
        (JOB.id, 2),
        (JOB.id, 10),
    ]
    assert len(ledger.attempts(JOB.id)) == 1


def test_run_is_closed_once(ledger: Ledger) -> None:
    ledger.close(JOB, NOON)
    ledger.close(JOB, LATER)

    [run] = ledger.runs(JOB.id)
    assert (run.closed_at, run.ended_at, run.outcome) == (NOON, None, None)


def test_nothing_is_begun_for_a_run_that_is_closed(ledger: Ledger) -> None:
    assert not ledger.is_closed(SECOND_RUN)
    ledger.close(SECOND_RUN, NOON)

    with pytest.raises(RunClosed):
        ledger.begin(JOB_ID, Next(attempt=1), RUNCOMFY, NOON, run=2)

    assert (ledger.is_closed(SECOND_RUN), ledger.is_closed(JOB)) == (True, False)
    assert ledger.attempts(JOB_ID) == ()
    assert ledger.begin(JOB_ID, Next(attempt=1), RUNCOMFY, NOON, run=1)


def test_first_outcome_of_a_run_stands(ledger: Ledger) -> None:
    ledger.close(JOB, NOON)
    ledger.end(JOB, "RenderFailed", LATER)
    once = ledger.runs(JOB.id)

    ledger.close(JOB, LATER + MINUTE)
    ledger.end(JOB, "VideoReady", LATER + MINUTE)

    assert ledger.runs(JOB.id) == once
    [run] = once
    assert (run.closed_at, run.ended_at, run.outcome) == (NOON, LATER, "RenderFailed")


def test_run_can_end_that_nobody_closed(ledger: Ledger) -> None:
    ledger.end(JOB, "VideoReady", LATER)

    [run] = ledger.runs(JOB.id)
    assert (run.closed_at, run.ended_at, run.outcome) == (None, LATER, "VideoReady")


def test_end_of_one_run_is_not_the_end_of_another(ledger: Ledger) -> None:
    ledger.close(SECOND_RUN, NOON)
    ledger.end(JOB, "RenderFailed", LATER)

    first, second = ledger.runs(JOB.id)
    assert (first.outcome, second.outcome) == ("RenderFailed", None)
    assert (first.closed_at, second.closed_at) == (None, NOON)


@given(
    writes=st.lists(
        st.tuples(st.sampled_from(["close", "VideoReady", "RenderFailed"]), st.integers(0, 3600)),
        max_size=6,
    )
)
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


def test_run_that_asked_to_be_admitted_is_known_with_its_plan(account: RenderAccount) -> None:
    slots = DynamoDBSlots(LEDGER, account.dynamodb)
    waiter = Waiter(
        run=RunId.of(SECOND_RUN),
        attempt=1,
        route=billed(PLAN),
        offer=0,
        started_at=LATER,
        task_token="a token",
        call=0,
    )
    slots.join(waiter, PLAN)
    account.ledger.close(SECOND_RUN, LATER)

    [run] = account.ledger.runs(JOB.id)

    assert (run.number, run.plan, run.started_at, run.closed_at) == (2, PLAN, LATER, LATER)
    assert "a token" not in run.model_dump_json()


def test_runs_outlive_the_execution_names_and_then_expire(account: RenderAccount) -> None:
    account.ledger.close(SECOND_RUN, NOON)

    [item] = account.dynamodb.scan(TableName=LEDGER)["Items"]

    assert (item["pk"], item["sk"]) == ({"S": f"job#{JOB_ID}"}, {"S": "run#002"})
    assert int(item["expires_at"]["N"]) - NOON.timestamp() > 90 * 86_400


# Never pay twice, whatever is cut off where


class Killed(BaseException):
    """The function's environment is gone: nothing after this point runs."""


@dataclass
class Call:
    """One call of submit: what the provider says, where the function dies, and when the next
    comes."""

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


class AllThere:
    """The uploads' bucket."""

    def exists(self, bucket: str, pinned: Input) -> bool:
        return True

    def presigned_url(self, bucket: str, pinned: Input, valid_seconds: int) -> str:
        return "https://uploads.example/anna"


@given(calls=calls_of_submit)
@a_property
def test_attempt_that_may_have_been_accepted_is_never_sent_again(
    ledger: Ledger, calls: list[Call]
) -> None:
    job = JOB.model_copy(update={"id": f"property-{next(_examples)}"})
    plan = PLAN.model_copy(update={"job": job})
    provider, clock, turn = WitnessProvider(), FakeClock(), Next()

    for call in calls:
        provider.call = call
        with suppress(DropreelError, Killed):
            submission = submit(
                SubmitRequest(plan=plan, next=turn),
                ledger=cast("Ledger", MortalLedger(ledger, call)),
                providers=by_name(provider),
                uploads=AllThere(),
                clock=clock,
                seconds_left=lambda: 80,
                settings=SUBMIT_SETTINGS,
                jitter=lambda: 1,
            )
            if not (call.repeats or submission.falls_over):
                turn = submission.next
        clock.pass_seconds(call.pause_seconds)

    # All but the last were definitely refused, and only for now.
    assert set(provider.said[:-1]) <= set(_PASSING)
