"""The catalog of models and of the offers that render them. Data, not code.

Each offer names the page that its numbers come from. A bound that a page writes as an operator
(`width_pixels< 2000`) or as "less than" is exclusive; "between" and "up to" are inclusive. A
megabyte is read as 1,000,000 bytes, the smaller of the two readings, so that what passes here
passes there.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

OptionValue = str | int | bool
ProviderName = str
"""In settings, secrets and the ledger; also the name of the provider's module in `providers/`."""

MAX_RENDER_TIMEOUT_SECONDS = 600 * 60.0
"""As RenderTimeoutMinutes: a poll is about nine of the 25,000 events that an execution may have."""

TITLES: Mapping[ProviderName, str] = {"runcomfy": "RunComfy", "wavespeed": "WaveSpeed"}
"""For people. The template's parameters begin with them: `RunComfyMaxInFlight`."""


class ImageFormat(StrEnum):
    JPEG = "jpeg"
    PNG = "png"
    BMP = "bmp"
    WEBP = "webp"


class AudioFormat(StrEnum):
    WAV = "wav"
    MP3 = "mp3"


class _Data(BaseModel, frozen=True, extra="forbid"):
    """A part of the catalog."""


class ImageLimits(_Data):
    """What an offer takes as the picture. Bounds named `over` and `under` are exclusive; None where
    the provider publishes no bound."""

    formats: tuple[ImageFormat, ...]
    side_over_pixels: int | None = None
    side_under_pixels: int | None = None
    size_at_most_bytes: int | None = None
    size_under_bytes: int | None = None
    png_alpha: bool = Field(default=True, description="Whether a PNG may be transparent.")


class AudioLimits(_Data):
    """What an offer takes as the voice. The same holds for its bounds."""

    formats: tuple[AudioFormat, ...]
    required: bool
    duration_at_least_seconds: float | None = None
    duration_at_most_seconds: float | None = None
    duration_under_seconds: float | None = None
    size_under_bytes: int | None = None

    @property
    def longest_seconds(self) -> float:
        """0 where the provider publishes no bound."""
        return self.duration_at_most_seconds or self.duration_under_seconds or 0


class Option(_Data):
    """A parameter of an offer other than the picture and the voice."""

    name: str = Field(description="In the user's spelling, the same for all offers.")
    sent_name: str = Field(default="", description="The provider's, where it differs.")
    kind: Literal["string", "integer", "boolean"]
    values: tuple[OptionValue, ...] = Field(default=(), description="In the user's spelling.")
    sent_as: dict[str, str] = Field(
        default_factory=dict, description="The provider's spelling of a value, where it differs."
    )
    default: OptionValue | None = Field(
        default=None, description="The provider's value when the job sets none."
    )
    required: bool = False
    at_least: int | None = None
    at_most: int | None = None
    length_at_most: int | None = None
    length_under: int | None = None

    @property
    def field(self) -> str:
        """Its name in the provider's schema."""
        return self.sent_name or self.name


class Offer(_Data):
    """One provider's endpoint for a model, with its own limits, option names and price."""

    provider: ProviderName
    endpoint: str = Field(description="The provider's own id of the model.")
    page: str = Field(description="The title of the provider's page that the numbers come from.")
    image_field: str = Field(description="The field of the picture's URL in the provider's schema.")
    image: ImageLimits
    audio_field: str | None = Field(default=None, description="The same for the voice's URL.")
    audio: AudioLimits | None = Field(default=None, description="None: it takes no voice.")
    options: tuple[Option, ...]
    usd_per_second: dict[str, float] = Field(
        default_factory=dict,
        description="Of finished video, by resolution; empty if the provider publishes no price.",
    )
    price_source: str = Field(default="", description="The page, and when we read it.")
    billed_in_whole_seconds: bool = Field(
        default=False, description="Whether a second that has begun is billed as a whole one."
    )
    billed_at_least_seconds: int = 0
    render_seconds_per_second: float = Field(
        default=0,
        description="How long a second of video may take to render. The render timeout and the "
        "slot's lease are at least this long for the job's voice. 0 if nothing is published.",
    )
    on: bool = Field(default=True, description="Whether jobs go to it. CatalogOverrides decides.")

    def billed_seconds(self, video_seconds: float) -> float:
        """The seconds to pay for."""
        begun = math.ceil(video_seconds) if self.billed_in_whole_seconds else video_seconds
        return max(begun, self.billed_at_least_seconds)

    def render_timeout_seconds(self, least_seconds: float, voice_seconds: float) -> float:
        """How long a render of this voice may take: at least `least_seconds`, and longer where the
        provider says that it takes longer."""
        needed_seconds = self.render_seconds_per_second * voice_seconds
        return min(max(least_seconds, needed_seconds), MAX_RENDER_TIMEOUT_SECONDS)

    def option(self, name: str) -> Option | None:
        """The option with a name in the user's spelling."""
        return next((option for option in self.options if option.name == name), None)


class Model(_Data):
    """A model and its route: the offers in order of preference."""

    name: str
    does: str = Field(description="In a few words.")
    route: tuple[Offer, ...]

    @property
    def needs_audio(self) -> bool:
        return all(offer.audio and offer.audio.required for offer in self.route)

    @property
    def takes_audio(self) -> bool:
        return any(offer.audio for offer in self.route)

    @property
    def needs_prompt(self) -> bool:
        options = [offer.option("prompt") for offer in self.route]
        return all(option and option.required for option in options)


Catalog = Mapping[str, Model]
"""Models by name."""

_UPPER_CASE = {"480p": "480P", "720p": "720P", "1080p": "1080P"}

_JPEG_PNG_BMP_WEBP = (ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.BMP, ImageFormat.WEBP)

_RUNCOMFY_S2V = Offer(
    provider="runcomfy",
    endpoint="wan-ai/wan-2-2/speech-to-video",
    page="RunComfy: wan-ai/wan-2-2/speech-to-video",
    image_field="image_url",
    image=ImageLimits(
        formats=_JPEG_PNG_BMP_WEBP,  # "Image format must be: jpg, jpeg, png, bmp, webp."
        side_over_pixels=400,
        side_under_pixels=7000,
        size_at_most_bytes=50_000_000,  # "Recommended limits: images ≤ 50 MB"
    ),
    audio_field="audio_url",
    audio=AudioLimits(
        formats=(AudioFormat.WAV, AudioFormat.MP3),  # "Audio format must be: wav, mp3."
        required=True,
        duration_under_seconds=20,  # "The duration of this audio must be less than 20s"
        size_under_bytes=15_000_000,
    ),
    options=(
        Option(name="style", kind="string", values=("speech", "sing", "perform"), default="speech"),
        Option(
            name="resolution",
            kind="string",
            values=("480p", "720p"),
            sent_as=_UPPER_CASE,
            default="480p",
        ),
    ),
)

# WaveSpeedAI's pages name no formats, sizes or pixels, so we send the most common formats.
_COMMON_IMAGE = ImageLimits(formats=(ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.WEBP))
_COMMON_AUDIO = (AudioFormat.WAV, AudioFormat.MP3)

_WAVESPEED_TALK_OPTIONS = (
    Option(name="prompt", kind="string"),
    Option(name="resolution", kind="string", values=("480p", "720p"), default="480p"),
    Option(name="seed", kind="integer", at_least=-1, at_most=2_147_483_647, default=-1),
)

# A newer page says "up to 10 minutes". CatalogOverrides can say so, too.
_WAVESPEED_S2V = Offer(
    provider="wavespeed",
    endpoint="wavespeed-ai/wan-2.2/speech-to-video",
    page="WaveSpeedAI: Wan 2.2 Speech To Video",
    image_field="image",
    image=_COMMON_IMAGE,
    audio_field="audio",
    audio=AudioLimits(
        formats=_COMMON_AUDIO,
        required=True,
        duration_at_most_seconds=120,  # "supports a maximum generation length of 120 seconds"
    ),
    options=_WAVESPEED_TALK_OPTIONS,
    # "$0.15 per 5 seconds (480p)"; the newer page has $0.30 for 720p, "rounded up to whole
    # seconds", and "the minimum billed duration is 3 seconds".
    usd_per_second={"480p": 0.03, "720p": 0.06},
    price_source="WaveSpeedAI: Wan 2.2 Speech To Video, the newer page, read in November 2026",
    billed_in_whole_seconds=True,
    billed_at_least_seconds=3,
)

# Off by default: its page is not among those that we have whole. The range of the seed is that of
# the page above. Its field `mask_image` (which parts may move) is left out: a job has one picture.
_WAVESPEED_INFINITETALK = Offer(
    provider="wavespeed",
    endpoint="wavespeed-ai/infinitetalk",
    page="WaveSpeedAI: Infinitetalk",
    image_field="image",
    image=_COMMON_IMAGE,
    audio_field="audio",
    audio=AudioLimits(
        formats=_COMMON_AUDIO,
        required=True,
        duration_at_most_seconds=600,  # "Max clip length per job: up to 10 minutes"
    ),
    options=_WAVESPEED_TALK_OPTIONS,
    # "480p | $0.15", "720p | $0.30" for 5 seconds; "Billed duration = video length in seconds
    # (rounded up), with a 5-second minimum"
    usd_per_second={"480p": 0.03, "720p": 0.06},
    price_source="WaveSpeedAI: Infinitetalk, read in November 2026",
    billed_in_whole_seconds=True,
    billed_at_least_seconds=5,
    # The page of Infinitetalk Fast Multi: "approximately 10-30 seconds of wall time per 1 second
    # of video"
    render_seconds_per_second=30,
    on=False,
)

# This model has two pages. One allows a prompt of 800 characters, the other only of fewer: the
# stricter bound fits both.
_RUNCOMFY_I2V = Offer(
    provider="runcomfy",
    endpoint="wan-ai/wan-2-2/image-to-video",
    page="RunComfy: wan-ai/wan-2-2/image-to-video",
    image_field="img_url",
    image=ImageLimits(
        formats=_JPEG_PNG_BMP_WEBP,  # "Supported formats: JPEG, JPG, PNG (no alpha), BMP, WEBP."
        png_alpha=False,
        side_over_pixels=360,
        side_under_pixels=2000,
        size_under_bytes=10_000_000,
    ),
    options=(
        Option(name="prompt", kind="string", required=True, length_under=800),
        Option(name="negative_prompt", kind="string", length_at_most=500),
        # "Supported templates: squish, flying, carousel, etc.": not a closed list
        Option(name="template", kind="string"),
        Option(
            name="resolution",
            kind="string",
            values=("480p", "1080p"),
            sent_as=_UPPER_CASE,
            default="480p",
        ),
        Option(name="duration", kind="integer", values=(5,), default=5),
        Option(name="prompt_extend", kind="boolean", default=True),
        # Only one of the two pages has a default.
        Option(name="seed", kind="integer", default=58_366_538),
    ),
)

_RUNCOMFY_FLASH = Offer(
    provider="runcomfy",
    endpoint="wan-ai/wan-2-6/flash/image-to-video",
    page="RunComfy: wan-ai/wan-2-6/flash/image-to-video",
    image_field="img_url",
    image=ImageLimits(
        formats=_JPEG_PNG_BMP_WEBP,  # "Image format must be: jpg, jpeg, png, bmp, webp."
        side_over_pixels=360,
        side_under_pixels=2000,
        size_under_bytes=10_000_000,  # "File size should be less than 10 MB."
    ),
    audio_field="audio_url",
    audio=AudioLimits(
        formats=(AudioFormat.WAV, AudioFormat.MP3),  # "Audio format must be: wav, mp3."
        required=False,
        duration_at_least_seconds=3,  # "must be between 3s and 30s"
        duration_at_most_seconds=30,
        size_under_bytes=15_000_000,  # "File size should be less than 15 MB."
    ),
    options=(
        # "Length should be less than 1500 characters."
        Option(name="prompt", kind="string", required=True, length_under=1500),
        Option(name="duration", kind="integer", values=(5, 10, 15), default=5),
        Option(
            name="resolution",
            kind="string",
            values=("720p", "1080p"),
            sent_as=_UPPER_CASE,
            default="720p",
        ),
        Option(name="shot_type", kind="string", values=("multi", "single"), default="multi"),
        Option(name="negative_prompt", kind="string"),
        Option(name="seed", kind="integer", at_least=0, at_most=2_147_483_647),
        Option(name="prompt_extend", kind="boolean", default=True),
        Option(name="generate_audio", sent_name="audio", kind="boolean", default=True),
    ),
)

MODELS: Catalog = {
    model.name: model
    for model in (
        Model(
            name="wan-2.2-speech-to-video",
            does="a picture speaks or sings a recording",
            route=(_RUNCOMFY_S2V, _WAVESPEED_S2V, _WAVESPEED_INFINITETALK),
        ),
        Model(
            name="wan-2.2-image-to-video",
            does="a picture moves as the prompt says",
            route=(_RUNCOMFY_I2V,),
        ),
        Model(
            name="wan-2.6-flash-image-to-video",
            does="a picture moves as the prompt says, to a recording if there is one",
            route=(_RUNCOMFY_FLASH,),
        ),
        Model(
            name="infinitetalk",
            does="a picture speaks or sings a recording of up to ten minutes",
            route=(_WAVESPEED_INFINITETALK,),
        ),
    )
}


def in_service(catalog: Catalog) -> Catalog:
    """The offers that are on, and the models that have one."""
    routes = {
        name: tuple(offer for offer in model.route if offer.on) for name, model in catalog.items()
    }
    return {
        name: catalog[name].model_copy(update={"route": route})
        for name, route in routes.items()
        if route
    }


def offer_of(provider: ProviderName, endpoint: str, catalog: Catalog = MODELS) -> Offer:
    """The offer behind a provider's endpoint. Raises `KeyError`."""
    for model in catalog.values():
        for offer in model.route:
            if (offer.provider, offer.endpoint) == (provider, endpoint):
                return offer
    raise KeyError(endpoint)


def has_own_duration(provider: ProviderName, endpoint: str) -> bool:
    """Whether jobs ask the endpoint for a duration; else a video is as long as its recording."""
    try:
        return offer_of(provider, endpoint).option("duration") is not None
    except KeyError:
        return False  # a newer catalog does not have it any more
