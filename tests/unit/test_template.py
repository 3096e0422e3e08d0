"""Rules that hold for the whole template."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from httpx import MockTransport

from dropreel import settings, submission
from dropreel.catalog import MODELS, ProviderName
from dropreel.ledger_dynamodb import DynamoDBLedger
from dropreel.provider import Refusal
from dropreel.render import Next, PlannedOffer
from dropreel.runcomfy import RunComfy
from dropreel.wavespeed import WaveSpeed
from local import demo
from local.embedded import PROJECT
from tests.sam_template import DEFINITION, RESOURCES, TEMPLATE, as_list, of_type, timeout_seconds

PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]

# Named where the state machine itself names the function.
MACHINE = (
    "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:stateMachine:"
    "${AWS::StackName}-render"
)

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


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, role in of_type("AWS::IAM::Role").items():
        for policy in role["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement


def may(role: str, action: str) -> list[Any]:
    """What a role may do this to, without any further condition."""
    return [
        resource
        for name, statement in statements()
        if name == role and statement["Effect"] == "Allow" and "Condition" not in statement
        if action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]


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
    read = [
        (queues[event["Properties"]["Queue"]["GetAtt"].removesuffix(".Arn")], name)
        for name, function in of_type("AWS::Serverless::Function").items()
        for event in function.get("Events", {}).values()
        if event["Type"] == "SQS"
    ]

    assert read
    for queue, name in read:
        assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5
        assert queue["VisibilityTimeout"] >= 6 * timeout_seconds(name)


def test_buckets_are_private_versioned_and_forget_unfinished_uploads() -> None:
    buckets = of_type("AWS::S3::Bucket")

    assert set(buckets) == {"UploadBucket", "VideoBucket"}
    for bucket in buckets.values():
        assert bucket["VersioningConfiguration"]["Status"] == "Enabled"
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        assert all(bucket["PublicAccessBlockConfiguration"].values())
        rules = bucket["LifecycleConfiguration"]["Rules"]
        (abort,) = (rule for rule in rules if "AbortIncompleteMultipartUpload" in rule)
        assert abort["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1
        assert abort["Status"] == "Enabled"
        assert "Prefix" not in abort


@pytest.mark.parametrize("bucket", ["UploadBucket", "VideoBucket"])
def test_a_bucket_and_its_objects_are_reached_over_tls_only(bucket: str) -> None:
    (policy,) = (
        policy["PolicyDocument"]
        for policy in of_type("AWS::S3::BucketPolicy").values()
        if policy["Bucket"] == {"Ref": bucket}
    )

    assert policy["Statement"] == [
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [{"GetAtt": f"{bucket}.Arn"}, {"Sub": f"${{{bucket}.Arn}}/*"}],
            "Condition": {
                "Bool": {"aws:SecureTransport": "false"},
                "NotIpAddress": {
                    "If": [
                        "IsEmbedded",
                        {"aws:SourceIp": "127.0.0.0/8"},
                        {"Ref": "AWS::NoValue"},
                    ]
                },
            },
        }
    ]
    stand_ins_are_trusted = {"Not": [{"Equals": [{"Ref": "TrustedDownloadOrigins"}, ""]}]}
    assert TEMPLATE["Conditions"] == {"IsEmbedded": stand_ins_are_trusted}


def test_conformed_copies_outlive_the_job_that_waits_with_them() -> None:
    rules = of_type("AWS::S3::Bucket")["UploadBucket"]["LifecycleConfiguration"]["Rules"]

    (expire,) = (rule for rule in rules if rule.get("Prefix") == "work/")
    assert expire["ExpirationInDays"] * 24 * 3600 > DEFINITION["TimeoutSeconds"]


@pytest.mark.parametrize(
    "kept",
    ["UploadBucket", "VideoBucket", "UploadBucketPolicy", "VideoBucketPolicy", "Ledger"],
)
def test_what_people_own_outlives_the_stack(kept: str) -> None:
    assert RESOURCES[kept]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert RESOURCES[kept]["UpdateReplacePolicy"] == "Retain"


# The ledger


def test_the_ledger_can_be_restored() -> None:
    recovery = RESOURCES["Ledger"]["Properties"]["PointInTimeRecoverySpecification"]

    assert recovery == {"PointInTimeRecoveryEnabled": True}


def test_the_ledger_forgets_by_what_is_written_into_it() -> None:
    forgets = RESOURCES["Ledger"]["Properties"]["TimeToLiveSpecification"]
    table = Mock()
    offer = PlannedOffer(
        provider=ProviderName.RUNCOMFY, endpoint="a/model", fields={}, estimated_usd=None
    )

    DynamoDBLedger("ledger", table).begin("anna-1", Next(), offer, datetime.now(UTC))

    (call,) = table.transact_write_items.call_args_list
    written = call.kwargs["TransactItems"][0]["Put"]["Item"]
    days = (float(written[forgets["AttributeName"]]["N"]) - time.time()) / 86400
    assert days == pytest.approx(180, abs=1)  # Step Functions remembers names for 90
    assert forgets["Enabled"] is True


# Dead letters


def test_dead_letters_are_kept_as_long_as_can_be() -> None:
    queues = of_type("AWS::SQS::Queue")
    dead_letters = {name: queue for name, queue in queues.items() if name != "IntakeQueue"}

    assert set(dead_letters) == {"IntakeDeadLetters", "UndeliveredEvents", "UnconcludedJobs"}
    for queue in dead_letters.values():
        assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_rules_may_write_where_they_deliver_and_their_dead_letters() -> None:
    rules = of_type("AWS::Events::Rule")
    allowed = {
        statement["Resource"]["GetAtt"]: as_list(
            statement["Condition"]["ArnEquals"]["aws:SourceArn"]
        )
        for policy in of_type("AWS::SQS::QueuePolicy").values()
        for statement in policy["PolicyDocument"]["Statement"]
        if (statement["Effect"], statement["Action"]) == ("Allow", "sqs:SendMessage")
        and statement["Principal"] == {"Service": "events.amazonaws.com"}
        and policy["Queues"] == [{"Ref": statement["Resource"]["GetAtt"].removesuffix(".Arn")}]
    }

    assert set(rules) == {"UploadRule", "EndedRule", "SweepRule"}
    for name, rule in rules.items():
        for target in rule["Targets"]:
            written = [target["DeadLetterConfig"]["Arn"]["GetAtt"], target["Arn"]["GetAtt"]]
            for queue in (arn for arn in written if "Function" not in arn):
                assert {"GetAtt": f"{name}.Arn"} in allowed[queue]


def test_conclude_is_told_of_each_execution_that_ends_without_success() -> None:
    rule = of_type("AWS::Events::Rule")["EndedRule"]
    permission = of_type("AWS::Lambda::Permission")["EndedRulePermission"]

    assert set(rule["EventPattern"]["detail"]["status"]) == {"ABORTED", "FAILED", "TIMED_OUT"}
    assert rule["EventPattern"]["detail"]["stateMachineArn"] == [{"Ref": "RenderStateMachine"}]
    assert [target["Arn"] for target in rule["Targets"]] == [{"GetAtt": "ConcludeFunction.Arn"}]
    assert permission == {
        "FunctionName": {"Ref": "ConcludeFunction"},
        "Action": "lambda:InvokeFunction",
        "Principal": "events.amazonaws.com",
        "SourceArn": {"GetAtt": "EndedRule.Arn"},
    }


def test_each_queue_that_should_be_empty_has_an_alarm() -> None:
    watched = {
        alarm["Dimensions"][0]["Value"]["GetAtt"]: alarm
        for alarm in of_type("AWS::CloudWatch::Alarm").values()
    }

    queues = {name for name in of_type("AWS::SQS::Queue") if name != "IntakeQueue"}
    assert set(watched) == {f"{name}.QueueName" for name in queues}
    for alarm in watched.values():
        assert alarm["MetricName"] == "ApproximateNumberOfMessagesVisible"
        assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)


def test_the_sweep_comes_when_a_days_spend_begins() -> None:
    rule = of_type("AWS::Events::Rule")["SweepRule"]
    permission = of_type("AWS::Lambda::Permission")["SweepRulePermission"]

    assert rule["ScheduleExpression"] == "cron(1 0 * * ? *)"  # EventBridge's rules keep UTC
    assert [target["Arn"] for target in rule["Targets"]] == [{"GetAtt": "SweepFunction.Arn"}]
    assert permission == {
        "FunctionName": {"Ref": "SweepFunction"},
        "Action": "lambda:InvokeFunction",
        "Principal": "events.amazonaws.com",
        "SourceArn": {"GetAtt": "SweepRule.Arn"},
    }


@pytest.mark.parametrize("step", ["Admit", "Poll", "Conclude", "Sweep"])
def test_who_tells_waiting_executions_may_do_so_for_this_machine_alone(step: str) -> None:
    machine = of_type("AWS::Serverless::StateMachine")["RenderStateMachine"]["Name"]["Sub"]
    arn = MACHINE
    assert arn.endswith(f":{machine}")
    for action in ("states:SendTaskSuccess", "states:SendTaskFailure"):
        assert may(f"{step}Role", action) == [{"If": ["IsEmbedded", "*", {"Sub": arn}]}]
    executions = {"Sub": f"{arn.replace(':stateMachine:', ':execution:')}:*"}
    assert executions in may(f"{step}Role", "states:DescribeExecution")


def test_an_ending_that_conclude_fails_on_is_kept() -> None:
    told = RESOURCES["ConcludeFunction"]["Properties"]["EventInvokeConfig"]
    queue = {"GetAtt": "UnconcludedJobs.Arn"}

    assert told["MaximumRetryAttempts"] == 2
    assert told["DestinationConfig"] == {"OnFailure": {"Type": "SQS", "Destination": queue}}
    assert may("ConcludeRole", "sqs:SendMessage") == [queue]


# Rights


@pytest.mark.parametrize(
    ("role", "bucket"),
    [
        *((f"{step}Role", "UploadBucket") for step in ("Validate", "Conform", "Submit")),
        *((f"{step}Role", "VideoBucket") for step in ("Intake", "Deliver", "Conclude")),
    ],
)
def test_who_must_see_that_an_object_is_gone_may_list(role: str, bucket: str) -> None:
    # Without the right, S3 answers "forbidden" instead of "no such key".
    assert may(role, "s3:ListBucket") == [{"GetAtt": f"{bucket}.Arn"}]


@pytest.mark.parametrize(
    ("role", "places"),
    [
        ("DeliverRole", ["${VideoBucket.Arn}/*.json", "${VideoBucket.Arn}/*.mp4"]),
        ("ConformRole", ["${UploadBucket.Arn}/work/*"]),
    ],
)
def test_who_uploads_in_parts_may_give_up(role: str, places: list[str]) -> None:
    where = [{"Sub": place} for place in places]

    assert may(role, "s3:PutObject") == may(role, "s3:AbortMultipartUpload") == where


def test_no_log_holds_what_a_job_says() -> None:
    machine = of_type("AWS::Serverless::StateMachine")["RenderStateMachine"]

    assert machine["Type"] == "STANDARD"
    assert machine["Logging"]["IncludeExecutionData"] is False


# Time


def test_a_submit_that_is_still_running_is_never_taken_for_dead() -> None:
    assert timeout_seconds("SubmitFunction") < submission.CALL_LIFE_SECONDS


@pytest.mark.parametrize("dialect", [RunComfy, WaveSpeed])
def test_a_function_outlives_its_calls_to_a_provider(
    dialect: type[RunComfy] | type[WaveSpeed],
) -> None:
    waits: dict[str, float] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        waits.update(request.extensions["timeout"])
        return httpx.Response(503)

    with pytest.raises(Refusal):
        dialect(
            "https://x.example", Mock(return_value="t"), transport=MockTransport(answer)
        ).submit("a/model", {})

    call_seconds = waits["connect"] + waits["read"]
    # The most calls that a step makes, and one more when the token was rotated meanwhile.
    assert (1 + 1) * call_seconds < submission.CALL_NEEDS_SECONDS
    assert timeout_seconds("SubmitFunction") > submission.CALL_NEEDS_SECONDS
    for step, calls in {"Poll": 3, "Deliver": 1, "Conclude": 2}.items():
        assert timeout_seconds(f"{step}Function") > (calls + 1) * call_seconds, step


# Settings


def test_parameters_have_the_defaults_that_the_readme_and_the_issue_promise() -> None:
    defaults = {name: parameter["Default"] for name, parameter in PARAMETERS.items()}

    assert defaults == {
        "Model": "wan-2.2-speech-to-video",
        "SettleSeconds": 5,
        "IncompleteAfterMinutes": 60,
        "RenderTimeoutMinutes": 60,
        "PollMinSeconds": 5,
        "PollMaxSeconds": 60,
        "MaxSubmissions": 2,
        "OnUnclearSubmission": "fail",
        "RunComfyMaxInFlight": 10,
        "WaveSpeedMaxInFlight": 2,
        "RunComfyMaxSubmitsPerMinute": 0,
        "WaveSpeedMaxSubmitsPerMinute": 2,
        "ThrottlePatienceSeconds": 900,
        "DailySpendLimitUsd": 0,
        "OnSpendLimit": "wait",
        "UsdPerSecond": "",
        "RunComfyUrl": "https://model-api.runcomfy.net",
        "WaveSpeedUrl": "https://api.wavespeed.ai",
        "TrustedDownloadOrigins": "",
        "LogRetentionDays": 30,
        "Architecture": "arm64",
    }


def test_the_models_are_the_catalogs() -> None:
    assert PARAMETERS["Model"]["AllowedValues"] == list(MODELS)
    assert PARAMETERS["Model"]["Default"] == demo.DEFAULT_MODEL


VARIABLES: dict[str, dict[str, str]] = {
    "MODEL": {"Ref": "Model"},
    "UPLOAD_BUCKET": {"Ref": "UploadBucket"},
    "CONCLUDE_FUNCTION": {"Ref": "ConcludeFunction"},
    "ON_UNCLEAR_SUBMISSION": {"Ref": "OnUnclearSubmission"},
    "RUNCOMFY_MAX_IN_FLIGHT": {"Ref": "RunComfyMaxInFlight"},
    "WAVESPEED_MAX_IN_FLIGHT": {"Ref": "WaveSpeedMaxInFlight"},
    "RUNCOMFY_MAX_SUBMITS_PER_MINUTE": {"Ref": "RunComfyMaxSubmitsPerMinute"},
    "WAVESPEED_MAX_SUBMITS_PER_MINUTE": {"Ref": "WaveSpeedMaxSubmitsPerMinute"},
    "THROTTLE_PATIENCE_SECONDS": {"Ref": "ThrottlePatienceSeconds"},
    "DAILY_SPEND_LIMIT_USD": {"Ref": "DailySpendLimitUsd"},
    "ON_SPEND_LIMIT": {"Ref": "OnSpendLimit"},
    "USD_PER_SECOND": {"Ref": "UsdPerSecond"},
    "QUEUE_URL": {"Ref": "IntakeQueue"},
    "EVENT_BUS": {"Ref": "EventBus"},
    "VIDEO_BUCKET": {"Ref": "VideoBucket"},
    "LEDGER_TABLE": {"Ref": "Ledger"},
    "INCOMPLETE_AFTER_MINUTES": {"Ref": "IncompleteAfterMinutes"},
    "RENDER_TIMEOUT_MINUTES": {"Ref": "RenderTimeoutMinutes"},
    "POLL_MIN_SECONDS": {"Ref": "PollMinSeconds"},
    "POLL_MAX_SECONDS": {"Ref": "PollMaxSeconds"},
    "MAX_SUBMISSIONS": {"Ref": "MaxSubmissions"},
    "TRUSTED_DOWNLOAD_ORIGINS": {"Ref": "TrustedDownloadOrigins"},
    "RUNCOMFY_URL": {"Ref": "RunComfyUrl"},
    "WAVESPEED_URL": {"Ref": "WaveSpeedUrl"},
    "RUNCOMFY_SECRET": {"GetAtt": "RunComfyToken.Id"},  # its ARN, also on the embedded AWS
    "WAVESPEED_SECRET": {"GetAtt": "WaveSpeedToken.Id"},
}


@pytest.mark.parametrize("name", of_type("AWS::Serverless::Function"))
def test_a_function_gets_exactly_its_settings(name: str) -> None:
    function = of_type("AWS::Serverless::Function")[name]
    given = dict(function.get("Environment", {}).get("Variables", {}))
    handler = (PROJECT / function["CodeUri"] / "app.py").read_text()
    if (used := re.search(r"(\w+)\.from_environment\(\)", handler)) is None:
        assert given == {}
        return
    model: type[settings.Settings] = getattr(settings, used[1])

    made = model.model_validate({variable: _default(value) for variable, value in given.items()})

    assert set(given) == {field.upper() for field in type(made).model_fields}
    machine = given.pop("STATE_MACHINE_ARN", None)
    assert machine in (None, {"Ref": "RenderStateMachine"}, {"Sub": MACHINE})
    assert given == {variable: VARIABLES[variable] for variable in given}


def _default(value: dict[str, str]) -> object:
    """What a variable holds when nobody sets a parameter; Lambda hands on text alone."""
    return str(PARAMETERS.get(value.get("Ref", ""), {"Default": "a name"})["Default"])


def test_each_function_writes_into_its_own_logs_by_its_own_name() -> None:
    for name, function in of_type("AWS::Serverless::Function").items():
        step = name.removesuffix("Function")
        assert function["CodeUri"] == f"functions/{step.lower()}"
        assert function["Role"] == {"GetAtt": f"{step}Role.Arn"}
        assert may(f"{step}Role", "logs:PutLogEvents") == [{"GetAtt": f"{step}Logs.Arn"}]


def test_the_outputs_that_commands_ask_for_are_there() -> None:
    asked = {
        output
        for file in ("Makefile", "README.md")
        for found in re.findall(
            r"OutputKey=='([\w()$]+)'|\(output (\w+)\)", (PROJECT / file).read_text()
        )
        for output in found
        if output not in ("", "$1")
    }
    providers = {f"{provider}TokenArn" for provider in ("RunComfy", "WaveSpeed")}

    assert "$(PROVIDER)TokenArn" in asked
    assert (asked - {"$(PROVIDER)TokenArn"}) | providers <= set(TEMPLATE["Outputs"])
    assert {"SweepFunctionName", "IntakeDeadLettersUrl", "LedgerTable"} <= asked
