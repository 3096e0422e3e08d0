"""Which of two jobs of one stem the plain names belong to: the one that was dropped later.

A corrected file makes a new job while the old one still renders, and either may end first, or be
run again much later. So each manifest and error file says which job it is of and when that was
dropped.
"""

from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ValidationError

from dropreel.model.events import JobSummary
from dropreel.model.job import Job

# The context object and the status event tell the same moment, to the millisecond at best.
_SAME_START = timedelta(seconds=1)


class Owner(BaseModel):
    """The job that a document is of, as far as it says so, whichever version wrote it."""

    id: str
    started_at: AwareDatetime | None = None
    dropped_at: AwareDatetime | None = None

    def came_after(self, job: Job, started_at: datetime | None) -> bool:
        """Whether it is another job, and the later one; of two at once, the last by name."""
        theirs, ours = self.dropped_at or self.started_at, job.dropped_at or started_at
        if self.id == job.id or theirs is None or ours is None:
            return False
        return (theirs, self.id) > (ours, job.id)


class _Document(BaseModel):
    job: Owner


def owner_of(document: str | None) -> Owner | None:
    """None when there is no document, or one that is not of a job."""
    if document is None:
        return None
    try:
        return _Document.model_validate_json(document).job
    except ValidationError:
        return None


def is_same_run(told: JobSummary, job: Job, started_at: datetime | None) -> bool:
    """Whether a document is of this very execution: after 90 days a run's name is free again."""
    if (told.id, told.run) != (job.id, job.run):
        return False
    if told.started_at is None or started_at is None:
        return True
    return abs(told.started_at - started_at) < _SAME_START
