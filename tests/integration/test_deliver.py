"""The deliver function against S3 (moto) and a real server that misbehaves in every known way."""

import gzip
import hashlib
import importlib.util
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from dropreel.model.errors import ExecutionAborted, FinalAnswer, ResultRefused, ResultUnavailable
from dropreel.model.events import VideoReady
from dropreel.model.ledger import Outcome
from dropreel.model.messages import ActiveRender, NextAttempt, Plan, Progress
from dropreel.model.provider import RenderState, Result, Ticket
from dropreel.providers.download import Download
from dropreel.runtime.settings import DeliverSettings
from local.standin_videos import StandInsToo
from tests.support.final_answers import ends_in
from tests.support.render_account import create_ledger_table
from tests.support.render_fakes import ENVIRONMENT, JOB, NOON, PLAN, RUNCOMFY, TICKET
from tests.support.videos import padded, tiny_video

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

APP = Path(__file__).parents[2] / "functions" / "deliver" / "app.py"
VIDEOS = "videos"
KEY = "team/Änna +1%.mp4"
# Two parts, so that cuts fall into different ones.
VIDEO = padded(tiny_video("faststart"), 9 * 1024**2)
LIMIT_BYTES = 10 * 1024**2

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
        self.requests = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """The client hung up: what many of these tests are about."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
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
    kind: str = "video/mp4",
    length: int | None = -1,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One answer. A length other than the body's is a lie; None leaves it out."""
    sent = {"Content-Type": kind} | (headers or {})
    if length is not None:
        sent["Content-Length"] = str(len(body) if length == -1 else length)
    return lambda request: send(request, status, sent, body)


def cut(percent: int) -> Answer:
    return answer(body=VIDEO[: len(VIDEO) * percent // 100], length=len(VIDEO))


def reset(request: BaseHTTPRequestHandler) -> None:
    """The connection breaks before a word of an answer."""
    request.connection.shutdown(socket.SHUT_RDWR)


def chunked(body: bytes, *, finished: bool) -> Answer:
    def chunks(request: BaseHTTPRequestHandler) -> None:
        send(request, 200, {"Content-Type": "video/mp4", "Transfer-Encoding": "chunked"})
        request.wfile.write(b"%x\r\n%b\r\n" % (len(body), body) if body else b"")
        request.wfile.write(b"0\r\n\r\n" if finished else b"")

    return chunks


def redirect(location: str) -> Answer:
    return answer(302, b"", headers={"Location": location})


def endless(request: BaseHTTPRequestHandler) -> None:
    """A video that grows for ever, without a length."""
    send(request, 200, {"Content-Type": "video/mp4"}, tiny_video())
    request.wfile.write((1 << 31).to_bytes(4, "big") + b"free")
    while True:
        request.wfile.write(bytes(1024**2))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def environment(server: Server) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_DEFAULT_REGION": "us-east-1",
            **ENVIRONMENT,
            "VIDEO_BUCKET": VIDEOS,
        }.items():
            patch.setenv(name, value)
        with mock_aws():
            yield


@pytest.fixture(scope="module")
def function(environment: None) -> ModuleType:
    """The function as Lambda loads it: once for many calls."""
    spec = importlib.util.spec_from_file_location("deliver_app", APP)
    assert spec
    assert spec.loader
    function = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(function)
    return function


@pytest.fixture(scope="module")
def s3_client(environment: None) -> "S3Client":
    return boto3.client("s3")


@pytest.fixture
def s3(s3_client: "S3Client") -> "Iterator[S3Client]":
    create_ledger_table(boto3.client("dynamodb"))
    s3_client.create_bucket(Bucket=VIDEOS)
    s3_client.put_bucket_versioning(Bucket=VIDEOS, VersioningConfiguration={"Status": "Enabled"})
    yield s3_client
    get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].reset()
    get_backend("dynamodb")[DEFAULT_ACCOUNT_ID]["us-east-1"].reset()


@pytest.fixture
def app(
    function: ModuleType, s3: "S3Client", server: Server, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The function with an empty bucket and ledger, and a provider that points at the server."""
    server.requests = 0
    found = Result(video_url=f"{server.origin}/v.mp4?key=secret", nsfw=False)
    provider = SimpleNamespace(result=lambda request_id: found)
    monkeypatch.setattr(function, "provider_of", lambda name, settings: provider)
    trusting = Download(transport=StandInsToo([server.origin]), max_bytes=LIMIT_BYTES)
    monkeypatch.setattr(function, "download", trusting)
    return function


def run(app: ModuleType, render: ActiveRender = UNDERWAY) -> dict[str, Any]:
    context = SimpleNamespace(
        function_name="deliver",
        memory_limit_in_mb=1024,
        invoked_function_arn="arn",
        aws_request_id="call",
        get_remaining_time_in_millis=lambda: 900_000,
    )
    ready = app.handler(render.model_dump(mode="json"), context)
    assert isinstance(ready, dict)
    return ready


def versions(s3: "S3Client") -> list[str]:
    """The key of every version in the bucket, delete markers included."""
    listed = s3.list_object_versions(Bucket=VIDEOS)
    found = [version["Key"] for version in listed.get("Versions", [])]
    return found + [marker["Key"] for marker in listed.get("DeleteMarkers", [])]


def test_the_video_and_its_manifest_come_to_lie_in_the_bucket(
    app: ModuleType, server: Server, s3: "S3Client"
) -> None:
    server.answers = [answer()]

    ready = run(app)

    stored = s3.get_object(Bucket=VIDEOS, Key=KEY)
    assert stored["Body"].read() == VIDEO
    assert stored["ContentType"] == "video/mp4"
    assert ready["video"]["version_id"] == stored["VersionId"]
    assert ready["video"]["sha256"] == hashlib.sha256(VIDEO).hexdigest()
    manifest = s3.get_object(Bucket=VIDEOS, Key="team/Änna +1%.json")["Body"].read()
    assert json.loads(manifest) == ready
    assert VideoReady.model_validate(ready).render.rendering_seconds == 60
    assert sorted(versions(s3)) == ["team/Änna +1%.json", KEY]


def test_the_manifest_lists_the_attempts_of_the_ledger(
    app: ModuleType, server: Server, s3: "S3Client"
) -> None:
    server.answers = [answer()]
    attempt = app.ledger.begin(JOB.id, NextAttempt(), RUNCOMFY, NOON)
    app.ledger.accept(attempt, TICKET.request_id, NOON)
    app.ledger.lose(JOB.id, TICKET, "RenderFailed", "No face.")
    second = TICKET.model_copy(update={"request_id": "req-2", "attempt": 2})

    app.ledger.begin(JOB.id, NextAttempt(attempt=2), RUNCOMFY, NOON, run=2)

    ready = run(app, UNDERWAY.model_copy(update={"ticket": second}))

    attempts = ready["render"]["attempts"]
    listed = [(made["number"], made["run"], made["outcome"]) for made in attempts]
    assert listed == [(1, 1, "RenderFailed"), (2, 2, "VideoReady")]
    assert ready["video"]["nsfw"] is False


def test_a_second_call_makes_no_second_version(
    app: ModuleType, server: Server, s3: "S3Client"
) -> None:
    server.answers = [answer()]

    assert run(app) == run(app)

    assert len(versions(s3)) == 2
    assert server.requests == 1


def test_a_paid_video_is_delivered_also_into_a_bucket_without_versions(
    app: ModuleType, server: Server, s3: "S3Client"
) -> None:
    s3.put_bucket_versioning(Bucket=VIDEOS, VersioningConfiguration={"Status": "Suspended"})
    server.answers = [answer()]

    ready = run(app)

    assert ready["video"]["version_id"] == "null"
    assert s3.get_object(Bucket=VIDEOS, Key=KEY)["Body"].read() == VIDEO
    assert run(app) == ready
    assert server.requests == 1


def test_a_delivered_run_has_its_outcome_in_the_ledger(
    app: ModuleType, server: Server, s3: "S3Client"
) -> None:
    server.answers = [answer()]
    render = UNDERWAY.model_copy(update={"plan": plan_of("anna-00000000000000aa")})

    ready = run(app, render)
    assert run(app, render) == ready

    assert app.ledger.outcome(render.job, NOON) == Outcome(detail=VideoReady.model_validate(ready))


@pytest.mark.parametrize(("setting", "forgotten"), [("false", []), ("true", [TICKET])])
def test_the_operator_decides_whether_the_record_is_deleted(
    app: ModuleType,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    forgotten: list[Ticket],
) -> None:
    server.answers = [answer()]
    monkeypatch.setenv("DELETE_AFTER_DELIVERY", setting)
    monkeypatch.setattr(app, "settings", DeliverSettings.from_environment())
    deleted: list[Ticket] = []
    monkeypatch.setattr(app.provider_of("runcomfy", None), "forget", deleted.append, raising=False)

    run(app)

    assert deleted == forgotten


def test_a_run_that_was_concluded_meanwhile_brings_no_video(
    app: ModuleType, server: Server, s3: "S3Client"
) -> None:
    server.answers = [answer()]
    render = UNDERWAY.model_copy(update={"plan": plan_of("anna-00000000000000bb")})
    app.ledger.close(render.plan.job, NOON + timedelta(seconds=1))

    with ends_in(ExecutionAborted):
        run(app, render)

    assert_nothing_is_left(s3)


def plan_of(job_id: str) -> Plan:
    return PLAN.model_copy(update={"job": JOB.model_copy(update={"id": job_id})})


def test_a_success_hides_the_error_file_of_an_earlier_failure(
    app: ModuleType, server: Server, s3: "S3Client"
) -> None:
    earlier = {"job": {"id": "anna-0", "started_at": "2026-11-20T11:59:59Z"}}
    s3.put_object(Bucket=VIDEOS, Key="team/Änna +1%.error.json", Body=json.dumps(earlier).encode())
    server.answers = [answer()]

    run(app)

    listed = s3.list_objects_v2(Bucket=VIDEOS)["Contents"]
    assert [found["Key"] for found in listed] == ["team/Änna +1%.json", KEY]


def test_what_somebody_else_put_there_stops_no_delivery(
    app: ModuleType, server: Server, s3: "S3Client"
) -> None:
    for ending in (".json", ".error.json"):
        s3.put_object(Bucket=VIDEOS, Key=f"team/Änna +1%{ending}", Body=b'{"name": "J\xfcrg"}')
    server.answers = [answer()]

    ready = run(app)

    manifest = s3.get_object(Bucket=VIDEOS, Key="team/Änna +1%.json")["Body"].read()
    assert json.loads(manifest) == ready


def test_the_older_video_of_two_leaves_the_newer_one_alone(
    app: ModuleType, server: Server, s3: "S3Client"
) -> None:
    server.answers = [answer()]
    job = UNDERWAY.plan.job.model_copy(update={"id": "anna-fedcba9876543210"})
    newer = UNDERWAY.model_copy(
        update={
            "plan": UNDERWAY.plan.model_copy(update={"job": job}),
            "started_at": NOON + timedelta(seconds=1),
        }
    )
    run(app, newer)

    older = run(app)

    assert older["video"]["key"] == f"team/Änna +1%.{JOB.id}.mp4"
    assert older["job"]["started_at"] == "2026-11-20T12:00:00Z"
    assert sorted(versions(s3)) == [
        f"team/Änna +1%.{JOB.id}.json",
        f"team/Änna +1%.{JOB.id}.mp4",
        "team/Änna +1%.json",
        KEY,
    ]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([chunked(VIDEO, finished=True)], id="chunked without length"),
        pytest.param([answer(length=None)], id="neither length nor chunks"),
        pytest.param([redirect("/elsewhere"), answer()], id="redirect"),
        pytest.param([answer(kind="text/plain; charset=utf-8")], id="called text"),
        pytest.param([answer(headers={"Content-Encoding": "gzip"})], id="called packed"),
    ],
)
def test_a_video_is_copied_however_it_is_sent(
    answers: list[Answer], app: ModuleType, server: Server, s3: "S3Client"
) -> None:
    server.answers = list(answers)

    run(app)

    assert s3.get_object(Bucket=VIDEOS, Key=KEY)["Body"].read() == VIDEO


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(answer(403, b"expired"), id="403 expired"),
        pytest.param(answer(503, b""), id="503"),
        pytest.param(reset, id="reset"),
        pytest.param(cut(0), id="cut at 0 %"),
        pytest.param(cut(50), id="cut at 50 %"),
        pytest.param(cut(99), id="cut at 99 %"),
        pytest.param(answer(length=len(VIDEO) + 1), id="length too large"),
        pytest.param(answer(body=VIDEO[:-9], length=None), id="cut without length"),
        pytest.param(chunked(VIDEO[:-9], finished=False), id="chunked and cut"),
        pytest.param(chunked(VIDEO[:-9], finished=True), id="chunked and cut unseen"),
        pytest.param(redirect("/again?key=secret"), id="redirect loop"),
    ],
)
def test_a_fault_of_the_download_leaves_nothing_behind_and_the_next_call_delivers(
    fault: Answer,
    app: ModuleType,
    server: Server,
    s3: "S3Client",
    capfd: pytest.CaptureFixture[str],
) -> None:
    server.answers = [fault]
    with pytest.raises(ResultUnavailable) as caught:
        run(app)
    assert_nothing_is_left(s3)
    assert_no_url_in(str(caught.value) + "".join(capfd.readouterr()))

    server.answers = [answer()]
    ready = run(app)

    assert s3.get_object(Bucket=VIDEOS, Key=KEY)["Body"].read() == VIDEO
    assert ready["video"]["sha256"] == hashlib.sha256(VIDEO).hexdigest()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=VIDEOS)


@pytest.mark.parametrize(
    "never",
    [
        pytest.param(answer(length=len(VIDEO) - 1), id="length too small"),
        pytest.param(answer(kind="text/html", body=b"<html>"), id="HTML page"),
        pytest.param(answer(body=b"<html>Sorry</html>"), id="HTML called video"),
        pytest.param(answer(kind="text/plain", body=b"Sorry, try later"), id="a text"),
        pytest.param(
            answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(VIDEO)), id="packed"
        ),
        pytest.param(chunked(b"", finished=True), id="zero bytes, chunked"),
        pytest.param(answer(length=LIMIT_BYTES + 1), id="over the limit, sized"),
        pytest.param(endless, id="over the limit, endless"),
        pytest.param(redirect("http://127.0.0.1:9/"), id="redirect to loopback"),
        pytest.param(redirect("https://169.254.169.254/"), id="link-local"),
    ],
)
def test_what_must_not_be_copied_is_refused_for_good_and_leaves_nothing_behind(
    never: Answer,
    app: ModuleType,
    server: Server,
    s3: "S3Client",
    capfd: pytest.CaptureFixture[str],
) -> None:
    server.answers = [never]

    with pytest.raises(FinalAnswer) as caught:
        run(app)

    assert type(caught.value.__cause__) is ResultRefused
    assert_nothing_is_left(s3)
    assert_no_url_in(str(caught.value) + "".join(capfd.readouterr()))


def assert_nothing_is_left(s3: "S3Client") -> None:
    assert versions(s3) == []
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=VIDEOS)


def assert_no_url_in(output: str) -> None:
    assert "secret" not in output
    assert "/v.mp4" not in output


def test_a_server_inside_is_refused_unless_it_is_trusted(
    app: ModuleType, server: Server, s3: "S3Client", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "download", Download())
    server.answers = [answer()]

    with ends_in(ResultRefused):
        run(app)

    assert server.requests == 0
    assert versions(s3) == []
