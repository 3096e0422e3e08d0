"""The environment variables of the functions, as typed models. The template sets them."""

import json
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Json, PlainValidator, ValidationError

from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.errors import SettingUnreadable
from dropreel.model.job import INBOX
from dropreel.model.overrides import NO_OVERRIDES, Overrides, overrides_in
from dropreel.runtime.log import logger

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MAX_SHOWN_CHARACTERS = 200
_URL = r"^https?://[^/?#]+$"
_NOWHERE = "https://unreadable.invalid"  # a name that never resolves (RFC 2606)

# The template has the same bounds: CloudFormation refuses a wrong value first.
_TimeoutMinutes = Annotated[float, Field(ge=1, le=600)]


class ProviderAccount(BaseModel, frozen=True):
    """Our account at one provider."""

    url: str = Field(pattern=_URL, description="Where the provider's API is.")
    secret: str = Field(description="The ARN of the secret that holds the token.")
    max_in_flight: int = Field(ge=0, le=500, description="Renders at once. 0 pauses the provider.")
    max_submits_per_minute: int = Field(default=0, ge=0, le=10_000, description="0 is no limit.")


class Settings(BaseModel):
    """Base of each function's settings: a field `video_bucket` is read from `VIDEO_BUCKET`."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=str.upper,
        populate_by_name=True,
        hide_input_in_errors=True,  # the environment holds the function's credentials
        allow_inf_nan=False,
        defer_build=True,  # of all these models, a function uses one
    )

    @classmethod
    def from_environment(cls) -> Self:
        """Raises `SettingUnreadable`, which names every unreadable setting."""
        try:
            return cls.model_validate(dict(os.environ))
        except ValidationError as error:
            raise _unreadable(error) from None


def _unreadable(error: ValidationError) -> SettingUnreadable:
    return SettingUnreadable(" ".join(map(_fault, error.errors())))


def _fault(fault: "ErrorDetails") -> str:
    variable, *path = map(str, fault["loc"])
    if variable not in os.environ:
        return f"The environment variable {variable} is not set."
    value = str(fault["input"]) if path else os.environ[variable]
    if len(value) > _MAX_SHOWN_CHARACTERS:
        value = f"{value[:_MAX_SHOWN_CHARACTERS]}…"
    ours = fault.get("ctx", {}).get("error")
    reason = ours if isinstance(ours, ValueError) else f"{fault['msg']}."
    return f'The parameter {_parameter(variable, *path)} is "{value}". {reason}'


def _parameter(variable: str, *path: str) -> str:
    """The template's name of a setting, such as `<Provider>MaxInFlight`."""
    if path:
        provider, *path_in_account = path
        variable = "_".join(path_in_account)
        return TITLES.get(provider, provider) + _parameter(variable)
    return "".join(word.capitalize() for word in variable.split("_"))


class IntakeSettings(Settings):
    model: str = Field(description="The model that jobs ask for.")
    state_machine_arn: str
    queue_url: str
    event_bus: str
    upload_bucket: str
    video_bucket: str
    settle_seconds: float = Field(ge=0, le=900)
    max_receives: int = Field(ge=1, description="After so many tries, a message is a dead letter.")
    incomplete_after_minutes: float = Field(ge=0, le=10_080)
    ledger_table: str
    shared_folders: str = Field(
        default="",
        pattern=r"^(|[^/,. *][^,*]*/(,[^/,. *][^,*]*/)*)$",
        description="Folders below the inbox, with commas between; every job may name their files.",
    )

    @property
    def shared(self) -> tuple[str, ...]:
        """The folders, each ending in `/`."""
        folders = (folder.strip().strip("/") for folder in self.shared_folders.split(","))
        return tuple(f"{folder.removeprefix(INBOX)}/" for folder in folders if folder)


class ProviderSettings(Settings):
    ledger_table: str
    providers: Json[dict[ProviderName, ProviderAccount]]


_CatalogOverrides = Annotated[
    Overrides,
    PlainValidator(overrides_in),
    Field(
        default_factory=lambda: NO_OVERRIDES,
        description="Prices, limits and offers that replace the catalog's, as JSON.",
    ),
]


class PrepareSettings(ProviderSettings):
    video_bucket: str
    work_bucket: str
    catalog_overrides: _CatalogOverrides


class _TimeoutSettings(ProviderSettings):
    queue_timeout_minutes: _TimeoutMinutes = 120
    render_timeout_minutes: _TimeoutMinutes = 60


class SubmitSettings(_TimeoutSettings):
    work_bucket: str
    event_bus: str
    state_machine_arn: str


class AdmissionSettings(_TimeoutSettings):
    """For the functions that grant slots or give them back."""

    state_machine_arn: str
    daily_render_limit: int = Field(default=200, ge=0, le=1_000_000, description="0 is no limit.")
    daily_spend_limit_usd: Decimal = Field(
        default=Decimal(0), ge=0, le=1_000_000, description="0 is no limit."
    )
    on_spend_limit: Literal["wait", "fail"] = "wait"
    catalog_overrides: _CatalogOverrides


class AdmitSettings(AdmissionSettings):
    event_bus: str


class LenientSettings(AdmissionSettings):
    """For the steps that finish a job which was admitted and may be paid for.

    An unreadable setting does not stop them: until it is corrected, its default applies and no
    other job is admitted.
    """

    @classmethod
    def from_environment(cls) -> Self:
        try:
            return cls.model_validate(dict(os.environ))
        except ValidationError as error:
            unreadable = _unreadable(error)
            variables = {str(fault["loc"][0]) for fault in error.errors()}
        if variables - set(os.environ):
            raise unreadable
        logger.error("No job is admitted until this is corrected. %s", unreadable.message)
        # Prices may be among the unreadable: no job that waits may end for want of one.
        left_out = {*variables, "DAILY_SPEND_LIMIT_USD"}
        readable = {name: text for name, text in os.environ.items() if name not in left_out}
        paused = _all_paused(os.environ.get("PROVIDERS", ""))
        return cls.model_validate({**readable, "PROVIDERS": json.dumps(paused)})


def _all_paused(providers: str) -> dict[str, dict[str, object]]:
    """The readable part of the accounts, with no room for another render."""
    try:
        given: Any = json.loads(providers)
    except ValueError:
        given = {}
    accounts = given if isinstance(given, Mapping) else {}
    return {
        name: {"url": _url(account.get("url")), "secret": account["secret"], "max_in_flight": 0}
        for name, account in accounts.items()
        if isinstance(account, Mapping) and isinstance(account.get("secret"), str)
    }


def _url(given: object) -> str:
    return given if isinstance(given, str) and re.search(_URL, given) else _NOWHERE


class DeliverSettings(LenientSettings):
    dropreel_version: str
    video_bucket: str
    delete_after_delivery: Literal["false", "true"] = Field(
        default="false", description="Whether to delete the provider's record of a delivered video."
    )


class AnnounceSettings(Settings):
    ledger_table: str
    event_bus: str


class NotifySettings(Settings):
    notify_topic: str = Field(description="The ARN of the topic for people.")


class ConcludeSettings(LenientSettings):
    video_bucket: str
    event_bus: str


class SweepSettings(LenientSettings):
    queue_url: str = Field(description="Intake's queue.")
    conclude_function: str = Field(description="The function's name.")


class WatchSettings(LenientSettings):
    """It goes on measuring when a setting is unreadable: then no slot is allowed."""
