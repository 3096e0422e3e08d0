"""The last line of a step's call: a message that never changes, and keys to ask for."""

import json
from typing import Any

import pytest

from dropreel.model.catalog import MODELS
from dropreel.model.events import VideoReady
from dropreel.model.messages import (
    ActiveRender,
    NextAttempt,
    Progress,
    Repetition,
    Submission,
    SubmitRequest,
)
from dropreel.model.provider import RenderState
from dropreel.runtime import done
from dropreel.runtime.done import Done
from tests.support.conclusion_bench import READY
from tests.support.render_fakes import JOB, NOON, PLAN, TICKET

REQUEST = SubmitRequest(plan=PLAN)
RENDER = ActiveRender(plan=PLAN, ticket=TICKET, started_at=NOON)


def test_prepare_says_the_first_offer_with_its_seconds_and_price() -> None:
    message, keys = done.prepared(JOB, PLAN, MODELS)

    assert message == "Prepared"
    assert (keys["provider"], keys["offer"]) == (PLAN.route[0].provider, PLAN.route[0].endpoint)
    assert keys["offers"] == len(PLAN.route)
    assert PLAN.audio_facts
    assert keys["video_seconds"] == PLAN.audio_facts.duration_seconds
    assert keys.keys() >= {"attempt", "model", "estimated_usd", "resumes"}


def test_prepare_says_which_job_answers_a_repetition() -> None:
    other = Repetition(same_as="anna-0")

    assert done.prepared(JOB, other, MODELS) == Done("Nothing to render", {"same_as": "anna-0"})


@pytest.mark.parametrize(
    ("answer", "message", "keys"),
    [
        (
            Submission(ticket=TICKET, wait_seconds=5),
            "Submitted",
            {"provider": TICKET.provider, "request_id": TICKET.request_id, "wait_seconds": 5},
        ),
        (
            Submission(wait_seconds=7, next=NextAttempt(tries=2)),
            "Not submitted yet",
            {"provider": PLAN.route[0].provider, "tries": 2, "wait_seconds": 7},
        ),
        (
            Submission(wait_seconds=0, next=NextAttempt(attempt=2, offer=1), falls_over=True),
            "Goes to another offer",
            {"provider": PLAN.route[1].provider, "tries": 0, "wait_seconds": 0},
        ),
    ],
)
def test_submit_says_what_became_of_the_request(
    answer: Submission, message: str, keys: dict[str, Any]
) -> None:
    assert done.submitted(REQUEST, answer) == Done(message, keys)


def test_poll_says_the_state_and_the_next_wait() -> None:
    answer = Progress(state=RenderState.RENDERING, wait_seconds=30, message="Hers.")

    assert done.polled(RENDER, answer) == Done(
        "Polled",
        {
            "provider": TICKET.provider,
            "request_id": TICKET.request_id,
            "state": "rendering",
            "wait_seconds": 30,
        },
    )


def test_deliver_says_how_large_the_video_is_how_long_it_took_and_what_it_cost() -> None:
    ready = READY.detail
    assert isinstance(ready, VideoReady)
    message, keys = done.delivered(RENDER, ready)

    assert message == "Delivered"
    assert keys == {
        "provider": ready.render.provider,
        "model": ready.job.model,
        "size_bytes": ready.video.size_bytes,
        "video_seconds": ready.video.duration_seconds,
        "queued_seconds": ready.render.queued_seconds,
        "rendering_seconds": ready.render.rendering_seconds,
        "copying_seconds": ready.render.copying_seconds,
        "estimated_usd": ready.estimated_usd,
        "actual_usd": ready.actual_usd,
    }
    assert ready.video.key not in json.dumps(keys)
