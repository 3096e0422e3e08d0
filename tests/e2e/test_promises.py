"""Never pay twice, never flood, never lose: what is promised when many come, and when things end
otherwise than they should.
"""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from dropreel.model.job import execution_name
from local import embedded
from local.embedded import LAMBDA_BOUNDS
from tests.e2e.conftest import (
    PORTRAIT,
    RUNCOMFY_SLOTS,
    SPEECH,
    WAVESPEED_SLOTS,
    Event,
    Stack,
    job_of,
    until,
)
from tests.support.memory import peak

BURST, FALLING_OVER = 10, WAVESPEED_SLOTS + 1
AS_OFTEN_AS_CAN_BE = 1_000
# With these seeds each strikes within the first seven calls that it may strike.
UNANSWERED: tuple[dict[str, Any], ...] = (
    {"at": "status", "status": 502, "seed": 2},
    {"at": "status", "do": "malformed_json", "seed": 7},
)
BAD_DAY: dict[str, tuple[dict[str, Any], ...]] = {
    "runcomfy": (
        {"at": "submit", "status": 429, "headers": {"Retry-After": "1"}, "seed": 5},
        *UNANSWERED,
    ),
    "wavespeed": UNANSWERED,  # no wait there keeps the jobs from coming all at once
}


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


def test_a_burst_is_rendered_once_each_within_the_slots(stack: Stack) -> None:
    stems = [f"burst{number}" for number in range(BURST)]
    # More jobs than WaveSpeed has slots, and there for longer than it takes to submit them all.
    stack.fault(match="burst", at="submit", status=403, times=FALLING_OVER)
    stack.fault("wavespeed", match="burst", at="render", render_seconds=5, times=None)
    for provider, faults in BAD_DAY.items():
        for fault in faults:
            stack.fault(provider, match="burst", times=AS_OFTEN_AS_CAN_BE, percent=20, **fault)

    with peak(stack.home) as memory, ThreadPoolExecutor(8) as people:
        jobs = list(people.map(stack.drop, stems))
        said = [stack.event_of(job) for job in jobs]

    # One that has to end is still there for a moment, while a call starts the next.
    most = ("LAMBDA_MAX_ENVIRONMENTS", "LAMBDA_ACCOUNT_CONCURRENCY")
    assert memory[0].environments <= sum(int(LAMBDA_BOUNDS[bound]) for bound in most)
    assert [event["detail"].get("error") for event in said if "error" in event["detail"]] == []
    assert {event["detail-type"] for event in said} == {"Video Ready"}
    assert [events_of(stack, job) for job in jobs] == [[("Video Ready", 1)]] * BURST
    accepted = {
        provider: sum(one["accepted"] for one in stack.submissions("burst", provider))
        for provider in BAD_DAY
    }
    assert accepted == {"runcomfy": BURST - FALLING_OVER, "wavespeed": FALLING_OVER}
    assert stack.most_in_flight() <= RUNCOMFY_SLOTS
    assert stack.most_in_flight("wavespeed") <= WAVESPEED_SLOTS
    assert all(stack.video_bucket(f"{stem}.mp4") for stem in stems)
    assert 0 not in struck_on_the_bad_day(stack).values()


def struck_on_the_bad_day(stack: Stack) -> Counter[int]:
    """How often each fault struck, at both providers together, by its seed."""
    struck = Counter({fault["seed"]: 0 for faults in BAD_DAY.values() for fault in faults})
    for provider in BAD_DAY:
        for fault in stack.faults("burst", provider):
            if fault.get("seed") in struck:
                struck[fault["seed"]] += AS_OFTEN_AS_CAN_BE - fault["times"]
    return struck


def test_a_waiting_job_may_be_stopped_or_lose_a_file(stack: Stack) -> None:
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

    told = stack.operate("rerun", "--id", job)

    assert told.returncode == 0, told.stdout + told.stderr
    assert run_of(stack, job, run=2)["detail-type"] == "Video Ready"
    assert len(stack.submissions("spilled")) == 1
    assert events_of(stack, job) == [("Video Failed", 1), ("Video Ready", 2)]
    assert stack.video_bucket("spilled.mp4") is not None
    assert stack.video_bucket("spilled.error.json") is None
    again = stack.operate("rerun", "--id", job)
    assert again.returncode == 1
    assert len(stack.executions("spilled-")) == 2


def test_a_job_over_the_daily_limit_waits_and_lets_others_pass(stack: Stack) -> None:
    sings = {"prompt": "She sings."}  # only WaveSpeed takes a prompt
    for stem, said in (("dear", {"resolution": "720p", **sings}), ("cheap", sings)):
        stack.upload(f"{stem}.json", json.dumps(said).encode())
        stack.upload(f"{stem}.png", PORTRAIT.read_bytes())
        stack.upload(f"{stem}.mp3", SPEECH.read_bytes())
        until(partial(stack.ledger, f"job#{stem}-"), f"the ledger's word of {stem}")

    event = stack.event(lambda e: e["detail"].get("job", {}).get("stem") == "cheap")

    assert event["detail-type"] == "Video Ready"
    (waiter,) = stack.ledger("waiters#wavespeed")
    assert waiter["job_id"]["S"].startswith("dear-")
    assert stack.submissions("dear", "wavespeed") == []
    assert "Waits until DailySpendLimitUsd is raised" in stack.all_logs()
    (execution,) = stack.executions("dear-")
    stack.client("stepfunctions").stop_execution(executionArn=execution["executionArn"])
    until(lambda: not stack.ledger("waiters#"), "the end of its wait")


def test_the_sweep_starts_what_no_event_started(stack: Stack) -> None:
    queue = stack.output("IntakeQueueUrl")
    with uploads_without_events(stack) as untold:
        given = [
            stack.upload(key, file.read_bytes())
            for key, file in (("swept.png", PORTRAIT), ("swept.mp3", SPEECH))
        ]
        job = job_of("swept", *given)
        until(lambda: stack.waiting(untold) == len(given), "the events that nobody is told of")
        until(lambda: stack.idle(queue), "the end of the intake queue's work")
        assert stack.executions("swept-") == []

        answer = stack.client("lambda").invoke(
            FunctionName=stack.output("SweepFunctionName"), Payload=b"{}"
        )

        assert "FunctionError" not in answer, answer["Payload"].read()
        assert stack.event_of(job)["detail-type"] == "Video Ready"
    assert events_of(stack, job) == [("Video Ready", 1)]
    assert [execution["name"] for execution in stack.executions("swept-")] == [job]


@contextmanager
def uploads_without_events(stack: Stack) -> Iterator[str]:
    """The upload rule is off, and a queue has the events that it lets pass: S3 tells of an upload
    a moment later, so that without them nobody knew whether one is still to come."""
    events = stack.client("events")
    (rule,) = (
        rule["Name"] for rule in events.list_rules()["Rules"] if "UploadRule" in rule["Name"]
    )
    witness = embedded.subscribe_queue(stack.environment, "default", "witness")
    uploads = {"source": ["aws.s3"], "detail": {"object": {"key": [{"prefix": "inbox/"}]}}}
    events.put_rule(Name="witness", EventPattern=json.dumps(uploads))
    events.disable_rule(Name=rule)
    try:
        yield witness
    finally:
        events.enable_rule(Name=rule)
        events.remove_targets(Rule="witness", Ids=["queue"])
        events.delete_rule(Name="witness")


def test_a_failed_job_is_not_run_over_a_newer_drop(
    stack: Stack,
) -> None:
    """Also while the newer one still renders."""
    stack.fault(match="corrected", at="submit", status=403)
    stack.fault("wavespeed", match="corrected", at="submit", status=403)
    picture, voice = PORTRAIT.read_bytes(), stack.upload("corrected.mp3", SPEECH.read_bytes())
    older = job_of("corrected", stack.upload("corrected.png", picture), voice)
    assert failure_of(stack, older) == "TokenRejected"
    stack.fault(match="corrected", at="render", render_seconds=8)
    newer = job_of("corrected", stack.upload("corrected.png", picture), voice)
    until(lambda: len(stack.submissions("corrected")) == 2, "the newer one's submission")

    many = stack.operate("rerun", "--failed-since", "1h")
    named = stack.operate("rerun", "--id", older)

    for said in (many, named):
        assert newer in "".join(said.stdout.split()), said.stdout
    assert f"{older}-r2" not in {e["name"] for e in stack.executions("corrected")}
    assert stack.operate("rerun", "--id", older, "--yes").returncode == 0
    assert run_of(stack, older, 2)["detail"]["video"]["key"] in (
        "corrected.mp4",
        f"corrected.{older}.mp4",
    )
    assert stack.event_of(newer)["detail-type"] == "Video Ready"
    manifest = json.loads(stack.video_bucket("corrected.json") or b"{}")
    assert manifest["job"]["id"] == newer


@contextmanager
def opened_afterwards(stack: Stack) -> Iterator[None]:
    """A provider stays on trial for minutes: the other tests need it open."""
    try:
        yield
    finally:
        for closed in stack.ledger("closed"):
            key = {name: closed[name] for name in ("pk", "sk")}
            stack.client("dynamodb").delete_item(TableName=stack.output("LedgerTable"), Key=key)


def test_a_refused_token_holds_a_job_until_a_good_one_is_stored(stack: Stack) -> None:
    """Only WaveSpeed takes a prompt, so the job can go nowhere else."""
    stack.fault("wavespeed", match="held-up", at="submit", status=401)
    stack.upload("held-up.txt", b"She sings.")

    with opened_afterwards(stack):
        stack.drop("held-up")
        until(lambda: stack.ledger("closed"), "the closed provider")
        until(lambda: stack.ledger("waiters#wavespeed"), "the job in the queue")
        stack.serve_waiting()
        assert "1 waiting until WaveSpeed is open" in stack.all_logs()
        said = stack.operate("token", "--provider", "WaveSpeed", typed=embedded.STANDIN_TOKEN)
        stack.serve_waiting()
        event = stack.event(lambda e: e["detail"].get("job", {}).get("stem") == "held-up")

    assert said.returncode == 0, said.stderr
    assert "WaveSpeed accepts the token. Balance: " in said.stdout
    assert "one job at a time" in said.stdout
    assert event["detail-type"] == "Video Ready"
    assert [it["accepted"] for it in stack.submissions("held-up", "wavespeed")] == [False, True]
    outcomes = [it["outcome"] for it in event["detail"]["render"]["attempts"]]
    assert outcomes == ["TokenRejected", "VideoReady"]


def test_a_refused_token_moves_jobs_to_another_provider(stack: Stack) -> None:
    stack.fault(match="moved-on", at="submit", status=401)

    with opened_afterwards(stack):
        event = stack.event_of(stack.drop("moved-on"))
        later = stack.event_of(stack.drop("moved-after-it"))
        (closed,) = stack.ledger("closed")

    assert (closed["sk"]["S"], closed["code"]["S"]) == ("runcomfy", "TokenRejected")
    assert {event["detail-type"], later["detail-type"]} == {"Video Ready"}
    assert [it["accepted"] for it in stack.submissions("moved-on")] == [False]
    assert [it["accepted"] for it in stack.submissions("moved-on", "wavespeed")] == [True]
    assert stack.submissions("moved-after-it") == []  # it asked the closed one no more


def had_nothing_to_render(stack: Stack, execution_arn: str) -> bool:
    """Two files are replaced one after the other: the first of them makes a job of its own. Or a
    file is dropped again as it was."""
    described = stack.client("stepfunctions").describe_execution(executionArn=execution_arn)
    output = json.loads(described.get("output", "{}"))
    # MiniStack ignores the Output of a Parallel, whose result is a list.
    return "same_as" in (output[0] if isinstance(output, list) else output)


def test_nothing_is_left_behind(stack: Stack) -> None:
    """Runs last here: of all the jobs above, those of the other files too, each run was told of
    once, no slot is held, nobody waits, nothing is dead."""
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
    until(
        lambda: all("sent_at" in outcome for outcome in items_of(stack, "outcome#")),
        "the mark of each event",
    )
    # EventBridge calls conclude for each that failed. What that announces twice is out by then.
    until(lambda: failed_executions(stack) <= concluded_again(stack), "the last call of conclude")
    ours = [e for e in stack.executions("") if not e["name"].startswith("foreign-")]
    told = [e["name"] for e in ours if not had_nothing_to_render(stack, e["executionArn"])]
    assert terminal_events(stack) == Counter(told)
    for queue in ("IntakeDeadLettersUrl", "UndeliveredEventsUrl", "UnconcludedJobsUrl"):
        assert stack.idle(stack.output(queue)), queue
    (spent,) = stack.ledger("spend") or pytest.fail("nothing was counted")
    kept = sum(
        float(item[name]["N"])
        for item in items_of(stack, "run#")
        for name in ("charged_usd", "kept_usd")
        if name in item
    )
    assert float(spent["spent_usd"]["N"]) == pytest.approx(kept)


def items_of(stack: Stack, kind: str) -> list[dict[str, Any]]:
    return [item for item in stack.ledger("job#") if item["sk"]["S"].startswith(kind)]


def failed_executions(stack: Stack) -> set[str]:
    listed = (e for e in stack.executions("") if e["status"] == "FAILED")
    return {e["name"] for e in listed if not e["name"].startswith("foreign-")}


def concluded_again(stack: Stack) -> set[str]:
    """The executions whose event conclude found to be sent, by its logs."""
    lines = (json.loads(line) for line in stack.all_logs().splitlines() if "Announced b" in line)
    return {execution_name(line["job_id"], line["run"]) for line in lines}


def terminal_events(stack: Stack) -> Counter[str]:
    """How often it was said of each run how it ended, by the name of its execution. An event that
    its queue delivers twice was said once."""
    said = {
        event["id"]: event["detail"]["job"]
        for event in stack.all_events()
        if event["detail-type"] in ("Video Ready", "Video Failed", "Job Checked")
    }
    return Counter(execution_name(job["id"], job["run"]) for job in said.values())
