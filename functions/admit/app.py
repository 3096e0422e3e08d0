"""Admit gives a job a slot, or stores its task token until one is free."""

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws import clients
from dropreel.aws.bus import Bus
from dropreel.aws.wiring import admission_of
from dropreel.model.messages import AdmitRequest
from dropreel.render.display import Display
from dropreel.runtime.settings import AdmitSettings
from dropreel.runtime.step import step

settings = AdmitSettings.from_environment()
admission = admission_of(settings)
bus = Bus(settings.event_bus, config=clients.DISPLAY)


@step(AdmitRequest.model_validate)
def handler(request: AdmitRequest, context: LambdaContext) -> None:
    first = admission.admit(request)
    if first is not None:
        display = Display(
            bus, settings.state_machine_arn, lambda: context.get_remaining_time_in_millis() / 1000
        )
        display.job_started(request, first, admission)
