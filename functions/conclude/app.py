"""Conclude cancels the request if possible, gives the slot back and writes the error file."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.bus import Bus
from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.s3 import S3Storage
from dropreel.aws.wiring import admission_of
from dropreel.outcome.conclusion import Conclusion, ending_in
from dropreel.providers.registry import provider_of
from dropreel.runtime.log import logger
from dropreel.runtime.settings import ConcludeSettings
from dropreel.runtime.tracing import tracer

settings = ConcludeSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
admission = admission_of(settings)
videos = S3Storage()
bus = Bus(settings.event_bus)


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    ending = ending_in(event)
    conclusion = Conclusion(
        ledger=ledger,
        slots=admission,
        providers=partial(provider_of, settings=settings),
        videos=videos,
        video_bucket=settings.video_bucket,
        bus=bus,
        clock=partial(datetime.now, UTC),
    )
    concluded = conclusion.conclude(ending) if ending else None
    return concluded.model_dump(mode="json") if concluded else {}
