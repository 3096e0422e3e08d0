"""Checks that a stream of bytes is a complete MP4 video, without keeping the video.

An MP4 is a row of boxes, each with its length and kind in front (ISO/IEC 14496-12). Only `ftyp`
(the kind of file) and `moov` (the tracks) are kept; `mdat` (pictures and sound) passes through.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from dropreel.model.errors import ResultRefused

# An hour at 60 frames a second needs about 5 MiB of `moov`. More would be an attack on our memory.
_MAX_KEPT_BYTES = {b"ftyp": 4096, b"moov": 16 * 1024**2}

_LONG_BOX = b"\0\0\0\1"
_TO_THE_END = 1 << 64
_NO_DURATION = (0, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)
_QUICKTIME = b"qt  "


@dataclass(frozen=True)
class VideoFacts:
    """The facts of the video, as the MP4 states them."""

    duration_seconds: float | None
    width: int
    height: int
    has_audio: bool


class Mp4Check:
    """Feed it a body in chunks of any size, then ask for the facts.

    Raises `ResultRefused` as soon as the bytes cannot become an MP4 any more.
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._kind = b""
        self._body_left = 0
        self._kept: dict[bytes, bytearray] = {}
        self._has_media = False

    @property
    def is_whole(self) -> bool:
        """Whether the bytes so far end at the end of a box.

        Never true after a box that reaches "to the end of the file": only a length from elsewhere
        can confirm that end.
        """
        return bool(self._kept) and not self._header and self._body_left == 0

    def feed(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = self._read_body(rest) if self._body_left else self._read_header(rest)

    def facts(self) -> VideoFacts:
        """The facts, after everything was fed. Raises `ResultRefused`."""
        if not self._kept:
            raise _refused("it ends in the middle" if self._header else "it is empty")
        if not (self.is_whole or self._body_left == _TO_THE_END):
            raise _refused("it ends in the middle")
        if not _brands(self._kept[b"ftyp"]) - {_QUICKTIME}:
            raise _refused("it is a QuickTime movie")
        if b"moov" not in self._kept:
            raise _refused("it does not describe its tracks")
        if not self._has_media:
            raise _refused("it holds neither pictures nor sound")
        try:
            return _facts(memoryview(self._kept[b"moov"]))
        except (struct.error, IndexError):
            raise _refused("its description of the tracks is damaged") from None

    def _read_header(self, rest: memoryview) -> memoryview:
        taken = self._header_bytes - len(self._header)
        self._header += rest[:taken]
        if len(self._header) == self._header_bytes:
            self._begin_box()
        return rest[taken:]

    @property
    def _header_bytes(self) -> int:
        return 16 if self._header.startswith(_LONG_BOX) else 8

    def _begin_box(self) -> None:
        self._kind, _, self._body_left = _parse_header(self._header)
        self._header.clear()
        if not self._kept and self._kind != b"ftyp":
            raise _refused("it begins like another kind of file")
        if self._kind in _MAX_KEPT_BYTES:
            self._kept.setdefault(self._kind, bytearray())
        self._has_media |= self._kind == b"mdat"

    def _read_body(self, rest: memoryview) -> memoryview:
        taken = min(self._body_left, len(rest))
        if self._kind in _MAX_KEPT_BYTES:
            kept = self._kept[self._kind]
            if len(kept) + taken > _MAX_KEPT_BYTES[self._kind]:
                raise _refused("its description of the tracks is too large")
            kept += rest[:taken]
        if self._body_left != _TO_THE_END:
            self._body_left -= taken
        return rest[taken:]


def _brands(ftyp: bytearray) -> set[bytes]:
    """The kinds of file that it can be read as. The second word is a version."""
    words = [bytes(ftyp[start : start + 4]) for start in range(0, len(ftyp), 4)]
    return {*words[:1], *words[2:]} - {b"\0\0\0\0"}


def _facts(moov: memoryview) -> VideoFacts:
    sample = next((found[8:] for found in _tables(moov, b"vide", b"stsd")), None)
    if sample is None:
        raise _refused("it has no video track")
    # VisualSampleEntry: 8 bytes of box, 8 of SampleEntry, 16 reserved, then the size in pixels.
    width, height = struct.unpack_from(">HH", sample, 32)
    duration_seconds = _duration_seconds(moov)
    if not (width and height) or duration_seconds == 0:
        raise _refused("it does not say how large or how long it is")
    return VideoFacts(duration_seconds, width, height, _has_audio(moov))


def _has_audio(moov: memoryview) -> bool:
    """Whether a sound track has samples; those of a fragmented MP4 are not counted in `moov`."""
    try:
        if next(_find(moov, b"mvex"), None) is not None:
            return next(_tables(moov, b"soun", b"stsd"), None) is not None
        sizes = (size for kind in (b"stsz", b"stz2") for size in _tables(moov, b"soun", kind))
        return any(any(size[8:12]) for size in sizes)  # the number of samples
    except ResultRefused:
        return False  # a damaged sound track is no reason to lose the pictures


def _tables(moov: memoryview, track_kind: bytes, kind: bytes) -> Iterator[memoryview]:
    """The tables of a kind in the tracks of a kind."""
    for track in _find(moov, b"trak"):
        for media in _find(track, b"mdia"):
            handlers = _find(media, b"hdlr")
            if any(bytes(handler[8:12]) == track_kind for handler in handlers):
                yield from _find(media, b"minf", b"stbl", kind)


def _duration_seconds(moov: memoryview) -> float | None:
    """Of the whole movie. 0: it is missing. None: a fragmented MP4 that was written as a stream.

    A fragmented MP4 has 0 in `mvhd` and may have the duration in `mehd`.
    """
    for header in _find(moov, b"mvhd"):
        layout, offset = (">IQ", 20) if header[0] == 1 else (">II", 12)
        timescale, ticks = struct.unpack_from(layout, header, offset)
        if ticks in _NO_DURATION:
            fragments = next(_find(moov, b"mvex"), None)
            if fragments is None:
                return 0.0
            ticks = next(map(_fragments_ticks, _find(fragments, b"mehd")), 0)
            if ticks in _NO_DURATION:
                return None
        return round(ticks / timescale, 3) if timescale else 0.0
    return 0.0


def _fragments_ticks(mehd: memoryview) -> int:
    (ticks,) = struct.unpack_from(">Q" if mehd[0] == 1 else ">I", mehd, 4)
    return int(ticks)


def _find(body: memoryview, kind: bytes, *path: bytes) -> Iterator[memoryview]:
    """The bodies of a box's inner boxes of a kind. A path goes further down."""
    for found, inner in _boxes(body):
        if found == kind and path:
            yield from _find(inner, *path)
        elif found == kind:
            yield inner


def _boxes(body: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    while len(body) >= 8:
        kind, header_bytes, body_bytes = _parse_header(body)
        inner = body[header_bytes:][:body_bytes]
        if len(inner) < body_bytes != _TO_THE_END:
            raise _refused("a box in it is larger than the one around it")
        yield kind, inner
        body = body[header_bytes + len(inner) :]


def _parse_header(header: bytearray | memoryview) -> tuple[bytes, int, int]:
    """A box's kind, the length of its header and that of its body, perhaps `_TO_THE_END`."""
    header_bytes = 8
    box_bytes, kind = struct.unpack_from(">I4s", header)
    if box_bytes == 0:
        return kind, header_bytes, _TO_THE_END
    if box_bytes == 1:
        header_bytes = 16
        (box_bytes,) = struct.unpack_from(">Q", header, 8)
    if box_bytes < header_bytes:
        raise _refused("a box in it has an impossible length")
    return kind, header_bytes, box_bytes - header_bytes


def _refused(why: str) -> ResultRefused:
    return ResultRefused(f"What the provider offers as the video is not a usable MP4: {why}.")
