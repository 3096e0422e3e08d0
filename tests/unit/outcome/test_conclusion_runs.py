"""Conclude: one event for each run, in whatever order and however often it is called."""

from datetime import datetime, timedelta
from unittest.mock import Mock

import pytest

from dropreel.model.errors import NoCredit
from dropreel.model.events import VideoFailed
from dropreel.model.job import Job
from dropreel.model.ledger import Outcome, Run
from dropreel.model.provider import Ticket
from dropreel.outcome.announcement import OutcomeMissing
from dropreel.outcome.conclusion import needs_conclusion
from tests.support.conclusion_bench import (
    ABORTED,
    CRASHED,
    FAILED,
    JOB_AGAIN,
    NO_CREDIT,
    READY,
    REFUSED,
    RUN,
    Bench,
    Event,
    ended_run,
    failed_run,
    lambda_cause,
    manifest,
    sent,
    step_failed,
    told,
)
from tests.support.render_fakes import JOB, NOON, PLAN, TICKET

# The table of cases: one outcome and one event

DELIVERED = {JOB.manifest_key: manifest()}


@pytest.mark.parametrize("way", [REFUSED, ABORTED, CRASHED])
@pytest.mark.parametrize(
    ("written", "documents", "ends_in", "is_announced", "ends_the_request"),
    [
        (sent(FAILED), {}, "NoCredit", False, False),
        (sent(READY), DELIVERED, "VideoReady", False, False),
        (FAILED, {}, "NoCredit", True, False),
        (FAILED, DELIVERED, "NoCredit", True, False),  # its video came too late
        (READY, DELIVERED, "VideoReady", True, False),
        (READY, {}, "VideoReady", True, False),
        (None, DELIVERED, "VideoReady", True, False),
        (None, {}, None, True, True),
    ],
    ids=[
        "failure sent",
        "video sent",
        "failure not sent",
        "failure not sent, video came late",
        "video not sent",
        "video not sent, and deleted",
        "delivered, no outcome",
        "nothing delivered, no outcome",
    ],
)
def test_each_case_ends_in_one_outcome_and_one_event(
    way: Event,
    written: Outcome | None,
    documents: dict[str, str],
    ends_in: str | None,
    *,
    is_announced: bool,
    ends_the_request: bool,
) -> None:
    bench = Bench(dict(documents)).accept()
    if written:
        bench.ledger.end(JOB, NOON, written, NOON)
        if written.sent_at:
            bench.ledger.mark_sent(JOB, NOON)

    details = [bench.tell(way) for _ in range(3)]
    bench.announce_outcome()

    outcome = bench.outcome
    assert outcome
    assert outcome.sent_at
    assert details == [outcome.detail] * 3
    assert ends_in in (None, outcome.code)
    assert bench.codes == [outcome.code] * is_announced
    assert bench.provider.cancelled == ["req-1"] * ends_the_request
    assert bool(bench.slots.left) is is_announced
    has_error_file = isinstance(outcome.detail, VideoFailed) and is_announced
    assert bench.error_file == (
        outcome.detail.model_dump_json(indent=2) if has_error_file else None
    )
    assert not needs_conclusion(outcome)


@pytest.mark.parametrize("quicker", [FAILED, READY])
@pytest.mark.parametrize("way", [REFUSED, ABORTED])
def test_outcome_that_is_written_first_counts(way: Event, quicker: Outcome) -> None:
    """Given deliver, or another call of conclude, that writes while this call is at work"""
    bench = Bench().accept()
    close = bench.ledger.close

    def close_and_lose_the_race(job: Job, now: datetime) -> None:
        close(job, now)
        bench.ledger.end(JOB, NOON, quicker, NOON)

    bench.ledger.close = close_and_lose_the_race  # type: ignore[method-assign]

    assert bench.tell(way) == quicker.detail
    bench.announce_outcome()

    assert bench.codes == [quicker.code]
    assert (bench.error_file is None) is (quicker is READY)


def test_event_that_the_bus_refused_is_sent_by_the_next_call() -> None:
    bench = Bench()
    bench.bus_is_away = True
    with pytest.raises(OSError, match="away"):
        bench.tell(ABORTED)
    assert needs_conclusion(bench.outcome)
    bench.bus_is_away = False

    bench.tell(ABORTED)
    bench.tell(ABORTED)

    assert bench.codes == ["ExecutionAborted"]


def test_event_is_sent_again_when_the_mark_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.conclude(REFUSED)
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "mark_sent", Mock(side_effect=OSError("away")))
        with pytest.raises(OSError, match="away"):
            bench.announce_outcome()

    bench.announce_outcome()

    assert bench.codes == ["NoCredit", "NoCredit"]
    assert bench.announced[0] == bench.announced[1]


def test_nothing_is_announced_before_there_is_an_outcome() -> None:
    with pytest.raises(OutcomeMissing):
        Bench().announce_outcome()


def test_execution_that_is_redriven_after_its_end_says_nothing_new() -> None:
    bench = Bench().accept()
    failed = bench.end(ABORTED)

    assert bench.tell(step_failed("FinalAnswer", lambda_cause(str(NO_CREDIT)))) == failed
    bench.announce_outcome()

    assert bench.codes == ["ExecutionAborted"]


def test_outcome_of_an_old_execution_of_the_same_name_does_not_silence() -> None:
    bench = Bench()
    long_ago = NOON - timedelta(days=91)
    bench.ledger.close(JOB, long_ago)
    bench.ledger.end(JOB, long_ago, sent(FAILED), long_ago)

    bench.tell(ABORTED)

    assert bench.codes == ["ExecutionAborted"]


@pytest.mark.parametrize("way", [REFUSED, ABORTED])
def test_slot_is_left_before_the_error_file_and_the_event(way: Event) -> None:
    bench = Bench()
    bench.slots.is_away = True

    with pytest.raises(OSError, match="away"):
        bench.tell(way)

    assert bench.error_file is None
    assert bench.codes == []
    assert needs_conclusion(bench.outcome)


def test_reason_survives_a_conclusion_that_fails_for_good() -> None:
    """Given slots that cannot be reached until the state machine has given up"""
    bench = Bench().accept()
    bench.slots.is_away = True
    with pytest.raises(OSError, match="away"):
        bench.tell(REFUSED)
    bench.slots.is_away = False

    bench.tell(ended_run("FAILED", "OSError"))

    assert bench.codes == ["NoCredit"]


def test_warning_of_a_render_that_may_be_paid_for_survives_being_cut_off() -> None:
    # Given a call that cancelled the request, and could not give the slot back
    crashed = ended_run("FAILED", "States.Runtime")
    bench = Bench().accept()
    bench.slots.is_away = True
    with pytest.raises(OSError, match="away"):
        bench.tell(crashed)
    bench.slots.is_away = False

    assert bench.conclude(crashed) == Bench().accept().conclude(crashed)


# Several runs of one job


AGAIN = failed_run(
    NO_CREDIT,
    job=JOB_AGAIN.model_dump(mode="json"),
    execution=f"{RUN}-r2",
    started_at=(NOON + timedelta(hours=1)).isoformat(),
)


def admitted_again(resume: Ticket | None = None) -> Run:
    plan = PLAN.model_copy(update={"job": JOB_AGAIN, "first_attempt": 2, "resume": resume})
    return Run(job_id=JOB.id, number=2, plan=plan)


@pytest.mark.parametrize(
    ("resume", "numbers"), [(None, [2]), (TICKET, [1, 2])], ids=["own", "waited for a lost one"]
)
def test_run_lists_its_own_attempts_and_the_one_it_waited_for(
    resume: Ticket | None, numbers: list[int]
) -> None:
    bench = Bench().lose().in_run(2).refuse(2)
    bench.ledger.note_run(admitted_again(resume))

    failed = bench.conclude(AGAIN)

    assert failed.job.run == 2
    assert failed.render is not None
    assert [attempt.number for attempt in failed.render.attempts] == numbers
    assert bench.slots.left == [(JOB_AGAIN.execution_name, False)]


def test_run_without_a_submission_leaves_its_slot() -> None:
    bench = Bench().begin()
    bench.ledger.note_run(admitted_again())

    failed = bench.conclude(AGAIN)

    assert failed.render is None
    assert [name for name, _ in bench.slots.left] == [JOB_AGAIN.execution_name]
    assert failed.error.advice == NoCredit.advice


def test_run_without_a_submission_does_not_name_an_earlier_runs_request() -> None:
    bench = Bench().accept()
    bench.conclude(ABORTED)
    bench.ledger.note_run(admitted_again())

    failed = bench.conclude(
        ended_run("ABORTED", input=JOB_AGAIN.model_dump_json(), executionArn=f"{RUN}-r2")
    )

    assert failed.error.message.endswith("Nothing was submitted, and nothing is paid.")


def test_run_that_waited_for_what_an_earlier_one_submitted_cancels_it() -> None:
    bench = Bench().accept()

    failed = bench.conclude(AGAIN)

    assert bench.provider.cancelled == ["req-1"]
    assert failed.render is not None
    assert failed.render.cancelled


def test_run_that_fails_before_it_makes_a_video_again_does_not_name_the_delivered_request() -> None:
    bench = Bench().accept()
    bench.ledger.end(JOB, NOON, READY, NOON)
    once_more = JOB_AGAIN.model_copy(update={"again": True})

    failed = bench.conclude(
        ended_run("ABORTED", input=once_more.model_dump_json(), executionArn=f"{RUN}-r2")
    )

    assert bench.provider.cancelled == []
    assert failed.error.message.endswith("Nothing was submitted, and nothing is paid.")


def test_late_conclusion_does_not_cancel_what_the_next_run_waits_for() -> None:
    bench = Bench().accept()
    bench.ledger.note_run(Run(job_id=JOB.id, number=2))

    bench.tell(ABORTED)

    assert bench.provider.cancelled == []
    assert bench.codes == ["ExecutionAborted"]


def test_late_conclusion_does_not_list_a_later_runs_attempts() -> None:
    bench = Bench().lose().in_run(2).accept(2)
    bench.ledger.note_run(admitted_again())

    failed = bench.conclude(ABORTED)

    assert bench.provider.cancelled == []
    assert failed.render is not None
    assert failed.render.attempts == (told("RenderFailed", "No face."),)
    assert [name for name, _ in bench.slots.left] == [JOB.execution_name]


def test_each_run_has_an_error_file_of_its_own() -> None:
    bench = Bench()
    bench.end(REFUSED)

    failed = bench.conclude(AGAIN)

    assert failed.job.run == 2
    assert bench.error_file == failed.model_dump_json(indent=2)
