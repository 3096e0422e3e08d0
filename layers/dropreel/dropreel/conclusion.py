"""Conclude: end a job that brought no video, and tell whoever dropped its files why.

There are two ways in. The state machine calls when a step failed, and announces what it gets
back. EventBridge calls when the execution is gone, stopped or out of time; then nobody else is
left to announce.
"""

import re
from collections.abc import Callable
from datetime import datetime
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

from dropreel.catalog import ProviderName
from dropreel.errors import (
    ErrorReport,
    ExecutionAborted,
    ExecutionTimedOut,
    RenderCancelled,
    RenderFailed,
    RequestForgotten,
    ResultMissing,
    ResultRefused,
    ResultUnavailable,
    SubmissionUnclear,
    UnexpectedError,
)
from dropreel.events import DetailType, FailedRender, JobSummary, UsedInput, VideoFailed
from dropreel.job import Job
from dropreel.ledger import Attempt, AttemptState, Ledger
from dropreel.observability import logger
from dropreel.provider import Provider

# After these the provider has nothing left to cancel.
_RENDER_OVER = {
    over.__name__
    for over in (
        RenderCancelled,
        RenderFailed,
        RequestForgotten,
        ResultMissing,
        ResultRefused,
        ResultUnavailable,
    )
}


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
    status: Literal["ABORTED", "TIMED_OUT"] = Field(validation_alias=AliasPath("detail", "status"))

    @property
    def report(self) -> ErrorReport:
        if self.status == "ABORTED":
            return ExecutionAborted("Someone stopped the job's execution.").report
        return ExecutionTimedOut("The job's execution ran out of time.").report


ENDING: TypeAdapter[FailedRun | EndedRun] = TypeAdapter(FailedRun | EndedRun)
"""Reads what conclude is called with, whichever way."""


class Videos(Protocol):
    """The videos bucket, as far as conclude needs it."""

    def text(self, bucket: str, key: str) -> str | None: ...

    def written_at(self, bucket: str, key: str) -> datetime | None: ...

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
) -> VideoFailed:
    """Cancel what still can be cancelled, write the error file, and tell what happened.

    Running twice changes nothing: the first error file of an execution stands, which matters when
    an execution is stopped while it concludes. No error file is written beside a video that is
    newer than the execution, its own or that of corrected files.
    """
    failed = _concluded_before(ending, videos, video_bucket) or _conclude(ending, ledger, providers)
    if not _has_newer_video(ending, videos, video_bucket):
        videos.put_json(video_bucket, ending.job.error_key, failed.model_dump_json(indent=2))
    if isinstance(ending, EndedRun):
        bus.announce(DetailType.VIDEO_FAILED, failed)
    return failed


def _concluded_before(
    ending: FailedRun | EndedRun, videos: Videos, video_bucket: str
) -> VideoFailed | None:
    try:
        failed = VideoFailed.model_validate_json(
            videos.text(video_bucket, ending.job.error_key) or ""
        )
    except ValidationError:
        return None
    return failed if failed.execution == ending.execution else None


def _has_newer_video(ending: FailedRun | EndedRun, videos: Videos, video_bucket: str) -> bool:
    written_at = videos.written_at(video_bucket, ending.job.manifest_key)
    return bool(written_at and ending.started_at and written_at >= ending.started_at)


def _conclude(
    ending: FailedRun | EndedRun,
    ledger: Ledger,
    providers: Callable[[ProviderName], Provider],
) -> VideoFailed:
    attempt = ledger.latest(ending.job.id)
    report = _unless_unclear(ending.report, attempt)
    logger.info("Concluding with %s", report.code)
    return VideoFailed(
        error=report,
        job=JobSummary.of(ending.job),
        inputs=UsedInput.all_of(ending.job),
        render=_render(attempt, report, providers),
        execution=ending.execution,
    )


def _unless_unclear(report: ErrorReport, attempt: Attempt | None) -> ErrorReport:
    """An attempt that was left begun may be paid for, whatever it was that ended the job then."""
    if attempt is None or attempt.state is not AttemptState.BEGUN:
        return report
    if report.code == UnexpectedError.__name__:
        return SubmissionUnclear(
            f"Submit was cut off while it called {attempt.provider}: whether the request was "
            "accepted is unknown."
        ).report
    return report.model_copy(update={"advice": SubmissionUnclear.advice})


def _render(
    attempt: Attempt | None,
    report: ErrorReport,
    providers: Callable[[ProviderName], Provider],
) -> FailedRender | None:
    if attempt is None or attempt.state is AttemptState.REFUSED:
        return None
    return FailedRender(
        provider=attempt.provider,
        request_id=attempt.request_id,
        cancelled=_is_cancelled(attempt, report, providers),
    )


def _is_cancelled(
    attempt: Attempt, report: ErrorReport, providers: Callable[[ProviderName], Provider]
) -> bool:
    if report.code in _RENDER_OVER or attempt.request_id is None:
        return report.code == RenderCancelled.__name__
    try:
        return providers(attempt.provider).cancel(attempt.request_id)
    except Exception:  # the person is told all the same
        logger.exception("Request %s could not be cancelled", attempt.request_id)
        return False
