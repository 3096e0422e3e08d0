"""Never pay twice: what submit does on every outcome, and whatever interrupts it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dropreel.catalog import ProviderName
from dropreel.errors import (
    DropreelError,
    InputGone,
    NoCredit,
    ProviderThrottled,
    RequestRefused,
    SubmissionUnclear,
    TokenMissing,
    UnexpectedError,
)
from dropreel.job import Input
from dropreel.ledger import Attempt, AttemptState
from dropreel.polling import poll
from dropreel.provider import Answer, FailureCause, Refusal, RenderState, Unclear
from dropreel.render import Next, Plan, PlannedOffer, Submission, SubmitRequest, Ticket, Underway
from dropreel.submission import CALL_LIFE_SECONDS, CALL_NEEDS_SECONDS, MAX_TRIES, submit
from tests.render_fakes import (
    AUDIO,
    IMAGE,
    JOB,
    NOON,
    ONE_OFFER,
    PLAN,
    POLL_SETTINGS,
    RUNCOMFY,
    SUBMIT_SETTINGS,
    TICKET,
    WAVESPEED,
    FakeClock,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)

THROTTLED = Refusal("ProviderThrottled", "Too many requests.", again=True, retry_after_seconds=33)
NO_CREDIT = Refusal("NoCredit", "Not enough credit.")
FIRST = Next()
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

    runcomfy: ScriptedProvider
    wavespeed: ScriptedProvider = field(
        default_factory=lambda: ScriptedProvider(ProviderName.WAVESPEED)
    )
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    uploads: FakeUploads = field(default_factory=FakeUploads)
    clock: FakeClock = field(default_factory=FakeClock)
    plan: Plan = PLAN
    max_submissions: int = 2
    seconds_left: float = 80

    def submit(self, turn: Next = FIRST) -> Submission:
        return submit(
            SubmitRequest(plan=self.plan, next=turn),
            ledger=self.ledger,
            providers=by_name(self.runcomfy, self.wavespeed),
            uploads=self.uploads,
            clock=self.clock,
            seconds_left=lambda: self.seconds_left,
            settings=SUBMIT_SETTINGS.model_copy(update={"max_submissions": self.max_submissions}),
        )

    def attempt(self, number: int = 1) -> Attempt:
        found = self.ledger.find(JOB.id, number)
        assert found is not None
        return found


def test_accepted_request_gives_a_ticket_and_the_first_wait() -> None:
    provider = ScriptedProvider(submissions=["req-1"])
    bench = Bench(provider)

    submission = bench.submit()

    assert submission == Submission(ticket=TICKET, wait_seconds=5, next=Next(tries=1))
    assert bench.attempt().state is AttemptState.ACCEPTED
    assert bench.attempt().request_id == "req-1"


def test_request_names_the_pinned_inputs_as_the_offer_calls_them() -> None:
    provider = ScriptedProvider(submissions=["req-1"])

    Bench(provider).submit()

    [(endpoint, payload)] = provider.submitted
    assert endpoint == "wan-ai/wan-2-2/speech-to-video"
    assert set(payload) == {"image_url", "audio_url", "resolution"}
    assert payload["resolution"] == "480P"
    assert f"{IMAGE.key}?versionId={IMAGE.version_id}" in str(payload["image_url"])
    assert f"{AUDIO.key}?versionId={AUDIO.version_id}" in str(payload["audio_url"])


def test_conformed_copies_are_sent_in_the_place_of_the_uploads() -> None:
    image = IMAGE.model_copy(update={"key": f"work/{JOB.id}/image.jpg", "version_id": "w1"})
    provider = ScriptedProvider(submissions=["req-1"])
    bench = Bench(provider, plan=PLAN.model_copy(update={"image": image}))

    bench.submit()

    [(_, payload)] = provider.submitted
    assert f"{image.key}?versionId=w1" in str(payload["image_url"])
    assert AUDIO.key in str(payload["audio_url"])


def test_conformed_copy_that_has_expired_is_gone() -> None:
    audio = AUDIO.model_copy(update={"key": f"work/{JOB.id}/audio.mp3"})
    provider = ScriptedProvider(submissions=["req-1"])
    bench = Bench(
        provider,
        uploads=FakeUploads(gone=(audio,)),
        plan=PLAN.model_copy(update={"audio": audio}),
    )

    with pytest.raises(InputGone, match="work/"):
        bench.submit()

    assert provider.submitted == []


def test_job_without_a_voice_sends_none() -> None:
    flash = PlannedOffer(
        provider=ProviderName.RUNCOMFY,
        endpoint="wan-ai/wan-2-6/flash/image-to-video",
        fields={"prompt": "She smiles.", "duration": 5, "audio": True},
        estimated_usd=None,
    )
    provider = ScriptedProvider(submissions=["req-1"])
    silent = PLAN.model_copy(update={"route": (flash,), "audio": None, "audio_facts": None})

    Bench(provider, plan=silent).submit()

    [(endpoint, payload)] = provider.submitted
    assert endpoint == flash.endpoint
    assert set(payload) == {"img_url", "prompt", "duration", "audio"}
    assert payload["audio"] is True


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
    bench.submit()

    second = bench.submit(Next(attempt=2))

    assert second.ticket is not None
    assert (second.ticket.request_id, second.ticket.attempt) == ("req-2", 2)


def test_deleted_inputs_are_named_before_anything_is_begun() -> None:
    provider = ScriptedProvider(submissions=["req-1"])
    bench = Bench(provider, uploads=FakeUploads(gone=(IMAGE, AUDIO)))

    with pytest.raises(InputGone) as gone:
        bench.submit()

    assert IMAGE.key in gone.value.message
    assert AUDIO.key in gone.value.message
    assert bench.ledger.attempts(JOB.id) == ()
    assert provider.submitted == []


def test_refusal_that_may_pass_asks_to_be_called_again_after_what_the_provider_asks() -> None:
    provider = ScriptedProvider(submissions=[THROTTLED, "req-1"])
    bench = Bench(provider)

    refused = bench.submit()
    assert refused == Submission(ticket=None, wait_seconds=33, next=Next(tries=1))
    assert bench.attempt().state is AttemptState.POSTPONED

    accepted = bench.submit(refused.next)
    assert accepted.ticket is not None
    assert accepted.next == Next(tries=2)


def test_refusals_that_do_not_pass_end_after_a_bounded_number_of_tries() -> None:
    provider = ScriptedProvider(submissions=[THROTTLED])
    bench = Bench(provider, plan=ONE_OFFER)
    turn, waited_seconds = FIRST, 0

    with pytest.raises(ProviderThrottled, match="Too many requests"):
        while True:
            submission = bench.submit(turn)
            turn, waited_seconds = submission.next, waited_seconds + submission.wait_seconds

    assert len(provider.submitted) == MAX_TRIES
    assert waited_seconds < 15 * 60


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (NO_CREDIT, NoCredit),
        (Refusal("TokenMissing", "No token is stored."), TokenMissing),
        (Refusal("RequestRefused", "image_url: not an image"), RequestRefused),
        (Refusal("SomethingNew", "A code from tomorrow."), RequestRefused),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_definite_refusal_ends_the_job_with_the_providers_words(
    refusal: Refusal, error: type[DropreelError]
) -> None:
    bench = Bench(ScriptedProvider(submissions=[refusal]), plan=ONE_OFFER)

    with pytest.raises(error) as raised:
        bench.submit()

    assert raised.value.message == refusal.message
    assert bench.attempt().state is AttemptState.REFUSED
    assert (bench.attempt().code, bench.attempt().message) == (refusal.code, refusal.message)


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

    waits = Submission(ticket=None, wait_seconds=CALL_LIFE_SECONDS - 20, next=Next(tries=1))
    assert seen == [waits]
    assert bench.submit(Next(tries=1)).ticket == first.ticket
    assert len(outer.submitted) == 1


def test_nothing_is_begun_in_the_last_minute_of_a_call() -> None:
    provider = ScriptedProvider(submissions=["req-1"])
    bench = Bench(provider, seconds_left=CALL_NEEDS_SECONDS - 0.1)

    late = bench.submit()
    assert late == Submission(ticket=None, wait_seconds=5, next=Next(tries=1))
    assert bench.ledger.attempts(JOB.id) == ()
    assert provider.submitted == []

    bench.seconds_left = CALL_NEEDS_SECONDS
    assert bench.submit(late.next).ticket is not None


def test_calls_that_are_always_too_late_end_the_job() -> None:
    bench = Bench(ScriptedProvider(submissions=["req-1"]), seconds_left=1)
    turn = FIRST

    with pytest.raises(UnexpectedError, match="in time"):
        while True:
            turn = bench.submit(turn).next

    assert turn.tries == MAX_TRIES - 1
    assert bench.ledger.attempts(JOB.id) == ()


# Falling over


def falling_over(*refusals: Refusal, plan: Plan = PLAN) -> Bench:
    """RunComfy refuses, WaveSpeed accepts."""
    return Bench(
        ScriptedProvider(submissions=refusals),
        ScriptedProvider(ProviderName.WAVESPEED, submissions=["prediction-1"]),
        plan=plan,
    )


def test_definite_refusal_that_is_not_the_jobs_fault_goes_to_the_next_offer_at_once() -> None:
    bench = falling_over(NO_CREDIT)

    refused = bench.submit()
    assert refused == Submission(ticket=None, wait_seconds=0, next=Next(attempt=2, offer=1))

    accepted = bench.submit(refused.next)
    assert accepted.ticket == Ticket(
        provider=ProviderName.WAVESPEED,
        endpoint="wavespeed-ai/wan-2.2/speech-to-video",
        request_id="prediction-1",
        attempt=2,
        offer=1,
        submitted_at=NOON,
    )
    [(_, payload)] = bench.wavespeed.submitted
    assert set(payload) == {"image", "audio", "resolution"}
    assert [found.code for found in bench.ledger.attempts(JOB.id)] == ["NoCredit", None]


def test_patience_comes_before_falling_over() -> None:
    bench = falling_over(THROTTLED)
    turn = FIRST

    while turn.attempt == 1:
        turn = bench.submit(turn).next

    assert turn == Next(attempt=2, offer=1)
    assert len(bench.runcomfy.submitted) == MAX_TRIES


def test_refusal_whose_answer_was_lost_is_answered_again_without_a_call() -> None:
    bench = falling_over(NO_CREDIT)

    first, second = bench.submit(), bench.submit()

    assert second == first
    assert len(bench.runcomfy.submitted) == 1


def test_refused_attempt_goes_on_from_the_offer_that_it_was_sent_to() -> None:
    bench = falling_over(NO_CREDIT)
    sent = bench.ledger.begin(JOB.id, Next(offer=1), WAVESPEED, NOON)
    assert sent is not None
    bench.ledger.refuse(sent, "NoCredit", "Not enough credit.")

    with pytest.raises(NoCredit):
        bench.submit(Next(offer=0))

    assert bench.runcomfy.submitted == bench.wavespeed.submitted == []


def test_last_refusal_whose_answer_was_lost_is_raised_again_without_a_call() -> None:
    bench = falling_over(NO_CREDIT, plan=ONE_OFFER)

    for _ in range(2):
        with pytest.raises(NoCredit, match="Not enough credit"):
            bench.submit()

    assert len(bench.runcomfy.submitted) == 1


def test_job_that_every_offer_refuses_ends_with_the_last_refusal() -> None:
    bench = falling_over(NO_CREDIT)
    bench.wavespeed = ScriptedProvider(
        ProviderName.WAVESPEED, submissions=[Refusal("TokenMissing", "No token is stored.")]
    )

    with pytest.raises(TokenMissing, match="No token is stored"):
        bench.submit(bench.submit().next)

    assert [found.code for found in bench.ledger.attempts(JOB.id)] == ["NoCredit", "TokenMissing"]


# Whatever interrupts it


class Killed(BaseException):
    """The function's environment is gone: nothing after this point runs."""


POINTS = ("found", "begun", "arrived", "answered", "recording", "recorded")
# Whoever dies there leaves it unknown whether the provider has the request.
UNCLEAR_POINTS = ("arrived", "answered", "recording")


class Interruption:
    """Runs an event, once, when submit or poll comes to a point."""

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

    def begin(self, job_id: str, turn: Next, offer: PlannedOffer, now: datetime) -> Attempt | None:
        begun = super().begin(job_id, turn, offer, now)
        self.interruption.at("begun")
        return begun

    def _replace(self, attempt: Attempt, changes: dict[str, object]) -> None:
        losing = changes["state"] is AttemptState.LOST
        self.interruption.at("losing" if losing else "recording")
        super()._replace(attempt, changes)
        self.interruption.at("lost" if losing else "recorded")


class MoodyProvider(ScriptedProvider):
    """Accepts, refuses, or loses its answer, as the test says for each call. Renders all fail."""

    def __init__(self, name: ProviderName, ledger: InterruptedLedger) -> None:
        super().__init__(name)
        self._ledger = ledger
        self.mood = "accept"
        self.cause = FailureCause.OTHER
        self.accepted: list[str] = []
        self.refused: set[str] = set()
        self.unclear = False

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        mood = self.mood
        assert endpoint not in self.refused, "submitted where it was definitely refused"
        self._ledger.interruption.at("arrived")
        if mood == "refuse for now":
            raise Refusal("ProviderUnavailable", "Unavailable.", again=True)
        if mood == "refuse":
            self.refused.add(endpoint)
            raise Refusal("NoCredit", "Not enough credit.")
        if mood == "lose it":
            self.unclear = True
            raise Unclear("The connection broke before the request was read.")
        request_id = f"{self.name}-{len(self.accepted) + 1}"
        self.accepted.append(request_id)
        if mood == "accept and lose the answer":
            self.unclear = True
            raise Unclear("The connection broke after the request was read.")
        self._ledger.interruption.at("answered")
        return request_id

    def ask(self, request_id: str) -> Answer:
        assert request_id in self.accepted
        return Answer(state=RenderState.FAILED, cause=self.cause)


MOODS = st.sampled_from(
    ["accept", "refuse for now", "refuse", "lose it", "accept and lose the answer"]
)
CAUSES = st.sampled_from(FailureCause)
PLACES = st.integers(0, 9)


class NeverPayTwice(RuleBasedStateMachine):
    """Step Functions calls submit and poll again and again, also with what it was told earlier.

    Calls overlap, and die at any point; offers refuse, and renders fail.
    """

    @initialize(max_submissions=st.integers(1, 4))
    def drop(self, max_submissions: int) -> None:
        self.ledger = InterruptedLedger()
        self.providers = (
            MoodyProvider(ProviderName.RUNCOMFY, self.ledger),
            MoodyProvider(ProviderName.WAVESPEED, self.ledger),
        )
        flash = RUNCOMFY.model_copy(update={"endpoint": "wan-ai/wan-2-6/flash/image-to-video"})
        self.bench = Bench(
            *self.providers,
            ledger=self.ledger,
            plan=PLAN.model_copy(update={"route": (*PLAN.route, flash)}),
            max_submissions=max_submissions,
        )
        self.turns = [FIRST]
        self.tickets: list[Ticket] = []
        self.accepted_before_unclear: int | None = None

    def submit(self, turn: Next, mood: str) -> None:
        for provider in self.providers:
            provider.mood = mood
        with suppress(DropreelError):
            submission = self.bench.submit(turn)
            if submission.ticket:
                self.tickets.append(submission.ticket)
            self.turns.append(submission.next)

    def turn(self, place: int) -> Next:
        """Mostly the newest."""
        return self.turns[-1 - place % len(self.turns)] if place > 5 else self.turns[-1]

    def interrupt(self, point: str = "", event: Callable[[], None] = lambda: None) -> None:
        self.ledger.interruption = Interruption(point, event)

    def die_at(self, point: str) -> None:
        def die() -> None:
            self.providers[0].unclear |= point in UNCLEAR_POINTS
            raise Killed

        self.interrupt(point, die)

    @rule(mood=MOODS, place=PLACES)
    def submit_undisturbed(self, mood: str, place: int) -> None:
        self.interrupt()
        self.submit(self.turn(place), mood)

    @rule(mood=MOODS, place=PLACES, point=st.sampled_from(POINTS))
    def submit_and_die(self, mood: str, place: int, point: str) -> None:
        self.die_at(point)
        with suppress(Killed):
            self.submit(self.turn(place), mood)

    @rule(mood=MOODS, place=PLACES, point=st.sampled_from(POINTS), other=MOODS)
    def submit_twice_at_once(self, mood: str, place: int, point: str, other: str) -> None:
        turn = self.turn(place)
        self.interrupt(point, lambda: self.submit(turn, other))
        self.submit(turn, mood)

    @rule(place=PLACES, cause=CAUSES, point=st.sampled_from(["", "losing", "lost"]))
    def render_fails(self, place: int, cause: FailureCause, point: str) -> None:
        if not self.tickets:
            return
        for provider in self.providers:
            provider.cause = cause
        self.die_at(point)
        with suppress(DropreelError, Killed):
            progress = poll(
                Underway(plan=self.bench.plan, ticket=self.tickets[-1 - place % len(self.tickets)]),
                ledger=self.ledger,
                providers=by_name(*self.providers),
                clock=self.bench.clock,
                settings=POLL_SETTINGS.model_copy(
                    update={"max_submissions": self.bench.max_submissions}
                ),
            )
            assert progress.next is not None
            self.turns.append(progress.next)

    @rule(seconds=st.sampled_from([1, CALL_LIFE_SECONDS, 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.bench.clock.pass_seconds(seconds)

    @property
    def accepted(self) -> int:
        return sum(len(provider.accepted) for provider in self.providers)

    @invariant()
    def provider_accepted_at_most_what_is_allowed(self) -> None:
        assert self.accepted <= self.bench.max_submissions

    @invariant()
    def provider_accepted_nothing_after_an_unclear_submission(self) -> None:
        if self.accepted_before_unclear is not None:
            assert self.accepted == self.accepted_before_unclear
        elif any(provider.unclear for provider in self.providers):
            self.accepted_before_unclear = self.accepted

    @invariant()
    def a_failed_render_is_submitted_again_once(self) -> None:
        after_loss = [
            later
            for earlier, later in pairwise(self.ledger.attempts(JOB.id))
            if earlier.state is AttemptState.LOST
        ]
        assert len(after_loss) <= 1

    @invariant()
    def an_attempt_has_one_ticket(self) -> None:
        assert len(set(map(str, self.tickets))) == len({it.attempt for it in self.tickets})


TestNeverPayTwice = NeverPayTwice.TestCase
TestNeverPayTwice.settings = settings(max_examples=200, stateful_step_count=14, deadline=None)
