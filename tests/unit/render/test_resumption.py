"""A job that is run again waits for what is paid for, and else makes a new attempt."""

from collections.abc import Callable

import pytest

from dropreel.model.ledger import Attempt, AttemptState, Run
from dropreel.model.messages import NextAttempt, Plan, PlannedOffer
from dropreel.render import resumption
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


class NoHistory:
    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        raise AssertionError("a first run has no history")

    def runs(self, job_id: str) -> tuple[Run, ...]:
        raise AssertionError("a first run has no history")


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

    assert resumption.plan(JOB, NoHistory(), lambda: first) == first


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


def test_a_new_plan_knows_where_the_ticket_s_offer_is_on_its_route(ledger: MemoryLedger) -> None:
    accepted(ledger, 1, WAVESPEED)
    alone = FRESH.model_copy(update={"route": (WAVESPEED,)})
    other = FRESH.model_copy(update={"route": (RUNCOMFY,)})

    resumed = resumption.plan(AGAIN, ledger, lambda: alone).resume
    elsewhere = resumption.plan(AGAIN, ledger, lambda: other).resume

    assert resumed
    assert resumed.offer == 0
    assert elsewhere
    assert elsewhere.offer == 1


def begun(ledger: MemoryLedger) -> None:
    attempt(ledger, 2)


def postponed(ledger: MemoryLedger) -> None:
    ledger.postpone(attempt(ledger, 2), "ProviderThrottled", "")


def refused(ledger: MemoryLedger) -> None:
    ledger.refuse(attempt(ledger, 2), "NoCredit", "")


def lost(ledger: MemoryLedger) -> None:
    accepted(ledger, 2)
    ticket = TICKET.model_copy(update={"request_id": "req-2", "attempt": 2})
    ledger.lose(JOB.id, ticket, "RenderFailed", "")


@pytest.mark.parametrize("become", [begun, postponed, refused, lost])
def test_any_other_latest_attempt_is_followed_by_a_new_one(
    ledger: MemoryLedger, become: Callable[[MemoryLedger], None]
) -> None:
    noted(ledger)
    ledger.refuse(attempt(ledger, 1), "ProviderUnavailable", "")
    become(ledger)

    plan = resumption.plan(AGAIN, ledger, fresh)

    assert plan == FRESH.model_copy(update={"first_attempt": 3})
    assert ledger.find(JOB.id, plan.first_attempt) is None


def test_every_state_of_an_attempt_has_its_test() -> None:
    others = {one.__name__ for one in (begun, postponed, refused, lost, accepted)}

    assert others == set(AttemptState)


def test_a_run_that_never_submitted_begins_with_the_first_attempt(ledger: MemoryLedger) -> None:
    noted(ledger)

    assert resumption.plan(AGAIN, ledger, fresh) == FRESH


def test_another_job_s_history_is_not_this_one_s(ledger: MemoryLedger) -> None:
    accepted(ledger)
    other = AGAIN.model_copy(update={"id": "bert-0123456789abcdef"})

    assert resumption.plan(other, ledger, fresh).resume is None
