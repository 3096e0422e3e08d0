"""A second engine for the state machine: moto's, which is LocalStack's interpreter.

It runs the real definition on one machine. The expressions are evaluated by jsonata-python. Scripts
replace the functions' work, inside the functions' own decorators. `follow_aws` lists what is put
right where the engine differs from AWS.
"""

import ast
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import import_module
from threading import Event
from types import SimpleNamespace
from typing import Any, Protocol

import boto3
import jsonata
import pytest
import yaml
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core.config import DefaultConfig
from moto.core.responses import EmptyResult
from moto.stepfunctions.parser.asl.component.common.error_name.error_equals_decl import (
    ErrorEqualsDecl,
)
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.common.string.string_expression import StringJSONata
from moto.stepfunctions.parser.asl.component.eval_component import EvalComponent
from moto.stepfunctions.parser.asl.component.state.exec.state_parallel import branches_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import (
    WaitFunction,
)
from moto.stepfunctions.parser.asl.jsonata import jsonata as engine_jsonata
from moto.stepfunctions.parser.asl.jsonata.validations import validate_jsonata_expression_output
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.responses import StepFunctionResponse
from pydantic import BaseModel

from dropreel.runtime.step import Handler
from local.embedded import PROJECT
from tests.support.sam_template import of_type

FUNCTIONS = "arn:aws:lambda:eu-central-1:123456789012:function:"
MAX_SECONDS = 20
"""An execution that is not over by then hangs."""


class PlatformError(Exception):
    """A call that Step Functions or Lambda ends, not the function."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _lambda_refuses(code: str) -> PlatformError:
    metadata = {"HTTPStatusCode": 500, "RequestId": "call"}
    response = {"Error": {"Code": code, "Message": "Later."}, "ResponseMetadata": metadata}
    return PlatformError(ClientError(response, "Invoke"))  # type: ignore[arg-type]


def _lambda_reports(name: str, message: str) -> Exception:
    payload = json.dumps({"errorType": name, "errorMessage": message})
    error: Exception = lambda_eval_utils.LambdaFunctionErrorException("Unhandled", payload)
    return error


THROTTLED = _lambda_refuses("TooManyRequestsException")
LOST = _lambda_refuses("ServiceException")
KILLED = PlatformError(_lambda_reports("Sandbox.Timedout", "Task timed out."))
TIMED_OUT = PlatformError(TimeoutError())  # the engine's name for it is States.Timeout
NO_LAYER = PlatformError(_lambda_reports("Runtime.ImportModuleError", "Unable to import module"))


class Script(Protocol):
    """Takes the place of the functions' work."""

    def answer(self, step: str, event: Any, request: Any) -> BaseModel | None: ...  # noqa: ANN401


@dataclass
class Waits:
    """How long an execution would have waited, in seconds."""

    states: list[int] = field(default_factory=list)
    retries: list[float] = field(default_factory=list)

    def clear(self) -> None:
        self.states.clear()
        self.retries.clear()


class Context(LambdaContext):
    _function_name = "step"
    _memory_limit_in_mb = 512
    _invoked_function_arn = f"{FUNCTIONS}step"
    _aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"


class SecondEngine:
    """Runs one execution after the other, each on a machine of its own."""

    def __init__(self, definition: str) -> None:
        self._definition = definition
        self._machines = 0
        self.client = boto3.client("stepfunctions")
        self.script: Script | None = None
        self.waits = Waits()
        self.is_over = Event()

    def create_machine(self) -> str:
        self._machines += 1
        self.waits.clear()
        self.is_over.clear()
        machine = self.client.create_state_machine(
            name=f"render-{self._machines}",
            definition=self._definition,
            roleArn="arn:aws:iam::123456789012:role/render",
        )
        return machine["stateMachineArn"]

    def wait_for_end(self, execution: str) -> dict[str, Any]:
        if not self.is_over.wait(MAX_SECONDS):
            raise TimeoutError(execution)
        return dict(self.client.describe_execution(executionArn=execution))

    def invoke(self, parameters: dict[str, Any], **_: object) -> dict[str, Any]:
        """A call of a function, as Lambda answers it."""
        step = parameters["FunctionName"].removeprefix(FUNCTIONS)
        event = json.loads(parameters["Payload"])
        assert self.script

        def work(request: object, context: LambdaContext) -> BaseModel | None:
            assert self.script
            return self.script.answer(step, event, request)

        handler: Handler = decorator_of(step)(work)
        try:
            return {"Payload": handler(event, Context())}
        except PlatformError as ended:
            raise ended.error from None
        except Exception as error:
            raise _lambda_reports(type(error).__name__, str(error)) from None


@contextmanager
def second_engine(definition: str | None = None) -> Iterator[SecondEngine]:
    config: DefaultConfig = {"stepfunctions": {"execute_state_machine": True}}
    with mock_aws(config=config), pytest.MonkeyPatch.context() as patch:
        engine = SecondEngine(definition or real_definition())
        patch.setattr(lambda_eval_utils, "_invoke_lambda_function", engine.invoke)
        skip_waits(engine, patch)
        follow_aws(patch)
        end = BaseExecutionWorkerCommunication.terminated

        def terminated(execution: BaseExecutionWorkerCommunication) -> None:
            end(execution)
            engine.is_over.set()

        patch.setattr(BaseExecutionWorkerCommunication, "terminated", terminated)
        # Parsing takes a tenth of a second. The repr of a failed state, which it logs, is longer.
        patch.setattr(AmazonStateLanguageParser, "parse", cache(AmazonStateLanguageParser.parse))
        for log in ("_log_failure_event_exception", "_log_exception"):
            patch.setattr(EvalComponent, log, lambda *_, **__: None)
        yield engine


def real_definition() -> str:
    """The definition as `sam deploy` sends it."""
    machine = of_type("AWS::Serverless::StateMachine")["RenderStateMachine"]

    def substituted(name: re.Match[str]) -> str:
        ((how, what),) = machine["DefinitionSubstitutions"][name[1]].items()
        if (how, what) == ("Ref", "AWS::Partition"):
            return "aws"
        assert (how, str(what).endswith("Function.Alias")) == ("Ref", True)
        return FUNCTIONS + str(what).removesuffix("Function.Alias")

    text = (PROJECT / machine["DefinitionUri"]).read_text()
    return json.dumps(yaml.safe_load(re.sub(r"\${(\w+)}", substituted, text)))


@cache
def decorator_of(step: str) -> Any:  # noqa: ANN401 - what `dropreel.runtime.step.step` returns
    """The decorator of a function's handler: how it reads its event, and which errors are final."""
    tree = ast.parse((PROJECT / "functions" / step.lower() / "app.py").read_text())
    (handler,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    (decorator,) = handler.decorator_list
    assert isinstance(decorator, ast.Call)
    decorator.keywords = [one for one in decorator.keywords if one.arg != "done"]  # a log line
    used = {node.id for node in ast.walk(decorator) if isinstance(node, ast.Name)}
    names = {
        name.name: getattr(import_module(node.module), name.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
        if name.name in used
    }
    return eval(ast.unparse(decorator), names)


def skip_waits(engine: SecondEngine, patch: pytest.MonkeyPatch) -> None:
    """Let every wait pass at once, of a Wait state and before a retry, and note it."""

    def wait(_: object, env: object, wait_seconds: int) -> None:
        engine.waits.states.append(wait_seconds)

    patch.setattr(WaitFunction, "_wait_interval", wait)
    # A module's name for `time`, of which it uses nothing but `sleep`.
    patch.setattr(retrier_decl, "time", SimpleNamespace(sleep=engine.waits.retries.append))


def follow_aws(patch: pytest.MonkeyPatch) -> None:
    """Put right what differs from AWS's documentation."""
    # It has no JSONata.
    patch.setattr(StringJSONata, "_eval_body", _evaluate)
    patch.setattr(
        engine_jsonata, "_eval_jsonata", lambda text: jsonata.Jsonata(text).evaluate(None)
    )
    # `States.TaskFailed` matches only names that do not begin with `States.`, and `States.ALL`
    # matches what AWS lets nothing catch.
    patch.setattr(ErrorEqualsDecl, "_eval_body", _match_error)
    # A branch that fails with an error that begins with `States.` breaks the engine.
    patch.setattr(branches_decl, "CustomErrorName", ErrorName)
    # `SendTaskFailure` loses the cause.
    patch.setattr(StepFunctionResponse, "send_task_failure", _fail_task)
    # The context object lacks `Execution.RedriveCount`.
    make = ExecutionWorker._get_evaluation_environment

    def environment(worker: ExecutionWorker) -> Any:  # noqa: ANN401 - the engine's
        env = make(worker)
        execution = env.states.context_object.context_object_data["Execution"]
        execution["RedriveCount"] = 0  # type: ignore[typeddict-unknown-key]
        return env

    patch.setattr(ExecutionWorker, "_get_evaluation_environment", environment)


def _evaluate(of: StringJSONata, env: Any) -> None:  # noqa: ANN401 - the engine's
    """AWS fails an expression that breaks or has no result with `States.QueryEvaluationError`."""
    expression = _parsed(of.expression)
    frame = expression.create_frame()
    variables = env.variable_store._outer_scope | env.variable_store._inner_scope
    for name, value in {**variables, "states": env.states._states_data}.items():
        frame.bind(name, _for_jsonata(value))
    try:
        env.stack.append(expression.evaluate(None, frame)["result"])
    except (jsonata.jexception.JException, KeyError):
        validate_jsonata_expression_output(env, of.expression, "$nothing", None)  # type: ignore[arg-type]


@cache
def _parsed(expression: str) -> jsonata.Jsonata:
    """In an object, a result that is null differs from none."""
    return jsonata.Jsonata(f'{{"result": ({expression})}}')


def _for_jsonata(value: object) -> object:
    """Its None is what is missing; a null is a value of its own."""
    match value:
        case None:
            return jsonata.utils.Utils.NULL_VALUE
        case dict():
            return {name: _for_jsonata(part) for name, part in value.items()}
        case list():
            return [_for_jsonata(part) for part in value]
        case datetime():
            return value.isoformat()
    return value


def _fail_task(request: Any) -> EmptyResult:  # noqa: ANN401 - the engine's
    token, error, cause = (request._get_param(name) for name in ("taskToken", "error", "cause"))
    request.stepfunction_backend.send_task_failure(token, error=error, cause=cause)
    return EmptyResult()


_ENDS_ALWAYS = ("States.DataLimitExceeded", "States.Runtime")


def _match_error(of: ErrorEqualsDecl, env: Any) -> None:  # noqa: ANN401 - the engine's
    """As the page "Handling errors in Step Functions workflows" has it."""
    error = env.stack.pop().error_name
    names = {name.error_name for name in of.error_names}
    is_wildcard = ("States.ALL" in names and error not in _ENDS_ALWAYS) or (
        "States.TaskFailed" in names and error not in (*_ENDS_ALWAYS, "States.Timeout")
    )
    env.stack.append(is_wildcard or error in names)
