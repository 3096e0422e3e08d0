"""What prepare makes of files, with the real codecs in their processes."""

from io import BytesIO
from typing import BinaryIO

from dropreel.media import codecs
from dropreel.model.catalog import MODELS, TITLES
from dropreel.model.job import Input, Job, Role
from dropreel.model.messages import Plan
from dropreel.render.prepare import Codecs, prepare
from tests.support import media_samples as samples

GOOD = {Role.IMAGE: samples.picture("PNG"), Role.AUDIO: samples.mp3_without_header(4)}
"""What the other file of a job is."""


class Bucket:
    """An upload bucket in memory."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents

    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        return BytesIO(self.contents[pinned.key])

    def copy(self, bucket: str, pinned: Input, into: BinaryIO) -> None:
        into.write(self.contents[pinned.key])

    def put(self, bucket: str, key: str, body: BinaryIO, content_type: str) -> str:
        self.contents[key] = body.read()
        return "v2"


def prepared(
    role: Role, content: bytes, name: str = "anna", seconds: float = 60
) -> tuple[Plan, Bucket]:
    """One file of a job under a name, with a good one of the other role."""
    files = {**GOOD, role: content}
    keys = {each: f"inbox/{name if each is role else 'anna'}.{each}" for each in files}
    inputs = tuple(
        Input(role=each, key=keys[each], version_id="v1", size_bytes=len(files[each]))
        for each in files
    )
    bucket = Bucket({keys[each]: files[each] for each in files})
    model = next(iter(MODELS))
    job = Job(id="anna-1", bucket="b", folder="", stem="anna", model=model, inputs=inputs)
    opening = Codecs(codecs.PICTURE, codecs.SOUND)
    return prepare(job, bucket, tuple(TITLES), opening, lambda: seconds), bucket
