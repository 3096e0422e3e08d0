"""The picture of the dashboard shows what CloudWatch would."""

import pytest

from local.emf import Value, statistic
from local.panels import Measured, draw
from tests.support import dashboard

STACK = ("service", dashboard.STACK)
ALARM_ARN = "arn:aws:cloudwatch:eu-central-2:000000000000:alarm:dropreel-{}-1A2B"


def value(metric: str, of: float, second: float, *dimensions: tuple[str, str]) -> Value:
    at_ms = int(1000 * second)
    return Value("Dropreel", metric, frozenset({STACK, *dimensions}), "Count", of, at_ms)


def panel(title: str) -> dict[str, object]:
    (properties,) = (
        widget["properties"]
        for widget in dashboard.body()["widgets"]
        if widget["properties"]["title"] == title
    )
    found: dict[str, object] = properties
    return found


@pytest.mark.parametrize(
    ("name", "expected"), [("Sum", 10), ("Maximum", 4), ("p50", 2), ("p90", 4), ("p25", 1)]
)
def test_statistics(name: str, expected: float) -> None:
    assert statistic(name, [4, 1, 3, 2]) == expected


def test_a_period_makes_one_point_of_its_values() -> None:
    values = [
        value("JobsReady", 1, 1),
        value("JobsReady", 1, 2),
        value("JobsReady", 0, 20),
        value("JobsReady", 1, 3, ("provider", "runcomfy"), ("model", "m")),
    ]

    ready, failed, *_ = Measured(values, 0, 30_000, 10).lines(panel("Jobs that ended"))

    assert (ready.label, ready.points) == ("ready", ((5, 2), (25, 0)))
    assert failed.points == ()


def test_an_expression_shows_the_hidden_metric_in_its_unit() -> None:
    values = [value("OldestWaiterSeconds", 90, 1)]

    (minutes,) = Measured(values, 0, 30_000, 10).lines(
        panel("Minutes since the oldest of them started")
    )

    assert minutes.points == ((5, 1.5),)


def test_a_search_finds_each_provider_and_model() -> None:
    dimensions = [("provider", "runcomfy"), ("model", "wan")], [("provider", "w"), ("model", "wan")]
    values = [value("RenderingSeconds", 8, 1, *each) for each in dimensions]
    values.append(value("RenderingSeconds", 9, 1))  # of the stack as a whole

    lines = Measured(values, 0, 30_000, 10).lines(panel("Seconds rendering, by model (median)"))

    assert [line.label for line in lines] == ["runcomfy wan", "w wan"]
    assert [line.points for line in lines] == [((5, 8),)] * 2


def test_the_templates_dashboard_can_be_drawn() -> None:
    body = dashboard.body()
    names = [name.removesuffix(".Arn") for name in body["widgets"][0]["properties"]["alarms"]]
    body["widgets"][0]["properties"]["alarms"] = [ALARM_ARN.format(name) for name in names]
    states = dict.fromkeys(body["widgets"][0]["properties"]["alarms"], "OK")

    page = draw(body, Measured([value("JobsReady", 1, 1)], 0, 90_000, 10), states)

    assert len(page.image.getcolors(1 << 24) or []) > 20
