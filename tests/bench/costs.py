"""Count what AWS charges for, and write docs/costs.md: `make costs`.

    python -m tests.bench.costs

It deploys into an embedded AWS of its own, drops the sample pair twice (a short render and a longer
one, with the waits of an account), and calls once what a schedule calls. What it finds is written
to docs/costs.json, and `local.costs` makes the page of it.
"""

import argparse
import json
import math
import platform
import re
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from dropreel.model.job import INBOX
from local import costs, embedded
from local.costs import Amounts, Counted, Recorded
from local.embedded import OUT, PROJECT, Environment, Home
from tests.bench.burst import standin

SHORT_RENDER_SECONDS, LONG_RENDER_SECONDS = 2.0, 33.0
PATIENCE_SECONDS = 180
QUIET_SECONDS = 4.0  # the embedded AWS has written its logs by then
EVENT_OVERHEAD_BYTES = 26  # CloudWatch Logs counts them for each line
UNIT_OF_READ_BYTES, UNIT_OF_WRITE_BYTES, UNIT_OF_EVENT_BYTES = 4_096, 1_024, 64 * 1_024
SAMPLES = (PROJECT / "samples/portrait.png", PROJECT / "samples/speech.mp3")

# One after the other in a job where nothing fails. Poll comes as often as it was called.
TASKS = ("Prepare", "Admit", "Submit", "Poll", "Deliver", "Announce")

_REPORT = re.compile(r"REPORT RequestId: .*\tBilled Duration: (\d+) ms")


@dataclass(frozen=True)
class Line:
    """A line of a function's log."""

    function: str
    message: str


class Account:
    """What can be counted in an embedded AWS that records its requests."""

    def __init__(self, environment: Environment, requests: Path) -> None:
        self._environment = environment
        self._requests = requests
        self._logs = self.client("logs")
        (stack,) = self.client("cloudformation").describe_stacks(StackName=embedded.STACK)["Stacks"]
        self._outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3's clients are of no common type
        return embedded.client(self._environment, service)

    def drop(self, stem: str, render_seconds: float) -> None:
        """Drop the samples, and wait until the job has ended."""
        slow = {"at": "render", "match": f"/{stem}-", "render_seconds": render_seconds}
        standin(self._environment, "runcomfy", "faults", slow)
        for sample in SAMPLES:
            self.client("s3").put_object(
                Bucket=self._environment["UPLOAD_BUCKET"],
                Key=f"{INBOX}{stem}{sample.suffix}",
                Body=sample.read_bytes(),
            )
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not self._ended(stem):
            if time.monotonic() > give_up_at:
                raise SystemExit(f"The job of {stem} has not succeeded")
            time.sleep(0.5)
        time.sleep(QUIET_SECONDS)

    def _ended(self, stem: str) -> bool:
        listed = self.client("stepfunctions").list_executions(
            stateMachineArn=self._environment["STATE_MACHINE_ARN"], statusFilter="SUCCEEDED"
        )
        return any(one["name"].startswith(f"{stem}-") for one in listed["executions"])

    def call(self, function: str, payload: str) -> None:
        answer = self.client("lambda").invoke(
            FunctionName=f"{embedded.STACK}-{function}:live", Payload=payload
        )
        if "FunctionError" in answer:
            raise SystemExit(f"{function} failed: {answer['Payload'].read().decode()}")
        time.sleep(QUIET_SECONDS)

    def requests_since(self, begun: float) -> list[dict[str, Any]]:
        lines = map(json.loads, self._requests.read_text().splitlines())
        return [line for line in lines if line["at"] >= begun]

    def log_since(self, begun: float) -> Iterator[Line]:
        groups = f"/aws/lambda/{embedded.STACK}-"
        for group in self._logs.describe_log_groups(logGroupNamePrefix=groups)["logGroups"]:
            name = group["logGroupName"]
            pages = self._logs.get_paginator("filter_log_events").paginate(
                logGroupName=name, startTime=int(begun * 1_000)
            )
            for page in pages:
                for event in page["events"]:
                    yield Line(name.removeprefix(groups), event["message"])

    def largest_items(self) -> dict[str, int]:
        """In bytes, by the kind of the item."""
        pages = (
            self.client("dynamodb")
            .get_paginator("scan")
            .paginate(TableName=self._outputs["LedgerTable"])
        )
        largest: dict[str, int] = {}
        for page in pages:
            for item in page["Items"]:
                # A little more than DynamoDB counts: it has the braces and the names of the types.
                size = len(json.dumps(item, separators=(",", ":")).encode())
                largest[_kind(item)] = max(size, largest.get(_kind(item), 0))
        return largest


# --- What it came to ---


def counted(account: Account, begun: float, functions: Iterable[str]) -> Counted:
    """What some functions have come to since a time."""
    names = set(functions)
    log = [line for line in account.log_since(begun) if line.function in names]
    reports = [(line.function, found[1]) for line in log if (found := _REPORT.match(line.message))]
    calls = Counter(name for name, _ in reports)
    billed_ms: Counter[str] = Counter()
    for name, milliseconds in reports:
        billed_ms[name] += int(milliseconds)
    requests = account.requests_since(begun)
    ours = [it for it in requests if it["function"].removeprefix(f"{embedded.STACK}-") in names]
    amounts: dict[str, float] = defaultdict(float)
    largest_items = account.largest_items()
    for request in ours:
        for name, amount in charged(request, largest_items).items():
            amounts[name] += amount
    log_kb = sum(len(line.message.encode()) + EVENT_OVERHEAD_BYTES for line in log) / 1e3
    amounts["kB of logs, written"] = amounts["kB of logs, kept for a month"] = log_kb
    return Counted(
        calls=dict(sorted(calls.items())),
        billed_ms=dict(sorted(billed_ms.items())),
        amounts={name: amount for name, amount in amounts.items() if amount},
    )


def charged(request: Mapping[str, Any], largest_items: Mapping[str, int]) -> Amounts:
    """What AWS charges for one request of a function, or of who uses a URL that it presigned."""
    target = request["target"].rpartition(".")[2]
    if request["target"].startswith("DynamoDB"):
        return _of_ledger(target, json.loads(request["body"]), request, largest_items)
    if target == "PutEvents":
        entries = json.loads(request["body"])["Entries"]
        sizes = (len(json.dumps(entry).encode()) for entry in entries)
        return {"events": float(sum(math.ceil(size / UNIT_OF_EVENT_BYTES) for size in sizes))}
    if request["target"].startswith("AmazonSQS"):
        return {"queue requests": 1}
    if request["target"].startswith("secretsmanager"):
        return {"secret reads": 1}
    if request["target"] or request["path"].startswith("/20"):
        return {}  # of Step Functions and of Lambda: such requests cost nothing themselves
    if request["presigned"]:
        return {"S3 reads": 1, "MB sent to the provider": request["answered_bytes"] / 1e6}
    if request["method"] == "DELETE":
        return {}
    lists = "list-type=" in request["query"] or "versions" in request["query"]
    is_read = request["method"] in {"GET", "HEAD"} and not lists
    return {"S3 reads" if is_read else "S3 writes and lists": 1}


def _of_ledger(
    operation: str,
    body: Mapping[str, Any],
    request: Mapping[str, Any],
    largest_items: Mapping[str, int],
) -> Amounts:
    def write_units(item_or_key: Mapping[str, Any]) -> int:
        size = largest_items.get(_kind(item_or_key), 0)
        return max(1, math.ceil(size / UNIT_OF_WRITE_BYTES))

    consistency = 1.0 if body.get("ConsistentRead") else 0.5
    if operation == "TransactWriteItems":
        writes = [next(iter(write.values())) for write in body["TransactItems"]]
        units = sum(write_units(it.get("Item") or it["Key"]) for it in writes)
        return {"ledger write units": 2.0 * units}
    if operation in {"PutItem", "UpdateItem", "DeleteItem"}:
        return {"ledger write units": float(write_units(body.get("Item") or body["Key"]))}
    if operation == "TransactGetItems":
        return {"ledger read units": 2.0 * len(body["TransactItems"])}
    if operation == "BatchGetItem":
        tables = body["RequestItems"].values()
        of_tables = [len(it["Keys"]) * (1.0 if it.get("ConsistentRead") else 0.5) for it in tables]
        return {"ledger read units": sum(of_tables)}
    if operation in {"GetItem", "Query", "Scan"}:
        size = max(1, math.ceil(request["answered_bytes"] / UNIT_OF_READ_BYTES))
        return {"ledger read units": consistency * size}
    raise SystemExit(f"What does DynamoDB charge for {operation}?")


def _kind(item_or_key: Mapping[str, Any]) -> str:
    kind: str = item_or_key["pk"]["S"].split("#")[0]
    return kind


def metrics_in(log: Iterable[Line]) -> set[tuple[str, ...]]:
    """The series that Embedded Metric Format makes of the log: each costs by the month."""
    series = set()
    for line in log:
        if '"_aws"' in line.message:
            found = json.loads(line.message[line.message.index("{") :])
            for directive in found["_aws"]["CloudWatchMetrics"]:
                for dimensions in directive["Dimensions"]:
                    for metric in directive["Metrics"]:
                        values = [f"{name}={found[name]}" for name in dimensions]
                        series.add((directive["Namespace"], metric["Name"], *values))
    return series


# --- State transitions ---


def transitions(definition: Mapping[str, Any], polls: int) -> int:
    """How many states a job enters in which nothing fails.

    The embedded AWS writes no events of Choice and Wait inside a Parallel. But between two tasks
    there is one shortest way through the definition, and a job where nothing fails takes it.
    """
    ways = dict(_ways(definition))
    stops = [*TASKS[:3], *["Poll"] * polls, *TASKS[4:]]
    at, entered = definition["StartAt"], 1
    for stop in stops:
        entered += _steps(ways, at, stop)
        at = stop
    return entered + _steps(ways, at, "Done")


def _ways(machine: Mapping[str, Any], after: str | None = None) -> Iterator[tuple[str, set[str]]]:
    """For each state, those that may come next. What ends a branch goes on after its Parallel."""
    for name, state in machine["States"].items():
        following = {state.get("Next"), state.get("Default")}
        following |= {choice["Next"] for choice in state.get("Choices", [])}
        if state.get("End"):
            following.add(after)
        for branch in state.get("Branches", []):
            yield from _ways(branch, after=state.get("Next"))
            following = {branch["StartAt"]}
        yield name, {it for it in following if it}


def _steps(ways: Mapping[str, set[str]], start: str, stop: str) -> int:
    """How many states are entered from one to the other, the last one included."""
    waiting, seen = deque([(start, 0)]), set()
    while waiting:
        state, steps = waiting.popleft()
        for following in ways[state]:
            if following == stop:
                return steps + 1
            if following not in seen:
                seen.add(following)
                waiting.append((following, steps + 1))
    raise SystemExit(f"The state machine has no way from {start} to {stop}")


# --- The run ---


def measure(account: Account, template: Mapping[str, Any]) -> Recorded:
    functions = set(costs.memory_of_functions(template))
    scheduled = dict(_scheduled(template))
    ours = functions - {function for function, _ in scheduled.values()}
    account.drop("warm", SHORT_RENDER_SECONDS)
    jobs = []
    for stem, render_seconds in (("short", SHORT_RENDER_SECONDS), ("long", LONG_RENDER_SECONDS)):
        begun = time.time()
        account.drop(stem, render_seconds)
        jobs.append(_with_what_aws_does(counted(account, begun, ours), account, begun))
        print(f"{stem}: {jobs[-1]}")
    schedules = {}
    for rule, (function, payload) in scheduled.items():
        account.call(function, payload)  # the first call of a kind takes longer
        begun = time.time()
        account.call(function, payload)
        found = counted(account, begun, {function})
        metrics = len(metrics_in(account.log_since(begun)))
        # Its own schedule may have called it, too.
        calls = found.calls[function]
        schedules[rule] = Counted(
            calls={function: 1},
            billed_ms={function: found.billed_ms[function] / calls},
            amounts={
                **{name: amount / calls for name, amount in found.amounts.items()},
                "traces": 1,
                **({costs.METRICS: metrics} if metrics else {}),
            },
        )
    return Recorded(
        measured_on=datetime.now(UTC).strftime("%-d %B %Y"),
        machine=f"{platform.system()} on {platform.machine()}",
        input_bytes=sum(sample.stat().st_size for sample in SAMPLES),
        short=jobs[0],
        long=jobs[1],
        schedules=schedules,
    )


def _with_what_aws_does(job: Counted, account: Account, begun: float) -> Counted:
    definition = yaml.safe_load((PROJECT / "statemachine/render.asl.yaml").read_text())
    once = {name.lower() for name in TASKS} - {"poll"}
    if any(job.calls[name] != 1 for name in once):
        raise SystemExit(
            f"Something failed, because not all of {once} were called once: {job.calls}"
        )
    amounts = defaultdict(float, job.amounts)
    amounts["events"] += len(SAMPLES)  # of S3
    amounts["queue requests"] += 3 * len(SAMPLES)
    amounts["S3 writes and lists"] += len(SAMPLES)  # of who drops them
    amounts["state transitions"] = transitions(definition, int(job.calls["poll"]))
    amounts["traces"] = 1 + job.calls["intake"]
    metrics = len(metrics_in(account.log_since(begun)))
    if metrics:  # each costs its share of the month for the hour in which it is sent
        amounts[costs.METRICS] = metrics / costs.MONTH_HOURS
    return job.model_copy(update={"amounts": dict(amounts)})


def _scheduled(template: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    """By rule: the function that it calls, and what it calls it with."""
    resources = template["Resources"]
    for name, resource in resources.items():
        if "ScheduleExpression" in resource.get("Properties", {}):
            for target in resource["Properties"]["Targets"]:
                function = resources[target["Arn"].removesuffix(".Alias")]
                yield name, (costs.name_of(function), target.get("Input", "{}"))


def main() -> int:
    argparse.ArgumentParser(prog="python -m tests.bench.costs", description=__doc__).parse_args()
    home = Home(OUT / "costs")
    embedded.down(home)  # what an interrupted one left
    home.path.mkdir(parents=True, exist_ok=True)
    requests = home.path / "requests.jsonl"
    environment = embedded.up(
        home,
        standin_options=("--queue-seconds", "0"),
        parameters={"RunComfyMaxSubmitsPerMinute": "0"},
        settings={"REQUEST_RECORD": str(requests)},
    )
    try:
        recorded = measure(Account(environment, requests), costs.read_template())
    finally:
        embedded.down(home)
    costs.RECORD.write_text(recorded.model_dump_json(indent=2) + "\n")
    return costs.main()


if __name__ == "__main__":
    sys.exit(main())
