"""Conform makes the media into what the offers take, when validate says that they must change."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.s3 import S3Storage
from dropreel.media.audio import fit_recording
from dropreel.media.image import fit_picture
from dropreel.model.messages import Plan
from dropreel.render.conform import conform
from dropreel.runtime.log import logger
from dropreel.runtime.tracing import tracer

uploads = S3Storage()


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    plan = conform(
        Plan.model_validate(event),
        uploads=uploads,
        fit_picture=fit_picture,
        fit_recording=fit_recording,
        seconds_left=lambda: context.get_remaining_time_in_millis() / 1000,
    )
    return plan.model_dump(mode="json")
