"""What a fetched file is: its facts, the rules of the page that it breaks, and its metadata.

Metadata is watched because none may reach a provider: where a photo was taken is nobody's business.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import av
from PIL import (
    ExifTags,
    Image,
    ImageFile,
    IptcImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
)
from pydantic import JsonValue

from dropreel.model.catalog import AudioFormat, AudioLimits, ImageFormat, ImageLimits

_IMAGE_FORMATS = {
    "JPEG": ImageFormat.JPEG,
    "MPO": ImageFormat.JPEG,  # a phone's JPEG with a second picture behind the first
    "PNG": ImageFormat.PNG,
    "BMP": ImageFormat.BMP,
    "WEBP": ImageFormat.WEBP,
}
_AUDIO_FORMATS = {"wav": AudioFormat.WAV, "mp3": AudioFormat.MP3}


@dataclass
class Look:
    """What one look at a file found."""

    facts: dict[str, JsonValue] = field(default_factory=dict)
    metadata: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, JsonValue]:
        return {**self.facts, "metadata": [*self.metadata]}


def look_at_picture(body: bytes, limits: ImageLimits) -> Look:
    look = Look()
    wrong_format = f"Image format must be: {', '.join(limits.formats)}."
    try:
        with Image.open(io.BytesIO(body)) as image:
            look.facts = {
                "format": _IMAGE_FORMATS.get(image.format or "", (image.format or "").lower()),
                "width": image.width,
                "height": image.height,
            }
            look.broken += _broken_by_picture(image, limits, wrong_format)
            if not look.broken:
                image.load()
            look.metadata += _metadata_of_picture(image)
    except UnidentifiedImageError:
        look.broken.append(wrong_format)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        look.broken.append("The image is damaged.")
    return look


def _broken_by_picture(image: Image.Image, limits: ImageLimits, wrong_format: str) -> Iterator[str]:
    if _IMAGE_FORMATS.get(image.format or "") not in limits.formats:
        yield wrong_format
        return
    over, under = limits.side_over_pixels, limits.side_under_pixels
    if over is not None and min(image.size) <= over:
        yield f"The image width and height must exceed {over} pixels."
    if under is not None and max(image.size) >= under:
        yield f"The image width and height must not exceed {under} pixels."
    if image.format == "PNG" and image.has_transparency_data and not limits.png_alpha:
        yield "The image must be a PNG without alpha."


def _metadata_of_picture(image: Image.Image) -> Iterator[str]:
    exif = image.getexif()
    if exif:
        yield "EXIF"
    if exif.get_ifd(ExifTags.IFD.GPSInfo):
        yield "GPS"
    if {"xmp", "XML:com.adobe.xmp"} & image.info.keys():
        yield "XMP"
    if "photoshop" in image.info or _has_iptc(image):
        yield "IPTC"
    if "comment" in image.info:
        yield "comment"
    if isinstance(image, PngImagePlugin.PngImageFile):
        yield from (f"text: {name}" for name in image.text if name != "XML:com.adobe.xmp")
    if image.format == "MPO":
        yield "second picture"


def _has_iptc(image: Image.Image) -> bool:
    return isinstance(image, ImageFile.ImageFile) and bool(IptcImagePlugin.getiptcinfo(image))


def listen_to_voice(body: bytes, limits: AudioLimits) -> Look:
    look = Look()
    wrong_format = f"Audio format must be: {', '.join(limits.formats)}."
    try:
        with av.open(io.BytesIO(body), "r") as recording:
            name = recording.format.name
            look.facts = {"format": _AUDIO_FORMATS.get(name, name)}
            look.metadata += _metadata_of_voice(recording)
            if _AUDIO_FORMATS.get(name) not in limits.formats or not recording.streams.audio:
                look.broken.append(wrong_format)
                return look
            seconds = sum(frame.samples / frame.sample_rate for frame in recording.decode(audio=0))
            look.facts["duration_seconds"] = round(seconds, 3)
            look.broken += _broken_by_voice(seconds, limits)
    except av.error.FFmpegError:
        look.broken.append(wrong_format)
    return look


def _broken_by_voice(seconds: float, limits: AudioLimits) -> Iterator[str]:
    least, most = limits.duration_at_least_seconds, limits.duration_at_most_seconds
    under = limits.duration_under_seconds
    if not seconds:
        yield "The audio is empty."
    elif least is not None and seconds < least:
        yield f"The duration of the audio must be at least {least:g}s."
    if most is not None and seconds > most:
        yield f"The duration of the audio must be at most {most:g}s."
    if under is not None and seconds >= under:
        yield f"The duration of the audio must be less than {under:g}s."


def _metadata_of_voice(recording: av.container.InputContainer) -> Iterable[str]:
    """Tags of any kind (ID3, RIFF), by the names that FFmpeg has for them. Not the encoder's."""
    tags = {*recording.metadata}.union(*(stream.metadata for stream in recording.streams))
    if recording.streams.video:
        tags.add("picture")
    return sorted(tags - {"encoder"})
