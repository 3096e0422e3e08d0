"""The template and the state machine's definition, as data for the rules that hold for them."""

import re
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

WRITTEN = yaml.load((PROJECT / "template.yaml").read_text(), _Loader)
"""The template with its conditions."""


def made(**parameters: str) -> dict[str, Any]:
    """The template as CloudFormation makes it of these parameters: conditions are decided, and a
    `Ref` stays one. Raises `RuntimeError` with the sentence of the rule that refuses them."""
    values = {name: it["Default"] for name, it in WRITTEN["Parameters"].items()} | parameters
    for rule in WRITTEN["Rules"].values():
        if "RuleCondition" not in rule or _holds(rule["RuleCondition"], values):
            for assertion in rule["Assertions"]:
                if not _holds(assertion["Assert"], values):
                    raise RuntimeError(assertion["AssertDescription"])
    decided = {name: _holds(it, values) for name, it in WRITTEN["Conditions"].items()}
    kept = {
        section: {
            name: it
            for name, it in WRITTEN[section].items()
            if "Condition" not in it or decided[it["Condition"]]
        }
        for section in ("Resources", "Outputs")
    }
    template: dict[str, Any] = _decided(WRITTEN | kept, decided)
    return template


def _holds(condition: dict[str, Any], values: dict[str, str]) -> bool:
    ((how, what),) = condition.items()
    if how == "Not":
        return not _holds(what[0], values)
    if how in ("And", "Or"):
        return (all if how == "And" else any)(_holds(one, values) for one in what)
    if how == "Condition":
        return _holds(WRITTEN["Conditions"][what], values)
    assert how == "Equals"
    one, other = (_text(it, values) for it in what)
    return bool(one == other)


_HERE = {"AWS::Partition": "aws", "AWS::Region": "eu-west-1", "AWS::AccountId": "123456789012"}


def _text(it: Any, values: dict[str, str]) -> Any:  # noqa: ANN401 - as YAML has it
    match it:
        case {"Ref": name}:
            return values[name]
        case {"Sub": text}:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: (values | _HERE)[found[1]], text)
        case {"Select": [index, {"Split": [separator, of]}]}:
            return _text(of, values).split(separator)[index]
    return it


_NO_VALUE = {"Ref": "AWS::NoValue"}


def _decided(it: Any, decided: dict[str, bool]) -> Any:  # noqa: ANN401 - as YAML has it
    if isinstance(it, list):
        return [one for one in (_decided(one, decided) for one in it) if one != _NO_VALUE]
    if not isinstance(it, dict):
        return it
    if set(it) == {"If"}:
        condition, yes, no = it["If"]
        return _decided(yes if decided[condition] else no, decided)
    values = {key: _decided(one, decided) for key, one in it.items()}
    if set(values) == {"Sub"} and isinstance(values["Sub"], list):
        text, names = values["Sub"]
        for name, value in names.items():
            ((_, target),) = value.items()
            text = text.replace(f"${{{name}}}", f"${{{target}}}")
        return {"Sub": text}
    return {key: one for key, one in values.items() if one != _NO_VALUE}


TEMPLATE = made()
"""As it is made with every default."""
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
