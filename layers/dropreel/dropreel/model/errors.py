"""What can go wrong, named for what happened to the person who dropped the files.

Each class says whether a retry can help and what to do. Lambda passes on only the name and the
message of an exception, so `str(error)` is the JSON of an `ErrorReport`; conclude parses it.
"""

import json
from collections.abc import Iterable, Iterator
from typing import ClassVar

from pydantic import BaseModel, Field

# An error travels as JSON inside the JSON of a `Cause`, which holds at most 32,768 characters
# (Step Functions' API: ExecutionFailedEventDetails) with Lambda's stack trace. Counted in ASCII:
# one character of the text may take twelve.
_MAX_MESSAGE_CHARACTERS = 2_000
_MAX_FIRST_REASON_CHARACTERS = 500
_MAX_WORDS_CHARACTERS = 400
_MAX_KEY_CHARACTERS = 1_024
_MAX_REASONS_JSON_CHARACTERS = 22_000

RERUN = "ask your operator for `make rerun`"
"""Runs the job again without paying again for what a provider accepted and still has."""

_AGAIN = "drop one of the job's own files again"
PAY_AGAIN = "If you drop the files again, you pay again."
_CHANGE = "Change the files or options as the provider asks in the message, and drop them again."
_LOOK = (
    "The render may be paid, so look at the provider's dashboard before you drop the files again. "
    f"If the render is there, download the video there. If it is not, {_AGAIN}."
)


class Reason(BaseModel, frozen=True):
    """One rule that one file breaks."""

    file: str = Field(description="The key of the upload, as it was dropped.")
    offer: str | None = Field(
        default=None,
        description="The offer whose rule it is (provider and model); null when it is the same for "
        "all offers.",
    )
    rule: str = Field(description="What the model asks for.")
    found: str = Field(description="What the file is instead.")
    cure: str = Field(description="What to do about it.")


class ErrorReport(BaseModel, frozen=True):
    """The error in the error file and in the `Video Failed` event."""

    code: str = Field(description="A stable name, for programs: the error's class.")
    message: str = Field(description="What happened, in one or two sentences.")
    advice: str = Field(description="What to do now.")
    retryable: bool = Field(
        description="Whether a program may drop one of the job's own files again, unchanged: the "
        "job can succeed, and no render of it is known to be open at a provider."
    )
    reasons: tuple[Reason, ...] = Field(
        default=(),
        description="Only for `InputRejected`: every rule that the files break. If they do not all "
        "fit, the message says how many are left out.",
    )


class DropreelError(Exception):
    """Base of all errors that end a job."""

    retryable: ClassVar[bool] = False
    advice: str = ""
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


class FinalAnswer(Exception):
    """Ends a step for a reason that we know. It is the one error that the state machine does not
    retry. Its text is the JSON of the reason's report."""

    def __init__(self, reason: DropreelError) -> None:
        super().__init__(str(reason))


# The files


class InputRejected(DropreelError):
    """The files break rules of the model; `reasons` lists them, as many as fit."""

    def __init__(self, reasons: tuple[Reason, ...]) -> None:
        self.reasons = tuple(_that_fit(reasons))
        files = len({reason.file for reason in reasons})
        message = f"{files} {'file' if files == 1 else 'files'} cannot be used. "
        for first in self.reasons[:1]:
            needed = f"needed by {first.offer}" if first.offer else "needed"
            words = f"{first.file}: {first.found}; {needed}: {first.rule}."
            message += _cut(words, _MAX_FIRST_REASON_CHARACTERS)
        if more := len(reasons) - 1:
            message += f" And {more} more {'reason' if more == 1 else 'reasons'}."
        if left_out := len(reasons) - len(self.reasons):
            message += f" {left_out} of them are not listed here."
        super().__init__(message)
        self.advice = _correction(self.reasons)


def _correction(reasons: tuple[Reason, ...]) -> str:
    """What to do about the reasons: only the sentences that they call for."""
    sentences = ["Correct the files as the reasons say, and drop them again."]
    if len(reasons) == 1:
        sentences = ["Correct the file as the reason says, and drop it again."]
    if any(reason.offer for reason in reasons):
        sentences.append(
            "A reason that names an offer is a rule of that offer only: keep the rules of one "
            "offer."
        )
    if not all(reason.file.casefold().endswith(".json") for reason in reasons):
        sentences.append("If a corrected file has another ending, delete the old one.")
    sentences.append(
        "If you corrected only files with another name (such as a face or _defaults.json), drop "
        "one of the job's own files again, too."
    )
    return " ".join(sentences)


def _that_fit(reasons: Iterable[Reason]) -> Iterator[Reason]:
    """The first always fits."""
    left = _MAX_REASONS_JSON_CHARACTERS
    for reason in reasons:
        words = {"rule": reason.rule, "found": reason.found, "cure": reason.cure}
        short = reason.model_copy(
            update={name: _cut(text, _MAX_WORDS_CHARACTERS) for name, text in words.items()}
            | {"file": _cut(reason.file, _MAX_KEY_CHARACTERS)}
        )
        left -= len(json.dumps(short.model_dump_json()))
        if left < 0:
            return
        yield short


def _cut(text: str, max_characters: int) -> str:
    return text if len(text) <= max_characters else f"{text[: max_characters - 1]}…"


class InputGone(DropreelError):
    """An upload was deleted before its job could read it."""

    retryable = True
    advice = "Drop the deleted file again, and leave it there until the video is ready."


class CopyUnreadable(DropreelError):
    """S3 refuses to read the copy that the provider would fetch. Nothing was submitted."""

    retryable = True
    advice = (
        "Ask your operator to end what archives, encrypts or denies the files in the work bucket, "
        f"such as a lifecycle rule. Then {_AGAIN}."
    )


class UploadNotProcessed(DropreelError):
    """Dropreel failed on an upload several times, before it made a job of it."""

    retryable = True
    advice = (
        "Drop the file again. If that does not help, ask your operator to look at the log of "
        "intake and to run `make redrive-uploads`."
    )


# The provider's account


class TokenMissing(DropreelError):
    """No token is stored for the provider."""

    retryable = True
    advice = f"Ask your operator to store the provider's API token. Then {_AGAIN}."


class TokenRejected(DropreelError):
    """The provider does not accept the token, or not for this model."""

    retryable = True
    advice = (
        "Ask your operator to store a valid API token of the provider, of an account that may use "
        f"this model. Then {_AGAIN}."
    )


class NoCredit(DropreelError):
    """The provider's account has no credit left for this render."""

    retryable = True
    advice = f"Ask your operator to top up the provider's account. Then {_AGAIN}."


# Admission


class SpendLimitReached(DropreelError):
    """The day's `DailySpendLimitUsd` has no room for this render. Nothing was submitted."""

    retryable = True
    advice = (
        "Wait until tomorrow (UTC), or ask your operator to raise DailySpendLimitUsd. "
        f"Then {_AGAIN}."
    )


class PriceUnknown(DropreelError):
    """There is a spend limit, and the price of this render is not known."""

    retryable = True
    advice = (
        "Ask your operator to set the price in the parameter CatalogOverrides, or "
        f"DailySpendLimitUsd to 0. Then {_AGAIN}."
    )


class SettingUnreadable(DropreelError):
    """A parameter of the stack has a value that cannot be parsed."""

    retryable = True
    advice = (
        "Ask your operator to deploy again with the parameter in the form that the message names. "
        f"Then {_AGAIN}."
    )


class VersioningSuspended(DropreelError):
    """A bucket keeps no versions: a file could change between its check and its use."""

    retryable = True
    advice = (
        "Ask your operator to enable versioning of the bucket that the message names (S3 console: "
        "the bucket, Properties, Bucket Versioning, Edit, Enable; or `aws s3api "
        "put-bucket-versioning --bucket BUCKET --versioning-configuration Status=Enabled`). "
        f"Then {_AGAIN}."
    )


# The submission


class RequestRefused(DropreelError):
    """The provider refused the request as it was sent. Nothing was accepted, nothing is paid."""

    advice = _CHANGE


class ProviderThrottled(DropreelError):
    """The provider answered 'too many requests' for longer than our patience."""

    retryable = True
    advice = f"Wait a while, then {_AGAIN}. Drop fewer jobs at once."


class ProviderUnavailable(DropreelError):
    """The provider or its token could not be reached, and nothing was submitted."""

    retryable = True
    advice = f"Wait a while, then {_AGAIN}."


class SubmissionUnclear(DropreelError):
    """The request was sent but no usable answer came: it may have been accepted and be paid for."""

    advice = _LOOK


# The render


class RenderFailed(DropreelError):
    """The provider accepted the request and failed to render it."""

    retryable = True
    advice = f"D{_AGAIN[1:]}. If it fails again, use another picture or recording."


class RenderModerated(DropreelError):
    """The provider's moderation stopped the render."""

    advice = "Use another picture, recording or prompt. The provider would stop these again."


class RenderRejected(DropreelError):
    """The provider accepted the request, and then could not use its files or options."""

    advice = _CHANGE


class RenderCancelled(DropreelError):
    """The render was cancelled at the provider."""

    advice = f"If you still want the video, {_AGAIN}."


class RenderTimedOut(DropreelError):
    """The render was not ready within `RenderTimeoutMinutes`."""

    advice = (
        f"The render may still finish, so {RERUN}: it waits for the render, and you do not pay "
        f"again. {PAY_AGAIN}"
    )


class RequestForgotten(DropreelError):
    """The provider does not know the request that it accepted."""

    advice = _LOOK


# The result


class ResultMissing(DropreelError):
    """The render completed without a video in its output."""

    advice = (
        f"Look at the provider's dashboard, or {RERUN}: it looks for the video once more, and you "
        f"do not pay again. {PAY_AGAIN}"
    )


class ResultUnavailable(DropreelError):
    """The finished video could not be fetched from the provider."""

    advice = (
        f"The video is paid, so {RERUN}: it fetches the video, and you do not pay again. Or "
        f"download it from the provider's dashboard while it is there. {PAY_AGAIN}"
    )


class ResultRefused(DropreelError):
    """The provider's result is not a video, is too large, or is at a forbidden address."""

    advice = (
        f"Look at the video in the provider's dashboard, or {RERUN}: it fetches the video once "
        f"more, and you do not pay again. {PAY_AGAIN}"
    )


# The run


class ExecutionAborted(DropreelError):
    """Someone stopped the execution."""

    advice = (
        f"If you still want the video, {RERUN}. You do not pay again for what a provider still has."
    )


class ExecutionTimedOut(DropreelError):
    """The execution ran longer than its limit."""

    advice = f"To get the video, {RERUN}. You do not pay again for what a provider still has."


class UnexpectedError(DropreelError):
    """A fault of Dropreel or of AWS that has no error of its own."""

    retryable = True
    advice = (
        "Ask your operator to look at the execution in the Step Functions console. It shows the "
        "step that failed, and the log of that step says more."
    )


_RENDER_IS_LOST: tuple[type[DropreelError], ...] = (
    RenderFailed,
    RenderModerated,
    RenderRejected,
    RenderCancelled,
    NoCredit,
)
FINAL_FOR_POLL = (*_RENDER_IS_LOST, RenderTimedOut, RequestForgotten)
"""The render is paid: only these end it. Poll's other errors are retried."""

FINAL_FOR_DELIVER = (*_RENDER_IS_LOST, ResultRefused, ExecutionAborted)
"""The video is paid: all other errors are retried, as the provider may answer better later."""
