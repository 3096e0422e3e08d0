"""When a job is ready, and what it is made of."""

import json

import pytest

from dropreel.inbox.job_file import PROBLEMS_AT_MOST, nearest_wins, said_in
from dropreel.inbox.pairing import Group, name_of
from dropreel.inbox.pending_job import NAMED_AT_MOST, Draft
from dropreel.model.job import Role
from dropreel.model.uploads import ObjectVersion

SPEECH = "wan-2.2-speech-to-video"
MOTION = "wan-2.2-image-to-video"
FLASH = "wan-2.6-flash-image-to-video"
ANNA = "inbox/team/anna.json"


def draft(
    *files: str,
    own: dict[str, object] | None = None,
    defaults: dict[str, object] | None = None,
    there: tuple[str, ...] = (),
    model: str = SPEECH,
) -> Draft:
    """The draft around `anna`, whose `anna.json` and `_defaults.json` say something."""
    name = name_of("inbox/team/anna.png")
    assert name is not None
    says = ["anna.json"] if own is not None else []
    listed = [ObjectVersion(f"inbox/team/{file}", "v1", 1) for file in (*files, *says)]
    return Draft(
        bucket="uploads",
        group=Group.around(name, listed),
        own=said_in(Role.OPTIONS, ANNA, json.dumps(own or {}).encode(), ("faces/",)),
        inherited=nearest_wins(
            [
                said_in(
                    Role.DEFAULTS,
                    "inbox/team/_defaults.json",
                    json.dumps(defaults).encode(),
                    ("faces/",),
                )
            ]
            if defaults is not None
            else []
        ),
        defaults=(ObjectVersion("inbox/team/_defaults.json", "d1", 2),) if defaults else (),
        found={key: ObjectVersion(key, "n1", 3) for key in there},
        deployed_model=model,
    )


IMAGE, AUDIO, PROMPT = Role.IMAGE, Role.AUDIO, Role.PROMPT
FACE = "inbox/faces/anna.png"
FACE_BESIDE = "inbox/team/face.png"


@pytest.mark.parametrize(
    ("made", "ready", "missing"),
    [
        (draft("anna.png", "anna.mp3"), True, ()),
        (draft("anna.png", "anna.mp3", "anna.psd"), True, ()),
        (draft("anna.png"), False, (AUDIO,)),
        (draft("anna.mp3"), False, (IMAGE,)),
        (draft("anna.psd"), False, (IMAGE, AUDIO)),
        (draft("anna.psd", defaults={"sed": 1}), False, (IMAGE, AUDIO)),
        (draft("anna.png", "anna.jpg", "anna.mp3"), True, ()),
        (draft("anna.png", "anna.PNG"), True, (AUDIO,)),
        (draft("anna.mp3", "anna.wav"), True, (IMAGE,)),
        # what the model needs
        (draft("anna.png", model=MOTION), False, (PROMPT,)),
        (draft("anna.png", "anna.mp3", model=FLASH), False, (PROMPT,)),
        (draft("anna.png", own={"prompt": "hi"}, model=FLASH), True, ()),
        (draft("anna.png", own={"prompt": "hi", "model": MOTION}), True, ()),
        (draft("anna.png", defaults={"prompt": "hi", "model": MOTION}), True, ()),
        (draft(own={"prompt": "hi"}), False, (IMAGE, AUDIO)),
        (draft("anna.png", "anna.mp3", model="gone"), True, ()),
        # files that are named
        (draft(own={"image": "../faces/anna.png"}), False, (IMAGE, AUDIO)),
        (draft("anna.mp3", own={"image": "../faces/anna.png"}), False, (IMAGE,)),
        (draft("anna.mp3", own={"image": "../faces/anna.png"}, there=(FACE,)), True, ()),
        (draft("anna.png", own={"audio": "monday.mp3"}), False, (AUDIO,)),
        (
            draft("anna.png", own={"audio": "monday.mp3", "prompt": "hi", "model": FLASH}),
            False,
            (AUDIO,),
        ),
        # an avatar
        (draft("anna.mp3", defaults={"image": "face.png"}), False, (IMAGE,)),
        (draft("anna.mp3", defaults={"image": "face.png"}, there=(FACE_BESIDE,)), True, ()),
        (draft("anna.png", defaults={"image": "face.png"}, there=(FACE_BESIDE,)), False, (AUDIO,)),
        # a refusal needs no waiting
        (draft(own={"sed": 1}), True, (IMAGE, AUDIO)),
        (draft("anna.png", defaults={"sed": 1}), True, (AUDIO,)),
    ],
)
def test_a_job_is_ready_when_waiting_cannot_make_it_better(
    made: Draft, ready: bool, missing: tuple[Role, ...]
) -> None:
    assert made.is_ready == ready
    assert made.missing == missing


def test_a_job_pins_its_own_files_the_named_and_the_defaults() -> None:
    job = draft(
        "anna.mp3",
        "anna.txt",
        "anna.psd",
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


def test_an_own_picture_beats_the_avatars() -> None:
    job = draft("anna.png", "anna.mp3", defaults={"image": "face.png"}, there=(FACE_BESIDE,)).job()

    assert [given.key for given in job.of(Role.IMAGE)] == ["inbox/team/anna.png"]


def test_a_named_picture_beats_the_avatars() -> None:
    job = draft(
        "anna.mp3",
        own={"image": "../faces/anna.png"},
        defaults={"image": "face.png"},
        there=(FACE_BESIDE, FACE),
    ).job()

    assert [given.key for given in job.of(Role.IMAGE)] == [FACE]


def test_a_picture_beside_another_that_is_named_is_a_refusal_that_names_both() -> None:
    made = draft("anna.png", "anna.mp3", own={"image": "../faces/anna.png"}, there=(FACE,))

    (problem,) = made.job().problems
    assert made.is_ready
    assert problem.file == "inbox/team/anna.png"
    assert FACE in problem.rule


def test_another_rival_is_another_refusal() -> None:
    refused = [
        draft(rival, "anna.mp3", own={"image": "../faces/anna.png"}, there=(FACE,)).job()
        for rival in ("anna.png", "anna.jpg")
    ]

    assert refused[0].inputs == refused[1].inputs
    assert refused[0].id != refused[1].id


def test_a_picture_that_is_named_and_beside_it_is_one_picture() -> None:
    beside = "inbox/team/anna.png"

    made = draft("anna.png", "anna.mp3", own={"image": "anna.png"}, there=(beside,))

    assert made.problems == ()
    assert [given.key for given in made.job().of(Role.IMAGE)] == [beside]


def test_a_refusal_holds_all_that_is_too_many() -> None:
    job = draft("anna.png", "anna.jpg", "anna.mp3", "anna.wav").job()

    assert {given.key.rpartition("/")[2] for given in job.inputs} == {
        "anna.png",
        "anna.jpg",
        "anna.mp3",
        "anna.wav",
    }


def test_a_refusal_stays_small_however_many_share_the_stem() -> None:
    spellings = [f"anna.{a}{b}{c}{d}" for a in "jJ" for b in "pP" for c in "eE" for d in ("g", "G")]

    job = draft("anna.mp3", *spellings).job()

    assert len(job.inputs) <= 2 * NAMED_AT_MOST


def test_problems_stay_few_however_many_files_have_them() -> None:
    wrong: dict[str, object] = {f"x{number}": 1 for number in range(PROBLEMS_AT_MOST)}

    assert len(draft("anna.png", own=wrong, defaults=wrong).job().problems) == PROBLEMS_AT_MOST


@pytest.mark.parametrize(
    "other",
    [
        draft("anna.png", "anna.mp3", own={"seed": 7}),
        draft("anna.png", "anna.mp3", "anna.txt"),
        draft("anna.png", "anna.mp3", defaults={"seed": 7}),
        draft("anna.png", "anna.mp3", model=FLASH),
        draft("anna.jpg", "anna.mp3"),
    ],
)
def test_whatever_a_job_is_made_of_is_in_its_id(other: Draft) -> None:
    assert other.job().id != draft("anna.png", "anna.mp3").job().id


def test_deploy_time_parameters_come_last() -> None:
    assert draft(model=MOTION).model == MOTION
    assert draft(defaults={"model": FLASH}, model=MOTION).model == FLASH
    assert draft(own={"model": SPEECH}, defaults={"model": FLASH}, model=MOTION).model == SPEECH
