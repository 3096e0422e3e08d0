"""Reads the embedded metric format (EMF) as CloudWatch does. MiniStack makes no metrics of it."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple


class Value(NamedTuple):
    """One value of one metric. A line gives a value to each of its sets of dimensions."""

    namespace: str
    metric: str
    dimensions: frozenset[tuple[str, str]]
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
            dimensions = frozenset((name, line[name]) for name in names)
            for metric in directive["Metrics"]:
                given = line[metric["Name"]]
                for value in given if isinstance(given, list) else [given]:
                    yield Value(
                        directive["Namespace"],
                        metric["Name"],
                        dimensions,
                        metric["Unit"],
                        value,
                        line["_aws"]["Timestamp"],
                    )


def statistic(name: str, values: Sequence[float]) -> float:
    """`Sum`, `Maximum`, or a percentile such as `p90`."""
    if name == "Sum":
        return sum(values)
    if name == "Maximum":
        return max(values)
    share = float(name.removeprefix("p")) / 100
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
