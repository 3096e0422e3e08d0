"""Prepare opens the files, picks the route and converts what an offer needs; it refuses with all
reasons at once. It ends a job whose video is there already, or is being made, and a dry run."""

from datetime import UTC, datetime
from functools import partial

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.s3 import S3Storage
from dropreel.aws.uploads import UsedUploads
from dropreel.media import codecs
from dropreel.model.catalog import in_service
from dropreel.model.job import Job
from dropreel.model.messages import Checked, Plan, Repetition
from dropreel.model.overrides import catalog_with
from dropreel.outcome.repetition import Repetitions
from dropreel.providers.tokens import configured
from dropreel.render import resumption
from dropreel.render.prepare import Codecs, prepare
from dropreel.render.versioning import Versioning
from dropreel.runtime import done
from dropreel.runtime.settings import PrepareSettings
from dropreel.runtime.step import step

settings = PrepareSettings.from_environment()
catalog = in_service(catalog_with(settings.catalog_overrides))
ledger = DynamoDBLedger(settings.ledger_table)
files = S3Storage()
versioning = Versioning(files)
repetitions = Repetitions(
    makers=UsedUploads(settings.ledger_table),
    videos=files,
    video_bucket=settings.video_bucket,
    now=partial(datetime.now, UTC),
)


@step(Job.model_validate, done=partial(done.prepared, catalog=catalog))
def handler(job: Job, context: LambdaContext) -> Plan | Repetition | Checked:
    def fresh() -> Plan:  # not for a render that is paid: that is delivered in any case
        versioning.require(job.bucket, settings.video_bucket)
        return prepare(
            job,
            files,
            configured(settings),
            Codecs(codecs.PICTURE, codecs.sound(catalog)),
            lambda: context.get_remaining_time_in_millis() / 1000,
            work_bucket=settings.work_bucket,
            catalog=catalog,
        )

    if job.dry_run:
        return Checked(checked=fresh())
    return repetitions.plan(job, lambda: resumption.plan(job, ledger, fresh))
