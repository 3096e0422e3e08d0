"""A job that runs again: it waits for the render that an earlier run submitted, if there is one."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Protocol

from dropreel.model.events import VideoReady
from dropreel.model.job import Job
from dropreel.model.ledger import Attempt, Ledger, Outcome, Run
from dropreel.model.messages import Plan
from dropreel.model.provider import Ticket

_EVER = datetime.fromtimestamp(0, UTC)


class Outcomes(Protocol):
    def outcome(self, job: Job, started_at: datetime) -> Outcome | None: ...


def plan(job: Job, ledger: Ledger, prepare: Callable[[], Plan]) -> Plan:
    """The plan of this run. `prepare` makes a new one from the uploads.

    When a provider accepted the latest attempt and may still have it, its plan is used again, and
    no upload is read: they may be deleted, and the render is paid. Otherwise the run makes a new
    attempt, also after an unclear submission: rerun was asked for exactly that. With `job.again`, a
    render whose video was delivered is not used again, and one that was not is.
    """
    attempts = ledger.attempts(job.id) if job.run > 1 else ()
    if not attempts:
        return prepare()
    latest = attempts[-1]
    ticket = latest.ticket
    if ticket is None or (job.again and is_delivered(latest, job, ledger)):
        return prepare().model_copy(update={"first_attempt": latest.number + 1})
    if submitted := _submitted(latest, job, ledger.runs(job.id)):
        changes = {"job": job, "first_attempt": latest.number, "resume": ticket}
        return submitted.model_copy(update=changes)
    fresh = prepare()
    ticket = ticket.model_copy(update={"offer": _offer_index(ticket, fresh)})
    return fresh.model_copy(update={"first_attempt": latest.number, "resume": ticket})


def is_delivered(attempt: Attempt, job: Job, ledger: Outcomes) -> bool:
    """Whether a run before this one has delivered the attempt's video."""
    earlier = (job.model_copy(update={"run": run}) for run in range(attempt.run, job.run))
    outcomes = (ledger.outcome(run, _EVER) for run in earlier)
    videos = (it.detail for it in outcomes if it and isinstance(it.detail, VideoReady))
    return any(video.render.request_id == attempt.request_id for video in videos)


def _submitted(attempt: Attempt, job: Job, runs: Iterable[Run]) -> Plan | None:
    """The plan that the attempt was submitted with: the latest one before it."""
    plans = [
        run.plan
        for run in runs
        if run.number < job.run and run.plan and run.plan.first_attempt <= attempt.number
    ]
    return plans[-1] if plans else None


def _offer_index(ticket: Ticket, fresh: Plan) -> int:
    """The index of the ticket's offer in the new route, else in the old one."""
    route = [(offer.provider, offer.endpoint) for offer in fresh.route]
    accepted = (ticket.provider, ticket.endpoint)
    return route.index(accepted) if accepted in route else ticket.offer
