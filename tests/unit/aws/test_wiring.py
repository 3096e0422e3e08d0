"""An owner's settings as limits of admission."""

import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from dropreel.aws.wiring import limits_of
from dropreel.model.catalog import MODELS, TITLES, ProviderName, offer_of
from dropreel.render.spending import Limits
from dropreel.runtime.settings import AdmissionSettings
from tests.support.render_fakes import ENVIRONMENT, providers
from tests.support.sam_template import DEFINITION

STATES: dict[str, dict[str, Any]] = DEFINITION["States"]["Render"]["Branches"][0]["States"]
# No two alike, and none the default, so that none can stand for another.
ACCOUNTS: dict[str, dict[str, object]] = {
    "runcomfy": {"max_in_flight": 12, "max_submits_per_minute": 3},
    "wavespeed": {"max_in_flight": 8, "max_submits_per_minute": 4},
}
LIMITS = {
    "PROVIDERS": providers(**ACCOUNTS),
    "QUEUE_TIMEOUT_MINUTES": "90",
    "RENDER_TIMEOUT_MINUTES": "40",
    "DAILY_RENDER_LIMIT": "70",
    "DAILY_SPEND_LIMIT_USD": "7.50",
    "ON_SPEND_LIMIT": "fail",
}
PATIENCE, RENDER = timedelta(minutes=15), timedelta(minutes=90 + 40)
TURN = {"runcomfy": timedelta(minutes=4), "wavespeed": timedelta(minutes=2)}

EACH_PROVIDER = pytest.mark.parametrize("provider", TITLES)


def accounts(provider: ProviderName, **changes: object) -> dict[str, str]:
    """The settings with these changes of one provider's account."""
    changed = {**ACCOUNTS, provider: ACCOUNTS[provider] | changes}
    return {"PROVIDERS": providers(**changed)}


def limits(changes: dict[str, str] | None = None) -> Limits:
    return limits_of(AdmissionSettings.model_validate(ENVIRONMENT | LIMITS | (changes or {})))


def test_each_provider_has_as_many_slots_as_its_own_setting_says() -> None:
    assert limits().in_flight == {"runcomfy": 12, "wavespeed": 8}


@pytest.mark.parametrize(
    ("usd", "daily_usd"),
    [
        ("7.50", Decimal("7.50")),
        ("0.3", Decimal("0.3")),  # as it was written, not as a float has it
        ("0", None),
        ("0.00", None),
    ],
)
def test_a_day_may_cost_what_its_setting_says_and_anything_at_zero(
    usd: str, daily_usd: Decimal | None
) -> None:
    assert limits({"DAILY_SPEND_LIMIT_USD": usd}).daily_usd == daily_usd


@pytest.mark.parametrize("on_spend_limit", ["wait", "fail"])
def test_job_beyond_the_days_spend_waits_or_fails_as_set(on_spend_limit: str) -> None:
    assert limits({"ON_SPEND_LIMIT": on_spend_limit}).on_daily_usd == on_spend_limit


def test_without_a_setting_spending_is_unlimited_and_renders_are_not() -> None:
    unset = limits_of(AdmissionSettings.model_validate(ENVIRONMENT))

    assert (unset.daily_renders, unset.daily_usd, unset.on_daily_usd) == (200, None, "wait")
    assert unset.catalog == MODELS


@pytest.mark.parametrize(("renders", "daily_renders"), [("70", 70), ("0", None)])
def test_a_day_may_have_as_many_renders_as_its_setting_says_and_any_at_zero(
    renders: str, daily_renders: int | None
) -> None:
    assert limits({"DAILY_RENDER_LIMIT": renders}).daily_renders == daily_renders


def test_prices_are_the_owners() -> None:
    endpoint = "wan-ai/wan-2-2/speech-to-video"
    setting = {"CATALOG_OVERRIDES": json.dumps({endpoint: {"usd_per_second": {"480p": 0.04}}})}

    priced = offer_of("runcomfy", endpoint, limits(setting).catalog)
    assert priced.usd_per_second == {"480p": 0.04}


@EACH_PROVIDER
def test_a_provider_that_is_paused_has_a_lease_all_the_same(provider: ProviderName) -> None:
    """For what is in flight there."""
    none = {"max_in_flight": 0}
    paused = limits({"PROVIDERS": providers(runcomfy=none, wavespeed=none)})

    assert paused.in_flight[provider] == 0
    assert paused.lease[provider] >= PATIENCE + RENDER + trouble()


# The lease: a run that outlives it loses a slot that it still uses


@EACH_PROVIDER
def test_a_lease_outlives_the_longest_way_to_the_end_of_a_render(provider: ProviderName) -> None:
    lease = limits().lease[provider]

    assert lease >= TURN[provider] + PATIENCE + RENDER + trouble()


@EACH_PROVIDER
def test_a_lease_outlives_trouble_when_nothing_else_takes_time(provider: ProviderName) -> None:
    """There is no turn to wait for where no minute has a limit."""
    any_time = {"max_submits_per_minute": 0}
    at_once = {
        "PROVIDERS": providers(runcomfy=any_time, wavespeed=any_time),
        "QUEUE_TIMEOUT_MINUTES": "1",
        "RENDER_TIMEOUT_MINUTES": "1",
    }

    lease = limits(at_once).lease[provider]

    assert lease >= trouble()
    waits = TURN[provider] + RENDER - timedelta(minutes=2)
    assert lease == limits().lease[provider] - waits


@pytest.mark.parametrize(
    ("change", "runcomfy_minutes", "wavespeed_minutes"),
    [
        ({"QUEUE_TIMEOUT_MINUTES": "100"}, 10, 10),
        ({"RENDER_TIMEOUT_MINUTES": "100"}, 60, 60),
        (accounts("runcomfy", max_in_flight=15), 1, 0),
        (accounts("wavespeed", max_in_flight=20), 0, 3),
        (accounts("runcomfy", max_submits_per_minute=2), 2, 0),
        (accounts("wavespeed", max_submits_per_minute=1), 0, 6),
    ],
)
def test_what_may_take_longer_lengthens_the_lease_by_as_much(
    change: dict[str, str], runcomfy_minutes: int, wavespeed_minutes: int
) -> None:
    before = limits().lease

    after = limits(change).lease

    assert {provider: after[provider] - before[provider] for provider in TITLES} == {
        "runcomfy": timedelta(minutes=runcomfy_minutes),
        "wavespeed": timedelta(minutes=wavespeed_minutes),
    }


def test_a_lease_outlives_the_longest_voice_of_an_offer_that_is_on() -> None:
    """Its page says how long a second takes to render: 30 s for each of at most 600."""
    before = limits().lease
    on = {"CATALOG_OVERRIDES": '{"wavespeed-ai/infinitetalk": {"on": true}}'}

    after = limits(on).lease

    assert after["wavespeed"] - before["wavespeed"] == timedelta(seconds=30 * 600, minutes=-40)
    assert after["runcomfy"] == before["runcomfy"]


def test_a_lease_is_not_longer_than_the_longest_render_timeout() -> None:
    longer = '{"wavespeed-ai/infinitetalk": {"on": true, "audio_at_most_seconds": 3600}}'

    longest = limits({"CATALOG_OVERRIDES": longer, "RENDER_TIMEOUT_MINUTES": "600"}).lease

    assert longest == limits({"RENDER_TIMEOUT_MINUTES": "600"}).lease


def trouble() -> timedelta:
    """All the waits after faults of a submission and a poll, with the jitter at its worst.

    They come on top of the render's time: the last poll decides. A throttled account may take
    longer still: then a slot is given again, and the provider refuses what is too much.
    """
    return timedelta(seconds=sum(waits_seconds("Submit")) + sum(waits_seconds("Poll")))


def waits_seconds(state: str) -> Iterator[float]:
    [retrier] = [one for one in STATES[state]["Retry"] if "States.TaskFailed" in one["ErrorEquals"]]
    for retry in range(retrier["MaxAttempts"]):
        growing = retrier["IntervalSeconds"] * retrier["BackoffRate"] ** retry
        yield min(growing, retrier["MaxDelaySeconds"])
