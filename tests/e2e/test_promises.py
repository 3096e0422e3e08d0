"""Never pay twice, never flood, never lose: what is promised when many come, and when things end
otherwise than they should.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from local.embedded import PROJECT
from tests.e2e.conftest import PORTRAIT, RUNCOMFY_SLOTS, SPEECH, Event, Stack, job_of, until

BURST = 10


def events_of(stack: Stack, job: str) -> list[tuple[str, int]]:
    """What was said of a job, and of which of its runs."""
    return [
        (event["detail-type"], event["detail"]["job"]["run"])
        for event in stack.all_events()
        if event["detail"].get("job", {}).get("id") == job
    ]


def failure_of(stack: Stack, job: str) -> str:
    event = stack.event_of(job)
    assert event["detail-type"] == "Video Failed"
    code: str = event["detail"]["error"]["code"]
    return code


def run_of(stack: Stack, job: str, run: int) -> Event:
    return stack.event(
        lambda event: (
            (said := event["detail"].get("job", {})).get("id") == job and said["run"] == run
        )
    )


def rerun(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "operate.rerun", *arguments],
        cwd=PROJECT,
        env={
            **os.environ,
            **stack.environment,
            "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "layers/dropreel")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_of_many_at_once_each_is_rendered_once_and_never_too_many_together(stack: Stack) -> None:
    stems = [f"burst{number}" for number in range(BURST)]
    bad_day: tuple[dict[str, Any], ...] = (
        {"at": "submit", "status": 429, "headers": {"Retry-After": "1"}},
        {"at": "submit", "status": 503},
        {"at": "status", "status": 502},
        {"at": "status", "do": "malformed_json"},
    )
    for provider in ("runcomfy", "wavespeed"):
        for seed, fault in enumerate(bad_day):
            stack.fault(provider, match="burst", times=None, percent=20, seed=seed, **fault)

    with ThreadPoolExecutor(8) as people:
        jobs = list(people.map(stack.drop, stems))
    said = [stack.event_of(job) for job in jobs]

    assert {event["detail-type"] for event in said} == {"Video Ready"}
    assert [events_of(stack, job) for job in jobs] == [[("Video Ready", 1)]] * BURST
    submitted = [
        submission
        for provider in ("runcomfy", "wavespeed")
        for submission in stack.submissions("burst", provider)
    ]
    assert len([submission for submission in submitted if submission["accepted"]]) == BURST
    assert stack.most_in_flight() <= RUNCOMFY_SLOTS
    assert all(stack.video_bucket(f"{stem}.mp4") for stem in stems)


def test_who_waits_may_be_stopped_or_lose_a_file_and_the_next_is_served(stack: Stack) -> None:
    """All slots are held by renders that never begin; what waits behind them ends in three ways."""
    stack.fault(match="holder", do="stay_queued", times=RUNCOMFY_SLOTS)
    holders = [stack.drop(f"holder{number}") for number in range(RUNCOMFY_SLOTS)]
    until(lambda: len(stack.submissions("holder")) == RUNCOMFY_SLOTS, "the held slots")
    stopped, bereft, patient = (stack.drop(stem) for stem in ("stopped", "bereft", "waiting"))
    until(lambda: len(stack.ledger("waiters#")) == 3, "the queue")
    stack.delete("bereft.mp3")
    states = stack.client("stepfunctions")

    states.stop_execution(executionArn=stack.execution_arn(stopped))
    assert failure_of(stack, stopped) == "ExecutionAborted"
    assert stack.submissions("stopped") == []
    assert len(stack.ledger("waiters#")) == 2
    assert stack.most_in_flight() == RUNCOMFY_SLOTS  # the limit is met, and never exceeded
    for holder in holders:
        states.stop_execution(executionArn=stack.execution_arn(holder))

    assert failure_of(stack, bereft) == "InputGone"
    assert stack.event_of(patient)["detail-type"] == "Video Ready"
    for holder in holders:
        assert failure_of(stack, holder) == "ExecutionAborted"
    assert [submission["cancelled"] for submission in stack.submissions("holder")] == [
        True
    ] * RUNCOMFY_SLOTS
    assert stack.submissions("bereft") == []
    assert json.loads(stack.video_bucket("bereft.error.json") or b"{}")["error"]["code"] == (
        "InputGone"
    )


def test_a_delivery_that_failed_is_run_again_without_paying_again(stack: Stack) -> None:
    stack.fault(match="spilled", do="html_page")
    job = stack.drop("spilled")
    assert failure_of(stack, job) == "ResultRefused"
    until(lambda: stack.ended(job) == "FAILED", "the end of the first run")

    told = rerun(stack, "--id", job)

    assert told.returncode == 0, told.stdout + told.stderr
    assert run_of(stack, job, run=2)["detail-type"] == "Video Ready"
    assert len(stack.submissions("spilled")) == 1
    assert events_of(stack, job) == [("Video Failed", 1), ("Video Ready", 2)]
    assert stack.video_bucket("spilled.mp4") is not None
    assert stack.video_bucket("spilled.error.json") is None
    again = rerun(stack, "--id", job)
    assert again.returncode == 1
    assert len(stack.executions("spilled-")) == 2


def test_what_can_never_be_paid_is_refused_before_it_is_sent(stack: Stack) -> None:
    said = {"resolution": "720p", "prompt": "She sings."}  # only WaveSpeed takes a prompt
    stack.upload("dear.json", json.dumps(said).encode())
    stack.upload("dear.png", PORTRAIT.read_bytes())
    stack.upload("dear.mp3", SPEECH.read_bytes())

    event = stack.event(lambda e: e["detail"].get("job", {}).get("stem") == "dear")

    assert event["detail"]["error"]["code"] == "SpendLimitReached"
    assert stack.submissions("dear", "wavespeed") == []


def test_the_sweep_starts_what_no_event_started(stack: Stack) -> None:
    events = stack.client("events")
    (rule,) = (
        rule["Name"] for rule in events.list_rules()["Rules"] if "UploadRule" in rule["Name"]
    )
    events.disable_rule(Name=rule)
    try:
        given = [
            stack.upload(key, file.read_bytes())
            for key, file in (("swept.png", PORTRAIT), ("swept.mp3", SPEECH))
        ]
    finally:
        events.enable_rule(Name=rule)
    job = job_of("swept", *given)
    assert stack.executions("swept") == []

    stack.client("lambda").invoke(FunctionName=stack.output("SweepFunctionName"), Payload=b"{}")

    assert stack.event_of(job)["detail-type"] == "Video Ready"
    assert events_of(stack, job) == [("Video Ready", 1)]


def test_nothing_is_left_behind(stack: Stack) -> None:
    """Runs last here: of all the jobs above, no slot is held, nobody waits, nothing is dead."""
    until(
        lambda: (
            not stack.client("stepfunctions").list_executions(
                stateMachineArn=stack.environment["STATE_MACHINE_ARN"], statusFilter="RUNNING"
            )["executions"]
        ),
        "the end of all executions",
    )

    until(lambda: not stack.ledger("slots#"), "the return of all slots")
    assert stack.ledger("waiters#") == []
    for queue in ("IntakeDeadLettersUrl", "UndeliveredEventsUrl", "UnconcludedJobsUrl"):
        assert stack.idle(stack.output(queue)), queue
    (spent,) = stack.ledger("spend") or pytest.fail("nothing was counted")
    runs = [item for item in stack.ledger("job#") if item["sk"]["S"].startswith("run#")]
    kept = sum(
        float(item[name]["N"])
        for item in runs
        for name in ("charged_usd", "kept_usd")
        if name in item
    )
    assert float(spent["spent_usd"]["N"]) == pytest.approx(kept)
