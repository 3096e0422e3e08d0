"""The watch on the ledger as moto plays it: what it measures, and the lines that it writes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from dropreel.aws.slots import DynamoDBSlots
from dropreel.model.closure import Account, AccountState, Closure
from dropreel.model.metrics import Metric
from dropreel.render import standstill
from dropreel.render.closing import AccountCheck
from dropreel.render.standstill import Watch
from local.emf import values_in
from tests.support.admission_fakes import ANNA, BEN, CLEO, job_named, ledger_table
from tests.support.admission_fakes import Account as AdmissionAccount
from tests.support.fault_account import CONTEXT, load_step
from tests.support.meter import FakeMeter, Recorded
from tests.support.render_account import LEDGER, render_account
from tests.support.render_fakes import NOON, RUNCOMFY, WAVESPEED, ScriptedProvider, by_name
from tests.support.sam_template import of_type

SECRET = {"url": "https://x.example", "secret": "arn:x"}
WATCH_INPUT = of_type("AWS::Events::Rule")["WatchRule"]["Targets"][0]["Input"]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[AdmissionAccount]:
    with ledger_table() as dynamodb:
        yield AdmissionAccount(dynamodb, monkeypatch)


def measured(at: AdmissionAccount, daily_usd: Decimal | None = None) -> dict[str | None, Recorded]:
    """By provider."""
    meter, slots = FakeMeter(), DynamoDBSlots(LEDGER, at.dynamodb)
    in_flight = {"runcomfy": 10, "wavespeed": 2}
    Watch(slots, meter, at.clock, in_flight, at.closures.all, daily_usd).measure()
    return {provider: values for (provider, _), values in meter.recorded}


def test_measures_each_queue_and_its_slots(at: AdmissionAccount) -> None:
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
        Metric.PROVIDER_CLOSED: 0,
    }
    assert recorded[None] == {
        Metric.OLDEST_WAITER_SECONDS: 5 * 60,
        Metric.SWEEPS_DONE: 0,  # or a day without a sweep had no data
    }


def test_a_job_that_is_set_aside_counts_while_others_wait_before_it(at: AdmissionAccount) -> None:
    """Its render costs more than a day may: without an operator it waits for ever."""
    at.open(daily_usd="0.1")
    at.line_up(ANNA, route=(WAVESPEED,))
    at.open(in_flight=0)
    at.line_up(BEN, route=(WAVESPEED,))
    at.clock.now += timedelta(hours=27)

    first, aside = DynamoDBSlots(LEDGER, at.dynamodb).first_waiters("wavespeed", 2)

    assert (first.is_aside, aside.is_aside) == (False, True)
    waited = (at.clock() - aside.started_at).total_seconds()
    assert measured(at)["wavespeed"][Metric.OLDEST_WAITER_SECONDS] == waited


def test_measures_the_spend_as_a_share_of_the_days_limit(at: AdmissionAccount) -> None:
    at.line_up(ANNA, route=(WAVESPEED,))

    recorded = measured(at, daily_usd=Decimal("0.16"))

    assert recorded[None] == {Metric.SPEND_SHARE: 75}


def test_an_expired_lease_is_no_slot_taken(at: AdmissionAccount) -> None:
    at.admit(ANNA, route=(WAVESPEED,))
    at.clock.now += timedelta(days=90)

    assert measured(at)["wavespeed"][Metric.SLOTS_TAKEN] == 0


def test_a_count_reads_no_more_pages_than_it_needs(
    at: AdmissionAccount, monkeypatch: pytest.MonkeyPatch
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
        ("ProviderClosed", frozenset(of_runcomfy)): ("Count", 0),
        ("OldestWaiterSeconds", frozenset({("service", "my-stack")})): ("Seconds", 0),
        ("SweepsDone", frozenset({("service", "my-stack")})): ("Count", 0),
        ("SpendShare", frozenset({("service", "my-stack")})): ("Percent", 0),
    }


# The providers that are closed


CLOSED = Closure(provider="runcomfy", code="NoCredit", message="Empty.", closed_at=NOON)
ACCEPTED = Account(state=AccountState.ACCEPTED, balance_usd=12.5)
EMPTY = Account(state=AccountState.NO_CREDIT, balance_usd=0, message="The balance is 0 USD.")


def check_of(
    at: AdmissionAccount, runcomfy: Account, wavespeed: Account = ACCEPTED
) -> AccountCheck:
    providers = ScriptedProvider("runcomfy"), ScriptedProvider("wavespeed")
    providers[0].account, providers[1].account = runcomfy, wavespeed
    ticks = iter(range(100))
    return AccountCheck(
        closures=at.closures,
        names=("runcomfy", "wavespeed"),
        providers=by_name(*providers),
        clock=at.clock,
        timer=lambda: 0.25 * next(ticks),
    )


def test_a_closed_provider_that_accepts_the_account_is_open_after_a_trial(
    at: AdmissionAccount,
) -> None:
    check = check_of(at, ACCEPTED)
    at.closures.put(CLOSED, None)
    at.admit(ANNA, route=(RUNCOMFY,))
    at.admit(BEN, minute=1, route=(RUNCOMFY,))

    for minute, holders in {5: ["anna"], 10: ["anna", "ben"]}.items():
        at.clock.now = NOON + timedelta(minutes=minute)
        at.open(in_flight=2)
        check.ask_closed()
        at.admission.serve_waiting(f"minute {minute}")
        assert at.holders == {"runcomfy": holders}

    assert at.closures.all() == ()


def test_only_closed_providers_are_asked_every_five_minutes(at: AdmissionAccount) -> None:
    check = check_of(at, EMPTY)
    asked: list[str] = []

    def provider_of(name: str) -> ScriptedProvider:
        asked.append(name)
        return ScriptedProvider(name)

    replace(check, providers=provider_of).ask_closed()
    assert asked == []
    at.closures.put(CLOSED.model_copy(update={"provider": "wavespeed"}), None)
    at.closures.put(CLOSED.model_copy(update={"provider": "of an older version"}), None)
    replace(check, providers=provider_of).ask_closed()
    assert asked == ["wavespeed"]


def test_a_closed_provider_is_measured_until_it_is_open(at: AdmissionAccount) -> None:
    at.closures.put(CLOSED, None)
    assert measured(at)["runcomfy"][Metric.PROVIDER_CLOSED] == 1
    assert measured(at)["wavespeed"][Metric.PROVIDER_CLOSED] == 0

    at.closures.put(CLOSED.model_copy(update={"trial_at": NOON}), CLOSED)

    assert measured(at)["runcomfy"][Metric.PROVIDER_CLOSED] == 1


def test_a_person_who_asks_hears_of_each_provider_and_waits_for_no_trial(
    at: AdmissionAccount,
) -> None:
    at.closures.put(CLOSED, None)
    at.closures.put(CLOSED.model_copy(update={"provider": "wavespeed"}), None)

    runcomfy, wavespeed = check_of(at, ACCEPTED, EMPTY).ask_all()

    assert runcomfy.model_dump(mode="json") == {
        "provider": "runcomfy",
        "state": "token accepted",
        "balance_usd": 12.5,
        "message": "",
        "milliseconds": 250,
        "is_closed": False,
        "is_on_trial": True,
    }
    assert (wavespeed.state, wavespeed.is_closed) == (AccountState.NO_CREDIT, True)
    assert wavespeed.message == "The balance is 0 USD."


def test_a_provider_that_is_closed_while_it_is_asked_stays_closed(at: AdmissionAccount) -> None:
    on_trial = CLOSED.model_copy(update={"trial_at": NOON - timedelta(hours=1)})
    again = CLOSED.model_copy(update={"closed_at": NOON + timedelta(seconds=1), "refusals": 2})
    at.closures.put(on_trial, None)

    class ClosedMeanwhile(ScriptedProvider):
        def ask_account(self) -> Account:
            assert at.closures.put(again, on_trial)
            return ACCEPTED

    check = replace(check_of(at, ACCEPTED), providers=by_name(ClosedMeanwhile()))
    check.ask_closed()

    assert at.closures.all() == (again,)
