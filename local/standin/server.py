"""What all stand-ins share: the token, the faults, the records, the videos.

A provider's dialect adds its endpoints and the words of its errors.
"""

import asyncio
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import uvicorn
from pydantic import JsonValue, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dropreel.model.provider import RenderState
from local.standin.answers import HangUp, ShapedAnswer, hung_up
from local.standin.connection import ReachableConnection
from local.standin.faults import (
    Fault,
    Faults,
    Preset,
    Stage,
    UnknownPreset,
    merge_patch,
    without,
)
from local.standin.orders import Order, path_of
from local.standin.renders import Render, Renders


@dataclass(frozen=True)
class Settings:
    """How a stand-in behaves when nobody asks it to misbehave."""

    token: str = field(repr=False)
    queue_seconds: float = 1
    render_seconds: float = 8


@dataclass
class Submission:
    """One submission that was received, accepted or not."""

    model: str
    paths: tuple[str, ...]
    received_at: datetime
    answered: int | None = None
    render: Render | None = None

    def summary(self) -> dict[str, JsonValue]:
        render = self.render
        return {
            "received_at": self.received_at.isoformat(),
            "model": self.model,
            "inputs": list(self.paths),
            "media": list(render.media) if render else [],
            "answered": self.answered,
            "accepted": render is not None,
            "request_id": render.id if render else None,
            "state": render.state.value if render else None,
            "cancelled": render is not None and render.state is RenderState.CANCELLED,
            "error": render.error if render else None,
            "calls": dict(render.calls) if render else {},
        }


class Dialect(Protocol):
    """How one provider speaks."""

    presets: Mapping[str, Preset]

    def authorization(self, token: str) -> Mapping[str, str]:
        """The headers that a call must have."""
        return {"Authorization": f"Bearer {token}"}

    def routes(self, standin: "Standin") -> list[Route]: ...

    def error(self, status: int) -> Response:
        """The provider's usual answer with this status."""


class Standin:
    """One provider's stand-in. Lives in one event loop."""

    def __init__(self, dialect: Dialect, settings: Settings) -> None:
        self.renders = Renders(settings.queue_seconds, settings.render_seconds)
        self.uploads: dict[str, bytes] = {}
        self._dialect = dialect
        self._authorization = dialect.authorization(settings.token)
        self._faults = Faults(dialect.presets)
        self._submissions: list[Submission] = []
        self._calls: Counter[str] = Counter()
        self._struck: Counter[str] = Counter()

    def app(self, log: Callable[[str], None] = print) -> ASGIApp:
        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            yield
            self.renders.close()

        routes = [
            *self._dialect.routes(self),
            Route("/videos/{name}.mp4", self._download),
            Route("/_standin/requests", self._list_requests),
            Route("/_standin/reset", self._reset, methods=["POST"]),
            Route("/_standin/faults", self._list_faults),
            Route("/_standin/faults", self._add_fault, methods=["POST"]),
            Route("/_standin/faults", self._clear_faults, methods=["DELETE"]),
        ]
        return CallLog(Starlette(routes=routes, lifespan=lifespan), log)

    # What a dialect calls

    async def submit(
        self,
        request: Request,
        model: str,
        body: object,
        ordered: Order | Response,
        accepted: Callable[[Render], Response],
    ) -> Response:
        """Take in a submission: an order, or the dialect's answer to a body that is none."""
        submission = Submission(model, _paths_in(body), datetime.now(UTC))
        self._submissions.append(submission)

        def work() -> Response:
            if isinstance(ordered, Response):
                return ordered
            fault = self._take_fault([Stage.RENDER], submission.paths)
            submission.render = self.renders.accept(ordered, fault)
            return accepted(submission.render)

        answer = await self._answer(request, [Stage.SUBMIT], work, submission.paths)
        submission.answered = None if isinstance(answer, HangUp) else answer.status_code
        return answer

    async def ask(
        self, request: Request, stages: Sequence[Stage], work: Callable[[Render], Response]
    ) -> Response:
        """Answer a call about accepted work, which the path names as `request_id`.

        It counts as a call of the first stage; faults of all of them strike it.
        """
        render = self.find(request)
        if render is None:
            return await self._answer(request, stages, lambda: self._dialect.error(404))
        render.calls[stages[0]] += 1
        return await self._answer(
            request, stages, lambda: work(render), render.order.paths, video_url(request, render)
        )

    async def serve(self, request: Request, stage: Stage, work: Callable[[], Response]) -> Response:
        """Answer a call that is about no one render."""
        return await self._answer(request, [stage], work)

    def find(self, request: Request) -> Render | None:
        return self.renders.find(request.path_params["request_id"])

    # Every call

    async def _answer(
        self,
        request: Request,
        stages: Sequence[Stage],
        work: Callable[[], Response],
        paths: tuple[str, ...] = (),
        video: str = "",
    ) -> Response:
        self._calls[stages[0]] += 1
        expected = self._authorization.items()
        is_ours = all(request.headers.get(name) == value for name, value in expected)
        if Stage.DOWNLOAD not in stages and not is_ours:
            return self._dialect.error(401)
        fault = self._take_fault(stages, paths)
        if fault is None:
            return work()
        return await self._misbehave(request, fault, work, video)

    def _take_fault(self, stages: Sequence[Stage], paths: tuple[str, ...]) -> Fault | None:
        fault = self._faults.take(stages, paths)
        if fault is not None:
            self._struck[fault.at] += 1
        return fault

    async def _misbehave(
        self, request: Request, fault: Fault, work: Callable[[], Response], video: str
    ) -> Response:
        answer = work() if fault.when == "after" else None
        if fault.delay_seconds:
            try:
                await asyncio.wait_for(hung_up(request.receive), fault.delay_seconds)
            except TimeoutError:
                pass  # the caller is still there
            else:
                return HangUp()
        if fault.reset:
            return HangUp()
        if fault.replaces_answer:
            answer = self._invented(fault, video)
        elif answer is None:
            answer = work()
        if fault.patch is not None:
            patch = json.loads(_filled_in(json.dumps(fault.patch), video))
            patched = merge_patch(json.loads(bytes(answer.body)), patch)
            answer = JSONResponse(patched, answer.status_code)
        if fault.omit:
            left = without(json.loads(bytes(answer.body)), fault.omit)
            answer = JSONResponse(left, answer.status_code)
        for name, value in fault.headers.items():
            answer.headers[name] = _filled_in(value, video)
        return ShapedAnswer(answer, fault)

    def _invented(self, fault: Fault, video: str) -> Response:
        status = fault.status or 200
        if fault.json_body is not None:
            body = _filled_in(json.dumps(fault.json_body), video)
            return Response(body, status, media_type="application/json")
        if fault.body is not None:
            return Response(_filled_in(fault.body, video), status, media_type="application/json")
        if status < 400:
            return Response(status_code=status)
        return _storage_error(status) if fault.at is Stage.DOWNLOAD else self._dialect.error(status)

    # The videos

    async def _download(self, request: Request) -> Response:
        render = self.renders.find_video(request.path_params["name"])
        if render is None or render.deleted or render.state is not RenderState.COMPLETED:
            return await self._answer(request, [Stage.DOWNLOAD], lambda: _storage_error(403))
        render.calls[Stage.DOWNLOAD] += 1
        return await self._answer(
            request,
            [Stage.DOWNLOAD],
            lambda: Response(render.video, media_type="video/mp4"),
            render.order.paths,
            video_url(request, render),
        )

    # The books, and the faults to come

    async def _list_requests(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "submissions": [submission.summary() for submission in self._submissions],
                "calls": {stage.value: self._calls[stage] for stage in CALLS},
                "struck": {stage.value: self._struck[stage] for stage in Stage},
                "in_flight": self.renders.in_flight,
                "most_in_flight": self.renders.most_in_flight,
            }
        )

    async def _reset(self, _request: Request) -> Response:
        self.renders.forget_all()
        self.uploads.clear()
        self._submissions.clear()
        self._calls.clear()
        self._struck.clear()
        self._faults.active.clear()
        return Response(status_code=204)

    async def _list_faults(self, _request: Request) -> Response:
        return JSONResponse({"faults": [fault.summary() for fault in self._faults.active]})

    async def _add_fault(self, request: Request) -> Response:
        try:
            fault = self._faults.order(await request.json())
        except ValidationError as error:
            wrong = json.loads(error.json(include_url=False, include_context=False))
            return JSONResponse({"wrong": wrong}, 422)
        except UnknownPreset as error:
            return JSONResponse({"wrong": str(error)}, 422)
        except ValueError:
            return JSONResponse({"wrong": "The body must be JSON."}, 422)
        return JSONResponse(fault.summary(), 201)

    async def _clear_faults(self, _request: Request) -> Response:
        self._faults.active.clear()
        return Response(status_code=204)


CALLS = [stage for stage in Stage if stage is not Stage.RENDER]


def video_url(request: Request, render: Render) -> str:
    """The URL of the video. It needs no token."""
    return f"{request.base_url}videos/{render.video_name}.mp4"


def parsed(body: bytes) -> object:
    """The JSON of a body; None when it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def _filled_in(text: str, video: str) -> str:
    """Faults name the job's video without knowing it: `{video}`, and `{video_path}` alone."""
    return text.replace("{video}", video).replace("{video_path}", path_of(video))


def _paths_in(body: object) -> tuple[str, ...]:
    values = body.values() if isinstance(body, dict) else ()
    return tuple(path_of(it) for it in values if isinstance(it, str) and "://" in it)


def _storage_error(status: int) -> Response:
    code = {403: "AccessDenied", 404: "NoSuchKey"}.get(status, "InternalError")
    return Response(f"<Error><Code>{code}</Code></Error>", status, media_type="application/xml")


class CallLog:
    """One short line for each call. Never a query or a file's name: those are secrets."""

    def __init__(self, app: ASGIApp, log: Callable[[str], None]) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = re.sub("^/(videos|uploads)/.*", r"/\1/...", scope["path"])
        call = f"{scope['method']} {path}"
        answered = False

        async def watched_send(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                self._log(f"{call} {message['status']}")
            await send(message)

        await self._app(scope, receive, watched_send)
        if not answered:
            self._log(f"{call} connection reset")


# Running it


@contextmanager
def listening(app: ASGIApp, port: int = 0) -> Iterator[tuple[uvicorn.Server, socket.socket]]:
    """A server that is ready to `run(sockets=[...])`; callers may connect from now on."""
    # Only of a socket that says that it is TCP does asyncio turn off Nagle's 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", port))
        door.listen(1_024)
        config = uvicorn.Config(
            app,
            http=ReachableConnection,
            loop="asyncio",
            log_level="warning",
            log_config=None,
            access_log=False,
            timeout_keep_alive=75,  # longer than the pauses between polls
            timeout_graceful_shutdown=1,
        )
        yield uvicorn.Server(config), door


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    """Serve in a thread on a free port while the block runs; gives the base URL."""
    with listening(app) as (server, door):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            yield url_of(door)
        finally:
            server.should_exit = True
            thread.join()


def url_of(door: socket.socket) -> str:
    return f"http://127.0.0.1:{door.getsockname()[1]}"
