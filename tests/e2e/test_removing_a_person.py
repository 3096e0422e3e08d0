"""The commands of docs/security.md that delete one person's data, run as they stand there.

The file comes after test_promises, whose last test adds up what the ledger has of all jobs.
"""

import os
import subprocess
from pathlib import Path

from local.embedded import ENVIRONMENTS, PROJECT
from tests.e2e.conftest import SPEECH, Stack, until


def test_the_commands_of_the_page_delete_one_persons_data(stack: Stack, tmp_path: Path) -> None:
    person, others = "people/anna", ["people/annabel", "others/people/anna"]
    for stem in (person, *others):
        assert stack.event_of(stack.drop(stem))["detail-type"] == "Video Ready"
    stack.upload(f"{person}.mp3", SPEECH.read_bytes())  # another version, and nothing to render
    done = ["SUCCEEDED"] * 3
    until(lambda: [one["status"] for one in stack.executions("anna-")] == done, "the jobs' ends")
    jobs = jobs_of(stack, person)
    assert all(copies_of(stack, job) for job in jobs)

    ended = subprocess.run(
        ["sh", "-euc", commands()],
        env=os.environ
        | stack.environment
        | {"NAME": person, "PATH": f"{ENVIRONMENTS / 'sam/bin'}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert left_of(stack, f"{person}.") == []
    assert [copy for job in jobs for copy in copies_of(stack, job)] == []
    for other in others:
        assert len(left_of(stack, f"{other}.")) >= 8
        assert all(copies_of(stack, job) for job in jobs_of(stack, other))
    assert list(tmp_path.iterdir()) == []


def commands() -> str:
    page = (PROJECT / "docs/security.md").read_text()
    section = page.partition("\n## Delete one person's data\n")[2]
    return section.partition("```sh\n")[2].partition("```")[0]


def jobs_of(stack: Stack, name: str) -> set[str]:
    plans = [item for item in stack.ledger("job#") if "plan" in item]
    jobs = {it["pk"]["S"].removeprefix("job#") for it in plans if f"inbox/{name}." in str(it)}
    assert jobs
    return jobs


def copies_of(stack: Stack, job: str) -> list[str]:
    return versions_of(stack, stack.environment["WORK_BUCKET"], f"work/{job}/")


def left_of(stack: Stack, name: str) -> list[str]:
    """What is there of the files of a name: versions of uploads and videos, items."""
    output = f"output#{stack.environment['UPLOAD_BUCKET']}/{name.rstrip('.')}"
    items = [
        item
        for item in stack.ledger("")
        if f"inbox/{name}" in str(item) or item["pk"]["S"] == output
    ]
    return [
        *(f"{item['pk']['S']} {item['sk']['S']}" for item in items),
        *versions_of(stack, stack.environment["UPLOAD_BUCKET"], f"inbox/{name}"),
        *versions_of(stack, stack.environment["VIDEO_BUCKET"], name),
    ]


def versions_of(stack: Stack, bucket: str, prefix: str) -> list[str]:
    pages = stack.client("s3").get_paginator("list_object_versions")
    return [
        f"{one['Key']} {one['VersionId']}"
        for page in pages.paginate(Bucket=bucket, Prefix=prefix)
        for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
    ]
