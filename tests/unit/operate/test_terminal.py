"""What a terminal must not act on."""

from hypothesis import given
from hypothesis import strategies as st

from operate.terminal import harmless, harmless_lines

HOSTILE = "anna\x1b[2J\x1b]0;owned\x07\r\n\u202egnp.\x9b31m"


def test_control_characters_are_spelled_out() -> None:
    assert harmless(HOSTILE) == ("anna\\x1b[2J\\x1b]0;owned\\x07\\r\\n\\u202egnp.\\x9b31m")


@given(st.text())
def test_no_text_can_act_on_a_terminal(text: str) -> None:
    assert harmless(text).isprintable()
    assert all(line.isprintable() for line in harmless_lines(text).split("\n"))


@given(st.text().filter(str.isprintable))
def test_printable_text_stays(text: str) -> None:
    assert harmless(text) == text
