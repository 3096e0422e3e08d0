import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dropreel.model.errors import ResultRefused
from dropreel.providers import download
from dropreel.providers.download import Download, GuardedTransport, is_public
from local.standin_videos import StandInsToo

PUBLIC, OTHER_PUBLIC, PRIVATE = "93.184.215.14", "2606:2800:21f:cb07::1", "10.0.0.7"


class Names:
    """A name server; a list of lists answers differently every time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[list[str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.real_lookup = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.lookup)

    def lookup(self, host: str, port: int, *others: int, **more: int) -> list[Any]:
        if host[0].isdigit() or ":" in host:  # an address already: a connection is being made to it
            return self.real_lookup(host, port, *others, **more)
        self.asked.append(host)
        answers = self.answers.get(host.partition(".")[0])
        if not answers:
            raise socket.gaierror("unknown name")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(0, 0, 0, "", (address, port)) for address in addresses]


class Network:
    """Where connections would go, instead of going there."""

    def __init__(self, *refusing: str, redirect_to: str = "") -> None:
        self.refusing = refusing
        self.redirect_to = redirect_to
        self.requests: list[httpx.Request] = []

    @property
    def connected(self) -> list[str]:
        return [request.url.host for request in self.requests]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host in self.refusing:
            raise httpx.ConnectError("refused")
        if self.redirect_to and len(self.requests) == 1:
            return httpx.Response(302, headers={"Location": self.redirect_to})
        return httpx.Response(200, content=b"video")


def get(network: Network, url: str, trusted: Sequence[str] = ()) -> httpx.Response:
    inner = httpx.MockTransport(network)
    transport = StandInsToo(trusted, inner=inner) if trusted else GuardedTransport(inner=inner)
    with httpx.Client(transport=transport, follow_redirects=True) as client:
        return client.get(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",  # shared by a carrier's customers
        "169.254.169.254",  # the metadata of an EC2 instance
        "169.254.170.2",  # the credentials of a container
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",  # IPv4-compatible, long out of use
        "::ffff:127.0.0.1",  # IPv4-mapped
        "::ffff:10.0.0.1",
        "::ffff:93.184.215.14",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "2002:a00:1::",
        "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",  # a network's own NAT64
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo of 127.0.0.1
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",  # the metadata of an EC2 instance
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_an_address_that_is_not_public_is_never_connected_to(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, cdn=[[address]])
    network = Network()

    with pytest.raises(ResultRefused, match="not public"):
        get(network, "https://cdn.example/video?signature=secret")

    assert not network.requests
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, OTHER_PUBLIC, "1.1.1.1", "2a00:1450:4001::1", "64:ff9b::5db8:d70e"]
)
def test_a_public_address_is_connected_to_as_it_was_checked(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, cdn=[[address]])
    network = Network()

    assert get(network, "https://cdn.example:8443/video").content == b"video"

    (request,) = network.requests
    assert (request.url.host, request.url.port) == (address, 8443)
    assert request.headers["Host"] == "cdn.example:8443"
    assert request.extensions["sni_hostname"] == "cdn.example"
    assert names.asked == ["cdn.example"]


def test_one_private_address_among_public_ones_is_enough_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Names(monkeypatch, cdn=[[PUBLIC, PRIVATE]])

    with pytest.raises(ResultRefused):
        get(Network(), "https://cdn.example/video")


def test_a_name_that_turns_private_after_the_check_gains_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(monkeypatch, cdn=[[PUBLIC], [PRIVATE]])
    network = Network()

    get(network, "https://cdn.example/video")
    with pytest.raises(ResultRefused):
        get(network, "https://cdn.example/video")

    assert network.connected == [PUBLIC]
    assert len(names.asked) == 2


def test_a_server_that_does_not_answer_is_tried_at_its_next_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Names(monkeypatch, cdn=[[OTHER_PUBLIC, PUBLIC]])
    network = Network(OTHER_PUBLIC)

    assert get(network, "https://cdn.example/video").is_success
    assert network.connected == [OTHER_PUBLIC, PUBLIC]


def test_a_name_with_hundreds_of_addresses_does_not_hold_us_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = [f"93.184.215.{number}" for number in range(200)]
    Names(monkeypatch, cdn=[addresses])
    network = Network(*addresses)

    with pytest.raises(httpx.ConnectError):
        get(network, "https://cdn.example/video")

    assert len(network.requests) == 4


def test_an_unknown_name_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch)

    with pytest.raises(httpx.ConnectError):
        get(Network(), "https://cdn.example/video")


def test_a_redirect_to_another_public_host_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, cdn=[[PUBLIC]], edge=[[OTHER_PUBLIC]])
    network = Network(redirect_to="https://edge.example/video")

    assert get(network, "https://cdn.example/video").content == b"video"
    assert network.connected == [PUBLIC, OTHER_PUBLIC]


@pytest.mark.parametrize(
    "location",
    [
        "https://inside.example/",
        "https://127.0.0.1/",
        "https://169.254.169.254/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[2002:a00:1::]/",
        "https://[64:ff9b::a00:1]/",
        "http://cdn.example/video",
        "http://127.0.0.1/",
        "file:///etc/passwd",
        "ftp://cdn.example/video",
        "gopher://cdn.example/",
    ],
)
def test_a_redirect_inside_or_away_from_https_is_refused(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, cdn=[[PUBLIC]], inside=[[PRIVATE]])
    network, sink = Network(redirect_to=location), Mock()
    fetch = Download(transport=GuardedTransport(inner=httpx.MockTransport(network)))

    with pytest.raises(ResultRefused) as caught:
        fetch("https://cdn.example/video", sink, seconds_left=lambda: 900)

    assert network.connected == [PUBLIC]
    sink.write.assert_not_called()
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f.0.0.1/",
        "https://2130706433/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[2002:7f00:1::]/",
        "https://localhost/",
    ],
)
def test_loopback_is_refused_however_it_is_spelled(url: str) -> None:
    network = Network()

    with pytest.raises(ResultRefused):
        get(network, url)

    assert not network.requests


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:8123/video", True),
        ("http://localhost:9000/video", True),
        ("https://127.0.0.1:8123/video", False),
        ("http://127.0.0.1:8124/video", False),
        ("http://127.0.0.1/video", False),
        ("http://127.0.0.2:8123/video", False),
        ("http://127.0.0.1:8123@localhost/video", False),
    ],
)
def test_only_the_very_origin_that_is_trusted_may_be_inside(url: str, allowed: bool) -> None:
    network = Network()
    trusted = ("http://127.0.0.1:8123", "http://localhost:9000/")

    if allowed:
        assert get(network, url, trusted).is_success
    else:
        with pytest.raises(ResultRefused):
            get(network, url, trusted)
    assert bool(network.requests) == allowed


@pytest.mark.parametrize(("name", "is_ours"), [("cdn.example", True), ("other.example", False)])
def test_tls_verifies_the_name_and_not_the_address(
    name: str, is_ours: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tls_server("cdn.example", tmp_path) as (port, trust):
        Names(monkeypatch, cdn=[["127.0.0.1"]], other=[["127.0.0.1"]])
        monkeypatch.setattr(download, "is_public", lambda address: True)
        with httpx.Client(transport=GuardedTransport(tls=trust)) as client:
            if is_ours:
                assert client.get(f"https://{name}:{port}/").text == "hello"
            else:
                with pytest.raises(httpx.ConnectError, match="Hostname mismatch"):
                    client.get(f"https://{name}:{port}/")


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    fetch = Download()

    assert not [mount for mount in fetch._client._mounts.values() if mount]


@contextmanager
def tls_server(name: str, folder: Path) -> Iterator[tuple[int, ssl.SSLContext]]:
    """A server that says hello to one caller, and what a client needs to trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = folder / "server.pem"
    pem.write_bytes(certificate + secret)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pem)
    client_side = ssl.create_default_context(cadata=certificate.decode())

    def answer(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        with plain:
            try:
                with server_side.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            except OSError:  # the client hung up, as it should on the wrong name
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        thread = threading.Thread(target=answer, args=[listener])
        thread.start()
        yield listener.getsockname()[1], client_side
        thread.join()
