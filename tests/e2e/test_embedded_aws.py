"""What `local/corrected_ministack.py` puts right: AWS's documented behaviour, with functions of a
few lines and nothing of Dropreel's."""

import io
import json
import subprocess
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local import embedded
from local.embedded import ENVIRONMENTS, PROJECT, Environment, Home
from tests.e2e.conftest import until
from tests.support.memory import environments_of

CONCURRENCY = 2
MAX_ENVIRONMENTS = 3

State = dict[str, Any]


@dataclass
class Account:
    """An AWS account with nothing of ours in it."""

    environment: Environment
    home: Home
    role: str = ""

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3's clients are of no common type
        return embedded.client(self.environment, service)

    def make_role(self) -> None:
        trust = {"Version": "2012-10-17", "Statement": []}
        made = self.client("iam").create_role(
            RoleName="all", AssumeRolePolicyDocument=json.dumps(trust)
        )
        self.role = made["Role"]["Arn"]

    def function(self, name: str, code: str, layers: tuple[str, ...] = ()) -> str:
        arn: str = self.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.13",
            Handler="app.handler",
            Role=self.role,
            Code={"ZipFile": zipped("app.py", code)},
            Layers=layers,
        )["FunctionArn"]
        return arn

    def call(self, name: str, **event: object) -> Any:  # noqa: ANN401 - what the function returns
        answer = self.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
        return json.load(answer["Payload"])

    def alias(self, name: str, **settings: object) -> str:
        """The ARN of an alias `live`, with settings of its asynchronous calls."""
        functions = self.client("lambda")
        version = functions.publish_version(FunctionName=name)["Version"]
        made = functions.create_alias(FunctionName=name, Name="live", FunctionVersion=version)
        functions.put_function_event_invoke_config(FunctionName=name, Qualifier="live", **settings)
        arn: str = made["AliasArn"]
        return arn

    def queue(self, name: str) -> tuple[str, str]:
        """The URL and the ARN of a new queue."""
        sqs = self.client("sqs")
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return url, found["Attributes"]["QueueArn"]

    def log(self, name: str, words: str) -> list[str]:
        """The lines of a function that has ended, if they have the words."""
        logs = self.client("logs")
        try:
            found = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [event["message"] for event in found if words in event["message"]]

    def layer(self, code: str) -> str:
        """The ARN of a new version of the layer, with a module named `shared`."""
        arn: str = self.client("lambda").publish_layer_version(
            LayerName="shared", Content={"ZipFile": zipped("python/shared.py", code)}
        )["LayerVersionArn"]
        return arn

    def run(self, name: str, states: dict[str, State]) -> Any:  # noqa: ANN401 - the output
        """Run a state machine that begins with the first state."""
        definition = {"StartAt": next(iter(states)), "States": states}
        machines = self.client("stepfunctions")
        machine = machines.create_state_machine(
            name=name, roleArn=self.role, definition=json.dumps(definition)
        )["stateMachineArn"]
        execution = machines.start_execution(stateMachineArn=machine, input="{}")["executionArn"]

        def ended() -> Any:  # noqa: ANN401
            now = machines.describe_execution(executionArn=execution)
            return None if now["status"] == "RUNNING" else now

        return json.loads(until(ended, f"the end of {name}")["output"])


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    home = Home(embedded.OUT / "corrected")
    embedded.down(home)
    try:
        settings = {
            "LAMBDA_ACCOUNT_CONCURRENCY": str(CONCURRENCY),
            "LAMBDA_MAX_ENVIRONMENTS": str(MAX_ENVIRONMENTS),
        }
        account = Account(embedded.start_ministack(home, settings), home)
        embedded.wait_for_ministack(home, account.environment)
        account.make_role()
        yield account
    finally:
        embedded.down(home)


def zipped(name: str, content: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def task(function: str, **more: object) -> State:
    return {"Type": "Task", "Resource": function, "End": True, **more}


def test_retry_and_catch_see_the_class_of_the_exception(account: Account) -> None:
    function = account.function(
        "fails",
        """
class Busy(Exception): ...
class Broken(Exception): ...

def handler(event, context):
    raise Broken("two lines:\\nerrorType=Other not it") if event["retries"] else Busy
""",
    )

    caught = account.run(
        "by-class",
        {
            "Call": task(
                function,
                Parameters={"retries.$": "$$.State.RetryCount"},
                Retry=[{"ErrorEquals": ["Busy"], "IntervalSeconds": 1, "MaxAttempts": 1}],
                Catch=[{"ErrorEquals": ["Broken"], "Next": "Caught"}],
            ),
            "Caught": {"Type": "Succeed"},
        },
    )

    assert caught["Error"] == "Broken"
    assert json.loads(caught["Cause"])["errorMessage"] == "two lines:\nerrorType=Other not it"


def test_an_environment_goes_on_after_an_exception(account: Account) -> None:
    code = """
import os

def handler(event, context):
    if event["raises"]:
        raise ValueError
    return os.getpid()
"""
    account.function("survives", code)

    first = account.call("survives", raises=False)
    failed = account.call("survives", raises=True)

    assert failed["errorType"] == "ValueError"
    assert account.call("survives", raises=False) == first


@pytest.mark.parametrize(
    ("name", "code", "error", "message"),
    [
        (
            "missing",
            "import nothing_of_this_name",
            "Runtime.ImportModuleError",
            "Unable to import module 'app': No module named 'nothing_of_this_name'",
        ),
        ("raising", "raise ValueError('no settings')", "ValueError", "no settings"),
    ],
)
def test_a_module_that_cannot_be_imported(
    account: Account, name: str, code: str, error: str, message: str
) -> None:
    function = account.function(name, code)

    answer = account.call(function)

    assert (answer["errorType"], answer["errorMessage"]) == (error, message)


def test_an_import_error_of_the_handler_keeps_its_class(account: Account) -> None:
    account.function("imports", "def handler(event, context): import nothing_of_this_name")

    assert account.call("imports")["errorType"] == "ModuleNotFoundError"


def test_a_task_with_a_token_fails_when_its_function_fails(account: Account) -> None:
    account.function("loses-token", "def handler(event, context): raise ValueError('no')")
    arguments = {"FunctionName": "loses-token", "Payload": {"token.$": "$$.Task.Token"}}

    caught = account.run(
        "with-token",
        {
            "Call": task(
                "arn:aws:states:::lambda:invoke.waitForTaskToken",
                Parameters=arguments,
                Catch=[{"ErrorEquals": ["ValueError"], "Next": "Caught"}],
            ),
            "Caught": {"Type": "Succeed"},
        },
    )

    assert caught["Error"] == "ValueError"


def test_a_throttled_call_says_so_to_the_state_machine(account: Account) -> None:
    function = account.function(
        "slow",
        """
import time

def handler(event, context):
    time.sleep(1)
    return {"Error": None}
""",
    )
    throttled = ["Lambda.TooManyRequestsException"]
    one = {
        "StartAt": "Call",
        "States": {
            "Call": task(function, Catch=[{"ErrorEquals": throttled, "Next": "Caught"}]),
            "Caught": {"Type": "Succeed"},
        },
    }

    results = account.run(
        "at-once", {"All": {"Type": "Parallel", "Branches": [one] * (CONCURRENCY + 1), "End": True}}
    )

    errors = [result["Error"] for result in results]
    assert sorted(errors, key=str) == throttled + [None] * CONCURRENCY


BUSY = """
import os, time

def handler(event, context):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not os.path.exists(event["until"]):
        time.sleep(0.1)
"""


@contextmanager
def occupied(account: Account, name: str, end: Path) -> Iterator[None]:
    """Calls of a function use up the concurrency meanwhile."""
    account.function(name, BUSY)
    event = json.dumps({"until": str(end)})
    for _ in range(CONCURRENCY):
        account.client("lambda").invoke(FunctionName=name, InvocationType="Event", Payload=event)
    probe = account.function(f"probe-{name}", "def handler(event, context): ...")

    def is_throttled() -> bool:
        try:
            account.call(probe)
        except ClientError as error:
            return error.response["Error"]["Code"] == "TooManyRequestsException"
        return False

    until(is_throttled, "the end of the free concurrency")
    try:
        yield
    finally:
        end.touch()


def test_an_asynchronous_call_that_is_throttled_is_queued(account: Account, tmp_path: Path) -> None:
    function = account.function("queued", "def handler(event, context): print('ran')")
    alias = account.alias("queued", MaximumRetryAttempts=0)

    with occupied(account, "busy-for-calls", tmp_path / "end"):
        account.client("lambda").invoke(FunctionName=alias, InvocationType="Event")

    assert until(lambda: account.log("queued", "ran"), f"the call of {function}")


def test_a_batch_that_is_throttled_is_tried_again_before_it_is_received_again(
    account: Account, tmp_path: Path
) -> None:
    code = """
def handler(event, context):
    print("receive", event["Records"][0]["attributes"]["ApproximateReceiveCount"])
"""
    function = account.function("consumer", code)
    url, arn = account.queue("throttled")
    mapped = {"FunctionName": function, "EventSourceArn": arn}

    with occupied(account, "busy-for-batches", tmp_path / "end"):
        account.client("lambda").create_event_source_mapping(**mapped)
        account.client("sqs").send_message(QueueUrl=url, MessageBody="{}")
        time.sleep(1)  # so that the batch is throttled

    assert until(lambda: account.log("consumer", "receive"), "the batch") == ["receive 1"]


def test_a_rules_failed_call_goes_to_the_failure_destination_of_the_alias(
    account: Account,
) -> None:
    account.function("refuses", "def handler(event, context): raise ValueError('no')")
    url, arn = account.queue("failures")
    destination = {"OnFailure": {"Destination": arn}}
    alias = account.alias("refuses", MaximumRetryAttempts=0, DestinationConfig=destination)
    events = account.client("events")
    events.put_rule(Name="calls", EventPattern=json.dumps({"source": ["test"]}))
    events.put_targets(Rule="calls", Targets=[{"Id": "function", "Arn": alias}])

    events.put_events(Entries=[{"Source": "test", "DetailType": "now", "Detail": "{}"}])

    def failure() -> Any:  # noqa: ANN401
        received = account.client("sqs").receive_message(QueueUrl=url, WaitTimeSeconds=1)
        return received.get("Messages")

    (message,) = until(failure, "the failure")
    assert json.loads(message["Body"])["requestPayload"]["source"] == "test"


def test_a_new_environment_ends_the_one_that_was_idle_longest(account: Account) -> None:
    code = "import os\n\ndef handler(event, context): return os.getpid()"
    names = [f"numbered-{number}" for number in range(MAX_ENVIRONMENTS + 1)]
    for name in names:
        account.function(name, code)

    first, *_, last = [account.call(name) for name in names]

    assert environments_of(account.home) == MAX_ENVIRONMENTS
    assert account.call(names[-1]) == last
    assert account.call(names[0]) != first


def test_all_environments_share_the_files_of_a_layer(account: Account) -> None:
    code = """
import os
import shared

def handler(event, context):
    return [shared.NUMBER, os.stat(shared.__file__).st_ino]
"""
    first, second = account.layer("NUMBER = 1"), account.layer("NUMBER = 2")
    versions = {"one": first, "other": first, "later": second}
    for name, layer in versions.items():
        account.function(name, code, layers=(layer,))

    with ThreadPoolExecutor(CONCURRENCY) as at_once:
        (number, file), (other_number, other_file) = at_once.map(account.call, ["one", "other"])
    later_number, later_file = account.call("later")

    assert (number, other_number, later_number) == (1, 1, 2)
    assert file == other_file != later_file


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("m.VERSION = '1.0'", "this is 1.5.33"),
        ("m.stepfunctions._call_lambda = lambda event: None", "_call_lambda is (event)"),
        ("m.lambda_runtime._PYTHON_WORKER_SCRIPT = ''", "Python worker does not have"),
    ],
)
def test_another_ministack_does_not_start(change: str, words: str) -> None:
    code = f"import local.corrected_ministack as m; {change}; m.correct()"

    ended = subprocess.run(
        [str(ENVIRONMENTS / "aws/bin/python"), "-c", code],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert words in ended.stderr


def test_a_retry_waits_as_long_as_the_definition_says() -> None:
    code = """
import local.corrected_ministack as m
m.correct()

def wait(times, **more):
    retrier = {"ErrorEquals": ["States.ALL"], "MaxAttempts": 3000, "IntervalSeconds": 3, **more}
    found, place = m.stepfunctions._find_matching_retrier([retrier], "Busy", {0: times})
    assert place == 0 and found["ErrorEquals"] == ["States.ALL"]
    return found["IntervalSeconds"] * found["BackoffRate"] ** times

assert [wait(times, BackoffRate=1.5) for times in (0, 1, 2)] == [3, 4.5, 6.75]
assert wait(0) == 3 and wait(1) == 6
assert wait(2999, MaxDelaySeconds=600) == 600
spread = [wait(2, BackoffRate=1.5, JitterStrategy="FULL") for _ in range(200)]
assert 0 <= min(spread) < 2 and 5 < max(spread) <= 6.75
assert m.stepfunctions._find_matching_retrier([], "Busy", {}) == (None, -1)
"""

    ended = subprocess.run(
        [str(ENVIRONMENTS / "aws/bin/python"), "-c", code],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr


def test_a_session_token_is_as_long_as_in_lambda_and_counts() -> None:
    code = """
import os
os.environ["AUTH"] = "true"
from urllib.parse import quote
import local.corrected_ministack as m
from ministack.core.iam_evaluator import ResolvedCredential, resolve_credential
m.correct()
config = {
    "FunctionArn": "arn:aws:lambda:eu-central-1:000000000000:function:submit",
    "FunctionName": "submit",
    "Role": "arn:aws:iam::000000000000:role/submit",
}
given = m.lambda_runtime.execution_credentials(config)
assert given == m.lambda_runtime.execution_credentials(config)
key, token = given["AWS_ACCESS_KEY_ID"], given["AWS_SESSION_TOKEN"]
assert len(quote(token, safe="")) == 1400
found = resolve_credential(key, "000000000000", token)
assert isinstance(found, ResolvedCredential), found
assert found.secret_access_key == given["AWS_SECRET_ACCESS_KEY"]
assert found.principal_arn.endswith(":assumed-role/submit/submit")
assert not isinstance(resolve_credential(key, "000000000000", token[:64]), ResolvedCredential)
"""

    ended = subprocess.run(
        [str(ENVIRONMENTS / "aws/bin/python"), "-c", code],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
