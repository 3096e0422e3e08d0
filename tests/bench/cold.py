"""Compare each function's cold start, first call included, with that of `boto3.client("s3")`.

    python -m tests.bench.cold

The embedded AWS renders one job. Then each handler is imported and called in a fresh interpreter:
with boto3 as Lambda's runtime brings it (here from MiniStack's environment), the layers as `sam
build` made them (.pyc included), the function's environment, and an event of that job under a new
id. The baseline runs before each of them, on the same layers, and the ratio is the median of these
pairs. CPU is user and system time, and steadier.

Not as in Lambda: no connection has TLS, and admit's task token is void, so that it takes the slot
back as well. Prepare converts the media in processes of their own, which are counted.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from local import embedded
from local.embedded import BUILD, ENVIRONMENTS, OUT, PROJECT, Environment, Home

ROUNDS = 9
MAX_CPU_RATIOS = {"admit": 1.9, "submit": 2.2, "poll": 2.0}
"""A tenth above what they were in November 2026. Pydantic's import alone is 0.3."""
BASELINE = 'import boto3\ns3 = boto3.client("s3")\ndef handler(event, context): pass\n'
BOTO3 = ("boto3", "botocore", "s3transfer", "jmespath", "urllib3", "dateutil", "six.py")
LAYERS = [BUILD / "DropreelLayer/python", BUILD / "MediaLayer/python"]
START = """
import importlib, json, resource, sys, time
from types import SimpleNamespace

def cpu_seconds():
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)

context = SimpleNamespace(
    function_name="bench", memory_limit_in_mb=512, invoked_function_arn="", aws_request_id="bench",
    get_remaining_time_in_millis=lambda: 240_000,
)
module, event = sys.argv[1], json.load(sys.stdin)
wall, cpu = time.perf_counter(), cpu_seconds()
answer = importlib.import_module(module).handler(event, context)
print(json.dumps([cpu_seconds() - cpu, time.perf_counter() - wall, answer]))
"""

Event = dict[str, Any]


class Bench:
    """A stack with one rendered job, and the CPU and wall ratios of its functions."""

    def __init__(self, environment: Environment, home: Home) -> None:
        self._environment, self._home = environment, home
        self.ratios: dict[str, list[tuple[float, float]]] = defaultdict(list)
        (site_packages,) = ENVIRONMENTS.glob("aws/lib/python*/site-packages")
        for folder in ("baseline", "boto3"):
            shutil.rmtree(home.path / folder, ignore_errors=True)
            (home.path / folder).mkdir()
        (home.path / "baseline/app.py").write_text(BASELINE)
        for name in BOTO3:
            (home.path / "boto3" / name).symlink_to(site_packages / name)
        states, self._s3, self._functions = (
            embedded.client(environment, service) for service in ("stepfunctions", "s3", "lambda")
        )
        self._drop("cold")
        self._s3.get_waiter("object_exists").wait(
            Bucket=environment["VIDEO_BUCKET"], Key="cold.mp4"
        )
        machine = environment["STATE_MACHINE_ARN"]
        (execution,) = states.list_executions(stateMachineArn=machine)["executions"]
        self._execution: str = execution["executionArn"]
        self._started_at: str = execution["startDate"].isoformat()
        answers: list[Event] = [
            json.loads(event["taskSucceededEventDetails"]["output"]).get("Payload")
            for event in states.get_execution_history(executionArn=self._execution)["events"]
            if event["type"] == "TaskSucceeded"
        ]
        self._plan, _, submission, *polls = answers
        completed = next(poll for poll in polls if poll["state"] == "completed")
        self._completed = {"ticket": submission["ticket"], "progress": completed}
        # From now on the stack's own intake sees no upload, and what ours starts does nothing.
        intake = self._functions.get_function_configuration(FunctionName="dropreel-intake")
        queue, late = intake["Environment"]["Variables"]["QUEUE_URL"], {"DelaySeconds": "900"}
        embedded.client(environment, "sqs").set_queue_attributes(QueueUrl=queue, Attributes=late)
        nothing = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
        self._nothing: str = states.create_state_machine(
            name="nothing", definition=json.dumps(nothing), roleArn=intake["Role"]
        )["stateMachineArn"]

    def measure(self) -> None:
        """Start each function once, in the order of a job."""
        plan = self._new_plan()
        record = {
            "body": self._drop(plan["job"]["id"]),
            "messageId": "1",
            "eventSource": "aws:sqs",
            "attributes": {"ApproximateReceiveCount": "1"},
        }
        self._start("intake", {"Records": [record]}, STATE_MACHINE_ARN=self._nothing)
        self._start("prepare", plan["job"])
        active = {"plan": plan, "started_at": self._started_at}
        self._start("admit", {**active, "task_token": "void", "retry": 0})
        active["plan"] = plan = self._new_plan()  # admit has ended the other one's attempt
        submission = self._start("submit", {"plan": plan})
        self._start("poll", {**active, "ticket": submission["ticket"]})
        self._start("deliver", {**active, **self._completed})
        ended = {
            "job": self._new_plan()["job"],
            "execution": self._execution,
            "started_at": self._started_at,
        }
        error = {"Error": "InputRejected", "Cause": ""}
        self._start("conclude", {**ended, "error": error})
        self._start("announce", ended)
        self._start("sweep", {"serve": "waiting jobs"})
        self._start("watch", {"watch": "queues"})

    def _start(self, name: str, event: Event, **variables: str) -> Any:  # noqa: ANN401 - JSON
        """Measure the baseline, then the function. Returns the handler's answer."""
        function = self._functions.get_function_configuration(FunctionName=f"dropreel-{name}")
        variables = function["Environment"]["Variables"] | variables
        module: str = function["Handler"].partition(".")[0]
        # The embedded AWS deploys a handler around deliver's, which reads the stand-ins' videos.
        code = self._home.path / name if name == "deliver" else PROJECT / "functions" / name
        base_cpu, base_wall, _ = self._run(self._home.path / "baseline", "app", event, variables)
        cpu, wall, answer = self._run(code, module, event, variables)
        self.ratios[name].append((cpu / base_cpu, wall / base_wall))
        return answer

    def _run(self, code: Path, module: str, event: Event, variables: dict[str, str]) -> list[Any]:
        packages = os.pathsep.join(map(str, [code, *LAYERS, self._home.path / "boto3"]))
        # By LAMBDA_TASK_ROOT, Powertools knows that it is in Lambda.
        paths = {"PYTHONPATH": packages, "LAMBDA_TASK_ROOT": "/"}
        ran = subprocess.run(
            [ENVIRONMENTS / "aws/bin/python", "-S", "-c", START, module],
            input=json.dumps(event).encode(),
            stdout=subprocess.PIPE,
            check=True,
            env={"PATH": os.environ["PATH"], **self._environment, **variables, **paths},
        )
        measured: list[Any] = json.loads(ran.stdout.splitlines()[-1])  # before it come logs
        return measured

    def _new_plan(self) -> Event:
        return self._plan | {"job": self._plan["job"] | {"id": f"cold-{uuid4().hex[:16]}"}}

    def _drop(self, stem: str) -> str:
        """Upload a picture and a voice. Returns S3's event of the second."""
        bucket = self._environment["UPLOAD_BUCKET"]
        for sample, key in (("portrait.png", f"{stem}.png"), ("speech.mp3", f"{stem}.mp3")):
            body = (PROJECT / "samples" / sample).read_bytes()
            self._s3.put_object(Bucket=bucket, Key=f"inbox/{key}", Body=body)
        event = json.loads((PROJECT / "events/samples/object_created.json").read_text())
        event["detail"] |= {"bucket": {"name": bucket}, "object": {"key": f"inbox/{stem}.mp3"}}
        return json.dumps(event)


def main() -> None:
    home = Home(OUT / "bench")
    environment = embedded.up(home, say=lambda _: None)
    try:
        bench = Bench(environment, home)
        bench.measure()
        bench.ratios.clear()  # the first round has written .pyc files that were missing
        for _ in range(ROUNDS):
            bench.measure()
    finally:
        embedded.down(home)
    print(f"cold starts, boto3.client('s3') = 1, median of {ROUNDS}\nfunction   CPU  wall")
    slow = []
    for name, measured in bench.ratios.items():
        cpu, wall = map(median, zip(*measured, strict=True))
        print(f"{name:<9} {cpu:5.2f} {wall:5.2f}")
        slow += [name] if cpu > MAX_CPU_RATIOS.get(name, cpu) else []
    if slow:
        sys.exit(f"too slow: {', '.join(slow)}")


if __name__ == "__main__":
    main()
