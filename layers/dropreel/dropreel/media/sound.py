"""Decodes recordings completely and writes copies, with FFmpeg through PyAV.

The sound is decoded frame by frame into a WAV file, so a long one needs no memory. Of a video, only
the sound is read. A recording is never cut: it is taken completely, or refused.
"""

import re
import struct
import wave
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import SEEK_END, SEEK_SET
from tempfile import TemporaryFile
from typing import BinaryIO, Final

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.packet import Packet
from av.stream import Discard

from dropreel.media import kinds
from dropreel.media.fitting import listed, megabytes
from dropreel.media.kinds import HEAD_BYTES, Kind, Medium, kind_of
from dropreel.media.opened import Copy, MediumRefused, SoundFacts
from dropreel.model.catalog import AudioFormat, AudioLimits

MAX_HEARD_SECONDS: Final = 3600.0  # far above the limit of every offer
MIN_SECONDS: Final = 0.3
MAX_COPY_BYTES: Final = 50_000_000  # where the offer names no size

# Only these: some other formats of FFmpeg are playlists, which name files and URLs to fetch.
_FORMATS: Final = "mov,avi,ogg,flac,aiff,asf,matroska,aac,mp3,wav,w64,caf,amr,au"
_OPEN_OPTIONS: Final = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
# The length that these state is a guess, or is corrected below.
_GUESSED: Final = ("aac", "mp3", "amr", "wav", "w64", "caf")
_LOSSLESS: Final = ("pcm_", "flac", "alac", "wmalossless", "wavpack", "ape", "tta", "mlp")
_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_PROTECTED: Final = ("drms", "enca", "aavd")

_MAX_LOST_SECONDS: Final = 0.1  # nobody hears one lost frame
_MAX_SHORT_SECONDS: Final = 0.05  # against an exact statement
_MAX_SHORT_SAMPLES: Final = 6000  # against any other: encoders pad by up to three frames of AAC
_ABSURD_SECONDS: Final = 7 * 24 * 3600.0  # unfinished streams state such lengths
_UNKNOWN_SECONDS: Final = 0.025  # of a packet without a duration
_PADDING_SECONDS: Final = 0.15  # what an MP3 encoder may add to the length
_PLACEHOLDERS: Final = (0, 2_000_000_000)  # sizes in a WAV whose writer never filled them in
_UNSTATED_BYTES: Final = 0x7FFF_F000
_HEADER_BYTES: Final = 44  # some writers state the size of the file instead of the sound's
_KBIT: Final = (128, 96, 64, 32)  # of an MP3, for each channel

_TAIL_BYTES: Final = 1 << 17
_XING: Final = re.compile(
    rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f](....)", re.DOTALL
)


class Sound:
    """A recording that was decoded to its end."""

    def __init__(self, file: BinaryIO, max_seconds: float) -> None:
        """`max_seconds` is the longest that an offer takes: more is counted, but not kept.

        Raises `MediumRefused` for every file that cannot be used.
        """
        self._kind = _kind(file)
        self._file = file
        self._max_seconds = max_seconds
        self._rate, self._samples = _RATES[-1], 0
        self._is_heard = False
        self._good_packets: set[int] = set()
        self._is_damaged_somewhere = False
        self._wav: BinaryIO = TemporaryFile()  # noqa: SIM115 - it lives as long as the sound
        weakref.finalize(self, self._wav.close)
        try:
            self._decode()
        except (MediumRefused, MemoryError):
            raise
        except Exception:
            raise self._broken("is damaged") from None
        if self._seconds < MIN_SECONDS or not self._is_heard:
            self._refuse_silence()

    @property
    def _seconds(self) -> float:
        return self._samples / self._rate

    @property
    def facts(self) -> SoundFacts:
        return SoundFacts(duration_seconds=self._seconds)

    def write(self, limits: AudioLimits, into: BinaryIO) -> Copy:
        """Write the best copy within the limits into an empty file. Raises `MediumRefused`."""
        for name, write in self._ways(limits):
            into.seek(SEEK_SET)
            into.truncate()
            write(into)
            if into.seek(0, SEEK_END) < (limits.size_under_bytes or MAX_COPY_BYTES):
                return Copy(format=name, changes=tuple(self._changes(name)))
        raise MediumRefused(
            "a recording that is too large, even as an MP3",
            rule=f"less than {megabytes(limits.size_under_bytes or MAX_COPY_BYTES)}",
            cure="Cut the recording, so that it is shorter.",
        )

    def _ways(
        self, limits: AudioLimits
    ) -> Iterator[tuple[AudioFormat, Callable[[BinaryIO], None]]]:
        """Yields the ways to write it, the best first."""
        is_padded_too_long = _padding_is_too_long(self._seconds, limits)
        if AudioFormat.MP3 in limits.formats and self._is_mp3 and not is_padded_too_long:
            yield AudioFormat.MP3, self._copy_packets
        wav = (AudioFormat.WAV, self._write_wav)
        mp3s = [(AudioFormat.MP3, lambda into, k=kbit: self._encode(into, k)) for kbit in _KBIT]
        if is_padded_too_long:
            mp3s = []
        ways = [wav, *mp3s] if self._is_lossless or not mp3s else [mp3s[0], wav, *mp3s[1:]]
        yield from ((taken, way) for taken, way in ways if taken in limits.formats)

    def _changes(self, taken: AudioFormat) -> Iterator[str]:
        if self._kind.name != taken.upper():
            yield f"The recording was converted from {self._kind.name} to {taken.upper()}."
        elif taken is AudioFormat.WAV and not self._is_plain:
            yield "The recording was brought to 16 bits, mono or stereo, and a usual sample rate."
        done = []
        if self._has_tags:
            done.append("tags (title, artist, picture...)")
        if self._is_damaged_somewhere:
            done.append("damaged bytes")
        if done:
            yield f"Removed from the recording: {listed(done, 'and')}."

    # Decoding

    def _decode(self) -> None:
        self._refuse_cut()
        with self._opened() as (container, stream):
            self._rate = next((rate for rate in _RATES if rate >= stream.rate), _RATES[-1])
            self._channels = min(stream.channels, 2)
            shape = stream.codec_context.name, stream.rate, stream.channels
            self._is_plain = shape == ("pcm_s16le", self._rate, self._channels)
            self._has_floats = stream.codec_context.name.startswith("pcm_f")
            self._is_lossless = stream.codec_context.name.startswith(_LOSSLESS)
            self._is_mp3 = (
                container.format.name == "mp3" and stream.codec_context.name == "mp3float"
            )
            self._has_tags = bool(
                {key.lower() for key in (*container.metadata, *stream.metadata)}
                - {"encoder", "major_brand", "minor_version", "compatible_brands", "handler_name"}
                - {"language", "vendor_id", "creation_time", "timecode"}
            ) or any(other.type == "video" for other in container.streams if self._is_mp3)
            with wave.open(self._wav, "wb") as made:
                made.setframerate(self._rate)
                made.setnchannels(self._channels)
                made.setsampwidth(2)
                for frame in self._resampled(self._frames(container, stream)):
                    self._keep(frame, made)
            self._refuse_short(container, stream)

    def _keep(self, frame: AudioFrame, made: wave.Wave_write) -> None:
        self._samples += frame.samples
        sound = bytes(frame.planes[0])[: frame.samples * self._channels * 2]
        self._is_heard = self._is_heard or bool(sound.strip(b"\0"))
        if self._seconds > MAX_HEARD_SECONDS:
            raise MediumRefused(
                f"more than {self._seconds / 60:.0f} minutes long",
                rule=f"at most {self._max_seconds:g} seconds",
                cure=f"Cut the recording to {self._max_seconds:g} seconds or less.",
            )
        if self._seconds <= self._max_seconds:
            made.writeframesraw(sound)

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, AudioStream]]:
        self._file.seek(SEEK_SET)
        with av.open(
            self._file, "r", container_options=_OPEN_OPTIONS, buffer_size=1 << 15
        ) as container:
            streams = container.streams.audio
            known = [stream for stream in streams if getattr(stream, "codec_context", None)]
            tags = [_codec_tag(stream) for stream in streams]
            if any(tag in _PROTECTED for tag in tags) or (streams and not known):
                raise MediumRefused(
                    f"{self._kind.words} that is protected, or in a rare coding",
                    rule="a recording that any player can play",
                    cure="Export the recording as an MP3 in the app that made it.",
                )
            if not streams:
                raise MediumRefused(
                    f"{self._kind.words} without sound",
                    rule="a recording",
                    cure="Drop a recording, or a video with sound.",
                )
            for stream in container.streams:
                stream.discard = Discard.default if stream is known[0] else Discard.all
            known[0].codec_context.thread_count = 1
            yield container, known[0]

    def _frames(self, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        heard_seconds = lost_seconds = inside_seconds = 0.0
        begun: float | None = None
        for number, packet in enumerate(container.demux(stream)):
            try:
                frames = packet.decode()
            except FFmpegError:
                if pause_seconds := self._pause_seconds(packet, stream):
                    yield from _silence(stream, pause_seconds)
                    heard_seconds += pause_seconds
                    continue
                lost_seconds += float((packet.duration or 0) * stream.time_base) or _UNKNOWN_SECONDS
                self._is_damaged_somewhere = True
                continue
            self._good_packets.add(number)
            if frames:
                inside_seconds, lost_seconds = inside_seconds + lost_seconds, 0.0
            if inside_seconds > _MAX_LOST_SECONDS:
                break
            for frame in frames:
                if self._kind is kinds.WEBM:  # recorders of calls leave pauses out
                    begun = frame.time if begun is None else begun
                    pause_seconds = (frame.time or 0) - (begun or 0) - heard_seconds
                    if pause_seconds > _MAX_LOST_SECONDS:
                        yield from _silence(stream, pause_seconds)
                        heard_seconds += pause_seconds
                heard_seconds += frame.samples / frame.sample_rate
                yield frame
        # Junk after the end of an MP3 is no sound. In other files, sound is missing.
        if inside_seconds + (0 if self._is_mp3 else lost_seconds) > _MAX_LOST_SECONDS:
            raise self._broken(f"is damaged after {heard_seconds:.1f} seconds")

    def _pause_seconds(self, packet: "Packet[AudioStream]", stream: AudioStream) -> float:
        """AMR sends no sound in pauses: types 8 to 15 of a frame (3GPP TS 26.101)."""
        is_amr = stream.codec_context.name.startswith("amr")
        return 0.02 if is_amr and packet.size and (bytes(packet)[0] >> 3 & 0xF) > 7 else 0.0

    def _resampled(self, frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
        """16 bits at our rate, mono or stereo. A recording may change its format midway."""
        graph, shape = None, None
        for frame in frames:
            now = frame.format.name, frame.layout.name, frame.sample_rate
            if graph and shape != now:
                yield from _drained(graph)
                graph = None
            if graph is None:
                graph, shape = self._graph(frame), now
            frame.pts = None
            graph.push(frame)
            yield from _pulled(graph)
        if graph:
            yield from _drained(graph)

    def _graph(self, frame: AudioFrame) -> Graph:
        """No NaN, no change of level by mixing, no clipping."""
        graph = Graph()
        layout = "mono" if self._channels == 1 else "stereo"
        source = graph.add_abuffer(
            format=frame.format.name,
            sample_rate=frame.sample_rate,
            layout=frame.layout.name,
            channels=frame.layout.nb_channels,
        )
        channels, steps = frame.layout.nb_channels, []
        if self._has_floats:
            number = "if(isnan(val(ch))+isinf(val(ch)),0,val(ch))"
            steps.append(graph.add("aeval", f"exprs={'|'.join([number] * channels)}:c=same"))
        if channels > self._channels:
            mix = f"ochl={layout}:osf=flt:clev=1:rematrix_maxval=1000"
            steps += [graph.add("aresample", mix), graph.add("alimiter", "level=0")]
        shape = f"sample_fmts=s16:sample_rates={self._rate}:channel_layouts={layout}"
        steps.append(graph.add("aformat", shape))
        graph.link_nodes(source, *steps, graph.add("abuffersink")).configure()
        return graph

    # Whether it is whole

    def _refuse_cut(self) -> None:
        """By the container's own sizes: FFmpeg plays what is there and reports nothing."""
        size_bytes = self._file.seek(0, SEEK_END)
        ends = _PARTS.get(self._kind.name)
        if ends and any(end > size_bytes for end in ends(self._file, size_bytes)):
            raise self._broken("breaks off before its end")

    def _refuse_short(self, container: InputContainer, stream: AudioStream) -> None:
        promised_seconds = self._promised_seconds(container, stream)
        if not self._seconds:
            raise self._broken("with no sound in it")
        is_exact = self._is_lossless or container.format.name == "wav"
        short_seconds = _MAX_SHORT_SECONDS if is_exact else _MAX_SHORT_SAMPLES / stream.rate
        if self._seconds + short_seconds < promised_seconds < _ABSURD_SECONDS:
            raise self._broken(
                f"whose sound stops after {self._seconds:.2f} of {promised_seconds:.2f} seconds"
            )

    def _promised_seconds(self, container: InputContainer, stream: AudioStream) -> float:
        if container.format.name == "wav":
            return self._wav_promises()
        if container.format.name == "mp3":
            return self._xing_promises(stream)
        if container.format.name in _GUESSED:
            return 0.0
        if stream.duration:
            return float(stream.duration * stream.time_base)
        alone = container.duration and len(container.streams) == 1
        return (container.duration or 0) / av.time_base if alone else 0.0

    def _wav_promises(self) -> float:
        """What the header states, unless it is a placeholder or includes the header's length."""
        self._file.seek(12)
        while len(head := self._file.read(8)) == 8:
            name, size_bytes = struct.unpack("<4sI", head)
            start = self._file.tell()
            if name == b"data":
                there_bytes = self._file.seek(0, SEEK_END) - start
                unstated = size_bytes in _PLACEHOLDERS or size_bytes >= _UNSTATED_BYTES
                if unstated or size_bytes - there_bytes <= _HEADER_BYTES:
                    return 0.0
                return self._seconds * float(size_bytes) / max(there_bytes, 1)
            self._file.seek(start + size_bytes + size_bytes % 2)
        return 0.0

    def _xing_promises(self, stream: AudioStream) -> float:
        """By the number of frames that an MP3's first frame states."""
        self._file.seek(SEEK_SET)
        found = _XING.search(self._file.read(1 << 20))
        frame_samples = 1152 if stream.rate >= 32000 else 576
        return int.from_bytes(found[1]) * frame_samples / stream.rate if found else 0.0

    def _refuse_silence(self) -> None:
        if not self._is_heard:
            raise MediumRefused(
                "silence only",
                rule="a recording with sound",
                cure="Check the microphone, and record again.",
            )
        raise MediumRefused(
            f"{self._seconds:.2f} seconds long",
            rule=f"at least {MIN_SECONDS:g} seconds of sound",
            cure="Record it again, longer.",
        )

    def _broken(self, what: str) -> MediumRefused:
        if self._kind is kinds.UNKNOWN_MP3:
            return MediumRefused(self._kind.words)
        link = "" if what.startswith(("with ", "whose ")) else "that "
        return MediumRefused(f"{self._kind.words} {link}{what}", broken=True)

    # Writing

    def _write_wav(self, into: BinaryIO) -> None:
        self._wav.seek(SEEK_SET)
        while block := self._wav.read(1 << 20):
            into.write(block)

    def _encode(self, into: BinaryIO, kbit: int) -> None:
        self._wav.seek(SEEK_SET)
        with av.open(self._wav, "r", format="wav") as source, _mp3(into) as made:
            stream = made.add_stream("libmp3lame", rate=self._rate)
            stream.layout = "mono" if self._channels == 1 else "stereo"
            stream.bit_rate = kbit * 1000 * self._channels
            for frame in source.decode(audio=0):
                made.mux(stream.encode(frame))
            made.mux(stream.encode(None))

    def _copy_packets(self, into: BinaryIO) -> None:
        """Copies an MP3 without encoding, but without tags and damaged packets."""
        with self._opened() as (container, stream), _mp3(into) as made:
            copied = made.add_stream_from_template(stream)
            for number, packet in enumerate(container.demux(stream)):
                if packet.size and number in self._good_packets:
                    packet.stream = copied
                    made.mux(packet)


def _kind(file: BinaryIO) -> Kind:
    head = file.read(HEAD_BYTES)
    kind = kind_of(head)
    if head.startswith(b"ID3"):  # such a tag may also be in front of other formats
        a, b, c, d = head[6:10].ljust(4, b"\0")
        file.seek(10 + (a << 21 | b << 14 | c << 7 | d))
        behind = kind_of(file.read(64))
        kind = behind if behind.medium is Medium.RECORDING else kind
    if kind is kinds.UNKNOWN:
        return kinds.UNKNOWN_MP3
    if kind.medium is not Medium.RECORDING:
        raise MediumRefused(kind.words, broken=kind is kinds.EMPTY)
    return kind


def _codec_tag(stream: AudioStream) -> str:
    with suppress(UnicodeDecodeError):  # PyAV takes it for ASCII: AAC in an AVI has 0xff
        return str(getattr(stream, "codec_tag", ""))
    return ""


def _silence(stream: AudioStream, seconds: float) -> Iterator[AudioFrame]:
    samples = round(seconds * stream.rate)
    while samples > 0:
        frame = AudioFrame(format="flt", layout="mono", samples=min(samples, stream.rate))
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate = stream.rate
        samples -= frame.samples
        yield frame


def _pulled(graph: Graph) -> Iterator[AudioFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        if isinstance(frame, AudioFrame):
            yield frame


def _drained(graph: Graph) -> Iterator[AudioFrame]:
    graph.push(None)
    yield from _pulled(graph)


@contextmanager
def _mp3(into: BinaryIO) -> Iterator[av.container.OutputContainer]:
    tagless = {"id3v2_version": "0", "write_id3v1": "0", "fflags": "+bitexact"}
    with av.open(into, "w", format="mp3", container_options=tagless) as made:
        yield made


def _padding_is_too_long(seconds: float, limits: AudioLimits) -> bool:
    """Whether an MP3 encoder's padding could make the recording too long."""
    bounds = limits.duration_at_most_seconds, limits.duration_under_seconds
    return any(bound and bound - _PADDING_SECONDS < seconds <= bound for bound in bounds)


def _box_ends(file: BinaryIO, size_bytes: int) -> Iterator[int]:
    """Where each box with sound in it ends (ISO/IEC 14496-12, 4.2)."""
    position = 0
    while position + 8 <= size_bytes:
        file.seek(position)
        length, name, long_length = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        length = long_length if length == 1 else length or size_bytes  # 0: up to the end
        position += max(length, 8)
        if name in (b"moov", b"moof", b"mdat"):  # other boxes at the end do not matter
            yield position


def _page_ends(file: BinaryIO, size_bytes: int) -> Iterator[int]:
    """Where the last page of an Ogg ends (RFC 3533, 6)."""
    start = max(size_bytes - _TAIL_BYTES, 0)
    file.seek(start)
    tail = file.read()
    page = tail.rfind(b"OggS")
    segments = tail[page + 26] if page >= 0 and page + 26 < len(tail) else 255
    table = tail[page + 27 : page + 27 + segments]
    missing = 255 * (segments - len(table))
    yield start + page + 27 + segments + sum(table) + missing


def _element_ends(file: BinaryIO, size_bytes: int) -> Iterator[int]:
    """Where each element of a Matroska file ends (RFC 8794, 4)."""
    position = 0
    while position < size_bytes:
        file.seek(position)
        head = file.read(12)
        name_bytes = 9 - head[0].bit_length()
        length_bytes = 9 - head[name_bytes : name_bytes + 1].ljust(1, b"\1")[0].bit_length()
        if name_bytes > 4 or length_bytes > 8:
            return  # junk behind the end
        position += name_bytes + length_bytes
        most = (1 << 7 * length_bytes) - 1
        length = int.from_bytes(head[name_bytes:][:length_bytes].ljust(length_bytes, b"\0")) & most
        yield position + (0 if length == most else length)  # all ones: unknown, as in a live stream
        if length != most and head[:4] != _SEGMENT:
            position += length


def _stated_end(file: BinaryIO, _size_bytes: int) -> Iterator[int]:
    """The size of a Windows Media file by its properties (ASF, 3.2), unless it was live."""
    file.seek(SEEK_SET)
    _, _, properties = file.read(HEAD_BYTES).partition(_ASF_PROPERTIES)
    if len(properties) >= 88 and not properties[72] & 1:
        yield int.from_bytes(properties[24:32], "little")


def _riff_end(file: BinaryIO, _size_bytes: int) -> Iterator[int]:
    """Where the first part of an AVI ends. Writers that never came back left 0."""
    file.seek(4)
    yield 8 + int.from_bytes(file.read(4), "little")


_ASF_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_SEGMENT: Final = b"\x18\x53\x80\x67"
_PARTS: Final[dict[str, Callable[[BinaryIO, int], Iterator[int]]]] = {
    "Ogg": _page_ends,
    "Opus": _page_ends,
    "WebM": _element_ends,
    "WMA": _stated_end,
    "M4A": _box_ends,
    "the sound of an AVI video": _riff_end,
    "3GP": _box_ends,
    "the sound of a QuickTime video": _box_ends,
    "the sound of an MP4 video": _box_ends,
}
