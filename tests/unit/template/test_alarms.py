"""What alarms and the dashboard look at is what the functions write."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from dropreel.model.catalog import TITLES
from dropreel.model.events import VideoReady
from dropreel.model.metrics import Metric
from dropreel.outcome.announcement import announce
from dropreel.outcome.measurement import measure
from dropreel.render.admission import Lease, Waiter
from dropreel.render.spending import Day
from dropreel.render.standstill import Watch
from dropreel.runtime.metrics import EmfMeter
from local.emf import Value, values_in
from tests.support import dashboard
from tests.support.conclusion_bench import READY, RUN, failed_in
from tests.support.dashboard import Shown
from tests.support.log_lines import log_lines
from tests.support.meter import FakeMeter
from tests.support.render_fakes import JOB, NOON, MemoryLedger
from tests.support.sam_template import TEMPLATE, of_type

ALARMS = of_type("AWS::CloudWatch::Alarm")
HOUR, DAY, WEEK = 3600, 86_400, 7 * 86_400
QUEUES = {f"{queue}.QueueName" for queue in of_type("AWS::SQS::Queue")}


class NobodyWaits:
    def count_waiters(self, provider: str, at_most: int) -> int:
        return 0

    def oldest_waiters(self, provider: str) -> tuple[Waiter, ...]:
        return ()

    def leases(self, provider: str) -> tuple[Lease, ...]:
        return ()

    def day(self, day: object) -> Day:
        return Day()


@pytest.fixture
def written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], list[Value]]:
    """All that the functions measure, as CloudWatch reads it."""

    def write() -> list[Value]:
        variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
        assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}
        monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", dashboard.STACK)
        meter = EmfMeter()
        Watch(
            NobodyWaits(),
            meter,
            lambda: datetime.now(UTC),
            dict.fromkeys(TITLES, 2),
            closures=tuple,
            daily_usd=Decimal(5),
        ).measure()
        assert isinstance(READY.detail, VideoReady)
        render = READY.detail.render
        for provider in TITLES:
            made_there = render.model_copy(update={"provider": provider})
            measure(
                READY.detail.model_copy(update={"actual_usd": 0.1, "render": made_there}), meter
            )
        # As intake and the full sweep record them: their own tests hold that.
        meter.record({Metric.UPLOADS_INCOMPLETE: 1})
        meter.record({Metric.SWEEPS_DONE: 1})
        return list(values_in(capsys.readouterr().out.splitlines()))

    return write


def seen_by(alarm: dict[str, Any]) -> set[Shown]:
    metrics = [
        (query["MetricStat"]["Metric"])
        for query in alarm.get("Metrics", [])
        if "MetricStat" in query
    ] or [alarm]
    return {
        Shown(
            one["Namespace"],
            one["MetricName"],
            frozenset((it["Name"], _text(it["Value"])) for it in one["Dimensions"]),
        )
        for one in metrics
    }


def _text(value: Any) -> str:  # noqa: ANN401 - as YAML has it
    if value == {"Ref": "AWS::StackName"}:
        return dashboard.STACK
    text: str = value["GetAtt"] if isinstance(value, dict) else value
    return text


def is_dead_letters(shown: Shown) -> bool:
    ((name, queue),) = shown.dimensions if len(shown.dimensions) == 1 else [("", "")]
    return (shown.namespace, name) == ("AWS/SQS", "QueueName") and queue in QUEUES


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_sees_a_metric_that_is_written(
    name: str, written: Callable[[], list[Value]]
) -> None:
    there = {Shown(*value[:3]) for value in written()}

    for seen in seen_by(ALARMS[name]):
        assert is_dead_letters(seen) or seen in there


def test_the_dashboard_shows_metrics_that_are_written(
    written: Callable[[], list[Value]],
) -> None:
    there = {Shown(*value[:3]) for value in written()}

    assert [one for one in dashboard.shown() if not is_dead_letters(one) and one not in there] == []
    for namespace, names, metric in dashboard.searched():
        assert (namespace, metric, {*names}) in [
            (one.namespace, one.metric, {name for name, _ in one.dimensions}) for one in there
        ]
    assert dashboard.searched()


def test_the_dashboard_shows_each_metric_each_provider_and_each_alarm(
    written: Callable[[], list[Value]],
) -> None:
    on_it = dashboard.shown()
    (states,) = (it for it in dashboard.body()["widgets"] if it["type"] == "alarm")

    only_alarms = {"SweepsDone", "ProviderClosed"}
    assert {it.metric for it in on_it if it.namespace == "Dropreel"} == {*Metric} - only_alarms
    assert {value for it in on_it for name, value in it.dimensions if name == "provider"} == {
        *TITLES
    }
    assert {arn.removesuffix(".Arn") for arn in states["properties"]["alarms"]} == set(ALARMS)


def test_no_panel_of_the_dashboard_lies_on_another() -> None:
    taken = [
        (x, y)
        for it in dashboard.body()["widgets"]
        for x in range(it["x"], it["x"] + it["width"])
        for y in range(it["y"], it["y"] + it["height"])
    ]

    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


@pytest.mark.parametrize("name", ALARMS)
def test_cloudwatch_takes_the_periods_of_an_alarm(name: str) -> None:
    """By the reference of PutMetricAlarm: a week, and a day for periods under an hour."""
    alarm = ALARMS[name]
    periods = [
        query["MetricStat"]["Period"] for query in alarm.get("Metrics", []) if "MetricStat" in query
    ] or [alarm["Period"]]

    for seconds in periods:
        assert seconds % 60 == 0
        assert seconds * alarm["EvaluationPeriods"] <= (WEEK if seconds >= HOUR else DAY)


@pytest.mark.parametrize(
    ("failed", "ready", "rings"),
    [
        (1, 0, False),  # one failure at night
        (2, 0, False),
        (3, 0, True),
        (3, 9, True),
        (3, 10, False),
        (100, 1000, False),
        (400, 1000, True),
        (0, 0, False),
    ],
)
def test_a_quarter_of_failures_rings_but_a_few_do_not(failed: int, ready: int, rings: bool) -> None:
    alarm = ALARMS["JobsFailingAlarm"]
    (share,) = (it["Expression"] for it in alarm["Metrics"] if "Expression" in it)

    # CloudWatch's arithmetic is Python's here. It drops a point whose divisor is 0.
    values = {"failed": failed, "ready": ready, "IF": lambda test, yes, no: yes() if test else no}
    python = share.replace("100 *", "lambda: 100 *")

    percent = eval(python, values)
    assert (percent >= alarm["Threshold"]) is rings
    assert [it.get("ReturnData", True) for it in alarm["Metrics"]] == [True, False, False]


def test_jobs_may_wait_for_midnight() -> None:
    assert ALARMS["JobsWaitingAlarm"]["Threshold"] > DAY


def test_missing_measurements_ring_by_the_state_that_a_new_alarm_has() -> None:
    """An alarm begins as INSUFFICIENT_DATA. With missing data as breaching, each new stack would
    send a mail; so only this one takes missing data for anything."""
    handling = {name: alarm["TreatMissingData"] for name, alarm in ALARMS.items()}
    alarm = ALARMS["WatchMissingAlarm"]

    assert handling.pop("WatchMissingAlarm") == "missing"
    assert set(handling.values()) == {"notBreaching"}
    assert alarm["InsufficientDataActions"] == alarm["AlarmActions"]


def test_the_saved_query_reads_the_line_that_announce_writes() -> None:
    ledger = MemoryLedger()
    ledger.end(JOB, NOON, failed_in("NoCredit"), NOON)
    (query,) = of_type("AWS::Logs::QueryDefinition").values()

    with log_lines() as lines:
        announce(
            JOB,
            NOON,
            RUN,
            ledger=ledger,
            bus=Ignoring(),
            meter=FakeMeter(),
            clock=lambda: NOON,
        )
        (line,) = lines.taken()

    assert (line["message"], line["code"]) == ("Announced", "NoCredit")
    assert query["QueryString"].startswith('filter message = "Announced" and code not in')
    assert query["LogGroupNames"] == [{"Ref": "AnnounceLogs"}, {"Ref": "ConcludeLogs"}]


class Ignoring:
    def announce(self, *_: object) -> None:
        pass
