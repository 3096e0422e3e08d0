"""Never pay twice: what submit does on every outcome, and whatever interrupts it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dropreel.model.catalog import ProviderName
from dropreel.model.errors import (
    DropreelError,
    ExecutionAborted,
    InputGone,
    NoCredit,
    ProviderThrottled,
    ProviderUnavailable,
    RequestRefused,
    SubmissionUnclear,
    TokenMissing,
    UnexpectedError,
)
from dropreel.model.job import Input, Job, Role
from dropreel.model.ledger import Admitted, Attempt, AttemptState
from dropreel.model.messages import Next, Plan, PlannedOffer, Submission, SubmitRequest, Underway
from dropreel.model.provider import Answer, FailureCause, Refusal, RenderState, Ticket, Unclear
from dropreel.render.polling import poll
from dropreel.render.submission import CALL_LIFE_SECONDS, CALL_NEEDS_SECONDS, MAX_TRIES, submit
from dropreel.runtime.settings import SubmitSettings
from tests.support.render_fakes import (
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

THROTTLED = Refusal("ProviderThrottled", "Too many requests.", again=True)
THROTTLED_FOR_33 = Refusal(
    "ProviderThrottled", "Too many requests.", again=True, retry_after_seconds=33
)
UNAVAILABLE = Refusal("ProviderUnavailable", "Unavailable.", again=True)
UNCLEAR = Unclear("No answer (ReadTimeout).")
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
    wavespeed: ScriptedProvider = field(default_factory=lambda: ScriptedProvider("wavespeed"))
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    uploads: FakeUploads = field(default_factory=FakeUploads)
    clock: FakeClock = field(default_factory=FakeClock)
    plan: Plan = PLAN
    max_submissions: int = 2
    seconds_left: float = 240
    jitter: float | None = 1  # the whole of each growing wait; None is submit's own
    settings: SubmitSettings = SUBMIT_SETTINGS

    def submit(self, turn: Next = FIRST) -> Submission:
        jitter, submit_ = self.jitter, submit
        if jitter is not None:
            submit_ = partial(submit, jitter=lambda: jitter)
        return submit_(
            SubmitRequest(plan=self.plan, next=turn),
            ledger=self.ledger,
            providers=by_name(self.runcomfy, self.wavespeed),
            uploads=self.uploads,
            clock=self.clock,
            seconds_left=lambda: self.seconds_left,
            settings=self.settings.model_copy(update={"max_submissions": self.max_submissions}),
        )

    def submit_until(self, done: Callable[[Submission], bool], turn: Next = FIRST) -> Submission:
        """Call again as the state machine does, until it is done or submit raises."""
        while not done(submission := self.submit(turn)):
            self.clock.pass_seconds(submission.wait_seconds)
            turn = submission.next
        return submission

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


def test_deleting_the_upload_withdraws_the_job_although_its_conformed_copy_is_there() -> None:
    copy = IMAGE.model_copy(update={"key": "work/anna/picture.png", "version_id": "w1"})
    plan = PLAN.model_copy(update={"image": copy})
    provider = ScriptedProvider(submissions=["req-1"])
    bench = Bench(provider, uploads=FakeUploads(gone=(IMAGE,)), plan=plan)

    with pytest.raises(InputGone, match=r"anna\.png"):
        bench.submit()

    assert provider.submitted == []


@pytest.mark.parametrize("role", [Role.PROMPT, Role.OPTIONS])
def test_deleting_what_a_job_says_withdraws_it(role: Role) -> None:
    says = Input(role=role, key="inbox/team/anna.json", version_id="v9", size_bytes=1)
    job = JOB.model_copy(update={"inputs": (*JOB.inputs, says)})
    provider = ScriptedProvider(submissions=["req-1"])
    plan = PLAN.model_copy(update={"job": job})
    bench = Bench(provider, uploads=FakeUploads(gone=(says,)), plan=plan)

    with pytest.raises(InputGone, match=r"anna\.json"):
        bench.submit()

    assert provider.submitted == []


def test_deleting_the_defaults_of_a_folder_withdraws_no_job() -> None:
    defaults = Input(role=Role.DEFAULTS, key="inbox/_defaults.json", version_id="v9", size_bytes=1)
    job = JOB.model_copy(update={"inputs": (*JOB.inputs, defaults)})
    plan = PLAN.model_copy(update={"job": job})
    provider = ScriptedProvider(submissions=["req-1"])

    assert Bench(provider, uploads=FakeUploads(gone=(defaults,)), plan=plan).submit().ticket


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
        provider="runcomfy",
        endpoint="wan-ai/wan-2-6/flash/image-to-video",
        fields={"prompt": "She smiles.", "duration": 5, "audio": True},
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


@pytest.mark.parametrize(("jitter", "wait_seconds"), [(0, 3), (0.5, 4), (1, 5)])
def test_refusal_that_may_pass_asks_to_be_called_again(jitter: float, wait_seconds: int) -> None:
    provider = ScriptedProvider(submissions=[UNAVAILABLE, "req-1"])
    bench = Bench(provider, jitter=jitter)

    refused = bench.submit()
    assert refused == Submission(ticket=None, wait_seconds=wait_seconds, next=Next(tries=1))
    assert bench.attempt().state is AttemptState.POSTPONED

    accepted = bench.submit(refused.next)
    assert accepted.ticket is not None
    assert accepted.next == Next(tries=2)


def test_refusals_that_do_not_pass_end_after_a_bounded_number_of_tries() -> None:
    provider = ScriptedProvider(submissions=[UNAVAILABLE])
    bench = Bench(provider, plan=ONE_OFFER)

    with pytest.raises(ProviderUnavailable, match=r"Unavailable\."):
        bench.submit_until(lambda submission: submission.falls_over)

    assert len(provider.submitted) == MAX_TRIES
    assert (bench.clock.now - NOON).total_seconds() < 15 * 60


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
    provider = ScriptedProvider(submissions=[UNCLEAR, "req-2"])
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


def test_request_that_the_ledger_could_not_record_is_recorded_by_the_poll() -> None:
    class FullLedger(MemoryLedger):
        def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
            raise OSError("the table does not answer")

    bench = Bench(ScriptedProvider(submissions=["req-1"]), ledger=FullLedger())
    ticket = bench.submit().ticket
    assert ticket
    assert not ticket.is_recorded

    poll(
        Underway(plan=PLAN, ticket=ticket),
        ledger=bench.ledger,
        slots=NoSlots(),
        providers=by_name(ScriptedProvider(answers=[Answer(state=RenderState.RENDERING)])),
        clock=bench.clock,
        settings=POLL_SETTINGS,
    )

    assert (bench.attempt().state, bench.attempt().request_id) == (AttemptState.ACCEPTED, "req-1")


def test_run_that_was_concluded_before_its_submission_is_not_submitted() -> None:
    bench = Bench(ScriptedProvider(submissions=["req-1"]))
    bench.ledger.close(JOB, NOON)

    with pytest.raises(ExecutionAborted):
        bench.submit()

    assert bench.runcomfy.submitted == []
    assert bench.ledger.attempts(JOB.id) == ()


def test_run_that_is_made_again_is_not_submitted_once_that_run_is_concluded() -> None:
    bench = Bench(ScriptedProvider(submissions=["req-1"]))
    again = JOB.model_copy(update={"run": 2})
    bench.plan = PLAN.model_copy(update={"job": again})
    bench.ledger.close(again, NOON)

    with pytest.raises(ExecutionAborted):
        bench.submit()

    assert bench.runcomfy.submitted == []


def test_waits_to_be_asked_again_differ_by_themselves() -> None:
    waits = set()
    for _ in range(20):
        bench = Bench(ScriptedProvider(submissions=[THROTTLED]), jitter=None)
        waits.add(bench.submit().wait_seconds)

    assert len(waits) > 1


@pytest.mark.parametrize("cancels", [True, False])
def test_run_that_is_concluded_while_the_provider_is_called_is_cancelled(cancels: bool) -> None:
    class Stopping(ScriptedProvider):
        def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
            bench.ledger.close(JOB, NOON)
            return super().submit(endpoint, payload)

    provider = Stopping(submissions=["req-1"], cancels=cancels)
    bench = Bench(provider)

    bench.submit()

    assert provider.cancelled == ["req-1"]
    assert bench.attempt().state is (AttemptState.LOST if cancels else AttemptState.ACCEPTED)


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


def falling_over(*submissions: str | Exception, plan: Plan = PLAN) -> Bench:
    """RunComfy refuses, WaveSpeed accepts."""
    return Bench(
        ScriptedProvider(submissions=submissions),
        ScriptedProvider("wavespeed", submissions=["prediction-1"]),
        plan=plan,
    )


def test_definite_refusal_that_is_not_the_jobs_fault_goes_to_the_next_offer_at_once() -> None:
    bench = falling_over(NO_CREDIT)

    refused = bench.submit()
    assert refused == Submission(
        ticket=None, wait_seconds=0, next=Next(attempt=2, offer=1), falls_over=True
    )

    accepted = bench.submit(refused.next)
    assert accepted.ticket == Ticket(
        provider="wavespeed",
        endpoint="wavespeed-ai/wan-2.2/speech-to-video",
        request_id="prediction-1",
        attempt=2,
        offer=1,
        submitted_at=NOON,
    )
    [(_, payload)] = bench.wavespeed.submitted
    assert set(payload) == {"image", "audio", "resolution"}
    assert [found.code for found in bench.ledger.attempts(JOB.id)] == ["NoCredit", None]


def test_the_offer_that_it_was_admitted_for_is_asked_and_its_estimate_is_noted() -> None:
    """Admission passes over an offer that has no price, or whose provider is paused."""
    wavespeed = ScriptedProvider("wavespeed", submissions=["req-1"])
    bench = Bench(ScriptedProvider(), wavespeed)
    bench.ledger.admits[1] = Admitted(offer=1, estimated_usd=0.105)

    submission = bench.submit()

    assert (bench.runcomfy.submitted, len(bench.wavespeed.submitted)) == ([], 1)
    assert submission.ticket
    assert (submission.ticket.offer, submission.next.offer) == (1, 1)
    [attempt] = bench.ledger.attempts(JOB.id)
    assert (attempt.provider, attempt.estimated_usd) == (WAVESPEED.provider, 0.105)


def test_an_offer_that_was_passed_over_is_not_fallen_back_to() -> None:
    refusal = Refusal("NoCredit", "Top up.")
    wavespeed = ScriptedProvider("wavespeed", submissions=[refusal])
    bench = Bench(ScriptedProvider(), wavespeed)
    bench.ledger.admits[1] = Admitted(offer=1, estimated_usd=0.105)

    with pytest.raises(NoCredit):
        bench.submit()

    assert bench.runcomfy.submitted == []


def test_tries_come_before_falling_over() -> None:
    bench = falling_over(UNAVAILABLE)

    left = bench.submit_until(lambda submission: submission.falls_over)

    assert left == Submission(wait_seconds=0, next=Next(attempt=2, offer=1), falls_over=True)
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
        "wavespeed", submissions=[Refusal("TokenMissing", "No token is stored.")]
    )

    with pytest.raises(TokenMissing, match="No token is stored"):
        bench.submit(bench.submit().next)

    assert [found.code for found in bench.ledger.attempts(JOB.id)] == ["NoCredit", "TokenMissing"]


# Throttled


PATIENCE_SECONDS = SUBMIT_SETTINGS.throttle_patience_seconds


def test_throttled_attempt_is_postponed_and_remembers_since_when() -> None:
    bench = falling_over(THROTTLED_FOR_33)

    first = bench.submit()
    bench.clock.pass_seconds(first.wait_seconds)
    second = bench.submit(first.next)

    assert first.next == Next(tries=1, throttled_since=NOON)
    assert second.next == Next(tries=2, throttled_since=NOON)
    assert bench.attempt().state is AttemptState.POSTPONED
    assert bench.attempt().code == "ProviderThrottled"


@pytest.mark.parametrize(("jitter", "wait_seconds"), [(0, 33), (0.99, 36)])
def test_throttled_job_comes_no_sooner_than_the_provider_asks_and_not_with_all_others(
    jitter: float, wait_seconds: int
) -> None:
    bench = Bench(ScriptedProvider(submissions=[THROTTLED_FOR_33]), jitter=jitter)

    assert bench.submit().wait_seconds == wait_seconds


@pytest.mark.parametrize("refusal", [THROTTLED, THROTTLED_FOR_33], ids=["free", "asked"])
@pytest.mark.parametrize("jitter", [0, 0.5, 1])
def test_throttled_job_falls_over_when_the_patience_is_over(
    refusal: Refusal, jitter: float
) -> None:
    bench = falling_over(refusal)
    bench.jitter = jitter

    left = bench.submit_until(lambda submission: submission.falls_over)

    waited_seconds = (bench.clock.now - NOON).total_seconds()
    assert PATIENCE_SECONDS - refusal.retry_after_seconds <= waited_seconds <= PATIENCE_SECONDS
    assert left == Submission(wait_seconds=0, next=Next(attempt=2, offer=1), falls_over=True)
    assert len(bench.runcomfy.submitted) > MAX_TRIES
    assert (bench.attempt().state, bench.attempt().code) == (
        AttemptState.REFUSED,
        "ProviderThrottled",
    )


def test_throttled_job_without_another_offer_ends_when_the_patience_is_over() -> None:
    bench = falling_over(THROTTLED, plan=ONE_OFFER)

    with pytest.raises(ProviderThrottled, match="Too many requests"):
        bench.submit_until(lambda submission: submission.falls_over)

    assert bench.attempt().state is AttemptState.REFUSED


def test_owner_without_patience_falls_over_at_once() -> None:
    bench = falling_over(THROTTLED)
    bench.settings = SUBMIT_SETTINGS.model_copy(update={"throttle_patience_seconds": 0})

    assert bench.submit().falls_over
    assert len(bench.runcomfy.submitted) == 1


def test_job_that_was_throttled_for_long_has_patience_with_another_refusal() -> None:
    bench = falling_over(*[THROTTLED] * (2 * MAX_TRIES), UNAVAILABLE, "req-1")

    accepted = bench.submit_until(lambda submission: submission.ticket is not None)

    assert accepted.ticket is not None
    assert accepted.ticket.request_id == "req-1"


def test_job_that_was_throttled_for_long_has_patience_with_the_uploads_bucket() -> None:
    bench = falling_over(THROTTLED, "req-1")
    long_throttled = Next(tries=3 * MAX_TRIES, throttled_since=NOON)
    bench.seconds_left = 1

    late = bench.submit(long_throttled)
    assert late.next == Next(tries=3 * MAX_TRIES + 1, throttled_since=NOON)

    with pytest.raises(UnexpectedError, match="in time"):
        bench.submit_until(lambda submission: submission.falls_over, late.next)
    assert (bench.clock.now - NOON).total_seconds() <= PATIENCE_SECONDS


# Taking turns


WAVESPEED_ONLY = PLAN.model_copy(update={"route": (WAVESPEED,)})


class CountingLedger(MemoryLedger):
    def __init__(self) -> None:
        super().__init__()
        self.turns: list[ProviderName] = []

    def take_turn(self, provider: ProviderName, per_minute: int, now: datetime) -> datetime:
        self.turns.append(provider)
        return super().take_turn(provider, per_minute, now)


def pacing(*submissions: str | Exception) -> tuple[Bench, CountingLedger]:
    """WaveSpeed, two calls a minute."""
    ledger = CountingLedger()
    wavespeed = ScriptedProvider("wavespeed", submissions=submissions)
    return Bench(ScriptedProvider(), wavespeed, ledger=ledger, plan=WAVESPEED_ONLY), ledger


def another_job(plan: Plan) -> Plan:
    return plan.model_copy(update={"job": JOB.model_copy(update={"id": "bob-0123456789abcdef"})})


def test_call_beyond_the_minute_waits_for_its_turn_and_nothing_is_begun() -> None:
    bench, ledger = pacing("prediction-1", "prediction-2")
    assert bench.submit().ticket is not None
    bench.plan = another_job(bench.plan)
    bench.clock.pass_seconds(0.5)

    waits = bench.submit()

    assert waits == Submission(wait_seconds=30, next=Next(is_paced=True))
    assert ledger.attempts(bench.plan.job.id) == ()
    assert len(bench.wavespeed.submitted) == 1

    bench.clock.pass_seconds(waits.wait_seconds)
    accepted = bench.submit(waits.next)
    assert accepted.ticket is not None
    assert accepted.ticket.request_id == "prediction-2"
    assert len(ledger.turns) == 2


def test_each_call_takes_a_turn_of_its_own() -> None:
    bench, ledger = pacing(*[UNAVAILABLE] * 4, "prediction-1")

    submission = bench.submit_until(lambda submission: submission.ticket is not None)

    assert len(ledger.turns) == len(bench.wavespeed.submitted) == 5
    assert not submission.next.is_paced
    assert (bench.clock.now - NOON).total_seconds() >= 4 * 30


def test_refusal_uses_the_turn_up() -> None:
    bench, _ = pacing(THROTTLED)

    refused = bench.submit(Next(is_paced=True))

    assert refused.next == Next(tries=1, throttled_since=NOON)


def test_waiting_for_a_turn_forgets_nothing() -> None:
    bench, ledger = pacing(THROTTLED)
    ledger.take_turn("wavespeed", 2, NOON)
    turn = Next(attempt=2, tries=9, throttled_since=NOON)

    assert bench.submit(turn).next == turn.model_copy(update={"is_paced": True})


def test_provider_without_a_limit_takes_no_turns() -> None:
    ledger = CountingLedger()
    bench = Bench(ScriptedProvider(submissions=["req-1"]), ledger=ledger)

    assert bench.submit().ticket is not None
    assert ledger.turns == []


@pytest.mark.parametrize("what", ["sent before", "input gone", "out of time"])
def test_no_turn_is_taken_where_no_call_can_be_made(what: str) -> None:
    bench, ledger = pacing("prediction-1")
    if what == "sent before":
        bench.submit()
        ledger.turns.clear()
    if what == "input gone":
        bench.uploads.gone = (IMAGE,)
    if what == "out of time":
        bench.seconds_left = CALL_NEEDS_SECONDS - 1

    with suppress(InputGone):
        bench.submit()

    assert ledger.turns == []


def test_turn_that_came_too_late_for_its_call_is_over() -> None:
    bench, ledger = pacing("prediction-1")
    bench.seconds_left = CALL_NEEDS_SECONDS - 1

    late = bench.submit(Next(is_paced=True))
    bench.seconds_left = CALL_NEEDS_SECONDS
    bench.submit(late.next)

    assert late.next == Next(tries=1)
    assert len(ledger.turns) == 1


# Unclear, and an owner who would rather pay twice than fail


RETRY = SUBMIT_SETTINGS.model_copy(update={"on_unclear_submission": "retry"})
ANOTHER_ON_THE_SAME_OFFER = Submission(wait_seconds=0, next=Next(attempt=2), falls_over=True)


def retrying(*submissions: str | Exception, max_submissions: int = 2) -> Bench:
    return Bench(
        ScriptedProvider(submissions=submissions), settings=RETRY, max_submissions=max_submissions
    )


def test_owner_can_have_an_unclear_submission_made_again_on_the_same_offer() -> None:
    bench = retrying(UNCLEAR, "req-2")

    unclear = bench.submit()
    assert unclear == ANOTHER_ON_THE_SAME_OFFER
    assert bench.attempt().state is AttemptState.UNCLEAR
    assert bench.attempt().code == "SubmissionUnclear"
    assert "ReadTimeout" in bench.attempt().message

    accepted = bench.submit(unclear.next)
    assert accepted.ticket is not None
    assert (accepted.ticket.request_id, accepted.ticket.attempt) == ("req-2", 2)


def test_attempt_whose_caller_died_is_given_up_when_the_call_must_be_over() -> None:
    bench = retrying("req-2")
    bench.ledger.begin(JOB.id, FIRST, RUNCOMFY, NOON)

    waits = bench.submit()
    assert (waits.wait_seconds, waits.falls_over) == (CALL_LIFE_SECONDS, False)
    assert bench.attempt().state is AttemptState.BEGUN

    bench.clock.pass_seconds(waits.wait_seconds)
    assert bench.submit(waits.next) == ANOTHER_ON_THE_SAME_OFFER
    assert bench.attempt().state is AttemptState.UNCLEAR
    assert bench.runcomfy.submitted == []


@pytest.mark.parametrize("policy", ["retry", "fail"])
def test_attempt_that_was_given_up_is_answered_the_same_again(policy: str) -> None:
    bench = retrying(UNCLEAR, "req-2")
    first = bench.submit()
    bench.settings = RETRY.model_copy(update={"on_unclear_submission": policy})
    bench.clock.pass_seconds(1)

    assert bench.submit() == first
    assert len(bench.runcomfy.submitted) == 1


def test_unclear_submission_is_not_made_again_beyond_what_is_allowed() -> None:
    bench = retrying(UNCLEAR, max_submissions=3)
    turn = FIRST

    for number in (2, 3):
        turn = bench.submit(turn).next
        assert turn == Next(attempt=number)
    with pytest.raises(SubmissionUnclear, match="ReadTimeout"):
        bench.submit(turn)
    bench.clock.pass_seconds(CALL_LIFE_SECONDS)
    with pytest.raises(SubmissionUnclear):
        bench.submit(turn)

    assert len(bench.runcomfy.submitted) == 3
    assert bench.attempt(3).state is AttemptState.BEGUN


def test_another_attempt_is_made_only_when_the_ledger_knows_that_the_first_is_given_up() -> None:
    class FullLedger(MemoryLedger):
        def give_up(self, attempt: Attempt, code: str, message: str) -> None:
            raise OSError("the table does not answer")

    bench = Bench(ScriptedProvider(submissions=[UNCLEAR]), ledger=FullLedger(), settings=RETRY)

    with pytest.raises(OSError, match="table"):
        bench.submit()

    assert bench.attempt().state is AttemptState.BEGUN


# A later run of the same job


def test_later_run_has_its_own_submissions() -> None:
    provider = ScriptedProvider(submissions=[NO_CREDIT])
    later = PLAN.model_copy(update={"first_attempt": 5})
    bench = Bench(
        provider,
        ScriptedProvider("wavespeed", submissions=[NO_CREDIT]),
        plan=later,
    )

    refused = bench.submit(Next(attempt=5))
    assert refused.next == Next(attempt=6, offer=1)

    with pytest.raises(NoCredit):
        bench.submit(refused.next)
    assert [attempt.number for attempt in bench.ledger.attempts(JOB.id)] == [5, 6]


# Whatever interrupts it


@given(
    age_seconds=st.floats(0, 2 * CALL_LIFE_SECONDS),
    late_seconds=st.floats(0, 5),
    policy=st.sampled_from(["fail", "retry"]),
    turn=st.builds(Next, tries=st.integers(0, 99), is_paced=st.booleans()),
)
@settings(max_examples=50, deadline=None)
def test_waiting_for_another_call_comes_to_an_end(
    age_seconds: float, late_seconds: float, policy: str, turn: Next
) -> None:
    bench = retrying("req-2")
    bench.settings = RETRY.model_copy(update={"on_unclear_submission": policy})
    bench.ledger.begin(JOB.id, FIRST, RUNCOMFY, NOON)
    bench.clock.pass_seconds(age_seconds)

    waits = 0
    with suppress(SubmissionUnclear):
        while not (submission := bench.submit(turn)).falls_over:
            waits += 1
            assert waits <= 1
            assert not submission.next.is_paced
            bench.clock.pass_seconds(submission.wait_seconds + late_seconds)
            turn = submission.next

    assert (bench.clock.now - NOON).total_seconds() >= CALL_LIFE_SECONDS
    assert bench.runcomfy.submitted == []


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

    def begin(self, *args: Any, **kwargs: Any) -> Attempt | None:  # noqa: ANN401
        begun = super().begin(*args, **kwargs)
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
        self.unclear = False

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        mood = self.mood
        assert endpoint not in self._refused(), "submitted where it was definitely refused"
        self._ledger.interruption.at("arrived")
        if mood == "refuse for now":
            raise UNAVAILABLE
        if mood == "throttle":
            raise THROTTLED
        if mood == "refuse":
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

    def _refused(self) -> set[str]:
        """As far as anybody knows: a refusal that nobody lived to record is unclear."""
        attempts = self._ledger.attempts(JOB.id)
        return {sent.endpoint for sent in attempts if sent.state is AttemptState.REFUSED}

    def ask(self, request_id: str) -> Answer:
        assert request_id in self.accepted
        return Answer(state=RenderState.FAILED, cause=self.cause)


class NoSlots:
    def rendered(self, job: Job, attempt: int) -> None:
        raise AssertionError("no render is ever completed here")


MOODS = st.sampled_from(
    ["accept", "refuse for now", "throttle", "refuse", "lose it", "accept and lose the answer"]
)
CAUSES = st.sampled_from(FailureCause)
PLACES = st.integers(0, 9)


class NeverPayTwice(RuleBasedStateMachine):
    """Step Functions calls submit and poll again and again, also with what it was told earlier.

    Calls overlap, and die at any point; offers refuse, and renders fail.
    """

    @initialize(
        max_submissions=st.integers(1, 4),
        first_attempt=st.sampled_from([1, 3]),
        policy=st.sampled_from(["fail", "retry"]),
    )
    def drop(self, max_submissions: int, first_attempt: int, policy: str) -> None:
        self.ledger = InterruptedLedger()
        self.providers = (
            MoodyProvider("runcomfy", self.ledger),
            MoodyProvider("wavespeed", self.ledger),
        )
        flash = RUNCOMFY.model_copy(update={"endpoint": "wan-ai/wan-2-6/flash/image-to-video"})
        self.bench = Bench(
            *self.providers,
            ledger=self.ledger,
            plan=PLAN.model_copy(
                update={"route": (*PLAN.route, flash), "first_attempt": first_attempt}
            ),
            max_submissions=max_submissions,
            settings=SUBMIT_SETTINGS.model_copy(update={"on_unclear_submission": policy}),
        )
        self.turns = [Next(attempt=first_attempt)]
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
            assert submission.falls_over == (submission.next.attempt != turn.attempt)

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
                slots=NoSlots(),
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
        if self.bench.settings.on_unclear_submission == "retry":
            return
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
