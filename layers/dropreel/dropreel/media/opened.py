"""What a decoded medium is, and the copy that is written of it."""

from pydantic import BaseModel, Field

from dropreel.model.catalog import AudioFormat, ImageFormat


class _Message(BaseModel, frozen=True):
    """Passed between the two processes."""


class PictureFacts(_Message):
    width: int = Field(description="In pixels, upright.")
    height: int


class SoundFacts(_Message):
    duration_seconds: float


class Copy(_Message):
    """The copy that was written."""

    format: ImageFormat | AudioFormat
    changes: tuple[str, ...] = Field(description="What was changed of the upload, in sentences.")
    width: int = Field(default=0, description="Of a picture, in pixels.")
    height: int = 0


class Fault(_Message):
    """Why a medium cannot be used."""

    found: str = Field(description="What the file is, in words.")
    broken: bool = Field(default=False, description="The file is damaged.")
    rule: str = Field(default="", description="What it should be; empty where `broken` says it.")
    cure: str = ""


class MediumRefused(Exception):
    """The medium cannot be used."""

    def __init__(self, found: str, *, broken: bool = False, rule: str = "", cure: str = "") -> None:
        super().__init__(found)
        self.fault = Fault(found=found, broken=broken, rule=rule, cure=cure)
