"""What can go wrong, named for what happened to the person who dropped the files.

Each class says whether trying again can help and what to do. An error is raised low and
translated once, in `conclusion`: between the two it travels through Step Functions as the
JSON of an `ErrorReport`, which is what `str(error)` gives, because the name and the message of
an exception are all that Lambda hands on.
"""

import json
from collections.abc import Iterable, Iterator
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

# An error travels as JSON inside the JSON of a `Cause`, which holds at most 32,768 characters
# (Step Functions' API: ExecutionFailedEventDetails) and Lambda's stack trace beside it. Counted in
# characters of JSON in ASCII, of which one that is read may take twelve.
_MAX_MESSAGE_CHARACTERS = 2_000
_MAX_FIRST_REASON_CHARACTERS = 500
_MAX_WORDS_CHARACTERS = 400
_MAX_KEY_CHARACTERS = 1_024
_MAX_REASONS_JSON_CHARACTERS = 22_000


RERUN = "`make rerun`, by whoever runs this Dropreel"
"""How a job is run again without paying again for what a provider accepted and still has."""

_AGAIN = f"run the job again ({RERUN}) or drop one of its own files again"


class Reason(BaseModel):
    """One rule that one file breaks, in words."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(description="The key of the upload, as it was dropped.")
    offer: str | None = Field(
        default=None,
        description="Whose rule it is (provider and model), when another offer has other rules.",
    )
    rule: str = Field(description="What the model asks for.")
    found: str = Field(description="What the file is instead.")
    cure: str = Field(description="What to do about it.")


class ErrorReport(BaseModel):
    """The error as the error file and the `Video Failed` event tell it."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(description="A stable name, for programs: the error's class.")
    message: str = Field(description="What happened, in one or two sentences.")
    advice: str = Field(description="What to do now.")
    retryable: bool = Field(
        description="Whether a program may drop one of the job's own files again, unchanged: it "
        "can succeed, and no render of it is known to be under way or waiting at the provider."
    )
    reasons: tuple[Reason, ...] = Field(
        default=(),
        description="Every rule that the files break, for `InputRejected`. When they are too many "
        "to be told, the message says how many are left out.",
    )


class DropreelError(Exception):
    """Base of all errors that end a job."""

    retryable: ClassVar[bool] = False
    advice: ClassVar[str] = ""
    reasons: tuple[Reason, ...] = ()

    def __init__(self, message: str) -> None:
        self.message = _cut(message, _MAX_MESSAGE_CHARACTERS)
        super().__init__(self.message)

    @property
    def report(self) -> ErrorReport:
        return ErrorReport(
            code=type(self).__name__,
            message=self.message,
            advice=self.advice,
            retryable=self.retryable,
            reasons=self.reasons,
        )

    def __str__(self) -> str:
        return self.report.model_dump_json()


# The files


class InputRejected(DropreelError):
    """The files break rules of the model; `reasons` lists them, as many as can be told."""

    advice = (
        "Mend what the reasons name and drop only those files again: the others are still there. "
        "Where offers are named, one offer's reasons are enough. A job begins with a file of its "
        "own name: if you mended another one (a face, _defaults.json), drop one of its own again."
    )

    def __init__(self, reasons: tuple[Reason, ...]) -> None:
        self.reasons = tuple(_as_many_as_fit(reasons))
        files = len({reason.file for reason in reasons})
        first = _cut(" ".join(map(_in_words, self.reasons[:1])), _MAX_FIRST_REASON_CHARACTERS)
        message = f"{files} {'file' if files == 1 else 'files'} cannot be used. {first}"
        if more := len(reasons) - 1:
            message += f" And {more} more {'reason' if more == 1 else 'reasons'}."
        if left_out := len(reasons) - len(self.reasons):
            message += f" Of all these, {left_out} do not fit here."
        super().__init__(message)


def _in_words(reason: Reason) -> str:
    needed_by = f" by {reason.offer}" if reason.offer else ""
    return f"{reason.file}: {reason.found}; needed{needed_by}: {reason.rule}."


def _as_many_as_fit(reasons: Iterable[Reason]) -> Iterator[Reason]:
    """The first always does."""
    left = _MAX_REASONS_JSON_CHARACTERS
    for reason in reasons:
        words = {"rule": reason.rule, "found": reason.found, "cure": reason.cure}
        told = reason.model_copy(
            update={name: _cut(text, _MAX_WORDS_CHARACTERS) for name, text in words.items()}
            | {"file": _cut(reason.file, _MAX_KEY_CHARACTERS)}
        )
        left -= len(json.dumps(told.model_dump_json()))
        if left < 0:
            return
        yield told


def _cut(text: str, max_characters: int) -> str:
    return text if len(text) <= max_characters else f"{text[: max_characters - 1]}…"


class InputGone(DropreelError):
    """An upload was deleted before its job could read it."""

    retryable = True
    advice = "Drop the deleted file again and leave it in place until the video is there."


# The provider's account


class TokenMissing(DropreelError):
    """No token is stored for the provider."""

    retryable = True
    advice = (
        "Whoever runs this Dropreel: store the provider's token in its secret (see the README), "
        f"then {_AGAIN}."
    )


class TokenRejected(DropreelError):
    """The provider does not accept the token."""

    retryable = True
    advice = (
        "Whoever runs this Dropreel: store a valid token in the provider's secret (see the "
        f"README), then {_AGAIN}."
    )


class NoCredit(DropreelError):
    """The provider's account has no credit left for this render."""

    retryable = True
    advice = f"Top up the provider's account, then {_AGAIN}."


# Admission


class SpendLimitReached(DropreelError):
    """The day's `DailySpendLimitUsd` leaves no room for this render. Nothing was submitted."""

    retryable = True
    advice = (
        "Drop one of the job's own files again tomorrow (UTC), or once whoever runs this Dropreel "
        f"has raised DailySpendLimitUsd; or run the job again then ({RERUN})."
    )


class PriceUnknown(DropreelError):
    """There is a spend limit, and nobody has said what this render costs."""

    retryable = True
    advice = (
        "Whoever runs this Dropreel: say the price in the parameter UsdPerSecond, or set "
        f"DailySpendLimitUsd to 0; then {_AGAIN}."
    )


class SettingUnreadable(DropreelError):
    """A parameter of the template is set to what nobody can read."""

    retryable = True
    advice = (
        "Whoever runs this Dropreel: deploy it again with the parameter in the form that the "
        f"message names; then {_AGAIN}."
    )


# The submission


class RequestRefused(DropreelError):
    """The provider refused the request as it was sent. Nothing was accepted, nothing is paid."""

    advice = "Read the provider's words in the message; other files or options may be accepted."


class ProviderThrottled(DropreelError):
    """The provider answered 'too many requests' for longer than we were willing to ask."""

    retryable = True
    advice = f"Later, {_AGAIN}; or give the provider fewer jobs at once."


class ProviderUnavailable(DropreelError):
    """The provider could not be reached, or said that it is unavailable, and accepted nothing."""

    retryable = True
    advice = f"Later, {_AGAIN}."


class SubmissionUnclear(DropreelError):
    """The request was sent but no usable answer came: it may have been accepted and be paid for."""

    advice = (
        "Look at the provider's dashboard: if a render of these files is there, fetch it there; "
        f"if none is, run the job again ({RERUN}) or drop one of its own files "
        "again. Dropreel stops here, because sending it once more could be paid twice."
    )


# The render


class RenderFailed(DropreelError):
    """The provider accepted the request and failed to render it."""

    retryable = True
    advice = (
        "Drop one of the job's own files again; if it fails again, try another picture or "
        "recording."
    )


class RenderModerated(DropreelError):
    """The provider's moderation stopped the render."""

    advice = "Use another picture, recording or prompt: these would be stopped again."


class RenderRejected(DropreelError):
    """The provider accepted the request, and then found its files or options unusable."""

    advice = "Read the provider's words in the message; other files or options may be accepted."


class RenderCancelled(DropreelError):
    """The render was cancelled at the provider."""

    advice = "Drop one of the job's own files again if the video is still wanted."


class RenderTimedOut(DropreelError):
    """The render was not ready within `RenderTimeoutMinutes`."""

    advice = (
        f"The render may still finish: run the job again ({RERUN}), which "
        "waits for it and pays nothing. Look at the provider's dashboard before you drop one of "
        "the job's own files again: that would be paid again."
    )


class RequestForgotten(DropreelError):
    """The provider does not know the request that it accepted."""

    advice = (
        "Look at the provider's dashboard: the render may be there, and be paid for. If it is not, "
        f"run the job again ({RERUN}) or drop one of its own files again."
    )


# The result


class ResultMissing(DropreelError):
    """The render completed without a video in its output."""

    advice = (
        f"Look at the provider's dashboard. Running the job again ({RERUN}) "
        "looks for the video once more and pays nothing; dropping one of its own files again "
        "renders anew."
    )


class ResultUnavailable(DropreelError):
    """The finished video could not be fetched from the provider."""

    advice = (
        f"The video is paid for: run the job again ({RERUN}), which fetches it "
        "and pays nothing, or fetch it from the provider's dashboard, while it is there. Dropping "
        "one of the job's own files again renders anew."
    )


class ResultRefused(DropreelError):
    """What the provider offered as the video is not one, is too large, or lies at an address
    that must not be fetched."""

    advice = (
        "Look at the video in the provider's dashboard. "
        f"Running the job again ({RERUN}) fetches it once more and pays nothing; dropping one of "
        "its own files again renders anew."
    )


# The run


class ExecutionAborted(DropreelError):
    """Someone stopped the execution."""

    advice = (
        f"If the video is still wanted, run the job again ({RERUN}) or drop "
        "one of its own files again."
    )


class ExecutionTimedOut(DropreelError):
    """The execution ran longer than it may."""

    advice = (
        f"Run the job again ({RERUN}): what a provider accepted and still has "
        "is waited for, and not paid again."
    )


class UnexpectedError(DropreelError):
    """Something that is not foreseen: a fault of Dropreel or of the platform under it."""

    retryable = True
    advice = (
        "Look at the execution in the Step Functions console: it shows the step that failed, "
        "and that step's log says more."
    )
