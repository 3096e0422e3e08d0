"""Which attempt follows which, as a table, and the summary of an attempt."""

import pytest

from dropreel.model.events import AttemptSummary
from dropreel.model.ledger import Attempt, AttemptState
from dropreel.model.messages import NextAttempt, Plan
from dropreel.model.provider import Answer, FailureCause, RenderState, Ticket
from dropreel.render.attempts import (
    MAX_ACCOUNT_REFUSALS,
    after_loss,
    after_refusal,
    summary,
    total_actual_usd,
    total_usd,
)
from tests.support.render_fakes import JOB, NOON, ONE_OFFER, PLAN, RUNCOMFY, TICKET, WAVESPEED

FIFTH_FIRST = PLAN.model_copy(update={"first_attempt": 5})
THREE_OFFERS = PLAN.model_copy(update={"route": (*PLAN.route, RUNCOMFY)})
ACCOUNT_TWICE = PLAN.model_copy(update={"route": (RUNCOMFY, RUNCOMFY, WAVESPEED)})
ONE_ACCOUNT = PLAN.model_copy(update={"route": (RUNCOMFY, RUNCOMFY)})
ACCOUNT = ["TokenMissing", "TokenRejected", "NoCredit", "ProviderThrottled", "ProviderUnavailable"]


def failed(cause: FailureCause) -> Answer:
    return Answer(state=RenderState.FAILED, cause=cause)


FAILED, UNREADABLE = failed(FailureCause.OTHER), failed(FailureCause.MEDIA_UNREADABLE)
EMPTY = failed(FailureCause.NO_CREDIT)
CANCELLED = Answer(state=RenderState.CANCELLED)


def next_attempt(attempt: int, offer: int) -> NextAttempt:
    return NextAttempt(attempt=attempt, offer=offer)


def refused(number: int, offer: int, code: str = "NoCredit") -> Attempt:
    return attempt(number, AttemptState.REFUSED, code, offer=offer)


def ticket(attempt: int, offer: int) -> Ticket:
    return TICKET.model_copy(update={"attempt": attempt, "offer": offer})


def attempt(
    number: int, state: AttemptState, code: str | None = None, *, offer: int = 0
) -> Attempt:
    return Attempt(
        job_id=JOB.id,
        number=number,
        provider=RUNCOMFY.provider,
        endpoint=RUNCOMFY.endpoint,
        offer=offer,
        state=state,
        begun_at=NOON,
        begun_by="call 1",
        code=code,
    )


@pytest.mark.parametrize("code", [*ACCOUNT, "RequestRefused", "SomethingNew", ""])
def test_only_refusals_of_the_account_go_to_the_next_offer(code: str) -> None:
    following = next_attempt(2, 1) if code in ACCOUNT else None

    now = refused(1, 0, code)

    assert after_refusal(PLAN, now, 0, [now]) == following


@pytest.mark.parametrize(
    ("plan", "now", "following"),
    [
        pytest.param(ONE_OFFER, refused(1, 0), None, id="the route ends"),
        pytest.param(THREE_OFFERS, refused(2, 1), None, id="a run submits twice"),
        pytest.param(ACCOUNT_TWICE, refused(1, 0), next_attempt(2, 2), id="of another account"),
        pytest.param(ONE_ACCOUNT, refused(1, 0), None, id="there is no other account"),
        pytest.param(FIFTH_FIRST, refused(5, 0), next_attempt(6, 1), id="a later run has its own"),
        pytest.param(FIFTH_FIRST, refused(6, 0), None, id="a later run has no more than that"),
    ],
)
def test_refusals_go_on_until_the_route_or_the_submissions_end(
    plan: Plan, now: Attempt, following: NextAttempt | None
) -> None:
    assert after_refusal(plan, now, 0, [now]) == following


def closing(number: int, offer: int) -> Attempt:
    return refused(number, offer).model_copy(update={"closes_provider": True})


@pytest.mark.parametrize(
    ("plan", "now", "first_offer", "following"),
    [
        pytest.param(PLAN, closing(1, 0), 0, next_attempt(2, 0), id="admission chooses again"),
        pytest.param(PLAN, closing(1, 1), 0, next_attempt(2, 0), id="also one passed over before"),
        pytest.param(PLAN, closing(1, 1), 1, next_attempt(2, 1), id="not one that refused it"),
        pytest.param(ONE_OFFER, closing(1, 0), 0, next_attempt(2, 0), id="it can wait for"),
    ],
)
def test_refusal_that_closes_the_provider_lets_admission_choose(
    plan: Plan, now: Attempt, first_offer: int, following: NextAttempt
) -> None:
    assert after_refusal(plan, now, first_offer, [now]) == following


def test_refusals_that_close_a_provider_are_no_submissions() -> None:
    closed = [closing(number, 0) for number in range(1, 11)]
    other = refused(11, 0, "ProviderThrottled")
    history = [*closed, other]

    assert after_refusal(PLAN, other, 0, history) == next_attempt(12, 1)
    last = refused(12, 0, "ProviderThrottled")
    assert after_refusal(PLAN, last, 0, [*history, last]) is None
    lost = attempt(11, AttemptState.LOST)
    assert after_loss(PLAN, ticket(11, 0), FAILED, [*closed, lost]) == next_attempt(12, 1)


def test_account_is_not_tried_for_ever() -> None:
    history = [closing(number, 0) for number in range(1, MAX_ACCOUNT_REFUSALS + 2)]

    assert after_refusal(PLAN, history[-2], 0, history[:-1])
    assert after_refusal(PLAN, history[-1], 0, history) is None


@pytest.mark.parametrize(
    ("plan", "now", "answer", "following"),
    [
        pytest.param(PLAN, ticket(1, 0), FAILED, next_attempt(2, 1), id="next offer"),
        pytest.param(ONE_OFFER, ticket(1, 0), FAILED, next_attempt(2, 0), id="same offer"),
        pytest.param(PLAN, ticket(1, 0), UNREADABLE, next_attempt(2, 0), id="fresh URLs"),
        pytest.param(PLAN, ticket(1, 0), failed(FailureCause.MODERATED), None, id="moderated"),
        pytest.param(PLAN, ticket(1, 0), failed(FailureCause.BAD_INPUT), None, id="bad input"),
        pytest.param(ACCOUNT_TWICE, ticket(1, 0), EMPTY, next_attempt(2, 2), id="other account"),
        pytest.param(ONE_ACCOUNT, ticket(1, 0), EMPTY, None, id="no other account"),
        pytest.param(ACCOUNT_TWICE, ticket(1, 0), FAILED, next_attempt(2, 1), id="same account"),
        pytest.param(PLAN, ticket(2, 1), FAILED, None, id="two submissions"),
        pytest.param(PLAN, ticket(1, 0), CANCELLED, None, id="cancelled by somebody"),
    ],
)
def test_lost_render_is_submitted_again_when_that_may_help(
    plan: Plan, now: Ticket, answer: Answer, following: NextAttempt | None
) -> None:
    refused_before = [attempt(number, AttemptState.REFUSED) for number in range(1, now.attempt)]
    history = [*refused_before, attempt(now.attempt, AttemptState.LOST)]

    assert after_loss(plan, now, answer, history) == following


@pytest.mark.parametrize(
    ("lost", "now", "following"),
    [
        pytest.param(
            [1, 2, 4], ticket(5, 0), next_attempt(6, 1), id="others were lost before this run"
        ),
        pytest.param([1, 5], ticket(6, 0), None, id="one was lost in this run"),
        pytest.param([4], ticket(4, 0), next_attempt(5, 1), id="the one that was resumed"),
        pytest.param(
            [2], ticket(2, 0), next_attempt(5, 1), id="one that was resumed, not the last"
        ),
        pytest.param([2, 4], ticket(4, 1), next_attempt(5, 1), id="resumed, after an earlier loss"),
    ],
)
def test_losses_of_earlier_runs_do_not_count(
    lost: list[int], now: Ticket, following: NextAttempt | None
) -> None:
    history = [
        attempt(number, AttemptState.LOST if number in lost else AttemptState.REFUSED)
        for number in range(1, max(5, now.attempt) + 1)
    ]

    assert after_loss(FIFTH_FIRST, now, FAILED, history) == following


@pytest.mark.parametrize("plan", [PLAN, ONE_OFFER])
def test_render_that_an_empty_account_lost_is_admitted_once_more(plan: Plan) -> None:
    lost = [attempt(1, AttemptState.LOST), attempt(2, AttemptState.LOST)]

    first = after_loss(plan, ticket(1, 0), EMPTY, lost[:1], is_closed=True)

    assert first == next_attempt(2, 0)
    assert after_loss(plan, ticket(2, 0), EMPTY, lost, is_closed=True) is None


def test_files_that_were_not_fetched_are_sent_again_once_in_a_run() -> None:
    both_lost = [attempt(1, AttemptState.LOST), attempt(2, AttemptState.LOST)]

    assert after_loss(THREE_OFFERS, ticket(2, 0), UNREADABLE, both_lost) is None


def test_repeated_question_gives_the_same_next_attempt() -> None:
    both_lost = [attempt(1, AttemptState.LOST), attempt(2, AttemptState.LOST)]

    assert after_loss(PLAN, ticket(1, 0), FAILED, both_lost) == next_attempt(2, 1)


def test_summary_has_the_outcome_of_its_attempt_or_of_the_job_while_open() -> None:
    still_open = summary(attempt(2, AttemptState.ACCEPTED), "RenderTimedOut", "Still queued.")
    assert (still_open.outcome, still_open.message) == ("RenderTimedOut", "Still queued.")

    closed = attempt(1, AttemptState.REFUSED, "NoCredit").model_copy(
        update={"provider": WAVESPEED.provider, "endpoint": WAVESPEED.endpoint, "message": "Empty."}
    )

    assert summary(closed, "RenderTimedOut", "Still queued.") == AttemptSummary(
        number=1,
        provider="wavespeed",
        model="wavespeed-ai/wan-2.2/speech-to-video",
        request_id=None,
        outcome="NoCredit",
        message="Empty.",
        estimated_usd=0,
    )


@pytest.mark.parametrize(
    ("state", "code", "may_be_paid"),
    [
        (AttemptState.BEGUN, None, True),
        (AttemptState.ACCEPTED, None, True),
        (AttemptState.LOST, "RequestForgotten", True),
        (AttemptState.LOST, "RenderFailed", False),
        (AttemptState.REFUSED, "NoCredit", False),
        (AttemptState.POSTPONED, "ProviderThrottled", False),
    ],
)
def test_summary_has_the_price_of_what_may_be_paid(
    state: AttemptState, code: str | None, may_be_paid: bool
) -> None:
    priced = attempt(1, state, code).model_copy(update={"estimated_usd": 0.12})
    unpriced = attempt(2, state, code)

    assert summary(priced).estimated_usd == (0.12 if may_be_paid else 0)
    assert summary(unpriced).estimated_usd == (None if may_be_paid else 0)


@pytest.mark.parametrize(
    ("each", "total"), [([], 0), ([0, 0.1, 0.2], 0.3), ([0.1, None], None), ([None], None)]
)
def test_total_is_unknown_when_one_price_is(each: list[float | None], total: float | None) -> None:
    one = summary(attempt(1, AttemptState.ACCEPTED))
    attempts = [one.model_copy(update={"estimated_usd": usd}) for usd in each]

    assert total_usd(attempts) == total


@pytest.mark.parametrize(
    ("each", "total"),
    [
        ([], 0),
        ([(0, None), (0.2, 0.1)], 0.1),  # the first was refused: nothing is charged
        ([(0, 0.3)], 0.3),
        ([(None, 0.1), (0.2, 0.2)], 0.3),
        ([(0.2, None), (0.2, 0.1)], None),  # the first may be paid
        ([(None, None)], None),
    ],
)
def test_total_of_charges_is_unknown_when_one_is(
    each: list[tuple[float | None, float | None]], total: float | None
) -> None:
    one = summary(attempt(1, AttemptState.ACCEPTED))
    attempts = [
        one.model_copy(update={"estimated_usd": estimated, "actual_usd": actual})
        for estimated, actual in each
    ]

    assert total_actual_usd(attempts) == total
