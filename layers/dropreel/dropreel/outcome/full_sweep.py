"""The full sweep, every hour and on demand: it does what a lost event should have caused."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol

from dropreel.inbox.messages import MessageQueue, Sweep, SweepPosition
from dropreel.model.executions import EndedExecution, Ending, UnhappyEnd
from dropreel.model.job import Job
from dropreel.model.ledger import Ledger
from dropreel.outcome.conclusion import needs_conclusion
from dropreel.outcome.ownership import read
from dropreel.runtime.log import job_keys, logger

LOOKS_BACK = timedelta(days=15)
"""Long enough that several sweeps may fail in a row."""

MAX_DESCRIBED = 5000
"""As many calls fit into a function's 15 minutes at the rate that Step Functions allows."""

_MAX_RUN = timedelta(days=90)  # the state machine's TimeoutSeconds
_EVENT_TAKES = timedelta(seconds=10)
_CONCLUDE_TAKES = timedelta(minutes=15)  # with the retries of an asynchronous call

# The state machine itself concluded most of the failed ones, so these come last.
_UNHAPPY_ENDS: tuple[UnhappyEnd, ...] = ("ABORTED", "TIMED_OUT", "FAILED")


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
    now: Callable[[], datetime]

    def sweep(self) -> None:
        """Run each part, even when another one fails. Raises at the end what failed."""
        with ExitStack() as parts:  # runs the last callback first: the longest part comes last
            parts.callback(self._conclude_ended)
            parts.callback(self.serve_all)
            parts.callback(self.queue.send, Sweep(sweep=SweepPosition()), 0)

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
