"""What a job can say: `anna.json`, `anna.txt`, and the `_defaults.json` of its folders.

Reading never raises: what is wrong with a file comes back as reasons, beside all that could be
understood. Whether an offer honours the values is validate's business; here a value is wrong when
no offer of any model knows it.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import reduce
from itertools import islice
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from dropreel.inbox.pairing import DEFAULTS_FILE
from dropreel.model.catalog import MODELS, Option, OptionValue
from dropreel.model.errors import Reason
from dropreel.model.job import INBOX, MAX_KEY_BYTES, Role, top_folder

MAX_DOCUMENT_BYTES = 64 * 1024

# Step Functions carries the prompt several times (in the job and in each offer's request) within
# its 256 KiB; the longest that a provider publishes is 1500.
MAX_TEXT_CHARACTERS = 4000

# As many problems as fit into an error's cause in Step Functions, and more than anyone reads.
MAX_PROBLEMS = 10

_MAX_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class JobChoices:
    """What was asked for; what is None or absent was not said."""

    model: str | None = None
    prompt: str | None = None
    files: dict[Role, str] = field(default_factory=dict)
    """The keys of the picture and the recording that are named."""
    options: dict[str, OptionValue] = field(default_factory=dict)

    def over(self, farther: "JobChoices") -> "JobChoices":
        """Both wishes; where both say the same thing, this one counts."""
        return JobChoices(
            model=self.model or farther.model,
            prompt=self.prompt or farther.prompt,
            files={**farther.files, **self.files},
            options={**farther.options, **self.options},
        )

    @property
    def said(self) -> frozenset[str]:
        """The fields that it has an opinion on."""
        alone = {"model": self.model, "prompt": self.prompt}
        return frozenset([name for name, value in alone.items() if value]) | {
            *self.files,
            *self.options,
        }


class Parsed(NamedTuple):
    """What a file says, or several do, and what is wrong with it."""

    choices: JobChoices
    problems: tuple[Reason, ...] = ()


# Reading one file


def parse(role: Role, key: str, content: bytes, shared_folders: Sequence[str] = ()) -> Parsed:
    """Read a job's prompt, its options, or the defaults of a folder."""
    try:
        text = _decoded(content)
    except UnicodeDecodeError:
        return _only_wrong(
            Reason(
                file=key,
                rule="text in UTF-8",
                found="something else than text, or text in another encoding",
                cure='Save it as plain text with the encoding "UTF-8" and drop it again.',
            )
        )
    if role is Role.PROMPT:
        return _prompt_in(key, text)
    return _options_in(role, key, text, shared_folders)


def too_large(key: str, size_bytes: int) -> Parsed:
    """The answer to a file that is too large to be read."""
    return _only_wrong(
        Reason(
            file=key,
            rule=f"at most {MAX_DOCUMENT_BYTES} bytes",
            found=f"{size_bytes} bytes",
            cure="Keep only what the job is to be told, and drop it again.",
        )
    )


def _decoded(content: bytes) -> str:
    """Windows writes a byte order mark, and UTF-16 now and then. Raises `UnicodeDecodeError`."""
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf_16 else "utf-8-sig")


def _tidy(text: object) -> object:
    if not isinstance(text, str):
        return text  # for the type's own check
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _prompt_in(key: str, text: str) -> Parsed:
    prompt = str(_tidy(text))
    if 1 <= len(prompt) <= MAX_TEXT_CHARACTERS:
        return Parsed(JobChoices(prompt=prompt))
    return _only_wrong(
        Reason(
            file=key,
            rule=f"a prompt of {_FIELDS['prompt'].takes.removeprefix('text of ')}",
            found=f"{len(prompt)} characters" if prompt else "an empty file",
            cure="Write into it what is to be seen, in a few sentences, and drop it again.",
        )
    )


class _SaidTwice(ValueError):
    pass


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise _SaidTwice(f"{_shown(name)} is said twice")
    return dict(pairs)


def _options_in(role: Role, key: str, text: str, shared_folders: Sequence[str]) -> Parsed:
    try:
        said = json.loads(text, object_pairs_hook=_once_each)
        json.dumps(said, ensure_ascii=False).encode()  # half a character can be written as \ud800
    except _SaidTwice as error:
        return _not_json(key, str(error))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        return _not_json(key, f"{error.msg} at {where}")
    except (ValueError, RecursionError):
        return _not_json(key, "something in it is no text or number that can be used")
    if not isinstance(said, dict):
        return _not_json(key, f"it is {_shown(said)}")
    return _judged(role, key, said, shared_folders)


def _not_json(key: str, what: str) -> Parsed:
    return _only_wrong(
        Reason(
            file=key,
            rule='a JSON object, such as {"prompt": "She smiles"}',
            found=f"not one: {what}",
            cure="Mend that place and drop it again. Single quotes, comments and a comma after "
            "the last field are not JSON.",
        )
    )


def _judged(role: Role, key: str, said: dict[str, object], shared_folders: Sequence[str]) -> Parsed:
    wrong = _wrong_fields(said)
    fields = {name: value for name, value in said.items() if name not in wrong}
    understood = JobFile.model_validate(fields).model_dump(exclude_unset=True, exclude={"link"})
    files: dict[Role, str] = {}
    elsewhere: list[Reason] = []
    for kind in (Role.IMAGE, Role.AUDIO):
        path = understood.pop(kind, None)
        if path and (named := _key_of(path, beside=key)):
            if _may_name(named, key, shared_folders):
                files[kind] = named
            else:
                elsewhere.append(_not_to_be_named(key, kind, path, shared_folders))
        elif path:
            wrong.add(kind)
    problems = [
        _objection(key, name, said[name])
        for name in islice(filter(wrong.__contains__, said), MAX_PROBLEMS)
    ]
    problems = [*elsewhere, *problems][:MAX_PROBLEMS]
    if role is Role.DEFAULTS and Role.AUDIO in files:
        del files[Role.AUDIO]
        problems.append(_one_recording_for_many(key))
    choices = JobChoices(
        understood.pop("model", None), understood.pop("prompt", None), files, understood
    )
    return Parsed(choices, tuple(problems))


def _wrong_fields(said: dict[str, object]) -> set[str]:
    try:
        JobFile.model_validate(said)
    except ValidationError as error:
        places = (one["loc"] for one in error.errors(include_url=False, include_input=False))
        return {str(place[0]) for place in places}
    return set()


def _one_recording_for_many(key: str) -> Reason:
    return Reason(
        file=key,
        rule="what holds for many jobs, and a recording makes one video",
        found='"audio" among the defaults of a folder',
        cure='Take "audio" out of it: name it in a job\'s own file, or drop it into the folder.',
    )


def _may_name(named: str, by: str, shared_folders: Sequence[str]) -> bool:
    """A job uses files of its own top folder, and those that are shared. The defaults at the very
    top may name any: who writes there rules the inbox."""
    return (
        by == f"{INBOX}{DEFAULTS_FILE}"
        or top_folder(named) == top_folder(by)
        or any(named.startswith(INBOX + folder) for folder in shared_folders)
    )


def _not_to_be_named(key: str, kind: Role, path: str, shared_folders: Sequence[str]) -> Reason:
    """It says nothing of whether there is such a file: nobody has looked."""
    top = top_folder(key)
    own = f"under {INBOX}{top}" if top else f"in {INBOX} itself, outside of its folders"
    return Reason(
        file=key,
        rule=f'"{kind}" as a file {" or under ".join((own, *map(INBOX.__add__, shared_folders)))}',
        found=f'"{kind}" is {_shown(path)}, which is elsewhere',
        cure=f"Put the file {own} and name it there. Whoever runs this Dropreel can also share a "
        "folder with everybody (SharedFolders).",
    )


_ELSEWHERE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:/|data:|[^/]*\\")


def _key_of(path: str, beside: str) -> str | None:
    """The key that a path means to a file; None when that is not in the inbox."""
    folders = beside.removeprefix(INBOX).split("/")[:-1]
    *way, file = path.split("/")
    for part in way:
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
        and not _ELSEWHERE.match(path)
        and not re.search(r"[\x00-\x1f\x7f]", path)
    )
    return key if usable and len(key.encode()) <= MAX_KEY_BYTES else None


def _objection(key: str, name: str, value: object) -> Reason:
    if (known := _FIELDS.get(name)) is None:
        names = [one for one in _FIELDS if one != "$schema"]
        nearest = _nearest(name, names)
        return Reason(
            file=key,
            rule=f"only the fields {', '.join(names)}",
            found=f"the unknown field {_shown(name)}",
            cure=f"Write {_shown(nearest)} instead." if nearest else "Delete it.",
        )
    long = isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS
    nearest = _nearest(value, known.values)
    return Reason(
        file=key,
        rule=f'"{name}" as {known.takes}',
        found=f'"{name}" is {"too long" if long else _shown(value)}',
        cure=f"Write {_shown(nearest)} instead."
        if nearest is not None
        else f'Write {known.takes}; or delete "{name}".',
    )


def _nearest(found: object, valid: Iterable[OptionValue]) -> OptionValue | None:
    by_spelling = {str(value).casefold(): value for value in valid}
    spelling = str(found).casefold() if isinstance(found, OptionValue) else ""
    for near in get_close_matches(spelling, by_spelling, n=1):
        return by_spelling[near]
    return None


def _shown(value: object) -> str:
    """A value as JSON writes it, and short: anything can stand in a file."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= _MAX_SHOWN_CHARACTERS else text[:_MAX_SHOWN_CHARACTERS] + "…"
    return text.encode(errors="backslashreplace").decode()


def _only_wrong(reason: Reason) -> Parsed:
    return Parsed(JobChoices(), (reason,))


# Several files


def together(files: Sequence[tuple[str, Parsed]]) -> Parsed:
    """What a job's own files say, each with its key. None of them beats another: what two of them
    say is a problem that names both."""
    clashes: list[Reason] = []
    for place, (key, said) in enumerate(files):
        for other, earlier in files[:place]:
            clashes.extend(
                Reason(
                    file=key,
                    rule=f"each thing said in one of the job's files; {other} says it too",
                    found=f'"{name}" said a second time',
                    cure=f'Take "{name}" out of {key} or {other}, then drop that file again.',
                )
                for name in sorted(said.choices.said & earlier.choices.said)
            )
    merged = nearest_wins([said for _, said in files])
    return Parsed(merged.choices, (*merged.problems, *clashes))


def nearest_wins(nearest_first: Iterable[Parsed]) -> Parsed:
    """What applies of defaults: for each thing, what the nearest that says it says."""
    return reduce(
        lambda near, far: Parsed(near.choices.over(far.choices), near.problems + far.problems),
        nearest_first,
        Parsed(JobChoices()),
    )


# The file's fields, as the catalog has them


class _FieldOfFile(NamedTuple):
    takes: str
    """What may stand there, in words."""
    type: Any
    about: str
    values: tuple[OptionValue, ...] = ()


def _one_of(values: Sequence[OptionValue]) -> str:
    listed = ", ".join(json.dumps(value) for value in values)
    return f"one of {listed}" if len(values) > 1 else listed


def _option_field(offered: Sequence[Option], about: str) -> _FieldOfFile:
    """What an option may be for any offer: the union of values, the widest bounds."""
    kind = offered[0].kind
    if kind == "boolean":
        return _FieldOfFile("true or false", bool, about, (True, False))
    if all(option.values for option in offered):
        values = tuple(dict.fromkeys(value for option in offered for value in option.values))
        return _FieldOfFile(_one_of(values), Literal.__getitem__(values), about, values)
    if kind == "string":
        takes = f"text of at most {MAX_TEXT_CHARACTERS} characters"
        return _FieldOfFile(takes, Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)], about)
    lowest = [option.at_least for option in offered if option.at_least is not None]
    highest = [option.at_most for option in offered if option.at_most is not None]
    if len(lowest) == len(highest) == len(offered):
        at_least, at_most = min(lowest), max(highest)
        bounds = f"from {at_least} to {at_most}"
    else:
        at_least, at_most = -_MAX_NUMBER, _MAX_NUMBER
        bounds = f"of at most {len(str(_MAX_NUMBER))} digits"
    takes = f"a whole number {bounds}, without quotes"
    return _FieldOfFile(takes, Annotated[int, Field(ge=at_least, le=at_most)], about)


# What every reader of JSON on the way keeps exactly, Step Functions and jq among them.
_MAX_NUMBER: Final = 10**15 - 1


def _fields() -> dict[str, _FieldOfFile]:
    offered: dict[str, list[Option]] = {}
    models: dict[str, list[str]] = {}
    for model in MODELS.values():
        for option in (option for offer in model.route for option in offer.options):
            offered.setdefault(option.name, []).append(option)
            models.setdefault(option.name, []).append(model.name)
    about = {name: f"For {', '.join(dict.fromkeys(models[name]))}." for name in offered}
    a_path = "the path of a file in the inbox, from this file's folder, with /"
    return {
        "$schema": _FieldOfFile("text", str, "Where this schema is, for editors."),
        "model": _FieldOfFile(
            _one_of(tuple(MODELS)),
            Literal.__getitem__(tuple(MODELS)),
            " ".join(f"{model.name}: {model.does}." for model in MODELS.values()),
            tuple(MODELS),
        ),
        "prompt": _FieldOfFile(
            f"text of 1 to {MAX_TEXT_CHARACTERS} characters",
            Annotated[
                str,
                BeforeValidator(_tidy),
                Field(min_length=1, max_length=MAX_TEXT_CHARACTERS),
            ],
            about.pop("prompt"),
        ),
        "image": _FieldOfFile(a_path, Annotated[str, Field(min_length=1)], "The picture."),
        "audio": _FieldOfFile(
            a_path, Annotated[str, Field(min_length=1)], "The recording. Not in _defaults.json."
        ),
        **{name: _option_field(offered[name], about[name]) for name in about},
    }


_FIELDS: Final = _fields()


def _made_of(fields: dict[str, _FieldOfFile]) -> type[BaseModel]:
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
        __doc__="What a job is to be: `<stem>.json` beside its files, or `_defaults.json` for all "
        "jobs of a folder and below. Every field may be left out.",
        __config__=ConfigDict(extra="forbid", strict=True, frozen=True),
        **definitions,
    )


JobFile: Final = _made_of(_FIELDS)
