"""The bus, as a subscriber hears it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from dropreel.aws.bus import Bus, EventNotTaken
from dropreel.model.events import (
    DetailType,
    IncompleteJob,
    IncompleteUpload,
    StoredFile,
    UploadIncomplete,
)
from dropreel.model.job import Role

REGION = "eu-central-1"
DETAIL = UploadIncomplete(
    job=IncompleteJob(folder="team/", stem="anna 🎤"),
    uploads=(
        IncompleteUpload(
            bucket="uploads", key="inbox/team/anna 🎤.png", version_id="v1", size_bytes=1
        ),
    ),
    missing=(Role.AUDIO,),
    waited_minutes=60,
    message="anna 🎤.png waited.",
    error_file=StoredFile(bucket="videos", key="team/anna 🎤.error.json"),
    ended_at=datetime(2026, 11, 20, 12, tzinfo=UTC),
)


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


def test_a_subscriber_hears_what_is_announced(aws: None) -> None:
    events = boto3.client("events", region_name=REGION)
    sqs = boto3.client("sqs", region_name=REGION)
    events.create_event_bus(Name="dropreel")
    url = sqs.create_queue(QueueName="subscriber")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    events.put_rule(
        Name="all", EventBusName="dropreel", EventPattern=json.dumps({"source": ["dropreel"]})
    )
    events.put_targets(Rule="all", EventBusName="dropreel", Targets=[{"Id": "q", "Arn": arn}])

    Bus("dropreel", events).announce(
        DetailType.UPLOAD_INCOMPLETE, DETAIL, resources=["arn:aws:s3:::uploads"]
    )

    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    heard = json.loads(message["Body"])
    assert heard["detail-type"] == "Upload Incomplete"
    assert heard["resources"] == ["arn:aws:s3:::uploads"]
    assert UploadIncomplete.model_validate(heard["detail"]) == DETAIL


def test_an_event_that_is_not_taken_is_an_error() -> None:
    events = boto3.client(
        "events", region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )
    with Stubber(events) as stubber:
        stubber.add_response(
            "put_events",
            {
                "FailedEntryCount": 1,
                "Entries": [{"ErrorCode": "ThrottlingException", "ErrorMessage": "Slow down"}],
            },
        )

        with pytest.raises(EventNotTaken, match="Upload Incomplete: ThrottlingException"):
            Bus("dropreel", events).announce(DetailType.UPLOAD_INCOMPLETE, DETAIL)


def test_a_bus_that_denies_the_event_says_what_to_allow() -> None:
    events = boto3.client(
        "events", region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )
    with Stubber(events) as stubber:
        stubber.add_client_error(
            "put_events",
            "AccessDeniedException",
            "User: arn:aws:sts::111122223333:assumed-role/announce/announce is not authorized to "
            "perform: events:PutEvents with an explicit deny in a resource-based policy",
            400,
        )

        with pytest.raises(
            EventNotTaken, match=r"bus dropreel denies events:PutEvents.* resource policy"
        ):
            Bus("dropreel", events).announce(DetailType.UPLOAD_INCOMPLETE, DETAIL)


def test_another_fault_of_the_bus_stays_itself() -> None:
    events = boto3.client(
        "events", region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )
    with Stubber(events) as stubber:
        stubber.add_client_error("put_events", "InternalException", "wait", 500)

        with pytest.raises(ClientError, match="InternalException"):
            Bus("dropreel", events).announce(DetailType.UPLOAD_INCOMPLETE, DETAIL)
