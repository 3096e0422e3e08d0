"""The validate function against a versioned bucket."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import boto3
import pytest
from moto import mock_aws

from dropreel.errors import ErrorReport, InputGone, InputRejected
from dropreel.job import Input, Job, Role
from dropreel.render import Plan
from tests import media_samples as samples

UPLOAD_BUCKET = "dropreel-uploads"


class Context:
    """What Lambda tells a function about its call."""

    function_name = "validate"
    memory_limit_in_mb = 1769
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:validate"
    aws_request_id = "5f1c0d6e"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(
            Bucket=UPLOAD_BUCKET,
            CreateBucketConfiguration={"LocationConstraint": "eu-west-1"},
        )
        s3.put_bucket_versioning(
            Bucket=UPLOAD_BUCKET, VersioningConfiguration={"Status": "Enabled"}
        )
        from dropreel.storage import S3Storage
        from functions.validate import app

        monkeypatch.setattr(app, "uploads", S3Storage())
        yield app


def drop(role: Role, key: str, content: bytes) -> Input:
    put = boto3.client("s3").put_object(Bucket=UPLOAD_BUCKET, Key=key, Body=content)
    return Input(role=role, key=key, version_id=put["VersionId"], size_bytes=len(content))


def event_of(*inputs: Input) -> dict[str, Any]:
    job = Job(
        id="anna-0123456789abcdef",
        bucket=UPLOAD_BUCKET,
        folder="",
        stem="anna",
        model="wan-2.2-speech-to-video",
        inputs=inputs,
    )
    return job.model_dump(mode="json")


def test_good_job_gives_its_plan(app: ModuleType) -> None:
    event = event_of(
        drop(Role.IMAGE, "inbox/anna.png", samples.PORTRAIT),
        drop(Role.AUDIO, "inbox/anna.wav", samples.SPEECH_WAV),
    )

    plan = Plan.model_validate(app.handler(event, Context()))

    assert plan.job == Job.model_validate(event)
    assert plan.endpoint == "wan-ai/wan-2-2/speech-to-video"
    assert plan.audio.duration_seconds == pytest.approx(8.25, abs=0.01)


def test_pinned_version_counts_not_the_latest(app: ModuleType) -> None:
    event = event_of(
        drop(Role.IMAGE, "inbox/anna.png", samples.PORTRAIT),
        drop(Role.AUDIO, "inbox/anna.wav", samples.SPEECH_WAV),
    )
    drop(Role.IMAGE, "inbox/anna.png", samples.TEXT)

    assert Plan.model_validate(app.handler(event, Context())).image.width == 512


def test_deleted_version_is_gone(app: ModuleType) -> None:
    image = drop(Role.IMAGE, "inbox/anna.png", samples.PORTRAIT)
    event = event_of(image, drop(Role.AUDIO, "inbox/anna.wav", samples.SPEECH_WAV))
    boto3.client("s3").delete_object(
        Bucket=UPLOAD_BUCKET, Key=image.key, VersionId=image.version_id
    )

    with pytest.raises(InputGone, match=r"inbox/anna\.png was deleted"):
        app.handler(event, Context())


@pytest.mark.parametrize("name", ["anna b + c", "100%", 'the "best"', "o'neill", "🎤 é", "a/b/ c"])
def test_refusal_names_the_file_as_it_was_dropped(app: ModuleType, name: str) -> None:
    event = event_of(
        drop(Role.IMAGE, f"inbox/{name}.png", samples.TEXT),
        drop(Role.AUDIO, f"inbox/{name}.mp3", b""),
    )

    with pytest.raises(InputRejected) as refusal:
        app.handler(event, Context())

    report = ErrorReport.model_validate_json(str(refusal.value))
    assert [(reason.file, reason.found) for reason in report.reasons] == [
        (f"inbox/{name}.png", "plain text"),
        (f"inbox/{name}.mp3", "an empty file"),
    ]
