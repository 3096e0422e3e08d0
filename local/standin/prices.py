"""What a render costs at a stand-in: prices of its own, so that wrong ones of ours are noticed."""

import math
from collections.abc import Mapping

from dropreel.model.catalog import Offer

USD_PER_SECOND: Mapping[str, float] = {"480p": 0.03, "720p": 0.06, "1080p": 0.12}
"""The first two are those of WaveSpeed's page of Wan 2.2 Speech To Video; the third is made up."""

MIN_SECONDS = 3
"""That page rounds up to whole seconds, "at least 3"."""

UNKNOWN_SECONDS = 5
"""A guess for a render whose length is not known: the page's unit, "$0.15 per 5 seconds"."""

BALANCE_USD = 100.0


def usd_of(resolution: str, seconds: float | None) -> float:
    billed_seconds = max(MIN_SECONDS, math.ceil(seconds or UNKNOWN_SECONDS))
    return round(USD_PER_SECOND[resolution] * billed_seconds, 4)


def base_usd(offer: Offer) -> float:
    """Of five seconds in the default resolution."""
    option = offer.option("resolution")
    return usd_of(str(option.default) if option else "480p", UNKNOWN_SECONDS)
