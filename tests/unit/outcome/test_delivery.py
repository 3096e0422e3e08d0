"""Deliver: the video and its manifest, once, whatever lies there and whatever fails."""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dropreel.model import errors
from dropreel.model.errors import ExecutionAborted, ResultRefused, ResultUnavailable
from dropreel.model.events import (
    IncompleteJob,
    IncompleteUpload,
    JobSummary,
    StoredFile,
    UploadIncomplete,
    VideoFailed,
    VideoReady,
)
from dropreel.model.job import Input, Role
from dropreel.model.ledger import AttemptState, Outcome
from dropreel.model.messages import ActiveRender, NextAttempt, PlannedOffer, Progress
from dropreel.model.provider import (
    Answer,
    FailureCause,
    RenderLost,
    RenderState,
    Result,
    Ticket,
    UnknownRequest,
    Unreachable,
)
from dropreel.outcome.delivery import Overtaken, VideoCopy
from dropreel.outcome.ownership import AnsweredDrop
from tests.support.conclusion_bench import FAILED, manifest, told
from tests.support.delivery_bench import (
    CORRECTED,
    DELIVERED_AT,
    ERROR_FILE,
    KEY,
    MANIFEST,
    MIB,
    NEWER,
    OWN_KEYS,
    SECOND_RUN,
    UNDERWAY,
    URL,
    VIDEOS,
    Bucket,
    Fetches,
    OpenUpload,
    Results,
    delivered,
    underway_of,
)
from tests.support.render_fakes import JOB, NOON, PLAN, RUNCOMFY, TICKET, WAVESPEED, MemoryLedger
from tests.support.videos import HEIGHT, WIDTH, padded, tiny_video

MACHINE = Path(__file__).parents[3] / "statemachine" / "render.asl.yaml"


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def test_video_and_manifest_lie_where_the_uploads_lay_without_the_url(bucket: Bucket) -> None:
    ready = delivered(bucket)

    version, body = bucket.objects[KEY]
    assert body == tiny_video()
    assert ready.video.model_dump() == {
        "bucket": VIDEOS,
        "key": KEY,
        "version_id": version,
        "size_bytes": len(body),
        "duration_seconds": 1.0,
        "width": WIDTH,
        "height": HEIGHT,
        "has_audio": False,
        "sha256": hashlib.sha256(body).hexdigest(),
        "nsfw": None,
    }
    assert {given.key: given.sha256 for given in ready.inputs} == PLAN.sha256
    assert bucket.manifest == ready
    assert ready.dropreel_version == "1.2.3"
    assert bucket.objects[MANIFEST][1].startswith(b'{\n  "')
    assert "cdn.example" not in ready.model_dump_json()
    assert b"cdn.example" not in bucket.objects[MANIFEST][1]


NEVER_SEEN_RENDERING = Progress(
    state=RenderState.COMPLETED, wait_seconds=0, completed_at=NOON + timedelta(seconds=9)
)


@pytest.mark.parametrize(
    ("progress", "queued_seconds", "rendering_seconds"),
    [
        (UNDERWAY.progress, 12.3, 60.0),
        (None, 0.0, 0.0),
        (NEVER_SEEN_RENDERING, 9.0, 0.0),
    ],
    ids=["seen rendering", "never seen", "seen completed only"],
)
def test_manifest_says_how_long_each_part_took(
    progress: Progress | None, queued_seconds: float, rendering_seconds: float
) -> None:
    render = UNDERWAY.model_copy(update={"progress": progress})

    told = delivered(Bucket(), render=render).render

    assert (told.queued_seconds, told.rendering_seconds) == (queued_seconds, rendering_seconds)
    assert told.copying_seconds == 3.2


def test_manifest_says_what_was_changed_and_what_the_detector_found(bucket: Bucket) -> None:
    changes = ("anna.heic became a JPEG.",)
    render = UNDERWAY.model_copy(update={"plan": PLAN.model_copy(update={"changes": changes})})
    provider = Results(Result(video_url=URL, nsfw=True))

    ready = delivered(bucket, provider=provider, render=render)

    assert (ready.changes, ready.video.nsfw) == (changes, True)


FLASH = PlannedOffer(provider="runcomfy", endpoint="wan-ai/wan-2-6/flash/image-to-video", fields={})
SILENT = "The video has no sound track, although it was made to a recording."


def made_to(voice_seconds: float | None, offer: PlannedOffer = RUNCOMFY) -> ActiveRender:
    """A render to a recording of that length."""
    facts = PLAN.audio_facts
    assert facts
    voice = facts.model_copy(update={"duration_seconds": voice_seconds})
    changes = {"route": (offer,), "audio_facts": None if voice_seconds is None else voice}
    ticket = TICKET.model_copy(update={"provider": offer.provider, "endpoint": offer.endpoint})
    plan = PLAN.model_copy(update=changes)
    return UNDERWAY.model_copy(update={"plan": plan, "ticket": ticket})


def other_length(voice_seconds: float) -> tuple[str, ...]:
    return (f"The video is 10.0 seconds long, and its recording {voice_seconds:.1f} seconds.",)


@pytest.mark.parametrize(
    ("voice_seconds", "offer", "sound", "warnings"),
    [
        (10, RUNCOMFY, True, ()),
        (10.5, RUNCOMFY, True, ()),
        (9.5, RUNCOMFY, True, ()),
        (10.6, RUNCOMFY, True, other_length(10.6)),
        (9.4, RUNCOMFY, True, other_length(9.4)),
        (8, RUNCOMFY, True, other_length(8)),
        (10, RUNCOMFY, False, (SILENT,)),
        (8, RUNCOMFY, False, (SILENT, *other_length(8))),
        (None, FLASH, False, ()),
        (None, FLASH, True, ()),
        (10, FLASH, False, (SILENT,)),
        (8, FLASH, True, ()),  # the job asked for 10 seconds
        (12, FLASH, True, other_length(12)),
    ],
)
def test_video_that_does_not_speak_its_recording_comes_with_warnings(
    bucket: Bucket,
    voice_seconds: float | None,
    offer: PlannedOffer,
    sound: bool,
    warnings: tuple[str, ...],
) -> None:
    video = Fetches(tiny_video(seconds=10, sound=sound))

    ready = delivered(bucket, video, render=made_to(voice_seconds, offer))

    assert (ready.video.has_audio, ready.voice_seconds) == (sound, voice_seconds)
    assert ready.warnings == warnings
    assert bucket.manifest == ready


@pytest.mark.parametrize(("voice_seconds", "warned"), [(10.52, False), (10.53, True)])
def test_length_of_a_long_video_may_differ_by_a_twentieth(
    bucket: Bucket, voice_seconds: float, warned: bool
) -> None:
    video = Fetches(tiny_video(seconds=10, sound=True))

    ready = delivered(bucket, video, render=made_to(voice_seconds))

    assert bool(ready.warnings) is warned


def test_video_that_states_no_length_is_not_compared(bucket: Bucket) -> None:
    video = Fetches(tiny_video("frag_keyframe+empty_moov", sound=True))

    ready = delivered(bucket, video, render=made_to(8))

    assert (ready.video.duration_seconds, ready.warnings) == (None, ())


def test_manifest_passes_on_what_the_job_was_given(bucket: Bucket) -> None:
    document = Input(
        role=Role.OPTIONS, key="o.json", version_id="v", size_bytes=1, etag="e", sha256="a" * 64
    )
    job = JOB.model_copy(
        update={
            "labels": {"customer": "4711"},
            "ignored": ("inbox/team/anna.psd",),
            "inputs": (*JOB.inputs, document),
        }
    )
    render = UNDERWAY.model_copy(update={"plan": PLAN.model_copy(update={"job": job})})

    ready = delivered(bucket, render=render)

    assert (ready.job.labels, ready.ignored) == (job.labels, job.ignored)
    assert [one.etag for one in ready.inputs] == [None, None, "e"]
    hashes = PLAN.sha256 | {document.key: document.sha256}
    assert {one.key: one.sha256 for one in ready.inputs} == hashes
    assert ready.ended_at == DELIVERED_AT


@pytest.mark.parametrize("is_late", [False, True])
def test_event_says_where_its_manifest_is(bucket: Bucket, is_late: bool) -> None:
    if is_late:
        delivered(bucket, render=NEWER)

    ready = delivered(bucket)

    assert ready.manifest.bucket == VIDEOS
    written = bucket.objects[ready.manifest.key][1]
    assert VideoReady.model_validate_json(written) == ready


def test_manifest_lists_each_attempt_with_its_outcome(bucket: Bucket) -> None:
    # Given a job that WaveSpeed refused, and that RunComfy has rendered since
    ledger = MemoryLedger()
    refused = ledger.begin(JOB.id, NextAttempt(), WAVESPEED, NOON)
    assert refused
    ledger.refuse(refused, "NoCredit", "Not enough credit.")
    accepted = ledger.begin(
        JOB.id, NextAttempt(attempt=2, offer=1), RUNCOMFY, NOON, estimated_usd=0.25
    )
    assert accepted
    ledger.accept(accepted, "req-2", NOON)
    ticket = TICKET.model_copy(update={"request_id": "req-2", "attempt": 2, "offer": 1})
    render = UNDERWAY.model_copy(update={"ticket": ticket})

    ready = delivered(bucket, provider=Results(asked_for="req-2"), ledger=ledger, render=render)

    assert ready.render.attempts == (
        told("NoCredit", "Not enough credit.", None, 1, WAVESPEED),
        told("VideoReady", "", "req-2", 2, estimated_usd=0.25),
    )
    assert ready.estimated_usd == 0.25


def rendered(estimated_usd: float | None = 0.25) -> MemoryLedger:
    ledger = MemoryLedger()
    begun = ledger.begin(JOB.id, NextAttempt(), RUNCOMFY, NOON, estimated_usd=estimated_usd)
    assert begun
    ledger.accept(begun, TICKET.request_id, NOON)
    return ledger


@pytest.mark.parametrize(
    ("in_result", "billed", "asked", "actual_usd"),
    [
        (0.21, None, [], 0.21),
        (0.0, 0.3, [], 0.0),
        (None, 0.3, ["req-1"], 0.3),
        (None, None, ["req-1"], None),  # the bill is late
        (None, Unreachable("no answer"), ["req-1"], None),
        (None, ValueError("a fault of ours"), ["req-1"], None),
    ],
)
def test_what_the_provider_charged_is_in_event_manifest_and_ledger(
    bucket: Bucket,
    in_result: float | None,
    billed: float | Exception | None,
    asked: list[str],
    actual_usd: float | None,
) -> None:
    ledger, provider = rendered(), Results(Result(video_url=URL, actual_usd=in_result))
    provider.costs = [billed]

    ready = delivered(bucket, provider=provider, ledger=ledger)

    assert (ready.actual_usd, ready.estimated_usd) == (actual_usd, 0.25)
    assert ready.render.attempts[0].actual_usd == actual_usd
    assert bucket.manifest == ready
    assert ledger.attempts(JOB.id)[0].actual_usd == actual_usd
    assert provider.billed == asked


def test_each_paid_attempt_keeps_its_own_cost(bucket: Bucket) -> None:
    ledger = rendered()
    ledger.settle(JOB.id, TICKET, 0.5)  # made the video before, which is to be made again
    begun = ledger.begin(JOB.id, NextAttempt(attempt=2), RUNCOMFY, NOON, estimated_usd=0.25)
    assert begun
    ledger.accept(begun, "req-2", NOON)
    ticket = TICKET.model_copy(update={"request_id": "req-2", "attempt": 2})
    provider = Results(Result(video_url=URL, actual_usd=0.2), asked_for="req-2")

    ready = delivered(
        bucket,
        provider=provider,
        ledger=ledger,
        render=UNDERWAY.model_copy(update={"ticket": ticket}),
    )

    assert [attempt.actual_usd for attempt in ready.render.attempts] == [0.5, 0.2]
    assert ready.actual_usd == 0.7
    assert [attempt.actual_usd for attempt in ledger.attempts(JOB.id)] == [0.5, 0.2]


def test_cost_that_the_ledger_has_is_not_asked_for_again(bucket: Bucket) -> None:
    ledger, provider = rendered(), Results()
    ledger.settle(JOB.id, TICKET, 0.3)

    ready = delivered(bucket, provider=provider, ledger=ledger)

    assert (ready.actual_usd, provider.billed) == (0.3, [])


class SlowToBill(Results):
    """Something happens while it says what a render cost."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    def cost(self, ticket: Ticket) -> float | None:
        self.meanwhile()
        return super().cost(ticket)


def test_later_video_keeps_its_names_while_the_cost_is_asked_for(bucket: Bucket) -> None:
    with pytest.raises(Overtaken):
        delivered(bucket, provider=SlowToBill(lambda: delivered(bucket, render=NEWER)))

    assert bucket.manifest.job.id == CORRECTED.id


def test_run_that_is_concluded_while_the_cost_is_asked_for_leaves_nothing(bucket: Bucket) -> None:
    ledger = rendered()

    def conclude() -> None:
        ledger.close(JOB, NOON)
        ledger.end(JOB, NOON, FAILED, NOON)

    with pytest.raises(ExecutionAborted):
        delivered(bucket, provider=SlowToBill(conclude), ledger=ledger)

    assert not bucket.objects


def test_repeated_call_notes_the_cost_that_the_first_could_not(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, provider = rendered(), Results(Result(video_url=URL, actual_usd=0.3))
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "settle", Mock(side_effect=OSError("DynamoDB is away")))
        first = delivered(bucket, provider=provider, ledger=ledger)
    assert ledger.attempts(JOB.id)[0].actual_usd is None

    assert delivered(bucket, provider=provider, ledger=ledger) == first
    assert ledger.attempts(JOB.id)[0].actual_usd == 0.3


def test_large_video_goes_up_in_parts_of_which_only_the_last_is_small(bucket: Bucket) -> None:
    body = padded(tiny_video(), 20 * MIB)

    delivered(bucket, Fetches(body))

    assert bucket.sizes == [8 * MIB, 8 * MIB, 4 * MIB]
    assert bucket.objects[KEY][1] == body


@pytest.mark.parametrize("overtaken", [False, True])
def test_second_call_answers_the_same_and_copies_nothing(bucket: Bucket, overtaken: bool) -> None:
    ledger = MemoryLedger()
    if overtaken:
        delivered(bucket, render=NEWER)
    first = delivered(bucket, ledger=ledger)
    bucket.put(ERROR_FILE, b"{}")

    assert delivered(bucket, again := Fetches(), ledger=ledger) == first

    assert again.calls == 0
    assert (ERROR_FILE in bucket.objects) is overtaken
    assert ledger.outcome(JOB, NOON) == Outcome(detail=first)


# The ledger's history


class AwayLedger(MemoryLedger):
    def end(self, *_: object) -> Outcome:
        raise OSError("DynamoDB is away")


def test_delivery_that_the_ledger_did_not_take_is_noted_later_without_a_copy(
    bucket: Bucket,
) -> None:
    ledger = MemoryLedger()
    with pytest.raises(OSError, match="away"):
        delivered(bucket, ledger=AwayLedger())

    ready = delivered(bucket, again := Fetches(), ledger=ledger)

    assert again.calls == 0
    assert ledger.outcome(JOB, NOON) == Outcome(detail=ready)


def test_video_of_a_run_that_failed_meanwhile_does_not_appear(bucket: Bucket) -> None:
    ledger = MemoryLedger()
    bucket.put(ERROR_FILE, b"{}")
    ledger.close(JOB, NOON + timedelta(seconds=75))

    with pytest.raises(ExecutionAborted):
        delivered(bucket, ledger=ledger)

    assert set(bucket.objects) == {ERROR_FILE}
    assert not bucket.open_uploads


def test_manifest_is_the_detail_of_the_outcome_of_two_calls_at_once(bucket: Bucket) -> None:
    ledger = MemoryLedger()

    def quicker_call() -> None:
        delivered(bucket, ledger=ledger)

    ready = delivered(bucket, Fetches(meanwhile=quicker_call), ledger=ledger)

    assert bucket.writes > 2
    assert ledger.outcome(JOB, NOON) == Outcome(detail=ready)
    assert bucket.manifest == ready


def test_video_that_comes_after_the_outcome_changes_no_outcome(bucket: Bucket) -> None:
    ledger = MemoryLedger()
    ledger.end(JOB, NOON, FAILED, NOON)
    bucket.put(ERROR_FILE, FAILED.detail.model_dump_json().encode())

    for _ in range(2):
        with pytest.raises(ExecutionAborted):
            delivered(bucket, ledger=ledger)

    assert ledger.outcome(JOB, NOON) == FAILED
    assert ERROR_FILE in bucket.objects
    assert KEY in bucket.objects  # it is paid: a later run finds it


@pytest.mark.parametrize(
    ("concluded_after", "render"),
    [
        (timedelta(days=-91), UNDERWAY),
        (timedelta(minutes=1), SECOND_RUN),
        (timedelta(hours=2), SECOND_RUN),
    ],
    ids=["of the same name long ago", "an earlier run", "an earlier run, late"],
)
def test_conclusion_of_another_execution_stops_no_delivery(
    bucket: Bucket, concluded_after: timedelta, render: ActiveRender
) -> None:
    ledger = MemoryLedger()
    ledger.close(JOB, NOON + concluded_after)
    ledger.end(JOB, NOON + min(concluded_after, timedelta(0)), FAILED, NOON + concluded_after)

    ready = delivered(bucket, ledger=ledger, render=render)

    assert ledger.outcome(render.plan.job, render.started_at) == Outcome(detail=ready)
    assert KEY in bucket.objects


def test_later_run_answers_with_the_video_of_an_earlier_one(bucket: Bucket) -> None:
    ledger = MemoryLedger()
    first = delivered(bucket, ledger=ledger)

    second = delivered(bucket, again := Fetches(), ledger=ledger, render=SECOND_RUN)

    assert again.calls == 0
    assert (second.job.run, second.video) == (2, first.video)
    assert bucket.manifest == second


def test_video_that_was_made_again_replaces_the_earlier_one(bucket: Bucket) -> None:
    ledger = MemoryLedger()
    for number in (1, 2):
        begun = ledger.begin(JOB.id, NextAttempt(attempt=number), RUNCOMFY, NOON, estimated_usd=0.5)
        assert begun
        ledger.accept(begun, f"req-{number}", NOON)
    first = delivered(bucket, ledger=ledger)
    ticket = TICKET.model_copy(update={"request_id": "req-2", "attempt": 2})
    render = SECOND_RUN.model_copy(update={"ticket": ticket})

    second = delivered(bucket, provider=Results(asked_for="req-2"), ledger=ledger, render=render)

    assert second.video.key == first.video.key == KEY
    assert second.video.version_id == bucket.objects[KEY][0] != first.video.version_id
    assert bucket.manifest == second
    assert [(made.request_id, made.outcome) for made in second.render.attempts] == [
        ("req-1", "VideoReady"),
        ("req-2", "VideoReady"),
    ]
    assert second.estimated_usd == 1


@pytest.mark.parametrize(
    ("part", "changes"),
    [("render", {"request_id": "r-0"}), ("job", {"id": "anna-0"})],
    ids=["another request", "another job"],
)
def test_manifest_of_another_render_does_not_stop_the_delivery(
    bucket: Bucket, part: str, changes: dict[str, str]
) -> None:
    other = delivered(bucket).model_dump(mode="json")
    bucket.put(MANIFEST, json.dumps(other | {part: other[part] | changes}).encode())

    assert_delivered_anew(bucket)


@pytest.mark.parametrize("document", [b"", b"not json", b'{"mine": true}', b"[]"])
def test_file_in_place_of_the_manifest_does_not_stop_the_delivery(
    bucket: Bucket, document: bytes
) -> None:
    delivered(bucket)
    bucket.put(MANIFEST, document)

    assert_delivered_anew(bucket)


def assert_delivered_anew(bucket: Bucket) -> None:
    ready = delivered(bucket, fetch := Fetches())

    assert fetch.calls == 1
    assert bucket.manifest == ready


# Two jobs of one stem


def error_file(render: ActiveRender) -> bytes:
    failed = VideoFailed(
        error=ResultUnavailable("cut").report,
        job=JobSummary.of(render.plan.job, render.started_at),
        inputs=(),
        estimated_usd=0,
        error_file=StoredFile(bucket="videos", key=render.plan.job.error_key),
        ended_at=NOON,
        execution="arn",
    )
    return failed.model_dump_json().encode()


MINUTES = timedelta(minutes=5)
DROPPED_LATER = underway_of(CORRECTED.model_copy(update={"dropped_at": NOON + MINUTES}), MINUTES)
RUN_AGAIN_LATER = underway_of(
    JOB.model_copy(update={"dropped_at": NOON, "run": 2}), timedelta(hours=9)
)


@pytest.mark.parametrize(
    ("older", "newer", "in_error"),
    [
        (UNDERWAY, NEWER, UNDERWAY),
        (UNDERWAY, NEWER, NEWER),
        (RUN_AGAIN_LATER, DROPPED_LATER, DROPPED_LATER),
    ],
    ids=["own error", "newer one's error", "run again much later"],
)
def test_older_video_of_two_comes_to_lie_beside_the_newer_one(
    bucket: Bucket, older: ActiveRender, newer: ActiveRender, in_error: ActiveRender
) -> None:
    delivered(bucket, render=newer)
    bucket.put(ERROR_FILE, error_file(in_error))
    before = dict(bucket.objects)

    ready = delivered(bucket, Fetches(padded(tiny_video(), 5000)), render=older)

    assert ready.video.key == f"team/anna.{JOB.id}.mp4"
    assert (ready.job.id, ready.job.started_at) == (JOB.id, older.started_at)
    assert set(bucket.objects) == {*before, *OWN_KEYS}
    assert before.items() <= bucket.objects.items()
    version, body = bucket.objects[ready.video.key]
    assert (version, len(body)) == (ready.video.version_id, 5000)
    manifest = bucket.objects[f"team/anna.{JOB.id}.json"][1]
    assert VideoReady.model_validate_json(manifest) == ready


def test_video_that_is_not_older_takes_the_plain_name(bucket: Bucket) -> None:
    delivered(bucket, render=UNDERWAY)

    assert delivered(bucket, render=NEWER).video.key == KEY
    assert set(bucket.objects) == {KEY, MANIFEST}


def test_video_that_is_overtaken_while_it_is_copied_goes_over_nothing(bucket: Bucket) -> None:
    with pytest.raises(Overtaken):
        delivered(bucket, Fetches(meanwhile=lambda: delivered(bucket, render=NEWER)))

    assert bucket.manifest.job.id == CORRECTED.id
    assert set(bucket.objects) == {KEY, MANIFEST}
    assert not bucket.open_uploads
    assert delivered(bucket).video.key in OWN_KEYS


WAITED_IN_VAIN = UploadIncomplete(
    job=IncompleteJob(folder="team/", stem="anna"),
    uploads=(IncompleteUpload(bucket="uploads", key="k", version_id="v", size_bytes=1),),
    missing=(Role.AUDIO,),
    waited_minutes=60,
    message="",
    error_file=StoredFile(bucket="videos", key=ERROR_FILE),
    ended_at=NOON,
)


@pytest.mark.parametrize(
    ("document", "after_seconds", "stays"),
    [
        (b"{}", -3600, False),
        (error_file(UNDERWAY), -3600, False),
        (error_file(NEWER), -3600, True),
        (WAITED_IN_VAIN.model_dump_json().encode(), -30, False),
        (WAITED_IN_VAIN.model_dump_json().encode(), 30, True),
    ],
    ids=["not ours", "own", "of a later job", "of an earlier upload", "of a later upload"],
)
def test_success_removes_only_an_error_file_that_is_not_of_something_later(
    bucket: Bucket, document: bytes, after_seconds: int, stays: bool
) -> None:
    bucket.now = NOON + timedelta(seconds=after_seconds)
    bucket.put(ERROR_FILE, document)
    bucket.put("team/anna2.error.json", b"{}")

    delivered(bucket)

    assert (ERROR_FILE in bucket.objects) is stays
    assert {*bucket.objects} - {ERROR_FILE} == {KEY, MANIFEST, "team/anna2.error.json"}


def test_state_machine_gives_up_a_paid_video_only_when_that_is_certain() -> None:
    machine = yaml.safe_load(MACHINE.read_text())
    (branch,) = machine["States"]["Render"]["Branches"]
    deliver_state = branch["States"]["Deliver"]
    _, definite, _ = deliver_state["Retry"]
    uncertain = {"ResultMissing", "ResultUnavailable", "RequestForgotten", "Overtaken"}

    assert not uncertain & set(definite["ErrorEquals"])
    assert "$states.context.Execution.StartTime" in deliver_state["Arguments"]["Payload"]


def test_video_that_was_deleted_since_is_delivered_again(bucket: Bucket) -> None:
    delivered(bucket)
    bucket.delete(VIDEOS, KEY)

    delivered(bucket)

    assert bucket.objects[KEY][1] == tiny_video()


@pytest.mark.parametrize(
    ("provider", "fetch", "error"),
    [
        (Results(Result(video_url=None)), Fetches(b""), errors.ResultMissing),
        (Results(UnknownRequest("req-1")), Fetches(b""), errors.RequestForgotten),
        (Results(Unreachable("HTTP 503")), Fetches(b""), ResultUnavailable),
        (Results(), Fetches(b""), ResultRefused),
        (Results(), Fetches(b"<html>"), ResultRefused),
        (Results(), Fetches(tiny_video()[:-1]), ResultRefused),
        (Results(), Fetches(padded(tiny_video(), 9 * MIB)[:-1]), ResultRefused),
        (Results(), Fetches(error=ResultUnavailable("cut")), ResultUnavailable),
        (Results(), Fetches(error=KeyError("a bug")), KeyError),
    ],
)
def test_delivery_that_fails_leaves_nothing_behind_and_the_run_open(
    bucket: Bucket, provider: Results, fetch: Fetches, error: type[Exception]
) -> None:
    ledger = MemoryLedger()
    bucket.put(ERROR_FILE, b"{}")

    with pytest.raises(error) as caught:
        delivered(bucket, fetch, provider=provider, ledger=ledger)

    assert set(bucket.objects) == {ERROR_FILE}
    assert not bucket.open_uploads
    assert "cdn.example" not in str(caught.value)
    assert ledger.runs(JOB.id) == ()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(state=RenderState.FAILED, message="GPU lost"), errors.RenderFailed),
        (Answer(state=RenderState.FAILED, cause=FailureCause.MODERATED), errors.RenderModerated),
        (Answer(state=RenderState.FAILED, cause=FailureCause.BAD_INPUT), errors.RenderRejected),
        (Answer(state=RenderState.FAILED, cause=FailureCause.NO_CREDIT), errors.NoCredit),
        (Answer(state=RenderState.CANCELLED), errors.RenderCancelled),
    ],
)
def test_lost_render_ends_as_it_does_for_poll(
    answer: Answer, error: type[errors.DropreelError]
) -> None:
    ledger = MemoryLedger()
    attempt = ledger.begin(JOB.id, NextAttempt(), RUNCOMFY, NOON)
    assert attempt
    ledger.accept(attempt, "req-1", NOON)

    with pytest.raises(error):
        delivered(Bucket(), provider=Results(RenderLost(answer)), ledger=ledger)

    (lost,) = ledger.attempts(JOB.id)
    assert lost.state is AttemptState.LOST


def test_reason_for_giving_up_survives_an_abort_that_fails(bucket: Bucket) -> None:
    bucket.failing_part = 1

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="S3 is away"):
        patch.delattr(OpenUpload, "abort")
        delivered(bucket)

    assert not bucket.objects


@given(cuts=st.lists(st.integers(min_value=0, max_value=len(tiny_video()))))
def test_what_arrives_is_what_was_sent_however_it_was_cut(cuts: list[int]) -> None:
    bucket = Bucket()
    copy = VideoCopy(bucket.begin_upload(VIDEOS, "anna.mp4", "video/mp4"))
    edges = [0, *sorted(cuts), len(tiny_video())]

    for start, end in pairwise(edges):
        copy.write(tiny_video()[start:end])
    video = copy.finish(VIDEOS, "anna.mp4")

    assert bucket.objects["anna.mp4"][1] == tiny_video()
    assert video.sha256 == hashlib.sha256(tiny_video()).hexdigest()
    assert video.size_bytes == len(tiny_video())


DROPPED = JOB.model_copy(update={"dropped_at": NOON})
DROPPED_RENDER = UNDERWAY.model_copy(update={"plan": PLAN.model_copy(update={"job": DROPPED})})


def test_older_job_does_not_replace_the_video_that_answers_a_later_drop(bucket: Bucket) -> None:
    """The files were changed, and then changed back while the changed ones were rendered."""
    drop = AnsweredDrop("bert-1", NOON + timedelta(seconds=1))

    ready = delivered(bucket, render=DROPPED_RENDER, drop=drop)

    assert ready.video.key == DROPPED.own_video_key


@pytest.mark.parametrize("answered_after", [-1, 20])
def test_job_that_answers_a_later_drop_comes_after_the_jobs_between(
    bucket: Bucket, answered_after: int
) -> None:
    between = JOB.model_copy(
        update={"id": "anna-9999999999999999", "dropped_at": NOON + timedelta(seconds=10)}
    )
    bucket.put(MANIFEST, manifest(between).encode())
    drop = AnsweredDrop(JOB.id, NOON + timedelta(seconds=answered_after))

    ready = delivered(bucket, render=DROPPED_RENDER, drop=drop)

    assert (ready.video.key == JOB.video_key) is (answered_after == 20)


# The provider's record


class Forgetful(Results):
    """Knows no request any more once it was told to forget it."""

    def __init__(self, ledger: MemoryLedger, fault: Exception | None = None) -> None:
        super().__init__()
        self.ledger, self.fault = ledger, fault

    def forget(self, ticket: Ticket) -> bool:
        outcome = self.ledger.outcome(JOB, NOON)
        assert outcome and isinstance(outcome.detail, VideoReady), "not before the outcome"
        self.answer = UnknownRequest()
        if self.fault:
            raise self.fault
        return super().forget(ticket)


def test_record_is_kept_unless_the_operator_wants_it_deleted(bucket: Bucket) -> None:
    provider = Results()

    delivered(bucket, provider=provider)

    assert provider.forgotten == []


def test_record_is_deleted_after_the_delivery_and_not_needed_again(bucket: Bucket) -> None:
    ledger = MemoryLedger()
    provider = Forgetful(ledger)

    ready = delivered(bucket, provider=provider, ledger=ledger, delete_record=True)
    assert provider.forgotten == ["req-1"]

    again = delivered(bucket, provider=provider, ledger=ledger, delete_record=True)
    assert again == ready

    of_rerun = delivered(
        bucket, provider=provider, ledger=ledger, render=SECOND_RUN, delete_record=True
    )
    assert of_rerun.video == ready.video


def test_call_that_comes_again_needs_no_record_when_a_later_video_took_the_place(
    bucket: Bucket,
) -> None:
    ledger = MemoryLedger()
    provider = Forgetful(ledger)
    ready = delivered(bucket, provider=provider, ledger=ledger, delete_record=True)
    delivered(bucket, render=NEWER)

    assert delivered(bucket, provider=provider, ledger=ledger, delete_record=True) == ready
    assert OWN_KEYS.isdisjoint(bucket.objects)


@pytest.mark.parametrize("fault", [Unreachable("HTTP 500"), RuntimeError("no"), KeyError("x")])
def test_record_that_cannot_be_deleted_fails_no_delivery(bucket: Bucket, fault: Exception) -> None:
    ledger = MemoryLedger()

    ready = delivered(bucket, provider=Forgetful(ledger, fault), ledger=ledger, delete_record=True)

    assert bucket.manifest == ready


@pytest.mark.parametrize(
    "missing",
    [
        RenderLost(Answer(state=RenderState.CANCELLED, message="It was deleted at WaveSpeed.")),
        UnknownRequest(),
    ],
)
def test_call_that_meets_the_deleted_record_loses_nothing(
    bucket: Bucket, missing: Exception
) -> None:
    ledger = rendered()

    class DeletedMeanwhile(Results):
        def result(self, ticket: Ticket) -> Result:
            delivered(bucket, ledger=ledger, delete_record=True)
            raise missing

    with pytest.raises(Overtaken):
        delivered(bucket, provider=DeletedMeanwhile(), ledger=ledger, delete_record=True)

    assert ledger.attempts(JOB.id)[0].state is AttemptState.ACCEPTED
    assert delivered(bucket, ledger=ledger, delete_record=True) == bucket.manifest


def test_record_of_another_render_than_the_delivered_one_is_kept(bucket: Bucket) -> None:
    ledger, provider = rendered(), Results(asked_for="req-2")
    ready = delivered(bucket, ledger=ledger)
    bucket.objects.clear()
    ticket = TICKET.model_copy(update={"request_id": "req-2", "attempt": 2})

    again = delivered(
        bucket,
        provider=provider,
        ledger=ledger,
        render=UNDERWAY.model_copy(update={"ticket": ticket}),
        delete_record=True,
    )

    assert again.render.request_id == ready.render.request_id
    assert provider.forgotten == []


@pytest.mark.parametrize("concluded", [True, False])
def test_record_of_a_failed_delivery_is_kept(bucket: Bucket, concluded: bool) -> None:
    ledger, provider = MemoryLedger(), Results()
    if concluded:
        ledger.end(JOB, NOON, FAILED, NOON)

    fetch = Fetches(error=None if concluded else ResultUnavailable("It broke."))
    with pytest.raises((ExecutionAborted, ResultUnavailable)):
        delivered(bucket, fetch, provider=provider, ledger=ledger, delete_record=True)

    assert provider.forgotten == []
