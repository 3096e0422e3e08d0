"""A recording, told from its headers: never decoded, and little of it read.

WAV and MP3, which the offers take as they are, are judged exactly, down to whether the sound breaks
off. Of the others, the duration that their header promises, where it does.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final, NamedTuple

from mutagen.aiff import AIFFInfo
from mutagen.asf import ASF
from mutagen.mp3 import MPEGFrame, MPEGInfo
from mutagen.mp3._util import XingHeader
from mutagen.mp4 import MP4Info
from mutagen.mp4._atom import Atoms
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggvorbis import OggVorbis

from dropreel.media import kinds
from dropreel.media.iso_media import top_boxes
from dropreel.media.kinds import HEAD_BYTES, Kind, Medium, NotUsable, kind_of
from dropreel.media.reader import Sparing
from dropreel.model.catalog import AudioFormat
from dropreel.model.messages import AudioFacts


@dataclass(frozen=True)
class Sound:
    """What is known of a recording without decoding it."""

    kind: Kind
    size_bytes: int
    duration_seconds: float | None = None  # None: only decoding can tell
    exact: bool = True  # False for a duration that a header promises or a bitrate suggests
    metadata: tuple[str, ...] = ()  # which, in words
    damage: str | None = None  # in words

    @property
    def format(self) -> AudioFormat | None:
        return self.kind.format if isinstance(self.kind.format, AudioFormat) else None

    @property
    def facts(self) -> AudioFacts | None:
        """As a plan tells them; None while only conform can tell."""
        if self.format is None or self.duration_seconds is None:
            return None
        return AudioFacts(
            format=self.format,
            duration_seconds=self.duration_seconds,
            size_bytes=self.size_bytes,
        )


def read_recording(file: BinaryIO, size_bytes: int) -> Sound:
    """What a recording is. Raises `NotUsable`, and whatever reading the file itself raises."""
    sparing = Sparing(file, size_bytes)
    head = sparing.at(0, HEAD_BYTES)
    kind = kind_of(head)
    try:
        if kind is kinds.MP3:
            kind = _behind_tag(sparing, head)
        if kind is not kinds.UNKNOWN and kind.medium is not Medium.RECORDING:
            raise NotUsable(kind.words, broken=kind is kinds.EMPTY)
        sound = Sound(kind, size_bytes)
        if kind is kinds.WAV:
            return _wav(sparing, sound)
        if kind in (kinds.MP3, kinds.UNKNOWN):  # an MP3 may begin with anything
            return _mp3(sparing, sound)
        return _convertible(sparing, sound, head)
    except NotUsable:
        raise
    except Exception:
        if sparing.fault:
            raise sparing.fault from None
        raise _damaged(kind) from None


def _damaged(kind: Kind) -> NotUsable:
    return NotUsable(f"{kind.words} that breaks off or is damaged", broken=True)


def _breaks_off(kind: Kind) -> str:
    return f"{kind.words} that breaks off before its end"


_TAGS = "tags (title, artist, picture...)"
_MORE = "data of an app"


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
_SOUND_CHUNKS: Final = frozenset((b"fmt ", b"data", b"fact", b"PEAK", b"JUNK", b"PAD ", b"FLLR"))


def _wav(file: Sparing, sound: Sound) -> Sound:
    chunks: dict[bytes, tuple[int, int]] = {}
    metadata: list[str] = []
    for name, start, length in _chunks(file):
        chunks.setdefault(name, (start, length))
        if name == b"LIST":
            metadata += [_TAGS] * _says_more_than_its_encoder(file.at(start, min(length, 4096)))
        elif name not in _SOUND_CHUNKS:
            metadata.append(_TAGS if name.lower() == b"id3 " else _MORE)
        if name == b"data" and not 0 < length < _UNSTATED_BYTES:
            break  # it goes on to the end of the file
    if not chunks.keys() >= {b"fmt ", b"data"}:
        raise ValueError("no sound")
    codec, channels, rate, per_second, frame_bytes, bits = struct.unpack(
        "<HHIIHH", file.at(chunks[b"fmt "][0], 16)
    )
    if codec == _EXTENSIBLE:
        (codec,) = struct.unpack("<H", file.at(chunks[b"fmt "][0] + 24, 2))
    start, size_bytes = chunks[b"data"]
    present_bytes = max(0, file.size_bytes - start)
    (riff_bytes,) = struct.unpack("<I", file.at(4, 4))
    if size_bytes >= _UNSTATED_BYTES or (size_bytes == 0 == riff_bytes):
        size_bytes = present_bytes
    if codec not in (_PCM, _FLOAT):
        inside = _WAV_CODECS.get(codec, "compressed")
        kind = replace(
            sound.kind,
            words=f"a WAV file with {inside} sound inside",
            name=f"WAV with {inside} sound",
            format=None,
        )
        seconds = min(size_bytes, present_bytes) / per_second if per_second else None
        damage = _breaks_off(kind) if present_bytes < size_bytes else None
        return replace(sound, kind=kind, duration_seconds=seconds, exact=False, damage=damage)
    if not rate or not frame_bytes or frame_bytes != channels * ((bits + 7) // 8):
        raise NotUsable("a WAV recording whose header contradicts itself", broken=True)
    seconds = size_bytes / frame_bytes / rate
    return _heard(
        replace(sound, metadata=tuple(dict.fromkeys(metadata))),
        seconds,
        present_seconds=min(seconds, present_bytes / frame_bytes / rate),
        stops_early=present_bytes < size_bytes,
    )


def _chunks(file: Sparing) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's name, where its body starts and the size that it states."""
    position = 12
    while position + 8 <= file.size_bytes:
        name, length = struct.unpack("<4sI", file.at(position, 8))
        yield name, position + 8, length
        position += 8 + length + length % 2


def _says_more_than_its_encoder(content: bytes) -> bool:
    """Whether a LIST chunk holds more than the name of the software."""
    if content[:4] != b"INFO":
        return True
    position = 4
    while position + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, position)
        if name != b"ISFT":
            return True
        position += 8 + length + length % 2
    return False


# MP3. mutagen finds the first frame and reads what its header promises. A promise also survives a
# file that breaks off or goes on: unless the sizes agree, the frames that are there are counted.
# Tables: http://www.mp3-tech.org/programmer/frame_header.html

_KBIT_MPEG1: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBIT_MPEG2: Final = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAME_STREAM = 0xFFFE_0C00  # sync, version, layer and sample rate never change within a stream
_PROMISE_TOLERANCE_SECONDS = 0.25  # encoders count their own padding, or do not
_LOST_TOLERANCE_SECONDS = 0.1
_CLOSING_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_ID3V1_BYTES = 128
_FEWEST_FRAMES = 8  # fewer that end in something else are an accident, not sound
_COUNTED_AT_MOST_BYTES = 20_000_000  # more are over eight minutes: too long for any offer
_ENCODER_FRAMES = (b"TSSE", b"TENC", b"TSS\0", b"TEN\0")


def _behind_tag(file: Sparing, head: bytes) -> Kind:
    """An ID3 tag may stand before other things than MP3."""
    if head.startswith(b"ID3"):
        kind = kind_of(file.at(10 + _synchsafe(head[6:10]), 64))
        if kind in (kinds.AAC, kinds.FLAC, kinds.AIFF):
            return kind
    return kinds.MP3


def _mp3(file: Sparing, sound: Sound) -> Sound:
    if sound.kind is kinds.MP3:
        no_mp3 = NotUsable("a file that begins like an MP3 but holds no sound", broken=True)
    else:
        no_mp3 = NotUsable(sound.kind.words, broken=False)
    sound = replace(sound, kind=kinds.MP3)
    try:
        file.seek(0)
        first = MPEGInfo(file)
        file.seek(first.frame_offset)
        frame = MPEGFrame(file)  # type: ignore[no-untyped-call]
    except Exception:
        if file.fault:
            raise
        raise no_mp3 from None
    if first.layer != 3:
        return replace(sound, kind=kinds.MP2 if first.layer == 2 else kinds.MP1)

    metadata = _TAGS if _tag_says_more(file, first.frame_offset) else ""
    end = file.size_bytes
    if file.at(end - _ID3V1_BYTES, 3) == b"TAG" if end > _ID3V1_BYTES else False:
        metadata, end = _TAGS, end - _ID3V1_BYTES
    promised_seconds = getattr(frame, "length", 0)  # only when a Xing or VBRI header tells it
    if promised_seconds and _promised_bytes(file, frame) == end - first.frame_offset:
        sound = replace(sound, metadata=(metadata,) if metadata else ())
        return replace(sound, duration_seconds=promised_seconds)
    if file.size_bytes > _COUNTED_AT_MOST_BYTES:
        return replace(sound, duration_seconds=first.length, exact=False, metadata=(_MORE,))

    content = file.whole()
    counted = _count_frames(content, first.frame_offset)
    rest = content[counted.end :].strip(b"\0")
    tagged = rest.startswith(_CLOSING_TAGS)
    clean = counted.end <= len(content) and (not rest or tagged)
    if not clean and counted.frames < _FEWEST_FRAMES:
        raise no_mp3
    if tagged or counted.tags:
        metadata = _TAGS
    seconds = counted.frames * (1152 if first.version == 1 else 576) / first.sample_rate
    lost = promised_seconds - seconds > _LOST_TOLERANCE_SECONDS
    kept = lost or abs(promised_seconds - seconds) < _PROMISE_TOLERANCE_SECONDS
    return _heard(
        replace(sound, metadata=(metadata,) if metadata else ()),
        promised_seconds if promised_seconds and kept else seconds,
        present_seconds=seconds,
        stops_early=lost or not clean,
    )


def _promised_bytes(file: Sparing, frame: MPEGFrame) -> int:
    """How long the stream is, by its Xing header; -1 when that does not tell."""
    try:
        offset = XingHeader.get_offset(frame)  # type: ignore[no-untyped-call]
        file.seek(frame.frame_offset + offset)
        return int(XingHeader(file).bytes)  # type: ignore[no-untyped-call]
    except Exception:
        if file.fault:
            raise
        return -1


class _Counted(NamedTuple):
    frames: int
    end: int  # after the end of the content for a stream that is cut
    tags: int


def _count_frames(content: bytes, start: int) -> _Counted:
    """How many frames follow one another."""
    (first,) = struct.unpack_from(">I", content, start)
    mpeg1 = first >> 19 & 3 == 3
    rate = (44100, 48000, 32000)[first >> 10 & 3] >> {3: 0, 2: 1, 0: 2}[first >> 19 & 3]
    bitrates, factor = (_KBIT_MPEG1, 144_000) if mpeg1 else (_KBIT_MPEG2, 72_000)
    frames, tags, position = 0, 0, start
    while position + 4 <= len(content):
        (header,) = struct.unpack_from(">I", content, position)
        if content.startswith(b"ID3", position):  # files joined end to end
            position += 10 + _synchsafe(content[position + 6 : position + 10])
            tags += 1
            continue
        index = header >> 12 & 15
        if (header ^ first) & _SAME_STREAM or not 1 <= index <= 14:
            break
        position += factor * bitrates[index - 1] // rate + (header >> 9 & 1)
        frames += 1
    return _Counted(frames, position, tags)


def _tag_says_more(file: Sparing, end: int) -> bool:
    """Whether an ID3 tag before the sound holds more than the encoder's name.

    https://id3.org/id3v2.4.0-structure
    """
    tag = file.at(0, 10)
    behind = 10 + _synchsafe(tag[6:10]) if tag.startswith(b"ID3") else 0
    if file.at(behind, min(max(0, end - behind), 4096)).strip(b"\0"):
        return True  # another tag, or what is none
    if not behind:
        return False
    short = tag[3] == 2  # frame headers of version 2 are shorter
    body = file.at(10, min(_synchsafe(tag[6:10]), 4096))
    position = 0
    while name := body[position : position + (3 if short else 4)].strip(b"\0"):
        if name.ljust(4, b"\0") not in _ENCODER_FRAMES:
            return True
        size = body[position + 3 : position + 6] if short else body[position + 4 : position + 8]
        size_bytes = _synchsafe(size) if tag[3] == 4 else int.from_bytes(size)
        position += (6 if short else 10) + size_bytes
    return False


def _synchsafe(size: bytes) -> int:
    """ID3's way to write a size: seven bits to the byte."""
    total = 0
    for byte in size:
        total = total << 7 | byte & 0x7F
    return total


def _heard(sound: Sound, seconds: float, *, present_seconds: float, stops_early: bool) -> Sound:
    words = sound.kind.words
    if present_seconds <= 0:
        raise NotUsable(f"{words} with no sound in it", broken=True)
    of_all = f" of {seconds:.1f}" if seconds > present_seconds else ""
    stops = f"{words} whose sound stops after {present_seconds:.1f}{of_all} seconds"
    return replace(sound, duration_seconds=seconds, damage=stops if stops_early else None)


# Formats that conform decodes


def _convertible(file: Sparing, sound: Sound, head: bytes) -> Sound:
    if sound.kind in kinds.ISO_RECORDINGS:
        boxes = dict(top_boxes(file))
        if any(end > file.size_bytes for end in boxes.values()):
            return replace(sound, damage=_breaks_off(sound.kind))
        if b"moov" not in boxes:
            raise _damaged(sound.kind)
    if sound.kind is kinds.AIFF and head.startswith(b"FORM"):
        (form_bytes,) = struct.unpack_from(">I", head, 4)
        if 8 + form_bytes > file.size_bytes:
            return replace(sound, damage=_breaks_off(sound.kind))
    try:
        seconds = _promised_seconds(file, sound.kind, head)
    except NotUsable:
        raise
    except Exception:
        if file.fault:
            raise
        seconds = None  # a rare variant, or broken: decoding will tell
    # Nothing and the absurd are what streams say that were never finished.
    if seconds is None or not 0 < seconds < 7 * 24 * 3600:
        return sound
    return replace(sound, duration_seconds=seconds, exact=False)


def _promised_seconds(file: Sparing, kind: Kind, head: bytes) -> float | None:
    file.seek(0)
    if kind in kinds.ISO_RECORDINGS:
        atoms = Atoms(file)
        tracks = atoms[b"moov"].findall(b"trak")
        if not any(t[b"mdia", b"hdlr"].read(file)[1][8:12] == b"soun" for t in tracks):
            raise NotUsable(f"{kind.words} without sound", broken=False)
        return float(MP4Info(atoms, file).length)  # type: ignore[no-untyped-call]
    if kind is kinds.FLAC and head.startswith(b"fLaC"):
        # https://www.rfc-editor.org/rfc/rfc9639#name-streaminfo
        rate_to_samples = int.from_bytes(head[18:26])
        return (rate_to_samples & 0xF_FFFF_FFFF) / (rate_to_samples >> 44)
    if kind is kinds.AIFF:
        return float(AIFFInfo(file).length)
    if kind is kinds.WINDOWS_MEDIA:
        return _length(ASF, file)
    for mark, reader in _OGG:
        if kind in (kinds.OPUS, kinds.OGG) and re.search(mark, head):
            return _length(reader, file)
    return None


def _length(reader: Callable[[Sparing], Any], file: Sparing) -> float:
    return float(reader(file).info.length)


_OGG: Final[tuple[tuple[bytes, Callable[[Sparing], Any]], ...]] = (
    (rb"OpusHead", OggOpus),
    (rb"\x01vorbis", OggVorbis),
    (rb"\x7fFLAC", OggFLAC),
    (rb"Speex   ", OggSpeex),
)
