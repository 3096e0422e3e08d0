"""Wires admission for a function: with the ledger's table and Step Functions behind it."""

from datetime import UTC, datetime, timedelta
from functools import partial

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.slots import DynamoDBSlots
from dropreel.aws.task_tokens import WaitingExecutions
from dropreel.model.timing import THROTTLE_PATIENCE_SECONDS
from dropreel.render.admission import Admission
from dropreel.render.spending import Limits
from dropreel.runtime.settings import AdmissionSettings, ProviderAccount

_TROUBLE = timedelta(days=5)
"""For retries while an AWS service or a provider does not answer. The daily sweep frees a slot
sooner when its execution is gone."""


def admission_of(settings: AdmissionSettings) -> Admission:
    return Admission(
        slots=DynamoDBSlots(settings.ledger_table),
        executions=WaitingExecutions(settings.state_machine_arn),
        attempts=DynamoDBLedger(settings.ledger_table),
        clock=partial(datetime.now, UTC),
        limits=limits_of(settings),
    )


def limits_of(settings: AdmissionSettings) -> Limits:
    accounts = settings.providers
    return Limits(
        in_flight={name: account.max_in_flight for name, account in accounts.items()},
        lease={name: _longest_way(settings, account) for name, account in accounts.items()},
        daily_renders=settings.daily_render_limit or None,
        daily_usd=settings.daily_spend_limit_usd or None,
        on_daily_usd=settings.on_spend_limit,
        prices=settings.usd_per_second,
    )


def _longest_way(settings: AdmissionSettings, account: ProviderAccount) -> timedelta:
    """From the slot to the end of the render: the wait for its turn within the minute, the
    provider's refusals, its queue, the render. A lease lasts longer."""
    per_minute = account.max_submits_per_minute
    turn = timedelta(minutes=account.max_in_flight / per_minute if per_minute else 0)
    patience = timedelta(seconds=THROTTLE_PATIENCE_SECONDS)
    render = timedelta(minutes=settings.queue_timeout_minutes + settings.render_timeout_minutes)
    return turn + patience + render + _TROUBLE
