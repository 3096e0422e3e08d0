"""What an owner knows better than the catalog is read as a whole, or refused with every fault."""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dropreel.model.catalog import MODELS, Offer, in_service, offer_of
from dropreel.model.overrides import (
    Override,
    OverridesUnreadable,
    catalog_with,
    overrides_in,
    parameter_of,
    with_prices,
)

RUNCOMFY = "wan-ai/wan-2-2/speech-to-video"
WAVESPEED = "wavespeed-ai/wan-2.2/speech-to-video"
IMAGE = "wan-ai/wan-2-2/image-to-video"
TALK = "wavespeed-ai/infinitetalk"

SPOKEN = st.fixed_dictionaries(
    {},
    optional={
        "on": st.booleans(),
        "usd_per_second": st.dictionaries(
            st.sampled_from(["480p", "720p"]), st.floats(0, 9999, allow_nan=False)
        ),
        "audio_at_least_seconds": st.integers(1, 3600),
        "audio_at_most_seconds": st.floats(0.5, 3600),
        "audio_at_most_bytes": st.integers(1, 1_000_000_000),
        "image_at_least_pixels": st.integers(1, 100_000),
        "image_at_most_pixels": st.integers(1, 100_000),
        "image_at_most_bytes": st.integers(1, 1_000_000_000),
    },
)


def overridden(endpoint: str, **fields: object) -> Offer:
    catalog = catalog_with(overrides_in(json.dumps({endpoint: fields})))
    provider = "wavespeed" if endpoint.startswith("wavespeed") else "runcomfy"
    return offer_of(provider, endpoint, catalog)


@given(st.dictionaries(st.sampled_from([RUNCOMFY, WAVESPEED, TALK]), SPOKEN))
def test_what_is_to_be_set_is_read_as_the_same_overrides(wanted: dict[str, Any]) -> None:
    try:
        read = overrides_in(json.dumps(wanted))
    except OverridesUnreadable as contradictory:
        assume("at least" not in str(contradictory))
        raise

    assert {endpoint: it.model_dump(exclude_unset=True) for endpoint, it in read.items()} == wanted
    assert catalog_with(overrides_in(parameter_of(read))) == catalog_with(read)


@given(st.text(st.sampled_from('{}[]:,"on0.3true e\\')) | st.text())
def test_anything_else_is_refused_in_words(parameter: str) -> None:
    try:
        read = overrides_in(parameter)
    except OverridesUnreadable as error:
        assert str(error).startswith("CatalogOverrides cannot be used: ")
    else:
        assert not read
        assert parameter.strip() in {"", "{}"} or json.loads(parameter) == {}


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("480p=0.03", "not JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"wan-3": {"on": true}}', f'no offer has the endpoint "wan-3", only {RUNCOMFY}'),
        (f'{{"{TALK}": true}}', f"{TALK}: its value is true"),
        (f'{{"{TALK}": {{"on": 1}}}}', f"{TALK}: on is 1: "),
        (f'{{"{TALK}": {{"off": true}}}}', f'{TALK}: there is no field "off", only on, usd_per'),
        (f'{{"{TALK}": {{"usd_per_second": {{"480p": "0,03"}}}}}}', 'second.480p is "0,03": '),
        (f'{{"{TALK}": {{"usd_per_second": {{"480p": -1}}}}}}', "usd_per_second.480p is -1: "),
        (f'{{"{TALK}": {{"usd_per_second": {{"480p": NaN}}}}}}', "usd_per_second.480p is NaN: "),
        (f'{{"{TALK}": {{"usd_per_second": {{"480p": 1e400}}}}}}', "usd_per_second.480p is Inf"),
        (f'{{"{TALK}": {{"usd_per_second": {{"4k": 1}}}}}}', '"4k", and the offer only 480p, 720p'),
        (f'{{"{TALK}": {{"audio_at_most_seconds": 0}}}}', "audio_at_most_seconds is 0: "),
        (
            f'{{"{IMAGE}": {{"audio_at_most_seconds": 9}}}}',
            f"{IMAGE}: audio_at_most_seconds is set",
        ),
        (
            f'{{"{TALK}": {{"audio_at_least_seconds": 50, "audio_at_most_seconds": 5}}}}',
            f"{TALK}: no recording has at least 50 and at most 5 seconds",
        ),
        (
            f'{{"{RUNCOMFY}": {{"image_at_most_pixels": 300}}}}',
            f"{RUNCOMFY}: no picture has at least 401 and at most 300 pixels",
        ),
        (f'{{"{TALK}": {{}}, "{TALK}": {{"on": true}}}}', f'"{TALK}" stands there twice'),
        (f'{{"{TALK}": {{"on": true, "on": false}}}}', '"on" stands there twice'),
        ('{"\\ud800": {}}', "no offer has the endpoint"),
    ],
)
def test_a_fault_names_the_offer_and_the_field(parameter: str, words: str) -> None:
    with pytest.raises(OverridesUnreadable) as fault:
        overrides_in(parameter)

    assert words in str(fault.value)
    assert str(fault.value).encode()


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(OverridesUnreadable) as fault:
        overrides_in(f'{{"a": {{}}, "{TALK}": {{"on": 1}}, "{RUNCOMFY}": {{"on": true, "b": 1}}}}')

    assert 'endpoint "a"' in str(fault.value)
    assert f"{TALK}: on is 1" in str(fault.value)
    assert f'{RUNCOMFY}: there is no field "b"' in str(fault.value)


@pytest.mark.parametrize(
    ("field", "number", "limits"),
    [
        ("audio_at_least_seconds", 2, {"audio": {"duration_at_least_seconds": 2}}),
        (
            "audio_at_most_seconds",
            30,
            {"audio": {"duration_at_most_seconds": 30, "duration_under_seconds": None}},
        ),
        ("audio_at_most_bytes", 99, {"audio": {"size_under_bytes": 100}}),
        ("image_at_least_pixels", 100, {"image": {"side_over_pixels": 99}}),
        ("image_at_most_pixels", 500, {"image": {"side_under_pixels": 501}}),
        ("image_at_most_bytes", 9, {"image": {"size_at_most_bytes": 9, "size_under_bytes": None}}),
    ],
)
def test_a_limit_replaces_the_pages_and_no_other(
    field: str, number: int, limits: dict[str, dict[str, Any]]
) -> None:
    page = offer_of("runcomfy", RUNCOMFY).model_dump()
    wanted = {**page, **{of: page[of] | changed for of, changed in limits.items()}}

    assert overridden(RUNCOMFY, **{field: number}).model_dump() == wanted


def test_an_offer_is_overridden_in_every_route_that_has_it() -> None:
    models = in_service(catalog_with(overrides_in(f'{{"{TALK}": {{"on": true}}}}')))

    assert [offer.endpoint for offer in models["infinitetalk"].route] == [TALK]
    assert models["wan-2.2-speech-to-video"].route[-1].endpoint == TALK


def test_an_offer_that_is_off_is_in_no_route_and_a_model_without_offers_is_gone() -> None:
    assert "infinitetalk" not in in_service(MODELS)
    models = in_service(catalog_with({RUNCOMFY: Override(on=False), IMAGE: Override(on=False)}))

    assert [it.endpoint for it in models["wan-2.2-speech-to-video"].route] == [WAVESPEED]
    assert "wan-2.2-image-to-video" not in models


def test_prices_take_the_place_of_all_prices_and_of_nothing_else() -> None:
    before = overrides_in(
        f'{{"{TALK}": {{"on": true, "usd_per_second": {{"480p": 1, "720p": 2}}}},'
        f' "{WAVESPEED}": {{"usd_per_second": {{"480p": 1}}}}}}'
    )

    after = with_prices(before, {(TALK, "480p"): 0.02, (RUNCOMFY, "720p"): 0.5})

    assert json.loads(parameter_of(after)) == {
        TALK: {"on": True, "usd_per_second": {"480p": 0.02}},
        RUNCOMFY: {"usd_per_second": {"720p": 0.5}},
    }
