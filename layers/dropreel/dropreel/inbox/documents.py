"""The documents of the inbox, read: a job's prompt and options, and the defaults of its folders."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, Protocol

from dropreel.inbox import job_file
from dropreel.inbox.job_file import JobChoices, Parsed
from dropreel.inbox.pairing import (
    DEFAULTS_FILE,
    DEFAULTS_PREFIXES,
    Group,
    Name,
    as_seen,
    latest,
    name_of,
)
from dropreel.model.errors import Reason
from dropreel.model.job import Input, Role
from dropreel.model.uploads import ObjectVersion, Unreadable


class Storage(Protocol):
    def current_versions(self, bucket: str, *prefixes: str) -> Iterable[ObjectVersion]: ...

    def read(self, bucket: str, pinned: Input) -> bytes: ...


class Read(NamedTuple):
    """What documents ask for together."""

    parsed: Parsed
    uploads: tuple[ObjectVersion, ...]
    sha256: Mapping[str, str]
    """In hex, by key. A document that was refused by its name or size was not read."""


@dataclass(frozen=True)
class Documents:
    """Reads the uploads that are documents by their names, and no other."""

    storage: Storage
    shared_folders: tuple[str, ...]
    _defaults: dict[tuple[str, str], Read] = field(default_factory=dict)

    def own(self, bucket: str, group: Group) -> Read:
        """The job's own prompt and options."""
        roles = (Role.OPTIONS, Role.PROMPT)
        return self._together(
            bucket, [(role, upload) for role in roles for upload in group.of(role)]
        )

    def defaults(self, bucket: str, name: Name) -> Read:
        """The defaults that apply to a name. The nearest folder wins. They are looked up once for
        each folder, until they are forgotten."""
        if name.is_too_deep:
            return Read(Parsed(JobChoices()), (), {})
        place = (bucket, name.folder)
        if place not in self._defaults:
            self._defaults[place] = self._look_up(bucket, name)
        return self._defaults[place]

    def forget_defaults(self) -> None:
        self._defaults.clear()

    def _look_up(self, bucket: str, name: Name) -> Read:
        listed = self.storage.current_versions(
            bucket, *(f"{at}{begin}" for at in name.written_folders for begin in DEFAULTS_PREFIXES)
        )
        order = {folder: index for index, folder in enumerate(name.folders)}
        found = sorted(
            (order[_folder(one)], one.key, one)
            for one in latest(listed)
            if _folder(one) in order and _is_defaults(one)
        )
        in_folders = [
            self._together(bucket, [(Role.DEFAULTS, one) for *_, one in folder])
            for _, folder in groupby(found, key=lambda entry: entry[0])
        ]
        return Read(
            job_file.nearest_wins(read.parsed for read in in_folders),
            tuple(upload for read in in_folders for upload in read.uploads),
            {key: digest for read in in_folders for key, digest in read.sha256.items()},
        )

    def _together(self, bucket: str, uploads: list[tuple[Role, ObjectVersion]]) -> Read:
        """A field that two of them set is a problem."""
        sha256: dict[str, str] = {}
        parsed = [(one.key, self._parsed(role, bucket, one, sha256)) for role, one in uploads]
        return Read(job_file.combined(parsed), tuple(one for _, one in uploads), sha256)

    def _parsed(
        self, role: Role, bucket: str, upload: ObjectVersion, sha256: dict[str, str]
    ) -> Parsed:
        name = name_of(upload.key)
        if name and (right_name := name.should_be):
            return Parsed(JobChoices(), (_misnamed(upload.key, right_name),))
        if upload.size_bytes > job_file.MAX_DOCUMENT_BYTES:
            return job_file.too_large(upload.key, upload.size_bytes)
        try:
            content = self.storage.read(bucket, pinned(role, upload))
        except Unreadable as refused:
            return Parsed(JobChoices(), (refused.reason,))
        sha256[upload.key] = hashlib.sha256(content).hexdigest()
        return job_file.parse(role, upload.key, content, self.shared_folders)


def pinned(role: Role, upload: ObjectVersion, sha256: str | None = None) -> Input:
    """The upload as a job's input, pinned to its version."""
    return Input(
        role=role,
        key=upload.key,
        version_id=upload.version_id,
        size_bytes=upload.size_bytes,
        etag=upload.etag or None,
        sha256=sha256,
    )


def _is_defaults(upload: ObjectVersion) -> bool:
    name = name_of(upload.key)
    return name is not None and name.role is Role.DEFAULTS


def _folder(upload: ObjectVersion) -> str:
    return as_seen(upload.key.rpartition("/")[0] + "/")


def _misnamed(key: str, right_name: str) -> Reason:
    file = key.rpartition("/")[2]
    content = {
        "txt": "the prompt, as plain text",
        "json": "the options, as JSON",
    }[right_name.rpartition(".")[2]]
    if right_name == DEFAULTS_FILE:
        content = "the options of the folder, as JSON"
    return Reason(
        file=key,
        rule=f"{content}, in a file called {right_name}",
        found=f"a file called {file}",
        cure=f"Delete {file}. If it holds {content.partition(',')[0]}, drop {right_name} instead. "
        "Then drop one of the job's own files again.",
    )
