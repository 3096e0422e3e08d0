"""Conclude: what the person and the world are told, and what is cancelled."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dropreel.conclusion import ENDING, EndedRun, conclude
from dropreel.errors import (
    DropreelError,
    InputRejected,
    NoCredit,
    Reason,
    RenderFailed,
    RenderTimedOut,
    RequestForgotten,
    ResultMissing,
    ResultRefused,
    ResultUnavailable,
    SubmissionUnclear,
)
from dropreel.events import (
    AttemptSummary,
    DeliveredVideo,
    DetailType,
    FailedRender,
    JobSummary,
    RenderSummary,
    VideoFailed,
    VideoReady,
)
from dropreel.job import Job
from dropreel.provider import Unreachable
from dropreel.render import Next
from tests.render_fakes import (
    JOB,
    NOON,
    RUNCOMFY,
    TICKET,
    WAVESPEED,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)
from tests.sam_template import RESOURCES

RUN = "arn:aws:states:eu-west-1:123456789012:execution:dropreel-render:anna-0123456789abcdef"
SAMPLES = Path(__file__).parents[2] / "events" / "samples"


@dataclass
class FakeVideos:
    documents: dict[str, str] = field(default_factory=dict)

    def text(self, bucket: str, key: str) -> str | None:
        return self.documents.get(key)

    def put_json(self, bucket: str, key: str, document: str) -> None:
        self.documents[key] = document


@dataclass
class FakeBus:
    announced: list[tuple[DetailType, BaseModel]] = field(default_factory=list)

    def announce(self, detail_type: DetailType, detail: BaseModel) -> None:
        self.announced.append((detail_type, detail))


@dataclass
class Bench:
    provider: ScriptedProvider = field(default_factory=lambda: ScriptedProvider(cancels=True))
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    videos: FakeVideos = field(default_factory=FakeVideos)
    bus: FakeBus = field(default_factory=FakeBus)

    def begin(self) -> "Bench":
        self.attempt = self.ledger.begin(JOB.id, Next(), RUNCOMFY, NOON)
        assert self.attempt
        return self

    def accept(self) -> "Bench":
        self.begin()
        assert self.attempt
        self.ledger.accept(self.attempt, "req-1", NOON)
        return self

    def lose(self, code: str) -> "Bench":
        self.accept()
        self.ledger.lose(JOB.id, TICKET, code, "No face.")
        return self

    def conclude(self, event: dict[str, object]) -> VideoFailed:
        told = self.tell(event)
        assert isinstance(told, VideoFailed)
        return told

    def tell(self, event: dict[str, object]) -> VideoFailed | VideoReady | None:
        return conclude(
            ENDING.validate_python(event),
            ledger=self.ledger,
            providers=by_name(self.provider),
            videos=self.videos,
            video_bucket="videos",
            bus=self.bus,
        )

    @property
    def error_file(self) -> str | None:
        return self.videos.documents.get(JOB.error_key)


def told(
    outcome: str, message: str, request_id: str | None = "req-1", number: int = 1
) -> AttemptSummary:
    return AttemptSummary(
        number=number,
        provider="runcomfy",
        model=RUNCOMFY.endpoint,
        request_id=request_id,
        outcome=outcome,
        message=message,
    )


def lambda_cause(message: str, name: str = "Runtime.HandlerError") -> str:
    return json.dumps({"errorMessage": message, "errorType": name, "stackTrace": ["  File ..."]})


def failed_run(error: DropreelError) -> dict[str, object]:
    # As the embedded AWS tells it, which loses the class: on AWS `Error` is the class's name.
    return step_failed("Runtime.HandlerError", lambda_cause(str(error)))


def step_failed(name: str, cause: str | None = None) -> dict[str, object]:
    error = {"Error": name} if cause is None else {"Error": name, "Cause": cause}
    return {
        "job": JOB.model_dump(mode="json"),
        "error": error,
        "execution": RUN,
        "started_at": NOON.isoformat(),
    }


def ended_run(status: str, error: str | None = None) -> dict[str, object]:
    event: dict[str, object] = json.loads((SAMPLES / "execution_aborted.json").read_text())
    detail = event["detail"]
    assert isinstance(detail, dict)
    detail |= {
        "status": status,
        "error": error,
        "executionArn": RUN,
        "input": JOB.model_dump_json(),
        "startDate": int(NOON.timestamp() * 1000),
    }
    return event


OTHER_JOB = JOB.model_copy(update={"id": "anna-fedcba9876543210"})
EARLIER, LATER = NOON - timedelta(seconds=9), NOON + timedelta(seconds=9)


def manifest(job: Job = JOB, started_at: datetime | None = NOON) -> str:
    return VideoReady(
        job=JobSummary.of(job, started_at),
        inputs=(),
        changes=(),
        video=DeliveredVideo(
            bucket="videos",
            key=job.video_key,
            version_id="v1",
            size_bytes=1,
            duration_seconds=None,
            width=64,
            height=48,
            sha256="0" * 64,
        ),
        render=RenderSummary(
            provider="runcomfy",
            model=RUNCOMFY.endpoint,
            request_id="req-1",
            queued_seconds=0,
            rendering_seconds=0,
            copying_seconds=0,
            attempts=(),
        ),
    ).model_dump_json()


def error_file(job: Job = JOB, started_at: datetime | None = NOON, execution: str = RUN) -> str:
    return VideoFailed(
        error=NoCredit("Not enough credit.").report,
        job=JobSummary.of(job, started_at),
        inputs=(),
        execution=execution,
    ).model_dump_json()


def test_refused_files_are_answered_with_every_reason() -> None:
    reasons = (
        Reason(file="inbox/team/anna.png", rule="over 400 pixels", found="80 x 60", cure="Larger."),
        Reason(file="inbox/team/anna.mp3", rule="under 20 s", found="31 s", cure="Shorter."),
    )
    bench = Bench()

    failed = bench.conclude(failed_run(InputRejected(reasons)))

    assert failed.error == InputRejected(reasons).report
    assert failed.render is None
    assert failed.execution == RUN


def test_error_file_is_the_event_and_begins_with_the_error() -> None:
    bench = Bench()

    failed = bench.conclude(failed_run(NoCredit("Not enough credit – für nichts.")))

    assert bench.error_file is not None
    assert VideoFailed.model_validate_json(bench.error_file) == failed
    lines = bench.error_file.splitlines()
    assert lines[1].strip() == '"error": {'
    assert "für nichts" in lines[3]


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        (
            "Sandbox.Timedout",
            lambda_cause("Task timed out after 60.00 seconds", "Sandbox.Timedout"),
        ),
        ("States.Timeout", None),
        ("KeyError", lambda_cause("'outputs'", "KeyError")),
        ("Lambda.Unknown", "The cause could not be determined because Lambda did not return"),
        ("States.QueryEvaluationError", "The JSONata expression '$x' ..."),
    ],
)
def test_unforeseen_error_is_named_and_no_more(name: str, cause: str | None) -> None:
    failed = Bench().conclude(step_failed(name, cause))

    assert failed.error.code == "UnexpectedError"
    assert failed.error.message == f"A step ended in {name}, which was not foreseen."


@pytest.mark.parametrize("name", ["ValueError", "https://bucket.example/?X-Amz-Signature=0123"])
def test_words_of_an_unforeseen_error_are_not_published(name: str) -> None:
    secret = "https://bucket.example/?X-Amz-Signature=0123"
    bench = Bench()

    failed = bench.conclude(step_failed(name, lambda_cause(f"cannot fetch {secret}", "ValueError")))

    assert "Signature" not in failed.model_dump_json()
    assert bench.error_file is not None
    assert "Signature" not in bench.error_file


@pytest.mark.parametrize(
    ("status", "code"), [("ABORTED", "ExecutionAborted"), ("TIMED_OUT", "ExecutionTimedOut")]
)
def test_execution_that_is_gone_is_concluded_and_announced_from_here(
    status: str, code: str
) -> None:
    bench = Bench().accept()

    failed = bench.conclude(ended_run(status))

    assert failed.error.code == code
    assert bench.provider.cancelled == ["req-1"]
    assert bench.error_file is not None
    assert bench.bus.announced == [(DetailType.VIDEO_FAILED, failed)]


def test_state_machine_announces_by_itself() -> None:
    bench = Bench()

    bench.conclude(failed_run(NoCredit("Not enough credit.")))

    assert bench.bus.announced == []


@pytest.mark.parametrize("confirmed", [True, False])
def test_request_that_may_still_be_queued_is_cancelled(confirmed: bool) -> None:
    bench = Bench(provider=ScriptedProvider(cancels=confirmed)).accept()

    failed = bench.conclude(failed_run(RenderTimedOut("Still queued.")))

    assert bench.provider.cancelled == ["req-1"]
    assert failed.render == FailedRender(
        provider="runcomfy",
        request_id="req-1",
        cancelled=confirmed,
        attempts=(told("RenderTimedOut", "Still queued."),),
    )


@pytest.mark.parametrize(
    "error",
    [
        RequestForgotten("Unknown."),
        ResultMissing("No video."),
        ResultRefused("A web page."),
        ResultUnavailable("HTTP 404."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_render_that_is_over_is_not_cancelled(error: DropreelError) -> None:
    bench = Bench().accept()

    failed = bench.conclude(failed_run(error))

    assert bench.provider.cancelled == []
    assert failed.render is not None
    assert not failed.render.cancelled


@pytest.mark.parametrize(
    ("code", "cancelled"),
    [("RenderFailed", False), ("RenderModerated", False), ("RenderCancelled", True)],
)
@pytest.mark.parametrize("way", [failed_run(RenderFailed("No face.")), ended_run("ABORTED")])
def test_render_that_is_lost_is_not_cancelled(
    way: dict[str, object], code: str, cancelled: bool
) -> None:
    bench = Bench().lose(code)

    failed = bench.conclude(way)

    assert bench.provider.cancelled == []
    assert failed.render is not None
    assert failed.render.cancelled is cancelled
    assert failed.render.attempts == (told(code, "No face."),)


def test_failing_to_cancel_does_not_keep_the_news_from_the_person() -> None:
    bench = Bench(provider=ScriptedProvider(cancels=Unreachable("HTTP 500"))).accept()

    failed = bench.conclude(failed_run(RenderTimedOut("Still queued.")))

    assert failed.render is not None
    assert not failed.render.cancelled
    assert bench.error_file is not None


def test_each_attempt_is_told_with_its_outcome() -> None:
    # Given a render that failed, and a next offer that refused
    bench = Bench().lose("RenderFailed")
    refused = bench.ledger.begin(JOB.id, Next(attempt=2, offer=1), WAVESPEED, NOON)
    assert refused
    bench.ledger.refuse(refused, "NoCredit", "Not enough credit.")

    failed = bench.conclude(failed_run(NoCredit("Not enough credit.")))

    assert failed.render == FailedRender(
        provider="wavespeed",
        request_id=None,
        cancelled=False,
        attempts=(
            told("RenderFailed", "No face."),
            AttemptSummary(
                number=2,
                provider="wavespeed",
                model=WAVESPEED.endpoint,
                request_id=None,
                outcome="NoCredit",
                message="Not enough credit.",
            ),
        ),
    )
    assert bench.provider.cancelled == []


def test_latest_attempt_is_cancelled_while_it_is_open() -> None:
    bench = Bench().lose("RenderFailed")
    second = bench.ledger.begin(JOB.id, Next(attempt=2), RUNCOMFY, NOON)
    assert second
    bench.ledger.accept(second, "req-2", NOON)

    failed = bench.conclude(failed_run(RenderTimedOut("Still queued.")))

    assert bench.provider.cancelled == ["req-2"]
    assert failed.render is not None
    assert failed.render.attempts == (
        told("RenderFailed", "No face."),
        told("RenderTimedOut", "Still queued.", "req-2", 2),
    )


def test_submit_that_was_cut_off_is_an_unclear_submission() -> None:
    bench = Bench().begin()

    failed = bench.conclude(step_failed("Sandbox.Timedout", lambda_cause("Task timed out")))

    assert failed.error.code == "SubmissionUnclear"
    assert failed.error.advice == SubmissionUnclear.advice
    assert failed.render == FailedRender(
        provider="runcomfy",
        request_id=None,
        cancelled=False,
        attempts=(told("SubmissionUnclear", failed.error.message, None),),
    )


@pytest.mark.parametrize(
    "way", [step_failed("KeyError", lambda_cause("'outputs'")), ended_run("FAILED", "States.X")]
)
def test_unforeseen_error_warns_of_a_render_that_may_be_paid_for(way: dict[str, object]) -> None:
    failed = Bench().accept().conclude(way)

    assert failed.error.code == "UnexpectedError"
    assert "paid" in failed.error.advice
    assert "dashboard before" in failed.error.advice
    assert "paid" not in Bench().conclude(way).error.advice


def test_execution_stopped_while_it_submits_keeps_its_code_and_warns_of_paying_twice() -> None:
    failed = Bench().begin().conclude(ended_run("ABORTED"))

    assert failed.error.code == "ExecutionAborted"
    assert failed.error.advice == SubmissionUnclear.advice


def test_concluding_twice_tells_the_same_again() -> None:
    bench = Bench().accept()
    first = bench.conclude(failed_run(RenderTimedOut("Still queued.")))
    bench.provider = ScriptedProvider(cancels=False)

    assert bench.conclude(failed_run(RenderTimedOut("Still queued."))) == first


def test_execution_stopped_while_it_concludes_keeps_its_first_error() -> None:
    bench = Bench()
    first = bench.conclude(failed_run(NoCredit("Not enough credit.")))

    bench.conclude(ended_run("ABORTED"))

    assert bench.bus.announced == [(DetailType.VIDEO_FAILED, first)]


@pytest.mark.parametrize("left_over", ["", "{}", '{"notes": "from somebody else"}'])
def test_error_file_of_something_else_is_replaced(left_over: str) -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.error_key: left_over}))

    failed = bench.conclude(failed_run(NoCredit("Not enough credit.")))

    assert bench.error_file == failed.model_dump_json(indent=2)


def test_error_of_an_earlier_execution_is_replaced() -> None:
    bench = Bench()
    bench.conclude(failed_run(NoCredit("Not enough credit.")) | {"execution": "an earlier one"})

    failed = bench.conclude(failed_run(RenderFailed("No face.")))

    assert failed.error.code == "RenderFailed"
    assert bench.error_file == failed.model_dump_json(indent=2)


# Two jobs of one stem


WAYS = [failed_run(NoCredit("No credit.")), ended_run("ABORTED"), ended_run("FAILED", "States.X")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", [JOB.manifest_key, JOB.error_key])
@pytest.mark.parametrize(("started_at", "writes"), [(EARLIER, True), (LATER, False), (None, True)])
def test_error_file_goes_over_nothing_of_a_later_job(
    way: dict[str, object], key: str, started_at: datetime | None, writes: bool
) -> None:
    tell = manifest if key == JOB.manifest_key else error_file
    there = tell(OTHER_JOB, started_at)
    bench = Bench(videos=FakeVideos(documents={key: there}))

    failed = bench.conclude(way)

    written = failed.model_dump_json(indent=2)
    assert (bench.error_file == written) is writes
    assert bench.videos.documents[key] == (written if writes and key == JOB.error_key else there)
    assert len(bench.bus.announced) == ("detail" in way)


@pytest.mark.parametrize("foreign", ["", "{}", "[]", "not json", '{"job": "anna"}', "\ufffd"])
def test_error_file_lies_beside_a_manifest_that_is_none_of_ours(foreign: str) -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.manifest_key: foreign}))

    bench.conclude(failed_run(NoCredit("No credit.")))

    assert bench.error_file is not None


def test_error_file_says_when_its_job_started() -> None:
    failed = Bench().conclude(failed_run(NoCredit("No credit.")))

    assert failed.job.started_at == NOON


# Delivered before it ended


@pytest.mark.parametrize("key", [JOB.manifest_key, JOB.own_manifest_key])
@pytest.mark.parametrize(
    "way", [ended_run("ABORTED"), ended_run("TIMED_OUT"), ended_run("FAILED", "States.X")]
)
def test_execution_that_ends_after_it_delivered_is_announced_as_ready(
    way: dict[str, object], key: str
) -> None:
    bench = Bench(videos=FakeVideos(documents={key: manifest()})).accept()

    ready = bench.tell(way)

    assert ready == VideoReady.model_validate_json(manifest())
    assert bench.bus.announced == [(DetailType.VIDEO_READY, ready)]
    assert bench.error_file is None
    assert bench.provider.cancelled == []


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize(
    "there",
    [manifest(OTHER_JOB), manifest(started_at=NOON - timedelta(days=91))],
    ids=["another job", "an earlier execution"],
)
def test_video_of_another_execution_is_not_taken_for_this_ones(
    way: dict[str, object], there: str
) -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.manifest_key: there}))

    failed = bench.conclude(way)

    assert bench.bus.announced == [(DetailType.VIDEO_FAILED, failed)]


def test_no_error_file_lies_beside_the_executions_own_video() -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.manifest_key: manifest()}))

    bench.conclude(failed_run(NoCredit("No credit.")))

    assert bench.error_file is None


# Failed where nothing caught it


@pytest.mark.parametrize("code", ["InputRejected", "NoCredit", "UnexpectedError"])
def test_execution_that_was_concluded_and_announced_is_silent(code: str) -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.error_key: error_file()})).accept()

    assert bench.tell(ended_run("FAILED", code)) is None

    assert bench.bus.announced == []
    assert bench.videos.documents == {JOB.error_key: error_file()}
    assert bench.provider.cancelled == []


def test_failure_without_a_name_is_silent_when_it_was_concluded() -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.error_key: error_file()}))

    assert bench.tell(ended_run("FAILED")) is None

    assert bench.bus.announced == []


@pytest.mark.parametrize(
    "name", ["States.DataLimitExceeded", "States.Runtime", "Lambda.Unknown", None]
)
def test_execution_that_failed_unconcluded_is_concluded_and_announced(name: str | None) -> None:
    bench = Bench().accept()

    failed = bench.conclude(ended_run("FAILED", name))

    assert failed.error.code == "UnexpectedError"
    assert (name or "an error") in failed.error.message
    assert bench.provider.cancelled == ["req-1"]
    assert bench.error_file is not None
    assert bench.bus.announced == [(DetailType.VIDEO_FAILED, failed)]


def test_failure_that_was_concluded_but_not_announced_is_announced_as_it_was_concluded() -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.error_key: error_file()}))

    failed = bench.conclude(ended_run("FAILED", "EventBridge.FailedEntry"))

    assert failed.error.code == "NoCredit"
    assert bench.bus.announced == [(DetailType.VIDEO_FAILED, failed)]


def test_rule_sends_each_ending_that_is_understood() -> None:
    pattern: dict[str, Any] = RESOURCES["EndedRule"]["Properties"]["EventPattern"]
    schema = EndedRun.model_json_schema()["properties"]

    assert pattern["detail"]["status"] == schema["status"]["enum"]


def test_sample_event_is_understood() -> None:
    ending = ENDING.validate_json((SAMPLES / "execution_aborted.json").read_bytes())

    assert ending.job.id == "anna-5f0c9f1d2b7a4e63"
    assert ending.execution.endswith(ending.job.id)
    assert ending.started_at is not None
    assert ending.started_at.isoformat() == "2026-11-20T09:41:06.847000+00:00"
    assert ending.report.code == "ExecutionAborted"
