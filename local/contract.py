"""Write the JSON Schemas of what Dropreel says, from the models, into `events/`.

python -m local.contract
"""

import json
from pathlib import Path

from pydantic import BaseModel

from dropreel.events import DetailType, UploadIncomplete, VideoFailed, VideoReady

EVENTS = Path(__file__).resolve().parent.parent / "events"

DETAILS: dict[DetailType, type[BaseModel]] = {
    DetailType.VIDEO_READY: VideoReady,
    DetailType.VIDEO_FAILED: VideoFailed,
    DetailType.UPLOAD_INCOMPLETE: UploadIncomplete,
}


def file_stem(detail_type: DetailType) -> str:
    """`Video Ready` lies in `video-ready.schema.json` and `video-ready.example.json`."""
    return detail_type.value.lower().replace(" ", "-")


def schema(detail_type: DetailType) -> str:
    """The JSON Schema of an event's `detail`, as text."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **DETAILS[detail_type].model_json_schema(mode="serialization"),
        "title": f"detail of {detail_type}",
    }
    return json.dumps(document, indent=2) + "\n"


def main() -> None:
    for detail_type in DETAILS:
        (EVENTS / f"{file_stem(detail_type)}.schema.json").write_text(schema(detail_type))


if __name__ == "__main__":
    main()
