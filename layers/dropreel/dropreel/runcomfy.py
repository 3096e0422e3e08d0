"""RunComfy's model API: submit, status, result, cancel.

The page says what the four endpoints take; what they answer is said less exactly.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, BeforeValidator

from dropreel.catalog import ProviderName
from dropreel.provider import Answer, RenderState, Result, UnknownRequest, Unreachable
from dropreel.provider_http import (
    AnyAnswer,
    ProviderHttp,
    Reply,
    Text,
    is_about_the_request,
    plain_state,
    url_in,
)
from dropreel.provider_words import cause_of
from dropreel.tokens import Token

# Published: in_queue, in_progress, completed, cancelled. The others are met in the wild. Not
# `error` or `success`: they may as well be about the answer, and a render is not failed on a guess.
_STATES = {
    "in_queue": RenderState.QUEUED,
    "queued": RenderState.QUEUED,
    "pending": RenderState.QUEUED,
    "in_progress": RenderState.RENDERING,
    "processing": RenderState.RENDERING,
    "running": RenderState.RENDERING,
    "completed": RenderState.COMPLETED,
    "succeeded": RenderState.COMPLETED,
    "failed": RenderState.FAILED,
    "cancelled": RenderState.CANCELLED,
    "canceled": RenderState.CANCELLED,
}
_UNFINISHED = {RenderState.QUEUED, RenderState.RENDERING}


class _Output(BaseModel):
    """A result's output: one video, or several, or (for other models) images."""

    video: Annotated[str, BeforeValidator(url_in)] = ""
    videos: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda found: map(url_in, found) if isinstance(found, list) else ()),
    ] = ()


class _Answer(AnyAnswer):
    request_id: Text = ""
    status: Text = ""
    outcome: Text = ""
    queue_position: Text = ""
    output: Annotated[
        _Output, BeforeValidator(lambda found: found if isinstance(found, dict) else {})
    ] = _Output()
    error_code: Text = ""
    error: Any = None
    message: Any = None
    detail: Any = None

    @property
    def accepted_id(self) -> str:
        return self.request_id

    @property
    def state(self) -> RenderState | None:
        return _STATES.get(plain_state(self.status))

    @property
    def is_cancelled(self) -> bool:
        return RenderState.CANCELLED in (self.state, _STATES.get(plain_state(self.outcome)))

    @property
    def error_status(self) -> int | None:
        """`error_code` is the status and three digits more: 401001."""
        code = self.error_code.strip()
        if not code.strip("0"):
            return None
        status = code[:3]
        return int(status) if status.isascii() and status.isdigit() else 500

    @property
    def said(self) -> tuple[object, ...]:
        return self.message, self.error, self.detail


class RunComfy:
    """A `dropreel.provider.Provider`."""

    name: ProviderName = ProviderName.RUNCOMFY

    def __init__(
        self,
        base_url: str,
        token: Token,
        *,
        timeout_seconds: float = 20,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = ProviderHttp(
            "RunComfy",
            _Answer,
            base_url,
            token,
            timeout_seconds=timeout_seconds,
            transport=transport,
        )

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        return self._http.submit(f"/v1/models/{quote(endpoint)}", payload)

    def ask(self, request_id: str) -> Answer:
        reply = self._get_status(request_id)
        answer = reply.answer
        state = answer.state
        if state is RenderState.FAILED:
            words = reply.words or self._words_of_result(request_id)
            return Answer(
                state=state,
                message=words or "RunComfy gives no reason.",
                cause=cause_of(words),  # it has no codes for this
            )
        if state is RenderState.QUEUED and answer.queue_position:
            place = reply.clean(answer.queue_position)
            return Answer(state=state, message=f"Position {place} in the queue.")
        if state is not None:
            return Answer(state=state)
        return Answer(
            state=RenderState.RENDERING,
            message=f"RunComfy reports a state that is not known: {reply.clean(answer.status)}.",
        )

    def result(self, request_id: str) -> Result:
        answer = self._http.get(_path(request_id, "result")).answer
        if answer.state in _UNFINISHED:
            raise Unreachable("RunComfy says that the render is not complete yet.")
        if answer.state is None and "output" not in answer.model_fields_set:
            raise Unreachable("RunComfy answered without a result.")
        videos = (answer.output.video, *answer.output.videos)
        return Result(video_url=next(filter(None, videos), None))

    def cancel(self, request_id: str) -> bool:
        """Cancel work that is still queued. True when RunComfy says that it is cancelled.

        Asking to cancel is not being told that it is done, and a second cancellation may be
        answered with an error: unless the answer is plain, the request's state tells.
        Raises `Unreachable`.
        """
        try:
            reply = self._http.ask("POST", _path(request_id, "cancel"))
            status = reply.error_status
            if status is None and reply.answer.is_cancelled:
                return True
            if status is not None and not is_about_the_request(status):
                raise self._http.unreachable(reply, status)
            return self._get_status(request_id).answer.state is RenderState.CANCELLED
        except UnknownRequest:
            return False

    def _words_of_result(self, request_id: str) -> str:
        try:
            return self._http.get(_path(request_id, "result")).words
        except (Unreachable, UnknownRequest):
            return ""

    def _get_status(self, request_id: str) -> Reply[_Answer]:
        reply = self._http.get(_path(request_id, "status"))
        if not reply.answer.status:
            raise Unreachable("RunComfy answered without a status.")
        return reply


def _path(request_id: str, what: str) -> str:
    # Built here, and not taken from the answer's own status_url: that could point anywhere.
    return f"/v1/requests/{quote(request_id, safe='')}/{what}"
