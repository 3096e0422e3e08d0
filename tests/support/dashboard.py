"""The template's dashboard, as CloudFormation makes it, and what it shows."""

import json
import re
from typing import Any, NamedTuple

from tests.support.sam_template import of_type

STACK = "dropreel"


class Shown(NamedTuple):
    """A metric that a dashboard or an alarm names."""

    namespace: str
    metric: str
    dimensions: frozenset[tuple[str, str]]


def body() -> dict[str, Any]:
    (dashboard,) = of_type("AWS::CloudWatch::Dashboard").values()
    text: str = dashboard["DashboardBody"]["Sub"].replace("${AWS::StackName}", STACK)
    made: dict[str, Any] = json.loads(re.sub(r"\$\{(AWS::)?([\w.]+)\}", r"\2", text))
    return made


def lines(widget: dict[str, Any]) -> list[Any]:
    metrics: list[Any] = widget["properties"].get("metrics", [])
    return metrics


def shown() -> set[Shown]:
    return {
        Shown(line[0], line[1], frozenset(zip(line[2:-1:2], line[3:-1:2], strict=True)))
        for widget in body()["widgets"]
        for line in lines(widget)
        if "expression" not in line[0]
    }


def searched() -> list[tuple[str, tuple[str, ...], str]]:
    """The namespace, the names of the dimensions and the metric of each search."""
    found = re.findall(
        r"SEARCH\('\{(\w+),([\w,]+)\} MetricName=\"(\w+)\" service=\"dropreel\"'",
        " ".join(
            line[0]["expression"]
            for widget in body()["widgets"]
            for line in lines(widget)
            if "expression" in line[0]
        ),
    )
    return [(namespace, tuple(names.split(",")), metric) for namespace, names, metric in found]
