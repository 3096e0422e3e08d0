"""AWS on a bad day: functions that are killed or called twice, a throttled ledger, refused events.

The functions run as they are deployed. Only their calls to AWS are broken, one after the other.
"""

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from aws_lambda_powertools.utilities.parameters.constants import DEFAULT_PROVIDERS
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from dropreel.aws.bus import EventNotTaken
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.catalog import ProviderName
from dropreel.model.errors import DropreelError, RenderTimedOut
from dropreel.model.events import VideoFailed, VideoReady
from dropreel.model.job import Job
from dropreel.model.ledger import AttemptState, Run
from dropreel.model.messages import Next, Plan, Progress, Submission, Underway
from dropreel.model.provider import Answer, RenderState, Result, Ticket, UnknownRequest
from dropreel.render.admission import RunId
from dropreel.render.spending import Limits
from tests.support.admission_fakes import FakeExecutions, desk, job_named, request_of
from tests.support.render_account import LEDGER, ROOT, VIDEOS, RenderAccount, render_account
from tests.support.render_fakes import PLAN, RUNCOMFY, ScriptedProvider, by_name
from tests.support.videos import tiny_video

ABORTED = json.loads((ROOT / "events/samples/execution_aborted.json").read_text())
URL = "https://cdn.example/video.mp4?signature=secret"
CONTEXT = SimpleNamespace(
    function_name="step",
    memory_limit_in_mb=512,
    invoked_function_arn="arn",
    aws_request_id="call",
    get_remaining_time_in_millis=lambda: 240_000,
)


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
        if self._may_befall(service, operation):
            self.seen += 1
            if self.seen == self.nth:
                self.has_struck = True
                return self._strike(operation)
        self.done.append(operation)
        return call()

    def _may_befall(self, service: str, operation: str) -> bool:
        match self.fault:
            case Fault.KILLED:
                return not operation.startswith(_READS)
            case Fault.THROTTLED:
                return service == "dynamodb"
            case _:
                return operation == "PutEvents"

    def _strike(self, operation: str) -> object:
        match self.fault:
            case Fault.KILLED:
                raise Killed
            case Fault.THROTTLED:
                names = ("ThrottlingException", "ProvisionedThroughputExceededException")
                raise ClientError(
                    {"Error": {"Code": names[self.nth % 2], "Message": "Slow down."}}, operation
                )
            case _:
                entry = {"ErrorCode": "InternalFailure", "ErrorMessage": "Try again."}
                return {"FailedEntryCount": 1, "Entries": [entry]}


@pytest.fixture
def weather(monkeypatch: pytest.MonkeyPatch) -> Weather:
    weather = Weather()
    make_api_call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def call(client: Any, operation: str, params: Any) -> Any:  # noqa: ANN401
        service = client.meta.service_model.service_name
        return weather.pass_through(
            service, operation, lambda: make_api_call(client, operation, params)
        )

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    return weather


@pytest.fixture(scope="module")
def account() -> Iterator[RenderAccount]:
    """One for all tests: each has jobs of its own."""
    with pytest.MonkeyPatch.context() as patch, render_account(patch) as account:
        yield account


class FaithfulProvider(ScriptedProvider):
    """Remembers what it cancelled, as a real one does."""

    def __init__(self, answer: Answer | Exception, *, cancels: bool = True) -> None:
        super().__init__(submissions=["req-1", "req-2"], answers=[answer], cancels=cancels)

    def ask(self, request_id: str) -> Answer:
        if self.cancelled:
            return Answer(state=RenderState.CANCELLED)
        return super().ask(request_id)

    def result(self, request_id: str) -> Result:
        return Result(video_url=URL)


COMPLETED = Answer(state=RenderState.COMPLETED)
QUEUED = Answer(state=RenderState.QUEUED)


class Function:
    """A step's function, as Lambda keeps it from call to call."""

    def __init__(self, step: str) -> None:
        path = ROOT / "functions" / step / "app.py"
        spec = importlib.util.spec_from_file_location(f"{step}_app", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.app = cast(Any, module)
        if step == "deliver":
            self.app.download = copy_tiny_video

    def __call__(
        self, event: Mapping[str, Any], provider: ScriptedProvider | None = None
    ) -> dict[str, Any]:
        if provider:
            find = by_name(provider)
            self.app.provider_of = lambda name, settings: find(name)
        answer: dict[str, Any] = self.app.handler(dict(event), CONTEXT)
        return answer


@pytest.fixture(scope="module")
def function(account: RenderAccount) -> Callable[[str], Function]:
    return cache(Function)


def copy_tiny_video(
    fresh_url: Callable[[], str],
    sink: Any,  # noqa: ANN401 - of delivery
    seconds_left: Callable[[], float],
) -> None:
    assert fresh_url() == URL
    sink.begin()
    sink.write(tiny_video())


# A job under way


STARTED_AT = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)


@dataclass
class Case:
    """A job of its own, which holds a slot and has a request accepted."""

    account: RenderAccount
    job: Job
    plan: Plan = PLAN

    def __post_init__(self) -> None:
        self.plan = PLAN.model_copy(update={"job": self.job})

    @property
    def slots(self) -> DynamoDBSlots:
        return DynamoDBSlots(LEDGER, self.account.dynamodb)

    def admit(self) -> "Case":
        executions = FakeExecutions()
        request = request_of(self.job).model_copy(update={"started_at": STARTED_AT})
        executions.wait(self.job.execution_name, request.task_token)
        now = datetime.now(UTC)
        desk(self.slots, executions, self.account.ledger, lambda: now, in_flight=50).admit(request)
        assert self.holds_slot
        return self

    def accept(self) -> "Case":
        self.admit()
        attempt = self.account.ledger.begin(self.job.id, Next(), RUNCOMFY, STARTED_AT)
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
    def attempt_state(self) -> AttemptState:
        [attempt] = self.account.ledger.attempts(self.job.id)
        return attempt.state

    def underway(self) -> dict[str, Any]:
        ticket = Ticket(
            provider=RUNCOMFY.provider,
            endpoint=RUNCOMFY.endpoint,
            request_id="req-1",
            attempt=1,
            offer=0,
            submitted_at=STARTED_AT,
        )
        underway = Underway(
            plan=self.plan,
            ticket=ticket,
            progress=Progress(
                state=RenderState.RENDERING,
                wait_seconds=5,
                rendering_since=STARTED_AT,
                unknown_since=STARTED_AT,
            ),
            started_at=STARTED_AT,
        )
        return underway.model_dump(mode="json")

    def failed_run(self) -> dict[str, Any]:
        cause = {"errorMessage": str(RenderTimedOut("Still queued.")), "errorType": "-"}
        return {
            "job": self.job.model_dump(mode="json"),
            "error": {"Error": "RenderTimedOut", "Cause": json.dumps(cause)},
            "execution": f"arn:aws:states:eu-central-1:123456789012:execution:r:{self.job.id}",
            "started_at": STARTED_AT.isoformat(),
        }

    def ended_run(self) -> dict[str, Any]:
        detail = ABORTED["detail"] | {
            "executionArn": self.failed_run()["execution"],
            "input": self.job.model_dump_json(),
            "startDate": int(STARTED_AT.timestamp() * 1000),
        }
        return {**ABORTED, "detail": detail}

    def announced(self) -> list[dict[str, Any]]:
        """Its events since the last look."""
        events: list[dict[str, Any]] = list(map(json.loads, self.account.announced()))
        return [event for event in events if event["detail"]["job"]["id"] == self.job.id]

    def versions(self, key: str) -> int:
        listed = self.account.s3.list_object_versions(Bucket=VIDEOS, Prefix=key)
        return len(listed.get("Versions", []))

    def text(self, key: str) -> str:
        return self.account.s3.get_object(Bucket=VIDEOS, Key=key)["Body"].read().decode()


_numbers = count(1)


def a_job() -> Job:
    return job_named(f"anna{next(_numbers)}")


def every_call(weather: Weather, tries: Callable[[int], None]) -> None:
    """One try for each call to AWS that the fault can befall, until there is no further one."""
    for nth in count(1):
        tries(nth)
        if not weather.has_struck:
            assert nth > 1
            return


KILLED_OR_THROTTLED = pytest.mark.parametrize("fault", [Fault.KILLED, Fault.THROTTLED])


def called_again(weather: Weather, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The answer in the end, as Step Functions or EventBridge get it."""
    try:
        answer = call()
    except (Killed, ClientError):
        assert weather.has_struck
    else:
        assert not weather.has_struck
        return answer
    finally:
        weather.clear()
    return call()


# Killed in the middle, or the ledger throttled, and called again


@pytest.mark.parametrize(
    ("way", "fault"),
    [
        pytest.param(Case.failed_run, Fault.KILLED, id="caught, killed"),
        pytest.param(Case.ended_run, Fault.KILLED, id="aborted, killed"),
        pytest.param(Case.ended_run, Fault.THROTTLED, id="aborted, throttled"),
    ],
)
def test_conclude_cut_off_anywhere_comes_to_the_same_end(
    fault: Fault,
    way: Callable[[Case], dict[str, Any]],
    account: RenderAccount,
    weather: Weather,
    function: Callable[[str], Function],
) -> None:
    conclude = function("conclude")

    def tries(nth: int) -> None:
        case = Case(account, a_job()).accept()
        weather.brew(fault, nth)
        provider = FaithfulProvider(QUEUED)

        answer = called_again(weather, lambda: conclude(way(case), provider))

        failed = VideoFailed.model_validate(answer)
        code = "RenderTimedOut" if way is Case.failed_run else "ExecutionAborted"
        assert failed.error.code == code
        assert failed.render is not None
        assert failed.render.cancelled
        assert [made.outcome for made in failed.render.attempts] == [code]
        assert VideoFailed.model_validate_json(case.text(case.job.error_key)) == failed
        assert case.versions(case.job.error_key) == 1
        assert case.attempt_state is AttemptState.LOST
        assert not case.holds_slot
        assert case.run.closed_at is not None
        events = [event["detail"] for event in case.announced()]
        if way is Case.failed_run:  # the state machine announces, and EventBridge tells of the end
            assert (events, case.run.outcome) == ([], None)
        else:
            # Twice only if it was announced, and cut off before that could be written down.
            twice = weather.has_struck and "PutEvents" in weather.done
            assert [VideoFailed.model_validate(event) for event in events] == [failed] * (1 + twice)
            assert case.run.outcome == code

    every_call(weather, tries)


@KILLED_OR_THROTTLED
def test_deliver_cut_off_anywhere_comes_to_the_same_end(
    fault: Fault,
    account: RenderAccount,
    weather: Weather,
    function: Callable[[str], Function],
) -> None:
    deliver = function("deliver")

    def tries(nth: int) -> None:
        case = Case(account, a_job()).accept()
        weather.brew(fault, nth)

        answer = called_again(
            weather, lambda: deliver(case.underway(), FaithfulProvider(COMPLETED))
        )

        ready = VideoReady.model_validate(answer)
        video = account.s3.get_object(Bucket=VIDEOS, Key=case.job.video_key)
        assert video["VersionId"] == ready.video.version_id
        assert video["Body"].read() == tiny_video()
        assert VideoReady.model_validate_json(case.text(case.job.manifest_key)) == ready
        assert case.run.outcome == "VideoReady"

    every_call(weather, tries)


@KILLED_OR_THROTTLED
def test_poll_cut_off_anywhere_returns_the_slot(
    fault: Fault,
    account: RenderAccount,
    weather: Weather,
    function: Callable[[str], Function],
) -> None:
    poll = function("poll")

    def tries(nth: int) -> None:
        case = Case(account, a_job()).accept()
        weather.brew(fault, nth)

        answer = called_again(weather, lambda: poll(case.underway(), FaithfulProvider(COMPLETED)))

        assert Progress.model_validate(answer).state is RenderState.COMPLETED
        assert not case.holds_slot
        assert case.run.rendered_at is not None

    every_call(weather, tries)


@KILLED_OR_THROTTLED
@pytest.mark.parametrize(
    ("says", "code"), [(QUEUED, "RenderTimedOut"), (UnknownRequest(), "RequestForgotten")]
)
def test_poll_cut_off_anywhere_tells_the_same_loss(
    says: Answer | Exception,
    code: str,
    fault: Fault,
    account: RenderAccount,
    weather: Weather,
    function: Callable[[str], Function],
) -> None:
    poll = function("poll")

    def tries(nth: int) -> None:
        case = Case(account, a_job()).accept()
        weather.brew(fault, nth)
        provider = FaithfulProvider(says)

        with pytest.raises((DropreelError, Killed, ClientError)) as raised:
            poll(case.underway(), provider)
        weather.clear()
        if not isinstance(raised.value, DropreelError):
            with pytest.raises(DropreelError) as raised:
                poll(case.underway(), provider)

        assert isinstance(raised.value, DropreelError)
        assert raised.value.report.code == code
        assert case.attempt_state is AttemptState.LOST

    every_call(weather, tries)


@KILLED_OR_THROTTLED
def test_admit_cut_off_anywhere_gives_one_slot(
    fault: Fault,
    account: RenderAccount,
    weather: Weather,
    function: Callable[[str], Function],
) -> None:
    admit, executions = function("admit"), FakeExecutions()
    admit.app.admission = replace(
        admit.app.admission,
        executions=executions,
        limits=Limits(
            in_flight=dict.fromkeys(ProviderName, 1000),
            lease=dict.fromkeys(ProviderName, timedelta(hours=4)),
        ),
    )

    def tries(nth: int) -> None:
        job, retries = a_job(), count()

        def call() -> dict[str, Any]:
            """Step Functions calls again with a token of its own, while it has no answer."""
            if job.execution_name in executions.gone_on:
                return {}
            request = request_of(job, retry=next(retries))
            executions.wait(job.execution_name, request.task_token)
            event = request.model_dump(mode="json") | {"task_token": request.task_token}
            return admit(event) or {}

        weather.brew(fault, nth)
        called_again(weather, call)

        assert executions.gone_on.count(job.execution_name) == 1
        leases = DynamoDBSlots(LEDGER, account.dynamodb).leases(RUNCOMFY.provider)
        assert [lease.run for lease in leases].count(RunId.of(job)) == 1

    every_call(weather, tries)


@KILLED_OR_THROTTLED
def test_sweep_cut_off_anywhere_serves_who_waits_when_it_is_called_again(
    fault: Fault,
    account: RenderAccount,
    weather: Weather,
) -> None:
    def tries(nth: int) -> None:
        waiting, executions = a_job(), FakeExecutions()
        request = request_of(waiting)
        executions.wait(waiting.execution_name, request.task_token)
        admission = desk(
            DynamoDBSlots(LEDGER, account.dynamodb),
            executions,
            account.ledger,
            lambda: datetime.now(UTC),
            in_flight=0,
        )
        admission.admit(request)
        admission = replace(
            admission, limits=replace(admission.limits, in_flight=dict.fromkeys(ProviderName, 1000))
        )
        weather.brew(fault, nth)

        def serve() -> dict[str, Any]:
            admission.serve_all()
            return {}

        called_again(weather, serve)

        assert executions.gone_on == [waiting.execution_name]
        admission.leave(waiting)

    every_call(weather, tries)


@pytest.mark.parametrize("nth", range(1, 7))
def test_submit_with_a_throttled_ledger_sends_once(
    nth: int,
    account: RenderAccount,
    weather: Weather,
    function: Callable[[str], Function],
) -> None:
    plan = account.drop(Case(account, a_job()).plan)
    event = {"plan": plan.model_dump(mode="json"), "next": {}}
    submit, provider = function("submit"), FaithfulProvider(QUEUED)
    weather.brew(Fault.THROTTLED, nth)

    try:
        answer = submit(event, provider)
    except ClientError:
        assert provider.submitted == []
        weather.clear()
        answer = submit(event, provider)

    ticket = Submission.model_validate(answer).ticket
    assert ticket is not None
    assert ticket.request_id == "req-1"
    assert len(provider.submitted) == 1
    assert weather.has_struck is (nth <= 5)  # find, admitted, begin, accept, is it closed


def test_submit_killed_anywhere_never_sends_twice(
    account: RenderAccount,
    weather: Weather,
    function: Callable[[str], Function],
) -> None:
    submit = function("submit")

    def tries(nth: int) -> None:
        plan = account.drop(Case(account, a_job()).plan)
        weather.brew(Fault.KILLED, nth)
        event = {"plan": plan.model_dump(mode="json"), "next": {}}
        provider = FaithfulProvider(QUEUED)

        answer = called_again(weather, lambda: submit(event, provider))

        ticket = Submission.model_validate(answer).ticket
        assert len(provider.submitted) <= 1
        # Without a ticket it is called again, until the first call is certainly dead: then the
        # submission is unclear.
        assert ticket is None or len(provider.submitted) == 1
        state = account.ledger.attempts(plan.job.id)[0].state
        assert state is (AttemptState.ACCEPTED if ticket else AttemptState.BEGUN)

    every_call(weather, tries)


# Timed out after the side effect: called again after all was done


def test_submit_called_again_after_it_timed_out_gives_the_same_ticket(
    account: RenderAccount, function: Callable[[str], Function]
) -> None:
    plan = account.drop(Case(account, a_job()).plan)
    event = {"plan": plan.model_dump(mode="json"), "next": {}}
    submit, provider = function("submit"), FaithfulProvider(QUEUED)

    first, second = (Submission.model_validate(submit(event, provider)) for _ in range(2))

    assert second.ticket == first.ticket is not None
    assert len(provider.submitted) == 1


def test_poll_called_again_after_it_timed_out_takes_nobodys_slot(
    account: RenderAccount, function: Callable[[str], Function]
) -> None:
    first = Case(account, a_job()).accept()
    poll, provider = function("poll"), FaithfulProvider(COMPLETED)

    poll(first.underway(), provider)
    second = Case(account, a_job()).accept()  # which gets the slot that has become free
    poll(first.underway(), provider)

    assert not first.holds_slot
    assert second.holds_slot


def test_deliver_called_again_after_it_timed_out_copies_nothing_again(
    account: RenderAccount, function: Callable[[str], Function]
) -> None:
    case = Case(account, a_job()).accept()
    deliver, provider = function("deliver"), FaithfulProvider(COMPLETED)

    first, second = (deliver(case.underway(), provider) for _ in range(2))

    assert second == first
    assert (case.versions(case.job.video_key), case.versions(case.job.manifest_key)) == (1, 1)


def test_conclude_called_again_after_it_timed_out_tells_the_same(
    account: RenderAccount, function: Callable[[str], Function]
) -> None:
    case = Case(account, a_job()).accept()
    conclude, provider = function("conclude"), FaithfulProvider(QUEUED)

    first, second = (conclude(case.failed_run(), provider) for _ in range(2))

    assert second == first
    assert case.versions(case.job.error_key) == 1
    assert provider.cancelled == ["req-1"]


def test_ended_event_delivered_twice_is_announced_once(
    account: RenderAccount, function: Callable[[str], Function]
) -> None:
    case = Case(account, a_job()).accept()
    conclude, provider = function("conclude"), FaithfulProvider(QUEUED)

    first, second = (conclude(case.ended_run(), provider) for _ in range(2))

    [event] = case.announced()
    assert event["detail"] == first
    assert second == {}
    assert case.versions(case.job.error_key) == 1


def test_ended_event_of_a_delivered_video_delivered_twice_is_announced_once(
    account: RenderAccount, function: Callable[[str], Function]
) -> None:
    case = Case(account, a_job()).accept()
    ready = function("deliver")(case.underway(), FaithfulProvider(COMPLETED))
    conclude = function("conclude")

    for _ in range(2):
        conclude(case.ended_run(), FaithfulProvider(COMPLETED))

    [event] = case.announced()
    assert event["detail-type"] == "Video Ready"
    assert event["detail"] == ready


# Delivered, and yet failed


def test_delivery_that_the_ledger_never_took_is_answered_with_its_video(
    account: RenderAccount, weather: Weather, function: Callable[[str], Function]
) -> None:
    case = Case(account, a_job()).accept()
    deliver, conclude = function("deliver"), function("conclude")
    weather.brew(Fault.THROTTLED, nth=3)  # after attempts and runs were read
    with pytest.raises(ClientError):
        deliver(case.underway(), FaithfulProvider(COMPLETED))
    weather.clear()

    answer = conclude(case.failed_run(), FaithfulProvider(COMPLETED))

    ready = VideoReady.model_validate(answer)
    assert VideoReady.model_validate_json(case.text(case.job.manifest_key)) == ready
    assert case.versions(case.job.error_key) == 0
    assert case.run.outcome == "VideoReady"
    assert case.announced() == []  # the state machine does


# The bus


def test_event_that_the_bus_refused_is_announced_by_the_next_call(
    account: RenderAccount, weather: Weather, function: Callable[[str], Function]
) -> None:
    case = Case(account, a_job()).accept()
    conclude, provider = function("conclude"), FaithfulProvider(QUEUED)
    weather.brew(Fault.REFUSED)

    with pytest.raises(EventNotTaken):
        conclude(case.ended_run(), provider)
    assert case.run.outcome is None
    weather.clear()
    conclude(case.ended_run(), provider)

    assert len(case.announced()) == 1
    assert case.run.outcome == "ExecutionAborted"


def test_video_whose_event_the_bus_refused_is_announced_by_the_next_call(
    account: RenderAccount, weather: Weather, function: Callable[[str], Function]
) -> None:
    case = Case(account, a_job()).accept()
    ready = function("deliver")(case.underway(), FaithfulProvider(COMPLETED))
    conclude, provider = function("conclude"), FaithfulProvider(COMPLETED)
    weather.brew(Fault.REFUSED)

    with pytest.raises(EventNotTaken):
        conclude(case.ended_run(), provider)
    assert case.run.closed_at is None
    weather.clear()
    conclude(case.ended_run(), provider)

    [event] = case.announced()
    assert (event["detail-type"], event["detail"]) == ("Video Ready", ready)
    assert case.run.closed_at == case.run.ended_at is not None


# The token


class _RunComfy(ThreadingHTTPServer):
    """Accepts one token, and any request."""

    daemon_threads = True
    token = "old"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)


class _Request(BaseHTTPRequestHandler):
    server: _RunComfy

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"request_id": "req-1"})

    def do_GET(self) -> None:
        self._answer({"request_id": "req-1", "status": "in_queue"})

    def _answer(self, said: dict[str, object]) -> None:
        known = self.headers["Authorization"] == f"Bearer {self.server.token}"
        status = 200 if known else 401
        body = json.dumps(said if known else {"error_code": 401001, "message": "?"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def runcomfy(account: RenderAccount, monkeypatch: pytest.MonkeyPatch) -> Iterator[_RunComfy]:
    DEFAULT_PROVIDERS.clear()  # Powertools' cache, which lives as long as an environment
    with _RunComfy() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        monkeypatch.setenv("RUNCOMFY_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()
    DEFAULT_PROVIDERS.clear()


def test_token_rotated_between_submit_and_poll_is_read_anew(
    runcomfy: _RunComfy, account: RenderAccount
) -> None:
    secrets = boto3.client("secretsmanager")
    secrets.create_secret(Name="runcomfy-token", SecretString="old")
    case = Case(account, a_job())
    plan = account.drop(case.plan)

    submitted = Function("submit")({"plan": plan.model_dump(mode="json"), "next": {}})
    runcomfy.token = "new"
    secrets.put_secret_value(SecretId="runcomfy-token", SecretString="new")
    underway = {"plan": plan.model_dump(mode="json"), "ticket": submitted["ticket"]}
    progress = Function("poll")(underway)

    assert Progress.model_validate(progress).state is RenderState.QUEUED
