"""The objects that a bucket lists."""

from dataclasses import dataclass
from datetime import datetime

from dropreel.model.errors import Reason

NULL_VERSION = "null"
"""The version id of what was written without versioning: the same for one file after the other. S3
may also leave it out of an answer."""


@dataclass(frozen=True)
class ObjectVersion:
    """The current version of one object."""

    key: str
    version_id: str
    size_bytes: int
    written_at: datetime
    etag: str = ""
    """Two objects with one ETag have the same bytes. The same bytes can have two ETags."""

    @property
    def in_parts(self) -> bool:
        """Whether it was uploaded in parts: S3 counts them in its ETag."""
        return "-" in self.etag

    @property
    def pin(self) -> str:
        return pin(self.version_id, self.etag)


def pin(version_id: str, etag: str | None) -> str:
    """Different for two versions of a file, also without versioning if their bytes differ."""
    return f"{version_id} {etag}" if version_id == NULL_VERSION else version_id


@dataclass(frozen=True)
class Page:
    """A part of a listing, sorted by key."""

    objects: tuple[ObjectVersion, ...]
    goes_on_after: str | None
    """The next page begins after this key; None on the last page."""


class Unreadable(Exception):
    """S3 refuses the bytes of a file for good. `reason` says why, and what to do."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"{reason.file}: {reason.found}")
        self.reason = reason
