"""Deliver streams the video into the videos bucket in bounded memory, checks that it is one,
and writes the manifest."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.delivery import deliver
from dropreel.download import Download
from dropreel.ledger_dynamodb import DynamoDBLedger
from dropreel.observability import logger
from dropreel.providers import provider_of
from dropreel.render import Underway
from dropreel.settings import DeliverSettings
from dropreel.storage import S3Storage
from dropreel.tracing import tracer

settings = DeliverSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
storage = S3Storage()
download = Download()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    ready = deliver(
        Underway.model_validate(event),
        ledger=ledger,
        providers=partial(provider_of, settings=settings),
        storage=storage,
        fetch=partial(download, seconds_left=lambda: context.get_remaining_time_in_millis() / 1000),
        video_bucket=settings.video_bucket,
        now=partial(datetime.now, UTC),
    )
    return ready.model_dump(mode="json")
