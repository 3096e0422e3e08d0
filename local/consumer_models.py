"""Write the Python types of the events' `detail` into the example of a consumer in Lambda.

python -m local.consumer_models
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from dropreel.model.events import DetailType
from local.contract import EVENTS

MODULES = EVENTS.parent / "examples/consumers/lambda/src/dropreel_events"


def main() -> None:
    for schema, module in modules(MODULES).items():
        generate(schema, module)


def modules(folder: Path) -> dict[Path, Path]:
    """The module in the folder for each schema of a `detail`."""
    stems = [one.value.lower().replace(" ", "-") for one in DetailType]
    return {
        EVENTS / f"{stem}.schema.json": folder / f"{stem.replace('-', '_')}.py" for stem in stems
    }


def generate(schema: Path, module: Path) -> None:
    """Write a module with the pydantic models of a schema, as a consumer can."""
    options = {
        "--input": schema,
        "--input-file-type": "jsonschema",
        "--output-model-type": "pydantic_v2.BaseModel",
        "--formatters": "builtin",
    }
    arguments = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-m", "datamodel_code_generator", "--use-annotated"]
    # Another folder, because it would take the length of lines from our pyproject.toml.
    made = subprocess.run(
        [*command, "--disable-timestamp", *arguments],
        cwd=tempfile.gettempdir(),
        stdout=subprocess.PIPE,
        check=True,
    )
    module.write_bytes(made.stdout)


if __name__ == "__main__":
    main()
