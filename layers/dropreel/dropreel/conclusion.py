"""Conclude: end a job that brought no video, and tell whoever dropped its files why.

There are two ways in. The state machine calls when a step failed, and announces what it gets
back. EventBridge calls when the execution is gone: stopped, out of time, or failed where nothing
caught it; then nobody else is left to announce. Most executions that failed were caught, though,
concluded and announced: those end in the state machine's own Fail state, with our error's code.
"""

import re
from collections.abc import Callable
from typing import Literal, Protocol

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

from dropreel.attempts import summary
from dropreel.catalog import ProviderName
from dropreel.errors import (
    DropreelError,
    ErrorReport,
    ExecutionAborted,
    ExecutionTimedOut,
    RenderCancelled,
    RequestForgotten,
    ResultMissing,
    ResultRefused,
    ResultUnavailable,
    SubmissionUnclear,
    UnexpectedError,
)
from dropreel.events import (
    DetailType,
    FailedRender,
    JobSummary,
    UsedInput,
    VideoFailed,
    VideoReady,
)
from dropreel.job import Job
from dropreel.ledger import Attempt, AttemptState, Ledger
from dropreel.observability import logger
from dropreel.precedence import is_same_run, owner_of
from dropreel.provider import Provider

# After these the provider has nothing left to cancel, although the ledger has the attempt open.
_RENDER_OVER = {
    over.__name__ for over in (RequestForgotten, ResultMissing, ResultRefused, ResultUnavailable)
}
# With one of these the state machine's Fail state ends: all is said by then. A failure that nothing
# caught has a name of the platform's.
_OUR_CODES = {error.__name__ for error in DropreelError.__subclasses__()}

_PAID_ADVICE = (
    "The render may be paid for and may still finish: look at the provider's dashboard before you "
    "drop the files again. What went wrong is in the execution's history in the Step Functions "
    "console and in the log of the step it names."
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
            return UnexpectedError(f"A step ended in {name}, which was not foreseen.").report


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
                return ExecutionAborted("Someone stopped the job's execution.").report
            case "TIMED_OUT":
                return ExecutionTimedOut("The job's execution ran out of time.").report
            case "FAILED":
                return StepError.model_validate({"Error": self.error or ""}).report


ENDING: TypeAdapter[FailedRun | EndedRun] = TypeAdapter(FailedRun | EndedRun)
"""Reads what conclude is called with, whichever way."""


class Videos(Protocol):
    """The videos bucket, as far as conclude needs it."""

    def text(self, bucket: str, key: str) -> str | None: ...

    def put_json(self, bucket: str, key: str, document: str) -> None: ...


class Announcer(Protocol):
    """The event bus."""

    def announce(self, detail_type: DetailType, detail: BaseModel) -> None: ...


def conclude(
    ending: FailedRun | EndedRun,
    *,
    ledger: Ledger,
    providers: Callable[[ProviderName], Provider],
    videos: Videos,
    video_bucket: str,
    bus: Announcer,
) -> VideoFailed | VideoReady | None:
    """Cancel what still can be cancelled, write the error file, and tell what happened.

    Running twice changes nothing: the first error file of an execution stands, which matters when
    an execution is stopped while it concludes. Of two jobs of one stem, the plain names are the
    later one's: no error file of the older one goes over what tells of the later one. Nor does one
    go beside the video that this execution delivered.

    EventBridge's executions are announced from here: with `Video Ready` when the video was
    delivered before they ended. None when there was nothing left to say.
    """
    ready = _delivered(ending, videos, video_bucket)
    failed = _concluded_before(ending, videos, video_bucket)
    if isinstance(ending, EndedRun):
        if _is_announced(ending, failed):
            return None
        if ready:
            bus.announce(DetailType.VIDEO_READY, ready)
            return ready
    failed = failed or _conclude(ending, ledger, providers)
    if not (ready or _is_overtaken(ending, videos, video_bucket)):
        videos.put_json(video_bucket, ending.job.error_key, failed.model_dump_json(indent=2))
    if isinstance(ending, EndedRun):
        bus.announce(DetailType.VIDEO_FAILED, failed)
    return failed


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
    """Whether a video or an error of a later job lies where the error file would."""
    owners = (
        owner_of(videos.text(video_bucket, key))
        for key in (ending.job.manifest_key, ending.job.error_key)
    )
    return any(owner and owner.came_after(ending.job, ending.started_at) for owner in owners)


def _conclude(
    ending: FailedRun | EndedRun,
    ledger: Ledger,
    providers: Callable[[ProviderName], Provider],
) -> VideoFailed:
    attempts = ledger.attempts(ending.job.id)
    report = _minding_what_may_be_paid(ending.report, attempts)
    logger.info("Concluding with %s", report.code)
    return VideoFailed(
        error=report,
        job=JobSummary.of(ending.job, ending.started_at),
        inputs=UsedInput.all_of(ending.job),
        render=_render(attempts, report, providers),
        execution=ending.execution,
    )


def _minding_what_may_be_paid(report: ErrorReport, attempts: tuple[Attempt, ...]) -> ErrorReport:
    """An attempt that was left open may be paid for, whatever it was that ended the job then."""
    state = attempts[-1].state if attempts else None
    is_unforeseen = report.code == UnexpectedError.__name__
    if state is AttemptState.ACCEPTED and is_unforeseen:
        return report.model_copy(update={"advice": _PAID_ADVICE, "retryable": False})
    if state is not AttemptState.BEGUN:
        return report
    if is_unforeseen:
        return SubmissionUnclear(
            f"Submit was cut off while it called {attempts[-1].provider}: whether the request was "
            "accepted is unknown."
        ).report
    return report.model_copy(update={"advice": SubmissionUnclear.advice, "retryable": False})


def _render(
    attempts: tuple[Attempt, ...],
    report: ErrorReport,
    providers: Callable[[ProviderName], Provider],
) -> FailedRender | None:
    if not attempts:
        return None
    latest = attempts[-1]  # the only one that can be open
    return FailedRender(
        provider=latest.provider,
        request_id=latest.request_id,
        cancelled=_is_cancelled(latest, report, providers),
        attempts=tuple(summary(attempt, report.code, report.message) for attempt in attempts),
    )


def _is_cancelled(
    attempt: Attempt, report: ErrorReport, providers: Callable[[ProviderName], Provider]
) -> bool:
    is_open = attempt.state is AttemptState.ACCEPTED and report.code not in _RENDER_OVER
    if not is_open or attempt.request_id is None:
        return attempt.code == RenderCancelled.__name__
    try:
        return providers(attempt.provider).cancel(attempt.request_id)
    except Exception:  # the person is told all the same
        logger.exception("Request %s could not be cancelled", attempt.request_id)
        return False
