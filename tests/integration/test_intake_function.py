"""The intake function on S3, SQS, DynamoDB, Step Functions and EventBridge as moto plays them."""

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import get_ident
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from aws_lambda_powertools.utilities.batch.exceptions import BatchProcessingError
from botocore.stub import Stubber
from moto.sqs.models import sqs_backends

from dropreel.inbox.messages import SeenUpload, message_in
from dropreel.inbox.pairing import DEFAULTS_PREFIXES
from dropreel.model.events import OlderVideo, UploadFailure, UploadIncomplete
from dropreel.model.job import Job
from tests.support.fault_account import CONTEXT, load_step
from tests.support.render_account import (
    LEDGER,
    REGION,
    ROOT,
    UPLOADS,
    VIDEOS,
    RenderAccount,
    render_account,
)
from tests.support.sam_template import TEMPLATE

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

EVENT = json.loads((ROOT / "events/samples/object_created.json").read_text())


class Account:
    """What the template makes, as far as intake touches it, and the function itself."""

    def __init__(self, account: RenderAccount, monkeypatch: pytest.MonkeyPatch) -> None:
        self.s3 = account.s3
        self.dynamodb = account.dynamodb
        self.announced = account.announced
        self.sqs: SQSClient = boto3.client("sqs")
        self.sfn: SFNClient = boto3.client("stepfunctions")
        self.queue_url = self.sqs.create_queue(QueueName="intake")["QueueUrl"]
        self.state_machine_arn = self.sfn.create_state_machine(
            name="dropreel-render",
            definition=json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}),
            roleArn="arn:aws:iam::123456789012:role/render",
        )["stateMachineArn"]
        for name, value in {
            "MODEL": "wan-2.2-speech-to-video",
            "QUEUE_URL": self.queue_url,
            "UPLOAD_BUCKET": UPLOADS,
            "SETTLE_SECONDS": "0",
            "MAX_RECEIVES": "5",
            "INCOMPLETE_AFTER_MINUTES": "60",
        }.items():
            monkeypatch.setenv(name, value)
        self.app = load_step("intake")

    def drop(self, key: str, body: bytes = b"bytes") -> str:
        """Upload a file and return the message that arrives in the queue."""
        version_id = self.s3.put_object(Bucket=UPLOADS, Key=key, Body=body)["VersionId"]
        event = copy.deepcopy(EVENT)
        event["time"] = datetime.now(UTC).isoformat()
        event["detail"]["bucket"]["name"] = UPLOADS
        event["detail"]["object"].update({"key": key, "version-id": version_id})
        return json.dumps(event)

    def deliver(self, *messages: str, received: int = 1, context: Any = CONTEXT) -> dict[str, Any]:  # noqa: ANN401
        records = [
            {
                "messageId": f"m{number}",
                "body": message,
                "eventSource": "aws:sqs",
                "attributes": {"ApproximateReceiveCount": str(received)},
            }
            for number, message in enumerate(messages)
        ]
        answer: dict[str, Any] = self.app.handler({"Records": records}, context)
        return answer

    def sweep(self) -> None:
        """Deliver the first message of a sweep, and all that follows but for repeated ones."""
        due, handed_on = ['{"sweep": {}}'], set[str]()
        while due:
            message = due.pop(0)
            handed_on.add(message)
            assert self.deliver(message) == {"batchItemFailures": []}
            due += [sent for sent in self.sent_to_intake() if sent not in handed_on]

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

    @property
    def delayed_messages(self) -> int:
        attributes = self.sqs.get_queue_attributes(
            QueueUrl=self.queue_url, AttributeNames=["ApproximateNumberOfMessagesDelayed"]
        )["Attributes"]
        return int(attributes["ApproximateNumberOfMessagesDelayed"])


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with render_account(monkeypatch) as account:
        yield Account(account, monkeypatch)


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


def test_an_execution_that_has_ended_is_not_started_again_without_its_notes(
    account: Account,
) -> None:
    """Intake was cut off between the start and the notes, and comes back after the end."""
    messages = [account.drop("inbox/anna.png"), account.drop("inbox/anna.mp3")]
    account.deliver(*messages)
    (name,) = account.jobs
    arn = account.state_machine_arn.replace("stateMachine", "execution")
    account.sfn.stop_execution(executionArn=f"{arn}:{name}")
    for item in account.dynamodb.scan(TableName=LEDGER)["Items"]:
        if item["sk"]["S"] == "job":  # the claims stay
            account.dynamodb.delete_item(TableName=LEDGER, Key={"pk": item["pk"], "sk": item["sk"]})

    answer = account.deliver(*messages)

    assert answer == {"batchItemFailures": []}
    listed = account.sfn.list_executions(stateMachineArn=account.state_machine_arn)
    assert [(one["name"], one["status"]) for one in listed["executions"]] == [(name, "ABORTED")]


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


@pytest.mark.parametrize("older", ["team/anna.mp4", "team/anna.mp4.bak"])
def test_half_a_pair_that_waited_long_enough_is_announced_once(
    account: Account, older: str
) -> None:
    account.drop("inbox/team/anna.png")
    video = OlderVideo(bucket=VIDEOS, key="team/anna.mp4", version_id="v1")
    manifest = json.dumps({"video": video.model_dump()})
    for key, body in (("team/anna.json", manifest), (older, "")):
        account.s3.put_object(Bucket=VIDEOS, Key=key, Body=body.encode())
    reminder = SeenUpload(
        bucket=UPLOADS,
        key="inbox/team/anna.png",
        version_id=None,
        first_seen=datetime.now(UTC) - timedelta(minutes=61),
    ).model_dump_json()

    account.deliver(reminder, reminder)

    (event,) = map(json.loads, account.announced())
    assert event["detail-type"] == "Upload Incomplete"
    incomplete = UploadIncomplete.model_validate(event["detail"])
    assert incomplete.missing == ("audio",)
    assert incomplete.older_video == (video if older == video.key else None)
    written = account.s3.get_object(Bucket=VIDEOS, Key="team/anna.error.json")["Body"].read()
    assert UploadIncomplete.model_validate_json(written) == incomplete


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


def test_upload_that_waited_under_another_prefix_becomes_a_dead_letter(account: Account) -> None:
    """Its batch goes on, and a new upload outside the inbox is ignored."""
    now = datetime.now(UTC)
    waiting = SeenUpload(bucket=UPLOADS, key="media/anna.png", version_id="v1", first_seen=now)

    answer = account.deliver(waiting.model_dump_json(), account.drop("media/anna.mp3"))

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


# The sweep


ODD = ["anna", "team/a b+c%20d'\"&=/é 😀/anna (1).v2", "100%", "a+b", "李娜"]


def test_a_sweep_starts_the_pairs_whose_events_were_lost(
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
    assert 1_000 <= min(delays) <= 2_000
    assert 60_000 <= max(delays) <= 62_000


def test_a_key_with_characters_that_sqs_refuses_is_sent(account: Account) -> None:
    now = datetime.now(UTC)
    seen = SeenUpload(bucket=UPLOADS, key="inbox/\x07\uffff😀.png", version_id="v1", first_seen=now)

    account.app.queue.send(seen, 1)

    assert [message_in(body) for body in account.sent_to_intake()] == [seen]


def test_a_sweep_whose_messages_are_not_all_taken_comes_again(account: Account) -> None:
    account.drop("inbox/anna.png")
    litter = account.drop("inbox/.DS_Store")

    with Stubber(account.app.queue._client) as queue:
        queue.add_client_error("send_message", "InternalError")
        answer = account.deliver('{"sweep": {"media": true}}', litter)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


def listings(account: Account) -> list[str]:
    """The prefixes that intake lists from now on."""
    listed: list[str] = []
    account.app.storage._client.meta.events.register(
        "provide-client-params.s3.ListObjectVersions",
        lambda params, **_: listed.append(params["Prefix"]),
    )
    return listed


def test_a_batch_looks_up_the_defaults_of_a_folder_once(account: Account) -> None:
    drops = [
        account.drop(f"inbox/team/{n}.{ending}") for n in range(5) for ending in ("png", "mp3")
    ]
    listed = listings(account)

    account.deliver(*drops)

    assert len(account.jobs) == 5
    of_defaults = [prefix for prefix in listed if prefix.endswith(DEFAULTS_PREFIXES)]
    assert len(of_defaults) == len(set(of_defaults)) == 2 * len(DEFAULTS_PREFIXES)

    account.deliver(account.drop("inbox/team/6.png"))

    assert len([one for one in listed if one in of_defaults]) == 2 * len(of_defaults)


def test_what_a_batch_has_no_time_for_goes_back_unharmed(account: Account) -> None:
    """Uploads under deep folders take long. Those behind them in the batch must not wait for the
    end of the visibility timeout, nor count as failed."""
    deep = "".join(f"{number}/" for number in range(20))
    drops = [account.drop(f"inbox/{deep}{number}.png") for number in range(4)]
    drops += [account.drop(f"inbox/anna.{ending}") for ending in ("png", "mp3")]
    seconds = iter([25, 18, 11, 9, 8, 7])
    context = copy.copy(CONTEXT)
    context.get_remaining_time_in_millis = lambda: next(seconds) * 1000

    assert account.deliver(*drops, context=context) == {"batchItemFailures": []}

    queue = sqs_backends["123456789012"][REGION].queues["intake"]
    delays = [message.delayed_until - (message.sent_timestamp or 0) for message in queue._messages]
    assert len([delay for delay in delays if delay < 2_000]) == 3
    account.deliver(*account.sent_to_intake())
    assert [job.stem for job in account.jobs.values()] == ["anna"]


def test_a_lookup_in_twenty_folders_takes_its_listings_at_once(account: Account) -> None:
    deep = "".join(f"{number}/" for number in range(20))
    listed = listings(account)
    threads = set()
    account.app.storage._client.meta.events.register(
        "before-call.s3.ListObjectVersions", lambda **_: threads.add(get_ident())
    )

    account.deliver(account.drop(f"inbox/{deep}anna.png"))

    assert len(listed) == 1 + 21 * len(DEFAULTS_PREFIXES)
    assert len(threads) > 8


def test_files_in_folders_below_are_not_listed(account: Account) -> None:
    for key in ("_done/1.png", "_defaults.json", "a.d/b.png", "a.png"):
        account.drop(f"inbox/{key}")

    listed = account.app.storage.current_versions(UPLOADS, "inbox/_d", "inbox/a.")

    assert [one.key for one in listed] == ["inbox/_defaults.json", "inbox/a.png"]


def test_the_last_try_of_an_upload_writes_an_error_file(account: Account) -> None:
    drop = account.drop("inbox/team/anna.png")
    with Stubber(account.app.used._client) as ledger:
        ledger.add_client_error("get_item", "InternalServerError")
        ledger.add_client_error("get_item", "InternalServerError")

        with pytest.raises(BatchProcessingError):
            account.deliver(drop, received=4)
        assert "Contents" not in account.s3.list_objects_v2(Bucket=VIDEOS)
        with pytest.raises(BatchProcessingError):
            account.deliver(drop, received=5)

    written = account.s3.get_object(Bucket=VIDEOS, Key="team/anna.error.json")["Body"].read()
    failure = UploadFailure.model_validate_json(written)
    assert failure.error.code == "UploadNotProcessed"
    assert "inbox/team/anna.png" in failure.error.message


def test_the_last_try_is_the_one_before_the_dead_letters() -> None:
    queue = TEMPLATE["Resources"]["IntakeQueue"]["Properties"]
    variables = TEMPLATE["Resources"]["IntakeFunction"]["Properties"]["Environment"]["Variables"]

    assert str(queue["RedrivePolicy"]["maxReceiveCount"]) == variables["MAX_RECEIVES"]
