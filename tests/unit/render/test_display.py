"""The events for display: what they say, and that nothing goes wrong with them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from dropreel.model.events import DetailType, JobStarted, RenderSubmitted
from dropreel.model.messages import SubmitRequest
from dropreel.model.prices import billed
from dropreel.render.admission import Admission, RunId, Waiter
from dropreel.render.display import NEEDS_SECONDS, Display
from dropreel.render.spending import Limits
from tests.support.admission_fakes import request_of
from tests.support.log_lines import log_lines
from tests.support.render_fakes import ENVIRONMENT, JOB, NOON, PLAN, TICKET, WAVESPEED
from tests.support.submission_bench import SECRET, Bench

EXECUTION = f"arn:aws:states:eu-central-1:123456789012:execution:dropreel-render:{JOB.id}"


@dataclass
class FakeBus:
    fault: Exception | None = None
    sent: list[tuple[DetailType, BaseModel, Sequence[str]]] = field(default_factory=list)

    def announce(
        self, detail_type: DetailType, detail: BaseModel, resources: Sequence[str] = ()
    ) -> None:
        if self.fault:
            raise self.fault
        self.sent.append((detail_type, detail, resources))


def display(bus: FakeBus, seconds_left: float = 60) -> Display:
    return Display(bus, ENVIRONMENT["STATE_MACHINE_ARN"], lambda: seconds_left)


def start(to: Display, waiting_before: Any = lambda waiter, at_most: 3) -> None:  # noqa: ANN401
    """The run waits for the second offer of its route, because the first is paused."""
    request = request_of(JOB)
    waiter = Waiter(
        run=RunId.of(JOB),
        attempt=1,
        route=billed(request.plan),
        offer=1,
        started_at=NOON,
        task_token="the-task-token",
    )
    unused: Any = None
    admission = Admission(
        slots=SimpleNamespace(waiting_before=waiting_before),
        executions=unused,
        find_attempt=unused,
        clock=unused,
        limits=Limits(in_flight={}, lease={}),
        closures=unused,
    )
    to.job_started(request, waiter, admission)


def submitted(to: Display, request: SubmitRequest | None = None) -> None:
    bench = Bench.of("req-1")
    bench.submit()
    [(attempt, ticket)] = bench.recorded
    to.render_submitted(request or SubmitRequest(plan=PLAN, started_at=NOON), attempt, ticket)


def test_job_started_says_what_it_is_what_it_costs_and_how_many_wait() -> None:
    start(display(bus := FakeBus()))

    [(detail_type, detail, resources)] = bus.sent
    assert isinstance(detail, JobStarted)
    assert (detail_type, resources) == (DetailType.JOB_STARTED, [EXECUTION])
    assert (detail.job.id, detail.job.started_at) == (JOB.id, NOON)
    assert [given.sha256 for given in detail.inputs] == ["1" * 64, "2" * 64]
    assert (detail.offer.provider, detail.offer.model) == ("wavespeed", WAVESPEED.endpoint)
    assert (detail.estimated_usd, detail.voice_seconds, detail.jobs_before) == (0.12, 3.5, 3)


def test_render_submitted_names_the_request() -> None:
    submitted(display(bus := FakeBus()))

    [(detail_type, detail, resources)] = bus.sent
    assert isinstance(detail, RenderSubmitted)
    assert (detail_type, resources) == (DetailType.RENDER_SUBMITTED, [EXECUTION])
    assert (detail.attempt, detail.provider, detail.model, detail.request_id) == (
        1,
        TICKET.provider,
        TICKET.endpoint,
        "req-1",
    )
    assert (detail.job.id, detail.submitted_at) == (JOB.id, NOON)


def test_execution_that_an_earlier_version_started_sends_no_render_submitted() -> None:
    """Its definition does not pass on when it started."""
    submitted(display(bus := FakeBus()), SubmitRequest(plan=PLAN))

    assert bus.sent == []


@pytest.mark.parametrize("send", [start, submitted])
@pytest.mark.parametrize(
    ("bus", "seconds_left", "named"),
    [
        (FakeBus(OSError(f"https://uploads.example/?{SECRET}")), 60, "OSError"),
        (FakeBus(), NEEDS_SECONDS - 1, "TimeoutError"),
    ],
)
def test_event_that_cannot_be_sent_is_one_warning(
    send: Callable[[Display], None], bus: FakeBus, seconds_left: float, named: str
) -> None:
    with log_lines() as lines:
        send(display(bus, seconds_left))

    assert bus.sent == []
    [warning] = [line for line in lines.taken() if line["level"] == "WARNING"]
    assert re.fullmatch(f"(Job Started|Render Submitted) was not sent: {named}", warning["message"])


def test_queue_that_cannot_be_counted_costs_the_event_alone() -> None:
    def no_answer(waiter: Waiter, at_most: int) -> int:
        raise OSError

    with log_lines() as lines:
        start(display(bus := FakeBus()), no_answer)

    assert bus.sent == []
    assert [line["level"] for line in lines.taken()] == ["WARNING"]
