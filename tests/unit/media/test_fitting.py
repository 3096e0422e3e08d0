"""What no copy can cure, with exact bounds; the limits of several offers at once."""

import pytest

from dropreel.media import fitting
from dropreel.media.opened import PictureFacts, SoundFacts
from dropreel.model.catalog import MODELS, AudioFormat, AudioLimits, ImageFormat, ImageLimits

SPEECH = MODELS["wan-2.2-speech-to-video"].route
IMAGE = MODELS["wan-2.2-image-to-video"].route
FLASH = MODELS["wan-2.6-flash-image-to-video"].route


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


TOO_NARROW = "Scaled down to fit, its shorter side would have only 360 pixels"


@pytest.mark.parametrize(
    ("width", "height", "found"),
    [  # over 360, under 2000
        (1024, 768, []),
        (361, 361, []),
        (360, 361, ["360 pixels wide"]),
        (361, 360, ["360 pixels high"]),
        (360, 360, ["360 pixels wide", "360 pixels high"]),
        (1, 9000, ["1 pixels wide"]),
        (1999, 361, []),
        (2000, 362, []),
        (2000, 361, [f"2000 x 361 pixels. {TOO_NARROW}"]),
        (361, 2000, [f"361 x 2000 pixels. {TOO_NARROW}"]),
        (8000, 1445, []),  # scaled down by 1999/8000
        (8000, 1444, [f"8000 x 1444 pixels. {TOO_NARROW}"]),
    ],
)
def test_objections_to_a_picture(width: int, height: int, found: list[str]) -> None:
    facts = PictureFacts(width=width, height=height)
    reasons = list(fitting.picture_objections("anna.jpg", facts, IMAGE[0].image))

    assert [reason.found for reason in reasons] == found
    assert all(reason.file == "anna.jpg" and reason.cure for reason in reasons)


def test_offer_without_bounds_takes_any_picture() -> None:
    facts = PictureFacts(width=1, height=99_999)

    assert not list(fitting.picture_objections("anna.jpg", facts, SPEECH[1].image))


@pytest.mark.parametrize(
    ("limits", "seconds", "rules"),
    [
        (FLASH[0].audio, 3.0, []),
        (FLASH[0].audio, 2.999, ["at least 3 seconds"]),
        (FLASH[0].audio, 30.0, []),
        (FLASH[0].audio, 30.001, ["at most 30 seconds"]),
        (SPEECH[0].audio, 19.999, []),
        (SPEECH[0].audio, 20.0, ["shorter than 20 seconds"]),
        (SPEECH[1].audio, 120.0, []),
        (SPEECH[1].audio, 120.001, ["at most 120 seconds"]),
        (fitting.strictest(SPEECH)[1], 130, ["shorter than 20 seconds", "at most 120 seconds"]),
    ],
)
def test_objections_to_a_recording(limits: AudioLimits, seconds: float, rules: list[str]) -> None:
    facts = SoundFacts(duration_seconds=seconds)
    reasons = list(fitting.sound_objections("anna.mp3", facts, limits))

    assert [reason.rule for reason in reasons] == rules


@pytest.mark.parametrize(
    ("size", "under", "becomes"),
    [
        ((300, 200), 2000, (300, 200)),
        ((1999, 1999), 2000, (1999, 1999)),
        ((2000, 1000), 2000, (1999, 999)),
        ((1000, 4000), 2000, (499, 1999)),
        ((9000, 9000), None, (9000, 9000)),
    ],
)
def test_scaled_is_never_larger(
    size: tuple[int, int], under: int | None, becomes: tuple[int, int]
) -> None:
    limits = ImageLimits(formats=(ImageFormat.PNG,), side_under_pixels=under)

    assert fitting.scaled(*size, limits) == becomes


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (19.996, "20.00 seconds long"),
        (119.99, "119.99 seconds long"),
        (126, "2 minutes 6 seconds long"),
        (121, "2 minutes 1 second long"),
        (7200, "2 hours 0 minutes long"),
    ],
)
def test_length_is_given_in_words(seconds: float, words: str) -> None:
    limits = AudioLimits(formats=(AudioFormat.WAV,), required=True, duration_at_most_seconds=1)
    (reason,) = fitting.sound_objections("a", SoundFacts(duration_seconds=seconds), limits)

    assert reason.found == words


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [(1, "0.1 MB"), (15_000_000, "15 MB"), (15_000_001, "15.1 MB"), (99_999, "0.1 MB")],
)
def test_megabytes_are_rounded_up(size_bytes: int, words: str) -> None:
    assert fitting.megabytes(size_bytes) == words
