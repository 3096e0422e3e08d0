"""Sweep does every hour what a lost event should have done, and gives each minute's free slots to
the jobs that wait."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.executions import ConcludeFunction, Executions
from dropreel.aws.ledger import DynamoDBLedger
from dropreel.aws.queue import IntakeQueue
from dropreel.aws.wiring import admission_of
from dropreel.outcome.full_sweep import FullSweep, SweepCall
from dropreel.runtime.log import logger
from dropreel.runtime.metrics import EmfMeter
from dropreel.runtime.settings import SweepSettings

settings = SweepSettings.from_environment()
admission = admission_of(settings)
full_sweep = FullSweep(
    queue=IntakeQueue(settings.queue_url),
    executions=Executions(settings.state_machine_arn),
    ledger=DynamoDBLedger(settings.ledger_table),
    conclude=ConcludeFunction(settings.conclude_function).invoke,
    serve_all=admission.serve_all,
    meter=EmfMeter(),
    now=lambda: datetime.now(UTC),
)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any] | None, context: LambdaContext) -> None:
    if event == {"serve": "waiting jobs"}:
        # A retry has the same id, and resumes the executions that the first try gave a slot.
        admission.serve_waiting(context.aws_request_id)
    else:
        full_sweep.sweep(SweepCall.model_validate(event or {}).time)
