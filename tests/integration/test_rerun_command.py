"""Running failed jobs again in an account as moto plays it; CloudFormation is a stub."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws
from moto.stepfunctions.models import stepfunctions_backends

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.uploads import UsedUploads
from dropreel.model.job import Job
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import Next
from operate import rerun
from operate.stack import DeployedStack, OutputMissing, outputs_of
from tests.support.render_account import LEDGER, REGION, VIDEOS, create_ledger_table
from tests.support.render_fakes import ENVIRONMENT, JOB, RUNCOMFY

OUTPUTS = {
    "StateMachineArn": ENVIRONMENT["STATE_MACHINE_ARN"],
    "LedgerTable": LEDGER,
    "VideoBucket": VIDEOS,
}
BERT = JOB.model_copy(update={"id": "bert-0123456789abcdef", "stem": "bert"})
AGAIN = JOB.model_copy(update={"run": 2})


class Account:
    """The state machine, the ledger and the videos, as the template makes them."""

    def __init__(self) -> None:
        dynamodb = boto3.client("dynamodb")
        create_ledger_table(dynamodb)
        self.ledger = DynamoDBLedger(LEDGER, dynamodb)
        self.s3 = boto3.client("s3")
        self.s3.create_bucket(
            Bucket=VIDEOS, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        self._states = boto3.client("stepfunctions")
        created = self._states.create_state_machine(
            name="dropreel-render",
            definition="{}",
            roleArn="arn:aws:iam::123456789012:role/render",
        )
        assert created["stateMachineArn"] == OUTPUTS["StateMachineArn"]

    def run(
        self,
        job: Job,
        status: str = "RUNNING",
        error: str | None = None,
        *,
        started_at: datetime | None = None,
        stopped_at: datetime | None = None,
    ) -> None:
        """An execution that has come to this, by now or then."""
        self._states.start_execution(
            stateMachineArn=OUTPUTS["StateMachineArn"],
            name=job.execution_name,
            input=job.model_dump_json(),
        )
        # moto runs none of its states: they end as the test says.
        backend = stepfunctions_backends["123456789012"][REGION]
        (machine,) = backend.state_machines
        execution: Any = machine.executions[-1]
        execution.status, execution.error = status, error
        execution.start_date = started_at or execution.start_date
        execution.stop_date = None if status == "RUNNING" else stopped_at or datetime.now(UTC)

    def accept(self, job: Job) -> None:
        attempt = self.ledger.begin(job.id, Next(), RUNCOMFY, datetime.now(UTC))
        assert attempt
        self.ledger.accept(attempt, "req-1", datetime.now(UTC))

    def running(self) -> list[Job]:
        listed = self._states.list_executions(
            stateMachineArn=OUTPUTS["StateMachineArn"], statusFilter="RUNNING"
        )
        described = (
            self._states.describe_execution(executionArn=one["executionArn"])
            for one in listed["executions"]
        )
        jobs = {one["name"]: Job.model_validate_json(one["input"]) for one in described}
        assert all(name == job.execution_name for name, job in jobs.items())
        return list(jobs.values())


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setattr(rerun, "outputs_of", lambda stack: OUTPUTS)
    for name, value in {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield Account()


def test_a_failed_delivery_is_started_again_and_said(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.run(JOB, "FAILED", "ResultUnavailable")
    account.accept(JOB)

    assert rerun.main(["--id", JOB.id]) == 0

    assert account.running() == [AGAIN]
    said = capsys.readouterr().out
    assert "waits for request req-1 and delivers it" in said
    assert f"Execution {AGAIN.execution_name}" in said
    assert account.ledger.attempts(JOB.id)[0].state is AttemptState.ACCEPTED


@pytest.mark.parametrize(
    ("status", "words"), [("RUNNING", "is still running"), ("SUCCEEDED", "it has succeeded")]
)
def test_what_runs_or_has_succeeded_is_not_started_again(
    account: Account, capsys: pytest.CaptureFixture[str], status: str, words: str
) -> None:
    account.run(JOB, "FAILED", "NoCredit")
    account.run(AGAIN, status)

    assert rerun.main(["--id", JOB.id]) == 1

    assert words in capsys.readouterr().out
    assert JOB.model_copy(update={"run": 3}) not in account.running()


def test_an_unknown_job_is_said(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    assert rerun.main(["--id", JOB.id]) == 1

    assert f"There is no job {JOB.id}" in capsys.readouterr().err


def test_a_job_that_the_ledger_alone_remembers_is_said(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.ledger.end(JOB, "NoCredit", datetime.now(UTC))

    assert rerun.main(["--id", JOB.id]) == 1

    assert "keeps them for 90 days" in capsys.readouterr().err


def test_all_that_failed_are_started_again_but_those_where_it_is_pointless(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.run(JOB, "FAILED", "ResultUnavailable")
    account.accept(JOB)
    account.run(BERT, "FAILED", "InputRejected")
    account.run(named("carl"), "SUCCEEDED")
    account.run(named("dora"), "ABORTED")
    account.ledger.end(named("dora"), "ExecutionAborted", datetime.now(UTC))
    account.run(named("eve"), "FAILED", "NoCredit")

    assert rerun.main(["--failed-since", "2h", "--dry-run"]) == 0
    assert account.running() == []
    assert rerun.main(["--failed-since", "2h"]) == 0

    eve = named("eve").model_copy(update={"run": 2})
    assert {job.execution_name for job in account.running()} == {
        AGAIN.execution_name,
        eve.execution_name,
    }
    said = capsys.readouterr().out
    assert "Started 2 of 4, skipped 2." in said
    assert "carl" not in said

    assert rerun.main(["--failed-since", "2h"]) == 1
    assert "Started 0 of 2, skipped 2." in capsys.readouterr().out


@pytest.fixture
def replaced(account: Account) -> str:
    """A job that failed, and whose files were dropped again since: the id of the later job."""
    account.run(JOB, "FAILED", "ProviderUnavailable")
    later = JOB.model_copy(update={"id": "anna-fedcba9876543210", "dropped_at": datetime.now(UTC)})
    UsedUploads(LEDGER).note_drop(later)
    return later.id


def test_what_a_later_drop_has_replaced_is_not_run_again_with_many(
    account: Account, replaced: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rerun.main(["--failed-since", "2h"]) == 1

    assert f"job {replaced} has taken its place" in capsys.readouterr().out
    assert account.running() == []


@pytest.mark.parametrize(
    ("arguments", "answer", "is_started"),
    [
        ([], None, False),  # no terminal: nobody can be asked
        (["--yes"], None, True),
        ([], "y", True),
        ([], "n", False),
        ([], "", False),
    ],
)
def test_whoever_names_a_replaced_job_is_asked_first(
    account: Account,
    replaced: str,
    arguments: list[str],
    answer: str | None,
    is_started: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n", answer is not None))

    assert rerun.main(["--id", JOB.id, *arguments]) == (0 if is_started else 1)

    out = capsys.readouterr().out
    assert (account.running() == [AGAIN]) is is_started
    if not arguments:
        assert f"job {replaced} has taken its place" in " ".join(out.split())
        assert JOB.own_video_key in out.replace("\n", "")


class Terminal(io.StringIO):
    def __init__(self, typed: str, is_terminal: bool) -> None:
        super().__init__(typed)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def test_nothing_that_failed_is_no_error(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.run(JOB)

    assert rerun.main(["--failed-since", "2h"]) == 0

    assert "No job has failed since" in capsys.readouterr().out


def test_what_stopped_earlier_is_left_out(account: Account) -> None:
    account.run(JOB, "FAILED", "NoCredit")
    stack = DeployedStack(OUTPUTS)
    now = datetime.now(UTC)

    assert [one.job for one in stack.unsuccessful_since(now - timedelta(minutes=1))] == [JOB]
    assert not list(stack.unsuccessful_since(now + timedelta(minutes=1)))


def test_a_job_failed_when_it_stopped_not_when_it_started(account: Account) -> None:
    now = datetime.now(UTC)
    account.run(JOB, "FAILED", "NoCredit", started_at=now - timedelta(hours=5))
    account.run(
        BERT,
        "FAILED",
        "NoCredit",
        # Listed first, as it started last: what comes after it may have stopped later.
        started_at=now - timedelta(hours=4),
        stopped_at=now - timedelta(hours=3),
    )

    assert rerun.main(["--failed-since", "2h"]) == 0

    assert account.running() == [AGAIN]


def test_an_execution_that_somebody_else_started_is_not_an_error(account: Account) -> None:
    account.run(AGAIN, "FAILED", "NoCredit")

    assert not DeployedStack(OUTPUTS).start(AGAIN)


def test_an_execution_without_a_job_in_it_is_left_out(account: Account) -> None:
    account.run(JOB, "FAILED", "NoCredit")
    backend = stepfunctions_backends["123456789012"][REGION]
    backend.state_machines[0].executions[0].execution_input = '{"tried": "by hand"}'

    assert not list(DeployedStack(OUTPUTS).unsuccessful_since(datetime(2026, 1, 1, tzinfo=UTC)))


def named(name: str) -> Job:
    return JOB.model_copy(update={"id": f"{name}-0123456789abcdef", "stem": name})


# The stack


def test_outputs_are_those_of_the_stack() -> None:
    client = boto3.client("cloudformation", REGION)
    with Stubber(client) as stub:
        stack: Any = {
            "StackName": "other",
            "CreationTime": datetime(2026, 11, 20, tzinfo=UTC),
            "StackStatus": "UPDATE_COMPLETE",
            "Outputs": [{"OutputKey": k, "OutputValue": v} for k, v in OUTPUTS.items()],
        }
        stub.add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": "other"})

        assert outputs_of("other", client) == OUTPUTS


def test_a_stack_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = boto3.client("cloudformation", REGION)
    with Stubber(client) as stub:
        words = "Stack with id nope does not exist"
        stub.add_client_error("describe_stacks", "ValidationError", words)
        monkeypatch.setattr(rerun, "outputs_of", lambda stack: outputs_of(stack, client))

        assert rerun.main(["--failed-since", "1h", "--stack", "nope"]) == 1

    assert words in capsys.readouterr().err


def test_a_stack_of_something_else_is_said() -> None:
    with pytest.raises(OutputMissing, match="no output LedgerTable"):
        DeployedStack({"StateMachineArn": "arn"})


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--id", "Anna"],
        ["--id", ""],
        ["--failed-since", "soon"],
        ["--id", JOB.id, "--failed-since", "1h"],
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        rerun.main(arguments)

    assert refusal.value.code == 2
