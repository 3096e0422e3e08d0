"""Metadata taken out of a file, and not one pixel or sample touched.

By a list of what stays rather than of what goes: what nobody has heard of may say where someone
lives. A file that cannot be taken apart raises `ValueError`; decoding it tells what is wrong.
"""

import re
import struct
from collections.abc import Callable, Iterator
from io import SEEK_END, BytesIO
from typing import BinaryIO, Final

from mutagen import MutagenError
from mutagen.mp3 import MPEGInfo

from dropreel.model.catalog import AudioFormat, ImageFormat


def strip_picture(content: bytes, image_format: ImageFormat) -> bytes:
    """The picture without its metadata. Raises `ValueError` when that takes decoding."""
    pieces = _PICTURES.get(image_format)
    if not pieces:
        raise ValueError(f"no metadata is known of in {image_format}")
    try:
        return b"".join(pieces(content))
    except (struct.error, IndexError):
        raise ValueError("the picture breaks off") from None


def strip_recording(file: BinaryIO, audio_format: AudioFormat, into: BinaryIO) -> None:
    """Write the recording without its metadata. Raises `ValueError` when that takes decoding."""
    try:
        _RECORDINGS[audio_format](file, into)
    except (struct.error, IndexError, KeyError, MutagenError):
        raise ValueError("the recording breaks off") from None


# JPEG: ITU-T T.81, annex B

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS, _COM = 0xDA, 0xFE
_NEXT_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # where a scan's data end
_JFIF = b"\xff\xe0\0\x10JFIF\0"
_COLOUR: Final = re.compile(rb"\xff\xe2..ICC_PROFILE\0|\xff\xee..Adobe", re.DOTALL)


def jpeg_segments(content: bytes) -> Iterator[bytes]:
    """The segments between start and end, each from its marker on; a scan's data are part of it."""
    if not content.startswith(_SOI):
        raise ValueError("no JPEG")
    position = 2
    while True:
        while content[position : position + 2] == b"\xff\xff":
            position += 1
        if content[position : position + 2] == _EOI:
            return  # what follows is of the phone's making: a depth map, a video, a second picture
        mark, marker, length = struct.unpack_from(">BBH", content, position)
        if mark != 0xFF or length < 2:
            raise ValueError("no marker where one should be")
        end = position + 2 + length
        if marker == _SOS:
            found = _NEXT_MARKER.search(content, end)
            end = found.start() if found else len(content) + 1
        if end > len(content):
            raise ValueError("the picture breaks off")
        yield content[position:end]
        position = end


def _jpeg(content: bytes) -> Iterator[bytes]:
    yield _SOI
    for segment in jpeg_segments(content):
        application = 0xE0 <= segment[1] <= 0xEF or segment[1] == _COM
        if segment.startswith(b"\xff\xe0") and segment[4:9] == b"JFIF\0":
            yield _JFIF + segment[9:16] + b"\0\0"  # without its thumbnail
        elif not application or _COLOUR.match(segment):
            yield segment
    yield _EOI


# PNG: https://www.w3.org/TR/png-3/

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT: Final = frozenset(b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP pHYs".split())


def _png(content: bytes) -> Iterator[bytes]:
    if not content.startswith(_PNG_SIGNATURE):
        raise ValueError("no PNG")
    yield _PNG_SIGNATURE
    position, name = len(_PNG_SIGNATURE), b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if end > len(content):
            raise ValueError("the picture breaks off")
        if name in _PNG_KEPT:
            yield content[position:end]
        position = end


# WebP: https://developers.google.com/speed/webp/docs/riff_container

_WEBP_KEPT: Final = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"))
_VP8X_KEPT = 0x30  # the flags of what is kept: profile and alpha


def _webp(content: bytes) -> Iterator[bytes]:
    file = BytesIO(content)
    if not re.match(rb"RIFF....WEBP", file.read(12), re.DOTALL):
        raise ValueError("no WebP")
    kept = b""
    for name, size_bytes in _riff_chunks(file):
        if name == b"ANMF":
            raise ValueError("an animation")
        if name not in _WEBP_KEPT:
            continue
        body = file.read(size_bytes)
        if len(body) < size_bytes:
            raise ValueError("the picture breaks off")
        if name == b"VP8X":
            body = bytes([body[0] & _VP8X_KEPT]) + body[1:]
        kept += name + struct.pack("<I", size_bytes) + body + bytes(size_bytes % 2)
    yield b"RIFF" + struct.pack("<I", 4 + len(kept)) + b"WEBP" + kept


def _riff_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The name and the stated size of each chunk, with the file at the beginning of its body."""
    while len(head := file.read(8)) == 8:
        name, size_bytes = struct.unpack("<4sI", head)
        start = file.tell()
        yield name, size_bytes
        file.seek(start + size_bytes + size_bytes % 2)


# WAV

_UNSTATED_BYTES: Final = 0x7FFF_F000  # sizes from here on: the recorder never came back to fill in
_FORMAT_AT_MOST_BYTES: Final = 1024


def _wav(file: BinaryIO, into: BinaryIO) -> None:
    file.seek(0)
    if not re.match(rb"RIFF....WAVE", file.read(12), re.DOTALL):
        raise ValueError("no WAV")
    kept = b""
    for name, size_bytes in _riff_chunks(file):
        if name == b"data":
            break
        if name in (b"fmt ", b"fact"):
            body = file.read(min(size_bytes, _FORMAT_AT_MOST_BYTES))
            kept += name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    else:
        raise ValueError("no sound in it")
    start = file.tell()
    present_bytes = file.seek(0, SEEK_END) - start
    if size_bytes >= _UNSTATED_BYTES:
        size_bytes = present_bytes
    if not 0 < size_bytes <= present_bytes:
        raise ValueError("the recording breaks off")
    total_bytes = 4 + len(kept) + 8 + size_bytes + size_bytes % 2
    into.write(b"RIFF" + struct.pack("<I", total_bytes) + b"WAVE" + kept)
    into.write(b"data" + struct.pack("<I", size_bytes))
    _copy(file, start, size_bytes, into)
    into.write(bytes(size_bytes % 2))


# MP3: http://www.mp3-tech.org/programmer/frame_header.html

_MP3_AT_MOST_BYTES: Final = 100_000_000
_KBIT_MPEG1: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBIT_MPEG2: Final = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAME_STREAM = 0xFFFE_0C00  # sync, version, layer and sample rate never change within a stream
_TAGS_BEHIND = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")


def _mp3(file: BinaryIO, into: BinaryIO) -> None:
    file.seek(0)
    content = file.read(_MP3_AT_MOST_BYTES)
    for frame in _mp3_frames(content, MPEGInfo(BytesIO(content)).frame_offset):
        into.write(frame)


def _mp3_frames(content: bytes, position: int) -> Iterator[bytes]:
    (first,) = struct.unpack_from(">I", content, position)
    if first >> 17 & 3 != 1:
        raise ValueError("no layer 3")
    mpeg1 = first >> 19 & 3 == 3
    rate = (44100, 48000, 32000)[first >> 10 & 3] >> {3: 0, 2: 1, 0: 2}[first >> 19 & 3]
    bitrates, factor = (_KBIT_MPEG1, 144_000) if mpeg1 else (_KBIT_MPEG2, 72_000)
    while position + 4 <= len(content):
        (header,) = struct.unpack_from(">I", content, position)
        if content.startswith(b"ID3", position):  # files joined end to end
            a, b, c, d = content[position + 6 : position + 10]
            position += 10 + (a << 21 | b << 14 | c << 7 | d)
            continue
        index = header >> 12 & 15
        if (header ^ first) & _SAME_STREAM or not 1 <= index <= 14:
            break
        end = position + factor * bitrates[index - 1] // rate + (header >> 9 & 1)
        yield content[position:end]
        position = end
    rest = content[position:].strip(b"\0")
    if position > len(content) or (rest and not rest.startswith(_TAGS_BEHIND)):
        raise ValueError("something that is no sound")


_COPY_BYTES: Final = 1 << 20


def _copy(file: BinaryIO, start: int, size_bytes: int, into: BinaryIO) -> None:
    file.seek(start)
    while size_bytes and (block := file.read(min(size_bytes, _COPY_BYTES))):
        size_bytes -= into.write(block)


_PICTURES: Final[dict[ImageFormat, Callable[[bytes], Iterator[bytes]]]] = {
    ImageFormat.JPEG: _jpeg,
    ImageFormat.PNG: _png,
    ImageFormat.WEBP: _webp,
}
_RECORDINGS: Final[dict[AudioFormat, Callable[[BinaryIO, BinaryIO], None]]] = {
    AudioFormat.WAV: _wav,
    AudioFormat.MP3: _mp3,
}
