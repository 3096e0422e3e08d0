"""Which failed jobs are run again: nothing is paid twice, and nothing that is pointless is done."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from dropreel.model.errors import DropreelError
from dropreel.model.job import Job
from dropreel.model.ledger import Attempt, AttemptState, Outcome, Run
from dropreel.render.submission import CALL_LIFE_SECONDS
from operate.choice import Execution, LastRun, NoSuchRun, choose, failed_runs, last_run
from operate.errors import WrongUsage
from operate.rerun import moment
from tests.support.conclusion_bench import FAILED, READY, failed_in, sent
from tests.support.render_fakes import JOB, NOON, RUNCOMFY

NOW = NOON + timedelta(hours=1)
YESTERDAY = NOON - timedelta(days=1)


def ended(
    error: str | None = "ResultUnavailable",
    status: str = "FAILED",
    job: Job = JOB,
    started_at: datetime = NOON,
) -> Execution:
    return Execution(
        name=job.execution_name,
        status=status,
        started_at=started_at,
        stopped_at=None if status == "RUNNING" else started_at + timedelta(minutes=10),
        error=error if status == "FAILED" else None,
        job=job,
    )


def attempt(state: AttemptState, job: Job = JOB, begun_at: datetime = NOON) -> Attempt:
    accepted = state in (AttemptState.ACCEPTED, AttemptState.LOST)
    return Attempt(
        job_id=job.id,
        number=1,
        provider=RUNCOMFY.provider,
        endpoint=RUNCOMFY.endpoint,
        offer=0,
        state=state,
        begun_at=begun_at,
        begun_by="call 1",
        request_id="req-1" if accepted else None,
        accepted_at=begun_at if accepted else None,
    )


def named(name: str, run: int = 1) -> Job:
    return JOB.model_copy(update={"id": f"{name}-0123456789abcdef", "stem": name, "run": run})


def run_of(job: Job, number: int) -> Job:
    return job.model_copy(update={"run": number})


@dataclass
class Account:
    """A deployed stack in memory."""

    executions: list[Execution] = field(default_factory=list)
    of_attempts: list[Attempt] = field(default_factory=list)
    of_runs: list[Run] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    last_drops: dict[str, str] = field(default_factory=dict)
    started: list[Job] = field(default_factory=list)

    def execution(self, name: str) -> Execution | None:
        return next((one for one in self.executions if one.name == name), None)

    def unsuccessful_since(self, since: datetime) -> Iterable[Execution]:
        for one in self.executions:
            if one.status not in ("RUNNING", "SUCCEEDED") and (one.stopped_at or NOW) >= since:
                yield one

    def start(self, job: Job) -> bool:
        self.started.append(job)
        return True

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        return tuple(one for one in self.of_attempts if one.job_id == job_id)

    def runs(self, job_id: str) -> tuple[Run, ...]:
        return tuple(one for one in self.of_runs if one.job_id == job_id)

    def outcome(self, job: Job, started_at: datetime) -> Outcome | None:
        there = (one for one in self.executions if one.job.id == job.id)
        assert any(one.started_at >= started_at for one in there)
        return self.outcomes.get(job.execution_name)

    def last_drop(self, job: Job) -> str | None:
        return self.last_drops.get(job.stem)


# What becomes of a job

WAITS = "waits for request req-1 and delivers it"
ANEW = "is submitted again"


@pytest.mark.parametrize("execution", [ended(error=None, status="SUCCEEDED"), ended()])
@pytest.mark.parametrize("again", [True, False])
def test_dry_run_is_never_run_again(execution: Execution, again: bool) -> None:
    dry = replace(execution, job=JOB.model_copy(update={"dry_run": True}))

    choice = choose(LastRun(dry), NOW, is_named=True, again=again)

    assert not choice.is_started
    assert "dry run" in choice.words


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, ANEW),
        (AttemptState.ACCEPTED, WAITS),
        (AttemptState.REFUSED, ANEW),
        (AttemptState.POSTPONED, ANEW),
        (AttemptState.LOST, ANEW),
    ],
)
@pytest.mark.parametrize("is_named", [True, False])
def test_accepted_work_is_waited_for_and_the_rest_submitted_anew(
    state: AttemptState | None, words: str, is_named: bool
) -> None:
    last = LastRun(ended(), latest=attempt(state) if state else None)

    choice = choose(last, NOW, is_named=is_named)

    assert (choice.is_started, choice.words) == (True, words)
    assert choice.job == run_of(JOB, 2)
    assert choice.failed_with == "ResultUnavailable"


@pytest.mark.parametrize(
    "unclear",
    [
        LastRun(ended("UnexpectedError"), latest=attempt(AttemptState.BEGUN)),
        LastRun(ended("SubmissionUnclear")),
        LastRun(
            ended(status="ABORTED"),
            outcome=sent(failed_in("SubmissionUnclear")),
        ),
        LastRun(ended("RequestForgotten")),
        LastRun(
            ended("NoCredit"),
            latest=attempt(AttemptState.LOST).model_copy(update={"code": "RequestForgotten"}),
        ),
    ],
)
def test_a_job_that_may_be_paid_is_submitted_anew_only_when_it_is_named(unclear: LastRun) -> None:
    one = choose(unclear, NOW, is_named=True)
    many = choose(unclear, NOW, is_named=False)

    assert one.is_started
    assert one.words == ("is submitted again; the earlier request may be paid, too")
    assert not many.is_started
    assert "dashboard" in many.words
    assert f"ID={JOB.id}" in many.words


STOPPED = ended(status="ABORTED")


@pytest.mark.parametrize(
    ("last", "words"),
    [
        *[
            (LastRun(ended(code)), "skipped: the same files would be refused again")
            for code in ("InputRejected", "RenderModerated", "RenderRejected")
        ],
        (LastRun(ended("InputGone")), "skipped: one of its files was deleted; drop that again"),
        (LastRun(STOPPED), f"ID={JOB.id}"),
    ],
)
def test_a_pointless_job_is_run_again_only_when_it_is_named(last: LastRun, words: str) -> None:
    many = choose(last, NOW, is_named=False)

    assert choose(last, NOW, is_named=True).is_started
    assert not many.is_started
    assert words in many.words


def test_a_stopped_job_that_is_paid_is_run_again_with_many() -> None:
    paid = LastRun(STOPPED, latest=attempt(AttemptState.ACCEPTED))

    assert choose(paid, NOW, is_named=False).is_started


def test_a_job_that_was_stopped_while_it_was_submitted_may_be_paid() -> None:
    last = LastRun(
        STOPPED,
        latest=attempt(AttemptState.BEGUN),
        outcome=sent(failed_in("ExecutionAborted")),
        replaced_by="anna-fedcba9876543210",
    )

    many = choose(last, NOW, is_named=False)

    assert not many.is_started
    assert "dashboard" in many.words


def test_all_other_failures_are_run_again_with_many() -> None:
    errors = {error.__name__ for error in DropreelError.__subclasses__()}
    skipped = {
        "ExecutionAborted",
        "InputGone",
        "InputRejected",
        "RenderModerated",
        "RenderRejected",
        "RequestForgotten",
        "SubmissionUnclear",
    }

    started = {
        error for error in errors if choose(LastRun(ended(error)), NOW, is_named=False).is_started
    }

    assert started == errors - skipped


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (LastRun(ended(status="RUNNING")), "is still running"),
        (LastRun(ended(status="PENDING_REDRIVE")), "is still running"),
        (LastRun(ended(status="SUCCEEDED")), "it has succeeded"),
        (
            LastRun(ended(status="ABORTED"), outcome=READY),
            "it has succeeded",
        ),
    ],
)
@pytest.mark.parametrize("is_named", [True, False])
def test_a_running_or_successful_job_is_never_run_again(
    last: LastRun, words: str, is_named: bool
) -> None:
    choice = choose(last, NOW, is_named=is_named)

    assert not choice.is_started
    assert words in choice.words


ONCE_MORE = "is rendered again, and paid again"
ACCEPTED = attempt(AttemptState.ACCEPTED)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (LastRun(ended(status="SUCCEEDED"), ACCEPTED, READY, is_delivered=True), ONCE_MORE),
        (LastRun(ended(status="SUCCEEDED")), ONCE_MORE),  # another job's video answered it
        (LastRun(ended(status="FAILED"), ACCEPTED, sent(READY), is_delivered=True), ONCE_MORE),
        (LastRun(ended(), ACCEPTED), WAITS),
        (LastRun(ended(), attempt(AttemptState.REFUSED)), ONCE_MORE),
    ],
)
def test_what_is_to_be_made_again_is_paid_again_unless_it_is_paid_already(
    last: LastRun, words: str
) -> None:
    choice = choose(last, NOW, is_named=True, again=True)

    assert (choice.is_started, choice.words) == (True, words)
    assert choice.job == JOB.model_copy(update={"run": 2, "again": True})


@pytest.mark.parametrize(
    ("is_delivered", "words"), [(True, ONCE_MORE), (False, WAITS)], ids=["not begun", "accepted"]
)
def test_a_failed_run_that_was_to_make_it_again_is_continued(
    is_delivered: bool, words: str
) -> None:
    job = JOB.model_copy(update={"run": 2, "again": True})

    choice = choose(
        LastRun(ended(job=job), ACCEPTED, is_delivered=is_delivered), NOW, is_named=True
    )

    assert (choice.is_started, choice.words) == (True, words)
    assert choice.job == job.model_copy(update={"run": 3})


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE"])
def test_what_still_runs_is_not_made_again(status: str) -> None:
    assert not choose(LastRun(ended(status=status)), NOW, is_named=True, again=True).is_started


@pytest.mark.parametrize("is_named", [True, False])
def test_a_submission_may_outlive_its_execution(is_named: bool) -> None:
    def at(seconds: int) -> bool:
        begun = attempt(AttemptState.BEGUN, begun_at=NOW - timedelta(seconds=seconds))
        last = LastRun(ended("NoCredit"), latest=begun)
        return choose(last, NOW, is_named=is_named).is_started

    assert not at(CALL_LIFE_SECONDS - 1)
    assert at(CALL_LIFE_SECONDS + 1) is is_named


@pytest.mark.parametrize(
    ("status", "minutes", "outcome", "is_started"),
    [
        ("ABORTED", 1, None, False),  # conclude may still cancel what it finds
        ("ABORTED", 1, FAILED, False),  # its event is not sent yet
        ("ABORTED", 1, sent(FAILED), True),
        ("ABORTED", 6, None, True),  # its status event was lost
        ("ABORTED", 6, FAILED, True),
        ("TIMED_OUT", 1, None, False),
        ("FAILED", 1, None, False),  # where nothing caught it
        ("FAILED", 1, sent(FAILED), True),
    ],
)
def test_a_run_is_concluded_before_the_next_one_starts(
    status: str, minutes: int, outcome: Outcome | None, is_started: bool
) -> None:
    execution = replace(ended("NoCredit", status), stopped_at=NOW - timedelta(minutes=minutes))

    assert choose(LastRun(execution, outcome=outcome), NOW, is_named=True).is_started is is_started


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (LastRun(ended(status="ABORTED")), "ExecutionAborted"),
        (LastRun(ended(status="TIMED_OUT")), "ExecutionTimedOut"),
        (LastRun(ended(None)), "FAILED"),
        (LastRun(ended("UnexpectedError")), "UnexpectedError"),
        (
            LastRun(ended("UnexpectedError"), outcome=failed_in("NoCredit")),
            "NoCredit",
        ),
    ],
)
def test_the_ledgers_outcome_goes_before_the_executions_error(last: LastRun, code: str) -> None:
    assert choose(last, NOW, is_named=True).failed_with == code


# One job


@pytest.mark.parametrize("request_id", ["req-1", "of another attempt"])
def test_a_delivered_render_is_known_by_its_outcome(request_id: str) -> None:
    latest = ACCEPTED.model_copy(update={"request_id": request_id})
    account = Account([ended(status="SUCCEEDED")], [latest], outcomes={JOB.execution_name: READY})

    assert last_run(account, JOB.id).is_delivered is (request_id == "req-1")


def test_a_job_is_found_by_its_id_and_by_the_name_of_any_execution() -> None:
    account = Account(executions=[ended(job=run_of(JOB, n), error=str(n)) for n in (1, 2, 3)])

    for name in (JOB.id, run_of(JOB, 2).execution_name, run_of(JOB, 3).execution_name):
        last = last_run(account, name)
        assert last.execution.job.run == 3
        assert choose(last, NOW, is_named=True).job.execution_name.endswith("-r4")


def test_runs_that_step_functions_has_forgotten_do_not_hide_the_last_one() -> None:
    account = Account(
        executions=[ended(job=run_of(JOB, 3))], of_runs=[Run(job_id=JOB.id, number=3)]
    )

    assert last_run(account, JOB.id).execution.job.run == 3
    assert last_run(replace(account, of_runs=[]), run_of(JOB, 3).execution_name)


def test_a_run_that_the_ledger_does_not_know_is_found() -> None:
    """One that resumed is never admitted; it is noted only when it is concluded."""
    account = Account(
        executions=[ended(), ended(job=run_of(JOB, 2), status="RUNNING")],
        of_runs=[Run(job_id=JOB.id, number=1)],
        outcomes={JOB.execution_name: FAILED},
    )

    last = last_run(account, JOB.id)

    assert last.execution.status == "RUNNING"
    assert last.outcome is None


@pytest.mark.parametrize(
    ("account", "words"),
    [
        (Account(), "There is no job anna-"),
        (Account(of_runs=[Run(job_id=JOB.id, number=1)]), "keeps them for 90 days"),
        (Account(of_attempts=[attempt(AttemptState.LOST)]), "keeps them for 90 days"),
    ],
)
def test_a_job_without_an_execution_is_an_error(account: Account, words: str) -> None:
    with pytest.raises(NoSuchRun, match=words):
        last_run(account, JOB.id)


# All that failed


def found(account: Account, since: datetime = YESTERDAY) -> list[str]:
    return [last.execution.name for last in failed_runs(account, since)]


def test_each_job_is_run_again_once_and_in_the_order_of_starts() -> None:
    anna, bert = named("anna"), named("bert")
    account = Account(
        executions=[
            ended(job=run_of(bert, 2), started_at=NOON),
            ended(job=anna, started_at=NOON - timedelta(hours=1)),
            ended(job=bert, started_at=NOON - timedelta(hours=2)),
        ]
    )

    assert found(account) == [anna.id, run_of(bert, 2).execution_name]


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_a_job_that_was_started_again_since_is_left_alone(status: str) -> None:
    account = Account(executions=[ended(), ended(job=run_of(JOB, 2), status=status)])

    assert found(account) == []


def test_a_job_that_failed_before_is_left_alone() -> None:
    early = replace(ended(job=named("anna")), stopped_at=YESTERDAY - timedelta(seconds=1))

    assert found(Account(executions=[early, ended(job=named("bert"))])) == [named("bert").id]


def test_each_job_has_its_own_history() -> None:
    anna, bert = named("anna"), named("bert")
    account = Account(
        executions=[ended(job=anna), ended(job=bert)],
        of_attempts=[attempt(AttemptState.ACCEPTED, bert)],
        outcomes={anna.execution_name: failed_in("InputGone")},
    )

    first, second = failed_runs(account, YESTERDAY)

    assert (first.latest, first.failed_with) == (None, "InputGone")
    assert second.latest == attempt(AttemptState.ACCEPTED, bert)
    assert second.outcome is None


@pytest.mark.parametrize("last_drop", [JOB.id, "anna-fedcba9876543210"])
def test_a_replaced_drop_is_run_again_only_when_it_is_named(last_drop: str) -> None:
    """Whatever has become of the later one: it waits, renders, failed or is delivered."""
    account = Account(executions=[ended()], last_drops={"anna": last_drop})
    is_replaced = last_drop != JOB.id

    (last,) = failed_runs(account, YESTERDAY)
    many = choose(last, NOW, is_named=False)
    one = choose(last_run(account, JOB.id), NOW, is_named=True)

    assert many.is_started is not is_replaced
    assert (f"job {last_drop} has taken its place" in many.words) is is_replaced
    assert (one.is_started, one.replaced_by) == (True, last_drop if is_replaced else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", NOW - timedelta(minutes=30)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:30", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("2026-11-20T08:30:00Z", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("2026-11-20T08:30+02:00", datetime(2026, 11, 20, 6, 30, tzinfo=UTC)),
        ("0001-01-01T00:00+14:00", datetime(2000, 1, 1, tzinfo=UTC)),
    ],
)
def test_since_is_a_date_a_moment_or_a_span(text: str, expected: datetime) -> None:
    found = moment(text, NOW)

    assert (found, found.tzinfo) == (expected, UTC)  # it is shown as UTC


@pytest.mark.parametrize("text", ["", "2", "h", "2w", "-2h", "yesterday", "2026-13-01", "999999d"])
def test_since_without_a_meaning_is_refused(text: str) -> None:
    with pytest.raises(WrongUsage, match="neither a date"):
        moment(text, NOW)


def test_since_in_the_future_is_refused() -> None:
    with pytest.raises(WrongUsage, match="in the future"):
        moment("2027-01-01", NOW)
