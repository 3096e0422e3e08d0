"""Submit: ask the provider for the render, at most once for each attempt.

Everything that can fail without a call to the provider comes before the attempt is begun in the
ledger. From then on each way out is written down: accepted, postponed, or refused, after which
the job may go on to the next offer of its route. What is killed in between stays begun, and is
never sent again.
"""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from dropreel.attempts import after_refusal
from dropreel.catalog import OptionValue, ProviderName, offer_of
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
    UnexpectedError,
)
from dropreel.job import Input
from dropreel.ledger import Attempt, AttemptState, Ledger
from dropreel.observability import logger
from dropreel.provider import Provider, Refusal, Unclear
from dropreel.render import Next, Plan, PlannedOffer, Submission, SubmitRequest, Ticket
from dropreel.settings import SubmitSettings
from dropreel.timing import next_wait_seconds, retry_wait_seconds

MAX_TRIES = 8
"""Calls to a provider that takes nothing for now, some minutes in all."""

CALL_LIFE_SECONDS = 90
"""After this a call that began an attempt is dead: more than the submit function's timeout."""

CALL_NEEDS_SECONDS = 60
"""With less time left no attempt is begun: a call that is cut off is an unclear submission."""

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
    providers: Callable[[ProviderName], Provider],
    uploads: Uploads,
    clock: Callable[[], datetime],
    seconds_left: Callable[[], float],
    settings: SubmitSettings,
) -> Submission:
    """Send the attempt, or answer from the ledger when it was sent before.

    A submission without a ticket asks to be called again after its wait, with its `next`: the
    same attempt while the provider takes nothing for now or the function has too little time
    left, another one on the next offer when it definitely refused. Raises `SubmissionUnclear`,
    `InputGone`, or what the last refusal stands for.
    """
    plan, turn = request.plan, request.next
    sent = ledger.find(plan.job.id, turn.attempt)
    if sent and sent.state is not AttemptState.POSTPONED:
        return _from_ledger(sent, request, clock(), settings)

    offer = plan.route[turn.offer]
    provider = providers(offer.provider)
    payload = _payload(plan, offer, uploads)
    if seconds_left() < CALL_NEEDS_SECONDS:
        return _out_of_time(turn)
    attempt = ledger.begin(plan.job.id, turn, offer, clock())
    if attempt is None:  # another call was quicker, just now
        return _ask_again(turn, settings.poll_min_seconds)
    try:
        request_id = provider.submit(offer.endpoint, payload)
    except Refusal as refusal:
        return _refused(refusal, attempt, request, ledger, settings)
    except Unclear as unclear:
        raise SubmissionUnclear(
            f"The request was sent to {offer.provider}, and whether it was accepted is unknown: "
            f"{unclear}"
        ) from None
    accepted_at = clock()
    _accept(ledger, attempt, request_id, accepted_at)
    return _accepted(attempt, request_id, accepted_at, turn, settings)


def _payload(plan: Plan, offer: PlannedOffer, uploads: Uploads) -> dict[str, OptionValue]:
    """The request's body. Its URLs grant access: it goes to the provider and nowhere else."""
    names = offer_of(offer.provider, offer.endpoint)
    media = {names.image_field: plan.image}
    if plan.audio and names.audio_field:
        media[names.audio_field] = plan.audio
    bucket = plan.job.bucket
    gone = [given.key for given in media.values() if not uploads.exists(bucket, given)]
    if gone:
        raise InputGone(f"Deleted before it could be sent to {offer.provider}: {', '.join(gone)}.")
    return offer.fields | {
        field: uploads.presigned_url(bucket, given, _URL_VALID_SECONDS)
        for field, given in media.items()
    }


def _from_ledger(
    sent: Attempt, request: SubmitRequest, now: datetime, settings: SubmitSettings
) -> Submission:
    """The answer for an attempt that an earlier call has sent, or is sending right now."""
    if sent.request_id and sent.accepted_at:
        return _accepted(sent, sent.request_id, sent.accepted_at, request.next, settings)
    if sent.state is AttemptState.REFUSED:
        return _fall_over(sent, sent.code or "", sent.message, request.plan, settings)
    left_seconds = CALL_LIFE_SECONDS - (now - sent.begun_at).total_seconds()
    if left_seconds > 0:
        # Step Functions calls again when it loses the first call, which may still be at work: its
        # ticket is worth the wait.
        return _ask_again(request.next, left_seconds)
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
    attempt: Attempt, request_id: str, accepted_at: datetime, turn: Next, settings: SubmitSettings
) -> Submission:
    return Submission(
        ticket=Ticket(
            provider=attempt.provider,
            endpoint=attempt.endpoint,
            request_id=request_id,
            attempt=attempt.number,
            offer=attempt.offer,
            submitted_at=accepted_at,
        ),
        wait_seconds=next_wait_seconds(
            0, min_seconds=settings.poll_min_seconds, max_seconds=settings.poll_max_seconds
        ),
        next=_with_tries(turn, turn.tries + 1),
    )


def _refused(
    refusal: Refusal,
    attempt: Attempt,
    request: SubmitRequest,
    ledger: Ledger,
    settings: SubmitSettings,
) -> Submission:
    """Try again while that may help; else go on to the next offer, or end the job."""
    tries = request.next.tries + 1
    if not refusal.again or tries >= MAX_TRIES:
        ledger.refuse(attempt, refusal.code, refusal.message)
        return _fall_over(attempt, refusal.code, refusal.message, request.plan, settings)
    ledger.postpone(attempt, refusal.code, refusal.message)
    wait_seconds = retry_wait_seconds(tries, retry_after_seconds=refusal.retry_after_seconds)
    logger.info("Refused with %s, next try in %s s", refusal.code, wait_seconds)
    return Submission(wait_seconds=wait_seconds, next=_with_tries(request.next, tries))


def _fall_over(
    attempt: Attempt, code: str, message: str, plan: Plan, settings: SubmitSettings
) -> Submission:
    following = after_refusal(plan, attempt, code, settings.max_submissions)
    if following is None:
        raise _REFUSALS.get(code, RequestRefused)(message) from None
    logger.info("Refused with %s, next is offer %s of the route", code, following.offer + 1)
    return Submission(wait_seconds=0, next=following)


def _ask_again(turn: Next, seconds: float) -> Submission:
    """No call was made, but one is under way elsewhere: `tries` counts at least that one."""
    return Submission(wait_seconds=math.ceil(seconds), next=_with_tries(turn, max(1, turn.tries)))


def _out_of_time(turn: Next) -> Submission:
    """The uploads' bucket answered slowly. Nothing was begun: a fresh call has all its time."""
    tries = turn.tries + 1
    if tries >= MAX_TRIES:
        raise UnexpectedError("The uploads could not be looked at in time, however often.")
    return Submission(wait_seconds=retry_wait_seconds(tries), next=_with_tries(turn, tries))


def _with_tries(turn: Next, tries: int) -> Next:
    return turn.model_copy(update={"tries": tries})
