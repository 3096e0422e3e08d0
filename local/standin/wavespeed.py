"""WaveSpeed's dialect: one endpoint to submit, one to ask, and every answer in an envelope.

The other calls are on its pages wavespeed.ai/docs/docs-common-api (predictions, prediction-delete,
billings, pricing, balance, November 2026), or known from its public SDK and command line.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from urllib.parse import quote, unquote

from pydantic import AwareDatetime, BaseModel, Field, JsonValue, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dropreel.model.catalog import Offer
from dropreel.model.provider import FailureCause, RenderState
from local.standin.faults import Preset, Stage
from local.standin.orders import Order, Wrong, offers_of, read_order, schema_of
from local.standin.prices import BALANCE_USD, base_usd, usd_of
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


class _Listing(BaseModel):
    """What the list of predictions is asked for."""

    page: int = Field(default=1, ge=1)
    page_size: int = Field(default=100, ge=1, le=100)
    model: str | None = None
    status: str | None = None
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None

    def has(self, render: Render) -> bool:
        return (
            not render.deleted
            and self.model in (None, render.order.offer.endpoint)
            and self.status in (None, STATES[render.state])
            and _is_within(render.created_at, self.created_after, self.created_before)
        )


class _BillingSearch(BaseModel):
    page: int = Field(default=1, ge=1)
    page_size: int = Field(default=10, ge=1, le=100)
    billing_type: str | None = None
    prediction_uuids: list[str] | None = None


class _Deletion(BaseModel):
    ids: list[str]


class _PriceQuestion(BaseModel):
    model_id: str
    inputs: dict[str, JsonValue] = {}


class _UploadRequest(BaseModel):
    filename: str
    size: int = Field(ge=0)
    content_type: str = "application/octet-stream"


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
        "no_inputs": {"at": "list", "times": None, "omit": ["inputs"]},
        "not_listed": {"at": "list", "times": None, "patch": {"data": {"items": []}}},
        "not_billed_yet": {"at": "account", "times": None, "patch": {"data": {"items": []}}},
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

        def about_account(
            work: Callable[[Request, object], Response], stage: Stage = Stage.ACCOUNT
        ) -> Callable[[Request], Awaitable[Response]]:
            async def answer(request: Request) -> Response:
                body = parsed(await request.body())

                def checked() -> Response:
                    try:
                        return work(request, body)
                    except ValidationError as error:
                        return _refused(400, str(error))

                return await standin.serve(request, stage, checked)

            return answer

        def listed(request: Request, body: object) -> Response:
            asked = _Listing.model_validate(body)
            found = [it for it in standin.renders.newest_first() if asked.has(it)]
            return _paged(
                asked.page,
                asked.page_size,
                [{**_task(request, it), "inputs": {**it.order.body}} for it in found],
            )

        def deleted(_request: Request, body: object) -> Response:
            ids = _Deletion.model_validate(body).ids
            gone = [it for it in map(standin.renders.find, ids) if it and not it.deleted]
            for render in gone:
                render.deleted = True
            return _success({"deleted_count": len(gone)})

        def billings(_request: Request, body: object) -> Response:
            asked = _BillingSearch.model_validate(body)
            renders = standin.renders.newest_first()
            wanted = asked.prediction_uuids
            found = [it for it in renders if it.cost_usd and (wanted is None or it.id in wanted)]
            is_ours = asked.billing_type in (None, "deduct")
            return _paged(asked.page, asked.page_size, [*map(_billing, found if is_ours else [])])

        def upload(request: Request, body: object) -> Response:
            asked = _UploadRequest.model_validate(body)
            name = f"{secrets.token_urlsafe(24)}/{quote(asked.filename)}"
            url = f"{request.base_url}uploads/{name}"
            headers: dict[str, JsonValue] = {"Content-Type": asked.content_type}
            instruction: dict[str, JsonValue] = {"method": "PUT", "url": url, "headers": headers}
            standin.uploads[unquote(name)] = b""
            return _success({"upload": instruction, "download_url": url})

        async def take_upload(request: Request) -> Response:
            name = request.path_params["name"]
            if name not in standin.uploads:
                return Response(status_code=403)
            if request.method == "PUT":
                standin.uploads[name] = await request.body()
            return Response(standin.uploads[name])

        return [
            Route("/uploads/{name:path}", take_upload, methods=["GET", "PUT"]),
            Route("/api/v3/models", about_account(_models)),
            Route("/api/v3/balance", about_account(_balance)),
            Route("/api/v3/model/price", about_account(_price), methods=["POST"]),
            Route("/api/v3/billings/search", about_account(billings), methods=["POST"]),
            Route("/api/v3/media/uploads", about_account(upload), methods=["POST"]),
            Route("/api/v3/predictions", about_account(listed, Stage.LIST), methods=["POST"]),
            Route(
                "/api/v3/predictions/delete",
                about_account(deleted, Stage.DELETE),
                methods=["POST"],
            ),
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
        if isinstance(body, dict):  # taken at every endpoint, and ignored here
            body = {name: value for name, value in body.items() if name != "enable_sync_mode"}
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
    return _success(_task(request, render))


def _task(request: Request, render: Render) -> dict[str, JsonValue]:
    completed = render.state is RenderState.COMPLETED and not render.deleted
    rendered = (render.finished_at or render.created_at) - render.created_at
    return {
        "id": render.id,
        "model": render.order.offer.endpoint,
        "outputs": [video_url(request, render)] if completed else [],
        "urls": {"get": f"{request.base_url}api/v3/predictions/{render.id}/result"},
        "has_nsfw_contents": [render.nsfw] if completed else [],
        "status": "deleted" if render.deleted else STATES[render.state],
        "created_at": render.created_at.isoformat(),
        "code": CODES[render.cause] if render.state is RenderState.FAILED else 0,
        "error": render.error or "",
        "timings": {"inference": round(rendered.total_seconds() * 1000)},
    }


def _success(data: JsonValue) -> Response:
    return JSONResponse({"code": 200, "message": "success", "data": data})


def _paged(page: int, page_size: int, items: Sequence[JsonValue]) -> Response:
    first = (page - 1) * page_size
    on_page = [*items[first : first + page_size]]
    return _success({"page": page, "total": len(items), "items": on_page})


def _is_within(moment: datetime, after: datetime | None, before: datetime | None) -> bool:
    return (after is None or moment >= after) and (before is None or moment <= before)


def _billing(render: Render) -> JsonValue:
    finished_at = (render.finished_at or render.created_at).isoformat()
    return {
        "uuid": f"billing-{render.id}",
        "billing_type": "deduct",
        "price": render.cost_usd,
        "created_at": finished_at,
        "updated_at": finished_at,
        "order": {"state": "done", "price": render.cost_usd, "origin_price": render.cost_usd},
        "prediction": {
            "uuid": render.id,
            "model_uuid": render.order.offer.endpoint,
            "status": STATES[render.state],
        },
    }


def _models(_request: Request, _body: object) -> Response:
    return _success([_model(offer) for offer in OFFERS.values()])


def _model(offer: Offer) -> JsonValue:
    return {
        "model_id": offer.endpoint,
        "name": offer.page,
        "description": "",
        "type": "image-to-video",
        "base_price": base_usd(offer),
        "api_schema": {
            "api_schemas": [
                {
                    "type": "model_run",
                    "method": "POST",
                    "api_path": f"/api/v3/{offer.endpoint}",
                    "request_schema": schema_of(offer),
                }
            ]
        },
    }


def _balance(_request: Request, _body: object) -> Response:
    return _success({"balance": BALANCE_USD})


def _price(_request: Request, body: object) -> Response:
    """It does not fetch a voice: without a `duration`, five seconds are priced. That is a guess."""
    asked = _PriceQuestion.model_validate(body)
    offer = OFFERS.get(asked.model_id)
    if offer is None:
        return _refused(404, "There is no such model.")
    resolution = offer.option("resolution")
    wanted = asked.inputs.get("resolution") or (resolution.default if resolution else "480p")
    if resolution and wanted not in resolution.values:
        return _refused(400, "resolution: no such.")
    seconds = asked.inputs.get("duration")
    usd = usd_of(str(wanted), seconds if isinstance(seconds, int) else None)
    return _success(
        {"model_id": offer.endpoint, "price": usd, "discounted_price": usd, "currency": "USD"}
    )
