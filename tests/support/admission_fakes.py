"""Stand-ins at admission's seams: the executions that wait, and plans to be admitted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import boto3
import pytest
from moto import mock_aws

from dropreel.aws.closures import DynamoDBClosures
from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.catalog import MODELS, TITLES, Catalog, ProviderName
from dropreel.model.errors import DropreelError
from dropreel.model.job import Job
from dropreel.model.ledger import Attempt, Ledger
from dropreel.model.messages import AdmitRequest, NextAttempt, Plan, PlannedOffer
from dropreel.model.overrides import Override, catalog_with
from dropreel.render.admission import Admission, Lease, Slots, Waiter
from dropreel.render.closing import Closures
from dropreel.render.spending import Limits
from tests.support.render_account import LEDGER, REGION, create_ledger_table
from tests.support.render_fakes import JOB, NOON, PLAN, RUNCOMFY, TICKET, WAVESPEED, FakeClock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LEASE = timedelta(hours=4)
LATER = NOON + timedelta(seconds=30, microseconds=250)
RUNCOMFY_PRICED = catalog_with({RUNCOMFY.endpoint: Override(usd_per_second={"480p": 0.1 / 3.5})})
"""RunComfy's render of the fakes' recording costs 0.1 USD; WaveSpeed's 0.12 by the catalog."""


class FakeExecutions:
    """Executions that wait with a token each. As on AWS, a token is good for one answer."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}  # the newest token of each
        self.running: set[str] = set()
        self.gone_on: list[str] = []
        self.refused: dict[str, str] = {}
        self.messages: list[str] = []

    def wait(self, name: str, task_token: str) -> None:
        self._waiting[name] = task_token
        self.running.add(name)

    def end(self, name: str) -> None:
        self._waiting.pop(name, None)
        self.running.discard(name)

    def waits(self, name: str) -> bool:
        return name in self._waiting

    def _end_waits(self, task_token: str) -> list[str]:
        """Returns the executions that waited with this token."""
        names = [name for name, token in self._waiting.items() if token == task_token]
        for name in names:
            del self._waiting[name]
        return names

    def go_on(self, task_token: str) -> bool:
        names = self._end_waits(task_token)
        self.gone_on += names
        return bool(names)

    def refuse(self, task_token: str, error: DropreelError) -> bool:
        names = self._end_waits(task_token)
        self.refused |= dict.fromkeys(names, error.report.code)
        self.messages += [error.message] * len(names)
        return bool(names)

    def is_running(self, name: str) -> bool:
        return name in self.running


def job_named(stem: str, run: int = 1) -> Job:
    return JOB.model_copy(update={"id": f"{stem}-0123456789abcdef", "stem": stem, "run": run})


ANNA, BEN, CLEO, DORA, EVE = (job_named(stem) for stem in ("anna", "ben", "cleo", "dora", "eve"))


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
        next=NextAttempt(attempt=attempt, offer=offer),
        task_token=f"token of {job.execution_name} for attempt {attempt}, retry {retry}",
        retry=retry,
        started_at=NOON + timedelta(minutes=minute),
    )


def admission_with(
    slots: Slots,
    executions: FakeExecutions,
    ledger: Ledger,
    clock: Callable[[], datetime],
    closures: Closures | None = None,
    *,
    in_flight: int | Mapping[ProviderName, int] = 1,
    daily_renders: int | None = None,
    daily_usd: str | None = None,
    on_daily_usd: Literal["wait", "fail"] = "wait",
    catalog: Catalog = MODELS,
) -> Admission:
    return Admission(
        slots=slots,
        executions=executions,
        find_attempt=ledger.find,
        clock=clock,
        limits=Limits(
            in_flight=dict.fromkeys(TITLES, in_flight) if isinstance(in_flight, int) else in_flight,
            lease=dict.fromkeys(TITLES, LEASE),
            daily_renders=daily_renders,
            daily_usd=Decimal(daily_usd) if daily_usd else None,
            on_daily_usd=on_daily_usd,
            catalog=catalog,
        ),
        closures=tuple if closures is None else closures.all,
    )


def write_outcome(ledger: Ledger, attempt: Attempt, outcome: str) -> None:
    match outcome:
        case "accepted":
            ledger.accept(attempt, TICKET.request_id, LATER)
        case "postponed":
            ledger.postpone(attempt, "ProviderThrottled", "Too many.")
        case "refused":
            ledger.refuse(attempt, "NoCredit", "Not enough credit.")
        case "lost":
            of_it = {"provider": attempt.provider, "attempt": attempt.number}
            ticket = TICKET.model_copy(update=of_it)
            ledger.lose(attempt.job_id, ticket, "RenderFailed", "No face.")
        case _:
            raise NotImplementedError(outcome)


@contextmanager
def ledger_table() -> Iterator["DynamoDBClient"]:
    """An account with the ledger's table in it, and nothing else."""
    with mock_aws():
        client = boto3.client("dynamodb", region_name=REGION)
        create_ledger_table(client)
        yield client


class Account:
    """Admission on a table of its own, with one slot at each provider."""

    def __init__(self, dynamodb: "DynamoDBClient", patch: pytest.MonkeyPatch) -> None:
        self.dynamodb = dynamodb
        self.slots = DynamoDBSlots(LEDGER, dynamodb)
        self.ledger = DynamoDBLedger(LEDGER, dynamodb)
        self.closures = DynamoDBClosures(LEDGER, dynamodb)
        self.executions = FakeExecutions()
        self.clock = FakeClock()
        self._patch = patch
        self.open()

    # What happens

    def open(self, **limits: Any) -> None:  # noqa: ANN401 - of `admission_with`
        self.admission = admission_with(
            self.slots, self.executions, self.ledger, self.clock, self.closures, **limits
        )

    def admit(self, job: Job, **asked: Any) -> AdmitRequest:  # noqa: ANN401 - of `request_of`
        return self._admit(request_of(job, **asked))

    def redrive(self, job: Job, **asked: Any) -> AdmitRequest:  # noqa: ANN401 - of `request_of`
        changes = {"task_token": "new", "redrive": 1}
        return self._admit(request_of(job, **asked).model_copy(update=changes))

    def _admit(self, request: AdmitRequest) -> AdmitRequest:
        self.executions.wait(request.plan.job.execution_name, request.task_token)
        self.admission.admit(request)
        return request

    def line_up(self, *jobs: Job, **asked: Any) -> None:  # noqa: ANN401 - of `request_of`
        """Admit each a minute after the one before."""
        for minute, job in enumerate(jobs):
            self.admit(job, minute=minute, **asked)

    def begin(self, job: Job, offer: PlannedOffer = WAVESPEED) -> Attempt:
        begun = self.ledger.begin(job.id, NextAttempt(), offer, NOON)
        assert begun
        return begun

    def write(self, attempt: Attempt, outcome: str) -> None:
        write_outcome(self.ledger, attempt, outcome)

    @contextmanager
    def killed_before_notifying(self) -> Iterator[None]:
        """A call is killed before it notifies an execution."""

        def killed(_token: str) -> bool:
            raise SystemExit

        with self._patch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(self.executions, "go_on", killed)
            yield

    def meanwhile(self, work: Callable[[], None]) -> None:
        """Work once between a call's read of the queue and its next step."""
        really = self.slots.first_waiters

        def look(provider: ProviderName, at_most: int) -> Sequence[Waiter]:
            waiters = really(provider, at_most)
            self._patch.setattr(self.slots, "first_waiters", really)
            work()
            return waiters

        self._patch.setattr(self.slots, "first_waiters", look)

    def record_calls(self, event: str, note: Callable[..., object]) -> list[Any]:
        """Notes on each call to DynamoDB from now on."""
        notes: list[Any] = []
        self.dynamodb.meta.events.register(event, lambda **call: notes.append(note(**call)))
        return notes

    def cancelled(self, *codes: str) -> Exception:
        """As DynamoDB does: https://docs.aws.amazon.com/amazondynamodb, `TransactWriteItems`."""
        response: Any = {
            "Error": {"Code": "TransactionCanceledException", "Message": ""},
            "CancellationReasons": [{"Code": code} for code in codes],
        }
        error = self.dynamodb.exceptions.TransactionCanceledException
        return error(response, "TransactWriteItems")

    def fail_once(self, event: str, error: BaseException) -> list[str]:
        """At the event's next write. Returns the names of the failed calls."""
        failed: list[str] = []

        def fail(model: Any, **_: object) -> None:  # noqa: ANN401 - of botocore
            if not failed and model.name not in ("GetItem", "Query"):
                failed.append(model.name)
                raise error

        self.dynamodb.meta.events.register(event, fail)
        return failed

    # What is seen

    @property
    def notified(self) -> list[str]:
        """The jobs that were let go on, in that order."""
        return list(map(_stem, self.executions.gone_on))

    @property
    def refused(self) -> dict[str, str]:
        return {_stem(name): code for name, code in self.executions.refused.items()}

    @property
    def holders(self) -> dict[str, list[str]]:
        """The jobs that have a slot, by provider."""
        leases = {provider: self.slots.leases(provider) for provider in TITLES}
        return {
            provider: sorted(_stem(lease.run.job_id) for lease in taken)
            for provider, taken in leases.items()
            if taken
        }

    @property
    def waiting(self) -> list[str]:
        return [_stem(item["job_id"]["S"]) for item in self.items("waiters#")]

    @property
    def lease(self) -> Lease:
        (lease,) = self.slots.leases(RUNCOMFY.provider)
        return lease

    @property
    def first(self) -> Waiter:
        return self.first_of(RUNCOMFY.provider)

    def first_of(self, provider: ProviderName) -> Waiter:
        (waiter,) = self.slots.first_waiters(provider, 1)
        return waiter

    @property
    def renders(self) -> int:
        return self.slots.day(self.clock().date()).renders

    @property
    def spent(self) -> Decimal:
        return self.slots.day(self.clock().date()).spent_usd

    def items(self, pk: str) -> list[dict[str, Any]]:
        items: list[Any] = self.dynamodb.scan(TableName=LEDGER)["Items"]
        found = [item for item in items if item["pk"]["S"].startswith(pk)]
        return sorted(found, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))


def _stem(name: str) -> str:
    return name.partition("-")[0]
