"""Never pay twice, whatever interrupts submit."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dropreel.model.catalog import ProviderName
from dropreel.model.closure import Account, AccountState
from dropreel.model.errors import DropreelError, SubmissionUnclear
from dropreel.model.ledger import Attempt, AttemptState
from dropreel.model.messages import ActiveRender, NextAttempt, PlannedOffer
from dropreel.model.provider import (
    Answer,
    FailureCause,
    Lookup,
    RenderState,
    Ticket,
    Unclear,
    Unreachable,
)
from dropreel.render.polling import poll
from dropreel.render.submission import CALL_LIFE_SECONDS
from tests.support.render_fakes import (
    JOB,
    NOON,
    PLAN,
    RUNCOMFY,
    WAVESPEED,
    MemoryLedger,
    ScriptedProvider,
    by_name,
)
from tests.support.submission_bench import (
    FIRST,
    NO_CREDIT,
    NO_CREDIT_AT_ALL,
    THROTTLED,
    UNAVAILABLE,
    Bench,
    never_rendered,
)


@given(
    age_seconds=st.floats(0, 2 * CALL_LIFE_SECONDS),
    late_seconds=st.floats(0, 5),
    next_attempt=st.builds(NextAttempt, tries=st.integers(0, 99), is_paced=st.booleans()),
)
@settings(max_examples=50)
def test_waiting_for_another_call_comes_to_an_end(
    age_seconds: float, late_seconds: float, next_attempt: NextAttempt
) -> None:
    bench = Bench.of("req-2")
    bench.ledger.begin(JOB.id, FIRST, RUNCOMFY, NOON)
    bench.clock.pass_seconds(age_seconds)

    waits = 0
    with suppress(SubmissionUnclear):
        while True:
            submission = bench.submit(next_attempt)
            waits += 1
            assert waits <= 1
            assert not submission.next.is_paced
            bench.clock.pass_seconds(submission.wait_seconds + late_seconds)
            next_attempt = submission.next

    assert bench.waited_seconds >= CALL_LIFE_SECONDS
    assert bench.runcomfy.submitted == []


class Killed(BaseException):
    """The function's environment is gone: nothing after this point runs."""


POINTS = ("found", "begun", "arrived", "answered", "recording", "recorded", "looking", "adopted")


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

    def _replace(self, attempt: Attempt, changes: dict[str, object]) -> Attempt:
        losing = changes["state"] is AttemptState.LOST
        self.interruption.at("losing" if losing else "recording")
        changed = super()._replace(attempt, changes)
        self.interruption.at("lost" if losing else "recorded")
        return changed

    def confirm(self, job_id: str, ticket: Ticket) -> None:
        super().confirm(job_id, ticket)
        self.interruption.at("adopted")


class MoodyProvider(ScriptedProvider):
    """Accepts, refuses, or loses its answer, as the test says for each call. Renders all fail.

    WaveSpeed lists what it has accepted, unless it is in no mood to.
    """

    def __init__(self, name: ProviderName, ledger: InterruptedLedger) -> None:
        super().__init__(name, lookups=() if name == "wavespeed" else None)
        self._ledger = ledger
        self.mood = "accept"
        self.cause = FailureCause.OTHER
        self.accepted: list[str] = []
        self.sent_files: dict[str, list[object]] = {}

    def submit(self, endpoint: str, payload: Mapping[str, object]) -> str:
        mood = self.mood
        assert endpoint not in self._refused(), "submitted where it was definitely refused"
        self._ledger.interruption.at("arrived")
        if mood == "refuse for now":
            raise UNAVAILABLE
        if mood == "throttle":
            raise THROTTLED
        if mood == "refuse":
            raise NO_CREDIT
        if mood == "refuse the account":
            raise NO_CREDIT_AT_ALL
        if mood == "lose it":
            raise Unclear("The connection broke before the request was read.")
        request_id = f"{self.name}-{len(self.accepted) + 1}"
        self.accepted.append(request_id)
        self.sent_files[request_id] = [it for it in payload.values() if "://" in str(it)]
        if mood == "accept and lose the answer":
            raise Unclear("The connection broke after the request was read.")
        self._ledger.interruption.at("answered")
        return request_id

    def _refused(self) -> set[str]:
        """As far as anybody knows: a refusal that nobody lived to record is unclear. One of the
        account may be asked again."""
        refused = (it for it in self._ledger.attempts(JOB.id) if it.state is AttemptState.REFUSED)
        return {sent.endpoint for sent in refused if not sent.closes_provider}

    def find(
        self,
        endpoint: str,
        urls: Collection[str],
        since: datetime,
        until: datetime,
        known: Collection[str],
    ) -> Lookup:
        self._ledger.interruption.at("looking")
        if self.mood == "lose it":
            raise Unreachable("The connection broke.")
        ours = [it for it, files in self.sent_files.items() if files == [*urls]]
        found = [it for it in ours if it not in known and self.mood != "throttle"]
        return Lookup(request_id=found[-1] if found else None, listed=len(ours), readable=len(ours))

    def ask(self, ticket: Ticket) -> Answer:
        assert ticket.request_id in self.accepted
        return Answer(state=RenderState.FAILED, cause=self.cause)


MOODS = st.sampled_from(
    [
        "accept",
        "refuse for now",
        "throttle",
        "refuse",
        "refuse the account",
        "lose it",
        "accept and lose the answer",
    ]
)
ACCOUNTS = st.sampled_from([AccountState.ACCEPTED, AccountState.NO_CREDIT])
CAUSES = st.sampled_from(FailureCause)
FLASH = RUNCOMFY.model_copy(update={"endpoint": "wan-ai/wan-2-6/flash/image-to-video"})
PLACES = st.integers(0, 9)


class NeverPayTwice(RuleBasedStateMachine):
    """Step Functions calls submit and poll again and again, also with what it was told earlier.

    Calls overlap, and die at any point; offers refuse, and renders fail.
    """

    @initialize(
        first_attempt=st.sampled_from([1, 3]),
        route=st.sampled_from(
            [(RUNCOMFY, WAVESPEED, FLASH), (WAVESPEED, RUNCOMFY, FLASH), (WAVESPEED,)]
        ),
    )
    def drop(self, first_attempt: int, route: tuple[PlannedOffer, ...]) -> None:
        self.ledger = InterruptedLedger()
        self.providers = (
            MoodyProvider("runcomfy", self.ledger),
            MoodyProvider("wavespeed", self.ledger),
        )
        self.bench = Bench(
            *self.providers,
            ledger=self.ledger,
            plan=PLAN.model_copy(update={"route": route, "first_attempt": first_attempt}),
        )
        self.turns = [NextAttempt(attempt=first_attempt)]
        self.tickets: list[Ticket] = []
        self.accepted_before_unclear: dict[int, int] = {}

    def submit(self, next_attempt: NextAttempt, mood: str) -> None:
        for provider in self.providers:
            provider.mood = mood
        with suppress(DropreelError):
            submission = self.bench.submit(next_attempt)
            if submission.ticket:
                self.tickets.append(submission.ticket)
            self.turns.append(submission.next)
            assert submission.falls_over == (submission.next.attempt != next_attempt.attempt)

    def next_attempt(self, place: int) -> NextAttempt:
        """Mostly the newest."""
        return self.turns[-1 - place % len(self.turns)] if place > 5 else self.turns[-1]

    def interrupt(self, point: str = "", event: Callable[[], None] = lambda: None) -> None:
        self.ledger.interruption = Interruption(point, event)

    def die_at(self, point: str) -> None:
        def die() -> None:
            raise Killed

        self.interrupt(point, die)

    @rule(mood=MOODS, place=PLACES)
    def submit_undisturbed(self, mood: str, place: int) -> None:
        self.interrupt()
        self.submit(self.next_attempt(place), mood)

    @rule(mood=MOODS, place=PLACES, point=st.sampled_from(POINTS))
    def submit_and_die(self, mood: str, place: int, point: str) -> None:
        self.die_at(point)
        with suppress(Killed):
            self.submit(self.next_attempt(place), mood)

    @rule(mood=MOODS, place=PLACES, point=st.sampled_from(POINTS), other=MOODS)
    def submit_twice_at_once(self, mood: str, place: int, point: str, other: str) -> None:
        next_attempt = self.next_attempt(place)
        self.interrupt(point, lambda: self.submit(next_attempt, other))
        self.submit(next_attempt, mood)

    @rule(
        mood=st.sampled_from(["lose it", "accept and lose the answer"]),
        point=st.sampled_from(["", "looking", "adopted"]),
    )
    def lose_the_answer_and_look(self, mood: str, point: str) -> None:
        self.interrupt()
        self.submit(self.turns[-1], mood)
        self.die_at(point)
        with suppress(Killed):
            self.submit(self.turns[-1], "accept")

    @rule(
        place=PLACES,
        cause=CAUSES,
        account=ACCOUNTS,
        point=st.sampled_from(["", "losing", "lost"]),
    )
    def render_fails(
        self, place: int, cause: FailureCause, account: AccountState, point: str
    ) -> None:
        if not self.tickets:
            return
        for provider in self.providers:
            provider.cause, provider.account = cause, Account(state=account)
        self.die_at(point)
        with suppress(DropreelError, Killed):
            progress = poll(
                ActiveRender(
                    plan=self.bench.plan,
                    ticket=self.tickets[-1 - place % len(self.tickets)],
                    started_at=NOON,
                ),
                ledger=self.ledger,
                closures=self.bench.closures,
                rendered=never_rendered,
                providers=by_name(*self.providers),
                clock=self.bench.clock,
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
    def providers_accepted_one_render_and_another_after_a_failed_one_at_most(self) -> None:
        assert self.accepted <= 2

    @invariant()
    def provider_accepts_nothing_while_a_submission_is_unclear(self) -> None:
        open_ones = [
            it.number for it in self.ledger.attempts(JOB.id) if it.state is AttemptState.BEGUN
        ]
        for number in open_ones:
            before = self.accepted_before_unclear.setdefault(number, self.accepted)
            assert self.accepted == before

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

    @invariant()
    def a_request_belongs_to_one_attempt(self) -> None:
        requests = [it.request_id for it in self.ledger.attempts(JOB.id) if it.request_id]
        assert len(set(requests)) == len(requests)


TestNeverPayTwice = NeverPayTwice.TestCase
TestNeverPayTwice.settings = settings(max_examples=600, stateful_step_count=14)
