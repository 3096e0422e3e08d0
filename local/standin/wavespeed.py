"""WaveSpeed's dialect: one endpoint to submit, one to ask, and every answer in an envelope."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dropreel.model.provider import FailureCause, RenderState
from local.standin.faults import Preset, Stage
from local.standin.orders import Order, Wrong, offers_of, read_order
from local.standin.renders import FINAL, Render
from local.standin.server import Dialect, Standin, parsed, video_url

OFFERS = offers_of("wavespeed")

STATES = {
    RenderState.QUEUED: "created",
    RenderState.RENDERING: "processing",
    RenderState.COMPLETED: "completed",
    RenderState.FAILED: "failed",
}

# WaveSpeedAI: Error Codes
MISSING_PARAMETER, INVALID_PARAMETER = 1400, 1401
CODES = {
    FailureCause.MODERATED: 1200,
    FailureCause.BAD_INPUT: INVALID_PARAMETER,
    FailureCause.MEDIA_UNREADABLE: 1402,
    FailureCause.OTHER: 1405,
}

ERRORS: Mapping[int, str] = {
    400: "Bad request.",
    401: "Invalid authentication. Please check your API key.",
    402: "Insufficient credits. Please top up.",
    403: "Access denied.",
    404: "Not found.",
    429: "Too many requests.",
    500: "Internal error.",
}


class WaveSpeed(Dialect):
    """Speaks as `https://api.wavespeed.ai` does."""

    presets: Mapping[str, Preset] = {
        "error_in_200": {"status": 200, "json": {"code": 500, "message": ERRORS[500]}},
        "unknown_state": {"at": "status", "patch": {"data": {"status": "warming_up"}}},
        "nsfw": {"at": "render", "nsfw": True},
        # For ever, because the state and the result of a completed task have one endpoint.
        "timed_out": {
            "at": "result",
            "times": None,
            "patch": {"data": {"status": "timeout", "outputs": []}},
        },
        "deleted": {
            "at": "result",
            "times": None,
            "patch": {"data": {"status": "deleted", "outputs": []}},
        },
        "no_output": {"at": "result", "times": None, "patch": {"data": {"outputs": []}}},
        "several_videos": {
            "at": "result",
            "times": None,
            "patch": {"data": {"outputs": ["{video}", "{video}"]}},
        },
        "only_an_image": {
            "at": "result",
            "times": None,
            "patch": {"data": {"outputs": ["https://example.com/image.png"]}},
        },
    }

    def routes(self, standin: Standin) -> list[Route]:
        async def submit(request: Request) -> Response:
            endpoint = request.path_params["endpoint"]
            body = parsed(await request.body())
            return await standin.submit(
                request,
                endpoint,
                body,
                self._order_in(endpoint, body),
                lambda render: _told(request, render),
            )

        async def ask(request: Request) -> Response:
            render = standin.find(request)
            over = render is not None and render.state in FINAL
            stages: Sequence[Stage] = [Stage.RESULT, Stage.STATUS] if over else [Stage.STATUS]
            return await standin.ask(request, stages, lambda render: _told(request, render))

        return [
            Route("/api/v3/predictions/{request_id}/result", ask),
            Route("/api/v3/predictions/{request_id}", ask),
            Route("/api/v3/{endpoint:path}", submit, methods=["POST"]),
        ]

    def error(self, status: int) -> Response:
        if status not in ERRORS:  # no answer of the API, but of the gateway before it
            return Response(f"<html>{status}</html>", status, media_type="text/html")
        return _refused(status, ERRORS[status])

    def _order_in(self, endpoint: str, body: object) -> Order | Response:
        """What a submission's body asks for, or the 404 or 400 that it deserves."""
        if endpoint not in OFFERS:
            return _refused(404, "There is no such model.")
        order = read_order(OFFERS[endpoint], body)
        return order if isinstance(order, Order) else _bad_parameters(order)


def _refused(status: int, message: str, data: JsonValue = None) -> Response:
    return JSONResponse({"code": status, "message": message, "data": data}, status)


def _bad_parameters(wrong: Sequence[Wrong]) -> Response:
    words = " ".join(f"{it.field or 'body'}: {it.message}." for it in wrong)
    missing = all(it.kind == "missing" for it in wrong)
    code = MISSING_PARAMETER if missing else INVALID_PARAMETER
    return _refused(400, words, {"code": code, "error": words})


def _told(request: Request, render: Render) -> Response:
    """The task now: the answer to a submission and to every question."""
    completed = render.state is RenderState.COMPLETED
    rendered = (render.finished_at or render.created_at) - render.created_at
    task: dict[str, JsonValue] = {
        "id": render.id,
        "model": render.order.offer.endpoint,
        "outputs": [video_url(request, render)] if completed else [],
        "urls": {"get": f"{request.base_url}api/v3/predictions/{render.id}/result"},
        "has_nsfw_contents": [render.nsfw] if completed else [],
        "status": STATES[render.state],
        "created_at": render.created_at.isoformat(),
        "code": CODES[render.cause] if render.state is RenderState.FAILED else 0,
        "error": render.error or "",
        "timings": {"inference": round(rendered.total_seconds() * 1000)},
    }
    return JSONResponse({"code": 200, "message": "success", "data": task})
