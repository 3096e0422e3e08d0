"""How a check looks at a terminal, and as lines in a pipe."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from operate.check.links import Found, State

_STYLES: Final = {State.WORKS: "green", State.BROKEN: "bold red", State.NOT_TRIED: "dim"}


@dataclass(frozen=True)
class CheckView:
    found: Found

    def __rich_console__(self, _console: Console, _options: Any) -> Iterator[RenderableType]:  # noqa: ANN401
        table = Table(
            "link", "", "seconds", "found", box=None, padding=(0, 2, 0, 0), pad_edge=False
        )
        table.columns[0].no_wrap = True
        table.columns[1].no_wrap = True
        table.columns[2].justify = "right"
        table.columns[3].overflow = "fold"
        for link in self.found.links:
            state = Text(link.state, style=_STYLES[link.state])
            table.add_row(Text(link.name), state, _seconds(link.seconds), Text(link.found))
        yield table
        for link in self.found.links:
            if link.cure:
                yield Text(f"\n{link.name}: {link.cure}")
        yield Text(f"\n{self._end()}")

    def _end(self) -> str:
        if self.found.works:
            return f"The stack {self.found.stack} works."
        return f"The stack {self.found.stack} does not work. Mend the broken link, and check again."

    def lines(self) -> Iterator[str]:
        """For a pipe: tab-separated; the cure is last."""
        for link in self.found.links:
            cells = (link.name, link.state, _seconds(link.seconds), link.found, link.cure or "")
            yield "\t".join(cells).rstrip("\t")
        yield self._end()


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f}"
