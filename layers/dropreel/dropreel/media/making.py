"""What making a picture or a recording fit takes and gives; `image` and `audio` do it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from dropreel.media.pictures import Picture
from dropreel.media.recordings import Sound
from dropreel.model.catalog import AudioFormat, AudioLimits, ImageFormat, ImageLimits

Alarm = Callable[[], None]
"""Raises `OutOfTime` when no time is left. Codecs call it wherever they could go on for long."""


class Watched:
    """A file that no codec reads for longer than there is time. It keeps what went wrong with it,
    for codecs do not, and take it for damage of the medium."""

    def __init__(self, file: BinaryIO, alarm: Alarm) -> None:
        self.fault: Exception | None = None
        self.seek, self.tell, self.fileno = file.seek, file.tell, file.fileno
        self._file = file
        self._alarm = alarm

    def read(self, size: int = -1) -> bytes:
        try:
            self._alarm()
            return self._file.read(size)
        except Exception as error:
            self.fault = error
            raise


class OutOfTime(Exception):
    """The medium takes longer than a function may run."""


class Unfit(Exception):
    """Nothing that the offers take can be made of the medium; why, in words."""

    def __init__(self, *, rule: str, found: str, cure: str) -> None:
        super().__init__(found)
        self.rule = rule
        self.found = found
        self.cure = cure


class Damaged(Exception):
    """The medium does not decode."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


class TooLong(Exception):
    """The recording is longer than any offer takes."""

    def __init__(self, duration_seconds: float) -> None:
        super().__init__(duration_seconds)
        self.duration_seconds = duration_seconds


@dataclass(frozen=True)
class Copy:
    """What was made of an upload."""

    format: ImageFormat | AudioFormat
    changes: tuple[str, ...]  # in sentences


class FitPicture(Protocol):
    def __call__(
        self,
        file: Watched,
        picture: Picture,
        limits: ImageLimits,
        *,
        into: BinaryIO,
        alarm: Alarm,
    ) -> Copy:
        """Write the best copy that keeps the limits into an empty file, never scaled up.

        Raises `Unfit`, `Damaged` and `OutOfTime`.
        """


class FitRecording(Protocol):
    def __call__(
        self,
        file: Watched,
        sound: Sound,
        limits: AudioLimits,
        *,
        longest_seconds: float,
        into: BinaryIO,
        alarm: Alarm,
    ) -> Copy:
        """Write the best copy that keeps the limits into an empty file, never cut.

        Raises `Unfit`, `Damaged`, `OutOfTime`, and `TooLong` for one that is longer than
        `longest_seconds`.
        """
