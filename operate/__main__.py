"""What an operator does with a deployed stack: `python -m operate --help`.

Exits with 1 when it could not be done and with 2 when it cannot be meant; a sentence says why.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
from rich.console import Console

from operate import tokens
from operate.errors import OperateError
from operate.redrive import redrive
from operate.rerun import asked_for
from operate.rerun import rerun as run_again
from operate.stack import DeployedStack, outputs_of
from operate.sweep import sweep as sweep_now

app = typer.Typer(
    help="What an operator does with a deployed stack.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    pretty_exceptions_enable=False,  # they would show the token among the local variables
)

StackName = Annotated[str, typer.Option("--stack", help="The name of the stack.")]


@contextmanager
def told_plainly() -> Iterator[None]:
    """What goes wrong is one sentence on stderr and an exit code."""
    try:
        yield
    except OperateError as error:
        typer.echo(error, err=True)
        raise typer.Exit(error.exit_code) from None
    except (BotoCoreError, ClientError) as error:
        typer.echo(_sentence(error), err=True)
        raise typer.Exit(1) from None


def _sentence(error: BotoCoreError | ClientError) -> str:
    match error:
        case NoCredentialsError():
            return "There are no AWS credentials in this shell."
        case NoRegionError():
            return "No AWS region is set: say AWS_DEFAULT_REGION."
        case ClientError():
            told = error.response["Error"]
            return f"AWS answered {error.operation_name} with {told['Code']}: {told['Message']}"
        case _:
            return " ".join(str(error).split())


def at_terminal() -> bool:
    """Somebody is there to be asked."""
    return sys.stdin.isatty()


@app.command()
@told_plainly()
def token(
    provider: Annotated[
        str | None, typer.Option(help="Whose token it is; not needed if there is only one.")
    ] = None,
    stack: StackName = "dropreel",
) -> None:
    """Store a provider's API token: asks for it unseen, or reads a line from stdin."""
    outputs = outputs_of(stack)
    name = tokens.provider_of(outputs, provider)
    tokens.store(outputs, name, _typed(f"{name}'s API token"))
    typer.echo(f"{name}'s API token is stored.")


def _typed(question: str) -> str:
    if at_terminal():
        answer: str = typer.prompt(question, default="", show_default=False, hide_input=True)
        return answer
    return sys.stdin.readline()


@app.command()
@told_plainly()
def sweep(stack: StackName = "dropreel") -> None:
    """Do now what the daily sweep does: start and conclude what events missed."""
    function = outputs_of(stack)["SweepFunctionName"]
    with Console(stderr=True).status("Sweeping ..."):
        sweep_now(function)
    typer.echo("Under way: the inbox is gone through at 120 uploads a minute.")


@app.command()
@told_plainly()
def redrive_uploads(stack: StackName = "dropreel") -> None:
    """Send the uploads that intake failed on through intake again."""
    redrive(outputs_of(stack)["IntakeDeadLettersUrl"])
    typer.echo("Under way: what still fails comes back to the queue within a quarter of an hour.")


@app.command()
@told_plainly()
def rerun(
    job_id: Annotated[
        str | None, typer.Option("--id", help="Of one job, or the name of an execution of it.")
    ] = None,
    failed_since: Annotated[
        str | None,
        typer.Option(
            help="All that failed since a date or a date-time (UTC if it does not say), or for "
            "30m, 2h, 3d."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Run the job of --id although there is a later drop.")
    ] = False,
    stack: StackName = "dropreel",
) -> None:
    """Run failed jobs again: one, or all that failed since. Pays nothing twice."""
    now = datetime.now(UTC)
    asked = asked_for(job_id, failed_since, now)
    deployed = DeployedStack(outputs_of(stack))
    if not run_again(deployed, asked, now, is_dry_run=dry_run, is_sure=yes, may_ask=at_terminal()):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
