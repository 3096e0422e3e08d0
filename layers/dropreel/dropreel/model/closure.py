"""A closed provider: it refused our account, so it gets no job until that is accepted again."""

from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, Field

from dropreel.model.catalog import ProviderName


class Closure(BaseModel, frozen=True):
    """Why and since when a provider is closed. An open provider has none."""

    provider: ProviderName
    code: str = Field(description="`TokenRejected` or `NoCredit`.")
    message: str = Field(description="The same in words, without any URL.")
    closed_at: AwareDatetime
    refusals: int = Field(default=1, ge=1, description="Closings in a row, with this one.")
    asked_at: AwareDatetime | None = Field(
        default=None, description="When the provider was last asked about the account."
    )
    trial_at: AwareDatetime | None = Field(
        default=None, description="Since when one job at a time may try the provider."
    )

    @property
    def max_in_flight(self) -> int:
        return 0 if self.trial_at is None else 1


class AccountState(StrEnum):
    """What a provider says about our account."""

    NO_TOKEN = "no token is stored"  # noqa: S105 - no token
    REFUSED = "token refused"
    NO_CREDIT = "no credit"
    ACCEPTED = "token accepted"
    UNKNOWN = "no usable answer"


ASK_PROVIDERS = {"ask": "providers"}
"""What the function watch is called with by a person who wants to know at once."""


class Account(BaseModel, frozen=True):
    """A provider's answer to a free call with the stored token."""

    state: AccountState
    balance_usd: float | None = Field(
        default=None, description="None when the provider does not say."
    )
    message: str = Field(default="", description="In words, without any URL or token.")


class AskedProvider(Account, frozen=True):
    """What a person hears who asks the providers."""

    provider: ProviderName
    milliseconds: int = Field(description="That the answer took.")
    is_closed: bool = Field(description="Whether no job is submitted to it at present.")
    is_on_trial: bool = Field(description="Whether one job at a time is.")
