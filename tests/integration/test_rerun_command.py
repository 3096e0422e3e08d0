"""Running failed jobs again in an account as moto plays it; the stack's outputs are given."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.stepfunctions.models import stepfunctions_backends
from typer.testing import CliRunner, Result

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.uploads import UsedUploads
from dropreel.model.job import Job
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import NextAttempt
from operate.__main__ import app
from operate.stack import DeployedStack, OutputMissing, Outputs
from tests.support.render_account import LEDGER, REGION, VIDEOS, create_ledger_table
from tests.support.render_fakes import ENVIRONMENT, JOB, RUNCOMFY

OUTPUTS = Outputs(
    StateMachineArn=ENVIRONMENT["STATE_MACHINE_ARN"], LedgerTable=LEDGER, VideoBucket=VIDEOS
)
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
        attempt = self.ledger.begin(job.id, NextAttempt(), RUNCOMFY, datetime.now(UTC))
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
    monkeypatch.setattr("operate.__main__.outputs_of", lambda stack: OUTPUTS)
    for name, value in {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield Account()


def rerun(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["rerun", *arguments], input=typed)


def test_a_failed_delivery_is_started_again_and_said(account: Account) -> None:
    account.run(JOB, "FAILED", "ResultUnavailable")
    account.accept(JOB)

    told = rerun("--id", JOB.id)

    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        f"{JOB.id}\tResultUnavailable\twaits for request req-1 and delivers it",
        f"Execution {AGAIN.execution_name}",
        "Started 1 of 1.",
    ]
    assert account.running() == [AGAIN]
    assert account.ledger.attempts(JOB.id)[0].state is AttemptState.ACCEPTED


@pytest.mark.parametrize(
    ("status", "words"), [("RUNNING", "is still running"), ("SUCCEEDED", "it has succeeded")]
)
def test_what_runs_or_has_succeeded_is_not_started_again(
    account: Account, status: str, words: str
) -> None:
    account.run(JOB, "FAILED", "NoCredit")
    account.run(AGAIN, status)

    told = rerun("--id", JOB.id)

    assert told.exit_code == 1
    assert words in told.stdout
    assert JOB.model_copy(update={"run": 3}) not in account.running()


def test_an_unknown_job_is_said(account: Account) -> None:
    told = rerun("--id", JOB.id)

    assert told.exit_code == 1
    assert f"There is no job {JOB.id}" in told.stderr


def test_a_job_that_the_ledger_alone_remembers_is_said(account: Account) -> None:
    account.ledger.end(JOB, "NoCredit", datetime.now(UTC))

    told = rerun("--id", JOB.id)

    assert told.exit_code == 1
    assert "keeps them for 90 days" in told.stderr


def test_all_that_failed_are_started_again_but_those_where_it_is_pointless(
    account: Account,
) -> None:
    account.run(JOB, "FAILED", "ResultUnavailable")
    account.accept(JOB)
    account.run(BERT, "FAILED", "InputRejected")
    account.run(named("carl"), "SUCCEEDED")
    account.run(named("dora"), "ABORTED")
    account.ledger.end(named("dora"), "ExecutionAborted", datetime.now(UTC))
    account.run(named("eve"), "FAILED", "NoCredit")

    assert rerun("--failed-since", "2h", "--dry-run").exit_code == 0
    assert account.running() == []
    told = rerun("--failed-since", "2h")
    again = rerun("--failed-since", "2h")
    only_said = rerun("--failed-since", "2h", "--dry-run")

    eve = named("eve").model_copy(update={"run": 2})
    assert {job.execution_name for job in account.running()} == {
        AGAIN.execution_name,
        eve.execution_name,
    }
    assert (told.exit_code, told.stdout.splitlines()[-1]) == (0, "Started 2 of 4, skipped 2.")
    assert "carl" not in told.stdout
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (1, "Started 0 of 2, skipped 2.")
    assert only_said.exit_code == 0  # nothing to do is no error of a dry run


@pytest.fixture
def replaced(account: Account) -> str:
    """A job that failed, and whose files were dropped again since: the id of the later job."""
    account.run(JOB, "FAILED", "ProviderUnavailable")
    later = JOB.model_copy(update={"id": "anna-fedcba9876543210", "dropped_at": datetime.now(UTC)})
    UsedUploads(LEDGER).note_drop(later)
    return later.id


def test_what_a_later_drop_has_replaced_is_not_run_again_with_many(
    account: Account, replaced: str
) -> None:
    told = rerun("--failed-since", "2h")

    assert told.exit_code == 1
    assert f"job {replaced} has taken its place" in told.stdout
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
) -> None:
    monkeypatch.setattr("operate.__main__.at_terminal", lambda: answer is not None)

    told = rerun("--id", JOB.id, *arguments, typed=f"{answer}\n")

    assert told.exit_code == (0 if is_started else 1)
    assert (account.running() == [AGAIN]) is is_started
    if not arguments:
        assert f"job {replaced} has taken its place" in told.stdout
        assert JOB.own_video_key in told.stdout


def test_nothing_that_failed_is_no_error(account: Account) -> None:
    account.run(JOB)

    told = rerun("--failed-since", "2h")

    assert told.exit_code == 0
    assert "No job has failed since" in told.stdout


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

    assert rerun("--failed-since", "2h").exit_code == 0

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


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_gets_a_table(
    account: Account, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    account.run(JOB, "FAILED", "NoCredit")

    told = rerun("--id", JOB.id, "--dry-run")

    assert JOB.id in told.stdout
    assert ("what happens" in told.stdout) is is_terminal
    assert told.stdout.splitlines()[-1] == "Nothing was started: this is a dry run."


def test_a_stack_of_something_else_is_said() -> None:
    with pytest.raises(OutputMissing, match="no output LedgerTable"):
        DeployedStack(Outputs(StateMachineArn="arn"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Set one of the two: ID= (--id)"),
        (["--id", JOB.id, "--failed-since", "1h"], "or FAILED_SINCE= (--failed-since)"),
        (["--id", "Anna"], 'ID= (--id): "Anna" is no job id'),
        (["--id", ""], 'ID= (--id): "" is no job id'),
        (["--failed-since", "soon"], 'FAILED_SINCE= (--failed-since): "soon" is neither'),
        (["--since", "1h"], "No such option"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(
    arguments: list[str], words: str
) -> None:
    told = rerun(*arguments)

    assert told.exit_code == 2
    assert words in told.stderr
