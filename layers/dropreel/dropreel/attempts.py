"""The attempts of one job: whether a lost one gets a successor, where, and how they are told.

Pure, so that who pays for what can be read and tested as a table. An attempt is one submission,
whatever became of it; `max_submissions` bounds them all.
"""

from collections.abc import Iterable

from dropreel.errors import (
    NoCredit,
    ProviderThrottled,
    ProviderUnavailable,
    SubmissionUnclear,
    TokenMissing,
    TokenRejected,
)
from dropreel.events import AttemptSummary
from dropreel.ledger import Attempt, AttemptState
from dropreel.provider import Answer, FailureCause, RenderState
from dropreel.render import Next, Plan, Ticket

_NOT_THE_JOBS_FAULT = {
    refusal.__name__
    for refusal in (
        TokenMissing,
        TokenRejected,
        NoCredit,
        ProviderThrottled,
        ProviderUnavailable,
    )
}


def after_refusal(plan: Plan, attempt: Attempt, code: str, max_submissions: int) -> Next | None:
    """Where a job goes that an offer has definitely refused: on along its route, never back."""
    if code not in _NOT_THE_JOBS_FAULT:
        return None
    return _next(plan, attempt.number + 1, attempt.offer + 1, max_submissions)


def after_loss(
    plan: Plan,
    ticket: Ticket,
    answer: Answer,
    attempts: Iterable[Attempt],
    max_submissions: int,
) -> Next | None:
    """Where a job goes whose render was lost. It may have been paid: so once in a job, not more."""
    lost_before = any(
        attempt.state is AttemptState.LOST and attempt.number < ticket.attempt
        for attempt in attempts
    )
    if lost_before or answer.state is not RenderState.FAILED:
        return None
    match answer.cause:
        case FailureCause.MEDIA_UNREADABLE:
            offer = ticket.offer  # which gets fresh URLs
        case FailureCause.OTHER:
            offer = min(ticket.offer + 1, len(plan.route) - 1)
        case FailureCause.MODERATED | FailureCause.BAD_INPUT:
            return None
    return _next(plan, ticket.attempt + 1, offer, max_submissions)


def _next(plan: Plan, attempt: int, offer: int, max_submissions: int) -> Next | None:
    if attempt > max_submissions or offer >= len(plan.route):
        return None
    return Next(attempt=attempt, offer=offer)


def summary(
    attempt: Attempt, open_outcome: str = SubmissionUnclear.__name__, open_message: str = ""
) -> AttemptSummary:
    """An attempt as the events tell it. One that was still open ended as the caller says."""
    is_open = attempt.code is None
    return AttemptSummary(
        number=attempt.number,
        provider=attempt.provider,
        model=attempt.endpoint,
        request_id=attempt.request_id,
        outcome=attempt.code or open_outcome,
        message=open_message if is_open else attempt.message,
    )
