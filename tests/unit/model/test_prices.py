"""What a render is estimated to cost, as the provider bills its seconds."""

from decimal import Decimal

import pytest

from dropreel.model.catalog import MODELS, Offer, OptionValue
from dropreel.model.messages import AudioFacts, Plan, PlannedOffer
from dropreel.model.overrides import NO_OVERRIDES, Override, Overrides, catalog_with
from dropreel.model.prices import Billed, billed, estimated_usd
from dropreel.render import options
from tests.support.render_fakes import PLAN

RUNCOMFY = "wan-ai/wan-2-2/speech-to-video"
WAVESPEED = "wavespeed-ai/wan-2.2/speech-to-video"
INFINITETALK = "wavespeed-ai/infinitetalk"
OURS = {
    WAVESPEED: Override(usd_per_second={"480p": 0.05}),
    RUNCOMFY: Override(usd_per_second={"720p": 0}),
}


@pytest.mark.parametrize(
    ("endpoint", "resolution", "overrides", "usd"),
    [
        (WAVESPEED, "480p", NO_OVERRIDES, "0.3"),
        (WAVESPEED, "480p", OURS, "0.5"),  # the owner goes before the catalog
        (WAVESPEED, "720p", OURS, "0.6"),  # the catalog has the other resolution
        (RUNCOMFY, "720p", OURS, "0"),
        (RUNCOMFY, "480p", OURS, None),
        ("an-endpoint-of-the-past", "480p", OURS, None),
    ],
)
def test_a_render_costs_its_seconds_times_the_price_of_its_resolution(
    endpoint: str, resolution: str, overrides: Overrides, usd: str | None
) -> None:
    render = of(endpoint, resolution, 10)

    wanted = None if usd is None else Decimal(usd)
    assert estimated_usd(render, catalog_with(overrides)) == wanted


@pytest.mark.parametrize(
    ("endpoint", "video_seconds", "billed_seconds"),
    [
        (WAVESPEED, 10, 10),
        (WAVESPEED, 9.01, 10),  # "rounded up to whole seconds"
        (WAVESPEED, 0.5, 3),  # "the minimum billed duration is 3 seconds"
        (INFINITETALK, 3, 5),  # "with a 5-second minimum"
        (INFINITETALK, 5.5, 6),
        (RUNCOMFY, 9.5, 9.5),  # its page says nothing of the kind
    ],
)
def test_seconds_are_billed_as_the_page_of_the_offer_says(
    endpoint: str, video_seconds: float, billed_seconds: float
) -> None:
    catalog = catalog_with({endpoint: Override(usd_per_second={"480p": 1})})

    usd = estimated_usd(of(endpoint, "480p", video_seconds), catalog)

    assert usd == Decimal(str(billed_seconds))


def of(endpoint: str, resolution: str, video_seconds: float | None) -> Billed:
    provider = "wavespeed" if endpoint.startswith("wavespeed") else "runcomfy"
    return Billed(
        provider=provider, endpoint=endpoint, resolution=resolution, video_seconds=video_seconds
    )


def test_nothing_is_said_of_a_video_whose_length_is_not_known() -> None:
    assert estimated_usd(of(WAVESPEED, "480p", None), MODELS) is None


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
