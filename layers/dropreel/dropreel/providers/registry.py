"""A provider's adapter is the class `Dialect` of the module with its name."""

from functools import cache
from importlib import import_module

from dropreel.model.catalog import ProviderName
from dropreel.model.provider import Provider
from dropreel.providers.tokens import SecretToken, token_of
from dropreel.runtime.settings import ProviderSettings


def provider_of(name: ProviderName, settings: ProviderSettings) -> Provider:
    """The adapter for a provider: one per execution environment, with one HTTP client."""
    return _made(name, settings.providers[name].url, token_of(name, settings))


@cache
def _made(name: ProviderName, url: str, token: SecretToken) -> Provider:
    dialect = import_module(f"dropreel.providers.{name}").Dialect
    made: Provider = dialect(url, token)
    return made
