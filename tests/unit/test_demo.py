"""The demo, on an embedded AWS that is played: what the person at the terminal sees."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dropreel.job import INBOX
from local import demo, embedded
from local.embedded import PROJECT, Environment, Home

ENVIRONMENT = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "UPLOAD_BUCKET": "uploads",
    "VIDEO_BUCKET": "videos",
    "STATE_MACHINE_ARN": "arn:aws:states:eu-central-2:000000000000:stateMachine:render",
}
PUBLISHED = {
    kind: json.loads((PROJECT / f"events/{file}.example.json").read_text())
    for kind, file in {
        "ready": "video-ready",
        "failed": "video-failed",
        "incomplete": "upload-incomplete",
    }.items()
}
STRANGER = {"key": "inbox/anna.png", "version_id": "of yesterday"}


@dataclass
class PlayedAws:
    """S3, SQS and Step Functions in one, as far as the demo goes."""

    event: str = "ready"
    """The kind of event that comes, about what was dropped."""
    detail: dict[str, Any] = field(default_factory=dict)
    """What is different in it."""
    used: slice = field(default_factory=lambda: slice(None))
    """Which of the dropped files it names."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    dropped: dict[str, bytes] = field(default_factory=dict)
    unread: list[dict[str, Any]] = field(default_factory=list)
    is_subscribed: bool = False

    def told(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(json.dumps(PUBLISHED[self.event]))
        files = [{"key": key, "version_id": f"v-{key}"} for key in list(self.dropped)[self.used]]
        name = {"folder": "", "stem": self._stem}
        if self.event == "incomplete":
            event["detail"] |= name | {"uploads": [*files, STRANGER]}
        else:
            event["detail"]["job"] |= name
            event["detail"]["inputs"] = [STRANGER, *files]
        event["detail"] |= self.detail
        return event

    @property
    def _stem(self) -> str:
        return list(self.dropped)[-1].removeprefix(INBOX).rpartition(".")[0]

    def put_object(self, Bucket: str, Key: str, Body: bytes) -> dict[str, str]:  # noqa: N803
        assert self.is_subscribed, "the event would be missed"
        assert Key not in self.dropped, "one file over another"
        self.dropped[Key] = Body
        return {"VersionId": f"v-{Key}"}

    def receive_message(self, **_: object) -> dict[str, Any]:
        return {"Messages": [{"Body": json.dumps(event)} for event in (*self.unread, self.told())]}

    def list_executions(self, **_: object) -> dict[str, Any]:
        name = f"{self._stem}-0123456789abcdef"
        started = self.event != "incomplete"
        return {"executions": [{"name": name, "executionArn": "arn"}] if started else []}

    def describe_execution(self, **_: object) -> dict[str, Any]:
        told = self.told()["detail"]
        return {"input": json.dumps(told["job"] | {"inputs": told["inputs"]})}

    def get_paginator(self, _: str) -> "PlayedAws":
        return self

    def paginate(self, **_: object) -> list[dict[str, Any]]:
        outputs = [json.dumps({"Payload": answer}) for answer in self.answers]
        return [
            {
                "events": [
                    {"type": "TaskSucceeded", "taskSucceededEventDetails": {"output": output}}
                    for output in outputs
                ]
            }
        ]

    def download_file(self, bucket: str, key: str, path: str, **_: object) -> None:
        assert bucket == PUBLISHED["ready"]["detail"]["video"]["bucket"]
        Path(path).write_text(key)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PlayedAws:
    played = PlayedAws()

    @contextmanager
    def subscription(environment: Environment, name: str) -> Iterator[str]:
        played.is_subscribed = True
        yield "queue"

    def running(home: Home) -> Environment:
        assert home.path == tmp_path / "out"
        return ENVIRONMENT

    monkeypatch.setattr(embedded, "OUT", tmp_path / "out")
    monkeypatch.setattr(embedded, "running", running)
    monkeypatch.setattr(embedded, "subscription", subscription)
    monkeypatch.setattr(embedded, "client", lambda *_: played)
    monkeypatch.setattr(demo, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(demo, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for file in ("anna.png", "anna.jpg", "anna.mp3", "notes.txt", ".hidden.png", "anna"):
        (tmp_path / file).write_bytes(file.encode())
    return played


@pytest.fixture
def make_demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "MakeDemo":
    return MakeDemo(monkeypatch, capsys)


@dataclass
class MakeDemo:
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *options: str) -> tuple[int, list[str]]:
        """Its exit status, and the lines that it printed."""
        self.monkeypatch.setattr("sys.argv", ["demo", *options])
        status = demo.main()
        return status, self.capsys.readouterr().out.splitlines()


OWN = ("--image", "anna.jpg", "--audio", "anna.mp3")


def test_a_video_its_manifest_and_its_event_are_left_and_the_path_is_said_last(
    aws: PlayedAws, make_demo: MakeDemo
) -> None:
    status, lines = make_demo(*OWN, "--prompt", "She smiles.", "--model", "a-model")

    assert (status, lines[-1]) == (0, "out/anna.mp4")
    assert aws.dropped == {
        "inbox/anna.json": b'{"model": "a-model"}',
        "inbox/anna.txt": b"She smiles.",
        "inbox/anna.mp3": b"anna.mp3",
        "inbox/anna.jpg": b"anna.jpg",  # last: with it the job is complete
    }
    key = PUBLISHED["ready"]["detail"]["video"]["key"]
    assert Path("out/anna.mp4").read_text() == key
    assert Path("out/anna.json").read_text() == key.replace(".mp4", ".json")
    assert json.loads(Path("out/anna.event.json").read_text()) == aws.told()


def test_without_files_of_ones_own_the_samples_are_dropped(
    aws: PlayedAws, make_demo: MakeDemo
) -> None:
    make_demo()

    assert list(aws.dropped) == ["inbox/portrait.mp3", "inbox/portrait.png"]


def test_a_refusal_tells_every_reason_and_fails(aws: PlayedAws, make_demo: MakeDemo) -> None:
    offers: list[dict[str, Any]] = [{}, {"offer": None}, {"offer": "runcomfy: a model"}]
    reasons = [
        {
            "file": f"inbox/a name [that] is {'long ' * 20}{number}.png",
            "rule": f"[rule] {number}",
            "found": f"found {number}",
            "cure": f"cure {number}",
            **offer,
        }
        for number, offer in enumerate(offers)
    ]
    error = {"code": "InputRejected", "message": "3 files.", "advice": "Mend.", "reasons": reasons}
    aws.event, aws.detail = "failed", {"error": error}

    status, lines = make_demo(*OWN)

    assert status == 1
    for reason in reasons:
        told = [f"  {reason['file']}" + (f" ({reason['offer']})" if reason.get("offer") else "")]
        told += [f"    {word + ':':7}{reason[word]}" for word in ("found", "rule", "cure")]
        at = lines.index(told[0])
        assert lines[at : at + 4] == told
    assert lines[-1] == "Mend."
    assert json.loads(Path("out/anna.event.json").read_text())["detail"]["error"] == error
    assert not Path("out/anna.mp4").exists()


@pytest.mark.parametrize("reasons", [{}, {"reasons": []}])
def test_any_other_failure_is_told_in_its_words(
    aws: PlayedAws, make_demo: MakeDemo, reasons: dict[str, Any]
) -> None:
    aws.event = "failed"
    aws.detail = {"error": {"message": "No credit [at all].", "advice": "Top up."} | reasons}

    status, lines = make_demo(*OWN)

    assert status == 1
    assert "No video: No credit [at all]." in lines
    assert "Top up." in lines


def test_uploads_that_wait_in_vain_are_an_end_too(aws: PlayedAws, make_demo: MakeDemo) -> None:
    aws.event, aws.detail = "incomplete", {"message": "anna.jpg waited for its recording."}

    status, lines = make_demo(*OWN)

    assert (status, lines[-1]) == (1, "No video: anna.jpg waited for its recording.")
    assert Path("out/anna.event.json").exists()


@pytest.mark.parametrize(
    ("kind", "used"),
    [
        ("ready", slice(None)),  # and what lay there before
        ("failed", slice(0, 1)),  # the job's options named another picture and another voice
        ("incomplete", slice(1, 2)),
    ],
)
def test_the_demo_ends_with_the_event_about_its_files(
    aws: PlayedAws, make_demo: MakeDemo, kind: str, used: slice
) -> None:
    aws.event, aws.used = kind, used

    _, lines = make_demo(*OWN, "--model", "a-model")

    said = PUBLISHED[kind]["detail-type"]
    assert any(line.endswith(f"Event on the bus: {said}") for line in lines)


@pytest.mark.parametrize(
    "about",
    [
        {"inputs": [STRANGER]},  # an earlier job of the same name
        {"job": {"folder": "", "stem": "monday"}},  # an avatar's job: the picture is its face
        {"job": {"folder": "team/", "stem": "anna"}},
    ],
)
def test_an_event_about_another_job_is_passed_over(
    aws: PlayedAws, make_demo: MakeDemo, about: dict[str, Any]
) -> None:
    aws.detail = about

    status, lines = make_demo(*OWN)

    assert status == 1
    assert lines[-1].startswith("No event about anna within")


def test_the_events_of_others_do_not_hide_the_one(aws: PlayedAws, make_demo: MakeDemo) -> None:
    aws.unread = [PUBLISHED["failed"], PUBLISHED["incomplete"]]

    assert make_demo(*OWN)[0] == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--image", "no.png"], "There is no file no.png"),
        (["--image", "anna.png", "--audio", "no.mp3"], "There is no file no.mp3"),
        (["--image", "notes.txt"], "notes.txt is no picture by its name"),
        (["--image", "anna"], "anna is no picture by its name"),
        (["--image", "anna.mp3"], "anna.mp3 is no picture by its name"),
        (["--image", "anna.png", "--audio", "notes.txt"], "notes.txt is no recording by its name"),
        # the same ending: one would lie over the other
        (["--image", "anna.png", "--audio", "anna.png"], "anna.png is no recording by its name"),
        (["--image", ".hidden.png"], ".hidden.png: hidden and temporary files are ignored"),
        (["--options", "no.json"], "no.json: "),
        (["--options", "notes.txt"], "notes.txt: "),
        (["--options", "list.json"], "list.json: not a JSON object"),
    ],
)
def test_what_no_job_would_be_made_of_is_told_at_once(
    aws: PlayedAws, make_demo: MakeDemo, options: list[str], told: str
) -> None:
    Path("list.json").write_text("[]")

    status, lines = make_demo(*options)

    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith(told)
    assert not aws.dropped


ANSWERS: list[dict[str, Any]] = [
    {
        "route": [{"provider": "runcomfy"}],
        "conform": ["inbox/anna.jpg is turned"],
        "changes": [],
        "image_facts": None,
        "audio_facts": None,
    },
    {
        "route": [{"provider": "runcomfy"}],
        "conform": [],
        "changes": ["anna.jpg: turned upright"],
        "image_facts": {"format": "jpeg", "width": 800, "height": 600},
        "audio_facts": {"format": "mp3", "duration_seconds": 8.27},
    },
    {"ticket": None, "wait_seconds": 7},
    {"ticket": {"provider": "runcomfy", "request_id": "r-[1]"}, "wait_seconds": 5},
    {"state": "rendering", "next": None},
    {"state": "failed", "next": {"attempt": 2}},
    {"state": "completed", "next": None},
    {
        "video": {
            "key": "anna.mp4",
            "size_bytes": 1234567,
            "duration_seconds": 8.3,
            "width": 8,
            "height": 6,
        }
    },
]
SEEN = [
    "Using the embedded AWS at http://127.0.0.1:1",
    "Dropped into the inbox: anna.mp3, anna.jpg",
    "Settling, then pairing the files ...",
    "Validated; to be made fit: inbox/anna.jpg is turned",
    "Conforming ...",
    "Conformed: jpeg of 800 x 600, mp3 of 8.3 s",
    "  anna.jpg: turned upright",
    "Submitting to runcomfy ...",
    "Not accepted: next try in 7 s ...",
    "Submitted to runcomfy: request r-[1]",
    "Queued at the provider ...",
    "Rendering ...",
    "The render failed",
    "Submitting again ...",
    "Rendered",
    "Copying the video into the videos bucket ...",
    "Delivered: anna.mp4, 1,234,567 bytes, 8.3 s of 8 x 6",
    "Announcing ...",
    "Event on the bus: Video Ready",
]


def test_each_step_is_a_plain_line_when_nobody_watches(aws: PlayedAws, make_demo: MakeDemo) -> None:
    aws.answers = ANSWERS

    _, lines = make_demo(*OWN)

    assert "\x1b" not in "".join(lines)
    steps = [re.fullmatch(r" +\d+\.\d s  (.*)", line) for line in lines]
    assert [step[1] for step in steps if step] == SEEN


def test_a_terminal_shows_the_steps_as_they_happen() -> None:
    screen = StringIO()
    board = demo.Board(Console(file=screen, force_terminal=True, width=60))

    with board.shown():
        board.done("Dropped [into] the inbox")
        board.now("Rendering")

    assert "✓" in screen.getvalue()
    assert "Dropped [into] the inbox" in screen.getvalue()
    assert board.live is None


def test_an_embedded_aws_of_its_own_is_stopped_again(
    monkeypatch: pytest.MonkeyPatch, aws: PlayedAws, make_demo: MakeDemo
) -> None:
    stopped: list[Home] = []
    monkeypatch.setattr(embedded, "running", lambda home: None)
    monkeypatch.setattr(embedded, "up", lambda home, *, say: ENVIRONMENT)
    monkeypatch.setattr(embedded, "down", stopped.append)
    aws.detail = {"inputs": []}

    status, _ = make_demo(*OWN)

    assert status == 1
    assert [home.path for home in stopped] == [embedded.OUT]
