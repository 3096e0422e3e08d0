"""What `docs/costs.md` says is the arithmetic of what `make costs` counted."""

from typing import Any

import pytest

from local import costs
from local.costs import Counted, Recorded
from local.models import README
from tests.bench.costs import Line as LogLine
from tests.bench.costs import charged, metrics_in, transitions


def job(polls: int, **amounts: float) -> Counted:
    return Counted(
        calls={"submit": 1, "poll": polls},
        billed_ms={"submit": 1_000, "poll": 100 * polls},
        amounts=amounts,
    )


RECORDED = Recorded(
    measured_on="1 May 2030",
    machine="a machine",
    input_bytes=1,
    short=job(1, **{"S3 reads": 4, "secret reads": 2}),
    long=job(5, **{"S3 reads": 4, "secret reads": 6}),
    schedules={
        "Hourly": Counted(
            calls={"sweep": 1},
            billed_ms={"sweep": 2_000},
            amounts={"ledger read units": 3, "metrics, for a month": 2},
        )
    },
)
MEMORY_MB = {"submit": 1_024, "poll": 512, "sweep": 512}
TEMPLATE: dict[str, Any] = {
    "Globals": {"Function": {"MemorySize": 512}},
    "Resources": {
        "Hourly": {
            "Type": "AWS::Events::Rule",
            "Properties": {"ScheduleExpression": "rate(1 hour)"},
        },
        "Sweep": {
            "Type": "AWS::Serverless::Function",
            "Properties": {"FunctionName": "${AWS::StackName}-sweep", "MemorySize": 1_024},
        },
        "Intake": {
            "Type": "AWS::Serverless::Function",
            "Properties": {
                "FunctionName": "${AWS::StackName}-intake",
                "Events": {"Uploads": {"Type": "SQS"}},
            },
        },
        "One": {"Type": "AWS::CloudWatch::Alarm"},
        "Two": {"Type": "AWS::CloudWatch::Alarm"},
        "Token": {"Type": "AWS::SecretsManager::Secret"},
    },
}


def test_the_page_is_what_was_counted() -> None:
    made = costs.page(costs.read_template(), costs.read_record())

    assert costs.PAGE.read_text() == made, "run `make events`, or `make costs` to count anew"


def test_the_readme_says_what_was_counted() -> None:
    recorded, template = costs.read_record(), costs.read_template()
    job = costs.job_of(recorded, costs.polls(5 * 60))
    cents = 100 * costs.usd(costs.all_amounts(job, costs.memory_of_functions(template)))

    assert "[about a quarter of a cent](docs/costs.md)" in README.read_text()
    assert 0.2 < cents < 0.3


def test_every_function_of_a_job_is_in_the_template() -> None:
    assert (
        costs.read_record().long.calls.keys()
        <= costs.memory_of_functions(costs.read_template()).keys()
    ), "run `make costs`"


@pytest.mark.parametrize(("polls", "secret_reads"), [(1, 2), (5, 6), (28, 29)])
def test_each_poll_more_costs_the_difference_of_the_two_jobs(polls: int, secret_reads: int) -> None:
    found = costs.job_of(RECORDED, polls)

    assert found.calls == {"submit": 1, "poll": polls}
    assert found.billed_ms == pytest.approx({"submit": 1_000, "poll": 100 * polls})
    assert found.amounts == pytest.approx({"S3 reads": 4, "secret reads": secret_reads})


def test_a_function_costs_its_calls_and_its_time_with_its_memory() -> None:
    found = costs.all_amounts(costs.job_of(RECORDED, 10), MEMORY_MB)

    assert found["function calls"] == 11
    assert found["GB-seconds of functions"] == pytest.approx(1 * 1 + 10 * 0.1 * 0.5)


def test_the_sum_is_each_amount_times_its_price() -> None:
    assert costs.usd({"state transitions": 96, "secret reads": 30}) == pytest.approx(
        96 * 0.025 / 1_000 + 30 * 0.05 / 10_000
    )


def test_a_render_is_asked_for_as_the_timing_says() -> None:
    # 5, 10, ... 50 s; then a tenth more each time, in whole seconds: 55.
    assert [costs.polls(seconds) for seconds in (0, 5, 6, 50, 56)] == [0, 1, 2, 10, 12]


def test_a_month_without_jobs_has_all_of_the_template() -> None:
    found = costs.month_without_jobs(TEMPLATE, RECORDED)

    assert found["the schedule `Hourly`, 730 calls"] == pytest.approx(
        {
            "function calls": 730,
            "GB-seconds of functions": 730 * 2 * 1,
            "ledger read units": 730 * 3,
            "metrics, for a month": 2,  # however often they are sent
        }
    )
    assert found["Lambda's polls of the queue, 657,000"] == {"queue requests": 657_000}
    assert found["2 alarms"] == {"alarms, for a month": 2}
    assert found["1 secret"] == {"secrets, for a month": 1}


def test_a_schedule_that_was_not_counted_is_named() -> None:
    with pytest.raises(SystemExit, match="Hourly was not counted"):
        costs.month_without_jobs(TEMPLATE, RECORDED.model_copy(update={"schedules": {}}))


@pytest.mark.parametrize(
    ("schedule", "calls"),
    [
        ("rate(1 minute)", 43_800),
        ("rate(5 minutes)", 8_760),
        ("rate(1 day)", 730 / 24),
        ("cron(1 * * * ? *)", 730),
        ("cron(0 3 * * ? *)", 730 / 24),
    ],
)
def test_calls_of_a_schedule(schedule: str, calls: float) -> None:
    assert costs.calls_a_month(schedule) == pytest.approx(calls)


def test_a_schedule_that_nobody_can_count_is_refused() -> None:
    with pytest.raises(ValueError, match="How often"):
        costs.calls_a_month("cron(*/5 * * * ? *)")


def test_transitions_follow_the_definition() -> None:
    definition = {
        "StartAt": "Ours?",
        "States": {
            "Ours?": {"Choices": [{"Next": "Render"}], "Default": "Failed"},
            "Failed": {},
            "Render": {
                "Branches": [
                    {
                        "StartAt": "Prepare",
                        "States": {
                            "Prepare": {"Next": "Admit"},
                            "Admit": {"Next": "Submit"},
                            "Submit": {"Next": "Wait"},
                            "Wait": {"Next": "Poll"},
                            "Poll": {"Next": "Ready?"},
                            "Ready?": {"Choices": [{"Next": "Deliver"}], "Default": "Wait"},
                            "Deliver": {"End": True},
                        },
                    }
                ],
                "Next": "Announce",
            },
            "Announce": {"Next": "Done"},
            "Done": {},
        },
    }

    once = ["Ours?", "Render", "Prepare", "Admit", "Submit", "Deliver", "Announce", "Done"]
    assert transitions(definition, 1) == len([*once, "Wait", "Poll", "Ready?"])
    assert transitions(definition, 4) == len([*once, *["Wait", "Poll", "Ready?"] * 4])


def request(**found: Any) -> dict[str, Any]:  # noqa: ANN401
    plain = {"target": "", "method": "GET", "path": "/bucket/key", "query": ""}
    return {**plain, "presigned": False, "answered_bytes": 0, "body": "", **found}


LEDGER = "DynamoDB_20120810."
KEY = '{"Key": {"pk": {"S": "job#anna"}}}'


@pytest.mark.parametrize(
    ("asked", "amounts"),
    [
        (request(), {"S3 reads": 1}),
        (request(method="HEAD"), {"S3 reads": 1}),
        (request(query="list-type=2&prefix=x"), {"S3 writes and lists": 1}),
        (request(query="versions&prefix=x"), {"S3 writes and lists": 1}),
        (request(method="PUT"), {"S3 writes and lists": 1}),
        (request(method="DELETE"), {}),
        (
            request(presigned=True, answered_bytes=5_000_000),
            {"S3 reads": 1, "MB sent to the provider": 5},
        ),
        (request(target="AmazonSQS.SendMessage", method="POST"), {"queue requests": 1}),
        (request(target="secretsmanager.GetSecretValue"), {"secret reads": 1}),
        (request(target="AWSStepFunctions.StartExecution"), {}),
        (request(path="/2015-03-31/functions/x/invocations"), {}),
        (
            request(target="AWSEvents.PutEvents", body='{"Entries": [{"Detail": "{}"}]}'),
            {"events": 1},
        ),
        (request(target=f"{LEDGER}UpdateItem", body=KEY), {"ledger write units": 2}),
        (
            request(
                target=f"{LEDGER}TransactWriteItems",
                body=f'{{"TransactItems": [{{"Update": {KEY}}}, {{"Delete": {KEY}}}]}}',
            ),
            {"ledger write units": 8},
        ),
        (request(target=f"{LEDGER}GetItem", body=KEY), {"ledger read units": 0.5}),
        (
            request(target=f"{LEDGER}Query", body='{"ConsistentRead": true}', answered_bytes=9_000),
            {"ledger read units": 3},
        ),
    ],
)
def test_what_a_request_is_charged_as(asked: dict[str, Any], amounts: dict[str, float]) -> None:
    assert charged(asked, {"job": 1_500}) == amounts


def test_each_series_of_a_metric_counts_once() -> None:
    line = (
        '{"_aws": {"CloudWatchMetrics": [{"Namespace": "Dropreel", "Dimensions": [["provider"]],'
        ' "Metrics": [{"Name": "Jobs"}, {"Name": "Usd"}]}]}, "provider": "%s"}'
    )
    log = [LogLine("watch", line % name) for name in ("runcomfy", "runcomfy", "wavespeed")]

    assert len(metrics_in([*log, LogLine("watch", "{}")])) == 4
