"""What steps hand to each other, and what is in the ledger, stays readable for one release: an
execution that runs during an update hands messages of the release before to today's functions.

The messages were recorded with the code of commit e26a896. Record them anew after a release.
"""

import json
from importlib import import_module
from typing import Any

import pytest
from pydantic import BaseModel

from dropreel.outcome.conclusion import ending_in
from local.embedded import PROJECT

RECORDED = json.loads((PROJECT / "tests/support/recorded_e26a896.json").read_text())
MODELS = {name: one for name, one in RECORDED.items() if name != "conclude"}


@pytest.mark.parametrize("name", MODELS)
def test_a_message_of_the_release_before_is_read_without_loss(name: str) -> None:
    module, _, model = MODELS[name]["model"].partition(":")
    message = MODELS[name]["message"]
    today: type[BaseModel] = getattr(import_module(module), model)

    read = today.model_validate_json(json.dumps(message))

    assert _missing(message, read.model_dump(mode="json")) == []


def test_the_input_of_conclude_of_the_release_before_is_read() -> None:
    message = RECORDED["conclude"]["message"]

    ending = ending_in(message)

    assert ending is not None
    assert ending.job.id == message["job"]["id"]


def _missing(before: Any, today: Any, where: str = "") -> list[str]:  # noqa: ANN401 - JSON
    """The places where today's message lacks what was in the one before, or says another thing."""
    match before, today:
        case dict(), dict():
            return [
                found
                for key, value in before.items()
                for found in (
                    _missing(value, today[key], f"{where}.{key}")
                    if key in today
                    else [f"{where}.{key}"]
                )
            ]
        case list(), list() if len(before) == len(today):
            pairs = enumerate(zip(before, today, strict=True))
            return [one for n, (a, b) in pairs for one in _missing(a, b, f"{where}[{n}]")]
        case _:
            return [] if before == today else [where]
