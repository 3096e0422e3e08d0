"""Files that were once refused, spoiled or paid for in vain: each with its right value."""

import struct
from array import array
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import av
import pytest
from PIL import Image

from dropreel.model.catalog import AudioFormat, ImageFormat
from dropreel.model.errors import InputRejected
from dropreel.model.job import Role
from tests.support import media_samples as samples
from tests.support.media_samples import heard, muxed, tone
from tests.support.prepared import prepared

CASES = Path(__file__).parents[2] / "support/cases"

Bytes = Callable[[], bytes]


def case(name: str) -> Bytes:
    """A real file."""
    return (CASES / name).read_bytes


class Voice(NamedTuple):
    """What is sent of a recording, to both offers."""

    seconds: float
    format: AudioFormat
    says: str = ""


class Colours(NamedTuple):
    """What is sent of a picture: colours at places, in hundredths of its sides."""

    at: dict[tuple[int, int], tuple[int, int, int]]
    says: str = ""
    format: ImageFormat = ImageFormat.JPEG


class Refused(NamedTuple):
    words: str


WAV, MP3 = AudioFormat.WAV, AudioFormat.MP3

# Recordings


def trimmed(container: str, codec: str) -> bytes:
    """Ten seconds, of which an edit list plays 2.5, from the third on."""
    content = tone(container, codec, 10)
    return samples.claiming(content, b"elst", 12, ">II", 5 * 24_000, 3 * 48_000)


def two_streams(tag: bytes, *, first: bool) -> bytes:
    """A MOV with a stream in a coding that nobody knows, before or behind that of AAC."""
    file = BytesIO()
    with av.open(file, "w", format="mov") as made:
        names = ("pcm_s16le", "aac") if first else ("aac", "pcm_s16le")
        for stream in [made.add_stream(name, rate=48_000, layout="stereo") for name in names]:
            assert isinstance(stream, av.AudioStream)
            made.mux(samples.encoded_tone(stream, 4))
    return file.getvalue().replace(b"sowt", tag)


def floats_with_nan() -> bytes:
    values = array("f", [0.5, float("nan"), float("inf"), -0.5] * 8000)
    return samples.wav(4, bits=32, codec=3)[:44] + values.tobytes()


RECORDINGS: dict[str, tuple[Bytes, Voice | Refused]] = {
    "M4A of 126 s that plays 8": (case("trimmed_126s_plays_8s.m4a"), Voice(8.25, MP3)),
    "trimmed M4A": (lambda: trimmed("ipod", "aac"), Voice(2.5, MP3)),
    "trimmed M4A without loss": (lambda: trimmed("ipod", "alac"), Voice(2.5, WAV)),
    "trimmed MOV": (lambda: trimmed("mov", "aac"), Voice(2.5, MP3)),
    **{
        f"WAV that states {sizes}": (
            lambda sizes=sizes: samples.wav(8, **sizes),  # type: ignore[misc]
            Voice(8, WAV),
        )
        for sizes in (
            {"data_bytes": 2_000_000_000},
            {"data_bytes": 0, "riff_bytes": 36},
            {"data_bytes": 0, "riff_bytes": 0},
            {"data_bytes": 8 * 16_000 + 44},
            {"data_bytes": 0x7FFF_FFFF, "riff_bytes": 0x7FFF_FFFF},
            {"data_bytes": 0xFFFF_FFFF, "riff_bytes": 0xFFFF_FFFF},
        )
    },
    "APAC before AAC": (lambda: two_streams(b"apac", first=True), Voice(4, MP3)),
    "APAC behind AAC": (lambda: two_streams(b"apac", first=False), Voice(4, MP3)),
    "an unknown coding before AAC": (lambda: two_streams(b"xyzw", first=True), Voice(4, MP3)),
    "AMR with pauses": (case("voice_dtx.amr"), Voice(8.26, MP3)),
    "AMR with pauses in 3GP": (lambda: muxed(case("voice_dtx.amr")(), "3gp"), Voice(8.26, MP3)),
    "cut Opus": (case("trunc.opus"), Refused("breaks off before its end")),
    "Opus cut in its last page": (
        lambda: (whole := tone("ogg", "libopus"))[: whole.rindex(b"OggS") + 200],
        Refused("breaks off before its end"),
    ),
    "MP3 with a nul behind": (
        lambda: samples.SPEECH_MP3 + b"\0",
        Voice(8.25, MP3, "damaged bytes"),
    ),
    "MP3 with a disc's padding behind": (
        lambda: samples.SPEECH_MP3 + bytes(2048),
        Voice(8.25, MP3, "damaged bytes"),
    ),
    "floats that are no numbers": (floats_with_nan, Voice(4, WAV)),
    "one sample": (case("one_sample.wav"), Refused("0.00 seconds long")),
    "ten milliseconds of MP3": (
        lambda: samples.mp3(0.01),
        Refused("at least 0.3 seconds of sound"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDINGS)
def test_recording(name: str) -> None:
    content, verdict = RECORDINGS[name]

    if isinstance(verdict, Refused):
        with pytest.raises(InputRejected, match=verdict.words):
            prepared(Role.AUDIO, content())
        return
    plan, bucket = prepared(Role.AUDIO, content())

    assert plan.audio and plan.audio_facts
    assert len(plan.route) == 2
    assert plan.audio.key == f"work/anna-1/audio.{verdict.format}"
    assert plan.audio_facts.duration_seconds == pytest.approx(verdict.seconds, abs=0.01)
    copy = bucket.contents[plan.audio.key]
    assert heard(copy).format == verdict.format
    assert heard(copy).seconds == pytest.approx(verdict.seconds, abs=0.01)
    assert verdict.says in " ".join(plan.changes)
    if verdict.format is WAV:
        assert struct.unpack("<I", copy[4:8])[0] == len(copy) - 8
        assert struct.unpack("<I", copy[40:44])[0] == len(copy) - 44


# Pictures

PATCHES = {(25, 50): (200, 40, 40), (75, 50): (224, 172, 140)}
WHITE, GREEN = (255, 255, 255), (0, 255, 0)


PROPHOTO = samples.rgb_profile(
    "ProPhoto RGB", 1.8, (0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 9e-5, 0.82491)
)
ADOBE = samples.rgb_profile(
    "Adobe RGB (1998)",
    2.2,
    (0.60974, 0.31111, 0.01947),
    (0.20528, 0.62567, 0.06087),
    (0.14919, 0.06322, 0.74457),
)


def patches(image_format: str, profile: bytes | None = None, **options: object) -> bytes:
    """Two colours, in the numbers of a profile."""
    image = Image.new("RGB", (800, 600), PATCHES[25, 50])
    image.paste(PATCHES[75, 50], (400, 0, 800, 600))
    if profile:
        image = samples.in_colours_of(profile, image)
        options["icc_profile"] = profile
    return samples.saved(image, image_format, **options)


def cutout(image_format: str) -> bytes:
    """Green that nobody sees around a colour."""
    image = Image.new("RGBA", (800, 600), (*GREEN, 0))
    image.paste((*PATCHES[25, 50], 255), (300, 200, 500, 400))
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    return samples.saved(image, image_format, **options)


def raw(tags: dict[int, object]) -> bytes:
    """A camera raw file: the picture in front is a thumbnail."""
    return samples.saved(Image.new("RGB", (160, 120), "red"), "TIFF", tiffinfo=tags)


SEEN = {(50, 50): PATCHES[25, 50], (5, 5): WHITE, (95, 95): WHITE}
EVERY_FORMAT = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
PROFILES = {"P3": samples.DISPLAY_P3, "ProPhoto": PROPHOTO, "Adobe": ADOBE}
PICTURES: dict[str, tuple[Bytes, Colours | Refused]] = {
    **{
        f"{name} in {each}": (
            partial(patches, each, profile, quality=95),
            Colours(PATCHES, "sRGB", ImageFormat.PNG if each == "PNG" else ImageFormat.JPEG),
        )
        for name, profile in PROFILES.items()
        for each in EVERY_FORMAT
    },
    "linear levels named sRGB": (
        lambda: patches("TIFF", samples.named_srgb(1.0)),
        Colours(PATCHES, "brought to sRGB colours"),
    ),
    "HDR": (case("hdr_pq_bt2020.heic"), Refused(r"a HEIC photo in HDR \(PQ\)")),
    **{
        f"a cut-out {each}": (
            partial(cutout, each),
            Colours(SEEN, "laid on white", ImageFormat.PNG if each == "PNG" else ImageFormat.JPEG),
        )
        for each in ("PNG", "WEBP", "TIFF", "AVIF")
    },
    "a person cut out of a PNG": (
        case("cutout_green_under_alpha.png"),
        Colours({(1, 1): WHITE, (98, 1): WHITE}, "laid on white", ImageFormat.PNG),
    ),
    "a person cut out of a WebP": (
        case("cutout_green_under_alpha.webp"),
        Colours({(1, 1): WHITE, (98, 1): WHITE}, "laid on white"),
    ),
    "DNG": (lambda: raw({50706: b"\x01\x04\0\0"}), Refused("a camera raw file")),
    "NEF": (lambda: raw({254: 1, 330: 8}), Refused("a camera raw file")),
    "raw by its mosaic": (lambda: raw({33422: b"\0\1\1\2"}), Refused("a camera raw file")),
    "arithmetic JPEG": (
        lambda: patches("JPEG").replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11"),
        Refused("arithmetic coding"),
    ),
    "progressive arithmetic JPEG": (
        lambda: patches("JPEG", progressive=True).replace(b"\xff\xc2\0\x11", b"\xff\xca\0\x11"),
        Refused("arithmetic coding"),
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_picture(name: str) -> None:
    content, verdict = PICTURES[name]

    if isinstance(verdict, Refused):
        with pytest.raises(InputRejected, match=verdict.words):
            prepared(Role.IMAGE, content())
        return
    plan, bucket = prepared(Role.IMAGE, content())

    assert plan.image_facts
    assert plan.image_facts.format is verdict.format
    assert verdict.says in " ".join(plan.changes)
    with Image.open(BytesIO(bucket.contents[plan.image.key])) as image:
        assert (image.mode, image.info.get("icc_profile")) == ("RGB", None)
        for (x, y), colour in verdict.at.items():
            seen = image.getpixel((image.width * x // 100, image.height * y // 100))
            assert seen == pytest.approx(colour, abs=6)


@pytest.mark.parametrize(
    ("role", "content", "name", "key"),
    [
        (Role.IMAGE, samples.photo(), "IMG.HEIC", "work/anna-1/image.jpg"),
        (Role.IMAGE, samples.heic(), "IMG.png", "work/anna-1/image.jpg"),
        (Role.IMAGE, samples.saved(samples.scene(), "PNG"), "IMG.jpg", "work/anna-1/image.png"),
        (Role.AUDIO, tone("ipod", "aac"), "voice.mp3", "work/anna-1/audio.mp3"),
        (Role.AUDIO, tone("mp3", "libmp3lame"), "voice.wav", "work/anna-1/audio.mp3"),
        (Role.AUDIO, samples.wav(4), "voice.mp3", "work/anna-1/audio.wav"),
    ],
    ids=["JPEG in HEIC", "HEIC in PNG", "PNG in JPEG", "M4A in MP3", "MP3 in WAV", "WAV in MP3"],
)
def test_copy_ends_in_what_it_is(role: Role, content: bytes, name: str, key: str) -> None:
    plan, _ = prepared(role, content, name)

    assert key in (plan.image.key, plan.audio and plan.audio.key)
