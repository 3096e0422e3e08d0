"""The operator's commands for a deployed stack: `python -m operate --help`.

Exits with 1 on failure and with 2 on wrong usage, with one sentence on stderr.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
from rich.console import Console
from rich.status import Status

from dropreel.aws.table import KEPT
from dropreel.model.catalog import TITLES
from dropreel.model.closure import AccountState
from operate import prices as price_list
from operate import tokens
from operate.accounts import ask_providers, sentence
from operate.check.account import DeployedAccount
from operate.check.chain import Chain
from operate.check.links import Found
from operate.check.view import CheckView
from operate.errors import OperateError, WrongUsage
from operate.redrive import DeadLetters, redrive
from operate.reports.cost import By
from operate.reports.cost import cost as add_up
from operate.reports.jobs import Asked, State
from operate.reports.jobs import jobs as list_jobs
from operate.reports.lists import Lists
from operate.reports.story import Teller
from operate.reports.views import CostView, JobsView, StoryView, keep_showing
from operate.rerun import asked_for, moment
from operate.rerun import rerun as run_again
from operate.stack import DeployedStack, outputs_of
from operate.sweep import sweep as sweep_now
from operate.teardown import StandingStack
from operate.teardown import teardown as tear_down
from operate.terminal import harmless, print_json, show

app = typer.Typer(
    help="The operator's commands for a deployed stack.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    pretty_exceptions_enable=False,  # they would show the token among the local variables
)

StackName = Annotated[str, typer.Option("--stack", help="The name of the stack.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
Since = Annotated[
    str,
    typer.Option(
        help="A date or a date-time (UTC unless it has an offset), or a span: 30m, 2h, 3d."
    ),
]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn an error into one sentence on stderr and an exit code."""
    try:
        yield
    except OperateError as error:
        typer.echo(harmless(error), err=True)
        raise typer.Exit(error.exit_code) from None
    except (BotoCoreError, ClientError) as error:
        typer.echo(harmless(_sentence(error)), err=True)
        raise typer.Exit(1) from None


def _sentence(error: BotoCoreError | ClientError) -> str:
    match error:
        case NoCredentialsError():
            return "There are no AWS credentials in this shell."
        case NoRegionError():
            return "No AWS region is set. Set AWS_DEFAULT_REGION."
        case ClientError():
            answer = error.response["Error"]
            return f"AWS answered {error.operation_name} with {answer['Code']}: {answer['Message']}"
        case _:
            return " ".join(str(error).split())


def say(words: str, answer: object, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        typer.echo(words)


def at_terminal() -> bool:
    """Whether there is a person to ask."""
    return sys.stdin.isatty()


@app.command()
@plain_errors()
def token(
    provider: Annotated[
        str | None, typer.Option(help="The token's provider; not needed if there is only one.")
    ] = None,
    stack: StackName = "dropreel",
) -> None:
    """Store a provider's API token, and ask the provider if it accepts it.

    Asks for the token without showing it, or reads a line from stdin.
    """
    outputs = outputs_of(stack)
    name = tokens.provider_of(outputs, provider)
    if at_terminal():
        question = f"{name}'s API token"
        typed = typer.prompt(question, default="", show_default=False, hide_input=True)
    else:
        typed = sys.stdin.readline()
    tokens.store(outputs, name, typed)
    typer.echo(f"{name}'s API token is stored.")
    for asked in ask_providers(outputs["WatchFunctionName"]):
        if TITLES.get(asked.provider, asked.provider) != name:
            continue
        if asked.state is AccountState.REFUSED:
            raise OperateError(sentence(asked))
        typer.echo(harmless(sentence(asked)))


@app.command()
@plain_errors()
def providers(stack: StackName = "dropreel") -> None:
    """Ask the providers, by free calls, if they accept the stored tokens, and what the balance is.

    One that is closed and accepts the account gets jobs again.
    """
    watch = outputs_of(stack)["WatchFunctionName"]
    with Console(stderr=True).status("Asking the providers ..."):
        answers = ask_providers(watch)
    for asked in answers:
        typer.echo(harmless(sentence(asked)))
    if any(asked.is_closed or asked.state is AccountState.REFUSED for asked in answers):
        raise typer.Exit(1)


@app.command()
@plain_errors()
def sweep(*, as_json: AsJson = False, stack: StackName = "dropreel") -> None:
    """Run the sweep now: it starts and concludes jobs whose events were lost."""
    function = outputs_of(stack)["SweepFunctionName"]
    with Console(stderr=True).status("Sweeping ..."):
        sweep_now(function)
    say("Started: the sweep checks 120 uploads a minute.", {"started": True}, as_json=as_json)


@app.command()
@plain_errors()
def teardown(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Switch intake on again after a teardown that gave up.")
    ] = False,
    stack: StackName = "dropreel",
) -> None:
    """Stop intake and all jobs, wait until each has its error file and event, delete the stack."""
    standing = StandingStack(stack)
    if undo:
        standing.start_intake()
        typer.echo("Intake is on. `make sweep` starts the jobs of files dropped meanwhile.")
        return
    typer.echo("These are kept:")
    for kept in standing.kept():
        typer.echo(f"  {kept.kind} {kept.name}")
    typer.echo("All else is deleted, also the tokens. Jobs are stopped; renders may be paid.")
    if not yes:
        if not at_terminal():
            raise WrongUsage("Nobody can be asked here. Give --yes (make teardown YES=1).")
        typer.confirm(f"Delete the stack {stack}?", abort=True)
    tear_down(standing, typer.echo)
    typer.echo(f"The stack {stack} is deleted.")


@app.command()
@plain_errors()
def prices(*, as_json: AsJson = False, stack: StackName = "dropreel") -> None:
    """Ask the providers what a second of each offer costs, and print the parameter to set."""
    accounts, owners = price_list.settings_of(outputs_of(stack)["SweepFunctionName"])
    with Console(stderr=True).status("Asking the providers ..."):
        found = price_list.prices(price_list.Asking(accounts, price_list.token_in), owners)
    if as_json:
        parameter = price_list.value_for(found, owners)
        offers = [asdict(one) | {"to_set": one.to_set} for one in found]
        print_json({"usd_per_second": offers, "parameters": {"CatalogOverrides": parameter}})
        return
    Console().print(price_list.table(found))
    typer.echo("To set in a file such as parameters.yaml (see docs/deploying.md):", err=True)
    typer.echo(price_list.parameter_for(found, owners))


@app.command()
@plain_errors()
def redrive_uploads(*, as_json: AsJson = False, stack: StackName = "dropreel") -> None:
    """Send the uploads on which intake failed through intake again."""
    redrive(outputs_of(stack)["IntakeDeadLettersUrl"])
    words = "Started: uploads that fail again are back in the queue within 15 minutes."
    say(words, {"started": True}, as_json=as_json)


@app.command()
@plain_errors()
def purge_uploads(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    stack: StackName = "dropreel",
) -> None:
    """Delete the messages of the uploads on which intake failed. The files themselves stay."""
    queue = DeadLetters(outputs_of(stack)["IntakeDeadLettersUrl"])
    letters = queue.hide()
    typer.echo(f"Uploads that intake failed on: {len(letters)}")
    for letter in letters:
        typer.echo(f"  {harmless(letter)}")
    if not letters:
        return
    try:
        if not yes:
            if not at_terminal():
                raise WrongUsage("Nobody can be asked here. Give --yes (make purge-uploads YES=1).")
            typer.confirm("Delete these messages? The files stay.", abort=True)
    except BaseException:
        queue.show(letters)
        raise
    queue.delete(letters)
    typer.echo(f"Deleted: {len(letters)}. A sweep finds a file again that has no job yet.")


@app.command()
@plain_errors()
def rerun(
    job_id: Annotated[
        str | None, typer.Option("--id", help="One job's id, or the name of one of its executions.")
    ] = None,
    failed_since: Annotated[
        str | None,
        typer.Option(
            help="All jobs that failed since a date or a date-time (UTC unless it has an offset), "
            "or in the last 30m, 2h, 3d."
        ),
    ] = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Run the job of --id even if there is a later drop.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Render the job of --id again although its video is there: pays again."
        ),
    ] = False,
    as_json: AsJson = False,
    stack: StackName = "dropreel",
) -> None:
    """Run failed jobs again: one, or all since a time. Does not pay twice for the same render."""
    now = datetime.now(UTC)
    asked = asked_for(job_id, failed_since, now, again=again)
    deployed = DeployedStack(outputs_of(stack))
    if not run_again(
        deployed,
        asked,
        now,
        is_dry_run=dry_run,
        is_sure=yes,
        may_ask=at_terminal() and not as_json,
        again=again,
        as_json=as_json,
    ):
        raise typer.Exit(1)


def _kept_since(text: str, now: datetime) -> datetime:
    """The time that is asked for, or since which the ledger keeps runs."""
    since, kept = moment(text, now, "SINCE= (--since)"), now - KEPT
    if since < kept:
        words = f"The ledger keeps {KEPT.days} days: this is since {kept:%Y-%m-%d %H:%M} UTC."
        typer.echo(words, err=True)
    return max(since, kept)


@app.command()
@plain_errors()
def jobs(
    *,
    folder: Annotated[str | None, typer.Option(help="Only of this folder and those in it.")] = None,
    state: Annotated[list[State] | None, typer.Option(help="May be given more than once.")] = None,
    since: Since = "1d",
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 50,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every 5 seconds.")] = False,
    as_json: AsJson = False,
    stack: StackName = "dropreel",
) -> None:
    """List the jobs that have not ended, and those that ended since a time. Newest first."""
    outputs = outputs_of(stack)
    asked = Asked(
        since=_kept_since(since, datetime.now(UTC)),
        folder=f"{folder.strip('/')}/" if folder and folder.strip("/") else None,
        states=frozenset(state or ()),
        limit=limit,
    )
    runs = Lists(outputs)

    def look() -> JobsView:
        now = datetime.now(UTC)
        return JobsView(list_jobs(runs, asked, now), now)

    if watch:
        if as_json or not Console().is_terminal:
            raise WrongUsage("WATCH=1 (--watch) is for a terminal, and without --json.")
        keep_showing(look)
    elif as_json:
        print_json(look().found)
    else:
        show(look())


@app.command()
@plain_errors()
def job(
    job_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Its id, the name of an execution, or folder and name: team/anna."
        ),
    ],
    *,
    log: Annotated[bool, typer.Option(help="Read the functions' logs, too.")] = True,
    as_json: AsJson = False,
    stack: StackName = "dropreel",
) -> None:
    """Tell one job's story: what happened and when, the error and its cure, where its files are."""
    outputs = outputs_of(stack)
    teller = Teller(
        DeployedStack(outputs), Lists(outputs), outputs["StateMachineArn"], outputs["UploadBucket"]
    )
    told = teller.story(job_id, datetime.now(UTC), with_log=log)
    if as_json:
        print_json(told)
    else:
        show(StoryView(told))


@app.command()
@plain_errors()
def cost(
    *,
    since: Since = "30d",
    by: Annotated[list[By] | None, typer.Option(help="May be given more than once.")] = None,
    as_json: AsJson = False,
    stack: StackName = "dropreel",
) -> None:
    """Add up what the renders of the jobs cost that ended since a time. For the bill, see AWS's."""
    now = datetime.now(UTC)
    groups = tuple(dict.fromkeys(by or [By.DAY]))
    found = add_up(Lists(outputs_of(stack)), _kept_since(since, now), groups, now)
    if as_json:
        print_json(found)
    else:
        show(CostView(found, groups))


@app.command()
@plain_errors()
def check(
    *,
    render: Annotated[
        bool, typer.Option("--render", help="Then render one short video, which is paid for.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before it is paid for.")] = False,
    as_json: AsJson = False,
    stack: StackName = "dropreel",
) -> None:
    """Check that a deployed stack works: each link from the upload to the event. It pays nothing.

    It drops the samples as a dry run, follows them, and removes them again.
    """
    if render and not (yes or (at_terminal() and not as_json)):
        raise WrongUsage("RENDER=1 (--render) pays for a video: set YES=1 (--yes), too.")
    with Console(stderr=True).status("Looking at the stack ...") as status:
        chain = Chain(DeployedAccount(stack), status.update, partial(datetime.now, UTC))
        try:
            chain.check()
            if render and chain.works and (yes or _agrees(chain, status)):
                chain.render()
        finally:
            chain.clean_up()
    found = Found(stack=stack, works=chain.works, links=tuple(chain.links))
    if as_json:
        print_json(found)
    else:
        show(CheckView(found))
    if not found.works:
        raise typer.Exit(1)


def _agrees(chain: Chain, status: Status) -> bool:
    status.stop()
    agrees = typer.confirm(f"All that is free works. This renders and pays {chain.price()}. Go on?")
    status.start()
    return agrees


if __name__ == "__main__":
    app()
