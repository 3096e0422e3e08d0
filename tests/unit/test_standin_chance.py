"""Faults of the stand-ins that strike by chance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from local.standin.faults import Fault, Faults, Stage

PATHS = ["/uploads/inbox/anna.png"]


def faults(*wishes: dict[str, object]) -> Faults:
    made = Faults({})
    for wish in wishes:
        made.order({"at": "submit", **wish})
    return made


def struck(by: Faults, calls: int) -> list[Fault | None]:
    return [by.take([Stage.SUBMIT], PATHS) for _ in range(calls)]


def test_fault_strikes_about_its_share_for_ever() -> None:
    hits = struck(faults({"percent": 5, "times": None, "seed": 1}), 20_000)

    assert 900 < sum(hit is not None for hit in hits) < 1_100
    assert any(hits[-100:])


def test_fault_is_used_up_only_by_the_calls_that_it_strikes() -> None:
    hits = struck(faults({"percent": 10, "times": 3, "seed": 1}), 1_000)

    assert sum(hit is not None for hit in hits) == 3
    assert not all(hits[:3])


def test_spared_call_goes_to_the_next_fault() -> None:
    hits = struck(
        faults({"percent": 20, "times": None, "seed": 1, "status": 429}, {"status": 503}), 100
    )

    answers = [hit and hit.status for hit in hits]
    assert answers.count(503) == 1
    assert answers.count(429) > 5
    assert None in answers


@given(seed=st.integers(), others=st.lists(st.sampled_from(list(Stage)), max_size=20))
def test_same_seed_strikes_the_same_calls_whatever_is_called_between(
    seed: int, others: list[Stage]
) -> None:
    undisturbed, disturbed = (faults({"percent": 50, "times": None, "seed": seed}) for _ in "ab")
    disturbed.order({"at": "result", "percent": 50, "times": None, "seed": seed})

    expected = [hit is not None for hit in struck(undisturbed, len(others))]
    got = []
    for stage in others:
        if stage is not Stage.SUBMIT:
            disturbed.take([stage], PATHS)
        got += [hit is not None for hit in struck(disturbed, 1)]

    assert got == expected


def test_fault_without_a_share_strikes_every_call() -> None:
    assert all(struck(faults({"times": 50}), 50))


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_share_that_is_none_is_refused(percent: float) -> None:
    with pytest.raises(ValidationError, match="percent"):
        faults({"percent": percent})


def test_order_is_told_with_its_share() -> None:
    (order,) = faults({"percent": 5, "times": None, "status": 503}).active

    assert order.summary() == {
        "match": "",
        "at": "submit",
        "times": None,
        "percent": 5,
        "status": 503,
    }
