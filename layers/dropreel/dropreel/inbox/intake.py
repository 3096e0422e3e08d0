"""Intake: finds the job that an upload belongs to, and starts it once nothing is missing.

Each time it is told of an upload it looks at the bucket as it is then: the listing is strongly
consistent, so whoever looks last sees all files. What it notes are the uploads that a job was
made of, so that a late event, or a change of what the job was told from elsewhere (the defaults of
a folder, an avatar's face, a parameter), never starts a second job of the same uploads. It also
notes those that were answered without a job, so that the sweep need not look at them again.

A job may use files of another name, but takes none: what one folder's files say changes nothing of
what becomes of another's.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Protocol

from pydantic import BaseModel, ValidationError

from dropreel.inbox import job_file
from dropreel.inbox.messages import SeenUpload
from dropreel.inbox.pairing import Group, Name, name_of
from dropreel.inbox.pending_job import PendingJob
from dropreel.model.events import DetailType, IncompleteUpload, UploadIncomplete
from dropreel.model.job import INBOX, Input, Job, Role, error_key, manifest_key
from dropreel.model.uploads import ObjectVersion
from dropreel.runtime.log import logger

MIN_DELAY_SECONDS = 15
MAX_DELAY_SECONDS = 900  # SQS: the longest that a message can be delayed

# So many unknown endings can share a stem (`shot.0001`, `shot.0002`, ...) that an event that names
# them all would be too large for the bus.
MAX_LISTED = 20


class Storage(Protocol):
    def current_versions(self, bucket: str, prefix: str) -> Iterable[ObjectVersion]: ...

    def read(self, bucket: str, pinned: Input) -> bytes: ...

    def text(self, bucket: str, key: str) -> str | None: ...

    def put_json(self, bucket: str, key: str, document: str) -> None: ...


class Executions(Protocol):
    def start(self, job: Job) -> None: ...


class UsedUploads(Protocol):
    def claim(self, fingerprint: str, job: Job) -> Job:
        """Make the job the one of these uploads, unless another is; return the one that is."""

    def is_answered(self, bucket: str, key: str, version_id: str) -> bool:
        """Whether a job was made of it, or all was said that there is to say."""

    def note(self, job_id: str, bucket: str, key: str, version_id: str) -> None:
        """A job was started, and this upload is in it."""

    def note_answered(self, bucket: str, key: str, version_id: str) -> None:
        """No job is made of it, and all is said. Changes nothing when there is a job."""

    def note_used(self, bucket: str, key: str, version_id: str) -> None:
        """A job of another name was made with it. That answers nothing: its own job may come."""

    def was_used(self, bucket: str, key: str, version_id: str) -> bool:
        """Whether a job of another name was made with it."""

    def note_drop(self, job: Job) -> None:
        """The job is the last drop of its output, unless a later one is noted."""


class Queue(Protocol):
    def send(self, message: BaseModel, delay_seconds: int) -> None: ...


class Bus(Protocol):
    def announce(self, detail_type: DetailType, detail: BaseModel) -> None: ...


@dataclass(frozen=True)
class Intake:
    """Intake's one verb and what it needs for it."""

    storage: Storage
    executions: Executions
    used: UsedUploads
    queue: Queue
    bus: Bus
    now: Callable[[], datetime]
    model: str
    video_bucket: str
    incomplete_after: timedelta
    shared_folders: tuple[str, ...] = ()
    """Below `inbox/`, ending in `/`: whose files every job may name."""

    def take_in(self, seen: SeenUpload) -> None:
        """Start the upload's job, or see to it that its wait comes to an end.

        May be called in any order and any number of times for one upload.
        """
        name = name_of(seen.key)
        if name is None:
            logger.info("No job is made of this: ignored", key=seen.key)
        elif name.role is Role.DEFAULTS:
            self._take_in_defaults(seen)
        else:
            self._take_in_upload(name, seen)

    def _take_in_defaults(self, seen: SeenUpload) -> None:
        """Defaults concern what is dropped from now on."""
        if upload := self._find(seen.bucket, seen.key):
            self.used.note_answered(seen.bucket, upload.key, upload.version_id)
        logger.info("Defaults for what comes", key=seen.key)

    def _take_in_upload(self, name: Name, seen: SeenUpload) -> None:
        looked_at = self.now()  # before the listing: who looks later sees all that came before
        group = Group.around(name, self._listing(name, seen.bucket))
        upload = _current(seen, group)
        if upload is None:
            # Whatever has replaced it has an event of its own.
            logger.info("Deleted or replaced since: nothing to do", key=seen.key)
            return
        if self.used.is_answered(seen.bucket, seen.key, upload.version_id):
            logger.info("In a job or answered already: nothing to do", key=seen.key)
            return
        seen = seen.model_copy(update={"version_id": upload.version_id})
        if seen.swept and self._has_outcome(name, seen):
            logger.info("A job of it has ended: nothing to do", key=seen.key)
            return
        pending_job = self._pending_job(name, group, seen.bucket)
        if (
            pending_job.group.own == (upload,)
            and pending_job.inherited.choices.files.get(Role.IMAGE) == seen.key
        ):
            logger.info("An avatar's face: waits for nobody", key=seen.key)
            self._note_answered(seen)
        elif pending_job.is_ready:
            self._start(pending_job, name, seen, looked_at)
        else:
            self._wait(pending_job, seen)

    def _has_outcome(self, name: Name, seen: SeenUpload) -> bool:
        """Whether the videos bucket tells of this very version, which is then noted as it says.

        The second line, behind the notes: a sweep that finds none of an upload must not have it
        paid for again.
        """
        pin = (seen.key, seen.version_id)
        for key in (manifest_key(name.folder, name.stem), error_key(name.folder, name.stem)):
            told = _Told.in_document(self.storage.text(self.video_bucket, key))
            if told.job and pin in told.inputs_pinned:
                for used in told.inputs:
                    if _is_own(name, used.key):
                        self.used.note(told.job.id, seen.bucket, used.key, used.version_id)
                return True
            if pin in told.uploads_pinned:
                self._note_answered(seen)
                return True
        return False

    def _note_answered(self, seen: SeenUpload) -> None:
        if seen.version_id is not None:
            self.used.note_answered(seen.bucket, seen.key, seen.version_id)

    # What is there, and what it says

    def _listing(self, name: Name, bucket: str) -> Iterator[ObjectVersion]:
        """What may belong to the name: few keys, however many the folder holds."""
        if not name.ending and (alone := self._find(bucket, name.base)):
            yield alone
        yield from self.storage.current_versions(bucket, f"{name.base}.")

    def _find(self, bucket: str, key: str) -> ObjectVersion | None:
        """What a key holds. No prefix selects one key alone, but it comes first of all that begin
        with it."""
        listed = self.storage.current_versions(bucket, key)
        return next(takewhile(lambda upload: upload.key == key, listed), None)

    def _pending_job(self, name: Name, group: Group, bucket: str) -> PendingJob:
        own = job_file.together(
            [
                (upload.key, self._said(role, bucket, upload))
                for role in (Role.OPTIONS, Role.PROMPT)
                for upload in group.of(role)
            ]
        )
        defaults = list(self._defaults(bucket, name.defaults_keys))
        inherited = job_file.nearest_wins(said for _, said in defaults)
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

    def _defaults(
        self, bucket: str, keys: Iterable[str]
    ) -> Iterator[tuple[ObjectVersion, job_file.Parsed]]:
        for key in keys:
            if upload := self._find(bucket, key):
                yield upload, self._said(Role.DEFAULTS, bucket, upload)

    def _said(self, role: Role, bucket: str, upload: ObjectVersion) -> job_file.Parsed:
        if upload.size_bytes > job_file.MAX_DOCUMENT_BYTES:
            return job_file.too_large(upload.key, upload.size_bytes)
        pinned = Input(
            role=role, key=upload.key, version_id=upload.version_id, size_bytes=upload.size_bytes
        )
        content = self.storage.read(bucket, pinned)
        return job_file.parse(role, upload.key, content, self.shared_folders)

    # Starting

    def _start(
        self, pending_job: PendingJob, name: Name, seen: SeenUpload, looked_at: datetime
    ) -> None:
        """Claim, start, note: a crash in between does it again, with the job of the first claim.

        The claim decides between two calls that see the same uploads and different defaults.
        """
        if name.role is None:
            logger.info("Not part of the job beside it: ignored", key=seen.key)
            self._note_answered(seen)
            return
        made = pending_job.job().model_copy(update={"dropped_at": looked_at})
        job = self.used.claim(pending_job.group.fingerprint, made)
        self.used.note_drop(job)
        self.executions.start(job)
        for given in job.inputs:
            if given.role is not Role.DEFAULTS and not _is_own(name, given.key):
                self.used.note_used(job.bucket, given.key, given.version_id)
        used = _used_by(job, name, seen)
        for key, version_id in used:
            self.used.note(job.id, job.bucket, key, version_id)
        if (seen.key, seen.version_id) not in used:  # but one of too many, say
            self._note_answered(seen)
        logger.info("Job is under way", key=seen.key, job_id=job.id)

    # Waiting

    def _wait(self, pending_job: PendingJob, seen: SeenUpload) -> None:
        waited = self.now() - seen.first_seen
        left_seconds = self._left_seconds(seen)
        if left_seconds > 0:
            delay_seconds = _delay_seconds(waited.total_seconds(), left_seconds)
            self.queue.send(seen, delay_seconds)
            logger.info(
                "Incomplete: will look again",
                key=seen.key,
                missing=pending_job.missing,
                delay_seconds=delay_seconds,
            )
        elif self._is_there_for_others(seen):
            self._note_answered(seen)
            logger.info("There for other jobs: waits no longer", key=seen.key)
        elif self._is_said(pending_job.group):
            self._note_answered(seen)
            logger.info("Incomplete: said before", key=seen.key, missing=pending_job.missing)
        else:
            self._give_up(pending_job, seen, waited)
            self._note_answered(seen)
            logger.info("Incomplete: said so", key=seen.key, missing=pending_job.missing)

    def _left_seconds(self, seen: SeenUpload) -> float:
        return (self.incomplete_after - (self.now() - seen.first_seen)).total_seconds()

    def _is_there_for_others(self, seen: SeenUpload) -> bool:
        """Whether it lies in a shared folder, or a job of another name was made with it."""
        if any(seen.key.startswith(INBOX + folder) for folder in self.shared_folders):
            return True
        version_id = seen.version_id or ""
        return self.used.was_used(seen.bucket, seen.key, version_id)

    def _is_said(self, group: Group) -> bool:
        """Whether the error file already tells of these uploads: that is how each of several
        waiting uploads, or a repeated event, finds that it has been said."""
        waiting = {(upload.key, upload.version_id) for upload in _listed(group)}
        told = self.storage.text(self.video_bucket, error_key(group.folder, group.stem))
        return waiting <= _Told.in_document(told).uploads_pinned

    def _give_up(self, pending_job: PendingJob, seen: SeenUpload, waited: timedelta) -> None:
        """Announce, then write: a crash in between repeats the event and loses nothing."""
        waited_minutes = round(waited.total_seconds() / 60, 1)
        group = pending_job.group
        incomplete = UploadIncomplete(
            folder=group.folder,
            stem=group.stem,
            uploads=tuple(
                IncompleteUpload(
                    bucket=seen.bucket,
                    key=upload.key,
                    version_id=upload.version_id,
                    size_bytes=upload.size_bytes,
                )
                for upload in _listed(group)
            ),
            missing=pending_job.missing,
            waited_minutes=waited_minutes,
            message=_in_words(pending_job, waited_minutes),
        )
        self.bus.announce(DetailType.UPLOAD_INCOMPLETE, incomplete)
        self.storage.put_json(
            self.video_bucket,
            error_key(group.folder, group.stem),
            incomplete.model_dump_json(indent=2),
        )


def _current(seen: SeenUpload, group: Group) -> ObjectVersion | None:
    """The upload that was seen, if it is still what its key holds."""
    return next(
        (
            upload
            for upload in group.uploads
            if upload.key == seen.key and seen.version_id in (None, upload.version_id)
        ),
        None,
    )


class _Pinned(BaseModel):
    key: str
    version_id: str


class _Used(_Pinned):
    role: Role


class _EndedJob(BaseModel):
    id: str


class _Told(BaseModel):
    """A manifest or an error file, as far as it says which uploads it is about."""

    job: _EndedJob | None = None
    inputs: tuple[_Used, ...] = ()
    """What the job was made of."""
    uploads: tuple[_Pinned, ...] = ()
    """What waited in vain."""

    @classmethod
    def in_document(cls, document: str | None) -> "_Told":
        try:
            return cls.model_validate_json(document or "{}")
        except ValidationError:  # somebody's own file
            return cls()

    @property
    def inputs_pinned(self) -> set[tuple[str, str]]:
        return {(used.key, used.version_id) for used in self.inputs}

    @property
    def uploads_pinned(self) -> set[tuple[str, str]]:
        return {(upload.key, upload.version_id) for upload in self.uploads}


def _is_own(name: Name, key: str) -> bool:
    """Whether a key is one of the job of this name, and no file that it names elsewhere."""
    other = name_of(key)
    return other is not None and other.base == name.base and other.role is not Role.DEFAULTS


def _used_by(job: Job, name: Name, seen: SeenUpload) -> list[tuple[str, str]]:
    """What need not look for a job any more. What was seen comes last: its message is the one that
    is repeated after a crash, and does nothing once it is noted."""
    pinned = {(given.key, given.version_id) for given in job.inputs if _is_own(name, given.key)}
    return sorted(pinned, key=lambda pin: (pin[0] == seen.key, pin))


def _delay_seconds(waited_seconds: float, left_seconds: float) -> int:
    """Soon at first, because most of what is named or missing comes with the same copy; then as
    long again as it has waited. About ten looks in the first hour."""
    delay_seconds = min(max(waited_seconds, MIN_DELAY_SECONDS), MAX_DELAY_SECONDS)
    return math.ceil(min(delay_seconds, left_seconds))


def _listed(group: Group) -> tuple[ObjectVersion, ...]:
    return (*group.own, *group.of(None))[:MAX_LISTED]


_WANTED = {
    Role.IMAGE: ("a picture", "{stem}.png or {stem}.jpg"),
    Role.AUDIO: ("a voice", "{stem}.mp3 or {stem}.wav"),
    Role.PROMPT: ("a prompt", "{stem}.txt"),
}


def _in_words(pending_job: PendingJob, waited_minutes: float) -> str:
    group, named = pending_job.group, sorted(pending_job.awaited.values())
    beside = [_WANTED[role] for role in pending_job.missing if role not in pending_job.awaited]
    files = ", ".join(_file(upload) for upload in _listed(group))
    strangers = [_file(upload) for upload in group.of(None)][:MAX_LISTED]
    wanted = [*named]
    if beside:
        wanted.insert(0, " and ".join(what for what, _ in beside) + " of the same name")
    sentences = [
        f"{files} waited {waited_minutes:g} minutes in {INBOX}{group.folder} "
        f"for {' and for '.join(wanted)}."
    ]
    if strangers:
        sentences.append(
            f"{', '.join(strangers)}: this ending is not one that Dropreel knows as a picture "
            "or a voice."
        )
    if beside:
        examples = ", and ".join(example.format(stem=group.stem) for _, example in beside)
        sentences.append(f"Drop {examples} into the same folder.")
    if named:
        sentences.append(
            f"Drop {' and '.join(named)} first, or name another file, then drop {files} again."
        )
    return " ".join(sentences)


def _file(upload: ObjectVersion) -> str:
    return upload.key.rpartition("/")[2]
