"""The sweep function on SQS, DynamoDB and Step Functions as moto plays them."""

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest

from dropreel.aws.executions import ConcludeFunction, Executions
from dropreel.inbox.messages import Sweep, message_in
from dropreel.model.executions import EndedExecution, Ending
from dropreel.model.job import Job
from dropreel.outcome.conclusion import EndedRun, ending_in
from dropreel.render.admission import Admission
from tests.support.conclusion_bench import FAILED
from tests.support.conclusion_bench import SAMPLE as SAMPLE_FILE
from tests.support.fault_account import CONTEXT, load_step
from tests.support.render_account import RenderAccount, render_account
from tests.support.render_fakes import JOB
from tests.support.sam_template import of_type

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

SAMPLE = json.loads(SAMPLE_FILE.read_text())
CONCLUDE = "dropreel-conclude"
SERVE_INPUT = of_type("AWS::Events::Rule")["ServeRule"]["Targets"][0]["Input"]


class Lambda:
    """Keeps what it is asked to run."""

    def __init__(self) -> None:
        self.invoked: list[dict[str, Any]] = []

    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: bytes) -> object:  # noqa: N803
        assert (FunctionName, InvocationType) == (CONCLUDE, "Event")
        self.invoked.append(json.loads(Payload))
        return {"StatusCode": 202}


class Sweeping:
    def __init__(self, account: RenderAccount, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger = account.ledger
        self.sfn: SFNClient = boto3.client("stepfunctions")
        self.sqs: SQSClient = boto3.client("sqs")
        self.machine = self.sfn.create_state_machine(
            name="render",
            definition=json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}),
            roleArn="arn:aws:iam::123456789012:role/render",
        )["stateMachineArn"]
        self.queue_url = self.sqs.create_queue(QueueName="intake")["QueueUrl"]
        monkeypatch.setenv("STATE_MACHINE_ARN", self.machine)
        monkeypatch.setenv("QUEUE_URL", self.queue_url)
        monkeypatch.setenv("CONCLUDE_FUNCTION", CONCLUDE)
        self.functions = Lambda()
        self.app = load_step("sweep")
        full_sweep = dataclasses.replace(
            self.app.full_sweep,
            conclude=ConcludeFunction(CONCLUDE, cast(Any, self.functions)).invoke,
            now=lambda: datetime.now(UTC) + timedelta(minutes=1),
        )
        monkeypatch.setattr(self.app, "full_sweep", full_sweep)

    def stop(self, job: Job) -> str:
        """Start a job and have somebody stop it."""
        Executions(self.machine).start(job)
        arn = f"{self.machine.replace('stateMachine', 'execution')}:{job.execution_name}"
        self.sfn.stop_execution(executionArn=arn)
        return arn

    def sweep(self) -> list[dict[str, Any]]:
        """Run the handler; return the events for conclude."""
        self.functions.invoked.clear()
        self.app.handler({}, CONTEXT)
        return self.functions.invoked


@pytest.fixture
def sweeping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweeping]:
    with render_account(monkeypatch) as account:
        yield Sweeping(account, monkeypatch)


def test_aborted_execution_goes_to_conclude_until_its_outcome_is_sent(
    sweeping: Sweeping,
) -> None:
    arn = sweeping.stop(JOB)
    Executions(sweeping.machine).start(JOB.model_copy(update={"id": "bert-0123456789abcdef"}))

    (event,) = sweeping.sweep()

    ended = ending_in(event)
    assert isinstance(ended, EndedRun)
    assert (ended.execution, ended.status, ended.job) == (arn, "ABORTED", JOB)

    now = datetime.now(UTC)
    sweeping.ledger.end(JOB, ended.started_at, FAILED, now)
    assert sweeping.sweep() == [event]
    sweeping.ledger.mark_sent(JOB, now)
    assert sweeping.sweep() == []


def test_more_executions_than_a_page_are_found(sweeping: Sweeping) -> None:
    def two_a_page(params: dict[str, Any], **_: object) -> None:
        params["maxResults"] = 2

    jobs = [JOB.model_copy(update={"run": run}) for run in range(1, 6)]
    arns = {sweeping.stop(job) for job in jobs}
    of_a_call = "provide-client-params.stepfunctions.ListExecutions"
    sweeping.sfn.meta.events.register(of_a_call, two_a_page)

    executions = Executions(sweeping.machine, sweeping.sfn)

    assert {one.arn for one in executions.ended("ABORTED")} == arns
    assert list(executions.ended("FAILED")) == []


def test_an_execution_that_is_gone_or_runs_again_has_no_ending(sweeping: Sweeping) -> None:
    executions = Executions(sweeping.machine, sweeping.sfn)
    arn, now = sweeping.stop(JOB), datetime.now(UTC)

    assert executions.ending(EndedExecution(arn, "ABORTED", now, now)) is not None
    assert executions.ending(EndedExecution(arn, "FAILED", now, now)) is None
    assert executions.ending(EndedExecution(f"{arn}-gone", "ABORTED", now, now)) is None


@pytest.mark.parametrize(
    ("event", "since"),
    [
        (None, None),
        ({}, None),
        ({"detail-type": "Scheduled Event", "time": "2026-11-13T00:01:00Z"}, None),
        (
            {"detail-type": "Scheduled Event", "time": "2026-11-13T12:01:00Z"},
            datetime(2026, 11, 12, 10, 1, tzinfo=UTC),
        ),
    ],
    ids=["by hand", "make sweep", "at midnight", "at noon"],
)
def test_intake_is_sent_through_the_inbox(
    sweeping: Sweeping, event: dict[str, Any] | None, since: datetime | None
) -> None:
    sweeping.app.handler(event, CONTEXT)

    (message,) = sweeping.sqs.receive_message(QueueUrl=sweeping.queue_url)["Messages"]
    sweep = message_in(message["Body"])
    assert isinstance(sweep, Sweep)
    assert (sweep.sweep.since, sweep.sweep.ends_at is None) == (since, since is None)


def test_event_of_every_minute_only_serves_the_waiting_jobs(
    sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeping.stop(JOB)
    served: list[str] = []

    def serve_waiting(admission: Admission, call: str) -> None:
        served.append(call)

    monkeypatch.setattr(Admission, "serve_waiting", serve_waiting)

    sweeping.app.handler(json.loads(SERVE_INPUT), CONTEXT)

    assert served == [CONTEXT.aws_request_id]
    assert sweeping.functions.invoked == []
    assert "Messages" not in sweeping.sqs.receive_message(QueueUrl=sweeping.queue_url)


@pytest.mark.parametrize("error", ["States.Runtime", None])
def test_conclude_reads_what_it_would_read_of_the_event(error: str | None) -> None:
    functions = Lambda()
    detail = SAMPLE["detail"] | {"status": "FAILED", "error": error, "cause": "because"}
    started_at = datetime.fromtimestamp(detail["startDate"] / 1000, UTC)
    execution = EndedExecution(detail["executionArn"], "FAILED", started_at, datetime.now(UTC))
    ending = Ending(detail["input"], error)

    ConcludeFunction(CONCLUDE, cast(Any, functions)).invoke(execution, ending)

    (event,) = functions.invoked
    assert ending_in(event) == ending_in(SAMPLE | {"detail": detail})
