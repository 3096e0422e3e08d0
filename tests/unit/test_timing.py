from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.timing import (
    RETRY_AFTER_MAX_SECONDS,
    next_wait_seconds,
    retry_after_seconds,
    retry_wait_seconds,
)

NOON = datetime(2026, 11, 5, 12, 0, 0, tzinfo=UTC)

ages = st.floats(min_value=-3600, max_value=1e7)
requests = st.floats(min_value=0, max_value=1e9)


@pytest.mark.parametrize(
    ("since_submission_seconds", "wait_seconds"),
    [(0, 5), (-3, 5), (50, 5), (50.1, 6), (100, 10), (101, 11), (599, 60), (600, 60), (36_000, 60)],
)
def test_poll_waits_a_tenth_of_the_time_since_submission(
    since_submission_seconds: float, wait_seconds: int
) -> None:
    assert next_wait_seconds(since_submission_seconds) == wait_seconds


def test_configured_bounds_are_rounded_up_to_whole_seconds() -> None:
    assert next_wait_seconds(0, min_seconds=0.5) == 1
    assert next_wait_seconds(900, min_seconds=0.5, max_seconds=1.5) == 2


@given(ages, requests)
def test_poll_wait_stays_within_its_bounds(age: float, asked: float) -> None:
    assert 5 <= next_wait_seconds(age) <= 60
    assert 5 <= next_wait_seconds(age, retry_after_seconds=asked) <= RETRY_AFTER_MAX_SECONDS


@given(ages, ages)
def test_poll_wait_never_shrinks_as_a_render_ages(one: float, other: float) -> None:
    younger, older = sorted((one, other))
    assert next_wait_seconds(younger) <= next_wait_seconds(older)


@pytest.mark.parametrize(("tries", "wait_seconds"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60)])
def test_refused_submission_waits_twice_as_long_each_time(tries: int, wait_seconds: int) -> None:
    assert retry_wait_seconds(tries) == wait_seconds


@given(st.integers(min_value=0, max_value=10**6))
def test_retry_wait_grows_and_is_bounded(tries: int) -> None:
    assert 5 <= retry_wait_seconds(tries) <= retry_wait_seconds(tries + 1) <= 60


@pytest.mark.parametrize(
    ("asked", "wait_seconds"), [(0, 5), (3, 5), (7.2, 8), (120, 120), (1e9, 300)]
)
def test_retry_after_only_lengthens_a_wait(asked: float, wait_seconds: int) -> None:
    assert next_wait_seconds(0, retry_after_seconds=asked) == wait_seconds
    assert retry_wait_seconds(1, retry_after_seconds=asked) == wait_seconds


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
    assert retry_wait_seconds(1, retry_after_seconds=asked) == 5


@given(st.from_regex(r"(Thu, )?[0-9]{1,25} Nov [0-9]{1,25} [0-9:]{1,9} [+-][0-9]{1,25}"))
def test_no_date_in_a_retry_after_header_is_an_error(header: str) -> None:
    assert retry_after_seconds(header, NOON) >= 0


@given(st.text())
def test_no_retry_after_header_is_an_error(header: str) -> None:
    assert retry_after_seconds(header, NOON) >= 0
