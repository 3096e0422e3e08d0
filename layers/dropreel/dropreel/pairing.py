"""Pairing: which uploads belong together, judged by their keys alone.

Nothing here opens a file. What a file really is, validate finds out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropreel.job import INBOX, Input, Job, Role, job_id

if TYPE_CHECKING:
    from dropreel.storage import ObjectVersion

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
)
# fmt: on
ROLES: dict[str, Role] = {
    **dict.fromkeys(IMAGE_ENDINGS, Role.IMAGE),
    **dict.fromkeys(AUDIO_ENDINGS, Role.AUDIO),
}

# What systems leave behind in folders that people copy. Names in lower case.
LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
OFFICE_LOCK = "~$"

# Names spell an ending in upper and lower case, so hundreds of files can share a stem. A refusal
# names this many of a role; the job stays within what Step Functions and EventBridge carry.
NAMED_AT_MOST = 10


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
        return ROLES.get(self.ending.lower())

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
    uploads: "tuple[ObjectVersion, ...]"

    @classmethod
    def around(cls, name: Name, listed: "Iterable[ObjectVersion]") -> "Group":
        """Pick from a listing what belongs to the name."""
        beside = [
            upload for upload in listed if (other := name_of(upload.key)) and other.is_beside(name)
        ]
        beside.sort(key=lambda upload: upload.key)
        return cls(name.folder, name.stem, tuple(beside))

    def of(self, role: Role | None) -> "tuple[ObjectVersion, ...]":
        """The uploads that are this to the job; with None those that are nothing to it."""
        return tuple(
            upload for upload in self.uploads if (name := name_of(upload.key)) and name.role is role
        )

    @property
    def missing(self) -> tuple[Role, ...]:
        return tuple(role for role in Role if not self.of(role))

    @property
    def is_ready(self) -> bool:
        """Whether there is one upload of each role, or too many of one: then there is nothing to
        wait for, and validate refuses the job by naming them."""
        return not self.missing or any(len(self.of(role)) > 1 for role in Role)

    def job(self, bucket: str, model: str) -> Job:
        """The job that these uploads make, each pinned to its version."""
        inputs = tuple(
            Input(
                role=role,
                key=upload.key,
                version_id=upload.version_id,
                size_bytes=upload.size_bytes,
            )
            for role in Role
            for upload in self.of(role)[:NAMED_AT_MOST]
        )
        return Job(
            id=job_id(self.stem, model, inputs),
            bucket=bucket,
            folder=self.folder,
            stem=self.stem,
            model=model,
            inputs=inputs,
        )
