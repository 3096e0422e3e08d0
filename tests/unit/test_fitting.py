"""What conform can cure and what it cannot; the limits of several offers at once."""

from dataclasses import replace

import pytest
from dropreel.media.pictures import Picture
from dropreel.media.recordings import Sound

from dropreel.media import fitting, kinds
from dropreel.model.catalog import MODELS, AudioFormat, AudioLimits, ImageFormat, ImageLimits

SPEECH = MODELS["wan-2.2-speech-to-video"].route
IMAGE = MODELS["wan-2.2-image-to-video"].route
FLASH = MODELS["wan-2.6-flash-image-to-video"].route
PHOTO = Picture(kinds.JPEG, 3_000_000, 1024, 768)
VOICE = Sound(kinds.MP3, 200_000, 8.0)


def test_strictest_of_one_offer_is_its_own() -> None:
    (offer,) = FLASH

    assert fitting.strictest([offer]) == (offer.image, offer.audio)


def test_strictest_of_two_keeps_both() -> None:
    image, audio = fitting.strictest(SPEECH)

    assert image == ImageLimits(
        formats=(ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.WEBP),  # WaveSpeed: no BMP
        side_over_pixels=400,
        side_under_pixels=7000,
        size_at_most_bytes=50_000_000,
    )
    assert audio == AudioLimits(
        formats=(AudioFormat.WAV, AudioFormat.MP3),
        required=True,
        duration_at_most_seconds=120,
        duration_under_seconds=20,
        size_under_bytes=15_000_000,
    )


def test_one_offer_without_audio_takes_it_from_all() -> None:
    _, audio = fitting.strictest([*FLASH, *IMAGE])

    assert audio is None


@pytest.mark.parametrize(
    ("picture", "needs"),
    [
        (PHOTO, []),
        (replace(PHOTO, width=1999, height=361), []),
        (replace(PHOTO, size_bytes=9_999_999), []),
        (replace(PHOTO, size_bytes=10_000_000), ["made smaller than 10 MB"]),
        (
            replace(PHOTO, width=8000, height=6000),
            ["scaled down from 8000 x 6000 to fit 1999 x 1999 pixels"],
        ),
        (
            replace(PHOTO, width=2000, height=2000),
            ["scaled down from 2000 x 2000 to fit 1999 x 1999 pixels"],
        ),
        (replace(PHOTO, turned=True), ["turned upright, as its EXIF data says"]),
        (replace(PHOTO, cmyk=True), ["the colours for print (CMYK) become RGB"]),
        (replace(PHOTO, kind=kinds.PNG, deep=True), ["16 bits for each colour become 8"]),
        (replace(PHOTO, kind=kinds.PNG, alpha=True), ["transparent parts are filled"]),
        (replace(PHOTO, kind=kinds.WEBP, alpha=True), []),  # the page forbids it for PNG
        (replace(PHOTO, kind=kinds.WEBP, animated=True), ["the animation becomes its first frame"]),
        (replace(PHOTO, metadata=("a", "b", "c")), ["a, b and c removed"]),
        (
            Picture(kinds.HEIC, 12_000_000),
            ["HEIC becomes JPEG, PNG, BMP or WebP", "made smaller than 10 MB"],
        ),
    ],
)
def test_needs_of_a_picture(picture: Picture, needs: list[str]) -> None:
    assert list(fitting.picture_needs(picture, IMAGE[0].image)) == needs


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        (PHOTO, []),
        (replace(PHOTO, width=361, height=361), []),
        (replace(PHOTO, width=360, height=360), ["360 pixels wide", "360 pixels high"]),
        # scaled down by 1999/8000
        (replace(PHOTO, width=8000, height=1445), []),
        (
            replace(PHOTO, width=8000, height=1444),
            [
                "8000 x 1444 pixels, too narrow to be scaled down: the other side would have 360",
            ],
        ),
        (replace(PHOTO, width=22_000, height=10_000), []),
        (
            replace(PHOTO, width=22_001, height=10_000),
            ["22001 x 10000 pixels, 221 megapixels"],
        ),
        (replace(PHOTO, kind=kinds.PNG, width=10_000, height=10_000), []),
        (
            replace(PHOTO, kind=kinds.PNG, width=10_001, height=10_000),
            ["10001 x 10000 pixels, 101 megapixels"],
        ),
        (Picture(kinds.HEIC, 9, None, None), []),
        (replace(PHOTO, damage="a half picture"), ["a half picture"]),
    ],
)
def test_objections_to_a_picture(picture: Picture, found: list[str]) -> None:
    reasons = fitting.picture_objections("anna.jpg", picture, IMAGE[0].image)

    assert [reason.found for reason in reasons] == found


@pytest.mark.parametrize(
    ("sound", "needs"),
    [
        (VOICE, []),
        (replace(VOICE, kind=kinds.M4A), ["M4A becomes WAV or MP3"]),
        (replace(VOICE, size_bytes=14_999_999), []),
        (replace(VOICE, size_bytes=15_000_000), ["made smaller than 15 MB"]),
        (replace(VOICE, metadata=("tags",)), ["tags removed"]),
    ],
)
def test_needs_of_a_recording(sound: Sound, needs: list[str]) -> None:
    assert FLASH[0].audio is not None
    assert list(fitting.sound_needs(sound, FLASH[0].audio)) == needs


@pytest.mark.parametrize(
    ("seconds", "exact", "rules"),
    [
        (3.0, True, []),
        (2.99, True, ["at least 3 seconds"]),
        (30.0, True, []),
        (30.01, True, ["at most 30 seconds"]),
        # what a header promises counts only when it is well beyond
        (30.2, False, []),
        (30.3, False, ["at most 30 seconds"]),
        (2.8, False, []),
        (2.7, False, ["at least 3 seconds"]),
        (None, True, []),
    ],
)
def test_bounds_between_are_inclusive(seconds: float | None, exact: bool, rules: list[str]) -> None:
    sound = replace(VOICE, duration_seconds=seconds, exact=exact)
    assert FLASH[0].audio is not None

    reasons = fitting.sound_objections("anna.mp3", sound, FLASH[0].audio)

    assert [reason.rule for reason in reasons] == rules
