"""The film that a stand-in makes: a slow push-in on the picture, under the voice. No AI."""

import asyncio
import functools
import hashlib
import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import av
from PIL import Image, ImageOps

FRAMES_PER_SECOND = 16  # what Wan 2.2's speech-to-video makes
SOUND_RATE = 44_100
PUSH_IN = 0.15  # of the picture's size, by the last frame
LONG_SIDE_AT_MOST = 1_920
SHORT_SIDE_PIXELS = {"480P": 480, "720P": 720}


@dataclass(frozen=True)
class Script:
    """All that decides what a film looks and sounds like."""

    picture: bytes
    voice: bytes
    short_side_pixels: int

    @functools.cached_property
    def digest(self) -> str:
        parts = (hashlib.sha256(part).hexdigest() for part in (self.picture, self.voice))
        return " ".join((*parts, str(self.short_side_pixels)))


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
    """An MP4 with H.264 and AAC, as long as the voice."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(script.picture))).convert("RGB")
    width, height = frame_size(picture.size, script.short_side_pixels)
    sound = _sound(script.voice)
    frames = max(1, round(sum(heard.samples for heard in sound) / SOUND_RATE * FRAMES_PER_SECOND))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as film:
        video = film.add_stream("libx264", rate=FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"preset": "veryfast", "crf": "23"}
        audio = film.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for number, image in enumerate(_pushed_in(picture, (width, height), frames)):
            frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            film.mux(video.encode(frame))
            # Sound and pictures lie side by side in the file, so that it plays while it loads.
            while sound and _seconds(sound[0]) <= _seconds(frame):
                film.mux(audio.encode(sound.popleft()))
        film.mux(video.encode())
        for heard in (*sound, None):
            film.mux(audio.encode(heard))
    return file.getvalue()


def frame_size(picture: tuple[int, int], short_side_pixels: int) -> tuple[int, int]:
    """The picture's shape in even numbers of pixels, which H.264's colours need."""
    scale = min(short_side_pixels / min(picture), LONG_SIDE_AT_MOST / max(picture))
    width, height = (max(2, round(side * scale / 2) * 2) for side in picture)
    return width, height


def _sound(voice: bytes) -> deque[av.AudioFrame]:
    frames: deque[av.AudioFrame] = deque()
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SOUND_RATE)
    samples = 0
    with av.open(io.BytesIO(voice), "r") as recording:
        for heard in (*recording.decode(audio=0), None):
            for frame in resampler.resample(heard):
                frame.pts, frame.time_base = samples, Fraction(1, SOUND_RATE)
                samples += frame.samples
                frames.append(frame)
    return frames


def _seconds(frame: av.AudioFrame | av.VideoFrame) -> Fraction:
    return (frame.pts or 0) * (frame.time_base or Fraction(1))


def _pushed_in(picture: Image.Image, size: tuple[int, int], frames: int) -> Iterator[Image.Image]:
    # Shrunk once to what the closest frame needs; each frame then costs little.
    close_up = (round(size[0] * (1 + PUSH_IN)), round(size[1] * (1 + PUSH_IN)))
    picture = picture.resize(close_up, Image.Resampling.LANCZOS)
    for number in range(frames):
        shown = 1 / (1 + PUSH_IN * number / max(1, frames - 1))
        left = picture.width * (1 - shown) / 2
        top = picture.height * (1 - shown) / 3  # towards where a portrait has its face
        box = (left, top, left + picture.width * shown, top + picture.height * shown)
        yield picture.resize(size, Image.Resampling.BILINEAR, box=box)
