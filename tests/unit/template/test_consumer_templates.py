"""The rules that hold for each example in `examples/consumers`."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from dropreel.model.events import DetailType
from dropreel.model.job import slug
from local.contract import error_codes
from tests.support.consumers import FOLDER, NAMES, Template, of_type, template

DAY_SECONDS = 24 * 3600

WRITTEN_BY_DROPREEL = {
    "$.detail.job.id": r"[a-z0-9-]+",
    "$.detail.error.code": r"[A-Za-z]+",
    "$.detail.video.bucket": r"[a-z0-9.-]+",
    "$.detail.waited_minutes": r"[0-9.]+",
}
"""The fields that no person writes, and all that their values can have. EventBridge escapes
nothing, so no other field may go into a text."""

ENDS = [DetailType.VIDEO_READY, DetailType.VIDEO_FAILED, DetailType.UPLOAD_INCOMPLETE]
every_example = pytest.mark.parametrize("name", NAMES)


def rules(of: Template) -> dict[str, Template]:
    return of_type(of, "AWS::Events::Rule")


def targets(of: Template) -> Iterator[tuple[str, Template]]:
    for name, rule in rules(of).items():
        for target in rule["Targets"]:
            yield name, target


def statements(of: Template) -> Iterator[Template]:
    for policy in (
        *of_type(of, "AWS::SQS::QueuePolicy").values(),
        *of_type(of, "AWS::SNS::TopicPolicy").values(),
        *(one for role in of_type(of, "AWS::IAM::Role").values() for one in role["Policies"]),
    ):
        yield from policy["PolicyDocument"]["Statement"]


def as_list(value: Any) -> list[Any]:  # noqa: ANN401 - a policy's one or many
    return value if isinstance(value, list) else [value]


def arn(resource: str) -> Template:
    return {"Fn::GetAtt": [resource, "Arn"]}


def test_there_is_an_example_for_each_way() -> None:
    assert NAMES == ["lambda", "other-account", "slack", "sns-mail", "sqs", "webhook"]


@every_example
def test_its_rules_get_the_end_of_each_job_from_dropreel_only(name: str) -> None:
    buses: dict[str, list[str]] = {}
    for rule in rules(template(name)).values():
        assert rule["EventPattern"]["source"] == ["dropreel"]
        buses.setdefault(str(rule["EventBusName"]), []).extend(rule["EventPattern"]["detail-type"])

    assert buses
    assert all(types == ENDS for types in buses.values())


@every_example
def test_each_delivery_is_retried_for_a_day_and_then_kept(name: str) -> None:
    example = template(name)
    queues = of_type(example, "AWS::SQS::Queue")

    for rule, target in targets(example):
        assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] == DAY_SECONDS
        [queue, _] = target["DeadLetterConfig"]["Arn"]["Fn::GetAtt"]
        assert queues[queue]["MessageRetentionPeriod"] == 14 * DAY_SECONDS
        assert arn(rule) in senders_to(queue, example)


@every_example
def test_each_queue_is_encrypted_and_takes_messages_of_its_rules_only(name: str) -> None:
    example = template(name)

    for queue, properties in of_type(example, "AWS::SQS::Queue").items():
        assert properties["SqsManagedSseEnabled"] is True
        senders = {
            rule
            for rule, target in targets(example)
            if arn(queue) in (target["Arn"], target["DeadLetterConfig"]["Arn"])
        }
        assert senders_to(queue, example) == [
            arn(rule) for rule in rules(example) if rule in senders
        ]


def senders_to(queue: str, example: Template) -> list[Template]:
    """The rules that the queue's policy names."""
    [statement] = [
        one
        for one in statements(example)
        if one["Resource"] == arn(queue)
        and one.get("Principal") == {"Service": "events.amazonaws.com"}
    ]
    assert statement["Action"] == "sqs:SendMessage"
    return as_list(statement["Condition"]["ArnEquals"]["aws:SourceArn"])


@every_example
def test_each_target_lets_its_rule_in(name: str) -> None:
    example = template(name)

    for rule, target in targets(example):
        if "RoleArn" in target:
            [role, _] = target["RoleArn"]["Fn::GetAtt"]
            policies = of_type(example, "AWS::IAM::Role")[role]["Policies"]
            [right] = policies[0]["PolicyDocument"]["Statement"]
            assert right["Resource"] == target["Arn"]
        elif target["Id"] == "function":
            [permission] = of_type(example, "AWS::Lambda::Permission").values()
            assert permission["SourceArn"] == arn(rule)
            assert arn(permission["FunctionName"]["Ref"]) == target["Arn"]
        else:
            assert target["Arn"] in [one["Resource"] for one in statements(example)]


@every_example
def test_its_rights_name_actions_and_resources(name: str) -> None:
    example = template(name)

    for role in of_type(example, "AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role
    for statement in statements(example):
        assert isinstance(statement.get("Principal", {}), dict)
        assert not [one for one in as_list(statement["Action"]) if "*" in one]
        assert all(isinstance(one, dict) for one in as_list(statement["Resource"]))


@every_example
def test_a_text_has_no_field_that_a_person_writes(name: str) -> None:
    for _, target in targets(template(name)):
        paths = target.get("InputTransformer", {}).get("InputPathsMap", {})

        assert set(paths.values()) <= WRITTEN_BY_DROPREEL.keys()
        used = re.findall(
            r"<([\w-]+)>", target.get("InputTransformer", {}).get("InputTemplate", "")
        )
        assert sorted(used) == sorted(paths)


@pytest.mark.parametrize("stem", ['a"b', "<!channel>", "a\\\nb", "安娜", "&amp;"])
def test_a_job_id_has_no_character_that_breaks_a_text(stem: str) -> None:
    assert re.fullmatch(WRITTEN_BY_DROPREEL["$.detail.job.id"], f"{slug(stem)}-0123456789abcdef")


def test_no_code_of_an_error_has_one_either() -> None:
    assert all(re.fullmatch(WRITTEN_BY_DROPREEL["$.detail.error.code"], it) for it in error_codes())


@pytest.mark.parametrize("name", ["webhook", "slack"])
def test_an_address_is_called_over_tls_by_a_role_that_can_do_nothing_else(name: str) -> None:
    example = template(name)
    [role] = of_type(example, "AWS::IAM::Role").values()
    [statement] = role["Policies"][0]["PolicyDocument"]["Statement"]

    assert statement["Action"] == "events:InvokeApiDestination"
    assert statement["Resource"] == arn("Destination")
    [destination] = of_type(example, "AWS::Events::ApiDestination").values()
    assert destination["InvocationRateLimitPerSecond"]
    endpoint = destination["InvocationEndpoint"]
    if "Ref" in endpoint:
        assert example["Parameters"][endpoint["Ref"]]["AllowedPattern"].startswith("^https://")


@pytest.mark.parametrize(
    ("name", "secret"),
    [("webhook", "the header's value"), ("slack", "the URL of the channel's incoming webhook")],
)
def test_a_secret_comes_from_secrets_manager(name: str, secret: str) -> None:
    text = (FOLDER / name / "template.yaml").read_text()

    assert secret in template(name)["Parameters"]["SecretName"]["Description"]
    assert text.count("{{resolve:secretsmanager:${SecretName}}}") == 1


@every_example
def test_the_readme_lists_it_with_its_command(name: str) -> None:
    text = (FOLDER / "README.md").read_text()

    assert f"| [{name}]({name}/template.yaml) |" in text
    assert f" deploy --template-file {name}/template.yaml --stack-name " in text
