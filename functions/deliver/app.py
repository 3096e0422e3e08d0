"""Deliver streams the video into the videos bucket, checks it, and writes the manifest."""

from datetime import UTC, datetime
from functools import partial

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.s3 import S3Storage
from dropreel.aws.uploads import UsedUploads
from dropreel.model.errors import FINAL_FOR_DELIVER
from dropreel.model.events import VideoReady
from dropreel.model.messages import ActiveRender
from dropreel.outcome.delivery import deliver
from dropreel.providers.download import Download
from dropreel.providers.registry import provider_of
from dropreel.runtime import done
from dropreel.runtime.settings import DeliverSettings
from dropreel.runtime.step import step

settings = DeliverSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
drops = UsedUploads(settings.ledger_table)
storage = S3Storage()
download = Download()


@step(ActiveRender.model_validate, done=done.delivered, final=FINAL_FOR_DELIVER)
def handler(render: ActiveRender, context: LambdaContext) -> VideoReady:
    return deliver(
        render,
        ledger=ledger,
        providers=partial(provider_of, settings=settings),
        storage=storage,
        fetch=partial(download, seconds_left=lambda: context.get_remaining_time_in_millis() / 1000),
        video_bucket=settings.video_bucket,
        answered_drop=drops.answered_drop,
        version=settings.dropreel_version,
        delete_record=settings.delete_after_delivery == "true",
        now=partial(datetime.now, UTC),
    )
