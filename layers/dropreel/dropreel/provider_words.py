"""A provider's own words: made safe to repeat, and read for why something failed.

They can hold whatever was sent to the provider, so URLs and tokens are taken out before they go
anywhere. What they mean is a guess, so it decides only whether and how a render is tried again.
"""

import re

from dropreel.provider import FailureCause

_LINE_MAX_CHARACTERS = 300
_URL_MARKS = ("://", "%3a%2f", "%253a", "x-amz-", "signature=")

_MODERATED = re.compile(
    r"\bmoderat(?:ion|ed|or)|\bnsfw\b|\bunsafe\b|\bflagged\b|(?<!case.)\bsensitive\b"
    r"|\binappropriate\b|\bprohibited\b|\bpolicy violat|\bviolat\w*\b.{0,60}\bpolic"
    r"|\b(?:content|safety|usage)\W+(?:polic|filter|check)"
)
_MEDIA = re.compile(
    r"(?<![a-z])(?:url|link|file|image|picture|audio|voice|media|video|input)s?(?![a-z])"
)
_UNREADABLE = (
    re.compile(
        r"(?:\b(?:not|cannot|unable|fail\w*|error)\b|n't\b)\W+(?:\w+\W+){0,4}?"
        r"(?:download|fetch|read|open|load|access|retriev|reach)"
    ),
    re.compile(r"\b(?:download|fetch\w*|access)\W+(?:\w+\W+)?(?:fail|error|denied|forbidden)"),
    re.compile(r"\b(?:invalid|expired|unreachable|inaccessible)\W+(?:\w+\W+)?(?:url|link)"),
    re.compile(r"\b(?:url|link)\b.{0,40}\b(?:invalid|expired|unreachable|inaccessible|denied)"),
)
_BAD_INPUT = re.compile(
    r"\bno (?:human )?face\b|\bfaces?\W+(?:\w+\W+)?not\W+(?:be\W+)?(?:found|detected)"
    r"|\b(?:not|cannot|unable to|failed to)\W+(?:detect|find)\W+(?:\w+\W+)?faces?\b"
    r"|\b(?:invalid|unsupported|missing)\W+(?:input|parameter|image|audio|prompt|file|format)"
    r"|\b(?:image|audio|prompt|file|width|height|duration|resolution|format)\b.{0,60}"
    r"\b(?:must|too (?:small|large|big|short|long)|not (?:supported|allowed))\b"
)
_NO_CREDIT = re.compile(
    r"\b(?:insufficient|not enough|no)\W+(?:\w+\W+)?(?:credit|balance|fund)|\btop.?up\b"
)


def flat(said: object) -> str:
    """An error's text, whichever of the usual shapes it has; fields are named before their fault.

    `detail` is a list of `{"loc": ["body", "image_url"], "msg": "..."}`.
    """
    if isinstance(said, str):
        return said.strip()
    if isinstance(said, list):
        return "; ".join(filter(None, map(flat, said)))
    if isinstance(said, dict):
        where = said.get("loc")
        if isinstance(where, list):
            where = ".".join(str(step) for step in where)
        what = next(filter(None, (flat(said.get(key)) for key in ("msg", "message", "error"))), "")
        return f"{where}: {what}" if where and what else what
    return ""


def clean(text: str, token: str) -> str:
    """The text in one bounded line, without URLs, parts of signed URLs, or the token."""
    words = [_clean_word(word, token) for word in text.split()]
    line = "".join(filter(str.isprintable, " ".join(words)))
    if len(line) <= _LINE_MAX_CHARACTERS:
        return line
    return line[: _LINE_MAX_CHARACTERS - 1] + "…"


def _clean_word(word: str, token: str) -> str:
    if token in word:
        return "(token removed)"
    lower = word.lower().replace("\\", "")
    return "(URL removed)" if any(mark in lower for mark in _URL_MARKS) else word


def cause_of(words: str) -> FailureCause:
    """Why a render failed, when its words leave no doubt."""
    lower = words.lower()
    if _MODERATED.search(lower):
        return FailureCause.MODERATED
    if _MEDIA.search(lower) and any(said.search(lower) for said in _UNREADABLE):
        return FailureCause.MEDIA_UNREADABLE
    if _BAD_INPUT.search(lower):
        return FailureCause.BAD_INPUT
    return FailureCause.OTHER


def speak_of_credit(words: str) -> bool:
    """Whether a refusal is for want of money, whatever its status."""
    return _NO_CREDIT.search(words.lower()) is not None
