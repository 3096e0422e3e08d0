"""Prices that an owner sets go before the catalog's, and none of them is ever passed over."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.model import prices
from dropreel.model.catalog import MODELS, Offer, OptionValue
from dropreel.model.messages import AudioFacts, Plan, PlannedOffer
from dropreel.model.prices import (
    CATALOG_ONLY,
    Billed,
    Prices,
    PricesUnreadable,
    billed,
    estimated_usd,
    prices_in,
)
from dropreel.render import options
from tests.support.render_fakes import PLAN

RUNCOMFY = "wan-ai/wan-2-2/speech-to-video"
WAVESPEED = "wavespeed-ai/wan-2.2/speech-to-video"


PRICED = [
    (one.endpoint, str(resolution))
    for model in MODELS.values()
    for one in model.route
    if (option := one.option("resolution"))
    for resolution in option.values
]
SPELLED = st.integers(0, 99_999_999).map(lambda millionths: f"{millionths / 1e6:.6f}")


@given(st.dictionaries(st.sampled_from(PRICED), SPELLED), st.sampled_from(["", " ", "\n "]))
def test_each_price_is_read_as_it_is_written(wanted: dict[tuple[str, str], str], gap: str) -> None:
    parameter = ",".join(f"{gap}{':'.join(of)}={usd}{gap}" for of, usd in wanted.items())

    assert dict(prices_in(parameter)) == {of: float(usd) for of, usd in wanted.items()}


@given(st.text(st.sampled_from(f"{RUNCOMFY}:480p=0.03,;$ x"), max_size=60) | st.text())
def test_anything_else_is_refused_in_words(parameter: str) -> None:
    """Whatever is accepted says exactly what was written, so nothing was passed over."""
    try:
        read = prices_in(parameter)
    except PricesUnreadable as error:
        assert str(error).startswith("UsdPerSecond cannot be used: ")
    else:
        assert len(read) == (parameter.count(",") + 1 if parameter.strip() else 0)


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
        (f"{RUNCOMFY}:480p=$0.03", 'is "$0.03", not a number such as 0.03'),
        (f"{RUNCOMFY}:480p=nan", "not a number"),
        (f"{RUNCOMFY}:480p=1e400", "not a number"),
        (f"{RUNCOMFY}:480p=-0.03", "not a number"),
        (f"{RUNCOMFY}:480p=٣", "not a number"),
        (f"{RUNCOMFY}:480p=12345", "not a number"),
        ("wan-3:480p=0.03", f'no offer has the endpoint "wan-3"; the endpoints are {RUNCOMFY}'),
        (f"{RUNCOMFY}:480P=0.03", 'has no resolution "480P", only 480p, 720p'),
        (f"{RUNCOMFY}:1080p=0.03", 'has no resolution "1080p", only 480p, 720p'),
        (f"{RUNCOMFY}:480p=1,{RUNCOMFY}:480p=1", f"{RUNCOMFY}:480p has two prices"),
    ],
)
def test_a_fault_is_named(entry: str, words: str) -> None:
    with pytest.raises(PricesUnreadable) as fault:
        prices_in(entry)

    assert words in str(fault.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(PricesUnreadable) as fault:
        prices_in(f"a:480p=1,{WAVESPEED}:480p=0.05,{RUNCOMFY}:4k=1")

    assert 'endpoint "a"' in str(fault.value)
    assert 'resolution "4k"' in str(fault.value)
    assert WAVESPEED not in str(fault.value).partition(";")[0]


def test_every_offer_can_be_priced() -> None:
    endpoints = {one.endpoint for model in MODELS.values() for one in model.route}

    assert set(prices._resolutions()) == endpoints
    assert len(endpoints) == sum(len(model.route) for model in MODELS.values())


OURS = prices_in(f"{WAVESPEED}:480p=0.05,{RUNCOMFY}:720p=0")


@pytest.mark.parametrize(
    ("endpoint", "resolution", "prices", "usd"),
    [
        (WAVESPEED, "480p", CATALOG_ONLY, "0.3"),
        (WAVESPEED, "480p", OURS, "0.5"),  # the owner goes before the catalog
        (WAVESPEED, "720p", OURS, None),  # no price of another resolution is taken
        (RUNCOMFY, "720p", OURS, "0"),
        (RUNCOMFY, "480p", OURS, None),
        ("an-endpoint-of-the-past", "480p", OURS, None),
    ],
)
def test_a_render_costs_its_seconds_times_the_price_of_its_resolution(
    endpoint: str, resolution: str, prices: Prices, usd: str | None
) -> None:
    provider = "wavespeed" if endpoint == WAVESPEED else "runcomfy"
    render = Billed(provider=provider, endpoint=endpoint, resolution=resolution, video_seconds=10)

    assert estimated_usd(render, prices) == (None if usd is None else Decimal(usd))


def test_nothing_is_said_of_a_video_whose_length_is_not_known() -> None:
    render = Billed(provider="wavespeed", endpoint=WAVESPEED, resolution="480p", video_seconds=None)

    assert estimated_usd(render, CATALOG_ONLY) is None


@pytest.mark.parametrize(
    ("model", "asked", "recorded_seconds", "resolution", "video_seconds"),
    [
        ("wan-2.2-speech-to-video", {}, 10.5, "480p", 10.5),
        ("wan-2.2-speech-to-video", {"resolution": "720p"}, 10.5, "720p", 10.5),
        ("wan-2.2-image-to-video", {"prompt": "x"}, None, "480p", 5),
        ("wan-2.6-flash-image-to-video", {"prompt": "x"}, 4.0, "720p", 5),
        (
            "wan-2.6-flash-image-to-video",
            {"prompt": "x", "duration": 15, "resolution": "1080p"},
            4.0,
            "1080p",
            15,
        ),
    ],
)
def test_render_is_billed_by_what_is_sent(
    model: str,
    asked: dict[str, OptionValue],
    recorded_seconds: float | None,
    resolution: str,
    video_seconds: float,
) -> None:
    plan = plan_of(MODELS[model].route, asked, recorded_seconds)

    assert [(it.resolution, it.video_seconds) for it in billed(plan)] == [
        (resolution, video_seconds) for _ in plan.route
    ]
    assert [it.endpoint for it in billed(plan)] == [it.endpoint for it in plan.route]


def test_an_offer_that_the_catalog_has_no_more_is_billed_by_nothing() -> None:
    gone = PLAN.route[0].model_copy(update={"endpoint": "an-endpoint-of-the-past"})

    (render,) = billed(PLAN.model_copy(update={"route": (gone,)}))

    assert (render.resolution, render.video_seconds) == ("", None)


def plan_of(
    route: tuple[Offer, ...], asked: dict[str, OptionValue], recorded_seconds: float | None
) -> Plan:
    """As prepare makes it."""
    facts = PLAN.audio_facts
    assert facts
    seconds = {"duration_seconds": recorded_seconds}
    sound: AudioFacts | None = facts.model_copy(update=seconds) if recorded_seconds else None
    planned = tuple(
        PlannedOffer(
            provider=offer.provider,
            endpoint=offer.endpoint,
            fields=options.fields(offer, asked),
        )
        for offer in route
    )
    return PLAN.model_copy(update={"route": planned, "audio_facts": sound})
