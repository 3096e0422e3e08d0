"""Notices: what a person reads in a mail about an event."""

import json
import re
import unicodedata
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.model.errors import Reason
from dropreel.model.job import MAX_KEY_BYTES
from dropreel.outcome.notice import (
    MAX_SUBJECT_CHARACTERS,
    MAX_TEXT_BYTES,
    AnnouncedEvent,
    Notice,
    notice_of,
    object_link,
)
from local.contract import EVENTS
from tests.support.sam_template import of_type

NOTICED = of_type("AWS::Events::Rule")["NotifyRule"]["EventPattern"]["detail-type"]
EXAMPLES: dict[str, dict[str, Any]] = {
    path.name.removesuffix(".example.json"): event
    for path in sorted(EVENTS.glob("*.example.json"))
    if (event := json.loads(path.read_text())).get("detail-type") in NOTICED
}
READY, FAILED, INCOMPLETE = "video-ready", "video-failed", "upload-incomplete"
JOB_ID = EXAMPLES[READY]["detail"]["job"]["id"]


def told(example: str, region: str = "eu-central-1", **changes: Any) -> Notice:  # noqa: ANN401
    """The notice of an example, with other values: `video__key` is `detail.video.key`."""
    event = json.loads(json.dumps(EXAMPLES[example])) | {"region": region}
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = event["detail"]
        for parent in parents:
            at = at[parent]
        at[last] = value
    return notice_of(AnnouncedEvent.model_validate(event))


def test_each_example_of_the_rules_events_has_a_notice() -> None:
    assert {event["detail-type"] for event in EXAMPLES.values()} == set(NOTICED)
    assert {name: told(name).subject for name in EXAMPLES} == {
        READY: "Video ready: team/anna",
        FAILED: "Video failed: team/anna",
        "render-failed": "Video failed: team/anna",
        INCOMPLETE: "Upload incomplete: team/ben",
    }


def test_a_ready_video_has_its_place_and_its_price() -> None:
    assert told(READY).text == (
        'The video of "team/anna" is ready.\n\n'
        "s3://dropreel-videobucket-4jkl5mnop6qr/team/anna.mp4\n"
        "https://eu-central-1.console.aws.amazon.com/s3/object/dropreel-videobucket-4jkl5mnop6qr"
        "?region=eu-central-1&prefix=team%2Fanna.mp4\n\n"
        "Video: 8.3 seconds, 480 x 480 pixels, 0.5 MB\n"
        "Cost: $0.27, as the provider says (estimated: $0.17)\n"
        f"Job: {JOB_ID}\n"
    )


def test_what_may_be_wrong_with_a_ready_video_is_said() -> None:
    text = told(
        READY,
        warnings=["The video has no sound track."],
        changes=["anna.png: turned upright"],
        ignored=["inbox/team/anna.psd"],
        video__nsfw=True,
    ).text

    assert "Look at it before you use it:\n- The video has no sound track.\n" in text
    assert "\n- anna.png: turned upright\n" in text
    assert "\n- inbox/team/anna.psd\n" in text
    assert "may be unsafe to show" in text


@pytest.mark.parametrize("example", [FAILED, "render-failed"])
def test_a_failure_says_what_is_wrong_and_what_to_do_in_the_reports_own_words(example: str) -> None:
    detail = EXAMPLES[example]["detail"]
    text = told(example).text

    for words in (detail["error"]["message"], detail["error"]["advice"], detail["job"]["id"]):
        assert words in text
    for reason in detail["error"]["reasons"]:
        for part in ("file", "found", "rule", "cure"):
            assert reason[part] in text
    error_file = detail["error_file"]
    assert f"s3://{error_file['bucket']}/{error_file['key']}\nhttps://" in text
    assert f"s3://{error_file['bucket']}/{detail['older_video']['key']}\n" in text


def test_a_single_reason_is_told_once() -> None:
    reason = EXAMPLES[FAILED]["detail"]["error"]["reasons"][0]
    message = f"1 file cannot be used. {reason['file']}: {reason['found']}."
    text = told(FAILED, error__reasons=[reason], error__message=message).text

    assert text.count(reason["found"]) == 1
    assert f"What to do: {reason['cure']} Correct the file" in text
    assert "All reasons" not in text


def test_a_failure_without_an_error_file_has_no_place() -> None:
    text = told(FAILED, error_file=None, older_video=None).text

    assert "https://" not in text
    assert "What to do: Correct the files" in text


def test_an_incomplete_upload_says_what_is_missing_and_what_is_there() -> None:
    text = told(INCOMPLETE).text

    assert EXAMPLES[INCOMPLETE]["detail"]["message"] in text
    assert "- s3://dropreel-uploadbucket-1abc2defg3hi/inbox/team/ben.mp3\n" in text
    assert text.endswith("Cost: nothing\n")


@pytest.mark.parametrize(
    ("example", "estimated_usd", "actual_usd", "says"),
    [
        (READY, 0.17, 0.27, "$0.27, as the provider says (estimated: $0.17)"),
        (READY, None, 0.27, "$0.27, as the provider says (estimated: not known)"),
        (READY, 0.17, None, "$0.17, estimated"),
        (READY, 0.001, None, "less than a cent, estimated"),
        (READY, None, None, "not known"),
        (FAILED, 0.0, None, "nothing"),
        (FAILED, 1.5, None, "perhaps $1.50: the provider may have been paid"),
        (FAILED, None, None, "not known"),
    ],
)
def test_the_cost_is_said_in_words(
    example: str, estimated_usd: float | None, actual_usd: float | None, says: str
) -> None:
    costs: Any = {"estimated_usd": estimated_usd}
    if example == READY:
        costs["actual_usd"] = actual_usd

    assert f"\nCost: {says}\n" in told(example, **costs).text


def test_a_later_run_says_so() -> None:
    assert f"Job: {JOB_ID}, run 3\n" in told(READY, job__run=3).text


# Links


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "eu-central-1.console.aws.amazon.com"),
        ("cn-north-1", "console.amazonaws.cn"),
        ("us-gov-west-1", "console.amazonaws-us-gov.com"),
    ],
)
def test_the_link_is_of_the_regions_own_console(region: str, host: str) -> None:
    assert urlsplit(object_link(region, "videos", "anna.mp4")).netloc == host


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_KEY_BYTES).filter(
    lambda key: len(key.encode()) <= MAX_KEY_BYTES
)


@given(KEYS)
def test_a_link_leads_to_the_file_whatever_its_name(key: str) -> None:
    link = urlsplit(object_link("eu-central-1", "videos", key))

    assert parse_qs(link.query, strict_parsing=True) == {
        "region": ["eu-central-1"],
        "prefix": [key],
    }
    assert link.path == "/s3/object/videos"
    assert link.geturl().isascii()


def test_no_link_grants_anything() -> None:
    for name in EXAMPLES:
        for link in re.findall(r"https?://\S+", told(name).text):
            assert parse_qs(urlsplit(link).query).keys() == {"region", "prefix"}


# Hostile names


@pytest.mark.parametrize(
    ("stem", "shown"),
    [
        ("Zoë", "team/Zoe"),
        ("Zoë 🎬", "team/Zoe ?"),
        ("Familie Grün", "team/Familie Grun"),
        ("Jørgen", "team/J?rgen"),
        ("映画祭 2026", "team/? 2026"),
        ("映画", JOB_ID),
        ("🎬🎬", JOB_ID),
        ("a\r\nBcc: x", "team/aBcc: x"),
        ("a\u202eb\u200dc", "team/abc"),
    ],
)
def test_a_subject_is_the_name_in_plain_letters_or_the_job(stem: str, shown: str) -> None:
    assert told(READY, job__stem=stem).subject == f"Video ready: {shown}"


def test_an_upload_without_a_plain_letter_refers_to_the_text() -> None:
    notice = told(INCOMPLETE, job__stem="映画")

    assert notice.subject == "Upload incomplete: see below"
    assert '"team/映画"' in notice.text


def test_a_long_name_keeps_its_end_in_the_subject() -> None:
    subject = told(READY, job__folder="deep/" * 20, job__stem="the end").subject

    assert len(subject) == MAX_SUBJECT_CHARACTERS
    assert subject.startswith("Video ready: ...")
    assert subject.endswith("deep/the end")


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=1024)


@pytest.mark.parametrize("example", [READY, FAILED, INCOMPLETE])
@given(stem=NAMES, folder=NAMES)
def test_sns_takes_the_subject_and_the_text_whatever_the_name(
    example: str, stem: str, folder: str
) -> None:
    subject, text = told(example, job__stem=stem, job__folder=folder)

    assert subject.isascii()
    assert subject.isprintable()
    assert subject[0].isalpha()
    assert len(subject) < 100
    assert all(one.isprintable() or one == "\n" for one in text)
    assert len(text.splitlines()) == len(told(example).text.splitlines())
    assert len(text.encode()) <= MAX_TEXT_BYTES


@given(words=st.text(st.characters(exclude_categories=["Cs"]), max_size=2000))
def test_nobodys_words_look_like_lines_of_ours(words: str) -> None:
    text = told(FAILED, error__message=f"It failed. {words}").text

    assert len(text.splitlines()) == len(told(FAILED).text.splitlines())
    assert not any(unicodedata.category(one) in ("Cf", "Cc") for one in text if one != "\n")


def test_the_largest_event_fits_into_a_message() -> None:
    key = "\U0001f3ac" * (MAX_KEY_BYTES // 4)
    hidden = "\u202e" * (MAX_KEY_BYTES // 3)
    uploads = [EXAMPLES[INCOMPLETE]["detail"]["uploads"][0] | {"key": hidden}] * 200
    reason = Reason(file=hidden, rule="r" * 400, found="f" * 400, cure="c" * 400).model_dump()

    for notice in (
        told(INCOMPLETE, uploads=uploads, error_file__key=key),
        told(FAILED, error__reasons=[reason] * 200, error_file__key=key),
        told(READY, ignored=[hidden] * 1000, changes=["x" * 1000] * 1000, video__key=key),
    ):
        assert len(notice.text.encode()) <= MAX_TEXT_BYTES
        assert notice.text.endswith("\n")
        assert re.search(r"^- and \d+ more$", notice.text, re.MULTILINE)


# Secrets


@pytest.mark.parametrize("example", [READY, FAILED, "render-failed", INCOMPLETE])
def test_a_notice_has_no_json_and_nothing_of_the_provider_but_its_words(example: str) -> None:
    """Prompts, labels, request ids and digests are for programs: the event has them."""
    detail = EXAMPLES[example]["detail"] | {"execution": ""}
    text = told(example).text.replace(detail.get("error", {}).get("message", "-"), "")

    assert not re.search(r'[{}\[\]]|":', text)
    for secret in (
        "X-Amz-",
        "Signature",
        "customer",
        "4711",
        (detail.get("render") or {}).get("request_id", "no request"),
        (detail.get("video") or {}).get("sha256", "no digest"),
    ):
        assert secret not in text
