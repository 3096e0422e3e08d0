"""Which refusals are of the account, and what the free call about the account answers."""

import httpx
import pytest

from dropreel.model.closure import AccountState
from dropreel.model.errors import TokenMissing
from dropreel.model.provider import Refusal
from dropreel.providers.tokens import TokenUnreadable
from tests.support.provider_dialects import (
    BASE,
    PAYLOAD,
    RUNCOMFY,
    TOKEN,
    WAVESPEED,
    Dialect,
    answer,
    each_dialect,
    provider_of,
)

OF_THE_ACCOUNT: list[tuple[int, object]] = [
    (401, ""),
    (401, {"message": "Invalid key. See billing for your keys."}),
    (401, {"message": "Your account is in arrears"}),
    (402, ""),
    (402, {"message": "Payment required"}),
    (400, {"message": "Insufficient balance"}),
    (429, {"message": "Your balance is too low. Please top up."}),
    (403, {"message": "Exhausted balance. Top up your balance"}),
]
OF_ONE_MODEL: list[tuple[int, object]] = [
    (403, ""),
    (403, {"message": "not yours"}),
    (401, {"message": "This key may not use the model."}),
    (402, {"message": "Payment required: upgrade your plan"}),
    (403, {"message": "this model is not available with trial credit"}),
    (429, {"message": "The free tier of the model has been exhausted."}),
    (402, {"message": "A subscription is needed"}),
    (400, {"message": "bad"}),
    (429, {"message": "slow down"}),
    (413, ""),
]


@each_dialect
@pytest.mark.parametrize(
    ("status", "body", "closes"),
    [
        *((status, body, True) for status, body in OF_THE_ACCOUNT),
        *((status, body, False) for status, body in OF_ONE_MODEL),
    ],
)
def test_only_a_refusal_of_the_account_closes_the_provider(
    dialect: Dialect, status: int, body: object, closes: bool
) -> None:
    provider, _ = provider_of(dialect, answer(status, body))

    with pytest.raises(Refusal) as raised:
        provider.submit(dialect.endpoint, PAYLOAD)

    assert raised.value.closes_provider is closes


@each_dialect
def test_token_that_is_missing_or_unreadable_closes_nothing(dialect: Dialect) -> None:
    for error in (TokenMissing("none"), TokenUnreadable("away")):

        def token(*, fresh: bool = False, error: Exception = error) -> str:
            raise error

        provider, _ = provider_of(dialect, answer(200, ""), token=token)
        with pytest.raises(Refusal) as raised:
            provider.submit(dialect.endpoint, PAYLOAD)
        assert not raised.value.closes_provider


UNKNOWN_REQUEST = {"error_code": 404001, "error_message": "Not found."}


def balance(usd: object) -> object:
    return {"code": 200, "message": "success", "data": {"balance": usd}}


@pytest.mark.parametrize(
    ("dialect", "given", "state", "balance_usd"),
    [
        (WAVESPEED, answer(200, balance(12.5)), AccountState.ACCEPTED, 12.5),
        (WAVESPEED, answer(200, balance("123456.7")), AccountState.ACCEPTED, 123_456.7),
        (WAVESPEED, answer(200, balance(0)), AccountState.NO_CREDIT, 0),
        (WAVESPEED, answer(200, balance(-0.5)), AccountState.NO_CREDIT, -0.5),
        (WAVESPEED, answer(200, balance(None)), AccountState.UNKNOWN, None),
        (WAVESPEED, answer(200, balance(True)), AccountState.UNKNOWN, None),
        (WAVESPEED, answer(200, "<html>"), AccountState.UNKNOWN, None),
        (WAVESPEED, answer(200, {"code": 401, "message": "no"}), AccountState.REFUSED, None),
        (WAVESPEED, answer(403, {"message": "no"}), AccountState.UNKNOWN, None),
        (WAVESPEED, answer(500, balance(3)), AccountState.UNKNOWN, None),
        (RUNCOMFY, answer(404, UNKNOWN_REQUEST), AccountState.ACCEPTED, None),
        (RUNCOMFY, answer(200, UNKNOWN_REQUEST), AccountState.ACCEPTED, None),
        (RUNCOMFY, answer(403, {"error_code": 403003}), AccountState.ACCEPTED, None),
        (RUNCOMFY, answer(200, {"error_code": 401001}), AccountState.REFUSED, None),
        (RUNCOMFY, answer(404, "<html>"), AccountState.UNKNOWN, None),
        (RUNCOMFY, answer(200, ""), AccountState.UNKNOWN, None),
        (RUNCOMFY, answer(503, {"message": "down"}), AccountState.UNKNOWN, None),
    ],
)
def test_free_call_says_what_the_account_is(
    dialect: Dialect, given: httpx.Response, state: AccountState, balance_usd: float | None
) -> None:
    provider, network = provider_of(dialect, given)

    account = provider.ask_account()

    assert (account.state, account.balance_usd) == (state, balance_usd)
    assert bool(account.message) is (state is not AccountState.ACCEPTED)
    [call] = network.calls
    assert (call.method, call.headers["Authorization"]) == ("GET", f"Bearer {TOKEN}")


@each_dialect
@pytest.mark.parametrize(
    ("given", "state"),
    [
        (answer(401, ""), AccountState.REFUSED),
        (answer(402, ""), AccountState.NO_CREDIT),
        (answer(429, "<html>"), AccountState.UNKNOWN),
        (httpx.ConnectError("no"), AccountState.UNKNOWN),
        (httpx.ReadTimeout("no"), AccountState.UNKNOWN),
    ],
)
def test_free_call_that_is_refused_or_gets_no_answer(
    dialect: Dialect, given: httpx.Response | Exception, state: AccountState
) -> None:
    provider, network = provider_of(dialect, given)

    account = provider.ask_account()

    assert account.state is state
    assert dialect.name in account.message
    assert TOKEN not in account.message
    assert len(network.calls) == 1


@pytest.mark.parametrize(
    ("dialect", "path"),
    [
        (RUNCOMFY, "/v1/requests/00000000-0000-4000-8000-000000000000/status"),
        (WAVESPEED, "/api/v3/balance"),
    ],
)
def test_free_call_reads_and_creates_nothing(dialect: Dialect, path: str) -> None:
    provider, network = provider_of(dialect, answer(200, balance(1)))

    provider.ask_account()

    assert [(call.method, str(call.url)) for call in network.calls] == [("GET", BASE + path)]


@each_dialect
def test_account_is_asked_with_the_token_that_is_stored_now(dialect: Dialect) -> None:
    reads: list[bool] = []

    def token(*, fresh: bool = False) -> str:
        reads.append(fresh)
        return TOKEN

    provider, _ = provider_of(dialect, answer(401, ""), token=token)

    assert provider.ask_account().state is AccountState.REFUSED
    assert reads == [True]


@each_dialect
@pytest.mark.parametrize(
    ("error", "state"),
    [
        (TokenMissing("No token is stored."), AccountState.NO_TOKEN),
        (TokenUnreadable("It could not be read."), AccountState.UNKNOWN),
    ],
)
def test_account_without_a_readable_token_is_not_asked(
    dialect: Dialect, error: Exception, state: AccountState
) -> None:
    def token(*, fresh: bool = False) -> str:
        raise error

    provider, network = provider_of(dialect, answer(200, balance(1)), token=token)

    assert provider.ask_account().state is state
    assert network.calls == []
