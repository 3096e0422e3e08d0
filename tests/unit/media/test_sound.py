"""A recording is decoded whole and written whole, or it is refused: nothing is cut or guessed."""

import math
import random
import struct
from array import array
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import av
import pytest

from dropreel.media import kinds
from dropreel.media.opened import Copy, Fault, MediumRefused
from dropreel.media.sound import MAX_HEARD_SECONDS, Sound
from dropreel.model.catalog import AudioFormat, AudioLimits
from tests.support import media_samples as samples
from tests.support.media_samples import film, heard, muxed, tone

BOTH = (AudioFormat.WAV, AudioFormat.MP3)
LIMITS = AudioLimits(formats=BOTH, required=True, size_under_bytes=15_000_000)
JUNK = random.Random(1).randbytes(5000)

Bytes = Callable[[], bytes]


def written(content: bytes, limits: AudioLimits = LIMITS) -> tuple[Copy, bytes, float]:
    into = BytesIO()
    sound = Sound(BytesIO(content), 120)
    copy = sound.write(limits, into)
    was = heard(into.getvalue())
    assert was.format == copy.format
    assert was.seconds == pytest.approx(sound.facts.duration_seconds, abs=0.02)
    assert samples.SECRET.encode() not in into.getvalue()
    return copy, into.getvalue(), sound.facts.duration_seconds


def refusal(content: bytes, max_seconds: float = 120) -> Fault:
    with pytest.raises(MediumRefused) as refused:
        Sound(BytesIO(content), max_seconds)
    return refused.value.fault


def samples_of(content: bytes) -> array[float]:
    """Of all channels, between -1 and 1."""
    heard = array("f")
    with av.open(BytesIO(content), "r") as made:
        to_floats = av.AudioResampler(format="flt")
        for frame in [*made.decode(audio=0), None]:
            for part in to_floats.resample(frame):
                heard.frombytes(bytes(part.planes[0])[: 4 * part.samples * part.layout.nb_channels])
    return heard


def level(content: bytes) -> float:
    """In decibels."""
    heard = samples_of(content)
    return 10 * math.log10(sum(value * value for value in heard) / len(heard))


# Every container and coding

WAV_CODINGS = (
    *("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"),
    *("adpcm_ms", "adpcm_ima_wav", "pcm_alaw", "pcm_mulaw", "libmp3lame"),
)
RECORDINGS: dict[str, tuple[Bytes, str]] = {
    "M4A": (lambda: tone("ipod", "aac"), "from M4A to MP3"),
    "M4A without loss": (lambda: tone("ipod", "alac"), "from M4A to WAV"),
    "AAC": (lambda: tone("adts", "aac"), "from AAC to MP3"),
    "AAC behind ID3": (lambda: samples.id3_tag() + tone("adts", "aac"), "from AAC to MP3"),
    "3GP": (lambda: tone("3gp", "aac"), "from 3GP to MP3"),
    "Opus": (lambda: tone("ogg", "libopus"), "from Opus to MP3"),
    "Ogg FLAC": (lambda: tone("ogg", "flac"), "from Ogg to WAV"),
    "WebM": (lambda: tone("webm", "libopus"), "from WebM to MP3"),
    "live WebM": (lambda: tone("webm", "libopus", live="1"), "from WebM to MP3"),
    "Matroska": (lambda: tone("matroska", "aac"), "from WebM to MP3"),
    "FLAC": (lambda: tone("flac", "flac"), "from FLAC to WAV"),
    "FLAC behind ID3": (lambda: samples.id3_tag() + tone("flac", "flac"), "from FLAC to WAV"),
    "FLAC of unknown length": (
        lambda: samples.claiming(tone("flac", "flac"), b"fLaC", 21, ">BI", 0xF0, 0),
        "from FLAC to WAV",
    ),
    "AIFF": (lambda: tone("aiff", "pcm_s16be"), "from AIFF to WAV"),
    "AIFF of floats": (lambda: tone("aiff", "pcm_f32be"), "from AIFF to WAV"),
    "WMA": (lambda: tone("asf", "wmav2", bit_rate=96_000), "from WMA to MP3"),
    "WMA 1": (lambda: tone("asf", "wmav1", bit_rate=96_000), "from WMA to MP3"),
    "MP2": (lambda: tone("mp2", "mp2"), "from MP2 to MP3"),
    "CAF": (lambda: tone("caf", "pcm_s16le"), "from CAF to WAV"),
    "CAF without loss": (lambda: tone("caf", "alac"), "from CAF to WAV"),
    "AU": (lambda: tone("au", "pcm_s16be"), "from AU to WAV"),
    "AU of unknown length": (
        lambda: samples.claiming(tone("au", "pcm_s16be"), b".snd", 8, ">I", 0xFFFFFFFF),
        "from AU to WAV",
    ),
    "AU of a telephone": (lambda: tone("au", "pcm_mulaw", rate=8000, layout="mono"), "to WAV"),
    "Wave64": (lambda: tone("w64", "pcm_s24le"), "from Wave64 to WAV"),
    "RF64": (lambda: tone("wav", "pcm_s16le", 4, rf64="always"), "from RF64 to WAV"),
    "MOV": (lambda: film("mov"), "from the sound of a QuickTime video to MP3"),
    "MOV of PCM": (lambda: tone("mov", "pcm_s16le"), "to WAV"),
    "MP4": (lambda: film("mp4"), "from the sound of an MP4 video to MP3"),
    "MP4 with words behind": (lambda: film("mp4") + b"words behind", "MP4"),
    "MP4 with zeros behind": (lambda: film("mp4") + bytes(100), "MP4"),
    "MP4 in fragments": (
        lambda: tone("mp4", "aac", movflags="frag_every_frame+empty_moov"),
        "MP4",
    ),
    "MP4 of Opus": (lambda: muxed(tone("webm", "libopus"), "mp4"), "to MP3"),
    "MKV": (lambda: film("matroska"), "from WebM to MP3"),
    "AVI": (lambda: film("avi"), "from the sound of an AVI video to MP3"),
    "six channels": (lambda: tone("ipod", "aac", layout="5.1"), "from M4A to MP3"),
    "eight channels": (lambda: tone("flac", "flac", layout="7.1"), "from FLAC to WAV"),
    "sixteen channels": (lambda: samples.wav(4, channels=16), "mono or stereo"),
    "192 kHz": (lambda: tone("flac", "flac", rate=192_000), "from FLAC to WAV"),
    "7350 Hz": (lambda: tone("ipod", "aac", rate=7350, layout="mono"), "from M4A to MP3"),
    "plain WAV": (lambda: samples.wav(4), ""),
    "WAV with more before its sound": (
        lambda: samples.wav(4, before_data=b"JUNK\x05\0\0\0a pad\0"),
        "",
    ),
    "extensible WAV": (lambda: samples.wav(4, bits=24, extensible=True), "16 bits"),
    **{f"WAV of {coding}": (partial(tone, "wav", coding), "") for coding in WAV_CODINGS},
    "MP3": (lambda: tone("mp3", "libmp3lame"), ""),
    "MP3 with nothing but frames": (lambda: samples.mp3(4), ""),
    "MP3 behind zeros": (lambda: bytes(500) + samples.mp3(4), ""),
    "MP3 with ID3v1": (lambda: tone("mp3", "libmp3lame") + b"TAG" + bytes(125), ""),
    "MP3 with APE": (lambda: tone("mp3", "libmp3lame") + b"APETAGEX" + bytes(24), ""),
    "two MP3s": (lambda: tone("mp3", "libmp3lame", 2) + tone("mp3", "libmp3lame", 2), ""),
    "MP3 in MOV": (lambda: tone("mov", "libmp3lame"), "to MP3"),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_recording_is_decoded_to_its_right_length(name: str) -> None:
    content, says = RECORDINGS[name]

    copy, _, seconds = written(content())

    assert seconds == pytest.approx(4, abs=0.06)
    assert says in " ".join(copy.changes)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("flac", "flac")])
def test_usual_rates_are_kept(container: str, codec: str, rate: int) -> None:
    _, content, seconds = written(tone(container, codec, rate=rate))

    assert heard(content).rate == rate
    assert seconds == pytest.approx(4, abs=0.001)


def test_samples_of_a_plain_wav_survive() -> None:
    tagged = samples.with_riff_chunk(samples.wav(2), b"LIST", b"INFOIART\x0a\0\0\0Villa Anna")

    copy, content, _ = written(tagged)

    assert content == samples.wav(2)
    assert copy.changes == ("Removed from the recording: tags (title, artist, picture...).",)


# Sizes that a WAV states


@pytest.mark.parametrize(
    ("sizes", "stands"),
    [
        ({"data_bytes": 0x7FFF_FFFF}, True),
        ({"data_bytes": 0x7FFF_F000, "riff_bytes": 0x7FFF_F024}, True),
        ({"data_bytes": 32_000 + 8}, True),
        ({"data_bytes": 32_000 + 44}, True),
        ({"data_bytes": 34_000}, False),
        ({"data_bytes": 64_000}, False),
        ({"data_bytes": 1_999_999_998}, False),
    ],
    ids=str,
)
def test_wrong_sizes_of_a_wav_are_mended_and_a_cut_is_refused(
    sizes: dict[str, int], stands: bool
) -> None:
    content = samples.wav(2, **sizes)  # type: ignore[arg-type]

    if not stands:
        assert "whose sound stops after 2.0" in refusal(content).found
        return
    assert written(content)[1] == samples.wav(2)


# What is no sound, and what is missing


def test_nan_and_infinity_are_silence() -> None:
    values = array("f", [0.25, math.nan, math.inf, -math.inf, -0.25] * 3200)
    whole = samples.wav(2, bits=32, codec=3)
    content = whole[:44] + values.tobytes()

    _, copy, _ = written(content)

    sound = array("h", copy[44:])
    assert sound[:5].tolist() == pytest.approx([8192, 0, 0, 0, -8192], abs=1)


@pytest.mark.parametrize("layout", ["2.1", "quad", "5.1", "7.1"])
@pytest.mark.parametrize("container", ["flac", "ipod"])
def test_voice_in_the_centre_keeps_its_level(container: str, layout: str) -> None:
    stereo = tone("flac", "flac", layout="stereo")
    content = tone(container, "flac" if container == "flac" else "aac", layout=layout)

    _, copy, _ = written(content)

    assert level(copy) > level(stereo) - 4  # the encoder put the tone where it belongs
    assert max(samples_of(copy)) <= 1


def test_centre_alone_of_six_channels_is_within_a_decibel() -> None:
    mono = samples.wav(2, rate=48_000)
    sound = array("h", mono[44:])
    six = array("h", bytes(2 * 6 * len(sound)))
    six[2::6] = sound
    fmt = struct.pack("<HHIIHHHHIH", 0xFFFE, 6, 48_000, 576_000, 12, 16, 22, 16, 0x3F, 1)
    fmt += bytes.fromhex("000000001000800000aa00389b71")
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt
    body += b"data" + struct.pack("<I", 2 * len(six)) + six.tobytes()

    _, copy, _ = written(b"RIFF" + struct.pack("<I", len(body)) + body)

    assert level(copy) == pytest.approx(level(mono), abs=1)


def test_pauses_of_a_call_in_webm_are_kept() -> None:
    content = muxed(tone("webm", "libopus"), "webm", lambda number: not 50 < number < 120)

    _, _, seconds = written(content)

    assert seconds == pytest.approx(4, abs=0.03)


def test_hours_of_pause_are_refused_soon() -> None:
    file = BytesIO()
    with (
        av.open(BytesIO(tone("webm", "libopus")), "r") as source,
        av.open(file, "w", "webm") as made,
    ):
        stream = made.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(audio=0)):
            if packet.size:
                packet.stream, late = stream, 40_000_000 * (number > 100)
                packet.pts, packet.dts = (packet.pts or 0) + late, (packet.dts or 0) + late
                made.mux(packet)

    assert "more than 60 minutes" in refusal(file.getvalue()).found


# Cut

CUT: dict[str, Bytes] = {
    "Opus": lambda: tone("ogg", "libopus"),
    "Ogg FLAC": lambda: tone("ogg", "flac"),
    "WebM": lambda: tone("webm", "libopus"),
    "live WebM": lambda: tone("webm", "libopus", live="1"),
    "MKV": lambda: film("matroska"),
    "AVI": lambda: film("avi"),
    "MP4 in fragments": lambda: tone("mp4", "aac", movflags="frag_every_frame+empty_moov"),
    "M4A": lambda: tone("ipod", "aac"),
    "MOV": lambda: film("mov"),
    "FLAC": lambda: tone("flac", "flac"),
    "AIFF": lambda: tone("aiff", "pcm_s16be"),
    "AU": lambda: tone("au", "pcm_s16be"),
    "WMA": lambda: tone("asf", "wmav2", bit_rate=96_000),
    "MP3 with Xing": lambda: tone("mp3", "libmp3lame"),
    "WAV": lambda: samples.wav(4),
    "WAV of ADPCM": lambda: tone("wav", "adpcm_ms"),
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("part", [0.2, 0.5, 0.92])
def test_cut_recording_is_refused_as_broken(name: str, part: float) -> None:
    whole = CUT[name]()

    fault = refusal(whole[: int(part * len(whole))])

    assert fault.broken
    assert any(word in fault.found for word in ("breaks off", "stops after", "damaged"))


def test_every_cut_of_a_live_webm_inside_an_element_is_noticed() -> None:
    whole = tone("webm", "libopus", 1, live="1")

    assert all(refusal(whole[:size]).broken for size in range(len(whole) - 40, len(whole)))


# MP3


@pytest.mark.parametrize("junk", [b"\0", b"<html>", JUNK, b"\xff" * 1000], ids=len)
def test_junk_behind_an_mp3_is_removed_and_said(junk: bytes) -> None:
    copy, content, _ = written(samples.mp3(4) + junk)

    assert copy.changes == ("Removed from the recording: damaged bytes.",)
    assert content[-1000:] in samples.mp3(4)


def test_damaged_frame_of_an_mp3_is_removed_and_said() -> None:
    whole = samples.mp3(4)
    frame_bytes = len(whole) // 168
    spoiled = whole[: 50 * frame_bytes] + JUNK[:frame_bytes] + whole[51 * frame_bytes :]

    copy, _, seconds = written(spoiled)

    assert copy.changes == ("Removed from the recording: damaged bytes.",)
    assert seconds == pytest.approx(4, abs=0.08)


@pytest.mark.parametrize(
    "tagged",
    [
        tone("mp3", "libmp3lame"),
        samples.id3_tag() + tone("mp3", "libmp3lame"),
        samples.id3_tag() + samples.id3_tag(50) + tone("mp3", "libmp3lame"),
        tone("mp3", "libmp3lame") + b"TAG" + b"Villa Anna".ljust(125, b"\0"),
    ],
    ids=["artist", "ID3", "two ID3", "ID3v1"],
)
def test_mp3_without_its_tags_has_the_same_samples(tagged: bytes) -> None:
    _, content, _ = written(tagged)

    assert b"TAG" not in content
    assert not content.startswith(b"ID3")
    assert samples_of(content) == samples_of(tagged)


@pytest.mark.parametrize(
    ("seconds", "takes"),
    [(19.8, AudioFormat.MP3), (19.95, AudioFormat.WAV), (20.0, AudioFormat.WAV)],
)
@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("ogg", "libopus")])
def test_padding_of_an_mp3_does_not_lead_over_a_bound(
    container: str, codec: str, seconds: float, takes: AudioFormat
) -> None:
    limits = AudioLimits(formats=BOTH, required=True, duration_at_most_seconds=20)

    copy, _, length = written(tone(container, codec, seconds), limits)

    assert copy.format is takes
    assert length == pytest.approx(seconds, abs=0.002)


# Bytes and seconds


@pytest.mark.parametrize(
    ("under_bytes", "takes", "kbit"),
    [(800_000, "wav", 1536), (700_000, "mp3", 256), (120_000, "mp3", 192), (80_000, "mp3", 128),
     (40_000, "mp3", 64)],
)  # fmt: skip
def test_bytes_choose_the_format_and_its_rate(under_bytes: int, takes: str, kbit: int) -> None:
    limits = LIMITS.model_copy(update={"size_under_bytes": under_bytes})

    copy, content, seconds = written(tone("flac", "flac"), limits)

    assert copy.format == takes
    assert len(content) < under_bytes
    assert len(content) * 8 / seconds / 1000 == pytest.approx(kbit, rel=0.05)


def test_recording_is_refused_when_no_mp3_has_few_enough_bytes() -> None:
    sound = Sound(BytesIO(tone("flac", "flac")), 120)

    with pytest.raises(MediumRefused, match="too large, even as an MP3"):
        sound.write(LIMITS.model_copy(update={"size_under_bytes": 9000}), BytesIO())


@pytest.mark.parametrize("seconds", [119.99, 120, 120.01, 150])
def test_length_around_what_is_taken_is_counted_right(seconds: float) -> None:
    sound = Sound(BytesIO(samples.wav(seconds, rate=44_100)), 120)

    assert sound.facts.duration_seconds == pytest.approx(seconds, abs=1e-9)
    assert (sound.facts.duration_seconds > 120) == (seconds > 120)


def test_more_than_an_hour_is_not_heard_to_its_end() -> None:
    fault = refusal(samples.wav(MAX_HEARD_SECONDS + 1, rate=1000, bits=8))

    assert (fault.found, fault.rule) == ("more than 60 minutes long", "at most 120 seconds")


# Refused in words

REFUSED: dict[str, tuple[Bytes, str]] = {
    "0.29 seconds": (lambda: samples.wav(0.29), "0.29 seconds long"),
    "silence": (lambda: samples.wav(2)[:44] + bytes(32_000), "silence only"),
    "silent M4A": (lambda: film("mov", 2, 0), "silence only"),
    "no sample": (lambda: samples.wav(0), "a WAV recording with no sound in it"),
    "a film without sound": (lambda: film(loudness=None), "an MP4 video without sound"),
    "protected": (
        lambda: tone("ipod", "aac").replace(b"mp4a", b"drms"),
        "an M4A recording that is protected, or in a rare coding",
    ),
    "encrypted": (
        lambda: tone("ipod", "aac").replace(b"mp4a", b"enca"),
        "an M4A recording that is protected, or in a rare coding",
    ),
    "no channels": (lambda: samples.wav(1, channels=0), "a WAV recording"),
    "HLS": (
        lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n",
        "plain text",
    ),
    "concat": (lambda: b"ffconcat version 1.0\nfile '/etc/passwd'\n", "plain text"),
    "ID3 and no more": (lambda: b"ID3\x04", "an MP3 recording that is damaged"),
    "a tag alone": (samples.id3_tag, "an MP3 recording"),
    "MP3 and then text": (lambda: b"\xff\xfb\x90\xc4" + samples.TEXT, "an MP3 recording"),
    "a picture": (lambda: samples.PORTRAIT, "a PNG picture"),
    "HEIC": (samples.heic, "a HEIC photo"),
    "MIDI": (lambda: b"MThd\0\0\0\x06", "a MIDI file"),
    "an old office document": (
        lambda: bytes.fromhex("d0cf11e0a1b11ae1") + JUNK,
        "a file of an unknown kind",
    ),
    "text": (lambda: samples.TEXT, "plain text"),
    "UTF-16": (lambda: "Grüße".encode("utf-16"), "plain text"),
    "noise": (lambda: samples.NOISE, "a file of an unknown kind"),
    "nothing": (lambda: b"", "an empty file"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_words(name: str) -> None:
    content, found = REFUSED[name]

    assert refusal(content()).found.startswith(found)


@pytest.mark.parametrize("head", [b"", b"\0\0", b"\xff\xfb\x90\xc4", b"ID3\x04\0\0\0\0\0\0"])
@pytest.mark.parametrize(
    "playlist",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n%s\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '%s'\n",
        b"<?xml version='1.0'?><MPD><Period><BaseURL>%s</BaseURL></Period></MPD>",
        b"[playlist]\nFile1=%s\n",
    ],
    ids=["HLS", "concat", "DASH", "PLS"],
)
def test_playlist_never_opens_another_file(
    playlist: bytes, head: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(samples.wav(2))
    read_before = other.stat().st_atime_ns
    monkeypatch.setattr("dropreel.media.sound.kind_of", lambda head: kinds.UNKNOWN)

    refusal(head + playlist % str(other).encode())

    assert other.stat().st_atime_ns == read_before
