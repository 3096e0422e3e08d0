"""When a job is ready, and what it is made of."""

import json
from datetime import UTC, datetime

import pytest

from dropreel.inbox.documents import Read
from dropreel.inbox.job_file import MAX_PROBLEMS, nearest_wins, parse
from dropreel.inbox.pairing import Group, name_of
from dropreel.inbox.pending_job import MAX_NAMED, PendingJob
from dropreel.model.job import Role
from dropreel.model.uploads import ObjectVersion

NOON = datetime(2026, 11, 12, 12, tzinfo=UTC)

SPEECH = "wan-2.2-speech-to-video"
MOTION = "wan-2.2-image-to-video"
FLASH = "wan-2.6-flash-image-to-video"
ANNA = "inbox/team/anna.json"


def pending_job(
    *files: str,
    own: dict[str, object] | None = None,
    defaults: dict[str, object] | None = None,
    there: tuple[str, ...] = (),
    model: str = SPEECH,
) -> PendingJob:
    """The draft around `anna`, whose `anna.json` and `_defaults.json` say something."""
    name = name_of("inbox/team/anna.png")
    assert name is not None
    says = ["anna.json"] if own is not None else []
    listed = [ObjectVersion(f"inbox/team/{file}", "v1", 1, NOON) for file in (*files, *says)]
    own_file, inherited = (
        parse(role, key, json.dumps(said or {}).encode(), ("faces/",))
        for role, key, said in (
            (Role.OPTIONS, ANNA, own),
            (Role.DEFAULTS, "inbox/team/_defaults.json", defaults),
        )
    )
    folder = (ObjectVersion("inbox/team/_defaults.json", "d1", 2, NOON),) if defaults else ()
    group = Group.around(name, listed)
    return PendingJob(
        bucket="uploads",
        name=name,
        group=group,
        own=Read(own_file, group.of(Role.OPTIONS), {}),
        inherited=Read(nearest_wins([inherited]), folder, {}),
        found={key: ObjectVersion(key, "n1", 3, NOON) for key in there},
        deployed_model=model,
    )


IMAGE, AUDIO, PROMPT = Role.IMAGE, Role.AUDIO, Role.PROMPT
FACE = "inbox/faces/anna.png"
FACE_BESIDE = "inbox/team/face.png"


@pytest.mark.parametrize(
    ("made", "ready", "missing"),
    [
        (pending_job("anna.png", "anna.mp3"), True, ()),
        (pending_job("anna.png", "anna.mp3", "anna.docx"), True, ()),
        (pending_job("anna.png"), False, (AUDIO,)),
        (pending_job("anna.mp3"), False, (IMAGE,)),
        (pending_job("anna.docx"), False, (IMAGE, AUDIO)),
        (pending_job("anna.docx", defaults={"sed": 1}), False, (IMAGE, AUDIO)),
        (pending_job("anna.png", "anna.jpg", "anna.mp3"), True, ()),
        (pending_job("anna.png", "anna.PNG"), True, (AUDIO,)),
        (pending_job("anna.mp3", "anna.wav"), True, (IMAGE,)),
        # what the model needs
        (pending_job("anna.png", model=MOTION), False, (PROMPT,)),
        (pending_job("anna.png", "anna.mp3", model=FLASH), False, (PROMPT,)),
        (pending_job("anna.png", own={"prompt": "hi"}, model=FLASH), True, ()),
        (pending_job("anna.png", own={"prompt": "hi", "model": MOTION}), True, ()),
        (pending_job("anna.png", defaults={"prompt": "hi", "model": MOTION}), True, ()),
        (pending_job(own={"prompt": "hi"}), False, (IMAGE, AUDIO)),
        # files that are named
        (pending_job(own={"image": "../faces/anna.png"}), False, (IMAGE, AUDIO)),
        (pending_job("anna.mp3", own={"image": "../faces/anna.png"}), False, (IMAGE,)),
        (pending_job("anna.mp3", own={"image": "../faces/anna.png"}, there=(FACE,)), True, ()),
        (pending_job("anna.png", own={"audio": "monday.mp3"}), False, (AUDIO,)),
        (
            pending_job("anna.png", own={"audio": "monday.mp3", "prompt": "hi", "model": FLASH}),
            False,
            (AUDIO,),
        ),
        # an avatar
        (pending_job("anna.mp3", defaults={"image": "face.png"}), False, (IMAGE,)),
        (pending_job("anna.mp3", defaults={"image": "face.png"}, there=(FACE_BESIDE,)), True, ()),
        (
            pending_job("anna.png", defaults={"image": "face.png"}, there=(FACE_BESIDE,)),
            False,
            (AUDIO,),
        ),
        # a refusal needs no waiting
        (pending_job(own={"sed": 1}), True, (IMAGE, AUDIO)),
        (pending_job("anna.png", defaults={"sed": 1}), True, (AUDIO,)),
        (pending_job("anna.DNG"), False, (AUDIO,)),
        (pending_job("anna.DNG", "anna.mp3"), True, ()),
        (pending_job("anna.psd", "anna.png"), False, (AUDIO,)),
    ],
)
def test_a_job_is_ready_when_waiting_cannot_make_it_better(
    made: PendingJob, ready: bool, missing: tuple[Role, ...]
) -> None:
    assert made.is_ready == ready
    assert made.missing == missing


def test_a_job_pins_its_own_files_the_named_and_the_defaults() -> None:
    job = pending_job(
        "anna.mp3",
        "anna.txt",
        "anna.docx",
        own={"image": "../faces/anna.png", "seed": 7, "model": FLASH},
        defaults={"seed": 1, "resolution": "720p", "prompt": "hi"},
        there=(FACE,),
    ).job()

    assert [(given.role, given.key, given.version_id) for given in job.inputs] == [
        (Role.IMAGE, FACE, "n1"),
        (Role.AUDIO, "inbox/team/anna.mp3", "v1"),
        (Role.PROMPT, "inbox/team/anna.txt", "v1"),
        (Role.OPTIONS, ANNA, "v1"),
        (Role.DEFAULTS, "inbox/team/_defaults.json", "d1"),
    ]
    assert (job.bucket, job.folder, job.stem, job.model) == ("uploads", "team/", "anna", FLASH)
    assert (job.prompt, job.options) == ("hi", {"seed": 7, "resolution": "720p"})
    assert job.problems == ()


NAMES_A_FACE: dict[str, object] = {"image": "../faces/anna.png"}
BESIDE = "inbox/team/anna.png"


@pytest.mark.parametrize(
    ("made", "picture"),
    [
        (
            pending_job(
                "anna.png", "anna.mp3", defaults={"image": "face.png"}, there=(FACE_BESIDE,)
            ),
            BESIDE,
        ),
        (
            pending_job(
                "anna.mp3",
                own=NAMES_A_FACE,
                defaults={"image": "face.png"},
                there=(FACE_BESIDE, FACE),
            ),
            FACE,
        ),
        (pending_job("anna.png", "anna.mp3", own={"image": "anna.png"}, there=(BESIDE,)), BESIDE),
    ],
    ids=["own beats avatar", "named beats avatar", "own and named is one"],
)
def test_a_job_has_one_picture(made: PendingJob, picture: str) -> None:
    assert made.problems == ()
    assert [given.key for given in made.job().of(Role.IMAGE)] == [picture]


def test_a_picture_beside_a_named_one_is_a_refusal_that_names_both() -> None:
    made = pending_job("anna.png", "anna.mp3", own=NAMES_A_FACE, there=(FACE,))

    (problem,) = made.job().problems
    assert made.is_ready
    assert problem.file == "inbox/team/anna.png"
    assert FACE in problem.rule


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("anna.DNG", "a camera raw photo (.DNG)"),
        ("anna.jxl", "a JPEG XL picture (.jxl)"),
        ("anna.svg", "an SVG drawing (.svg)"),
        ("anna.psd", "a Photoshop document (.psd)"),
    ],
)
def test_an_unusable_picture_is_refused_by_its_name(file: str, found: str) -> None:
    job = pending_job(file, "anna.mp3", defaults={"image": "face.png"}, there=(FACE_BESIDE,)).job()

    (problem,) = job.problems
    assert [given.key for given in job.of(Role.IMAGE)] == [problem.file]
    assert (problem.file, problem.found) == (f"inbox/team/{file}", found)
    assert problem.cure == "Export it as JPEG or PNG, and drop anna.jpg or anna.png."


def test_a_pdf_is_refused_as_the_picture_and_passed_over_as_a_script() -> None:
    (problem,) = pending_job("anna.pdf", "anna.mp3").problems
    avatar = pending_job(
        "anna.pdf", "anna.mp3", defaults={"image": "face.png"}, there=(FACE_BESIDE,)
    )
    named = pending_job("anna.pdf", "anna.mp3", own=NAMES_A_FACE, there=(FACE,))

    assert problem.found == "a PDF document (.pdf)"
    assert (avatar.problems, named.problems) == ((), ())
    assert [given.key for given in avatar.job().of(Role.IMAGE)] == [FACE_BESIDE]


def test_an_unusable_picture_next_to_another_is_not_used() -> None:
    job = pending_job("anna.cr3", "anna.jpg", "anna.mp3").job()

    assert [given.key for given in job.of(Role.IMAGE)] == ["inbox/team/anna.jpg"]
    assert job.problems == ()


def test_an_unusable_picture_that_is_named_is_refused() -> None:
    raw = "inbox/faces/anna.nef"

    (problem,) = pending_job("anna.mp3", own={"image": "../faces/anna.nef"}, there=(raw,)).problems

    assert problem.file == raw
    assert problem.cure == "Export it as JPEG or PNG, and name the new file instead."


def test_another_rival_is_another_refusal() -> None:
    refused = [
        pending_job(rival, "anna.mp3", own=NAMES_A_FACE, there=(FACE,)).job()
        for rival in ("anna.png", "anna.jpg")
    ]

    assert refused[0].inputs == refused[1].inputs
    assert refused[0].id != refused[1].id


def test_a_refusal_holds_all_that_is_too_many() -> None:
    files = ["anna.png", "anna.jpg", "anna.mp3", "anna.wav"]

    inputs = pending_job(*files).job().inputs

    assert {given.key.rpartition("/")[2] for given in inputs} == set(files)


def test_a_refusal_stays_small_however_many_share_the_stem() -> None:
    spellings = [f"anna.{a}{b}{c}{d}" for a in "jJ" for b in "pP" for c in "eE" for d in ("g", "G")]

    job = pending_job("anna.mp3", *spellings).job()

    assert len(job.inputs) <= 2 * MAX_NAMED


def test_problems_stay_few_however_many_files_have_them() -> None:
    wrong: dict[str, object] = {f"x{number}": 1 for number in range(MAX_PROBLEMS)}

    assert len(pending_job("anna.png", own=wrong, defaults=wrong).job().problems) == MAX_PROBLEMS


@pytest.mark.parametrize(
    "other",
    [
        pending_job("anna.png", "anna.mp3", own={"seed": 7}),
        pending_job("anna.png", "anna.mp3", "anna.txt"),
        pending_job("anna.png", "anna.mp3", defaults={"seed": 7}),
        pending_job("anna.png", "anna.mp3", model=FLASH),
        pending_job("anna.jpg", "anna.mp3"),
    ],
)
def test_whatever_a_job_is_made_of_is_in_its_id(other: PendingJob) -> None:
    assert other.job().id != pending_job("anna.png", "anna.mp3").job().id


def test_deploy_time_parameters_come_last() -> None:
    assert pending_job(model=MOTION).model == MOTION
    assert pending_job(defaults={"model": FLASH}, model=MOTION).model == FLASH
    assert (
        pending_job(own={"model": SPEECH}, defaults={"model": FLASH}, model=MOTION).model == SPEECH
    )
