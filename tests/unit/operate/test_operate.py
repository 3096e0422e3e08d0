"""The operator's commands: what they ask of AWS, and what they say. Secrets Manager is moto's."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from botocore.stub import Stubber
from moto import mock_aws
from typer.testing import CliRunner, Result

from dropreel.model.closure import AccountState, AskedProvider
from local.embedded import PROJECT
from operate.__main__ import app

TOKEN = "rc-0123456789"
QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/dead"
WATCH = "dropreel-watch:live"
PLAIN = {
    "SweepFunctionName": "dropreel-sweep:live",
    "WatchFunctionName": WATCH,
    "IntakeDeadLettersUrl": QUEUE,
}
COMMANDS = (
    ["token"],
    ["sweep"],
    ["prices"],
    ["providers"],
    ["redrive-uploads"],
    ["purge-uploads"],
    ["rerun", "--failed-since", "1h"],
    ["jobs"],
    ["job", "anna-0123456789abcdef"],
    ["cost"],
)


class Account:
    """Answers as each test says, to what the test expects."""

    def __init__(self) -> None:
        self._real: Callable[..., BaseClient] = boto3.client
        self._clients = {one: self._real(one) for one in ("cloudformation", "lambda", "sqs")}
        self.secrets = boto3.client("secretsmanager")
        self.stubs = {name: Stubber(client) for name, client in self._clients.items()}
        self.configs: dict[str, Config] = {}
        for stub in self.stubs.values():
            stub.activate()

    def client(self, service: str, config: Config) -> BaseClient:
        self.configs[service] = config
        return self._clients.get(service) or self._real(service, config=config)

    def answer(
        self, service: str, operation: str, response: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        self.stubs[service].add_response(operation, response, expected)

    def answer_about(self, *asked: AskedProvider) -> None:
        """As the function watch does."""
        told = json.dumps([it.model_dump(mode="json") for it in asked]).encode()
        call = {"FunctionName": WATCH, "Payload": '{"ask": "providers"}'}
        payload = StreamingBody(BytesIO(told), len(told))
        self.answer("lambda", "invoke", {"Payload": payload}, call)

    def refuse(self, service: str, operation: str, code: str, words: str) -> None:
        self.stubs[service].add_client_error(operation, code, words)

    def deploy(self, outputs: Mapping[str, str], stack: str = "dropreel") -> None:
        described = {
            "StackName": stack,
            "CreationTime": datetime(2026, 11, 20, tzinfo=UTC),
            "StackStatus": "UPDATE_COMPLETE",
            "Outputs": [{"OutputKey": k, "OutputValue": v} for k, v in outputs.items()],
        }
        self.answer(
            "cloudformation", "describe_stacks", {"Stacks": [described]}, {"StackName": stack}
        )

    def deploy_secrets(self, *providers: str, stack: str = "dropreel") -> None:
        arns = {
            f"{one}TokenArn": self.secrets.create_secret(Name=f"{one} of {stack}")["ARN"]
            for one in providers
        }
        self.deploy(PLAIN | arns, stack)

    def stored(self) -> dict[str, str]:
        found = self.secrets.list_secrets()["SecretList"]
        return {
            one["Name"]: self.secrets.get_secret_value(SecretId=one["ARN"])["SecretString"]
            for one in found
            if one.get("SecretVersionsToStages")
        }


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with mock_aws():
        account = Account()
        monkeypatch.setattr(boto3, "client", account.client)
        yield account
        for stub in account.stubs.values():
            stub.assert_no_pending_responses()


def operate(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, arguments, input=typed)


# token

BOTH = ("RunComfy", "WaveSpeed")


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize(
    ("providers", "arguments", "stored"),
    [
        (BOTH, ["--provider", "RunComfy"], "RunComfy"),
        (BOTH, ["--provider", "wavespeed "], "WaveSpeed"),
        (["Other"], [], "Other"),
        (["Other"], ["--provider", ""], "Other"),
    ],
)
def test_a_token_is_stored_and_never_shown(
    account: Account,
    is_terminal: bool,
    providers: list[str],
    arguments: list[str],
    stored: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("operate.__main__.at_terminal", lambda: is_terminal)
    account.deploy_secrets(*providers, stack="my stack")
    account.answer_about(asked("runcomfy"), asked("wavespeed"), asked("Other"))

    said = operate("token", "--stack", "my stack", *arguments, typed=f"  {TOKEN} \r\nmore\n")

    assert said.exit_code == 0, said.output
    assert account.stored() == {f"{stored} of my stack": TOKEN}
    assert said.stdout.splitlines()[-2:] == [
        f"{stored}'s API token is stored.",
        f"{stored} accepts the token.",
    ]
    assert (f"{stored}'s API token: " in said.output) is is_terminal
    assert TOKEN not in said.output + caplog.text


def asked(
    provider: str = "runcomfy", state: AccountState = AccountState.ACCEPTED, **changes: object
) -> AskedProvider:
    given = {"milliseconds": 80, "is_closed": False, "is_on_trial": False} | changes
    return AskedProvider.model_validate({"provider": provider, "state": state} | given)


@pytest.mark.parametrize(
    ("answer", "exit_code", "words"),
    [
        (asked(balance_usd=12.5), 0, "RunComfy accepts the token. Balance: 12.50 USD."),
        (
            asked(is_on_trial=True),
            0,
            "RunComfy accepts the token. It was closed: now it gets one job at a time, and after 5 "
            "minutes all.",
        ),
        (
            asked(state=AccountState.REFUSED, message="RunComfy does not accept the token (401)."),
            1,
            "RunComfy does not accept the token (401).",
        ),
        (
            asked(state=AccountState.NO_CREDIT, message="The balance is 0 USD.", is_closed=True),
            0,
            "The balance is 0 USD. It is closed: its jobs wait.",
        ),
        (
            asked(state=AccountState.UNKNOWN, message="RunComfy gave no answer."),
            0,
            "Whether RunComfy accepts the token is unknown: RunComfy gave no answer.",
        ),
    ],
)
def test_a_stored_token_is_tried_at_once(
    account: Account, answer: AskedProvider, exit_code: int, words: str
) -> None:
    account.deploy_secrets("RunComfy")
    account.answer_about(answer, asked("wavespeed", AccountState.NO_TOKEN))

    said = operate("token", typed=TOKEN)

    assert said.exit_code == exit_code
    assert said.output.splitlines()[-2:] == ["RunComfy's API token is stored.", words]


@pytest.mark.parametrize(("is_closed", "exit_code"), [(True, 1), (False, 0)])
def test_a_person_may_ask_the_providers_without_storing_a_token(
    account: Account, is_closed: bool, exit_code: int
) -> None:
    account.deploy(PLAIN)
    empty = asked(
        state=AccountState.NO_CREDIT, message="RunComfy has no credit.", is_closed=is_closed
    )
    none = asked("wavespeed", AccountState.NO_TOKEN, message="No token is stored for WaveSpeed.")
    account.answer_about(empty, none)

    said = operate("providers")

    waits = " It is closed: its jobs wait." if is_closed else ""
    assert said.exit_code == exit_code
    assert said.stdout.splitlines() == [
        f"RunComfy has no credit.{waits}",
        "No token is stored for WaveSpeed.",
    ]


def test_a_refused_token_is_a_failure_also_before_a_job_closes_the_provider(
    account: Account,
) -> None:
    account.deploy(PLAIN)
    account.answer_about(asked(state=AccountState.REFUSED, message="RunComfy refuses the token."))

    said = operate("providers")

    assert said.exit_code == 1
    assert said.stdout == "RunComfy refuses the token.\n"


def test_a_token_is_stored_also_when_it_cannot_be_tried(account: Account) -> None:
    account.deploy_secrets("RunComfy")
    call = {"FunctionName": WATCH, "Payload": '{"ask": "providers"}'}
    account.answer("lambda", "invoke", {"FunctionError": "Unhandled"}, call)

    said = operate("token", typed=TOKEN)

    assert said.exit_code == 1
    assert account.stored() == {"RunComfy of dropreel": TOKEN}
    assert said.output.splitlines()[-1] == (
        "The providers were not asked (Unhandled): see the log group /aws/lambda/dropreel-watch"
    )


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("typed", ["", "\n", " \t\n", f"{TOKEN} {TOKEN}ü\n", f"{TOKEN}\0\n"])
def test_text_that_is_no_token_is_refused(
    account: Account, is_terminal: bool, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operate.__main__.at_terminal", lambda: is_terminal)
    account.deploy_secrets("RunComfy")

    said = operate("token", typed=typed)

    assert said.exit_code == 1
    assert account.stored() == {}
    assert TOKEN not in said.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Name the provider: PROVIDER= (--provider) is RunComfy or WaveSpeed."),
        (
            ["--provider", "Wave'Speed"],
            "The stack has no token for Wave'Speed: "
            "PROVIDER= (--provider) is RunComfy or WaveSpeed.",
        ),
    ],
)
def test_a_token_without_a_clear_provider_is_refused(
    account: Account, arguments: list[str], words: str
) -> None:
    account.deploy_secrets(*BOTH)

    said = operate("token", *arguments, typed=TOKEN)

    assert (said.exit_code, said.output) == (2, f"{words}\n")


def test_a_token_that_aws_does_not_store_is_not_shown(account: Account) -> None:
    account.deploy({"RunComfyTokenArn": "gone"})

    said = operate("token", typed=TOKEN)

    assert said.exit_code == 1
    assert said.output == "AWS did not store the token (ResourceNotFoundException).\n"


# sweep, redrive-uploads


@pytest.mark.parametrize(
    ("response", "exit_code", "words"),
    [
        ({}, 0, "Started: the sweep checks 120 uploads a minute."),
        (
            {"FunctionError": "Unhandled"},
            1,
            "The sweep failed (Unhandled): see the log group /aws/lambda/dropreel-sweep",
        ),
    ],
)
def test_a_sweep_is_waited_for(
    account: Account, response: dict[str, str], exit_code: int, words: str
) -> None:
    account.deploy(PLAIN)
    account.answer("lambda", "invoke", response, {"FunctionName": "dropreel-sweep:live"})

    said = operate("sweep")

    assert (said.exit_code, said.output) == (exit_code, f"{words}\n")
    config: Any = account.configs["lambda"]
    assert (config.read_timeout, config.retries) == (900, {"total_max_attempts": 1})


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_dead_letters_go_back_to_their_queue(account: Account, as_json: list[str]) -> None:
    account.deploy(PLAIN)
    account.answer(
        "sqs",
        "get_queue_attributes",
        {"Attributes": {"QueueArn": "arn:dead"}},
        {"QueueUrl": QUEUE, "AttributeNames": ["QueueArn"]},
    )
    account.answer("sqs", "start_message_move_task", {}, {"SourceArn": "arn:dead"})

    said = operate("redrive-uploads", *as_json)

    assert said.exit_code == 0
    if as_json:
        assert json.loads(said.output) == {"started": True}
    else:
        assert said.output.startswith("Started: uploads that fail again are back")


def test_a_refusal_of_aws_is_one_sentence(account: Account) -> None:
    account.deploy(PLAIN)
    account.refuse("sqs", "get_queue_attributes", "AccessDenied", "Not you.")

    said = operate("redrive-uploads")

    assert said.exit_code == 1
    assert said.output == "AWS answered GetQueueAttributes with AccessDenied: Not you.\n"


# The stack


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_stack_is_an_error(account: Account, command: list[str]) -> None:
    account.refuse("cloudformation", "describe_stacks", "ValidationError", "does not exist")

    said = operate(*command, "--stack", "no pe")

    assert (said.exit_code, said.output) == (1, 'There is no stack "no pe" in eu-central-1.\n')


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stack_of_something_else_is_an_error(account: Account, command: list[str]) -> None:
    account.deploy({"WebsiteUrl": "https://example.com"})

    said = operate(*command, typed=TOKEN)

    assert said.exit_code == 1
    assert said.output.startswith("The stack has no output ")
    assert len(said.output.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("AWS_DEFAULT_REGION", "No AWS region is set. Set AWS_DEFAULT_REGION."),
        ("AWS_ACCESS_KEY_ID", "There are no AWS credentials in this shell."),
    ],
)
def test_a_shell_without_an_account_is_an_error(
    command: list[str], missing: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    for name in (missing, "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    if missing == "AWS_ACCESS_KEY_ID":
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    said = operate(*command)

    assert (said.exit_code, said.output) == (1, f"{words}\n")


# make


def test_the_words_of_aws_are_shown_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(stack: str) -> None:
        raise ClientError({"Error": {"Code": "No", "Message": f"{stack}\x1b[2J"}}, "DescribeStacks")

    monkeypatch.setattr("operate.__main__.outputs_of", refuse)

    for command in (["sweep"], ["redrive-uploads"], ["token"], ["rerun", "--id", "anna-1"]):
        said = operate(*command, "--stack", "[red]")
        assert (said.exit_code, said.stderr.count("[red]\\x1b[2J\n")) == (1, 1)


def test_a_wrong_argument_is_shown_harmless() -> None:
    said = operate("rerun", "--id", "\x1b[2J")

    assert said.exit_code == 2
    assert '"\\x1b[2J"' in said.stderr


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        (
            ["rerun", 'ID=an"na `x`', "YES=1", "DRY_RUN=0"],
            ["rerun", "--stack", "dropreel", "--id", 'an"na `x`', "--yes"],
        ),
        (
            ["rerun", "FAILED_SINCE=2026-11-20 08:00", "STACK=it's", "DRY_RUN=1"],
            ["rerun", "--stack", "it's", "--failed-since", "2026-11-20 08:00", "--dry-run"],
        ),
        (
            ["rerun", "ID=anna-1", "AGAIN=1"],
            ["rerun", "--stack", "dropreel", "--id", "anna-1", "--again"],
        ),
        (["jobs"], ["jobs", "--stack", "dropreel"]),
        (
            ["jobs", "FOLDER=a b", "STATE=waits failed", "SINCE=2h", "WATCH=1"],
            [
                *("jobs", "--stack", "dropreel", "--since", "2h", "--folder", "a b"),
                *("--state", "waits", "--state", "failed", "--watch"),
            ],
        ),
        (["job", "ID=team/it's"], ["job", "--stack", "dropreel", "team/it's"]),
        (
            ["cost", "SINCE=30d", "BY=day provider"],
            ["cost", "--stack", "dropreel", "--since", "30d", "--by", "day", "--by", "provider"],
        ),
        (["token"], ["token", "--stack", "dropreel", "--provider", "RunComfy"]),
        (["token", "PROVIDER=A 'b'"], ["token", "--stack", "dropreel", "--provider", "A 'b'"]),
        (["sweep", "STACK=a b"], ["sweep", "--stack", "a b"]),
        (["redrive-uploads"], ["redrive-uploads", "--stack", "dropreel"]),
        (["purge-uploads", "YES=1"], ["purge-uploads", "--stack", "dropreel", "--yes"]),
        (["teardown", "UNDO=1"], ["teardown", "--stack", "dropreel", "--undo"]),
        (["teardown", "YES=1", "UNDO=0"], ["teardown", "--stack", "dropreel", "--yes"]),
    ],
)
def test_make_passes_its_variables_on(target: list[str], arguments: list[str]) -> None:
    ran = subprocess.run(
        ["make", "-s", "-o", ".venv/dev/.made", *target, "OPERATE=printf '%s\\n'"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.splitlines() == arguments


# prices


@pytest.mark.parametrize("as_json", [False, True])
def test_prices_print_the_parameter_to_set_and_need_no_token(
    account: Account, as_json: bool
) -> None:
    account.deploy(PLAIN)
    secret = account.secrets.create_secret(Name="no token in it")["ARN"]
    limits = {"url": "https://api.provider.example", "secret": secret, "max_in_flight": 1}
    variables = {
        "PROVIDERS": json.dumps({"runcomfy": limits, "wavespeed": limits}),
        "CATALOG_OVERRIDES": '{"wavespeed-ai/infinitetalk": {"usd_per_second": {"480p": 0.04}}}',
    }
    account.answer(
        "lambda",
        "get_function_configuration",
        {"Environment": {"Variables": variables}},
        {"FunctionName": "dropreel-sweep:live"},
    )

    said = operate("prices", *["--json"] * as_json)

    assert said.exit_code == 0, said.output
    if as_json:
        answer = json.loads(said.stdout)
        assert 0.04 in [one["parameter"] for one in answer["usd_per_second"]]
        assert answer["parameters"] == {"CatalogOverrides": variables["CATALOG_OVERRIDES"]}
        return
    *table, parameter = said.stdout.splitlines()
    assert "0.04" in "".join(table)
    assert parameter == f"CatalogOverrides: '{variables['CATALOG_OVERRIDES']}'"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "dropreel-sweep:live has no readable PROVIDERS."),
        ({"PROVIDERS": "{}", "CATALOG_OVERRIDES": "x"}, "CatalogOverrides cannot be used"),
    ],
)
def test_prices_without_readable_settings_say_so(
    account: Account, variables: dict[str, str], words: str
) -> None:
    account.deploy(PLAIN)
    account.answer(
        "lambda",
        "get_function_configuration",
        {"Environment": {"Variables": variables}},
        {"FunctionName": "dropreel-sweep:live"},
    )

    said = operate("prices")

    assert said.exit_code == 1
    assert words in said.stderr
