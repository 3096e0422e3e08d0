"""Conclude cancels the request if possible, gives the slot back and writes the error file; of a dry
run it writes the check file."""

from datetime import UTC, datetime
from functools import partial

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.bus import Bus
from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.s3 import S3Storage
from dropreel.aws.wiring import admission_of
from dropreel.model.events import Ended
from dropreel.outcome.conclusion import Conclusion, Ending, ending_in
from dropreel.providers.registry import provider_of
from dropreel.runtime.metrics import EmfMeter
from dropreel.runtime.settings import ConcludeSettings
from dropreel.runtime.step import step

settings = ConcludeSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
admission = admission_of(settings)
videos = S3Storage()
bus = Bus(settings.event_bus)
meter = EmfMeter()


@step(ending_in, final=())
def handler(ending: Ending, context: LambdaContext) -> Ended:
    conclusion = Conclusion(
        ledger=ledger,
        leave_slot=admission.leave,
        limits=admission.present_limits,
        providers=partial(provider_of, settings=settings),
        videos=videos,
        video_bucket=settings.video_bucket,
        bus=bus,
        meter=meter,
        clock=partial(datetime.now, UTC),
    )
    return conclusion.conclude(ending)
