"""The messages of the intake queue: S3's events, and those that intake sends itself."""

from typing import Literal, Protocol

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from dropreel.model.job import INBOX


class MessageQueue(Protocol):
    """The intake queue."""

    def send(self, message: BaseModel, delay_seconds: int) -> None: ...


class SeenUpload(BaseModel, frozen=True):
    """An upload that S3 reported or a sweep found. Also the message to look at it again."""

    bucket: str
    key: str
    version_id: str | None = Field(description="None when the event has none.")
    first_seen: AwareDatetime
    swept: bool = Field(default=False, description="Whether a sweep found it.")
    known: frozenset[str] = Field(
        default=frozenset(), description="The version ids of uploads in parts, at the last look."
    )


class SweepPosition(BaseModel, frozen=True):
    """How far a sweep of the inbox is."""

    bucket: str | None = Field(default=None, description="None is the upload bucket.")
    after: str | None = Field(default=None, description="The last key that was looked at.")
    since: AwareDatetime | None = Field(
        default=None, description="Only uploads written since then. None is all."
    )
    ends_at: AwareDatetime | None = Field(
        default=None, description="When the next sweep takes over. None: at the end of the inbox."
    )


class Sweep(BaseModel, frozen=True):
    """The message to go on with a sweep of the inbox (`inbox/sweep.py`)."""

    sweep: SweepPosition


# Powertools has a model of this event too, but importing it, with the models of all other services,
# would be a third of this function's cold start.


class _CreatedObject(BaseModel):
    key: str
    version_id: str | None = Field(default=None, alias="version-id")


class _Bucket(BaseModel):
    name: str


class _CreatedDetail(BaseModel):
    bucket: _Bucket
    object: _CreatedObject


class ObjectCreated(BaseModel):
    """S3's event on EventBridge (`events/samples/object_created.json`), in part."""

    source: Literal["aws.s3"]
    time: AwareDatetime
    detail: _CreatedDetail

    @property
    def seen_upload(self) -> SeenUpload:
        return SeenUpload(
            bucket=self.detail.bucket.name,
            key=self.detail.object.key,
            version_id=self.detail.object.version_id,
            first_seen=self.time,
        )


_MESSAGE: TypeAdapter[ObjectCreated | SeenUpload | Sweep] = TypeAdapter(
    ObjectCreated | SeenUpload | Sweep
)


class UploadOutsideInbox(Exception):
    """An upload waited while UploadPrefix was changed. Ignored, it would be lost."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"{key} has waited, and does not begin with UploadPrefix, which is {INBOX} now. Deploy "
            "again with the earlier UploadPrefix, and run `make redrive-uploads`; or drop the file "
            f"again under {INBOX}."
        )


class MessageUnreadable(Exception):
    """It is neither S3's event nor one of ours. The text has nothing of its content."""

    def __init__(self) -> None:
        super().__init__("This message is no upload. It becomes a dead letter.")


def message_in(message: str) -> SeenUpload | Sweep:
    """Parse a message of the intake queue. Raises `MessageUnreadable` and `UploadOutsideInbox`."""
    try:
        parsed = _MESSAGE.validate_json(message)
    except ValidationError:
        raise MessageUnreadable from None  # its words quote the content
    if isinstance(parsed, ObjectCreated):
        return parsed.seen_upload
    if isinstance(parsed, SeenUpload) and not parsed.key.startswith(INBOX):
        raise UploadOutsideInbox(parsed.key)
    return parsed


def key_in(message: str) -> str | None:
    """The key that a message names, also one that is no upload; None when it names none."""
    try:
        found = from_json(message)
    except (ValueError, TypeError):  # the second of half a character
        return None
    match found:
        case {"detail": {"object": {"key": str(key)}}} | {"key": str(key)}:
            return key
    return None
