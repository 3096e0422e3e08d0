"""Which uploads belong together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.job import Role
from dropreel.pairing import NAMED_AT_MOST, Group, Name, name_of
from dropreel.storage import ObjectVersion

MODEL = "wan-2.2-speech-to-video"


def group_of(*files: str) -> Group:
    """The group around the first of the files."""
    name = name_of(f"inbox/{files[0]}")
    assert name is not None
    return Group.around(name, [ObjectVersion(f"inbox/{file}", "v1", 1) for file in files])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("inbox/anna.png", Name("", "anna", "png")),
        ("inbox/team/anna.png", Name("team/", "anna", "png")),
        ("inbox/a/b/c/d/anna.mp3", Name("a/b/c/d/", "anna", "mp3")),
        ("inbox/anna.v2.png", Name("", "anna.v2", "png")),
        ("inbox/v1.2/anna", Name("v1.2/", "anna", "")),
        ("inbox/anna.", Name("", "anna", "")),
        ("inbox//anna.png", Name("/", "anna", "png")),
        ("inbox/inbox/anna.png", Name("inbox/", "anna", "png")),
        ("inbox/a b+c%20d'\"&/é😀 .png", Name("a b+c%20d'\"&/", "é😀 ", "png")),
        ("inbox/Thumbs.png", Name("", "Thumbs", "png")),
    ],
)
def test_a_key_is_folder_stem_and_ending(key: str, expected: Name) -> None:
    assert name_of(key) == expected


@pytest.mark.parametrize(
    "key",
    [
        "inbox/",
        "inbox/team/",
        "inbox/.DS_Store",
        "inbox/team/.DS_Store",
        "inbox/._anna.png",
        "inbox/.png",
        "inbox/.AppleDouble/anna.png",
        "inbox/../anna.png",
        "inbox/Thumbs.db",
        "inbox/team/thumbs.DB",
        "inbox/desktop.ini",
        "inbox/~$anna.docx",
        "anna.png",
        "work/anna.png",
        "inboxes/anna.png",
    ],
)
def test_no_job_is_made_of_litter(key: str) -> None:
    assert name_of(key) is None


@pytest.mark.parametrize(
    ("file", "role"),
    [
        ("anna.png", Role.IMAGE),
        ("anna.JPG", Role.IMAGE),
        ("anna.HeIc", Role.IMAGE),
        ("anna.tiff", Role.IMAGE),
        ("anna.wav", Role.AUDIO),
        ("anna.MP3", Role.AUDIO),
        ("anna.m4a", Role.AUDIO),
        ("anna.opus", Role.AUDIO),
        ("anna.psd", None),
        ("anna.txt", None),
        ("anna.", None),
        ("anna", None),
        ("png", None),
    ],
)
def test_the_ending_says_what_a_file_is_to_its_job(file: str, role: Role | None) -> None:
    name = name_of(f"inbox/{file}")

    assert name is not None
    assert name.role is role


@pytest.mark.parametrize(
    ("files", "ready", "missing"),
    [
        (["anna.png", "anna.mp3"], True, ()),
        (["anna.png", "anna.mp3", "anna.psd"], True, ()),
        (["anna.png"], False, (Role.AUDIO,)),
        (["anna.mp3"], False, (Role.IMAGE,)),
        (["anna.psd"], False, (Role.IMAGE, Role.AUDIO)),
        (["anna.png", "bert.mp3"], False, (Role.AUDIO,)),
        (["anna.png", "Anna.mp3"], False, (Role.AUDIO,)),
        (["anna.png", "team/anna.mp3"], False, (Role.AUDIO,)),
        (["anna.png", "anna.v2.mp3"], False, (Role.AUDIO,)),
        (["anna.png", "anna.d/anna.mp3"], False, (Role.AUDIO,)),
        (["Thumbs.png", "Thumbs.db"], False, (Role.AUDIO,)),
        (["anna.png", "anna.jpg", "anna.mp3"], True, ()),
        (["anna.png", "anna.PNG"], True, (Role.AUDIO,)),
        (["anna.mp3", "anna.wav"], True, (Role.IMAGE,)),
    ],
)
def test_a_group_is_ready_when_waiting_cannot_make_it_better(
    files: list[str], ready: bool, missing: tuple[Role, ...]
) -> None:
    group = group_of(*files)

    assert group.is_ready == ready
    assert group.missing == missing


def test_a_job_pins_the_pair_and_nothing_else() -> None:
    job = group_of("team/anna.png", "team/anna.mp3", "team/anna.psd").job("uploads", MODEL)

    assert [(given.role, given.key, given.version_id) for given in job.inputs] == [
        (Role.IMAGE, "inbox/team/anna.png", "v1"),
        (Role.AUDIO, "inbox/team/anna.mp3", "v1"),
    ]
    assert (job.bucket, job.folder, job.stem, job.model) == ("uploads", "team/", "anna", MODEL)


def test_a_refusal_holds_all_that_is_too_many() -> None:
    job = group_of("anna.png", "anna.jpg", "anna.mp3", "anna.wav").job("uploads", MODEL)

    assert {given.key for given in job.inputs} == {
        "inbox/anna.png",
        "inbox/anna.jpg",
        "inbox/anna.mp3",
        "inbox/anna.wav",
    }


def test_a_refusal_stays_small_however_many_share_the_stem() -> None:
    spellings = [f"anna.{a}{b}{c}{d}" for a in "jJ" for b in "pP" for c in "eE" for d in ("g", "G")]

    job = group_of("anna.mp3", *spellings).job("uploads", MODEL)

    assert len(job.inputs) <= 2 * NAMED_AT_MOST


segments = st.text(
    st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda text: not text.startswith((".", "~$")))


@given(st.lists(segments, max_size=4), segments)
def test_any_name_finds_its_other_half_and_gives_its_key_back(
    folders: list[str], stem: str
) -> None:
    folder = "".join(f"{segment}/" for segment in folders)
    keys = [f"inbox/{folder}{stem}.{ending}" for ending in ("png", "mp3")]

    names = [name_of(key) for key in keys]

    assert names == [Name(folder, stem, "png"), Name(folder, stem, "mp3")]
    assert names[0] and f"{names[0].base}.png" == keys[0]
