"""Rules that hold for the state machine's definition, and that no engine can show: its patience and
its time limits. `tests/integration/test_ways.py` shows the rest."""

import ast
import inspect
from types import ModuleType
from typing import Any

import jsonata
import pytest

from dropreel.model.errors import FINAL_FOR_DELIVER, FINAL_FOR_POLL, DropreelError
from dropreel.model.job import execution_name
from dropreel.model.messages import AdmitRequest
from dropreel.render import attempts, polling
from tests.support.render_fakes import NOON, PLAN
from tests.support.sam_template import (
    DAY_SECONDS,
    DEFINITION,
    INNER,
    OUTER,
    TASKS,
    patience_seconds,
    timeout_seconds,
)

# Retries

BEFORE_PAYMENT = ("Prepare", "Admit", "Submit")
AFTER_PAYMENT_DAYS = 7  # our own floor: no page says how long a provider keeps a video


@pytest.mark.parametrize("name", TASKS)
def test_all_steps_retry_by_one_rule(name: str) -> None:
    throttled, final, others = TASKS[name]["Retry"]

    assert throttled == TASKS["Prepare"]["Retry"][0]
    assert throttled["ErrorEquals"] == ["Lambda.TooManyRequestsException"]
    assert final == {"ErrorEquals": ["FinalAnswer"], "MaxAttempts": 0}
    # All errors but those that Step Functions never retries.
    assert others["ErrorEquals"] == ["States.TaskFailed", "States.Timeout"]
    assert others["BackoffRate"] >= 2  # few tries for all that time
    assert throttled["JitterStrategy"] == others["JitterStrategy"] == "FULL"
    assert "Catch" not in TASKS[name]


@pytest.mark.parametrize("name", TASKS)
def test_used_up_concurrency_only_delays_a_step(name: str) -> None:
    throttled, *_ = TASKS[name]["Retry"]
    days = 1 if name in BEFORE_PAYMENT else AFTER_PAYMENT_DAYS

    assert patience_seconds(throttled) >= days * DAY_SECONDS


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("Prepare", 60),  # nothing is paid: the person hears of it soon
        ("Admit", 3600),
        ("Submit", 60),
        ("Deliver", 3500),  # the video is paid, and each call makes one request for it
        ("Conclude", 60),  # then EventBridge calls it
        ("Announce", 300),  # then conclude sends the event
    ],
)
def test_a_step_has_patience_with_passing_faults(name: str, seconds: float) -> None:
    assert patience_seconds(TASKS[name]["Retry"][-1]) >= seconds


def test_a_paid_video_is_asked_for_soon_and_often() -> None:
    *_, others = TASKS["Deliver"]["Retry"]

    assert others["IntervalSeconds"] <= 2  # most cut connections are whole at the next request
    assert others["MaxAttempts"] >= 20


def test_admit_can_count_all_retries_of_its_state() -> None:
    """Step Functions counts throttled calls, too."""
    most = sum(retrier["MaxAttempts"] for retrier in TASKS["Admit"]["Retry"])
    last, redriven = (
        AdmitRequest(plan=PLAN, task_token="token", started_at=NOON, retry=retry, redrive=redrive)
        for retry, redrive in ((most, 0), (0, 1))
    )

    assert last.call < redriven.call  # the newest token is the one that counts


def test_only_these_errors_of_paid_work_are_final() -> None:
    assert errors_raised_by(polling, attempts) == {error.__name__ for error in FINAL_FOR_POLL}
    assert errors_raised_by(attempts) < {error.__name__ for error in FINAL_FOR_DELIVER}


def errors_raised_by(*modules: ModuleType) -> set[str]:
    """The errors that these modules make, by their calls in the source."""
    names = {error.__name__ for error in DropreelError.__subclasses__()}
    calls = (
        ast.unparse(node.func)
        for module in modules
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call)
    )
    return names & {call.removeprefix("errors.") for call in calls}


# Time


@pytest.mark.parametrize("name", TASKS)
def test_a_step_outlives_its_function(name: str) -> None:
    assert TASKS[name]["TimeoutSeconds"] > timeout_seconds(f"{name}Function")


def test_a_job_that_waits_for_a_slot_costs_nothing_and_outlasts_its_wait() -> None:
    assert INNER["Admit"]["Resource"].endswith(":states:::lambda:invoke.waitForTaskToken")
    assert INNER["Admit"]["TimeoutSeconds"] == DEFINITION["TimeoutSeconds"]
    assert "HeartbeatSeconds" not in INNER["Admit"]


# The name


def test_an_execution_is_ours_only_under_the_name_of_its_job_and_run() -> None:
    (choice,) = OUTER["Is it ours?"]["Choices"]
    digest = "0123456789abcdef"
    jobs: list[dict[str, Any]] = [
        {"id": f"{slug}-{digest}", **run}
        for slug in ("a", "anna", "x" * 47, "y" * 58, "z" * 63)
        for run in ({}, {"run": 1}, {"run": 2}, {"run": 10}, {"run": 12345})
    ]
    names = [execution_name(job["id"], job.get("run", 1)) for job in jobs]
    cases = [
        (job, called, called == name)
        for job, name in zip(jobs, names, strict=True)
        for called in (name, f"{name}-r2", "by-hand", job["id"] + "x")
    ]
    cases += [({}, "anna", False), ({"run": 2}, "-r2", False)]

    condition = jsonata.Jsonata(choice["Condition"].strip("{% }"))
    for given, name, is_ours in cases:
        states = {"input": given, "context": {"Execution": {"Name": name}}}
        condition.assign("states", states)
        assert condition.evaluate(None) is is_ours, (given, name)
