"""Submit: ask the provider for the render, at most once for each attempt.

Everything that can fail without a call to the provider comes before the attempt is begun in the
ledger. From then on each way out is written down: accepted, or refused. What is killed in
between stays begun, and is never sent again.
"""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from dropreel.catalog import MODELS, Offer
from dropreel.errors import (
    DropreelError,
    InputGone,
    NoCredit,
    ProviderThrottled,
    ProviderUnavailable,
    RequestRefused,
    SubmissionUnclear,
    TokenMissing,
    TokenRejected,
)
from dropreel.job import Input, Role
from dropreel.ledger import Attempt, AttemptState, Ledger
from dropreel.observability import logger
from dropreel.provider import Provider, Refusal, Unclear
from dropreel.render import Plan, Submission, SubmitRequest, Ticket
from dropreel.settings import SubmitSettings
from dropreel.timing import next_wait_seconds, retry_wait_seconds

MAX_TRIES = 8
"""Calls to a provider that takes nothing for now, some minutes in all."""

CALL_LIFE_SECONDS = 90
"""After this a call that began an attempt is dead: more than the submit function's timeout."""

# Long enough for a provider that queues the request and fetches its inputs when it begins. The
# URLs die earlier with the credentials that sign them, which Lambda renews only every few hours.
_URL_VALID_SECONDS = 6 * 3600

_REFUSALS: Mapping[str, type[DropreelError]] = {
    refusal.__name__: refusal
    for refusal in (
        TokenMissing,
        TokenRejected,
        NoCredit,
        RequestRefused,
        ProviderThrottled,
        ProviderUnavailable,
    )
}


class Uploads(Protocol):
    """The upload bucket, as far as submit needs it."""

    def exists(self, bucket: str, pinned: Input) -> bool: ...

    def presigned_url(self, bucket: str, pinned: Input, valid_seconds: int) -> str: ...


def submit(
    request: SubmitRequest,
    *,
    ledger: Ledger,
    provider: Provider,
    uploads: Uploads,
    clock: Callable[[], datetime],
    settings: SubmitSettings,
) -> Submission:
    """Send the attempt, or answer from the ledger when it was sent before.

    A submission without a ticket asks to be called again after its wait.
    Raises `SubmissionUnclear`, `InputGone`, or what the provider's refusal stands for.
    """
    plan = request.plan
    sent = ledger.find(plan.job.id, request.attempt)
    if sent and sent.state is not AttemptState.REFUSED:
        return _from_ledger(sent, request, clock(), settings)

    payload = _payload(plan, uploads)
    attempt = ledger.begin(plan.job.id, request.attempt, plan.provider, clock())
    if attempt is None:  # another call was quicker, just now
        return _ask_again(request, settings.poll_min_seconds)
    try:
        request_id = provider.submit(plan.endpoint, payload)
    except Refusal as refusal:
        ledger.refuse(attempt, refusal.code)
        return _again_or_raise(refusal, request)
    except Unclear as unclear:
        raise SubmissionUnclear(
            f"The request was sent to {plan.provider}, and whether it was accepted is unknown: "
            f"{unclear}"
        ) from None
    accepted_at = clock()
    _accept(ledger, attempt, request_id, accepted_at)
    return _accepted(attempt, request_id, accepted_at, request, settings)


def _payload(plan: Plan, uploads: Uploads) -> dict[str, str]:
    """The request's body. Its URLs grant access: it goes to the provider and nowhere else."""
    offer, job = _offer(plan), plan.job
    fields = {offer.image_field: job.only(Role.IMAGE), offer.audio_field: job.only(Role.AUDIO)}
    gone = [given.key for given in fields.values() if not uploads.exists(job.bucket, given)]
    if gone:
        raise InputGone(f"Deleted before it could be sent to {plan.provider}: {', '.join(gone)}.")
    return {
        field: uploads.presigned_url(job.bucket, given, _URL_VALID_SECONDS)
        for field, given in fields.items()
    }


def _offer(plan: Plan) -> Offer:
    return next(
        offer
        for offer in MODELS[plan.job.model].route
        if offer.provider is plan.provider and offer.endpoint == plan.endpoint
    )


def _from_ledger(
    sent: Attempt, request: SubmitRequest, now: datetime, settings: SubmitSettings
) -> Submission:
    """The answer for an attempt that an earlier call has sent, or is sending right now."""
    if sent.request_id and sent.accepted_at:
        return _accepted(sent, sent.request_id, sent.accepted_at, request, settings)
    left_seconds = CALL_LIFE_SECONDS - (now - sent.begun_at).total_seconds()
    if left_seconds > 0:
        # Step Functions calls again when it loses the first call, which may still be at work: its
        # ticket is worth the wait.
        return _ask_again(request, left_seconds)
    raise SubmissionUnclear(
        f"The request to {sent.provider} was begun at {sent.begun_at:%Y-%m-%d %H:%M:%S} UTC and "
        "never finished: whether it was accepted is unknown."
    )


def _accept(ledger: Ledger, attempt: Attempt, request_id: str, now: datetime) -> None:
    """Write the request id down before anything else.

    When even that fails, the render is still accepted and paid for: the ticket carries the
    request id on, and the attempt stays begun, so that no later call sends it again.
    """
    try:
        ledger.accept(attempt, request_id, now)
    except Exception:
        logger.exception("The ledger could not record request %s", request_id)
    else:
        logger.info("%s accepted request %s", attempt.provider, request_id)


def _accepted(
    attempt: Attempt,
    request_id: str,
    accepted_at: datetime,
    request: SubmitRequest,
    settings: SubmitSettings,
) -> Submission:
    return Submission(
        ticket=Ticket(
            provider=attempt.provider,
            request_id=request_id,
            attempt=attempt.number,
            submitted_at=accepted_at,
        ),
        wait_seconds=next_wait_seconds(
            0, min_seconds=settings.poll_min_seconds, max_seconds=settings.poll_max_seconds
        ),
        tries=request.tries + 1,
    )


def _again_or_raise(refusal: Refusal, request: SubmitRequest) -> Submission:
    tries = request.tries + 1
    if refusal.again and tries < MAX_TRIES:
        wait_seconds = retry_wait_seconds(tries, retry_after_seconds=refusal.retry_after_seconds)
        logger.info("Refused with %s, next try in %s s", refusal.code, wait_seconds)
        return Submission(wait_seconds=wait_seconds, tries=tries)
    kind = _REFUSALS.get(refusal.code, RequestRefused)
    raise kind(refusal.message) from None


def _ask_again(request: SubmitRequest, seconds: float) -> Submission:
    """No call was made, but one is under way elsewhere: `tries` counts at least that one."""
    return Submission(wait_seconds=math.ceil(seconds), tries=max(1, request.tries))
