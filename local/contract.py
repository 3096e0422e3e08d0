"""Write the JSON Schemas of what goes out and of the job file, from the models, into `events/`.

python -m local.contract
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from dropreel.inbox.job_file import JobFile
from dropreel.model.errors import DropreelError
from dropreel.model.events import (
    DetailType,
    JobChecked,
    JobStarted,
    RenderSubmitted,
    UploadIncomplete,
    VideoFailed,
    VideoReady,
)

EVENTS = Path(__file__).resolve().parent.parent / "events"


class _Event(BaseModel):
    """An event as a rule's target gets it (EventBridge: "AWS service event metadata")."""

    version: Literal["0"] = Field(description="Of EventBridge's envelope, not of `detail`.")
    id: str = Field(description="EventBridge's own. A repeated event can have another one.")
    source: Literal["dropreel"]
    account: str = Field(pattern="^[0-9]{12}$")
    time: AwareDatetime
    region: str
    resources: tuple[str, ...] = Field(
        description="The ARN of the job's execution. Empty in `Upload Incomplete`."
    )


class VideoReadyEvent(_Event):
    detail_type: Literal[DetailType.VIDEO_READY] = Field(alias="detail-type")
    detail: VideoReady


class VideoFailedEvent(_Event):
    detail_type: Literal[DetailType.VIDEO_FAILED] = Field(alias="detail-type")
    detail: VideoFailed


class JobCheckedEvent(_Event):
    detail_type: Literal[DetailType.JOB_CHECKED] = Field(alias="detail-type")
    detail: JobChecked


class UploadIncompleteEvent(_Event):
    detail_type: Literal[DetailType.UPLOAD_INCOMPLETE] = Field(alias="detail-type")
    detail: UploadIncomplete


class JobStartedEvent(_Event):
    detail_type: Literal[DetailType.JOB_STARTED] = Field(alias="detail-type")
    detail: JobStarted


class RenderSubmittedEvent(_Event):
    detail_type: Literal[DetailType.RENDER_SUBMITTED] = Field(alias="detail-type")
    detail: RenderSubmitted


_MODELS: dict[DetailType, tuple[type[BaseModel], type[BaseModel]]] = {
    DetailType.VIDEO_READY: (VideoReady, VideoReadyEvent),
    DetailType.VIDEO_FAILED: (VideoFailed, VideoFailedEvent),
    DetailType.JOB_CHECKED: (JobChecked, JobCheckedEvent),
    DetailType.UPLOAD_INCOMPLETE: (UploadIncomplete, UploadIncompleteEvent),
    DetailType.JOB_STARTED: (JobStarted, JobStartedEvent),
    DetailType.RENDER_SUBMITTED: (RenderSubmitted, RenderSubmittedEvent),
}
JOB_FILE = EVENTS / "job-file.schema.json"


def schemas(detail_type: DetailType) -> dict[Path, str]:
    """The JSON Schemas of an event's `detail` and of the whole event, as text, by their files."""
    detail, event = _MODELS[detail_type]
    stem = detail_type.value.lower().replace(" ", "-")
    return {
        EVENTS / f"{stem}.schema.json": _text(_sent(detail)),
        EVENTS / f"{stem}.event.schema.json": _text(_sent(event)),
    }


def schema_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a whole event."""
    _, model = _MODELS[DetailType(event["detail-type"])]
    return _sent(model)


def _sent(model: type[BaseModel]) -> dict[str, Any]:
    document = model.model_json_schema(mode="serialization", schema_generator=_AsSent)
    if report := document["$defs"].get("ErrorReport"):
        report["properties"]["code"]["examples"] = error_codes()
    return document


def error_codes() -> list[str]:
    """Every code that a job can end with."""
    return sorted(error.__name__ for error in DropreelError.__subclasses__())


def job_file_schema() -> str:
    """The JSON Schema of `<stem>.json` and `_defaults.json` in the inbox, as text."""
    document = JobFile.model_json_schema(schema_generator=_WithoutDefaults)
    return _text(document | {"title": "Dropreel job file"})


class _WithoutDefaults(GenerateJsonSchema):
    """A field that is left out says nothing; it is not null."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


class _AsSent(_WithoutDefaults):
    """All fields are always sent. A field's title says no more than its name, and generators make
    a type of it."""

    def field_is_required(self, *_: object, **__: object) -> bool:
        return True

    def field_title_should_be_set(self, *_: object) -> bool:
        return False


def _text(schema: dict[str, Any]) -> str:
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(document, indent=2) + "\n"


def main() -> None:
    for detail_type in DetailType:
        for path, text in schemas(detail_type).items():
            path.write_text(text)
    JOB_FILE.write_text(job_file_schema())


if __name__ == "__main__":
    main()
