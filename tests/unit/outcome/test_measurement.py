"""What is measured of a run: once, and by dimensions that nobody can make up."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.model.catalog import MODELS, TITLES
from dropreel.model.events import JobChecked, VideoReady
from dropreel.model.metrics import Metric
from dropreel.outcome.measurement import OUTCOMES, measure
from dropreel.runtime.metrics import EmfMeter
from local.contract import EVENTS
from local.emf import Value, values_in
from tests.support.conclusion_bench import NO_CREDIT, READY, Bench, ended_run, failed_in, failed_run
from tests.support.meter import FakeMeter, Recorded
from tests.support.render_fakes import JOB


def recorded_of(detail: Any) -> list[tuple[tuple[str | None, str | None], Recorded]]:  # noqa: ANN401
    meter = FakeMeter()
    measure(detail, meter)
    return meter.recorded


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        (READY, Metric.JOBS_READY),
        (failed_in("InputRejected"), Metric.JOBS_REFUSED),
        (failed_in("RenderModerated"), Metric.JOBS_REFUSED),
        (failed_in("ExecutionAborted"), Metric.JOBS_REFUSED),
        (failed_in("TokenRejected"), Metric.JOBS_FAILED),
        (failed_in("RequestRefused"), Metric.JOBS_FAILED),  # a provider may have changed its API
        (failed_in("OfALaterRelease"), Metric.JOBS_FAILED),
    ],
)
def test_a_run_counts_in_one_outcome(outcome: Any, counted: Metric) -> None:  # noqa: ANN401
    for _, values in recorded_of(outcome.detail):
        assert {metric: values[metric] for metric in OUTCOMES} == {
            metric: metric is counted for metric in OUTCOMES
        }


def test_a_render_is_measured_of_the_stack_and_of_its_provider_and_model() -> None:
    assert isinstance(READY.detail, VideoReady)
    render = READY.detail.render
    ready = READY.detail.model_copy(
        update={
            "estimated_usd": 0.5,
            "actual_usd": None,
            "render": render.model_copy(
                update={"queued_seconds": 3, "rendering_seconds": 90.5, "copying_seconds": 1}
            ),
        }
    )

    of_stack, of_model = recorded_of(ready)

    assert (of_stack[0], of_model[0]) == ((None, None), ("runcomfy", JOB.model))
    assert of_stack[1] == of_model[1]
    assert of_stack[1] == {
        Metric.JOBS_READY: 1,
        Metric.JOBS_REFUSED: 0,
        Metric.JOBS_FAILED: 0,
        Metric.QUEUED_SECONDS: 3,
        Metric.RENDERING_SECONDS: 90.5,
        Metric.COPYING_SECONDS: 1,
        Metric.ESTIMATED_USD: 0.5,
    }


def test_a_check_is_not_among_the_jobs_that_are_counted() -> None:
    event = json.loads((EVENTS / "job-checked.example.json").read_text())

    assert recorded_of(JobChecked.model_validate(event["detail"])) == []


def test_what_was_never_submitted_has_no_provider() -> None:
    failed = failed_in("InputRejected").detail.model_copy(update={"render": None})

    [(dimensions, _)] = recorded_of(failed)

    assert dimensions == (None, None)


@pytest.mark.parametrize("way", [failed_run(NO_CREDIT), ended_run("TIMED_OUT")])
def test_a_run_is_measured_once_however_often_it_is_concluded(way: dict[str, Any]) -> None:
    bench = Bench().accept()

    for _ in range(3):
        bench.end(way)
        bench.announce_outcome()

    assert len(bench.announced) == 1
    assert len(bench.meter.recorded) == 2


def test_an_event_that_is_sent_twice_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls at once both find that the event was not sent."""
    bench = Bench()
    bench.conclude(failed_run(NO_CREDIT))
    unsent = bench.outcome
    bench.announce_outcome()

    monkeypatch.setattr(bench.ledger, "outcome", lambda *_: unsent)
    bench.announce_outcome()

    assert len(bench.announced) == 2
    assert len([dimensions for dimensions, _ in bench.meter.recorded if not any(dimensions)]) == 1


def emitted_of(detail: Any, capture: pytest.CaptureFixture[str]) -> list[Value]:  # noqa: ANN401
    measure(detail, EmfMeter())
    return list(values_in(capture.readouterr().out.splitlines()))


texts = st.text(max_size=30)


@given(folder=texts, stem=texts, code=texts, endpoint=texts, label=texts, request=texts)
def test_nothing_that_people_choose_is_a_dimension(
    folder: str, stem: str, code: str, endpoint: str, label: str, request: str
) -> None:
    """The list of all dimensions: each combination is paid for."""
    made_up = {"folder": folder, "stem": stem, "labels": {"for": label}, "prompt": label}
    for outcome in (READY, failed_in(code)):
        detail: Any = outcome.detail
        job = detail.job.model_copy(update={"id": f"{stem}-1", **made_up})
        render = detail.render and detail.render.model_copy(
            update={"request_id": request, "model": endpoint}
        )

        recorded = recorded_of(detail.model_copy(update={"job": job, "render": render}))

        for (provider, model), values in recorded:
            assert provider in {None, *TITLES}
            assert model in {None, *MODELS}
            assert set(values) <= set(Metric)


def test_the_lines_have_no_other_dimensions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "my-stack")

    emitted = emitted_of(READY.detail, capsys)

    assert {value.dimensions for value in emitted} == {
        frozenset({("service", "my-stack")}),
        frozenset({("service", "my-stack"), ("provider", "runcomfy"), ("model", JOB.model)}),
    }
    # Powertools' `Metrics` shares its dimensions between lines.
    again = emitted_of(READY.detail, capsys)
    assert [value._replace(at_ms=0) for value in again] == [
        value._replace(at_ms=0) for value in emitted
    ]
