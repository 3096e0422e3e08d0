"""Real files, good and bad, through validate and conform: what becomes of each for each model."""

# ruff: noqa: E501 (a table reads best with a file on a line)

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

import pytest
from dropreel.media.audio import fit_recording
from dropreel.media.image import fit_picture
from dropreel.render.conform import conform
from PIL import Image

from dropreel.media.fitting import strictest
from dropreel.model.catalog import MODELS, TITLES
from dropreel.model.errors import InputRejected
from dropreel.model.job import Input, Job, Role
from dropreel.model.messages import Plan
from dropreel.render import validation
from tests.support import media_samples as samples
from tests.support import more_media as media

S2V = "wan-2.2-speech-to-video"
I2V = "wan-2.2-image-to-video"
FLASH = "wan-2.6-flash-image-to-video"

Bytes = Callable[[], bytes]


@dataclass
class Bucket:
    """An upload bucket in memory."""

    contents: dict[str, bytes] = field(default_factory=dict)

    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        return BytesIO(self.contents[pinned.key])

    def put(self, bucket: str, key: str, body: BinaryIO, content_type: str) -> str:
        self.contents[key] = body.read()
        return "v2"


@dataclass(frozen=True)
class AsIs:
    """It goes to the provider as it was dropped."""


@dataclass(frozen=True)
class Picture:
    """What became of the picture."""

    format: str
    width: int
    height: int
    says: str = ""
    colours: bool = True  # whether it shows the four colours, upright


@dataclass(frozen=True)
class Recording:
    """What became of the recording."""

    format: str
    seconds: float
    says: str = ""


@dataclass(frozen=True)
class Refused:
    """It is refused, with this word in the reasons."""

    word: str


Verdict = AsIs | Picture | Recording | Refused

GOOD_PICTURE = samples.picture("PNG")
GOOD_RECORDING = samples.mp3(4)


def _padded(image_format: str, width: int, height: int, **options: object) -> Bytes:
    return lambda: media.saved(media.scene(width, height), image_format, **options)


def _cut(content: Bytes, part: float) -> Bytes:
    return lambda: content()[: int(len(content()) * part)]


PICTURES: list[tuple[str, str, Bytes, Verdict]] = [
    # As it is
    ("JPEG", S2V, _padded("JPEG", 640, 480), AsIs()),
    ("PNG", I2V, _padded("PNG", 640, 480), AsIs()),
    ("WebP", FLASH, _padded("WEBP", 640, 480), AsIs()),
    ("BMP", I2V, _padded("BMP", 640, 480), AsIs()),
    ("transparent PNG, allowed", FLASH, media.see_through_png, AsIs()),
    ("progressive JPEG", S2V, _padded("JPEG", 640, 480, progressive=True), AsIs()),
    ("the sample", S2V, lambda: samples.PORTRAIT, AsIs()),
    # Without its metadata
    ("JPEG with a place", S2V, media.photo, Picture("JPEG", 640, 480, "GPS")),
    ("MPO", S2V, media.two_pictures_in_one, Picture("JPEG", 640, 480)),
    ("motion photo", S2V, samples.motion_photo, Picture("JPEG", 512, 512, colours=False)),
    ("PNG with a place", I2V, media.telling_png, Picture("PNG", 640, 480, "GPS")),
    ("WebP with a place", S2V, media.telling_webp, Picture("WEBP", 640, 480, "GPS")),
    # Turned upright
    *(
        (f"turned {turn}", I2V, lambda turn=turn: media.photo(turn), Picture("JPEG", 640, 480, "turned"))
        for turn in range(2, 9)
    ),
    ("turned WebP", S2V, media.turned_webp, Picture("JPEG", 640, 480, "turned upright")),
    # Converted
    ("HEIC", S2V, media.heic, Picture("JPEG", 640, 480, "from HEIC to JPEG")),
    ("HEIC on its side", S2V, lambda: media.heic(6), Picture("JPEG", 640, 480, "Location")),
    ("HEIC in tiles", I2V, lambda: media.heic(1, 2100, 1400, tile_size=512), Picture("JPEG", 1999, 1332, "scaled down from 2100 x 1400")),
    ("AVIF", S2V, media.avif, Picture("JPEG", 640, 480, "from AVIF to JPEG")),
    ("TIFF", I2V, media.tiff, Picture("JPEG", 640, 480, "from TIFF to JPEG")),
    ("TIFF, compressed", S2V, lambda: media.tiff(compression="tiff_lzw"), Picture("JPEG", 640, 480)),
    ("TIFF for print", S2V, lambda: media.tiff("CMYK"), Picture("JPEG", 640, 480, "from CMYK")),
    ("TIFF in LAB", S2V, lambda: media.tiff("LAB"), Picture("JPEG", 640, 480)),
    ("TIFF of 16 bits", S2V, lambda: media.grey_16_bit("TIFF"), Picture("JPEG", 640, 480, "8 bits", colours=False)),
    ("GIF", I2V, lambda: media.gif(1), Picture("PNG", 640, 480, "from GIF to PNG")),
    ("animated GIF", S2V, media.gif, Picture("PNG", 640, 480, "first frame")),
    ("animated WebP", S2V, lambda: media.animated("WEBP"), Picture("JPEG", 640, 480, "first frame")),
    ("animated PNG", S2V, lambda: media.animated("PNG"), Picture("PNG", 640, 480, "first frame")),
    ("CMYK JPEG", S2V, lambda: media.cmyk_photo(profile=False), Picture("JPEG", 640, 480, "CMYK")),
    ("CMYK JPEG with its profile", I2V, lambda: media.cmyk_photo(profile=True), Picture("JPEG", 640, 480, "CMYK", colours=False)),
    ("Display P3 on its side", S2V, media.wide_photo, Picture("JPEG", 640, 480, "sRGB")),
    ("PNG of 16 bits", I2V, media.colour_16_bit_png, Picture("PNG", 640, 480, "8 bits")),
    ("grey PNG of 16 bits", I2V, lambda: media.grey_16_bit("PNG"), Picture("PNG", 640, 480, "8 bits", colours=False)),
    ("transparent PNG, forbidden", I2V, media.see_through_png, Picture("PNG", 640, 480, "laid on white")),
    # Too many pixels, too many bytes
    ("JPEG of 2400 pixels", I2V, _padded("JPEG", 2400, 1200), Picture("JPEG", 1999, 999, "scaled down")),
    ("PNG of 2000 pixels", FLASH, _padded("PNG", 1000, 2000), Picture("PNG", 999, 1999, "scaled down")),
    ("JPEG of 7000 pixels", S2V, _padded("JPEG", 7000, 1000), Picture("JPEG", 6999, 999, "scaled down")),
    ("WebP of 2400 pixels", I2V, _padded("WEBP", 2400, 1200), Picture("JPEG", 1999, 999)),
    ("BMP of 12 MB", I2V, _padded("BMP", 1999, 1999), Picture("PNG", 1999, 1999)),
    # Refused
    ("small JPEG", I2V, _padded("JPEG", 360, 640), Refused("361 x 361")),
    ("small HEIC", I2V, lambda: media.heic(1, 640, 360), Refused("more than 360 pixels")),
    ("long and narrow", I2V, _padded("PNG", 4000, 400), Refused("too narrow")),
    ("text called a picture", S2V, lambda: samples.TEXT, Refused("plain text")),
    ("web page called a picture", I2V, lambda: samples.WEB_PAGE, Refused("a web page")),
    ("nothing", I2V, lambda: b"", Refused("an empty file")),
    ("cut JPEG", S2V, _cut(media.photo, 0.6), Refused("breaks off")),
    ("cut HEIC", S2V, _cut(media.heic, 0.6), Refused("breaks off")),
    ("cut TIFF", S2V, _cut(media.tiff, 0.5), Refused("breaks off")),
    ("cut GIF", S2V, _cut(media.gif, 0.3), Refused("damaged")),
    ("bomb of a PNG", S2V, samples.bomb_png, Refused("megapixels")),
    ("bomb of a WebP", S2V, samples.bomb_webp, Refused("megapixels")),
    ("a video for a picture", I2V, samples.video, Refused("an MP4 video")),
]  # fmt: skip

RECORDINGS: list[tuple[str, str, Bytes, Verdict]] = [
    # As it is
    ("MP3", S2V, lambda: samples.mp3(4), AsIs()),
    ("WAV", S2V, lambda: samples.wav(4), AsIs()),
    ("WAV of 24 bits", FLASH, lambda: samples.wav(4, bits=24, rate=48_000), AsIs()),
    ("the sample", S2V, lambda: samples.SPEECH_MP3, AsIs()),
    ("a minute, for WaveSpeed", S2V, lambda: samples.mp3_of_rising_bitrate(2500), AsIs()),
    # Without its metadata
    ("MP3 with tags", S2V, lambda: media.tone("mp3", "libmp3lame"), Recording("mp3", 4, "tags")),
    ("WAV with tags", S2V, lambda: media.tone("wav", "pcm_s16le"), Recording("wav", 4, "tags")),
    # Converted
    ("M4A", S2V, lambda: media.tone("ipod", "aac"), Recording("mp3", 4, "from M4A to MP3")),
    ("M4A without loss", FLASH, lambda: media.tone("ipod", "alac"), Recording("wav", 4)),
    ("AAC", S2V, lambda: media.tone("adts", "aac"), Recording("mp3", 4, "AAC")),
    ("Opus", S2V, lambda: media.tone("ogg", "libopus"), Recording("mp3", 4, "Opus")),
    ("Ogg FLAC", S2V, lambda: media.tone("ogg", "flac"), Recording("wav", 4, "Ogg")),
    ("WebM", FLASH, lambda: media.tone("webm", "libopus"), Recording("mp3", 4, "WebM")),
    ("FLAC", S2V, lambda: media.tone("flac", "flac"), Recording("wav", 4, "FLAC")),
    ("FLAC of 96 kHz", S2V, lambda: media.tone("flac", "flac", rate=96_000), Recording("wav", 4)),
    ("AIFF", S2V, lambda: media.tone("aiff", "pcm_s16be"), Recording("wav", 4, "AIFF")),
    ("WMA", S2V, lambda: media.tone("asf", "wmav2", bit_rate=96_000), Recording("mp3", 4, "WMA")),
    ("MP2", S2V, lambda: media.tone("mp2", "mp2"), Recording("mp3", 4)),
    ("WAV of a telephone", S2V, lambda: media.tone("wav", "pcm_mulaw", rate=8000, layout="mono"), Recording("wav", 4)),
    ("M4A of six channels", S2V, lambda: media.tone("ipod", "aac", layout="5.1"), Recording("mp3", 4)),
    ("MOV", S2V, lambda: samples.video(4, "mov"), Recording("mp3", 4, "QuickTime")),
    ("MP4", FLASH, lambda: samples.video(4), Recording("mp3", 4, "MP4")),
    ("WAV of 17 MB", S2V, lambda: samples.wav(15, bits=32, rate=144_000, channels=2), Recording("wav", 15)),
    # Refused
    ("too long for all", S2V, lambda: samples.mp3_of_rising_bitrate(5100), Refused("at most 120 seconds")),
    ("too long by its sound", S2V, lambda: media.tone("au", "pcm_s16be", 121, rate=8000), Refused("at most 120 seconds")),
    ("too short", FLASH, lambda: media.tone("ipod", "aac", 2), Refused("at least 3 seconds")),
    ("too short, as only the sound tells", FLASH, lambda: media.tone("webm", "libopus", 2), Refused("at least 3 seconds")),
    ("a film without sound", S2V, lambda: samples.video(sound=False), Refused("without sound")),
    ("cut M4A", S2V, _cut(lambda: media.tone("ipod", "aac"), 0.5), Refused("breaks off")),
    ("cut FLAC", S2V, _cut(lambda: media.tone("flac", "flac"), 0.5), Refused("sound stops after")),
    ("cut MP3", S2V, _cut(lambda: samples.mp3(4), 0.5), Refused("sound stops after")),
    ("text called a recording", S2V, lambda: samples.TEXT, Refused("plain text")),
    ("a picture for a recording", S2V, lambda: samples.PORTRAIT, Refused("a PNG picture")),
    ("noise", S2V, lambda: samples.NOISE, Refused("unknown kind")),
]  # fmt: skip


def _plan(model: str, picture: bytes, recording: bytes | None, bucket: Bucket) -> Plan:
    inputs = []
    for role, content in ((Role.IMAGE, picture), (Role.AUDIO, recording)):
        if content is not None:
            key = f"inbox/anna.{role}"
            bucket.contents[key] = content
            inputs.append(Input(role=role, key=key, version_id="v1", size_bytes=len(content)))
    job = Job(
        id="anna-0123456789abcdef",
        bucket="uploads",
        folder="",
        stem="anna",
        model=model,
        prompt=None if model == S2V else "She smiles.",
        inputs=tuple(inputs),
    )
    plan = validation.plan(job, bucket, tuple(TITLES))
    if not plan.conform:
        return plan
    return conform(
        plan,
        uploads=bucket,
        fit_picture=fit_picture,
        fit_recording=fit_recording,
        seconds_left=lambda: 60.0,
    )


@pytest.mark.parametrize(
    ("model", "content", "verdict"),
    [case[1:] for case in PICTURES],
    ids=[case[0] for case in PICTURES],
)
def test_picture(model: str, content: Bytes, verdict: Verdict) -> None:
    bucket, picture = Bucket(), content()
    recording = GOOD_RECORDING if model == S2V else None

    if isinstance(verdict, Refused):
        with pytest.raises(InputRejected, match=verdict.word):
            _plan(model, picture, recording, bucket)
        return
    plan = _plan(model, picture, recording, bucket)

    if isinstance(verdict, AsIs):
        assert (plan.image.key, plan.changes) == ("inbox/anna.image", ())
        return
    assert isinstance(verdict, Picture)
    copy = bucket.contents[plan.image.key]
    assert plan.image.key == f"work/{plan.job.id}/image.{_ENDINGS[verdict.format]}"
    assert plan.image.size_bytes == len(copy)
    assert verdict.says in " ".join(plan.changes)
    assert plan.image_facts
    assert (plan.image_facts.width, plan.image_facts.height) == (verdict.width, verdict.height)
    assert media.SECRET.encode() not in copy
    with Image.open(BytesIO(copy)) as image:
        image.load()
        assert (image.format, *image.size) == (verdict.format, verdict.width, verdict.height)
        assert not image.getexif()
        assert not image.info.keys() & {"exif", "xmp", "comment", "Comment"}
        assert not getattr(image, "is_animated", False)
        assert image.mode in ("RGB", "RGBA", "L")
        if verdict.colours:
            assert _shows_the_four_colours(image)


def _shows_the_four_colours(image: Image.Image) -> bool:
    """Whether it lies the right way up, in colours that nobody would call wrong."""
    seen = image.convert("RGB")
    return all(
        abs(found - wanted) < 12
        for (right, low), colour in media.COLOURS.items()
        for found, wanted in zip(
            seen.getpixel((seen.width * (1 + 2 * right) // 4, seen.height * (1 + 2 * low) // 4)),  # type: ignore[arg-type]
            colour,
            strict=True,
        )
    )


_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@pytest.mark.parametrize(
    ("model", "content", "verdict"),
    [case[1:] for case in RECORDINGS],
    ids=[case[0] for case in RECORDINGS],
)
def test_recording(model: str, content: Bytes, verdict: Verdict) -> None:
    bucket, recording = Bucket(), content()

    if isinstance(verdict, Refused):
        with pytest.raises(InputRejected, match=verdict.word):
            _plan(model, GOOD_PICTURE, recording, bucket)
        return
    plan = _plan(model, GOOD_PICTURE, recording, bucket)

    assert plan.audio
    if isinstance(verdict, AsIs):
        assert (plan.audio.key, plan.changes) == ("inbox/anna.audio", ())
        return
    assert isinstance(verdict, Recording)
    copy = bucket.contents[plan.audio.key]
    assert plan.image.key == "inbox/anna.image"
    assert plan.audio.key == f"work/{plan.job.id}/audio.{verdict.format}"
    assert plan.audio.size_bytes == len(copy) < 15_000_000
    assert verdict.says in " ".join(plan.changes)
    assert plan.audio_facts
    assert plan.audio_facts.duration_seconds == pytest.approx(verdict.seconds, abs=0.1)
    assert media.SECRET.encode() not in copy
    heard = media.heard(copy)
    assert heard.format == verdict.format
    assert heard.channels <= 2
    assert heard.rate <= 48_000
    assert heard.seconds == pytest.approx(verdict.seconds, abs=0.1)


def test_table_has_at_least_forty_files() -> None:
    assert len(PICTURES) + len(RECORDINGS) >= 40
    assert {type(verdict) for *_, verdict in PICTURES + RECORDINGS} == {
        AsIs,
        Picture,
        Recording,
        Refused,
    }


def test_copy_keeps_the_limits_of_every_offer_on_its_route() -> None:
    bucket = Bucket()

    plan = _plan(S2V, media.saved(media.scene(7100, 1000), "TIFF"), GOOD_RECORDING, bucket)

    limits, _ = strictest(MODELS[S2V].route)
    assert plan.image_facts
    assert limits.side_under_pixels == plan.image_facts.width + 1
    assert [planned.provider for planned in plan.route] == list(TITLES)
