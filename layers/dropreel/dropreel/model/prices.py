"""What a render costs by the second of finished video: the owner's price, or else the catalog's.

The parameter `UsdPerSecond` is a list of `<endpoint>:<resolution>=<USD>`, separated by commas. Any
invalid entry is an error: a price that is skipped would not count toward the spend limit.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel

from dropreel.model.catalog import MODELS, Offer, OptionValue, ProviderName, offer_of
from dropreel.model.messages import Plan, PlannedOffer

Prices = Mapping[tuple[str, str], float]
"""The owner's, in USD, by endpoint and resolution."""

CATALOG_ONLY: Final[Prices] = MappingProxyType({})

_USD = re.compile(r"[0-9]{1,4}(\.[0-9]{1,8})?")


class Billed(BaseModel, frozen=True):
    """What the price of a render depends on."""

    provider: ProviderName
    endpoint: str
    resolution: str
    video_seconds: float | None

    def __str__(self) -> str:
        return f"{self.provider}'s {self.endpoint}" + f" in {self.resolution}" * bool(
            self.resolution
        )


def billed(plan: Plan) -> tuple[Billed, ...]:
    """For each offer of the plan's route."""
    recorded_seconds = plan.audio_facts.duration_seconds if plan.audio_facts else None
    return tuple(_billed(planned, recorded_seconds) for planned in plan.route)


def estimated_usd(render: Billed, prices: Prices) -> Decimal | None:
    """Rounded to a ten-thousandth. None when neither the owner nor the catalog has a price."""
    per_second = prices.get((render.endpoint, render.resolution))
    if per_second is None and (offer := _offer(render.provider, render.endpoint)):
        per_second = offer.usd_per_second.get(render.resolution)
    if per_second is None or render.video_seconds is None:
        return None
    return Decimal(str(round(per_second * render.video_seconds, 4)))


class PricesUnreadable(ValueError):
    """The parameter `UsdPerSecond` has an invalid entry, or one that fits no offer."""


def prices_in(parameter: str) -> Prices:
    """The prices of the parameter; none if blank. Raises `PricesUnreadable` with every fault."""
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


def _billed(planned: PlannedOffer, recorded_seconds: float | None) -> Billed:
    """A video has the duration that the job asked for; without that option, its recording's."""
    resolution: OptionValue | None = None
    seconds: OptionValue | float | None = None
    if offer := _offer(planned.provider, planned.endpoint):
        resolution = _value(offer, planned, "resolution")
        has_duration = offer.option("duration") is not None
        seconds = _value(offer, planned, "duration") if has_duration else recorded_seconds
    return Billed(
        provider=planned.provider,
        endpoint=planned.endpoint,
        resolution=str(resolution or ""),
        video_seconds=seconds if isinstance(seconds, int | float) else None,
    )


def _value(offer: Offer, planned: PlannedOffer, name: str) -> OptionValue | None:
    """The value of an option at an offer, in the user's spelling."""
    option = offer.option(name)
    if option is None:
        return None
    sent = planned.fields.get(option.field, option.default)
    ours: dict[OptionValue | None, str] = {theirs: our for our, theirs in option.sent_as.items()}
    return ours.get(sent, sent)


def _offer(provider: ProviderName, endpoint: str) -> Offer | None:
    """None when a newer catalog does not have it any more."""
    try:
        return offer_of(provider, endpoint)
    except KeyError:
        return None


def _price(entry: str) -> tuple[tuple[str, str], float]:
    priced, _, usd = entry.partition("=")
    endpoint, _, resolution = priced.rpartition(":")
    if not (endpoint and resolution and usd):
        raise PricesUnreadable(f'"{entry}" is not <endpoint>:<resolution>=<USD>')
    known = _resolutions()
    if endpoint not in known:
        raise PricesUnreadable(
            f'no offer has the endpoint "{endpoint}"; the endpoints are {", ".join(known)}'
        )
    if resolution not in known[endpoint]:
        raise PricesUnreadable(
            f'{endpoint} has no resolution "{resolution}", only {", ".join(known[endpoint])}'
        )
    if not _USD.fullmatch(usd):
        raise PricesUnreadable(f'the price of {priced} is "{usd}", not a number such as 0.03')
    return (endpoint, resolution), float(usd)


def _resolutions() -> dict[str, tuple[str, ...]]:
    """By endpoint, in the user's spelling."""
    offers = (offer for model in MODELS.values() for offer in model.route)
    options = ((offer.endpoint, offer.option("resolution")) for offer in offers)
    return {endpoint: tuple(map(str, option.values)) for endpoint, option in options if option}
