"""Small real videos for tests, made with PyAV, and the boxes to spoil them with."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av

from tests.support.media_samples import tone

WIDTH, HEIGHT = 64, 48


@cache
def tiny_video(
    movflags: str = "", container: str = "mp4", *, seconds: float = 1, sound: bool = False
) -> bytes:
    """H.264, 64 by 48 pixels; `faststart` puts the description first. With `sound`, a silent track
    of the same length."""
    options = {"movflags": movflags} if movflags else {}
    # A real file, because ffmpeg reads it again to move the description to the front.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        with av.open(path, "w", format=container, options=options) as out:
            stream = out.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            voice = out.add_stream("aac", rate=8000, layout="mono") if sound else None
            for number in range(round(seconds * 10)):
                picture = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
                for plane in picture.planes:
                    plane.update(bytes([number % 10 * 20]) * plane.buffer_size)
                out.mux(stream.encode(picture))
            out.mux(stream.encode())
            if voice:
                silence = av.AudioFrame("fltp", "mono", round(seconds * 8000))
                silence.rate, silence.pts = 8000, 0
                silence.planes[0].update(bytes(silence.planes[0].buffer_size))
                out.mux([*voice.encode(silence), *voice.encode()])
        return path.read_bytes()


@cache
def tiny_sound() -> bytes:
    """A second of sound as an M4A, which is an MP4 without a video."""
    return tone("mp4", "aac", 1)


def box(kind: bytes, body: bytes = b"") -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def padded(video: bytes, size_bytes: int) -> bytes:
    """The same video, made as long as asked with a `free` box, which players skip."""
    return video + box(b"free", bytes(size_bytes - len(video) - 8))
