"""Admission on the ledger's table: which job gets a slot, and which waits."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from dropreel.render.admission import RunId
from tests.support.admission_fakes import (
    ANNA,
    BEN,
    CLEO,
    DORA,
    EVE,
    LEASE,
    Account,
    job_named,
    ledger_table,
    request_of,
)
from tests.support.render_fakes import NOON, RUNCOMFY, WAVESPEED
from tests.support.sam_template import DEFINITION, may


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with ledger_table() as dynamodb:
        yield Account(dynamodb, monkeypatch)


def test_slot_goes_to_the_execution_that_started_first(at: Account) -> None:
    at.open(in_flight=2)
    at.line_up(ANNA, BEN)
    at.admit(DORA, minute=3)
    at.admit(CLEO, minute=2)
    assert at.holders == {"runcomfy": ["anna", "ben"]}
    assert at.waiting == ["cleo", "dora"]

    at.admission.rendered(ANNA, 1)
    at.admission.rendered(BEN, 1)

    assert at.notified == ["anna", "ben", "cleo", "dora"]
    assert at.holders == {"runcomfy": ["cleo", "dora"]}


def test_lowered_limit_holds_for_later_jobs(at: Account) -> None:
    at.open(in_flight=3)
    at.line_up(ANNA, BEN, CLEO)
    at.open(in_flight=1)
    at.admit(DORA, minute=4)

    at.admission.rendered(ANNA, 1)
    at.admission.rendered(BEN, 1)
    assert at.notified == ["anna", "ben", "cleo"]
    at.admission.rendered(CLEO, 1)

    assert at.notified == ["anna", "ben", "cleo", "dora"]


def test_run_has_a_first_place_in_a_queue_once(at: Account) -> None:
    at.admit(ANNA)

    first = at.admission.admit(request_of(BEN, minute=1))
    again = at.admission.admit(request_of(BEN, minute=1, retry=1))
    at.admission.rendered(ANNA, 1)
    second_attempt = at.admission.admit(request_of(BEN, minute=1, attempt=2))

    assert first
    assert (first.run, first.provider) == (RunId.of(BEN), "runcomfy")
    assert (again, second_attempt) == (None, None)


def test_run_that_is_over_has_no_place(at: Account) -> None:
    at.ledger.close(ANNA, NOON)

    assert at.admission.admit(request_of(ANNA)) is None


def test_those_before_are_counted_by_the_start_of_their_executions_up_to_a_limit(
    at: Account,
) -> None:
    at.line_up(ANNA, BEN, CLEO, DORA)
    last = at.admission.admit(request_of(EVE, minute=5))
    assert last

    asked = at.record_calls("before-parameter-build.dynamodb.Query", lambda params, **_: params)
    counted = [at.slots.waiting_before(last, at_most) for at_most in (100, 2)]
    own_minute = last.model_copy(update={"started_at": NOON + timedelta(seconds=30)})

    assert counted == [3, 2]  # anna has a slot
    assert at.slots.waiting_before(own_minute, 100) == 0
    assert [(it["Select"], it["Limit"]) for it in asked] == [
        ("COUNT", 100),
        ("COUNT", 2),
        ("COUNT", 100),
    ]


# Called again, or late


def test_admit_called_again_gives_the_same_answer_to_the_newer_token(at: Account) -> None:
    at.open(in_flight=2)
    at.admit(ANNA)
    at.admit(ANNA, retry=1)

    assert at.notified == ["anna", "anna"]
    assert at.holders == {"runcomfy": ["anna"]}


def test_waiter_called_again_keeps_its_place_and_its_newer_token(at: Account) -> None:
    at.line_up(ANNA, BEN, CLEO)
    at.admit(BEN, minute=1, retry=1)
    at.admission.admit(request_of(BEN, minute=1))  # which Step Functions gave up on, at work still

    at.admission.rendered(ANNA, 1)

    assert at.notified == ["anna", "ben"]


@pytest.mark.parametrize(("offer", "provider"), [(0, "runcomfy"), (1, "wavespeed")])
def test_next_attempt_gives_the_slot_back_and_late_calls_take_nothing(
    at: Account, offer: int, provider: str
) -> None:
    at.open(in_flight=2)
    first = at.admit(ANNA)

    at.admit(ANNA, attempt=2, offer=offer)
    assert at.holders == {provider: ["anna"]}
    at.admission.admit(first)
    assert at.holders == {provider: ["anna"]}
    at.admission.rendered(ANNA, 1)
    assert at.holders == {provider: ["anna"]}
    assert at.notified == ["anna", "anna"]


def test_job_that_asks_the_same_provider_again_keeps_its_turn(at: Account) -> None:
    at.line_up(ANNA, BEN)

    at.admit(ANNA, attempt=2)

    assert at.notified == ["anna", "anna"]


def test_after_its_render_a_job_gets_a_slot_for_another_attempt_only(at: Account) -> None:
    request = at.admit(ANNA)
    at.admission.rendered(ANNA, 1)

    at.admission.admit(request)
    assert (at.holders, at.waiting) == ({}, [])

    at.admit(ANNA, attempt=2)
    assert at.notified == ["anna", "anna"]
    assert at.holders == {"runcomfy": ["anna"]}


def test_late_run_takes_no_slot_from_a_later_run_of_its_job(at: Account) -> None:
    at.admit(ANNA)
    at.clock.now += LEASE
    again = job_named("anna", run=2)
    at.admit(again, attempt=2)
    assert at.notified == ["anna", "anna"]

    at.admission.leave(ANNA)

    assert at.lease.run == RunId.of(again)


# Gone, over and redriven


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lambda at: at.executions.end(BEN.execution_name), id="its execution is gone"),
        pytest.param(lambda at: at.admission.leave(BEN), id="it left"),
        pytest.param(lambda at: at.ledger.close(BEN, NOON), id="its run is closed"),
    ],
)
@pytest.mark.parametrize("way", ["leave", "leave twice", "rendered", "swept", "expired"])
def test_slot_skips_waiters_that_have_ended(
    at: Account, lose: Callable[[Account], None], way: str
) -> None:
    at.line_up(ANNA, BEN, CLEO, DORA)
    lose(at)
    at.executions.end(ANNA.execution_name)

    if way == "rendered":
        at.admission.rendered(ANNA, 1)
    elif way == "swept":  # nobody concluded it
        at.admission.serve_all()
    elif way == "expired":  # its event was lost
        at.clock.now += LEASE
        at.admit(EVE, minute=4)
    else:
        for _ in way.split():
            at.admission.leave(ANNA)

    assert at.notified == ["anna", "cleo"]
    assert at.holders == {"runcomfy": ["cleo"]}
    assert at.waiting == ["dora", "eve"][: 1 + (way == "expired")]


@pytest.mark.parametrize("slots", [1, 2], ids=["no slot is free", "a slot is free"])
def test_run_that_is_closed_is_refused(at: Account, slots: int) -> None:
    at.open(in_flight=slots)
    at.admit(BEN)
    at.ledger.close(ANNA, NOON)

    at.admit(ANNA, minute=1)

    assert at.refused == {"anna": "ExecutionAborted"}
    assert at.notified == ["ben"]
    assert (at.holders, at.waiting) == ({"runcomfy": ["ben"]}, [])


def test_execution_that_is_redriven_after_its_end_is_refused(at: Account) -> None:
    at.line_up(ANNA, BEN)
    at.executions.end(BEN.execution_name)
    at.ledger.close(BEN, at.clock())
    at.admission.leave(BEN)

    at.admit(BEN, minute=1)  # its retries are counted anew

    assert at.refused == {"ben": "ExecutionAborted"}


@pytest.mark.parametrize("tries", [0, 3])
def test_redriven_waiter_is_notified(at: Account, tries: int) -> None:
    at.admit(ANNA)
    for retry in range(tries + 1):
        at.admit(BEN, minute=1, retry=retry)
    at.redrive(BEN, minute=1)

    at.admission.rendered(ANNA, 1)

    assert at.notified == ["anna", "ben"]


@pytest.mark.parametrize("waits_with", ["a place", "a slot"])
def test_redriven_waiter_that_is_concluded_meanwhile_is_answered(
    at: Account, waits_with: str
) -> None:
    at.admit(ANNA)
    if waits_with == "a place":
        at.admit(BEN, minute=1)
    else:
        at.open(in_flight=2)
    with nullcontext() if waits_with == "a place" else at.killed_before_notifying():
        at.redrive(BEN, minute=1)

    at.ledger.close(BEN, NOON)
    at.admission.leave(BEN)

    assert at.refused == {"ben": "ExecutionAborted"}


# Leases


def test_expired_lease_is_taken_back_when_its_slot_is_needed(at: Account) -> None:
    at.admit(ANNA)
    at.clock.now += LEASE - timedelta(seconds=1)
    at.admit(BEN, minute=1)
    assert at.notified == ["anna"]

    at.clock.now += timedelta(seconds=1)
    at.admit(CLEO, minute=2)

    assert at.notified == ["anna", "ben"]
    assert at.holders == {"runcomfy": ["ben"]}
    at.admission.leave(ANNA)  # comes late, and has nothing left to return
    assert at.holders == {"runcomfy": ["ben"]}


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda at: at.admission.rendered(ANNA, 1), id="the end of a render"),
        pytest.param(lambda at: at.admission.leave(ANNA), id="the end of a run"),
        pytest.param(lambda at: at.admission.serve_waiting("a minute later"), id="the clock"),
    ],
)
def test_call_killed_after_giving_a_slot_notifies_when_repeated(
    at: Account, call: Callable[[Account], None]
) -> None:
    at.line_up(ANNA, BEN)
    at.open(in_flight=2)
    with at.killed_before_notifying():
        call(at)
    assert (at.notified, at.waiting) == (["anna"], [])

    call(at)

    assert at.notified == ["anna", "ben"]


@pytest.mark.parametrize(
    ("later", "slots"),
    [
        pytest.param(LEASE + timedelta(hours=1), 1, id="after its lease"),
        pytest.param(LEASE - timedelta(minutes=1), 1, id="before its end"),
        pytest.param(LEASE - timedelta(minutes=1), 0, id="from a provider that is paused since"),
    ],
)
def test_late_notification_starts_a_whole_lease(at: Account, later: timedelta, slots: int) -> None:
    at.line_up(ANNA, BEN, CLEO, route=(RUNCOMFY,))
    with at.killed_before_notifying():
        at.admission.rendered(ANNA, 1)
    at.open(in_flight=slots)

    at.clock.now += later
    at.admission.serve_all()  # the sweep: notifies ben
    at.open()
    at.clock.now += timedelta(minutes=2)
    at.admit(DORA, minute=3)

    assert at.notified == ["anna", "ben"]


def test_call_killed_after_renewing_a_lease_takes_no_slot_away(at: Account) -> None:
    at.line_up(ANNA, BEN)
    with at.killed_before_notifying():
        at.admission.rendered(ANNA, 1)
    at.clock.now += LEASE + timedelta(minutes=1)
    with at.killed_before_notifying():
        at.admit(CLEO, minute=2)

    at.admit(CLEO, minute=2, retry=1)
    at.clock.now += LEASE
    at.admit(CLEO, minute=2, retry=2)

    assert at.notified == ["anna", "ben"]
    assert at.holders == {"runcomfy": ["ben"]}


# Seen before, and changed since


@pytest.mark.parametrize(
    ("since", "provider"),
    [
        pytest.param({"retry": 1}, "runcomfy", id="a newer token"),
        pytest.param({"attempt": 2}, "runcomfy", id="another attempt"),
        pytest.param({"attempt": 2, "offer": 1}, "wavespeed", id="an attempt elsewhere"),
    ],
)
def test_outdated_waiter_neither_joins_nor_dismisses_the_newer_one(
    at: Account, since: dict[str, int], provider: str
) -> None:
    at.admit(BEN)
    at.admit(CLEO, route=(WAVESPEED,))
    first = at.admit(ANNA, minute=1)
    before = at.first

    at.admit(ANNA, minute=1, **since)
    assert not at.slots.join(before, first.plan)
    at.slots.dismiss(before)
    assert at.waiting == ["anna"]

    at.admission.rendered(BEN, 1)
    at.admission.rendered(CLEO, 1)
    assert at.notified == ["ben", "cleo", "anna"]
    assert at.holders == {provider: ["anna"]}


@pytest.mark.parametrize("later", [timedelta(seconds=1), -timedelta(seconds=1)])
def test_lease_that_was_renewed_meanwhile_is_neither_renewed_nor_taken_back(
    at: Account, later: timedelta
) -> None:
    at.admit(ANNA)
    seen = at.lease
    renewed = at.slots.renew(seen, seen.until + later)
    assert renewed

    assert at.slots.renew(seen, NOON + 9 * LEASE) is None
    assert not at.slots.take_back(seen)

    assert at.lease == renewed


def test_lease_is_renewed_and_taken_back_once_though_its_answer_was_lost(at: Account) -> None:
    at.admit(ANNA)
    seen, until = at.lease, NOON + 9 * LEASE

    renewed = at.slots.renew(seen, until)
    assert renewed
    assert at.slots.renew(seen, until) == renewed
    assert at.slots.renew(seen, until + LEASE) is None
    assert at.slots.take_back(renewed)
    assert at.slots.take_back(renewed)
    at.admit(BEN)
    assert not at.slots.take_back(renewed)

    assert at.holders == {"runcomfy": ["ben"]}


# Many at once


def test_calls_that_serve_at_the_same_time_give_a_slot_each(at: Account) -> None:
    at.open(in_flight=2)
    at.line_up(ANNA, BEN, CLEO, DORA)
    anna = RunId.of(ANNA)
    assert at.slots.free(anna, at.slots.run_state(anna), NOON)

    at.meanwhile(lambda: at.admission.rendered(ANNA, 1))
    at.admission.rendered(BEN, 1)

    assert at.notified == ["anna", "ben", "cleo", "dora"]


def test_calls_that_serve_at_the_same_time_keep_a_lowered_limit(at: Account) -> None:
    at.open(in_flight=3)
    at.line_up(ANNA, BEN, CLEO)
    at.open(in_flight=2)
    at.admit(DORA, minute=4)
    at.admit(EVE, minute=5)
    at.admission.rendered(ANNA, 1)

    at.meanwhile(at.admission.serve_all)
    at.admission.rendered(BEN, 1)

    assert at.holders == {"runcomfy": ["cleo", "dora"]}


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(lambda at: at.admission.serve_all(), id="sweep"),
        pytest.param(lambda at: at.admission.serve_waiting("a minute later"), id="minute"),
    ],
)
def test_end_of_a_job_serves_one_and_the_clock_serves_all(
    at: Account, serve: Callable[[Account], None]
) -> None:
    jobs = [job_named(f"job{number:02}") for number in range(20)]
    at.line_up(*jobs)
    at.open(in_flight=19)

    at.admission.rendered(jobs[0], 1)
    assert len(at.notified) == 1 + 1
    serve(at)

    assert at.holders == {"runcomfy": [job.stem for job in jobs[1:]]}


@pytest.mark.parametrize(
    ("call", "notified", "waiting", "renders"),
    [
        ("admit", ["anna"], ["ben", "cleo"], 1),
        ("rendered", ["anna", "ben"], [], 2),
        ("leave", ["anna", "ben"], [], 1),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"], ids=["conflict", "answer lost"])
def test_transaction_is_tried_again(
    at: Account, call: str, notified: list[str], waiting: list[str], renders: int, when: str
) -> None:
    at.line_up(ANNA, BEN, route=(WAVESPEED,))
    conflict = at.cancelled("TransactionConflict", "None")
    failed = at.fail_once(f"{when}-call.dynamodb.TransactWriteItems", conflict)

    if call == "admit":
        at.admit(CLEO, route=(WAVESPEED,), minute=2)
    elif call == "rendered":
        at.admission.rendered(ANNA, 1)
    else:
        at.admission.leave(ANNA)

    assert failed
    assert (at.notified, at.waiting) == (notified, waiting)
    assert (at.renders, at.spent) == (renders, renders * Decimal("0.12"))


# What is kept, and what it costs to look


def test_run_records_its_plan_and_its_admission(at: Account) -> None:
    at.admit(ANNA)
    at.clock.pass_seconds(60)
    at.admission.rendered(ANNA, 1)

    (run,) = at.ledger.runs(ANNA.id)

    assert run.plan is not None
    assert run.plan.job == ANNA
    assert (run.admitted_at, run.rendered_at) == (NOON, NOON + timedelta(minutes=1))
    assert at.slots.run_state(RunId.of(ANNA)).slot is None


def test_waiter_expires_only_after_its_execution_times_out(at: Account) -> None:
    at.line_up(ANNA, BEN)
    longest = NOON + timedelta(minutes=1, seconds=DEFINITION["TimeoutSeconds"])

    items = at.items("waiters#") + at.items("job#")

    assert len(items) == 3
    assert min(int(item["expires_at"]["N"]) for item in items) >= longest.timestamp()


def test_lease_is_small_because_each_look_reads_them_all(at: Account) -> None:
    request = request_of(ANNA).model_copy(update={"task_token": "t" * 1000})
    at.executions.wait(ANNA.execution_name, request.task_token)
    at.admission.admit(request)

    (lease,) = at.items("slots#")

    assert len(str(lease)) < 400


def test_look_at_the_queue_reads_one_waiter_however_many_wait(at: Account) -> None:
    at.line_up(*(job_named(f"job{number:03}") for number in range(30)))
    scanned = at.record_calls(
        "after-call.dynamodb.Query", lambda parsed, **_: parsed["ScannedCount"]
    )

    at.slots.first_waiters(RUNCOMFY.provider, 1)

    assert scanned == [1]


def test_job_without_a_free_slot_does_not_read_the_queue(at: Account) -> None:
    at.admit(ANNA)
    asked = at.record_calls(
        "provide-client-params.dynamodb.Query",
        lambda params, **_: params["ExpressionAttributeValues"][":pk"]["S"],
    )

    at.admit(BEN, minute=1)

    assert asked == ["closed", "slots#runcomfy"]


def test_minute_in_which_nobody_waits_costs_two_reads_a_provider_and_one(at: Account) -> None:
    at.open(in_flight=2)
    at.admit(ANNA)
    calls = at.record_calls("before-call.dynamodb.*", lambda model, **_: model.name)

    at.admission.serve_waiting("a minute later")

    assert calls == ["Query"] * 5
    assert at.notified == ["anna"]


# What its roles may do

LEDGER = {"Sub": "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${Ledger}"}


@pytest.mark.parametrize("step", ["Admit", "Poll", "Conclude", "Sweep"])
def test_roles_allow_what_admission_does_to_the_ledger(at: Account, step: str) -> None:
    done = at.record_calls(
        "provide-client-params.dynamodb.*", lambda params, model, **_: _actions(model.name, params)
    )
    at.open(in_flight=1, daily_usd="0.2", on_daily_usd="fail")

    at.line_up(ANNA, BEN, route=(WAVESPEED,))
    at.executions.end(ANNA.execution_name)
    at.admission.serve_all()  # anna has ended: ben is notified
    at.admission.rendered(BEN, 1)
    at.admit(CLEO, route=(WAVESPEED,), minute=1)  # over the day's limit
    at.admission.leave(BEN)

    assert at.notified == ["anna", "ben"]
    actions = set().union(*done)
    written = ("PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem")
    assert actions == {f"dynamodb:{action}" for action in ("GetItem", "Query", *written)}
    assert not [action for action in actions if LEDGER not in may(f"{step}Role", action)]


def _actions(operation: str, params: dict[str, Any]) -> set[str]:
    """What IAM asks for: a transaction is no action, each of its writes is one."""
    of_writes = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"} | {
        "ConditionCheck": "ConditionCheckItem"
    }
    writes = [kind for write in params.get("TransactItems", ()) for kind in write]
    return {f"dynamodb:{of_writes[kind]}" for kind in writes} or {f"dynamodb:{operation}"}
