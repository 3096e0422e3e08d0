import math
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.model.timing import (
    MAX_RETRY_AFTER_SECONDS,
    next_wait_seconds,
    retry_after_seconds,
    retry_wait_seconds,
    throttled_wait_seconds,
)

NOON = datetime(2026, 11, 5, 12, 0, 0, tzinfo=UTC)

ages = st.floats(min_value=-3600, max_value=1e7)
requests = st.floats(min_value=0, max_value=1e9)
chances = st.floats(min_value=0, max_value=1)


def whole() -> float:
    """The chance that takes nothing off a wait."""
    return 1


def half() -> float:
    """The chance that takes off the most."""
    return 0


@pytest.mark.parametrize(
    ("since_submission_seconds", "wait_seconds"),
    [(0, 5), (-3, 5), (50, 5), (50.1, 6), (100, 10), (101, 11), (599, 60), (600, 60), (36_000, 60)],
)
def test_poll_waits_a_tenth_of_the_time_since_submission(
    since_submission_seconds: float, wait_seconds: int
) -> None:
    assert next_wait_seconds(since_submission_seconds) == wait_seconds


@given(ages, requests)
def test_poll_wait_stays_within_its_bounds(age: float, asked: float) -> None:
    assert 5 <= next_wait_seconds(age) <= 60
    assert 5 <= next_wait_seconds(age, retry_after_seconds=asked) <= MAX_RETRY_AFTER_SECONDS


@given(ages, ages)
def test_poll_wait_never_shrinks_as_a_render_ages(one: float, other: float) -> None:
    younger, older = sorted((one, other))
    assert next_wait_seconds(younger) <= next_wait_seconds(older)


@pytest.mark.parametrize(
    ("tries", "least", "most"), [(1, 3, 5), (2, 5, 10), (3, 10, 20), (4, 20, 40), (5, 30, 60)]
)
def test_wait_doubles_each_time_and_chance_takes_off_at_most_half(
    tries: int, least: int, most: int
) -> None:
    assert retry_wait_seconds(tries, jitter=half) == least
    assert retry_wait_seconds(tries, jitter=whole) == most


@given(st.integers(min_value=0, max_value=10**6), chances)
def test_retry_wait_grows_and_is_bounded(tries: int, chance: float) -> None:
    least = retry_wait_seconds(tries, jitter=half)
    most = retry_wait_seconds(tries, jitter=whole)

    assert least <= retry_wait_seconds(tries, jitter=lambda: chance) <= most
    assert 5 <= most <= retry_wait_seconds(tries + 1, jitter=whole) <= 60


def test_retry_wait_is_left_to_chance_by_default() -> None:
    assert len({retry_wait_seconds(9) for _ in range(100)}) > 1


@pytest.mark.parametrize(
    ("asked", "wait_seconds"), [(0, 5), (3, 5), (7.2, 8), (120, 120), (1e9, 300)]
)
def test_retry_after_only_lengthens_a_poll_wait(asked: float, wait_seconds: int) -> None:
    assert next_wait_seconds(0, retry_after_seconds=asked) == wait_seconds


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [(0, 3, 5), (2, 3, 5), (7.2, 8, 10), (120, 120, 123), (1e9, 300, 303)],
)
def test_retry_wait_is_what_the_provider_asks_and_spread_from_there(
    asked: float, least: int, most: int
) -> None:
    assert retry_wait_seconds(1, retry_after_seconds=asked, jitter=half) == least
    assert retry_wait_seconds(1, retry_after_seconds=asked, jitter=whole) == most


@given(
    patience=st.floats(0, 3600),
    asked=st.floats(0, 900),
    latencies=st.lists(st.floats(0, 30), min_size=1, max_size=5),
    seed=st.randoms(use_true_random=False),
)
def test_throttled_job_is_patient_and_no_more_than_that(
    patience: float, asked: float, latencies: list[float], seed: Random
) -> None:
    # Given a provider that throttles for ever, and asks for the same each time
    honoured = asked
    waited, tries = 0.0, 1

    # When the job tries again after each wait
    while (
        wait_seconds := throttled_wait_seconds(
            tries,
            throttled_seconds=waited,
            patience_seconds=patience,
            retry_after_seconds=asked,
            jitter=seed.random,
        )
    ) is not None:
        # Then no wait is shorter than asked, none is needlessly long, and the last one is in time
        assert honoured <= wait_seconds <= math.ceil(max(60, honoured + 30))
        assert waited + wait_seconds <= patience + 1
        waited += wait_seconds + latencies[tries % len(latencies)]
        tries += 1

    # And the end comes when the patience is over, or would be when the provider lets it come again
    assert waited >= patience - honoured


@pytest.mark.parametrize(
    ("throttled_seconds", "asked", "wait_seconds"),
    [
        (888.5, 0, 12),
        (899.9, 0, 1),
        (900, 0, None),
        (1e6, 0, None),
        (870, 30, 30),
        (871, 30, None),
    ],
)
def test_last_wait_ends_with_the_patience_and_none_is_longer(
    throttled_seconds: float, asked: float, wait_seconds: int | None
) -> None:
    waits = throttled_wait_seconds(
        20,
        throttled_seconds=throttled_seconds,
        patience_seconds=900,
        retry_after_seconds=asked,
        jitter=whole,
    )

    assert waits == wait_seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("17", 17),
        (" 17 ", 17),
        ("0", 0),
        ("9" * 5000, 999_999_999),
        ("Thu, 05 Nov 2026 12:01:30 GMT", 90),
        ("Thu, 05 Nov 2026 12:01:30 -0000", 90),
        ("Thu, 05 Nov 2026 11:00:00 GMT", 0),
        ("-5", 0),
        ("nan", 0),
        ("soon", 0),
        ("inf", 0),
        ("1e9", 0),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 -9999999999999999", 0),
        ("Sat, 01 Jan 0001 00:00:00 +2359", 0),
        ("²", 0),
        ("", 0),
    ],
)
def test_retry_after_header_is_seconds_or_a_date(header: str | None, seconds: float) -> None:
    assert retry_after_seconds(header, NOON) == seconds


@pytest.mark.parametrize("asked", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_retry_after_that_is_no_duration_changes_no_wait(asked: float) -> None:
    assert next_wait_seconds(0, retry_after_seconds=asked) == 5
    assert retry_wait_seconds(1, retry_after_seconds=asked, jitter=whole) == 5


@given(st.from_regex(r"(Thu, )?[0-9]{1,25} Nov [0-9]{1,25} [0-9:]{1,9} [+-][0-9]{1,25}"))
def test_no_date_in_a_retry_after_header_is_an_error(header: str) -> None:
    assert retry_after_seconds(header, NOON) >= 0


@given(st.text())
def test_no_retry_after_header_is_an_error(header: str) -> None:
    assert retry_after_seconds(header, NOON) >= 0
