"""What each step says at the end of a call, in one line of its log: a message that never changes,
and keys to ask for. docs/operating.md has the questions."""

from typing import NamedTuple

from dropreel.model.catalog import Catalog
from dropreel.model.events import VideoReady
from dropreel.model.job import Job
from dropreel.model.messages import (
    ActiveRender,
    Checked,
    Plan,
    Progress,
    Repetition,
    Submission,
    SubmitRequest,
)
from dropreel.model.prices import billed, estimated_usd


class Done(NamedTuple):
    message: str
    keys: dict[str, object]


def prepared(_: Job, answer: Plan | Repetition | Checked, catalog: Catalog) -> Done:
    if isinstance(answer, Repetition):
        return Done("Nothing to render", {"same_as": answer.same_as})
    if isinstance(answer, Checked):
        return Done("Checked", _of(answer.checked, catalog))
    return Done("Prepared", _of(answer, catalog))


def _of(plan: Plan, catalog: Catalog) -> dict[str, object]:
    first = billed(plan)[0]
    usd = estimated_usd(first, catalog)
    return {
        "attempt": plan.first_attempt,
        "model": plan.job.model,
        "provider": first.provider,
        "offer": first.endpoint,
        "offers": len(plan.route),
        "video_seconds": first.video_seconds,
        "estimated_usd": None if usd is None else float(usd),
        "resumes": plan.resume is not None,
    }


def submitted(request: SubmitRequest, answer: Submission) -> Done:
    keys: dict[str, object] = {"wait_seconds": answer.wait_seconds}
    if ticket := answer.ticket:
        return Done(
            "Submitted",
            keys | {"provider": ticket.provider, "request_id": ticket.request_id},
        )
    provider = request.plan.route[answer.next.offer].provider
    message = "Goes to another offer" if answer.falls_over else "Not submitted yet"
    return Done(message, keys | {"provider": provider, "tries": answer.next.tries})


def polled(render: ActiveRender, answer: Progress) -> Done:
    return Done(
        "Polled",
        {
            "provider": render.ticket.provider,
            "request_id": render.ticket.request_id,
            "state": answer.state,
            "wait_seconds": answer.wait_seconds,
        },
    )


def delivered(_: ActiveRender, answer: VideoReady) -> Done:
    return Done(
        "Delivered",
        {
            "provider": answer.render.provider,
            "model": answer.job.model,
            "size_bytes": answer.video.size_bytes,
            "video_seconds": answer.video.duration_seconds,
            "queued_seconds": answer.render.queued_seconds,
            "rendering_seconds": answer.render.rendering_seconds,
            "copying_seconds": answer.render.copying_seconds,
            "estimated_usd": answer.estimated_usd,
            "actual_usd": answer.actual_usd,
        },
    )
