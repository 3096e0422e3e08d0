"""What each function's role must not do is refused by IAM, on the deployed stack.

What the embedded AWS does not check (the state machine's role, a queue's mapping, KMS) is in
tests/unit/template/test_rights.py.
"""

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cache
from string import Template
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.e2e.conftest import Stack

PICTURE = "inbox/.least/a.png"
Call = tuple[str, str, dict[str, Any]]
"""A service, an operation, and its arguments: `$name` in a text is one of `places`."""

KEY: dict[str, Any] = {"pk": {"S": "job#privilege"}, "sk": {"S": "run#001"}}
ITEM: dict[str, Any] = {"TableName": "$ledger", "Key": KEY}
ROLE_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}

# What nobody's code needs: a taken-over function would begin with these.
OF_NO_ROLE: dict[str, Call] = {
    "give itself rights": (
        *("iam", "put_role_policy"),
        {"RoleName": "$role", "PolicyName": "more", "PolicyDocument": json.dumps(ROLE_POLICY)},
    ),
    "become another role": (
        *("sts", "assume_role"),
        {"RoleArn": "$other_role_arn", "RoleSessionName": "other"},
    ),
    "change a function": (
        *("lambda", "update_function_configuration"),
        {"FunctionName": "dropreel-$step", "Description": "other"},
    ),
    "open a bucket": ("s3", "delete_bucket_policy", {"Bucket": "$uploads"}),
    "list the account's buckets": ("s3", "list_buckets", {}),
    "delete an upload": (
        "s3",
        "delete_object",
        {"Bucket": "$uploads", "Key": "inbox/.least/a.txt"},
    ),
    "delete an upload's version for ever": (
        *("s3", "delete_object"),
        {"Bucket": "$uploads", "Key": "inbox/.least/a.txt", "VersionId": "$text_version"},
    ),
    "replace an upload": (
        *("s3", "put_object"),
        {"Bucket": "$uploads", "Key": "inbox/.least/a.txt", "Body": b"other"},
    ),
    "delete a video": ("s3", "delete_object", {"Bucket": "$videos", "Key": ".least/a.mp4"}),
    "read the whole ledger": ("dynamodb", "scan", {"TableName": "$ledger"}),
    "change the ledger's table": (
        *("dynamodb", "update_table"),
        {"TableName": "$ledger", "BillingMode": "PAY_PER_REQUEST"},
    ),
    "change a token": (
        *("secretsmanager", "put_secret_value"),
        {"SecretId": "$runcomfy_token", "SecretString": "another"},
    ),
    "list secrets": ("secretsmanager", "list_secrets", {}),
    "stop an execution": ("stepfunctions", "stop_execution", {"executionArn": "$execution"}),
    "read an execution's history": (
        *("stepfunctions", "get_execution_history"),
        {"executionArn": "$execution"},
    ),
    "send events to the account's default bus": (
        *("events", "put_events"),
        {"Entries": [{"Source": "x", "DetailType": "y", "Detail": "{}"}]},
    ),
    "read the logs": ("logs", "filter_log_events", {"logGroupName": "/aws/lambda/dropreel-submit"}),
    "read the notices of others": (
        *("sns", "subscribe"),
        {"TopicArn": "$topic", "Protocol": "email", "Endpoint": "thief@example.com"},
    ),
    "change a queue": (
        *("sqs", "set_queue_attributes"),
        {"QueueUrl": "$intake_queue", "Attributes": {"MessageRetentionPeriod": "60"}},
    ),
}

READ_TOKEN: Call = ("secretsmanager", "get_secret_value", {"SecretId": "$runcomfy_token"})
READ_PICTURE: Call = (
    *("s3", "get_object"),
    {"Bucket": "$uploads", "Key": PICTURE, "VersionId": "$picture_version"},
)
READ_COPY: Call = ("s3", "get_object", {"Bucket": "$work", "Key": "work/.least/picture.png"})
READ_VIDEO: Call = ("s3", "get_object", {"Bucket": "$videos", "Key": ".least/a.mp4"})
WRITE_COPY: Call = (
    *("s3", "put_object"),
    {"Bucket": "$work", "Key": "work/.least/b.png", "Body": b""},
)
WRITE_VIDEO: Call = ("s3", "put_object", {"Bucket": "$videos", "Key": ".least/a.mp4", "Body": b""})
START: Call = (
    *("stepfunctions", "start_execution"),
    {"stateMachineArn": "$machine", "name": "privilege", "input": "{}"},
)
ANSWER: Call = ("stepfunctions", "send_task_success", {"taskToken": "x", "output": "{}"})
ANNOUNCE: Call = (
    *("events", "put_events"),
    {"Entries": [{"EventBusName": "$bus", "Source": "x", "DetailType": "y", "Detail": "{}"}]},
)
INVOKE: Call = ("lambda", "invoke", {"FunctionName": "dropreel-submit", "Payload": b"{}"})
NOTIFY: Call = ("sns", "publish", {"TopicArn": "$topic", "Subject": "x", "Message": "x"})
ENQUEUE: Call = ("sqs", "send_message", {"QueueUrl": "$intake_queue", "MessageBody": "x"})
READ_ITEM: Call = ("dynamodb", "get_item", ITEM)
CHANGE_ITEM: Call = ("dynamodb", "update_item", ITEM)
DELETE_ITEM: Call = ("dynamodb", "delete_item", ITEM)
QUERY: Call = (
    *("dynamodb", "query"),
    {
        "TableName": "$ledger",
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": {":pk": KEY["pk"]},
    },
)
LIST_UPLOADS: Call = ("s3", "list_object_versions", {"Bucket": "$uploads", "Prefix": "inbox/"})
LIST_COPIES: Call = ("s3", "list_object_versions", {"Bucket": "$work", "Prefix": "work/"})
LIST_VIDEOS: Call = ("s3", "list_objects_v2", {"Bucket": "$videos"})

# What one function does and another must not.
REFUSED: dict[str, dict[str, Call]] = {
    "intake": {
        "read a token": READ_TOKEN,
        "read a copy": READ_COPY,
        "list copies": LIST_COPIES,
        "write a copy": WRITE_COPY,
        "read a video": READ_VIDEO,
        "write a video": WRITE_VIDEO,
        "answer a waiting job": ANSWER,
        "call a function": INVOKE,
        "change the ledger's item": CHANGE_ITEM,
        "delete the ledger's item": DELETE_ITEM,
    },
    "prepare": {
        "read a token": READ_TOKEN,
        "read a video": READ_VIDEO,
        "write a video": WRITE_VIDEO,
        "start a job": START,
        "answer a waiting job": ANSWER,
        "call a function": INVOKE,
        "announce": ANNOUNCE,
        "feed intake": ENQUEUE,
        "change the ledger's item": CHANGE_ITEM,
        "delete the ledger's item": DELETE_ITEM,
    },
    "admit": {
        "read a token": READ_TOKEN,
        "read a picture": READ_PICTURE,
        "list uploads": LIST_UPLOADS,
        "read a video": READ_VIDEO,
        "write a video": WRITE_VIDEO,
        "start a job": START,
        "call a function": INVOKE,
    },
    "submit": {
        "write a copy": WRITE_COPY,
        "read a video": READ_VIDEO,
        "write a video": WRITE_VIDEO,
        "start a job": START,
        "answer a waiting job": ANSWER,
        "call a function": INVOKE,
        "delete the ledger's item": DELETE_ITEM,
    },
    "poll": {
        "read a picture": READ_PICTURE,
        "read a copy": READ_COPY,
        "read a video": READ_VIDEO,
        "write a video": WRITE_VIDEO,
        "start a job": START,
        "call a function": INVOKE,
        "announce": ANNOUNCE,
    },
    "deliver": {
        "read a picture": READ_PICTURE,
        "read a copy": READ_COPY,
        "list uploads": LIST_UPLOADS,
        "write what is no video and no JSON": (
            *("s3", "put_object"),
            {"Bucket": "$videos", "Key": ".least/a.html", "Body": b""},
        ),
        "start a job": START,
        "answer a waiting job": ANSWER,
        "announce": ANNOUNCE,
        "delete the ledger's item": DELETE_ITEM,
    },
    "conclude": {
        "read a picture": READ_PICTURE,
        "read a copy": READ_COPY,
        "read a video": READ_VIDEO,
        "write a video": WRITE_VIDEO,
        "write a manifest": (
            *("s3", "put_object"),
            {"Bucket": "$videos", "Key": ".least/a.json", "Body": b""},
        ),
        "start a job": START,
        "call a function": INVOKE,
        "feed intake": ENQUEUE,
    },
    "announce": {
        "read a token": READ_TOKEN,
        "read a picture": READ_PICTURE,
        "list videos": LIST_VIDEOS,
        "read a video": READ_VIDEO,
        "start a job": START,
        "answer a waiting job": ANSWER,
        "call a function": INVOKE,
        "send a notice": NOTIFY,
        "query the ledger": QUERY,
    },
    "notify": {
        "read a token": READ_TOKEN,
        "read a picture": READ_PICTURE,
        "list videos": LIST_VIDEOS,
        "read a video": READ_VIDEO,
        "start a job": START,
        "call a function": INVOKE,
        "announce": ANNOUNCE,
        "feed intake": ENQUEUE,
        "read the ledger": READ_ITEM,
    },
    "sweep": {
        "read a token": READ_TOKEN,
        "read a picture": READ_PICTURE,
        "list uploads": LIST_UPLOADS,
        "read a video": READ_VIDEO,
        "write a video": WRITE_VIDEO,
        "start a job": START,
        "call another function than conclude": INVOKE,
        "announce": ANNOUNCE,
        "take an upload out of its queue": (
            *("sqs", "receive_message"),
            {"QueueUrl": "$intake_queue"},
        ),
    },
    "watch": {
        "read a picture": READ_PICTURE,
        "read a video": READ_VIDEO,
        "start a job": START,
        "answer a waiting job": ANSWER,
        "call a function": INVOKE,
        "announce": ANNOUNCE,
    },
}

# The same kind of call with the right that the role has: so it is IAM that refuses the others.
ALLOWED: dict[str, tuple[Call, ...]] = {
    "intake": (LIST_UPLOADS, LIST_VIDEOS, READ_ITEM),
    "prepare": (
        READ_PICTURE,
        ("secretsmanager", "describe_secret", {"SecretId": "$runcomfy_token"}),
        QUERY,
    ),
    "admit": (READ_ITEM, QUERY, ANNOUNCE),
    "submit": (READ_TOKEN, READ_PICTURE, READ_COPY, LIST_UPLOADS, READ_ITEM, QUERY, ANNOUNCE),
    "poll": (READ_TOKEN, QUERY),
    "deliver": (READ_TOKEN, READ_VIDEO, LIST_VIDEOS, QUERY),
    "conclude": (READ_TOKEN, LIST_VIDEOS, READ_ITEM),
    "announce": (READ_ITEM,),
    "notify": (NOTIFY,),
    "sweep": (
        ("stepfunctions", "list_executions", {"stateMachineArn": "$machine"}),
        READ_ITEM,
        QUERY,
    ),
    "watch": (READ_TOKEN, READ_ITEM, QUERY),
}

STEPS = tuple(REFUSED)


@pytest.fixture(scope="module")
def places(stack: Stack) -> dict[str, str]:
    """What the calls name. The files are there to be read; hidden ones start no job."""
    s3 = stack.client("s3")
    uploads, videos = stack.environment["UPLOAD_BUCKET"], stack.environment["VIDEO_BUCKET"]
    work = stack.environment["WORK_BUCKET"]
    versions = {
        key: s3.put_object(Bucket=bucket, Key=key, Body=b"-")["VersionId"]
        for bucket, key in (
            (uploads, PICTURE),
            (uploads, "inbox/.least/a.txt"),
            (work, "work/.least/picture.png"),
            (videos, ".least/a.mp4"),
        )
    }
    machine = stack.environment["STATE_MACHINE_ARN"]
    return {
        "uploads": uploads,
        "videos": videos,
        "work": work,
        "picture_version": versions[PICTURE],
        "text_version": versions["inbox/.least/a.txt"],
        "ledger": stack.output("LedgerTable"),
        "bus": stack.environment["EVENT_BUS"],
        "machine": machine,
        "execution": f"{machine.replace(':stateMachine:', ':execution:')}:least-privilege",
        "intake_queue": stack.output("IntakeQueueUrl"),
        "runcomfy_token": stack.output("RunComfyTokenArn"),
        "topic": stack.output("NotifyTopicArn"),
    }


@pytest.fixture(scope="module")
def sessions(stack: Stack, places: dict[str, str]) -> dict[str, boto3.Session]:
    """Credentials of each function's role. Only Lambda may take a role, so each role trusts this
    account for as long as it takes to get them."""
    iam, functions = stack.client("iam"), stack.client("lambda")
    sessions = {}
    for step in STEPS:
        arn = functions.get_function_configuration(FunctionName=f"dropreel-{step}")["Role"]
        name = arn.rpartition("/")[2]
        trust = json.dumps(iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"])
        account = {"Effect": "Allow", "Principal": {"AWS": arn.split(":")[4]}}
        ours = {"Version": "2012-10-17", "Statement": [{**account, "Action": "sts:AssumeRole"}]}
        try:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(ours))
            got = stack.client("sts").assume_role(RoleArn=arn, RoleSessionName=step)["Credentials"]
        finally:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
        sessions[step] = boto3.Session(
            got["AccessKeyId"],
            got["SecretAccessKey"],
            got["SessionToken"],
            stack.environment["AWS_DEFAULT_REGION"],
        )
        places |= {f"role_of_{step}": name, f"role_arn_of_{step}": arn}
    return sessions


@cache
def client_of(session: boto3.Session, service: str, endpoint: str) -> Any:  # noqa: ANN401
    make: Any = session.client
    config = Config(signature_version="s3v4") if service == "s3" else None
    return make(service, endpoint_url=endpoint, config=config)


@dataclass(frozen=True)
class As:
    """A function, as its role lets it act."""

    step: str
    session: boto3.Session
    places: dict[str, str]
    endpoint: str

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3's clients are of no common type
        return client_of(self.session, service, self.endpoint)

    def call(self, call: Call) -> Any:  # noqa: ANN401 - what the operation answers
        service, operation, arguments = call
        return getattr(self.client(service), operation)(**self._filled(arguments))

    def _filled(self, value: Any) -> Any:  # noqa: ANN401 - an argument of any operation
        if isinstance(value, dict):
            return {name: self._filled(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        if isinstance(value, str):
            other = next(step for step in STEPS if step != self.step)
            own = {
                "step": self.step,
                "role": self.places[f"role_of_{self.step}"],
                "other_role_arn": self.places[f"role_arn_of_{other}"],
            }
            return Template(value).safe_substitute(self.places | own)
        return value


@pytest.fixture
def acting(
    request: pytest.FixtureRequest,
    stack: Stack,
    sessions: dict[str, boto3.Session],
    places: dict[str, str],
) -> As:
    step = request.param
    return As(step, sessions[step], places, stack.environment["AWS_ENDPOINT_URL"])


@pytest.mark.parametrize(
    ("acting", "call"),
    [
        pytest.param(step, call, id=f"{step} must not {what}")
        for step in STEPS
        for what, call in (OF_NO_ROLE | REFUSED[step]).items()
    ],
    indirect=["acting"],
)
def test_a_role_must_not(acting: As, call: Call) -> None:
    with pytest.raises(ClientError) as refused:
        acting.call(call)

    denials = {"AccessDenied", "AccessDeniedException", "AuthorizationError"}  # the last is SNS's
    assert refused.value.response["Error"]["Code"] in denials


@pytest.mark.parametrize(
    ("acting", "call"),
    [
        pytest.param(step, call, id=f"{step} may {call[1]} of {call[0]}")
        for step in STEPS
        for call in ALLOWED[step]
    ],
    indirect=["acting"],
)
def test_a_role_may_do_its_work(acting: As, call: Call) -> None:
    acting.call(call)


def test_a_signature_of_no_role_is_refused(stack: Stack) -> None:
    """Else nothing above would show that IAM looks at the credentials."""
    stranger = boto3.Session("AKIAIOSFODNN7EXAMPLE", "x", region_name="eu-central-2")
    places = {"uploads": stack.environment["UPLOAD_BUCKET"]}
    nobody = As("nobody", stranger, places, stack.environment["AWS_ENDPOINT_URL"])

    with pytest.raises(ClientError) as refused:
        nobody.client("s3").list_objects_v2(Bucket=places["uploads"])

    assert refused.value.response["Error"]["Code"] == "InvalidAccessKeyId"


@pytest.mark.parametrize("acting", ["submit"], indirect=True)
def test_a_stolen_presigned_url_reads_one_version_for_a_while(acting: As) -> None:
    s3, bucket = acting.client("s3"), acting.places["uploads"]
    asked = {"Bucket": bucket, "Key": PICTURE, "VersionId": acting.places["picture_version"]}
    sign: Any = s3.generate_presigned_url
    url = sign("get_object", Params=asked, ExpiresIn=60)
    short = sign("get_object", Params=asked, ExpiresIn=1)

    assert status_of(url) == 200
    assert status_of(url.replace("a.png", "a.txt")) == 403
    assert status_of(url.replace(acting.places["picture_version"], "null")) == 403
    assert status_of(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600000")) == 403
    assert status_of(url, method="PUT") == 403
    assert status_of(url, method="DELETE") == 403
    time.sleep(2.1)
    assert status_of(short) == 403


def status_of(url: str, method: str = "GET") -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as it:
            status: int = it.status
    except urllib.error.HTTPError as error:
        return error.code
    return status
