"""Which cures of the code a test has not seen: a new refusal without a case of its own is found."""

import ast
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import dropreel

PACKAGE = Path(dropreel.__file__).parent


@contextmanager
def cures_not_run(modules: Sequence[Path]) -> Iterator[list[str]]:
    """Gives a list. On leaving, it has each place of the modules that writes a cure and was not
    run meanwhile."""
    monitoring: Any = vars(sys)["monitoring"]  # typeshed has no name for it
    tool, names = monitoring.OPTIMIZER_ID, {str(module) for module in modules}
    run: set[tuple[str, int]] = set()
    not_run: list[str] = []

    def note(code: CodeType, line: int) -> object:
        if code.co_filename in names:
            run.add((code.co_filename, line))
        return monitoring.DISABLE

    monitoring.use_tool_id(tool, __name__)
    try:
        monitoring.restart_events()
        monitoring.register_callback(tool, monitoring.events.LINE, note)
        monitoring.set_events(tool, monitoring.events.LINE)
        yield not_run
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    not_run += [
        f"{module.name}:{cure.lineno}: {ast.unparse(cure)}"
        for module in modules
        for cure in _cures_in(module)
        if run.isdisjoint((str(module), line) for line in _lines_of(cure))
    ]


def _cures_in(module: Path) -> Iterator[ast.expr]:
    """Where a cure is written: `cure=...` of a reason, and `cure = ...` before it."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "cure":
            yield node.value
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "cure":
            yield node.value


def _lines_of(node: ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)
