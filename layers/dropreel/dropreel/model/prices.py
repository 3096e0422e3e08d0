"""What a render costs: its seconds, as the provider bills them, by the price of a second."""

from decimal import Decimal

from pydantic import BaseModel

from dropreel.model.catalog import MODELS, Catalog, Offer, OptionValue, ProviderName, offer_of
from dropreel.model.messages import Plan, PlannedOffer


class Billed(BaseModel, frozen=True):
    """What the price of a render depends on."""

    provider: ProviderName
    endpoint: str
    resolution: str
    video_seconds: float | None

    def __str__(self) -> str:
        return f"{self.provider}'s {self.endpoint}" + f" in {self.resolution}" * bool(
            self.resolution
        )


def billed(plan: Plan) -> tuple[Billed, ...]:
    """For each offer of the plan's route."""
    recorded_seconds = plan.audio_facts.duration_seconds if plan.audio_facts else None
    return tuple(_billed(planned, recorded_seconds) for planned in plan.route)


def estimated_usd(render: Billed, catalog: Catalog) -> Decimal | None:
    """Rounded to a ten-thousandth. None when the catalog has no price of this resolution."""
    offer = _offer(render.provider, render.endpoint, catalog)
    per_second = offer.usd_per_second.get(render.resolution) if offer else None
    if offer is None or per_second is None or render.video_seconds is None:
        return None
    return Decimal(str(round(per_second * offer.billed_seconds(render.video_seconds), 4)))


def _billed(planned: PlannedOffer, recorded_seconds: float | None) -> Billed:
    """A video has the duration that the job asked for; without that option, its recording's."""
    resolution: OptionValue | None = None
    seconds: OptionValue | float | None = None
    if offer := _offer(planned.provider, planned.endpoint):
        resolution = _value(offer, planned, "resolution")
        has_duration = offer.option("duration") is not None
        seconds = _value(offer, planned, "duration") if has_duration else recorded_seconds
    return Billed(
        provider=planned.provider,
        endpoint=planned.endpoint,
        resolution=str(resolution or ""),
        video_seconds=seconds if isinstance(seconds, int | float) else None,
    )


def _value(offer: Offer, planned: PlannedOffer, name: str) -> OptionValue | None:
    """The value of an option at an offer, in the user's spelling."""
    option = offer.option(name)
    if option is None:
        return None
    sent = planned.fields.get(option.field, option.default)
    ours: dict[OptionValue | None, str] = {theirs: our for our, theirs in option.sent_as.items()}
    return ours.get(sent, sent)


def _offer(provider: ProviderName, endpoint: str, catalog: Catalog = MODELS) -> Offer | None:
    """None when a newer catalog does not have it any more."""
    try:
        return offer_of(provider, endpoint, catalog)
    except KeyError:
        return None
