"""What closes a provider, and what opens it again."""

from datetime import datetime, timedelta

import pytest

from dropreel.model.closure import Account, AccountState, Closure
from dropreel.render.closing import after_question, close
from tests.support.render_fakes import NOON, MemoryClosures

MINUTE = timedelta(minutes=1)
CLOSED = Closure(provider="runcomfy", code="NoCredit", message="Empty.", closed_at=NOON)
ON_TRIAL = CLOSED.model_copy(update={"trial_at": NOON})
GOOD = Account(state=AccountState.ACCEPTED)


def close_at(closures: MemoryClosures, asked_at: datetime, code: str = "TokenRejected") -> None:
    close(closures, "runcomfy", code, "Refused.", asked_at=asked_at, now=asked_at + MINUTE)


def test_first_reason_to_close_stays() -> None:
    closures = MemoryClosures(CLOSED)

    close_at(closures, NOON + MINUTE)

    assert closures.all() == (CLOSED,)


def test_refusal_on_trial_closes_again() -> None:
    closures = MemoryClosures(ON_TRIAL)

    close_at(closures, NOON)

    [closed] = closures.all()
    assert (closed.refusals, closed.closed_at, closed.trial_at) == (2, NOON + MINUTE, None)
    assert closed.code == "TokenRejected"


def test_late_refusal_of_a_call_from_before_the_trial_closes_nothing() -> None:
    closures = MemoryClosures(ON_TRIAL)

    close_at(closures, NOON - MINUTE)

    assert closures.all() == (ON_TRIAL,)


def test_refusal_of_long_ago_whose_step_is_repeated_closes_nothing() -> None:
    closures = MemoryClosures()

    close(
        closures,
        "runcomfy",
        "NoCredit",
        "Empty.",
        asked_at=NOON,
        now=NOON + timedelta(hours=1),
    )

    assert closures.all() == ()


@pytest.mark.parametrize(
    ("refusals", "minutes"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (50, 60)]
)
def test_trials_come_more_seldom_the_more_have_failed(refusals: int, minutes: int) -> None:
    closed = CLOSED.model_copy(update={"refusals": refusals})
    due = NOON + minutes * MINUTE

    early, late = (after_question(closed, GOOD, now) for now in (due - MINUTE, due))

    assert early == closed.model_copy(update={"asked_at": due - MINUTE})
    assert late == closed.model_copy(update={"asked_at": due, "trial_at": due})


def test_person_who_asks_need_not_wait() -> None:
    asked = after_question(CLOSED, GOOD, NOON, at_once=True)

    assert asked
    assert (asked.trial_at, asked.max_in_flight) == (NOON, 1)


@pytest.mark.parametrize(("minutes", "is_open"), [(1, False), (5, True)])
def test_provider_is_open_after_a_trial_without_a_refusal(minutes: int, is_open: bool) -> None:
    asked = after_question(ON_TRIAL, GOOD, NOON + minutes * MINUTE)

    assert (asked is None) is is_open


@pytest.mark.parametrize("closure", [CLOSED, ON_TRIAL])
@pytest.mark.parametrize(
    ("state", "code"),
    [(AccountState.REFUSED, "TokenRejected"), (AccountState.NO_CREDIT, "NoCredit")],
)
def test_account_that_is_refused_stays_closed_with_the_newest_reason(
    closure: Closure, state: AccountState, code: str
) -> None:
    account = Account(state=state, message="Still not.")

    asked = after_question(closure, account, NOON + 90 * MINUTE, at_once=True)

    assert asked
    assert (asked.code, asked.message, asked.max_in_flight) == (code, "Still not.", 0)


@pytest.mark.parametrize("state", [AccountState.NO_TOKEN, AccountState.UNKNOWN])
@pytest.mark.parametrize("closure", [CLOSED, ON_TRIAL])
def test_no_answer_changes_nothing(closure: Closure, state: AccountState) -> None:
    for now, at_once in ((NOON + 50 * MINUTE, True), (NOON + 90 * MINUTE, False)):
        asked = after_question(closure, Account(state=state), now, at_once=at_once)

        assert asked == closure.model_copy(update={"asked_at": now})


def test_person_opens_a_provider_that_never_gives_a_usable_answer() -> None:
    unknown, missing = (Account(state=it) for it in (AccountState.UNKNOWN, AccountState.NO_TOKEN))
    now = NOON + 60 * MINUTE

    on_trial = after_question(CLOSED, unknown, now, at_once=True)

    assert on_trial
    assert on_trial.trial_at == now
    assert after_question(on_trial, unknown, now + 5 * MINUTE, at_once=True) is None
    still = after_question(CLOSED, missing, now, at_once=True)
    assert still
    assert still.trial_at is None
