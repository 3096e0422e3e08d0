"""The templates of the examples in `examples/consumers`, as data."""

from typing import Any

import yaml

from local.embedded import PROJECT

FOLDER = PROJECT / "examples/consumers"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/template.yaml"))

Template = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms as the long ones: `!GetAtt X.Arn` becomes
    {"Fn::GetAtt": ["X", "Arn"]}."""


def _long_form(loader: yaml.Loader, suffix: str, node: yaml.Node) -> Template:
    assert isinstance(node, yaml.ScalarNode)
    value = loader.construct_scalar(node)
    if suffix == "GetAtt":
        return {"Fn::GetAtt": str(value).split(".")}
    return {"Ref" if suffix == "Ref" else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _long_form)


def template(name: str) -> Template:
    loaded: Template = yaml.load((FOLDER / name / "template.yaml").read_text(), _Loader)
    return loaded


def of_type(template: Template, kind: str) -> dict[str, Template]:
    """The properties of the resources of a type, by their names."""
    return {n: r["Properties"] for n, r in template["Resources"].items() if r["Type"] == kind}
