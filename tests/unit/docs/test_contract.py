"""The published contract in `events/`: the schemas follow the models, the examples the schemas."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from moto.events.models import EventPattern

from dropreel.inbox.job_file import parse
from dropreel.model.events import DetailType
from dropreel.model.job import Role
from local.contract import EVENTS, JOB_FILE, job_file_schema, schema_of, schemas
from tests.support.example_events import EXAMPLES

DOCS = EVENTS.parent / "docs" / "events.md"


@pytest.mark.parametrize("detail_type", DetailType)
def test_the_published_schemas_are_the_models(detail_type: DetailType) -> None:
    for path, schema in schemas(detail_type).items():
        assert path.read_text() == schema, "the models have changed: run `make events`"


@pytest.mark.parametrize("path", EXAMPLES.values(), ids=EXAMPLES)
def test_the_example_follows_the_schema(path: Path) -> None:
    example = json.loads(path.read_text())

    jsonschema.validate(example, schema_of(example))


@pytest.mark.parametrize("path", EXAMPLES.values(), ids=EXAMPLES)
def test_one_pattern_of_the_docs_serves_a_folder(path: Path) -> None:
    (pattern,) = re.findall(r"```json\n(.*)\n```", DOCS.read_text())
    rule = EventPattern.load(pattern)
    example = json.loads(path.read_text())

    assert rule.matches_event(example)
    example["detail"]["job"]["folder"] = "other/"
    assert not rule.matches_event(example)


@pytest.mark.parametrize("detail_type", DetailType)
def test_all_that_is_sent_is_required_and_each_type_has_one_name(detail_type: DetailType) -> None:
    for text in schemas(detail_type).values():
        document = json.loads(text)
        for part in (document, *document["$defs"].values()):
            properties = part.get("properties", {})
            assert part.get("required", []) == list(properties)
            assert not [it for it in properties.values() if it.keys() & {"title", "default"}]
        assert document["$defs"].keys() == {it["title"] for it in document["$defs"].values()}


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
