"""Delete a stack whose jobs may run or wait.

A state machine stays DELETING until its executions end, up to 90 days, and its name is taken as
long. So they are stopped first, and the stack's own rule concludes them.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import boto3

from operate.choice import Execution
from operate.errors import OperateError
from operate.stack import PATIENT, DeployedStack, outputs_of

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_stepfunctions import SFNClient

PATIENCE_SECONDS: Final = 900
"""Conclude takes minutes at most, and EventBridge seconds."""

_LOOK_SECONDS: Final = 5
_INTAKE: Final = ("UploadRule", "SweepRule", "ServeRule")
_INTAKE_MAPPING: Final = "IntakeFunctionUploads"  # SAM's name for the event source


class NotConcluded(OperateError):
    """Executions were stopped, and their events are not sent."""


class BusInUse(OperateError):
    """AWS deletes no event bus that has rules, and others have made some."""


@dataclass(frozen=True)
class Kept:
    """A resource that outlives the stack."""

    kind: str
    name: str


class Standing(Protocol):
    """A stack that stands until `delete`."""

    def kept(self) -> Sequence[Kept]: ...

    def stop_intake(self) -> None: ...

    def running(self) -> Iterable[Execution]:
        """Last started first."""

    def stop(self, execution: Execution) -> None: ...

    def is_concluded(self, execution: Execution) -> bool: ...

    def rules_on_its_bus(self) -> Sequence[str]:
        """The names of the rules that others have on the stack's own event bus."""

    def delete(self) -> None: ...


def teardown(
    stack: Standing,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    """Stop intake, stop the executions, wait for their conclusion, delete.

    Raises `NotConcluded` or `BusInUse`, and deletes nothing then.
    """
    stack.stop_intake()
    say("Intake is stopped.")
    # Those that wait began last. Stopped first, none of them gets a slot that another one leaves.
    stopped = list(_stop_all(stack))
    say(f"{len(stopped)} executions are stopped.")
    _wait_for_conclusion(stack, stopped, sleep, patience_seconds)
    # Only now: until here, these rules bring the last events to who waits for them.
    if rules := stack.rules_on_its_bus():
        raise BusInUse(
            f"The event bus has rules that are not the stack's: {', '.join(rules)}. AWS deletes no "
            "bus with rules. All events are sent: remove the rules, and run this again. Nothing is "
            "deleted."
        )
    say("Deleting the stack ...")
    stack.delete()


def _stop_all(stack: Standing) -> Iterator[Execution]:
    """Intake may have started one more while it stopped: so until none is left."""
    while running := list(stack.running()):
        for execution in running:
            stack.stop(execution)
            yield execution


def _wait_for_conclusion(
    stack: Standing,
    stopped: Sequence[Execution],
    sleep: Callable[[float], None],
    patience_seconds: float,
) -> None:
    waited_seconds = 0.0
    left = [one for one in stopped if not stack.is_concluded(one)]
    while left:
        if waited_seconds >= patience_seconds:
            raise NotConcluded(
                f"{len(left)} jobs have no outcome yet, such as {left[0].name}. Look at the log of "
                "the function conclude, run `make sweep`, and run this again. Nothing is deleted."
            )
        sleep(_LOOK_SECONDS)
        waited_seconds += _LOOK_SECONDS
        left = [one for one in left if not stack.is_concluded(one)]


class StandingStack:
    """Satisfies `Standing`."""

    def __init__(self, name: str) -> None:
        """Raises `NoSuchStack` and `OutputMissing`."""
        outputs = outputs_of(name)
        self._deployed = DeployedStack(outputs)
        self._machine = outputs["StateMachineArn"]
        self._cloudformation: CloudFormationClient = boto3.client("cloudformation", config=PATIENT)
        self._events: EventBridgeClient = boto3.client("events", config=PATIENT)
        self._lambda: LambdaClient = boto3.client("lambda", config=PATIENT)
        self._states: SFNClient = boto3.client("stepfunctions", config=PATIENT)
        self._name = name
        pages = self._cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
        self._resources = {
            one["LogicalResourceId"]: (one["ResourceType"], one["PhysicalResourceId"])
            for page in pages
            for one in page["StackResourceSummaries"]
            if "PhysicalResourceId" in one
        }

    def kept(self) -> Sequence[Kept]:
        """What the template retains, but not the versions, which go with their functions."""
        template: Any = self._cloudformation.get_template(
            StackName=self._name, TemplateStage="Processed"
        )["TemplateBody"]
        retained = (
            self._resources[logical_id]
            for logical_id, resource in template["Resources"].items()
            if str(resource.get("DeletionPolicy", "")).startswith("Retain")
            and logical_id in self._resources
        )
        ours = ("AWS::Lambda::Version", "AWS::S3::BucketPolicy")
        return [Kept(kind, name) for kind, name in retained if kind not in ours]

    def stop_intake(self) -> None:
        for rule in _INTAKE:
            _, name = self._resources[rule]
            self._events.disable_rule(Name=name)
        _, mapping = self._resources[_INTAKE_MAPPING]
        self._lambda.update_event_source_mapping(UUID=mapping, Enabled=False)

    def running(self) -> Iterator[Execution]:
        pages = self._states.get_paginator("list_executions")
        for page in pages.paginate(stateMachineArn=self._machine, statusFilter="RUNNING"):
            for listed in page["executions"]:
                if execution := self._deployed.execution(listed["name"]):
                    yield execution

    def stop(self, execution: Execution) -> None:
        arn = self._machine.replace(":stateMachine:", ":execution:", 1)
        self._states.stop_execution(
            executionArn=f"{arn}:{execution.name}", cause="The stack is being deleted."
        )

    def is_concluded(self, execution: Execution) -> bool:
        outcome = self._deployed.outcome(execution.job, execution.started_at)
        return outcome is not None and outcome.sent_at is not None

    def rules_on_its_bus(self) -> Sequence[str]:
        if "EventBus" not in self._resources:
            return ()  # it belongs to somebody else, and stays
        _, bus = self._resources["EventBus"]
        pages = self._events.get_paginator("list_rules").paginate(EventBusName=bus)
        return [rule["Name"] for page in pages for rule in page["Rules"]]

    def delete(self) -> None:
        self._cloudformation.delete_stack(StackName=self._name)
        self._cloudformation.get_waiter("stack_delete_complete").wait(StackName=self._name)
