"""Deliver: from the provider into the videos bucket, part by part, and only as a whole."""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from pydantic import ValidationError

from dropreel.errors import RequestForgotten, ResultMissing
from dropreel.events import DeliveredVideo, JobSummary, RenderSummary, UsedInput, VideoReady
from dropreel.mp4 import Mp4Check
from dropreel.provider import Provider, UnknownRequest
from dropreel.render import Underway

_PART_BYTES = 8 * 1024**2


class Upload(Protocol):
    """An object in the making: invisible until it is completed, gone when it is aborted."""

    def add(self, body: bytes) -> None: ...

    def complete(self) -> str: ...

    def abort(self) -> None: ...


class VideoStore(Protocol):
    """What deliver needs of the bucket that the videos go to (`storage.S3Storage`)."""

    def begin_upload(self, bucket: str, key: str, content_type: str) -> Upload: ...

    def current_version(self, bucket: str, key: str) -> str | None: ...

    def text(self, bucket: str, key: str) -> str | None: ...

    def put_json(self, bucket: str, key: str, document: str) -> None: ...

    def delete(self, bucket: str, key: str) -> None: ...


class Fetch(Protocol):
    """Writes the body at a URL into the copy, asking for a fresh URL as often as it needs one."""

    def __call__(self, fresh_url: Callable[[], str], sink: "VideoCopy") -> None: ...


def deliver(
    underway: Underway,
    *,
    provider: Provider,
    storage: VideoStore,
    fetch: Fetch,
    video_bucket: str,
    clock: Callable[[], float] = time.monotonic,
) -> VideoReady:
    """Copy a completed render's video into the bucket and write its manifest beside it.

    Called again after it succeeded, it answers the same and copies nothing. Raises
    `ResultMissing`, `ResultUnavailable`, `ResultRefused` or `RequestForgotten`; then there is
    neither a new object nor an unfinished upload.
    """
    job = underway.plan.job
    ready = _delivered_before(underway, storage, video_bucket)
    if ready is None:
        begun = clock()
        video = _copy(underway, provider, storage, fetch, video_bucket)
        ready = VideoReady(
            job=JobSummary.of(job),
            inputs=UsedInput.all_of(job),
            video=video,
            render=_summary(underway, copying_seconds=clock() - begun),
        )
        storage.put_json(video_bucket, job.manifest_key, ready.model_dump_json(indent=2) + "\n")
    # Asked first, because deleting nothing leaves a delete marker in a versioned bucket.
    if storage.current_version(video_bucket, job.error_key) is not None:
        storage.delete(video_bucket, job.error_key)
    return ready


def _delivered_before(underway: Underway, storage: VideoStore, bucket: str) -> VideoReady | None:
    """The manifest of this very render, if its video still lies where it says."""
    job = underway.plan.job
    manifest = storage.text(bucket, job.manifest_key)
    if manifest is None:
        return None
    try:
        ready = VideoReady.model_validate_json(manifest)
    except ValidationError:
        return None
    is_this_render = (ready.job.id, ready.render.request_id) == (job.id, underway.ticket.request_id)
    if is_this_render and storage.current_version(bucket, job.video_key) == ready.video.version_id:
        return ready
    return None


def _copy(
    underway: Underway, provider: Provider, storage: VideoStore, fetch: Fetch, bucket: str
) -> DeliveredVideo:
    key = underway.plan.job.video_key
    request_id = underway.ticket.request_id

    def fresh_url() -> str:
        try:
            url = provider.video_url(request_id)
        except UnknownRequest:
            raise RequestForgotten(
                "The provider no longer knows the request whose video is to be fetched."
            ) from None
        if url is None:
            raise ResultMissing("The render completed, but its output offers no video.")
        return url

    copy = VideoCopy(lambda: storage.begin_upload(bucket, key, "video/mp4"))
    try:
        fetch(fresh_url, copy)
        return copy.finish(bucket, key)
    except BaseException:
        copy.abandon()
        raise


class VideoCopy:
    """A video on its way into the bucket: measured, hashed and checked as it passes."""

    def __init__(self, begin_upload: Callable[[], Upload]) -> None:
        self._begin_upload = begin_upload
        self._upload: Upload | None = None
        self._forget()

    def begin(self) -> None:
        """Start at the first byte, without whatever came before."""
        self.abandon()
        self._forget()
        self._upload = self._begin_upload()

    def write(self, chunk: bytes) -> None:
        """Raises `ResultRefused` as soon as this cannot become a video any more."""
        self._check.feed(chunk)
        self._sha256.update(chunk)
        self._size_bytes += len(chunk)
        self._part += chunk
        if len(self._part) >= _PART_BYTES:
            self._send_part()

    @property
    def is_whole(self) -> bool:
        return self._check.is_whole

    def finish(self, bucket: str, key: str) -> DeliveredVideo:
        """Make the object. Raises `ResultRefused`, and makes none, if it is not a video."""
        facts = self._check.facts()
        if self._part:
            self._send_part()
        return DeliveredVideo(
            bucket=bucket,
            key=key,
            version_id=self._open_upload.complete(),
            size_bytes=self._size_bytes,
            duration_seconds=facts.duration_seconds,
            width=facts.width,
            height=facts.height,
            sha256=self._sha256.hexdigest(),
        )

    def abandon(self) -> None:
        """Leave nothing behind. What cannot be removed now, the bucket's lifecycle rule removes."""
        if self._upload is not None:
            with suppress(Exception):  # the reason for giving up is the error that matters
                self._upload.abort()
        self._upload = None

    def _forget(self) -> None:
        self._part = bytearray()
        self._sha256 = hashlib.sha256()
        self._check = Mp4Check()
        self._size_bytes = 0

    @property
    def _open_upload(self) -> Upload:
        if self._upload is None:
            raise RuntimeError("write() or finish() before begin()")
        return self._upload

    def _send_part(self) -> None:
        self._open_upload.add(bytes(self._part))
        self._part.clear()


def _summary(underway: Underway, copying_seconds: float) -> RenderSummary:
    """How long each part took, as far as the polls saw it."""
    submitted_at = underway.ticket.submitted_at
    completed_at = (underway.progress and underway.progress.completed_at) or submitted_at
    rendering_since = (underway.progress and underway.progress.rendering_since) or completed_at
    return RenderSummary(
        provider=underway.ticket.provider,
        model=underway.plan.endpoint,
        request_id=underway.ticket.request_id,
        queued_seconds=_tenths((rendering_since - submitted_at).total_seconds()),
        rendering_seconds=_tenths((completed_at - rendering_since).total_seconds()),
        copying_seconds=_tenths(copying_seconds),
    )


def _tenths(seconds: float) -> float:
    return round(max(seconds, 0.0), 1)
