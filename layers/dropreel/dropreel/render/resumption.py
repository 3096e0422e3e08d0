"""A job that is run again: what an earlier run has paid for is waited for, not submitted anew."""

from collections.abc import Callable, Iterable
from typing import Protocol

from dropreel.model.job import Job
from dropreel.model.ledger import Attempt, Run
from dropreel.model.messages import Plan
from dropreel.model.provider import Ticket


class History(Protocol):
    """The ledger, as far as a job that is run again needs it."""

    def attempts(self, job_id: str) -> tuple[Attempt, ...]: ...

    def runs(self, job_id: str) -> tuple[Run, ...]: ...


def plan(job: Job, history: History, validated: Callable[[], Plan]) -> Plan:
    """The plan of this run. `validated` makes a new one from the uploads.

    A first run has no history. When a provider has accepted the latest attempt and may still have
    it, the plan that it was submitted with serves again and no upload is looked at: they may be
    gone, and the render is paid for. Otherwise the next attempt is a new one, whatever became of
    the latest: who runs a job again whose submission was unclear wants that.
    """
    if job.run == 1:
        return validated()
    attempts = history.attempts(job.id)
    if not attempts:
        return validated()
    latest = attempts[-1]
    ticket = latest.ticket
    if ticket is None:
        return validated().model_copy(update={"first_attempt": latest.number + 1})
    if submitted := _submitted(latest, job, history.runs(job.id)):
        changes = {"job": job, "first_attempt": latest.number, "resume": ticket}
        return submitted.model_copy(update=changes)
    fresh = validated()
    ticket = ticket.model_copy(update={"offer": _place(ticket, fresh)})
    return fresh.model_copy(update={"first_attempt": latest.number, "resume": ticket})


def _submitted(attempt: Attempt, job: Job, runs: Iterable[Run]) -> Plan | None:
    """The plan that the attempt was submitted with: the latest that was there before it."""
    plans = [
        run.plan
        for run in runs
        if run.number < job.run and run.plan and run.plan.first_attempt <= attempt.number
    ]
    return plans[-1] if plans else None


def _place(ticket: Ticket, fresh: Plan) -> int:
    """Where the ticket's offer is on the new route, or was on the old one."""
    route = [(offer.provider, offer.endpoint) for offer in fresh.route]
    accepted = (ticket.provider, ticket.endpoint)
    return route.index(accepted) if accepted in route else ticket.offer
