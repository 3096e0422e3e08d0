"""The dead letters of intake: what is shown, and what is deleted. SQS is moto's."""

import json
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner, Result

from dropreel.inbox.messages import SeenUpload
from operate.__main__ import app
from operate.redrive import DeadLetters
from operate.stack import Outputs
from tests.support.render_fakes import NOON

CREATED = {"source": "aws.s3", "detail": {"object": {"key": "inbox/anna.png"}}}
SEEN = SeenUpload(bucket="uploads", key="inbox/b\x1b[2Jert.mp3", version_id="1", first_seen=NOON)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of the queue, with three messages."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        sqs = boto3.client("sqs")
        url = sqs.create_queue(QueueName="dead")["QueueUrl"]
        for body in (json.dumps(CREATED), SEEN.model_dump_json(), "no upload"):
            sqs.send_message(QueueUrl=url, MessageBody=body)
        monkeypatch.setattr(
            "operate.__main__.outputs_of", lambda _: Outputs(IntakeDeadLettersUrl=url)
        )
        yield url


def purge(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["purge-uploads", *arguments], input=typed)


def left_in(url: str) -> int:
    """How many messages can be seen."""
    return len(DeadLetters(url).hide())


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_shown_is_deleted(queue: str, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operate.__main__.at_terminal", lambda: asked)

    said = purge(typed="y\n") if asked else purge("--yes")

    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    assert lines[0] == "Uploads that intake failed on: 3"
    assert {"  inbox/anna.png", r"  inbox/b\x1b[2Jert.mp3"} <= set(lines)
    assert "  a message that names no file (" in said.output
    assert lines[-1].startswith("Deleted: 3.")
    assert left_in(queue) == 0


def test_who_says_no_keeps_all(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operate.__main__.at_terminal", lambda: True)

    said = purge(typed="n\n")

    assert said.exit_code == 1
    assert left_in(queue) == 3


def test_nobody_to_ask_deletes_nothing(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operate.__main__.at_terminal", lambda: False)

    said = purge()

    assert said.exit_code == 2
    assert "Give --yes" in said.output
    assert left_in(queue) == 3


def test_what_comes_while_a_person_thinks_is_not_deleted(
    queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def later(*_: object, **__: object) -> bool:
        boto3.client("sqs").send_message(QueueUrl=queue, MessageBody="later")
        return True

    monkeypatch.setattr("operate.__main__.at_terminal", lambda: True)
    monkeypatch.setattr("operate.__main__.typer.confirm", later)

    assert purge().exit_code == 0
    assert left_in(queue) == 1


def test_an_empty_queue_asks_nothing(queue: str) -> None:
    boto3.client("sqs").purge_queue(QueueUrl=queue)

    said = purge()

    assert (said.exit_code, said.output) == (0, "Uploads that intake failed on: 0\n")
