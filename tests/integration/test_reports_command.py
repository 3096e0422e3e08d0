"""The commands that show jobs and their cost, in an account as moto plays it."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.stepfunctions.models import stepfunctions_backends
from typer.testing import CliRunner, Result

from dropreel.aws.uploads import UsedUploads
from dropreel.model.errors import ErrorReport
from dropreel.model.job import Job
from dropreel.model.ledger import ListedRun, Outcome
from dropreel.model.messages import NextAttempt
from operate.__main__ import app
from operate.reports import history
from operate.stack import Outputs
from tests.support.admission_fakes import Account as Admission
from tests.support.admission_fakes import job_named
from tests.support.conclusion_bench import CHECKED, FAILED, NO_CREDIT, READY
from tests.support.conclusion_bench import told as attempt_told
from tests.support.render_account import LEDGER, REGION, UPLOADS, RenderAccount, render_account
from tests.support.render_fakes import ENVIRONMENT, NOON, RUNCOMFY, providers

OUTPUTS = Outputs(
    StateMachineArn=ENVIRONMENT["STATE_MACHINE_ARN"],
    LedgerTable=LEDGER,
    SweepFunctionName="dropreel-sweep:live",
    UploadBucket=UPLOADS,
)
ANNA, BERT, CARL, DORA, EVE = map(job_named, ("anna", "bert", "carl", "dora", "eve"))
NOW = datetime.now(UTC)
SECRETS = ("token of", "https://bucket", "X-Amz-", "rc-secret")


class Account:
    def __init__(self, account: RenderAccount, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger, self.dynamodb = account.ledger, account.dynamodb
        self.admission = Admission(account.dynamodb, monkeypatch)
        self.states = boto3.client("stepfunctions")
        self.states.create_state_machine(
            name="dropreel-render", definition="{}", roleArn="arn:aws:iam::123456789012:role/render"
        )
        self.settings = ENVIRONMENT | {"PROVIDERS": providers(runcomfy={"max_in_flight": 1})}
        monkeypatch.setattr("operate.reports.lists.environment_of", lambda _: self.settings)

    def start(self, job: Job) -> None:
        self.states.start_execution(
            stateMachineArn=OUTPUTS["StateMachineArn"],
            name=job.execution_name,
            input=job.model_dump_json(),
        )

    def accept(self, job: Job) -> None:
        attempt = self.ledger.begin(job.id, NextAttempt(), RUNCOMFY, NOW, estimated_usd=0.5)
        assert attempt
        self.ledger.accept(attempt, "req-1", NOW)

    def end(self, job: Job, outcome: Outcome = READY, usd: float | None = 0.5) -> None:
        """As announce leaves it."""
        is_ready = outcome is READY
        made = attempt_told("VideoReady" if is_ready else "RenderFailed", "no", estimated_usd=usd)
        changed = {
            "job": outcome.detail.job.model_copy(
                update={"id": job.id, "stem": job.stem, "started_at": NOW}
            ),
            "ended_at": NOW,
        }
        if outcome.detail.render:
            changed["render"] = outcome.detail.render.model_copy(update={"attempts": (made,)})
        ended = Outcome(detail=outcome.detail.model_copy(update=changed))
        self.ledger.end(job, NOW, ended, NOW)
        self.ledger.list_ended(ended)
        self.ledger.mark_sent(job, NOW)
        backend = stepfunctions_backends["123456789012"][REGION]
        for execution in backend.state_machines[0].executions:
            if execution.name == job.execution_name:
                execution.status = "SUCCEEDED" if is_ready else "FAILED"

    def items(self, pk: str) -> list[Any]:
        return self.admission.items(pk)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setattr("operate.__main__.outputs_of", lambda stack: OUTPUTS)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with render_account(monkeypatch) as account:
        yield Account(account, monkeypatch)


def operate(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def answer(*arguments: str) -> Any:  # noqa: ANN401 - JSON
    said = operate(*arguments, "--json")
    assert said.exit_code == 0, said.output
    assert not [secret for secret in SECRETS if secret in said.stdout]
    return json.loads(said.stdout)


@pytest.fixture
def busy(account: Account) -> Account:
    """Anna renders, Bert waits, Carl is in Prepare, Dora is ready, Eve failed."""
    for job in (ANNA, BERT, CARL, DORA, EVE):
        account.start(job)
    account.admission.line_up(ANNA, BERT)
    account.accept(ANNA)
    account.end(DORA)
    account.end(EVE, FAILED)
    return account


def test_jobs_shows_every_job_with_its_state(busy: Account) -> None:
    found = answer("jobs")

    states = {row["name"]: (row["state"], row["code"], row["place"]) for row in found["jobs"]}
    assert states == {
        "team/anna": ("renders", None, None),
        "team/bert": ("waits", None, 1),
        "team/carl": ("prepares", None, None),
        "team/dora": ("ready", None, None),
        "team/eve": ("failed", FAILED.code, None),
    }
    assert found["waits_for"] == {"runcomfy": "all slots are taken (1 of 1)"}
    assert not found["more"]


@pytest.mark.parametrize(
    ("changes", "closed", "reason"),
    [
        ({"PROVIDERS": providers(runcomfy={"max_in_flight": 0})}, None, "RunComfy is paused"),
        ({"DAILY_RENDER_LIMIT": "1"}, None, "DailyRenderLimit is reached"),
        ({"DAILY_SPEND_LIMIT_USD": "x"}, None, "the settings cannot be read"),
        ({}, "TokenRejected", "RunComfy has refused the token (TokenRejected)"),
        ({}, "NoCredit", "RunComfy has no credit (NoCredit)"),
    ],
)
def test_jobs_says_why_a_queue_does_not_go_on(
    busy: Account, changes: dict[str, str], closed: str | None, reason: str
) -> None:
    today = datetime.now(UTC).date().isoformat()
    busy.settings |= changes
    busy.dynamodb.put_item(
        TableName=LEDGER,
        Item={"pk": {"S": "spend"}, "sk": {"S": today}, "renders": {"N": "1"}},
    )
    if closed:
        busy.dynamodb.put_item(
            TableName=LEDGER,
            Item={"pk": {"S": "closed"}, "sk": {"S": "runcomfy"}, "code": {"S": closed}},
        )

    found = answer("jobs", "--state", "waits")

    assert [row["name"] for row in found["jobs"]] == ["team/bert"]
    assert found["waits_for"]["runcomfy"].startswith(reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "RunComfy is on trial after TokenRejected: it gets one job at a time"),
        ({"DAILY_RENDER_LIMIT": "1"}, "DailyRenderLimit is reached: waits for midnight UTC"),
    ],
)
def test_a_provider_on_trial_is_not_said_to_refuse(
    busy: Account, changes: dict[str, str], reason: str
) -> None:
    now = datetime.now(UTC)
    busy.settings |= changes
    for key, fields in (
        (("spend", now.date().isoformat()), {"renders": {"N": "1"}}),
        (
            ("closed", "runcomfy"),
            {"code": {"S": "TokenRejected"}, "trial_at": {"S": now.isoformat()}},
        ),
    ):
        busy.dynamodb.put_item(
            TableName=LEDGER, Item={"pk": {"S": key[0]}, "sk": {"S": key[1]}, **fields}
        )

    assert answer("jobs", "--state", "waits")["waits_for"] == {"runcomfy": reason}


def test_jobs_in_a_pipe_are_lines_with_tabs(busy: Account) -> None:
    said = operate("jobs", "--state", "failed", "--folder", "/team/")

    (line,) = said.stdout.splitlines()[:1]
    assert line.split("\t")[:4] == [EVE.id, "team", EVE.model, f"failed {FAILED.code}"]


@pytest.mark.parametrize(
    "arguments",
    [["jobs", "--since", "yesterday"], ["cost", "--since", "2999-01-01"], ["jobs", "--watch"]],
)
def test_a_wrong_option_is_named(account: Account, arguments: list[str]) -> None:
    said = operate(*arguments)

    assert said.exit_code == 2
    assert arguments[1] in said.stderr


def test_a_list_is_read_in_pages_of_the_asked_days_only(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = account.admission.record_calls("before-call.dynamodb", lambda model, **_: model.name)
    for job in (ANNA, BERT):
        account.end(job)
    monkeypatch.setattr(
        "operate.reports.lists.boto3.client",
        lambda name, **_: {"dynamodb": account.dynamodb, "stepfunctions": account.states}[name],
    )
    asked.clear()

    assert answer("cost", "--since", "0m")["total"]["renders"] == 0
    assert answer("cost", "--since", "3d")["total"]["renders"] == 2

    assert "Scan" not in asked
    assert asked.count("Query") <= 1 + 1 + 4 + 1  # a day, or four, and the open runs


def test_cost_adds_up_what_has_ended_and_names_what_has_not(busy: Account) -> None:
    found = answer("cost", "--by", "folder", "--by", "provider")

    (line,) = found["lines"]
    assert line["by"] == {"folder": "team", "provider": "runcomfy"}
    assert (line["renders"], line["failed"], line["usd"]) == (1, 0, 0.5)
    assert found["total"]["usd"] == 0.5
    assert found["open"]["renders"] == 1


@pytest.mark.parametrize("command", ["jobs", "cost"])
def test_a_span_that_the_ledger_does_not_keep_is_not_claimed(
    account: Account, command: str
) -> None:
    said = operate(command, "--since", "365d", "--json")

    since = datetime.fromisoformat(json.loads(said.stdout)["since"])
    assert timedelta(days=180) <= datetime.now(UTC) - since < timedelta(days=181)
    assert "The ledger keeps 180 days" in said.stderr


def test_lists_hold_runs_of_earlier_days_until_the_span_begins(account: Account) -> None:
    ended = ListedRun.ended(READY).model_copy(update={"ended_at": NOON})
    assert timedelta(hours=1) < NOW - NOON
    account.ledger.list_ended(READY)

    assert answer("jobs", "--since", "1h")["jobs"] == []
    (row,) = answer("jobs", "--since", NOON.date().isoformat())["jobs"]

    assert (row["job_id"], row["ended_at"]) == (ended.job_id, "2026-11-20T12:00:00Z")


@pytest.mark.parametrize("wanted", [EVE.id, "team/eve"])
def test_job_tells_the_story_of_one(busy: Account, wanted: str) -> None:
    UsedUploads(LEDGER, busy.dynamodb).note_drop(
        EVE.model_copy(update={"bucket": UPLOADS, "dropped_at": NOW})
    )

    story = answer("job", wanted, "--no-log")

    (run,) = story["runs"]
    assert (run["now"]["state"], run["error"]["code"]) == ("failed", FAILED.code)
    assert run["error"]["advice"]
    assert {"started", "failed", "announced"} <= {moment["what"] for moment in run["moments"]}
    assert run["link"].endswith(f"dropreel-render:{EVE.id}")


@pytest.mark.parametrize("error", [None, NO_CREDIT.report])
def test_job_tells_what_a_dry_run_was_told(account: Account, error: ErrorReport | None) -> None:
    told = CHECKED.model_copy(update={"accepted": error is None, "error": error})
    account.start(ANNA)
    account.end(ANNA, Outcome(detail=told))

    story = answer("job", ANNA.id, "--no-log")

    (run,) = story["runs"]
    words = "refused: NoCredit: Not enough credit." if error else "accepted"
    assert ("checked", words) in [(one["what"], one["words"]) for one in run["moments"]]
    assert (run["error"] and run["error"]["code"]) == (error and error.code)
    assert "team/anna.check.json" in [file["key"] for file in story["files"]]


def test_job_of_a_running_one_names_request_and_price(busy: Account) -> None:
    said = operate("job", ANNA.id, "--no-log")

    assert said.exit_code == 0, said.output
    assert "Run 1: renders, about 0.5 USD" in said.stdout
    assert "by RunComfy as request req-1" in said.stdout
    assert "s3://uploads/inbox/team/anna.png" in said.stdout
    assert not [secret for secret in SECRETS if secret in said.stdout]


@pytest.mark.parametrize("wanted", ["nobody", "team/nobody", "x" * 200, "\x1b[2J"])
def test_a_job_that_is_not_there_is_an_error(account: Account, wanted: str) -> None:
    said = operate("job", wanted)

    assert said.exit_code == 1
    assert said.stderr.startswith("There is no job ")
    assert "\x1b" not in said.stderr


# The logs


def put_lines(step: str, *lines: Mapping[str, object] | str) -> None:
    logs = boto3.client("logs")
    group = history.log_group("dropreel", step)
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    at = int(datetime.now(UTC).timestamp() * 1000)
    logs.put_log_events(
        logGroupName=group,
        logStreamName="s",
        logEvents=[
            {"timestamp": at, "message": line if isinstance(line, str) else json.dumps(line)}
            for line in lines
        ],
    )


def test_job_shows_its_own_lines_of_the_logs_without_what_may_be_secret(busy: Account) -> None:
    ours = {"level": "ERROR", "message": "Fault: X at https://bucket/a?X-Amz-Signature=1"}
    put_lines(
        "poll",
        ours | {"job_id": ANNA.id, "run": 1, "provider": "runcomfy", "exception": "rc-secret"},
        ours | {"job_id": BERT.id, "run": 1},
        f"no JSON, with {ANNA.id} and rc-secret",
    )

    story = answer("job", ANNA.id)

    (line,) = story["log"]
    assert line["message"] == "Fault: X at (a URL) provider=runcomfy"
    assert (line["step"], line["run"], story["log_note"]) == ("poll", 1, None)


def test_job_shows_the_end_of_a_long_log_and_says_so(
    busy: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_LINES", 2)
    put_lines("poll", *({"job_id": ANNA.id, "message": f"look {n}"} for n in range(3)))

    story = answer("job", ANNA.id)

    assert [line["message"] for line in story["log"]] == ["look 1", "look 2"]
    assert story["log_note"] == "The last 2 lines."


def test_job_goes_without_logs_that_may_not_be_read(
    busy: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[history.LogLine]:
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "FilterLogEvents")

    monkeypatch.setattr(history, "_lines_of", refuse)

    story = answer("job", ANNA.id)

    assert story["log_note"] == "The logs cannot be read (AccessDeniedException)."
