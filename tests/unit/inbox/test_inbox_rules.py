"""The rules of the inbox, as `docs/dropping-files.md` says them."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.inbox.near_misses import near_misses
from dropreel.model.errors import Reason
from dropreel.model.job import Input, Role
from dropreel.model.uploads import Unreadable
from tests.support.intake_fakes import DAY, SWEEP, UPLOADS, Parsed, Step, World, cases

COMPOSED, DECOMPOSED = "Ren\xe9e", "Rene\u0301e"


@pytest.fixture
def world() -> World:
    return World(settle=timedelta(seconds=20))


def message_of(world: World, stem: str) -> str:
    (incomplete,) = [
        one for one in world.announced if one.job.stem == stem and "below" not in one.job.folder
    ]
    return incomplete.message


# A job starts when its files have been still


def seconds(number: float) -> float:
    return number / 60


def test_it_starts_once_the_newest_file_has_been_still(world: World) -> None:
    world.play("a.png", seconds(15), "a.mp3", seconds(19.9))
    assert not world.jobs

    world.pass_time(seconds(0.1))

    assert world.log == ["0 start a.png@1 a.mp3@2"]


@pytest.mark.parametrize("late", ["a.json", "_defaults.json"])
def test_what_comes_while_it_settles_counts(world: World, late: str) -> None:
    world.play("a.png", "a.mp3", seconds(19), (late, {"resolution": "720p"}), seconds(19))
    assert not world.jobs

    world.pass_time(seconds(2))

    assert world.job.options == {"resolution": "720p"}
    assert world.starts == 1


def test_a_named_file_has_to_be_still_too(world: World) -> None:
    world.play(("a.json", {"image": "face.png"}), "a.mp3", seconds(19), "?face.png", seconds(19))
    assert not world.jobs

    world.pass_time(minutes=1)

    assert world.starts == 1


def test_an_upload_in_parts_is_dated_from_its_beginning(world: World) -> None:
    """So the event of another file cannot know whether it is still. Its own event can."""
    world.play("?a.png", seconds(100))
    began, picture = world.time - timedelta(seconds=90), world.seen["v1"]
    world.drop("inbox/a.mp3")
    world.uploads["inbox/a.mp3"] = replace(
        world.uploads["inbox/a.mp3"], written_at=began, etag="d41d8cd98f00b204e9800998ecf8427e-7"
    )
    world.tell(picture)
    assert not world.jobs

    world.play(seconds(10), ("?a.json", {"resolution": "720p"}), seconds(29), seconds(2))

    assert world.job.options == {"resolution": "720p"}
    assert world.starts == 1
    assert not world.messages


def test_a_file_that_no_job_uses_delays_none(world: World) -> None:
    world.play("?a.png", "a.mp3", seconds(15), "?a.log", seconds(6))

    assert world.starts == 1


def test_without_settling_a_clock_ahead_delays_nothing() -> None:
    world = World()
    world.play("?a.png", "?a.mp3")
    world.time -= timedelta(seconds=3)
    world.tell(world.seen["v1"])

    assert world.starts == 1


def test_clocks_that_differ_delay_it_no_longer_than_it_settles(world: World) -> None:
    world.play("a.png", "a.mp3")

    assert all(due <= world.time + timedelta(seconds=20) for due, _ in world.messages)


@given(st.permutations(["a.png", "a.mp3", "a.txt", "a.json"]), st.lists(st.integers(0, 19)))
def test_the_order_of_the_upload_does_not_matter(order: list[str], pauses: list[int]) -> None:
    world = World(settle=timedelta(seconds=20))
    bodies: dict[str, Parsed] = {
        "a.txt": "She smiles.",
        "a.json": {"model": "wan-2.6-flash-image-to-video"},
    }
    for number, name in enumerate(order):
        world.play((name, bodies.get(name, "x")))
        world.pass_time(seconds((pauses or [0])[number % len(pauses or [0])]))
    world.pass_time(minutes=2 * DAY)

    assert world.starts == 1
    assert len(world.job.inputs) == 4
    assert not world.announced


@cases(
    {
        "options": (
            [("_defaults.json", {"wait_for": ["options"]}), "a.png", "a.mp3", 5, ("a.json", {})],
            ["5 start a.png@2 a.mp3@3 a.json@4 _defaults.json@1"],
        ),
        "a prompt in the options": (
            [
                ("_defaults.json", {"wait_for": ["prompt"], "prompt": "She smiles."}),
                "a.png",
                "a.mp3",
                5,
                ("a.json", {"prompt": "She waves."}),
            ],
            ["5 start a.png@2 a.mp3@3 a.json@4 _defaults.json@1"],
        ),
        "a prompt": (
            [("_defaults.json", {"wait_for": ["prompt"]}), "a.png", "a.mp3", 5, ("a.txt", "Hi.")],
            ["5 start a.png@2 a.mp3@3 a.txt@4 _defaults.json@1"],
        ),
        "a voice": (
            [
                (
                    "_defaults.json",
                    {"model": "wan-2.6-flash-image-to-video", "wait_for": ["voice"]},
                ),
                ("a.txt", "She waves."),
                "a.png",
                5,
                "a.mp3",
            ],
            ["5 start a.png@3 a.mp3@4 a.txt@2 _defaults.json@1"],
        ),
        "in vain": (
            [("_defaults.json", {"wait_for": ["options"]}), "?a.png", "a.mp3"],
            ["60 incomplete a.png@2 a.mp3@3"],
        ),
    }
)
def test_a_folder_says_what_to_wait_for(steps: list[Step], log: list[str]) -> None:
    world = World()
    world.play(*steps, 61)

    assert world.log == log


# Names


@pytest.mark.parametrize("picture", [f"{COMPOSED}/{DECOMPOSED}.png", f"{DECOMPOSED}/x.png"])
@pytest.mark.parametrize("is_picture_first", [True, False])
def test_names_that_look_the_same_are_one_name(picture: str, is_picture_first: bool) -> None:
    world = World()
    voice = picture.replace(DECOMPOSED, "~").replace(COMPOSED, DECOMPOSED).replace("~", COMPOSED)
    voice = voice.replace(".png", ".mp3")
    first, second = (picture, voice) if is_picture_first else (voice, picture)
    world.play(f"?{first}", second)

    assert (world.starts, world.job.folder) == (1, f"{COMPOSED}/")
    assert world.job.stem in (COMPOSED, "x")
    assert {one.key for one in world.job.inputs} == {f"inbox/{picture}", f"inbox/{voice}"}


@pytest.mark.parametrize("stem", ["\uf900", "\uf900e\u0301\xe9", "\u212b"])
def test_a_name_in_no_normal_form_is_found(stem: str) -> None:
    world = World()
    world.play(f"?{stem}/{stem}.png", f"{stem}/{stem}.mp3")

    assert world.starts == 1


def test_of_two_files_that_look_the_same_the_later_counts() -> None:
    world = World()
    world.play(f"?{COMPOSED}.png", 1, f"?{DECOMPOSED}.png", f"{COMPOSED}.mp3", "=v1", "=v2")

    assert [one.version_id for one in world.job.inputs] == ["v2", "v3"]
    assert world.starts == 1
    assert not world.messages
    assert world.unanswered(UPLOADS, [(f"inbox/{COMPOSED}.png", "v1")]) == frozenset()


def test_defaults_and_named_files_are_found_however_they_are_written() -> None:
    world = World()
    world.play(
        (f"{DECOMPOSED}/_defaults.json", {"resolution": "720p"}), f"?{COMPOSED}/{DECOMPOSED}.png"
    )
    world.play("?a.txt", (f"{COMPOSED}/x.json", {"image": f"{COMPOSED}.png"}), f"{COMPOSED}/x.mp3")

    assert world.job.options == {"resolution": "720p"}
    assert world.job.of(Role.IMAGE)[0].key == f"inbox/{COMPOSED}/{DECOMPOSED}.png"


@pytest.mark.parametrize(
    ("picture", "voice", "difference"),
    [
        ("anna.png", "Anna.mp3", "capitals"),
        ("ÉMILE.png", "émile.mp3", "capitals"),
        ("anna.png", "anna .mp3", "spaces"),
        ("anna.png", " anna.mp3", "spaces"),
        ("anna 1.png", "anna\xa01.mp3", "spaces"),
        ("anna 1.png", "anna\u30001.mp3", "spaces"),
        ("anna.png", "anna\u200b.mp3", "spaces"),
        ("anna 1.png", "anna%201.mp3", "%20"),
        ("Anna 1.png", "anna%201.mp3", "%20, which stands for a space and capitals"),
    ],
)
def test_names_that_nearly_match_are_told_to_both(
    picture: str, voice: str, difference: str
) -> None:
    world = World()
    world.play(f"team/{picture}", f"team/{voice}", "team/below/anna.png", 61)

    assert not world.jobs
    for file, other in ((picture, voice), (voice, picture)):
        message = message_of(world, file.rpartition(".")[0])
        assert f"inbox/team/{other} is there, too, but its name differs in {difference}" in message


@pytest.mark.parametrize("folder", [COMPOSED, DECOMPOSED])
def test_near_misses_are_told_however_the_folder_is_written(folder: str) -> None:
    world = World()
    world.play(f"{folder}/anna.png", f"{folder}/Anna.mp3", 61)

    assert "differs in capitals" in message_of(world, "anna")


def test_a_shared_folder_counts_however_it_is_written() -> None:
    world = World()
    world.intake = replace(world.intake, shared_folders=(f"{COMPOSED}/",))
    world.play(f"{DECOMPOSED}/face.png", 61)

    assert not world.announced


def test_a_named_file_that_nearly_matches_is_told() -> None:
    world = World()
    world.play("faces/Anna.png", ("a.json", {"image": "face.png"}), "Face.png", "?a.mp3", 61)

    assert "inbox/Face.png is there, too, but its name differs in capitals" in message_of(
        world, "a"
    )


spaces = st.sampled_from(["", " ", "\xa0", "\u3000", "\u200b", "%20"])


@given(st.text("abcdeßé1", min_size=1, max_size=6), st.lists(spaces, min_size=7), st.booleans())
def test_capitals_and_spaces_make_a_near_miss(one: str, between: list[str], is_upper: bool) -> None:
    other = "".join(gap + char for gap, char in zip(between, f"{one} ", strict=False))
    other = other.strip(" ").upper() if is_upper else other
    found = list(near_misses(one, [other]))

    assert bool(found) == (one != other)
    assert bool(found) == bool(list(near_misses(other, [one])))


@given(st.text(min_size=1, max_size=6), st.sampled_from("xyz"))
def test_other_names_are_no_near_misses(one: str, more: str) -> None:
    assert not list(near_misses(one, [f"{one}{more}", one]))


# Options


@pytest.mark.parametrize("file", ["a.json", "a.JSON", "a.Json", "a.json.txt", "a.JSON.TXT"])
def test_options_count_however_they_are_spelled(file: str) -> None:
    world = World()
    world.play("?a.png", "?a.mp3", (file, {"resolution": "720p"}))

    assert world.job.options == {"resolution": "720p"}
    assert not world.job.problems


@pytest.mark.parametrize("file", ["a.txt", "a.TXT", "a.Txt"])
def test_a_prompt_counts_however_it_is_spelled(file: str) -> None:
    world = World()
    world.play("?a.png", "?a.mp3", (file, "She smiles."))

    assert world.job.prompt == "She smiles."


@pytest.mark.parametrize(
    "file", ["_defaults.json", "_Defaults.JSON", "_DEFAULTS.json", "_defaults.json.txt"]
)
def test_defaults_count_however_they_are_spelled(file: str) -> None:
    world = World()
    world.play((f"team/{file}", {"resolution": "720p"}), "?team/sub/a.png", "team/sub/a.mp3")

    assert world.job.options == {"resolution": "720p"}
    assert not world.job.problems


def test_two_defaults_of_one_folder_may_not_contradict() -> None:
    world = World()
    world.play(
        ("_defaults.json", {"resolution": "720p"}), ("_Defaults.json", {"resolution": "480p"})
    )
    world.play("?a.png", "a.mp3")

    (problem,) = world.job.problems
    assert "_defaults.json" in problem.cure
    assert "_Defaults.json" in problem.cure


@pytest.mark.parametrize(
    ("file", "right_name"),
    [
        ("a.yaml", "a.json"),
        ("a.YML", "a.json"),
        ("a.md", "a.txt"),
        ("a.rtf", "a.txt"),
        ("defaults.json", "_defaults.json"),
        ("Defaults.json", "_defaults.json"),
        ("DEFAULTS.JSON", "_defaults.json"),
        ("_defaults.txt", "_defaults.json"),
        ("_defaults.yaml", "_defaults.json"),
        ("../defaults.json", "_defaults.json"),
    ],
)
def test_what_looks_like_options_and_is_none_refuses_the_job(file: str, right_name: str) -> None:
    world = World()
    path = f"inbox/team/{file}".replace("team/../", "")
    world.drop(path, "resolution: 720p")
    world.play("?team/a.png", "team/a.mp3")

    (problem,) = world.job.problems
    assert problem.file == path
    assert right_name in problem.rule
    assert path in {one.key for one in world.job.inputs}


@pytest.mark.parametrize("file", ["defaults.json", "_defaults.txt", "_defaults.yaml", "a.yaml"])
def test_a_misnamed_file_that_comes_late_is_answered_too(file: str) -> None:
    world = World()
    world.play("?a.png", "a.mp3", 5, file)

    assert world.starts == 2
    late = list(world.jobs.values())[-1]
    assert [problem.file for problem in late.problems] == [f"inbox/{file}"]


def test_other_endings_beside_a_job_are_listed() -> None:
    world = World()
    world.play("?a.png", "?a.docx", "?a.srt", "a.mp3")

    assert world.job.ignored == ("inbox/a.docx", "inbox/a.srt")
    assert not world.job.problems


def test_all_defaults_belong_to_the_job() -> None:
    world = World()
    deep = "d/" * 15
    for depth in range(16):
        world.drop(f"inbox/{'d/' * depth}_defaults.json", "{}")
    world.play(f"?{deep}a.png", f"{deep}a.mp3")

    assert len(world.job.of(Role.DEFAULTS)) == 16


# Empty files


@pytest.mark.parametrize("file", ["a.png", "a.mp3", "a.txt", "a.json", "_defaults.json"])
def test_an_empty_file_holds_the_job(file: str) -> None:
    world = World()
    others = [one for one in ("a.png", "a.mp3") if one != file]
    world.play((file, ""), *others, 5)
    assert not world.jobs

    world.play((file, {} if file.endswith(".json") else "Hello."), 16)

    assert world.starts == 1
    assert not world.job.problems
    assert all(one.size_bytes for one in world.job.inputs)


def test_a_named_file_that_is_empty_holds_the_job() -> None:
    world = World()
    world.play(("?face.png", ""), ("a.json", {"image": "face.png"}), "a.mp3", 5)
    assert not world.jobs

    world.play("?face.png", 16)

    assert world.starts == 1


def test_a_file_that_stays_empty_is_named() -> None:
    world = World()
    world.play("?a.png", ("a.mp3", ""), 61)

    assert message_of(world, "a") == (
        "a.png, a.mp3 waited 60 minutes in inbox/ for the content of inbox/a.mp3. inbox/a.mp3 is "
        "empty: it has 0 bytes. Drop inbox/a.mp3 again."
    )


# Folders


def test_folders_go_twenty_deep(world: World) -> None:
    deep = "d/" * 20
    world.play(("d/_defaults.json", {"resolution": "720p"}), f"?{deep}a.png", f"{deep}a.mp3", 1)

    assert world.job.options == {"resolution": "720p"}
    assert not world.job.problems


def test_a_deeper_folder_is_refused_with_two_listings(world: World) -> None:
    deep = "d/" * 21
    world.play(f"?{deep}a.png", f"{deep}a.mp3", 1, "=v1", "=v2", 2 * DAY)

    (problem,) = world.job.problems
    assert (problem.found, world.starts) == ("21 folders", 1)
    assert len(world.listed_prefixes) <= 2


@pytest.mark.parametrize("key", ["a\x01", "a\nb", "a\x1b[31m", "folder\x7f/a", "a\x85"])
def test_a_name_with_control_characters_is_refused(key: str) -> None:
    world = World()
    world.play(f"?{key}.png", f"{key}.mp3")

    (problem,) = world.job.problems
    assert "control characters" in problem.found


# What is without versions


def test_in_a_bucket_without_versioning_each_file_is_answered() -> None:
    world = World()
    world.versioned = False
    for body in ("one", "two"):
        world.drop("inbox/a.png", body, version_id="null")
        world.tell(world.seen["null"])

    assert len(world.jobs) == 2
    assert not world.messages


def test_files_from_before_versioning_make_one_job() -> None:
    world = World()
    world.drop("inbox/a.png", version_id="null")
    world.play("a.mp3", "=null", 5, "=null")

    assert world.starts == 1
    assert not world.messages


# What cannot be read


@pytest.mark.parametrize("file", ["a.json", "a.txt", "_defaults.json"])
def test_a_document_that_s3_refuses_is_an_answer(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = Reason(file=f"inbox/{file}", rule="readable", found="archived", cure="Restore it.")

    def refuse(world: World, bucket: str, pinned: Input) -> bytes:
        raise Unreadable(reason)

    monkeypatch.setattr(World, "read", refuse)
    world = World()
    world.play(f"?{file}", "?a.png", "a.mp3")

    assert world.job.problems == (reason,)


# Failures


@pytest.mark.parametrize("method", ["current_versions", "claim", "start"])
def test_the_last_failure_of_an_upload_writes_an_error_file(method: str) -> None:
    world = World()
    world.play("?team/a.png", "?team/a.mp3")
    with world.crash_at(method):
        world.intake.take_in(world.seen["v1"])
    assert not world.files

    with world.crash_at(method):
        world.intake.take_in(world.seen["v1"], is_last_try=True)

    assert "inbox/team/a.png" in world.files["team/a.error.json"]
    assert '"UploadNotProcessed"' in world.files["team/a.error.json"]
    world.sweep()
    assert world.starts == 1


def test_a_last_try_that_works_leaves_no_error_file() -> None:
    world = World()
    world.play("?team/a.png", "?team/a.mp3")

    world.intake.take_in(world.seen["v1"], is_last_try=True)

    assert world.starts == 1
    assert not world.files


def test_a_last_try_leaves_an_earlier_error_file() -> None:
    world = World()
    world.play("team/a.png", 61)
    (announced,) = world.files.items()

    world.answered.clear()
    world.intake.take_in(world.seen["v1"], is_last_try=True)

    assert world.files == dict([announced])
    assert len(world.announced) == 1


def test_the_error_file_is_there_before_the_last_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that runs out of time or memory is killed: it writes nothing more."""
    world = World()
    world.play("?team/a.png")

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(World, "current_versions", kill)
    with pytest.raises(Killed):
        world.intake.take_in(world.seen["v1"], is_last_try=True)

    assert '"UploadNotProcessed"' in world.files["team/a.error.json"]


def test_a_folder_below_costs_no_listing() -> None:
    world = World()
    for number in range(50):
        world.drop(f"inbox/_done/{number}.png")
    world.drop("inbox/a.b/c.png")
    world.play("?a.png", "a.mp3")

    assert [one.key for one in world.current_versions(UPLOADS, "inbox/_d", "inbox/a.")] == [
        "inbox/a.mp3",
        "inbox/a.png",
    ]
    assert world.starts == 1


# A dry run

DRY: Parsed = {"dry_run": True}


@cases(
    {
        "then for real": (
            [("?a.json", DRY), "?a.png", "a.mp3", ("a.json", {})],
            ["0 start a.png@2 a.mp3@3 a.json@1", "0 start a.png@2 a.mp3@3 a.json@4"],
        ),
        "of what was rendered": (
            ["?a.png", "a.mp3", ("a.json", DRY)],
            ["0 start a.png@1 a.mp3@2", "0 start a.png@1 a.mp3@2 a.json@3"],
        ),
        "of a whole folder, then for real": (
            [("_defaults.json", DRY), "?a.png", "a.mp3", ("_defaults.json", {}), "a.png"],
            [
                "0 start a.png@2 a.mp3@3 _defaults.json@1",
                "0 start a.png@5 a.mp3@3 _defaults.json@4",
            ],
        ),
        "told of again": (
            [("?a.json", DRY), "?a.png", "a.mp3", "=v1", "=v2", SWEEP],
            ["0 start a.png@2 a.mp3@3 a.json@1"],
        ),
    }
)
def test_dry_run_stands_in_no_render_s_way(world: World, steps: list[Step], log: list[str]) -> None:
    world.intake = replace(world.intake, settle=timedelta(0))

    world.play(*steps, 120)

    assert world.log == log
    jobs = world.jobs.values()
    assert [job.dry_run for job in jobs].count(True) == 1
    assert world.drops == [job.id for job in jobs if not job.dry_run]
