"""Settings come from an environment that also holds the function's credentials."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.model.errors import SettingUnreadable
from dropreel.runtime.settings import (
    AdmissionSettings,
    ConcludeSettings,
    IntakeSettings,
    LenientSettings,
    PrepareSettings,
    Settings,
    SubmitSettings,
    SweepSettings,
)
from tests.support.render_fakes import ENVIRONMENT, providers

NAMES = ("MODEL", "QUEUE_URL", "EVENT_BUS", "UPLOAD_BUCKET", "VIDEO_BUCKET", "CONCLUDE_FUNCTION")
WHOLE = (
    ENVIRONMENT
    | dict.fromkeys(NAMES, "a name")
    | {
        "INCOMPLETE_AFTER_MINUTES": "60",
        "SETTLE_SECONDS": "20",
        "MAX_RECEIVES": "5",
    }
)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (WHOLE | {"AWS_SECRET_ACCESS_KEY": "5ec7e7"}).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("model", [AdmissionSettings, ConcludeSettings])
def test_a_missing_variable_is_named_and_nothing_else_is_shown(
    environment: pytest.MonkeyPatch, model: type[Settings]
) -> None:
    environment.delenv("LEDGER_TABLE")

    with pytest.raises(SettingUnreadable) as raised:
        model.from_environment()

    assert raised.value.message == "The environment variable LEDGER_TABLE is not set."
    assert "5ec7e7" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "variable", "value", "says"),
    [
        (AdmissionSettings, "DAILY_RENDER_LIMIT", "many", 'DailyRenderLimit is "many". Input'),
        (AdmissionSettings, "DAILY_RENDER_LIMIT", "-1", "greater than or equal to 0"),
        (AdmissionSettings, "DAILY_SPEND_LIMIT_USD", "0,04", "valid decimal"),
        (AdmissionSettings, "DAILY_SPEND_LIMIT_USD", "NaN", "finite"),
        (AdmissionSettings, "ON_SPEND_LIMIT", "stop", "'wait' or 'fail'"),
        (AdmissionSettings, "CATALOG_OVERRIDES", "480p=0,04", "not JSON"),
        (
            PrepareSettings,
            "CATALOG_OVERRIDES",
            '{"wan-3": {}}',
            'no offer has the endpoint "wan-3"',
        ),
        (SubmitSettings, "RENDER_TIMEOUT_MINUTES", "nan", "finite"),
        (SubmitSettings, "PROVIDERS", "none", "JSON"),
        (IntakeSettings, "INCOMPLETE_AFTER_MINUTES", "1h", "valid number"),
    ],
)
def test_an_unreadable_setting_is_named_with_its_value_and_its_form(
    environment: pytest.MonkeyPatch, model: type[Settings], variable: str, value: str, says: str
) -> None:
    environment.setenv(variable, value)

    with pytest.raises(SettingUnreadable) as raised:
        model.from_environment()

    report = raised.value.report
    assert f'is "{value}"' in report.message
    assert says in report.message
    assert "5ec7e7" not in str(raised.value)
    assert report.retryable
    assert "your operator" in report.advice


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_in_flight": "ten"}, 'RunComfyMaxInFlight is "ten"'),
        ({"max_in_flight": -1}, 'RunComfyMaxInFlight is "-1"'),
        ({"max_in_flight": 2.5}, 'RunComfyMaxInFlight is "2.5"'),
        ({"max_submits_per_minute": 10_001}, "RunComfyMaxSubmitsPerMinute"),
        ({"url": "api.example.com"}, 'RunComfyUrl is "api.example.com"'),
    ],
)
def test_a_providers_setting_is_named_as_the_template_names_it(
    environment: pytest.MonkeyPatch, change: dict[str, object], says: str
) -> None:
    environment.setenv("PROVIDERS", providers(runcomfy=change))

    with pytest.raises(SettingUnreadable, match="The parameter RunComfy") as raised:
        AdmissionSettings.from_environment()

    assert says in raised.value.message


def test_all_unreadable_settings_are_named_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("QUEUE_TIMEOUT_MINUTES", "two")
    environment.setenv("RENDER_TIMEOUT_MINUTES", "60 s")

    with pytest.raises(SettingUnreadable, match=r"QueueTimeoutMinutes.*RenderTimeoutMinutes"):
        SubmitSettings.from_environment()


@given(
    st.sampled_from(["PROVIDERS", "DAILY_SPEND_LIMIT_USD", "CATALOG_OVERRIDES"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda some: st.lists(some) | st.dictionaries(st.sampled_from(["runcomfy", "url"]), some),
    ).map(json.dumps),
)
def test_any_value_is_read_or_named(variable: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as environment:
        for name, readable in (WHOLE | {"AWS_SECRET_ACCESS_KEY": "5ec7e7"}).items():
            environment.setenv(name, readable)
        environment.setenv(variable, value)
        for model in (AdmissionSettings, LenientSettings):
            try:
                model.from_environment()
            except SettingUnreadable as unreadable:
                assert "The parameter " in unreadable.message
                assert "5ec7e7" not in str(unreadable)


# The steps that finish a job which was admitted before


@pytest.mark.parametrize("model", [LenientSettings, ConcludeSettings, SweepSettings])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DAILY_SPEND_LIMIT_USD", "0,04"),
        ("CATALOG_OVERRIDES", "0,04"),
        ("PROVIDERS", providers(runcomfy={"max_in_flight": -1})),
        ("PROVIDERS", providers(runcomfy={"url": "https://"})),
        ("RENDER_TIMEOUT_MINUTES", "an hour"),
    ],
)
def test_a_job_under_way_is_finished_with_what_can_be_read_and_no_other_is_admitted(
    environment: pytest.MonkeyPatch, model: type[AdmissionSettings], variable: str, value: str
) -> None:
    environment.setenv("QUEUE_TIMEOUT_MINUTES", "77")
    environment.setenv(variable, value)

    made = model.from_environment()

    assert [it.max_in_flight for it in made.providers.values()] == [0, 0]
    assert [it.secret for it in made.providers.values()] == ["runcomfy-token", "wavespeed-token"]
    assert made.providers["wavespeed"].url == "https://wavespeed.example"
    assert made.queue_timeout_minutes == 77
    unset = model.model_validate(WHOLE)
    if variable != "PROVIDERS":
        assert getattr(made, variable.lower()) == getattr(unset, variable.lower())


def test_an_unreadable_address_leads_nowhere(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PROVIDERS", providers(runcomfy={"url": "https://"}))

    made = ConcludeSettings.from_environment()

    assert made.providers["runcomfy"].url.endswith(".invalid")
