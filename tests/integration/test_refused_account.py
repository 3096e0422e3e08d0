"""A token that a provider refuses, from the first refusal to the video: submit, poll and watch as
Lambda loads them, admission, and the providers' stand-ins.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.catalog import ProviderName
from dropreel.model.closure import AccountState
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import ActiveRender, AdmitRequest, NextAttempt, Plan
from dropreel.model.provider import RenderState
from tests.support.admission_fakes import FakeExecutions, admission_with
from tests.support.fault_account import RUNCOMFY, WAVESPEED, FaultAccount, fault_account, other
from tests.support.render_account import LEDGER

FREE_CALL = {RUNCOMFY: "status", WAVESPEED: "account"}
each_provider = pytest.mark.parametrize("provider", [RUNCOMFY, WAVESPEED], ids=str)


@pytest.fixture(scope="module")
def module_account() -> Iterator[FaultAccount]:
    with fault_account() as account:
        yield account


class Jobs:
    """Admission, and the state machine around it."""

    def __init__(self, account: FaultAccount) -> None:
        self.account = account
        self.slots = DynamoDBSlots(LEDGER)
        self.executions = FakeExecutions()
        self.admission = admission_with(
            self.slots,
            self.executions,
            DynamoDBLedger(LEDGER),
            account.now,
            account.closures,
            in_flight=5,
        )
        self.minutes = 0
        self.started: dict[str, datetime] = {}

    def admit(self, plan: Plan, attempt: NextAttempt) -> bool:
        """Whether it has a slot at once."""
        request = AdmitRequest(
            plan=plan,
            next=attempt,
            task_token=f"{plan.job.id} {attempt.attempt}",
            retry=0,
            started_at=self.started.setdefault(plan.job.id, self.account.now()),
        )
        self.executions.wait(plan.job.execution_name, request.task_token)
        self.admission.admit(request)
        return not self.waits(plan)

    def waits(self, plan: Plan) -> bool:
        return self.executions.waits(plan.job.execution_name)

    def minute(self) -> None:
        self.minutes += 1
        self.admission.serve_waiting(f"minute {self.minutes}")

    def render(self, plan: Plan, attempt: NextAttempt) -> None:
        ticket = self.account.submit(plan, attempt).ticket
        assert ticket
        render = ActiveRender(plan=plan, ticket=ticket, started_at=ticket.submitted_at)
        for _ in range(100):
            if self.account.poll(render).state is RenderState.COMPLETED:
                self.admission.rendered(plan.job, attempt.attempt)
                return
        raise AssertionError("never rendered")

    @property
    def slots_taken(self) -> int:
        return sum(len(self.slots.leases(provider)) for provider in (RUNCOMFY, WAVESPEED))


@pytest.fixture
def jobs(module_account: FaultAccount) -> Iterator[Jobs]:
    with module_account.watched() as account:
        yield Jobs(account)


@contextmanager
def refused_token(account: FaultAccount, provider: ProviderName) -> Iterator[None]:
    standin = account.standins[provider]
    with (
        standin.misbehaving(FREE_CALL[provider], None, {"status": 401}),
        standin.misbehaving("submit", None, {"status": 401}),
    ):
        yield


def accepted(jobs: Jobs, plan: Plan) -> dict[ProviderName, int]:
    return {name: it.accepted(plan) for name, it in jobs.account.standins.items()}


@each_provider
def test_job_waits_until_a_good_token_is_stored_and_is_paid_once(
    jobs: Jobs, provider: ProviderName
) -> None:
    account, plan, first = jobs.account, jobs.account.drop_job(provider), NextAttempt()
    renders_before = jobs.slots.day(account.now().date()).renders

    with refused_token(account, provider):
        assert jobs.admit(plan, first)
        refused = account.submit(plan, first)
        assert not jobs.admit(plan, refused.next)
        said = account.ask_providers()[provider]
        jobs.minute()
        assert jobs.waits(plan)
    assert (said.state, said.is_closed) == (AccountState.REFUSED, True)
    assert jobs.slots_taken == 0

    said = account.ask_providers()[provider]
    assert (said.state, said.is_on_trial) == (AccountState.ACCEPTED, True)
    jobs.minute()
    assert not jobs.waits(plan)
    jobs.render(plan, refused.next)

    assert accepted(jobs, plan) == {provider: 1, other(provider): 0}
    attempts = account.attempts(plan)
    assert [it.state for it in attempts] == [AttemptState.REFUSED, AttemptState.ACCEPTED]
    assert jobs.slots.day(account.now().date()).renders == renders_before + 1
    account.pass_seconds(300)
    account.watch()
    assert account.closures.all() == ()
    assert jobs.slots_taken == 0


@each_provider
def test_jobs_with_another_offer_move_there_and_are_paid_once(
    jobs: Jobs, provider: ProviderName
) -> None:
    account = jobs.account
    before, after = (account.drop_job(provider, other(provider)) for _ in range(2))

    with refused_token(account, provider):
        assert jobs.admit(before, NextAttempt())
        refused = account.submit(before)
        assert jobs.admit(before, refused.next)
        jobs.render(before, refused.next)
        assert jobs.admit(after, NextAttempt())  # asks the closed one no more
        jobs.render(after, NextAttempt())
        account.watch()
        assert [it.code for it in account.closures.all()] == ["TokenRejected"]

    for plan in (before, after):
        assert accepted(jobs, plan) == {provider: 0, other(provider): 1}
    assert len(account.standins[provider].received(after)) == 0
    assert jobs.slots_taken == 0


@each_provider
def test_token_that_only_the_free_call_accepts_is_tried_by_one_job_at_a_time(
    jobs: Jobs, provider: ProviderName
) -> None:
    account = jobs.account
    plans = [account.drop_job(provider) for _ in range(3)]
    turns = {plan.job.id: NextAttempt() for plan in plans}

    with account.standins[provider].misbehaving("submit", None, {"status": 401}):
        for plan in plans:
            assert jobs.admit(plan, NextAttempt())
        for plan in plans:  # each is refused, and comes back
            turns[plan.job.id] = account.submit(plan).next
            jobs.admit(plan, turns[plan.job.id])
        for minutes in (5, 10, 20):
            account.pass_seconds(60 * minutes)
            account.watch()
            jobs.minute()
            [tried] = [plan for plan in plans if not jobs.waits(plan)]
            turns[tried.job.id] = account.submit(tried, turns[tried.job.id]).next
            assert not jobs.admit(tried, turns[tried.job.id])
            [closed] = account.closures.all()
            assert closed.max_in_flight == 0

    assert closed.refusals == 4
    assert [turn.attempt for turn in turns.values()] == [3, 3, 3]
    for plan in plans:
        jobs.admission.leave(plan.job)


@each_provider
def test_job_that_alone_is_refused_takes_no_second_trial_from_those_that_wait(
    jobs: Jobs, provider: ProviderName
) -> None:
    account = jobs.account
    costly, cheap = (account.drop_job(provider) for _ in range(2))
    started_at = account.now()

    with account.standins[provider].misbehaving("submit", None, {"status": 402}):
        assert jobs.admit(costly, NextAttempt())
        refused = account.submit(costly).next
        assert not jobs.admit(costly, refused)
        assert not jobs.admit(cheap, NextAttempt())
        account.pass_seconds(300)
        account.watch()
        jobs.minute()
        assert not jobs.waits(costly)  # it came first
        refused = account.submit(costly, refused).next
        assert not jobs.admit(costly, refused)
    account.pass_seconds(600)
    account.watch()
    jobs.minute()

    assert jobs.waits(costly)
    assert not jobs.waits(cheap)
    [run] = DynamoDBLedger(LEDGER).runs(costly.job.id)
    assert run.started_at
    assert abs(run.started_at - started_at).total_seconds() < 60
    for plan in (costly, cheap):
        jobs.admission.leave(plan.job)
