"""How the reports look at a terminal, and as lines in a pipe."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from textwrap import wrap
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dropreel.model.catalog import TITLES
from dropreel.model.errors import ErrorReport
from operate.reports.cost import By, Cost, Sum
from operate.reports.jobs import JobRow, Jobs, State
from operate.reports.lists import MAX_COUNTED
from operate.reports.story import Moment, Story
from operate.terminal import harmless

WIDE: Final = 120
"""Columns of a terminal that shows all of a job."""

_ID_CHARACTERS: Final = 21  # of a job with a short name


def _plain_table(*columns: str) -> Table:
    table = Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # a cut id is useless
    return table


# jobs


@dataclass(frozen=True)
class JobsView:
    """The table, at a terminal of a width."""

    found: Jobs
    now: datetime

    def __rich_console__(self, console: Console, _options: Any) -> Iterator[RenderableType]:  # noqa: ANN401
        table = (self._table(is_wide=console.width >= WIDE),) if self.found.jobs else ()
        yield Group(*table, *self._notes())

    def _table(self, *, is_wide: bool) -> Table:
        columns = _COLUMNS if is_wide else [one for one in _COLUMNS if one in _NARROW]
        table = _plain_table(*columns)
        table.columns[0].no_wrap = True  # the others give way
        table.columns[-1].justify = "right"
        for row in self.found.jobs:
            cells = dict(zip(_COLUMNS, self._cells(row), strict=True))
            style = {State.FAILED: "red", State.READY: "green"}.get(row.state)
            cells["job"] = "\n".join(wrap(cells["job"], 40 if is_wide else _ID_CHARACTERS))
            table.add_row(*(Text(cells[name]) for name in columns), style=style)
        return table

    def _notes(self) -> Iterator[Text]:
        if not self.found.jobs:
            yield Text(f"No such job is open or has ended since {_at(self.found.since)} UTC.")
        for provider, waiting in self.found.waiting.items():
            count = f"{waiting:,}" + " or more" * (waiting >= MAX_COUNTED)
            reason = self.found.waits_for.get(provider)
            because = f": {reason}" if reason else ""
            yield Text(f"{TITLES.get(provider, provider)}: {count} in the queue{because}.")
        if self.found.more:
            yield Text("There are more: set --limit, or a filter.")

    def _cells(self, row: JobRow) -> tuple[str, ...]:
        return (
            harmless(row.job_id) + (f" run {row.run}" if row.run > 1 else ""),
            harmless(row.name.rpartition("/")[0]) or "-",
            harmless(row.model),
            f"{row.state} {harmless(row.code)}" if row.code else row.state,
            _span(row.since, self.now),
            TITLES.get(row.provider, row.provider) if row.provider else "-",
            f"{row.place} of {row.waiting}" if row.place else "-",
            str(row.attempts),
            _usd(row),
        )

    def lines(self) -> Iterator[str]:
        """For a pipe: tab-separated, with the start and the end of the state as ISO times."""
        for row in self.found.jobs:
            cells = list(self._cells(row))
            cells[4] = row.since.astimezone(UTC).isoformat(timespec="seconds")
            yield "\t".join(cells)
        yield from map(str, self._notes())


def keep_showing(look: Callable[[], JobsView], every_seconds: float = 5) -> None:
    """Until somebody presses Ctrl-C."""
    with (
        Live(look(), auto_refresh=False, vertical_overflow="visible") as live,
        suppress(KeyboardInterrupt),
    ):
        while True:
            time.sleep(every_seconds)
            live.update(look(), refresh=True)


_COLUMNS: Final = (
    *("job", "folder", "model", "state", "for", "provider", "place", "attempts", "USD"),
)
_NARROW: Final = {"job", "folder", "state", "for", "provider", "USD"}


def _usd(row: JobRow) -> str:
    """What was charged; else the estimate, marked as one."""
    if row.actual_usd is not None:
        return f"{row.actual_usd:.2f}"
    if row.estimated_usd is None:
        return "-"
    return f"~{row.estimated_usd:.2f}" if row.estimated_usd else "0"


def _span(since: datetime, now: datetime) -> str:
    seconds = max(0, int((now - since).total_seconds()))
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


# cost


@dataclass(frozen=True)
class CostView:
    found: Cost
    by: Sequence[By]

    def __rich_console__(self, _console: Console, _options: Any) -> Iterator[RenderableType]:  # noqa: ANN401
        yield Group(self._table(), *self._notes())

    def _table(self) -> Table:
        table = _plain_table(*self.by)
        table.show_footer = True
        for name in _AMOUNTS:
            table.add_column(name, justify="right", no_wrap=True)  # the others give way
        for column, total in zip(
            table.columns[len(self.by) :], _sums(self.found.total), strict=True
        ):
            column.footer = total
        table.columns[0].footer = "total"
        for line in self.found.lines:
            table.add_row(*(Text(_value(one, line.by[one])) for one in self.by), *_sums(line))
        return table

    def _notes(self) -> Iterator[Text]:
        total, still = self.found.total, self.found.open
        if not total.renders:
            yield Text(f"No render has ended since {self.found.since:%Y-%m-%d %H:%M} UTC.")
        if total.renders > total.charges_known:
            by_estimate = total.renders - total.charges_known - total.unknown
            yield Text(
                f"In the sum: {total.charges_known} renders by what the provider charged, and "
                f"{by_estimate} by estimate."
            )
        if total.unknown:
            renders = "render" if total.unknown == 1 else "renders"
            yield Text(f"Not in the sum: {total.unknown} {renders} of unknown price.")
        if still.renders:
            known = still.renders - still.unknown
            parts = [f"{known}, about {still.usd:.2f} USD"] if known else []
            parts += [f"{still.unknown} of unknown price"] if still.unknown else []
            yield Text(f"Under way, not in the sum: {', and '.join(parts)}.")

    def lines(self) -> Iterator[str]:
        """For a pipe: tab-separated, the total last."""
        for line in self.found.lines:
            yield "\t".join([*(_value(one, line.by[one]) for one in self.by), *_sums(line)])
        yield "\t".join(["total", *[""] * (len(self.by) - 1), *_sums(self.found.total)])


_AMOUNTS: Final = ("renders", "failed", "estimated", "charged", "unknown", "USD")


def _sums(of: Sum) -> tuple[str, ...]:
    return (
        str(of.renders),
        str(of.failed),
        f"{of.estimated_usd:.2f}" if of.prices_known else "-",
        f"{of.actual_usd:.2f}" if of.charges_known else "-",
        str(of.unknown),
        f"{of.usd:.2f}" if of.unknown < of.renders or not of.renders else "-",
    )


def _value(by: By, value: str) -> str:
    if by is By.PROVIDER:
        return TITLES.get(value, value)
    return harmless(value) or "-"


# job


@dataclass(frozen=True)
class StoryView:
    story: Story

    def __rich_console__(self, _console: Console, _options: Any) -> Iterator[RenderableType]:  # noqa: ANN401
        story = self.story
        yield Text(harmless(f"{story.name}, {story.model}, job {story.job_id}"), style="bold")
        for run in story.runs:
            yield Text("")
            yield Text(f"Run {run.now.run}: {_now(run.now)}", style="bold")
            yield _rows([*_shown(run.moments), *_cure(run.error)])
        if story.log or story.log_note:
            yield Text("")
            yield Text("Log", style="bold")
            if story.log_note:
                yield Text(story.log_note)
            yield _rows([(_time(line.at), line.step, line.message) for line in story.log])
        yield Text("")
        yield Text("Files, and where to look", style="bold")
        yield _rows([("", file.what, f"s3://{file.bucket}/{file.key}") for file in story.files])
        links = (
            *(file.link for file in story.files),
            *(run.link for run in story.runs),
            *(story.log_groups[step] for step in dict.fromkeys(line.step for line in story.log)),
        )
        yield from (Text(harmless(link), no_wrap=True, overflow="ignore") for link in links)


def _shown(moments: Sequence[Moment]) -> Iterator[tuple[str, str, str]]:
    return ((_time(moment.at), moment.what, moment.words) for moment in moments)


def _cure(error: ErrorReport | None) -> Iterator[tuple[str, str, str]]:
    if error:
        for reason in error.reasons:
            words = f"{reason.file}: {reason.rule}; found: {reason.found}. {reason.cure}"
            yield "", "reason", words
        yield "", "advice", error.advice


def _rows(rows: Sequence[tuple[str, str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for at, what, words in rows:
        table.add_row(at, Text(harmless(what)), Text(harmless(words), overflow="fold"))
    return table


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%m-%d %H:%M:%S}"


def _now(row: JobRow) -> str:
    state = f"{row.state} {harmless(row.code)}" if row.code else str(row.state)
    provider = TITLES.get(row.provider or "", "")
    place = f", {row.place} of {row.waiting} for {provider}" if row.place else ""
    because = f": {row.waits_for}" if row.waits_for else ""
    usd = row.actual_usd if row.actual_usd is not None else row.estimated_usd
    about = "about " if row.actual_usd is None and usd else ""
    cost = "" if usd is None else f", {about}{usd:g} USD"
    return f"{state}{place}{because}{cost}"
