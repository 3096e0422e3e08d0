"""Teardown: nothing new begins, what runs is stopped and concluded, and only then it is deleted."""

from collections.abc import Iterable, Sequence

import pytest

from operate.choice import Execution
from operate.teardown import BusInUse, Kept, NotConcluded, teardown
from tests.support.render_fakes import JOB, NOON


def _execution(name: str) -> Execution:
    return Execution(
        name=name, status="RUNNING", started_at=NOON, stopped_at=None, error=None, job=JOB
    )


class Stack:
    """One whose intake starts `late` when the first execution is stopped."""

    def __init__(self, running: Sequence[str], late: Sequence[str] = (), looks: int = 2) -> None:
        self.left = [_execution(name) for name in running]
        self.late = [_execution(name) for name in late]
        self.looks = looks
        self.rules: Sequence[str] = ()
        self.log: list[str] = []

    def kept(self) -> Sequence[Kept]:
        return ()

    def stop_intake(self) -> None:
        self.log.append("stop intake")

    def running(self) -> Iterable[Execution]:
        return list(self.left)

    def stop(self, execution: Execution) -> None:
        self.log.append(f"stop {execution.name}")
        self.left.remove(execution)
        self.left += self.late
        self.late = []

    def is_concluded(self, execution: Execution) -> bool:
        self.looks -= 1
        return self.looks < 0

    def rules_on_its_bus(self) -> Sequence[str]:
        return self.rules

    def delete(self) -> None:
        self.log.append("delete")

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.log.append("wait")


def test_all_executions_are_stopped_and_concluded_before_the_stack_is_deleted() -> None:
    stack = Stack(["waits", "renders"], late=["late"])

    teardown(stack, lambda _: None, stack.sleep)

    assert stack.log == [
        *("stop intake", "stop waits", "stop renders", "stop late"),
        *("wait", "delete"),
    ]


def test_an_idle_stack_is_deleted_at_once() -> None:
    stack = Stack([])

    teardown(stack, lambda _: None, stack.sleep)

    assert stack.log == ["stop intake", "delete"]


def test_consumers_get_the_last_events_before_their_rules_have_to_go() -> None:
    stack = Stack(["renders"], looks=0)
    stack.rules = ["ours", "theirs"]

    with pytest.raises(BusInUse, match="not the stack's: ours, theirs"):
        teardown(stack, lambda _: None, stack.sleep)
    assert stack.log == ["stop intake", "stop renders"]
    stack.rules = ()
    teardown(stack, lambda _: None, stack.sleep)

    assert stack.log[-1] == "delete"


def test_without_a_conclusion_nothing_is_deleted() -> None:
    stack = Stack(["stuck"], looks=1000)

    with pytest.raises(NotConcluded, match="1 jobs have no outcome yet, such as stuck"):
        teardown(stack, lambda _: None, stack.sleep, patience_seconds=60)

    assert "delete" not in stack.log
    assert stack.log.count("wait") == 12
