"""No bytes make prepare crash, hang or eat memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]


@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory in /proc")
def test_no_bytes_make_prepare_crash_or_hang_or_eat_memory() -> None:
    """In a process of its own, because a codec that crashes takes its process with it."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.hostile_media", "30"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )

    assert ran.returncode == 0, ran.stderr[-4000:] + ran.stdout
