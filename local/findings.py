"""checkov's findings in the template: each is mended, or named with its reason in the docs.

    python -m local.findings CHECKOV    the path of the command

Prints what is neither, and what is named although nothing is found. Ends with 1 if there is any.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from local.embedded import PROJECT

PAGE = "docs/security.md"
TEMPLATE = "template.yaml"


class Finding(NamedTuple):
    check: str  # CKV_AWS_18
    kind: str  # AWS::S3::Bucket
    name: str  # UploadBucket


class Reason(NamedTuple):
    check: str
    place: str  # a type of resources, or the name of one

    def covers(self, finding: Finding) -> bool:
        return self.check == finding.check and self.place in (finding.kind, finding.name)


def reasons(page: str) -> list[Reason]:
    """What the page's table names: a row may have several places. A row without words is none."""
    rows = re.findall(r"^\| `(CKV\w+)`[^|]*\|([^|]+)\|([^|]+)\|$", page, re.MULTILINE)
    return [
        Reason(check, place)
        for check, places, why in rows
        if why.strip()
        for place in re.findall(r"`([^`]+)`", places)
    ]


def complaints(findings: Iterable[Finding], named: Iterable[Reason]) -> Iterator[str]:
    """One line for each finding without a reason, and for each reason without a finding."""
    findings, named = list(findings), list(named)
    for finding in findings:
        if not any(reason.covers(finding) for reason in named):
            yield f"{finding.check} {finding.name}: mend it, or name a reason in {PAGE}"
    for reason in named:
        if not any(reason.covers(finding) for finding in findings):
            yield f"{reason.check} {reason.place}: nothing is found, remove it from {PAGE}"


def found(checkov: str) -> list[Finding]:
    """Run checkov over the template. Raises if it could not read it or looked at nothing."""
    scan = [checkov, "--file", TEMPLATE, "--framework", "cloudformation", "--skip-download"]
    ended = subprocess.run(
        [*scan, "--compact", "--output", "json", "--soft-fail"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(ended.stdout)
    summary = report.get("summary", report)
    if summary.get("parsing_errors", 1) or not summary.get("passed"):
        raise SystemExit(f"checkov could not read {TEMPLATE}: {summary}")
    failed = report["results"]["failed_checks"]
    return [Finding(one["check_id"], *one["resource"].rsplit(".", 1)) for one in failed]


def main() -> None:
    findings, named = found(sys.argv[1]), reasons((PROJECT / PAGE).read_text())
    lines = list(complaints(findings, named))
    print("\n".join([*lines, f"checkov: {len(findings)} findings, {len(lines)} of them open"]))
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
