"""The sweep's two parts: through a listing in memory, and over executions that ended."""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any, get_args
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dropreel.inbox import sweep as inbox_sweep
from dropreel.inbox.messages import SeenUpload, Sweep, SweepPosition, message_in
from dropreel.inbox.pairing import name_of
from dropreel.inbox.sweep import InboxSweep
from dropreel.model.executions import EndedExecution, Ending, UnhappyEnd
from dropreel.model.job import INBOX, Job
from dropreel.model.ledger import Outcome, Run
from dropreel.model.metrics import Metric
from dropreel.model.uploads import ObjectVersion, Page
from dropreel.outcome import full_sweep as sweeping
from dropreel.outcome.full_sweep import LOOKS_BACK, FullSweep
from dropreel.runtime.log import logger
from tests.support.conclusion_bench import FAILED, sent
from tests.support.meter import FakeMeter
from tests.support.render_fakes import JOB, NOON, MemoryLedger

# Through the inbox

ON_TIME = itertools.repeat(0.0)
HOUR = timedelta(hours=1)
WHOLE = SweepPosition()
HOURLY = SweepPosition(since=NOON - 26 * HOUR, ends_at=NOON + HOUR)


class Inbox:
    """A listing, what was noted of it, and the queue that a sweep sends itself on with."""

    def __init__(
        self,
        keys: Iterable[str],
        *,
        noted: Iterable[str] = (),
        deleted: Iterable[str] = (),
        keys_a_page: int = 1000,
        age: timedelta = timedelta(0),
        ages: Mapping[str, timedelta] | None = None,
    ) -> None:
        self.keys = sorted(keys)
        self.age, self.ages = age, ages or {}
        self.noted, self.deleted = set(noted), set(deleted)
        self.keys_a_page = keys_a_page
        self.now_seconds = 0.0
        self.seen: list[tuple[float, SeenUpload]] = []
        self.bookmarks: list[tuple[float, str]] = []
        self.asked_about = 0
        self.sweep = InboxSweep(
            inbox=self,
            notes=self,
            queue=self,
            upload_bucket="uploads",
            now=lambda: NOON + timedelta(seconds=self.now_seconds),
        )

    def page(self, bucket: str, prefix: str, after: str | None) -> Page:
        assert (bucket, prefix) == ("uploads", INBOX)
        left = [key for key in self.keys if after is None or key > after]
        listed = left[: self.keys_a_page]
        return Page(
            tuple(
                ObjectVersion(key, f"v of {key}", 1, NOON - self.ages.get(key, self.age))
                for key in listed
                if key not in self.deleted
            ),
            goes_on_after=listed[-1] if len(left) > self.keys_a_page else None,
        )

    def unanswered(
        self, bucket: str, pins: Iterable[tuple[str, str]]
    ) -> frozenset[tuple[str, str]]:
        asked = list(pins)
        assert 0 < len(asked) <= 100
        self.asked_about += len(asked)
        return frozenset(pin for pin in asked if pin[0] not in self.noted)

    def send(self, message: BaseModel, delay_seconds: int) -> None:
        assert 0 < delay_seconds <= 900
        due = self.now_seconds + delay_seconds
        if isinstance(message, SeenUpload):
            self.seen.append((due, message))
        else:
            self.bookmarks.append((due, message.model_dump_json()))

    def go_through(self, lateness_seconds: Iterator[float], begin: SweepPosition = WHOLE) -> int:
        """To the end of the chain; returns its length. Each message comes late by so much."""
        self.send(Sweep(sweep=begin), 1)
        for length in range(2 * len(self.keys) + 3):
            if not self.bookmarks:
                return length
            ((due, message),) = self.bookmarks
            self.bookmarks.clear()
            self.now_seconds = due + next(lateness_seconds)
            told = message_in(message)
            assert isinstance(told, Sweep)
            self.sweep.go_on(told)
        raise AssertionError("the sweep does not end")


keys = st.builds(
    "inbox/{}{}{}".format,
    st.sampled_from(["", "team/", "a b+c%20d'&/", "é 😀/", "\x07", "\uffff", ".hidden/", "team"]),
    st.sampled_from(["", "0", "1", "anna", "_defaults", "Thumbs", "~$"]),
    st.sampled_from(["", "/", ".png", ".mp3", ".json", ".TXT", ".psd", ".db"]),
)


@given(
    st.sets(keys, max_size=40),
    st.integers(1, 50),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_each_unanswered_upload_is_seen_once_at_the_pace(
    keys: set[str], keys_a_page: int, pace: int, chance: random.Random
) -> None:
    noted, deleted = ({key for key in sorted(keys) if chance.random() < 0.3} for _ in range(2))
    inbox = Inbox(keys, noted=noted, deleted=deleted, keys_a_page=keys_a_page)

    with patch.object(inbox_sweep, "SWEEP_UPLOADS_PER_MINUTE", pace):
        inbox.go_through(iter(lambda: chance.choice([0, 0.4, 700]), None))

    usable = {key for key in keys - noted - deleted if name_of(key)}
    assert sorted(seen.key for _, seen in inbox.seen) == sorted(usable)
    for _, seen in inbox.seen:
        version = f"v of {seen.key}"
        assert seen == SeenUpload(
            bucket="uploads", key=seen.key, version_id=version, first_seen=NOON, swept=True
        )
    dues = sorted(due for due, _ in inbox.seen)
    assert all(later - due >= 60 for due, later in zip(dues, dues[pace:], strict=False))
    assert dues == [due for due, _ in inbox.seen]


def test_large_inbox_takes_its_time() -> None:
    inbox = Inbox(f"inbox/{number:04}.{kind}" for number in range(500) for kind in ("mp3", "png"))

    inbox.go_through(ON_TIME)

    assert len(inbox.seen) == 1000
    last_due, _ = inbox.seen[-1]
    assert 1000 / 120 * 60 <= last_due <= 1000 / 120 * 60 + 30
    assert inbox.asked_about < 2 * 1000  # a page is not asked about again and again


def test_inbox_where_all_is_answered_is_gone_through_at_once() -> None:
    keys = [f"inbox/{number:04}.png" for number in range(5000)]
    inbox = Inbox(keys, noted=keys)

    assert inbox.go_through(ON_TIME) == 5

    assert inbox.now_seconds <= 10
    assert not inbox.seen


def test_look_rests_as_long_as_that_of_an_event() -> None:
    inbox = Inbox(["inbox/anna.png"])

    inbox.sweep.go_on(Sweep(sweep=SweepPosition(media=True)))

    ((due, _),) = inbox.seen
    assert due == 1


def test_sweep_of_another_bucket_stays_there() -> None:
    inbox = Inbox([], keys_a_page=1)
    inbox.page = lambda bucket, prefix, after: Page((), "inbox/a")  # type: ignore[method-assign]

    inbox.sweep.go_on(Sweep(sweep=SweepPosition(bucket="others")))

    ((_, message),) = inbox.bookmarks
    assert message_in(message) == Sweep(sweep=SweepPosition(bucket="others", after="inbox/a"))


def test_message_that_comes_twice_sends_the_same_again() -> None:
    inbox = Inbox(f"inbox/{number:04}.png" for number in range(300))
    message = Sweep(sweep=SweepPosition(after="inbox/0100.png", media=True))

    inbox.sweep.go_on(message)
    inbox.sweep.go_on(message)

    assert inbox.seen[:120] == inbox.seen[120:]
    assert inbox.bookmarks[0] == inbox.bookmarks[1]


def test_hourly_sweep_looks_up_and_sends_only_recent_uploads() -> None:
    ages = {f"inbox/{hours}.png": timedelta(hours=hours) for hours in (0, 1, 25, 26, 27, 24 * 365)}
    inbox = Inbox(ages, ages=ages, keys_a_page=2)

    inbox.go_through(ON_TIME, HOURLY)

    recent = {"inbox/0.png", "inbox/1.png", "inbox/25.png", "inbox/26.png"}
    assert {seen.key for _, seen in inbox.seen} == recent
    assert inbox.asked_about == len(recent)


@pytest.mark.parametrize(("begin", "sends_all"), [(WHOLE, True), (HOURLY, False)])
def test_only_an_hourly_sweep_ends_after_an_hour(begin: SweepPosition, *, sends_all: bool) -> None:
    inbox = Inbox(f"inbox/{number:04}.png" for number in range(9_000))

    inbox.go_through(ON_TIME, begin)

    assert len(inbox.seen) == (9_000 if sends_all else 7_200)


def test_upload_that_is_never_answered_is_sent_once_a_day_after_its_first_day() -> None:
    inbox = Inbox(["inbox/broken.png"], age=timedelta(hours=40))
    account = Account()

    for hour in range(24):
        account.full.sweep(NOON.replace(hour=hour, minute=1))
    for position in account.positions:
        inbox.go_through(ON_TIME, position)

    assert len(account.positions) == 24
    assert len(inbox.seen) == 1


# Executions that ended


class Account:
    """Executions, a ledger, and who is told."""

    def __init__(self) -> None:
        self.ledger = MemoryLedger()
        self.meter = FakeMeter()
        self.endings: dict[str, Ending | None] = {}
        self.listed: dict[UnhappyEnd, list[EndedExecution]] = {
            status: [] for status in get_args(UnhappyEnd)
        }
        self.told: list[tuple[EndedExecution, Ending]] = []
        self.done: list[str] = []
        self.positions: list[SweepPosition] = []
        self.described = 0

    @property
    def full(self) -> FullSweep:
        return FullSweep(
            queue=self,
            executions=self,
            ledger=self.ledger,
            conclude=self.invoke,
            serve_all=self.serve_all,
            meter=self.meter,
            now=lambda: NOON,
        )

    def end(
        self,
        job: Job = JOB,
        status: UnhappyEnd = "ABORTED",
        *,
        started: timedelta = timedelta(hours=2),
        stopped: timedelta = timedelta(hours=1),
        given: str | None = None,
        arn: str | None = None,
    ) -> EndedExecution:
        """An execution that started and stopped so long ago."""
        arn = arn or f"arn:{job.execution_name}"
        execution = EndedExecution(arn, status, NOON - started, NOON - stopped)
        self.listed[status].append(execution)
        self.endings[execution.arn] = Ending(given or job.model_dump_json(), None)
        return execution

    def ended(self, status: UnhappyEnd) -> Iterator[EndedExecution]:
        yield from self.listed[status]

    def ending(self, execution: EndedExecution) -> Ending | None:
        self.described += 1
        return self.endings[execution.arn]

    def invoke(self, execution: EndedExecution, ending: Ending) -> None:
        self.told.append((execution, ending))

    def serve_all(self) -> None:
        self.done.append("served")

    def send(self, message: BaseModel, delay_seconds: int) -> None:
        sweep = message_in(message.model_dump_json())
        assert isinstance(sweep, Sweep)
        assert delay_seconds == 0
        self.positions.append(sweep.sweep)
        self.done.append("sent")

    @property
    def told_of(self) -> list[EndedExecution]:
        return [execution for execution, _ in self.told]


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.mark.parametrize(
    ("scheduled_at", "position"),
    [
        (None, WHOLE),  # on demand
        (NOON.replace(hour=0, minute=1), WHOLE),
        (NOON, HOURLY),
        # Its call came two hours late: what it missed meanwhile is recent, too.
        (NOON - 2 * HOUR, HOURLY.model_copy(update={"since": NOON - 28 * HOUR})),
    ],
    ids=["on demand", "just after midnight", "hourly", "late"],
)
def test_inbox_is_gone_through_whole_once_a_day_and_on_demand(
    account: Account, scheduled_at: datetime | None, position: SweepPosition
) -> None:
    account.full.sweep(scheduled_at)

    assert account.positions == [position]
    assert account.done == ["sent", "served"]


def closed(before: timedelta) -> Run:
    return Run(job_id=JOB.id, number=1, closed_at=NOON - before)


@pytest.mark.parametrize(
    ("status", "run", "outcome", "is_told"),
    [
        ("ABORTED", None, None, True),
        ("TIMED_OUT", None, None, True),
        ("FAILED", None, None, True),
        ("ABORTED", None, sent(FAILED), False),
        ("ABORTED", None, FAILED, True),  # stopped before it was announced
        ("ABORTED", closed(timedelta(minutes=2)), None, False),  # a conclusion is at work
        ("ABORTED", closed(timedelta(minutes=30)), None, True),  # it died
    ],
)
def test_ended_execution_is_concluded_unless_that_is_done_or_under_way(
    account: Account,
    status: UnhappyEnd,
    run: Run | None,
    outcome: Outcome | None,
    *,
    is_told: bool,
) -> None:
    execution = account.end(status=status)
    if run:
        account.ledger.note_run(run)
    if outcome:
        account.ledger.end(JOB, execution.started_at, outcome, NOON)

    account.full.sweep()

    assert account.told == [(execution, account.endings[execution.arn])] * is_told


def test_outcome_of_another_run_says_nothing_of_this_one(account: Account) -> None:
    first = account.end()
    again = account.end(JOB.model_copy(update={"run": 2}))
    account.ledger.end(JOB, first.started_at, sent(FAILED), NOON)

    account.full.sweep()

    assert account.told_of == [again]


@pytest.mark.parametrize(
    ("stopped", "is_told"),
    [
        (timedelta(seconds=2), False),  # its event is on its way
        (timedelta(minutes=1), True),
        (LOOKS_BACK - timedelta(minutes=1), True),
        (LOOKS_BACK + timedelta(minutes=1), False),
    ],
)
def test_only_what_ended_lately_is_looked_at(
    account: Account, stopped: timedelta, is_told: bool
) -> None:
    account.end(started=timedelta(days=80), stopped=stopped)

    account.full.sweep()

    assert bool(account.told) is is_told


@pytest.mark.parametrize(
    "by_hand",
    [
        {"given": "not JSON"},
        {"given": '{"hello": "world"}'},
        {"arn": "arn:aws:states:eu-central-2:123456789012:execution:dropreel-render:by-hand"},
    ],
    ids=["no input of ours", "another input", "not the name of its job"],
)
def test_execution_that_somebody_started_by_hand_is_passed_over(
    account: Account, by_hand: dict[str, Any]
) -> None:
    account.end(**by_hand)
    ours = account.end(JOB.model_copy(update={"run": 2}))

    account.full.sweep()

    assert account.told_of == [ours]


def test_execution_that_is_gone_or_runs_again_is_passed_over(account: Account) -> None:
    account.endings[account.end().arn] = None

    account.full.sweep()

    assert account.told == []


def test_listing_is_read_no_further_than_an_execution_can_last(account: Account) -> None:
    def listing() -> Iterator[EndedExecution]:
        yield account.end()
        yield EndedExecution("arn:old", "FAILED", NOON - LOOKS_BACK - timedelta(days=91), NOON)
        raise AssertionError("read on")

    account.ended = lambda status: listing() if status == "FAILED" else iter(())  # type: ignore[method-assign]

    account.full.sweep()

    assert len(account.told) == 1


def test_flood_of_failures_is_looked_at_in_part_and_said_so(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(logger, "warning", warned.append)
    monkeypatch.setattr(sweeping, "MAX_DESCRIBED", 3)
    for run in range(1, 4):
        account.end(JOB.model_copy(update={"run": run}), "FAILED")
    account.full.sweep()
    assert (account.described, warned) == (3, [])

    aborted = account.end(JOB.model_copy(update={"run": 4}))
    account.full.sweep()

    assert account.described == 6
    assert aborted in account.told_of  # first, because the others were most likely concluded
    assert len(warned) == 1


@pytest.mark.parametrize("broken", [None, "send", "serve_all", "invoke"])
def test_each_part_is_done_whatever_else_fails(
    account: Account, broken: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.end()

    def fail(*_: object) -> None:
        raise ConnectionError(broken)

    if broken:
        monkeypatch.setattr(account, broken, fail)

    with pytest.raises(ConnectionError, match=broken) if broken else nullcontext():
        account.full.sweep()

    does = {"send": "sent", "serve_all": "served"}
    assert account.done == [done for part, done in does.items() if part != broken]
    assert bool(account.told) is (broken != "invoke")
    assert account.meter.recorded == ([] if broken else [((None, None), {Metric.SWEEPS_DONE: 1})])
