"""How much memory an embedded AWS takes: all its processes and its files in shared memory."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from local.embedded import Home

SAMPLE_SECONDS = 1.0
SHARED_MEMORY = Path("/dev/shm")
WORKER = b"/_worker.py\0"  # the script of a Lambda environment, at the end of its command line


@dataclass(frozen=True)
class Memory:
    """What one embedded AWS has in memory, in bytes.

    `processes` is the proportional set size: a page that several processes share counts once, in
    equal parts. It leaves out mapped files of the shared memory, because `files` has those whole.
    """

    processes: int = 0
    files: int = 0
    environments: int = 0
    """How many processes run a Lambda function or wait for its next call."""

    @property
    def total(self) -> int:
        return self.processes + self.files


@contextmanager
def peak(home: Home) -> Iterator[list[Memory]]:
    """Sample while the block runs. The list then has the sample with the most memory, and in it the
    most environments of any sample."""
    found = [Memory()]
    ended = threading.Event()

    def sample() -> None:
        while not ended.is_set():
            begun = time.monotonic()
            samples = (found[0], memory_of(home))
            environments = max(memory.environments for memory in samples)
            largest = max(samples, key=lambda memory: memory.total)
            found[0] = replace(largest, environments=environments)
            ended.wait(max(0.0, SAMPLE_SECONDS - (time.monotonic() - begun)))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield found
    finally:
        ended.set()
        sampler.join()


def memory_of(home: Home) -> Memory:
    """The memory of all processes that an embedded AWS started, now. It reads /proc: all is 0 where
    there is none."""
    processes = 0
    for process in processes_of(home):
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        sizes = dict(line.split(":", 1) for line in lines[1:])
        kilobytes = {name: int(size.split()[0]) for name, size in sizes.items()}
        processes += (kilobytes["Pss"] - kilobytes["Pss_Shmem"] + kilobytes["SwapPss"]) * 1024
    files = _size_of(home.scratch) if home.scratch.is_relative_to(SHARED_MEMORY) else 0
    return Memory(processes, files, environments_of(home))


def environments_of(home: Home) -> int:
    """How many environments of Lambda functions there are now.

    Those that two looks find were there at one time. One look may find an environment that ends,
    and then the one that takes its place.
    """
    first, second = (set(filter(_is_environment, processes_of(home))) for _ in range(2))
    return len(first & second)


def processes_of(home: Home) -> Iterator[Path]:
    """The folders in /proc of all processes. Each that `up` started leads a session."""
    sessions = set(home.process_ids)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # The name in brackets may have spaces. The session is the fourth field after it.
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) in sessions:
            yield process


def _is_environment(process: Path) -> bool:
    try:
        return (process / "cmdline").read_bytes().endswith(WORKER)
    except OSError:
        return False


def _size_of(folder: Path) -> int:
    """What the files take, each once however many names it has."""
    sizes: dict[int, int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it is gone
                found = Path(parent, name).lstat()
                sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())
