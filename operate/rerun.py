"""Run failed jobs again: what a provider has accepted is waited for, not submitted anew."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from operate.choice import Choice, Stack, choose, failed_runs, last_run
from operate.errors import WrongUsage

_SPAN = re.compile(r"([0-9]{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_NAME = re.compile(r"[a-z0-9-]{1,80}")


def asked_for(job_id: str | None, failed_since: str | None, now: datetime) -> str | datetime:
    """One job's id, or since when all that failed are meant. Raises `WrongUsage`."""
    if job_id is not None and failed_since is None:
        return _name(job_id)
    if failed_since is not None and job_id is None:
        return moment(failed_since, now)
    raise WrongUsage(
        "Say one of both: ID= (--id) for one job, or FAILED_SINCE= (--failed-since) for all that "
        "failed since then."
    )


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise WrongUsage(f'ID= (--id): "{text}" is no job id, such as anna-0123456789abcdef.')
    return text


def moment(text: str, now: datetime) -> datetime:
    """The start of a span that ends now, or what a date or a date-time says."""
    if span := _SPAN.fullmatch(text):
        return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        said = datetime.fromisoformat(text)
    except ValueError:
        raise WrongUsage(
            f'FAILED_SINCE= (--failed-since): "{text}" is neither a date (2026-11-20), nor a '
            "date-time (2026-11-20T08:00), nor a span (30m, 2h, 3d)."
        ) from None
    said = said if said.tzinfo else said.replace(tzinfo=UTC)
    if said > now:
        raise WrongUsage(f'FAILED_SINCE= (--failed-since): "{text}" is in the future.')
    return said


def rerun(
    stack: Stack,
    asked: str | datetime,
    now: datetime,
    *,
    is_dry_run: bool,
    is_sure: bool,
    may_ask: bool,
) -> bool:
    """False when nothing could be started, or nobody wanted it. Raises `NoSuchRun`."""
    choices = _choices(stack, asked, now)
    if isinstance(asked, datetime) and not choices:
        typer.echo(f"No job has failed since {asked:%Y-%m-%d %H:%M} UTC.")
        return True
    _show(choices)
    if is_dry_run:
        typer.echo("Nothing was started: this is a dry run.")
        return True
    if isinstance(asked, str) and not is_sure and not _is_wanted(choices[0], may_ask=may_ask):
        return False
    return _start(stack, choices)


def _choices(stack: Stack, asked: str | datetime, now: datetime) -> list[Choice]:
    if isinstance(asked, str):
        return [choose(last_run(stack, asked), now, is_named=True)]
    return [choose(last, now, is_named=False) for last in failed_runs(stack, asked)]


def _is_wanted(choice: Choice, *, may_ask: bool) -> bool:
    """Ask whoever names a job of which there is a later drop."""
    if not (choice.is_started and choice.replaced_by):
        return True
    typer.echo(
        f"Its files were dropped again since: job {choice.replaced_by} has taken its place. If "
        f"that one has a video, this one's will lie beside it, as {choice.job.own_video_key}."
    )
    if not may_ask:
        typer.echo("Nothing was started. To run it all the same, say YES=1 (--yes).")
        return False
    return typer.confirm("Run it again all the same?")


def _start(stack: Stack, choices: Sequence[Choice]) -> bool:
    """Whatever goes wrong here can be run again: what was started is not failed any more."""
    chosen = [choice.job for choice in choices if choice.is_started]
    started = 0
    try:
        for job in chosen:
            if stack.start(job):
                started += 1
                if len(choices) == 1:
                    typer.echo(f"Execution {job.execution_name}")
            else:
                typer.echo(f"{job.execution_name} was started by somebody else just now.")
    finally:
        skipped = len(choices) - len(chosen)
        typer.echo(
            f"Started {started} of {len(choices)}" + (f", skipped {skipped}." if skipped else ".")
        )
    return started > 0


def _show(choices: Sequence[Choice]) -> None:
    """A table at a terminal; for a pipe a line for each, with tabs."""
    console = Console()
    if console.is_terminal:
        console.print(_table(choices))
        return
    for choice in choices:
        typer.echo("\t".join(_cells(choice)))


def _table(choices: Sequence[Choice]) -> Table:
    table = Table("job", "ended with", "what becomes of it")
    for choice in choices:
        table.add_row(*map(escape, _cells(choice)), style=None if choice.is_started else "dim")
    table.columns[0].overflow = "fold"  # an id that is cut is of no use
    return table


def _cells(choice: Choice) -> tuple[str, str, str]:
    return choice.job.id, choice.failed_with, choice.words
