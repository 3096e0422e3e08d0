"""An update changes a function's code, layers and environment at one moment: everything calls the
alias `live`, and each change is published."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.sam_template import RESOURCES, TEMPLATE, of_type

FUNCTIONS = of_type("AWS::Serverless::Function")


def _references(value: Any) -> Iterator[str]:  # noqa: ANN401 - as YAML has it
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in {"Ref", "GetAtt"}:
                yield inner
            elif key == "Sub":
                text, values = inner if isinstance(inner, list) else (inner, {})
                yield from set(re.findall(r"\$\{([\w.]+)\}", text)) - set(values)
                yield from _references(values)
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_everything_calls_the_alias() -> None:
    called = {
        (resource, reference)
        for resource, it in RESOURCES.items()
        for reference in _references(it)
        if reference.split(".")[0] in FUNCTIONS
    }

    assert ("RenderStateMachine", "PollFunction.Alias") in called
    # An execution that began before there were aliases calls the function.
    # What configures a function's alias names both.
    assert {
        who
        for who, what in called
        if not what.endswith(".Alias")
        and RESOURCES[who]["Type"] != "AWS::Lambda::EventInvokeConfig"
    } == {"RenderRole"}
    assert TEMPLATE["Outputs"]["SweepFunctionName"]["Value"] == {"Sub": "${SweepFunction}:live"}
    assert TEMPLATE["Globals"]["Function"]["AutoPublishAlias"] == "live"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_change_of_a_function_is_published(function: str) -> None:
    settings = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]["SETTINGS_VERSION"]

    assert FUNCTIONS[function]["AutoPublishAliasAllProperties"] is True
    # CloudFormation replaces a version whose description changes. Lambda publishes only a function
    # that changed itself: hence the variable.
    assert FUNCTIONS[function]["VersionDescription"] == {"Sub": "Settings ${SettingsVersion}"}
    assert settings == {"Ref": "SettingsVersion"}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_old_version_stays_when_its_description_changes(function: str) -> None:
    """SAM gives the policy of a function to its version, which CloudFormation then replaces."""
    assert RESOURCES[function]["UpdateReplacePolicy"] == "Retain"


def test_each_parameter_is_in_the_settings_whose_number_is_published() -> None:
    content = of_type("AWS::AppConfig::HostedConfigurationVersion")["SettingsVersion"]["Content"]

    assert set(_references(content)) == set(TEMPLATE["Parameters"])


@pytest.mark.parametrize("layer", of_type("AWS::Serverless::LayerVersion"))
def test_a_new_layer_publishes_its_functions_and_the_old_one_stays(layer: str) -> None:
    properties = of_type("AWS::Serverless::LayerVersion")[layer]

    assert properties["PublishLambdaVersion"] is True
    assert properties["RetentionPolicy"] == "Retain"


def test_intake_is_updated_after_the_steps() -> None:
    """The release before renders a dry run: it does not know the word."""
    assert "RenderStateMachine" in RESOURCES["IntakeFunction"]["DependsOn"]
