"""Run failed jobs again: what a provider has accepted is waited for, not submitted anew.

    python -m operate.rerun --id anna-0123456789abcdef
    python -m operate.rerun --failed-since 2h [--dry-run]

Exits with 0 when all that could be run again was started, with 1 when nothing could or something
went wrong.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm
from rich.table import Table

from operate.choice import Choice, NoSuchRun, Stack, choose, failed_runs, last_run
from operate.stack import DeployedStack, OutputMissing, outputs_of

_SPAN = re.compile(r"([0-9]{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_NAME = re.compile(r"[a-z0-9-]{1,80}")
_PIPE_COLUMNS = 200  # a terminal has its own width


def main(arguments: Sequence[str] | None = None) -> int:
    now = datetime.now(UTC)
    asked = _parsed(arguments, now)
    wide = None if sys.stdout.isatty() else _PIPE_COLUMNS
    console, complaints = Console(width=wide), Console(stderr=True, soft_wrap=True)
    try:
        stack = DeployedStack(outputs_of(asked.stack))
        if asked.id:
            choices = [choose(last_run(stack, asked.id), now, is_named=True)]
        else:
            failed = failed_runs(stack, asked.failed_since)
            choices = [choose(last, now, is_named=False) for last in failed]
        if not choices:
            console.print(f"No job has failed since {asked.failed_since:%Y-%m-%d %H:%M} UTC.")
            return 0
        console.print(_table(choices))
        if asked.id and not asked.dry_run and not (asked.yes or _may_run(choices[0], console)):
            return 1
        if asked.dry_run:
            console.print("Nothing was started: this is a dry run.")
            return 0 if any(choice.is_started for choice in choices) else 1
        return _start(stack, choices, console)
    except (BotoCoreError, ClientError, NoSuchRun, OutputMissing) as error:
        complaints.print(escape(str(error)))
        return 1


def _may_run(choice: Choice, console: Console) -> bool:
    """Ask whoever names a job of which there is a later drop."""
    if not (choice.is_started and choice.replaced_by):
        return True
    console.print(
        f"Its files were dropped again since: job {choice.replaced_by} has taken its place. If "
        f"that one has a video, this one's will lie beside it, as {choice.job.own_video_key}."
    )
    if not sys.stdin.isatty():
        console.print("Nothing was started. To run it all the same, say YES=1 (--yes).")
        return False
    return Confirm.ask("Run it again all the same?", console=console, default=False)


def _start(stack: Stack, choices: Sequence[Choice], console: Console) -> int:
    """Whatever goes wrong here can be run again: what was started is not failed any more."""
    chosen = [choice.job for choice in choices if choice.is_started]
    started = 0
    try:
        for job in chosen:
            if stack.start(job):
                started += 1
                if len(choices) == 1:
                    console.print(f"Execution {job.execution_name}")
            else:
                console.print(f"{job.execution_name} was started by somebody else just now.")
    finally:
        skipped = len(choices) - len(chosen)
        console.print(
            f"Started {started} of {len(choices)}" + (f", skipped {skipped}." if skipped else ".")
        )
    return 0 if started else 1


def _table(choices: Sequence[Choice]) -> Table:
    table = Table("job", "ended with", "what becomes of it")
    for choice in choices:
        words = (choice.job.id, choice.failed_with, choice.words)
        table.add_row(*map(escape, words), style=None if choice.is_started else "dim")
    table.columns[0].overflow = "fold"  # an id that is cut is of no use
    return table


def _parsed(arguments: Sequence[str] | None, now: datetime) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="operate.rerun", description="Run failed jobs again, without paying again."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--id", type=_name, help="of one job, or the name of an execution of it")
    which.add_argument(
        "--failed-since",
        type=lambda text: moment(text, now),
        help="all that failed since a date or a date-time (UTC if it does not say) or for 30m, "
        "2h, 3d",
    )
    parser.add_argument("--stack", default="dropreel")
    parser.add_argument(
        "--yes",
        action="store_true",
        help="run the job that is named, although there is a later drop",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    return parser.parse_args(arguments)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f'"{text}" is no job id, such as anna-0123456789abcdef')
    return text


def moment(text: str, now: datetime) -> datetime:
    """The start of a span that ends now, or what a date or a date-time says."""
    if span := _SPAN.fullmatch(text):
        return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        said = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'"{text}" is neither a date (2026-11-20), nor a date-time (2026-11-20T08:00), '
            "nor a span (30m, 2h, 3d)"
        ) from None
    said = said if said.tzinfo else said.replace(tzinfo=UTC)
    if said > now:
        raise argparse.ArgumentTypeError(f'"{text}" is in the future')
    return said


if __name__ == "__main__":
    sys.exit(main())
