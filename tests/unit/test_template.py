"""Rules that hold for the whole template."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from local.embedded import PROJECT

# What has no ARN to name, by AWS's service authorization reference.
WITHOUT_ARN = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
}


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


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: r["Properties"] for name, r in RESOURCES.items() if r["Type"] == kind}


def as_list(value: Any) -> list[Any]:  # noqa: ANN401 - a policy's one or many
    return value if isinstance(value, list) else [value]


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, role in of_type("AWS::IAM::Role").items():
        for policy in role["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement


@pytest.mark.parametrize(("role", "statement"), list(statements()))
def test_a_role_names_its_actions_and_their_arns(role: str, statement: dict[str, Any]) -> None:
    actions = as_list(statement["Action"])

    assert not [action for action in actions if "*" in action]
    if "*" in as_list(statement["Resource"]):
        assert set(actions) <= WITHOUT_ARN, f"{role} may do {actions} to anything"


def test_each_function_has_a_role_of_its_own() -> None:
    functions = of_type("AWS::Serverless::Function")
    roles = [function["Role"]["GetAtt"] for function in functions.values()]

    assert len(functions) >= 6
    assert len(set(roles)) == len(functions)


def test_each_function_is_a_folder_with_a_log_group_that_forgets() -> None:
    groups = of_type("AWS::Logs::LogGroup").values()
    kept = {group["LogGroupName"]["Sub"] for group in groups if group["RetentionInDays"]}

    for function in of_type("AWS::Serverless::Function").values():
        assert (PROJECT / function["CodeUri"] / "app.py").is_file()
        assert f"/aws/lambda/{function['FunctionName']['Sub']}" in kept


def test_each_rule_target_retries_and_has_dead_letters() -> None:
    rules = of_type("AWS::Events::Rule")

    assert rules
    for rule in rules.values():
        for target in rule["Targets"]:
            assert target["RetryPolicy"]["MaximumRetryAttempts"] > 0
            assert target["DeadLetterConfig"]["Arn"]["GetAtt"].endswith(".Arn")


def test_each_queue_that_a_function_reads_gives_up_to_dead_letters_in_time() -> None:
    queues = of_type("AWS::SQS::Queue")
    default_seconds = TEMPLATE["Globals"]["Function"]["Timeout"]
    read = [
        (queues[event["Properties"]["Queue"]["GetAtt"].removesuffix(".Arn")], function)
        for function in of_type("AWS::Serverless::Function").values()
        for event in function.get("Events", {}).values()
        if event["Type"] == "SQS"
    ]

    assert read
    for queue, function in read:
        assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5
        assert queue["VisibilityTimeout"] >= 6 * function.get("Timeout", default_seconds)


def test_buckets_are_private_versioned_and_forget_unfinished_uploads() -> None:
    buckets = of_type("AWS::S3::Bucket")
    tls_only = {
        policy["Bucket"]["Ref"]
        for policy in of_type("AWS::S3::BucketPolicy").values()
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Deny"
        and statement["Condition"]["Bool"] == {"aws:SecureTransport": "false"}
    }

    assert set(buckets) == tls_only == {"UploadBucket", "VideoBucket"}
    for bucket in buckets.values():
        assert bucket["VersioningConfiguration"]["Status"] == "Enabled"
        assert all(bucket["PublicAccessBlockConfiguration"].values())
        rules = bucket["LifecycleConfiguration"]["Rules"]
        (abort,) = (rule for rule in rules if "AbortIncompleteMultipartUpload" in rule)
        assert abort["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1
        assert "Prefix" not in abort


def test_conformed_copies_expire_after_a_week() -> None:
    rules = of_type("AWS::S3::Bucket")["UploadBucket"]["LifecycleConfiguration"]["Rules"]

    (expire,) = (rule for rule in rules if rule.get("Prefix") == "work/")
    assert expire["ExpirationInDays"] == 7
