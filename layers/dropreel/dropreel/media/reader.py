"""Files that are read a piece at a time: of an upload of any size, only what is needed.

`RangedFile` turns fetches of ranges into an ordinary file; `Sparing` keeps a parser that trusts
what a hostile file says of itself from reading all of it, for ever, or into too much memory.
"""

from collections.abc import Callable
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, RawIOBase
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES: Final = 64 * 1024
"""What one fetch brings: most headers in one, and few bytes in vain."""

_MOST_BYTES: Final = 8 * 1024 * 1024
_MOST_READS: Final = 30_000


class RangedFile(RawIOBase):
    """A read-only file over something that hands out ranges of its bytes."""

    def __init__(self, fetch: Callable[[int, int], bytes], size_bytes: int) -> None:
        """`fetch` is called with the first byte's place and how many are wanted, at least one."""
        super().__init__()
        self._fetch = fetch
        self._size_bytes = size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._position = _place(offset, whence, self._position, self._size_bytes)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        wanted = min(len(view), self._size_bytes - self._position)
        if wanted <= 0:
            return 0
        fetched = self._fetch(self._position, wanted)
        view[: len(fetched)] = fetched
        self._position += len(fetched)
        return len(fetched)


def buffered(fetch: Callable[[int, int], bytes], size_bytes: int) -> BinaryIO:
    """A file that fetches `BUFFER_BYTES` at a time, or as many as one read asks for."""
    return BufferedReader(RangedFile(fetch, size_bytes), BUFFER_BYTES)


class TooMuch(Exception):
    """A parser asked for more than a header can need."""


class Sparing:
    """A view of a file for parsers: `TooMuch` for one that reads on and on.

    Parsers are called under a broad `except`, for they may raise anything on bytes made to confuse
    them. `fault` is what the file itself raised meanwhile: that is never the bytes' doing.
    """

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.fault: Exception | None = None
        self._file = file
        self._position = 0
        self._end_of_last = 0
        self._bytes_left = _MOST_BYTES
        self._reads_left = _MOST_READS

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._position = _place(offset, whence, self._position, self.size_bytes)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        left_bytes = max(0, self.size_bytes - self._position)
        wanted = left_bytes if size < 0 else min(size, left_bytes)
        if not wanted:
            return b""
        near = abs(self._position - self._end_of_last) < BUFFER_BYTES
        self._bytes_left -= wanted if near else wanted + BUFFER_BYTES
        self._reads_left -= 1
        if self._bytes_left < 0 or self._reads_left < 0:
            raise TooMuch
        content = self._fetched(self._position, wanted)
        self._position += len(content)
        self._end_of_last = self._position
        return content

    def at(self, position: int, size: int) -> bytes:
        """The bytes at a place; fewer where the file ends."""
        self.seek(position)
        return self.read(size)

    def whole(self) -> bytes:
        """All of it, for whoever has made sure that it is small enough."""
        return self._fetched(0, self.size_bytes)

    def _fetched(self, position: int, size: int) -> bytes:
        try:
            self._file.seek(position)
            return self._file.read(size)
        except Exception as error:
            self.fault = error
            raise


def _place(offset: int, whence: int, position: int, size_bytes: int) -> int:
    start = {SEEK_SET: 0, SEEK_CUR: position, SEEK_END: size_bytes}[whence]
    if start + offset < 0:
        raise ValueError("a place before the beginning")
    return start + offset
