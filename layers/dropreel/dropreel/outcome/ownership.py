"""Which of two jobs with one stem owns the plain names: the one that was dropped later.

A corrected file makes a new job while the old one still renders, and either can end first, or run
again much later. So each manifest and error file names its job and the time of its drop.
"""

from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from pydantic import AwareDatetime, BaseModel, ValidationError

from dropreel.model.events import JobSummary
from dropreel.model.job import Job
from dropreel.model.ledger import SAME_START

M = TypeVar("M", bound=BaseModel)


class Owner(BaseModel):
    """A document's job. One of incomplete uploads has neither id nor start."""

    id: str
    started_at: AwareDatetime
    dropped_at: AwareDatetime | None = None

    def came_after(self, job: Job, started_at: datetime) -> bool:
        """Whether it is another, later job. Of two at one time, the greater id is the later."""
        theirs, ours = self.dropped_at or self.started_at, job.dropped_at or started_at
        return self.id != job.id and (theirs, self.id) > (ours, job.id)


class AnsweredDrop(NamedTuple):
    """The latest drop of an output, when it made no job of its own: another job answers it."""

    job_id: str
    dropped_at: datetime


class _Document(BaseModel):
    job: Owner


class ErrorFiles(Protocol):
    def text(self, bucket: str, key: str) -> str | None: ...

    def written_at(self, bucket: str, key: str) -> datetime | None: ...

    def delete(self, bucket: str, key: str) -> None: ...


def remove_error_file(files: ErrorFiles, bucket: str, job: Job, started_at: datetime) -> None:
    """Remove the error file of the job's output, unless it is of something later than the job."""
    error_file = files.text(bucket, job.error_key)
    if error_file is None:  # deleting it would leave a delete marker in a versioned bucket
        return
    if owner := owner_of(error_file):
        is_later = owner.came_after(job, started_at)
    else:  # of incomplete uploads, which have no job and no start
        written_at, since = files.written_at(bucket, job.error_key), job.dropped_at or started_at
        is_later = bool(written_at and written_at > since)
    if not is_later:
        files.delete(bucket, job.error_key)


def read(kind: type[M], document: str | None) -> M | None:
    """None when there is no document, or it is of another kind."""
    try:
        return kind.model_validate_json(document or "")
    except ValidationError:
        return None


def owner_of(document: str | None) -> Owner | None:
    """None when there is no document, or it names no job that started."""
    owned = read(_Document, document)
    return owned.job if owned else None


def is_same_run(summary: JobSummary, job: Job, started_at: datetime) -> bool:
    """Whether a document is of this execution: after 90 days another one may have its name."""
    has_name = (summary.id, summary.run) == (job.id, job.run)
    return has_name and abs(summary.started_at - started_at) < SAME_START
