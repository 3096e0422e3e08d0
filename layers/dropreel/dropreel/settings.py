"""The environment variables of the functions, as typed models. The template sets them."""

import os
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic.fields import FieldInfo

from dropreel.catalog import ProviderName
from dropreel.errors import SettingUnreadable
from dropreel.job import INBOX
from dropreel.observability import logger
from dropreel.prices import CATALOG_ONLY, Prices, prices_in

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SHOWN_CHARACTERS_AT_MOST = 200
_NOWHERE = "https://unreadable.invalid"  # a name that never leads anywhere (RFC 2606)
_SPELLED = {"RUNCOMFY": "RunComfy", "WAVESPEED": "WaveSpeed"}

# The bounds are the template's, too: there they keep out what nobody can mean.
_Url = Annotated[str, Field(pattern=r"^https?://[^/?#]+$", examples=["https://api.example.com"])]
_InFlight = Annotated[int, Field(ge=0, le=500, description="0 pauses the provider.")]
_PerMinute = Annotated[int, Field(ge=0, le=10_000, description="0 is no limit.")]
_PollMin = Annotated[float, Field(ge=0, le=3600)]
_PollMax = Annotated[float, Field(ge=1, le=3600)]
_Timeout = Annotated[float, Field(ge=1, le=600, description="With none, each render would end.")]


class Settings(BaseModel):
    """Base of each function's settings: a field `video_bucket` is read from `VIDEO_BUCKET`."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=str.upper,
        populate_by_name=True,
        hide_input_in_errors=True,  # the environment holds the function's credentials
        allow_inf_nan=False,
    )

    @classmethod
    def from_environment(cls) -> Self:
        """Raises `SettingUnreadable`, which tells of every setting that cannot be read."""
        try:
            return cls.model_validate(dict(os.environ))
        except ValidationError as error:
            raise cls._unreadable(error) from None

    @classmethod
    def _unreadable(cls, error: ValidationError) -> SettingUnreadable:
        return SettingUnreadable(" ".join(map(cls._fault, error.errors())))

    @classmethod
    def _fault(cls, fault: "ErrorDetails") -> str:
        """Which parameter, its value, and the form that it should have."""
        variable = str(fault["loc"][0])
        if variable not in os.environ:
            return f"The environment variable {variable} is not set."
        value = os.environ[variable]
        if len(value) > _SHOWN_CHARACTERS_AT_MOST:
            value = f"{value[:_SHOWN_CHARACTERS_AT_MOST]}…"
        field = cls.model_fields[variable.lower()]
        reason = fault.get("ctx", {}).get("error")  # of a validator of ours
        return f'The parameter {parameter(variable)} is "{value}". {reason or _form(field)}'


def parameter(variable: str) -> str:
    """The template's name of what an environment variable holds."""
    return "".join(_SPELLED.get(word, word.capitalize()) for word in variable.split("_"))


def _form(field: FieldInfo) -> str:
    """What it should be, in a sentence."""
    if values := get_args(field.annotation):
        return f"It must be {' or '.join(map(str, values))}."
    if field.annotation is str:
        return f"It must look like {(field.examples or ['a text'])[0]}."
    number = "a whole number" if field.annotation is int else "a number such as 2 or 0.5"
    return f"It must be {number}{''.join(_bounds(field.metadata))}."


def _bounds(metadata: Iterable[object]) -> Iterable[str]:
    for bound in metadata:
        for name, words in (("gt", "above"), ("ge", "not below"), ("le", "not above")):
            if (limit := getattr(bound, name, None)) is not None:
                yield f", {words} {limit:g}"


class IntakeSettings(Settings):
    model: str = Field(description="The model that jobs ask for.")
    state_machine_arn: str
    queue_url: str
    event_bus: str
    upload_bucket: str
    video_bucket: str
    incomplete_after_minutes: float = Field(ge=0, le=10_080)
    ledger_table: str
    shared_folders: str = Field(
        default="",
        pattern=r"^(|[^/,. *][^,*]*/(,[^/,. *][^,*]*/)*)$",
        description="Folders below `inbox/`, by commas, whose files every job may name.",
        examples=["faces/,music/"],
    )

    @property
    def shared(self) -> tuple[str, ...]:
        """The folders, each ending in `/`."""
        named = (folder.strip().strip("/") for folder in self.shared_folders.split(","))
        folders = (folder.removeprefix(INBOX) for folder in named)
        return tuple(f"{folder}/" for folder in folders if folder)


class DownloadSettings(Settings):
    trusted_download_origins: str = Field(
        default="",
        pattern=r"^(https?://[^/?#,\s]+(,https?://[^/?#,\s]+)*)?$",
        examples=["http://127.0.0.1:8080,http://127.0.0.1:8081"],
        description="Origins, by commas, that may be fetched from although they are not public "
        "https: the stand-ins on the embedded AWS. Empty in an account.",
    )


class ProviderSettings(Settings):
    """What every function needs that talks to a provider."""

    ledger_table: str
    runcomfy_url: _Url
    runcomfy_secret: str = Field(description="The ARN of the secret that holds the token.")
    wavespeed_url: _Url
    wavespeed_secret: str = Field(description="The ARN of the secret that holds the token.")


class ValidateSettings(ProviderSettings):
    """Validate calls no provider, but an offer whose provider has no token is no offer."""


class AdmissionSettings(Settings):
    """What every function needs that gives or returns slots."""

    ledger_table: str
    state_machine_arn: str
    runcomfy_max_in_flight: _InFlight = 10
    wavespeed_max_in_flight: _InFlight = 2
    runcomfy_max_submits_per_minute: _PerMinute = 0
    wavespeed_max_submits_per_minute: _PerMinute = 2
    daily_render_limit: int = Field(default=200, ge=0, le=1_000_000, description="0 is none.")
    daily_spend_limit_usd: Decimal = Field(
        default=Decimal(0), ge=0, le=1_000_000, description="0 is none."
    )
    on_spend_limit: Literal["wait", "fail"] = "wait"
    queue_timeout_minutes: _Timeout = 120
    usd_per_second: Annotated[Prices, PlainValidator(prices_in)] = Field(
        default_factory=lambda: CATALOG_ONLY,
        description="Prices of finished video by `<endpoint>:<resolution>=<USD>`, with commas "
        "between; they go before the catalog's.",
    )
    render_timeout_minutes: _Timeout = 60
    throttle_patience_seconds: float = Field(default=900, ge=0, le=7_200)


class UnderwaySettings(AdmissionSettings):
    """For the steps that see a job through which was admitted long ago, and may be paid for. A
    setting that cannot be read keeps none of them from it: until it is mended, its default holds,
    and nobody else is let in."""

    @classmethod
    def from_environment(cls) -> Self:
        try:
            return cls.model_validate(dict(os.environ))
        except ValidationError as error:
            unreadable = cls._unreadable(error)
            variables = {str(fault["loc"][0]) for fault in error.errors()}
        if variables - set(os.environ):
            raise unreadable
        logger.error("No job is admitted until this is mended. %s", unreadable.message)
        readable = {name: it for name, it in os.environ.items() if name not in variables}
        urls = {
            name: _NOWHERE for name in variables if cls.model_fields[name.lower()].is_required()
        }
        nobody = {f"{provider}_MAX_IN_FLIGHT".upper(): "0" for provider in ProviderName}
        return cls.model_validate(readable | urls | nobody)


class SubmitSettings(ProviderSettings):
    queue_timeout_minutes: _Timeout = 120
    render_timeout_minutes: _Timeout = 60
    poll_min_seconds: _PollMin = 5
    poll_max_seconds: _PollMax = 60
    max_submissions: int = Field(default=2, ge=1, le=20)
    throttle_patience_seconds: float = Field(default=900, ge=0, le=7_200)
    on_unclear_submission: Literal["fail", "retry"] = "fail"
    runcomfy_max_submits_per_minute: _PerMinute = 0
    wavespeed_max_submits_per_minute: _PerMinute = 2

    def max_submits_per_minute(self, provider: ProviderName) -> int:
        """0 is no limit."""
        match provider:
            case ProviderName.RUNCOMFY:
                return self.runcomfy_max_submits_per_minute
            case ProviderName.WAVESPEED:
                return self.wavespeed_max_submits_per_minute


class PollSettings(ProviderSettings, UnderwaySettings):
    poll_min_seconds: _PollMin = 5
    poll_max_seconds: _PollMax = 60
    max_submissions: int = Field(default=2, ge=1, le=20)


class DeliverSettings(ProviderSettings, DownloadSettings):
    video_bucket: str


class ConcludeSettings(ProviderSettings, UnderwaySettings):
    video_bucket: str
    event_bus: str


class SweepSettings(UnderwaySettings):
    queue_url: str = Field(description="Of intake.")
    conclude_function: str = Field(description="Its name.")
