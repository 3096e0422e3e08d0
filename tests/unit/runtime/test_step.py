"""The decorator of the handlers: what goes in, what comes out, and what each log line says."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dropreel.model.errors import (
    FINAL_FOR_POLL,
    DropreelError,
    ErrorReport,
    FinalAnswer,
    InputGone,
    NoCredit,
    RenderFailed,
    ResultUnavailable,
    TokenMissing,
)
from dropreel.model.job import Job
from dropreel.model.messages import EndedJob
from dropreel.runtime.done import Done
from dropreel.runtime.log import logger
from dropreel.runtime.step import step
from tests.support.conclusion_bench import RUN
from tests.support.fault_account import CONTEXT
from tests.support.log_lines import Lines, keys_of, log_lines
from tests.support.render_fakes import JOB, NOON

CALL: Any = CONTEXT
EVENT = {
    "job": JOB.model_dump(mode="json"),
    "execution": RUN,
    "started_at": NOON.isoformat(),
}
KEYS = (JOB.id, JOB.run, JOB.folder)


class Answer(BaseModel):
    at: datetime


@pytest.fixture
def lines() -> Iterator[Lines]:
    with log_lines() as lines:
        yield lines


def raising(
    error: BaseException, final: tuple[type[DropreelError], ...]
) -> Callable[[Any, Any], object]:
    @step(EndedJob.model_validate, final=final)
    def handler(ended: EndedJob, context: object) -> None:
        raise error

    return handler


# What goes in and comes out


def test_event_is_parsed_and_the_answer_is_json() -> None:
    seen: list[tuple[EndedJob, object]] = []

    @step(EndedJob.model_validate)
    def handler(ended: EndedJob, context: object) -> Answer:
        seen.append((ended, context))
        return Answer(at=datetime(2026, 11, 20, tzinfo=UTC))

    answer = handler(EVENT, CALL)

    assert answer == {"at": "2026-11-20T00:00:00Z"}
    assert seen == [(EndedJob(job=JOB, execution=RUN, started_at=NOON), CALL)]


def test_event_without_work_calls_nothing(lines: Lines) -> None:
    def parse(event: object) -> EndedJob | None:
        logger.info("Not started by us")
        return None

    @step(parse)
    def handler(ended: EndedJob, context: object) -> None:
        pytest.fail("nothing to do")

    assert handler(EVENT, CALL) is None
    assert [line["message"] for line in lines.taken()] == ["Not started by us"]


def test_a_call_ends_with_what_it_did(lines: Lines) -> None:
    def say(ended: EndedJob, answer: Answer) -> Done:
        return Done("Done it", {"run_of": ended.job.id, "day": answer.at.day})

    @step(EndedJob.model_validate, done=say)
    def handler(ended: EndedJob, context: object) -> Answer:
        return Answer(at=NOON)

    handler(EVENT, CALL)

    [line] = lines.taken()
    assert (line["message"], line["run_of"], line["day"]) == ("Done it", JOB.id, NOON.day)
    assert keys_of(line) == KEYS


def test_step_without_an_answer_returns_none() -> None:
    @step(Job.model_validate)
    def handler(job: Job, context: object) -> None:
        assert job == JOB

    assert handler(EVENT["job"], CALL) is None


def test_event_that_cannot_be_read_is_a_fault() -> None:
    @step(EndedJob.model_validate)
    def handler(ended: EndedJob, context: object) -> None:
        pytest.fail("nothing to do")

    with pytest.raises(ValidationError):
        handler({}, CALL)


# How it ends

GONE, LOST = InputGone("anna.png was deleted."), RenderFailed("No face.")


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (GONE, (DropreelError,)),
        (LOST, FINAL_FOR_POLL),
        (NoCredit('They say: "no", \\, é, 李娜.'), FINAL_FOR_POLL),
    ],
)
def test_error_of_a_final_kind_becomes_the_final_answer(
    error: DropreelError, final: tuple[type[DropreelError], ...], lines: Lines
) -> None:
    with pytest.raises(FinalAnswer) as raised:
        raising(error, final)(EVENT, CALL)

    assert ErrorReport.model_validate_json(str(raised.value)) == error.report
    assert raised.value.__cause__ is error
    [line] = lines.taken()
    assert line["message"] == f"Final answer: {error.report.code}"
    assert keys_of(line) == KEYS


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (ResultUnavailable("Not yet."), FINAL_FOR_POLL),
        (TokenMissing("No token."), FINAL_FOR_POLL),
        (LOST, ()),
        (OSError("DynamoDB is away"), (DropreelError,)),
        (KeyError("a bug"), (DropreelError,)),
        (KeyboardInterrupt(), (DropreelError,)),
    ],
)
def test_all_other_errors_leave_unchanged(
    error: BaseException, final: tuple[type[DropreelError], ...]
) -> None:
    with pytest.raises(type(error)) as raised:
        raising(error, final)(EVENT, CALL)

    assert raised.value is error


def test_fault_is_logged_by_its_kind_alone(lines: Lines) -> None:
    with pytest.raises(OSError, match="secret"):
        raising(OSError("https://secret.example"), ())(EVENT, CALL)

    (line,) = lines.taken()
    assert (line["message"], line["job_id"]) == ("Fault: OSError", JOB.id)


def test_unreadable_event_is_not_quoted() -> None:
    with pytest.raises(ValidationError) as raised:
        raising(LOST, ())({**EVENT, "started_at": "a-secret-token"}, CALL)

    assert "secret" not in str(raised.value)


def test_every_error_of_ours_is_final_unless_the_step_says_otherwise() -> None:
    @step(EndedJob.model_validate)
    def handler(ended: EndedJob, context: object) -> None:
        raise GONE

    with pytest.raises(FinalAnswer):
        handler(EVENT, CALL)


# What a line says


@pytest.mark.parametrize("parse", [Job.model_validate, EndedJob.model_validate])
def test_each_line_names_the_job_and_nothing_of_the_call_before(
    parse: Callable[[object], Any], lines: Lines
) -> None:
    @step(parse)
    def handler(request: object, context: object) -> None:
        logger.info("At work")
        logger.append_keys(request_id="req-1")
        raise GONE

    is_job = parse == Job.model_validate
    later = JOB.model_copy(update={"id": "bert-0123456789abcdef", "run": 2, "folder": ""})
    for job in (JOB, later):
        document = job.model_dump(mode="json")
        with pytest.raises(FinalAnswer):
            handler(document if is_job else EVENT | {"job": document}, CALL)

    written = lines.taken()

    names = [KEYS] * 2 + [(later.id, 2, "")] * 2
    assert [keys_of(line) for line in written] == names
    assert ["request_id" in line for line in written] == [False, True] * 2


def test_line_before_the_job_is_known_names_no_job_of_the_call_before(lines: Lines) -> None:
    def parse(event: dict[str, Any]) -> EndedJob | None:
        logger.info("Reading")
        return EndedJob.model_validate(event) if event else None

    @step(parse)
    def handler(ended: EndedJob, context: object) -> None:
        """Nothing to do."""

    for event in (EVENT, {}):
        handler(event, CALL)

    for line in lines.taken():
        assert not {"job_id", "run", "folder"} & line.keys()
