"""The bytes of an upload: a small one is fetched whole, a large one by ranges."""

import hashlib
import weakref
from collections.abc import Callable
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, RawIOBase
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER_BYTES: Final = 64 * 1024
_MAX_WHOLE_BYTES: Final = 64_000_000  # larger: most likely a video, whose sound is a small part
_MAX_RANGES: Final = 500  # after so many, the rest is faster in one request


class RangedFile(RawIOBase):
    """A read-only file over something that hands out ranges of its bytes."""

    def __init__(self, fetch: Callable[[int, int], bytes], size_bytes: int) -> None:
        """`fetch` gets the first byte's offset and the number of bytes, at least one."""
        super().__init__()
        self._fetch = fetch
        self._size_bytes = size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self._size_bytes}[whence]
        if start + offset < 0:
            raise ValueError("an offset before the beginning")
        self._position = start + offset
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
    """A file that fetches 64 KiB at a time, or as much as one read asks for."""
    return BufferedReader(RangedFile(fetch, size_bytes), _BUFFER_BYTES)


class Source:
    """One upload, and the SHA-256 of what was read of it."""

    def __init__(
        self,
        fetch: Callable[[int, int], bytes],
        fetch_all: Callable[[BinaryIO], None],
        size_bytes: int,
    ) -> None:
        self.size_bytes = size_bytes
        self._fetch = fetch
        self._fetch_all = fetch_all
        self._whole: BinaryIO | None = None
        self._ranges: dict[int, bytes] = {}  # the digest of each, by its offset

    def read(self, start: int, size_bytes: int) -> bytes:
        fetch_whole = self.size_bytes <= _MAX_WHOLE_BYTES or len(self._ranges) >= _MAX_RANGES
        if self._whole is None and fetch_whole:
            self._whole = TemporaryFile()  # noqa: SIM115 - it lives as long as the source
            weakref.finalize(self, self._whole.close)
            self._fetch_all(self._whole)
        if self._whole:
            self._whole.seek(start)
            return self._whole.read(size_bytes)
        block = self._fetch(start, size_bytes)
        self._ranges[start] = hashlib.sha256(block).digest()
        return block

    @property
    def sha256(self) -> str:
        """In hex. If the file was not read whole, it covers the ranges that were."""
        if self._whole:
            self._whole.seek(0)
            return hashlib.file_digest(self._whole, "sha256").hexdigest()  # type: ignore[arg-type]
        in_order = b"".join(self._ranges[start] for start in sorted(self._ranges))
        return hashlib.sha256(in_order).hexdigest()
