"""What can go wrong, named for what happened to the person who dropped the files.

Each class says whether trying again can help and what to do. An error is raised low and
translated once, in `conclusion`: between the two it travels through Step Functions as the
JSON of an `ErrorReport`, which is what `str(error)` gives, because the name and the message of
an exception are all that Lambda hands on.
"""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Reason(BaseModel):
    """One rule that one file breaks, in words."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(description="The key of the upload, as it was dropped.")
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
        description="Whether the same files, dropped again unchanged, can succeed."
    )
    reasons: tuple[Reason, ...] = Field(
        default=(), description="Every rule that the files break, for `InputRejected`."
    )


class DropreelError(Exception):
    """Base of all errors that end a job."""

    retryable: ClassVar[bool] = False
    advice: ClassVar[str] = ""
    reasons: tuple[Reason, ...] = ()

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

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
    """The files break rules of the model; `reasons` lists them all."""

    advice = "Mend what the reasons name and drop the files again."

    def __init__(self, reasons: tuple[Reason, ...]) -> None:
        files = len({reason.file for reason in reasons})
        super().__init__(
            f"{files} {'file' if files == 1 else 'files'} cannot be used: "
            + " ".join(f"{r.file}: {r.found}; needed: {r.rule}." for r in reasons)
        )
        self.reasons = reasons


class InputGone(DropreelError):
    """An upload was deleted before its job could read it."""

    retryable = True
    advice = "Drop both files again and leave them in place until the video is there."


# The provider's account


class TokenMissing(DropreelError):
    """No token is stored for the provider."""

    retryable = True
    advice = "Store the provider's token in its secret (see the README), then drop the files again."


class TokenRejected(DropreelError):
    """The provider does not accept the token."""

    retryable = True
    advice = (
        "Store a valid token in the provider's secret (see the README), then drop the files again."
    )


class NoCredit(DropreelError):
    """The provider's account has no credit left for this render."""

    retryable = True
    advice = "Top up the provider's account, then drop the files again."


# The submission


class RequestRefused(DropreelError):
    """The provider refused the request as it was sent. Nothing was accepted, nothing is paid."""

    advice = "Read the provider's words in the message; other files or options may be accepted."


class ProviderThrottled(DropreelError):
    """The provider answered 'too many requests' for longer than we were willing to ask."""

    retryable = True
    advice = "Drop the files again later, or fewer at once."


class ProviderUnavailable(DropreelError):
    """The provider could not be reached, or said that it is unavailable, and accepted nothing."""

    retryable = True
    advice = "Drop the files again later."


class SubmissionUnclear(DropreelError):
    """The request was sent but no usable answer came: it may have been accepted and be paid for."""

    retryable = True
    advice = (
        "Look at the provider's dashboard: if a render of these files is there, fetch it there; "
        "if none is, drop the files again. Dropreel does not send it again by itself, "
        "because that could be paid twice."
    )


# The render


class RenderFailed(DropreelError):
    """The provider accepted the request and failed to render it."""

    retryable = True
    advice = "Drop the files again; if it fails again, try another picture or recording."


class RenderCancelled(DropreelError):
    """The render was cancelled at the provider."""

    retryable = True
    advice = "Drop the files again if the video is still wanted."


class RenderTimedOut(DropreelError):
    """The render was not ready within `RenderTimeoutMinutes`."""

    retryable = True
    advice = (
        "Look at the provider's dashboard: the render may still finish there. "
        "If it does not, drop the files again."
    )


class RequestForgotten(DropreelError):
    """The provider does not know the request that it accepted."""

    retryable = True
    advice = "Look at the provider's dashboard before dropping the files again."


# The result


class ResultMissing(DropreelError):
    """The render completed without a video in its output."""

    retryable = True
    advice = "Look at the provider's dashboard, then drop the files again."


class ResultUnavailable(DropreelError):
    """The finished video could not be fetched from the provider."""

    retryable = True
    advice = (
        "The video is paid for: fetch it from the provider's dashboard while it is there, "
        "or drop the files again to render anew."
    )


class ResultRefused(DropreelError):
    """What the provider offered as the video is not one, is too large, or lies at an address
    that must not be fetched."""

    advice = "Look at the video in the provider's dashboard."


# The run


class ExecutionAborted(DropreelError):
    """Someone stopped the execution."""

    retryable = True
    advice = "Drop the files again if the video is still wanted."


class ExecutionTimedOut(DropreelError):
    """The execution ran longer than it may."""

    retryable = True
    advice = "Look at the provider's dashboard before dropping the files again."


class UnexpectedError(DropreelError):
    """Something that is not foreseen: a fault of Dropreel or of the platform under it."""

    retryable = True
    advice = (
        "Look at the execution in the Step Functions console and at the log of the step it names."
    )
