"""Each log line of a function names the job that it is about (job_id, run, folder, and the attempt
where there is one), each call says once what it did, and operators can ask for that."""

import inspect
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.batch import base as batch
from botocore.stub import Stubber

from dropreel.aws.executions import Executions
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.errors import FinalAnswer, RenderTimedOut, ResultRefused
from dropreel.model.events import VideoReady
from dropreel.model.messages import (
    ActiveRender,
    EndedJob,
    NextAttempt,
    Plan,
    Progress,
    SubmitRequest,
)
from dropreel.model.provider import Answer, RenderState, Result, Ticket
from dropreel.runtime import done
from tests.support.admission_fakes import FakeExecutions, admission_with, request_of
from tests.support.conclusion_bench import FAILED, READY, RUN, failed_run
from tests.support.fault_account import CONTEXT, load_step
from tests.support.log_lines import Line, Lines, keys_of, log_lines
from tests.support.render_account import LEDGER, ROOT, UPLOADS, RenderAccount, render_account
from tests.support.render_fakes import (
    JOB,
    NOON,
    PLAN,
    RUNCOMFY,
    TICKET,
    FakeClock,
    MemoryClosures,
    ScriptedProvider,
    by_name,
)
from tests.support.sam_template import of_type

Json = dict[str, Any]
MACHINE = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    with render_account(monkeypatch) as account:
        machine = boto3.client("stepfunctions").create_state_machine(
            name="dropreel-render",
            definition=json.dumps(MACHINE),
            roleArn="arn:aws:iam::123456789012:role/render",
        )
        for name, value in {
            "STATE_MACHINE_ARN": machine["stateMachineArn"],
            "QUEUE_URL": boto3.client("sqs").create_queue(QueueName="intake")["QueueUrl"],
            "CONCLUDE_FUNCTION": "dropreel-conclude",
            "MODEL": JOB.model,
            "UPLOAD_BUCKET": UPLOADS,
            "SETTLE_SECONDS": "0",
            "MAX_RECEIVES": "5",
            "INCOMPLETE_AFTER_MINUTES": "60",
        }.items():
            monkeypatch.setenv(name, value)
        yield account


@pytest.fixture
def lines() -> Iterator[Lines]:
    with log_lines() as lines:
        yield lines


# The steps of a job


def accept(account: RenderAccount, plan: Plan) -> ActiveRender:
    attempt = account.ledger.begin(plan.job.id, NextAttempt(), RUNCOMFY, NOON)
    assert attempt
    account.ledger.accept(attempt, TICKET.request_id, NOON)
    return ActiveRender(plan=plan, ticket=TICKET, started_at=NOON)


def event_for(step: str, account: RenderAccount, plan: Plan) -> Json:
    """An event for a step that has something to log."""
    if step == "admit":
        request = request_of(plan.job)
        return request.model_dump(mode="json") | {"task_token": request.task_token}
    if step == "prepare":
        return plan.job.model_dump(mode="json")
    if step == "submit":
        return SubmitRequest(plan=plan).model_dump(mode="json")
    if step == "announce":
        account.ledger.end(plan.job, NOON, FAILED, NOON)
        return EndedJob(job=plan.job, execution=RUN, started_at=NOON).model_dump(mode="json")
    render = accept(account, plan)
    if step == "conclude":
        job = plan.job.model_dump(mode="json")
        return failed_run(RenderTimedOut("Still queued."), job=job)
    return render.model_dump(mode="json")


def stand_in(app: Any) -> None:  # noqa: ANN401 - each has names of its own
    find = by_name(
        NoVideo(
            submissions=["req-1"],
            answers=[Answer(state=RenderState.QUEUED)],
            cancels=OSError("The provider is away"),
        )
    )
    app.provider_of = lambda name, settings: find(name)
    if hasattr(app, "admission"):
        app.admission = replace(app.admission, executions=FakeExecutions())


class NoVideo(ScriptedProvider):
    def result(self, ticket: Ticket) -> Result:
        raise ResultRefused("Not a video.")


STEPS = ["prepare", "admit", "submit", "poll", "deliver", "conclude", "announce"]
OF_AN_ATTEMPT = {"admit", "submit", "poll", "deliver"}
# What a call can say at its end, besides its final answer.
ENDS: dict[str, set[str]] = {
    "prepare": {"Prepared", "Nothing to render"},
    "admit": {
        "In the queue for a slot",
        "Has its slot already: goes on",
        "Waits already, by a newer call",
        "Its run is over: refused",
        "Refused: no offer has a price",
        "A call that Step Functions gave up on: nothing to do",
    },
    "submit": {"Submitted", "Not submitted yet", "Goes to another offer"},
    "poll": {"Polled"},
    "deliver": {"Delivered"},
    "conclude": {"Concluded", "Announced before"},
    "announce": {"Announced", "Announced earlier"},
}


SECRETS = (request_of(JOB).task_token, "X-Amz-", "https://")


def ends_of(step: str, written: list[Line]) -> list[Line]:
    return [
        line
        for line in written
        if line["message"] in ENDS[step] or line["message"].startswith("Final answer: ")
    ]


@pytest.mark.parametrize("step", STEPS)
def test_each_line_of_a_step_names_its_job_and_one_says_what_it_did(
    step: str, account: RenderAccount, lines: Lines
) -> None:
    plans = [
        account.drop(PLAN.model_copy(update={"job": job}))
        for job in (JOB, JOB.model_copy(update={"id": "bert-0123456789abcdef", "run": 2}))
    ]
    events = [event_for(step, account, plan) for plan in plans]
    app = load_step(step)
    stand_in(app)

    for plan, event in zip(plans, events, strict=True):
        with suppress(FinalAnswer):
            app.handler(event, CONTEXT)

        written = lines.taken()
        job = plan.job
        assert {keys_of(line) for line in written} == {(job.id, job.run, job.folder)}
        assert len(ends_of(step, written)) == 1
        assert not [it for it in SECRETS if it in json.dumps(written)]
        if step in OF_AN_ATTEMPT:
            assert {line["attempt"] for line in written} == {1}


@pytest.mark.parametrize("step", ["admit", "submit", "conclude", "announce"])
def test_a_repeated_call_says_so(step: str, account: RenderAccount, lines: Lines) -> None:
    event = event_for(step, account, account.drop(PLAN))
    app = load_step(step)
    stand_in(app)
    app.handler(event, CONTEXT)
    lines.taken()

    app.handler(event, CONTEXT)

    assert len(ends_of(step, lines.taken())) == 1


def test_a_fault_says_what_kind_it_is_and_not_its_words(
    account: RenderAccount, lines: Lines
) -> None:
    app = load_step("poll")
    app.provider_of = raising_a_secret

    with pytest.raises(RuntimeError):
        app.handler(event_for("poll", account, account.drop(PLAN)), CONTEXT)

    [line] = lines.taken()
    assert (line["message"], line["attempt"]) == ("Fault: RuntimeError", 1)
    assert "sesame" not in json.dumps(line)


def raising_a_secret(*_: object, **__: object) -> None:
    raise RuntimeError("sesame")


def test_line_about_another_job_names_that_one(account: RenderAccount, lines: Lines) -> None:
    """The end of a job gives its slot to the next in the queue, whose folder is not known."""
    slots, executions = DynamoDBSlots(LEDGER, account.dynamodb), FakeExecutions()
    later = JOB.model_copy(update={"id": "bert-0123456789abcdef", "folder": "bert/"})
    app = load_step("conclude")
    stand_in(app)
    app.admission = admission_with(slots, executions, account.ledger, FakeClock(), MemoryClosures())
    for job in (JOB, later):
        request = request_of(job)
        executions.wait(job.execution_name, request.task_token)
        app.admission.admit(request)
    lines.taken()

    app.handler(failed_run(RenderTimedOut("Still queued.")), CONTEXT)

    given, concluded = lines.taken()
    assert keys_of(concluded) == (JOB.id, JOB.run, JOB.folder)
    assert given["message"] == "Slot given"
    assert (given["job_id"], given["run"]) == (later.id, later.run)
    assert not {"folder", "attempt"} & given.keys()


def test_sweep_names_the_job_of_each_execution(account: RenderAccount, lines: Lines) -> None:
    app = load_step("sweep")
    app.full_sweep = replace(
        app.full_sweep, conclude=ignored, now=lambda: datetime.now(UTC) + timedelta(minutes=1)
    )
    jobs = [JOB, JOB.model_copy(update={"run": 2, "folder": ""})]
    client = boto3.client("stepfunctions")
    for job in jobs:
        Executions(app.settings.state_machine_arn).start(job)
        arn = app.settings.state_machine_arn.replace("stateMachine", "execution")
        client.stop_execution(executionArn=f"{arn}:{job.execution_name}")

    app.handler({}, CONTEXT)

    written = lines.taken()
    named = [keys_of(line) for line in written if "execution" in line]
    assert sorted(named, key=str) == sorted([(j.id, j.run, j.folder) for j in jobs], key=str)
    for line in written:
        assert "execution" in line or not {"job_id", "run", "folder"} & line.keys()


def ignored(*_: object) -> None:
    pass


# Intake: each record by its file, and by its job once it is known


def dropped(account: RenderAccount, key: str) -> Json:
    version_id = account.s3.put_object(Bucket=UPLOADS, Key=key, Body=b"bytes")["VersionId"]
    event = json.loads((ROOT / "events/samples/object_created.json").read_text())
    event["detail"]["bucket"]["name"] = UPLOADS
    event["detail"]["object"].update({"key": key, "version-id": version_id})
    return {
        "messageId": key,
        "body": json.dumps(event),
        "eventSource": "aws:sqs",
        "attributes": {"ApproximateReceiveCount": "1"},
    }


def test_intake_names_the_file_of_each_record_and_its_job(
    account: RenderAccount, lines: Lines
) -> None:
    keys = ["inbox/team/anna.mp3", "inbox/team/anna.png", "inbox/bert.png", "inbox/.DS_Store"]
    records = [dropped(account, key) for key in keys]
    app = load_step("intake")

    app.handler({"Records": records}, CONTEXT)

    written = lines.taken()
    [name] = started(app)
    assert [
        (line["key"], line.get("folder"), line.get("job_id"), line.get("run")) for line in written
    ] == [
        (keys[0], "team/", name, 1),
        (keys[1], "team/", None, None),
        (keys[2], "", None, None),
        (keys[3], None, None, None),
    ]


def test_intake_names_nothing_of_a_record_that_failed(account: RenderAccount, lines: Lines) -> None:
    records = [dropped(account, key) for key in ("inbox/a/anna.png", "inbox/a/anna.mp3")]
    litter = dropped(account, "inbox/.DS_Store")
    app = load_step("intake")
    starter = Stubber(app.intake.executions._client)
    starter.add_client_error("start_execution", "ThrottlingException")

    with starter:
        app.handler({"Records": [records[0], litter]}, CONTEXT)

    failed, last = lines.taken()
    assert (failed["key"], failed["folder"]) == ("inbox/a/anna.png", "a/")
    assert last["key"] == "inbox/.DS_Store"
    assert not {"job_id", "run", "folder"} & last.keys()


def test_a_message_that_cannot_be_read_is_logged_by_its_id_and_key_without_its_content(
    account: RenderAccount, lines: Lines
) -> None:
    whole = dropped(account, "inbox/a/anna.png")
    poisoned = dropped(account, "inbox/a/bert.png")
    event = json.loads(poisoned["body"])
    event["time"] = "sesame"
    poisoned |= {"messageId": "0a1b", "body": json.dumps(event)}
    nothing = {**poisoned, "messageId": "2c3d", "body": "sesame, open"}
    app = load_step("intake")

    answer = app.handler({"Records": [poisoned, nothing, whole]}, CONTEXT)

    assert answer["batchItemFailures"] == [{"itemIdentifier": "0a1b"}, {"itemIdentifier": "2c3d"}]
    first, second, last = lines.taken()
    assert (first["message_id"], first["key"]) == ("0a1b", "inbox/a/bert.png")
    assert (second["message_id"], second.get("key")) == ("2c3d", None)
    assert first["exception_name"] == second["exception_name"] == "MessageUnreadable"
    assert last["key"] == "inbox/a/anna.png"
    assert "sesame" not in json.dumps([first, second, last])


def started(app: Any) -> list[str]:  # noqa: ANN401
    listed = boto3.client("stepfunctions").list_executions(
        stateMachineArn=app.settings.state_machine_arn
    )
    return [one["name"] for one in listed["executions"]]


# The questions of docs/operating.md

PAGE = (ROOT / "docs/operating.md").read_text()
QUERIES = re.findall(
    r"^```\n(.*?)^```$",
    PAGE.partition("\n## Questions to the logs\n")[2].partition("\n## ")[0],
    re.M | re.S,
)
SAVED = of_type("AWS::Logs::QueryDefinition")["FailuresQuery"]["QueryString"]
# CloudWatch Logs Insights' own words.
OF_INSIGHTS = {
    *("fields", "filter", "stats", "sort", "by", "as", "and", "or", "not", "in", "desc", "asc"),
    *("count", "count_distinct", "avg", "max", "min", "pct", "latest", "bin", "1h"),
}


@pytest.fixture
def told(account: RenderAccount, lines: Lines) -> list[Line]:
    """Lines of each function."""
    for step in STEPS:
        job = JOB.model_copy(update={"id": f"{step}-0123456789abcdef"})
        event = event_for(step, account, account.drop(PLAN.model_copy(update={"job": job})))
        app = load_step(step)
        stand_in(app)
        with suppress(FinalAnswer):
            app.handler(event, CONTEXT)
    poisoned = dropped(account, "inbox/bert.png") | {"body": "no upload"}
    load_step("intake").handler(
        {"Records": [poisoned, dropped(account, "inbox/anna.png")]}, CONTEXT
    )
    written = lines.taken()
    assert isinstance(READY.detail, VideoReady)
    render = ActiveRender(plan=PLAN, ticket=TICKET, started_at=NOON)
    polled = Progress(state=RenderState.QUEUED, wait_seconds=5)
    return [*written, done.polled(render, polled).keys, done.delivered(render, READY.detail).keys]


def test_the_saved_query_is_one_of_the_page() -> None:
    assert SAVED in QUERIES


def test_each_query_asks_for_fields_that_the_functions_log(told: list[Line]) -> None:
    logged = {field for line in told for field in line}

    assert len(QUERIES) >= 8
    for query in QUERIES:
        bare = re.sub(r'"[^"]*"|@\w+|\b\d+\b', "", query)
        names = {name.partition(".")[0] for name in re.findall(r"[a-z1][\w.]*", bare)}
        given = set(re.findall(r"\bas (\w+)", bare))
        assert names - OF_INSIGHTS - given <= logged, query


def test_each_query_asks_for_words_that_the_functions_log() -> None:
    sources = [*ROOT.glob("layers/dropreel/dropreel/**/*.py"), *ROOT.glob("functions/*/app.py")]
    code = "\n".join(path.read_text() for path in sources) + inspect.getsource(batch)

    for query in QUERIES:
        for words in re.findall(r'"([^"]*)"', query):
            is_other = words == "REPORT" or re.fullmatch(r"anna-[0-9a-f]{16}", words)
            assert is_other or f'"{words}"' in code or f"class {words}(" in code, words
