"""Intake: which uploads start a job, and what is announced of those that do not."""

import dataclasses
import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from dropreel.inbox.messages import (
    MessageUnreadable,
    SeenUpload,
    Sweep,
    SweepPosition,
    UploadOutsideInbox,
    key_in,
    message_in,
)
from dropreel.inbox.pairing import DEFAULTS_PREFIXES
from dropreel.inbox.pending_job import MAX_IGNORED
from dropreel.model.events import OlderVideo, StoredFile, UploadIncomplete
from dropreel.model.job import Role
from dropreel.model.metrics import Metric
from tests.support.intake_fakes import UPLOADS, VIDEOS, Parsed, Step, World, cases

EVENT = Path(__file__).parents[3] / "events/samples/object_created.json"


@pytest.fixture
def world() -> World:
    return World()


# Starting


@cases(
    {
        "picture first": (["team/a.png", 1, "team/a.mp3"], ["1 start team/a.png@1 team/a.mp3@2"]),
        "voice first": (["team/a.mp3", 1, "team/a.png"], ["1 start team/a.png@2 team/a.mp3@1"]),
        "a late event starts nothing": (
            ["a.png", "a.mp3", "=v2", "=v1"],
            ["0 start a.png@1 a.mp3@2"],
        ),
        "a corrected file makes a new job": (
            ["a.png", "a.mp3", "a.png"],
            ["0 start a.png@1 a.mp3@2", "0 start a.png@3 a.mp3@2"],
        ),
        "the event of a replaced upload starts nothing": (
            ["?a.png", "?a.mp3", "?a.png", "=v1", 1, "=v3"],
            ["1 start a.png@3 a.mp3@2"],
        ),
        "an empty file is on its way": (
            [("a.png", b""), "a.mp3", 1, "a.png"],
            ["1 start a.png@3 a.mp3@2"],
        ),
        "an empty file may never arrive": (
            ["?a.png", ("a.mp3", b"")],
            ["60 incomplete a.png@1 a.mp3@2"],
        ),
        "a stranger beside a finished pair starts nothing": (
            ["a.png", "a.mp3", "a.docx"],
            ["0 start a.png@1 a.mp3@2"],
        ),
        "half a pair waits for an hour": (["a.png"], ["60 incomplete a.png@1"]),
        "the other half in time ends the wait": (
            ["a.png", 59, "a.mp3"],
            ["59 start a.png@1 a.mp3@2"],
        ),
        "a newer upload waits anew": (["a.png", 50, "a.png"], ["110 incomplete a.png@2"]),
        "a newer upload is told of again": (
            ["a.png", 61, "a.png"],
            ["60 incomplete a.png@1", "121 incomplete a.png@2"],
        ),
        "an upload that is deleted later is not told of": (["a.png", "-a.png"], []),
        "half of a started pair may be deleted": (
            ["a.png", "a.mp3", "-a.mp3"],
            ["0 start a.png@1 a.mp3@2"],
        ),
        "half a pair is told of once": (
            ["a.png", "=v1", "=v1", 120, "=v1"],
            ["60 incomplete a.png@1"],
        ),
        "what waits together is told of together": (
            ["a.png", 10, "a.docx"],
            ["60 incomplete a.png@1 a.docx@2"],
        ),
    }
)
def test_pair_starts_once_and_half_a_pair_is_announced_once(
    world: World, steps: list[Step], log: list[str]
) -> None:
    world.play(*steps, 120)

    assert world.log == log
    assert not world.messages


@cases(
    {
        "two pictures": (["?a.jpg", "?a.mp3", "a.png"], ["0 start a.jpg@1 a.png@3 a.mp3@2"]),
        "two pictures and no voice": (["?a.jpg", "a.png"], ["0 start a.jpg@1 a.png@2"]),
        "two voices": (["?a.mp3", "a.wav"], ["0 start a.mp3@1 a.wav@2"]),
        "a stranger": (["?a.png", "a.mp3", "a.docx"], ["0 start a.png@1 a.mp3@2"]),
        "deleted": (["?a.png", "-a.png", "=v1"], []),
        "no JSON": ([("a.json", "{")], ["0 start !inbox/a.json a.json@1"]),
        "unknown option": ([("a.json", {"sed": 1})], ["0 start !inbox/a.json a.json@1"]),
        "too long": ([("a.json", "x" * 70_000)], ["0 start !inbox/a.json a.json@1"]),
        "no text": ([("a.txt", b"\xff")], ["0 start !inbox/a.txt a.txt@1"]),
        "empty": ([("a.txt", " ")], ["0 start !inbox/a.txt a.txt@1"]),
    }
)
def test_what_no_upload_can_mend_is_not_waited_for(
    world: World, steps: list[Step], log: list[str]
) -> None:
    world.play(*steps)

    assert world.log == log
    assert not world.messages


@pytest.mark.parametrize(
    "key", ["inbox/team/", "inbox/.DS_Store", "inbox/._anna.png", "inbox/Thumbs.db", "other/a.png"]
)
def test_litter_is_ignored(world: World, key: str) -> None:
    world.drop_and_tell(key)

    assert not world.jobs
    assert not world.messages
    assert not world.listed_prefixes


def test_look_lists_only_what_shares_the_stem(world: World) -> None:
    for number in range(50):
        world.drop(f"inbox/team/other{number}.png")

    world.drop_and_tell("inbox/team/anna.png")

    assert world.listed_prefixes == [
        "inbox/team/anna.",
        *(f"inbox/team/{prefix}" for prefix in DEFAULTS_PREFIXES),
        *(f"inbox/{prefix}" for prefix in DEFAULTS_PREFIXES),
    ]


def test_event_does_not_ask_the_videos_bucket(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(World, "text")

    world.drop_and_tell("inbox/anna.png", "inbox/anna.mp3")

    assert world.stems == ["anna"]


# What changes afterwards


@pytest.mark.parametrize("change", ["defaults", "face", "parameter", "deleted"])
def test_later_change_starts_no_second_job_of_the_same_uploads(world: World, change: str) -> None:
    world.play(("_defaults.json", {"image": "face.png"}), "face.png")
    world.play("?anna.mp3", ("?anna.txt", "hi"), "=v3")

    if change == "defaults":
        world.play(("_defaults.json", {"image": "face.png", "seed": 7}))
    elif change == "face":
        world.play("face.png")
    elif change == "parameter":
        world.intake = dataclasses.replace(world.intake, model="wan-2.6-flash-image-to-video")
    else:
        del world.uploads["inbox/anna.txt"]
    world.play("=v3", "=v4", "=v3", "=v4", 120)

    assert world.stems == ["anna"]
    assert not world.announced


@pytest.mark.parametrize("lost", ["start", "note"])
def test_first_claim_decides_after_a_crash(world: World, lost: str) -> None:
    seen = [world.drop("inbox/anna.png"), world.drop("inbox/anna.mp3")]
    with world.crash_at(lost):
        world.tell(seen[0])
    world.play(("_defaults.json", {"seed": 7}))

    world.tell(*seen)

    assert world.job.options == {}
    assert world.pinned == [world.noted]
    assert not world.used


def test_crash_between_two_notes_announces_nothing_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: Parsed = {"image": "faces/a.png", "audio": "faces/b.mp3"}
    world.play("faces/a.png", "anna.txt", ("?anna.json", said), "faces/b.mp3")
    note, room = world.note, iter([True])

    def crash(job_id: str, bucket: str, key: str, version_id: str) -> None:
        next(room)
        note(job_id, bucket, key, version_id)

    with monkeypatch.context() as crashing:
        crashing.setattr(world, "note", crash)
        with pytest.raises(StopIteration):
            world.play("=v3")

    world.play("=v3", 120)

    assert len(world.jobs) == 1
    assert not world.announced


# Waiting in vain


@pytest.mark.parametrize(
    ("steps", "missing", "message"),
    [
        (
            ["team/anna.png"],
            (Role.AUDIO,),
            "anna.png waited 60 minutes in inbox/team/ for a recording of the same name. "
            "Drop anna.mp3 or anna.wav into the same folder.",
        ),
        (
            [("team/anna.json", {"model": "wan-2.2-image-to-video"}), "team/anna.png"],
            (Role.PROMPT,),
            "anna.png, anna.json waited 60 minutes in inbox/team/ for a prompt of the same name. "
            "Drop anna.txt into the same folder.",
        ),
        (
            ["team/anna.mp3", ("team/anna.json", {"image": "../faces/a.png"})],
            (Role.IMAGE,),
            "anna.mp3, anna.json waited 60 minutes in inbox/team/ for inbox/faces/a.png. "
            "Drop inbox/faces/a.png first. Then drop anna.json again.",
        ),
        (
            ["team/anna.docx"],
            (Role.IMAGE, Role.AUDIO),
            "anna.docx waited 60 minutes in inbox/team/ for a picture and a recording of the same "
            "name. Dropreel cannot use anna.docx: it knows no picture or recording with this "
            "ending. "
            "Drop anna.png or anna.jpg, and anna.mp3 or anna.wav into the same folder.",
        ),
        (
            ["team/anna"],
            (Role.IMAGE, Role.AUDIO),
            "Dropreel cannot use anna: it knows no picture or recording with this ending",
        ),
    ],
    ids=["no voice", "no prompt", "no named file", "unknown ending", "no ending"],
)
def test_one_event_and_a_file_say_what_an_upload_misses(
    world: World, steps: list[Step], missing: tuple[Role, ...], message: str
) -> None:
    world.play(*steps, 59)
    assert not world.announced

    world.play(120)

    (incomplete,) = world.announced
    assert (incomplete.job.folder, incomplete.job.stem) == ("team/", "anna")
    assert {(upload.key, upload.version_id) for upload in incomplete.uploads} == {
        (one.key, one.version_id) for one in world.seen.values()
    }
    assert (incomplete.missing, incomplete.waited_minutes) == (missing, 60)
    if message.endswith("."):
        assert incomplete.message == message
    assert message in incomplete.message
    written = world.files["team/anna.error.json"]
    assert UploadIncomplete.model_validate_json(written) == incomplete
    assert incomplete.error_file == StoredFile(bucket=VIDEOS, key="team/anna.error.json")
    assert incomplete.ended_at == world.begun + timedelta(minutes=60)
    assert not world.messages


def test_incomplete_upload_has_the_labels_of_its_job(world: World) -> None:
    world.play(("anna.json", {"labels": {"customer": "4711"}}), "anna.png", 61)

    assert {"customer": "4711"} in [told.job.labels for told in world.announced]


@pytest.mark.parametrize("is_there", [True, False])
def test_incomplete_upload_says_whether_an_older_video_has_the_name(
    world: World, is_there: bool
) -> None:
    older = OlderVideo(bucket=VIDEOS, key="team/anna.mp4", version_id="w1")
    world.files["team/anna.json"] = json.dumps({"video": older.model_dump()})
    if is_there:
        world.files["team/anna.mp4"] = ""

    world.play("team/anna.png", 61)

    (incomplete,) = world.announced
    assert incomplete.older_video == (older if is_there else None)


def test_wait_looks_soon_at_first_and_costs_few_messages(world: World) -> None:
    world.drop_and_tell("inbox/anna.png")
    begun = world.time

    looked = []
    while world.messages:
        ((due, _),) = world.messages
        looked.append((due - begun).total_seconds())
        world.pass_time(minutes=(due - world.time).total_seconds() / 60)

    assert looked[:4] == [15, 30, 60, 120]
    assert looked[-1] == 3600
    assert len(looked) <= 10
    assert max(later - earlier for earlier, later in itertools.pairwise(looked)) <= 900


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (1, "1 minute"),
        (34.6, "35 minutes"),
        (119, "119 minutes"),
        (180, "3 hours"),
        (9e3, "6 days"),
    ],
)
def test_wait_is_announced_as_a_person_says_it(minutes: float, words: str) -> None:
    world = World(incomplete_after=timedelta(minutes=minutes))
    world.drop_and_tell("inbox/anna.png")

    world.pass_time(minutes=minutes)

    assert f"anna.png waited {words} in inbox/" in world.announced[0].message


def test_wait_may_be_a_fraction_of_a_minute() -> None:
    world = World(incomplete_after=timedelta(minutes=0.05))
    world.drop_and_tell("inbox/anna.png")

    world.pass_time(minutes=0.05)

    assert len(world.announced) == 1


def test_event_without_a_version_is_about_the_current_one(world: World) -> None:
    world.tell(world.drop("inbox/anna.png").model_copy(update={"version_id": None}))
    world.drop("inbox/anna.png")

    world.pass_time(minutes=120)

    assert not world.announced  # the newer version's own event is still to come


def test_crowd_of_strangers_gives_one_event_of_bounded_size(world: World) -> None:
    world.drop_and_tell(*(f"inbox/shot.{number:04}" for number in range(2 * MAX_IGNORED)))

    world.pass_time(minutes=61)

    (incomplete,) = world.announced
    assert len(incomplete.uploads) == MAX_IGNORED


def test_foreign_error_file_silences_no_event(world: World) -> None:
    world.files["anna.error.json"] = '{"uploads": "all of them"}'
    world.drop_and_tell("inbox/anna.png")

    world.pass_time(minutes=61)

    assert len(world.announced) == 1


def test_an_incomplete_upload_is_measured(world: World) -> None:
    seen = world.drop("inbox/anna.png")
    world.time += timedelta(minutes=61)

    world.tell(seen)

    assert world.meter.recorded == [((None, None), {Metric.UPLOADS_INCOMPLETE: 1})]


def test_crash_after_the_event_repeats_the_event(world: World) -> None:
    seen = world.drop("inbox/anna.png")
    world.time += timedelta(minutes=61)
    with world.crash_at("put_json"):
        world.tell(seen)

    world.tell(seen)

    assert world.announced == [world.announced[0]] * 2
    assert "anna.error.json" in world.files


# Messages


UNVERSIONED = json.loads(EVENT.read_text())
del UNVERSIONED["detail"]["object"]["version-id"]
CREATED = SeenUpload(
    bucket="dropreel-uploads",
    key="inbox/team/anna.png",
    version_id="IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
    first_seen=datetime(2026, 11, 12, 14, 22, 9, tzinfo=UTC),
)
REMINDER = World().drop("inbox/a b+c%20d'\"😀.png")
GOING_ON = Sweep(sweep=SweepPosition(bucket=UPLOADS, after="inbox/a b+c%20d'\"😀"))


@pytest.mark.parametrize(
    ("message", "read"),
    [
        (EVENT.read_text(), CREATED),
        (json.dumps(UNVERSIONED), CREATED.model_copy(update={"version_id": None})),
        (REMINDER.model_dump_json(), REMINDER),
        (REMINDER.model_dump_json(exclude={"swept"}), REMINDER),
        ('{"sweep": {}}', Sweep(sweep=SweepPosition())),
        (GOING_ON.model_dump_json(), GOING_ON),
    ],
    ids=["event", "no version", "reminder", "reminder of an earlier version", "sweep", "going on"],
)
def test_message_is_read(message: str, read: BaseModel) -> None:
    assert message_in(message) == read


def test_upload_that_waited_when_the_prefix_was_changed_is_an_error() -> None:
    """So it becomes a dead letter. S3's own event from elsewhere is ignored."""
    waiting = CREATED.model_copy(update={"key": "media/in/anna.png"})

    with pytest.raises(UploadOutsideInbox, match=r"media/in/anna\.png .* inbox/"):
        message_in(waiting.model_dump_json())

    assert message_in(EVENT.read_text().replace(CREATED.key, waiting.key)) == waiting


@pytest.mark.parametrize("message", ["", "{}", "no JSON", '{"source": "aws.s3"}', "[]"])
def test_message_of_no_kind_is_an_error_without_its_words(message: str) -> None:
    with pytest.raises(MessageUnreadable) as unreadable:
        message_in(message)

    assert str(unreadable.value) == "This message is no upload. It becomes a dead letter."
    assert unreadable.value.__suppress_context__


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (EVENT.read_text(), CREATED.key),
        (CREATED.model_dump_json(), CREATED.key),
        ('{"source": "aws.s3", "detail": {"object": {"key": "inbox/a.png"}}}', "inbox/a.png"),
        ('{"key": "inbox/a.png"}', "inbox/a.png"),
        ('{"key": 7, "detail": {"object": {"key": ["a"]}}}', None),
        ('{"detail": "inbox/a.png"}', None),
        ('["key"]', None),
        ('{"key": "a', None),
        ("\ud800", None),
        ("", None),
    ],
)
def test_the_key_of_a_message_is_found_although_it_cannot_be_read(
    message: str, key: str | None
) -> None:
    assert key_in(message) == key


@pytest.mark.parametrize("late", ["anna.cr2", "anna.pdf", "anna.docx"])
def test_an_unusable_file_next_to_a_job_starts_nothing(late: str) -> None:
    world = World()
    world.play("anna.jpg", "anna.mp3", 200 * 24 * 60, late)

    assert world.starts == 1
    assert (f"inbox/{late}", world.uploads[f"inbox/{late}"].version_id) in world.answered
