"""Poll: ask how far the render is, and say when to ask next."""

import math
from collections.abc import Callable
from datetime import datetime

from dropreel.attempts import after_loss
from dropreel.catalog import ProviderName
from dropreel.errors import (
    DropreelError,
    RenderCancelled,
    RenderFailed,
    RenderModerated,
    RenderRejected,
    RenderTimedOut,
    RequestForgotten,
)
from dropreel.ledger import Ledger
from dropreel.observability import logger
from dropreel.provider import (
    Answer,
    FailureCause,
    Provider,
    RenderState,
    UnknownRequest,
    Unreachable,
)
from dropreel.render import Next, Progress, Ticket, Underway
from dropreel.settings import PollSettings
from dropreel.timing import next_wait_seconds

_SETTLING_SECONDS = 60
"""Younger requests may be unknown because the provider has not written them everywhere yet."""


def poll(
    underway: Underway,
    *,
    ledger: Ledger,
    providers: Callable[[ProviderName], Provider],
    clock: Callable[[], datetime],
    settings: PollSettings,
) -> Progress:
    """One question to the provider. An unanswered one leaves the render as it was.

    A failed render that is worth another attempt is answered with what submit is to do `next`.
    Raises `RenderFailed`, `RenderModerated`, `RenderRejected`, `RenderCancelled`,
    `RequestForgotten`, or `RenderTimedOut` once the deadline has passed. That is judged by the
    answer: a render that is ready is never late.
    """
    ticket = underway.ticket
    provider = providers(ticket.provider)
    before = underway.progress or Progress(state=RenderState.QUEUED, wait_seconds=0)
    retry_after_seconds = 0.0
    try:
        answer = provider.ask(ticket.request_id)
    except Unreachable as silence:
        answer = Answer(state=before.state, message=str(silence))
        retry_after_seconds = silence.retry_after_seconds
    except UnknownRequest:
        _allow_settling(ticket, clock())
        answer = Answer(state=before.state, message="The request is not known there yet.")
    now = clock()
    logger.info("Request %s is %s. %s", ticket.request_id, answer.state, answer.message)

    if answer.state in (RenderState.FAILED, RenderState.CANCELLED):
        following = _after_loss(underway, answer, ledger, settings)
        return Progress(state=answer.state, wait_seconds=0, next=following)
    if answer.state is RenderState.COMPLETED:
        return Progress(
            state=answer.state,
            wait_seconds=0,
            rendering_since=before.rendering_since,
            completed_at=now,
        )
    since_seconds = (now - ticket.submitted_at).total_seconds()
    left_seconds = settings.render_timeout_minutes * 60 - since_seconds
    if left_seconds <= 0:
        _cancel(provider, ticket)
        raise RenderTimedOut(
            f"After {settings.render_timeout_minutes:g} minutes {ticket.provider} had request "
            f"{ticket.request_id} still {answer.state}. {answer.message}".rstrip()
        )
    wait_seconds = next_wait_seconds(
        since_seconds,
        min_seconds=settings.poll_min_seconds,
        max_seconds=settings.poll_max_seconds,
        retry_after_seconds=retry_after_seconds,
    )
    rendering = answer.state is RenderState.RENDERING
    return Progress(
        state=answer.state,
        wait_seconds=min(wait_seconds, math.ceil(left_seconds)),
        rendering_since=before.rendering_since or (now if rendering else None),
    )


def _allow_settling(ticket: Ticket, now: datetime) -> None:
    if (now - ticket.submitted_at).total_seconds() >= _SETTLING_SECONDS:
        raise RequestForgotten(
            f"{ticket.provider} does not know request {ticket.request_id}, which it accepted."
        ) from None


def _after_loss(underway: Underway, answer: Answer, ledger: Ledger, settings: PollSettings) -> Next:
    """Write down that the render is lost, then say what to submit next, or raise."""
    plan, ticket = underway.plan, underway.ticket
    loss = _loss(answer, ticket)
    ledger.lose(plan.job.id, ticket, loss.report.code, loss.message)
    following = after_loss(
        plan, ticket, answer, ledger.attempts(plan.job.id), settings.max_submissions
    )
    if following is None:
        raise loss
    logger.info("Submitting again, to offer %s of the route", following.offer + 1)
    return following


def _loss(answer: Answer, ticket: Ticket) -> DropreelError:
    """The loss in the provider's words."""
    words = f" {answer.message}" if answer.message else ""
    if answer.state is RenderState.CANCELLED:
        return RenderCancelled(f"{ticket.request_id} was cancelled at {ticket.provider}.{words}")
    if answer.cause is FailureCause.MODERATED:
        return RenderModerated(f"{ticket.provider} stopped {ticket.request_id}.{words}")
    if answer.cause is FailureCause.BAD_INPUT:
        return RenderRejected(f"{ticket.provider} cannot use {ticket.request_id}.{words}")
    return RenderFailed(f"{ticket.provider} failed to render {ticket.request_id}.{words}")


def _cancel(provider: Provider, ticket: Ticket) -> None:
    """As far as possible: conclude tries again, and no failure here may hide the timeout."""
    try:
        provider.cancel(ticket.request_id)
    except Exception:
        logger.exception("Request %s could not be cancelled", ticket.request_id)
