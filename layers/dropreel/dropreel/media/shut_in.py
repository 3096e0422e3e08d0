"""A process of its own for each medium: a codec that crashes, hangs or takes all memory takes
nothing else along, and what it held is free afterwards.

The process has no way to the bucket: it asks for the bytes of its file, a range at a time. What it
says is JSON, so bytes that take it over can lie, and no more.
"""

import json
import multiprocessing
import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO, Final, Generic, TypeVar

from pydantic import BaseModel

from dropreel.media.opened import Copy, Fault, MediumRefused
from dropreel.media.source import Source, buffered

MAX_MEMORY_BYTES: Final = 1_500_000_000
MAX_WORKING_SECONDS: Final = 30
"""Of the processor, for one medium: several times what the largest honest one takes."""

_MAX_MESSAGE_BYTES: Final = 1 << 20
_LEAVING_SECONDS: Final = 15.0  # to store the copies, before the function's own time is up

F = TypeVar("F", bound=BaseModel)
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Codec(Generic[F]):
    """What opens a kind of medium."""

    noun: str
    open: Callable[[BinaryIO], Any]  # an `opened.OpenedPicture` or `OpenedSound`
    facts: type[F]
    limits: type[BaseModel]


class Opened(Generic[F]):
    """A medium that is open in its process."""

    def __init__(self, facts: F, write: Callable[[BaseModel], Copy]) -> None:
        self.facts = facts
        self.write = write
        """Write a copy that keeps the limits into the file. Raises `MediumRefused`."""


@contextmanager
def opened(
    codec: Codec[F], source: Source, into: BinaryIO, seconds_left: Callable[[], float]
) -> Iterator[Opened[F]]:
    """Open a medium. Raises `MediumRefused`, and whatever reading the source raises."""
    context = multiprocessing.get_context("fork")  # nothing has to be imported again
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(codec, theirs, source.size_bytes, into))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # our functions have one thread
        process.start()
    theirs.close()

    def answer(wanted: type[M]) -> M:
        while True:
            if not ours.poll(max(seconds_left() - _LEAVING_SECONDS, 0)):
                raise _takes_more(codec.noun, "time")
            try:
                said = json.loads(ours.recv_bytes(_MAX_MESSAGE_BYTES))
                if "answer" in said:
                    return wanted.model_validate(said["answer"])
                fault = Fault.model_validate(said["fault"]) if "fault" in said else None
                start, size_bytes = (0, 0) if fault else map(int, said["read"])
                if start < 0 or not 0 <= size_bytes <= source.size_bytes - start:
                    raise ValueError("bytes that the file does not have")
            except (
                EOFError,
                OSError,
                ValueError,
                TypeError,
                LookupError,
                ArithmeticError,
                RecursionError,
            ):
                process.join(1)
                raise _died(codec.noun, process.exitcode) from None
            if fault:
                raise MediumRefused(**fault.model_dump())
            send(source.read(start, min(size_bytes, _MAX_MESSAGE_BYTES)))

    def send(message: bytes) -> None:
        with suppress(OSError):  # it has died: there is no answer then, either
            ours.send_bytes(message)

    def ask(limits: BaseModel) -> Copy:
        send(limits.model_dump_json().encode())
        return answer(Copy)

    try:
        yield Opened(answer(codec.facts), ask)
    finally:
        ours.close()
        process.kill()
        process.join()


def _work(codec: Codec[Any], connection: Connection, size_bytes: int, into: BinaryIO) -> None:
    """In the process: open the medium, then write it as often as it is asked to."""
    _bound()
    try:
        file = buffered(lambda start, size: _asked(connection, start, size), size_bytes)
        medium = codec.open(file)
        _say(connection, answer=medium.facts.model_dump(mode="json"))
        with suppress(EOFError):
            while wanted := connection.recv_bytes(_MAX_MESSAGE_BYTES):
                copy = medium.write(codec.limits.model_validate_json(wanted), into)
                into.flush()
                _say(connection, answer=copy.model_dump(mode="json"))
    except MediumRefused as refused:
        _say(connection, fault=refused.fault.model_dump())
    except MemoryError:
        _say(connection, fault=_takes_more(codec.noun, "memory").fault.model_dump())
    os._exit(0)


def _bound() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    cpu_seconds = int(sum(os.times()[:2])) + MAX_WORKING_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status")
    if status.exists():  # only on Linux, which is where Lambda runs
        (held,) = (line for line in status.read_text().splitlines() if line.startswith("VmData:"))
        most = int(held.split()[1]) * 1024 + MAX_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _asked(connection: Connection, start: int, size_bytes: int) -> bytes:
    _say(connection, read=(start, min(size_bytes, _MAX_MESSAGE_BYTES)))
    return connection.recv_bytes(_MAX_MESSAGE_BYTES)


def _say(connection: Connection, **message: object) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _takes_more(noun: str, what: str) -> MediumRefused:
    return MediumRefused(
        f"a {noun} that takes more {what}",
        rule=f"a {noun} that can be converted within the {what} of one function",
        cure=f"Export the {noun} from an app anew, smaller or in another format.",
    )


def _died(noun: str, exit_code: int | None) -> MediumRefused:
    if exit_code == -signal.SIGXCPU:
        return _takes_more(noun, "time")
    if exit_code == -signal.SIGKILL:
        return _takes_more(noun, "memory")
    return MediumRefused(f"a {noun} that is damaged", broken=True)
