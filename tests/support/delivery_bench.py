"""Deliver with everything around it replaced."""

from collections.abc import Callable
from datetime import datetime, timedelta

from dropreel.model.events import VideoReady
from dropreel.model.job import Job
from dropreel.model.messages import ActiveRender, Progress
from dropreel.model.provider import RenderState, Result, Ticket
from dropreel.outcome.delivery import VideoCopy, deliver
from dropreel.outcome.ownership import AnsweredDrop
from tests.support.render_fakes import (
    JOB,
    NOON,
    PLAN,
    TICKET,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)
from tests.support.videos import tiny_video

DELIVERED_AT = NOON + timedelta(seconds=80)
URL = "https://cdn.example/video.mp4?signature=secret"
RESULT = Result(video_url=URL)
VIDEOS = "videos"
MIB = 1024**2

KEY, MANIFEST, ERROR_FILE = "team/anna.mp4", "team/anna.json", "team/anna.error.json"

UNDERWAY = ActiveRender(
    plan=PLAN,
    ticket=TICKET,
    progress=Progress(
        state=RenderState.COMPLETED,
        wait_seconds=0,
        rendering_since=NOON + timedelta(seconds=12.34),
        completed_at=NOON + timedelta(seconds=72.34),
    ),
    started_at=NOON,
)


def underway_of(job: Job, after: timedelta) -> ActiveRender:
    plan = PLAN.model_copy(update={"job": job})
    return UNDERWAY.model_copy(update={"plan": plan, "started_at": NOON + after})


SECOND_RUN = underway_of(JOB.model_copy(update={"run": 2}), timedelta(hours=1))
CORRECTED = JOB.model_copy(update={"id": "anna-fedcba9876543210"})
NEWER = underway_of(CORRECTED, timedelta(seconds=30))
OWN_KEYS = {f"team/anna.{JOB.id}.mp4", f"team/anna.{JOB.id}.json"}


class Bucket:
    """A versioned bucket in memory, which can refuse a part."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[str, bytes]] = {}
        self.now = NOON - timedelta(hours=1)
        self.times: dict[str, datetime] = {}
        self.open_uploads: list[OpenUpload] = []
        self.writes = 0
        self.sizes: list[int] = []  # of all parts
        self.failing_part = 0

    def put(self, key: str, body: bytes) -> str:
        self.writes += 1
        self.objects[key] = (f"v{self.writes}", body)
        self.times[key] = self.now
        return self.objects[key][0]

    def begin_upload(self, bucket: str, key: str, content_type: str) -> "OpenUpload":
        assert (bucket, content_type) == (VIDEOS, "video/mp4")
        upload = OpenUpload(self, key)
        self.open_uploads.append(upload)
        return upload

    def current_version(self, bucket: str, key: str) -> str | None:
        return self.objects[key][0] if key in self.objects else None

    def text(self, bucket: str, key: str) -> str | None:
        return self.objects[key][1].decode() if key in self.objects else None

    def written_at(self, bucket: str, key: str) -> datetime | None:
        return self.times.get(key)

    def put_json(self, bucket: str, key: str, document: str) -> None:
        self.put(key, document.encode())

    def delete(self, bucket: str, key: str) -> None:
        del self.objects[key]

    @property
    def manifest(self) -> VideoReady:
        return VideoReady.model_validate_json(self.objects[MANIFEST][1])


class OpenUpload:
    def __init__(self, bucket: Bucket, key: str) -> None:
        self.bucket, self.key = bucket, key
        self.parts: list[bytes] = []

    def add(self, body: bytes) -> None:
        self.parts.append(body)
        self.bucket.sizes.append(len(body))
        if len(self.parts) == self.bucket.failing_part:
            raise OSError("S3 is away")

    def complete(self) -> str:
        self.bucket.open_uploads.remove(self)
        return self.bucket.put(self.key, b"".join(self.parts))

    def abort(self) -> None:
        self.bucket.open_uploads.remove(self)


class Results(ScriptedProvider):
    """A provider, as far as deliver knows one."""

    def __init__(self, answer: Result | Exception = RESULT, *, asked_for: str = "req-1") -> None:
        super().__init__()
        self.answer = answer
        self.asked_for = asked_for

    def result(self, ticket: Ticket) -> Result:
        assert ticket.request_id == self.asked_for
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Fetches:
    """Hands a body to the copy."""

    def __init__(
        self,
        body: bytes | None = None,
        *,
        error: Exception | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self.body = tiny_video() if body is None else body
        self.error, self.meanwhile = error, meanwhile
        self.calls = 0

    def __call__(self, url: str, sink: VideoCopy) -> None:
        self.calls += 1
        assert url == URL
        for start in range(0, len(self.body), MIB):
            sink.write(self.body[start : start + MIB])
        self.meanwhile()
        if self.error:
            raise self.error


def delivered(
    bucket: Bucket,
    fetch: Fetches | None = None,
    *,
    provider: Results | None = None,
    ledger: MemoryLedger | None = None,
    render: ActiveRender = UNDERWAY,
    drop: AnsweredDrop | None = None,
    delete_record: bool = False,
) -> VideoReady:
    ticks = iter([100.0, 103.21])
    return deliver(
        render,
        ledger=ledger or MemoryLedger(),
        providers=by_name(provider or Results()),
        storage=bucket,
        fetch=fetch or Fetches(),
        version="1.2.3",
        delete_record=delete_record,
        video_bucket=VIDEOS,
        answered_drop=lambda job: drop,
        now=lambda: DELIVERED_AT,
        clock=lambda: next(ticks),
    )
