"""The notify function on SNS as moto plays it: a queue that subscribed gets the notice."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from local.contract import EVENTS
from tests.support.environment import forget_clients
from tests.support.fault_account import CONTEXT, load_step
from tests.support.log_lines import log_lines
from tests.support.render_account import REGION

Event = dict[str, Any]
ACCOUNT = "123456789012"


@pytest.fixture
def subscriber(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a queue that subscribed to the topic."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    forget_clients()
    with mock_aws():
        sns: Any = boto3.client("sns")
        topic = sns.create_topic(Name="people")["TopicArn"]
        url = boto3.client("sqs").create_queue(QueueName="reader")["QueueUrl"]
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:reader"
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        monkeypatch.setenv("NOTIFY_TOPIC", topic)
        yield url
    forget_clients()


def example(name: str) -> Event:
    event: Event = json.loads((EVENTS / f"{name}.example.json").read_text())
    return event


def received(url: str) -> list[Event]:
    got = boto3.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    return [json.loads(one["Body"]) for one in got.get("Messages", [])]


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("video-ready", "Video ready: team/anna"),
        ("video-failed", "Video failed: team/anna"),
        ("upload-incomplete", "Upload incomplete: team/ben"),
    ],
)
def test_an_event_becomes_one_notice(subscriber: str, name: str, subject: str) -> None:
    assert load_step("notify").handler(example(name), CONTEXT) is None

    [notice] = received(subscriber)
    assert notice["Subject"] == subject
    assert notice["MessageAttributes"]["event"]["Value"] == example(name)["detail-type"]
    assert notice["Message"].startswith(("The video of ", "A file of "))


def test_one_line_names_the_job_and_none_has_its_words(subscriber: str) -> None:
    app, ready = load_step("notify"), example("video-ready")
    incomplete = example("upload-incomplete")
    ready["detail"]["job"]["prompt"] = "a secret of hers"

    with log_lines() as lines:
        app.handler(ready, CONTEXT)
        app.handler(incomplete, CONTEXT)

    of_ready, of_incomplete = lines.taken()
    assert of_ready["message"] == "Notice sent: Video Ready"
    job = ready["detail"]["job"]
    assert (of_ready["job_id"], of_ready["run"], of_ready["folder"]) == (job["id"], 1, "team/")
    assert (of_incomplete["folder"], of_incomplete["stem"]) == ("team/", "ben")
    assert "job_id" not in of_incomplete
    assert "secret" not in json.dumps([of_ready, of_incomplete])


def test_a_topic_that_is_gone_is_a_fault_so_that_lambda_tries_again(
    subscriber: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_TOPIC", f"arn:aws:sns:{REGION}:{ACCOUNT}:gone")

    with pytest.raises(ClientError, match="NotFound"):
        load_step("notify").handler(example("video-ready"), CONTEXT)

    assert received(subscriber) == []
