"""Whether a picture or a recording fits what an offer takes, and what would make it fit.

An objection is what conform cannot cure: too few pixels, too long, too short, broken. A need is
what it can: another format, fewer pixels, fewer bytes, no metadata. Nothing is ever scaled up and
nothing is ever cut.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final, TypeVar

from dropreel.media.pictures import Picture
from dropreel.media.recordings import Sound
from dropreel.model.catalog import AudioFormat, AudioLimits, ImageFormat, ImageLimits, Offer
from dropreel.model.errors import Reason

_Format = TypeVar("_Format", ImageFormat, AudioFormat)
_Number = TypeVar("_Number", int, float)

# What conform opens. No photo is larger: the largest cameras of phones take 200 megapixels, as
# JPEG, which is scaled down while it is decoded; a scan of A3 at 600 dpi has 70.
PICTURE_AT_MOST_BYTES: Final = 250_000_000
JPEG_AT_MOST_PIXELS: Final = 220_000_000
OTHER_AT_MOST_PIXELS: Final = 100_000_000
RECORDING_AT_MOST_BYTES: Final = 2_000_000_000

_PROMISE_TOLERANCE_SECONDS: Final = 0.25
"""How wrong a duration may be that a header promises: near a bound, conform's decoder decides."""

_NAMES: Final[dict[ImageFormat | AudioFormat, str]] = {
    ImageFormat.JPEG: "JPEG",
    ImageFormat.PNG: "PNG",
    ImageFormat.BMP: "BMP",
    ImageFormat.WEBP: "WebP",
    AudioFormat.WAV: "WAV",
    AudioFormat.MP3: "MP3",
}


def strictest(offers: Sequence[Offer]) -> tuple[ImageLimits, AudioLimits | None]:
    """The limits that keep those of all offers; no audio limits when one of them takes no audio."""
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


def picture_objections(key: str, picture: Picture, limits: ImageLimits) -> Iterator[Reason]:
    """What of the picture nothing can make fit."""
    if picture.damage:
        yield broken(key, "picture", picture.damage)
    width, height = picture.width, picture.height
    if width is None or height is None:
        return
    most = JPEG_AT_MOST_PIXELS if picture.format is ImageFormat.JPEG else OTHER_AT_MOST_PIXELS
    if width * height > most:
        yield Reason(
            file=key,
            rule=f"at most {most // 1_000_000} megapixels",
            found=f"{width} x {height} pixels, {ceil(width * height / 1_000_000)} megapixels",
            cure="Scale the picture down, then drop it again.",
        )
        return
    if limits.side_over_pixels is None:
        return
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
    if not too_small and min(scaled(width, height, limits)) < smallest:
        largest = max(width, height)
        yield Reason(
            file=key,
            rule=f"fewer than {limits.side_under_pixels} and more than {limits.side_over_pixels} "
            "pixels wide and high",
            found=f"{width} x {height} pixels, too narrow to be scaled down: "
            f"the other side would have {min(scaled(width, height, limits))}",
            cure=f"Crop the picture so that its longer side, now {largest} pixels, is shorter.",
        )


def picture_needs(picture: Picture, limits: ImageLimits) -> Iterator[str]:
    """What conform must do to the picture, in words."""
    if picture.format not in limits.formats:
        yield f"{picture.kind.name} becomes {_formats(limits.formats)}"
    if picture.animated:
        yield "the animation becomes its first frame"
    if picture.turned:
        yield "turned upright, as its EXIF data says"
    if picture.cmyk:
        yield "the colours for print (CMYK) become RGB"
    if picture.deep:
        yield "16 bits for each colour become 8"
    if picture.alpha and picture.format is ImageFormat.PNG and not limits.png_alpha:
        yield "transparent parts are filled"
    if picture.width and picture.height:
        size = picture.width, picture.height
        if size != scaled(*size, limits):
            largest = (limits.side_under_pixels or 0) - 1
            yield f"scaled down from {size[0]} x {size[1]} to fit {largest} x {largest} pixels"
    most = limits.size_at_most_bytes
    if limits.size_under_bytes is not None:
        most = min(limits.size_under_bytes - 1, most or limits.size_under_bytes)
    if most is not None and picture.size_bytes > most:
        yield f"made smaller than {megabytes(most)}"
    if picture.metadata:
        yield f"{listed(picture.metadata, 'and')} removed"


def sound_objections(key: str, sound: Sound, limits: AudioLimits) -> Iterator[Reason]:
    """What of the recording nothing can make fit."""
    seconds = sound.duration_seconds
    if seconds is not None:
        slack = 0.0 if sound.exact else _PROMISE_TOLERANCE_SECONDS
        least, most = limits.duration_at_least_seconds, limits.duration_at_most_seconds
        under = limits.duration_under_seconds
        found = f"{_duration(seconds)} long"
        if under is not None and seconds - slack >= under:
            yield Reason(
                file=key,
                rule=f"shorter than {under:g} seconds",
                found=found,
                cure=f"Cut the recording to less than {under:g} seconds.",
            )
        if most is not None and seconds - slack > most:
            yield Reason(
                file=key,
                rule=f"at most {most:g} seconds",
                found=found,
                cure=f"Cut the recording to {most:g} seconds or less.",
            )
        if least is not None and seconds + slack < least:
            yield Reason(
                file=key,
                rule=f"at least {least:g} seconds",
                found=found,
                cure=f"Record {least:g} seconds or more, if only with silence at the end.",
            )
    if sound.damage:
        yield broken(key, "recording", sound.damage)


def sound_needs(sound: Sound, limits: AudioLimits) -> Iterator[str]:
    """What conform must do to the recording, in words."""
    if sound.format not in limits.formats:
        yield f"{sound.kind.name} becomes {_formats(limits.formats)}"
    if limits.size_under_bytes is not None and sound.size_bytes >= limits.size_under_bytes:
        yield f"made smaller than {megabytes(limits.size_under_bytes)}"
    if sound.metadata:
        yield f"{listed(sound.metadata, 'and')} removed"


def broken(key: str, noun: str, found: str) -> Reason:
    return Reason(
        file=key,
        rule=f"a complete, undamaged {noun}",
        found=found,
        cure="Upload the file again from the original; if that does not help, "
        f"open the {noun} in an app and export it anew.",
    )


def scaled(width: int, height: int, limits: ImageLimits) -> tuple[int, int]:
    """The size that fits, with the same proportions: never larger than it was."""
    longest = max(width, height)
    if limits.side_under_pixels is None or longest < limits.side_under_pixels:
        return width, height
    largest = limits.side_under_pixels - 1
    return width * largest // longest, height * largest // longest


def megabytes(size_bytes: int) -> str:
    """Rounded up, so that what is just over a limit never reads like the limit itself."""
    return f"{ceil(size_bytes / 100_000) / 10:g} MB"


def listed(words: Sequence[str], last: str) -> str:
    """`a, b and c`."""
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _formats(formats: Sequence[ImageFormat | AudioFormat]) -> str:
    return listed([_NAMES[taken] for taken in formats], "or")


def _lowest(numbers: Sequence[_Number | None]) -> _Number | None:
    return min((number for number in numbers if number is not None), default=None)


def _highest(numbers: Sequence[_Number | None]) -> _Number | None:
    return max((number for number in numbers if number is not None), default=None)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} seconds"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} minutes {rest} seconds"
