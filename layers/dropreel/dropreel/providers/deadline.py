"""HTTP calls that end in time, whatever the server does. An adapter for httpx.

A timeout of httpx is for one read, so a server that sends a header line each second, or `100
Continue` for ever, never ends a call. httpcore, below httpx, accepts other sockets: ours give each
operation only the time that is left. httpx's own transport does not accept them, hence this one.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx


class Deadline:
    """When the current call must have ended. One call at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = float("inf")

    def begin(self, seconds: float) -> None:
        self._until = self._clock() + seconds

    def within(self, timeout: float | None, too_late: type[Exception]) -> float | None:
        """The timeout, or the time left if that is less. Raises `too_late` at the deadline."""
        left_seconds = self._until - self._clock()
        if left_seconds <= 0:
            raise too_late("the deadline is over")
        if left_seconds == float("inf"):
            return timeout
        return left_seconds if timeout is None else min(timeout, left_seconds)


class DeadlineTransport(httpx.BaseTransport):
    """Opens a connection for each request, and ends what it does at the deadline.

    `ConnectTimeout` means that the deadline came before connection and TLS were ready: nothing
    was sent. Later it is `WriteTimeout` or `ReadTimeout`.
    """

    def __init__(self, deadline: Deadline, tls: ssl.SSLContext | None = None) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls or httpx.create_ssl_context(trust_env=False),
            # Lambda freezes environments, and a connection that died meanwhile looks alive: a
            # submission on it would be unclear. So each call opens a new one.
            max_keepalive_connections=0,
            network_backend=_Sockets(deadline),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        with _errors_of_httpx():
            response = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=url.raw_scheme,
                        host=url.raw_host,
                        port=url.port,
                        target=url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            status_code=response.status, headers=response.headers, stream=_Body(response)
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _errors_of_httpx():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """httpx's exceptions have the names of httpcore's."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
    ) as error:
        ours: type[httpx.TransportError] = getattr(
            httpx, type(error).__name__, httpx.TransportError
        )
        raise ours(str(error)) from None


class _Sockets(httpcore.NetworkBackend):
    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        # httpcore would give each address the whole time.
        failed: Exception = httpcore.ConnectError("name not found")
        for address in addresses_of(host, port):
            left_seconds = self._deadline.within(timeout, httpcore.ConnectTimeout)
            try:
                stream = self._sockets.connect_tcp(
                    address, port, left_seconds, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
                continue
            return _Socket(stream, self._deadline)
        raise failed


def addresses_of(host: str, port: int) -> list[str]:
    """The IP addresses of a name; empty when it is not found."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Socket(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.within(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.within(timeout, httpcore.WriteTimeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        timeout = self._deadline.within(timeout, httpcore.ConnectTimeout)
        return _Socket(
            self._stream.start_tls(ssl_context, server_hostname, timeout), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as httpcore has it
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()
