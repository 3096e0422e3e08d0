"""A recording is converted whole or refused, and only its sound is read."""

from collections.abc import Callable
from io import BytesIO

import av
import pytest
from dropreel.media.audio import fit_recording
from dropreel.media.making import Copy, Damaged, OutOfTime, TooLong, Unfit, Watched
from dropreel.media.reader import buffered
from dropreel.media.recordings import Sound, read_recording

from dropreel.media import kinds
from dropreel.model.catalog import AudioFormat, AudioLimits
from tests.support import media_samples as samples
from tests.support import more_media as media
from tests.support.more_media import heard

LIMITS = AudioLimits(
    formats=(AudioFormat.WAV, AudioFormat.MP3),
    required=True,
    duration_under_seconds=20,
    size_under_bytes=15_000_000,
)


def in_time() -> None:
    """There is always time left."""


def fit(
    content: bytes,
    limits: AudioLimits = LIMITS,
    *,
    longest_seconds: float = 20,
    alarm: Callable[[], None] = in_time,
) -> tuple[Copy, bytes]:
    into = BytesIO()
    copy = fit_recording(
        Watched(BytesIO(content), alarm),
        read_recording(BytesIO(content), len(content)),
        limits,
        longest_seconds=longest_seconds,
        into=into,
        alarm=alarm,
    )
    return copy, into.getvalue()


@pytest.mark.parametrize(
    "tagged",
    [
        samples.id3_tag() + samples.mp3_without_header(),
        samples.id3_tag() + samples.id3_tag(50) + samples.mp3_without_header(),
        samples.mp3_without_header() + b"TAG" + bytes(125),
        samples.mp3_without_header() + b"LYRICSBEGINVilla AnnaLYRICS200" + b"TAG" + bytes(125),
        samples.mp3_without_header(1) + samples.id3_tag() + samples.mp3_without_header(1),
    ],
)
def test_frames_of_an_mp3_survive_without_its_tags(tagged: bytes) -> None:
    copy, stripped = fit(tagged)

    assert copy.format is AudioFormat.MP3
    assert copy.changes[0].startswith("Removed from the recording")
    assert not read_recording(BytesIO(stripped), len(stripped)).metadata
    assert stripped.replace(samples.id3_tag(), b"") == stripped
    assert heard(stripped).seconds == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("bits", [16, 24])
def test_samples_of_a_wav_survive_without_its_tags(bits: int) -> None:
    plain = samples.wav(2, bits=bits)
    tagged = samples.with_riff_chunk(plain, b"LIST", b"INFOIART\x0a\0\0\0Villa Anna")

    _, stripped = fit(tagged)

    assert stripped == plain


def test_wav_that_never_learned_its_size_learns_it() -> None:
    tagged = samples.wav(
        2, data_bytes=0xFFFFFFFF, riff_bytes=0xFFFFFFFF, before_data=b"bext\x04\0\0\0Anna"
    )

    _, stripped = fit(tagged)

    assert stripped == samples.wav(2)


@pytest.mark.parametrize(
    ("content", "format_name", "rate", "channels"),
    [
        (media.tone("ipod", "aac", rate=44_100, layout="mono"), "mp3", 44_100, 1),
        (media.tone("adts", "aac", rate=16_000, layout="mono"), "mp3", 16_000, 1),
        (media.tone("flac", "flac", rate=22_050), "wav", 22_050, 2),
        (media.tone("flac", "flac", rate=96_000), "wav", 48_000, 2),
        (media.tone("ipod", "aac", layout="5.1"), "mp3", 48_000, 2),
        (media.tone("w64", "pcm_s24le", layout="mono"), "wav", 48_000, 1),
    ],
)
def test_rate_and_channels_are_kept_as_far_as_they_are_heard(
    content: bytes, format_name: str, rate: int, channels: int
) -> None:
    _, copy = fit(content)

    was = heard(copy)
    assert (was.format, was.rate, was.channels) == (format_name, rate, channels)
    assert was.seconds == pytest.approx(4, abs=0.1)


def test_recording_just_under_a_bound_is_not_padded_over_it() -> None:
    copy, content = fit(media.tone("ogg", "libopus", 19.95))

    assert copy.format is AudioFormat.WAV
    assert heard(content).seconds == pytest.approx(19.95, abs=0.005)


def test_smaller_mp3_is_made_when_bytes_are_few() -> None:
    limits = LIMITS.model_copy(update={"size_under_bytes": 70_000})

    copy, content = fit(media.tone("flac", "flac"), limits)

    assert copy.format is AudioFormat.MP3
    assert len(content) < 70_000
    assert heard(content).seconds == pytest.approx(4, abs=0.1)


def test_recording_is_refused_when_no_mp3_has_few_enough_bytes() -> None:
    with pytest.raises(Unfit, match="larger even as an MP3"):
        fit(media.tone("flac", "flac"), LIMITS.model_copy(update={"size_under_bytes": 9000}))


def test_too_long_recording_is_heard_to_its_end_and_not_cut() -> None:
    with pytest.raises(TooLong) as refusal:
        fit(media.tone("webm", "libopus", 25), longest_seconds=20)

    assert refusal.value.duration_seconds == pytest.approx(25, abs=0.1)


def test_recording_much_too_long_is_not_heard_to_its_end() -> None:
    calls = 0

    def alarm() -> None:
        nonlocal calls
        calls += 1
        if calls > 600:
            raise OutOfTime

    with pytest.raises(Unfit, match="more than 0 minutes long"):
        fit(media.tone("ogg", "libopus", 25), longest_seconds=5, alarm=alarm)


def test_out_of_time_is_not_taken_for_damage() -> None:
    def alarm() -> None:
        raise OutOfTime

    with pytest.raises((OutOfTime, Damaged)):
        fit(media.tone("ogg", "libopus"), alarm=alarm)


def test_of_a_video_only_the_sound_is_read() -> None:
    content = _film(seconds=4)
    read_bytes = 0

    def fetch(start: int, size_bytes: int) -> bytes:
        nonlocal read_bytes
        read_bytes += size_bytes
        return content[start : start + size_bytes]

    into = BytesIO()
    fit_recording(
        Watched(buffered(fetch, len(content)), in_time),
        read_recording(BytesIO(content), len(content)),
        LIMITS,
        longest_seconds=20,
        into=into,
        alarm=in_time,
    )

    assert heard(into.getvalue()).seconds == pytest.approx(4, abs=0.1)
    assert len(content) > 20_000_000
    assert read_bytes < len(content) / 4


def _film(seconds: int) -> bytes:
    """A film of 5 MB a second, its sound in four pieces a second."""
    file = BytesIO()
    with av.open(file, "w", format="mov") as made:
        pictures = made.add_stream("rawvideo", rate=4)
        pictures.width, pictures.height, pictures.pix_fmt = 1280, 720, "yuv420p"
        voice = made.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for number in range(4 * seconds):
            frame = av.VideoFrame(1280, 720, "yuv420p")
            frame.pts = number
            made.mux(pictures.encode(frame))
            sound = av.AudioFrame(format="s16", layout="mono", samples=12_000)
            sound.planes[0].update(bytes(sound.planes[0].buffer_size))
            sound.sample_rate, sound.pts = 48_000, number * 12_000
            made.mux(voice.encode(sound))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (samples.video(sound=False), "without sound"),
        (media.tone("flac", "flac")[:30_000], "stops after"),
        (media.tone("aiff", "pcm_s16be")[:30_000], "stops after"),
        (media.tone("webm", "libopus")[:30_000], "stops after"),
        (media.tone("ogg", "libopus")[:40], "damaged"),
    ],
    ids=["no sound", "FLAC", "AIFF", "WebM", "Ogg"],
)
def test_broken_recording_is_told_in_words(content: bytes, word: str) -> None:
    into = BytesIO()
    sound = Sound(kinds.UNKNOWN, len(content))

    with pytest.raises((Damaged, Unfit), match=word):
        fit_recording(
            Watched(BytesIO(content), in_time),
            sound,
            LIMITS,
            longest_seconds=20,
            into=into,
            alarm=in_time,
        )


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    ],
    ids=["HLS", "concat"],
)
def test_playlist_is_never_followed(content: bytes) -> None:
    sound = Sound(kinds.UNKNOWN, len(content))

    with pytest.raises(Damaged):
        fit_recording(
            Watched(BytesIO(content), in_time),
            sound,
            LIMITS,
            longest_seconds=20,
            into=BytesIO(),
            alarm=in_time,
        )


def test_copy_is_the_same_each_time() -> None:
    assert fit(media.tone("ipod", "aac")) == fit(media.tone("ipod", "aac"))
