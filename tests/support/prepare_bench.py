"""Prepare with everything around it replaced: uploads in memory, and codecs that read words.

A picture of theirs is `512 x 512 jpeg`, a recording `2.5 s mp3`, each with the format that its copy
will have, or `large` when no copy is small enough. `damaged` is neither.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, Final, TypedDict, Unpack

import pytest
from pydantic import BaseModel

from dropreel.media.opened import Copy, MediumRefused, PictureFacts, SoundFacts
from dropreel.media.shut_in import Codec, Opened
from dropreel.media.source import Source, buffered
from dropreel.model.catalog import (
    MODELS,
    TITLES,
    AudioLimits,
    Catalog,
    ImageLimits,
    OptionValue,
    in_service,
)
from dropreel.model.errors import InputGone, InputRejected, Reason
from dropreel.model.job import Input, Job, Role
from dropreel.model.messages import Plan
from dropreel.model.uploads import Unreadable
from dropreel.render.prepare import Codecs, prepare

SPEECH = "wan-2.2-speech-to-video"
_ROLES: Final = {
    "_defaults.json": Role.DEFAULTS,
    ".json": Role.OPTIONS,
    ".txt": Role.PROMPT,
    ".m4a": Role.AUDIO,
    ".mp3": Role.AUDIO,
    ".wav": Role.AUDIO,
    "": Role.IMAGE,
}


@dataclass
class _Medium:
    """Its copy is the limits that it was asked to keep."""

    noun: str
    facts: PictureFacts | SoundFacts
    ending: str

    def write(self, limits: BaseModel, into: BinaryIO) -> Copy:
        if self.ending == "large":
            raise MediumRefused(f"a large {self.noun}", rule="less than 9 MB", cure="Cut it.")
        into.write(limits.model_dump_json().encode())
        size = self.facts.model_dump() if isinstance(self.facts, PictureFacts) else {}
        changes = (f"The {self.noun} is {self.ending} now.",)
        return Copy.model_validate({"format": self.ending, "changes": changes} | size)


def _open(noun: str, words: str, facts: type[PictureFacts | SoundFacts], file: BinaryIO) -> _Medium:
    said = file.read().decode()
    if found := re.fullmatch(words, said):
        *numbers, ending = found.groups()
        stated = dict(zip(facts.model_fields, numbers, strict=True))
        return _Medium(noun, facts.model_validate(stated), ending)
    raise MediumRefused(said or "an empty file", broken=said in ("", "damaged"))


_picture = partial(_open, "picture", r"(\d+) x (\d+) (\w+)", PictureFacts)
_sound = partial(_open, "recording", r"([\d.]+) s (\w+)", SoundFacts)
FAKES: Final = Codecs(
    Codec("picture", _picture, PictureFacts, ImageLimits),
    Codec("recording", _sound, SoundFacts, AudioLimits),
)


@contextmanager
def in_this_process(
    codec: Codec[Any], source: Source, into: BinaryIO, seconds_left: Callable[[], float]
) -> Iterator[Opened[Any]]:
    """`shut_in.opened`, without a process for each medium."""
    medium = codec.open(buffered(source.read, source.size_bytes))
    yield Opened(medium.facts, lambda limits: medium.write(limits, into))


@dataclass
class Bucket:
    """An upload bucket in memory that remembers what was read of it and put into it."""

    contents: dict[str, bytes]
    read: set[str] = field(default_factory=set)
    types: dict[str, str] = field(default_factory=dict)
    refused: dict[str, Reason] = field(default_factory=dict)

    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        return buffered(
            lambda start, size: self._content(pinned.key)[start : start + size], pinned.size_bytes
        )

    def copy(self, bucket: str, pinned: Input, into: BinaryIO) -> None:
        into.write(self._content(pinned.key))

    def put(self, bucket: str, key: str, body: BinaryIO, content_type: str) -> str:
        self.contents[key] = body.read()
        self.types[key] = content_type
        return f"version of {key}"

    def _content(self, key: str) -> bytes:
        self.read.add(key)
        if reason := self.refused.get(key):
            raise Unreadable(reason)
        if key not in self.contents:
            raise InputGone(f"{key} was deleted before it could be read.")
        return self.contents[key]


class Asked(TypedDict, total=False):
    """A job's model and options, and the providers that have a token."""

    model: str
    prompt: str | None
    options: dict[str, OptionValue]
    problems: tuple[Reason, ...]
    configured: frozenset[str]
    catalog: Catalog


def prepared(
    contents: dict[str, bytes],
    bucket: Bucket,
    codecs: Codecs = FAKES,
    sizes: dict[str, int] | None = None,
    **asked: Unpack[Asked],
) -> Plan:
    """Prepare a job of files with these contents, which are said to be of other sizes."""
    inputs = [
        Input(
            role=next(role for ending, role in _ROLES.items() if key.endswith(ending)),
            key=key,
            version_id="v1",
            size_bytes=(sizes or {}).get(key, len(content)),
        )
        for key, content in contents.items()
    ]
    configured = asked.pop("configured", frozenset(TITLES))
    catalog = in_service(asked.pop("catalog", MODELS))
    said = {"id": "anna-1", "bucket": "u", "folder": "team/", "stem": "anna", "model": SPEECH}
    job = Job.model_validate(said | {"inputs": inputs} | asked)
    return prepare(
        job, bucket, configured, codecs, lambda: 60.0, work_bucket="work", catalog=catalog
    )


def plan_of(contents: dict[str, bytes], **asked: Unpack[Asked]) -> tuple[Plan, Bucket]:
    bucket = Bucket(dict(contents))
    return prepared(contents, bucket, **asked), bucket


def refusal(contents: dict[str, bytes], **asked: Unpack[Asked]) -> InputRejected:
    with pytest.raises(InputRejected) as raised:
        plan_of(contents, **asked)
    return raised.value
