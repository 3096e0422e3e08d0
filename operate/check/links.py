"""The links of the chain: what was found of each, and what to do about a broken one."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, Field

from dropreel.model.catalog import TITLES
from dropreel.model.closure import AccountState, AskedProvider
from dropreel.model.errors import ErrorReport
from dropreel.model.events import JobChecked
from dropreel.model.harmless import harmless
from operate.accounts import sentence


class State(StrEnum):
    WORKS = "works"
    BROKEN = "broken"
    NOT_TRIED = "not tried"  # a link before it is broken


class Link(BaseModel, frozen=True):
    """One link, as `check --json` gives it."""

    name: str
    state: State
    seconds: float | None = Field(default=None, description="How long it took.")
    found: str = Field(default="", description="In a sentence.")
    cure: str | None = Field(default=None, description="Of a broken link: what to do.")


class Found(BaseModel, frozen=True):
    """The answer, as `check --json` gives it."""

    stack: str
    works: bool
    links: tuple[Link, ...]


class Broken(Exception):
    """A link is broken."""

    def __init__(self, found: str, cure: str) -> None:
        super().__init__(found)
        self.found = found
        self.cure = cure


# What AWS refuses

_CURES: Final = (
    (
        "permissions boundary",
        "The permissions boundary does not allow it: add the action to the policy that "
        "PermissionsBoundaryArn names. See docs/deploying.md, Permissions boundary.",
    ),
    (
        "service control policy|resource control policy",
        "A policy of your organization denies it: ask those who manage it to allow the action.",
    ),
    (
        "kms",
        "Let the user or the role that the message names use the KMS key, and see that the key is "
        "enabled. docs/deploying.md, One KMS key for all, has the key's statements.",
    ),
    (
        "PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocation|connect to the endpoint",
        "This is another region's endpoint, or it cannot be reached: set AWS_DEFAULT_REGION to the "
        "stack's region, and unset AWS_ENDPOINT_URL unless you mean it.",
    ),
    (
        "NoSuchBucket",
        "The bucket was deleted: deploy the stack again, or name another one in its parameters.",
    ),
    (
        "ExpiredToken|InvalidClientTokenId|UnrecognizedClient",
        "Your AWS credentials are not valid any more: sign in again.",
    ),
    (
        "AccessDenied|not authorized|Forbidden|denies",
        "Allow the action that the message names, for the role or the user that it names. The own "
        "policy of a bucket or a bus may deny it, too.",
    ),
)


def cure_of(message: str) -> str:
    """What to do about an error in AWS's words."""
    for pattern, cure in _CURES:
        if re.search(pattern, message, re.IGNORECASE):
            return cure
    return "Look at the message, and at the AWS Health Dashboard. Then run the check again."


# From the bucket to intake


@dataclass(frozen=True)
class Inflow:
    """What is set between the upload bucket and intake. None: it may not be read."""

    is_versioned: bool | None = True
    sends_events: bool | None = True
    rule: str | None = "ENABLED"
    intake: str | None = "Enabled"
    dead_letters: int | None = 0
    undelivered: int | None = 0

    @property
    def is_unread(self) -> bool:
        return None in (self.is_versioned, self.sends_events, self.rule, self.intake)

    def faults(self, bucket: str) -> Iterator[Broken]:
        """Those that nothing gets through."""
        if self.is_versioned is False:
            yield Broken(
                f"The bucket {bucket} keeps no versions.",
                f"Switch it on: aws s3api put-bucket-versioning --bucket {bucket} "
                "--versioning-configuration Status=Enabled",
            )
        if self.sends_events is False:
            yield Broken(
                f"The bucket {bucket} sends no events to EventBridge.",
                "Switch it on in the bucket's properties, Event notifications, Amazon EventBridge. "
                "S3 begins about five minutes later.",
            )
        if self.rule not in (None, "ENABLED"):
            yield Broken(
                f"The rule UploadRule is {self.rule}: no upload reaches the queue.",
                "Switch it on again, in the AWS console or by make teardown UNDO=1.",
            )
        if self.intake not in (None, "Enabled", "Enabling", "Updating", "Creating"):
            yield Broken(
                f"Lambda's event source of the function intake is {self.intake}: nobody reads the "
                "queue.",
                "Switch it on again, in the AWS console or by make teardown UNDO=1.",
            )


def not_started(inflow: Inflow, waited_seconds: float) -> Broken:
    """Nothing came through, although all is switched on."""
    waited = f"No job started within {waited_seconds:.0f} seconds."
    if inflow.dead_letters:
        return Broken(
            f"{waited} Intake failed: IntakeDeadLetters has {inflow.dead_letters} messages.",
            "The log of the function intake says why. docs/operating.md, IntakeDeadLettersAlarm.",
        )
    if inflow.undelivered:
        return Broken(
            f"{waited} UndeliveredEvents has {inflow.undelivered} messages: EventBridge could not "
            "deliver.",
            "Most often, a KMS key does not let EventBridge use the queue: docs/deploying.md, One "
            "KMS key for all.",
        )
    return Broken(
        f"{waited} S3 sent no event, or intake cannot run.",
        "After a first deploy, run the check again in five minutes. If it stays so, the log of the "
        "function intake says more.",
    )


# The providers


def account_links(asked: Sequence[AskedProvider]) -> list[Link]:
    """What each provider says to a free call with the stored token. One without a token breaks
    nothing while another one has its own."""
    needs_token = all(one.state is AccountState.NO_TOKEN for one in asked)
    return [_account_link(one, needs_token=needs_token) for one in asked]


def _account_link(asked: AskedProvider, *, needs_token: bool) -> Link:
    title = TITLES.get(asked.provider, asked.provider)
    cures = {
        AccountState.NO_TOKEN: f"Store it: make token PROVIDER={title}",
        AccountState.REFUSED: f"Store a valid one: make token PROVIDER={title}",
        AccountState.NO_CREDIT: f"Add credit at {title}. Its jobs go on within minutes.",
        AccountState.UNKNOWN: f"Look at the status page of {title}, and check again later.",
    }
    cure = cures.get(asked.state)
    if asked.state is AccountState.NO_TOKEN and not needs_token:
        return Link(name=title, state=State.NOT_TRIED, found=harmless(sentence(asked)))
    return Link(
        name=title,
        state=State.BROKEN if cure else State.WORKS,
        seconds=round(asked.milliseconds / 1000, 1),
        found=harmless(sentence(asked)),
        cure=cure,
    )


# The dry run


def verdict(checked: JobChecked) -> str:
    """What a dry run says of the samples. Raises `Broken`."""
    if checked.error:
        raise Broken(_sentences(checked.error), checked.error.advice)
    first = checked.offers[0]
    return (
        f"The samples are accepted: {TITLES.get(first.provider, first.provider)} would make "
        f"{price_in_words(checked)}."
    )


def _sentences(error: ErrorReport) -> str:
    reasons = (f"{reason.file}: {reason.found} ({reason.rule})." for reason in error.reasons)
    return " ".join([f"{error.code}: {error.message}", *reasons])


def price_in_words(checked: JobChecked) -> str:
    """Of one render."""
    seconds = f" of {checked.voice_seconds:.0f} seconds" if checked.voice_seconds else ""
    video = f"a video{seconds}"
    if checked.estimated_usd is not None:
        return f"{video} for about ${checked.estimated_usd:.2f}"
    known = {
        TITLES.get(offer.provider, offer.provider): offer.estimated_usd
        for offer in checked.offers
        if offer.estimated_usd is not None
    }
    others = " and ".join(f"{title} takes about ${usd:.2f}" for title, usd in known.items())
    return f"{video} at a price that it does not publish" + (f"; {others}" if others else "")
