"""The ledger's promises, held by the table and by the unit tests' ledger in memory alike."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dropreel.ledger import Attempt, AttemptState, Ledger
from dropreel.ledger_dynamodb import DynamoDBLedger
from dropreel.render import Next
from tests.render_account import LEDGER, RenderAccount, render_account
from tests.render_fakes import NOON, RUNCOMFY, TICKET, WAVESPEED, MemoryLedger

JOB_ID = "anna-0123456789abcdef"
LATER = NOON + timedelta(seconds=30, microseconds=250)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    with render_account(monkeypatch) as account:
        yield account


@pytest.fixture(params=["table", "memory"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    if request.param == "memory":
        return MemoryLedger()
    account: RenderAccount = request.getfixturevalue("account")
    return account.ledger


def begin(ledger: Ledger, number: int = 1) -> Attempt | None:
    return ledger.begin(JOB_ID, Next(attempt=number), RUNCOMFY, NOON)


def begun(ledger: Ledger, number: int = 1) -> Attempt:
    attempt = begin(ledger, number)
    assert attempt is not None
    return attempt


def test_unknown_job_has_no_attempt(ledger: Ledger) -> None:
    assert ledger.find(JOB_ID, 1) is None
    assert ledger.attempts(JOB_ID) == ()


def test_begun_attempt_is_found_as_it_was_begun(ledger: Ledger) -> None:
    attempt = begun(ledger)

    assert attempt.state is AttemptState.BEGUN
    assert ledger.find(JOB_ID, 1) == attempt
    assert ledger.find(JOB_ID, 2) is None
    assert ledger.find("another-job", 1) is None


def test_second_call_cannot_begin_what_the_first_has_begun(ledger: Ledger) -> None:
    first = begun(ledger)

    assert begin(ledger) is None
    assert ledger.find(JOB_ID, 1) == first


def test_accepted_attempt_keeps_its_request_id_and_is_never_begun_again(ledger: Ledger) -> None:
    attempt = begun(ledger)

    ledger.accept(attempt, "req-1", LATER)

    assert begin(ledger) is None
    found = ledger.find(JOB_ID, 1)
    assert found is not None
    assert (found.state, found.request_id) == (AttemptState.ACCEPTED, "req-1")
    assert (found.begun_at, found.accepted_at) == (NOON, LATER)


def test_attempt_remembers_which_offer_it_was_sent_to(ledger: Ledger) -> None:
    ledger.begin(JOB_ID, Next(attempt=2, offer=1), WAVESPEED, NOON)

    found = ledger.find(JOB_ID, 2)
    assert found is not None
    assert (found.provider, found.endpoint) == (WAVESPEED.provider, WAVESPEED.endpoint)
    assert found.offer == 1


def test_postponed_attempt_may_be_begun_again(ledger: Ledger) -> None:
    ledger.postpone(begun(ledger), "ProviderThrottled", "Too many.")
    postponed = ledger.find(JOB_ID, 1)
    assert postponed is not None
    assert (postponed.state, postponed.code) == (AttemptState.POSTPONED, "ProviderThrottled")

    again = begun(ledger)

    assert ledger.find(JOB_ID, 1) == again
    assert again.state is AttemptState.BEGUN


def test_refused_attempt_keeps_its_reason_and_is_never_begun_again(ledger: Ledger) -> None:
    ledger.refuse(begun(ledger), "NoCredit", "Not enough credit.")

    assert begin(ledger) is None
    refused = ledger.find(JOB_ID, 1)
    assert refused is not None
    assert (refused.state, refused.code) == (AttemptState.REFUSED, "NoCredit")
    assert refused.message == "Not enough credit."


@pytest.mark.parametrize("recorded", [True, False])
def test_lost_attempt_keeps_its_request_and_is_never_begun_again(
    ledger: Ledger, recorded: bool
) -> None:
    attempt = begun(ledger)
    if recorded:
        ledger.accept(attempt, TICKET.request_id, TICKET.submitted_at)

    for _ in range(2):
        ledger.lose(JOB_ID, TICKET, "RenderFailed", "No face.")

    assert begin(ledger) is None
    assert ledger.find(JOB_ID, 1) == attempt.model_copy(
        update={
            "state": AttemptState.LOST,
            "request_id": TICKET.request_id,
            "accepted_at": TICKET.submitted_at,
            "code": "RenderFailed",
            "message": "No face.",
        }
    )


@pytest.mark.parametrize("there", ["nothing", "another request", "a refusal", "a postponement"])
def test_attempt_is_lost_only_by_the_request_that_was_accepted(ledger: Ledger, there: str) -> None:
    if there != "nothing":
        attempt = begun(ledger)
    if there == "another request":
        ledger.accept(attempt, "req-0", NOON)
    if there == "a refusal":
        ledger.refuse(attempt, "NoCredit", "Not enough credit.")
    if there == "a postponement":
        ledger.postpone(attempt, "ProviderThrottled", "Too many.")
    before = ledger.attempts(JOB_ID)

    with pytest.raises((ClientError, RuntimeError)):
        ledger.lose(JOB_ID, TICKET, "RenderFailed", "No face.")

    assert ledger.attempts(JOB_ID) == before


def test_writing_the_same_outcome_twice_changes_nothing(ledger: Ledger) -> None:
    attempt = begun(ledger)
    ledger.accept(attempt, "req-1", LATER)
    once = ledger.find(JOB_ID, 1)

    ledger.accept(attempt, "req-1", LATER)

    assert ledger.find(JOB_ID, 1) == once


def test_late_refusal_cannot_undo_the_call_that_came_after_it(ledger: Ledger) -> None:
    first = begun(ledger)
    ledger.postpone(first, "ProviderThrottled", "Too many.")
    second = begun(ledger)

    with pytest.raises((ClientError, RuntimeError)):
        ledger.refuse(first, "ProviderThrottled", "Too many.")

    assert ledger.find(JOB_ID, 1) == second


def test_lost_attempt_is_not_accepted_late(ledger: Ledger) -> None:
    attempt = begun(ledger)
    ledger.lose(JOB_ID, TICKET, "RenderFailed", "No face.")
    lost = ledger.find(JOB_ID, 1)

    with pytest.raises((ClientError, RuntimeError)):
        ledger.accept(attempt, TICKET.request_id, LATER)

    assert ledger.find(JOB_ID, 1) == lost


def test_attempts_of_a_job_come_in_order(ledger: Ledger) -> None:
    for number in (1, 10, 2, 11):
        begun(ledger, number)
    ledger.begin("another-job", Next(), RUNCOMFY, NOON)

    assert [attempt.number for attempt in ledger.attempts(JOB_ID)] == [1, 2, 10, 11]


def test_attempts_outlive_the_execution_names_and_then_expire(account: RenderAccount) -> None:
    begun(account.ledger)

    [item] = account.dynamodb.scan(TableName=LEDGER)["Items"]

    assert (item["pk"], item["sk"]) == ({"S": f"job#{JOB_ID}"}, {"S": "attempt#001"})
    kept_seconds = int(item["expires_at"]["N"]) - NOON.timestamp()
    assert kept_seconds > 90 * 86_400


@pytest.mark.parametrize("late", ["begin", "accept"])
@pytest.mark.parametrize("since", ["accepted", "postponed", "refused", "lost"])
def test_late_copy_of_a_write_undoes_nothing(
    account: RenderAccount, monkeypatch: pytest.MonkeyPatch, late: str, since: str
) -> None:
    # Given a write of which the network holds a copy back
    client = boto3.client("dynamodb")
    put_item = client.put_item
    sent: list[dict[str, Any]] = []

    def put_and_remember(**request: Any) -> Any:  # noqa: ANN401
        sent.append(request)
        return put_item(**request)

    slow = DynamoDBLedger(LEDGER, client)
    monkeypatch.setattr(client, "put_item", put_and_remember)
    attempt = begun(slow)
    if since == "postponed":
        slow.postpone(attempt, "ProviderThrottled", "Too many.")
    elif since == "refused":
        slow.refuse(attempt, "NoCredit", "Not enough credit.")
    else:
        slow.accept(attempt, TICKET.request_id, NOON)
    if since == "lost":
        slow.lose(JOB_ID, TICKET, "RenderFailed", "No face.")
    before = slow.find(JOB_ID, 1)

    # When it arrives at last
    with suppress(ClientError):
        put_item(**sent[0 if late == "begin" else 1])

    assert before is not None
    assert before.state == since
    assert slow.find(JOB_ID, 1) == before


@pytest.mark.parametrize("write", ["begin", "accept", "postpone", "refuse"])
def test_write_whose_answer_is_lost_may_be_sent_again(
    account: RenderAccount, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    # Given a client that sends every write twice, as boto3 does when the first answer is lost
    client = boto3.client("dynamodb")
    put_item = client.put_item

    def put_twice(**request: Any) -> Any:  # noqa: ANN401
        put_item(**request)
        return put_item(**request)

    lossy = DynamoDBLedger(LEDGER, client)
    monkeypatch.setattr(client, "put_item", put_twice)

    attempt = begun(lossy)
    if write == "accept":
        lossy.accept(attempt, "req-1", LATER)
    if write == "refuse":
        lossy.refuse(attempt, "NoCredit", "Not enough credit.")
    if write == "postpone":
        lossy.postpone(attempt, "ProviderThrottled", "Too many.")

    found = lossy.find(JOB_ID, 1)
    assert found is not None
    assert (
        found.state
        == {
            "begin": "begun",
            "accept": "accepted",
            "postpone": "postponed",
            "refuse": "refused",
        }[write]
    )
