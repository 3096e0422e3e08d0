"""Deliver: copy the video from the provider into the videos bucket, as a whole or not at all.

An abort of the execution does not stop a copy. When conclude has closed the run meanwhile, the
video stays at the provider until the job is run again: it would contradict the error file.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import NamedTuple, Protocol

from dropreel.media.mp4 import Mp4Check
from dropreel.model.catalog import ProviderName, has_own_duration
from dropreel.model.errors import (
    ExecutionAborted,
    RequestForgotten,
    ResultMissing,
    ResultUnavailable,
)
from dropreel.model.events import (
    AttemptSummary,
    DeliveredVideo,
    JobSummary,
    RenderSummary,
    StoredFile,
    UsedInput,
    VideoReady,
)
from dropreel.model.job import Job
from dropreel.model.ledger import Attempt, Ledger, Outcome, Run
from dropreel.model.messages import ActiveRender
from dropreel.model.provider import (
    Provider,
    RenderLost,
    Result,
    Ticket,
    UnknownRequest,
    Unreachable,
)
from dropreel.outcome.ownership import (
    AnsweredDrop,
    is_same_run,
    owner_of,
    read,
    remove_error_file,
)
from dropreel.render.attempts import code_of_loss, loss_of, summary, total_actual_usd, total_usd
from dropreel.runtime.log import logger

_PART_BYTES = 8 * 1024**2
_MAY_DIFFER_SECONDS = 0.5  # a video from its recording, or more if the recording is long
_MAY_DIFFER_SHARE = 0.05


class Upload(Protocol):
    """An upload in parts: the object is invisible until `complete`, which returns its version id,
    and never exists after `abort`."""

    def add(self, body: bytes) -> None: ...

    def complete(self) -> str: ...

    def abort(self) -> None: ...


class VideoStore(Protocol):
    def begin_upload(self, bucket: str, key: str, content_type: str) -> Upload: ...

    def current_version(self, bucket: str, key: str) -> str | None: ...

    def text(self, bucket: str, key: str) -> str | None: ...

    def written_at(self, bucket: str, key: str) -> datetime | None: ...

    def put_json(self, bucket: str, key: str, document: str) -> None: ...

    def delete(self, bucket: str, key: str) -> None: ...


class Fetch(Protocol):
    """Writes the whole body at a URL into the copy, or raises."""

    def __call__(self, url: str, sink: "VideoCopy") -> None: ...


class Overtaken(Exception):
    """During this call, another one delivered: a later job, or this run itself. A retry sees it."""


def deliver(
    render: ActiveRender,
    *,
    ledger: Ledger,
    providers: Callable[[ProviderName], Provider],
    storage: VideoStore,
    fetch: Fetch,
    video_bucket: str,
    answered_drop: Callable[[Job], AnsweredDrop | None],
    version: str,
    delete_record: bool = False,
    now: Callable[[], datetime],
    clock: Callable[[], float] = time.monotonic,
) -> VideoReady:
    """Copy a completed render's video into the bucket and write its manifest next to it.

    Of two jobs with one stem, the later one owns the plain names. The manifest is the detail of the
    run's outcome in the ledger, which the next step announces. A repeated call, or a later run,
    copies nothing again. Raises `ResultMissing`, `ResultUnavailable`, `ResultRefused`,
    `RequestForgotten`, `Overtaken`, or poll's errors when the result says that the render failed;
    then it leaves neither a new object nor an open upload. Raises `ExecutionAborted` when conclude
    has ended the run. With `delete_record`, the provider's record is deleted afterwards, if it can
    be; nothing after that needs it.
    """
    job = render.plan.job
    is_late = partial(_is_late, render, storage, video_bucket, answered_drop)
    place = _place(job, video_bucket, is_late=is_late())
    ready = _delivered_before(render, place, storage)
    if ready and not is_same_run(ready.job, job, render.started_at):
        summary_of_run = JobSummary.of(job, render.started_at)
        ready = ready.model_copy(update={"job": summary_of_run, "ended_at": now()})
        _write_manifest(ready, place, storage)
    if ready is None:
        ready = _delivered_by_this_run(render, ledger)
    if ready is None:
        recorded = ledger.attempts(job.id)
        provider = providers(render.ticket.provider)
        begun = clock()
        result = _result(render, provider, ledger)
        # Before the copy: between its last look at the ledger and the manifest, nothing is slow.
        actual_usd = _actual_usd(render.ticket, recorded, result, provider)
        video = _copy(render, result, place, storage, fetch, ledger=ledger, is_late=is_late)
        copying_seconds = clock() - begun
        attempts = _attempts(render, recorded, actual_usd)
        voice, warnings = render.plan.audio_facts, tuple(_warnings(render, video))
        for warning in warnings:
            logger.warning(warning)
        ready = VideoReady(
            job=JobSummary.of(job, render.started_at),
            inputs=UsedInput.all_of(job, render.plan.sha256),
            changes=render.plan.changes,
            ignored=job.ignored,
            video=video,
            voice_seconds=round(voice.duration_seconds, 3) if voice else None,
            warnings=warnings,
            manifest=StoredFile(bucket=place.bucket, key=place.manifest_key),
            render=_summary(render, attempts, copying_seconds),
            estimated_usd=total_usd(attempts),
            actual_usd=total_actual_usd(attempts),
            ended_at=now(),
            dropreel_version=version,
        )
        _write_manifest(ready, place, storage)
    outcome = ledger.end(job, render.started_at, Outcome(detail=ready), now())
    if not isinstance(outcome.detail, VideoReady):
        raise _run_is_over()
    if outcome.detail != ready:  # a call that Step Functions gave up on was quicker
        _write_manifest(outcome.detail, place, storage)
    if not place.is_late:
        remove_error_file(storage, video_bucket, job, render.started_at)
    _settle(render, outcome.detail, ledger)
    if delete_record and outcome.detail.render.request_id == render.ticket.request_id:
        _delete_record(render.ticket, providers)
    return outcome.detail


class _Place(NamedTuple):
    """Where the video and its manifest go. It is late when a later job owns the plain names."""

    bucket: str
    video_key: str
    manifest_key: str
    is_late: bool


def _place(job: Job, bucket: str, *, is_late: bool) -> _Place:
    if is_late:
        return _Place(bucket, job.own_video_key, job.own_manifest_key, is_late=True)
    return _Place(bucket, job.video_key, job.manifest_key, is_late=False)


def _is_late(
    render: ActiveRender,
    storage: VideoStore,
    bucket: str,
    answered_drop: Callable[[Job], AnsweredDrop | None],
) -> bool:
    """Whether the plain names belong to another job: it, or its contents again, came later."""
    job, drop = render.plan.job, answered_drop(render.plan.job)
    if drop and job.dropped_at and drop.dropped_at > job.dropped_at:
        if drop.job_id != job.id:
            return True
        job = job.model_copy(update={"dropped_at": drop.dropped_at})
    owner = owner_of(storage.text(bucket, job.manifest_key))
    return owner is not None and owner.came_after(job, render.started_at)


def _write_manifest(ready: VideoReady, place: _Place, storage: VideoStore) -> None:
    storage.put_json(place.bucket, place.manifest_key, ready.model_dump_json(indent=2) + "\n")


def _delivered_before(
    render: ActiveRender, place: _Place, storage: VideoStore
) -> VideoReady | None:
    """The manifest of this render, from any run, if its video is still there."""
    ready = read(VideoReady, storage.text(place.bucket, place.manifest_key))
    if ready is None:
        return None
    ours = (render.plan.job.id, render.ticket.request_id)
    if (ready.job.id, ready.render.request_id) != ours:
        return None
    current = storage.current_version(place.bucket, place.video_key)
    return ready if current == ready.video.version_id else None


def _delivered_by_this_run(render: ActiveRender, ledger: Ledger) -> VideoReady | None:
    """What an earlier call wrote as the outcome. By now, the video of a later job may be in place
    of its video, and the provider's record may be deleted."""
    outcome = ledger.outcome(render.plan.job, render.started_at)
    return outcome.detail if outcome and isinstance(outcome.detail, VideoReady) else None


def _actual_usd(
    ticket: Ticket, attempts: tuple[Attempt, ...], result: Result, provider: Provider
) -> float | None:
    """What was charged, as far as the ledger, the result or one question says it."""
    noted = (it.actual_usd for it in attempts if it.number == ticket.attempt)
    for usd in (*noted, result.actual_usd):
        if usd is not None:
            return usd
    try:
        return provider.cost(ticket)
    except Exception as err:
        logger.warning("What request %s cost is not known: %s", ticket.request_id, err)
        return None


def _settle(render: ActiveRender, ready: VideoReady, ledger: Ledger) -> None:
    """The video is delivered: no failure here may fail the job."""
    ticket = render.ticket
    for attempt in ready.render.attempts:
        is_ours = (attempt.number, attempt.request_id) == (ticket.attempt, ticket.request_id)
        if is_ours and attempt.actual_usd is not None:
            try:
                ledger.settle(render.plan.job.id, ticket, attempt.actual_usd)
            except Exception:
                logger.exception("The cost of request %s is not in the ledger", ticket.request_id)


def _delete_record(ticket: Ticket, providers: Callable[[ProviderName], Provider]) -> None:
    """The video is delivered: no failure here may fail the job."""
    try:
        is_gone = providers(ticket.provider).forget(ticket)
    except Exception:
        logger.exception("The record of request %s could not be deleted", ticket.request_id)
    else:
        logger.info("The record of request %s is deleted: %s", ticket.request_id, is_gone)


def _copy(
    render: ActiveRender,
    result: Result,
    place: _Place,
    storage: VideoStore,
    fetch: Fetch,
    *,
    ledger: Ledger,
    is_late: Callable[[], bool],
) -> DeliveredVideo:
    bucket, key = place.bucket, place.video_key
    if result.video_url is None:
        raise ResultMissing("The render completed, but its output offers no video.")
    copy = VideoCopy(storage.begin_upload(bucket, key, "video/mp4"))
    try:
        fetch(result.video_url, copy)
        if not place.is_late and is_late():
            raise Overtaken("A later job's video arrived during the copy.")
        if _is_concluded(render, ledger.runs(render.plan.job.id)):
            raise _run_is_over()
        return copy.finish(bucket, key, nsfw=result.nsfw)
    except BaseException:
        copy.abandon()
        raise


def _result(render: ActiveRender, provider: Provider, ledger: Ledger) -> Result:
    """What the provider offers now: its URLs expire, so each call asks anew."""
    ticket = render.ticket
    try:
        return provider.result(ticket)
    except (RenderLost, UnknownRequest) as missing:
        if _delivered_by_this_run(render, ledger):  # by a call that has deleted the record since
            raise Overtaken("Another call of this run delivered the video.") from None
        if isinstance(missing, UnknownRequest):
            raise RequestForgotten(
                "The provider no longer knows the request whose video is to be fetched."
            ) from None
        loss = loss_of(missing.answer, ticket)
        ledger.lose(render.plan.job.id, ticket, code_of_loss(loss), loss.message)
        raise loss from None
    except Unreachable:
        raise ResultUnavailable("The provider did not say where the finished video is.") from None


def _is_concluded(render: ActiveRender, runs: tuple[Run, ...]) -> bool:
    """Whether conclude has closed this run, and not an earlier one of the same name."""
    return any(
        run.number == render.plan.job.run
        and run.closed_at is not None
        and run.closed_at >= render.started_at
        for run in runs
    )


def _run_is_over() -> ExecutionAborted:
    return ExecutionAborted("This run of the job was concluded before its video was copied.")


class VideoCopy:
    """A video on its way into the bucket: measured, hashed and checked."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._part = bytearray()
        self._sha256 = hashlib.sha256()
        self._check = Mp4Check()
        self._size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Raises `ResultRefused` as soon as the bytes cannot be a video."""
        self._check.feed(chunk)
        self._sha256.update(chunk)
        self._size_bytes += len(chunk)
        self._part += chunk
        if len(self._part) >= _PART_BYTES:
            self._send_part()

    @property
    def is_whole(self) -> bool:
        return self._check.is_whole

    def finish(self, bucket: str, key: str, *, nsfw: bool | None = None) -> DeliveredVideo:
        """Create the object. Raises `ResultRefused`, and creates none, if it is not a video."""
        facts = self._check.facts()
        if self._part:
            self._send_part()
        return DeliveredVideo(
            bucket=bucket,
            key=key,
            version_id=self._upload.complete(),
            size_bytes=self._size_bytes,
            duration_seconds=facts.duration_seconds,
            width=facts.width,
            height=facts.height,
            has_audio=facts.has_audio,
            sha256=self._sha256.hexdigest(),
            nsfw=nsfw,
        )

    def abandon(self) -> None:
        """Abort the upload. If that fails, the bucket's lifecycle rule does it later."""
        with suppress(Exception):  # the caller's own error matters more
            self._upload.abort()

    def _send_part(self) -> None:
        self._upload.add(bytes(self._part))
        self._part.clear()


def _warnings(render: ActiveRender, video: DeliveredVideo) -> Iterator[str]:
    """How the video differs from one that speaks the recording that was sent."""
    voice = render.plan.audio_facts
    if voice and not video.has_audio:
        yield "The video has no sound track, although it was made to a recording."
    if voice and _differs(video.duration_seconds, voice.duration_seconds, render.ticket):
        yield (
            f"The video is {video.duration_seconds:.1f} seconds long, and its recording "
            f"{voice.duration_seconds:.1f} seconds."
        )


def _differs(video_seconds: float | None, voice_seconds: float, ticket: Ticket) -> bool:
    """Whether the lengths differ. Where the job asks for a duration, a longer video is as asked."""
    if video_seconds is None:
        return False
    allowed_seconds = max(_MAY_DIFFER_SECONDS, _MAY_DIFFER_SHARE * voice_seconds)
    longer_seconds = round(video_seconds - voice_seconds, 3)
    if longer_seconds > allowed_seconds:
        return not has_own_duration(ticket.provider, ticket.endpoint)
    return longer_seconds < -allowed_seconds


def _attempts(
    render: ActiveRender, attempts: tuple[Attempt, ...], actual_usd: float | None
) -> tuple[AttemptSummary, ...]:
    """The earlier attempts, then the one that made the video. An earlier one that is still accepted
    made the video before, which was to be made again."""
    ticket, ready = render.ticket, VideoReady.__name__
    earlier = (summary(attempt, ready) for attempt in attempts if attempt.number < ticket.attempt)
    own = next((one for one in attempts if one.number == ticket.attempt), None)
    delivered = AttemptSummary(
        number=ticket.attempt,
        run=own.run if own else render.plan.job.run,
        provider=ticket.provider,
        model=ticket.endpoint,
        request_id=ticket.request_id,
        outcome=ready,
        estimated_usd=own.estimated_usd if own else None,
        actual_usd=actual_usd,
    )
    return (*earlier, delivered)


def _summary(
    render: ActiveRender, attempts: tuple[AttemptSummary, ...], copying_seconds: float
) -> RenderSummary:
    ticket, progress = render.ticket, render.progress
    submitted_at = ticket.submitted_at
    completed_at = (progress and progress.completed_at) or submitted_at
    rendering_since = (progress and progress.rendering_since) or completed_at
    return RenderSummary(
        provider=ticket.provider,
        model=ticket.endpoint,
        request_id=ticket.request_id,
        queued_seconds=_tenths((rendering_since - submitted_at).total_seconds()),
        rendering_seconds=_tenths((completed_at - rendering_since).total_seconds()),
        copying_seconds=_tenths(copying_seconds),
        attempts=attempts,
    )


def _tenths(seconds: float) -> float:
    return round(max(seconds, 0.0), 1)
