"""Watch measures every five minutes what tells of a standstill: queues, slots and the day's
spend. It asks closed providers whether they accept the account again."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.closures import DynamoDBClosures
from dropreel.aws.slots import DynamoDBSlots
from dropreel.aws.wiring import limits_of
from dropreel.model.closure import ASK_PROVIDERS
from dropreel.providers.registry import provider_of
from dropreel.render.closing import AccountCheck
from dropreel.render.standstill import Watch
from dropreel.runtime.log import logger
from dropreel.runtime.metrics import EmfMeter
from dropreel.runtime.settings import WatchSettings

settings = WatchSettings.from_environment()
limits = limits_of(settings)
closures = DynamoDBClosures(settings.ledger_table)
check = AccountCheck(
    closures=closures,
    names=tuple(settings.providers),
    providers=partial(provider_of, settings=settings),
    clock=lambda: datetime.now(UTC),
)
watch = Watch(
    queues=DynamoDBSlots(settings.ledger_table),
    meter=EmfMeter(),
    clock=lambda: datetime.now(UTC),
    in_flight=limits.in_flight,
    closures=closures.all,
    daily_usd=limits.daily_usd,
)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> list[dict[str, Any]] | None:
    if event == ASK_PROVIDERS:
        return [asked.model_dump(mode="json") for asked in check.ask_all()]
    if event == {"watch": "queues"}:
        watch.measure()
        check.ask_closed()
    return None
