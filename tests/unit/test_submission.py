"""Never pay twice: what submit does on every outcome, and whatever interrupts it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dropreel.catalog import ProviderName
from dropreel.errors import (
    DropreelError,
    InputGone,
    NoCredit,
    ProviderThrottled,
    RequestRefused,
    SubmissionUnclear,
    TokenMissing,
)
from dropreel.job import Input
from dropreel.ledger import Attempt, AttemptState, Ledger
from dropreel.provider import Provider, Refusal, Unclear
from dropreel.render import Submission, SubmitRequest, Ticket
from dropreel.submission import CALL_LIFE_SECONDS, MAX_TRIES, submit
from tests.render_fakes import (
    AUDIO,
    IMAGE,
    JOB,
    NOON,
    PLAN,
    SUBMIT_SETTINGS,
    FakeClock,
    MemoryLedger,
    ScriptedProvider,
)

THROTTLED = Refusal("ProviderThrottled", "Too many requests.", again=True, retry_after_seconds=33)
SECRET = "X-Amz-Signature=0123"


@dataclass
class FakeUploads:
    gone: tuple[Input, ...] = ()

    def exists(self, bucket: str, pinned: Input) -> bool:
        return pinned not in self.gone

    def presigned_url(self, bucket: str, pinned: Input, valid_seconds: int) -> str:
        return f"https://{bucket}.s3.example/{pinned.key}?versionId={pinned.version_id}&{SECRET}"


@dataclass
class Bench:
    """Submit with everything around it replaced."""

    provider: Provider
    ledger: Ledger = field(default_factory=MemoryLedger)
    uploads: FakeUploads = field(default_factory=FakeUploads)
    clock: FakeClock = field(default_factory=FakeClock)

    def submit(self, *, tries: int = 0, attempt: int = 1) -> Submission:
        return submit(
            SubmitRequest(plan=PLAN, attempt=attempt, tries=tries),
            ledger=self.ledger,
            provider=self.provider,
            uploads=self.uploads,
            clock=self.clock,
            settings=SUBMIT_SETTINGS,
        )

    def attempt(self) -> Attempt:
        found = self.ledger.find(JOB.id, 1)
        assert found is not None
        return found


def test_accepted_request_gives_a_ticket_and_the_first_wait() -> None:
    provider = ScriptedProvider(submissions=["req-1"])
    bench = Bench(provider)

    submission = bench.submit()

    ticket = Ticket(
        provider=ProviderName.RUNCOMFY, request_id="req-1", attempt=1, submitted_at=NOON
    )
    assert submission == Submission(ticket=ticket, wait_seconds=5, tries=1)
    assert bench.attempt().state is AttemptState.ACCEPTED
    assert bench.attempt().request_id == "req-1"


def test_request_names_the_pinned_inputs_as_the_offer_calls_them() -> None:
    provider = ScriptedProvider(submissions=["req-1"])

    Bench(provider).submit()

    [(endpoint, payload)] = provider.submitted
    assert endpoint == "wan-ai/wan-2-2/speech-to-video"
    assert set(payload) == {"image_url", "audio_url"}
    assert f"{IMAGE.key}?versionId={IMAGE.version_id}" in str(payload["image_url"])
    assert f"{AUDIO.key}?versionId={AUDIO.version_id}" in str(payload["audio_url"])


def test_presigned_urls_stay_out_of_what_submit_returns() -> None:
    submission = Bench(ScriptedProvider(submissions=["req-1"])).submit()

    assert SECRET not in submission.model_dump_json()


def test_second_call_for_an_accepted_attempt_gets_the_same_ticket_and_calls_nobody() -> None:
    provider = ScriptedProvider(submissions=["req-1", "req-2"])
    bench = Bench(provider)
    first = bench.submit()
    bench.clock.pass_seconds(300)
    bench.uploads.gone = (IMAGE,)  # what happens to the files no longer matters

    assert bench.submit().ticket == first.ticket
    assert len(provider.submitted) == 1


def test_another_attempt_is_another_submission() -> None:
    provider = ScriptedProvider(submissions=["req-1", "req-2"])
    bench = Bench(provider)
    bench.submit(attempt=1)

    second = bench.submit(attempt=2)

    assert second.ticket is not None
    assert (second.ticket.request_id, second.ticket.attempt) == ("req-2", 2)


def test_deleted_inputs_are_named_before_anything_is_begun() -> None:
    provider = ScriptedProvider(submissions=["req-1"])
    bench = Bench(provider, uploads=FakeUploads(gone=(IMAGE, AUDIO)))

    with pytest.raises(InputGone) as gone:
        bench.submit()

    assert IMAGE.key in gone.value.message
    assert AUDIO.key in gone.value.message
    assert bench.ledger.latest(JOB.id) is None
    assert provider.submitted == []


def test_refusal_that_may_pass_asks_to_be_called_again_after_what_the_provider_asks() -> None:
    provider = ScriptedProvider(submissions=[THROTTLED, "req-1"])
    bench = Bench(provider)

    refused = bench.submit()
    assert refused == Submission(ticket=None, wait_seconds=33, tries=1)

    accepted = bench.submit(tries=refused.tries)
    assert accepted.ticket is not None
    assert accepted.tries == 2


def test_refusals_that_do_not_pass_end_after_a_bounded_number_of_tries() -> None:
    provider = ScriptedProvider(submissions=[THROTTLED])
    bench = Bench(provider)
    tries, waited_seconds = 0, 0

    with pytest.raises(ProviderThrottled, match="Too many requests"):
        while True:
            submission = bench.submit(tries=tries)
            tries, waited_seconds = submission.tries, waited_seconds + submission.wait_seconds

    assert len(provider.submitted) == MAX_TRIES
    assert waited_seconds < 15 * 60


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refusal("NoCredit", "Not enough credit."), NoCredit),
        (Refusal("TokenMissing", "No token is stored."), TokenMissing),
        (Refusal("RequestRefused", "image_url: not an image"), RequestRefused),
        (Refusal("SomethingNew", "A code from tomorrow."), RequestRefused),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_definite_refusal_ends_the_job_with_the_providers_words(
    refusal: Refusal, error: type[DropreelError]
) -> None:
    bench = Bench(ScriptedProvider(submissions=[refusal]))

    with pytest.raises(error) as raised:
        bench.submit()

    assert raised.value.message == refusal.message
    assert bench.attempt().state is AttemptState.REFUSED
    assert bench.attempt().refused_code == refusal.code


def test_unclear_outcome_fails_and_is_never_sent_again() -> None:
    provider = ScriptedProvider(submissions=[Unclear("No answer (ReadTimeout)."), "req-2"])
    bench = Bench(provider)

    with pytest.raises(SubmissionUnclear, match="ReadTimeout"):
        bench.submit()
    bench.clock.pass_seconds(CALL_LIFE_SECONDS)
    with pytest.raises(SubmissionUnclear, match="2026-11-20 12:00:00 UTC"):
        bench.submit()

    assert len(provider.submitted) == 1


def test_ticket_survives_a_ledger_that_cannot_record_it() -> None:
    class FullLedger(MemoryLedger):
        def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
            raise OSError("the table does not answer")

    provider = ScriptedProvider(submissions=["req-1", "req-2"])
    bench = Bench(provider, ledger=FullLedger())

    submission = bench.submit()
    assert submission.ticket is not None
    assert submission.ticket.request_id == "req-1"

    bench.clock.pass_seconds(CALL_LIFE_SECONDS)
    with pytest.raises(SubmissionUnclear):
        bench.submit()
    assert len(provider.submitted) == 1


def test_call_that_finds_another_at_work_waits_for_its_ticket() -> None:
    outer = ScriptedProvider(submissions=["req-1"])
    seen: list[Submission] = []

    class SlowProvider(ScriptedProvider):
        def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
            bench.clock.pass_seconds(20)
            seen.append(bench.submit())
            return outer.submit(endpoint, payload)

    bench = Bench(SlowProvider())
    first = bench.submit()

    assert seen == [Submission(ticket=None, wait_seconds=CALL_LIFE_SECONDS - 20, tries=1)]
    assert bench.submit(tries=1).ticket == first.ticket
    assert len(outer.submitted) == 1


# Whatever interrupts it


class Killed(BaseException):
    """The function's environment is gone: nothing after this point runs."""


POINTS = ("found", "begun", "arrived", "answered", "recording", "recorded")


class Interruption:
    """Runs an event, once, when submit comes to a point."""

    def __init__(self, point: str = "", event: Callable[[], None] = lambda: None) -> None:
        self.point = point
        self.event = event

    def at(self, point: str) -> None:
        if point == self.point:
            self.point = ""
            self.event()


class InterruptedLedger(MemoryLedger):
    interruption = Interruption()

    def find(self, job_id: str, number: int) -> Attempt | None:
        found = super().find(job_id, number)
        self.interruption.at("found")
        return found

    def begin(
        self, job_id: str, number: int, provider: ProviderName, now: datetime
    ) -> Attempt | None:
        begun = super().begin(job_id, number, provider, now)
        self.interruption.at("begun")
        return begun

    def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
        self.interruption.at("recording")
        super().accept(attempt, request_id, now)
        self.interruption.at("recorded")

    def refuse(self, attempt: Attempt, code: str) -> None:
        self.interruption.at("recording")
        super().refuse(attempt, code)
        self.interruption.at("recorded")


class MoodyProvider(ScriptedProvider):
    """Accepts, refuses, or loses its answer, as the test says for each call."""

    mood = "accept"
    accepted = 0

    def __init__(self, ledger: InterruptedLedger) -> None:
        super().__init__()
        self._ledger = ledger

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        mood = self.mood
        self._ledger.interruption.at("arrived")
        if mood == "refuse for now":
            raise Refusal("ProviderUnavailable", "Unavailable.", again=True)
        if mood == "refuse":
            raise Refusal("NoCredit", "Not enough credit.")
        if mood == "lose it":
            raise Unclear("The connection broke before the request was read.")
        self.accepted += 1
        request_id = f"req-{self.accepted}"
        if mood == "accept and lose the answer":
            raise Unclear("The connection broke after the request was read.")
        self._ledger.interruption.at("answered")
        return request_id


MOODS = st.sampled_from(
    ["accept", "refuse for now", "refuse", "lose it", "accept and lose the answer"]
)


class NeverPayTwice(RuleBasedStateMachine):
    """Step Functions calls submit again and again; calls overlap, and die at any point."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = InterruptedLedger()
        self.provider = MoodyProvider(self.ledger)
        self.bench = Bench(self.provider, ledger=self.ledger)
        self.tickets: list[Ticket] = []

    def call(self, mood: str) -> None:
        self.provider.mood = mood
        with suppress(DropreelError):
            ticket = self.bench.submit().ticket
            if ticket:
                self.tickets.append(ticket)

    @rule(mood=MOODS)
    def call_undisturbed(self, mood: str) -> None:
        self.ledger.interruption = Interruption()
        self.call(mood)

    @rule(mood=MOODS, point=st.sampled_from(POINTS))
    def call_and_die(self, mood: str, point: str) -> None:
        def die() -> None:
            raise Killed

        self.ledger.interruption = Interruption(point, die)
        with suppress(Killed):
            self.call(mood)

    @rule(mood=MOODS, point=st.sampled_from(POINTS), other=MOODS)
    def call_twice_at_once(self, mood: str, point: str, other: str) -> None:
        self.ledger.interruption = Interruption(point, lambda: self.call(other))
        self.call(mood)

    @rule(seconds=st.sampled_from([1, CALL_LIFE_SECONDS, 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.bench.clock.pass_seconds(seconds)

    @invariant()
    def provider_accepted_at_most_one(self) -> None:
        assert self.provider.accepted <= 1

    @invariant()
    def all_tickets_are_the_same(self) -> None:
        assert len(set(map(str, self.tickets))) <= 1


TestNeverPayTwice = NeverPayTwice.TestCase
TestNeverPayTwice.settings = settings(max_examples=150, stateful_step_count=12, deadline=None)
