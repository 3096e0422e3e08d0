"""What a command prints. Text from elsewhere, such as a file's name, is made fit for a terminal."""

import json

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType

from dropreel.model.harmless import harmless, harmless_lines

__all__ = ["harmless", "harmless_lines"]


def print_json(answer: object) -> None:
    """One document, in ASCII: a terminal acts on nothing in it."""
    dumped = answer.model_dump(mode="json") if isinstance(answer, BaseModel) else answer
    typer.echo(json.dumps(dumped, indent=2))


def show(view: RenderableType) -> None:
    """As a table at a terminal, and as lines in a pipe if the view has them."""
    console = Console()
    if not console.is_terminal and hasattr(view, "lines"):
        for line in view.lines():
            typer.echo(line)
        return
    console.print(view, crop=False)  # a link is not broken
