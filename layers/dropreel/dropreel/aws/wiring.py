"""Builds admission from a function's settings."""

from datetime import UTC, datetime, timedelta
from functools import partial

from dropreel.aws.closures import DynamoDBClosures
from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.slots import DynamoDBSlots
from dropreel.aws.task_tokens import WaitingExecutions
from dropreel.model.catalog import Catalog, ProviderName, in_service
from dropreel.model.overrides import catalog_with
from dropreel.model.timing import THROTTLE_PATIENCE_SECONDS
from dropreel.render.admission import Admission
from dropreel.render.spending import Limits
from dropreel.runtime.settings import AdmissionSettings, ProviderAccount

_OUTAGE = timedelta(days=21)
"""Extra time for the retries of throttled calls, ten days each for submit and poll. The full sweep
frees a slot sooner when its execution is gone."""


def admission_of(settings: AdmissionSettings) -> Admission:
    return Admission(
        slots=DynamoDBSlots(settings.ledger_table),
        executions=WaitingExecutions(settings.state_machine_arn),
        find_attempt=DynamoDBLedger(settings.ledger_table).find,
        clock=partial(datetime.now, UTC),
        limits=limits_of(settings),
        closures=DynamoDBClosures(settings.ledger_table).all,
    )


def limits_of(settings: AdmissionSettings) -> Limits:
    accounts = settings.providers
    catalog = catalog_with(settings.catalog_overrides)
    return Limits(
        in_flight={name: account.max_in_flight for name, account in accounts.items()},
        lease={
            name: _lease_time(settings, account, _render_timeout_seconds(settings, name, catalog))
            for name, account in accounts.items()
        },
        daily_renders=settings.daily_render_limit or None,
        daily_usd=settings.daily_spend_limit_usd or None,
        on_daily_usd=settings.on_spend_limit,
        catalog=catalog,
    )


def _render_timeout_seconds(
    settings: AdmissionSettings, provider: ProviderName, catalog: Catalog
) -> float:
    """Of the longest voice that an offer of the provider takes."""
    set_seconds = settings.render_timeout_minutes * 60
    offers = (offer for model in in_service(catalog).values() for offer in model.route)
    return max(
        (
            offer.render_timeout_seconds(set_seconds, offer.audio.longest_seconds)
            for offer in offers
            if offer.provider == provider and offer.audio
        ),
        default=set_seconds,
    )


def _lease_time(
    settings: AdmissionSettings, account: ProviderAccount, render_timeout_seconds: float
) -> timedelta:
    """The longest time from the grant of a slot to the end of the render: our own rate limit, the
    provider's throttling, its queue, the render."""
    per_minute = account.max_submits_per_minute
    own_limit = timedelta(minutes=account.max_in_flight / per_minute if per_minute else 0)
    throttling = timedelta(seconds=THROTTLE_PATIENCE_SECONDS)
    queue = timedelta(minutes=settings.queue_timeout_minutes)
    render = timedelta(seconds=render_timeout_seconds)
    return own_limit + throttling + queue + render + _OUTAGE
