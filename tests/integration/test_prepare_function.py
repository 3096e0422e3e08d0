"""The prepare function against a versioned bucket, with what really opens the media."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from types import ModuleType

import boto3
import pytest
from moto import mock_aws
from PIL import Image

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.slots import DynamoDBSlots
from dropreel.aws.uploads import UsedUploads
from dropreel.media import source
from dropreel.model.catalog import TITLES
from dropreel.model.errors import InputGone, InputRejected
from dropreel.model.events import UsedInput, VideoReady
from dropreel.model.job import Input, Job, Role
from dropreel.model.ledger import Outcome
from dropreel.model.messages import Checked, NextAttempt, Plan
from dropreel.model.prices import billed
from dropreel.render.admission import RunId, Waiter
from tests.support import media_samples as samples
from tests.support.conclusion_bench import manifest
from tests.support.final_answers import ends_in
from tests.support.media_samples import tone
from tests.support.render_account import create_ledger_table
from tests.support.render_fakes import NOON, providers

BUCKET = "dropreel-uploads"
VIDEOS = "dropreel-videos"
WORK = "dropreel-work"
SETTINGS = {
    "LEDGER_TABLE": "ledger",
    "PROVIDERS": providers(),
    "VIDEO_BUCKET": VIDEOS,
    "WORK_BUCKET": WORK,
}


class Context:
    """The call, as Lambda describes it."""

    function_name = "prepare"
    memory_limit_in_mb = 3008
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:prepare"
    aws_request_id = "5f1c0d6e"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for name, value in (SETTINGS | {"AWS_DEFAULT_REGION": "eu-west-1"}).items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        s3 = boto3.client("s3")
        for bucket in (BUCKET, VIDEOS, WORK):
            s3.create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
            )
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        create_ledger_table(boto3.client("dynamodb"))
        from dropreel.aws.s3 import S3Storage
        from functions.prepare import app

        files = S3Storage()
        makers = UsedUploads(SETTINGS["LEDGER_TABLE"])
        monkeypatch.setattr(app, "files", files)
        monkeypatch.setattr(
            app, "repetitions", replace(app.repetitions, makers=makers, videos=files)
        )
        monkeypatch.setattr(app, "ledger", DynamoDBLedger(SETTINGS["LEDGER_TABLE"]))
        monkeypatch.setattr(app, "configured", lambda settings: frozenset(TITLES))
        yield app


def drop(role: Role, key: str, content: bytes) -> Input:
    put = boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
    return Input(role=role, key=key, version_id=put["VersionId"], size_bytes=len(content))


def delete(given: Input) -> None:
    boto3.client("s3").delete_object(Bucket=BUCKET, Key=given.key, VersionId=given.version_id)


def content_of(pinned: Input | None) -> bytes:
    assert pinned
    got = boto3.client("s3").get_object(Bucket=WORK, Key=pinned.key, VersionId=pinned.version_id)
    return got["Body"].read()


def job_of(*inputs: Input, run: int = 1) -> Job:
    return Job(
        id="anna-0123456789abcdef",
        bucket=BUCKET,
        folder="",
        stem="anna",
        model="wan-2.2-speech-to-video",
        inputs=inputs,
        run=run,
    )


def good_job() -> Job:
    return job_of(
        drop(Role.IMAGE, "inbox/anna.png", samples.picture("PNG")),
        drop(Role.AUDIO, "inbox/anna.wav", samples.wav(2)),
    )


def prepare(app: ModuleType, job: Job) -> Plan:
    return Plan.model_validate(app.handler(job.model_dump(mode="json"), Context()))


def test_long_voice_has_an_offer_once_the_owner_turns_one_on(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = "wavespeed-ai/infinitetalk"
    job = job_of(
        drop(Role.IMAGE, "inbox/anna.png", samples.picture("PNG")),
        drop(Role.AUDIO, "inbox/anna.wav", samples.wav(130)),
    )
    with ends_in(InputRejected):
        prepare(app, job)

    monkeypatch.setenv("CATALOG_OVERRIDES", json.dumps({talk: {"on": True}}))
    assert app.__file__
    spec = spec_from_file_location("prepare_with_overrides", app.__file__)
    assert spec
    assert spec.loader
    again = module_from_spec(spec)
    spec.loader.exec_module(again)
    monkeypatch.setattr(again, "configured", app.configured)

    plan = prepare(again, job)
    assert [offer.endpoint for offer in plan.route] == [talk]
    assert plan.audio_facts
    assert plan.audio_facts.duration_seconds == pytest.approx(130, abs=0.1)


def test_photo_and_voice_memo_of_a_phone_become_what_the_offers_take(app: ModuleType) -> None:
    job = job_of(
        drop(Role.IMAGE, "inbox/anna.heic", samples.heic()),
        drop(Role.AUDIO, "inbox/anna.m4a", tone("ipod", "aac")),
    )

    plan, again = prepare(app, job), prepare(app, job)

    assert plan.job == job
    assert plan.image.key == "work/anna-0123456789abcdef/image.jpg"
    assert plan.audio and plan.audio.key == "work/anna-0123456789abcdef/audio.mp3"
    picture, sound = content_of(plan.image), content_of(plan.audio)
    assert (len(picture), len(sound)) == (plan.image.size_bytes, plan.audio.size_bytes)
    assert Image.open(BytesIO(picture)).size == (640, 480)
    assert plan.audio_facts and plan.audio_facts.duration_seconds == pytest.approx(4, abs=0.1)
    assert [change.split(" from ")[0] for change in plan.changes] == [
        "The picture was converted",
        "Location and other metadata were removed.",
        "The recording was converted",
        "Removed",
    ]
    head = boto3.client("s3").head_object(Bucket=WORK, Key=plan.image.key)
    assert head["ContentType"] == "image/jpeg"
    assert (content_of(again.image), content_of(again.audio)) == (picture, sound)


def test_pinned_version_counts_not_the_latest(app: ModuleType) -> None:
    job = good_job()
    drop(Role.IMAGE, "inbox/anna.png", samples.TEXT)

    assert prepare(app, job).image_facts.width == 512


@pytest.mark.parametrize("ending", ["png", "wav"])
def test_deleted_version_is_gone(app: ModuleType, ending: str) -> None:
    job = good_job()
    delete(next(given for given in job.inputs if given.key.endswith(ending)))

    with ends_in(InputGone, f"inbox/anna.{ending} was deleted"):
        prepare(app, job)


def test_of_a_large_video_little_more_than_its_sound_is_read(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_MAX_WHOLE_BYTES", 1_000_000)
    film = tone("mp4", "aac", 2)
    end, pictures_bytes = film.index(b"moov") - 4, 8_000_000
    pictures = pictures_bytes.to_bytes(4, "big") + b"free".ljust(pictures_bytes - 4, b"\0")
    content = film[:end] + pictures + film[end:]
    job = job_of(
        drop(Role.IMAGE, "inbox/anna.png", samples.picture("PNG")),
        drop(Role.AUDIO, "inbox/anna.mp4", content),
    )
    read: list[int] = []
    app.files._client.meta.events.register(
        "after-call.s3.GetObject", lambda parsed, **_: read.append(parsed.get("ContentLength", 0))
    )

    plan = prepare(app, job)

    assert plan.audio_facts
    assert plan.audio_facts.duration_seconds == pytest.approx(2, abs=0.1)
    assert 0 < sum(read) < 500_000


def test_only_offers_with_a_token_are_on_the_route(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "configured", lambda settings: {"wavespeed"})

    assert [offer.provider for offer in prepare(app, good_job()).route] == ["wavespeed"]


@pytest.mark.parametrize("name", ["anna b + c", '100% "best"', "o'neill", "🎤 é", "a/b/ c"])
def test_refusal_travels_as_a_report_with_the_names_as_dropped(app: ModuleType, name: str) -> None:
    job = job_of(
        drop(Role.IMAGE, f"inbox/{name}.png", samples.TEXT),
        drop(Role.AUDIO, f"inbox/{name}.mp3", b""),
    )

    with ends_in(InputRejected) as refused:
        prepare(app, job)

    assert [(reason.file, reason.found) for reason in refused.report.reasons] == [
        (f"inbox/{name}.png", "plain text"),
        (f"inbox/{name}.mp3", "an empty file"),
    ]


# Run again


def test_accepted_render_is_resumed_though_its_uploads_are_gone(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger: DynamoDBLedger = app.ledger
    job = good_job()
    first = prepare(app, job)
    waiter = Waiter(
        run=RunId.of(job), attempt=1, route=billed(first), offer=0, started_at=NOON, task_token="t"
    )
    assert DynamoDBSlots(SETTINGS["LEDGER_TABLE"]).join(waiter, first)
    attempt = ledger.begin(job.id, NextAttempt(), first.route[0], NOON)
    assert attempt
    ledger.accept(attempt, "req-1", NOON)
    for given in job.inputs:
        delete(given)
    monkeypatch.setattr(app, "configured", lambda settings: frozenset())
    before = ledger.runs(job.id)

    plan = prepare(app, job.model_copy(update={"run": 2}))

    assert plan.resume
    assert (plan.resume.request_id, plan.resume.submitted_at) == ("req-1", NOON)
    changes = {"job": plan.job, "resume": plan.resume}
    assert plan == first.model_copy(update=changes)
    assert plan.job == job.model_copy(update={"run": 2})
    assert ledger.runs(job.id) == before  # poll notes what is resumed


def test_a_copy_in_place_is_not_rendered_again(app: ModuleType) -> None:
    first = good_job()
    plan = prepare(app, first)
    ready = VideoReady.model_validate_json(manifest(first))
    s3 = boto3.client("s3")
    s3.put_object(Bucket=VIDEOS, Key=first.video_key, Body=b"v" * ready.video.size_bytes)
    inputs = UsedInput.all_of(first, plan.sha256)
    document = ready.model_copy(update={"inputs": inputs}).model_dump_json()
    s3.put_object(Bucket=VIDEOS, Key=first.manifest_key, Body=document.encode())
    app.ledger.end(first, NOON, Outcome(detail=ready), NOON)
    second = good_job().model_copy(update={"id": "anna-1111111111111111"})

    assert second.inputs != first.inputs
    assert app.handler(second.model_dump(mode="json"), Context()) == {"same_as": first.id}
    assert app.repetitions.makers.last_drop(second) == first.id

    s3.delete_object(Bucket=VIDEOS, Key=first.video_key)

    assert prepare(app, second).job == second


def test_dry_run_is_prepared_like_a_render_and_recorded_nowhere(app: ModuleType) -> None:
    job = good_job()
    dry = job.model_copy(update={"id": "anna-2222222222222222", "dry_run": True})

    answer = Checked.model_validate(app.handler(dry.model_dump(mode="json"), Context()))

    assert boto3.client("dynamodb").scan(TableName="ledger")["Items"] == []
    plan = prepare(app, job)
    assert answer.checked.route == plan.route
    assert content_of(answer.checked.audio) == content_of(plan.audio)


def test_dry_run_is_checked_although_its_video_is_there(app: ModuleType) -> None:
    done = good_job()
    prepare(app, done)  # and now it is being made
    dry = done.model_copy(update={"id": "anna-2222222222222222", "dry_run": True})
    before = app.repetitions.makers.maker(done)

    assert "checked" in app.handler(dry.model_dump(mode="json"), Context())
    assert app.repetitions.makers.maker(done) == before
