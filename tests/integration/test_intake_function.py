"""The intake function on S3, SQS, DynamoDB, Step Functions and EventBridge as moto plays them."""

import copy
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws
from moto.sqs.models import sqs_backends

from dropreel.inbox.messages import SeenUpload, message_in
from dropreel.model.events import UploadIncomplete
from dropreel.model.job import Job, Role

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

ROOT = Path(__file__).parents[2]
EVENT = json.loads((ROOT / "events/samples/object_created.json").read_text())
REGION: Final = "eu-central-1"
UPLOADS = "uploads"
VIDEOS = "videos"


@dataclass
class LambdaContext:
    function_name: str = "intake"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = f"arn:aws:lambda:{REGION}:123456789012:function:intake"
    aws_request_id: str = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


class Account:
    """What the template makes, as far as intake touches it, and the function itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        self.s3: S3Client = boto3.client("s3")
        self.sqs: SQSClient = boto3.client("sqs")
        self.sfn: SFNClient = boto3.client("stepfunctions")
        self.events: EventBridgeClient = boto3.client("events")
        for bucket in (UPLOADS, VIDEOS):
            self.s3.create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
            )
            self.s3.put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
            )
        self.dynamodb: DynamoDBClient = boto3.client("dynamodb")
        self.dynamodb.create_table(
            TableName="ledger",
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
        self.queue_url = self.sqs.create_queue(QueueName="intake")["QueueUrl"]
        self.subscriber_url = self.sqs.create_queue(QueueName="subscriber")["QueueUrl"]
        self.events.create_event_bus(Name="dropreel")
        self.events.put_rule(
            Name="all", EventBusName="dropreel", EventPattern=json.dumps({"source": ["dropreel"]})
        )
        subscriber_arn = f"arn:aws:sqs:{REGION}:123456789012:subscriber"
        self.events.put_targets(
            Rule="all", EventBusName="dropreel", Targets=[{"Id": "q", "Arn": subscriber_arn}]
        )
        self.state_machine_arn = self.sfn.create_state_machine(
            name="render",
            definition=json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}),
            roleArn="arn:aws:iam::123456789012:role/render",
        )["stateMachineArn"]
        for name, value in {
            "MODEL": "wan-2.2-speech-to-video",
            "STATE_MACHINE_ARN": self.state_machine_arn,
            "QUEUE_URL": self.queue_url,
            "EVENT_BUS": "dropreel",
            "UPLOAD_BUCKET": UPLOADS,
            "VIDEO_BUCKET": VIDEOS,
            "INCOMPLETE_AFTER_MINUTES": "60",
            "LEDGER_TABLE": "ledger",
        }.items():
            monkeypatch.setenv(name, value)
        self.app = _load(ROOT / "functions/intake/app.py")

    def drop(self, key: str, body: bytes = b"bytes") -> str:
        """Upload a file and return the message that arrives in the queue."""
        version_id = self.s3.put_object(Bucket=UPLOADS, Key=key, Body=body)["VersionId"]
        event = copy.deepcopy(EVENT)
        event["time"] = datetime.now(UTC).isoformat()
        event["detail"]["bucket"]["name"] = UPLOADS
        event["detail"]["object"].update({"key": key, "version-id": version_id})
        return json.dumps(event)

    def deliver(self, *messages: str) -> dict[str, Any]:
        records = [
            {"messageId": f"m{number}", "body": message, "eventSource": "aws:sqs"}
            for number, message in enumerate(messages)
        ]
        answer: dict[str, Any] = self.app.handler({"Records": records}, LambdaContext())
        return answer

    def sweep(self) -> int:
        """Send the first message of a sweep, and hand on all that follows from it, but for
        reminders, which repeat a message. Returns how many messages that were.
        """
        due = ['{"sweep": {}}']
        handed_on = set[str]()
        while due:
            message = due.pop(0)
            handed_on.add(message)
            assert self.deliver(message) == {"batchItemFailures": []}
            due += [sent for sent in self.sent_to_intake() if sent not in handed_on]
        return len(handed_on)

    def sent_to_intake(self) -> list[str]:
        """What waits in intake's queue, without waiting for it."""
        queue = sqs_backends["123456789012"][REGION].queues["intake"]
        bodies = [message.body for message in queue._messages]
        queue._messages.clear()
        return bodies

    @property
    def jobs(self) -> dict[str, Job]:
        """The executions' inputs by the executions' names."""
        started = self.sfn.list_executions(stateMachineArn=self.state_machine_arn)["executions"]
        return {
            one["name"]: Job.model_validate_json(
                self.sfn.describe_execution(executionArn=one["executionArn"])["input"]
            )
            for one in started
        }

    def stop(self, name: str) -> None:
        arn = self.state_machine_arn.replace("stateMachine", "execution")
        self.sfn.stop_execution(executionArn=f"{arn}:{name}")

    def lose_notes(self) -> None:
        """Of the uploads that jobs were made of; the claims stay."""
        for item in self.dynamodb.scan(TableName="ledger")["Items"]:
            if item["sk"]["S"] == "job":
                self.dynamodb.delete_item(
                    TableName="ledger", Key={"pk": item["pk"], "sk": item["sk"]}
                )

    @property
    def delayed_messages(self) -> int:
        attributes = self.sqs.get_queue_attributes(
            QueueUrl=self.queue_url, AttributeNames=["ApproximateNumberOfMessagesDelayed"]
        )["Attributes"]
        return int(attributes["ApproximateNumberOfMessagesDelayed"])

    def heard(self) -> list[dict[str, Any]]:
        messages = self.sqs.receive_message(QueueUrl=self.subscriber_url, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in messages.get("Messages", [])]


def _load(path: Path) -> ModuleType:
    """Import a function afresh, as a cold start does."""
    spec = importlib.util.spec_from_file_location("intake_app", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with mock_aws():
        yield Account(monkeypatch)


@pytest.mark.parametrize(
    "base",
    ["anna", "team/anna", "a b+c%20d'\"&=/é 😀/deep/er/anna (1).v2", "100%", "a+b", "李娜"],
)
def test_a_pair_of_any_name_starts_one_execution(account: Account, base: str) -> None:
    messages = [account.drop(f"inbox/{base}.png"), account.drop(f"inbox/{base}.mp3")]

    answer = account.deliver(*messages, *messages)

    assert answer == {"batchItemFailures": []}
    ((name, job),) = account.jobs.items()
    assert name == job.id
    assert f"{job.folder}{job.stem}" == base
    versions = account.s3.list_object_versions(Bucket=UPLOADS)["Versions"]
    assert {(one.key, one.version_id, one.size_bytes) for one in job.inputs} == {
        (version["Key"], version["VersionId"], version["Size"]) for version in versions
    }


def ended_job(account: Account) -> tuple[str, list[str]]:
    """Its execution's name, and the messages that started it."""
    messages = [account.drop("inbox/anna.png"), account.drop("inbox/anna.mp3")]
    account.deliver(*messages)
    (name,) = account.jobs
    account.stop(name)
    return name, messages


def test_an_event_that_repeats_after_the_execution_has_ended_starts_nothing(
    account: Account,
) -> None:
    name, messages = ended_job(account)

    answer = account.deliver(messages[0])

    assert answer == {"batchItemFailures": []}
    assert list(account.jobs) == [name]


def test_an_execution_that_has_ended_is_not_started_again_by_who_missed_its_notes(
    account: Account,
) -> None:
    """Intake was cut off between the start and the notes, and comes back after the end."""
    name, messages = ended_job(account)
    account.lose_notes()

    answer = account.deliver(*messages)

    assert answer == {"batchItemFailures": []}
    listed = account.sfn.list_executions(stateMachineArn=account.state_machine_arn)
    assert [(one["name"], one["status"]) for one in listed["executions"]] == [(name, "ABORTED")]


def test_a_corrected_file_makes_a_new_job(account: Account) -> None:
    account.deliver(account.drop("inbox/anna.png"), account.drop("inbox/anna.mp3"))

    account.deliver(account.drop("inbox/anna.png", b"better"))

    assert len(account.jobs) == 2


def test_a_deleted_half_is_not_there(account: Account) -> None:
    message = account.drop("inbox/anna.png")
    account.drop("inbox/anna.mp3")
    account.s3.delete_object(Bucket=UPLOADS, Key="inbox/anna.mp3")

    account.deliver(message)

    assert not account.jobs


def test_an_upload_without_an_ending_is_found_among_its_neighbours(account: Account) -> None:
    account.drop("inbox/anna-2.png")

    account.deliver(account.drop("inbox/anna"))

    assert account.delayed_messages == 1


def test_half_a_pair_comes_back_to_the_queue_later(account: Account) -> None:
    account.deliver(account.drop("inbox/anna.png"))

    assert not account.jobs
    assert account.delayed_messages == 1


def test_half_a_pair_that_waited_long_enough_is_announced_once(account: Account) -> None:
    account.drop("inbox/team/anna.png")
    reminder = SeenUpload(
        bucket=UPLOADS,
        key="inbox/team/anna.png",
        version_id=None,
        first_seen=datetime.now(UTC) - timedelta(minutes=61),
    ).model_dump_json()

    account.deliver(reminder, reminder)

    (heard,) = account.heard()
    assert heard["detail-type"] == "Upload Incomplete"
    told = UploadIncomplete.model_validate(heard["detail"])
    assert told.missing == ("audio",)
    written = account.s3.get_object(Bucket=VIDEOS, Key="team/anna.error.json")["Body"].read()
    assert UploadIncomplete.model_validate_json(written) == told


def test_a_job_is_what_its_files_and_the_defaults_say(account: Account) -> None:
    account.drop("inbox/_defaults.json", b'{"seed": 7}')
    account.drop("inbox/_defaults.json.bak", b"{")
    account.drop("inbox/team/face.png")
    account.deliver(
        account.drop("inbox/team/a b+c%20😀.json", b'{"image": "face.png", "resolution": "480p"}'),
        account.drop("inbox/team/a b+c%20😀.txt", "Sie lächelt.".encode()),
        account.drop("inbox/team/a b+c%20😀.mp3"),
    )

    (job,) = account.jobs.values()
    assert (job.prompt, job.options) == ("Sie lächelt.", {"seed": 7, "resolution": "480p"})
    assert job.problems == ()
    assert [given.key for given in job.inputs] == [
        "inbox/team/face.png",
        "inbox/team/a b+c%20😀.mp3",
        "inbox/team/a b+c%20😀.txt",
        "inbox/team/a b+c%20😀.json",
        "inbox/_defaults.json",
    ]


def test_a_late_event_after_the_defaults_changed_starts_nothing(account: Account) -> None:
    messages = [account.drop("inbox/anna.png"), account.drop("inbox/anna.mp3")]
    account.deliver(*messages)
    names = list(account.jobs)

    account.deliver(account.drop("inbox/_defaults.json", b'{"seed": 7}'), *messages)

    assert list(account.jobs) == names


def test_an_avatars_face_waits_for_nobody(account: Account) -> None:
    account.deliver(
        account.drop("inbox/news/_defaults.json", b'{"image": "face.png"}'),
        account.drop("inbox/news/face.png"),
        account.drop("inbox/news/monday.mp3"),
    )

    (job,) = account.jobs.values()
    assert job.of(Role.IMAGE)[0].key == "inbox/news/face.png"
    assert account.delayed_messages == 0


def test_deleted_defaults_say_nothing(account: Account) -> None:
    account.drop("inbox/_defaults.json", b"{")
    account.s3.delete_object(Bucket=UPLOADS, Key="inbox/_defaults.json")

    account.deliver(account.drop("inbox/anna.png"), account.drop("inbox/anna.mp3"))

    (job,) = account.jobs.values()
    assert job.problems == ()


def test_a_poison_message_fails_alone(account: Account) -> None:
    good = [account.drop("inbox/anna.png"), account.drop("inbox/anna.mp3")]

    answer = account.deliver(good[0], '{"what": "is this?"}', good[1])

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert len(account.jobs) == 1


def test_a_fault_of_the_platform_gives_the_message_back(account: Account) -> None:
    lost = account.drop("inbox/anna.png").replace(f'"name": "{UPLOADS}"', '"name": "no-bucket"')
    litter = account.drop("inbox/.DS_Store")

    answer = account.deliver(lost, litter)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


@pytest.mark.parametrize("code", ["ThrottlingException", "StateMachineDoesNotExist"])
def test_an_upload_whose_job_could_not_be_started_is_looked_at_again(
    account: Account, code: str
) -> None:
    picture, voice = account.drop("inbox/anna.png"), account.drop("inbox/anna.mp3")
    litter = account.drop("inbox/.DS_Store")
    starter = Stubber(account.app.intake.executions._client)
    starter.add_client_error("start_execution", code)

    with starter:
        refused = account.deliver(voice, litter)
    again = account.deliver(voice, picture)

    assert refused == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert again == {"batchItemFailures": []}
    assert len(account.jobs) == 1


# The sweep


ODD = ["anna", "team/a b+c%20d'\"&=/é 😀/anna (1).v2", "100%", "a+b", "李娜"]


def test_a_sweep_starts_the_pairs_that_nobody_told_of(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a listing of several pages, with what was replaced, deleted, told of, or is litter."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    for base in ODD:
        account.drop(f"inbox/{base}.png", b"replaced")
        account.drop(f"inbox/{base}.png")
        account.drop(f"inbox/{base}.mp3")
    account.deliver(account.drop("inbox/bert.png"), account.drop("inbox/bert.mp3"))
    account.drop("inbox/.DS_Store")
    account.drop("work/carla.png")
    account.drop("work/carla.mp3")
    account.drop("inbox/dora.mp3")
    account.drop("inbox/dora.png")
    account.s3.delete_object(Bucket=UPLOADS, Key="inbox/dora.png")

    account.sweep()

    started = sorted(f"{job.folder}{job.stem}" for job in account.jobs.values())
    assert started == sorted([*ODD, "bert"])


def test_a_second_sweep_finds_nothing_to_do(account: Account) -> None:
    account.drop("inbox/_defaults.json", b"{}")
    account.drop("inbox/anna.png")
    account.drop("inbox/anna.mp3")
    account.drop("inbox/anna.docx")
    first = account.sweep()

    assert account.sweep() == 1  # the sweep's own message
    assert first > 1
    assert len(account.jobs) == 1


def test_uploads_from_before_versioning_are_started(account: Account) -> None:
    account.s3.put_bucket_versioning(
        Bucket=UPLOADS, VersioningConfiguration={"Status": "Suspended"}
    )
    for key in ("inbox/anna.png", "inbox/anna.mp3"):
        account.s3.put_object(Bucket=UPLOADS, Key=key, Body=b"old")
    account.s3.put_bucket_versioning(Bucket=UPLOADS, VersioningConfiguration={"Status": "Enabled"})

    account.sweep()
    account.sweep()

    (job,) = account.jobs.values()
    assert {given.version_id for given in job.inputs} == {"null"}


def test_sightings_of_a_sweep_come_spread_over_a_minute(account: Account) -> None:
    for number in range(130):
        account.drop(f"inbox/{number:03}.png")

    account.deliver('{"sweep": {"media": true}}')

    queue = sqs_backends["123456789012"][REGION].queues["intake"]
    delays = [message.delayed_until - (message.sent_timestamp or 0) for message in queue._messages]
    assert len(delays) == 121
    assert 10_000 <= min(delays) <= 11_000
    assert 69_000 <= max(delays) <= 71_000


def test_a_key_of_which_sqs_does_not_take_every_character_is_sent_all_the_same(
    account: Account,
) -> None:
    now = datetime.now(UTC)
    seen = SeenUpload(bucket=UPLOADS, key="inbox/\x07\uffff😀.png", version_id="v1", first_seen=now)

    account.app.queue.send(seen, 1)

    assert [message_in(body) for body in account.sent_to_intake()] == [seen]


def test_a_sweep_whose_messages_are_not_all_taken_is_gone_on_with_again(account: Account) -> None:
    account.drop("inbox/anna.png")
    litter = account.drop("inbox/.DS_Store")

    with Stubber(account.app.queue._client) as queue:
        queue.add_client_error("send_message", "InternalError")
        answer = account.deliver('{"sweep": {"media": true}}', litter)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
