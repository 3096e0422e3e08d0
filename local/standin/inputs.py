"""The inputs of a render: fetched from the URLs it was given, and checked as the page says."""

import asyncio
import hashlib
import io
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import av
import httpx
from PIL import Image, UnidentifiedImageError

from dropreel.catalog import AudioFormat, AudioLimits, ImageFormat, ImageLimits, Offer

FETCH_TIMEOUT_SECONDS = 20
_TLS = ssl.create_default_context()

_IMAGE_FORMATS = {
    "JPEG": ImageFormat.JPEG,
    "MPO": ImageFormat.JPEG,  # a phone's JPEG with a second picture behind the first
    "PNG": ImageFormat.PNG,
    "BMP": ImageFormat.BMP,
    "WEBP": ImageFormat.WEBP,
}
_AUDIO_FORMATS = {"wav": AudioFormat.WAV, "mp3": AudioFormat.MP3}


class InputRefused(Exception):
    """An input could not be fetched or breaks the page's rules; says which, without any URL."""


@dataclass(frozen=True)
class Order:
    """What a submission asks for."""

    offer: Offer
    image_url: str
    audio_url: str
    resolution: str

    @property
    def paths(self) -> tuple[str, ...]:
        return path_of(self.image_url), path_of(self.audio_url)


@dataclass(frozen=True)
class Inputs:
    """The fetched files. They are kept in memory only."""

    picture: bytes
    voice: bytes


def path_of(url: str) -> str:
    """The path of a URL as people write it. Never the query: that is where the secrets are."""
    try:
        return unquote(urlsplit(url).path)
    except ValueError:
        return ""


class Reception:
    """Fetches and checks. Verdicts are kept by content, for many jobs share their files."""

    def __init__(self) -> None:
        self._verdicts: dict[tuple[str, str, Offer], list[str]] = {}

    async def receive(self, order: Order) -> Inputs:
        """Raises `InputRefused` with every rule that is broken."""
        offer = order.offer
        async with httpx.AsyncClient(
            verify=_TLS, trust_env=False, follow_redirects=True, timeout=FETCH_TIMEOUT_SECONDS
        ) as client:
            inputs = Inputs(
                picture=await _fetch(
                    client, offer.image_field, order.image_url, offer.image.size_at_most_bytes
                ),
                voice=await _fetch(
                    client, offer.audio_field, order.audio_url, offer.audio.size_under_bytes - 1
                ),
            )
        key = _digest(inputs.picture), _digest(inputs.voice), offer
        if key not in self._verdicts:
            self._verdicts[key] = await asyncio.to_thread(broken_rules, inputs, offer)
        if self._verdicts[key]:
            raise InputRefused(" ".join(self._verdicts[key]))
        return inputs


async def _fetch(client: httpx.AsyncClient, field: str, url: str, size_at_most_bytes: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(FETCH_TIMEOUT_SECONDS), client.stream("GET", url) as answer:
            if answer.status_code != httpx.codes.OK:
                raise InputRefused(
                    f"{field}: The file could not be fetched: HTTP {answer.status_code}."
                )
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > size_at_most_bytes:
                    limit = f"{(size_at_most_bytes + 1) // 1_000_000} MB"
                    raise InputRefused(f"{field}: The file is too large; the limit is {limit}.")
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        # Its words may hold the URL; its name does not.
        name = type(error).__name__
        raise InputRefused(f"{field}: The file could not be fetched: {name}.") from None
    return bytes(body)


def broken_rules(inputs: Inputs, offer: Offer) -> list[str]:
    """What is wrong with the files, each after the name of its field, as the page words it."""
    pictures = (f"{offer.image_field}: {rule}" for rule in _picture(inputs.picture, offer.image))
    voices = (f"{offer.audio_field}: {rule}" for rule in _voice(inputs.voice, offer.audio))
    return [*pictures, *voices]


def _picture(body: bytes, limits: ImageLimits) -> Iterator[str]:
    wrong_format = f"Image format must be: {', '.join(limits.formats)}."
    try:
        with Image.open(io.BytesIO(body)) as image:
            if _IMAGE_FORMATS.get(image.format or "") not in limits.formats:
                yield wrong_format
                return
            if min(image.size) <= limits.side_over_pixels:
                yield f"The image width and height must exceed {limits.side_over_pixels} pixels."
            if max(image.size) >= limits.side_under_pixels:
                yield (
                    f"The image width and height must not exceed {limits.side_under_pixels} pixels."
                )
                return
            image.load()
    except UnidentifiedImageError:
        yield wrong_format
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        yield "The image is damaged."


def _voice(body: bytes, limits: AudioLimits) -> Iterator[str]:
    wrong_format = f"Audio format must be: {', '.join(limits.formats)}."
    try:
        with av.open(io.BytesIO(body), "r") as recording:
            if (
                _AUDIO_FORMATS.get(recording.format.name) not in limits.formats
                or not recording.streams.audio
            ):
                yield wrong_format
                return
            heard_seconds = 0.0
            for frame in recording.decode(audio=0):
                heard_seconds += frame.samples / frame.sample_rate
                if heard_seconds >= limits.duration_under_seconds:
                    yield (
                        "The duration of the audio must be less than "
                        f"{limits.duration_under_seconds:g}s."
                    )
                    return
            if not heard_seconds:
                yield "The audio is empty."
    except av.error.FFmpegError:
        yield wrong_format


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
