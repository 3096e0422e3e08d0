"""Intake: finds the job that an upload belongs to, and starts it once nothing is missing.

Each call lists the bucket anew. S3 lists with strong consistency, so the last call sees all files.
Intake notes the uploads that a job was made of: no late event, and no change of a folder's defaults
or a parameter, starts a second job of them. It also notes uploads that were answered without a job.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Protocol

from pydantic import BaseModel, ValidationError

from dropreel.inbox import job_file
from dropreel.inbox.messages import MessageQueue, SeenUpload
from dropreel.inbox.pairing import Group, Name, name_of
from dropreel.inbox.pending_job import PendingJob, pinned
from dropreel.model.events import (
    Announcer,
    DetailType,
    IncompleteJob,
    IncompleteUpload,
    OlderVideo,
    StoredFile,
    UploadIncomplete,
)
from dropreel.model.job import INBOX, Input, Job, Role, error_key, manifest_key, video_key
from dropreel.model.uploads import ObjectVersion
from dropreel.runtime.log import logger

MIN_DELAY_SECONDS = 15
MAX_DELAY_SECONDS = 900  # SQS: the longest that a message can be delayed

# So many unknown endings can share a stem (`shot.0001`, `shot.0002`) that their names would not
# fit into an event.
MAX_LISTED = 20


class Storage(Protocol):
    def current_versions(self, bucket: str, prefix: str) -> Iterable[ObjectVersion]: ...

    def read(self, bucket: str, pinned: Input) -> bytes: ...

    def text(self, bucket: str, key: str) -> str | None: ...

    def has(self, bucket: str, key: str) -> bool: ...

    def put_json(self, bucket: str, key: str, document: str) -> None: ...


class JobStarter(Protocol):
    def start(self, job: Job) -> None: ...


class UsedUploads(Protocol):
    def claim(self, fingerprint: str, job: Job) -> Job:
        """Claim these uploads for `job`. Returns the job that holds the claim."""

    def is_answered(self, bucket: str, key: str, version_id: str) -> bool:
        """Whether it has a job, or needs none."""

    def note(self, job_id: str, bucket: str, key: str, version_id: str) -> None:
        """A job was started with this upload."""

    def note_answered(self, bucket: str, key: str, version_id: str) -> None:
        """It needs no job. Changes nothing when it has one."""

    def note_used(self, bucket: str, key: str, version_id: str) -> None:
        """A job of another name uses it. Its own job may still come."""

    def was_used(self, bucket: str, key: str, version_id: str) -> bool:
        """Whether a job of another name uses it."""

    def note_drop(self, job: Job) -> None:
        """The job is the latest drop of its output, unless a later one is noted."""


@dataclass(frozen=True)
class Intake:
    storage: Storage
    executions: JobStarter
    used: UsedUploads
    queue: MessageQueue
    bus: Announcer
    now: Callable[[], datetime]
    model: str
    video_bucket: str
    incomplete_after: timedelta
    shared_folders: tuple[str, ...] = ()
    """Below `inbox/`, ending in `/`. Every job may name files in them."""

    def take_in(self, seen: SeenUpload) -> None:
        """Start the upload's job, or look again later, or announce that it is incomplete.

        May be called in any order and any number of times for one upload.
        """
        name = name_of(seen.key)
        logger.append_keys(key=seen.key, folder=name.folder if name else None)
        if name is None:
            logger.info("Not a file of a job: ignored")
        elif name.role is Role.DEFAULTS:
            if upload := self._find(seen.bucket, seen.key):
                self.used.note_answered(seen.bucket, upload.key, upload.version_id)
            logger.info("Defaults for later drops")
        else:
            self._take_in_upload(name, seen)

    def _take_in_upload(self, name: Name, seen: SeenUpload) -> None:
        listed_at = self.now()  # before the listing: a later time means a newer listing
        group = Group.around(name, self._listing(name, seen.bucket))
        upload = next((upload for upload in group.uploads if upload.key == seen.key), None)
        if upload is None or seen.version_id not in (None, upload.version_id):
            logger.info("Deleted or replaced: the new version has its own event")
            return
        if self.used.is_answered(seen.bucket, seen.key, upload.version_id):
            logger.info("In a job or answered already: nothing to do")
            return
        seen = seen.model_copy(update={"version_id": upload.version_id})
        if seen.swept and self._has_outcome(name, seen):
            logger.info("Its job has ended: nothing to do")
            return
        pending_job = self._pending_job(name, group, seen.bucket)
        face = pending_job.inherited.choices.files.get(Role.IMAGE)
        if group.own == (upload,) and face == seen.key:
            logger.info("An avatar's face: needs no partner")
            self._note_answered(seen)
        elif pending_job.is_ready:
            self._start(pending_job, name, seen, listed_at)
        else:
            self._wait(pending_job, seen)

    def _has_outcome(self, name: Name, seen: SeenUpload) -> bool:
        """Whether a manifest or an error file names this version. Then it is noted accordingly.

        The second guard after the notes: no sweep may pay twice when an upload's notes are lost.
        """
        pin = _Pinned(key=seen.key, version_id=seen.version_id or "")
        for key in (manifest_key(name.folder, name.stem), error_key(name.folder, name.stem)):
            outcome = self._outcome(key)
            if outcome.job and outcome.job.id and pin in outcome.inputs:
                for used in outcome.inputs:
                    if _is_own(name, used.key):
                        self.used.note(outcome.job.id, seen.bucket, used.key, used.version_id)
                return True
            if pin in outcome.uploads:
                self._note_answered(seen)
                return True
        return False

    def _outcome(self, key: str) -> "_Outcome":
        try:
            return _Outcome.model_validate_json(self.storage.text(self.video_bucket, key) or "{}")
        except ValidationError:  # not written by Dropreel
            return _Outcome()

    def _note_answered(self, seen: SeenUpload) -> None:
        if seen.version_id is not None:
            self.used.note_answered(seen.bucket, seen.key, seen.version_id)

    # Reading

    def _listing(self, name: Name, bucket: str) -> Iterator[ObjectVersion]:
        """The uploads that may belong to the name: few, even in a large folder."""
        if not name.ending and (alone := self._find(bucket, name.base)):
            yield alone
        yield from self.storage.current_versions(bucket, f"{name.base}.")

    def _find(self, bucket: str, key: str) -> ObjectVersion | None:
        """The upload at a key. A key lists first among all keys that begin with it."""
        listed = self.storage.current_versions(bucket, key)
        return next(takewhile(lambda upload: upload.key == key, listed), None)

    def _pending_job(self, name: Name, group: Group, bucket: str) -> PendingJob:
        own = job_file.combined(
            [
                (upload.key, self._parsed(role, bucket, upload))
                for role in (Role.OPTIONS, Role.PROMPT)
                for upload in group.of(role)
            ]
        )
        defaults = [
            (upload, self._parsed(Role.DEFAULTS, bucket, upload))
            for key in name.defaults_keys
            if (upload := self._find(bucket, key))
        ]
        inherited = job_file.nearest_wins(parsed for _, parsed in defaults)
        named = {*own.choices.files.values(), *inherited.choices.files.values()}
        return PendingJob(
            bucket=bucket,
            group=group,
            own=own,
            inherited=inherited,
            defaults=tuple(upload for upload, _ in defaults),
            found={key: upload for key in named if (upload := self._find(bucket, key))},
            deployed_model=self.model,
        )

    def _parsed(self, role: Role, bucket: str, upload: ObjectVersion) -> job_file.Parsed:
        if upload.size_bytes > job_file.MAX_DOCUMENT_BYTES:
            return job_file.too_large(upload.key, upload.size_bytes)
        content = self.storage.read(bucket, pinned(role, upload))
        return job_file.parse(role, upload.key, content, self.shared_folders)

    # Starting

    def _start(
        self, pending_job: PendingJob, name: Name, seen: SeenUpload, listed_at: datetime
    ) -> None:
        """Claim, start, note. After a crash in between, a retry starts the job of the first claim.

        The claim decides between two calls that see the same uploads and different defaults.
        """
        is_passed_over = name.unusable_as and seen.key not in {
            picture.key for picture in pending_job.of(Role.IMAGE)
        }
        if name.role is None or is_passed_over:
            logger.info("Not part of the job of this name: ignored")
            self._note_answered(seen)
            return
        made = pending_job.job().model_copy(update={"dropped_at": listed_at})
        job = self.used.claim(pending_job.group.fingerprint, made)
        self.used.note_drop(job)
        self.executions.start(job)
        used = set()
        for given in job.inputs:
            if _is_own(name, given.key):
                used.add((given.key, given.version_id))
            elif given.role is not Role.DEFAULTS:
                self.used.note_used(job.bucket, given.key, given.version_id)
        # `seen` last: once it is noted, a retry of its message does nothing.
        for key, version_id in sorted(used, key=lambda pin: (pin[0] == seen.key, pin)):
            self.used.note(job.id, job.bucket, key, version_id)
        if (seen.key, seen.version_id) not in used:  # one of too many, for example
            self._note_answered(seen)
        with logger.append_context_keys(job_id=job.id, run=job.run):
            logger.info("Started the job")

    # Waiting

    def _wait(self, pending_job: PendingJob, seen: SeenUpload) -> None:
        waited = self.now() - seen.first_seen
        left_seconds = (self.incomplete_after - waited).total_seconds()
        missing = pending_job.missing
        if left_seconds > 0:
            delay_seconds = _delay_seconds(waited.total_seconds(), left_seconds)
            self.queue.send(seen, delay_seconds)
            logger.info(
                "Incomplete: will look again",
                missing=missing,
                delay_seconds=delay_seconds,
            )
            return
        if self._is_for_other_jobs(seen):
            logger.info("For other jobs: needs no partner")
        elif self._is_announced(pending_job.group):
            logger.info("Incomplete: announced before", missing=missing)
        else:
            self._give_up(pending_job, seen, waited)
            logger.info("Incomplete: announced", missing=missing)
        self._note_answered(seen)

    def _is_for_other_jobs(self, seen: SeenUpload) -> bool:
        """Whether it is in a shared folder, or a job of another name uses it."""
        if any(seen.key.startswith(INBOX + folder) for folder in self.shared_folders):
            return True
        return self.used.was_used(seen.bucket, seen.key, seen.version_id or "")

    def _is_announced(self, group: Group) -> bool:
        """Whether the error file names all these uploads: then another of them, or an earlier call,
        has announced it."""
        outcome = self._outcome(error_key(group.folder, group.stem))
        return all(
            _Pinned(key=upload.key, version_id=upload.version_id) in outcome.uploads
            for upload in _listed(group)
        )

    def _give_up(self, pending_job: PendingJob, seen: SeenUpload, waited: timedelta) -> None:
        """Announce, then write: a crash in between repeats the event and loses nothing."""
        waited_minutes = waited.total_seconds() / 60
        group = pending_job.group
        error_file = StoredFile(bucket=self.video_bucket, key=error_key(group.folder, group.stem))
        incomplete = UploadIncomplete(
            job=IncompleteJob(folder=group.folder, stem=group.stem),
            uploads=tuple(
                IncompleteUpload(
                    bucket=seen.bucket,
                    key=upload.key,
                    version_id=upload.version_id,
                    size_bytes=upload.size_bytes,
                    etag=upload.etag or None,
                )
                for upload in _listed(group)
            ),
            missing=pending_job.missing,
            waited_minutes=round(waited_minutes, 1),
            message=_message(pending_job, waited_minutes),
            error_file=error_file,
            older_video=self._older_video(group),
            ended_at=self.now(),
        )
        self.bus.announce(DetailType.UPLOAD_INCOMPLETE, incomplete)
        self.storage.put_json(
            error_file.bucket, error_file.key, incomplete.model_dump_json(indent=2)
        )

    def _older_video(self, group: Group) -> OlderVideo | None:
        manifest = self.storage.text(self.video_bucket, manifest_key(group.folder, group.stem))
        video = OlderVideo.in_manifest(manifest)
        key = video_key(group.folder, group.stem)
        return video if video and self.storage.has(self.video_bucket, key) else None


class _Pinned(BaseModel):
    key: str
    version_id: str


class _EndedJob(BaseModel):
    id: str | None = None
    """None in an `Upload Incomplete`."""


class _Outcome(BaseModel):
    """The uploads that a manifest or an error file names."""

    job: _EndedJob | None = None
    inputs: tuple[_Pinned, ...] = ()
    """Of the job."""
    uploads: tuple[_Pinned, ...] = ()
    """Of an `Upload Incomplete`."""


def _is_own(name: Name, key: str) -> bool:
    """Whether a key has the job's name."""
    other = name_of(key)
    return other is not None and other.base == name.base and other.role is not Role.DEFAULTS


def _delay_seconds(waited_seconds: float, left_seconds: float) -> int:
    """As long again as it has waited: short at first, since missing files mostly come with the same
    copy. About ten looks in the first hour."""
    delay_seconds = min(max(waited_seconds, MIN_DELAY_SECONDS), MAX_DELAY_SECONDS)
    return math.ceil(min(delay_seconds, left_seconds))


def _listed(group: Group) -> tuple[ObjectVersion, ...]:
    return (*group.own, *group.of(None))[:MAX_LISTED]


_WANTED = {
    Role.IMAGE: ("a picture", "{stem}.png or {stem}.jpg"),
    Role.AUDIO: ("a recording", "{stem}.mp3 or {stem}.wav"),
    Role.PROMPT: ("a prompt", "{stem}.txt"),
}


def _message(pending_job: PendingJob, waited_minutes: float) -> str:
    """What is wrong, then what to do."""
    group, named = pending_job.group, sorted(pending_job.awaited.values())
    files = [upload.key.rpartition("/")[2] for upload in _listed(group)]
    own, unknown = files[: len(group.own)], files[len(group.own) :]
    wanted = [_WANTED[role] for role in pending_job.missing if role not in pending_job.awaited]
    missing = [" and ".join(what for what, _ in wanted) + " of the same name"] if wanted else []
    sentences = [
        f"{', '.join(files)} waited {_duration(waited_minutes)} in {INBOX}{group.folder} "
        f"for {' and for '.join(missing + named)}."
    ]
    if unknown:
        sentences.append(
            f"Dropreel cannot use {', '.join(unknown)}: it knows no picture or recording with this "
            "ending."
        )
    sentences += [f"{it.found} cannot be used. {it.cure}" for it in pending_job.unusable_pictures()]
    if named:
        sentences.append(f"Drop {' and '.join(named)} first.")
    drop = "Then drop" if named else "Drop"
    if wanted:
        examples = ", and ".join(example.format(stem=group.stem) for _, example in wanted)
        sentences.append(f"{drop} {examples} into the same folder.")
    else:
        sentences.append(f"{drop} {(own or unknown)[-1]} again.")
    return " ".join(sentences)


def _duration(minutes: float) -> str:
    for count, unit in ((minutes / 1440, "days"), (minutes / 60, "hours")):
        if count >= 2:
            return f"{count:.0f} {unit}"
    return "1 minute" if minutes < 1.5 else f"{minutes:.0f} minutes"
