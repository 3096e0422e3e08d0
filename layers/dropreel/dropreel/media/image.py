"""Pictures as people have them, made into what an offer takes: Pillow, LittleCMS, libheif.

A picture that needs nothing but to lose its metadata is not drawn anew. One that must be is decoded
once and goes part by part through all the rest, so that what is held is the decoded picture and its
copy, and both are known in bytes beforehand.
"""

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, BinaryIO, Final

from PIL import Image, ImageCms
from PIL._imagingcms import CmsProfile

from dropreel.media import kinds
from dropreel.media.decoders import DECODING_PIXEL_BYTES, Decoded, Opened, open_picture
from dropreel.media.fitting import (
    JPEG_AT_MOST_PIXELS,
    OTHER_AT_MOST_PIXELS,
    listed,
    megabytes,
    picture_needs,
    scaled,
)
from dropreel.media.making import Alarm, Copy, Damaged, OutOfTime, Unfit, Watched
from dropreel.media.pictures import Picture
from dropreel.media.strip import strip_picture
from dropreel.model.catalog import ImageFormat, ImageLimits

DECODING_BYTES: Final = 360_000_000
DRAWING_BYTES: Final = 340_000_000
"""What decoding a picture may take, and then the decoded picture and its copy together. With the
parts on their way from one to the other, and with the libraries, this is less than 512 MiB."""

COPY_AT_MOST_BYTES: Final = 50_000_000  # where the offer names no size

_QUALITIES: Final = (95, 90, 85, 80)
_FEWER_PIXELS: Final = 0.7  # when no quality is small enough
_FEWEST_PIXELS: Final = 2_000_000  # a copy has more, unless fewer are wanted
_PART_PIXELS: Final = 2_000_000  # of the source, at a time

_DRAWINGS: Final = (kinds.PNG, kinds.GIF, kinds.BMP)  # their copy loses nothing, while it is small
_OPTIONS: Final[dict[ImageFormat, dict[str, Any]]] = {
    ImageFormat.JPEG: {"subsampling": "4:4:4"},
    ImageFormat.PNG: {"compress_level": 3},  # a tenth larger than the smallest, in a third the time
    ImageFormat.WEBP: {},
}
_NAMES: Final = {ImageFormat.JPEG: "JPEG", ImageFormat.PNG: "PNG", ImageFormat.WEBP: "WebP"}

_ORIENTATION, _GPS = 0x0112, 0x8825
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TELLING_TAGS: Final = frozenset(
    # description, make, model, software, time, artist, XMP, copyright, IPTC, EXIF
    (0x10E, 0x10F, 0x110, 0x131, 0x132, 0x13B, 0x2BC, 0x8298, 0x83BB, 0x8769)
)
_TELLING: Final = ("xmp", "XML:com.adobe.xmp", "photoshop", "comment", "Comment", "Software")


def fit_picture(
    file: Watched, picture: Picture, limits: ImageLimits, *, into: BinaryIO, alarm: Alarm
) -> Copy:
    """`conform.FitPicture`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, which is dropped anyway
        try:
            if stripped := _stripped(file, picture, limits, into, alarm):
                return stripped
            # Before it is opened, for then Pillow makes room for all pixels of a WebP.
            if _too_many(_size(picture), picture):
                raise _too_many_pixels(_size(picture), picture)
            drawing = _draw(open_picture(file, picture), picture, limits, alarm)
            return _written(drawing, picture, limits, into, alarm)
        except (Unfit, OutOfTime, MemoryError):
            raise
        except Exception as error:
            damage = "breaks off before its end" if "runcated" in str(error) else "is damaged"
            raise Damaged(f"{picture.kind.words} that {damage}") from None


# Without drawing it anew


def _stripped(
    file: Watched, picture: Picture, limits: ImageLimits, into: BinaryIO, alarm: Alarm
) -> Copy | None:
    """The picture as it is but without metadata; None when it needs more than that."""
    more = picture_needs(replace(picture, metadata=(), size_bytes=0), limits)
    if any(more) or picture.format is None or picture.size_bytes > 2 * COPY_AT_MOST_BYTES:
        return None
    file.seek(0)
    try:
        content = strip_picture(file.read(), picture.format)
    except ValueError:
        return None
    if len(content) > _bytes_at_most(limits):
        return None
    into.write(content)
    if not _too_many(_size(picture), picture):
        opened = open_picture(Watched(into, alarm), picture)
        smallest = opened.shrinks[-1]
        if _decoding_bytes(opened, smallest) <= DECODING_BYTES:
            opened.decode(smallest)  # only to see that it can be
    removed = listed(picture.metadata or ("what is not the picture",), "and")
    return Copy(picture.format, (f"Removed from the picture: {removed}.",))


# Drawing it anew


@dataclass
class _Drawing:
    """A picture drawn anew in sRGB, eight bits for a colour, with nothing else in it."""

    image: Image.Image
    original_size: tuple[int, int]
    orientation: int
    changes: tuple[str, ...]  # in words that complete "The picture was"
    metadata: str

    def turn_upright(self) -> None:
        if self.orientation in _TURNS:
            self.image = self.image.transpose(_TURNS[self.orientation])
            self.changes = ("turned upright", *self.changes)
        if self.orientation >= 5:
            self.original_size = self.original_size[::-1]


def _draw(opened: Opened, picture: Picture, limits: ImageLimits, alarm: Alarm) -> _Drawing:
    shrink = _shrink(opened, scaled(*opened.size, limits))
    if not shrink or _too_many(opened.size, picture):
        raise _too_many_pixels(opened.size, picture)
    decoded = opened.decode(shrink)
    size = _within(scaled(*decoded.size, limits), _room_pixels(opened, shrink))
    to_srgb, colours = _colours(opened, decoded)
    mode = "RGBA" if opened.transparent and limits.png_alpha else "RGB"
    image = Image.new(mode, size)
    see_through = False
    for part, top in _parts(decoded, size, alarm):
        coloured = to_srgb(part)
        if coloured.mode == "RGBA":
            see_through = see_through or coloured.getchannel("A").getextrema() != (255, 255)
            if mode == "RGB":
                paper = Image.new("RGBA", coloured.size, "white")
                coloured = Image.alpha_composite(paper, coloured)
        image.paste(coloured if coloured.mode == mode else coloured.convert(mode), (0, top))
    changes = (
        "reduced to its first frame" if opened.animated else "",
        "reduced to 8 bits for each colour" if opened.deep else "",
        colours,
        "laid on white where it was transparent" if see_through and mode == "RGB" else "",
    )
    if mode == "RGBA" and not see_through:
        image = image.convert("RGB")
    return _Drawing(
        image=image,
        original_size=opened.size,
        orientation=_orientation(decoded.exif),
        changes=tuple(filter(None, changes)),
        metadata=_metadata(decoded),
    )


def _size(picture: Picture) -> tuple[int, int]:
    """As far as the header told; nothing where only decoding can tell."""
    return picture.width or 0, picture.height or 0


def _too_many(size: tuple[int, int], picture: Picture) -> bool:
    most = JPEG_AT_MOST_PIXELS if picture.kind is kinds.JPEG else OTHER_AT_MOST_PIXELS
    return math.prod(size) > min(most, DECODING_BYTES / DECODING_PIXEL_BYTES.get(picture.kind, 1))


def _too_many_pixels(size: tuple[int, int], picture: Picture) -> Unfit:
    return Unfit(
        rule="a picture that can be decoded in the memory that there is",
        found=f"{picture.kind.words} of {size[0]} x {size[1]} pixels",
        cure="Scale the picture down to 6000 pixels or fewer each way and export it as a JPEG.",
    )


def _shrink(opened: Opened, wanted: tuple[int, int]) -> int:
    """How far to shrink a picture while it is decoded: so that of the wanted pixels the most find
    room; and of such ways the quickest that leaves enough pixels to scale down with care.

    0 when no way of decoding it finds room.
    """

    def worth(shrink: int) -> tuple[float, bool, int]:
        decoded = math.prod(opened.size) / shrink**2
        copy = min(math.prod(wanted), decoded, _room_pixels(opened, shrink))
        careful = decoded >= 4 * copy
        return copy, careful, shrink if careful else -shrink

    possible = [n for n in opened.shrinks if _decoding_bytes(opened, n) <= DECODING_BYTES]
    best = max(possible, key=worth, default=0)
    return best if best and worth(best)[0] >= min(math.prod(wanted), _FEWEST_PIXELS) else 0


def _decoding_bytes(opened: Opened, shrink: int) -> float:
    pixels = math.prod(opened.size) / shrink**2
    return opened.fixed_bytes + pixels * opened.decoding_pixel_bytes


def _room_pixels(opened: Opened, shrink: int) -> float:
    """How many pixels of a copy find room: beside the decoded picture, and, to turn them upright,
    twice without it."""
    held_bytes = math.prod(opened.size) / shrink**2 * opened.held_pixel_bytes
    return min((DRAWING_BYTES - held_bytes) / 4, DRAWING_BYTES / 8)


def _within(size: tuple[int, int], pixels: float) -> tuple[int, int]:
    """The size in the same proportions, with no more pixels than these."""
    scale = min(1.0, math.sqrt(pixels / math.prod(size)))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _parts(
    decoded: Decoded, size: tuple[int, int], alarm: Alarm
) -> Iterator[tuple[Image.Image, int]]:
    """The copy from top to bottom, scaled just as if it were scaled in one piece."""
    (width, height), (source_width, source_height) = size, decoded.size
    scale = source_height / height
    step = max(1, int(_PART_PIXELS / source_width / scale))
    margin = math.ceil(3 * scale) + 1  # LANCZOS looks three pixels around
    for top in range(0, height, step):
        alarm()
        bottom = min(top + step, height)
        above = max(0, math.floor(top * scale) - margin)
        below = min(source_height, math.ceil(bottom * scale) + margin)
        part = _plain(decoded.rows(above, below))
        # Across and then down: left to itself, Pillow's order depends on the height of the part.
        part = part.resize((width, part.height), Image.Resampling.LANCZOS)
        box = (0, top * scale - above, width, min(bottom * scale, source_height) - above)
        yield part.resize((width, bottom - top), Image.Resampling.LANCZOS, box), top


def _plain(image: Image.Image) -> Image.Image:
    """In a mode that can be scaled: eight bits for a colour, no palette."""
    if image.mode.startswith("I;16"):
        big = image.mode.endswith("B")
        high = image.tobytes("raw", "I;16B" if big else "I;16")[0 if big else 1 :: 2]
        return Image.frombytes("L", image.size, high)
    if image.mode in ("I", "F"):
        raise Unfit(
            rule="a picture of 8 or 16 bits for each colour",
            found="a picture of 32 bits for each colour, as for science",
            cure="Export the picture as a JPEG or a PNG.",
        )
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK", "LAB") else image.convert("RGB")


def _orientation(exif: Image.Exif) -> int:
    orientation = exif.get(_ORIENTATION)  # EXIF is written by everyone, and not always well
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _metadata(decoded: Decoded) -> str:
    """In words, what the picture told beside its pixels."""
    with suppress(Exception):
        if decoded.exif.get_ifd(_GPS):
            return "Location and other metadata were removed."
    told = any(decoded.info.get(name) for name in _TELLING)
    return "Metadata was removed." if told or _TELLING_TAGS & decoded.exif.keys() else ""


# Colours

_SRGB: Final = ImageCms.createProfile("sRGB")
_LAB: Final = ImageCms.createProfile("LAB")
_SPACES: Final = {"RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK", "LAB": "Lab "}


def _colours(opened: Opened, decoded: Decoded) -> tuple[Callable[[Image.Image], Image.Image], str]:
    """How the colours become sRGB, and in words what that changes."""
    profile = _profile(decoded.info.get("icc_profile")) or (_LAB if opened.mode == "LAB" else None)
    transforms: dict[str, ImageCms.ImageCmsTransform] = {}

    def to_srgb(image: Image.Image) -> Image.Image:
        mode = image.mode
        to = "RGBA" if mode == "RGBA" else "RGB"
        if not profile or _SPACES.get(mode) != profile.xcolor_space:
            return image if mode == to else image.convert(to)
        if mode not in transforms:
            transforms[mode] = ImageCms.buildTransform(profile, _SRGB, mode, to)
        return transforms[mode].apply(image)

    if opened.mode == "CMYK":
        return to_srgb, "brought from CMYK to RGB colours"
    return to_srgb, "brought to sRGB colours" if profile else ""


def _profile(content: bytes | None) -> CmsProfile | None:
    """The profile of the colours, unless that is sRGB or of no use."""
    with suppress(Exception):
        profile = ImageCms.ImageCmsProfile(BytesIO(content or b"")).profile
        if "sRGB" not in (profile.profile_description or ""):
            return profile if profile.xcolor_space in _SPACES.values() else None
    return None


# Writing it


class _TooLarge(Exception):
    """The copy has more bytes than the offer takes."""


class _Sink:
    """A file that grows no larger than the offer takes, nor longer than time allows."""

    def __init__(self, into: BinaryIO, at_most_bytes: int, alarm: Alarm) -> None:
        self._into = into
        self._at_most_bytes = at_most_bytes
        self._alarm = alarm
        into.seek(0)
        into.truncate()

    def write(self, block: bytes) -> int:
        self._alarm()
        if self._into.tell() + len(block) > self._at_most_bytes:
            raise _TooLarge
        return self._into.write(block)

    def flush(self) -> None:
        self._into.flush()


def _written(
    drawing: _Drawing, picture: Picture, limits: ImageLimits, into: BinaryIO, alarm: Alarm
) -> Copy:
    """The drawing in the best quality that is small enough; in fewer pixels when none is."""
    at_most_bytes = _bytes_at_most(limits)
    drawing.turn_upright()
    image = drawing.image
    while True:
        for taken, quality in _recipes(image, picture, limits):
            sink: Any = _Sink(into, at_most_bytes, alarm)
            with suppress(_TooLarge):
                image.save(sink, taken.value, **_OPTIONS[taken], quality=quality)
                return Copy(taken, _told(drawing, picture, image.size, taken, quality))
        size = _within(image.size, math.prod(image.size) * _FEWER_PIXELS)
        if min(size) <= (limits.side_over_pixels or 0):
            raise Unfit(
                rule=f"at most {megabytes(at_most_bytes)}",
                found=f"a picture that has more even at {image.width} x {image.height} pixels",
                cure="Export the picture as a JPEG.",
            )
        image = image.resize(size, Image.Resampling.LANCZOS)


def _recipes(
    image: Image.Image, picture: Picture, limits: ImageLimits
) -> Iterator[tuple[ImageFormat, int]]:
    """The formats to try, with their quality, the best first."""
    see_through = image.mode == "RGBA"
    if ImageFormat.PNG in limits.formats and (see_through or picture.kind in _DRAWINGS):
        yield ImageFormat.PNG, _QUALITIES[0]
    lossy = ImageFormat.WEBP if see_through else ImageFormat.JPEG
    if lossy in limits.formats:
        yield from ((lossy, quality) for quality in _QUALITIES)


def _told(
    drawing: _Drawing,
    picture: Picture,
    size: tuple[int, int],
    taken: ImageFormat,
    quality: int,
) -> tuple[str, ...]:
    """What was changed, in sentences."""
    changes = list(drawing.changes)
    if taken is not picture.format:
        changes.insert(0, f"converted from {picture.kind.name} to {_NAMES[taken]}")
    if size != drawing.original_size:
        before, after = ("{} x {}".format(*one) for one in (drawing.original_size, size))
        changes.append(f"scaled down from {before} to {after} pixels")
    if quality != _QUALITIES[0]:
        changes.append("compressed further, to have few enough bytes")
    sentence = f"The picture was {listed(changes or ['compressed anew'], 'and')}."
    return tuple(filter(None, (sentence, drawing.metadata)))


def _bytes_at_most(limits: ImageLimits) -> int:
    under = limits.size_under_bytes
    return min(limits.size_at_most_bytes or COPY_AT_MOST_BYTES, under - 1 if under else sys.maxsize)
