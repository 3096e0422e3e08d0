"""Intake against a bucket, a queue and a clock in memory."""

import itertools
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dropreel.events import DetailType, UploadIncomplete
from dropreel.intake import LISTED_AT_MOST, Intake, Sighting, sighting_in
from dropreel.job import Job, Role
from dropreel.pairing import name_of
from dropreel.storage import ObjectVersion

UPLOADS = "uploads"
VIDEOS = "videos"
EVENT = Path(__file__).parents[2] / "events/samples/object_created.json"


class World:
    """All that intake touches, and the people who drop files."""

    def __init__(self, incomplete_after: timedelta = timedelta(minutes=60)) -> None:
        self.time = datetime(2026, 11, 12, 14, 0, tzinfo=UTC)
        self.uploads: dict[str, ObjectVersion] = {}
        self.files: dict[str, str] = {}
        self.jobs: dict[str, Job] = {}
        self.messages: list[tuple[datetime, str]] = []
        self.announced: list[UploadIncomplete] = []
        self.listed_prefixes: list[str] = []
        self._versions = itertools.count(1)
        self.intake = Intake(
            storage=self,
            executions=self,
            queue=self,
            bus=self,
            now=lambda: self.time,
            model="wan-2.2-speech-to-video",
            video_bucket=VIDEOS,
            incomplete_after=incomplete_after,
        )

    # What people do

    def drop(self, key: str, size_bytes: int = 1) -> Sighting:
        """Upload a file and return what S3 will say about it."""
        version_id = f"v{next(self._versions)}"
        self.uploads[key] = ObjectVersion(key, version_id, size_bytes)
        return Sighting(bucket=UPLOADS, key=key, version_id=version_id, first_seen=self.time)

    def drop_and_tell(self, *keys: str) -> None:
        for seen in [self.drop(key) for key in keys]:
            self.intake.take_in(seen)

    def pass_time(self, minutes: float) -> None:
        """Let the queue hand out what comes due meanwhile."""
        until = self.time + timedelta(minutes=minutes)
        while self.messages and min(self.messages)[0] <= until:
            due, message = min(self.messages)
            self.messages.remove((due, message))
            self.time = due
            self.intake.take_in(sighting_in(message))
        self.time = until

    # What intake asks for

    def current_versions(self, bucket: str, prefix: str) -> Iterator[ObjectVersion]:
        assert bucket == UPLOADS
        self.listed_prefixes.append(prefix)
        yield from (self.uploads[key] for key in sorted(self.uploads) if key.startswith(prefix))

    def text(self, bucket: str, key: str) -> str | None:
        assert bucket == VIDEOS
        return self.files.get(key)

    def put_json(self, bucket: str, key: str, document: str) -> None:
        assert bucket == VIDEOS
        self.files[key] = document

    def start(self, job: Job) -> None:
        assert self.jobs.setdefault(job.id, job) == job

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


def test_an_event_of_a_replaced_upload_starts_what_is_there_now(world: World) -> None:
    replaced = world.drop("inbox/anna.png")
    world.drop("inbox/anna.mp3")
    world.drop("inbox/anna.png")

    world.intake.take_in(replaced)

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
    for seen in [world.drop("inbox/anna.png", size_bytes=0), world.drop("inbox/anna.mp3")]:
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

    assert world.listed_prefixes == ["inbox/team/anna."]


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


def test_a_wait_costs_one_message_in_fifteen_minutes(world: World) -> None:
    world.drop_and_tell("inbox/anna.png")

    world.listed_prefixes.clear()
    world.pass_time(minutes=120)

    assert len(world.listed_prefixes) == 4


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


def test_an_upload_whose_video_is_there_is_not_incomplete(world: World) -> None:
    """The voice was deleted once the video had come; the picture's wait must not end in an error
    beside a good video."""
    world.drop_and_tell("inbox/anna.png")
    world.drop_and_tell("inbox/anna.mp3")
    (job,) = world.jobs.values()
    world.files["anna.json"] = json.dumps(
        {"inputs": [{"key": one.key, "version_id": one.version_id} for one in job.inputs]}
    )
    del world.uploads["inbox/anna.mp3"]

    world.pass_time(minutes=120)

    assert not world.announced


def test_somebodys_own_file_in_the_place_of_the_error_file_says_nothing(world: World) -> None:
    world.files["anna.json"] = "not JSON"
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


# Any order, any repetition

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
        if len(pair) == 2 and pair not in pairs_seen:
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
    seen = sighting_in(EVENT.read_text())

    assert seen == Sighting(
        bucket="dropreel-uploads",
        key="inbox/team/anna.png",
        version_id="IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
        first_seen=datetime(2026, 11, 12, 14, 22, 9, tzinfo=UTC),
    )


def test_an_event_without_a_version_is_read() -> None:
    event = json.loads(EVENT.read_text())
    del event["detail"]["object"]["version-id"]

    assert sighting_in(json.dumps(event)).version_id is None


def test_the_reminder_reads_as_it_was_written() -> None:
    seen = World().drop("inbox/a b+c%20d'\"😀.png")

    assert sighting_in(seen.model_dump_json()) == seen


@pytest.mark.parametrize("message", ["", "{}", "no JSON", '{"source": "aws.s3"}', "[]"])
def test_a_message_that_is_neither_is_an_error(message: str) -> None:
    with pytest.raises(ValidationError):
        sighting_in(message)
