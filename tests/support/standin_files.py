"""Files for the stand-ins to fetch, good and bad, and a place on the web to fetch them from."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from local.standin.server import running

SAMPLES = Path(__file__).parents[2] / "samples"
PICTURE = (SAMPLES / "portrait.png").read_bytes()
VOICE = (SAMPLES / "speech.mp3").read_bytes()


def picture(width: int, height: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), "teal").save(file, kind)
    return file.getvalue()


def silence(seconds: float) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as recording:
        stream = recording.add_stream("pcm_s16le", rate=8_000, layout="mono")
        frame = av.AudioFrame("s16", "mono", int(seconds * 8_000))
        frame.rate = 8_000
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        recording.mux(stream.encode(frame))
        recording.mux(stream.encode())
    return file.getvalue()


FILES = {
    "anna.png": PICTURE,
    "anna.mp3": VOICE,
    "bob.png": PICTURE,
    "bob.mp3": VOICE,
    "least.jpg": picture(401, 401, "JPEG"),
    "tiny.jpg": picture(40, 40, "JPEG"),
    "brief.wav": silence(0.5),
    "three.wav": silence(3),
    "too-brief.wav": silence(2.9),
    "too-small.png": picture(400, 600),
    "too-large.png": picture(500, 7_000),
    "alpha.png": picture(500, 500, mode="RGBA"),
    "animation.gif": picture(500, 500, "GIF"),
    "bitmap.bmp": picture(500, 500, "BMP"),
    "cut-off.png": PICTURE[:300_000],
    "text.png": b"I am no picture.",
    "text.mp3": b"I am no recording.",
    "empty.png": b"",
    "too-long.wav": silence(20),
    "thirty-one.wav": silence(31),
    "two-minutes.wav": silence(120.5),
    "too-heavy.mp3": VOICE + bytes(15_000_000 - len(VOICE)),
}


def _serve(request: Request) -> Response:
    name = request.path_params["name"]
    if request.query_params.get("signature") != "good":
        return Response(status_code=403)
    if name == "moved.png":
        return RedirectResponse("/inbox/anna.png?signature=good")
    return Response(FILES[name]) if name in FILES else Response(status_code=404)


@contextmanager
def served() -> Iterator[str]:
    """The URL of the folder while the block runs; it wants a signature."""
    # The stand-in's own way to run a server needs nothing of the app but that it is one.
    with running(Starlette(routes=[Route("/inbox/{name}", _serve)])) as url:
        yield f"{url}/inbox"
