"""Prepare over files made to confuse it, in a process whose memory is measured.

    python -m tests.support.hostile_media 100

Ends with an error when anything but a plan or a refusal comes of a file, when one takes longer than
`SECONDS_AT_MOST`, or when the process ever held more than `MEMORY_AT_MOST_BYTES`. The codecs' own
processes are bounded by `shut_in`.
"""

import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dropreel.model.errors import InputRejected
from dropreel.model.job import Role
from tests.support import media_samples as samples
from tests.support.prepared import prepared

MEMORY_AT_MOST_BYTES = 512 * 1024 * 1024
SECONDS_AT_MOST = 10.0  # of the processor, so that a busy machine does not count

CORPUS: dict[Role, list[bytes]] = {
    Role.IMAGE: [
        samples.photo(6),
        samples.heic(6),
        samples.avif(),
        samples.tiff(),
        samples.tiff(compression="tiff_lzw"),
        samples.tiff("CMYK", compression="jpeg"),
        samples.grey_16_bit("TIFF"),
        samples.gif(),
        samples.animated("PNG"),
        samples.animated("WEBP"),
        samples.tagged_png("P"),
        samples.tagged_webp(),
        samples.see_through_png("WEBP"),
        samples.wide_photo(),
        samples.cmyk_photo(profile=True),
        samples.two_pictures_in_one(),
        samples.saved(samples.scene(), "BMP"),
        samples.saved(samples.scene(1100, 550), "JPEG", progressive=True),
    ],
    Role.AUDIO: [
        samples.tone("ipod", "aac", 1),
        samples.tone("ipod", "alac", 1),
        samples.tone("adts", "aac", 1),
        samples.tone("ogg", "libopus", 1),
        samples.tone("ogg", "flac", 1),
        samples.tone("webm", "libopus", 1),
        samples.tone("flac", "flac", 1),
        samples.tone("aiff", "pcm_s16be", 1),
        samples.tone("asf", "wmav2", 1, bit_rate=96_000),
        samples.tone("mp2", "mp2", 1),
        samples.tone("wav", "adpcm_ms", 1),
        samples.tone("wav", "pcm_s16le", 1),
        samples.tone("caf", "pcm_s16le", 1),
        samples.tone("mp3", "libmp3lame", 1),
        samples.film("mov", 1, 0),
        samples.id3_tag() + samples.NOISE,
    ],
}

CLAIMS: list[tuple[Role, bytes]] = [
    (Role.IMAGE, samples.endless_jpeg()),
    (Role.IMAGE, samples.endless_jpeg(8_000, 90)),
    (Role.IMAGE, samples.bomb_jpeg(14_000)),
    (Role.IMAGE, samples.claiming(samples.gif(), b"GIF8", 6, "<HH", 65_535, 65_535)),
    (Role.IMAGE, samples.claiming(samples.gif(), b"GIF8", 6, "<HH", 4_000, 4_000)),
    (Role.IMAGE, samples.claiming(samples.heic(), b"ispe", 8, ">II", 30_000, 30_000)),
    (Role.IMAGE, samples.claiming(samples.avif(), b"ispe", 8, ">II", 3_000, 3_000)),
    (Role.IMAGE, samples.claiming(samples.tagged_webp(), b"VP8X", 12, "<HB", 16_000, 0)),
    (Role.IMAGE, samples.flat_png(7_000, 7_000)),
    (Role.AUDIO, samples.million_sample_m4a()),
    (Role.AUDIO, samples.claiming(samples.tone("flac", "flac"), b"fLaC", 12, ">I", 0x00FFFFFF)),
    (
        Role.AUDIO,
        samples.claiming(samples.tone("aiff", "pcm_s16be"), b"COMM", 10, ">I", 0xFFFFFFFF),
    ),
    (Role.AUDIO, samples.wav(2, rate=1, codec=2, channels=1)),
]

Change = Callable[[bytes], bytes]


def _cut(part: float) -> Change:
    return lambda content: content[: int(len(content) * part)]


def _overwritten(place: float, near_the_head: bool, patch: bytes) -> Change:
    def change(content: bytes) -> bytes:
        at = int(place * (min(len(content), 400) if near_the_head else len(content)))
        return content[:at] + patch + content[at + len(patch) :]

    return change


def _inserted(place: float, patch: bytes) -> Change:
    def change(content: bytes) -> bytes:
        at = int(place * len(content))
        return content[:at] + patch + content[at:]

    return change


PLACES = st.floats(0, 0.999)
NUMBERS = st.sampled_from([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
PATCHES = st.one_of(NUMBERS, st.binary(min_size=1, max_size=16))
CHANGES = st.one_of(
    st.builds(_cut, PLACES),
    st.builds(_overwritten, PLACES, st.booleans(), PATCHES),
    st.builds(_inserted, PLACES, PATCHES),
)


@st.composite
def hostile(draw: st.DrawFn) -> tuple[Role, bytes]:
    role = draw(st.sampled_from([Role.IMAGE, Role.AUDIO]))
    kept = draw(st.sampled_from(CORPUS[role]))
    if draw(st.integers(0, 9)) == 0:
        return role, kept[: draw(st.integers(0, 64))] + draw(st.binary(max_size=3000))
    for change in draw(st.lists(CHANGES, min_size=1, max_size=4)):
        kept = change(kept)
    return role, kept


def judge(role: Role, content: bytes) -> str:
    """What becomes of a file: a plan or a refusal, whatever it is."""
    try:
        prepared(role, content)
    except InputRejected as refusal:
        return f"refused: {refusal.reasons[0].found}"
    return "planned"


def survive(examples: int) -> None:
    slowest_seconds = 0.0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile())
    def any_file(made: tuple[Role, bytes]) -> None:
        nonlocal slowest_seconds
        faulthandler.dump_traceback_later(6 * SECONDS_AT_MOST, exit=True)
        begun = sum(os.times()[:4])
        verdict = judge(*made)
        took_seconds = sum(os.times()[:4]) - begun
        slowest_seconds = max(slowest_seconds, took_seconds)
        assert took_seconds < SECONDS_AT_MOST, (made[0], verdict)

    test = any_file
    for claim in CLAIMS:
        test = example(claim)(test)
    test()
    faulthandler.cancel_dump_traceback_later()
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
    peak_bytes = int(peak) * 1024
    print(f"{slowest_seconds:.1f} s, {peak_bytes // 1024**2} MiB")  # noqa: T201
    assert peak_bytes < MEMORY_AT_MOST_BYTES


if __name__ == "__main__":
    survive(int(sys.argv[1]))
