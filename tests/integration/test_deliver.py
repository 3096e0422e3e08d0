"""The deliver function against S3 (moto) and a real server that breaks off in the middle.

What else a server can do wrong is in `test_faults_of_downloads`.
"""

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dropreel.model.errors import ResultUnavailable
from dropreel.model.events import VideoReady
from dropreel.model.messages import ActiveRender, Progress
from dropreel.model.provider import RenderState, Result
from dropreel.outcome.delivery import Concluded
from dropreel.providers.download import Download
from local.standin_videos import StandInsToo
from tests.support.fault_account import CONTEXT, load_step
from tests.support.render_account import VIDEOS, RenderAccount, render_account
from tests.support.render_fakes import JOB, NOON, PLAN, TICKET
from tests.support.videos import padded, tiny_video

KEY, MANIFEST = "team/Änna +1%.mp4", "team/Änna +1%.json"
# Two parts, so that cuts fall into different ones.
VIDEO = padded(tiny_video("faststart"), 9 * 1024**2)

UNDERWAY = ActiveRender(
    plan=PLAN.model_copy(update={"job": JOB.model_copy(update={"stem": "Änna +1%"})}),
    ticket=TICKET,
    progress=Progress(
        state=RenderState.COMPLETED,
        wait_seconds=0,
        rendering_since=NOON + timedelta(seconds=10),
        completed_at=NOON + timedelta(seconds=70),
    ),
    started_at=NOON,
)

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Gives one answer after the other, and the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.answers: list[Answer] = []
        self.ranges: list[str | None] = []

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """The client hung up: what many of these tests are about."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


def send(
    request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes = b""
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def answer(
    status: int = 200,
    body: bytes = VIDEO,
    *,
    length: int | None = -1,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One answer. A length other than the body's is a lie; None leaves it out."""
    sent = {"Content-Type": "video/mp4", "ETag": '"v1"'} | (headers or {})
    if length is not None:
        sent["Content-Length"] = str(len(body) if length == -1 else length)
    return lambda request: send(request, status, sent, body)


def cut(percent: int) -> Answer:
    return answer(body=VIDEO[: len(VIDEO) * percent // 100], length=len(VIDEO))


def reset(request: BaseHTTPRequestHandler) -> None:
    """The connection breaks before a word of an answer."""
    request.connection.shutdown(socket.SHUT_RDWR)


def rest(request: BaseHTTPRequestHandler) -> None:
    """What a server that knows ranges answers."""
    start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    span = f"bytes {start}-{len(VIDEO) - 1}/{len(VIDEO)}"
    answer(206, VIDEO[start:], headers={"Content-Range": span})(request)


def cut_in_a_chunk(request: BaseHTTPRequestHandler) -> None:
    send(request, 200, {"Content-Type": "video/mp4", "Transfer-Encoding": "chunked"})
    request.wfile.write(b"%x\r\n%b" % (len(VIDEO), VIDEO[:-9]))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    with render_account(monkeypatch) as account:
        yield account


@pytest.fixture
def app(account: RenderAccount, server: Server, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function, with a provider whose video is at the server."""
    server.ranges.clear()
    server.answers = [answer()]
    app: ModuleType = load_step("deliver")
    found = Result(video_url=f"{server.origin}/v.mp4?key=secret", nsfw=False)
    provider = SimpleNamespace(result=lambda ticket: found)
    monkeypatch.setattr(app, "provider_of", lambda name, settings: provider)
    trusting = Download(transport=StandInsToo([server.origin]), sleep=lambda seconds: None)
    monkeypatch.setattr(app, "download", trusting)
    return app


def run(app: ModuleType) -> dict[str, Any]:
    ready: dict[str, Any] = app.handler(UNDERWAY.model_dump(mode="json"), CONTEXT)
    return ready


def keys(account: RenderAccount) -> list[str]:
    """The key of every version in the bucket, delete markers included."""
    listed = account.s3.list_object_versions(Bucket=VIDEOS)
    found = [version["Key"] for version in listed.get("Versions", [])]
    return sorted(found + [marker["Key"] for marker in listed.get("DeleteMarkers", [])])


def read(account: RenderAccount, key: str) -> bytes:
    return account.s3.get_object(Bucket=VIDEOS, Key=key)["Body"].read()


def unfinished_uploads(account: RenderAccount) -> bool:
    return "Uploads" in account.s3.list_multipart_uploads(Bucket=VIDEOS)


def test_video_and_manifest_lie_in_the_bucket_once_and_the_ledger_knows(
    app: ModuleType, server: Server, account: RenderAccount
) -> None:
    ready = run(app)

    assert run(app) == ready  # called again, as after a lost answer
    stored = account.s3.get_object(Bucket=VIDEOS, Key=KEY)
    assert stored["Body"].read() == VIDEO
    assert stored["ContentType"] == "video/mp4"
    assert ready["video"]["version_id"] == stored["VersionId"]
    assert json.loads(read(account, MANIFEST)) == ready
    assert VideoReady.model_validate(ready).render.rendering_seconds == 60
    assert keys(account) == [MANIFEST, KEY]
    assert len(server.ranges) == 1
    [ended] = account.ledger.runs(JOB.id)
    assert ended.outcome == "VideoReady"
    assert ended.ended_at is not None


def test_run_that_was_concluded_meanwhile_brings_no_video(
    app: ModuleType, account: RenderAccount
) -> None:
    account.ledger.close(JOB, NOON + timedelta(seconds=1))

    with pytest.raises(Concluded):
        run(app)

    assert keys(account) == []
    assert not unfinished_uploads(account)


def test_success_hides_the_error_file_of_an_earlier_failure(
    app: ModuleType, account: RenderAccount
) -> None:
    earlier = {"job": {"id": "anna-0", "started_at": "2026-11-20T11:59:59Z"}}
    account.s3.put_object(
        Bucket=VIDEOS, Key="team/Änna +1%.error.json", Body=json.dumps(earlier).encode()
    )

    run(app)

    listed = account.s3.list_objects_v2(Bucket=VIDEOS)["Contents"]
    assert [found["Key"] for found in listed] == [MANIFEST, KEY]


def test_file_in_another_encoding_stops_no_delivery(
    app: ModuleType, account: RenderAccount
) -> None:
    for key in (MANIFEST, "team/Änna +1%.error.json"):
        account.s3.put_object(Bucket=VIDEOS, Key=key, Body=b'{"name": "J\xfcrg"}')

    ready = run(app)

    assert json.loads(read(account, MANIFEST)) == ready


@pytest.mark.parametrize(
    ("answers", "resumed"),
    [
        pytest.param([cut(50), rest], True, id="cut, resumed"),
        pytest.param([cut(99), answer(headers={"ETag": '"v2"'})], True, id="cut, file changed"),
        pytest.param([cut(50), reset, answer(503, b""), rest], True, id="one fault after another"),
        pytest.param([answer(length=None)], False, id="neither length nor chunks"),
        pytest.param([cut_in_a_chunk, answer()], False, id="chunked and cut"),
        pytest.param(
            [answer(body=VIDEO[:-9], length=None), rest], True, id="cut without length, resumed"
        ),
    ],
)
def test_passing_fault_in_a_video_of_two_parts_is_survived(
    answers: list[Answer], resumed: bool, app: ModuleType, server: Server, account: RenderAccount
) -> None:
    server.answers = list(answers)

    ready = run(app)

    assert read(account, KEY) == VIDEO
    assert ready["video"]["sha256"] == hashlib.sha256(VIDEO).hexdigest()
    assert any(server.ranges) == resumed
    assert not unfinished_uploads(account)


def test_lasting_fault_after_a_first_part_leaves_nothing_behind(
    app: ModuleType, server: Server, account: RenderAccount, capfd: pytest.CaptureFixture[str]
) -> None:
    server.answers = [cut(99)]

    with pytest.raises(ResultUnavailable) as caught:
        run(app)

    assert keys(account) == []
    assert not unfinished_uploads(account)
    told = str(caught.value) + "".join(capfd.readouterr())
    assert "secret" not in told
    assert "/v.mp4" not in told
