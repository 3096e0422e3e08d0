"""The notes about used uploads, in DynamoDB as moto plays it."""

import time
from collections.abc import Iterator

import pytest

from dropreel.job import Input, Job, Role
from dropreel.used_uploads import UsedUploads
from tests.render_account import LEDGER, RenderAccount, render_account

KEY = "inbox/a b+c%20d'#/é😀.png"


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    with render_account(monkeypatch) as account:
        yield account


@pytest.fixture
def used(account: RenderAccount) -> UsedUploads:
    return UsedUploads(LEDGER, account.dynamodb)


def job(job_id: str, bucket: str = "uploads") -> Job:
    pinned = Input(role=Role.IMAGE, key=KEY, version_id="v1", size_bytes=1)
    return Job(
        id=job_id,
        bucket=bucket,
        folder="",
        stem="anna",
        model="wan-2.2-speech-to-video",
        prompt="Sie lächelt. 😀",
        options={"seed": 7, "generate_audio": False},
        inputs=(pinned,),
    )


def test_the_first_claim_of_the_same_uploads_decides(used: UsedUploads) -> None:
    assert used.claim("f1", job("first")) == job("first")
    assert used.claim("f1", job("second")) == job("first")
    assert used.claim("f2", job("second")) == job("second")
    assert used.claim("f1", job("second", "others")) == job("second", "others")


def test_a_version_is_used_once_it_is_noted(used: UsedUploads) -> None:
    assert not used.is_used("uploads", KEY, "v1")

    used.note("first", "uploads", KEY, "v1")
    used.note("second", "uploads", KEY, "v1")

    assert used.is_used("uploads", KEY, "v1")
    assert not used.is_used("uploads", KEY, "v2")
    assert not used.is_used("others", KEY, "v1")


def test_the_longest_key_can_be_noted(used: UsedUploads) -> None:
    longest = "inbox/" + "x" * 1018

    used.note("job", "b" * 63, longest, "v" * 900)

    assert used.is_used("b" * 63, longest, "v" * 900)


def test_a_face_is_found_by_the_defaults_that_named_it_last(used: UsedUploads) -> None:
    assert used.face_named_by("uploads", KEY) is None

    for folder in ("a", "b"):
        used.note_face("uploads", KEY, named_by=f"inbox/{folder}/_defaults.json")

    assert used.face_named_by("uploads", KEY) == "inbox/b/_defaults.json"


def test_an_upload_is_found_to_be_named_by_the_job_file_that_named_it_last(
    used: UsedUploads,
) -> None:
    assert used.named_by("uploads", KEY) is None

    used.note_face("uploads", KEY, named_by="inbox/_defaults.json")
    used.note_named("uploads", KEY, named_by="inbox/talk.json")

    assert used.named_by("uploads", KEY) == "inbox/talk.json"
    assert used.face_named_by("uploads", KEY) == "inbox/_defaults.json"


def test_notes_outlive_the_names_of_executions_and_then_go(
    used: UsedUploads, account: RenderAccount
) -> None:
    used.note("job", "uploads", KEY, "v1")

    (item,) = account.dynamodb.scan(TableName=LEDGER)["Items"]
    days = (int(item["expires_at"]["N"]) - time.time()) / 86400
    assert 90 < days < 200
