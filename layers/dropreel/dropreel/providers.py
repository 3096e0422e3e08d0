"""Which adapter speaks for which provider."""

from functools import cache

from dropreel.catalog import ProviderName
from dropreel.provider import Provider
from dropreel.runcomfy import RunComfy
from dropreel.settings import ProviderSettings
from dropreel.tokens import SecretToken


def provider_of(name: ProviderName, settings: ProviderSettings) -> Provider:
    """The adapter for a provider: one per execution environment, with one HTTP client."""
    match name:
        case ProviderName.RUNCOMFY:
            return _runcomfy(settings.runcomfy_url, settings.runcomfy_secret)


@cache
def _runcomfy(base_url: str, secret: str) -> Provider:
    return RunComfy(base_url, SecretToken(secret, "RunComfy"))
