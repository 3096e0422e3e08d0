"""Conclude: end a run that brought no video, and tell whoever dropped its files why.

The state machine calls it when a step failed, and announces what it gets back. EventBridge (or the
sweep) calls it when an execution is gone: stopped, out of time, or failed where nothing caught it;
then nobody else is left to announce. Each run ends in one event, and never in none. So a mark that
silences later calls is written only when the event is known to be sent:

- The state machine's call leaves no mark: the execution may be stopped before it announces. The
  Fail state's code comes after that, and shows it.
- EventBridge's call announces, then marks: with the error's code as the run's outcome; or, when the
  video was there, by closing the run as of its end. The outcome `VideoReady` is no such mark:
  deliver writes it before the state machine announces.

A call that is interrupted between event and mark announces again, with the same job and run.
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, Protocol

from pydantic import (
    AliasPath,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    TypeAdapter,
    ValidationError,
)

from dropreel.model import errors
from dropreel.model.catalog import ProviderName
from dropreel.model.errors import ErrorReport
from dropreel.model.events import (
    DetailType,
    FailedRender,
    JobSummary,
    UsedInput,
    VideoFailed,
    VideoReady,
)
from dropreel.model.job import Job
from dropreel.model.ledger import Attempt, AttemptState, Ledger, Run
from dropreel.model.provider import Provider, Ticket
from dropreel.outcome.ownership import Owner, is_same_run, owner_of
from dropreel.render.attempts import is_of_an_account, summary
from dropreel.runtime.log import logger

# After these the provider has nothing left to cancel, although the ledger has the attempt open.
_RENDER_OVER = {
    over.__name__ for over in (errors.ResultMissing, errors.ResultRefused, errors.ResultUnavailable)
}
# After these it has nothing left at all: nobody has to wait for it any more.
_RENDER_GONE = {gone.__name__ for gone in (errors.RenderCancelled, errors.RequestForgotten)}
# What the provider itself may say of a lost render. With any other code it was lost because we
# cancelled it.
_LOST_THERE = {
    lost.__name__
    for lost in (
        errors.RenderFailed,
        errors.RenderModerated,
        errors.RenderRejected,
        errors.RequestForgotten,
    )
}
# With one of these the state machine's Fail state ends: all is said by then. A failure that nothing
# caught has a name of the platform's.
_OUR_CODES = {error.__name__ for error in errors.DropreelError.__subclasses__()}

# Step Functions gives an execution's name away again after 90 days. Then the ledger's marks are of
# the one that had it before.
_SINCE_LONG = timedelta(days=1)

# These say nothing about the render. When it goes on at the provider, the person must know.
_OF_THE_RUN = {
    over.__name__
    for over in (
        errors.ExecutionAborted,
        errors.ExecutionTimedOut,
        errors.SettingUnreadable,
        errors.UnexpectedError,
    )
}
# These end a job before it has another attempt: all that it has were made before.
_OF_ADMISSION = {refusal.__name__ for refusal in (errors.PriceUnknown, errors.SpendLimitReached)}
_PAID_ADVICE = (
    "The render may be paid for and may still finish: run the job again "
    f"({errors.RERUN}), which waits for it and pays nothing. Look at the provider's dashboard "
    "before you drop the files again: that would be paid again."
)
_WHERE_TO_LOOK = (
    " What went wrong is in the execution's history in the Step Functions console and in the log "
    "of the step it names."
)


class _LambdaCause(BaseModel):
    """What Lambda tells of an exception; its message is the report of a `DropreelError`."""

    report: Json[ErrorReport] = Field(alias="errorMessage")


class StepError(BaseModel):
    """`$states.errorOutput`: the error as a state machine's Catch sees it."""

    name: str = Field(alias="Error")
    cause: str = Field(default="", alias="Cause")

    @property
    def report(self) -> ErrorReport:
        try:
            return _LambdaCause.model_validate_json(self.cause).report
        except ValidationError:
            # The words of an error that nobody foresaw may hold anything, a URL or a token too:
            # they stay in the execution's history and in the log, which only operators read.
            name = self.name if re.fullmatch(r"[\w.]{1,80}", self.name) else "an error"
            return errors.UnexpectedError(f"A step ended in {name}, which was not foreseen.").report


class FailedRun(BaseModel):
    """What the state machine calls with when a step failed."""

    model_config = ConfigDict(frozen=True)

    job: Job
    error: StepError
    execution: str = Field(description="The execution's ARN.")
    started_at: AwareDatetime | None = None

    @property
    def report(self) -> ErrorReport:
        return self.error.report


class EndedRun(BaseModel):
    """EventBridge's `Step Functions Execution Status Change` of an execution that is gone."""

    model_config = ConfigDict(frozen=True)

    job: Json[Job] = Field(validation_alias=AliasPath("detail", "input"))
    execution: str = Field(validation_alias=AliasPath("detail", "executionArn"))
    # Milliseconds since 1970, which pydantic tells from seconds.
    started_at: AwareDatetime = Field(validation_alias=AliasPath("detail", "startDate"))
    status: Literal["ABORTED", "FAILED", "TIMED_OUT"] = Field(
        validation_alias=AliasPath("detail", "status")
    )
    error: str | None = Field(default=None, validation_alias=AliasPath("detail", "error"))

    @property
    def report(self) -> ErrorReport:
        match self.status:
            case "ABORTED":
                return errors.ExecutionAborted("Someone stopped the job's execution.").report
            case "TIMED_OUT":
                return errors.ExecutionTimedOut("The job's execution ran out of time.").report
            case "FAILED":
                return StepError.model_validate({"Error": self.error or ""}).report


_ENDING: TypeAdapter[FailedRun | EndedRun] = TypeAdapter(FailedRun | EndedRun)


class _EndedExecution(BaseModel):
    """What EventBridge says of any execution."""

    input: str = Field(default="", validation_alias=AliasPath("detail", "input"))
    execution: str = Field(validation_alias=AliasPath("detail", "executionArn"))


def ending_in(event: object) -> FailedRun | EndedRun | None:
    """Read what conclude is called with, whichever way. None for an execution that somebody started
    by hand: nothing of the job's is its own, and nobody waits for a word about it."""
    try:
        ended = _EndedExecution.model_validate(event)
    except ValidationError:
        return _ENDING.validate_python(event)
    try:
        is_ours = Job.model_validate_json(ended.input).is_run_by(ended.execution)
    except ValidationError:
        is_ours = False
    if not is_ours:
        logger.warning("Not started by us: nothing to conclude", execution=ended.execution)
        return None
    return _ENDING.validate_python(event)


class Videos(Protocol):
    """The videos bucket, as far as conclude needs it."""

    def text(self, bucket: str, key: str) -> str | None: ...

    def put_json(self, bucket: str, key: str, document: str) -> None: ...


class Announcer(Protocol):
    """The event bus."""

    def announce(self, detail_type: DetailType, detail: BaseModel) -> None: ...


class Slots(Protocol):
    """Admission, as far as conclude needs it."""

    def leave(self, job: Job) -> None:
        """Out of the queue and out of the slot, whichever; the estimate is given back unless its
        attempt, as the ledger has it by then, may be paid for. May be repeated."""


def conclude(
    ending: FailedRun | EndedRun,
    *,
    ledger: Ledger,
    slots: Slots,
    providers: Callable[[ProviderName], Provider],
    videos: Videos,
    video_bucket: str,
    bus: Announcer,
    clock: Callable[[], datetime],
) -> VideoFailed | VideoReady | None:
    """Cancel what still can be cancelled, give the slot back, write the error file, and tell what
    happened.

    Running twice changes nothing: the first error file of an execution stands, which matters when
    an execution is stopped while it concludes. Of two jobs of one stem, the plain names are the
    later one's: no error file of the older one goes over what tells of the later one. Nor does one
    go beside the video that this execution delivered: that is answered with `VideoReady`, however
    deliver ended.

    EventBridge's executions are announced from here. None when there was nothing left to say.
    """
    job = ending.job
    runs = ledger.runs(job.id)
    if isinstance(ending, EndedRun) and _is_marked(ending, runs):
        return None
    before = _concluded_before(ending, videos, video_bucket)
    if isinstance(ending, EndedRun) and _is_announced(ending, before):
        ledger.close(job, clock())
        slots.leave(job)
        told = before.error if before else ending.report
        ledger.end(job, ending.error or told.code, clock())
        return None
    if ready := _delivered(ending, videos, video_bucket):
        slots.leave(job)
        ledger.end(job, VideoReady.__name__, clock())
        if isinstance(ending, EndedRun):
            bus.announce(DetailType.VIDEO_READY, ready)
            _close_as_of_its_end(job, ledger)
        return ready
    ledger.close(job, clock())
    failed = before or _conclude(ending, ledger, providers)
    slots.leave(job)
    if before is None and not _is_overtaken(ending, videos, video_bucket):
        videos.put_json(video_bucket, job.error_key, failed.model_dump_json(indent=2))
    if isinstance(ending, EndedRun):
        bus.announce(DetailType.VIDEO_FAILED, failed)
        ledger.end(job, failed.error.code, clock())
    return failed


def needs_conclusion(run: Run | None) -> bool:
    """Whether an execution that ended without success is still to be concluded, as far as the
    ledger can tell; for the sweep."""
    if run is None or run.outcome is None:
        return True
    return run.outcome == VideoReady.__name__ and run.closed_at is None


def _is_marked(ending: EndedRun, runs: tuple[Run, ...]) -> bool:
    """Whether an earlier call has announced it: see the module's words."""
    run = _this(ending.job, runs)
    if run is None or run.ended_at is None or run.outcome is None:
        return False
    if run.ended_at < ending.started_at - _SINCE_LONG:
        return False
    return run.outcome != VideoReady.__name__ or run.closed_at == run.ended_at


def _close_as_of_its_end(job: Job, ledger: Ledger) -> None:
    """The mark that its video is announced. Whoever closes a run that is not over does so at a
    moment of its own."""
    run = _this(job, ledger.runs(job.id))
    if run and run.ended_at:
        ledger.close(job, run.ended_at)


def _this(job: Job, runs: tuple[Run, ...]) -> Run | None:
    return next((run for run in runs if run.number == job.run), None)


def _is_announced(ending: EndedRun, concluded: VideoFailed | None) -> bool:
    """Whether the state machine said it all before the execution failed, as far as can be told."""
    if ending.status != "FAILED":
        return False
    return ending.error in _OUR_CODES or (ending.error is None and concluded is not None)


def _delivered(
    ending: FailedRun | EndedRun, videos: Videos, video_bucket: str
) -> VideoReady | None:
    """The manifest of this execution's video, under the plain name or under the job's own."""
    for key in (ending.job.manifest_key, ending.job.own_manifest_key):
        try:
            ready = VideoReady.model_validate_json(videos.text(video_bucket, key) or "")
        except ValidationError:
            continue
        if is_same_run(ready.job, ending.job, ending.started_at):
            return ready
    return None


def _concluded_before(
    ending: FailedRun | EndedRun, videos: Videos, video_bucket: str
) -> VideoFailed | None:
    try:
        failed = VideoFailed.model_validate_json(
            videos.text(video_bucket, ending.job.error_key) or ""
        )
    except ValidationError:
        return None
    if failed.execution != ending.execution:
        return None
    return failed if is_same_run(failed.job, ending.job, ending.started_at) else None


def _is_overtaken(ending: FailedRun | EndedRun, videos: Videos, video_bucket: str) -> bool:
    """Whether a video or an error of a later job, or of a later run of this one, lies where the
    error file would."""
    owners = (
        owner_of(videos.text(video_bucket, key))
        for key in (ending.job.manifest_key, ending.job.error_key)
    )
    return any(
        owner and (owner.came_after(ending.job, ending.started_at) or _is_later_run(owner, ending))
        for owner in owners
    )


def _is_later_run(owner: Owner, ending: FailedRun | EndedRun) -> bool:
    if owner.id != ending.job.id or owner.started_at is None or ending.started_at is None:
        return False
    return owner.started_at - ending.started_at >= timedelta(seconds=1)


class _Attempts(NamedTuple):
    """What a run has of its job's attempts."""

    own: tuple[Attempt, ...]
    is_latest_run: bool  # else what is open may be what a later run waits for

    @classmethod
    def of(cls, job: Job, ledger: Ledger) -> "_Attempts":
        runs, attempts = ledger.runs(job.id), ledger.attempts(job.id)
        run = _this(job, runs)
        resumed = run.plan.resume.attempt if run and run.plan and run.plan.resume else None
        own = tuple(made for made in attempts if job.run == made.run or made.number == resumed)
        if not own and not (run and run.plan) and job.run > 1:
            # It asked for no slot: it came to nothing, or it waited for what was accepted before.
            own = tuple(made for made in attempts[-1:] if made.request_id)
        return cls(own, is_latest_run=not any(other.number > job.run for other in runs))


def _conclude(
    ending: FailedRun | EndedRun,
    ledger: Ledger,
    providers: Callable[[ProviderName], Provider],
) -> VideoFailed:
    attempts = _Attempts.of(ending.job, ledger)
    report = _minding_an_open_submission(ending.report, attempts.own)
    latest = _ended(ending.job, attempts, report, ledger, providers)
    logger.info("Concluding with %s", report.code)
    return VideoFailed(
        error=_minding_earlier_refusals(_minding_what_goes_on(report, latest), attempts.own),
        job=JobSummary.of(ending.job, ending.started_at),
        inputs=UsedInput.all_of(ending.job),
        render=_told(attempts, latest, report) if latest else None,
        execution=ending.execution,
    )


def _minding_what_goes_on(report: ErrorReport, latest: Attempt | None) -> ErrorReport:
    """What was accepted and could not be cancelled may still finish, and is paid for."""
    if latest and _is_cancelled_for(report, latest):
        message = f"{report.message} Its request was still queued, and is cancelled."
        late = report.code == errors.RenderTimedOut.__name__  # which may still finish, it says else
        advice = errors.ExecutionAborted.advice if late else report.advice
        return report.model_copy(update={"message": message, "advice": advice})
    if report.code not in _OF_THE_RUN:
        return report
    if latest is None and report.code != errors.UnexpectedError.__name__:
        message = f"{report.message} Nothing was submitted, and nothing is paid."
        return report.model_copy(update={"message": message})
    if latest is None or latest.state is not AttemptState.ACCEPTED:
        return report
    advice = _PAID_ADVICE
    if report.code == errors.UnexpectedError.__name__:
        advice += _WHERE_TO_LOOK
    return report.model_copy(update={"advice": advice, "retryable": False})


def _is_cancelled_for(report: ErrorReport, attempt: Attempt) -> bool:
    """By us, for this very reason, and not by the provider, which says so in its own words."""
    is_ours = report.code not in _LOST_THERE | _RENDER_GONE
    return is_ours and attempt.state is AttemptState.LOST and attempt.code == report.code


def _minding_earlier_refusals(report: ErrorReport, attempts: tuple[Attempt, ...]) -> ErrorReport:
    """Who mends the account of the last offer alone mends the wrong one, perhaps."""
    is_of_admission = report.code in _OF_ADMISSION
    earlier = attempts if is_of_admission else attempts[:-1]
    refused = [f"{made.provider} ({made.code})" for made in earlier if is_of_an_account(made.code)]
    if not (is_of_admission or is_of_an_account(report.code)) or not refused:
        return report
    message = f"{report.message} Refused before by {', '.join(refused)}."
    return report.model_copy(update={"message": message})


def _minding_an_open_submission(report: ErrorReport, attempts: tuple[Attempt, ...]) -> ErrorReport:
    """A submission of which nobody knows whether it was accepted may be paid for, whatever it was
    that ended the job then."""
    latest = attempts[-1] if attempts else None
    is_open = latest is not None and latest.state is AttemptState.BEGUN
    if latest is None or not is_open:
        return report
    if report.code == errors.UnexpectedError.__name__:
        return errors.SubmissionUnclear(
            f"Submit was cut off while it called {latest.provider}: whether the request was "
            "accepted is unknown."
        ).report
    return report.model_copy(update={"advice": errors.SubmissionUnclear.advice, "retryable": False})


def _ended(
    job: Job,
    attempts: _Attempts,
    report: ErrorReport,
    ledger: Ledger,
    providers: Callable[[ProviderName], Provider],
) -> Attempt | None:
    """The run's latest attempt, the only one that can be open, with its request ended."""
    if not attempts.own:
        return None
    latest = attempts.own[-1]
    if attempts.is_latest_run:
        _end_request(job, latest, report, ledger, providers)
    # Read anew, so that a call that was cut off after this is told the same by the next one.
    return ledger.find(job.id, latest.number) or latest


def _told(attempts: _Attempts, latest: Attempt, report: ErrorReport) -> FailedRender:
    return FailedRender(
        provider=latest.provider,
        request_id=latest.request_id,
        cancelled=latest.state is AttemptState.LOST and latest.code not in _LOST_THERE,
        attempts=tuple(
            summary(attempt, report.code, report.message)
            for attempt in (*attempts.own[:-1], latest)
        ),
    )


def _end_request(
    job: Job,
    attempt: Attempt,
    report: ErrorReport,
    ledger: Ledger,
    providers: Callable[[ProviderName], Provider],
) -> None:
    """Cancel the request, as far as it is open and can be. What the provider does not have any
    more is lost: then a job that is run again may submit anew."""
    ticket = attempt.ticket
    if ticket is None or report.code in _RENDER_OVER:
        return
    if report.code in _RENDER_GONE or _is_cancelled(ticket, providers):
        ledger.lose(job.id, ticket, report.code, report.message)


def _is_cancelled(ticket: Ticket, providers: Callable[[ProviderName], Provider]) -> bool:
    try:
        return providers(ticket.provider).cancel(ticket)
    except Exception:  # the person is told all the same
        logger.exception("Request %s could not be cancelled", ticket.request_id)
        return False
