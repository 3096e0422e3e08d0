"""The conclude function on S3, DynamoDB and EventBridge as moto plays them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.errors import RenderTimedOut, SettingUnreadable
from dropreel.model.events import VideoFailed, VideoReady
from dropreel.model.ledger import AttemptState, Outcome
from dropreel.model.messages import NextAttempt
from dropreel.model.prices import billed
from dropreel.outcome.conclusion import ending_in
from dropreel.render.admission import RunId, Waiter
from dropreel.render.spending import Limits
from tests.support.conclusion_bench import (
    READY,
    SAMPLE,
    failed_run,
    lambda_cause,
    manifest,
    step_failed,
)
from tests.support.render_account import LEDGER, VIDEOS, RenderAccount, render_account
from tests.support.render_fakes import JOB, NOON, PLAN, RUNCOMFY, ScriptedProvider, providers

ABORTED = json.loads(SAMPLE.read_text())
LATE = failed_run(RenderTimedOut("Still queued."))


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    with render_account(monkeypatch) as account:
        yield account


def accept(account: RenderAccount, job_id: str) -> None:
    attempt = account.ledger.begin(job_id, NextAttempt(), RUNCOMFY, NOON)
    assert attempt is not None
    account.ledger.accept(attempt, "req-1", NOON)


def error_file(account: RenderAccount) -> str:
    return account.s3.get_object(Bucket=VIDEOS, Key=JOB.error_key)["Body"].read().decode()


def test_error_file_lies_where_the_video_would_be(account: RenderAccount) -> None:
    accept(account, JOB.id)
    provider = ScriptedProvider(cancels=True)

    failed = VideoFailed.model_validate(account.call("conclude", LATE, provider))

    assert failed.error.code == "RenderTimedOut"
    assert failed.render is not None
    assert failed.render.cancelled
    assert VideoFailed.model_validate_json(error_file(account)) == failed
    assert account.announced() == []
    [run] = account.ledger.runs(JOB.id)
    assert run.closed_at is not None
    assert account.ledger.outcome(JOB, NOON) == Outcome(detail=failed)


def test_aborted_execution_is_concluded_and_announced(account: RenderAccount) -> None:
    job_id = ABORTED["detail"]["name"]
    accept(account, job_id)
    provider = ScriptedProvider(cancels=True)

    for _ in range(2):
        account.call("conclude", ABORTED, provider)

    assert provider.cancelled == ["req-1"]
    assert "Someone stopped" in error_file(account)
    [event] = map(json.loads, account.announced())
    assert event["detail-type"] == "Video Failed"
    assert event["detail"]["job"]["id"] == job_id
    assert event["detail"]["error"]["code"] == "ExecutionAborted"
    ending = ending_in(ABORTED)
    assert ending
    outcome = account.ledger.outcome(ending.job, ending.started_at)
    assert outcome
    assert outcome.sent_at
    assert outcome.detail.model_dump(mode="json") == event["detail"]
    [attempt] = account.ledger.attempts(job_id)
    assert (attempt.state, attempt.code) == (AttemptState.LOST, "ExecutionAborted")


def test_failure_after_the_delivery_is_answered_with_the_video(account: RenderAccount) -> None:
    ready = manifest()
    account.s3.put_object(Bucket=VIDEOS, Key=JOB.manifest_key, Body=ready.encode())

    answer = account.call("conclude", LATE, ScriptedProvider())

    assert VideoReady.model_validate(answer) == VideoReady.model_validate_json(ready)
    assert account.ledger.outcome(JOB, NOON) == READY


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("CATALOG_OVERRIDES", "480p=0,04", 'CatalogOverrides is "480p=0,04".'),
        ("DAILY_SPEND_LIMIT_USD", "0,04", 'DailySpendLimitUsd is "0,04".'),
        ("PROVIDERS", providers(runcomfy={"max_in_flight": -1}), 'RunComfyMaxInFlight is "-1".'),
        ("PROVIDERS", providers(runcomfy={"url": "runcomfy.net"}), 'RunComfyUrl is "runcomfy.net"'),
    ],
)
def test_error_file_names_a_setting_that_no_step_can_read(
    account: RenderAccount, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingUnreadable) as raised:
        account.call("admit", {}, ScriptedProvider())

    # Raised while Lambda loads the function, outside of the handler: it is no `FinalAnswer`.
    event = step_failed("SettingUnreadable", lambda_cause(str(raised.value), "SettingUnreadable"))
    answer = account.call("conclude", event, ScriptedProvider())

    failed = VideoFailed.model_validate(answer)
    assert failed.error.code == "SettingUnreadable"
    assert failed.error.retryable
    assert f"The parameter {named}" in failed.error.message
    assert "Nothing was submitted" in failed.error.message
    assert VideoFailed.model_validate_json(error_file(account)) == failed


def test_unreadable_setting_gives_the_slot_back_and_admits_no_job(
    account: RenderAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = DynamoDBSlots(LEDGER, account.dynamodb)
    now = datetime.now(UTC)
    for job in (JOB, JOB.model_copy(update={"id": "bert-0123456789abcdef", "stem": "bert"})):
        plan = PLAN.model_copy(update={"job": job})
        place = {"route": billed(plan), "offer": 0, "started_at": now, "task_token": "token"}
        waiter = Waiter.model_validate({"run": RunId.of(job), "attempt": 1, **place})
        assert slots.join(waiter, plan)
    waiter, _ = slots.first_waiters(RUNCOMFY.provider, 2)
    unlimited = Limits(in_flight={}, lease={})
    until = now + timedelta(hours=9)
    slots.grant(waiter, 0, by="", until=until, now=now, usd=None, limits=unlimited)
    monkeypatch.setenv("DAILY_SPEND_LIMIT_USD", "0,04")

    job = JOB.model_copy(update={"id": waiter.run.job_id, "stem": waiter.run.job_id[:4]})
    failed = failed_run(RenderTimedOut("Still queued."), job=job.model_dump(mode="json"))
    account.call("conclude", failed, ScriptedProvider())

    assert slots.leases(RUNCOMFY.provider) == ()
    assert len(slots.first_waiters(RUNCOMFY.provider, 9)) == 1
