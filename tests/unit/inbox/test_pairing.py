"""Which uploads belong together."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropreel.inbox.pairing import Group, Name, as_seen, name_of
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
        "inbox/Thumbs.db:encryptable",
        "inbox/ehthumbs_vista.db",
        "inbox/anna.png:Zone.Identifier",
        "inbox/~lock.anna.odt#",
        "inbox/anna.png~",
        "inbox/anna.png.part",
        "inbox/anna.mp3.TMP",
        "inbox/anna.mp3.crdownload",
        "inbox/anna.png.filepart",
        "inbox/anna.png.partial",
        "inbox/team/@eaDir/anna.png/SYNOFILE_THUMB_M.png",
        "inbox/#recycle/anna.png",
        "inbox/#snapshot/daily/anna.png",
        "inbox/__MACOSX/team/anna.png",
        "inbox/$RECYCLE.BIN/anna.png",
        "inbox/lost+found/anna.png",
        "inbox/.Trash-1000/files/anna.png",
        "inbox/System Volume Information/anna.png",
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
        ("_Defaults.JSON", Role.DEFAULTS),
        ("_defaults.json.txt", Role.DEFAULTS),
        ("_defaults.txt", Role.DEFAULTS),
        ("defaults.json", Role.DEFAULTS),
        ("_defaults.png", Role.IMAGE),
        ("anna.Json", Role.OPTIONS),
        ("anna.json.txt", Role.OPTIONS),
        ("anna.Txt", Role.PROMPT),
        ("anna.yaml", Role.OPTIONS),
        ("anna.md", Role.PROMPT),
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


def test_unknown_files_make_no_job() -> None:
    group = group_of("_defaults.png", "_defaults.json", "_defaults.docx", "_defaults.txt")

    assert [upload.key for upload in group.own] == [
        "inbox/_defaults.png",
        "inbox/_defaults.json",
        "inbox/_defaults.txt",
    ]


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
    ("file", "right_name"),
    [
        ("anna.yaml", "anna.json"),
        ("anna.YML", "anna.json"),
        ("anna.md", "anna.txt"),
        ("anna.rtf", "anna.txt"),
        ("defaults.json", "_defaults.json"),
        ("Defaults.json.txt", "_defaults.json"),
        ("_defaults.txt", "_defaults.json"),
        ("_defaults.yaml", "_defaults.json"),
        ("_Defaults.JSON.txt", None),
        ("anna.json.txt", None),
        ("anna.docx", None),
    ],
)
def test_what_looks_like_a_document_has_a_right_name(file: str, right_name: str | None) -> None:
    name = name_of(f"inbox/{file}")

    assert name is not None
    assert name.should_be == right_name


@pytest.mark.parametrize(
    ("key", "folders"),
    [
        ("inbox/anna.png", ["inbox/"]),
        ("inbox/a/b c/anna.png", ["inbox/a/b c/", "inbox/a/", "inbox/"]),
        ("inbox//a//anna.png", ["inbox//a//", "inbox//a/", "inbox//", "inbox/"]),
    ],
)
def test_defaults_lie_in_the_folder_and_in_all_above_it(key: str, folders: list[str]) -> None:
    name = name_of(key)

    assert name is not None
    assert name.folders == name.written_folders == folders


def test_names_that_look_the_same_are_one_name() -> None:
    composed, decomposed = (
        name_of("inbox/Jos\xe9/Ren\xe9e.png"),
        name_of("inbox/Jose\u0301/Rene\u0301e.mp3"),
    )

    assert composed and decomposed
    assert composed.base == decomposed.base
    assert set(composed.prefixes) == set(decomposed.prefixes)
    assert set(composed.written_folders) == set(decomposed.written_folders)


def test_of_files_that_look_the_same_the_later_one_counts() -> None:
    name = name_of("inbox/Ren\xe9e.png")
    assert name is not None
    earlier = ObjectVersion("inbox/Rene\u0301e.png", "v1", 1, NOON)
    later = ObjectVersion("inbox/Ren\xe9e.png", "v2", 1, NOON + timedelta(seconds=1))

    assert Group.around(name, [later, earlier]).uploads == (later,)


segments = st.text(
    st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda text: not text.startswith((".", "~$")))


@given(st.lists(segments, max_size=4), segments)
def test_any_name_finds_its_other_half(folders: list[str], stem: str) -> None:
    folder = "".join(f"{segment}/" for segment in folders)
    keys = [f"inbox/{folder}{stem}.{ending}" for ending in ("png", "mp3")]

    names = [name_of(key) for key in keys]

    assert names == [
        Name(as_seen(folder), as_seen(stem), ending, key)
        for ending, key in zip(("png", "mp3"), keys, strict=True)
    ]
    assert names[0] and f"{names[0].base}.png" == as_seen(keys[0])
