from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.media.mp4 import Mp4Check, VideoFacts
from dropreel.model.errors import ResultRefused
from tests.support.videos import HEIGHT, WIDTH, box, tiny_sound, tiny_video

FACTS = VideoFacts(duration_seconds=1.0, width=WIDTH, height=HEIGHT, has_audio=False)
FTYP = box(b"ftyp", b"isom\0\0\0\0isom")
LONG = b"\0\0\0\1"


def checked(*chunks: bytes) -> Mp4Check:
    check = Mp4Check()
    for chunk in chunks:
        check.feed(chunk)
    return check


def with_fragments_of(seconds: int) -> bytes:
    """A fragmented MP4 whose `mvex` says how long its fragments are, in `mvhd`'s thousandths."""
    video = tiny_video("frag_keyframe+empty_moov")
    mehd = box(b"mehd", bytes(4) + (seconds * 1000).to_bytes(4, "big"))
    for kind in (b"moov", b"mvex"):
        at = video.index(kind) - 4
        size = int.from_bytes(video[at : at + 4], "big") + len(mehd)
        video = video[:at] + size.to_bytes(4, "big") + video[at + 4 :]
    at = video.index(b"mvex") + 4
    return video[:at] + mehd + video[at:]


def with_open_end() -> bytes:
    """The pictures last, in a box that runs 'to the end of the file'."""
    video = tiny_video("faststart")
    at = video.index(b"mdat") - 4
    return video[:at] + bytes(4) + video[at + 4 :]


@pytest.mark.parametrize("movflags", ["", "faststart"])
def test_real_video_has_its_length_and_size(movflags: str) -> None:
    check = checked(tiny_video(movflags))

    assert check.is_whole
    assert check.facts() == FACTS


@pytest.mark.parametrize(
    ("video", "seconds"),
    [(with_fragments_of(7), 7), (tiny_video("frag_keyframe+empty_moov"), None)],
    ids=["known", "not known"],
)
def test_fragmented_video_has_the_length_that_it_states(video: bytes, seconds: int | None) -> None:
    assert checked(video).facts() == replace(FACTS, duration_seconds=seconds)


@pytest.mark.parametrize("movflags", ["", "faststart", "frag_keyframe+empty_moov"])
@pytest.mark.parametrize("sound", [True, False])
def test_sound_track_is_found(movflags: str, sound: bool) -> None:
    assert checked(tiny_video(movflags, sound=sound)).facts().has_audio is sound


def test_sound_track_without_a_sample_is_none() -> None:
    video = tiny_video(sound=True)
    at = video.rindex(b"stsz") + 12  # the sound track is the second
    assert video[at : at + 4] != bytes(4)

    silent = video[:at] + bytes(4) + video[at + 4 :]

    assert not checked(silent).facts().has_audio


def test_damaged_sound_track_leaves_the_pictures() -> None:
    video = tiny_video(sound=True)
    at = video.rindex(b"stsz") - 4

    facts = checked(video[:at] + b"\0\xff\xff\xff" + video[at + 4 :]).facts()

    assert facts == replace(FACTS, duration_seconds=facts.duration_seconds)


def test_an_open_end_is_a_video_but_never_known_to_be_whole() -> None:
    check = checked(with_open_end())

    assert check.facts() == FACTS
    assert not check.is_whole


@given(cuts=st.lists(st.integers(min_value=0, max_value=len(tiny_video()))))
def test_the_answer_does_not_depend_on_how_the_bytes_are_cut(cuts: list[int]) -> None:
    video = tiny_video()
    edges = [0, *sorted(cuts), len(video)]

    check = checked(*(video[a:b] for a, b in pairwise(edges)))

    assert check.is_whole
    assert check.facts() == FACTS


def test_boxes_may_have_long_lengths_also_one_byte_at_a_time() -> None:
    video = tiny_video() + LONG + b"free" + (16 + 5).to_bytes(8, "big") + b"12345"

    assert checked(video).facts() == FACTS
    assert checked(*(bytes([byte]) for byte in video)).facts() == FACTS


@pytest.mark.parametrize("movflags", ["", "faststart"])
def test_a_video_cut_anywhere_is_refused(movflags: str) -> None:
    video = tiny_video(movflags)
    check = Mp4Check()

    for at in range(len(video)):
        with pytest.raises(ResultRefused):
            check.facts()
        check.feed(video[at : at + 1])

    assert check.facts() == FACTS


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b"\0\0", "ends in the middle"),
        (b"<!DOCTYPE html><html><body>Sorry</body></html>", "another kind of file"),
        (b'{"error": "expired"}', "another kind of file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "another kind of file"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(64), "another kind of file"),
        (bytes(64), "another kind of file"),
        (FTYP, "does not describe"),
        (FTYP + box(b"mdat", b"pictures"), "does not describe"),
        (tiny_video()[: tiny_video().index(b"mdat") - 4] + box(b"moov"), "neither pictures"),
        (FTYP + box(b"mdat") + box(b"moov"), "no video track"),
        (FTYP + box(b"mdat") + box(b"moov", b"\0\0\0\1mvhd\0\0\0\0"), "damaged"),
        (FTYP + box(b"mdat") + box(b"moov", b"\0\0\0\3mvhd\0\0\0\0"), "impossible length"),
        (FTYP + box(b"mdat") + box(b"moov", b"\0\0\1\0trak"), "larger than the one around"),
        (FTYP + b"\0\0\0\7free", "impossible length"),
        (FTYP + LONG + b"free" + (15).to_bytes(8, "big"), "impossible length"),
        (FTYP + b"\x7f\0\0\0moov" + bytes(17 * 1024**2), "too large"),
        (box(b"ftyp", bytes(5000)), "too large"),
        (tiny_sound(), "no video track"),
        (tiny_video(container="mov"), "QuickTime"),
        (tiny_video("frag_keyframe+empty_moov").replace(b"mvex", b"free"), "how long"),
        (tiny_video().replace(b"mvhd", b"free"), "how long"),
    ],
)
def test_what_is_no_usable_video_is_refused_with_the_reason(body: bytes, why: str) -> None:
    with pytest.raises(ResultRefused, match=why):
        checked(body).facts()


@given(st.binary(max_size=300), st.sampled_from([b"", FTYP, FTYP + box(b"mdat")]))
def test_no_bytes_crash_the_check(noise: bytes, head: bytes) -> None:
    with pytest.raises(ResultRefused):
        checked(head, noise).facts()


@given(st.data())
def test_no_damage_to_a_real_video_crashes_the_check(data: st.DataObject) -> None:
    video = bytearray(tiny_video())
    description = st.integers(min_value=video.index(b"moov"), max_value=len(video) - 1)
    for at in data.draw(st.lists(st.one_of(description, st.integers(0, 40)), max_size=8)):
        video[at] = data.draw(st.integers(0, 255))

    try:
        facts = checked(bytes(video)).facts()
    except ResultRefused:
        return
    assert facts.duration_seconds is None or facts.duration_seconds > 0
    assert facts.width > 0
    assert facts.height > 0
