"""The demo: drop a picture and a voice, watch the steps, get the video and the event.

    python -m local.demo [--image me.jpg] [--audio me.mp3] [--model ...] [--prompt ...]

Uses the embedded AWS that `make up` left running, or starts one and stops it again.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dropreel.inbox.pairing import AUDIO_ENDINGS, IMAGE_ENDINGS, name_of
from dropreel.model.catalog import MODELS
from dropreel.model.job import INBOX, Role, slug
from local import embedded
from local.embedded import Environment, Home
from operate.terminal import harmless, harmless_lines

DEFAULT_MODEL = "wan-2.2-speech-to-video"  # the template's
PATIENCE_SECONDS = 15 * 60
LOOK_EVERY_SECONDS = 0.5


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


@dataclass
class Board:
    """The steps so far: live on a terminal, a line each elsewhere."""

    console: Console
    lines: list[tuple[str, float]] = field(default_factory=list)
    doing: str = ""
    live: Live | None = None
    began: float = field(default_factory=time.monotonic)

    def done(self, line: str) -> None:
        line = harmless(line)
        self.lines.append((line, time.monotonic() - self.began))
        if self.live is None:
            self._print(self.lines[-1][1], line)

    def now(self, doing: str) -> None:
        doing = harmless(doing)
        if doing != self.doing and doing and self.live is None:
            self._print(time.monotonic() - self.began, f"{doing} ...")
        self.doing = doing

    def _print(self, at_seconds: float, line: str) -> None:
        self.console.print(Text(f"{at_seconds:6.1f} s  {line}"), soft_wrap=True)

    def say(self, doing: str) -> None:
        """A step that speaks for itself when the next one begins."""
        if self.live is not None and self.doing:
            self.done(self.doing)
        self.now(doing)

    def __rich__(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        for line, at_seconds in self.lines:
            table.add_row(Text("✓", "green"), Text(f"{at_seconds:5.1f} s", "dim"), Text(line))
        if self.doing:
            since = time.monotonic() - self.began
            table.add_row(Spinner("dots"), Text(f"{since:5.1f} s", "dim"), Text(self.doing))
        return table

    @contextmanager
    def shown(self) -> Iterator[None]:
        if not self.console.is_terminal:
            yield
            return
        with Live(self, console=self.console, refresh_per_second=8) as self.live:
            yield
            self.doing = ""
        self.live = None


@dataclass(frozen=True)
class Wanted:
    """What to drop: the files, and what the job is to say."""

    image: Path
    audio: Path | None
    prompt: str | None
    options: dict[str, Any]

    @property
    def uploads(self) -> dict[str, bytes]:
        """By key, in an order in which the job is complete with the last."""
        said: dict[str, bytes] = {}
        if self.options:
            said[self._key(".json")] = json.dumps(self.options).encode()
        if self.prompt:
            said[self._key(".txt")] = self.prompt.encode()
        if self.audio:
            said[self._key(self.audio.suffix)] = self.audio.read_bytes()
        return {**said, self._key(self.image.suffix): self.image.read_bytes()}

    def check(self) -> None:
        """Raises `DemoFailed` for files that no job would be made of, because of their names."""
        for file, role, what, endings in (
            (self.image, Role.IMAGE, "picture", IMAGE_ENDINGS),
            (self.audio, Role.AUDIO, "recording", AUDIO_ENDINGS),
        ):
            if file is None:
                continue
            if not file.is_file():
                raise DemoFailed(f"There is no file {file}")
            name = name_of(self._key(file.suffix))
            if name is None:
                raise DemoFailed(f"{file}: hidden and temporary files are ignored. Rename it.")
            if name.role is not role:
                raise DemoFailed(
                    f"{file} is no {what} by its name, which must end in one of: "
                    f"{', '.join(endings)}."
                )

    def _key(self, suffix: str) -> str:
        return f"{INBOX}{self.image.stem}{suffix}"


@dataclass(frozen=True)
class Dropped:
    """The job's files in the inbox."""

    stem: str
    versions: frozenset[str]

    def is_in(self, detail: Mapping[str, Any]) -> bool:
        """Whether a job, or an event's detail, is about what was dropped.

        The job can have more inputs, such as a picture of the same name that lay there before, and
        fewer, when its options name other files: then it is refused, and that is the answer.
        """
        name = detail.get("job", detail)
        files = detail.get("inputs") or detail.get("uploads") or []
        return (name["folder"], name["stem"]) == ("", self.stem) and any(
            file["version_id"] in self.versions for file in files
        )


def drop(environment: Environment, wanted: Wanted) -> Dropped:
    """Upload the files under the picture's name, as a person would."""
    s3, bucket = embedded.client(environment, "s3"), environment["UPLOAD_BUCKET"]
    versions = [
        s3.put_object(Bucket=bucket, Key=key, Body=body)["VersionId"]
        for key, body in wanted.uploads.items()
    ]
    return Dropped(wanted.image.stem, frozenset(versions))


def follow(
    environment: Environment, dropped: Dropped, queue_url: str, board: Board
) -> dict[str, Any]:
    """Show the steps until the event about the job arrives, and return the event."""
    sqs = embedded.client(environment, "sqs")
    seen = 0
    board.now("Settling, then pairing the files")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        answers = _answers(environment, dropped)
        for number, answer in enumerate(answers[seen:], seen):
            if answer not in answers[:number]:  # Announce repeats what Deliver answered
                _show(answer, board)
        seen = len(answers)
        received = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10)
        for message in received.get("Messages", []):
            event: dict[str, Any] = json.loads(message["Body"])
            if dropped.is_in(event["detail"]):
                board.done(f"Event on the bus: {event['detail-type']}")
                board.now("")
                return event
        time.sleep(LOOK_EVERY_SECONDS)
    raise DemoFailed(f"No event about {dropped.stem} within {PATIENCE_SECONDS // 60} minutes.")


def _answers(environment: Environment, dropped: Dropped) -> list[dict[str, Any]]:
    """What the functions of the job's execution have answered so far, in order."""
    states = embedded.client(environment, "stepfunctions")
    listed = states.list_executions(stateMachineArn=environment["STATE_MACHINE_ARN"])
    for execution in listed["executions"]:
        arn = execution["executionArn"]
        if execution["name"].startswith(f"{slug(dropped.stem)}-") and dropped.is_in(
            json.loads(states.describe_execution(executionArn=arn)["input"])
        ):
            pages = states.get_paginator("get_execution_history").paginate(executionArn=arn)
            return [
                output["Payload"]
                for page in pages
                for event in page["events"]
                if event["type"] == "TaskSucceeded"
                for output in [json.loads(event["taskSucceededEventDetails"]["output"])]
                if isinstance(output.get("Payload"), dict)
            ]
    return []


def _show(answer: dict[str, Any], board: Board) -> None:
    """One line for a function's answer, known by its shape (`dropreel.model.messages`)."""
    if "route" in answer:
        _show_plan(answer, board)
    elif "ticket" in answer:
        if ticket := answer["ticket"]:
            board.done(f"Submitted to {ticket['provider']}: request {ticket['request_id']}")
            board.now("Queued at the provider")
        else:
            board.now(f"Not accepted: next try in {answer['wait_seconds']} s")
    elif "state" in answer:
        if answer["next"]:
            board.done("The render failed")
            board.now("Submitting again")
        elif answer["state"] == "completed":
            board.done("Rendered")
            board.now("Copying the video into the videos bucket")
        else:
            board.now("Rendering" if answer["state"] == "rendering" else "Queued at the provider")
    elif "video" in answer:
        video = answer["video"]
        board.done(
            f"Delivered: {video['key']}, {video['size_bytes']:,} bytes, "
            f"{video['duration_seconds']:.1f} s of {video['width']} x {video['height']}"
        )
        board.now("Announcing")


def _show_plan(plan: dict[str, Any], board: Board) -> None:
    """Prepare's answer."""
    image, audio = plan["image_facts"], plan["audio_facts"]
    facts = [f"{image['format']} of {image['width']} x {image['height']}"]
    facts += [f"{audio['format']} of {audio['duration_seconds']:.1f} s"] if audio else []
    board.done(f"Prepared: {', '.join(facts)}")
    for change in plan["changes"]:
        board.done(f"  {change}")
    board.now(f"Submitting to {plan['route'][0]['provider']}")


def collect(environment: Environment, event: dict[str, Any], stem: str, out: Path) -> Path:
    """Leave the video, its manifest and the event in `out`, and return the video's path."""
    s3, video = embedded.client(environment, "s3"), event["detail"]["video"]
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{stem}.mp4"
    s3.download_file(
        video["bucket"], video["key"], str(path), ExtraArgs={"VersionId": video["version_id"]}
    )
    manifest = video["key"].removesuffix(".mp4") + ".json"
    s3.download_file(video["bucket"], manifest, str(out / f"{stem}.json"))
    _write_event(event, stem, out)
    return path


def _write_event(event: dict[str, Any], stem: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(event, indent=2, ensure_ascii=False)
    (out / f"{stem}.event.json").write_text(f"{text}\n", encoding="utf-8")


def print_refusal(event: dict[str, Any], console: Console) -> None:
    """Why there is no video, in the words of the error file."""
    console.print()
    error = event["detail"].get("error")
    if error is None:  # Upload Incomplete
        _print_message(event["detail"]["message"], console)
        return
    if error.get("reasons"):
        _print_message("the files cannot be used.", console)
        for reason in error["reasons"]:
            whose = f" ({reason['offer']})" if reason.get("offer") else ""
            text = Text("\n  ").append(harmless(f"{reason['file']}{whose}"), "bold")
            console.print(text, soft_wrap=True)
            for word in ("found", "rule", "cure"):
                text = Text(f"    {word + ':':7}", "dim").append(harmless(reason[word]), "default")
                console.print(text, soft_wrap=True)
    else:
        _print_message(error["message"], console)
    console.print(Text(f"\n{harmless(error['advice'])}"), soft_wrap=True)


def _print_message(message: str, console: Console) -> None:
    console.print(Text(f"No video: {harmless(message)}", "bold red"), soft_wrap=True)


@contextmanager
def an_embedded_aws(home: Home, board: Board) -> Iterator[Environment]:
    """The one that is running, or one of our own for as long as the demo lasts."""
    if environment := embedded.running(home):
        board.done(f"Using the embedded AWS at {environment['AWS_ENDPOINT_URL']}")
        yield environment
        return
    try:
        environment = embedded.up(home, say=board.say)
        board.say("")
        yield environment
    finally:
        embedded.down(home)


def wanted_of(asked: argparse.Namespace) -> Wanted:
    """Add what the model needs and was not given: the sample's voice, a prompt."""
    samples = embedded.PROJECT / "samples"
    options: Any = json.loads(asked.options.read_text("utf-8")) if asked.options else {}
    if not isinstance(options, dict):
        raise ValueError("not a JSON object")
    if asked.model:
        options["model"] = asked.model
    model = MODELS.get(str(options.get("model", DEFAULT_MODEL)))
    audio, prompt = asked.audio, asked.prompt
    if model and model.needs_audio and not audio:
        audio = samples / "speech.mp3"
    if model and model.needs_prompt and not (prompt or options.get("prompt")):
        prompt = "She looks into the camera and begins to smile."
    return Wanted(asked.image or samples / "portrait.png", audio, prompt, options)


def main() -> int:
    parser = argparse.ArgumentParser(description="Drop a picture and a voice, get a video.")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--model", help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--prompt")
    parser.add_argument("--options", type=Path, help="a job file: JSON")
    asked = parser.parse_args()
    console, board = Console(highlight=False), Board(Console(highlight=False))
    try:
        wanted = wanted_of(asked)
    except (OSError, ValueError) as error:
        console.print(Text(harmless(f"{asked.options}: {error}")), soft_wrap=True)
        return 1

    try:
        wanted.check()
        with board.shown(), an_embedded_aws(Home(embedded.OUT), board) as environment:
            with embedded.subscription(environment, f"demo-{time.time_ns()}") as queue_url:
                dropped = drop(environment, wanted)
                names = [key.removeprefix(INBOX) for key in wanted.uploads]
                board.done(f"Dropped into the inbox: {', '.join(names)}")
                event = follow(environment, dropped, queue_url, board)
            if event["detail-type"] == "Video Ready":
                path = collect(environment, event, dropped.stem, embedded.OUT)
            else:
                _write_event(event, dropped.stem, embedded.OUT)
    except (DemoFailed, embedded.EmbeddedAwsFailed) as error:
        console.print(Text(harmless_lines(error)), soft_wrap=True)
        return 1

    if event["detail-type"] != "Video Ready":
        print_refusal(event, console)
        return 1
    stem = harmless(dropped.stem)
    said = (
        "A stand-in made this video from what you dropped: a slow push-in, no AI.\n"
        f"Beside it: {stem}.json (the manifest), {stem}.event.json (the event)."
    )
    console.print(Text(said), soft_wrap=True)
    print(harmless(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
