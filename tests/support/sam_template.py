"""The template and the state machine's definition, as data for the rules that hold for them."""

from collections.abc import Iterator
from typing import Any

import yaml

from local.embedded import PROJECT


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms: `!Ref X` becomes {"Ref": "X"}."""


def _short_form(loader: yaml.Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {suffix: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _short_form)

TEMPLATE = yaml.load((PROJECT / "template.yaml").read_text(), _Loader)
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
DEFINITION: dict[str, Any] = yaml.safe_load((PROJECT / "statemachine/render.asl.yaml").read_text())


OUTER: dict[str, dict[str, Any]] = DEFINITION["States"]
INNER: dict[str, dict[str, Any]] = OUTER["Render"]["Branches"][0]["States"]
TASKS = {name: state for name, state in (OUTER | INNER).items() if state["Type"] == "Task"}

DAY_SECONDS = 24 * 3600


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: r["Properties"] for name, r in RESOURCES.items() if r["Type"] == kind}


def timeout_seconds(function: str) -> int:
    ours = of_type("AWS::Serverless::Function")[function]
    seconds: int = ours.get("Timeout", TEMPLATE["Globals"]["Function"]["Timeout"])
    return seconds


def retry_waits_seconds(retrier: dict[str, Any], number: int) -> list[float]:
    """How long the first retries wait on average: the jitter is full, so half of the delay."""
    delays = (
        retrier["IntervalSeconds"] * retrier["BackoffRate"] ** min(retry, 50)
        for retry in range(number)
    )
    return [min(delay, retrier["MaxDelaySeconds"]) / 2 for delay in delays]


def patience_seconds(retrier: dict[str, Any]) -> float:
    """How long a step is retried, on average."""
    return sum(retry_waits_seconds(retrier, retrier["MaxAttempts"]))


def as_list(value: Any) -> list[Any]:  # noqa: ANN401 - a policy's one or many
    return value if isinstance(value, list) else [value]


# Named where the state machine itself names the function.
MACHINE = (
    "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:stateMachine:"
    "${AWS::StackName}-render"
)


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, role in of_type("AWS::IAM::Role").items():
        for policy in role["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement
    for policy in of_type("AWS::IAM::Policy").values():
        for role in policy["Roles"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield role["Ref"], statement


def may(role: str, action: str) -> list[Any]:
    """What a role may do this to, without any further condition."""
    return [
        resource
        for name, statement in statements()
        if name == role and statement["Effect"] == "Allow" and "Condition" not in statement
        if action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]
