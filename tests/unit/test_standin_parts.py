"""The parts of the stand-ins that need no HTTP."""

import array
import asyncio
import io
from collections.abc import Callable

import av
import pytest
from PIL import Image, PngImagePlugin
from pydantic import JsonValue

from dropreel.catalog import MODELS
from local.standin import film
from local.standin.faults import merge_patch
from local.standin.files import Look, listen_to_voice, look_at_picture
from local.standin.film import Script, Studio, frame_size
from local.standin.orders import path_of
from tests.standin_files import FILES, PICTURE, VOICE, silence


@pytest.mark.parametrize(
    ("picture", "short_side_pixels", "size"),
    [
        ((512, 512), 480, (480, 480)),
        ((1_080, 1_920), 480, (480, 854)),
        ((1_920, 1_080), 720, (1_280, 720)),
        ((401, 403), 720, (720, 724)),
        ((401, 6_999), 480, (110, 1_920)),
    ],
)
def test_frame_keeps_the_pictures_shape_in_even_pixels(
    picture: tuple[int, int], short_side_pixels: int, size: tuple[int, int]
) -> None:
    assert frame_size(picture, short_side_pixels) == size


def test_same_inputs_are_filmed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make_film(script: Script) -> bytes:
        made.append(script.digest)
        return b"film"

    monkeypatch.setattr(film, "make_film", make_film)

    async def order() -> list[bytes]:
        studio = Studio()
        scripts = [Script(b"anna", b"voice", 480) for _ in range(3)]
        return await asyncio.gather(
            *map(studio.film, scripts), studio.film(Script(b"anna", b"voice", 720))
        )

    assert asyncio.run(order()) == [b"film"] * 4
    assert len(made) == 2


@pytest.mark.parametrize(
    ("voice", "duration_seconds", "tone", "seconds", "loud_at"),
    [
        (VOICE, None, False, 8.25, [1, 6]),
        (VOICE, 2, False, 2, [1]),
        (VOICE, 10, False, 10, [1, 6]),
        (None, 2, True, 2, [0, 1]),
        (None, 2, False, 2, None),
    ],
)
def test_film_is_as_long_as_asked_and_sounds_as_asked(
    voice: bytes | None,
    duration_seconds: int | None,
    tone: bool,
    seconds: float,
    loud_at: list[int] | None,
) -> None:
    made = film.make_film(Script(PICTURE, voice, 48, duration_seconds, tone))

    with av.open(io.BytesIO(made), "r") as opened:
        assert opened.streams.video[0].frames == round(seconds * 16)
        assert bool(opened.streams.audio) == (loud_at is not None)
        loudest: dict[int, float] = {}
        for frame in opened.decode(audio=0) if loud_at else ():
            samples = array.array("f", bytes(frame.planes[0])[: frame.samples * 4])
            second = int(frame.time or 0)
            loudest[second] = max(loudest.get(second, 0), *samples)
    assert all(loudest[second] > 0.01 for second in loud_at or ())
    assert loudest.get(9, 0) < 0.001  # where a voice is padded


@pytest.mark.parametrize(
    ("document", "patch", "patched"),
    [
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": 1}, {"a": {"b": None, "c": 2}}, {"a": {"c": 2}}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"a": 1}, [], []),
    ],
)
def test_merge_patch_follows_the_rfc(
    document: JsonValue, patch: JsonValue, patched: JsonValue
) -> None:
    assert merge_patch(document, patch) == patched


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://bucket.test/inbox/a%20b.png?signature=x#y", "/inbox/a b.png"),
        ("https://[broken/inbox/a.png?signature=x", ""),
        ("https://bucket.test", ""),
    ],
)
def test_path_of_a_url_holds_no_query(url: str, path: str) -> None:
    assert path_of(url) == path


# The metadata of inputs

OFFER = MODELS["wan-2.2-speech-to-video"].route[0]


def with_gps() -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 6.0, 0.0)})
    Image.new("RGB", (500, 500)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def with_orientation(kind: str) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (500, 500)).save(file, kind, exif=exif)
    return file.getvalue()


def with_comment() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (500, 500)).save(file, "JPEG", comment=b"at home", xmp=b"<x:xmpmeta/>")
    return file.getvalue()


def with_text() -> bytes:
    file, text = io.BytesIO(), PngImagePlugin.PngInfo()
    text.add_text("Author", "Anna")
    Image.new("RGB", (500, 500)).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def with_iptc() -> bytes:
    block = b"\x1c\x02\x5a\x00\x05Prague"
    resource = b"8BIM\x04\x04\x00\x00" + len(block).to_bytes(4, "big") + block
    payload = b"Photoshop 3.0\x00" + resource.ljust(len(resource) + len(resource) % 2, b"\0")
    file = io.BytesIO()
    Image.new("RGB", (500, 500)).save(file, "JPEG")
    segment = b"\xff\xed" + (len(payload) + 2).to_bytes(2, "big") + payload
    return file.getvalue()[:2] + segment + file.getvalue()[2:]


@pytest.mark.parametrize(
    ("make", "metadata"),
    [
        (lambda: FILES["least.jpg"], []),
        (lambda: PICTURE, []),
        (with_gps, ["EXIF", "GPS"]),
        (lambda: with_orientation("JPEG"), ["EXIF"]),
        (lambda: with_orientation("PNG"), ["EXIF"]),
        (lambda: with_orientation("WEBP"), ["EXIF"]),
        (with_comment, ["XMP", "comment"]),
        (with_text, ["text: Author"]),
        (with_iptc, ["IPTC"]),
    ],
)
def test_metadata_of_a_picture_is_named(make: Callable[[], bytes], metadata: list[str]) -> None:
    look: Look = look_at_picture(make(), OFFER.image)

    assert (look.metadata, look.broken) == (metadata, [])
    assert look.facts["width"] == look.facts["height"]


def tagged_voice() -> bytes:
    file = io.BytesIO()
    with av.open(io.BytesIO(VOICE), "r") as voice, av.open(file, "w", format="mp3") as tagged:
        tagged.metadata["title"] = "My street"
        stream = tagged.add_stream_from_template(voice.streams.audio[0])
        for packet in voice.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                tagged.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "metadata"),
    [
        (lambda: VOICE, []),
        (lambda: silence(1), []),
        (tagged_voice, ["title"]),
    ],
)
def test_metadata_of_a_voice_is_named_but_its_encoder(
    make: Callable[[], bytes], metadata: list[str]
) -> None:
    assert OFFER.audio is not None
    look: Look = listen_to_voice(make(), OFFER.audio)

    assert look.metadata == metadata
