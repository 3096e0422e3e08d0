"""Pairing: which uploads belong together, judged by their keys alone. Nothing here opens a file."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dropreel.model.job import INBOX, Role
from dropreel.model.uploads import ObjectVersion

# fmt: off
IMAGE_ENDINGS = (
    "avif", "bmp", "gif", "heic", "heics", "heif", "hif", "jfif", "jpe", "jpeg", "jpg", "png",
    "tif", "tiff", "webp",
)
AUDIO_ENDINGS = (
    "3ga", "3gp", "aac", "aif", "aifc", "aiff", "amr", "au", "caf", "flac", "m4a", "m4b", "mka",
    "mp2", "mp3", "mpga", "oga", "ogg", "opus", "qta", "rf64", "w64", "wav", "wave", "weba", "wma",
    # videos with sound
    "3gpp", "avi", "m4v", "mkv", "mov", "mp4", "webm",
)
RAW_ENDINGS = (
    "arw", "cr2", "cr3", "dng", "nef", "orf", "pef", "raf", "rw2", "srw",
)
# fmt: on
UNUSABLE_ENDINGS: dict[str, str] = {
    **dict.fromkeys(RAW_ENDINGS, "a camera raw photo"),
    "jxl": "a JPEG XL picture",
    "pdf": "a PDF document",
    "psd": "a Photoshop document",
    "svg": "an SVG drawing",
}
"""Pictures that are refused by name: decoding a raw photo can find its small preview instead."""

MEDIA_ENDINGS: dict[str, Role] = {
    **dict.fromkeys((*IMAGE_ENDINGS, *UNUSABLE_ENDINGS), Role.IMAGE),
    **dict.fromkeys(AUDIO_ENDINGS, Role.AUDIO),
}

# Intake's IAM policy allows it to read only these, so upper and lower case matter here.
DOCUMENT_ENDINGS: dict[str, Role] = {
    **dict.fromkeys(("txt", "TXT"), Role.PROMPT),
    **dict.fromkeys(("json", "JSON"), Role.OPTIONS),
}
DEFAULTS_FILE = "_defaults.json"

# Files that operating systems leave in folders. Names in lower case.
LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
OFFICE_LOCK = "~$"


@dataclass(frozen=True)
class Name:
    """The parts of a key in the inbox."""

    folder: str
    stem: str
    ending: str

    @property
    def base(self) -> str:
        """The key without the dot and the ending. The uploads of a job share it."""
        return f"{INBOX}{self.folder}{self.stem}"

    @property
    def role(self) -> Role | None:
        """What the file is to its job; None when the ending is unknown."""
        if f"{self.stem}.{self.ending}" == DEFAULTS_FILE:
            return Role.DEFAULTS
        return DOCUMENT_ENDINGS.get(self.ending) or MEDIA_ENDINGS.get(self.ending.lower())

    @property
    def unusable_as(self) -> str | None:
        """The kind of file, when no job can use it; otherwise None."""
        return UNUSABLE_ENDINGS.get(self.ending.lower())

    @property
    def defaults_keys(self) -> Iterator[str]:
        """The keys of the `_defaults.json` files that apply to it, the nearest first."""
        folder = self.folder
        while folder:
            yield f"{INBOX}{folder}{DEFAULTS_FILE}"
            above, slash, _ = folder[:-1].rpartition("/")
            folder = above + slash
        yield f"{INBOX}{DEFAULTS_FILE}"


def name_of(key: str) -> Name | None:
    """The parts of a key; None when no job is made of it.

    That is the case outside the inbox, and for folder markers, hidden files, files in hidden
    folders, and files such as `Thumbs.db`.
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
    """The current uploads that share a folder and a stem, sorted by key."""

    folder: str
    stem: str
    uploads: tuple[ObjectVersion, ...]

    @classmethod
    def around(cls, name: Name, listed: Iterable[ObjectVersion]) -> "Group":
        """The group of a name, picked from a listing."""
        group = [
            upload
            for upload in listed
            if (other := name_of(upload.key)) and other.base == name.base
        ]
        return cls(name.folder, name.stem, tuple(sorted(group, key=lambda upload: upload.key)))

    def of(self, role: Role | None) -> tuple[ObjectVersion, ...]:
        """The uploads of a role; None selects unknown endings.

        Unusable pictures are included only when there is no other picture.
        """
        named = [(upload, name_of(upload.key)) for upload in self.uploads]
        found = [(upload, name) for upload, name in named if name and name.role is role]
        usable = tuple(upload for upload, name in found if not name.unusable_as)
        return usable or tuple(upload for upload, _ in found)

    def meant_as(self, role: Role) -> tuple[ObjectVersion, ...]:
        """The uploads of a role without a PDF, which may be the script of a recording."""
        return tuple(one for one in self.of(role) if not one.key.lower().endswith(".pdf"))

    @property
    def own(self) -> tuple[ObjectVersion, ...]:
        """The uploads that can start a job of their name."""
        roles = (Role.IMAGE, Role.AUDIO, Role.PROMPT, Role.OPTIONS)
        return tuple(upload for role in roles for upload in self.of(role))

    @property
    def fingerprint(self) -> str:
        """Equal for two groups exactly when their own uploads are the same versions."""
        pinned = sorted((upload.key, upload.version_id) for upload in self.own)
        return hashlib.sha256(json.dumps(pinned).encode()).hexdigest()
