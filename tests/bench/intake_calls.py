"""Count what intake asks of AWS for each pair that is dropped: `make bench-intake`.

    python -m tests.bench.intake_calls [--pairs 5000]

Intake's own handler gets batches of ten messages, as its queue would send them: the pictures' and
the voices' events interleaved, two batches at a time, a second each; and the messages that it sends
itself when they are due. The clock is the bench's own. AWS is in memory, because moto takes longer
for each listing the more files there are; for a hundred pairs moto counts too, and must count the
same. It fails if it does not, if a pair starts no job or two, or if a pair costs more calls than
`CALLS_AT_MOST`.
"""

import argparse
import bisect
import heapq
import io
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Protocol
from unittest.mock import patch

import boto3
import pytest
from botocore.client import BaseClient
from moto.dynamodb.comparisons import get_filter_expression
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.s3.models import s3_backends
from rich.console import Console
from rich.table import Table

from local.embedded import PROJECT
from tests.support.environment import forget_clients
from tests.support.fault_account import CONTEXT, load_step
from tests.support.render_account import REGION, UPLOADS, VIDEOS, render_account
from tests.support.sam_template import RESOURCES, TEMPLATE

CALLS_AT_MOST = 14.0
"""A pair of a burst may cost so many: two more than before copies in place cost nothing."""

DEFAULTS = b'{"resolution": "480p"}'
FILES_A_SECOND = 50
BATCH = 10
BATCH_SECONDS = 0.5  # two batches at a time, each a second: see MaximumConcurrency
OUT_OF_ORDER = 50  # SQS hands out any of so many that are due

EVENT = json.loads((PROJECT / "events/samples/object_created.json").read_text())

Answer = dict[str, Any]


def _parameter(value: Any) -> Any:  # noqa: ANN401 - whatever a template has
    """A number of the template, by the parameter's default if it is one."""
    return TEMPLATE["Parameters"][value["Ref"]]["Default"] if isinstance(value, dict) else value


SETTLE_SECONDS = TEMPLATE["Parameters"]["SettleSeconds"]["Default"]
QUEUE_DELAY_SECONDS = _parameter(RESOURCES["IntakeQueue"]["Properties"].get("DelaySeconds", 0))


# --- AWS ---


class Aws(Protocol):
    """The account that intake calls."""

    def call(self, client: BaseClient, operation: str, asked: Answer) -> Answer: ...

    def put(self, key: str, body: bytes, at: datetime) -> str:
        """Upload a file at that time, and return its version id."""


@dataclass
class InMemory:
    """As much of S3, DynamoDB, SQS, Step Functions and EventBridge as intake calls."""

    keys: list[str] = field(default_factory=list)  # sorted
    objects: dict[str, Answer] = field(default_factory=dict)  # of the upload bucket
    others: dict[str, bytes] = field(default_factory=dict)  # of the videos bucket
    items: dict[tuple[str, str], Answer] = field(default_factory=dict)
    count: int = 0

    def put(self, key: str, body: bytes, at: datetime) -> str:
        if key not in self.objects:
            bisect.insort(self.keys, key)
        self.count += 1
        listed = {"Key": key, "VersionId": f"v{self.count}", "Size": len(body), "IsLatest": True}
        written_at = at.replace(microsecond=0)  # S3 lists whole seconds
        self.objects[key] = listed | {
            "LastModified": written_at,
            "ETag": f'"{self.count}"',
            "body": body,
        }
        return f"v{self.count}"

    def call(self, client: BaseClient, operation: str, asked: Answer) -> Answer:
        try:
            answers: Callable[[Answer], Answer | None] = getattr(self, f"_{operation}")
        except AttributeError:
            raise NotImplementedError(f"The bench's AWS has no {operation} yet") from None
        answer = answers(asked)
        if answer is None:
            code = "ConditionalCheckFailedException" if "Item" in asked else "NoSuchKey"
            error = {"Error": {"Code": code, "Message": ""}}
            raised: Any = client.exceptions.from_code(code)
            raise raised(error, operation)
        return answer

    def _ListObjectVersions(self, asked: Answer) -> Answer:  # noqa: N802 - S3's name
        return self._listed(asked, "Versions", asked.get("KeyMarker"))

    def _ListObjectsV2(self, asked: Answer) -> Answer:  # noqa: N802
        after = asked.get("ContinuationToken", asked.get("StartAfter"))
        return self._listed(asked, "Contents", after)

    def _listed(self, asked: Answer, name: str, after: str | None) -> Answer:
        prefix, most = asked.get("Prefix", ""), asked.get("MaxKeys", 1000)
        place = bisect.bisect_left(self.keys, prefix)
        if after:
            place = max(place, bisect.bisect_right(self.keys, after))
        found: list[str] = []
        while place < len(self.keys) and self.keys[place].startswith(prefix):
            key = self.keys[place]
            place += 1
            if asked.get("Delimiter", "\n") in key.removeprefix(prefix):
                continue
            if len(found) == most:
                more = {"NextKeyMarker": found[-1], "NextContinuationToken": found[-1]}
                return self._page(name, found) | {"IsTruncated": True, **more}
            found.append(key)
        return self._page(name, found) | {"IsTruncated": False}

    def _page(self, name: str, keys: list[str]) -> Answer:
        listed = [
            {what: one for what, one in self.objects[key].items() if what != "body"} for key in keys
        ]
        return {name: listed} if listed else {}

    def _GetObject(self, asked: Answer) -> Answer | None:  # noqa: N802
        if asked["Bucket"] == VIDEOS:
            body = self.others.get(asked["Key"])
            return None if body is None else {"Body": io.BytesIO(body)}
        found = self.objects.get(asked["Key"])
        return found and found | {"Body": io.BytesIO(found["body"])}

    def _HeadObject(self, asked: Answer) -> Answer | None:  # noqa: N802
        return self._GetObject(asked)

    def _PutObject(self, asked: Answer) -> Answer:  # noqa: N802
        self.others[asked["Key"]] = asked["Body"]
        return {"VersionId": "v"}

    def _GetBucketVersioning(self, _: Answer) -> Answer:  # noqa: N802
        return {"Status": "Enabled"}

    def _GetItem(self, asked: Answer) -> Answer:  # noqa: N802
        found = self.items.get(_key(asked["Key"]))
        return {"Item": found} if found else {}

    def _BatchGetItem(self, asked: Answer) -> Answer:  # noqa: N802
        ((table, keys),) = asked["RequestItems"].items()
        found = [self.items[_key(one)] for one in keys["Keys"] if _key(one) in self.items]
        return {"Responses": {table: found}, "UnprocessedKeys": {}}

    def _PutItem(self, asked: Answer) -> Answer | None:  # noqa: N802
        key = _key(asked["Item"])
        condition = get_filter_expression(
            asked.get("ConditionExpression"),
            asked.get("ExpressionAttributeNames"),
            asked.get("ExpressionAttributeValues"),
        )
        if not condition.expr(_item(self.items.get(key, {}))):
            return None
        self.items[key] = asked["Item"]
        return {}

    def _SendMessage(self, _: Answer) -> Answer:  # noqa: N802
        return {"MessageId": "m"}

    def _StartExecution(self, asked: Answer) -> Answer:  # noqa: N802
        return {"executionArn": asked["name"], "startDate": datetime.now(UTC)}

    def _PutEvents(self, _: Answer) -> Answer:  # noqa: N802
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "e"}]}


def _key(item: Answer) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _item(attributes: Answer) -> Item:
    return Item(DynamoType({"S": ""}), None, attributes)


@dataclass
class Moto:
    """moto's, with the clock of the bench."""

    original: Callable[[BaseClient, str, Answer], Answer]

    def call(self, client: BaseClient, operation: str, asked: Answer) -> Answer:
        return self.original(client, operation, asked)

    def put(self, key: str, body: bytes, at: datetime) -> str:
        put = boto3.client("s3").put_object(Bucket=UPLOADS, Key=key, Body=body)
        version_id: str = put["VersionId"]
        written = s3_backends["123456789012"]["aws"].get_object(UPLOADS, key)
        assert written
        written.last_modified = at.replace(tzinfo=None)
        return version_id


# --- The drops ---


@dataclass(frozen=True)
class Drops:
    """Pairs, each of its own name, in one folder."""

    title: str
    folder: str
    pairs: int

    def files(self) -> Iterator[tuple[str, bytes]]:
        for number in range(self.pairs):
            for ending in ("jpg", "wav"):
                yield f"inbox/{self.folder}pair-{number:05}.{ending}", b"bytes"


@dataclass
class Count:
    """What a number of drops came to."""

    drops: Drops
    calls: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)  # by execution name
    batches: int = 0
    messages: int = 0

    @property
    def calls_a_pair(self) -> float:
        return self.calls.total() / self.drops.pairs

    @property
    def is_once(self) -> bool:
        return len(self.starts) == self.drops.pairs


class Bench:
    """The queue and the clock before intake's handler."""

    def __init__(self, drops: Drops, aws: Aws) -> None:
        self.count, self._aws = Count(drops), aws
        # After the real time: what AWS writes meanwhile has settled.
        self._now = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
        self._due: list[tuple[datetime, int, str]] = []
        self._random = random.Random(13)
        self._is_counting = False

    def run(self) -> Count:
        with patch.object(BaseClient, "_make_api_call", self._call_of):
            app = load_step("intake")
            app.datetime = SimpleNamespace(now=lambda _: self._now)
            uploads = self._uploads()
            coming = next(uploads, None)
            while coming or self._due:
                while coming and coming[0] <= self._now:
                    self._upload(*coming)
                    coming = next(uploads, None)
                if batch := self._batch():
                    self._deliver(app, batch)
                    self._now += timedelta(seconds=BATCH_SECONDS)
                else:
                    due = [coming[0]] if coming else []
                    self._now = min([*due, *(at for at, _, _ in self._due[:1])])
        return self.count

    def _uploads(self) -> Iterator[tuple[datetime, str, bytes]]:
        self._aws.put(f"inbox/{self.count.drops.folder}_defaults.json", DEFAULTS, self._now)
        begun = self._now
        for number, (key, body) in enumerate(self.count.drops.files()):
            yield begun + timedelta(seconds=number / FILES_A_SECOND), key, body

    def _upload(self, at: datetime, key: str, body: bytes) -> None:
        version_id = self._aws.put(key, body, at)
        event = json.loads(json.dumps(EVENT))
        event["time"] = at.isoformat()
        event["detail"]["bucket"]["name"] = UPLOADS
        event["detail"]["object"] |= {"key": key, "version-id": version_id}
        self._send(json.dumps(event), at + timedelta(seconds=QUEUE_DELAY_SECONDS))

    def _send(self, body: str, due: datetime) -> None:
        self.count.messages += 1
        heapq.heappush(self._due, (due, self.count.messages, body))

    def _batch(self) -> list[str]:
        at_hand: list[tuple[datetime, int, str]] = []
        while self._due and self._due[0][0] <= self._now and len(at_hand) < OUT_OF_ORDER:
            at_hand.append(heapq.heappop(self._due))
        self._random.shuffle(at_hand)
        for one in at_hand[BATCH:]:
            heapq.heappush(self._due, one)
        return [body for _, _, body in at_hand[:BATCH]]

    def _deliver(self, app: Any, batch: list[str]) -> None:  # noqa: ANN401 - a module
        self.count.batches += 1
        attributes = {"ApproximateReceiveCount": "1"}
        records = [
            {"messageId": f"m{n}", "body": body, "eventSource": "aws:sqs", "attributes": attributes}
            for n, body in enumerate(batch)
        ]
        self._is_counting = True
        answer = app.handler({"Records": records}, CONTEXT)
        self._is_counting = False
        if failures := answer["batchItemFailures"]:
            raise RuntimeError(f"Intake failed on {failures}")

    @property
    def _call_of(self) -> Callable[[BaseClient, str, Answer], Answer]:
        def call(client: BaseClient, operation: str, asked: Answer) -> Answer:
            if self._is_counting:
                self.count.calls[operation] += 1
                if operation == "SendMessage":
                    delay = timedelta(seconds=asked["DelaySeconds"])
                    self._send(asked["MessageBody"], self._now + delay)
                if operation == "StartExecution":
                    self.count.starts[asked["name"]] += 1
            return self._aws.call(client, operation, asked)

        return call


@contextmanager
def intake_settings() -> Iterator[None]:
    """moto's account, intake's settings, and no log."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        # Nothing reaches an account of the person who runs it.
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        with render_account(monkeypatch):
            _set_up(monkeypatch)
            yield


def _set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    queue_url = boto3.client("sqs").create_queue(QueueName="intake")["QueueUrl"]
    machine = boto3.client("stepfunctions").create_state_machine(
        name="dropreel-render",
        definition='{"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}',
        roleArn="arn:aws:iam::123456789012:role/render",
    )
    for name, value in {
        "MODEL": TEMPLATE["Parameters"]["Model"]["Default"],
        "QUEUE_URL": queue_url,
        "UPLOAD_BUCKET": UPLOADS,
        "STATE_MACHINE_ARN": machine["stateMachineArn"],
        "SETTLE_SECONDS": str(SETTLE_SECONDS),
        "INCOMPLETE_AFTER_MINUTES": "60",
        "MAX_RECEIVES": "5",
    }.items():
        monkeypatch.setenv(name, value)


def counted(drops: Drops, *, by_moto: bool = False) -> Count:
    forget_clients()
    with intake_settings():
        client_class: Any = BaseClient
        aws = Moto(client_class._make_api_call) if by_moto else InMemory()
        return Bench(drops, aws).run()


# --- The verdict ---


def show(console: Console, counts: list[Count]) -> None:
    table = Table(title="Calls of AWS for each pair", title_justify="left")
    table.add_column("")
    for count in counts:
        table.add_column(count.drops.title, justify="right")
    for operation in sorted({name for count in counts for name in count.calls}):
        table.add_row(operation, *(f"{c.calls[operation] / c.drops.pairs:.2f}" for c in counts))
    table.add_section()
    table.add_row("calls in all", *(f"{count.calls_a_pair:.2f}" for count in counts))
    table.add_row("messages", *(f"{count.messages / count.drops.pairs:.2f}" for count in counts))
    table.add_row("messages a batch", *(f"{c.messages / c.batches:.1f}" for c in counts))
    table.add_row("jobs", *(f"{len(count.starts)}" for count in counts))
    table.add_row("each once", *("✓" if count.is_once else "broken" for count in counts))
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.intake_calls")
    parser.add_argument("--pairs", type=int, default=5000)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    console = Console(width=max(Console().width, 120))
    counts = [
        counted(Drops(f"{asked.pairs} in a folder", "team/", asked.pairs)),
        counted(Drops("50, two deep", "team/a/", 50)),
        counted(Drops("50, ten deep", "team/" + "f/" * 9, 50)),
    ]
    hundred = Drops("100 in a folder", "team/", 100)
    ours, by_moto = counted(hundred), counted(hundred, by_moto=True)
    show(console, [*counts, ours])
    is_same = (ours.calls, len(ours.starts)) == (by_moto.calls, len(by_moto.starts))
    console.print(
        "moto counts the same for 100 pairs"
        if is_same
        else f"moto counts otherwise for 100 pairs: {dict(by_moto.calls)}, not {dict(ours.calls)}"
    )
    is_cheap = counts[0].calls_a_pair <= CALLS_AT_MOST
    console.print(
        f"calls for each pair of the burst: {counts[0].calls_a_pair:.2f}, "
        f"at most {CALLS_AT_MOST:.2f}"
    )
    return 0 if is_same and is_cheap and all(count.is_once for count in counts) else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
