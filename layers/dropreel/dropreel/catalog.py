"""The catalog of models and of the offers that render them. Data, not code.

A number stands beside the page it comes from. Megabytes are read as 1,000,000 bytes, the smaller
of the two readings, so that what passes here passes there.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class ProviderName(StrEnum):
    RUNCOMFY = "runcomfy"


class ImageFormat(StrEnum):
    JPEG = "jpeg"
    PNG = "png"
    BMP = "bmp"
    WEBP = "webp"


class AudioFormat(StrEnum):
    WAV = "wav"
    MP3 = "mp3"


class ImageLimits(BaseModel):
    """What an offer accepts as the picture. Bounds named `over` and `under` are exclusive."""

    model_config = ConfigDict(frozen=True)

    formats: tuple[ImageFormat, ...]
    side_over_pixels: int
    side_under_pixels: int
    size_at_most_bytes: int


class AudioLimits(BaseModel):
    """What an offer accepts as the voice. Bounds named `over` and `under` are exclusive."""

    model_config = ConfigDict(frozen=True)

    formats: tuple[AudioFormat, ...]
    duration_under_seconds: float
    size_under_bytes: int


class Offer(BaseModel):
    """One provider's endpoint for a model, with its own limits and price."""

    model_config = ConfigDict(frozen=True)

    provider: ProviderName
    endpoint: str = Field(description="The provider's own id of the model.")
    page: str = Field(description="The title of the provider's page that the numbers come from.")
    image: ImageLimits
    image_field: str = Field(description="What the provider's schema calls the picture's URL.")
    audio: AudioLimits
    audio_field: str = Field(description="What the provider's schema calls the voice's URL.")
    usd_per_second: float | None = Field(
        default=None, description="Of finished video; None while the provider publishes none."
    )


class Model(BaseModel):
    """What a user asks for, and its route: the offers in order of preference."""

    model_config = ConfigDict(frozen=True)

    name: str
    route: tuple[Offer, ...]


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            name="wan-2.2-speech-to-video",
            route=(
                Offer(
                    provider=ProviderName.RUNCOMFY,
                    endpoint="wan-ai/wan-2-2/speech-to-video",
                    page="RunComfy: wan-ai/wan-2-2/speech-to-video",
                    image=ImageLimits(
                        formats=(
                            ImageFormat.JPEG,
                            ImageFormat.PNG,
                            ImageFormat.BMP,
                            ImageFormat.WEBP,
                        ),
                        side_over_pixels=400,
                        side_under_pixels=7000,
                        size_at_most_bytes=50_000_000,
                    ),
                    image_field="image_url",
                    audio=AudioLimits(
                        formats=(AudioFormat.WAV, AudioFormat.MP3),
                        duration_under_seconds=20.0,
                        size_under_bytes=15_000_000,
                    ),
                    audio_field="audio_url",
                ),
            ),
        ),
    )
}
