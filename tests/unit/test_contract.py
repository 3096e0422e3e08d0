"""The published contract in `events/`: the schemas follow the models, the examples the schemas."""

import json

import jsonschema
import pytest

from dropreel.events import SOURCE, DetailType
from local.contract import DETAILS, EVENTS, file_stem, schema


@pytest.mark.parametrize("detail_type", DetailType)
def test_the_published_schema_is_the_models(detail_type: DetailType) -> None:
    published = (EVENTS / f"{file_stem(detail_type)}.schema.json").read_text()

    assert published == schema(detail_type), "the models have changed: run `make events`"


@pytest.mark.parametrize("detail_type", DetailType)
def test_the_example_follows_the_schema_and_the_model(detail_type: DetailType) -> None:
    example = json.loads((EVENTS / f"{file_stem(detail_type)}.example.json").read_text())

    assert (example["source"], example["detail-type"]) == (SOURCE, detail_type)
    jsonschema.validate(example["detail"], json.loads(schema(detail_type)))
    model = DETAILS[detail_type].model_validate(example["detail"])
    assert model.model_dump(mode="json") == example["detail"]
