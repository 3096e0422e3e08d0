import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.catalog import AudioFormat, ImageFormat, ProviderName
from dropreel.delivery import VideoCopy, deliver
from dropreel.errors import (
    RequestForgotten,
    ResultMissing,
    ResultRefused,
    ResultUnavailable,
)
from dropreel.events import VideoReady
from dropreel.job import Input, Job, Role
from dropreel.provider import Provider, RenderState, UnknownRequest
from dropreel.render import AudioFacts, ImageFacts, Plan, Progress, Ticket, Underway
from tests.videos import HEIGHT, WIDTH, padded, tiny_video

URL = "https://cdn.example/video.mp4?signature=secret"
VIDEOS = "videos"
SUBMITTED = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MIB = 1024**2

JOB = Job(
    id="anna-0123456789abcdef",
    bucket="uploads",
    folder="team/",
    stem="anna",
    model="wan-2.2-speech-to-video",
    inputs=(
        Input(role=Role.IMAGE, key="inbox/team/anna.png", version_id="i1", size_bytes=10),
        Input(role=Role.AUDIO, key="inbox/team/anna.mp3", version_id="a1", size_bytes=20),
    ),
)
UNDERWAY = Underway(
    plan=Plan(
        job=JOB,
        provider=ProviderName.RUNCOMFY,
        endpoint="wan-ai/wan-2-2/speech-to-video",
        image=ImageFacts(format=ImageFormat.PNG, width=500, height=500, size_bytes=10),
        audio=AudioFacts(format=AudioFormat.MP3, duration_seconds=5, size_bytes=20),
    ),
    ticket=Ticket(
        provider=ProviderName.RUNCOMFY, request_id="r-1", attempt=1, submitted_at=SUBMITTED
    ),
    progress=Progress(
        state=RenderState.COMPLETED,
        wait_seconds=0,
        rendering_since=SUBMITTED + timedelta(seconds=12.34),
        completed_at=SUBMITTED + timedelta(seconds=72.34),
    ),
)


class Bucket:
    """A versioned bucket in memory, which can refuse a part."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[str, bytes]] = {}
        self.open_uploads: list[OpenUpload] = []
        self.writes = 0
        self.failing_part = 0

    def put(self, key: str, body: bytes) -> str:
        self.writes += 1
        self.objects[key] = (f"v{self.writes}", body)
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

    def put_json(self, bucket: str, key: str, document: str) -> None:
        self.put(key, document.encode())

    def delete(self, bucket: str, key: str) -> None:
        del self.objects[key]


class OpenUpload:
    def __init__(self, bucket: Bucket, key: str) -> None:
        self.bucket, self.key = bucket, key
        self.parts: list[bytes] = []

    def add(self, body: bytes) -> None:
        self.parts.append(body)
        if len(self.parts) == self.bucket.failing_part:
            raise OSError("S3 is away")

    def complete(self) -> str:
        self.bucket.open_uploads.remove(self)
        return self.bucket.put(self.key, b"".join(self.parts))

    def abort(self) -> None:
        self.bucket.open_uploads.remove(self)


class Results:
    """A provider, as far as deliver knows one."""

    def __init__(self, answer: str | Exception | None = URL) -> None:
        self.answer = answer

    def video_url(self, request_id: str) -> str | None:
        assert request_id == UNDERWAY.ticket.request_id
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Fetches:
    """Hands a body to the copy; what went before is what a cut connection left behind."""

    def __init__(self, body: bytes, *, before: bytes = b"", error: Exception | None = None) -> None:
        self.body, self.before, self.error = body, before, error
        self.calls = 0

    def __call__(self, fresh_url: Callable[[], str], sink: VideoCopy) -> None:
        self.calls += 1
        assert fresh_url() == URL
        if self.before:
            sink.begin()
            sink.write(self.before)
        sink.begin()
        for start in range(0, len(self.body), MIB):
            sink.write(self.body[start : start + MIB])
        if self.error:
            raise self.error


def delivered(
    bucket: Bucket,
    fetch: Fetches,
    *,
    provider: Results | None = None,
    underway: Underway = UNDERWAY,
) -> VideoReady:
    ticks = iter([100.0, 103.21])
    return deliver(
        underway,
        provider=cast(Provider, provider or Results()),
        storage=bucket,
        fetch=fetch,
        video_bucket=VIDEOS,
        clock=lambda: next(ticks),
    )


def test_the_video_and_its_manifest_lie_where_the_uploads_lay() -> None:
    bucket = Bucket()

    ready = delivered(bucket, Fetches(tiny_video()))

    version, body = bucket.objects["team/anna.mp4"]
    assert body == tiny_video()
    assert ready.video.model_dump() == {
        "bucket": VIDEOS,
        "key": "team/anna.mp4",
        "version_id": version,
        "size_bytes": len(body),
        "duration_seconds": 1.0,
        "width": WIDTH,
        "height": HEIGHT,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    manifest = bucket.objects["team/anna.json"][1]
    assert VideoReady.model_validate_json(manifest) == ready
    assert manifest.startswith(b'{\n  "')


def test_the_manifest_says_how_long_each_part_took() -> None:
    render = delivered(Bucket(), Fetches(tiny_video())).render

    assert (render.queued_seconds, render.rendering_seconds) == (12.3, 60.0)
    assert render.copying_seconds == 3.2


@pytest.mark.parametrize(
    ("progress", "queued_seconds"),
    [
        (None, 0.0),
        (
            Progress(
                state=RenderState.COMPLETED,
                wait_seconds=0,
                completed_at=SUBMITTED + timedelta(seconds=9),
            ),
            9.0,
        ),
    ],
)
def test_a_render_that_no_poll_saw_begin_was_all_queue(
    progress: Progress | None, queued_seconds: float
) -> None:
    underway = UNDERWAY.model_copy(update={"progress": progress})

    render = delivered(Bucket(), Fetches(tiny_video()), underway=underway).render

    assert (render.queued_seconds, render.rendering_seconds) == (queued_seconds, 0.0)


def test_neither_the_manifest_nor_the_answer_holds_the_url() -> None:
    bucket = Bucket()

    ready = delivered(bucket, Fetches(tiny_video()))

    assert "cdn.example" not in ready.model_dump_json()
    assert b"cdn.example" not in bucket.objects["team/anna.json"][1]


def test_success_removes_the_error_file_and_nothing_else() -> None:
    bucket = Bucket()
    bucket.put("team/anna.error.json", b"{}")
    bucket.put("team/anna2.error.json", b"{}")

    delivered(bucket, Fetches(tiny_video()))

    assert set(bucket.objects) == {"team/anna.mp4", "team/anna.json", "team/anna2.error.json"}


def test_a_large_video_goes_up_in_parts_of_which_only_the_last_is_small() -> None:
    bucket = Bucket()
    body = padded(tiny_video(), 20 * MIB)
    sizes: list[int] = []
    bucket_add = OpenUpload.add

    def add(self: OpenUpload, part: bytes) -> None:
        sizes.append(len(part))
        bucket_add(self, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenUpload, "add", add)
        delivered(bucket, Fetches(body))

    assert sizes == [8 * MIB, 8 * MIB, 4 * MIB]
    assert bucket.objects["team/anna.mp4"][1] == body


def test_a_second_call_answers_the_same_and_copies_nothing() -> None:
    bucket = Bucket()
    first = delivered(bucket, Fetches(tiny_video()))
    bucket.put("team/anna.error.json", b"{}")
    again = Fetches(tiny_video())

    assert delivered(bucket, again) == first

    assert again.calls == 0
    assert "team/anna.error.json" not in bucket.objects


def spoil_request(ready: VideoReady) -> VideoReady:
    render = ready.render.model_copy(update={"request_id": "r-0"})
    return ready.model_copy(update={"render": render})


def spoil_job(ready: VideoReady) -> VideoReady:
    return ready.model_copy(update={"job": ready.job.model_copy(update={"id": "anna-0"})})


@pytest.mark.parametrize("spoil", [spoil_request, spoil_job])
def test_a_manifest_of_another_render_does_not_stop_this_one(
    spoil: Callable[[VideoReady], VideoReady],
) -> None:
    bucket = Bucket()
    other = spoil(delivered(bucket, Fetches(tiny_video())))
    bucket.put("team/anna.json", other.model_dump_json().encode())

    delivered(bucket, fetch := Fetches(tiny_video()))

    assert fetch.calls == 1


@pytest.mark.parametrize("document", [b"", b"not json", b'{"mine": true}', b"[]"])
def test_a_manifest_that_is_none_of_ours_does_not_stop_the_delivery(document: bytes) -> None:
    bucket = Bucket()
    bucket.put("team/anna.json", document)

    ready = delivered(bucket, Fetches(tiny_video()))

    assert VideoReady.model_validate_json(bucket.objects["team/anna.json"][1]) == ready


def test_a_video_that_was_deleted_since_is_delivered_again() -> None:
    bucket = Bucket()
    delivered(bucket, Fetches(tiny_video()))
    bucket.delete(VIDEOS, "team/anna.mp4")

    delivered(bucket, Fetches(tiny_video()))

    assert bucket.objects["team/anna.mp4"][1] == tiny_video()


def test_what_a_cut_connection_left_behind_is_forgotten() -> None:
    bucket = Bucket()

    ready = delivered(bucket, Fetches(tiny_video(), before=tiny_video()[:500]))

    assert bucket.objects["team/anna.mp4"][1] == tiny_video()
    assert ready.video.sha256 == hashlib.sha256(tiny_video()).hexdigest()
    assert not bucket.open_uploads


@pytest.mark.parametrize(
    ("provider", "fetch", "error"),
    [
        (Results(None), Fetches(b""), ResultMissing),
        (Results(UnknownRequest("r-1")), Fetches(b""), RequestForgotten),
        (Results(), Fetches(b""), ResultRefused),
        (Results(), Fetches(b"<html>"), ResultRefused),
        (Results(), Fetches(tiny_video()[:-1]), ResultRefused),
        (Results(), Fetches(padded(tiny_video(), 9 * MIB)[:-1]), ResultRefused),
        (Results(), Fetches(tiny_video(), error=ResultUnavailable("cut")), ResultUnavailable),
        (Results(), Fetches(tiny_video(), error=KeyError("a bug")), KeyError),
    ],
)
def test_a_delivery_that_fails_leaves_no_object_and_no_unfinished_upload(
    provider: Results, fetch: Fetches, error: type[Exception]
) -> None:
    bucket = Bucket()
    bucket.put("team/anna.error.json", b"{}")

    with pytest.raises(error) as caught:
        delivered(bucket, fetch, provider=provider)

    assert set(bucket.objects) == {"team/anna.error.json"}
    assert not bucket.open_uploads
    assert "cdn.example" not in str(caught.value)


def test_the_reason_for_giving_up_survives_an_abort_that_fails() -> None:
    bucket = Bucket()
    bucket.failing_part = 1

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="S3 is away"):
        patch.delattr(OpenUpload, "abort")
        delivered(bucket, Fetches(tiny_video()))

    assert not bucket.objects


@given(cuts=st.lists(st.integers(min_value=0, max_value=len(tiny_video()))))
def test_what_arrives_is_what_was_sent_however_it_was_cut(cuts: list[int]) -> None:
    bucket = Bucket()
    copy = VideoCopy(lambda: bucket.begin_upload(VIDEOS, "anna.mp4", "video/mp4"))
    edges = [0, *sorted(cuts), len(tiny_video())]

    copy.begin()
    for start, end in pairwise(edges):
        copy.write(tiny_video()[start:end])
    video = copy.finish(VIDEOS, "anna.mp4")

    assert bucket.objects["anna.mp4"][1] == tiny_video()
    assert video.sha256 == hashlib.sha256(tiny_video()).hexdigest()
    assert video.size_bytes == len(tiny_video())
