"""RunComfy's dialect: what is not the same for every provider (see test_provider_http)."""

from contextlib import suppress
from typing import Any

import httpx
import pytest

from dropreel.model.provider import (
    Answer,
    Provider,
    Refusal,
    RenderLost,
    RenderState,
    Result,
    Unclear,
    UnknownRequest,
    Unreachable,
)
from tests.support.provider_dialects import PAYLOAD, RUNCOMFY, TICKET, Network, answer, provider_of

ENDPOINT = RUNCOMFY.endpoint


def runcomfy(*answers: httpx.Response | Exception) -> tuple[Provider, Network]:
    return provider_of(RUNCOMFY, *answers)


# What a submission's answer means


@pytest.mark.parametrize(
    ("error_code", "code"), [("402001", "NoCredit"), (429, "ProviderThrottled")]
)
def test_error_code_may_be_text_or_a_status(error_code: object, code: str) -> None:
    with pytest.raises(Refusal) as raised:
        runcomfy(answer(200, {"error_code": error_code}))[0].submit(ENDPOINT, PAYLOAD)
    assert raised.value.code == code


@pytest.mark.parametrize("code", [1200, "E_INTERNAL"])
def test_other_error_code_inside_a_200_is_unclear(code: object) -> None:
    with pytest.raises(Unclear):
        runcomfy(answer(200, {"error_code": code}))[0].submit(ENDPOINT, PAYLOAD)


@pytest.mark.parametrize(
    "body",
    [
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
        ("waiting", RenderState.QUEUED),
        ("starting", RenderState.QUEUED),
        ("error", RenderState.FAILED),
        ("timeout", RenderState.FAILED),
        ("expired", RenderState.FAILED),
        ("rejected", RenderState.FAILED),
        (" In-Progress ", RenderState.RENDERING),
        ("COMPLETED", RenderState.COMPLETED),
    ],
)
def test_states(status: str, state: RenderState) -> None:
    provider, _ = runcomfy(answer(200, {"request_id": "r1", "status": status}))
    assert provider.ask(TICKET).state is state


@pytest.mark.parametrize("result", [answer(404, ""), answer(200, {"status": "expired"})])
def test_failed_render_without_words_names_its_state(result: httpx.Response) -> None:
    provider, _ = runcomfy(answer(200, {"status": "Expired"}), result)
    assert provider.ask(TICKET).message == "RunComfy gives no reason but the state expired."


@pytest.mark.parametrize(
    "fields",
    [
        {"error_code": 401001},
        {"error_code": 429001, "message": "slow down"},
        {"error_code": 404001},
        {"message": "Result is not ready yet"},
        {"error": {"message": "Output video not available"}},
        {"message": "Result not ready, try again."},
        {"message": "The request is not complete yet"},
        {"error": "output video not available yet"},
        {"error": "Result not ready", "message": "Result not ready"},
        {"code": "RESULT_NOT_READY", "message": "Result is not ready"},
        {"message": "Result is not ready yet. Please poll again later."},
        {"message": "The request is still in progress, result not ready"},
        {"message": "Request is not completed, please wait"},
        {"error_code": "409001", "message": "Job still running. Result not ready."},
    ],
)
def test_error_of_the_call_itself_is_no_failed_render(fields: dict[str, Any]) -> None:
    provider, _ = runcomfy(answer(200, {"status": "error", **fields}))
    with suppress(Unreachable, UnknownRequest):
        assert provider.ask(TICKET).state is RenderState.RENDERING
    with pytest.raises((Unreachable, UnknownRequest)):
        provider.result(TICKET)


VAGUE_ERRORS: list[dict[str, Any]] = [
    {"error_code": 500001, "message": "Internal server error"},
    {"error_code": 503001},
    {"error_code": "InternalError"},
    {"code": "InternalError", "message": "oom"},
]


@pytest.mark.parametrize("result", [answer(404, ""), answer(500, {}), answer(400, {})])
def test_words_about_the_files_are_a_failed_render_whatever_the_code(
    result: httpx.Response,
) -> None:
    flagged = {"error_code": "internal_policy_violation", "message": "Your image was flagged"}
    provider, _ = runcomfy(answer(200, {"status": "error", **flagged}), result)

    told = provider.ask(TICKET)

    assert (told.state, told.cause) == (RenderState.FAILED, "moderated")


@pytest.mark.parametrize("fields", VAGUE_ERRORS)
@pytest.mark.parametrize(
    ("given", "state"),
    [
        ({"status": "in_progress"}, RenderState.RENDERING),
        ({"output": {"video": "https://cdn.example/1.mp4"}}, RenderState.COMPLETED),
        ({"status": "failed", "error": "oom"}, RenderState.FAILED),
        ({"status": "error", "error_code": 500001, "message": "oom"}, RenderState.FAILED),
    ],
)
def test_error_that_can_be_the_servers_is_a_failed_render_if_the_result_says_so(
    fields: dict[str, Any], given: dict[str, Any], state: RenderState
) -> None:
    provider, _ = runcomfy(answer(200, {"status": "error", **fields}), answer(200, given))
    assert provider.ask(TICKET).state is state


@pytest.mark.parametrize("fields", VAGUE_ERRORS)
@pytest.mark.parametrize("given", [answer(500, {}), answer(404, ""), httpx.ReadTimeout("no")])
def test_error_that_can_be_the_servers_is_no_failed_render_without_a_result(
    fields: dict[str, Any], given: httpx.Response | Exception
) -> None:
    provider, _ = runcomfy(answer(200, {"status": "error", **fields}), given)
    with pytest.raises(Unreachable):
        provider.ask(TICKET)


@pytest.mark.parametrize(
    "words",
    [
        "Request failed: face not found",
        "video not available: content policy",
        "The video was not completed: CUDA out of memory",
    ],
)
def test_error_of_the_render_is_none_of_the_call(words: str) -> None:
    provider, _ = runcomfy(answer(200, {"status": "error", "message": words}))
    assert provider.ask(TICKET).state is RenderState.FAILED


def test_answer_says_the_place_in_the_queue() -> None:
    provider, _ = runcomfy(answer(200, {"status": "in_queue", "queue_position": 3}))
    assert provider.ask(TICKET).message == "Position 3 in the queue."


@pytest.mark.parametrize(
    ("status_body", "result", "message"),
    [
        ({}, answer(200, {"status": "failed", "error": "face not found"}), "face not found"),
        ({"status": "error"}, answer(200, {"status": "error", "error": "oom"}), "oom"),
        ({"status": "rejected", "message": "no"}, answer(500, ""), "no"),
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
def test_failed_render_says_why(
    status_body: dict[str, Any], result: httpx.Response | Exception, message: str
) -> None:
    provider, _ = runcomfy(answer(200, {"status": "failed", **status_body}), result)
    told = provider.ask(TICKET)
    assert (told.state, told.message) == (RenderState.FAILED, message)


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
        ({"output": {"image": "https://cdn.example/1", "images": ["https://a/2.png"]}}, None),
        # ComfyUI lists a node's videos among its images.
        ({"output": {"images": [TWO]}}, TWO),
        ({"output": {}, "status_url": "https://a/requests/r1", "error": {"url": ONE}}, None),
        ({"output": {}}, None),
        ({"output": None, "status": "completed"}, None),
        ({"output": {"video": 7, "videos": ONE}}, ONE),
        ({"status": "completed"}, None),
        ({"status": "succeeded", "message": "done", "output": {}}, None),
    ],
)
def test_first_video_of_a_result(body: object, url: str | None) -> None:
    provider, _ = runcomfy(answer(200, body))
    assert provider.result(TICKET) == Result(video_url=url)


@pytest.mark.parametrize("status", ["in_queue", "in_progress"])
@pytest.mark.parametrize("output", [{}, {"output": {"video": ONE}}, {"output": None}])
def test_result_of_a_render_that_goes_on_is_not_taken(status: str, output: dict[str, Any]) -> None:
    provider, _ = runcomfy(answer(200, {"status": status, **output}))
    with pytest.raises(Unreachable, match="not complete"):
        provider.result(TICKET)


# All of RunComfy's own clients take the outcome from the result.


@pytest.mark.parametrize(
    ("result", "state", "cause"),
    [
        ({"status": "succeeded", "output": {"video": ONE}}, "completed", "other"),
        ({"output": {"video": ONE}}, "completed", "other"),
        ({"status": "in_progress"}, "rendering", "other"),
        ({"status": "in_queue"}, "queued", "other"),
        ({"status": "failed", "error": "The GPU went away"}, "failed", "other"),
        (
            {"status": "failed", "error": "The file could not be fetched."},
            "failed",
            "media unreadable",
        ),
        ({"status": "failed", "error_message": "DataInspectionFailed"}, "failed", "moderated"),
        ({"status": "failed", "error": {"details": "nsfw"}}, "failed", "moderated"),
        ({"status": "failed", "error": {"error_message": "no face"}}, "failed", "bad input"),
        ({"status": "failed"}, "failed", "other"),
        ({"status": "error", "error": "The GPU went away"}, "failed", "other"),
        ({"status": "error", "error_code": 500001, "message": "oom"}, "failed", "other"),
        ({"status": "rejected", "message": "no face"}, "failed", "bad input"),
        ({"status": "failed", "output": {"video": ONE}}, "failed", "other"),
        ({"status": "succeeded", "output": {}, "error": "flagged"}, "failed", "moderated"),
        (
            {"status": "completed", "error": "flagged", "payload": {"audio": "https://s3/a.mp4"}},
            "failed",
            "moderated",
        ),
        ({"error_code": 422003, "error_message": "flagged as unsafe"}, "failed", "moderated"),
        ({"error_code": 500001, "error_message": "content policy"}, "failed", "moderated"),
        ({"error_code": "DataInspectionFailed"}, "failed", "moderated"),
        ({"status": "cancelled"}, "cancelled", "other"),
    ],
)
def test_outcome_of_a_render_is_what_its_result_says(
    result: dict[str, Any], state: str, cause: str
) -> None:
    provider, network = runcomfy(answer(200, {"status": "completed"}), answer(200, result))
    told = provider.ask(TICKET)
    assert (told.state, told.cause) == (state, cause)
    assert len(network.calls) == 2

    provider, _ = runcomfy(answer(200, result))
    if state in ("failed", "cancelled"):
        with pytest.raises(RenderLost) as lost:
            provider.result(TICKET)
        assert lost.value.answer == told
    elif state in ("queued", "rendering"):
        with pytest.raises(Unreachable):
            provider.result(TICKET)
    else:
        assert provider.result(TICKET).video_url == ONE


@pytest.mark.parametrize(
    "result",
    [
        answer(200, {}),
        answer(200, {"error_code": 401001, "message": "Your account was flagged"}),
        answer(200, {"error_code": 429001, "message": "flagged: slow down"}),
        answer(200, {"error": "Result not ready, try again"}),
        answer(200, {"status": "completed", "output": {}, "error": "could not sign the URL"}),
        answer(422, {"detail": "Output video not found yet"}),
        answer(410, {"message": "video file missing"}),
        answer(404, ""),
        answer(500, {"message": "internal"}),
        answer(503, {"message": "the safety system is down"}),
        httpx.ReadTimeout("no"),
    ],
)
def test_result_that_says_nothing_of_the_render_is_left_to_deliver(
    result: httpx.Response | Exception,
) -> None:
    provider, _ = runcomfy(answer(200, {"status": "completed"}), result)
    assert provider.ask(TICKET) == Answer(state=RenderState.COMPLETED)

    provider, _ = runcomfy(result)
    with pytest.raises((Unreachable, UnknownRequest)):
        provider.result(TICKET)


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
    assert provider.cancel(TICKET) is True
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
    assert provider.cancel(TICKET) is cancelled
    assert [call.method for call in network.calls] == ["POST", "GET"]


def test_nothing_can_be_deleted_and_nobody_is_asked() -> None:
    provider, network = runcomfy(answer(200, {}))
    assert provider.forget(TICKET) is False
    assert not network.calls


# What it cost


@pytest.mark.parametrize(
    ("cost", "usd"),
    [
        (0.21, 0.21),
        ("0.21", 0.21),
        (0, None),
        (None, None),
        (-1, None),
        (True, None),
        ("free", None),
        ("Infinity", None),
        ({"amount": 1}, None),
    ],
)
def test_result_says_what_was_charged_and_only_deliver_asks(
    cost: object, usd: float | None
) -> None:
    done = {"status": "completed", "output": {"video": "https://cdn.example/1.mp4"}, "cost": cost}
    provider, network = runcomfy(answer(200, done))

    assert provider.result(TICKET).actual_usd == usd
    provider.ask(TICKET)
    assert provider.cost(TICKET) is None
    asked = [call.url.query for call in network.calls]
    assert asked == [b"include_cost=true", b"", b""]
