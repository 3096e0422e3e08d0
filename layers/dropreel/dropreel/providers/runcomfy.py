"""RunComfy's model API: submit, status, result, cancel. Its page describes answers loosely."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from dropreel.model.catalog import TITLES
from dropreel.model.closure import Account, AccountState
from dropreel.model.provider import (
    Answer,
    FailureCause,
    RenderLost,
    RenderState,
    Result,
    Ticket,
    UnknownRequest,
    Unreachable,
)
from dropreel.providers.http import (
    STATES,
    AnyAnswer,
    HttpProvider,
    Reply,
    Text,
    Usd,
    is_about_the_request,
    plain_state,
)
from dropreel.providers.outputs import published_video_urls, video_urls
from dropreel.providers.words import cause_of, flat

# Published: in_queue, in_progress, completed, cancelled. Its clients of 2026 also wait on waiting
# and starting, and stop at error, timeout, expired and rejected. `success` is left out: it may
# describe the answer.
_STATES = {**STATES, "in_queue": RenderState.QUEUED, "error": RenderState.FAILED}
# An `error` with one of these codes, or with such words, is the call's own: no failed render.
_ERRORS_OF_THE_CALL = (401, 402, 403, 404, 408, 410, 429)
_NOT_READY = re.compile(
    r"\b(?:results?|outputs?|videos?|request|job|task|render)[ _](?:is |are |was )?"
    r"not[ _](?:yet )?(?:ready|available|complete|completed|finished|found)\b"
    r"|\bstill (?:running|in progress|processing|rendering|queued)\b",
    re.IGNORECASE,
)
_OF_A_FAILURE = re.compile(r"fail|error|crash|abort|exception|memory|cuda|gpu", re.IGNORECASE)
_OF_THE_FILES = (FailureCause.MODERATED, FailureCause.BAD_INPUT)
_OF_THE_SERVER = re.compile(r"^5\d|internal|time.?out|unavailable|server", re.IGNORECASE)


_NO_REQUEST = "00000000-0000-4000-8000-000000000000"


def _is_not_ready(words: str) -> bool:
    """Whether words say that a render goes on, and nothing of a failure: to wait for one that has
    failed costs time, to give up one that goes on costs a second render."""
    rest, found = _NOT_READY.subn("", words)
    return found > 0 and not _OF_A_FAILURE.search(rest) and cause_of(rest) not in _OF_THE_FILES


class _Answer(AnyAnswer, extra="allow"):
    """Any other field may hold the video."""

    request_id: Text = ""
    status: Text = ""
    outcome: Text = ""
    queue_position: Text = ""
    error_code: Text = ""
    code: Text = ""
    error: Any = None
    error_message: Any = None
    message: Any = None
    detail: Any = None
    details: Any = None
    cost: Usd = None

    @property
    def accepted_id(self) -> str:
        return self.request_id

    @property
    def state(self) -> RenderState | None:
        state = plain_state(self.status)
        return None if state == "error" and self._is_of_the_call else _STATES.get(state)

    @property
    def _is_of_the_call(self) -> bool:
        words = flat(list(self.said))
        return self.error_status in _ERRORS_OF_THE_CALL or _is_not_ready(words)

    @property
    def may_be_of_the_server(self) -> bool:
        """An `error` with the code of a server's fault, and no words about the files: only the
        result tells whether the render failed."""
        is_of_a_server = any(
            _OF_THE_SERVER.search(code) for code in (self.error_code.strip(), self.code.strip())
        )
        is_of_the_files = cause_of(flat(list(self.said))) in _OF_THE_FILES
        return plain_state(self.status) == "error" and is_of_a_server and not is_of_the_files

    @property
    def is_cancelled(self) -> bool:
        return RenderState.CANCELLED in (self.state, _STATES.get(plain_state(self.outcome)))

    @property
    def error_status(self) -> int | None:
        """`error_code` is the status and three more digits: 401001. It can be a word, too."""
        code = self.error_code.strip()
        if not code.strip("0") or code.lower() in ("none", "null", "ok", "success"):
            return None
        status = code[:3]
        return int(status) if status.isascii() and status.isdigit() else 0

    @property
    def said(self) -> tuple[object, ...]:
        codes = (code for code in (self.error_code, self.code) if not code.strip().isdigit())
        return *codes, self.message, self.error_message, self.error, self.detail, self.details

    @property
    def first_video(self) -> str | None:
        return next(iter(video_urls(self.model_extra)), None)

    @property
    def outcome_of_result(self) -> RenderState | None:
        """The render's outcome; None when the result is no proof: an error in it may be the
        call's own."""
        if self.state not in (RenderState.COMPLETED, None):
            return self.state
        words = flat([self.error, self.error_message])
        if words and not published_video_urls(self.model_extra):
            return RenderState.FAILED if cause_of(words) in _OF_THE_FILES else None
        has_output = self.first_video or {"output", "outputs"} & self.model_fields_set
        if self.state is None and not has_output:
            return None
        return RenderState.COMPLETED


class RunComfy(HttpProvider[_Answer]):
    """RunComfy's dialect."""

    title = TITLES["runcomfy"]
    answers = _Answer
    # The state of a request that does not exist. Its balance is at another host, and on no page.
    account_path = f"/v1/requests/{_NO_REQUEST}/status"

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        return self._submit(f"/v1/models/{quote(endpoint)}", payload)

    def ask(self, ticket: Ticket) -> Answer:
        """The outcome of a final state is in the result: RunComfy's own clients read it there, and
        know no state `failed`."""
        reply = self._get_status(ticket)
        answer = reply.answer
        state = RenderState.FAILED if reply.means_failed_render else answer.state
        if state is RenderState.COMPLETED or answer.may_be_of_the_server:
            try:
                return self._outcome(ticket, "result")[0]
            except (Unreachable, UnknownRequest):
                if state is not RenderState.COMPLETED:
                    raise self._unreachable(reply, answer.error_status or 0) from None
                return Answer(state=state)  # deliver asks for the result again
        if state is RenderState.FAILED:
            return _lost(reply, state, reply.words or self._words_of_result(ticket))
        if state is RenderState.QUEUED and answer.queue_position:
            position = reply.clean(answer.queue_position)
            return Answer(state=state, message=f"Position {position} in the queue.")
        if state is not None:
            return Answer(state=state)
        return self._in_progress(reply, answer.status)

    def result(self, ticket: Ticket) -> Result:
        """With `include_cost`, as RunComfy's public partner nodes ask (runcomfy/client.py, 2026).
        They ask again later: a cost of 0 may be one that is not known yet."""
        outcome, answer = self._outcome(ticket, "result?include_cost=true")
        self._raise_unless_over(outcome.state)
        if outcome.state is not RenderState.COMPLETED:
            raise RenderLost(outcome)
        return Result(video_url=answer.first_video, actual_usd=answer.cost or None)

    def _outcome(self, ticket: Ticket, what: str) -> tuple[Answer, _Answer]:
        """The result's outcome, and the result."""
        reply = self._get(_path(ticket, what))
        state = RenderState.FAILED if reply.means_failed_render else reply.answer.outcome_of_result
        if state is None:
            raise Unreachable("RunComfy answered without a result.")
        if state in (RenderState.FAILED, RenderState.CANCELLED):
            return _lost(reply, state, reply.words), reply.answer
        return Answer(state=state), reply.answer

    def cancel(self, ticket: Ticket) -> bool:
        """A cancellation can be accepted before it is done, and a second one can be an error:
        unless the answer is clear, the request's state decides."""
        try:
            reply = self._ask("POST", _path(ticket, "cancel"))
            status = reply.error_status
            if status is None and reply.answer.is_cancelled:
                return True
            if status is not None and not is_about_the_request(status):
                raise self._unreachable(reply, status)
            return self._get_status(ticket).answer.state is RenderState.CANCELLED
        except UnknownRequest:
            return False

    def account_in(self, reply: Reply[_Answer]) -> Account:
        """That the request is unknown, or somebody else's, is an answer to an accepted token."""
        if reply.error_status in (403, 404) and reply.has_error_fields:
            return Account(state=AccountState.ACCEPTED)
        words = self._sentence("answered otherwise", reply, reply.error_status or 0)
        return Account(state=AccountState.UNKNOWN, message=words)

    def _words_of_result(self, ticket: Ticket) -> str:
        try:
            return self._get(_path(ticket, "result")).words
        except (Unreachable, UnknownRequest):
            return ""

    def _get_status(self, ticket: Ticket) -> Reply[_Answer]:
        reply = self._get(_path(ticket, "status"))
        if not reply.answer.status:
            raise Unreachable("RunComfy answered without a status.")
        return reply


def _lost(reply: Reply[_Answer], state: RenderState, words: str) -> Answer:
    if state is RenderState.CANCELLED:
        return Answer(state=state, message=words)
    status = plain_state(reply.answer.status)
    reason = f"RunComfy gives no reason but the state {status}."
    if status in ("", "failed", "error"):
        reason = "RunComfy gives no reason."
    return Answer(state=state, message=words or reason, cause=cause_of(words))


def _path(ticket: Ticket, what: str) -> str:
    # Not the answer's own status_url, which could point anywhere.
    return f"/v1/requests/{quote(ticket.request_id, safe='')}/{what}"


Dialect = RunComfy
