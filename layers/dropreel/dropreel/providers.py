"""Which adapter speaks for which provider."""

from functools import cache

from dropreel.catalog import ProviderName
from dropreel.provider import Provider
from dropreel.runcomfy import RunComfy
from dropreel.settings import ProviderSettings
from dropreel.tokens import SecretToken, token_of
from dropreel.wavespeed import WaveSpeed


def provider_of(name: ProviderName, settings: ProviderSettings) -> Provider:
    """The adapter for a provider: one per execution environment, with one HTTP client."""
    match name:
        case ProviderName.RUNCOMFY:
            return _runcomfy(settings.runcomfy_url, token_of(name, settings))
        case ProviderName.WAVESPEED:
            return _wavespeed(settings.wavespeed_url, token_of(name, settings))


@cache
def _runcomfy(base_url: str, token: SecretToken) -> Provider:
    return RunComfy(base_url, token)


@cache
def _wavespeed(base_url: str, token: SecretToken) -> Provider:
    return WaveSpeed(base_url, token)
