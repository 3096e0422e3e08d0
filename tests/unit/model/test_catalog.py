"""The catalog says what the providers' pages say: each field, and nothing else.

`tests/support/pages` holds the input schema of each page as it is published; WaveSpeed's is its
table.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dropreel.model.catalog import MODELS, TITLES, Offer, Option, OptionValue, offer_of
from dropreel.render import options

PAGES = Path(__file__).parents[2] / "support" / "pages"
SPEECH, IMAGE, FLASH, TALK = (
    "wan-2.2-speech-to-video",
    "wan-2.2-image-to-video",
    "wan-2.6-flash-image-to-video",
    "infinitetalk",
)
OFFERS = [
    (SPEECH, 0, "runcomfy.speech-to-video"),
    (SPEECH, 1, "wavespeed.speech-to-video"),
    (SPEECH, 2, "wavespeed.infinitetalk"),
    (TALK, 0, "wavespeed.infinitetalk"),
    (IMAGE, 0, "runcomfy.image-to-video"),
    (IMAGE, 0, "runcomfy.image-to-video.2"),  # the same endpoint has two pages
    (FLASH, 0, "runcomfy.flash-image-to-video"),
]
LEFT_OUT = {"mask_image"}
"""The fields for a second picture: a job has one."""

each_page = pytest.mark.parametrize(("model", "place", "page"), OFFERS)


def schema_of(page: str) -> dict[str, Any]:
    """The page's schema; its `validations` are no JSON Schema and are left out."""
    schema: dict[str, Any] = json.loads((PAGES / f"{page}.schema.json").read_text())
    for published in schema["properties"].values():
        published.pop("validations", None)
    # The pages list what there is; a field that none of them names would be a slip of ours.
    return {**schema, "additionalProperties": False}


def validations_of(page: str, field: str) -> dict[str, int]:
    schema = json.loads((PAGES / f"{page}.schema.json").read_text())
    rules = schema["properties"][field].get("validations", [])
    return {rule["validation_rule"]: rule["validation_value"] for rule in rules}


def offer_for(model: str, place: int) -> Offer:
    return MODELS[model].route[place]


def test_every_offer_has_its_page_here() -> None:
    offers = {(name, place) for name, model in MODELS.items() for place in range(len(model.route))}

    assert offers == {(model, place) for model, place, _ in OFFERS}
    assert {path.name for path in PAGES.iterdir()} == {f"{page}.schema.json" for *_, page in OFFERS}


@each_page
def test_fields_are_those_of_the_page(model: str, place: int, page: str) -> None:
    offer = offer_for(model, place)
    schema = schema_of(page)

    media = {offer.image_field, offer.audio_field} - {None}
    assert (
        media | {option.field for option in offer.options} == set(schema["properties"]) - LEFT_OUT
    )
    required = {option.field for option in offer.options if option.required} | {offer.image_field}
    if offer.audio and offer.audio.required:
        required.add(offer.audio_field or "")
    assert required == set(schema["required"])


@each_page
def test_options_allow_what_the_page_allows(model: str, place: int, page: str) -> None:
    offer = offer_for(model, place)
    published = schema_of(page)["properties"]

    for option in offer.options:
        said = published[option.field]
        sent = [option.sent_as.get(str(value), value) for value in option.values]
        assert option.kind == said["type"]
        assert sent == said.get("enum", [])
        assert (option.at_least, option.at_most) == (said.get("minimum"), said.get("maximum"))


@each_page
def test_defaults_are_those_of_the_page(model: str, place: int, page: str) -> None:
    for option in offer_for(model, place).options:
        # What must be given has only an example, and an empty text is no default.
        said = schema_of(page)["properties"][option.field].get("default")
        if said and not option.required:
            assert option.sent_as.get(str(option.default), option.default) == said


def test_no_default_is_made_up() -> None:
    for model, place in {(model, place) for model, place, _ in OFFERS}:
        pages = [schema_of(page) for *of, page in OFFERS if of == [model, place]]
        for option in offer_for(model, place).options:
            said = [page["properties"][option.field].get("default") for page in pages]
            assert option.default is None or any(default is not None for default in said)


@pytest.mark.parametrize(
    ("page", "name", "words"),
    [
        ("runcomfy.image-to-video.2", "prompt", "less than 800 characters"),
        ("runcomfy.flash-image-to-video", "prompt", "less than 1500 characters"),
    ],
)
def test_lengths_in_words_are_those_of_the_page(page: str, name: str, words: str) -> None:
    (offer,) = (offer_for(model, place) for model, place, of in OFFERS if of == page)
    option = offer.option(name)
    assert option is not None

    assert words in schema_of(page)["properties"][option.field]["description"]
    assert f"less than {option.length_under} characters" == words


@each_page
def test_texts_are_never_longer_than_the_page_allows(model: str, place: int, page: str) -> None:
    for option in offer_for(model, place).options:
        longest = option.length_at_most
        if option.length_under is not None:
            longest = option.length_under - 1
        published = schema_of(page)["properties"][option.field].get("maxLength")
        assert published is None or (longest is not None and longest <= published)


def test_longest_negative_prompt_is_that_of_the_page() -> None:
    option = offer_for(IMAGE, 0).option("negative_prompt")
    published = schema_of("runcomfy.image-to-video")["properties"]["negative_prompt"]

    assert option is not None
    assert option.length_at_most == published["maxLength"]


@each_page
def test_limits_of_the_media_are_those_of_the_page(model: str, place: int, page: str) -> None:
    offer = offer_for(model, place)
    image = validations_of(page, offer.image_field)
    audio = validations_of(page, offer.audio_field) if offer.audio_field else {}

    assert offer.image.side_over_pixels == image.get("width_pixels>") == image.get("height_pixels>")
    assert offer.image.side_under_pixels == image.get("width_pixels<")
    assert offer.image.side_under_pixels == image.get("height_pixels<")
    for limits, published in ((offer.image, image), (offer.audio, audio)):
        if "file_size_mb<" in published:
            assert limits is not None
            assert limits.size_under_bytes == published["file_size_mb<"] * 1_000_000


@pytest.mark.parametrize(
    ("page", "field", "words"),
    [
        ("runcomfy.speech-to-video", "audio_url", "less than 20s"),
        ("runcomfy.flash-image-to-video", "audio_url", "between 3s and 30s"),
        ("runcomfy.flash-image-to-video", "audio_url", "less than 15 MB"),
        ("runcomfy.flash-image-to-video", "img_url", "less than 10 MB"),
        ("runcomfy.image-to-video", "img_url", "PNG (no alpha)"),
    ],
)
def test_limits_in_words_are_those_of_the_page(page: str, field: str, words: str) -> None:
    (offer,) = (offer_for(model, place) for model, place, of in OFFERS if of == page)
    assert words in schema_of(page)["properties"][field]["description"]

    image, audio = offer.image, offer.audio
    words_of_ours = [f"less than {(image.size_under_bytes or 0) // 1_000_000} MB"]
    words_of_ours += ["PNG (no alpha)"] * (not image.png_alpha)
    if audio:
        words_of_ours.append(f"less than {(audio.size_under_bytes or 0) // 1_000_000} MB")
        words_of_ours.append(f"less than {audio.duration_under_seconds or 0:g}s")
        least, most = audio.duration_at_least_seconds, audio.duration_at_most_seconds
        words_of_ours.append(f"between {least or 0:g}s and {most or 0:g}s")
    assert words in words_of_ours


def values_of(option: Option) -> Iterator[OptionValue]:
    """Every value of an option, or those at its bounds."""
    yield from option.values
    if option.values:
        return
    match option.kind:
        case "boolean":
            yield from (True, False)
        case "integer":
            yield from (n for n in (option.at_least, option.at_most, 7) if n is not None)
        case "string":
            longest = (option.length_under or (option.length_at_most or 2000) + 1) - 1
            yield from ("x", "é" * longest)


@each_page
def test_every_payload_keeps_the_schema_of_its_page(model: str, place: int, page: str) -> None:
    offer = offer_for(model, place)
    media = {offer.image_field: "https://example.com/a.png"}
    if offer.audio_field:
        media[offer.audio_field] = "https://example.com/a.mp3"
    needed: dict[str, OptionValue] = {o.name: "Walk." for o in offer.options if o.required}
    validator = jsonschema.Draft202012Validator(schema_of(page))
    payloads = 0

    for option in offer.options:
        for value in values_of(option):
            asked = {**needed, option.name: value}
            reasons = options.objections(
                MODELS[model], offer, asked, lambda name: "anna.json", TITLES, catalog=MODELS
            )
            assert not list(reasons)
            validator.validate({**options.fields(offer, asked), **media})
            payloads += 1

    assert payloads >= len(offer.options)


def test_every_offer_is_found_by_its_endpoint() -> None:
    for model, place, _ in OFFERS:
        offer = offer_for(model, place)
        assert offer_of(offer.provider, offer.endpoint) == offer
        assert offer.page


def test_price_of_the_page() -> None:
    # "$0.15 per 5 seconds video generation (480p)"; the newer page: $0.30 for 720p
    prices = {"480p": 0.15 / 5, "720p": 0.3 / 5}
    assert [offer_for(SPEECH, place).usd_per_second for place in (1, 2)] == [prices, prices]


def test_every_price_has_its_source_and_the_year() -> None:
    for model, place, _ in OFFERS:
        offer = offer_for(model, place)
        assert bool(offer.usd_per_second) == bool(
            re.search(r"read in \w+ 20\d\d", offer.price_source)
        )


def test_only_infinitetalk_is_off_and_at_both_places() -> None:
    off = {(model, place) for model, place, _ in OFFERS if not offer_for(model, place).on}

    assert off == {(SPEECH, 2), (TALK, 0)}
