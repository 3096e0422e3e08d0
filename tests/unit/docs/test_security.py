"""The page about security names tests that exist, and reasons for what a scan finds."""

import re

from local.findings import Finding, Reason, complaints, reasons
from tests.unit.docs.test_docs import PROJECT, text

PAGE = "docs/security.md"


def test_each_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", text(PAGE)))
    files = (PROJECT / "tests").rglob("test_*.py")
    exist = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}

    assert len(named) > 20
    assert named <= exist, f"no such tests: {named - exist}"


def test_each_threat_is_shown_by_a_test() -> None:
    table = text(PAGE).partition("## Who could try what")[2].partition("\nWhat remains:")[0]
    rows = re.findall(r"^\| (.*) \|$", table, re.MULTILINE)[2:]

    assert len(rows) > 10
    assert not [row for row in rows if "`test_" not in row]


BUCKET = Finding("CKV_AWS_18", "AWS::S3::Bucket", "UploadBucket")
TABLE = "| check | where | why |\n| --- | --- | --- |\n| `CKV_AWS_18` logs | {} | {} |\n"


def test_a_finding_needs_a_reason_for_its_check_and_its_place() -> None:
    for place in ("UploadBucket", "AWS::S3::Bucket"):
        assert not [*complaints([BUCKET], [Reason("CKV_AWS_18", place)])]
    for other in (Reason("CKV_AWS_1", "UploadBucket"), Reason("CKV_AWS_18", "VideoBucket")):
        assert "CKV_AWS_18 UploadBucket: mend it" in next(complaints([BUCKET], [other]))


def test_a_reason_for_nothing_is_removed() -> None:
    other = Reason("CKV_AWS_18", "UploadBucket")

    assert "nothing is found" in next(complaints([], [other]))


def test_reasons_are_read_from_the_table_and_need_words() -> None:
    assert reasons(TABLE.format("`A` `B`", "they cost")) == [
        Reason("CKV_AWS_18", "A"),
        Reason("CKV_AWS_18", "B"),
    ]
    assert reasons(TABLE.format("`A`", "")) == []
    assert reasons(text(PAGE))
