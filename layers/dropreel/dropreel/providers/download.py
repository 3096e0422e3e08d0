"""Safe download: only over https, only from public addresses, only so many bytes. An adapter.

A URL from outside can point inside. So each connection, also after a redirect, goes to the very
address that was checked: a second DNS answer changes nothing. No log line or error holds a URL,
because it grants access, or its host, which can be any text.
"""

import ipaddress
import re
import ssl
from collections.abc import Callable
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Protocol

import httpx

from dropreel.model.errors import ResultRefused, ResultUnavailable
from dropreel.providers.deadline import Deadline, DeadlineTransport, addresses_of

MAX_VIDEO_BYTES = 2 * 1024**3
_MAX_REDIRECTS = 5
_MAX_ADDRESSES = 4
_TIMEOUT = httpx.Timeout(30, connect=10)
_HEADERS_SECONDS = 60  # from the connection to the last header, however they come
# What finishing or aborting the upload takes once the download has to stop.
_SPARE_SECONDS = 15

_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Sink(Protocol):
    """Where the bytes go."""

    def write(self, chunk: bytes) -> None: ...

    @property
    def is_whole(self) -> bool:
        """Whether what was written looks complete; for servers that send no length."""


class Download:
    """Fetches one body at a time into a sink, by one request and its redirects.

    Nothing is tried twice here: the state machine calls again, with a fresh URL and a new sink.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_VIDEO_BYTES,
        deadline: Deadline | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._deadline = deadline or Deadline()
        self._transport = transport
        self._max_bytes = max_bytes

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

    def __call__(self, url: str, sink: Sink, seconds_left: Callable[[], float]) -> None:
        """Write the whole body into the sink.

        Raises `ResultUnavailable` (another call may do better) or `ResultRefused` (must not be
        fetched); the sink may then hold a part of the body.
        """
        try:
            request = self._client.build_request("GET", url)
            for _ in range(_MAX_REDIRECTS + 1):
                self._deadline.begin(min(_HEADERS_SECONDS, seconds_left() - _SPARE_SECONDS))
                response = self._client.send(request, stream=True)
                self._deadline.begin(seconds_left() - _SPARE_SECONDS)
                try:
                    if response.next_request is None:
                        return self._take(response, sink)
                finally:
                    response.close()
                # httpx itself would read each redirect's body whole.
                request = response.next_request
        # ValueError: httpx decodes an internationalised host name late.
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
            raise ResultRefused("The provider offers the video at an unusable address.") from None
        except httpx.TimeoutException:
            raise _unavailable("the connection stalled, or the time was over") from None
        except httpx.TransportError:
            raise _unavailable("the connection broke") from None
        raise _unavailable(f"it was redirected more than {_MAX_REDIRECTS} times")

    def _take(self, response: httpx.Response, sink: Sink) -> None:
        """Write an answer's bytes into the sink."""
        if response.status_code != 200:
            raise _unavailable(f"the server answered {response.status_code}")
        _check_label(response)
        declared_bytes, received_bytes = _declared_bytes(response), 0
        self._check_size(declared_bytes or 0)
        if declared_bytes == 0:
            raise ResultRefused("What the provider offers as the video is empty.")
        for chunk in response.iter_raw():
            received_bytes += len(chunk)
            self._check_size(received_bytes)
            sink.write(chunk)
        if declared_bytes is None:
            is_cut = bool(received_bytes) and not sink.is_whole
        else:
            is_cut = received_bytes != declared_bytes
        if is_cut:
            raise _unavailable(f"it ended too early, after {received_bytes} bytes")

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise ResultRefused(
                f"What the provider offers as the video is larger than {self._max_bytes} "
                f"bytes, which is the most that is copied."
            )


def _unavailable(why: str) -> ResultUnavailable:
    return ResultUnavailable(f"The finished video could not be fetched: {why}.")


def _check_label(response: httpx.Response) -> None:
    """Refuse a page or a document. Labels of good videos can be wrong in any other way, also the
    `Content-Encoding`: the sink checks the bytes as they come."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].lower()
    if any(label in kind for label in ("html", "json", "xml")):
        # A header can hold a secret: it is not repeated.
        raise ResultRefused("What the provider offers as the video says it is something else.")


def _declared_bytes(response: httpx.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    if "Transfer-Encoding" in response.headers or not re.fullmatch("[0-9]{1,19}", length):
        return None
    return int(length)


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
