"""Equal contents are rendered once."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from dropreel.model.errors import InputRejected, Reason
from dropreel.model.events import UsedInput, VideoReady
from dropreel.model.job import Input, Job, Role
from dropreel.model.messages import Plan, Repetition
from dropreel.model.uploads import ObjectVersion
from dropreel.outcome.repetition import Maker, MakerChanged, Repetitions, contents_of
from tests.support.conclusion_bench import error_file, manifest
from tests.support.render_fakes import AUDIO, IMAGE, JOB, NOON, PLAN, FakeClock

FACE, VOICE = "1" * 64, "2" * 64
OPTIONS = Input(
    role=Role.OPTIONS, key="inbox/team/anna.json", version_id="o1", size_bytes=2, sha256="3" * 64
)


class World:
    """The ledger and the videos bucket."""

    def __init__(self) -> None:
        self.makers: dict[str, Maker] = {}
        self.ended: set[tuple[str, int]] = set()
        self.drops: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.videos: dict[str, ObjectVersion] = {}
        self.prepared: list[str] = []
        self.clock = FakeClock()
        self.repetitions = Repetitions(
            makers=self, videos=self, video_bucket="videos", now=self.clock
        )

    # What happens

    def drop(self, job: Job, image: str = FACE, audio: str = VOICE) -> Plan | Repetition:
        """Prepare's call for a job."""

        def prepare() -> Plan:
            self.prepared.append(job.id)
            return PLAN.model_copy(
                update={"job": job, "sha256": {IMAGE.key: image, AUDIO.key: audio}}
            )

        return self.repetitions.plan(job, prepare)

    def deliver(self, job: Job, image: str = FACE, audio: str = VOICE) -> None:
        ready = VideoReady.model_validate_json(manifest(job))
        inputs = UsedInput.all_of(job, {IMAGE.key: image, AUDIO.key: audio})
        self.files[job.manifest_key] = ready.model_copy(update={"inputs": inputs}).model_dump_json()
        self.videos[job.video_key] = ObjectVersion(
            job.video_key, "v1", ready.video.size_bytes, NOON
        )
        self.end(job)

    def end(self, job: Job) -> None:
        self.ended.add((job.id, job.run))

    # What repetitions ask for

    def maker(self, job: Job) -> Maker | None:
        return self.makers.get(job.video_key)

    def is_under_way(self, maker: Maker) -> bool:
        return (maker.job_id, maker.run) not in self.ended

    def note_maker(self, job: Job, maker: Maker, instead_of: Maker | None) -> bool:
        if self.maker(job) != instead_of:
            return False
        self.makers[job.video_key] = maker
        return True

    def note_drop(self, job: Job, answered_by: str) -> None:
        self.drops[job.id] = answered_by

    def text(self, bucket: str, key: str) -> str | None:
        return self.files.get(key)

    def written_at(self, bucket: str, key: str) -> datetime | None:
        return NOON

    def delete(self, bucket: str, key: str) -> None:
        del self.files[key]

    def current_versions(self, bucket: str, *prefixes: str) -> Iterable[ObjectVersion]:
        return [one for key, one in self.videos.items() if key.startswith(prefixes)]


@pytest.fixture
def world() -> World:
    return World()


def job(number: int, *inputs: Input, **changes: object) -> Job:
    """The same files again, as another drop."""
    dropped_at = NOON + timedelta(minutes=number)
    given = inputs or (IMAGE, AUDIO)
    again = [one.model_copy(update={"version_id": f"{one.role}{number}"}) for one in given]
    made = {"id": f"anna-{number:016}", "inputs": tuple(again), "dropped_at": dropped_at}
    return JOB.model_copy(update=made | changes)


def same_as(number: int) -> Repetition:
    return Repetition(same_as=job(number).id)


def test_the_same_contents_are_rendered_once(world: World) -> None:
    assert isinstance(world.drop(job(1)), Plan)
    world.deliver(job(1))

    assert world.drop(job(2)) == same_as(1)
    assert world.drop(job(3)) == same_as(1)
    assert world.drops == {job(2).id: job(1).id, job(3).id: job(1).id}


def test_what_is_being_made_is_not_made_twice(world: World) -> None:
    world.drop(job(1))

    assert world.drop(job(2)) == same_as(1)


@pytest.mark.parametrize("changed", [{"image": "9" * 64}, {"audio": "9" * 64}])
@pytest.mark.parametrize("is_there", [True, False])
def test_other_contents_are_rendered(world: World, changed: dict[str, str], is_there: bool) -> None:
    world.drop(job(1))
    if is_there:
        world.deliver(job(1))

    assert isinstance(world.drop(job(2), **changed), Plan)


@pytest.mark.parametrize("role", [Role.OPTIONS, Role.PROMPT, Role.DEFAULTS])
def test_a_document_belongs_to_the_contents(world: World, role: Role) -> None:
    document = OPTIONS.model_copy(update={"role": role})
    changed = document.model_copy(update={"sha256": "4" * 64})
    first = job(1, IMAGE, AUDIO, document)
    world.drop(first)
    world.deliver(first)

    assert world.drop(job(2, IMAGE, AUDIO, document)) == same_as(1)
    assert isinstance(world.drop(job(3, IMAGE, AUDIO, changed)), Plan)


def test_a_parameter_of_the_stack_is_no_wish_of_the_persons(world: World) -> None:
    world.drop(job(1))
    world.deliver(job(1))

    assert world.drop(job(2, model="wan-2.6-flash-image-to-video")) == same_as(1)


@pytest.mark.parametrize("loss", ["deleted", "replaced", "no manifest", "manifest of another kind"])
def test_a_video_that_is_gone_is_made_again(world: World, loss: str) -> None:
    world.drop(job(1))
    world.deliver(job(1))
    video = world.videos[JOB.video_key]
    match loss:
        case "deleted":
            del world.videos[JOB.video_key]
        case "replaced":
            world.videos[JOB.video_key] = replace(video, size_bytes=video.size_bytes + 1)
        case "no manifest":
            del world.files[JOB.manifest_key]
        case _:
            world.files[JOB.manifest_key] = "{}"

    assert isinstance(world.drop(job(2)), Plan)


def test_a_manifest_that_cannot_be_read_is_no_reason_to_pay(world: World) -> None:
    world.drop(job(1))
    world.deliver(job(1))
    world.files[JOB.manifest_key] = ""  # archived

    with pytest.raises(InputRejected, match=r"team/anna\.json"):
        world.drop(job(2))


def test_a_failed_job_starts_again(world: World) -> None:
    world.drop(job(1))
    world.end(job(1))

    assert isinstance(world.drop(job(2)), Plan)


def test_back_to_the_first_files_while_others_are_being_made_renders(world: World) -> None:
    """The other job's video would replace the one that is there."""
    world.drop(job(1))
    world.deliver(job(1))
    assert isinstance(world.drop(job(2), image="9" * 64), Plan)

    assert isinstance(world.drop(job(3)), Plan)


def test_back_to_the_first_files_after_others_failed_pays_nothing(world: World) -> None:
    world.drop(job(1))
    world.deliver(job(1))
    world.drop(job(2), image="9" * 64)
    world.end(job(2))
    world.files[JOB.error_key] = error_file(job(2))

    assert world.drop(job(3)) == same_as(1)
    assert JOB.error_key not in world.files


def test_the_error_file_of_a_later_drop_stays(world: World) -> None:
    world.drop(job(1))
    world.deliver(job(1))
    world.files[JOB.error_key] = error_file(job(3))

    assert world.drop(job(2)) == same_as(1)
    assert JOB.error_key in world.files


def test_equal_etags_save_the_reading(world: World) -> None:
    image, audio = (one.model_copy(update={"etag": f"e{one.role}"}) for one in (IMAGE, AUDIO))
    first = job(1, image, audio)
    world.drop(first)
    world.deliver(first)
    world.prepared.clear()

    assert world.drop(job(2, image, audio)) == same_as(1)
    assert not world.prepared
    # With KMS keys, equal bytes have other ETags.
    assert world.drop(job(3, image.model_copy(update={"etag": "other"}), audio)) == same_as(1)
    assert world.prepared == [job(3).id]


def test_a_job_that_runs_again_is_rendered(world: World) -> None:
    world.drop(job(1))
    world.deliver(job(1))

    assert isinstance(world.drop(job(1, run=2)), Plan)
    assert world.drop(job(2)) == same_as(1)  # the second run makes it


def test_a_repeated_call_gives_the_same_plan(world: World) -> None:
    plan = world.drop(job(1))
    world.clock.now += timedelta(seconds=5)

    assert world.drop(job(1)) == plan


def test_a_maker_without_an_outcome_is_forgotten_in_the_end(world: World) -> None:
    world.drop(job(1))
    world.clock.now += timedelta(days=92)

    assert isinstance(world.drop(job(2)), Plan)


def test_of_two_calls_at_the_same_time_one_has_to_look_again(world: World) -> None:
    def prepare() -> Plan:
        world.drop(job(1))
        return PLAN

    with pytest.raises(MakerChanged):
        world.repetitions.plan(job(2), prepare)

    assert world.drop(job(2)) == same_as(1)


def test_what_was_not_read_is_equal_to_nothing() -> None:
    assert contents_of((IMAGE,)) != contents_of((IMAGE.model_copy(update={"version_id": "x"}),))
    assert contents_of((IMAGE,)) == contents_of((IMAGE,))


def test_a_call_that_was_cut_off_after_its_note_goes_on(world: World) -> None:
    world.drop(job(1))
    world.deliver(job(1))
    world.drop(job(2), image="9" * 64)
    assert isinstance(world.drop(job(3)), Plan)

    assert isinstance(world.drop(job(3)), Plan)


def test_a_renamed_file_is_no_repetition_of_what_waits(world: World) -> None:
    """Its old name is deleted, so the job that waits ends as `InputGone`."""
    world.drop(job(1))
    renamed = job(2, IMAGE.model_copy(update={"key": "inbox/team/anna.jpg"}), AUDIO)
    plan = PLAN.model_copy(
        update={"job": renamed, "sha256": {"inbox/team/anna.jpg": FACE, AUDIO.key: VOICE}}
    )

    assert world.repetitions.plan(renamed, lambda: plan) == plan


def test_a_job_with_problems_is_refused_beside_its_video(world: World) -> None:
    image, audio = (one.model_copy(update={"etag": f"e{one.role}"}) for one in (IMAGE, AUDIO))
    world.drop(job(1, image, audio))
    world.deliver(job(1, image, audio))
    problem = Reason(file="inbox/team/anna.webp", rule="one", found="a second", cure="Delete it.")

    def refuse() -> Plan:
        raise InputRejected((problem,))

    with pytest.raises(InputRejected):
        world.repetitions.plan(job(2, image, audio, problems=(problem,)), refuse)


def test_a_name_that_starts_again_after_months_is_compared(world: World) -> None:
    """Step Functions lets an execution's name be used again after 90 days."""
    world.drop(job(1))
    world.deliver(job(1))
    world.clock.now += timedelta(days=92)

    assert world.drop(job(1)) == same_as(1)
