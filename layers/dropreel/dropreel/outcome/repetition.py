"""Equal contents: a job is not rendered if its video is there already, or is being made.

Equal are the bytes of the job's files and of the `_defaults.json` above them, by their SHA-256 as
Prepare read them. An ETag can only save the reading: equal bytes can have two ETags. What another
job makes for the same output counts first: its video would replace the one that is there.

A job that an operator runs again is rendered all the same: it was asked for.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from pydantic import AwareDatetime, BaseModel

from dropreel.model.errors import InputRejected, Reason
from dropreel.model.events import VideoReady
from dropreel.model.job import Job, Role
from dropreel.model.messages import Plan, Repetition
from dropreel.model.uploads import ObjectVersion
from dropreel.outcome.ownership import ErrorFiles, read, remove_error_file

_MAX_RUN = timedelta(days=91)  # a day longer than an execution; its outcome is kept for longer


class _Content(Protocol):
    """An input of a job, or of a manifest."""

    @property
    def role(self) -> Role: ...

    @property
    def key(self) -> str: ...

    @property
    def version_id(self) -> str: ...

    @property
    def etag(self) -> str | None: ...

    @property
    def sha256(self) -> str | None: ...


class Maker(BaseModel, frozen=True):
    """The job that was last rendered for an output."""

    job_id: str
    run: int
    files: str
    """A digest of its contents and their keys: who deletes one of them withdraws the job."""
    began_at: AwareDatetime


class Makers(Protocol):
    def maker(self, job: Job) -> Maker | None:
        """The maker of this job's output."""

    def is_under_way(self, maker: Maker) -> bool:
        """Whether its run has no outcome yet."""

    def note_maker(self, job: Job, maker: Maker, instead_of: Maker | None) -> bool:
        """False when the maker is another one by now."""

    def note_drop(self, job: Job, answered_by: str) -> None:
        """The job of that id answers this drop, the latest of its output."""


class Videos(ErrorFiles, Protocol):
    def current_versions(self, bucket: str, *prefixes: str) -> Iterable[ObjectVersion]: ...


class MakerChanged(Exception):
    """Another job of the same output came between. A retry sees it."""


@dataclass(frozen=True)
class Repetitions:
    makers: Makers
    videos: Videos
    video_bucket: str
    now: Callable[[], datetime]

    def plan(self, job: Job, prepare: Callable[[], Plan]) -> Plan | Repetition:
        """The plan of `prepare`, or the job that answers this one. Raises `MakerChanged`."""
        before = self.makers.maker(job)
        if self._is_repeated(before, job):
            return prepare()
        other = self._under_way(before, job)
        is_wish = job.run > 1 or bool(job.problems)
        ready = None if other or is_wish else self._delivered(job)
        if ready and _have_same_etags(ready.inputs, job.inputs):
            return self._answered(job, ready.job.id)
        plan = prepare()
        contents = contents_of(job.inputs, plan.sha256)
        if ready and contents_of(ready.inputs) == contents:
            return self._answered(job, ready.job.id)
        files = contents_of(job.inputs, plan.sha256, with_keys=True)
        if not is_wish and other and other.files == files:
            return self._answered(job, other.job_id)
        maker = Maker(job_id=job.id, run=job.run, files=files, began_at=self.now())
        if not self.makers.note_maker(job, maker, before):
            raise MakerChanged(job.id)
        return plan

    def _is_repeated(self, maker: Maker | None, job: Job) -> bool:
        """Whether it is another call for the run that is the maker."""
        if maker is None or (maker.job_id, maker.run) != (job.id, job.run):
            return False
        return self.now() - maker.began_at <= _MAX_RUN

    def _under_way(self, maker: Maker | None, job: Job) -> Maker | None:
        """The maker, if it is another job that has not ended."""
        if maker is None or maker.job_id == job.id or self.now() - maker.began_at > _MAX_RUN:
            return None
        return maker if self.makers.is_under_way(maker) else None

    def _delivered(self, job: Job) -> VideoReady | None:
        """The manifest of the output, if its video is there. A copy of the video counts, too."""
        manifest = self.videos.text(self.video_bucket, job.manifest_key)
        if manifest == "":
            raise InputRejected((_unreadable(job.manifest_key),))
        ready = read(VideoReady, manifest)
        if ready is None:
            return None
        key = ready.video.key
        current = next(iter(self.videos.current_versions(self.video_bucket, key)), None)
        is_there = current and (current.key, current.size_bytes) == (key, ready.video.size_bytes)
        return ready if is_there else None

    def _answered(self, job: Job, by: str) -> Repetition:
        self.makers.note_drop(job, answered_by=by)
        remove_error_file(self.videos, self.video_bucket, job, job.dropped_at or self.now())
        return Repetition(same_as=by)


def _unreadable(key: str) -> Reason:
    return Reason(
        file=key,
        rule="a manifest of the video of this name that can be read, to compare its contents",
        found="empty, archived, or encrypted with a key that Dropreel cannot use",
        cure="Delete this file in the videos bucket to have the video made again, or restore it. "
        "Then drop one of the job's own files again.",
    )


def contents_of(
    inputs: Iterable[_Content],
    sha256: Mapping[str, str] | None = None,
    *,
    with_keys: bool = False,
) -> str:
    """A digest, equal for equal contents. A file that was not read is equal to nothing."""
    known = sha256 or {}
    contents = [
        (
            one.role,
            one.sha256 or known.get(one.key) or f"{one.key} {one.version_id}",
            one.key if with_keys else "",
        )
        for one in inputs
    ]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _have_same_etags(some: Iterable[_Content], others: Iterable[_Content]) -> bool:
    etags, other_etags = ([(one.role, one.etag) for one in inputs] for inputs in (some, others))
    return etags == other_etags and all(etag for _, etag in etags)
