"""When a bucket's versioning is looked up, and what follows."""

from dataclasses import dataclass, field

import pytest

from dropreel.model.errors import VersioningSuspended
from dropreel.render.versioning import BELIEVED_SECONDS, Versioning


@dataclass
class Buckets:
    suspended: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def is_versioned(self, bucket: str) -> bool:
        self.asked.append(bucket)
        return bucket not in self.suspended


@dataclass
class Clock:
    seconds: float = 0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize("suspended", ["uploads", "videos"])
def test_a_suspended_bucket_is_named_until_it_is_enabled(suspended: str) -> None:
    buckets = Buckets({suspended})
    versioning = Versioning(buckets, Clock())

    for _ in range(2):
        with pytest.raises(VersioningSuspended, match=f"bucket {suspended} is not enabled"):
            versioning.require("uploads", "videos")
    buckets.suspended.clear()
    versioning.require("uploads", "videos")


def test_an_enabled_bucket_is_believed_for_a_minute() -> None:
    buckets, clock = Buckets(), Clock()
    versioning = Versioning(buckets, clock)

    versioning.require("uploads")
    clock.seconds = BELIEVED_SECONDS - 1
    versioning.require("uploads")
    assert buckets.asked == ["uploads"]

    buckets.suspended.add("uploads")
    clock.seconds = BELIEVED_SECONDS
    with pytest.raises(VersioningSuspended):
        versioning.require("uploads")
