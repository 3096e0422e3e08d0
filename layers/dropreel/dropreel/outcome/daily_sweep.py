"""The sweep, once a day and on demand: what events should have brought about and did not.

It sends intake through the inbox (`inbox_sweep`), has conclude told again of the executions that
ended without it, and serves the jobs that wait.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Protocol

from pydantic import BaseModel, ValidationError

from dropreel.inbox.messages import Sweep, SweepPosition
from dropreel.model.executions import EndedExecution, Ending, UnhappyEnd
from dropreel.model.job import Job
from dropreel.model.ledger import Run
from dropreel.outcome.conclusion import needs_conclusion
from dropreel.runtime.log import logger

LOOKS_BACK = timedelta(days=15)
"""A sweep or two may fail as well."""

MAX_DESCRIBED = 5000
"""So many calls fit into a Lambda function's 15 minutes at the pace that Step Functions allows."""

_MAX_RUN = timedelta(days=90)  # the state machine's TimeoutSeconds
_EVENT_TAKES = timedelta(seconds=10)
_CONCLUDE_TAKES = timedelta(minutes=15)  # with the retries of an asynchronous call

# Most that failed were concluded by the state machine itself, so these come last.
_UNHAPPY_ENDS: tuple[UnhappyEnd, ...] = ("ABORTED", "TIMED_OUT", "FAILED")


class Queue(Protocol):
    """Intake's queue."""

    def send(self, message: BaseModel, delay_seconds: int) -> None: ...


class Executions(Protocol):
    def ended(self, status: UnhappyEnd) -> Iterable[EndedExecution]:
        """The executions that ended like this: the last started first."""

    def ending(self, execution: EndedExecution) -> Ending | None: ...


class Runs(Protocol):
    """The ledger, as far as the sweep needs it."""

    def runs(self, job_id: str) -> tuple[Run, ...]: ...


class Conclude(Protocol):
    def tell(self, execution: EndedExecution, ending: Ending) -> None: ...


class Admission(Protocol):
    def serve_all(self) -> None: ...


@dataclass(frozen=True)
class DailySweep:
    """All of it; may be done at any time and any number of times."""

    queue: Queue
    executions: Executions
    ledger: Runs
    conclude: Conclude
    admission: Admission
    now: Callable[[], datetime]

    def sweep(self) -> None:
        """Each part is done though another fails. What fails is raised in the end."""
        with ExitStack() as parts:  # they run from the last to the first: the longest at the end
            parts.callback(self._have_concluded)
            parts.callback(self.admission.serve_all)
            parts.callback(self.queue.send, Sweep(sweep=SweepPosition()), 0)

    def _have_concluded(self) -> None:
        overdue = self._ended()
        concluded = [self._see_to(one) for one in islice(overdue, MAX_DESCRIBED)]
        logger.info("Told conclude again", ended=len(concluded), told=sum(concluded))
        if next(overdue, None):
            logger.warning("More executions ended than one sweep looks at")

    def _ended(self) -> Iterator[EndedExecution]:
        """Those that ended lately, but not so lately that the event is still on its way."""
        now = self.now()
        since = now - LOOKS_BACK
        for status in _UNHAPPY_ENDS:
            for one in takewhile(
                lambda one: one.started_at >= since - _MAX_RUN, self.executions.ended(status)
            ):
                if since <= one.stopped_at <= now - _EVENT_TAKES:
                    yield one

    def _see_to(self, execution: EndedExecution) -> bool:
        """Tell conclude, unless it has nothing to do. Returns whether it was told."""
        ending = self.executions.ending(execution)
        if ending is None:
            return False
        try:
            job = Job.model_validate_json(ending.input)
        except ValidationError:  # somebody started it by hand
            logger.warning("No job of ours", execution=execution.arn)
            return False
        if not job.is_run_by(execution.arn):
            logger.warning("Not started by us", execution=execution.arn, job_id=job.id)
            return False
        run = next((run for run in self.ledger.runs(job.id) if run.number == job.run), None)
        if not needs_conclusion(run) or (run and self._is_at_work(run)):
            return False
        self.conclude.tell(execution, ending)
        logger.info("Told conclude again", execution=execution.arn, job_id=job.id)
        return True

    def _is_at_work(self, run: Run) -> bool:
        return run.closed_at is not None and self.now() - run.closed_at < _CONCLUDE_TAKES
