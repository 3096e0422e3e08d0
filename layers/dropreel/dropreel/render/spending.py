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
    """The owner's, by provider and by day."""

    in_flight: Mapping[ProviderName, int]  # 0 pauses a provider
    lease: Mapping[ProviderName, timedelta]
    daily_renders: int | None = None
    daily_usd: Decimal | None = None
    on_daily_usd: Literal["wait", "fail"] = "wait"
    prices: Prices = CATALOG_ONLY


class Day(NamedTuple):
    """What was submitted in a day (UTC), without what was given back."""

    renders: int = 0
    spent_usd: Decimal = Decimal(0)

    def is_full(self, limits: Limits) -> bool:
        """Whether it has had the renders of `DailyRenderLimit`."""
        return bool(limits.daily_renders) and self.renders >= (limits.daily_renders or 0)


class Room(Enum):
    """Whether a day has room for a render."""

    THERE = auto()
    NO_RENDERS_LEFT = auto()
    NO_USD_LEFT = auto()
    NEVER = auto()  # the render alone costs more than a day may


def room_for(usd: Decimal | None, day: Day, limits: Limits) -> Room:
    if day.is_full(limits):
        return Room.NO_RENDERS_LEFT
    if not limits.daily_usd or not usd or day.spent_usd + usd <= limits.daily_usd:
        return Room.THERE
    return Room.NEVER if usd > limits.daily_usd else Room.NO_USD_LEFT


def offer_to_ask(route: Sequence[Billed], first: int, limits: Limits) -> int | None:
    """The first offer from a place on that has a price, when it needs one, and whose provider is
    not paused; or is, when all are. None when none has a price."""
    payable = [
        place for place in range(first, len(route)) if not _lacks_a_price(route[place], limits)
    ]
    is_open = [place for place in payable if limits.in_flight.get(route[place].provider)]
    return next(iter(is_open or payable), None)


def price_unknown(route: Sequence[Billed], limits: Limits) -> PriceUnknown:
    unknown = [str(render) for render in route if _lacks_a_price(render, limits)]
    return PriceUnknown(
        f"DailySpendLimitUsd is set, and no price is known of {', '.join(unknown)}."
    )


def spent(usd: Decimal | None, day: Day, limits: Limits, now: datetime) -> SpendLimitReached:
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
