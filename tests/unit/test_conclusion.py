"""Conclude: what the person and the world are told, and what is cancelled."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from dropreel.catalog import ProviderName
from dropreel.conclusion import ENDING, conclude
from dropreel.errors import (
    DropreelError,
    ErrorReport,
    InputRejected,
    NoCredit,
    Reason,
    RenderCancelled,
    RenderFailed,
    RenderTimedOut,
    RequestForgotten,
    ResultMissing,
    ResultRefused,
    ResultUnavailable,
    SubmissionUnclear,
)
from dropreel.events import DetailType, FailedRender, VideoFailed
from dropreel.provider import Unreachable
from tests.render_fakes import JOB, NOON, MemoryLedger, ScriptedProvider

RUN = "arn:aws:states:eu-west-1:123456789012:execution:dropreel-render:anna-0123456789abcdef"
SAMPLES = Path(__file__).parents[2] / "events" / "samples"


@dataclass
class FakeVideos:
    documents: dict[str, str] = field(default_factory=dict)
    manifest_written_at: datetime | None = None

    def text(self, bucket: str, key: str) -> str | None:
        return self.documents.get(key)

    def written_at(self, bucket: str, key: str) -> datetime | None:
        return self.manifest_written_at if key == JOB.manifest_key else None

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
        self.attempt = self.ledger.begin(JOB.id, 1, ProviderName.RUNCOMFY, NOON)
        assert self.attempt
        return self

    def accept(self) -> "Bench":
        self.begin()
        assert self.attempt
        self.ledger.accept(self.attempt, "req-1", NOON)
        return self

    def refuse(self) -> "Bench":
        self.begin()
        assert self.attempt
        self.ledger.refuse(self.attempt, "NoCredit")
        return self

    def conclude(self, event: dict[str, object]) -> VideoFailed:
        return conclude(
            ENDING.validate_python(event),
            ledger=self.ledger,
            providers=lambda name: self.provider,
            videos=self.videos,
            video_bucket="videos",
            bus=self.bus,
        )

    @property
    def error_file(self) -> str | None:
        return self.videos.documents.get(JOB.error_key)


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


def ended_run(status: str) -> dict[str, object]:
    event: dict[str, object] = json.loads((SAMPLES / "execution_aborted.json").read_text())
    detail = event["detail"]
    assert isinstance(detail, dict)
    detail |= {
        "status": status,
        "executionArn": RUN,
        "input": JOB.model_dump_json(),
        "startDate": int(NOON.timestamp() * 1000),
    }
    return event


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
        provider="runcomfy", request_id="req-1", cancelled=confirmed
    )


@pytest.mark.parametrize(
    "error",
    [
        RenderFailed("No face."),
        RenderCancelled("Cancelled."),
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
    assert failed.render.cancelled is isinstance(error, RenderCancelled)


def test_failing_to_cancel_does_not_keep_the_news_from_the_person() -> None:
    bench = Bench(provider=ScriptedProvider(cancels=Unreachable("HTTP 500"))).accept()

    failed = bench.conclude(failed_run(RenderTimedOut("Still queued.")))

    assert failed.render == FailedRender(provider="runcomfy", request_id="req-1", cancelled=False)
    assert bench.error_file is not None


def test_refused_submission_has_no_render() -> None:
    bench = Bench().refuse()

    failed = bench.conclude(failed_run(NoCredit("Not enough credit.")))

    assert failed.render is None
    assert bench.provider.cancelled == []


def test_submit_that_was_cut_off_is_an_unclear_submission() -> None:
    bench = Bench().begin()

    failed = bench.conclude(step_failed("Sandbox.Timedout", lambda_cause("Task timed out")))

    assert failed.error.code == "SubmissionUnclear"
    assert failed.error.advice == SubmissionUnclear.advice
    assert failed.render == FailedRender(provider="runcomfy", request_id=None, cancelled=False)


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


@pytest.mark.parametrize(("minutes", "writes"), [(-5, True), (5, False)])
@pytest.mark.parametrize("way", [failed_run(NoCredit("No credit.")), ended_run("ABORTED")])
def test_error_file_lies_beside_no_video_that_is_newer_than_the_execution(
    way: dict[str, object], minutes: int, writes: bool
) -> None:
    bench = Bench(videos=FakeVideos(manifest_written_at=NOON + timedelta(minutes=minutes)))

    failed = bench.conclude(way)

    assert isinstance(failed.error, ErrorReport)
    assert (bench.error_file is not None) is writes


def test_sample_event_is_understood() -> None:
    ending = ENDING.validate_json((SAMPLES / "execution_aborted.json").read_bytes())

    assert ending.job.id == "anna-5f0c9f1d2b7a4e63"
    assert ending.execution.endswith(ending.job.id)
    assert ending.started_at is not None
    assert ending.started_at.isoformat() == "2026-11-20T09:41:06.847000+00:00"
    assert ending.report.code == "ExecutionAborted"
