"""Poll: ask how far the render is, and say when to ask next.

It may be cut off anywhere and is called again then: every end is written to the ledger before it is
told, and is told the same by the next call.
"""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from dropreel.model.catalog import ProviderName
from dropreel.model.errors import RenderTimedOut, RequestForgotten
from dropreel.model.job import Job
from dropreel.model.ledger import Ledger
from dropreel.model.messages import ActiveRender, NextAttempt, Progress
from dropreel.model.provider import (
    Answer,
    Provider,
    RenderState,
    Ticket,
    UnknownRequest,
    Unreachable,
)
from dropreel.model.timing import next_wait_seconds
from dropreel.render.attempts import after_loss, after_timeout, code_of_loss, loss_of
from dropreel.runtime.log import logger

_FORGOTTEN_AFTER_SECONDS = 300
"""So long a provider must not know a request, whenever it answers, before it counts as forgotten:
it is paid for. Young ones may not be written everywhere yet, and of old ones a 404 may be a mishap.
"""


class Slots(Protocol):
    """Admission, as far as poll needs it."""

    def rendered(self, job: Job, attempt: int) -> None:
        """The provider is done with the attempt: its slot goes to the next waiter. May be
        repeated."""


def poll(
    render: ActiveRender,
    *,
    ledger: Ledger,
    slots: Slots,
    providers: Callable[[ProviderName], Provider],
    clock: Callable[[], datetime],
) -> Progress:
    """One question to the provider. An unanswered one leaves the render as it was.

    A failed render that is worth another attempt is answered with what submit is to do `next`.
    Raises `RenderFailed`, `RenderModerated`, `RenderRejected`, `NoCredit`, `RenderCancelled`,
    `RequestForgotten`, or `RenderTimedOut` once the deadline has passed. That is judged by the
    answer: a render that is ready is never late. The provider's queue has a deadline of its own;
    both were fixed when the work was submitted. A job that is run again to wait for what was
    accepted before has the whole time once more.
    """
    ticket = render.ticket
    provider = providers(ticket.provider)
    before = render.progress or Progress(state=RenderState.QUEUED, wait_seconds=0)
    retry_after_seconds = 0.0
    unknown_since: datetime | None = None
    if render.plan.resume and render.progress is None:
        ledger.resume(render.plan, clock())  # so that conclude knows what this run waits for
    if not ticket.is_recorded:
        _confirm(render, ledger)
    try:
        answer = provider.ask(ticket)
    except Unreachable as silence:
        answer = Answer(state=before.state, message=str(silence))
        retry_after_seconds = silence.retry_after_seconds
        unknown_since = before.unknown_since  # this says nothing of it
    except UnknownRequest:
        unknown_since = before.unknown_since or clock()
        _give_up_if_forgotten(render, ledger, unknown_since, clock())
        answer = Answer(state=before.state, message="The request is not known there at present.")
    now = clock()
    logger.info("Request %s is %s. %s", ticket.request_id, answer.state, answer.message)

    is_rendering = answer.state is RenderState.RENDERING
    rendering_since = before.rendering_since or (now if is_rendering else None)
    left_seconds = _left_seconds(render, rendering_since, now)
    if answer.state is RenderState.CANCELLED and left_seconds <= 0:
        # By an earlier call, which was cut off before it could say so.
        return _overdue(render, answer, rendering_since, ledger, cancelled=True)
    if answer.state in (RenderState.FAILED, RenderState.CANCELLED):
        following = _record_loss(render, answer, ledger)
        return Progress(state=answer.state, wait_seconds=0, next=following)
    if answer.state is RenderState.COMPLETED:
        slots.rendered(render.plan.job, ticket.attempt)
        return Progress(
            state=answer.state,
            wait_seconds=0,
            rendering_since=before.rendering_since,
            completed_at=now,
        )
    if left_seconds <= 0:
        cancelled = _cancel(provider, ticket)
        return _overdue(render, answer, rendering_since, ledger, cancelled=cancelled)
    wait_seconds = next_wait_seconds(
        (now - _begun_at(render)).total_seconds(),
        retry_after_seconds=retry_after_seconds,
    )
    return Progress(
        state=answer.state,
        wait_seconds=min(wait_seconds, math.ceil(left_seconds)),
        rendering_since=rendering_since,
        unknown_since=unknown_since,
    )


def _begun_at(render: ActiveRender) -> datetime:
    """The submission; or, when an earlier run of the job submitted it, this one's start."""
    submitted_at = render.ticket.submitted_at
    return max(submitted_at, render.started_at or submitted_at)


def _left_seconds(render: ActiveRender, rendering_since: datetime | None, now: datetime) -> float:
    """Until the deadline: of the provider's queue, and of the render once it has begun."""
    if rendering_since is None:
        deadline_seconds, since = render.ticket.queue_timeout_seconds, _begun_at(render)
    else:
        deadline_seconds, since = render.ticket.render_timeout_seconds, rendering_since
    return deadline_seconds - (now - since).total_seconds()


def _confirm(render: ActiveRender, ledger: Ledger) -> None:
    """What submit could not note: else a job that is run again would be paid again."""
    try:
        ledger.confirm(render.plan.job.id, render.ticket)
    except Exception:  # the render goes on, and the next question comes
        logger.exception("The ledger could not record request %s", render.ticket.request_id)


def _give_up_if_forgotten(
    render: ActiveRender, ledger: Ledger, unknown_since: datetime, now: datetime
) -> None:
    if (now - unknown_since).total_seconds() < _FORGOTTEN_AFTER_SECONDS:
        return
    ticket = render.ticket
    forgotten = RequestForgotten(
        f"{ticket.provider} does not know request {ticket.request_id}, which it accepted, and has "
        f"not for {_FORGOTTEN_AFTER_SECONDS // 60} minutes."
    )
    # So that the job can be run again: nobody has to wait for this one any more.
    ledger.lose(render.plan.job.id, ticket, forgotten.report.code, forgotten.message)
    raise forgotten from None


def _record_loss(render: ActiveRender, answer: Answer, ledger: Ledger) -> NextAttempt:
    """Write down that the render is lost, then say what to submit next, or raise."""
    plan, ticket = render.plan, render.ticket
    loss = loss_of(answer, ticket)
    ledger.lose(plan.job.id, ticket, code_of_loss(loss), loss.message)
    following = after_loss(plan, ticket, answer, ledger.attempts(plan.job.id))
    if following is None:
        raise loss
    logger.info("Submitting again, to offer %s of the route", following.offer + 1)
    return following


def _overdue(
    render: ActiveRender,
    answer: Answer,
    rendering_since: datetime | None,
    ledger: Ledger,
    *,
    cancelled: bool,
) -> Progress:
    """Raise, or say what to submit next: what was cancelled in the queue has cost nothing.

    What is cancelled is lost: then a job that is run again may submit anew.
    """
    plan, ticket = render.plan, render.ticket
    is_queued = rendering_since is None
    limit_seconds = ticket.queue_timeout_seconds if is_queued else ticket.render_timeout_seconds
    stood = "not ready, and cancelled it" if answer.state is RenderState.CANCELLED else answer.state
    late = RenderTimedOut(
        f"After {limit_seconds / 60:g} minutes {ticket.provider} had request "
        f"{ticket.request_id} still {stood}. {answer.message}".rstrip()
    )
    if not cancelled:
        raise late
    ledger.lose(plan.job.id, ticket, late.report.code, late.message)
    following = after_timeout(plan, ticket) if is_queued else None
    if following is None:
        raise late
    logger.info("Too long in the queue, next is offer %s of the route", following.offer + 1)
    return Progress(state=RenderState.CANCELLED, wait_seconds=0, next=following)


def _cancel(provider: Provider, ticket: Ticket) -> bool:
    """As far as possible: conclude tries again, and no failure here may hide the timeout."""
    try:
        return provider.cancel(ticket)
    except Exception:
        logger.exception("Request %s could not be cancelled", ticket.request_id)
        return False
