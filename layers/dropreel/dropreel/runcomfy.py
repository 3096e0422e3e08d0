"""RunComfy's model API: submit, status, result, cancel.

The page says what the four endpoints take; what they answer is said less exactly, so answers are
read leniently: fields that are missing, new or of another type are no error by themselves.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from dropreel.catalog import ProviderName
from dropreel.errors import (
    DropreelError,
    NoCredit,
    ProviderThrottled,
    ProviderUnavailable,
    RequestRefused,
    TokenMissing,
    TokenRejected,
)
from dropreel.provider import Answer, Refusal, RenderState, Unclear, UnknownRequest, Unreachable
from dropreel.timing import retry_after_seconds
from dropreel.tokens import Token, TokenUnreadable

# Answers are a few hundred bytes; whatever sends more is not answering.
_ANSWER_MAX_BYTES = 1_048_576
_WORDS_MAX_CHARACTERS = 300
_ID_MAX_CHARACTERS = 200

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


@dataclass(frozen=True)
class _No:
    """What an HTTP status says to a submission, when it is certain that nothing was accepted."""

    error: type[DropreelError]
    message: str
    again: bool = False


_NO = {
    401: _No(TokenRejected, "RunComfy does not accept the token"),
    402: _No(NoCredit, "RunComfy's account has not enough credit"),
    # Not the files' fault, and another account's token mends it.
    403: _No(TokenRejected, "RunComfy does not let the token's account use this model"),
    408: _No(ProviderUnavailable, "RunComfy did not get the whole request", again=True),
    429: _No(ProviderThrottled, "RunComfy takes no more requests for now", again=True),
    503: _No(ProviderUnavailable, "RunComfy says that it is unavailable", again=True),
}
_OTHER_4XX = _No(RequestRefused, "RunComfy refused the request")


class RunComfy:
    """A `dropreel.provider.Provider`. Nothing is retried in here, and a submission least of all.

    One exception: a call that is answered with 401 is made once more if the token was rotated
    meanwhile. A 401 is a definite refusal, so this is no second submission.
    """

    name: ProviderName = ProviderName.RUNCOMFY

    def __init__(
        self,
        base_url: str,
        token: Token,
        *,
        timeout_seconds: float = 20,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_seconds, connect=5, pool=5),
            # Lambda freezes its environments, and a connection that died in the ice looks alive:
            # a submission sent into it would be an unclear outcome. So each call connects anew.
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        try:
            reply = self._call("POST", f"/v1/models/{quote(endpoint)}", payload)
        except _NotSent as err:
            raise Refusal(err.error.__name__, str(err), again=err.again) from None
        except _NoReply as err:
            raise Unclear(str(err)) from None
        status = reply.error_status
        if status is not None:
            raise _no_to_submission(reply, status)
        request_id = reply.answer.request_id
        if not reply.is_usable_id(request_id):
            raise Unclear("RunComfy answered without a request id.")
        return request_id

    def ask(self, request_id: str) -> Answer:
        reply = self._get_status(request_id)
        answer = reply.answer
        state = answer.state
        if state is RenderState.FAILED:
            words = reply.words or self._words_of_result(request_id)
            return Answer(state=state, message=words or "RunComfy gives no reason.")
        if state is RenderState.QUEUED and answer.queue_position:
            place = reply.clean(answer.queue_position)
            return Answer(state=state, message=f"Position {place} in the queue.")
        if state is not None:
            return Answer(state=state)
        return Answer(
            state=RenderState.RENDERING,
            message=f"RunComfy reports a state that is not known: {reply.clean(answer.status)}.",
        )

    def video_url(self, request_id: str) -> str | None:
        reply = self._get(request_id, "result")
        answer = reply.answer
        if answer.state in _UNFINISHED:
            raise Unreachable("RunComfy says that the render is not complete yet.")
        if answer.state is None and "output" not in answer.model_fields_set:
            raise Unreachable("RunComfy answered without a result.")
        return next(filter(None, (answer.output.video, *answer.output.videos)), None)

    def cancel(self, request_id: str) -> bool:
        """Cancel work that is still queued. True when RunComfy says that it is cancelled.

        Asking to cancel is not being told that it is done, and a second cancellation may be
        answered with an error: unless the answer is plain, the request's state tells.
        Raises `Unreachable`.
        """
        try:
            reply = self._read("POST", request_id, "cancel")
            status = reply.error_status
            if status is None and RenderState.CANCELLED in (
                _STATES.get(_normal(reply.answer.outcome)),
                reply.answer.state,
            ):
                return True
            if status is not None and not _is_about_the_request(status):
                raise _unreachable(reply, status)
            return self._get_status(request_id).answer.state is RenderState.CANCELLED
        except UnknownRequest:
            return False

    def _words_of_result(self, request_id: str) -> str:
        try:
            return self._get(request_id, "result").words
        except (Unreachable, UnknownRequest):
            return ""

    def _get_status(self, request_id: str) -> "_Reply":
        reply = self._get(request_id, "status")
        if not reply.answer.status:
            raise Unreachable("RunComfy answered without a status.")
        return reply

    def _get(self, request_id: str, what: str) -> "_Reply":
        """An answer about accepted work that can be believed."""
        reply = self._read("GET", request_id, what)
        status = reply.error_status
        if status is None or (reply.is_2xx and reply.answer.state is not None):
            # A failed render may come with its error's code: then the state is the answer.
            return reply
        if status == 404:
            raise UnknownRequest("RunComfy does not know the request.")
        raise _unreachable(reply, status)

    def _read(self, method: str, request_id: str, what: str) -> "_Reply":
        # Built here, and not taken from the answer's own status_url: that could point anywhere.
        try:
            return self._call(method, f"/v1/requests/{quote(request_id, safe='')}/{what}")
        except (_NotSent, _NoReply) as err:
            raise Unreachable(str(err)) from None

    def _call(
        self, method: str, path: str, payload: Mapping[str, object] | None = None
    ) -> "_Reply":
        token = self._fetch_token(fresh=False)
        reply = self._send(method, path, payload, token)
        if reply.error_status != 401 or reply.is_contradictory:
            return reply
        try:
            rotated = self._fetch_token(fresh=True)
        except _NotSent:
            return reply
        return reply if rotated == token else self._send(method, path, payload, rotated)

    def _fetch_token(self, *, fresh: bool) -> str:
        try:
            return self._token(fresh=fresh)
        except TokenMissing as err:
            raise _NotSent(TokenMissing, err.message) from None
        except TokenUnreadable as err:
            raise _NotSent(ProviderUnavailable, str(err), again=True) from None

    def _send(
        self, method: str, path: str, payload: Mapping[str, object] | None, token: str
    ) -> "_Reply":
        try:
            with self._client.stream(
                method,
                self._base_url + path,
                json=payload,
                headers={"Authorization": f"Bearer {token}"},
            ) as response:
                return _Reply(
                    http_status=response.status_code,
                    answer=_parsed(_body(response, self._timeout_seconds)),
                    retry_after_seconds=retry_after_seconds(
                        response.headers.get("Retry-After"), datetime.now(UTC)
                    ),
                    token=token,
                )
        # The text of these errors can hold what was sent, so only their names go on.
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.UnsupportedProtocol,
            httpx.InvalidURL,
        ) as err:
            raise _NotSent(
                ProviderUnavailable,
                f"RunComfy could not be reached ({type(err).__name__}).",
                again=True,
            ) from None
        except httpx.HTTPError as err:
            raise _NoReply(f"RunComfy gave no answer ({type(err).__name__}).") from None


class _NotSent(Exception):
    """The call never left: certainly nothing was accepted."""

    def __init__(self, error: type[DropreelError], message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.error = error
        self.again = again


class _NoReply(Exception):
    """The call left, at least in part, and no answer came."""


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _url(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("url")
    return value.strip() if isinstance(value, str) else ""


_Text = Annotated[str, BeforeValidator(_text)]


class _Output(BaseModel):
    """A result's output: one video, or several, or (for other models) images."""

    video: Annotated[str, BeforeValidator(_url)] = ""
    videos: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda found: map(_url, found) if isinstance(found, list) else ()),
    ] = ()


class _AnyAnswer(BaseModel):
    """Whatever RunComfy answers, with every field that one of its four endpoints may send."""

    model_config = ConfigDict(frozen=True)

    request_id: _Text = ""
    status: _Text = ""
    outcome: _Text = ""
    queue_position: _Text = ""
    output: Annotated[
        _Output, BeforeValidator(lambda found: found if isinstance(found, dict) else {})
    ] = _Output()
    error_code: _Text = ""
    error: Any = None
    message: Any = None
    detail: Any = None

    @property
    def state(self) -> RenderState | None:
        """None when there is no state or one that is not known."""
        return _STATES.get(_normal(self.status))


@dataclass(frozen=True)
class _Reply:
    """What came back from one call."""

    http_status: int
    answer: _AnyAnswer
    retry_after_seconds: float
    token: str = field(repr=False)

    @property
    def is_2xx(self) -> bool:
        return 200 <= self.http_status < 300

    @property
    def is_contradictory(self) -> bool:
        """Success by its status, an error by its code, and yet a request id."""
        return self.is_2xx and self.error_status is not None and bool(self.answer.request_id)

    @property
    def error_status(self) -> int | None:
        """The HTTP status of an error, also of one inside an HTTP 200; None for a good answer.

        `error_code` is the status and three digits more: 401001.
        """
        if not self.is_2xx:
            return self.http_status
        code = self.answer.error_code.strip()
        if not code.strip("0"):
            return None
        status = code[:3]
        return int(status) if status.isascii() and status.isdigit() else 500

    @property
    def words(self) -> str:
        """The provider's own words about what went wrong."""
        answer = self.answer
        said = filter(None, map(_flat, (answer.message, answer.error, answer.detail)))
        return self.clean(" - ".join(dict.fromkeys(said)))

    def is_usable_id(self, request_id: str) -> bool:
        """Whether an id can be written down and put into a path: dots alone would climb out."""
        return (
            0 < len(request_id) <= _ID_MAX_CHARACTERS
            and request_id not in (".", "..")
            and request_id == self.clean(request_id)
        )

    def clean(self, text: str) -> str:
        """The text in one bounded line, without URLs, parts of signed URLs, or the token."""
        words = [self._clean_word(word) for word in text.split()]
        line = "".join(filter(str.isprintable, " ".join(words)))
        if len(line) <= _WORDS_MAX_CHARACTERS:
            return line
        return line[: _WORDS_MAX_CHARACTERS - 1] + "…"

    def _clean_word(self, word: str) -> str:
        if self.token in word:
            return "(token removed)"
        lower = word.lower().replace("\\", "")
        marks = ("://", "%3a%2f", "%253a", "x-amz-", "signature=")
        return "(URL removed)" if any(mark in lower for mark in marks) else word


def _body(response: httpx.Response, within_seconds: float) -> bytes:
    """The body; empty when it is too large, too slow or cut off: the status stands without it."""
    deadline = time.monotonic() + within_seconds
    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _ANSWER_MAX_BYTES or time.monotonic() > deadline:
                return b""
    except httpx.HTTPError:
        return b""
    return bytes(body)


def _parsed(body: bytes) -> _AnyAnswer:
    """An answer without anything in it, when the body is no JSON object."""
    try:
        return _AnyAnswer.model_validate_json(body)
    except ValidationError:
        return _AnyAnswer()


def _flat(said: object) -> str:
    """An error's text, whichever of the usual shapes it has; fields are named before their fault.

    `detail` is a list of `{"loc": ["body", "image_url"], "msg": "..."}`.
    """
    if isinstance(said, str):
        return said.strip()
    if isinstance(said, list):
        return "; ".join(filter(None, map(_flat, said)))
    if isinstance(said, dict):
        where = said.get("loc")
        if isinstance(where, list):
            where = ".".join(str(step) for step in where)
        what = next(filter(None, (_flat(said.get(key)) for key in ("msg", "message", "error"))), "")
        return f"{where}: {what}" if where and what else what
    return ""


def _normal(state: str) -> str:
    return state.strip().lower().replace("-", "_").replace(" ", "_")


def _is_about_the_request(status: int) -> bool:
    """Whether a client error speaks of the request, and not of the account or of our pace."""
    return 400 <= status < 500 and status not in _NO


def _no_to_submission(reply: _Reply, status: int) -> Refusal | Unclear:
    if reply.is_contradictory:
        return Unclear(_sentence("RunComfy answered with an error and a request id", reply, status))
    no = _NO.get(status) or (_OTHER_4XX if 400 <= status < 500 else None)
    if no is None:
        return Unclear(_sentence("RunComfy answered with an error", reply, status))
    return Refusal(
        no.error.__name__,
        _sentence(no.message, reply, status),
        again=no.again,
        retry_after_seconds=reply.retry_after_seconds,
    )


def _unreachable(reply: _Reply, status: int) -> Unreachable:
    return Unreachable(
        _sentence("RunComfy answered with an error", reply, status),
        retry_after_seconds=reply.retry_after_seconds,
    )


def _sentence(what: str, reply: _Reply, status: int) -> str:
    return f"{what} ({status}): {reply.words}" if reply.words else f"{what} ({status})."
