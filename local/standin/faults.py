"""Misbehaviour on demand: what a stand-in can be told to do wrong, and to which job."""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from random import Random
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PrivateAttr, model_validator

from dropreel.model.provider import FailureCause


class Stage(StrEnum):
    """Where a fault strikes: at one of the provider's calls, at the render, at the download."""

    SUBMIT = "submit"
    STATUS = "status"
    RESULT = "result"
    CANCEL = "cancel"
    LIST = "list"
    DELETE = "delete"
    ACCOUNT = "account"  # models, prices, billings, the balance
    DOWNLOAD = "download"
    RENDER = "render"


class Fault(BaseModel):
    """One thing to do wrong. The fields combine; what is not set stays right."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    match: str = Field(
        default="", description="A part of the path of an input's URL; empty is every job."
    )
    at: Stage
    times: int | None = Field(default=1, ge=1, description="How often; null is for ever.")
    percent: float = Field(
        default=100, gt=0, le=100, description="Strike only this share of the calls, at random."
    )
    seed: int | None = Field(
        default=None, description="The same seed strikes the same calls, by their order."
    )
    when: Literal["before", "after"] = Field(
        default="before", description="Before or after the call has done its work."
    )

    # The answer to a call
    delay_seconds: float = Field(default=0, ge=0, description="Wait this long with the answer.")
    reset: bool = Field(default=False, description="Break the connection off instead.")
    status: int | None = Field(default=None, ge=200, le=599)
    headers: dict[str, str] = Field(default_factory=dict)
    json_body: JsonValue = Field(default=None, alias="json")
    body: str | None = None
    patch: JsonValue = Field(
        default=None, description="A JSON merge patch (RFC 7396) on the true answer."
    )
    omit: list[str] = Field(
        default_factory=list, description="Fields of the true answer to leave out, at any depth."
    )

    # How the answer's body is sent
    filler_bytes: int = Field(default=0, ge=0, description="Blanks after the body.")
    declared_bytes: int | None = Field(
        default=None, ge=0, description="The `Content-Length`, true or not; no more is sent."
    )
    chunked: bool = Field(default=False, description="Say no `Content-Length`.")
    cut_percent: float | None = Field(
        default=None, ge=0, lt=100, description="Break off after this much of the body."
    )
    bytes_per_second: int | None = Field(default=None, ge=1)

    # The render
    error: str | None = Field(default=None, description="Fail with these words.")
    cause: FailureCause = Field(
        default=FailureCause.OTHER, description="Fail with the provider's code for this, if any."
    )
    nsfw: bool = Field(default=False, description="What the provider's detector says, if any.")
    stay: Literal["queued", "rendering"] | None = Field(
        default=None, description="Never get beyond this state."
    )
    queue_seconds: float | None = Field(default=None, ge=0)
    render_seconds: float | None = Field(default=None, ge=0)

    # Each fault has dice of its own: what else is called meanwhile changes nothing for it.
    _dice: Random = PrivateAttr(default_factory=Random)

    def model_post_init(self, _context: object) -> None:
        if self.seed is not None:
            self._dice.seed(self.seed)

    @model_validator(mode="after")
    def _fields_fit_the_stage(self) -> Self:
        misplaced = self.model_fields_set & (
            _OF_ANSWERS if self.at is Stage.RENDER else _OF_RENDERS
        )
        if misplaced:
            raise ValueError(f"not at {self.at.value}: {', '.join(sorted(misplaced))}")
        return self

    def summary(self) -> dict[str, JsonValue]:
        changed: dict[str, JsonValue] = self.model_dump(
            mode="json", by_alias=True, exclude_defaults=True
        )
        return {"match": self.match, "times": self.times, **changed}

    def fits(self, stages: Collection[Stage], paths: Collection[str]) -> bool:
        """Whether a call at one of these stages, for the job with these inputs, is meant."""
        return self.at in stages and any(self.match in path for path in ("", *paths))

    def strikes(self) -> bool:
        """Whether chance has it so. Each call asks once."""
        return self._dice.random() * 100 < self.percent

    @property
    def replaces_answer(self) -> bool:
        return self.status is not None or self.body is not None or self.json_body is not None


_OF_RENDERS = {"error", "cause", "nsfw", "stay", "queue_seconds", "render_seconds"}
_OF_ANSWERS = set(Fault.model_fields) - _OF_RENDERS - {"match", "at", "times", "percent", "seed"}

Preset = Mapping[str, object]

# Faults with a name. A dialect adds those that are worded in its provider's terms.
PRESETS: Mapping[str, Preset] = {
    # any call; say `at`
    "stall": {"delay_seconds": 120},
    "reset_before": {"reset": True},
    "reset_after": {"reset": True, "when": "after"},
    "malformed_json": {"status": 200, "body": '{"request_id": "abc'},
    "empty_body": {"status": 200, "body": ""},
    "huge_body": {"status": 200, "body": "", "filler_bytes": 50_000_000},
    "throttle": {"status": 429, "headers": {"Retry-After": "7"}},
    # the render
    "fail_render": {"at": "render", "error": "The generation failed."},
    "moderate": {
        "at": "render",
        "error": "Content moderation: the input was flagged as unsafe and was not rendered.",
        "cause": "moderated",
    },
    "unreadable": {
        "at": "render",
        "error": "The file could not be fetched: HTTP 403.",
        "cause": "media unreadable",
    },
    "bad_input": {
        "at": "render",
        "error": "No face was found in the image.",
        "cause": "bad input",
    },
    "stay_queued": {"at": "render", "stay": "queued"},
    "never_finish": {"at": "render", "stay": "rendering"},
    # the status
    "forget": {"at": "status", "status": 404, "times": None},
    # the download
    "expired_url": {"at": "download", "status": 403},
    "cut_video": {"at": "download", "cut_percent": 50},
    "wrong_length": {"at": "download", "declared_bytes": 10_000},
    "no_length": {"at": "download", "chunked": True},
    "html_page": {
        "at": "download",
        "status": 200,
        "headers": {"Content-Type": "text/html"},
        "body": "<!doctype html><title>Please wait</title>",
    },
    "empty_video": {
        "at": "download",
        "status": 200,
        "headers": {"Content-Type": "video/mp4"},
        "body": "",
    },
    "oversize_video": {"at": "download", "declared_bytes": 3 * 1024**3},
    "slow_video": {"at": "download", "bytes_per_second": 20_000},
}


class UnknownPreset(Exception):
    """No preset has that name."""


class Faults:
    """The faults that are to come."""

    def __init__(self, presets: Mapping[str, Preset]) -> None:
        self._presets = {**PRESETS, **presets}
        self.active: list[Fault] = []

    def order(self, given: object) -> Fault:
        """Add a fault; `do` names a preset. Raises pydantic's `ValidationError` or
        `UnknownPreset`."""
        if isinstance(given, dict) and "do" in given:
            name = str(given["do"])
            if name not in self._presets:
                raise UnknownPreset(f"do: {name} is none of {', '.join(self._presets)}")
            own = {field: value for field, value in given.items() if field != "do"}
            given = {**self._presets[name], **own}
        fault = Fault.model_validate(given)
        self.active.append(fault)
        return fault

    def take(self, stages: Collection[Stage], paths: Iterable[str]) -> Fault | None:
        """The oldest fault for this job at these stages that strikes; it counts as done once.

        One that chance holds back is not used up, and leaves the call to the next.
        """
        where = list(paths)
        for fault in self.active:
            if fault.fits(stages, where) and fault.strikes():
                if fault.times is not None:
                    fault.times -= 1
                    if not fault.times:
                        self.active.remove(fault)
                return fault
        return None


def merge_patch(document: JsonValue, patch: JsonValue) -> JsonValue:
    """RFC 7396: objects merge, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def without(document: JsonValue, names: Collection[str]) -> JsonValue:
    """The document without these fields."""
    if isinstance(document, list):
        return [without(item, names) for item in document]
    if isinstance(document, dict):
        return {key: without(it, names) for key, it in document.items() if key not in names}
    return document
