"""A picture, told from its headers: never decoded, and little of it read.

A bomb is therefore only ever a pair of large numbers. Formats that an offer takes as they are
are judged exactly, down to whether the file breaks off; of the others, what is cheap to know.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, cast

import imagesize  # type: ignore[import-untyped]

from dropreel.media import kinds
from dropreel.media.iso_media import top_boxes
from dropreel.media.kinds import HEAD_BYTES, Kind, Medium, NotUsable, kind_of
from dropreel.media.reader import Sparing
from dropreel.model.catalog import ImageFormat
from dropreel.model.messages import ImageFacts

_TAIL_BYTES: Final = 128 * 1024
"""Where the end of a picture is looked for: some cameras append things of their own."""

_PADDING: Final = b"\0\r\n "
_MOST_EXIF_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Picture:
    """What is known of a picture without decoding it."""

    kind: Kind
    size_bytes: int
    width: int | None = None  # as stored, before any turn; None: only decoding can tell
    height: int | None = None
    turned: bool = False  # EXIF says that it lies on its side
    alpha: bool = False
    cmyk: bool = False
    deep: bool = False  # more than 8 bits for a colour
    animated: bool = False
    metadata: tuple[str, ...] = ()  # which, in words
    damage: str | None = None  # in words

    @property
    def format(self) -> ImageFormat | None:
        return self.kind.format if isinstance(self.kind.format, ImageFormat) else None

    @property
    def facts(self) -> ImageFacts | None:
        """As a plan tells them; None while only conform can tell."""
        if self.format is None or self.width is None or self.height is None:
            return None
        return ImageFacts(
            format=self.format, width=self.width, height=self.height, size_bytes=self.size_bytes
        )


def read_picture(file: BinaryIO, size_bytes: int) -> Picture:
    """What a picture is. Raises `NotUsable`, and whatever reading the file itself raises."""
    sparing = Sparing(file, size_bytes)
    kind = kind_of(sparing.at(0, HEAD_BYTES))
    if kind.medium is not Medium.PICTURE:
        raise NotUsable(kind.words, broken=kind is kinds.EMPTY)
    picture = Picture(kind, size_bytes)
    try:
        picture = _READERS.get(kind, _convertible)(sparing, picture)
    except Exception:
        if sparing.fault:
            raise sparing.fault from None
        raise _damaged(kind) from None
    if picture.width == 0 or picture.height == 0:
        raise _damaged(kind)
    return picture


def _damaged(kind: Kind) -> NotUsable:
    return NotUsable(f"{kind.words} that breaks off or is damaged", broken=True)


def _breaks_off(kind: Kind) -> str:
    return f"{kind.words} that breaks off before its end"


# Metadata, in the words that people know it by

_GPS = "the place where it was taken (GPS)"
_EXIF = "camera data (EXIF)"
_XMP = "editing data (XMP)"
_IPTC = "captions (IPTC)"
_TEXT = "comments"
_MORE = "data of an app"
_BEHIND = "what follows its end"


def _exif(content: bytes) -> tuple[bool, list[str]]:
    """Whether the picture lies on its side, and what EXIF tells, from its first directory.

    https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf
    """
    content = content.removeprefix(b"Exif\0\0")
    order = ">" if content.startswith(b"MM") else "<"
    turned, metadata = False, [_EXIF]
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (entries,) = struct.unpack_from(f"{order}H", content, start)
        for entry in range(entries):
            place = start + 2 + 12 * entry
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", content, place)
            if tag == 0x0112:
                turned = 2 <= value <= 8
            elif tag == 0x8825:
                metadata.insert(0, _GPS)
    except struct.error:
        pass  # odd, but metadata
    return turned, metadata


def _told(words: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


# JPEG: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B

_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE: Final = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a segment
_EXIF_SEGMENT, _XMP_SEGMENT = b"Exif\0", b"http://ns.adobe.com/"
# The colour profile and the kind of the colours are part of the picture.
_HARMLESS: Final = ((0xE0, b"JFIF\0"), (0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe"))
_APPENDING: Final = re.compile(rb"MPF\0|Motion|Micro|Container")


def _jpeg(file: Sparing, picture: Picture) -> Picture:
    turned = appends = False
    metadata: list[str] = []
    found: tuple[int, int, int, int] | None = None
    for marker, start, length in _segments(file):
        if marker in _FRAMES:
            found = struct.unpack(">BHHB", file.at(start, 6))
        elif marker == 0xDA:
            break
        elif marker == 0xFE:
            metadata.append(_TEXT)
        elif 0xE0 <= marker <= 0xEF:
            name = file.at(start, min(length, 20))
            if any(marker == code and name.startswith(word) for code, word in _HARMLESS):
                continue
            if marker == 0xE1 and name.startswith(_EXIF_SEGMENT):
                turned, told = _exif(file.at(start, length))
                metadata.extend(told)
            elif marker == 0xE1 and name.startswith(_XMP_SEGMENT):
                metadata.append(_XMP)
                appends = appends or bool(_APPENDING.search(file.at(start, length)))
            else:
                metadata.append(_IPTC if marker == 0xED else _MORE)
                appends = appends or name.startswith(b"MPF\0")
    if not found:
        raise ValueError("no frame before its scan")
    bits, height, width, colours = found
    tail = file.at(max(start, file.size_bytes - _TAIL_BYTES), _TAIL_BYTES)
    end = tail.rfind(b"\xff\xd9")
    damage = None
    if end >= 0 and tail[end + 2 :].strip(_PADDING):
        metadata.append(_BEHIND)
    if end < 0 and not appends and b"SEFT" not in tail[-64:]:  # else a whole video may follow it
        damage = _breaks_off(picture.kind)
    return replace(
        picture,
        width=width,
        height=height,
        turned=turned,
        cmyk=colours == 4,
        deep=bits > 8,
        metadata=_told(metadata),
        damage=damage,
    )


def _segments(file: Sparing) -> Iterator[tuple[int, int, int]]:
    """Each segment's marker, and where its body starts and how long it is, up to the scan."""
    position = 2
    while True:
        mark, marker = file.at(position, 2)
        if mark != 0xFF:
            raise ValueError("no marker where one should be")
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _BARE:
            position += 2
        else:
            (length,) = struct.unpack(">H", file.at(position + 2, 2))
            if length < 2 or marker == 0xD9:
                raise ValueError("no segment where one should be")
            yield marker, position + 4, length - 2
            position += 2 + length


# PNG: https://www.w3.org/TR/png-3/

_PICTURE_CHUNKS: Final = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB bKGD hIST pHYs sPLT cICP mDCV cLLI "
    b"acTL fcTL fdAT iDOT".split()
)
_PNG_METADATA: Final = {
    b"eXIf": _EXIF,
    b"iTXt": _TEXT,
    b"tEXt": _TEXT,
    b"zTXt": _TEXT,
    b"tIME": "the time of its last change",
}
_PNG_END: Final = b"IEND\xaeB`\x82"
_MOST_HOPS: Final = 16


def _png(file: Sparing, picture: Picture) -> Picture:
    names: set[bytes] = set()
    metadata: list[str] = []
    width = height = bits = colours = hops = 0
    turned = False
    position, name = 8, b""
    while name != b"IEND" and hops < _MOST_HOPS and position + 12 <= file.size_bytes:
        length, name = struct.unpack(">I4s", file.at(position, 8))
        if name == b"IHDR":
            width, height, bits, colours = struct.unpack(">IIBB", file.at(position + 8, 10))
        elif name == b"eXIf":
            turned, told = _exif(file.at(position + 8, min(length, _MOST_EXIF_BYTES)))
            metadata.extend(told)
        hops += name == b"IDAT"
        names.add(name)
        position += 12 + length
    if hops == _MOST_HOPS:
        # Thousands of chunks of pixels: what comes behind them is found from the end.
        names |= _png_tail(file)
    elif file.at(position, _TAIL_BYTES).strip(_PADDING):
        metadata.append(_BEHIND)
    if not width or b"IDAT" not in names:
        raise ValueError("no pixels")
    metadata.extend(_PNG_METADATA.get(name, _MORE) for name in sorted(names - _PICTURE_CHUNKS))
    whole = b"IEND" in names and position <= file.size_bytes
    return replace(
        picture,
        width=width,
        height=height,
        turned=turned,
        alpha=bool(colours & 4) or b"tRNS" in names,
        deep=bits > 8,
        animated=b"acTL" in names,
        metadata=_told(metadata),
        damage=None if whole else _breaks_off(picture.kind),
    )


def _png_tail(file: Sparing) -> set[bytes]:
    """The chunks at the end, as far as they are an unbroken chain; no `IEND` when there is none."""
    tail = file.at(max(0, file.size_bytes - _TAIL_BYTES), _TAIL_BYTES)
    end = tail.rfind(_PNG_END)
    if end < 0:
        return set()
    for pixels in re.finditer(rb"IDAT|fdAT", tail):
        position, names = pixels.start() - 4, {b"IEND"}
        while 0 <= position < end - 4:
            length, name = struct.unpack_from(">I4s", tail, position)
            names.add(name)
            position += 12 + length
        if position == end - 4:
            return names if not tail[end + 8 :].strip(_PADDING) else {*names, b"more"}
    return {b"IEND", b"more"}  # cannot be told cheaply: what is not seen may be anything


# BMP: https://learn.microsoft.com/windows/win32/gdi/bitmap-storage


def _bmp(file: Sparing, picture: Picture) -> Picture:
    start, header_bytes = struct.unpack("<10xII", file.at(0, 18))
    if header_bytes == 12:
        width, height, _, bits = struct.unpack("<HHHH", file.at(18, 8))
        compression = image_bytes = 0
    else:
        width, height, _, bits, compression, image_bytes = struct.unpack("<iiHHII", file.at(18, 20))
    height = abs(height)  # a negative one: from top to bottom
    if width < 0:
        raise ValueError("a negative width")
    if compression in (0, 3, 6):
        image_bytes = (width * bits + 31) // 32 * 4 * height
    broken = start + image_bytes > file.size_bytes
    return replace(
        picture, width=width, height=height, damage=_breaks_off(picture.kind) if broken else None
    )


# WebP: https://developers.google.com/speed/webp/docs/riff_container


def _webp(file: Sparing, picture: Picture) -> Picture:
    (riff_bytes,) = struct.unpack("<I", file.at(4, 4))
    end = min(8 + riff_bytes, file.size_bytes)
    width = height = 0
    turned = alpha = animated = False
    metadata: list[str] = []
    position = 12
    while position + 8 <= end:
        name, length = struct.unpack("<4sI", file.at(position, 8))
        body = position + 8
        if name == b"VP8X":
            flags, width, high_width, height, high_height = struct.unpack(
                "<B3xHBHB", file.at(body, 10)
            )
            width, height = (high_width << 16 | width) + 1, (high_height << 16 | height) + 1
            alpha, animated = bool(flags & 0x10), bool(flags & 0x02)
            metadata += [_XMP] * bool(flags & 0x04) + [_EXIF] * bool(flags & 0x08)
        elif name == b"VP8L" and not width:
            (bits,) = struct.unpack("<xI", file.at(body, 5))
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
            alpha = bool(bits >> 28 & 1)
        elif name == b"VP8 " and not width:
            width, height = struct.unpack("<6xHH", file.at(body, 10))
            width, height = width & 0x3FFF, height & 0x3FFF
        elif name == b"EXIF":
            turned, told = _exif(file.at(body, min(length, _MOST_EXIF_BYTES)))
            metadata.extend(told)
        elif name in (b"ANIM", b"ANMF"):
            animated = True
            break  # the rest is frames; what else there is, the flags have told
        elif name not in (b"ALPH", b"ICCP", b"VP8 ", b"VP8L"):
            metadata.append(_XMP if name == b"XMP " else _MORE)
        position = body + length + length % 2
    if file.at(8 + riff_bytes, _TAIL_BYTES).strip(b"\0"):
        metadata.append(_BEHIND)
    return replace(
        picture,
        width=width,
        height=height,
        turned=turned,
        alpha=alpha,
        animated=animated,
        metadata=_told(metadata),
        damage=_breaks_off(picture.kind) if 8 + riff_bytes > file.size_bytes else None,
    )


# Formats that conform decodes


def _convertible(file: Sparing, picture: Picture) -> Picture:
    iso = picture.kind in kinds.ISO_PICTURES
    if iso and any(end > file.size_bytes for _, end in top_boxes(file)):
        return replace(picture, damage=_breaks_off(picture.kind))
    try:
        info = imagesize.get_info(cast(BinaryIO, file), exif_rotation=False)
    except Exception:
        if file.fault:
            raise
        return picture  # a rare variant, or broken: decoding will tell
    if info.width < 1 or info.height < 1:
        return picture
    return replace(picture, width=info.width, height=info.height, turned=info.rotation > 1)


_READERS: Final[dict[Kind, Callable[[Sparing, Picture], Picture]]] = {
    kinds.JPEG: _jpeg,
    kinds.PNG: _png,
    kinds.BMP: _bmp,
    kinds.WEBP: _webp,
}
