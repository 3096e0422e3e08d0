"""Intake against a bucket, a queue and a clock in memory."""

import dataclasses
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dropreel.inbox import job_file as wish
from dropreel.inbox.intake import LISTED_AT_MOST, Intake
from dropreel.inbox.messages import Bookmark, Sighting, Sweep, message_in
from dropreel.inbox.pairing import name_of
from dropreel.inbox.sweep import InboxSweep
from dropreel.model.events import DetailType, UploadIncomplete
from dropreel.model.job import Input, Job, Role
from dropreel.model.uploads import ObjectVersion, Page, WrittenObject

UPLOADS = "uploads"
VIDEOS = "videos"
EVENT = Path(__file__).parents[2] / "events/samples/object_created.json"


class World:
    """All that intake touches, and the people who drop files."""

    def __init__(self, incomplete_after: timedelta = timedelta(minutes=60)) -> None:
        self.time = datetime(2026, 11, 12, 14, 0, tzinfo=UTC)
        self.uploads: dict[str, ObjectVersion] = {}
        self.bodies: dict[str, bytes] = {}
        self.files: dict[str, str] = {}
        self.written_at: dict[str, datetime] = {}
        self.jobs: dict[str, Job] = {}
        self.starts = 0
        self.claims: dict[str, Job] = {}
        self.noted: set[tuple[str, str]] = set()
        self.answered: set[tuple[str, str]] = set()
        self.used: set[tuple[str, str]] = set()
        self.drops: list[str] = []
        self.messages: list[tuple[datetime, str]] = []
        self.announced: list[UploadIncomplete] = []
        self.listed_prefixes: list[str] = []
        self._versions = itertools.count(1)
        self.intake = Intake(
            storage=self,
            executions=self,
            used=self,
            queue=self,
            bus=self,
            now=lambda: self.time,
            model="wan-2.2-speech-to-video",
            video_bucket=VIDEOS,
            incomplete_after=incomplete_after,
            shared_folders=("faces/", "voices/"),
        )
        self.inbox_sweep = InboxSweep(inbox=self, notes=self, queue=self, upload_bucket=UPLOADS)

    # What people do

    def drop(self, key: str, body: bytes | str = b"x") -> Sighting:
        """Upload a file and return what S3 will say about it."""
        version_id = f"v{next(self._versions)}"
        content = body.encode() if isinstance(body, str) else body
        self.bodies[version_id] = content
        self.uploads[key] = ObjectVersion(key, version_id, len(content))
        self.written_at[version_id] = self.time
        return Sighting(bucket=UPLOADS, key=key, version_id=version_id, first_seen=self.time)

    def drop_and_tell(self, *keys: str) -> None:
        for seen in [self.drop(key) for key in keys]:
            self.intake.take_in(seen)

    def say_and_tell(self, key: str, **said: object) -> None:
        self.intake.take_in(self.drop(key, json.dumps(said)))

    def pass_time(self, minutes: float) -> None:
        """Let the queue hand out what comes due meanwhile."""
        until = self.time + timedelta(minutes=minutes)
        while self.messages and min(self.messages)[0] <= until:
            due, message = min(self.messages)
            self.messages.remove((due, message))
            self.time = due
            self.deliver(message)
        self.time = until

    def deliver(self, message: str) -> None:
        told = message_in(message)
        if isinstance(told, Sweep):
            self.inbox_sweep.go_on(told)
        else:
            self.intake.take_in(told)

    def sweep(self) -> None:
        """All of it, and what follows from it within ten minutes."""
        self.send(Sweep(sweep=Bookmark()), 1)
        self.pass_time(minutes=10)

    # What intake asks for

    def current_versions(self, bucket: str, prefix: str) -> Iterator[ObjectVersion]:
        assert bucket == UPLOADS
        self.listed_prefixes.append(prefix)
        yield from (self.uploads[key] for key in sorted(self.uploads) if key.startswith(prefix))

    def page(self, bucket: str, prefix: str, after: str | None) -> Page:
        assert bucket == UPLOADS
        keys = sorted(key for key in self.uploads if key.startswith(prefix) and key > (after or ""))
        objects = tuple(
            WrittenObject(
                upload.key,
                upload.version_id,
                upload.size_bytes,
                self.written_at[upload.version_id],
            )
            for upload in (self.uploads[key] for key in keys[:3])
        )
        return Page(objects, keys[2] if len(keys) > 3 else None)

    def read(self, bucket: str, pinned: Input) -> bytes:
        assert bucket == UPLOADS
        assert pinned.key.endswith((".json", ".txt"))
        return self.bodies[pinned.version_id]

    def text(self, bucket: str, key: str) -> str | None:
        assert bucket == VIDEOS
        return self.files.get(key)

    def put_json(self, bucket: str, key: str, document: str) -> None:
        assert bucket == VIDEOS
        self.files[key] = document

    def start(self, job: Job) -> None:
        assert job.id in self.drops, "started before its drop was noted"
        self.starts += 1
        there = self.jobs.setdefault(job.id, job)
        assert there == job.model_copy(update={"dropped_at": there.dropped_at})

    def claim(self, fingerprint: str, job: Job) -> Job:
        return self.claims.setdefault(fingerprint, job)

    def is_answered(self, bucket: str, key: str, version_id: str) -> bool:
        return (key, version_id) in self.noted | self.answered

    def unanswered(
        self, bucket: str, pins: Iterable[tuple[str, str]]
    ) -> frozenset[tuple[str, str]]:
        return frozenset(pins) - self.noted - self.answered

    def note_answered(self, bucket: str, key: str, version_id: str) -> None:
        self.answered.add((key, version_id))

    def note(self, job_id: str, bucket: str, key: str, version_id: str) -> None:
        assert job_id in self.jobs, "noted before it was started"
        self.noted.add((key, version_id))

    def note_used(self, bucket: str, key: str, version_id: str) -> None:
        self.used.add((key, version_id))

    def was_used(self, bucket: str, key: str, version_id: str) -> bool:
        return (key, version_id) in self.used

    def note_drop(self, job: Job) -> None:
        assert job.dropped_at is not None
        self.drops.append(job.id)

    def send(self, message: BaseModel, delay_seconds: int) -> None:
        assert 0 < delay_seconds <= 900
        due = self.time + timedelta(seconds=delay_seconds)
        self.messages.append((due, message.model_dump_json()))

    def announce(self, detail_type: DetailType, detail: BaseModel) -> None:
        assert detail_type is DetailType.UPLOAD_INCOMPLETE
        assert isinstance(detail, UploadIncomplete)
        self.announced.append(detail)

    # What the tests look at

    @property
    def pinned(self) -> list[set[tuple[str, str]]]:
        return [{(one.key, one.version_id) for one in job.inputs} for job in self.jobs.values()]


@pytest.fixture
def world() -> World:
    return World()


# Starting


@pytest.mark.parametrize("order", list(itertools.permutations(["anna.png", "anna.mp3"])))
def test_both_orders_of_upload_start_one_job(world: World, order: tuple[str, str]) -> None:
    world.drop_and_tell(f"inbox/team/{order[0]}")
    assert not world.jobs

    world.drop_and_tell(f"inbox/team/{order[1]}")

    assert world.pinned == [{(f"inbox/team/{order[0]}", "v1"), (f"inbox/team/{order[1]}", "v2")}]


def test_a_late_event_starts_nothing_new(world: World) -> None:
    seen = [world.drop("inbox/anna.png"), world.drop("inbox/anna.mp3")]

    for one in (*seen, *seen, *reversed(seen)):
        world.intake.take_in(one)

    assert len(world.jobs) == 1


def test_a_corrected_file_makes_a_new_job(world: World) -> None:
    world.drop_and_tell("inbox/anna.png", "inbox/anna.mp3")

    world.drop_and_tell("inbox/anna.png")

    assert world.pinned == [
        {("inbox/anna.png", "v1"), ("inbox/anna.mp3", "v2")},
        {("inbox/anna.png", "v3"), ("inbox/anna.mp3", "v2")},
    ]


def test_an_event_of_a_replaced_upload_leaves_it_to_the_newer_ones(world: World) -> None:
    replaced = world.drop("inbox/anna.png")
    world.drop("inbox/anna.mp3")
    newer = world.drop("inbox/anna.png")

    world.intake.take_in(replaced)
    assert not world.jobs

    world.intake.take_in(newer)
    assert world.pinned == [{("inbox/anna.png", "v3"), ("inbox/anna.mp3", "v2")}]


@pytest.mark.parametrize(
    "files",
    [
        ["anna.png", "anna.jpg", "anna.mp3"],
        ["anna.png", "anna.jpg"],
        ["anna.wav", "anna.mp3"],
    ],
)
def test_two_of_a_role_go_to_validate_at_once_to_be_refused_by_name(
    world: World, files: list[str]
) -> None:
    keys = {f"inbox/{file}" for file in files}
    for seen in [world.drop(key) for key in keys]:
        world.intake.take_in(seen)

    assert [{key for key, _ in pinned} for pinned in world.pinned] == [keys]
    assert not world.messages


def test_an_empty_file_is_an_upload(world: World) -> None:
    for seen in [world.drop("inbox/anna.png", b""), world.drop("inbox/anna.mp3")]:
        world.intake.take_in(seen)

    assert len(world.jobs) == 1


@pytest.mark.parametrize(
    "key", ["inbox/team/", "inbox/.DS_Store", "inbox/._anna.png", "inbox/Thumbs.db", "other/a.png"]
)
def test_litter_is_ignored(world: World, key: str) -> None:
    world.drop_and_tell(key)

    assert not world.jobs
    assert not world.messages
    assert not world.listed_prefixes


def test_a_deleted_upload_is_not_waited_for(world: World) -> None:
    seen = world.drop("inbox/anna.png")
    del world.uploads["inbox/anna.png"]

    world.intake.take_in(seen)

    assert not world.messages


def test_a_stranger_beside_a_finished_pair_does_not_start_it_again(world: World) -> None:
    world.drop_and_tell("inbox/anna.png", "inbox/anna.mp3")
    world.jobs.clear()  # Step Functions forgets a name after 90 days

    world.drop_and_tell("inbox/anna.psd")

    assert not world.jobs
    assert not world.messages


def test_a_look_lists_only_what_shares_the_stem(world: World) -> None:
    for number in range(50):
        world.drop(f"inbox/team/other{number}.png")

    world.drop_and_tell("inbox/team/anna.png")

    assert world.listed_prefixes == [
        "inbox/team/anna.",
        "inbox/team/_defaults.json",
        "inbox/_defaults.json",
    ]


# Waiting in vain


def test_half_a_pair_ends_in_one_event_that_says_what_is_missing(world: World) -> None:
    world.drop_and_tell("inbox/team/anna.png")

    world.pass_time(minutes=59)
    assert not world.announced

    world.pass_time(minutes=120)
    (incomplete,) = world.announced
    assert (incomplete.folder, incomplete.stem) == ("team/", "anna")
    assert [(upload.key, upload.version_id) for upload in incomplete.uploads] == [
        ("inbox/team/anna.png", "v1")
    ]
    assert incomplete.missing == (Role.AUDIO,)
    assert incomplete.waited_minutes == 60
    assert incomplete.message == (
        "anna.png waited 60 minutes in inbox/team/ for a voice of the same name. "
        "Drop anna.mp3 or anna.wav into the same folder."
    )
    assert not world.messages


def test_whoever_dropped_half_a_pair_finds_a_file_about_it(world: World) -> None:
    world.drop_and_tell("inbox/team/anna.mp3")

    world.pass_time(minutes=61)

    written = UploadIncomplete.model_validate_json(world.files["team/anna.error.json"])
    assert [written] == world.announced


def test_a_wait_looks_soon_at_first_and_costs_few_messages(world: World) -> None:
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


def test_the_wait_may_be_a_fraction_of_a_minute() -> None:
    world = World(incomplete_after=timedelta(minutes=0.05))
    world.drop_and_tell("inbox/anna.png")

    world.pass_time(minutes=0.05)

    assert [incomplete.stem for incomplete in world.announced] == ["anna"]


def test_the_other_half_in_time_ends_the_wait(world: World) -> None:
    world.drop_and_tell("inbox/anna.png")
    world.pass_time(minutes=59)
    world.drop_and_tell("inbox/anna.mp3")

    world.pass_time(minutes=120)

    assert len(world.jobs) == 1
    assert not world.announced
    assert not world.messages


def test_a_newer_upload_of_the_key_begins_the_wait_anew(world: World) -> None:
    world.drop_and_tell("inbox/anna.png")
    world.pass_time(minutes=50)
    world.drop_and_tell("inbox/anna.png")

    world.pass_time(minutes=59)
    assert not world.announced

    world.pass_time(minutes=60)
    assert [[one.version_id for one in told.uploads] for told in world.announced] == [["v2"]]


def test_an_upload_that_was_deleted_is_not_announced(world: World) -> None:
    world.drop_and_tell("inbox/anna.png")
    del world.uploads["inbox/anna.png"]

    world.pass_time(minutes=120)

    assert not world.announced
    assert not world.files


def test_an_incomplete_upload_is_announced_once_though_its_event_repeats(world: World) -> None:
    seen = world.drop("inbox/anna.png")
    for _ in range(3):
        world.intake.take_in(seen)
    world.pass_time(minutes=120)

    world.intake.take_in(seen)

    assert len(world.announced) == 1


def test_an_event_that_does_not_say_the_version_is_about_the_current_one(world: World) -> None:
    seen = world.drop("inbox/anna.png").model_copy(update={"version_id": None})
    world.intake.take_in(seen)
    world.drop("inbox/anna.png")

    world.pass_time(minutes=120)

    assert not world.announced  # the newer version's own event is still to come


@pytest.mark.parametrize("stranger", ["anna.psd", "anna"])
def test_a_file_of_unknown_ending_is_named_as_such(world: World, stranger: str) -> None:
    world.drop_and_tell(f"inbox/{stranger}")

    world.pass_time(minutes=61)

    (incomplete,) = world.announced
    assert [upload.key for upload in incomplete.uploads] == [f"inbox/{stranger}"]
    assert incomplete.missing == (Role.IMAGE, Role.AUDIO)
    assert f"{stranger}: this ending is not one that Dropreel knows" in incomplete.message


def test_uploads_that_wait_together_are_told_of_together(world: World) -> None:
    world.drop_and_tell("inbox/anna.png")
    world.pass_time(minutes=10)
    world.drop_and_tell("inbox/anna.psd")

    world.pass_time(minutes=120)

    (incomplete,) = world.announced
    assert {upload.key for upload in incomplete.uploads} == {"inbox/anna.png", "inbox/anna.psd"}


def test_a_crowd_of_strangers_gives_one_event_of_bounded_size(world: World) -> None:
    world.drop_and_tell(*(f"inbox/shot.{number:04}" for number in range(2 * LISTED_AT_MOST)))

    world.pass_time(minutes=61)

    (incomplete,) = world.announced
    assert len(incomplete.uploads) == LISTED_AT_MOST


def test_a_new_upload_after_the_event_is_a_new_event(world: World) -> None:
    world.drop_and_tell("inbox/anna.png")
    world.pass_time(minutes=61)
    world.drop_and_tell("inbox/anna.png")

    world.pass_time(minutes=61)

    assert len(world.announced) == 2


def test_an_upload_whose_other_half_is_deleted_after_the_start_is_not_incomplete(
    world: World,
) -> None:
    world.drop_and_tell("inbox/anna.png")
    world.drop_and_tell("inbox/anna.mp3")
    del world.uploads["inbox/anna.mp3"]

    world.pass_time(minutes=120)

    assert len(world.jobs) == 1
    assert not world.announced


def test_somebodys_own_file_in_the_place_of_the_error_file_says_nothing(world: World) -> None:
    world.files["anna.error.json"] = '{"uploads": "all of them"}'
    world.drop_and_tell("inbox/anna.png")

    world.pass_time(minutes=61)

    assert len(world.announced) == 1


def test_a_crash_after_the_event_repeats_it_rather_than_losing_the_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = world.drop("inbox/anna.png")
    world.time += timedelta(minutes=61)
    with monkeypatch.context() as crash:
        crash.delattr(World, "put_json")
        with pytest.raises(AttributeError):
            world.intake.take_in(seen)

    world.intake.take_in(seen)

    assert world.announced == [world.announced[0]] * 2
    assert "anna.error.json" in world.files


# What a job says


def test_a_job_file_beats_the_nearest_defaults_which_beat_farther_ones(world: World) -> None:
    said = {"model": "wan-2.6-flash-image-to-video", "prompt": "far", "seed": 1, "duration": 5}
    world.say_and_tell("inbox/_defaults.json", **said)
    world.say_and_tell("inbox/team/_defaults.json", prompt="near", seed=2, resolution="720p")
    world.say_and_tell("inbox/other/_defaults.json", prompt="elsewhere")
    world.say_and_tell("inbox/team/anna.json", seed=3)
    world.drop_and_tell("inbox/team/anna.png")

    (job,) = world.jobs.values()
    assert (job.model, job.prompt) == ("wan-2.6-flash-image-to-video", "near")
    assert job.options == {"seed": 3, "duration": 5, "resolution": "720p"}
    assert [given.key for given in job.of(Role.DEFAULTS)] == [
        "inbox/team/_defaults.json",
        "inbox/_defaults.json",
    ]


def test_a_model_that_needs_a_prompt_waits_for_one(world: World) -> None:
    world.say_and_tell("inbox/anna.json", model="wan-2.2-image-to-video")
    world.drop_and_tell("inbox/anna.png")
    assert not world.jobs

    world.intake.take_in(world.drop("inbox/anna.txt", "She smiles."))

    (job,) = world.jobs.values()
    assert job.prompt == "She smiles."


def test_a_prompt_starts_at_once_when_the_model_needs_no_voice(world: World) -> None:
    world.say_and_tell("inbox/anna.json", model="wan-2.6-flash-image-to-video", prompt="hi")
    world.drop_and_tell("inbox/anna.png")

    assert len(world.jobs) == 1


def test_a_missing_prompt_is_announced(world: World) -> None:
    world.say_and_tell("inbox/anna.json", model="wan-2.2-image-to-video")
    world.drop_and_tell("inbox/anna.png")

    world.pass_time(minutes=61)

    (incomplete,) = world.announced
    assert incomplete.missing == (Role.PROMPT,)
    assert incomplete.message == (
        "anna.png, anna.json waited 60 minutes in inbox/ for a prompt of the same name. "
        "Drop anna.txt into the same folder."
    )


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("inbox/anna.json", "{"),
        ("inbox/anna.json", '{"sed": 1}'),
        ("inbox/anna.json", "x" * 70_000),
        ("inbox/anna.txt", b"\xff"),
        ("inbox/anna.txt", ""),
    ],
)
def test_a_file_that_says_nonsense_goes_to_validate_at_once(
    world: World, key: str, body: str | bytes
) -> None:
    world.intake.take_in(world.drop(key, body))

    (job,) = world.jobs.values()
    assert [problem.file for problem in job.problems] == [key]
    assert not world.messages


def test_a_mended_job_file_starts_the_job_that_was_meant(world: World) -> None:
    world.drop_and_tell("inbox/anna.png", "inbox/anna.mp3")
    world.jobs.clear()
    world.say_and_tell("inbox/anna.json", sed=1)
    world.say_and_tell("inbox/anna.json", seed=1)

    refused, meant = world.jobs.values()
    assert refused.problems
    assert (meant.problems, meant.options) == ((), {"seed": 1})


def test_defaults_that_are_broken_are_told_of_at_once(world: World) -> None:
    world.intake.take_in(world.drop("inbox/_defaults.json", "{"))
    assert not world.jobs

    world.drop_and_tell("inbox/team/anna.png")

    (job,) = world.jobs.values()
    assert [problem.file for problem in job.problems] == ["inbox/_defaults.json"]


# Files that are named


def test_a_job_waits_for_exactly_the_files_that_it_names(world: World) -> None:
    world.say_and_tell("inbox/team/anna.json", image="../faces/a.png", audio="monday.mp3")
    world.drop_and_tell("inbox/team/monday.mp3")
    world.pass_time(minutes=5)
    assert not world.jobs

    world.drop_and_tell("inbox/faces/a.png")
    world.pass_time(minutes=10)

    (job,) = world.jobs.values()
    assert [given.key for given in job.inputs] == [
        "inbox/faces/a.png",
        "inbox/team/monday.mp3",
        "inbox/team/anna.json",
    ]


def test_a_file_that_another_job_used_is_not_incomplete(world: World) -> None:
    world.drop_and_tell("inbox/faces/a.png", "inbox/team/monday.mp3")
    world.say_and_tell("inbox/team/anna.json", image="../faces/a.png", audio="monday.mp3")

    world.pass_time(minutes=120)

    assert len(world.jobs) == 1
    assert not world.announced


def test_two_jobs_may_name_one_picture(world: World) -> None:
    world.drop_and_tell("inbox/faces/a.png")
    for stem in ("anna", "bert"):
        world.drop_and_tell(f"inbox/team/{stem}.mp3")
        world.say_and_tell(f"inbox/team/{stem}.json", image="../faces/a.png")

    assert sorted(job.stem for job in world.jobs.values()) == ["anna", "bert"]


def test_a_named_file_still_makes_a_job_of_its_own_name(world: World) -> None:
    world.drop_and_tell("inbox/bert.png", "inbox/anna.mp3")
    world.say_and_tell("inbox/anna.json", image="bert.png")
    world.drop_and_tell("inbox/bert.mp3")

    assert [job.stem for job in world.jobs.values()] == ["anna", "bert"]


def test_a_named_file_that_never_comes_is_announced_by_its_key(world: World) -> None:
    world.drop_and_tell("inbox/team/anna.mp3")
    world.say_and_tell("inbox/team/anna.json", image="../faces/a.png")

    world.pass_time(minutes=61)

    (incomplete,) = world.announced
    assert incomplete.missing == (Role.IMAGE,)
    assert incomplete.message == (
        "anna.mp3, anna.json waited 60 minutes in inbox/team/ for inbox/faces/a.png. "
        "Drop inbox/faces/a.png first, or name another file, "
        "then drop anna.mp3, anna.json again."
    )


# An avatar's folder


def test_every_recording_in_an_avatars_folder_becomes_a_job_with_its_face(world: World) -> None:
    world.say_and_tell("inbox/news/_defaults.json", image="face.png")
    world.drop_and_tell("inbox/news/face.png")
    world.drop_and_tell("inbox/news/monday.mp3", "inbox/news/2026/tuesday.mp3")

    assert [(job.stem, job.of(Role.IMAGE)[0].key) for job in world.jobs.values()] == [
        ("monday", "inbox/news/face.png"),
        ("tuesday", "inbox/news/face.png"),
    ]


@pytest.mark.parametrize("face", ["face.png", "../faces/a.png"])
@pytest.mark.parametrize("order", [1, -1])
def test_an_avatars_face_waits_for_nobody(world: World, face: str, order: int) -> None:
    key = "inbox/news/face.png" if face == "face.png" else "inbox/faces/a.png"
    defaults = world.drop("inbox/news/_defaults.json", json.dumps({"image": face}))

    for seen in [world.drop(key), defaults][::order]:
        world.intake.take_in(seen)
    world.pass_time(minutes=120)

    assert not world.announced
    assert not world.messages


def test_a_picture_that_is_no_face_any_more_waits_as_others_do(world: World) -> None:
    world.say_and_tell("inbox/news/_defaults.json", image="../faces/a.png")
    world.say_and_tell("inbox/news/_defaults.json", image="../faces/b.png")

    world.drop_and_tell("inbox/faces/a.png")

    assert world.messages


def test_a_face_starts_nothing_though_a_job_could_be_made_of_it(world: World) -> None:
    said = {"image": "face.png", "model": "wan-2.2-image-to-video", "prompt": "hi"}
    world.drop("inbox/news/_defaults.json", json.dumps(said))  # its own event is still to come

    world.drop_and_tell("inbox/news/face.png")

    assert not world.jobs


def test_a_recording_waits_for_its_avatars_face(world: World) -> None:
    world.say_and_tell("inbox/news/_defaults.json", image="face.png")
    world.drop_and_tell("inbox/news/monday.mp3")
    assert not world.jobs

    world.drop_and_tell("inbox/news/face.png")
    world.pass_time(minutes=1)

    assert [job.stem for job in world.jobs.values()] == ["monday"]


# What changes afterwards


@pytest.mark.parametrize("change", ["defaults", "face", "parameter", "deleted"])
def test_what_changes_elsewhere_starts_no_second_job_of_the_same_uploads(
    world: World, change: str
) -> None:
    world.say_and_tell("inbox/_defaults.json", image="face.png")
    world.drop_and_tell("inbox/face.png")
    seen = [world.drop("inbox/anna.mp3"), world.drop("inbox/anna.txt", "hi")]
    world.intake.take_in(seen[0])

    if change == "defaults":
        world.say_and_tell("inbox/_defaults.json", image="face.png", seed=7)
    elif change == "face":
        world.drop_and_tell("inbox/face.png")
    elif change == "parameter":
        world.intake = dataclasses.replace(world.intake, model="wan-2.6-flash-image-to-video")
    else:
        del world.uploads["inbox/anna.txt"]
    for one in seen * 2:
        world.intake.take_in(one)
    world.pass_time(minutes=120)

    assert len(world.jobs) == 1
    assert not world.announced


@pytest.mark.parametrize("lost", ["start", "note"])
def test_a_crash_around_the_start_starts_the_same_job_again(
    world: World, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the defaults change between the two tries: the first claim decides."""
    seen = [world.drop("inbox/anna.png"), world.drop("inbox/anna.mp3")]
    with monkeypatch.context() as crash:
        crash.delattr(World, lost)
        with pytest.raises(AttributeError):
            world.intake.take_in(seen[0])
    world.say_and_tell("inbox/_defaults.json", seed=7)

    for one in seen:
        world.intake.take_in(one)

    (job,) = world.jobs.values()
    assert job.options == {}
    assert {(given.key, given.version_id) for given in job.inputs} == world.noted
    assert not world.used


def test_a_crash_between_two_notes_leaves_nothing_that_waits_in_vain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drop_and_tell("inbox/faces/a.png")
    world.drop_and_tell("inbox/anna.txt")
    seen = world.drop("inbox/anna.json", '{"image": "faces/a.png", "audio": "faces/b.mp3"}')
    world.drop_and_tell("inbox/faces/b.mp3")
    note, room = world.note, iter([True])

    def crash(job_id: str, bucket: str, key: str, version_id: str) -> None:
        next(room)
        note(job_id, bucket, key, version_id)

    with monkeypatch.context() as crashing:
        crashing.setattr(world, "note", crash)
        with pytest.raises(StopIteration):
            world.intake.take_in(seen)

    world.intake.take_in(seen)
    world.pass_time(minutes=120)

    assert len(world.jobs) == 1
    assert not world.announced


# Any order, any repetition

FACE, VOICE = "inbox/faces/a.png", "inbox/voices/monday.mp3"
SAID = {
    "inbox/team/_defaults.json": json.dumps({"image": "../faces/a.png", "resolution": "720p"}),
    "inbox/team/anna.json": json.dumps(
        {"model": "wan-2.6-flash-image-to-video", "audio": "../voices/monday.mp3"}
    ),
    "inbox/team/anna.txt": "She smiles.",
    FACE: "picture",
    VOICE: "voice",
}


@given(st.permutations([*SAID, *SAID]), st.randoms(use_true_random=False))
def test_a_job_of_five_files_starts_once_in_whatever_order_it_is_told(
    order: list[str], chance: random.Random
) -> None:
    """A key's first place in the order drops it, the second tells of it; time passes between."""
    world = World()
    told: list[Sighting] = []
    dropped: dict[str, Sighting] = {}
    for key in order:
        if key not in dropped:
            dropped[key] = world.drop(key, SAID[key])
        else:
            told.append(dropped[key])
            world.intake.take_in(dropped[key])
        world.pass_time(minutes=chance.choice([0, 0.1, 2]))
    world.pass_time(minutes=30)
    (job,) = world.jobs.values()

    world.say_and_tell("inbox/team/_defaults.json", image="../faces/a.png", seed=7)
    for one in chance.sample(told, k=len(told)):
        world.intake.take_in(one)
    world.pass_time(minutes=120)

    assert list(world.jobs.values()) == [job]
    assert {given.key for given in job.inputs} == set(SAID)
    assert (job.prompt, job.options) == ("She smiles.", {"resolution": "720p"})
    assert not world.announced
    assert not world.messages


segments = st.text(
    st.one_of(
        st.sampled_from(" +%'\"&=?#é🎤.~"),
        st.characters(exclude_characters="/", exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=6,
).filter(lambda text: not text.startswith((".", "~$")))
bases = st.lists(segments, min_size=1, max_size=4).map("/".join)
moves = st.lists(
    st.tuples(
        st.sampled_from(["drop", "tell", "delete"]),
        st.integers(0, 2),
        st.sampled_from(["png", "mp3"]),
    ),
    max_size=25,
)


@given(
    st.lists(bases, min_size=1, max_size=3, unique=True), moves, st.randoms(use_true_random=False)
)
def test_any_order_of_events_starts_each_pair_once_and_loses_none(
    bases: list[str], moves: list[tuple[str, int, str]], chance: random.Random
) -> None:
    """Uploads, deletions and events in any order, then each event at least once more."""
    world = World()
    told: list[Sighting] = []
    pairs_seen: list[set[tuple[str, str]]] = []

    def tell(seen: Sighting) -> None:
        name = name_of(seen.key)
        assert name is not None
        both = [world.uploads.get(f"{name.base}.{ending}") for ending in ("png", "mp3")]
        pair = {(upload.key, upload.version_id) for upload in both if upload}
        current = world.uploads.get(seen.key)
        is_news = (
            current is not None
            and current.version_id == seen.version_id
            and (seen.key, seen.version_id) not in world.noted
        )
        if is_news and len(pair) == 2 and pair not in pairs_seen:
            pairs_seen.append(pair)
        world.intake.take_in(seen)

    for move, which, ending in moves:
        key = f"inbox/{bases[which % len(bases)]}.{ending}"
        if move == "drop":
            told.append(world.drop(key))
        elif move == "delete":
            world.uploads.pop(key, None)
        elif told:
            tell(chance.choice(told))
    told *= 2
    chance.shuffle(told)
    for seen in told:
        tell(seen)

    assert sorted(map(sorted, world.pinned)) == sorted(map(sorted, pairs_seen))
    assert len({job.id for job in world.jobs.values()}) == len(pairs_seen)
    for base in bases:
        left = [world.uploads.get(f"inbox/{base}.{ending}") for ending in ("png", "mp3")]
        pair = {(upload.key, upload.version_id) for upload in left if upload}
        assert len(pair) < 2 or pair in world.pinned


@given(bases, st.permutations(["png", "mp3", "mp3", "png", "mp3"]))
def test_events_of_one_pair_in_any_order_start_exactly_one_job(base: str, order: list[str]) -> None:
    world = World()
    seen = {ending: world.drop(f"inbox/{base}.{ending}") for ending in ("png", "mp3")}

    for ending in order:
        world.intake.take_in(seen[ending])
    world.pass_time(minutes=120)

    assert world.pinned == [{(f"inbox/{base}.png", "v1"), (f"inbox/{base}.mp3", "v2")}]
    assert not world.announced


# Messages


def test_the_event_of_s3_is_read() -> None:
    seen = message_in(EVENT.read_text())

    assert seen == Sighting(
        bucket="dropreel-uploads",
        key="inbox/team/anna.png",
        version_id="IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
        first_seen=datetime(2026, 11, 12, 14, 22, 9, tzinfo=UTC),
    )


def test_an_event_without_a_version_is_read() -> None:
    event = json.loads(EVENT.read_text())
    del event["detail"]["object"]["version-id"]

    seen = message_in(json.dumps(event))

    assert isinstance(seen, Sighting)
    assert seen.version_id is None


def test_the_reminder_reads_as_it_was_written() -> None:
    seen = World().drop("inbox/a b+c%20d'\"😀.png")

    assert message_in(seen.model_dump_json()) == seen


def test_the_message_of_a_sweep_is_read() -> None:
    assert message_in('{"sweep": {}}') == Sweep(sweep=Bookmark())

    going_on = Sweep(sweep=Bookmark(bucket=UPLOADS, after="inbox/a b+c%20d'\"😀"))
    assert message_in(going_on.model_dump_json()) == going_on


def test_a_reminder_of_an_earlier_version_is_read() -> None:
    seen = World().drop("inbox/anna.png")

    assert message_in(seen.model_dump_json(exclude={"swept"})) == seen


@pytest.mark.parametrize("message", ["", "{}", "no JSON", '{"source": "aws.s3"}', "[]"])
def test_a_message_that_is_neither_is_an_error(message: str) -> None:
    with pytest.raises(ValidationError):
        message_in(message)


def test_what_a_job_file_names_still_makes_the_jobs_of_its_own_name() -> None:
    world = World()
    world.say_and_tell("inbox/news/_defaults.json", image="face.png")
    world.drop_and_tell("inbox/news/face.png")
    world.say_and_tell("inbox/news/best.json", audio="mon.mp3", resolution="720p")

    world.drop_and_tell("inbox/news/mon.mp3")
    world.pass_time(minutes=120)

    assert sorted(job.stem for job in world.jobs.values()) == ["best", "mon"]
    assert world.announced == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_pair_waits_for_nobody_who_names_it(order: int) -> None:
    world = World()
    told = [
        world.drop("inbox/talk.json", '{"image": "never.png", "audio": "anna.mp3"}'),
        world.drop("inbox/anna.png"),
        world.drop("inbox/anna.mp3"),
    ]

    for seen in told[::order]:
        world.intake.take_in(seen)

    assert [job.stem for job in world.jobs.values()] == ["anna"]


# Teams

NAMING = ["../blue/anna.png", "../blue/sub/../anna.png", "./../blue/anna.png", "../blue/anna.mp3"]


@pytest.mark.parametrize("path", [*NAMING, "../secret.png", "../faces2/a.png", "../Red/a.png"])
@pytest.mark.parametrize("file", ["inbox/red/x.json", "inbox/red/_defaults.json"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_of_another_top_folder_is_refused_unseen(
    world: World, file: str, path: str, is_there: bool
) -> None:
    if is_there:
        for key in ("blue/anna.png", "blue/anna.mp3", "secret.png", "faces2/a.png", "Red/a.png"):
            world.drop(f"inbox/{key}")
    world.drop(file, json.dumps({"image": path}))
    world.drop_and_tell("inbox/red/x.mp3")

    (job,) = world.jobs.values()
    (problem,) = job.problems
    assert (problem.file, problem.found) == (file, f'"image" is "{path}", which is elsewhere')
    assert "under inbox/red/ or under inbox/faces/" in problem.rule
    assert not [
        prefix
        for prefix in world.listed_prefixes
        if "/red/" not in prefix and "." in prefix and not prefix.endswith("_defaults.json")
    ]
    assert {given.key for given in job.inputs} <= {file, "inbox/red/x.mp3"}


@pytest.mark.parametrize(
    ("file", "path", "may"),
    [
        ("inbox/x.json", "anna.png", True),
        ("inbox/x.json", "team/anna.png", False),
        ("inbox/x.json", "./anna.png", True),
        ("inbox/team/x.json", "../anna.png", False),
        ("inbox/team/a/x.json", "../b/anna.png", True),
        ("inbox/team/a/_defaults.json", "../../team/b/anna.png", True),
        ("inbox/team/a/_defaults.json", "../../other/anna.png", False),
        ("inbox/team/x.json", "../faces/sub/anna.png", True),
        ("inbox/team/x.json", "../faces.png", False),
        ("inbox/_defaults.json", "team/anna.png", True),
        ("inbox/faces/x.json", "../team/anna.png", False),
    ],
)
def test_a_job_may_name_files_of_its_top_folder_and_shared_ones(
    world: World, file: str, path: str, may: bool
) -> None:
    said = wish.said_in(
        Role.DEFAULTS if file.endswith("_defaults.json") else Role.OPTIONS,
        file,
        json.dumps({"image": path}).encode(),
        ("faces/",),
    )

    assert bool(said.wish.files) is may
    assert bool(said.problems) is not may


def test_what_lies_in_a_shared_folder_waits_in_silence_and_still_makes_its_own_job(
    world: World,
) -> None:
    world.drop_and_tell("inbox/faces/a.png", "inbox/faces/b.png", "inbox/faces/b.mp3")
    world.pass_time(minutes=120)

    assert [job.stem for job in world.jobs.values()] == ["b"]
    assert world.announced == []
    assert world.messages == []


TEAMS: dict[str, dict[str, object]] = {
    team: {
        "_defaults.json": {"image": f"../{other}/anna.png"},
        "anna.png": "picture",
        "anna.mp3": "voice",
        "bert.png": "picture",
        "bert.mp3": "voice",
        "half.mp3": "voice",
        "take.json": {"image": f"../{other}/anna.png", "audio": f"../{other}/anna.mp3"},
        "bert.json": {"audio": f"../{other}/half.mp3"},
        "deep/_defaults.json": {"image": f"../../{other}/bert.png"},
        "deep/carl.mp3": "voice",
    }
    for team, other in (("red", "blue"), ("blue", "red"))
}
FILES = [(team, name) for team, files in TEAMS.items() for name in files]


@given(
    st.permutations(FILES * 2), st.lists(st.sampled_from([0, 0.1, 20]), min_size=40, max_size=40)
)
def test_no_team_changes_what_becomes_of_anothers_files(
    order: list[tuple[str, str]], minutes: list[float]
) -> None:
    """In whatever order all of it is dropped and told of: as if the other team did not exist."""

    def outcome(teams: set[str]) -> list[object]:
        world, dropped = World(), dict[tuple[str, str], Sighting]()
        for (team, name), pause in zip(order, minutes, strict=True):
            if team in teams:
                said = TEAMS[team][name]
                body = said if isinstance(said, str) else json.dumps(said)
                if (team, name) in dropped:
                    world.intake.take_in(dropped[team, name])
                else:
                    dropped[team, name] = world.drop(f"inbox/{team}/{name}", body)
            world.pass_time(minutes=pause)
        world.pass_time(minutes=120)
        world.sweep()
        jobs = [
            (job.folder, job.stem, sorted(given.key for given in job.inputs), job.problems)
            for job in world.jobs.values()
        ]
        told = [(one.folder, one.stem, one.message) for one in world.announced]
        return [sorted(one for one in some if one[0].startswith("blue/")) for some in (jobs, told)]

    assert outcome({"red", "blue"}) == outcome({"blue"})


# What a sweep comes across


def test_older_uploads_that_nobody_told_of_are_started_once(world: World) -> None:
    for name in ("anna.png", "anna.mp3", "team/bert.jpg", "team/bert.wav", "team/bert.json"):
        world.drop(f"inbox/{name}", "{}")
    world.pass_time(minutes=60 * 24 * 365)

    world.sweep()
    world.pass_time(minutes=60 * 24)
    looks = len(world.listed_prefixes)
    world.sweep()

    assert sorted(job.stem for job in world.jobs.values()) == ["anna", "bert"]
    assert world.starts == 2
    assert len(world.listed_prefixes) == looks
    assert not world.announced
    assert not world.messages


def test_the_pair_of_a_crash_between_claim_and_start_is_started_by_the_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [world.drop("inbox/anna.png"), world.drop("inbox/anna.mp3")]
    with monkeypatch.context() as crash:
        crash.delattr(World, "start")
        with pytest.raises(AttributeError):
            world.intake.take_in(seen[0])

    world.sweep()

    assert list(world.jobs.values()) == list(world.claims.values())


def test_an_older_half_pair_is_told_of_once_whatever_becomes_of_the_error_file(
    world: World,
) -> None:
    world.drop("inbox/anna.png")
    world.pass_time(minutes=60 * 24)

    for _ in range(3):
        world.sweep()
        world.files.clear()

    (incomplete,) = world.announced
    assert incomplete.stem == "anna"
    assert not world.messages


def test_a_young_half_pair_that_nobody_told_of_still_has_its_time(world: World) -> None:
    world.drop("inbox/anna.png")
    world.sweep()
    assert not world.announced

    world.pass_time(minutes=60)

    assert [told.stem for told in world.announced] == ["anna"]


def test_the_other_half_that_nobody_told_of_is_found_after_all(world: World) -> None:
    world.drop_and_tell("inbox/anna.png")
    world.pass_time(minutes=61)
    world.drop("inbox/anna.mp3")

    world.sweep()

    assert world.pinned == [{("inbox/anna.png", "v1"), ("inbox/anna.mp3", "v2")}]


@pytest.mark.parametrize("notes", ["there", "lost"])
def test_defaults_that_complete_what_was_told_of_start_nothing_of_it(
    world: World, notes: str
) -> None:
    """They concern what is dropped from then on."""
    world.drop_and_tell("inbox/news/monday.mp3")
    world.pass_time(minutes=61)
    world.drop("inbox/news/face.png")
    world.drop("inbox/news/_defaults.json", '{"image": "face.png"}')
    if notes == "lost":  # of an earlier version, which made none
        world.answered.clear()

    world.sweep()

    assert len(world.announced) == 1
    assert not world.jobs


def test_an_older_avatar_folder_whose_face_lies_elsewhere(world: World) -> None:
    world.drop("inbox/faces/a.png")
    world.drop("inbox/news/_defaults.json", '{"image": "../faces/a.png"}')
    world.drop("inbox/sport/_defaults.json", '{"image": "face.png"}')
    world.drop("inbox/sport/face.png")
    world.drop("inbox/sport/sunday.mp3")
    world.pass_time(minutes=60 * 24)

    world.sweep()
    looks = len(world.listed_prefixes)
    world.sweep()

    assert [job.stem for job in world.jobs.values()] == ["sunday"]
    assert len(world.listed_prefixes) == looks
    assert not world.announced


def test_older_media_that_an_older_job_names_make_their_own_jobs_too(world: World) -> None:
    for number in range(5):
        world.drop(f"inbox/talks/a{number}.png")
        world.drop(f"inbox/talks/a{number}.mp3")
        said = {"image": f"a{number}.png", "audio": f"a{number}.mp3"}
        world.drop(f"inbox/talks/t{number}.json", json.dumps(said))
    world.pass_time(minutes=60 * 24)

    world.sweep()

    stems = [f"{kind}{number}" for kind in "at" for number in range(5)]
    assert sorted(job.stem for job in world.jobs.values()) == stems
    assert not world.announced


def outcome(world: World, **changes: str) -> str:
    """What the videos bucket says of the one job of the world, with changes to its inputs."""
    (job,) = world.jobs.values()
    used = [given.model_dump(mode="json") | {"bucket": UPLOADS} | changes for given in job.inputs]
    return json.dumps({"job": {"id": job.id, "stem": job.stem}, "inputs": used})


def forget(world: World) -> None:
    """As if half a year had passed in an earlier version, whose notes expired."""
    world.noted.clear()
    world.answered.clear()
    world.claims.clear()


@pytest.mark.parametrize("file", ["anna.json", "anna.error.json"])
def test_a_pair_with_an_outcome_is_not_paid_for_again_though_all_notes_are_lost(
    world: World, file: str
) -> None:
    world.drop_and_tell("inbox/anna.png", "inbox/anna.mp3")
    world.files[file] = outcome(world)
    forget(world)

    world.sweep()

    assert world.starts == 1
    assert world.noted == {("inbox/anna.png", "v1"), ("inbox/anna.mp3", "v2")}


@pytest.mark.parametrize(
    "document", [None, "{", "[]", '{"inputs": "all"}', "another version", '{"job": {"id": "x"}}']
)
def test_a_pair_that_nothing_tells_of_is_started(world: World, document: str | None) -> None:
    world.drop_and_tell("inbox/anna.png", "inbox/anna.mp3")
    if document is not None:
        is_other = document == "another version"
        world.files["anna.json"] = outcome(world, version_id="v9") if is_other else document
    forget(world)

    world.sweep()

    assert world.starts == 2


def test_an_event_does_not_ask_the_videos_bucket(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as cut_off:
        cut_off.delattr(World, "text")
        world.drop_and_tell("inbox/anna.png", "inbox/anna.mp3")

    assert len(world.jobs) == 1


@pytest.mark.parametrize(
    "names",
    [
        ["anna.png", "anna.mp3", "anna.psd"],
        [f"anna.{''.join(png)}" for png in itertools.product("pP", "nN", "gG")]
        + [f"anna.{''.join(jpg)}" for jpg in itertools.product("jJ", "pP", "gG")]
        + ["anna.mp3"],
    ],
    ids=["a stranger", "one picture too many to be named"],
)
def test_what_is_beside_a_job_and_not_in_it_is_looked_at_once(
    world: World, names: list[str]
) -> None:
    world.drop_and_tell(*(f"inbox/{name}" for name in names))
    looks, starts = len(world.listed_prefixes), world.starts

    for _ in range(2):
        world.sweep()
        world.uploads.pop("inbox/anna.mp3", None)  # people tidy up

    assert (len(world.listed_prefixes), world.starts) == (looks, starts)
    assert not world.announced


def test_uploads_from_before_versioning_are_started(world: World) -> None:
    for key in ("inbox/anna.png", "inbox/anna.mp3"):
        world.uploads[key] = ObjectVersion(key, "null", 1)
    world.written_at["null"] = world.time

    world.sweep()
    world.sweep()

    assert world.pinned == [{("inbox/anna.png", "null"), ("inbox/anna.mp3", "null")}]
    assert world.starts == 1


@given(
    st.lists(bases, min_size=1, max_size=4, unique=True),
    st.sets(st.tuples(st.integers(0, 3), st.sampled_from(["png", "mp3"]))),
    st.sets(st.tuples(st.integers(0, 3), st.sampled_from(["png", "mp3"]))),
)
def test_whatever_events_are_lost_a_sweep_starts_each_pair_once(
    bases: list[str], dropped: set[tuple[int, str]], told: set[tuple[int, str]]
) -> None:
    world = World()
    seen = {
        (number, ending): world.drop(f"inbox/{base}.{ending}")
        for number, base in enumerate(bases)
        for ending in ("png", "mp3")
        if (number, ending) in dropped
    }
    for upload in sorted(told & set(seen)):
        world.intake.take_in(seen[upload])
    world.pass_time(minutes=120)

    world.sweep()
    world.sweep()

    whole = [n for n in range(len(bases)) if {(n, "png"), (n, "mp3")} <= set(seen)]
    halves = [n for n in range(len(bases)) if len({(n, "png"), (n, "mp3")} & set(seen)) == 1]
    assert sorted(f"{job.folder}{job.stem}" for job in world.jobs.values()) == sorted(
        bases[n] for n in whole
    )
    assert world.starts == len(whole)
    assert len(world.announced) == len(halves)
    assert not world.messages
