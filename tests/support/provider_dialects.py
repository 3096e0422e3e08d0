"""The providers' dialects side by side, for the tests of what holds for all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import pytest

from dropreel.model.provider import Provider, Refusal, Ticket, Unclear, UnknownRequest, Unreachable
from dropreel.providers.runcomfy import RunComfy
from dropreel.providers.tokens import Token
from dropreel.providers.wavespeed import WaveSpeed

BASE = "https://api.provider.example"
TOKEN = "rc-secret-token"
PRESIGNED = (
    "https://uploads.s3.amazonaws.com/inbox/anna.png?X-Amz-Credential=AKIA&X-Amz-Signature=5ec7e7"
)
PAYLOAD = {"image_url": PRESIGNED, "audio_url": PRESIGNED}

TICKET = Ticket(
    provider="a provider",
    endpoint="a/model",
    request_id="r1",
    attempt=1,
    offer=0,
    submitted_at=datetime(2026, 11, 20, 12, 0, tzinfo=UTC),
)

Read = Callable[[Provider], object]


def ask(provider: Provider) -> object:
    return provider.ask(TICKET)


def result(provider: Provider) -> object:
    return provider.result(TICKET)


def cancel(provider: Provider) -> object:
    return provider.cancel(TICKET)


def find(provider: Provider) -> object:
    now = TICKET.submitted_at
    return provider.find("a/model", list(PAYLOAD.values()), now, now, ())


@dataclass(frozen=True)
class Dialect:
    """How one provider says the things that all say."""

    name: str
    make: Callable[..., Provider]
    endpoint: str
    submit_path: str
    reads: Mapping[Read, str]  # with the path of each
    accepted: Callable[[object], object]
    in_state: Callable[[object], object]
    failed: Callable[[object], object]
    completed: Callable[[str], object]
    error_in_200: Callable[[int], dict[str, object]]
    error_with_id: Callable[[int], object]

    def __str__(self) -> str:
        return self.name


RUNCOMFY = Dialect(
    name="RunComfy",
    make=RunComfy,
    endpoint="wan-ai/wan-2-2/speech-to-video",
    submit_path="/v1/models/wan-ai/wan-2-2/speech-to-video",
    reads={
        ask: "/v1/requests/r1/status",
        result: "/v1/requests/r1/result?include_cost=true",
        cancel: "/v1/requests/r1/cancel",
    },
    accepted=lambda request_id: {"request_id": request_id, "status_url": "https://x.example/r1"},
    in_state=lambda state: {"request_id": "r1", "status": state},
    failed=lambda words: {"status": "failed", "error": words},
    completed=lambda url: {"status": "succeeded", "output": {"video": url}},
    error_in_200=lambda status: {"error_code": status * 1000 + 1, "message": "no"},
    error_with_id=lambda status: {"error_code": status * 1000 + 1, "request_id": "r1"},
)

WAVESPEED = Dialect(
    name="WaveSpeed",
    make=WaveSpeed,
    endpoint="wavespeed-ai/wan-2.2/speech-to-video",
    submit_path="/api/v3/wavespeed-ai/wan-2.2/speech-to-video",
    reads={
        ask: "/api/v3/predictions/r1/result",
        result: "/api/v3/predictions/r1/result",
        find: "/api/v3/predictions",
    },
    accepted=lambda request_id: {
        "code": 200,
        "message": "success",
        "data": {"id": request_id, "status": "created", "urls": {"get": "https://x.example/r1"}},
    },
    in_state=lambda state: {
        "code": 200,
        "message": "success",
        "data": {"status": state, "items": [] if isinstance(state, str) else None},
    },
    failed=lambda words: {"code": 200, "data": {"id": "r1", "status": "failed", "error": words}},
    completed=lambda url: {"code": 200, "data": {"status": "completed", "outputs": [url]}},
    error_in_200=lambda status: {"code": status, "message": "no", "data": None},
    error_with_id=lambda status: {"code": status, "data": {"id": "r1"}},
)

DIALECTS = (RUNCOMFY, WAVESPEED)
READS = [(dialect, read) for dialect in DIALECTS for read in dialect.reads]

each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=str)
each_read = pytest.mark.parametrize(
    ("dialect", "read"), READS, ids=[f"{dialect}-{read.__name__}" for dialect, read in READS]
)


def answer(status: int = 200, body: object = None, **headers: str) -> httpx.Response:
    """An answer; a `str` or `bytes` body goes out as it is."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, str | bytes):
        return httpx.Response(status, content=body, headers=names)
    return httpx.Response(status, json=body, headers=names)


@dataclass
class Network:
    """Answers the calls in order, the last answer again and again; an exception is raised."""

    answers: list[httpx.Response | Exception]
    calls: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(given, Exception):
            raise given
        return httpx.Response(given.status_code, content=given.content, headers=given.headers)


def always(*, fresh: bool = False) -> str:
    return TOKEN


def provider_of(
    dialect: Dialect, *answers: httpx.Response | Exception, token: Token = always
) -> tuple[Provider, Network]:
    network = Network(list(answers))
    made = dialect.make(BASE + "/", token, transport=httpx.MockTransport(network))
    return made, network


def failure_of(call: Callable[[], object]) -> Exception:
    with pytest.raises((Refusal, Unclear, Unreachable, UnknownRequest)) as raised:
        call()
    return raised.value
