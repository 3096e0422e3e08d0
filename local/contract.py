"""Write the JSON Schemas of what goes out and of the job file, from the models, into `events/`.

python -m local.contract
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from dropreel.inbox.job_file import JobFile
from dropreel.model.errors import DropreelError
from dropreel.model.events import DetailType, UploadIncomplete, VideoFailed, VideoReady

EVENTS = Path(__file__).resolve().parent.parent / "events"

DETAILS: dict[DetailType, type[BaseModel]] = {
    DetailType.VIDEO_READY: VideoReady,
    DetailType.VIDEO_FAILED: VideoFailed,
    DetailType.UPLOAD_INCOMPLETE: UploadIncomplete,
}
JOB_FILE = EVENTS / "job-file.schema.json"


def file_stem(detail_type: DetailType) -> str:
    """`Video Ready` is in `video-ready.schema.json` and `video-ready.example.json`."""
    return detail_type.value.lower().replace(" ", "-")


def schema(detail_type: DetailType) -> str:
    """The JSON Schema of an event's `detail`, as text."""
    document = DETAILS[detail_type].model_json_schema(mode="serialization")
    for part in (document, *document.get("$defs", {}).values()):
        part.pop("additionalProperties", None)  # a consumer must accept new fields
    if report := document.get("$defs", {}).get("ErrorReport"):
        report["properties"]["code"]["examples"] = error_codes()
    return _text(document, f"detail of {detail_type}")


def error_codes() -> list[str]:
    """Every code that a job can end with."""
    return sorted(error.__name__ for error in DropreelError.__subclasses__())


def job_file_schema() -> str:
    """The JSON Schema of `<stem>.json` and `_defaults.json` in the inbox, as text."""
    return _text(JobFile.model_json_schema(schema_generator=_WithoutDefaults), "Dropreel job file")


class _WithoutDefaults(GenerateJsonSchema):
    """A field that is left out says nothing; it is not null."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def _text(schema: dict[str, Any], title: str) -> str:
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}
    return json.dumps(document, indent=2) + "\n"


def main() -> None:
    for detail_type in DETAILS:
        (EVENTS / f"{file_stem(detail_type)}.schema.json").write_text(schema(detail_type))
    JOB_FILE.write_text(job_file_schema())


if __name__ == "__main__":
    main()
