"""`operate check` against the deployed stack: whole, with a broken link, and to a video."""

import json
from typing import Any

from dropreel.model.job import INBOX
from local import embedded
from tests.e2e.conftest import Stack

FOLDER = "dropreel-check/"


def check(stack: Stack, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the links by their names."""
    told = stack.operate("check", "--json", *options)
    assert told.stdout, told.stderr
    return told.returncode, {link["name"]: link for link in json.loads(told.stdout)["links"]}


def left(stack: Stack) -> list[str]:
    """What is there of a check, in any version."""
    return [
        f"{one['Key']}"
        for bucket, prefix in (
            (stack.environment["UPLOAD_BUCKET"], f"{INBOX}{FOLDER}"),
            (stack.environment["VIDEO_BUCKET"], FOLDER),
        )
        for page in stack.client("s3")
        .get_paginator("list_object_versions")
        .paginate(Bucket=bucket, Prefix=prefix)
        for one in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
    ]


def test_check_of_a_stack_that_works_pays_nothing_and_leaves_nothing(stack: Stack) -> None:
    code, links = check(stack)

    assert {link["state"] for link in links.values()} == {"works"}, links
    assert code == 0
    assert (
        "RunComfy would make a video of 3 seconds for about $0.15"
        in (links["checks and copies"]["found"])
    )
    assert stack.submissions(FOLDER) == []
    assert left(stack) == []


def test_check_names_the_broken_link_and_the_cure(stack: Stack) -> None:
    events = stack.client("events")
    (rule,) = [one["Name"] for one in events.list_rules()["Rules"] if "UploadRule" in one["Name"]]
    events.disable_rule(Name=rule)
    try:
        code, links = check(stack)
    finally:
        events.enable_rule(Name=rule)

    assert code == 1
    first, second, *_ = links.values()
    assert (first["state"], second["state"]) == ("broken", "not tried")
    assert "UploadRule is DISABLED" in first["found"]
    assert "teardown UNDO=1" in first["cure"]
    assert links["videos bucket"]["state"] == "works"
    assert left(stack) == []


def test_check_can_go_on_to_a_video(stack: Stack) -> None:
    unpaid = stack.operate("check", "--render")
    assert unpaid.returncode == 2
    assert "--yes" in unpaid.stderr

    code, links = check(stack, "--render", "--yes")

    assert {link["state"] for link in links.values()} == {"works"}, links
    assert code == 0
    bucket = stack.environment["VIDEO_BUCKET"]
    assert links["render"]["found"].startswith(f"s3://{bucket}/{FOLDER}")
    assert [key.rpartition(".")[2] for key in left(stack)] == ["json", "mp4"]


def test_the_page_of_a_check_is_short(stack: Stack) -> None:
    told = stack.operate("check")

    assert told.stdout.endswith(f"The stack {embedded.STACK} works.\n")
