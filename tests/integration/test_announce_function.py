"""The announce function on DynamoDB and EventBridge as moto plays them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dropreel.model.ledger import Outcome
from dropreel.model.messages import EndedJob
from dropreel.outcome.announcement import OutcomeMissing
from tests.support.conclusion_bench import FAILED, READY, RUN
from tests.support.fault_account import CONTEXT, load_step
from tests.support.log_lines import keys_of
from tests.support.render_account import RenderAccount, render_account
from tests.support.render_fakes import JOB, NOON


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    with render_account(monkeypatch) as account:
        yield account


def announce() -> dict[str, Any]:
    """In a new environment."""
    event = EndedJob(job=JOB, execution=RUN, started_at=NOON).model_dump(mode="json")
    detail: dict[str, Any] = load_step("announce").handler(event, CONTEXT)
    return detail


@pytest.mark.parametrize(
    ("outcome", "detail_type"), [(READY, "Video Ready"), (FAILED, "Video Failed")]
)
def test_outcome_is_announced_once(
    account: RenderAccount, outcome: Outcome, detail_type: str
) -> None:
    account.ledger.end(JOB, NOON, outcome, NOON)

    first, second = announce(), announce()

    [event] = map(json.loads, account.announced())
    assert (event["source"], event["detail-type"]) == ("dropreel", detail_type)
    assert event["resources"] == [RUN]
    assert first == second == event["detail"] == outcome.detail.model_dump(mode="json")
    written = account.ledger.outcome(JOB, NOON)
    assert written
    assert written.sent_at


def test_the_lines_of_its_metrics_name_the_job(
    account: RenderAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    account.ledger.end(JOB, NOON, FAILED, NOON)

    announce()

    lines = [line for line in capsys.readouterr().out.splitlines() if "CloudWatchMetrics" in line]
    assert lines
    for line in map(json.loads, lines):
        assert keys_of(line) == (JOB.id, JOB.run, JOB.folder)


def test_run_without_an_outcome_is_a_fault_and_retried(account: RenderAccount) -> None:
    account.ledger.close(JOB, NOON)

    with pytest.raises(OutcomeMissing):
        announce()

    assert account.announced() == []
