"""When to ask or to try again. Pure: what time it is, and chance, come in as arguments.

Waits are whole seconds, rounded up, because that is what a Wait state of Step Functions takes.
"""

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# WaveSpeed's page asks for 5 s or more between two questions. A minute is little beside a render
# that has taken ten already.
MIN_POLL_SECONDS = 5.0
MAX_POLL_SECONDS = 60.0

# How long a job keeps asking a provider that answers 429 before it goes to the next offer. Each
# try is about ten of the 25,000 events that an execution may have.
THROTTLE_PATIENCE_SECONDS = 900.0

# A provider may ask for more patience than we would have, but not for a whole afternoon.
MAX_RETRY_AFTER_SECONDS = 300.0


def next_wait_seconds(since_submission_seconds: float, *, retry_after_seconds: float = 0) -> int:
    """How long to wait until the next poll: a tenth of the time since submission, within bounds.

    So a render is seen at most a tenth later than it was ready, for few polls in all.
    """
    ours = min(max(since_submission_seconds / 10, MIN_POLL_SECONDS), MAX_POLL_SECONDS)
    return math.ceil(max(ours, _asked_seconds(retry_after_seconds)))


def retry_wait_seconds(
    tries: int,
    *,
    retry_after_seconds: float = 0,
    jitter: Callable[[], float] = random.random,
) -> int:
    """How long to wait after a number of refused tries: doubling from the least to the most.

    Chance takes off up to half of it, or adds that to what the provider asks for: jobs that were
    refused together do not come back together. `jitter` gives 0 to 1.
    """
    doublings = min(max(tries - 1, 0), 30)
    half = min(math.ldexp(MIN_POLL_SECONDS, doublings), MAX_POLL_SECONDS) / 2
    return math.ceil(max(half, _asked_seconds(retry_after_seconds)) + half * jitter())


def throttled_wait_seconds(
    tries: int,
    *,
    throttled_seconds: float,
    patience_seconds: float = THROTTLE_PATIENCE_SECONDS,
    retry_after_seconds: float = 0,
    jitter: Callable[[], float] = random.random,
) -> int | None:
    """The same while a provider throttles; None when the patience is over.

    The last wait ends with the patience. A provider that asks for more than what is left of it
    has answered already: to come earlier would be rude, and to come later too late.
    """
    left_seconds = patience_seconds - throttled_seconds
    asked_seconds = retry_after_seconds if math.isfinite(retry_after_seconds) else 0
    if left_seconds <= 0 or asked_seconds > left_seconds:
        return None
    wait_seconds = retry_wait_seconds(tries, retry_after_seconds=asked_seconds, jitter=jitter)
    return min(max(wait_seconds, math.ceil(asked_seconds)), math.ceil(left_seconds))


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


def _asked_seconds(retry_after_seconds: float) -> float:
    """What a provider asks for, as far as we go along with it."""
    if not math.isfinite(retry_after_seconds):
        return 0
    return min(max(retry_after_seconds, 0), MAX_RETRY_AFTER_SECONDS)
