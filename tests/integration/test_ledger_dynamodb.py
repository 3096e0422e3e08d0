"""The ledger's promises, held by the table and by the unit tests' ledger in memory alike."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dropreel.catalog import ProviderName
from dropreel.ledger import Attempt, AttemptState, Ledger
from dropreel.ledger_dynamodb import DynamoDBLedger
from tests.render_account import LEDGER, RenderAccount, render_account
from tests.render_fakes import NOON, MemoryLedger

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
    return ledger.begin(JOB_ID, number, ProviderName.RUNCOMFY, NOON)


def begun(ledger: Ledger, number: int = 1) -> Attempt:
    attempt = begin(ledger, number)
    assert attempt is not None
    return attempt


def test_unknown_job_has_no_attempt(ledger: Ledger) -> None:
    assert ledger.find(JOB_ID, 1) is None
    assert ledger.latest(JOB_ID) is None


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


def test_refused_attempt_may_be_begun_again(ledger: Ledger) -> None:
    ledger.refuse(begun(ledger), "ProviderThrottled")
    refused = ledger.find(JOB_ID, 1)
    assert refused is not None
    assert (refused.state, refused.refused_code) == (AttemptState.REFUSED, "ProviderThrottled")

    again = begun(ledger)

    assert ledger.find(JOB_ID, 1) == again
    assert again.state is AttemptState.BEGUN


def test_writing_the_same_outcome_twice_changes_nothing(ledger: Ledger) -> None:
    attempt = begun(ledger)
    ledger.accept(attempt, "req-1", LATER)
    once = ledger.find(JOB_ID, 1)

    ledger.accept(attempt, "req-1", LATER)

    assert ledger.find(JOB_ID, 1) == once


def test_late_refusal_cannot_undo_the_call_that_came_after_it(ledger: Ledger) -> None:
    first = begun(ledger)
    ledger.refuse(first, "ProviderThrottled")
    second = begun(ledger)

    with pytest.raises((ClientError, RuntimeError)):
        ledger.refuse(first, "ProviderThrottled")

    assert ledger.find(JOB_ID, 1) == second


def test_latest_is_the_attempt_with_the_highest_number(ledger: Ledger) -> None:
    for number in (1, 2, 10):
        ledger.refuse(begun(ledger, number), "NoCredit")
    begun(ledger, 11)

    latest = ledger.latest(JOB_ID)

    assert latest is not None
    assert latest.number == 11


def test_attempts_outlive_the_execution_names_and_then_expire(account: RenderAccount) -> None:
    begun(account.ledger)

    [item] = account.dynamodb.scan(TableName=LEDGER)["Items"]

    assert (item["pk"], item["sk"]) == ({"S": f"job#{JOB_ID}"}, {"S": "attempt#001"})
    kept_seconds = int(item["expires_at"]["N"]) - NOON.timestamp()
    assert kept_seconds > 90 * 86_400


@pytest.mark.parametrize("write", ["begin", "accept", "refuse"])
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
        lossy.refuse(attempt, "NoCredit")

    found = lossy.find(JOB_ID, 1)
    assert found is not None
    assert found.state == {"begin": "begun", "accept": "accepted", "refuse": "refused"}[write]
