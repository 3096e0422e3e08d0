"""Run failed jobs again. A run waits for what a provider has accepted, and does not submit it."""

import re
from collections.abc import Callable, Container, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from operate.choice import Choice, Stack, choose, failed_runs, last_run
from operate.errors import WrongUsage
from operate.terminal import harmless, print_json

_SPAN = re.compile(r"([0-9]{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_NAME = re.compile(r"[a-z0-9-]{1,80}")
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)  # a year 1 with an offset has no time in UTC


def asked_for(
    job_id: str | None, failed_since: str | None, now: datetime, *, again: bool = False
) -> str | datetime:
    """One job's id, or the time since which all failed jobs are meant. Raises `WrongUsage`."""
    if again and job_id is None:
        raise WrongUsage(
            "AGAIN=1 (--again) renders one job again, which is paid again: name it with ID= (--id)."
        )
    if job_id is not None and failed_since is None:
        if not _NAME.fullmatch(job_id):
            raise WrongUsage(f'ID= (--id): "{job_id}" is no job id, such as anna-0123456789abcdef.')
        return job_id
    if failed_since is not None and job_id is None:
        return moment(failed_since, now)
    raise WrongUsage(
        "Set one of the two: ID= (--id) for one job, or FAILED_SINCE= (--failed-since) for all "
        "jobs that failed since then."
    )


def moment(text: str, now: datetime, option: str = "FAILED_SINCE= (--failed-since)") -> datetime:
    """A date, a date-time, or the start of a span that ends now; in UTC, as the reports say it.
    Raises `WrongUsage`, which names the option."""
    if span := _SPAN.fullmatch(text):
        return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        raise WrongUsage(
            f'{option}: "{text}" is neither a date (2026-11-20), nor a '
            "date-time (2026-11-20T08:00), nor a span (30m, 2h, 3d)."
        ) from None
    since = since if since.tzinfo else since.replace(tzinfo=UTC)
    if since > now:
        raise WrongUsage(f'{option}: "{text}" is in the future.')
    return max(since, _LONG_AGO).astimezone(UTC)


def rerun(
    stack: Stack,
    asked: str | datetime,
    now: datetime,
    *,
    is_dry_run: bool,
    is_sure: bool,
    may_ask: bool,
    again: bool = False,
    as_json: bool = False,
) -> bool:
    """False when nothing was started, except in a dry run. Raises `NoSuchRun`."""
    say = partial(typer.echo, err=as_json)
    if isinstance(asked, str):
        choices = [choose(last_run(stack, asked), now, is_named=True, again=again)]
    else:
        choices = [choose(last, now, is_named=False) for last in failed_runs(stack, asked)]
    started: set[str] = set()
    if isinstance(asked, datetime) and not choices:
        say(f"No job has failed since {asked:%Y-%m-%d %H:%M} UTC.")
    elif not as_json:
        _show(choices)
    is_wanted = is_dry_run or is_sure or not isinstance(asked, str)
    if is_dry_run and choices:
        say("Nothing was started: this is a dry run.")
    elif choices and (is_wanted or _is_wanted(choices[0], say, may_ask=may_ask)):
        started = _start(stack, choices, say)
    if as_json:
        print_json({"dry_run": is_dry_run, "jobs": [_fields(one, started) for one in choices]})
    return bool(started) or is_dry_run or not choices


def _fields(choice: Choice, started: Container[str]) -> dict[str, object]:
    """Of `rerun --json`."""
    return {
        "job_id": choice.job.id,
        "run": choice.job.run,
        "execution": choice.job.execution_name,
        "failed_with": choice.failed_with,
        "may_run": choice.is_started,
        "started": choice.job.execution_name in started,
        "words": choice.words,
        "replaced_by": choice.replaced_by,
    }


def _is_wanted(choice: Choice, say: Callable[[str], None], *, may_ask: bool) -> bool:
    """Ask, if there is a later drop of the named job's output."""
    if not (choice.is_started and choice.replaced_by):
        return True
    say(
        f"Its files were dropped again: job {choice.replaced_by} has taken its place. If that job "
        "has a video, this job's video will be next to it, as "
        f"{harmless(choice.job.own_video_key)}."
    )
    if not may_ask:
        say("Nothing was started. To run it all the same, set YES=1 (--yes).")
        return False
    return typer.confirm("Run it again all the same?")


def _start(stack: Stack, choices: Sequence[Choice], say: Callable[[str], None]) -> set[str]:
    """Returns the names of the executions. After an error in between, the command can be repeated:
    it skips what was started."""
    chosen = [choice.job for choice in choices if choice.is_started]
    started = set[str]()
    try:
        for job in chosen:
            if stack.start(job):
                started.add(job.execution_name)
                if len(choices) == 1:
                    say(f"Execution {job.execution_name}")
            else:
                say(f"{job.execution_name} was started by another command just now.")
    finally:
        skipped = len(choices) - len(chosen)
        rest = f", skipped {skipped}." if skipped else "."
        say(f"Started {len(started)} of {len(choices)}{rest}")
    return started


def _show(choices: Sequence[Choice]) -> None:
    """A table at a terminal; tab-separated lines for a pipe."""
    console = Console()
    if console.is_terminal:
        console.print(_table(choices))
        return
    for choice in choices:
        typer.echo("\t".join(_cells(choice)))


def _table(choices: Sequence[Choice]) -> Table:
    table = Table("job", "ended with", "what happens")
    for choice in choices:
        table.add_row(*map(Text, _cells(choice)), style=None if choice.is_started else "dim")
    table.columns[0].overflow = "fold"  # a cut id is useless
    return table


def _cells(choice: Choice) -> tuple[str, str, str]:
    return harmless(choice.job.id), harmless(choice.failed_with), harmless(choice.words)
