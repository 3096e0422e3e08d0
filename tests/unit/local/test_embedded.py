"""How many Lambda environments the embedded AWS may have, and how their memory is measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from local import embedded
from local.embedded import Home
from tests.support.memory import environments_of, memory_of


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment that MiniStack is started with."""
    started: list[dict[str, str]] = []
    monkeypatch.setenv("LAMBDA_ACCOUNT_CONCURRENCY", "0")  # the user's own, for another MiniStack
    monkeypatch.setattr(embedded, "_start", lambda *arguments: started.append(arguments[-1]))
    home = Home(tmp_path)
    embedded.start_ministack(home)
    home.scratch.rmdir()
    (environment,) = started
    return environment


def test_the_embedded_aws_bounds_its_environments(given: dict[str, str]) -> None:
    at_once = int(given["LAMBDA_ACCOUNT_CONCURRENCY"])
    environments = int(given["LAMBDA_MAX_ENVIRONMENTS"])

    assert 10 <= at_once <= environments <= 40, "at some 55 MB each: see tests/bench/burst.py"


def test_idle_environments_end_soon(given: dict[str, str]) -> None:
    assert int(given["LAMBDA_WARM_TTL_SECONDS"]) <= 60


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_the_memory_of_all_processes_is_measured(tmp_path: Path) -> None:
    home = Home(tmp_path)
    environment = tmp_path / "_worker.py"
    environment.write_text("data = b'x' * 50_000_000\nprint(flush=True)\ninput()")
    parent = f"import subprocess; subprocess.run(['{sys.executable}', '{environment}'])"
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        before = memory_of(home)
        home.processes.write_text(json.dumps([process.pid]))
        found, environments = memory_of(home), environments_of(home)
        process.communicate(b"\n")

    assert before.total == 0
    assert 50_000_000 < found.processes < 90_000_000
    assert found.environments == environments == 1
