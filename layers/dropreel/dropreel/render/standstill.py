"""Watch: measures what tells of a standstill, because then no job runs that could."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

from dropreel.model.catalog import ProviderName
from dropreel.model.closure import Closure
from dropreel.model.metrics import Meter, Metric
from dropreel.render.admission import Lease, Waiter
from dropreel.render.spending import Day

MAX_COUNTED_WAITERS = 10_000
"""A longer queue counts as this long: a count reads the items, about 1.5 KB each."""


class Queues(Protocol):
    """The queues and slots, as admission has them."""

    def count_waiters(self, provider: ProviderName, at_most: int) -> int: ...

    def oldest_waiters(self, provider: ProviderName) -> Sequence[Waiter]:
        """The first of the queue, and the first of those that were set aside behind all others."""

    def leases(self, provider: ProviderName) -> Sequence[Lease]: ...

    def day(self, day: date) -> Day: ...


@dataclass(frozen=True)
class Watch:
    queues: Queues
    meter: Meter
    clock: Callable[[], datetime]
    in_flight: Mapping[ProviderName, int]
    closures: Callable[[], Iterable[Closure]]
    daily_usd: Decimal | None = None

    def measure(self) -> None:
        now = self.clock()
        closed = {it.provider for it in self.closures()}
        standings = {provider: self._standing(provider, now) for provider in self.in_flight}
        for provider, standing in standings.items():
            self.meter.record(
                standing | {Metric.PROVIDER_CLOSED: int(provider in closed)}, provider=provider
            )
        oldest = (standing[Metric.OLDEST_WAITER_SECONDS] for standing in standings.values())
        self.meter.record(
            {
                Metric.OLDEST_WAITER_SECONDS: max(oldest, default=0),
                Metric.SWEEPS_DONE: 0,  # so that a day without a sweep is a day with data
            }
        )
        if self.daily_usd:
            spent_usd = self.queues.day(now.date()).spent_usd
            self.meter.record({Metric.SPEND_SHARE: float(100 * spent_usd / self.daily_usd)})

    def _standing(self, provider: ProviderName, now: datetime) -> dict[Metric, float]:
        """The age of the oldest waiter is 0 when none waits. It counts from the job's start."""
        oldest = self.queues.oldest_waiters(provider)
        leases = self.queues.leases(provider)
        return {
            Metric.WAITING_JOBS: self.queues.count_waiters(provider, MAX_COUNTED_WAITERS),
            Metric.OLDEST_WAITER_SECONDS: max(
                ((now - waiter.started_at).total_seconds() for waiter in oldest), default=0
            ),
            Metric.SLOTS_TAKEN: sum(lease.until > now for lease in leases),
            Metric.SLOTS_ALLOWED: self.in_flight[provider],
        }
