"""Drop many pairs at once, on a bad day, and see that every promise holds: `make bench-burst`.

    python -m tests.bench.burst [--jobs 1000] [--compare]

Each burst deploys into an embedded AWS of its own. The stand-ins take two seconds a render, each
provider may have 20 in flight, and one call in twenty fails at random. It fails unless there are
as many videos, `Video Ready` events and accepted submissions as pairs, never more than 20 in
flight as each provider saw it, nothing in a dead letter queue, neither a slot nor a waiter left,
a fault that struck at each stage, and at most 3 GB of memory in use. A pair has 100 kB. Memory is
that of all processes of the embedded AWS and the stand-ins, and of their files in shared memory; on
Linux only. With `--compare` a burst of 50 comes first, and what a job
costs in state transitions, function calls and ledger writes must not differ from it by more than
5 %.

A few pairs go before, and are not counted: on AWS a thousand cold starts run side by side, here
they would queue for two cores, and nothing else be measured.

**What fails.** Status, result and download fail in every way that is worth another try. Of
submissions only those fail that are refused for certain (429): an unclear one (a reset, a 503, a
broken answer) ends its job as `SubmissionUnclear` on purpose, because
nobody knows whether it is paid for, and then there would be a video less.

**What is counted**, from AWS's own books:

- *state transitions*: in the executions' histories, each scheduled task, so each retry too, and
  each other state entered. Calls that Lambda throttled are left out: only ten run at once, as in a
  new account, so their number grows with the crowd. The embedded AWS shows no Choice or Wait inside
  a Parallel. These cannot grow unseen: between two of them there is always a task.
- *function calls*: the `START` lines of the functions' logs. (The embedded AWS has the metric
  `Invocations` only for calls by a client.)
- *ledger writes*: the records of a DynamoDB stream that is on while the burst lasts: one for each
  item that was changed. A write whose condition failed leaves none.
"""

import argparse
import io
import json
import sys
import time
import urllib.request
import wave
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from dropreel.model.job import INBOX
from local import embedded
from local.embedded import OUT, Environment, Home, Say
from tests.support.memory import Memory, peak

SMALL_BURST = 50
IN_FLIGHT_AT_MOST = 20
DIFFERENCE_AT_MOST = 0.05
MEMORY_AT_MOST_BYTES = 3 * 10**9
PROVIDERS = ("runcomfy", "wavespeed")
STEM, WARM_UP_STEM = "burst-", "warm-"

FAILING_SHARE = 0.05
# Of the first few hundred the one with which the small burst, too, gets its share at each stage.
SEED = 338

UNANSWERED: tuple[dict[str, object], ...] = (
    {"status": 500},
    {"status": 502},
    {"status": 429},
    {"do": "reset_before"},
    {"do": "malformed_json"},
    {"do": "empty_body"},
)
FAULTS: Mapping[str, tuple[dict[str, object], ...]] = {
    "submit": ({"status": 429, "headers": {"Retry-After": "1"}}, {"status": 429}),
    "status": UNANSWERED,
    "result": UNANSWERED,
    "download": (
        {"do": "expired_url"},
        {"status": 503},
        {"do": "cut_video"},
        {"do": "reset_before"},
    ),
}

STANDIN_OPTIONS = ("--queue-seconds", "0", "--render-seconds", "2")
PARAMETERS = {
    "SettleSeconds": "0",
    "RunComfyMaxInFlight": str(IN_FLIGHT_AT_MOST),
    "WaveSpeedMaxInFlight": str(IN_FLIGHT_AT_MOST),
    "RunComfyMaxSubmitsPerMinute": "0",
    "WaveSpeedMaxSubmitsPerMinute": "0",
    "DailyRenderLimit": "0",
    "DailySpendLimitUsd": "0",
}

DEAD_LETTERS = ("IntakeDeadLettersUrl", "UndeliveredEventsUrl", "UnconcludedJobsUrl")

WARM_UP_JOBS = 20
DROPPERS = 8
PATIENCE_SECONDS = 300  # without any job's end; an upload that intake dropped comes again after 180
SETTLE_PATIENCE_SECONDS = 60


@dataclass
class Burst:
    """What a burst came to."""

    jobs: int
    seconds: float = 0
    videos: int = 0
    ready_events: Counter[str] = field(default_factory=Counter)  # by job id
    failed_events: Counter[str] = field(default_factory=Counter)  # by error code
    accepted: int = 0
    provider_calls: Counter[str] = field(default_factory=Counter)  # by stage
    struck: Counter[str] = field(default_factory=Counter)  # by stage
    most_in_flight: dict[str, int] = field(default_factory=dict)  # by provider
    dead_letters: Counter[str] = field(default_factory=Counter)  # by queue
    slots_left: int = 0
    waiters_left: int = 0
    transitions: int = 0
    function_calls: Counter[str] = field(default_factory=Counter)  # by function
    ledger_writes: Counter[str] = field(default_factory=Counter)  # by kind of item
    memory: Memory = field(default_factory=Memory)  # at most, of the whole embedded AWS

    @property
    def costs(self) -> dict[str, float]:
        """What each job costs, on average."""
        totals = {
            "state transitions": self.transitions,
            "function calls": self.function_calls.total(),
            "ledger writes": self.ledger_writes.total(),
        }
        return {what: total / self.jobs for what, total in totals.items()}

    def promises(self) -> list["Promise"]:
        twice = [job for job, times in self.ready_events.items() if times > 1]
        return [
            Promise("videos", str(self.videos), self.videos == self.jobs),
            Promise(
                "jobs with a `Video Ready`",
                str(len(self.ready_events)),
                len(self.ready_events) == self.jobs,
            ),
            Promise("jobs with a second one", str(len(twice)), not twice),
            Promise("`Video Failed`", _by_name(self.failed_events), not self.failed_events),
            Promise("accepted submissions", str(self.accepted), self.accepted == self.jobs),
            Promise(
                f"most in flight (at most {IN_FLIGHT_AT_MOST})",
                _by_name(self.most_in_flight),
                set(self.most_in_flight) == set(PROVIDERS)
                and max(self.most_in_flight.values()) <= IN_FLIGHT_AT_MOST,
            ),
            Promise("dead letters", _by_name(+self.dead_letters), not self.dead_letters.total()),
            Promise("slots left", str(self.slots_left), not self.slots_left),
            Promise("waiters left", str(self.waiters_left), not self.waiters_left),
            # Else it was no bad day, and shows nothing of one.
            Promise(
                "faults that struck, at each stage",
                _by_name({stage: self.struck[stage] for stage in FAULTS}),
                all(self.struck[stage] for stage in FAULTS),
            ),
            Promise(
                f"most memory (at most {MEMORY_AT_MOST_BYTES / 1e9:g} GB)",
                f"{self.memory.total / 1e9:.2f} GB: processes {self.memory.processes / 1e9:.2f} "
                f"({self.memory.environments} environments), files {self.memory.files / 1e9:.2f}",
                self.memory.total <= MEMORY_AT_MOST_BYTES,
            ),
        ]


@dataclass(frozen=True)
class Promise:
    """One line of the verdict."""

    what: str
    found: str
    is_kept: bool


def compared(small: Burst, large: Burst) -> list[Promise]:
    """A job must cost the same whatever the backlog."""
    lines = []
    for what, before in small.costs.items():
        after = large.costs[what]
        difference = (after - before) / before if before else float(after > 0)
        lines.append(
            Promise(
                f"{what} a job, from {small.jobs} jobs to {large.jobs}",
                f"{before:.2f} to {after:.2f} ({difference:+.1%})",
                abs(difference) <= DIFFERENCE_AT_MOST,
            )
        )
    return lines


def _by_name(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "0"


# --- The burst ---


def drop(environment: Environment, jobs: int, say: Say = print) -> Burst:
    """Drop the pairs into a running embedded AWS, and count until all is quiet again."""
    account = Account(environment)
    burst = Burst(jobs)
    letters_before, calls_before = account.dead_letters(), account.function_calls()
    with (
        embedded.subscription(environment, "burst") as queue_url,
        account.ledger_stream() as stream,
        misbehaving(environment),
        ThreadPoolExecutor(DROPPERS) as droppers,
    ):
        events = Ends(environment, queue_url, STEM)
        with account.intake_held():
            for _ in droppers.map(partial(account.drop_pair, STEM), range(jobs)):
                pass
        begun = time.monotonic()
        events.wait_for(jobs, say)
        burst.seconds = time.monotonic() - begun
        account.wait_until_quiet()
        events.drain()
        burst.ready_events, burst.failed_events = events.ready, events.failed
        burst.ledger_writes = account.writes_in(stream)
        count_at_providers(environment, burst)
    burst.videos = account.videos()
    burst.dead_letters = account.dead_letters() - letters_before
    burst.function_calls = account.function_calls() - calls_before
    burst.transitions = account.transitions()
    burst.slots_left, burst.waiters_left = account.left_in_ledger()
    return burst


def warm_up(environment: Environment, jobs: int = WARM_UP_JOBS) -> None:
    """Have some environments of each function, and forget how."""
    account = Account(environment)
    with embedded.subscription(environment, "warm-up") as queue_url:
        events = Ends(environment, queue_url, WARM_UP_STEM)
        for number in range(jobs):
            account.drop_pair(WARM_UP_STEM, number)
        events.wait_for(jobs, say=lambda _: None)
    account.wait_until_quiet()
    for provider in PROVIDERS:
        standin(environment, provider, "reset", method="POST")


@dataclass
class Ends:
    """The jobs' last events, each once however often its queue delivers it."""

    environment: Environment
    queue_url: str
    stem: str
    ready: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    _jobs: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._sqs = embedded.client(self.environment, "sqs")

    def wait_for(self, jobs: int, say: Say) -> None:
        """Until each job has ended, or none has for a while."""
        begun = last_end = last_word = time.monotonic()
        while len(self._jobs) < jobs and time.monotonic() - last_end < PATIENCE_SECONDS:
            if self._receive(wait_seconds=1):
                last_end = time.monotonic()
            if time.monotonic() - last_word > 15:
                last_word = time.monotonic()
                say(f"{last_word - begun:4.0f} s: {len(self._jobs)} of {jobs} jobs have ended")

    def drain(self) -> None:
        while self._receive(wait_seconds=1):
            pass

    def _receive(self, wait_seconds: int) -> bool:
        messages = self._sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=wait_seconds
        ).get("Messages", [])
        for message in messages:
            self._note(json.loads(message["Body"]))
        if messages:
            self._sqs.delete_message_batch(
                QueueUrl=self.queue_url,
                Entries=[
                    {"Id": str(place), "ReceiptHandle": message["ReceiptHandle"]}
                    for place, message in enumerate(messages)
                ],
            )
        return bool(messages)

    def _note(self, event: dict[str, Any]) -> None:
        job = event["detail"].get("job", {}).get("id", "")
        if not job.startswith(self.stem) or event["id"] in self._seen:
            return
        self._seen.add(event["id"])
        self._jobs.add(job)
        if event["detail-type"] == "Video Ready":
            self.ready[job] += 1
        else:
            self.failed[event["detail"]["error"]["code"]] += 1


class Account:
    """An owner's view of the deployed stack."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._s3 = embedded.client(environment, "s3")
        self._sqs = embedded.client(environment, "sqs")
        self._states = embedded.client(environment, "stepfunctions")
        self._table = embedded.client(environment, "dynamodb")
        self._functions = embedded.client(environment, "lambda")
        self._logs = embedded.client(environment, "logs")
        stacks = embedded.client(environment, "cloudformation")
        (stack,) = stacks.describe_stacks(StackName=embedded.STACK)["Stacks"]
        self._outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
        self._image = grained_picture()
        self._voice = brief_voice()

    def drop_pair(self, stem: str, number: int) -> None:
        for ending, body in ((".wav", self._voice), (".jpg", self._image)):
            key = f"{INBOX}burst/{stem}{number:05}{ending}"
            self._s3.put_object(Bucket=self._environment["UPLOAD_BUCKET"], Key=key, Body=body)

    @contextmanager
    def intake_held(self) -> Iterator[None]:
        """The uploads gather in the queue and are let go together: that is at once, however long
        the uploading takes. (And the queue's batches are as full for a few pairs as for many.)"""
        self._set_intake(Enabled=False)
        try:
            yield
        finally:
            self._set_intake(Enabled=True)

    def _set_intake(self, **changes: object) -> None:
        (mapping,) = self._functions.list_event_source_mappings(
            FunctionName=f"{embedded.STACK}-intake"
        )["EventSourceMappings"]
        self._functions.update_event_source_mapping(UUID=mapping["UUID"], **changes)

    def videos(self) -> int:
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._environment["VIDEO_BUCKET"], Prefix=f"burst/{STEM}"
        )
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return sum(key.endswith(".mp4") for key in keys)

    def dead_letters(self) -> Counter[str]:
        return Counter({name: self._messages(self._outputs[name]) for name in DEAD_LETTERS})

    def _messages(self, queue_url: str) -> int:
        counts = self._sqs.get_queue_attributes(
            QueueUrl=queue_url,
            AttributeNames=[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
            ],
        )["Attributes"]
        return sum(int(count) for count in counts.values())

    def function_calls(self) -> Counter[str]:
        """Of each function, so far."""
        calls: Counter[str] = Counter()
        groups = f"/aws/lambda/{embedded.STACK}-"
        for listed in self._logs.get_paginator("describe_log_groups").paginate(
            logGroupNamePrefix=groups
        ):
            for group in listed["logGroups"]:
                name = group["logGroupName"]
                starts = self._logs.get_paginator("filter_log_events").paginate(
                    logGroupName=name, filterPattern='"START RequestId"'
                )
                calls[name.removeprefix(groups)] = sum(len(page["events"]) for page in starts)
        return calls

    def _executions(self, **status: str) -> list[dict[str, Any]]:
        pages = self._states.get_paginator("list_executions").paginate(
            stateMachineArn=self._environment["STATE_MACHINE_ARN"], **status
        )
        return [execution for page in pages for execution in page["executions"]]

    def transitions(self) -> int:
        ours = (it for it in self._executions() if it["name"].startswith(STEM))
        return sum(self._transitions_of(execution["executionArn"]) for execution in ours)

    def _transitions_of(self, execution: str) -> int:
        pages = self._states.get_paginator("get_execution_history").paginate(
            executionArn=execution, includeExecutionData=False
        )
        types = Counter(
            "throttled" if _is_throttled(event) else event["type"]
            for page in pages
            for event in page["events"]
        )
        others = (
            count
            for name, count in types.items()
            if name.endswith("StateEntered") and name != "TaskStateEntered"
        )
        return types["TaskScheduled"] - types["throttled"] + sum(others)

    def wait_until_quiet(self) -> None:
        """The last events come before the last slot is back. Whatever is left then is told."""
        give_up_at = time.monotonic() + SETTLE_PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            if not self._executions(statusFilter="RUNNING") and not any(self.left_in_ledger()):
                return
            time.sleep(1)

    def left_in_ledger(self) -> tuple[int, int]:
        """Slots that are taken, and waiters."""
        pages = self._table.get_paginator("scan").paginate(
            TableName=self._outputs["LedgerTable"], ProjectionExpression="pk"
        )
        kinds = Counter(_kind(item) for page in pages for item in page["Items"])
        return kinds["slots"], kinds["waiters"]

    @contextmanager
    def ledger_stream(self) -> Iterator[str]:
        """A stream of the ledger's changes, for as long as it is looked at."""
        table = self._outputs["LedgerTable"]
        on = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
        self._table.update_table(TableName=table, StreamSpecification=on)
        try:
            yield self._table.describe_table(TableName=table)["Table"]["LatestStreamArn"]
        finally:
            self._table.update_table(TableName=table, StreamSpecification={"StreamEnabled": False})

    def writes_in(self, stream: str) -> Counter[str]:
        streams = embedded.client(self._environment, "dynamodbstreams")
        writes: Counter[str] = Counter()
        shards = streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]
        for shard in shards:
            place = streams.get_shard_iterator(
                StreamArn=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while place:
                read = streams.get_records(ShardIterator=place, Limit=1000)
                writes.update(_kind(record["dynamodb"]["Keys"]) for record in read["Records"])
                place = read.get("NextShardIterator") if read["Records"] else None
        return writes


def _is_throttled(event: dict[str, Any]) -> bool:
    details: dict[str, str] = event.get("taskFailedEventDetails", {})
    return details.get("error") == "Lambda.TooManyRequestsException"


def _kind(item: dict[str, Any]) -> str:
    kind: str = item["pk"]["S"].split("#")[0]
    return kind


def grained_picture(width: int = 420, height: int = 416) -> bytes:
    """A JPEG of 84 kB, because a plain one is too small: with `brief_voice`, a pair has 100 kB."""
    file = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(file, "JPEG", quality=70)
    return file.getvalue()


def brief_voice(periods: int = 100) -> bytes:
    """A tone: half a second of it, or as many periods of 5 ms."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(16_000)
        recording.writeframes((b"\x00\x10" * 40 + b"\x00\xf0" * 40) * periods)
    return file.getvalue()


# --- The providers' stand-ins ---


@contextmanager
def misbehaving(environment: Environment) -> Iterator[None]:
    """The stand-ins fail one call in twenty of this burst's jobs."""
    for provider in PROVIDERS:
        for fault in faults():
            standin(environment, provider, "faults", fault)
    try:
        yield
    finally:
        for provider in PROVIDERS:
            standin(environment, provider, "faults", method="DELETE")


def faults() -> Iterator[dict[str, object]]:
    """All kinds together fail their share of a stage's calls."""
    for stage, (at, kinds) in enumerate(FAULTS.items()):
        percent = 100 * (1 - (1 - FAILING_SHARE) ** (1 / len(kinds)))
        for number, kind in enumerate(kinds):
            chance = {"percent": percent, "times": None, "seed": 1000 * SEED + 100 * stage + number}
            yield {**kind, "at": at, "match": STEM, **chance}


def count_at_providers(environment: Environment, burst: Burst) -> None:
    for provider in PROVIDERS:
        books = standin(environment, provider, "requests")
        burst.most_in_flight[provider] = books["most_in_flight"]
        burst.provider_calls.update(books["calls"])
        burst.struck.update(books["struck"])
        burst.accepted += sum(
            submission["accepted"]
            for submission in books["submissions"]
            if any(STEM in path for path in submission["inputs"])
        )


def standin(
    environment: Environment,
    provider: str,
    path: str,
    body: object = None,
    method: str | None = None,
) -> Any:  # noqa: ANN401 - whatever the stand-in says
    request = urllib.request.Request(
        f"{environment[f'{provider.upper()}_URL']}/_standin/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


# --- The verdict ---


def show(console: Console, burst: Burst, lines: list[Promise]) -> None:
    table = Table(title=f"{burst.jobs} pairs at once", title_justify="left")
    table.add_column("")
    table.add_column("found", overflow="fold")
    table.add_column("")
    for line in lines:
        table.add_row(line.what, line.found, "[green]✓[/]" if line.is_kept else "[red]broken[/]")
    table.add_section()
    for what, cost in burst.costs.items():
        table.add_row(f"{what} a job", f"{cost:.2f}")
    table.add_row("function calls", _by_name(burst.function_calls))
    table.add_row("ledger writes", _by_name(burst.ledger_writes))
    stages = ", ".join(
        f"{stage} {burst.struck[stage]} of {calls}"
        for stage, calls in burst.provider_calls.items()
        if calls
    )
    table.add_row("calls that failed", stages)
    table.add_row("seconds in all", f"{burst.seconds:.0f}")
    table.add_row("jobs a minute", f"{burst.jobs / burst.seconds * 60:.0f}")
    console.print(table)


def one_burst(home: Home, jobs: int, console: Console) -> Burst:
    embedded.down(home)  # what an interrupted one left
    console.print(f"Deploying for a burst of {jobs}")
    environment = embedded.up(
        home,
        standin_options=STANDIN_OPTIONS,
        parameters=PARAMETERS,
        max_wait_seconds=3,  # a render and the fetching of its inputs are over by then
        say=lambda _: None,
    )
    try:
        with peak(home) as found:
            warm_up(environment)
            burst = drop(environment, jobs, say=console.print)
        burst.memory = found[0]
        return burst
    finally:
        embedded.down(home)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.burst")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument(
        "--compare", action="store_true", help=f"with a burst of {SMALL_BURST} before"
    )
    asked = parser.parse_args()
    console, home = Console(), Home(OUT / "bench")
    lines: list[Promise] = []
    small: Burst | None = None
    for jobs in (*([SMALL_BURST] if asked.compare else []), asked.jobs):
        burst = one_burst(home, jobs, console)
        found = burst.promises() + (compared(small, burst) if small else [])
        show(console, burst, found)
        lines += found
        small = burst
    return 0 if all(line.is_kept for line in lines) else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
