"""Pictures opened but not decoded yet, and what decoding them will take: Pillow and pillow-heif."""

import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import SEEK_CUR
from typing import Any, BinaryIO, Final, cast

import pillow_heif
from PIL import Image, TiffImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from dropreel.media import kinds
from dropreel.media.making import Watched
from dropreel.media.pictures import Picture

Image.MAX_IMAGE_PIXELS = None  # Pillow's guard counts pixels, all alike; ours counts their bytes
pillow_heif.options.THUMBNAILS = False
pillow_heif.options.DEPTH_IMAGES = False
pillow_heif.options.AUX_IMAGES = False
pillow_heif.options.DECODE_THREADS = 2  # each takes memory

Rows = Callable[[int, int], Image.Image]
"""A decoded picture's rows, from one to before another."""

_FORMATS: Final = {
    kinds.JPEG: ("JPEG",),
    kinds.PNG: ("PNG",),
    kinds.BMP: ("BMP",),
    kinds.WEBP: ("WEBP",),
    kinds.GIF: ("GIF",),
    kinds.TIFF: ("TIFF",),
    kinds.AVIF: ("AVIF",),
}

# For each pixel while decoding, with planes, alpha and ten bits where they occur: more than what
# is held afterwards. Measured.
DECODING_PIXEL_BYTES: Final = {kinds.HEIC: 6.5, kinds.AVIF: 13, kinds.WEBP: 18}
_ORIENTATION: Final = 0x0112
_SCANS_AT_MOST: Final = 100  # each goes over the whole picture; a progressive JPEG has about ten
_ONE_BYTE_MODES: Final = ("1", "L", "P")


@dataclass(frozen=True)
class Decoded:
    """The pixels of a picture, and what else of it counts."""

    size: tuple[int, int]
    rows: Rows
    exif: Image.Exif
    info: Mapping[Any, Any]


@dataclass(frozen=True)
class Opened:
    """A picture whose header is read and whose pixels are not."""

    size: tuple[int, int]
    mode: str
    deep: bool  # more than 8 bits for a colour
    transparent: bool
    animated: bool
    decode: Callable[[int], Decoded]  # with its sides divided by one of `shrinks`
    shrinks: tuple[int, ...] = (1,)
    fixed_bytes: int = 0  # what decoding takes however far it shrinks
    decoding_pixel_bytes: float = 4  # while decoding
    held_pixel_bytes: int = 4  # after it


def open_picture(watched: Watched, picture: Picture) -> Opened:
    """Raises anything on bytes made to confuse, and what reading raises."""
    file = cast(BinaryIO, watched)
    file.seek(0)
    return _open_heif(file) if picture.kind is kinds.HEIC else _open_pillow(file, picture)


def _open_heif(file: BinaryIO) -> Opened:
    image = pillow_heif.open_heif(file, convert_hdr_to_8bit=True)
    exif = Image.Exif()
    with suppress(Exception):  # EXIF is written by everyone, and not always well
        exif.load(image.info.get("exif") or b"")
        exif.pop(_ORIENTATION, None)  # the container turns it, and the decoder obeys

    def decode(_: int) -> Decoded:
        data = memoryview(image.data)

        def rows(top: int, bottom: int) -> Image.Image:
            part = data[top * image.stride : bottom * image.stride]
            size = (image.size[0], bottom - top)
            return Image.frombytes(image.mode, size, part, "raw", image.mode, image.stride)

        return Decoded(image.size, rows, exif, image.info)

    return Opened(
        size=image.size,
        mode=image.mode,
        deep=image.info.get("bit_depth", 8) > 8,
        transparent=image.mode in ("RGBA", "RGBa", "LA"),
        animated=False,
        decode=decode,
        decoding_pixel_bytes=DECODING_PIXEL_BYTES[kinds.HEIC],
        held_pixel_bytes=len(image.mode),
    )


def _open_pillow(file: BinaryIO, picture: Picture) -> Opened:
    if picture.kind is kinds.JPEG and _scans(file) > _SCANS_AT_MOST:
        raise ValueError("scans without end")
    image = Image.open(file, formats=_FORMATS[picture.kind])
    held_pixel_bytes = 1 if image.mode in _ONE_BYTE_MODES else 4

    def decode(shrink: int) -> Decoded:
        if shrink > 1:
            image.draft(None, (image.width // shrink, image.height // shrink))
        image.load()
        exif = Image.Exif()
        with suppress(Exception):
            exif = image.getexif()
        return Decoded(image.size, rows, exif, image.info)

    def rows(top: int, bottom: int) -> Image.Image:
        return image.crop((0, top, image.width, bottom))

    return Opened(
        size=image.size,
        mode=image.mode,
        deep=image.mode.startswith(("I", "F")) or ";16" in repr(getattr(image, "tile", "")),
        transparent=image.has_transparency_data,
        animated=picture.kind is not kinds.JPEG and getattr(image, "is_animated", False),
        decode=decode,
        shrinks=(1, 2, 4, 8) if isinstance(image, JpegImageFile) else (1,),
        fixed_bytes=_fixed_bytes(image, file),
        decoding_pixel_bytes=DECODING_PIXEL_BYTES.get(picture.kind, held_pixel_bytes),
        held_pixel_bytes=held_pixel_bytes,
    )


def _fixed_bytes(image: Image.Image, file: BinaryIO) -> int:
    """What a decoder holds beside the pixels that it gives."""
    if isinstance(image, JpegImageFile):
        # The coefficients of the whole picture, unless one scan has them in the order of the rows.
        if "progressive" not in image.info and _scan_components(file) == image.layers:
            return 0
        of_all = [across * down for _, across, down, _ in image.layer]
        most = max(h for _, h, _, _ in image.layer) * max(v for _, _, v, _ in image.layer)
        return 2 * image.width * image.height * sum(of_all) // most
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        rows = min(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height), image.height)
        tile = tags.get(TiffImagePlugin.TILEWIDTH, 0) * tags.get(TiffImagePlugin.TILELENGTH, 0)
        bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        samples = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
        return int(max(rows * image.width, tile) * bits * samples) // 8
    return 0


def _scans(file: BinaryIO) -> int:
    scans, before = 0, b""
    while block := file.read(1 << 20):
        scans += (before + block).count(b"\xff\xda")
        before = block[-1:]
    file.seek(0)
    return scans


def _scan_components(file: BinaryIO) -> int:
    """How many components a JPEG's first scan has; 0 when that cannot be told."""
    position = file.tell()
    file.seek(2)
    components = 0
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        marker, length = struct.unpack(">xBH", head)
        if marker == 0xDA:
            components = ord(file.read(1))
            break
        file.seek(length - 2, SEEK_CUR)
    file.seek(position)
    return components
