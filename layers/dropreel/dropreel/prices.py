"""What a second of finished video costs: as the owner says, else as the catalog does.

The parameter `UsdPerSecond` has an entry `<endpoint>:<resolution>=<USD>` for each price, with
commas between. Nothing in it is ever passed over: a price that is not read would not be counted.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dropreel.catalog import MODELS, Offer

Prices = Mapping[tuple[str, str], float]
"""The owner's, in USD, by endpoint and resolution."""

CATALOG_ONLY: Final[Prices] = MappingProxyType({})

_USD = re.compile(r"[0-9]{1,4}(\.[0-9]{1,8})?")


class PricesUnreadable(ValueError):
    """The parameter `UsdPerSecond` is not of its form, or names what no offer has."""


def prices_in(parameter: str) -> Prices:
    """The prices of the parameter; blank is none. Raises `PricesUnreadable`, with every fault."""
    prices: dict[tuple[str, str], float] = {}
    faults: list[str] = []
    for entry in parameter.split(",") if parameter.strip() else ():
        try:
            priced, usd = _price(entry.strip())
        except PricesUnreadable as fault:
            faults.append(str(fault))
            continue
        if priced in prices:
            faults.append(f"{':'.join(priced)} has two prices")
        prices[priced] = usd
    if faults:
        raise PricesUnreadable(f"UsdPerSecond cannot be used: {'; '.join(faults)}.")
    return MappingProxyType(prices)


def usd_per_second(offer: Offer, resolution: str, prices: Prices) -> float | None:
    """None when neither the owner nor the provider's page says it."""
    return prices.get((offer.endpoint, resolution), offer.usd_per_second.get(resolution))


def _price(entry: str) -> tuple[tuple[str, str], float]:
    priced, _, usd = entry.partition("=")
    endpoint, _, resolution = priced.rpartition(":")
    if not (endpoint and resolution and usd):
        raise PricesUnreadable(f'"{entry}" is not <endpoint>:<resolution>=<USD>')
    known = _resolutions()
    if endpoint not in known:
        raise PricesUnreadable(
            f'no offer has the endpoint "{endpoint}"; there are {", ".join(known)}'
        )
    if resolution not in known[endpoint]:
        raise PricesUnreadable(
            f'{endpoint} does not render in "{resolution}", but in {", ".join(known[endpoint])}'
        )
    if not _USD.fullmatch(usd):
        raise PricesUnreadable(f'the price of {priced} is not a number like 0.03, but "{usd}"')
    return (endpoint, resolution), float(usd)


def _resolutions() -> dict[str, tuple[str, ...]]:
    """By endpoint, in the user's spelling."""
    offers = (offer for model in MODELS.values() for offer in model.route)
    options = ((offer.endpoint, offer.option("resolution")) for offer in offers)
    return {endpoint: tuple(map(str, option.values)) for endpoint, option in options if option}
