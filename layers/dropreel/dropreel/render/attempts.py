"""The attempts of a job: whether a failed one is followed by another, and on which offer.

Pure, so that the rules of what may be paid can be tested as tables. An attempt is one submission,
whatever its outcome. Those of earlier runs do not count against a run's `MAX_SUBMISSIONS`.
"""

import math
from collections.abc import Collection, Iterable

from dropreel.model import errors
from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.errors import DropreelError
from dropreel.model.events import AttemptSummary
from dropreel.model.ledger import Attempt, AttemptState
from dropreel.model.messages import NextAttempt, Plan
from dropreel.model.provider import Answer, FailureCause, RenderState, Ticket

MAX_SUBMISSIONS = 2
"""Of one run. A second try helps after a passing fault; a third mostly pays for the same failure.
"""

MAX_ACCOUNT_REFUSALS = 50
"""Of one run, which do not count as submissions: each closed its provider. With a trial every hour
it is two days; the attempts of a job still fit into its events and its execution's history."""

ACCOUNT_REFUSALS: tuple[type[DropreelError], ...] = (
    errors.TokenMissing,
    errors.TokenRejected,
    errors.NoCredit,
    errors.ProviderThrottled,
    errors.ProviderUnavailable,
)
"""Refusals whose cause is the account or the provider, not the job."""

NOT_SUBMITTED = (AttemptState.POSTPONED, AttemptState.REFUSED)
"""The provider took nothing: the attempt does not count among a day's renders."""

MAY_BE_PAID = (AttemptState.BEGUN, AttemptState.ACCEPTED)
"""The attempt's estimate stays charged, because it may still bring a video."""


def is_account_refusal(code: str | None) -> bool:
    return code in {refusal.__name__ for refusal in ACCOUNT_REFUSALS}


def after_refusal(
    plan: Plan, refused: Attempt, first_offer: int, attempts: Iterable[Attempt]
) -> NextAttempt | None:
    """The attempt after a definite refusal: on the route's next offer of another account.

    After one that closed the provider, admission chooses again from `first_offer` on, the first
    that the refused attempt could ask: an open one, or else the job waits.
    """
    if not is_account_refusal(refused.code):
        return None
    elsewhere = _elsewhere(plan, refused.provider, refused.offer)
    offer = first_offer if refused.closes_provider else elsewhere
    return _next(plan, refused.number + 1, offer, attempts)


def after_loss(
    plan: Plan,
    ticket: Ticket,
    answer: Answer,
    attempts: Collection[Attempt],
    *,
    is_closed: bool = False,
) -> NextAttempt | None:
    """The attempt after a lost render. That may have been paid, so only once in a run: WaveSpeed
    refunds what failed within three hours, and RunComfy publishes nothing of it.

    `is_closed` says that the account has no credit, and its provider is closed for that.

    A resumed render may have a number below `plan.first_attempt`.
    """
    lost_before = any(
        attempt.state is AttemptState.LOST and plan.first_attempt <= attempt.number < ticket.attempt
        for attempt in attempts
    )
    if lost_before or answer.state is not RenderState.FAILED:
        return None
    match answer.cause:
        case FailureCause.MEDIA_UNREADABLE:
            # Its URLs may have ended with the credentials that signed them; submit signs new ones.
            offer = ticket.offer
        case FailureCause.NO_CREDIT:
            elsewhere = _elsewhere(plan, ticket.provider, ticket.offer)
            offer = ticket.offer if is_closed else elsewhere
        case FailureCause.OTHER:
            offer = min(ticket.offer + 1, len(plan.route) - 1)
        case FailureCause.MODERATED | FailureCause.BAD_INPUT:
            return None
    return _next(plan, max(ticket.attempt + 1, plan.first_attempt), offer, attempts)


def after_timeout(plan: Plan, ticket: Ticket, attempts: Iterable[Attempt]) -> NextAttempt | None:
    """The attempt after one that was cancelled in the provider's queue, which costs nothing."""
    return _next(plan, max(ticket.attempt + 1, plan.first_attempt), ticket.offer + 1, attempts)


def loss_of(answer: Answer, ticket: Ticket) -> DropreelError:
    """A failed or cancelled render as the job's error, in the provider's words."""
    provider, render = TITLES[ticket.provider], f"the render {ticket.request_id}"
    words = f" {answer.message}" if answer.message else ""
    if answer.state is RenderState.CANCELLED:
        return errors.RenderCancelled(
            f"The render {ticket.request_id} was cancelled at {provider}.{words}"
        )
    match answer.cause:
        case FailureCause.MODERATED:
            return errors.RenderModerated(f"The moderation of {provider} stopped {render}.{words}")
        case FailureCause.BAD_INPUT:
            return errors.RenderRejected(
                f"{provider} could not use the files or options of {render}.{words}"
            )
        case FailureCause.NO_CREDIT:
            return errors.NoCredit(f"{provider} had no credit for {render}.{words}")
        case FailureCause.MEDIA_UNREADABLE:
            return errors.RenderFailed(
                f"{provider} could not fetch or read the files of {render}.{words}"
            )
        case _:
            return errors.RenderFailed(f"{provider} could not make {render}.{words}")


def code_of_loss(loss: DropreelError) -> str:
    """The code that the ledger records. `NoCredit` on an attempt would mean that the submission
    was refused, so an accepted render that lacked credit is recorded as `RenderFailed`."""
    recorded = errors.RenderFailed if isinstance(loss, errors.NoCredit) else type(loss)
    return recorded.__name__


def _elsewhere(plan: Plan, provider: ProviderName, offer: int) -> int:
    """The next offer of another provider: the same account would refuse again."""
    later = range(offer + 1, len(plan.route))
    return next((it for it in later if plan.route[it].provider != provider), len(plan.route))


def _next(plan: Plan, attempt: int, offer: int, attempts: Iterable[Attempt]) -> NextAttempt | None:
    of_run = [it for it in attempts if plan.first_attempt <= it.number < attempt]
    refused_accounts = sum(it.closes_provider for it in of_run)
    submissions = attempt - plan.first_attempt - refused_accounts
    if submissions >= MAX_SUBMISSIONS or refused_accounts > MAX_ACCOUNT_REFUSALS:
        return None
    if offer >= len(plan.route):
        return None
    return NextAttempt(attempt=attempt, offer=offer)


def summary(
    attempt: Attempt, open_outcome: str = errors.SubmissionUnclear.__name__, open_message: str = ""
) -> AttemptSummary:
    """An attempt for the events. An open attempt ends with `open_outcome`; but one that was begun
    and not answered is always unclear."""
    unclear = errors.SubmissionUnclear.__name__
    outcome, message = attempt.code, attempt.message
    if outcome is None:
        outcome, message = open_outcome, open_message
        if attempt.state is AttemptState.BEGUN and outcome != unclear:
            outcome, message = unclear, "Whether the request was accepted is unknown."
    return AttemptSummary(
        number=attempt.number,
        run=attempt.run,
        provider=attempt.provider,
        model=attempt.endpoint,
        request_id=attempt.request_id,
        outcome=outcome,
        message=message,
        estimated_usd=attempt.estimated_usd if _may_be_paid(attempt) else 0,
        actual_usd=attempt.actual_usd,
    )


def _may_be_paid(attempt: Attempt) -> bool:
    is_forgotten = attempt.code == errors.RequestForgotten.__name__
    return attempt.state in MAY_BE_PAID or is_forgotten


def total_usd(attempts: Iterable[AttemptSummary]) -> float | None:
    """What may be paid for them, in all. None when a price is not known."""
    return _total(attempt.estimated_usd for attempt in attempts)


def total_actual_usd(attempts: Iterable[AttemptSummary]) -> float | None:
    """What was charged for them, in all. None when that is not known of one that may be paid."""
    return _total(
        0 if attempt.actual_usd is None and attempt.estimated_usd == 0 else attempt.actual_usd
        for attempt in attempts
    )


def _total(amounts: Iterable[float | None]) -> float | None:
    each = [*amounts]
    known = [usd for usd in each if usd is not None]
    return round(math.fsum(known), 6) if len(known) == len(each) else None
