"""Intake of what a sweep comes across: uploads whose events were lost, or came before it."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.intake_fakes import DAY, SWEEP, UPLOADS, Step, World, bases, cases


@pytest.fixture
def world() -> World:
    return World()


NAMED: list[Step] = [
    *(f"?a{number}.{ending}" for number in range(5) for ending in ("png", "mp3")),
    *((f"?t{n}.json", f'{{"image": "a{n}.png", "audio": "a{n}.mp3"}}') for n in range(5)),
]


@pytest.mark.parametrize(
    ("dropped", "stems"),
    [
        (["?a.png", "?a.mp3", "?team/b.jpg", "?team/b.wav", ("?team/b.json", "{}")], ["a", "b"]),
        (
            [
                *["?faces/a.png", ("?news/_defaults.json", {"image": "../faces/a.png"})],
                *["?sport/face.png", ("?sport/_defaults.json", {"image": "face.png"})],
                "?sport/sunday.mp3",
            ],
            ["sunday"],
        ),
        (NAMED, ["a0", "a1", "a2", "a3", "a4", "t0", "t1", "t2", "t3", "t4"]),
    ],
    ids=["pairs", "avatars' folders", "named by a job"],
)
def test_older_uploads_without_an_event_are_started_and_read_once(
    world: World, dropped: list[Step], stems: list[str]
) -> None:
    world.play(*dropped, 365 * DAY, SWEEP, DAY)
    looks = len(world.listed_prefixes)

    world.sweep()

    assert (world.stems, world.starts) == (stems, len(stems))
    assert len(world.listed_prefixes) == looks
    assert not world.announced
    assert not world.messages


def test_sweep_starts_a_pair_that_was_claimed_but_not_started(world: World) -> None:
    with world.crash_at("start"):
        world.play("?anna.png", "anna.mp3")

    world.sweep()

    assert list(world.jobs.values()) == list(world.claims.values())


def test_older_half_pair_is_announced_once_without_its_error_file(world: World) -> None:
    world.play("?anna.png", DAY)

    for _ in range(3):
        world.sweep()
        world.files.clear()

    assert [told.job.stem for told in world.announced] == ["anna"]
    assert not world.messages


@cases(
    {
        "a young half pair still has its time": (
            ["?a.png", SWEEP, 60, SWEEP],
            ["70 incomplete a.png@1"],
        ),
        "an older half pair is told of": (["?a.png", 61, SWEEP], ["61 incomplete a.png@1"]),
        "the other half is found after all": (
            ["a.png", 61, "?a.mp3", SWEEP],
            ["60 incomplete a.png@1", "61 start a.png@1 a.mp3@2"],
        ),
    }
)
def test_upload_without_an_event_is_treated_like_others(
    world: World, steps: list[Step], log: list[str]
) -> None:
    world.play(*steps)

    assert world.log == log


@pytest.mark.parametrize("notes", ["there", "lost"])
def test_new_defaults_change_no_upload_that_was_announced(world: World, notes: str) -> None:
    world.play("monday.mp3", 61, "?face.png", ("?_defaults.json", {"image": "face.png"}))
    if notes == "lost":  # of an earlier version, which made none
        world.answered.clear()

    world.sweep()

    assert len(world.announced) == 1
    assert not world.jobs


def outcome(world: World, **changes: str) -> str:
    """What the videos bucket says of the one job of the world, with changes to its inputs."""
    job = world.job
    used = [given.model_dump(mode="json") | {"bucket": UPLOADS} | changes for given in job.inputs]
    return json.dumps({"job": {"id": job.id, "stem": job.stem}, "inputs": used})


def forget(world: World) -> None:
    """As if half a year had passed in an earlier version, whose notes expired."""
    world.noted.clear()
    world.answered.clear()
    world.claims.clear()


@pytest.mark.parametrize("file", ["anna.json", "anna.error.json"])
def test_pair_with_an_outcome_is_not_paid_again_without_notes(world: World, file: str) -> None:
    world.drop_and_tell("inbox/anna.png", "inbox/anna.mp3")
    world.files[file] = outcome(world)
    forget(world)

    world.sweep()

    assert world.starts == 1
    assert world.noted == {("inbox/anna.png", "v1"), ("inbox/anna.mp3", "v2")}


@pytest.mark.parametrize(
    "document", [None, "{", "[]", '{"inputs": "all"}', "another version", '{"job": {"id": "x"}}']
)
def test_pair_without_an_outcome_is_started(world: World, document: str | None) -> None:
    world.drop_and_tell("inbox/anna.png", "inbox/anna.mp3")
    if document is not None:
        is_other = document == "another version"
        world.files["anna.json"] = outcome(world, version_id="v9") if is_other else document
    forget(world)

    world.sweep()

    assert world.starts == 2


@pytest.mark.parametrize(
    "names",
    [
        ["anna.png", "anna.mp3", "anna.docx"],
        [f"anna.{''.join(png)}" for png in itertools.product("pP", "nN", "gG")]
        + [f"anna.{''.join(jpg)}" for jpg in itertools.product("jJ", "pP", "gG")]
        + ["anna.mp3"],
    ],
    ids=["a stranger", "one picture too many to be named"],
)
def test_file_that_is_in_no_job_is_read_once(world: World, names: list[str]) -> None:
    world.drop_and_tell(*(f"inbox/{name}" for name in names))
    looks, starts = len(world.listed_prefixes), world.starts

    for _ in range(2):
        world.sweep()
        world.uploads.pop("inbox/anna.mp3", None)  # people tidy up

    assert (len(world.listed_prefixes), world.starts) == (looks, starts)
    assert not world.announced


places = st.sets(st.tuples(st.integers(0, 3), st.sampled_from(["png", "mp3"])))


@given(st.lists(bases, min_size=1, max_size=4, unique=True), places, places)
def test_sweep_starts_each_pair_once_whatever_events_are_lost(
    bases: list[str], dropped: set[tuple[int, str]], told: set[tuple[int, str]]
) -> None:
    world = World()
    seen = {
        (number, ending): world.drop(f"inbox/{base}.{ending}")
        for number, base in enumerate(bases)
        for ending in ("png", "mp3")
        if (number, ending) in dropped
    }
    world.tell(*(seen[upload] for upload in sorted(told & set(seen))))
    world.pass_time(minutes=120)

    world.sweep()
    world.sweep()

    halves_of = [len({(n, "png"), (n, "mp3")} & set(seen)) for n in range(len(bases))]
    whole = [base for base, halves in zip(bases, halves_of, strict=True) if halves == 2]
    assert sorted(f"{job.folder}{job.stem}" for job in world.jobs.values()) == sorted(whole)
    assert world.starts == len(whole)
    assert len(world.announced) == halves_of.count(1)
    assert not world.messages
