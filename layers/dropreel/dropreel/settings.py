"""The environment variables of the functions, as typed models. The template sets them."""

import os
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from dropreel.catalog import ProviderName
from dropreel.prices import CATALOG_ONLY, Prices, prices_in


class Settings(BaseModel):
    """Base of each function's settings: a field `video_bucket` is read from `VIDEO_BUCKET`."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=str.upper,
        populate_by_name=True,
        hide_input_in_errors=True,  # the environment holds the function's credentials
    )

    @classmethod
    def from_environment(cls) -> Self:
        """Raises pydantic's `ValidationError`, which names what is missing."""
        return cls.model_validate(dict(os.environ))


class IntakeSettings(Settings):
    model: str = Field(description="The model that jobs ask for.")
    state_machine_arn: str
    queue_url: str
    event_bus: str
    upload_bucket: str
    video_bucket: str
    incomplete_after_minutes: float
    ledger_table: str
    shared_folders: str = Field(
        default="", description="Folders below `inbox/`, by commas, whose files every job may name."
    )

    @property
    def shared(self) -> tuple[str, ...]:
        """The folders, each ending in `/`."""
        folders = (folder.strip().strip("/") for folder in self.shared_folders.split(","))
        return tuple(f"{folder}/" for folder in folders if folder)


class DownloadSettings(Settings):
    trusted_download_origins: str = Field(
        default="",
        description="Origins, by commas, that may be fetched from although they are not public "
        "https: the stand-ins on the embedded AWS. Empty in an account.",
    )


class ProviderSettings(Settings):
    """What every function needs that talks to a provider."""

    ledger_table: str
    runcomfy_url: str
    runcomfy_secret: str = Field(description="The ARN of the secret that holds the token.")
    wavespeed_url: str
    wavespeed_secret: str = Field(description="The ARN of the secret that holds the token.")


class ValidateSettings(ProviderSettings):
    """Validate calls no provider, but an offer whose provider has no token is no offer."""


class AdmissionSettings(Settings):
    """What every function needs that gives or returns slots."""

    ledger_table: str
    state_machine_arn: str
    runcomfy_max_in_flight: int = 10
    wavespeed_max_in_flight: int = 2
    runcomfy_max_submits_per_minute: int = Field(default=0, description="0 is no limit.")
    wavespeed_max_submits_per_minute: int = Field(default=2, description="0 is no limit.")
    daily_render_limit: int = Field(default=200, description="0 is no limit.")
    daily_spend_limit_usd: Decimal = Field(default=Decimal(0), description="0 is no limit.")
    on_spend_limit: Literal["wait", "fail"] = "wait"
    queue_timeout_minutes: float = 120
    usd_per_second: Annotated[Prices, PlainValidator(prices_in)] = Field(
        default_factory=lambda: CATALOG_ONLY,
        description="Prices of finished video by `<endpoint>:<resolution>=<USD>`, with commas "
        "between; they go before the catalog's.",
    )
    render_timeout_minutes: float = 60
    throttle_patience_seconds: float = 900


class SubmitSettings(ProviderSettings):
    queue_timeout_minutes: float = 120
    render_timeout_minutes: float = 60
    poll_min_seconds: float = 5
    poll_max_seconds: float = 60
    max_submissions: int = 2
    throttle_patience_seconds: float = 900
    on_unclear_submission: Literal["fail", "retry"] = "fail"
    runcomfy_max_submits_per_minute: int = 0
    wavespeed_max_submits_per_minute: int = 2

    def max_submits_per_minute(self, provider: ProviderName) -> int:
        """0 is no limit."""
        match provider:
            case ProviderName.RUNCOMFY:
                return self.runcomfy_max_submits_per_minute
            case ProviderName.WAVESPEED:
                return self.wavespeed_max_submits_per_minute


class PollSettings(ProviderSettings, AdmissionSettings):
    poll_min_seconds: float = 5
    poll_max_seconds: float = 60
    max_submissions: int = 2


class DeliverSettings(ProviderSettings, DownloadSettings):
    video_bucket: str


class ConcludeSettings(ProviderSettings, AdmissionSettings):
    video_bucket: str
    event_bus: str


class SweepSettings(AdmissionSettings):
    queue_url: str = Field(description="Of intake.")
    conclude_function: str = Field(description="Its name.")
