"""AWS on a bad day: functions that are killed or called twice, a throttled ledger, refused events.

The functions run as they are deployed. Only their calls to AWS are broken, one after the other.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import cache, partial
from itertools import count
from typing import Any, TypeVar

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from dropreel.aws.bus import EventNotTaken
from dropreel.aws.closures import DynamoDBClosures
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.catalog import TITLES
from dropreel.model.errors import DropreelError, RenderTimedOut, RequestForgotten
from dropreel.model.events import JobSummary, VideoFailed, VideoReady
from dropreel.model.job import Job
from dropreel.model.ledger import AttemptState, Outcome, Run
from dropreel.model.messages import (
    ActiveRender,
    EndedJob,
    NextAttempt,
    Progress,
    Submission,
    SubmitRequest,
)
from dropreel.model.prices import billed
from dropreel.model.provider import Answer, RenderState, Result, Ticket, UnknownRequest
from dropreel.render.admission import RunId, Waiter
from dropreel.render.spending import Limits
from tests.support.admission_fakes import FakeExecutions, admission_with, job_named, request_of
from tests.support.conclusion_bench import FAILED, READY
from tests.support.fault_account import CONTEXT, load_step
from tests.support.final_answers import ends_in
from tests.support.render_account import LEDGER, ROOT, VIDEOS, RenderAccount, render_account
from tests.support.render_fakes import PLAN, RUNCOMFY, TICKET, ScriptedProvider, by_name
from tests.support.videos import tiny_video

ABORTED = json.loads((ROOT / "events/samples/execution_aborted.json").read_text())
URL = "https://cdn.example/video.mp4?signature=secret"
STARTED_AT = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
COMPLETED = Answer(state=RenderState.COMPLETED)
QUEUED = Answer(state=RenderState.QUEUED)
UNLIMITED = Limits(in_flight={}, lease={})
MANY_SLOTS = dict.fromkeys(TITLES, 1000)

Json = dict[str, Any]
T = TypeVar("T")


class Killed(BaseException):
    """The function's process is gone: no handler of an exception gets to run."""


class Fault(Enum):
    KILLED = auto()  # before a write, that is, after the one before and whatever came of it
    THROTTLED = auto()  # by DynamoDB, until boto3 has given up
    REFUSED = auto()  # by PutEvents, which answers all the same


_READS = ("Get", "Head", "List", "Query", "Describe")


@dataclass
class Weather:
    """Breaks one call to AWS, the n-th of those that the fault can befall."""

    fault: Fault | None = None
    nth: int = 0
    seen: int = 0
    done: list[str] = field(default_factory=list)
    has_struck: bool = False

    def brew(self, fault: Fault, nth: int = 1) -> None:
        self.fault, self.nth = fault, nth
        self.seen, self.done, self.has_struck = 0, [], False

    def clear(self) -> None:
        self.fault = None

    def pass_through(self, service: str, operation: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        if self.fault is None:
            return call()
        if self.fault is Fault.KILLED and self.has_struck:
            raise Killed
        may_befall = {
            Fault.KILLED: not operation.startswith(_READS),
            Fault.THROTTLED: service == "dynamodb",
            Fault.REFUSED: operation == "PutEvents",
        }
        self.seen += may_befall[self.fault]
        if may_befall[self.fault] and self.seen == self.nth:
            self.has_struck = True
            return self._strike(self.fault, operation)
        self.done.append(operation)
        return call()

    def _strike(self, fault: Fault, operation: str) -> object:
        if fault is Fault.KILLED:
            raise Killed
        if fault is Fault.THROTTLED:
            code = ("ThrottlingException", "ProvisionedThroughputExceededException")[self.nth % 2]
            raise ClientError({"Error": {"Code": code, "Message": "Slow down."}}, operation)
        entry = {"ErrorCode": "InternalFailure", "ErrorMessage": "Try again."}
        return {"FailedEntryCount": 1, "Entries": [entry]}


class FaithfulProvider(ScriptedProvider):
    """Remembers what it cancelled, as a real one does."""

    def __init__(self, answer: Answer | Exception) -> None:
        super().__init__(submissions=["req-1", "req-2"], answers=[answer], cancels=True)

    def ask(self, ticket: Ticket) -> Answer:
        if self.cancelled:
            return Answer(state=RenderState.CANCELLED)
        return super().ask(ticket)

    def result(self, ticket: Ticket) -> Result:
        return Result(video_url=URL)


class Function:
    """A step's function, as Lambda keeps it from call to call."""

    def __init__(self, step: str) -> None:
        self.app = load_step(step)
        if step == "deliver":
            self.app.download = copy_tiny_video

    def __call__(self, event: Mapping[str, Any], provider: ScriptedProvider | None = None) -> Json:
        if provider:
            find = by_name(provider)
            self.app.provider_of = lambda name, settings: find(name)
        answer: Json = self.app.handler(dict(event), CONTEXT)
        return answer


def copy_tiny_video(
    url: str,
    sink: Any,  # noqa: ANN401 - of delivery
    seconds_left: Callable[[], float],
) -> None:
    assert url == URL
    sink.write(tiny_video())


# A job under way


_numbers = count(1)


@dataclass
class Case:
    """A job of its own, dropped and planned."""

    account: RenderAccount

    def __post_init__(self) -> None:
        job = job_named(f"anna{next(_numbers)}")
        self.plan = self.account.drop(PLAN.model_copy(update={"job": job}))
        self.job = self.plan.job

    @property
    def slots(self) -> DynamoDBSlots:
        return DynamoDBSlots(LEDGER, self.account.dynamodb)

    def accept(self) -> "Case":
        """It holds a slot, and its request is accepted."""
        now, slots = datetime.now(UTC), self.slots
        slots.join(
            Waiter(
                run=RunId.of(self.job),
                attempt=1,
                route=billed(self.plan),
                offer=0,
                started_at=STARTED_AT,
                task_token="token",
            ),
            self.plan,
        )
        [waiter] = slots.first_waiters(RUNCOMFY.provider, 2)
        free, until = len(slots.leases(RUNCOMFY.provider)), now + timedelta(hours=9)
        slots.grant(waiter, free, by="", until=until, now=now, usd=None, limits=UNLIMITED)
        assert self.holds_slot
        attempt = self.account.ledger.begin(self.job.id, NextAttempt(), RUNCOMFY, STARTED_AT)
        assert attempt
        self.account.ledger.accept(attempt, "req-1", STARTED_AT)
        return self

    @property
    def holds_slot(self) -> bool:
        held = [lease.run.job_id for lease in self.slots.leases(RUNCOMFY.provider)]
        return self.job.id in held

    @property
    def run(self) -> Run:
        [run] = self.account.ledger.runs(self.job.id)
        return run

    @property
    def outcome(self) -> Outcome | None:
        return self.account.ledger.outcome(self.job, STARTED_AT)

    @property
    def attempt_state(self) -> AttemptState:
        [attempt] = self.account.ledger.attempts(self.job.id)
        return attempt.state

    def submission(self) -> Json:
        request = SubmitRequest(plan=self.plan, started_at=STARTED_AT)
        return request.model_dump(mode="json")

    def render(self) -> Json:
        render = ActiveRender(
            plan=self.plan,
            ticket=TICKET.model_copy(update={"submitted_at": STARTED_AT}),
            progress=Progress(
                state=RenderState.RENDERING,
                wait_seconds=5,
                rendering_since=STARTED_AT,
                unknown_since=STARTED_AT,
            ),
            started_at=STARTED_AT,
        )
        return render.model_dump(mode="json")

    @property
    def execution(self) -> str:
        return f"arn:aws:states:eu-central-1:123456789012:execution:r:{self.job.id}"

    def failed_run(self) -> Json:
        cause = {"errorMessage": str(RenderTimedOut("Still queued.")), "errorType": "-"}
        return {
            "job": self.job.model_dump(mode="json"),
            "error": {"Error": "FinalAnswer", "Cause": json.dumps(cause)},
            "execution": self.execution,
            "started_at": STARTED_AT.isoformat(),
        }

    def ended_run(self) -> Json:
        detail = ABORTED["detail"] | {
            "executionArn": self.execution,
            "input": self.job.model_dump_json(),
            "startDate": int(STARTED_AT.timestamp() * 1000),
        }
        return {**ABORTED, "detail": detail}

    def ended_job(self) -> Json:
        ended = EndedJob(job=self.job, execution=self.execution, started_at=STARTED_AT)
        return ended.model_dump(mode="json")

    def announced(self) -> list[Json]:
        """The details of its events since the last look."""
        looks = iter(self.account.announced, [])  # a look takes some of what is there
        events: list[Json] = [json.loads(text) for look in looks for text in look]
        ours = [event for event in events if event["detail"]["job"]["id"] == self.job.id]
        assert all(event["resources"] == [self.execution] for event in ours)
        return [event["detail"] for event in ours]

    def versions(self, key: str) -> int:
        listed = self.account.s3.list_object_versions(Bucket=VIDEOS, Prefix=key)
        return len(listed.get("Versions", []))

    def text(self, key: str) -> str:
        return self.account.s3.get_object(Bucket=VIDEOS, Key=key)["Body"].read().decode()


@dataclass
class Platform:
    """The account, the functions in it, and the weather between them."""

    account: RenderAccount
    function: Callable[[str], Function]
    weather: Weather = field(default_factory=Weather)

    def dropped_job(self) -> Case:
        return Case(self.account)

    def accepted_job(self) -> Case:
        return Case(self.account).accept()

    @property
    def events_sent(self) -> int:
        """Twice only if the first call was cut off between the event and its mark."""
        return 1 + (self.weather.has_struck and "PutEvents" in self.weather.done)

    def cut_off_anywhere(self, fault: Fault, given: Callable[[], T]) -> Iterator[T]:
        """What is given, once for each call to AWS that the fault can befall after that, until
        there is no further one."""
        for nth in count(1):
            self.account.empty_ledger()
            self.account.displayed()
            there = given()
            self.weather.brew(fault, nth)
            yield there
            if not self.weather.has_struck:
                assert nth > 1
                return

    def called_again(self, call: Callable[[], Json | None]) -> Json | None:
        """The answer in the end, as Step Functions or EventBridge get it."""
        try:
            answer = call()
        except (Killed, ClientError):
            assert self.weather.has_struck
        else:  # only an event for display may be missing
            assert not self.weather.has_struck or self.account.displayed() == []
            return answer
        finally:
            self.weather.clear()
        return call()


@pytest.fixture(scope="module")
def module_aws() -> Iterator[Platform]:
    """One for all tests: each has jobs of its own."""
    with pytest.MonkeyPatch.context() as patch, render_account(patch) as account:
        yield Platform(account, cache(Function))


@pytest.fixture
def aws(module_aws: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    aws = replace(module_aws, weather=Weather())
    make_api_call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def call(client: Any, operation: str, params: Any) -> Any:  # noqa: ANN401
        service = client.meta.service_model.service_name
        return aws.weather.pass_through(
            service, operation, lambda: make_api_call(client, operation, params)
        )

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    return aws


# Killed in the middle, or the ledger throttled, and called again


each_fault = pytest.mark.parametrize("fault", [Fault.KILLED, Fault.THROTTLED])


@pytest.mark.parametrize(
    ("way", "fault"),
    [
        pytest.param(Case.failed_run, Fault.KILLED, id="caught, killed"),
        pytest.param(Case.ended_run, Fault.KILLED, id="aborted, killed"),
        pytest.param(Case.ended_run, Fault.THROTTLED, id="aborted, throttled"),
    ],
)
def test_conclude_cut_off_anywhere_comes_to_the_same_end(
    way: Callable[[Case], Json], fault: Fault, aws: Platform
) -> None:
    conclude = aws.function("conclude")
    code = "RenderTimedOut" if way is Case.failed_run else "ExecutionAborted"

    for case in aws.cut_off_anywhere(fault, aws.accepted_job):
        event, provider = way(case), FaithfulProvider(QUEUED)

        answer = aws.called_again(partial(conclude, event, provider))

        failed = VideoFailed.model_validate(answer)
        assert failed.error.code == code
        assert failed.render is not None
        assert failed.render.cancelled
        assert [made.outcome for made in failed.render.attempts] == [code]
        assert VideoFailed.model_validate_json(case.text(case.job.error_key)) == failed
        # Written again by a call that finds the event not sent.
        again = aws.weather.has_struck and "PutObject" in aws.weather.done
        assert case.versions(case.job.error_key) == 1 + again
        assert case.attempt_state is AttemptState.LOST
        assert not case.holds_slot
        assert case.outcome
        assert case.outcome.detail == failed
        if way is Case.failed_run:  # the next state announces it
            assert (case.announced(), case.outcome.sent_at) == ([], None)
        else:
            assert case.outcome.sent_at
            assert case.announced() == [answer] * aws.events_sent


@each_fault
def test_deliver_cut_off_anywhere_comes_to_the_same_end(fault: Fault, aws: Platform) -> None:
    deliver = aws.function("deliver")

    for case in aws.cut_off_anywhere(fault, aws.accepted_job):
        event, provider = case.render(), FaithfulProvider(COMPLETED)

        answer = aws.called_again(partial(deliver, event, provider))

        ready = VideoReady.model_validate(answer)
        video = aws.account.s3.get_object(Bucket=VIDEOS, Key=case.job.video_key)
        assert video["VersionId"] == ready.video.version_id
        assert video["Body"].read() == tiny_video()
        assert VideoReady.model_validate_json(case.text(case.job.manifest_key)) == ready
        assert case.outcome == Outcome(detail=ready)


@each_fault
@pytest.mark.parametrize("outcome", [READY, FAILED], ids=["ready", "failed"])
def test_announce_cut_off_anywhere_sends_one_event(
    outcome: Outcome, fault: Fault, aws: Platform
) -> None:
    announce = aws.function("announce")

    def ended_job() -> Case:
        case = aws.dropped_job()
        summary = JobSummary.of(case.job, STARTED_AT)
        detail = outcome.detail.model_copy(update={"job": summary})
        aws.account.ledger.end(case.job, STARTED_AT, Outcome(detail=detail), STARTED_AT)
        return case

    for case in aws.cut_off_anywhere(fault, ended_job):
        answer = aws.called_again(partial(announce, case.ended_job()))

        assert case.outcome
        assert case.outcome.sent_at
        assert answer == case.outcome.detail.model_dump(mode="json")
        assert case.announced() == [answer] * aws.events_sent


@each_fault
def test_poll_cut_off_anywhere_returns_the_slot(fault: Fault, aws: Platform) -> None:
    poll = aws.function("poll")

    for case in aws.cut_off_anywhere(fault, aws.accepted_job):
        event, provider = case.render(), FaithfulProvider(COMPLETED)

        answer = aws.called_again(partial(poll, event, provider))

        assert Progress.model_validate(answer).state is RenderState.COMPLETED
        assert not case.holds_slot
        assert case.run.rendered_at is not None


@each_fault
@pytest.mark.parametrize(
    ("says", "loss"), [(QUEUED, RenderTimedOut), (UnknownRequest(), RequestForgotten)]
)
def test_poll_cut_off_anywhere_reports_the_same_loss(
    says: Answer | Exception, loss: type[DropreelError], fault: Fault, aws: Platform
) -> None:
    poll = aws.function("poll")

    for case in aws.cut_off_anywhere(fault, aws.accepted_job):
        event, provider = case.render(), FaithfulProvider(says)

        def lost(event: Json = event, provider: FaithfulProvider = provider) -> Json:
            with ends_in(loss) as ended:
                poll(event, provider)
            return ended.report.model_dump()

        answer = aws.called_again(lost)

        assert answer
        assert answer["code"] == loss.__name__
        assert case.attempt_state is AttemptState.LOST


@each_fault
def test_admit_cut_off_anywhere_gives_one_slot(fault: Fault, aws: Platform) -> None:
    admit, executions = aws.function("admit"), FakeExecutions()
    limits = replace(admit.app.admission.limits, in_flight=MANY_SLOTS)
    admit.app.admission = replace(admit.app.admission, executions=executions, limits=limits)

    for case in aws.cut_off_anywhere(fault, aws.dropped_job):
        job, retries = case.job, count()

        def call(job: Job = job, retries: Iterator[int] = retries) -> None:
            """Step Functions calls again with a token of its own, while it has no answer."""
            if job.execution_name not in executions.gone_on:
                request = request_of(job, retry=next(retries))
                executions.wait(job.execution_name, request.task_token)
                admit(request.model_dump(mode="json") | {"task_token": request.task_token})

        aws.called_again(call)

        assert executions.gone_on.count(job.execution_name) == 1
        leases = case.slots.leases(RUNCOMFY.provider)
        assert [lease.run for lease in leases].count(RunId.of(job)) == 1


@each_fault
def test_sweep_cut_off_anywhere_serves_the_waiting_jobs(fault: Fault, aws: Platform) -> None:
    executions, ledger = FakeExecutions(), aws.account.ledger
    slots, clock = DynamoDBSlots(LEDGER, aws.account.dynamodb), partial(datetime.now, UTC)
    closures = DynamoDBClosures(LEDGER, aws.account.dynamodb)
    paused = admission_with(slots, executions, ledger, clock, closures, in_flight=0)
    resumed = admission_with(slots, executions, ledger, clock, closures, in_flight=MANY_SLOTS)

    def waiting_job() -> Job:
        request = request_of(aws.dropped_job().job)
        executions.wait(request.plan.job.execution_name, request.task_token)
        paused.admit(request)
        return request.plan.job

    for job in aws.cut_off_anywhere(fault, waiting_job):
        aws.called_again(resumed.serve_all)

        assert executions.gone_on.count(job.execution_name) == 1
        resumed.leave(job)


@pytest.mark.parametrize("nth", range(1, 7))
def test_submit_with_a_throttled_ledger_sends_once(nth: int, aws: Platform) -> None:
    event, provider = aws.dropped_job().submission(), FaithfulProvider(QUEUED)
    submit = aws.function("submit")
    aws.weather.brew(Fault.THROTTLED, nth)

    try:
        answer = submit(event, provider)
    except ClientError:
        assert provider.submitted == []
        aws.weather.clear()
        answer = submit(event, provider)

    ticket = Submission.model_validate(answer).ticket
    assert ticket is not None
    assert ticket.request_id == "req-1"
    assert aws.weather.has_struck is (nth <= 5)  # find, admitted, begin, accept, is it closed
    if not aws.weather.has_struck:  # called again after it timed out
        aws.weather.clear()
        assert submit(event, provider)["ticket"] == answer["ticket"]
    assert len(provider.submitted) == 1


def test_submit_killed_anywhere_never_sends_twice(aws: Platform) -> None:
    submit = aws.function("submit")

    for case in aws.cut_off_anywhere(Fault.KILLED, aws.dropped_job):
        event, provider = case.submission(), FaithfulProvider(QUEUED)

        answer = aws.called_again(partial(submit, event, provider))

        ticket = Submission.model_validate(answer).ticket
        assert len(provider.submitted) <= 1
        # Without a ticket it is called again, until the first call is certainly dead: then the
        # submission is unclear.
        assert ticket is None or len(provider.submitted) == 1
        assert case.attempt_state is (AttemptState.ACCEPTED if ticket else AttemptState.BEGUN)


# Timed out after the side effect: called again after all was done


def test_poll_called_again_takes_no_other_jobs_slot(aws: Platform) -> None:
    first, poll, provider = aws.accepted_job(), aws.function("poll"), FaithfulProvider(COMPLETED)

    poll(first.render(), provider)
    second = aws.accepted_job()  # which gets the slot that has become free
    poll(first.render(), provider)

    assert not first.holds_slot
    assert second.holds_slot


# Refused by the bus: announced by the next call


@pytest.mark.parametrize("step", ["announce", "conclude"])
def test_event_that_the_bus_refused_is_sent_by_the_next_call(aws: Platform, step: str) -> None:
    case, provider = aws.accepted_job(), FaithfulProvider(COMPLETED)
    ready = aws.function("deliver")(case.render(), provider)
    event = case.ended_job() if step == "announce" else case.ended_run()
    call = partial(aws.function(step), event, None if step == "announce" else provider)
    aws.weather.brew(Fault.REFUSED)
    with pytest.raises(EventNotTaken):
        call()
    assert case.outcome == Outcome(detail=VideoReady.model_validate(ready))
    aws.weather.clear()

    for _ in range(2):
        assert call() == ready

    assert case.announced() == [ready]
