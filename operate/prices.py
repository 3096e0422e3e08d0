"""What the providers say that a second costs, beside the catalog and the owner's parameter.

Their calls are free: RunComfy's `GET /v1/models/{id}` (by its public MCP client) and WaveSpeed's
`POST /api/v3/model/price` (by its public command line, both 2026). Nothing but this command asks
them. An answer can be the least that a render costs, and not its usual price: neither call knows
the recording. So an answer replaces a known price only if it is higher.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import boto3
import httpx
from botocore.exceptions import ClientError
from pydantic import TypeAdapter, ValidationError
from rich.table import Table
from rich.text import Text

from dropreel.model.catalog import MODELS, Offer
from dropreel.model.overrides import (
    Overrides,
    OverridesUnreadable,
    overrides_in,
    parameter_of,
    with_prices,
)
from dropreel.runtime.settings import ProviderAccount
from operate.errors import OperateError
from operate.stack import PATIENT, environment_of

PRICED_SECONDS: Final = 5
"""WaveSpeed gives the price of a whole video. Its pages price five seconds."""

_ACCOUNTS: Final = TypeAdapter(dict[str, ProviderAccount])
_TIMEOUT_SECONDS: Final = 20


@dataclass(frozen=True)
class Price:
    """Of a second of an offer at a resolution, in USD; None where it is not known."""

    provider: str
    endpoint: str
    resolution: str
    catalog: float | None
    parameter: float | None
    asked: float | None

    @property
    def to_set(self) -> float | None:
        """What the parameter has to say: nothing where the catalog is right."""
        known = self.catalog if self.parameter is None else self.parameter
        best = max((usd for usd in (known, self.asked) if usd is not None), default=None)
        return None if best == self.catalog else best


Ask = Callable[[Offer, str], float | None]


def prices(ask: Ask, owners: Overrides) -> tuple[Price, ...]:
    """For each offer of the catalog at each of its resolutions."""
    offers = {(one.provider, one.endpoint): one for model in MODELS.values() for one in model.route}
    return tuple(_prices(offers.values(), ask, owners))


def _prices(offers: Any, ask: Ask, owners: Overrides) -> Iterator[Price]:  # noqa: ANN401
    for offer in offers:
        option = offer.option("resolution")
        for resolution in map(str, option.values if option else ()):
            yield Price(
                provider=offer.provider,
                endpoint=offer.endpoint,
                resolution=resolution,
                catalog=offer.usd_per_second.get(resolution),
                parameter=owners[offer.endpoint].usd_per_second.get(resolution)
                if offer.endpoint in owners
                else None,
                asked=ask(offer, resolution),
            )


def parameter_for(found: Sequence[Price], owners: Overrides) -> str:
    """The parameter to set, as a line of a YAML file."""
    return f"CatalogOverrides: '{value_for(found, owners)}'"


def value_for(found: Sequence[Price], owners: Overrides) -> str:
    """The parameter's value. Limits and `on` stay as they are."""
    to_set = {(one.endpoint, one.resolution): one.to_set for one in found if one.to_set is not None}
    return parameter_of(with_prices(owners, to_set))


def table(found: Sequence[Price]) -> Table:
    shown = Table("offer", "resolution", "catalog", "parameter", "provider", title="USD a second")
    for one in found:
        amounts = (one.catalog, one.parameter, one.asked)
        cells = ("-" if usd is None else f"{usd:g}" for usd in amounts)
        style = None if one.to_set == one.parameter else "bold"
        shown.add_row(
            *map(Text, (f"{one.provider} {one.endpoint}", one.resolution, *cells)), style=style
        )
    shown.columns[0].overflow = "fold"
    return shown


# Asking


class Asking:
    """Asks the providers. An answer that cannot be read counts as none."""

    def __init__(
        self,
        accounts: Mapping[str, ProviderAccount],
        token: Callable[[str], str],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._accounts = accounts
        self._token = token
        self._http = httpx.Client(
            timeout=_TIMEOUT_SECONDS, trust_env=False, follow_redirects=False, transport=transport
        )

    def __call__(self, offer: Offer, resolution: str) -> float | None:
        """None when the provider has no token, no answer, or no price for this resolution."""
        account = self._accounts.get(offer.provider)
        token = self._token(account.secret).strip() if account else ""
        way = {"runcomfy": _runcomfy, "wavespeed": _wavespeed}.get(offer.provider)
        if not (account and token and way):
            return None
        headers = {"Authorization": f"Bearer {token}"}
        try:
            request, read = way(offer, resolution)
            answer = self._http.request(
                url=account.url.rstrip("/") + request.pop("path"), headers=headers, **request
            )
            usd = read(answer.raise_for_status().json())
        except (httpx.HTTPError, ValueError, TypeError, KeyError, AttributeError):
            return None
        is_price = isinstance(usd, int | float) and not isinstance(usd, bool) and 0 <= usd < 10_000
        return round(usd, 8) if is_price else None


_Way = tuple[dict[str, Any], Callable[[Any], Any]]


def _runcomfy(offer: Offer, resolution: str) -> _Way:
    """Its price is of the default resolution."""
    option = offer.option("resolution")
    is_default = option is not None and option.default == resolution
    return (
        {"method": "GET", "path": f"/v1/models/{quote(offer.endpoint)}"},
        lambda answer: (
            answer["base_price_usd"] if is_default and answer["price_unit"] == "second" else None
        ),
    )


def _wavespeed(offer: Offer, resolution: str) -> _Way:
    inputs: dict[str, object] = {"resolution": resolution}
    if offer.option("duration"):
        inputs["duration"] = PRICED_SECONDS
    asked = {"model_id": offer.endpoint, "inputs": inputs}
    return (
        {
            "method": "POST",
            "path": "/api/v3/model/price",
            "json": asked,
        },
        lambda answer: (
            (answer["data"].get("discounted_price") or answer["data"]["price"]) / PRICED_SECONDS
        ),
    )


# The stack


def settings_of(function: str) -> tuple[dict[str, ProviderAccount], Overrides]:
    """The accounts and the overrides, from a function's environment. Raises `OperateError`."""
    variables = environment_of(function)
    try:
        accounts = _ACCOUNTS.validate_python(json.loads(variables["PROVIDERS"]))
        return accounts, overrides_in(variables.get("CATALOG_OVERRIDES", ""))
    except OverridesUnreadable as error:
        raise OperateError(str(error)) from None
    except (KeyError, ValueError, ValidationError):
        raise OperateError(f"{function} has no readable PROVIDERS.") from None


def token_in(secret: str) -> str:
    """Empty when none is stored."""
    client = boto3.client("secretsmanager", config=PATIENT)
    try:
        return client.get_secret_value(SecretId=secret).get("SecretString", "")
    except ClientError as refusal:
        code = refusal.response["Error"].get("Code")
        if code == "ResourceNotFoundException":
            return ""
        raise OperateError(f"AWS did not hand out a token ({code}).") from None
