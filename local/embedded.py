"""The embedded AWS: MiniStack and the providers' stand-ins on free ports, and the real template
deployed into them.

    python -m local.embedded up      start, build, deploy, leave running, write out/local.env
    python -m local.embedded down    stop what `up` started
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml

from dropreel.model.catalog import TITLES
from dropreel.model.events import FOR_DISPLAY, DetailType
from local.overlay import lay_over
from operate.terminal import harmless_lines

PROJECT = Path(__file__).resolve().parent.parent
OUT = PROJECT / "out"
BUILD = OUT / "build"
STACK = "dropreel"
# Not us-east-1: there, and in all older regions, version 1 of the AWS CLI sends SQS calls to the
# region's own address, whatever AWS_ENDPOINT_URL says.
REGION = "eu-central-2"
ENVIRONMENTS = PROJECT / ".venv"
ARCHITECTURE = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"

# The token of the functions and the stand-ins. It is of no use outside this machine.
STANDIN_TOKEN = "standin-token-of-the-embedded-aws"  # noqa: S105

# Each environment is a process of some 50 MB. (`LAMBDA_MAX_ENVIRONMENTS` is known to our MiniStack
# only.)
LAMBDA_BOUNDS = {
    "LAMBDA_ACCOUNT_CONCURRENCY": "10",  # as in a new AWS account: more calls are throttled
    "LAMBDA_MAX_ENVIRONMENTS": "32",
    "LAMBDA_WARM_TTL_SECONDS": "60",  # then an idle one ends, unless a function has no other
}

Environment = dict[str, str]
Say = Callable[[str], None]


class EmbeddedAwsFailed(Exception):
    """Something did not start, build or deploy; the message says where to look."""


@dataclass(frozen=True)
class Home:
    """The folder that one embedded AWS keeps its logs, its process ids and its settings in."""

    path: Path

    @property
    def processes(self) -> Path:
        return self.path / "processes.json"

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that `up` started; each leads a session of its own."""
        return json.loads(self.processes.read_text()) if self.processes.exists() else []

    @property
    def scratch(self) -> Path:
        """Where the functions' code is unpacked: in memory, where there is such a place, because
        on a busy disk a cold start can take a second longer."""
        memory = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, for us alone
        name = hashlib.sha256(str(self.path).encode()).hexdigest()[:12]
        if os.access(memory, os.W_OK):
            return memory / f"dropreel-{os.getuid()}-{name}"
        return self.path / "scratch"

    @property
    def settings(self) -> Path:
        return self.path / "local.env"


def up(
    home: Home,
    *,
    standin_options: Sequence[str] = (),
    parameters: Mapping[str, str] | None = None,
    max_wait_seconds: float | None = None,
    settings: Mapping[str, str] | None = None,
    say: Say = print,
) -> Environment:
    """Start everything, deploy, and return (and write) what a client needs to know.

    `max_wait_seconds` shortens the waits between polls, for tests. `settings` are more environment
    variables of MiniStack.
    """
    if running(home):
        raise EmbeddedAwsFailed(f"One is running already ({home.path}). Stop it: make down")
    try:
        say("Starting the embedded AWS (MiniStack, IAM enforced) and the providers' stand-ins")
        environment = start_ministack(home, settings)
        standins = {name: _start_standin(home, name, standin_options) for name in TITLES}
        wait_for_ministack(home, environment)
        say("Building the template (sam build)")
        build(home)
        say("Deploying it (sam deploy)")
        template = _laid_over(home, standins, max_wait_seconds)
        given = {"Architecture": ARCHITECTURE, "SettleSeconds": "2", **(parameters or {})}
        client(environment, "s3").create_bucket(
            Bucket="sam-artifacts", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        outputs = deploy(home, template, environment, given)
        environment |= {
            "UPLOAD_BUCKET": outputs["UploadBucket"],
            "VIDEO_BUCKET": outputs["VideoBucket"],
            "WORK_BUCKET": outputs["WorkBucket"],
            "STATE_MACHINE_ARN": outputs["StateMachineArn"],
            "EVENT_BUS": outputs["EventBusName"],
            "LEDGER_TABLE": outputs["LedgerTable"],
            "EVENTS_QUEUE_URL": subscribe_queue(
                environment, outputs["EventBusName"], "dropreel-events"
            ),
            **{f"{name.upper()}_URL": url for name, url in standins.items()},
        }
        for title in TITLES.values():
            client(environment, "secretsmanager").put_secret_value(
                SecretId=outputs[f"{title}TokenArn"], SecretString=STANDIN_TOKEN
            )
    except BaseException:
        down(home)
        raise
    home.settings.write_text(
        "".join(f"export {name}={value}\n" for name, value in environment.items())
    )
    return environment


def down(home: Home) -> bool:
    """Stop what `up` started. True when something was running."""
    stopped = False
    for pid in home.process_ids:
        try:
            os.killpg(pid, signal.SIGTERM)
            stopped = True
        except ProcessLookupError:
            continue
        _wait_for_end(pid)
    shutil.rmtree(home.scratch, ignore_errors=True)
    home.processes.unlink(missing_ok=True)
    home.settings.unlink(missing_ok=True)
    return stopped


def running(home: Home) -> Environment | None:
    """What a client of the running one needs to know; None when none runs."""
    if not home.settings.exists() or not all(_alive(pid) for pid in home.process_ids):
        return None
    pairs = (
        line.removeprefix("export ").split("=", 1)
        for line in home.settings.read_text().splitlines()
    )
    return dict(pairs)


# --- Processes ---

# They may outlive us (`make up`), so nothing else holds on to them.
_started: list["subprocess.Popen[bytes]"] = []


def _start(home: Home, name: str, command: list[str], environment: Mapping[str, str]) -> None:
    """Start a process in its own group, with its output in a log next to the settings."""
    with (home.path / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _started.append(process)
    home.processes.write_text(json.dumps([*home.process_ids, process.pid]))


def start_ministack(home: Home, settings: Mapping[str, str] | None = None) -> Environment:
    """Start MiniStack with nothing deployed, and return what a client needs to know.

    `settings` are more environment variables of MiniStack. It answers after `wait_for_ministack`.
    """
    port = _free_port()
    home.path.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(home.scratch, ignore_errors=True)
    home.scratch.mkdir(mode=0o700)
    _start(
        home,
        "ministack",
        [str(_tool("aws", "python")), "-m", "local.corrected_ministack"],
        _ministack_environment(port) | {"TMPDIR": str(home.scratch), **(settings or {})},
    )
    return _aws_environment(port)


def wait_for_ministack(home: Home, environment: Environment) -> None:
    """Wait until it answers."""

    def answers() -> bool:
        try:
            with urllib.request.urlopen(health, timeout=2):
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    health = f"{environment['AWS_ENDPOINT_URL']}/_ministack/health"
    _wait(answers, home, "ministack")


def _start_standin(home: Home, provider: str, options: Sequence[str]) -> str:
    """Start a provider's stand-in on a port that it picks, and return its URL."""
    name = f"standin-{provider}"
    port_file = home.path / f"{name}.port"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "local.standin", "--provider", provider]
    command += ["--port", "0", "--port-file", str(port_file)]
    environment = _clean_environment() | {
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "layers/dropreel")])
    }
    _start(home, name, [*command, "--token", STANDIN_TOKEN, *options], environment)
    _wait(lambda: port_file.exists() and bool(port_file.read_text().strip()), home, name)
    return f"http://127.0.0.1:{port_file.read_text().strip()}"


def _alive(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _wait_for_end(pid: int, patience_seconds: float = 10) -> None:
    deadline = time.monotonic() + patience_seconds
    ours = next((process for process in _started if process.pid == pid), None)
    while _alive(pid):
        if ours is not None:
            ours.poll()  # a child that has ended stays alive as a zombie until it is asked
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            return
        time.sleep(0.05)


def _wait(ready: Callable[[], bool], home: Home, name: str, patience_seconds: float = 60) -> None:
    deadline = time.monotonic() + patience_seconds
    while not ready():
        if time.monotonic() > deadline or not all(_alive(pid) for pid in home.process_ids):
            raise EmbeddedAwsFailed(f"{name} did not start: see {home.path / f'{name}.log'}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- Environments ---


def _tool(environment: str, name: str) -> Path:
    return ENVIRONMENTS / environment / "bin" / name


def _clean_environment() -> Environment:
    """Ours without the user's AWS settings: nothing may reach a real account."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "SAM_", "PYTHON", "VIRTUAL_ENV"))
    }
    return kept | {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAM_CLI_TELEMETRY": "0",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
    }


def _aws_environment(port: int) -> Environment:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
    }


def _ministack_environment(port: int) -> Environment:
    return _clean_environment() | {
        "AUTH": "true",
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "LAMBDA_EXECUTOR": "local",
        **LAMBDA_BOUNDS,
        "LOG_LEVEL": "INFO",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
    }


def client(environment: Environment, service: str) -> Any:  # noqa: ANN401 - boto3's clients are of no common type
    """A boto3 client of the embedded AWS, whatever AWS settings this machine has."""
    make: Any = boto3.client
    return make(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )


# --- Building and deploying ---


def build(home: Home) -> None:
    """`sam build`, unless the last build was of the very same sources."""
    stamp = BUILD / "sources.sha256"
    sources = _sources_digest()
    if stamp.exists() and stamp.read_text() == sources:
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine = "aarch64" if ARCHITECTURE == "arm64" else "x86_64"
    _sam(
        home,
        ["build", "--config-env", "embedded"],
        {
            "UV": str(_tool("uv", "uv")),
            "LAYER_PYTHON": version,
            "LAYER_PLATFORM": f"{machine}-manylinux_2_28" if sys.platform == "linux" else "",
            "LAYER_COMPILER": sys.executable,
        },
    )
    stamp.write_text(sources)


def _laid_over(home: Home, standins: Mapping[str, str], max_wait_seconds: float | None) -> Path:
    """The built template with `overlay`'s changes."""
    template = yaml.safe_load((BUILD / "template.yaml").read_text())
    lay_over(template, home.path, standins, max_wait_seconds)
    laid_over = BUILD / f"{home.path.name}.yaml"  # next to the built one: its paths are relative
    laid_over.write_text(yaml.safe_dump(template, sort_keys=False))
    return laid_over


def _sources_digest() -> str:
    digest = hashlib.sha256(f"{sys.version_info[:2]}{ARCHITECTURE}".encode())
    folders = ("functions", "layers", "statemachine")
    files = [PROJECT / "template.yaml", PROJECT / "samconfig.toml"]
    files += [file for folder in folders for file in (PROJECT / folder).rglob("*")]
    for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
        digest.update(f"{file.relative_to(PROJECT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def deploy(
    home: Home, template: Path, environment: Environment, parameters: Mapping[str, str]
) -> dict[str, str]:
    """`sam deploy`, and the stack's outputs. Where there is a stack, it is updated."""
    overrides = [f"{name}='{value}'" for name, value in parameters.items()]
    _sam(
        home,
        [
            *("deploy", "--config-env", "embedded", "--template-file", str(template)),
            *("--config-file", str(PROJECT / "samconfig.toml")),
            *("--parameter-overrides", *overrides),
        ],
        environment,
    )
    (stack,) = client(environment, "cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def _sam(home: Home, arguments: list[str], environment: Mapping[str, str]) -> None:
    log = home.path / f"sam-{arguments[0]}.log"
    path = f"{ENVIRONMENTS / 'sam' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    with log.open("wb") as output:
        ended = subprocess.run(
            [str(_tool("sam", "sam")), *arguments],
            cwd=PROJECT,
            env=_clean_environment() | {"PATH": path} | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if ended.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise EmbeddedAwsFailed(f"sam {arguments[0]} failed; its last words ({log}):\n{last}")


@contextmanager
def subscription(environment: Environment, name: str) -> Iterator[str]:
    """A queue that gets every event for as long as it is looked at."""
    url = subscribe_queue(environment, environment["EVENT_BUS"], name)
    try:
        yield url
    finally:
        events = client(environment, "events")
        events.remove_targets(Rule=name, EventBusName=environment["EVENT_BUS"], Ids=["queue"])
        events.delete_rule(Name=name, EventBusName=environment["EVENT_BUS"])
        client(environment, "sqs").delete_queue(QueueUrl=url)


def subscribe_queue(
    environment: Environment,
    event_bus: str,
    name: str,
    detail_types: Sequence[DetailType] = tuple(set(DetailType) - set(FOR_DISPLAY)),
) -> str:
    """A queue, and a rule that sends it how each job ends: what a consumer sets up."""
    sqs, events = client(environment, "sqs"), client(environment, "events")
    url: str = sqs.create_queue(QueueName=name)["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    queue_arn = attributes["Attributes"]["QueueArn"]
    pattern = {"source": ["dropreel"], "detail-type": detail_types}
    rule = events.put_rule(Name=name, EventBusName=event_bus, EventPattern=json.dumps(pattern))
    allow = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": rule["RuleArn"]}},
            }
        ],
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(allow)})
    events.put_targets(
        Rule=name, EventBusName=event_bus, Targets=[{"Id": "queue", "Arn": queue_arn}]
    )
    return url


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a template parameter"
    )
    parser.add_argument(
        "--standin", action="append", default=[], metavar="OPTION", help="for the stand-in"
    )
    asked = parser.parse_args()
    home = Home(OUT)
    if asked.command == "down":
        print("Stopped." if down(home) else "Nothing was running.")
        return 0
    try:
        up(
            home,
            standin_options=asked.standin,
            parameters=dict(pair.split("=", 1) for pair in asked.set),
        )
    except EmbeddedAwsFailed as error:
        print(harmless_lines(error), file=sys.stderr)
        return 1
    print(f"Running. For a client: . {home.settings.relative_to(PROJECT)}    To stop: make down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
