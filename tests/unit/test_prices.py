"""Prices that an owner sets go before the catalog's, and none of them is ever passed over."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dropreel import prices
from dropreel.catalog import MODELS, Offer, ProviderName, offer_of
from dropreel.prices import CATALOG_ONLY, PricesUnreadable, prices_in, usd_per_second

RUNCOMFY = "wan-ai/wan-2-2/speech-to-video"
WAVESPEED = "wavespeed-ai/wan-2.2/speech-to-video"


def offer(endpoint: str) -> Offer:
    provider = ProviderName.WAVESPEED if endpoint == WAVESPEED else ProviderName.RUNCOMFY
    return offer_of(provider, endpoint)


PRICED = [
    (one.endpoint, str(resolution))
    for model in MODELS.values()
    for one in model.route
    if (option := one.option("resolution"))
    for resolution in option.values
]
SPELLED = st.integers(0, 99_999_999).map(lambda millionths: f"{millionths / 1e6:.6f}")


@hypothesis_settings(deadline=None)
@given(st.dictionaries(st.sampled_from(PRICED), SPELLED), st.sampled_from(["", " ", "\n "]))
def test_each_price_is_read_as_it_is_written(wanted: dict[tuple[str, str], str], gap: str) -> None:
    parameter = ",".join(f"{gap}{':'.join(of)}={usd}{gap}" for of, usd in wanted.items())

    assert dict(prices_in(parameter)) == {of: float(usd) for of, usd in wanted.items()}


@hypothesis_settings(deadline=None)
@given(st.text(st.sampled_from(f"{RUNCOMFY}:480p=0.03,;$ x"), max_size=60) | st.text())
def test_anything_else_is_refused_in_words(parameter: str) -> None:
    """Whatever is accepted says exactly what was written, so nothing was passed over."""
    try:
        read = prices_in(parameter)
    except PricesUnreadable as error:
        assert str(error).startswith("UsdPerSecond cannot be used: ")
    else:
        assert len(read) == (parameter.count(",") + 1 if parameter.strip() else 0)


@hypothesis_settings(deadline=None)
@given(
    st.lists(st.sampled_from(PRICED), min_size=1, max_size=4, unique=True),
    st.data(),
)
def test_one_slip_anywhere_spoils_it_all(right: list[tuple[str, str]], data: st.DataObject) -> None:
    entries = [f"{':'.join(of)}=0.03" for of in right]
    place = data.draw(st.integers(0, len(entries)))
    slip = data.draw(st.sampled_from(["", "x", f"{RUNCOMFY}:4k=1", f"{RUNCOMFY}:480p=-1"]))
    entries.insert(place, slip)

    with pytest.raises(PricesUnreadable):
        prices_in(",".join(entries))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (f"{RUNCOMFY}:480p", "is not <endpoint>:<resolution>=<USD>"),
        (f"{RUNCOMFY}=0.03", "is not <endpoint>:<resolution>=<USD>"),
        (":480p=0.03", "is not <endpoint>:<resolution>=<USD>"),
        (f"{RUNCOMFY}:480p=", "is not <endpoint>:<resolution>=<USD>"),
        (f"{RUNCOMFY}:480p=0.03,", '"" is not <endpoint>:<resolution>=<USD>'),
        (f"{RUNCOMFY}:480p=0,03", '"03" is not <endpoint>:<resolution>=<USD>'),
        (f"{RUNCOMFY}:480p=$0.03", 'is not a number like 0.03, but "$0.03"'),
        (f"{RUNCOMFY}:480p=nan", "is not a number"),
        (f"{RUNCOMFY}:480p=1e400", "is not a number"),
        (f"{RUNCOMFY}:480p=-0.03", "is not a number"),
        (f"{RUNCOMFY}:480p=٣", "is not a number"),
        (f"{RUNCOMFY}:480p=12345", "is not a number"),
        ("wan-3:480p=0.03", f'no offer has the endpoint "wan-3"; there are {RUNCOMFY}'),
        (f"{RUNCOMFY}:480P=0.03", 'does not render in "480P", but in 480p, 720p'),
        (f"{RUNCOMFY}:1080p=0.03", 'does not render in "1080p", but in 480p, 720p'),
        (f"{RUNCOMFY}:480p=1,{RUNCOMFY}:480p=1", f"{RUNCOMFY}:480p has two prices"),
    ],
)
def test_a_fault_is_named(entry: str, words: str) -> None:
    with pytest.raises(PricesUnreadable) as fault:
        prices_in(entry)

    assert words in str(fault.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(PricesUnreadable) as fault:
        prices_in(f"a:480p=1,{WAVESPEED}:480p=0.05,{RUNCOMFY}:4k=1")

    assert 'endpoint "a"' in str(fault.value)
    assert 'render in "4k"' in str(fault.value)
    assert WAVESPEED not in str(fault.value).partition(";")[0]


def test_every_offer_can_be_priced() -> None:
    endpoints = {one.endpoint for model in MODELS.values() for one in model.route}

    assert set(prices._resolutions()) == endpoints
    assert len(endpoints) == sum(len(model.route) for model in MODELS.values())


def test_the_owner_goes_before_the_catalog() -> None:
    ours = prices_in(f"{WAVESPEED}:480p=0.05,{RUNCOMFY}:720p=0")

    assert usd_per_second(offer(WAVESPEED), "480p", CATALOG_ONLY) == 0.03
    assert usd_per_second(offer(WAVESPEED), "480p", ours) == 0.05
    assert usd_per_second(offer(WAVESPEED), "720p", ours) is None
    assert usd_per_second(offer(RUNCOMFY), "720p", ours) == 0
    assert usd_per_second(offer(RUNCOMFY), "480p", ours) is None
