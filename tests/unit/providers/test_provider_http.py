"""What holds for every provider, whatever its dialect."""

import gzip
import json
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from dropreel.model import errors
from dropreel.model.errors import DropreelError, TokenMissing
from dropreel.model.provider import (
    Provider,
    Refusal,
    RenderLost,
    RenderState,
    Unclear,
    UnknownRequest,
    Unreachable,
)
from dropreel.providers.tokens import TokenUnreadable
from tests.support.provider_dialects import (
    BASE,
    PAYLOAD,
    PRESIGNED,
    TICKET,
    TOKEN,
    Dialect,
    Network,
    Read,
    always,
    answer,
    ask,
    cancel,
    each_dialect,
    each_read,
    failure_of,
    find,
    provider_of,
    result,
)

# What is sent


def _final_state(read: Read) -> str:
    """A state that answers a call without a second one."""
    states: dict[Read, str] = {cancel: "cancelled", result: "completed"}
    return states.get(read, "processing")


@each_dialect
def test_submit_posts_the_payload_to_the_endpoint_and_returns_the_request_id(
    dialect: Dialect,
) -> None:
    provider, network = provider_of(dialect, answer(200, dialect.accepted("r1")))
    assert provider.submit(dialect.endpoint, PAYLOAD) == "r1"
    (call,) = network.calls
    assert call.method == "POST"
    assert str(call.url) == BASE + dialect.submit_path
    assert call.headers["Authorization"] == f"Bearer {TOKEN}"
    assert json.loads(call.content) == PAYLOAD


@each_read
def test_questions_go_to_the_configured_base_with_the_token(dialect: Dialect, read: Read) -> None:
    provider, network = provider_of(dialect, answer(200, dialect.in_state(_final_state(read))))
    read(provider)
    (sent,) = network.calls
    assert sent.method == ("POST" if read in (cancel, find) else "GET")
    assert str(sent.url) == BASE + dialect.reads[read]
    assert sent.headers["Authorization"] == f"Bearer {TOKEN}"


@each_dialect
def test_request_id_cannot_climb_out_of_its_path(dialect: Dialect) -> None:
    provider, network = provider_of(dialect, answer(200, dialect.in_state("processing")))
    provider.ask(TICKET.model_copy(update={"request_id": "../../v1/models/x?y#z"}))
    path = dialect.reads[ask].replace("r1", "..%2F..%2Fv1%2Fmodels%2Fx%3Fy%23z")
    assert network.calls[0].url.raw_path == path.encode()


# What a submission's answer means


def word_for_a_code(code: str, message: str) -> httpx.Response:
    return answer(200, {"code": code, "error_code": code, "message": message})


REFUSED: list[tuple[httpx.Response | Exception, str, bool]] = [
    (httpx.ConnectError("no"), "ProviderUnavailable", True),
    (httpx.ConnectTimeout("no"), "ProviderUnavailable", True),
    (httpx.PoolTimeout("no"), "ProviderUnavailable", True),
    (httpx.UnsupportedProtocol("no"), "ProviderUnavailable", True),
    (answer(400, {"message": "bad"}), "RequestRefused", False),
    (answer(400, {"message": "Insufficient credits. Please top up."}), "NoCredit", False),
    (answer(401, ""), "TokenRejected", False),
    (answer(401, {"request_id": "r1", "data": {"id": "r1"}}), "TokenRejected", False),
    (answer(402, {"message": "not enough credit"}), "NoCredit", False),
    (answer(403, {"message": "not yours"}), "TokenRejected", False),
    (answer(403, {"message": "The balance: not enough balance."}), "NoCredit", False),
    (answer(404, {"message": "no such model"}), "RequestRefused", False),
    (answer(400, {"message": "flagged by our safety system"}), "RenderModerated", False),
    (answer(403, {"error_message": "Image contains nudity"}), "RenderModerated", False),
    (answer(429, {"error": {"details": "content policy violation"}}), "RenderModerated", False),
    (answer(429, {"message": "Insufficient balance"}), "NoCredit", False),
    (answer(429, {"message": "Your balance is too low. Please top up."}), "NoCredit", False),
    (answer(429, {"message": "You have no credits left"}), "NoCredit", False),
    (answer(429, {"message": "Spending limit reached"}), "NoCredit", False),
    (answer(403, {"message": "Request blocked: balance is too low"}), "NoCredit", False),
    (answer(400, {"message": "Suspended: unpaid invoice. See our policy"}), "NoCredit", False),
    (answer(403, {"message": "Your free quota is used up"}), "NoCredit", False),
    (answer(400, {"message": "0 credits left. Used 500 of 500"}), "NoCredit", False),
    (word_for_a_code("NO_CREDITS", "Your balance is 0. Please top up."), "NoCredit", False),
    (word_for_a_code("BALANCE_TOO_LOW", "Please recharge"), "NoCredit", False),
    (answer(429, {"message": "Too many requests under our policy"}), "ProviderThrottled", True),
    (answer(400, {"code": "Arrearage", "message": ""}), "NoCredit", False),
    (answer(400, {"error": {"code": "Arrearage", "message": "Access denied."}}), "NoCredit", False),
    (answer(200, {"code": "Arrearage", "error_code": "Arrearage"}), "NoCredit", False),
    (answer(403, {"message": "this model is not available with trial credit"}), "NoCredit", False),
    (answer(401, {"message": "Your account is in arrears"}), "NoCredit", False),
    (answer(401, {"message": "Invalid key. See billing for your keys."}), "TokenRejected", False),
    (answer(401, {"message": "flagged"}), "TokenRejected", False),
    (answer(422, {"detail": "You need at least 30 credits to run this"}), "NoCredit", False),
    (answer(429, {"message": "The free tier of the model has been exhausted."}), "NoCredit", False),
    (answer(429, {"message": "Rate limit of the free plan"}), "ProviderThrottled", True),
    (answer(429, {"message": "Free plan queue is full, wait"}), "ProviderThrottled", True),
    (answer(429, {"message": "free plan: too many tasks queued"}), "ProviderThrottled", True),
    (answer(429, {"message": "Upgrade your plan for more at once"}), "ProviderThrottled", True),
    (answer(429, {"message": "Top up to raise your limits"}), "ProviderThrottled", True),
    (word_for_a_code("E1", "no more: out of credits"), "NoCredit", False),
    (answer(422, {"message": "NSFW detected. No credits were charged."}), "RenderModerated", False),
    (answer(403, {"message": "nsfw_detected"}), "RenderModerated", False),
    (answer(403, "<html>forbidden</html>"), "TokenRejected", False),
    (answer(402, ""), "NoCredit", False),
    (answer(429, "<html>slow down</html>"), "ProviderThrottled", True),
    (answer(413, "<html>too large</html>"), "RequestRefused", False),
    (answer(422, {"detail": []}), "RequestRefused", False),
]


@each_dialect
@pytest.mark.parametrize(("given", "code", "again"), REFUSED)
def test_definite_refusal_of_a_submission(
    dialect: Dialect, given: httpx.Response | Exception, code: str, again: bool
) -> None:
    provider, network = provider_of(dialect, given)
    with pytest.raises(Refusal, match=dialect.name) as raised:
        provider.submit(dialect.endpoint, PAYLOAD)
    assert (raised.value.code, raised.value.again) == (code, again)
    assert issubclass(getattr(errors, code), DropreelError)
    assert len(network.calls) == 1


@each_dialect
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "TokenRejected"),
        (402, "NoCredit"),
        (403, "TokenRejected"),
        (404, "RequestRefused"),
        (422, "RequestRefused"),
        (429, "ProviderThrottled"),
        # Accepted, perhaps, before it went wrong.
        (408, None),
        (500, None),
        (503, None),
        (504, None),
    ],
)
def test_error_inside_a_200_means_what_its_status_means(
    dialect: Dialect, status: int, code: str | None
) -> None:
    provider, network = provider_of(dialect, answer(200, dialect.error_in_200(status)))
    with pytest.raises(Refusal if code else Unclear) as raised:
        provider.submit(dialect.endpoint, PAYLOAD)
    assert getattr(raised.value, "code", None) == code
    assert len(network.calls) == 1


UNCLEAR: list[httpx.Response | Exception] = [
    httpx.ReadTimeout("no"),
    httpx.ReadError("no"),
    httpx.WriteError("no"),
    httpx.WriteTimeout("no"),
    httpx.RemoteProtocolError("no"),
    # Accepted, perhaps, before it went wrong.
    answer(408, ""),
    answer(500, {"message": "internal"}),
    answer(503, "<html>maintenance</html>"),
    answer(503, {"message": "unavailable, try again"}),
    answer(504, ""),
    answer(503, {"code": 402, "error_code": 402001, "message": "no credit"}),
    answer(500, {"code": "Arrearage", "message": "Your account is in arrears"}),
    answer(200, {"code": "Oops", "error_code": "Oops", "message": "See your token's balance"}),
    # Words about money, and no plain refusal.
    word_for_a_code("InternalError", "billing service timed out"),
    word_for_a_code("InternalError", "insufficient balance"),
    word_for_a_code("Timeout", "The task is overdue, still processing"),
    word_for_a_code("E1", "insufficient credit: the check timed out"),
    word_for_a_code("ServiceUnavailable", "Payment required"),
    word_for_a_code("E1", "Please add a payment method"),
    answer(400, {"code": 503, "error_code": 503001, "message": "unavailable"}),
    answer(422, {"code": 408, "error_code": 408001, "message": "timeout"}),
    # A client error that is not in the provider's words: a gateway's page.
    answer(400, ""),
    answer(404, "<html>not found</html>"),
    answer(409, "Conflict"),
    answer(422, "[]"),
    answer(404, {"path": "/v1/models/x"}),
    answer(302, "", Location="https://elsewhere.example/"),
    answer(200, ""),
    answer(200, "<html>welcome</html>"),
    answer(200, '{"request_id": "r'),
    answer(200, b"\xff\xfe{}"),
    answer(200, "[" * 100_000),
    answer(200, []),
    answer(200, None),
    answer(200, {}),
    answer(200, {"error": "something went wrong"}),
    answer(200, {"message": "success"}),
]


@each_dialect
@pytest.mark.parametrize("given", UNCLEAR)
def test_submission_without_a_plain_answer_is_unclear_and_sent_once(
    dialect: Dialect, given: httpx.Response | Exception
) -> None:
    provider, network = provider_of(dialect, given)
    with pytest.raises(Unclear, match=dialect.name):
        provider.submit(dialect.endpoint, PAYLOAD)
    assert len(network.calls) == 1


@each_dialect
@pytest.mark.parametrize(
    "request_id",
    [
        "",
        None,
        {"id": "r1"},
        True,
        ".",
        "..",
        "...",
        "https://elsewhere.example/r1",
        "x" * 129,
        "r 1",
        "r1\n",
        "r1\u200b",
        "r1/../r2",
        "r1?x=1",
        "ｒ１",
        TOKEN,
    ],
)
def test_submission_without_a_usable_id_is_unclear(dialect: Dialect, request_id: object) -> None:
    provider, _ = provider_of(dialect, answer(200, dialect.accepted(request_id)))
    with pytest.raises(Unclear, match="without a request id"):
        provider.submit(dialect.endpoint, PAYLOAD)


@each_dialect
@pytest.mark.parametrize(
    ("status", "error"),
    [(200, 401), (200, 402), (200, 429), (200, 500), (429, 429), (500, 500), (503, 503)],
)
def test_error_and_a_request_id_at_once_is_unclear(
    dialect: Dialect, status: int, error: int
) -> None:
    provider, network = provider_of(dialect, answer(status, dialect.error_with_id(error)))
    with pytest.raises(Unclear, match="and a request id"):
        provider.submit(dialect.endpoint, PAYLOAD)
    assert len(network.calls) == 1


@each_dialect
def test_id_may_be_a_number(dialect: Dialect) -> None:
    provider, _ = provider_of(dialect, answer(202, dialect.accepted(7)))
    assert provider.submit(dialect.endpoint, PAYLOAD) == "7"


@each_dialect
@pytest.mark.parametrize(("header", "seconds"), [("17", 17), ("Fri, 20 Nov 2026 12:00:42 GMT", 42)])
def test_refusal_hands_on_retry_after(dialect: Dialect, header: str, seconds: int) -> None:
    provider = dialect.make(
        BASE,
        always,
        transport=httpx.MockTransport(Network([answer(429, {}, Retry_After=header)])),
        clock=lambda: datetime(2026, 11, 20, 12, 0, tzinfo=UTC),
    )
    with pytest.raises(Refusal) as raised:
        provider.submit(dialect.endpoint, PAYLOAD)
    assert raised.value.retry_after_seconds == seconds


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


@each_dialect
def test_rotated_token_is_taken_up_at_once(dialect: Dialect) -> None:
    calls: dict[Read, object] = {_submit: dialect.accepted("r1")}
    calls |= {read: dialect.in_state(_final_state(read)) for read in dialect.reads}
    for call, body in calls.items():
        for rejection in (answer(401, ""), answer(200, dialect.error_in_200(401))):
            provider, network = provider_of(dialect, rejection, answer(200, body), token=Rotated())
            call(provider)
            assert tokens_of(network.calls) == ["old", "new"]


def _submit(provider: Provider) -> object:
    return provider.submit("a/model", PAYLOAD)


@each_dialect
def test_rotated_token_is_tried_once_only(dialect: Dialect) -> None:
    provider, network = provider_of(dialect, answer(401, ""), token=Rotated())
    with pytest.raises(Refusal):
        provider.submit(dialect.endpoint, PAYLOAD)
    assert tokens_of(network.calls) == ["old", "new"]


@each_dialect
def test_submission_that_may_be_accepted_is_not_sent_again_with_a_rotated_token(
    dialect: Dialect,
) -> None:
    provider, network = provider_of(
        dialect, answer(200, dialect.error_with_id(401)), token=Rotated()
    )
    with pytest.raises(Unclear):
        provider.submit(dialect.endpoint, PAYLOAD)
    assert tokens_of(network.calls) == ["old"]


@each_dialect
@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (TokenMissing("No token is stored."), "TokenMissing", False),
        (TokenUnreadable("The token could not be read."), "ProviderUnavailable", True),
    ],
)
def test_without_a_token_nothing_is_sent(
    dialect: Dialect, error: Exception, code: str, again: bool
) -> None:
    def none(*, fresh: bool = False) -> str:
        raise error

    provider, network = provider_of(dialect, answer(200, {}), token=none)
    with pytest.raises(Refusal) as raised:
        provider.submit(dialect.endpoint, PAYLOAD)
    assert (raised.value.code, raised.value.again) == (code, again)
    for read in dialect.reads:
        with pytest.raises(Unreachable):
            read(provider)
    assert not network.calls


# Answers that say nothing about the work

SILENT: list[httpx.Response | Exception] = [
    httpx.ConnectError("no"),
    httpx.ConnectTimeout("no"),
    httpx.ReadTimeout("no"),
    httpx.ReadError("no"),
    httpx.RemoteProtocolError("no"),
    answer(302, "", Location="https://elsewhere.example/"),
    answer(401, {"message": "expired"}),
    answer(402, {"message": "credit"}),
    answer(403, {"message": "not yours"}),
    answer(429, ""),
    answer(500, {"message": "internal"}),
    answer(502, "<html>bad gateway</html>"),
    answer(503, ""),
    answer(504, ""),
    answer(200, ""),
    answer(200, "<html>welcome</html>"),
    answer(200, '{"status": "comp'),
    answer(200, "[" * 100_000),
    answer(200, []),
    answer(200, {}),
]


@each_read
@pytest.mark.parametrize("given", SILENT)
def test_question_without_an_answer_is_no_failed_render(
    dialect: Dialect, read: Read, given: httpx.Response | Exception
) -> None:
    provider, _ = provider_of(dialect, given)
    with pytest.raises(Unreachable, match=dialect.name):
        read(provider)


@each_read
def test_error_or_no_state_inside_a_200_is_no_failed_render(dialect: Dialect, read: Read) -> None:
    no_states: list[object] = [None, ["completed"], {}]
    bodies = [
        *(dialect.error_in_200(status) for status in (401, 402, 429, 500)),
        *(dialect.in_state(state) for state in no_states),
    ]
    provider, network = provider_of(dialect, answer())
    for body in bodies:
        network.answers = [answer(200, body)]
        with pytest.raises(Unreachable, match=dialect.name):
            read(provider)


@each_dialect
@pytest.mark.parametrize("state", ["warming_up", "paused", "success", 7])
def test_unknown_state_counts_as_still_running_and_is_named(dialect: Dialect, state: str) -> None:
    body = dialect.in_state(state)
    assert isinstance(body, dict)
    provider, _ = provider_of(dialect, answer(200, body | {"message": "Wake me."}))
    given = provider.ask(TICKET)
    assert given.state is RenderState.RENDERING
    assert given.message.endswith(f": {state}. Wake me.")


@each_read
@pytest.mark.parametrize("status", [429, 503])
def test_question_hands_on_retry_after(dialect: Dialect, read: Read, status: int) -> None:
    provider, _ = provider_of(dialect, answer(status, "", Retry_After="17"))
    with pytest.raises(Unreachable) as raised:
        read(provider)
    assert raised.value.retry_after_seconds == 17


@each_dialect
@pytest.mark.parametrize("read", [ask, result])
def test_forgotten_request_is_said_to_be_unknown(dialect: Dialect, read: Read) -> None:
    for given in (
        answer(404, {"message": "no"}),
        answer(404, ""),
        answer(410, {"message": "expired"}),
        answer(410, "<html>Gone</html>"),
        answer(200, dialect.error_in_200(404)),
        answer(200, dialect.error_in_200(410)),
    ):
        provider, _ = provider_of(dialect, given)
        with pytest.raises(UnknownRequest):
            read(provider)


# Secrets

# In all their forms in test_provider_words.
ECHOES = [
    f"cannot read '{PRESIGNED}', sorry",
    "cannot read anna marie.png?Signature=5ec7e7",
    f"cannot use {TOKEN}, sorry",
    "x" * 295 + f" {TOKEN}",
    "x" * 290 + f" {PRESIGNED}",
    f"{PRESIGNED} {TOKEN} " * 1000,
]


def shapes(dialect: Dialect, echo: str) -> list[dict[str, Any]]:
    return [
        {"message": echo},
        {"error": {"message": echo}},
        {"detail": [{"loc": ["body", "image_url"], "msg": echo, "input": PRESIGNED}]},
        {"detail": echo, "status": "failed"},
        {"status": echo},
        {"error_code": 422001, "message": echo},
        {"error_code": echo},
        {"status": "in_queue", "queue_position": echo, "request_id": echo},
        {"code": 400, "message": echo, "data": {"id": echo}},
        {"code": echo, "message": echo, "data": {"id": "r1", "status": echo}},
        {"code": 200, "data": {"status": "failed", "code": echo, "error": echo}},
        {"code": 200, "data": {"status": "failed", "error": {"code": 1402, "message": echo}}},
        dialect.failed(echo),  # type: ignore[list-item]
        dialect.in_state(echo),  # type: ignore[list-item]
    ]


@each_dialect
@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("status", [200, 401, 422, 500])
def test_no_secret_that_a_provider_echoes_gets_through(
    dialect: Dialect, echo: str, status: int
) -> None:
    provider, network = provider_of(dialect, answer())
    for body in shapes(dialect, echo):
        network.answers = [answer(status, body)]
        for call in (_submit, *dialect.reads):
            try:
                said = str(call(provider))
            except (RenderLost, Refusal, Unclear, Unreachable, UnknownRequest) as err:
                said = "".join(traceback.format_exception(err))
                assert len(str(err)) < 450
            for secret in ("http:", "https:", TOKEN, "X-Amz-", "5ec7e7"):
                assert secret.lower() not in said.lower()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": bytes,
}


def packed(body: object, *layers: str) -> bytes:
    content = json.dumps(body).encode()
    for layer in layers:
        content = PACKERS[layer](content)
    return content


@each_dialect
@pytest.mark.parametrize(
    ("layers", "is_usable"),
    [
        ((), True),
        (("gzip",), True),
        (("gzip", "gzip"), False),
        (("deflate",), False),
        (("deflate", "gzip"), False),
        (("br",), False),
    ],
)
def test_answer_is_packed_with_one_gzip_or_not_at_all(
    dialect: Dialect, layers: tuple[str, ...], is_usable: bool
) -> None:
    content = packed(dialect.accepted("r1"), *layers)
    provider = served(dialect, content, ", ".join(layers) or "identity")
    if is_usable:
        assert provider.submit(dialect.endpoint, PAYLOAD) == "r1"
    else:
        with pytest.raises(Unclear):
            provider.submit(dialect.endpoint, PAYLOAD)


@each_dialect
def test_packed_answer_is_unpacked_within_a_bound(dialect: Dialect) -> None:
    filler = {"filler": " " * 40_000_000}
    content = packed({**dialect.accepted("r1"), **filler}, "gzip")  # type: ignore[dict-item]
    assert len(content) < 50_000
    provider = served(dialect, content, "gzip")
    tracemalloc.start()
    with pytest.raises(Unclear):
        provider.submit(dialect.endpoint, PAYLOAD)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8_000_000


def served(dialect: Dialect, content: bytes, encoding: str) -> Provider:
    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, stream=httpx.ByteStream(content), headers={"Content-Encoding": encoding}
        )

    return dialect.make(BASE, always, transport=httpx.MockTransport(handle))


@each_dialect
@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadError, httpx.LocalProtocolError])
def test_no_secret_in_an_error_of_the_network(
    dialect: Dialect, error: type[httpx.TransportError]
) -> None:
    words = f"Illegal header value b'Bearer {TOKEN}' for {PRESIGNED}"
    provider, _ = provider_of(dialect, error(words))

    for call in (_submit, *dialect.reads):
        failure = failure_of(lambda call=call: call(provider))  # type: ignore[misc]
        said = "".join(traceback.format_exception(failure))
        assert TOKEN not in said
        assert "X-Amz-" not in said


@each_dialect
def test_url_of_a_result_is_not_in_its_text(dialect: Dialect) -> None:
    url = PRESIGNED.replace(".png", ".mp4")
    provider, _ = provider_of(dialect, answer(200, dialect.completed(url)))
    given = provider.result(TICKET)
    assert given.video_url == url
    assert "5ec7e7" not in f"{given!r} {given}"


@each_dialect
def test_words_keep_what_is_no_secret_and_are_bounded(dialect: Dialect) -> None:
    words = f"\x1b[31mcannot\u202e read {PRESIGNED} with {TOKEN} " + "y" * 9999
    provider, _ = provider_of(dialect, answer(422, {"message": words}))
    with pytest.raises(Refusal) as raised:
        provider.submit(dialect.endpoint, PAYLOAD)
    assert "cannot read (URL removed) with (token removed) yyy" in raised.value.message
    assert raised.value.message.endswith("y…")
    assert raised.value.message.isprintable()
