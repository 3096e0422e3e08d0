"""Stand-ins at the seams of submit, poll, deliver and conclude: provider, ledger and clock."""

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from dropreel.model.catalog import AudioFormat, ImageFormat, ProviderName
from dropreel.model.closure import Account, AccountState, Closure
from dropreel.model.job import Input, Job, Role
from dropreel.model.ledger import (
    SAME_START,
    Admitted,
    Attempt,
    AttemptState,
    Outcome,
    Run,
    RunClosed,
)
from dropreel.model.messages import AudioFacts, ImageFacts, NextAttempt, Plan, PlannedOffer
from dropreel.model.provider import (
    QUEUE_TIMEOUT_SECONDS,
    RENDER_TIMEOUT_SECONDS,
    Answer,
    Lookup,
    Provider,
    Result,
    Ticket,
)
from dropreel.runtime.settings import SubmitSettings

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
SENT_IMAGE = Input(
    role=Role.IMAGE, key=f"work/{JOB.id}/image.png", version_id="w1", size_bytes=1000
)
SENT_AUDIO = Input(
    role=Role.AUDIO, key=f"work/{JOB.id}/audio.mp3", version_id="w2", size_bytes=2000
)
RUNCOMFY = PlannedOffer(
    provider="runcomfy",
    endpoint="wan-ai/wan-2-2/speech-to-video",
    fields={"resolution": "480P"},
)
WAVESPEED = PlannedOffer(
    provider="wavespeed",
    endpoint="wavespeed-ai/wan-2.2/speech-to-video",
    fields={"resolution": "480p"},
)
PLAN = Plan(
    job=JOB,
    route=(RUNCOMFY, WAVESPEED),
    image=SENT_IMAGE,
    image_facts=ImageFacts(format=ImageFormat.PNG, width=512, height=512, size_bytes=1000),
    audio=SENT_AUDIO,
    audio_facts=AudioFacts(format=AudioFormat.MP3, duration_seconds=3.5, size_bytes=2000),
    sha256={IMAGE.key: "1" * 64, AUDIO.key: "2" * 64},
)
ONE_OFFER = PLAN.model_copy(update={"route": (RUNCOMFY,)})
TICKET = Ticket(
    provider=RUNCOMFY.provider,
    endpoint=RUNCOMFY.endpoint,
    request_id="req-1",
    attempt=1,
    offer=0,
    submitted_at=NOON,
)


def providers(**changes: Mapping[str, object]) -> str:
    """The variable `PROVIDERS`, with changes by provider."""
    accounts = {
        "runcomfy": {"max_in_flight": 10, "max_submits_per_minute": 0},
        "wavespeed": {"max_in_flight": 2, "max_submits_per_minute": 2},
    }
    return json.dumps(
        {
            name: {"url": f"https://{name}.example", "secret": f"{name}-token"}
            | account
            | dict(changes.get(name, {}))
            for name, account in accounts.items()
        }
    )


ENVIRONMENT = {
    "DROPREEL_VERSION": "1.2.3",
    "EVENT_BUS": "dropreel",
    "LEDGER_TABLE": "ledger",
    "PROVIDERS": providers(),
    "STATE_MACHINE_ARN": "arn:aws:states:eu-central-1:123456789012:stateMachine:dropreel-render",
    "WORK_BUCKET": "work",
}
SUBMIT_SETTINGS = SubmitSettings.model_validate(ENVIRONMENT)


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

    def __init__(
        self,
        name: ProviderName = "runcomfy",
        *,
        submissions: Iterable[str | Exception] = (),
        answers: Iterable[Answer | Exception] = (),
        cancels: bool | Exception = False,
        lookups: Iterable[Lookup | Exception] | None = None,
    ) -> None:
        self.name = name
        self._submissions = list(submissions)
        self._answers = list(answers)
        self._cancels = cancels
        self._lookups = list(lookups or ())
        self.lists_requests = lookups is not None
        self.looked_for: list[tuple[str, Collection[str], datetime, datetime, Collection[str]]] = []
        self.submitted: list[tuple[str, Mapping[str, object]]] = []
        self.cancelled: list[str] = []
        self.forgotten: list[str] = []
        self.billed: list[str] = []
        self.costs: list[float | Exception | None] = [None]
        self.account = Account(state=AccountState.ACCEPTED)

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        self.submitted.append((endpoint, payload))
        return _next(self._submissions)

    def ask(self, ticket: Ticket) -> Answer:
        return _next(self._answers)

    def result(self, ticket: Ticket) -> Result:
        raise NotImplementedError

    def find(
        self,
        endpoint: str,
        urls: Collection[str],
        since: datetime,
        until: datetime,
        known: Collection[str],
    ) -> Lookup:
        self.looked_for.append((endpoint, urls, since, until, known))
        return _next(self._lookups)

    def cost(self, ticket: Ticket) -> float | None:
        self.billed.append(ticket.request_id)
        return _next(self.costs)

    def ask_account(self) -> Account:
        return self.account

    def forget(self, ticket: Ticket) -> bool:
        self.forgotten.append(ticket.request_id)
        return True

    def cancel(self, ticket: Ticket) -> bool:
        self.cancelled.append(ticket.request_id)
        if isinstance(self._cancels, Exception):
            raise self._cancels
        return self._cancels


def _next(script: "list[T | Exception]") -> T:
    said = script.pop(0) if len(script) > 1 else script[0]
    if isinstance(said, Exception):
        raise said
    return said


def by_name(*providers: ScriptedProvider) -> Callable[[ProviderName], Provider]:
    """What finds a provider for a step, which must ask for the right one."""
    return {provider.name: provider for provider in providers}.__getitem__


class MemoryLedger:
    """The ledger's rules in a dictionary; `test_ledger_dynamodb` holds both to the same tests."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._begun = 0
        self._runs: dict[tuple[str, int], Run] = {}
        self._outcomes: dict[tuple[str, int], tuple[datetime, Outcome]] = {}
        self._turns: dict[ProviderName, datetime] = {}
        self.admits: dict[int, Admitted] = {}  # by attempt

    def find(self, job_id: str, number: int) -> Attempt | None:
        return self._attempts.get((job_id, number))

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        return tuple(self._attempts[key] for key in sorted(self._attempts) if key[0] == job_id)

    def admitted(self, job: Job, attempt: int) -> Admitted | None:
        return self.admits.get(attempt)

    def begin(
        self,
        job_id: str,
        next_attempt: NextAttempt,
        offer: PlannedOffer,
        now: datetime,
        *,
        run: int = 1,
        queue_timeout_seconds: float = QUEUE_TIMEOUT_SECONDS,
        render_timeout_seconds: float = RENDER_TIMEOUT_SECONDS,
        estimated_usd: float | None = None,
    ) -> Attempt | None:
        of_run = self._runs.get((job_id, run))
        if of_run and of_run.closed_at:
            raise RunClosed(job_id)
        there = self.find(job_id, next_attempt.attempt)
        if there and there.state is not AttemptState.POSTPONED:
            return None
        self._begun += 1
        attempt = Attempt(
            job_id=job_id,
            number=next_attempt.attempt,
            run=run,
            provider=offer.provider,
            endpoint=offer.endpoint,
            offer=next_attempt.offer,
            state=AttemptState.BEGUN,
            begun_at=now,
            begun_by=f"call {self._begun}",
            estimated_usd=estimated_usd,
            queue_timeout_seconds=queue_timeout_seconds,
            render_timeout_seconds=render_timeout_seconds,
        )
        self._attempts[job_id, next_attempt.attempt] = attempt
        return attempt

    def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
        self._replace(
            attempt,
            {"state": AttemptState.ACCEPTED, "request_id": request_id, "accepted_at": now},
        )

    def postpone(self, attempt: Attempt, code: str, message: str) -> None:
        self._replace(attempt, {"state": AttemptState.POSTPONED, "code": code, "message": message})

    def refuse(
        self, attempt: Attempt, code: str, message: str, *, closes_provider: bool = False
    ) -> Attempt:
        refused = {"state": AttemptState.REFUSED, "code": code, "message": message}
        return self._replace(attempt, refused | {"closes_provider": closes_provider})

    def lose(self, job_id: str, ticket: Ticket, code: str, message: str) -> None:
        there = self.find(job_id, ticket.attempt)
        taken = there and (there.request_id or there.state is AttemptState.BEGUN)
        if not there or not taken or there.request_id not in (None, ticket.request_id):
            raise RuntimeError("the provider did not take this request for this attempt")
        self._replace(
            there,
            {
                "state": AttemptState.LOST,
                "request_id": ticket.request_id,
                "accepted_at": ticket.submitted_at,
                "code": code,
                "message": message,
            },
        )

    def confirm(self, job_id: str, ticket: Ticket) -> None:
        there = self.find(job_id, ticket.attempt)
        if there and there.state is AttemptState.BEGUN and there.request_id is None:
            self._attempts[job_id, ticket.attempt] = there.model_copy(
                update={
                    "state": AttemptState.ACCEPTED,
                    "request_id": ticket.request_id,
                    "accepted_at": ticket.submitted_at,
                }
            )

    def settle(self, job_id: str, ticket: Ticket, actual_usd: float) -> None:
        there = self.find(job_id, ticket.attempt)
        if there and there.actual_usd is None and there.request_id == ticket.request_id:
            self._attempts[job_id, ticket.attempt] = there.model_copy(
                update={"actual_usd": actual_usd}
            )

    def is_closed(self, job: Job) -> bool:
        return self._run(job).closed_at is not None

    def take_turn(self, provider: ProviderName, per_minute: int, now: datetime) -> datetime:
        next_attempt = max(now, self._turns.get(provider, now))
        self._turns[provider] = next_attempt + timedelta(
            microseconds=math.ceil(60_000_000 / per_minute)
        )
        return next_attempt

    def runs(self, job_id: str) -> tuple[Run, ...]:
        return tuple(self._runs[key] for key in sorted(self._runs) if key[0] == job_id)

    def note_run(self, run: Run) -> None:
        """As admit leaves it behind."""
        self._runs[run.job_id, run.number] = run

    def resume(self, plan: Plan, started_at: datetime, now: datetime) -> None:
        resumed = {"plan": plan, "started_at": started_at}
        self.note_run(self._run(plan.job).model_copy(update=resumed))

    def close(self, job: Job, now: datetime) -> None:
        run = self._run(job)
        self.note_run(run.model_copy(update={"closed_at": run.closed_at or now}))

    def end(self, job: Job, started_at: datetime, outcome: Outcome, now: datetime) -> Outcome:
        there = self.outcome(job, started_at)
        if there is None:
            self._outcomes[job.id, job.run] = (started_at, outcome)
        return there or outcome

    def outcome(self, job: Job, started_at: datetime) -> Outcome | None:
        there = self._outcomes.get((job.id, job.run))
        return there[1] if there and there[0] >= started_at - SAME_START else None

    def list_ended(self, outcome: Outcome) -> None:
        """Nothing reads the lists here."""

    def mark_sent(self, job: Job, now: datetime) -> bool:
        started_at, outcome = self._outcomes[job.id, job.run]
        sent = outcome.model_copy(update={"sent_at": outcome.sent_at or now})
        self._outcomes[job.id, job.run] = (started_at, sent)
        return outcome.sent_at is None

    def _run(self, job: Job) -> Run:
        return self._runs.get((job.id, job.run)) or Run(job_id=job.id, number=job.run)

    def _replace(self, attempt: Attempt, changes: dict[str, object]) -> Attempt:
        there = self._attempts[attempt.job_id, attempt.number]
        if there.begun_by != attempt.begun_by:
            raise RuntimeError("another call has begun this attempt since")
        losing = changes["state"] is AttemptState.LOST
        if not losing and there.state not in (AttemptState.BEGUN, changes["state"]):
            raise RuntimeError("the attempt has its outcome already")
        changed = there.model_copy(update=changes)
        self._attempts[attempt.job_id, attempt.number] = changed
        return changed


class MemoryClosures:
    """The closed providers in a dictionary; `test_closures` holds both to the same tests."""

    def __init__(self, *closed: Closure) -> None:
        self._closed = {it.provider: it for it in closed}

    def all(self) -> tuple[Closure, ...]:
        return tuple(self._closed.values())

    def put(self, closure: Closure, seen: Closure | None) -> bool:
        if not self._is_unchanged(closure.provider, seen):
            return False
        self._closed[closure.provider] = closure
        return True

    def open(self, seen: Closure) -> bool:
        is_unchanged = self._is_unchanged(seen.provider, seen)
        if is_unchanged:
            self._closed.pop(seen.provider)
        return is_unchanged

    def _is_unchanged(self, provider: ProviderName, seen: Closure | None) -> bool:
        there = self._closed.get(provider)
        if there is None or seen is None:
            return there is seen
        return (there.closed_at, there.trial_at) == (seen.closed_at, seen.trial_at)
