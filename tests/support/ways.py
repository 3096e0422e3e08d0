"""Ways through the state machine: the calls of its functions in order, each with its answer.

A way is both the script that answers and what is expected: which step is called next, what of its
input matters, and how the execution ends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from threading import Timer
from typing import Any, cast

from pydantic import BaseModel

from dropreel.aws.task_tokens import WaitingExecutions
from dropreel.model.errors import DropreelError
from dropreel.model.events import DetailType, Ended, JobSummary, VideoFailed, VideoReady
from dropreel.model.job import Job
from dropreel.model.ledger import SAME_START, Ledger, Outcome
from dropreel.model.messages import (
    ActiveRender,
    AdmitRequest,
    EndedJob,
    NextAttempt,
    Plan,
    Progress,
    Submission,
    SubmitRequest,
)
from dropreel.model.provider import RenderState
from dropreel.outcome.announcement import announce
from dropreel.outcome.conclusion import CheckedRun, FailedRun
from tests.support.conclusion_bench import CHECKED, manifest
from tests.support.meter import FakeMeter
from tests.support.render_fakes import JOB, PLAN, TICKET
from tests.support.second_engine import SecondEngine

Answer = BaseModel | Exception | Callable[["Play", Any], BaseModel | None]


@dataclass(frozen=True)
class Call:
    """A call of a step: how it is answered, and what it is given."""

    step: str
    answer: Answer
    given: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, answer: Answer | None = None, **given: object) -> "Call":
        return Call(self.step, answer or self.answer, {**self.given, **given})

    def __str__(self) -> str:
        return _line(self.step, self.given)


def _line(step: str, given: Mapping[str, object]) -> str:
    return " ".join([step, *(f"{name}={value}" for name, value in given.items())])


@dataclass(frozen=True)
class Way:
    """One way through the machine."""

    name: str
    calls: tuple[Call, ...]
    ends: str = "Video Ready"  # or ABORTED, or the execution's error
    retries: int = 0
    events: int = 1
    job: Job = JOB
    name_by_hand: str | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def execution_name(self) -> str:
        return self.name_by_hand or self.job.execution_name

    @property
    def waits(self) -> list[int]:
        """Of the Wait states: as long as submit and poll said."""
        answers = [call.answer for call in self.calls]
        return [
            answer.wait_seconds
            for answer in answers
            if (isinstance(answer, Submission) and not answer.falls_over)
            or (isinstance(answer, Progress) and answer.state != "completed" and not answer.next)
        ]


def seen(request: object) -> dict[str, object]:
    """What matters of a step's input."""
    match request:
        case Job():
            return {"run": request.run}
        case AdmitRequest():
            return {"attempt": request.next.attempt, "retry": request.retry}
        case SubmitRequest():
            return {"attempt": request.next.attempt, "tries": request.next.tries}
        case ActiveRender():
            state = request.progress.state.value if request.progress else None
            return {"request": request.ticket.request_id, "progress": state}
        case FailedRun():
            return {"error": request.report.code}
        case CheckedRun():
            return {"checked": request.checked.job.id}
    assert isinstance(request, EndedJob)
    return {}


class Play:
    """One execution that goes a way."""

    def __init__(self, engine: SecondEngine, way: Way) -> None:
        self._engine = engine
        self._way = way
        self._machine = engine.create_machine()
        self.executions = WaitingExecutions(self._machine, engine.client)
        self.arn = self._machine.replace(":stateMachine:", ":execution:") + f":{way.execution_name}"
        self.calls: list[str] = []
        self.faults_of_the_input: list[str] = []
        self.outcomes = Outcomes(way.job)
        self.ended: dict[str, Any] = {}

    def run(self) -> "Play":
        self._engine.script = self
        self._engine.client.start_execution(
            stateMachineArn=self._machine,
            name=self._way.execution_name,
            input=self._way.job.model_dump_json(),
        )
        self.ended = self._engine.wait_for_end(self.arn)
        return self

    def stop(self) -> None:
        self._engine.client.stop_execution(executionArn=self.arn)

    def answer(self, step: str, event: Any, request: Any) -> BaseModel | None:  # noqa: ANN401
        """A call of a step. One that the way does not have ends the execution."""
        expected = self._way.calls[len(self.calls) : len(self.calls) + 1]
        self.calls.append(_line(step, seen(request)))
        self.faults_of_the_input += self._wrong_in(event, request)
        if not expected or expected[0].step != step:
            self.stop()
            return None
        answer = expected[0].answer
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, BaseModel) else answer(self, request)

    def _wrong_in(self, event: dict[str, Any], request: Any) -> list[str]:  # noqa: ANN401
        """Fields that are missing or that nobody reads, another job, or another execution."""
        if isinstance(request, Job):
            return [] if request == self._way.job else ["job"]
        wrong = list(set(event) ^ set(type(request).model_fields))
        if request.job != self._way.job or getattr(request, "execution", self.arn) != self.arn:
            wrong.append("job or execution")
        started_at = getattr(request, "started_at", self.started_at)
        return wrong + ["started_at"] * (abs(started_at - self.started_at) >= SAME_START)

    @cached_property
    def started_at(self) -> datetime:
        return self._engine.client.describe_execution(executionArn=self.arn)["startDate"]


class Outcomes:
    """The ledger, as far as a run's outcome is in it; and the bus."""

    def __init__(self, job: Job) -> None:
        self._key = (job.id, job.run)
        self._written: tuple[Outcome, datetime] | None = None
        self.sent: list[tuple[DetailType, BaseModel]] = []
        self.resources: list[tuple[str, ...]] = []

    def end(self, started_at: datetime, detail: Ended) -> Any:  # noqa: ANN401
        """The first outcome counts."""
        self._written = self._written or (Outcome(detail=detail), started_at)
        return self._written[0].detail

    def outcome(self, job: Job, started_at: datetime) -> Outcome | None:
        if self._written is None or (job.id, job.run, started_at) != (*self._key, self._written[1]):
            return None
        return self._written[0]

    def list_ended(self, outcome: Outcome) -> None:
        """Nothing reads the lists here."""

    def mark_sent(self, job: Job, now: datetime) -> bool:
        assert self._written
        is_first = self._written[0].sent_at is None
        self._written = (self._written[0].model_copy(update={"sent_at": now}), self._written[1])
        return is_first

    def announce(
        self, detail_type: DetailType, detail: BaseModel, resources: Sequence[str] = ()
    ) -> None:
        self.resources.append(tuple(resources))
        self.sent.append((detail_type, detail))


# The functions' answers


def prepared(play: Play, job: Job) -> Plan:
    return PLAN.model_copy(update={"job": job})


def slot(play: Play, request: AdmitRequest) -> None:
    """A slot is free: the token is answered before the function returns."""
    assert play.executions.go_on(request.task_token)


def slot_later(play: Play, request: AdmitRequest) -> None:
    """Another function answers the token, after admit has returned."""
    Timer(0.05, slot, (play, request)).start()


def refused_later(error: DropreelError) -> Answer:
    """Another function fails the waiting task."""

    def refuse(play: Play, request: AdmitRequest) -> None:
        Timer(0.05, play.executions.refuse, (request.task_token, error)).start()

    return refuse


def delivered(play: Play, render: ActiveRender) -> VideoReady:
    ready = VideoReady.model_validate_json(manifest(render.job, render.started_at))
    written: VideoReady = play.outcomes.end(render.started_at, ready)
    return written


def delivered_and_then(error: Exception) -> Answer:
    """The video is there and the outcome is written, but the call fails."""

    def deliver(play: Play, render: ActiveRender) -> None:
        delivered(play, render)
        raise error

    return deliver


def concluded(play: Play, ending: FailedRun | CheckedRun) -> BaseModel:
    if isinstance(ending, CheckedRun) or ending.job.dry_run:
        said = {"accepted": ending.report is None, "error": ending.report}
        job = JobSummary.of(ending.job, ending.started_at)
        checked = CHECKED.model_copy(update={**said, "job": job, "execution": ending.execution})
        answer: BaseModel = play.outcomes.end(ending.started_at, checked)
        return answer
    failed = VideoFailed(
        error=ending.report,
        job=JobSummary.of(ending.job, ending.started_at),
        inputs=(),
        estimated_usd=0,
        error_file=None,
        ended_at=ending.started_at,
        execution=ending.execution,
    )
    written: BaseModel = play.outcomes.end(ending.started_at, failed)
    return written


def announced(play: Play, ended: EndedJob) -> BaseModel:
    """The real function's work."""
    ledger = cast(Ledger, play.outcomes)
    return announce(
        ended.job,
        ended.started_at,
        ended.execution,
        ledger=ledger,
        bus=play.outcomes,
        meter=FakeMeter(),
        clock=lambda: datetime.now(UTC),
    )


def announced_and_then(error: Exception) -> Answer:
    """The event is sent and marked, but the call fails."""

    def send(play: Play, ended: EndedJob) -> None:
        announced(play, ended)
        raise error

    return send


def nothing(play: Play, request: object) -> None:
    """An answer without any field."""


def stopped(play: Play, request: object) -> None:
    """Someone stops the execution while the step runs."""
    play.stop()
    if isinstance(request, AdmitRequest):
        # On AWS, the token is void by now. This engine waits for it even so.
        play.executions.go_on(request.task_token)


NEXT = NextAttempt(attempt=2, offer=1)
OTHER_TICKET = TICKET.model_copy(update={"request_id": "req-2", "attempt": 2, "offer": 1})
ACCEPTED = Submission(ticket=TICKET, wait_seconds=7)
ACCEPTED_ELSEWHERE = Submission(ticket=OTHER_TICKET, wait_seconds=8)
POSTPONED = Submission(wait_seconds=33, next=NextAttempt(tries=1))
FALLS_OVER = Submission(wait_seconds=0, next=NEXT, falls_over=True)
QUEUED = Progress(state=RenderState.QUEUED, wait_seconds=11)
RENDERING = Progress(state=RenderState.RENDERING, wait_seconds=12)
COMPLETED = Progress(state=RenderState.COMPLETED, wait_seconds=0)
SUBMIT_AGAIN = Progress(state=RenderState.FAILED, wait_seconds=0, next=NEXT)

PREPARE = Call("Prepare", prepared, {"run": 1})
ADMIT = Call("Admit", slot, {"attempt": 1, "retry": 0})
SUBMIT = Call("Submit", ACCEPTED, {"attempt": 1, "tries": 0})
POLL = Call("Poll", COMPLETED, {"request": "req-1", "progress": None})
DELIVER = Call("Deliver", delivered, {"request": "req-1", "progress": "completed"})
CONCLUDE = Call("Conclude", concluded, {"error": "UnexpectedError"})
ANNOUNCE = Call("Announce", announced)

TO_A_VIDEO = (PREPARE, ADMIT, SUBMIT, POLL, DELIVER, ANNOUNCE)
FAILED = (CONCLUDE, ANNOUNCE)
"""After a step that failed."""
