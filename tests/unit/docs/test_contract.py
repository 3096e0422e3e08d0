"""The published contract in `events/`: the schemas follow the models, the examples the schemas."""

import json

import jsonschema
import pytest

from dropreel.inbox.job_file import parse
from dropreel.model.events import SOURCE, DetailType
from dropreel.model.job import Role
from local.contract import DETAILS, EVENTS, JOB_FILE, file_stem, job_file_schema, schema


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


def test_the_published_schema_of_the_job_file_is_the_catalogs() -> None:
    assert JOB_FILE.read_text() == job_file_schema(), "the catalog has changed: run `make events`"


@pytest.mark.parametrize(
    ("file", "role"),
    [("job-file.example.json", Role.OPTIONS), ("defaults.example.json", Role.DEFAULTS)],
)
def test_the_example_of_a_job_file_is_one(file: str, role: Role) -> None:
    example = (EVENTS / file).read_bytes()

    jsonschema.validate(json.loads(example), json.loads(job_file_schema()))
    assert parse(role, f"inbox/team/{file}", example, ("faces/",)).problems == ()


@pytest.mark.parametrize(
    "document",
    [
        {"resoluton": "480p"},
        {"resolution": "4k"},
        {"seed": "7"},
        {"generate_audio": 1},
        {"duration": 7},
        {"prompt": ""},
        {"prompt": None},
        {"model": "wan"},
        {},
        {"$schema": "../job-file.schema.json", "seed": -1, "prompt_extend": False},
        {"template": "flying", "shot_type": "multi", "style": "sing", "negative_prompt": ""},
    ],
)
def test_an_editor_and_dropreel_agree(document: dict[str, object]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(job_file_schema()))

    said = parse(Role.OPTIONS, "inbox/anna.json", json.dumps(document).encode())

    assert validator.is_valid(document) == (said.problems == ())
