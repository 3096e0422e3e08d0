"""Admit gives a job a slot, or stores its task token until one is free."""

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.wiring import admission_of
from dropreel.model.messages import AdmitRequest
from dropreel.runtime.settings import AdmissionSettings
from dropreel.runtime.step import step

settings = AdmissionSettings.from_environment()
admission = admission_of(settings)


@step(AdmitRequest.model_validate)
def handler(request: AdmitRequest, context: LambdaContext) -> None:
    admission.admit(request)
