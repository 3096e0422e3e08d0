"""The command `prices`: what it asks the providers, and the parameter that it prints."""

import json
from typing import Any

import httpx
import pytest
import yaml

from dropreel.model.catalog import MODELS, Offer
from dropreel.model.overrides import Override, overrides_in
from dropreel.runtime.settings import ProviderAccount
from operate.prices import Asking, Price, parameter_for, prices

TOKEN = "secret-token"
ACCOUNTS = {
    name: ProviderAccount(url=f"https://{name}.example", secret=name, max_in_flight=1)
    for name in ("runcomfy", "wavespeed")
}
RUNCOMFY, WAVESPEED, _ = MODELS["wan-2.2-speech-to-video"].route


def answering(body: object, status: int = 200) -> tuple[Asking, list[httpx.Request]]:
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(status, json=body)

    return Asking(ACCOUNTS, lambda _secret: TOKEN, httpx.MockTransport(answer)), calls


def test_each_provider_is_asked_in_its_way() -> None:
    ask, calls = answering({"data": {"price": 0.4, "discounted_price": 0.3}})
    assert ask(WAVESPEED, "720p") == 0.06
    assert (calls[0].method, calls[0].url.path) == ("POST", "/api/v3/model/price")
    assert json.loads(calls[0].content) == {
        "model_id": WAVESPEED.endpoint,
        "inputs": {"resolution": "720p"},
    }
    assert calls[0].headers["Authorization"] == f"Bearer {TOKEN}"

    assert answering({"data": {"price": 0.4}})[0](WAVESPEED, "720p") == 0.08

    ask, calls = answering({"base_price_usd": 0.04, "price_unit": "second"})
    assert (ask(RUNCOMFY, "480p"), ask(RUNCOMFY, "720p")) == (0.04, None)
    assert str(calls[0].url) == f"https://runcomfy.example/v1/models/{RUNCOMFY.endpoint}"


@pytest.mark.parametrize("offer", [RUNCOMFY, WAVESPEED], ids=lambda offer: offer.provider)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {}),
        (200, []),
        (200, {"base_price_usd": "?", "price_unit": "second", "data": {"discounted_price": "?"}}),
        (200, {"base_price_usd": -1, "price_unit": "second", "data": {"discounted_price": -1}}),
        (200, {"base_price_usd": 1, "price_unit": "video", "data": None}),
        (500, {"base_price_usd": 1, "price_unit": "second", "data": {"discounted_price": 1}}),
    ],
)
def test_answer_that_cannot_be_read_is_no_price(offer: Offer, status: int, body: Any) -> None:  # noqa: ANN401
    assert answering(body, status)[0](offer, "480p") is None


def test_provider_without_a_token_is_not_asked() -> None:
    def asked(_request: httpx.Request) -> httpx.Response:
        raise AssertionError

    assert Asking(ACCOUNTS, lambda _: "", httpx.MockTransport(asked))(WAVESPEED, "480p") is None


@pytest.mark.parametrize(
    ("catalog", "parameter", "asked", "to_set"),
    [
        (0.03, None, 0.03, None),
        (0.03, None, 0.06, 0.06),
        (None, None, 0.06, 0.06),
        (0.03, None, 0.018, None),  # the least that a render costs
        (0.03, 0.05, 0.03, 0.05),
        (0.03, 0.02, 0.03, None),
        (0.03, 0.05, 0.06, 0.06),
        (0.03, 0.05, None, 0.05),  # it stays
        (None, None, None, None),
    ],
)
def test_parameter_has_what_the_catalog_does_not_have(
    catalog: float | None, parameter: float | None, asked: float | None, to_set: float | None
) -> None:
    price = Price("wavespeed", WAVESPEED.endpoint, "480p", catalog, parameter, asked)
    assert price.to_set == to_set


@pytest.mark.parametrize("usd", [0, 0.00000001, 0.06, 10, 9999])
def test_printed_parameter_can_be_read_by_the_stack(usd: float) -> None:
    owners = {
        WAVESPEED.endpoint: Override(on=False, usd_per_second={"480p": 1}),
        RUNCOMFY.endpoint: Override(audio_at_most_seconds=30),
    }
    found = prices(lambda _offer, _resolution: usd, owners)

    [(name, value)] = yaml.safe_load(parameter_for(found, owners)).items()

    assert name == "CatalogOverrides"
    read = overrides_in(value)
    assert {
        (endpoint, resolution): price
        for endpoint, override in read.items()
        for resolution, price in override.usd_per_second.items()
    } == {(one.endpoint, one.resolution): one.to_set for one in found if one.to_set is not None}
    assert read[WAVESPEED.endpoint].on is False
    assert read[RUNCOMFY.endpoint].audio_at_most_seconds == 30


def test_no_price_is_to_be_set_where_the_catalog_is_right() -> None:
    owners = {WAVESPEED.endpoint: Override(on=False, usd_per_second=WAVESPEED.usd_per_second)}
    found = prices(lambda offer, resolution: offer.usd_per_second.get(resolution), owners)

    assert yaml.safe_load(parameter_for(found, owners)) == {
        "CatalogOverrides": f'{{"{WAVESPEED.endpoint}": {{"on": false}}}}'
    }
