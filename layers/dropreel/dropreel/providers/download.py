"""Safe download: only over https, only from public addresses, only so many bytes. An adapter.

URLs that come from outside can point inside. So the address is checked where the connection is
made, for the first request as for every redirect, and the connection goes to the very address
that was checked: a name that answers differently the second time gains nothing. Neither a log
line nor an error ever holds a URL, because a result's URL grants access, nor its host, which can
say anything.
"""

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Protocol

import httpx

from dropreel.model.errors import ResultRefused, ResultUnavailable
from dropreel.model.provider import Unreachable
from dropreel.providers.deadline import Deadline, DeadlineTransport
from dropreel.runtime.log import logger

MAX_VIDEO_BYTES = 2 * 1024**3
_MAX_TRIES_IN_A_ROW = 5
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
        """Forget what came before: the body starts, or starts again, at its first byte."""

    def write(self, chunk: bytes) -> None: ...

    @property
    def is_whole(self) -> bool:
        """Whether what was written looks complete; asked when the server told no length."""


class Download:
    """Fetches one body at a time into a sink, through cut connections and passing faults.

    A cut connection is resumed where it broke, if the server proves that it is still the same
    file, and begun again otherwise. Any other failure asks for a fresh URL first, since the old
    one may have expired.
    """

    def __init__(
        self,
        *,
        size_at_most_bytes: int = MAX_VIDEO_BYTES,
        deadline: Deadline | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._deadline = deadline or Deadline()
        self._client = httpx.Client(
            transport=transport or GuardedTransport(self._deadline),
            timeout=_TIMEOUT,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"User-Agent": "dropreel", "Accept": "*/*", "Accept-Encoding": "identity"},
        )
        self._size_at_most_bytes = size_at_most_bytes
        self._sleep = sleep

    def __call__(
        self, fresh_url: Callable[[], str], sink: Sink, seconds_left: Callable[[], float]
    ) -> None:
        """Write the whole body into the sink.

        Raises `ResultUnavailable` (tried in vain, or out of time) or `ResultRefused` (must not be
        fetched), and whatever `fresh_url` raises but `Unreachable`, which counts as a failed try.
        """
        body = _Body(sink, seconds_left, self._size_at_most_bytes)
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
            if failures == _MAX_TRIES_IN_A_ROW:
                raise ResultUnavailable(
                    f"The finished video could not be fetched in {failures} tries: {why}."
                )
            wait_seconds = 2.0 ** (failures - 1)
            body.check_time(wait_seconds)
            self._sleep(wait_seconds)

    def _read(self, url: str, body: "_Body") -> None:
        """One request, redirects followed, for what the body still lacks."""
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
                # httpx would follow by itself, but reads each redirect's body whole to do so.
                request = response.next_request
        # httpx decodes an internationalised host name only when it is asked for it.
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
    size_at_most_bytes: int
    received: int = 0
    furthest: int = 0
    total: int | None = None
    etag: str = ""

    def range_headers(self) -> dict[str, str]:
        """Ask for the rest, and for all of it should the file be another one by now."""
        if not self._resumable:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self.etag}

    @property
    def _resumable(self) -> bool:
        return bool(self.received and self.etag)

    def take(self, response: httpx.Response) -> None:
        """Write an answer's bytes into the sink, until the body is complete."""
        status = response.status_code
        if status not in (200, 206) or (status == 206 and not self._continues(response)):
            if status in (206, 416):
                self.etag = ""  # the range was misunderstood: ask for the whole
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
        """Until what came has to be finished or given up."""
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
        """Whether a 206 is the rest of the very body that broke off, from the very next byte."""
        given = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not (self._resumable and given and int(given[1]) == self.received):
            return False
        same_total = given[2] == "*" or self.total in (None, int(given[2]))
        return same_total and response.headers.get("ETag", self.etag) == self.etag

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.size_at_most_bytes:
            raise ResultRefused(
                f"What the provider offers as the video is larger than {self.size_at_most_bytes} "
                f"bytes, which is the most that is copied."
            )

    def _check_end(self) -> None:
        if self.total is not None and self.received != self.total:
            raise _Failed(f"it ended after {self.received} of {self.total} bytes")
        if self.total is None and self.received and not self.sink.is_whole:
            raise _Failed(f"it ended too early, after {self.received} bytes", fresh=True)


def _check_kind(response: httpx.Response) -> None:
    """Refuse what says of itself that it is no video. The bytes are looked at all the same."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    # A header can hold anything, a secret too: neither is repeated.
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
    """Only a strong one proves that it is the same file, byte for byte (RFC 9110, 13.1.5). One
    that cannot be sent back, because it is not ASCII or has no end, proves nothing."""
    etag: str = response.headers.get("ETag", "")
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]{0,256}"', etag) else ""


class GuardedTransport(httpx.BaseTransport):
    """Lets requests out only over https to public addresses.

    It looks the name up itself and connects to the address that it has checked; TLS still
    verifies the name. No connection is kept: the next one is checked anew.
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


def _public_addresses(host: str, port: int) -> Iterator[str]:
    """Where a name leads now. Raises `ResultRefused` if any of it is not public."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise httpx.ConnectError("name not found") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not all(map(is_public, addresses)):
        raise ResultRefused("The video is offered at an address that is not public.")
    yield from addresses[:_MAX_ADDRESSES]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, in whatever form it is written.

    >>> is_public("93.184.215.14"), is_public("169.254.169.254"), is_public("::ffff:10.0.0.1")
    (True, False, False)
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:  # what DNS64 answers in an IPv6-only network
            return is_public(str(ipaddress.IPv4Address(ip.packed[-4:])))
        if ip not in _GLOBAL_IPV6 or ip.sixtofour or ip.teredo:
            return False
    return ip.is_global and not ip.is_multicast
