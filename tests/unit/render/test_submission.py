"""What submit does on every outcome."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from itertools import count

import pytest

from dropreel.model import errors
from dropreel.model.catalog import OptionValue, ProviderName
from dropreel.model.job import Input, Role
from dropreel.model.ledger import Admitted, Attempt, AttemptState
from dropreel.model.messages import ActiveRender, NextAttempt, Plan, PlannedOffer, Submission
from dropreel.model.provider import Answer, Refusal, RenderState, Ticket
from dropreel.model.timing import THROTTLE_PATIENCE_SECONDS as PATIENCE_SECONDS
from dropreel.render.polling import poll
from dropreel.render.submission import CALL_LIFE_SECONDS, CALL_NEEDS_SECONDS, MAX_TRIES
from tests.support.render_fakes import (
    AUDIO,
    IMAGE,
    JOB,
    NOON,
    ONE_OFFER,
    PLAN,
    SENT_AUDIO,
    SENT_IMAGE,
    SUBMIT_SETTINGS,
    TICKET,
    WAVESPEED,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)
from tests.support.submission_bench import (
    FIRST,
    NO_CREDIT,
    NO_CREDIT_AT_ALL,
    NO_TOKEN,
    SECRET,
    THROTTLED,
    THROTTLED_FOR_33,
    UNAVAILABLE,
    UNCLEAR,
    Bench,
    FakeUploads,
    never_rendered,
)

WAVESPEED_ONLY = PLAN.model_copy(update={"route": (WAVESPEED,)})
FLASH = PlannedOffer(
    provider="runcomfy",
    endpoint="wan-ai/wan-2-6/flash/image-to-video",
    fields={"prompt": "She smiles.", "duration": 5, "audio": True},
)
SILENT = PLAN.model_copy(update={"route": (FLASH,), "audio": None, "audio_facts": None})
FALLS_OVER = Submission(wait_seconds=0, next=NextAttempt(attempt=2, offer=1), falls_over=True)


def wait(seconds: int, next_attempt: NextAttempt) -> Submission:
    return Submission(wait_seconds=seconds, next=next_attempt)


ONCE = NextAttempt(tries=1)
THROTTLED_ONCE = NextAttempt(tries=1, throttled_since=NOON)


@pytest.mark.parametrize(
    ("answer", "jitter", "submission", "state"),
    [
        ("req-1", 1, wait(5, ONCE).model_copy(update={"ticket": TICKET}), AttemptState.ACCEPTED),
        (UNAVAILABLE, 1, wait(5, ONCE), AttemptState.POSTPONED),
        (THROTTLED_FOR_33, 0.99, wait(36, THROTTLED_ONCE), AttemptState.POSTPONED),
    ],
)
def test_what_one_call_answers_and_records(
    answer: str | Refusal, jitter: float, submission: Submission, state: AttemptState
) -> None:
    bench = Bench.of(answer, jitter=jitter)

    assert bench.submit() == submission

    code, request_id = (answer.code, None) if isinstance(answer, Refusal) else (None, answer)
    noted = bench.attempt
    assert (noted.state, noted.code, noted.request_id) == (state, code, request_id)


@pytest.mark.parametrize(
    ("plan", "payload"),
    [
        (PLAN, {"image_url": SENT_IMAGE, "audio_url": SENT_AUDIO, "resolution": "480P"}),
        (WAVESPEED_ONLY, {"image": SENT_IMAGE, "audio": SENT_AUDIO, "resolution": "480p"}),
        (SILENT, {"img_url": SENT_IMAGE, "prompt": "She smiles.", "duration": 5, "audio": True}),
    ],
    ids=["RunComfy", "WaveSpeed", "without a voice"],
)
def test_request_names_the_pinned_copies_by_urls_that_stay_out_of_the_answer(
    plan: Plan, payload: dict[str, Input | OptionValue]
) -> None:
    bench = Bench.of("req-1", plan=plan)

    submission = bench.submit()

    [(endpoint, sent)] = bench.runcomfy.submitted + bench.wavespeed.submitted
    assert endpoint == plan.route[0].endpoint
    assert sent == {
        name: bench.uploads.presigned_url("work", said, 0) if isinstance(said, Input) else said
        for name, said in payload.items()
    }
    assert SECRET not in submission.model_dump_json()


def dropped(role: Role) -> Input:
    return Input(role=role, key="inbox/team/anna.json", version_id="v9", size_bytes=1)


def plan_with(given: Input) -> Plan:
    job = JOB.model_copy(update={"inputs": (*JOB.inputs, given)})
    return PLAN.model_copy(update={"job": job})


@pytest.mark.parametrize(
    ("plan", "gone"),
    [
        (PLAN, (IMAGE, AUDIO)),
        (PLAN, (SENT_IMAGE,)),
        (PLAN, (SENT_AUDIO,)),
        (plan_with(dropped(Role.PROMPT)), (dropped(Role.PROMPT),)),
        (plan_with(dropped(Role.OPTIONS)), (dropped(Role.OPTIONS),)),
    ],
    ids=["both uploads", "expired picture", "expired voice", "prompt", "options"],
)
def test_deleted_inputs_withdraw_the_job_by_name(plan: Plan, gone: tuple[Input, ...]) -> None:
    bench = Bench.of("req-1", plan=plan, uploads=FakeUploads(gone))

    with pytest.raises(errors.InputGone) as raised:
        bench.submit()

    assert all(one.key in raised.value.message for one in gone)
    assert bench.ledger.attempts(JOB.id) == ()
    assert bench.runcomfy.submitted == []


def test_deleting_the_defaults_of_a_folder_withdraws_no_job() -> None:
    defaults = dropped(Role.DEFAULTS)
    bench = Bench.of("req-1", plan=plan_with(defaults), uploads=FakeUploads((defaults,)))

    assert bench.submit().ticket


@pytest.mark.parametrize("copy", [SENT_IMAGE, SENT_AUDIO])
def test_a_copy_that_s3_refuses_is_found_before_it_is_paid_for(copy: Input) -> None:
    bench = Bench.of("req-1", uploads=FakeUploads(unreadable=(copy,)))

    with pytest.raises(errors.CopyUnreadable) as raised:
        bench.submit()

    assert JOB.only(copy.role).key in raised.value.message
    assert f"{copy.key}: archived" in raised.value.message
    assert bench.ledger.attempts(JOB.id) == ()
    assert bench.runcomfy.submitted == []


def test_uploads_only_need_to_exist() -> None:
    bench = Bench.of("req-1", uploads=FakeUploads(unreadable=(IMAGE, AUDIO)))

    assert bench.submit().ticket


@pytest.mark.parametrize(
    ("queue_minutes", "render_minutes", "valid_seconds"),
    [(120, 60, 3 * 3600), (1, 1.01, 121), (300, 60, 6 * 3600), (600, 600, 6 * 3600)],
)
def test_presigned_inputs_live_no_longer_than_the_offer_needs(
    queue_minutes: float, render_minutes: float, valid_seconds: int
) -> None:
    minutes = {"queue_timeout_minutes": queue_minutes, "render_timeout_minutes": render_minutes}
    bench = Bench.of("req-1", settings=SUBMIT_SETTINGS.model_copy(update=minutes))

    bench.submit()

    assert bench.uploads.valid_seconds == {valid_seconds}


class NumberedUploads(FakeUploads):
    """No two URLs are the same, as with signatures of another time or of other credentials."""

    numbers = count(1)

    def presigned_url(self, bucket: str, pinned: Input, valid_seconds: int) -> str:
        url = super().presigned_url(bucket, pinned, valid_seconds)
        return f"{url}&number={next(self.numbers)}"


def test_each_request_has_urls_that_were_signed_for_it() -> None:
    bench = Bench.of(THROTTLED, "req-1", "req-2", uploads=NumberedUploads())

    ticket = bench.submit_until(lambda submission: submission.ticket is not None).ticket
    assert ticket
    bench.ledger.lose(JOB.id, ticket, "RenderFailed", "The image could not be fetched.")
    again = bench.submit(NextAttempt(attempt=2, offer=0)).ticket

    assert again
    assert (again.request_id, again.offer) == ("req-2", 0)
    for field in ("image_url", "audio_url"):
        assert len({sent[field] for _, sent in bench.runcomfy.submitted}) == 3


@pytest.mark.parametrize(
    ("endpoint", "voice_seconds", "render_minutes"),
    [
        ("wavespeed-ai/infinitetalk", 60, 60),  # 30 minutes: the parameter gives more
        ("wavespeed-ai/infinitetalk", 600, 300),  # 30 s for each second
        ("wavespeed-ai/infinitetalk", 3600, 600),  # as long as the parameter may be
        (WAVESPEED.endpoint, 600, 60),  # nothing is published of it
    ],
)
def test_a_long_voice_gets_the_time_that_its_offer_takes_to_render(
    endpoint: str, voice_seconds: float, render_minutes: float
) -> None:
    assert PLAN.audio_facts
    plan = PLAN.model_copy(
        update={
            "route": (WAVESPEED.model_copy(update={"endpoint": endpoint}),),
            "audio_facts": PLAN.audio_facts.model_copy(update={"duration_seconds": voice_seconds}),
        }
    )
    bench = Bench.of(plan=plan)

    ticket = bench.submit().ticket

    assert ticket
    assert ticket.render_timeout_seconds == render_minutes * 60
    assert bench.uploads.valid_seconds == {min(2 * 3600 + render_minutes * 60, 6 * 3600)}


def test_second_call_for_an_accepted_attempt_gets_the_same_ticket() -> None:
    bench = Bench.of("req-1", "req-2")
    first = bench.submit()
    bench.clock.pass_seconds(300)
    bench.uploads.gone = (IMAGE,)  # what happens to the files no longer matters

    assert bench.submit().ticket == first.ticket
    assert [ticket for _, ticket in bench.recorded] == [first.ticket]
    assert len(bench.runcomfy.submitted) == 1


def test_postponed_attempt_is_sent_again() -> None:
    bench = Bench.of(UNAVAILABLE, "req-1")

    accepted = bench.submit(bench.submit().next)

    assert (accepted.ticket, accepted.next) == (TICKET, NextAttempt(tries=2))


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (NO_CREDIT, errors.NoCredit),
        (NO_TOKEN, errors.TokenMissing),
        (Refusal("RequestRefused", "image_url: not an image"), errors.RequestRefused),
        (Refusal("SomethingNew", "A code from tomorrow."), errors.RequestRefused),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_definite_refusal_ends_the_job_with_the_providers_words(
    refusal: Refusal, error: type[errors.DropreelError]
) -> None:
    bench = Bench.of(refusal, plan=ONE_OFFER)

    for _ in range(2):  # the first answer may have been lost
        with pytest.raises(error) as raised:
            bench.submit()
        assert raised.value.message == refusal.message

    assert len(bench.runcomfy.submitted) == 1
    assert bench.attempt.state is AttemptState.REFUSED
    assert (bench.attempt.code, bench.attempt.message) == (refusal.code, refusal.message)


def test_unclear_outcome_fails_and_is_never_sent_again() -> None:
    bench = Bench.of(UNCLEAR, "req-2")

    with pytest.raises(errors.SubmissionUnclear, match="ReadTimeout"):
        bench.submit()
    bench.clock.pass_seconds(CALL_LIFE_SECONDS)
    with pytest.raises(errors.SubmissionUnclear, match="2026-11-20 12:00:00 UTC"):
        bench.submit()

    assert len(bench.runcomfy.submitted) == 1


def test_request_that_the_ledger_could_not_record_is_recorded_by_poll() -> None:
    class FullLedger(MemoryLedger):
        def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
            raise OSError("the table does not answer")

    bench = Bench.of("req-1", "req-2", ledger=FullLedger())
    ticket = bench.submit().ticket
    assert ticket
    assert bench.recorded == []
    assert ticket.request_id == "req-1"

    bench.clock.pass_seconds(CALL_LIFE_SECONDS)
    with pytest.raises(errors.SubmissionUnclear):
        bench.submit()
    assert len(bench.runcomfy.submitted) == 1

    poll(
        ActiveRender(plan=PLAN, ticket=ticket, started_at=NOON),
        ledger=bench.ledger,
        closures=bench.closures,
        rendered=never_rendered,
        providers=by_name(ScriptedProvider(answers=[Answer(state=RenderState.RENDERING)])),
        clock=bench.clock,
    )
    assert (bench.attempt.state, bench.attempt.request_id) == (AttemptState.ACCEPTED, "req-1")


def test_call_that_records_a_request_reports_it_after_all_that_is_written() -> None:
    class Stopped(MemoryLedger):
        def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
            super().accept(attempt, request_id, now)
            self.close(PLAN.job, now)

    bench = Bench.of("req-1", ledger=Stopped())
    bench.runcomfy = ScriptedProvider(submissions=["req-1"], cancels=True)

    for _ in range(2):
        bench.submit()

    assert bench.states_when_recorded == [AttemptState.LOST]


@pytest.mark.parametrize("run", [1, 2])
def test_run_that_was_concluded_before_its_submission_is_not_submitted(run: int) -> None:
    job = JOB.model_copy(update={"run": run})
    bench = Bench.of("req-1", plan=PLAN.model_copy(update={"job": job}))
    bench.ledger.close(job, NOON)

    with pytest.raises(errors.ExecutionAborted):
        bench.submit()

    assert bench.runcomfy.submitted == []
    assert bench.ledger.attempts(JOB.id) == ()


@pytest.mark.parametrize("cancels", [True, False])
def test_run_concluded_during_its_submission_is_cancelled(cancels: bool) -> None:
    class Stopping(ScriptedProvider):
        def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
            bench.ledger.close(JOB, NOON)
            return super().submit(endpoint, payload)

    bench = Bench(Stopping(submissions=["req-1"], cancels=cancels))

    bench.submit()

    assert bench.runcomfy.cancelled == ["req-1"]
    assert bench.attempt.state is (AttemptState.LOST if cancels else AttemptState.ACCEPTED)


def test_call_during_another_waits_for_its_ticket() -> None:
    seen: list[Submission] = []

    class SlowProvider(ScriptedProvider):
        def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
            bench.clock.pass_seconds(20)
            seen.append(bench.submit())
            return super().submit(endpoint, payload)

    bench = Bench(SlowProvider(submissions=["req-1"]))
    first = bench.submit()

    assert seen == [Submission(wait_seconds=CALL_LIFE_SECONDS - 20, next=NextAttempt(tries=1))]
    assert bench.submit(NextAttempt(tries=1)).ticket == first.ticket
    assert len(bench.runcomfy.submitted) == 1


def test_nothing_is_begun_without_the_time_for_a_call() -> None:
    bench = Bench.of("req-1", seconds_left=CALL_NEEDS_SECONDS - 0.1)

    late = bench.submit()
    assert late == wait(5, ONCE)
    assert bench.ledger.attempts(JOB.id) == ()
    assert bench.runcomfy.submitted == []

    bench.seconds_left = CALL_NEEDS_SECONDS
    assert bench.submit(late.next).ticket is not None


def test_calls_that_are_always_too_late_end_the_job() -> None:
    bench = Bench.of("req-1", seconds_left=1)
    next_attempt = FIRST

    with pytest.raises(errors.UnexpectedError, match="in time"):
        while True:
            next_attempt = bench.submit(next_attempt).next

    assert next_attempt.tries == MAX_TRIES - 1
    assert bench.ledger.attempts(JOB.id) == ()


# Falling over


def test_account_refusal_goes_to_the_next_offer_at_once() -> None:
    bench = Bench.of(NO_CREDIT)

    for _ in range(2):  # the first answer may have been lost
        assert bench.submit() == FALLS_OVER
    assert len(bench.runcomfy.submitted) == 1

    assert bench.submit(FALLS_OVER.next).ticket == Ticket(
        provider="wavespeed",
        endpoint="wavespeed-ai/wan-2.2/speech-to-video",
        request_id="pred-1",
        attempt=2,
        offer=1,
        submitted_at=NOON,
    )
    assert bench.codes == ["NoCredit", None]
    assert bench.ledger.attempts(JOB.id)[0].state is AttemptState.REFUSED


def test_the_offer_that_was_admitted_is_asked_and_its_estimate_is_noted() -> None:
    bench = Bench.of("req-1")
    bench.ledger.admits[1] = Admitted(offer=1, estimated_usd=0.12)

    submission = bench.submit()

    assert (bench.runcomfy.submitted, len(bench.wavespeed.submitted)) == ([], 1)
    assert submission.ticket
    assert submission.ticket.offer == 1
    assert (bench.attempt.provider, bench.attempt.estimated_usd) == (WAVESPEED.provider, 0.12)


def test_offer_that_admission_passed_over_is_not_asked_later() -> None:
    bench = Bench.of("req-1")
    bench.wavespeed = ScriptedProvider("wavespeed", submissions=[NO_CREDIT])
    bench.ledger.admits[1] = Admitted(offer=1, estimated_usd=0.12)

    with pytest.raises(errors.NoCredit):
        bench.submit()

    assert bench.runcomfy.submitted == []


def test_refusal_of_the_account_closes_the_provider_and_the_job_waits_for_it() -> None:
    bench = Bench.of(NO_CREDIT_AT_ALL, plan=ONE_OFFER)

    submission = bench.submit()

    assert (submission.falls_over, submission.next) == (True, NextAttempt(attempt=2))
    [closed] = bench.closures.all()
    assert (closed.provider, closed.code, closed.message, closed.closed_at) == (
        "runcomfy",
        "NoCredit",
        "The account is empty.",
        NOON,
    )
    assert (bench.attempt.state, bench.attempt.closes_provider) == (AttemptState.REFUSED, True)


def test_refusal_of_one_model_closes_nothing() -> None:
    bench = Bench.of(NO_CREDIT)

    assert bench.submit() == FALLS_OVER
    assert bench.closures.all() == ()


def test_job_that_closes_its_second_provider_may_go_back_to_the_first() -> None:
    bench = Bench.of("req-1")
    bench.wavespeed = ScriptedProvider("wavespeed", submissions=[NO_CREDIT_AT_ALL])
    bench.ledger.admits[1] = Admitted(offer=1, estimated_usd=None)  # the first was closed

    submission = bench.submit()

    assert submission.next == NextAttempt(attempt=2, offer=0)
    assert [it.provider for it in bench.closures.all()] == ["wavespeed"]


def test_call_that_was_cut_off_before_it_closed_the_provider_is_made_good() -> None:
    bench = Bench.of(NO_CREDIT_AT_ALL)
    sent = bench.ledger.begin(JOB.id, FIRST, PLAN.route[0], NOON)
    assert sent
    bench.ledger.refuse(sent, "NoCredit", "The account is empty.", closes_provider=True)

    assert bench.submit().next == bench.submit().next == NextAttempt(attempt=2)
    assert [it.refusals for it in bench.closures.all()] == [1]
    assert bench.runcomfy.submitted == []


def test_tries_come_before_falling_over() -> None:
    bench = Bench.of(UNAVAILABLE)

    assert bench.submit_until(lambda submission: submission.falls_over) == FALLS_OVER
    assert len(bench.runcomfy.submitted) == MAX_TRIES


@pytest.mark.parametrize(
    ("refusal", "error", "at_most_seconds"),
    [
        (UNAVAILABLE, errors.ProviderUnavailable, 15 * 60 - 1),
        (THROTTLED, errors.ProviderThrottled, PATIENCE_SECONDS),
    ],
    ids=["unavailable", "throttled"],
)
def test_refusals_end_a_job_without_another_offer_within_minutes(
    refusal: Refusal, error: type[errors.DropreelError], at_most_seconds: float
) -> None:
    bench = Bench.of(refusal, plan=ONE_OFFER)

    with pytest.raises(error, match=refusal.message):
        bench.submit_until(lambda submission: submission.falls_over)

    assert bench.attempt.state is AttemptState.REFUSED
    assert bench.waited_seconds <= at_most_seconds


def test_refused_attempt_goes_on_from_the_offer_that_it_was_sent_to() -> None:
    bench = Bench.of(NO_CREDIT)
    sent = bench.ledger.begin(JOB.id, NextAttempt(offer=1), WAVESPEED, NOON)
    assert sent is not None
    bench.ledger.refuse(sent, "NoCredit", "Not enough credit.")

    with pytest.raises(errors.NoCredit):
        bench.submit(NextAttempt(offer=0))

    assert bench.runcomfy.submitted == bench.wavespeed.submitted == []


@pytest.mark.parametrize("first_attempt", [1, 5])
def test_run_that_every_offer_refuses_ends_with_the_last_refusal(first_attempt: int) -> None:
    bench = Bench.of(NO_CREDIT, plan=PLAN.model_copy(update={"first_attempt": first_attempt}))
    bench.wavespeed = ScriptedProvider("wavespeed", submissions=[NO_TOKEN])

    with pytest.raises(errors.TokenMissing, match="No token is stored"):
        bench.submit(bench.submit(NextAttempt(attempt=first_attempt)).next)

    assert bench.codes == ["NoCredit", "TokenMissing"]


# Throttled


@pytest.mark.parametrize("refusal", [THROTTLED, THROTTLED_FOR_33], ids=["free", "asked"])
@pytest.mark.parametrize("jitter", [0, 0.5, 1])
def test_throttled_job_falls_over_when_the_patience_is_over(
    refusal: Refusal, jitter: float
) -> None:
    bench = Bench.of(refusal, jitter=jitter)

    assert bench.submit_until(lambda submission: submission.falls_over) == FALLS_OVER

    shortest = PATIENCE_SECONDS - refusal.retry_after_seconds
    assert shortest <= bench.waited_seconds <= PATIENCE_SECONDS
    assert len(bench.runcomfy.submitted) > MAX_TRIES
    assert bench.attempt.state is AttemptState.REFUSED
    assert bench.attempt.code == "ProviderThrottled"


def test_throttle_patience_covers_another_refusal() -> None:
    bench = Bench.of(*[THROTTLED] * (2 * MAX_TRIES), UNAVAILABLE, "req-1")

    accepted = bench.submit_until(lambda submission: submission.ticket is not None).ticket

    assert accepted is not None
    assert accepted.request_id == "req-1"


def test_throttle_patience_covers_a_slow_upload_bucket() -> None:
    bench = Bench.of(THROTTLED, "req-1", seconds_left=1)

    late = bench.submit(NextAttempt(tries=3 * MAX_TRIES, throttled_since=NOON))
    assert late.next == NextAttempt(tries=3 * MAX_TRIES + 1, throttled_since=NOON)

    with pytest.raises(errors.UnexpectedError, match="in time"):
        bench.submit_until(lambda submission: submission.falls_over, late.next)
    assert bench.waited_seconds <= PATIENCE_SECONDS


# Taking turns


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


def test_call_beyond_the_minute_waits_for_its_turn_and_nothing_is_begun() -> None:
    bench, ledger = pacing("pred-1", "pred-2")
    assert bench.submit().ticket is not None
    another = JOB.model_copy(update={"id": "bob-0123456789abcdef"})
    bench.plan = bench.plan.model_copy(update={"job": another})
    bench.clock.pass_seconds(0.5)

    waits = bench.submit()

    assert waits == Submission(wait_seconds=30, next=NextAttempt(is_paced=True))
    assert ledger.attempts(another.id) == ()
    assert len(bench.wavespeed.submitted) == 1

    bench.clock.pass_seconds(waits.wait_seconds)
    accepted = bench.submit(waits.next)
    assert accepted.ticket is not None
    assert accepted.ticket.request_id == "pred-2"
    assert len(ledger.turns) == 2


def test_each_call_takes_a_turn_of_its_own() -> None:
    bench, ledger = pacing(*[UNAVAILABLE] * 4, "pred-1")

    submission = bench.submit_until(lambda submission: submission.ticket is not None)

    assert len(ledger.turns) == len(bench.wavespeed.submitted) == 5
    assert not submission.next.is_paced
    assert bench.waited_seconds >= 4 * 30


def test_waiting_for_a_turn_forgets_nothing() -> None:
    bench, ledger = pacing(THROTTLED)
    ledger.take_turn("wavespeed", 2, NOON)
    next_attempt = NextAttempt(attempt=2, tries=9, throttled_since=NOON)

    assert bench.submit(next_attempt).next == next_attempt.model_copy(update={"is_paced": True})


def test_provider_without_a_limit_takes_no_turns() -> None:
    ledger = CountingLedger()

    assert Bench.of("req-1", ledger=ledger).submit().ticket is not None
    assert ledger.turns == []


@pytest.mark.parametrize("what", ["sent before", "input gone", "out of time"])
def test_no_turn_is_taken_where_no_call_can_be_made(what: str) -> None:
    bench, ledger = pacing("pred-1")
    if what == "sent before":
        bench.submit()
        ledger.turns.clear()
    if what == "input gone":
        bench.uploads.gone = (IMAGE,)
    if what == "out of time":
        bench.seconds_left = CALL_NEEDS_SECONDS - 1

    with suppress(errors.InputGone):
        bench.submit()

    assert ledger.turns == []


def test_turn_that_came_too_late_for_its_call_is_over() -> None:
    bench, ledger = pacing("pred-1")
    bench.seconds_left = CALL_NEEDS_SECONDS - 1

    late = bench.submit(NextAttempt(is_paced=True))
    bench.seconds_left = CALL_NEEDS_SECONDS
    bench.submit(late.next)

    assert late.next == NextAttempt(tries=1)
    assert len(ledger.turns) == 1
