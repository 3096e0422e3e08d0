"""Submit with everything around it replaced."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any, BinaryIO

from dropreel.model.errors import Reason
from dropreel.model.job import Input
from dropreel.model.ledger import Attempt, AttemptState
from dropreel.model.messages import NextAttempt, Plan, Submission, SubmitRequest
from dropreel.model.provider import Refusal, Ticket, Unclear
from dropreel.model.uploads import Unreadable
from dropreel.render.submission import submit
from dropreel.runtime.settings import SubmitSettings
from tests.support.render_fakes import (
    JOB,
    NOON,
    PLAN,
    SUBMIT_SETTINGS,
    FakeClock,
    MemoryClosures,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)

THROTTLED = Refusal("ProviderThrottled", "Too many requests.", again=True)
THROTTLED_FOR_33 = Refusal(
    "ProviderThrottled", "Too many requests.", again=True, retry_after_seconds=33
)
UNAVAILABLE = Refusal("ProviderUnavailable", "Unavailable.", again=True)
UNCLEAR = Unclear("No answer (ReadTimeout).")
NO_CREDIT = Refusal("NoCredit", "Not enough credit.")
NO_CREDIT_AT_ALL = Refusal("NoCredit", "The account is empty.", closes_provider=True)
NO_TOKEN = Refusal("TokenMissing", "No token is stored.")
FIRST = NextAttempt()
SECRET = "X-Amz-Signature=0123"


@dataclass
class FakeUploads:
    gone: tuple[Input, ...] = ()
    unreadable: tuple[Input, ...] = ()
    valid_seconds: set[int] = field(default_factory=set)

    def exists(self, bucket: str, pinned: Input) -> bool:
        return pinned not in self.gone

    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        if pinned in self.unreadable:
            raise Unreadable(Reason(file=pinned.key, rule="", found="archived", cure=""))
        return BytesIO(b"a copy")

    def presigned_url(self, bucket: str, pinned: Input, valid_seconds: int) -> str:
        self.valid_seconds.add(valid_seconds)
        return f"https://{bucket}.s3.example/{pinned.key}?versionId={pinned.version_id}&{SECRET}"


@dataclass
class Bench:
    runcomfy: ScriptedProvider
    wavespeed: ScriptedProvider = field(
        default_factory=lambda: ScriptedProvider("wavespeed", submissions=["pred-1"])
    )
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    closures: MemoryClosures = field(default_factory=MemoryClosures)
    uploads: FakeUploads = field(default_factory=FakeUploads)
    clock: FakeClock = field(default_factory=FakeClock)
    plan: Plan = PLAN
    seconds_left: float = 240
    jitter: float | None = 1  # the whole of each growing wait; None is submit's own
    settings: SubmitSettings = SUBMIT_SETTINGS
    recorded: list[tuple[Attempt, Ticket]] = field(default_factory=list)
    states_when_recorded: list[AttemptState] = field(default_factory=list)

    @classmethod
    def of(cls, *runcomfy: str | Exception, **changes: Any) -> "Bench":  # noqa: ANN401
        """RunComfy answers so, WaveSpeed accepts."""
        return cls(ScriptedProvider(submissions=runcomfy), **changes)

    def submit(self, next_attempt: NextAttempt = FIRST) -> Submission:
        jitter, submit_ = self.jitter, submit
        if jitter is not None:
            submit_ = partial(submit, jitter=lambda: jitter)
        return submit_(
            SubmitRequest(plan=self.plan, next=next_attempt),
            ledger=self.ledger,
            closures=self.closures,
            providers=by_name(self.runcomfy, self.wavespeed),
            uploads=self.uploads,
            clock=self.clock,
            seconds_left=lambda: self.seconds_left,
            settings=self.settings,
            recorded=self._record,
        )

    def _record(self, attempt: Attempt, ticket: Ticket) -> None:
        self.recorded.append((attempt, ticket))
        written = self.ledger.find(attempt.job_id, attempt.number)
        assert written
        self.states_when_recorded.append(written.state)

    def submit_until(
        self, done: Callable[[Submission], bool], next_attempt: NextAttempt = FIRST
    ) -> Submission:
        """Call again as the state machine does, until it is done or submit raises."""
        while not done(submission := self.submit(next_attempt)):
            self.clock.pass_seconds(submission.wait_seconds)
            next_attempt = submission.next
        return submission

    @property
    def attempt(self) -> Attempt:
        """The first."""
        found = self.ledger.find(JOB.id, 1)
        assert found is not None
        return found

    @property
    def waited_seconds(self) -> float:
        return (self.clock.now - NOON).total_seconds()

    @property
    def codes(self) -> list[str | None]:
        """Of each attempt."""
        return [attempt.code for attempt in self.ledger.attempts(JOB.id)]


def never_rendered(*_: object) -> None:
    raise AssertionError("no render is ever completed here")
