"""All that intake and the sweep touch, in memory, and the people who drop files."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from pydantic import BaseModel

from dropreel.inbox.intake import Intake
from dropreel.inbox.messages import SeenUpload, Sweep, SweepPosition, message_in
from dropreel.inbox.pairing import as_seen
from dropreel.inbox.sweep import InboxSweep
from dropreel.model.events import DetailType, UploadIncomplete
from dropreel.model.job import Input, Job
from dropreel.model.uploads import ObjectVersion, Page
from tests.support.meter import FakeMeter

Parsed = dict[str, object] | str | bytes
Step = str | float | tuple[str, Parsed]
SWEEP = "sweep"
UPLOADS = "uploads"
VIDEOS = "videos"
DAY = 24 * 60.0  # in minutes

segments = st.text(
    st.one_of(
        st.sampled_from(" +%'\"&=?#é🎤.~"),
        st.characters(exclude_characters="/", exclude_categories=["Cs", "Cc"]),
    ),
    min_size=1,
    max_size=6,
).filter(lambda text: not text.startswith((".", "~$")))
bases = st.lists(segments, min_size=1, max_size=4).map("/".join).map(as_seen)


def cases(table: dict[str, tuple[list[Step], list[str]]]) -> pytest.MarkDecorator:
    """What `World.play` is given, and what the world's log is to say then, under what it shows."""
    return pytest.mark.parametrize(("steps", "log"), table.values(), ids=table)


class World:
    def __init__(
        self,
        incomplete_after: timedelta = timedelta(minutes=60),
        settle: timedelta = timedelta(0),
    ) -> None:
        self.begun = self.time = datetime(2026, 11, 12, 14, 0, tzinfo=UTC)
        self.log: list[str] = []
        self.versioned = True
        self.seen: dict[str, SeenUpload] = {}
        self.uploads: dict[str, ObjectVersion] = {}
        self.bodies: dict[str, bytes] = {}
        self.files: dict[str, str] = {}
        self.jobs: dict[str, Job] = {}
        self.starts = 0
        self.claims: dict[str, Job] = {}
        self.noted: set[tuple[str, str]] = set()
        self.answered: set[tuple[str, str]] = set()
        self.used: set[tuple[str, str]] = set()
        self.drops: list[str] = []
        self.messages: list[tuple[datetime, str]] = []
        self.announced: list[UploadIncomplete] = []
        self.meter = FakeMeter()
        self.listed_prefixes: list[str] = []
        self._versions = itertools.count(1)
        self.intake = Intake(
            storage=self,
            executions=self,
            used=self,
            queue=self,
            bus=self,
            meter=self.meter,
            now=lambda: self.time,
            model="wan-2.2-speech-to-video",
            video_bucket=VIDEOS,
            settle=settle,
            incomplete_after=incomplete_after,
            shared_folders=("faces/", "voices/"),
        )
        self.inbox_sweep = InboxSweep(
            inbox=self, notes=self, queue=self, upload_bucket=UPLOADS, now=lambda: self.time
        )

    # What people do

    def drop(self, key: str, body: Parsed = b"x", version_id: str = "") -> SeenUpload:
        """Upload a file, or what it says, and return what S3 will tell of it."""
        version_id = version_id or f"v{next(self._versions)}"
        if isinstance(body, dict):
            body = json.dumps(body)
        content = body.encode() if isinstance(body, str) else body
        self.bodies[version_id] = content
        self.uploads[key] = ObjectVersion(
            key, version_id, len(content), self.time, hashlib.md5(content).hexdigest()
        )
        seen = SeenUpload(bucket=UPLOADS, key=key, version_id=version_id, first_seen=self.time)
        self.seen[version_id] = seen
        return seen

    def tell(self, *seen: SeenUpload) -> None:
        for one in seen:
            self._take_in(one)

    def _take_in(self, message: SeenUpload) -> None:
        """Each message is a batch of its own."""
        self.intake.documents.forget_defaults()
        self.intake.take_in(message)

    def drop_and_tell(self, *keys: str) -> None:
        self.tell(*[self.drop(key) for key in keys])

    def play(self, *steps: Step) -> None:
        """Each a file of the inbox that is dropped and told of, perhaps with what it says; or
        minutes that pass. "?key" is dropped and not told of, "-key" deleted, "=v1" told of."""
        for step in steps:
            if isinstance(step, tuple):
                name, said = step
                seen = self.drop(f"inbox/{name.removeprefix('?')}", said)
                self.tell(*[] if name.startswith("?") else [seen])
            elif not isinstance(step, str):
                self.pass_time(step)
            elif step == SWEEP:
                self.sweep()
            elif step.startswith("-"):
                del self.uploads[f"inbox/{step[1:]}"]
            elif step.startswith("="):
                self.tell(self.seen[step[1:]])
            else:
                self.play((step, "x"))

    def note_in_log(self, what: str, versions: Iterable[str]) -> None:
        minutes = (self.time - self.begun) // timedelta(minutes=1)
        files = [
            f"{self.seen[version].key.removeprefix('inbox/')}@{version.removeprefix('v')}"
            for version in versions
        ]
        self.log.append(" ".join([f"{minutes} {what}", *files]))

    @contextmanager
    def crash_at(self, method: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as crash, pytest.raises(AttributeError):
            crash.delattr(World, method)
            yield

    def pass_time(self, minutes: float) -> None:
        """Let the queue hand out what comes due meanwhile."""
        until = self.time + timedelta(minutes=minutes)
        while self.messages and min(self.messages)[0] <= until:
            due, message = min(self.messages)
            self.messages.remove((due, message))
            self.time = due
            told = message_in(message)
            if isinstance(told, Sweep):
                self.inbox_sweep.go_on(told)
            else:
                self._take_in(told)
        self.time = until

    def sweep(self) -> None:
        """All of it, and what follows from it within ten minutes."""
        self.send(Sweep(sweep=SweepPosition()), 1)
        self.pass_time(minutes=10)

    # What intake asks for

    def current_versions(self, bucket: str, *prefixes: str) -> Iterator[ObjectVersion]:
        assert bucket == UPLOADS
        for prefix in prefixes:
            self.listed_prefixes.append(prefix)
            yield from (
                self.uploads[key]
                for key in sorted(self.uploads)
                if key.startswith(prefix) and "/" not in key.removeprefix(prefix)
            )

    def is_versioned(self, bucket: str) -> bool:
        assert bucket == UPLOADS
        return self.versioned

    def page(self, bucket: str, prefix: str, after: str | None) -> Page:
        assert bucket == UPLOADS
        keys = sorted(key for key in self.uploads if key.startswith(prefix) and key > (after or ""))
        return Page(
            tuple(self.uploads[key] for key in keys[:3]), keys[2] if len(keys) > 3 else None
        )

    def read(self, bucket: str, pinned: Input) -> bytes:
        assert bucket == UPLOADS
        assert pinned.key.lower().endswith((".json", ".txt"))
        return self.bodies[pinned.version_id]

    def text(self, bucket: str, key: str) -> str | None:
        assert bucket == VIDEOS
        return self.files.get(key)

    def has(self, bucket: str, key: str) -> bool:
        assert bucket == VIDEOS
        return key in self.files

    def put_json(self, bucket: str, key: str, document: str) -> None:
        assert bucket == VIDEOS
        self.files[key] = document

    def delete(self, bucket: str, key: str) -> None:
        assert bucket == VIDEOS
        del self.files[key]

    def start(self, job: Job) -> None:
        assert job.dry_run or job.id in self.drops, "started before its drop was noted"
        self.starts += 1
        what = " ".join(["start", *(f"!{problem.file}" for problem in job.problems)])
        self.note_in_log(what, [one.version_id for one in job.inputs])
        there = self.jobs.setdefault(job.id, job)
        assert there == job.model_copy(update={"dropped_at": there.dropped_at})

    def claim(self, fingerprint: str, job: Job) -> Job:
        return self.claims.setdefault(fingerprint, job)

    def is_answered(self, bucket: str, key: str, version_id: str) -> bool:
        return (key, version_id) in self.noted | self.answered

    def unanswered(
        self, bucket: str, pins: Iterable[tuple[str, str]]
    ) -> frozenset[tuple[str, str]]:
        return frozenset(pins) - self.noted - self.answered

    def note_answered(self, bucket: str, key: str, version_id: str) -> None:
        self.answered.add((key, version_id))

    def note(self, job_id: str, bucket: str, key: str, version_id: str) -> None:
        assert job_id in self.jobs, "noted before it was started"
        self.noted.add((key, version_id))

    def note_used(self, bucket: str, key: str, version_id: str) -> None:
        self.used.add((key, version_id))

    def was_used(self, bucket: str, key: str, version_id: str) -> bool:
        return (key, version_id) in self.used

    def note_drop(self, job: Job) -> None:
        assert job.dropped_at is not None
        self.drops.append(job.id)

    def send(self, message: BaseModel, delay_seconds: int) -> None:
        assert 0 < delay_seconds <= 900
        due = self.time + timedelta(seconds=delay_seconds)
        self.messages.append((due, message.model_dump_json()))

    def announce(
        self, detail_type: DetailType, detail: BaseModel, resources: Sequence[str] = ()
    ) -> None:
        assert detail_type is DetailType.UPLOAD_INCOMPLETE
        assert isinstance(detail, UploadIncomplete)
        self.announced.append(detail)
        self.note_in_log("incomplete", [one.version_id for one in detail.uploads])

    # What the tests look at

    @property
    def job(self) -> Job:
        """The only one."""
        (job,) = self.jobs.values()
        return job

    @property
    def stems(self) -> list[str]:
        return sorted(job.stem for job in self.jobs.values())

    @property
    def pinned(self) -> list[set[tuple[str, str]]]:
        return [{(one.key, one.version_id) for one in job.inputs} for job in self.jobs.values()]
