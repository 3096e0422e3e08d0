"""The account as submit, poll and conclude see it, played by moto, and a step's handler in it."""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from moto import mock_aws

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.model.events import FOR_DISPLAY, DetailType
from dropreel.model.job import Input
from dropreel.model.messages import Plan
from tests.support.render_fakes import ENVIRONMENT, ScriptedProvider, by_name

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

ROOT = Path(__file__).parents[2]
REGION: Final = "eu-central-1"
UPLOADS, VIDEOS, BUS = "uploads", "videos", "dropreel"
WORK = ENVIRONMENT["WORK_BUCKET"]
LEDGER = ENVIRONMENT["LEDGER_TABLE"]


def create_ledger_table(dynamodb: "DynamoDBClient", name: str = LEDGER) -> None:
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )


class _Context(LambdaContext):
    _function_name = "step"
    _memory_limit_in_mb = 512
    _invoked_function_arn = f"arn:aws:lambda:{REGION}:123456789012:function:step"
    _aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        return 240_000


class RenderAccount:
    """Buckets, ledger and bus as the template makes them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.s3: S3Client = boto3.client("s3")
        self.dynamodb: DynamoDBClient = boto3.client("dynamodb")
        self._sqs: SQSClient = boto3.client("sqs")
        for bucket in (UPLOADS, VIDEOS, WORK):
            self.s3.create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
            )
            self.s3.put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
            )
        create_ledger_table(self.dynamodb)
        self.ledger = DynamoDBLedger(LEDGER, self.dynamodb)
        self._subscribe()

    def _subscribe(self) -> None:
        events: EventBridgeClient = boto3.client("events")
        events.create_event_bus(Name=BUS)
        self._queue_urls = {}
        for name in ("ends", "display"):
            self._queue_urls[name] = self._sqs.create_queue(QueueName=name)["QueueUrl"]
            types = [it for it in DetailType if (it in FOR_DISPLAY) is (name == "display")]
            pattern = json.dumps({"source": ["dropreel"], "detail-type": types})
            events.put_rule(Name=name, EventBusName=BUS, EventPattern=pattern)
            arn = f"arn:aws:sqs:{REGION}:123456789012:{name}"
            events.put_targets(Rule=name, EventBusName=BUS, Targets=[{"Id": "q", "Arn": arn}])

    def empty_ledger(self) -> None:
        """moto copies the whole table for each transaction: a small one is fast."""
        self.dynamodb.delete_table(TableName=LEDGER)
        create_ledger_table(self.dynamodb)

    def announced(self) -> list[str]:
        """The events on the bus since the last look, as JSON, without those for display."""
        return self._heard("ends")

    def displayed(self) -> list[str]:
        """Those for display."""
        return self._heard("display")

    def _heard(self, queue: str) -> list[str]:
        url = self._queue_urls[queue]
        got = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return [message["Body"] for message in got.get("Messages", [])]

    def drop(self, plan: Plan) -> Plan:
        """Upload a job and its copies, and pin them to the versions they got."""
        inputs = tuple(self._upload(UPLOADS, given) for given in plan.job.inputs)
        job = plan.job.model_copy(update={"bucket": UPLOADS, "inputs": inputs})
        copies = {"image": plan.image} | ({"audio": plan.audio} if plan.audio else {})
        pinned = {name: self._upload(WORK, copy) for name, copy in copies.items()}
        return plan.model_copy(update={"job": job} | pinned)

    def _upload(self, bucket: str, given: Input) -> Input:
        put = self.s3.put_object(Bucket=bucket, Key=given.key, Body=b"0" * given.size_bytes)
        return given.model_copy(update={"version_id": put["VersionId"]})

    def call(
        self, step: str, event: Mapping[str, Any], provider: ScriptedProvider
    ) -> dict[str, Any]:
        """Run a step's handler in a new environment, with the provider replaced."""
        path = ROOT / "functions" / step / "app.py"
        spec = importlib.util.spec_from_file_location(f"{step}_app", path)
        assert spec
        assert spec.loader
        app = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(app)
        find = by_name(provider)
        self._monkeypatch.setattr(
            app, "provider_of", lambda name, settings: find(name), raising=False
        )
        answer: dict[str, Any] = app.handler(dict(event), _Context())
        return answer


@contextmanager
def render_account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    for name, value in {
        "VIDEO_BUCKET": VIDEOS,
        "EVENT_BUS": BUS,
        **ENVIRONMENT,
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield RenderAccount(monkeypatch)
