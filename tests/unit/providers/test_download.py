"""One download: what is taken, what may be tried again, and what is refused for good."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import httpx
import pytest

from dropreel.model.errors import ResultRefused, ResultUnavailable
from dropreel.providers.deadline import Deadline
from dropreel.providers.download import Download

URL = "https://cdn.example/video.mp4?signature=secret"
BODY = bytes(range(100))
MP4 = {"Content-Type": "video/mp4"}
LENGTH = {"Content-Length": "100"}

Handler = Callable[[httpx.Request], httpx.Response]


class Pail:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.body = b""

    def write(self, chunk: bytes) -> None:
        self.body += chunk

    @property
    def is_whole(self) -> bool:
        return self.body == BODY


class Script:
    """A server that gives one answer after the other, and the last one for ever."""

    def __init__(self, *answers: Handler) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(request)


def sent(body: bytes, error: Exception | None = None) -> Iterator[bytes]:
    """A body that may break off."""
    yield body
    if error:
        raise error


def whole(headers: dict[str, str] | None = None, body: bytes = BODY) -> Handler:
    sized = MP4 | {"Content-Length": str(len(body))} | (headers or {})
    return lambda request: httpx.Response(200, headers=sized, content=sent(body))


def chunked(body: bytes = BODY) -> Handler:
    return lambda request: httpx.Response(200, headers=MP4, content=sent(body))


def cut(after: int, error: Exception | None = None) -> Handler:
    """A connection that breaks, or that just ends too early."""
    body = BODY[:after]
    return lambda request: httpx.Response(200, headers=MP4 | LENGTH, content=sent(body, error))


def status(code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Handler:
    return lambda request: httpx.Response(code, headers=headers, content=body)


def broken(error: Exception) -> Handler:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


def redirect(location: str) -> Handler:
    return status(302, {"Location": location})


def download(script: Script, pail: Pail) -> None:
    fetch = Download(transport=httpx.MockTransport(script), max_bytes=100)
    fetch(URL, pail, seconds_left=lambda: 900)


@pytest.mark.parametrize(
    "video",
    [
        whole(),
        chunked(),
        whole({"Content-Type": "Video/MP4; codecs=avc1"}),
        whole({"Content-Type": "application/octet-stream"}),
        whole({"Content-Type": "binary/octet-stream"}),
        whole({"Content-Type": ""}),
        whole({"Content-Type": "text/plain"}),
        whole({"Content-Type": "application/x-mp4"}),
        whole({"Content-Type": "image/png"}),
        whole({"Content-Type": "video/mp4, video/mp4"}),
        whole({"Content-Encoding": "identity"}),
        whole({"Content-Encoding": "aws-chunked"}),
        whole({"Content-Encoding": "gzip"}),
        whole({"Content-Encoding": "utf-8"}),
    ],
)
def test_a_video_arrives_whole(video: Handler) -> None:
    pail = Pail()
    script = Script(video)

    download(script, pail)

    assert pail.body == BODY
    assert len(script.requests) == 1
    assert "Range" not in script.requests[0].headers


@pytest.mark.parametrize("redirects", [1, 5])
def test_a_video_arrives_from_where_it_has_moved(redirects: int) -> None:
    pail = Pail()

    download(Script(*[redirect("/elsewhere")] * redirects, whole()), pail)

    assert pail.body == BODY


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        *((status(code), f"answered {code}") for code in (403, 404, 410, 416, 429)),
        *((status(code), f"answered {code}") for code in (500, 502, 503, 504)),
        (status(204), "answered 204"),
        (status(304), "answered 304"),
        (status(302), "answered 302"),  # to nowhere
        (status(206, MP4 | {"Content-Range": "bytes 0-99/100"}, BODY), "answered 206"),
        (broken(httpx.ConnectError(URL)), "connection broke"),
        (broken(httpx.ReadTimeout(URL)), "connection stalled"),
        (cut(0, httpx.RemoteProtocolError(URL)), "connection broke"),
        (cut(99, httpx.ReadError(URL)), "connection broke"),
        (cut(99, httpx.ReadTimeout("")), "connection stalled"),
        (cut(50), "too early, after 50 bytes"),
        (whole({"Content-Length": "99"}), "after 100 bytes"),
        (chunked(BODY[:99]), "too early, after 99 bytes"),
    ],
)
def test_what_another_call_may_do_better_is_tried_once(answer: Handler, why: str) -> None:
    script = Script(answer)

    with pytest.raises(ResultUnavailable, match=why) as caught:
        download(script, Pail())

    assert len(script.requests) == 1
    assert "cdn.example" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_redirects_are_bounded() -> None:
    script = Script(redirect("https://cdn.example/again?key=secret"))

    with pytest.raises(ResultUnavailable, match="redirected more than") as caught:
        download(script, Pail())

    assert len(script.requests) == 6
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (whole({"Content-Type": "text/html; charset=utf-8"}), "something else"),
        (whole({"Content-Type": "application/json"}), "something else"),
        (whole({"Content-Type": "Application/Problem+JSON"}), "something else"),
        (whole({"Content-Type": "application/xhtml+xml"}), "something else"),
        (whole({"Content-Type": "text/xml"}), "something else"),
        (whole(body=b""), "empty"),
        (whole(body=bytes(101)), "larger than 100 bytes"),
        (chunked(bytes(101)), "larger than 100 bytes"),
    ],
)
def test_what_cannot_be_the_video_is_refused_at_once(answer: Handler, why: str) -> None:
    script, pail = Script(answer), Pail()

    with pytest.raises(ResultRefused, match=why):
        download(script, pail)

    assert len(script.requests) == 1
    assert len(pail.body) <= 100


def test_what_a_server_says_of_its_answer_is_not_repeated() -> None:
    with pytest.raises(ResultRefused, match="something else") as refused:
        download(Script(whole({"Content-Type": "text/json-sk-secret-0123"})), Pail())

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("header_seconds", "chunk_seconds", "call_seconds", "ends_after"),
    [
        (59, 7.6, 900, None),  # 59 + 59 + 760 of 885 seconds
        (59, 7.8, 900, 885),
        (59, 0, 132, 117),
        (61, 0, 900, 61),
        (0, 0, 14, 0),
    ],
    ids=["slow", "too slow", "slow redirect, short call", "slow headers", "no time at all"],
)
def test_it_stops_while_there_is_time_to_clean_up(
    header_seconds: float, chunk_seconds: float, call_seconds: float, ends_after: float | None
) -> None:
    now, pail = 0.0, Pail()
    deadline = Deadline(lambda: now)

    def passed(seconds: float) -> None:  # a socket notices the deadline while it waits
        nonlocal now
        now += seconds
        deadline.within(None, httpx.ReadTimeout)

    def slow_body() -> Iterator[bytes]:
        for byte in BODY:
            passed(chunk_seconds)
            yield bytes([byte])

    def slow(request: httpx.Request) -> httpx.Response:
        passed(header_seconds)
        if request.url.path == "/moved":
            return redirect("/video.mp4")(request)
        return httpx.Response(200, headers=MP4 | LENGTH, content=slow_body())

    fetch = Download(transport=httpx.MockTransport(slow), deadline=deadline)
    ends = nullcontext() if ends_after is None else pytest.raises(ResultUnavailable, match="time")
    with ends:
        fetch("https://cdn.example/moved", pail, seconds_left=lambda: call_seconds - now)

    assert pail.is_whole == (ends_after is None)
    if ends_after is not None:
        assert ends_after <= now <= ends_after + max(header_seconds, chunk_seconds)


def test_nothing_that_identifies_us_is_sent_along() -> None:
    cookie = {"Location": "/moved", "Set-Cookie": "session=1"}
    script = Script(status(302, cookie), whole())

    download(script, Pail())

    for request in script.requests:
        assert {"authorization", "cookie", "referer"}.isdisjoint(request.headers)
        assert request.headers["Accept-Encoding"] == "identity"


UNUSABLE = ["https://xn--a/secret", "https://xn--zzzzzzzz99.example/secret"]


@pytest.mark.parametrize("url", UNUSABLE)
def test_a_redirect_to_a_host_without_a_meaning_is_refused(url: str) -> None:
    with pytest.raises(ResultRefused) as caught:
        download(Script(redirect(url)), Pail())

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "video.mp4", "https://", "https://secret:port/", *UNUSABLE])
def test_an_unusable_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ResultRefused) as caught:
        Download()(url, Pail(), seconds_left=lambda: 900)

    assert "secret" not in str(caught.value)
