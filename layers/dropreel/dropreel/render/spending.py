"""The owner's limits: renders at once, renders and dollars a day, and which offer to ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Literal, NamedTuple

from dropreel.model.catalog import ProviderName
from dropreel.model.errors import PriceUnknown, SpendLimitReached
from dropreel.model.prices import CATALOG_ONLY, Billed, Prices, estimated_usd


@dataclass(frozen=True)
class Limits:
    in_flight: Mapping[ProviderName, int]  # 0 pauses a provider
    lease: Mapping[ProviderName, timedelta]
    daily_renders: int | None = None
    daily_usd: Decimal | None = None
    on_daily_usd: Literal["wait", "fail"] = "wait"
    prices: Prices = CATALOG_ONLY


class Day(NamedTuple):
    """What was charged to a day (UTC), without refunds."""

    renders: int = 0
    spent_usd: Decimal = Decimal(0)

    def is_full(self, limits: Limits) -> bool:
        return bool(limits.daily_renders) and self.renders >= (limits.daily_renders or 0)


class Room(Enum):
    """Whether a day has room for a render."""

    THERE = auto()
    NO_RENDERS_LEFT = auto()
    NO_USD_LEFT = auto()
    NEVER = auto()  # one render costs more than a day's limit


def room_for(usd: Decimal | None, day: Day, limits: Limits) -> Room:
    if day.is_full(limits):
        return Room.NO_RENDERS_LEFT
    if not limits.daily_usd or not usd or day.spent_usd + usd <= limits.daily_usd:
        return Room.THERE
    return Room.NEVER if usd > limits.daily_usd else Room.NO_USD_LEFT


def offer_to_ask(route: Sequence[Billed], first: int, limits: Limits) -> int | None:
    """The index of the first offer, from `first` on, that has a price if a spending limit needs
    one. Paused providers come last. None when no offer has a price."""
    payable = [
        index for index in range(first, len(route)) if not _lacks_a_price(route[index], limits)
    ]
    active = [index for index in payable if limits.in_flight.get(route[index].provider)]
    return next(iter(active or payable), None)


def price_unknown(route: Sequence[Billed], limits: Limits) -> PriceUnknown:
    unknown = ", ".join(str(render) for render in route if _lacks_a_price(render, limits))
    return PriceUnknown(f"DailySpendLimitUsd is set, and no price is known for {unknown}.")


def limit_reached(
    usd: Decimal | None, day: Day, limits: Limits, now: datetime
) -> SpendLimitReached:
    limit_usd = limits.daily_usd
    if usd and limit_usd and usd > limit_usd:
        return SpendLimitReached(
            f"This render costs about {usd} USD, more than a whole day's limit of {limit_usd} USD."
        )
    return SpendLimitReached(
        f"This render costs about {usd} USD; {day.spent_usd} USD of the {limit_usd} USD of "
        f"{now:%Y-%m-%d} (UTC) are spent."
    )


def _lacks_a_price(render: Billed, limits: Limits) -> bool:
    return bool(limits.daily_usd) and estimated_usd(render, limits.prices) is None
