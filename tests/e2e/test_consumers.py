"""The examples in `examples/consumers`, deployed into an embedded AWS that has Dropreel's bus and
nothing else of Dropreel's. The events are the published ones, and one with hostile names.

What MiniStack cannot show: retries, dead letters, another account, and the rights of EventBridge.
"""

import io
import json
import re
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import aws_lambda_powertools
import pytest

from local import embedded
from local.embedded import Environment, Home
from tests.e2e.conftest import until
from tests.support.consumers import FOLDER, Template, of_type, template
from tests.support.example_events import EXAMPLES

BUS = "dropreel"
JSON = "application/json; charset=utf-8"
HOSTILE = 'a"b\\\n<!channel> &amp; <job> {"text": "x"}'
PATIENCE_SECONDS = 10

_SECRET = re.compile(r"\{\{resolve:secretsmanager:\$\{(\w+)\}\}\}")

Event = dict[str, Any]


@dataclass
class Account:
    """What an AWS account shows to the owner of a consumer in it."""

    environment: Environment

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3's clients are of no common type
        return embedded.client(self.environment, service)

    def deploy(self, name: str, example: Template, **parameters: str) -> dict[str, str]:
        """The outputs of the example's stack."""
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=json.dumps(example),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
            ],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        cloudformation.get_waiter("stack_create_complete").wait(
            StackName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 300}
        )
        [stack] = cloudformation.describe_stacks(StackName=name)["Stacks"]
        return {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}

    def put(self, *events: Event) -> None:
        entries = [
            {
                "EventBusName": BUS,
                "Source": event["source"],
                "DetailType": event["detail-type"],
                "Resources": event["resources"],
                "Detail": json.dumps(event["detail"]),
            }
            for event in events
        ]
        assert self.client("events").put_events(Entries=entries)["FailedEntryCount"] == 0

    def messages(self, queue: str, count: int) -> list[str]:
        """The bodies of so many messages, and fails if there are more."""
        sqs, bodies = self.client("sqs"), list[str]()
        receive = partial(sqs.receive_message, QueueUrl=queue, MaxNumberOfMessages=10)
        while len(bodies) < count:
            got = receive(WaitTimeSeconds=PATIENCE_SECONDS).get("Messages", [])
            assert got, f"{len(bodies)} of {count} messages came"
            bodies += [message["Body"] for message in got]
        assert "Messages" not in receive()
        return bodies


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    home = Home(embedded.OUT / "e2e-consumers")
    embedded.down(home)
    try:
        environment = embedded.start_ministack(home)
        embedded.wait_for_ministack(home, environment)
        account = Account(environment)
        account.client("events").create_event_bus(Name=BUS)
        parameter = f"/{BUS}/event-bus-name"
        account.client("ssm").put_parameter(Name=parameter, Value=BUS, Type="String")
        yield account
    finally:
        embedded.down(home)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """The published ones that end a job or an upload: the examples ask for no others."""
    published = [json.loads(path.read_text()) for path in EXAMPLES.values()]
    return [event for event in published if event["detail-type"] in _LINES]


def one_of_each(events: list[Event]) -> list[Event]:
    """A video, a failure and an incomplete upload, as `hostile`."""
    types = ("Video Ready", "Video Failed", "Upload Incomplete")
    return [hostile(next(it for it in events if it["detail-type"] == kind)) for kind in types]


def hostile(event: Event) -> Event:
    """The event with the worst that people can write into names, prompts, labels and errors."""
    changed = deepcopy(event)
    detail = changed["detail"]
    detail["job"] |= dict.fromkeys(("folder", "stem", "prompt"), HOSTILE)
    detail["job"]["labels"] = {HOSTILE: HOSTILE}
    for part in ("video", "manifest", "error_file", "error"):
        if file := detail.get(part):
            for name in {"key", "message", "advice"} & file.keys():
                file[name] = HOSTILE
    return changed


def arrived(body: str) -> Event:
    """An event as it was sent, without what EventBridge adds."""
    event = json.loads(body)
    return {name: event[name] for name in ("source", "detail-type", "resources", "detail")}


def sent(event: Event) -> Event:
    return arrived(json.dumps(event))


def in_order(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: json.dumps(event["detail"], sort_keys=True))


def test_a_queue_gets_each_event_unchanged(account: Account, events: list[Event]) -> None:
    outputs = account.deploy("sqs", template("sqs"))

    account.put(*events, hostile(events[0]), events[0] | {"source": "another"})

    bodies = account.messages(outputs["QueueUrl"], len(events) + 1)
    expected = [sent(event) for event in [*events, hostile(events[0])]]
    assert in_order([arrived(body) for body in bodies]) == in_order(expected)


def test_another_accounts_bus_gets_them_by_a_rule_on_ours(
    account: Account, events: list[Event]
) -> None:
    """In one account: MiniStack sends nothing to another one."""
    arn = account.client("events").describe_event_bus(Name=BUS)["Arn"]
    outputs = account.deploy("other-account", template("other-account"), EventBusArn=arn)

    account.put(*events)

    bodies = account.messages(outputs["QueueUrl"], len(events))
    assert in_order([arrived(body) for body in bodies]) == in_order([sent(it) for it in events])


def test_a_mail_says_what_happened_in_lines(account: Account, events: list[Event]) -> None:
    outputs = account.deploy("sns-mail", template("sns-mail"), Email="anna@example.com")
    inbox = subscribed(account, outputs["TopicArn"])
    ready, failed, incomplete = one_of_each(events)

    account.put(ready, failed, incomplete)

    expected = [
        [
            "A video is ready.",
            f"Job: {ready['detail']['job']['id']}",
            f"Bucket: {ready['detail']['video']['bucket']}",
        ],
        [
            "A job ended without a video.",
            f"Job: {failed['detail']['job']['id']}",
            f"Error: {failed['detail']['error']['code']}",
            "The file .error.json, where the video would be, says what to do.",
        ],
        [
            "A file has waited 60.0 minutes for its partner.",
            "The file .error.json, where the video would be, says what is missing.",
        ],
    ]
    assert sorted(account.messages(inbox, len(expected))) == sorted(
        "\n".join(f'"{line}"' for line in lines) for lines in expected
    )


def subscribed(account: Account, topic: str) -> str:
    """A queue that gets the text of each mail."""
    sqs = account.client("sqs")
    queue: str = sqs.create_queue(QueueName="mails")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": attributes["QueueArn"],
    }
    sqs.set_queue_attributes(
        QueueUrl=queue, Attributes={"Policy": json.dumps({"Statement": [statement]})}
    )
    account.client("sns").subscribe(
        TopicArn=topic,
        Protocol="sqs",
        Endpoint=attributes["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )
    return queue


# --- Webhooks ---


@dataclass
class Request:
    headers: dict[str, str]
    body: str


@contextmanager
def server() -> Iterator[tuple[str, "Queue[Request]"]]:
    """A server's URL, and the requests that it gets."""
    requests = Queue[Request]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            requests.put(Request(dict(self.headers), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/", requests
        http.shutdown()


def deploy_with_destination(account: Account, name: str, **parameters: str) -> None:
    """Deploy an example whose connection and API destination are made first, of its own properties.

    MiniStack's CloudFormation does not know these two types; its API does.
    """
    example, events = template(name), account.client("events")
    values = {it: how.get("Default") for it, how in example["Parameters"].items()} | parameters
    made: dict[str, str] = {}

    def properties(kind: str) -> Template:
        [one] = of_type(example, kind).values()
        resolved: Template = resolve(one, values, made, account)
        return resolved

    made["Connection"] = events.create_connection(
        Name=name, **properties("AWS::Events::Connection")
    )["ConnectionArn"]
    made["Destination"] = events.create_api_destination(
        Name=name, **properties("AWS::Events::ApiDestination")
    )["ApiDestinationArn"]
    for resource in made:
        del example["Resources"][resource]
    for parameter in parameters:
        del example["Parameters"][parameter]
    account.deploy(name, resolve(example, {}, made, account))


def resolve(
    it: Any,  # noqa: ANN401 - as YAML has it
    values: Mapping[str, Any],
    made: Mapping[str, str],
    account: Account,
) -> Any:  # noqa: ANN401
    """Put in what CloudFormation would: parameters, ARNs of what is made, and secrets."""
    match it:
        case {"Ref": str(name)} if name in values:
            return values[name]
        case {"Fn::GetAtt": [str(name), "Arn"]} if name in made:
            return made[name]
        case {"Fn::Sub": str(text)} if _SECRET.fullmatch(text):
            [parameter] = _SECRET.findall(text)
            secrets = account.client("secretsmanager")
            return secrets.get_secret_value(SecretId=values[parameter])["SecretString"]
        case dict():
            return {key: resolve(one, values, made, account) for key, one in it.items()}
        case list():
            return [resolve(one, values, made, account) for one in it]
    return it


def test_a_webhook_gets_each_event_with_the_secret_header(
    account: Account, events: list[Event]
) -> None:
    account.client("secretsmanager").create_secret(Name="dropreel-webhook", SecretString="s3cret")
    with server() as (url, requests):
        deploy_with_destination(account, "webhook", Url=url)

        account.put(*events, hostile(events[0]))

        got = [requests.get(timeout=PATIENCE_SECONDS) for _ in range(len(events) + 1)]
    expected = [sent(event) for event in [*events, hostile(events[0])]]
    assert in_order([arrived(request.body) for request in got]) == in_order(expected)
    assert {request.headers["X-Dropreel-Signature"] for request in got} == {"s3cret"}
    assert {request.headers["Content-Type"] for request in got} == {JSON}


def test_slack_gets_sentences_that_no_name_can_break(account: Account, events: list[Event]) -> None:
    ready, failed, incomplete = one_of_each(events)
    with server() as (url, requests):
        account.client("secretsmanager").create_secret(Name="dropreel-slack", SecretString=url)
        deploy_with_destination(account, "slack")

        account.put(ready, failed, incomplete)

        got = [json.loads(requests.get(timeout=PATIENCE_SECONDS).body) for _ in range(3)]
    job, bucket = ready["detail"]["job"]["id"], ready["detail"]["video"]["bucket"]
    failed_job, code = failed["detail"]["job"]["id"], failed["detail"]["error"]["code"]
    assert sorted(got, key=str) == [
        {
            "text": "Upload incomplete: a file has waited 60.0 minutes for its partner. "
            "Its .error.json says what is missing."
        },
        {"text": f"Video failed: job {failed_job}, error {code}. Its .error.json says what to do."},
        {"text": f"Video ready: job {job}, in the bucket {bucket}."},
    ]


# --- A function ---


def test_a_function_handles_each_event_once(account: Account, events: list[Event]) -> None:
    log = deploy_function(account)
    unknown = events[0] | {"detail-type": "Video Praised"}
    next_run = deepcopy(events[0])
    next_run["detail"]["job"]["run"] = 2
    next_run["detail"]["a_new_field"] = {"of": "a later version"}

    account.put(*events)
    until(lambda: len(lines(account, log)) == len(events), "a line for each event")
    for event in (*events, next_run, unknown):
        call_function(account, event)

    expected = [_LINES[event["detail-type"]] for event in (*events, next_run, unknown)]
    until(lambda: expected[-1] in lines(account, log), "the last line")
    assert sorted(lines(account, log)) == sorted(expected)


_LINES = {
    "Video Ready": "Video ready",
    "Video Failed": "Video failed",
    "Upload Incomplete": "Upload incomplete",
    "Video Praised": "Ignored an event of another type",
}


def call_function(account: Account, event: Event) -> None:
    functions = account.client("lambda")
    [function] = functions.list_functions()["Functions"]
    answer = functions.invoke(FunctionName=function["FunctionName"], Payload=json.dumps(event))
    assert "FunctionError" not in answer, answer["Payload"].read()


def lines(account: Account, log: str) -> list[str]:
    """What the function itself logged."""
    pages = account.client("logs").get_paginator("filter_log_events").paginate(logGroupName=log)
    texts = [event["message"].strip() for page in pages for event in page["events"]]
    return [json.loads(text)["message"] for text in texts if text.startswith("{")]


def deploy_function(account: Account) -> str:
    """The function's log group. Its code goes to S3 as with `sam deploy`; a layer of our own stands
    for the one of AWS."""
    s3 = account.client("s3")
    s3.create_bucket(
        Bucket="code", CreateBucketConfiguration={"LocationConstraint": embedded.REGION}
    )
    code = FOLDER / "lambda/src"
    s3.put_object(Bucket="code", Key="src.zip", Body=zipped(code, code.glob("**/*.py")))
    s3.put_object(Bucket="code", Key="layer.zip", Body=powertools())
    layer = account.client("lambda").publish_layer_version(
        LayerName="powertools", Content={"S3Bucket": "code", "S3Key": "layer.zip"}
    )["LayerVersionArn"]
    # A name under /aws is reserved.
    account.client("ssm").put_parameter(Name="/powertools", Value=layer, Type="String")
    example = template("lambda")
    example["Resources"]["Function"]["Properties"]["CodeUri"] = "s3://code/src.zip"
    return account.deploy("lambda", example, PowertoolsLayer="/powertools")["LogGroup"]


def powertools() -> bytes:
    """Powertools with pydantic, of this Python."""
    site = Path(aws_lambda_powertools.__file__).parents[1]
    ways = ("{}.py", "{}/**/*.py", "{}/**/*.so")
    files = (file for name in _LAYER for way in ways for file in site.glob(way.format(name)))
    return zipped(site, files, "python/")


_LAYER = (
    "aws_lambda_powertools",
    "annotated_types",
    "jmespath",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
)


def zipped(folder: Path, files: Iterable[Path], prefix: str = "") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in files:
            archive.write(file, f"{prefix}{file.relative_to(folder)}")
    return content.getvalue()
