"""What an account may ask: one key, a permissions boundary, subnets, access logs, and a console
that groups the parameters. By default there is nothing of it."""

import json
import re
from typing import Any

import pytest

from local.embedded import PROJECT
from tests.support.sam_template import (
    MACHINE,
    RESOURCES,
    TEMPLATE,
    WRITTEN,
    as_list,
    made,
    of_type,
)

KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
BOUNDARY = "arn:aws:iam::111122223333:policy/teams/boundary"
NETWORK = {"SubnetIds": "subnet-0a1b2c3d,subnet-0a1b2c3e", "SecurityGroupIds": "sg-0a1b2c3d"}
PARAMETERS = TEMPLATE["Parameters"]
FUNCTION_ROLES = sorted(
    function["Role"]["GetAtt"].removesuffix(".Arn")
    for function in of_type("AWS::Serverless::Function").values()
)


def resources(kind: str, **parameters: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        name: it["Properties"]
        for name, it in made(**parameters)["Resources"].items()
        if it["Type"] == kind
    }
    return found


# One key


KEYED: dict[str, dict[str, Any]] = {
    "AWS::S3::Bucket": {
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {
                    "ServerSideEncryptionByDefault": {
                        "SSEAlgorithm": "aws:kms",
                        "KMSMasterKeyID": {"Ref": "KmsKeyArn"},
                    },
                    "BucketKeyEnabled": True,
                }
            ]
        }
    },
    "AWS::SQS::Queue": {"KmsMasterKeyId": {"Ref": "KmsKeyArn"}, "SqsManagedSseEnabled": False},
    "AWS::DynamoDB::Table": {
        "SSESpecification": {
            "SSEEnabled": True,
            "SSEType": "KMS",
            "KMSMasterKeyId": {"Ref": "KmsKeyArn"},
        }
    },
    "AWS::SecretsManager::Secret": {"KmsKeyId": {"Ref": "KmsKeyArn"}},
    "AWS::Events::EventBus": {
        "KmsKeyIdentifier": {"Ref": "KmsKeyArn"},
        "DeadLetterConfig": {"Arn": {"GetAtt": "UndeliveredEvents.Arn"}},
    },
    "AWS::Events::Archive": {"KmsKeyIdentifier": {"Ref": "KmsKeyArn"}},
    "AWS::Logs::LogGroup": {"KmsKeyId": {"Ref": "KmsKeyArn"}},
    "AWS::SNS::Topic": {"KmsMasterKeyId": {"Ref": "KmsKeyArn"}},
}


@pytest.mark.parametrize(
    ("policy", "actions"),
    [
        ("UploaderPolicy", ["kms:GenerateDataKey", "kms:Decrypt"]),
        ("ReaderPolicy", ["kms:Decrypt"]),
    ],
)
def test_people_may_use_the_owners_key_through_s3_alone(policy: str, actions: list[str]) -> None:
    document = resources("AWS::IAM::ManagedPolicy", KmsKeyArn=KEY)[policy]["PolicyDocument"]
    [statement] = [it for it in document["Statement"] if "kms:Decrypt" in as_list(it["Action"])]

    assert as_list(statement["Action"]) == actions
    assert statement["Resource"] == {"Ref": "KmsKeyArn"}
    through = {"Sub": "s3.${AWS::Region}.${AWS::URLSuffix}"}
    assert statement["Condition"] == {"StringEquals": {"kms:ViaService": through}}


@pytest.mark.parametrize("kind", KEYED)
def test_all_that_keeps_data_is_under_the_owners_key(kind: str) -> None:
    assert resources(kind, KmsKeyArn=KEY)
    for name, properties in resources(kind, KmsKeyArn=KEY).items():
        assert KEYED[kind].items() <= properties.items(), name
    for properties in of_type(kind).values():
        assert not KEYED[kind].keys() & properties.keys() - {"SqsManagedSseEnabled"}
        assert properties.get("SqsManagedSseEnabled", True) is True


def test_the_variables_of_the_functions_are_under_the_owners_key() -> None:
    functions = made(KmsKeyArn=KEY)["Globals"]["Function"]

    assert functions["KmsKeyArn"] == {"Ref": "KmsKeyArn"}
    assert "KmsKeyArn" not in TEMPLATE["Globals"]["Function"]


def writers() -> set[str]:
    """The roles that may write into a bucket, a queue or the topic."""
    return {
        name
        for name, role in of_type("AWS::IAM::Role").items()
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if {"s3:PutObject", "sqs:SendMessage", "sns:Publish"} & set(as_list(statement["Action"]))
    }


def test_a_role_uses_the_key_for_what_it_reads_and_writes() -> None:
    """No engine checks it: a right that is missing would show in an account only."""
    given: dict[str, set[str]] = {}
    for policy in resources("AWS::IAM::Policy", KmsKeyArn=KEY).values():
        for statement in policy["PolicyDocument"]["Statement"]:
            if actions := [it for it in as_list(statement["Action"]) if it.startswith("kms:")]:
                assert statement == {
                    "Effect": "Allow",
                    "Action": statement["Action"],
                    "Resource": {"Ref": "KmsKeyArn"},
                }
                for role in policy["Roles"]:
                    given.setdefault(role["Ref"], set()).update(actions)

    assert len(writers()) >= 5
    assert given == {
        role: {"kms:Decrypt", "kms:GenerateDataKey"} if role in writers() else {"kms:Decrypt"}
        for role in FUNCTION_ROLES
    }
    assert "kms:" not in json.dumps(RESOURCES)


def test_an_event_that_our_bus_cannot_decrypt_may_go_to_the_dead_letters() -> None:
    def senders(**parameters: str) -> list[Any]:
        policy = resources("AWS::SQS::QueuePolicy", **parameters)["UndeliveredEventsPolicy"]
        (statement,) = policy["PolicyDocument"]["Statement"]
        found: list[Any] = statement["Condition"]["ArnEquals"]["aws:SourceArn"]
        return found

    bus = {"GetAtt": "EventBus.Arn"}
    theirs = "arn:aws:events:eu-central-1:111122223333:event-bus/ours"

    assert senders(KmsKeyArn=KEY) == [*senders(), bus]
    assert bus not in senders()
    assert bus not in senders(KmsKeyArn=KEY, ExistingEventBusArn=theirs)


def statements_of_the_page(heading: str) -> list[dict[str, Any]]:
    page = (PROJECT / "docs/deploying.md").read_text()
    _, _, section = page.partition(f"\n### {heading}\n")
    found = re.search(r"^```json\n(.*?)^```$", section.partition("\n##")[0], re.M | re.S)
    assert found, heading
    statements: list[dict[str, Any]] = json.loads(found[1])
    return statements


def test_the_page_lets_each_service_use_the_key_that_does_so_by_itself() -> None:
    logs, look, bus, queues, alarms = statements_of_the_page("One KMS key for all")

    # As the pages "Encrypt log data in CloudWatch Logs", "Authorizing EventBridge", "Encrypting
    # EventBridge archives", "Amazon SQS key management" and "Amazon SNS key management" ask.
    assert logs["Principal"] == {"Service": "logs.REGION.amazonaws.com"}
    assert set(logs["Action"]) == {
        *("kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"),
    }
    assert logs["Condition"]["ArnLike"] == {
        "kms:EncryptionContext:aws:logs:arn": "arn:aws:logs:REGION:ACCOUNT:log-group:*"
    }
    for it in (look, bus, queues):
        assert it["Principal"] == {"Service": "events.amazonaws.com"}
    assert look["Action"] == "kms:DescribeKey"  # it has no encryption context
    assert "Condition" not in look
    assert queues["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert bus["Action"] == [*queues["Action"], "kms:ReEncrypt*"]  # the archive, too
    bus_arn = "kms:EncryptionContext:aws:events:event-bus:arn"
    name = of_type("AWS::Events::EventBus")["EventBus"]["Name"]
    assert name == {"Ref": "AWS::StackName"}
    assert bus["Condition"] == {
        "StringEquals": {bus_arn: "arn:aws:events:REGION:ACCOUNT:event-bus/STACK"}
    }
    assert queues["Condition"] == {"Null": {bus_arn: "true"}}  # else it would cover any bus
    assert alarms["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert alarms["Action"] == ["kms:GenerateDataKey*", "kms:Decrypt"]
    assert alarms["Condition"] == {"StringEquals": {"aws:SourceAccount": "ACCOUNT"}}
    assert {it["Effect"] for it in (logs, look, bus, queues, alarms)} == {"Allow"}


# Roles


def test_a_boundary_bounds_each_role() -> None:
    roles = resources("AWS::IAM::Role", PermissionsBoundaryArn=BOUNDARY)

    assert len(roles) == len(FUNCTION_ROLES) + 1
    for role in roles.values():
        assert role["PermissionsBoundary"] == {"Ref": "PermissionsBoundaryArn"}


# Subnets

# As the page "Giving Lambda functions access to resources in an Amazon VPC" asks.
OF_LAMBDA = {
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
}


def test_all_functions_run_in_the_owners_subnets() -> None:
    template = made(**NETWORK)

    assert template["Globals"]["Function"]["VpcConfig"] == {
        "SubnetIds": {"Split": [",", {"Ref": "SubnetIds"}]},
        "SecurityGroupIds": {"Split": [",", {"Ref": "SecurityGroupIds"}]},
    }
    assert not [
        name
        for name, function in of_type("AWS::Serverless::Function").items()
        if "VpcConfig" in function
    ]
    assert "VpcConfig" not in TEMPLATE["Globals"]["Function"]


def test_lambda_has_its_rights_to_interfaces_before_a_function_is_made() -> None:
    """As a managed policy of the roles: an inline one would come after the functions."""
    roles = resources("AWS::IAM::Role", **NETWORK)
    with_interfaces = {name for name, role in roles.items() if "ManagedPolicyArns" in role}

    assert with_interfaces == set(FUNCTION_ROLES)
    for name in with_interfaces:
        assert roles[name]["ManagedPolicyArns"] == [{"Ref": "NetworkInterfaces"}]


def test_the_code_of_a_function_cannot_use_lambdas_rights_to_interfaces() -> None:
    policy = resources("AWS::IAM::ManagedPolicy", **NETWORK)["NetworkInterfaces"]
    allow, deny = policy["PolicyDocument"]["Statement"]

    assert set(policy) == {"Description", "PolicyDocument"}
    assert (allow["Effect"], deny["Effect"]) == ("Allow", "Deny")
    assert set(allow["Action"]) == set(deny["Action"]) == OF_LAMBDA
    ((how, of_code),) = deny["Condition"].items()
    ((key, functions),) = of_code.items()
    assert (how, key) == ("ArnLike", "lambda:SourceFunctionArn")
    prefix = functions["Sub"].partition(":function:")[2].removesuffix("*")
    assert prefix == "${AWS::StackName}-"
    for function in of_type("AWS::Serverless::Function").values():
        assert function["FunctionName"]["Sub"].startswith(prefix)


@pytest.mark.parametrize("one", NETWORK)
def test_subnets_without_security_groups_are_refused(one: str) -> None:
    with pytest.raises(RuntimeError, match="Set both, or none"):
        made(**{one: NETWORK[one]})


# Access logs


def test_access_logs_of_our_buckets_go_to_a_bucket_of_the_owners() -> None:
    buckets = resources("AWS::S3::Bucket", AccessLogBucket="our-logs")
    logging = {name: bucket["LoggingConfiguration"] for name, bucket in buckets.items()}

    assert logging == {
        name: {
            "DestinationBucketName": {"Ref": "AccessLogBucket"},
            "LogFilePrefix": {"Sub": f"${{AWS::StackName}}/{folder}/"},
        }
        for name, folder in (
            ("UploadBucket", "uploads"),
            ("VideoBucket", "videos"),
            ("WorkBucket", "work"),
        )
    }
    assert not [it for it in of_type("AWS::S3::Bucket").values() if "LoggingConfiguration" in it]


def test_access_logs_do_not_go_where_people_drop() -> None:
    with pytest.raises(RuntimeError, match="AccessLogBucket is ExistingUploadBucket"):
        made(AccessLogBucket="ours", ExistingUploadBucket="ours")


def test_the_page_lets_s3_write_the_access_logs() -> None:
    (statement,) = statements_of_the_page("Access logs")

    assert statement["Principal"] == {"Service": "logging.s3.amazonaws.com"}
    assert statement["Action"] == "s3:PutObject"
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": "ACCOUNT"}


# Notices and alarms

EXISTING_BUS = {"Ref": "ExistingEventBusArn"}
TOPIC = "arn:aws:sns:eu-central-1:111122223333:our-people"


@pytest.mark.parametrize(
    ("parameters", "topic"),
    [({}, {"Ref": "NotifyTopic"}), ({"NotifyTopicArn": TOPIC}, {"Ref": "NotifyTopicArn"})],
)
def test_notices_and_alarms_have_one_topic(
    parameters: dict[str, str], topic: dict[str, str]
) -> None:
    template = made(**parameters, NotifyEmail="ops@example.com")
    alarms = resources("AWS::CloudWatch::Alarm", **parameters)

    assert alarms
    assert [it["AlarmActions"] for it in alarms.values()] == [[topic]] * len(alarms)
    assert template["Outputs"]["NotifyTopicArn"]["Value"] == topic
    assert template["Resources"]["NotifySubscription"]["Properties"] == {
        "TopicArn": topic,
        "Protocol": "email",
        "Endpoint": {"Ref": "NotifyEmail"},
    }
    assert bool(resources("AWS::SNS::Topic", **parameters)) is not bool(parameters)
    assert bool(resources("AWS::SNS::TopicPolicy", **parameters)) is not bool(parameters)


def test_notices_are_of_the_jobs_of_this_stack() -> None:
    """Another stack may send to the same bus, and its policy may let another account send. A replay
    without FilterArns goes to every rule."""
    executions = MACHINE.replace(":stateMachine:", ":execution:") + ":"
    ours = of_type("AWS::Events::Rule")["NotifyRule"]

    assert ours["EventBusName"] == {"Ref": "EventBus"}
    assert ours["EventPattern"] == {
        "source": ["dropreel"],
        "account": [{"Ref": "AWS::AccountId"}],
        "replay-name": [{"exists": False}],
        "detail-type": ["Video Ready", "Video Failed", "Upload Incomplete"],
        "$or": [
            {"resources": [{"prefix": {"Sub": executions}}]},
            {
                "detail": {
                    "uploads": {
                        "bucket": [{"Ref": "UploadBucket"}],
                        "key": [{"prefix": {"Ref": "UploadPrefix"}}],
                    }
                }
            },
        ],
    }


@pytest.mark.parametrize(
    ("bus", "is_here"),
    [
        ("arn:aws:events:eu-west-1:123456789012:event-bus/theirs", True),
        ("arn:aws:events:eu-west-1:999999999999:event-bus/central", False),
        ("arn:aws:events:us-east-1:123456789012:event-bus/theirs", False),
    ],
)
def test_nothing_is_made_on_a_bus_of_another_account_or_region(bus: str, is_here: bool) -> None:
    """EventBridge would refuse it, and the deploy would fail."""
    template = made(ExistingEventBusArn=bus)
    rules = {name for name in template["Resources"] if name.startswith("NotifyRule")}
    policy = template["Resources"]["UndeliveredEventsPolicy"]["Properties"]["PolicyDocument"]
    senders = policy["Statement"][0]["Condition"]["ArnEquals"]["aws:SourceArn"]

    assert rules == ({"NotifyRule", "NotifyRulePermission"} if is_here else set())
    assert ({"GetAtt": "NotifyRule.Arn"} in senders) is is_here
    assert ("EventArchive" in template["Resources"]) is is_here
    assert ("EventArchiveArn" in template["Outputs"]) is is_here
    if is_here:
        rule = template["Resources"]["NotifyRule"]["Properties"]
        name = template["Outputs"]["EventBusName"]["Value"]
        assert rule["EventBusName"] == name == {"Select": [1, {"Split": ["/", EXISTING_BUS]}]}


def test_a_mail_is_sent_to_nobody_by_default() -> None:
    assert not of_type("AWS::SNS::Subscription")


def test_our_topic_takes_tls_only_and_alarms_of_this_account() -> None:
    policy = of_type("AWS::SNS::TopicPolicy")["NotifyTopicPolicy"]
    tls, alarms = policy["PolicyDocument"]["Statement"]
    publish = {"Action": "sns:Publish", "Resource": {"Ref": "NotifyTopic"}}
    arn = "arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:*"

    assert policy["Topics"] == [{"Ref": "NotifyTopic"}]
    assert tls == publish | {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    assert alarms == publish | {
        "Sid": "Alarms",
        "Effect": "Allow",
        "Principal": {"Service": "cloudwatch.amazonaws.com"},
        "Condition": {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
            "ArnLike": {"aws:SourceArn": {"Sub": arn}},
        },
    }


def test_the_page_lets_alarms_publish_to_a_topic_of_the_owners() -> None:
    (statement,) = statements_of_the_page("A topic of yours")

    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Action"] == "sns:Publish"
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": "ACCOUNT"}


# The console


def test_each_parameter_has_one_place_and_a_label_in_the_console() -> None:
    interface = WRITTEN["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [it for group in interface["ParameterGroups"] for it in group["Parameters"]]

    assert sorted(grouped) == sorted(PARAMETERS)
    assert set(interface["ParameterLabels"]) == set(PARAMETERS)
    labels = [it["Label"]["default"] for it in interface["ParameterGroups"]] + [
        it["default"] for it in interface["ParameterLabels"].values()
    ]
    assert len(set(labels)) == len(labels)


# Values


@pytest.mark.parametrize(
    ("parameter", "value", "is_taken"),
    [
        ("KmsKeyArn", KEY, True),
        ("KmsKeyArn", KEY.replace("arn:aws:", "arn:aws-us-gov:"), True),
        ("KmsKeyArn", KEY.replace(":key/", ":alias/"), False),
        ("KmsKeyArn", "alias/ours", False),
        ("PermissionsBoundaryArn", BOUNDARY, True),
        ("PermissionsBoundaryArn", "arn:aws:iam::aws:policy/PowerUserAccess", True),
        ("PermissionsBoundaryArn", BOUNDARY.replace(":policy/", ":role/"), False),
        ("SubnetIds", "subnet-0a1b2c3d", True),
        ("SubnetIds", ",".join(["subnet-0123456789abcdef0"] * 16), True),
        ("SubnetIds", ",".join(["subnet-0123456789abcdef0"] * 17), False),
        ("SubnetIds", "subnet-0a1b2c3d, subnet-0a1b2c3e", False),
        ("SubnetIds", "subnet-0a1b2c3d,", False),
        ("SubnetIds", "vpc-0a1b2c3d", False),
        ("SecurityGroupIds", ",".join(["sg-0123456789abcdef0"] * 5), True),
        ("SecurityGroupIds", ",".join(["sg-0123456789abcdef0"] * 6), False),
        ("NotifyTopicArn", TOPIC, True),
        ("NotifyTopicArn", TOPIC.replace("arn:aws:", "arn:aws-cn:"), True),
        ("NotifyTopicArn", f"{TOPIC}.fifo", False),
        ("NotifyTopicArn", f"{TOPIC}:0a1b2c3d", False),
        ("NotifyEmail", "o.neill+ops@mail.example.com", True),
        ("NotifyEmail", "zoë@example.com", True),
        ("NotifyEmail", "ops", False),
        ("NotifyEmail", "ops@example", False),
        ("NotifyEmail", "a@example.com,b@example.com", False),
        ("NotifyEmail", "Ops <ops@example.com>", False),
        ("NotifyEmail", "ops@example.com\n", False),
        ("AccessLogBucket", "our.logs-1", True),
        ("AccessLogBucket", "Our_Logs", False),
        ("AccessLogBucket", "arn:aws:s3:::our-logs", False),
    ],
)
def test_a_value_of_another_form_is_refused(parameter: str, value: str, is_taken: bool) -> None:
    pattern = PARAMETERS[parameter]["AllowedPattern"]

    assert bool(re.fullmatch(pattern, value)) is is_taken
    assert re.fullmatch(pattern, "")
