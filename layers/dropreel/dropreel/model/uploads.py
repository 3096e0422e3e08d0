"""The objects that a bucket lists."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class ObjectVersion:
    """The current version of one object."""

    key: str
    version_id: str
    size_bytes: int


@dataclass(frozen=True)
class WrittenObject(ObjectVersion):
    """Also with the time of the write."""

    written_at: datetime


@dataclass(frozen=True)
class Page:
    """A part of a listing, sorted by key."""

    objects: tuple[WrittenObject, ...]
    goes_on_after: str | None
    """The next page begins after this key; None on the last page."""
