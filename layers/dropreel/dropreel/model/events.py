"""The published contract: what Dropreel says on its event bus and writes beside the videos.

`events/` holds the JSON Schema of each, made from these models by `make events`.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from dropreel.model.catalog import OptionValue
from dropreel.model.errors import ErrorReport
from dropreel.model.job import Job, Role

SOURCE = "dropreel"
VERSION: Literal["1"] = "1"


class DetailType(StrEnum):
    VIDEO_READY = "Video Ready"
    VIDEO_FAILED = "Video Failed"
    UPLOAD_INCOMPLETE = "Upload Incomplete"


class _Published(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobSummary(_Published):
    """Which job this is about."""

    id: str = Field(
        description="Names the job. Together with `run` it is the idempotency key: each run of a "
        "job ends in one `Video Ready` or one `Video Failed`, and an event with the same two that "
        "comes again is a repetition."
    )
    run: int = Field(
        default=1, ge=1, description="Counts up when the job is run again without a new upload."
    )
    folder: str = Field(description="The folders below `inbox/`, ending in `/`, or empty.")
    stem: str = Field(description="The file name that the uploads share, without its ending.")
    model: str = Field(description="The model that was asked for.")
    prompt: str | None = None
    options: dict[str, OptionValue] = Field(
        default_factory=dict, description="As the job asked for them."
    )

    started_at: AwareDatetime | None = Field(
        default=None, description="When its execution started."
    )
    dropped_at: AwareDatetime | None = Field(
        default=None,
        description="When its files were found complete. Of two jobs of one stem, the files "
        "without a job id in their names are of the one that was dropped later, also when the "
        "older one is run again.",
    )

    @classmethod
    def of(cls, job: Job, started_at: datetime | None) -> "JobSummary":
        return cls(
            id=job.id,
            run=job.run,
            folder=job.folder,
            stem=job.stem,
            model=job.model,
            prompt=job.prompt,
            options=job.options,
            started_at=started_at,
            dropped_at=job.dropped_at,
        )


class UsedInput(_Published):
    """An upload that the job was made from, pinned to its version."""

    role: Role
    bucket: str
    key: str
    version_id: str
    size_bytes: int
    sha256: str | None = Field(
        default=None,
        description="In hex, of the bytes that were read of a picture or a recording: of the whole "
        "file, or of a large video the parts with its sound. Null when it was not opened.",
    )

    @classmethod
    def all_of(cls, job: Job, sha256: Mapping[str, str] | None = None) -> "tuple[UsedInput, ...]":
        return tuple(
            cls(
                role=given.role,
                bucket=job.bucket,
                key=given.key,
                version_id=given.version_id,
                size_bytes=given.size_bytes,
                sha256=(sha256 or {}).get(given.key),
            )
            for given in job.inputs
        )


class DeliveredVideo(_Published):
    """The finished video."""

    bucket: str
    key: str
    version_id: str
    size_bytes: int
    duration_seconds: float | None = Field(description="Null when the video does not say.")
    width: int = Field(description="In pixels.")
    height: int = Field(description="In pixels.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Of the video's bytes, in hex.")
    nsfw: bool | None = Field(
        default=None,
        description="Whether the provider's detector found it unsafe; null when it has none.",
    )


class AttemptSummary(_Published):
    """One submission of the job, and what became of it."""

    number: int
    provider: str
    model: str = Field(description="The provider's own name of the model.")
    request_id: str | None = Field(description="Null when it was not accepted.")
    outcome: str = Field(description="`VideoReady`, or the code of the error that it ended with.")
    message: str = Field(default="", description="The error in words.")


class RenderSummary(_Published):
    """Who rendered it, and how long each part took."""

    provider: str
    model: str = Field(description="The provider's own name of the model.")
    request_id: str = Field(description="The provider's name for the work it accepted.")
    queued_seconds: float = Field(
        description="From the submission until a poll first saw it rendering."
    )
    rendering_seconds: float = Field(description="From then until a poll saw it completed.")
    copying_seconds: float = Field(description="Fetching the video into the videos bucket.")
    attempts: tuple[AttemptSummary, ...] = Field(description="Every submission, in order.")


class VideoReady(_Published):
    """`detail` of `Video Ready`, and the manifest beside the video."""

    version: Literal["1"] = VERSION
    job: JobSummary
    inputs: tuple[UsedInput, ...]
    changes: tuple[str, ...] = Field(
        description="What was changed of the files so that the provider takes them, in words."
    )
    video: DeliveredVideo
    render: RenderSummary


class FailedRender(_Published):
    """The request that a failed job had at a provider, if it got that far."""

    provider: str
    request_id: str | None = Field(
        description="The provider's name for the work; null when it never gave one."
    )
    cancelled: bool = Field(description="Whether the provider confirmed that it is cancelled.")
    attempts: tuple[AttemptSummary, ...] = Field(
        default=(), description="Every submission, in order."
    )


class VideoFailed(_Published):
    """`detail` of `Video Failed`, and the error file beside where the video would be."""

    # The error comes first, because people read the file from its top.
    error: ErrorReport
    version: Literal["1"] = VERSION
    job: JobSummary
    inputs: tuple[UsedInput, ...]
    render: FailedRender | None = None
    execution: str | None = Field(
        default=None, description="The ARN of the execution, for whoever looks into it."
    )


class IncompleteUpload(_Published):
    """An upload that lies in the inbox and waits for its other half."""

    bucket: str
    key: str
    version_id: str
    size_bytes: int


class UploadIncomplete(_Published):
    """`detail` of `Upload Incomplete`: nobody brought the rest."""

    version: Literal["1"] = VERSION
    folder: str = Field(description="The folders below `inbox/`, ending in `/`, or empty.")
    stem: str = Field(description="The file name that the uploads share, without its ending.")
    uploads: tuple[IncompleteUpload, ...] = Field(description="What is there.")
    missing: tuple[Role, ...] = Field(description="What is not.")
    waited_minutes: float
    message: str = Field(description="The same, in words.")
