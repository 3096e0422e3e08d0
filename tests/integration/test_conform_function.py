"""The conform function against a versioned bucket."""

import json
from collections.abc import Iterator
from io import BytesIO
from types import ModuleType

import boto3
import pytest
from moto import mock_aws
from PIL import Image

from dropreel.model.catalog import TITLES
from dropreel.model.errors import ErrorReport, InputGone, InputRejected
from dropreel.model.job import Input, Job, Role
from dropreel.model.messages import Plan
from dropreel.render import validation
from tests.support import media_samples as samples
from tests.support import more_media as media

UPLOAD_BUCKET = "dropreel-uploads"


class Context:
    """What Lambda tells a function about its call."""

    function_name = "conform"
    memory_limit_in_mb = 1769
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:conform"
    aws_request_id = "5f1c0d6e"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


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
        from functions.conform import app

        from dropreel.aws.s3 import S3Storage

        monkeypatch.setattr(app, "uploads", S3Storage())
        yield app


def drop(role: Role, key: str, content: bytes) -> Input:
    put = boto3.client("s3").put_object(Bucket=UPLOAD_BUCKET, Key=key, Body=content)
    return Input(role=role, key=key, version_id=put["VersionId"], size_bytes=len(content))


def plan_of(app: ModuleType, *inputs: Input) -> Plan:
    job = Job(
        id="anna-0123456789abcdef",
        bucket=UPLOAD_BUCKET,
        folder="",
        stem="anna",
        model="wan-2.2-speech-to-video",
        inputs=inputs,
    )
    return validation.plan(job, app.uploads, tuple(TITLES))


def content_of(pinned: Input) -> bytes:
    return (
        boto3.client("s3")
        .get_object(Bucket=UPLOAD_BUCKET, Key=pinned.key, VersionId=pinned.version_id)["Body"]
        .read()
    )


def test_photo_and_voice_memo_of_a_phone_become_what_the_offers_take(app: ModuleType) -> None:
    plan = plan_of(
        app,
        drop(Role.IMAGE, "inbox/anna.heic", media.heic(6)),
        drop(Role.AUDIO, "inbox/anna.m4a", media.tone("ipod", "aac")),
    )

    conformed = Plan.model_validate(app.handler(plan.model_dump(mode="json"), Context()))

    assert conformed.audio
    assert conformed.image.key == "work/anna-0123456789abcdef/image.jpg"
    assert conformed.audio.key == "work/anna-0123456789abcdef/audio.mp3"
    picture, sound = content_of(conformed.image), content_of(conformed.audio)
    assert (len(picture), len(sound)) == (conformed.image.size_bytes, conformed.audio.size_bytes)
    assert Image.open(BytesIO(picture)).size == (640, 480)
    assert media.heard(sound).seconds == pytest.approx(4, abs=0.1)
    assert conformed.changes == (
        "The picture was converted from HEIC to JPEG.",
        "Location and other metadata were removed.",
        "The recording was converted from M4A to MP3.",
    )
    head = boto3.client("s3").head_object(Bucket=UPLOAD_BUCKET, Key=conformed.image.key)
    assert head["ContentType"] == "image/jpeg"


def test_pinned_version_is_conformed_not_the_latest(app: ModuleType) -> None:
    plan = plan_of(
        app,
        drop(Role.IMAGE, "inbox/anna.heic", media.heic()),
        drop(Role.AUDIO, "inbox/anna.wav", samples.wav(4)),
    )
    drop(Role.IMAGE, "inbox/anna.heic", samples.TEXT)

    conformed = Plan.model_validate(app.handler(plan.model_dump(mode="json"), Context()))

    assert conformed.image_facts
    assert conformed.image_facts.width == 640


def test_second_call_gives_the_same_copies(app: ModuleType) -> None:
    event = plan_of(
        app,
        drop(Role.IMAGE, "inbox/anna.heic", media.heic()),
        drop(Role.AUDIO, "inbox/anna.m4a", media.tone("ipod", "aac")),
    ).model_dump(mode="json")

    first, second = (Plan.model_validate(app.handler(event, Context())) for _ in range(2))

    assert first.audio and second.audio
    assert content_of(first.image) == content_of(second.image)
    assert content_of(first.audio) == content_of(second.audio)


def test_refusal_reaches_step_functions_as_a_report(app: ModuleType) -> None:
    plan = plan_of(
        app,
        drop(Role.IMAGE, "inbox/anna.gif", media.gif()[:900]),
        drop(Role.AUDIO, "inbox/anna.flac", media.tone("flac", "flac")[:30_000]),
    )

    with pytest.raises(InputRejected) as refusal:
        app.handler(plan.model_dump(mode="json"), Context())

    report = ErrorReport.model_validate(json.loads(str(refusal.value)))
    assert report.code == "InputRejected"
    assert [reason.file for reason in report.reasons] == ["inbox/anna.gif", "inbox/anna.flac"]


def test_upload_deleted_for_good_is_gone(app: ModuleType) -> None:
    image = drop(Role.IMAGE, "inbox/anna.heic", media.heic())
    plan = plan_of(app, image, drop(Role.AUDIO, "inbox/anna.wav", samples.wav(4)))
    boto3.client("s3").delete_object(
        Bucket=UPLOAD_BUCKET, Key=image.key, VersionId=image.version_id
    )

    with pytest.raises(InputGone):
        app.handler(plan.model_dump(mode="json"), Context())
