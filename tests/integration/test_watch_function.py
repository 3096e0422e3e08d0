"""The watch on the ledger as moto plays it: what it measures, and the lines that it writes."""

import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest

from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.metrics import Metric
from dropreel.render import standstill
from dropreel.render.standstill import Watch
from tests.support.admission_fakes import ANNA, BEN, CLEO, Account, job_named, ledger_table
from tests.support.emf import FakeMeter, Recorded, values_in
from tests.support.fault_account import CONTEXT, load_step
from tests.support.render_account import LEDGER, render_account
from tests.support.render_fakes import WAVESPEED
from tests.support.sam_template import of_type

SECRET = {"url": "https://x.example", "secret": "arn:x"}
WATCH_INPUT = of_type("AWS::Events::Rule")["WatchRule"]["Targets"][0]["Input"]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with ledger_table() as dynamodb:
        yield Account(dynamodb, monkeypatch)


def measured(at: Account, daily_usd: Decimal | None = None) -> dict[str | None, Recorded]:
    """By provider."""
    meter, slots = FakeMeter(), DynamoDBSlots(LEDGER, at.dynamodb)
    Watch(slots, meter, at.clock, {"runcomfy": 10, "wavespeed": 2}, daily_usd).measure()
    return {provider: values for (provider, _), values in meter.recorded}


def test_measures_each_queue_and_its_slots(at: Account) -> None:
    at.open(in_flight={"runcomfy": 10, "wavespeed": 2})
    at.line_up(ANNA, BEN, CLEO, job_named("dora"), route=(WAVESPEED,))
    at.clock.now += timedelta(minutes=7)  # after Anna's start; Cleo started two minutes later

    recorded = measured(at)

    waiting = recorded["wavespeed"]
    assert waiting[Metric.WAITING_JOBS] == 2
    assert waiting[Metric.OLDEST_WAITER_SECONDS] == 5 * 60
    assert (waiting[Metric.SLOTS_TAKEN], waiting[Metric.SLOTS_ALLOWED]) == (2, 2)
    assert recorded["runcomfy"] == {
        Metric.WAITING_JOBS: 0,
        Metric.OLDEST_WAITER_SECONDS: 0,
        Metric.SLOTS_TAKEN: 0,
        Metric.SLOTS_ALLOWED: 10,
    }
    assert recorded[None] == {
        Metric.OLDEST_WAITER_SECONDS: 5 * 60,
        Metric.SWEEPS_DONE: 0,  # or a day without a sweep had no data
    }


def test_measures_the_spend_as_a_share_of_the_days_limit(at: Account) -> None:
    at.line_up(ANNA, route=(WAVESPEED,))

    recorded = measured(at, daily_usd=Decimal("0.16"))

    assert recorded[None] == {Metric.SPEND_SHARE: 75}


def test_an_expired_lease_is_no_slot_taken(at: Account) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    at.clock.now += timedelta(days=90)

    assert measured(at)["wavespeed"][Metric.SLOTS_TAKEN] == 0


def test_a_count_reads_no_more_pages_than_it_needs(
    at: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_a_page(params: dict[str, object], **_: object) -> None:
        params["Limit"] = 1

    at.open(in_flight={"runcomfy": 0, "wavespeed": 0})
    at.line_up(ANNA, BEN, CLEO, route=(WAVESPEED,))
    at.dynamodb.meta.events.register("provide-client-params.dynamodb.Query", one_a_page)
    slots = DynamoDBSlots(LEDGER, at.dynamodb)
    asked = at.record_calls("before-call.dynamodb.Query", lambda **_: "page")

    assert slots.count_waiters("wavespeed", 100) == 3
    asked.clear()
    assert slots.count_waiters("wavespeed", 2) == 2
    assert len(asked) == 2
    assert standstill.MAX_COUNTED_WAITERS >= 10_000


def test_the_rules_call_writes_lines_that_cloudwatch_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with render_account(monkeypatch):
        monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "my-stack")
        monkeypatch.setenv("STATE_MACHINE_ARN", "arn:x")
        monkeypatch.setenv("DAILY_SPEND_LIMIT_USD", "5")
        accounts = {"runcomfy": {**SECRET, "max_in_flight": 3}}
        monkeypatch.setenv("PROVIDERS", json.dumps(accounts))
        load_step("watch").handler(json.loads(WATCH_INPUT), CONTEXT)

    written = list(values_in(capsys.readouterr().out.splitlines()))

    of_runcomfy = {("service", "my-stack"), ("provider", "runcomfy")}
    assert {value.namespace for value in written} == {"Dropreel"}
    assert {(value.metric, value.dimensions): (value.unit, value.value) for value in written} == {
        ("WaitingJobs", frozenset(of_runcomfy)): ("Count", 0),
        ("OldestWaiterSeconds", frozenset(of_runcomfy)): ("Seconds", 0),
        ("SlotsTaken", frozenset(of_runcomfy)): ("Count", 0),
        ("SlotsAllowed", frozenset(of_runcomfy)): ("Count", 3),
        ("OldestWaiterSeconds", frozenset({("service", "my-stack")})): ("Seconds", 0),
        ("SweepsDone", frozenset({("service", "my-stack")})): ("Count", 0),
        ("SpendShare", frozenset({("service", "my-stack")})): ("Percent", 0),
    }
