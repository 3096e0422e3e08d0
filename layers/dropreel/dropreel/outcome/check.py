"""The answer to a dry run that prepare accepts: its offers, their prices, and the owner's limits.

It says what admission would do on a day on which nothing is spent, and asks for no slot.
"""

from datetime import datetime

from dropreel.model.errors import ErrorReport
from dropreel.model.events import CheckedOffer
from dropreel.model.messages import Plan
from dropreel.model.prices import billed, estimated_usd
from dropreel.render.spending import Day, Limits, Room


def check(
    plan: Plan, limits: Limits, now: datetime
) -> tuple[tuple[CheckedOffer, ...], ErrorReport | None]:
    """The plan's offers, the one that would be asked first in front, and why it would be refused
    all the same."""
    route = billed(plan)
    prices = [estimated_usd(render, limits.catalog) for render in route]
    offers = [
        CheckedOffer(
            provider=planned.provider,
            model=planned.endpoint,
            options=planned.fields,
            estimated_usd=None if usd is None else float(usd),
        )
        for planned, usd in zip(plan.route, prices, strict=True)
    ]
    first = limits.offer_to_ask(route, 0)
    if first is None:
        return tuple(offers), limits.price_unknown(route).report
    offers.insert(0, offers.pop(first))
    usd = prices[first]
    if limits.on_daily_usd == "fail" and limits.room_for(usd, Day()) is Room.NEVER:
        return tuple(offers), limits.spend_reached(usd, Day(), now).report
    return tuple(offers), None
