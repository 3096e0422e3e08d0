"""The job: the uploads that together make one video, and the names that follow from them."""

import hashlib
import re
import unicodedata
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

INBOX = "inbox/"


class Role(StrEnum):
    """What an upload is to its job."""

    IMAGE = "image"
    AUDIO = "audio"


class Input(BaseModel):
    """One upload, pinned to the version that the job was made from."""

    model_config = ConfigDict(frozen=True)

    role: Role
    key: str = Field(description="The key in the upload bucket.")
    version_id: str
    size_bytes: int = Field(ge=0)


class Job(BaseModel):
    """The input of an execution: which uploads make which video."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="The execution's name: a slug of the stem and a digest.")
    bucket: str = Field(description="The upload bucket.")
    folder: str = Field(description="The folders below `inbox/`, ending in `/`, or empty.")
    stem: str = Field(description="The file name that the uploads share, without its ending.")
    model: str = Field(description="The model that the user asks for.")
    inputs: tuple[Input, ...]

    @property
    def video_key(self) -> str:
        return f"{self.folder}{self.stem}.mp4"

    @property
    def manifest_key(self) -> str:
        return f"{self.folder}{self.stem}.json"

    @property
    def error_key(self) -> str:
        return f"{self.folder}{self.stem}.error.json"

    def only(self, role: Role) -> Input:
        """The one input of a role. Validation has seen to it that there is exactly one."""
        (one,) = (given for given in self.inputs if given.role is role)
        return one


def job_id(stem: str, model: str, inputs: tuple[Input, ...]) -> str:
    """Name a job after its content: the same pinned inputs always give the same id.

    At most 80 characters of `[a-z0-9-]`, as Step Functions asks of an execution's name.
    """
    pinned = "\n".join(
        f"{given.role} {given.version_id} {given.key}"
        for given in sorted(inputs, key=lambda given: (given.role, given.key))
    )
    digest = hashlib.sha256(f"{model}\n{pinned}".encode()).hexdigest()[:16]
    return f"{slug(stem)}-{digest}"


def slug(stem: str) -> str:
    """The stem in at most 63 characters of `[a-z0-9-]`; `job` when nothing of it is left."""
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:63].strip("-") or "job"
