"""A bound on memory, for decoders that believe what a hostile file says it needs."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")


@contextmanager
def at_most_more(size_bytes: int) -> Iterator[None]:
    """Within it, whatever takes this much more memory than there was meets a `MemoryError`;
    after it, what was freed is back with the system, so that the next file finds as much.

    Only on Linux, which is where Lambda runs: elsewhere there is no bound.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if _STATUS.exists():
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        with suppress(OSError, AttributeError):  # glibc's; others give back by themselves
            ctypes.CDLL(None).malloc_trim(0)


def _data_bytes() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise LookupError("VmData")
