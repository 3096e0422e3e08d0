"""The kind of a file by its first bytes, in the words that people use for it.

It gives names only. Decoding decides whether a file can be used.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

HEAD_BYTES: Final = 1024


class Medium(StrEnum):
    PICTURE = "picture"
    RECORDING = "recording"


@dataclass(frozen=True)
class Kind:
    words: str
    name: str = ""  # short; empty if Dropreel cannot use such a file
    medium: Medium | None = None


def kind_of(head: bytes) -> Kind:
    """The kind of a file that begins with these bytes."""
    if not head:
        return EMPTY
    for pattern, kind in _PATTERNS:
        if pattern.match(head):
            return kind
    return TEXT if _is_text(head) else UNKNOWN


def _picture(name: str, words: str) -> Kind:
    return Kind(words, name, Medium.PICTURE)


def _sound(name: str, words: str) -> Kind:
    return Kind(words, name, Medium.RECORDING)


EMPTY: Final = Kind("an empty file")
TEXT: Final = Kind("plain text")
UNKNOWN: Final = Kind("a file of an unknown kind")
RAW: Final = Kind("a camera raw file")

JPEG: Final = _picture("JPEG", "a JPEG picture")
PNG: Final = _picture("PNG", "a PNG picture")
BMP: Final = _picture("BMP", "a BMP picture")
WEBP: Final = _picture("WebP", "a WebP picture")
HEIC: Final = _picture("HEIC", "a HEIC photo")
AVIF: Final = _picture("AVIF", "an AVIF picture")
TIFF: Final = _picture("TIFF", "a TIFF picture")
GIF: Final = _picture("GIF", "a GIF picture")

WAV: Final = _sound("WAV", "a WAV recording")
MP3: Final = _sound("MP3", "an MP3 recording")
AMR: Final = _sound("AMR", "an AMR recording")
WEBM: Final = _sound("WebM", "a WebM or Matroska file")
UNKNOWN_MP3: Final = _sound("MP3", UNKNOWN.words)  # an MP3 may begin with junk

_SIGNATURES: Final[tuple[tuple[bytes, Kind], ...]] = (
    (rb"\xff\xd8\xff", JPEG),
    (rb"\x89PNG\r\n\x1a\n", PNG),
    (rb"RIFF....WEBP", WEBP),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", BMP),
    (rb"GIF8[79]a", GIF),
    (rb"II\*\0.{4}CR|....ftypcrx |FUJIFILMCCD-RAW|II(RO|RS|U\0)", RAW),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", TIFF),
    (rb"....ftyp.{0,24}avi[fs]", AVIF),
    (rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", HEIC),
    (rb"\0\0\0\x0cJXL |\xff\x0a", Kind("a JPEG XL picture")),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", Kind("a JPEG 2000 picture")),
    (rb"8BPS", Kind("a Photoshop document")),
    (rb"\0\0\x01\0[^\0]", Kind("an icon")),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", Kind("an SVG drawing")),
    (rb"RIFF....WAVE", WAV),
    (rb"RIFF....AVI ", _sound("the sound of an AVI video", "an AVI video")),
    (rb"ID3[\x02-\x04]", MP3),
    (rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", MP3),
    (rb"....ftypM4[ABP] ", _sound("M4A", "an M4A recording")),
    (
        rb"....ftypqt  |....(moov|mdat|wide)",
        _sound("the sound of a QuickTime video", "a QuickTime video"),
    ),
    (rb"....ftyp3g", _sound("3GP", "a 3GP recording")),
    (rb"....ftyp", _sound("the sound of an MP4 video", "an MP4 video")),
    (rb"OggS.{24}OpusHead", _sound("Opus", "an Opus recording")),
    (rb"OggS", _sound("Ogg", "an Ogg recording")),
    (rb"fLaC", _sound("FLAC", "a FLAC recording")),
    (rb"FORM....AIF[FC]", _sound("AIFF", "an AIFF recording")),
    (rb"\xff[\xf0\xf1\xf8\xf9]|ADIF", _sound("AAC", "an AAC recording")),
    (rb"\xff[\xf4\xf5\xfc\xfd]", _sound("MP2", "an MP2 recording")),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _sound("WMA", "a Windows Media file")),
    (rb"\x1a\x45\xdf\xa3", WEBM),
    (rb"#!AMR", AMR),
    (rb"caff", _sound("CAF", "a Core Audio recording")),
    (rb"\.snd", _sound("AU", "an AU recording")),
    (rb"(RF64|BW64)....WAVE", _sound("RF64", "a 64-bit WAV recording (RF64)")),
    (rb"riff\x2e\x91\xcf\x11", _sound("Wave64", "a Wave64 recording")),
    (rb"MThd", Kind("a MIDI file")),
    (rb"RIFX....WAVE", Kind("a big-endian WAV recording (RIFX)")),
    (rb"%PDF-", Kind("a PDF document")),
    (rb"PK\x03\x04", Kind("a ZIP archive or an office document")),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!", Kind("an archive")),
    (rb"\s*<(?i:(!doctype )?html)", Kind("a web page")),
)

_PATTERNS: Final = tuple((re.compile(pattern, re.DOTALL), kind) for pattern, kind in _SIGNATURES)


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # the end of the head may cut a character
            return False
        text = head[: error.start].decode()
    return not re.search(r"[\0-\x08\x0e-\x1f]", text)
