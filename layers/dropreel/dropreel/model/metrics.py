"""The metrics: what is measured, in which unit, and by which dimensions."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, Protocol

Unit = Literal["Count", "None", "Percent", "Seconds"]


class Metric(StrEnum):
    """The name of a metric in CloudWatch."""

    # Of each run, once, when it has ended; of the stack, and of its provider and model
    JOBS_READY = "JobsReady"
    JOBS_REFUSED = "JobsRefused"  # its files cannot be used, or somebody stopped it
    JOBS_FAILED = "JobsFailed"
    QUEUED_SECONDS = "QueuedSeconds"  # at the provider
    RENDERING_SECONDS = "RenderingSeconds"
    COPYING_SECONDS = "CopyingSeconds"
    ESTIMATED_USD = "EstimatedUsd"
    ACTUAL_USD = "ActualUsd"  # where the provider says it
    # Of the stack
    UPLOADS_INCOMPLETE = "UploadsIncomplete"
    SWEEPS_DONE = "SweepsDone"
    # Of each provider, every five minutes
    WAITING_JOBS = "WaitingJobs"
    OLDEST_WAITER_SECONDS = "OldestWaiterSeconds"
    SLOTS_TAKEN = "SlotsTaken"
    SLOTS_ALLOWED = "SlotsAllowed"
    PROVIDER_CLOSED = "ProviderClosed"  # 0 or 1; 1 on trial, too
    # Of the stack, every five minutes
    SPEND_SHARE = "SpendShare"  # of DailySpendLimitUsd

    @property
    def unit(self) -> Unit:
        if self is Metric.SPEND_SHARE:
            return "Percent"
        if self.endswith("Usd"):
            return "None"  # CloudWatch has no unit of money
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
