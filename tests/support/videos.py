"""Small real videos for tests, made with PyAV, and the boxes to spoil them with."""

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av

WIDTH, HEIGHT, FRAMES, FRAMES_PER_SECOND = 64, 48, 10, 10


@cache
def tiny_video(movflags: str = "", container: str = "mp4") -> bytes:
    """One second of H.264, 64 by 48 pixels; `faststart` puts the description first."""
    options = {"movflags": movflags} if movflags else {}
    # A real file, because ffmpeg reads it again to move the description to the front.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        _film(path, options, container)
        return path.read_bytes()


def _film(path: Path, options: dict[str, str], container: str) -> None:
    with av.open(path, "w", format=container, options=options) as out:
        stream = out.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            picture = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes([number * 20]) * plane.buffer_size)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())


@cache
def tiny_sound() -> bytes:
    """A second of silence as an M4A, which is an MP4 without a video."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=8000)
        silence = av.AudioFrame("fltp", "mono", samples=8000)
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        silence.sample_rate = 8000
        out.mux(stream.encode(silence))
        out.mux(stream.encode())
    return file.getvalue()


def box(kind: bytes, body: bytes = b"") -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def padded(video: bytes, size_bytes: int) -> bytes:
    """The same video, made as long as asked with a `free` box, which players skip."""
    return video + box(b"free", bytes(size_bytes - len(video) - 8))
