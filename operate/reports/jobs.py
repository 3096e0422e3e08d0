"""The table of jobs: those that have not ended, and those that ended since a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple, Protocol

from pydantic import AwareDatetime, BaseModel, Field

from dropreel.model.events import VideoReady
from dropreel.model.ledger import AttemptState, ListedRun
from dropreel.render.attempts import total_actual_usd, total_usd
from operate.choice import Execution
from operate.reports.lists import Fields, Queue

_CHECKED: Final = "JobChecked"


class State(StrEnum):
    PREPARES = "prepares"
    WAITS = "waits"
    SUBMITS = "submits"
    RENDERS = "renders"
    DELIVERS = "delivers"
    ENDS = "ends"
    READY = "ready"
    CHECKED = "checked"
    FAILED = "failed"


OPEN: Final = frozenset(State) - {State.READY, State.CHECKED, State.FAILED}


class JobRow(BaseModel, frozen=True):
    """One run of a job, as `jobs --json` gives it."""

    job_id: str
    run: int
    name: str = Field(description="Folder and stem, such as `team/anna`.")
    model: str
    state: State
    code: str | None = Field(default=None, description="Of a failed one: the error's code.")
    since: AwareDatetime = Field(description="Since when it is in this state.")
    started_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    provider: str | None = Field(default=None, description="That it waits for, or is or was at.")
    place: int | None = Field(default=None, description="In the queue; the next is 1.")
    waiting: int | None = Field(default=None, description="In the same queue, at most 1,000.")
    waits_for: str | None = Field(default=None, description="Why the queue does not go on.")
    attempts: int = Field(default=0, description="Submissions.")
    estimated_usd: float | None = Field(default=None, description="Null when it is not known.")
    actual_usd: float | None = Field(default=None, description="Null when it is not known.")


class Asked(NamedTuple):
    """Which jobs are wanted."""

    since: datetime
    folder: str | None = None
    states: frozenset[State] = frozenset()
    limit: int = 50

    def wants(self, row: JobRow) -> bool:
        return not self.states or row.state in self.states

    def wants_name(self, name: str) -> bool:
        return self.folder is None or name.startswith(self.folder)


class Jobs(BaseModel, frozen=True):
    """The answer, as `jobs --json` gives it."""

    since: AwareDatetime
    jobs: tuple[JobRow, ...] = Field(description="Open ones first, each part the newest first.")
    more: bool = Field(description="Whether the limit left some out.")
    waiting: dict[str, int] = Field(description="By provider, at most 1,000 each.")
    waits_for: dict[str, str] = Field(description="By provider, why its queue does not go on.")


class Runs(Protocol):
    """What is read of a stack."""

    def open(self) -> Sequence[ListedRun]: ...

    def ended_since(self, since: datetime, now: datetime) -> Iterable[ListedRun]: ...

    def newest_running(self, but: frozenset[str]) -> Sequence[Execution]: ...

    def runs(self, listed: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], Fields]: ...

    def attempts(self, numbers: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], Fields]: ...

    def last_attempt(self, job_id: str) -> int | None: ...

    def queues(self, now: datetime) -> Mapping[str, Queue]: ...


def jobs(runs: Runs, asked: Asked, now: datetime) -> Jobs:
    queues = runs.queues(now)
    wanted = filter(asked.wants, _rows(runs, asked, queues, now))
    rows = tuple(islice(wanted, asked.limit + 1))
    waiting = {name: queue for name, queue in queues.items() if queue.names}
    return Jobs(
        since=asked.since,
        jobs=rows[: asked.limit],
        more=len(rows) > asked.limit,
        waiting={name: len(queue.names) for name, queue in waiting.items()},
        waits_for={name: queue.waits_for for name, queue in waiting.items() if queue.waits_for},
    )


def _rows(runs: Runs, asked: Asked, queues: Mapping[str, Queue], now: datetime) -> Iterator[JobRow]:
    seen = set[tuple[str, int]]()  # an execution that ends just now is among both
    if not asked.states or asked.states & OPEN:
        for row in _open_rows(runs, asked, queues):
            seen.add((row.job_id, row.run))
            yield row
    if not asked.states or asked.states - OPEN:
        for run in runs.ended_since(asked.since, now):
            if asked.wants_name(run.name) and (run.job_id, run.number) not in seen:
                yield ended_row(run)


# Open ones


def _open_rows(runs: Runs, asked: Asked, queues: Mapping[str, Queue]) -> Iterator[JobRow]:
    """In portions: an answer of a few rows needs the details of a few."""
    listed = runs.open()
    not_listed = runs.newest_running(frozenset(run.execution_name for run in listed))
    listed = [*listed, *(ListedRun.open(one.job, one.started_at) for one in not_listed)]
    listed = [run for run in listed if asked.wants_name(run.name)]
    listed.sort(key=lambda run: (run.started_at, run.execution_name), reverse=True)
    places = {
        name: (queue, place)
        for queue in queues.values()
        for place, name in enumerate(queue.names, start=1)
    }
    portion = max(asked.limit + 1, 100) if not asked.states else 5_000
    for first in range(0, len(listed), portion):
        yield from open_rows(runs, listed[first : first + portion], places)


def open_rows(
    runs: Runs, listed: Sequence[ListedRun], places: Mapping[str, tuple[Queue, int]]
) -> Iterator[JobRow]:
    recorded = runs.runs((run.job_id, run.number) for run in listed)
    numbers = {
        key: int(fields["attempt"]) if "attempt" in fields else runs.last_attempt(key[0])
        for key, fields in recorded.items()
    }
    attempts = runs.attempts(
        (job_id, number) for (job_id, _), number in numbers.items() if number is not None
    )
    for run in listed:
        key = (run.job_id, run.number)
        attempt = attempts.get((run.job_id, numbers.get(key) or 0), {})
        yield open_row(run, recorded.get(key, {}), attempt, places.get(run.execution_name))


def open_row(
    run: ListedRun, recorded: Fields, attempt: Fields, place: tuple[Queue, int] | None
) -> JobRow:
    """Of a run that has not ended. `recorded` is empty until it is admitted; `attempt` is empty
    until it is submitted."""
    state, since = state_of(recorded, attempt)
    queue, number = place or (None, None)
    return JobRow(
        job_id=run.job_id,
        run=run.number,
        name=run.name,
        model=run.model,
        state=state,
        since=since or run.started_at,
        started_at=run.started_at,
        provider=recorded.get("provider") or attempt.get("provider"),
        place=number if state is State.WAITS else None,
        waiting=len(queue.names) if queue and state is State.WAITS else None,
        waits_for=queue.waits_for or None if queue and state is State.WAITS else None,
        attempts=int(attempt["sk"].rpartition("#")[2]) if attempt else 0,
        estimated_usd=_charged_or_estimated(recorded, attempt),
    )


def state_of(recorded: Fields, attempt: Fields) -> tuple[State, datetime | None]:
    """The state of an open run, and since when; None: since its start."""
    if "closed_at" in recorded:
        return State.ENDS, _moment(recorded, "closed_at")
    if "queue_key" in recorded:
        return State.WAITS, None
    if "rendered_at" in recorded:
        return State.DELIVERS, _moment(recorded, "rendered_at")
    if not recorded:
        return State.PREPARES, None
    if attempt.get("state") == AttemptState.ACCEPTED:
        return State.RENDERS, _moment(attempt, "accepted_at")
    return State.SUBMITS, _moment(recorded, "admitted_at")


def charged_usd(recorded: Fields) -> float | None:
    """What a run may have cost until now; None when nothing was charged, or no price is known."""
    charged = [recorded[name] for name in ("charged_usd", "kept_usd") if name in recorded]
    return float(sum(charged, Decimal(0))) if charged else None


def _charged_or_estimated(recorded: Fields, attempt: Fields) -> float | None:
    charged = charged_usd(recorded)
    if charged is None and "estimated_usd" in attempt:
        return float(attempt["estimated_usd"])
    return charged


def _moment(fields: Fields, name: str) -> datetime | None:
    return datetime.fromisoformat(fields[name]) if name in fields else None


# Ended ones


def ended_row(run: ListedRun) -> JobRow:
    state = {VideoReady.__name__: State.READY, _CHECKED: State.CHECKED}.get(
        run.code or "", State.FAILED
    )
    ended_at = run.ended_at or run.started_at
    return JobRow(
        job_id=run.job_id,
        run=run.number,
        name=run.name,
        model=run.model,
        state=state,
        code=run.code if state is State.FAILED else None,
        since=ended_at,
        started_at=run.started_at,
        ended_at=ended_at,
        provider=run.renders[-1].provider if run.renders else None,
        attempts=len(run.renders),
        estimated_usd=total_usd(run.renders),
        actual_usd=total_actual_usd(run.renders) if run.renders else None,
    )
