"""The owner's limits: renders at once, renders and dollars a day, and which offer to ask."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Literal, NamedTuple

from dropreel.model.catalog import MODELS, Catalog, ProviderName
from dropreel.model.closure import Closure
from dropreel.model.errors import PriceUnknown, SpendLimitReached
from dropreel.model.prices import Billed, estimated_usd


class Day(NamedTuple):
    """What was charged to a day (UTC), without refunds."""

    renders: int = 0
    spent_usd: Decimal = Decimal(0)


class Room(Enum):
    """Whether a day has room for a render."""

    THERE = auto()
    NO_RENDERS_LEFT = auto()
    NO_USD_LEFT = auto()
    NEVER = auto()  # one render costs more than a day's limit


@dataclass(frozen=True)
class Limits:
    in_flight: Mapping[ProviderName, int]  # 0 pauses a provider
    lease: Mapping[ProviderName, timedelta]
    daily_renders: int | None = None
    daily_usd: Decimal | None = None
    on_daily_usd: Literal["wait", "fail"] = "wait"
    catalog: Catalog = field(default_factory=lambda: MODELS)  # has the prices
    closed: Mapping[ProviderName, Closure] = field(default_factory=dict)

    def while_closed(self, closures: Iterable[Closure]) -> "Limits":
        """What they are while these providers are closed: as if the owner had paused them. One on
        trial takes one render at once."""
        closed = {it.provider: it for it in closures if it.provider in self.in_flight}
        left = {name: min(self.in_flight[name], it.max_in_flight) for name, it in closed.items()}
        return replace(self, in_flight={**self.in_flight, **left}, closed=closed)

    def room_for(self, usd: Decimal | None, day: Day) -> Room:
        if self.daily_renders and day.renders >= self.daily_renders:
            return Room.NO_RENDERS_LEFT
        if not self.daily_usd or not usd or day.spent_usd + usd <= self.daily_usd:
            return Room.THERE
        return Room.NEVER if usd > self.daily_usd else Room.NO_USD_LEFT

    def offer_to_ask(
        self, route: Sequence[Billed], first: int, waits_for: int | None = None
    ) -> int | None:
        """The index of the offer that it waits for, else of the first from `first` on, that has a
        price if a spending limit needs one. Paused and closed providers come last. None when no
        offer has a price."""
        candidates = [*range(first, len(route))]
        if waits_for is not None:
            candidates.insert(0, waits_for)
        payable = [index for index in candidates if not self._lacks_price(route[index])]
        active = [index for index in payable if self.in_flight.get(route[index].provider)]
        return next(iter(active or payable), None)

    def price_unknown(self, route: Sequence[Billed]) -> PriceUnknown:
        unknown = ", ".join(str(render) for render in route if self._lacks_price(render))
        return PriceUnknown(f"DailySpendLimitUsd is set, and no price is known for {unknown}.")

    def spend_reached(self, usd: Decimal | None, day: Day, now: datetime) -> SpendLimitReached:
        if usd and self.daily_usd and usd > self.daily_usd:
            return SpendLimitReached(
                f"This render costs about {usd} USD, more than a whole day's limit of "
                f"{self.daily_usd} USD."
            )
        return SpendLimitReached(
            f"This render costs about {usd} USD; {day.spent_usd} USD of the {self.daily_usd} USD "
            f"of {now:%Y-%m-%d} (UTC) are spent."
        )

    def _lacks_price(self, render: Billed) -> bool:
        return bool(self.daily_usd) and estimated_usd(render, self.catalog) is None
