"""A job that is run again waits for what is paid for, and else makes a new attempt."""

from typing import Any

import pytest

from dropreel.model.ledger import Attempt, Run
from dropreel.model.messages import NextAttempt, Plan, PlannedOffer
from dropreel.render import resumption
from tests.support.admission_fakes import write_outcome
from tests.support.conclusion_bench import READY
from tests.support.render_fakes import (
    JOB,
    NOON,
    PLAN,
    RUNCOMFY,
    TICKET,
    WAVESPEED,
    MemoryLedger,
)

AGAIN = JOB.model_copy(update={"run": 2})
SUBMITTED = PLAN.model_copy(update={"changes": ("anna.png: turned upright",)})
FRESH = PLAN.model_copy(update={"job": AGAIN})


def fresh() -> Plan:
    return FRESH


def no_media() -> Plan:
    raise AssertionError("no upload may be looked at")


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger()


def attempt(ledger: MemoryLedger, number: int, offer: PlannedOffer = RUNCOMFY) -> Attempt:
    place = PLAN.route.index(offer)
    begun = ledger.begin(JOB.id, NextAttempt(attempt=number, offer=place), offer, NOON)
    assert begun
    return begun


def accepted(ledger: MemoryLedger, number: int = 1, offer: PlannedOffer = RUNCOMFY) -> None:
    ledger.accept(attempt(ledger, number, offer), f"req-{number}", NOON)


def noted(ledger: MemoryLedger, number: int = 1, plan: Plan | None = SUBMITTED) -> None:
    ledger.note_run(Run(job_id=JOB.id, number=number, plan=plan))


def test_a_first_run_reads_no_ledger() -> None:
    first = FRESH.model_copy(update={"job": JOB})
    no_ledger: Any = None

    assert resumption.plan(JOB, no_ledger, lambda: first) == first


def test_accepted_render_is_resumed_without_reading_the_uploads(
    ledger: MemoryLedger,
) -> None:
    noted(ledger)
    accepted(ledger)

    plan = resumption.plan(AGAIN, ledger, no_media)

    assert plan.job == AGAIN
    assert plan.resume == TICKET
    assert plan.first_attempt == 1
    assert (plan.route, plan.changes) == (SUBMITTED.route, SUBMITTED.changes)


def test_a_later_attempt_keeps_its_number_and_its_offer(ledger: MemoryLedger) -> None:
    noted(ledger)
    ledger.refuse(attempt(ledger, 1), "NoCredit", "")
    accepted(ledger, 2, WAVESPEED)

    plan = resumption.plan(AGAIN, ledger, no_media)

    assert plan.resume
    assert plan.first_attempt == plan.resume.attempt == 2
    assert plan.route[plan.resume.offer] == WAVESPEED
    assert plan.resume.provider == "wavespeed"


def test_a_run_that_resumed_can_itself_be_run_again(ledger: MemoryLedger) -> None:
    """It was never admitted, so the ledger has no plan of it."""
    noted(ledger)
    accepted(ledger)
    noted(ledger, 2, None)
    third = JOB.model_copy(update={"run": 3})

    plan = resumption.plan(third, ledger, no_media)

    assert plan == resumption.plan(AGAIN, ledger, no_media).model_copy(update={"job": third})


def test_resumed_render_uses_the_plan_it_was_submitted_with(ledger: MemoryLedger) -> None:
    """Not that of a run which began its attempts after it."""
    noted(ledger)
    noted(ledger, 2, SUBMITTED.model_copy(update={"first_attempt": 2, "changes": ("others",)}))
    accepted(ledger)

    plan = resumption.plan(JOB.model_copy(update={"run": 3}), ledger, no_media)

    assert plan.changes == SUBMITTED.changes


def test_without_a_stored_plan_the_uploads_make_a_new_one_that_resumes(
    ledger: MemoryLedger,
) -> None:
    noted(ledger, plan=None)
    accepted(ledger)

    plan = resumption.plan(AGAIN, ledger, fresh)

    assert plan == FRESH.model_copy(update={"first_attempt": 1, "resume": TICKET})


@pytest.mark.parametrize(("only", "offer"), [(WAVESPEED, 0), (RUNCOMFY, 1)])
def test_new_plan_finds_or_adds_the_offer_of_the_ticket(
    ledger: MemoryLedger, only: PlannedOffer, offer: int
) -> None:
    accepted(ledger, 1, WAVESPEED)
    new = FRESH.model_copy(update={"route": (only,)})

    resumed = resumption.plan(AGAIN, ledger, lambda: new).resume

    assert resumed
    assert resumed.offer == offer


@pytest.mark.parametrize("outcome", ["", "postponed", "refused", "lost"])
def test_any_other_latest_attempt_is_followed_by_a_new_one(
    ledger: MemoryLedger, outcome: str
) -> None:
    noted(ledger)
    assert resumption.plan(AGAIN, ledger, fresh) == FRESH
    ledger.refuse(attempt(ledger, 1), "ProviderUnavailable", "")
    latest = attempt(ledger, 2)
    if outcome:
        write_outcome(ledger, latest, outcome)

    plan = resumption.plan(AGAIN, ledger, fresh)

    assert plan == FRESH.model_copy(update={"first_attempt": 3})


ONCE_MORE = AGAIN.model_copy(update={"again": True})
AFTER_THAT = ONCE_MORE.model_copy(update={"run": 3})


@pytest.fixture
def delivered(ledger: MemoryLedger) -> MemoryLedger:
    """Its first run has delivered the video."""
    noted(ledger)
    accepted(ledger)
    ledger.end(JOB, NOON, READY, NOON)
    return ledger


def test_what_is_to_be_made_again_does_not_resume_what_was_delivered(
    delivered: MemoryLedger,
) -> None:
    plan = resumption.plan(ONCE_MORE, delivered, fresh)

    assert plan == FRESH.model_copy(update={"first_attempt": 2})


def test_a_run_after_one_that_failed_to_make_it_again_pays_nothing_twice(
    delivered: MemoryLedger,
) -> None:
    noted(delivered, 2, FRESH.model_copy(update={"first_attempt": 2}))
    begun = delivered.begin(JOB.id, NextAttempt(attempt=2), RUNCOMFY, NOON, run=2)
    assert begun
    delivered.accept(begun, "req-2", NOON)

    plan = resumption.plan(AFTER_THAT, delivered, no_media)

    assert plan.resume
    assert plan.resume.request_id == "req-2"


def test_a_run_after_one_that_failed_before_its_attempt_makes_it_again(
    delivered: MemoryLedger,
) -> None:
    plan = resumption.plan(AFTER_THAT, delivered, fresh)

    assert plan == FRESH.model_copy(update={"first_attempt": 2})


def test_what_was_accepted_and_not_delivered_is_resumed_before_it_is_made_again(
    ledger: MemoryLedger,
) -> None:
    noted(ledger)
    accepted(ledger)

    assert resumption.plan(ONCE_MORE, ledger, no_media).resume == TICKET


def test_another_job_s_history_is_not_this_one_s(ledger: MemoryLedger) -> None:
    accepted(ledger)
    other = AGAIN.model_copy(update={"id": "bert-0123456789abcdef"})

    assert resumption.plan(other, ledger, fresh).resume is None
