"""A copy of a picture is as good as it can be, and no larger than it may."""

import math
from io import BytesIO

import pytest
from dropreel.media.image import fit_picture
from dropreel.media.making import Copy, Damaged, OutOfTime, Unfit, Watched
from dropreel.media.pictures import read_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms

from dropreel.media import image as conform_image
from dropreel.model.catalog import ImageFormat, ImageLimits
from tests.support import media_samples as samples
from tests.support import more_media as media

LIMITS = ImageLimits(
    formats=(ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.WEBP), side_under_pixels=2000
)


def in_time() -> None:
    """There is always time left."""


def fit(content: bytes, limits: ImageLimits = LIMITS) -> tuple[Copy, bytes]:
    into = BytesIO()
    picture = read_picture(BytesIO(content), len(content))
    file = Watched(BytesIO(content), in_time)
    return fit_picture(file, picture, limits, into=into, alarm=in_time), into.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


def differ(one: Image.Image, other: Image.Image) -> int:
    """By how much the pixels of two pictures differ at the most."""
    extrema = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getextrema()
    return max(int(band[1]) for band in extrema)  # type: ignore[index]


@pytest.mark.parametrize(
    "content",
    [
        media.photo(),
        media.two_pictures_in_one(),
        samples.motion_photo(),
        media.telling_png(),
        media.telling_png("P"),
        media.telling_webp(),
        media.telling_webp(lossless=True),
        samples.with_chunk(samples.PORTRAIT, b"tEXt", b"Comment\0Villa Anna", last=True),
    ],
)
def test_what_needs_only_to_lose_its_metadata_keeps_every_pixel(content: bytes) -> None:
    copy, stripped = fit(content)

    assert copy.changes[0].startswith("Removed from the picture: ")
    assert len(stripped) < len(content)
    assert differ(opened(content), opened(stripped)) == 0
    assert not read_picture(BytesIO(stripped), len(stripped)).metadata


def test_profile_of_the_colours_survives_stripping() -> None:
    content = media.saved(
        media.scene(), "JPEG", icc_profile=media.display_p3(), exif=media.exif(), quality=90
    )

    _, stripped = fit(content)

    assert opened(stripped).info["icc_profile"] == media.display_p3()


def test_thumbnail_in_the_first_segment_is_removed_too() -> None:
    content = samples.picture("JPEG", comment=b"x")
    head = b"JFIF\0\x01\x01\0\0\x01\0\x01\x04\x04" + b"\x77" * 48
    content = samples.with_segment(content[:2] + content[20:], 0xE0, head)

    _, stripped = fit(content)

    assert b"\x77" * 48 not in stripped
    assert differ(opened(content), opened(stripped)) == 0


def test_wide_colours_look_the_same_in_srgb() -> None:
    _, copy = fit(media.wide_photo())
    original = opened(media.wide_photo())

    assert "icc_profile" not in opened(copy).info
    # The numbers were others before: green of sRGB is less green in Display P3.
    assert original.getpixel((100, 100)) != opened(copy).getpixel((100, 100))
    quarter = (20, 20, 300, 220)
    assert differ(media.scene().crop(quarter), opened(copy).crop(quarter)) < 12


def test_inks_are_mixed_as_their_profile_says() -> None:
    _, copy = fit(media.cmyk_photo(profile=True))
    original = opened(media.cmyk_photo(profile=True))
    inks = ImageCms.ImageCmsProfile(BytesIO(media.cmyk_profile()))
    seen = ImageCms.profileToProfile(
        original, inks, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )

    assert seen
    assert differ(seen.crop((20, 20, 300, 220)), opened(copy).crop((20, 20, 300, 220))) < 12


def test_sixteen_bits_become_eight_without_losing_the_shades() -> None:
    _, copy = fit(media.grey_16_bit("PNG"))
    image = opened(copy).convert("L")

    assert [image.getpixel((x, 100)) for x in (0, 160, 320, 639)] == [0, 64, 128, 255]


def test_hole_is_kept_where_it_may_be_and_white_where_not() -> None:
    kept = opened(fit(media.saved(opened(media.see_through_png()), "TIFF"))[1])
    laid = opened(fit(media.see_through_png(), LIMITS.model_copy(update={"png_alpha": False}))[1])

    assert kept.mode == "RGBA"
    assert kept.getpixel((320, 240)) == (0, 0, 0, 0)
    assert laid.mode == "RGB"
    assert laid.getpixel((320, 240)) == (255, 255, 255)


def test_alpha_that_hides_nothing_is_dropped_without_a_word() -> None:
    copy, content = fit(media.saved(media.scene().convert("RGBA"), "TIFF"))

    assert copy.format is ImageFormat.JPEG
    assert not any("transparent" in change for change in copy.changes)
    assert opened(content).mode == "RGB"


@settings(deadline=None, max_examples=25)
@given(width=st.integers(60, 500), height=st.integers(60, 500), bound=st.integers(20, 500))
def test_picture_scaled_in_parts_is_that_scaled_in_one_piece(
    width: int, height: int, bound: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conform_image, "_PART_PIXELS", 4000)
        noise = Image.effect_noise((width, height), 90).convert("RGB")
        limits = ImageLimits(formats=(ImageFormat.PNG,), side_under_pixels=bound)
        _, content = fit(media.saved(noise, "BMP"), limits)

    copy = opened(content)
    assert max(copy.size) == min(max(noise.size), bound - 1)
    across = noise.resize((copy.width, noise.height), Image.Resampling.LANCZOS)
    assert differ(copy, across.resize(copy.size, Image.Resampling.LANCZOS)) <= 1


@pytest.mark.parametrize(
    ("at_most_bytes", "scaled_down"), [(400_000, False), (200_000, False), (50_000, True)]
)
def test_quality_goes_before_pixels_when_bytes_are_few(
    at_most_bytes: int, scaled_down: bool
) -> None:
    noise = media.saved(Image.effect_noise((640, 480), 60).convert("RGB"), "BMP")
    limits = LIMITS.model_copy(update={"size_at_most_bytes": at_most_bytes})

    copy, content = fit(noise, limits)

    assert len(content) <= at_most_bytes
    assert ("scaled down" in copy.changes[0]) == scaled_down
    assert (opened(content).size != (640, 480)) == scaled_down


def test_picture_is_refused_when_no_allowed_size_has_few_enough_bytes() -> None:
    noise = media.saved(Image.effect_noise((640, 480), 60).convert("RGB"), "BMP")
    limits = LIMITS.model_copy(update={"size_at_most_bytes": 10_000, "side_over_pixels": 400})

    with pytest.raises(Unfit) as refusal:
        fit(noise, limits)

    assert refusal.value.rule == "at most 0.1 MB"


def test_large_jpeg_is_decoded_smaller_than_it_is() -> None:
    """Its 12 megapixels would take 48 MB; they are never there."""
    content = media.photo(1, 4000, 3000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conform_image, "DECODING_BYTES", 20_000_000)
        patch.setattr(conform_image, "DRAWING_BYTES", 20_000_000)
        copy, small = fit(content)

    assert copy.format is ImageFormat.JPEG
    assert math.prod(opened(small).size) > 1_800_000
    assert max(opened(small).size) < 2000


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP", "GIF", "AVIF", "WEBP"])
def test_picture_that_finds_no_room_is_refused_before_it_is_decoded(image_format: str) -> None:
    content = media.saved(media.scene(2400, 1800), image_format)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conform_image, "DECODING_BYTES", 4_000_000)
        with pytest.raises(Unfit, match="2400 x 1800"):
            fit(content)


def test_large_webp_loses_its_metadata_though_it_finds_no_room_to_be_drawn() -> None:
    content = media.saved(media.scene(1900, 1900), "WEBP", exif=media.exif())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conform_image, "DECODING_BYTES", 4_000_000)
        copy, stripped = fit(content)

    assert copy.format is ImageFormat.WEBP
    assert media.SECRET.encode() not in stripped


@pytest.mark.parametrize(
    "content", [media.heic(), media.avif(), media.tiff(), media.gif(), media.photo(6)]
)
def test_broken_picture_is_told_in_words(content: bytes) -> None:
    picture = read_picture(BytesIO(content), len(content))
    file = Watched(BytesIO(content[: len(content) // 2]), in_time)

    with pytest.raises(Damaged, match=r"breaks off|damaged"):
        fit_picture(file, picture, LIMITS, into=BytesIO(), alarm=in_time)


def test_decoder_that_goes_on_for_ever_is_stopped() -> None:
    content = media.photo(3)
    calls = 0

    def alarm() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OutOfTime

    with pytest.raises(OutOfTime):
        fit_picture(
            Watched(BytesIO(content), alarm),
            read_picture(BytesIO(content), len(content)),
            LIMITS,
            into=BytesIO(),
            alarm=alarm,
        )


def test_copy_is_the_same_each_time() -> None:
    assert fit(media.heic(6)) == fit(media.heic(6))
