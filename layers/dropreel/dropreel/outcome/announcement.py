"""Announce: send the event of a run's outcome, and mark it as sent."""

from collections.abc import Callable
from datetime import datetime

from dropreel.model.events import Announcer, Ended
from dropreel.model.job import Job
from dropreel.model.ledger import Ledger
from dropreel.model.metrics import Meter
from dropreel.outcome.measurement import measure
from dropreel.runtime.log import logger


class OutcomeMissing(Exception):
    """The run has no outcome yet, so there is nothing to announce."""


def announce(
    job: Job,
    started_at: datetime,
    execution: str,
    *,
    ledger: Ledger,
    bus: Announcer,
    meter: Meter,
    clock: Callable[[], datetime],
) -> Ended:
    """Send the event, about the execution's ARN, unless it was sent; return its detail.

    A call that is cut off between the event and the mark sends the event again: consumers know it
    by its job and run. Its metrics are recorded once, after the mark. Raises `OutcomeMissing`.
    """
    outcome = ledger.outcome(job, started_at)
    if outcome is None:
        raise OutcomeMissing(f"Run {job.run} of {job.id} has no outcome.")
    if outcome.sent_at is None:
        ledger.list_ended(outcome)
        bus.announce(outcome.detail_type, outcome.detail, [execution])
        if ledger.mark_sent(job, clock()):
            measure(outcome.detail, meter)
    message = "Announced" if outcome.sent_at is None else "Announced earlier"
    logger.info(message, code=outcome.code)
    return outcome.detail
