"""The template and the state machine's definition, as data for the rules that hold for them."""

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


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: r["Properties"] for name, r in RESOURCES.items() if r["Type"] == kind}


def timeout_seconds(function: str) -> int:
    ours = of_type("AWS::Serverless::Function")[function]
    seconds: int = ours.get("Timeout", TEMPLATE["Globals"]["Function"]["Timeout"])
    return seconds


def as_list(value: Any) -> list[Any]:  # noqa: ANN401 - a policy's one or many
    return value if isinstance(value, list) else [value]
