"""The decorator of all steps: it parses the event, names the job in the logs, and ends in an answer
that is final or in a fault."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

from dropreel.model.errors import DropreelError, FinalAnswer
from dropreel.model.job import Job
from dropreel.runtime.done import Done
from dropreel.runtime.log import job_keys, logger


class OfAJob(Protocol):
    @property
    def job(self) -> Job: ...


M = TypeVar("M", bound=Job | OfAJob)
A = TypeVar("A", bound=BaseModel | None)
Handler = Callable[[Any, LambdaContext], dict[str, Any] | None]


def step(
    parse: Callable[[Any], M | None],
    *,
    done: Callable[[M, A], Done] | None = None,
    final: tuple[type[DropreelError], ...] = (DropreelError,),
) -> Callable[[Callable[[M, LambdaContext], A]], Handler]:
    """Make a Lambda handler of a function that takes a parsed event.

    `parse` returns None for an event without work. `done` is what a call says at its end; without
    it, the function logs that itself. Errors of the kinds in `final` end the job: they become
    `FinalAnswer`, which the state machine does not retry. All others are faults, which it retries.
    """

    def decorate(work: Callable[[M, LambdaContext], A]) -> Handler:
        @logger.inject_lambda_context(clear_state=True)
        @wraps(work)
        def handler(event: Any, context: LambdaContext) -> dict[str, Any] | None:  # noqa: ANN401
            request = parse(event)
            if request is None:
                return None
            logger.append_keys(**job_keys(request if isinstance(request, Job) else request.job))
            logger.append_keys(attempt=getattr(request, "attempt", None))
            try:
                answer = work(request, context)
            except final as reason:
                logger.info("Final answer: %s", type(reason).__name__, code=type(reason).__name__)
                raise FinalAnswer(reason) from reason
            except Exception as fault:  # its text can hold a secret
                logger.error("Fault: %s", type(fault).__name__)
                raise
            if done:
                message, keys = done(request, answer)
                logger.info(message, extra=keys)
            return answer.model_dump(mode="json") if isinstance(answer, BaseModel) else None

        return handler

    return decorate
