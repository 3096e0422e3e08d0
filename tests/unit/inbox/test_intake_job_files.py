"""Intake: what a job file, a prompt and the defaults say, and which files they may name."""

import json

import pytest

from dropreel.inbox import job_file
from dropreel.inbox.pairing import DEFAULTS_PREFIXES
from dropreel.model.job import Role
from tests.support.intake_fakes import Parsed, Step, World, cases


@pytest.fixture
def world() -> World:
    return World()


FLASH, PICTURE_ONLY = "wan-2.6-flash-image-to-video", "wan-2.2-image-to-video"


def test_job_file_beats_near_defaults_which_beat_farther_ones(world: World) -> None:
    world.play(
        ("_defaults.json", {"model": FLASH, "prompt": "far", "seed": 1, "duration": 5}),
        ("team/_defaults.json", {"prompt": "near", "seed": 2, "resolution": "720p"}),
        ("other/_defaults.json", {"prompt": "elsewhere"}),
        ("team/anna.json", {"seed": 3}),
        "team/anna.png",
    )

    assert (world.job.model, world.job.prompt) == (FLASH, "near")
    assert world.job.options == {"seed": 3, "duration": 5, "resolution": "720p"}
    assert [given.key for given in world.job.of(Role.DEFAULTS)] == [
        "inbox/team/_defaults.json",
        "inbox/_defaults.json",
    ]


def test_mended_job_file_starts_the_job_that_was_meant(world: World) -> None:
    world.play("?anna.png", "?anna.mp3", ("anna.json", {"sed": 1}), ("anna.json", {"seed": 1}))

    refused, meant = world.jobs.values()
    assert refused.problems
    assert (meant.problems, meant.options) == ((), {"seed": 1})


FACE: tuple[str, Parsed] = ("_defaults.json", {"image": "face.png"})
ONLY_A_FACE: Parsed = {"image": "face.png", "model": PICTURE_ONLY, "prompt": "hi"}
NAMES_C: Parsed = {"image": "c.png"}
SHARED_FACE: tuple[str, Parsed] = ("news/_defaults.json", {"image": "../faces/a.png"})


@cases(
    {
        "a model that needs a prompt waits for one": (
            [("a.json", {"model": PICTURE_ONLY}), "a.png", 1, ("a.txt", "She smiles.")],
            ["1 start a.png@2 a.txt@3 a.json@1"],
        ),
        "broken defaults are told of at once": (
            [("_defaults.json", "{"), 1, "team/a.png"],
            ["1 start !inbox/_defaults.json team/a.png@2 _defaults.json@1"],
        ),
        "a job waits for exactly the files that it names": (
            [
                ("team/a.json", {"image": "../faces/a.png", "audio": "monday.mp3"}),
                "team/monday.mp3",
                8.1,
                "faces/a.png",
            ],
            ["16 start faces/a.png@3 team/monday.mp3@2 team/a.json@1"],
        ),
        "a file that another job used is not incomplete": (
            ["b.png", "c.mp3", ("a.json", {"image": "b.png", "audio": "c.mp3"})],
            ["0 start b.png@1 c.mp3@2 a.json@3"],
        ),
        "two jobs may name one picture": (
            ["a.mp3", "b.mp3", "c.png", ("a.json", NAMES_C), ("b.json", NAMES_C)],
            ["0 start c.png@3 a.mp3@1 a.json@4", "0 start c.png@3 b.mp3@2 b.json@5"],
        ),
        "a named file still makes a job of its own name": (
            ["b.png", "a.mp3", ("a.json", {"image": "b.png"}), "b.mp3"],
            ["0 start b.png@1 a.mp3@2 a.json@3", "0 start b.png@1 b.mp3@4"],
        ),
        "a pair does not wait for a job that names it": (
            [("?t.json", {"image": "never.png", "audio": "a.mp3"}), "a.png", "a.mp3", "=v1"],
            ["0 start a.png@2 a.mp3@3", "60 incomplete t.json@1"],
        ),
        "a pair does not wait for a job that named it before": (
            [("t.json", {"image": "never.png", "audio": "a.mp3"}), "?a.mp3", "a.png"],
            ["0 start a.png@3 a.mp3@2", "60 incomplete t.json@1"],
        ),
        "a named recording makes a job of its own with its avatar's face": (
            [FACE, "face.png", ("b.json", {"audio": "m.mp3", "seed": 1}), 1, "m.mp3"],
            [
                "1 start face.png@2 m.mp3@4 _defaults.json@1",
                "2 start face.png@2 m.mp3@4 b.json@3 _defaults.json@1",
            ],
        ),
        "every recording in an avatar's folder becomes a job": (
            [FACE, "face.png", "monday.mp3", "2026/tuesday.mp3"],
            [
                "0 start face.png@2 monday.mp3@3 _defaults.json@1",
                "0 start face.png@2 2026/tuesday.mp3@4 _defaults.json@1",
            ],
        ),
        "a recording waits for its avatar's face": (
            [FACE, "monday.mp3", "face.png"],
            ["0 start face.png@3 monday.mp3@2 _defaults.json@1"],
        ),
        "a face starts no job though its model needs only a picture": (
            [("?_defaults.json", ONLY_A_FACE), "face.png"],
            [],
        ),
        "a file in a shared folder waits in silence and may make its own job": (
            ["faces/a.png", "faces/b.png", "faces/b.mp3"],
            ["0 start faces/b.png@2 faces/b.mp3@3"],
        ),
    }
)
def test_job_starts_once_it_has_all_that_it_names(
    world: World, steps: list[Step], log: list[str]
) -> None:
    world.play(*steps, 120)

    assert world.log == log
    assert not world.messages


@pytest.mark.parametrize(("defaults", "face"), [(FACE, "face.png"), (SHARED_FACE, "faces/a.png")])
@pytest.mark.parametrize("order", [1, -1])
def test_face_of_an_avatar_is_no_half_pair(
    world: World, defaults: tuple[str, Parsed], face: str, order: int
) -> None:
    name, said = defaults
    world.play((f"?{name}", said), f"?{face}", *["=v1", "=v2"][::order], 120)

    assert world.log == []
    assert not world.messages


def test_picture_that_is_no_face_any_more_waits_as_others_do(world: World) -> None:
    world.play(SHARED_FACE, ("news/_defaults.json", {"image": "../faces/b.png"}), "faces/a.png")

    assert world.messages


# Teams

NAMING = ["../blue/anna.png", "../blue/sub/../anna.png", "./../blue/anna.png", "../blue/anna.mp3"]


@pytest.mark.parametrize("path", [*NAMING, "../secret.png", "../faces2/a.png", "../Red/a.png"])
@pytest.mark.parametrize("file", ["inbox/red/x.json", "inbox/red/_defaults.json"])
@pytest.mark.parametrize("is_there", [True, False])
def test_file_of_another_top_folder_is_refused_unseen(
    world: World, file: str, path: str, is_there: bool
) -> None:
    if is_there:
        for key in ("blue/anna.png", "blue/anna.mp3", "secret.png", "faces2/a.png", "Red/a.png"):
            world.drop(f"inbox/{key}")
    world.drop(file, {"image": path})
    world.drop_and_tell("inbox/red/x.mp3")

    (problem,) = world.job.problems
    assert (problem.file, problem.found) == (
        file,
        f'"image" is "{path}", which is in another folder',
    )
    assert "under inbox/red/ or under inbox/faces/" in problem.rule
    assert not [
        prefix
        for prefix in world.listed_prefixes
        if "/red/" not in prefix and not prefix.endswith(DEFAULTS_PREFIXES)
    ]
    assert {given.key for given in world.job.inputs} <= {file, "inbox/red/x.mp3"}


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
def test_job_may_name_files_of_its_top_folder_and_shared_ones(
    file: str, path: str, may: bool
) -> None:
    role = Role.DEFAULTS if file.endswith("_defaults.json") else Role.OPTIONS

    said = job_file.parse(role, file, json.dumps({"image": path}).encode(), ("faces/",))

    assert bool(said.choices.files) is may
    assert bool(said.problems) is not may
