"""Imports point one way: logic knows neither AWS nor HTTP, so it is tested without either."""

import os
import subprocess
import sys

import pytest

LOGIC = (
    "admission",
    "attempts",
    "catalog",
    "conclusion",
    "conform",
    "conform_strip",
    "delivery",
    "draft",
    "errors",
    "events",
    "fitting",
    "inbox_sweep",
    "intake",
    "iso_media",
    "job",
    "kinds",
    "ledger",
    "media",
    "memory",
    "mp4",
    "options",
    "pairing",
    "pictures",
    "polling",
    "precedence",
    "prices",
    "provider",
    "provider_words",
    "reader",
    "recordings",
    "render",
    "resumption",
    "settings",
    "submission",
    "sweeping",
    "timing",
    "validation",
    "wish",
)

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("boto3", "botocore", "httpx", "httpcore"):
            raise ImportError(f"logic must not import {name}")
sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize("module", LOGIC)
def test_logic_imports_neither_boto3_nor_httpx(module: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", f"{BLOCKED}\nimport dropreel.{module}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert ran.returncode == 0, ran.stderr
