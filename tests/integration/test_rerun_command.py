"""Running failed jobs again in an account as moto plays it; the stack's outputs are given."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto.stepfunctions.models import stepfunctions_backends
from typer.testing import CliRunner, Result

from dropreel.aws.uploads import UsedUploads
from dropreel.model.job import Job
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import NextAttempt
from operate.__main__ import app
from operate.stack import DeployedStack, Outputs
from tests.support.conclusion_bench import READY, failed_in
from tests.support.render_account import LEDGER, REGION, VIDEOS, RenderAccount, render_account
from tests.support.render_fakes import ENVIRONMENT, JOB, RUNCOMFY

OUTPUTS = Outputs(
    StateMachineArn=ENVIRONMENT["STATE_MACHINE_ARN"], LedgerTable=LEDGER, VideoBucket=VIDEOS
)
AGAIN = JOB.model_copy(update={"run": 2})


def named(name: str) -> Job:
    return JOB.model_copy(update={"id": f"{name}-0123456789abcdef", "stem": name})


def arn_of(job: Job) -> str:
    machine = OUTPUTS["StateMachineArn"].replace(":stateMachine:", ":execution:")
    return f"{machine}:{job.execution_name}"


class Account:
    """The state machine, the ledger and the videos, as the template makes them."""

    def __init__(self, account: RenderAccount) -> None:
        self.ledger = account.ledger
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
        code: str = "ExecutionAborted",
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
        execution.status, execution.error = status, code
        execution.start_date = started_at or execution.start_date
        execution.stop_date = None if status == "RUNNING" else stopped_at or datetime.now(UTC)
        if status == "FAILED":  # the state machine fails after its event
            self.conclude(job, code)

    def accept(self, job: Job) -> None:
        attempt = self.ledger.begin(job.id, NextAttempt(), RUNCOMFY, datetime.now(UTC))
        assert attempt
        self.ledger.accept(attempt, "req-1", datetime.now(UTC))

    def conclude(self, job: Job, code: str) -> None:
        """As conclude leaves it, once its event is sent."""
        described = self._states.describe_execution(executionArn=arn_of(job))
        now = datetime.now(UTC)
        self.ledger.end(job, described["startDate"], failed_in(code), now)
        self.ledger.mark_sent(job, now)

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
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with render_account(monkeypatch) as account:
        yield Account(account)


def rerun(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["rerun", *arguments], input=typed)


def test_a_failed_delivery_is_started_again(account: Account) -> None:
    account.run(JOB, "FAILED", "ResultUnavailable")
    account.accept(JOB)

    said = rerun("--id", JOB.id)

    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
        f"{JOB.id}\tResultUnavailable\twaits for request req-1 and delivers it",
        f"Execution {AGAIN.execution_name}",
        "Started 1 of 1.",
    ]
    assert account.running() == [AGAIN]
    assert account.ledger.attempts(JOB.id)[0].state is AttemptState.ACCEPTED


def test_a_program_gets_one_document(account: Account) -> None:
    account.run(JOB, "FAILED", "ResultUnavailable")
    account.run(named("bert"), "FAILED", "InputRejected")

    only_said = json.loads(rerun("--failed-since", "2h", "--dry-run", "--json").stdout)
    done = json.loads(rerun("--failed-since", "2h", "--json").stdout)

    assert only_said["dry_run"]
    for jobs, is_started in ((only_said["jobs"], False), (done["jobs"], True)):
        assert {one["job_id"]: (one["may_run"], one["started"]) for one in jobs} == {
            JOB.id: (True, is_started),
            named("bert").id: (False, False),
        }
    assert [job.execution_name for job in account.running()] == [AGAIN.execution_name]


def test_a_job_without_an_execution_is_an_error(account: Account) -> None:
    account.accept(JOB)

    said = rerun("--id", JOB.id)

    assert said.exit_code == 1
    assert "keeps them for 90 days" in said.stderr


def test_all_failed_jobs_are_started_again_unless_that_is_pointless(account: Account) -> None:
    account.run(JOB, "FAILED", "ResultUnavailable")
    account.accept(JOB)
    account.run(named("bert"), "FAILED", "InputRejected")
    account.run(named("carl"), "SUCCEEDED")
    account.run(named("dora"), "ABORTED")
    account.conclude(named("dora"), "ExecutionAborted")
    account.run(named("eve"), "FAILED", "NoCredit")

    assert rerun("--failed-since", "2h", "--dry-run").exit_code == 0
    assert account.running() == []
    said = rerun("--failed-since", "2h")
    again = rerun("--failed-since", "2h")
    only_said = rerun("--failed-since", "2h", "--dry-run")

    eve = named("eve").model_copy(update={"run": 2})
    assert {job.execution_name for job in account.running()} == {
        AGAIN.execution_name,
        eve.execution_name,
    }
    assert (said.exit_code, said.stdout.splitlines()[-1]) == (0, "Started 2 of 4, skipped 2.")
    assert "carl" not in said.stdout
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
    said = rerun("--failed-since", "2h")

    assert said.exit_code == 1
    assert f"job {replaced} has taken its place" in said.stdout
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
def test_a_replaced_job_that_is_named_needs_an_answer(
    account: Account,
    replaced: str,
    arguments: list[str],
    answer: str | None,
    is_started: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("operate.__main__.at_terminal", lambda: answer is not None)

    said = rerun("--id", JOB.id, *arguments, typed=f"{answer}\n")

    assert said.exit_code == (0 if is_started else 1)
    assert (account.running() == [AGAIN]) is is_started
    if not arguments:
        assert f"job {replaced} has taken its place" in said.stdout
        assert JOB.own_video_key in said.stdout


@pytest.mark.parametrize("is_again", [True, False])
def test_a_delivered_job_is_rendered_again_only_if_it_is_asked_for(
    account: Account, is_again: bool
) -> None:
    account.run(JOB, "SUCCEEDED")
    account.accept(JOB)
    account.ledger.end(JOB, datetime.now(UTC), READY, datetime.now(UTC))

    said = rerun("--id", JOB.id, *["--again"] * is_again)

    assert (said.exit_code == 0) is is_again
    words = "is rendered again, and paid again" if is_again else "with AGAIN=1 (--again)"
    assert words in said.stdout
    once_more = AGAIN.model_copy(update={"again": True})
    assert account.running() == [once_more] * is_again


@pytest.mark.parametrize("is_terminal", [True, False])
def test_names_and_messages_are_shown_harmless(
    account: Account, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    hostile, shown = "[red]\x1b[2J:heart:\r", "[red]\\x1b[2J:heart:\\r"
    job = JOB.model_copy(update={"stem": hostile})
    account.run(job, "FAILED", hostile)
    UsedUploads(LEDGER).note_drop(
        job.model_copy(update={"id": "anna-fedcba9876543210", "dropped_at": datetime.now(UTC)})
    )

    said = rerun("--id", JOB.id)

    assert "\x1b[2J" not in said.stdout
    assert "\r" not in said.stdout
    assert said.stdout.count(shown) == 2  # the error's name, and the key of the video


def test_nothing_that_failed_is_no_error(account: Account) -> None:
    account.run(JOB)

    said = rerun("--failed-since", "2h")

    assert said.exit_code == 0
    assert "No job has failed since" in said.stdout


def test_a_job_failed_when_it_stopped_not_when_it_started(account: Account) -> None:
    now = datetime.now(UTC)
    account.run(JOB, "FAILED", "NoCredit", started_at=now - timedelta(hours=5))
    account.run(
        named("bert"),
        "FAILED",
        "NoCredit",
        # Listed first, as it started last: what comes after it may have stopped later.
        started_at=now - timedelta(hours=4),
        stopped_at=now - timedelta(hours=3),
    )

    assert rerun("--failed-since", "2h").exit_code == 0

    assert account.running() == [AGAIN]


def test_an_execution_that_is_already_started_is_not_an_error(account: Account) -> None:
    account.run(AGAIN, "FAILED", "NoCredit")

    assert not DeployedStack(OUTPUTS).start(AGAIN)


def test_an_execution_without_a_job_in_it_is_left_out(account: Account) -> None:
    account.run(JOB, "FAILED", "NoCredit")
    backend = stepfunctions_backends["123456789012"][REGION]
    backend.state_machines[0].executions[0].execution_input = '{"tried": "by hand"}'

    assert not list(DeployedStack(OUTPUTS).unsuccessful_since(datetime(2026, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_gets_a_table(
    account: Account, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    account.run(JOB, "FAILED", "NoCredit")

    said = rerun("--id", JOB.id, "--dry-run")

    assert JOB.id in said.stdout
    assert ("what happens" in said.stdout) is is_terminal
    assert said.stdout.splitlines()[-1] == "Nothing was started: this is a dry run."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Set one of the two: ID= (--id)"),
        (["--id", JOB.id, "--failed-since", "1h"], "or FAILED_SINCE= (--failed-since)"),
        (["--id", "Anna"], 'ID= (--id): "Anna" is no job id'),
        (["--id", ""], 'ID= (--id): "" is no job id'),
        (["--failed-since", "soon"], 'FAILED_SINCE= (--failed-since): "soon" is neither'),
        (["--failed-since", "1h", "--again"], "name it with ID= (--id)"),
        (["--since", "1h"], "No such option"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(
    arguments: list[str], words: str
) -> None:
    said = rerun(*arguments)

    assert said.exit_code == 2
    assert words in said.stderr
