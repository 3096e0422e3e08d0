import json
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from dropreel import errors
from dropreel.errors import DropreelError, TokenMissing
from dropreel.provider import (
    Answer,
    Provider,
    Refusal,
    RenderState,
    Unclear,
    UnknownRequest,
    Unreachable,
)
from dropreel.runcomfy import RunComfy
from dropreel.tokens import Token, TokenUnreadable

BASE = "https://model-api.runcomfy.example"
ENDPOINT = "wan-ai/wan-2-2/speech-to-video"
TOKEN = "rc-secret-token"
PRESIGNED = (
    "https://uploads.s3.amazonaws.com/inbox/anna.png?X-Amz-Credential=AKIA&X-Amz-Signature=5ec7e7"
)
PAYLOAD = {"image_url": PRESIGNED, "audio_url": PRESIGNED}


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


def runcomfy(
    *answers: httpx.Response | Exception, token: Token = always
) -> tuple[RunComfy, Network]:
    network = Network(list(answers))
    return RunComfy(BASE + "/", token, transport=httpx.MockTransport(network)), network


READS: list[Callable[[RunComfy], object]] = [
    lambda provider: provider.ask("r1"),
    lambda provider: provider.video_url("r1"),
    lambda provider: provider.cancel("r1"),
]
each_read = pytest.mark.parametrize("read", READS, ids=["ask", "video_url", "cancel"])


def failure_of(call: Callable[[], object]) -> Exception:
    with pytest.raises((Refusal, Unclear, Unreachable, UnknownRequest)) as raised:
        call()
    return raised.value


# What is sent


def test_is_a_provider() -> None:
    provider: Provider = runcomfy(answer())[0]
    assert provider.name == "runcomfy"


def test_submit_posts_the_payload_to_the_endpoint_and_returns_the_request_id() -> None:
    provider, network = runcomfy(
        answer(200, {"request_id": "r1", "status_url": "https://elsewhere.example/r1"})
    )
    assert provider.submit(ENDPOINT, PAYLOAD) == "r1"
    (call,) = network.calls
    assert call.method == "POST"
    assert str(call.url) == f"{BASE}/v1/models/{ENDPOINT}"
    assert call.headers["Authorization"] == f"Bearer {TOKEN}"
    assert json.loads(call.content) == PAYLOAD


@pytest.mark.parametrize(
    ("call", "method", "path", "reply"),
    [
        (READS[0], "GET", "/v1/requests/r1/status", {"status": "in_queue"}),
        (READS[1], "GET", "/v1/requests/r1/result", {"output": {}}),
        (READS[2], "POST", "/v1/requests/r1/cancel", {"status": "cancelled"}),
    ],
    ids=["ask", "video_url", "cancel"],
)
def test_questions_go_to_the_configured_base_with_the_token(
    call: Callable[[RunComfy], object], method: str, path: str, reply: object
) -> None:
    provider, network = runcomfy(answer(200, reply))
    call(provider)
    (sent,) = network.calls
    assert (sent.method, str(sent.url)) == (method, BASE + path)
    assert sent.headers["Authorization"] == f"Bearer {TOKEN}"


def test_request_id_cannot_climb_out_of_its_path() -> None:
    provider, network = runcomfy(answer(200, {"status": "in_queue"}))
    provider.ask("../../v1/models/x?y#z")
    assert network.calls[0].url.raw_path == (
        b"/v1/requests/..%2F..%2Fv1%2Fmodels%2Fx%3Fy%23z/status"
    )


# What a submission's answer means

REFUSED: list[tuple[httpx.Response | Exception, str, bool]] = [
    (httpx.ConnectError("no"), "ProviderUnavailable", True),
    (httpx.ConnectTimeout("no"), "ProviderUnavailable", True),
    (httpx.PoolTimeout("no"), "ProviderUnavailable", True),
    (httpx.UnsupportedProtocol("no"), "ProviderUnavailable", True),
    (answer(400, {"message": "bad"}), "RequestRefused", False),
    (answer(401, {"error_code": 401001, "message": "expired"}), "TokenRejected", False),
    (answer(401, ""), "TokenRejected", False),
    (answer(401, {"request_id": "trace", "message": "expired"}), "TokenRejected", False),
    (answer(402, {"message": "not enough credit"}), "NoCredit", False),
    (answer(403, {"error_code": 403003, "message": "not yours"}), "TokenRejected", False),
    (answer(404, {"message": "no such model"}), "RequestRefused", False),
    (answer(408, ""), "ProviderUnavailable", True),
    (answer(413, "<html>too large</html>"), "RequestRefused", False),
    (answer(422, {"error_code": 422001, "detail": []}), "RequestRefused", False),
    (answer(429, {"message": "slow down"}), "ProviderThrottled", True),
    (answer(503, "<html>maintenance</html>"), "ProviderUnavailable", True),
    (answer(200, {"error_code": 401001, "message": "expired"}), "TokenRejected", False),
    (answer(200, {"error_code": "402001"}), "NoCredit", False),
    (answer(200, {"error_code": 403003}), "TokenRejected", False),
    (answer(200, {"error_code": 404001}), "RequestRefused", False),
    (answer(200, {"error_code": 422001}), "RequestRefused", False),
    (answer(200, {"error_code": 429}), "ProviderThrottled", True),
    (answer(200, {"error_code": 503001}), "ProviderUnavailable", True),
]


@pytest.mark.parametrize(("given", "code", "again"), REFUSED)
def test_definite_refusal_of_a_submission(
    given: httpx.Response | Exception, code: str, again: bool
) -> None:
    provider, network = runcomfy(given)
    with pytest.raises(Refusal) as raised:
        provider.submit(ENDPOINT, PAYLOAD)
    assert (raised.value.code, raised.value.again) == (code, again)
    assert issubclass(getattr(errors, code), DropreelError)
    assert raised.value.message
    assert len(network.calls) == 1


UNCLEAR: list[httpx.Response | Exception] = [
    httpx.ReadTimeout("no"),
    httpx.ReadError("no"),
    httpx.WriteError("no"),
    httpx.WriteTimeout("no"),
    httpx.RemoteProtocolError("no"),
    answer(500, {"error_code": 500001, "message": "internal"}),
    answer(502, "<html>bad gateway</html>"),
    answer(504, ""),
    answer(520, ""),
    answer(302, "", Location="https://elsewhere.example/"),
    answer(200, ""),
    answer(200, "<html>welcome</html>"),
    answer(200, '{"request_id": "r'),
    answer(200, b"\xff\xfe{}"),
    answer(200, "[" * 100_000),
    answer(200, []),
    answer(200, None),
    answer(200, {}),
    answer(200, {"request_id": ""}),
    answer(200, {"request_id": None}),
    answer(200, {"request_id": {"id": "r1"}}),
    answer(200, {"request_id": ".."}),
    answer(200, {"request_id": "https://elsewhere.example/r1"}),
    answer(200, {"request_id": "x" * 1000}),
    answer(200, {"error": "something went wrong"}),
    answer(200, {"error_code": 500001}),
    answer(200, {"error_code": 1200}),
    answer(200, {"error_code": "E_INTERNAL"}),
    answer(200, {"error_code": 402001, "request_id": "r1"}),
    answer(200, {"error_code": 401001, "request_id": "r1"}),
]


@pytest.mark.parametrize("given", UNCLEAR)
def test_submission_without_a_plain_answer_is_unclear_and_sent_once(
    given: httpx.Response | Exception,
) -> None:
    provider, network = runcomfy(given)
    with pytest.raises(Unclear, match="RunComfy"):
        provider.submit(ENDPOINT, PAYLOAD)
    assert len(network.calls) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"request_id": "7"},
        {"request_id": 7},
        {"request_id": "7", "error_code": None},
        {"request_id": "7", "error_code": 0, "message": "ok", "new_field": [1]},
    ],
)
def test_accepting_answer_is_read_leniently(body: object) -> None:
    provider, _ = runcomfy(answer(202, body))
    assert provider.submit(ENDPOINT, PAYLOAD) == "7"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "too much"}, "too much"),
        ({"error": {"code": 1, "message": "too much"}}, "too much"),
        ({"message": "Validation failed", "error": "Validation failed"}, "Validation failed"),
        (
            {"detail": [{"loc": ["body", "image_url"], "msg": "field required", "input": 1}]},
            "body.image_url: field required",
        ),
        (
            {"message": "Invalid.", "detail": [{"loc": "style", "msg": "not\nallowed"}, 5, None]},
            "Invalid. - style: not allowed",
        ),
        ({"detail": "no such field"}, "no such field"),
    ],
)
def test_refusal_says_the_providers_words(body: object, words: str) -> None:
    provider, _ = runcomfy(answer(422, body))
    with pytest.raises(Refusal) as raised:
        provider.submit(ENDPOINT, PAYLOAD)
    assert raised.value.message == f"RunComfy refused the request (422): {words}"


@pytest.mark.parametrize("status", [429, 503])
def test_refusal_hands_on_retry_after(status: int) -> None:
    provider, _ = runcomfy(answer(status, {}, Retry_After="17"))
    with pytest.raises(Refusal) as raised:
        provider.submit(ENDPOINT, PAYLOAD)
    assert raised.value.retry_after_seconds == 17


# The token


@dataclass
class Rotated:
    """A token that was replaced after it had been cached."""

    cached: str = "old"
    stored: str = "new"

    def __call__(self, *, fresh: bool = False) -> str:
        if fresh:
            self.cached = self.stored
        return self.cached


def tokens_of(calls: Iterable[httpx.Request]) -> list[str]:
    return [call.headers["Authorization"].removeprefix("Bearer ") for call in calls]


@pytest.mark.parametrize("rejection", [answer(401, ""), answer(200, {"error_code": 401001})])
@pytest.mark.parametrize(
    ("call", "reply"),
    [
        (lambda provider: provider.submit(ENDPOINT, PAYLOAD), {"request_id": "r1"}),
        (READS[0], {"status": "in_queue"}),
        (READS[1], {"output": {}}),
        (READS[2], {"status": "cancelled"}),
    ],
    ids=["submit", "ask", "video_url", "cancel"],
)
def test_rotated_token_is_taken_up_at_once(
    call: Callable[[RunComfy], object], reply: object, rejection: httpx.Response
) -> None:
    provider, network = runcomfy(rejection, answer(200, reply), token=Rotated())
    call(provider)
    assert tokens_of(network.calls) == ["old", "new"]


def test_rotated_token_is_tried_once_only() -> None:
    provider, network = runcomfy(answer(401, ""), token=Rotated())
    with pytest.raises(Refusal):
        provider.submit(ENDPOINT, PAYLOAD)
    assert tokens_of(network.calls) == ["old", "new"]


def test_submission_that_may_be_accepted_is_not_sent_again_with_a_rotated_token() -> None:
    provider, network = runcomfy(
        answer(200, {"error_code": 401001, "request_id": "r1"}), token=Rotated()
    )
    with pytest.raises(Unclear):
        provider.submit(ENDPOINT, PAYLOAD)
    assert tokens_of(network.calls) == ["old"]


@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (TokenMissing("No token is stored."), "TokenMissing", False),
        (TokenUnreadable("The token could not be read."), "ProviderUnavailable", True),
    ],
)
def test_without_a_token_nothing_is_sent(error: Exception, code: str, again: bool) -> None:
    def none(*, fresh: bool = False) -> str:
        raise error

    provider, network = runcomfy(answer(200, {}), token=none)
    with pytest.raises(Refusal) as raised:
        provider.submit(ENDPOINT, PAYLOAD)
    assert (raised.value.code, raised.value.again) == (code, again)
    for read in READS:
        assert isinstance(failure_of(lambda read=read: read(provider)), Unreachable)  # type: ignore[misc]
    assert not network.calls


# How far a render is


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("in_queue", RenderState.QUEUED),
        ("in_progress", RenderState.RENDERING),
        ("completed", RenderState.COMPLETED),
        ("succeeded", RenderState.COMPLETED),
        ("failed", RenderState.FAILED),
        ("cancelled", RenderState.CANCELLED),
        ("canceled", RenderState.CANCELLED),
        (" In-Progress ", RenderState.RENDERING),
        ("COMPLETED", RenderState.COMPLETED),
    ],
)
def test_states(status: str, state: RenderState) -> None:
    provider, _ = runcomfy(answer(200, {"request_id": "r1", "status": status}))
    assert provider.ask("r1").state is state


@pytest.mark.parametrize("status", ["warming_up", "error", "success", 7])
def test_unknown_state_counts_as_still_running_and_is_named(status: object) -> None:
    provider, _ = runcomfy(answer(200, {"status": status}))
    told = provider.ask("r1")
    assert told.state is RenderState.RENDERING
    assert str(status) in told.message


def test_place_in_the_queue_is_told() -> None:
    provider, _ = runcomfy(answer(200, {"status": "in_queue", "queue_position": 3}))
    assert provider.ask("r1").message == "Position 3 in the queue."


@pytest.mark.parametrize(
    ("status_body", "result", "message"),
    [
        ({}, answer(200, {"status": "failed", "error": "face not found"}), "face not found"),
        ({}, answer(200, {"error": {"message": "face not found"}}), "face not found"),
        ({}, answer(200, {"status": "failed", "error_code": 500001, "message": "oom"}), "oom"),
        ({"error": "told at once"}, answer(500, ""), "told at once"),
        ({"error_code": 500001, "message": "oom"}, answer(500, ""), "oom"),
        ({}, answer(200, {"error": None}), "RunComfy gives no reason."),
        ({}, answer(500, {"message": "internal"}), "RunComfy gives no reason."),
        ({}, answer(404, ""), "RunComfy gives no reason."),
        ({}, httpx.ReadTimeout("no"), "RunComfy gives no reason."),
    ],
)
def test_failed_render_tells_why(
    status_body: dict[str, Any], result: httpx.Response | Exception, message: str
) -> None:
    provider, _ = runcomfy(answer(200, {"status": "failed", **status_body}), result)
    assert provider.ask("r1") == Answer(state=RenderState.FAILED, message=message)


# Answers that say nothing about the work

SILENT: list[httpx.Response | Exception] = [
    httpx.ConnectError("no"),
    httpx.ConnectTimeout("no"),
    httpx.ReadTimeout("no"),
    httpx.ReadError("no"),
    httpx.RemoteProtocolError("no"),
    answer(302, "", Location="https://elsewhere.example/"),
    answer(401, {"error_code": 401001}),
    answer(402, {"message": "credit"}),
    answer(403, {"error_code": 403003}),
    answer(429, ""),
    answer(500, {"error_code": 500001}),
    answer(502, "<html>bad gateway</html>"),
    answer(503, ""),
    answer(504, ""),
    answer(200, {"error_code": 429001}),
    answer(200, {"error_code": 500001, "message": "internal"}),
]
MALFORMED: list[httpx.Response | Exception] = [
    answer(200, ""),
    answer(200, "<html>welcome</html>"),
    answer(200, '{"status": "comp'),
    answer(200, "[" * 100_000),
    answer(200, []),
    answer(200, {}),
    answer(200, {"status": None}),
    answer(200, {"status": ["completed"]}),
]


@each_read
@pytest.mark.parametrize("given", SILENT + MALFORMED)
def test_question_without_an_answer_is_no_failed_render(
    read: Callable[[RunComfy], object], given: httpx.Response | Exception
) -> None:
    provider, _ = runcomfy(given)
    with pytest.raises(Unreachable, match="RunComfy"):
        read(provider)


@each_read
@pytest.mark.parametrize("status", [429, 503])
def test_question_hands_on_retry_after(read: Callable[[RunComfy], object], status: int) -> None:
    provider, _ = runcomfy(answer(status, "", Retry_After="17"))
    with pytest.raises(Unreachable) as raised:
        read(provider)
    assert raised.value.retry_after_seconds == 17


@pytest.mark.parametrize("read", READS[:2], ids=["ask", "video_url"])
@pytest.mark.parametrize(
    "given",
    [answer(404, {"error_code": 404001}), answer(404, ""), answer(200, {"error_code": 404001})],
)
def test_forgotten_request_is_said_to_be_unknown(
    read: Callable[[RunComfy], object], given: httpx.Response
) -> None:
    provider, _ = runcomfy(given)
    with pytest.raises(UnknownRequest):
        read(provider)


# Where the video is

ONE, TWO = "https://cdn.example/1.mp4?s=1", "https://cdn.example/2.mp4?s=2"


@pytest.mark.parametrize(
    ("body", "url"),
    [
        ({"output": {"video": ONE}}, ONE),
        ({"output": {"video": ONE, "videos": [TWO]}}, ONE),
        ({"output": {"videos": [TWO, ONE]}}, TWO),
        ({"output": {"video": None, "videos": [None, "", TWO]}}, TWO),
        ({"output": {"video": {"url": ONE}}}, ONE),
        ({"output": {"videos": [{"url": TWO}]}}, TWO),
        ({"output": {"video": ONE}, "status": "succeeded"}, ONE),
        ({"output": {"video": ONE}, "status": "whatever"}, ONE),
        ({"output": {"image": ONE, "images": [TWO]}}, None),
        ({"output": {}}, None),
        ({"output": None, "status": "completed"}, None),
        ({"output": [ONE]}, None),
        ({"output": {"video": 7, "videos": ONE}}, None),
        ({"status": "completed"}, None),
        ({"status": "failed", "error": "no"}, None),
    ],
)
def test_first_video_of_a_result(body: object, url: str | None) -> None:
    provider, _ = runcomfy(answer(200, body))
    assert provider.video_url("r1") == url


@pytest.mark.parametrize("status", ["in_queue", "in_progress"])
@pytest.mark.parametrize("output", [{}, {"output": {"video": ONE}}, {"output": None}])
def test_result_of_a_render_that_goes_on_is_not_taken(status: str, output: dict[str, Any]) -> None:
    provider, _ = runcomfy(answer(200, {"status": status, **output}))
    with pytest.raises(Unreachable, match="not complete"):
        provider.video_url("r1")


# Cancelling


@pytest.mark.parametrize(
    "body",
    [
        {"status": "cancelled"},
        {"status": "canceled"},
        {"outcome": "cancelled"},
        {"status": "completed", "outcome": "cancelled"},
    ],
)
def test_plain_cancellation_needs_no_second_question(body: object) -> None:
    provider, network = runcomfy(answer(200, body))
    assert provider.cancel("r1") is True
    assert len(network.calls) == 1


@pytest.mark.parametrize(
    "given",
    [
        answer(204, ""),
        answer(202, {"request_id": "r1"}),
        answer(202, {"status": "cancellation_requested"}),
        answer(200, {"outcome": "not_cancellable"}),
        answer(400, {"message": "in progress"}),
        answer(409, {"message": "already cancelled"}),
        answer(200, {"error_code": 422001}),
        answer(404, ""),
    ],
)
@pytest.mark.parametrize(
    ("state", "cancelled"),
    [
        (answer(200, {"status": "cancelled"}), True),
        (answer(200, {"status": "in_progress"}), False),
        (answer(200, {"status": "in_queue"}), False),
        (answer(200, {"status": "completed"}), False),
        (answer(404, {"error_code": 404001}), False),
    ],
)
def test_cancelled_is_what_the_state_says(
    given: httpx.Response, state: httpx.Response, cancelled: bool
) -> None:
    provider, network = runcomfy(given, state)
    assert provider.cancel("r1") is cancelled
    assert [call.method for call in network.calls] == ["POST", "GET"]


# Secrets

ECHOES = [
    f"cannot read {PRESIGNED}",
    f"cannot read '{PRESIGNED}', sorry",
    f"cannot read {PRESIGNED.upper()}",
    "cannot read " + PRESIGNED.replace("/", "\\/"),
    "cannot read " + httpx.QueryParams({"u": PRESIGNED}).__str__(),
    f"cannot read {PRESIGNED.removeprefix('https://')}",
    f"cannot read anna marie.png?{PRESIGNED.partition('?')[2]}",
    "cannot read anna marie.png?X-Amz-Credential=AKIA",
    "cannot read anna marie.png?Signature=5ec7e7",
    "cannot read https:\\/\\/uploads.example\\/anna.png",
    f"cannot use {TOKEN}, sorry",
    f"cannot use Bearer:{TOKEN}",
    "x" * 295 + f" {TOKEN}",
    "x" * 290 + f" {PRESIGNED}",
    f"{PRESIGNED} {TOKEN} " * 1000,
]


def shapes(echo: str) -> list[dict[str, Any]]:
    return [
        {"message": echo},
        {"error": {"message": echo}},
        {"detail": [{"loc": ["body", "image_url"], "msg": echo, "input": PRESIGNED}]},
        {"detail": echo, "status": "failed"},
        {"status": echo},
        {"error_code": 422001, "message": echo},
        {"error_code": echo},
        {"status": "in_queue", "queue_position": echo, "request_id": echo},
    ]


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("status", [200, 401, 404, 422, 429, 500, 503])
def test_no_secret_that_a_provider_echoes_gets_through(echo: str, status: int) -> None:
    calls = [lambda provider: provider.submit(ENDPOINT, PAYLOAD), *READS]
    for body in shapes(echo):
        for call in calls:
            provider, _ = runcomfy(answer(status, body))
            try:
                said = str(call(provider))
            except (Refusal, Unclear, Unreachable, UnknownRequest) as err:
                said = "".join(traceback.format_exception(err))
                assert len(str(err)) < 450
            for secret in ("http:", "https:", TOKEN, "X-Amz-", "5ec7e7"):
                assert secret.lower() not in said.lower()


def test_no_secret_in_an_error_of_the_network() -> None:
    for error in (httpx.ConnectError, httpx.ReadError, httpx.LocalProtocolError):
        provider, _ = runcomfy(error(f"Illegal header value b'Bearer {TOKEN}' for {PRESIGNED}"))
        for call in (lambda provider: provider.submit(ENDPOINT, PAYLOAD), *READS):
            failure = failure_of(lambda call=call, provider=provider: call(provider))  # type: ignore[misc]
            said = "".join(traceback.format_exception(failure))
            assert TOKEN not in said
            assert "X-Amz-" not in said


def test_words_keep_what_is_no_secret_and_are_bounded() -> None:
    provider, _ = runcomfy(
        answer(
            422, {"message": f"\x1b[31mcannot\u202e read {PRESIGNED} with {TOKEN} " + "y" * 9999}
        )
    )
    with pytest.raises(Refusal) as raised:
        provider.submit(ENDPOINT, PAYLOAD)
    assert "[31mcannot read (URL removed) with (token removed) yyy" in raised.value.message
    assert raised.value.message.endswith("y…")
    assert raised.value.message.isprintable()
