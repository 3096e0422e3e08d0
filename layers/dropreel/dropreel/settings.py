"""The environment variables of the functions, as typed models. The template sets them."""

import os
from typing import Self

from pydantic import BaseModel, ConfigDict, Field


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
    video_bucket: str
    incomplete_after_minutes: float
    ledger_table: str


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


class SubmitSettings(ProviderSettings):
    poll_min_seconds: float = 5
    poll_max_seconds: float = 60
    max_submissions: int = 2


class PollSettings(SubmitSettings):
    render_timeout_minutes: float = 60


class DeliverSettings(ProviderSettings, DownloadSettings):
    video_bucket: str


class ConcludeSettings(ProviderSettings):
    video_bucket: str
    event_bus: str
