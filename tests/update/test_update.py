"""A deployed stack is updated while jobs are in flight, and then deleted while one waits.

It is an embedded AWS of its own. The tests run in their order: the last one deletes the stack.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from local import embedded
from local.embedded import BUILD, PROJECT, Home
from tests.e2e.conftest import Stack, until

HELD_SECONDS = 60
"""How long one job renders, and the video of another is copied: a deploy takes less."""

VIDEO_BYTES = 480_000
"""About what the stand-in makes of the samples."""

NEXT_POLL = """
from dropreel.runtime.log import logger

deployed_before = handler


def handler(event, context):
    logger.info("The next poll", job_id=event["plan"]["job"]["id"])
    return deployed_before(event, context)
"""

RULE = "dropreel-events"
"""A consumer's rule on the stack's bus, for the queue that the events are read from."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    home = Home(embedded.OUT / "update")
    embedded.down(home)
    environment = embedded.up(
        home,
        standin_options=["--queue-seconds", "0.3", "--render-seconds", "0.7"],
        parameters={"SettleSeconds": "0", "RunComfyMaxInFlight": "1"},
        max_wait_seconds=1,
        say=lambda _: None,
    )
    yield Stack(environment, home)
    embedded.down(home)


def next_release(home: Home) -> Path:
    """The deployed template, with another layer, another poll, and another state machine.

    The layer and poll say so in the log. The state Poll is called Ask.
    """
    deployed = BUILD / f"{home.path.name}.yaml"
    layer = _copy(BUILD / "DropreelLayer", home.path / "next-layer")
    _replace(
        layer / "python/dropreel/runtime/log.py",
        'return {"job_id"',
        'return {"layer": "next", "job_id"',
    )
    poll = _copy(PROJECT / "functions/poll", home.path / "next-poll")
    app = poll / "app.py"
    app.write_text(app.read_text() + NEXT_POLL)
    definition = home.path / "next.asl.json"
    shutil.copy(home.path / "render.asl.json", definition)
    _replace(definition, '"Poll"', '"Ask"')

    template: dict[str, Any] = yaml.safe_load(deployed.read_text())
    resources = template["Resources"]
    resources["DropreelLayer"]["Properties"]["ContentUri"] = str(layer)
    resources["PollFunction"]["Properties"]["CodeUri"] = str(poll)
    resources["RenderStateMachine"]["Properties"]["DefinitionUri"] = str(definition)
    written = deployed.with_stem(f"{home.path.name}-next")
    written.write_text(yaml.safe_dump(template, sort_keys=False))
    return written


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    # A .pyc that is never checked would hide the change.
    return Path(shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__")))


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def running(stack: Stack) -> set[str]:
    return {it["name"] for it in stack.executions("") if it["status"] == "RUNNING"}


def log_lines(stack: Stack, job: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in stack.all_logs().splitlines() if job in line)
    return [line for line in lines if line.get("job_id") == job]


def in_next_layer(stack: Stack, job: str) -> set[str]:
    """The functions that worked for a job with the next layer."""
    prefix = f"{embedded.STACK}-"
    return {
        line["function_name"].removeprefix(prefix)
        for line in log_lines(stack, job)
        if line.get("layer") == "next"
    }


def test_a_parameter_alone_is_published(stack: Stack) -> None:
    """To all functions, whether they read it or not. What was published before is still there."""
    functions = stack.client("lambda")
    names = [it["FunctionName"] for it in functions.list_functions()["Functions"]]

    def live(name: str) -> str:
        version: str = functions.get_alias(FunctionName=name, Name="live")["FunctionVersion"]
        return version

    def settings(name: str, version: str) -> dict[str, str]:
        found = functions.get_function_configuration(FunctionName=name, Qualifier=version)
        variables: dict[str, str] = found["Environment"]["Variables"]
        return variables

    before = {name: live(name) for name in names}

    template = BUILD / f"{stack.home.path.name}.yaml"
    embedded.deploy(stack.home, template, stack.environment, {"DailyRenderLimit": "150"})

    assert len(names) == 9
    for name in names:
        assert live(name) != before[name]
        assert settings(name, before[name])["DAILY_RENDER_LIMIT"] == "200"
        assert settings(name, live(name))["DAILY_RENDER_LIMIT"] == "150"
        limits = json.loads(settings(name, live(name))["PROVIDERS"])
        assert limits["runcomfy"]["max_in_flight"] == "1"  # a parameter that was not named


def test_an_update_loses_no_job_in_flight(stack: Stack) -> None:
    """A function, a layer, a limit and the state machine change while one job is being delivered,
    one renders, and one waits for its slot."""
    stack.fault(match="delivered", at="download", bytes_per_second=VIDEO_BYTES // HELD_SECONDS)
    stack.fault(match="rendered", at="render", render_seconds=HELD_SECONDS)
    delivered = stack.drop("delivered")
    until(
        lambda: [one for one in stack.submissions("delivered") if "download" in one["calls"]],
        "the download",
    )
    rendered = stack.drop("rendered")
    until(lambda: stack.submissions("rendered"), "the submission")
    waiting = stack.drop("waiting")
    until(lambda: stack.ledger("waiters#"), "the queue")
    jobs = {"delivered": delivered, "rendered": rendered, "waiting": waiting}

    embedded.deploy(
        stack.home, next_release(stack.home), stack.environment, {"RunComfyMaxInFlight": "2"}
    )

    assert {delivered, rendered} <= running(stack)  # else HELD_SECONDS are too few here
    serve = json.dumps({"serve": "waiting jobs"})  # as ServeRule does each minute
    stack.client("lambda").invoke(FunctionName=stack.output("SweepFunctionName"), Payload=serve)
    until(lambda: stack.submissions("waiting"), "the submission by the new limit")
    assert rendered in running(stack)
    assert stack.most_in_flight() == 2
    for stem, job in jobs.items():
        assert stack.event_of(job)["detail-type"] == "Video Ready"
        assert stack.video_bucket(f"{stem}.mp4")
        assert [one["accepted"] for one in stack.submissions(stem)] == [True]
        assert stack.submissions(stem, "wavespeed") == []
    assert "submit" in in_next_layer(stack, waiting)
    assert "announce" in in_next_layer(stack, delivered)
    assert {line.get("layer") for line in log_lines(stack, rendered)} == {None, "next"}
    assert "The next poll" in {line["message"] for line in log_lines(stack, rendered)}


def test_the_next_job_has_the_next_state_machine(stack: Stack) -> None:
    job = stack.drop("fresh")

    assert stack.event_of(job)["detail-type"] == "Video Ready"
    arn = stack.execution_arn(job)
    states = stack.client("stepfunctions")
    described = states.describe_state_machine_for_execution(executionArn=arn)
    assert '"Ask"' in described["definition"]


def test_a_teardown_ends_each_job_and_keeps_what_is_kept(stack: Stack) -> None:
    stems = ("held1", "held2", "held3")
    stack.fault(match="held", do="stay_queued", times=None)
    jobs = {stem: stack.drop(stem) for stem in stems}
    until(
        lambda: len(stack.submissions("held")) + len(stack.ledger("waiters#")) == len(stems),
        "the slots and the queue",
    )
    assert stack.ledger("waiters#")
    kept = [stack.output(name) for name in ("UploadBucket", "VideoBucket", "WorkBucket")]
    table = stack.output("LedgerTable")

    in_use = stack.operate("teardown", "--yes")

    assert in_use.returncode == 1
    assert f"rules that are not the stack's: {RULE}." in in_use.stderr
    for stem, job in jobs.items():
        event = stack.event_of(job)
        error_file = json.loads(stack.video_bucket(f"{stem}.error.json") or b"{}")
        assert event["detail-type"] == "Video Failed"
        assert event["detail"]["error"]["code"] == "ExecutionAborted"
        assert error_file["error"]["code"] == "ExecutionAborted"
    assert all(submission["cancelled"] for submission in stack.submissions("held"))

    bus = stack.environment["EVENT_BUS"]
    stack.client("events").remove_targets(Rule=RULE, EventBusName=bus, Ids=["queue"])
    stack.client("events").delete_rule(Name=RULE, EventBusName=bus)
    told = stack.operate("teardown", "--yes")

    assert told.returncode == 0, told.stdout + told.stderr
    with pytest.raises(ClientError, match="does not exist"):
        stack.client("cloudformation").describe_stacks(StackName=embedded.STACK)
    assert stack.client("stepfunctions").list_state_machines()["stateMachines"] == []
    said = told.stdout.splitlines()
    for bucket in kept:
        assert f"  AWS::S3::Bucket {bucket}" in said
        stack.client("s3").head_bucket(Bucket=bucket)
    assert f"  AWS::DynamoDB::Table {table}" in said
    stack.client("dynamodb").describe_table(TableName=table)
