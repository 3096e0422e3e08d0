"""Delete a stack whose jobs may run or wait.

A state machine stays DELETING until its executions end, up to 90 days, and its name is taken as
long. So they are stopped first, and the stack's own rule concludes them.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import boto3
from botocore.exceptions import ClientError, WaiterError

from dropreel.outcome.full_sweep import LOOKS_BACK
from operate.choice import Execution
from operate.errors import OperateError
from operate.stack import PATIENT, DeployedStack, outputs_of

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

PATIENCE_SECONDS: Final = 900
"""Conclude takes minutes at most, and EventBridge seconds."""

_LOOK_SECONDS: Final = 5
_SPARE_SECONDS: Final = 5
_INTAKE: Final = ("UploadRule", "SweepRule", "ServeRule")
_INTAKE_MAPPING: Final = "IntakeFunctionUploads"  # SAM's name for the event source
_POLICIES: Final = ("UploaderPolicy", "ReaderPolicy")


class Undeletable(OperateError):
    """AWS would refuse to delete the stack, or a job's end would be lost with it."""


class IntakeRuns(OperateError):
    """Lambda has not disabled the event source yet."""


class NotConcluded(OperateError):
    """Executions have ended, and their events are not sent."""


class BusInUse(OperateError):
    """AWS deletes no event bus that has rules, and no stack whose outputs another one imports."""


class PartlyDeleted(OperateError):
    """CloudFormation could not delete a resource."""


@dataclass(frozen=True)
class Kept:
    """A resource that outlives the stack."""

    kind: str
    name: str


class Standing(Protocol):
    """A stack that stands until `delete`."""

    def obstacles(self) -> Sequence[str]:
        """Why AWS would refuse to delete it now: a sentence for each, with the cure."""

    def stop_intake(self) -> None: ...

    def is_intake_stopped(self) -> bool:
        """Whether intake is called no more. A call that runs goes on."""

    def intake_call_seconds(self) -> float:
        """How long a call of intake may go on."""

    def running(self) -> Iterable[Execution]:
        """Last started first. May lag behind by seconds."""

    def stop(self, execution: Execution) -> None: ...

    def unsuccessful(self) -> Iterable[Execution]:
        """Those that ended so lately that the sweep concludes them. May lag behind by seconds."""

    def is_concluded(self, execution: Execution) -> bool:
        """Whether its event is sent."""

    def dead_letters(self) -> Sequence[str]:
        """Executions, ten at most, that conclude gave up."""

    def rules_on_its_bus(self) -> Sequence[str]:
        """The names of the rules that others have on the stack's own event bus."""

    def importers(self) -> Sequence[str]:
        """The names of the stacks that import an output."""

    def delete(self) -> None:
        """Raises `PartlyDeleted`."""


def teardown(
    stack: Standing,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    """Stop intake, stop the executions, wait for their conclusion, delete.

    Raises `Undeletable`, `IntakeRuns`, `NotConcluded` or `BusInUse`, and deletes nothing then; or
    `PartlyDeleted`.
    """
    if obstacles := stack.obstacles():
        raise Undeletable(f"{' '.join(obstacles)} Nothing is deleted.")
    _refuse_dead_letters(stack)
    if uses := _uses_of_the_bus(stack):
        say(f"To be removed by you when the last events are sent: {', '.join(uses)}.")
    try:
        _stop_intake(stack, sleep, patience_seconds)
        say("Intake is stopped.")
        _end_all(stack, say, sleep, patience_seconds)
        say("Deleting the stack ...")
        stack.delete()
    except PartlyDeleted:
        raise
    except BaseException:
        say(
            "Intake is off, and files that are dropped start no jobs. To switch it on again: "
            "`make teardown UNDO=1` (`python -m operate teardown --undo`)."
        )
        raise


def _stop_intake(stack: Standing, sleep: Callable[[float], None], patience_seconds: float) -> None:
    stack.stop_intake()
    if not _comes_true(stack.is_intake_stopped, sleep, patience_seconds):
        raise IntakeRuns(
            "Lambda has not disabled the event source of the intake function. Run this again. "
            "Nothing is deleted."
        )
    sleep(stack.intake_call_seconds() + _SPARE_SECONDS)


def _end_all(
    stack: Standing,
    say: Callable[[str], None],
    sleep: Callable[[float], None],
    patience_seconds: float,
) -> None:
    """Return when two lists of running executions, some seconds apart, had none to stop."""
    stopped: dict[str, Execution] = {}

    def still_running() -> list[Execution]:
        return [one for one in stack.running() if one.name not in stopped]

    while True:
        while running := still_running():
            # Those that wait began last. Stopped first, none gets a slot that another one leaves.
            for execution in running:
                stack.stop(execution)
                stopped[execution.name] = execution
            sleep(_LOOK_SECONDS)
        say(f"{len(stopped)} executions are stopped.")
        # From the stack, too: an earlier teardown may have stopped some and given up.
        ended = {one.name: one for one in stack.unsuccessful()} | stopped
        _wait_for_conclusion(stack, ended.values(), sleep, patience_seconds)
        _refuse_dead_letters(stack)
        # Only now: until here, these rules bring the last events to who waits for them.
        if uses := _uses_of_the_bus(stack):
            raise BusInUse(
                f"Others use the event bus: {', '.join(uses)}. AWS deletes no bus with rules, and "
                "no stack whose outputs are imported. All events are sent: remove these, and run "
                "this again. Nothing is deleted."
            )
        sleep(_LOOK_SECONDS)
        if not still_running():
            return


def _uses_of_the_bus(stack: Standing) -> list[str]:
    return [
        *(f"the rule {name}" for name in stack.rules_on_its_bus()),
        *(f"the stack {name}, which imports the bus" for name in stack.importers()),
    ]


def _wait_for_conclusion(
    stack: Standing,
    ended: Iterable[Execution],
    sleep: Callable[[float], None],
    patience_seconds: float,
) -> None:
    left = list(ended)

    def are_concluded() -> bool:
        left[:] = [one for one in left if not stack.is_concluded(one)]
        return not left

    if not _comes_true(are_concluded, sleep, patience_seconds):
        raise NotConcluded(
            f"{len(left)} jobs have no outcome yet, such as {left[0].name}. Look at the log of "
            "the function conclude, run `make sweep`, and run this again. Nothing is deleted."
        )


def _refuse_dead_letters(stack: Standing) -> None:
    if names := stack.dead_letters():
        raise NotConcluded(
            f"The queue UnconcludedJobs has messages about {', '.join(names)}. Look at the log of "
            "the function conclude, run `make sweep`, purge the queue, and run this again. Nothing "
            "is deleted."
        )


def _comes_true(
    condition: Callable[[], bool], sleep: Callable[[float], None], patience_seconds: float
) -> bool:
    waited_seconds = 0.0
    while not condition():
        if waited_seconds >= patience_seconds:
            return False
        sleep(_LOOK_SECONDS)
        waited_seconds += _LOOK_SECONDS
    return True


class StandingStack:
    """Satisfies `Standing`."""

    def __init__(self, name: str) -> None:
        """Raises `NoSuchStack` and `OutputMissing`."""
        outputs = outputs_of(name)
        self._deployed = DeployedStack(outputs)
        self._machine = outputs["StateMachineArn"]
        self._dead_letters = outputs["UnconcludedJobsUrl"]
        self._cloudformation: CloudFormationClient = boto3.client("cloudformation", config=PATIENT)
        self._events: EventBridgeClient = boto3.client("events", config=PATIENT)
        self._iam: Any = boto3.client("iam", config=PATIENT)
        self._lambda: LambdaClient = boto3.client("lambda", config=PATIENT)
        self._sqs: SQSClient = boto3.client("sqs", config=PATIENT)
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

    def obstacles(self) -> Sequence[str]:
        return [*self._refusals(), *self._attached_policies()]

    def _refusals(self) -> Iterator[str]:
        (described,) = self._cloudformation.describe_stacks(StackName=self._name)["Stacks"]
        if parent := described.get("ParentId"):
            yield f"It is a part of the stack {_stack_name(parent)}: delete that one instead."
        elif described.get("EnableTerminationProtection"):
            yield (
                "Its termination protection is on. To switch it off: `aws cloudformation "
                "update-termination-protection --no-enable-termination-protection --stack-name "
                f"{self._name}`."
            )
        status = described["StackStatus"]
        if status.endswith("_IN_PROGRESS"):
            yield f"Its status is {status}: wait until that ends."
        elif status == "DELETE_FAILED":
            yield f"It is deleted in part already. {_delete_again(self._name)}"

    def _attached_policies(self) -> Iterator[str]:
        pages = self._iam.get_paginator("list_entities_for_policy")
        for policy in _POLICIES:
            users = [
                name
                for page in pages.paginate(PolicyArn=self._physical(policy))
                for name in (
                    *(f"user {one['UserName']}" for one in page["PolicyUsers"]),
                    *(f"group {one['GroupName']}" for one in page["PolicyGroups"]),
                    *(f"role {one['RoleName']}" for one in page["PolicyRoles"]),
                )
            ]
            if users:
                yield f"{policy} is attached to {', '.join(users)}: detach it there."

    def stop_intake(self) -> None:
        for rule in _INTAKE:
            self._events.disable_rule(Name=self._physical(rule))
        self._lambda.update_event_source_mapping(
            UUID=self._physical(_INTAKE_MAPPING), Enabled=False
        )

    def start_intake(self) -> None:
        """Undo `stop_intake`."""
        for rule in _INTAKE:
            self._events.enable_rule(Name=self._physical(rule))
        self._lambda.update_event_source_mapping(UUID=self._physical(_INTAKE_MAPPING), Enabled=True)

    def is_intake_stopped(self) -> bool:
        mapping = self._lambda.get_event_source_mapping(UUID=self._physical(_INTAKE_MAPPING))
        return mapping["State"] == "Disabled"

    def intake_call_seconds(self) -> float:
        function = self._physical("IntakeFunction")
        return self._lambda.get_function_configuration(FunctionName=function)["Timeout"]

    def running(self) -> Iterator[Execution]:
        pages = self._states.get_paginator("list_executions")
        for page in pages.paginate(stateMachineArn=self._machine, statusFilter="RUNNING"):
            for listed in page["executions"]:
                execution = self._deployed.execution(listed["name"])
                if execution and execution.status == "RUNNING":
                    yield execution

    def stop(self, execution: Execution) -> None:
        arn = self._machine.replace(":stateMachine:", ":execution:", 1)
        self._states.stop_execution(
            executionArn=f"{arn}:{execution.name}", cause="The stack is being deleted."
        )

    def unsuccessful(self) -> Iterator[Execution]:
        return self._deployed.unsuccessful_since(datetime.now(UTC) - LOOKS_BACK)

    def is_concluded(self, execution: Execution) -> bool:
        outcome = self._deployed.outcome(execution.job, execution.started_at)
        if outcome and outcome.sent_at:
            return True
        # It may have succeeded just before it was stopped, and one that repeats has no outcome.
        now = self._deployed.execution(execution.name)
        return now is not None and now.status == "SUCCEEDED"

    def dead_letters(self) -> Sequence[str]:
        # A long poll asks all of the queue's servers. Nobody else reads here: nothing is hidden.
        received = self._sqs.receive_message(
            QueueUrl=self._dead_letters,
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,
            WaitTimeSeconds=2,
        )
        return sorted({_execution_in(one["Body"]) for one in received.get("Messages", [])})

    def rules_on_its_bus(self) -> Sequence[str]:
        if "EventBus" not in self._resources:
            return ()  # it belongs to somebody else, and stays
        bus = self._physical("EventBus")
        pages = self._events.get_paginator("list_rules").paginate(EventBusName=bus)
        ours = {physical.rpartition("|")[2] for _, physical in self._resources.values()}
        # The archive's rule is EventBridge's own, and goes with the archive.
        return [
            rule["Name"]
            for page in pages
            for rule in page["Rules"]
            if rule["Name"] not in ours and "ManagedBy" not in rule
        ]

    def importers(self) -> Sequence[str]:
        (described,) = self._cloudformation.describe_stacks(StackName=self._name)["Stacks"]
        exports = [it["ExportName"] for it in described.get("Outputs", []) if "ExportName" in it]
        return sorted({name for export in exports for name in self._importers_of(export)})

    def _importers_of(self, export: str) -> list[str]:
        pages = self._cloudformation.get_paginator("list_imports")
        try:
            return [name for page in pages.paginate(ExportName=export) for name in page["Imports"]]
        except ClientError as error:
            if "is not imported by any stack" in str(error):  # which is no empty list
                return []
            raise

    def delete(self) -> None:
        self._cloudformation.delete_stack(StackName=self._name)
        try:
            self._cloudformation.get_waiter("stack_delete_complete").wait(StackName=self._name)
        except WaiterError as error:
            raise PartlyDeleted(
                f"The stack is deleted in part. {_delete_again(self._name)}"
            ) from error

    def _physical(self, logical_id: str) -> str:
        return self._resources[logical_id][1]


def _stack_name(arn: str) -> str:
    return arn.split("/")[1]


def _delete_again(stack: str) -> str:
    return (
        "Its events in CloudFormation name what could not be deleted. Remove the cause, and run "
        f"`aws cloudformation delete-stack --stack-name {stack}`."
    )


def _execution_in(dead_letter: str) -> str:
    """Its name, in what Lambda sends of a call that failed for good."""
    try:
        arn: str = json.loads(dead_letter)["requestPayload"]["detail"]["executionArn"]
    except (ValueError, KeyError, TypeError):
        return "an unreadable event"
    return arn.rpartition(":")[2]
