"""The metrics: what is measured, in which unit, and by which dimensions."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, Protocol

Unit = Literal["Count", "Percent", "Seconds"]


class Metric(StrEnum):
    """The name of a metric in CloudWatch."""

    # Of each provider, every five minutes
    WAITING_JOBS = "WaitingJobs"
    OLDEST_WAITER_SECONDS = "OldestWaiterSeconds"
    SLOTS_TAKEN = "SlotsTaken"
    SLOTS_ALLOWED = "SlotsAllowed"
    # Of the stack
    SPEND_SHARE = "SpendShare"

    @property
    def unit(self) -> Unit:
        if self is Metric.SPEND_SHARE:
            return "Percent"
        return "Seconds" if self.endswith("Seconds") else "Count"


class Meter(Protocol):
    def record(
        self,
        values: Mapping[Metric, float],
        *,
        provider: str | None = None,
        model: str | None = None,
    ) -> None:
        """Write the values of one moment, by these dimensions.

        Each combination of dimensions is a metric that is paid for. So nothing that people choose
        may become one, such as a folder or the text of an error.
        """
