"""Conclude with everything around it replaced, and what it is called with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dropreel.model.errors import DropreelError, NoCredit
from dropreel.model.events import (
    AttemptSummary,
    DeliveredVideo,
    DetailType,
    Ended,
    JobChecked,
    JobSummary,
    RenderSummary,
    StoredFile,
    VideoFailed,
    VideoReady,
)
from dropreel.model.job import Job
from dropreel.model.ledger import Attempt, Outcome, Run
from dropreel.model.messages import NextAttempt, PlannedOffer
from dropreel.outcome.announcement import announce
from dropreel.outcome.conclusion import Conclusion, ending_in, needs_conclusion
from dropreel.render.attempts import MAY_BE_PAID
from dropreel.render.spending import Limits
from tests.support.meter import FakeMeter
from tests.support.render_fakes import (
    JOB,
    NOON,
    RUNCOMFY,
    TICKET,
    FakeClock,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)

RUN = "arn:aws:states:eu-west-1:123456789012:execution:dropreel-render:anna-0123456789abcdef"
SAMPLE = Path(__file__).parents[2] / "events" / "samples" / "execution_aborted.json"
JOB_AGAIN = JOB.model_copy(update={"run": 2})

Event = dict[str, Any]
Told = Ended | None


@dataclass
class FakeSlots:
    """Admission, as conclude knows it: the runs that left, and whether their charge stayed."""

    ledger: MemoryLedger
    is_away: bool = False
    left: list[tuple[str, bool]] = field(default_factory=list)

    def leave(self, job: Job) -> None:
        if self.is_away:
            raise OSError("DynamoDB is away")
        attempts = self.ledger.attempts(job.id)
        self.left.append((job.execution_name, bool(attempts) and attempts[-1].state in MAY_BE_PAID))


class Bench:
    def __init__(
        self, documents: dict[str, str] | None = None, *, cancels: bool | Exception = True
    ) -> None:
        self.provider = ScriptedProvider(cancels=cancels)
        self.beginning_run = 1
        self.ledger = MemoryLedger()
        self.documents = documents or {}  # of the videos bucket, by key
        self.videos: set[str] = set()  # their keys
        self.announced: list[tuple[DetailType, BaseModel]] = []
        self.bus_is_away = False
        self.meter = FakeMeter()
        self.slots = FakeSlots(self.ledger)
        self.limits = Limits(in_flight={"runcomfy": 1, "wavespeed": 1}, lease={})
        self.clock = FakeClock()

    # The job's attempts

    def begin(
        self, number: int = 1, offer: PlannedOffer = RUNCOMFY, usd: float | None = None
    ) -> "Bench":
        next_attempt = NextAttempt(attempt=number, offer=0 if offer is RUNCOMFY else 1)
        run = self.beginning_run
        assert self.ledger.begin(JOB.id, next_attempt, offer, NOON, run=run, estimated_usd=usd)
        return self

    def in_run(self, run: int) -> "Bench":
        """What is begun from now on."""
        self.beginning_run = run
        return self

    @property
    def attempt(self) -> Attempt:
        """The latest."""
        return self.ledger.attempts(JOB.id)[-1]

    def accept(self, number: int = 1, usd: float | None = None) -> "Bench":
        self.begin(number, usd=usd)
        self.ledger.accept(self.attempt, f"req-{number}", NOON)
        return self

    def refuse(self, number: int = 1, offer: PlannedOffer = RUNCOMFY) -> "Bench":
        self.begin(number, offer)
        self.ledger.refuse(self.attempt, "NoCredit", "Not enough credit.")
        return self

    def lose(self, code: str = "RenderFailed") -> "Bench":
        self.accept()
        self.ledger.lose(JOB.id, TICKET, code, "No face.")
        return self

    # Conclude

    def tell(self, event: Event) -> Told:
        ending = ending_in(event)
        if ending is None:
            return None
        return Conclusion(
            ledger=self.ledger,
            leave_slot=self.slots.leave,
            limits=lambda: self.limits,
            providers=by_name(self.provider),
            videos=self,
            video_bucket="videos",
            bus=self,
            meter=self.meter,
            clock=self.tick,
        ).conclude(ending)

    def conclude(self, event: Event) -> VideoFailed:
        told = self.tell(event)
        assert isinstance(told, VideoFailed)
        return told

    def end(self, way: Event) -> VideoFailed:
        """The whole way: after the state machine's call, it announces and ends. Then EventBridge
        calls, perhaps twice."""
        failed = self.conclude(way)
        if "detail" in way:
            self.tell(way)
        else:
            self.announce_outcome()
            self.tell(ended_run("FAILED", failed.error.code))
        return failed

    def announce_outcome(self) -> None:
        """The state machine's next step."""
        announce(JOB, NOON, RUN, ledger=self.ledger, bus=self, meter=self.meter, clock=self.tick)

    def text(self, bucket: str, key: str) -> str | None:
        return self.documents.get(key)

    def has(self, bucket: str, key: str) -> bool:
        return key in self.videos

    def put_json(self, bucket: str, key: str, document: str) -> None:
        self.documents[key] = document

    def announce(
        self, detail_type: DetailType, detail: BaseModel, resources: Sequence[str] = ()
    ) -> None:
        if self.bus_is_away:
            raise OSError("EventBridge is away")
        assert [arn.removesuffix("-r2") for arn in resources] == [RUN]
        self.announced.append((detail_type, detail))

    def tick(self) -> datetime:
        self.clock.pass_seconds(1)
        return self.clock()

    # What the tests look at

    @property
    def error_file(self) -> str | None:
        return self.documents.get(JOB.error_key)

    @property
    def run(self) -> Run | None:
        return next(iter(self.ledger.runs(JOB.id)), None)

    @property
    def outcome(self) -> Outcome | None:
        return self.ledger.outcome(JOB, NOON)

    @property
    def codes(self) -> list[str]:
        """What was announced."""
        return [
            detail.error.code if isinstance(detail, VideoFailed) else type(detail).__name__
            for _, detail in self.announced
        ]

    def ended_once_in(self, code: str, *, keeps_charge: bool) -> None:
        assert self.codes == [code]
        assert self.error_file is not None
        failed = VideoFailed.model_validate_json(self.error_file)
        assert self.announced == [(DetailType.VIDEO_FAILED, failed)]
        assert set(self.slots.left) == {(JOB.execution_name, keeps_charge)}
        assert self.run is not None
        assert self.run.closed_at is not None
        assert self.outcome
        assert self.outcome.detail == failed
        assert not needs_conclusion(self.outcome)


def told(
    outcome: str,
    message: str,
    request_id: str | None = "req-1",
    number: int = 1,
    offer: PlannedOffer = RUNCOMFY,
    estimated_usd: float | None = 0,
) -> AttemptSummary:
    return AttemptSummary(
        number=number,
        provider=offer.provider,
        model=offer.endpoint,
        request_id=request_id,
        outcome=outcome,
        message=message,
        estimated_usd=estimated_usd,
    )


def lambda_cause(message: str, name: str = "FinalAnswer") -> str:
    return json.dumps({"errorMessage": message, "errorType": name, "stackTrace": ["  File ..."]})


def failed_run(error: DropreelError, **changes: object) -> Event:
    return step_failed("FinalAnswer", lambda_cause(str(error))) | changes


def step_failed(name: str, cause: str | None = None) -> Event:
    error = {"Error": name} if cause is None else {"Error": name, "Cause": cause}
    return {
        "job": JOB.model_dump(mode="json"),
        "error": error,
        "execution": RUN,
        "started_at": NOON.isoformat(),
    }


def ended_run(status: str, error: str | None = None, **changes: object) -> Event:
    event: Event = json.loads(SAMPLE.read_text())
    event["detail"] |= {
        "status": status,
        "error": error,
        "executionArn": RUN,
        "input": JOB.model_dump_json(),
        "startDate": int(NOON.timestamp() * 1000),
    } | changes
    return event


NO_CREDIT = NoCredit("Not enough credit.")
REFUSED, ABORTED = failed_run(NO_CREDIT), ended_run("ABORTED")
CRASHED = ended_run("FAILED", "States.X")  # where nothing caught it


def manifest(job: Job = JOB, started_at: datetime = NOON) -> str:
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
            has_audio=True,
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
        manifest=StoredFile(bucket="videos", key=job.manifest_key),
        estimated_usd=0,
        ended_at=NOON,
    ).model_dump_json()


def error_file(job: Job = JOB, started_at: datetime = NOON, execution: str = RUN) -> str:
    return VideoFailed(
        error=NO_CREDIT.report,
        job=JobSummary.of(job, started_at),
        inputs=(),
        estimated_usd=0,
        error_file=StoredFile(bucket="videos", key=job.error_key),
        ended_at=NOON,
        execution=execution,
    ).model_dump_json()


READY = Outcome(detail=VideoReady.model_validate_json(manifest()))
CHECKED = JobChecked(
    accepted=True,
    error=None,
    job=JobSummary.of(JOB, NOON),
    inputs=(),
    changes=(),
    offers=(),
    voice_seconds=None,
    estimated_usd=None,
    check_file=StoredFile(bucket="videos", key=JOB.check_key),
    ended_at=NOON,
    execution=RUN,
)
FAILED = Outcome(detail=VideoFailed.model_validate_json(error_file()))


def failed_in(code: str) -> Outcome:
    failed = VideoFailed.model_validate_json(error_file())
    error = failed.error.model_copy(update={"code": code})
    return Outcome(detail=failed.model_copy(update={"error": error}))


def sent(outcome: Outcome) -> Outcome:
    return outcome.model_copy(update={"sent_at": NOON})
