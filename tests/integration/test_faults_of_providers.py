"""What providers do on a bad day, one by one: submit and poll against the stand-ins.

A submission has three ends. A definite refusal was certainly not accepted: it is tried again or
goes to the other provider. An unclear one may have been: it is never sent again. And a question
about accepted work that gets no answer changes nothing.
"""

from collections.abc import Iterator, Mapping

import pytest

from dropreel.model.catalog import ProviderName
from dropreel.model.errors import (
    DropreelError,
    NoCredit,
    ProviderThrottled,
    ProviderUnavailable,
    RequestRefused,
    SubmissionUnclear,
    TokenRejected,
)
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import NextAttempt, Plan, Submission
from dropreel.model.provider import RenderState
from tests.support.fault_account import (
    KEY,
    LONG_AGO_SECONDS,
    RUNCOMFY,
    TOKENS,
    WAVESPEED,
    FaultAccount,
    Json,
    Strike,
    elsewhere,
    fault_account,
    hangs_up_there,
    nobody_there,
    nobody_trusted_there,
    ordered,
    other,
    stalling,
    worded,
)
from tests.support.final_answers import ends_in

# What a provider knows of us, in its words: its token, URLs that it was given, and its own.
TELLTALES = {
    provider: f"Bearer {token} https://x.example/?{KEY} {{video}}"
    for provider, token in TOKENS.items()
}


def _error_in_200(status: int) -> Strike:
    return worded(
        runcomfy={"status": 200, "json": {"error_code": status * 1000 + 1, "message": "No."}},
        wavespeed={"status": 200, "json": {"code": status, "message": "No.", "data": None}},
    )


DETAIL = worded(
    runcomfy={
        "status": 422,
        "json": {
            "error_code": 422001,
            "message": f"The body does not fit the schema. {TELLTALES[RUNCOMFY]}",
            "detail": [
                {"loc": ["body", "resolution"], "msg": "no such", "input": TELLTALES[RUNCOMFY]}
            ],
        },
    },
    wavespeed={
        "status": 422,
        "json": {
            "code": 422,
            "message": TELLTALES[WAVESPEED],
            "data": {"code": 1401, "error": "resolution: no such"},
        },
    },
)


def _telltale_500(when: str) -> Strike:
    return worded(
        **{
            provider: {
                "status": 500,
                "json": {"code": 500, "message": telltale},
                "when": when,
            }
            for provider, telltale in TELLTALES.items()
        }
    )


RETRY_AFTER_SECONDS = 11
RETRY_AFTER = ordered(status=429, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
CONNECTION_REFUSED = elsewhere(nobody_there)
TLS_FAILURE = elsewhere(nobody_trusted_there)

OTHER_PLAN = ordered(status=402, json={"message": "Payment required: upgrade your plan."})

# Certainly not accepted, and not the job's fault: the next offer may take it.
REFUSALS: Mapping[str, tuple[Strike, type[DropreelError]]] = {
    "403": (ordered(status=403), TokenRejected),
    "402 about a plan": (OTHER_PLAN, NoCredit),
}
# The same, and no other job would fare better: the provider is closed.
REFUSALS_OF_THE_ACCOUNT: Mapping[str, tuple[Strike, type[DropreelError]]] = {
    "401": (ordered(status=401), TokenRejected),
    "402": (ordered(status=402), NoCredit),
    "401 inside HTTP 200": (_error_in_200(401), TokenRejected),
    "402 inside HTTP 200": (_error_in_200(402), NoCredit),
}
# The same, but it is the request that is not liked.
ABOUT_THE_REQUEST: Mapping[str, Strike] = {
    "404": ordered(status=404),
    "422 with detail": DETAIL,
}
# Certainly not accepted, and perhaps it will be in a while.
NOT_NOW: Mapping[str, tuple[Strike, type[DropreelError]]] = {
    "429 with Retry-After": (RETRY_AFTER, ProviderThrottled),
    "429 without Retry-After": (ordered(status=429), ProviderThrottled),
    "connection refused": (CONNECTION_REFUSED, ProviderUnavailable),
    "TLS failure": (TLS_FAILURE, ProviderUnavailable),
}
# Sent, and no usable answer. With how often it was accepted: most strike after the work is done,
# which is the case that would be paid twice.
UNCLEAR: Mapping[str, tuple[Strike, int]] = {
    "500": (ordered(status=500, when="after"), 1),
    "503": (ordered(status=503, when="after"), 1),
    "503 before the work": (ordered(status=503), 0),
    "408": (ordered(status=408, when="after"), 1),
    "404 of a gateway": (ordered(status=404, body="<html>not found</html>", when="after"), 1),
    "502": (ordered(status=502, when="after"), 1),
    "504": (ordered(status=504, when="after"), 1),
    "500 whose words tell secrets": (_telltale_500("after"), 1),
    "error inside HTTP 200": (ordered(do="error_in_200", when="after"), 1),
    "malformed JSON": (ordered(do="malformed_json", when="after"), 1),
    "empty body": (ordered(do="empty_body", when="after"), 1),
    "body of 50 MB": (ordered(do="huge_body", when="after"), 1),
    "reset before the request was read": (elsewhere(hangs_up_there), 0),
    "reset after the request was read, nothing accepted": (ordered(do="reset_before"), 0),
    "reset after the request was read, accepted": (ordered(do="reset_after"), 1),
    "read stalls, nothing accepted": (stalling("before"), 0),
    "read stalls, accepted": (stalling("after"), 1),
}
UNANSWERED: Mapping[str, Strike] = {
    "401": ordered(status=401),
    "402": ordered(status=402),
    "403": ordered(status=403),
    "422 with detail": DETAIL,
    "429 with Retry-After": RETRY_AFTER,
    "429 without Retry-After": ordered(status=429),
    "500": ordered(status=500),
    "500 whose words tell secrets": _telltale_500("before"),
    "502": ordered(status=502),
    "503": ordered(status=503),
    "504": ordered(status=504),
    "error inside HTTP 200": ordered(do="error_in_200"),
    "malformed JSON": ordered(do="malformed_json"),
    "empty body": ordered(do="empty_body"),
    "body of 50 MB": ordered(do="huge_body"),
    "reset after the request was read": ordered(do="reset_after"),
    "read stalls": stalling("before"),
}
OUT_OF_REACH: Mapping[str, Strike] = {
    "connection refused": CONNECTION_REFUSED,
    "reset before the request was read": elsewhere(hangs_up_there),
    "TLS failure": TLS_FAILURE,
}

each_provider = pytest.mark.parametrize("provider", [RUNCOMFY, WAVESPEED], ids=str)


@pytest.fixture(scope="module")
def module_account() -> Iterator[FaultAccount]:
    with fault_account() as account:
        yield account


@pytest.fixture
def account(module_account: FaultAccount) -> Iterator[FaultAccount]:
    with module_account.watched() as account:
        yield account


def accepted(account: FaultAccount, plan: Plan) -> Json:
    """How often each provider accepted the job."""
    return {name: standin.accepted(plan) for name, standin in account.standins.items()}


def states(account: FaultAccount, plan: Plan) -> list[AttemptState]:
    return [attempt.state for attempt in account.attempts(plan)]


def called_until_something_else(account: FaultAccount, plan: Plan) -> Submission:
    """As the state machine does, until the job is accepted or goes on to its next offer."""
    next_attempt = NextAttempt()
    for _ in range(100):
        answer = account.submit(plan, next_attempt)
        if answer.ticket or answer.next.attempt != next_attempt.attempt:
            return answer
        account.pass_seconds(answer.wait_seconds)
        next_attempt = answer.next
    raise AssertionError("asked to be called again for ever")


def _asked_for(strike: Strike) -> int:
    """How many seconds the provider wants to be left alone, at the least."""
    return RETRY_AFTER_SECONDS if strike is RETRY_AFTER else 1


# Submissions


@each_provider
@pytest.mark.parametrize(("strike", "error"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_moves_the_job_to_the_other_provider(
    strike: Strike, error: type[DropreelError], provider: ProviderName, account: FaultAccount
) -> None:
    plan = account.drop_job(provider, other(provider))

    with strike(account, provider, "submit", None):
        refused = account.submit(plan)
        sent = len(account.standins[provider].received(plan))
        assert account.submit(plan) == refused  # called again: from the ledger
    assert len(account.standins[provider].received(plan)) == sent

    assert refused.ticket is None
    moved_on = account.submit(plan, refused.next)
    assert moved_on.ticket
    assert account.submit(plan, refused.next).ticket == moved_on.ticket
    assert accepted(account, plan) == {provider: 0, other(provider): 1}
    assert states(account, plan) == [AttemptState.REFUSED, AttemptState.ACCEPTED]
    assert account.attempts(plan)[0].code == error.__name__
    assert account.closures.all() == ()


@each_provider
@pytest.mark.parametrize(
    ("strike", "error"), REFUSALS_OF_THE_ACCOUNT.values(), ids=REFUSALS_OF_THE_ACCOUNT
)
def test_refusal_of_the_account_closes_the_provider_and_ends_no_job(
    strike: Strike, error: type[DropreelError], provider: ProviderName, account: FaultAccount
) -> None:
    plan = account.drop_job(provider)

    with strike(account, provider, "submit", None):
        refused = account.submit(plan)
        sent = len(account.standins[provider].received(plan))
        assert account.submit(plan) == refused  # called again: from the ledger
    assert len(account.standins[provider].received(plan)) == sent

    assert (refused.ticket, refused.falls_over) == (None, True)
    [closed] = account.closures.all()
    assert (closed.provider, closed.code, closed.refusals) == (provider, error.__name__, 1)
    assert account.submit(plan, refused.next).ticket  # once admission lets it
    assert accepted(account, plan) == {provider: 1, other(provider): 0}
    assert states(account, plan) == [AttemptState.REFUSED, AttemptState.ACCEPTED]


@each_provider
@pytest.mark.parametrize("strike", ABOUT_THE_REQUEST.values(), ids=ABOUT_THE_REQUEST)
def test_refused_request_ends_the_job(
    strike: Strike, provider: ProviderName, account: FaultAccount
) -> None:
    plan = account.drop_job(provider, other(provider))

    with strike(account, provider, "submit", None):
        for _ in range(2):
            with ends_in(RequestRefused) as refused:
                account.submit(plan)

    assert len(account.standins[provider].received(plan)) == 1
    assert accepted(account, plan) == {provider: 0, other(provider): 0}
    assert states(account, plan) == [AttemptState.REFUSED]
    if strike is DETAIL:
        assert "resolution: no such" in refused.report.message


@each_provider
@pytest.mark.parametrize("strike", [it for it, _ in NOT_NOW.values()], ids=NOT_NOW)
def test_submission_waits_and_is_then_accepted(
    strike: Strike, provider: ProviderName, account: FaultAccount
) -> None:
    plan = account.drop_job(provider, other(provider))

    with strike(account, provider, "submit", None):
        not_now = account.submit(plan)
        assert not_now.ticket is None
        assert not_now.next.attempt == 1
        assert not_now.wait_seconds >= _asked_for(strike)
        assert states(account, plan) == [AttemptState.POSTPONED]
    account.pass_seconds(not_now.wait_seconds)
    accepted_now = account.submit(plan, not_now.next)

    assert accepted_now.ticket
    assert account.submit(plan, not_now.next).ticket == accepted_now.ticket
    assert accepted(account, plan) == {provider: 1, other(provider): 0}
    assert states(account, plan) == [AttemptState.ACCEPTED]
    assert accepted_now.ticket.request_id in account.told  # so the log is looked at


@each_provider
@pytest.mark.parametrize(("strike", "error"), NOT_NOW.values(), ids=NOT_NOW)
def test_lasting_trouble_moves_the_job_to_the_other_provider(
    strike: Strike, error: type[DropreelError], provider: ProviderName, account: FaultAccount
) -> None:
    plan = account.drop_job(provider, other(provider))

    with strike(account, provider, "submit", None):
        moved_on = called_until_something_else(account, plan)
    assert account.submit(plan, moved_on.next).ticket

    assert accepted(account, plan) == {provider: 0, other(provider): 1}
    assert states(account, plan) == [AttemptState.REFUSED, AttemptState.ACCEPTED]
    assert account.attempts(plan)[0].code == error.__name__


@pytest.mark.parametrize(("strike", "paid"), UNCLEAR.values(), ids=UNCLEAR)
def test_unclear_submission_is_never_sent_again(
    strike: Strike, paid: int, account: FaultAccount
) -> None:
    plan = account.drop_job(RUNCOMFY, WAVESPEED)

    with strike(account, RUNCOMFY, "submit", None), ends_in(SubmissionUnclear):
        account.submit(plan)
    sent = len(account.standins[RUNCOMFY].received(plan))
    assert sent <= 1
    # Called again at once it may be that the first call is still at work.
    called_again = account.submit(plan)
    assert (called_again.ticket, called_again.next.attempt) == (None, 1)
    account.pass_seconds(LONG_AGO_SECONDS)
    with ends_in(SubmissionUnclear):
        account.submit(plan, called_again.next)

    assert len(account.standins[RUNCOMFY].received(plan)) == sent
    stays_unclear(account, plan, paid)


def stays_unclear(account: FaultAccount, plan: Plan, paid: int) -> None:
    """It is sent to nobody else, and nothing is adopted."""
    (attempt,) = account.attempts(plan)
    assert accepted(account, plan) == {attempt.provider: paid, other(attempt.provider): 0}
    assert (attempt.state, attempt.request_id) == (AttemptState.BEGUN, None)


@pytest.mark.parametrize(("strike", "paid"), UNCLEAR.values(), ids=UNCLEAR)
@pytest.mark.parametrize("is_lost", [False, True], ids=["at once", "after the call was lost"])
def test_unclear_submission_is_looked_up_where_requests_are_listed(
    is_lost: bool, strike: Strike, paid: int, account: FaultAccount
) -> None:
    plan = account.drop_job(WAVESPEED, RUNCOMFY)
    first = None

    with strike(account, WAVESPEED, "submit", None):
        unclear = account.submit(plan)
    assert unclear.ticket is None
    sent = len(account.standins[WAVESPEED].received(plan))
    if is_lost:  # Step Functions calls with what it told the first call
        account.pass_seconds(LONG_AGO_SECONDS)
    else:
        account.pass_seconds(unclear.wait_seconds)
        first = unclear.next

    if paid:
        ticket = account.submit(plan, first).ticket
        assert ticket
        assert account.submit(plan).ticket == ticket
        (attempt,) = account.attempts(plan)
        assert attempt.ticket == ticket
        (received,) = account.standins[WAVESPEED].received(plan)
        assert received["request_id"] == ticket.request_id
        assert accepted(account, plan) == {WAVESPEED: 1, RUNCOMFY: 0}
    else:
        with ends_in(SubmissionUnclear) as ended:
            looked_until_something_else(account, plan, first)
        assert "read 4 times" in ended.report.message
        stays_unclear(account, plan, paid=0)
    assert len(account.standins[WAVESPEED].received(plan)) == sent <= 1


def looked_until_something_else(
    account: FaultAccount, plan: Plan, next_attempt: NextAttempt | None
) -> None:
    for _ in range(10):
        answer = account.submit(plan, next_attempt)
        assert answer.ticket is None
        account.pass_seconds(answer.wait_seconds)
        next_attempt = answer.next


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"do": "no_inputs"}, "did not show the files of"),
        ({"do": "not_listed"}, "had no request"),
        ({"status": 503, "times": None}, "gave no answer"),
        ({"do": "malformed_json", "times": None}, "gave no answer"),
    ],
)
def test_request_that_the_list_does_not_show_is_not_adopted(
    fault: Json, words: str, account: FaultAccount
) -> None:
    plan = account.drop_job(WAVESPEED)
    with ordered(do="reset_after")(account, WAVESPEED, "submit", 1):
        unclear = account.submit(plan)

    with (
        ordered(**fault)(account, WAVESPEED, "list", None),
        ends_in(SubmissionUnclear) as ended,
    ):
        looked_until_something_else(account, plan, unclear.next)

    assert words in ended.report.message
    stays_unclear(account, plan, paid=1)


# Questions about the state


@each_provider
@pytest.mark.parametrize(
    "strike", [*UNANSWERED.values(), *OUT_OF_REACH.values()], ids=[*UNANSWERED, *OUT_OF_REACH]
)
def test_unanswered_question_for_the_state_loses_no_render(
    strike: Strike, provider: ProviderName, account: FaultAccount
) -> None:
    render = account.rendered(provider)

    with strike(account, provider, "status", None):
        for _ in range(2):
            progress = account.poll(render)
            assert progress.state not in (RenderState.FAILED, RenderState.COMPLETED)
            assert progress.wait_seconds >= _asked_for(strike)
            assert progress.next is None
            render = render.model_copy(update={"progress": progress})

    assert account.poll(render).state is RenderState.COMPLETED
    assert accepted(account, render.plan) == {provider: 1, other(provider): 0}
    assert states(account, render.plan) == [AttemptState.ACCEPTED]
