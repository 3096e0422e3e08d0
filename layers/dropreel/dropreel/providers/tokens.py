"""The providers' tokens, read from Secrets Manager and cached for minutes, never written."""

import re
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import boto3
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.errors import TokenMissing
from dropreel.runtime.settings import ProviderSettings

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_MAX_AGE_SECONDS = 300

# A slow read must not outlast the submission that needs it.
_SHORT_TIMEOUTS = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 3})

# What fits into a header, and is neither JSON nor a placeholder such as <token>.
_TOKEN = re.compile(r"[^\s\"'<>{}\\]+")


@cache
def _client() -> "SecretsManagerClient":
    return boto3.client("secretsmanager", config=_SHORT_TIMEOUTS)


@cache
def _secrets() -> SecretsProvider:
    """With our client: Powertools would make a session of boto3 for its own."""
    return SecretsProvider(boto3_client=_client())


class Token(Protocol):
    """Gives a provider's token."""

    def __call__(self, *, fresh: bool = False) -> str:
        """The token, read again if `fresh`. Raises `TokenMissing` or `TokenUnreadable`."""


class TokenUnreadable(Exception):
    """Secrets Manager did not return the secret. It may hold a good token."""


@dataclass(frozen=True)
class SecretToken:
    """The plain text of a secret. A rotated token is used within five minutes, or when `fresh`."""

    secret: str
    provider: str

    def __call__(self, *, fresh: bool = False) -> str:
        value = self._read(fresh=fresh).strip()
        if value.isascii() and value.isprintable() and _TOKEN.fullmatch(value):
            return value
        if not fresh:
            # Somebody may have stored a good one meanwhile.
            return self(fresh=True)
        if not value:
            raise TokenMissing(f"No token is stored for {self.provider}.")
        raise TokenMissing(
            f"The secret for {self.provider} holds no token: "
            "the token alone must be its plain text, without quotes or JSON."
        )

    def _read(self, *, fresh: bool) -> str:
        try:
            value = _secrets().get(self.secret, max_age=_MAX_AGE_SECONDS, force_fetch=fresh)
        except GetParameterError as err:
            # Powertools wraps the error: the original is the context.
            reason = err.__context__
            if isinstance(reason, ClientError):
                code = reason.response["Error"]["Code"]
                if code == "ResourceNotFoundException":
                    # Also for a secret that never had a value.
                    raise TokenMissing(f"No token is stored for {self.provider}.") from None
            else:
                code = type(reason).__name__
            raise TokenUnreadable(
                f"The token for {self.provider} could not be read from its secret ({code})."
            ) from None
        return value if isinstance(value, str) else ""


def configured(
    settings: ProviderSettings, client: "SecretsManagerClient | None" = None
) -> frozenset[ProviderName]:
    """The providers that have a token stored: only their offers can be on a route.

    The secrets are described, not read. One that cannot be described now counts as one with a
    token, so that a short fault takes no offer off the route.
    """
    client = client or _client()
    return frozenset(
        name for name, account in settings.providers.items() if _has_value(client, account.secret)
    )


def _has_value(client: "SecretsManagerClient", secret: str) -> bool:
    try:
        described = client.describe_secret(SecretId=secret)
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        return code != "ResourceNotFoundException"
    stages = chain(*described.get("VersionIdsToStages", {}).values())
    # A secret that is scheduled for deletion keeps its stages and cannot be read.
    return "AWSCURRENT" in stages and not described.get("DeletedDate")


def token_of(name: ProviderName, settings: ProviderSettings) -> SecretToken:
    """A provider's token, in the secret that the settings name."""
    return SecretToken(settings.providers[name].secret, TITLES.get(name, name))
