"""The closed providers in DynamoDB, and in the dictionary that stands in for it."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from dropreel.aws.closures import DynamoDBClosures
from dropreel.model.closure import Closure
from dropreel.render.closing import Closures
from tests.support.admission_fakes import ledger_table
from tests.support.render_account import LEDGER
from tests.support.render_fakes import NOON, MemoryClosures

CLOSED = Closure(
    provider="wavespeed",
    code="TokenRejected",
    message="WaveSpeed does not accept the token (401).",
    closed_at=NOON + timedelta(microseconds=1),
)
AGAIN = CLOSED.model_copy(update={"closed_at": NOON + timedelta(hours=1), "refusals": 2})


def on_trial(closure: Closure) -> Closure:
    return closure.model_copy(update={"trial_at": NOON + timedelta(hours=2)})


@pytest.fixture(params=["memory", "dynamodb"])
def closures(request: pytest.FixtureRequest) -> Iterator[Closures]:
    if request.param == "memory":
        yield MemoryClosures()
        return
    with ledger_table() as client:
        yield DynamoDBClosures(LEDGER, client)


def test_closed_provider_is_read_as_it_was_written(closures: Closures) -> None:
    asked = on_trial(CLOSED).model_copy(update={"asked_at": NOON})

    assert closures.put(asked, None)

    assert tuple(closures.all()) == (asked,)


def test_two_calls_close_a_provider_once(closures: Closures) -> None:
    assert closures.put(CLOSED, None)
    assert not closures.put(AGAIN, None)

    assert tuple(closures.all()) == (CLOSED,)


def test_change_loses_against_one_that_came_before(closures: Closures) -> None:
    closures.put(CLOSED, None)
    assert closures.put(on_trial(CLOSED), CLOSED)

    assert not closures.put(on_trial(CLOSED), CLOSED)
    assert not closures.open(CLOSED)
    assert closures.put(AGAIN, on_trial(CLOSED))
    assert not closures.open(on_trial(CLOSED))
    assert tuple(closures.all()) == (AGAIN,)


def test_question_in_between_is_no_change(closures: Closures) -> None:
    closures.put(CLOSED, None)
    closures.put(CLOSED.model_copy(update={"asked_at": NOON}), CLOSED)

    assert closures.put(on_trial(CLOSED), CLOSED)


def test_opened_provider_has_no_item(closures: Closures) -> None:
    closures.put(CLOSED, None)

    assert closures.open(CLOSED)

    assert tuple(closures.all()) == ()
    assert not closures.put(AGAIN, CLOSED)
