"""The inputs of a render: fetched from the URLs it was given, and checked as the page says."""

import asyncio
import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from pydantic import JsonValue

from dropreel.model.catalog import AudioLimits, ImageLimits, Offer
from dropreel.model.provider import FailureCause
from local.standin.files import Look, listen_to_voice, look_at_picture
from local.standin.orders import Order, path_of

FETCH_TIMEOUT_SECONDS = 20
SIZE_AT_MOST_BYTES = 200_000_000  # where the page names no limit: files are kept in memory
_TLS = ssl.create_default_context()


class InputRefused(Exception):
    """An input could not be fetched or breaks the page's rules; says which, without any URL."""

    def __init__(self, message: str, cause: FailureCause) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class Inputs:
    """The fetched files. They are kept in memory only."""

    picture: bytes
    voice: bytes | None
    looks: Mapping[str, Look]  # by the field that named the file
    summaries: tuple[dict[str, JsonValue], ...]

    def check(self) -> None:
        """Raises `InputRefused` with every rule that is broken."""
        broken = [f"{name}: {rule}" for name, look in self.looks.items() for rule in look.broken]
        if broken:
            raise InputRefused(" ".join(broken), FailureCause.BAD_INPUT)


class Reception:
    """Fetches and looks. Looks are kept by content, for many jobs share their files."""

    def __init__(self) -> None:
        self._looks: dict[tuple[str, str, str], Look] = {}

    async def receive(self, order: Order) -> Inputs:
        """Raises `InputRefused` for what cannot be fetched. Whether the files are right is told
        by `Inputs.check`, so that a wrong one is seen in the books, too."""
        offer = order.offer
        limits: Mapping[str | None, ImageLimits | AudioLimits | None] = {
            offer.image_field: offer.image,
            offer.audio_field: offer.audio,
        }
        async with httpx.AsyncClient(
            verify=_TLS, trust_env=False, follow_redirects=True, timeout=FETCH_TIMEOUT_SECONDS
        ) as client:
            bodies = {
                name: await _fetch(client, name, url, _size_at_most_bytes(limits[name]))
                for name, url in order.urls.items()
            }
        looks = {name: await self._look(offer, name, body) for name, body in bodies.items()}
        return Inputs(
            picture=bodies[offer.image_field],
            voice=bodies.get(offer.audio_field or ""),
            looks=looks,
            summaries=tuple(
                {
                    "field": name,
                    "path": path_of(order.urls[name]),
                    "size_bytes": len(bodies[name]),
                    **look.summary(),
                }
                for name, look in looks.items()
            ),
        )

    async def _look(self, offer: Offer, name: str, body: bytes) -> Look:
        key = offer.endpoint, name, hashlib.sha256(body).hexdigest()
        if key not in self._looks:
            if name == offer.audio_field and offer.audio:
                look = await asyncio.to_thread(listen_to_voice, body, offer.audio)
            else:
                look = await asyncio.to_thread(look_at_picture, body, offer.image)
            self._looks[key] = look
        return self._looks[key]


def _size_at_most_bytes(limits: ImageLimits | AudioLimits | None) -> int:
    if isinstance(limits, ImageLimits) and limits.size_at_most_bytes is not None:
        return limits.size_at_most_bytes
    if limits and limits.size_under_bytes is not None:
        return limits.size_under_bytes - 1
    return SIZE_AT_MOST_BYTES


async def _fetch(client: httpx.AsyncClient, field: str, url: str, size_at_most_bytes: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(FETCH_TIMEOUT_SECONDS), client.stream("GET", url) as answer:
            if answer.status_code != httpx.codes.OK:
                raise _unreadable(field, f"HTTP {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > size_at_most_bytes:
                    limit = f"{(size_at_most_bytes + 1) // 1_000_000} MB"
                    raise InputRefused(
                        f"{field}: The file is too large; the limit is {limit}.",
                        FailureCause.BAD_INPUT,
                    )
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        # Its words may hold the URL; its name does not.
        raise _unreadable(field, type(error).__name__) from None
    return bytes(body)


def _unreadable(field: str, why: str) -> InputRefused:
    return InputRefused(
        f"{field}: The file could not be fetched: {why}.", FailureCause.MEDIA_UNREADABLE
    )
