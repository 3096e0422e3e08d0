"""Events for display: what a page shows of a job before it ends.

No step depends on them. One may be missing or come twice, so a failure to send one is a line in the
log: it never fails the step, and sending is tried once.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel

from dropreel.model.events import (
    MAX_JOBS_COUNTED,
    Announcer,
    DetailType,
    FirstOffer,
    JobStarted,
    JobSummary,
    RenderSubmitted,
    UsedInput,
)
from dropreel.model.executions import execution_arn
from dropreel.model.job import Job
from dropreel.model.ledger import Attempt
from dropreel.model.messages import AdmitRequest, SubmitRequest
from dropreel.model.provider import Ticket
from dropreel.runtime.log import logger

if TYPE_CHECKING:  # submit needs no admission, and starts sooner without
    from dropreel.render.admission import Admission, Waiter

NEEDS_SECONDS = 45
"""With less time left nothing is sent: the step must end in time. All tries to read the ledger and
the one of the bus fit in."""


class Display:
    """Sends what is for display, for one call of a function."""

    def __init__(
        self, bus: Announcer, state_machine_arn: str, seconds_left: Callable[[], float]
    ) -> None:
        self._bus = bus
        self._state_machine_arn = state_machine_arn
        self._seconds_left = seconds_left

    def job_started(self, request: AdmitRequest, waiter: "Waiter", admission: "Admission") -> None:
        """`waiter` is the run's first place in a queue."""

        def detail() -> JobStarted:
            plan = request.plan
            offer = plan.route[waiter.offer]
            return JobStarted(
                job=JobSummary.of(plan.job, request.started_at),
                inputs=UsedInput.all_of(plan.job, plan.sha256),
                offer=FirstOffer(provider=offer.provider, model=offer.endpoint),
                estimated_usd=admission.estimated_usd(waiter),
                voice_seconds=plan.audio_facts.duration_seconds if plan.audio_facts else None,
                jobs_before=admission.slots.waiting_before(waiter, MAX_JOBS_COUNTED),
            )

        self._send(DetailType.JOB_STARTED, request.job, detail)

    def render_submitted(self, request: SubmitRequest, attempt: Attempt, ticket: Ticket) -> None:
        """For the call that recorded the ticket."""
        started_at = request.started_at
        if started_at is None:
            return

        def detail() -> RenderSubmitted:
            return RenderSubmitted(
                job=JobSummary.of(request.job, started_at),
                attempt=attempt.number,
                provider=attempt.provider,
                model=attempt.endpoint,
                request_id=ticket.request_id,
                estimated_usd=attempt.estimated_usd,
                submitted_at=ticket.submitted_at,
            )

        self._send(DetailType.RENDER_SUBMITTED, request.job, detail)

    def _send(self, detail_type: DetailType, job: Job, detail: Callable[[], BaseModel]) -> None:
        execution = execution_arn(self._state_machine_arn, job.execution_name)
        try:
            if self._seconds_left() < NEEDS_SECONDS:
                raise TimeoutError
            self._bus.announce(detail_type, detail(), [execution])
        except Exception as fault:  # its text can hold a secret
            logger.warning("%s was not sent: %s", detail_type, type(fault).__name__)
