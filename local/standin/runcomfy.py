"""RunComfy's dialect: the four endpoints of its pages, and its errors."""

import json
from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dropreel.catalog import MODELS, Offer, ProviderName
from dropreel.provider import RenderState
from local.standin.faults import Preset, Stage
from local.standin.inputs import Order
from local.standin.renders import FINAL, Render
from local.standin.server import Standin, video_url

OFFERS: Mapping[str, Offer] = {
    offer.endpoint: offer
    for model in MODELS.values()
    for offer in model.route
    if offer.provider is ProviderName.RUNCOMFY
}

# The options of each page and their values, the default first.
OPTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "wan-ai/wan-2-2/speech-to-video": {
        "style": ("speech", "sing", "perform"),
        "resolution": ("480P", "720P"),
    },
}

STATES = {
    RenderState.QUEUED: "in_queue",
    RenderState.RENDERING: "in_progress",
    RenderState.COMPLETED: "completed",
    RenderState.FAILED: "failed",
    RenderState.CANCELLED: "cancelled",
}

ERRORS: Mapping[int, Mapping[str, JsonValue]] = {
    400: {"message": "Bad request."},
    401: {"error_code": 401001, "message": "The token is missing, invalid or expired."},
    402: {"message": "There is not enough credit for this request."},
    403: {"error_code": 403003, "message": "The request belongs to somebody else."},
    404: {"error_code": 404001, "message": "Not found."},
    422: {
        "error_code": 422001,
        "message": "The body does not fit the schema.",
        "detail": [{"loc": ["body"], "msg": "Value error", "type": "value_error"}],
    },
    429: {"message": "Too many requests."},
    500: {"error_code": 500001, "message": "Internal error."},
}


class RunComfy:
    """Speaks as `https://model-api.runcomfy.net` does."""

    presets: Mapping[str, Preset] = {
        "error_in_200": {"status": 200, "json": dict(ERRORS[500])},
        "unknown_state": {"at": "status", "patch": {"status": "warming_up"}},
        "no_output": {"at": "result", "patch": {"output": {"video": None}}},
        "several_videos": {
            "at": "result",
            "patch": {"output": {"video": None, "videos": ["{video}", "{video}"]}},
        },
        "only_an_image": {
            "at": "result",
            "patch": {"output": {"video": None, "image": "https://example.com/image.png"}},
        },
    }

    def routes(self, standin: Standin) -> list[Route]:
        async def submit(request: Request) -> Response:
            endpoint = request.path_params["endpoint"]
            body = _parsed(await request.body())
            return await standin.submit(
                request,
                endpoint,
                body,
                read_order(endpoint, body),
                lambda render: _accepted(request, render),
            )

        async def status(request: Request) -> Response:
            return await standin.ask(
                request, Stage.STATUS, lambda render: JSONResponse(_status(standin, render))
            )

        async def result(request: Request) -> Response:
            return await standin.ask(
                request, Stage.RESULT, lambda render: _result(standin, request, render)
            )

        async def cancel(request: Request) -> Response:
            def work(render: Render) -> Response:
                standin.renders.cancel(render)
                return JSONResponse(_status(standin, render))

            return await standin.ask(request, Stage.CANCEL, work)

        return [
            Route("/v1/models/{endpoint:path}", submit, methods=["POST"]),
            Route("/v1/requests/{request_id}/status", status),
            Route("/v1/requests/{request_id}/result", result),
            Route("/v1/requests/{request_id}/cancel", cancel, methods=["POST"]),
        ]

    def error(self, status: int) -> Response:
        if status not in ERRORS:  # no answer of the API, but of the gateway before it
            return Response(f"<html>{status}</html>", status, media_type="text/html")
        return JSONResponse(dict(ERRORS[status]), status)


def read_order(endpoint: str, body: object) -> Order | Response:
    """What a submission's body asks for, or the 404 or 422 that it deserves.

    Stricter than the page in one thing: a field that the schema does not know is refused, so
    that no option is ever dropped silently.
    """
    if endpoint not in OFFERS:
        return JSONResponse({**ERRORS[404], "message": "There is no such model."}, 404)
    offer, options = OFFERS[endpoint], OPTIONS.get(endpoint, {})
    if not isinstance(body, dict):
        return _schema_error([_wrong([], "The body must be a JSON object.", "dict_type")])
    urls = (offer.image_field, offer.audio_field)
    wrong = [
        *(_wrong([name], "Field required", "missing") for name in urls if name not in body),
        *(
            found
            for name, value in body.items()
            if (found := _wrong_field(name, value, urls, options)) is not None
        ),
    ]
    if wrong:
        return _schema_error(wrong)
    return Order(
        offer=offer,
        image_url=body[offer.image_field],
        audio_url=body[offer.audio_field],
        resolution=body.get("resolution", options.get("resolution", ("480P",))[0]),
    )


def _wrong_field(
    name: str, value: object, urls: tuple[str, ...], options: Mapping[str, tuple[str, ...]]
) -> Mapping[str, object] | None:
    if name not in (*urls, *options):
        return _wrong([name], "Extra inputs are not permitted", "extra_forbidden")
    if not isinstance(value, str):
        return _wrong([name], "Input should be a valid string", "string_type")
    if name in urls and not value.startswith(("https://", "http://")):
        return _wrong([name], "Input should be a valid URL", "url_parsing")
    if name in options and value not in options[name]:
        return _wrong([name], f"Input should be one of {', '.join(options[name])}", "enum")
    return None


def _wrong(where: list[str], message: str, kind: str) -> Mapping[str, object]:
    return {"loc": ["body", *where], "msg": message, "type": kind}


def _schema_error(wrong: list[Mapping[str, object]]) -> Response:
    return JSONResponse({**ERRORS[422], "detail": wrong}, 422)


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _accepted(request: Request, render: Render) -> Response:
    base = f"{request.base_url}v1/requests/{render.id}"
    return JSONResponse(
        {
            "request_id": render.id,
            "status_url": f"{base}/status",
            "result_url": f"{base}/result",
            "cancel_url": f"{base}/cancel",
        }
    )


def _status(standin: Standin, render: Render) -> dict[str, object]:
    answer: dict[str, object] = {"request_id": render.id, "status": STATES[render.state]}
    if render.state is RenderState.QUEUED:
        answer["queue_position"] = standin.renders.queue_position(render)
    return answer


def _result(standin: Standin, request: Request, render: Render) -> Response:
    answer = _status(standin, render)
    if render.state in FINAL:
        answer["created_at"] = render.created_at.isoformat()
        answer["finished_at"] = _iso(render.finished_at)
    if render.state is RenderState.COMPLETED:
        # The status calls it completed; the result of a completed one, succeeded.
        answer["status"] = "succeeded"
        answer["output"] = {"video": video_url(request, render)}
    if render.state is RenderState.FAILED:
        answer["error"] = render.error
    return JSONResponse(answer)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
