"""The examples in `events/` against events of a new run."""

import json

import jsonschema
import pytest

from local.contract import schema_of
from tests.support.example_events import EXAMPLES, Event, make, without_what_is_made_anew


@pytest.fixture(scope="module")
def made() -> dict[str, Event]:
    return make()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_what_a_run_sends(name: str, made: dict[str, Event]) -> None:
    example = json.loads(EXAMPLES[name].read_text())

    assert without_what_is_made_anew(example) == without_what_is_made_anew(made[name]), (
        "what is sent has changed: run `make events`"
    )
    jsonschema.validate(made[name], schema_of(made[name]))
