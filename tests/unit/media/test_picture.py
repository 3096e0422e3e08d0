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
from tests.support import more_media as media

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
    assert media.SECRET.encode() not in into.getvalue()
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
    wanted = [media.COLOURS[x, y] for y in (0, 1) for x in (0, 1)]
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
        content = media.heic(orientation)
    else:
        lying = media._lying(media.scene(), orientation)
        content = media.saved(lying, image_format, exif=media.exif(orientation))

    facts = Picture(BytesIO(content)).facts
    copy, image = written(content)

    assert (facts.width, facts.height) == image.size == (640, 480)
    assert shows_the_scene(image)
    assert copy.changes[-1] == "Location and other metadata were removed."


def test_turned_picture_is_scaled_the_right_way() -> None:
    copy, image = written(media.photo(6, 3000, 2000))

    assert image.size == (1999, 1332)
    assert shows_the_scene(image)
    assert copy.changes[0] == (
        "The picture was turned upright and scaled down from 3000 x 2000 to 1999 x 1332 pixels."
    )


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "told", [b"junk", b"Exif\0\0junk", media.exif()[:20]], ids=["junk", "junk behind Exif", "cut"]
)
def test_broken_exif_does_no_harm(told: bytes) -> None:
    _, image = written(samples.with_segment(media.saved(media.scene(), "JPEG"), 0xE1, told))

    assert shows_the_scene(image)


# In sRGB, opaque, with eight bits, and one frame


def _in_colours_of(profile: bytes, mode: str = "RGB") -> Image.Image:
    """The scene in the numbers of a profile."""
    space = ImageCms.ImageCmsProfile(BytesIO(profile))
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), space, "RGB", "RGB")
    return transform.apply(media.scene()).convert(mode)


def _profiled(image_format: str, profile: bytes, mode: str = "RGB") -> bytes:
    image = _in_colours_of(profile, mode)
    return media.saved(image, image_format, icc_profile=profile)


def _heic_of(primaries: int, transfer: int = 13) -> bytes:
    file, numbers = BytesIO(), {"matrix_coefficients": 6, "full_range_flag": 1}
    numbers |= {"color_primaries": primaries, "transfer_characteristics": transfer}
    image = _in_colours_of(media.display_p3()) if primaries == 12 else media.scene()
    pillow_heif.from_pillow(image).save(file, save_nclx_profile=True, quality=90, **numbers)
    return file.getvalue()


def _png_of(primaries: int, transfer: int = 13) -> bytes:
    content = media.saved(_in_colours_of(media.display_p3()), "PNG")
    return samples.with_chunk(content, b"cICP", bytes([primaries, transfer, 0, 1]))


def _avif_of(primaries: int, transfer: int = 13) -> bytes:
    content = media.saved(_in_colours_of(media.display_p3()), "AVIF", quality=95)
    return media.claiming(content, b"colrnclx", 8, ">HH", primaries, transfer)


SRGB = "brought to sRGB colours"
COLOURED: dict[str, tuple[Bytes, str]] = {
    "Display P3 on its side": (media.wide_photo, SRGB),
    "P3 as PNG": (lambda: _profiled("PNG", media.display_p3()), SRGB),
    "P3 as TIFF": (lambda: _profiled("TIFF", media.display_p3()), SRGB),
    "P3 as WebP": (lambda: _profiled("WEBP", media.display_p3()), SRGB),
    "P3 as AVIF": (lambda: _profiled("AVIF", media.display_p3()), SRGB),
    "P3 with alpha": (lambda: _profiled("PNG", media.display_p3(), "RGBA"), SRGB),
    "P3 by numbers in HEIC": (lambda: _heic_of(12), SRGB),
    "P3 by numbers in PNG": (lambda: _png_of(12), SRGB),
    "P3 by numbers in AVIF": (lambda: _avif_of(12), SRGB),
    "gamma 1.8 that is named sRGB": (lambda: _profiled("JPEG", media.named_srgb(1.8)), SRGB),
    "gamma 1.8 as PNG": (lambda: _profiled("PNG", media.named_srgb(1.8)), SRGB),
    "CMYK": (lambda: media.cmyk_photo(profile=False), "brought from CMYK to RGB"),
    "CMYK as TIFF": (lambda: media.tiff("CMYK"), "brought from CMYK to RGB"),
    "LAB": (lambda: media.tiff("LAB"), SRGB),
    "16 bits": (media.colour_16_bit_png, "reduced to 8 bits for each colour"),
    "alpha that hides nothing": (lambda: media.saved(media.scene().convert("RGBA"), "PNG"), ""),
    "a hole": (media.see_through_png, "laid on white where it was transparent"),
    "a hole in WebP": (lambda: media.see_through_png("WEBP"), "laid on white"),
    "a hole in TIFF": (lambda: media.see_through_png("TIFF"), "laid on white"),
    "animated GIF": (media.gif, "converted from GIF to PNG and reduced to its first frame"),
    "animated PNG": (lambda: media.animated("PNG"), "reduced to its first frame"),
    "animated WebP": (lambda: media.animated("WEBP"), "reduced to its first frame"),
    "animated AVIF": (lambda: media.animated("AVIF"), "reduced to its first frame"),
    "TIFF of pages": (lambda: media.animated("TIFF"), "reduced to its first frame"),
    "BMP": (lambda: media.saved(media.scene(), "BMP"), "converted from BMP to PNG"),
    "HEIC in tiles": (lambda: media.heic(1, 1600, 1200, tile_size=512), "from HEIC to JPEG"),
    "two JPEGs in one (MPO)": (media.two_pictures_in_one, ""),
    "no profile at all": (lambda: media.saved(media.scene(), "JPEG", icc_profile=b"x" * 300), ""),
    "a profile for other colours": (
        lambda: media.saved(media.scene(), "JPEG", icc_profile=media.cmyk_profile()),
        "",
    ),
    "a cut profile": (
        lambda: media.saved(
            media.scene().convert("CMYK"), "JPEG", icc_profile=media.cmyk_profile()[:900]
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
    content = media.cmyk_photo(profile=True)
    _, image = written(content)
    inks = ImageCms.ImageCmsProfile(BytesIO(media.cmyk_profile()))
    seen = ImageCms.profileToProfile(
        Image.open(BytesIO(content)), inks, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )

    assert seen
    assert differ(seen.crop((20, 20, 300, 220)), image.crop((20, 20, 300, 220))) < 12


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_become_eight_with_all_shades(image_format: str) -> None:
    _, image = written(media.grey_16_bit(image_format))

    seen = [image.convert("L").getpixel((x, 100)) for x in (0, 160, 320, 639)]
    assert seen == pytest.approx([0, 64, 128, 255], abs=1)


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (media.see_through_png(), (255, 255, 255)),
        (media.see_through_png("WEBP"), (255, 255, 255)),
        (media.see_through_png("GIF"), (255, 255, 255)),
        (media.saved(Image.new("LA", (64, 64), (0, 128)), "PNG"), (127, 127, 127)),
        (
            samples.with_chunk(
                media.saved(Image.new("L", (64, 64), 45), "PNG"), b"tRNS", b"\0\x2d"
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
        (media.photo(), "Location and other metadata were removed."),
        (media.saved(media.scene(), "JPEG", comment=b"Villa Anna"), "Metadata was removed."),
        (media.saved(media.scene(), "JPEG", xmp=b"<x>Villa Anna</x>"), "Metadata was removed."),
        (media.telling_png(), "Location and other metadata were removed."),
        (
            samples.with_chunk(media.saved(media.scene(), "PNG"), b"tEXt", b"Key\0Villa Anna"),
            "Metadata was removed.",
        ),
        (media.telling_webp(), "Location and other metadata were removed."),
        (media.gif(1), "Metadata was removed."),
        (media.tiff(), "Metadata was removed."),
        (media.saved(media.scene(), "JPEG", dpi=(72, 72)), ""),
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
    content = media.saved(portrait, "JPEG", quality=quality, exif=media.exif(), **options)

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
    _, image = written(media.photo() + seed * 5000)

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
    content = media.saved(media.scene(*size), "JPEG")

    copy, image = written(content, ImageLimits(formats=BOTH, side_under_pixels=under))

    assert image.size == becomes
    assert bool(copy.changes) == (size != becomes)


@pytest.mark.parametrize(
    ("at_most_bytes", "says"),
    [(400_000, ""), (200_000, "compressed further"), (50_000, "scaled down from 640 x 480")],
)
def test_quality_goes_before_pixels_when_bytes_are_few(at_most_bytes: int, says: str) -> None:
    noise = media.saved(Image.effect_noise((640, 480), 60).convert("RGB"), "BMP")
    limits = LIMITS.model_copy(update={"size_at_most_bytes": at_most_bytes})
    into = BytesIO()

    copy = Picture(BytesIO(noise)).write(limits, into)

    assert len(into.getvalue()) <= at_most_bytes
    assert says in copy.changes[0]


def test_bound_of_bytes_under_is_exclusive() -> None:
    into, again = BytesIO(), BytesIO()
    Picture(BytesIO(media.photo())).write(LIMITS, into)
    limits = LIMITS.model_copy(update={"size_under_bytes": len(into.getvalue())})

    Picture(BytesIO(media.photo())).write(limits, again)

    assert len(again.getvalue()) < len(into.getvalue())


def test_picture_is_refused_when_no_allowed_size_has_few_enough_bytes() -> None:
    noise = media.saved(Image.effect_noise((640, 480), 60).convert("RGB"), "BMP")
    limits = LIMITS.model_copy(update={"size_at_most_bytes": 10_000, "side_over_pixels": 400})

    with pytest.raises(MediumRefused) as refused:
        Picture(BytesIO(noise)).write(limits, BytesIO())

    assert refused.value.fault.rule == "at most 0.1 MB"


def test_copy_is_the_same_each_time() -> None:
    first, again = BytesIO(), BytesIO()
    for into in (first, again):
        Picture(BytesIO(media.heic(6))).write(LIMITS, into)

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
    "HEIC": media.heic,
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
    image = media.scene(643, 477).convert(mode)
    options = {} if mode == "L" else {"subsampling": subsampling}
    content = media.saved(
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
        lambda: media.claiming(media.gif(), b"GIF8", 6, "<HH", 65_535, 65_535),
        MEGAPIXELS,
    ),
    "AVIF bomb": (
        lambda: media.claiming(media.avif(), b"ispe", 8, ">II", 30_000, 30_000),
        "",
    ),
    "PNG of 101 megapixels": (lambda: media.flat_png(10_100, 10_000), MEGAPIXELS),
    "scans without end": (media.endless_jpeg, "damaged"),
    "scans of six colours": (
        lambda: media.endless_jpeg(64).replace(b"\xff\xda\0\x0c", b"\xff\xda\0\x06"),
        "damaged",
    ),
    "floats": (lambda: media.tiff("F"), "32 bits for each colour"),
    "whole numbers of 32 bits": (lambda: media.tiff("I"), "32 bits for each colour"),
    "HDR in HEIC": (lambda: _heic_of(9, 16), "a HEIC photo in HDR (PQ)"),
    "HLG in HEIC": (lambda: _heic_of(9, 18), "a HEIC photo in HDR (HLG)"),
    "HDR in PNG": (lambda: _png_of(9, 16), "a PNG picture in HDR (PQ)"),
    "HDR in AVIF": (lambda: _avif_of(9, 16), "an AVIF picture in HDR (PQ)"),
    "DNG": (
        lambda: media.saved(media.scene(), "TIFF", tiffinfo={50706: b"\x01\x04\0\0"}),
        "a camera raw file",
    ),
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
    "video": (samples.video, "an MP4 video"),
    "noise": (lambda: samples.NOISE, "a file of an unknown kind"),
    "nothing": (lambda: b"", "an empty file"),
    "eight bytes": (lambda: b"\x89PNG\r\n\x1a\n", "a PNG picture that is damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_words(name: str) -> None:
    content, found = REFUSED[name]

    assert found in refusal(content()).found


def test_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = media.flat_png(10_100, 10_000)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))

    assert MEGAPIXELS in refusal(content).found


def test_hdr_comes_with_its_cure() -> None:
    fault = refusal(_heic_of(9, 16))

    assert (fault.broken, fault.cure) == (False, "Export the picture as a JPEG.")
