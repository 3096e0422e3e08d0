"""The deployed alarms ring, and reach the topic. The embedded AWS makes no metrics of log lines, so
their values are put."""

import json
from typing import Any

import pytest

from tests.e2e.conftest import Stack, until
from tests.support.dashboard import body


@pytest.mark.parametrize(
    ("alarm", "quiet", "loud"),
    [
        ("JobsWaitingAlarm", 25 * 3600, 27 * 3600),
        ("DailySpendAlarm", 79, 80),
        ("IntakeDeadLettersAlarm", 0, 1),
    ],
)
def test_an_alarm_rings_and_says_where_to_read(
    stack: Stack, alarm: str, quiet: float, loud: float
) -> None:
    cloudwatch, sqs = stack.client("cloudwatch"), stack.client("sqs")
    queue_url = sqs.create_queue(QueueName=f"rings-{alarm}")["QueueUrl"]
    subscribe(stack, queue_url)

    put(stack, alarm, quiet)
    assert deployed(stack, alarm)["StateValue"] == "OK"
    put(stack, alarm, loud)
    assert deployed(stack, alarm)["StateValue"] == "ALARM"

    def rung() -> dict[str, Any] | None:
        got = sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=1).get("Messages", [])
        said = [json.loads(json.loads(message["Body"])["Message"]) for message in got]
        return next((it for it in said if alarm in it["AlarmName"]), None)

    notice = until(rung, "the alarm's notice")
    assert notice["NewStateValue"] == "ALARM"
    assert notice["AlarmDescription"].endswith(f"See docs/operating.md#{alarm.lower()}.")
    cloudwatch.set_alarm_state(
        AlarmName=deployed(stack, alarm)["AlarmName"], StateValue="OK", StateReason="The test ends"
    )


def test_the_dashboard_is_there(stack: Stack) -> None:
    there = stack.client("cloudwatch").get_dashboard(DashboardName="dropreel")["DashboardBody"]

    titles = [widget["properties"]["title"] for widget in json.loads(there)["widgets"]]
    assert titles == [widget["properties"]["title"] for widget in body()["widgets"]]


def deployed(stack: Stack, name: str) -> dict[str, Any]:
    alarms: list[dict[str, Any]] = stack.client("cloudwatch").describe_alarms()["MetricAlarms"]
    (alarm,) = (it for it in alarms if f"-{name}" in it["AlarmName"])
    return alarm


def put(stack: Stack, name: str, value: float) -> None:
    alarm = deployed(stack, name)
    datum = {
        "MetricName": alarm["MetricName"],
        "Dimensions": alarm["Dimensions"],
        "Value": value,
    }
    stack.client("cloudwatch").put_metric_data(Namespace=alarm["Namespace"], MetricData=[datum])


def subscribe(stack: Stack, queue_url: str) -> None:
    sqs, topic = stack.client("sqs"), stack.output("NotifyTopicArn")
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    queue = attributes["Attributes"]["QueueArn"]
    allow = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"Policy": policy})
    stack.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
