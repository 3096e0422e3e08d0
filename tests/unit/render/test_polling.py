"""Poll: every answer, no answer, and the deadline."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from dropreel.model.closure import Account, AccountState
from dropreel.model.errors import (
    DropreelError,
    NoCredit,
    RenderCancelled,
    RenderFailed,
    RenderModerated,
    RenderRejected,
    RenderTimedOut,
    RequestForgotten,
)
from dropreel.model.job import Job
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import ActiveRender, NextAttempt, Plan, Progress
from dropreel.model.provider import (
    Answer,
    FailureCause,
    RenderState,
    Ticket,
    UnknownRequest,
    Unreachable,
)
from dropreel.render.polling import poll
from tests.support.conclusion_bench import READY
from tests.support.render_fakes import (
    JOB,
    NOON,
    ONE_OFFER,
    PLAN,
    RUNCOMFY,
    TICKET,
    FakeClock,
    MemoryClosures,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)

QUEUED = Answer(state=RenderState.QUEUED)
RENDERING = Answer(state=RenderState.RENDERING)
COMPLETED = Answer(state=RenderState.COMPLETED)
FAILED = Answer(state=RenderState.FAILED, message="No face found.")
QUEUE_SECONDS, RENDER_SECONDS = TICKET.queue_timeout_seconds, TICKET.render_timeout_seconds
RESUMED = PLAN.model_copy(update={"job": JOB.model_copy(update={"run": 2}), "resume": TICKET})
RENDERS = Progress(state=RenderState.RENDERING, wait_seconds=5, rendering_since=NOON)
UNKNOWN = RENDERS.model_copy(update={"unknown_since": NOON + timedelta(seconds=100)})


@dataclass
class FakeSlots:
    """Admission for poll; AWS may be away."""

    trouble: Exception | None = None
    returned: list[tuple[str, int]] = field(default_factory=list)

    def rendered(self, job: Job, attempt: int) -> None:
        if self.trouble:
            raise self.trouble
        self.returned.append((job.id, attempt))


class AwayLedger(MemoryLedger):
    """The ledger while DynamoDB is away: it reads, and writes nothing."""

    def lose(self, *_: object) -> None:
        raise OSError("DynamoDB is away")


def accepted(*, recorded: bool = True) -> MemoryLedger:
    """The ledger after submit was called once."""
    ledger = MemoryLedger()
    attempt = ledger.begin(JOB.id, NextAttempt(), RUNCOMFY, NOON)
    assert attempt is not None
    if recorded:
        ledger.accept(attempt, TICKET.request_id, NOON)
    return ledger


def poll_at(
    since_seconds: float,
    provider: ScriptedProvider,
    progress: Progress | None = None,
    *,
    plan: Plan = PLAN,
    ledger: MemoryLedger | None = None,
    closures: MemoryClosures | None = None,
    slots: FakeSlots | None = None,
    started_at: datetime = NOON,
    attempt: int = 1,
) -> Progress:
    clock = FakeClock()
    clock.pass_seconds(since_seconds)
    ticket = TICKET.model_copy(update={"attempt": attempt})
    return poll(
        ActiveRender(plan=plan, ticket=ticket, progress=progress, started_at=started_at),
        ledger=accepted() if ledger is None else ledger,
        closures=MemoryClosures() if closures is None else closures,
        rendered=(slots or FakeSlots()).rendered,
        providers=by_name(provider),
        clock=clock,
    )


@pytest.mark.parametrize(
    ("since_seconds", "wait_seconds"),
    [(5, 5), (50, 5), (200, 20), (600, 60), (3000, 60), (3589, 11), (3599.5, 1)],
)
def test_waits_grow_with_the_time_since_submission_and_end_at_the_deadline(
    since_seconds: float, wait_seconds: int
) -> None:
    progress = poll_at(since_seconds, ScriptedProvider(answers=[RENDERING]), RENDERS)

    assert progress.wait_seconds == wait_seconds


def test_time_of_the_first_rendering_is_kept_to_the_end() -> None:
    queued = poll_at(5, ScriptedProvider(answers=[QUEUED]))
    assert (queued.state, queued.rendering_since) == (RenderState.QUEUED, None)

    rendering = poll_at(10, ScriptedProvider(answers=[RENDERING]), queued)
    still_rendering = poll_at(15, ScriptedProvider(answers=[RENDERING]), rendering)
    completed = poll_at(20, ScriptedProvider(answers=[COMPLETED]), still_rendering)

    assert completed == Progress(
        state=RenderState.COMPLETED,
        wait_seconds=0,
        rendering_since=NOON + timedelta(seconds=10),
        completed_at=NOON + timedelta(seconds=20),
    )


@pytest.mark.parametrize(
    ("state", "cause", "error"),
    [
        (RenderState.FAILED, FailureCause.MODERATED, RenderModerated),
        (RenderState.FAILED, FailureCause.BAD_INPUT, RenderRejected),
        (RenderState.CANCELLED, FailureCause.OTHER, RenderCancelled),
    ],
)
def test_loss_without_another_attempt_ends_the_job_in_the_providers_words(
    state: RenderState, cause: FailureCause, error: type[DropreelError]
) -> None:
    provider = ScriptedProvider(
        answers=[Answer(state=state, message="Not like this.", cause=cause)]
    )

    with pytest.raises(error) as raised:
        poll_at(30, provider)

    assert "req-1" in raised.value.message
    assert raised.value.message.endswith("Not like this.")


def test_files_that_were_not_fetched_go_to_the_same_offer_once_and_then_end_the_job() -> None:
    provider = ScriptedProvider(
        answers=[FAILED.model_copy(update={"cause": FailureCause.MEDIA_UNREADABLE})] * 2
    )
    ledger = accepted()

    following = poll_at(30, provider, ledger=ledger).next
    assert following == NextAttempt(attempt=2, offer=0)

    again = ledger.begin(JOB.id, following, RUNCOMFY, NOON)
    assert again
    ledger.accept(again, TICKET.request_id, NOON)
    with pytest.raises(RenderFailed, match="could not fetch or read the files of the render"):
        poll_at(60, provider, ledger=ledger, attempt=2)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("cause", FailureCause)
def test_lost_render_is_recorded_whatever_follows(cause: FailureCause, recorded: bool) -> None:
    ledger = accepted(recorded=recorded)
    answer = FAILED.model_copy(update={"cause": cause})

    with suppress(DropreelError):
        poll_at(30, ScriptedProvider(answers=[answer]), ledger=ledger)

    [attempt] = ledger.attempts(JOB.id)
    assert (attempt.state, attempt.request_id) == (AttemptState.LOST, "req-1")
    assert attempt.code in {"RenderFailed", "RenderModerated", "RenderRejected"}
    assert attempt.message.endswith("No face found.")


def test_failed_render_goes_to_the_next_offer_and_keeps_its_slot_until_admit() -> None:
    ledger, slots = accepted(), FakeSlots()

    for since_seconds in (30, 40):  # the first answer may have been lost
        progress = poll_at(
            since_seconds, ScriptedProvider(answers=[FAILED]), ledger=ledger, slots=slots
        )
        assert progress == Progress(
            state=RenderState.FAILED, wait_seconds=0, next=NextAttempt(attempt=2, offer=1)
        )

    assert slots.returned == []


@pytest.mark.parametrize("seen", [RenderState.QUEUED, RenderState.RENDERING])
def test_no_answer_leaves_the_render_as_it_was(seen: RenderState) -> None:
    before = Progress(state=seen, wait_seconds=5, rendering_since=NOON)

    progress = poll_at(100, ScriptedProvider(answers=[Unreachable("HTTP 502")]), before)

    assert progress == Progress(state=seen, wait_seconds=10, rendering_since=NOON)


def test_throttled_poll_waits_as_long_as_the_provider_asks() -> None:
    throttled = Unreachable("HTTP 429", retry_after_seconds=45)

    assert poll_at(100, ScriptedProvider(answers=[throttled])).wait_seconds == 45


@pytest.mark.parametrize("since_seconds", [6, 61, 3000])
def test_request_that_is_not_known_is_asked_for_again_however_old_it_is(
    since_seconds: float,
) -> None:
    progress = poll_at(since_seconds, ScriptedProvider(answers=[UnknownRequest()]), RENDERS)

    assert progress.state is RenderState.RENDERING
    assert progress.unknown_since == NOON + timedelta(seconds=since_seconds)


@pytest.mark.parametrize(
    ("answer", "since"), [(RENDERING, None), (Unreachable("HTTP 502"), UNKNOWN.unknown_since)]
)
def test_only_an_answer_ends_the_time_until_a_request_is_forgotten(
    answer: Answer | Exception, since: datetime | None
) -> None:
    assert poll_at(900, ScriptedProvider(answers=[answer]), UNKNOWN).unknown_since == since


def test_request_unknown_for_five_minutes_ends_the_job() -> None:
    still = poll_at(399, ScriptedProvider(answers=[UnknownRequest()]), UNKNOWN)
    assert still.unknown_since == UNKNOWN.unknown_since
    ledger = accepted()

    for _ in range(2):
        with pytest.raises(RequestForgotten, match="req-1") as raised:
            poll_at(400, ScriptedProvider(answers=[UnknownRequest()]), UNKNOWN, ledger=ledger)

    [attempt] = ledger.attempts(JOB.id)  # lost, so that the job can be run again
    assert (attempt.state, attempt.code) == (AttemptState.LOST, "RequestForgotten")
    assert attempt.message == raised.value.message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (QUEUED, "state: queued"),
        (RENDERING, "state: rendering"),
        (Answer(state=RenderState.RENDERING, message="Unknown: dreaming."), "dreaming"),
        (Unreachable("RunComfy gave no answer."), "gave no answer"),
    ],
)
def test_deadline_cancels_and_names_the_last_state(answer: Answer | Exception, words: str) -> None:
    provider = ScriptedProvider(answers=[answer], cancels=True)

    with pytest.raises(RenderTimedOut, match=rf"60 minutes.*{words}"):
        poll_at(RENDER_SECONDS, provider, RENDERS)

    assert provider.cancelled == ["req-1"]


def test_deadline_repeats_the_last_words_of_a_provider_that_is_silent_then() -> None:
    dreams = Answer(state=RenderState.RENDERING, message="Unknown: dreaming. Wake me.")
    progress = poll_at(30, ScriptedProvider(answers=[dreams]), RENDERS)
    for trouble in (Unreachable("HTTP 502"), UnknownRequest()):
        progress = poll_at(60, ScriptedProvider(answers=[trouble]), progress)

    with pytest.raises(RenderTimedOut, match=r"Unknown: dreaming\. Wake me\. HTTP 503"):
        poll_at(RENDER_SECONDS, ScriptedProvider(answers=[Unreachable("HTTP 503")]), progress)

    progress = poll_at(90, ScriptedProvider(answers=[RENDERING]), progress)
    assert progress.message == ""


def test_resumed_render_that_was_delivered_needs_no_record_at_the_provider() -> None:
    ledger, slots = accepted(), FakeSlots()
    ledger.end(JOB, NOON, READY, NOON)
    deleted = ScriptedProvider(answers=[Answer(state=RenderState.CANCELLED, message="Deleted.")])

    progress = poll_at(5, deleted, plan=RESUMED, ledger=ledger, slots=slots)

    assert progress.state is RenderState.COMPLETED
    assert slots.returned == [(JOB.id, 1)]
    with pytest.raises(RenderCancelled):
        poll_at(5, deleted, plan=RESUMED, ledger=accepted())


def test_time_in_the_providers_queue_is_no_rendering_time() -> None:
    begun_seconds = QUEUE_SECONDS - 1
    progress = poll_at(begun_seconds, ScriptedProvider(answers=[RENDERING]))
    assert progress.wait_seconds == 60

    late_seconds = begun_seconds + RENDER_SECONDS
    assert poll_at(late_seconds - 1, ScriptedProvider(answers=[RENDERING]), progress).wait_seconds
    with pytest.raises(RenderTimedOut):
        poll_at(late_seconds, ScriptedProvider(answers=[RENDERING]), progress)


def test_render_without_an_answer_stays_queued() -> None:
    progress = poll_at(QUEUE_SECONDS - 5, ScriptedProvider(answers=[Unreachable("HTTP 502")]))
    assert (progress.state, progress.wait_seconds) == (RenderState.QUEUED, 5)


def test_request_cancelled_in_the_queue_goes_to_the_next_offer() -> None:
    ledger = accepted()
    provider = ScriptedProvider(answers=[QUEUED], cancels=True)

    progress = poll_at(QUEUE_SECONDS, provider, ledger=ledger)

    assert progress.next == NextAttempt(attempt=2, offer=1)
    assert provider.cancelled == ["req-1"]
    [attempt] = ledger.attempts(JOB.id)
    assert (attempt.state, attempt.code) == (AttemptState.LOST, "RenderTimedOut")


def test_poll_cut_off_after_cancelling_in_the_queue_still_goes_on() -> None:
    cancelled = ScriptedProvider(answers=[Answer(state=RenderState.CANCELLED)])

    assert poll_at(QUEUE_SECONDS + 30, cancelled).next == NextAttempt(attempt=2, offer=1)


@pytest.mark.parametrize(
    ("plan", "cancels"), [(ONE_OFFER, True), (PLAN, False), (PLAN, Unreachable("HTTP 500"))]
)
def test_request_too_long_in_the_queue_without_another_offer_has_timed_out(
    plan: Plan, cancels: bool | Exception
) -> None:
    provider = ScriptedProvider(answers=[QUEUED], cancels=cancels)

    with pytest.raises(RenderTimedOut, match=r"120 minutes.*state: queued"):
        poll_at(QUEUE_SECONDS, provider, plan=plan)


def test_render_without_credit_goes_to_the_next_offer_or_ends_as_no_credit() -> None:
    broke = Answer(state=RenderState.FAILED, cause=FailureCause.NO_CREDIT, message="Top up.")

    assert poll_at(30, ScriptedProvider(answers=[broke])).next == NextAttempt(attempt=2, offer=1)

    ledger = accepted()
    with pytest.raises(NoCredit, match="Top up"):
        poll_at(30, ScriptedProvider(answers=[broke]), plan=ONE_OFFER, ledger=ledger)
    assert [attempt.code for attempt in ledger.attempts(JOB.id)] == ["RenderFailed"]


@pytest.mark.parametrize("plan", [PLAN, ONE_OFFER])
def test_render_without_credit_closes_the_provider_when_the_account_is_empty(plan: Plan) -> None:
    broke = Answer(state=RenderState.FAILED, cause=FailureCause.NO_CREDIT, message="Top up.")
    provider = ScriptedProvider(answers=[broke])
    provider.account = Account(state=AccountState.NO_CREDIT, message="The balance is 0 USD.")
    closures = MemoryClosures()

    following = poll_at(30, provider, plan=plan, closures=closures).next

    # Where admission lets it: at the next offer, or here once the provider is open again.
    assert following == NextAttempt(attempt=2, offer=0)
    [closed] = closures.all()
    assert (closed.provider, closed.code) == ("runcomfy", "NoCredit")
    assert closed.message == "The balance is 0 USD."


@pytest.mark.parametrize("state", [it for it in AccountState if it is not AccountState.NO_CREDIT])
def test_words_of_a_render_about_credit_close_nothing_unless_the_account_is_empty(
    state: AccountState,
) -> None:
    broke = Answer(state=RenderState.FAILED, cause=FailureCause.NO_CREDIT, message="Arrearage")
    provider = ScriptedProvider(answers=[broke])
    provider.account = Account(state=state)
    closures = MemoryClosures()

    assert poll_at(30, provider, closures=closures).next == NextAttempt(attempt=2, offer=1)
    assert closures.all() == ()


def test_render_that_is_ready_is_never_late() -> None:
    provider = ScriptedProvider(answers=[COMPLETED])

    assert poll_at(2 * QUEUE_SECONDS, provider).state is RenderState.COMPLETED
    assert provider.cancelled == []


# The slot


@pytest.mark.parametrize("attempt", [1, 2])
def test_slot_is_returned_when_the_render_is_completed(attempt: int) -> None:
    slots = FakeSlots()

    for answer in (QUEUED, RENDERING, Unreachable("HTTP 502")):
        poll_at(5, ScriptedProvider(answers=[answer]), slots=slots)
    assert slots.returned == []

    for _ in range(2):  # the function may be called again after it answered
        poll_at(42, ScriptedProvider(answers=[COMPLETED]), slots=slots, attempt=attempt)
    assert slots.returned == [(JOB.id, attempt), (JOB.id, attempt)]


def test_slot_is_returned_before_completion_is_answered() -> None:
    away = FakeSlots(trouble=OSError("DynamoDB is away"))

    with pytest.raises(OSError, match="away"):
        poll_at(42, ScriptedProvider(answers=[COMPLETED]), slots=away)


# What a new run of the job needs


@pytest.mark.parametrize(
    ("since_seconds", "answer", "progress"),
    [(400, UnknownRequest(), UNKNOWN), (QUEUE_SECONDS, QUEUED, None)],
    ids=["forgotten", "late"],
)
def test_end_of_a_render_is_recorded_before_the_job_ends(
    since_seconds: float, answer: Answer | Exception, progress: Progress | None
) -> None:
    provider = ScriptedProvider(answers=[answer], cancels=True)

    with pytest.raises(OSError, match="away"):  # Step Functions calls again
        poll_at(since_seconds, provider, progress, ledger=AwayLedger())


@pytest.mark.parametrize(
    ("cancels", "state"),
    [
        (True, AttemptState.LOST),
        (False, AttemptState.ACCEPTED),
        (Unreachable("HTTP 500"), AttemptState.ACCEPTED),
    ],
)
def test_late_render_is_lost_only_if_the_provider_confirms_its_end(
    cancels: bool | Exception, state: AttemptState
) -> None:
    ledger = accepted()

    with pytest.raises(RenderTimedOut) as raised:
        poll_at(
            RENDER_SECONDS,
            ScriptedProvider(answers=[RENDERING], cancels=cancels),
            RENDERS,
            ledger=ledger,
        )

    [attempt] = ledger.attempts(JOB.id)
    assert attempt.state is state
    if state is AttemptState.LOST:
        assert (attempt.code, attempt.message) == ("RenderTimedOut", raised.value.message)


def test_poll_cut_off_after_cancelling_a_late_render_still_times_out() -> None:
    ledger = accepted()
    cancelled = ScriptedProvider(answers=[Answer(state=RenderState.CANCELLED)])

    with pytest.raises(RenderTimedOut, match="state: cancelled"):
        poll_at(RENDER_SECONDS + 30, cancelled, RENDERS, ledger=ledger)

    assert [attempt.code for attempt in ledger.attempts(JOB.id)] == ["RenderTimedOut"]


def test_resumed_render_has_the_whole_time_again() -> None:
    started_at = NOON + timedelta(hours=5)
    later_seconds = 5 * 3600

    for since_seconds, wait_seconds in ((5, 5), (QUEUE_SECONDS - 11, 11)):
        provider = ScriptedProvider(answers=[QUEUED])
        progress = poll_at(later_seconds + since_seconds, provider, started_at=started_at)
        assert progress.wait_seconds == wait_seconds

    with pytest.raises(RenderTimedOut):
        poll_at(
            later_seconds + QUEUE_SECONDS,
            ScriptedProvider(answers=[QUEUED]),
            started_at=started_at,
            plan=ONE_OFFER,
        )


@pytest.mark.parametrize(
    ("resume", "progress", "notes"),
    [(TICKET, None, [RESUMED]), (TICKET, RENDERS, []), (None, None, [])],
    ids=["first call", "later call", "nothing resumed"],
)
@pytest.mark.parametrize("answer", [QUEUED, FAILED, Unreachable("No answer.")], ids=repr)
def test_first_poll_records_the_resumed_render_whatever_the_answer(
    resume: Ticket | None, progress: Progress | None, notes: list[Plan], answer: Answer | Exception
) -> None:
    ledger = accepted()

    with suppress(DropreelError):
        plan = RESUMED.model_copy(update={"resume": resume})
        poll_at(5, ScriptedProvider(answers=[answer]), progress, plan=plan, ledger=ledger)

    assert [run.plan for run in ledger.runs(JOB.id)] == notes


def test_wait_for_a_slot_does_not_count_as_rendering() -> None:
    started_at = NOON - timedelta(hours=5)

    progress = poll_at(QUEUE_SECONDS - 1, ScriptedProvider(answers=[QUEUED]), started_at=started_at)

    assert progress.wait_seconds == 1
