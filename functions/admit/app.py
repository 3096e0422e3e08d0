"""Admit gives a job a slot, or stores its task token until one is free."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.wiring import admission_of
from dropreel.model.messages import AdmitRequest
from dropreel.runtime.log import logger
from dropreel.runtime.settings import AdmissionSettings
from dropreel.runtime.tracing import tracer

settings = AdmissionSettings.from_environment()
admission = admission_of(settings)


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    admission.admit(AdmitRequest.model_validate(event))
