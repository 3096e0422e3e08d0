"""Why a text is not JSON, and what to write instead, in the words of people who do not know JSON.

Each mistake is known by the decoder's message and by the text from the place that it names.
"""

import json
import re
from typing import Final, NamedTuple


class JsonFault(NamedTuple):
    found: str
    cure: str


class _Mistake(NamedTuple):
    message: str
    """A pattern of the decoder's message."""
    rest: str
    """A pattern of the text from there on, which may look back. Its group is `{0}` in the cure."""
    found: str
    cure: str


_CURLY: Final = "“”„‟‘’‚‛«»″"
_STRAIGHT: Final = _Mistake(
    "",
    rf"[{_CURLY}]",
    "curly quotes",
    'Write straight double quotes (") instead of curly ones. A plain text editor does that',
)
_IN_BRACES: Final = (
    'Put all fields into one pair of braces: {"prompt": "She smiles", "seed": 7}. Names and '
    "texts stand in double quotes, and a comma stands between two fields"
)

# The first that fits counts.
MISTAKES: Final = (
    _STRAIGHT,
    _Mistake("", r"//|/\*|#", "a comment", "Remove the comments: JSON has none"),
    _Mistake("", r"'", "single quotes", 'Write double quotes (") instead of single ones'),
    _Mistake(
        "end of object|property name", r",|\}", "a comma after the last field",
        "Remove the comma after the last field",
    ),
    _Mistake(
        "end of array|Expecting value", r",|\]", "a comma after the last value",
        "Remove the comma before the ]",
    ),
    _Mistake(
        "Expecting", r"[+.]\d|(?<![\"\s])\d", "a number in another form",
        "Write numbers with digits only, such as 7, without quotes",
    ),
    _Mistake(
        "property name", r"([\w$-]+)\s*[:=]", "a name without quotes",
        'Put the names in double quotes: "{0}"',
    ),
    _Mistake(
        "Expecting", r"\s*\Z", "no } at the end", "Write } at the end",
    ),
    _Mistake(
        "Expecting value", r"(?i:true|yes|on)\b", "another word for true", "Write true",
    ),
    _Mistake(
        "Expecting value", r"(?i:false|no|off)\b", "another word for false", "Write false",
    ),
    _Mistake(
        "Expecting value", r"[,}]|(?i:none|null|undefined)\b", "a field without a value",
        "Write a value after the colon, or remove the field",
    ),
    _Mistake(
        "Expecting value", r"([^\s,\"{}\[\]][^,\"{}\[\]\n]*)", "text without quotes",
        'Put texts in double quotes: "{0}"',
    ),
    _Mistake(
        "':' delimiter", r"", "no colon after a name",
        'Write a colon between a name and its value: "seed": 7',
    ),
    _Mistake(
        "',' delimiter", r'[";]', "no comma between two fields",
        "Write a comma after each field but the last",
    ),
    _Mistake(
        "',' delimiter", r"(?:(?<=\d)|(?<=\d\s))[\w/*-]", "a number with something behind it",
        'Put texts in double quotes, such as "720p". Write numbers with digits only, such as 7',
    ),
    _Mistake(
        "',' delimiter", r"\w", "a quote inside a text",
        r'Write \" for a quote inside a text, or put the prompt into a .txt file',
    ),
    _Mistake("Extra data", r"\}", "a } too many", "Remove the last }"),
    _Mistake("Extra data", r"", "text after the last }", "Remove what stands after the last }"),
    _Mistake(
        "Unterminated string", r"", "a text that does not end",
        'Write a double quote (") at the end of the text',
    ),
    _Mistake(
        "Invalid control character", r"", "a line break or a tab inside a text",
        r"Write \n for a line break, or put the prompt into a .txt file",
    ),
    _Mistake(
        r"Invalid \\", r"", "a backslash",
        r"Write / between folders, and \\ for a backslash in other texts",
    ),
)  # fmt: skip


def fault_of(text: str, error: json.JSONDecodeError) -> JsonFault:
    """What is wrong with a text that the decoder refused, and the cure."""
    where = f"at line {error.lineno}, column {error.colno}"
    if not text.strip():
        return JsonFault(f"nothing {where}", "Write at least {}, or delete the file.")
    mistake, cure = _mistake(text, error)
    return JsonFault(f"{mistake} {where}", f"{cure}. Then drop the file again.")


def _mistake(text: str, error: json.JSONDecodeError) -> tuple[str, str]:
    if _is_after_curly_quote(text, error):
        return _STRAIGHT.found, _STRAIGHT.cure
    if re.match(r"\s*[\"']?[\w$-]+[\"']?\s*[:=]", text):
        return "fields without braces", _IN_BRACES
    if not text.lstrip().startswith(("{", "[", *_CURLY, "'", "/", "#")):
        return "text that is not in braces", _IN_BRACES
    for mistake in MISTAKES:
        match = re.compile(mistake.rest).match(text, error.pos)
        if match and re.search(mistake.message, error.msg):
            return mistake.found, mistake.cure.replace("{0}", match[match.lastindex or 0])
    return error.msg, "Correct it there"


def _is_after_curly_quote(text: str, error: json.JSONDecodeError) -> bool:
    """Whether the string before the place, or the one that does not end, has a curly quote that
    was meant to end it."""
    if error.msg.startswith("Unterminated"):
        string = text[error.pos :].partition("\n")[0]
    elif "delimiter" in error.msg and re.match(r"\w", text[error.pos :]):
        string = text[: error.pos].rpartition('"')[0].rpartition('"')[2]
    else:
        return False
    return any(quote in string for quote in _CURLY)
