"""The cures of pictures and recordings that no offer takes, followed with real files."""

from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import pytest
from PIL import Image

from dropreel.media.fitting import strictest
from dropreel.media.opened import MediumRefused
from dropreel.media.picture import Picture
from dropreel.media.sound import MAX_HEARD_SECONDS, Sound
from dropreel.model.catalog import MODELS
from tests.support import media_samples as samples
from tests.support.cure_lines import PACKAGE, cures_not_run

PNG = samples.saved(samples.scene(), "PNG")
IMAGE_LIMITS, AUDIO_LIMITS = strictest(MODELS["wan-2.2-speech-to-video"].route)


def picture(content: bytes, at_most_bytes: int = 50_000_000) -> None:
    limits = IMAGE_LIMITS.model_copy(update={"size_at_most_bytes": at_most_bytes})
    Picture(BytesIO(content)).write(limits, BytesIO())


def recording(content: bytes, under_bytes: int = 15_000_000) -> None:
    assert AUDIO_LIMITS
    limits = AUDIO_LIMITS.model_copy(update={"size_under_bytes": under_bytes})
    Sound(BytesIO(content), 20).write(limits, BytesIO())


def noise(width: int, height: int) -> bytes:
    return samples.saved(Image.effect_noise((width, height), 60).convert("RGB"), "BMP")


class Case(NamedTuple):
    dropped: Callable[[], None]
    cure: str
    followed: Callable[[], None]


CASES: dict[str, Case] = {
    "32 bits for each colour": Case(
        lambda: picture(samples.tiff("I")),
        "Export the picture as a JPEG or a PNG.",
        lambda: picture(samples.photo()),
    ),
    "too many pixels": Case(
        lambda: picture(samples.bomb_jpeg()),
        "Scale the picture down, then drop it again.",
        lambda: picture(samples.photo()),
    ),
    "HDR": Case(
        lambda: picture(samples.with_chunk(PNG, b"cICP", bytes([9, 16, 0, 1]))),
        "Export the picture as a JPEG.",
        lambda: picture(samples.photo()),
    ),
    "arithmetic coding": Case(
        lambda: picture(samples.photo().replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11")),
        "Export the picture again as a JPEG or a PNG.",
        lambda: picture(samples.photo()),
    ),
    "too many bytes in few pixels": Case(
        lambda: picture(noise(640, 480), 10_000),
        "Use a picture with fewer details, such as one with a plain background.",
        lambda: picture(samples.flat_png(640, 480), 10_000),
    ),
    "too many bytes of sound": Case(
        lambda: recording(samples.mp3(10), 20_000),
        "Cut the recording, so that it is shorter.",
        lambda: recording(samples.mp3(1), 20_000),
    ),
    "hours of sound": Case(
        lambda: recording(samples.wav(MAX_HEARD_SECONDS + 1, rate=1000, bits=8)),
        "Cut the recording to 20 seconds or less.",
        lambda: recording(samples.wav(20)),
    ),
    "a protected recording": Case(
        lambda: recording(samples.tone("ipod", "aac").replace(b"mp4a", b"drms")),
        "Export the recording as an MP3 in the app that made it.",
        lambda: recording(samples.mp3()),
    ),
    "a video without sound": Case(
        lambda: recording(samples.film(loudness=None)),
        "Drop a recording, or a video with sound.",
        lambda: recording(samples.film()),
    ),
    "silence": Case(
        lambda: recording(samples.film("mov", 2, 0)),
        "Check the microphone, and record again.",
        lambda: recording(samples.film("mov", 2)),
    ),
    "hardly any sound": Case(
        lambda: recording(samples.wav(0.29)),
        "Record it again, longer.",
        lambda: recording(samples.wav(0.3)),
    ),
}


def follow(case: Case) -> None:
    with pytest.raises(MediumRefused) as refused:
        case.dropped()
    assert refused.value.fault.cure == case.cure

    case.followed()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cure_leads_to_a_copy(case: Case) -> None:
    follow(case)


def test_every_cure_of_a_codec_is_followed_by_a_case() -> None:
    codecs = [PACKAGE / "media" / name for name in ("picture.py", "sound.py")]

    with cures_not_run(codecs) as not_followed:
        for case in CASES.values():
            follow(case)

    assert not_followed == []
