"""Closed providers: what closes one, and what opens it again.

A provider is closed when it refuses the account (its token, or for want of credit), not when it
refuses one model. Its queue is then not served. Every few minutes it is asked by a free call. When
that accepts the account, the provider is on trial: one job at a time may try it. If none is refused
for some minutes, it is open. A trial that fails closes it for longer: so an account that is refused
in spite of a good answer costs few tries.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from dropreel.model import errors
from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.closure import Account, AccountState, AskedProvider, Closure
from dropreel.model.provider import Provider
from dropreel.runtime.log import logger

_FIRST_WAIT = timedelta(minutes=5)
_MAX_WAIT = timedelta(hours=1)

_TRIAL = timedelta(minutes=4)
"""Less than the five minutes between two questions: each second one ends a trial."""

_FRESH = timedelta(minutes=10)
"""A call to a provider takes less, with the function around it."""

_CODES = {
    AccountState.REFUSED: errors.TokenRejected.__name__,
    AccountState.NO_CREDIT: errors.NoCredit.__name__,
}


class Closures(Protocol):
    """The closed providers in the ledger. Reads are strongly consistent."""

    def all(self) -> Sequence[Closure]: ...

    def put(self, closure: Closure, seen: Closure | None) -> bool:
        """Write it in the place of `seen` (None: the provider is open). False when that has
        changed."""

    def open(self, seen: Closure) -> bool:
        """Delete it. False when it has changed."""


def close(
    closures: Closures,
    provider: ProviderName,
    code: str,
    message: str,
    *,
    asked_at: datetime,
    now: datetime,
) -> None:
    """Close a provider that refused a call of `asked_at`. May be repeated: the first reason stays.

    A call from before a trial says nothing about it, and neither does one of long ago, whose step
    is repeated only now.
    """
    seen = closure_of(closures, provider)
    is_closed = seen is not None and seen.trial_at is None
    valid_since = seen.trial_at if seen and seen.trial_at else now - _FRESH
    if is_closed or asked_at < valid_since:
        return
    closed = Closure(
        provider=provider,
        code=code,
        message=message,
        closed_at=now,
        refusals=seen.refusals + 1 if seen else 1,
    )
    if closures.put(closed, seen):
        logger.warning("Closed %s: %s", TITLES.get(provider, provider), message, error_code=code)


def closure_of(closures: Closures, provider: ProviderName) -> Closure | None:
    return next((it for it in closures.all() if it.provider == provider), None)


def after_question(
    closure: Closure, account: Account, now: datetime, *, at_once: bool = False
) -> Closure | None:
    """What becomes of a closure after the provider was asked. None: the provider is open.

    `at_once` leaves out the wait that grows with each trial that failed. It also is the way out
    when the provider answers the free call otherwise than expected, which may be for ever: after an
    hour, no usable answer is good enough for a trial, where a refusal costs nothing.
    """
    asked = closure.model_copy(update={"asked_at": now})
    is_stuck = account.state is AccountState.UNKNOWN and now - closure.closed_at >= _MAX_WAIT
    if account.state is not AccountState.ACCEPTED and not (at_once and is_stuck):
        code = _CODES.get(account.state)
        if code is None:  # no token, or no answer: it stays as it is
            return asked
        return asked.model_copy(update={"code": code, "message": account.message, "trial_at": None})
    if closure.trial_at is not None:
        return None if now - closure.trial_at >= _TRIAL else asked
    if at_once or now - closure.closed_at >= _wait(closure.refusals):
        return asked.model_copy(update={"trial_at": now})
    return asked


@dataclass(frozen=True)
class AccountCheck:
    """Asks the providers about our account, and opens those that accept it."""

    closures: Closures
    names: Collection[ProviderName]
    providers: Callable[[ProviderName], Provider]
    clock: Callable[[], datetime]
    timer: Callable[[], float] = time.perf_counter

    def ask_closed(self) -> None:
        """Every few minutes: only those that are closed."""
        for closure in self.closures.all():
            if closure.provider in self.names:
                self._settle(closure, self.providers(closure.provider).ask_account())

    def ask_all(self) -> list[AskedProvider]:
        """For a person who has just done something about it."""
        return [self._ask(name) for name in self.names]

    def _ask(self, name: ProviderName) -> AskedProvider:
        begun = self.timer()
        account = self.providers(name).ask_account()
        milliseconds = round(1000 * (self.timer() - begun))
        closure = closure_of(self.closures, name)
        if closure:
            closure = self._settle(closure, account, at_once=True)
        return AskedProvider(
            **account.model_dump(),
            provider=name,
            milliseconds=milliseconds,
            is_closed=closure is not None and closure.max_in_flight == 0,
            is_on_trial=closure is not None and closure.max_in_flight > 0,
        )

    def _settle(
        self, closure: Closure, account: Account, *, at_once: bool = False
    ) -> Closure | None:
        """Returns what the closure is now. Another call that changed it meanwhile is right."""
        after = after_question(closure, account, self.clock(), at_once=at_once)
        done = self.closures.put(after, closure) if after else self.closures.open(closure)
        if not done:
            return closure_of(self.closures, closure.provider)
        state = "open" if after is None else "closed" if after.max_in_flight == 0 else "on trial"
        logger.info(
            "%s is %s: %s",
            TITLES.get(closure.provider, closure.provider),
            state,
            account.message or account.state,
            provider=closure.provider,
        )
        return after


def _wait(refusals: int) -> timedelta:
    doublings: int = 2 ** min(refusals - 1, 10)
    return min(_FIRST_WAIT * doublings, _MAX_WAIT)
