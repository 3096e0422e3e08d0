"""Intake finds the job of an upload. It pins a complete job's files and starts one execution; it
checks an incomplete one again later, and in the end reports what is missing."""

from datetime import UTC, datetime, timedelta

from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.bus import Bus
from dropreel.aws.executions import Executions
from dropreel.aws.queue import IntakeQueue
from dropreel.aws.s3 import S3Storage
from dropreel.aws.uploads import UsedUploads
from dropreel.inbox.intake import Intake
from dropreel.inbox.messages import Sweep, key_in, message_in
from dropreel.inbox.sweep import InboxSweep
from dropreel.runtime.log import logger
from dropreel.runtime.metrics import EmfMeter
from dropreel.runtime.settings import IntakeSettings

NEEDS_MILLISECONDS = 10_000
"""With less time left, a message goes back into the queue: a message that is cut off is hidden for
minutes, and all of its batch with it."""

settings = IntakeSettings.from_environment()
# Powertools takes its own logger here and types it as the standard one.
processor = BatchProcessor(event_type=EventType.SQS, logger=logger)  # type: ignore[arg-type]
storage = S3Storage()
used = UsedUploads(settings.ledger_table)
queue = IntakeQueue(settings.queue_url)
intake = Intake(
    storage=storage,
    executions=Executions(settings.state_machine_arn),
    used=used,
    queue=queue,
    bus=Bus(settings.event_bus),
    meter=EmfMeter(),
    now=lambda: datetime.now(UTC),
    model=settings.model,
    video_bucket=settings.video_bucket,
    settle=timedelta(seconds=settings.settle_seconds),
    incomplete_after=timedelta(minutes=settings.incomplete_after_minutes),
    shared_folders=settings.shared,
)
inbox_sweep = InboxSweep(
    inbox=storage,
    notes=used,
    queue=queue,
    upload_bucket=settings.upload_bucket,
    now=lambda: datetime.now(UTC),
)


def take_in(record: SQSRecord) -> None:
    # Those of the record before: Powertools logs a record's failure after this function.
    logger.remove_keys(["folder", "job_id", "run"])
    logger.append_keys(message_id=record.message_id, key=key_in(record.body))
    message = message_in(record.body)
    if isinstance(message, Sweep):
        inbox_sweep.go_on(message)
    elif processor.lambda_context.get_remaining_time_in_millis() < NEEDS_MILLISECONDS:
        logger.info("Too little time left: will look again")
        queue.send(message, 1)
    else:
        received = int(record.attributes.approximate_receive_count)
        intake.take_in(message, is_last_try=received >= settings.max_receives)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, object], context: LambdaContext) -> PartialItemFailureResponse:
    intake.documents.forget_defaults()
    return process_partial_response(
        event=event, record_handler=take_in, processor=processor, context=context
    )
