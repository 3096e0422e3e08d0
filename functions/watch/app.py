"""Watch measures every five minutes what tells of a standstill: queues, slots and the day's
spend."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.slots import DynamoDBSlots
from dropreel.aws.wiring import limits_of
from dropreel.render.standstill import Watch
from dropreel.runtime.log import logger
from dropreel.runtime.metrics import EmfMeter
from dropreel.runtime.settings import WatchSettings

settings = WatchSettings.from_environment()
limits = limits_of(settings)
watch = Watch(
    queues=DynamoDBSlots(settings.ledger_table),
    meter=EmfMeter(),
    clock=partial(datetime.now, UTC),
    in_flight=limits.in_flight,
    daily_usd=limits.daily_usd,
)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    if event == {"watch": "queues"}:
        watch.measure()
