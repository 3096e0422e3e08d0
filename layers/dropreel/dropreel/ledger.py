"""The ledger: what was submitted, written down before it is sent and completed after.

An attempt is begun, then accepted or refused. One that stays begun was sent with no known
outcome: nobody may send it again, because that could be paid twice.
"""

from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from dropreel.catalog import ProviderName


class AttemptState(StrEnum):
    BEGUN = "begun"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class Attempt(BaseModel):
    """One paid render that a job asks of a provider, at most once."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    number: int = Field(ge=1)
    provider: ProviderName
    state: AttemptState
    begun_at: datetime
    begun_by: str = Field(description="Names the one call that may accept or refuse it.")
    request_id: str | None = Field(default=None, description="Given once it is accepted.")
    accepted_at: datetime | None = None
    refused_code: str | None = Field(default=None, description="Why, once it is refused.")


class Ledger(Protocol):
    """Reads see every write that came before; writes are conditional and may be repeated."""

    def find(self, job_id: str, number: int) -> Attempt | None:
        """The attempt as it stands."""

    def latest(self, job_id: str) -> Attempt | None:
        """The job's attempt with the highest number."""

    def begin(
        self, job_id: str, number: int, provider: ProviderName, now: datetime
    ) -> Attempt | None:
        """Take the right to send an attempt that nobody has sent, or that was refused.

        None when another call has it: then nothing may be sent.
        """

    def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
        """The provider took it. Only for the call that began the attempt."""

    def refuse(self, attempt: Attempt, code: str) -> None:
        """The provider certainly took nothing. Only for the call that began the attempt."""
