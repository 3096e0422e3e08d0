"""Pairing: which uploads belong together, judged by their keys alone. Nothing here opens a file.

A name is what people see: names that differ only in Unicode's normal form are one name.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import chain, product
from operator import attrgetter

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
UNUSABLE_PICTURES: dict[str, str] = {
    **dict.fromkeys(RAW_ENDINGS, "a camera raw photo"),
    "jxl": "a JPEG XL picture",
    "pdf": "a PDF document",
    "psd": "a Photoshop document",
    "svg": "an SVG drawing",
}
"""Pictures that are refused by name: decoding a raw photo can find its small preview instead."""

MEDIA_ENDINGS: dict[str, Role] = {
    **dict.fromkeys((*IMAGE_ENDINGS, *UNUSABLE_PICTURES), Role.IMAGE),
    **dict.fromkeys(AUDIO_ENDINGS, Role.AUDIO),
}

# `json.txt` is what Notepad makes of `json`.
DOCUMENT_ENDINGS: dict[str, Role] = {
    "txt": Role.PROMPT,
    "json": Role.OPTIONS,
    "json.txt": Role.OPTIONS,
}
UNUSABLE_DOCUMENTS: dict[str, Role] = {
    "md": Role.PROMPT,
    "rtf": Role.PROMPT,
    "yaml": Role.OPTIONS,
    "yml": Role.OPTIONS,
}
"""They look like a prompt or options. They are refused by name, so that nobody's are ignored."""

_ROLES = DOCUMENT_ENDINGS | UNUSABLE_DOCUMENTS | MEDIA_ENDINGS

MAX_FOLDERS = 20
"""Below the inbox. Each of them costs listings."""

DEFAULTS_FILE = "_defaults.json"
_DEFAULTS = (DEFAULTS_FILE, f"{DEFAULTS_FILE}.txt")
_MISNAMED_DEFAULTS = frozenset(
    {f"_defaults.{ending}" for ending in ("txt", *UNUSABLE_DOCUMENTS)}
    | {f"defaults.{ending}" for ending in ("json", "json.txt", "yaml", "yml")}
)
DEFAULTS_PREFIXES = ("_d", "_D", "defaults.", "Defaults.", "DEFAULTS.")
"""What the names begin with that `_defaults.json` has, in any spelling, or may have by mistake."""

# What operating systems, gateways and unfinished copies leave in folders. In lower case.
LITTER_FILES = (
    "thumbs.db", "thumbs.db:*", "ehthumbs*.db", "ehthumbs*.db:*", "desktop.ini",
    "*:zone.identifier", "~lock.*#", "~$*", "*~", "*.part", "*.tmp", "*.crdownload", "*.filepart",
    "*.partial",
)  # fmt: skip
LITTER_FOLDERS = frozenset({
    "@eadir", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "lost+found",
    "system volume information",
})  # fmt: skip


@dataclass(frozen=True)
class Name:
    """The parts of a key in the inbox, in Unicode's composed form (NFC)."""

    folder: str
    stem: str
    ending: str
    key: str = field(default="", compare=False)
    """As it was written."""

    @property
    def base(self) -> str:
        """The key without the dot and the ending. The uploads of a job share it."""
        return f"{INBOX}{self.folder}{self.stem}"

    @property
    def file(self) -> str:
        return f"{self.stem}.{self.ending}" if self.ending else self.stem

    @property
    def role(self) -> Role | None:
        """What the file is to its job; None when the ending is unknown."""
        ending, file = self.ending.lower(), self.file.lower()
        if file in _DEFAULTS or file in _MISNAMED_DEFAULTS:
            return Role.DEFAULTS
        return _ROLES.get(ending)

    @property
    def unusable_as(self) -> str | None:
        """The kind of picture, when no job can use it; otherwise None."""
        return UNUSABLE_PICTURES.get(self.ending.lower())

    @property
    def should_be(self) -> str | None:
        """The right name of a document that is misnamed; otherwise None."""
        if self.file.lower() in _MISNAMED_DEFAULTS:
            return DEFAULTS_FILE
        if role := UNUSABLE_DOCUMENTS.get(self.ending.lower()):
            return f"{self.stem}.{'txt' if role is Role.PROMPT else 'json'}"
        return None

    @property
    def is_too_deep(self) -> bool:
        return self.folder.count("/") > MAX_FOLDERS

    @property
    def prefixes(self) -> list[str]:
        """They list all uploads of its base, however systems write it."""
        folder, _, file = self.key.rpartition("/")
        folders = written_forms(f"{INBOX}{self.folder}", f"{folder}/")
        stems = written_forms(self.stem, file.removesuffix(f".{self.ending}"))
        return [folder + stem for folder, stem in product(folders, stems)]

    @property
    def written_keys(self) -> list[str]:
        """Its key, however systems write it."""
        ending = f".{self.ending}" if self.ending else ""
        return [f"{prefix}{ending}" for prefix in self.prefixes]

    @property
    def folders(self) -> list[str]:
        """The keys of its folder and of those above it, up to the inbox, the nearest first."""
        return _upwards(f"{INBOX}{self.folder}")

    @property
    def written_folders(self) -> list[str]:
        """The same, however systems write them."""
        folders = written_forms(f"{INBOX}{self.folder}", self.key.rpartition("/")[0] + "/")
        return list(dict.fromkeys(chain.from_iterable(map(_upwards, folders))))


def as_seen(text: str) -> str:
    """The same text for all that look the same, whatever system wrote it."""
    return unicodedata.normalize("NFC", text)


def written_forms(text: str, *written: str) -> list[str]:
    """How systems write a text: Windows and Linux composed, macOS decomposed."""
    normal = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    return list(dict.fromkeys([*normal, *(form for form in written if form not in ("", "/"))]))


def _upwards(folder: str) -> list[str]:
    parts = folder.removeprefix(INBOX).split("/")[:-1]
    return [INBOX + "".join(f"{part}/" for part in parts[:n]) for n in range(len(parts), -1, -1)]


@lru_cache(maxsize=4096)
def name_of(key: str) -> Name | None:
    """The parts of a key; None when no job is made of it: outside the inbox, and for folder
    markers, hidden files, files in hidden folders, and litter."""
    if not key.startswith(INBOX):
        return None
    path = as_seen(key.removeprefix(INBOX))
    *folders, file = path.split("/")
    if not file or any(part.startswith(".") for part in (*folders, file)):
        return None
    if any(fnmatchcase(file.lower(), litter) for litter in LITTER_FILES):
        return None
    if not LITTER_FOLDERS.isdisjoint(folder.lower() for folder in folders):
        return None
    folder = "".join(f"{part}/" for part in folders)
    stem, dot, ending = file.rpartition(".")
    if ending.lower() == "txt" and stem.lower().endswith(".json"):
        stem, ending = stem[: -len(".json")], f"{stem[-len('json') :]}.{ending}"
    return Name(folder, stem, ending, key) if dot else Name(folder, file, "", key)


def latest(listed: Iterable[ObjectVersion]) -> list[ObjectVersion]:
    """Of keys that look the same only the latest upload, as of one file only its latest version."""
    by_time = sorted(listed, key=attrgetter("written_at", "key"))
    return list({as_seen(upload.key): upload for upload in by_time}.values())


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
            for upload in latest(listed)
            if (other := name_of(upload.key)) and other.base == name.base
        ]
        return cls(name.folder, name.stem, tuple(sorted(group, key=attrgetter("key"))))

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
        return tuple(upload for role in Role for upload in self.of(role))

    @property
    def fingerprint(self) -> str:
        """Equal for two groups exactly when their own uploads are the same versions."""
        pinned = sorted((upload.key, upload.pin) for upload in self.own)
        return hashlib.sha256(json.dumps(pinned).encode()).hexdigest()
