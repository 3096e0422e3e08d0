"""The examples in `events/`: real events of one run of all functions.

The state machine runs on the second engine, the functions meet a stand-in over HTTP, and moto is
AWS. `make events` writes an example anew when what it says has changed; each run makes other ids
and times.
"""

import inspect
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from typing import Any

import boto3
import pytest
from PIL import Image, ImageOps
from pydantic import BaseModel

from dropreel.aws.s3 import S3Storage
from dropreel.inbox.messages import SeenUpload
from dropreel.render import prepare
from dropreel.runtime.log import logger
from local.contract import EVENTS
from local.embedded import PROJECT
from local.standin.runcomfy import RunComfy
from local.standin.server import Settings, Standin, running
from local.standin_videos import download_from
from tests.support.environment import forget_clients
from tests.support.fault_account import (
    CONTEXT,
    RUNCOMFY,
    TOKENS,
    StandinApi,
    copies_window,
    load_step,
    presigned_through,
)
from tests.support.prepare_bench import in_this_process
from tests.support.render_account import BUS, REGION, UPLOADS, VIDEOS, RenderAccount
from tests.support.render_fakes import ENVIRONMENT, providers
from tests.support.second_engine import SecondEngine, second_engine

EXAMPLES = {
    name: EVENTS / f"{name}.example.json"
    for name in (
        *("video-ready", "video-failed", "render-failed", "job-checked"),
        *("upload-incomplete", "job-started", "render-submitted"),
    )
}
OPTIONS = b'{"resolution": "480p", "labels": {"customer": "4711"}}'
DRY_RUN = b'{"resolution": "480p", "labels": {"customer": "4711"}, "dry_run": true}'
PRICES = '{"wan-ai/wan-2-2/speech-to-video": {"usd_per_second": {"480p": 0.02}}}'
PORTRAIT = (PROJECT / "samples/portrait.png").read_bytes()
SPEECH = (PROJECT / "samples/speech.mp3").read_bytes()

ENVELOPE = ("version", "id", "detail-type", "source", "account", "time", "region", "resources")
NAMES = {
    ":123456789012:": ":111122223333:",
    ":execution:render-1:": ":execution:dropreel-render:",
    f'"bucket": "{UPLOADS}"': '"bucket": "dropreel-uploadbucket-1abc2defg3hi"',
    f'"bucket": "{VIDEOS}"': '"bucket": "dropreel-videobucket-4jkl5mnop6qr"',
}
_MADE_ANEW = {
    *("id", "request_id", "version_id", "execution", "resources"),
    *("time", "started_at", "dropped_at", "submitted_at", "ended_at"),
    *("size_bytes", "etag", "sha256"),
}
_REQUEST_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Event = dict[str, Any]


def make() -> dict[str, Event]:
    """A new event for each example."""
    with account() as dropreel:
        ready = dropreel.drop(json=OPTIONS, mp3=SPEECH, png=PORTRAIT)
        displayed = dropreel.displayed()
        too_small = dropreel.drop(png=redrawn(320))
        with dropreel.standin.misbehaving("render", 1, {"do": "moderate"}):
            moderated = dropreel.drop(png=redrawn(640))
        checked = dropreel.drop(json=DRY_RUN)
        alone = dropreel.drop_alone("inbox/team/ben.mp3", SPEECH)
    return {
        "video-ready": ready,
        "video-failed": too_small,
        "render-failed": moderated,
        "job-checked": checked,
        "upload-incomplete": alone,
        **displayed,
    }


def _published(text: str) -> Event:
    """An event as its example has it."""
    for ours, name in NAMES.items():
        text = text.replace(ours, name)
    event = json.loads(text) | {"account": "111122223333"}  # moto leaves it out
    return {name: event[name] for name in (*ENVELOPE, "detail")}


def redrawn(width: int) -> bytes:
    """Another picture, so many pixels wide and high."""
    picture = ImageOps.fit(Image.open(BytesIO(PORTRAIT)), (width, width))
    picture.save(png := BytesIO(), "PNG")
    return png.getvalue()


def without_what_is_made_anew(event: Any) -> Any:  # noqa: ANN401 - JSON
    """An event with types in the place of ids, times and hashes."""
    match event:
        case dict():
            return {
                name: kind(value)
                if name in _MADE_ANEW or name.endswith("_seconds")
                else without_what_is_made_anew(value)
                for name, value in event.items()
            }
        case list():
            return [without_what_is_made_anew(value) for value in event]
        case str():
            return _REQUEST_ID.sub("request id", event)
    return event


def kind(value: object) -> object:
    return [kind(one) for one in value] if isinstance(value, list) else type(value).__name__


class Account:
    """The whole of Dropreel in one process."""

    def __init__(self, account: RenderAccount, engine: SecondEngine, standin: StandinApi) -> None:
        self.standin = standin
        self._account = account
        self._engine = engine
        engine.script = self
        self._download = download_from(standin.url)
        self._function = cache(self._load)

    def drop(self, **files: bytes) -> Event:
        """Drop files of one name, by their endings, and wait for the event."""
        self._engine.is_over.clear()
        for ending, body in files.items():
            self._take_in(f"inbox/team/anna.{ending}", body, datetime.now(UTC))
        assert self._engine.is_over.wait(20)
        return self._event()

    def drop_alone(self, key: str, body: bytes) -> Event:
        """Drop a file that has waited too long for its partner."""
        self._take_in(key, body, datetime.now(UTC) - timedelta(minutes=60))
        return self._event()

    def _take_in(self, key: str, body: bytes, first_seen: datetime) -> None:
        put = self._account.s3.put_object(Bucket=UPLOADS, Key=key, Body=body)
        seen = SeenUpload(
            bucket=UPLOADS, key=key, version_id=put["VersionId"], first_seen=first_seen
        )
        record = {
            "messageId": "m",
            "body": seen.model_dump_json(),
            "eventSource": "aws:sqs",
            "attributes": {"ApproximateReceiveCount": "1"},
        }
        answer = self._function("intake").handler({"Records": [record]}, CONTEXT)
        assert answer == {"batchItemFailures": []}

    def displayed(self) -> dict[str, Event]:
        """The events for display since the last look, by their examples."""
        events = [*map(_published, self._account.displayed())]
        named = {event["detail-type"].lower().replace(" ", "-"): event for event in events}
        assert len(named) == len(events)
        return named

    def _event(self) -> Event:
        [text] = self._account.announced()
        return _published(text)

    def answer(self, step: str, event: object, request: Any) -> BaseModel | None:  # noqa: ANN401
        """The work of a step's function, for the engine."""
        work = inspect.unwrap(self._function(step.lower()).handler)
        done: BaseModel | None = work(request, CONTEXT)
        return done

    def _load(self, name: str) -> Any:  # noqa: ANN401 - each has names of its own
        app = load_step(name)
        if name == "deliver":
            app.download = self._download
        return app


@contextmanager
def account() -> Iterator[Account]:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        settings = Settings(TOKENS[RUNCOMFY], queue_seconds=0.1, render_seconds=0.3)
        app = Standin(RunComfy(), settings).app(log=lambda _line: None)
        standin = StandinApi(stack.enter_context(running(app)))
        stack.callback(standin.close)
        forget_clients()
        stack.callback(forget_clients)
        engine = stack.enter_context(second_engine())
        window = stack.enter_context(running(copies_window(boto3.client("s3"))))
        patch.setattr(
            S3Storage, "presigned_url", presigned_through(window, S3Storage.presigned_url)
        )
        patch.setattr(prepare, "opened", in_this_process)  # a fork may hang: we have threads
        variables = {
            **ENVIRONMENT,
            "DROPREEL_VERSION": "0.1.0",
            "EVENT_BUS": BUS,
            "SETTLE_SECONDS": "0",
            "INCOMPLETE_AFTER_MINUTES": "60",
            "MAX_RECEIVES": "5",
            "MODEL": "wan-2.2-speech-to-video",
            "PROVIDERS": providers(runcomfy={"url": standin.url}),
            "QUEUE_URL": boto3.client("sqs").create_queue(QueueName="intake")["QueueUrl"],
            "STATE_MACHINE_ARN": engine.create_machine(),
            "UPLOAD_BUCKET": UPLOADS,
            "CATALOG_OVERRIDES": PRICES,
            "VIDEO_BUCKET": VIDEOS,
        }
        for name, value in variables.items():
            patch.setenv(name, value)
        secrets = boto3.client("secretsmanager")
        secrets.create_secret(Name="runcomfy-token", SecretString=TOKENS[RUNCOMFY])
        secrets.create_secret(Name="wavespeed-token")
        yield Account(RenderAccount(patch), engine, standin)


def main() -> None:
    os.environ |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
    os.environ["AWS_DEFAULT_REGION"] = REGION
    logger.setLevel("CRITICAL")
    for name, event in make().items():
        path = EXAMPLES[name]
        there = json.loads(path.read_text()) if path.exists() else None
        if without_what_is_made_anew(there) != without_what_is_made_anew(event):
            path.write_text(json.dumps(event, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
