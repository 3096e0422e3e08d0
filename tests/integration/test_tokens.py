from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import boto3
import pytest
from aws_lambda_powertools.utilities import parameters
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.errors import TokenMissing
from dropreel.providers.registry import provider_of
from dropreel.providers.tokens import SecretToken, TokenUnreadable, configured
from dropreel.runtime.settings import ProviderSettings
from tests.support.render_fakes import providers

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

SECRET, OTHER_SECRET = "runcomfy-token", "wavespeed-token"
TOKEN = SecretToken(SECRET, "RunComfy")


def settings(url: str = "https://one.example") -> ProviderSettings:
    accounts = providers(
        runcomfy={"url": url, "secret": SECRET}, wavespeed={"url": url, "secret": OTHER_SECRET}
    )
    return ProviderSettings.model_validate({"LEDGER_TABLE": "ledger", "PROVIDERS": accounts})


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": ""}}, "GetSecretValue")


@pytest.fixture
def secrets() -> Iterator["SecretsManagerClient"]:
    with mock_aws():
        yield boto3.client("secretsmanager")


def test_token_is_the_plain_text_without_the_line_end(secrets: "SecretsManagerClient") -> None:
    secrets.create_secret(Name=SECRET, SecretString="  rc-1234.ab_c~+/== \n")
    assert TOKEN() == "rc-1234.ab_c~+/=="


def test_token_is_cached_and_read_anew_when_asked_fresh(secrets: "SecretsManagerClient") -> None:
    secrets.create_secret(Name=SECRET, SecretString="old")
    assert TOKEN() == "old"

    secrets.put_secret_value(SecretId=SECRET, SecretString="new")

    assert TOKEN() == "old"
    assert TOKEN(fresh=True) == "new"
    assert TOKEN() == "new"


@pytest.mark.parametrize(
    "value",
    [
        '{"token": "rc-1234"}',
        '{"token":"rc-1234"}',
        '"rc-1234"',
        "<token>",
        "two words",
        "rc\r\nX-Other: 1",
        "tökén",
    ],
)
def test_value_that_is_no_token_is_missing_and_never_quoted(
    secrets: "SecretsManagerClient", value: str
) -> None:
    secrets.create_secret(Name=SECRET, SecretString=value)
    with pytest.raises(TokenMissing, match="RunComfy") as raised:
        TOKEN()
    assert value not in raised.value.message


@pytest.mark.parametrize("stored", [{"SecretBinary": b"rc-1234"}, {"SecretString": " "}, {}, None])
def test_secret_without_a_text_is_missing(
    secrets: "SecretsManagerClient", stored: dict[str, Any] | None
) -> None:
    if stored is not None:
        secrets.create_secret(Name=SECRET, **stored)
    with pytest.raises(TokenMissing, match="No token is stored for RunComfy"):
        TOKEN()


def test_token_stored_after_a_placeholder_is_seen_at_once(secrets: "SecretsManagerClient") -> None:
    secrets.create_secret(Name=SECRET, SecretString="<token>")
    with pytest.raises(TokenMissing):
        TOKEN()
    secrets.put_secret_value(SecretId=SECRET, SecretString="rc-1234")
    assert TOKEN() == "rc-1234"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (refused("AccessDeniedException"), TokenUnreadable, "AccessDeniedException"),
        # As the embedded AWS has it for a secret that was never given a value.
        (["", ""], TokenMissing, "No token is stored for RunComfy"),
    ],
    ids=["not handed out", "empty text"],
)
def test_secret_that_is_not_handed_out_is_unreadable_and_an_empty_one_missing(
    secrets: "SecretsManagerClient",
    monkeypatch: pytest.MonkeyPatch,
    given: object,
    error: type[Exception],
    words: str,
) -> None:
    monkeypatch.setattr(parameters.SecretsProvider, "_get", Mock(side_effect=given))
    with pytest.raises(error, match=words):
        TOKEN()


@pytest.mark.parametrize("name", list(TITLES))
def test_one_adapter_serves_an_execution_environment(name: ProviderName) -> None:
    one = provider_of(name, settings())
    assert provider_of(name, settings()) is one
    assert provider_of(name, settings("https://two.example")) is not one


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        ({}, set()),
        ({SECRET: None, OTHER_SECRET: None}, set()),
        ({SECRET: "rc-1"}, {"runcomfy"}),
        ({SECRET: None, OTHER_SECRET: "ws-1"}, {"wavespeed"}),
        ({SECRET: "rc-1", OTHER_SECRET: "ws-1"}, {"runcomfy", "wavespeed"}),
    ],
)
def test_configured_providers_are_those_with_a_stored_value(
    secrets: "SecretsManagerClient", stored: dict[str, str | None], names: set[str]
) -> None:
    for secret, value in stored.items():
        secrets.create_secret(Name=secret)
        if value:
            secrets.put_secret_value(SecretId=secret, SecretString=value)

    assert configured(settings()) == names

    for secret in stored:
        secrets.put_secret_value(SecretId=secret, SecretString="new")
    assert len(configured(settings())) == len(stored)


def test_secret_that_is_scheduled_for_deletion_is_not_stored(
    secrets: "SecretsManagerClient",
) -> None:
    for secret in (SECRET, OTHER_SECRET):
        secrets.create_secret(Name=secret, SecretString="a-token")
    secrets.delete_secret(SecretId=SECRET)

    assert configured(settings()) == {"wavespeed"}


@pytest.mark.parametrize(
    ("trouble", "names"),
    [
        (refused("AccessDeniedException"), set(TITLES)),
        (refused("InternalServiceError"), set(TITLES)),
        (EndpointConnectionError(endpoint_url="https://secrets.example"), set(TITLES)),
        (refused("ResourceNotFoundException"), set()),
    ],
    ids=["denied", "fault", "unreachable", "not found"],
)
def test_secret_that_cannot_be_described_just_now_stays_configured(
    secrets: "SecretsManagerClient",
    monkeypatch: pytest.MonkeyPatch,
    trouble: Exception,
    names: set[str],
) -> None:
    monkeypatch.setattr(secrets, "describe_secret", Mock(side_effect=trouble))

    assert configured(settings(), secrets) == names
