"""Known vulnerabilities of every locked package, by pip-audit. Never green without an answer.

    python -m local.vulnerabilities PIP_AUDIT    the path of the command

First it asks for a version that is known to be vulnerable: a database that does not know that one
has not answered.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from local.embedded import PROJECT

KNOWN = "jinja2==2.4.1"  # CVE-2014-1402 and later ones


def ask(pip_audit: str, requirements: Path, *more: str) -> list[dict[str, Any]]:
    """What the database says of each pinned package. Raises SystemExit if it does not answer."""
    ended = subprocess.run(
        [
            *(pip_audit, "--requirement", str(requirements), "--disable-pip", *more),
            *("--format", "json", "--progress-spinner", "off", "--timeout", "30"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        last = (ended.stderr.strip() or "no answer").splitlines()[-1]
        raise SystemExit(f"NOT AUDITED: the database does not answer: {last}") from None
    return packages


def main() -> None:
    pip_audit = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "known.txt"
        known.write_text(f"{KNOWN}\n")
        if not any(package.get("vulns") for package in ask(pip_audit, known, "--no-deps")):
            raise SystemExit(f"NOT AUDITED: the database does not know that {KNOWN} is vulnerable")
    bad = 0
    for file in sorted(PROJECT.glob("requirements/*.txt")) + sorted(
        PROJECT.glob("layers/*/requirements.txt")
    ):
        for package in ask(pip_audit, file, "--require-hashes"):
            for one in package.get("vulns", ()):
                print(f"{file.name}: {package['name']} {package['version']}: {one['id']}")
            if "skip_reason" in package:
                print(f"{file.name}: {package['name']} is not audited: {package['skip_reason']}")
            bad += bool(package.get("vulns")) or "skip_reason" in package
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
