"""The renders that a stand-in has accepted: queued, rendering, over."""

import asyncio
import math
import secrets
import traceback
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import JsonValue

from dropreel.model.provider import FailureCause, RenderState
from local.standin.faults import Fault
from local.standin.film import SHORT_SIDE_PIXELS, Script, Studio
from local.standin.inputs import InputRefused, Reception
from local.standin.orders import Order
from local.standin.prices import usd_of

FINAL = {RenderState.COMPLETED, RenderState.FAILED, RenderState.CANCELLED}


@dataclass(eq=False)
class Render:
    """Accepted work."""

    order: Order
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: RenderState = RenderState.QUEUED
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished_at: datetime | None = None
    error: str | None = None
    cause: FailureCause = FailureCause.OTHER
    nsfw: bool = False
    media: tuple[dict[str, JsonValue], ...] = ()
    deleted: bool = False
    video: bytes = b""
    video_name: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def cost_usd(self) -> float:
        """Zero unless it is completed."""
        if self.state is not RenderState.COMPLETED:
            return 0
        voice = (file.get("duration_seconds") for file in self.media)
        seconds = self.order.duration_seconds or next(filter(None, voice), None)
        assert seconds is None or isinstance(seconds, int | float)
        return usd_of(self.order.resolution, seconds)

    def complete(self, video: bytes, *, nsfw: bool) -> None:
        self.video, self.nsfw = video, nsfw
        self._end(RenderState.COMPLETED)

    def fail(self, error: str, cause: FailureCause = FailureCause.OTHER) -> None:
        self.error, self.cause = error, cause
        self._end(RenderState.FAILED)

    def cancel(self) -> None:
        self._end(RenderState.CANCELLED)

    def _end(self, state: RenderState) -> None:
        self.state, self.finished_at = state, datetime.now(UTC)


class Renders:
    """Accepts, renders and remembers. Lives in one event loop."""

    def __init__(self, queue_seconds: float, render_seconds: float) -> None:
        self._queue_seconds = queue_seconds
        self._render_seconds = render_seconds
        self._reception = Reception()
        self._studio = Studio()
        self._all: dict[str, Render] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.most_in_flight = 0

    @property
    def in_flight(self) -> int:
        """Accepted and not final."""
        return sum(render.state not in FINAL for render in self._all.values())

    def accept(self, order: Order, fault: Fault | None = None) -> Render:
        render = Render(order)
        self._all[render.id] = render
        self._tasks[render.id] = asyncio.create_task(self._carry_out(render, fault))
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return render

    def find(self, request_id: str) -> Render | None:
        return self._all.get(request_id)

    def newest_first(self) -> list[Render]:
        return [*reversed(self._all.values())]

    def find_video(self, video_name: str) -> Render | None:
        return next((it for it in self._all.values() if it.video_name == video_name), None)

    def queue_position(self, render: Render) -> int:
        """How many queued renders come before this one."""
        queued = [it for it in self._all.values() if it.state is RenderState.QUEUED]
        return queued.index(render)

    def cancel(self, render: Render) -> bool:
        """Only what is queued can be cancelled. True when it is."""
        if render.state is RenderState.QUEUED:
            self._tasks[render.id].cancel()
            render.cancel()
        return render.state is RenderState.CANCELLED

    def forget_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._all.clear()
        self.most_in_flight = 0

    def close(self) -> None:
        self.forget_all()
        self._studio.close()

    async def _carry_out(self, render: Render, fault: Fault | None) -> None:
        try:
            await self._render(render, fault or Fault.model_validate({"at": "render"}))
        except InputRefused as refused:
            render.fail(str(refused), refused.cause)
        except Exception as error:  # a fault of ours must not leave the render in flight
            traceback.print_exc()
            render.fail(f"Internal error: {type(error).__name__}.")

    async def _render(self, render: Render, fault: Fault) -> None:
        queued_until = _deadline(fault.stay == "queued", fault.queue_seconds, self._queue_seconds)
        order = render.order
        inputs = await self._reception.receive(order)
        render.media = inputs.summaries
        inputs.check()
        await _until(queued_until)

        render.state = RenderState.RENDERING
        done_at = _deadline(fault.stay == "rendering", fault.render_seconds, self._render_seconds)
        if fault.error is not None:
            await _until(done_at)
            render.fail(fault.error, fault.cause)
            return
        script = Script(
            picture=inputs.picture,
            voice=inputs.voice,
            short_side_pixels=SHORT_SIDE_PIXELS[order.resolution],
            duration_seconds=order.duration_seconds,
            tone=order.wants_a_tone,
        )
        film = await self._studio.film(script)
        await _until(done_at)
        render.complete(film, nsfw=fault.nsfw)


def _deadline(never: bool, ordered_seconds: float | None, usual_seconds: float) -> float:
    if never:
        return math.inf
    wait_seconds = usual_seconds if ordered_seconds is None else ordered_seconds
    return asyncio.get_running_loop().time() + wait_seconds


async def _until(deadline: float) -> None:
    await asyncio.sleep(deadline - asyncio.get_running_loop().time())
