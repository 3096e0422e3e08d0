"""The check of a stack: which link it names, and what it says to do. AWS is in memory."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from rich.console import Console
from typer.testing import CliRunner

from dropreel.model import errors
from dropreel.model.closure import AccountState, AskedProvider
from dropreel.model.errors import DropreelError, Reason
from dropreel.model.events import CheckedOffer, JobChecked
from dropreel.model.ledger import Outcome
from operate.__main__ import app
from operate.check.chain import Chain
from operate.check.links import Found, Inflow, State, price_in_words
from operate.check.view import CheckView
from operate.choice import Execution
from operate.errors import OperateError
from operate.stack import Outputs
from tests.support.conclusion_bench import CHECKED, READY, failed_in
from tests.support.render_fakes import JOB, NOON

ACCEPTED, NO_TOKEN = AccountState.ACCEPTED, AccountState.NO_TOKEN
DRY = JOB.model_copy(update={"dry_run": True})
OFFER = CheckedOffer(provider="runcomfy", model="m", options={}, estimated_usd=0.09)


def checked(*offers: CheckedOffer, error: DropreelError | None = None) -> JobChecked:
    said = {
        "accepted": error is None,
        "error": error.report if error else None,
        "offers": offers,
        "voice_seconds": 3,
        "estimated_usd": offers[0].estimated_usd if offers else None,
    }
    return CHECKED.model_copy(update=said)


def asked(provider: str, state: AccountState) -> AskedProvider:
    return AskedProvider(
        provider=provider,
        state=state,
        message=f"{provider}: {state}.",
        milliseconds=200,
        is_closed=False,
        is_on_trial=False,
    )


def denied(operation: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, operation)


@dataclass
class Account:
    """A stack that works, as far as a test does not change it."""

    name: str = "dropreel"
    upload_bucket: str = "uploads"
    video_bucket: str = "videos"
    prefix: str = "inbox/"
    model: str = "wan-2.2-speech-to-video"
    settle_seconds: float = 20
    now_seconds: float = 0
    set_up: Inflow = field(default_factory=Inflow)
    first_event_seconds: float = 0
    """Before that, S3 sends none."""
    ends_in: tuple[Outcome, ...] = (Outcome(detail=checked(OFFER)), READY)
    sends: bool = True
    fault: str = ""
    outputs: bool = True
    says: dict[str, AccountState] = field(
        default_factory=lambda: {"runcomfy": AccountState.ACCEPTED}
    )
    refuses: dict[str, Exception] = field(default_factory=dict)
    dropped: dict[tuple[str, str], float] = field(default_factory=dict)
    erased: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)

    def _answer(self, call: str) -> None:
        if error := self.refuses.get(call):
            raise error

    def inflow(self) -> Inflow:
        self._answer("inflow")
        return self.set_up

    def samples(self) -> Mapping[str, bytes]:
        return {"wav": b"voice", "png": b"picture"}

    def drop(self, key: str, body: bytes) -> str:
        self._answer("drop")
        version = f"v{len(self.dropped)}"
        self.dropped[key, version] = self.now_seconds
        return version

    def job_of(self, key: str, version_id: str) -> str | None:
        at = self.dropped[key, version_id]
        settled = self.now_seconds >= at + self.settle_seconds
        number = len([one for one in self.dropped if one[0].endswith(".json")])
        return f"job-{number}" if at >= self.first_event_seconds and settled else None

    def execution(self, job_id: str) -> Execution | None:
        return Execution(job_id, "SUCCEEDED", NOON, NOON, None, DRY)

    def outcome(self, execution: Execution) -> Outcome | None:
        number = int(execution.name.removeprefix("job-"))
        if len(self.ends_in) < number:
            return None
        sent_at = NOON if self.sends else None
        return self.ends_in[number - 1].model_copy(update={"sent_at": sent_at})

    def last_fault(self, job_id: str) -> str:
        return self.fault

    def has_output(self, key: str) -> bool:
        return self.outputs

    def upload_in_parts(self, key: str) -> int:
        self._answer("upload_in_parts")
        return 5_242_893

    def ask_providers(self) -> list[AskedProvider]:
        self._answer("ask_providers")
        return [asked(provider, state) for provider, state in self.says.items()]

    def erase(self, prefix: str, outputs: tuple[str, ...], jobs: tuple[str, ...]) -> None:
        self._answer("erase")
        self.erased.append((prefix, outputs, jobs))

    def pass_time(self, seconds: float) -> None:
        self.now_seconds += seconds


def chain_of(account: Account, said: list[str] | None = None) -> Chain:
    return Chain(
        account,
        (said if said is not None else []).append,
        lambda: NOON,
        clock=lambda: account.now_seconds,
        sleep=account.pass_time,
    )


def run(account: Account, *, render: bool = False) -> Chain:
    chain = chain_of(account)
    chain.check()
    if render and chain.works:
        chain.render()
    chain.clean_up()
    return chain


def broken(chain: Chain) -> tuple[str, str, str]:
    """The one broken link: its name, what was found, and the cure."""
    (link,) = [one for one in chain.links if one.state is State.BROKEN]
    assert link.cure
    return link.name, link.found, link.cure


def test_stack_that_works() -> None:
    account = Account()

    chain = run(account)

    assert chain.works
    assert [link.seconds for link in chain.links if link.name == "S3 to intake"] == [20]
    stem = chain.stem
    assert account.erased == [
        (f"inbox/dropreel-check/{stem}.", (f"dropreel-check/{stem}.",), ("job-1",))
    ]


def test_files_are_dropped_again_until_s3_sends_events() -> None:
    account, said = Account(first_event_seconds=250), list[str]()
    chain = chain_of(account, said)

    chain.check()

    assert chain.works
    assert "It took" in chain.links[2].found
    assert any("five minutes" in words for words in said)


BAD_PICTURE = errors.InputRejected((Reason(file="a.png", rule="r", found="f", cure="c"),))


@pytest.mark.parametrize(
    ("account", "link", "found", "cure"),
    [
        (
            Account(set_up=Inflow(is_versioned=False)),
            "upload bucket, rule and queue",
            "keeps no versions",
            "put-bucket-versioning --bucket uploads",
        ),
        (
            Account(set_up=Inflow(sends_events=False)),
            "upload bucket, rule and queue",
            "no events to EventBridge",
            "Amazon EventBridge",
        ),
        (
            Account(set_up=Inflow(rule="DISABLED")),
            "upload bucket, rule and queue",
            "DISABLED",
            "teardown UNDO=1",
        ),
        (
            Account(set_up=Inflow(intake="Disabled")),
            "upload bucket, rule and queue",
            "nobody reads the queue",
            "teardown UNDO=1",
        ),
        (
            Account(refuses={"drop": denied("PutObject", "not authorized: kms:GenerateDataKey")}),
            "upload",
            "kms:GenerateDataKey",
            "KMS key",
        ),
        (
            Account(refuses={"drop": EndpointConnectionError(endpoint_url="https://s3.x")}),
            "upload",
            "https://s3.x",
            "AWS_DEFAULT_REGION",
        ),
        (
            Account(first_event_seconds=9999),
            "S3 to intake",
            "S3 sent no event",
            "again in five minutes",
        ),
        (
            Account(first_event_seconds=9999, set_up=Inflow(dead_letters=2)),
            "S3 to intake",
            "IntakeDeadLetters has 2",
            "log of the function intake",
        ),
        (
            Account(first_event_seconds=9999, set_up=Inflow(undelivered=1)),
            "S3 to intake",
            "UndeliveredEvents has 1",
            "KMS",
        ),
        (
            Account(ends_in=()),
            "checks and copies",
            "did not end",
            "Step Functions",
        ),
        (
            Account(ends_in=(), fault="ClientError: ... no permissions boundary allows it"),
            "checks and copies",
            "permissions boundary",
            "PermissionsBoundaryArn",
        ),
        (
            Account(ends_in=(Outcome(detail=checked(error=errors.TokenMissing("No token."))),)),
            "checks and copies",
            "TokenMissing: No token.",
            "store the provider's API token",
        ),
        (
            Account(ends_in=(Outcome(detail=checked(error=BAD_PICTURE)),)),
            "checks and copies",
            "a.png: f (r).",
            "",
        ),
        (
            Account(
                ends_in=(Outcome(detail=checked(error=errors.UnexpectedError("A step failed."))),),
                fault="ClientError: AccessDenied when calling GetObject",
            ),
            "checks and copies",
            "AccessDenied when calling GetObject",
            "Allow the action",
        ),
        (
            Account(sends=False, fault="EventNotTaken: the event bus b denies events:PutEvents"),
            "event bus",
            "denies events:PutEvents",
            "policy of a bucket or a bus",
        ),
        (Account(outputs=False), "check file", "is not in videos", "conclude"),
        (
            Account(refuses={"upload_in_parts": denied("UploadPart", "explicit deny")}),
            "videos bucket",
            "UploadPart: AccessDenied",
            "Allow the action",
        ),
    ],
)
def test_broken_link_is_named_with_its_cure(
    account: Account, link: str, found: str, cure: str
) -> None:
    chain = run(account)

    name, is_found, is_cured = broken(chain)

    assert name == link
    assert found in is_found
    assert cure in is_cured
    assert not chain.works
    assert account.erased  # whatever broke
    after = [one.state for one in chain.links if one.name in ("event bus", "check file")]
    assert link in ("event bus", "check file", "videos bucket") or set(after) == {State.NOT_TRIED}


def test_what_may_not_be_read_breaks_nothing() -> None:
    assert run(Account(set_up=Inflow(None, None, None, None, None, None))).works


@pytest.mark.parametrize(
    ("says", "states", "cure"),
    [
        ((ACCEPTED, ACCEPTED), ["works", "works"], ""),
        ((ACCEPTED, NO_TOKEN), ["works", "not tried"], ""),
        ((NO_TOKEN, NO_TOKEN), ["broken", "broken"], "Store it"),
        ((AccountState.REFUSED, ACCEPTED), ["broken", "works"], "Store a valid one"),
        ((ACCEPTED, AccountState.NO_CREDIT), ["works", "broken"], "Add credit at WaveSpeed"),
        ((ACCEPTED, AccountState.UNKNOWN), ["works", "broken"], "status page"),
    ],
)
def test_each_provider_is_a_link(
    says: tuple[AccountState, AccountState], states: list[str], cure: str
) -> None:
    chain = run(Account(says=dict(zip(("runcomfy", "wavespeed"), says, strict=True))))

    links = [link for link in chain.links if link.name in ("RunComfy", "WaveSpeed")]
    assert [link.state for link in links] == states
    assert chain.works is ("broken" not in states)
    assert all(cure in (link.cure or "") for link in links if link.state is State.BROKEN)


def test_watch_that_fails_is_a_broken_link() -> None:
    account = Account(refuses={"ask_providers": OperateError("The providers were not asked.")})

    assert broken(run(account))[:2] == ("providers", "The providers were not asked.")


def test_what_is_left_over_is_no_fault_of_the_stack() -> None:
    account = Account(refuses={"erase": denied("DeleteObject", "s3:DeleteObjectVersion")})

    chain = run(account)

    assert broken(chain)[0] == "clean up"
    assert chain.works


# To a video


def test_render_goes_on_to_the_video_and_leaves_it() -> None:
    account = Account()

    chain = run(account, render=True)

    assert chain.works
    assert "s3://videos/team/anna.mp4" in chain.links[-2].found
    [(_, outputs, jobs)] = account.erased
    assert outputs == tuple(f"dropreel-check/{chain.stem}.{it}" for it in ("check.", "parts"))
    assert jobs == ("job-1", "job-2")


def test_failed_render_says_why() -> None:
    account = Account(ends_in=(Outcome(detail=checked(OFFER)), failed_in("NoCredit")))

    name, found, _ = broken(run(account, render=True))

    assert (name, found.startswith("NoCredit: ")) == ("render", True)


def test_nothing_is_removed_while_a_render_may_need_it() -> None:
    account = Account(ends_in=(Outcome(detail=checked(OFFER)),))

    chain = run(account, render=True)

    assert broken(chain)[0] == "render"
    assert account.erased == []


def test_no_render_follows_a_broken_link() -> None:
    account = Account(outputs=False)

    run(account, render=True)

    assert len([key for key, _ in account.dropped if key.endswith(".json")]) == 1


@pytest.mark.parametrize(
    ("usd", "others", "words"),
    [
        (0.09, (), "a video of 3 seconds for about $0.09"),
        (None, (), "a video of 3 seconds at a price that it does not publish"),
        (None, (0.12,), "a price that it does not publish; WaveSpeed takes about $0.12"),
    ],
)
def test_price_is_said_before_it_is_paid(
    usd: float | None, others: tuple[float, ...], words: str
) -> None:
    offers = [OFFER.model_copy(update={"estimated_usd": usd})]
    offers += [
        OFFER.model_copy(update={"provider": "wavespeed", "estimated_usd": other})
        for other in others
    ]

    assert words in price_in_words(checked(*offers))


# The page


@pytest.mark.parametrize("width", [60, 120])
def test_page_names_each_link_and_ends_in_a_sentence(width: int) -> None:
    chain = run(Account(set_up=Inflow(rule="DISABLED")))
    view = CheckView(Found(stack="dropreel", works=chain.works, links=tuple(chain.links)))
    console = Console(file=io.StringIO(), width=width)

    console.print(view)

    page = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(link.name in page for link in chain.links)
    assert page.rstrip().endswith("check again.")
    assert len(list(view.lines())) == len(chain.links) + 1


def test_settings_that_may_not_be_decrypted_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda answers without the variables of a function whose KMS key the caller may not use."""
    outputs = {"UploadBucket", "VideoBucket", "WorkBucket", "UploadPrefix"}
    outputs |= {"StateMachineArn", "LedgerTable"}
    monkeypatch.setattr(
        "operate.check.account.outputs_of", lambda stack: Outputs(dict.fromkeys(outputs, "x"))
    )
    monkeypatch.setattr("operate.check.account.environment_of", lambda function: {})
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")

    said = CliRunner().invoke(app, ["check"])

    assert said.exit_code == 1
    assert "the function dropreel-intake" in said.stderr
    assert "kms:Decrypt" in said.stderr
