"""The conclude function on S3, DynamoDB and EventBridge as moto plays them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.errors import RenderTimedOut, SettingUnreadable
from dropreel.model.events import DeliveredVideo, JobSummary, RenderSummary, VideoFailed, VideoReady
from dropreel.model.job import Job
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import NextAttempt
from dropreel.model.prices import billed
from dropreel.render.admission import RunId, Waiter
from dropreel.render.spending import Limits
from tests.support.render_account import LEDGER, ROOT, VIDEOS, RenderAccount, render_account
from tests.support.render_fakes import JOB, NOON, PLAN, RUNCOMFY, ScriptedProvider, providers

ABORTED = json.loads((ROOT / "events/samples/execution_aborted.json").read_text())


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    with render_account(monkeypatch) as account:
        yield account


def failed_run(job: Job) -> dict[str, Any]:
    cause = {"errorMessage": str(RenderTimedOut("Still queued.")), "errorType": "RenderTimedOut"}
    return {
        "job": job.model_dump(mode="json"),
        "error": {"Error": "RenderTimedOut", "Cause": json.dumps(cause)},
        "execution": "arn:aws:states:eu-central-1:123456789012:execution:render:anna",
        "started_at": (datetime.now(UTC) - timedelta(minutes=1)).isoformat(),
    }


def accept(account: RenderAccount, job_id: str) -> None:
    attempt = account.ledger.begin(job_id, NextAttempt(), RUNCOMFY, NOON)
    assert attempt is not None
    account.ledger.accept(attempt, "req-1", NOON)


def error_file(account: RenderAccount, key: str) -> str:
    return account.s3.get_object(Bucket=VIDEOS, Key=key)["Body"].read().decode()


def test_failed_step_is_told_beside_where_the_video_would_be(account: RenderAccount) -> None:
    accept(account, JOB.id)
    provider = ScriptedProvider(cancels=True)

    failed = VideoFailed.model_validate(account.call("conclude", failed_run(JOB), provider))

    assert failed.error.code == "RenderTimedOut"
    assert failed.render is not None
    assert failed.render.cancelled
    assert VideoFailed.model_validate_json(error_file(account, "team/anna.error.json")) == failed
    assert account.announced() == []


def test_aborted_execution_is_concluded_and_announced(account: RenderAccount) -> None:
    job_id = ABORTED["detail"]["name"]
    accept(account, job_id)
    provider = ScriptedProvider(cancels=True)

    account.call("conclude", ABORTED, provider)

    assert provider.cancelled == ["req-1"]
    assert "Someone stopped" in error_file(account, "team/anna.error.json")
    [event] = map(json.loads, account.announced())
    assert event["detail-type"] == "Video Failed"
    assert event["detail"]["job"]["id"] == job_id
    assert event["detail"]["error"]["code"] == "ExecutionAborted"
    [run] = account.ledger.runs(job_id)
    assert (run.outcome, run.closed_at is not None) == ("ExecutionAborted", True)
    [attempt] = account.ledger.attempts(job_id)
    assert (attempt.state, attempt.code) == (AttemptState.LOST, "ExecutionAborted")


def test_caught_failure_is_closed_and_has_no_outcome_before_it_is_announced(
    account: RenderAccount,
) -> None:
    account.call("conclude", failed_run(JOB), ScriptedProvider())

    [run] = account.ledger.runs(JOB.id)
    assert run.closed_at is not None
    assert run.outcome is None


def test_failure_after_the_delivery_is_answered_with_the_video(account: RenderAccount) -> None:
    run = failed_run(JOB)
    started_at = datetime.fromisoformat(run["started_at"])
    ready = VideoReady(
        job=JobSummary.of(JOB, started_at),
        inputs=(),
        changes=(),
        video=DeliveredVideo(
            bucket=VIDEOS,
            key=JOB.video_key,
            version_id="v1",
            size_bytes=1,
            duration_seconds=1,
            width=64,
            height=48,
            sha256="0" * 64,
        ),
        render=RenderSummary(
            provider="runcomfy",
            model=RUNCOMFY.endpoint,
            request_id="req-1",
            queued_seconds=0,
            rendering_seconds=0,
            copying_seconds=0,
            attempts=(),
        ),
    )
    account.s3.put_object(
        Bucket=VIDEOS, Key=JOB.manifest_key, Body=ready.model_dump_json().encode()
    )

    answer = account.call("conclude", run, ScriptedProvider())

    assert VideoReady.model_validate(answer) == ready
    assert [run.outcome for run in account.ledger.runs(JOB.id)] == ["VideoReady"]


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("USD_PER_SECOND", "480p=0,04", 'UsdPerSecond is "480p=0,04".'),
        ("DAILY_SPEND_LIMIT_USD", "0,04", 'DailySpendLimitUsd is "0,04".'),
        (
            "PROVIDERS",
            providers(runcomfy={"max_in_flight": -1}),
            'RunComfyMaxInFlight is "-1".',
        ),
        ("PROVIDERS", providers(runcomfy={"url": "runcomfy.net"}), 'RunComfyUrl is "runcomfy.net"'),
    ],
)
def test_a_setting_that_no_step_can_read_is_told_to_the_person(
    account: RenderAccount, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingUnreadable) as raised:
        account.call("admit", {}, ScriptedProvider())
    # As Lambda tells of an exception, also of one that keeps a function from starting.
    cause = {"errorMessage": str(raised.value), "errorType": type(raised.value).__name__}
    run = failed_run(JOB) | {"error": {"Error": "SettingUnreadable", "Cause": json.dumps(cause)}}

    failed = VideoFailed.model_validate(account.call("conclude", run, ScriptedProvider()))

    assert failed.error.code == "SettingUnreadable"
    assert failed.error.retryable
    assert f"The parameter {named}" in failed.error.message
    assert "Nothing was submitted" in failed.error.message
    assert VideoFailed.model_validate_json(error_file(account, "team/anna.error.json")) == failed


def test_a_setting_that_cannot_be_read_gives_the_slot_back_and_lets_nobody_in(
    account: RenderAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = DynamoDBSlots(LEDGER, account.dynamodb)
    now = datetime.now(UTC)
    for job in (JOB, JOB.model_copy(update={"id": "bert-0123456789abcdef", "stem": "bert"})):
        plan = PLAN.model_copy(update={"job": job})
        waiter = Waiter(
            run=RunId.of(job),
            attempt=1,
            route=billed(plan),
            offer=0,
            started_at=now,
            task_token="token",
        )
        assert slots.join(waiter, plan)
    waiter, _ = slots.first_waiters(RUNCOMFY.provider, 2)
    unlimited = Limits(in_flight={}, lease={})
    until = now + timedelta(hours=9)
    slots.grant(waiter, 0, by="", until=until, now=now, usd=None, limits=unlimited)
    monkeypatch.setenv("DAILY_SPEND_LIMIT_USD", "0,04")

    account.call("conclude", failed_run(waiter_job(waiter)), ScriptedProvider())

    assert slots.leases(RUNCOMFY.provider) == ()
    assert len(slots.first_waiters(RUNCOMFY.provider, 9)) == 1


def waiter_job(waiter: Waiter) -> Job:
    stem = waiter.run.job_id.split("-")[0]
    return JOB.model_copy(update={"id": waiter.run.job_id, "stem": stem})


def test_concluding_twice_is_harmless(account: RenderAccount) -> None:
    accept(account, JOB.id)

    first = account.call("conclude", failed_run(JOB), ScriptedProvider(cancels=True))
    second = account.call("conclude", failed_run(JOB), ScriptedProvider(cancels=False))

    assert second == first


def test_execution_that_was_concluded_before_it_failed_is_silent(account: RenderAccount) -> None:
    failed = {**ABORTED, "detail": {**ABORTED["detail"], "status": "FAILED", "error": "NoCredit"}}

    assert account.call("conclude", failed, ScriptedProvider()) == {}

    assert account.announced() == []


@pytest.mark.parametrize("foreign", [b"\xff\xfe", b'{"name": "J\xfcrg"}'])
def test_manifest_in_another_encoding_is_somebody_elses(
    account: RenderAccount, foreign: bytes
) -> None:
    account.s3.put_object(Bucket=VIDEOS, Key=JOB.manifest_key, Body=foreign)

    account.call("conclude", failed_run(JOB), ScriptedProvider())

    assert "RenderTimedOut" in error_file(account, "team/anna.error.json")


def test_no_error_file_goes_over_what_a_later_job_says(account: RenderAccount) -> None:
    later = {"job": {"id": "anna-fedcba9876543210", "started_at": datetime.now(UTC).isoformat()}}
    account.s3.put_object(Bucket=VIDEOS, Key=JOB.manifest_key, Body=json.dumps(later).encode())

    account.call("conclude", failed_run(JOB), ScriptedProvider())

    listed = account.s3.list_objects_v2(Bucket=VIDEOS)["Contents"]
    assert [found["Key"] for found in listed] == [JOB.manifest_key]
