"""What the demo shows of names and messages."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from local import demo, embedded

NAME = "[red]anna\x1b[2J:heart:\r.png"
SHOWN = "[red]anna\\x1b[2J:heart:\\r.png"


@pytest.fixture
def screen() -> StringIO:
    return StringIO()


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def console(screen: StringIO, request: pytest.FixtureRequest) -> Console:
    return Console(file=screen, force_terminal=request.param, highlight=False, width=200)


def assert_harmless(screen: StringIO) -> None:
    assert SHOWN in screen.getvalue()
    assert NAME not in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()


def test_a_step_shows_names_harmless(console: Console, screen: StringIO) -> None:
    board = demo.Board(console)
    with board.shown():
        board.done(f"Dropped {NAME}")
    assert_harmless(screen)


def test_what_is_going_on_shows_names_harmless(console: Console, screen: StringIO) -> None:
    board = demo.Board(console)
    board.now(f"Copying {NAME}")
    console.print(board)
    assert_harmless(screen)


REASON = {"file": "f", "found": "f", "rule": "r", "cure": "c", "offer": None}


@pytest.mark.parametrize(
    "detail",
    [
        {"message": NAME},
        {"error": {"message": NAME, "advice": "a"}},
        {"error": {"message": "m", "advice": NAME}},
        *({"error": {"advice": "a", "reasons": [REASON | {part: NAME}]}} for part in REASON),
    ],
)
def test_a_refusal_shows_names_harmless(
    console: Console, screen: StringIO, detail: dict[str, Any]
) -> None:
    demo.print_refusal({"detail": detail}, console)
    assert_harmless(screen)


def test_make_up_shows_its_failure_harmless(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise embedded.EmbeddedAwsFailed(f"sam deploy failed:\n{NAME}")

    monkeypatch.setattr(embedded, "up", fail)
    monkeypatch.setattr("sys.argv", ["embedded", "up"])

    assert embedded.main() == 1
    assert f"sam deploy failed:\n{SHOWN}\n" == capsys.readouterr().err


def test_the_demo_shows_its_failure_harmless(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["demo", "--image", f"no/{NAME}"])

    assert demo.main() == 1
    assert SHOWN in capsys.readouterr().out.replace("\n", "")
