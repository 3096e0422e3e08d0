"""Submit: ask the provider for the render, at most once for each attempt.

Everything that can fail without a call to the provider comes before the attempt is begun in the
ledger, and so does the wait for the rate limit. From then on each outcome is recorded: accepted,
postponed, or refused. An attempt whose call gets no usable answer, or is killed in between, stays
begun, and is never sent again: it is looked up (`lookup`).
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO, Protocol

from dropreel.model import errors
from dropreel.model.catalog import TITLES, OptionValue, ProviderName, offer_of
from dropreel.model.job import Input, Job, Role
from dropreel.model.ledger import Attempt, AttemptState, Ledger, RunClosed
from dropreel.model.messages import NextAttempt, Plan, PlannedOffer, Submission, SubmitRequest
from dropreel.model.provider import Provider, Refusal, Ticket, Unclear
from dropreel.model.timing import (
    MIN_POLL_SECONDS,
    next_wait_seconds,
    retry_wait_seconds,
    throttled_wait_seconds,
)
from dropreel.model.uploads import Unreadable
from dropreel.render.attempts import ACCOUNT_REFUSALS, after_refusal
from dropreel.render.closing import Closures, close
from dropreel.render.lookup import LOOK_WAIT_SECONDS, adopt
from dropreel.runtime.log import logger
from dropreel.runtime.settings import SubmitSettings

MAX_TRIES = 8
"""Calls to a provider that takes nothing for now, over some minutes. For one that throttles, the
throttle patience counts instead."""

CALL_LIFE_SECONDS = 270
"""After this a call that began an attempt has ended: more than the submit function's timeout."""

CALL_NEEDS_SECONDS = 210
"""With less time left no attempt is begun, because a call that is cut off is an unclear submission.
It may read a token, wait a minute for an answer, do both again after a rotation of the token, and
record the outcome, each of them slowly."""

MAX_URL_SECONDS = 6 * 3600
"""The URLs may end earlier, with the credentials that sign them, which Lambda renews only every few
hours."""

_REFUSALS: Mapping[str, type[errors.DropreelError]] = {
    refusal.__name__: refusal
    for refusal in (*ACCOUNT_REFUSALS, errors.RenderModerated, errors.RequestRefused)
}


class PresignedUploads(Protocol):
    def exists(self, bucket: str, pinned: Input) -> bool: ...

    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        """The pinned version. Reading it raises `InputGone` and `Unreadable`."""

    def presigned_url(self, bucket: str, pinned: Input, valid_seconds: int) -> str: ...


def submit(
    request: SubmitRequest,
    *,
    ledger: Ledger,
    closures: Closures,
    providers: Callable[[ProviderName], Provider],
    uploads: PresignedUploads,
    clock: Callable[[], datetime],
    seconds_left: Callable[[], float],
    settings: SubmitSettings,
    recorded: Callable[[Attempt, Ticket], None],
    jitter: Callable[[], float] = random.random,
) -> Submission:
    """Send the attempt, or answer from the ledger when it was sent before.

    Without a ticket, the state machine calls again after the wait with `next`: the same attempt
    while the provider takes nothing for now, the rate limit is reached, the function has too little
    time left, or an unclear submission is looked up; with `falls_over`, a new attempt after a
    definite refusal: on the next offer, or where admission lets it, after one that closes the
    provider. The call that records a ticket in the ledger calls `recorded` last of all, which must
    not raise.
    Raises `SubmissionUnclear`, `InputGone`, `CopyUnreadable`, or the error of the last refusal.
    """
    plan, next_attempt = request.plan, request.next
    step = _Step(ledger, closures, providers, uploads, clock, jitter, settings, recorded)
    sent = ledger.find(plan.job.id, next_attempt.attempt)
    if sent and sent.state is not AttemptState.POSTPONED:
        return step.answer_for(sent, plan, next_attempt)

    # Admission may have moved the job to another offer. `next` keeps the first that it may ask.
    admitted = ledger.admitted(plan.job, next_attempt.attempt)
    asked = next_attempt
    if admitted:
        asked = next_attempt.model_copy(update={"offer": admitted.offer})
    offer = plan.route[asked.offer]
    provider = providers(offer.provider)
    render_timeout_seconds = _render_timeout_seconds(plan, offer, settings)
    payload = _payload(plan, offer, uploads, settings, render_timeout_seconds)
    if seconds_left() < CALL_NEEDS_SECONDS:
        return step.out_of_time(next_attempt)
    if wait := step.take_turn(next_attempt, offer.provider):
        return wait
    try:
        attempt = ledger.begin(
            plan.job.id,
            asked,
            offer,
            clock(),
            run=plan.job.run,
            queue_timeout_seconds=settings.queue_timeout_minutes * 60,
            render_timeout_seconds=render_timeout_seconds,
            estimated_usd=admitted.estimated_usd if admitted else None,
        )
    except RunClosed:
        raise errors.ExecutionAborted("The run was concluded before it was submitted.") from None
    if attempt is None:  # another call has just begun it
        return _ask_again(next_attempt, MIN_POLL_SECONDS)
    return step.send(attempt, plan, next_attempt, payload, provider)


def _render_timeout_seconds(plan: Plan, offer: PlannedOffer, settings: SubmitSettings) -> float:
    voice_seconds = plan.audio_facts.duration_seconds if plan.audio_facts else 0
    known = offer_of(offer.provider, offer.endpoint)
    return known.render_timeout_seconds(settings.render_timeout_minutes * 60, voice_seconds)


def _url_valid_seconds(settings: SubmitSettings, render_timeout_seconds: float) -> int:
    """A provider may fetch the inputs late: when the render leaves its queue, or during it."""
    needed_seconds = 60 * settings.queue_timeout_minutes + render_timeout_seconds
    return min(math.ceil(needed_seconds), MAX_URL_SECONDS)


def _payload(
    plan: Plan,
    offer: PlannedOffer,
    uploads: PresignedUploads,
    settings: SubmitSettings,
    render_timeout_seconds: float,
) -> dict[str, OptionValue]:
    """The request's body. Its URLs grant access, so it goes to the provider and nowhere else."""
    media = _media(plan, offer.provider, offer.endpoint)
    # To delete an upload is to withdraw the job, so not only the copies in `media` must exist.
    needed = [
        *((plan.job.bucket, it) for it in plan.job.inputs if it.role is not Role.DEFAULTS),
        *((settings.work_bucket, copy) for copy in media.values()),
    ]
    gone = [given.key for bucket, given in needed if not uploads.exists(bucket, given)]
    if gone:
        raise errors.InputGone(
            f"Deleted before it could be sent to {TITLES[offer.provider]}: {', '.join(gone)}."
        )
    for given in media.values():
        try:  # a HEAD also finds what S3 refuses to read
            with uploads.open(settings.work_bucket, given) as copy:
                copy.read(1)
        except Unreadable as unreadable:
            raise errors.CopyUnreadable(
                f"{TITLES[offer.provider]} could not fetch the copy of "
                f"{plan.job.only(given.role).key}, so nothing was sent. It is "
                f"{unreadable.reason.file}: {unreadable.reason.found}."
            ) from None
    valid_seconds = _url_valid_seconds(settings, render_timeout_seconds)
    return offer.fields | {
        field: uploads.presigned_url(settings.work_bucket, given, valid_seconds)
        for field, given in media.items()
    }


def _media(plan: Plan, provider: ProviderName, endpoint: str) -> dict[str, Input]:
    """The copies that are sent, by the field of the request that names each."""
    names = offer_of(provider, endpoint)
    media = {names.image_field: plan.image}
    if plan.audio and names.audio_field:
        media[names.audio_field] = plan.audio
    return media


@dataclass(frozen=True)
class _Step:
    """One call of submit."""

    ledger: Ledger
    closures: Closures
    providers: Callable[[ProviderName], Provider]
    uploads: PresignedUploads
    clock: Callable[[], datetime]
    jitter: Callable[[], float]
    settings: SubmitSettings
    recorded: Callable[[Attempt, Ticket], None]

    def take_turn(self, next_attempt: NextAttempt, provider: ProviderName) -> Submission | None:
        """Take a turn of the rate limit. None when the provider may be called now."""
        per_minute = self.settings.providers[provider].max_submits_per_minute
        if next_attempt.is_paced or per_minute <= 0:
            return None
        now = self.clock()
        left_seconds = (self.ledger.take_turn(provider, per_minute, now) - now).total_seconds()
        if left_seconds <= 0:
            return None
        paced = next_attempt.model_copy(update={"is_paced": True})
        return Submission(wait_seconds=math.ceil(left_seconds), next=paced)

    def answer_for(self, sent: Attempt, plan: Plan, next_attempt: NextAttempt) -> Submission:
        """The answer for an attempt that an earlier call has sent, or is sending now."""
        if sent.request_id and sent.accepted_at:
            return _accepted(sent.ticket_for(sent.request_id, sent.accepted_at), next_attempt)
        if sent.state is AttemptState.REFUSED:
            return self._fall_over(sent, plan, next_attempt)
        left_seconds = CALL_LIFE_SECONDS - (self.clock() - sent.begun_at).total_seconds()
        if next_attempt.unclear is None and left_seconds > 0:
            # Step Functions calls again when it loses the first call, which may still be running
            # and get a ticket.
            return _ask_again(next_attempt, left_seconds)
        unclear = next_attempt.unclear or (
            f"The request to {TITLES[sent.provider]} was begun at "
            f"{sent.begun_at:%Y-%m-%d %H:%M:%S} UTC and never finished: whether it was accepted is "
            "unknown."
        )
        return self._look_up(sent, plan, next_attempt, unclear)

    def _look_up(
        self, sent: Attempt, plan: Plan, next_attempt: NextAttempt, unclear: str
    ) -> Submission:
        """Look for an attempt that no call is sending any more, and go on with what is found."""
        provider = self.providers(sent.provider)
        if not provider.lists_requests:
            raise errors.SubmissionUnclear(unclear)
        urls = [
            self.uploads.presigned_url(self.settings.work_bucket, given, 1)
            for given in _media(plan, sent.provider, sent.endpoint).values()
        ]
        sent_by = sent.begun_at + timedelta(seconds=CALL_LIFE_SECONDS)
        missed = adopt(sent, sent_by, provider, urls, self.ledger)
        looks = next_attempt.looks + 1
        if missed is not None and looks >= len(LOOK_WAIT_SECONDS):
            raise errors.SubmissionUnclear(
                f"{unclear} {TITLES[sent.provider]}'s list of requests was read {looks} times. The "
                f"last time, it {missed}."
            )
        if missed is not None:
            logger.info("The list of requests %s", missed)
            return _look_later(next_attempt, unclear, looks)
        found = self.ledger.find(sent.job_id, sent.number)
        if not (found and found.request_id and found.accepted_at):
            raise RuntimeError("The ledger has another outcome for a request that was found.")
        logger.info("Found request %s of %s", found.request_id, found.provider)
        ticket = found.ticket_for(found.request_id, found.accepted_at)
        self._cancel_if_stopped(ticket, plan.job, provider)
        self.recorded(found, ticket)
        return _accepted(ticket, next_attempt)

    def send(
        self,
        attempt: Attempt,
        plan: Plan,
        next_attempt: NextAttempt,
        payload: Mapping[str, OptionValue],
        provider: Provider,
    ) -> Submission:
        """Make the one call to the provider, and record its outcome."""
        try:
            request_id = provider.submit(attempt.endpoint, payload)
        except Refusal as refusal:
            return self._refused(refusal, attempt, plan, next_attempt)
        except Unclear as unclear:
            words = (
                f"The request was sent to {TITLES[attempt.provider]}, and whether it was accepted "
                f"is unknown: {unclear}"
            )
            if not provider.lists_requests:
                raise errors.SubmissionUnclear(words) from None
            return _look_later(next_attempt, words, looks=0)
        accepted_at = self.clock()
        is_recorded = self._record(attempt, request_id, accepted_at)
        ticket = attempt.ticket_for(request_id, accepted_at)
        self._cancel_if_stopped(ticket, plan.job, provider)
        if is_recorded:
            self.recorded(attempt, ticket)
        return _accepted(ticket, next_attempt)

    def _record(self, attempt: Attempt, request_id: str, now: datetime) -> bool:
        """Record the request id, before anything else. When that fails, the render is paid all the
        same: the ticket carries the id, and poll's first call records it. Until then the attempt
        stays begun, and is not sent again."""
        try:
            self.ledger.accept(attempt, request_id, now)
        except Exception:
            logger.exception("The ledger could not record request %s", request_id)
            return False
        return True

    def _cancel_if_stopped(self, ticket: Ticket, job: Job, provider: Provider) -> None:
        """The run may have been stopped and concluded during the call to the provider. No failure
        here may lose the ticket."""
        try:
            if self.ledger.is_closed(job) and provider.cancel(ticket):
                code = errors.ExecutionAborted.__name__
                self.ledger.lose(job.id, ticket, code, "Stopped while submitting.")
        except Exception:
            logger.exception("Request %s could not be cancelled", ticket.request_id)

    def _refused(
        self, refusal: Refusal, attempt: Attempt, plan: Plan, next_attempt: NextAttempt
    ) -> Submission:
        """Try again while that may help; else take the next offer, or end the job."""
        next_attempt = _later(next_attempt, next_attempt.tries + 1)
        is_throttled = refusal.code == errors.ProviderThrottled.__name__
        if is_throttled and next_attempt.throttled_since is None:
            next_attempt = next_attempt.model_copy(update={"throttled_since": self.clock()})
        wait_seconds = None
        if refusal.again:
            wait_seconds = self._retry_wait_seconds(next_attempt, refusal.retry_after_seconds)
        if wait_seconds is None:
            refused = self.ledger.refuse(
                attempt,
                refusal.code,
                refusal.message,
                closes_provider=refusal.closes_provider,
            )
            return self._fall_over(refused, plan, next_attempt)
        self.ledger.postpone(attempt, refusal.code, refusal.message)
        logger.info("Refused for now", code=refusal.code, provider=attempt.provider)
        return Submission(wait_seconds=wait_seconds, next=next_attempt)

    def _fall_over(self, refused: Attempt, plan: Plan, next_attempt: NextAttempt) -> Submission:
        """After a refusal that the ledger has: the next attempt. Raises the refusal after the last.

        A refusal of the account closes the provider before anything else is submitted.
        """
        code = refused.code or ""
        if refused.closes_provider:
            close(
                self.closures,
                refused.provider,
                code,
                refused.message,
                asked_at=refused.begun_at,
                now=self.clock(),
            )
        attempts = self.ledger.attempts(refused.job_id)
        following = after_refusal(plan, refused, next_attempt.offer, attempts)
        if following is None:
            raise _REFUSALS.get(code, errors.RequestRefused)(refused.message) from None
        logger.info("Refused", code=code, provider=refused.provider)
        return Submission(wait_seconds=0, next=following, falls_over=True)

    def out_of_time(self, next_attempt: NextAttempt) -> Submission:
        """The upload bucket answered slowly. Nothing was begun: a new call has all its time."""
        next_attempt = _later(next_attempt, next_attempt.tries + 1)
        wait_seconds = self._retry_wait_seconds(next_attempt)
        if wait_seconds is None:
            raise errors.UnexpectedError(
                f"The uploads could not be checked in time in {next_attempt.tries} tries."
            )
        return Submission(wait_seconds=wait_seconds, next=next_attempt)

    def _retry_wait_seconds(
        self, next_attempt: NextAttempt, retry_after_seconds: float = 0
    ) -> int | None:
        """How long to wait before the next try; None after the last.

        Once a provider has throttled, the throttle patience counts and not the tries: they may be
        many by then, and one other refusal among them is no reason to give up.
        """
        if next_attempt.throttled_since:
            return throttled_wait_seconds(
                next_attempt.tries,
                throttled_seconds=(self.clock() - next_attempt.throttled_since).total_seconds(),
                retry_after_seconds=retry_after_seconds,
                jitter=self.jitter,
            )
        if next_attempt.tries >= MAX_TRIES:
            return None
        return retry_wait_seconds(
            next_attempt.tries, retry_after_seconds=retry_after_seconds, jitter=self.jitter
        )


def _accepted(ticket: Ticket, next_attempt: NextAttempt) -> Submission:
    return Submission(
        ticket=ticket,
        wait_seconds=next_wait_seconds(0),
        next=_later(next_attempt, next_attempt.tries + 1),
    )


def _ask_again(next_attempt: NextAttempt, seconds: float) -> Submission:
    """Another call is still running: `tries` counts at least that one."""
    return Submission(
        wait_seconds=math.ceil(seconds), next=_later(next_attempt, max(1, next_attempt.tries))
    )


def _look_later(next_attempt: NextAttempt, unclear: str, looks: int) -> Submission:
    """The state machine waits, and calls again: a function does not sleep."""
    following = _later(next_attempt, max(1, next_attempt.tries))
    return Submission(
        wait_seconds=LOOK_WAIT_SECONDS[looks],
        next=following.model_copy(update={"unclear": unclear, "looks": looks}),
    )


def _later(next_attempt: NextAttempt, tries: int) -> NextAttempt:
    """The same attempt at a later call: its turn of the rate limit is used or over."""
    return next_attempt.model_copy(update={"tries": tries, "is_paced": False})
