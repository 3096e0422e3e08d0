"""Pairing: which uploads belong together, judged by their keys alone.

Nothing here opens a file. What a file really is, validate finds out; what it says, `wish`.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dropreel.model.job import INBOX, Role
from dropreel.model.uploads import ObjectVersion

# Wider than what any model takes: a picture of a wrong kind deserves validate's answer, which
# says what is wanted instead, and not an hour of waiting for "the picture".
# fmt: off
IMAGE_ENDINGS = (
    "avif", "bmp", "gif", "heic", "heif", "jfif", "jpe", "jpeg", "jpg", "jxl", "png", "svg",
    "tif", "tiff", "webp",
)
AUDIO_ENDINGS = (
    "3gp", "aac", "aif", "aifc", "aiff", "amr", "caf", "flac", "m4a", "m4b", "mka", "mp3",
    "mpga", "oga", "ogg", "opus", "wav", "wave", "weba", "wma",
    # a film's sound
    "avi", "m4v", "mkv", "mov", "mp4", "webm",
)
# fmt: on
MEDIA_ENDINGS: dict[str, Role] = {
    **dict.fromkeys(IMAGE_ENDINGS, Role.IMAGE),
    **dict.fromkeys(AUDIO_ENDINGS, Role.AUDIO),
}

# Intake reads these, and by its IAM policy nothing else: so here, upper and lower case matter.
DOCUMENT_ENDINGS: dict[str, Role] = {
    **dict.fromkeys(("txt", "TXT"), Role.PROMPT),
    **dict.fromkeys(("json", "JSON"), Role.OPTIONS),
}
DEFAULTS_FILE = "_defaults.json"

# What systems leave behind in folders that people copy. Names in lower case.
LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
OFFICE_LOCK = "~$"


@dataclass(frozen=True)
class Name:
    """A key in the inbox, taken apart."""

    folder: str
    stem: str
    ending: str

    @property
    def base(self) -> str:
        """The key without the dot and the ending: what the keys of a job share."""
        return f"{INBOX}{self.folder}{self.stem}"

    @property
    def role(self) -> Role | None:
        """What a file of this name is to a job; None when the ending is not a known one."""
        if f"{self.stem}.{self.ending}" == DEFAULTS_FILE:
            return Role.DEFAULTS
        return DOCUMENT_ENDINGS.get(self.ending) or MEDIA_ENDINGS.get(self.ending.lower())

    @property
    def defaults_keys(self) -> Iterator[str]:
        """Where defaults for a file of this name can lie, the nearest first."""
        folder = self.folder
        while folder:
            yield f"{INBOX}{folder}{DEFAULTS_FILE}"
            above, slash, _ = folder[:-1].rpartition("/")
            folder = above + slash
        yield f"{INBOX}{DEFAULTS_FILE}"

    def is_beside(self, other: "Name") -> bool:
        return (self.folder, self.stem) == (other.folder, other.stem)


def name_of(key: str) -> Name | None:
    """Take a key apart; None for keys that no job is made of.

    Those are keys outside the inbox, folder markers, hidden files, all that lies in hidden
    folders, and what systems leave behind (`Thumbs.db`).
    """
    if not key.startswith(INBOX):
        return None
    path = key.removeprefix(INBOX)
    folder, slash, file = path.rpartition("/")
    if not file or any(part.startswith(".") for part in path.split("/")):
        return None
    if file.lower() in LITTER or file.startswith(OFFICE_LOCK):
        return None
    stem, dot, ending = file.rpartition(".")
    return Name(folder + slash, stem, ending) if dot else Name(folder + slash, file, "")


@dataclass(frozen=True)
class Group:
    """The uploads that share a folder and a stem, as they are now, in the order of their keys."""

    folder: str
    stem: str
    uploads: tuple[ObjectVersion, ...]

    @classmethod
    def around(cls, name: Name, listed: Iterable[ObjectVersion]) -> "Group":
        """Pick from a listing what belongs to the name."""
        beside = [
            upload for upload in listed if (other := name_of(upload.key)) and other.is_beside(name)
        ]
        beside.sort(key=lambda upload: upload.key)
        return cls(name.folder, name.stem, tuple(beside))

    def of(self, role: Role | None) -> tuple[ObjectVersion, ...]:
        """The uploads that are this to the job; with None those that are nothing to it."""
        return tuple(
            upload for upload in self.uploads if (name := name_of(upload.key)) and name.role is role
        )

    @property
    def own(self) -> tuple[ObjectVersion, ...]:
        """The uploads that can start a job of their name."""
        roles = (Role.IMAGE, Role.AUDIO, Role.PROMPT, Role.OPTIONS)
        return tuple(upload for role in roles for upload in self.of(role))

    @property
    def fingerprint(self) -> str:
        """Equal exactly when the job's own uploads are, version by version."""
        pinned = sorted((upload.key, upload.version_id) for upload in self.own)
        return hashlib.sha256(json.dumps(pinned).encode()).hexdigest()
