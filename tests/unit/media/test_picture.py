"""A picture is decoded whole and written upright, in sRGB, opaque and silent about itself."""

from collections.abc import Callable
from io import BytesIO

import pillow_heif
import pytest
from PIL import Image, ImageChops, ImageCms

from dropreel.media.opened import Copy, Fault, MediumRefused
from dropreel.media.picture import Picture
from dropreel.model.catalog import ImageFormat, ImageLimits
from tests.support import media_samples as samples

BOTH = (ImageFormat.JPEG, ImageFormat.PNG)
LIMITS = ImageLimits(formats=BOTH, side_under_pixels=2000)

Bytes = Callable[[], bytes]


def written(content: bytes, limits: ImageLimits = LIMITS) -> tuple[Copy, Image.Image]:
    into = BytesIO()
    copy = Picture(BytesIO(content)).write(limits, into)
    image = Image.open(into)
    image.load()
    assert (image.format, image.size) == (copy.format.upper(), (copy.width, copy.height))
    assert image.mode in ("RGB", "L")
    assert samples.SECRET.encode() not in into.getvalue()
    assert not set(image.info) - {"jfif", "jfif_density", "jfif_unit", "jfif_version"}
    assert not getattr(image, "is_animated", False)
    return copy, image


def refusal(content: bytes) -> Fault:
    with pytest.raises(MediumRefused) as refused:
        Picture(BytesIO(content))
    return refused.value.fault


def differ(one: Image.Image, other: Image.Image) -> int:
    """By how much the pixels of two pictures differ at the most."""
    extrema = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getextrema()
    return max(int(band[1]) for band in extrema)  # type: ignore[index]


def shows_the_scene(image: Image.Image, by: int = 12) -> bool:
    """Whether the four colours lie where they should, and are what they should be."""
    middles = ((image.width * x // 4, image.height * y // 4) for y in (1, 3) for x in (1, 3))
    seen = [image.convert("RGB").getpixel(place) for place in middles]
    wanted = [samples.COLOURS[x, y] for y in (0, 1) for x in (0, 1)]
    return all(
        abs(level - right) < by
        for colour, rights in zip(seen, wanted, strict=True)
        for level, right in zip(colour, rights, strict=True)  # type: ignore[arg-type]
    )


# Upright


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIC"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_turned_upright(image_format: str, orientation: int) -> None:
    if image_format == "HEIC":
        content = samples.heic(orientation)
    else:
        lying = samples.lying(samples.scene(), orientation)
        content = samples.saved(lying, image_format, exif=samples.exif(orientation))

    facts = Picture(BytesIO(content)).facts
    copy, image = written(content)

    assert (facts.width, facts.height) == image.size == (640, 480)
    assert shows_the_scene(image)
    assert copy.changes[-1] == "Location and other metadata were removed."


def test_turned_picture_is_scaled_the_right_way() -> None:
    copy, image = written(samples.photo(6, 3000, 2000))

    assert image.size == (1999, 1332)
    assert shows_the_scene(image)
    assert copy.changes[0] == (
        "The picture was turned upright and scaled down from 3000 x 2000 to 1999 x 1332 pixels."
    )


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "told", [b"junk", b"Exif\0\0junk", samples.exif()[:20]], ids=["junk", "junk behind Exif", "cut"]
)
def test_broken_exif_does_no_harm(told: bytes) -> None:
    _, image = written(samples.with_segment(samples.saved(samples.scene(), "JPEG"), 0xE1, told))

    assert shows_the_scene(image)


# In sRGB, opaque, with eight bits, and one frame


def _profiled(profile: bytes, mode: str = "RGB") -> bytes:
    image = samples.in_colours_of(profile, samples.scene()).convert(mode)
    return samples.saved(image, "PNG", icc_profile=profile)


def _wide_scene() -> Image.Image:
    return samples.in_colours_of(samples.DISPLAY_P3, samples.scene())


def _heic_of(primaries: int, transfer: int = 13) -> bytes:
    file, numbers = BytesIO(), {"matrix_coefficients": 6, "full_range_flag": 1}
    numbers |= {"color_primaries": primaries, "transfer_characteristics": transfer}
    image = _wide_scene() if primaries == 12 else samples.scene()
    pillow_heif.from_pillow(image).save(file, save_nclx_profile=True, quality=90, **numbers)
    return file.getvalue()


def _png_of(primaries: int, transfer: int = 13) -> bytes:
    content = samples.saved(_wide_scene(), "PNG")
    return samples.with_chunk(content, b"cICP", bytes([primaries, transfer, 0, 1]))


def _avif_of(primaries: int, transfer: int = 13) -> bytes:
    content = samples.saved(_wide_scene(), "AVIF", quality=95)
    return samples.claiming(content, b"colrnclx", 8, ">HH", primaries, transfer)


SRGB = "brought to sRGB colours"
COLOURED: dict[str, tuple[Bytes, str]] = {
    "Display P3 on its side": (samples.wide_photo, SRGB),
    "P3 with alpha": (lambda: _profiled(samples.DISPLAY_P3, "RGBA"), SRGB),
    "P3 by numbers in HEIC": (lambda: _heic_of(12), SRGB),
    "P3 by numbers in PNG": (lambda: _png_of(12), SRGB),
    "P3 by numbers in AVIF": (lambda: _avif_of(12), SRGB),
    "gamma 1.8 that is named sRGB": (lambda: _profiled(samples.named_srgb(1.8)), SRGB),
    "CMYK": (lambda: samples.cmyk_photo(profile=False), "brought from CMYK to RGB"),
    "CMYK as TIFF": (lambda: samples.tiff("CMYK"), "brought from CMYK to RGB"),
    "LAB": (lambda: samples.tiff("LAB"), SRGB),
    "16 bits": (samples.colour_16_bit_png, "reduced to 8 bits for each colour"),
    "alpha that hides nothing": (lambda: samples.saved(samples.scene().convert("RGBA"), "PNG"), ""),
    "animated GIF": (samples.gif, "converted from GIF to PNG and reduced to its first frame"),
    "animated PNG": (lambda: samples.animated("PNG"), "reduced to its first frame"),
    "animated WebP": (lambda: samples.animated("WEBP"), "reduced to its first frame"),
    "animated AVIF": (lambda: samples.animated("AVIF"), "reduced to its first frame"),
    "TIFF of pages": (lambda: samples.animated("TIFF"), "reduced to its first frame"),
    "BMP": (lambda: samples.saved(samples.scene(), "BMP"), "converted from BMP to PNG"),
    "HEIC in tiles": (lambda: samples.heic(1, 1600, 1200, tile_size=512), "from HEIC to JPEG"),
    "two JPEGs in one (MPO)": (samples.two_pictures_in_one, ""),
    "no profile at all": (
        lambda: samples.saved(samples.scene(), "JPEG", icc_profile=b"x" * 300),
        "",
    ),
    "a profile for other colours": (
        lambda: samples.saved(samples.scene(), "JPEG", icc_profile=samples.cmyk_profile()),
        "",
    ),
    "a cut profile": (
        lambda: samples.saved(
            samples.scene().convert("CMYK"), "JPEG", icc_profile=samples.cmyk_profile()[:900]
        ),
        "CMYK",
    ),
}


@pytest.mark.parametrize("name", COLOURED)
def test_colours_are_seen_as_they_were_meant(name: str) -> None:
    content, says = COLOURED[name]

    copy, image = written(content())

    assert shows_the_scene(image)
    assert says in " ".join(copy.changes)
    assert says or not copy.changes


def test_inks_are_mixed_as_their_profile_says() -> None:
    content = samples.cmyk_photo(profile=True)
    _, image = written(content)
    inks = ImageCms.ImageCmsProfile(BytesIO(samples.cmyk_profile()))
    seen = ImageCms.profileToProfile(
        Image.open(BytesIO(content)), inks, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )

    assert seen
    assert differ(seen.crop((20, 20, 300, 220)), image.crop((20, 20, 300, 220))) < 12


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_become_eight_with_all_shades(image_format: str) -> None:
    _, image = written(samples.grey_16_bit(image_format))

    seen = [image.convert("L").getpixel((x, 100)) for x in (0, 160, 320, 639)]
    assert seen == pytest.approx([0, 64, 128, 255], abs=1)


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (samples.see_through_png(), (255, 255, 255)),
        (samples.see_through_png("WEBP"), (255, 255, 255)),
        (samples.see_through_png("GIF"), (255, 255, 255)),
        (samples.saved(Image.new("LA", (64, 64), (0, 128)), "PNG"), (127, 127, 127)),
        (
            samples.with_chunk(
                samples.saved(Image.new("L", (64, 64), 45), "PNG"), b"tRNS", b"\0\x2d"
            ),
            (255, 255, 255),
        ),
    ],
    ids=["PNG", "WebP", "GIF", "half of grey", "one grey"],
)
def test_what_is_transparent_is_white(content: bytes, colour: tuple[int, ...]) -> None:
    copy, image = written(content)

    assert "laid on white where it was transparent" in copy.changes[0]
    middle = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    assert middle == colour


# Metadata


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (samples.photo(), "Location and other metadata were removed."),
        (samples.saved(samples.scene(), "JPEG", comment=b"Villa Anna"), "Metadata was removed."),
        (samples.saved(samples.scene(), "JPEG", xmp=b"<x>Villa Anna</x>"), "Metadata was removed."),
        (samples.tagged_png(), "Location and other metadata were removed."),
        (
            samples.with_chunk(samples.saved(samples.scene(), "PNG"), b"tEXt", b"Key\0Villa Anna"),
            "Metadata was removed.",
        ),
        (samples.tagged_webp(), "Location and other metadata were removed."),
        (samples.gif(1), "Metadata was removed."),
        (samples.tiff(), "Metadata was removed."),
        (samples.saved(samples.scene(), "JPEG", dpi=(72, 72)), ""),
    ],
    ids=["EXIF", "comment", "XMP", "PNG", "words in PNG", "WebP", "GIF", "TIFF", "none"],
)
def test_metadata_is_removed_and_said(content: bytes, says: str) -> None:
    copy, image = written(content)

    assert says in ("", *copy.changes)
    assert bool(says) == any("etadata" in change for change in copy.changes)
    assert shows_the_scene(image)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:0"}])
@pytest.mark.parametrize("quality", [60, 95])
def test_jpeg_that_only_loses_metadata_keeps_its_pixels(
    quality: int, options: dict[str, object]
) -> None:
    portrait = Image.open(BytesIO(samples.PORTRAIT)).convert("RGB")
    content = samples.saved(portrait, "JPEG", quality=quality, exif=samples.exif(), **options)

    copy, image = written(content)

    difference = ImageChops.difference(Image.open(BytesIO(content)), image).convert("L")
    levels = difference.histogram()
    assert sum(levels[:3]) > 0.985 * sum(levels)
    assert not any(levels[20:])
    assert copy.changes == ("Location and other metadata were removed.",)


@pytest.mark.parametrize(
    "seed", [b"\xff\xda", bytes(range(256)), b"\xff\xd9\xff\xd8\xff\xda"], ids=str
)
def test_video_behind_a_photo_is_left_away(seed: bytes) -> None:
    _, image = written(samples.photo() + seed * 5000)

    assert shows_the_scene(image)


# Scaled down, never up


@pytest.mark.parametrize(
    ("size", "under", "becomes"),
    [
        ((1999, 100), 2000, (1999, 100)),
        ((2000, 100), 2000, (1999, 99)),
        ((30, 20), 2000, (30, 20)),
        ((9000, 6000), None, (4500, 3000)),  # of more than 50 megapixels, half are decoded
    ],
)
def test_picture_is_scaled_down_and_never_up(
    size: tuple[int, int], under: int | None, becomes: tuple[int, int]
) -> None:
    content = samples.saved(samples.scene(*size), "JPEG")

    copy, image = written(content, ImageLimits(formats=BOTH, side_under_pixels=under))

    assert image.size == becomes
    assert bool(copy.changes) == (size != becomes)


@pytest.mark.parametrize(
    ("at_most_bytes", "says"),
    [(400_000, ""), (200_000, "compressed further"), (50_000, "scaled down from 640 x 480")],
)
def test_quality_goes_before_pixels_when_bytes_are_few(at_most_bytes: int, says: str) -> None:
    noise = samples.saved(Image.effect_noise((640, 480), 60).convert("RGB"), "BMP")
    limits = LIMITS.model_copy(update={"size_at_most_bytes": at_most_bytes})
    into = BytesIO()

    copy = Picture(BytesIO(noise)).write(limits, into)

    assert len(into.getvalue()) <= at_most_bytes
    assert says in copy.changes[0]


def test_bound_of_bytes_under_is_exclusive() -> None:
    into, again = BytesIO(), BytesIO()
    Picture(BytesIO(samples.photo())).write(LIMITS, into)
    limits = LIMITS.model_copy(update={"size_under_bytes": len(into.getvalue())})

    Picture(BytesIO(samples.photo())).write(limits, again)

    assert len(again.getvalue()) < len(into.getvalue())


def test_picture_is_refused_when_no_allowed_size_has_few_enough_bytes() -> None:
    noise = samples.saved(Image.effect_noise((640, 480), 60).convert("RGB"), "BMP")
    limits = LIMITS.model_copy(update={"size_at_most_bytes": 10_000, "side_over_pixels": 400})

    with pytest.raises(MediumRefused) as refused:
        Picture(BytesIO(noise)).write(limits, BytesIO())

    assert refused.value.fault.rule == "at most 0.1 MB"


def test_copy_is_the_same_each_time() -> None:
    first, again = BytesIO(), BytesIO()
    for into in (first, again):
        Picture(BytesIO(samples.heic(6))).write(LIMITS, into)

    assert first.getvalue() == again.getvalue()


# Broken


def _noise(image_format: str, **options: object) -> bytes:
    return samples.picture(image_format, 640, 480, **options)


WHOLE: dict[str, Bytes] = {
    "JPEG": lambda: _noise("JPEG"),
    "progressive JPEG": lambda: _noise("JPEG", progressive=True),
    "PNG": lambda: _noise("PNG"),
    "WebP": lambda: _noise("WEBP"),
    "lossless WebP": lambda: _noise("WEBP", lossless=True),
    "GIF": lambda: _noise("GIF"),
    "BMP": lambda: _noise("BMP"),
    "TIFF": lambda: _noise("TIFF"),
    "compressed TIFF": lambda: _noise("TIFF", compression="tiff_lzw"),
    "AVIF": lambda: _noise("AVIF"),
    "HEIC": samples.heic,
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_cut_picture_is_refused_as_broken(name: str, part: float) -> None:
    whole = WHOLE[name]()

    fault = refusal(whole[: int(len(whole) * part)])

    assert fault.broken
    assert "breaks off" in fault.found or "is damaged" in fault.found


@pytest.mark.parametrize("name", ["JPEG", "progressive JPEG"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("end", [b"\xff\xd9", bytes(2000) + b"\xff\xd9"], ids=["", "zeros"])
def test_jpeg_that_was_cut_and_closed_again_is_refused(name: str, part: float, end: bytes) -> None:
    whole = WHOLE[name]()

    assert refusal(whole[: int(len(whole) * part)] + end).broken


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_whole_jpeg_of_any_shape_is_not_taken_for_a_cut_one(
    subsampling: str, progressive: bool, rows: int, mode: str
) -> None:
    image = samples.scene(643, 477).convert(mode)
    options = {} if mode == "L" else {"subsampling": subsampling}
    content = samples.saved(
        image, "JPEG", progressive=progressive, restart_marker_rows=rows, **options
    )

    assert Picture(BytesIO(content)).facts.width == 643
    assert Picture(BytesIO(content + bytes(99))).facts.width == 643


# Refused in words


MEGAPIXELS = "megapixels"
REFUSED: dict[str, tuple[Bytes, str]] = {
    "PNG bomb": (samples.bomb_png, "50000 x 50000 pixels, 2500 megapixels"),
    "JPEG bomb": (samples.bomb_jpeg, "65000 x 65000 pixels, 4225 megapixels"),
    "WebP bomb": (samples.bomb_webp, "16383 x 16383 pixels, 269 megapixels"),
    "GIF bomb": (
        lambda: samples.claiming(samples.gif(), b"GIF8", 6, "<HH", 65_535, 65_535),
        MEGAPIXELS,
    ),
    "AVIF bomb": (
        lambda: samples.claiming(samples.avif(), b"ispe", 8, ">II", 30_000, 30_000),
        "",
    ),
    "PNG of 101 megapixels": (lambda: samples.flat_png(10_100, 10_000), MEGAPIXELS),
    "scans without end": (samples.endless_jpeg, "damaged"),
    "scans of six colours": (
        lambda: samples.endless_jpeg(64).replace(b"\xff\xda\0\x0c", b"\xff\xda\0\x06"),
        "damaged",
    ),
    "floats": (lambda: samples.tiff("F"), "32 bits for each colour"),
    "whole numbers of 32 bits": (lambda: samples.tiff("I"), "32 bits for each colour"),
    "HDR in HEIC": (lambda: _heic_of(9, 16), "a HEIC photo in HDR (PQ)"),
    "HLG in HEIC": (lambda: _heic_of(9, 18), "a HEIC photo in HDR (HLG)"),
    "HDR in PNG": (lambda: _png_of(9, 16), "a PNG picture in HDR (PQ)"),
    "HDR in AVIF": (lambda: _avif_of(9, 16), "an AVIF picture in HDR (PQ)"),
    "CR2": (lambda: b"II*\0\x10\0\0\0CR\x02\0" + bytes(99), "a camera raw file"),
    "RAF": (lambda: b"FUJIFILMCCD-RAW 0201" + bytes(99), "a camera raw file"),
    "CR3": (lambda: samples.iso_media(b"crx "), "a camera raw file"),
    "PDF": (lambda: b"%PDF-1.7\n", "a PDF document"),
    "ZIP": (lambda: b"PK\x03\x04" + bytes(30), "a ZIP archive or an office document"),
    "SVG": (lambda: b"<?xml version='1.0'?>\n<svg/>", "an SVG drawing"),
    "PSD": (lambda: b"8BPS\0\x01" + bytes(30), "a Photoshop document"),
    "JXL": (lambda: b"\xff\x0a\xfa\x7f", "a JPEG XL picture"),
    "JXL in boxes": (lambda: b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a", "a JPEG XL picture"),
    "JPEG 2000": (lambda: samples.picture("JPEG2000"), "a JPEG 2000 picture"),
    "icon": (lambda: samples.picture("ICO"), "an icon"),
    "text": (lambda: samples.TEXT, "plain text"),
    "UTF-16": (lambda: "Grüße".encode("utf-16"), "plain text"),
    "text that begins like a BMP": (lambda: b"BM, said the text", "plain text"),
    "web page": (lambda: samples.WEB_PAGE, "a web page"),
    "MP3": (lambda: samples.SPEECH_MP3, "an MP3 recording"),
    "WAV": (lambda: samples.SPEECH_WAV, "a WAV recording"),
    "video": (samples.film, "an MP4 video"),
    "noise": (lambda: samples.NOISE, "a file of an unknown kind"),
    "nothing": (lambda: b"", "an empty file"),
    "eight bytes": (lambda: b"\x89PNG\r\n\x1a\n", "a PNG picture that is damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_words(name: str) -> None:
    content, found = REFUSED[name]

    assert found in refusal(content()).found


def test_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = samples.flat_png(10_100, 10_000)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))

    assert MEGAPIXELS in refusal(content).found


def test_hdr_comes_with_its_cure() -> None:
    fault = refusal(_heic_of(9, 16))

    assert (fault.broken, fault.cure) == (False, "Export the picture as a JPEG.")
