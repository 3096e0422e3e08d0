"""Announce sends the event of a run's outcome, and marks it as sent."""

from datetime import UTC, datetime
from functools import partial

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.bus import Bus
from dropreel.aws.ledger import DynamoDBLedger
from dropreel.model.events import Ended
from dropreel.model.messages import EndedJob
from dropreel.outcome.announcement import announce
from dropreel.runtime.metrics import EmfMeter
from dropreel.runtime.settings import AnnounceSettings
from dropreel.runtime.step import step

settings = AnnounceSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
bus = Bus(settings.event_bus)
meter = EmfMeter()


@step(EndedJob.model_validate, final=())
def handler(ended: EndedJob, context: LambdaContext) -> Ended:
    clock = partial(datetime.now, UTC)
    return announce(
        ended.job,
        ended.started_at,
        ended.execution,
        ledger=ledger,
        bus=bus,
        meter=meter,
        clock=clock,
    )
