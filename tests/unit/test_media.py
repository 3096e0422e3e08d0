"""What a file really is, whatever its name says, and how little of it is read to know."""

import struct
import time
import tracemalloc
from collections.abc import Callable
from io import BytesIO

import pytest
from dropreel.media.pictures import Picture, read_picture
from dropreel.media.reader import RangedFile, buffered
from dropreel.media.recordings import Sound, read_recording
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dropreel.media.kinds import NotUsable
from dropreel.model.catalog import AudioFormat, ImageFormat
from tests.support import media_samples as samples

GPS, EXIF = "the place where it was taken (GPS)", "camera data (EXIF)"
TAGS = "tags (title, artist, picture...)"


def picture_of(content: bytes) -> Picture:
    return read_picture(BytesIO(content), len(content))


def sound_of(content: bytes) -> Sound:
    return read_recording(BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("content", "image_format", "sides", "flags"),
    [
        (samples.PORTRAIT, ImageFormat.PNG, (512, 512), ""),
        (samples.picture("JPEG", 640, 480), ImageFormat.JPEG, (640, 480), ""),
        (samples.picture("JPEG", 640, 480, progressive=True), ImageFormat.JPEG, (640, 480), ""),
        (samples.picture("JPEG", mode="CMYK"), ImageFormat.JPEG, (512, 512), "cmyk"),
        (samples.picture("MPO"), ImageFormat.JPEG, (512, 512), ""),
        (samples.turned_by_exif(), ImageFormat.JPEG, (640, 480), "turned"),
        (samples.photo_with_place("PNG"), ImageFormat.PNG, (640, 480), "turned"),
        (samples.photo_with_place("WEBP"), ImageFormat.WEBP, (640, 480), "turned"),
        (samples.picture("PNG", mode="P"), ImageFormat.PNG, (512, 512), ""),
        (samples.picture("PNG", mode="I;16"), ImageFormat.PNG, (512, 512), "deep"),
        (samples.picture("PNG", mode="RGBA"), ImageFormat.PNG, (512, 512), "alpha"),
        (samples.picture("PNG", mode="LA"), ImageFormat.PNG, (512, 512), "alpha"),
        (samples.picture("PNG", mode="P", transparency=0), ImageFormat.PNG, (512, 512), "alpha"),
        (samples.animation("PNG"), ImageFormat.PNG, (512, 512), "animated"),
        (samples.picture("BMP", 401, 402), ImageFormat.BMP, (401, 402), ""),
        (samples.picture("WEBP", 401, 402), ImageFormat.WEBP, (401, 402), ""),
        (samples.picture("WEBP", 401, 402, lossless=True), ImageFormat.WEBP, (401, 402), ""),
        (samples.animation("WEBP"), ImageFormat.WEBP, (512, 512), "animated"),
    ],
)
def test_picture_is_known_by_its_bytes(
    content: bytes, image_format: ImageFormat, sides: tuple[int, int], flags: str
) -> None:
    picture = picture_of(content)

    assert (picture.format, picture.width, picture.height) == (image_format, *sides)
    assert picture.size_bytes == len(content)
    assert picture.damage is None
    names = ("turned", "alpha", "cmyk", "deep", "animated")
    assert [name for name in names if getattr(picture, name)] == flags.split()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (samples.heic(), "HEIC"),
        (samples.picture("AVIF", 640, 480), "AVIF"),
        (samples.picture("TIFF", 640, 480), "TIFF"),
        (samples.picture("GIF", 640, 480), "GIF"),
    ],
)
def test_picture_that_can_be_converted_is_known(content: bytes, name: str) -> None:
    picture = picture_of(content)

    assert (picture.kind.name, picture.width, picture.height) == (name, 640, 480)
    assert picture.format is None
    assert picture.facts is None
    assert picture.damage is None


@pytest.mark.parametrize(
    ("content", "metadata"),
    [
        (samples.picture("JPEG"), []),
        (samples.picture("JPEG", icc_profile=bytes(500)), []),
        (samples.picture("JPEG", mode="CMYK"), []),
        (samples.turned_by_exif(), [EXIF]),
        (samples.photo_with_place(), [GPS, EXIF]),
        (samples.photo_with_place("PNG"), [GPS, EXIF]),
        (samples.photo_with_place("WEBP"), [EXIF, GPS]),
        (samples.picture("JPEG", comment=b"for Anna"), ["comments"]),
        (samples.picture("JPEG", xmp=b"<x/>"), ["editing data (XMP)"]),
        (
            samples.with_segment(samples.picture("JPEG"), 0xED, b"Photoshop 3.0\0"),
            ["captions (IPTC)"],
        ),
        (samples.with_segment(samples.picture("JPEG"), 0xEB, b"C2PA"), ["data of an app"]),
        (samples.motion_photo(), ["editing data (XMP)", "what follows its end"]),
        (samples.picture("JPEG") + bytes(9), []),
        (samples.picture("JPEG") + b"secret", ["what follows its end"]),
        (samples.picture("PNG"), []),
        (samples.picture("PNG", dpi=(72, 72), icc_profile=bytes(500)), []),
        (samples.PORTRAIT, []),
        (
            samples.with_chunk(
                samples.with_chunk(samples.picture("PNG"), b"tIME", bytes(7)), b"tEXt", b"Comment"
            ),
            ["comments", "the time of its last change"],
        ),
        (samples.with_chunk(samples.picture("PNG"), b"zTXt", b"x", last=True), ["comments"]),
        (samples.with_chunk(samples.picture("PNG"), b"caBX", b"x"), ["data of an app"]),
        (samples.picture("PNG") + b"secret", ["what follows its end"]),
        (samples.picture("WEBP", xmp=b"<x/>"), ["editing data (XMP)"]),
        (
            samples.with_riff_chunk(samples.picture("WEBP"), b"XMP ", b"<x/>"),
            ["editing data (XMP)"],
        ),
        (samples.picture("WEBP") + b"secret", ["what follows its end"]),
    ],
)
def test_metadata_of_a_picture_is_noticed(content: bytes, metadata: list[str]) -> None:
    picture = picture_of(content)

    assert list(picture.metadata) == metadata
    assert picture.damage is None


def test_metadata_behind_thousands_of_chunks_is_noticed() -> None:
    png = samples.picture("PNG", 64, 64)
    place = png.index(b"IDAT") - 4
    for _ in range(100):
        png = png[:place] + struct.pack(">I", 3000) + b"IDAT" + bytes(3004) + png[place:]

    assert picture_of(png).metadata == ()
    assert picture_of(samples.with_chunk(png, b"tEXt", b"x", last=True)).metadata == ("comments",)
    assert picture_of(png[:-9]).damage == "a PNG picture that breaks off before its end"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "WEBP", "AVIF"])
@pytest.mark.parametrize("kept", [0.001, 0.5, 0.99, 0.9999])
def test_cut_picture_is_noticed(image_format: str, kept: float) -> None:
    whole = samples.picture(image_format)

    try:
        damage = picture_of(whole[: int(len(whole) * kept)]).damage
    except NotUsable as error:
        assert error.broken
        damage = error.found

    assert damage is not None
    assert "breaks off" in damage


@pytest.mark.parametrize(
    ("content", "side"),
    [
        (samples.bomb_png(), 50_000),
        (samples.bomb_jpeg(), 65_000),
        (samples.bomb_webp(), 16_383),
    ],
)
def test_bomb_is_only_a_pair_of_numbers(content: bytes, side: int) -> None:
    picture = picture_of(content)

    assert (picture.width, picture.height) == (side, side)


@pytest.mark.parametrize(
    ("content", "audio_format", "seconds"),
    [
        (samples.SPEECH_WAV, AudioFormat.WAV, 8.2526),
        (samples.SPEECH_MP3, AudioFormat.MP3, 8.2808),
        (samples.wav(1.5), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, channels=2, bits=24), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, bits=32, codec=3), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, bits=24, extensible=True), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, before_data=b"JUNK\x05\0\0\0a pad\0"), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, data_bytes=0xFFFF_FFFF), AudioFormat.WAV, 1.5),
        (samples.wav(1.5, data_bytes=0, riff_bytes=0), AudioFormat.WAV, 1.5),
        (samples.encoded("wav", "pcm_s16le", 1.5), AudioFormat.WAV, 1.5),
        (samples.mp3(1.5), AudioFormat.MP3, 1.536),
        (samples.encoded("mp3", "libmp3lame", 1.5, rate=16_000), AudioFormat.MP3, 1.584),
        (samples.mp3_without_header(1.5), AudioFormat.MP3, 1.536),
        (samples.mp3_without_header(0.15), AudioFormat.MP3, 0.19),
        (samples.mp3_of_rising_bitrate(100), AudioFormat.MP3, 2.4),
        (bytes(500) + samples.mp3_without_header(1.5), AudioFormat.MP3, 1.536),
    ],
)
def test_recording_is_known_by_its_bytes(
    content: bytes, audio_format: AudioFormat, seconds: float
) -> None:
    sound = sound_of(content)

    assert (sound.damage, sound.metadata, sound.exact) == (None, (), True)
    assert sound.format is audio_format
    assert sound.duration_seconds == pytest.approx(seconds, abs=0.05)
    assert sound.size_bytes == len(content)


@pytest.mark.parametrize(
    ("content", "metadata", "seconds"),
    [
        (samples.tagged_mp3(1.5), TAGS, 1.536),
        (samples.id3_tag() + samples.tagged_mp3(1.5), TAGS, 1.536),
        (samples.mp3(1.5) + b"TAG" + bytes(125), TAGS, 1.536),
        (samples.mp3(1.5) + b"APETAGEX" + bytes(24), TAGS, 1.536),
        (samples.mp3(1.5) + samples.mp3(1.5), TAGS, 3.1),
        (samples.encoded("wav", "pcm_s16le", 1.5, tags="artist=Anna"), TAGS, 1.5),
        (samples.with_riff_chunk(samples.wav(1.5), b"id3 ", b"ID3"), TAGS, 1.5),
        (samples.with_riff_chunk(samples.wav(1.5), b"bext", b"x"), "data of an app", 1.5),
    ],
)
def test_metadata_of_a_recording_is_noticed(content: bytes, metadata: str, seconds: float) -> None:
    sound = sound_of(content)

    assert sound.metadata == (metadata,)
    assert sound.damage is None
    assert sound.duration_seconds == pytest.approx(seconds, abs=0.05)


@pytest.mark.parametrize(
    ("content", "name", "seconds"),
    [
        (samples.encoded("ipod", "aac"), "M4A", 2),
        (samples.encoded("ipod", "alac"), "M4A", 2),
        (samples.encoded("3gp", "aac"), "3GP", 2),
        (samples.video(2), "the sound of an MP4 video", 2),
        (samples.video(2, "mov"), "the sound of a QuickTime video", 2),
        (samples.encoded("ogg", "libopus"), "Opus", 2),
        (samples.encoded("flac", "flac"), "FLAC", 2),
        (samples.encoded("aiff", "pcm_s16be"), "AIFF", 2),
        (samples.encoded("wav", "pcm_alaw"), "WAV with A-law sound", 2),
        (
            samples.with_byte_rate(samples.encoded("wav", "adpcm_ms"), 48_569),
            "WAV with ADPCM sound",
            2,
        ),
        (samples.encoded("adts", "aac"), "AAC", None),
        (samples.id3_tag() + samples.encoded("adts", "aac"), "AAC", None),
        (samples.encoded("webm", "libopus"), "WebM", None),
        (samples.encoded("mp2", "mp2"), "MP2", None),
        (samples.encoded("caf", "pcm_s16le"), "CAF", None),
        (samples.encoded("au", "pcm_s16be"), "AU", None),
        (samples.encoded("w64", "pcm_s16le"), "Wave64", None),
        (samples.encoded("wav", "pcm_s16le", rf64="always"), "RF64", None),
    ],
)
def test_recording_that_can_be_converted_is_known(
    content: bytes, name: str, seconds: float | None
) -> None:
    sound = sound_of(content)

    assert (sound.kind.name, sound.format, sound.facts) == (name, None, None)
    assert sound.damage is None
    if seconds is None:
        assert sound.duration_seconds is None
    else:
        assert sound.duration_seconds == pytest.approx(seconds, abs=0.03)
        assert not sound.exact


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
        (
            samples.encoded("mp4", "aac")[:-9],
            "an MP4 video that breaks off before its end",
        ),
        (samples.video()[:9000], "an MP4 video that breaks off before its end"),
        (
            samples.encoded("aiff", "pcm_s16be")[:-9],
            "an AIFF recording that breaks off before its end",
        ),
        (
            samples.encoded("wav", "pcm_alaw")[:-900],
            "a WAV file with A-law sound inside that breaks off before its end",
        ),
    ],
)
def test_cut_recording_is_noticed(content: bytes, damage: str) -> None:
    assert sound_of(content).damage == damage


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (samples.picture("ICO"), "an icon"),
        (samples.picture("JPEG2000"), "a JPEG 2000 picture"),
        (b"<?xml version='1.0'?>\n<svg/>", "an SVG drawing"),
        (samples.SPEECH_MP3, "an MP3 recording"),
        (samples.SPEECH_WAV, "a WAV recording"),
        (samples.video(), "an MP4 video"),
        (samples.TEXT, "plain text"),
        ("Grüße".encode("utf-16"), "plain text"),
        (samples.WEB_PAGE, "a web page"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\x03\x04" + bytes(30), "a ZIP archive or an office document"),
        (b"BM, said the text", "plain text"),
        (samples.NOISE, "a file of an unknown kind"),
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture that breaks off or is damaged"),
        (samples.picture("JPEG")[:100], "a JPEG picture that breaks off or is damaged"),
    ],
)
def test_no_picture_is_named_in_words(content: bytes, found: str) -> None:
    with pytest.raises(NotUsable) as refusal:
        picture_of(content)

    assert refusal.value.found == found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (samples.PORTRAIT, "a PNG picture"),
        (samples.heic(), "a HEIC photo"),
        (samples.video(sound=False), "an MP4 video without sound"),
        (samples.iso_media(b"mp42"), "an MP4 video that breaks off or is damaged"),
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
    with pytest.raises(NotUsable) as refusal:
        sound_of(content)

    assert refusal.value.found == found


# How little is read


class Vast:
    """A huge object: a beginning, an end, and zeros between. It counts what is fetched."""

    def __init__(self, head: bytes, size_bytes: int, tail: bytes) -> None:
        self.size_bytes = size_bytes
        self.fetched_bytes = 0
        self.fetches = 0
        self._head = head
        self._tail = tail

    def fetch(self, start: int, size_bytes: int) -> bytes:
        self.fetches += 1
        self.fetched_bytes += size_bytes
        piece = bytearray(size_bytes)
        for place, content in ((0, self._head), (self.size_bytes - len(self._tail), self._tail)):
            lead = place - start
            cut = content[max(0, -lead) : max(0, size_bytes - lead)]
            piece[max(0, lead) : max(0, lead) + len(cut)] = cut
        return bytes(piece)


def vast_jpeg() -> Vast:
    whole = samples.photo_with_place()
    return Vast(whole[:2000], 40_000_000, b"\xff\xd9")


def vast_png() -> Vast:
    whole = samples.picture("PNG")
    # chunks of 8 KB, as libpng writes them
    head = whole[:33] + (struct.pack(">I4s", 8192, b"IDAT") + bytes(8196)) * 40
    tail = struct.pack(">I4s", 8192, b"IDAT") + bytes(8196) + whole[-12:]
    return Vast(head, 40_000_000, tail)


def vast_mov() -> Vast:
    content = samples.video(2, "mov")
    start = content.index(b"mdat") - 4
    end = content.index(b"moov") - 4
    size_bytes = 500_000_000
    tail = content[end:]
    mdat = struct.pack(">I4s", size_bytes - start - len(tail), b"mdat")
    return Vast(content[:start] + mdat, size_bytes, tail)


def vast_wav() -> Vast:
    size_bytes = 500_000_000
    head = samples.wav(1, rate=48_000, data_bytes=size_bytes - 44, riff_bytes=size_bytes - 8)
    return Vast(head[:44], size_bytes, b"")


@pytest.mark.parametrize(
    ("made", "read"),
    [
        (vast_jpeg, read_picture),
        (vast_png, read_picture),
        (vast_mov, read_recording),
        (vast_wav, read_recording),
    ],
)
def test_little_of_a_large_file_is_read(
    made: Callable[[], Vast], read: Callable[..., Picture | Sound]
) -> None:
    vast = made()

    judged = read(buffered(vast.fetch, vast.size_bytes), vast.size_bytes)

    assert judged.damage is None
    assert vast.fetched_bytes < 600_000
    assert vast.fetches < 12


def test_what_could_not_be_fetched_is_no_fault_of_the_file() -> None:
    def fetch(start: int, size_bytes: int) -> bytes:
        if start == 0:
            return (BOX + struct.pack(">I4s", 5_000_000, b"mdat")).ljust(size_bytes, b"\0")
        raise ConnectionError("cut off")

    with pytest.raises(ConnectionError):
        read_recording(buffered(fetch, 10_000_000), 10_000_000)


def test_ranged_file_reads_like_any_other() -> None:
    content = bytes(range(256)) * 1000
    file = buffered(lambda start, size: content[start : start + size], len(content))

    assert file.read(10) == content[:10]
    assert file.seek(-7, 2) == len(content) - 7
    assert file.read() == content[-7:]
    assert file.read(1) == b""
    file.seek(100_000)
    assert file.read(70_000) == content[100_000:170_000]
    with pytest.raises(ValueError, match="before"):
        RangedFile(lambda start, size: b"", 10).seek(-1)


# No bytes make reading do anything but answer, soon, in little memory.

PICTURES = [
    samples.picture("JPEG", 64, 64),
    samples.photo_with_place("JPEG", 64, 64),
    samples.picture("PNG", 64, 64, "P"),
    samples.photo_with_place("PNG", 64, 64),
    samples.picture("BMP", 64, 64, "P"),
    samples.picture("WEBP", 64, 64),
    samples.photo_with_place("WEBP", 64, 64),
    samples.animation("WEBP"),
    samples.heic(64, 64),
    samples.picture("AVIF", 64, 64),
    samples.picture("TIFF", 64, 64),
    samples.picture("GIF", 64, 64),
]
RECORDINGS = [
    samples.mp3(0.3),
    samples.tagged_mp3(0.3),
    samples.mp3_without_header(0.3),
    samples.wav(0.1, extensible=True),
    samples.wav(0.1, before_data=b"LIST\x05\0\0\0a tag\0"),
    samples.encoded("wav", "adpcm_ms", 0.1),
    samples.encoded("ipod", "aac", 0.1),
    samples.video(0.1),
    samples.encoded("ogg", "libopus", 0.1),
    samples.encoded("flac", "flac", 0.1),
    samples.encoded("aiff", "pcm_s16be", 0.1),
    samples.encoded("adts", "aac", 0.1),
    samples.encoded("webm", "libopus", 0.1),
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(300),
]


@st.composite
def spoiled(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """An original with some bytes changed, mostly in its header, and perhaps cut."""
    content = bytearray(draw(st.sampled_from(originals)))
    near_start = st.integers(0, min(300, len(content) - 1))
    anywhere = st.integers(0, len(content) - 1)
    for position in draw(st.lists(near_start | anywhere, max_size=6)):
        content[position] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
    kept = draw(st.none() | near_start | anywhere)
    return bytes(content[:kept])


@hypothesis_settings(max_examples=600, deadline=2000)
@given(content=spoiled(PICTURES) | spoiled(RECORDINGS) | st.binary(max_size=300))
def test_no_bytes_make_reading_crash(content: bytes) -> None:
    for read in (picture_of, sound_of):
        try:
            judged = read(content)
        except NotUsable as error:
            assert error.found
        else:
            assert judged.kind.name


LARGE_BYTES = 20_000_000
BOX = struct.pack(">I4s4s4x", 16, b"ftyp", b"M4A ")
WINDOWS_MEDIA = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
HOSTILE: dict[str, tuple[Callable[[], bytes], bytes]] = {
    "boxes without end": (lambda: BOX, struct.pack(">I4s", 8, b"free")),
    "boxes in boxes": (lambda: BOX, struct.pack(">I4s", LARGE_BYTES // 2, b"moov")),
    "sync after sync": (lambda: b"", b"\xff\xfb\x90\xc4"),
    "almost sync": (lambda: b"", b"\xff"),
    "segments without end": (lambda: b"\xff\xd8", b"\xff\xfe\x00\x02"),
    "fill bytes": (lambda: b"\xff\xd8", b"\xff"),
    "chunks without end": (lambda: samples.picture("PNG")[:33], bytes(1)),
    "pages of other streams": (
        lambda: samples.encoded("ogg", "libopus", 0.1)[:500],
        b"OggS" + bytes(23),
    ),
    "a directory without end": (lambda: struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 2**63), b"\0"),
    "a header of exabytes": (lambda: WINDOWS_MEDIA + struct.pack("<Q", 2**63 - 1), b"\0"),
    "a tag of megabytes": (lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f", b"TXXX"),
    "WAV chunks without end": (lambda: b"RIFF\0\0\0\0WAVE", b"abcd\0\0\0\0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_takes_neither_long_nor_much_memory(name: str) -> None:
    """Files that ask a trusting parser for ever more reads, or for far too much memory."""
    head, again = HOSTILE[name]
    content = head() + again * (LARGE_BYTES // len(again))
    file = BytesIO(content)
    tracemalloc.start()
    began = time.perf_counter()
    for read in (read_picture, read_recording):
        try:
            read(file, len(content))
        except NotUsable as error:
            assert error.found
    took_seconds = time.perf_counter() - began
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert took_seconds < 5
    assert peak_bytes < 100_000_000
