"""WaveSpeedAI's API: submit a task, ask for its result, list tasks. It publishes no way to cancel
one.

Every answer is an envelope `{code, message, data}`. Three things can report an error: the HTTP
status, the envelope's `code` (an HTTP status, too), and the task's `status` with its `code`.
Numbers come from the page "WaveSpeedAI: Error Codes". The list is on the page "WaveSpeedAI:
Predictions" (wavespeed.ai/docs/docs-common-api/predictions); that its items may have `inputs` is in
its command line's types only (WaveSpeedAI/wavespeed-cli, src/lib/api.ts; both November 2026).
"""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, model_validator

from dropreel.model.catalog import TITLES
from dropreel.model.closure import Account
from dropreel.model.provider import (
    Answer,
    FailureCause,
    Lookup,
    RenderLost,
    RenderState,
    Result,
    Ticket,
    Unreachable,
)
from dropreel.providers.http import (
    ASIDE_ANSWER_SECONDS,
    STATES,
    AnyAnswer,
    Balance,
    HttpProvider,
    OrEmpty,
    Reply,
    Text,
    Usd,
    plain_state,
)
from dropreel.providers.listing import files_in, hides_versions
from dropreel.providers.outputs import video_urls
from dropreel.providers.words import cause_of, flat

# Published: created, processing, completed, failed. Its client knows cancelled, timeout, deleted.
_STATES = {
    **STATES,
    "created": RenderState.QUEUED,
    "deleted": RenderState.CANCELLED,
}
_REASONS = {
    "timeout": "It took too long at WaveSpeed.",
    "deleted": "It was deleted at WaveSpeed.",
}
_CAUSES = {
    1200: FailureCause.MODERATED,  # content moderation
    1400: FailureCause.BAD_INPUT,  # missing parameter
    1401: FailureCause.BAD_INPUT,  # invalid parameter
    1402: FailureCause.MEDIA_UNREADABLE,  # media access failed
    1403: FailureCause.OTHER,  # task execution failed
    1405: FailureCause.OTHER,  # task failed
    5000: FailureCause.OTHER,  # internal error
    5003: FailureCause.OTHER,  # service unavailable
    5004: FailureCause.OTHER,  # timeout
}
_ABOUT_THE_INPUT = {1200, 1400, 1401, 1402}

# "code 1402", "[1402] ...", "1402: ...", but not "1200 x 900 pixels"
_CODE_IN_WORDS = re.compile(r"code\W{0,3}(\d{4})\b|^\W*(\d{4})\s*[:\])-]", re.IGNORECASE)

PAGE_SIZE, MAX_PAGES = 100, 5
"""Of the list: its page allows at most 100 items; the pages of one look fit into one call."""
_MAX_PAGE_BYTES = 16 * 1_048_576  # inputs can hold whole pictures

# A 400 with no other words is about the task, which WaveSpeed does not know.
_TASK = r"(?:prediction|task|record)"
_UNKNOWN_TASK = re.compile(
    rf"(?:failed to \w+ (?:the )?{_TASK}: )?"
    rf"(?:(?:(?:the |this )?{_TASK}(?: with)?(?: id)?(?: \S*\d\S*)? )?"
    r"(?:(?:was |is |could )?not (?:be )?found|does not exist|no longer exists"
    r"|(?:has |is |was )?(?:been )?(?:deleted|expired))"
    rf"|(?:no such|unknown|cannot find|no) {_TASK}(?: with)?(?: id)?(?: \S+)?)\W*",
    re.IGNORECASE,
)


def _number(code: str) -> int:
    code = code.strip()
    return int(code[:9]) if code.isascii() and code.isdigit() else 0


def _booleans(found: object) -> list[bool]:
    return [one for one in found if isinstance(one, bool)] if isinstance(found, list) else []


def _time(found: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(found) if isinstance(found, str) else None
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time and time.tzinfo is None else time


class _BilledTask(BaseModel, frozen=True):
    uuid: Text = ""


class _Order(BaseModel, frozen=True):
    state: Text = ""


class _Listed(BaseModel, frozen=True):
    """A task in the list, or a bill."""

    id: Text = ""
    created_at: Annotated[datetime | None, BeforeValidator(_time)] = None
    inputs: Any = None
    input: Any = None  # the same, by the same types
    billing_type: Text = ""
    price: Usd = None
    order: Annotated[_Order, OrEmpty] = _Order()
    prediction: Annotated[_BilledTask, OrEmpty] = _BilledTask()

    def is_of(self, since: datetime, until: datetime) -> bool:
        """True also without a time: the list was asked for that time."""
        return self.created_at is None or since <= self.created_at <= until


def _listed(found: object) -> list[object] | None:
    return [it for it in found if isinstance(it, dict)] if isinstance(found, list) else None


Code = Annotated[Text, Field(validation_alias=AliasChoices("code", "error_code"))]


class _Task(BaseModel, frozen=True, extra="allow"):
    """`data`: the task, which is also called a prediction; or a page of the list. Any other field
    may hold the video."""

    id: Text = ""
    status: Text = ""
    code: Code = ""
    error: Any = None
    has_nsfw_contents: Annotated[tuple[bool, ...], BeforeValidator(_booleans)] = ()
    items: Annotated[tuple[_Listed, ...] | None, BeforeValidator(_listed)] = None
    deleted_count: Any = None
    balance: Balance = None

    @property
    def first_video(self) -> str | None:
        return next(iter(video_urls(self.model_extra)), None)


class _Envelope(AnyAnswer):
    code: Code = ""
    message: Any = None
    error_message: Any = None
    error: Any = None
    detail: Any = None
    data: Annotated[_Task, OrEmpty] = _Task()

    @model_validator(mode="before")
    @classmethod
    def _without_envelope(cls, answer: object) -> object:
        """The page of error codes shows tasks without their envelope."""
        if isinstance(answer, dict) and "data" not in answer and "status" in answer:
            return {"data": answer}
        return answer

    @property
    def accepted_id(self) -> str:
        return self.data.id

    @property
    def state(self) -> RenderState | None:
        return _STATES.get(plain_state(self.data.status))

    @property
    def task_code(self) -> int:
        """Of a failed task, from any field; 0 without one."""
        in_words = _CODE_IN_WORDS.search(flat(self.data.error))
        said = (
            self.data.code,
            self.data.error.get("code") if isinstance(self.data.error, dict) else "",
            self.code,
            (in_words[1] or in_words[2]) if in_words else "",
        )
        return next((code for code in map(_number, map(str, said)) if code >= 1000), 0)

    @property
    def error_status(self) -> int | None:
        """A code of four digits is a task's. Without a task, it is about the submission."""
        code = self.code.strip()
        if code and not code.isdigit():
            return 0
        if 300 <= _number(code) < 1000:
            return _number(code)
        if self.data.id or not self.task_code:
            return None
        return 400 if self.task_code in _ABOUT_THE_INPUT else 500

    @property
    def said(self) -> tuple[object, ...]:
        message = flat(self.message)
        says_nothing = message.lower().strip(".") in ("success", "ok")
        return (
            *(code for code in (self.data.code, self.code) if re.search("[A-Za-z]", code)),
            self.data.error,
            "" if says_nothing else message,
            self.error_message,
            self.error,
            self.detail,
        )


class WaveSpeed(HttpProvider[_Envelope]):
    """WaveSpeedAI's dialect."""

    title = TITLES["wavespeed"]
    answers = _Envelope
    lists_requests = True
    # From the page "Balance API" (wavespeed.ai/docs/docs-common-api/balance, November 2026).
    account_path = "/api/v3/balance"

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        return self._submit(f"/api/v3/{quote(endpoint)}", payload)

    def ask(self, ticket: Ticket) -> Answer:
        reply = self._get_task(ticket)
        state, status = reply.answer.state, reply.answer.data.status
        if state is RenderState.FAILED or reply.means_failed_render:
            return _failure(reply)
        if state is not None:
            return Answer(state=state, message=_reason(reply))
        if not status:
            raise Unreachable("WaveSpeed answered without a status.")
        return self._in_progress(reply, status)

    def result(self, ticket: Ticket) -> Result:
        reply = self._get_task(ticket)
        answer = reply.answer
        self._raise_unless_over(answer.state)
        if answer.state is RenderState.FAILED or reply.means_failed_render:
            raise RenderLost(_failure(reply))
        if answer.state is RenderState.CANCELLED:
            raise RenderLost(Answer(state=answer.state, message=_reason(reply)))
        task = answer.data
        if answer.state is None and not task.first_video:
            raise Unreachable("WaveSpeed answered without a result.")
        return Result(
            video_url=task.first_video,
            nsfw=any(task.has_nsfw_contents) if task.has_nsfw_contents else None,
        )

    def account_in(self, reply: Reply[_Envelope]) -> Account:
        return self._with_balance(reply, reply.answer.data.balance)

    def find(
        self,
        endpoint: str,
        urls: Collection[str],
        since: datetime,
        until: datetime,
        known: Collection[str],
    ) -> Lookup:
        ours = files_in([*urls])
        listed = readable = 0
        for page in range(1, MAX_PAGES + 1):
            reply = self._get_page(page, endpoint, since, until)
            items = reply.answer.data.items
            if items is None:
                raise Unreachable("WaveSpeed answered without a list.")
            for item in items:
                if not item.is_of(since, until):
                    continue
                inputs = [item.inputs, item.input]
                is_readable = any(inputs) and not hides_versions(inputs, ours)
                listed, readable = listed + 1, readable + is_readable
                is_ours = bool(ours) and ours <= files_in(inputs)
                if is_ours and item.id not in known and reply.is_usable_id(item.id):
                    return Lookup(request_id=item.id, listed=listed, readable=readable)
            if len(items) < PAGE_SIZE:
                return Lookup(listed=listed, readable=readable)
        return Lookup(listed=listed, readable=readable, read_of_more=MAX_PAGES * PAGE_SIZE)

    def _get_page(
        self, page: int, endpoint: str, since: datetime, until: datetime
    ) -> Reply[_Envelope]:
        asked = {
            "page": page,
            "page_size": PAGE_SIZE,
            "model": endpoint,
            "created_after": since.isoformat(),
            "created_before": until.isoformat(),
        }
        reply = self._ask("POST", "/api/v3/predictions", asked, max_bytes=_MAX_PAGE_BYTES)
        if reply.error_status is not None:
            raise self._unreachable(reply, reply.error_status)
        return reply

    def cost(self, ticket: Ticket) -> float | None:
        """From the page "WaveSpeedAI: Billings" (wavespeed.ai/docs/docs-common-api/billings,
        November 2026). A bill of another type, such as a refund, or of another state than `done`
        leaves the sum unknown: its newer page also shows the state `pre`."""
        asked = {"prediction_uuids": [ticket.request_id], "page": 1, "page_size": 10}
        reply = self._ask("POST", "/api/v3/billings/search", asked, ASIDE_ANSWER_SECONDS)
        if reply.error_status is not None:
            raise self._unreachable(reply, reply.error_status)
        items = reply.answer.data.items or ()
        bills = [item for item in items if item.prediction.uuid == ticket.request_id]
        prices = [
            bill.price
            for bill in bills
            if bill.billing_type in ("", "deduct") and bill.order.state in ("", "done")
        ]
        known = [price for price in prices if price is not None]
        return round(sum(known), 6) if known and len(known) == len(bills) else None

    def forget(self, ticket: Ticket) -> bool:
        """From the page "WaveSpeedAI: Delete Predictions" (wavespeed.ai/docs/delete-task, November
        2026). It does not say what becomes of the files of the inputs."""
        reply = self._ask(
            "POST", "/api/v3/predictions/delete", {"ids": [ticket.request_id]}, ASIDE_ANSWER_SECONDS
        )
        status = reply.error_status
        if status is None or self.means_unknown(reply):
            return bool(reply.answer.data.deleted_count != 0)
        raise self._unreachable(reply, status)

    def means_unknown(self, reply: Reply[_Envelope]) -> bool:
        if reply.error_status != 400 or reply.answer.accepted_id or reply.answer.state:
            return super().means_unknown(reply)
        return _UNKNOWN_TASK.fullmatch(reply.words) is not None

    def _get_task(self, ticket: Ticket) -> Reply[_Envelope]:
        # Not the answer's own urls.get, which could point anywhere.
        return self._get(f"/api/v3/predictions/{quote(ticket.request_id, safe='')}/result")


def _reason(reply: Reply[_Envelope]) -> str:
    """What the state alone explains, if anything."""
    return _REASONS.get(plain_state(reply.answer.data.status), "")


def _failure(reply: Reply[_Envelope]) -> Answer:
    code = reply.answer.task_code
    words = reply.words
    message = words or _reason(reply) or "WaveSpeed gives no reason."
    if code and str(code) not in message:
        message = f"{message} (code {code})"
    # A code may give no cause, such as 1403 "task execution failed": then the words decide.
    cause = _CAUSES.get(code, FailureCause.OTHER)
    if cause is FailureCause.OTHER:
        cause = cause_of(words)
    return Answer(state=RenderState.FAILED, message=message, cause=cause)


Dialect = WaveSpeed
