"""Which uploads belong together."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.inbox.pairing import Group, Name, name_of
from dropreel.model.job import Role
from dropreel.model.uploads import ObjectVersion

NOON = datetime(2026, 11, 12, 12, tzinfo=UTC)


def group_of(*files: str) -> Group:
    """The group around the first of the files."""
    name = name_of(f"inbox/{files[0]}")
    assert name is not None
    return Group.around(name, [ObjectVersion(f"inbox/{file}", "v1", 1, NOON) for file in files])


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
def test_litter_makes_no_job(key: str) -> None:
    assert name_of(key) is None


@pytest.mark.parametrize(
    ("file", "role"),
    [
        ("anna.png", Role.IMAGE),
        ("anna.JPG", Role.IMAGE),
        ("anna.HeIc", Role.IMAGE),
        ("anna.tiff", Role.IMAGE),
        ("anna.HIF", Role.IMAGE),
        ("anna.DNG", Role.IMAGE),
        ("anna.pdf", Role.IMAGE),
        ("anna.wav", Role.AUDIO),
        ("anna.MP3", Role.AUDIO),
        ("anna.m4a", Role.AUDIO),
        ("anna.opus", Role.AUDIO),
        ("anna.qta", Role.AUDIO),
        ("anna.3gpp", Role.AUDIO),
        ("anna.mov", Role.AUDIO),
        ("anna.webm", Role.AUDIO),
        ("anna.txt", Role.PROMPT),
        ("ANNA.TXT", Role.PROMPT),
        ("anna.json", Role.OPTIONS),
        ("ANNA.JSON", Role.OPTIONS),
        ("_defaults.json", Role.DEFAULTS),
        ("team/_defaults.json", Role.DEFAULTS),
        ("_defaults.txt", Role.PROMPT),
        ("_defaults.png", Role.IMAGE),
        ("anna.Json", None),
        ("anna.docx", None),
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
    ("files", "beside"),
    [
        (["anna.png", "anna.mp3", "anna.txt", "anna.json", "anna.docx", "anna"], True),
        (["anna.png", "bert.mp3"], False),
        (["anna.png", "Anna.mp3"], False),
        (["anna.png", "team/anna.mp3"], False),
        (["anna.png", "anna.v2.mp3"], False),
        (["anna.png", "anna.d/anna.mp3"], False),
        (["Thumbs.png", "Thumbs.db"], False),
    ],
)
def test_the_same_folder_and_stem_belong_together(files: list[str], beside: bool) -> None:
    together = {upload.key.removeprefix("inbox/") for upload in group_of(*files).uploads}

    assert together == set(files if beside else files[:1])


def test_defaults_and_unknown_files_belong_to_no_job() -> None:
    group = group_of("_defaults.png", "_defaults.json", "_defaults.docx", "_defaults.txt")

    assert [upload.key for upload in group.own] == ["inbox/_defaults.png", "inbox/_defaults.txt"]


def test_an_unusable_picture_counts_only_without_another() -> None:
    (raw,) = group_of("anna.CR2", "anna.mp3").of(Role.IMAGE)
    (picture,) = group_of("anna.CR2", "anna.JPG").of(Role.IMAGE)

    assert (raw.key, picture.key) == ("inbox/anna.CR2", "inbox/anna.JPG")


def test_only_the_own_uploads_make_the_fingerprint() -> None:
    pair = group_of("anna.png", "anna.mp3")

    assert pair.fingerprint == group_of("anna.mp3", "anna.png", "anna.docx").fingerprint
    assert pair.fingerprint != group_of("anna.png", "anna.mp3", "anna.txt").fingerprint
    assert pair.fingerprint != group_of("anna.png").fingerprint


@pytest.mark.parametrize(
    ("key", "defaults"),
    [
        ("inbox/anna.png", ["inbox/_defaults.json"]),
        (
            "inbox/a/b c/anna.png",
            ["inbox/a/b c/_defaults.json", "inbox/a/_defaults.json", "inbox/_defaults.json"],
        ),
        (
            "inbox//a//anna.png",
            [
                "inbox//a//_defaults.json",
                "inbox//a/_defaults.json",
                "inbox//_defaults.json",
                "inbox/_defaults.json",
            ],
        ),
    ],
)
def test_defaults_lie_in_the_folder_and_in_all_above_it(key: str, defaults: list[str]) -> None:
    name = name_of(key)

    assert name is not None
    assert list(name.defaults_keys) == defaults


segments = st.text(
    st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda text: not text.startswith((".", "~$")))


@given(st.lists(segments, max_size=4), segments)
def test_any_name_finds_its_other_half_and_keeps_its_key(folders: list[str], stem: str) -> None:
    folder = "".join(f"{segment}/" for segment in folders)
    keys = [f"inbox/{folder}{stem}.{ending}" for ending in ("png", "mp3")]

    names = [name_of(key) for key in keys]

    assert names == [Name(folder, stem, "png"), Name(folder, stem, "mp3")]
    assert names[0] and f"{names[0].base}.png" == keys[0]
