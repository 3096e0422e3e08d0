"""Reads the embedded metric format as CloudWatch does, and a stand-in for who writes it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from dropreel.model.metrics import Metric

Recorded = Mapping[Metric, float]
Dimensions = frozenset[tuple[str, str]]


class Value(NamedTuple):
    """One value of one metric: a line gives a value to each of its sets of dimensions."""

    namespace: str
    metric: str
    dimensions: Dimensions
    unit: str
    value: float
    at_ms: int


def values_in(lines: Iterable[str]) -> Iterator[Value]:
    """Other lines of a log are passed over."""
    for line in lines:
        if '"CloudWatchMetrics"' in line:
            yield from _values(json.loads(line[line.index("{") :]))


def _values(line: dict[str, Any]) -> Iterator[Value]:
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            for metric in directive["Metrics"]:
                given = line[metric["Name"]]
                for value in given if isinstance(given, list) else [given]:
                    yield Value(
                        directive["Namespace"],
                        metric["Name"],
                        frozenset((name, line[name]) for name in names),
                        metric["Unit"],
                        value,
                        line["_aws"]["Timestamp"],
                    )


class FakeMeter:
    """Satisfies `Meter`."""

    def __init__(self) -> None:
        self.recorded: list[tuple[tuple[str | None, str | None], Recorded]] = []

    def record(
        self, values: Recorded, *, provider: str | None = None, model: str | None = None
    ) -> None:
        self.recorded.append(((provider, model), values))
