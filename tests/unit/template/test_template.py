"""Rules that hold for the whole template."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args
from unittest.mock import Mock

import httpx
import pytest
from httpx import MockTransport
from pydantic.fields import FieldInfo

from deploy.stack_name import MAX_STACK_NAME_CHARACTERS
from dropreel.aws import clients
from dropreel.aws.ledger import DynamoDBLedger
from dropreel.inbox import sweep as inbox_sweep
from dropreel.media import shut_in
from dropreel.model import catalog, overrides
from dropreel.model.catalog import MODELS, TITLES
from dropreel.model.events import SOURCE
from dropreel.model.messages import NextAttempt, PlannedOffer
from dropreel.model.provider import Unclear, Unreachable
from dropreel.model.timing import next_wait_seconds, throttled_wait_seconds
from dropreel.outcome import full_sweep as sweeping
from dropreel.providers import tokens, wavespeed
from dropreel.providers.runcomfy import RunComfy
from dropreel.providers.wavespeed import WaveSpeed
from dropreel.render import attempts, display, prepare, submission
from dropreel.runtime import settings
from local import demo
from local.embedded import PROJECT
from tests.support.provider_dialects import TICKET
from tests.support.sam_template import (
    DAY_SECONDS,
    DEFINITION,
    INNER,
    RESOURCES,
    TEMPLATE,
    as_list,
    made,
    may,
    of_type,
    retry_waits_seconds,
    timeout_seconds,
)

PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]


def test_each_function_is_a_folder_with_a_log_group_that_forgets() -> None:
    groups = of_type("AWS::Logs::LogGroup").values()
    kept = {group["LogGroupName"]["Sub"] for group in groups if group["RetentionInDays"]}

    for function in of_type("AWS::Serverless::Function").values():
        assert (PROJECT / function["CodeUri"] / "app.py").is_file()
        assert f"/aws/lambda/{function['FunctionName']['Sub']}" in kept


@pytest.mark.parametrize("rule", of_type("AWS::Events::Rule"))
def test_a_rule_tries_for_a_day_and_then_keeps_the_event(rule: str) -> None:
    (target,) = of_type("AWS::Events::Rule")[rule]["Targets"]

    # The most that EventBridge offers: whatever is amiss with a target is mended by then. Of what
    # comes again in minutes nothing is worth keeping for longer.
    comes_again_seconds = {"ServeRule": 60, "WatchRule": 300}.get(rule)
    assert target["RetryPolicy"] == {
        "MaximumEventAgeInSeconds": comes_again_seconds or 24 * 3600,
        "MaximumRetryAttempts": 1 if comes_again_seconds else 185,
    }
    assert target["DeadLetterConfig"] == {"Arn": {"GetAtt": "UndeliveredEvents.Arn"}}


def test_buckets_are_private_versioned_and_forget_unfinished_uploads() -> None:
    buckets = of_type("AWS::S3::Bucket")

    assert set(buckets) == {"UploadBucket", "VideoBucket", "WorkBucket"}
    for bucket in buckets.values():
        assert bucket["VersioningConfiguration"]["Status"] == "Enabled"
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        assert all(bucket["PublicAccessBlockConfiguration"].values())
        rules = bucket["LifecycleConfiguration"]["Rules"]
        (abort,) = (rule for rule in rules if "AbortIncompleteMultipartUpload" in rule)
        assert abort["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1
        assert abort["Status"] == "Enabled"
        assert "Prefix" not in abort


@pytest.mark.parametrize("bucket", ["UploadBucket", "VideoBucket", "WorkBucket"])
def test_a_bucket_and_its_objects_are_reached_over_tls_only(bucket: str) -> None:
    (policy,) = (
        policy["PolicyDocument"]["Statement"]
        for policy in of_type("AWS::S3::BucketPolicy").values()
        if policy["Bucket"] == {"Ref": bucket}
    )
    (deny,) = policy
    places = [{"GetAtt": f"{bucket}.Arn"}, {"Sub": f"${{{bucket}.Arn}}/*"}]

    assert (deny["Effect"], deny["Principal"], deny["Action"]) == ("Deny", "*", "s3:*")
    assert deny["Resource"] == places
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def expiries(template: dict[str, Any]) -> dict[str, tuple[Any, Any, Any]]:
    """Of each bucket: its prefix, and the days of current and of replaced versions."""
    return {
        name: (
            rule.get("Prefix"),
            rule.get("ExpirationInDays"),
            rule["NoncurrentVersionExpiration"]["NoncurrentDays"],
        )
        for name, bucket in template["Resources"].items()
        if bucket["Type"] == "AWS::S3::Bucket"
        for rule in bucket["Properties"]["LifecycleConfiguration"]["Rules"]
        if "NoncurrentVersionExpiration" in rule
    }


def test_only_copies_expire_by_default_and_replaced_uploads_outlive_their_jobs() -> None:
    prefix, work = {"Ref": "UploadPrefix"}, {"Ref": "KeepWorkDays"}

    assert expiries(TEMPLATE) == {
        "UploadBucket": (prefix, None, 100),
        "WorkBucket": (None, work, work),
    }
    assert DEFINITION["TimeoutSeconds"] < 100 * DAY_SECONDS


def test_what_is_to_be_kept_for_some_days_expires_on_our_buckets() -> None:
    kept = made(KeepUploadsDays="100", KeepVideosDays="400", KeepWorkDays="0")
    uploads, videos = {"Ref": "KeepUploadsDays"}, {"Ref": "KeepVideosDays"}

    assert expiries(kept) == {
        "UploadBucket": ({"Ref": "UploadPrefix"}, uploads, 100),
        "VideoBucket": (None, videos, videos),
    }


@pytest.mark.parametrize("what", ["Uploads", "Videos", "Work"])
def test_nothing_expires_before_a_waiting_job_has_used_it(what: str) -> None:
    taken = re.compile(PARAMETERS[f"Keep{what}Days"]["AllowedPattern"])

    assert [days for days in range(200) if taken.search(str(days))] == [0, *range(100, 200)]
    assert DEFINITION["TimeoutSeconds"] < 100 * DAY_SECONDS


# What is there already

THEIRS = {
    "ExistingUploadBucket": "their-uploads",
    "ExistingVideoBucket": "their-videos",
    "ExistingEventBusArn": "arn:aws:events:eu-west-1:123456789012:event-bus/theirs",
    "ExistingLedgerTable": "their-ledger",
    "ExistingRunComfySecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a-AbCdEf",
    "ExistingWaveSpeedSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:b-AbCdEf",
}
OURS = {
    "ExistingUploadBucket": {"UploadBucket", "UploadBucketPolicy"},
    "ExistingVideoBucket": {"VideoBucket", "VideoBucketPolicy"},
    "ExistingEventBusArn": {"EventBus"},
    "ExistingLedgerTable": {"Ledger"},
    "ExistingRunComfySecretArn": {"RunComfyToken"},
    "ExistingWaveSpeedSecretArn": {"WaveSpeedToken"},
}


@pytest.mark.parametrize("parameter", THEIRS)
def test_what_is_there_is_used_and_not_configured(parameter: str) -> None:
    template = made(**{parameter: THEIRS[parameter]})
    text = json.dumps(template)

    assert re.search(PARAMETERS[parameter]["AllowedPattern"], THEIRS[parameter])
    assert set(RESOURCES) - set(template["Resources"]) == OURS[parameter]
    for name in OURS[parameter]:  # nothing names what is not made
        assert not re.search(rf'"(Ref|GetAtt)": "{name}[."]|\${{{name}[.}}]', text), name
    assert re.search(rf'"Ref": "{parameter}"|\${{{parameter}}}', text)


@pytest.mark.parametrize("parameters", [{}, THEIRS], ids=["ours", "theirs"])
def test_other_stacks_find_the_bus_by_export_and_by_parameter(parameters: dict[str, str]) -> None:
    template = made(**parameters)
    stored = {
        it["Properties"]["Name"]["Sub"]: it["Properties"]["Value"]
        for it in template["Resources"].values()
        if it["Type"] == "AWS::SSM::Parameter"
    }

    for output, name in (("EventBusName", "event-bus-name"), ("EventBusArn", "event-bus-arn")):
        bus = template["Outputs"][output]
        assert bus["Export"] == {"Name": {"Sub": f"${{AWS::StackName}}-{output}"}}
        assert stored[f"/${{AWS::StackName}}/{name}"] == bus["Value"]


def test_their_buckets_rights_are_those_of_ours() -> None:
    theirs = made(**THEIRS)["Resources"]
    for name, role in RESOURCES.items():
        if role["Type"] in ("AWS::IAM::Role", "AWS::IAM::Policy"):
            text = json.dumps(role)
            text = text.replace("${UploadBucket}", "${ExistingUploadBucket}")
            text = text.replace("${VideoBucket}", "${ExistingVideoBucket}")
            text = text.replace("${Ledger}", "${ExistingLedgerTable}")
            text = text.replace('{"GetAtt": "EventBus.Arn"}', '{"Ref": "ExistingEventBusArn"}')
            text = re.sub(r'{"GetAtt": "(\w+)Token.Id"}', r'{"Ref": "Existing\1SecretArn"}', text)
            assert theirs[name] == json.loads(text), name


def test_the_rule_hears_their_bucket_and_its_prefix_alone() -> None:
    rule = made(**THEIRS)["Resources"]["UploadRule"]["Properties"]["EventPattern"]["detail"]

    assert rule == {
        "bucket": {"name": [{"Ref": "ExistingUploadBucket"}]},
        "object": {"key": [{"prefix": {"Ref": "UploadPrefix"}}]},
    }


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"ExistingUploadBucket": "a-b", "ExistingVideoBucket": "a-b"}, "the same bucket"),
        ({"ExistingUploadBucket": "a-b", "KeepUploadsDays": "100"}, "KeepUploadsDays"),
        ({"ExistingVideoBucket": "a-b", "KeepVideosDays": "100"}, "KeepVideosDays"),
        (THEIRS | {"EventReaderAccounts": "111122223333"}, "EventReaderAccounts"),
    ],
)
def test_a_wrong_combination_is_refused(parameters: dict[str, str], says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        made(**parameters)


# The archive, and other accounts


@pytest.mark.parametrize(
    ("parameters", "bus"),
    [({}, {"GetAtt": "EventBus.Arn"}), (THEIRS, {"Ref": "ExistingEventBusArn"})],
    ids=["ours", "theirs"],
)
def test_the_archive_keeps_our_events_of_either_bus(
    parameters: dict[str, str], bus: dict[str, str]
) -> None:
    template = made(**parameters)

    assert (
        template["Resources"]["EventArchive"]["Properties"].items()
        >= {
            "SourceArn": bus,
            "EventPattern": {"source": [SOURCE]},
            "RetentionDays": {"Ref": "KeepEventsDays"},
        }.items()
    )
    assert template["Outputs"]["EventArchiveArn"]["Value"] == {"GetAtt": "EventArchive.Arn"}


def test_without_days_there_is_no_archive() -> None:
    template = made(KeepEventsDays="0")
    taken = re.compile(PARAMETERS["KeepEventsDays"]["AllowedPattern"])

    assert "EventArchive" not in json.dumps(template["Resources"] | template["Outputs"])
    # EventBridge keeps events for ever for 0 days, however it is written.
    assert not [days for days in ("00", "000", "", "-1", "1.5") if taken.search(days)]


READERS = "111122223333,444455556666"
OF_WHO_KEEPS_RULES = {
    *("events:DescribeRule", "events:DeleteRule", "events:DisableRule", "events:EnableRule"),
    *("events:PutTargets", "events:RemoveTargets", "events:ListTargetsByRule"),
    *("events:TagResource", "events:UntagResource", "events:ListTagsForResource"),
}


def reader_statements(**parameters: str) -> list[dict[str, Any]]:
    return [
        it["Properties"]["Statement"]
        for it in made(**parameters)["Resources"].values()
        if it["Type"] == "AWS::Events::EventBusPolicy"
    ]


def test_other_accounts_make_rules_for_our_events_and_change_no_others() -> None:
    make, keep = reader_statements(EventReaderAccounts=READERS)

    own = {"events:creatorAccount": "${aws:PrincipalAccount}"}
    assert (make["Action"], set(keep["Action"])) == ("events:PutRule", OF_WHO_KEEPS_RULES)
    assert keep["Condition"] == {"StringEqualsIfExists": own}
    assert make["Condition"] == {
        "StringEqualsIfExists": own,
        "ForAllValues:StringEquals": {"events:source": SOURCE},
        "Null": {"events:source": "false"},
    }
    for statement in (make, keep):
        assert statement["Effect"] == "Allow"
        assert statement["Principal"] == {"AWS": {"Split": [",", {"Ref": "EventReaderAccounts"}]}}
        assert statement["Resource"]["Sub"].endswith(":rule/${EventBus}/*")


def test_two_stacks_of_an_account_can_both_have_readers() -> None:
    """CloudFormation: "<StatementId> already exists in stack ...", on another bus, too."""
    policies = {
        name: it
        for name, it in made(EventReaderAccounts=READERS)["Resources"].items()
        if it["Type"] == "AWS::Events::EventBusPolicy"
    }
    ids = [it["Properties"]["StatementId"]["Sub"] for it in policies.values()]

    assert len({*ids}) == len(policies)
    for name in ids:
        assert name.startswith("${AWS::StackName}-")
        assert len(name.replace("${AWS::StackName}", "s" * MAX_STACK_NAME_CHARACTERS)) <= 64
    # Each is written by reading the bus's policy first: at the same time, one would be lost.
    assert policies["EventReadersKeepRules"]["DependsOn"] == "EventReadersMakeRules"


def test_no_other_account_has_rights_on_the_bus_by_default() -> None:
    taken = re.compile(PARAMETERS["EventReaderAccounts"]["AllowedPattern"])

    assert reader_statements() == []
    assert taken.search(READERS)
    assert not [it for it in ("*", "1111", "111122223333,", f"{READERS}, 1") if taken.search(it)]


@pytest.mark.parametrize("prefix", ["", "inbox", "/inbox/", "a//b/", "*/", "${x}/", "../", "ä/"])
def test_a_prefix_that_is_no_folder_is_refused(prefix: str) -> None:
    pattern = PARAMETERS["UploadPrefix"]["AllowedPattern"]

    assert not re.search(pattern, prefix)
    assert re.search(pattern, "media/in box/")


@pytest.mark.parametrize(
    "kept",
    [
        *(f"{it}Bucket{policy}" for it in ("Upload", "Video", "Work") for policy in ("", "Policy")),
        "Ledger",
    ],
)
def test_buckets_and_ledger_outlive_the_stack(kept: str) -> None:
    assert RESOURCES[kept]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert RESOURCES[kept]["UpdateReplacePolicy"] == "Retain"


# The ledger


def test_the_ledger_forgets_by_what_is_written_into_it() -> None:
    forgets = RESOURCES["Ledger"]["Properties"]["TimeToLiveSpecification"]
    table = Mock()
    offer = PlannedOffer(provider="runcomfy", endpoint="a/model", fields={})

    DynamoDBLedger("ledger", table).begin("anna-1", NextAttempt(), offer, datetime.now(UTC))

    (call,) = table.transact_write_items.call_args_list
    written = call.kwargs["TransactItems"][0]["Put"]["Item"]
    days = (float(written[forgets["AttributeName"]]["N"]) - time.time()) / 86400
    assert days == pytest.approx(180, abs=1)  # Step Functions remembers names for 90
    assert forgets["Enabled"] is True


# Dead letters


def test_dead_letters_are_kept_as_long_as_can_be() -> None:
    for name, queue in of_type("AWS::SQS::Queue").items():
        assert name == "IntakeQueue" or queue["MessageRetentionPeriod"] == 14 * DAY_SECONDS


def test_intake_has_days_and_several_tries_for_an_upload() -> None:
    queue = of_type("AWS::SQS::Queue")["IntakeQueue"]

    assert queue["MessageRetentionPeriod"] >= 4 * DAY_SECONDS  # intake broken over a long weekend
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"GetAtt": "IntakeDeadLetters.Arn"}
    assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5  # AWS's advice for Lambda's queues
    assert queue["VisibilityTimeout"] >= 6 * timeout_seconds("IntakeFunction")  # the same page's


def test_intake_repeats_only_what_failed_of_a_batch_and_may_remind_itself() -> None:
    intake = of_type("AWS::Serverless::Function")["IntakeFunction"]

    (uploads,) = intake["Events"].values()
    assert uploads["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    # Else Lambda takes an upload's long wait for a loop, and stops it after sixteen looks.
    assert intake["RecursiveLoop"] == "Allow"


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

    assert set(rules) == {
        "UploadRule",
        "EndedRule",
        "SweepRule",
        "ServeRule",
        "WatchRule",
        "NotifyRule",
    }
    for name, rule in rules.items():
        for target in rule["Targets"]:
            written = (target["DeadLetterConfig"]["Arn"], target["Arn"])
            for queue in (arn["GetAtt"] for arn in written if "GetAtt" in arn):
                assert {"GetAtt": f"{name}.Arn"} in allowed[queue]


@pytest.mark.parametrize("queue", [it for it in of_type("AWS::SQS::Queue") if it != "IntakeQueue"])
def test_a_dead_letter_queue_has_an_alarm_that_the_docs_explain(queue: str) -> None:
    alarm = of_type("AWS::CloudWatch::Alarm")[f"{queue}Alarm"]
    page = (PROJECT / "docs/operating.md").read_text()
    _, _, explained = page.partition(f"\n### {queue}Alarm\n")
    command = re.findall(r"`make ([\w-]+)`", explained)[0]

    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": {"GetAtt": f"{queue}.QueueName"}}]
    assert f"\n{command}:" in (PROJECT / "Makefile").read_text()


def test_the_minutes_rule_sends_what_the_sweep_function_expects() -> None:
    rules = of_type("AWS::Events::Rule")
    (hourly,), (minutely,) = rules["SweepRule"]["Targets"], rules["ServeRule"]["Targets"]
    handler = (PROJECT / "functions/sweep/app.py").read_text().replace("'", '"')

    assert minutely["Input"] in handler
    assert "Input" not in hourly
    assert hourly["Arn"] == minutely["Arn"] == {"Ref": "SweepFunction.Alias"}
    for rule in ("EndedRule", "SweepRule", "ServeRule", "WatchRule", "NotifyRule"):
        permission = of_type("AWS::Lambda::Permission")[f"{rule}Permission"]
        assert permission["SourceArn"] == {"GetAtt": f"{rule}.Arn"}
        assert permission["FunctionName"] == rules[rule]["Targets"][0]["Arn"]
        assert permission["Principal"] == "events.amazonaws.com"


@pytest.mark.parametrize(
    ("step", "dead_letters"),
    [
        ("Conclude", "UnconcludedJobs"),
        ("Sweep", "UndeliveredEvents"),
        ("Notify", "UndeliveredEvents"),
    ],
)
def test_an_event_that_a_function_fails_on_is_kept(step: str, dead_letters: str) -> None:
    queue = {"GetAtt": f"{dead_letters}.Arn"}

    # The most tries that Lambda offers; and six hours, which are its most, when no age is said.
    assert of_type("AWS::Lambda::EventInvokeConfig")[f"{step}FunctionEventInvokeConfig"] == {
        "FunctionName": {"Ref": f"{step}Function"},
        "Qualifier": {"Select": [7, {"Split": [":", {"Ref": f"{step}Function.Alias"}]}]},
        "MaximumRetryAttempts": 2,
        "DestinationConfig": {"OnFailure": {"Destination": queue}},
    }
    assert queue in may(f"{step}Role", "sqs:SendMessage")


# Time


def test_a_submit_that_still_runs_is_never_taken_for_dead() -> None:
    assert timeout_seconds("SubmitFunction") < submission.CALL_LIFE_SECONDS


@pytest.mark.parametrize("dialect", [RunComfy, WaveSpeed])
def test_a_function_outlives_its_calls_to_a_provider(
    dialect: type[RunComfy] | type[WaveSpeed],
) -> None:
    waits: dict[str, float] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        waits.update(request.extensions["timeout"])
        return httpx.Response(503)

    provider = dialect("https://x.example", Mock(return_value="t"), transport=MockTransport(answer))
    with pytest.raises(Unclear):
        provider.submit("a/model", {})
    call_seconds = waits["connect"] + waits["read"]
    token_seconds = _all_tries_seconds(tokens._SHORT_TIMEOUTS)
    written_seconds = _all_tries_seconds(clients.TABLE)

    assert waits["read"] == 60
    # The one call, and a second one when the token was rotated meanwhile.
    needed_seconds = 2 * (token_seconds + call_seconds) + written_seconds
    assert needed_seconds <= submission.CALL_NEEDS_SECONDS < timeout_seconds("SubmitFunction")

    with pytest.raises(Unreachable):
        provider.ask(TICKET)
    call_seconds = waits["connect"] + waits["read"]
    assert waits["read"] == 20
    # A look at a list of requests reads page after page, and records what it finds.
    look_seconds = 2 * token_seconds + (wavespeed.MAX_PAGES + 1) * call_seconds
    assert look_seconds + written_seconds < timeout_seconds("SubmitFunction")
    # The most calls that a step makes, and one more when the token was rotated meanwhile. Poll
    # asks for the state, for the result, and cancels by a call and a question.
    for step, calls in {"Poll": 4, "Deliver": 1, "Conclude": 2}.items():
        assert timeout_seconds(f"{step}Function") > (calls + 1) * call_seconds, step


LAMBDA_AT_MOST_SECONDS = 900
A_CALL_SECONDS = 0.1  # to an AWS service, on a bad day


def test_a_function_outlives_the_longest_call() -> None:
    needs_seconds = {
        # A sweep's page of 1000 uploads: the list, the notes of a hundred each, the sightings.
        "Intake": (1 + 10 + inbox_sweep.SWEEP_UPLOADS_PER_MINUTE) * A_CALL_SECONDS,
        # Both media, one after the other: fetched at 50 MB a second, decoded, written and stored;
        # and both secrets, when Secrets Manager hangs.
        "Prepare": (prepare.MAX_PICTURE_BYTES + prepare.MAX_RECORDING_BYTES) / 50e6
        + 2 * shut_in.MAX_WORKING_SECONDS
        + shut_in._STORING_SECONDS
        + 2 * _all_tries_seconds(tokens._SHORT_TIMEOUTS),
        # A write, when the ledger hangs.
        "Admit": _all_tries_seconds(clients.TABLE),
        "Announce": _all_tries_seconds(clients.TABLE),
        "Watch": _all_tries_seconds(clients.TABLE),
        "Notify": _all_tries_seconds(clients.BUS),
        "Submit": submission.CALL_NEEDS_SECONDS,
        # Two gigabytes, as fast as they come; and all that ended in two weeks, ten a second.
        "Deliver": LAMBDA_AT_MOST_SECONDS,
        "Sweep": LAMBDA_AT_MOST_SECONDS,
    }
    calls_a_provider = {"Poll", "Conclude"}  # above

    functions = {name.removesuffix("Function") for name in of_type("AWS::Serverless::Function")}
    assert functions == {*needs_seconds, *calls_a_provider}
    for step, needed_seconds in needs_seconds.items():
        assert needed_seconds <= timeout_seconds(f"{step}Function") <= LAMBDA_AT_MOST_SECONDS, step
    assert timeout_seconds("SweepFunction") > sweeping.MAX_DESCRIBED / 10


def test_an_event_for_display_is_sent_within_the_time_that_must_be_left() -> None:
    sent_seconds = _all_tries_seconds(clients.DISPLAY)

    assert sent_seconds == 3  # one try
    assert _all_tries_seconds(clients.TABLE) + sent_seconds <= display.NEEDS_SECONDS
    for step in ("Admit", "Submit"):
        assert timeout_seconds(f"{step}Function") > display.NEEDS_SECONDS


def _all_tries_seconds(config: Any) -> float:  # noqa: ANN401 - the stubs know no field of it
    """How long a call takes that is never answered."""
    tries = config.retries.get("total_max_attempts") or 1 + config.retries["max_attempts"]
    seconds: float = tries * (config.connect_timeout + config.read_timeout)
    return seconds


# Bounds

EVENTS_AT_MOST = 25_000  # Step Functions: of one execution
EVENTS_OF = {"Task": 5, "Choice": 2, "Wait": 2}  # entered, scheduled, started, succeeded, exited


def events_of(*states: str) -> int:
    """How many events of an execution's history it takes to go through these states once."""
    return sum(EVENTS_OF[INNER[state]["Type"]] for state in states)


A_FAILED_TRY = 3  # scheduled, started, failed
THROTTLED, _, FAULTS = INNER["Poll"]["Retry"]


@pytest.mark.parametrize("retrier", [THROTTLED, FAULTS], ids=["throttled", "faults"])
def test_the_longest_execution_keeps_its_history_in_bounds(retrier: dict[str, Any]) -> None:
    """Both offers throttle for as long as patience lasts, and the second then takes as long
    to begin and to render as it may; and as often as it can be, a poll fails. Chance is the mean
    here: the tries are hundreds."""
    tries = list(_tries())
    a_try = events_of("Submit", "Was it accepted?", "Wait to submit")

    # Each try may wait for its turn within the minute before, which is one more time around.
    submissions = 2 * len(tries) * 2 * a_try
    events = submissions + max(_events_of_polls(retrier, failures) for failures in range(30))

    assert attempts.MAX_SUBMISSIONS == 2
    assert events < EVENTS_AT_MOST


@pytest.mark.parametrize("retrier", [THROTTLED, FAULTS], ids=["throttled", "faults"])
def test_polls_are_tried_again_for_as_long_as_a_render_may_take(retrier: dict[str, Any]) -> None:
    waits = retry_waits_seconds(retrier, retrier["MaxAttempts"])

    assert sum(waits) >= _render_may_take_seconds()
    assert len(waits) * A_FAILED_TRY + _events_of_polls(retrier, 0) < EVENTS_AT_MOST


def _render_may_take_seconds() -> float:
    minutes = [PARAMETERS[f"{what}TimeoutMinutes"]["MaxValue"] for what in ("Queue", "Render")]
    assert minutes[1] * 60 == catalog.MAX_RENDER_TIMEOUT_SECONDS
    return float(sum(minutes)) * 60


def _events_of_polls(retrier: dict[str, Any], failures: int) -> int:
    """Of all polls of the longest render, when each fails so often before it is answered."""
    retry_seconds = sum(retry_waits_seconds(retrier, failures))
    a_poll = events_of("Wait", "Poll", "Is it ready?") + failures * A_FAILED_TRY
    return len(list(_polls(_render_may_take_seconds(), retry_seconds))) * a_poll


def _tries() -> Iterator[int]:
    """The waits between submissions to a provider that throttles and says nothing of when."""
    waited_seconds, number = 0, 1
    while wait_seconds := throttled_wait_seconds(
        number, throttled_seconds=waited_seconds, jitter=lambda: 0.5
    ):
        yield wait_seconds
        waited_seconds, number = waited_seconds + wait_seconds, number + 1


def _polls(render_seconds: float, retry_seconds: float = 0) -> Iterator[int]:
    """The waits between polls."""
    waited_seconds = 0.0
    while waited_seconds < render_seconds:
        wait_seconds = next_wait_seconds(waited_seconds)
        yield wait_seconds
        waited_seconds += wait_seconds + retry_seconds


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_a_parameter_takes_no_unreadable_value(parameter: str) -> None:
    asked = PARAMETERS[parameter]
    bounds = {"MinValue", "MaxValue"} if asked["Type"] == "Number" else {"AllowedPattern"}

    assert "AllowedValues" in asked or bounds <= set(asked)
    if "AllowedPattern" in asked:
        assert "ConstraintDescription" in asked  # nobody reads a pattern
        assert re.search(asked["AllowedPattern"], asked["Default"])


def settings_models() -> Iterator[type[settings.Settings]]:
    for model in vars(settings).values():
        if isinstance(model, type) and issubclass(model, settings.Settings):
            yield model


@pytest.mark.parametrize("model", list(settings_models()))
def test_a_setting_is_read_within_the_bounds_of_its_parameter(
    model: type[settings.Settings],
) -> None:
    """However it comes: an environment can be changed by hand."""
    for name, field in model.model_fields.items():
        if asked := PARAMETERS.get("".join(map(str.capitalize, name.split("_")))):
            assert_same_bounds(name, field, asked)


@pytest.mark.parametrize("provider", TITLES)
def test_an_account_is_read_within_the_bounds_of_its_parameters(provider: str) -> None:
    for name in ("max_in_flight", "max_submits_per_minute"):
        parameter = TITLES[provider] + "".join(map(str.capitalize, name.split("_")))
        field = settings.ProviderAccount.model_fields[name]
        assert_same_bounds(name, field, PARAMETERS[parameter])


def assert_same_bounds(name: str, field: FieldInfo, asked: dict[str, Any]) -> None:
    bounds = {key: value for it in field.metadata for key, value in vars_of(it).items()}
    if asked["Type"] == "Number":
        assert (bounds["ge"], bounds["le"]) == (asked["MinValue"], asked["MaxValue"]), name
    elif "AllowedValues" in asked and name != "model":
        assert list(get_args(field.annotation)) == asked["AllowedValues"]
    elif "AllowedPattern" in asked and name != "catalog_overrides":
        assert bounds["pattern"] == asked["AllowedPattern"]


def vars_of(constraint: object) -> dict[str, Any]:
    """Of one of annotated_types, or of pydantic's own."""
    names = ("ge", "le", "pattern")
    return {name: getattr(constraint, name) for name in names if hasattr(constraint, name)}


def test_overrides_that_can_be_read_are_taken_at_deploy() -> None:
    asked = PARAMETERS["CatalogOverrides"]
    every = {
        offer.endpoint: {
            "on": True,
            "usd_per_second": {
                str(value): 0.00001234
                for option in offer.options
                if option.name == "resolution"
                for value in option.values
            },
        }
        for model in MODELS.values()
        for offer in model.route
    }
    names = [name for name in overrides.Override.model_fields if "_at_" in name]
    limits = {"wan-ai/wan-2-2/speech-to-video": dict.fromkeys(names, 9)}
    texts = ["", " ", "{}", json.dumps(every), json.dumps(limits, indent=2)]
    for text in texts:
        assert len(overrides.overrides_in(text)) == text.count("-to-video") + text.count("talk")
        assert re.search(asked["AllowedPattern"], text), text
        assert len(text) <= asked["MaxLength"] <= 2000  # of the 4 KB of all variables


def test_no_record_is_deleted_unless_the_owner_says_so() -> None:
    assert PARAMETERS["DeleteAfterDelivery"]["Default"] == "false"


@pytest.mark.parametrize(
    "fields",
    [
        '"on": 1',
        '"on": true,',
        '"on": true "image_at_most_pixels": 9',
        '"off": true',
        '"usd_per_second": 0.04',
        '"usd_per_second": {"480p": "0.04"}',
        '"usd_per_second": {"480p": 0,04}',
        '"usd_per_second": {"480p": -1}',
        '"usd_per_second": {"480p": 1e3}',
        '"usd_per_second": {"4k": 1}',
        '"audio_at_most_seconds": null',
        "on: true",
    ],
)
def test_a_slip_in_the_overrides_is_refused_at_deploy(fields: str) -> None:
    pattern = PARAMETERS["CatalogOverrides"]["AllowedPattern"]

    assert not re.search(pattern, f'{{"wan-ai/wan-2-2/speech-to-video": {{{fields}}}}}')


@pytest.mark.parametrize(
    "text", ['{"wan-3": {}}', "0.04", "true", "wan-ai/wan-2-2/speech-to-video:480p=0.04", "{"]
)
def test_overrides_of_another_form_are_refused_at_deploy_and_by_the_code(text: str) -> None:
    assert not re.search(PARAMETERS["CatalogOverrides"]["AllowedPattern"], text)
    with pytest.raises(overrides.OverridesUnreadable):
        overrides.overrides_in(text)


def test_one_parameter_turns_tracing_off_everywhere() -> None:
    (machine,) = of_type("AWS::Serverless::StateMachine").values()
    functions = of_type("AWS::Serverless::Function").values()
    modes = TEMPLATE["Parameters"]["Tracing"]["AllowedValues"]

    assert TEMPLATE["Globals"]["Function"]["Tracing"] == {"Ref": "Tracing"}
    assert not any("Tracing" in function for function in functions)
    assert machine["Tracing"]["Enabled"] == {
        "FindInMap": ["StateMachineTracing", "Enabled", {"Ref": "Tracing"}]
    }
    enabled = TEMPLATE["Mappings"]["StateMachineTracing"]["Enabled"]
    assert {mode: enabled[mode] for mode in modes} == {"Active": "true", "PassThrough": "false"}


def test_the_version_is_the_changelogs_latest() -> None:
    version = TEMPLATE["Mappings"]["Dropreel"]["Release"]["Version"]

    changelog = (PROJECT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[([\d.]+)\]", changelog, re.MULTILINE)[0] == version


def test_the_models_are_the_catalogs() -> None:
    assert PARAMETERS["Model"]["AllowedValues"] == list(MODELS)
    assert PARAMETERS["Model"]["Default"] == demo.DEFAULT_MODEL


def substituted(value: object) -> str:
    """A variable as a function gets it, when nobody sets a parameter."""
    if not isinstance(value, dict):
        return str(value)
    ((how, what),) = value.items()
    if how == "FindInMap":
        return str(TEMPLATE["Mappings"][what[0]][what[1]][what[2]])
    if how == "Ref":
        return str(PARAMETERS.get(what, {"Default": what})["Default"])
    return re.sub(
        r"\${([\w.:]+)}", lambda it: str(PARAMETERS.get(it[1], {"Default": it[1]})["Default"]), what
    )


@pytest.mark.parametrize("name", of_type("AWS::Serverless::Function"))
def test_a_function_can_read_its_settings(name: str) -> None:
    function = of_type("AWS::Serverless::Function")[name]
    everywhere = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    own = function.get("Environment", {}).get("Variables", {})
    handler = (PROJECT / function["CodeUri"] / "app.py").read_text()
    used = re.search(r"(\w+)\.from_environment\(\)", handler)
    model = getattr(settings, used[1]) if used else settings.Settings

    made = model.model_validate({key: substituted(it) for key, it in (everywhere | own).items()})

    fields = {field.upper() for field in type(made).model_fields}
    assert set(own) <= fields <= set(everywhere) | set(own)


def test_each_provider_of_the_catalog_is_in_the_template() -> None:
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    accounts = settings.ProviderSettings.model_validate(
        {"LEDGER_TABLE": "ledger", "PROVIDERS": substituted(variables["PROVIDERS"])}
    ).providers

    assert set(accounts) == set(TITLES)
    for provider, account in accounts.items():
        assert account.secret == f"{TITLES[provider]}Token.Id"  # its ARN, also on the embedded AWS
        assert account.url.startswith("https://")
        assert f"{TITLES[provider]}TokenArn" in TEMPLATE["Outputs"]
