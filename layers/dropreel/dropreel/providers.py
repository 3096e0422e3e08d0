"""Which adapter speaks for which provider, and which providers have a token."""

from functools import cache

from dropreel.catalog import ProviderName
from dropreel.errors import TokenMissing
from dropreel.provider import Provider
from dropreel.runcomfy import RunComfy
from dropreel.settings import ProviderSettings
from dropreel.tokens import SecretToken, TokenUnreadable
from dropreel.wavespeed import WaveSpeed


def provider_of(name: ProviderName, settings: ProviderSettings) -> Provider:
    """The adapter for a provider: one per execution environment, with one HTTP client."""
    match name:
        case ProviderName.RUNCOMFY:
            return _runcomfy(settings.runcomfy_url, _token_of(name, settings))
        case ProviderName.WAVESPEED:
            return _wavespeed(settings.wavespeed_url, _token_of(name, settings))


def configured(settings: ProviderSettings) -> frozenset[ProviderName]:
    """The providers that have a token stored: only their offers can be on a route.

    A secret that cannot be read just now counts as one with a token, so that a hiccup never
    takes an offer off the route.
    """
    return frozenset(name for name in ProviderName if _has_token(_token_of(name, settings)))


def _token_of(name: ProviderName, settings: ProviderSettings) -> SecretToken:
    match name:
        case ProviderName.RUNCOMFY:
            return SecretToken(settings.runcomfy_secret, "RunComfy")
        case ProviderName.WAVESPEED:
            return SecretToken(settings.wavespeed_secret, "WaveSpeed")


def _has_token(token: SecretToken) -> bool:
    try:
        token()
    except TokenMissing:
        return False
    except TokenUnreadable:
        return True
    return True


@cache
def _runcomfy(base_url: str, token: SecretToken) -> Provider:
    return RunComfy(base_url, token)


@cache
def _wavespeed(base_url: str, token: SecretToken) -> Provider:
    return WaveSpeed(base_url, token)
