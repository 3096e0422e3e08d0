"""The job: the uploads that together make one video, and the names of its files."""

import hashlib
import json
import os
import re
import unicodedata
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from dropreel.model.catalog import OptionValue
from dropreel.model.errors import Reason
from dropreel.model.uploads import pin

INBOX = os.environ.get("UPLOAD_PREFIX", "inbox/")
"""The prefix of all uploads, ending in `/`: the parameter UploadPrefix. One for a whole process."""

MAX_KEY_BYTES = 1024  # S3: in UTF-8
_MAX_EXECUTION_NAME = 80

# What Dropreel puts between a stem and the last ending: `.error`, `.check`, or a job id.
_OUR_ENDING = re.compile(r"\.(error|check|[a-z0-9-]{1,63}-[0-9a-f]{16})_*\Z", re.IGNORECASE)


class Role(StrEnum):
    """What a job uses an upload for."""

    IMAGE = "image"
    AUDIO = "audio"
    PROMPT = "prompt"  # anna.txt
    OPTIONS = "options"  # anna.json
    DEFAULTS = "defaults"  # _defaults.json, of each folder down to the job's


class Input(BaseModel, frozen=True):
    """One upload, pinned to its version."""

    role: Role
    key: str = Field(description="The key in the upload bucket.")
    version_id: str
    size_bytes: int = Field(ge=0)
    etag: str | None = Field(default=None, description="As S3 lists it, without quotes.")
    sha256: str | None = Field(
        default=None, description="Of a document that intake read, in hex. Null for media."
    )


class Job(BaseModel):
    """The input of an execution: which uploads make which video."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)  # it holds the prompt

    id: str = Field(description="A slug of the stem and a digest; names its first execution.")
    bucket: str = Field(description="The upload bucket.")
    folder: str = Field(description="The folders below the inbox, ending in `/`, or empty.")
    stem: str = Field(description="The file name that the uploads share, without its ending.")
    model: str = Field(description="The model that the user asks for.")
    prompt: str | None = None
    options: dict[str, OptionValue] = Field(
        default_factory=dict, description="In the user's spelling; not checked against a model yet."
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="The user's own words, passed on to event and manifest."
    )
    inputs: tuple[Input, ...]
    ignored: tuple[str, ...] = Field(
        default=(), description="Keys with the job's name whose ending Dropreel does not know."
    )
    dry_run: bool = Field(
        default=False, description="Check it and submit nothing: it ends in `Job Checked`."
    )
    again: bool = Field(
        default=False, description="Render it although its video is there: the operator asked."
    )
    problems: tuple[Reason, ...] = Field(
        default=(), description="What intake found wrong with the files' names and settings."
    )
    run: int = Field(default=1, ge=1, description="The number of this execution of the job.")
    dropped_at: AwareDatetime | None = Field(
        default=None,
        description="When its files were found complete, also in a later run. Of two jobs with the "
        "same output, the later one owns the plain names.",
    )

    @property
    def execution_name(self) -> str:
        return execution_name(self.id, self.run)

    @property
    def video_key(self) -> str:
        return video_key(self.folder, self.stem)

    @property
    def manifest_key(self) -> str:
        return manifest_key(self.folder, self.stem)

    @property
    def error_key(self) -> str:
        return error_key(self.folder, self.stem)

    @property
    def check_key(self) -> str:
        return _fitting(f"{self.folder}{_name(self.stem)}", ".check.json")

    @property
    def own_video_key(self) -> str:
        """For a video that is ready after that of a later job, which owns the plain name."""
        return _fitting(f"{self.folder}{_name(self.stem)}", f".{self.id}.mp4")

    @property
    def own_manifest_key(self) -> str:
        return _fitting(f"{self.folder}{_name(self.stem)}", f".{self.id}.json")

    def is_run_by(self, execution_arn: str) -> bool:
        """False for an execution that was started by hand, under another name."""
        return execution_arn.rpartition(":")[2] == self.execution_name

    def of(self, role: Role) -> tuple[Input, ...]:
        return tuple(given for given in self.inputs if given.role is role)

    def only(self, role: Role) -> Input:
        """The one input of a role. Raises `ValueError` if there is not exactly one."""
        (one,) = self.of(role)
        return one


def video_key(folder: str, stem: str) -> str:
    return f"{folder}{_name(stem)}.mp4"


def manifest_key(folder: str, stem: str) -> str:
    return f"{folder}{_name(stem)}.json"


def error_key(folder: str, stem: str) -> str:
    return _fitting(f"{folder}{_name(stem)}", ".error.json")


def _name(stem: str) -> str:
    """The stem in output names. `anna.error` becomes `anna.error_`: its manifest must not have the
    key of the error file of `anna`."""
    return f"{stem}_" if _OUR_ENDING.search(stem) else stem


def _fitting(name: str, ending: str) -> str:
    """A key within S3's limit: a name that is too long is cut, and a digest keeps it unique."""
    if len((name + ending).encode()) <= MAX_KEY_BYTES:
        return name + ending
    ending = f"-{hashlib.sha256(name.encode()).hexdigest()[:16]}{ending}"
    room_bytes = MAX_KEY_BYTES - len(ending)
    return name.encode()[:room_bytes].decode(errors="ignore") + ending


def top_folder(key: str) -> str:
    """The first folder below the inbox, ending in `/`; empty for a file directly in the inbox."""
    folder, slash, _ = key.removeprefix(INBOX).partition("/")
    return folder + slash if slash else ""


def job_id(stem: str, model: str, inputs: tuple[Input, ...], *, dry_run: bool = False) -> str:
    """The same pinned inputs always give the same id: at most 80 characters of `[a-z0-9-]`, which
    Step Functions takes as an execution's name. A dry run never has the id of a render."""
    pinned = sorted((one.role, one.key, pin(one.version_id, one.etag)) for one in inputs)
    # JSON, because a key may contain any separator.
    contents = [model, pinned, "dry_run"] if dry_run else [model, pinned]
    digest = hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]
    return f"{slug(stem)}-{digest}"


def execution_name(job_id: str, run: int) -> str:
    """The job id; from the second run on with the run's number. A long slug is cut, to stay within
    80 characters; the digest never."""
    if run == 1:
        return job_id
    ending = f"-{job_id[-16:]}-r{run}"
    return f"{job_id[:-17][: _MAX_EXECUTION_NAME - len(ending)]}{ending}"


def slug(stem: str) -> str:
    """The stem in at most 63 characters of `[a-z0-9-]`; `job` when none is left."""
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:63].strip("-") or "job"
