"""The submit function on S3 and DynamoDB as moto plays them."""

import json
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import jsonschema
import pytest

from dropreel.model.errors import CopyUnreadable, FinalAnswer, InputGone, SubmissionUnclear
from dropreel.model.events import RenderSubmitted
from dropreel.model.job import Role
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import NextAttempt, Plan, Submission
from dropreel.model.provider import Refusal, Unclear
from local.contract import schema_of
from tests.support.final_answers import ends_in
from tests.support.log_lines import log_lines
from tests.support.render_account import LEDGER, UPLOADS, WORK, RenderAccount, render_account
from tests.support.render_fakes import (
    ENVIRONMENT,
    IMAGE,
    JOB,
    NOON,
    PLAN,
    RUNCOMFY,
    WAVESPEED,
    ScriptedProvider,
    providers,
)

EXECUTIONS = ENVIRONMENT["STATE_MACHINE_ARN"].replace("stateMachine", "execution")
THROTTLED = Refusal("ProviderThrottled", "Too many requests.", again=True)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    with render_account(monkeypatch) as account:
        yield account


@pytest.fixture
def plan(account: RenderAccount) -> Plan:
    return account.drop(PLAN)


def submit(
    account: RenderAccount, plan: Plan, provider: ScriptedProvider, turn: NextAttempt | None = None
) -> Submission:
    event = {
        "plan": plan.model_dump(mode="json"),
        "next": turn.model_dump(mode="json") if turn else {},
        "started_at": NOON.isoformat(),
    }
    return Submission.model_validate(account.call("submit", event, provider))


def test_provider_gets_presigned_urls_of_the_pinned_versions(
    account: RenderAccount, plan: Plan
) -> None:
    provider = ScriptedProvider(submissions=["req-1"])

    submission = submit(account, plan, provider)

    assert submission.ticket is not None
    assert submission.ticket.request_id == "req-1"
    [(_, payload)] = provider.submitted
    assert plan.audio
    for name, pinned in {"image_url": plan.image, "audio_url": plan.audio}.items():
        url = urlsplit(str(payload[name]))
        query = parse_qs(url.query)
        assert url.path.endswith(pinned.key)
        assert query["versionId"] == [pinned.version_id]
        assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
        assert "X-Amz-Signature" in query


def test_deleted_upload_withdraws_the_job_though_its_version_is_kept(
    account: RenderAccount, plan: Plan
) -> None:
    account.s3.delete_object(Bucket=UPLOADS, Key=IMAGE.key)
    provider = ScriptedProvider(submissions=["req-1"])

    with ends_in(InputGone):
        submit(account, plan, provider)

    assert provider.submitted == []


def test_replaced_upload_withdraws_nothing(account: RenderAccount, plan: Plan) -> None:
    account.s3.put_object(Bucket=UPLOADS, Key=IMAGE.key, Body=b"another picture")

    assert submit(account, plan, ScriptedProvider(submissions=["req-1"])).ticket


def test_function_that_is_called_again_gives_the_same_ticket(
    account: RenderAccount, plan: Plan
) -> None:
    provider = ScriptedProvider(submissions=["req-1", "req-2"])

    first, second = (submit(account, plan, provider) for _ in range(2))

    assert second == first
    assert len(provider.submitted) == 1


def test_accepted_request_is_displayed_once(account: RenderAccount, plan: Plan) -> None:
    provider = ScriptedProvider(submissions=["req-1"])

    for _ in range(2):
        assert submit(account, plan, provider).ticket

    [event] = map(json.loads, account.displayed())
    jsonschema.validate(event | {"account": "123456789012"}, schema_of(event))
    shown = RenderSubmitted.model_validate(event["detail"])
    assert (shown.request_id, shown.provider, shown.model) == (
        "req-1",
        RUNCOMFY.provider,
        RUNCOMFY.endpoint,
    )
    assert event["resources"] == [f"{EXECUTIONS}:{JOB.id}"]
    for secret in ("X-Amz-", "https://", "token"):
        assert secret not in json.dumps(event)


def test_bus_that_is_gone_costs_the_event_alone(
    account: RenderAccount, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENT_BUS", "deleted")
    provider = ScriptedProvider(submissions=["req-1"])

    with log_lines() as lines:
        submission = submit(account, plan, provider)

    assert submission.ticket
    [attempt] = account.ledger.attempts(JOB.id)
    assert attempt.state is AttemptState.ACCEPTED
    assert [it["message"] for it in lines.taken() if it["level"] == "WARNING"] == [
        "Render Submitted was not sent: ResourceNotFoundException"
    ]


@pytest.mark.parametrize(
    "answer", [Refusal("NoCredit", "Not enough credit."), Unclear("No answer.")], ids=str
)
def test_request_that_is_not_known_to_be_accepted_is_not_displayed(
    answer: Exception, account: RenderAccount, plan: Plan
) -> None:
    provider = ScriptedProvider(submissions=[answer])

    with suppress(FinalAnswer):
        submit(account, plan, provider)

    assert len(provider.submitted) == 1
    assert account.displayed() == []


def test_refused_attempt_is_sent_again_when_the_state_machine_asks(
    account: RenderAccount, plan: Plan
) -> None:
    busy = Refusal("ProviderUnavailable", "Unavailable.", again=True)
    provider = ScriptedProvider(submissions=[busy, "req-1"])

    assert submit(account, plan, provider).ticket is None
    assert submit(account, plan, provider).ticket is not None


def test_refused_job_goes_to_the_provider_of_the_next_offer(
    account: RenderAccount, plan: Plan
) -> None:
    no_credit = Refusal("NoCredit", "Not enough credit.")
    refused = submit(account, plan, ScriptedProvider(submissions=[no_credit]))
    wavespeed = ScriptedProvider("wavespeed", submissions=["prediction-1"])

    accepted = submit(account, plan, wavespeed, refused.next)

    assert accepted.ticket is not None
    assert (accepted.ticket.provider, accepted.ticket.attempt) == ("wavespeed", 2)
    assert [attempt.code for attempt in account.ledger.attempts(JOB.id)] == ["NoCredit", None]


def test_throttled_attempt_remembers_since_when_through_the_state_machine(
    account: RenderAccount, plan: Plan
) -> None:
    provider = ScriptedProvider(submissions=[THROTTLED, THROTTLED, "req-1"])

    first = submit(account, plan, provider)
    second = submit(account, plan, provider, first.next)
    accepted = submit(account, plan, provider, second.next)

    assert first.next.throttled_since is not None
    assert second.next.throttled_since == first.next.throttled_since
    assert (first.next.tries, second.next.tries) == (1, 2)
    assert accepted.ticket is not None


def test_job_beyond_the_minute_waits_for_its_turn(account: RenderAccount, plan: Plan) -> None:
    provider = ScriptedProvider("wavespeed", submissions=["p-1", "p-2"])
    first = plan.model_copy(update={"route": (WAVESPEED,)})
    job = plan.job.model_copy(update={"id": "bob-0123456789abcdef"})
    second = first.model_copy(update={"job": job})
    assert submit(account, first, provider).ticket is not None

    waits = submit(account, second, provider)

    assert waits.ticket is None
    assert 20 < waits.wait_seconds <= 30
    assert waits.next == NextAttempt(is_paced=True)
    assert account.ledger.attempts(job.id) == ()
    accepted = submit(account, second, provider, waits.next)
    assert accepted.ticket is not None
    assert accepted.ticket.request_id == "p-2"


def test_how_many_calls_a_minute_has_is_the_deployers(
    account: RenderAccount, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = providers(
        runcomfy={"max_submits_per_minute": 1}, wavespeed={"max_submits_per_minute": 0}
    )
    monkeypatch.setenv("PROVIDERS", pace)
    unavailable = Refusal("ProviderUnavailable", "Unavailable.", again=True)
    wavespeed = ScriptedProvider("wavespeed", submissions=[unavailable])
    only_wavespeed = plan.model_copy(update={"route": (WAVESPEED,)})

    for _ in range(3):
        submit(account, only_wavespeed, wavespeed)
    submit(account, plan, ScriptedProvider(submissions=[unavailable]), NextAttempt(attempt=2))

    assert len(wavespeed.submitted) == 3
    keys = {item["pk"]["S"] for item in account.dynamodb.scan(TableName=LEDGER)["Items"]}
    assert keys == {f"job#{JOB.id}", "turns#runcomfy"}


def test_unclear_outcome_stays_begun_in_the_ledger(account: RenderAccount, plan: Plan) -> None:
    provider = ScriptedProvider(submissions=[Unclear("No answer.")])

    with ends_in(SubmissionUnclear):
        submit(account, plan, provider)

    [attempt] = account.ledger.attempts(plan.job.id)
    assert attempt.state is AttemptState.BEGUN


@pytest.mark.parametrize("of", ["upload", "copy"])
def test_job_whose_version_was_deleted_is_not_sent(
    account: RenderAccount, plan: Plan, of: str
) -> None:
    gone = plan.audio if of == "copy" else plan.job.only(Role.AUDIO)
    assert gone
    bucket = UPLOADS if gone in plan.job.inputs else WORK
    account.s3.delete_object(Bucket=bucket, Key=gone.key, VersionId=gone.version_id)
    provider = ScriptedProvider(submissions=["req-1"])

    with ends_in(InputGone, gone.key):
        submit(account, plan, provider)

    assert provider.submitted == []


def archived(account: RenderAccount, key: str) -> str:
    put = account.s3.put_object(Bucket=WORK, Key=key, Body=b"cold", StorageClass="GLACIER")
    return put["VersionId"]


def test_a_copy_that_was_archived_is_found_before_it_is_paid_for(
    account: RenderAccount, plan: Plan
) -> None:
    version_id = archived(account, plan.image.key)
    image = plan.image.model_copy(update={"version_id": version_id})
    provider = ScriptedProvider(submissions=["req-1"])

    with ends_in(CopyUnreadable, "archived"):
        submit(account, plan.model_copy(update={"image": image}), provider)

    assert provider.submitted == []


def test_an_upload_that_was_archived_needs_only_to_exist(
    account: RenderAccount, plan: Plan
) -> None:
    archived(account, IMAGE.key)

    assert submit(account, plan, ScriptedProvider(submissions=["req-1"])).ticket


def test_no_presigned_url_is_logged(account: RenderAccount, plan: Plan) -> None:
    with log_lines() as lines:
        submit(account, plan, ScriptedProvider(submissions=["req-1"]))

    logged = str(lines.taken())
    assert "req-1" in logged
    assert "X-Amz" not in logged
