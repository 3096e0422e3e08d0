"""An account whose real functions meet the stand-ins over HTTP, and what can go wrong between them.

Only the way there is changed: presigned URLs lead to a window on moto's buckets, because the
stand-ins cannot reach those, and nobody really sleeps. Whatever a function returns, raises or logs
is kept, and searched for secrets at the end of each test.
"""

import importlib.util
import json
import logging
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from itertools import count
from tempfile import NamedTemporaryFile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from httpx._transports import default
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dropreel.aws.closures import DynamoDBClosures
from dropreel.aws.s3 import S3Storage
from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.closure import AskedProvider
from dropreel.model.job import Input, Role
from dropreel.model.ledger import Attempt
from dropreel.model.messages import (
    ActiveRender,
    NextAttempt,
    Plan,
    Progress,
    Submission,
    SubmitRequest,
)
from dropreel.model.provider import RenderState
from local.standin import runcomfy, wavespeed
from local.standin.server import Dialect, Settings, Standin, running
from tests.support import render_account, render_fakes
from tests.support.admission_fakes import job_named
from tests.support.environment import forget_clients
from tests.support.render_account import ROOT, UPLOADS, WORK, RenderAccount
from tests.support.standin_files import FILES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RUNCOMFY, WAVESPEED = "runcomfy", "wavespeed"
OFFERS: Final = {RUNCOMFY: render_fakes.RUNCOMFY, WAVESPEED: render_fakes.WAVESPEED}
TOKENS: Final = {RUNCOMFY: "rc-5ec7e7-of-runcomfy", WAVESPEED: "ws-5ec7e7-of-wavespeed"}
KEY = "key=5ec7e7"  # in the URLs that a provider is made to tell
SECRETS = (*TOKENS.values(), "5ec7e7", "X-Amz-", "/videos/")
LONG_AGO_SECONDS = 600  # whoever began a call then is dead by now
IMPATIENCE_SECONDS = 0.4
PATIENCE_SECONDS = 20
_RST_ON_CLOSE = struct.pack("ii", 1, 0)

CONTEXT = SimpleNamespace(
    function_name="step",
    memory_limit_in_mb=512,
    invoked_function_arn="arn",
    aws_request_id="call",
    get_remaining_time_in_millis=lambda: 240_000,
)

Json = dict[str, Any]


def other(provider: ProviderName) -> ProviderName:
    return WAVESPEED if provider == RUNCOMFY else RUNCOMFY


def load_step(step: str) -> Any:  # noqa: ANN401 - each has names of its own
    """A step's function in a new environment."""
    path = ROOT / "functions" / step / "app.py"
    spec = importlib.util.spec_from_file_location(f"{step}_app", path)
    assert spec
    assert spec.loader
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    return app


class StandinApi:
    """A provider's stand-in, as a test speaks to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=f"{url}/_standin", trust_env=False, verify=False, timeout=PATIENCE_SECONDS
        )

    def received(self, plan: Plan) -> list[Json]:
        """The submissions of a job that arrived, accepted or not."""
        submissions: list[Json] = self._http.get("/requests").json()["submissions"]
        return [it for it in submissions if f"/{plan.image.key}" in it["inputs"]]

    def accepted(self, plan: Plan) -> int:
        """How often a job is going to be paid for."""
        return sum(submission["accepted"] for submission in self.received(plan))

    @contextmanager
    def misbehaving(self, at: str, times: int | None, fault: Json) -> Iterator[None]:
        """A fault that never strikes would show nothing: it fails the test, unless that failed
        already."""
        struck_before = self._struck(at)
        answer = self._http.post("/faults", json={"at": at, "times": times, **fault})
        assert answer.status_code == 201, answer.text
        try:
            yield
        finally:
            self._http.delete("/faults")
        assert self._struck(at) > struck_before, f"never struck at {at}: {fault}"

    def _struck(self, at: str) -> int:
        times: int = self._http.get("/requests").json()["struck"][at]
        return times

    def close(self) -> None:
        self._http.close()


class _Clock:
    """The time as the functions see it."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self, zone: tzinfo) -> datetime:
        return datetime.now(zone) + self.ahead


class _Told(logging.Handler):
    """All that left the functions: answers, errors with their tracebacks, log lines."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LambdaPowertoolsFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class FaultAccount:
    """Buckets, ledger, secrets, and the functions as Lambda loads them: once for many calls."""

    def __init__(self, account: RenderAccount, standins: Mapping[ProviderName, StandinApi]) -> None:
        self.s3 = account.s3
        self._account = account
        self.standins = standins
        self._ledger = account.ledger
        self._clock = _Clock()
        self._told = _Told()
        self._names = count(1)
        self._rendered: dict[ProviderName, ActiveRender] = {}
        secrets = boto3.client("secretsmanager")
        for provider, token in TOKENS.items():
            name = f"{provider}-token"
            secrets.create_secret(Name=name, SecretString=token)
        self._voice = self._put(UPLOADS, Role.AUDIO, "inbox/team/voice.wav", FILES["brief.wav"])
        self._copy = self._put(WORK, Role.AUDIO, "work/voice.wav", FILES["brief.wav"])
        self.apps = {step: load_step(step) for step in ("submit", "poll", "watch")}
        self.closures = DynamoDBClosures(render_account.LEDGER)
        for app in self.apps.values():
            assert hasattr(app, "datetime")
            app.datetime = self._clock

    # What a test gives

    def drop_job(self, *route_of: ProviderName) -> Plan:
        """A job of its own, dropped and planned."""
        stem = f"job-{next(self._names)}"
        picture = self._put(UPLOADS, Role.IMAGE, f"inbox/team/{stem}.png", FILES["anna.png"])
        copy = self._put(WORK, Role.IMAGE, f"work/{stem}.png", FILES["anna.png"])
        job = job_named(stem).model_copy(update={"inputs": (picture, self._voice)})
        route = tuple(OFFERS[provider] for provider in route_of)
        media = {"image": copy, "audio": self._copy}
        return render_fakes.PLAN.model_copy(update={"job": job, "route": route, **media})

    def _put(self, bucket: str, role: Role, key: str, body: bytes) -> Input:
        put = self.s3.put_object(Bucket=bucket, Key=key, Body=body)
        return Input(role=role, key=key, version_id=put["VersionId"], size_bytes=len(body))

    def rendered(self, provider: ProviderName) -> ActiveRender:
        """A job that the provider accepted just now, and whose video is ready."""
        if provider not in self._rendered:
            plan = self.drop_job(provider)
            ticket = self.submit(plan).ticket
            assert ticket
            render = ActiveRender(plan=plan, ticket=ticket, started_at=ticket.submitted_at)
            give_up_at = time.monotonic() + PATIENCE_SECONDS
            while self.poll(render).state is not RenderState.COMPLETED:
                assert time.monotonic() < give_up_at
                time.sleep(0.02)
            self._rendered[provider] = render
        render = self._rendered[provider]
        ticket = render.ticket.model_copy(update={"submitted_at": datetime.now(UTC)})
        return render.model_copy(update={"ticket": ticket})

    # What the state machine does

    def submit(self, plan: Plan, next_attempt: NextAttempt | None = None) -> Submission:
        request = SubmitRequest(
            plan=plan, next=next_attempt or NextAttempt(), started_at=render_fakes.NOON
        )
        return Submission.model_validate(self._run("submit", request.model_dump(mode="json")))

    def poll(self, render: ActiveRender) -> Progress:
        return Progress.model_validate(self._run("poll", render.model_dump(mode="json")))

    def _run(self, step: str, event: Json) -> Json:
        try:
            answer: Json = self.apps[step].handler(event, CONTEXT)
        except Exception as error:
            self._told.lines += traceback.format_exception(error)
            raise
        self._told.lines.append(json.dumps(answer))
        return answer

    def ask_providers(self) -> dict[str, AskedProvider]:
        asked: Any = self._run("watch", {"ask": "providers"})
        return {it["provider"]: AskedProvider.model_validate(it) for it in asked}

    def watch(self) -> None:
        """As every five minutes."""
        self._run("watch", {"watch": "queues"})

    def now(self) -> datetime:
        return self._clock.now(UTC)

    def pass_seconds(self, seconds: float) -> None:
        self._clock.ahead += timedelta(seconds=seconds)

    def call_somewhere_else(self, provider: ProviderName, url: str) -> None:
        """The provider is at this URL now."""
        for app in self.apps.values():
            accounts = app.settings.providers
            moved = accounts[provider].model_copy(update={"url": url})
            app.settings = app.settings.model_copy(
                update={"providers": {**accounts, provider: moved}}
            )

    # What a test looks at

    @property
    def told(self) -> str:
        return "\n".join(self._told.lines)

    def attempts(self, plan: Plan) -> tuple[Attempt, ...]:
        return self._ledger.attempts(plan.job.id)

    @contextmanager
    def watched(self) -> Iterator["FaultAccount"]:
        """One test: nothing secret gets out."""
        self._told.lines.clear()
        for closure in self.closures.all():
            self.closures.open(closure)
        self._clock.ahead = timedelta()
        root = logging.getLogger()
        level = root.level
        root.addHandler(self._told)
        root.setLevel(logging.INFO)
        try:
            yield self
        finally:
            root.setLevel(level)
            root.removeHandler(self._told)
        displayed = self._account.displayed()
        assert len(displayed) <= 10
        self._told.lines += displayed
        assert [secret for secret in SECRETS if secret in self.told] == []


@contextmanager
def fault_account() -> Iterator[FaultAccount]:
    dialects: dict[ProviderName, Dialect] = {
        RUNCOMFY: runcomfy.RunComfy(),
        WAVESPEED: wavespeed.WaveSpeed(),
    }
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        standins = {}
        for provider, dialect in dialects.items():
            settings = Settings(TOKENS[provider], queue_seconds=0, render_seconds=0)
            standin = Standin(dialect, settings).app(log=lambda _line: None)
            api = StandinApi(stack.enter_context(running(standin)))
            stack.callback(api.close)
            standins[provider] = api
        forget_clients()
        stack.callback(forget_clients)
        account = stack.enter_context(render_account.render_account(patch))
        # The pace is not tested here, and would only be in the way.
        accounts: dict[str, dict[str, object]] = {
            provider: {"url": api.url, "max_submits_per_minute": 0}
            for provider, api in standins.items()
        }
        patch.setenv("PROVIDERS", render_fakes.providers(**accounts))
        # Reading the world's certificates takes 50 ms, for each of the many clients made here.
        patch.setattr(default, "create_ssl_context", cache(httpx.create_ssl_context))
        window = stack.enter_context(running(copies_window(account.s3)))
        patch.setattr(
            S3Storage, "presigned_url", presigned_through(window, S3Storage.presigned_url)
        )
        yield FaultAccount(account, standins)


def copies_window(s3: "S3Client") -> Starlette:
    """The work bucket, for whoever comes with a signature."""

    def serve(request: Request) -> Response:
        if "X-Amz-Signature" not in request.query_params:
            return Response(status_code=403)
        key, version_id = request.path_params["key"], request.query_params["versionId"]
        return Response(s3.get_object(Bucket=WORK, Key=key, VersionId=version_id)["Body"].read())

    return Starlette(routes=[Route("/{key:path}", serve)])


def presigned_through(window: str, presigned_url: Callable[..., str]) -> Callable[..., str]:
    def presigned(*args: object) -> str:
        url = urlsplit(presigned_url(*args))
        return url._replace(scheme="http", netloc=urlsplit(window).netloc).geturl()

    return presigned


# What goes wrong


Strike = Callable[[FaultAccount, ProviderName, str, int | None], AbstractContextManager[None]]
"""A fault at one of a provider's calls, so many times; it has passed when the block ends."""


def worded(**bodies: Json) -> Strike:
    """What each stand-in does when it is told to, by the provider's name."""
    return lambda account, provider, at, times: account.standins[provider].misbehaving(
        at, times, bodies[provider]
    )


def ordered(**fault: object) -> Strike:
    return worded(**dict.fromkeys(TITLES, fault))


def stalling(when: str) -> Strike:
    """No answer for longer than the function waits, which is not long here."""

    @contextmanager
    def strike(
        account: FaultAccount, provider: ProviderName, at: str, times: int | None
    ) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in TITLES:
                module = import_module(f"dropreel.providers.{name}")
                impatient = partial(
                    module.Dialect,
                    timeout_seconds=IMPATIENCE_SECONDS,
                    submit_timeout_seconds=IMPATIENCE_SECONDS,
                )
                patch.setattr(module, "Dialect", impatient)
            forget_clients()
            with ordered(do="stall", when=when)(account, provider, at, times):
                yield
        forget_clients()

    return strike


def elsewhere(place: Callable[[str], AbstractContextManager[str]]) -> Strike:
    """What goes wrong before a provider hears anything: calls go to another place instead."""

    @contextmanager
    def strike(account: FaultAccount, provider: ProviderName, *_: object) -> Iterator[None]:
        url = account.standins[provider].url
        with place(url) as instead:
            account.call_somewhere_else(provider, instead)
            try:
                yield
            finally:
                account.call_somewhere_else(provider, url)

    return strike


@contextmanager
def nobody_there(_url: str) -> Iterator[str]:
    """A port that is taken, and that nobody listens on."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        yield f"https://127.0.0.1:{silent.getsockname()[1]}"


@contextmanager
def hangs_up_there(_url: str) -> Iterator[str]:
    """Somebody who takes the call, and resets it before a word of it is read."""

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if not connection.recv(1, socket.MSG_PEEK):  # we ourselves, to end it
                    return
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            socket.create_connection(listener.getsockname()).close()
            thread.join()


@contextmanager
def nobody_trusted_there(_url: str) -> Iterator[str]:
    """Somebody with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([]), datetime.now(UTC)
    certificate = x509.CertificateBuilder(
        subject, subject, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1)
    ).sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with NamedTemporaryFile() as pem:
        pem.write(certificate.public_bytes(serialization.Encoding.PEM) + secret)
        pem.flush()
        context.load_cert_chain(pem.name)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
