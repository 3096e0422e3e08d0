"""The notes about used uploads, in DynamoDB as moto plays it."""

from collections.abc import Iterator

import pytest
from botocore.stub import Stubber

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


def test_nothing_of_it_expires_because_the_sweep_would_pay_again(
    used: UsedUploads, account: RenderAccount
) -> None:
    used.claim("f1", job("job"))
    used.note("job", "uploads", KEY, "v1")
    used.note_answered("uploads", KEY, "v2")
    used.note_face("uploads", KEY, named_by="inbox/_defaults.json")
    used.note_named("uploads", KEY, named_by="inbox/talk.json")

    items = account.dynamodb.scan(TableName=LEDGER)["Items"]
    assert len(items) == 5
    assert not any("expires_at" in item for item in items)


def test_an_upload_is_answered_with_a_job_or_without(used: UsedUploads) -> None:
    assert not used.is_answered("uploads", KEY, "v1")

    used.note("job", "uploads", KEY, "v1")
    used.note_answered("uploads", KEY, "v2")

    assert used.is_answered("uploads", KEY, "v1")
    assert used.is_answered("uploads", KEY, "v2")
    assert not used.is_used("uploads", KEY, "v2")


@pytest.mark.parametrize("order", [1, -1])
def test_a_job_counts_more_than_an_answer(used: UsedUploads, order: int) -> None:
    def note() -> None:
        used.note("job", "uploads", KEY, "v1")

    def answer() -> None:
        used.note_answered("uploads", KEY, "v1")

    for write in [note, answer][::order]:
        write()

    assert used.is_used("uploads", KEY, "v1")


def test_many_uploads_are_asked_about_in_few_calls(
    used: UsedUploads, account: RenderAccount
) -> None:
    pins = [(f"inbox/{number}#😀.png", f"v{number}") for number in range(230)]
    used.note("job", "uploads", *pins[0])
    used.note_answered("uploads", *pins[150])
    used.note("job", "others", *pins[7])
    calls: list[object] = []
    account.dynamodb.meta.events.register(
        "before-call.dynamodb.BatchGetItem", lambda **call: calls.append(call)
    )

    left = used.unanswered("uploads", [*pins, pins[3]])

    assert left == set(pins) - {pins[0], pins[150]}
    assert len(calls) == 3
    assert used.unanswered("uploads", []) == frozenset()


def test_what_dynamodb_leaves_unread_is_asked_again(account: RenderAccount) -> None:
    slept: list[float] = []
    used = UsedUploads(LEDGER, account.dynamodb, sleep=slept.append)
    keys = [{"pk": {"S": f"upload#uploads/{key}#v1"}, "sk": {"S": "job"}} for key in "ab"]

    def asked(*wanted: dict[str, dict[str, str]]) -> dict[str, object]:
        fields = "pk, expires_at"
        return {"RequestItems": {LEDGER: {"Keys": [*wanted], "ProjectionExpression": fields}}}

    with Stubber(account.dynamodb) as stub:
        stub.add_response(
            "batch_get_item",
            {"Responses": {}, "UnprocessedKeys": asked(*keys)["RequestItems"]},
            asked(*keys),
        )
        stub.add_response(
            "batch_get_item",
            {"Responses": {}, "UnprocessedKeys": asked(keys[1])["RequestItems"]},
            asked(*keys),
        )
        stub.add_response(
            "batch_get_item",
            {"Responses": {LEDGER: [{"pk": keys[1]["pk"]}]}, "UnprocessedKeys": {}},
            asked(keys[1]),
        )
        left = used.unanswered("uploads", [("a", "v1"), ("b", "v1")])

    assert left == {("a", "v1")}
    assert len(slept) == 2
    assert all(0 <= seconds <= 1 for seconds in slept)


def test_a_table_that_answers_nothing_is_an_error_and_not_an_empty_answer(
    account: RenderAccount,
) -> None:
    used = UsedUploads(LEDGER, account.dynamodb, sleep=lambda _: None)
    unread = {LEDGER: {"Keys": [{"pk": {"S": "upload#uploads/a#v1"}, "sk": {"S": "job"}}]}}

    with Stubber(account.dynamodb) as stub:
        for _ in range(10):
            stub.add_response("batch_get_item", {"Responses": {}, "UnprocessedKeys": unread})
        with pytest.raises(RuntimeError):
            used.unanswered("uploads", [("a", "v1")])


def test_a_note_that_an_earlier_version_let_expire_is_kept_from_then_on(
    account: RenderAccount,
) -> None:
    key = {"pk": {"S": "upload#uploads/inbox/anna.png#v1"}, "sk": {"S": "job"}}
    expiring = {**key, "job_id": {"S": "anna-1"}, "expires_at": {"N": "1800000000"}}
    account.dynamodb.put_item(TableName=LEDGER, Item=expiring)

    left = UsedUploads(LEDGER, account.dynamodb).unanswered("uploads", [("inbox/anna.png", "v1")])

    assert left == frozenset()
    noted = account.dynamodb.get_item(TableName=LEDGER, Key=key)["Item"]
    assert "expires_at" not in noted
    assert noted["job_id"] == {"S": "anna-1"}
