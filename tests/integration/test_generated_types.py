"""Python types that a consumer generates from the published schemas."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from local.consumer_models import MODULES, generate, modules
from local.contract import EVENTS
from tests.support.example_events import EXAMPLES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("types")


def generated(schema: Path, folder: Path) -> ModuleType:
    """The module of a schema, made once."""
    path = folder / f"{schema.name.partition('.')[0].replace('-', '_')}.py"
    if not path.exists():
        generate(schema, path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # pydantic looks the names of types up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("example", EXAMPLES)
def test_python_types_build_and_parse_the_example(example: str, folder: Path) -> None:
    event: dict[str, Any] = json.loads(EXAMPLES[example].read_text())
    name = event["detail-type"]

    types = generated(EVENTS / f"{name.lower().replace(' ', '-')}.event.schema.json", folder)

    model = getattr(types, f"{name.replace(' ', '')}Event")
    parsed = model.model_validate_json(json.dumps(event))
    assert parsed.model_dump(mode="json", by_alias=True) == event
    assert parsed.detail.job.folder == event["detail"]["job"]["folder"]


@pytest.mark.parametrize(
    "schema", sorted(EVENTS.glob("*.event.schema.json")), ids=lambda it: it.name
)
def test_each_python_type_has_the_name_of_a_published_one(schema: Path, folder: Path) -> None:
    document = json.loads(schema.read_text())

    types = generated(schema, folder)

    made = {
        name for name, it in vars(types).items() if getattr(it, "__module__", "") == types.__name__
    }
    assert made == {*document["$defs"], document["title"]}


def test_the_types_of_the_example_are_those_of_the_schemas(tmp_path: Path) -> None:
    for schema, module in modules(tmp_path).items():
        generate(schema, module)

        assert (MODULES / module.name).read_text() == module.read_text(), "run `make events`"
