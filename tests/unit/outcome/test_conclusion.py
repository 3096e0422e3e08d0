"""Conclude: what the person and the world are told of one run, and what is cancelled."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from dropreel.model import errors
from dropreel.model.errors import PriceUnknown, Reason, SpendLimitReached
from dropreel.model.events import DetailType, FailedRender, OlderVideo, VideoFailed, VideoReady
from dropreel.model.job import Job
from dropreel.model.ledger import AttemptState, Run
from dropreel.model.provider import Unreachable
from dropreel.outcome.conclusion import EndedRun, ending_in
from tests.support.conclusion_bench import (
    ABORTED,
    CRASHED,
    JOB_AGAIN,
    NO_CREDIT,
    REFUSED,
    RUN,
    SAMPLE,
    Bench,
    Event,
    ended_run,
    error_file,
    failed_run,
    lambda_cause,
    manifest,
    step_failed,
    told,
)
from tests.support.render_fakes import JOB, NOON, PLAN, WAVESPEED, ScriptedProvider
from tests.support.sam_template import RESOURCES

# What is said


def test_error_file_is_the_event_and_begins_with_the_error() -> None:
    reasons = (
        Reason(file="inbox/team/anna.png", rule="over 400 pixels", found="für", cure="Larger."),
        Reason(file="inbox/team/anna.mp3", rule="under 20 s", found="31 s", cure="Shorter."),
    )
    bench = Bench()

    failed = bench.conclude(failed_run(errors.InputRejected(reasons)))

    assert failed.error == errors.InputRejected(reasons).report
    assert (failed.render, failed.execution, failed.job.started_at) == (None, RUN, NOON)
    assert bench.error_file is not None
    assert VideoFailed.model_validate_json(bench.error_file) == failed
    assert bench.error_file.splitlines()[1].strip() == '"error": {'
    assert "für" in bench.error_file


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (step_failed("Sandbox.Timedout", lambda_cause("Task timed out")), "Sandbox.Timedout"),
        (step_failed("States.Timeout"), "States.Timeout"),
        (step_failed("KeyError", lambda_cause("'outputs'", "KeyError")), "KeyError"),
        (step_failed("Lambda.Unknown", "Lambda did not return"), "Lambda.Unknown"),
        (ended_run("FAILED", "States.Runtime"), "States.Runtime"),
        (ended_run("FAILED"), "an error"),
    ],
)
def test_unforeseen_error_is_named_and_no_more(way: Event, name: str) -> None:
    failed = Bench().conclude(way)

    assert failed.error.code == "UnexpectedError"
    assert (
        failed.error.message == f"A step failed with {name}, an error that Dropreel does not know."
    )


@pytest.mark.parametrize("name", ["ValueError", "https://bucket.example/?X-Amz-Signature=0123"])
def test_words_of_an_unforeseen_error_are_not_published(name: str) -> None:
    cause = lambda_cause("cannot fetch https://bucket.example/?X-Amz-Signature=0123", "ValueError")
    bench = Bench()

    failed = bench.conclude(step_failed(name, cause))

    assert bench.error_file is not None
    assert "Signature" not in bench.error_file + failed.model_dump_json()


@pytest.mark.parametrize("way", [step_failed("KeyError", lambda_cause("'outputs'")), CRASHED])
def test_unforeseen_error_warns_of_a_render_that_may_be_paid_for(way: Event) -> None:
    failed = Bench(cancels=False).accept().conclude(way)

    assert failed.error.code == "UnexpectedError"
    assert "make rerun" in failed.error.advice
    assert "may be paid" in failed.error.advice
    assert "you pay again" in failed.error.advice
    assert "paid" not in Bench().conclude(way).error.advice


def test_unreadable_setting_while_a_render_is_paid_for_says_that() -> None:
    failed = Bench(cancels=False).accept().conclude(failed_run(errors.SettingUnreadable("No URL.")))

    assert not failed.error.retryable
    assert "may be paid" in failed.error.advice


def test_our_fault_with_a_cancelled_request_still_says_where_to_look() -> None:
    failed = Bench().accept().conclude(failed_run(errors.UnexpectedError("A step ended.")))

    assert failed.error.message.endswith("is cancelled.")
    assert failed.error.advice == errors.UnexpectedError.advice


@pytest.mark.parametrize("error", [PriceUnknown("No price."), SpendLimitReached("No room.")])
def test_error_of_a_later_admission_names_the_earlier_refusal(
    error: errors.DropreelError,
) -> None:
    failed = Bench().refuse().conclude(failed_run(error))

    assert failed.error.message == f"{error.message} Refused before by RunComfy (NoCredit)."


def test_error_names_a_provider_once_that_refused_the_account_often() -> None:
    bench = Bench().refuse()
    for number in range(2, 9):
        bench.ledger.refuse(bench.begin(number).attempt, "NoCredit", "Empty.", closes_provider=True)

    failed = bench.conclude(failed_run(errors.NoCredit("Empty.")))

    assert failed.error.message == "Empty. Refused before by RunComfy (NoCredit)."


def test_error_names_each_provider_that_refused() -> None:
    bench = Bench().refuse().begin(2, WAVESPEED)

    failed = bench.conclude(failed_run(errors.NoCredit("WaveSpeed has not enough credit.")))

    assert failed.error.message == (
        "WaveSpeed has not enough credit. Refused before by RunComfy (NoCredit)."
    )


@pytest.mark.parametrize(
    ("way", "code"),
    [
        (step_failed("Sandbox.Timedout", lambda_cause("Task timed out")), "SubmissionUnclear"),
        (failed_run(errors.SubmissionUnclear("No answer.")), "SubmissionUnclear"),
        (ABORTED, "ExecutionAborted"),
    ],
    ids=["cut off", "no answer", "stopped"],
)
def test_unclear_submission_warns_of_paying_twice_and_keeps_its_charge(
    way: Event, code: str
) -> None:
    bench = Bench().begin()

    failed = bench.conclude(way)

    assert failed.error.code == code
    assert failed.error.advice == errors.SubmissionUnclear.advice
    assert failed.render is not None
    assert (failed.render.request_id, failed.render.cancelled) == (None, False)
    assert [attempt.outcome for attempt in failed.render.attempts] == ["SubmissionUnclear"]
    assert bench.slots.left == [(JOB.execution_name, True)]


def test_error_file_lists_each_attempt_with_its_outcome() -> None:
    bench = Bench().lose().refuse(2, WAVESPEED)

    failed = bench.conclude(REFUSED)

    assert failed.render == FailedRender(
        provider="wavespeed",
        request_id=None,
        cancelled=False,
        attempts=(
            told("RenderFailed", "No face."),
            told("NoCredit", "Not enough credit.", None, 2, WAVESPEED),
        ),
    )
    assert bench.provider.cancelled == []


def test_failure_says_what_is_known_of_the_files_and_the_money() -> None:
    given = tuple(one.model_copy(update={"etag": f"e-{one.key}"}) for one in JOB.inputs)
    job = JOB.model_copy(update={"labels": {"customer": "4711"}, "inputs": given})
    bench = Bench().accept(usd=0.25)
    bench.ledger.note_run(Run(job_id=job.id, number=1, plan=PLAN))

    failed = bench.conclude(failed_run(NO_CREDIT, job=job.model_dump(mode="json")))

    assert failed.job.labels == {"customer": "4711"}
    assert [one.etag for one in failed.inputs] == [f"e-{one.key}" for one in JOB.inputs]
    assert {one.key: one.sha256 for one in failed.inputs} == PLAN.sha256
    assert failed.estimated_usd == 0  # it is cancelled
    assert NOON < failed.ended_at <= bench.clock()


def test_failure_says_what_may_still_be_paid() -> None:
    bench = Bench(cancels=False).accept(usd=0.25)

    assert bench.conclude(ABORTED).estimated_usd == 0.25


# What is read


def test_rule_sends_each_ending_that_is_understood() -> None:
    pattern: dict[str, Any] = RESOURCES["EndedRule"]["Properties"]["EventPattern"]
    schema = EndedRun.model_json_schema()["properties"]

    assert pattern["detail"]["status"] == schema["status"]["enum"]


@pytest.mark.parametrize("status", ["FAILED", "ABORTED", "TIMED_OUT"])
@pytest.mark.parametrize("given", [JOB.model_dump_json(), '{"id": "anna"}', "no JSON", "", "[]"])
def test_execution_that_we_did_not_start_changes_nothing(status: str, given: str) -> None:
    bench = Bench().accept()
    by_hand = RUN.replace(JOB.execution_name, "by-hand")

    assert bench.tell(ended_run(status, executionArn=by_hand, input=given)) is None

    assert bench.codes == []
    assert bench.error_file is None
    assert bench.slots.left == []
    assert bench.provider.cancelled == []


def test_sample_event_is_understood() -> None:
    ending = ending_in(json.loads(SAMPLE.read_bytes()))

    assert isinstance(ending, EndedRun)
    assert ending.job.id == "anna-5f0c9f1d2b7a4e63"
    assert ending.execution.endswith(ending.job.id)
    assert ending.started_at.isoformat() == "2026-11-20T09:41:06.847000+00:00"
    assert ending.report.code == "ExecutionAborted"


# Each end: the slot left, the request cancelled if it was queued, an error file, one event


LOST, ACCEPTED = AttemptState.LOST, AttemptState.ACCEPTED
TIMED_OUT = ended_run("TIMED_OUT")
LATE = failed_run(errors.RenderTimedOut("Still queued."))
NO_FACE = failed_run(errors.RenderFailed("No face."))


@pytest.mark.parametrize(
    ("way", "cancels", "code", "state", "is_asked"),
    [
        # It may be queued: it is cancelled, if it can be
        (ABORTED, True, "ExecutionAborted", LOST, True),
        (ABORTED, False, "ExecutionAborted", ACCEPTED, True),
        (TIMED_OUT, True, "ExecutionTimedOut", LOST, True),
        (TIMED_OUT, False, "ExecutionTimedOut", ACCEPTED, True),
        (LATE, True, "RenderTimedOut", LOST, True),
        (LATE, False, "RenderTimedOut", ACCEPTED, True),
        (LATE, Unreachable("HTTP 500"), "RenderTimedOut", ACCEPTED, True),
        # Nothing caught the failure
        (ended_run("FAILED", "States.DataLimitExceeded"), True, "UnexpectedError", LOST, True),
        (ended_run("FAILED", "Lambda.Unknown"), True, "UnexpectedError", LOST, True),
        (ended_run("FAILED"), True, "UnexpectedError", LOST, True),
        # It is over: there is nothing to cancel, and a video is kept for when the job is run again
        (failed_run(errors.RequestForgotten("Gone.")), True, "RequestForgotten", LOST, False),
        (failed_run(errors.ResultMissing("None.")), True, "ResultMissing", ACCEPTED, False),
        (failed_run(errors.ResultRefused("HTML.")), True, "ResultRefused", ACCEPTED, False),
        (failed_run(errors.ResultUnavailable("404.")), True, "ResultUnavailable", ACCEPTED, False),
    ],
)
def test_end_of_an_accepted_render(
    way: Event, cancels: bool | Exception, code: str, state: AttemptState, is_asked: bool
) -> None:
    bench = Bench(cancels=cancels).accept()

    failed = bench.end(way)

    bench.ended_once_in(code, keeps_charge=state is ACCEPTED)
    assert bench.provider.cancelled == ["req-1"] * is_asked
    assert bench.attempt.state is state
    assert bench.attempt.code == (code if state is LOST else None)
    assert failed.render is not None
    assert (failed.render.provider, failed.render.request_id) == ("runcomfy", "req-1")
    is_cancelled = is_asked and state is LOST
    assert failed.render.cancelled is is_cancelled
    assert ("and is cancelled" in failed.error.message) is is_cancelled
    [attempt] = failed.render.attempts
    assert (attempt.number, attempt.outcome) == (1, code)
    if code in ("ExecutionAborted", "ExecutionTimedOut"):
        assert ("may be paid" in failed.error.advice) is not is_cancelled
        assert "nothing is paid" not in failed.error.message
        assert "make rerun" in failed.error.advice


@pytest.mark.parametrize(
    ("way", "code", "message"),
    [
        (ABORTED, "ExecutionAborted", "Nothing was submitted, and nothing is paid."),
        (failed_run(errors.InputGone("Deleted: a.png.")), "InputGone", "Deleted: a.png."),
    ],
)
def test_end_before_anything_was_submitted(way: Event, code: str, message: str) -> None:
    bench = Bench()

    failed = bench.end(way)

    bench.ended_once_in(code, keeps_charge=False)
    assert bench.provider.cancelled == []
    assert failed.error.message.endswith(message)


@pytest.mark.parametrize(
    ("code", "cancelled"),
    [
        ("RenderFailed", False),
        ("RenderModerated", False),
        ("RenderCancelled", True),
        ("RenderTimedOut", True),  # poll has cancelled it
        ("RequestForgotten", False),
    ],
)
@pytest.mark.parametrize("way", [NO_FACE, ABORTED])
def test_render_that_is_lost_is_not_cancelled(way: Event, code: str, cancelled: bool) -> None:
    bench = Bench().lose(code)

    failed = bench.conclude(way)

    assert bench.provider.cancelled == []
    assert failed.render is not None
    assert failed.render.cancelled is cancelled
    usd = None if code == "RequestForgotten" else 0  # it may be paid, at an unknown price
    assert failed.render.attempts == (told(code, "No face.", estimated_usd=usd),)


def test_late_render_that_poll_has_cancelled_ends_as_cancelled() -> None:
    bench = Bench().lose("RenderTimedOut")

    failed = bench.end(LATE)

    bench.ended_once_in("RenderTimedOut", keeps_charge=False)
    assert failed.error.message.endswith("is cancelled.")
    assert "may still finish" not in failed.error.advice


def test_latest_attempt_is_cancelled_while_it_is_open() -> None:
    bench = Bench().lose().accept(2)

    failed = bench.conclude(LATE)

    assert bench.provider.cancelled == ["req-2"]
    assert failed.render is not None
    assert failed.render.attempts == (
        told("RenderFailed", "No face."),
        told("RenderTimedOut", "Still queued.", "req-2", 2),
    )


# What lies there already


def test_second_call_answers_the_same() -> None:
    bench = Bench().accept()
    first = bench.conclude(LATE)
    bench.provider = ScriptedProvider(cancels=False)

    assert bench.conclude(LATE) == first


@pytest.mark.parametrize("key", [JOB.error_key, JOB.manifest_key])
@pytest.mark.parametrize(
    "foreign",
    ["", "{}", '{"a": 1}', "[]", "not json", '{"job": "a"}', '{"job": {"id": "a"}}', "\ufffd"],
)
def test_file_that_is_none_of_ours_keeps_no_error_file_away(key: str, foreign: str) -> None:
    bench = Bench({key: foreign})

    failed = bench.conclude(REFUSED)

    assert bench.error_file == failed.model_dump_json(indent=2)


def test_error_of_an_earlier_execution_is_replaced() -> None:
    bench = Bench()
    long_ago = (NOON - timedelta(days=91)).isoformat()
    bench.conclude(failed_run(NO_CREDIT, started_at=long_ago))

    failed = bench.conclude(failed_run(errors.RenderFailed("No face.")))

    assert failed.error.code == "RenderFailed"
    assert bench.error_file == failed.model_dump_json(indent=2)


OTHER_JOB = JOB.model_copy(update={"id": "anna-fedcba9876543210"})
EARLIER, LATER = NOON - timedelta(seconds=9), NOON + timedelta(seconds=9)


@pytest.mark.parametrize("way", [REFUSED, ABORTED, CRASHED])
@pytest.mark.parametrize("key", [JOB.manifest_key, JOB.error_key])
@pytest.mark.parametrize(
    ("job", "started_at", "writes"),
    [
        (OTHER_JOB, EARLIER, True),
        (OTHER_JOB, LATER, False),
        (JOB_AGAIN, NOON + timedelta(hours=1), False),
    ],
)
def test_error_file_goes_over_nothing_of_a_later_job_or_run(
    way: Event, key: str, job: Job, started_at: datetime, writes: bool
) -> None:
    there = (manifest if key == JOB.manifest_key else error_file)(job, started_at)
    bench = Bench({key: there})

    failed = bench.conclude(way)

    written = failed.model_dump_json(indent=2)
    assert (bench.error_file == written) is writes
    assert (failed.error_file is not None) is writes
    assert bench.documents[key] == (written if writes and key == JOB.error_key else there)
    is_announced_from_here = "detail" in way
    assert bench.announced == [(DetailType.VIDEO_FAILED, failed)] * is_announced_from_here


@pytest.mark.parametrize("way", [REFUSED, ABORTED])
@pytest.mark.parametrize(
    ("job", "started_at", "is_there", "is_told"),
    [
        (OTHER_JOB, EARLIER, True, True),
        (JOB, NOON - timedelta(days=91), True, True),  # an earlier execution
        (OTHER_JOB, EARLIER, False, False),  # somebody deleted it
        (OTHER_JOB, LATER, True, False),
    ],
)
def test_failure_says_whether_an_older_video_has_the_name(
    way: Event, job: Job, started_at: datetime, is_there: bool, is_told: bool
) -> None:
    bench = Bench({JOB.manifest_key: manifest(job, started_at)})
    bench.videos = {JOB.video_key} if is_there else set()

    failed = bench.conclude(way)

    older = OlderVideo(bucket="videos", key=JOB.video_key, version_id="v1")
    assert failed.older_video == (older if is_told else None)


# Delivered before it ended


@pytest.mark.parametrize("key", [JOB.manifest_key, JOB.own_manifest_key])
@pytest.mark.parametrize("way", [ABORTED, TIMED_OUT, CRASHED, step_failed("ThrottlingException")])
def test_run_that_ends_after_it_delivered_is_answered_with_the_video(way: Event, key: str) -> None:
    bench = Bench({key: manifest()}).accept()

    ready = bench.tell(way)

    assert ready == VideoReady.model_validate_json(manifest())
    is_announced_from_here = "detail" in way
    assert bench.announced == [(DetailType.VIDEO_READY, ready)] * is_announced_from_here
    assert bench.error_file is None
    assert bench.provider.cancelled == []
    assert bench.outcome
    assert bench.outcome.detail == ready
    assert bench.slots.left == [(JOB.execution_name, True)]


@pytest.mark.parametrize("way", [ABORTED, CRASHED])
@pytest.mark.parametrize(
    "there",
    [manifest(OTHER_JOB), manifest(started_at=NOON - timedelta(days=91))],
    ids=["another job", "an earlier execution"],
)
def test_video_of_another_execution_is_not_taken_for_this_ones(way: Event, there: str) -> None:
    bench = Bench({JOB.manifest_key: there})

    failed = bench.conclude(way)

    assert bench.announced == [(DetailType.VIDEO_FAILED, failed)]
