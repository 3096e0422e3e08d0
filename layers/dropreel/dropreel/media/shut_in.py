"""A process for each medium. A codec that crashes, hangs or takes all memory ends alone, and its
memory is free afterwards.

It asks for its file's bytes range by range, and answers in JSON, which is checked. It has no
provider's token, and its environment no keys of the role. But it is no sandbox: it has the network.
"""

import gc
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
"""CPU time for one medium: several times what the largest honest file takes."""

_MAX_MESSAGE_BYTES: Final = 1 << 20
_STORING_SECONDS: Final = 15.0  # kept free to store the copies before the function times out

F = TypeVar("F", bound=BaseModel)
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Codec(Generic[F]):
    """How a kind of medium is opened."""

    noun: str
    open: Callable[[BinaryIO], Any]  # has `facts` and `write`
    facts: type[F]
    limits: type[BaseModel]


class Opened(Generic[F]):
    """A medium that is open in its process."""

    def __init__(self, facts: F, write: Callable[[BaseModel], Copy]) -> None:
        self.facts = facts
        self.write = write
        """Writes a copy within the limits into the file. Raises `MediumRefused`."""


@contextmanager
def opened(
    codec: Codec[F], source: Source, into: BinaryIO, seconds_left: Callable[[], float]
) -> Iterator[Opened[F]]:
    """Opens a medium. Raises `MediumRefused`, and the errors of reading the source."""
    context = multiprocessing.get_context("fork")  # the codecs are imported already
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(codec, theirs, source.size_bytes, into))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # our functions have one thread
        process.start()
    theirs.close()

    def answer(wanted: type[M]) -> M:
        while True:
            if not ours.poll(max(seconds_left() - _STORING_SECONDS, 0)):
                raise _takes_more(codec.noun, "time")
            try:
                message = json.loads(ours.recv_bytes(_MAX_MESSAGE_BYTES))
                if "answer" in message:
                    return wanted.model_validate(message["answer"])
                fault = Fault.model_validate(message["fault"]) if "fault" in message else None
                start, size_bytes = (0, 0) if fault else map(int, message["read"])
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
        with suppress(OSError):  # it died: reading its answer reports that
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
    """In the process: opens the medium, then writes a copy for each limits it receives."""
    os.environ.clear()  # the keys of the function's role
    gc.freeze()  # never collect the parent's garbage: its threads are not in this process
    _limit_process()
    try:
        file = buffered(lambda start, size: _request(connection, start, size), size_bytes)
        medium = codec.open(file)
        _send(connection, answer=medium.facts.model_dump(mode="json"))
        with suppress(EOFError):
            while limits := connection.recv_bytes(_MAX_MESSAGE_BYTES):
                copy = medium.write(codec.limits.model_validate_json(limits), into)
                into.flush()
                _send(connection, answer=copy.model_dump(mode="json"))
    except MediumRefused as refused:
        _send(connection, fault=refused.fault.model_dump())
    except MemoryError:
        _send(connection, fault=_takes_more(codec.noun, "memory").fault.model_dump())
    os._exit(0)


def _limit_process() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    cpu_seconds = int(sum(os.times()[:2])) + MAX_WORKING_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, as in Lambda
        (held,) = (line for line in status.read_text().splitlines() if line.startswith("VmData:"))
        most = int(held.split()[1]) * 1024 + MAX_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _request(connection: Connection, start: int, size_bytes: int) -> bytes:
    _send(connection, read=(start, min(size_bytes, _MAX_MESSAGE_BYTES)))
    return connection.recv_bytes(_MAX_MESSAGE_BYTES)


def _send(connection: Connection, **message: object) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _takes_more(noun: str, what: str) -> MediumRefused:
    return MediumRefused(
        f"a {noun} that needs too much {what} to convert",
        rule=f"a {noun} that Dropreel can convert",
        cure=f"Export the {noun} again from an app, smaller or in another format.",
    )


def _died(noun: str, exit_code: int | None) -> MediumRefused:
    if exit_code == -signal.SIGXCPU:
        return _takes_more(noun, "time")
    if exit_code == -signal.SIGKILL:
        return _takes_more(noun, "memory")
    return MediumRefused(f"a {noun} that is damaged", broken=True)
