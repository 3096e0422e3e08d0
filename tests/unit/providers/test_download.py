from collections.abc import Callable, Iterator
from unittest.mock import Mock

import httpx
import pytest

from dropreel.model.errors import ResultMissing, ResultRefused, ResultUnavailable
from dropreel.model.provider import Unreachable
from dropreel.providers.download import Download

URL = "https://cdn.example/video.mp4?signature=secret"
BODY = bytes(range(100))
MP4 = {"Content-Type": "video/mp4"}
ETAG = {"ETag": '"v1"'}
LENGTH = {"Content-Length": "100"}

Handler = Callable[[httpx.Request], httpx.Response]


class Pail:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.body = b""
        self.begun = 0

    def begin(self) -> None:
        self.body = b""
        self.begun += 1

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


class Cut(httpx.SyncByteStream):
    """A body that breaks off, or just ends, after some bytes."""

    def __init__(self, body: bytes, error: Exception | None) -> None:
        self.body, self.error = body, error

    def __iter__(self) -> Iterator[bytes]:
        if self.body:
            yield self.body
        if self.error:
            raise self.error


def whole(headers: dict[str, str] | None = None, body: bytes = BODY) -> Handler:
    length = {"Content-Length": str(len(body))}
    return lambda request: httpx.Response(
        200, headers=MP4 | length | (headers or {}), stream=Cut(body, None)
    )


def chunked(body: bytes = BODY) -> Handler:
    return lambda request: httpx.Response(
        200, headers=MP4 | {"Transfer-Encoding": "chunked"}, stream=Cut(body, None)
    )


def cut(after: int, headers: dict[str, str], error: Exception | None = None) -> Handler:
    broken = error or httpx.RemoteProtocolError("cut")
    return lambda request: httpx.Response(
        200, headers=MP4 | headers, stream=Cut(BODY[:after], broken)
    )


def rest(
    start: int,
    *,
    total: str = "100",
    headers: dict[str, str] | None = None,
    cut_at: int | None = None,
) -> Handler:
    error = httpx.ReadError("cut") if cut_at else None
    return lambda request: httpx.Response(
        206,
        headers=MP4 | {"Content-Range": f"bytes {start}-99/{total}"} | (headers or {}),
        stream=Cut(BODY[start:cut_at], error),
    )


def status(code: int, headers: dict[str, str] | None = None) -> Handler:
    return lambda request: httpx.Response(code, headers=headers)


def broken(error: Exception) -> Handler:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


def download(
    script: Script,
    pail: Pail,
    *,
    fresh_url: Callable[[], str] = lambda: URL,
    seconds_left: float = 900,
    waits: list[float] | None = None,
) -> None:
    waits = [] if waits is None else waits
    fetch = Download(transport=httpx.MockTransport(script), max_bytes=100, sleep=waits.append)
    fetch(fresh_url, pail, seconds_left=lambda: seconds_left - sum(waits))


@pytest.mark.parametrize(
    "video",
    [
        chunked(),
        whole({"Content-Type": "Video/MP4; codecs=avc1"}),
        whole({"Content-Type": "application/octet-stream"}),
        whole({"Content-Type": "binary/octet-stream"}),
        whole({"Content-Type": ""}),
        whole({"Content-Encoding": "identity"}),
    ],
)
def test_a_video_arrives_whole(video: Handler) -> None:
    pail = Pail()
    script = Script(video)

    download(script, pail)

    assert (pail.body, pail.begun) == (BODY, 1)
    assert len(script.requests) == 1


@pytest.mark.parametrize("after", [0, 50, 99])
def test_a_cut_connection_is_resumed_where_it_broke(after: int) -> None:
    pail = Pail()
    script = Script(cut(after, LENGTH | ETAG), rest(after) if after else whole())

    download(script, pail)

    assert pail.body == BODY
    asked = script.requests[1].headers
    assert (asked.get("Range"), asked.get("If-Range")) == (
        (f"bytes={after}-", '"v1"') if after else (None, None)
    )
    assert pail.begun == (1 if after else 2)


def test_a_resumed_body_may_be_cut_again() -> None:
    pail = Pail()
    url = iter([URL])  # the same all the time

    download(
        Script(cut(50, LENGTH | ETAG), rest(50, cut_at=80), rest(80)),
        pail,
        fresh_url=lambda: next(url),
    )

    assert (pail.body, pail.begun) == (BODY, 1)


@pytest.mark.parametrize(
    ("headers", "second"),
    [
        (LENGTH, whole()),  # no ETag: nothing proves that it would be the same file
        (LENGTH | {"ETag": 'W/"v1"'}, whole()),  # a weak one proves it no better
        (LENGTH | ETAG, whole(ETAG)),  # the server knows no ranges, or has another file now
    ],
)
def test_a_cut_body_that_cannot_be_resumed_begins_again(
    headers: dict[str, str], second: Handler
) -> None:
    pail = Pail()

    download(Script(cut(50, headers), second), pail)

    assert (pail.body, pail.begun) == (BODY, 2)


@pytest.mark.parametrize(
    "misfit",
    [
        rest(49),
        rest(51),
        rest(50, total="101"),
        rest(50, headers={"ETag": '"v2"'}),
        rest(50, headers={"Content-Range": "bytes 50-99"}),
        rest(50, headers={"Content-Range": "pages 50-99/100"}),
        status(416),
    ],
)
def test_a_rest_that_does_not_fit_is_never_glued_on(misfit: Handler) -> None:
    pail = Pail()
    script = Script(cut(50, LENGTH | ETAG), misfit, whole())

    download(script, pail)

    assert (pail.body, pail.begun) == (BODY, 2)
    assert "Range" not in script.requests[2].headers


def test_a_rest_that_nobody_asked_for_is_not_taken() -> None:
    with pytest.raises(ResultUnavailable, match="206"):
        download(Script(rest(0)), Pail())


def test_a_passing_fault_does_not_lose_what_has_arrived() -> None:
    pail = Pail()

    download(Script(cut(50, LENGTH | ETAG), status(503), rest(50)), pail)

    assert (pail.body, pail.begun) == (BODY, 1)


@pytest.mark.parametrize("code", [403, 404, 410, 429, 500, 502, 503, 504])
def test_an_error_answer_is_tried_again_with_a_fresh_url(code: int) -> None:
    pail = Pail()
    urls = iter(["https://cdn.example/old", "https://cdn.example/new"])
    script = Script(status(code), whole())

    download(script, pail, fresh_url=lambda: next(urls))

    assert pail.body == BODY
    assert [request.url.path for request in script.requests] == ["/old", "/new"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (status(403), "answered 403"),
        (status(500), "answered 500"),
        (status(204), "answered 204"),
        (status(304), "answered 304"),
        (broken(httpx.ConnectError(URL)), "broke after 0 bytes"),
        (broken(httpx.ReadTimeout(URL)), "stalled after 0 bytes"),
        (cut(0, LENGTH | ETAG), "broke after 0 bytes"),
        (cut(99, LENGTH), "broke after 99 bytes"),
        (cut(99, LENGTH, httpx.ReadTimeout("")), "stalled after 99 bytes"),
        (chunked(BODY[:99]), "too early, after 99 bytes"),
        (status(302, {"Location": "https://cdn.example/again"}), "redirected more than"),
    ],
)
def test_tries_without_progress_are_bounded_and_wait_ever_longer(answer: Handler, why: str) -> None:
    waits: list[float] = []

    with pytest.raises(ResultUnavailable, match=why) as caught:
        download(Script(answer), Pail(), waits=waits)

    assert waits in ([1, 2, 4, 8], [1, 1, 2, 4, 8])  # one more when the first try got further
    assert "cdn.example" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_progress_starts_the_count_of_tries_anew() -> None:
    pail = Pail()
    one_byte_each = [rest(start, cut_at=start + 1) for start in range(50, 70)]

    download(Script(cut(50, LENGTH | ETAG), *one_byte_each, rest(70)), pail)

    assert (pail.body, pail.begun) == (BODY, 1)


def test_a_silent_provider_is_a_failed_try_and_not_the_end() -> None:
    pail = Pail()
    fresh_url = Mock(side_effect=[Unreachable("busy"), URL])

    download(Script(whole()), pail, fresh_url=fresh_url)

    assert pail.body == BODY


def test_a_render_without_a_video_is_the_end() -> None:
    with pytest.raises(ResultMissing):
        download(Script(whole()), Pail(), fresh_url=Mock(side_effect=ResultMissing("none")))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (whole({"Content-Type": "text/html; charset=utf-8"}), "something else"),
        (whole({"Content-Type": "application/json"}), "something else"),
        (whole({"Content-Type": "image/png"}), "something else"),
        (whole({"Content-Encoding": "gzip"}), "is packed"),
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


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/sk-secret-0123"},
        {"Content-Type": "https://cdn.example/sk-secret-0123"},
        {"Content-Encoding": "sk-secret-0123"},
        {"Content-Encoding": "gzip, sk-secret-0123"},
    ],
)
def test_what_a_server_says_of_its_answer_is_not_repeated(headers: dict[str, str]) -> None:
    with pytest.raises(ResultRefused, match=r"something else|is packed") as refused:
        download(Script(whole(headers)), Pail())

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("etag", [b'"\xc3\xa4"', b'"' + b"x" * 5000 + b'"', b'"a\x7f"', b'"a b"'])
def test_a_cut_body_whose_etag_cannot_be_sent_back_begins_again(etag: bytes) -> None:
    def broken_off(request: httpx.Request) -> httpx.Response:
        headers = [(b"ETag", etag), (b"Content-Length", b"100"), (b"Content-Type", b"video/mp4")]
        body = Cut(BODY[:50], httpx.ReadError("cut"))
        return httpx.Response(200, headers=headers, stream=body)

    pail, script = Pail(), Script(broken_off, whole(LENGTH))

    download(script, pail)

    assert pail.body == BODY
    assert "Range" not in script.requests[1].headers


def test_a_rest_that_is_packed_is_refused() -> None:
    packed = rest(50, headers={"Content-Encoding": "gzip"})

    with pytest.raises(ResultRefused, match="is packed"):
        download(Script(cut(50, LENGTH | ETAG), packed), Pail())


def test_it_stops_while_there_is_time_to_clean_up() -> None:
    with pytest.raises(ResultUnavailable, match="in the time there is"):
        download(Script(whole()), Pail(), seconds_left=14)


def test_it_does_not_wait_longer_than_there_is_time() -> None:
    waits: list[float] = []

    with pytest.raises(ResultUnavailable, match="in the time there is"):
        download(Script(status(503)), Pail(), seconds_left=20, waits=waits)

    assert waits == [1, 2]


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
        download(Script(status(302, {"Location": url})), Pail())

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "video.mp4", "https://", "https://secret:port/", *UNUSABLE])
def test_an_unusable_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ResultRefused) as caught:
        Download()(lambda: url, Pail(), seconds_left=lambda: 900)

    assert "secret" not in str(caught.value)
