"""Every model of the catalog at the stand-ins: what a body may say, and what comes of it."""

import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import av
import httpx
import pytest

from dropreel.catalog import MODELS, Offer, OptionValue, ProviderName, offer_of
from local.standin.orders import Order, Wrong, read_order
from local.standin.runcomfy import RunComfy
from local.standin.server import Settings, Standin, running
from tests.standin_files import served

PATIENCE_SECONDS = 20
S2V = offer_of(ProviderName.RUNCOMFY, "wan-ai/wan-2-2/speech-to-video")
I2V = offer_of(ProviderName.RUNCOMFY, "wan-ai/wan-2-2/image-to-video")
FLASH = offer_of(ProviderName.RUNCOMFY, "wan-ai/wan-2-6/flash/image-to-video")
WAVESPEED = offer_of(ProviderName.WAVESPEED, "wavespeed-ai/wan-2.2/speech-to-video")
OFFERS = [offer for model in MODELS.values() for offer in model.route]
IMAGE, AUDIO = "https://uploads.example/anna.png", "https://uploads.example/anna.mp3"

Json = dict[str, Any]


# What a body may say


def least(offer: Offer) -> Json:
    """The fields that an offer requires."""
    body: Json = {offer.image_field: IMAGE}
    if offer.audio and offer.audio.required:
        body[str(offer.audio_field)] = AUDIO
    return body | {option.field: "A dance." for option in offer.options if option.required}


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer.endpoint)
def test_least_body_is_an_order_with_the_defaults_of_the_page(offer: Offer) -> None:
    order = read_order(offer, least(offer))

    assert isinstance(order, Order)
    defaults = {option.name: option.default for option in offer.options if option.default}
    assert defaults.items() <= order.options.items()
    assert order.paths[0] == "/anna.png"


def every_value() -> Iterator[tuple[Offer, str, OptionValue, OptionValue]]:
    """Each value of each option of each offer: the field, as it is sent, as it is meant."""
    for offer in OFFERS:
        for option in offer.options:
            some: dict[str, list[OptionValue]] = {
                "string": ["A dance."],
                "integer": [option.at_least or 0, option.at_most or 7],
                "boolean": [True, False],
            }
            for value in option.values or some[option.kind]:
                yield offer, option.field, option.sent_as.get(str(value), value), value


@pytest.mark.parametrize(("offer", "field", "sent", "meant"), [*every_value()])
def test_every_value_of_the_catalog_is_understood(
    offer: Offer, field: str, sent: OptionValue, meant: OptionValue
) -> None:
    order = read_order(offer, {**least(offer), field: sent})

    assert isinstance(order, Order)
    (name,) = (option.name for option in offer.options if option.field == field)
    assert order.options[name] == meant


@pytest.mark.parametrize(
    ("offer", "field", "value", "kind"),
    [
        (S2V, "audio_url", ..., "missing"),
        (S2V, "prompt", "A dance.", "extra_forbidden"),
        (S2V, "resolution", "1080P", "enum"),
        (S2V, "style", None, "string_type"),
        (I2V, "img_url", ..., "missing"),
        (I2V, "prompt", ..., "missing"),
        (I2V, "prompt", "x" * 800, "string_too_long"),
        (I2V, "negative_prompt", "x" * 501, "string_too_long"),
        (I2V, "audio_url", AUDIO, "extra_forbidden"),
        (I2V, "image_url", IMAGE, "extra_forbidden"),
        (I2V, "resolution", "720P", "enum"),
        (I2V, "duration", 10, "enum"),
        (I2V, "duration", "5", "integer_type"),
        (I2V, "seed", 1.5, "integer_type"),
        (I2V, "seed", True, "integer_type"),
        (I2V, "prompt_extend", "yes", "boolean_type"),
        (FLASH, "prompt", "x" * 1500, "string_too_long"),
        (FLASH, "audio_url", "anna.mp3", "url_parsing"),
        (FLASH, "duration", 7, "enum"),
        (FLASH, "resolution", "720p", "enum"),
        (FLASH, "shot_type", "double", "enum"),
        (FLASH, "seed", -1, "greater_than_equal"),
        (FLASH, "seed", 2_147_483_648, "less_than_equal"),
        (FLASH, "audio", 1, "boolean_type"),
        (FLASH, "generate_audio", True, "extra_forbidden"),
        (WAVESPEED, "audio", ..., "missing"),
        (WAVESPEED, "image_url", IMAGE, "extra_forbidden"),
        (WAVESPEED, "style", "sing", "extra_forbidden"),
        (WAVESPEED, "resolution", "720P", "enum"),
        (WAVESPEED, "seed", -2, "greater_than_equal"),
    ],
)
def test_field_that_breaks_the_page_is_named(
    offer: Offer, field: str, value: object, kind: str
) -> None:
    body = {**least(offer), field: value}
    if value is ...:
        del body[field]

    assert [(it.field, it.kind) for it in found(offer, body)] == [(field, kind)]


def test_every_wrong_field_is_named() -> None:
    wrong = found(FLASH, {"prompt": 5, "duration": 7, "surprise": 1})

    assert [it.field for it in wrong] == ["img_url", "prompt", "duration", "surprise"]


def found(offer: Offer, body: object) -> list[Wrong]:
    wrong = read_order(offer, body)
    assert isinstance(wrong, list)
    return wrong


@pytest.mark.parametrize("length", [799, 1499])
def test_bound_that_says_less_than_is_exclusive(length: int) -> None:
    offer = {799: I2V, 1499: FLASH}[length]
    assert isinstance(read_order(offer, {**least(offer), "prompt": "x" * length}), Order)


@pytest.mark.parametrize(
    ("offer", "options", "resolution", "duration_seconds", "tone"),
    [
        (S2V, {"resolution": "720P"}, "720p", None, False),
        (I2V, {"resolution": "1080P"}, "1080p", 5, False),
        (FLASH, {}, "720p", 5, True),
        (FLASH, {"audio": False, "duration": 15}, "720p", 15, False),
        (FLASH, {"audio_url": AUDIO}, "720p", 5, False),
    ],
)
def test_order_says_how_large_and_long_the_video_is_and_what_is_heard(
    offer: Offer, options: Json, resolution: str, duration_seconds: int | None, tone: bool
) -> None:
    order = read_order(offer, {**least(offer), **options})

    assert isinstance(order, Order)
    assert order.resolution == resolution
    assert (order.duration_seconds, order.wants_a_tone) == (duration_seconds, tone)


# What comes of it


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    with served() as url:
        yield url


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    settings = Settings(token="t", queue_seconds=0, render_seconds=0)
    with (
        running(Standin(RunComfy(), settings).app(log=lambda _line: None)) as url,
        httpx.Client(
            base_url=url,
            headers={"Authorization": "Bearer t"},
            trust_env=False,
            verify=False,  # plain HTTP; reading the certificates would cost each test 60 ms
            timeout=PATIENCE_SECONDS,
        ) as client,
    ):
        yield client


@pytest.fixture
def result(api: httpx.Client, files: str) -> Callable[..., Json]:
    def make(offer: Offer, image: str, audio: str | None, options: Json | None = None) -> Json:
        body = {offer.image_field: f"{files}/{image}?signature=good", "prompt": "A dance."}
        if audio:
            body[str(offer.audio_field)] = f"{files}/{audio}?signature=good"
        answer = api.post(f"/v1/models/{offer.endpoint}", json={**body, **(options or {})})
        assert answer.status_code == 200, answer.text
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            told: Json = api.get(f"/v1/requests/{answer.json()['request_id']}/result").json()
            if told["status"] in ("succeeded", "failed"):
                return told
        raise AssertionError(f"still {told}")

    return make


@pytest.mark.parametrize(
    ("offer", "audio", "options", "size", "seconds", "has_sound"),
    [
        (I2V, None, {}, (480, 480), 5, False),
        (FLASH, "three.wav", {"audio": False, "duration": 5}, (720, 720), 5, True),
    ],
)
def test_video_has_the_duration_and_resolution_that_were_asked_for(
    result: Callable[..., Json],
    offer: Offer,
    audio: str | None,
    options: Json,
    size: tuple[int, int],
    seconds: int,
    has_sound: bool,
) -> None:
    url = result(offer, "least.jpg", audio, options)["output"]["video"]

    with av.open(io.BytesIO(httpx.get(url, trust_env=False).content), "r") as film:
        (video,) = film.streams.video
        assert (video.width, video.height) == size
        assert video.codec_context.name == "h264"
        assert film.duration == seconds * 1_000_000
        assert [stream.codec_context.name for stream in film.streams.audio] == ["aac"] * has_sound


@pytest.mark.parametrize(
    ("offer", "image", "audio", "error"),
    [
        (I2V, "alpha.png", None, "img_url: The image must be a PNG without alpha."),
        (I2V, "tiny.jpg", None, "img_url: The image width and height must exceed 360 pixels."),
        (FLASH, "too-large.png", None, "img_url: The image width and height must not exceed 2000"),
        (FLASH, "least.jpg", "too-brief.wav", "audio_url: The duration of the audio must be at le"),
        (FLASH, "least.jpg", "thirty-one.wav", "audio_url: The duration of the audio must be at m"),
        (FLASH, "least.jpg", "anna.png", "audio_url: Audio format must be: wav, mp3."),
    ],
)
def test_bad_input_fails_the_render(
    result: Callable[..., Json], offer: Offer, image: str, audio: str | None, error: str
) -> None:
    told = result(offer, image, audio)

    assert told["status"] == "failed"
    assert told["error"].startswith(error)
