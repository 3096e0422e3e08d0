"""One job's whole story: what happened to each of its runs and when, and where its files are."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

from botocore.exceptions import ClientError
from pydantic import AwareDatetime, BaseModel, Field

from dropreel.model.catalog import TITLES
from dropreel.model.errors import ErrorReport
from dropreel.model.events import (
    DeliveredVideo,
    JobChecked,
    StoredFile,
    VideoFailed,
    VideoReady,
)
from dropreel.model.job import Job, execution_name
from dropreel.model.ledger import Attempt, AttemptState, ListedRun, Outcome, Run
from operate.choice import Execution, NoSuchRun
from operate.reports import history
from operate.reports.console import Console
from operate.reports.history import LogLine, Visit
from operate.reports.jobs import JobRow, Runs, ended_row, open_rows
from operate.stack import DeployedStack
from operate.terminal import harmless

Record = tuple[list[Run], list[Attempt], dict[int, Outcome]]

_NAME: Final = re.compile(r"[a-z0-9-]{1,80}")
_AROUND: Final = timedelta(minutes=15)


class Moment(BaseModel, frozen=True):
    at: AwareDatetime
    what: str = Field(description="One word: dropped, started, prepared, queued, admitted, ...")
    words: str


class File(BaseModel, frozen=True):
    what: str
    bucket: str
    key: str
    version_id: str | None = None
    link: str = Field(description="To the AWS console.")


class RunStory(BaseModel, frozen=True):
    now: JobRow = Field(description="As in the table of jobs.")
    execution: str
    link: str = Field(description="Of the execution, in the AWS console.")
    moments: tuple[Moment, ...]
    error: ErrorReport | None = None


class Story(BaseModel, frozen=True):
    """The answer, as `job --json` gives it."""

    job_id: str
    name: str
    model: str
    runs: tuple[RunStory, ...]
    files: tuple[File, ...]
    log: tuple[LogLine, ...] = ()
    log_note: str | None = Field(
        default=None, description="Why the log is not there, or not all of it."
    )
    log_groups: dict[str, str] = Field(description="Links to the AWS console, by step.")


@dataclass(frozen=True)
class Teller:
    """Tells the stories of a stack's jobs."""

    deployed: DeployedStack
    runs: Runs
    machine_arn: str
    upload_bucket: str
    visits: Callable[[str, str], Sequence[Visit]] = history.visits
    log_lines: Callable[[str, str, datetime, datetime], Sequence[LogLine]] = history.log_lines

    def story(self, wanted: str, now: datetime, *, with_log: bool = True) -> Story:
        """`wanted` is a job's id, the name of an execution, or folder and name as below the prefix.
        Raises `NoSuchRun`."""
        job_id, record = self._found(wanted)
        if job_id is None:
            raise NoSuchRun(
                f"There is no job {harmless(wanted)}: give its id, which is `job.id` in its error "
                "file, or folder and name, such as team/anna."
            )
        recorded, attempts, outcomes = record or self.deployed.record(job_id)
        known = {run.number: run for run in recorded}
        numbers = {1, *known, *outcomes, *(made.run for made in attempts)}
        told = [
            run
            for number in (*sorted(numbers), max(numbers) + 1)  # which may be in Prepare
            if (run := self._run(job_id, number, known.get(number), outcomes.get(number), attempts))
        ]
        if not told:
            raise NoSuchRun(f"Nothing is kept of the job {job_id}: its records are 180 days old.")
        jobs, stories = [job for job, _ in told], tuple(story for _, story in told)
        console = Console(self.machine_arn)
        stack = self.machine_arn.rpartition(":")[2].removesuffix("-render")
        log, note = self._log(stack, job_id, stories, now) if with_log else ((), None)
        return Story(
            job_id=job_id,
            name=stories[-1].now.name,
            model=stories[-1].now.model,
            runs=stories,
            files=tuple(_files(jobs, outcomes, console)),
            log=tuple(log),
            log_note=note,
            log_groups={
                step: console.log_group(history.log_group(stack, step)) for step in history.STEPS
            },
        )

    def _found(self, wanted: str) -> tuple[str | None, Record | None]:
        """The job's id, and its record if that was read to find it."""
        if _NAME.fullmatch(wanted):
            record = self.deployed.record(wanted)
            if any(record):
                return wanted, record
            if execution := self.deployed.execution(wanted):
                return execution.job.id, None
        folder, slash, stem = wanted.strip("/").rpartition("/")
        output = Job(
            id="", bucket=self.upload_bucket, folder=folder + slash, stem=stem, model="", inputs=()
        )
        return self.deployed.last_drop(output), None

    def _run(
        self,
        job_id: str,
        number: int,
        recorded: Run | None,
        outcome: Outcome | None,
        attempts: Sequence[Attempt],
    ) -> tuple[Job | None, RunStory] | None:
        name = execution_name(job_id, number)
        execution = self.deployed.execution(name)
        plan = recorded.plan if recorded else None
        job = execution.job if execution else plan.job if plan else None
        if not (job or outcome):
            return None
        visits = self.visits(self.machine_arn, name) if execution else ()
        own = [
            made
            for made in attempts
            if made.run == number or (plan and plan.resume and plan.resume.attempt == made.number)
        ]
        moments = [
            *_dropped(job, execution),
            *moments_of(visits),
            *_of_record(recorded, visits),
            *(moment for made in own for moment in _of_attempt(made)),
            *_of_outcome(outcome),
        ]
        detail = outcome.detail if outcome else None
        return job, RunStory(
            now=self._row(job, execution, recorded, outcome),
            execution=name,
            link=Console(self.machine_arn).execution(history.execution_arn(self.machine_arn, name)),
            moments=tuple(sorted(moments, key=lambda moment: moment.at)),
            error=detail.error if isinstance(detail, VideoFailed | JobChecked) else None,
        )

    def _row(
        self,
        job: Job | None,
        execution: Execution | None,
        recorded: Run | None,
        outcome: Outcome | None,
    ) -> JobRow:
        if outcome:
            return ended_row(ListedRun.ended(outcome))
        assert job
        starts = [execution and execution.started_at, recorded and recorded.started_at]
        started_at = next((start for start in starts if start), datetime.now(UTC))
        listed = ListedRun.open(job, started_at)
        queues = self.runs.queues(datetime.now(UTC)).values()
        places = {
            name: (queue, place) for queue in queues for place, name in enumerate(queue.names, 1)
        }
        return next(open_rows(self.runs, [listed], places))

    def _log(
        self, stack: str, job_id: str, stories: Sequence[RunStory], now: datetime
    ) -> tuple[Sequence[LogLine], str | None]:
        starts = [story.now.started_at for story in stories]
        ends = [story.now.ended_at or now for story in stories]
        try:
            lines = self.log_lines(stack, job_id, min(starts) - _AROUND, max(ends) + _AROUND)
        except ClientError as error:
            return (), f"The logs cannot be read ({error.response['Error']['Code']})."
        is_cut = len(lines) >= history.MAX_LINES
        return lines, f"The last {history.MAX_LINES} lines." if is_cut else None


# Moments


def _dropped(job: Job | None, execution: Execution | None) -> Iterator[Moment]:
    if job and job.dropped_at and job.run == 1:
        names = ", ".join(
            f"{given.key.rpartition('/')[2]} ({_size(given.size_bytes)})" for given in job.inputs
        )
        yield Moment(at=job.dropped_at, what="dropped", words=names)
    if execution:
        yield Moment(at=execution.started_at, what="started", words=f"run {execution.job.run}")


def moments_of(visits: Sequence[Visit]) -> Iterator[Moment]:
    """Polls in one line; of the other steps the faults, and what no record has."""
    for step, group in groupby(visits, key=lambda visit: visit.step):
        each = list(group)
        faults = sum((Counter(visit.faults) for visit in each), Counter[str]())
        if faults:
            words = ", ".join(f"{error} ({times} times)" for error, times in faults.items())
            yield Moment(at=each[-1].entered_at, what="faults", words=f"{step}: {words}")
        if step == "Admit":
            yield Moment(at=each[0].entered_at, what="queued", words="asks for a slot")
        if step == "Deliver":
            yield Moment(at=each[0].entered_at, what="copies", words="the video into the bucket")
    polls = [visit for visit in visits if visit.step == "Poll"]
    if polls:
        times = f"{len(polls)} times" if len(polls) > 1 else "once"
        yield Moment(at=polls[-1].entered_at, what="polled", words=f"{times}, now the last time")


def _of_record(recorded: Run | None, visits: Sequence[Visit]) -> Iterator[Moment]:
    if recorded is None:
        return
    prepared = [visit.left_at for visit in visits if visit.step == "Prepare" and visit.left_at]
    at = prepared[-1] if prepared else recorded.started_at
    if recorded.plan and at:
        plan = recorded.plan
        offers = ", ".join(
            dict.fromkeys(f"{TITLES[one.provider]} ({one.endpoint})" for one in plan.route)
        )
        changes = " ".join(plan.changes) or "Nothing was changed."
        yield Moment(at=at, what="prepared", words=f"{changes} For {offers}.")
    if recorded.admitted_at:
        start = recorded.started_at or recorded.admitted_at
        seconds = round((recorded.admitted_at - start).total_seconds())
        words = f"has a slot, {timedelta(seconds=seconds)} hours after its start"
        yield Moment(at=recorded.admitted_at, what="admitted", words=words)
    if recorded.rendered_at:
        yield Moment(at=recorded.rendered_at, what="rendered", words="gives its slot back")
    if recorded.closed_at:
        yield Moment(at=recorded.closed_at, what="concluded", words="ends what is open")


def _of_attempt(made: Attempt) -> Iterator[Moment]:
    provider = TITLES.get(made.provider, made.provider)
    price = "price not known" if made.estimated_usd is None else f"about {made.estimated_usd} USD"
    words = f"attempt {made.number} to {provider} ({made.endpoint}), {price}"
    if made.code:
        words += f": {made.state}, {made.code}. {made.message}"
    elif made.state is AttemptState.BEGUN:
        words += ": no answer is recorded"
    yield Moment(at=made.begun_at, what="submitted", words=words)
    if made.accepted_at:
        charged = "" if made.actual_usd is None else f", charged {made.actual_usd} USD"
        words = f"by {provider} as request {made.request_id}{charged}"
        yield Moment(at=made.accepted_at, what="accepted", words=words)


def _of_outcome(outcome: Outcome | None) -> Iterator[Moment]:
    if outcome is None:
        return
    detail = outcome.detail
    if isinstance(detail, VideoReady):
        video = detail.video
        seconds = f"{video.duration_seconds:g} s, " if video.duration_seconds else ""
        size = f"{video.width} × {video.height}, {_size(video.size_bytes)}"
        words = f"{video.key} ({seconds}{size})"
        yield Moment(at=detail.ended_at, what="delivered", words=words)
    elif isinstance(detail, VideoFailed):
        words = f"{detail.error.code}: {detail.error.message}"
        yield Moment(at=detail.ended_at, what="failed", words=words)
    elif isinstance(detail, JobChecked):
        error = detail.error
        words = f"refused: {error.code}: {error.message}" if error else "accepted"
        yield Moment(at=detail.ended_at, what="checked", words=words)
    if outcome.sent_at:
        yield Moment(at=outcome.sent_at, what="announced", words=f"event {outcome.detail_type}")


def _files(
    jobs: Sequence[Job | None], outcomes: Mapping[int, Outcome], console: Console
) -> Iterator[File]:
    job = next((job for job in reversed(jobs) if job), None)
    for given in job.inputs if job else ():
        yield File(
            what=given.role,
            bucket=job.bucket if job else "",
            key=given.key,
            version_id=given.version_id,
            link=console.file(job.bucket if job else "", given.key),
        )
    if not outcomes:
        return
    detail = outcomes[max(outcomes)].detail
    kept: dict[str, DeliveredVideo | StoredFile | None] = {}
    if isinstance(detail, VideoReady):
        kept = {"video": detail.video, "manifest": detail.manifest}
    elif isinstance(detail, VideoFailed):
        kept = {"error file": detail.error_file}
    elif isinstance(detail, JobChecked):
        kept = {"check file": detail.check_file}
    for what, file in kept.items():
        if file:
            link = console.file(file.bucket, file.key)
            yield File(what=what, bucket=file.bucket, key=file.key, link=link)


def _size(size_bytes: int) -> str:
    if size_bytes < 1_000_000:
        return f"{max(1, round(size_bytes / 1000))} kB"
    return f"{size_bytes / 1_000_000:.1f} MB"
