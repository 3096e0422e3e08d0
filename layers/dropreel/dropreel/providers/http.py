"""What all providers share: one HTTP client, and what an answer means in any dialect.

A submission is sent once, a clear refusal differs from an unclear outcome, a rotated token is
used, and size, time and words of an answer are bounded. A field that is missing, new or of another
type is no error by itself.
"""

import math
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import httpx
from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import from_json

from dropreel.model import errors
from dropreel.model.closure import Account, AccountState
from dropreel.model.errors import DropreelError
from dropreel.model.provider import (
    Answer,
    FailureCause,
    Lookup,
    Provider,
    Refusal,
    RenderState,
    Ticket,
    Unclear,
    UnknownRequest,
    Unreachable,
)
from dropreel.model.timing import retry_after_seconds
from dropreel.providers.deadline import Deadline, DeadlineTransport
from dropreel.providers.tokens import Token, TokenUnreadable
from dropreel.providers.words import (
    cause_of,
    clean,
    flat,
    means_no_credit,
    names_model_or_plan,
    surely_moderated,
    surely_no_credit,
)

# Answers have a few hundred bytes.
_MAX_ANSWER_BYTES = 1_048_576
_MAX_USD = 10_000  # no render costs as much; excludes infinity, too
# RunComfy's own client takes [a-zA-Z0-9_-]{1,128}; other services put dots and colons into theirs.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

CONNECT_SECONDS = 5
ANSWER_SECONDS = 20
"""For a question, which can be asked again."""
ASIDE_ANSWER_SECONDS = 3
"""For what a render cost, and to delete it: a video waits for this answer."""
SUBMISSION_ANSWER_SECONDS = 60
"""For a submission, which cannot be sent again: work that is accepted late costs the same.
WaveSpeed's own client reads the answer for 60 s, RunComfy's for 90 s, others for 120 s."""


@dataclass(frozen=True)
class _Meaning:
    """Of a client error that answers a submission: nothing was accepted."""

    error: type[DropreelError]
    sentence: str
    again: bool = False
    is_of_account: bool = False


_REQUEST_REFUSED = _Meaning(errors.RequestRefused, "refused the request")
# These refuse by their number alone. Any other status refuses only in the provider's own words: a
# gateway may answer with its own page, whatever happened to the request.
_MEANINGS = {
    401: _Meaning(errors.TokenRejected, "does not accept the token", is_of_account=True),
    402: _Meaning(errors.NoCredit, "has not enough credit in the account", is_of_account=True),
    # Not the fault of the files: another account's token may use it.
    403: _Meaning(errors.TokenRejected, "does not let the token's account use this model"),
    413: _REQUEST_REFUSED,
    429: _Meaning(errors.ProviderThrottled, "takes no more requests for now", again=True),
}
_OF_THE_TOKEN = re.compile(r"token|key|credential", re.IGNORECASE)
# After such an error the work may have been accepted.
_OF_A_SERVER = re.compile(r"internal|time.?out|timed out|unavailable", re.IGNORECASE)
_FAULTS_OF_FILES = (FailureCause.MODERATED, FailureCause.BAD_INPUT)
_MODERATED = _Meaning(errors.RenderModerated, "does not render this")


def is_about_the_request(status: int) -> bool:
    """Whether a client error concerns the request, not the account or our rate of requests."""
    return _refuses(status) and _MEANINGS.get(status, _REQUEST_REFUSED) is _REQUEST_REFUSED


def _refuses(status: int) -> bool:
    """Whether a status can mean that nothing was accepted. After 408 or 5xx, work may exist."""
    return 400 <= status < 500 and status != 408


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _usd(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        usd = float(value)
    except (ValueError, OverflowError):
        return None
    return usd if 0 <= usd < _MAX_USD else None


def plain_state(state: str) -> str:
    """A state as the pages spell it."""
    return state.strip().lower().replace("-", "_").replace(" ", "_")


def _object(value: object) -> object:
    return value if isinstance(value, dict) else {}


Text = Annotated[str, BeforeValidator(_text)]
"""A string or a number; anything else counts as empty."""

Usd = Annotated[float | None, BeforeValidator(_usd)]
"""An amount of US dollars; anything that cannot be one counts as missing."""


def _balance(value: object) -> float | None:
    try:
        usd = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return None
    return usd if math.isfinite(usd) and not isinstance(value, bool) else None


Balance = Annotated[float | None, BeforeValidator(_balance)]
"""The same, of an account: it may be large, or negative."""

OrEmpty = BeforeValidator(_object)
"""For a model inside an answer: anything but an object counts as empty."""

STATES: Mapping[str, RenderState] = {
    "queued": RenderState.QUEUED,
    "pending": RenderState.QUEUED,
    "waiting": RenderState.QUEUED,
    "starting": RenderState.QUEUED,
    "processing": RenderState.RENDERING,
    "in_progress": RenderState.RENDERING,
    "running": RenderState.RENDERING,
    "completed": RenderState.COMPLETED,
    "succeeded": RenderState.COMPLETED,
    "failed": RenderState.FAILED,
    "timeout": RenderState.FAILED,
    "expired": RenderState.FAILED,
    "rejected": RenderState.FAILED,
    "cancelled": RenderState.CANCELLED,
    "canceled": RenderState.CANCELLED,
}
"""The usual spellings; a dialect adds its own."""


class AnyAnswer(BaseModel, ABC, frozen=True):
    """A provider's answer, with the fields of all its endpoints."""

    @property
    @abstractmethod
    def accepted_id(self) -> str:
        """The request id; empty without one."""

    @property
    @abstractmethod
    def state(self) -> RenderState | None:
        """None when it is missing or unknown."""

    @property
    @abstractmethod
    def error_status(self) -> int | None:
        """The HTTP status that the answer itself names, also in an HTTP 200; 0 for an error
        without a known status; None for a good answer."""

    @property
    @abstractmethod
    def said(self) -> tuple[object, ...]:
        """The fields that may hold the provider's words about an error."""


A = TypeVar("A", bound=AnyAnswer)


@dataclass(frozen=True)
class Reply(Generic[A]):
    """What came back from one call."""

    http_status: int
    answer: A
    has_error_fields: bool
    retry_after_seconds: float
    token: str = field(repr=False)

    @property
    def is_2xx(self) -> bool:
        return 200 <= self.http_status < 300

    @property
    def is_contradictory(self) -> bool:
        """An error with a request id: the work may have been accepted."""
        could_be = self.is_2xx or self.http_status == 429 or self.http_status >= 500
        return could_be and self.error_status is not None and bool(self.answer.accepted_id)

    @property
    def error_status(self) -> int | None:
        """The HTTP status of an error, also of one inside an HTTP 200; None for a good answer."""
        return self.answer.error_status if self.is_2xx else self.http_status

    @property
    def means_failed_render(self) -> bool:
        """An HTTP 200 without a state, whose words blame the render and not the call: to ask again
        would give the same answer for ever."""
        status = self.error_status
        if (
            status is None
            or status in _MEANINGS
            or not self.is_2xx
            or self.answer.state is not None
        ):
            return False
        return cause_of(self.words) in _FAULTS_OF_FILES

    @cached_property
    def words(self) -> str:
        """The provider's own words about what went wrong."""
        said = filter(None, map(flat, self.answer.said))
        return self.clean(" - ".join(dict.fromkeys(said)))

    def is_usable_id(self, request_id: str) -> bool:
        """Whether an id can be stored and put into a path: dots alone would leave the path."""
        return (
            _REQUEST_ID.fullmatch(request_id) is not None
            and request_id.strip(".") != ""
            and request_id == self.clean(request_id)
        )

    def clean(self, text: str) -> str:
        """The text in one bounded line, without secrets."""
        return clean(text, self.token)


class HttpProvider(Provider, Generic[A]):
    """A provider behind an HTTP API: the base of each dialect, which adds submit, ask and result.

    It retries nothing but a 401, once, after the token was rotated. A 401 is a clear refusal, so
    this is no second submission.
    """

    lists_requests = False
    title: ClassVar[str]
    """How people call the provider, as in `catalog.TITLES`."""
    answers: type[A]
    account_path: ClassVar[str]
    """Of the free call that says whether the account is accepted."""
    error_fields: ClassVar[frozenset[str]] = frozenset(
        {"code", "error_code", "message", "error_message", "error", "detail", "details"}
    )
    """A JSON object with one of these is an error in the provider's own words; a page is not."""

    def __init__(
        self,
        base_url: str,
        token: Token,
        *,
        timeout_seconds: float = ANSWER_SECONDS,
        submit_timeout_seconds: float = SUBMISSION_ANSWER_SECONDS,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._submit_timeout_seconds = submit_timeout_seconds
        self._clock = clock
        self._deadline = Deadline()
        self._client = httpx.Client(
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
            transport=transport or DeadlineTransport(self._deadline),
        )

    def ask_account(self) -> Account:
        try:
            token = self._fetch_token(fresh=True)
            reply = self._send(
                "GET", self.account_path, None, token, ANSWER_SECONDS, max_bytes=_MAX_ANSWER_BYTES
            )
        except _NotSent as err:
            is_missing = err.error is errors.TokenMissing
            state = AccountState.NO_TOKEN if is_missing else AccountState.UNKNOWN
            return Account(state=state, message=str(err))
        except _NoReply as err:
            return Account(state=AccountState.UNKNOWN, message=str(err))
        return self._account_refused(reply) or self.account_in(reply)

    def _account_refused(self, reply: Reply[A]) -> Account | None:
        status = reply.error_status
        refusal = None if status is None else self._refusal_or_unclear(reply, status)
        if not isinstance(refusal, Refusal) or not refusal.closes_provider:
            return None
        is_of_token = refusal.code == errors.TokenRejected.__name__
        state = AccountState.REFUSED if is_of_token else AccountState.NO_CREDIT
        return Account(state=state, message=refusal.message)

    @abstractmethod
    def account_in(self, reply: Reply[A]) -> Account:
        """The account in an answer that does not refuse it. Not every answer accepts it."""

    def _with_balance(self, reply: Reply[A], balance_usd: float | None) -> Account:
        """For a call that answers with the balance."""
        if balance_usd is None or reply.error_status is not None:
            status = reply.error_status or 0
            words = self._sentence("answered without a balance", reply, status)
            return Account(state=AccountState.UNKNOWN, message=words)
        if balance_usd > 0:
            return Account(state=AccountState.ACCEPTED, balance_usd=balance_usd)
        words = f"{self.title} has no credit in the account: the balance is {balance_usd:g} USD."
        return Account(state=AccountState.NO_CREDIT, balance_usd=balance_usd, message=words)

    def cancel(self, ticket: Ticket) -> bool:  # noqa: ARG002 - for dialects that can
        """False: nothing is cancelled at a provider that publishes no way to."""
        return False

    def find(self, *_: Any, **__: Any) -> Lookup:  # noqa: ANN401 - as in the protocol
        """Nothing is found at a provider that publishes no list."""
        return Lookup(listed=0, readable=0)

    def cost(self, ticket: Ticket) -> float | None:  # noqa: ARG002 - for dialects that can
        """None: a provider that publishes no bills says nothing, or says it in the result."""
        return None

    def forget(self, ticket: Ticket) -> bool:  # noqa: ARG002 - for dialects that can
        """False: nothing is deleted at a provider that publishes no way to."""
        return False

    def means_unknown(self, reply: Reply[A]) -> bool:
        """Whether an error about accepted work means that the provider does not know it."""
        return reply.error_status in (404, 410)

    def authorization(self, token: str) -> Mapping[str, str]:
        """The headers that carry the token."""
        return {"Authorization": f"Bearer {token}"}

    def _submit(self, path: str, payload: Mapping[str, object]) -> str:
        """Send a submission and return the request id. Raises `Refusal` or `Unclear`."""
        try:
            reply = self._call("POST", path, payload, self._submit_timeout_seconds)
        except _NotSent as err:
            raise Refusal(err.error.__name__, str(err), again=err.again) from None
        except _NoReply as err:
            raise Unclear(str(err)) from None
        status = reply.error_status
        if status is not None:
            raise self._refusal_or_unclear(reply, status)
        request_id = reply.answer.accepted_id
        if not reply.is_usable_id(request_id):
            raise Unclear(f"{self.title} answered without a request id.")
        return request_id

    def _get(self, path: str) -> Reply[A]:
        """A usable answer about accepted work. Raises `Unreachable` or `UnknownRequest`."""
        reply = self._ask("GET", path)
        status = reply.error_status
        if status is None or (reply.is_2xx and reply.answer.state is not None):
            # A failed render may carry an error code: the state is the answer.
            return reply
        if self.means_unknown(reply):
            raise UnknownRequest(f"{self.title} does not know the request.")
        if reply.means_failed_render:
            return reply
        raise self._unreachable(reply, status)

    def _ask(
        self,
        method: str,
        path: str,
        payload: Mapping[str, object] | None = None,
        answer_seconds: float = 0,
        max_bytes: int = _MAX_ANSWER_BYTES,
    ) -> Reply[A]:
        """Any answer about accepted work, also an error. Raises `Unreachable`."""
        try:
            return self._call(method, path, payload, answer_seconds, max_bytes)
        except (_NotSent, _NoReply) as err:
            raise Unreachable(str(err)) from None

    def _in_progress(self, reply: Reply[A], status: str) -> Answer:
        """For an unknown state: the render may still run."""
        reported = f"{self.title} reports a state that is not known: {reply.clean(status)}."
        return Answer(state=RenderState.RENDERING, message=f"{reported} {reply.words}".rstrip())

    def _raise_unless_over(self, state: RenderState | None) -> None:
        if state in (RenderState.QUEUED, RenderState.RENDERING):
            raise Unreachable(f"{self.title} says that the render is not complete yet.")

    def _unreachable(self, reply: Reply[A], status: int) -> Unreachable:
        return Unreachable(
            self._sentence("answered with an error", reply, status),
            retry_after_seconds=reply.retry_after_seconds,
        )

    def _refusal_or_unclear(self, reply: Reply[A], status: int) -> Refusal | Unclear:
        if reply.is_contradictory:
            return Unclear(self._sentence("answered with an error and a request id", reply, status))
        meaning = _MEANINGS.get(status) or (_REQUEST_REFUSED if reply.has_error_fields else None)
        statuses = (status, reply.answer.error_status or status)
        # In a 200, under a word for a code.
        if status == 0 and surely_no_credit(reply.words) and not _OF_A_SERVER.search(reply.words):
            meaning, statuses = _MEANINGS[402], (402, 402)
        if meaning is None or not all(map(_refuses, statuses)):
            return Unclear(self._sentence("answered with an error", reply, status))
        if status != 401:
            meaning = _meaning_of_words(status, reply.words) or meaning
        elif means_no_credit(reply.words) and not _OF_THE_TOKEN.search(reply.words):
            meaning = _MEANINGS[402]
        return Refusal(
            meaning.error.__name__,
            self._sentence(meaning.sentence, reply, status),
            again=meaning.again,
            closes_provider=meaning.is_of_account and not names_model_or_plan(reply.words),
            retry_after_seconds=reply.retry_after_seconds,
        )

    def _sentence(self, what: str, reply: Reply[A], status: int) -> str:
        sentence = f"{self.title} {what}" + (f" ({status})" if status else "")
        return f"{sentence}: {reply.words}" if reply.words else f"{sentence}."

    def _call(
        self,
        method: str,
        path: str,
        payload: Mapping[str, object] | None = None,
        answer_seconds: float = 0,
        max_bytes: int = _MAX_ANSWER_BYTES,
    ) -> Reply[A]:
        token = self._fetch_token(fresh=False)
        seconds = answer_seconds or self._timeout_seconds
        reply = self._send(method, path, payload, token, seconds, max_bytes=max_bytes)
        if reply.error_status != 401 or reply.is_contradictory:
            return reply
        try:
            rotated = self._fetch_token(fresh=True)
        except _NotSent:
            return reply
        if rotated == token:
            return reply
        return self._send(method, path, payload, rotated, seconds, max_bytes=max_bytes)

    def _fetch_token(self, *, fresh: bool) -> str:
        try:
            return self._token(fresh=fresh)
        except errors.TokenMissing as err:
            raise _NotSent(errors.TokenMissing, err.message) from None
        except TokenUnreadable as err:
            raise _NotSent(errors.ProviderUnavailable, str(err), again=True) from None

    def _send(
        self,
        method: str,
        path: str,
        payload: Mapping[str, object] | None,
        token: str,
        answer_seconds: float,
        *,
        max_bytes: int,
    ) -> Reply[A]:
        self._deadline.begin(CONNECT_SECONDS + answer_seconds)
        try:
            with self._client.stream(
                method,
                self._base_url + path,
                json=payload,
                headers=self.authorization(token),
                timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS),
            ) as response:
                body = _body(response, max_bytes)
                return Reply(
                    http_status=response.status_code,
                    answer=self._parsed(body),
                    has_error_fields=self._has_error_fields(body),
                    retry_after_seconds=retry_after_seconds(
                        response.headers.get("Retry-After"), self._clock()
                    ),
                    token=token,
                )
        # Their texts can hold what was sent: only their names are repeated.
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.UnsupportedProtocol,
            httpx.InvalidURL,
        ) as err:
            raise _NotSent(
                errors.ProviderUnavailable,
                f"{self.title} could not be reached ({type(err).__name__}).",
                again=True,
            ) from None
        except httpx.HTTPError as err:
            raise _NoReply(f"{self.title} gave no answer ({type(err).__name__}).") from None

    def _parsed(self, body: bytes) -> A:
        """An empty answer when the body is no JSON object."""
        try:
            return self.answers.model_validate_json(body)
        except ValidationError:
            return self.answers()

    def _has_error_fields(self, body: bytes) -> bool:
        try:
            answer = from_json(body)
        except ValueError:
            return False
        return isinstance(answer, dict) and not self.error_fields.isdisjoint(answer)


class _NotSent(Exception):
    """Nothing was sent, so nothing was accepted."""

    def __init__(self, error: type[DropreelError], message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.error = error
        self.again = again


class _NoReply(Exception):
    """Sent at least in part, without an answer."""


def _meaning_of_words(status: int, words: str) -> _Meaning | None:
    """What the words of a client error mean, before its number: a moderated job goes to no other
    offer, and missing credit is no fault of the files."""
    match cause_of(words):
        case FailureCause.MODERATED:
            # A limit of the account can be called a policy, too.
            is_sure = status not in (402, 429) or surely_moderated(words)
            return _MODERATED if is_sure else None
        case FailureCause.NO_CREDIT if status != 429 or surely_no_credit(words):
            return _MEANINGS[402]
        case _:
            return None


def _body(response: httpx.Response, max_bytes: int) -> bytes:
    """The body, unpacked if it is gzip; empty when it is too large, late, cut off or packed
    otherwise. The status counts without it."""
    # httpx would unpack nested encodings without a bound. Without this header it unpacks nothing.
    encoding = response.headers.pop("Content-Encoding", "identity").strip().lower()
    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > max_bytes:
                return b""
    except httpx.HTTPError:
        return b""
    if encoding in ("", "identity"):
        return bytes(body)
    return _unzipped(bytes(body), max_bytes) if encoding == "gzip" else b""


def _unzipped(body: bytes, max_bytes: int) -> bytes:
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = unpacking.decompress(body, max_bytes)
    except zlib.error:
        return b""
    return plain if unpacking.eof and not unpacking.unused_data else b""
