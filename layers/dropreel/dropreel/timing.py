"""When to ask or to try again. Pure: what time it is comes in as an argument.

Waits are whole seconds, rounded up, because that is what a Wait state of Step Functions takes.
"""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

POLL_MIN_SECONDS = 5.0
POLL_MAX_SECONDS = 60.0

# A provider may ask for more patience than we would have, but not for a whole afternoon.
RETRY_AFTER_MAX_SECONDS = 300.0


def next_wait_seconds(
    since_submission_seconds: float,
    *,
    min_seconds: float = POLL_MIN_SECONDS,
    max_seconds: float = POLL_MAX_SECONDS,
    retry_after_seconds: float = 0,
) -> int:
    """How long to wait until the next poll: a tenth of the time since submission, within bounds.

    So a render is seen at most a tenth later than it was ready, for few polls in all.
    """
    return _bounded(since_submission_seconds / 10, min_seconds, max_seconds, retry_after_seconds)


def retry_wait_seconds(
    tries: int,
    *,
    min_seconds: float = POLL_MIN_SECONDS,
    max_seconds: float = POLL_MAX_SECONDS,
    retry_after_seconds: float = 0,
) -> int:
    """How long to wait after a number of refused tries: doubling from the least to the most."""
    doublings = min(max(tries - 1, 0), 30)
    growing = min_seconds * 2**doublings
    return _bounded(growing, min_seconds, max_seconds, retry_after_seconds)


def retry_after_seconds(header: str | None, now: datetime) -> float:
    """What a `Retry-After` header asks for; 0 when it asks for nothing intelligible.

    It holds seconds or a date (RFC 9110, 10.2.3).
    """
    if header is None:
        return 0
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        until = parsedate_to_datetime(header)
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        return max(0.0, (until - now).total_seconds())
    except (ValueError, OverflowError):
        return 0


def _bounded(
    growing: float, min_seconds: float, max_seconds: float, retry_after_seconds: float
) -> int:
    ours = min(max(growing, min_seconds), max_seconds)
    if math.isfinite(retry_after_seconds):
        ours = max(ours, min(retry_after_seconds, RETRY_AFTER_MAX_SECONDS))
    return math.ceil(ours)
