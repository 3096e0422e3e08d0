"""The notes about used uploads, in DynamoDB as moto plays it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from botocore.stub import Stubber

from dropreel.aws.uploads import UsedUploads
from dropreel.model.events import VideoFailed
from dropreel.model.job import Input, Job, Role
from dropreel.model.ledger import Outcome
from dropreel.outcome.ownership import AnsweredDrop
from dropreel.outcome.repetition import Maker
from tests.support.conclusion_bench import error_file
from tests.support.render_account import LEDGER, RenderAccount, render_account
from tests.support.render_fakes import JOB, NOON

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
    assert not used.is_answered("uploads", KEY, "v1")

    used.note("first", "uploads", KEY, "v1")
    used.note("second", "uploads", KEY, "v1")

    assert used.is_answered("uploads", KEY, "v1")
    assert not used.is_answered("uploads", KEY, "v2")
    assert not used.is_answered("others", KEY, "v1")


def test_the_longest_key_can_be_noted(used: UsedUploads) -> None:
    longest = "inbox/" + "x" * 1018

    used.note("job", "b" * 63, longest, "v" * 900)

    assert used.is_answered("b" * 63, longest, "v" * 900)


def test_what_a_job_of_another_name_used_is_not_answered_by_that(used: UsedUploads) -> None:
    used.note_used("uploads", KEY, "v1")

    assert used.was_used("uploads", KEY, "v1")
    assert not used.was_used("uploads", KEY, "v2")
    assert not used.is_answered("uploads", KEY, "v1")
    assert used.unanswered("uploads", [(KEY, "v1")]) == {(KEY, "v1")}


def test_the_last_drop_of_an_output_stays_whoever_is_noted_when(used: UsedUploads) -> None:
    early, late = (dropped(f"anna-{hour}", hour) for hour in (9, 10))
    assert used.last_drop(early) is None

    for order in ((early, late), (late, early, late, early)):
        for one in order:
            used.note_drop(one)
        assert used.last_drop(early) == used.last_drop(late) == late.id
    assert used.last_drop(late.model_copy(update={"stem": "bert"})) is None
    assert used.last_drop(late.model_copy(update={"folder": "team/"})) is None


def dropped(job_id: str, hour: int) -> Job:
    at = datetime(2026, 11, 20, hour, tzinfo=UTC)
    return job(job_id).model_copy(update={"dropped_at": at})


def test_nothing_of_it_expires_because_the_sweep_would_pay_again(
    used: UsedUploads, account: RenderAccount
) -> None:
    used.claim("f1", job("job"))
    used.note("job", "uploads", KEY, "v1")
    used.note_answered("uploads", KEY, "v2")
    used.note_used("uploads", KEY, "v3")
    used.note_drop(dropped("anna", 9))

    items = account.dynamodb.scan(TableName=LEDGER)["Items"]
    assert len(items) == 5
    assert not any("expires_at" in item for item in items)


def test_an_upload_is_answered_with_a_job_or_without(used: UsedUploads) -> None:
    assert not used.is_answered("uploads", KEY, "v1")

    used.note("job", "uploads", KEY, "v1")
    used.note_answered("uploads", KEY, "v2")

    assert used.is_answered("uploads", KEY, "v1")
    assert used.is_answered("uploads", KEY, "v2")


@pytest.mark.parametrize("order", [1, -1])
def test_a_job_counts_more_than_an_answer(
    used: UsedUploads, account: RenderAccount, order: int
) -> None:
    def note() -> None:
        used.note("job", "uploads", KEY, "v1")

    def answer() -> None:
        used.note_answered("uploads", KEY, "v1")

    for write in [note, answer][::order]:
        write()

    (item,) = account.dynamodb.scan(TableName=LEDGER)["Items"]
    assert item["job_id"] == {"S": "job"}


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
        fields = "pk"
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


def maker(job_id: str, run: int = 1) -> Maker:
    return Maker(job_id=job_id, run=run, files="c", began_at=NOON)


def test_the_maker_of_an_output_changes_only_from_the_one_that_was_seen(used: UsedUploads) -> None:
    first, second, third = maker("first"), maker("second"), maker("third")

    assert used.maker(job("first")) is None
    assert used.note_maker(job("first"), first, None)
    assert used.note_maker(job("first"), first, None)  # boto3 sent it twice
    assert not used.note_maker(job("second"), second, None)
    assert used.note_maker(job("second"), second, first)
    assert not used.note_maker(job("third"), third, first)
    assert used.maker(job("third")) == second


def test_a_maker_is_under_way_until_its_run_has_an_outcome(
    account: RenderAccount, used: UsedUploads
) -> None:
    detail = VideoFailed.model_validate_json(error_file())
    assert used.is_under_way(maker(JOB.id))

    account.ledger.end(JOB, NOON, Outcome(detail=detail), NOON)

    assert not used.is_under_way(maker(JOB.id))
    assert used.is_under_way(maker(JOB.id, run=2))


def test_a_drop_can_be_answered_by_another_job(used: UsedUploads) -> None:
    first, second = (
        job(name).model_copy(update={"dropped_at": NOON + timedelta(seconds=number)})
        for number, name in enumerate(["first", "second"])
    )
    used.note_drop(first)
    used.note_drop(second)

    used.note_drop(second, answered_by=first.id)
    used.note_drop(first)

    assert used.last_drop(second) == first.id
    assert used.answered_drop(first) == AnsweredDrop(first.id, NOON + timedelta(seconds=1))

    used.note_drop(second)  # intake's message came twice
    assert used.answered_drop(first)
    used.note_drop(second.model_copy(update={"dropped_at": NOON + timedelta(seconds=9)}))
    assert used.answered_drop(first) is None
