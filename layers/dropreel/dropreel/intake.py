"""Intake: finds the job that an upload belongs to, and starts it once nothing is missing.

It keeps no state. Each time it is told of an upload it looks at the bucket as it is then: the
listing is strongly consistent, so whoever looks last sees all files, and the job's name follows
from their versions, so to start it twice is to start it once.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dropreel.events import DetailType, IncompleteUpload, UploadIncomplete
from dropreel.job import INBOX, Job, Role, error_key, manifest_key
from dropreel.observability import logger
from dropreel.pairing import Group, Name, name_of

if TYPE_CHECKING:
    from dropreel.storage import ObjectVersion

LONGEST_DELAY_SECONDS = 900  # SQS: the longest that a message can be delayed

# So many unknown endings can share a stem (`shot.0001`, `shot.0002`, ...) that an event that names
# them all would be too large for the bus.
LISTED_AT_MOST = 20


class Storage(Protocol):
    def current_versions(self, bucket: str, prefix: str) -> "Iterable[ObjectVersion]": ...

    def text(self, bucket: str, key: str) -> str | None: ...

    def put_json(self, bucket: str, key: str, document: str) -> None: ...


class Executions(Protocol):
    def start(self, job: Job) -> None: ...


class Queue(Protocol):
    def send(self, message: BaseModel, delay_seconds: int) -> None: ...


class Bus(Protocol):
    def announce(self, detail_type: DetailType, detail: BaseModel) -> None: ...


class Sighting(BaseModel):
    """An upload that S3 told of. Also the message by which intake reminds itself to look again."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    version_id: str | None = Field(description="None when the event does not say it.")
    first_seen: AwareDatetime


# Powertools has a model of this event too. It comes with the models of all other services, whose
# import would be a third of this function's cold start.


class _CreatedObject(BaseModel):
    key: str
    version_id: str | None = Field(default=None, alias="version-id")


class _Bucket(BaseModel):
    name: str


class _CreatedDetail(BaseModel):
    bucket: _Bucket
    object: _CreatedObject


class ObjectCreated(BaseModel):
    """What intake reads of S3's event on EventBridge (`events/samples/object_created.json`)."""

    source: Literal["aws.s3"]
    time: AwareDatetime
    detail: _CreatedDetail

    @property
    def sighting(self) -> Sighting:
        return Sighting(
            bucket=self.detail.bucket.name,
            key=self.detail.object.key,
            version_id=self.detail.object.version_id,
            first_seen=self.time,
        )


_MESSAGE: TypeAdapter[ObjectCreated | Sighting] = TypeAdapter(ObjectCreated | Sighting)


def sighting_in(message: str) -> Sighting:
    """Read a message of the intake queue. Raises pydantic's `ValidationError`."""
    parsed = _MESSAGE.validate_json(message)
    return parsed.sighting if isinstance(parsed, ObjectCreated) else parsed


@dataclass(frozen=True)
class Intake:
    """Intake's one verb and what it needs for it."""

    storage: Storage
    executions: Executions
    queue: Queue
    bus: Bus
    now: Callable[[], datetime]
    model: str
    video_bucket: str
    incomplete_after: timedelta

    def take_in(self, seen: Sighting) -> None:
        """Start the upload's job, or see to it that its wait comes to an end.

        May be called in any order and any number of times for one upload.
        """
        name = name_of(seen.key)
        if name is None:
            logger.info("No job is made of this: ignored", key=seen.key)
            return
        group = self._group_of(name, seen.bucket)
        if group.is_ready:
            self._start(group, name, seen)
        elif (upload := _current(seen, group)) is None:
            logger.info("Deleted or replaced since: nothing to do", key=seen.key)
        else:
            self._wait(group, seen.model_copy(update={"version_id": upload.version_id}))

    def _group_of(self, name: Name, bucket: str) -> Group:
        return Group.around(name, self._listing(name, bucket))

    def _listing(self, name: Name, bucket: str) -> "Iterator[ObjectVersion]":
        """What may belong to the name: few keys, however many the folder holds."""
        if not name.ending:
            # No prefix selects one key alone, but it comes first of all that begin with it.
            yield from takewhile(
                lambda upload: upload.key == name.base,
                self.storage.current_versions(bucket, name.base),
            )
        yield from self.storage.current_versions(bucket, f"{name.base}.")

    def _start(self, group: Group, name: Name, seen: Sighting) -> None:
        if name.role is None:
            # The pair's own events start it. Were this to start it too, then an upload after the
            # 90 days that Step Functions remembers a name would pay for the same video again.
            logger.info("Not part of the pair beside it: ignored", key=seen.key)
            return
        job = group.job(seen.bucket, self.model)
        self.executions.start(job)
        logger.info("Job is under way", key=seen.key, job_id=job.id)

    def _wait(self, group: Group, seen: Sighting) -> None:
        waited = self.now() - seen.first_seen
        left_seconds = (self.incomplete_after - waited).total_seconds()
        if left_seconds > 0:
            delay_seconds = min(LONGEST_DELAY_SECONDS, math.ceil(left_seconds))
            self.queue.send(seen, delay_seconds)
            logger.info(
                "Incomplete: will look again",
                key=seen.key,
                missing=group.missing,
                delay_seconds=delay_seconds,
            )
        elif self._is_answered(group):
            logger.info("Incomplete: said before", key=seen.key, missing=group.missing)
        else:
            self._give_up(group, seen, waited)
            logger.info("Incomplete: said so", key=seen.key, missing=group.missing)

    def _is_answered(self, group: Group) -> bool:
        """Whether what lies beside the place of the video already tells of these uploads.

        That is how each of several waiting uploads, or a repeated event, finds that it has been
        said; and how an upload whose other half was deleted after the job finds that it was used.
        """
        waiting = {(upload.key, upload.version_id) for upload in _listed(group)}
        return any(
            waiting <= _told_of(self.storage.text(self.video_bucket, key))
            for key in (
                error_key(group.folder, group.stem),
                manifest_key(group.folder, group.stem),
            )
        )

    def _give_up(self, group: Group, seen: Sighting, waited: timedelta) -> None:
        """Announce, then write: a crash in between repeats the event and loses nothing."""
        waited_minutes = round(waited.total_seconds() / 60, 1)
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
            missing=group.missing,
            waited_minutes=waited_minutes,
            message=_in_words(group, waited_minutes),
        )
        self.bus.announce(DetailType.UPLOAD_INCOMPLETE, incomplete)
        self.storage.put_json(
            self.video_bucket,
            error_key(group.folder, group.stem),
            incomplete.model_dump_json(indent=2),
        )


def _current(seen: Sighting, group: Group) -> "ObjectVersion | None":
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


class _Answer(BaseModel):
    """An error file or a manifest, as far as it says what it is about."""

    uploads: tuple[_Pinned, ...] = ()
    inputs: tuple[_Pinned, ...] = ()


def _told_of(document: str | None) -> set[tuple[str, str]]:
    try:
        answer = _Answer.model_validate_json(document or "{}")
    except ValidationError:  # somebody's own file
        return set()
    return {(pinned.key, pinned.version_id) for pinned in (*answer.uploads, *answer.inputs)}


def _listed(group: Group) -> "tuple[ObjectVersion, ...]":
    roles: tuple[Role | None, ...] = (*Role, None)
    return tuple(upload for role in roles for upload in group.of(role))[:LISTED_AT_MOST]


_WANTED = {
    Role.IMAGE: ("a picture", "{stem}.png or {stem}.jpg"),
    Role.AUDIO: ("a voice", "{stem}.mp3 or {stem}.wav"),
}


def _in_words(group: Group, waited_minutes: float) -> str:
    files = [upload.key.rpartition("/")[2] for upload in _listed(group)]
    strangers = [upload.key.rpartition("/")[2] for upload in group.of(None)][:LISTED_AT_MOST]
    wanted = " and ".join(_WANTED[role][0] for role in group.missing)
    examples = ", and ".join(_WANTED[role][1].format(stem=group.stem) for role in group.missing)
    sentences = [
        f"{', '.join(files)} waited {waited_minutes:g} minutes in {INBOX}{group.folder} "
        f"for {wanted} of the same name."
    ]
    if strangers:
        sentences.append(
            f"{', '.join(strangers)}: this ending is not one that Dropreel knows as a picture "
            "or a voice."
        )
    sentences.append(f"Drop {examples} into the same folder.")
    return " ".join(sentences)
