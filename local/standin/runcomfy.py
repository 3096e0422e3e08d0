"""RunComfy's dialect: the four endpoints of its pages, what its own clients call, its errors.

The calls about models, costs and the balance are known from its public MCP client, command line
and partner nodes (github.com/runcomfy-com, November 2026).
"""

from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dropreel.model.catalog import Offer
from dropreel.model.provider import RenderState
from local.standin.faults import Preset, Stage
from local.standin.orders import Order, offers_of, read_order, schema_of
from local.standin.prices import BALANCE_USD, UNKNOWN_SECONDS, base_usd
from local.standin.renders import FINAL, Render
from local.standin.server import Dialect, Standin, parsed, video_url

OFFERS = offers_of("runcomfy")

STATES = {
    RenderState.QUEUED: "in_queue",
    RenderState.RENDERING: "in_progress",
    RenderState.COMPLETED: "completed",
    RenderState.FAILED: "failed",
    RenderState.CANCELLED: "cancelled",
}

ERRORS: Mapping[int, Mapping[str, JsonValue]] = {
    400: {"error_message": "Bad request."},
    401: {"error_code": 401001, "error_message": "The token is missing, invalid or expired."},
    402: {"error_message": "There is not enough credit for this request."},
    403: {"error_code": 403003, "error_message": "The request belongs to somebody else."},
    404: {"error_code": 404001, "error_message": "Not found."},
    422: {
        "error_code": 422001,
        "error_message": "The body does not fit the schema.",
        "detail": [{"loc": ["body"], "msg": "Value error", "type": "value_error"}],
    },
    429: {"error_message": "Too many requests."},
    500: {"error_code": 500001, "error_message": "Internal error."},
}


class RunComfy(Dialect):
    """Speaks as `https://model-api.runcomfy.net` does."""

    presets: Mapping[str, Preset] = {
        "error_in_200": {"status": 200, "json": dict(ERRORS[500])},
        "unknown_state": {"at": "status", "patch": {"status": "warming_up"}},
        # Completed, as far as the status knows. For ever, because each poll asks for the result.
        "failed_result": {
            "at": "result",
            "times": None,
            "patch": {
                "status": "failed",
                "output": None,
                "error_message": "The generation failed.",
            },
        },
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
            body = parsed(await request.body())
            return await standin.submit(
                request,
                endpoint,
                body,
                _order_in(endpoint, body),
                lambda render: _accepted(request, render),
            )

        async def status(request: Request) -> Response:
            return await standin.ask(
                request, [Stage.STATUS], lambda render: JSONResponse(_status(standin, render))
            )

        async def result(request: Request) -> Response:
            return await standin.ask(
                request, [Stage.RESULT], lambda render: _result(standin, request, render)
            )

        async def cancel(request: Request) -> Response:
            def work(render: Render) -> Response:
                is_queued = render.state is RenderState.QUEUED
                standin.renders.cancel(render)
                outcome = "cancelled" if is_queued else "not_cancellable"
                return JSONResponse({**_status(standin, render), "outcome": outcome})

            return await standin.ask(request, [Stage.CANCEL], work)

        async def models(request: Request) -> Response:
            return await standin.serve(request, Stage.ACCOUNT, lambda: _models(request))

        async def model(request: Request) -> Response:
            endpoint = request.path_params["endpoint"]
            known = OFFERS.get(endpoint)
            return await standin.serve(
                request,
                Stage.ACCOUNT,
                lambda: JSONResponse(_model(known, schema=True)) if known else _no_model(),
            )

        async def balance(request: Request) -> Response:
            return await standin.serve(
                request,
                Stage.ACCOUNT,
                lambda: JSONResponse({"balance_usd": BALANCE_USD, "currency": "USD"}),
            )

        return [
            Route("/v1/models", models),
            Route("/v1/models/{endpoint:path}", model),
            Route("/prod/v2/balance", balance),  # of https://api.runcomfy.net
            Route("/v1/models/{endpoint:path}", submit, methods=["POST"]),
            Route("/v1/requests/{request_id}/status", status),
            Route("/v1/requests/{request_id}/result", result),
            Route("/v1/requests/{request_id}/cancel", cancel, methods=["POST"]),
        ]

    def error(self, status: int) -> Response:
        if status not in ERRORS:  # no answer of the API, but of the gateway before it
            return Response(f"<html>{status}</html>", status, media_type="text/html")
        return JSONResponse(dict(ERRORS[status]), status)


def _order_in(endpoint: str, body: object) -> Order | Response:
    """What a submission's body asks for, or the 404 or 422 that it deserves."""
    if endpoint not in OFFERS:
        return _no_model()
    order = read_order(OFFERS[endpoint], body)
    if isinstance(order, Order):
        return order
    detail = [
        {"loc": ["body", *filter(None, [it.field])], "msg": it.message, "type": it.kind}
        for it in order
    ]
    return JSONResponse({**ERRORS[422], "detail": detail}, 422)


def _no_model() -> Response:
    return JSONResponse({**ERRORS[404], "error_message": "There is no such model."}, 404)


def _models(request: Request) -> Response:
    asked = request.query_params
    found = [offer for name, offer in OFFERS.items() if asked.get("search", "") in name]
    first, schema = int(asked.get("offset", 0)), asked.get("include_schema") == "true"
    page = found[first : first + int(asked.get("limit", 100))]
    return JSONResponse(
        {"models": [_model(offer, schema=schema) for offer in page], "total": len(found)}
    )


def _model(offer: Offer, *, schema: bool) -> dict[str, JsonValue]:
    described: dict[str, JsonValue] = {
        "model_id": offer.endpoint,
        "display_name": offer.page,
        "categories": ["image-to-video"],
        "base_price_usd": base_usd(offer) / UNKNOWN_SECONDS,
        "price_unit": "second",
        "pricing_note": "In the default resolution.",
    }
    return described | ({"input_schema": schema_of(offer)} if schema else {})


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
    """Its clients know no status `failed`: over is over, and the result says what came of it."""
    state = RenderState.COMPLETED if render.state is RenderState.FAILED else render.state
    answer: dict[str, object] = {"request_id": render.id, "status": STATES[state]}
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
        answer["status"] = STATES[render.state]
        answer["error"] = render.error
    if render.state in FINAL and request.query_params.get("include_cost") == "true":
        answer["cost"] = render.cost_usd
    return JSONResponse(answer)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
