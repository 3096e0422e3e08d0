"""Draw docs/dashboard.png: the stack's dashboard, from real numbers of a burst on the embedded AWS.

    python -m local.dashboard [docs/dashboard.png]

Some dozen pairs are dropped, and the stand-ins misbehave. The embedded AWS keeps the metrics as log
lines: they are read there, and put where its alarms see them. A point is 15 seconds, and the watch
runs every five.
"""

import io
import json
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from dropreel.model.catalog import MODELS, TITLES
from dropreel.model.job import INBOX
from local import embedded
from local.embedded import OUT, PROJECT, STACK, Environment, Home
from local.emf import Value, values_in
from local.panels import Measured, draw

PICTURE = PROJECT / "docs/dashboard.png"
PERIOD_SECONDS = 15
WATCH_EVERY_SECONDS = 5
MAX_SECONDS = 420
MEASURED_BY = ("announce", "conclude", "intake", "sweep", "watch")
DEAD_LETTERS = {
    "IntakeDeadLettersUrl": "IntakeDeadLetters",
    "UndeliveredEventsUrl": "UndeliveredEvents",
    "UnconcludedJobsUrl": "UnconcludedJobs",
}
WAVES = {0: 18, 45: 8, 90: 22, 110: 8}  # pairs, by the second in which they are dropped
OTHER_MODEL = "wan-2.2-image-to-video"
PRICES = {
    offer.endpoint: {"usd_per_second": {str(value): 0.05 for value in resolution.values}}
    for model in MODELS.values()
    for offer in model.route
    if offer.on and (resolution := offer.option("resolution"))
}
PARAMETERS = {
    "SettleSeconds": "0",
    "IncompleteAfterMinutes": "1",
    "RunComfyMaxInFlight": "5",
    "WaveSpeedMaxInFlight": "3",
    "WaveSpeedMaxSubmitsPerMinute": "0",
    "DailySpendLimitUsd": "12",
    "CatalogOverrides": json.dumps(PRICES),
}
FAULTS: tuple[dict[str, object], ...] = (
    # A refusal moves a job to its next offer, or ends it.
    {"at": "submit", "status": 402, "percent": 25, "seed": 5, "times": None},
    {"at": "render", "error": "The face is hidden.", "percent": 5, "seed": 2, "times": None},
    {"at": "render", "render_seconds": 22, "percent": 25, "seed": 3, "times": None},
    {"at": "render", "queue_seconds": 12, "percent": 25, "seed": 4, "times": None},
)


class Burst:
    """Drops pairs, and measures until all have ended."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._s3, self._sqs, self._logs, self._lambda, self._states, self._cloudwatch = (
            embedded.client(environment, service)
            for service in ("s3", "sqs", "logs", "lambda", "stepfunctions", "cloudwatch")
        )
        stacks = embedded.client(environment, "cloudformation")
        (stack,) = stacks.describe_stacks(StackName=STACK)["Stacks"]
        self._outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
        self._dead_letters: list[Value] = []
        self._dropped = 0

    def run(self) -> Measured:
        begun, waves = time.time(), dict(WAVES)
        self._put("lonely", {".png": _picture()})
        while (passed := time.time() - begun) < MAX_SECONDS:
            for due in [second for second in waves if second <= passed]:
                self._drop(waves.pop(due))
            self._watch()
            if not waves and passed > 120 and self._is_quiet():
                break
            time.sleep(WATCH_EVERY_SECONDS)
        self._lambda.invoke(FunctionName=self._outputs["SweepFunctionName"], Payload=b"{}")
        values = [*self._emitted(), *self._dead_letters]
        begin_ms = int(begun * 1000)
        last_ms = max(value.at_ms for value in values)
        return Measured(
            [value for value in values if value.at_ms >= begin_ms],
            begin_ms,
            last_ms + 1000,
            PERIOD_SECONDS,
        )

    def _drop(self, pairs: int) -> None:
        for _ in range(pairs):
            self._dropped += 1
            stem = f"pair-{self._dropped:03}"
            if self._dropped % 12 == 0:
                self._put(stem, {".wav": _voice(), ".png": b"no picture"})
            elif self._dropped % 4 == 0:
                options = json.dumps({"model": OTHER_MODEL, "prompt": "She waves."})
                self._put(stem, {".json": options.encode(), ".png": _picture()})
            else:
                self._put(stem, {".wav": _voice(self._dropped), ".png": _picture()})

    def _put(self, stem: str, files: dict[str, bytes]) -> None:
        for ending, file in files.items():
            key = f"{INBOX}{stem}{ending}"
            self._s3.put_object(Bucket=self._environment["UPLOAD_BUCKET"], Key=key, Body=file)

    def _watch(self) -> None:
        self._lambda.invoke(FunctionName=f"{STACK}-watch:live", Payload=b'{"watch": "queues"}')
        for output in DEAD_LETTERS:
            url = self._outputs[output]
            depth = self._sqs.get_queue_attributes(
                QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"]
            )["Attributes"]["ApproximateNumberOfMessages"]
            dimensions = frozenset({("QueueName", url.rpartition("/")[2])})
            at_ms = int(time.time() * 1000)
            metric = "ApproximateNumberOfMessagesVisible"
            depth_then = Value("AWS/SQS", metric, dimensions, "Count", float(depth), at_ms)
            self._dead_letters.append(depth_then)

    def _is_quiet(self) -> bool:
        running = self._states.list_executions(
            stateMachineArn=self._environment["STATE_MACHINE_ARN"], statusFilter="RUNNING"
        )
        return not running["executions"]

    def _emitted(self) -> Iterator[Value]:
        for function in MEASURED_BY:
            pages = self._logs.get_paginator("filter_log_events").paginate(
                logGroupName=f"/aws/lambda/{STACK}-{function}", filterPattern='"CloudWatchMetrics"'
            )
            yield from values_in(event["message"] for page in pages for event in page["events"])

    def alarms(self, measured: Measured) -> dict[str, str]:
        """The state of each by its ARN, after they have seen what was measured."""
        for value in measured.values:
            self._cloudwatch.put_metric_data(
                Namespace=value.namespace,
                MetricData=[
                    {
                        "MetricName": value.metric,
                        "Dimensions": [{"Name": n, "Value": v} for n, v in value.dimensions],
                        "Value": value.value,
                    }
                ],
            )
        alarms = self._cloudwatch.describe_alarms()["MetricAlarms"]
        return {alarm["AlarmArn"]: alarm["StateValue"] for alarm in alarms}

    def dashboard(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self._cloudwatch.get_dashboard(DashboardName=STACK)["DashboardBody"])


def _picture() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((480, 480), 60).convert("RGB").save(file, "PNG")  # no two are the same
    return file.getvalue()


def _voice(number: int = 0) -> bytes:
    """A tone of four seconds and more."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(16_000)
        recording.writeframes((b"\x00\x10" * 40 + b"\x00\xf0" * 40) * (800 + 40 * (number % 9)))
    return file.getvalue()


def main() -> int:
    path = Path(sys.argv[1]) if sys.argv[1:] else PICTURE
    home = Home(OUT / "dashboard")
    embedded.down(home)  # what an interrupted one left
    print("Deploying, and dropping some dozen pairs: this takes five minutes")
    environment = embedded.up(
        home,
        standin_options=("--queue-seconds", "2", "--render-seconds", "8"),
        parameters=PARAMETERS,
        max_wait_seconds=3,
        say=lambda _: None,
    )
    try:
        for provider in TITLES:
            for fault in FAULTS:
                url = f"{environment[f'{provider.upper()}_URL']}/_standin/faults"
                httpx.post(url, json=fault).raise_for_status()
        burst = Burst(environment)
        measured = burst.run()
        page = draw(burst.dashboard(), measured, burst.alarms(measured))
    finally:
        embedded.down(home)
    page.save(path)
    print(f"{path}: {path.stat().st_size // 1000} kB, {len(measured.values)} values")
    return 0


if __name__ == "__main__":
    sys.exit(main())
