"""Settings come from an environment that also holds the function's credentials."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dropreel.model.errors import SettingUnreadable
from dropreel.runtime.settings import (
    AdmissionSettings,
    ConcludeSettings,
    DeliverSettings,
    IntakeSettings,
    PollSettings,
    Settings,
    SubmitSettings,
    SweepSettings,
    parameter,
)
from tests.support.render_fakes import ENVIRONMENT

NAMES = ("MODEL", "QUEUE_URL", "EVENT_BUS", "UPLOAD_BUCKET", "VIDEO_BUCKET", "CONCLUDE_FUNCTION")
WHOLE = ENVIRONMENT | dict.fromkeys(NAMES, "a name") | {"INCOMPLETE_AFTER_MINUTES": "60"}
RUNCOMFY = "wan-ai/wan-2-2/speech-to-video"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (WHOLE | {"AWS_SECRET_ACCESS_KEY": "5ec7e7"}).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("model", [AdmissionSettings, ConcludeSettings])
def test_what_is_missing_is_named_and_nothing_else_is_told(
    environment: pytest.MonkeyPatch, model: type[Settings]
) -> None:
    environment.delenv("LEDGER_TABLE")

    with pytest.raises(SettingUnreadable) as raised:
        model.from_environment()

    assert raised.value.message == "The environment variable LEDGER_TABLE is not set."
    assert "5ec7e7" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "variable", "value", "form"),
    [
        (AdmissionSettings, "RUNCOMFY_MAX_IN_FLIGHT", "ten", "a whole number, not below 0"),
        (AdmissionSettings, "WAVESPEED_MAX_IN_FLIGHT", "-1", "a whole number, not below 0"),
        (AdmissionSettings, "WAVESPEED_MAX_IN_FLIGHT", "501", "not above 500"),
        (AdmissionSettings, "RUNCOMFY_MAX_IN_FLIGHT", "2.5", "a whole number"),
        (AdmissionSettings, "RUNCOMFY_MAX_SUBMITS_PER_MINUTE", "-2", "not below 0"),
        (AdmissionSettings, "DAILY_RENDER_LIMIT", "many", "a whole number"),
        (AdmissionSettings, "DAILY_RENDER_LIMIT", "-1", "not below 0"),
        (AdmissionSettings, "DAILY_SPEND_LIMIT_USD", "0,04", "a number such as 2 or 0.5"),
        (AdmissionSettings, "DAILY_SPEND_LIMIT_USD", "-1", "not below 0"),
        (AdmissionSettings, "DAILY_SPEND_LIMIT_USD", "NaN", "a number such as 2 or 0.5"),
        (AdmissionSettings, "DAILY_SPEND_LIMIT_USD", "", "a number such as 2 or 0.5"),
        (AdmissionSettings, "ON_SPEND_LIMIT", "stop", "It must be wait or fail."),
        (AdmissionSettings, "THROTTLE_PATIENCE_SECONDS", "inf", "a number such as 2 or 0.5"),
        (AdmissionSettings, "USD_PER_SECOND", f"{RUNCOMFY}:480p=0,04", "<endpoint>:<resolution>"),
        (AdmissionSettings, "USD_PER_SECOND", "0.04", "<endpoint>:<resolution>"),
        (AdmissionSettings, "USD_PER_SECOND", "wan-3:480p=1", 'no offer has the endpoint "wan-3"'),
        (SubmitSettings, "ON_UNCLEAR_SUBMISSION", "maybe", "It must be fail or retry."),
        (SubmitSettings, "MAX_SUBMISSIONS", "0", "a whole number, not below 1"),
        (SubmitSettings, "POLL_MIN_SECONDS", "nan", "a number such as 2 or 0.5"),
        (SubmitSettings, "RUNCOMFY_URL", "api.example.com", "look like https://api.example.com"),
        (DeliverSettings, "TRUSTED_DOWNLOAD_ORIGINS", "localhost", "look like http://127.0.0.1"),
        (IntakeSettings, "INCOMPLETE_AFTER_MINUTES", "1h", "a number such as 2 or 0.5"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named_with_its_value_and_its_form(
    environment: pytest.MonkeyPatch, model: type[Settings], variable: str, value: str, form: str
) -> None:
    environment.setenv(variable, value)

    with pytest.raises(SettingUnreadable) as raised:
        model.from_environment()

    report = raised.value.report
    assert report.message.startswith(f'The parameter {parameter(variable)} is "{value}". ')
    assert form in report.message
    assert "5ec7e7" not in str(raised.value)
    assert report.retryable
    assert "Whoever runs this Dropreel" in report.advice


def test_all_that_cannot_be_read_is_told_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MAX_SUBMISSIONS", "two")
    environment.setenv("POLL_MAX_SECONDS", "60 s")

    with pytest.raises(SettingUnreadable, match=r"MaxSubmissions.*PollMaxSeconds|Poll.*MaxSub"):
        SubmitSettings.from_environment()


@hypothesis_settings(deadline=None)
@given(
    st.sampled_from(["RUNCOMFY_MAX_IN_FLIGHT", "DAILY_SPEND_LIMIT_USD", "USD_PER_SECOND"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300),
)
def test_whatever_stands_there_is_read_or_told(variable: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as environment:
        for name, readable in (WHOLE | {"AWS_SECRET_ACCESS_KEY": "5ec7e7"}).items():
            environment.setenv(name, readable)
        environment.setenv(variable, value)
        try:
            AdmissionSettings.from_environment()
        except SettingUnreadable as unreadable:
            assert parameter(variable) in unreadable.message
            assert "5ec7e7" not in str(unreadable)


# Who sees a job through that was admitted long ago


@pytest.mark.parametrize("model", [PollSettings, ConcludeSettings, SweepSettings])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DAILY_SPEND_LIMIT_USD", "0,04"),
        ("USD_PER_SECOND", "0,04"),
        ("RUNCOMFY_MAX_IN_FLIGHT", "-1"),
        ("RENDER_TIMEOUT_MINUTES", "an hour"),
    ],
)
def test_who_sees_a_job_through_reads_what_can_be_read_and_lets_nobody_in(
    environment: pytest.MonkeyPatch, model: type[AdmissionSettings], variable: str, value: str
) -> None:
    environment.setenv("THROTTLE_PATIENCE_SECONDS", "120")
    environment.setenv(variable, value)

    made = model.from_environment()

    assert (made.runcomfy_max_in_flight, made.wavespeed_max_in_flight) == (0, 0)
    assert made.throttle_patience_seconds == 120
    unset = model.model_validate(WHOLE)
    if not variable.endswith("IN_FLIGHT"):
        assert getattr(made, variable.lower()) == getattr(unset, variable.lower())


def test_an_address_that_cannot_be_read_leads_nowhere(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("RUNCOMFY_URL", "https://")

    made = ConcludeSettings.from_environment()

    assert made.runcomfy_url.endswith(".invalid")
    assert made.wavespeed_url == ENVIRONMENT["WAVESPEED_URL"]
