"""What prepare refuses because of S3: buckets without versions, and files that S3 does not read."""

from collections.abc import Iterator
from typing import Any

import pytest

from dropreel.model.catalog import TITLES
from dropreel.model.errors import InputRejected, VersioningSuspended
from dropreel.model.job import Input, Job, Role
from dropreel.model.messages import NextAttempt, Plan
from tests.support import media_samples as samples
from tests.support.final_answers import ends_in
from tests.support.render_account import UPLOADS, VIDEOS, RenderAccount, render_account
from tests.support.render_fakes import JOB, NOON, PLAN, RUNCOMFY, ScriptedProvider


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    everyone = frozenset(TITLES)
    monkeypatch.setattr("dropreel.providers.tokens.configured", lambda settings: everyone)
    with render_account(monkeypatch) as account:
        yield account


def prepare(account: RenderAccount, job: Job) -> Plan:
    plan: dict[str, Any] = account.call("prepare", job.model_dump(mode="json"), ScriptedProvider())
    return Plan.model_validate(plan)


def suspend(account: RenderAccount, bucket: str) -> None:
    account.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})


@pytest.mark.parametrize("bucket", [UPLOADS, VIDEOS])
@pytest.mark.parametrize("run", [1, 2])
def test_a_bucket_whose_versioning_is_suspended_is_an_answer(
    account: RenderAccount, bucket: str, run: int
) -> None:
    job = account.drop(PLAN).job.model_copy(update={"run": run})
    suspend(account, bucket)

    with ends_in(VersioningSuspended, f"bucket {bucket} is not enabled"):
        prepare(account, job)


def test_a_render_that_is_paid_is_resumed_though_versioning_is_suspended(
    account: RenderAccount,
) -> None:
    plan = account.drop(PLAN)
    attempt = account.ledger.begin(plan.job.id, NextAttempt(), RUNCOMFY, NOON)
    assert attempt
    account.ledger.accept(attempt, "req-1", NOON)
    account.ledger.resume(plan, NOON, NOON)  # notes the plan of the first run
    suspend(account, VIDEOS)

    resumed = prepare(account, plan.job.model_copy(update={"run": 2}))

    assert resumed.resume
    assert resumed.resume.request_id == "req-1"


@pytest.mark.parametrize("of", [Role.IMAGE, Role.AUDIO])
def test_an_archived_file_is_an_answer(account: RenderAccount, of: Role) -> None:
    contents = {Role.IMAGE: samples.picture("PNG"), Role.AUDIO: samples.wav(2)}
    job = JOB.model_copy(
        update={
            "bucket": UPLOADS,
            "inputs": tuple(
                drop(account, given, contents[given.role], is_archived=given.role is of)
                for given in JOB.inputs
            ),
        }
    )

    with ends_in(InputRejected, f"{job.only(of).key}: archived"):
        prepare(account, job)


def drop(account: RenderAccount, given: Input, content: bytes, *, is_archived: bool) -> Input:
    put = account.s3.put_object(
        Bucket=UPLOADS,
        Key=given.key,
        Body=content,
        StorageClass="GLACIER" if is_archived else "STANDARD",
    )
    return given.model_copy(update={"version_id": put["VersionId"], "size_bytes": len(content)})
