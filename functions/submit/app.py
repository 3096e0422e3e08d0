"""Submit presigns the inputs, calls the provider once, and records the request id at once."""

from datetime import UTC, datetime
from functools import partial

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws import clients
from dropreel.aws.bus import Bus
from dropreel.aws.closures import DynamoDBClosures
from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.s3 import S3Storage
from dropreel.model.messages import Submission, SubmitRequest
from dropreel.providers.registry import provider_of
from dropreel.render.display import Display
from dropreel.render.submission import submit
from dropreel.runtime import done
from dropreel.runtime.settings import SubmitSettings
from dropreel.runtime.step import step

settings = SubmitSettings.from_environment()
ledger = DynamoDBLedger(settings.ledger_table)
closures = DynamoDBClosures(settings.ledger_table)
uploads = S3Storage()
bus = Bus(settings.event_bus, config=clients.DISPLAY)


@step(SubmitRequest.model_validate, done=done.submitted)
def handler(request: SubmitRequest, context: LambdaContext) -> Submission:
    def seconds_left() -> float:
        return context.get_remaining_time_in_millis() / 1000

    display = Display(bus, settings.state_machine_arn, seconds_left)
    return submit(
        request,
        ledger=ledger,
        closures=closures,
        providers=partial(provider_of, settings=settings),
        uploads=uploads,
        clock=partial(datetime.now, UTC),
        seconds_left=seconds_left,
        settings=settings,
        recorded=partial(display.render_submitted, request),
    )
