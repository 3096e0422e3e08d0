"""Who gets a slot, who waits, and what the day's spend allows: admission on the ledger's table."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.catalog import ProviderName
from dropreel.model.job import Job
from dropreel.model.ledger import Admitted, RunClosed
from dropreel.model.messages import AdmitRequest, Next, PlannedOffer
from dropreel.render.admission import Admission, Granting, Refund, RunId, Waiter
from dropreel.render.spending import Limits
from dropreel.runtime.log import logger
from tests.support.admission_fakes import (
    LEASE,
    RUNCOMFY_PRICED,
    FakeExecutions,
    desk,
    job_named,
    request_of,
)
from tests.support.render_account import LEDGER, REGION, create_ledger_table
from tests.support.render_fakes import NOON, RUNCOMFY, TICKET, WAVESPEED, FakeClock
from tests.support.sam_template import DEFINITION, RESOURCES

UNLIMITED = Limits(in_flight={}, lease={})
LARGE = WAVESPEED.model_copy(update={"fields": {"resolution": "720p"}})  # no page has its price
ANNA, BEN, CLEO, DORA, EVE = (job_named(stem) for stem in ("anna", "ben", "cleo", "dora", "eve"))


class Desk:
    """Admission on a table of its own, and what can be seen of it."""

    def __init__(self) -> None:
        self.dynamodb = boto3.client("dynamodb", region_name=REGION)
        create_ledger_table(self.dynamodb)
        self.slots = DynamoDBSlots(LEDGER, self.dynamodb)
        self.ledger = DynamoDBLedger(LEDGER, self.dynamodb)
        self.executions = FakeExecutions()
        self.clock = FakeClock()
        self.open()

    def open(self, **limits: Any) -> Admission:  # noqa: ANN401 - of `desk`
        self.admission = desk(self.slots, self.executions, self.ledger, self.clock, **limits)
        return self.admission

    def admit(self, job: Job, **asked: Any) -> AdmitRequest:  # noqa: ANN401 - of `request_of`
        request = request_of(job, **asked)
        self.executions.wait(job.execution_name, request.task_token)
        self.admission.admit(request)
        return request

    def holders(self, provider: ProviderName = "runcomfy") -> list[str]:
        return [lease.run.job_id.split("-")[0] for lease in self.slots.leases(provider)]

    def told(self) -> list[str]:
        return [name.split("-")[0] for name in self.executions.gone_on]

    def items(self, pk: str) -> int:
        answer = self.dynamodb.scan(TableName=LEDGER)
        return sum(item["pk"]["S"].startswith(pk) for item in answer["Items"])

    def spent(self) -> Decimal:
        return self.slots.day(self.clock().date()).spent_usd


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield Desk()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What the functions write into their log."""
    written = StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", written)
    return written


def test_a_free_slot_is_given_at_once(at: Desk) -> None:
    at.admit(ANNA)

    assert at.told() == ["anna"]
    assert at.holders() == ["anna"]
    assert at.items("waiters#") == 0


def test_who_comes_when_all_slots_are_taken_waits(at: Desk) -> None:
    for job in (ANNA, BEN, CLEO):
        at.admit(job)

    assert at.told() == ["anna", "ben"]
    assert at.items("waiters#") == 1


def test_a_slot_goes_to_who_was_started_first(at: Desk) -> None:
    at.admit(ANNA)
    at.admit(BEN)
    at.admit(DORA, minute=3)
    at.admit(CLEO, minute=2)

    at.admission.rendered(ANNA, 1)
    at.admission.rendered(BEN, 1)

    assert at.told() == ["anna", "ben", "cleo", "dora"]
    assert sorted(at.holders()) == ["cleo", "dora"]


def test_providers_have_slots_of_their_own(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, route=(WAVESPEED,))

    assert at.told() == ["anna", "ben"]
    assert at.holders("wavespeed") == ["ben"]


def test_admit_called_again_gives_the_same_answer_to_the_newer_token(at: Desk) -> None:
    at.admit(ANNA)
    at.admit(ANNA, retry=1)

    assert at.told() == ["anna", "anna"]
    assert at.holders() == ["anna"]


def test_a_waiter_called_again_keeps_its_place_and_its_newer_token(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    at.admit(CLEO, minute=2)
    at.admit(BEN, minute=1, retry=1)
    stale = request_of(BEN, minute=1)
    at.admission.admit(stale)  # a call that Step Functions gave up on, at work still

    at.admission.rendered(ANNA, 1)

    assert at.told() == ["anna", "ben"]


def test_a_waiter_whose_execution_is_gone_is_skipped(at: Desk) -> None:
    at.open(in_flight=1)
    for minute, job in enumerate((ANNA, BEN, CLEO)):
        at.admit(job, minute=minute)
    at.executions.end(BEN.execution_name)

    at.admission.rendered(ANNA, 1)

    assert at.told() == ["anna", "cleo"]
    assert at.holders() == ["cleo"]


def test_who_leaves_the_queue_is_not_served(at: Desk) -> None:
    at.open(in_flight=1)
    for minute, job in enumerate((ANNA, BEN, CLEO)):
        at.admit(job, minute=minute)

    at.admission.leave(BEN)
    at.admission.leave(ANNA)

    assert at.told() == ["anna", "cleo"]
    assert at.items("waiters#") == 0


def test_leaving_twice_takes_nothing_from_who_came_after(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    at.admit(CLEO, minute=2)

    for _ in range(2):
        at.admission.leave(ANNA)

    assert at.holders() == ["ben"]
    assert at.told() == ["anna", "ben"]


def test_a_run_that_is_closed_is_not_admitted_any_more(at: Desk) -> None:
    at.ledger.close(ANNA, NOON)
    at.admit(ANNA)

    assert at.told() == []
    assert at.items("waiters#") == 0
    assert at.items("slots#") == 0


def test_a_waiter_that_is_closed_makes_room_for_the_next(at: Desk) -> None:
    at.open(in_flight=1)
    for minute, job in enumerate((ANNA, BEN, CLEO)):
        at.admit(job, minute=minute)
    at.ledger.close(BEN, NOON)

    at.admission.rendered(ANNA, 1)

    assert at.told() == ["anna", "cleo"]


def test_an_expired_lease_is_taken_back_by_who_needs_it(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.clock.now += LEASE - timedelta(seconds=1)
    at.admit(BEN, minute=1)
    assert at.told() == ["anna"]

    at.clock.now += timedelta(seconds=1)
    at.admit(CLEO, minute=2)

    assert at.told() == ["anna", "ben"]
    assert at.holders() == ["ben"]
    at.admission.leave(ANNA)  # comes late, and has nothing left to return
    assert at.holders() == ["ben"]


def test_a_holder_that_was_never_told_is_told_when_its_lease_runs_out(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.open(in_flight=1)
    with monkeypatch.context() as killed:
        killed.setattr(at.executions, "go_on", _killed)
        with pytest.raises(SystemExit):
            at.admit(ANNA)
    assert at.holders() == ["anna"]
    at.clock.now += LEASE

    at.admit(BEN, minute=1)

    assert at.told() == ["anna"]
    assert at.holders() == ["anna"]


def test_who_was_killed_between_giving_and_telling_tells_when_called_again(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    with monkeypatch.context() as killed:
        killed.setattr(at.executions, "go_on", _killed)
        with pytest.raises(SystemExit):
            at.admission.rendered(ANNA, 1)
    assert at.holders() == ["ben"]

    at.admission.rendered(ANNA, 1)

    assert at.told() == ["anna", "ben"]


def _killed(_token: str) -> bool:
    raise SystemExit


def test_the_sweep_serves_who_was_forgotten(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    at.executions.end(ANNA.execution_name)  # and nobody concludes it

    at.admission.serve_all()

    assert at.told() == ["anna", "ben"]
    assert at.holders() == ["ben"]


def test_another_attempt_gives_back_the_slot_of_the_last(at: Desk) -> None:
    at.admit(ANNA)

    at.admit(ANNA, attempt=2, offer=1)

    assert at.holders() == []
    assert at.holders("wavespeed") == ["anna"]
    assert at.told() == ["anna", "anna"]


def test_a_late_call_for_an_earlier_attempt_takes_nothing_away(at: Desk) -> None:
    at.admit(ANNA)
    at.admit(ANNA, attempt=2, offer=1)

    at.admission.admit(request_of(ANNA, attempt=1))

    assert at.holders("wavespeed") == ["anna"]
    assert at.holders() == []


def test_a_late_call_after_the_render_takes_no_slot(at: Desk) -> None:
    request = at.admit(ANNA)
    at.admission.rendered(ANNA, 1)

    at.admission.admit(request)

    assert at.holders() == []
    assert at.items("waiters#") == 0


def test_a_lower_limit_holds_for_who_comes_next(at: Desk) -> None:
    at.open(in_flight=3)
    for job in (ANNA, BEN, CLEO):
        at.admit(job)
    at.open(in_flight=1)
    at.admit(DORA, minute=1)

    at.admission.rendered(ANNA, 1)
    at.admission.rendered(BEN, 1)
    assert at.told() == ["anna", "ben", "cleo"]
    at.admission.rendered(CLEO, 1)

    assert at.told() == ["anna", "ben", "cleo", "dora"]


# Many at once


def test_calls_that_serve_at_the_same_time_do_not_reach_for_the_same(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minute, job in enumerate((ANNA, BEN, CLEO, DORA)):
        at.admit(job, minute=minute)
    anna = RunId.of(ANNA)
    assert at.slots.free(anna, at.slots.standing(anna), NOON)
    monkeypatch.setattr("dropreel.model.messages.admission._GIVES_AT_MOST", 1)
    writes: list[str] = []
    at.dynamodb.meta.events.register(
        "before-call.dynamodb.TransactWriteItems", lambda **_: writes.append("")
    )

    meanwhile(at, monkeypatch, lambda: at.admission.rendered(ANNA, 1))
    at.admission.rendered(BEN, 1)

    assert at.told() == ["anna", "ben", "cleo", "dora"]
    assert len(writes) == 3  # a slot is given back, and two are given


def test_calls_that_serve_at_the_same_time_keep_a_lowered_limit(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.open(in_flight=3)
    for job in (ANNA, BEN, CLEO):
        at.admit(job)
    at.open(in_flight=2)
    at.admit(DORA, minute=1)
    at.admit(EVE, minute=2)
    at.admission.rendered(ANNA, 1)

    meanwhile(at, monkeypatch, at.admission.serve_all)
    at.admission.rendered(BEN, 1)

    assert sorted(at.holders()) == ["cleo", "dora"]


def meanwhile(at: Desk, monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> None:
    """Once, between a call's look at the queue and what it does then."""
    really = at.slots.first_waiters

    def look(provider: ProviderName, at_most: int) -> Sequence[Waiter]:
        waiters = really(provider, at_most)
        monkeypatch.setattr(at.slots, "first_waiters", really)
        work()
        return waiters

    monkeypatch.setattr(at.slots, "first_waiters", look)


def test_with_a_limit_on_spending_nobody_is_served_before_who_came_first(at: Desk) -> None:
    at.open(daily_usd="0.42")
    for minute, job in enumerate((ANNA, BEN, CLEO, DORA)):
        at.admit(job, minute=minute, route=(WAVESPEED,))
    anna = RunId.of(ANNA)
    assert at.slots.free(anna, at.slots.standing(anna), NOON)  # and then it is killed

    at.admission.rendered(BEN, 1)

    assert at.told() == ["anna", "ben", "cleo", "dora"]


def test_one_call_does_not_serve_them_all_but_the_sweep_does(at: Desk) -> None:
    at.open(in_flight=1)
    for number in range(20):
        at.admit(job_named(f"job{number:02}"), minute=number)
    at.open(in_flight=10)

    at.admission.rendered(job_named("job00"), 1)
    assert len(at.told()) == 1 + 4
    at.admission.serve_all()

    assert len(at.holders()) == 10


# Spending: WaveSpeed's offer is estimated at 0.105 USD.


def test_the_estimate_is_counted_when_the_slot_is_given(at: Desk) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(ANNA, route=(WAVESPEED,), retry=1)

    assert at.spent() == Decimal("0.105")


def test_who_waits_for_a_slot_has_spent_nothing(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(BEN, route=(WAVESPEED,), minute=1)

    assert at.spent() == Decimal("0.105")


@pytest.mark.parametrize("is_begun, spent", [(True, "0.105"), (False, "0")])
def test_leaving_gives_the_estimate_back_unless_it_may_be_paid(
    at: Desk, is_begun: bool, spent: str
) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    if is_begun:
        at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)

    for _ in range(2):
        at.admission.leave(ANNA)

    assert at.spent() == Decimal(spent)


def test_a_run_that_submitted_nothing_keeps_no_estimate_for_an_earlier_runs_attempt(
    at: Desk,
) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)
    at.admission.leave(ANNA)
    again = job_named("anna", run=2)

    at.admit(again, route=(WAVESPEED,), attempt=2)
    assert at.spent() == Decimal("0.21")
    at.admission.leave(again)

    assert at.spent() == Decimal("0.105")


def test_a_finished_render_has_been_spent(at: Desk) -> None:
    at.admit(ANNA, route=(WAVESPEED,))

    at.admission.rendered(ANNA, 1)

    assert at.spent() == Decimal("0.105")


def test_over_the_limit_a_job_waits_for_the_next_day(at: Desk) -> None:
    at.open(in_flight=9, daily_usd="0.2")
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(BEN, route=(WAVESPEED,), minute=1)
    assert at.told() == ["anna"]

    at.clock.now += timedelta(hours=12)  # midnight
    at.admission.serve_all()

    assert at.told() == ["anna", "ben"]
    assert at.spent() == Decimal("0.105")


def test_what_is_given_back_makes_room_the_same_day(at: Desk) -> None:
    at.open(in_flight=9, daily_usd="0.2")
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(BEN, route=(WAVESPEED,), minute=1)

    at.admission.leave(ANNA)

    assert at.told() == ["anna", "ben"]
    assert at.spent() == Decimal("0.105")


def test_over_the_limit_a_job_fails_when_the_owner_says_so(at: Desk) -> None:
    at.open(in_flight=9, daily_usd="0.2", on_daily_usd="fail")
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(BEN, route=(WAVESPEED,), minute=1)

    assert at.executions.refused == {BEN.execution_name: "SpendLimitReached"}
    assert at.items("waiters#") == 0


def test_what_costs_more_than_a_day_may_fails_at_once_when_the_owner_says_so(at: Desk) -> None:
    at.open(daily_usd="0.1", on_daily_usd="fail")
    at.admit(ANNA, route=(WAVESPEED,))

    assert at.executions.refused == {ANNA.execution_name: "SpendLimitReached"}
    assert at.spent() == 0


def test_what_costs_more_than_a_day_may_waits_for_a_higher_limit_behind_all_others(
    at: Desk, log: StringIO
) -> None:
    at.open(daily_usd="0.3", prices={(WAVESPEED.endpoint, "720p"): 1})
    at.admit(ANNA, route=(LARGE,))
    at.admit(DORA, route=(LARGE,), minute=1)
    for minute, job in ((2, BEN), (3, CLEO)):
        at.admit(job, route=(WAVESPEED,), minute=minute)

    assert at.told() == ["ben", "cleo"]
    assert at.executions.refused == {}
    told = log.getvalue()
    assert "Waits until DailySpendLimitUsd is raised" in told
    assert ANNA.id in told

    at.open(in_flight=4, daily_usd="9", prices={(WAVESPEED.endpoint, "720p"): 1})
    at.admission.serve_waiting("a minute later")

    assert at.told() == ["ben", "cleo", "anna", "dora"]
    assert at.spent() == Decimal("7.21")


def test_who_stands_aside_and_is_called_again_waits_once(at: Desk) -> None:
    at.open(daily_usd="0.1")
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(ANNA, route=(WAVESPEED,), retry=1)
    at.open(daily_usd="1")

    at.admission.serve_waiting("a minute later")
    at.admission.rendered(ANNA, 1)

    assert at.told() == ["anna"]
    assert at.spent() == Decimal("0.105")
    assert at.items("waiters#") + at.items("slots#") == 0


# What has no price, beside a limit


def test_an_offer_without_a_price_is_passed_over(at: Desk) -> None:
    at.open(daily_usd="10")
    at.admit(ANNA, route=(RUNCOMFY, WAVESPEED))

    assert (at.executions.refused, at.told()) == ({}, ["anna"])
    assert at.holders("wavespeed") == ["anna"]
    assert at.ledger.admitted(ANNA, 1) == Admitted(offer=1, estimated_usd=0.105)


def test_without_a_limit_no_offer_needs_a_price(at: Desk) -> None:
    at.admit(ANNA, route=(RUNCOMFY, WAVESPEED))

    assert at.ledger.admitted(ANNA, 1) == Admitted(offer=0, estimated_usd=None)


def test_when_no_offer_is_left_all_are_named_that_have_no_price(at: Desk) -> None:
    at.open(daily_usd="10")
    at.admit(ANNA, route=(RUNCOMFY, LARGE))

    assert at.executions.refused == {ANNA.execution_name: "PriceUnknown"}
    (message,) = at.executions.messages
    assert f"{RUNCOMFY.endpoint} in 480p" in message
    assert f"{WAVESPEED.endpoint} in 720p" in message
    assert at.items("waiters#") == 0


def test_an_offer_that_was_asked_already_is_not_asked_again_for_want_of_a_price(at: Desk) -> None:
    at.open(daily_usd="10")
    at.admit(ANNA, route=(WAVESPEED, RUNCOMFY))
    begun = at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)
    assert begun
    at.ledger.refuse(begun, "NoCredit", "")

    at.admit(ANNA, route=(WAVESPEED, RUNCOMFY), attempt=2, offer=1)

    assert at.executions.refused == {ANNA.execution_name: "PriceUnknown"}
    assert WAVESPEED.endpoint not in at.executions.messages[0]
    assert at.spent() == 0


def test_a_job_that_waits_goes_elsewhere_when_a_limit_is_set(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    at.open(in_flight=1, daily_usd="10")

    at.admission.rendered(ANNA, 1)

    assert (at.executions.refused, at.told()) == ({}, ["anna", "ben"])
    assert at.holders("wavespeed") == ["ben"]
    assert at.items("waiters#") == 0


def test_a_job_that_is_admitted_goes_on_though_its_price_is_taken_away(at: Desk) -> None:
    """Step Functions lost the answer of admit, and calls again."""
    at.open(daily_usd="10", prices=RUNCOMFY_PRICED)
    at.admit(ANNA, route=(RUNCOMFY,))
    at.open(daily_usd="10")

    at.admit(ANNA, route=(RUNCOMFY,), retry=1)

    assert (at.executions.refused, at.told()) == ({}, ["anna", "anna"])


def test_what_a_render_costs_is_said_when_it_is_served(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(BEN, route=(WAVESPEED,), minute=1)
    at.open(in_flight=1, prices={(WAVESPEED.endpoint, "480p"): 1})

    at.admission.rendered(ANNA, 1)

    assert at.told() == ["anna", "ben"]
    assert at.spent() == Decimal("0.105") + Decimal("3.5")
    assert at.ledger.admitted(BEN, 1) == Admitted(offer=0, estimated_usd=3.5)


# A day's renders


def test_what_is_over_the_days_renders_waits_for_midnight_and_says_so(
    at: Desk, log: StringIO
) -> None:
    at.open(in_flight=9, daily_renders=2, on_daily_usd="fail")
    at.admit(ANNA)
    at.admit(BEN, route=(WAVESPEED,), minute=1)
    at.admit(CLEO, minute=2)
    at.admit(DORA, route=(WAVESPEED,), minute=3)
    assert at.told() == ["anna", "ben"]  # over all providers
    said = log.getvalue()
    for job in (CLEO, DORA):
        assert [line for line in said.splitlines() if "midnight UTC" in line and job.id in line]

    at.clock.now += timedelta(hours=12) - timedelta(seconds=1)
    at.admission.serve_waiting("a minute before")
    assert at.told() == ["anna", "ben"]
    at.clock.pass_seconds(1)
    at.admission.serve_waiting("midnight")

    assert sorted(at.told()) == ["anna", "ben", "cleo", "dora"]
    assert at.executions.refused == {}


def test_the_days_renders_hold_for_who_read_an_older_count(at: Desk) -> None:
    at.open(in_flight=9, daily_renders=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    (waiter,) = at.slots.first_waiters("runcomfy", 1)

    granted = at.slots.grant(
        waiter,
        5,
        by="someone",
        until=NOON + LEASE,
        now=NOON,
        usd=None,
        limits=Limits(in_flight={}, lease={}, daily_renders=1),
    )

    assert granted is Granting.NO_ROOM
    assert at.slots.day(NOON.date()).renders == 1


@pytest.mark.parametrize(
    ("outcome", "renders"),
    [
        ("never begun", 0),
        ("postponed", 0),
        ("refused", 0),
        ("begun", 1),
        ("unclear", 1),
        ("accepted", 1),
        ("lost", 1),  # it was submitted
    ],
)
@pytest.mark.parametrize("offer", [RUNCOMFY, WAVESPEED], ids=["no price", "a price"])
@pytest.mark.parametrize("is_late", [False, True], ids=["in time", "late"])
def test_what_was_not_submitted_is_no_render_of_the_day(
    at: Desk, outcome: str, renders: int, offer: PlannedOffer, is_late: bool
) -> None:
    at.open(daily_renders=1)
    at.admit(ANNA, route=(offer,))
    begun = None if outcome == "never begun" else at.ledger.begin(ANNA.id, Next(), offer, NOON)
    if is_late:
        at.admission.leave(ANNA)
    if begun and outcome == "postponed":
        at.ledger.postpone(begun, "ProviderThrottled", "")
    elif begun and outcome == "refused":
        at.ledger.refuse(begun, "NoCredit", "")
    elif begun and outcome == "unclear":
        at.ledger.give_up(begun, "SubmissionUnclear", "")
    elif begun and outcome in ("accepted", "lost"):
        at.ledger.accept(begun, "req-1", NOON)
    if outcome == "lost":
        ticket = TICKET.model_copy(update={"provider": offer.provider})
        at.ledger.lose(ANNA.id, ticket, "RenderFailed", "")
    at.admission.leave(ANNA)
    at.admission.leave(ANNA)

    assert at.slots.day(NOON.date()).renders == renders
    if renders == 0:
        at.admit(BEN)
        assert at.told() == ["anna", "ben"]


# A provider that is paused


RUNCOMFY_PAUSED = {"runcomfy": 0, "wavespeed": 2}


def test_a_job_of_a_paused_provider_goes_elsewhere(at: Desk) -> None:
    at.open(in_flight=RUNCOMFY_PAUSED)

    at.admit(ANNA)

    assert at.told() == ["anna"]
    assert at.holders("wavespeed") == ["anna"]


def test_a_job_of_a_paused_provider_waits_when_it_can_go_nowhere_else(at: Desk) -> None:
    at.open(in_flight=RUNCOMFY_PAUSED)
    at.admit(ANNA, route=(RUNCOMFY,))
    at.open(in_flight=RUNCOMFY_PAUSED, daily_usd="10", prices=RUNCOMFY_PRICED)
    at.admit(BEN, route=(RUNCOMFY, LARGE), minute=1)  # there it has no price
    assert at.told() == []

    at.open()
    at.admission.serve_waiting("a minute later")

    assert at.told() == ["anna", "ben"]
    assert at.executions.refused == {}


def test_who_waits_when_its_provider_is_paused_goes_elsewhere_within_a_minute(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, route=(RUNCOMFY,), minute=1)
    at.admit(CLEO, minute=2)
    at.open(in_flight=RUNCOMFY_PAUSED)

    at.admission.serve_waiting("a minute later")

    assert at.told() == ["anna", "cleo"]  # past ben, who can go nowhere else
    assert at.holders() == ["anna"]  # what is in flight finishes
    assert at.holders("wavespeed") == ["cleo"]
    at.admission.rendered(ANNA, 1)
    assert at.holders() == []
    at.open()
    at.admission.serve_waiting("resumed")
    assert at.told() == ["anna", "cleo", "ben"]


def test_a_paused_provider_keeps_who_was_told_late(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(at.executions, "go_on", _killed)
        with pytest.raises(SystemExit):
            at.admit(ANNA, route=(RUNCOMFY,))
    at.open(in_flight=0)

    at.admission.serve_all()

    assert at.told() == ["anna"]


def test_a_token_that_is_newer_than_the_look_is_not_moved(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    at.open(in_flight=RUNCOMFY_PAUSED)
    meanwhile(at, monkeypatch, lambda: _admit_at(at, 1, BEN, minute=1, retry=1))

    at.admission.serve_waiting("a minute later")
    at.admission.serve_waiting("two minutes later")

    assert at.told() == ["anna", "ben"]
    assert at.items("waiters#") == 0


def _admit_at(at: Desk, in_flight: int, job: Job, **asked: Any) -> None:  # noqa: ANN401
    """By a function that knows other settings yet."""
    now = at.admission
    at.open(in_flight=in_flight)
    at.admit(job, **asked)
    at.admission = now


def test_a_late_call_of_another_mind_puts_no_older_token_in_the_place_of_a_newer(
    at: Desk,
) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(CLEO, route=(WAVESPEED,))
    stale = request_of(BEN, minute=1)
    at.open(in_flight={"runcomfy": 0, "wavespeed": 1})
    at.admit(BEN, minute=1, retry=1)  # waits for WaveSpeed
    at.open(in_flight=1)
    at.admission.admit(stale)  # would wait for RunComfy

    at.admission.rendered(ANNA, 1)
    at.admission.rendered(CLEO, 1)

    assert at.told() == ["anna", "cleo", "ben"]
    assert at.holders("wavespeed") == ["ben"]


def test_a_run_that_is_over_is_not_moved(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    at.ledger.close(BEN, NOON)
    at.open(in_flight=RUNCOMFY_PAUSED)

    at.admission.serve_waiting("a minute later")

    assert at.items("waiters#") == 0
    assert at.holders("wavespeed") == []


def test_every_minute_serves_more_than_a_job_that_ends_does(at: Desk) -> None:
    at.open(in_flight=0)
    for number in range(20):
        at.admit(job_named(f"job{number:02}"), route=(RUNCOMFY,), minute=number)
    at.open(in_flight=20)

    at.admission.serve_waiting("a minute later")

    assert len(at.holders()) == 20


def test_a_minute_in_which_nobody_waits_costs_two_reads_a_provider(at: Desk) -> None:
    at.admit(ANNA)
    calls: list[str] = []
    at.dynamodb.meta.events.register(
        "before-call.dynamodb.*", lambda model, **_: calls.append(model.name)
    )

    at.admission.serve_waiting("a minute later")

    assert calls == ["Query"] * 4
    assert at.told() == ["anna"]


def test_a_minutes_call_that_was_killed_tells_when_it_is_made_again(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.open(in_flight=0)
    at.admit(ANNA, route=(RUNCOMFY,))
    at.open()
    with monkeypatch.context() as killed:
        killed.setattr(at.executions, "go_on", _killed)
        with pytest.raises(SystemExit):
            at.admission.serve_waiting("call 1")
    assert at.told() == []

    at.admission.serve_waiting("call 1")

    assert at.told() == ["anna"]


def test_the_limit_holds_for_who_read_an_older_sum(at: Desk) -> None:
    at.open(in_flight=9, daily_usd="0.2")
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(BEN, route=(WAVESPEED,), minute=1)
    (waiter,) = at.slots.first_waiters("wavespeed", 1)

    granted = at.slots.grant(
        waiter,
        5,
        by="someone",
        until=NOON + LEASE,
        now=NOON,
        usd=Decimal("0.105"),
        limits=Limits(in_flight={}, lease={}, daily_usd=Decimal("0.2")),
    )

    assert granted is Granting.NO_ROOM
    assert at.spent() == Decimal("0.105")


def test_a_refused_attempt_gives_its_estimate_back(at: Desk) -> None:
    at.admit(ANNA, route=(WAVESPEED, RUNCOMFY))
    attempt = at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)
    assert attempt
    at.ledger.refuse(attempt, "NoCredit", "")

    at.admit(ANNA, route=(WAVESPEED, RUNCOMFY), attempt=2, offer=1)

    assert at.spent() == 0


def test_an_unclear_attempt_keeps_its_estimate(at: Desk) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    attempt = at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)
    assert attempt
    at.ledger.give_up(attempt, "SubmissionUnclear", "")

    at.admit(ANNA, route=(WAVESPEED,), attempt=2)

    assert at.spent() == Decimal("0.21")


def test_the_runs_history_tells_of_its_admission(at: Desk) -> None:
    at.admit(ANNA)
    at.clock.pass_seconds(60)
    at.admission.rendered(ANNA, 1)

    (run,) = at.ledger.runs(ANNA.id)

    assert run.plan is not None
    assert run.plan.job == ANNA
    assert (run.admitted_at, run.rendered_at) == (NOON, NOON + timedelta(minutes=1))
    assert at.slots.standing(RunId.of(ANNA)).slot is None


# What stands no longer as it was seen


def test_a_slot_that_is_taken_is_given_to_nobody_else(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    (ben,) = at.slots.first_waiters("runcomfy", 1)
    before = at.slots.leases("runcomfy")

    granted = at.slots.grant(
        ben, 0, by="someone", until=NOON + LEASE, now=NOON, usd=None, limits=UNLIMITED
    )

    assert granted is Granting.OVERTAKEN
    assert at.slots.leases("runcomfy") == before
    assert at.items("waiters#") == 1


def test_a_late_run_takes_no_slot_from_a_later_run_of_its_job(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.clock.now += LEASE
    again = job_named("anna", run=2)
    at.admit(again, attempt=2)
    assert at.told() == ["anna", "anna"]

    at.admission.leave(ANNA)

    (lease,) = at.slots.leases("runcomfy")
    assert lease.run == RunId.of(again)


def test_leaving_as_it_stood_before_gives_nothing_back_twice(at: Desk) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(BEN, route=(WAVESPEED,))
    run = RunId.of(ANNA)
    standing = at.slots.standing(run)

    assert at.slots.leave(run, standing, Refund.ALL)
    assert not at.slots.leave(run, standing, Refund.ALL)

    assert at.spent() == Decimal("0.105")


def test_freeing_an_earlier_attempts_slot_takes_nothing_from_the_next(at: Desk) -> None:
    at.admit(ANNA)
    run = RunId.of(ANNA)
    before = at.slots.standing(run)
    at.admit(ANNA, attempt=2)

    assert not at.slots.free(run, before, NOON)
    assert not at.slots.leave(run, before, Refund.NOTHING)

    assert at.holders() == ["anna"]


def test_a_call_that_is_overtaken_by_another_attempt_joins_no_queue(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(BEN)
    request = request_of(ANNA, minute=1)
    at.admission.admit(request)
    (before,) = at.slots.first_waiters("runcomfy", 1)
    at.admit(ANNA, minute=1, attempt=2)

    assert not at.slots.join(before, request.plan)

    (waiter,) = at.slots.first_waiters("runcomfy", 1)
    assert waiter.attempt == 2


@pytest.mark.parametrize("later", [timedelta(seconds=1), -timedelta(seconds=1)])
def test_a_lease_that_was_renewed_meanwhile_is_neither_renewed_nor_taken_back(
    at: Desk, later: timedelta
) -> None:
    at.admit(ANNA)
    (seen,) = at.slots.leases("runcomfy")
    renewed = at.slots.renew(seen, seen.until + later)
    assert renewed

    assert at.slots.renew(seen, NOON + 9 * LEASE) is None
    assert not at.slots.take_back(seen)

    assert at.slots.leases("runcomfy") == (renewed,)


def test_who_waits_is_not_forgotten_before_its_execution_times_out(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    longest = NOON + timedelta(minutes=1, seconds=DEFINITION["TimeoutSeconds"])

    items = [
        item
        for item in at.dynamodb.scan(TableName=LEDGER)["Items"]
        if item["pk"]["S"].startswith(("waiters#", "job#"))
    ]

    assert len(items) == 3
    assert min(int(item["expires_at"]["N"]) for item in items) >= longest.timestamp()


# Once for each attempt


@pytest.mark.parametrize("is_paid, spent", [(True, "0.105"), (False, "0")])
def test_what_was_given_back_because_its_execution_is_gone_is_not_admitted_again(
    at: Desk, is_paid: bool, spent: str
) -> None:
    request = at.admit(ANNA, route=(WAVESPEED,))
    if is_paid:
        at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)
    at.executions.end(ANNA.execution_name)
    at.admission.serve_all()
    assert at.holders("wavespeed") == []

    at.admission.admit(request)  # a copy of the call comes late

    assert at.spent() == Decimal(spent)
    assert at.items("slots#") + at.items("waiters#") == 0


@pytest.mark.parametrize("kept_back", ["before", "after"])
def test_who_is_killed_while_it_leaves_spends_nothing_twice(
    at: Desk, monkeypatch: pytest.MonkeyPatch, kept_back: str
) -> None:
    request = at.admit(ANNA, route=(WAVESPEED,))
    at.executions.end(ANNA.execution_name)

    def killing(operation: str) -> Callable[..., object]:
        really = getattr(at.dynamodb, operation)

        def write(**asked: object) -> object:
            if kept_back == "after":
                really(**asked)
            raise SystemExit

        return write

    # At its first write, and there is no other: a second one would find it half gone.
    with monkeypatch.context() as killed, pytest.raises(SystemExit):
        for operation in ("transact_write_items", "update_item", "delete_item"):
            killed.setattr(at.dynamodb, operation, killing(operation))
        at.admission.leave(ANNA)
    standing = at.slots.standing(RunId.of(ANNA))
    assert standing.has_something is (kept_back == "before")
    assert (standing.charged_usd is None) is (standing.slot is None)

    at.admission.admit(request)
    at.admission.leave(ANNA)

    assert at.spent() == 0
    assert at.items("slots#") + at.items("waiters#") == 0


def test_an_attempt_that_left_is_not_begun_any_more(at: Desk) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    at.executions.end(ANNA.execution_name)
    at.admission.serve_all()  # it is gone: the estimate goes back

    with pytest.raises(RunClosed):  # by a submit that was held up all the while
        at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)

    assert at.ledger.begin(ANNA.id, Next(attempt=2), WAVESPEED, NOON)


def test_nothing_is_refunded_for_an_attempt_that_begins_in_that_moment(at: Desk) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    run = RunId.of(ANNA)
    standing = at.slots.standing(run)
    at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)

    assert not at.slots.leave(run, standing, Refund.ALL)

    assert at.slots.standing(run) == standing
    assert at.spent() == Decimal("0.105")


def test_a_late_word_of_an_earlier_render_takes_no_slot_from_the_next(at: Desk) -> None:
    at.admit(ANNA)
    at.admit(ANNA, attempt=2)

    at.admission.rendered(ANNA, 1)

    assert at.holders() == ["anna"]


def test_who_waits_for_another_offer_is_not_put_back_into_the_queue_of_the_last(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(BEN)
    at.admit(CLEO, route=(WAVESPEED,))
    first = request_of(ANNA, minute=1)
    at.admission.admit(first)
    (before,) = at.slots.first_waiters("runcomfy", 1)

    at.admit(ANNA, minute=1, attempt=2, offer=1)

    assert not at.slots.join(before, first.plan)  # an overtaken call
    at.slots.dismiss(before)
    at.admission.rendered(BEN, 1)
    at.admission.rendered(CLEO, 1)
    assert at.holders() == []
    assert at.holders("wavespeed") == ["anna"]


def test_who_is_dismissed_with_an_older_token_waits_on(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(BEN)
    at.admit(ANNA, minute=1)
    (older,) = at.slots.first_waiters("runcomfy", 1)
    at.admit(ANNA, minute=1, retry=1)

    at.slots.dismiss(older)
    at.admission.rendered(BEN, 1)

    assert at.told() == ["ben", "anna"]


# Late, lost, gone and redriven


def test_a_limit_that_is_set_while_jobs_wait_holds_for_those_without_a_price(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, route=(RUNCOMFY,), minute=1)
    at.open(in_flight=1, daily_usd="10")

    at.admission.rendered(ANNA, 1)

    assert at.executions.refused == {BEN.execution_name: "PriceUnknown"}
    assert at.items("waiters#") == 0


def test_a_slot_taken_back_goes_to_the_next_when_the_first_in_the_queue_is_closed(at: Desk) -> None:
    at.open(in_flight=1)
    for minute, job in enumerate((ANNA, BEN, CLEO)):
        at.admit(job, minute=minute)
    at.executions.end(ANNA.execution_name)  # and its event is lost
    at.ledger.close(BEN, NOON)  # conclude is at work with it
    at.clock.now += LEASE

    at.admit(DORA, minute=3)

    assert at.told() == ["anna", "cleo"]


def test_who_takes_a_slot_back_that_another_call_has_taken_back_takes_nothing(at: Desk) -> None:
    at.admit(ANNA)
    (lease,) = at.slots.leases("runcomfy")
    assert at.slots.take_back(lease)
    assert at.slots.take_back(lease)  # its first answer was lost
    at.admit(BEN)

    assert not at.slots.take_back(lease)

    assert at.holders() == ["ben"]


def test_a_renewal_whose_answer_was_lost_is_repeated(at: Desk) -> None:
    at.admit(ANNA)
    (lease,) = at.slots.leases("runcomfy")
    until = at.clock() + timedelta(hours=9)

    assert at.slots.renew(lease, until)
    assert at.slots.renew(lease, until)
    assert at.slots.renew(lease, until + timedelta(hours=1)) is None


def test_a_refund_of_one_that_is_gone_serves_the_other_providers_queue(at: Desk) -> None:
    at.open(daily_usd="0.2", prices=RUNCOMFY_PRICED)
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(BEN, route=(RUNCOMFY,), minute=1)
    at.executions.end(ANNA.execution_name)  # and its event is lost

    at.admission.serve_all()

    assert at.told() == ["anna", "ben"]


def test_a_refund_of_a_waiter_that_is_gone_serves_the_other_providers_queue(at: Desk) -> None:
    at.open(in_flight=1, daily_usd="0.2", prices=RUNCOMFY_PRICED)
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(CLEO, route=(WAVESPEED,), minute=1)
    at.admit(BEN, route=(RUNCOMFY,), minute=2)
    at.executions.end(CLEO.execution_name)
    begun = at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)
    assert begun
    at.ledger.refuse(begun, "NoCredit", "")

    at.admit(ANNA, route=(WAVESPEED, RUNCOMFY), attempt=2, offer=1, minute=3)

    assert at.told() == ["anna", "ben"]


def test_a_refund_that_the_end_of_a_render_finds_serves_the_other_providers_queue(at: Desk) -> None:
    at.open(in_flight=0, daily_usd="0.21")
    at.admit(CLEO, route=(WAVESPEED,), minute=1)
    at.open(in_flight=2, daily_usd="0.21", prices=RUNCOMFY_PRICED)
    at.admit(ANNA, route=(WAVESPEED,))  # gives both their slots
    at.admit(BEN, route=(RUNCOMFY,), minute=2)
    at.executions.end(CLEO.execution_name)
    assert at.told() == ["anna", "cleo"]

    at.admission.rendered(ANNA, 1)

    assert at.told() == ["anna", "cleo", "ben"]


@pytest.mark.parametrize("outcome", ["refused", "postponed", "lost"])
def test_what_comes_to_nothing_after_its_run_was_ended_gives_its_estimate_back(
    at: Desk, outcome: str
) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    begun = at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)
    assert begun
    if outcome == "lost":
        at.ledger.accept(begun, "req-1", NOON)
    at.ledger.close(ANNA, NOON)
    at.admission.leave(ANNA)
    assert at.spent() == Decimal("0.105")  # for all that is known by then

    for _ in range(2):
        if outcome == "refused":
            at.ledger.refuse(begun, "NoCredit", "")
        elif outcome == "postponed":
            at.ledger.postpone(begun, "ProviderThrottled", "")
        else:  # by a later run that waited for it
            ticket = TICKET.model_copy(update={"provider": WAVESPEED.provider})
            at.ledger.lose(ANNA.id, ticket, "RenderFailed", "")
        assert at.spent() == 0

    (run,) = (
        item for item in at.dynamodb.scan(TableName=LEDGER)["Items"] if item["sk"]["S"] == "run#001"
    )
    assert (float(run["kept_usd"]["N"]), float(run["refunded_usd"]["N"])) == (0, 0.105)


def test_an_estimate_is_kept_only_while_its_attempt_may_be_paid(at: Desk) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    begun = at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)
    assert begun
    run = RunId.of(ANNA)
    standing = at.slots.standing(run)
    at.ledger.refuse(begun, "NoCredit", "")  # just after admission looked

    assert not at.slots.leave(run, standing, Refund.NOTHING)


def test_a_refund_that_is_throttled_is_not_taken_for_given(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    begun = at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)
    assert begun
    at.ledger.close(ANNA, NOON)
    at.admission.leave(ANNA)
    response: Any = {
        "Error": {"Code": "TransactionCanceledException", "Message": ""},
        "CancellationReasons": [{"Code": "None"}, {"Code": "ThrottlingError"}, {"Code": "None"}],
    }

    def throttled(**_: object) -> object:
        raise at.dynamodb.exceptions.TransactionCanceledException(response, "TransactWriteItems")

    monkeypatch.setattr(at.dynamodb, "transact_write_items", throttled)

    with pytest.raises(ClientError):
        at.ledger.refuse(begun, "NoCredit", "")


def test_a_waiter_of_an_older_version_does_not_stop_the_queue(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    (item,) = (
        item
        for item in at.dynamodb.scan(TableName=LEDGER)["Items"]
        if item["pk"]["S"].startswith("waiters#")
    )
    item["retry"] = item.pop("call")
    del item["route"], item["offer"]
    item["estimated_usd"] = {"N": "0.1"}
    at.dynamodb.put_item(TableName=LEDGER, Item=item)

    at.admission.rendered(ANNA, 1)

    assert at.told() == ["anna", "ben"]


@pytest.mark.parametrize("tries", [0, 3])
def test_a_waiter_that_is_redriven_is_told(at: Desk, tries: int) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    for retry in range(tries + 1):
        at.admit(BEN, minute=1, retry=retry)
    redriven = request_of(BEN, minute=1).model_copy(update={"task_token": "new", "redrive": 1})
    at.executions.wait(BEN.execution_name, redriven.task_token)

    at.admission.admit(redriven)
    at.admission.rendered(ANNA, 1)

    assert at.told() == ["anna", "ben"]


@pytest.mark.parametrize("waits_with", ["a place", "a slot"])
def test_a_redriven_waiter_that_is_concluded_meanwhile_is_answered(
    at: Desk, monkeypatch: pytest.MonkeyPatch, waits_with: str
) -> None:
    at.open(in_flight=1 if waits_with == "a place" else 2)
    at.admit(ANNA)
    if waits_with == "a place":
        at.admit(BEN, minute=1)
    redriven = request_of(BEN, minute=1).model_copy(update={"task_token": "new", "redrive": 1})
    at.executions.wait(BEN.execution_name, redriven.task_token)
    with monkeypatch.context() as killed, suppress(SystemExit):
        killed.setattr(at.executions, "go_on", _killed)
        at.admission.admit(redriven)

    at.ledger.close(BEN, NOON)
    at.admission.leave(BEN)

    assert at.executions.refused == {BEN.execution_name: "ExecutionAborted"}


def test_a_job_that_asks_the_same_provider_again_keeps_its_turn(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)

    at.admit(ANNA, attempt=2)

    assert at.told() == ["anna", "anna"]


# What a job costs


def test_a_lease_is_small_because_each_look_reads_them_all(at: Desk) -> None:
    request = request_of(ANNA).model_copy(update={"task_token": "t" * 1000})
    at.executions.wait(ANNA.execution_name, request.task_token)
    at.admission.admit(request)

    (lease,) = (
        item
        for item in at.dynamodb.scan(TableName=LEDGER)["Items"]
        if item["pk"]["S"].startswith("slots#")
    )

    assert len(str(lease)) < 400


def test_a_look_at_the_queue_reads_one_waiter_however_many_wait(at: Desk) -> None:
    at.open(in_flight=1)
    for number in range(30):
        at.admit(job_named(f"job{number:03}"), minute=number)
    scanned: list[int] = []
    at.dynamodb.meta.events.register(
        "after-call.dynamodb.Query", lambda parsed, **_: scanned.append(parsed["ScannedCount"])
    )

    at.slots.first_waiters("runcomfy", 1)

    assert scanned == [1]


def test_a_job_without_a_free_slot_does_not_read_the_queue(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    asked: list[str] = []
    at.dynamodb.meta.events.register(
        "provide-client-params.dynamodb.Query",
        lambda params, **_: asked.append(params["ExpressionAttributeValues"][":pk"]["S"]),
    )

    at.admit(BEN, minute=1)

    assert asked == ["slots#runcomfy"]


# Told late


@pytest.mark.parametrize(
    "later", [LEASE + timedelta(hours=1), LEASE - timedelta(minutes=1)], ids=["after", "before"]
)
def test_a_slot_that_is_told_late_is_a_whole_lease(
    at: Desk, monkeypatch: pytest.MonkeyPatch, later: timedelta
) -> None:
    at.open(in_flight=1)
    for minute, job in enumerate((ANNA, BEN, CLEO)):
        at.admit(job, minute=minute)
    with monkeypatch.context() as killed:
        killed.setattr(at.executions, "go_on", _killed)
        with pytest.raises(SystemExit):
            at.admission.rendered(ANNA, 1)

    at.clock.now += later
    at.admission.serve_all()  # the sweep: tells ben
    at.clock.now += timedelta(minutes=2)
    at.admit(DORA, minute=3)

    assert at.told() == ["anna", "ben"]


def test_who_is_killed_between_renewing_and_telling_takes_nothing_away(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    with monkeypatch.context() as killed:
        killed.setattr(at.executions, "go_on", _killed)
        with pytest.raises(SystemExit):
            at.admission.rendered(ANNA, 1)
        at.clock.now += LEASE + timedelta(minutes=1)
        with pytest.raises(SystemExit):
            at.admit(CLEO, minute=2)

    at.admit(CLEO, minute=2, retry=1)
    at.clock.now += LEASE
    at.admit(CLEO, minute=2, retry=2)

    assert at.told() == ["anna", "ben"]


# Answers to everybody who waits


def test_a_run_that_is_closed_is_answered_even_when_nobody_is_served(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(BEN)
    at.ledger.close(ANNA, NOON)

    at.admit(ANNA, minute=1)

    assert at.executions.refused == {ANNA.execution_name: "ExecutionAborted"}
    assert at.items("waiters#") == 0


def test_an_execution_that_is_redriven_after_its_end_is_refused(at: Desk) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    at.executions.end(BEN.execution_name)
    at.ledger.close(BEN, at.clock())
    at.admission.leave(BEN)

    at.admit(BEN, minute=1)  # its retries are counted anew

    assert at.executions.refused == {BEN.execution_name: "ExecutionAborted"}


def test_a_render_that_was_ready_and_is_lost_after_all_may_have_another_attempt(at: Desk) -> None:
    at.admit(ANNA)
    at.admission.rendered(ANNA, 1)

    at.admit(ANNA, attempt=2)

    assert at.told() == ["anna", "anna"]
    assert at.holders() == ["anna"]


def test_the_estimate_of_an_attempt_that_was_never_made_is_given_back(at: Desk) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    begun = at.ledger.begin(ANNA.id, Next(), WAVESPEED, NOON)
    assert begun
    at.ledger.give_up(begun, "SubmissionUnclear", "No answer.")
    at.admit(ANNA, route=(WAVESPEED,), attempt=2)

    at.admission.leave(ANNA)

    assert at.spent() == Decimal("0.105")
    assert at.slots.standing(RunId.of(ANNA)).charged_usd is None


# Conflicts


@pytest.mark.parametrize(
    ("verb", "operation"),
    [
        ("admit", "transact_write_items"),
        ("rendered", "transact_write_items"),
        ("leave", "transact_write_items"),
    ],
)
def test_a_transaction_conflict_is_tried_again(
    at: Desk, monkeypatch: pytest.MonkeyPatch, verb: str, operation: str
) -> None:
    at.open(in_flight=1)
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(BEN, route=(WAVESPEED,), minute=1)
    met: list[str] = []
    really = getattr(at.dynamodb, operation)

    def conflicting_once(**request: object) -> object:
        if not met:
            met.append(operation)
            raise _conflict(at, operation)
        return really(**request)

    monkeypatch.setattr(at.dynamodb, operation, conflicting_once)

    if verb == "admit":
        at.admit(CLEO, route=(WAVESPEED,), minute=2)
    elif verb == "rendered":
        at.admission.rendered(ANNA, 1)
    else:
        at.admission.leave(ANNA)

    assert met == [operation]
    assert at.told() == (["anna"] if verb == "admit" else ["anna", "ben"])
    assert at.items("waiters#") == (2 if verb == "admit" else 0)
    assert at.spent() == Decimal("0.21" if verb == "rendered" else "0.105")


def _conflict(at: Desk, operation: str) -> Exception:
    """As DynamoDB says it: https://docs.aws.amazon.com/amazondynamodb, `TransactWriteItems`."""
    if operation == "transact_write_items":
        response: Any = {
            "Error": {"Code": "TransactionCanceledException", "Message": ""},
            "CancellationReasons": [{"Code": "TransactionConflict"}, {"Code": "None"}],
        }
        return at.dynamodb.exceptions.TransactionCanceledException(response, "TransactWriteItems")
    response = {"Error": {"Code": "TransactionConflictException", "Message": ""}}
    return ClientError(response, operation)


def test_a_grant_whose_answer_was_lost_is_told(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    at.open(in_flight=1)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    really = at.dynamodb.transact_write_items

    def unheard_once(**request: Any) -> object:  # noqa: ANN401
        monkeypatch.undo()
        really(**request)
        raise _conflict(at, "transact_write_items")

    monkeypatch.setattr(at.dynamodb, "transact_write_items", unheard_once)

    at.admission.rendered(ANNA, 1)

    assert at.told() == ["anna", "ben"]


# What its roles may do


@pytest.mark.parametrize("step", ["Admit", "Poll", "Conclude", "Sweep"])
def test_a_function_that_runs_admission_may_do_what_that_does_to_the_ledger(
    at: Desk, step: str
) -> None:
    done: set[str] = set()
    at.dynamodb.meta.events.register(
        "provide-client-params.dynamodb.*",
        lambda params, model, **_: done.update(_actions(model.name, params)),
    )
    at.open(in_flight=1, daily_usd="0.2", on_daily_usd="fail")
    first, second = {"route": (WAVESPEED,)}, {"route": (WAVESPEED,), "minute": 1}

    at.admit(ANNA, **first)
    at.admit(BEN, **second)
    at.executions.end(ANNA.execution_name)
    at.admission.serve_all()  # anna is gone: ben is told
    at.admission.rendered(BEN, 1)
    at.admit(CLEO, **second)  # over the day's limit
    at.admission.leave(BEN)

    assert at.told() == ["anna", "ben"]
    assert done == {
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
        "dynamodb:ConditionCheckItem",
    }
    (allowed,) = (
        set(statement["Action"])
        for policy in RESOURCES[f"{step}Role"]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Resource"] == {"GetAtt": "Ledger.Arn"}
    )
    assert done <= allowed


def _actions(operation: str, params: dict[str, Any]) -> set[str]:
    """What IAM asks for: a transaction is no action, each of its writes is one."""
    of_writes = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"} | {
        "ConditionCheck": "ConditionCheckItem"
    }
    writes = [kind for write in params.get("TransactItems", ()) for kind in write]
    return {f"dynamodb:{of_writes[kind]}" for kind in writes} or {f"dynamodb:{operation}"}
