"""Strict TypeScript types that a consumer generates from the published schemas.

Needs node, so it is no part of `make test`. The first run installs the tools of `package.json`.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local.contract import EVENTS
from local.embedded import PROJECT
from tests.support.example_events import EXAMPLES

HERE = Path(__file__).parent
TOOLS = PROJECT / ".venv" / "node"
OPTIONS = ["--strict", "--noEmit", "--skipLibCheck", "false"]
CONSUMER = """
import type { JobStartedEvent } from "./job-started";
import type { RenderSubmittedEvent } from "./render-submitted";
import type { UploadIncompleteEvent } from "./upload-incomplete";
import type { VideoFailedEvent } from "./video-failed";
import type { VideoReadyEvent } from "./video-ready";

type ForDisplay = JobStartedEvent | RenderSubmittedEvent;
type DropreelEvent = VideoReadyEvent | VideoFailedEvent | UploadIncompleteEvent | ForDisplay;

export function answer(event: DropreelEvent): string {
  const folder: string = event.detail.job.folder;
  switch (event["detail-type"]) {
    case "Video Ready":
      return folder + event.detail.video.key + (event.detail.job.labels["customer"] ?? "");
    case "Video Failed":
      return folder + event.detail.error.code + (event.detail.error_file?.key ?? "");
    case "Upload Incomplete":
      return folder + event.detail.message;
    case "Job Started":
      return folder + event.detail.offer.provider + event.detail.jobs_before;
    case "Render Submitted":
      return folder + event.detail.request_id + event.detail.attempt;
  }
}

export const examples: DropreelEvent[] = EXAMPLES;
"""


@pytest.fixture(scope="module")
def node() -> str:
    npm = shutil.which("npm")
    if not (shutil.which("node") and npm):
        pytest.skip("node is not on this machine")
    TOOLS.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, TOOLS)
    subprocess.run([npm, "ci", "--silent", "--ignore-scripts"], cwd=TOOLS, check=True)
    return os.fspath(TOOLS / "node_modules" / ".bin")


@pytest.fixture(scope="module")
def folder(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("typescript")
    for schema in EVENTS.glob("*.event.schema.json"):
        made = folder / f"{schema.name.partition('.')[0]}.ts"
        paths = ["-i", str(schema), "-o", str(made)]
        subprocess.run([f"{node}/json2ts", "--additionalProperties=false", *paths], check=True)
    return folder


def errors(node: str, folder: Path, consumer: str) -> str:
    (folder / "consumer.ts").write_text(consumer)
    command = [f"{node}/tsc", *OPTIONS, "consumer.ts"]
    ran = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
    return ran.stdout


def test_strict_typescript_takes_each_example_and_a_consumer(node: str, folder: Path) -> None:
    examples = [json.loads(path.read_text()) for path in EXAMPLES.values()]

    assert errors(node, folder, CONSUMER.replace("EXAMPLES", json.dumps(examples))) == ""


def test_strict_typescript_refuses_an_event_without_a_field(node: str, folder: Path) -> None:
    event = json.loads(EXAMPLES["video-ready"].read_text())
    del event["detail"]["job"]["run"]

    assert "'run' is missing" in errors(
        node, folder, CONSUMER.replace("EXAMPLES", json.dumps([event]))
    )
