"""What an owner knows better than the catalog: prices, limits, and which offers are on.

The parameter `CatalogOverrides` is a JSON object. Its names are the endpoints of offers, its values
the fields of `Override`. Any invalid field is an error: a price that is skipped would not count
toward the spend limit.
"""

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dropreel.model.catalog import MODELS, Catalog, Offer

_MAX_SHOWN_CHARACTERS = 80

_Usd = Annotated[float, Field(ge=0, lt=10_000)]
_Seconds = Annotated[float, Field(gt=0, le=3600)]
_Bytes = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Pixels = Annotated[int, Field(ge=1, le=100_000)]


class Override(BaseModel):
    """The fields that replace those of one offer. All bounds include their number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    on: bool | None = None
    usd_per_second: dict[str, _Usd] = Field(
        default_factory=dict, description="By resolution. Other resolutions keep their price."
    )
    audio_at_least_seconds: _Seconds | None = None
    audio_at_most_seconds: _Seconds | None = None
    audio_at_most_bytes: _Bytes | None = None
    image_at_least_pixels: _Pixels | None = Field(default=None, description="Of each side.")
    image_at_most_pixels: _Pixels | None = Field(default=None, description="Of each side.")
    image_at_most_bytes: _Bytes | None = None

    def of(self, offer: Offer) -> Offer:
        """The offer with these fields."""
        image: dict[str, object] = {}
        audio: dict[str, object] = {}
        if self.audio_at_least_seconds is not None:
            audio["duration_at_least_seconds"] = self.audio_at_least_seconds
        if self.audio_at_most_seconds is not None:
            audio["duration_at_most_seconds"] = self.audio_at_most_seconds
            audio["duration_under_seconds"] = None
        if self.audio_at_most_bytes is not None:
            audio["size_under_bytes"] = self.audio_at_most_bytes + 1
        if self.image_at_least_pixels is not None:
            image["side_over_pixels"] = self.image_at_least_pixels - 1
        if self.image_at_most_pixels is not None:
            image["side_under_pixels"] = self.image_at_most_pixels + 1
        if self.image_at_most_bytes is not None:
            image["size_at_most_bytes"] = self.image_at_most_bytes
            image["size_under_bytes"] = None
        return offer.model_copy(
            update={
                "on": offer.on if self.on is None else self.on,
                "usd_per_second": offer.usd_per_second | self.usd_per_second,
                "image": offer.image.model_copy(update=image),
                "audio": offer.audio and offer.audio.model_copy(update=audio),
            }
        )


Overrides = Mapping[str, Override]
"""By the offer's endpoint."""

NO_OVERRIDES: Final[Overrides] = MappingProxyType({})


class OverridesUnreadable(ValueError):
    """The parameter `CatalogOverrides` has an invalid field, or one that fits no offer."""


def catalog_with(overrides: Overrides) -> Catalog:
    """The catalog as the owner knows it. Offers that are off stay in it."""
    return {
        name: model.model_copy(
            update={
                "route": tuple(
                    overrides[offer.endpoint].of(offer) if offer.endpoint in overrides else offer
                    for offer in model.route
                )
            }
        )
        for name, model in MODELS.items()
    }


def overrides_in(parameter: str) -> Overrides:
    """What the parameter says. Raises `OverridesUnreadable` with every fault."""
    if not parameter.strip():
        return NO_OVERRIDES
    try:
        given = json.loads(parameter, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as invalid:
        raise _unreadable(f"it is not JSON that can be read: {invalid}") from None
    if not isinstance(given, dict):
        raise _unreadable('it is not a JSON object such as {"<endpoint>": {"on": true}}')
    offers = {offer.endpoint: offer for model in MODELS.values() for offer in model.route}
    overrides: dict[str, Override] = {}
    faults: list[str] = []
    for endpoint, fields in given.items():
        offer = offers.get(endpoint)
        if offer is None:
            faults.append(f'no offer has the endpoint "{endpoint}", only {", ".join(offers)}')
            continue
        try:
            overrides[endpoint] = Override.model_validate(fields)
        except ValidationError as invalid:
            faults += [f"{endpoint}: {fault}" for fault in _faults(invalid)]
        else:
            faults += [f"{endpoint}: {fault}" for fault in _misfits(offer, overrides[endpoint])]
    if faults:
        raise _unreadable("; ".join(faults))
    return MappingProxyType(overrides)


def parameter_of(overrides: Overrides) -> str:
    """The text to set as `CatalogOverrides`: what `overrides_in` reads as the same overrides."""
    fields = {
        endpoint: override.model_dump(exclude_defaults=True)
        for endpoint, override in overrides.items()
    }
    return json.dumps({endpoint: it for endpoint, it in fields.items() if it})


def with_prices(overrides: Overrides, prices: Mapping[tuple[str, str], float]) -> Overrides:
    """The overrides with these prices of a second, by endpoint and resolution, in place of all
    that they had."""
    return {
        endpoint: overrides.get(endpoint, Override()).model_copy(
            update={
                "usd_per_second": {at: usd for (of, at), usd in prices.items() if of == endpoint}
            }
        )
        for endpoint in dict.fromkeys([*overrides, *(endpoint for endpoint, _ in prices)])
    }


def _faults(invalid: ValidationError) -> Iterator[str]:
    for fault in invalid.errors(include_url=False):
        field = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            yield f'there is no field "{field}", only {", ".join(Override.model_fields)}'
        else:
            given = json.dumps(fault["input"], ensure_ascii=False)[:_MAX_SHOWN_CHARACTERS]
            yield f"{field or 'its value'} is {given}: {fault['msg']}"


def _misfits(offer: Offer, override: Override) -> Iterator[str]:
    """The fields that this offer cannot have."""
    option = offer.option("resolution")
    resolutions = [str(value) for value in option.values] if option else []
    for resolution in override.usd_per_second:
        if resolution not in resolutions:
            yield (
                f'usd_per_second has the resolution "{resolution}", and the offer only '
                f"{', '.join(resolutions)}"
            )
    if offer.audio is None:
        for field in sorted(override.model_fields_set):
            if field.startswith("audio_"):
                yield f"{field} is set, and the offer takes no recording"

    image, audio = override.of(offer).image, override.of(offer).audio
    least = audio.duration_at_least_seconds if audio else None
    most = audio.longest_seconds if audio else None
    if least and most and least > most:
        yield f"no recording has at least {least:g} and at most {most:g} seconds"
    over, under = image.side_over_pixels, image.side_under_pixels
    if over and under and over + 1 > under - 1:
        yield f"no picture has at least {over + 1} and at most {under - 1} pixels"


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, unless a name stands in it twice: one of the values would be skipped."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{repeated}" stands there twice')
    return fields


def _unreadable(fault: str) -> OverridesUnreadable:
    shown = fault.encode(errors="backslashreplace").decode()  # JSON can have half a character
    return OverridesUnreadable(f"CatalogOverrides cannot be used: {shown}.")
