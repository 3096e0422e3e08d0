"""The attempts of one job: whether a lost one gets a successor, where, and how they are told.

Pure, so that who pays for what can be read and tested as a table. An attempt is one submission,
whatever became of it; a run makes at most `MAX_SUBMISSIONS`. What earlier runs of the job have
submitted is theirs.
"""

from collections.abc import Iterable

from dropreel.model import errors
from dropreel.model.errors import DropreelError
from dropreel.model.events import AttemptSummary
from dropreel.model.ledger import Attempt, AttemptState
from dropreel.model.messages import NextAttempt, Plan
from dropreel.model.provider import Answer, FailureCause, RenderState, Ticket

MAX_SUBMISSIONS = 2
"""Of one run. A second try mends what passes; a third would mostly pay for the same failure."""

OF_AN_ACCOUNT: tuple[type[DropreelError], ...] = (
    errors.TokenMissing,
    errors.TokenRejected,
    errors.NoCredit,
    errors.ProviderThrottled,
    errors.ProviderUnavailable,
)
"""Refusals that are not the job's fault, but the account's or the provider's."""


def is_of_an_account(code: str | None) -> bool:
    return code in {refusal.__name__ for refusal in OF_AN_ACCOUNT}


def after_refusal(plan: Plan, attempt: Attempt, code: str) -> NextAttempt | None:
    """Where a job goes that an offer has definitely refused: on along its route, never back."""
    if not is_of_an_account(code):
        return None
    return _next(plan, attempt.number + 1, attempt.offer + 1)


def after_loss(
    plan: Plan,
    ticket: Ticket,
    answer: Answer,
    attempts: Iterable[Attempt],
) -> NextAttempt | None:
    """Where a job goes whose render was lost. It may have been paid: so once in a run, not more.

    A render that this run only resumed may have the number of an earlier one.
    """
    lost_before = any(
        attempt.state is AttemptState.LOST and plan.first_attempt <= attempt.number < ticket.attempt
        for attempt in attempts
    )
    if lost_before or answer.state is not RenderState.FAILED:
        return None
    match answer.cause:
        case FailureCause.MEDIA_UNREADABLE:
            offer = ticket.offer  # which gets fresh URLs
        case FailureCause.NO_CREDIT:
            offer = ticket.offer + 1  # the same account would say the same
        case FailureCause.OTHER:
            offer = min(ticket.offer + 1, len(plan.route) - 1)
        case FailureCause.MODERATED | FailureCause.BAD_INPUT:
            return None
    return _next(plan, max(ticket.attempt + 1, plan.first_attempt), offer)


def after_timeout(plan: Plan, ticket: Ticket) -> NextAttempt | None:
    """Where a job goes that waited too long in a provider's queue and was cancelled there, which
    costs nothing."""
    attempt = max(ticket.attempt + 1, plan.first_attempt)
    return _next(plan, attempt, ticket.offer + 1)


def loss_of(answer: Answer, ticket: Ticket) -> DropreelError:
    """A failed or cancelled render as the job's error, in the provider's words."""
    words = f" {answer.message}" if answer.message else ""
    if answer.state is RenderState.CANCELLED:
        return errors.RenderCancelled(
            f"{ticket.request_id} was cancelled at {ticket.provider}.{words}"
        )
    match answer.cause:
        case FailureCause.MODERATED:
            return errors.RenderModerated(f"{ticket.provider} stopped {ticket.request_id}.{words}")
        case FailureCause.BAD_INPUT:
            return errors.RenderRejected(
                f"{ticket.provider} cannot use {ticket.request_id}.{words}"
            )
        case FailureCause.NO_CREDIT:
            return errors.NoCredit(f"{ticket.provider} did not render {ticket.request_id}.{words}")
        case _:
            return errors.RenderFailed(
                f"{ticket.provider} failed to render {ticket.request_id}.{words}"
            )


def code_of_loss(loss: DropreelError) -> str:
    """What the attempt is noted with. Its render failed for want of credit: `NoCredit` itself says
    of an attempt that it was refused."""
    return (
        errors.RenderFailed.__name__ if isinstance(loss, errors.NoCredit) else type(loss).__name__
    )


def _next(plan: Plan, attempt: int, offer: int) -> NextAttempt | None:
    if attempt - plan.first_attempt >= MAX_SUBMISSIONS or offer >= len(plan.route):
        return None
    return NextAttempt(attempt=attempt, offer=offer)


NOT_SUBMITTED = (AttemptState.POSTPONED, AttemptState.REFUSED)
"""The provider took nothing: it counts among no day's renders."""

NOT_KEPT = (*NOT_SUBMITTED, AttemptState.LOST)
"""A refused or postponed attempt was not paid, and a lost one gives its estimate back."""

MAY_BE_PAID = tuple(state for state in AttemptState if state not in NOT_KEPT)


def is_kept(attempt: Attempt) -> bool:
    """Whether its cost counts: one that may have been paid for and may still bring a video."""
    return attempt.state not in NOT_KEPT


def summary(
    attempt: Attempt, open_outcome: str = errors.SubmissionUnclear.__name__, open_message: str = ""
) -> AttemptSummary:
    """An attempt as the events tell it. One that was still open ended as the caller says; but of
    one that has no answer nobody knows whether it was accepted, whatever ended the job."""
    outcome, message = attempt.code, attempt.message
    if outcome is None:
        outcome, message = open_outcome, open_message
        if attempt.state is AttemptState.BEGUN and outcome != errors.SubmissionUnclear.__name__:
            outcome = errors.SubmissionUnclear.__name__
            message = "Whether the request was accepted is unknown."
    return AttemptSummary(
        number=attempt.number,
        provider=attempt.provider,
        model=attempt.endpoint,
        request_id=attempt.request_id,
        outcome=outcome,
        message=message,
    )
