"""Which failed jobs are run again, and what becomes of each. Knows no AWS.

A job is never run again while a run of it may still act: while one is running, while the call that
submits it may be under way, or before `conclude` is through with it, which cancels what it finds
at the provider. Whoever names a job decides for it; of many at once only those are run again that
can succeed and cannot be paid for twice.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from dropreel.model.errors import (
    DropreelError,
    ExecutionAborted,
    ExecutionTimedOut,
    InputGone,
    InputRejected,
    RenderModerated,
    RenderRejected,
    RequestForgotten,
    SubmissionUnclear,
)
from dropreel.model.job import Job, execution_name
from dropreel.model.ledger import Attempt, AttemptState, Run
from dropreel.render.submission import CALL_LIFE_SECONDS
from operate.errors import OperateError

_CONCLUDED_AFTER: Final = timedelta(minutes=5)
"""An execution that was stopped is concluded within seconds, if its status event is not lost."""

_OUR_CODES: Final = {error.__name__ for error in DropreelError.__subclasses__()}
"""With one of these the state machine's Fail state ends, after `conclude`."""

_REFUSED_FOR_THE_FILES: Final = {
    refusal.__name__ for refusal in (InputRejected, RenderModerated, RenderRejected)
}
_NOBODY_KNOWS: Final = {SubmissionUnclear.__name__, RequestForgotten.__name__}
_SAYS_AS_MUCH: Final = {
    "ABORTED": ExecutionAborted.__name__,
    "TIMED_OUT": ExecutionTimedOut.__name__,
}
_VIDEO_READY: Final = "VideoReady"


@dataclass(frozen=True)
class Execution:
    """One run of a job, as Step Functions knows it."""

    name: str
    status: str
    started_at: datetime
    stopped_at: datetime | None
    error: str | None
    job: Job


class Stack(Protocol):
    """What the choice is made from, and how a job is started."""

    def execution(self, name: str) -> Execution | None: ...

    def unsuccessful_since(self, since: datetime) -> Iterable[Execution]: ...

    def start(self, job: Job) -> bool:
        """False when an execution of this name has ended already."""

    def attempts(self, job_id: str) -> tuple[Attempt, ...]: ...

    def runs(self, job_id: str) -> tuple[Run, ...]: ...

    def last_drop(self, job: Job) -> str | None:
        """The id of the job that was dropped last for the same output."""


@dataclass(frozen=True)
class LastRun:
    """The last run of a job, and what the ledger says of it."""

    execution: Execution
    latest: Attempt | None = None
    noted: Run | None = None
    replaced_by: str | None = None
    """The job of a later drop of the same output, whatever has become of that."""

    @property
    def failed_with(self) -> str:
        """The ledger knows best: conclude may have found out more than the execution says."""
        status = self.execution.status
        told = self.noted.outcome if self.noted else None
        return told or self.execution.error or _SAYS_AS_MUCH.get(status, status)


@dataclass(frozen=True)
class Choice:
    """What becomes of a job, in words."""

    job: Job
    failed_with: str
    is_started: bool
    words: str
    replaced_by: str | None = None
    """Whoever names the job is asked first, when there is a later drop."""


class NoSuchRun(OperateError):
    """There is no execution to learn the job from; the message says why."""


# Finding


def last_run(stack: Stack, name: str) -> LastRun:
    """By the job's id, or by the name of one of its executions. Raises `NoSuchRun`."""
    given = stack.execution(name)
    job_id = given.job.id if given else name
    runs, attempts = stack.runs(job_id), stack.attempts(job_id)
    known = [given.job.run] if given else [1]
    execution = _last_execution(stack, job_id, max(known + [run.number for run in runs]))
    if execution is None and (runs or attempts):
        raise NoSuchRun(
            f"Step Functions has no execution of {job_id} any more: it keeps them for 90 days. "
            "Drop one of the job's own files again."
        )
    if execution is None:
        raise NoSuchRun(
            f"There is no job {job_id}: its id is the name of its execution, and `job.id` in its "
            "error file. Step Functions keeps executions for 90 days."
        )
    return _with_history(stack, execution, attempts, runs)


def failed_runs(stack: Stack, since: datetime) -> list[LastRun]:
    """The jobs whose last run failed since then, in the order of their starts."""
    last: dict[str, Execution] = {}
    for execution in stack.unsuccessful_since(since):
        there = last.get(execution.job.id)
        if there is None or there.job.run < execution.job.run:
            last[execution.job.id] = execution
    failed = sorted(last.values(), key=lambda execution: (execution.started_at, execution.name))
    return [
        _with_history(
            stack, execution, stack.attempts(execution.job.id), stack.runs(execution.job.id)
        )
        for execution in failed
        if not stack.execution(execution_name(execution.job.id, execution.job.run + 1))
    ]


def _last_execution(stack: Stack, job_id: str, known: int) -> Execution | None:
    """Counting up from a run that is known: earlier ones may be forgotten."""
    found, number = None, known
    while execution := stack.execution(execution_name(job_id, number)):
        found, number = execution, number + 1
    return found


def _with_history(
    stack: Stack, execution: Execution, attempts: Sequence[Attempt], runs: Iterable[Run]
) -> LastRun:
    last_drop = stack.last_drop(execution.job)
    return LastRun(
        execution=execution,
        latest=attempts[-1] if attempts else None,
        noted=next((run for run in runs if run.number == execution.job.run), None),
        replaced_by=last_drop if last_drop != execution.job.id else None,
    )


# Choosing


def choose(last: LastRun, now: datetime, *, is_named: bool) -> Choice:
    """What becomes of a job: one that was asked for by name, or one of many."""
    job = last.execution.job
    obstacle = next(_obstacles(last, now), None)
    if obstacle is None and not is_named:
        obstacle = next(_doubts(last), None)
    return Choice(
        job=job.model_copy(update={"run": job.run + 1}),
        failed_with=last.failed_with,
        is_started=obstacle is None,
        words=f"skipped: {obstacle}" if obstacle else _prospect(last),
        replaced_by=last.replaced_by,
    )


def _obstacles(last: LastRun, now: datetime) -> Iterator[str]:
    """Why nobody may run it again now."""
    execution, latest = last.execution, last.latest
    if execution.status == "SUCCEEDED" or last.failed_with == _VIDEO_READY:
        yield "it has succeeded, and its video is delivered"
        return
    if execution.status not in ("FAILED", "ABORTED", "TIMED_OUT"):
        yield f"its execution {execution.name} is still running"
        return
    if not _is_concluded(last) and now - _end(execution) < _CONCLUDED_AFTER:
        yield "its end is not concluded yet; try again in a minute, or after `make sweep`"
    if latest and latest.state is AttemptState.BEGUN:
        called = now - latest.begun_at
        if called < timedelta(seconds=CALL_LIFE_SECONDS):
            yield "the call that submits it may be under way; try again in five minutes"


def _doubts(last: LastRun) -> Iterator[str]:
    """Why it is not run again with many others."""
    code = last.failed_with
    if _may_be_paid(last):
        yield (
            "it may be rendered and paid for: look at the provider's dashboard, and run it again "
            f"with `make rerun ID={last.execution.job.id}` if it is not there"
        )
    if last.replaced_by:
        yield f"its files were dropped again: job {last.replaced_by} has taken its place"
    if code in _REFUSED_FOR_THE_FILES:
        yield "the same files would be refused again; mend them and drop them"
    if code == InputGone.__name__:
        yield "a file of it was deleted; drop that again"
    if code == ExecutionAborted.__name__ and not _is_accepted(last):
        yield (
            "somebody stopped it; if its video is still wanted, run it again with "
            f"`make rerun ID={last.execution.job.id}`"
        )


def _prospect(last: LastRun) -> str:
    if last.latest and _is_accepted(last):
        return f"waits for request {last.latest.request_id} and delivers it"
    if _may_be_paid(last):
        return "is submitted anew; what the provider was asked before may be paid for, too"
    return "is submitted anew"


def _is_accepted(last: LastRun) -> bool:
    return last.latest is not None and last.latest.state is AttemptState.ACCEPTED


def _may_be_paid(last: LastRun) -> bool:
    """Besides what is accepted, and only waited for."""
    latest = last.latest
    is_open = latest is not None and latest.state is AttemptState.BEGUN
    return is_open or not _NOBODY_KNOWS.isdisjoint({last.failed_with, latest and latest.code})


def _is_concluded(last: LastRun) -> bool:
    if last.noted and last.noted.ended_at:
        return True
    return last.execution.status == "FAILED" and last.execution.error in _OUR_CODES


def _end(execution: Execution) -> datetime:
    return execution.stopped_at or execution.started_at
