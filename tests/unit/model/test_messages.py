"""What the steps pass on through the state machine, whose expressions calculate in doubles."""

import json

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dropreel.inbox.job_file import JobFile
from dropreel.model.messages import ActiveRender, Progress, Submission
from dropreel.model.provider import RenderState
from tests.support.render_fakes import NOON, PLAN, RUNCOMFY, TICKET

MAX_OBJECT_BYTES = 50 * 10**12  # S3
MAX_OPTION: int = JobFile.model_json_schema()["properties"]["seed"]["maximum"]
COUNTS = st.integers(1, 10_000)
SECONDS = st.tuples(*(st.floats(0, 1e7) for _ in range(3)))
SIZES = st.integers(0, MAX_OBJECT_BYTES)
OPTIONS = (
    st.integers(-MAX_OPTION, MAX_OPTION)
    | st.sampled_from([MAX_OPTION, -MAX_OPTION])
    | st.booleans()
)


def through_doubles(text: str, whole: type[int | float]) -> str:
    """JSON after an engine that keeps numbers as doubles, and writes whole ones as 7 or as 7.0."""

    def written(number: str) -> int | float:
        double = float(number)
        return whole(double) if double.is_integer() else double

    return json.dumps(json.loads(text, parse_int=written, parse_float=written))


@given(
    st.sampled_from([int, float]),
    OPTIONS,
    SIZES,
    SIZES,
    COUNTS,
    SECONDS,
)
def test_every_number_is_kept_exactly(
    whole: type[int | float],
    option: int,
    upload_bytes: int,
    copy_bytes: int,
    number: int,
    seconds: tuple[float, float, float],
) -> None:
    assert PLAN.audio_facts
    upload = PLAN.job.inputs[0].model_copy(update={"size_bytes": upload_bytes})
    job = PLAN.job.model_copy(
        update={"inputs": (upload,), "options": {"seed": option}, "run": number}
    )
    ticket = TICKET.model_copy(
        update={
            "attempt": number,
            "queue_timeout_seconds": seconds[0],
            "render_timeout_seconds": seconds[1],
        }
    )
    plan = PLAN.model_copy(
        update={
            "job": job,
            "route": (RUNCOMFY.model_copy(update={"fields": {"seed": option}}),),
            "image": PLAN.image.model_copy(update={"size_bytes": copy_bytes}),
            "audio_facts": PLAN.audio_facts.model_copy(update={"duration_seconds": seconds[2]}),
            "first_attempt": number,
            "resume": ticket,
        }
    )
    messages: tuple[BaseModel, ...] = (
        plan,
        Submission(ticket=ticket, wait_seconds=number),
        ActiveRender(
            plan=plan,
            ticket=ticket,
            progress=Progress(state=RenderState.RENDERING, wait_seconds=number),
            started_at=NOON,
        ),
    )

    for sent in messages:
        heard = type(sent).model_validate_json(through_doubles(sent.model_dump_json(), whole))
        assert heard.model_dump_json() == sent.model_dump_json()
