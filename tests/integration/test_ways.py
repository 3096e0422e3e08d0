"""Ways through the state machine's real definition, on a second engine.

A way lists the calls of the functions in order. A call says how it is answered, and what its input
must be. Whatever differs fails: another call, one more or less, another retry, wait, event or end.
"""

from collections.abc import Iterator

import pytest

from dropreel.model.errors import (
    FINAL_FOR_POLL,
    ExecutionAborted,
    InputRejected,
    NoCredit,
    ProviderUnavailable,
    Reason,
    ResultRefused,
    ResultUnavailable,
    SpendLimitReached,
)
from dropreel.model.events import DetailType, JobChecked, VideoFailed, VideoReady
from dropreel.model.job import Job
from dropreel.model.messages import Checked, Repetition
from tests.support.render_fakes import JOB, PLAN, TICKET
from tests.support.second_engine import (
    KILLED,
    LOST,
    NO_LAYER,
    THROTTLED,
    TIMED_OUT,
    SecondEngine,
    second_engine,
)
from tests.support.ways import (
    ACCEPTED_ELSEWHERE,
    ADMIT,
    ANNOUNCE,
    CONCLUDE,
    DELIVER,
    FAILED,
    FALLS_OVER,
    POLL,
    POSTPONED,
    PREPARE,
    QUEUED,
    RENDERING,
    SUBMIT,
    SUBMIT_AGAIN,
    TO_A_VIDEO,
    Answer,
    Call,
    Play,
    Way,
    announced_and_then,
    delivered_and_then,
    nothing,
    refused_later,
    slot_later,
    stopped,
)

FAULT = OSError("DynamoDB is away")
REFUSED = InputRejected((Reason(file="anna.png", rule="a", found="b", cure="c"),))
NO_CREDIT = NoCredit("No credit is left.")
NO_BUDGET = SpendLimitReached("The day's limit is reached.")
AGAIN = JOB.model_copy(update={"run": 2})
SECOND = PLAN.model_copy(update={"job": AGAIN, "first_attempt": 2})
DRY_JOB = JOB.model_copy(update={"dry_run": True})
CHECKED = Checked(checked=PLAN.model_copy(update={"job": DRY_JOB}))
CHECK = (Call("Conclude", CONCLUDE.answer, {"checked": JOB.id}), ANNOUNCE)
RESUMED = SECOND.model_copy(update={"resume": TICKET})

# The way to each step, and on from it.
UNTIL: dict[str, tuple[Call, ...]] = {
    call.step: TO_A_VIDEO[:number] for number, call in enumerate(TO_A_VIDEO)
}
FROM: dict[str, tuple[Call, ...]] = {
    call.step: TO_A_VIDEO[number:] for number, call in enumerate(TO_A_VIDEO)
}
UNTIL["Conclude"] = (PREPARE, ADMIT, SUBMIT(NO_CREDIT))
FROM["Conclude"] = (CONCLUDE(error="NoCredit"), ANNOUNCE)

RETRIES = {
    "Prepare": 6,
    "Admit": 40,
    "Submit": 12,
    "Poll": 600,
    "Deliver": 30,
    "Conclude": 40,
    "Announce": 10,
}


def again(step: str, answers: list[Answer]) -> tuple[Call, ...]:
    """The calls of a step that is answered like this, and the one after them."""
    call, *_ = FROM[step]
    retries = range(len(answers) + 1)
    calls = [call(retry=retry) if step == "Admit" else call for retry in retries]
    return (*(it(answer) for it, answer in zip(calls, answers, strict=False)), calls[-1])


def retried(step: str, name: str, answers: list[Answer]) -> Way:
    return Way(
        f"{step} {name}",
        (*UNTIL[step], *again(step, answers), *FROM[step][1:]),
        ends="NoCredit" if step == "Conclude" else "Video Ready",
        retries=len(answers),
    )


def given_up(step: str, answer: Exception, error: str) -> Way:
    """A step fails until its retries are used up."""
    calls = again(step, [answer] * (RETRIES[step] + 1))[:-1]
    is_announced = step not in ("Conclude", "Announce")
    return Way(
        f"{step} fails for good: {error}",
        (*UNTIL[step], *calls, *(FAILED if is_announced else ())),
        ends="UnexpectedError" if is_announced else error,
        retries=RETRIES[step],
        events=int(is_announced),
    )


def refused(call: Call, error: str) -> Way:
    """A step gives a final answer: it is not called again."""
    end = (CONCLUDE(error=error), ANNOUNCE)
    return Way(f"{call.step} refuses: {error}", (*UNTIL[call.step], call, *end), ends=error)


def started_by_hand(job: Job, name: str) -> Way:
    return Way(f"run {job.run} under the name {name}", (), "NotStartedByDropreel", 0, 0, job, name)


def aborted(step: str) -> Way:
    call, *_ = FROM[step]
    return Way(f"aborted in {step}", (*UNTIL[step], call(stopped)), ends="ABORTED", events=0)


ON_ADMITTED = (PREPARE, ADMIT)
ON_SUBMITTED = (PREPARE, ADMIT, SUBMIT)
ON_ACCEPTED_ELSEWHERE = (
    ADMIT(attempt=2),
    SUBMIT(ACCEPTED_ELSEWHERE, attempt=2),
    POLL(request="req-2"),
    DELIVER(request="req-2"),
    ANNOUNCE,
)

WAYS = [
    Way("the happy way", TO_A_VIDEO),
    Way(
        "it polls as often as it takes",
        (
            *ON_SUBMITTED,
            POLL(QUEUED),
            POLL(RENDERING, progress="queued"),
            POLL(progress="rendering"),
            DELIVER,
            ANNOUNCE,
        ),
    ),
    # A slot
    Way("a slot becomes free later", (PREPARE, ADMIT(slot_later), *FROM["Submit"])),
    refused(ADMIT(refused_later(NO_BUDGET)), "SpendLimitReached"),
    # Final answers
    refused(PREPARE(REFUSED), "InputRejected"),
    refused(SUBMIT(NO_CREDIT), "NoCredit"),
    *(refused(POLL(error("Why.")), error.__name__) for error in FINAL_FOR_POLL),
    refused(DELIVER(ResultRefused("Not a video.")), "ResultRefused"),
    refused(DELIVER(ExecutionAborted("It was concluded.")), "ExecutionAborted"),
    # Of paid work, these are not final
    retried("Poll", "does not reach the provider", [ProviderUnavailable("Away.")]),
    retried("Deliver", "finds no video yet", [ResultUnavailable("Not there.")] * 3),
    # Other attempts
    Way(
        "the provider postpones it twice",
        (
            *ON_ADMITTED,
            SUBMIT(POSTPONED),
            SUBMIT(POSTPONED, tries=1),
            SUBMIT(tries=1),
            *FROM["Poll"],
        ),
    ),
    Way(
        "it falls over to another account",
        (*ON_ADMITTED, SUBMIT(FALLS_OVER), *ON_ACCEPTED_ELSEWHERE),
    ),
    Way(
        "a render is lost, and submitted again",
        (
            *ON_SUBMITTED,
            POLL(RENDERING),
            POLL(SUBMIT_AGAIN, progress="rendering"),
            *ON_ACCEPTED_ELSEWHERE,
        ),
    ),
    # Equal contents
    Way("nothing to render", (PREPARE(Repetition(same_as="bert-1")),), ends="SUCCEEDED", events=0),
    # Dry runs
    Way("a dry run", (PREPARE(CHECKED), *CHECK), ends="accepted", job=DRY_JOB),
    Way(
        "a dry run is refused",
        (PREPARE(REFUSED), CONCLUDE(error="InputRejected"), ANNOUNCE),
        ends="InputRejected",
        job=DRY_JOB,
    ),
    Way(
        "a dry run meets the Prepare of before dry runs",
        (PREPARE(PLAN), *FAILED),
        ends="UnexpectedError",
        job=DRY_JOB,
    ),
    Way(
        "a dry run has faults",
        (PREPARE(FAULT), PREPARE(CHECKED), CHECK[0](KILLED), *CHECK),
        ends="accepted",
        retries=2,
        job=DRY_JOB,
    ),
    Way(
        "a dry run fails for good",
        (*[PREPARE(FAULT)] * (RETRIES["Prepare"] + 1), *FAILED),
        ends="UnexpectedError",
        retries=RETRIES["Prepare"],
        job=DRY_JOB,
    ),
    # Runs
    Way(
        "a second run",
        (
            PREPARE(SECOND, run=2),
            ADMIT(attempt=2),
            SUBMIT(attempt=2),
            *FROM["Poll"],
        ),
        job=AGAIN,
    ),
    Way(
        "a second run resumes the first one's request",
        (PREPARE(RESUMED, run=2), POLL, DELIVER, ANNOUNCE),
        job=AGAIN,
    ),
    Way(
        "a resumed request is lost",
        (PREPARE(RESUMED, run=2), POLL(SUBMIT_AGAIN), *ON_ACCEPTED_ELSEWHERE),
        job=AGAIN,
    ),
    started_by_hand(JOB, "by-hand"),
    started_by_hand(JOB, AGAIN.execution_name),
    started_by_hand(AGAIN, JOB.execution_name),
    # Faults of each step, and of the platform
    *(retried(step, "has a fault", [FAULT]) for step in FROM),
    *(retried(step, "is killed", [KILLED]) for step in FROM),
    *(retried(step, "never comes back", [TIMED_OUT]) for step in FROM),
    *(retried(step, "is lost by Lambda", [LOST, NO_LAYER]) for step in FROM),
    *(retried(step, "is throttled 41 times", [THROTTLED] * 41) for step in FROM),
    *(given_up(step, FAULT, "OSError") for step in FROM),
    given_up("Deliver", TIMED_OUT, "States.Timeout"),
    given_up("Announce", KILLED, "Sandbox.Timedout"),
    # Retries are counted by kind, and anew when a step is entered again
    retried("Prepare", "is throttled between faults", [FAULT, THROTTLED, THROTTLED] * 6),
    Way(
        "Submit has faults before and after it was postponed",
        (
            *ON_ADMITTED,
            *[SUBMIT(FAULT)] * 6,
            SUBMIT(POSTPONED),
            *[SUBMIT(FAULT, tries=1)] * 6,
            SUBMIT(tries=1),
            *FROM["Poll"],
        ),
        retries=12,
    ),
    # An answer cannot be read, as between two releases
    retried("Submit", "answers nothing", [nothing]),
    retried("Poll", "answers nothing", [nothing]),
    # The work is done, and the call fails
    retried("Deliver", "is killed after it delivered", [delivered_and_then(KILLED)]),
    retried("Announce", "is killed after it sent the event", [announced_and_then(KILLED)]),
    Way(
        "it fails for good, but after the video was delivered",
        (
            *UNTIL["Deliver"],
            *[DELIVER(delivered_and_then(FAULT))] * (RETRIES["Deliver"] + 1),
            *FAILED,
        ),
        retries=RETRIES["Deliver"],
    ),
    # Stopped
    *(aborted(step) for step in FROM),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[SecondEngine]:
    with second_engine() as made:
        yield made


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_execution_goes_this_way(way: Way, engine: SecondEngine) -> None:
    play = Play(engine, way).run()

    assert play.calls == [str(call) for call in way.calls]
    assert not play.faults_of_the_input
    assert ending(play) == way.ends
    assert len(engine.waits.retries) == way.retries
    assert engine.waits.states == way.waits
    assert play.outcomes.resources == [(play.arn,)] * way.events


def ending(play: Play) -> str:
    """In one word. The execution's end and the event that was sent are one outcome."""
    status, error = play.ended["status"], play.ended.get("error")
    for detail_type, detail in play.outcomes.sent:
        if isinstance(detail, VideoReady):
            output = VideoReady.model_validate_json(play.ended["output"])
            assert (status, detail_type, output) == ("SUCCEEDED", DetailType.VIDEO_READY, detail)
            return detail_type.value
        if isinstance(detail, JobChecked):
            told = JobChecked.model_validate_json(play.ended["output"])
            assert (status, detail_type, told) == ("SUCCEEDED", DetailType.JOB_CHECKED, detail)
            return detail.error.code if detail.error else "accepted"
        assert isinstance(detail, VideoFailed)
        cause = play.ended["cause"]
        assert (error, cause) == (detail.error.code, detail.error.message)
        assert detail_type is DetailType.VIDEO_FAILED
    return str(error or status)
