"""Conform: the media made into what the offers of the route take, when validate says they must.

What is made lies under `work/` and is named after the job, so a second run makes the same again.
The codecs stand behind `FitPicture` and `FitRecording`: only this step's function carries them.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from io import SEEK_END
from tempfile import TemporaryFile
from typing import BinaryIO, Final, Protocol, TypeVar

from dropreel.media import kinds
from dropreel.media.fitting import broken, picture_needs, sound_needs, strictest
from dropreel.media.kinds import NotUsable
from dropreel.media.making import (
    Alarm,
    Copy,
    Damaged,
    FitPicture,
    FitRecording,
    OutOfTime,
    TooLong,
    Unfit,
    Watched,
)
from dropreel.media.memory_limit import at_most_more
from dropreel.media.pictures import Picture, read_picture
from dropreel.media.recordings import Sound, read_recording
from dropreel.model.catalog import (
    AudioFormat,
    ImageFormat,
    Offer,
    offer_of,
)
from dropreel.model.errors import InputRejected, Reason
from dropreel.model.job import Input, Job, Role
from dropreel.model.messages import Plan
from dropreel.render.validation import settle

WORK: Final = "work/"

WORKING_AT_MOST_SECONDS: Final = 9.0
"""Of the processor, for one medium: half as much again as the largest honest picture takes."""

MEMORY_AT_MOST_BYTES: Final = 405_000_000
"""For one medium: with what the libraries take, less than 512 MiB."""

_LEAVING_SECONDS: Final = 10.0  # to store the copies, before the function's own time is up

FETCHED_AT_MOST_BYTES: Final = 64_000_000
"""A larger recording, most likely a video, is read where it lies: its sound is a small part."""

_BLOCK_BYTES: Final = 4 << 20

_ENDINGS: Final[dict[ImageFormat | AudioFormat, tuple[str, str]]] = {
    ImageFormat.JPEG: ("jpg", "image/jpeg"),
    ImageFormat.PNG: ("png", "image/png"),
    ImageFormat.BMP: ("bmp", "image/bmp"),
    ImageFormat.WEBP: ("webp", "image/webp"),
    AudioFormat.MP3: ("mp3", "audio/mpeg"),
    AudioFormat.WAV: ("wav", "audio/wav"),
}


class Uploads(Protocol):
    """The upload bucket, as far as conform needs it."""

    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        """The pinned version, read a range at a time. Reading it raises `InputGone`."""

    def put(self, bucket: str, key: str, body: BinaryIO, content_type: str) -> str:
        """Write an object and return its version id."""


def conform(
    plan: Plan,
    *,
    uploads: Uploads,
    fit_picture: FitPicture,
    fit_recording: FitRecording,
    seconds_left: Callable[[], float],
) -> Plan:
    """The plan with copies in the place of the media that do not fit, judged by what they are.

    Raises `InputRejected`, which names the original files, and `InputGone`.
    """
    offers = [offer_of(planned.provider, planned.endpoint) for planned in plan.route]
    limits, audio_limits = strictest(offers)
    reasons: list[Reason] = []
    with ExitStack() as files:
        bench = _Bench(plan.job, uploads, files, seconds_left)
        with _noting(reasons):
            picture, image = bench.fitted(
                plan.image,
                read_picture,
                lambda picture: picture_needs(picture, limits),
                partial(fit_picture, limits=limits),
            )
        sound, audio = None, None
        if plan.audio and audio_limits:
            fit = partial(fit_recording, limits=audio_limits, longest_seconds=_longest(offers))
            try:
                with _noting(reasons):
                    sound, audio = bench.fitted(
                        plan.audio,
                        read_recording,
                        lambda sound: sound_needs(sound, audio_limits),
                        fit,
                    )
            except TooLong as error:  # settle says so, with the bounds of each offer
                sound = Sound(kinds.MP3, 0, error.duration_seconds)
        if reasons:
            raise InputRejected(tuple(reasons))
        settled = settle(plan, picture, sound)
        return settled.model_copy(
            update={
                "image": bench.stored(image) if image else plan.image,
                "audio": bench.stored(audio) if audio else plan.audio,
                "changes": (image.changes if image else ()) + (audio.changes if audio else ()),
            }
        )


@contextmanager
def _noting(reasons: list[Reason]) -> Iterator[None]:
    """Go on after a refusal, so that all of them can be told at once."""
    try:
        yield
    except InputRejected as refusal:
        reasons.extend(refusal.reasons)


def _longest(offers: Sequence[Offer]) -> float:
    """A recording of more seconds is too long for each of the offers."""
    bounds = [
        (offer.audio.duration_at_most_seconds, offer.audio.duration_under_seconds)
        for offer in offers
        if offer.audio
    ]
    return max(min((b for b in both if b is not None), default=math.inf) for both in bounds)


_Facts = TypeVar("_Facts", Picture, Sound)


@dataclass(frozen=True)
class _Fitted:
    """A copy that is not stored yet."""

    role: Role
    format: ImageFormat | AudioFormat
    changes: tuple[str, ...]
    body: BinaryIO
    size_bytes: int


@dataclass(frozen=True)
class _Bench:
    """Where copies are made, each in a file that is gone afterwards."""

    job: Job
    uploads: Uploads
    files: ExitStack
    seconds_left: Callable[[], float]

    def fitted(
        self,
        given: Input,
        read: Callable[[BinaryIO, int], _Facts],
        needs: Callable[[_Facts], Iterator[str]],
        fit: Callable[..., Copy],
    ) -> tuple[_Facts, _Fitted | None]:
        """What will be sent, and the copy, if there has to be one. Raises `InputRejected`."""
        alarm = _alarm(self.seconds_left)
        with _in_words(given), self.uploads.open(self.job.bucket, given) as upload:
            facts = read(upload, given.size_bytes)
            if not any(needs(facts)):
                return facts, None
            into = TemporaryFile()  # noqa: SIM115
            self.files.enter_context(into)
            with _at_hand(upload, given, alarm) as file, at_most_more(MEMORY_AT_MOST_BYTES):
                copy = fit(file, facts, into=into, alarm=alarm)
            size_bytes = into.seek(0, SEEK_END)
            fitted = _Fitted(given.role, copy.format, copy.changes, into, size_bytes)
            return read(into, size_bytes), fitted

    def stored(self, fitted: _Fitted) -> Input:
        ending, content_type = _ENDINGS[fitted.format]
        key = f"{WORK}{self.job.id}/{fitted.role}.{ending}"
        fitted.body.seek(0)
        return Input(
            role=fitted.role,
            key=key,
            version_id=self.uploads.put(self.job.bucket, key, fitted.body, content_type),
            size_bytes=fitted.size_bytes,
        )


def _alarm(seconds_left: Callable[[], float]) -> Alarm:
    begun = time.process_time()

    def alarm() -> None:
        worked_seconds = time.process_time() - begun
        if worked_seconds > WORKING_AT_MOST_SECONDS or seconds_left() < _LEAVING_SECONDS:
            raise OutOfTime

    return alarm


@contextmanager
def _at_hand(upload: BinaryIO, given: Input, alarm: Alarm) -> Iterator[Watched]:
    """The upload as a file that can be read here and there, without asking the bucket each time."""
    watched = Watched(upload, alarm)
    with TemporaryFile() as local:
        if given.role is Role.IMAGE or given.size_bytes <= FETCHED_AT_MOST_BYTES:
            watched.seek(0)
            while block := watched.read(_BLOCK_BYTES):
                local.write(block)
            watched = Watched(local, alarm)
        watched.seek(0)
        try:
            yield watched
        except Damaged:
            if watched.fault:
                raise watched.fault from None
            raise


@contextmanager
def _in_words(given: Input) -> Iterator[None]:
    """Turn what the codecs raise into a refusal of the upload."""
    noun = "picture" if given.role is Role.IMAGE else "recording"
    try:
        yield
    except (NotUsable, Damaged) as error:
        reason = broken(given.key, noun, error.found)
    except Unfit as error:
        reason = Reason(file=given.key, rule=error.rule, found=error.found, cure=error.cure)
    except (OutOfTime, MemoryError) as error:
        more = "time" if isinstance(error, OutOfTime) else "memory"
        reason = Reason(
            file=given.key,
            rule=f"a {noun} that can be converted within the {more} of one function",
            found=f"a {noun} that takes more {more}",
            cure=f"Export the {noun} from an app anew, smaller or in another format.",
        )
    else:
        return
    raise InputRejected((reason,))
