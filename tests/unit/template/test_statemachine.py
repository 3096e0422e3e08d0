"""Rules that hold for the state machine's definition.

The embedded AWS names every failed function's error alike, so what Step Functions retries by
name, and what its expressions read, shows in an account only: here it is held against the code.
"""

import ast
import inspect
import json
import re
import subprocess
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import botocore.exceptions
import botocore.session
import pytest
from aws_lambda_powertools.utilities.parameters import exceptions as parameters
from pydantic import BaseModel

from dropreel.aws import bus
from dropreel.model import errors
from dropreel.model.errors import DropreelError
from dropreel.model.events import VideoFailed, VideoReady
from dropreel.model.job import execution_name
from dropreel.model.messages import (
    ActiveRender,
    AdmitRequest,
    NextAttempt,
    Plan,
    Progress,
    Submission,
    SubmitRequest,
)
from dropreel.outcome import delivery
from dropreel.outcome.conclusion import FailedRun
from dropreel.providers import tokens
from dropreel.render import attempts, polling
from local.embedded import ENVIRONMENTS
from tests.support.sam_template import DEFINITION, of_type, timeout_seconds

State = dict[str, Any]
OUTER: dict[str, State] = DEFINITION["States"]
RENDER = OUTER["Render"]
INNER: dict[str, State] = RENDER["Branches"][0]["States"]
STATES = OUTER | INNER
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}
CALLS = {name: task for name, task in TASKS.items() if "FunctionName" in task["Arguments"]}

# AWS's own names, from the pages "Handling errors in Step Functions workflows", "Best practices
# for Step Functions" (the Lambda ones) and "Lambda runtime API".
OF_LAMBDA = {
    "Lambda.AWSLambdaException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.SdkClientException",
    "Lambda.ServiceException",
    "Lambda.Unknown",
}
THROTTLED = "Lambda.TooManyRequestsException"
OF_A_KILLED_FUNCTION = {"Sandbox.Timedout", "Runtime.ExitError", "States.Timeout"}
# For some seconds of a deploy a new handler may meet an old layer.
OF_A_DEPLOY = {
    "Runtime.ImportModuleError",
    "Runtime.HandlerNotFound",
    "Runtime.UserCodeSyntaxError",
}
OF_A_BROKEN_CONNECTION = {
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "IncompleteReadError",
    "ReadTimeoutError",
    "ResponseStreamingError",
}
# What DynamoDB says that no waiting mends, or that we foresee.
LASTING = {
    "IdempotentParameterMismatchException",
    "ConditionalCheckFailedException",
    "ItemCollectionSizeLimitExceededException",
    "ReplicatedWriteConflictException",
    "ResourceNotFoundException",
}


def modelled(service: str, *operations: str) -> set[str]:
    """The exceptions that boto3 raises under a name of their own; all others are `ClientError`."""
    model = botocore.session.Session().get_service_model(service)
    calls = [model.operation_model(name) for name in operations or model.operation_names]
    return {shape.name for call in calls for shape in call.error_shapes}


def retried(task: State) -> list[str]:
    """The names that a task retries, whichever of its retriers does."""
    return [
        name
        for retrier in task["Retry"]
        if retrier["MaxAttempts"]
        for name in retrier["ErrorEquals"]
    ]


def expressions(of: object) -> Iterator[str]:
    """Every JSONata expression in a part of the definition."""
    if isinstance(of, str):
        yield from re.findall(r"{%(.*?)%}", of, re.DOTALL)
    elif isinstance(of, dict | list):
        for part in of.values() if isinstance(of, dict) else of:
            yield from expressions(part)


def keys(constructor: str) -> set[str]:
    """The keys of a JSONata object constructor."""
    return set(re.findall(r'"(\w+)":', constructor))


# Retries


@pytest.mark.parametrize("name", ["Prepare", "Admit", "Submit"])
def test_a_step_retries_the_platforms_faults(name: str) -> None:
    calls = ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "TransactWriteItems")
    ledger = modelled("dynamodb", *calls) - LASTING
    faults = OF_LAMBDA | OF_A_KILLED_FUNCTION | OF_A_DEPLOY | OF_A_BROKEN_CONNECTION | ledger
    _, retrier = CALLS[name]["Retry"]

    assert set(retrier["ErrorEquals"]) >= faults | {"ClientError", "GetParameterError"}
    assert retrier["ErrorEquals"] == CALLS["Prepare"]["Retry"][1]["ErrorEquals"]
    assert retrier["MaxAttempts"] >= 6
    assert retrier["JitterStrategy"] == "FULL"


def test_admission_outlasts_an_hour_of_trouble() -> None:
    _, retrier = CALLS["Admit"]["Retry"]

    assert patience_seconds(retrier) >= 3600


def test_only_the_provider_or_the_deadline_ends_a_submitted_job() -> None:
    _, final, others = CALLS["Poll"]["Retry"]

    assert (final["MaxAttempts"], others["ErrorEquals"]) == (
        0,
        ["States.TaskFailed", "States.Timeout"],
    )
    assert {*final["ErrorEquals"]} == errors_raised_by(polling, attempts) | {"Runtime.HandlerError"}


def test_a_loss_that_the_result_shows_is_final_for_deliver() -> None:
    _, final, _ = CALLS["Deliver"]["Retry"]

    assert {*final["ErrorEquals"]} >= errors_raised_by(attempts)


def errors_raised_by(*modules: ModuleType) -> set[str]:
    """The errors that these modules make, by their calls in the source."""
    names = {error.__name__ for error in DropreelError.__subclasses__()}
    calls = (
        ast.unparse(node.func)
        for module in modules
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call)
    )
    return names & {call.removeprefix("errors.") for call in calls}


@pytest.mark.parametrize("name", CALLS)
def test_used_up_concurrency_only_delays_a_step(name: str) -> None:
    """On average, as the jitter is full: half of it."""
    throttled, *_ = CALLS[name]["Retry"]

    assert throttled["ErrorEquals"] == [THROTTLED]
    assert throttled["JitterStrategy"] == "FULL"
    assert patience_seconds(throttled) / 2 >= 2700


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("Prepare", 120),  # up to here nothing is paid: whoever dropped the files is told soon
        ("Submit", 120),
        ("Deliver", 1800),  # the video is paid for: half an hour for the servers on both sides
        ("Announce", 600),  # what gives up ends as failed: conclude is told, and announces it
        ("Announce failure", 600),
        ("Conclude", 120),  # the same: conclude is told of it by EventBridge, then by the sweep
    ],
)
def test_a_step_has_patience_with_passing_faults(name: str, seconds: float) -> None:
    retrier = TASKS[name]["Retry"][-1]

    assert patience_seconds(retrier) >= seconds
    assert retrier["BackoffRate"] >= 2  # few tries for all that time
    assert retrier["JitterStrategy"] == "FULL"


def patience_seconds(retrier: dict[str, float]) -> float:
    """At most."""
    return sum(
        min(
            retrier["IntervalSeconds"] * retrier["BackoffRate"] ** retry, retrier["MaxDelaySeconds"]
        )
        for retry in range(int(retrier["MaxAttempts"]))
    )


def test_each_name_that_is_retried_is_one_that_can_be_raised() -> None:
    python = {
        name
        for module in (errors, delivery, bus, tokens, botocore.exceptions, parameters)
        for name, it in vars(module).items()
        if isinstance(it, type) and issubclass(it, Exception)
    }
    of_aws = modelled("dynamodb") | modelled("s3")
    of_aws |= OF_LAMBDA | OF_A_KILLED_FUNCTION | OF_A_DEPLOY
    known = python | of_aws | {"States.TaskFailed", "Runtime.HandlerError", THROTTLED}
    named = {
        name
        for task in TASKS.values()
        for retrier in task["Retry"]
        for name in retrier["ErrorEquals"]
    }

    assert named - known == set()


@pytest.mark.parametrize("name", ["Deliver", "Announce", "Conclude", "Announce failure"])
def test_nothing_that_follows_the_payment_gives_up_at_once(name: str) -> None:
    assert {"States.TaskFailed", "States.Timeout"} <= set(retried(TASKS[name]))


def test_a_refused_result_is_not_fetched_again() -> None:
    _, first, _ = CALLS["Deliver"]["Retry"]

    assert first["MaxAttempts"] == 0
    assert "ResultRefused" in first["ErrorEquals"]
    assert "RequestForgotten" not in first["ErrorEquals"]  # one 404 may be a mishap


def test_no_refusal_is_retried_by_its_name() -> None:
    ours = {error.__name__ for error in DropreelError.__subclasses__()}

    assert not {name for task in TASKS.values() for name in retried(task)} & ours


# Time


@pytest.mark.parametrize("name", CALLS)
def test_a_step_outlives_its_function(name: str) -> None:
    function = CALLS[name]["Arguments"]["FunctionName"].strip("${}")
    machine = of_type("AWS::Serverless::StateMachine")["RenderStateMachine"]
    resource = machine["DefinitionSubstitutions"][function]["GetAtt"].removesuffix(".Arn")

    assert resource == function.removesuffix("Arn") == f"{name}Function"
    assert CALLS[name]["TimeoutSeconds"] > timeout_seconds(resource)


# The way


def test_one_catch_is_around_everything() -> None:
    (catch,) = RENDER["Catch"]
    assert (catch["ErrorEquals"], catch["Next"]) == (["States.ALL"], "Conclude")
    assert not [name for name, state in INNER.items() if "Catch" in state]


def test_an_execution_is_ours_only_under_the_name_of_its_job_and_run() -> None:
    """By the expression itself, in the interpreter that the embedded AWS has."""
    (choice,) = OUTER["Is it ours?"]["Choices"]
    digest = "0123456789abcdef"
    given: list[dict[str, Any]] = [
        {"id": f"{slug}-{digest}", **run}
        for slug in ("a", "anna", "x" * 47, "y" * 58, "z" * 63)
        for run in ({}, {"run": 1}, {"run": 2}, {"run": 10}, {"run": 12345})
    ]
    names = [execution_name(one["id"], one.get("run", 1)) for one in given]
    cases = [
        (one, called, called == name)
        for one, name in zip(given, names, strict=True)
        for called in (name, f"{name}-r2", "by-hand", one["id"] + "x")
    ]
    cases += [({}, "anna", False), ({"run": 2}, "-r2", False)]

    answers = subprocess.run(
        [
            str(ENVIRONMENTS / "aws/bin/python"),
            "-c",
            "import json, sys, jsonata\n"
            "ask, cases = json.load(sys.stdin)\n"
            "def judge(given, name):\n"
            "    asked = jsonata.Jsonata(ask)\n"
            "    context = {'Execution': {'Name': name}}\n"
            "    asked.assign('states', {'input': given, 'context': context})\n"
            "    return asked.evaluate(None)\n"
            "print(json.dumps([judge(given, name) for given, name, _ in cases]))",
        ],
        input=json.dumps([choice["Condition"].strip("{% }"), cases]),
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(answers.stdout) == [is_ours for _, _, is_ours in cases]


# The data


def test_the_first_attempt_is_the_one_that_prepare_counted() -> None:
    (following,) = expressions(INNER["Prepare"]["Assign"]["next"])

    assert following.strip() == '{"attempt": $states.result.Payload.first_attempt}'
    assert "attempt" in NextAttempt.model_fields


def test_a_job_that_waits_for_a_slot_costs_nothing_and_outlasts_its_wait() -> None:
    assert INNER["Admit"]["Resource"].endswith(":states:::lambda:invoke.waitForTaskToken")
    assert INNER["Admit"]["TimeoutSeconds"] == DEFINITION["TimeoutSeconds"]
    assert "HeartbeatSeconds" not in INNER["Admit"]


def test_a_video_found_after_a_failure_is_announced_like_any_other() -> None:
    # What follows takes the first of a list, as a Parallel's result is one.
    assert OUTER["It is"]["Output"] == "{% [$states.input] %}"
    assert "video" in VideoReady.model_fields
    assert "video" not in VideoFailed.model_fields


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("Admit", AdmitRequest),
        ("Submit", SubmitRequest),
        ("Poll", ActiveRender),
        ("Deliver", ActiveRender),
    ],
)
def test_a_function_is_given_the_fields_of_its_model(task: str, model: type[BaseModel]) -> None:
    given = keys(CALLS[task]["Arguments"]["Payload"])
    required = {name for name, field in model.model_fields.items() if field.is_required()}

    assert required <= given <= set(model.model_fields)


def test_conclude_is_given_the_job_the_error_and_the_run() -> None:
    (catch,) = RENDER["Catch"]
    (output,) = expressions(catch["Output"])

    assert re.sub(r"\s", "", output) == (
        '{"job":$states.context.Execution.Input,"error":$states.errorOutput,'
        '"execution":$states.context.Execution.Id,"started_at":$states.context.Execution.StartTime}'
    )
    assert keys(output) == set(FailedRun.model_fields)


ANSWERS: dict[str, type[BaseModel]] = {
    "Prepare": Plan,
    "Submit": Submission,
    "Poll": Progress,
}
VARIABLES: dict[str, type[BaseModel] | None] = {
    "plan": Plan,
    "submission": Submission,
    "progress": Progress,
    "next": None,
    "wait_seconds": None,
}
OF_JSONATA = {"states", "type"}


@pytest.mark.parametrize("task", ANSWERS)
def test_each_field_that_is_read_of_an_answer_is_in_its_model(task: str) -> None:
    read = {
        field
        for text in expressions(INNER[task]["Assign"])
        for field in re.findall(r"\$states\.result\.Payload\.(\w+)", text)
    }

    assert read <= set(ANSWERS[task].model_fields)


def test_each_field_that_is_read_of_a_variable_is_in_its_model() -> None:
    read = [
        pair
        for name, state in STATES.items()
        if name != "Is it ours?"  # it has variables of its own
        for text in expressions(state)
        for pair in re.findall(r"\$(\w+)(?:\.(\w+))?", text)
    ]
    ours = [(name, field) for name, field in read if name not in OF_JSONATA]

    assert {name for name, _ in ours} == set(VARIABLES)
    for name, field in ours:
        model = VARIABLES[name]
        assert not field or (model and field in model.model_fields), f"${name}.{field}"
