"""Poll asks the provider for the state of the render, and returns when to ask next."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.wiring import admission_of
from dropreel.model.messages import ActiveRender
from dropreel.providers.registry import provider_of
from dropreel.render.polling import poll
from dropreel.runtime.log import logger
from dropreel.runtime.settings import LenientSettings
from dropreel.runtime.tracing import tracer

settings = LenientSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
admission = admission_of(settings)


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    progress = poll(
        ActiveRender.model_validate(event),
        ledger=ledger,
        slots=admission,
        providers=partial(provider_of, settings=settings),
        clock=partial(datetime.now, UTC),
    )
    return progress.model_dump(mode="json")
