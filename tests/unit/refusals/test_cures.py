"""Every refusal's cure, followed as a person would: to a plan, or to the next true reason.

A job goes through intake and Prepare, with fakes for AWS and for the codecs. What an incomplete
upload is told leads to a plan, too.
"""

from collections.abc import Iterator
from typing import NamedTuple

import boto3
import pytest
from botocore.stub import Stubber

from dropreel.aws.s3 import S3Storage
from dropreel.inbox import job_file as job_file_parser
from dropreel.inbox.json_faults import MISTAKES
from dropreel.model.catalog import MODELS, TITLES, in_service
from dropreel.model.errors import InputRejected, Reason
from dropreel.model.job import Input, Role
from dropreel.model.uploads import Unreadable
from dropreel.render import prepare as preparing
from dropreel.render.prepare import prepare
from tests.support.cure_lines import PACKAGE, cures_not_run
from tests.support.intake_fakes import Step, World
from tests.support.prepare_bench import FAKES, Bucket, in_this_process

SPEECH = "wan-2.2-speech-to-video"
IMAGE, FLASH = "wan-2.2-image-to-video", "wan-2.6-flash-image-to-video"
BOTH, RUNCOMFY = frozenset(TITLES), frozenset({"runcomfy"})
PICTURE, VOICE = "512 x 512 jpeg", "2.5 s mp3"
PNG, MP3, TXT, JSON = (f"team/anna.{ending}" for ending in ("png", "mp3", "txt", "json"))
PAIR: list[Step] = [(PNG, PICTURE), (MP3, VOICE)]
FACE: Step = ("team/faces/b.png", PICTURE)
MOVES: Step = ("team/_defaults.json", {"model": IMAGE, "prompt": "She waves."})
MOVES_TO_SOUND: Step = ("team/_defaults.json", {"model": FLASH, "prompt": "She waves."})
MAX_PICTURE_BYTES = 100


class Case(NamedTuple):
    dropped: list[Step]
    found: str
    cure: str
    followed: list[Step]
    """What is dropped (a name and its content) and deleted (`-name`)."""
    then: str = ""
    """What the next reason found; empty for a plan."""
    configured: frozenset[str] = BOTH
    configured_then: frozenset[str] = BOTH


def job_file(text: str, found: str, cure: str, corrected: str, then: str = "") -> Case:
    return Case([(JSON, text), *PAIR], found, cure, [(JSON, corrected)], then)


def prompt(content: str | bytes, found: str, cure: str) -> Case:
    return Case([(TXT, content), *PAIR], found, cure, [(TXT, "She smiles.")])


def path(text: str, found: str, cure: str, corrected: str) -> Case:
    """The picture is in another folder, and the job's file names it."""
    return Case(
        [FACE, (JSON, f'{{"image": "{text}"}}'), (MP3, VOICE)],
        found,
        cure,
        [("team/b.png", PICTURE), (JSON, f'{{"image": "{corrected}"}}')],
    )


SEED, SING = '{"seed": 7}', '{"style": "sing"}'

CASES: dict[str, Case] = {
    # What is no JSON
    "curly quotes": job_file("{“seed”: 7}", "curly", "straight double quotes", SEED),
    "a curly quote at the end": job_file('{"style": "sing”}', "curly", "straight", SING),
    "a curly quote in the middle": job_file('{"style”: "sing"}', "curly", "straight", SING),
    "single quotes": job_file("{'seed': 7}", "single quotes", "double quotes", SEED),
    "a comment": job_file('{"seed": 7} // x', "a comment", "Remove the comments", SEED),
    "a comma too many": job_file('{"seed": 7,}', "after the last field", "Remove the comma", SEED),
    "a comma in a list": job_file(
        '{"wait_for": ["prompt",]}',
        "a comma after the last value",
        "before the ]",
        '{"wait_for": ["prompt"]}',
        then='"wait_for" in the file of one job',
    ),
    "a number in another form": job_file('{"seed": 007}', "another form", "digits only", SEED),
    "no quotes at a name": job_file("{seed: 7}", "a name without", 'quotes: "seed"', SEED),
    "no end": job_file('{"seed": 7\n', "no } at the end", "Write } at the end", SEED),
    "True": job_file(
        '{"generate_audio": True}',
        "another word for true",
        "Write true",
        '{"generate_audio": true}',
        then="the option generate_audio",
    ),
    "no": job_file(
        '{"generate_audio": no}',
        "another word for false",
        "Write false",
        '{"generate_audio": false}',
        then="the option generate_audio",
    ),
    "no value": job_file('{"seed": }', "without a value", "remove the field", "{}"),
    "no quotes at a text": job_file('{"style": sing}', "text without", 'quotes: "sing"', SING),
    "no colon": job_file('{"seed" = 7}', "no colon", '"seed": 7', SEED),
    "no comma": job_file(
        '{"resolution": "480p" "seed": 7}',
        "no comma",
        "after each field",
        '{"resolution": "480p", "seed": 7}',
    ),
    "semicolons": job_file('{"seed": 7;}', "no comma", "but the last", SEED),
    "a number with a unit": job_file(
        '{"resolution": 720p}', "behind it", "in double quotes", '{"resolution": "720p"}'
    ),
    "quotes in a text": job_file(
        '{"prompt": "She says "hi" now"}',
        "a quote inside a text",
        r"Write \" for",
        r'{"prompt": "She says \"hi\" now"}',
    ),
    "a quoted number in a text": job_file(
        '{"prompt": "She says "2" now"}',
        "a quote inside a text",
        r"Write \" for",
        r'{"prompt": "She says \"2\" now"}',
    ),
    "thousands": job_file('{"seed": 1,000}', "another form", "digits only", '{"seed": 1000}'),
    "a plus": job_file('{"seed": +7}', "another form", "digits only", SEED),
    "two ends": job_file('{"seed": 7}}', "a } too many", "Remove the last }", SEED),
    "two objects": job_file('{"seed": 7}{}', "after the last }", "Remove what stands", SEED),
    "an open text": job_file('{"style": "sing}', "does not end", "at the end of the text", SING),
    "a line break": job_file(
        '{"prompt": "She\nsmiles"}', "a line break", r"Write \n", r'{"prompt": "She\nsmiles"}'
    ),
    "a backslash": job_file(
        r'{"prompt": "a \p"}', "a backslash", r"\\ for a backslash", r'{"prompt": "a \\p"}'
    ),
    "YAML": job_file("seed: 7\n", "fields without braces", "one pair of braces", SEED),
    "a text": job_file("She smiles", "not in braces", "braces", '{"prompt": "She smiles"}'),
    "only spaces": job_file(" \n", "nothing", "Write at least {}", "{}"),
    "a list": job_file(f"[{SEED}]", "it is a list", "only one {, the fields", SEED),
    "a field twice": job_file(
        '{"seed": 7, "seed": 8}', '"seed" is there twice', 'Keep only one "seed"', SEED
    ),
    "half a character": job_file(
        r'{"prompt": "x\ud83d"}', "a text or a number", r"such as \ud83d", '{"prompt": "x"}'
    ),
    # What is no text, or no prompt
    "another encoding": prompt("Sie lächelt".encode("latin-1"), "encoding", '"UTF-8"'),
    "UTF-16 without a mark": prompt("She smiles".encode("utf-16-le"), "encoding", '"UTF-8"'),
    "RTF": prompt(r"{\rtf1\ansi She smiles.}", "(RTF)", "Save it as plain text"),
    "HTML": prompt("\n<!DOCTYPE html><p>She smiles.", "(HTML)", "Save it as plain text"),
    "RTF in a job file": job_file(
        r'{"prompt": "{\\rtf1 x}"}', "(RTF)", "plain text editor", '{"prompt": "x"}'
    ),
    "a control character": prompt(
        "She \x1b[31msmiles", 'U+001B after "She"', "Type the prompt in a plain text editor"
    ),
    "an empty prompt": prompt(" \n", "an empty file", "Describe the video"),
    "an invisible prompt": prompt("\u200b\u2060", "characters are invisible", "Describe the video"),
    "a long prompt": prompt("x" * 4001, "4001 characters", "Shorten the prompt"),
    "a file too large": prompt("x" * 70_000, "69 KiB", "Make it shorter"),
    # Fields
    "a misspelled field": job_file('{"sed": 7}', '"sed"', 'Write "seed" instead', SEED),
    "a field by another name": job_file(
        '{"text": "x"}', '"text"', 'Write "prompt" instead', '{"prompt": "x"}'
    ),
    "an unknown field": job_file('{"colour": 7}', '"colour"', "Remove it.", "{}"),
    "a field in two spellings": job_file('{"seed": 7, "Seed": 8}', '"Seed"', "Remove it.", SEED),
    "fields one level too deep": job_file(
        '{"options": {"seed": 7}}', '"options"', 'without it around them: {"seed": 7}', SEED
    ),
    "a misspelled value": job_file('{"style": "Sing"}', '"Sing"', 'Write "sing" instead', SING),
    "a model in capitals": job_file(
        '{"model": "WAN-2.2-speech-to-video"}',
        '"model" is',
        'Write "wan-2.2-speech-to-video" instead',
        '{"model": "wan-2.2-speech-to-video"}',
    ),
    "a number in quotes": job_file('{"seed": "7"}', '"7"', "Write 7, without quotes", SEED),
    "a wrong value": job_file('{"seed": 1.5}', "1.5", 'or remove "seed"', "{}"),
    "a label that is no text": job_file(
        '{"labels": {"customer": 4711}}',
        '"customer": 4711',
        '{"customer": "4711"}',
        '{"labels": {"customer": "4711"}}',
    ),
    "wait_for of one job": Case(
        [(JSON, {"wait_for": ["prompt"]}), *PAIR],
        '"wait_for" in the file of one job',
        "Write it into _defaults.json",
        [("team/_defaults.json", {"wait_for": ["prompt"]}), (TXT, "Hi"), (JSON, {})],
    ),
    "a recording of many jobs": Case(
        [("team/_defaults.json", {"audio": "m.mp3"}), *PAIR],
        '"audio" in the defaults',
        'Remove "audio". Drop the recording into the folder',
        [("team/_defaults.json", {}), (MP3, VOICE)],
    ),
    # Paths
    "a path from the inbox": path(
        "inbox/team/faces/b.png", "inbox/", '"faces/b.png"', "faces/b.png"
    ),
    "a key of S3": path("s3://u/inbox/team/faces/b.png", "s3:", '"faces/b.png"', "faces/b.png"),
    "a URL": path("https://example.com/b.png", "https", 'only its name, such as "b.png"', "b.png"),
    "a path of Windows": path(r"C:\\faces\\b.png", "C:", 'only its name, such as "b.png"', "b.png"),
    "backslashes": path(r"faces\\b.png", "faces", '"faces/b.png"', "faces/b.png"),
    "a slash at the beginning": path("/faces/b.png", "/faces", "no / at the", "faces/b.png"),
    "a folder": path("faces/", "faces/", 'such as "faces/a.png"', "faces/b.png"),
    "too far up": path("../../faces/b.png", "../../", "at most 1 x ../", "../team/faces/b.png"),
    "no path": path("", '"image" is ""', "a path from this file's folder", "faces/b.png"),
    "a path with a tab": path(r"a\tb.png", "a\\tb.png", "a path from this file's", "faces/b.png"),
    "another team's file": path("../blue/b.png", "another folder", "under inbox/team/", "b.png"),
    "another team's file, by its key": path(
        "inbox/blue/b.png", "another folder", "under inbox/team/", "b.png"
    ),
    # Files of one job
    "the only picture, and a name of none": Case(
        [(JSON, {"image": "nosuch.png"}), *PAIR],
        "inbox/team/nosuch.png is not there",
        'remove "image" from inbox/team/anna.json, and drop',
        [(JSON, {})],
    ),
    "another picture than the only one": Case(
        [FACE, (JSON, {"image": "nosuch.png"}), *PAIR],
        "inbox/team/nosuch.png is not there",
        "write the path of one that is there, and delete inbox/team/anna.png",
        [f"-{PNG}", (JSON, {"image": "faces/b.png"})],
    ),
    "a second picture": Case(
        [FACE, (JSON, {"image": "faces/b.png"}), *PAIR],
        "a second picture",
        "To use inbox/team/faces/b.png, delete inbox/team/anna.png",
        [f"-{PNG}", (JSON, {"image": "faces/b.png"})],
    ),
    "a second prompt": Case(
        [(JSON, {"prompt": "a"}), (TXT, "b"), *PAIR],
        'a second "prompt"',
        "Delete inbox/team/anna.txt and drop inbox/team/anna.json again",
        [f"-{TXT}", (JSON, {"prompt": "a"})],
    ),
    "a second value": Case(
        [("team/anna.JSON", {"seed": 8}), (JSON, {"seed": 7}), *PAIR],
        'a second "seed"',
        'Remove "seed" from',
        [(JSON, {})],
    ),
    "second labels": Case(
        [("team/anna.JSON", {"labels": {"a": "1"}}), (JSON, {"labels": {"b": "2"}}), *PAIR],
        'a second "labels"',
        'Remove "labels" from',
        [(JSON, {})],
    ),
    "two pictures": Case(
        [("team/anna.jpg", PICTURE), *PAIR],
        "one of 2 pictures",
        "Delete or rename all but one",
        ["-team/anna.jpg", (PNG, PICTURE)],
    ),
    "no picture and two recordings": Case(
        [("team/anna.wav", VOICE), (MP3, VOICE)],
        "no picture has this name",
        "Drop a picture with the same name into the same folder",
        [(PNG, PICTURE)],
        then="one of 2 recordings",
    ),
    # Names
    "YAML by its name": Case(
        [("team/anna.yaml", "seed: 7"), *PAIR],
        "a file called anna.yaml",
        "Delete anna.yaml. If it holds the options, drop anna.json instead",
        ["-team/anna.yaml", (JSON, SEED)],
    ),
    "defaults by another name": Case(
        [("team/defaults.json", SEED), *PAIR],
        "a file called defaults.json",
        "drop _defaults.json instead. Then drop one of the job's own files again",
        ["-team/defaults.json", ("team/_defaults.json", SEED), (PNG, PICTURE)],
    ),
    "a folder too deep": Case(
        [(f"{'a/' * 21}anna.png", PICTURE)],
        "21 folders",
        "a folder that is at most 20 deep",
        [(f"{'a/' * 20}anna.png", PICTURE), (f"{'a/' * 20}anna.mp3", VOICE)],
    ),
    "a name with a line break": Case(
        [("team/an\nna.png", PICTURE)],
        "control characters",
        "another name",
        PAIR,
    ),
    "a photo of a camera": Case(
        [("team/anna.cr2", b"x"), (MP3, VOICE)],
        "a camera raw photo",
        "Export it as JPEG or PNG, and drop anna.jpg or anna.png",
        [(PNG, PICTURE)],
    ),
    "a named photo of a camera": Case(
        [("team/b.cr2", b"x"), (JSON, {"image": "b.cr2"}), (MP3, VOICE)],
        "a camera raw photo",
        "Export it as JPEG or PNG, and name the new file instead",
        [("team/b.jpg", PICTURE), (JSON, {"image": "b.jpg"})],
    ),
    # Options that the model does not take
    "a model that is off": Case(
        [(JSON, {"model": "infinitetalk"}), *PAIR],
        'the model "infinitetalk", which is off',
        f'Set "model" to "{SPEECH}" or "{FLASH}" in inbox/team/anna.json, and drop a file of the',
        [(JSON, {"model": SPEECH})],
    ),
    "an option of another model": Case(
        [(JSON, {"duration": 5}), *PAIR],
        "the option duration",
        f'or set "model" to "{IMAGE}" or "{FLASH}", which takes it',
        [(TXT, "She waves."), (JSON, {"duration": 5, "model": FLASH})],
        then="2.50 seconds long",
    ),
    "an option of another model, left out": Case(
        [(JSON, {"duration": 5}), *PAIR], "the option duration", "Leave duration out", [(JSON, {})]
    ),
    "a choice": Case(
        [(JSON, {"style": "sing", "seed": 7}), *PAIR],
        "seed and style together",
        "Leave out either seed (for RunComfy) or style (for WaveSpeed)",
        [(JSON, {"seed": 7})],
    ),
    "a choice with a prompt": Case(
        [(JSON, {"style": "sing"}), (TXT, "She sings."), *PAIR],
        "prompt and style together",
        "The prompt is the .txt file",
        [f"-{TXT}", (JSON, {"style": "sing"})],
    ),
    "no prompt at the only offer": Case(
        [(TXT, "She sings."), *PAIR],
        "a prompt",
        "Remove the prompt: the .txt file",
        [f"-{TXT}", (PNG, PICTURE)],
        configured=RUNCOMFY,
        configured_then=RUNCOMFY,
    ),
    "a value of another model": Case(
        [(JSON, {"resolution": "1080p"}), *PAIR],
        "resolution",
        "Set resolution to 480p or 720p",
        [(JSON, {"resolution": "720p"})],
    ),
    "a long option": Case(
        [MOVES, (JSON, {"negative_prompt": "x" * 501}), (PNG, PICTURE)],
        "501 characters",
        "Shorten the negative prompt",
        [(JSON, {"negative_prompt": "x" * 500})],
    ),
    "two pictures without a prompt": Case(
        [(JSON, {"model": IMAGE}), ("?team/anna.jpg", PICTURE), (PNG, PICTURE)],
        "no prompt",
        "Describe the motion in a text file",
        [(TXT, "She waves.")],
        then="one of 2 pictures",
    ),
    "a recording too many": Case(
        [MOVES, ("?team/anna.mp3", VOICE), (PNG, PICTURE)],
        "a recording",
        f"delete inbox/{MP3} and drop one of the job's own files again",
        [f"-{MP3}", (PNG, PICTURE)],
    ),
    "a named recording too many": Case(
        [MOVES, ("team/m.mp3", VOICE), (JSON, {"audio": "m.mp3"}), (PNG, PICTURE)],
        "a recording",
        'remove "audio" from inbox/team/anna.json and drop',
        [(JSON, {})],
    ),
    # Media
    "no picture": Case(
        [(PNG, "a poem"), (MP3, VOICE)], "a poem", "export it as one of", [(PNG, PICTURE)]
    ),
    "a damaged picture": Case(
        [(PNG, "damaged"), (MP3, VOICE)], "damaged", "Upload the file again", [(PNG, PICTURE)]
    ),
    "a huge picture": Case(
        [(PNG, "x" * (MAX_PICTURE_BYTES + 1)), (MP3, VOICE)],
        "large",
        "Export the picture in a smaller format, then drop it again",
        [(PNG, PICTURE)],
    ),
    "a small picture": Case(
        [MOVES, (PNG, "300 x 300 jpeg")],
        "300 pixels wide",
        "at least 361 x 361 pixels",
        [(PNG, "361 x 361 jpeg")],
    ),
    "a long picture": Case(
        [MOVES, (PNG, "4000 x 500 jpeg")],
        "only 249 pixels",
        "Crop the longer side",
        [(PNG, "1000 x 500 jpeg")],
    ),
    "a long recording, as one offer asks": Case(
        [(PNG, PICTURE), (MP3, "130 s mp3")],
        "2 minutes 10 seconds long",
        "Cut the recording to less than 20 seconds",
        [(MP3, "19 s mp3")],
    ),
    "a long recording, as another offer asks": Case(
        [(PNG, PICTURE), (MP3, "130 s mp3")],
        "2 minutes 10 seconds long",
        "Cut the recording to 120 seconds or less",
        [(MP3, "120 s mp3")],
    ),
    "a short recording": Case(
        [MOVES_TO_SOUND, ("?team/anna.mp3", VOICE), (PNG, PICTURE)],
        "2.50 seconds long",
        "Record 3 seconds or more",
        [(MP3, "3 s mp3")],
    ),
    "no token": Case(
        [(PNG, PICTURE), (MP3, "25 s mp3")],
        "no token is stored",
        "ask your operator to store its token. Then drop the files again",
        [(PNG, PICTURE), (MP3, "25 s mp3")],
        configured=RUNCOMFY,
    ),
}


@pytest.fixture(autouse=True, scope="module")
def small_and_in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "opened", in_this_process)
        patch.setattr(preparing, "MAX_PICTURE_BYTES", MAX_PICTURE_BYTES)
        yield


def answer(
    world: World, configured: frozenset[str] = BOTH, *unreadable: Reason
) -> tuple[Reason, ...]:
    """Why the job that started last is refused; empty for a plan."""
    job = list(world.jobs.values())[-1]
    bucket = Bucket({given.key: world.bodies[given.version_id] for given in job.inputs})
    bucket.refused |= {reason.file: reason for reason in unreadable}
    try:
        prepare(
            job,
            bucket,
            configured,
            FAKES,
            lambda: 60.0,
            work_bucket="work",
            catalog=in_service(MODELS),
        )
    except InputRejected as refused:
        return refused.reasons
    return ()


def follow(case: Case) -> None:
    """Drop, read the reason, do what its cure says."""
    world = World()
    world.play(*case.dropped)
    reasons = answer(world, case.configured)
    cures = [reason.cure for reason in reasons if case.found in reason.found]
    assert any(case.cure in cure for cure in cures), reasons

    jobs = len(world.jobs)
    world.play(*case.followed)
    assert len(world.jobs) > jobs, "no new job"
    left = answer(world, case.configured_then)
    if not case.then:
        assert not left
    assert case.then in " ".join(reason.found for reason in left)
    assert not [reason for reason in left if reason in reasons and case.cure in reason.cure]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cure_leads_to_a_plan_or_to_the_next_true_reason(case: Case) -> None:
    follow(case)


# What S3 refuses

S3_CODES = ("InvalidObjectState", "InvalidRequest", "AccessDenied", "KMS.DisabledException")


def refused_by_s3(code: str) -> Reason:
    client = boto3.client(
        "s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    picture = Input(role=Role.IMAGE, key=f"inbox/{PNG}", version_id="v1", size_bytes=10)
    with Stubber(client) as stub, pytest.raises(Unreadable) as raised:
        stub.add_client_error("get_object", code, "no", 400)
        S3Storage(client).read("uploads", picture)
    return raised.value.reason


def follow_s3(code: str) -> None:
    world, reason = World(), refused_by_s3(code)
    world.play(*PAIR)
    assert answer(world, BOTH, reason) == (reason,)
    assert reason.cure.startswith("Drop the file again")

    world.play((PNG, PICTURE))
    assert len(world.jobs) == 2
    assert not answer(world)


@pytest.mark.parametrize("code", S3_CODES)
def test_file_that_s3_refuses_is_dropped_again(code: str) -> None:
    follow_s3(code)


# Upload Incomplete


@pytest.mark.parametrize(
    ("dropped", "message", "followed"),
    [
        ([(MP3, VOICE)], "Drop anna.png or anna.jpg into the same folder.", [(PNG, PICTURE)]),
        ([(PNG, PICTURE)], "Drop anna.mp3 or anna.wav into the same folder.", [(MP3, VOICE)]),
        (
            [(JSON, {"model": IMAGE}), (PNG, PICTURE)],
            "Drop anna.txt into the same folder.",
            [(TXT, "She waves.")],
        ),
        (
            [("team/_defaults.json", {"wait_for": ["prompt", "options"]}), *PAIR],
            "Drop anna.txt, and anna.json into the same folder.",
            [(TXT, "She waves."), (JSON, SEED)],
        ),
        (
            [(JSON, {"image": "nosuch.png"}), (MP3, VOICE)],
            "Drop inbox/team/nosuch.png first. Then drop anna.json again.",
            [("team/nosuch.png", PICTURE), (JSON, {"image": "nosuch.png"})],
        ),
        (
            [(PNG, PICTURE), ("team/Anna.mp3", VOICE)],
            "drop one of them again with the name of the other.",
            [(MP3, VOICE)],
        ),
        ([(PNG, PICTURE), (MP3, "")], f"Drop inbox/{MP3} again.", [(MP3, VOICE)]),
        (
            [("team/_defaults.json", ""), *PAIR],
            "Drop inbox/team/_defaults.json first. Then drop anna.mp3 again.",
            [("team/_defaults.json", "{}"), (MP3, VOICE)],
        ),
        (
            [("team/face.png", ""), (JSON, {"image": "face.png"}), (MP3, VOICE)],
            "Drop inbox/team/face.png first. Then drop anna.json again.",
            [("team/face.png", PICTURE), (JSON, {"image": "face.png"})],
        ),
        (
            [("team/Face.png", PICTURE), (JSON, {"image": "face.png"}), (MP3, VOICE)],
            "Write the name as it is, and drop inbox/team/anna.json again.",
            [(JSON, {"image": "Face.png"})],
        ),
        (
            [(PNG, PICTURE), (TXT, ""), ("team/Anna.mp3", VOICE), ("team/Anna.json", SEED)],
            "inbox/team/Anna.mp3 is there, too, but its name differs in capitals.",
            [(MP3, VOICE), (TXT, "She smiles.")],
        ),
        (
            [("team/anna.cr2", b"x")],
            "Export it as JPEG or PNG, and drop anna.jpg or anna.png.",
            [("team/anna.jpg", PICTURE), (MP3, VOICE)],
        ),
        (
            [("team/anna.docx", b"x")],
            "Drop anna.png or anna.jpg, and anna.mp3 or anna.wav into the same folder.",
            PAIR,
        ),
    ],
)
def test_what_an_incomplete_upload_says_leads_to_a_plan(
    dropped: list[Step], message: str, followed: list[Step]
) -> None:
    world = World()
    world.play(*dropped, 120)
    assert not world.jobs
    assert any(message in one.message for one in world.announced), world.announced

    world.play(*followed)
    assert world.jobs
    assert not answer(world)


# None is missing


def test_every_cure_in_the_code_is_followed_by_a_case() -> None:
    rooms = [*(PACKAGE / "inbox").glob("*.py"), *(PACKAGE / "render").glob("*.py")]

    with cures_not_run(
        [*rooms, PACKAGE / "media/fitting.py", PACKAGE / "aws/s3.py"]
    ) as not_followed:
        for case in CASES.values():
            follow(case)
        for code in S3_CODES:
            follow_s3(code)

    assert not_followed == []


def test_every_mistake_in_json_has_a_case() -> None:
    steps = [step for case in CASES.values() for step in case.dropped]
    texts = [str(step[1]) for step in steps if isinstance(step, tuple) and step[0] == JSON]
    found = " ".join(
        problem.found
        for text in texts
        for problem in job_file_parser.parse(Role.OPTIONS, f"inbox/{JSON}", text.encode()).problems
    )

    assert [one.found for one in MISTAKES if f": {one.found} at line" not in found] == []
