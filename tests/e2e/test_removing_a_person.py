"""The commands of docs/security.md that delete one person's data, run as they stand there.

It has a stack of its own: test_promises adds up what the ledger has of all jobs.
"""

import os
import subprocess
from pathlib import Path

import pytest

from dropreel.model.job import INBOX
from local.embedded import ENVIRONMENTS, PROJECT
from tests.e2e.conftest import SPEECH, Stack, until


@pytest.mark.long
def test_the_commands_of_the_page_delete_one_persons_data(stack: Stack, tmp_path: Path) -> None:
    person, longer = "people/anna", "people/anna.smith"
    others = ["people/annabel", "others/people/anna"]
    for stem in (person, longer, *others):
        assert stack.event_of(stack.drop(stem))["detail-type"] == "Video Ready"
    stack.upload(f"{person}.mp3", SPEECH.read_bytes())  # another version, and nothing to render
    done = ["SUCCEEDED"] * 4
    until(lambda: [one["status"] for one in stack.executions("anna-")] == done, "the jobs' ends")
    jobs = jobs_of(stack, person)
    assert jobs_of(stack, longer) < jobs
    assert all(copies_of(stack, job) for job in jobs)
    expire(stack, jobs_of(stack, longer))  # as after 180 days

    ended = subprocess.run(
        ["sh", "-euc", commands()],
        env=os.environ
        | stack.environment
        | {"NAME": person, "UPLOAD_PREFIX": INBOX}
        | {"PATH": f"{ENVIRONMENTS / 'sam/bin'}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"Deleted: {person}\n"
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
    jobs = {it["pk"]["S"].removeprefix("job#") for it in plans if f"{INBOX}{name}." in str(it)}
    assert jobs
    return jobs


def expire(stack: Stack, jobs: set[str]) -> None:
    for item in stack.ledger("job#"):
        if item["pk"]["S"].removeprefix("job#") in jobs:
            stack.client("dynamodb").delete_item(
                TableName=stack.environment["LEDGER_TABLE"],
                Key={"pk": item["pk"], "sk": item["sk"]},
            )


def copies_of(stack: Stack, job: str) -> list[str]:
    return versions_of(stack, stack.environment["WORK_BUCKET"], f"work/{job}/")


def left_of(stack: Stack, name: str) -> list[str]:
    """What is there of the files of a name: versions of uploads and videos, items."""
    output = f"output#{stack.environment['UPLOAD_BUCKET']}/{name}"
    items = [
        item
        for item in stack.ledger("")
        if f"{INBOX}{name}" in str(item)
        or f"{item['pk']['S']}.".startswith(output)
        or f"{item.get('name', {}).get('S')}.".startswith(name)
    ]
    return [
        *(f"{item['pk']['S']} {item['sk']['S']}" for item in items),
        *versions_of(stack, stack.environment["UPLOAD_BUCKET"], f"{INBOX}{name}"),
        *versions_of(stack, stack.environment["VIDEO_BUCKET"], name),
    ]


def versions_of(stack: Stack, bucket: str, prefix: str) -> list[str]:
    pages = stack.client("s3").get_paginator("list_object_versions")
    return [
        f"{one['Key']} {one['VersionId']}"
        for page in pages.paginate(Bucket=bucket, Prefix=prefix)
        for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
    ]
