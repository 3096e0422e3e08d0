"""WaveSpeed's dialect: what is not the same for every provider (see test_provider_http)."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from dropreel.model.provider import (
    FailureCause,
    Lookup,
    Provider,
    Refusal,
    RenderLost,
    RenderState,
    Result,
    Unclear,
    UnknownRequest,
    Unreachable,
)
from tests.support.provider_dialects import PAYLOAD, TICKET, WAVESPEED, Network, answer, provider_of

ENDPOINT = WAVESPEED.endpoint
ONE, TWO = "https://cdn.example/1.mp4?s=1", "https://cdn.example/2.mp4?s=2"


def wavespeed(*answers: httpx.Response | Exception) -> tuple[Provider, Network]:
    return provider_of(WAVESPEED, *answers)


def task(**fields: object) -> dict[str, Any]:
    """An answer in its envelope."""
    return {"code": 200, "message": "success", "data": {"id": "r1", **fields}}


# What a submission's answer means


@pytest.mark.parametrize(
    "body",
    [
        task(status="created"),
        task(status="created", code=0, error="", outputs=[], has_nsfw_contents=[]),
        task(status="warming_up", surprise={}),
        task(),
        {"data": {"id": "r1"}},
        {"code": 0, "message": "", "data": {"id": "r1"}},
        {"code": "200", "data": {"id": "r1"}},
        {"code": 201, "data": {"id": "r1"}},
        {"id": "r1", "status": "created", "code": 0},
        # Accepted, and failed at once: the next question tells.
        task(status="failed", code=1200, error="sensitive"),
        {"id": "r1", "status": "failed", "code": 1402, "error": "no"},
    ],
)
def test_accepting_answer_is_read_leniently(body: object) -> None:
    assert wavespeed(answer(200, body))[0].submit(ENDPOINT, PAYLOAD) == "r1"


@pytest.mark.parametrize(
    ("body", "code", "again"),
    [
        ({"code": 400, "message": "bad"}, "RequestRefused", False),
        ({"code": "402", "message": "credit"}, "NoCredit", False),
        ({"code": 400, "message": "Insufficient credits."}, "NoCredit", False),
        ({"code": 403, "data": {}}, "TokenRejected", False),
        ({"code": 404, "data": {"id": ""}}, "RequestRefused", False),
        ({"code": 429, "data": None}, "ProviderThrottled", True),
        ({"code": 1200, "message": "sensitive"}, "RenderModerated", False),
        ({"code": 1400, "message": "image is required"}, "RequestRefused", False),
        ({"code": 200, "data": {"code": 1401, "error": "style"}}, "RequestRefused", False),
        ({"code": 200, "data": {"code": "1402", "error": "no"}}, "RequestRefused", False),
    ],
)
def test_error_inside_a_200_is_a_definite_refusal(body: object, code: str, again: bool) -> None:
    provider, network = wavespeed(answer(200, body))
    with pytest.raises(Refusal) as raised:
        provider.submit(ENDPOINT, PAYLOAD)
    assert (raised.value.code, raised.value.again) == (code, again)
    assert len(network.calls) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"code": 504},
        {"code": 302},
        {"code": -1},
        {"code": "E_INTERNAL"},
        {"code": 1403},
        {"code": 1405},
        {"code": 5000},
        {"code": 5003},
        {"code": 200, "data": {"code": 5004, "error": "timeout"}},
        {"code": 9999},
        {"code": 200, "message": "success", "data": None},
        {"code": 200, "message": "success", "data": "r1"},
        {"code": "E_INTERNAL", "data": {"id": "r1"}},
    ],
)
def test_other_error_inside_a_200_is_unclear(body: object) -> None:
    provider, network = wavespeed(answer(200, body))
    with pytest.raises(Unclear):
        provider.submit(ENDPOINT, PAYLOAD)
    assert len(network.calls) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"code": 400, "message": "image is required"}, "image is required"),
        ({"code": 400, "message": "Bad.", "data": {"error": "no image"}}, "no image - Bad."),
        ({"code": 400, "message": {"message": "too much"}}, "too much"),
    ],
)
def test_refusal_says_the_providers_words(body: object, words: str) -> None:
    with pytest.raises(Refusal) as raised:
        wavespeed(answer(400, body))[0].submit(ENDPOINT, PAYLOAD)
    assert raised.value.message == f"WaveSpeed refused the request (400): {words}"


# How far a render is


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("created", RenderState.QUEUED),
        ("processing", RenderState.RENDERING),
        ("completed", RenderState.COMPLETED),
        ("failed", RenderState.FAILED),
        ("timeout", RenderState.FAILED),
        ("cancelled", RenderState.CANCELLED),
        ("canceled", RenderState.CANCELLED),
        ("deleted", RenderState.CANCELLED),
        (" Processing ", RenderState.RENDERING),
        ("COMPLETED", RenderState.COMPLETED),
    ],
)
def test_states(status: str, state: RenderState) -> None:
    assert wavespeed(answer(200, task(status=status)))[0].ask(TICKET).state is state


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (task(code=1200), FailureCause.MODERATED),
        (task(code=1400), FailureCause.BAD_INPUT),
        (task(code=1401), FailureCause.BAD_INPUT),
        (task(code=1402), FailureCause.MEDIA_UNREADABLE),
        (task(code=1403), FailureCause.OTHER),
        (task(code=1405), FailureCause.OTHER),
        (task(code=5000), FailureCause.OTHER),
        (task(code=5003), FailureCause.OTHER),
        (task(code=5004), FailureCause.OTHER),
        (task(code="1402"), FailureCause.MEDIA_UNREADABLE),
        (task(error={"code": 1402, "message": "no"}), FailureCause.MEDIA_UNREADABLE),
        (task(error="code: 1200, sensitive"), FailureCause.MODERATED),
        (task(error="[1401] prompt"), FailureCause.BAD_INPUT),
        (task(error="1402: no"), FailureCause.MEDIA_UNREADABLE),
        (task() | {"code": 1402}, FailureCause.MEDIA_UNREADABLE),
        (task() | {"code": 500}, FailureCause.OTHER),
        ({"data": {"id": "r1", "code": 1200}}, FailureCause.MODERATED),
        # Where the code says no cause, the words do.
        (task(code=1402, error="flagged as unsafe"), FailureCause.MEDIA_UNREADABLE),
        (task(code=1405, error="flagged as unsafe"), FailureCause.MODERATED),
        (task(code=1499, error="flagged as unsafe"), FailureCause.MODERATED),
        (task(error="Failed to download image from the URL."), FailureCause.MEDIA_UNREADABLE),
        (task(error="1200 x 900 pixels could not be painted"), FailureCause.OTHER),
        (task(code=0, error="oom"), FailureCause.OTHER),
        (task(), FailureCause.OTHER),
    ],
)
def test_cause_of_a_failed_render(body: dict[str, Any], cause: FailureCause) -> None:
    body["data"]["status"] = "failed"
    told = wavespeed(answer(200, body))[0].ask(TICKET)
    assert (told.state, told.cause) == (RenderState.FAILED, cause)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (task(status="failed", error="face not found"), "face not found"),
        (task(status="failed", error={"message": "oom"}), "oom"),
        (task(status="failed", error="oom", code=1405), "oom (code 1405)"),
        (task(status="failed", error="1405: oom", code=1405), "1405: oom"),
        (task(status="failed", code=5000), "WaveSpeed gives no reason. (code 5000)"),
        (task(status="failed", error=""), "WaveSpeed gives no reason."),
        (task(status="failed", error=None) | {"message": "oom"}, "oom"),
        (task(status="timeout"), "It took too long at WaveSpeed."),
        ({"status": "failed", "code": 1402, "error": "no image"}, "no image (code 1402)"),
    ],
)
def test_failed_render_says_why(body: object, message: str) -> None:
    told = wavespeed(answer(200, body))[0].ask(TICKET)
    assert (told.state, told.message) == (RenderState.FAILED, message)


@pytest.mark.parametrize("body", [task(code=1402), task() | {"code": 1402}, task() | {"code": 500}])
def test_error_without_a_state_is_no_failed_render(body: object) -> None:
    with pytest.raises(Unreachable):
        wavespeed(answer(200, body))[0].ask(TICKET)


@pytest.mark.parametrize(
    "words",
    [
        "prediction not found",
        "Not found.",
        "The task r1 does not exist",
        "failed to get prediction: record not found",
        "This prediction has been deleted.",
        "no such task",
        "prediction could not be found",
        "no prediction with id x",
        "prediction has expired",
        "Task abc123 not found",
        "task does not exist",
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_400_that_says_not_found_means_a_forgotten_request(words: str, status: int) -> None:
    provider, _ = wavespeed(answer(status, {"code": 400, "message": words, "data": None}))
    for question in (provider.ask, provider.result):
        with pytest.raises(UnknownRequest):
            question(TICKET)


@pytest.mark.parametrize(
    "words",
    [
        "task r1: image file not found",
        "bad request",
        "invalid id",
        "",
        "Request failed: picture not found",
        "request failed: image_url not found",
        "Invalid request: parameter resolution not found",
        "Invalid request: input photo not found",
        "request body field audio_url not found",
        "lora with id 5 not found",
        "Model id not found",
        "task input not found",
    ],
)
def test_other_400_is_no_forgotten_request(words: str) -> None:
    with pytest.raises(Unreachable):
        wavespeed(answer(400, {"code": 400, "message": words}))[0].ask(TICKET)


@pytest.mark.parametrize("data", [{"id": "r1"}, {"status": "failed"}])
def test_400_with_the_task_in_it_is_no_forgotten_request(data: dict[str, str]) -> None:
    body = {"code": 400, "message": "prediction not found", "data": data}
    with pytest.raises(Unreachable):
        wavespeed(answer(400, body))[0].ask(TICKET)


# Where the video is


@pytest.mark.parametrize(
    ("outputs", "url"),
    [
        ([ONE], ONE),
        ([TWO, ONE], TWO),
        ([None, "", TWO], TWO),
        ([{"url": ONE}], ONE),
        (["https://cdn.example/cover.PNG?s=1", ONE], ONE),
        (["https://cdn.example/output/7?name=a.png"], "https://cdn.example/output/7?name=a.png"),
        (["https://[broken"], "https://[broken"),
        (["https://cdn.example/cover.png"], None),
        ([], None),
        (None, None),
        ([7], None),
    ],
)
def test_first_output_that_can_be_a_video(outputs: object, url: str | None) -> None:
    provider, _ = wavespeed(answer(200, task(status="completed", outputs=outputs)))
    assert provider.result(TICKET) == Result(video_url=url)


@pytest.mark.parametrize(
    ("told", "nsfw"),
    [
        ([False], False),
        ([True], True),
        ([False, True], True),
        ([], None),
        (None, None),
        ([None], None),
        (["true"], None),
        (True, None),
    ],
)
def test_nsfw_is_what_the_detector_says(told: object, nsfw: bool | None) -> None:
    body = task(status="completed", outputs=[ONE], has_nsfw_contents=told)
    assert wavespeed(answer(200, body))[0].result(TICKET) == Result(video_url=ONE, nsfw=nsfw)


@pytest.mark.parametrize("status", ["created", "processing"])
@pytest.mark.parametrize("outputs", [[], [ONE]])
def test_result_of_a_render_that_goes_on_is_not_taken(status: str, outputs: list[str]) -> None:
    provider, _ = wavespeed(answer(200, task(status=status, outputs=outputs)))
    with pytest.raises(Unreachable, match="not complete"):
        provider.result(TICKET)


@pytest.mark.parametrize("status", ["warming_up", None])
def test_result_without_a_known_state_counts_when_it_has_outputs(status: str | None) -> None:
    provider, _ = wavespeed(answer(200, task(status=status, outputs=[ONE])))
    assert provider.result(TICKET).video_url == ONE


@pytest.mark.parametrize("status", ["failed", "deleted", "timeout", "cancelled"])
def test_result_of_a_render_that_is_gone_says_so(status: str) -> None:
    provider, _ = wavespeed(answer(200, task(status=status)))
    with pytest.raises(RenderLost) as lost:
        provider.result(TICKET)
    assert lost.value.answer == provider.ask(TICKET)


# Cancelling


def test_nothing_can_be_cancelled_and_nobody_is_asked() -> None:
    provider, network = wavespeed(answer(200, task(status="cancelled")))
    assert provider.cancel(TICKET) is False
    assert not network.calls


# The list


SINCE = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
UNTIL = SINCE + timedelta(minutes=6)
URLS = [f"https://s3.example/work/{name}?versionId=v-{name}&X-Amz-Signature=1" for name in "ab"]


def listed(request_id: str = "r1", **fields: object) -> dict[str, object]:
    """An item with our files, signed at another time."""
    a, b = (url.replace("Signature=1", "Signature=2") for url in URLS)
    inputs = {"image": a, "audio": b, "seed": -1}
    created_at = "2026-11-20T12:00:01.948268264Z"
    return {"id": request_id, "created_at": created_at, "inputs": inputs, **fields}


def page(*items: object, **fields: object) -> httpx.Response:
    data = {"page": 1, "total": len(items), "items": items}
    return answer(200, {"code": 200, "message": "success", "data": data, **fields})


def find(provider: Provider) -> Lookup:
    return provider.find(ENDPOINT, URLS, SINCE, UNTIL, {"r0"})


def test_list_is_asked_for_the_endpoint_and_the_time() -> None:
    provider, network = wavespeed(page())

    assert find(provider) == Lookup(listed=0, readable=0)

    [call] = network.calls
    assert (call.method, call.url.path) == ("POST", "/api/v3/predictions")
    assert json.loads(call.content) == {
        "page": 1,
        "page_size": 100,
        "model": ENDPOINT,
        "created_after": "2026-11-20T12:00:00+00:00",
        "created_before": "2026-11-20T12:06:00+00:00",
    }


@pytest.mark.parametrize(
    "item",
    [
        listed(),
        listed(status="failed", model=ENDPOINT),
        listed(created_at=None),
        listed(created_at="yesterday"),
        listed(created_at="2026-11-20T12:00:01"),
        listed(inputs=None, input=listed()["inputs"]),
    ],
)
def test_request_with_all_our_files_is_found(item: object) -> None:
    provider, _ = wavespeed(page("?", listed("r0"), {"id": 7}, item))

    assert find(provider).request_id == "r1"


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (listed(inputs={"image": URLS[0]}), Lookup(listed=1, readable=1)),
        (listed(inputs=None), Lookup(listed=1, readable=0)),
        (listed(inputs={}), Lookup(listed=1, readable=0)),
        (
            listed(inputs=[url.replace("versionId", "v") for url in URLS]),
            Lookup(listed=1, readable=0),
        ),
        (listed(inputs={"image": "https://s3.example/other.png"}), Lookup(listed=1, readable=1)),
        (listed("r0"), Lookup(listed=1, readable=1)),
        (listed("../r1"), Lookup(listed=1, readable=1)),
        (listed(created_at="2026-11-20T11:59:59Z"), Lookup(listed=0, readable=0)),
        (listed(created_at="2026-11-20T12:06:01Z"), Lookup(listed=0, readable=0)),
    ],
)
def test_other_requests_are_not_taken_for_ours(item: object, found: Lookup) -> None:
    assert find(wavespeed(page(item))[0]) == found


def test_without_files_to_compare_nothing_is_found() -> None:
    provider, _ = wavespeed(page(listed()))

    assert provider.find(ENDPOINT, [], SINCE, UNTIL, ()).request_id is None


def test_large_page_of_the_list_is_read() -> None:
    other = listed("r2", inputs={"image": "data:image/png;base64," + "A" * 1_100_000})

    assert find(wavespeed(page(other, listed()))[0]).request_id == "r1"


@pytest.mark.parametrize("model", [None, ENDPOINT.upper(), "Wan 2.2 Speech To Video"])
def test_request_with_our_files_is_ours_however_the_list_calls_its_model(model: object) -> None:
    provider, _ = wavespeed(page(listed(model=model)))

    assert find(provider).request_id == "r1"


def test_list_is_read_page_after_page_up_to_a_bound() -> None:
    full = page(*[{"id": str(number)} for number in range(100)])
    provider, network = wavespeed(full, page(listed()))
    assert find(provider).request_id == "r1"
    assert [json.loads(call.content)["page"] for call in network.calls] == [1, 2]

    provider, network = wavespeed(full)
    assert find(provider) == Lookup(listed=500, readable=0, read_of_more=500)
    assert len(network.calls) == 5


@pytest.mark.parametrize(
    "unusable",
    [
        httpx.ReadTimeout("slow"),
        answer(503),
        answer(404, {"code": 404, "message": "no"}),
        answer(200, {"code": 500, "message": "no"}),
        answer(200, "<html>"),
        answer(200, {"code": 200, "data": {"items": None}}),
    ],
)
def test_list_without_an_answer_finds_nothing(unusable: httpx.Response | Exception) -> None:
    with pytest.raises(Unreachable):
        find(wavespeed(unusable)[0])


# Deleting a record


@pytest.mark.parametrize(
    "given",
    [
        answer(200, {"code": 200, "message": "success", "data": {"deleted_count": 1}}),
        answer(200, {"code": 200, "data": None}),
        answer(204, ""),
        answer(404, {"message": "prediction not found"}),
        answer(400, {"code": 400, "message": "prediction not found"}),
    ],
)
def test_record_is_deleted_by_its_id(given: httpx.Response) -> None:
    provider, network = wavespeed(given)

    assert provider.forget(TICKET) is True

    (call,) = network.calls
    assert (call.method, call.url.path) == ("POST", "/api/v3/predictions/delete")
    assert json.loads(call.content) == {"ids": ["r1"]}


def test_record_that_was_not_deleted_is_not_said_to_be() -> None:
    nothing = answer(200, {"code": 200, "message": "success", "data": {"deleted_count": 0}})

    assert wavespeed(nothing)[0].forget(TICKET) is False


@pytest.mark.parametrize(
    "given",
    [
        answer(500, ""),
        answer(403, {"message": "no"}),
        answer(200, {"code": 500, "message": "internal"}),
        httpx.ReadTimeout("no"),
    ],
)
def test_record_that_is_not_deleted_is_an_error(given: httpx.Response | Exception) -> None:
    with pytest.raises(Unreachable):
        wavespeed(given)[0].forget(TICKET)


# What it cost


def bill(
    price: object, uuid: str = "r1", billing_type: str = "deduct", state: str = "done"
) -> dict[str, object]:
    return {
        "billing_type": billing_type,
        "price": price,
        "order": {"state": state, "price": price},
        "prediction": {"uuid": uuid},
    }


@pytest.mark.parametrize(
    ("items", "usd"),
    [
        ([bill(0.15)], 0.15),
        ([bill("0.15")], 0.15),
        ([bill(0)], 0),
        ([bill(0.1), bill(0.2)], 0.3),
        ([bill(9, uuid="r2"), bill(0.15)], 0.15),
        ([bill(9, uuid="r2")], None),
        ([], None),
        (None, None),
        ([bill(0.15), bill(0.15, billing_type="refund")], None),
        ([bill(0.15, state="pre")], None),
        ([bill(0.15, state="")], 0.15),
        ([bill(0.15), bill(None)], None),
        ([bill(-1)], None),
        ([bill("NaN")], None),
        ([bill(True)], None),
        ([{"price": 0.15}, {"price": 0.15, "prediction": "r1"}], None),
    ],
)
def test_cost_is_the_sum_of_the_bills_of_this_prediction(items: object, usd: float | None) -> None:
    provider, network = wavespeed(answer(200, {"code": 200, "data": {"items": items}}))

    assert provider.cost(TICKET) == usd
    (call,) = network.calls
    assert (call.method, call.url.path) == ("POST", "/api/v3/billings/search")
    assert json.loads(call.content)["prediction_uuids"] == ["r1"]


@pytest.mark.parametrize(
    "failed", [answer(500), answer(200, {"code": 404, "message": "no"}), httpx.ReadTimeout("late")]
)
def test_cost_without_an_answer_is_asked_for_once(failed: httpx.Response | Exception) -> None:
    provider, network = wavespeed(failed)

    with pytest.raises(Unreachable):
        provider.cost(TICKET)
    assert len(network.calls) == 1
