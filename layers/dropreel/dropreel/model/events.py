"""The published contract: the events on the bus and the JSON files next to the videos.

`make events` writes the JSON Schemas in `events/` from these models.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from dropreel.model.catalog import OptionValue
from dropreel.model.errors import ErrorReport
from dropreel.model.job import Job, Role

SOURCE = "dropreel"
VERSION: Literal["2"] = "2"


class DetailType(StrEnum):
    VIDEO_READY = "Video Ready"
    VIDEO_FAILED = "Video Failed"
    JOB_CHECKED = "Job Checked"
    UPLOAD_INCOMPLETE = "Upload Incomplete"
    JOB_STARTED = "Job Started"
    RENDER_SUBMITTED = "Render Submitted"


FOR_DISPLAY = (DetailType.JOB_STARTED, DetailType.RENDER_SUBMITTED)
"""One of these may be missing. All others are certain to come."""


class _Published(BaseModel, frozen=True, defer_build=True):
    """A part of what is published. Fields that a later version added are ignored.

    Built on first use: most cold starts publish nothing.
    """


_FOLDER = "The folders below `inbox/`, ending in `/`, or empty."
_STEM = "The file name that the uploads share, without its ending."
_LABELS = "The `labels` of the job's `.json` and of its folders' `_defaults.json`, unchanged."
_ETAG = "As S3 gives it, without quotes. Null when it is not known."


class StoredFile(_Published):
    """A file in the videos bucket."""

    bucket: str
    key: str


class OlderVideo(StoredFile):
    """The video of an earlier job or run, which still has the plain name."""

    version_id: str

    @classmethod
    def in_manifest(cls, manifest: str | None) -> "OlderVideo | None":
        """The video that a manifest names; None when there is no manifest."""
        try:
            return _Manifest.model_validate_json(manifest or "").video
        except ValidationError:
            return None


class _Manifest(BaseModel):
    """What every version of the manifest has."""

    video: OlderVideo


_OLDER_VIDEO = (
    "The video of an earlier job or run, if one still has the plain name, without a job id; else "
    "null."
)


class JobSummary(_Published):
    """Which job this is about."""

    id: str = Field(
        description="The job's name. Together with `run` it is the idempotency key: each run that "
        "renders ends in one `Video Ready` or one `Video Failed`. A second event of these with the "
        "same two is a repetition."
    )
    run: int = Field(
        default=1, ge=1, description="Counts up when the job is run again without a new upload."
    )
    folder: str = Field(description=_FOLDER)
    stem: str = Field(description=_STEM)
    model: str = Field(description="The model that the job asked for.")
    prompt: str | None = None
    options: dict[str, OptionValue] = Field(
        default_factory=dict, description="As the job asked for them."
    )
    labels: dict[str, str] = Field(default_factory=dict, description=_LABELS)
    started_at: AwareDatetime = Field(description="When its execution started.")
    dropped_at: AwareDatetime | None = Field(
        default=None,
        description="When its files were found complete. Of two jobs with the same stem, the later "
        "one owns the file names without a job id, also when the older one is run again.",
    )

    @classmethod
    def of(cls, job: Job, started_at: datetime) -> "JobSummary":
        return cls(
            id=job.id,
            run=job.run,
            folder=job.folder,
            stem=job.stem,
            model=job.model,
            prompt=job.prompt,
            options=job.options,
            labels=job.labels,
            started_at=started_at,
            dropped_at=job.dropped_at,
        )


class UsedInput(_Published):
    """An upload of the job, pinned to its version."""

    role: Role
    bucket: str
    key: str
    version_id: str
    size_bytes: int
    etag: str | None = Field(default=None, description=_ETAG)
    sha256: str | None = Field(
        default=None,
        description="In hex, of the bytes that were read: the whole file, or only the parts with "
        "sound of a large video. Null when it was not read.",
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
                etag=given.etag,
                sha256=given.sha256 or (sha256 or {}).get(given.key),
            )
            for given in job.inputs
        )


class DeliveredVideo(_Published):
    """The finished video."""

    bucket: str
    key: str
    version_id: str
    size_bytes: int
    duration_seconds: float | None = Field(description="Null when the video does not state it.")
    width: int = Field(description="In pixels.")
    height: int = Field(description="In pixels.")
    has_audio: bool | None = Field(
        default=None,
        description="Whether it has a sound track. Null only when an earlier version of Dropreel "
        "delivered it.",
    )
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Of the video's bytes, in hex.")
    nsfw: bool | None = Field(
        default=None,
        description="Whether the provider's detector found the video unsafe; null when there is "
        "no detector.",
    )


class AttemptSummary(_Published):
    """One submission of the job, and its outcome."""

    number: int
    run: int = Field(
        default=1,
        ge=1,
        description="The run that submitted it. A later run can wait for the same render: count "
        "its cost once.",
    )
    provider: str
    model: str = Field(description="The provider's own name of the model.")
    request_id: str | None = Field(description="Null when it was not accepted.")
    outcome: str = Field(description="`VideoReady`, or the code of the error.")
    message: str = Field(default="", description="The error in words.")
    estimated_usd: float | None = Field(
        description="What may be paid for it: 0 when the provider refused it, could not render it, "
        "or cancelled it. Null when the price is not known.",
    )
    actual_usd: float | None = Field(
        default=None,
        description="What the provider charged for it; null when that is not known in time.",
    )


class RenderSummary(_Published):
    """The provider of the render, and how long each part took."""

    provider: str
    model: str = Field(description="The provider's own name of the model.")
    request_id: str = Field(description="The provider's name for the work it accepted.")
    queued_seconds: float = Field(
        description="From the submission until a poll first saw it rendering."
    )
    rendering_seconds: float = Field(description="From then until a poll saw it complete.")
    copying_seconds: float = Field(description="To copy the video into the videos bucket.")
    attempts: tuple[AttemptSummary, ...] = Field(description="Every submission, in order.")


_ESTIMATED_USD = (
    "What may be paid for the attempts in `render`, in all; null when a price is not known."
)


class VideoReady(_Published):
    """`detail` of `Video Ready`, and the manifest next to the video."""

    version: Literal["2"] = VERSION
    job: JobSummary
    inputs: tuple[UsedInput, ...]
    changes: tuple[str, ...] = Field(
        description="What was changed in copies of the files for the provider, in words."
    )
    ignored: tuple[str, ...] = Field(
        default=(),
        description="The keys of uploads with the job's name whose ending Dropreel does not know.",
    )
    video: DeliveredVideo
    voice_seconds: float | None = Field(
        default=None,
        description="How long the recording is that was sent; null when none was sent.",
    )
    warnings: tuple[str, ...] = Field(
        default=(),
        description="What may be wrong with the video, in sentences: it was made to a recording, "
        "and has no sound track or another length.",
    )
    manifest: StoredFile = Field(description="The manifest: a file with this same `detail`.")
    render: RenderSummary
    estimated_usd: float | None = Field(description=_ESTIMATED_USD)
    actual_usd: float | None = Field(
        default=None,
        description="What the providers charged for these attempts, in all; null when that is not "
        "known in time.",
    )
    ended_at: AwareDatetime = Field(description="When the video was there.")
    dropreel_version: str = Field(default="", description="Of the stack that delivered it.")


class FailedRender(_Published):
    """The last request of a failed job."""

    provider: str
    request_id: str | None = Field(
        description="The provider's name for the work; null when it was not accepted."
    )
    cancelled: bool = Field(description="Whether the provider confirmed the cancellation.")
    attempts: tuple[AttemptSummary, ...] = Field(
        default=(), description="Every submission, in order."
    )


class VideoFailed(_Published):
    """`detail` of `Video Failed`, and the error file."""

    # The error comes first, because people read the file from the top.
    error: ErrorReport
    version: Literal["2"] = VERSION
    job: JobSummary
    inputs: tuple[UsedInput, ...]
    render: FailedRender | None = None
    estimated_usd: float | None = Field(description=_ESTIMATED_USD)
    error_file: StoredFile | None = Field(
        description="The error file: a file with this same `detail`. Null when none was written, "
        "because a later job or run already had a result."
    )
    older_video: OlderVideo | None = Field(default=None, description=_OLDER_VIDEO)
    ended_at: AwareDatetime = Field(description="When the failure was recorded.")
    execution: str = Field(description="The ARN of the execution, for operators.")


class CheckedOffer(_Published):
    """An offer that takes a checked job."""

    provider: str
    model: str = Field(description="The provider's own name of the model.")
    options: dict[str, OptionValue] = Field(
        description="All that is sent to it except the files, in the provider's spelling."
    )
    estimated_usd: float | None = Field(
        description="What a render would cost. Null when the price is not known."
    )


class JobChecked(_Published):
    """`detail` of `Job Checked`, and the check file: the answer to a job with `dry_run`."""

    accepted: bool = Field(
        description="Whether the same files without `dry_run` would be submitted."
    )
    error: ErrorReport | None = Field(description="Why they would not. Null when `accepted`.")
    version: Literal["2"] = VERSION
    job: JobSummary
    inputs: tuple[UsedInput, ...]
    ignored: tuple[str, ...] = Field(
        default=(),
        description="The keys of uploads with the job's name whose ending Dropreel does not know.",
    )
    changes: tuple[str, ...] = Field(
        description="What would be changed in copies of the files for the provider, in words."
    )
    offers: tuple[CheckedOffer, ...] = Field(
        description="The offers that take the job: the first is asked first. Empty when none does."
    )
    voice_seconds: float | None = Field(
        description="How long the recording is that would be sent; null when there is none."
    )
    estimated_usd: float | None = Field(
        description="What a render at the first offer would cost. Null when there is no offer, or "
        "its price is not known."
    )
    check_file: StoredFile | None = Field(
        description="The check file: a file with this same `detail`. Null when none was written, "
        "because a later check already had one."
    )
    ended_at: AwareDatetime = Field(description="When the check ended.")
    execution: str = Field(description="The ARN of the execution, for operators.")

    @property
    def render(self) -> None:
        """A check renders nothing. Not a field: it is not published."""


Ended = VideoReady | VideoFailed | JobChecked
"""How a run ends: the detail of its event."""


class IncompleteUpload(_Published):
    """An upload that waited for others."""

    bucket: str
    key: str
    version_id: str
    size_bytes: int
    etag: str | None = Field(default=None, description=_ETAG)


class IncompleteJob(_Published):
    """A job that never started, so it has no id."""

    folder: str = Field(description=_FOLDER)
    stem: str = Field(description=_STEM)
    labels: dict[str, str] = Field(default_factory=dict, description=_LABELS)


class UploadIncomplete(_Published):
    """`detail` of `Upload Incomplete`, and the error file: files of a job never came."""

    version: Literal["2"] = VERSION
    job: IncompleteJob
    uploads: tuple[IncompleteUpload, ...] = Field(description="What is there.")
    missing: tuple[Role, ...] = Field(description="What is missing.")
    waited_minutes: float
    message: str = Field(description="The same in words, and what to do.")
    error_file: StoredFile = Field(description="The error file: a file with this same `detail`.")
    older_video: OlderVideo | None = Field(default=None, description=_OLDER_VIDEO)
    ended_at: AwareDatetime = Field(description="When Dropreel stopped waiting.")


class UploadFailure(_Published):
    """The error file of an upload that no job could be made of. No event is sent."""

    error: ErrorReport
    version: Literal["2"] = VERSION
    job: IncompleteJob
    ended_at: AwareDatetime = Field(description="Of the last try.")


class FirstOffer(_Published):
    """Where a job goes first."""

    provider: str
    model: str = Field(description="The provider's own name of the model.")


MAX_JOBS_COUNTED = 100
"""So that the cost of a job does not grow with the number of jobs that wait."""


class JobStarted(_Published):
    """`detail` of `Job Started`: a run asks for a render. Only for display: an event of this type
    may be missing."""

    version: Literal["2"] = VERSION
    job: JobSummary
    inputs: tuple[UsedInput, ...]
    offer: FirstOffer = Field(
        description="Another offer of the model renders it if this one refuses or is paused."
    )
    estimated_usd: float | None = Field(
        description="What a render at this offer is expected to cost; null when the price is not "
        "known."
    )
    voice_seconds: float | None = Field(
        description="How long the recording is that is sent; null when none is sent."
    )
    jobs_before: int = Field(
        ge=0,
        le=MAX_JOBS_COUNTED,
        description="How many jobs wait before it for this provider. At most "
        f"{MAX_JOBS_COUNTED} are counted: {MAX_JOBS_COUNTED} means so many or more.",
    )


class RenderSubmitted(_Published):
    """`detail` of `Render Submitted`: a provider has accepted a request. Only for display: an event
    of this type may be missing."""

    version: Literal["2"] = VERSION
    job: JobSummary
    attempt: int = Field(ge=1, description="Its `number` among the job's attempts.")
    provider: str
    model: str = Field(description="The provider's own name of the model.")
    request_id: str = Field(description="The provider's name for the work it accepted.")
    estimated_usd: float | None = Field(
        description="What it is expected to cost; null when the price is not known."
    )
    submitted_at: AwareDatetime


class Announcer(Protocol):
    def announce(
        self, detail_type: DetailType, detail: BaseModel, resources: Sequence[str] = ()
    ) -> None:
        """Send one event, about the ARNs in `resources`."""
