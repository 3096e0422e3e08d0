"""Conclude: what the person and the world are told, and what is cancelled."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dropreel.model.errors import (
    DropreelError,
    InputGone,
    InputRejected,
    NoCredit,
    PriceUnknown,
    Reason,
    RenderFailed,
    RenderTimedOut,
    RequestForgotten,
    ResultMissing,
    ResultRefused,
    ResultUnavailable,
    SettingUnreadable,
    SpendLimitReached,
    SubmissionUnclear,
    UnexpectedError,
)
from dropreel.model.events import (
    AttemptSummary,
    DeliveredVideo,
    DetailType,
    FailedRender,
    JobSummary,
    RenderSummary,
    VideoFailed,
    VideoReady,
)
from dropreel.model.job import Job
from dropreel.model.ledger import AttemptState, Run
from dropreel.model.messages import Next, Progress, Underway
from dropreel.model.provider import Answer, RenderState, UnknownRequest, Unreachable
from dropreel.outcome.conclusion import EndedRun, conclude, ending_in, needs_conclusion
from dropreel.render.attempts import is_kept
from dropreel.render.polling import poll
from tests.support.render_fakes import (
    JOB,
    NOON,
    PLAN,
    POLL_SETTINGS,
    RUNCOMFY,
    TICKET,
    WAVESPEED,
    FakeClock,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)
from tests.support.sam_template import RESOURCES

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
class FakeSlots:
    """Admission, as far as conclude knows it: who left, and whether the charge was kept."""

    ledger: MemoryLedger
    left: list[tuple[str, bool]] = field(default_factory=list)

    def leave(self, job: Job) -> None:
        attempts = self.ledger.attempts(job.id)
        self.left.append((job.execution_name, bool(attempts) and is_kept(attempts[-1])))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.left]


class AwaySlots(FakeSlots):
    def leave(self, job: Job) -> None:
        raise OSError("DynamoDB is away")


@dataclass
class Bench:
    provider: ScriptedProvider = field(default_factory=lambda: ScriptedProvider(cancels=True))
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    videos: FakeVideos = field(default_factory=FakeVideos)
    bus: FakeBus = field(default_factory=FakeBus)
    slots: FakeSlots = field(init=False)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.slots = FakeSlots(self.ledger)

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
        ending = ending_in(event)
        return (
            None
            if ending is None
            else conclude(
                ending,
                ledger=self.ledger,
                slots=self.slots,
                providers=by_name(self.provider),
                videos=self.videos,
                video_bucket="videos",
                bus=self.bus,
                clock=self.tick,
            )
        )

    def tick(self) -> datetime:
        self.clock.pass_seconds(1)
        return self.clock()

    @property
    def error_file(self) -> str | None:
        return self.videos.documents.get(JOB.error_key)

    @property
    def run(self) -> Run | None:
        return next(iter(self.ledger.runs(JOB.id)), None)

    @property
    def outcome(self) -> str | None:
        return self.run.outcome if self.run else None

    @property
    def codes(self) -> list[str]:
        """What was announced, from here or by the state machine."""
        return [
            detail.error.code if isinstance(detail, VideoFailed) else type(detail).__name__
            for _, detail in self.bus.announced
        ]

    def announce(self, told: VideoFailed | VideoReady | None) -> str:
        """As the state machine does with what conclude answers; then it ends with this error."""
        assert isinstance(told, VideoFailed)
        self.bus.announce(DetailType.VIDEO_FAILED, told)
        return told.error.code

    def fail(self, error: DropreelError) -> None:
        """A step's error, the whole way: caught, concluded, announced, and told by EventBridge."""
        code = self.announce(self.tell(failed_run(error)))
        self.tell(ended_run("FAILED", code))


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
    bench = Bench().accept()
    bench.provider = ScriptedProvider(cancels=False)
    failed = bench.conclude(way)

    assert failed.error.code == "UnexpectedError"
    assert "make rerun" in failed.error.advice
    assert "may be paid for" in failed.error.advice
    assert "dashboard before" in failed.error.advice
    assert "paid" not in Bench().conclude(way).error.advice


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT"])
@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled", "goes on"])
def test_execution_that_ends_while_its_render_goes_on_says_so(status: str, cancels: bool) -> None:
    bench = Bench().accept()
    bench.provider = ScriptedProvider(cancels=cancels)

    advice = bench.conclude(ended_run(status)).error.advice

    assert ("may be paid for" in advice) is not cancels
    assert "make rerun" in advice


def test_execution_stopped_before_it_submitted_says_that_nothing_is_paid() -> None:
    assert "nothing is paid" in Bench().conclude(ended_run("ABORTED")).error.message
    assert "nothing is paid" not in Bench().accept().conclude(ended_run("ABORTED")).error.message


def test_submission_that_was_given_up_may_be_paid_for_whatever_became_of_the_next() -> None:
    bench = Bench().begin()
    bench.ledger.give_up(bench.ledger.attempts(JOB.id)[0], "SubmissionUnclear", "")

    failed = bench.conclude(failed_run(NoCredit("Nothing left.")))

    assert failed.error.code == "NoCredit"
    assert failed.error.advice == SubmissionUnclear.advice
    assert failed.error.retryable is False


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


def test_step_that_failed_after_the_video_was_there_is_answered_with_the_video() -> None:
    # Given a deliver that wrote its manifest, and then could not reach the ledger
    bench = Bench(videos=FakeVideos(documents={JOB.manifest_key: manifest()})).accept()

    ready = bench.tell(step_failed("ThrottlingException"))

    assert ready == VideoReady.model_validate_json(manifest())
    assert bench.error_file is None
    assert bench.provider.cancelled == []
    assert bench.outcome == "VideoReady"
    assert bench.bus.announced == []  # the state machine does


def test_execution_stopped_before_it_announced_its_video_is_announced_once() -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.manifest_key: manifest()})).accept()
    bench.ledger.end(JOB, "VideoReady", NOON)

    for _ in range(3):
        bench.tell(ended_run("ABORTED"))

    assert bench.codes == ["VideoReady"]
    assert not needs_conclusion(bench.run)


def test_execution_stopped_after_conclude_found_its_video_is_announced_once() -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.manifest_key: manifest()})).accept()
    bench.tell(step_failed("ThrottlingException"))

    for _ in range(3):
        bench.tell(ended_run("TIMED_OUT"))

    assert bench.codes == ["VideoReady"]


def test_video_that_came_while_its_execution_was_concluded_is_announced() -> None:
    # Given a call that was cut off after it closed the run, and a copy that came through
    bench = Bench().accept()
    bench.ledger.close(JOB, NOON + timedelta(seconds=30))
    bench.videos.documents[JOB.manifest_key] = manifest()
    bench.ledger.end(JOB, "VideoReady", NOON + timedelta(seconds=31))

    bench.tell(ended_run("ABORTED"))

    assert bench.codes == ["VideoReady"]
    assert not needs_conclusion(bench.run)


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


@pytest.mark.parametrize("status", ["FAILED", "ABORTED", "TIMED_OUT"])
@pytest.mark.parametrize("given", [JOB.model_dump_json(), '{"id": "anna"}', "no JSON", "", "[]"])
def test_an_execution_that_we_did_not_start_changes_nothing(status: str, given: str) -> None:
    bench = Bench().accept()
    event = ended_run(status)
    detail = event["detail"]
    assert isinstance(detail, dict)
    detail |= {"executionArn": RUN.replace(JOB.execution_name, "by-hand"), "input": given}

    assert bench.tell(event) is None

    assert bench.codes == []
    assert bench.error_file is None
    assert bench.slots.left == []
    assert bench.provider.cancelled == []


def test_sample_event_is_understood() -> None:
    ending = ending_in(json.loads((SAMPLES / "execution_aborted.json").read_bytes()))

    assert isinstance(ending, EndedRun)
    assert ending.job.id == "anna-5f0c9f1d2b7a4e63"
    assert ending.execution.endswith(ending.job.id)
    assert ending.started_at is not None
    assert ending.started_at.isoformat() == "2026-11-20T09:41:06.847000+00:00"
    assert ending.report.code == "ExecutionAborted"


# Each end: the slot left, the request cancelled if it was queued, an error file, one event


UNKNOWN = Progress(
    state=RenderState.RENDERING, wait_seconds=5, rendering_since=NOON, unknown_since=NOON
)


def poll_into(
    error: type[DropreelError], bench: Bench, answer: Answer | Exception
) -> DropreelError:
    """What poll raises three hours after the submission, having written it down. If the provider
    does not know it, it has not since then."""
    provider = ScriptedProvider(answers=[answer], cancels=True)
    with pytest.raises(error) as raised:
        poll(
            Underway(plan=PLAN, ticket=TICKET, progress=UNKNOWN, started_at=NOON),
            ledger=bench.ledger,
            slots=Rendered(),
            providers=by_name(provider),
            clock=lambda: NOON + timedelta(hours=3),
            settings=POLL_SETTINGS,
        )
    return raised.value


class Rendered:
    """Admission, as poll knows it."""

    def rendered(self, job: Job, attempt: int) -> None: ...


def ended_once_in(code: str, bench: Bench, *, keeps_charge: bool) -> None:
    assert bench.codes == [code]
    assert bench.error_file is not None
    assert VideoFailed.model_validate_json(bench.error_file).error.code == code
    assert set(bench.slots.left) == {(JOB.execution_name, keeps_charge)}
    assert bench.run is not None
    assert bench.run.closed_at is not None
    assert bench.outcome == code
    assert not needs_conclusion(bench.run)


@pytest.mark.parametrize(
    ("status", "code"), [("ABORTED", "ExecutionAborted"), ("TIMED_OUT", "ExecutionTimedOut")]
)
@pytest.mark.parametrize("is_queued", [True, False])
def test_end_by_aborting_or_timing_out(status: str, code: str, is_queued: bool) -> None:
    bench = Bench(provider=ScriptedProvider(cancels=is_queued)).accept()

    for _ in range(2):  # EventBridge may deliver twice
        bench.tell(ended_run(status))

    ended_once_in(code, bench, keeps_charge=not is_queued)
    assert bench.provider.cancelled == ["req-1"]
    [attempt] = bench.ledger.attempts(JOB.id)
    assert attempt.state is (AttemptState.LOST if is_queued else AttemptState.ACCEPTED)
    assert attempt.code == (code if is_queued else None)


def test_end_by_aborting_while_it_waits_for_a_slot() -> None:
    bench = Bench()

    bench.tell(ended_run("ABORTED"))

    ended_once_in("ExecutionAborted", bench, keeps_charge=False)
    assert bench.provider.cancelled == []


def test_end_by_deleting_the_inputs_before_the_submission() -> None:
    bench = Bench()

    bench.fail(InputGone("Deleted before it could be sent: inbox/team/anna.png."))

    ended_once_in("InputGone", bench, keeps_charge=False)
    assert bench.provider.cancelled == []


@pytest.mark.parametrize("is_queued", [True, False])
def test_end_by_a_provider_that_never_finishes(is_queued: bool) -> None:
    bench = Bench(provider=ScriptedProvider(cancels=is_queued)).accept()
    bench.fail(RenderTimedOut("After 60 minutes it was still queued."))

    ended_once_in("RenderTimedOut", bench, keeps_charge=not is_queued)
    assert bench.provider.cancelled == ["req-1"]


def test_end_by_a_provider_that_never_finishes_and_lets_poll_cancel() -> None:
    bench = Bench().accept()
    late = poll_into(RenderTimedOut, bench, Answer(state=RenderState.RENDERING))

    bench.fail(late)

    ended_once_in("RenderTimedOut", bench, keeps_charge=False)
    assert bench.provider.cancelled == []  # it is done already
    assert bench.error_file is not None
    render = VideoFailed.model_validate_json(bench.error_file).render
    assert render == FailedRender(
        provider="runcomfy",
        request_id="req-1",
        cancelled=True,
        attempts=(told("RenderTimedOut", late.message),),
    )


def test_end_by_a_provider_that_forgets_the_request() -> None:
    bench = Bench().accept()

    bench.fail(poll_into(RequestForgotten, bench, UnknownRequest()))

    ended_once_in("RequestForgotten", bench, keeps_charge=False)
    assert bench.provider.cancelled == []


def test_request_that_was_forgotten_before_it_was_delivered_is_lost() -> None:
    bench = Bench().accept()

    bench.fail(RequestForgotten("Whose video is to be fetched."))

    ended_once_in("RequestForgotten", bench, keeps_charge=False)
    [attempt] = bench.ledger.attempts(JOB.id)
    assert attempt.state is AttemptState.LOST


@pytest.mark.parametrize("error", [ResultUnavailable("HTTP 404."), ResultMissing("No video.")])
def test_render_that_could_not_be_delivered_stays_for_when_the_job_is_run_again(
    error: DropreelError,
) -> None:
    bench = Bench().accept()

    bench.fail(error)

    ended_once_in(error.report.code, bench, keeps_charge=True)
    [attempt] = bench.ledger.attempts(JOB.id)
    assert attempt.state is AttemptState.ACCEPTED


def test_submission_with_an_unclear_outcome_keeps_its_charge() -> None:
    bench = Bench().begin()

    bench.fail(SubmissionUnclear("No answer."))

    ended_once_in("SubmissionUnclear", bench, keeps_charge=True)


# One event, whatever the order


def test_execution_stopped_between_conclude_and_announcing_is_announced_once() -> None:
    bench = Bench()
    bench.tell(failed_run(NoCredit("Not enough credit.")))
    assert bench.outcome is None

    for _ in range(3):
        bench.tell(ended_run("ABORTED"))

    assert bench.codes == ["NoCredit"]


def test_execution_that_could_not_announce_is_announced_once() -> None:
    bench = Bench()
    bench.tell(failed_run(NoCredit("Not enough credit.")))

    for _ in range(3):
        bench.tell(ended_run("FAILED", "EventBridge.FailedEntry"))

    assert bench.codes == ["NoCredit"]


def test_execution_whose_conclusion_failed_throughout_is_concluded_and_announced_once() -> None:
    bench = Bench().accept()

    for _ in range(3):
        bench.tell(ended_run("FAILED", "ThrottlingException"))

    assert bench.codes == ["UnexpectedError"]


@pytest.mark.parametrize("lost_events", [0, 1])
def test_sweep_converges_and_announces_nothing_twice(lost_events: int) -> None:
    bench = Bench()
    code = bench.announce(bench.tell(failed_run(NoCredit("Not enough credit."))))
    assert needs_conclusion(bench.run)
    for _ in range(1 - lost_events):
        bench.tell(ended_run("FAILED", code))

    for _ in range(3):  # days
        if needs_conclusion(bench.run):  # as the sweep does, which knows how it ended
            bench.tell(ended_run("FAILED", code))

    assert bench.codes == ["NoCredit"]
    assert bench.outcome == "NoCredit"


@pytest.mark.parametrize(
    ("run", "needs"),
    [
        (None, True),
        (Run(job_id=JOB.id, number=1, closed_at=NOON), True),
        (Run(job_id=JOB.id, number=1, outcome="VideoReady", ended_at=NOON), True),
        (Run(job_id=JOB.id, number=1, outcome="VideoReady", ended_at=NOON, closed_at=NOON), False),
        (Run(job_id=JOB.id, number=1, outcome="NoCredit", ended_at=NOON), False),
    ],
)
def test_execution_needs_to_be_concluded_until_its_event_is_known_to_be_out(
    run: Run | None, needs: bool
) -> None:
    assert needs_conclusion(run) is needs


def test_marks_of_an_execution_that_had_the_name_long_ago_do_not_silence() -> None:
    bench = Bench()
    bench.ledger.close(JOB, NOON - timedelta(days=91))
    bench.ledger.end(JOB, "NoCredit", NOON - timedelta(days=91))

    bench.tell(ended_run("ABORTED"))

    assert bench.codes == ["ExecutionAborted"]


def test_slot_is_left_before_anything_is_told() -> None:
    bench = Bench()
    bench.slots = AwaySlots(bench.ledger)

    for way in (failed_run(NoCredit("Not enough credit.")), ended_run("ABORTED")):
        with pytest.raises(OSError, match="away"):
            bench.tell(way)

    assert bench.error_file is None
    assert bench.codes == []
    assert needs_conclusion(bench.run)


def test_warning_of_a_render_that_may_be_paid_for_survives_being_cut_off() -> None:
    # Given a call that cancelled the request, and could not give the slot back
    undisturbed = Bench().accept().conclude(ended_run("FAILED", "States.Runtime"))
    bench = Bench().accept()
    slots, bench.slots = bench.slots, AwaySlots(bench.ledger)
    with pytest.raises(OSError, match="away"):
        bench.tell(ended_run("FAILED", "States.Runtime"))
    bench.slots = slots

    assert bench.conclude(ended_run("FAILED", "States.Runtime")) == undisturbed


def test_failure_that_is_said_already_leaves_the_slot_once_more() -> None:
    bench = Bench().accept()

    bench.tell(ended_run("FAILED", "NoCredit"))

    assert bench.slots.left == [(JOB.execution_name, True)]
    assert bench.run is not None
    assert bench.run.closed_at is not None
    assert bench.outcome == "NoCredit"


@pytest.mark.parametrize("way", [step_failed("ThrottlingException"), ended_run("ABORTED")])
def test_video_that_was_there_leaves_the_slot_and_is_paid_for(way: dict[str, object]) -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.manifest_key: manifest()})).accept()

    bench.tell(way)

    assert bench.slots.left == [(JOB.execution_name, True)]


# Several runs of one job


def run_again(number: int) -> dict[str, object]:
    return failed_run(NoCredit("Not enough credit.")) | {
        "job": JOB.model_copy(update={"run": number}).model_dump(mode="json"),
        "execution": f"{RUN}-r{number}",
        "started_at": (NOON + timedelta(hours=number - 1)).isoformat(),
    }


def admitted(number: int, first_attempt: int) -> Run:
    job = JOB.model_copy(update={"run": number})
    plan = PLAN.model_copy(update={"job": job, "first_attempt": first_attempt})
    return Run(job_id=JOB.id, number=number, plan=plan)


def test_run_tells_its_own_attempts() -> None:
    bench = Bench().lose("RenderFailed")
    bench.ledger.note_run(admitted(2, first_attempt=2))
    second = bench.ledger.begin(JOB.id, Next(attempt=2), RUNCOMFY, NOON)
    assert second
    bench.ledger.refuse(second, "NoCredit", "Not enough credit.")

    failed = bench.conclude(run_again(2))

    assert failed.job.run == 2
    assert failed.render is not None
    assert [attempt.number for attempt in failed.render.attempts] == [2]
    assert bench.slots.left == [(JOB.model_copy(update={"run": 2}).execution_name, False)]


def test_run_that_has_submitted_nothing_leaves_and_is_told_so() -> None:
    bench = Bench().begin()
    bench.ledger.note_run(admitted(2, first_attempt=2))

    failed = bench.conclude(run_again(2))

    assert failed.render is None
    assert bench.slots.names == [JOB.model_copy(update={"run": 2}).execution_name]
    assert failed.error.advice == NoCredit.advice


def test_run_that_waited_for_what_an_earlier_one_submitted_cancels_it() -> None:
    bench = Bench().accept()

    failed = bench.conclude(run_again(2))

    assert bench.provider.cancelled == ["req-1"]
    assert failed.render is not None
    assert failed.render.cancelled


def test_run_that_was_admitted_after_what_it_waited_for_was_lost_tells_of_both() -> None:
    bench = Bench().lose("RenderFailed")
    run = admitted(2, first_attempt=2)
    assert run.plan
    plan = run.plan.model_copy(update={"resume": TICKET})
    bench.ledger.note_run(run.model_copy(update={"plan": plan}))
    second = bench.ledger.begin(JOB.id, Next(attempt=2), RUNCOMFY, NOON)
    assert second
    bench.ledger.refuse(second, "NoCredit", "Not enough credit.")

    failed = bench.conclude(run_again(2))

    assert failed.render is not None
    assert [attempt.number for attempt in failed.render.attempts] == [1, 2]


def test_run_that_is_concluded_late_leaves_to_the_next_run_what_that_waits_for() -> None:
    bench = Bench().accept()
    bench.ledger.note_run(Run(job_id=JOB.id, number=2))

    bench.tell(ended_run("ABORTED"))

    assert bench.provider.cancelled == []
    assert bench.codes == ["ExecutionAborted"]


def test_run_that_is_concluded_late_does_not_tell_a_later_runs_attempts() -> None:
    bench = Bench().lose("RenderFailed")
    bench.ledger.note_run(admitted(2, first_attempt=2))
    second = bench.ledger.begin(JOB.id, Next(attempt=2), RUNCOMFY, NOON)
    assert second
    bench.ledger.accept(second, "req-2", NOON)

    failed = bench.conclude(ended_run("ABORTED"))

    assert bench.provider.cancelled == []
    assert failed.render is not None
    assert failed.render.attempts == (told("RenderFailed", "No face."),)
    assert bench.slots.names == [JOB.execution_name]


@pytest.mark.parametrize("key", [JOB.manifest_key, JOB.error_key])
def test_error_file_goes_over_nothing_of_a_later_run(key: str) -> None:
    tell = manifest if key == JOB.manifest_key else error_file
    there = tell(JOB.model_copy(update={"run": 2}), NOON + timedelta(hours=1))
    bench = Bench(videos=FakeVideos(documents={key: there}))

    bench.tell(ended_run("ABORTED"))

    assert bench.videos.documents == {key: there}
    assert bench.codes == ["ExecutionAborted"]


def test_each_run_is_announced_for_itself() -> None:
    bench = Bench()
    bench.fail(NoCredit("Not enough credit."))

    failed = bench.conclude(run_again(2))

    assert failed.job.run == 2
    assert bench.error_file == failed.model_dump_json(indent=2)


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT"])
def test_what_a_version_without_runs_has_concluded_is_not_announced_again(status: str) -> None:
    bench = Bench(videos=FakeVideos(documents={JOB.error_key: error_file()}))

    assert bench.tell(ended_run(status)) is None

    assert bench.bus.announced == []
    assert bench.ledger.runs(JOB.id)[0].outcome is not None  # and the next sweep passes it by


# What was there before


@pytest.mark.parametrize("error", [PriceUnknown("No price."), SpendLimitReached("No room.")])
def test_who_is_not_admitted_any_more_is_told_who_refused_before(error: DropreelError) -> None:
    bench = Bench().begin()
    assert bench.attempt
    bench.ledger.refuse(bench.attempt, "NoCredit", "Top up.")

    failed = bench.conclude(failed_run(error))

    assert failed.error.message == f"{error.message} Refused before by runcomfy (NoCredit)."


def test_a_setting_that_is_unreadable_while_a_render_is_paid_for_says_that() -> None:
    bench = Bench(ScriptedProvider(cancels=False)).accept()

    failed = bench.conclude(failed_run(SettingUnreadable("No URL.")))

    assert not failed.error.retryable
    assert "may be paid for" in failed.error.advice


def test_all_providers_that_refused_are_told_because_one_account_may_be_mended() -> None:
    bench = Bench().begin()
    assert bench.attempt
    bench.ledger.refuse(bench.attempt, "NoCredit", "Top up.")
    bench.ledger.begin(JOB.id, Next(attempt=2, offer=1), WAVESPEED, NOON)

    failed = bench.conclude(failed_run(NoCredit("WaveSpeed has not enough credit.")))

    assert failed.error.message == (
        "WaveSpeed has not enough credit. Refused before by runcomfy (NoCredit)."
    )


@pytest.mark.parametrize("is_queued", [True, False])
def test_who_stopped_a_job_learns_whether_its_request_was_cancelled(is_queued: bool) -> None:
    bench = Bench(provider=ScriptedProvider(cancels=is_queued)).accept()

    told = bench.conclude(ended_run("ABORTED"))

    assert ("is cancelled" in told.error.message) is is_queued


def test_run_that_asked_for_nothing_is_not_told_of_an_earlier_runs_request() -> None:
    bench = Bench().accept()
    bench.conclude(ended_run("ABORTED"))
    bench.videos.documents.clear()
    bench.ledger.note_run(admitted(2, first_attempt=2))
    event: dict[str, Any] = ended_run("ABORTED")
    event["detail"]["input"] = JOB.model_copy(update={"run": 2}).model_dump_json()
    event["detail"]["executionArn"] += "-r2"

    failed = bench.conclude(event)

    assert failed.error.message.endswith("Nothing was submitted, and nothing is paid.")


def test_late_render_whose_request_is_cancelled_is_not_said_to_finish_still() -> None:
    bench = Bench().accept()
    late = poll_into(RenderTimedOut, bench, Answer(state=RenderState.RENDERING))

    failed = bench.conclude(failed_run(late))

    assert failed.error.message.endswith("is cancelled.")
    assert "may still finish" not in failed.error.advice


def test_fault_of_ours_that_had_its_request_cancelled_still_says_where_to_look() -> None:
    bench = Bench().accept()

    failed = bench.conclude(failed_run(UnexpectedError("A step ended in States.Runtime.")))

    assert failed.error.message.endswith("is cancelled.")
    assert failed.error.advice == UnexpectedError.advice
