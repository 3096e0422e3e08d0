"""Decodes pictures completely and writes copies, with Pillow, LittleCMS and libheif.

A copy is upright, in sRGB, opaque, with 8 bits for each colour and without metadata.
"""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from io import SEEK_SET, BytesIO
from typing import Any, BinaryIO, Final

import av
import pillow_heif
from av.error import InvalidDataError
from PIL import Image, ImageCms, ImageOps

from dropreel.media import kinds
from dropreel.media.fitting import listed, megabytes, scaled
from dropreel.media.kinds import HEAD_BYTES, Medium, kind_of
from dropreel.media.opened import Copy, MediumRefused, PictureFacts
from dropreel.model.catalog import ImageFormat, ImageLimits

Image.MAX_IMAGE_PIXELS = None  # we bound the bytes that decoding takes
warnings.simplefilter("ignore", category=UserWarning)  # about metadata, which is dropped anyway
pillow_heif.options.THUMBNAILS = False
pillow_heif.options.DEPTH_IMAGES = False
pillow_heif.options.AUX_IMAGES = False
pillow_heif.options.DECODE_THREADS = 2  # each takes memory
pillow_heif.register_heif_opener()

MAX_DECODED_BYTES: Final = 800_000_000
MAX_JPEG_PIXELS: Final = 220_000_000  # phones make 200 megapixels; decoding halves them
MAX_PIXELS: Final = 100_000_000
MAX_COPY_BYTES: Final = 50_000_000  # where the offer names no size

_PIXEL_BYTES: Final = {kinds.GIF: 1, kinds.HEIC: 8, kinds.AVIF: 9.2, kinds.WEBP: 16}  # measured
_DRAFT_PIXELS: Final = 50_000_000
_MAX_SCANS: Final = 100  # each covers the whole picture; a progressive JPEG has about ten
# With its length and number of colours: a shorter pattern would match by chance in a motion photo.
_SCAN: Final = re.compile(rb"\xff\xda\0[\x06\x08\x0a\x0c\x0e][\0-\x04]")

_FORMATS: Final = {
    kinds.JPEG: ("JPEG",),
    kinds.PNG: ("PNG",),
    kinds.BMP: ("BMP",),
    kinds.WEBP: ("WEBP",),
    kinds.GIF: ("GIF",),
    kinds.TIFF: ("TIFF",),
    kinds.AVIF: ("AVIF",),
    kinds.HEIC: ("HEIF",),
}
_DRAWINGS: Final = (kinds.PNG, kinds.GIF, kinds.BMP)  # copied without loss, if small enough
_QUALITIES: Final = (95, 90, 85, 80)
_FEWER_PIXELS: Final = 0.7  # the share that is kept when no quality is small enough

# Of TIFF: https://helpx.adobe.com/camera-raw/digital-negative.html and TIFF/EP
_DNG_VERSION, _CFA_PATTERN, _SUBFILE, _SUB_IFDS = 50706, 33422, 254, 330
# The colours of a picture without a profile: primaries and transfer, by ITU-T H.273.
_NUMBERED_COLOURS: Final = re.compile(rb"colrnclx\0(.)\0(.)|cICP(.)(.)", re.DOTALL)
_HDR: Final = {16: "PQ", 18: "HLG"}
_ARITHMETIC: Final = re.compile(rb"\xff[\xc9-\xcb\xcd-\xcf]\0[\x0b-\x17]\x08")
_ORIENTATION, _GPS = 0x0112, 0x8825
_METADATA_TAGS: Final = frozenset(
    # description, make, model, software, time, artist, XMP, copyright, IPTC, EXIF
    (0x10E, 0x10F, 0x110, 0x131, 0x132, 0x13B, 0x2BC, 0x8298, 0x83BB, 0x8769)
)
_METADATA: Final = ("xmp", "XML:com.adobe.xmp", "photoshop", "comment", "Comment", "Software")


class Picture:
    """A picture that was decoded completely."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises `MediumRefused` for every file that cannot be used."""
        head = file.read(HEAD_BYTES)
        self._kind = kind_of(head)
        if self._kind.medium is not Medium.PICTURE:
            raise MediumRefused(self._kind.words, broken=self._kind is kinds.EMPTY)
        self._file = file
        try:
            self._decode()
        except (MediumRefused, MemoryError):
            raise
        except Exception as error:
            raise self._damaged(str(error)) from None

    @property
    def facts(self) -> PictureFacts:
        width, height = self._size
        return PictureFacts(width=width, height=height)

    def write(self, limits: ImageLimits, into: BinaryIO) -> Copy:
        """Write the best copy within the limits into an empty file. Raises `MediumRefused`."""
        size = scaled(*self._upright(self._image.size), limits)
        metadata = self._metadata
        if self._write_same_pixels(size, limits, into):
            changed = tuple(filter(None, [metadata]))
            return Copy(format=ImageFormat.JPEG, changes=changed, width=size[0], height=size[1])
        image, changes = self._canonical(size)
        return self._written(image, changes, limits, into)

    # Decoding

    def _decode(self) -> None:
        self._file.seek(SEEK_SET)
        self._image = image = Image.open(self._file, formats=_FORMATS[self._kind])
        image.format = self._kind.name  # Pillow calls a JPEG with a second one in the file MPO
        self._original_size = image.size
        _refuse_raw(image)
        self._refuse_hdr()
        if self._kind is kinds.JPEG:
            self._check_scans()
            self._shrink_while_decoding(image)
        pixels = math.prod(image.size)
        most_pixels = min(MAX_PIXELS, MAX_DECODED_BYTES / _PIXEL_BYTES.get(self._kind, 4))
        if pixels > most_pixels:
            raise _too_many_pixels(image.size, most_pixels)
        self._deep = image.mode.startswith("I") or ";16" in repr(getattr(image, "tile", ""))
        self._deep |= image.info.get("bit_depth", 8) > 8
        self._animated = self._kind is not kinds.JPEG and getattr(image, "n_frames", 1) > 1
        image.load()
        if self._kind is kinds.JPEG:
            self._check_intact()
        if image.mode in ("I", "F"):
            raise MediumRefused(
                "a picture of 32 bits for each colour, as for science",
                rule="a picture of 8 or 16 bits for each colour",
                cure="Export the picture as a JPEG or a PNG.",
            )

    def _shrink_while_decoding(self, image: Image.Image) -> None:
        width, height = image.size
        if width * height > MAX_JPEG_PIXELS:
            raise _too_many_pixels(image.size, MAX_JPEG_PIXELS)
        parts = next(n for n in (1, 2, 4, 8) if width * height / n**2 <= _DRAFT_PIXELS)
        if parts > 1:
            image.draft(None, (width // parts, height // parts))

    def _check_scans(self) -> None:
        self._file.seek(SEEK_SET)
        scans, before = 0, b""
        while block := self._file.read(1 << 20):
            scans += len(_SCAN.findall(before + block))
            before = block[-4:]
        if scans > _MAX_SCANS:
            raise ValueError("scans without end")

    def _check_intact(self) -> None:
        """libjpeg fills missing parts with grey and reports nothing. FFmpeg reports them."""
        self._file.seek(SEEK_SET)
        with av.open(self._file, "r", format="jpeg_pipe") as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            try:
                next(container.decode(stream), None)
            except InvalidDataError:
                raise OSError("truncated") from None
            except av.FFmpegError:
                return  # FFmpeg does not support this kind of JPEG

    def _refuse_hdr(self) -> None:
        if transfer := _HDR.get(self._colour_numbers[1]):
            raise MediumRefused(
                f"{self._kind.words} in HDR ({transfer})",
                rule="a picture in the usual range of brightness (SDR)",
                cure="Export the picture as a JPEG.",
            )

    @cached_property
    def _colour_numbers(self) -> tuple[int, int]:
        if nclx := self._image.info.get("nclx_profile"):
            return nclx["color_primaries"], nclx["transfer_characteristics"]
        self._file.seek(SEEK_SET)
        found = _NUMBERED_COLOURS.search(self._file.read(1 << 16))
        if not found or self._kind not in (kinds.AVIF, kinds.PNG):
            return 0, 0
        primaries, transfer = (one for one in found.groups() if one)
        return ord(primaries), ord(transfer)

    def _damaged(self, error: str) -> MediumRefused:
        self._file.seek(SEEK_SET)
        if self._kind is kinds.JPEG and _ARITHMETIC.search(self._file.read(1 << 16)):
            return MediumRefused(
                "a JPEG picture with arithmetic coding, which few programs can open",
                rule="a picture that every program can open",
                cure="Export the picture again as a JPEG or a PNG.",
            )
        what = "breaks off before its end" if "runcated" in error else "is damaged"
        return MediumRefused(f"{self._kind.words} that {what}", broken=True)

    # What it is

    @cached_property
    def _orientation(self) -> int:
        with suppress(Exception):  # EXIF is often broken
            found = self._image.getexif().get(_ORIENTATION)
            return found if isinstance(found, int) and 1 <= found <= 8 else 1
        return 1

    @property
    def _size(self) -> tuple[int, int]:
        """Upright, before any shrinking."""
        return self._upright(self._original_size)

    def _upright(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[::-1] if self._orientation >= 5 else size

    @cached_property
    def _metadata(self) -> str:
        """The sentence about removed metadata, or nothing."""
        exif, info = Image.Exif(), self._image.info
        with suppress(Exception):
            exif = self._image.getexif()
            if exif.get_ifd(_GPS):
                return "Location and other metadata were removed."
        found = any(info.get(name) for name in _METADATA) or getattr(self._image, "text", None)
        return "Metadata was removed." if found or _METADATA_TAGS & exif.keys() else ""

    @cached_property
    def _to_srgb(self) -> ImageCms.ImageCmsTransform | None:
        """The transform of the colour profile. None if it is broken or changes no colour."""
        mode = _plain_mode(self._image)
        with suppress(Exception):
            if mode == "LAB":
                profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
            else:
                profile = ImageCms.ImageCmsProfile(BytesIO(self._image.info["icc_profile"]))
            if profile.profile.xcolor_space == _SPACES[mode]:
                to = "RGBA" if mode == "RGBA" else "RGB"
                transform = ImageCms.buildTransform(profile, _SRGB, mode, to)
                return transform if _changes_colours(transform, mode) else None
        return None

    # Writing

    def _write_same_pixels(
        self, size: tuple[int, int], limits: ImageLimits, into: BinaryIO
    ) -> bool:
        """Whether it wrote a JPEG with the same tables, because only metadata has to go."""
        is_plain = self._kind is kinds.JPEG and self._image.mode in ("RGB", "L")
        if not is_plain or self._orientation != 1 or self._to_srgb or size != self._original_size:
            return False
        if ImageFormat.JPEG not in limits.formats:
            return False
        self._image.info = {}
        self._image.save(into, "JPEG", quality="keep", subsampling="keep")
        if into.tell() <= _max_bytes(limits):
            return True
        _empty(into)
        return False

    def _canonical(self, size: tuple[int, int]) -> tuple[Image.Image, list[str]]:
        """The pixels as they are sent, and the changes: "The picture was ..."."""
        changes = ["reduced to its first frame"] * self._animated
        changes += ["reduced to 8 bits for each colour"] * self._deep
        lying = self._upright(size)
        metadata = self._metadata  # read before the image changes
        image = _plain(self._image)
        if image.size != lying:
            image = image.resize(lying, Image.Resampling.LANCZOS)
        if self._image.mode == "CMYK":
            changes.append("brought from CMYK to RGB colours")
        elif self._to_srgb or self._wide_primaries:
            changes.append("brought to sRGB colours")
        image = self._in_srgb(image)
        if image.mode == "RGBA":
            if image.getchannel("A").getextrema() != (255, 255):
                changes.append("laid on white where it was transparent")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        if self._orientation != 1:
            exif = Image.Exif()
            exif[_ORIENTATION] = self._orientation
            image.info = {"exif": exif.tobytes()}
            image = ImageOps.exif_transpose(image)
            changes.insert(0, "turned upright")
        image.info = {}
        self._removed = metadata
        return image, changes

    @property
    def _wide_primaries(self) -> tuple[float, ...] | None:
        return (
            None if self._image.info.get("icc_profile") else _TO_SRGB.get(self._colour_numbers[0])
        )

    def _in_srgb(self, image: Image.Image) -> Image.Image:
        if self._to_srgb:
            return self._to_srgb.apply(image)
        image = image.convert("RGBA" if image.mode == "RGBA" else "RGB")
        return _narrowed(image, self._wide_primaries) if self._wide_primaries else image

    def _written(
        self, image: Image.Image, changes: list[str], limits: ImageLimits, into: BinaryIO
    ) -> Copy:
        """Tries the qualities, the best first, then fewer pixels, until it is small enough."""
        while True:
            for taken, options in self._recipes(limits):
                _empty(into)
                image.save(into, taken.value, **options)
                if into.tell() <= _max_bytes(limits):
                    done = self._sentences(image, changes, taken, options)
                    return Copy(format=taken, changes=done, width=image.width, height=image.height)
            scale = math.sqrt(_FEWER_PIXELS)
            smaller = int(image.width * scale), int(image.height * scale)
            if min(smaller) <= (limits.side_over_pixels or 0):
                raise MediumRefused(
                    f"a picture that is too large, even at {image.width} x {image.height} pixels",
                    rule=f"at most {megabytes(_max_bytes(limits))}",
                    cure="Use a picture with fewer details, such as one with a plain background.",
                )
            image = image.resize(smaller, Image.Resampling.LANCZOS)

    def _recipes(self, limits: ImageLimits) -> Iterator[tuple[ImageFormat, dict[str, Any]]]:
        if ImageFormat.PNG in limits.formats and self._kind in _DRAWINGS:
            yield ImageFormat.PNG, {"compress_level": 4}
        if ImageFormat.JPEG in limits.formats:
            for quality in _QUALITIES:
                yield ImageFormat.JPEG, {"quality": quality, "subsampling": "4:4:4"}

    def _sentences(
        self,
        image: Image.Image,
        changes: list[str],
        taken: ImageFormat,
        options: dict[str, Any],
    ) -> tuple[str, ...]:
        parts = list(changes)
        name = {ImageFormat.JPEG: "JPEG", ImageFormat.PNG: "PNG"}[taken]
        if name != self._kind.name:
            parts.insert(0, f"converted from {self._kind.name} to {name}")
        if image.size != self._size:
            before, after = ("{} x {}".format(*one) for one in (self._size, image.size))
            parts.append(f"scaled down from {before} to {after} pixels")
        if options.get("quality", _QUALITIES[0]) != _QUALITIES[0]:
            parts.append("compressed further, because the file was too large")
        sentence = f"The picture was {listed(parts, 'and')}." if parts else ""
        return tuple(filter(None, (sentence, self._removed)))


def _refuse_raw(image: Image.Image) -> None:
    """A camera raw file is a TIFF whose first picture is a thumbnail."""
    tags = getattr(image, "tag_v2", {})
    is_thumbnail = tags.get(_SUBFILE) == 1 and _SUB_IFDS in tags
    if is_thumbnail or _DNG_VERSION in tags or _CFA_PATTERN in tags:
        raise MediumRefused(kinds.RAW.words)


def _too_many_pixels(size: tuple[int, int], most: float) -> MediumRefused:
    width, height = size
    return MediumRefused(
        f"{width} x {height} pixels, {math.ceil(width * height / 1_000_000)} megapixels",
        rule=f"at most {most / 1_000_000:.0f} megapixels",
        cure="Scale the picture down, then drop it again.",
    )


def _plain_mode(image: Image.Image) -> str:
    """A mode that can be scaled: 8 bits for each colour, no palette."""
    if image.mode.startswith("I;16"):
        return "L"
    if image.has_transparency_data:
        return "RGBA"
    return image.mode if image.mode in _SPACES else "RGB"


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        big = image.mode.endswith("B")
        high = image.tobytes("raw", "I;16B" if big else "I;16")[0 if big else 1 :: 2]
        return Image.frombytes("L", image.size, high)
    return image.convert(_plain_mode(image))


# Colours

_SRGB: Final = ImageCms.createProfile("sRGB")
_SPACES: Final = {"L": "GRAY", "RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK", "LAB": "Lab "}
_SAME_COLOUR: Final = 2  # of 255

# From linear Display P3 and BT.2020 to linear sRGB (ITU-R BT.2087, SMPTE EG 432-1).
# fmt: off
_TO_SRGB: Final[dict[int, tuple[float, ...]]] = {
    12: (1.2249, -0.2247, 0.0, -0.0420, 1.0419, 0.0, -0.0197, -0.0786, 1.0979),
    9: (1.6605, -0.5876, -0.0728, -0.1246, 1.1329, -0.0083, -0.0182, -0.1006, 1.1187),
}
# fmt: on


def _changes_colours(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether colours differ in sRGB. The profile's name is not trusted."""
    if mode in ("CMYK", "LAB"):
        return True
    levels = range(0, 256, 51)
    colours = [bytes((r, g, b)) for r in levels for g in levels for b in levels]
    swatches = Image.frombytes("RGB", (len(colours), 1), b"".join(colours)).convert(mode)
    seen = transform.apply(swatches).convert("RGB").tobytes()
    pairs = zip(swatches.convert("RGB").tobytes(), seen, strict=True)
    return max(abs(one - other) for one, other in pairs) > _SAME_COLOUR


def _narrowed(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Converts colours of wider primaries to sRGB."""
    from PIL import ImageFilter  # noqa: PLC0415 - rarely needed

    def in_srgb(*rgb: float) -> tuple[float, ...]:
        linear = [level**2.2 for level in rgb]
        rows = (matrix[0:3], matrix[3:6], matrix[6:9])
        mixed = (sum(m * level for m, level in zip(row, linear, strict=True)) for row in rows)
        return tuple(min(max(level, 0.0), 1.0) ** (1 / 2.2) for level in mixed)

    return image.filter(ImageFilter.Color3DLUT.generate(33, in_srgb))


def _max_bytes(limits: ImageLimits) -> int:
    under = limits.size_under_bytes or MAX_COPY_BYTES + 1
    return min(limits.size_at_most_bytes or MAX_COPY_BYTES, under - 1)


def _empty(into: BinaryIO) -> None:
    into.seek(SEEK_SET)
    into.truncate()
