"""The poll function: its event in, its answer out."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from dropreel.model.errors import RenderTimedOut, RequestForgotten
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import ActiveRender, NextAttempt, Plan, Progress
from dropreel.model.provider import Answer, RenderState, UnknownRequest
from tests.support.final_answers import ends_in
from tests.support.render_account import RenderAccount, render_account
from tests.support.render_fakes import JOB, NOON, PLAN, RUNCOMFY, TICKET, ScriptedProvider


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    with render_account(monkeypatch) as account:
        yield account


def poll(
    account: RenderAccount,
    submitted_at: datetime,
    provider: ScriptedProvider,
    before: Progress | None = None,
    plan: Plan = PLAN,
) -> Progress:
    ticket = TICKET.model_copy(update={"submitted_at": submitted_at})
    render = ActiveRender(plan=plan, ticket=ticket, progress=before, started_at=submitted_at)
    return Progress.model_validate(account.call("poll", render.model_dump(mode="json"), provider))


def test_render_under_way_is_asked_for_again(account: RenderAccount) -> None:
    provider = ScriptedProvider(answers=[Answer(state=RenderState.RENDERING)])

    progress = poll(account, datetime.now(UTC), provider)

    assert (progress.state, progress.wait_seconds) == (RenderState.RENDERING, 5)


def test_deadline_is_the_one_that_it_was_submitted_with(
    account: RenderAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUEUE_TIMEOUT_MINUTES", "1")
    monkeypatch.setenv("RENDER_TIMEOUT_MINUTES", "1")
    since = datetime.now(UTC) - timedelta(minutes=30)

    for state, before in ((RenderState.QUEUED, None), (RenderState.RENDERING, rendering(since))):
        provider = ScriptedProvider(answers=[Answer(state=state)], cancels=True)
        assert poll(account, since, provider, before).state is state
        assert provider.cancelled == []


def test_late_render_is_cancelled_and_reported(account: RenderAccount) -> None:
    since = datetime.now(UTC) - timedelta(minutes=61)
    provider = ScriptedProvider(answers=[Answer(state=RenderState.RENDERING)])

    with ends_in(RenderTimedOut):
        poll(account, since, provider, rendering(since))

    assert provider.cancelled == ["req-1"]


def test_plan_of_a_resumed_run_is_noted_in_the_ledger(
    account: RenderAccount,
) -> None:
    job = JOB.model_copy(update={"run": 2})
    plan = PLAN.model_copy(update={"job": job, "resume": TICKET})
    provider = ScriptedProvider(answers=[Answer(state=RenderState.RENDERING)])

    poll(account, datetime.now(UTC), provider, plan=plan)

    [run] = account.ledger.runs(JOB.id)
    assert (run.number, run.plan) == (2, plan)


def rendering(since: datetime) -> Progress:
    return Progress(state=RenderState.RENDERING, wait_seconds=5, rendering_since=since)


def test_failed_render_is_written_down_and_handed_back_to_submit(account: RenderAccount) -> None:
    attempt = account.ledger.begin(JOB.id, NextAttempt(), RUNCOMFY, NOON)
    assert attempt is not None
    account.ledger.accept(attempt, "req-1", NOON)
    failed = Answer(state=RenderState.FAILED, message="No face found.")

    progress = poll(account, datetime.now(UTC), ScriptedProvider(answers=[failed]))

    assert progress.next == NextAttempt(attempt=2, offer=1)
    [lost] = account.ledger.attempts(JOB.id)
    assert (lost.state, lost.code) == (AttemptState.LOST, "RenderFailed")


def test_forgotten_request_is_lost_in_the_ledger(account: RenderAccount) -> None:
    attempt = account.ledger.begin(JOB.id, NextAttempt(), RUNCOMFY, NOON)
    assert attempt is not None
    account.ledger.accept(attempt, "req-1", NOON)
    unknown = Progress(state=RenderState.RENDERING, wait_seconds=5, unknown_since=NOON)

    with ends_in(RequestForgotten):
        poll(account, NOON, ScriptedProvider(answers=[UnknownRequest()]), unknown)

    [lost] = account.ledger.attempts(JOB.id)
    assert (lost.state, lost.code) == (AttemptState.LOST, "RequestForgotten")


def test_late_render_that_is_cancelled_is_lost_in_the_ledger(account: RenderAccount) -> None:
    attempt = account.ledger.begin(JOB.id, NextAttempt(), RUNCOMFY, NOON)
    assert attempt is not None
    account.ledger.accept(attempt, "req-1", NOON)
    late = ScriptedProvider(answers=[Answer(state=RenderState.RENDERING)], cancels=True)

    with ends_in(RenderTimedOut):
        poll(account, NOON, late, rendering(NOON))

    [lost] = account.ledger.attempts(JOB.id)
    assert (lost.state, lost.code) == (AttemptState.LOST, "RenderTimedOut")
