"""Conclude: one event for each run, in whatever order and however often it is called."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from dropreel.model.errors import NoCredit
from dropreel.model.events import DetailType
from dropreel.model.ledger import Run
from dropreel.model.provider import Ticket
from dropreel.outcome.conclusion import needs_conclusion
from tests.support.conclusion_bench import (
    ABORTED,
    JOB_AGAIN,
    NO_CREDIT,
    REFUSED,
    RUN,
    Bench,
    Event,
    ended_run,
    error_file,
    failed_run,
    manifest,
    step_failed,
    told,
)
from tests.support.render_fakes import JOB, NOON, PLAN, TICKET

# One event


@pytest.mark.parametrize(
    ("before", "way", "code"),
    [
        (REFUSED, ABORTED, "NoCredit"),
        (REFUSED, ended_run("FAILED", "EventBridge.FailedEntry"), "NoCredit"),
        (None, ended_run("FAILED", "ThrottlingException"), "UnexpectedError"),
    ],
    ids=["stopped before it announced", "could not announce", "conclusion failed throughout"],
)
def test_failure_that_was_not_announced_is_announced_once(
    before: Event | None, way: Event, code: str
) -> None:
    bench = Bench().accept()
    first = bench.tell(before) if before else None
    assert bench.outcome is None

    for _ in range(3):
        bench.tell(way)

    assert bench.codes == [code]
    assert first in (None, bench.announced[0][1])


def ready_before_it_announced(bench: Bench) -> None:
    bench.ledger.end(JOB, "VideoReady", NOON)


def found_by_conclude(bench: Bench) -> None:
    bench.tell(step_failed("ThrottlingException"))


def closed_while_it_was_copied(bench: Bench) -> None:
    bench.ledger.close(JOB, NOON + timedelta(seconds=30))
    bench.ledger.end(JOB, "VideoReady", NOON + timedelta(seconds=31))


@pytest.mark.parametrize(
    ("before", "calls"),
    [(ready_before_it_announced, 3), (found_by_conclude, 3), (closed_while_it_was_copied, 1)],
)
@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT"])
def test_video_that_was_not_announced_is_announced_once(
    before: Callable[[Bench], None], calls: int, status: str
) -> None:
    bench = Bench({JOB.manifest_key: manifest()}).accept()
    before(bench)

    for _ in range(calls):
        bench.tell(ended_run(status))

    assert bench.codes == ["VideoReady"]
    assert not needs_conclusion(bench.run)


@pytest.mark.parametrize(
    ("error", "documents"),
    [
        ("NoCredit", {JOB.error_key: error_file()}),
        ("UnexpectedError", {JOB.error_key: error_file()}),
        (None, {JOB.error_key: error_file()}),
        ("NoCredit", {}),
    ],
)
def test_announced_failure_is_silent_and_leaves_the_slot(
    error: str | None, documents: dict[str, str]
) -> None:
    bench = Bench(dict(documents)).accept()
    before = dict(bench.documents)

    assert bench.tell(ended_run("FAILED", error)) is None

    assert bench.announced == []
    assert bench.documents == before
    assert bench.provider.cancelled == []
    assert bench.slots.left == [(JOB.execution_name, True)]
    assert bench.run is not None
    assert bench.run.closed_at is not None
    assert bench.outcome == (error or "NoCredit")


@pytest.mark.parametrize("lost_events", [0, 1])
def test_sweep_converges_and_announces_nothing_twice(lost_events: int) -> None:
    bench = Bench()
    bench.announce(DetailType.VIDEO_FAILED, bench.conclude(REFUSED))  # by the state machine
    assert needs_conclusion(bench.run)
    for _ in range(1 - lost_events):
        bench.tell(ended_run("FAILED", "NoCredit"))

    for _ in range(3):  # days
        if needs_conclusion(bench.run):  # as the sweep does, which knows how it ended
            bench.tell(ended_run("FAILED", "NoCredit"))

    assert bench.codes == ["NoCredit"]
    assert bench.outcome == "NoCredit"


@pytest.mark.parametrize(
    ("run", "needs"),
    [
        (None, True),
        (Run(job_id=JOB.id, number=1, closed_at=NOON), True),
        (Run(job_id=JOB.id, number=1, outcome="VideoReady", ended_at=NOON), True),
        (Run(job_id=JOB.id, number=1, outcome="VideoReady", ended_at=NOON, closed_at=NOON), False),
        (Run(job_id=JOB.id, number=1, outcome="NoCredit", ended_at=NOON), False),
    ],
)
def test_run_needs_to_be_concluded_until_its_event_is_known_to_be_out(
    run: Run | None, needs: bool
) -> None:
    assert needs_conclusion(run) is needs


def test_mark_of_an_old_execution_of_the_same_name_does_not_silence() -> None:
    bench = Bench()
    bench.ledger.close(JOB, NOON - timedelta(days=91))
    bench.ledger.end(JOB, "NoCredit", NOON - timedelta(days=91))

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
    assert needs_conclusion(bench.run)


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
    bench.documents.clear()
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
