"""Intake: finds the job that an upload belongs to, and starts it once nothing is missing.

Each call lists the bucket anew. S3 lists with strong consistency, so the last call sees all files.
Intake notes the uploads that a job was made of: no late event, and no change of a folder's defaults
or a parameter, starts a second job of them. It also notes uploads that were answered without a job.

A bucket without versioning gives all versions of a file one id, `null`. So its notes count for
nothing: each upload is made a job at once, which Prepare refuses.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Protocol

from pydantic import BaseModel, ValidationError

from dropreel.inbox import documents
from dropreel.inbox.documents import Documents
from dropreel.inbox.messages import MessageQueue, SeenUpload
from dropreel.inbox.near_misses import near_misses
from dropreel.inbox.pairing import Group, Name, as_seen, latest, name_of, written_forms
from dropreel.inbox.pending_job import MAX_IGNORED, PendingJob
from dropreel.model.errors import UploadNotProcessed
from dropreel.model.events import (
    Announcer,
    DetailType,
    IncompleteJob,
    IncompleteUpload,
    OlderVideo,
    StoredFile,
    UploadFailure,
    UploadIncomplete,
)
from dropreel.model.job import INBOX, Job, Role, error_key, manifest_key, video_key
from dropreel.model.metrics import Meter, Metric
from dropreel.model.uploads import NULL_VERSION, ObjectVersion
from dropreel.runtime.log import job_keys, logger

MIN_DELAY_SECONDS = 15
MAX_DELAY_SECONDS = 900  # SQS: the longest that a message can be delayed

MAX_BESIDE = 2_000
"""Files of a folder that are compared with one that waits in vain."""

MAX_NEAR_MISSES = 5

MAX_UPLOAD = timedelta(days=1)
"""Longer than the upload of one file takes."""


class Storage(documents.Storage, Protocol):
    def is_versioned(self, bucket: str) -> bool: ...

    def text(self, bucket: str, key: str) -> str | None: ...

    def has(self, bucket: str, key: str) -> bool: ...

    def put_json(self, bucket: str, key: str, document: str) -> None: ...

    def delete(self, bucket: str, key: str) -> None: ...


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
    meter: Meter
    now: Callable[[], datetime]
    model: str
    video_bucket: str
    settle: timedelta
    incomplete_after: timedelta
    shared_folders: tuple[str, ...] = ()
    """Below `inbox/`, ending in `/`. Every job may name files in them."""

    @cached_property
    def documents(self) -> Documents:
        return Documents(self.storage, self.shared_folders)

    def take_in(self, seen: SeenUpload, *, is_last_try: bool = False) -> None:
        """Start the upload's job, or look again later, or announce that it is incomplete.

        May be called in any order and any number of times for one upload. When the last try fails,
        an error file says so.
        """
        name = name_of(seen.key)
        logger.append_keys(key=seen.key, folder=name.folder if name else None)
        if name is None:
            logger.info("Not a file of a job: ignored")
            return
        if not is_last_try:
            self._look_at(name, seen)
            return
        key, document = error_key(name.folder, name.stem), self._failure(name, seen)
        is_first = self.storage.text(self.video_bucket, key) is None
        if is_first:  # a function that is killed writes nothing more
            self.storage.put_json(self.video_bucket, key, document)
        try:
            self._look_at(name, seen)
        except Exception:
            self.storage.put_json(self.video_bucket, key, document)
            raise
        if is_first and self.storage.text(self.video_bucket, key) == document:
            self.storage.delete(self.video_bucket, key)

    def _look_at(self, name: Name, seen: SeenUpload) -> None:
        if name.role is Role.DEFAULTS and not name.should_be:
            if upload := self._find(seen.bucket, seen.key):
                self.used.note_answered(seen.bucket, upload.key, upload.version_id)
            logger.info("Defaults for later drops")
        elif seen.version_id not in (None, NULL_VERSION) and self._is_answered(seen):
            logger.info("In a job or answered already: nothing to do")
        else:
            self._take_in_upload(name, seen)

    def _take_in_upload(self, name: Name, seen: SeenUpload) -> None:
        listed_at = self.now()  # before the listing: a later time means a newer listing
        listed = list(self._listing(name, seen.bucket))
        upload = next((one for one in listed if one.key == seen.key), None)
        if upload is None or seen.version_id not in (None, upload.version_id):
            logger.info("Deleted or replaced: the new version has its own event")
            return
        is_versioned = upload.version_id != NULL_VERSION or self.storage.is_versioned(seen.bucket)
        was_unknown = seen.version_id in (None, NULL_VERSION)
        seen = seen.model_copy(update={"version_id": upload.version_id})
        if is_versioned and was_unknown and self._is_answered(seen):
            logger.info("In a job or answered already: nothing to do")
            return
        if seen.swept and self._has_outcome(name, seen):
            logger.info("Its job has ended: nothing to do")
            return
        group = Group.around(name, listed)
        if upload not in group.uploads:
            logger.info("Replaced by a later file whose name looks the same")
            self._note_answered(seen)
            return
        if self._is_settling(group.own, seen):
            return
        pending_job = self._pending_job(name, group, seen.bucket, is_versioned)
        face = pending_job.inherited.parsed.choices.files.get(Role.IMAGE)
        if group.own == (upload,) and face and as_seen(face) == as_seen(seen.key):
            logger.info("An avatar's face: needs no partner")
            self._note_answered(seen)
        elif not pending_job.is_ready:
            self._wait(pending_job, seen)
        elif not self._is_settling(pending_job.uploads, seen):
            self._start(pending_job, name, seen, upload, listed_at)

    def _failure(self, name: Name, seen: SeenUpload) -> str:
        """The error file of a dead letter. It names no version, so that the sweep tries again."""
        failure = UploadFailure(
            error=UploadNotProcessed(f"Dropreel could not process {seen.key}.").report,
            job=IncompleteJob(folder=name.folder, stem=name.stem),
            ended_at=self.now(),
        )
        return failure.model_dump_json(indent=2)

    def _is_answered(self, seen: SeenUpload) -> bool:
        return self.used.is_answered(seen.bucket, seen.key, seen.version_id or NULL_VERSION)

    def _is_settling(self, uploads: Iterable[ObjectVersion], seen: SeenUpload) -> bool:
        """Whether the newest file has not been still for long enough. Then looks again later.

        S3 dates an upload in parts from its beginning. Its own event comes at its end; another
        file's event looks twice.
        """
        settle_seconds = self.settle.total_seconds()
        in_parts = {
            one.version_id
            for one in uploads
            if one.in_parts and one.key != seen.key and self.now() - one.written_at < MAX_UPLOAD
        }
        newest = max((one.written_at for one in uploads), default=datetime.min.replace(tzinfo=UTC))
        left_seconds = (newest + self.settle - self.now()).total_seconds()
        if not in_parts <= seen.known:
            left_seconds = settle_seconds
        if left_seconds <= 0 or settle_seconds == 0:
            return False
        # Not longer than it settles, although the clocks of S3 and Lambda may differ.
        delay_seconds = math.ceil(min(left_seconds, settle_seconds))
        known = seen.known | in_parts
        self.queue.send(seen.model_copy(update={"known": known}), delay_seconds)
        logger.info("Files are still coming: will look again", delay_seconds=delay_seconds)
        return True

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
                self.used.note_answered(seen.bucket, pin.key, pin.version_id)
                return True
        return False

    def _outcome(self, key: str) -> "_Outcome":
        try:
            return _Outcome.model_validate_json(self.storage.text(self.video_bucket, key) or "{}")
        except ValidationError:  # not written by Dropreel
            return _Outcome()

    def _note_answered(self, seen: SeenUpload) -> None:
        self.used.note_answered(seen.bucket, seen.key, seen.version_id or NULL_VERSION)

    # Reading

    def _listing(self, name: Name, bucket: str) -> Iterator[ObjectVersion]:
        """The uploads that may belong to the name: few, even in a large folder."""
        prefixes = [f"{prefix}." for prefix in name.prefixes]
        if not name.key.startswith(tuple(prefixes)) and (alone := self._find(bucket, name.key)):
            yield alone
        yield from self.storage.current_versions(bucket, *prefixes)

    def _find(self, bucket: str, key: str) -> ObjectVersion | None:
        """The upload at a key. It lists first among all keys that begin with it."""
        first = next(iter(self.storage.current_versions(bucket, key)), None)
        return first if first and first.key == key else None

    def _named(self, bucket: str, key: str) -> ObjectVersion | None:
        """The upload at a key that a person wrote, however systems write it."""
        name = name_of(key)
        found = [self._find(bucket, form) for form in (name.written_keys if name else [key])]
        return next(iter(latest(one for one in found if one)), None)

    def _pending_job(self, name: Name, group: Group, bucket: str, is_versioned: bool) -> PendingJob:
        own, inherited = self.documents.own(bucket, group), self.documents.defaults(bucket, name)
        named = {key for read in (own, inherited) for key in read.parsed.choices.files.values()}
        return PendingJob(
            bucket=bucket,
            name=name,
            group=group,
            own=own,
            inherited=inherited,
            found={key: upload for key in named if (upload := self._named(bucket, key))},
            deployed_model=self.model,
            is_versioned=is_versioned,
        )

    # Starting

    def _start(
        self,
        pending_job: PendingJob,
        name: Name,
        seen: SeenUpload,
        upload: ObjectVersion,
        listed_at: datetime,
    ) -> None:
        """Claim, start, note. After a crash in between, a retry starts the job of the first claim.

        The claim decides between two calls that see the same uploads and different defaults.
        """
        is_passed_over = name.unusable_as and upload not in pending_job.of(Role.IMAGE)
        if name.role is None or is_passed_over:
            logger.info("Not part of the job of this name: ignored")
            self._note_answered(seen)
            return
        job = pending_job.job().model_copy(update={"dropped_at": listed_at})
        logger.append_keys(**job_keys(job))
        job = self.used.claim(pending_job.group.fingerprint, job)
        logger.append_keys(**job_keys(job))
        if not job.dry_run:  # its output stays with the job that renders it
            self.used.note_drop(job)
        self.executions.start(job)
        own = {(given.key, given.version_id) for given in job.inputs if _is_own(name, given.key)}
        for given in job.inputs:
            if given.role is not Role.DEFAULTS and (given.key, given.version_id) not in own:
                self.used.note_used(job.bucket, given.key, given.version_id)
        # `seen` last: once it is noted, a retry of its message does nothing.
        for key, version_id in sorted(own, key=lambda pin: (pin[0] == seen.key, pin)):
            self.used.note(job.id, job.bucket, key, version_id)
        if (seen.key, seen.version_id) not in own:  # one of too many, for example
            self._note_answered(seen)
        logger.info("Started the job")

    # Waiting

    def _wait(self, pending_job: PendingJob, seen: SeenUpload) -> None:
        waited = self.now() - seen.first_seen
        left_seconds = (self.incomplete_after - waited).total_seconds()
        missing = pending_job.missing
        if left_seconds > 0 and seen.swept:
            logger.info("Incomplete: the next sweep will look again", missing=missing)
            return
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
        key = as_seen(seen.key)
        if any(key.startswith(as_seen(INBOX + folder)) for folder in self.shared_folders):
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

    def _near_misses(self, pending_job: PendingJob, bucket: str) -> Iterator[str]:
        """Sentences about files that were perhaps meant for the job, but whose names differ."""
        group, missing = pending_job.group, pending_job.missing
        own = [one.key for one in (*group.own, *group.of(None))[:1]]
        for key in own:
            beside = {name.stem: name for name in self._beside(bucket, key) if name.role in missing}
            for stem, difference in near_misses(group.stem, beside):
                yield (
                    f"{beside[stem].key} is there, too, but its name differs in {difference}. "
                    "Files of one job need exactly the same name: drop one of them again with the "
                    "name of the other."
                )
        for key in pending_job.awaited.values():
            files = {name.file: name for name in self._beside(bucket, key)}
            for file, difference in near_misses(as_seen(key).rpartition("/")[2], files):
                options = (group.of(Role.OPTIONS) or group.own)[0].key
                yield (
                    f"{files[file].key} is there, too, but its name differs in {difference} from "
                    f"{key}. Write the name as it is, and drop {options} again."
                )

    def _beside(self, bucket: str, key: str) -> Iterator[Name]:
        """The files in the folder of a key."""
        folder = key.rpartition("/")[0] + "/"
        listed = islice(
            self.storage.current_versions(bucket, *written_forms(folder, folder)), MAX_BESIDE
        )
        return (name for upload in listed if (name := name_of(upload.key)) and name.role)

    def _give_up(self, pending_job: PendingJob, seen: SeenUpload, waited: timedelta) -> None:
        """Announce, then write: a crash in between repeats the event and loses nothing."""
        waited_minutes = waited.total_seconds() / 60
        group = pending_job.group
        hints = tuple(islice(self._near_misses(pending_job, seen.bucket), MAX_NEAR_MISSES))
        error_file = StoredFile(bucket=self.video_bucket, key=error_key(group.folder, group.stem))
        incomplete = UploadIncomplete(
            job=IncompleteJob(
                folder=group.folder, stem=group.stem, labels=pending_job.choices.labels
            ),
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
            message=_message(pending_job, waited_minutes, hints),
            error_file=error_file,
            older_video=self._older_video(group),
            ended_at=self.now(),
        )
        self.bus.announce(DetailType.UPLOAD_INCOMPLETE, incomplete)
        self.meter.record({Metric.UPLOADS_INCOMPLETE: 1})
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
    return (*group.own, *group.of(None))[:MAX_IGNORED]


_WANTED = {
    Role.IMAGE: ("a picture", "{stem}.png or {stem}.jpg"),
    Role.AUDIO: ("a recording", "{stem}.mp3 or {stem}.wav"),
    Role.PROMPT: ("a prompt", "{stem}.txt"),
    Role.OPTIONS: ("options", "{stem}.json"),
}


def _message(pending_job: PendingJob, waited_minutes: float, hints: tuple[str, ...]) -> str:
    """What is wrong, then what to do."""
    group, named = pending_job.group, sorted(pending_job.awaited.values())
    files = [upload.key.rpartition("/")[2] for upload in _listed(group)]
    own, unknown = files[: len(group.own)], files[len(group.own) :]
    empty = [upload.key for upload in pending_job.empty]
    wanted = [_WANTED[role] for role in pending_job.missing if role not in pending_job.awaited]
    awaited = [" and ".join(what for what, _ in wanted) + " of the same name"] if wanted else []
    awaited += [*named, *(f"the content of {key}" for key in empty)]
    sentences = [
        f"{', '.join(files)} waited {_duration(waited_minutes)} in {INBOX}{group.folder} "
        f"for {' and for '.join(awaited)}."
    ]
    if unknown:
        sentences.append(
            f"Dropreel cannot use {', '.join(unknown)}: it knows no picture or recording with this "
            "ending."
        )
    sentences += [f"{it.found} cannot be used. {it.cure}" for it in pending_job.unusable_pictures()]
    if hints:
        return " ".join([*sentences, *hints])
    sentences += [f"{key} is empty: it has 0 bytes." for key in empty]
    first, last = list(dict.fromkeys([*named, *empty])), ""
    if wanted:
        examples = ", and ".join(example.format(stem=group.stem) for _, example in wanted)
        last = f"{examples} into the same folder"
    elif named or not empty or {upload.key for upload in group.own}.isdisjoint(empty):
        last = f"{(own or unknown)[-1]} again"
    if first:
        sentences.append(f"Drop {' and '.join(first)} {'first' if last else 'again'}.")
    if last:
        sentences.append(f"{'Then drop' if first else 'Drop'} {last}.")
    return " ".join(sentences)


def _duration(minutes: float) -> str:
    for count, unit in ((minutes / 1440, "days"), (minutes / 60, "hours")):
        if count >= 2:
            return f"{count:.0f} {unit}"
    return "1 minute" if minutes < 1.5 else f"{minutes:.0f} minutes"
