"""The verdict on a burst: what was counted, against what was promised."""

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from local.standin.faults import Faults
from tests.bench_burst import FAILING_SHARE, FAULTS, Burst, compared, faults

NEVER_STRUCK = "faults that struck, at each stage"


def good(jobs: int = 100) -> Burst:
    return Burst(
        jobs=jobs,
        seconds=60,
        videos=jobs,
        ready_events=Counter(f"burst-{number}" for number in range(jobs)),
        accepted=jobs,
        struck=Counter(submit=5, status=9, result=4, download=1, cancel=0),
        most_in_flight={"runcomfy": 20, "wavespeed": 3},
        dead_letters=Counter(IntakeDeadLettersUrl=0),
        transitions=9 * jobs,
        function_calls=Counter(intake=jobs, poll=5 * jobs),
        ledger_writes=Counter(job=6 * jobs, slots=2 * jobs),
    )


def broken(burst: Burst) -> list[str]:
    return [promise.what for promise in burst.promises() if not promise.is_kept]


def test_burst_that_came_out_even_keeps_every_promise() -> None:
    assert broken(good()) == []


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda burst: setattr(burst, "videos", 99), "videos"),
        (lambda burst: burst.ready_events.pop("burst-7"), "jobs with a `Video Ready`"),
        (lambda burst: burst.ready_events.update(["burst-7"]), "jobs with a second one"),
        (lambda burst: burst.failed_events.update(["RenderFailed"]), "`Video Failed`"),
        (lambda burst: setattr(burst, "accepted", 101), "accepted submissions"),
        (lambda burst: setattr(burst, "accepted", 99), "accepted submissions"),
        (lambda burst: burst.most_in_flight.update(wavespeed=21), "most in flight (at most 20)"),
        (lambda burst: burst.dead_letters.update(["UnconcludedJobsUrl"]), "dead letters"),
        (lambda burst: setattr(burst, "slots_left", 1), "slots left"),
        (lambda burst: setattr(burst, "waiters_left", 1), "waiters left"),
        (lambda burst: burst.most_in_flight.pop("wavespeed"), "most in flight (at most 20)"),
        (lambda burst: burst.most_in_flight.clear(), "most in flight (at most 20)"),
        *(
            (lambda burst, at=at: burst.struck.update({at: -burst.struck[at]}), NEVER_STRUCK)
            for at in ("submit", "status", "result", "download")
        ),
    ],
)
def test_each_broken_promise_is_named(spoil: Callable[[Burst], object], what: str) -> None:
    burst = good()
    spoil(burst)

    assert broken(burst) == [what]


@pytest.mark.parametrize(
    ("transitions", "is_kept"), [(9_000, True), (9_400, True), (9_500, False), (8_500, False)]
)
def test_job_must_cost_the_same_in_a_large_burst(transitions: int, is_kept: bool) -> None:
    large = good(1_000)
    large.transitions = transitions

    lines = compared(good(50), large)

    assert [line.is_kept for line in lines] == [is_kept, True, True]


@pytest.mark.parametrize("at", FAULTS)
def test_faults_of_a_stage_strike_their_share_of_its_calls(at: str) -> None:
    dice, calls = Random(1), 20_000
    shares = [float(str(fault["percent"])) for fault in faults() if fault["at"] == at]

    struck = sum(any(dice.random() * 100 < share for share in shares) for _ in range(calls))

    assert struck / calls == pytest.approx(FAILING_SHARE, abs=0.01)


@pytest.mark.parametrize("fault", [fault for fault in faults() if fault["at"] == "submit"])
def test_no_submission_fails_unclearly(fault: dict[str, object]) -> None:
    struck = Faults(presets={}).order(fault)

    assert struck.status in (429, 503)
    # Refused after the work was done it would be accepted as well.
    assert (struck.when, struck.reset, struck.cut_percent) == ("before", False, None)
