"""A dry run's end: what it is told, what it writes, and what it leaves alone."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from pydantic import ValidationError

from dropreel.model import errors
from dropreel.model.events import DetailType, JobChecked
from dropreel.model.job import Job
from dropreel.model.messages import ActiveRender, AdmitRequest, Checked, Plan, SubmitRequest
from tests.support.conclusion_bench import (
    RUN,
    Bench,
    Event,
    ended_run,
    error_file,
    failed_run,
    manifest,
)
from tests.support.render_fakes import JOB, NOON, PLAN

DRY = JOB.model_copy(update={"dry_run": True})
ABORTED = ended_run("ABORTED", input=DRY.model_dump_json())
TOO_SMALL = errors.InputRejected((errors.Reason(file="a.png", rule="a", found="b", cure="c"),))
REFUSED = failed_run(TOO_SMALL, job=DRY.model_dump(mode="json"))


def accepted(job: Job = DRY) -> Event:
    plan = PLAN.model_copy(update={"job": job, "changes": ("Smaller.",)})
    checked = Checked(checked=plan)
    return {
        "job": job.model_dump(mode="json"),
        **checked.model_dump(mode="json"),
        "execution": RUN,
        "started_at": NOON.isoformat(),
    }


def conclude(bench: Bench, way: Event) -> JobChecked:
    told = bench.tell(way)
    assert isinstance(told, JobChecked)
    return told


def test_accepted_job_is_told_what_would_be_sent_and_what_it_would_cost() -> None:
    bench = Bench()

    told = conclude(bench, accepted())

    assert (told.accepted, told.error) == (True, None)
    assert [offer.provider for offer in told.offers] == ["runcomfy", "wavespeed"]
    assert [offer.options for offer in told.offers] == [offer.fields for offer in PLAN.route]
    assert [offer.estimated_usd for offer in told.offers] == [None, 0.12]  # 4 seconds
    assert told.estimated_usd is None
    assert told.changes == ("Smaller.",)
    assert told.voice_seconds == 3.5
    assert bench.documents == {"team/anna.check.json": told.model_dump_json(indent=2)}
    assert bench.announced == []  # the state machine's next step does it


@pytest.mark.parametrize("way", [REFUSED, ABORTED])
def test_refusal_and_abort_are_an_answer(way: Event) -> None:
    bench = Bench()

    told = conclude(bench, way)

    assert (told.accepted, told.offers, told.estimated_usd) == (False, (), None)
    assert told.error
    is_announced_from_here = way is ABORTED
    assert bench.announced == [(DetailType.JOB_CHECKED, told)] * is_announced_from_here
    if way is REFUSED:
        assert told.error == TOO_SMALL.report
    else:
        assert told.error.message.endswith("Nothing was submitted, and nothing is paid.")


@pytest.mark.parametrize("way", [accepted(), REFUSED, ABORTED])
def test_it_leaves_alone_what_renders_own(way: Event) -> None:
    other = JOB.model_copy(update={"id": "anna-fedcba9876543210"})
    theirs = {JOB.manifest_key: manifest(other), JOB.error_key: error_file(other)}
    bench = Bench(dict(theirs))

    conclude(bench, way)

    assert bench.documents.keys() == {*theirs, DRY.check_key}
    assert bench.documents.items() >= theirs.items()
    assert bench.slots.left == []
    assert bench.ledger.runs(JOB.id) == ()


@pytest.mark.parametrize(("minutes", "is_written"), [(-1, True), (1, False)])
def test_later_check_keeps_its_file(minutes: int, is_written: bool) -> None:
    moved = {"id": "anna-fedcba9876543210", "dropped_at": NOON + timedelta(minutes=minutes)}
    bench = Bench()
    conclude(bench, accepted(DRY.model_copy(update=moved)))
    there = bench.documents[DRY.check_key]

    told = conclude(bench, accepted())

    assert (told.check_file is not None) is is_written
    assert (bench.documents[DRY.check_key] != there) is is_written


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"daily_usd": Decimal("0.0001"), "on_daily_usd": "fail"}, "SpendLimitReached"),
        ({"daily_usd": Decimal("0.0001")}, None),  # it would wait
        ({"daily_usd": Decimal(9), "catalog": {}}, "PriceUnknown"),
        ({"daily_usd": Decimal(9)}, None),
    ],
)
def test_limits_that_refuse_a_render_refuse_its_check(
    limits: dict[str, object], code: str | None
) -> None:
    bench = Bench()
    bench.limits = replace(bench.limits, **limits)  # type: ignore[arg-type]

    told = conclude(bench, accepted())

    assert (told.error.code if told.error else None) == code
    assert told.accepted is (code is None)
    assert told.offers


def test_offer_of_a_paused_provider_is_not_the_first() -> None:
    bench = Bench()
    bench.limits = replace(bench.limits, in_flight={"runcomfy": 0, "wavespeed": 1})

    told = conclude(bench, accepted())

    assert [offer.provider for offer in told.offers] == ["wavespeed", "runcomfy"]
    assert told.estimated_usd == 0.12


@pytest.mark.parametrize("step", [AdmitRequest, SubmitRequest, ActiveRender, Plan])
def test_no_step_that_renders_can_read_a_dry_run_s_answer(step: type[Plan]) -> None:
    """Also under the state machine of the release before, which knows no dry run."""
    answer = Checked(checked=PLAN).model_dump(mode="json")
    call = {"plan": answer, "next": {}, "task_token": "t", "retry": 0, "started_at": NOON}

    with pytest.raises(ValidationError, match="image_facts"):
        step.model_validate(answer if step is Plan else call)
