"""Conclude: end a dry run, or one that a step failed in, or whose execution had no success.

Each run has one outcome in the ledger, written once. What conclude does:

| the run's outcome         | its video          | conclude                                      |
| ------------------------- | ------------------ | --------------------------------------------- |
| is written, and sent      |                    | does nothing                                  |
| is not written            | was delivered      | closes the run, writes `Video Ready`          |
| is not written            | was not delivered  | closes the run, ends its request, writes      |
|                           |                    | `Video Failed`                                |
| then, if it is not sent   |                    | gives the slot back, writes the error file of |
|                           |                    | a failure, unless a later job took its place  |

A dry run ends in `Job Checked`, whatever happened to it. It owns no slot and no other file.

The outcome is written as early as possible, so that no later fault of the call loses the reason.
After the state machine's call, its next state announces the outcome. EventBridge (or the sweep)
calls when the execution has ended; then conclude announces it.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from pydantic import AliasPath, AwareDatetime, BaseModel, Field, Json, TypeAdapter, ValidationError

from dropreel.model import errors
from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.errors import ErrorReport
from dropreel.model.events import (
    Announcer,
    Ended,
    FailedRender,
    JobChecked,
    JobSummary,
    OlderVideo,
    StoredFile,
    UsedInput,
    VideoFailed,
    VideoReady,
)
from dropreel.model.job import Job
from dropreel.model.ledger import SAME_START, Attempt, AttemptState, Ledger, Outcome
from dropreel.model.messages import Plan
from dropreel.model.metrics import Meter
from dropreel.model.provider import Provider, Ticket
from dropreel.outcome.announcement import announce
from dropreel.outcome.check import check
from dropreel.outcome.ownership import Owner, is_same_run, owner_of, read
from dropreel.render.attempts import is_account_refusal, summary, total_usd
from dropreel.render.resumption import is_delivered
from dropreel.render.spending import Limits
from dropreel.runtime.log import logger


def _codes(*kinds: type[errors.DropreelError]) -> set[str]:
    return {kind.__name__ for kind in kinds}


# After these the provider has nothing left to cancel, although the attempt is open in the ledger.
_RENDER_OVER = _codes(errors.ResultMissing, errors.ResultRefused, errors.ResultUnavailable)
# After these the provider no longer has the render: no run can wait for it.
_RENDER_GONE = _codes(errors.RenderCancelled, errors.RequestForgotten)
# The provider's own reasons for a lost render. With any other code, our cancelling lost it.
_LOST_THERE = _codes(
    errors.RenderFailed, errors.RenderModerated, errors.RenderRejected, errors.RequestForgotten
)
# These say nothing about the render. The person must know when it goes on at the provider.
_OF_THE_RUN = _codes(
    errors.ExecutionAborted,
    errors.ExecutionTimedOut,
    errors.SettingUnreadable,
    errors.UnexpectedError,
)
# These end a job before its next attempt: all of its attempts came earlier.
_OF_ADMISSION = _codes(errors.PriceUnknown, errors.SpendLimitReached)
_PAID_ADVICE = (
    f"The render may be paid and may still finish, so {errors.RERUN}: it waits for the render, and "
    f"you do not pay again. {errors.PAY_AGAIN}"
)
_WHERE_TO_LOOK = (
    " Your operator finds the failed step in the Step Functions console, and more in the log of "
    "that step."
)


class _LambdaCause(BaseModel):
    """An exception as Lambda reports it; a `DropreelError`'s message is its report."""

    report: Json[ErrorReport] = Field(alias="errorMessage")


class StepError(BaseModel):
    """`$states.errorOutput`: the error as a state machine's Catch sees it."""

    name: str = Field(alias="Error")
    cause: str = Field(default="", alias="Cause")

    @property
    def report(self) -> ErrorReport:
        if ours := read(_LambdaCause, self.cause):
            return ours.report
        # The message of an unforeseen error can hold a URL or a token. It stays in the execution's
        # history and in the log, which only operators read.
        name = self.name if re.fullmatch(r"[\w.]{1,80}", self.name) else "an error"
        return errors.UnexpectedError(
            f"A step failed with {name}, an error that Dropreel does not know."
        ).report


class Ending(BaseModel, ABC, frozen=True):
    """A run that is to be concluded."""

    job: Job
    execution: str = Field(description="The execution's ARN.")
    started_at: AwareDatetime

    @property
    @abstractmethod
    def report(self) -> ErrorReport | None:
        """Why it ended without a video, if it did. None for a dry run that was accepted."""


class CheckedRun(Ending, frozen=True):
    """The state machine's call after prepare has accepted a dry run."""

    checked: Plan

    @property
    def report(self) -> None:
        return None


class FailedRun(Ending, frozen=True):
    """The state machine's call after a step failed."""

    error: StepError

    @property
    def report(self) -> ErrorReport:
        return self.error.report


class EndedRun(Ending, frozen=True):
    """EventBridge's `Step Functions Execution Status Change` after an unhappy end."""

    job: Json[Job] = Field(validation_alias=AliasPath("detail", "input"))
    execution: str = Field(validation_alias=AliasPath("detail", "executionArn"))
    # Milliseconds since 1970: pydantic sees from the size that they are not seconds.
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


_CALL: TypeAdapter[FailedRun | CheckedRun] = TypeAdapter(FailedRun | CheckedRun)


class _EndedExecution(BaseModel):
    """EventBridge's event of any execution, ours or not."""

    input: str = Field(default="", validation_alias=AliasPath("detail", "input"))
    execution: str = Field(validation_alias=AliasPath("detail", "executionArn"))


def ending_in(event: object) -> Ending | None:
    """Read any call of conclude. None for an execution that somebody started by hand: it owns
    nothing of the job's."""
    try:
        ended = _EndedExecution.model_validate(event)
    except ValidationError:
        return _CALL.validate_python(event)
    job = read(Job, ended.input)
    if job is None or not job.is_run_by(ended.execution):
        logger.warning("Not started by us: nothing to conclude", execution=ended.execution)
        return None
    return EndedRun.model_validate(event)


class Videos(Protocol):
    def text(self, bucket: str, key: str) -> str | None: ...

    def has(self, bucket: str, key: str) -> bool: ...

    def put_json(self, bucket: str, key: str, document: str) -> None: ...


class _Attempts(NamedTuple):
    """The attempts of a job that belong to one run."""

    own: tuple[Attempt, ...]
    is_latest_run: bool  # if not, a later run may wait for the open attempt
    sha256: dict[str, str]  # of the files that the run's prepare read, by key

    @classmethod
    def of(cls, job: Job, ledger: Ledger) -> "_Attempts":
        runs, attempts = ledger.runs(job.id), ledger.attempts(job.id)
        run = next((run for run in runs if run.number == job.run), None)
        resumed = run.plan.resume.attempt if run and run.plan and run.plan.resume else None
        own = tuple(made for made in attempts if job.run == made.run or made.number == resumed)
        if not own and not (run and run.plan) and job.run > 1:
            # It asked for no slot: it failed early, or it waited for an earlier run's request.
            own = tuple(
                made
                for made in attempts[-1:]
                if made.request_id and not (job.again and is_delivered(made, job, ledger))
            )
        return cls(
            own,
            is_latest_run=not any(other.number > job.run for other in runs),
            sha256=run.plan.sha256 if run and run.plan else {},
        )


@dataclass(frozen=True)
class Conclusion:
    """How a run ends in which a step failed, or which was stopped, or a dry run."""

    ledger: Ledger
    leave_slot: Callable[[Job], None]
    limits: Callable[[], Limits]
    providers: Callable[[ProviderName], Provider]
    videos: Videos
    video_bucket: str
    bus: Announcer
    meter: Meter
    clock: Callable[[], datetime]

    def conclude(self, ending: Ending) -> Ended:
        """End the run as the table says, and return its outcome's detail. May be repeated.

        No error file replaces a document of a later job of the same stem, and no check file that
        of a later check.
        """
        job, started_at = ending.job, ending.started_at
        outcome = self.ledger.outcome(job, started_at) or self._end(ending)
        if outcome.sent_at:
            logger.info("Announced before", code=outcome.code)
            return outcome.detail
        if not job.dry_run:
            self.leave_slot(job)
        file = _file_of(outcome.detail)
        if file and not self._is_overtaken(ending):
            document = outcome.detail.model_dump_json(indent=2)
            self.videos.put_json(file.bucket, file.key, document)
        if isinstance(ending, EndedRun):
            announce(
                job,
                started_at,
                ending.execution,
                ledger=self.ledger,
                bus=self.bus,
                meter=self.meter,
                clock=self.clock,
            )
        render = outcome.detail.render
        logger.info(
            "Concluded",
            code=outcome.code,
            model=job.model,
            provider=render.provider if render else None,
            attempt=render.attempts[-1].number if render and render.attempts else None,
            estimated_usd=outcome.detail.estimated_usd,
        )
        return outcome.detail

    def _end(self, ending: Ending) -> Outcome:
        """Returns deliver's outcome, if deliver was quicker."""
        job, report = ending.job, ending.report
        detail: Ended
        if job.dry_run or report is None:
            detail = self._checked(ending)
        else:
            self.ledger.close(job, self.clock())  # first: from now on, deliver finishes no copy
            detail = self._delivered(ending) or self._failed(ending, report)
        return self.ledger.end(job, ending.started_at, Outcome(detail=detail), self.clock())

    def _checked(self, ending: Ending) -> JobChecked:
        plan = ending.checked if isinstance(ending, CheckedRun) else None
        offers, refused = check(plan, self.limits(), self.clock()) if plan else ((), None)
        error = _with_open_request(ending.report, None) if ending.report else refused
        voice = plan.audio_facts if plan else None
        logger.info("Checked: %s", error.code if error else "accepted")
        return JobChecked(
            accepted=error is None,
            error=error,
            job=JobSummary.of(ending.job, ending.started_at),
            inputs=UsedInput.all_of(ending.job, plan.sha256 if plan else None),
            ignored=ending.job.ignored,
            changes=plan.changes if plan else (),
            offers=offers,
            voice_seconds=round(voice.duration_seconds, 3) if voice else None,
            estimated_usd=offers[0].estimated_usd if offers else None,
            check_file=self._file(ending, ending.job.check_key),
            ended_at=self.clock(),
            execution=ending.execution,
        )

    def _failed(self, ending: Ending, report: ErrorReport) -> VideoFailed:
        attempts = _Attempts.of(ending.job, self.ledger)
        report = _with_unclear_submission(report, attempts.own)
        latest = self._latest_ended(ending.job, attempts, report)
        render = _failed_render(attempts, latest, report) if latest else None
        return VideoFailed(
            error=_with_earlier_refusals(_with_open_request(report, latest), attempts.own),
            job=JobSummary.of(ending.job, ending.started_at),
            inputs=UsedInput.all_of(ending.job, attempts.sha256),
            render=render,
            estimated_usd=total_usd(render.attempts if render else ()),
            error_file=self._file(ending, ending.job.error_key),
            older_video=self._older_video(ending),
            ended_at=self.clock(),
            execution=ending.execution,
        )

    def _latest_ended(self, job: Job, attempts: _Attempts, report: ErrorReport) -> Attempt | None:
        """The run's latest attempt, the only one that can be open, with its request ended."""
        if not attempts.own:
            return None
        latest = attempts.own[-1]
        if attempts.is_latest_run:
            self._end_request(job, latest, report)
        # Read again, so that a repeated call reports the same as one that was cut off after this.
        return self.ledger.find(job.id, latest.number) or latest

    def _end_request(self, job: Job, attempt: Attempt, report: ErrorReport) -> None:
        """Cancel the request, if it is open and can be cancelled. An attempt whose request is gone
        at the provider is lost: then a job that is run again may submit a new one."""
        ticket = attempt.ticket
        if ticket is None or report.code in _RENDER_OVER:
            return
        if report.code in _RENDER_GONE or self._cancel(ticket):
            self.ledger.lose(job.id, ticket, report.code, report.message)

    def _cancel(self, ticket: Ticket) -> bool:
        try:
            return self.providers(ticket.provider).cancel(ticket)
        except Exception:  # the failure is announced all the same
            logger.exception("Request %s could not be cancelled", ticket.request_id)
            return False

    def _delivered(self, ending: Ending) -> VideoReady | None:
        """The manifest of this execution's video, under the plain name or the job's own."""
        for key in (ending.job.manifest_key, ending.job.own_manifest_key):
            ready = read(VideoReady, self._text(key))
            if ready and is_same_run(ready.job, ending.job, ending.started_at):
                return ready
        return None

    def _file(self, ending: Ending, key: str) -> StoredFile | None:
        return None if self._is_overtaken(ending) else StoredFile(bucket=self.video_bucket, key=key)

    def _older_video(self, ending: Ending) -> OlderVideo | None:
        """The video at the plain name, if it is there and not of a later job."""
        manifest = self._text(ending.job.manifest_key)
        video = OlderVideo.in_manifest(manifest)
        if video is None or _is_later(manifest, ending):
            return None
        return video if self.videos.has(self.video_bucket, ending.job.video_key) else None

    def _is_overtaken(self, ending: Ending) -> bool:
        """Whether the plain names hold a document of a later job, or of a later run of this one.
        A check and a render of one stem do not overtake each other."""
        job = ending.job
        keys = (job.check_key,) if job.dry_run else (job.manifest_key, job.error_key)
        return any(_is_later(self._text(key), ending) for key in keys)

    def _text(self, key: str) -> str | None:
        return self.videos.text(self.video_bucket, key)


def _file_of(detail: Ended) -> StoredFile | None:
    """The file that conclude writes about it."""
    match detail:
        case VideoFailed():
            return detail.error_file
        case JobChecked():
            return detail.check_file
        case VideoReady():
            return None


def needs_conclusion(outcome: Outcome | None) -> bool:
    """Whether conclude has work for an execution that ended without success."""
    return outcome is None or outcome.sent_at is None


def _is_later(document: str | None, ending: Ending) -> bool:
    """Whether a document is of a later job, or of a later run of this one."""
    owner = owner_of(document)
    if owner is None:
        return False
    return owner.came_after(ending.job, ending.started_at) or _is_later_run(owner, ending)


def _is_later_run(owner: Owner, ending: Ending) -> bool:
    return owner.id == ending.job.id and owner.started_at - ending.started_at >= SAME_START


def _with_open_request(report: ErrorReport, latest: Attempt | None) -> ErrorReport:
    """Say what became of the request. One that we could not cancel may finish and be paid for."""
    if latest and _is_cancelled_for(report, latest):
        message = f"{report.message} Its request was still queued, and is cancelled."
        is_late = report.code == errors.RenderTimedOut.__name__  # advises that it may still finish
        advice = errors.ExecutionAborted.advice if is_late else report.advice
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
    """Whether we cancelled it for this reason. The provider's own reasons speak for themselves."""
    is_ours = report.code not in _LOST_THERE | _RENDER_GONE
    return is_ours and attempt.state is AttemptState.LOST and attempt.code == report.code


def _with_earlier_refusals(report: ErrorReport, attempts: tuple[Attempt, ...]) -> ErrorReport:
    """Name each account that refused: a person would else correct only the last one."""
    is_of_admission = report.code in _OF_ADMISSION
    earlier = attempts if is_of_admission else attempts[:-1]
    refused = dict.fromkeys(  # a closed provider may have refused often
        f"{TITLES[made.provider]} ({made.code})"
        for made in earlier
        if is_account_refusal(made.code)
    )
    if not (is_of_admission or is_account_refusal(report.code)) or not refused:
        return report
    message = f"{report.message} Refused before by {', '.join(refused)}."
    return report.model_copy(update={"message": message})


def _with_unclear_submission(report: ErrorReport, attempts: tuple[Attempt, ...]) -> ErrorReport:
    """A submission with unknown outcome may be paid for, whatever ended the job after it."""
    if not attempts or attempts[-1].state is not AttemptState.BEGUN:
        return report
    if report.code == errors.UnexpectedError.__name__:
        return errors.SubmissionUnclear(
            f"Submit was cut off while it called {TITLES[attempts[-1].provider]}: whether the "
            "request was accepted is unknown."
        ).report
    return report.model_copy(update={"advice": errors.SubmissionUnclear.advice, "retryable": False})


def _failed_render(attempts: _Attempts, latest: Attempt, report: ErrorReport) -> FailedRender:
    return FailedRender(
        provider=latest.provider,
        request_id=latest.request_id,
        cancelled=latest.state is AttemptState.LOST and latest.code not in _LOST_THERE,
        attempts=tuple(
            summary(attempt, report.code, report.message)
            for attempt in (*attempts.own[:-1], latest)
        ),
    )
