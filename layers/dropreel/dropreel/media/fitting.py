"""Whether a picture or a recording fits an offer's limits.

An objection is a fault that no copy can cure: too few pixels, too long, too short. Pictures are
never scaled up, and recordings are never cut.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import TypeVar

from dropreel.media.opened import PictureFacts, SoundFacts
from dropreel.model.catalog import AudioFormat, AudioLimits, ImageFormat, ImageLimits, Offer
from dropreel.model.errors import Reason

_Format = TypeVar("_Format", ImageFormat, AudioFormat)
_Number = TypeVar("_Number", int, float)


def strictest(offers: Sequence[Offer]) -> tuple[ImageLimits, AudioLimits | None]:
    """The limits that satisfy all offers. No audio limits if one of them takes no audio."""
    images = [offer.image for offer in offers]
    image = ImageLimits(
        formats=_common([limits.formats for limits in images]),
        side_over_pixels=_highest([limits.side_over_pixels for limits in images]),
        side_under_pixels=_lowest([limits.side_under_pixels for limits in images]),
        size_at_most_bytes=_lowest([limits.size_at_most_bytes for limits in images]),
        size_under_bytes=_lowest([limits.size_under_bytes for limits in images]),
        png_alpha=all(limits.png_alpha for limits in images),
    )
    audios = [offer.audio for offer in offers if offer.audio]
    if len(audios) < len(offers):
        return image, None
    audio = AudioLimits(
        formats=_common([limits.formats for limits in audios]),
        required=any(limits.required for limits in audios),
        duration_at_least_seconds=_highest([a.duration_at_least_seconds for a in audios]),
        duration_at_most_seconds=_lowest([a.duration_at_most_seconds for a in audios]),
        duration_under_seconds=_lowest([a.duration_under_seconds for a in audios]),
        size_under_bytes=_lowest([limits.size_under_bytes for limits in audios]),
    )
    return image, audio


def _common(formats: Sequence[tuple[_Format, ...]]) -> tuple[_Format, ...]:
    return tuple(one for one in formats[0] if all(one in others for others in formats))


def picture_objections(key: str, picture: PictureFacts, limits: ImageLimits) -> Iterator[Reason]:
    """The rules that no copy of the picture can keep."""
    if limits.side_over_pixels is None:
        return
    width, height = picture.width, picture.height
    smallest = limits.side_over_pixels + 1
    too_small = False
    for pixels, way in ((width, "wide"), (height, "high")):
        if pixels < smallest:
            too_small = True
            yield Reason(
                file=key,
                rule=f"more than {limits.side_over_pixels} pixels {way}",
                found=f"{pixels} pixels {way}",
                cure=f"Use a larger picture: at least {smallest} x {smallest} pixels.",
            )
    shorter = min(scaled(width, height, limits))
    if not too_small and shorter < smallest:
        yield Reason(
            file=key,
            rule=f"fewer than {limits.side_under_pixels} and more than {limits.side_over_pixels} "
            "pixels wide and high",
            found=f"{width} x {height} pixels. Scaled down to fit, its shorter side would have "
            f"only {shorter} pixels",
            cure=f"Crop the longer side of the picture, which has {max(width, height)} pixels.",
        )


def sound_objections(key: str, sound: SoundFacts, limits: AudioLimits) -> Iterator[Reason]:
    """The rules that no copy of the recording can keep."""
    seconds, found = sound.duration_seconds, f"{_duration(sound.duration_seconds)} long"
    least, most = limits.duration_at_least_seconds, limits.duration_at_most_seconds
    under = limits.duration_under_seconds
    if under is not None and seconds >= under:
        yield Reason(
            file=key,
            rule=f"shorter than {under:g} seconds",
            found=found,
            cure=f"Cut the recording to less than {under:g} seconds.",
        )
    if most is not None and seconds > most:
        yield Reason(
            file=key,
            rule=f"at most {most:g} seconds",
            found=found,
            cure=f"Cut the recording to {most:g} seconds or less.",
        )
    if least is not None and seconds < least:
        yield Reason(
            file=key,
            rule=f"at least {least:g} seconds",
            found=found,
            cure=f"Record {least:g} seconds or more. Silence at the end counts.",
        )


def broken(key: str, noun: str, found: str) -> Reason:
    return Reason(
        file=key,
        rule=f"a complete, undamaged {noun}",
        found=found,
        cure="Upload the file again from the original. If that does not help, "
        f"open the {noun} in an app and export it again.",
    )


def scaled(width: int, height: int, limits: ImageLimits) -> tuple[int, int]:
    """The size that fits, with the same proportions. It is never larger."""
    longest = max(width, height)
    if limits.side_under_pixels is None or longest < limits.side_under_pixels:
        return width, height
    largest = limits.side_under_pixels - 1
    return width * largest // longest, height * largest // longest


def megabytes(size_bytes: int) -> str:
    """Rounded up: a size just above a limit must not read like the limit."""
    return f"{ceil(size_bytes / 100_000) / 10:g} MB"


def listed(words: Sequence[str], last: str) -> str:
    """`a, b and c`."""
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _lowest(numbers: Sequence[_Number | None]) -> _Number | None:
    return min((number for number in numbers if number is not None), default=None)


def _highest(numbers: Sequence[_Number | None]) -> _Number | None:
    return max((number for number in numbers if number is not None), default=None)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} seconds"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{_counted(minutes, 'minute')} {_counted(rest, 'second')}"
    return f"{_counted(minutes // 60, 'hour')} {_counted(minutes % 60, 'minute')}"


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"
