"""A function's admission desk: admission with the ledger's table and Step Functions behind it."""

from datetime import UTC, datetime, timedelta
from functools import partial

from dropreel.admission import Admission, Limits
from dropreel.catalog import ProviderName
from dropreel.ledger_dynamodb import DynamoDBLedger
from dropreel.settings import AdmissionSettings
from dropreel.slots_dynamodb import DynamoDBSlots
from dropreel.waiting_executions import WaitingExecutions

_TROUBLE = timedelta(days=5)
"""For the retries around a submission and of polls that an AWS service or a provider keeps from
being answered. A slot whose execution is gone comes back sooner: the daily sweep looks for it."""


def admission_of(settings: AdmissionSettings) -> Admission:
    return Admission(
        slots=DynamoDBSlots(settings.ledger_table),
        executions=WaitingExecutions(settings.state_machine_arn),
        attempts=DynamoDBLedger(settings.ledger_table),
        clock=partial(datetime.now, UTC),
        limits=limits_of(settings),
    )


def limits_of(settings: AdmissionSettings) -> Limits:
    per_minute = {
        ProviderName.RUNCOMFY: settings.runcomfy_max_submits_per_minute,
        ProviderName.WAVESPEED: settings.wavespeed_max_submits_per_minute,
    }
    in_flight = {
        ProviderName.RUNCOMFY: settings.runcomfy_max_in_flight,
        ProviderName.WAVESPEED: settings.wavespeed_max_in_flight,
    }
    return Limits(
        in_flight=in_flight,
        lease={
            provider: _longest_way(settings, in_flight[provider], per_minute[provider])
            for provider in ProviderName
        },
        daily_renders=settings.daily_render_limit or None,
        daily_usd=settings.daily_spend_limit_usd or None,
        on_daily_usd=settings.on_spend_limit,
        prices=settings.usd_per_second,
    )


def _longest_way(settings: AdmissionSettings, in_flight: int, per_minute: int) -> timedelta:
    """From the slot to the end of the render: the turn within the minute, the provider's refusals,
    its queue, the render itself. A lease outlives it."""
    turn = timedelta(minutes=in_flight / per_minute if per_minute else 0)
    patience = timedelta(seconds=settings.throttle_patience_seconds)
    render = timedelta(minutes=settings.queue_timeout_minutes + settings.render_timeout_minutes)
    return turn + patience + render + _TROUBLE
