"""The deployed template on an embedded AWS of its own, with short waits by configuration."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dropreel.model.catalog import MODELS
from dropreel.model.events import FOR_DISPLAY
from dropreel.model.job import INBOX, Input, Role, job_id
from local import embedded
from local.embedded import PROJECT, Environment, Home

PATIENCE_SECONDS = 90  # a slow machine may need half of it for the burst
RUNCOMFY_SLOTS = 3
WAVESPEED_SLOTS = 2
DAILY_LIMIT_USD = 1000
TOO_DEAR = ("wavespeed-ai/wan-2.2/speech-to-video", "720p")
MODEL = "wan-2.2-speech-to-video"
PORTRAIT = PROJECT / "samples/portrait.png"
SPEECH = PROJECT / "samples/speech.mp3"

OVERRIDES = json.dumps(
    {
        offer.endpoint: {
            "usd_per_second": {
                resolution: DAILY_LIMIT_USD if (offer.endpoint, resolution) == TOO_DEAR else 0.05
                for resolution in option.values
            }
        }
        for model in MODELS.values()
        for offer in model.route
        if offer.on and (option := offer.option("resolution"))
    }
)
"""Beside a limit, what has no price is passed over. One is more than a day may cost."""

Event = dict[str, Any]


@dataclass
class Stack:
    """What a person, a consumer and an owner can see of the deployed stack."""

    environment: Environment
    home: Home
    display_queue_url: str = ""
    events: list[Event] = field(default_factory=list)
    display_events: list[Event] = field(default_factory=list)
    notices: dict[str, str] = field(default_factory=dict)

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3's clients are of no common type
        return embedded.client(self.environment, service)

    # As a person who drops files

    def upload(self, key: str, body: bytes) -> Input:
        put = self.client("s3").put_object(
            Bucket=self.environment["UPLOAD_BUCKET"], Key=f"{INBOX}{key}", Body=body
        )
        role = Role.AUDIO if key.endswith((".mp3", ".wav")) else Role.IMAGE
        return Input(
            role=role, key=f"{INBOX}{key}", version_id=put["VersionId"], size_bytes=len(body)
        )

    def delete(self, key: str) -> None:
        """As people do: the bucket keeps the version."""
        self.client("s3").delete_object(
            Bucket=self.environment["UPLOAD_BUCKET"], Key=f"{INBOX}{key}"
        )

    def drop(self, stem: str, *, image: bytes | None = None, audio: bytes | None = None) -> str:
        """A picture and a voice, in this order; returns the id of the job that they make."""
        given = (
            self.upload(f"{stem}.png", PORTRAIT.read_bytes() if image is None else image),
            self.upload(f"{stem}.mp3", SPEECH.read_bytes() if audio is None else audio),
        )
        return job_of(stem, *given)

    def video_bucket(self, key: str) -> bytes | None:
        s3 = self.client("s3")
        try:
            body: bytes = s3.get_object(Bucket=self.environment["VIDEO_BUCKET"], Key=key)[
                "Body"
            ].read()
        except s3.exceptions.NoSuchKey:
            return None
        return body

    # As a consumer of the events

    def event(self, about: Callable[[Event], bool]) -> Event:
        """The first event that is about it; fails when none comes in time."""
        event: Event = until(
            lambda: next((e for e in self.all_events() if about(e)), None), "the event"
        )
        return event

    def event_of(self, job: str) -> Event:
        return self.event(lambda event: event["detail"].get("job", {}).get("id") == job)

    def all_events(self) -> list[Event]:
        """Without those for display."""
        return self._taken(self.environment["EVENTS_QUEUE_URL"], self.events)

    def displayed(self) -> list[Event]:
        """The events for display."""
        return self._taken(self.display_queue_url, self.display_events)

    def _taken(self, queue: str, events: list[Event]) -> list[Event]:
        sqs = self.client("sqs")
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                events.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return events

    # As a person who subscribed to notices

    def notice_of(self, subject: str) -> str:
        """The text of the first notice with this subject."""
        sqs, queue = self.client("sqs"), self.environment["NOTICES_QUEUE_URL"]

        def look() -> str | None:
            got = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
            for message in got:
                notice = json.loads(message["Body"])
                self.notices[notice["Subject"]] = notice["Message"]
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            return self.notices.get(subject)

        text: str = until(look, f"the notice {subject}")
        return text

    # As the owner

    def execution_arn(self, job: str) -> str:
        machine = self.environment["STATE_MACHINE_ARN"]
        return f"{machine.replace(':stateMachine:', ':execution:')}:{job}"

    def executions(self, stem: str) -> list[dict[str, Any]]:
        """All executions whose name begins with a slug."""
        pages = self.client("stepfunctions").get_paginator("list_executions")
        listed = pages.paginate(stateMachineArn=self.environment["STATE_MACHINE_ARN"])
        return [e for page in listed for e in page["executions"] if e["name"].startswith(stem)]

    def ended(self, job: str) -> str:
        """The status that the execution of a job ended with."""
        states, arn = self.client("stepfunctions"), self.execution_arn(job)

        def status() -> str | None:
            try:
                now: str = states.describe_execution(executionArn=arn)["status"]
            except states.exceptions.ExecutionDoesNotExist:
                return None
            return None if now == "RUNNING" else now

        end: str = until(status, f"the end of {job}")
        return end

    def ledger(self, prefix: str) -> list[dict[str, Any]]:
        """What the ledger has whose key begins like this."""
        pages = self.client("dynamodb").get_paginator("scan")
        table = self.output("LedgerTable")
        items = [item for page in pages.paginate(TableName=table) for item in page["Items"]]
        return [item for item in items if item["pk"]["S"].startswith(prefix)]

    def output(self, name: str) -> str:
        (stack,) = self.client("cloudformation").describe_stacks(StackName=embedded.STACK)["Stacks"]
        values = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
        value: str = values[name]
        return value

    def operate(self, *arguments: str, typed: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "operate", *arguments],
            cwd=PROJECT,
            env={
                **os.environ,
                **self.environment,
                "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "layers/dropreel")]),
            },
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )

    def serve_waiting(self) -> None:
        """As every minute."""
        serve = json.dumps({"serve": "waiting jobs"}).encode()
        function = self.output("SweepFunctionName")
        self.client("lambda").invoke(FunctionName=function, Payload=serve)

    def idle(self, queue: str) -> bool:
        """Whether a queue has no message left, seen or unseen."""
        return self.waiting(queue) == 0

    def waiting(self, queue: str) -> int:
        """How many messages a queue has, seen or unseen."""
        counts = self.client("sqs").get_queue_attributes(
            QueueUrl=queue,
            AttributeNames=[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
            ],
        )["Attributes"]
        return sum(int(count) for count in counts.values())

    def all_logs(self) -> str:
        logs = self.client("logs")
        groups = [g["logGroupName"] for g in logs.describe_log_groups()["logGroups"]]
        return "\n".join(
            event["message"]
            for group in groups
            for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group)
            for event in page["events"]
        )

    def all_histories(self) -> str:
        history = self.client("stepfunctions").get_paginator("get_execution_history")
        pages = (history.paginate(executionArn=e["executionArn"]) for e in self.executions(""))
        return json.dumps([page["events"] for job in pages for page in job], default=str)

    def all_files(self) -> str:
        """Every JSON file beside the videos."""
        bucket = self.environment["VIDEO_BUCKET"]
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [o["Key"] for page in pages for o in page.get("Contents", [])]
        return "\n".join(
            (self.video_bucket(key) or b"").decode() for key in keys if key.endswith(".json")
        )

    # As the providers' stand-ins

    def fault(self, provider: str = "runcomfy", **choices: object) -> None:
        self._standin(provider, "faults", choices)

    def faults(self, match: str, provider: str = "runcomfy") -> list[dict[str, Any]]:
        """What is still to come of the faults that were ordered."""
        listed = self._standin(provider, "faults")["faults"]
        return [fault for fault in listed if fault["match"] == match]

    def submissions(self, stem: str, provider: str = "runcomfy") -> list[dict[str, Any]]:
        """What a stand-in was asked to render, by a part of the inputs' paths."""
        asked = self._standin(provider, "requests")["submissions"]
        return [one for one in asked if any(stem in path for path in one["inputs"])]

    def most_in_flight(self, provider: str = "runcomfy") -> int:
        most: int = self._standin(provider, "requests")["most_in_flight"]
        return most

    def open_again(self, provider: str) -> None:
        """At once, for other tests. It is closed: else DynamoDB refuses the deletion."""
        self.client("dynamodb").delete_item(
            TableName=self.environment["LEDGER_TABLE"],
            Key={"pk": {"S": "closed"}, "sk": {"S": provider}},
            ConditionExpression="attribute_exists(pk)",
        )

    def _standin(self, provider: str, path: str, body: object = None) -> Any:  # noqa: ANN401
        request = urllib.request.Request(
            f"{self.environment[f'{provider.upper()}_URL']}/_standin/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")


def job_of(stem: str, *inputs: Input) -> str:
    return job_id(Path(stem).name, MODEL, inputs)


def until(look: Callable[[], Any], what: str) -> Any:  # noqa: ANN401 - whatever look finds
    """Look until there is something; fail after a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    pytest.fail(f"{what} did not come within {PATIENCE_SECONDS} s")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    home = Home(embedded.OUT / "e2e")
    embedded.down(home)
    environment = embedded.up(
        home,
        standin_options=["--queue-seconds", "0.3", "--render-seconds", "0.7"],
        parameters={
            "SettleSeconds": "0",
            "IncompleteAfterMinutes": "0.15",
            "RunComfyMaxInFlight": str(RUNCOMFY_SLOTS),
            "WaveSpeedMaxInFlight": str(WAVESPEED_SLOTS),
            "WaveSpeedMaxSubmitsPerMinute": "60",
            "DailyRenderLimit": "1000",
            "DailySpendLimitUsd": str(DAILY_LIMIT_USD),
            "CatalogOverrides": OVERRIDES,
        },
        max_wait_seconds=1,
        say=lambda _: None,
    )
    display = embedded.subscribe_queue(
        environment, environment["EVENT_BUS"], "display", FOR_DISPLAY
    )
    stack = Stack(environment, home, display)
    environment["NOTICES_QUEUE_URL"] = subscribe_queue_to(stack, stack.output("NotifyTopicArn"))
    yield stack
    embedded.down(home)


def subscribe_queue_to(stack: Stack, topic: str) -> str:
    """The URL of a queue that gets each notice."""
    sqs = stack.client("sqs")
    url: str = sqs.create_queue(QueueName="notices")["QueueUrl"]
    got = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    allow = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": got["QueueArn"],
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    stack.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=got["QueueArn"])
    return url
