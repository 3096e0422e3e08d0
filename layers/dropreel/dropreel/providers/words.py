"""A provider's own words: made safe to repeat, and searched for the cause of a failure.

They can hold whatever was sent, so URLs and tokens are removed first. The cause is a guess: it
decides only whether and how a render is tried again.
"""

import html
import re
import unicodedata
from urllib.parse import unquote

from dropreel.model.provider import FailureCause

# Making them safe to repeat

_MAX_LINE_CHARACTERS = 300
_MAX_TEXT_CHARACTERS = 1_000  # that are read; the rest would be cut off
_MAX_DECODED_CHARACTERS = 4_000  # one character can become several
_MAX_LAYERS = 6  # of nested encoding

_HOST = r"(?:[a-z0-9_-]{1,63}\.){1,8}(?:[a-z]{2,24}|xn--[a-z0-9-]{1,59})\.?(?::\d{0,5})?"
_MARKER = r"x[\W_]?(?:amz|goog)[\W_]?[a-z]{1,30}|(?:\b|[a-z])signature|accesskeyid"
_URL = re.compile(
    rf"://|:%2f|(?:{_MARKER})\W?|\bdata:[a-z/+.-]{{0,40}}[;,]"
    r"|(?:^|[^\w/])//\w"  # //host
    r"|[?&][\w.%-]{1,60}="  # a query, with or without its host
    rf"|{_HOST}[/?]\S"
    r"|\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?[/?]\S|\[[0-9a-f:.]{2,45}\](?::\d{1,5})?[/?]"
    r"|\b[a-z][a-z0-9.-]{0,60}:\d{2,5}[/?]"  # host:port/path
)
# Signs that the rest of a URL is in other words.
_BROKEN_URL = re.compile(
    rf"://(?:\s|$)|(?:{_MARKER})\W{{0,3}}(?:\s|$)|{_HOST}\s+[/?&]\S|[?&][\w.%-]{{1,60}}=(?:\s|$)"
)
_URL_IN_PIECES = re.compile(
    r"https?://|s3://|ftp://|xamz(?:signature|credential|security|date|expires|algorithm)"
)
_AUTHORIZATION = re.compile(r"\bbearer[\s:=\"']+(?=\S*\d|\S{16})[^\s\"',;]{6,}", re.IGNORECASE)
_ESCAPE = re.compile(r"[\\%]u\{?0{0,4}([0-9a-f]{4})\}?|\\x([0-9a-f]{2})", re.IGNORECASE)
# Commands to a terminal, such as colours.
_TERMINAL = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")

# Invisible, although they are letters, symbols or marks to Unicode.
_UNSEEN = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
) | frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))

_TOKEN_REMOVED = "(token removed)"  # noqa: S105 - no token
_URL_REMOVED = "(URL removed)"
_ALL_REMOVED = "(words removed: they hold a token or a URL)"
_MIN_SECRET_CHARACTERS = 8  # a shorter one is in many sentences by chance


def clean(text: str, token: str) -> str:
    """The text in one bounded line, without URLs, parts of signed URLs, or the token.

    Invisible characters are removed first. Secrets are found in any case, encoded, and in pieces.
    If one is in pieces, none of the text is repeated.
    """
    line = " ".join(_visible(_TERMINAL.sub("", text[:_MAX_TEXT_CHARACTERS])).split())
    decoded = _decoded(line)
    if decoded is None or _BROKEN_URL.search(decoded):
        return _ALL_REMOVED
    line = _AUTHORIZATION.sub(_TOKEN_REMOVED, line)
    line = " ".join(_clean_word(word, token) for word in line.split(" "))
    if _is_secret_in_pieces(line, token):
        return _ALL_REMOVED
    if len(line) <= _MAX_LINE_CHARACTERS:
        return line
    return line[: _MAX_LINE_CHARACTERS - 1] + "…"


def _visible(text: str) -> str:
    """Without invisible characters; white space becomes blanks."""
    return "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or (character.isprintable() and character not in _UNSEEN)
    )


def _clean_word(word: str, token: str) -> str:
    decoded = _decoded(word)
    if (token and token in word) or decoded is None or _holds(decoded, token):
        return _TOKEN_REMOVED
    return _URL_REMOVED if _URL.search(decoded) else word


def _is_secret_in_pieces(line: str, token: str) -> bool:
    """Whether the line holds a secret once its blanks and fillers are left out."""
    decoded = _decoded(line)
    if decoded is None or _AUTHORIZATION.search(decoded) or _holds(decoded, token):
        return True
    return bool(_URL_IN_PIECES.search("".join(decoded.split()).replace("-", "")))


def _holds(decoded: str, token: str) -> bool:
    secret = _letters(token)
    return len(secret) >= _MIN_SECRET_CHARACTERS and secret in _letters(decoded)


def _decoded(text: str) -> str | None:
    """In lower case and plain letters (not full-width ones), without the encodings of URLs and
    pages. None when they are nested too deep."""
    for _ in range(_MAX_LAYERS):
        before = text
        text = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
        text = _visible(html.unescape(unquote(text, errors="ignore")))
        if text == before:
            plain = unicodedata.normalize("NFKD", text)[:_MAX_DECODED_CHARACTERS]
            # NFKD makes an accent a character of its own.
            bare = "".join(one for one in plain if not unicodedata.combining(one))
            return bare.casefold().replace("\\/", "/").replace("\\", "/").replace("。", ".")
    return None


def _letters(text: str) -> str:
    return "".join(one for one in text.casefold() if one.isascii() and one.isalnum())


def flat(said: object) -> str:
    """An error's text in any of the usual shapes, with a field's name before its fault.

    For example `detail`, a list of `{"loc": ["body", "image_url"], "msg": "..."}`.
    """
    if isinstance(said, str):
        return said.strip()
    if isinstance(said, list):
        return "; ".join(filter(None, map(flat, said)))
    if isinstance(said, dict):
        where = said.get("loc")
        if isinstance(where, list):
            where = ".".join(str(step) for step in where)
        words = filter(None, (flat(said.get(key)) for key in _TEXT_KEYS))
        what = " - ".join(dict.fromkeys(words))
        # "DataInspectionFailed" explains; a code that is a number does not.
        named = [where, said.get("code"), said.get("error_code")]
        names = [name for name in named if isinstance(name, str) and not name.isdigit()]
        return ": ".join(filter(None, (*dict.fromkeys(names), what))) if what or names else ""
    return ""


_TEXT_KEYS = (
    "msg",
    "message",
    "error_message",
    "error",
    "detail",
    "details",
    "reason",
    "description",
)

# Finding the cause. The expressions are for text in lower case. Compiled on first use: most
# processes meet no error of a provider.

# "DataInspectionFailed", "NSFWDetected" and "content_policy_violation" are several words.
_HUMP = r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_"
# Providers add this to refusals of another kind.
_NOT_CHARGED = (
    r"\b(?:no|0|zero) (?:credits?|balance) (?:\w+ ){0,2}?"
    r"(?:charged|deducted|used|consumed|billed)\b"
    r"|\b(?:charged|deducted|used|consumed|billed|costs?):? (?:no|0|zero) credits?\b"
)
_NOT_OF_MONEY = r"\b(?:white|colou?r|audio|stereo|channel) balance\b"

# A refusal with one of these is of one model, or of what an account may use: not of every job.
_MODEL_OR_PLAN = (
    r"\b(?:models?|endpoints?|plans?|tiers?|trials?|subscri\w+|upgrade\w*|permissions?)\b"
)

# An account without credit, and nothing else.
_SURELY_NO_CREDIT = (
    r"\b(?:insufficient|exhausted|out of|(?:not|n't)(?: have)? (?:enough|sufficient))\W+"
    r"(?:[a-z]+\W+)?(?:credit|balance|fund)s?\b(?!\W+card)"
    r"|\b(?:credit|balance|fund)s?\W+(?:\w+\W+)?(?:insufficient|exhausted|not enough)\b"
    r"|\bno (?:more )?credits?\b(?!\W+card)|\bunpaid\b"
    r"|\bbalance (?:is |of )?(?:too low|zero|negative|0(?:\.0+)?\b(?!\.))"
    r"|\bspend(?:ing)? limit (?:\w+ ){0,2}?(?:reached|exceeded)\b"
    r"|arrear|\bpayment required\b|\btrial credit|\binsufficient quota\b"
    r"|\bfree tier (?:of the model )?(?:is|has been) exhausted\b"
)
_FREE = r"\b(?:free\W(?:plan|tier|quota)|trial (?:plan|account|user))s?\b"
_EXCLUDED = r"(?:\b(?:cannot|not|upgrade|exhausted|used up)|n't)\b"
_NO_CREDIT = (
    r"(?:\b(?:insufficient|no|low|exhausted|lacks?|out of|zero|negative|exceed\w*)"
    r"|(?:\bnot|n't)(?: have)? (?:enough|sufficient)"
    r"|\b(?:need|requires?|purchase|buy)\b(?: at least \d+)?|\b0)\W+"
    r"(?:\w+\W+){0,2}?(?:credit|balance|fund)s?\b(?!\W+card)"
    r"|\b(?:credit|balance|fund)s?\b\W+(?:\w+\W+){0,3}?"
    r"(?:insufficient|low|exhausted|depleted|empty|not enough|negative|used up|run out|expired)\b"
    r"|\bbalance\b\W+(?:\w+\W+){0,2}?0(?:\.0+)?\b(?!\.)"
    r"|\bbalance\b.{0,30}\b(?:less|lower) than\b|\boutstanding balance\b"
    r"|\btop.?up\b|\brecharge\b|\bplease deposit\b|\bno money\b|\bcard was declined\b"
    r"|\bpayment\W+(?:\w+\W+)?(?:required|failed)|\bpayment method\b|\bnon.?payment\b"
    r"|\b(?:account|bill|invoice|payment)s?\W+(?:\w+\W+)?overdue\b"
    r"|\boverdue (?:bill|invoice|payment)|\bunpaid\b|\bpast due\b|\bnot purchased\b"
    r"|\b(?:spend|spending|credit) limit\b|\bplease subscribe\b|\bactive subscription\b"
    r"|\btrial\W+(?:\w+\W+)?(?:credit|ended|expired)"
    r"|\bpaid (?:plan|account|user|subscription|basis)"
    rf"|{_FREE}.{{0,60}}{_EXCLUDED}|{_EXCLUDED}.{{0,60}}{_FREE}"
    r"|\bupgrade your plan|\bgood standing\b|\bbilling\b"
    r"|\badd (?:\w+ )?(?:credit|fund)s?\b"
)
_MODERATED = (
    r"moderat(?:ion|ed|or)|\bnsfw\b|\bunsafe\b|\bflagged\b|\bfiltered\b|\binappropriate|\bprohibited\b"
    r"|\bnud(?:e|es|ity)\b|\bsexual|\bporn|\bgore\b|\bviolen(?:t|ce)\b|\boffensive\b|\bhateful\b"
    r"|\bharmful\b|\brisk (?:control|management)|\breview team\b|\bresponsible ai\b"
    r"|\breal (?:people|persons?)\b|\bcontent\W+(?:is )?not (?:allowed|permitted)\b"
    r"|\bgreen.?net\b|\bdeep.?fake|\bcelebrit|\bpublic figure"
    r"|(?<!case.)\bsensitive\b|\bpolicy violat|\bviolat\w*\b.{0,60}\b(?:polic|terms|guideline|law)"
    r"|\b(?:explicit|illegal|adult|restricted|disallowed|forbidden)\W+(?:content|material|image)"
    r"|\bcontent\W+(?:\w+\W+)?(?:filter|check|review|audit|security|guideline|polic|restrict|block)"
)
# What sounds like moderation counts as it: another provider would be paid to refuse it again.
# `_TECHNICAL` sounds like it, too, and is not.
_SOUNDS_MODERATED = (
    r"\bsafety\b|polic(?:y|ies)\b|inspect(?:ion|ed)|infring|copyright|trademark"
    r"|intellectual property|censor|\bcompliance\b|\bguidelines?\b|\btrust\b"
    r"|\b(?:is|was|been|image|picture|audio|content|prompt|video|request) blocked\b|^blocked\b"
)
_TECHNICAL = (
    r"\b(?:retry|retries|bucket|cache|caching|backoff|scaling|autoscaling|restart|routing|eviction"
    r"|scheduling|scheduler|iam|cors|timeout|network|pull|rate limit(?:ing)?|fair use)"
    r"\W+polic(?:y|ies)\b"
    r"|\b(?:billing|payment|pricing|refund|credit)\W+polic(?:y|ies)\b"
    r"|\bdata inspection(?: process\b|\W+unable to (?:download|fetch|access|read))"
    r"|\b(?:thread|type|memory)\W+safety\b"
)
_MEDIA = (
    r"(?<![a-z])(?:url|link|file|image|picture|photo|audio|voice|media|video|input|resource|asset)"
    r"s?(?![a-z])"
)
_UNREADABLE = (
    r"(?:\b(?:not|cannot|unable|fail\w*|error|timed? ?out)\b|n't\b)\W+(?:\w+\W+){0,4}?"
    r"(?:download|fetch|read(?!y)|open|load|access|retriev|reach|identif|decod)"
    r"|\b(?:download|fetch\w*|access|retriev\w*)\w*\W+(?:\w+\W+){0,4}?"
    r"(?:fail|error|denied|forbidden|tim(?:ed|e)\W?out)"
    r"|\b(?:invalid|expired|unreachable|inaccessible|bad|broken)\W*(?:\w+\W+)?(?:url|link)"
    r"|(?:url|link)\b.{0,40}\b(?:invalid|expired|unreachable|inaccessible|denied|not available)"
    r"|\b40[134]\b.{0,60}\burl"
)
_OF_STORAGE = r"\brequest has expired\b|\bno such key\b|\bsignature does not match\b"
# "Could not load the model checkpoint file" blames the provider's own files.
_OF_THE_PROVIDER = (
    r"(?:download|fetch|read|open|load|access|retriev|reach|decod)\w*\W+(?:\w+\W+){0,3}?"
    r"(?:models?|checkpoints?|weights?|encoders?|decoders?|codecs?|gpus?|workers?|latents?"
    r"|tokenizers?|lora|vae|nodes?|database|cache|endpoint|server)\b"
)
_INPUT = (
    r"\b(?:image|picture|photo|audio|voice|speech|sound|recording|video|prompt|text|file|width|height"
    r"|duration|length|size|resolution|ratio|format|face|person|human|input|parameter|sample rate)"
    r"(?:s|_\w+)?\b"
)
_FAULT = (
    r"\b(?:must|should|exceed\w*"
    r"|too (?:\w+ )?(?:small|large|big|short|long|low|high|many|few|blurry)"
    r"|(?:longer|shorter|larger|smaller|bigger|greater|less|more|fewer) than|at (?:least|most)"
    r"|(?:not|n't)(?: be)? (?:\w+ )?"
    r"(?:supported|allowed|valid|detected|found|recogni[sz]ed|clear|visible)"
    r"|unsupported|invalid|missing|required|empty|silent|corrupt\w*|damaged|truncated|blurry"
    r"|out of range)\b"
)
_BAD_INPUT = (
    r"\bno (?:\w+ )?(?:face|person|people|human|body|speech|voice|sound|vocals?)s?\b"
    r"|\b(?:multiple|several|more than one|two) (?:\w+ )?(?:faces|people|persons)\b"
    r"|\b(?:not|cannot|unable to|failed to)\W+(?:detect|find|recogni[sz]e)\W+(?:\w+\W+){0,2}"
    r"(?:face|person|speech|voice)"
    rf"|{_INPUT}.{{0,60}}{_FAULT}"
    rf"|\b(?:invalid|unsupported|missing|corrupt\w*|bad|wrong|empty)\W*(?:\w+\W+)?{_INPUT}"
)
_OF_THE_MACHINE = (
    r"\b(?:checkpoints?|weights|encoders?|decoders?|encoding|gpus?|cuda|workers?|latents?|vae|lora"
    r"|tensors?|nodes?|pipeline|model file|rate limit|too many requests|concurren\w*|internal)\b"
)


def cause_of(words: str) -> FailureCause:
    """Why a render failed, if its words are clear; possible moderation counts as moderation."""
    lower = _plain(words)
    sounds_moderated = re.search(_SOUNDS_MODERATED, re.sub(_TECHNICAL, "", lower))
    if surely_moderated(words) or (sounds_moderated and not surely_no_credit(words)):
        return FailureCause.MODERATED
    if means_no_credit(words):
        return FailureCause.NO_CREDIT
    is_about_media = re.search(_MEDIA, lower) and not re.search(_OF_THE_PROVIDER, lower)
    if (is_about_media and re.search(_UNREADABLE, lower)) or re.search(_OF_STORAGE, lower):
        return FailureCause.MEDIA_UNREADABLE
    if re.search(_BAD_INPUT, lower) and not re.search(_OF_THE_MACHINE, lower):
        return FailureCause.BAD_INPUT
    return FailureCause.OTHER


def means_no_credit(words: str) -> bool:
    """Whether a refusal means that the account lacks credit."""
    return re.search(_NO_CREDIT, _plain(words)) is not None or surely_no_credit(words)


def names_model_or_plan(words: str) -> bool:
    """Whether a refusal of an account may be only of one model, or of what its plan allows."""
    return re.search(_MODEL_OR_PLAN, _plain(words)) is not None


def surely_no_credit(words: str) -> bool:
    """Whether the words can mean nothing but an account without credit."""
    return re.search(_SURELY_NO_CREDIT, _plain(words)) is not None


def surely_moderated(words: str) -> bool:
    """Whether the words name moderation, and do not only sound like it."""
    return re.search(_MODERATED, _plain(words)) is not None


def _plain(words: str) -> str:
    return re.sub(f"{_NOT_CHARGED}|{_NOT_OF_MONEY}", "", re.sub(_HUMP, " ", words).lower())
