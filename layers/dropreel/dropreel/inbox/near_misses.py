"""Names that look the same to people and are not: files that were meant for one job."""

import unicodedata
from collections.abc import Iterable, Iterator


def near_misses(name: str, others: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The other names that differ only in capitals or spaces, each with what differs, in words."""
    for other in others:
        if other != name and _folded(other) == _folded(name):
            yield other, " and ".join(_differences(name, other))


def _folded(text: str) -> str:
    return _without_spaces(_spelled_out(text)).casefold()


def _differences(one: str, other: str) -> Iterator[str]:
    spelled_out = [_spelled_out(one), _spelled_out(other)]
    if spelled_out != [one, other]:
        yield "%20, which stands for a space"
    bare = [_without_spaces(text) for text in spelled_out]
    if bare[0] != bare[1]:
        yield "capitals"
    if spelled_out[0].casefold() != spelled_out[1].casefold():
        yield "spaces"


def _spelled_out(text: str) -> str:
    return text.replace("%20", " ")


def _without_spaces(text: str) -> str:
    """Without any character that shows as a space or as nothing."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(
        one for one in composed if not (one.isspace() or unicodedata.category(one) == "Cf")
    )
