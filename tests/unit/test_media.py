"""What a file really is, whatever its name says."""

import pytest

from dropreel import media
from dropreel.catalog import AudioFormat, ImageFormat
from tests import media_samples as samples


@pytest.mark.parametrize(
    ("content", "image_format", "sides"),
    [
        (samples.PORTRAIT, ImageFormat.PNG, (512, 512)),
        (samples.picture("JPEG", 640, 480), ImageFormat.JPEG, (640, 480)),
        (samples.picture("JPEG", 640, 480, progressive=True), ImageFormat.JPEG, (640, 480)),
        (samples.picture("JPEG", mode="CMYK"), ImageFormat.JPEG, (512, 512)),
        (samples.picture("MPO"), ImageFormat.JPEG, (512, 512)),
        (samples.turned_by_exif(), ImageFormat.JPEG, (640, 480)),
        (samples.picture("PNG", mode="P"), ImageFormat.PNG, (512, 512)),
        (samples.picture("PNG", mode="I;16"), ImageFormat.PNG, (512, 512)),
        (samples.picture("PNG", mode="RGBA"), ImageFormat.PNG, (512, 512)),
        (samples.animation("PNG"), ImageFormat.PNG, (512, 512)),
        (samples.picture("BMP", 401, 402), ImageFormat.BMP, (401, 402)),
        (samples.picture("WEBP", 401, 402), ImageFormat.WEBP, (401, 402)),
        (samples.picture("WEBP", 401, 402, lossless=True), ImageFormat.WEBP, (401, 402)),
        (samples.picture("WEBP", 401, 402, mode="RGBA"), ImageFormat.WEBP, (401, 402)),
        (samples.animation("WEBP"), ImageFormat.WEBP, (512, 512)),
    ],
)
def test_picture_is_known_by_its_bytes(
    content: bytes, image_format: ImageFormat, sides: tuple[int, int]
) -> None:
    facts = media.image_facts(content)

    assert (facts.format, facts.width, facts.height) == (image_format, *sides)
    assert facts.size_bytes == len(content)
    assert media.image_damage(content, facts) is None


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("kept", [0.001, 0.5, 0.99])
def test_cut_picture_is_noticed(image_format: str, kept: float) -> None:
    whole = samples.picture(image_format)
    cut = whole[: int(len(whole) * kept)]

    try:
        damage = media.image_damage(cut, media.image_facts(cut))
    except media.NotUsable as error:
        assert error.broken
        damage = error.found

    assert damage is not None
    assert "breaks off" in damage


def test_spoiled_picture_is_noticed() -> None:
    facts = media.image_facts(samples.spoiled_png())

    assert media.image_damage(samples.spoiled_png(), facts) == (
        "a PNG picture that breaks off or is damaged"
    )


@pytest.mark.parametrize(
    ("content", "side"),
    [
        (samples.bomb_png(), 50_000),
        (samples.bomb_jpeg(), 65_000),
        (samples.bomb_webp(), 16_383),
    ],
)
def test_bomb_is_only_a_pair_of_numbers(content: bytes, side: int) -> None:
    facts = media.image_facts(content)

    assert (facts.width, facts.height) == (side, side)


@pytest.mark.parametrize(
    ("content", "audio_format", "seconds"),
    [
        (samples.SPEECH_WAV, AudioFormat.WAV, 8.2526),
        (samples.SPEECH_MP3, AudioFormat.MP3, 8.2808),
        (samples.wav(1.5), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, channels=2, bits=24), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, bits=32, codec=3), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, bits=24, extensible=True), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, before_data=b"LIST\x05\0\0\0a tag\0"), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, data_bytes=0xFFFF_FFFF), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, data_bytes=0, riff_bytes=0), AudioFormat.WAV, 1.5),
        (samples.mp3(1.5), AudioFormat.MP3, 1.536),
        (samples.encoded("mp3", "libmp3lame", 1.5, rate=16_000), AudioFormat.MP3, 1.584),
        (samples.mp3_without_header(1.5), AudioFormat.MP3, 1.536),
        (samples.mp3_without_header(0.15), AudioFormat.MP3, 0.19),
        (samples.mp3_of_rising_bitrate(100), AudioFormat.MP3, 2.4),
        (samples.id3_tag() + samples.mp3(1.5), AudioFormat.MP3, 1.536),
        (samples.mp3(1.5) + b"TAG" + bytes(125), AudioFormat.MP3, 1.536),
        (bytes(500) + samples.mp3_without_header(1.5), AudioFormat.MP3, 1.536),
        (samples.mp3(1.5) + samples.mp3(1.5), AudioFormat.MP3, 3.1),
    ],
)
def test_recording_is_known_by_its_bytes(
    content: bytes, audio_format: AudioFormat, seconds: float
) -> None:
    recording = media.audio_facts(content)

    assert recording.damage is None
    assert recording.facts.format is audio_format
    assert recording.facts.duration_seconds == pytest.approx(seconds, abs=0.05)
    assert recording.facts.size_bytes == len(content)


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (
            samples.SPEECH_WAV[: len(samples.SPEECH_WAV) // 2],
            "a WAV recording whose sound stops after 4.1 of 8.3 seconds",
        ),
        (
            samples.SPEECH_MP3[: len(samples.SPEECH_MP3) // 2],
            "an MP3 recording whose sound stops after 4.2 of 8.3 seconds",
        ),
        (
            samples.mp3_without_header(2)[:-9],
            "an MP3 recording whose sound stops after 2.0 seconds",
        ),
        (
            samples.mp3_without_header(2) + samples.NOISE,
            "an MP3 recording whose sound stops after 2.0 seconds",
        ),
    ],
)
def test_cut_recording_is_noticed(content: bytes, damage: str) -> None:
    assert media.audio_facts(content).damage == damage


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (samples.picture("GIF"), "a GIF picture"),
        (samples.picture("TIFF"), "a TIFF picture"),
        (samples.picture("AVIF"), "an AVIF picture"),
        (samples.picture("ICO"), "an icon"),
        (samples.picture("JPEG2000"), "a JPEG 2000 picture"),
        (samples.iso_media(b"heic"), "a HEIC photo, as iPhones take them"),
        (b"<?xml version='1.0'?>\n<svg/>", "an SVG drawing"),
        (samples.SPEECH_MP3, "an MP3 recording"),
        (samples.SPEECH_WAV, "a WAV recording"),
        (samples.TEXT, "plain text"),
        ("Grüße".encode("utf-16"), "plain text"),
        (samples.WEB_PAGE, "a web page"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\x03\x04" + bytes(30), "a ZIP archive or an office document"),
        (b"BM, said the text", "plain text"),
        (samples.NOISE, "a file of an unknown kind"),
        (b"", "an empty file"),
    ],
)
def test_no_picture_is_named_in_words(content: bytes, found: str) -> None:
    with pytest.raises(media.NotUsable) as refusal:
        media.image_facts(content)

    assert refusal.value.found == found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (samples.encoded("ipod", "aac"), "an M4A recording, as voice memo apps make them"),
        (samples.encoded("mov", "aac"), "a QuickTime video"),
        (samples.encoded("mp4", "aac"), "an MP4 video"),
        (samples.encoded("adts", "aac"), "an AAC recording"),
        (samples.encoded("ogg", "libopus"), "an Opus recording"),
        (samples.encoded("webm", "libopus"), "a WebM or Matroska file"),
        (samples.encoded("flac", "flac"), "a FLAC recording"),
        (samples.encoded("aiff", "pcm_s16be"), "an AIFF recording"),
        (samples.encoded("mp2", "mp2"), "an MP2 recording"),
        (samples.encoded("wav", "adpcm_ms"), "a WAV file with ADPCM sound inside, not plain WAV"),
        (samples.encoded("wav", "libmp3lame"), "a WAV file with MP3 sound inside, not plain WAV"),
        (samples.encoded("wav", "pcm_s16le", rf64="always"), "a 64-bit WAV recording (RF64)"),
        (samples.PORTRAIT, "a PNG picture"),
        (samples.wav(0), "a WAV recording with no sound in it"),
        (samples.wav(1)[:30], "a WAV recording that breaks off or is damaged"),
        (samples.wav(1)[:44], "a WAV recording with no sound in it"),
        (samples.wav(1, channels=0), "a WAV recording whose header contradicts itself"),
        (samples.id3_tag(), "a file that begins like an MP3 but holds no sound"),
        (b"\xff\xfb\x90\xc4" + samples.TEXT, "a file that begins like an MP3 but holds no sound"),
        (samples.TEXT, "plain text"),
        (samples.NOISE, "a file of an unknown kind"),
        (b"", "an empty file"),
    ],
)
def test_no_recording_is_named_in_words(content: bytes, found: str) -> None:
    with pytest.raises(media.NotUsable) as refusal:
        media.audio_facts(content)

    assert refusal.value.found == found
