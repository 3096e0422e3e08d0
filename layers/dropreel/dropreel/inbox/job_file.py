"""The settings of a job: `anna.json`, `anna.txt`, and the `_defaults.json` of its folders.

Parsing never raises: it returns the valid fields, and a reason for each problem. Here a value is
wrong when no offer of any model takes it; whether the job's model takes it, prepare decides.
"""

import codecs
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import reduce
from itertools import combinations, islice
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from dropreel.inbox.pairing import DEFAULTS_FILE
from dropreel.model.catalog import MODELS, Option, OptionValue
from dropreel.model.errors import Reason
from dropreel.model.job import INBOX, MAX_KEY_BYTES, Role, top_folder

MAX_DOCUMENT_BYTES = 64 * 1024

# Step Functions carries the prompt in the job and in each offer's request, within its 256 KiB. The
# longest that a provider's page allows is 1500.
MAX_TEXT_CHARACTERS = 4000

# They fit into an error's cause in Step Functions, and nobody reads more.
MAX_PROBLEMS = 10

_MAX_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class JobChoices:
    """What the files ask for. None or absent: not set."""

    model: str | None = None
    prompt: str | None = None
    files: dict[Role, str] = field(default_factory=dict)
    """The keys of the named picture and recording."""
    options: dict[str, OptionValue] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    wait_for: frozenset[Role] = frozenset()

    def over(self, farther: "JobChoices") -> "JobChoices":
        """Both merged. Where both set a field, this one wins."""
        return JobChoices(
            model=self.model or farther.model,
            prompt=self.prompt or farther.prompt,
            files={**farther.files, **self.files},
            options={**farther.options, **self.options},
        )

    @property
    def names(self) -> set[str]:
        """The names of the fields that are set."""
        single = {"model": self.model, "prompt": self.prompt}
        return {name for name, value in single.items() if value} | {*self.files, *self.options}


class Parsed(NamedTuple):
    """What one or more files ask for, and what is wrong with them."""

    choices: JobChoices
    problems: tuple[Reason, ...] = ()


# Reading one file


def parse(role: Role, key: str, content: bytes, shared_folders: Sequence[str] = ()) -> Parsed:
    """Parse a job's prompt, its options, or the defaults of a folder."""
    try:
        text = _decoded(content)
    except UnicodeDecodeError:
        return _rejected(
            Reason(
                file=key,
                rule="text in UTF-8",
                found="not text, or text in another encoding",
                cure='Save it as plain text with the encoding "UTF-8" and drop it again.',
            )
        )
    if role is Role.PROMPT:
        return _prompt_in(key, text)
    return _options_in(role, key, text, shared_folders)


def too_large(key: str, size_bytes: int) -> Parsed:
    """The result for a file that is too large to be read."""
    return _rejected(
        Reason(
            file=key,
            rule=f"at most {MAX_DOCUMENT_BYTES // 1024} KiB",
            found=f"{math.ceil(size_bytes / 1024)} KiB",
            cure="Make it shorter and drop it again.",
        )
    )


def _decoded(content: bytes) -> str:
    """Windows writes a byte order mark, and sometimes UTF-16. Raises `UnicodeDecodeError`."""
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf_16 else "utf-8-sig")


def _tidy(text: object) -> object:
    if not isinstance(text, str):
        return text  # the field's type refuses it
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _prompt_in(key: str, text: str) -> Parsed:
    prompt = str(_tidy(text))
    if 1 <= len(prompt) <= MAX_TEXT_CHARACTERS:
        return Parsed(JobChoices(prompt=prompt))
    return _rejected(
        Reason(
            file=key,
            rule=f"a prompt of {_FIELDS['prompt'].takes.removeprefix('text of ')}",
            found=f"{len(prompt)} characters" if prompt else "an empty file",
            cure="Describe the video in a few sentences, and drop the file again.",
        )
    )


class _DuplicateField(ValueError):
    pass


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise _DuplicateField(f"{_shown(name)} is there twice")
    return dict(pairs)


def _options_in(role: Role, key: str, text: str, shared_folders: Sequence[str]) -> Parsed:
    try:
        document = json.loads(text, object_pairs_hook=_once_each)
        json.dumps(document, ensure_ascii=False).encode()  # refuses half a character: \ud800
    except _DuplicateField as error:
        return _not_json(key, str(error))
    except json.JSONDecodeError as error:
        return _not_json(key, f"{error.msg} at line {error.lineno}, column {error.colno}")
    except (ValueError, RecursionError):
        return _not_json(key, "it has a text or a number that cannot be used")
    if not isinstance(document, dict):
        return _not_json(key, f"it is {_shown(document)}")
    return _checked(role, key, document, shared_folders)


def _not_json(key: str, what: str) -> Parsed:
    return _rejected(
        Reason(
            file=key,
            rule='a JSON object, such as {"prompt": "She smiles"}',
            found=f"not a JSON object: {what}",
            cure="Correct it and drop it again. JSON has double quotes, no comments, and no comma "
            "after the last field.",
        )
    )


def _checked(
    role: Role, key: str, document: dict[str, object], shared_folders: Sequence[str]
) -> Parsed:
    wrong = _wrong_fields(document)
    fields = {name: value for name, value in document.items() if name not in wrong}
    valid = JobFile.model_validate(fields).model_dump(exclude_unset=True, exclude={"link"})
    files: dict[Role, str] = {}
    problems: list[Reason] = []
    for kind in (Role.IMAGE, Role.AUDIO):
        path = valid.pop(kind, None)
        if path and (named := _key_of(path, named_by=key)):
            if _may_name(named, key, shared_folders):
                files[kind] = named
            else:
                problems.append(_forbidden_path(key, kind, path, shared_folders))
        elif path:
            wrong.add(kind)
    wrong_in_order = islice((name for name in document if name in wrong), MAX_PROBLEMS)
    problems += [_wrong_field(key, name, document[name]) for name in wrong_in_order]
    del problems[MAX_PROBLEMS:]
    if role is Role.DEFAULTS and Role.AUDIO in files:
        del files[Role.AUDIO]
        problems.append(
            Reason(
                file=key,
                rule="settings for many jobs; a recording makes only one video",
                found='"audio" in the defaults of a folder',
                cure='Remove "audio". Drop the recording into the folder, or name it in a job\'s '
                "own .json file.",
            )
        )
    choices = JobChoices(valid.pop("model", None), valid.pop("prompt", None), files, valid)
    return Parsed(choices, tuple(problems))


def _wrong_fields(document: dict[str, object]) -> set[str]:
    try:
        JobFile.model_validate(document)
    except ValidationError as error:
        places = (one["loc"] for one in error.errors(include_url=False, include_input=False))
        return {str(place[0]) for place in places}
    return set()


def _may_name(named: str, by: str, shared_folders: Sequence[str]) -> bool:
    """A job may use files in its own top folder and in shared folders. `inbox/_defaults.json` may
    name any file: only those who own the inbox should write there."""
    return (
        by == f"{INBOX}{DEFAULTS_FILE}"
        or top_folder(named) == top_folder(by)
        or any(named.startswith(INBOX + folder) for folder in shared_folders)
    )


def _forbidden_path(key: str, kind: Role, path: str, shared_folders: Sequence[str]) -> Reason:
    """Does not reveal whether the file exists: intake has not looked."""
    top = top_folder(key)
    own = f"under {INBOX}{top}" if top else f"directly in {INBOX}"
    return Reason(
        file=key,
        rule=f'"{kind}" as a file {" or under ".join((own, *map(INBOX.__add__, shared_folders)))}',
        found=f'"{kind}" is {_shown(path)}, which is in another folder',
        cure=f"Put a copy of the file {own} and name that copy. Or ask your operator to share the "
        "folder (SharedFolders).",
    )


_NOT_RELATIVE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:/|data:|[^/]*\\")


def _key_of(path: str, named_by: str) -> str | None:
    """The key of a path, relative to the folder of a key; None when it is not in the inbox."""
    folders = named_by.removeprefix(INBOX).split("/")[:-1]
    *parents, file = path.split("/")
    for part in parents:
        if part == ".." and not folders:
            return None
        if part == "..":
            folders.pop()
        elif part != ".":
            folders.append(part)
    key = INBOX + "/".join([*folders, file])
    usable = (
        file not in ("", ".", "..")
        and "\\" not in path
        and not _NOT_RELATIVE.match(path)
        and not re.search(r"[\x00-\x1f\x7f]", path)
    )
    return key if usable and len(key.encode()) <= MAX_KEY_BYTES else None


def _wrong_field(key: str, name: str, value: object) -> Reason:
    if (known := _FIELDS.get(name)) is None:
        names = [one for one in _FIELDS if one != "$schema"]
        nearest = _nearest(name, names)
        return Reason(
            file=key,
            rule=f"only the fields {', '.join(names)}",
            found=f"the unknown field {_shown(name)}",
            cure=f"Write {_shown(nearest)} instead." if nearest else "Remove it.",
        )
    long = isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS
    nearest = _nearest(value, known.values)
    return Reason(
        file=key,
        rule=f'"{name}" as {known.takes}',
        found=f'"{name}" is {"too long" if long else _shown(value)}',
        cure=f"Write {_shown(nearest)} instead."
        if nearest is not None
        else f'Write {known.takes}, or remove "{name}".',
    )


def _nearest(found: object, valid: Iterable[OptionValue]) -> OptionValue | None:
    by_spelling = {str(value).casefold(): value for value in valid}
    spelling = str(found).casefold() if isinstance(found, OptionValue) else ""
    for near in get_close_matches(spelling, by_spelling, n=1):
        return by_spelling[near]
    return None


def _shown(value: object) -> str:
    """A value as JSON, cut when it is long."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= _MAX_SHOWN_CHARACTERS else text[:_MAX_SHOWN_CHARACTERS] + "…"
    return text.encode(errors="backslashreplace").decode()


def _rejected(reason: Reason) -> Parsed:
    return Parsed(JobChoices(), (reason,))


# Several files


def combined(files: Sequence[tuple[str, Parsed]]) -> Parsed:
    """A job's own files, each with its key. A field that two of them set is a problem."""
    clashes = [
        Reason(
            file=key,
            rule=f"each field in only one of the job's files; {other} has it too",
            found=f'a second "{name}"',
            cure=f'Remove "{name}" from {key} or from {other}, then drop that file again.',
        )
        for (other, earlier), (key, parsed) in combinations(files, 2)
        for name in sorted(parsed.choices.names & earlier.choices.names)
    ]
    merged = nearest_wins([parsed for _, parsed in files])
    return Parsed(merged.choices, (*merged.problems, *clashes))


def nearest_wins(nearest_first: Iterable[Parsed]) -> Parsed:
    """All merged. Where several set a field, the first of them wins."""
    return reduce(
        lambda near, far: Parsed(near.choices.over(far.choices), near.problems + far.problems),
        nearest_first,
        Parsed(JobChoices()),
    )


# The fields, from the catalog


class _Field(NamedTuple):
    takes: str
    """The valid values, in words."""
    type: Any
    about: str
    values: tuple[OptionValue, ...] = ()


def _one_of(values: Sequence[OptionValue]) -> str:
    listed = ", ".join(json.dumps(value) for value in values)
    return f"one of {listed}" if len(values) > 1 else listed


def _option_field(offered: Sequence[Option], about: str) -> _Field:
    """What any offer takes: the union of the values, the widest bounds."""
    kind = offered[0].kind
    if kind == "boolean":
        return _Field("true or false", bool, about, (True, False))
    if all(option.values for option in offered):
        values = tuple(dict.fromkeys(value for option in offered for value in option.values))
        return _Field(_one_of(values), Literal.__getitem__(values), about, values)
    if kind == "string":
        takes = f"text of at most {MAX_TEXT_CHARACTERS} characters"
        return _Field(takes, Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)], about)
    lowest = [option.at_least for option in offered if option.at_least is not None]
    highest = [option.at_most for option in offered if option.at_most is not None]
    if len(lowest) == len(highest) == len(offered):
        at_least, at_most = min(lowest), max(highest)
        bounds = f"from {at_least} to {at_most}"
    else:
        at_least, at_most = -_MAX_NUMBER, _MAX_NUMBER
        bounds = f"of at most {len(str(_MAX_NUMBER))} digits"
    takes = f"a whole number {bounds}, without quotes"
    return _Field(takes, Annotated[int, Field(ge=at_least, le=at_most)], about)


# Every JSON parser on the way keeps this many digits exactly, also Step Functions and jq.
_MAX_NUMBER: Final = 10**15 - 1


def _fields() -> dict[str, _Field]:
    offered: dict[str, list[Option]] = {}
    models: dict[str, list[str]] = {}
    for model in MODELS.values():
        for option in (option for offer in model.route for option in offer.options):
            offered.setdefault(option.name, []).append(option)
            models.setdefault(option.name, []).append(model.name)
    about = {name: f"For {', '.join(dict.fromkeys(models[name]))}." for name in offered}
    a_path = 'a path from this file\'s folder, such as "faces/anna.png" or "../faces/anna.png"'
    return {
        "$schema": _Field("text", str, "The address of this schema, for editors."),
        "model": _Field(
            _one_of(tuple(MODELS)),
            Literal.__getitem__(tuple(MODELS)),
            " ".join(f"{model.name}: {model.does}." for model in MODELS.values()),
            tuple(MODELS),
        ),
        "prompt": _Field(
            f"text of 1 to {MAX_TEXT_CHARACTERS} characters",
            Annotated[
                str, BeforeValidator(_tidy), Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)
            ],
            about.pop("prompt"),
        ),
        "image": _Field(a_path, Annotated[str, Field(min_length=1)], "The picture."),
        "audio": _Field(
            a_path, Annotated[str, Field(min_length=1)], "The recording. Not in _defaults.json."
        ),
        **{name: _option_field(offered[name], about[name]) for name in about},
    }


_FIELDS: Final = _fields()


def _model_of(fields: dict[str, _Field]) -> type[BaseModel]:
    definitions: dict[str, Any] = {
        name: (
            one.type,
            Field(default=None, description=f"{one.about} {one.takes[0].upper()}{one.takes[1:]}."),
        )
        for name, one in fields.items()
        if name != "$schema"
    }
    link = fields["$schema"]
    definitions["link"] = (link.type, Field(default=None, alias="$schema", description=link.about))
    return create_model(
        "JobFile",
        __doc__="The settings of a job: `<stem>.json` next to its files, or `_defaults.json` for "
        "all jobs in its folder and below. Every field is optional.",
        __config__=ConfigDict(extra="forbid", strict=True, frozen=True),
        **definitions,
    )


JobFile: Final = _model_of(_FIELDS)
