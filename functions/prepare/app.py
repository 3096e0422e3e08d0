"""Prepare opens the files, picks the route and converts what an offer needs; it refuses with all
reasons at once."""

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.s3 import S3Storage
from dropreel.media import codecs
from dropreel.model.job import Job
from dropreel.model.messages import Plan
from dropreel.providers.tokens import configured
from dropreel.render import resumption
from dropreel.render.prepare import Codecs, prepare
from dropreel.runtime.settings import ProviderSettings
from dropreel.runtime.step import step

settings = ProviderSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
uploads = S3Storage()


@step(Job.model_validate)
def handler(job: Job, context: LambdaContext) -> Plan:
    return resumption.plan(
        job,
        ledger,
        lambda: prepare(
            job,
            uploads,
            configured(settings),
            Codecs(codecs.PICTURE, codecs.SOUND),
            lambda: context.get_remaining_time_in_millis() / 1000,
        ),
    )
