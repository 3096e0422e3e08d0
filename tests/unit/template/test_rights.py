"""What the roles of the template may do, and nothing more."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest

from tests.support.sam_template import (
    MACHINE,
    RESOURCES,
    TASKS,
    as_list,
    made,
    may,
    of_type,
    statements,
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


OF_EVERY_FUNCTION = {
    "{step}Logs": "logs: CreateLogStream PutLogEvents",
    "*": "xray: PutTelemetryRecords PutTraceSegments",
}
OF_WHO_CALLS_PROVIDERS = {
    "RunComfyToken": "secretsmanager: GetSecretValue",
    "WaveSpeedToken": "secretsmanager: GetSecretValue",
}
# A transaction needs the right to each of its writes, and for a check that to check.
OF_ADMISSION = {
    "Ledger": "dynamodb: ConditionCheckItem DeleteItem GetItem PutItem Query UpdateItem",
    "the state machine": "states: SendTaskFailure SendTaskSuccess",
    "its executions": "states: DescribeExecution",
}
# Without the right to list, S3 answers "forbidden" for what is gone.
OF_WHO_READS_PINS = {
    "UploadBucket": "s3: ListBucket ListBucketVersions",
    "UploadBucket/${UploadPrefix}*": "s3: GetObjectVersion",
}
RIGHTS: dict[str, dict[str, str]] = {
    "Intake": {
        **OF_EVERY_FUNCTION,
        "IntakeQueue": "sqs: DeleteMessage GetQueueAttributes ReceiveMessage SendMessage",
        "UploadBucket, where s3:prefix is ${UploadPrefix}*": "s3: ListBucketVersions",
        "UploadBucket": "s3: GetBucketVersioning",
        "UploadBucket/${UploadPrefix}*.???": "s3: GetObjectVersion",
        "UploadBucket/${UploadPrefix}*.????": "s3: GetObjectVersion",
        "Ledger": "dynamodb: BatchGetItem GetItem PutItem",
        "RenderStateMachine": "states: StartExecution",
        "EventBus": "events: PutEvents",
        "VideoBucket": "s3: ListBucket",
        "VideoBucket/*.json": "s3: GetObject",
        "VideoBucket/*.error.json": "s3: DeleteObject PutObject",
    },
    "Prepare": {
        **OF_EVERY_FUNCTION,
        **OF_WHO_READS_PINS,
        "WorkBucket/work/*": "s3: PutObject",
        # No token: native codecs open people's files here.
        "RunComfyToken": "secretsmanager: DescribeSecret",
        "WaveSpeedToken": "secretsmanager: DescribeSecret",
        "UploadBucket": "s3: GetBucketVersioning ListBucket ListBucketVersions",
        "VideoBucket": "s3: GetBucketVersioning ListBucket ListBucketVersions",
        "VideoBucket/*.json": "s3: GetObject",
        "VideoBucket/*.error.json": "s3: DeleteObject",
        "Ledger": "dynamodb: GetItem PutItem Query",
    },
    "Admit": {**OF_EVERY_FUNCTION, **OF_ADMISSION, "EventBus": "events: PutEvents"},
    "Submit": {
        **OF_EVERY_FUNCTION,
        **OF_WHO_CALLS_PROVIDERS,
        "UploadBucket": "s3: ListBucket ListBucketVersions",
        "WorkBucket": "s3: ListBucket ListBucketVersions",
        "UploadBucket/${UploadPrefix}*": "s3: GetObject GetObjectVersion",
        "WorkBucket/work/*": "s3: GetObject GetObjectVersion",
        "Ledger": "dynamodb: ConditionCheckItem GetItem PutItem Query UpdateItem",
        "EventBus": "events: PutEvents",
    },
    "Poll": {**OF_EVERY_FUNCTION, **OF_WHO_CALLS_PROVIDERS, **OF_ADMISSION},
    "Deliver": {
        **OF_EVERY_FUNCTION,
        **OF_WHO_CALLS_PROVIDERS,
        "VideoBucket": "s3: ListBucket",
        "VideoBucket/*.json": "s3: AbortMultipartUpload GetObject PutObject",
        "VideoBucket/*.mp4": "s3: AbortMultipartUpload GetObject PutObject",
        "VideoBucket/*.error.json": "s3: DeleteObject",
        "Ledger": "dynamodb: GetItem PutItem Query UpdateItem",
    },
    "Conclude": {
        **OF_EVERY_FUNCTION,
        **OF_WHO_CALLS_PROVIDERS,
        **OF_ADMISSION,
        "VideoBucket": "s3: ListBucket",
        "VideoBucket/*.json": "s3: GetObject",
        "VideoBucket/*.error.json": "s3: PutObject",
        "VideoBucket/*.check.json": "s3: PutObject",
        "EventBus": "events: PutEvents",
        "UnconcludedJobs": "sqs: SendMessage",  # what it fails on itself
    },
    "Announce": {
        **OF_EVERY_FUNCTION,
        "Ledger": "dynamodb: DeleteItem GetItem PutItem UpdateItem",
        "EventBus": "events: PutEvents",
    },
    "Sweep": {
        **OF_EVERY_FUNCTION,
        **OF_ADMISSION,
        "RenderStateMachine": "states: ListExecutions",
        "ConcludeFunction.Alias": "lambda: InvokeFunction",
        "IntakeQueue": "sqs: SendMessage",
        "UndeliveredEvents": "sqs: SendMessage",  # what it fails on itself
    },
    "Watch": {
        **OF_EVERY_FUNCTION,
        **OF_WHO_CALLS_PROVIDERS,
        "Ledger": "dynamodb: DeleteItem GetItem PutItem Query",
    },
    "Notify": {
        **OF_EVERY_FUNCTION,
        "NotifyTopic": "sns: Publish",
        "UndeliveredEvents": "sqs: SendMessage",  # what it fails on itself
    },
    "Render": {
        **{f"{step}Function.Alias": "lambda: InvokeFunction" for step in TASKS},
        # For executions of 0.1.0.
        **{f"{step}Function": "lambda: InvokeFunction" for step in TASKS},
        # As the pages "X-Ray and Step Functions" and "Logging using CloudWatch Logs" ask.
        "*": "logs: CreateLogDelivery DeleteLogDelivery DescribeLogGroups DescribeResourcePolicies "
        "GetLogDelivery ListLogDeliveries PutResourcePolicy UpdateLogDelivery "
        "xray: GetSamplingRules GetSamplingTargets PutTelemetryRecords PutTraceSegments",
    },
}


@pytest.mark.parametrize("step", RIGHTS)
def test_a_role_may_do_this_and_no_more(step: str) -> None:
    given: dict[str, list[str]] = {}
    for role, statement in statements():
        if role == f"{step}Role":
            assert set(statement) <= {"Effect", "Action", "Resource", "Condition"}
            assert statement["Effect"] == "Allow"
            for resource in as_list(statement["Resource"]):
                place = _place(resource) + _where(statement.get("Condition"))
                given.setdefault(place, []).extend(as_list(statement["Action"]))

    assert {place: sorted(actions) for place, actions in given.items()} == {
        place.replace("{step}", step): sorted(_spelled_out(actions))
        for place, actions in RIGHTS[step].items()
    }


def test_no_role_has_rights_from_elsewhere() -> None:
    roles = of_type("AWS::IAM::Role")

    assert set(roles) == {f"{step}Role" for step in RIGHTS}
    for role in roles.values():
        assert set(role) == {"AssumeRolePolicyDocument", "Policies"}
    for kind in ("AWS::Serverless::Function", "AWS::Serverless::StateMachine"):
        assert not [name for name, it in of_type(kind).items() if "Policies" in it]
    kinds = {resource["Type"] for resource in RESOURCES.values()}
    assert {kind for kind in kinds if "::IAM::" in kind} == {
        "AWS::IAM::Role",
        "AWS::IAM::Policy",
        "AWS::IAM::ManagedPolicy",
    }
    for policy in of_type("AWS::IAM::ManagedPolicy").values():
        assert set(policy) == {"PolicyDocument"}  # attached to nobody, and never replaced


# What IAM lets a tag's value hold, so no wildcard of a policy.
TAG_VALUE = re.compile(r"[\w\s.:/=+@-]{0,256}")
TAG = "aws:PrincipalTag/dropreel-folder"
THEIR_FOLDER = f"${{{TAG}}}"
OTHER_BUCKETS = {"ExistingUploadBucket": "theirs", "ExistingVideoBucket": "others"}


def _allows(policy: str, folder: str | None, action: str, place: str, theirs: bool) -> bool:
    """Whether a managed policy allows this to who has the tag. `place` is `bucket/key`, or for a
    list `bucket?prefix`. IAM matches nothing by a variable that has no value."""
    assert folder is None or TAG_VALUE.fullmatch(folder)
    parameters = OTHER_BUCKETS if theirs else {}
    ours = {"UploadBucket": "ours-up", "VideoBucket": "ours-out"}
    values = {"AWS::Partition": "aws", "UploadPrefix": "in/box/"} | ours | parameters

    def filled(text: str) -> str:
        for name, value in values.items():
            text = text.replace(f"${{{name}}}", value)
        return text.replace("${!", "${")

    bucket, _, prefix = place.partition("?")
    resource = made(**parameters)["Resources"][policy]
    effects = set()
    for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
        conditions = statement.get("Condition", {"StringLike": {}})
        assert set(conditions) == {"StringLike"}
        arn, places = f"arn:aws:s3:::{bucket}", as_list(statement["Resource"])
        matches = [any(_matches(filled(it["Sub"]), folder, arn) for it in places)]
        for key, pattern in conditions["StringLike"].items():
            matches.append(_matches(pattern, folder, {"s3:prefix": prefix, TAG: folder}[key]))
        if action in as_list(statement["Action"]) and all(matches):
            effects.add(statement["Effect"])
    assert effects <= {"Allow", "Deny"}
    return effects == {"Allow"}


def _matches(pattern: str, folder: str | None, it: str | None) -> bool:
    if it is None or (folder is None and THEIR_FOLDER in pattern):
        return False
    return fnmatchcase(it, pattern.replace(THEIR_FOLDER, folder or ""))


@pytest.mark.parametrize("theirs", [False, True])
def test_who_drops_and_who_reads_gets_their_own_top_folder(theirs: bool) -> None:
    uploads, videos = ("theirs", "others") if theirs else ("ours-up", "ours-out")
    dropped, put = f"{uploads}/in/box/anna/a.png", "s3:PutObject"
    video, get = f"{videos}/anna/a.mp4", "s3:GetObject"
    listed, look = f"{videos}?anna/", "s3:ListBucket"

    for folder in ("anna", "ann", "anna2", "", None):
        own = folder == "anna"
        assert _allows("UploaderPolicy", folder, put, dropped, theirs) is own
        assert _allows("ReaderPolicy", folder, get, video, theirs) is own
        assert _allows("ReaderPolicy", folder, look, listed, theirs) is own
    for beside in ("in/box/a.png", "anna/a.png", "in/box/ben/anna/a.png"):
        assert not _allows("UploaderPolicy", "anna", put, f"{uploads}/{beside}", theirs)
    for prefix in ("", "ann", "anna", "ben/"):
        assert not _allows("ReaderPolicy", "anna", look, f"{videos}?{prefix}", theirs)
    assert not _allows("UploaderPolicy", "anna", put, video, theirs)
    assert not _allows("ReaderPolicy", "anna", get, dropped, theirs)


@pytest.mark.parametrize("theirs", [False, True])
@pytest.mark.parametrize("folder", ["anna/b", "anna/b/c", "anna/", "/anna", "/"])
def test_a_tag_below_the_top_folder_gives_nothing(folder: str, theirs: bool) -> None:
    """It would keep nobody out: jobs may name all files of their top folder."""
    uploads, videos = ("theirs", "others") if theirs else ("ours-up", "ours-out")

    for below in (folder, "anna", "anna/b"):
        put = ("s3:PutObject", f"{uploads}/in/box/{below}/a.png")
        assert not _allows("UploaderPolicy", folder, *put, theirs)
        assert not _allows("ReaderPolicy", folder, "s3:GetObject", f"{videos}/{below}/a", theirs)
        assert not _allows("ReaderPolicy", folder, "s3:ListBucket", f"{videos}?{below}/", theirs)


def test_a_tag_below_the_top_folder_is_denied_all_that_the_policy_allows() -> None:
    for policy in of_type("AWS::IAM::ManagedPolicy").values():
        actions: dict[str, set[str]] = {"Allow": set(), "Deny": set()}
        for statement in policy["PolicyDocument"]["Statement"]:
            actions[statement["Effect"]].update(as_list(statement["Action"]))
        assert actions["Deny"] == actions["Allow"]


def test_who_drops_and_who_reads_may_do_no_more() -> None:
    may_do = {
        name: {
            action
            for statement in policy["PolicyDocument"]["Statement"]
            for action in as_list(statement["Action"])
        }
        for name, policy in of_type("AWS::IAM::ManagedPolicy").items()
    }

    assert may_do == {
        "UploaderPolicy": {
            "s3:PutObject",
            "s3:AbortMultipartUpload",
            "s3:ListMultipartUploadParts",
        },
        "ReaderPolicy": {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"},
    }


@pytest.mark.parametrize("step", RIGHTS)
def test_a_role_is_for_its_service_alone(step: str) -> None:
    (trust,) = of_type("AWS::IAM::Role")[f"{step}Role"]["AssumeRolePolicyDocument"]["Statement"]
    of_this_machine_alone = {
        "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
        "ArnLike": {"aws:SourceArn": {"Sub": MACHINE}},
    }
    is_machines = step == "Render"

    assert trust == {
        "Effect": "Allow",
        "Principal": {"Service": "states.amazonaws.com" if is_machines else "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
        **({"Condition": of_this_machine_alone} if is_machines else {}),
    }


# Of each integration that the definition uses: IAM's action, and the argument that names the
# resource.
INTEGRATIONS = {"lambda:invoke": ("lambda:InvokeFunction", "FunctionName")}


def test_the_machine_may_do_exactly_what_its_definition_calls() -> None:
    """No engine checks it: a right that is missing would show in an account only."""
    machine = of_type("AWS::Serverless::StateMachine")["RenderStateMachine"]
    called = set()
    for task in TASKS.values():
        _, _, integration = task["Resource"].removesuffix(".waitForTaskToken").partition(":::")
        action, argument = INTEGRATIONS[integration]
        name = task["Arguments"][argument].strip("${}")
        called.add((action, _place(machine["DefinitionSubstitutions"][name])))

    allowed = {
        (action, _place(resource))
        for role, statement in statements()
        if role == "RenderRole"
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
        if resource != "*"
    }
    before_aliases = {(action, place.removesuffix(".Alias")) for action, place in called}
    assert allowed == called | before_aliases
    assert machine["Role"] == {"GetAtt": "RenderRole.Arn"}


# As the page "Using Lambda with Amazon SQS" asks.
OF_A_QUEUES_MAPPING = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")


def test_a_function_may_take_from_each_queue_that_calls_it() -> None:
    """The embedded AWS does not check it, and Lambda would make no mapping."""
    mappings = [
        (function["Role"]["GetAtt"].removesuffix(".Arn"), event["Properties"]["Queue"])
        for function in of_type("AWS::Serverless::Function").values()
        for event in function.get("Events", {}).values()
        if event["Type"] == "SQS"
    ]

    assert mappings
    for role, queue in mappings:
        for action in OF_A_QUEUES_MAPPING:
            assert queue in may(role, action), f"{role} lacks {action}"


_ARN = r"arn:\${AWS::Partition}:(?:s3:::|dynamodb:[^/]+:table/)\${(\w+)}(.*)"


def _place(resource: Any) -> str:  # noqa: ANN401 - as YAML has it
    """A resource in short: its name in the template, and what follows the name."""
    if resource == {"Sub": MACHINE}:
        return "the state machine"
    if resource == {"Sub": f"{MACHINE.replace(':stateMachine:', ':execution:')}:*"}:
        return "its executions"
    if isinstance(resource, str):
        return resource
    ((how, what),) = resource.items()
    if how == "Sub" and (named := re.fullmatch(_ARN, what)):
        return "".join(named.groups())
    named = re.fullmatch(
        {"Ref": r"([\w.]+)()", "GetAtt": r"(\w+)\.(?:Arn|Id)()", "Sub": r"\${(\w+)\.Arn}(/.+)"}[
            how
        ],
        what,
    )
    assert named, resource
    return "".join(named.groups())


def _where(condition: dict[str, Any] | None) -> str:
    if condition is None:
        return ""
    ((how, ((key, value),)),) = ((how, tuple(it.items())) for how, it in condition.items())
    assert how == "StringLike"
    return f", where {key} is {value['Sub']}"


def _spelled_out(actions: str) -> Iterator[str]:
    """`s3: GetObject PutObject` as IAM has it."""
    service = ""
    for word in actions.split():
        if word.endswith(":"):
            service = word
        else:
            yield service + word


def test_no_log_holds_what_a_job_says() -> None:
    machine = of_type("AWS::Serverless::StateMachine")["RenderStateMachine"]

    assert machine["Type"] == "STANDARD"
    assert machine["Logging"]["IncludeExecutionData"] is False
