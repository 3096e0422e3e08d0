"""Poll asks the provider for the state of the render, and returns when to ask next."""

from datetime import UTC, datetime
from functools import partial

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.closures import DynamoDBClosures
from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.wiring import admission_of
from dropreel.model.errors import FINAL_FOR_POLL
from dropreel.model.messages import ActiveRender, Progress
from dropreel.providers.registry import provider_of
from dropreel.render.polling import poll
from dropreel.runtime import done
from dropreel.runtime.settings import LenientSettings
from dropreel.runtime.step import step

settings = LenientSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
closures = DynamoDBClosures(settings.ledger_table)
admission = admission_of(settings)


@step(ActiveRender.model_validate, done=done.polled, final=FINAL_FOR_POLL)
def handler(render: ActiveRender, context: LambdaContext) -> Progress:
    return poll(
        render,
        ledger=ledger,
        closures=closures,
        rendered=admission.rendered,
        providers=partial(provider_of, settings=settings),
        clock=partial(datetime.now, UTC),
    )
