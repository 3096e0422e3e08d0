"""Recordings as people have them, made into what an offer takes: FFmpeg, by PyAV.

The sound is decoded and written a frame at a time, so its length costs no memory; of a video, only
the sound is read. Nothing is ever cut: a recording is converted whole, or refused.
"""

import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Final, cast

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard

from dropreel.media.fitting import listed, megabytes
from dropreel.media.making import Alarm, Copy, Damaged, OutOfTime, TooLong, Unfit, Watched
from dropreel.media.recordings import Sound
from dropreel.media.strip import strip_recording
from dropreel.model.catalog import AudioFormat, AudioLimits

HEARD_AT_MOST_SECONDS: Final = 3600.0  # no offer takes a tenth of it

# No others: some formats that FFmpeg knows are playlists, of files and of addresses to fetch.
_FORMATS: Final = "mov,ogg,flac,aiff,asf,matroska,aac,mp3,wav,w64,caf,amr,au"
_GUESSED: Final = ("aac", "mp3", "amr")  # formats whose duration FFmpeg guesses from a bitrate
_LOSSLESS: Final = ("pcm_", "flac", "alac", "wmalossless", "wavpack", "ape", "tta", "mlp")
_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_PROTECTED: Final = ("drms", "enca", "aavd")

_LOST_AT_MOST_SECONDS: Final = 0.1  # one frame that does not decode is not heard
_SHORT_AT_MOST_SECONDS: Final = 0.5  # of the promise: encoders pad, containers round
_ABSURD_SECONDS: Final = 7 * 24 * 3600.0  # what streams promise that were never finished
_UNKNOWN_SECONDS: Final = 0.025  # of a packet that does not tell
_PADDING_SECONDS: Final = 0.15  # what an MP3 encoder may add to the length

COPY_AT_MOST_BYTES: Final = 50_000_000  # where the offer names no size

_MP3_KBIT: Final = (128, 96, 64, 32)  # for each channel: the best that is small enough
_WAV: Final = 0  # no MP3 at all


def fit_recording(
    file: Watched,
    sound: Sound,
    limits: AudioLimits,
    *,
    longest_seconds: float,
    into: BinaryIO,
    alarm: Alarm,
) -> Copy:
    """`conform.FitRecording`."""
    task = _Task(cast(BinaryIO, file), sound, limits, longest_seconds, into, alarm)
    try:
        return _stripped(task) or _converted(task)
    except (Unfit, Damaged, OutOfTime, TooLong, MemoryError):
        raise
    except Exception:
        raise Damaged(f"{sound.kind.words} that is damaged") from None


@dataclass(frozen=True)
class _Task:
    """What is asked for: see `conform.FitRecording`."""

    file: BinaryIO
    sound: Sound
    limits: AudioLimits
    longest_seconds: float
    into: BinaryIO
    alarm: Alarm

    @property
    def bytes_under(self) -> int:
        return self.limits.size_under_bytes or COPY_AT_MOST_BYTES

    def empty(self) -> None:
        self.into.seek(0)
        self.into.truncate()


# Without decoding it


def _stripped(task: _Task) -> Copy | None:
    """The recording as it is but without metadata; None when it needs more than that."""
    taken = task.sound.format
    if taken is None or taken not in task.limits.formats:
        return None
    try:
        strip_recording(task.file, taken, task.into)
    except ValueError:
        return None
    if task.into.tell() >= task.bytes_under:
        return None
    removed = listed(task.sound.metadata or ("what is not sound",), "and")
    return Copy(taken, (f"Removed from the recording: {removed}.",))


# Decoding it


class _Another(Exception):
    """Written like this the recording does not fit; another way, it may."""


def _converted(task: _Task) -> Copy:
    best, *others = _MP3_KBIT
    ways = (_WAV, best, *others) if _is_lossless(task) else (best, _WAV, *others)
    for kbit in ways:
        taken = AudioFormat.MP3 if kbit else AudioFormat.WAV
        if taken not in task.limits.formats:
            continue
        task.empty()
        with suppress(_Another):
            _write(task, kbit)
            what = f"from {task.sound.kind.name} to {taken.upper()}"
            return Copy(taken, (f"The recording was converted {what}.",))
    raise Unfit(
        rule=f"less than {megabytes(task.bytes_under)}",
        found="a recording that is larger even as an MP3",
        cure="Cut the recording.",
    )


def _is_lossless(task: _Task) -> bool:
    with _opened(task) as (_, stream):
        return stream.codec_context.name.startswith(_LOSSLESS)


def _write(task: _Task, kbit: int) -> None:
    """Write all of the sound, as an MP3 or a WAV. Raises `_Another` and `TooLong`."""
    seconds = 0.0
    with _opened(task) as (container, stream):
        shape = _Shape.of(stream)
        with _mp3(task.into, shape, kbit) if kbit else _wav(task.into, shape) as write:
            frames = _resampled(_decoded(container, stream, task), shape, kbit)
            for seconds, frame in _timed(frames, task.longest_seconds):
                if seconds <= task.longest_seconds:  # what is longer is heard out, and refused
                    write(frame)
                if task.into.tell() >= task.bytes_under:
                    raise _Another
        _refuse_short(container, stream, task, seconds)
    if seconds > task.longest_seconds:
        raise TooLong(seconds)
    if kbit and _within_padding(seconds, task.limits):
        raise _Another


@dataclass(frozen=True)
class _Shape:
    """What both formats can hold: of more than that, nothing is heard in a voice."""

    rate: int
    channels: int

    @property
    def layout(self) -> str:
        return "mono" if self.channels == 1 else "stereo"

    @classmethod
    def of(cls, stream: AudioStream) -> "_Shape":
        rate = next((rate for rate in _RATES if rate >= stream.rate), _RATES[-1])
        return cls(rate, min(stream.channels, 2))


@contextmanager
def _opened(task: _Task) -> Iterator[tuple[InputContainer, AudioStream]]:
    task.file.seek(0)
    with av.open(task.file, "r", container_options={"format_whitelist": _FORMATS}) as container:
        streams = container.streams.audio
        known = [stream for stream in streams if getattr(stream, "codec_context", None)]
        if any(_tag(stream) in _PROTECTED for stream in streams) or (streams and not known):
            raise Unfit(
                rule="a recording that any player can play",
                found=f"{task.sound.kind.words} that is protected, or in a rare coding",
                cure="Export the recording as an MP3 in the app that made it.",
            )
        if not streams:
            raise Unfit(
                rule="a recording",
                found=f"{task.sound.kind.words} without sound",
                cure="Drop a recording, or a video with sound.",
            )
        for stream in container.streams:
            stream.discard = Discard.default if stream is known[0] else Discard.all
        known[0].codec_context.thread_count = 1
        yield container, known[0]


def _tag(stream: AudioStream) -> str:
    return str(getattr(stream, "codec_tag", ""))


def _decoded(container: InputContainer, stream: AudioStream, task: _Task) -> Iterator[AudioFrame]:
    lost_seconds = heard_seconds = 0.0
    for packet in container.demux(stream):
        task.alarm()
        try:
            frames = packet.decode()
        except FFmpegError:
            lost_seconds += float((packet.duration or 0) * stream.time_base) or _UNKNOWN_SECONDS
            if lost_seconds > _LOST_AT_MOST_SECONDS:
                found = f"{task.sound.kind.words} that is damaged after {heard_seconds:.1f} seconds"
                raise Damaged(found) from None
            continue
        for frame in frames:
            heard_seconds += frame.samples / frame.sample_rate
            yield frame


def _resampled(frames: Iterator[AudioFrame], shape: _Shape, kbit: int) -> Iterator[AudioFrame]:
    """Recordings may change their rate and their channels on the way."""
    sample_format = "fltp" if kbit else "s16"
    resampler, last = AudioResampler(sample_format, shape.layout, shape.rate), None
    for frame in frames:
        now = frame.format.name, frame.layout.name, frame.sample_rate
        if last not in (now, None):
            yield from filter(None, resampler.resample(None))
            resampler = AudioResampler(sample_format, shape.layout, shape.rate)
        last = now
        yield from resampler.resample(frame)
    yield from filter(None, resampler.resample(None))


def _refuse_short(
    container: InputContainer, stream: AudioStream, task: _Task, seconds: float
) -> None:
    """Raise `Unfit` for a recording that stops before the end that its header promises."""
    promised_seconds = 0.0
    if container.format.name not in _GUESSED:
        if stream.duration:
            promised_seconds = float(stream.duration * stream.time_base)
        elif container.duration and len(container.streams) == 1:
            promised_seconds = container.duration / av.time_base
    if not seconds:
        raise Damaged(f"{task.sound.kind.words} with no sound in it")
    if seconds + _SHORT_AT_MOST_SECONDS < promised_seconds < _ABSURD_SECONDS:
        stops = f"whose sound stops after {seconds:.1f} of {promised_seconds:.1f} seconds"
        raise Damaged(f"{task.sound.kind.words} {stops}")


def _timed(
    frames: Iterator[AudioFrame], longest_seconds: float
) -> Iterator[tuple[float, AudioFrame]]:
    """Each frame with the seconds up to its end. One that is much too long is not heard out."""
    seconds = 0.0
    try:
        for frame in frames:
            seconds += frame.samples / frame.sample_rate
            if seconds > HEARD_AT_MOST_SECONDS:
                raise OutOfTime
            yield seconds, frame
    except OutOfTime:
        if seconds <= longest_seconds:
            raise
        raise Unfit(
            rule=f"at most {longest_seconds:g} seconds",
            found=f"more than {seconds / 60:.0f} minutes long",
            cure=f"Cut the recording to {longest_seconds:g} seconds or less.",
        ) from None


def _within_padding(seconds: float, limits: AudioLimits) -> bool:
    """Whether what an MP3 encoder adds could make the recording too long."""
    bounds = limits.duration_at_most_seconds, limits.duration_under_seconds
    return any(bound and bound - _PADDING_SECONDS < seconds <= bound for bound in bounds)


# Writing it

Write = Callable[[AudioFrame], None]


@contextmanager
def _wav(body: BinaryIO, shape: _Shape) -> Iterator[Write]:
    with wave.open(body, "wb") as made:
        made.setframerate(shape.rate)
        made.setnchannels(shape.channels)
        made.setsampwidth(2)

        def write(frame: AudioFrame) -> None:
            sound_bytes = frame.samples * shape.channels * 2
            made.writeframesraw(bytes(frame.planes[0])[:sound_bytes])

        yield write


@contextmanager
def _mp3(body: BinaryIO, shape: _Shape, kbit: int) -> Iterator[Write]:
    tagless = {"id3v2_version": "0", "write_id3v1": "0", "fflags": "+bitexact"}
    with av.open(body, "w", format="mp3", container_options=tagless) as made:
        stream = made.add_stream("libmp3lame", rate=shape.rate)
        stream.layout = shape.layout
        stream.bit_rate = kbit * 1000 * shape.channels
        written = 0

        def write(frame: AudioFrame | None) -> None:
            nonlocal written
            if frame:
                frame.pts, frame.time_base = written, Fraction(1, shape.rate)
                written += frame.samples
            made.mux(stream.encode(frame))

        yield write
        write(None)
