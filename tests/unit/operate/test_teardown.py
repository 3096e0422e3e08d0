"""Teardown: nothing new begins, what runs is stopped and concluded, and only then it is deleted."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from operate import teardown as module
from operate.__main__ import app
from operate.choice import Execution
from operate.stack import Outputs
from operate.teardown import (
    BusInUse,
    IntakeRuns,
    NotConcluded,
    PartlyDeleted,
    StandingStack,
    Undeletable,
    teardown,
)
from tests.support.render_fakes import JOB, NOON


def _execution(name: str) -> Execution:
    return Execution(
        name=name, status="RUNNING", started_at=NOON, stopped_at=None, error=None, job=JOB
    )


class Stack:
    """One whose intake starts `late` when an execution is stopped, or when its list was empty.

    Its lists show what is stopped for `lag` more looks.
    """

    def __init__(
        self, running: Sequence[str] = (), late: Sequence[str] = (), lag: int = 0, looks: int = 2
    ) -> None:
        self.left = [_execution(name) for name in running]
        self.ended: list[Execution] = []
        self.late = [_execution(name) for name in late]
        self.lag = lag
        self.looks = looks
        self.looks_at_intake = 0
        self.refusals: Sequence[str] = ()
        self.letters: Sequence[str] = ()
        self.rules: Sequence[str] = ()
        self.importing: Sequence[str] = ()
        self.is_deletable = True
        self.log: list[str] = []
        self.said: list[str] = []

    def obstacles(self) -> Sequence[str]:
        return self.refusals

    def stop_intake(self) -> None:
        self.log.append("stop intake")

    def is_intake_stopped(self) -> bool:
        self.looks_at_intake -= 1
        return self.looks_at_intake < 0

    def intake_call_seconds(self) -> float:
        return 30

    def running(self) -> Iterable[Execution]:
        self.log.append("list")
        stale, self.lag = (self.ended, self.lag - 1) if self.lag else ([], 0)
        listed = [*self.left, *stale]
        if not listed:
            self.left, self.late = self.late, []
        return listed

    def stop(self, execution: Execution) -> None:
        self.log.append(f"stop {execution.name}")
        self.left.remove(execution)
        self.ended.append(execution)

    def unsuccessful(self) -> Iterable[Execution]:
        return self.ended

    def is_concluded(self, execution: Execution) -> bool:
        self.looks -= 1
        return self.looks < 0

    def dead_letters(self) -> Sequence[str]:
        return self.letters

    def rules_on_its_bus(self) -> Sequence[str]:
        return self.rules

    def importers(self) -> Sequence[str]:
        return self.importing

    def delete(self) -> None:
        if not self.is_deletable:
            raise PartlyDeleted
        self.log.append("delete")

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.log.append(f"wait {seconds:g}")

    def teardown(self, patience_seconds: float = 60) -> None:
        teardown(self, self.said.append, self.sleep, patience_seconds)


INTAKE_ENDS = ["stop intake", "wait 35"]


def test_all_executions_are_stopped_and_concluded_before_the_stack_is_deleted() -> None:
    stack = Stack(["waits", "renders"])

    stack.teardown()

    assert stack.log == [
        *INTAKE_ENDS,
        *("list", "stop waits", "stop renders", "wait 5", "list"),
        *("wait 5", "wait 5", "list", "delete"),
    ]
    assert "2 executions are stopped." in stack.said
    assert "UNDO" not in " ".join(stack.said)


def test_an_idle_stack_is_looked_at_twice_some_seconds_apart() -> None:
    stack = Stack()

    stack.teardown()

    assert stack.log == [*INTAKE_ENDS, "list", "wait 5", "list", "delete"]


def test_what_a_list_shows_late_is_stopped_too() -> None:
    stack = Stack(late=["late"])

    stack.teardown()

    assert stack.log[2:5] == ["list", "wait 5", "list"]
    assert stack.log[5:7] == ["list", "stop late"]
    assert stack.log[-3:] == ["wait 5", "list", "delete"]
    assert stack.said[-2] == "1 executions are stopped."


def test_what_a_list_still_shows_is_stopped_and_counted_once() -> None:
    stack = Stack(["renders"], lag=3)

    stack.teardown()

    assert stack.log.count("stop renders") == 1
    assert "1 executions are stopped." in stack.said


def test_calls_of_intake_have_ended_before_executions_are_listed() -> None:
    stack = Stack()
    stack.looks_at_intake = 2

    stack.teardown()

    assert stack.log[:5] == ["stop intake", "wait 5", "wait 5", "wait 35", "list"]


def test_while_intake_runs_nothing_is_stopped() -> None:
    stack = Stack(["renders"])
    stack.looks_at_intake = 1000

    with pytest.raises(IntakeRuns):
        stack.teardown()

    assert set(stack.log) == {"stop intake", "wait 5"}


def test_consumers_get_the_last_events_before_their_rules_have_to_go() -> None:
    stack = Stack(["renders"], looks=0)
    stack.rules = ["ours"]
    stack.importing = ["site"]

    uses = "the rule ours, the stack site, which imports the bus."
    with pytest.raises(BusInUse, match=f"Others use the event bus: {uses}"):
        stack.teardown()
    assert "stop renders" in stack.log
    assert "delete" not in stack.log
    assert stack.said[0].endswith(f"when the last events are sent: {uses}")
    stack.rules = stack.importing = ()
    stack.teardown()

    assert stack.log[-1] == "delete"


def test_without_a_conclusion_nothing_is_deleted_whichever_teardown_stopped_the_job() -> None:
    stack = Stack(["stuck"], looks=1000)

    for _ in range(2):
        with pytest.raises(NotConcluded, match="1 jobs have no outcome yet, such as stuck"):
            stack.teardown()

    assert "delete" not in stack.log
    assert stack.log.count("stop stuck") == 1
    assert stack.log.count("wait 5") == 1 + 12 + 12
    assert "make teardown UNDO=1" in stack.said[-1]


def test_what_conclude_gave_up_before_is_named_while_intake_still_runs() -> None:
    stack = Stack(["renders"])
    stack.letters = ["anna-1"]

    with pytest.raises(NotConcluded, match="has messages about anna-1"):
        stack.teardown()

    assert stack.log == []


def test_what_conclude_gave_up_meanwhile_is_named_and_not_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = Stack(["renders"])
    answers: list[Sequence[str]] = [(), ("anna-1",)]
    monkeypatch.setattr(stack, "dead_letters", lambda: answers.pop(0))

    with pytest.raises(NotConcluded, match="has messages about anna-1"):
        stack.teardown()

    assert "delete" not in stack.log


def test_what_aws_would_refuse_is_said_while_intake_still_runs() -> None:
    stack = Stack(["renders"])
    stack.refusals = ["Its status is UPDATE_IN_PROGRESS: wait until that ends.", "And more."]

    with pytest.raises(Undeletable, match=r"wait until that ends\. And more\. Nothing is deleted"):
        stack.teardown()

    assert stack.log == []
    assert stack.said == []


def test_intake_cannot_be_switched_on_in_a_stack_that_is_deleted_in_part() -> None:
    stack = Stack()
    stack.is_deletable = False

    with pytest.raises(PartlyDeleted):
        stack.teardown()

    assert "UNDO" not in " ".join(stack.said)


# The adapter, on clients that answer what the test says


class Clients:
    """The answers of AWS. The names of what is switched on and off are in `log`."""

    def __init__(self) -> None:
        self.described: dict[str, object] = {"StackStatus": "UPDATE_COMPLETE"}
        self.attached: dict[str, dict[str, list[dict[str, str]]]] = {}
        self.mapping = "Disabling"
        self.bodies: list[str] = []
        self.rules: list[dict[str, str]] = []
        self.importers: dict[str, list[str]] = {}
        self.log: list[tuple[str, str]] = []

    def client(self, *_: object, **__: object) -> "Clients":
        return self

    def get_paginator(self, operation: str) -> SimpleNamespace:
        def pages(PolicyArn: str = "", ExportName: str = "", **_: object) -> list[dict[str, Any]]:  # noqa: N803
            if operation == "list_imports":
                return self._imports_of(ExportName)
            if operation == "list_stack_resources":
                return [{"StackResourceSummaries": [_resource(name) for name in RESOURCES]}]
            if operation == "list_rules":
                return [{"Rules": self.rules}]
            users = self.attached.get(PolicyArn, {})
            kinds = ("PolicyUsers", "PolicyGroups", "PolicyRoles")
            return [{kind: users.get(kind, []) for kind in kinds}]

        return SimpleNamespace(paginate=pages)

    def _imports_of(self, export: str) -> list[dict[str, Any]]:
        if export not in self.importers:
            text = f"Export '{export}' is not imported by any stack."
            response: Any = {"Error": {"Code": "ValidationError", "Message": text}}
            raise ClientError(response, "ListImports")
        return [{"Imports": [name]} for name in self.importers[export]]

    def describe_stacks(self, **_: object) -> dict[str, object]:
        return {"Stacks": [self.described]}

    def receive_message(self, **_: object) -> dict[str, object]:
        return {"Messages": [{"Body": body} for body in self.bodies]} if self.bodies else {}

    def get_event_source_mapping(self, **_: object) -> dict[str, str]:
        return {"State": self.mapping}

    def disable_rule(self, Name: str) -> None:  # noqa: N803
        self.log.append(("off", Name))

    def enable_rule(self, Name: str) -> None:  # noqa: N803
        self.log.append(("on", Name))

    def update_event_source_mapping(self, *, UUID: str, Enabled: bool) -> None:  # noqa: N803
        self.log.append(("on" if Enabled else "off", UUID))


RESOURCES = (
    *("UploadRule", "SweepRule", "ServeRule", "IntakeFunctionUploads"),
    *("UploaderPolicy", "ReaderPolicy", "EventBus", "NotifyRule"),
)


def _resource(name: str) -> dict[str, str]:
    # CloudFormation's id of a rule on another bus than the default has the bus before.
    physical = f"its-bus|its-{name}" if name == "NotifyRule" else f"its-{name}"
    return {"LogicalResourceId": name, "ResourceType": "AWS", "PhysicalResourceId": physical}


class Deployed:
    status = "ABORTED"
    sent_at: datetime | None = None

    def __init__(self, outputs: Outputs) -> None: ...

    def execution(self, name: str) -> Execution:
        return replace(_execution(name), status=self.status)

    def outcome(self, *_: object) -> SimpleNamespace:
        return SimpleNamespace(sent_at=self.sent_at)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    clients = Clients()
    outputs = Outputs(StateMachineArn="arn:machine", UnconcludedJobsUrl="https://queue")
    monkeypatch.setattr(boto3, "client", clients.client)
    monkeypatch.setattr(module, "outputs_of", lambda _: outputs)
    monkeypatch.setattr(module, "DeployedStack", Deployed)
    return clients


PARENT = "arn:aws:cloudformation:eu-west-1:123456789012:stack/videos/6f0e"


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"EnableTerminationProtection": True}, "--no-enable-termination-protection --stack-name"),
        ({"StackStatus": "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"}, "CLEANUP_IN_PROGRESS: wait until"),
        ({"StackStatus": "DELETE_FAILED"}, "delete-stack --stack-name mine"),
        ({"ParentId": PARENT}, "part of the stack videos: delete that one"),
    ],
)
def test_a_stack_that_cannot_be_deleted_says_why(
    clients: Clients, described: dict[str, object], said: str
) -> None:
    assert StandingStack("mine").obstacles() == []
    clients.described |= described

    (obstacle,) = StandingStack("mine").obstacles()

    assert said in obstacle


def test_policies_in_use_name_their_users(clients: Clients) -> None:
    clients.attached = {
        "its-UploaderPolicy": {"PolicyUsers": [{"UserName": "anna"}]},
        "its-ReaderPolicy": {
            "PolicyGroups": [{"GroupName": "editors"}],
            "PolicyRoles": [{"RoleName": "site"}],
        },
    }

    assert StandingStack("mine").obstacles() == [
        "UploaderPolicy is attached to user anna: detach it there.",
        "ReaderPolicy is attached to group editors, role site: detach it there.",
    ]


def test_the_stacks_own_rules_are_not_in_the_way(clients: Clients) -> None:
    clients.rules = [
        {"Name": "Events-Archive-mine", "ManagedBy": "prod.vhs.events.aws.internal"},
        {"Name": "its-NotifyRule"},
        {"Name": "theirs"},
    ]

    assert StandingStack("mine").rules_on_its_bus() == ["theirs"]


def test_stacks_that_import_an_output_are_named(clients: Clients) -> None:
    exports = ("mine-EventBusName", "mine-EventBusArn")
    clients.described["Outputs"] = [
        {"OutputKey": "Version", "OutputValue": "1"},
        *({"OutputKey": it.partition("-")[2], "ExportName": it} for it in exports),
    ]
    assert StandingStack("mine").importers() == []

    clients.importers["mine-EventBusArn"] = ["site", "feed"]

    assert StandingStack("mine").importers() == ["feed", "site"]


def test_intake_has_not_stopped_while_its_event_source_is_being_disabled(clients: Clients) -> None:
    assert not StandingStack("mine").is_intake_stopped()
    clients.mapping = "Disabled"

    assert StandingStack("mine").is_intake_stopped()


def test_undo_only_enables_what_a_teardown_disables(clients: Clients) -> None:
    StandingStack("mine").stop_intake()
    stopped = [name for _, name in clients.log]
    clients.log.clear()

    told = CliRunner().invoke(app, ["teardown", "--undo"])

    assert told.exit_code == 0, told.output
    assert clients.log == [("on", name) for name in stopped]
    assert len(stopped) == 4


def test_dead_letters_are_named_by_their_executions(clients: Clients) -> None:
    arn = "arn:aws:states:eu-west-1:123456789012:execution:dropreel-render:anna-1"
    letter = json.dumps({"requestPayload": {"detail": {"executionArn": arn}}})
    assert StandingStack("mine").dead_letters() == []
    clients.bodies = [letter, letter, "{}"]

    assert StandingStack("mine").dead_letters() == ["an unreadable event", "anna-1"]


@pytest.mark.usefixtures("clients")
@pytest.mark.parametrize(
    ("status", "sent_at", "is_concluded"),
    [("ABORTED", None, False), ("ABORTED", NOON, True), ("SUCCEEDED", None, True)],
)
def test_an_execution_is_concluded_when_its_event_is_sent_or_it_succeeded(
    status: str, sent_at: datetime | None, is_concluded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deployed, "status", status)
    monkeypatch.setattr(Deployed, "sent_at", sent_at)

    assert StandingStack("mine").is_concluded(_execution("anna-1")) is is_concluded
