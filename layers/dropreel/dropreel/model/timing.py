"""When to poll or to retry. Pure: the time and the jitter are arguments.

Waits are whole seconds, rounded up, because a Wait state of Step Functions takes only those.
"""

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# One provider's page asks for 5 s or more between two polls. A minute is short for a render that
# has taken ten.
MIN_POLL_SECONDS = 5.0
MAX_POLL_SECONDS = 60.0

# How long a job retries at a provider that answers 429, before it goes to the next offer. Each try
# is about ten of the 25,000 events that an execution may have.
THROTTLE_PATIENCE_SECONDS = 900.0

# The longest wait that a provider may ask for.
MAX_RETRY_AFTER_SECONDS = 300.0


def next_wait_seconds(since_submission_seconds: float, *, retry_after_seconds: float = 0) -> int:
    """How long to wait until the next poll: a tenth of the time since submission, within bounds.

    So a render is noticed at most a tenth late, with few polls.
    """
    tenth = min(max(since_submission_seconds / 10, MIN_POLL_SECONDS), MAX_POLL_SECONDS)
    return math.ceil(max(tenth, _bounded(retry_after_seconds)))


def retry_wait_seconds(
    tries: int,
    *,
    retry_after_seconds: float = 0,
    jitter: Callable[[], float] = random.random,
) -> int:
    """How long to wait after a number of refused tries: doubling, within bounds.

    `jitter` (0 to 1) takes off up to half of it, or adds that to the provider's `Retry-After`, so
    that jobs that were refused together do not come back together.
    """
    doublings = min(max(tries - 1, 0), 30)
    half = min(math.ldexp(MIN_POLL_SECONDS, doublings), MAX_POLL_SECONDS) / 2
    return math.ceil(max(half, _bounded(retry_after_seconds)) + half * jitter())


def throttled_wait_seconds(
    tries: int,
    *,
    throttled_seconds: float,
    patience_seconds: float = THROTTLE_PATIENCE_SECONDS,
    retry_after_seconds: float = 0,
    jitter: Callable[[], float] = random.random,
) -> int | None:
    """The same while a provider throttles; None when the patience is over.

    The last wait ends with the patience. If the provider asks for more than what is left, a retry
    would come too early or too late, so the patience is over at once.
    """
    left_seconds = patience_seconds - throttled_seconds
    asked_seconds = retry_after_seconds if math.isfinite(retry_after_seconds) else 0
    if left_seconds <= 0 or asked_seconds > left_seconds:
        return None
    wait_seconds = retry_wait_seconds(tries, retry_after_seconds=asked_seconds, jitter=jitter)
    return min(max(wait_seconds, math.ceil(asked_seconds)), math.ceil(left_seconds))


def retry_after_seconds(header: str | None, now: datetime) -> float:
    """The wait in a `Retry-After` header: seconds or a date (RFC 9110, 10.2.3); 0 if invalid."""
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


def _bounded(retry_after_seconds: float) -> float:
    if not math.isfinite(retry_after_seconds):
        return 0
    return min(max(retry_after_seconds, 0), MAX_RETRY_AFTER_SECONDS)
