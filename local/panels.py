"""Draws a CloudWatch dashboard as a picture, from its body and from values of its metrics."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from local.emf import Value, statistic

_SCALE: Final = 2  # drawn larger than it is stored, for smooth edges
_COLUMN, _ROW, _GAP = 50, 36, 5
_INK, _GREY, _RULE, _PAPER, _PAGE = "#16191f", "#545b64", "#e3e6e8", "#ffffff", "#f2f3f3"
_STATES: Final = {"OK": "#2ca02c", "ALARM": "#d62728", "INSUFFICIENT_DATA": "#8c8c8c"}
_COLOURS: Final = ("#1f77b4", "#ff7f0e", "#17becf", "#9467bd")
_MAX_TICKS = 4

Json = dict[str, Any]
Box = tuple[float, float, float, float]  # left, top, right, bottom


class Line(NamedTuple):
    """One line of a panel: its points are seconds since the begin, and values."""

    label: str
    colour: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Measured:
    """What a dashboard shows, from `begin_ms` to `end_ms`, with a point for each period."""

    values: Sequence[Value]
    begin_ms: int
    end_ms: int
    period_seconds: float

    @property
    def seconds(self) -> float:
        return (self.end_ms - self.begin_ms) / 1000

    def lines(self, properties: Json) -> list[Line]:
        """Of a widget. Of its expressions it knows a search, and a metric divided by a number."""
        given = [(entry[:-1], entry[-1]) for entry in properties["metrics"]]
        hidden = {
            options["id"]: self._points(names, options.get("stat", properties["stat"]))
            for names, options in given
            if "id" in options
        }
        lines: list[Line] = []
        for names, options in given:
            if "expression" in options:
                lines += self._expressed(options, hidden)
            elif options.get("visible", True):
                points = self._points(names, options.get("stat", properties["stat"]))
                lines.append(Line(options["label"], options["color"], points))
        return lines

    def _expressed(
        self, options: Json, hidden: Mapping[str, tuple[tuple[float, float], ...]]
    ) -> Iterator[Line]:
        expression: str = options["expression"]
        if divided := re.fullmatch(r"(\w+) / (\d+)", expression):
            points = tuple((at, y / int(divided[2])) for at, y in hidden[divided[1]])
            yield Line(options["label"], options["color"], points)
            return
        schema = re.match(r"SEARCH\('\{(\w+),([\w,]+)\} MetricName=\"(\w+)\".*'(\w+)'", expression)
        assert schema, f"This drawing does not know: {expression}"
        namespace, names, metric, stat = schema.groups()
        of_metric = [v for v in self.values if (v.namespace, v.metric) == (namespace, metric)]
        found = sorted({tuple(sorted(v.dimensions)) for v in of_metric})
        fitting = [one for one in found if {name for name, _ in one} == {*names.split(",")}]
        for colour, dimensions in zip(_COLOURS, fitting, strict=False):
            label = " ".join(value for name, value in reversed(dimensions) if name != "service")
            asked = [namespace, metric, *(part for pair in dimensions for part in pair)]
            yield Line(label, colour, self._points(asked, stat))

    def _points(self, names: Sequence[str], stat: str) -> tuple[tuple[float, float], ...]:
        namespace, metric, *pairs = names
        dimensions = frozenset(zip(pairs[::2], pairs[1::2], strict=True))
        bins: dict[int, list[float]] = {}
        for value in self.values:
            if (value.namespace, value.metric, value.dimensions) == (namespace, metric, dimensions):
                place = (value.at_ms - self.begin_ms) / 1000 // self.period_seconds
                bins.setdefault(int(place), []).append(value.value)
        return tuple(
            ((place + 0.5) * self.period_seconds, statistic(stat, bins[place]))
            for place in sorted(bins)
        )


class Page:
    """The picture, in the pixels that are stored."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self.image = Image.new("RGB", (width * _SCALE, height * _SCALE), _PAGE)
        self._draw = ImageDraw.Draw(self.image)

    def text(  # noqa: PLR0917
        self, x: float, y: float, words: str, size: float, colour: str, anchor: str
    ) -> None:
        font = ImageFont.load_default(size * _SCALE)
        self._draw.text((x * _SCALE, y * _SCALE), words, fill=colour, font=font, anchor=anchor)

    def width_of(self, words: str, size: float) -> float:
        return ImageFont.load_default(size * _SCALE).getlength(words) / _SCALE

    def box(self, box: Box, fill: str, outline: str | None = None) -> None:
        scaled = [edge * _SCALE for edge in box]
        self._draw.rounded_rectangle(scaled, 3 * _SCALE, fill=fill, outline=outline, width=_SCALE)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 2) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        if len(scaled) == 1:
            ((x, y),) = scaled
            self._draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
        self._draw.line(scaled, fill=colour, width=round(width * _SCALE), joint="curve")

    def area(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], fill=colour)

    def save(self, path: Path) -> None:
        small = self.image.resize(self._size, Image.Resampling.LANCZOS)
        small.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def draw(body: Json, measured: Measured, states: Mapping[str, str]) -> Page:
    """The dashboard; `states` has the state of each alarm by its ARN."""
    widgets = body["widgets"]
    rows = max(widget["y"] + widget["height"] for widget in widgets)
    page = Page(24 * _COLUMN + _GAP, rows * _ROW + _GAP)
    for widget in widgets:
        left, top = widget["x"] * _COLUMN + _GAP, widget["y"] * _ROW + _GAP
        right = left + widget["width"] * _COLUMN - _GAP
        bottom = top + widget["height"] * _ROW - _GAP
        page.box((left, top, right, bottom), _PAPER, _RULE)
        page.text(left + 12, top + 10, widget["properties"]["title"], 14, _INK, "lt")
        inner = (left + 12, top + 36, right - 12, bottom - 8)
        if widget["type"] == "alarm":
            _draw_states(page, inner, widget["properties"]["alarms"], states)
        else:
            _draw_chart(page, inner, widget["properties"], measured)
    return page


def _draw_states(page: Page, box: Box, alarms: Sequence[str], states: Mapping[str, str]) -> None:
    left, top, right, bottom = box
    width = (right - left) / len(alarms)
    for place, arn in enumerate(alarms):
        x = left + place * width
        page.box((x, top, x + width - 8, bottom - 4), _PAPER, _RULE)
        page.box((x, top, x + 6, bottom - 4), _STATES[states[arn]])
        name = arn.rpartition(":")[2].split("-")[1].removesuffix("Alarm")
        page.text(x + 14, top + 10, name, 12, _INK, "lt")
        page.text(x + 14, top + 30, states[arn].replace("_", " "), 11, _GREY, "lt")


def _draw_chart(page: Page, box: Box, properties: Json, measured: Measured) -> None:
    lines = measured.lines(properties)
    left, top, right, bottom = box
    bottom = _draw_legend(page, (left, top, right, bottom), lines) - 22
    left += 34
    if properties["stacked"]:
        lines = _stacked(lines)
    limit = properties["yAxis"]["left"].get("max")
    marks = properties.get("annotations", {}).get("horizontal", [])
    peak = max((y for line in lines for _, y in line.points), default=0) or 1
    step = _step(limit or peak)
    highest = limit or step * math.ceil(peak / step)

    def place(at: float, y: float) -> tuple[float, float]:
        across = left + (right - left) * at / measured.seconds
        return across, bottom - (bottom - top) * y / highest

    for tick in range(round(highest / step) + 1):
        _, y = place(0, tick * step)
        page.line([(left, y), (right, y)], _RULE, 1)
        page.text(left - 6, y, f"{tick * step:g}", 11, _GREY, "rm")
    for minute in range(int(measured.seconds // 60) + 1):
        x, _ = place(minute * 60, 0)
        page.text(x, bottom + 5, f"{minute} min" if minute else "0", 11, _GREY, "mt")
    for line in reversed(lines) if properties["stacked"] else lines:
        points = [place(at, y) for at, y in line.points]
        if points and properties["stacked"]:
            page.area([(points[0][0], bottom), *points, (points[-1][0], bottom)], line.colour)
        elif points:
            page.line(points, line.colour)
    for mark in marks:
        _, y = place(0, mark["value"])
        page.line([(left, y), (right, y)], mark["color"], 1)
        page.text(right, y - 3, mark["label"], 11, mark["color"], "rb")


def _stacked(lines: Sequence[Line]) -> list[Line]:
    """Each on top of those before; where one has no value, it adds nothing."""
    times = sorted({at for line in lines for at, _ in line.points})
    below = dict.fromkeys(times, 0.0)
    stacked = []
    for line in lines:
        points = dict(line.points)
        below = {at: y + points.get(at, 0) for at, y in below.items()}
        stacked.append(line._replace(points=tuple(below.items())))
    return stacked


def _draw_legend(page: Page, box: Box, lines: Sequence[Line]) -> float:
    """At the bottom of the box; returns its top."""
    left, _, right, bottom = box
    rows: list[list[tuple[float, Line]]] = [[]]
    x = left
    for line in lines:
        width = page.width_of(line.label, 11) + 30
        if x + width > right and rows[-1]:
            rows.append([])
            x = left
        rows[-1].append((x, line))
        x += width
    top = bottom - 16 * len(rows)
    for row, entries in enumerate(rows):
        y = top + 16 * row + 8
        for x, line in entries:
            page.box((x, y - 4, x + 9, y + 5), line.colour)
            page.text(x + 14, y, line.label, 11, _INK, "lm")
    return top


def _step(highest: float) -> float:
    """Between two lines of the grid: 1, 2 or 5 times a power of ten."""
    rough = highest / _MAX_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * of for of in (1, 2, 5, 10) if power * of >= rough)
