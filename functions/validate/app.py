"""Reads what the files really are (not what they are called), resolves options, picks the route;
refuses with every reason at once."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel import resumption, validation
from dropreel.job import Job
from dropreel.ledger_dynamodb import DynamoDBLedger
from dropreel.observability import logger
from dropreel.settings import ProviderSettings
from dropreel.storage import S3Storage
from dropreel.tokens import configured
from dropreel.tracing import tracer

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
