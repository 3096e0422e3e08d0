"""The objects that a bucket lists."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class ObjectVersion:
    """The current version of one object."""

    key: str
    version_id: str
    size_bytes: int
    written_at: datetime
    etag: str = ""
    """Two objects with one ETag have the same bytes. The same bytes can have two ETags."""


@dataclass(frozen=True)
class Page:
    """A part of a listing, sorted by key."""

    objects: tuple[ObjectVersion, ...]
    goes_on_after: str | None
    """The next page begins after this key; None on the last page."""
