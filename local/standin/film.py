"""The film that a stand-in makes: a slow push-in on the picture, under the voice. No AI."""

import array
import asyncio
import functools
import hashlib
import io
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import av
from PIL import Image, ImageOps

FRAMES_PER_SECOND = 16  # what Wan 2.2's speech-to-video makes
SOUND_RATE = 44_100
SAMPLE_BYTES = 4  # a float
SOUND_FRAME_SAMPLES = 1_024
PUSH_IN = 0.15  # of the picture's size, by the last frame
LONG_SIDE_AT_MOST = 1_920
SHORT_SIDE_PIXELS = {"480p": 480, "720p": 720, "1080p": 1_080}

# Moving the camera costs more than encoding: large films get fewer steps, so that they stay quick.
PUSHED_PIXELS_AT_MOST = 40_000_000

TONE_PERIOD_SAMPLES = 200  # 220.5 Hz
TONE_LOUDNESS = 0.02


@dataclass(frozen=True)
class Script:
    """All that decides what a film looks and sounds like."""

    picture: bytes
    voice: bytes | None
    short_side_pixels: int
    duration_seconds: int | None = None  # None: as long as the voice
    tone: bool = False  # in the place of a voice; without either the film has no sound track

    @functools.cached_property
    def digest(self) -> str:
        parts = (hashlib.sha256(part).hexdigest() for part in (self.picture, self.voice or b""))
        return " ".join(
            (*parts, str(self.short_side_pixels), str(self.duration_seconds), str(self.tone))
        )


class Studio:
    """Makes films in a thread of its own, so that the server stays quick.

    The codecs let go of Python's lock while they work. Films are kept by the hash of what they
    are made from: a thousand jobs with the same files cost one rendering.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="studio")
        self._films: dict[str, asyncio.Future[bytes]] = {}

    async def film(self, script: Script) -> bytes:
        if script.digest not in self._films:
            loop = asyncio.get_running_loop()
            self._films[script.digest] = loop.run_in_executor(self._thread, make_film, script)
        # One job's end must not take the film away from the others that wait for it.
        return await asyncio.shield(self._films[script.digest])

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def make_film(script: Script) -> bytes:
    """An MP4 with H.264 and, if it has sound, AAC."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(script.picture))).convert("RGB")
    width, height = frame_size(picture.size, script.short_side_pixels)
    samples = _soundtrack(script)
    seconds = script.duration_seconds or len(samples) / SAMPLE_BYTES / SOUND_RATE
    frames = max(1, round(seconds * FRAMES_PER_SECOND))
    sound = deque(_sound_frames(samples))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as film:
        video = film.add_stream("libx264", rate=FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"preset": "superfast", "crf": "23"}
        audio = film.add_stream("aac", rate=SOUND_RATE, layout="mono") if samples else None
        for frame in _pictures(picture, (width, height), frames):
            film.mux(video.encode(frame))
            # Sound and pictures lie side by side in the file, so that it plays while it loads.
            while audio and sound and _seconds(sound[0]) <= _seconds(frame):
                film.mux(audio.encode(sound.popleft()))
        film.mux(video.encode())
        if audio:
            for heard in (*sound, None):
                film.mux(audio.encode(heard))
    return file.getvalue()


def frame_size(picture: tuple[int, int], short_side_pixels: int) -> tuple[int, int]:
    """The picture's shape in even numbers of pixels, which H.264's colours need."""
    scale = min(short_side_pixels / min(picture), LONG_SIDE_AT_MOST / max(picture))
    width, height = (max(2, round(side * scale / 2) * 2) for side in picture)
    return width, height


def _soundtrack(script: Script) -> bytes:
    """One channel of floats, exactly as long as the film; empty when it is to have no sound."""
    if script.voice is None and not script.tone:
        return b""
    samples = _tone_period() if script.voice is None else _decoded(script.voice)
    if script.duration_seconds is None:
        return samples
    size_bytes = script.duration_seconds * SOUND_RATE * SAMPLE_BYTES
    if script.voice is None:
        samples *= math.ceil(size_bytes / len(samples))
    return samples[:size_bytes].ljust(size_bytes, b"\0")


def _decoded(voice: bytes) -> bytes:
    samples = bytearray()
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SOUND_RATE)
    with av.open(io.BytesIO(voice), "r") as recording:
        for heard in (*recording.decode(audio=0), None):
            for frame in resampler.resample(heard):
                samples += bytes(frame.planes[0])[: frame.samples * SAMPLE_BYTES]
    return bytes(samples)


def _tone_period() -> bytes:
    turns = (sample / TONE_PERIOD_SAMPLES for sample in range(TONE_PERIOD_SAMPLES))
    wave = (TONE_LOUDNESS * math.sin(2 * math.pi * turn) for turn in turns)
    return array.array("f", wave).tobytes()


def _sound_frames(samples: bytes) -> Iterator[av.AudioFrame]:
    for start in range(0, len(samples), SOUND_FRAME_SAMPLES * SAMPLE_BYTES):
        part = samples[start : start + SOUND_FRAME_SAMPLES * SAMPLE_BYTES]
        frame = av.AudioFrame("fltp", "mono", len(part) // SAMPLE_BYTES)
        frame.planes[0].update(part.ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate = SOUND_RATE
        frame.pts, frame.time_base = start // SAMPLE_BYTES, Fraction(1, SOUND_RATE)
        yield frame


def _seconds(frame: av.AudioFrame | av.VideoFrame) -> Fraction:
    return (frame.pts or 0) * (frame.time_base or Fraction(1))


def _pictures(picture: Image.Image, size: tuple[int, int], frames: int) -> Iterator[av.VideoFrame]:
    steps = max(1, min(frames, PUSHED_PIXELS_AT_MOST // (size[0] * size[1])))
    pushed_in = _pushed_in(picture, size, steps)
    step = -1
    for number in range(frames):
        if number * steps // frames != step:
            step = number * steps // frames
            frame = av.VideoFrame.from_image(next(pushed_in))  # type: ignore[no-untyped-call]
            frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
        yield frame


def _pushed_in(picture: Image.Image, size: tuple[int, int], steps: int) -> Iterator[Image.Image]:
    # Shrunk once to what the closest frame needs; each frame then costs little.
    close_up = (round(size[0] * (1 + PUSH_IN)), round(size[1] * (1 + PUSH_IN)))
    picture = picture.resize(close_up, Image.Resampling.LANCZOS)
    for number in range(steps):
        shown = 1 / (1 + PUSH_IN * number / max(1, steps - 1))
        left = picture.width * (1 - shown) / 2
        top = picture.height * (1 - shown) / 3  # towards where a portrait has its face
        box = (left, top, left + picture.width * shown, top + picture.height * shown)
        yield picture.resize(size, Image.Resampling.BILINEAR, box=box)
