"""Reads what the files really are (not what they are called), resolves options, picks the route;
refuses with every reason at once."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.s3 import S3Storage
from dropreel.model.job import Job
from dropreel.providers.tokens import configured
from dropreel.render import resumption, validation
from dropreel.runtime.log import logger
from dropreel.runtime.settings import ProviderSettings
from dropreel.runtime.tracing import tracer

settings = ProviderSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
uploads = S3Storage()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    job = Job.model_validate(event)
    plan = resumption.plan(job, ledger, lambda: validation.plan(job, uploads, configured(settings)))
    if plan.resume:
        ledger.resume(plan, datetime.now(UTC))
    return plan.model_dump(mode="json")
