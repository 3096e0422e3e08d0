"""Plain text: what a document of the inbox must be, and what editors save instead of it."""

import codecs
import re
import unicodedata
from typing import Final

SAVE_AS_PLAIN_TEXT: Final = 'Save it as plain text with the encoding "UTF-8" and drop it again.'

_RICH_TEXT: Final = (
    (re.compile(r"\s*\{\\rtf"), "a rich text document (RTF)"),
    (
        re.compile(r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b",
                   re.IGNORECASE | re.DOTALL),
        "a web page (HTML)",
    ),
    (re.compile(r"%PDF-"), "a PDF document"),
)  # fmt: skip

# Letters and symbols by their category, which all fonts leave blank: Hangul fillers, the empty
# braille pattern, the null notehead.
_BLANK: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159")
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Me"})

_SHOWN_BEFORE_CHARACTERS = 20


def decoded(content: bytes) -> str | None:
    """The text of a file; None when it is not text, or in another encoding than editors write.

    Windows writes a byte order mark, and sometimes UTF-16.
    """
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text  # UTF-16 without a mark reads as UTF-8 with zeros


def rich_text_in(text: str) -> str | None:
    """What a text is when it has marks for an app, not for people; None when it is plain."""
    return next((what for pattern, what in _RICH_TEXT if pattern.match(text)), None)


def control_character_in(text: str) -> str | None:
    """Where a text has a character that controls a device; None when it has none. Tabs and line
    breaks are allowed."""
    for at, one in enumerate(text):
        if unicodedata.category(one) == "Cc" and one not in "\t\n":
            before = text[max(0, at - _SHOWN_BEFORE_CHARACTERS) : at].rpartition("\n")[2].strip()
            where = f'after "{before}"' if before else "at the beginning of a line"
            return f"the control character U+{ord(one):04X} {where}"
    return None


def is_blank(text: str) -> bool:
    """Whether people see nothing of it."""
    return all(one in _BLANK or unicodedata.category(one) in _INVISIBLE for one in text)
