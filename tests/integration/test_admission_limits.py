"""Admission under the owner's limits: spend and renders a day, missing prices, paused providers."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest

from dropreel.aws.table import spend_key
from dropreel.aws.wiring import limits_of
from dropreel.model.closure import Closure
from dropreel.model.job import Job
from dropreel.model.ledger import Admitted, RunClosed
from dropreel.model.messages import NextAttempt, PlannedOffer
from dropreel.model.overrides import Override, catalog_with
from dropreel.model.provider import Ticket
from dropreel.render.admission import Granting, Refund, RunId
from dropreel.render.spending import Limits
from dropreel.runtime.log import logger
from dropreel.runtime.settings import LenientSettings
from tests.support.admission_fakes import (
    ANNA,
    BEN,
    CLEO,
    DORA,
    LEASE,
    RUNCOMFY_PRICED,
    Account,
    job_named,
    ledger_table,
    request_of,
)
from tests.support.render_account import LEDGER
from tests.support.render_fakes import ENVIRONMENT, NOON, RUNCOMFY, WAVESPEED

USD = Decimal("0.12")  # of a render by WaveSpeed's offer
LARGE = WAVESPEED.model_copy(update={"fields": {"resolution": "1080p"}})  # no page has its price
DEAR = catalog_with({WAVESPEED.endpoint: Override(usd_per_second={"1080p": 1})})
RUNCOMFY_PAUSED = {"runcomfy": 0, "wavespeed": 2}


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with ledger_table() as dynamodb:
        yield Account(dynamodb, monkeypatch)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What the functions write into their log."""
    written = StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", written)
    return written


# A day's spend


def test_estimate_is_spent_once_and_only_when_the_slot_is_given(at: Account) -> None:
    at.line_up(ANNA, BEN, route=(WAVESPEED,))
    at.admit(ANNA, route=(WAVESPEED,), retry=1)
    assert at.spent == USD

    at.admission.leave(BEN)
    at.admission.rendered(ANNA, 1)

    assert at.spent == USD


def _wait_for_midnight(at: Account) -> None:
    at.clock.now += timedelta(hours=12)
    at.admission.serve_all()


@pytest.mark.parametrize(
    "make_room",
    [
        pytest.param(_wait_for_midnight, id="the next day"),
        pytest.param(lambda at: at.admission.leave(ANNA), id="a refund"),
    ],
)
def test_over_the_limit_a_job_waits_until_there_is_room(
    at: Account, make_room: Callable[[Account], None]
) -> None:
    at.open(in_flight=9, daily_usd="0.2")
    at.line_up(ANNA, BEN, route=(WAVESPEED,))
    assert at.notified == ["anna"]

    make_room(at)

    assert at.notified == ["anna", "ben"]
    assert at.spent == USD


@pytest.mark.parametrize(
    ("daily_usd", "notified", "over"), [("0.2", ["anna"], ["ben"]), ("0.1", [], ["anna", "ben"])]
)
def test_over_the_limit_a_job_fails_when_the_owner_says_so(
    at: Account, daily_usd: str, notified: list[str], over: list[str]
) -> None:
    at.open(in_flight=9, daily_usd=daily_usd, on_daily_usd="fail")
    at.line_up(ANNA, BEN, route=(WAVESPEED,))

    assert at.notified == notified
    assert at.refused == dict.fromkeys(over, "SpendLimitReached")
    assert at.spent == len(notified) * USD
    assert at.waiting == []


def test_job_dearer_than_a_day_waits_for_a_higher_limit_behind_all_others(
    at: Account, log: StringIO
) -> None:
    at.open(in_flight=2, daily_usd="0.3", catalog=DEAR)
    at.line_up(ANNA, DORA, route=(LARGE,))
    for minute, job in ((2, BEN), (3, CLEO)):
        at.admit(job, route=(WAVESPEED,), minute=minute)

    assert at.notified == ["ben", "cleo"]
    assert at.refused == {}
    logged = log.getvalue()
    assert "Waits until DailySpendLimitUsd is raised" in logged
    assert ANNA.id in logged

    at.open(in_flight=4, daily_usd="9", catalog=DEAR)
    at.admission.serve_waiting("a minute later")

    assert at.notified == ["ben", "cleo", "anna", "dora"]
    assert at.spent == 2 * USD + 2 * 4


def test_job_that_is_set_aside_and_called_again_waits_once(at: Account) -> None:
    at.open(daily_usd="0.1")
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(ANNA, route=(WAVESPEED,), retry=1)
    at.open(daily_usd="1")

    at.admission.serve_waiting("a minute later")
    at.admission.rendered(ANNA, 1)

    assert at.notified == ["anna"]
    assert at.spent == USD
    assert (at.holders, at.waiting) == ({}, [])


def test_spending_limit_keeps_the_order_of_the_queue(at: Account) -> None:
    at.open(in_flight=2, daily_usd="0.48")
    at.line_up(ANNA, BEN, CLEO, DORA, route=(WAVESPEED,))
    anna = RunId.of(ANNA)
    assert at.slots.free(anna, at.slots.run_state(anna), NOON)  # and then it is killed

    at.admission.rendered(BEN, 1)
    assert at.notified == ["anna", "ben", "cleo"]
    at.admission.serve_waiting("a minute later")

    assert at.notified == ["anna", "ben", "cleo", "dora"]


# What is given back


@pytest.mark.parametrize("offer", [RUNCOMFY, WAVESPEED], ids=["no price", "a price"])
@pytest.mark.parametrize(
    ("steps", "leaves_after", "renders", "is_paid"),
    [
        ("admitted", "admitted", 0, False),
        ("admitted begun", "begun", 1, True),
        ("admitted begun postponed", "begun", 1, True),
        ("admitted begun postponed", "postponed", 0, False),
        ("admitted begun refused", "begun", 1, True),
        ("admitted begun refused", "refused", 0, False),
        ("admitted begun accepted", "begun", 1, True),
        ("admitted begun accepted", "accepted", 1, True),
        ("admitted begun accepted lost", "begun", 1, True),  # what is known later changes nothing
        ("admitted begun accepted lost", "accepted", 1, True),
        ("admitted begun accepted lost", "lost", 1, False),
    ],
)
def test_day_counts_what_was_submitted_and_spends_what_may_be_paid(
    at: Account, offer: PlannedOffer, steps: str, leaves_after: str, renders: int, is_paid: bool
) -> None:
    usd = USD if offer is WAVESPEED else Decimal(0)
    at.open(in_flight=2, daily_renders=1)
    at.admit(ANNA, route=(offer,))

    for step in steps.split():
        if step == "begun":
            attempt = at.begin(ANNA, offer)
        elif step != "admitted":
            for _ in range(2):
                at.write(attempt, step)
        if step == leaves_after:
            at.ledger.close(ANNA, NOON)
            for _ in range(2):
                at.admission.leave(ANNA)
            assert at.spent == (usd if step in ("begun", "accepted") else 0)  # known by then

    spent = usd if is_paid else Decimal(0)
    assert (at.renders, at.spent) == (renders, spent)
    (run,) = (item for item in at.items("job#") if item["sk"]["S"] == "run#001")
    kept, refunded = (run.get(name, {"N": "0"})["N"] for name in ("kept_usd", "refunded_usd"))
    assert (Decimal(kept), Decimal(refunded)) == (spent, usd - spent)
    if renders == 0:
        at.admit(BEN)
        assert at.notified == ["anna", "ben"]


@pytest.mark.parametrize(("outcome", "kept"), [("refused", 0), ("accepted", USD)])
def test_next_attempt_keeps_the_estimate_of_the_last_if_that_may_be_paid(
    at: Account, outcome: str, kept: Decimal
) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    at.write(at.begin(ANNA), outcome)

    at.admit(ANNA, route=(WAVESPEED,), attempt=2)
    assert at.spent == kept + USD

    at.admission.leave(ANNA)  # the second attempt was never made
    assert at.spent == kept
    assert at.slots.run_state(RunId.of(ANNA)).charged_usd is None


def test_run_that_submitted_nothing_pays_nothing_for_an_earlier_run(at: Account) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    at.begin(ANNA)
    at.admission.leave(ANNA)
    again = job_named("anna", run=2)

    at.admit(again, route=(WAVESPEED,), attempt=2)
    assert at.spent == 2 * USD
    at.admission.leave(again)

    assert at.spent == USD


def test_refund_of_an_ended_holder_serves_the_other_queue(at: Account) -> None:
    at.open(daily_usd="0.2", catalog=RUNCOMFY_PRICED)
    at.admit(ANNA, route=(WAVESPEED,))
    at.admit(BEN, route=(RUNCOMFY,), minute=1)
    at.executions.end(ANNA.execution_name)  # and its event is lost

    at.admission.serve_all()

    assert at.notified == ["anna", "ben"]


def test_refund_of_an_ended_waiter_serves_the_other_queue(at: Account) -> None:
    at.open(daily_usd="0.2", catalog=RUNCOMFY_PRICED)
    at.line_up(ANNA, CLEO, route=(WAVESPEED,))
    at.admit(BEN, route=(RUNCOMFY,), minute=2)
    at.executions.end(CLEO.execution_name)
    at.write(at.begin(ANNA), "refused")

    at.admit(ANNA, route=(WAVESPEED, RUNCOMFY), attempt=2, offer=1, minute=3)

    assert at.notified == ["anna", "ben"]


# What has changed since it was read


@pytest.mark.parametrize(
    ("slot", "limits", "granting"),
    [
        pytest.param(0, {}, Granting.OVERTAKEN, id="the slot is taken"),
        pytest.param(5, {"daily_renders": 1}, Granting.NO_ROOM, id="the day has had its renders"),
        pytest.param(5, {"daily_usd": Decimal("0.2")}, Granting.NO_ROOM, id="the day is spent"),
    ],
)
def test_grant_fails_when_slot_or_day_was_taken_since(
    at: Account, slot: int, limits: dict[str, Any], granting: Granting
) -> None:
    at.line_up(ANNA, BEN, route=(WAVESPEED,))
    (ben,) = at.slots.first_waiters(WAVESPEED.provider, 1)
    before = at.slots.leases(WAVESPEED.provider)

    granted = at.slots.grant(
        ben,
        slot,
        by="someone",
        until=NOON + LEASE,
        now=NOON,
        usd=USD,
        limits=Limits(in_flight={}, lease={}, **limits),
    )

    assert granted is granting
    assert at.slots.leases(WAVESPEED.provider) == before
    assert at.waiting == ["ben"]
    assert (at.renders, at.spent) == (1, USD)


@pytest.mark.parametrize(
    ("since", "write"),
    [
        pytest.param("left", lambda slots, *seen: slots.leave(*seen, Refund.ALL), id="left"),
        pytest.param("next", lambda slots, *seen: slots.free(*seen, NOON), id="next, freed"),
        pytest.param("next", lambda slots, *seen: slots.leave(*seen, Refund.NOTHING), id="next"),
        pytest.param("begun", lambda slots, *seen: slots.leave(*seen, Refund.ALL), id="begun"),
        pytest.param(
            "refused", lambda slots, *seen: slots.leave(*seen, Refund.NOTHING), id="refused"
        ),
    ],
)
def test_outdated_run_state_gives_nothing_back(
    at: Account, since: str, write: Callable[..., bool]
) -> None:
    at.open(in_flight=2)
    at.line_up(ANNA, BEN, route=(WAVESPEED,))
    run = RunId.of(ANNA)
    attempt = at.begin(ANNA) if since == "refused" else None
    seen = at.slots.run_state(run)
    if since == "left":
        at.admission.leave(ANNA)
    elif since == "next":
        at.admit(ANNA, route=(WAVESPEED,), attempt=2)
    elif attempt:
        at.write(attempt, "refused")
    else:
        at.begin(ANNA)
    before = (at.slots.run_state(run), at.holders, at.spent, at.renders)

    assert not write(at.slots, run, seen)

    assert (at.slots.run_state(run), at.holders, at.spent, at.renders) == before


@pytest.mark.parametrize("is_begun", [True, False])
def test_attempt_whose_execution_is_gone_is_not_admitted_again(at: Account, is_begun: bool) -> None:
    request = at.admit(ANNA, route=(WAVESPEED,))
    if is_begun:
        at.begin(ANNA)
    at.executions.end(ANNA.execution_name)
    at.admission.serve_all()
    assert at.holders == {}

    at.admission.admit(request)  # a copy of the call comes late

    assert at.spent == (USD if is_begun else 0)
    assert (at.holders, at.waiting) == ({}, [])


def test_attempt_that_left_is_not_begun_any_more(at: Account) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    at.executions.end(ANNA.execution_name)
    at.admission.serve_all()  # it is gone: the estimate goes back

    with pytest.raises(RunClosed):  # by a submit that was held up all the while
        at.begin(ANNA)

    assert at.ledger.begin(ANNA.id, NextAttempt(attempt=2), WAVESPEED, NOON)


@pytest.mark.parametrize("killed", ["before", "after"])
def test_killed_while_it_leaves_spends_nothing_twice(at: Account, killed: str) -> None:
    request = at.admit(ANNA, route=(WAVESPEED,))
    at.executions.end(ANNA.execution_name)

    # At its first write, and there is no other: a second one would find it half gone.
    at.fail_once(f"{killed}-call.dynamodb", SystemExit())
    with pytest.raises(SystemExit):
        at.admission.leave(ANNA)
    run_state = at.slots.run_state(RunId.of(ANNA))
    assert run_state.holds_anything is (killed == "before")
    assert (run_state.charged_usd is None) is (run_state.slot is None)

    at.admission.admit(request)
    at.admission.leave(ANNA)

    assert at.spent == 0
    assert (at.holders, at.waiting) == ({}, [])


# What a render really cost


def _delivered(at: Account, estimated_usd: float | None = float(USD)) -> Ticket:
    """Anna's first attempt, accepted by WaveSpeed."""
    begun = at.ledger.begin(ANNA.id, NextAttempt(), WAVESPEED, NOON, estimated_usd=estimated_usd)
    assert begun
    at.write(begun, "accepted")
    accepted = at.ledger.find(ANNA.id, 1)
    assert accepted
    assert accepted.ticket
    return accepted.ticket


def _charged(at: Account) -> Decimal:
    """By the run: its open charge and what it keeps."""
    (run,) = (item for item in at.items(f"job#{ANNA.id}") if item["sk"]["S"] == "run#001")
    fields = ("charged_usd", "kept_usd")
    return sum((Decimal(run[name]["N"]) for name in fields if name in run), Decimal(0))


@pytest.mark.parametrize("has_left", [False, True])
@pytest.mark.parametrize("actual_usd", [0, 0.01, 0.105, 0.3])
def test_the_days_spend_is_corrected_once_by_what_was_charged(
    at: Account, actual_usd: float, has_left: bool
) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    ticket = _delivered(at)
    if has_left:
        at.admission.leave(ANNA)

    for usd in (actual_usd, actual_usd, 5):
        at.clock.now += timedelta(hours=3)
        at.ledger.settle(ANNA.id, ticket, usd)
    at.clock.now = NOON
    at.admission.leave(ANNA)

    assert at.spent == _charged(at) == Decimal(str(actual_usd))
    assert at.renders == 1
    assert at.ledger.attempts(ANNA.id)[0].actual_usd == actual_usd


def _second(at: Account) -> Ticket:
    """Anna's second attempt, accepted by WaveSpeed."""
    begun = at.ledger.begin(
        ANNA.id, NextAttempt(attempt=2), WAVESPEED, NOON, estimated_usd=float(USD)
    )
    assert begun
    at.write(begun, "accepted")
    accepted = at.ledger.find(ANNA.id, 2)
    assert accepted
    assert accepted.ticket
    return accepted.ticket


@pytest.mark.parametrize("has_left", [False, True])
def test_only_the_delivered_attempt_of_two_is_corrected(at: Account, has_left: bool) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    _delivered(at)
    at.admit(ANNA, route=(WAVESPEED,), attempt=2)
    ticket = _second(at)
    if has_left:
        at.admission.leave(ANNA)

    at.ledger.settle(ANNA.id, ticket, 0.01)
    at.admission.leave(ANNA)

    assert at.spent == _charged(at) == USD + Decimal("0.01")


def test_an_earlier_attempt_corrects_no_later_charge(at: Account) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    first = _delivered(at)
    at.admit(ANNA, route=(WAVESPEED,), attempt=2)

    at.ledger.settle(ANNA.id, first, 0.01)

    assert at.spent == USD + USD


def test_charge_without_an_estimate_is_added_to_the_day(at: Account) -> None:
    at.admit(ANNA, route=(RUNCOMFY,))
    at.ledger.settle(ANNA.id, _delivered(at, estimated_usd=None), 0.3)

    assert at.spent == _charged(at) == Decimal("0.3")


def test_render_that_leaves_during_the_correction_is_corrected(at: Account) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    ticket = _delivered(at)
    left: list[bool] = []

    def leave(**_: object) -> None:
        if not left:
            left.append(True)
            at.admission.leave(ANNA)

    at.dynamodb.meta.events.register("before-call.dynamodb.TransactWriteItems", leave)
    at.ledger.settle(ANNA.id, ticket, 0.3)

    assert left
    assert at.spent == _charged(at) == Decimal("0.3")


def test_correction_whose_answer_is_lost_is_made_once(at: Account) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    ticket = _delivered(at)
    at.fail_once("after-call.dynamodb", OSError("the answer is lost"))

    with pytest.raises(OSError, match="lost"):
        at.ledger.settle(ANNA.id, ticket, 0.3)
    at.ledger.settle(ANNA.id, ticket, 0.3)

    assert at.spent == Decimal("0.3")


def test_attempt_of_another_request_corrects_nothing(at: Account) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    ticket = _delivered(at).model_copy(update={"request_id": "another"})

    at.ledger.settle(ANNA.id, ticket, 0.3)

    assert at.spent == USD
    assert at.ledger.attempts(ANNA.id)[0].actual_usd is None


def test_forgotten_day_is_not_made_negative(at: Account) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    ticket = _delivered(at)
    at.dynamodb.delete_item(TableName=LEDGER, Key=spend_key(NOON.date()))

    at.ledger.settle(ANNA.id, ticket, 0.01)

    assert at.spent == 0
    assert at.ledger.attempts(ANNA.id)[0].actual_usd == 0.01


# Offers without a price, under a limit


@pytest.mark.parametrize(("daily_usd", "offer", "usd"), [(None, 0, None), ("10", 1, 0.12)])
def test_offer_without_a_price_is_passed_over_only_under_a_limit(
    at: Account, daily_usd: str | None, offer: int, usd: float | None
) -> None:
    at.open(daily_usd=daily_usd)
    at.admit(ANNA, route=(RUNCOMFY, WAVESPEED))

    assert (at.refused, at.notified) == ({}, ["anna"])
    assert at.holders == {("runcomfy", "wavespeed")[offer]: ["anna"]}
    assert at.ledger.admitted(ANNA, 1) == Admitted(offer=offer, estimated_usd=usd)


def test_when_no_offer_is_left_all_are_named_that_have_no_price(at: Account) -> None:
    at.open(daily_usd="10")
    at.admit(ANNA, route=(RUNCOMFY, LARGE))

    assert at.refused == {"anna": "PriceUnknown"}
    (message,) = at.executions.messages
    assert f"{RUNCOMFY.endpoint} in 480p" in message
    assert f"{WAVESPEED.endpoint} in 1080p" in message
    assert at.waiting == []


def test_offer_that_refused_is_not_asked_again_when_the_next_has_no_price(at: Account) -> None:
    at.open(daily_usd="10")
    at.admit(ANNA, route=(WAVESPEED, RUNCOMFY))
    at.write(at.begin(ANNA), "refused")

    at.admit(ANNA, route=(WAVESPEED, RUNCOMFY), attempt=2, offer=1)

    assert at.refused == {"anna": "PriceUnknown"}
    assert WAVESPEED.endpoint not in at.executions.messages[0]
    assert at.spent == 0


def test_new_spending_limit_moves_waiters_to_offers_with_a_price(at: Account) -> None:
    at.admit(ANNA)
    at.admit(BEN, route=(RUNCOMFY,), minute=1)
    at.admit(CLEO, minute=2)
    at.open(daily_usd="10")

    at.admission.rendered(ANNA, 1)

    assert at.refused == {"ben": "PriceUnknown"}
    assert at.notified == ["anna", "cleo"]
    assert at.holders == {"wavespeed": ["cleo"]}
    assert at.waiting == []


def test_job_that_is_admitted_goes_on_though_its_price_is_taken_away(at: Account) -> None:
    """Step Functions lost the answer of admit, and calls again."""
    at.open(daily_usd="10", catalog=RUNCOMFY_PRICED)
    at.admit(ANNA, route=(RUNCOMFY,))
    at.open(daily_usd="10")

    at.admit(ANNA, route=(RUNCOMFY,), retry=1)

    assert (at.refused, at.notified) == ({}, ["anna", "anna"])


def test_render_costs_what_its_price_is_when_it_is_served(at: Account) -> None:
    at.line_up(ANNA, BEN, route=(WAVESPEED,))
    at.open(catalog=catalog_with({WAVESPEED.endpoint: Override(usd_per_second={"480p": 1})}))

    at.admission.rendered(ANNA, 1)

    assert at.notified == ["anna", "ben"]
    assert at.spent == USD + 4
    assert at.ledger.admitted(BEN, 1) == Admitted(offer=0, estimated_usd=4)


# A day's renders


def test_job_over_the_daily_renders_waits_for_midnight_and_is_logged(
    at: Account, log: StringIO
) -> None:
    at.open(in_flight=9, daily_renders=2, on_daily_usd="fail")
    at.admit(ANNA)
    at.admit(BEN, route=(WAVESPEED,), minute=1)
    at.admit(CLEO, minute=2)
    at.admit(DORA, route=(WAVESPEED,), minute=3)
    assert at.notified == ["anna", "ben"]  # over all providers
    logged = log.getvalue()
    for job in (CLEO, DORA):
        assert [line for line in logged.splitlines() if "midnight UTC" in line and job.id in line]

    at.clock.now += timedelta(hours=12) - timedelta(seconds=1)
    at.admission.serve_waiting("a minute before")
    assert at.notified == ["anna", "ben"]
    at.clock.pass_seconds(1)
    at.admission.serve_waiting("midnight")

    assert sorted(at.notified) == ["anna", "ben", "cleo", "dora"]
    assert at.refused == {}


# A provider that is paused


def test_job_of_a_paused_provider_waits_when_it_can_go_nowhere_else(at: Account) -> None:
    at.open(in_flight=RUNCOMFY_PAUSED)
    at.admit(ANNA, route=(RUNCOMFY,))
    at.open(in_flight=RUNCOMFY_PAUSED, daily_usd="10", catalog=RUNCOMFY_PRICED)
    at.admit(BEN, route=(RUNCOMFY, LARGE), minute=1)  # there it has no price
    assert at.notified == []

    at.open(in_flight=2)
    at.admission.serve_waiting("a minute later")

    assert at.notified == ["anna", "ben"]
    assert at.refused == {}


def test_waiters_of_a_paused_provider_move_within_a_minute(at: Account) -> None:
    at.admit(ANNA)
    at.admit(BEN, route=(RUNCOMFY,), minute=1)
    at.admit(CLEO, minute=2)
    at.open(in_flight=RUNCOMFY_PAUSED)

    at.admission.serve_waiting("a minute later")

    assert at.notified == ["anna", "cleo"]  # past ben, who can go nowhere else
    assert at.holders == {"runcomfy": ["anna"], "wavespeed": ["cleo"]}  # what is in flight finishes
    at.admission.rendered(ANNA, 1)
    assert at.holders == {"wavespeed": ["cleo"]}
    at.open()
    at.admission.serve_waiting("resumed")
    assert at.notified == ["anna", "cleo", "ben"]


# A provider that is closed


CLOSED = Closure(
    provider="runcomfy", code="TokenRejected", message="The token is refused.", closed_at=NOON
)
ON_TRIAL = CLOSED.model_copy(update={"trial_at": NOON})


def refuse_the_account(at: Account, job: Job, *, attempt: int = 1) -> None:
    """As submit does. Then the job comes back."""
    begun = at.ledger.begin(job.id, NextAttempt(attempt=attempt), RUNCOMFY, NOON)
    assert begun
    at.ledger.refuse(begun, CLOSED.code, CLOSED.message, closes_provider=True)
    at.closures.put(CLOSED, None)


def test_jobs_of_a_closed_provider_wait_at_their_places_until_it_is_open(at: Account) -> None:
    at.open(in_flight=2, daily_usd="1", catalog=RUNCOMFY_PRICED)
    at.line_up(ANNA, BEN, CLEO, route=(RUNCOMFY,))
    for job in (BEN, ANNA):
        refuse_the_account(at, job)
        at.admit(job, attempt=2, minute=0 if job is ANNA else 1, route=(RUNCOMFY,))

    at.admission.serve_waiting("a minute later")

    assert at.notified == ["anna", "ben"]  # before
    assert (at.holders, at.waiting, at.refused) == ({}, ["anna", "ben", "cleo"], {})
    assert (at.spent, at.renders) == (Decimal(0), 0)
    at.closures.open(CLOSED)
    at.admission.serve_waiting("another minute later")
    assert at.notified == ["anna", "ben", "anna", "ben"]
    assert at.waiting == ["cleo"]


def test_jobs_of_a_closed_provider_go_to_an_open_one(at: Account) -> None:
    at.open(in_flight={"runcomfy": 1, "wavespeed": 2})
    at.line_up(ANNA, BEN)
    refuse_the_account(at, ANNA)

    at.admit(ANNA, attempt=2)  # at once
    at.admission.serve_waiting("a minute later")

    assert at.holders == {"wavespeed": ["anna", "ben"]}
    at.admit(CLEO, minute=2)
    assert at.waiting == ["cleo"]
    assert at.first_of("wavespeed").run.job_id == CLEO.id


def test_job_goes_back_to_the_first_of_two_closed_providers_to_open(at: Account) -> None:
    elsewhere = CLOSED.model_copy(update={"provider": "wavespeed"})
    at.closures.put(CLOSED, None)
    at.admit(ANNA)
    at.admit(BEN, minute=1)
    assert at.holders == {"wavespeed": ["anna"]}
    at.closures.put(elsewhere, None)
    at.admission.serve_waiting("a minute later")
    assert at.waiting == ["ben"]

    at.closures.open(CLOSED)
    at.admission.serve_waiting("another minute later")

    assert at.holders == {"runcomfy": ["ben"], "wavespeed": ["anna"]}


def test_job_does_not_go_back_to_an_offer_that_refused_it(at: Account) -> None:
    at.closures.put(CLOSED.model_copy(update={"provider": "wavespeed"}), None)
    at.admit(ANNA, attempt=2, offer=1)

    at.admission.serve_waiting("a minute later")

    assert (at.holders, at.waiting) == ({}, ["anna"])


def test_one_job_at_a_time_tries_a_provider_on_trial(at: Account) -> None:
    at.open(in_flight=5)
    at.closures.put(ON_TRIAL, None)

    at.line_up(ANNA, BEN, route=(RUNCOMFY,))
    at.admission.serve_waiting("a minute later")

    assert (at.holders, at.waiting) == ({"runcomfy": ["anna"]}, ["ben"])
    at.admission.rendered(ANNA, 1)
    assert at.holders == {"runcomfy": ["ben"]}


def test_log_says_how_many_jobs_wait_for_a_closed_provider(at: Account, log: StringIO) -> None:
    at.closures.put(CLOSED, None)
    at.line_up(ANNA, BEN, route=(RUNCOMFY,))

    at.admission.serve_waiting("a minute later")

    [line] = [it for it in map(json.loads, log.getvalue().splitlines()) if it["level"] == "WARNING"]
    assert line["message"] == "2 waiting until RunComfy is open: The token is refused."
    assert line["error_code"] == "TokenRejected"


def test_unreadable_prices_end_and_move_no_job_that_waits(
    at: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.open(daily_usd="0.15", catalog=RUNCOMFY_PRICED)
    at.line_up(ANNA, BEN, route=(RUNCOMFY,))
    at.admit(CLEO, minute=2)
    unreadable = {RUNCOMFY.endpoint: {"usd_per_second": {"480p": 0.02, "1080p": 0.1}}}
    for name, text in {
        **ENVIRONMENT,
        "DAILY_SPEND_LIMIT_USD": "1",
        "CATALOG_OVERRIDES": json.dumps(unreadable),
    }.items():
        monkeypatch.setenv(name, text)

    limits = limits_of(LenientSettings.from_environment())
    at.admission = replace(at.admission, limits=limits)
    at.admission.serve_waiting("a minute later")

    assert (at.notified, at.refused) == (["anna"], {})
    at.open(in_flight=3, catalog=RUNCOMFY_PRICED)
    at.admission.serve_waiting("corrected")
    assert at.holders == {"runcomfy": ["anna", "ben", "cleo"]}


def test_waiter_with_a_newer_token_is_not_moved(at: Account) -> None:
    at.line_up(ANNA, BEN)
    at.open(in_flight=RUNCOMFY_PAUSED)

    def called_again_with_the_settings_of_before() -> None:
        now = at.admission
        at.open()
        at.admit(BEN, minute=1, retry=1)
        at.admission = now

    at.meanwhile(called_again_with_the_settings_of_before)
    at.admission.serve_waiting("a minute later")
    at.admission.serve_waiting("two minutes later")

    assert at.notified == ["anna", "ben"]
    assert at.waiting == []


def test_late_call_with_other_settings_replaces_no_newer_token(at: Account) -> None:
    at.admit(ANNA)
    at.admit(CLEO, route=(WAVESPEED,))
    stale = request_of(BEN, minute=1)
    at.open(in_flight={"runcomfy": 0, "wavespeed": 1})
    at.admit(BEN, minute=1, retry=1)  # waits for WaveSpeed
    at.open()
    at.admission.admit(stale)  # would wait for RunComfy

    at.admission.rendered(ANNA, 1)
    at.admission.rendered(CLEO, 1)

    assert at.notified == ["anna", "cleo", "ben"]
    assert at.holders == {"wavespeed": ["ben"]}


def test_run_that_is_over_is_not_moved(at: Account) -> None:
    at.line_up(ANNA, BEN)
    at.ledger.close(BEN, NOON)
    at.open(in_flight=RUNCOMFY_PAUSED)

    at.admission.serve_waiting("a minute later")

    assert at.waiting == []
    assert at.holders == {"runcomfy": ["anna"]}
