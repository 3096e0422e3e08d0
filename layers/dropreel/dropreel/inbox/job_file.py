"""The settings of a job: `anna.json`, `anna.txt`, and the `_defaults.json` of its folders.

Parsing never raises: it returns the valid fields, and a reason for each problem. Here a value is
wrong when no offer of any model takes it; whether the job's model takes it, prepare decides.
"""

import json
import math
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import reduce
from itertools import combinations, islice
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

from dropreel.inbox import json_faults, plain_text
from dropreel.inbox.pairing import DEFAULTS_FILE, as_seen, name_of
from dropreel.model.catalog import MODELS, Option, OptionValue
from dropreel.model.errors import Reason
from dropreel.model.job import INBOX, MAX_KEY_BYTES, Role, top_folder

MAX_DOCUMENT_BYTES = 64 * 1024

# Step Functions carries the prompt in the job and in each offer's request, within its 256 KiB. The
# longest that a provider's page allows is 1500.
MAX_TEXT_CHARACTERS = 4000

# They fit into an error's cause in Step Functions, and nobody reads more.
MAX_PROBLEMS = 10

_PROMPT_RULE: Final = f"a prompt of 1 to {MAX_TEXT_CHARACTERS} characters"

MAX_LABELS = 20
MAX_LABEL_CHARACTERS = 256

_MAX_SHOWN_CHARACTERS = 60

_WAITS_FOR: Final = {"prompt": Role.PROMPT, "options": Role.OPTIONS, "voice": Role.AUDIO}


@dataclass(frozen=True)
class JobChoices:
    """What the files ask for. None or absent: not set."""

    model: str | None = None
    prompt: str | None = None
    files: dict[Role, str] = field(default_factory=dict)
    """The keys of the named picture and recording."""
    options: dict[str, OptionValue] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    dry_run: bool | None = None
    wait_for: frozenset[Role] | None = None
    """Of `_defaults.json` only: what a job waits for, although its model does not need it."""

    def over(self, farther: "JobChoices") -> "JobChoices":
        """Both merged. Where both set a field, this one wins. Of too many labels, the farther ones
        are left out."""
        labels = self.labels | {k: v for k, v in farther.labels.items() if k not in self.labels}
        return JobChoices(
            model=self.model or farther.model,
            prompt=self.prompt or farther.prompt,
            files={**farther.files, **self.files},
            options={**farther.options, **self.options},
            labels=dict(islice(labels.items(), MAX_LABELS)),
            dry_run=farther.dry_run if self.dry_run is None else self.dry_run,
            wait_for=farther.wait_for if self.wait_for is None else self.wait_for,
        )

    @property
    def names(self) -> set[str]:
        """The names of the fields that are set."""
        single = {
            "model": self.model,
            "prompt": self.prompt,
            "labels": self.labels or None,
            "dry_run": self.dry_run,
            "wait_for": self.wait_for,
        }
        set_names = {name for name, value in single.items() if value is not None}
        return set_names | {*self.files, *self.options}


class Parsed(NamedTuple):
    """What one or more files ask for, and what is wrong with them."""

    choices: JobChoices
    problems: tuple[Reason, ...] = ()


# Reading one file


def parse(role: Role, key: str, content: bytes, shared_folders: Sequence[str] = ()) -> Parsed:
    """Parse a job's prompt, its options, or the defaults of a folder."""
    text = plain_text.decoded(content)
    rich_text = plain_text.rich_text_in(text or "")
    if text is None or rich_text:
        return _rejected(
            Reason(
                file=key,
                rule="plain text in UTF-8",
                found=rich_text or "not text, or text in another encoding",
                cure=plain_text.SAVE_AS_PLAIN_TEXT,
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


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _prompt_in(key: str, text: str) -> Parsed:
    prompt = _with_line_feeds(text)
    if fault := _prompt_fault(key, prompt):
        return _rejected(fault)
    return Parsed(JobChoices(prompt=prompt.strip()))


def _prompt_fault(key: str, prompt: str, where: str = "") -> Reason | None:
    """Why a text is no prompt. Line breaks must be line feeds. `where` names the field, if any."""
    if plain_text.is_blank(prompt):
        found = "an empty text" if where else "an empty file"
        if prompt.strip():
            found += ": its characters are invisible"
        return Reason(
            file=key,
            rule=_PROMPT_RULE,
            found=where + found,
            cure="Describe the video in a few sentences, and drop the file again.",
        )
    if unreadable := (plain_text.rich_text_in(prompt) or plain_text.control_character_in(prompt)):
        return Reason(
            file=key,
            rule="a prompt in plain text",
            found=where + unreadable,
            cure="Type the prompt in a plain text editor, or paste it there without its format. "
            "Save it in UTF-8 and drop the file again.",
        )
    if (length := len(prompt.strip())) > MAX_TEXT_CHARACTERS:
        return Reason(
            file=key,
            rule=_PROMPT_RULE,
            found=f"{where}{length} characters",
            cure="Shorten the prompt, and drop the file again.",
        )
    return None


class _DuplicateField(ValueError):
    """Its text is the field's name."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise _DuplicateField(_shown(name))
    return dict(pairs)


def _options_in(role: Role, key: str, text: str, shared_folders: Sequence[str]) -> Parsed:
    try:
        document = json.loads(text, object_pairs_hook=_once_each)
        json.dumps(document, ensure_ascii=False).encode()  # refuses half a character: \ud800
    except _DuplicateField as name:
        return _not_json(
            key, f"{name} is there twice", f"Keep only one {name}, and drop the file again."
        )
    except json.JSONDecodeError as error:
        return _not_json(key, *json_faults.fault_of(text, error))
    except ValueError:
        return _not_json(
            key,
            "it has a text or a number that cannot be used",
            r"Remove halves of characters, such as \ud83d alone, and numbers of more than 15 "
            "digits. Then drop the file again.",
        )
    except RecursionError:
        document = []
    if not isinstance(document, dict):
        return _not_json(
            key,
            f"it is {_shown(document)}",
            "Write only one {, the fields, and one }, and drop the file again.",
        )
    return _checked(role, key, document, shared_folders)


def _not_json(key: str, found: str, cure: str) -> Parsed:
    return _rejected(
        Reason(
            file=key,
            rule='a JSON object, such as {"prompt": "She smiles"}',
            found=f"not a JSON object: {found}",
            cure=cure,
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
        if path := valid.pop(kind, None):
            named = _key_of(path, named_by=key)
            if named and _may_name(named, key, shared_folders):
                files[kind] = named
            elif named:
                problems.append(_forbidden_path(key, kind, path, shared_folders))
            else:
                problems.append(_wrong_path(key, kind, path, shared_folders))
    wrong_in_order = islice((name for name in document if name in wrong), MAX_PROBLEMS)
    problems += [_wrong_field(key, name, document) for name in wrong_in_order]
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
    waits = valid.pop("wait_for", None)
    if role is Role.OPTIONS and waits is not None:
        problems.append(
            Reason(
                file=key,
                rule="settings for one job",
                found='"wait_for" in the file of one job',
                cure=f'Remove "wait_for" here. Write it into {DEFAULTS_FILE}: there it holds for '
                "all jobs of the folder.",
            )
        )
    choices = JobChoices(
        model=valid.pop("model", None),
        prompt=valid.pop("prompt", None),
        files=files,
        labels=valid.pop("labels", {}),
        dry_run=valid.pop("dry_run", None),
        wait_for=None
        if waits is None or role is Role.OPTIONS
        else frozenset(_WAITS_FOR[one] for one in waits),
        options=valid,
    )
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
    named, folder = as_seen(named), as_seen(top_folder(by))
    name = name_of(by)
    return (
        (name is not None and name.role is Role.DEFAULTS and not folder)
        or top_folder(named) == folder
        or any(named.startswith(as_seen(INBOX + shared)) for shared in shared_folders)
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
_IN_THE_INBOX = re.compile(rf"(s3://[^/]*)?/?{re.escape(INBOX)}(?P<path>.+)")
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[/\\]|data:|\\\\")


def _key_of(path: str, named_by: str) -> str | None:
    """The key of a path, relative to the folder of a key; None when it is not in the inbox, and
    when it seems to begin at the bucket's root. `./inbox/` is a folder called inbox."""
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
        and not path.startswith(INBOX)
        and not _NOT_RELATIVE.match(path)
        and not re.search(r"[\x00-\x1f\x7f]", path)
    )
    return key if usable and len(key.encode()) <= MAX_KEY_BYTES else None


def _wrong_path(key: str, kind: Role, path: str, shared_folders: Sequence[str]) -> Reason:
    """For a path that has no key, with the path to write where it can be known."""
    slashed = path.replace("\\", "/")
    in_inbox = _IN_THE_INBOX.fullmatch(slashed)
    meant = posixpath.relpath(INBOX + in_inbox["path"], posixpath.dirname(key)) if in_inbox else ""
    meant_key = _key_of(meant or slashed, named_by=key)
    if meant and meant_key and not _may_name(meant_key, key, shared_folders):
        return _forbidden_path(key, kind, path, shared_folders)
    folder, _, json_file = key.rpartition("/")
    depth = key.removeprefix(INBOX).count("/")
    starts = f"Paths start in the folder of {json_file}"
    if meant and meant_key:
        cure = f"{starts}: write {_shown(meant)}."
    elif _ELSEWHERE.match(path):
        name = slashed.rpartition("/")[2]
        name = name if name and len(name) < _MAX_SHOWN_CHARACTERS and "," not in name else "a.png"
        cure = f"Drop the file into {folder}/ and write only its name, such as {_shown(name)}."
    elif meant_key:
        cure = f"Write / instead of \\: {_shown(slashed)}."
    elif slashed.startswith("/"):
        cure = f"{starts}: write no / at the beginning. ../ goes one folder up."
    elif slashed.rpartition("/")[2] in ("", ".", ".."):
        cure = f"Name a file in that folder, such as {_shown(posixpath.join(slashed, 'a.png'))}."
    elif posixpath.normpath(slashed).count("../") > depth:
        most = f"at most {depth} x ../" if depth else "no ../"
        cure = f"{starts}, and nothing is above {INBOX}: write {most}."
    else:
        cure = f'Write {_FIELDS[kind].takes}, or remove "{kind}".'
    return Reason(
        file=key,
        rule=f'"{kind}" as {_FIELDS[kind].takes}',
        found=f'"{kind}" is {_shown(path)}',
        cure=cure,
    )


# What people call a field.
_OTHER_NAMES: Final = {
    "audio": ("voice", "sound", "recording", "song", "speech"),
    "image": ("picture", "photo", "face", "avatar"),
    "prompt": ("text", "description"),
}


def _wrong_field(key: str, name: str, document: dict[str, object]) -> Reason:
    value = document[name]
    if (known := _FIELDS.get(name)) is None:
        return _unknown_field(key, name, document)
    if name == "prompt" and isinstance(value, str):
        fault = _prompt_fault(key, _with_line_feeds(value), where='"prompt" holds ')
        if fault:
            return fault
    nearest = _nearest(value, known.values)
    number = re.fullmatch(r"\s*(-?\d{1,15})\s*", value) if isinstance(value, str) else None
    if nearest is not None:
        cure = f"Write {_shown(nearest)} instead."
    elif number and known.kind == "number" and not _wrong_fields({name: int(number[1])}):
        cure = f"Write {int(number[1])}, without quotes."
    else:
        cure = f'Write {known.takes}, or remove "{name}".'
    return Reason(
        file=key,
        rule=f'"{name}" as {known.takes}',
        found=f'"{name}" {_found_in(name, value)}',
        cure=cure,
    )


def _found_in(name: str, value: object) -> str:
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
        return "is too long"
    if name != "labels" or not isinstance(value, dict):
        return f"is {_shown(value)}"
    for label, text in value.items():
        if not isinstance(text, str):
            return f"has {_shown(label)}: {_shown(text)}"
        if not 1 <= len(label) <= MAX_LABEL_CHARACTERS or len(text) > MAX_LABEL_CHARACTERS:
            return f"has {_shown(label)}, with {len(label)} characters: {len(text)} characters"
    return f"has {len(value)} entries"


def _unknown_field(key: str, name: str, document: dict[str, object]) -> Reason:
    names = [one for one in _FIELDS if one != "$schema"]
    inner = document[name]
    others = (one for one, called in _OTHER_NAMES.items() if name.casefold() in called)
    nearest = next(others, None) or _nearest(name, names)
    if isinstance(inner, dict) and (known := [one for one in names if one in inner]):
        few = ", ".join(f"{_shown(one)}: {_shown(inner[one])}" for one in known[:3])
        cure = f"Write the fields of {_shown(name)} without it around them: {{{few}}}."
    elif nearest and nearest not in document:
        cure = f"Write {_shown(nearest)} instead."
    else:
        cure = "Remove it."
    return Reason(
        file=key,
        rule=f"only the fields {', '.join(names)}",
        found=f"the unknown field {_shown(name)}",
        cure=cure,
    )


def _nearest(found: object, valid: Iterable[OptionValue]) -> OptionValue | None:
    """The value that was perhaps meant. For a number there is none among numbers."""
    by_spelling = {
        str(value).casefold(): value
        for value in valid
        if isinstance(found, str) or isinstance(value, str)
    }
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
        _clash(name, other, key)
        for (other, earlier), (key, parsed) in combinations(files, 2)
        for name in sorted(parsed.choices.names & earlier.choices.names)
    ]
    merged = nearest_wins([parsed for _, parsed in files])
    return Parsed(merged.choices, (*merged.problems, *clashes))


def _clash(name: str, earlier: str, later: str) -> Reason:
    cure = f'Remove "{name}" from {later} or from {earlier}, then drop that file again.'
    if (file := name_of(later)) and file.role is Role.PROMPT:
        cure = f'Delete {later} and drop {earlier} again, or remove "{name}" from {earlier}.'
    return Reason(
        file=later,
        rule=f"each field in only one of the job's files; {earlier} has it too",
        found=f'a second "{name}"',
        cure=cure,
    )


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
    kind: Literal["number"] | None = None


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
    return _Field(takes, Annotated[int, Field(ge=at_least, le=at_most)], about, kind="number")


# Every JSON parser on the way keeps this many digits exactly, also Step Functions and jq.
_MAX_NUMBER: Final = 10**15 - 1


_LabelName = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARACTERS)]
_LabelText = Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)]


def _prompt_of(text: object) -> object:
    if not isinstance(text, str):
        return text  # the field's type refuses it
    prompt = _with_line_feeds(text)
    if _prompt_fault("", prompt):
        raise ValueError
    return prompt.strip()


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError
    return names


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
            " ".join(
                f"{model.name}: {model.does}"
                f"{'' if any(offer.on for offer in model.route) else ' (off by default)'}."
                for model in MODELS.values()
            ),
            tuple(MODELS),
        ),
        "prompt": _Field(
            f"text of 1 to {MAX_TEXT_CHARACTERS} characters",
            Annotated[
                str,
                BeforeValidator(_prompt_of),
                Field(min_length=1, max_length=MAX_TEXT_CHARACTERS),
            ],
            about.pop("prompt"),
        ),
        "image": _Field(a_path, Annotated[str, Field(min_length=1)], "The picture."),
        "audio": _Field(
            a_path, Annotated[str, Field(min_length=1)], "The recording. Not in _defaults.json."
        ),
        **{name: _option_field(offered[name], about[name]) for name in about},
        "labels": _Field(
            f"an object of at most {MAX_LABELS} texts in double quotes, such as "
            f'{{"customer": "4711"}}, each name '
            f"and text of at most {MAX_LABEL_CHARACTERS} characters",
            Annotated[dict[_LabelName, _LabelText], Field(max_length=MAX_LABELS)],
            "Your own words. Dropreel passes them on to the event and the manifest.",
        ),
        "dry_run": _Field(
            "true or false",
            bool,
            "Check the job, and render and pay nothing. The answer is the event Job Checked and "
            "the file <stem>.check.json.",
            (True, False),
        ),
        "wait_for": _Field(
            f"a list of {', '.join(map(json.dumps, _WAITS_FOR))}, each at most once",
            Annotated[
                list[Literal["prompt", "options", "voice"]],
                AfterValidator(_distinct),
                Field(json_schema_extra={"uniqueItems": True}),
            ],
            "Only in _defaults.json: what each job of the folder waits for, also when its model "
            "does not need it.",
        ),
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
