"""Write the Terraform module's variables and outputs, from the template.

python -m deploy.terraform_module
"""

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.stack_name import MAX_STACK_NAME_CHARACTERS, PATTERN, RESERVED

PROJECT: Final = Path(__file__).resolve().parent.parent
MODULE: Final = PROJECT / "deploy/terraform"
_MADE = "# Made by `make terraform` from template.yaml.\n"

_OF_THE_BUILD: Final = "Architecture"
"""Its default is that of the packaged template, which fits the layers in it."""

_OF_THE_MODULE: Final = f"""
variable "template_url" {{
  description = "The URL that `make package` printed. A new version has a new URL."
  type        = string
  nullable    = false
}}

variable "stack_name" {{
  description = "The name of the stack. Its functions and its event bus carry it."
  type        = string
  default     = "dropreel"
  nullable    = false
  validation {{
    condition     = can(regex({json.dumps(PATTERN)}, var.stack_name)) && !can(regex({json.dumps(RESERVED)}, var.stack_name)) && var.stack_name != "default"
    error_message = "At most {MAX_STACK_NAME_CHARACTERS} letters, digits and hyphens, beginning with a letter, not with \\"aws\\" or \\"ssm\\"; not \\"default\\"."
  }}
}}

variable "tags" {{
  description = "Tags of the stack. CloudFormation puts them on everything in it that takes tags."
  type        = map(string)
  default     = {{}}
  nullable    = false
}}
"""  # noqa: E501 - Terraform breaks no strings

_RESERVED: Final = {"template_url", "stack_name", "tags"} | {
    *("source", "version", "providers", "count", "for_each", "lifecycle", "depends_on", "locals"),
}
_NOT_IN_RE2 = re.compile(r"\(\?(=|!|<)")
"""Terraform's patterns know no look-around. CloudFormation still checks these."""


class _Template(yaml.SafeLoader):
    """Reads the template without its short forms, such as `!Ref`."""


_Template.add_multi_constructor("!", lambda _loader, suffix, _node: suffix)


def files(template: dict[str, Any]) -> dict[Path, str]:
    """The text of each generated file."""
    return {MODULE / "variables.tf": variables(template), MODULE / "outputs.tf": outputs(template)}


def variables(template: dict[str, Any]) -> str:
    """One typed variable for each parameter, and the map that the stack gets."""
    parameters = template["Parameters"]
    text = _MADE + _OF_THE_MODULE
    text += "".join(_variable(name, parameter) for name, parameter in parameters.items())
    widest = max(map(len, parameters))
    rows = (
        f"    {name:{widest}} = {_as_parameter(name, parameter)}\n"
        for name, parameter in parameters.items()
    )
    return f"{text}\nlocals {{\n  parameters = {{\n{''.join(rows)}  }}\n}}\n"


def outputs(template: dict[str, Any]) -> str:
    """One output for each of the stack's. One under a condition may be null."""
    made = (
        f'\noutput "{snake(name)}" {{\n'
        f"  description = {_text(output['Description'])}\n"
        f'  value       = lookup(aws_cloudformation_stack.dropreel.outputs, "{name}", null)\n'
        "}\n"
        for name, output in template["Outputs"].items()
    )
    return _MADE + "".join(made)


def snake(name: str) -> str:
    """`DailySpendLimitUsd` as `daily_spend_limit_usd`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return words.lower().replace("run_comfy", "runcomfy").replace("wave_speed", "wavespeed")


def type_of(parameter: dict[str, Any]) -> str:
    """The Terraform type of a parameter's values."""
    kind: str = parameter["Type"]
    if kind == "Number":
        return "number"
    if kind == "List<Number>":
        return "list(number)"
    if kind == "CommaDelimitedList" or kind.startswith("List<"):
        return "list(string)"
    if set(parameter.get("AllowedValues", ())) == {"true", "false"}:
        return "bool"
    return "string"


def _variable(name: str, parameter: dict[str, Any]) -> str:
    variable, kind = snake(name), type_of(parameter)
    if variable in _RESERVED:
        raise ValueError(f"The parameter {name} needs another name: Terraform or the module has it")
    lines = [f"description = {_text(parameter['Description'])}", f"type        = {kind}"]
    if name == _OF_THE_BUILD:
        lines.append("default     = null # that of the packaged template")
    else:
        if "Default" in parameter:
            lines.append(f"default     = {_default(kind, parameter['Default'])}")
        lines.append("nullable    = false")
    lines += _validations(name, kind, parameter)
    body = "".join(f"  {line}\n" for line in lines)
    return f'\nvariable "{variable}" {{\n{body}}}\n'


def _default(kind: str, default: object) -> str:
    if kind.startswith("list"):
        items = [item for item in str(default).split(",") if item]
        numbers = kind == "list(number)"
        return f"[{', '.join(item if numbers else _text(item) for item in items)}]"
    return str(default) if kind in {"number", "bool"} else _text(str(default))


def _validations(name: str, kind: str, parameter: dict[str, Any]) -> list[str]:
    value, rules = f"var.{snake(name)}", []
    if kind in {"number", "string"} and (allowed := parameter.get("AllowedValues")):
        words = [str(one) if kind == "number" else _text(str(one)) for one in allowed]
        rules.append(f"contains([{', '.join(words)}], {value})")
    if "MinValue" in parameter:
        rules.append(f"{value} >= {parameter['MinValue']}")
    if "MaxValue" in parameter:
        rules.append(f"{value} <= {parameter['MaxValue']}")
    if "MinLength" in parameter:
        rules.append(f"length({value}) >= {parameter['MinLength']}")
    if "MaxLength" in parameter:
        rules.append(f"length({value}) <= {parameter['MaxLength']}")
    pattern = parameter.get("AllowedPattern")
    if kind == "string" and pattern and not _NOT_IN_RE2.search(pattern):
        rules.append(f"can(regex({_text(f'^(?:{pattern})$')}, {value}))")
    if not rules:
        return []
    condition = " && ".join(rules)
    if name == _OF_THE_BUILD:
        condition = f"{value} == null ? true : {condition}"
    message = parameter.get("ConstraintDescription") or _bounds(parameter)
    return [
        "validation {",
        f"  condition     = {condition}",
        f"  error_message = {_text(f'{name}: {message.strip()}.')}",
        "}",
    ]


def _bounds(parameter: dict[str, Any]) -> str:
    if allowed := parameter.get("AllowedValues"):
        return f"one of {', '.join(map(str, allowed))}"
    words = [
        f"{word} {parameter[bound]}{unit}"
        for bound, word, unit in (
            ("MinValue", "at least", ""),
            ("MaxValue", "at most", ""),
            ("MinLength", "at least", " characters"),
            ("MaxLength", "at most", " characters"),
        )
        if bound in parameter
    ]
    return " and ".join(words) or f"must match {parameter['AllowedPattern']}"


def _as_parameter(name: str, parameter: dict[str, Any]) -> str:
    value = f"var.{snake(name)}"
    return f'join(",", {value})' if type_of(parameter).startswith("list") else value


def _text(words: str) -> str:
    """A quoted string of Terraform."""
    quoted = json.dumps(words.strip(), ensure_ascii=False)
    return quoted.replace("${", "$${").replace("%{", "%%{")


def template() -> dict[str, Any]:
    """The template, with its short forms as text."""
    source = (PROJECT / "template.yaml").read_text()
    loaded: dict[str, Any] = yaml.load(source, _Template)  # noqa: S506 - a SafeLoader
    return loaded


def main() -> None:
    for path, text in files(template()).items():
        path.write_text(text)


if __name__ == "__main__":
    main()
