"""Deliver streams the video into the videos bucket, checks it, and writes the manifest."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.s3 import S3Storage
from dropreel.model.messages import ActiveRender
from dropreel.outcome.delivery import deliver
from dropreel.providers.download import Download
from dropreel.providers.registry import provider_of
from dropreel.runtime.log import logger
from dropreel.runtime.settings import DeliverSettings
from dropreel.runtime.tracing import tracer

settings = DeliverSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
storage = S3Storage()
download = Download()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    ready = deliver(
        ActiveRender.model_validate(event),
        ledger=ledger,
        providers=partial(provider_of, settings=settings),
        storage=storage,
        fetch=partial(download, seconds_left=lambda: context.get_remaining_time_in_millis() / 1000),
        video_bucket=settings.video_bucket,
        version=settings.dropreel_version,
        now=partial(datetime.now, UTC),
    )
    return ready.model_dump(mode="json")
