"""What a file really is, read from its bytes and never from its name.

The header comes first: a picture's size is known before anything is decoded, so a decompression
bomb is only ever a pair of large numbers. Decoding comes second and finds what is broken.
Whatever the bytes are, the answer is facts or words, never another exception: that is why parsers
are called under a broad `except`, for a parser may raise anything on bytes made to confuse it.
"""

import re
import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from mutagen.mp3 import MPEGFrame, MPEGInfo
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from dropreel.catalog import AudioFormat, ImageFormat
from dropreel.render import AudioFacts, ImageFacts

Kind = ImageFormat | AudioFormat | str
"""A format that some model takes, or the name of another one in words."""


class NotUsable(Exception):
    """Nothing can be said of the picture or the sound: it is something else, or too broken.

    `found` tells what the file is, in words; `broken` whether it is of a known format after all.
    """

    def __init__(self, found: str, *, broken: bool) -> None:
        super().__init__(found)
        self.found = found
        self.broken = broken


@dataclass(frozen=True)
class Recording:
    """The facts of a recording, and in words what is broken about it, if anything."""

    facts: AudioFacts
    damage: str | None = None


def image_facts(content: bytes) -> ImageFacts:
    """The format and the size of a picture, from its header alone. Raises `NotUsable`."""
    kind = kind_of(content)
    if kind == _EMPTY:
        raise NotUsable(_EMPTY, broken=True)
    if not isinstance(kind, ImageFormat):
        raise NotUsable(name_of(kind), broken=False)
    try:
        width, height = _size(content, kind)
    except Exception:
        raise NotUsable(f"{name_of(kind)} that breaks off or is damaged", broken=True) from None
    return ImageFacts(format=kind, width=width, height=height, size_bytes=len(content))


def image_damage(content: bytes, facts: ImageFacts) -> str | None:
    """Decode a picture and tell in words what is broken about it; None when nothing is.

    Takes memory for every pixel, so judge the facts first. Of an animation, the first frame counts.
    """
    try:
        image = _PLUGINS[facts.format](BytesIO(content))
        image.draft(image.mode, (1, 1))  # JPEG: reads all of it, keeps an eighth of each side
        image.load()
    except MemoryError:
        raise  # ours to mend, not a fault of the file
    except Exception as error:
        broken = (
            "breaks off before its end" if "runcated" in str(error) else "breaks off or is damaged"
        )
        return f"{name_of(facts.format)} that {broken}"
    return None


def audio_facts(content: bytes) -> Recording:
    """The format and the duration of a recording. Raises `NotUsable`."""
    kind = kind_of(content)
    if kind == _EMPTY:
        raise NotUsable(_EMPTY, broken=True)
    if kind is AudioFormat.WAV:
        return _wav(content)
    if kind in (AudioFormat.MP3, _UNKNOWN):  # an MP3 may begin with anything
        return _mp3(content, kind)
    raise NotUsable(name_of(kind), broken=False)


# Formats by their first bytes

_EMPTY: Final = "an empty file"
_UNKNOWN: Final = "a file of an unknown kind"

_NAMES: Final[dict[Kind, str]] = {
    ImageFormat.JPEG: "a JPEG picture",
    ImageFormat.PNG: "a PNG picture",
    ImageFormat.BMP: "a BMP picture",
    ImageFormat.WEBP: "a WebP picture",
    AudioFormat.WAV: "a WAV recording",
    AudioFormat.MP3: "an MP3 recording",
}

_SIGNATURES: Final[tuple[tuple[bytes, Kind], ...]] = (
    (rb"\xff\xd8\xff", ImageFormat.JPEG),
    (rb"\x89PNG\r\n\x1a\n", ImageFormat.PNG),
    (rb"RIFF....WEBP", ImageFormat.WEBP),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", ImageFormat.BMP),
    (rb"RIFF....WAVE", AudioFormat.WAV),
    (rb"ID3[\x02-\x04]", AudioFormat.MP3),
    (rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", AudioFormat.MP3),
    (rb"GIF8[79]a", "a GIF picture"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF picture"),
    (rb"....ftyp.{0,24}avi[fs]", "an AVIF picture"),
    (rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", "a HEIC photo, as iPhones take them"),
    (rb"....ftypM4[ABP] ", "an M4A recording, as voice memo apps make them"),
    (rb"....ftypqt  ", "a QuickTime video"),
    (rb"....ftyp3g", "a 3GP recording"),
    (rb"....ftyp", "an MP4 video"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL picture"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"8BPS", "a Photoshop document"),
    (rb"\0\0\x01\0[^\0]", "an icon"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", "an SVG drawing"),
    (rb"OggS.{24}OpusHead", "an Opus recording"),
    (rb"OggS", "an Ogg recording"),
    (rb"fLaC", "a FLAC recording"),
    (rb"FORM....AIF[FC]", "an AIFF recording"),
    (rb"\xff[\xf0\xf1\xf8\xf9]|ADIF", "an AAC recording"),
    (rb"\xff[\xf4-\xf7\xfc-\xfd]", "an MP2 recording"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file"),
    (rb"\x1a\x45\xdf\xa3", "a WebM or Matroska file"),
    (rb"#!AMR", "an AMR recording"),
    (rb"caff", "a Core Audio recording"),
    (rb"\.snd", "an AU recording"),
    (rb"MThd", "a MIDI file"),
    (rb"(RF64|BW64)....WAVE", "a 64-bit WAV recording (RF64)"),
    (rb"RIFX....WAVE", "a big-endian WAV recording (RIFX)"),
    (rb"riff\x2e\x91\xcf\x11", "a Wave64 recording"),
    (rb"RIFF....AVI ", "an AVI video"),
    (rb"%PDF-", "a PDF document"),
    (rb"PK\x03\x04", "a ZIP archive or an office document"),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!", "an archive"),
    (rb"\s*<(?i:(!doctype )?html)", "a web page"),
)

_PATTERNS: Final = tuple((re.compile(pattern, re.DOTALL), kind) for pattern, kind in _SIGNATURES)


def kind_of(content: bytes) -> Kind:
    """The kind of file that the first bytes speak of."""
    if not content:
        return _EMPTY
    head = content[:1024]
    for pattern, kind in _PATTERNS:
        if pattern.match(head):
            return kind
    return "plain text" if _is_text(head) else _UNKNOWN


def name_of(kind: Kind) -> str:
    return _NAMES.get(kind, str(kind))


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a character is cut by the end of the head
            return False
        text = head[: error.start].decode()
    return not re.search(r"[\0-\x08\x0e-\x1f]", text)


# Pictures

_PLUGINS: Final[dict[ImageFormat, type[ImageFile]]] = {
    # Not `Image.open`: that tries formats nobody asked for, and its limit on pixels is global.
    ImageFormat.JPEG: JpegImageFile,
    ImageFormat.PNG: PngImageFile,
    ImageFormat.BMP: BmpImageFile,
    ImageFormat.WEBP: WebPImageFile,
}


def _size(content: bytes, image_format: ImageFormat) -> tuple[int, int]:
    if image_format is ImageFormat.WEBP:
        return _webp_size(content)
    return _PLUGINS[image_format](BytesIO(content)).size


def _webp_size(content: bytes) -> tuple[int, int]:
    """Read here because Pillow's reader takes memory for every pixel before it tells the size.

    https://developers.google.com/speed/webp/docs/riff_container
    """
    match content[12:16]:
        case b"VP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from(
                "<HBHB", content, 24
            )
            return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", content, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", content, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            raise ValueError("no picture in it")


# WAV. Read here because mutagen tells neither the codec inside nor what the header promised.

_PCM, _FLOAT, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
_UNSTATED_BYTES = 0x7FFF_F000  # sizes from here on: written by a recorder that never came back
_WAV_CODECS: Final = {
    0x0002: "ADPCM",
    0x0006: "A-law",
    0x0007: "µ-law",
    0x0011: "ADPCM",
    0x0050: "MP2",
    0x0055: "MP3",
    0x00FF: "AAC",
}


def _wav(content: bytes) -> Recording:
    chunks = _riff_chunks(content)
    try:
        start, _ = chunks[b"fmt "]
        codec, channels, sample_rate, _, frame_bytes, sample_bits = struct.unpack_from(
            "<HHIIHH", content, start
        )
        if codec == _EXTENSIBLE:
            (codec,) = struct.unpack_from("<H", content, start + 24)
        start, size_bytes = chunks[b"data"]
    except (KeyError, struct.error):
        raise NotUsable("a WAV recording that breaks off or is damaged", broken=True) from None
    if codec not in (_PCM, _FLOAT):
        inside = _WAV_CODECS.get(codec, "compressed")
        raise NotUsable(f"a WAV file with {inside} sound inside, not plain WAV", broken=False)
    if not sample_rate or not frame_bytes or frame_bytes != channels * ((sample_bits + 7) // 8):
        raise NotUsable("a WAV recording whose header contradicts itself", broken=True)

    present_bytes = len(content) - start
    (riff_bytes,) = struct.unpack_from("<I", content, 4)
    if size_bytes >= _UNSTATED_BYTES or (size_bytes == 0 == riff_bytes):
        size_bytes = present_bytes
    seconds = size_bytes / frame_bytes / sample_rate
    return _recording(
        content,
        AudioFormat.WAV,
        seconds,
        present_seconds=min(seconds, present_bytes / frame_bytes / sample_rate),
        stops_early=present_bytes < size_bytes,
    )


def _riff_chunks(content: bytes) -> dict[bytes, tuple[int, int]]:
    """Where each chunk starts and the size that it states, up to the sound."""
    chunks: dict[bytes, tuple[int, int]] = {}
    position = 12
    while b"data" not in chunks and position + 8 <= len(content):
        name, size_bytes = struct.unpack_from("<4sI", content, position)
        chunks.setdefault(name, (position + 8, size_bytes))
        position += 8 + size_bytes + size_bytes % 2
    return chunks


# MP3. mutagen finds the first frame and reads what its header promises; the frames that are
# really there are counted here, because a promise also survives a file that breaks off.
# Tables: http://www.mp3-tech.org/programmer/frame_header.html

_KBIT_MPEG1: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBIT_MPEG2: Final = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAME_STREAM = 0xFFFE_0C00  # sync, version, layer and sample rate never change within a stream
_PROMISE_TOLERANCE_SECONDS = 0.25  # encoders count their own padding, or do not
_LOST_TOLERANCE_SECONDS = 0.1
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_FEWEST_FRAMES = 8  # fewer that end in something else are an accident, not sound


def _mp3(content: bytes, kind: Kind) -> Recording:
    if kind is AudioFormat.MP3:
        no_mp3 = NotUsable("a file that begins like an MP3 but holds no sound", broken=True)
    else:
        no_mp3 = NotUsable(name_of(kind), broken=False)
    try:
        first = MPEGInfo(BytesIO(content))
        stream = BytesIO(content)
        stream.seek(first.frame_offset)
        frame = MPEGFrame(stream)  # type: ignore[no-untyped-call]
        promised_seconds = getattr(frame, "length", 0)  # only when a Xing or VBRI header tells it
    except Exception:
        raise no_mp3 from None
    if first.layer != 3:
        raise NotUsable(f"an MP{first.layer} recording", broken=False)

    frames, end = _count_frames(content, first.frame_offset)
    rest = content[end:].strip(b"\0")
    clean = end <= len(content) and (not rest or rest.startswith(_TAGS))
    if not clean and frames < _FEWEST_FRAMES:
        raise no_mp3
    seconds = frames * (1152 if first.version == 1 else 576) / first.sample_rate
    lost = promised_seconds - seconds > _LOST_TOLERANCE_SECONDS
    kept = lost or abs(promised_seconds - seconds) < _PROMISE_TOLERANCE_SECONDS
    return _recording(
        content,
        AudioFormat.MP3,
        promised_seconds if promised_seconds and kept else seconds,
        present_seconds=seconds,
        stops_early=lost or not clean,
    )


def _count_frames(content: bytes, start: int) -> tuple[int, int]:
    """How many frames follow one another, and where they end: after `content` for a cut one."""
    (first,) = struct.unpack_from(">I", content, start)
    mpeg1 = first >> 19 & 3 == 3
    rate = (44100, 48000, 32000)[first >> 10 & 3] >> {3: 0, 2: 1, 0: 2}[first >> 19 & 3]
    bitrates, factor = (_KBIT_MPEG1, 144_000) if mpeg1 else (_KBIT_MPEG2, 72_000)
    frames, position = 0, start
    while position + 4 <= len(content):
        (header,) = struct.unpack_from(">I", content, position)
        if content.startswith(b"ID3", position):  # files joined end to end
            position += 10 + _synchsafe(content[position + 6 : position + 10])
            continue
        index = header >> 12 & 15
        if (header ^ first) & _SAME_STREAM or not 1 <= index <= 14:
            break
        position += factor * bitrates[index - 1] // rate + (header >> 9 & 1)
        frames += 1
    return frames, position


def _synchsafe(size: bytes) -> int:
    """ID3's way to write a size: seven bits to the byte."""
    total = 0
    for byte in size:
        total = total << 7 | byte & 0x7F
    return total


def _recording(
    content: bytes,
    audio_format: AudioFormat,
    seconds: float,
    *,
    present_seconds: float,
    stops_early: bool,
) -> Recording:
    name = name_of(audio_format)
    if present_seconds <= 0:
        raise NotUsable(f"{name} with no sound in it", broken=True)
    facts = AudioFacts(format=audio_format, duration_seconds=seconds, size_bytes=len(content))
    if not stops_early:
        return Recording(facts)
    of_all = f" of {seconds:.1f}" if seconds > present_seconds else ""
    return Recording(facts, f"{name} whose sound stops after {present_seconds:.1f}{of_all} seconds")
