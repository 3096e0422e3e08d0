"""What prepare makes of files, with the real codecs in their processes."""

from dropreel.media import codecs
from dropreel.model.catalog import MODELS, in_service
from dropreel.model.job import Role
from dropreel.model.messages import Plan
from dropreel.render.prepare import Codecs
from tests.support import media_samples as samples
from tests.support import prepare_bench
from tests.support.prepare_bench import Bucket

GOOD = {Role.IMAGE: samples.picture("PNG"), Role.AUDIO: samples.mp3(4)}
"""What the other file of a job is."""

CODECS = Codecs(codecs.PICTURE, codecs.sound(in_service(MODELS)))


def prepared(role: Role, content: bytes, name: str | None = None) -> tuple[Plan, Bucket]:
    """One file of a job under a name, with a good one of the other role."""
    names = {Role.IMAGE: "anna.heic", Role.AUDIO: "anna.m4a"} | ({role: name} if name else {})
    contents = {
        f"inbox/team/{names[each]}": file for each, file in (GOOD | {role: content}).items()
    }
    bucket = Bucket(dict(contents))
    return prepare_bench.prepared(contents, bucket, CODECS), bucket
