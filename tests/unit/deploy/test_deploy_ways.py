"""What is deployed can be named, moved and packaged; the Terraform module is as the template."""

import re
from typing import Any

import boto3
import pytest
from moto import mock_aws

from deploy import build, package, terraform_module
from deploy.stack_name import MAX_STACK_NAME_CHARACTERS, refusal
from local.embedded import PROJECT
from tests.support.sam_template import RESOURCES, TEMPLATE

# The limits of AWS for names that the template makes of the stack's.
MAX_CHARACTERS = {
    "FunctionName": 64,
    "LayerName": 64,
    "Name": 80,  # a state machine's; an event bus may have 256
    "LogGroupName": 512,
    "DashboardName": 255,
    "DisplayName": 100,
}
NAMES = [
    (name, property_, resource["Properties"][property_])
    for name, resource in RESOURCES.items()
    for property_ in resource.get("Properties", {})
    if re.fullmatch(r"(\w+)?Name", property_)
    and property_ not in {"PolicyName", "MetricName", "EventBusName"}
    and resource["Type"]
    not in {
        "AWS::Lambda::Permission",
        "AWS::Lambda::EventInvokeConfig",
        "AWS::AppConfig::ConfigurationProfile",  # of an application with the stack's name
    }
]


@pytest.mark.parametrize(("resource", "property_", "name"), NAMES)
def test_names_carry_the_stacks_and_fit_the_longest(
    resource: str, property_: str, name: dict[str, Any]
) -> None:
    written = name.get("Sub") or f"${{{name['Ref']}}}"

    assert "${AWS::StackName}" in written  # several stacks share an account and a region
    longest = written.replace("${AWS::StackName}", "s" * MAX_STACK_NAME_CHARACTERS)
    assert len(longest) <= MAX_CHARACTERS[property_]


@pytest.mark.parametrize("name", ["s" * 51, "9lives", "a_b", "", "default", "AWS-a", "ssm"])
def test_a_stack_name_that_cannot_be_is_refused_in_words(name: str) -> None:
    assert refusal(name)


def test_the_longest_stack_name_is_possible_and_documented() -> None:
    assert refusal("s" * MAX_STACK_NAME_CHARACTERS) is None
    assert f"{MAX_STACK_NAME_CHARACTERS} characters" in (PROJECT / "docs/deploying.md").read_text()


@pytest.mark.parametrize(
    "file", ["template.yaml", "statemachine/render.asl.yaml", "deploy/terraform/main.tf"]
)
def test_nothing_is_tied_to_a_region_or_a_partition(file: str) -> None:
    text = (PROJECT / file).read_text()

    assert "arn:aws" not in text
    assert not re.search(r"\b(us|eu|ap|sa|ca|af|me|cn)-[a-z]+-\d\b", text)
    # Service principals are the same in all partitions; a host is not.
    hosts = set(re.findall(r"[\w.-]+\.amazonaws\.com", text))
    services = {"cloudwatch", "events", "lambda", "states"}
    assert hosts <= {f"{service}.amazonaws.com" for service in services}


def test_the_terraform_module_is_as_the_template() -> None:
    template = terraform_module.template()

    for path, text in terraform_module.files(template).items():
        assert path.read_text() == text, "run make terraform"


def test_a_parameter_keeps_its_type_default_and_bounds() -> None:
    text = terraform_module.variables(
        {
            "Parameters": {
                "SubnetIds": {
                    "Type": "CommaDelimitedList",
                    "Default": "",
                    "Description": "Where.",
                },
                "KmsKeyArn": {
                    "Type": "String",
                    "Default": "",
                    "AllowedPattern": "|arn:${x}\\d+",
                    "Description": "The key.",
                },
            }
        }
    )

    assert 'variable "subnet_ids"' in text
    assert "type        = list(string)\n  default     = []" in text
    assert 'variable "kms_key_arn"' in text
    assert r'regex("^(?:|arn:$${x}\\d+)$", var.kms_key_arn)' in text
    assert 'join(",", var.subnet_ids)' in text


def test_the_built_template_carries_its_architecture() -> None:
    template = {"Parameters": {"Architecture": dict(TEMPLATE["Parameters"]["Architecture"])}}

    build.carry(template, "x86_64")

    assert template["Parameters"]["Architecture"]["Default"] == "x86_64"
    assert template["Parameters"]["Architecture"]["AllowedValues"] == ["x86_64"]


@pytest.mark.parametrize(
    ("region", "console", "host"),
    [
        ("eu-central-1", "console.aws.amazon.com", "s3.eu-central-1.amazonaws.com"),
        ("cn-north-1", "console.amazonaws.cn", "s3.cn-north-1.amazonaws.com.cn"),
        (
            "us-gov-west-1",
            "console.amazonaws-us-gov.com",
            "s3.us-gov-west-1.amazonaws.com",
        ),
    ],
)
def test_the_links_are_those_of_the_partition(region: str, console: str, host: str) -> None:
    url = package.url_of("code", "dropreel/t.yaml", region)

    assert url == f"https://{host}/code/dropreel/t.yaml"
    link = package.quick_create_url(url, region, "dropreel")
    assert link.startswith(f"https://{console}/cloudformation/home?region={region}#")
    assert link.endswith(
        f"templateURL=https%3A%2F%2F{host}%2Fcode%2Fdropreel%2Ft.yaml&stackName=dropreel"
    )


@mock_aws
def test_artifacts_go_into_the_region_of_their_bucket() -> None:
    boto3.client("s3", region_name="eu-west-1").create_bucket(
        Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )

    assert package.region_of("artifacts") == "eu-west-1"
