"""Which failed jobs are run again, and why the others are not. Knows no AWS.

A job is never run again while an earlier run may still act: while it is running, while its call to
submit may be open, or before conclude has ended it, which cancels at the provider. An operator who
names a job decides for it. Of many jobs at once, only those run that can succeed and cannot be paid
twice.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from dropreel.model.errors import (
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
from dropreel.model.ledger import Attempt, AttemptState, Outcome, Run
from dropreel.render.resumption import is_delivered
from dropreel.render.submission import CALL_LIFE_SECONDS
from operate.errors import OperateError

_CONCLUDED_AFTER: Final = timedelta(minutes=5)
"""A stopped execution is concluded within seconds, unless its status event is lost."""

_REFUSED_FOR_THE_FILES: Final = {
    refusal.__name__ for refusal in (InputRejected, RenderModerated, RenderRejected)
}
_OUTCOME_UNKNOWN: Final = {SubmissionUnclear.__name__, RequestForgotten.__name__}
_CODE_OF_STATUS: Final = {
    "ABORTED": ExecutionAborted.__name__,
    "TIMED_OUT": ExecutionTimedOut.__name__,
}
_VIDEO_READY: Final = "VideoReady"


@dataclass(frozen=True)
class Execution:
    """One run of a job, in Step Functions."""

    name: str
    status: str
    started_at: datetime
    stopped_at: datetime | None
    error: str | None
    job: Job


class Stack(Protocol):
    def execution(self, name: str) -> Execution | None: ...

    def unsuccessful_since(self, since: datetime) -> Iterable[Execution]: ...

    def start(self, job: Job) -> bool:
        """False when an execution of this name has already ended."""

    def attempts(self, job_id: str) -> tuple[Attempt, ...]: ...

    def runs(self, job_id: str) -> tuple[Run, ...]: ...

    def outcome(self, job: Job, started_at: datetime) -> Outcome | None: ...

    def last_drop(self, job: Job) -> str | None:
        """The id of the job with the latest drop for the same output."""


@dataclass(frozen=True)
class LastRun:
    """The last run of a job, and its records in the ledger."""

    execution: Execution
    latest: Attempt | None = None
    outcome: Outcome | None = None
    replaced_by: str | None = None
    """The job of a later drop for the same output, in any state."""
    is_delivered: bool = False
    """Whether a run has delivered the video of the latest attempt."""

    @property
    def has_succeeded(self) -> bool:
        return self.execution.status == "SUCCEEDED" or self.failed_with == _VIDEO_READY

    @property
    def failed_with(self) -> str:
        """The ledger's outcome first: conclude may know more than the execution."""
        status = self.execution.status
        ended_in = self.outcome.code if self.outcome else self.execution.error
        return ended_in or _CODE_OF_STATUS.get(status, status)


@dataclass(frozen=True)
class Choice:
    """Whether a job is run again, and why."""

    job: Job
    failed_with: str
    is_started: bool
    words: str
    replaced_by: str | None = None
    """The job of a later drop: then the operator who names this job has to confirm."""


class NoSuchRun(OperateError):
    """There is no execution to take the job from; the message says why."""


# Finding


def last_run(stack: Stack, name: str) -> LastRun:
    """`name` is the job's id or the name of one of its executions. Raises `NoSuchRun`."""
    given = stack.execution(name)
    job_id = given.job.id if given else name
    runs, attempts = stack.runs(job_id), stack.attempts(job_id)
    # Counting up from the highest known run: Step Functions may have forgotten the earlier ones.
    number = max([given.job.run if given else 1, *(run.number for run in runs)])
    execution = None
    while later := stack.execution(execution_name(job_id, number)):
        execution, number = later, number + 1
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
    return _with_history(stack, execution, attempts)


def failed_runs(stack: Stack, since: datetime) -> list[LastRun]:
    """The jobs whose last run failed since then, sorted by start."""
    last: dict[str, Execution] = {}
    for execution in stack.unsuccessful_since(since):
        known = last.setdefault(execution.job.id, execution)
        if known.job.run < execution.job.run:
            last[execution.job.id] = execution
    failed = sorted(last.values(), key=lambda execution: (execution.started_at, execution.name))
    return [
        _with_history(stack, execution, stack.attempts(execution.job.id))
        for execution in failed
        if not stack.execution(execution_name(execution.job.id, execution.job.run + 1))
    ]


def _with_history(stack: Stack, execution: Execution, attempts: Sequence[Attempt]) -> LastRun:
    last_drop = stack.last_drop(execution.job)
    latest = attempts[-1] if attempts else None
    return LastRun(
        execution=execution,
        latest=latest,
        outcome=stack.outcome(execution.job, execution.started_at),
        replaced_by=last_drop if last_drop != execution.job.id else None,
        is_delivered=bool(latest and is_delivered(latest, _next_run(execution.job), stack)),
    )


def _next_run(job: Job) -> Job:
    return job.model_copy(update={"run": job.run + 1})


# Choosing


def choose(last: LastRun, now: datetime, *, is_named: bool, again: bool = False) -> Choice:
    """`is_named`: the operator asked for this one job, not for many. `again`: also if its video is
    there."""
    # A run that fails stays one that was asked for: the run after it makes the video, too.
    job = _next_run(last.execution.job)
    job = job.model_copy(update={"again": job.again or again})
    obstacle = next(_obstacles(last, now, again=again), None)
    if obstacle is None and not is_named:
        obstacle = next(_doubts(last), None)
    return Choice(
        job=job,
        failed_with=last.failed_with,
        is_started=obstacle is None,
        words=f"skipped: {obstacle}" if obstacle else _prospect(last, again=job.again),
        replaced_by=last.replaced_by,
    )


def _obstacles(last: LastRun, now: datetime, *, again: bool) -> Iterator[str]:
    """Why it must not run again now."""
    execution, latest = last.execution, last.latest
    if execution.job.dry_run:
        yield (
            "it is a dry run; to check its files again, drop its .json again, and to have the "
            'video, drop it without "dry_run"'
        )
        return
    if last.has_succeeded and not again:
        yield (
            "it has succeeded, and its video is delivered; with AGAIN=1 (--again) it is rendered "
            "and paid again"
        )
        return
    if execution.status not in ("SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT"):
        yield f"its execution {execution.name} is still running"
        return
    is_concluded = execution.status == "SUCCEEDED" or _is_concluded(last)
    if not is_concluded and now - _end(execution) < _CONCLUDED_AFTER:
        yield "Dropreel still concludes it; try again in a minute, or after `make sweep`"
    oldest_open = now - timedelta(seconds=CALL_LIFE_SECONDS)
    if latest and latest.state is AttemptState.BEGUN and latest.begun_at > oldest_open:
        yield "the call that submits it may still be open; try again in 5 minutes"


def _doubts(last: LastRun) -> Iterator[str]:
    """Why it does not run again together with many others."""
    code = last.failed_with
    if _may_be_paid(last):
        yield (
            "it may be paid: look at the provider's dashboard, and if the render is not there, run "
            f"`make rerun ID={last.execution.job.id}`"
        )
    if last.replaced_by:
        yield f"its files were dropped again: job {last.replaced_by} has taken its place"
    if code in _REFUSED_FOR_THE_FILES:
        yield "the same files would be refused again; correct them and drop them"
    if code == InputGone.__name__:
        yield "one of its files was deleted; drop that again"
    if code == ExecutionAborted.__name__ and not _is_accepted(last):
        yield (
            "somebody stopped it; if you still want the video, run "
            f"`make rerun ID={last.execution.job.id}`"
        )


def _prospect(last: LastRun, *, again: bool) -> str:
    if last.latest and _is_accepted(last) and not (again and last.is_delivered):
        return f"waits for request {last.latest.request_id} and delivers it"
    if _may_be_paid(last):
        return "is submitted again; the earlier request may be paid, too"
    return "is rendered again, and paid again" if again else "is submitted again"


def _is_accepted(last: LastRun) -> bool:
    return last.latest is not None and last.latest.state is AttemptState.ACCEPTED


def _may_be_paid(last: LastRun) -> bool:
    """Whether an earlier request may be paid that a new run would not wait for."""
    latest = last.latest
    is_open = latest is not None and latest.state is AttemptState.BEGUN
    return is_open or not _OUTCOME_UNKNOWN.isdisjoint({last.failed_with, latest and latest.code})


def _is_concluded(last: LastRun) -> bool:
    return last.outcome is not None and last.outcome.sent_at is not None


def _end(execution: Execution) -> datetime:
    return execution.stopped_at or execution.started_at
