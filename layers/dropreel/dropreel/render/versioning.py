"""No render begins in buckets that keep no versions: each input is pinned to one."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from dropreel.model.errors import VersioningSuspended

BELIEVED_SECONDS: Final = 60


class Buckets(Protocol):
    def is_versioned(self, bucket: str) -> bool: ...


@dataclass(frozen=True)
class Versioning:
    """Remembers for a minute that a bucket keeps versions, and never that it does not."""

    buckets: Buckets
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, float] = field(default_factory=dict)

    def require(self, *names: str) -> None:
        """Raises `VersioningSuspended`."""
        for name in names:
            if self.clock() - self._seen.get(name, -math.inf) < BELIEVED_SECONDS:
                continue
            if not self.buckets.is_versioned(name):
                raise VersioningSuspended(
                    f"Versioning of the bucket {name} is not enabled, so Dropreel renders nothing."
                )
            self._seen[name] = self.clock()
