"""A third provider, which exists in tests only: its dialect and its offer, in under 120 lines.

It differs from the two real ones in all that a dialect decides: the scheme of authorization, where
things are, and how answers and errors look. In Dropreel it would be `providers/acme.py`, and the
offer would be in the catalog.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import BaseModel

from dropreel.model.catalog import AudioFormat, AudioLimits, ImageFormat, ImageLimits, Offer, Option
from dropreel.model.closure import Account
from dropreel.model.provider import Answer, RenderLost, RenderState, Result, Ticket, Unreachable
from dropreel.providers.http import STATES, AnyAnswer, Balance, HttpProvider, OrEmpty, Reply, Text
from dropreel.providers.words import cause_of

OFFER = Offer(
    provider="acme",
    endpoint="talking-heads/v3",
    page="Acme: Talking Heads 3",
    image_field="face",
    image=ImageLimits(formats=(ImageFormat.JPEG, ImageFormat.PNG)),
    audio_field="voice",
    audio=AudioLimits(formats=(AudioFormat.WAV,), required=True, duration_at_most_seconds=60),
    options=(
        Option(
            name="resolution",
            sent_name="quality",
            kind="string",
            values=("480p", "720p"),
            sent_as={"480p": "sd", "720p": "hd"},
            default="480p",
        ),
    ),
    usd_per_second={"480p": 0.02, "720p": 0.04},
)

_STATES = {**STATES, "drawing": RenderState.RENDERING, "done": RenderState.COMPLETED}


class _Job(BaseModel):
    uid: Text = ""
    phase: Text = ""


class _Problem(BaseModel):
    """RFC 9457."""

    status: int = 0
    title: Text = ""
    detail: Text = ""


class _Answer(AnyAnswer):
    job: Annotated[_Job, OrEmpty] = _Job()
    problem: _Problem | None = None
    files: Any = None
    balance: Balance = None

    @property
    def accepted_id(self) -> str:
        return self.job.uid

    @property
    def state(self) -> RenderState | None:
        return _STATES.get(self.job.phase)

    @property
    def error_status(self) -> int | None:
        return self.problem.status if self.problem else None

    @property
    def said(self) -> tuple[object, ...]:
        return (self.problem.title, self.problem.detail) if self.problem else ()


class Acme(HttpProvider[_Answer]):
    """Acme's dialect."""

    title = "Acme"
    answers = _Answer
    error_fields = frozenset({"problem"})
    account_path = "/v2/me"

    def authorization(self, token: str) -> Mapping[str, str]:
        return {"X-Acme-Key": token}

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        return self._submit("/v2/jobs", {"pipeline": endpoint, "input": payload})

    def ask(self, ticket: Ticket) -> Answer:
        reply = self._get(_path(ticket))
        if reply.answer.state is None:
            return self._in_progress(reply, reply.answer.job.phase)
        return _answer(reply, reply.answer.state)

    def result(self, ticket: Ticket) -> Result:
        if (answer := self.ask(ticket)).state in (RenderState.FAILED, RenderState.CANCELLED):
            raise RenderLost(answer)
        self._raise_unless_over(answer.state)
        files = self._get(f"{_path(ticket)}/files").answer.files
        if not isinstance(files, dict):
            raise Unreachable("Acme answered without its files.")
        return Result(video_url=files.get("film"))

    def account_in(self, reply: Reply[_Answer]) -> Account:
        return self._with_balance(reply, reply.answer.balance)

    def cancel(self, ticket: Ticket) -> bool:
        return self._ask("DELETE", _path(ticket)).answer.state is RenderState.CANCELLED


def _answer(reply: Reply[_Answer], state: RenderState) -> Answer:
    return Answer(state=state, message=reply.words, cause=cause_of(reply.words))


def _path(ticket: Ticket) -> str:
    return f"/v2/{quote(ticket.endpoint)}/jobs/{quote(ticket.request_id, safe='')}"


Dialect = Acme
