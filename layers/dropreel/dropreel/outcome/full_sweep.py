"""The full sweep, every hour and on demand: it does what a lost event should have caused.

Just after midnight (UTC) and on demand it goes through the whole inbox. In the other hours it looks
up recent uploads only, so that an inbox of years is not read again each hour.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol

from pydantic import AwareDatetime, BaseModel, Field

from dropreel.inbox.messages import MessageQueue, Sweep, SweepPosition
from dropreel.model.executions import EndedExecution, Ending, UnhappyEnd
from dropreel.model.job import Job
from dropreel.model.ledger import Ledger
from dropreel.model.metrics import Meter, Metric
from dropreel.outcome.conclusion import needs_conclusion
from dropreel.outcome.ownership import read
from dropreel.runtime.log import job_keys, logger

LOOKS_BACK = timedelta(days=15)
"""Long enough that several sweeps may fail in a row."""

MAX_DESCRIBED = 5000
"""As many calls fit into a function's 15 minutes at the rate that Step Functions allows."""

_EVERY = timedelta(hours=1)  # the template's SweepRule

_RECENT = timedelta(hours=26)
"""S3 dates an upload in parts from its beginning, up to a day before its event (intake's
MAX_UPLOAD). The hours beyond the day are for a sweep that fails."""

_MAX_RUN = timedelta(days=90)  # the state machine's TimeoutSeconds
_EVENT_TAKES = timedelta(seconds=10)
_CONCLUDE_TAKES = timedelta(minutes=15)  # with the retries of an asynchronous call

# The state machine itself concluded most of the failed ones, so these come last.
_UNHAPPY_ENDS: tuple[UnhappyEnd, ...] = ("ABORTED", "TIMED_OUT", "FAILED")


class SweepCall(BaseModel):
    """EventBridge's scheduled event, in part. On demand there is none."""

    time: AwareDatetime | None = Field(default=None, description="When it was due, in UTC.")


class EndedExecutions(Protocol):
    def ended(self, status: UnhappyEnd) -> Iterable[EndedExecution]: ...  # last started first

    def ending(self, execution: EndedExecution) -> Ending | None: ...


@dataclass(frozen=True)
class FullSweep:
    """May run at any time and any number of times."""

    queue: MessageQueue
    executions: EndedExecutions
    ledger: Ledger
    conclude: Callable[[EndedExecution, Ending], None]
    serve_all: Callable[[], None]
    meter: Meter
    now: Callable[[], datetime]

    def sweep(self, scheduled_at: datetime | None = None) -> None:
        """Run each part, even when another one fails. Raises at the end what failed.

        `scheduled_at`: when the schedule's call was due, in UTC; None on demand.
        """
        with ExitStack() as parts:  # runs the last callback first: the longest part comes last
            parts.callback(self._conclude_ended)
            parts.callback(self.serve_all)
            parts.callback(self.queue.send, Sweep(sweep=self._part_of_inbox(scheduled_at)), 0)
        self.meter.record({Metric.SWEEPS_DONE: 1})

    def _part_of_inbox(self, scheduled_at: datetime | None) -> SweepPosition:
        if scheduled_at is None or scheduled_at.hour == 0:
            return SweepPosition()
        return SweepPosition(since=scheduled_at - _RECENT, ends_at=self.now() + _EVERY)

    def _conclude_ended(self) -> None:
        ended = self._ended()
        invoked = [self._conclude(execution) for execution in islice(ended, MAX_DESCRIBED)]
        logger.info("Invoked conclude again", ended=len(invoked), invoked=sum(invoked))
        if next(ended, None):
            logger.warning("More executions ended than one sweep can check")

    def _ended(self) -> Iterator[EndedExecution]:
        """The executions that ended lately, but long enough ago for the event to have arrived."""
        now = self.now()
        since = now - LOOKS_BACK
        for status in _UNHAPPY_ENDS:
            for execution in self.executions.ended(status):
                if execution.started_at < since - _MAX_RUN:
                    break
                if since <= execution.stopped_at <= now - _EVENT_TAKES:
                    yield execution

    def _conclude(self, execution: EndedExecution) -> bool:
        """Invoke conclude, unless it has nothing to do. Returns whether it was invoked."""
        ending = self.executions.ending(execution)
        if ending is None:
            return False
        job = read(Job, ending.input)
        if job is None or not job.is_run_by(execution.arn):
            logger.warning("Not started by us", execution=execution.arn)
            return False
        outcome = self.ledger.outcome(job, execution.started_at)
        if not needs_conclusion(outcome) or self._is_concluding(job):
            return False
        self.conclude(execution, ending)
        with logger.append_context_keys(**job_keys(job)):
            logger.info("Invoked conclude again", execution=execution.arn)
        return True

    def _is_concluding(self, job: Job) -> bool:
        closed = (run.closed_at for run in self.ledger.runs(job.id) if run.number == job.run)
        closed_at = next(closed, None)
        return closed_at is not None and self.now() - closed_at < _CONCLUDE_TAKES
