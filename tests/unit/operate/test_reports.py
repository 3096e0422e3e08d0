"""What the reports say of the jobs, and that their sums are right."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dropreel.model.events import AttemptSummary
from dropreel.model.job import execution_name
from dropreel.model.ledger import ListedRun
from operate.choice import Execution
from operate.reports import console, history
from operate.reports.cost import By, cost, renders_of, sum_of
from operate.reports.jobs import Asked, State, ended_row, jobs, state_of
from operate.reports.lists import Fields, Queue
from operate.reports.story import moments_of
from operate.reports.views import CostView, JobsView, StoryView, keep_showing
from tests.support.render_fakes import JOB, NOON

NOW = NOON + timedelta(hours=2)


def attempt(number: int = 1, **changes: object) -> AttemptSummary:
    made = {
        "number": number,
        "provider": "runcomfy",
        "model": "wan-ai/wan-2-2/speech-to-video",
        "request_id": f"req-{number}",
        "outcome": "VideoReady",
        "estimated_usd": 0.5,
    }
    return AttemptSummary.model_validate(made | changes)


def run(stem: str = "anna", number: int = 1, **changes: object) -> ListedRun:
    listed = {
        "job_id": f"{stem}-0123456789abcdef",
        "number": number,
        "name": f"team/{stem}",
        "model": JOB.model,
        "started_at": NOON,
    }
    return ListedRun.model_validate(listed | changes)


def ended(
    stem: str = "anna", number: int = 1, *, minutes: float = 10, **changes: object
) -> ListedRun:
    end = {"code": "VideoReady", "renders": (attempt(),)} | changes
    return run(stem, number, ended_at=NOON + timedelta(minutes=minutes), **end)


@dataclass
class Stack:
    """Satisfies `jobs.Runs`."""

    opened: list[ListedRun] = field(default_factory=list)
    ends: list[ListedRun] = field(default_factory=list)
    recorded: dict[tuple[str, int], Fields] = field(default_factory=dict)
    submitted: dict[tuple[str, int], Fields] = field(default_factory=dict)
    preparing: list[Execution] = field(default_factory=list)
    waiting: dict[str, Queue] = field(default_factory=dict)

    def open(self) -> Sequence[ListedRun]:
        return self.opened

    def ended_since(self, since: datetime, now: datetime) -> Iterable[ListedRun]:
        late = [one for one in self.ends if one.ended_at and since <= one.ended_at <= now]
        return sorted(late, key=lambda one: one.ended_at or now, reverse=True)

    def newest_running(self, but: frozenset[str]) -> Sequence[Execution]:
        return [one for one in self.preparing if one.name not in but]

    def runs(self, listed: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], Fields]:
        return {one: self.recorded[one] for one in listed if one in self.recorded}

    def attempts(self, numbers: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], Fields]:
        return {one: self.submitted[one] for one in numbers if one in self.submitted}

    def last_attempt(self, job_id: str) -> int | None:
        return max((number for it, number in self.submitted if it == job_id), default=None)

    def queues(self, now: datetime) -> Mapping[str, Queue]:
        return self.waiting


# The state

ADMITTED = {"attempt": Decimal(1), "admitted_at": NOON.isoformat(), "slot": Decimal(0)}
ACCEPTED = {"state": "accepted", "accepted_at": NOON.isoformat()}


@pytest.mark.parametrize(
    ("recorded", "submitted", "state", "since"),
    [
        ({}, {}, State.PREPARES, None),
        ({"queue_key": "2026"}, {}, State.WAITS, None),
        # In the queue again, after the first attempt was refused.
        (ADMITTED | {"queue_key": "2026"}, {"state": "refused"}, State.WAITS, None),
        (ADMITTED, {}, State.SUBMITS, NOON),
        (ADMITTED, {"state": "begun"}, State.SUBMITS, NOON),
        (ADMITTED, {"state": "postponed"}, State.SUBMITS, NOON),
        (ADMITTED, ACCEPTED, State.RENDERS, NOON),
        (ADMITTED | {"rendered_at": NOW.isoformat()}, ACCEPTED, State.DELIVERS, NOW),
        ({"resumed_at": NOON.isoformat()}, ACCEPTED, State.RENDERS, NOON),
        (ADMITTED | {"closed_at": NOW.isoformat()}, ACCEPTED, State.ENDS, NOW),
    ],
)
def test_the_state_of_a_run_follows_from_its_records(
    recorded: Fields, submitted: Fields, state: State, since: datetime | None
) -> None:
    assert state_of(recorded, submitted) == (state, since)


@pytest.mark.parametrize(
    ("code", "state", "shown"),
    [
        ("VideoReady", State.READY, None),
        ("JobChecked", State.CHECKED, None),
        ("NoCredit", State.FAILED, "NoCredit"),
    ],
)
def test_the_state_of_an_ended_run_is_its_outcome(
    code: str, state: State, shown: str | None
) -> None:
    row = ended_row(ended(code=code))

    assert (row.state, row.code, row.since) == (state, shown, row.ended_at)


# The list


def test_open_jobs_come_first_whenever_they_started_and_each_part_newest_first() -> None:
    old, new = run("old"), run("new", started_at=NOON + timedelta(minutes=5))
    key = ("old-0123456789abcdef", 1)
    waits = Queue("runcomfy", [execution_name(*key)], "RunComfy is paused")
    stack = Stack(
        [old, new],
        [ended("carl", minutes=70), ended("dora", minutes=80), ended("past", minutes=1)],
        recorded={key: {"queue_key": "2026", "provider": "runcomfy"}},
        waiting={"runcomfy": waits},
    )

    found = jobs(stack, Asked(since=NOON + timedelta(hours=1)), NOW)

    assert [row.name for row in found.jobs] == ["team/new", "team/old", "team/dora", "team/carl"]
    assert not found.more
    row = found.jobs[1]
    assert (row.state, row.place, row.waiting) == (State.WAITS, 1, 1)
    assert row.waits_for == "RunComfy is paused"


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_says_when_it_left_some_out(limit: int) -> None:
    stack = Stack([run("anna")], [ended("carl")])

    found = jobs(stack, Asked(since=NOON, limit=limit), NOW)

    assert (len(found.jobs), found.more) == (min(limit, 2), limit < 2)


@pytest.mark.parametrize(
    ("folder", "states", "names"),
    [
        ("team/", [], ["anna", "carl"]),
        ("tea/", [], []),
        (None, [State.FAILED], ["carl"]),
        (None, [State.PREPARES, State.FAILED], ["anna", "bert", "carl"]),
        ("news/", [State.PREPARES], ["bert"]),
    ],
)
def test_filters_hold_together(
    folder: str | None, states: Sequence[State], names: list[str]
) -> None:
    ends = [ended("carl", code="NoCredit"), ended("eve", name="news/eve")]
    stack = Stack([run("anna"), run("bert", name="news/bert")], ends)

    found = jobs(stack, Asked(since=NOON, folder=folder, states=frozenset(states)), NOW)

    assert sorted(row.name.rpartition("/")[2] for row in found.jobs) == names


def test_a_job_that_no_list_has_yet_prepares() -> None:
    execution = Execution(JOB.execution_name, "RUNNING", NOON, None, None, JOB)

    (row,) = jobs(Stack(preparing=[execution]), Asked(since=NOON), NOW).jobs

    assert (row.job_id, row.name, row.state) == (JOB.id, "team/anna", State.PREPARES)


# The cost

usd = st.one_of(st.none(), st.decimals(0, 100, places=4).map(float))
attempts = st.builds(
    attempt,
    number=st.integers(1, 3),
    provider=st.sampled_from(["runcomfy", "wavespeed"]),
    estimated_usd=usd,
    actual_usd=usd,
    outcome=st.sampled_from(["VideoReady", "RenderFailed"]),
)
runs_that_ended = st.builds(
    ended,
    stem=st.sampled_from(["anna", "bert", "carl"]),
    number=st.just(1),
    minutes=st.floats(0, 10_000),
    name=st.sampled_from(["team/anna", "news/bert", "carl"]),
    model=st.sampled_from(["a", "b"]),
    renders=st.lists(attempts, max_size=3, unique_by=lambda made: made.number).map(tuple),
)
listed = st.lists(runs_that_ended, max_size=6, unique_by=lambda one: one.job_id)
LATER = NOON + timedelta(days=30)


@given(listed, st.lists(st.sampled_from(By), min_size=1, max_size=4, unique=True))
def test_the_lines_add_up_to_the_total(ends: list[ListedRun], by: list[By]) -> None:
    found = cost(Stack(ends=ends), NOON, by, LATER)

    for name in ("renders", "failed", "prices_known", "charges_known", "unknown"):
        assert sum(getattr(line, name) for line in found.lines) == getattr(found.total, name)
    for name in ("estimated_usd", "actual_usd", "usd"):
        lines = sum(Decimal(str(getattr(line, name))) for line in found.lines)
        assert lines == Decimal(str(getattr(found.total, name)))


@given(listed, st.floats(0, 10_000))
def test_two_spans_cost_together_what_both_in_one_cost(ends: list[ListedRun], cut: float) -> None:
    first = [one for one in ends if one.ended_at and one.ended_at < NOON + timedelta(minutes=cut)]
    second = [one for one in ends if one not in first]

    parts, whole = (sum_of(renders_of(part)) for part in (first, second)), sum_of(renders_of(ends))

    assert sum(part.renders for part in parts) == whole.renders


def test_a_render_that_a_later_run_delivers_counts_once_with_its_charge() -> None:
    """On the day of the run that submitted it, also when only one of the two is asked for."""
    open_still = attempt(outcome="ExecutionAborted")
    first = ended(code="ExecutionAborted", renders=(open_still,))
    second = ended(number=2, minutes=2000, renders=(attempt(run=1, actual_usd=0.4),))

    both = cost(Stack(ends=[first, second]), NOON, [By.DAY], LATER)
    only_second = cost(Stack(ends=[second]), NOON, [By.DAY], LATER)

    assert [(line.by[By.DAY], line.renders, line.failed, line.usd) for line in both.lines] == [
        ("2026-11-20", 1, 0, 0.4)
    ]
    assert only_second.total.renders == 0


def test_a_day_is_one_of_utc_wherever_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    late = ended(minutes=11 * 60)  # 23:00 UTC
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "JST-9")
        time.tzset()
        (render,) = renders_of([late])
    time.tzset()

    assert render.by[By.DAY] == "2026-11-20"


def test_what_is_not_known_is_counted_and_not_taken_for_nothing() -> None:
    renders = (
        attempt(1, estimated_usd=None),
        attempt(2, estimated_usd=0, outcome="NoCredit"),  # refused: no render
        attempt(3, actual_usd=0.4),
    )
    open_key = ("bert-0123456789abcdef", 1)
    stack = Stack(
        [run("bert")],
        [ended(renders=renders)],
        recorded={open_key: {"charged_on": "2026-11-20", "charged_usd": Decimal("0.1")}},
    )

    found = cost(stack, NOON, [By.FOLDER], NOW)

    total = found.total
    assert (total.renders, total.unknown, total.charges_known, total.usd) == (2, 1, 1, 0.4)
    assert (found.open.renders, found.open.usd) == (1, 0.1)
    shown = drawn(CostView(found, [By.FOLDER]), 80)
    assert "Not in the sum: 1 render of unknown price." in shown
    assert "Under way, not in the sum: 1, about 0.10 USD." in shown


@pytest.mark.parametrize(
    ("charged", "words"),
    [({}, "1 of unknown price."), ({"charged_usd": Decimal("0.1")}, "1, about 0.10 USD.")],
)
def test_what_is_under_way_is_said_with_its_price_or_as_unknown(
    charged: dict[str, Decimal], words: str
) -> None:
    key = ("bert-0123456789abcdef", 1)
    stack = Stack([run("bert")], [], recorded={key: {"charged_on": "2026-11-20", **charged}})

    shown = drawn(CostView(cost(stack, NOON, [By.FOLDER], NOW), [By.FOLDER]), 80)

    assert f"Under way, not in the sum: {words}" in shown


# The story


def event(kind: str, second: float, **details: object) -> dict[str, object]:
    """As Step Functions documents `HistoryEvent`."""
    return {"type": kind, "timestamp": NOON + timedelta(seconds=second), **details}


def entered(step: str, second: float) -> dict[str, object]:
    return event("TaskStateEntered", second, stateEnteredEventDetails={"name": step})


def test_the_history_gives_each_visit_of_a_step_with_its_faults() -> None:
    failed = {"error": "Lambda.TooManyRequestsException", "cause": "Rate Exceeded."}
    events = [
        event("ExecutionStarted", 0),
        entered("Prepare", 1),
        event("TaskFailed", 2, taskFailedEventDetails=failed),
        event("TaskFailed", 3, taskFailedEventDetails=failed),
        event("TaskTimedOut", 4, taskTimedOutEventDetails={"error": "States.Timeout"}),
        event("TaskStateExited", 5),
        event(
            "ChoiceStateEntered", 5, stateEnteredEventDetails={"name": "Is it rendered already?"}
        ),
        entered("Poll", 6),
        event("TaskStateExited", 7),
        entered("Poll", 8),
    ]

    found = list(history.visits_in(events))

    prepare, first, second = found
    assert prepare.faults == {"Lambda.TooManyRequestsException": 2, "States.Timeout": 1}
    assert (prepare.step, prepare.left_at) == ("Prepare", NOON + timedelta(seconds=5))
    assert [(one.step, one.faults) for one in (first, second)] == [("Poll", {})] * 2
    assert second.left_at is None
    words = [f"{moment.what} {moment.words}" for moment in moments_of(found)]
    assert words == [
        "faults Prepare: Lambda.TooManyRequestsException (2 times), States.Timeout (1 times)",
        "polled 2 times, now the last time",
    ]


# At a terminal


def drawn(view: JobsView | CostView | StoryView, columns: int) -> str:
    terminal = Console(width=columns, force_terminal=True, color_system=None)
    with terminal.capture() as taken:
        terminal.print(view, crop=False)
    return taken.get()


@pytest.mark.parametrize("columns", [80, 140])
def test_the_table_fits_and_a_hostile_name_does_nothing(columns: int) -> None:
    hostile = ended("eve", name="[red]\x1b[2J\u202e/eve", code="[bold]\x1b]0;x\x07")
    stack = Stack([run("anna")], [hostile, ended("carl", code="SubmissionUnclear")])

    shown = drawn(JobsView(jobs(stack, Asked(since=NOON), NOW), NOW), columns)

    assert max(map(len, shown.splitlines())) <= columns
    assert not any(character in shown for character in "\x1b\x07\u202e")
    assert "\\x1b" in shown
    assert "carl-0123456789abcdef" in shown  # an id is not cut


def test_no_amount_is_cut_where_the_names_are_long() -> None:
    by = [By.DAY, By.PROVIDER, By.MODEL, By.FOLDER]
    made = attempt(estimated_usd=1234.56, actual_usd=6543.21)
    long = ended(name="customers/a very long one/2026/eve", renders=(made,))

    shown = drawn(CostView(cost(Stack(ends=[long]), NOON, by, NOW), by), 80)

    assert "1234.56" in shown
    assert "6543.21" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_watching_shows_it_anew_until_somebody_stops_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [[run("anna")], [run("bert")]]

    def look() -> JobsView:
        if not found:
            raise KeyboardInterrupt
        return JobsView(jobs(Stack(found.pop(0)), Asked(since=NOON), NOW), NOW)

    keep_showing(look, every_seconds=0)

    shown = capsys.readouterr().out
    assert "bert-0123456789abcdef" in shown


@pytest.mark.parametrize(
    ("arn", "start"),
    [
        ("arn:aws:states:eu-central-1:1:x", "https://eu-central-1.console.aws.amazon.com/"),
        ("arn:aws-cn:states:cn-north-1:1:x", "https://cn-north-1.console.amazonaws.cn/"),
        (
            "arn:aws-us-gov:states:us-gov-west-1:1:x",
            "https://us-gov-west-1.console.amazonaws-us-gov.com/",
        ),
    ],
)
def test_links_are_those_of_the_region_and_the_partition(arn: str, start: str) -> None:
    links = console.Console(arn)

    assert links.execution(f"{arn}:anna").startswith(f"{start}states/home?region=")
    assert links.file("videos", "team/a b#.mp4").endswith("prefix=team%2Fa%20b%23.mp4")
    assert links.log_group("/aws/lambda/x").endswith("$252Faws$252Flambda$252Fx")
