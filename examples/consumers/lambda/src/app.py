"""Handles each event of Dropreel once. Put your own code into the three functions at the end."""

import os
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent,
)
from aws_lambda_powertools.utilities.parser import parse
from aws_lambda_powertools.utilities.parser.envelopes import EventBridgeEnvelope
from aws_lambda_powertools.utilities.typing import LambdaContext
from dropreel_events.upload_incomplete import UploadIncomplete
from dropreel_events.video_failed import VideoFailed
from dropreel_events.video_ready import VideoReady

logger = Logger(service="dropreel-consumer")

DETAILS: dict[str, type[VideoReady | VideoFailed | UploadIncomplete]] = {
    "Video Ready": VideoReady,
    "Video Failed": VideoFailed,
    "Upload Incomplete": UploadIncomplete,
}
# The job's id and run name an outcome; the versions of the files, an incomplete upload.
KEY = '["detail-type", detail.job.id, detail.job.run, detail.uploads[].version_id]'
ONCE = IdempotencyConfig(
    event_key_jmespath=KEY,
    # An event can be replayed from an archive long after it was handled.
    expires_after_seconds=90 * 24 * 3600,
)
HANDLED = DynamoDBPersistenceLayer(table_name=os.environ["HANDLED_TABLE"])


@logger.inject_lambda_context
@idempotent(persistence_store=HANDLED, config=ONCE)
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """An exception here makes Lambda try twice more; then the event goes to the dead letters."""
    model = DETAILS.get(event["detail-type"])
    if model is None:
        logger.info("Ignored an event of another type", detail_type=event["detail-type"])
        return
    match parse(event=event, model=model, envelope=EventBridgeEnvelope):
        case VideoReady() as ready:
            on_ready(ready)
        case VideoFailed() as failed:
            on_failed(failed)
        case UploadIncomplete() as incomplete:
            on_incomplete(incomplete)


def on_ready(ready: VideoReady) -> None:
    logger.info("Video ready", job_id=ready.job.id, bucket=ready.video.bucket, key=ready.video.key)


def on_failed(failed: VideoFailed) -> None:
    logger.warning("Video failed", job_id=failed.job.id, code=failed.error.code)


def on_incomplete(incomplete: UploadIncomplete) -> None:
    logger.warning("Upload incomplete", keys=[one.key for one in incomplete.uploads])
