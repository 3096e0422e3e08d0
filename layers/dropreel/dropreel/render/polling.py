"""Poll: ask the provider for the render's state, and return when to ask next.

A call may be cut off anywhere and is then repeated. So every end is written to the ledger before it
is returned, and the next call returns the same.
"""

import math
from collections.abc import Callable
from datetime import datetime

from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.closure import AccountState
from dropreel.model.errors import NoCredit, RenderTimedOut, RequestForgotten
from dropreel.model.job import Job
from dropreel.model.ledger import Ledger
from dropreel.model.messages import ActiveRender, NextAttempt, Progress
from dropreel.model.provider import (
    Answer,
    FailureCause,
    Provider,
    RenderState,
    Ticket,
    UnknownRequest,
    Unreachable,
)
from dropreel.model.timing import next_wait_seconds
from dropreel.render.attempts import after_loss, after_timeout, code_of_loss, loss_of
from dropreel.render.closing import Closures, close
from dropreel.render.resumption import is_delivered
from dropreel.runtime.log import logger

_FORGOTTEN_AFTER_SECONDS = 300
"""A request counts as forgotten after this time in which every answer was that the provider does
not know it. It is paid, a new one may not be visible at once, and a single 404 may be a fault."""


def poll(
    render: ActiveRender,
    *,
    ledger: Ledger,
    closures: Closures,
    rendered: Callable[[Job, int], None],
    providers: Callable[[ProviderName], Provider],
    clock: Callable[[], datetime],
) -> Progress:
    """One question to the provider. If it gets no answer, the render's state stays.

    `rendered` frees the slot of a finished attempt; it may be repeated. For a failed render that
    gets another attempt, `next` is that attempt. Raises `RenderFailed`, `RenderModerated`,
    `RenderRejected`, `NoCredit`, `RenderCancelled`, `RequestForgotten`, or `RenderTimedOut` when
    the render is not ready after its deadline. The queue and the render have a deadline each, fixed
    at the submission; a run that resumes a render has both from its start.
    """
    ticket = render.ticket
    provider = providers(ticket.provider)
    before = render.progress or Progress(state=RenderState.QUEUED, wait_seconds=0)
    retry_after_seconds = 0.0
    unknown_since: datetime | None = None
    trouble = ""
    if render.progress is None:
        # Submit may have failed to record it, and a new run of the job would pay again.
        ledger.confirm(render.plan.job.id, ticket)
        if render.plan.resume:
            # Conclude needs to know what this run waits for.
            ledger.resume(render.plan, render.started_at, clock())
    try:
        # The provider's record of a delivered render may be deleted.
        is_done = _is_delivered(render, ledger)
        answer = Answer(state=RenderState.COMPLETED) if is_done else provider.ask(ticket)
    except Unreachable as silence:
        answer, trouble = Answer(state=before.state, message=before.message), str(silence)
        retry_after_seconds = silence.retry_after_seconds
        unknown_since = before.unknown_since  # neither confirmed nor refuted
    except UnknownRequest:
        unknown_since = before.unknown_since or clock()
        _give_up_if_forgotten(render, ledger, unknown_since, clock())
        answer = Answer(state=before.state, message=before.message)
        trouble = "The request is not known there at present."
    now = clock()
    words = " ".join(filter(None, (answer.message, trouble)))
    if trouble:
        logger.info("No answer from the provider: %s", trouble, provider=ticket.provider)

    is_rendering = answer.state is RenderState.RENDERING
    rendering_since = before.rendering_since or (now if is_rendering else None)
    left_seconds = _left_seconds(render, rendering_since, now)
    if answer.state is RenderState.CANCELLED and left_seconds <= 0:
        # An earlier call cancelled it and was cut off.
        return _end_overdue(render, answer.state, words, rendering_since, ledger, cancelled=True)
    if answer.state in (RenderState.FAILED, RenderState.CANCELLED):
        is_closed = answer.cause is FailureCause.NO_CREDIT and _close_if_empty(
            provider, ticket.provider, closures, now
        )
        following = _record_loss(render, answer, ledger, is_closed=is_closed)
        return Progress(state=answer.state, wait_seconds=0, next=following)
    if answer.state is RenderState.COMPLETED:
        rendered(render.plan.job, ticket.attempt)
        return Progress(
            state=answer.state,
            wait_seconds=0,
            rendering_since=before.rendering_since,
            completed_at=now,
        )
    if left_seconds <= 0:
        cancelled = _cancel(provider, ticket)
        return _end_overdue(
            render, answer.state, words, rendering_since, ledger, cancelled=cancelled
        )
    wait_seconds = next_wait_seconds(
        (now - _begun_at(render)).total_seconds(), retry_after_seconds=retry_after_seconds
    )
    return Progress(
        state=answer.state,
        wait_seconds=min(wait_seconds, math.ceil(left_seconds)),
        rendering_since=rendering_since,
        unknown_since=unknown_since,
        message=answer.message,
    )


def _is_delivered(render: ActiveRender, ledger: Ledger) -> bool:
    """Whether an earlier run delivered the video. Only the first poll of a resumed render looks."""
    if render.progress or not render.plan.resume:
        return False
    attempt = ledger.find(render.job.id, render.ticket.attempt)
    return attempt is not None and is_delivered(attempt, render.job, ledger)


def _begun_at(render: ActiveRender) -> datetime:
    """The submission; or this run's start, when an earlier run submitted it."""
    return max(render.ticket.submitted_at, render.started_at)


def _left_seconds(render: ActiveRender, rendering_since: datetime | None, now: datetime) -> float:
    """Until the deadline of the queue; of the render, once that has begun."""
    if rendering_since is None:
        deadline_seconds, since = render.ticket.queue_timeout_seconds, _begun_at(render)
    else:
        deadline_seconds, since = render.ticket.render_timeout_seconds, rendering_since
    return deadline_seconds - (now - since).total_seconds()


def _give_up_if_forgotten(
    render: ActiveRender, ledger: Ledger, unknown_since: datetime, now: datetime
) -> None:
    if (now - unknown_since).total_seconds() < _FORGOTTEN_AFTER_SECONDS:
        return
    ticket = render.ticket
    forgotten = RequestForgotten(
        f"{TITLES[ticket.provider]} accepted request {ticket.request_id}, and has not known it for "
        f"{_FORGOTTEN_AFTER_SECONDS // 60} minutes."
    )
    # So that a new run of the job does not wait for it.
    ledger.lose(render.plan.job.id, ticket, forgotten.report.code, forgotten.message)
    raise forgotten from None


def _close_if_empty(
    provider: Provider, name: ProviderName, closures: Closures, now: datetime
) -> bool:
    """Close the provider if it says that the account has no credit: the words of a render may be
    about the account of somebody behind the provider."""
    account = provider.ask_account()
    if account.state is not AccountState.NO_CREDIT:
        return False
    close(closures, name, NoCredit.__name__, account.message, asked_at=now, now=now)
    return True


def _record_loss(
    render: ActiveRender, answer: Answer, ledger: Ledger, *, is_closed: bool
) -> NextAttempt:
    """Record that the render is lost. Returns the next attempt, or raises the loss."""
    plan, ticket = render.plan, render.ticket
    loss = loss_of(answer, ticket)
    ledger.lose(plan.job.id, ticket, code_of_loss(loss), loss.message)
    attempts = ledger.attempts(plan.job.id)
    following = after_loss(plan, ticket, answer, attempts, is_closed=is_closed)
    if following is None:
        raise loss
    logger.info("Submitting again, to offer %s of the route", following.offer + 1)
    return following


def _end_overdue(
    render: ActiveRender,
    state: RenderState,
    words: str,
    rendering_since: datetime | None,
    ledger: Ledger,
    *,
    cancelled: bool,
) -> Progress:
    """Raise `RenderTimedOut`, or return the next attempt if the request was cancelled in the
    queue, which costs nothing. A cancelled request is recorded as lost, so that a new run of the
    job may submit again."""
    plan, ticket = render.plan, render.ticket
    is_queued = rendering_since is None
    limit_seconds = ticket.queue_timeout_seconds if is_queued else ticket.render_timeout_seconds
    late = RenderTimedOut(
        f"{TITLES[ticket.provider]} had not finished request {ticket.request_id} after "
        f"{limit_seconds / 60:g} minutes (state: {state}). {words}".rstrip()
    )
    if not cancelled:
        raise late
    ledger.lose(plan.job.id, ticket, late.report.code, late.message)
    following = None
    if is_queued:
        following = after_timeout(plan, ticket, ledger.attempts(plan.job.id))
    if following is None:
        raise late
    logger.info("Too long in the queue, next is offer %s of the route", following.offer + 1)
    return Progress(state=RenderState.CANCELLED, wait_seconds=0, next=following)


def _cancel(provider: Provider, ticket: Ticket) -> bool:
    """Conclude tries again, and no failure here may hide the timeout."""
    try:
        return provider.cancel(ticket)
    except Exception:
        logger.exception("Request %s could not be cancelled", ticket.request_id)
        return False
