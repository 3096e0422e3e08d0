"""Stand-ins at the seams of submit, poll and conclude: provider, ledger and clock."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from dropreel.catalog import AudioFormat, ImageFormat, ProviderName
from dropreel.job import Input, Job, Role
from dropreel.ledger import Attempt, AttemptState
from dropreel.provider import Answer
from dropreel.render import AudioFacts, ImageFacts, Plan
from dropreel.settings import PollSettings, SubmitSettings

T = TypeVar("T")

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

IMAGE = Input(role=Role.IMAGE, key="inbox/team/anna.png", version_id="v1", size_bytes=1000)
AUDIO = Input(role=Role.AUDIO, key="inbox/team/anna.mp3", version_id="v2", size_bytes=2000)
JOB = Job(
    id="anna-0123456789abcdef",
    bucket="uploads",
    folder="team/",
    stem="anna",
    model="wan-2.2-speech-to-video",
    inputs=(IMAGE, AUDIO),
)
PLAN = Plan(
    job=JOB,
    provider=ProviderName.RUNCOMFY,
    endpoint="wan-ai/wan-2-2/speech-to-video",
    image=ImageFacts(format=ImageFormat.PNG, width=512, height=512, size_bytes=1000),
    audio=AudioFacts(format=AudioFormat.MP3, duration_seconds=3.5, size_bytes=2000),
)
ENVIRONMENT = {
    "LEDGER_TABLE": "ledger",
    "RUNCOMFY_URL": "https://runcomfy.example",
    "RUNCOMFY_SECRET": "runcomfy-token",
}
SUBMIT_SETTINGS = SubmitSettings.model_validate(ENVIRONMENT)
POLL_SETTINGS = PollSettings.model_validate(ENVIRONMENT)


class FakeClock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class ScriptedProvider:
    """Answers what the test says, in that order: an exception is raised, anything else returned.

    The last answer stays.
    """

    name = ProviderName.RUNCOMFY

    def __init__(
        self,
        *,
        submissions: Iterable[str | Exception] = (),
        answers: Iterable[Answer | Exception] = (),
        cancels: bool | Exception = False,
    ) -> None:
        self._submissions = list(submissions)
        self._answers = list(answers)
        self._cancels = cancels
        self.submitted: list[tuple[str, Mapping[str, object]]] = []
        self.cancelled: list[str] = []

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        self.submitted.append((endpoint, payload))
        return _next(self._submissions)

    def ask(self, request_id: str) -> Answer:
        return _next(self._answers)

    def video_url(self, request_id: str) -> str | None:
        raise NotImplementedError

    def cancel(self, request_id: str) -> bool:
        self.cancelled.append(request_id)
        if isinstance(self._cancels, Exception):
            raise self._cancels
        return self._cancels


def _next(script: "list[T | Exception]") -> T:
    said = script.pop(0) if len(script) > 1 else script[0]
    if isinstance(said, Exception):
        raise said
    return said


class MemoryLedger:
    """The ledger's rules in a dictionary; `test_ledger_dynamodb` holds both to the same tests."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._begun = 0

    def find(self, job_id: str, number: int) -> Attempt | None:
        return self._attempts.get((job_id, number))

    def latest(self, job_id: str) -> Attempt | None:
        numbers = [number for job, number in self._attempts if job == job_id]
        return self.find(job_id, max(numbers)) if numbers else None

    def begin(
        self, job_id: str, number: int, provider: ProviderName, now: datetime
    ) -> Attempt | None:
        there = self.find(job_id, number)
        if there and there.state is not AttemptState.REFUSED:
            return None
        self._begun += 1
        attempt = Attempt(
            job_id=job_id,
            number=number,
            provider=provider,
            state=AttemptState.BEGUN,
            begun_at=now,
            begun_by=f"call {self._begun}",
        )
        self._attempts[job_id, number] = attempt
        return attempt

    def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
        self._replace(
            attempt,
            {"state": AttemptState.ACCEPTED, "request_id": request_id, "accepted_at": now},
        )

    def refuse(self, attempt: Attempt, code: str) -> None:
        self._replace(attempt, {"state": AttemptState.REFUSED, "refused_code": code})

    def _replace(self, attempt: Attempt, changes: dict[str, object]) -> None:
        there = self._attempts[attempt.job_id, attempt.number]
        if there.begun_by != attempt.begun_by:
            raise RuntimeError("another call has begun this attempt since")
        self._attempts[attempt.job_id, attempt.number] = there.model_copy(update=changes)
