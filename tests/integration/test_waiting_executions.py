"""Executions that wait with a task token: answered, and looked for, through Step Functions' API.

moto runs no states, so that it gives no task tokens away: callbacks go to botocore's stub, which
holds their parameters against AWS's model.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber
from moto import mock_aws

from dropreel.aws.task_tokens import WaitingExecutions
from dropreel.model.errors import (
    DropreelError,
    InputRejected,
    PriceUnknown,
    Reason,
    SpendLimitReached,
)
from dropreel.outcome.conclusion import StepError
from tests.support.render_fakes import ENVIRONMENT, JOB

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient
    from mypy_boto3_stepfunctions.literals import ExecutionStatusType

STATE_MACHINE = ENVIRONMENT["STATE_MACHINE_ARN"]
EXECUTION = (
    "arn:aws:states:eu-central-1:123456789012:execution:dropreel-render:anna-0123456789abcdef"
)
TOKEN = "AQCEAAAAKgAAAAMAAAAAAAAAAe+/=="
SPENT = SpendLimitReached("Today's limit of 7.50 USD leaves no room for 0.12 USD.")

Give = Callable[[WaitingExecutions], bool]


EACH_ANSWER = pytest.mark.parametrize(
    ("give", "operation"),
    [
        (lambda executions: executions.go_on(TOKEN), "send_task_success"),
        (lambda executions: executions.refuse(TOKEN, SPENT), "send_task_failure"),
    ],
    ids=["go on", "refuse"],
)


@pytest.fixture
def client() -> "SFNClient":
    return boto3.client("stepfunctions")


@pytest.fixture
def stub(client: "SFNClient") -> Iterator[Stubber]:
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


@pytest.fixture
def executions(client: "SFNClient") -> WaitingExecutions:
    return WaitingExecutions(STATE_MACHINE, client)


# Answering


def test_admitted_run_goes_on_by_its_token(stub: Stubber, executions: WaitingExecutions) -> None:
    stub.add_response("send_task_success", {}, {"taskToken": TOKEN, "output": "{}"})

    assert executions.go_on(TOKEN)


@pytest.mark.parametrize(
    "error",
    [
        SPENT,
        PriceUnknown('Nobody has said what "wan-3" costs at 480p: 李娜, é, \\ and {"a": 1}.'),
        InputRejected((Reason(file="inbox/a.png", rule="a PNG", found="text", cure="save it"),)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_refused_run_fails_with_an_error_that_conclude_reads(
    error: DropreelError,
    stub: Stubber,
    executions: WaitingExecutions,
    client: "SFNClient",
) -> None:
    sent: list[dict[str, str]] = []
    client.meta.events.register(
        "before-parameter-build.stepfunctions.SendTaskFailure",
        lambda params, **_: sent.append(params),
    )
    expected = {"taskToken": TOKEN, "error": "FinalAnswer", "cause": ANY}
    stub.add_response("send_task_failure", {}, expected)

    assert executions.refuse(TOKEN, error)

    [failure] = sent
    caught = StepError.model_validate({"Error": failure["error"], "Cause": failure["cause"]})
    assert caught.report == error.report


@EACH_ANSWER
@pytest.mark.parametrize("gone", ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"])
def test_token_that_nobody_waits_with_is_no_error(
    give: Give, operation: str, gone: str, stub: Stubber, executions: WaitingExecutions
) -> None:
    stub.add_client_error(operation, gone)

    assert give(executions) is False


@EACH_ANSWER
@pytest.mark.parametrize(
    "code", ["ThrottlingException", "AccessDeniedException", "KmsThrottlingException"]
)
def test_answer_that_may_not_have_arrived_raises(
    give: Give, operation: str, code: str, stub: Stubber, executions: WaitingExecutions
) -> None:
    stub.add_client_error(operation, code)

    with pytest.raises(ClientError, match=code):
        give(executions)


# Looking whether it runs


@pytest.mark.parametrize(
    ("status", "runs"),
    [
        ("RUNNING", True),
        ("PENDING_REDRIVE", True),
        ("SUCCEEDED", False),
        ("FAILED", False),
        ("TIMED_OUT", False),
        ("ABORTED", False),
    ],
)
def test_execution_runs_until_it_has_ended_for_good(
    status: "ExecutionStatusType", runs: bool, stub: Stubber, executions: WaitingExecutions
) -> None:
    described: dict[str, Any] = {
        "executionArn": EXECUTION,
        "stateMachineArn": STATE_MACHINE,
        "status": status,
        "startDate": datetime(2026, 11, 20, tzinfo=UTC),
    }
    stub.add_response("describe_execution", described, {"executionArn": EXECUTION})

    assert executions.is_running(JOB.execution_name) is runs


def test_execution_that_aws_does_not_describe_is_not_taken_for_gone(
    stub: Stubber, executions: WaitingExecutions
) -> None:
    """Its slot would be given to another while it renders."""
    stub.add_client_error("describe_execution", "ThrottlingException")

    with pytest.raises(ClientError, match="ThrottlingException"):
        executions.is_running(JOB.execution_name)


def test_execution_runs_from_its_start_until_it_is_stopped() -> None:
    with mock_aws():
        client = boto3.client("stepfunctions")
        role = "arn:aws:iam::123456789012:role/render"
        client.create_state_machine(name="dropreel-render", definition="{}", roleArn=role)
        executions, name = WaitingExecutions(STATE_MACHINE), JOB.execution_name
        assert not executions.is_running(name)

        started = client.start_execution(stateMachineArn=STATE_MACHINE, name=name)
        assert started["executionArn"] == EXECUTION
        assert executions.is_running(name)

        client.stop_execution(executionArn=EXECUTION)
        assert not executions.is_running(name)
