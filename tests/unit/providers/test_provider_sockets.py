"""What only real sockets show: connections that break, stall, drip or never stop."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from dropreel.model.errors import ResultUnavailable
from dropreel.model.provider import Provider, Refusal, RenderState, Unclear, Unreachable
from dropreel.providers import http as provider_http
from local.standin_videos import download_from
from tests.support.provider_dialects import TICKET, Dialect, each_dialect

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
MEGABYTE = 1_000_000


@dataclass
class Server:
    """A server on a socket, in a thread: `behave` has each connection to itself."""

    behave: Callable[["Server", socket.socket], None]
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    connections: int = 0
    sent_bytes: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                if self.done.is_set():
                    return
                self.connections += 1
                connection.settimeout(5)
                with suppress(OSError):
                    self.behave(self, connection)


Behaviour = Callable[[Server, socket.socket], None]


@contextmanager
def serving(behave: Behaviour) -> Iterator[Server]:
    server = Server(behave)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.done.set()
        socket.create_connection(server.listener.getsockname()).close()
        thread.join()
        server.listener.close()


@pytest.fixture(autouse=True)
def _short_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_http, "CONNECT_SECONDS", 0.2)


def client(
    dialect: Dialect, server: Server, scheme: str = "http", timeout_seconds: float = 5
) -> Provider:
    return dialect.make(
        f"{scheme}://{server.address}",
        lambda *, fresh=False: "t",
        timeout_seconds=timeout_seconds,
        submit_timeout_seconds=timeout_seconds,
    )


def read_request(connection: socket.socket) -> None:
    request = b""
    while not request.endswith(b"}") and b"GET" not in request:
        received = connection.recv(65_536)
        if not received:
            raise ConnectionError
        request += received


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def reset_before_the_request_is_read(_: Server, connection: socket.socket) -> None:
    connection.recv(1, socket.MSG_PEEK)
    reset(connection)


def reset_after_the_request(_: Server, connection: socket.socket) -> None:
    read_request(connection)
    reset(connection)


def sends(words: bytes) -> Behaviour:
    """And closes the connection."""

    def behave(_: Server, connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(words)

    return behave


def stalls_after(words: bytes) -> Behaviour:
    def behave(server: Server, connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(words)
        server.done.wait(5)

    return behave


def drips(head: bytes, drop: bytes) -> Behaviour:
    """Sends a drop now and then, for ever."""

    def behave(server: Server, connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(head)
        while not server.done.wait(0.02):
            connection.sendall(drop)

    return behave


def send_50_megabytes(server: Server, connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(OK + b"Content-Length: 50000000\r\n\r\n")
    for _ in range(50):
        connection.sendall(b" " * MEGABYTE)
        server.sent_bytes += MEGABYTE


A_KILOBYTE = OK + b"Content-Length: 1000\r\n\r\n"
ENDLESS: dict[str, Behaviour] = {
    "stall": stalls_after(b""),
    "drip": drips(A_KILOBYTE, b" "),
    "drip headers": drips(b"HTTP/1.1 200 OK\r\n", b"X-Wait: a little\r\n"),
    "continue for ever": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
BROKEN: dict[str, Behaviour] = {
    "reset before the request is read": reset_before_the_request_is_read,
    "reset after the request": reset_after_the_request,
    "close after the request": sends(b""),
    "stall in the body": stalls_after(A_KILOBYTE + b'{"request_id"'),
    "cut off the body": sends(A_KILOBYTE + b'{"request_id": "r1", "data": {"id": "r1"}}'),
    "50 megabytes": send_50_megabytes,
    "no HTTP": sends(b"220 smtp.example ESMTP\r\n"),
    **ENDLESS,
}


@each_dialect
@pytest.mark.parametrize("behave", BROKEN.values(), ids=BROKEN)
def test_broken_answer_is_no_answer_and_a_submission_is_sent_once(
    dialect: Dialect, behave: Behaviour
) -> None:
    with serving(behave) as server:
        provider = client(dialect, server, timeout_seconds=0.3)
        with pytest.raises(Unclear):
            provider.submit("a/model", {"image_url": "x"})
        assert server.connections == 1
        with pytest.raises(Unreachable):
            provider.ask(TICKET)


@each_dialect
def test_body_of_50_megabytes_is_not_read_whole(dialect: Dialect) -> None:
    with serving(send_50_megabytes) as server, pytest.raises(Unreachable):
        client(dialect, server).ask(TICKET)
    assert server.sent_bytes < 15 * MEGABYTE


@each_dialect
def test_definite_refusal_stands_without_a_readable_body(dialect: Dialect) -> None:
    refuse = sends(b"HTTP/1.1 402 Payment Required\r\nContent-Length: 1000\r\n\r\n{")

    with serving(refuse) as server, pytest.raises(Refusal) as raised:
        client(dialect, server).submit("a/model", {})
    assert raised.value.code == "NoCredit"


@each_dialect
def test_connection_that_is_refused_is_a_definite_refusal(dialect: Dialect) -> None:
    with serving(sends(b"")) as server:
        provider = client(dialect, server)
    with pytest.raises(Refusal) as raised:
        provider.submit("a/model", {})
    assert (raised.value.code, raised.value.again) == ("ProviderUnavailable", True)
    with pytest.raises(Unreachable):
        provider.ask(TICKET)


@each_dialect
def test_tls_failure_is_a_definite_refusal(dialect: Dialect) -> None:
    def plain(_: Server, connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with serving(plain) as server, pytest.raises(Refusal) as raised:
        client(dialect, server, "https").submit("a/model", {})
    assert (raised.value.code, raised.value.again) == ("ProviderUnavailable", True)


class Bin:
    """A sink for what does not matter."""

    is_whole = False

    def write(self, chunk: bytes) -> None: ...


@pytest.mark.parametrize("behave", ENDLESS.values(), ids=ENDLESS)
def test_download_that_only_drips_ends_in_time(behave: Behaviour) -> None:
    begun = time.monotonic()
    with serving(behave) as server, pytest.raises(ResultUnavailable):
        download_from(f"http://{server.address}")(
            f"http://{server.address}/video.mp4",
            Bin(),
            seconds_left=lambda: 15.5 + begun - time.monotonic(),  # 15 s are to be spared
        )
    assert time.monotonic() - begun < 3


def slow_tls(server: Server, connection: socket.socket) -> None:
    connection.recv(65_536)
    # The head of a TLS record of 16 kB, and then a byte now and then.
    connection.sendall(b"\x16\x03\x03\x40\x00")
    while not server.done.wait(0.02):
        connection.sendall(b"\x02")


@each_dialect
def test_tls_that_takes_too_long_is_a_connection_that_was_never_made(dialect: Dialect) -> None:
    with serving(slow_tls) as server:
        provider = client(dialect, server, "https", timeout_seconds=0.3)
        begun = time.monotonic()
        with pytest.raises(Refusal) as raised:
            provider.submit("a/model", {})
        assert (raised.value.code, raised.value.again) == ("ProviderUnavailable", True)
        assert time.monotonic() - begun < 4


@each_dialect
def test_submission_is_waited_for_longer_than_a_question(dialect: Dialect) -> None:
    def late(_: Server, connection: socket.socket) -> None:
        read_request(connection)
        time.sleep(0.5)
        body = b'{"request_id": "r1", "code": 200, "data": {"id": "r1"}}'
        connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with serving(late) as server:
        provider = dialect.make(
            f"http://{server.address}",
            lambda *, fresh=False: "t",
            timeout_seconds=0.2,
            submit_timeout_seconds=3,
        )
        assert provider.submit("a/model", {}) == "r1"
        with pytest.raises(Unreachable):
            provider.ask(TICKET)


@each_dialect
def test_each_call_has_a_connection_of_its_own(dialect: Dialect) -> None:
    def answer(_: Server, connection: socket.socket) -> None:
        while True:  # a server that would keep the connection
            read_request(connection)
            connection.sendall(OK + b'Content-Length: 20\r\n\r\n{"status": "queued"}')

    with serving(answer) as server:
        provider = client(dialect, server)
        assert [provider.ask(TICKET).state for _ in range(2)] == [RenderState.QUEUED] * 2
        assert server.connections == 2
