"""The validate function against a versioned bucket."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.catalog import TITLES
from dropreel.model.errors import ErrorReport, InputGone, InputRejected, TokenMissing
from dropreel.model.job import Input, Job, Role
from dropreel.model.ledger import Attempt
from dropreel.model.messages import Next, Plan
from dropreel.model.prices import billed
from dropreel.render.admission import RunId, Waiter
from tests.support import media_samples as samples
from tests.support.render_account import create_ledger_table
from tests.support.render_fakes import providers

UPLOAD_BUCKET = "dropreel-uploads"
SETTINGS = {"LEDGER_TABLE": "ledger", "PROVIDERS": providers()}


class Context:
    """What Lambda tells a function about its call."""

    function_name = "validate"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:validate"
    aws_request_id = "5f1c0d6e"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
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
        from functions.validate import app

        from dropreel.aws.s3 import S3Storage

        monkeypatch.setattr(app, "uploads", S3Storage())
        monkeypatch.setattr(app, "ledger", DynamoDBLedger(SETTINGS["LEDGER_TABLE"]))
        monkeypatch.setattr(app, "configured", lambda settings: frozenset(TITLES))
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


def good_event() -> dict[str, Any]:
    return event_of(
        drop(Role.IMAGE, "inbox/anna.png", samples.picture("PNG")),
        drop(Role.AUDIO, "inbox/anna.wav", samples.SPEECH_WAV),
    )


def test_good_job_gives_its_plan(app: ModuleType) -> None:
    event = good_event()

    plan = Plan.model_validate(app.handler(event, Context()))

    assert plan.job == Job.model_validate(event)
    assert [offer.endpoint for offer in plan.route] == [
        "wan-ai/wan-2-2/speech-to-video",
        "wavespeed-ai/wan-2.2/speech-to-video",
    ]
    assert plan.audio_facts is not None
    assert plan.audio_facts.duration_seconds == pytest.approx(8.25, abs=0.01)
    assert plan.conform == ()


def test_only_offers_with_a_token_are_on_the_route(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "configured", lambda settings: {"wavespeed"})

    plan = Plan.model_validate(app.handler(good_event(), Context()))

    assert [offer.provider for offer in plan.route] == ["wavespeed"]


def test_no_token_at_all_is_said(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "configured", lambda settings: frozenset())

    with pytest.raises(TokenMissing, match="RunComfy or for WaveSpeed"):
        app.handler(good_event(), Context())


def test_pinned_version_counts_not_the_latest(app: ModuleType) -> None:
    event = good_event()
    drop(Role.IMAGE, "inbox/anna.png", samples.TEXT)

    plan = Plan.model_validate(app.handler(event, Context()))

    assert plan.image_facts is not None
    assert plan.image_facts.width == 512


@pytest.mark.parametrize("ending", ["png", "wav"])
def test_deleted_version_is_gone(app: ModuleType, ending: str) -> None:
    event = good_event()
    (gone,) = (given for given in event["inputs"] if given["key"].endswith(ending))
    boto3.client("s3").delete_object(
        Bucket=UPLOAD_BUCKET, Key=gone["key"], VersionId=gone["version_id"]
    )

    with pytest.raises(InputGone, match=rf"inbox/anna\.{ending} was deleted"):
        app.handler(event, Context())


def test_only_ranges_of_the_pinned_version_are_read(app: ModuleType) -> None:
    """A large video is judged from its two ends."""
    film = samples.video()
    movie, moov = film.index(b"mdat") - 4, film.index(b"moov") - 4
    size_bytes = 8_000_000
    content = (
        film[:movie]
        + (size_bytes - movie - len(film[moov:])).to_bytes(4, "big")
        + b"mdat".ljust(size_bytes - movie - len(film[moov:]) - 4, b"\0")
        + film[moov:]
    )
    given = drop(Role.AUDIO, "inbox/anna.mp4", content)
    read: list[int] = []
    storage = app.uploads
    storage._client.meta.events.register(
        "after-call.s3.GetObject", lambda parsed, **_: read.append(parsed["ContentLength"])
    )

    with storage.open(UPLOAD_BUCKET, given) as file:
        from dropreel.media.recordings import read_recording

        sound = read_recording(file, given.size_bytes)

    assert sound.duration_seconds == pytest.approx(2, abs=0.03)
    assert 0 < sum(read) < 300_000


# Run again


@pytest.fixture
def ledger(app: ModuleType) -> DynamoDBLedger:
    create_ledger_table(boto3.client("dynamodb"))
    found: DynamoDBLedger = app.ledger
    return found


def again(event: dict[str, Any]) -> dict[str, Any]:
    return event | {"run": event.get("run", 1) + 1}


def submit(ledger: DynamoDBLedger, plan: Plan, now: datetime) -> Attempt:
    attempt = ledger.begin(plan.job.id, Next(attempt=plan.first_attempt), plan.route[0], now)
    assert attempt
    return attempt


def admitted(plan: Plan, now: datetime) -> None:
    """As admit leaves it behind."""
    waiter = Waiter(
        run=RunId.of(plan.job),
        attempt=1,
        route=billed(plan),
        offer=0,
        started_at=now,
        task_token="token",
        call=0,
    )
    assert DynamoDBSlots(SETTINGS["LEDGER_TABLE"]).join(waiter, plan)


def test_accepted_render_is_resumed_though_its_uploads_are_gone(
    app: ModuleType, ledger: DynamoDBLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, now = good_event(), datetime(2026, 11, 20, 12, tzinfo=UTC)
    first = Plan.model_validate(app.handler(event, Context()))
    admitted(first, now)
    ledger.accept(submit(ledger, first, now), "req-1", now)
    for gone in event["inputs"]:
        boto3.client("s3").delete_object(
            Bucket=UPLOAD_BUCKET, Key=gone["key"], VersionId=gone["version_id"]
        )
    monkeypatch.setattr(app, "configured", lambda settings: frozenset())

    plan = Plan.model_validate(app.handler(again(event), Context()))

    assert plan.resume
    assert (plan.resume.request_id, plan.resume.submitted_at) == ("req-1", now)
    assert plan.first_attempt == 1
    assert plan.job == first.job.model_copy(update={"run": 2})
    assert plan.route == first.route


def test_what_is_resumed_is_noted_for_who_concludes_or_runs_it_again(
    app: ModuleType, ledger: DynamoDBLedger
) -> None:
    event, now = good_event(), datetime(2026, 11, 20, 12, tzinfo=UTC)
    first = Plan.model_validate(app.handler(event, Context()))
    admitted(first, now)
    ledger.accept(submit(ledger, first, now), "req-1", now)

    plan = Plan.model_validate(app.handler(again(event), Context()))

    before, run = ledger.runs(plan.job.id)
    assert (before.number, before.plan) == (1, first)
    assert (run.number, run.plan) == (2, plan)
    assert run.plan
    assert run.plan.resume
    assert run.plan.resume.request_id == "req-1"


def test_refused_attempt_is_followed_by_a_new_one(app: ModuleType, ledger: DynamoDBLedger) -> None:
    event, now = good_event(), datetime(2026, 11, 20, 12, tzinfo=UTC)
    first = Plan.model_validate(app.handler(event, Context()))
    admitted(first, now)
    ledger.refuse(submit(ledger, first, now), "NoCredit", "")

    plan = Plan.model_validate(app.handler(again(event), Context()))

    assert (plan.first_attempt, plan.resume, plan.job.run) == (2, None, 2)


def test_first_run_reads_no_ledger(app: ModuleType) -> None:
    with pytest.raises(ClientError, match="ResourceNotFound"):  # the table is not even there
        app.handler(again(good_event()), Context())

    assert app.handler(good_event(), Context())["first_attempt"] == 1


WITHOUT_CODECS = """
import sys
sys.modules.update(dict.fromkeys(("PIL", "av", "pillow_heif")))
import functions.validate.app
"""


def test_validate_needs_no_codec() -> None:
    """Its function has no layer with Pillow, PyAV or pillow-heif."""
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_CODECS],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            **SETTINGS,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )

    assert ran.returncode == 0, ran.stderr


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
