"""What renders cost, by day, provider, model or folder. A price that is not known is not 0."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from pydantic import AwareDatetime, BaseModel, Field

from dropreel.model.events import AttemptSummary, VideoReady
from dropreel.model.ledger import ListedRun
from operate.reports.jobs import Runs, charged_usd
from operate.reports.lists import Fields

_READY: Final = VideoReady.__name__


class By(StrEnum):
    DAY = "day"
    PROVIDER = "provider"
    MODEL = "model"
    FOLDER = "folder"


class Sum(BaseModel, frozen=True):
    """Of some renders. All amounts are in USD."""

    renders: int = Field(default=0, description="Accepted, or perhaps accepted; not refused.")
    failed: int = Field(default=0, description="Of these: brought no video, and may be paid.")
    estimated_usd: float = Field(default=0, description="Of those with a known price.")
    prices_known: int = Field(default=0, description="Renders with a known price.")
    actual_usd: float = Field(default=0, description="Of those whose charge is known.")
    charges_known: int = Field(default=0, description="Renders whose charge is known.")
    usd: float = Field(default=0, description="The charge where it is known, else the estimate.")
    unknown: int = Field(default=0, description="Renders without charge and price: not in `usd`.")


class Line(Sum, frozen=True):
    by: dict[By, str]


class Cost(BaseModel, frozen=True):
    """The answer, as `cost --json` gives it."""

    since: AwareDatetime
    lines: tuple[Line, ...]
    total: Sum
    open: Sum = Field(description="Of the jobs that have not ended: not in `total`.")


@dataclass(frozen=True)
class Render:
    """One submission that may be paid, with what it is grouped by."""

    by: Mapping[By, str]
    is_ready: bool
    estimated: Decimal | None
    actual: Decimal | None


def cost(runs: Runs, since: datetime, by: Sequence[By], now: datetime) -> Cost:
    groups: dict[tuple[str, ...], list[Render]] = {}
    for render in renders_of(runs.ended_since(since, now)):
        groups.setdefault(tuple(render.by[one] for one in by), []).append(render)
    return Cost(
        since=since,
        lines=tuple(
            Line(by=dict(zip(by, key, strict=True)), **sum_of(group).model_dump())
            for key, group in sorted(groups.items())
        ),
        total=sum_of(render for group in groups.values() for render in group),
        open=_open(runs.runs((run.job_id, run.number) for run in runs.open()).values()),
    )


def renders_of(ended: Iterable[ListedRun]) -> list[Render]:
    """A later run can wait for the same render. It counts once: for the run that submitted it, with
    what the last run knows of it."""
    made: dict[tuple[str, int], tuple[ListedRun, AttemptSummary]] = {}
    known: dict[tuple[str, int], tuple[int, AttemptSummary]] = {}
    for run in ended:
        for attempt in run.renders:
            key = (run.job_id, attempt.number)
            if attempt.run == run.number:
                made[key] = (run, attempt)
            if key not in known or known[key][0] <= run.number:
                known[key] = (run.number, attempt)
    submitted = ((run, known[key][1]) for key, (run, _) in made.items())
    return [_render(run, last) for run, last in submitted if last.actual_usd or _may_be_paid(last)]


def _may_be_paid(attempt: AttemptSummary) -> bool:
    return attempt.estimated_usd != 0  # refused, cancelled, or failed there


def _render(run: ListedRun, attempt: AttemptSummary) -> Render:
    ended_at = run.ended_at or run.started_at
    return Render(
        by={
            By.DAY: f"{ended_at.astimezone(UTC):%Y-%m-%d}",
            By.PROVIDER: attempt.provider,
            By.MODEL: run.model,
            By.FOLDER: run.name.rpartition("/")[0],
        },
        is_ready=attempt.outcome == _READY,
        estimated=_decimal(attempt.estimated_usd),
        actual=_decimal(attempt.actual_usd),
    )


def sum_of(renders: Iterable[Render]) -> Sum:
    each = list(renders)
    estimated = [one.estimated for one in each if one.estimated is not None]
    actual = [one.actual for one in each if one.actual is not None]
    best = [one.estimated if one.actual is None else one.actual for one in each]
    known = [usd for usd in best if usd is not None]
    return Sum(
        renders=len(each),
        failed=sum(not one.is_ready for one in each),
        estimated_usd=_usd(estimated),
        prices_known=len(estimated),
        actual_usd=_usd(actual),
        charges_known=len(actual),
        usd=_usd(known),
        unknown=len(each) - len(known),
    )


def _open(recorded: Iterable[Fields]) -> Sum:
    """By what admission has charged for the runs that have not ended."""
    charged = [charged_usd(run) for run in recorded if "charged_on" in run or "kept_usd" in run]
    known = [Decimal(str(usd)) for usd in charged if usd is not None]
    return Sum(
        renders=len(charged),
        estimated_usd=_usd(known),
        prices_known=len(known),
        usd=_usd(known),
        unknown=len(charged) - len(known),
    )


def _decimal(usd: float | None) -> Decimal | None:
    return None if usd is None else Decimal(str(usd))


def _usd(amounts: Sequence[Decimal]) -> float:
    return float(sum(amounts, Decimal(0)))
