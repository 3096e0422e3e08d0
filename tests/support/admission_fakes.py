"""Stand-ins at admission's seams: the executions that wait, and plans to be admitted."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.errors import DropreelError
from dropreel.model.job import Job
from dropreel.model.messages import AdmitRequest, Next, Plan, PlannedOffer
from dropreel.model.prices import CATALOG_ONLY, Prices
from dropreel.render.admission import Admission, Attempts, Slots
from dropreel.render.spending import Limits
from tests.support.render_fakes import JOB, NOON, PLAN, RUNCOMFY, WAVESPEED

LEASE = timedelta(hours=4)
RUNCOMFY_PRICED: Prices = {(RUNCOMFY.endpoint, "480p"): 0.1 / 3.5}
"""RunComfy's render of the fakes' recording costs 0.1 USD; WaveSpeed's 0.105 by the catalog."""


class FakeExecutions:
    """Executions that wait with a token each. As on AWS, a token is good for one answer."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}  # by token
        self.running: set[str] = set()
        self.gone_on: list[str] = []
        self.refused: dict[str, str] = {}
        self.messages: list[str] = []

    def wait(self, name: str, task_token: str) -> None:
        """Wait with a token, and no longer with an older one."""
        self._waiting = {token: who for token, who in self._waiting.items() if who != name}
        self._waiting[task_token] = name
        self.running.add(name)

    def end(self, name: str) -> None:
        self._waiting = {token: who for token, who in self._waiting.items() if who != name}
        self.running.discard(name)

    def waits(self, name: str) -> bool:
        return name in self._waiting.values()

    def go_on(self, task_token: str) -> bool:
        name = self._waiting.pop(task_token, None)
        if name is None:
            return False
        self.gone_on.append(name)
        return True

    def refuse(self, task_token: str, error: DropreelError) -> bool:
        name = self._waiting.pop(task_token, None)
        if name is None:
            return False
        self.refused[name] = error.report.code
        self.messages.append(error.message)
        return True

    def is_running(self, name: str) -> bool:
        return name in self.running


def job_named(stem: str, run: int = 1) -> Job:
    return JOB.model_copy(update={"id": f"{stem}-0123456789abcdef", "stem": stem, "run": run})


def request_of(
    job: Job,
    *,
    attempt: int = 1,
    retry: int = 0,
    minute: float = 0,
    route: tuple[PlannedOffer, ...] = (RUNCOMFY, WAVESPEED),
    offer: int = 0,
    plan: Plan = PLAN,
) -> AdmitRequest:
    return AdmitRequest(
        plan=plan.model_copy(update={"job": job, "route": route}),
        next=Next(attempt=attempt, offer=offer),
        task_token=f"token of {job.execution_name} for attempt {attempt}, retry {retry}",
        retry=retry,
        started_at=NOON + timedelta(minutes=minute),
    )


def desk(
    slots: Slots,
    executions: FakeExecutions,
    attempts: Attempts,
    clock: Callable[[], datetime],
    *,
    in_flight: int | Mapping[ProviderName, int] = 2,
    daily_renders: int | None = None,
    daily_usd: str | None = None,
    on_daily_usd: Literal["wait", "fail"] = "wait",
    prices: Prices = CATALOG_ONLY,
) -> Admission:
    return Admission(
        slots=slots,
        executions=executions,
        attempts=attempts,
        clock=clock,
        limits=Limits(
            in_flight=dict.fromkeys(TITLES, in_flight) if isinstance(in_flight, int) else in_flight,
            lease=dict.fromkeys(TITLES, LEASE),
            daily_renders=daily_renders,
            daily_usd=Decimal(daily_usd) if daily_usd else None,
            on_daily_usd=on_daily_usd,
            prices=prices,
        ),
    )
