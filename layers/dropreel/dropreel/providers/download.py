"""Safe download: only over https, only from public addresses, only so many bytes. An adapter.

A URL from outside can point inside. So each connection, also after a redirect, goes to the very
address that was checked: a second DNS answer changes nothing. No log line or error holds a URL,
because it grants access, or its host, which can be any text.
"""

import ipaddress
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Protocol

import httpx

from dropreel.model.errors import ResultRefused, ResultUnavailable
from dropreel.model.provider import Unreachable
from dropreel.providers.deadline import Deadline, DeadlineTransport, addresses_of
from dropreel.runtime.log import logger

MAX_VIDEO_BYTES = 2 * 1024**3
_MAX_FAILURES = 5
_MAX_REDIRECTS = 5
_MAX_ADDRESSES = 4
_TIMEOUT = httpx.Timeout(30, connect=10)
_HEADERS_SECONDS = 60  # from the connection to the last header, however they come
# What finishing or aborting the upload takes once the download has to stop.
_SPARE_SECONDS = 15

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)")
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Sink(Protocol):
    """Where the bytes go."""

    def begin(self) -> None:
        """Discard what was written: the body starts at its first byte."""

    def write(self, chunk: bytes) -> None: ...

    @property
    def is_whole(self) -> bool:
        """Whether what was written looks complete; for servers that send no length."""


class Download:
    """Fetches one body at a time into a sink, despite cut connections and short faults.

    After a cut it resumes, if the server proves that it is the same file, or starts again. After
    any other failure it asks for a fresh URL, because the old one may have expired.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_VIDEO_BYTES,
        deadline: Deadline | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._deadline = deadline or Deadline()
        self._transport = transport
        self._max_bytes = max_bytes
        self._sleep = sleep

    @cached_property
    def _client(self) -> httpx.Client:
        """Made on first use: it reads the certificates."""
        return httpx.Client(
            transport=self._transport or GuardedTransport(self._deadline),
            timeout=_TIMEOUT,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"User-Agent": "dropreel", "Accept": "*/*", "Accept-Encoding": "identity"},
        )

    def __call__(
        self, fresh_url: Callable[[], str], sink: Sink, seconds_left: Callable[[], float]
    ) -> None:
        """Write the whole body into the sink.

        Raises `ResultUnavailable` (too many failures, or out of time), `ResultRefused` (must not
        be fetched), and what `fresh_url` raises; its `Unreachable` is a failed try.
        """
        body = _Body(sink, seconds_left, self._max_bytes)
        url = ""
        failures = 0
        while True:
            furthest = body.furthest
            try:
                url = url or fresh_url()
                self._read(url, body)
                return
            except _Failed as failed:
                why = str(failed)
                url = "" if failed.needs_fresh_url else url
            except Unreachable:
                why = "the provider did not say where it is"
            failures = 1 if body.furthest > furthest else failures + 1
            logger.warning("download failed", why=why, failures=failures, bytes=body.furthest)
            if failures == _MAX_FAILURES:
                raise ResultUnavailable(
                    f"The finished video could not be fetched in {failures} tries: {why}."
                )
            wait_seconds = 2.0 ** (failures - 1)
            body.check_time(wait_seconds)
            self._sleep(wait_seconds)

    def _read(self, url: str, body: "_Body") -> None:
        """One request for the rest of the body, with its redirects."""
        try:
            request = self._client.build_request("GET", url, headers=body.range_headers())
            for _ in range(_MAX_REDIRECTS + 1):
                self._deadline.begin(min(_HEADERS_SECONDS, body.seconds_to_read()))
                response = self._client.send(request, stream=True)
                self._deadline.begin(body.seconds_to_read())
                try:
                    if response.next_request is None:
                        body.take(response)
                        return
                finally:
                    response.close()
                # httpx itself would read each redirect's body whole.
                request = response.next_request
        # ValueError: httpx decodes an internationalised host name late.
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
            raise ResultRefused("The provider offers the video at an unusable address.") from None
        except httpx.TimeoutException:
            raise _Failed(f"the connection stalled after {body.received} bytes") from None
        except httpx.TransportError:
            raise _Failed(f"the connection broke after {body.received} bytes") from None
        raise _Failed(f"it was redirected more than {_MAX_REDIRECTS} times", fresh=True)


class _Failed(Exception):
    """One try failed; another may do better."""

    def __init__(self, why: str, *, fresh: bool = False) -> None:
        super().__init__(why)
        self.needs_fresh_url = fresh


@dataclass
class _Body:
    """What has arrived so far, over all tries."""

    sink: Sink
    seconds_left: Callable[[], float]
    max_bytes: int
    received: int = 0
    furthest: int = 0
    total: int | None = None
    etag: str = ""

    def range_headers(self) -> dict[str, str]:
        """For the rest, or for all if the file is another one now."""
        if not self._resumable:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self.etag}

    @property
    def _resumable(self) -> bool:
        return bool(self.received and self.etag)

    def take(self, response: httpx.Response) -> None:
        """Write an answer's bytes into the sink."""
        status = response.status_code
        if status not in (200, 206) or (status == 206 and not self._continues(response)):
            if status in (206, 416):
                self.etag = ""  # no use of ranges: ask for the whole
            raise _Failed(f"the server answered {status}", fresh=True)
        _check_kind(response)
        if status == 200:
            self._begin(response)
        for chunk in response.iter_raw():
            self.received += len(chunk)
            self.furthest = max(self.furthest, self.received)
            self._check_size(self.received)
            self.check_time()
            self.sink.write(chunk)
        self._check_end()

    def seconds_to_read(self) -> float:
        return self.seconds_left() - _SPARE_SECONDS

    def check_time(self, wait_seconds: float = 0) -> None:
        if self.seconds_to_read() < wait_seconds:
            raise ResultUnavailable("The finished video could not be fetched in the time there is.")

    def _begin(self, response: httpx.Response) -> None:
        self.received = 0
        self.total = _declared_bytes(response)
        self.etag = _strong_etag(response)
        self._check_size(self.total or 0)
        if self.total == 0:
            raise ResultRefused("What the provider offers as the video is empty.")
        self.sink.begin()

    def _continues(self, response: httpx.Response) -> bool:
        """Whether a 206 is the rest of the same body, from the next byte."""
        given = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not (self._resumable and given and int(given[1]) == self.received):
            return False
        same_total = given[2] == "*" or self.total in (None, int(given[2]))
        return same_total and response.headers.get("ETag", self.etag) == self.etag

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.max_bytes:
            raise ResultRefused(
                f"What the provider offers as the video is larger than {self.max_bytes} "
                f"bytes, which is the most that is copied."
            )

    def _check_end(self) -> None:
        if self.total is not None and self.received != self.total:
            raise _Failed(f"it ended after {self.received} of {self.total} bytes")
        if self.total is None and self.received and not self.sink.is_whole:
            raise _Failed(f"it ended too early, after {self.received} bytes", fresh=True)


def _check_kind(response: httpx.Response) -> None:
    """Refuse what is declared as no video. Delivery checks the bytes later."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    # A header can hold a secret: neither is repeated.
    if not (kind.startswith("video/") or kind in ("", "application/mp4") or "octet-stream" in kind):
        raise ResultRefused("What the provider offers as the video says it is something else.")
    if encoding not in ("", "identity"):
        raise ResultRefused("What the provider offers as the video is packed.")


def _declared_bytes(response: httpx.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    if "Transfer-Encoding" in response.headers or not re.fullmatch("[0-9]{1,19}", length):
        return None
    return int(length)


def _strong_etag(response: httpx.Response) -> str:
    """Only a strong one proves the same bytes (RFC 9110, 13.1.5); one that is not ASCII or too
    long cannot be sent back."""
    etag: str = response.headers.get("ETag", "")
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]{0,256}"', etag) else ""


class GuardedTransport(httpx.BaseTransport):
    """Sends requests only over https to public addresses.

    It connects to the address that it has checked; TLS still verifies the name.
    """

    def __init__(
        self,
        deadline: Deadline | None = None,
        *,
        inner: httpx.BaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._inner = inner or DeadlineTransport(deadline or Deadline(), tls)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme != "https":
            raise ResultRefused("The video is offered over a connection that is not https.")
        host = request.url.raw_host.decode("ascii")
        broken: httpx.TransportError = httpx.ConnectError("no address")
        for address in _public_addresses(host, request.url.port or 443):
            try:
                return self._inner.handle_request(_pinned(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                broken = error
        raise broken

    def close(self) -> None:
        self._inner.close()


def _pinned(request: httpx.Request, host: str, address: str) -> httpx.Request:
    """The same request to one address of its host; the `Host` header and the TLS name stay."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        extensions={**request.extensions, "sni_hostname": host},
    )


def _public_addresses(host: str, port: int) -> list[str]:
    """A name's addresses. Raises `ResultRefused` if one is not public."""
    addresses = addresses_of(host, port)
    if not all(map(is_public, addresses)):
        raise ResultRefused("The video is offered at an address that is not public.")
    return addresses[:_MAX_ADDRESSES]


def is_public(address: str) -> bool:
    """Whether an IP address, in any form, is one of the public internet.

    >>> is_public("93.184.215.14"), is_public("169.254.169.254"), is_public("::ffff:10.0.0.1")
    (True, False, False)
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:  # DNS64's answer in an IPv6-only network
            return is_public(str(ipaddress.IPv4Address(ip.packed[-4:])))
        if ip not in _GLOBAL_IPV6 or ip.sixtofour or ip.teredo:
            return False
    return ip.is_global and not ip.is_multicast
