"""What a bucket lists of its objects."""

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
    """The same, and when it was written."""

    written_at: datetime


@dataclass(frozen=True)
class Page:
    """A part of a listing, in the order of the keys."""

    objects: tuple[WrittenObject, ...]
    goes_on_after: str | None
    """The key that the next page begins behind; None when there is none."""
