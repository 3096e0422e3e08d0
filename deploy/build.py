"""Build with SAM for one architecture, and let the built template carry it.

python -m deploy.build arm64
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

PROJECT: Final = Path(__file__).resolve().parent.parent
BUILT: Final = PROJECT / ".aws-sam/build/template.yaml"
SAM: Final = PROJECT / ".venv/sam/bin/sam"
PLATFORMS: Final = {"arm64": "aarch64-manylinux_2_28", "x86_64": "x86_64-manylinux_2_28"}
LAMBDA_PYTHON: Final = "3.13"

_SUGGESTIONS = "Commands you can use next"
"""SAM's own next commands, such as `sam deploy --guided`, are not ours."""


def build(architecture: str) -> int:
    """Write `BUILT`. Returns SAM's exit code."""
    process = subprocess.Popen(
        [str(SAM), "build", "--parameter-overrides", f"Architecture={architecture}"],
        cwd=PROJECT,
        env={**os.environ, **_layer_settings(architecture)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    is_ours = True
    for line in process.stdout:
        is_ours = is_ours and not line.startswith(_SUGGESTIONS)
        if is_ours:
            print(line, end="", flush=True)
    if code := process.wait():
        return code
    template = yaml.safe_load(BUILT.read_text())
    carry(template, architecture)
    BUILT.write_text(yaml.safe_dump(template, sort_keys=False))
    return 0


def carry(template: dict[str, Any], architecture: str) -> None:
    """Make the architecture of the built layers the template's default, and its only value."""
    template["Parameters"]["Architecture"] |= {
        "Default": architecture,
        "AllowedValues": [architecture],
    }


def _layer_settings(architecture: str) -> dict[str, str]:
    """What the layers' Makefiles need. Only Lambda's own Python can compile for it."""
    compiler = sys.executable if _version() == LAMBDA_PYTHON else ""
    return {
        "UV": str(PROJECT / ".venv/uv/bin/uv"),
        "LAYER_PLATFORM": PLATFORMS[architecture],
        "LAYER_COMPILER": compiler,
    }


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


if __name__ == "__main__":
    if sys.argv[1] not in PLATFORMS:
        sys.exit(f"ARCHITECTURE is one of {', '.join(PLATFORMS)}, not {sys.argv[1]}.")
    sys.exit(build(sys.argv[1]))
