"""Draw the README's picture: what you drop, and what comes back.

    python -m local.picture out/anna.mp4 [docs/dropreel.png]

The video is one that `make demo IMAGE=anna.png` made. Its event is in the same folder, as
`anna.event.json`.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import av
from PIL import Image, ImageDraw, ImageFont, ImageOps

PROJECT: Final = Path(__file__).resolve().parent.parent
PORTRAIT: Final = PROJECT / "samples" / "portrait.png"
SPEECH: Final = PROJECT / "samples" / "speech.mp3"
PICTURE: Final = PROJECT / "docs" / "dropreel.png"

_SCALE: Final = 2  # drawn larger than it is stored, for smooth edges
_WIDTH, _HEIGHT = 1200, 420
_TOP, _SIDE = 50, 226  # of the portrait and of each frame
_NAMES, _BELOW = _TOP + _SIDE + 4, _TOP + _SIDE + 38
_SHOWN_AT: Final = (0.02, 0.5, 0.97)  # of the video's length

_INK, _GREY, _BLUE, _PAPER, _RULE = "#1f2328", "#59636e", "#0969da", "#f6f8fa", "#d1d9e0"

_Box = tuple[int, int, int, int]  # left, top, right, bottom


class _Canvas:
    """A page whose coordinates are those of the stored picture."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), "white")
        self._draw = ImageDraw.Draw(self.image)

    def text(self, x: int, y: int, words: str, size: int, colour: str = _INK) -> None:
        font = ImageFont.load_default(size * _SCALE)
        self._draw.text((x * _SCALE, y * _SCALE), words, fill=colour, font=font)

    def panel(self, box: _Box) -> None:
        scaled = [edge * _SCALE for edge in box]
        self._draw.rounded_rectangle(scaled, 8 * _SCALE, fill=_PAPER, outline=_RULE, width=_SCALE)

    def bar(self, x: float, y: float, width: float, height: float) -> None:
        edges = [edge * _SCALE for edge in (x, y, x + width, y + height)]
        self._draw.rounded_rectangle(edges, width * _SCALE / 2, fill=_BLUE)

    def arrow(self, left: int, right: int, y: int) -> None:
        points = [(left, y - 4), (right - 20, y - 4), (right - 20, y - 15), (right, y)]
        mirrored = [(x, 2 * y - at) for x, at in reversed(points[:-1])]
        self._draw.polygon([(x * _SCALE, at * _SCALE) for x, at in points + mirrored], fill=_BLUE)

    def paste(self, picture: Image.Image, x: int, y: int, size: int) -> None:
        """A square with round corners."""
        side = size * _SCALE
        mask = Image.new("L", (side, side), 0)
        corners = ImageDraw.Draw(mask)
        corners.rounded_rectangle([0, 0, side - 1, side - 1], 8 * _SCALE, fill=255)
        self.image.paste(ImageOps.fit(picture, (side, side)), (x * _SCALE, y * _SCALE), mask)

    def save(self, path: Path) -> None:
        small = self.image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
        path.parent.mkdir(parents=True, exist_ok=True)
        small.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def loudness(audio: Path, bars: int) -> list[float]:
    """The loudest sample of each part of a recording, from 0 to 1."""
    with av.open(str(audio)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=8_000)
        samples = [
            abs(int(sample))
            for frame in container.decode(audio=0)
            for resampled in resampler.resample(frame)
            for sample in memoryview(bytes(resampled.planes[0])).cast("h")[: resampled.samples]
        ]
    edges = [len(samples) * bar // bars for bar in range(bars + 1)]
    peaks = [max(samples[edges[bar] : edges[bar + 1]], default=0) for bar in range(bars)]
    loudest = max(*peaks, 1)
    return [peak / loudest for peak in peaks]


def frames(video: Path) -> list[Image.Image]:
    """Three frames: near the start, in the middle, near the end."""
    with av.open(str(video)) as container:
        decoded = list(container.decode(video=0))
    return [_image(decoded[int(at * (len(decoded) - 1))]) for at in _SHOWN_AT]


def _image(frame: av.VideoFrame) -> Image.Image:
    image = frame.to_image()  # type: ignore[no-untyped-call]
    assert isinstance(image, Image.Image)
    return image


def event_lines(event: dict[str, Any]) -> Iterator[str]:
    """The parts of a `Video Ready` event that people look for, as JSON."""
    detail = event["detail"]
    job, video, render = detail["job"], detail["video"], detail["render"]
    parts = {
        "detail-type": event["detail-type"],
        "job": {"id": job["id"], "run": job["run"]},
        "video": {name: video[name] for name in ("key", "duration_seconds", "width", "height")},
        "render": {name: render[name] for name in ("provider", "rendering_seconds")},
    }
    for name, value in parts.items():
        yield f'"{name}": {json.dumps(value)},'


def draw(video: Path, event: dict[str, Any]) -> _Canvas:
    canvas = _Canvas()
    _what_you_drop(canvas)
    canvas.arrow(304, 414, _TOP + _SIDE // 2)
    _what_comes_back(canvas, frames(video), list(event_lines(event)))
    return canvas


def _what_you_drop(canvas: _Canvas) -> None:
    left = 40
    canvas.text(left, 18, "You drop", 20, _GREY)
    with Image.open(PORTRAIT) as portrait:
        canvas.paste(portrait.convert("RGB"), left, _TOP, _SIDE)
    canvas.text(left, _NAMES, "inbox/anna.png", 18)
    canvas.panel((left, _BELOW, left + _SIDE, _BELOW + 54))
    _waveform(canvas, loudness(SPEECH, 41), left + 12, _BELOW + 27)
    canvas.text(left, _BELOW + 60, "inbox/anna.mp3", 18)


def _waveform(canvas: _Canvas, peaks: list[float], left: int, middle: int) -> None:
    for place, peak in enumerate(peaks):
        height = max(4.0, 42 * peak)
        canvas.bar(left + place * 5, middle - height / 2, 3, height)


def _what_comes_back(canvas: _Canvas, shown: list[Image.Image], lines: list[str]) -> None:
    left, gap = 452, 15
    right = left + 3 * _SIDE + 2 * gap
    canvas.text(left, 18, "You get back", 20, _GREY)
    for place, frame in enumerate(shown):
        canvas.paste(frame, left + place * (_SIDE + gap), _TOP, _SIDE)
    canvas.text(left, _NAMES, "anna.mp4, and an event", 18)
    canvas.panel((left, _BELOW, right, _BELOW + 90))
    for row, line in enumerate(lines):
        canvas.text(left + 14, _BELOW + 6 + row * 20, line, 15)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw what you drop, and what comes back.")
    parser.add_argument("video", type=Path, help="an MP4 that `make demo` made")
    parser.add_argument("picture", type=Path, nargs="?", default=PICTURE)
    asked = parser.parse_args()
    event = json.loads(asked.video.with_suffix(".event.json").read_text("utf-8"))
    draw(asked.video, event).save(asked.picture)


if __name__ == "__main__":
    main()
