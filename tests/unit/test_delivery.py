import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dropreel.model.errors import (
    DropreelError,
    NoCredit,
    RenderCancelled,
    RenderFailed,
    RenderModerated,
    RenderRejected,
    RequestForgotten,
    ResultMissing,
    ResultRefused,
    ResultUnavailable,
)
from dropreel.model.events import (
    AttemptSummary,
    IncompleteUpload,
    JobSummary,
    UploadIncomplete,
    VideoFailed,
    VideoReady,
)
from dropreel.model.job import Role
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import Next, Progress, Underway
from dropreel.model.provider import (
    Answer,
    FailureCause,
    RenderLost,
    RenderState,
    Result,
    UnknownRequest,
)
from dropreel.outcome.delivery import Concluded, Overtaken, VideoCopy, deliver
from tests.support.render_fakes import (
    JOB,
    NOON,
    PLAN,
    RUNCOMFY,
    TICKET,
    WAVESPEED,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)
from tests.support.videos import HEIGHT, WIDTH, padded, tiny_video

MACHINE = Path(__file__).parents[2] / "statemachine" / "render.asl.yaml"
DELIVERED_AT = NOON + timedelta(seconds=80)
URL = "https://cdn.example/video.mp4?signature=secret"
RESULT = Result(video_url=URL)
VIDEOS = "videos"
MIB = 1024**2

UNDERWAY = Underway(
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

SECOND_RUN = UNDERWAY.model_copy(
    update={
        "plan": PLAN.model_copy(update={"job": JOB.model_copy(update={"run": 2})}),
        "started_at": NOON + timedelta(hours=1),
    }
)


class Bucket:
    """A versioned bucket in memory, which can refuse a part."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[str, bytes]] = {}
        self.now = NOON - timedelta(hours=1)
        self.times: dict[str, datetime] = {}
        self.open_uploads: list[OpenUpload] = []
        self.writes = 0
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


class Results(ScriptedProvider):
    """A provider, as far as deliver knows one."""

    def __init__(self, answer: Result | Exception = RESULT, *, asked_for: str = "req-1") -> None:
        super().__init__()
        self.answer = answer
        self.asked_for = asked_for

    def result(self, request_id: str) -> Result:
        assert request_id == self.asked_for
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
    ledger: MemoryLedger | None = None,
    underway: Underway = UNDERWAY,
) -> VideoReady:
    ticks = iter([100.0, 103.21])
    return deliver(
        underway,
        ledger=ledger or MemoryLedger(),
        providers=by_name(provider or Results()),
        storage=bucket,
        fetch=fetch,
        video_bucket=VIDEOS,
        now=lambda: DELIVERED_AT,
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
        "nsfw": None,
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
                completed_at=NOON + timedelta(seconds=9),
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


def test_the_manifest_says_what_was_changed_of_the_files() -> None:
    changes = ("anna.heic became a JPEG.",)
    underway = UNDERWAY.model_copy(update={"plan": PLAN.model_copy(update={"changes": changes})})

    assert delivered(Bucket(), Fetches(tiny_video()), underway=underway).changes == changes


@pytest.mark.parametrize("nsfw", [True, False, None])
def test_the_manifest_says_what_the_providers_detector_found(nsfw: bool | None) -> None:
    provider = Results(Result(video_url=URL, nsfw=nsfw))

    assert delivered(Bucket(), Fetches(tiny_video()), provider=provider).video.nsfw is nsfw


def test_the_manifest_lists_each_attempt_with_its_outcome() -> None:
    # Given a job that WaveSpeed refused, and that RunComfy has rendered since
    ledger = MemoryLedger()
    refused = ledger.begin(JOB.id, Next(), WAVESPEED, NOON)
    assert refused
    ledger.refuse(refused, "NoCredit", "Not enough credit.")
    accepted = ledger.begin(JOB.id, Next(attempt=2, offer=1), RUNCOMFY, NOON)
    assert accepted
    ledger.accept(accepted, "req-2", NOON)
    ticket = TICKET.model_copy(update={"request_id": "req-2", "attempt": 2, "offer": 1})
    underway = UNDERWAY.model_copy(update={"ticket": ticket})

    ready = delivered(
        Bucket(),
        Fetches(tiny_video()),
        provider=Results(asked_for="req-2"),
        ledger=ledger,
        underway=underway,
    )

    assert ready.render.attempts == (
        AttemptSummary(
            number=1,
            provider="wavespeed",
            model=WAVESPEED.endpoint,
            request_id=None,
            outcome="NoCredit",
            message="Not enough credit.",
        ),
        AttemptSummary(
            number=2,
            provider="runcomfy",
            model=RUNCOMFY.endpoint,
            request_id="req-2",
            outcome="VideoReady",
        ),
    )


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


# The ledger's history


def test_delivered_run_has_ended_and_says_so_again_when_called_again() -> None:
    bucket, ledger = Bucket(), MemoryLedger()

    for _ in range(2):
        delivered(bucket, Fetches(tiny_video()), ledger=ledger)

    [run] = ledger.runs(JOB.id)
    assert (run.number, run.outcome, run.ended_at) == (1, "VideoReady", DELIVERED_AT)


class AwayLedger(MemoryLedger):
    def end(self, *_: object) -> None:
        raise OSError("DynamoDB is away")


def test_delivery_that_the_ledger_did_not_take_is_tried_again_and_copies_nothing_again() -> None:
    bucket, ledger = Bucket(), MemoryLedger()
    with pytest.raises(OSError, match="away"):
        delivered(bucket, Fetches(tiny_video()), ledger=AwayLedger())

    delivered(bucket, again := Fetches(tiny_video()), ledger=ledger)

    assert again.calls == 0
    assert [run.outcome for run in ledger.runs(JOB.id)] == ["VideoReady"]


@pytest.mark.parametrize("error", [ResultUnavailable("cut"), ResultRefused("HTML")])
def test_delivery_that_failed_leaves_the_run_open(error: Exception) -> None:
    ledger = MemoryLedger()

    with pytest.raises(type(error)):
        delivered(Bucket(), Fetches(tiny_video(), error=error), ledger=ledger)

    assert ledger.runs(JOB.id) == ()


def test_video_of_a_run_that_was_told_as_failed_meanwhile_does_not_appear() -> None:
    # Given an execution that was aborted, and concluded, while its video was copied
    bucket, ledger = Bucket(), MemoryLedger()
    bucket.put("team/anna.error.json", b"{}")
    ledger.close(JOB, NOON + timedelta(seconds=75))

    with pytest.raises(Concluded):
        delivered(bucket, Fetches(tiny_video()), ledger=ledger)

    assert set(bucket.objects) == {"team/anna.error.json"}
    assert not bucket.open_uploads


def test_what_concluded_an_execution_of_the_same_name_long_ago_stops_no_delivery() -> None:
    bucket, ledger = Bucket(), MemoryLedger()
    ledger.close(JOB, NOON - timedelta(days=91))

    delivered(bucket, Fetches(tiny_video()), ledger=ledger)

    assert "team/anna.mp4" in bucket.objects


@pytest.mark.parametrize("concluded_after", [timedelta(minutes=1), timedelta(hours=2)])
def test_later_run_delivers_what_the_first_could_not(concluded_after: timedelta) -> None:
    # Given a first run whose delivery failed, and which was concluded, perhaps late
    bucket, ledger = Bucket(), MemoryLedger()
    ledger.close(JOB, NOON + concluded_after)

    delivered(bucket, Fetches(tiny_video()), ledger=ledger, underway=SECOND_RUN)

    assert [run.outcome for run in ledger.runs(JOB.id)] == [None, "VideoReady"]


def test_later_run_tells_as_its_own_what_an_earlier_one_delivered() -> None:
    bucket, ledger = Bucket(), MemoryLedger()
    first = delivered(bucket, Fetches(tiny_video()), ledger=ledger)

    second = delivered(bucket, again := Fetches(tiny_video()), ledger=ledger, underway=SECOND_RUN)

    assert again.calls == 0
    assert (second.job.run, second.video) == (2, first.video)
    assert VideoReady.model_validate_json(bucket.objects["team/anna.json"][1]) == second


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


# Two jobs of one stem

CORRECTED = JOB.model_copy(update={"id": "anna-fedcba9876543210"})
LATER = NOON + timedelta(seconds=30)
NEWER = UNDERWAY.model_copy(
    update={"plan": PLAN.model_copy(update={"job": CORRECTED}), "started_at": LATER}
)
OWN_KEYS = {f"team/anna.{JOB.id}.mp4", f"team/anna.{JOB.id}.json"}


def error_file(underway: Underway) -> bytes:
    failed = VideoFailed(
        error=ResultUnavailable("cut").report,
        job=JobSummary.of(underway.plan.job, underway.started_at),
        inputs=(),
    )
    return failed.model_dump_json().encode()


@pytest.mark.parametrize("in_error", [UNDERWAY, NEWER])
def test_the_older_video_of_two_comes_to_lie_beside_the_newer_one(in_error: Underway) -> None:
    # Given the video of a corrected file, and an error file beside it
    bucket = Bucket()
    delivered(bucket, Fetches(tiny_video()), underway=NEWER)
    bucket.put("team/anna.error.json", error_file(in_error))
    before = dict(bucket.objects)

    older = delivered(bucket, Fetches(padded(tiny_video(), 5000)))

    assert older.video.key == f"team/anna.{JOB.id}.mp4"
    assert (older.job.id, older.job.started_at) == (JOB.id, NOON)
    assert set(bucket.objects) == {*before, *OWN_KEYS}
    assert before.items() <= bucket.objects.items()
    version, body = bucket.objects[older.video.key]
    assert (version, len(body)) == (older.video.version_id, 5000)
    manifest = bucket.objects[f"team/anna.{JOB.id}.json"][1]
    assert VideoReady.model_validate_json(manifest) == older


def test_the_older_video_of_two_is_delivered_once() -> None:
    bucket = Bucket()
    delivered(bucket, Fetches(tiny_video()), underway=NEWER)
    first = delivered(bucket, Fetches(tiny_video()))

    assert delivered(bucket, again := Fetches(tiny_video())) == first

    assert again.calls == 0


def test_the_newer_video_of_two_takes_the_plain_name() -> None:
    bucket = Bucket()
    delivered(bucket, Fetches(tiny_video()))

    newer = delivered(bucket, Fetches(tiny_video()), underway=NEWER)

    assert newer.video.key == "team/anna.mp4"
    assert set(bucket.objects) == {"team/anna.mp4", "team/anna.json"}


def test_a_video_that_is_overtaken_while_it_is_copied_goes_over_nothing() -> None:
    bucket = Bucket()

    class SlowFetches(Fetches):
        def __call__(self, fresh_url: Callable[[], str], sink: VideoCopy) -> None:
            super().__call__(fresh_url, sink)
            delivered(bucket, Fetches(tiny_video()), underway=NEWER)

    with pytest.raises(Overtaken):
        delivered(bucket, SlowFetches(tiny_video()))

    manifest = bucket.objects["team/anna.json"][1]
    assert VideoReady.model_validate_json(manifest).job.id == CORRECTED.id
    assert set(bucket.objects) == {"team/anna.mp4", "team/anna.json"}
    assert not bucket.open_uploads
    assert delivered(bucket, Fetches(tiny_video())).video.key in OWN_KEYS


@pytest.mark.parametrize("underway", [UNDERWAY, NEWER])
def test_success_removes_only_an_error_file_that_is_not_of_a_later_job(underway: Underway) -> None:
    bucket = Bucket()
    bucket.put("team/anna.error.json", error_file(underway))

    delivered(bucket, Fetches(tiny_video()))

    assert ("team/anna.error.json" in bucket.objects) == (underway is NEWER)


@pytest.mark.parametrize("after_seconds", [-30, 30])
def test_success_removes_only_what_waited_in_vain_before_the_job(after_seconds: int) -> None:
    bucket = Bucket()
    incomplete = UploadIncomplete(
        folder="team/",
        stem="anna",
        uploads=(IncompleteUpload(bucket="uploads", key="k", version_id="v", size_bytes=1),),
        missing=(Role.AUDIO,),
        waited_minutes=60,
        message="",
    )
    bucket.now = NOON + timedelta(seconds=after_seconds)
    bucket.put("team/anna.error.json", incomplete.model_dump_json().encode())

    delivered(bucket, Fetches(tiny_video()))

    assert ("team/anna.error.json" in bucket.objects) == (after_seconds > 0)


def test_a_job_that_does_not_know_its_start_takes_the_plain_name() -> None:
    bucket = Bucket()
    delivered(bucket, Fetches(tiny_video()), underway=NEWER)
    unknown = UNDERWAY.model_copy(update={"started_at": None})

    assert delivered(bucket, Fetches(tiny_video()), underway=unknown).video.key == "team/anna.mp4"


def test_the_state_machine_gives_up_a_paid_video_only_when_that_is_certain() -> None:
    machine = yaml.safe_load(MACHINE.read_text())
    (branch,) = machine["States"]["Render"]["Branches"]
    deliver_state = branch["States"]["Deliver"]
    _, definite, all_else = deliver_state["Retry"]
    uncertain = {"ResultMissing", "ResultUnavailable", "RequestForgotten", "Overtaken"}

    assert "ResultRefused" in definite["ErrorEquals"]
    assert not uncertain & set(definite["ErrorEquals"])
    assert definite["MaxAttempts"] == 0
    assert all_else["ErrorEquals"] == ["States.TaskFailed", "States.Timeout"]
    assert all_else["MaxAttempts"] >= 6
    assert "$states.context.Execution.StartTime" in deliver_state["Arguments"]["Payload"]


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
        (Results(Result(video_url=None)), Fetches(b""), ResultMissing),
        (Results(UnknownRequest("req-1")), Fetches(b""), RequestForgotten),
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


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(state=RenderState.FAILED, message="GPU lost"), RenderFailed),
        (Answer(state=RenderState.FAILED, cause=FailureCause.MODERATED), RenderModerated),
        (Answer(state=RenderState.FAILED, cause=FailureCause.BAD_INPUT), RenderRejected),
        (Answer(state=RenderState.FAILED, cause=FailureCause.NO_CREDIT), NoCredit),
        (Answer(state=RenderState.CANCELLED), RenderCancelled),
    ],
)
def test_a_result_that_tells_of_a_loss_ends_as_it_does_for_poll(
    answer: Answer, error: type[DropreelError]
) -> None:
    ledger = MemoryLedger()
    attempt = ledger.begin(JOB.id, Next(), RUNCOMFY, NOON)
    assert attempt
    ledger.accept(attempt, "req-1", NOON)

    with pytest.raises(error):
        delivered(
            Bucket(), Fetches(tiny_video()), provider=Results(RenderLost(answer)), ledger=ledger
        )

    (lost,) = ledger.attempts(JOB.id)
    assert lost.state is AttemptState.LOST


def test_the_older_drop_stays_beside_the_newer_one_when_it_is_run_again_much_later() -> None:
    newer_job = NEWER.plan.job.model_copy(update={"dropped_at": NOON + timedelta(minutes=5)})
    older_job = JOB.model_copy(update={"dropped_at": NOON, "run": 2})
    newer, older = (
        UNDERWAY.model_copy(
            update={"plan": PLAN.model_copy(update={"job": job}), "started_at": started_at}
        )
        for job, started_at in (
            (newer_job, NOON + timedelta(minutes=5)),
            (older_job, NOON + timedelta(hours=9)),
        )
    )
    bucket = Bucket()
    delivered(bucket, Fetches(tiny_video()), underway=newer)
    before = dict(bucket.objects)

    late = delivered(bucket, Fetches(tiny_video()), underway=older)

    assert late.video.key == f"team/anna.{JOB.id}.mp4"
    assert before.items() <= bucket.objects.items()


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
