"""A medium's bytes are read as few times as can be, and its codec is shut in a process."""

import faulthandler
import hashlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import pytest

from dropreel.media import codecs, shut_in, source
from dropreel.media.opened import Copy, Fault, MediumRefused, PictureFacts
from dropreel.media.shut_in import Codec, Opened, opened
from dropreel.media.source import RangedFile, Source, buffered
from dropreel.model.catalog import MODELS, AudioFormat, AudioLimits, ImageFormat, ImageLimits
from dropreel.model.errors import InputGone
from tests.support.media_samples import tone

LIMITS = ImageLimits(formats=(ImageFormat.PNG,))
CONTENT = bytes(range(256)) * 100


class Uploaded:
    """An upload that counts how it is read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ranges: list[tuple[int, int]] = []
        self.wholes = 0
        self.source = Source(self.fetch, self.fetch_all, len(content))

    def fetch(self, start: int, size_bytes: int) -> bytes:
        self.ranges.append((start, size_bytes))
        return self.content[start : start + size_bytes]

    def fetch_all(self, into: BinaryIO) -> None:
        self.wholes += 1
        into.write(self.content)


# The source


def test_small_upload_is_fetched_once_and_whole() -> None:
    upload = Uploaded(CONTENT)

    assert upload.source.read(300, 5) == CONTENT[300:305]
    assert upload.source.read(len(CONTENT) - 2, 5) == CONTENT[-2:]

    assert (upload.wholes, upload.ranges) == (1, [])
    assert upload.source.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_large_upload_is_fetched_by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_MAX_WHOLE_BYTES", 1000)
    upload = Uploaded(CONTENT)

    assert upload.source.read(5000, 10) == CONTENT[5000:5010]
    assert upload.source.read(0, 10) == CONTENT[:10]

    assert (upload.wholes, upload.ranges) == (0, [(5000, 10), (0, 10)])
    digests = [hashlib.sha256(CONTENT[start : start + 10]).digest() for start in (0, 5000)]
    assert upload.source.sha256 == hashlib.sha256(b"".join(digests)).hexdigest()


def test_upload_is_fetched_whole_after_500_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_MAX_WHOLE_BYTES", 1000)
    upload = Uploaded(CONTENT)

    read = b"".join(upload.source.read(10 * number, 10) for number in range(600))

    assert read == CONTENT[:6000]
    assert (upload.wholes, len(upload.ranges)) == (1, 500)
    assert upload.source.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_ranged_file_reads_like_any_other() -> None:
    file = buffered(lambda start, size: CONTENT[start : start + size], len(CONTENT))

    assert file.read(10) == CONTENT[:10]
    assert file.seek(-7, os.SEEK_END) == len(CONTENT) - 7
    assert file.read() == CONTENT[-7:]
    assert file.read(1) == b""
    file.seek(10_000)
    assert file.read(15_000) == CONTENT[10_000:25_000]
    with pytest.raises(ValueError, match="before"):
        RangedFile(lambda start, size: b"", 10).seek(-1)


# The process


class Medium:
    """A picture of which nothing is decoded."""

    facts = PictureFacts(width=640, height=480)

    def __init__(self, file: BinaryIO) -> None:
        self.content = file.read()

    def write(self, limits: ImageLimits, into: BinaryIO) -> Copy:
        into.write(self.content[::-1])
        return Copy(format=limits.formats[0], changes=(str(os.getpid()),))


def _codec(open_it: Callable[[BinaryIO], object]) -> Codec[PictureFacts]:
    return Codec("picture", open_it, PictureFacts, ImageLimits)


@contextmanager
def opening(
    open_it: Callable[[BinaryIO], object], upload: Source | None = None, seconds: float = 60
) -> Iterator[tuple[Opened[PictureFacts], BinaryIO]]:
    """Opens a medium, and leaves no process behind."""
    before = _processes()
    with TemporaryFile() as into:
        chosen = upload or Uploaded(CONTENT).source
        try:
            with opened(_codec(open_it), chosen, into, lambda: seconds + 15) as medium:
                yield medium, into
        finally:
            assert _processes() <= before


def _processes() -> set[str]:
    """Ours, the ended ones too that nobody waited for."""
    children = Path("/proc/self/task").glob("*/children")
    return {process for one in children for process in one.read_text().split()}


def refusal(open_it: Callable[[BinaryIO], object], seconds: float = 60) -> str:
    with pytest.raises(MediumRefused) as refused, opening(open_it, seconds=seconds) as (medium, _):
        medium.write(LIMITS)
    return refused.value.fault.found


def test_medium_is_opened_and_written_in_another_process() -> None:
    with opening(Medium) as (medium, into):
        copy = medium.write(LIMITS)
        into.seek(0)
        content = into.read()

    assert medium.facts == Medium.facts
    assert copy.format is ImageFormat.PNG
    assert int(copy.changes[0]) != os.getpid()
    assert content == CONTENT[::-1]


def test_sound_reads_only_its_part_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_MAX_WHOLE_BYTES", 1000)
    upload = Uploaded(tone("flac", "flac"))
    limits = AudioLimits(formats=(AudioFormat.WAV,), required=True)

    with (
        TemporaryFile() as into,
        opened(codecs.sound(MODELS), upload.source, into, lambda: 60) as sound,
    ):
        assert sound.facts.duration_seconds == 4
        assert sound.write(limits).format is AudioFormat.WAV

    assert upload.wholes == 0
    assert len(upload.ranges) < 20


def _crash(file: BinaryIO) -> None:
    faulthandler.disable()  # pytest's, which would tell it in many words
    os.kill(os.getpid(), signal.SIGSEGV)


def _loop(file: BinaryIO) -> None:
    while True:
        pass


def _raise(file: BinaryIO) -> None:
    raise KeyError("a fault of ours")


class DiesWhileWriting(Medium):
    def write(self, limits: ImageLimits, into: BinaryIO) -> Copy:
        _crash(into)
        raise AssertionError


class DiesBeforeWriting(Medium):
    @property
    def facts(self) -> PictureFacts:  # type: ignore[override]
        signal.setitimer(signal.ITIMER_REAL, 0.05)  # SIGALRM kills, once it waits for the limits
        return PictureFacts(width=1, height=1)


@pytest.mark.parametrize(
    ("open_it", "found"),
    [
        (_crash, "a picture that is damaged"),
        (lambda file: os._exit(0), "a picture that is damaged"),
        (_raise, "a picture that is damaged"),
        (
            lambda file: os.kill(os.getpid(), signal.SIGKILL),
            "a picture that needs too much memory to convert",
        ),
        (
            lambda file: bytes(2 * shut_in.MAX_MEMORY_BYTES),
            "a picture that needs too much memory to convert",
        ),
        (DiesWhileWriting, "a picture that is damaged"),
    ],
    ids=["crash", "exit", "exception", "killed", "much memory", "crash while writing"],
)
def test_codec_that_dies_is_a_refusal(open_it: Callable[[BinaryIO], object], found: str) -> None:
    assert refusal(open_it) == found


def test_codec_that_dies_before_it_is_asked_to_write_is_a_refusal() -> None:
    with (
        pytest.raises(MediumRefused, match="damaged"),
        opening(DiesBeforeWriting) as (medium, _),
    ):
        time.sleep(0.3)
        medium.write(LIMITS)


def test_codec_that_loops_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shut_in, "MAX_WORKING_SECONDS", 1)
    begun = time.monotonic()

    assert refusal(_loop) == "a picture that needs too much time to convert"
    assert time.monotonic() - begun < 20  # by its own time, before the function's 60 seconds


def test_codec_that_waits_for_ever_is_stopped() -> None:
    begun = time.monotonic()

    assert (
        refusal(lambda file: time.sleep(60), seconds=0.2)
        == "a picture that needs too much time to convert"
    )
    assert time.monotonic() - begun < 5


def _saying(said: bytes) -> Callable[[BinaryIO], object]:
    """A codec that was taken over: it writes into its connection what it likes."""

    def open_it(file: BinaryIO) -> object:
        for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not files
            if re.match("socket", _target(number)):
                os.write(int(number), len(said).to_bytes(4) + said)
        os._exit(0)

    return open_it


def _target(number: str) -> str:
    try:
        return str(Path("/proc/self/fd", number).readlink())
    except OSError:
        return ""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds its connection in /proc")
@pytest.mark.parametrize(
    "said",
    [
        b"nonsense",
        b"\xff\xff\xff",
        b"",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b'{"read": null}',
        b'{"read": [1]}',
        b'{"read": [-9, 5]}',
        b'{"read": [0, 1e99]}',
        b'{"read": [Infinity, 5]}',
        b'{"read": ["../../etc/passwd", 5]}',
        b'{"fault": {"found": 7}}',
        b'{"answer": {"width": "wide"}}',
        b'{"answer": null}',
        b"[" * 100_000,
    ],
    ids=lambda said: said[:30],
)
def test_nonsense_from_a_process_is_a_refusal(said: bytes) -> None:
    assert refusal(_saying(said)) == "a picture that is damaged"


def test_fault_comes_through_whole() -> None:
    def refuse(file: BinaryIO) -> None:
        raise MediumRefused("a", rule="b", cure="c")

    with pytest.raises(MediumRefused) as refused, opening(refuse):
        pass
    assert refused.value.fault == Fault(found="a", broken=False, rule="b", cure="c")


@pytest.mark.parametrize("error", [InputGone("It was deleted."), ConnectionError("cut off")])
def test_what_reading_raises_comes_through(error: Exception) -> None:
    def fetch_all(into: BinaryIO) -> None:
        raise error

    gone = Source(lambda start, size: b"", fetch_all, 100)
    with pytest.raises(type(error)), opening(Medium, gone):
        pass
