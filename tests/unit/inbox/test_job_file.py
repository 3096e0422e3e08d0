"""What a job can say, and what is answered to what it cannot."""

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dropreel.inbox.job_file import (
    MAX_LABELS,
    MAX_PROBLEMS,
    JobChoices,
    JobFile,
    Parsed,
    combined,
    nearest_wins,
    parse,
    too_large,
)
from dropreel.model.catalog import MODELS
from dropreel.model.job import Role

ANNA = "inbox/team/anna.json"


def said(document: object, role: Role = Role.OPTIONS) -> Parsed:
    return parse(role, ANNA, json.dumps(document).encode(), ("faces/", "anna.png"))


# What is understood


def test_a_job_file_says_model_prompt_files_and_options() -> None:
    choices, problems = said(
        {
            "$schema": "job-file.schema.json",
            "model": "wan-2.6-flash-image-to-video",
            "prompt": " She smiles.\r\nSlowly.\n",
            "image": "../faces/anna.png",
            "audio": "monday.mp3",
            "resolution": "720p",
            "duration": 10,
            "generate_audio": False,
            "seed": 7,
        }
    )

    assert not problems
    assert choices == JobChoices(
        model="wan-2.6-flash-image-to-video",
        prompt="She smiles.\nSlowly.",
        files={Role.IMAGE: "inbox/faces/anna.png", Role.AUDIO: "inbox/team/monday.mp3"},
        options={"resolution": "720p", "duration": 10, "generate_audio": False, "seed": 7},
    )


def test_every_option_and_value_of_the_catalog_can_be_said() -> None:
    assert said({}) == Parsed(JobChoices())
    for model in MODELS.values():
        for option in itertools.chain.from_iterable(offer.options for offer in model.route):
            some = {"string": "flying", "integer": 7, "boolean": True}[option.kind]
            for value in option.values or (some,):
                assert said({"model": model.name, option.name: value}).problems == ()


def test_every_option_of_the_catalog_is_a_field() -> None:
    options = {o.name for m in MODELS.values() for offer in m.route for o in offer.options}

    assert set(JobFile.model_fields) == {"model", "image", "audio", "link"} | options | {
        "labels",
        "dry_run",
        "wait_for",
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_in_the_encodings_that_editors_write(encoding: str) -> None:
    prompt = parse(Role.PROMPT, "inbox/anna.txt", "Sie lächelt.\r\n".encode(encoding))
    options = parse(Role.OPTIONS, ANNA, '{"prompt": "Sie lächelt."}'.encode(encoding))

    assert prompt == options == Parsed(JobChoices(prompt="Sie lächelt."))


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("anna.png", "inbox/team/anna.png"),
        ("./anna.png", "inbox/team/anna.png"),
        ("faces/anna.png", "inbox/team/faces/anna.png"),
        ("../anna.png", "inbox/anna.png"),
        ("../team/./anna.png", "inbox/team/anna.png"),
        ("a b+c%20d'/é😀 .png", "inbox/team/a b+c%20d'/é😀 .png"),
        ("12:30.png", "inbox/team/12:30.png"),
    ],
)
def test_a_path_starts_in_the_folder_of_its_file(path: str, key: str) -> None:
    assert said({"image": path}) == Parsed(JobChoices(files={Role.IMAGE: key}))


# What is not


@pytest.mark.parametrize(
    "path",
    [
        "../../anna.png",
        "../team/../../anna.png",
        "/anna.png",
        "/inbox/anna.png",
        "https://example.com/anna.png",
        "s3://bucket/inbox/anna.png",
        "file:///etc/passwd",
        "data:image/png;base64,iVBORw0",
        "C:\\faces\\anna.png",
        "C:/faces/anna.png",
        "..\\anna.png",
        "faces\\anna.png",
        "faces/a\\b.png",
        "",
        ".",
        "..",
        "faces/",
        "faces/..",
        "x" * 1020,
    ],
)
@pytest.mark.parametrize("name", ["image", "audio"])
def test_a_path_out_of_the_inbox_is_refused(name: str, path: str) -> None:
    choices, (problem,) = said({name: path, "seed": 7})

    assert choices == JobChoices(options={"seed": 7})
    assert problem.file == ANNA
    assert name in problem.rule


@pytest.mark.parametrize(
    ("document", "found", "cure"),
    [
        ({"resoluton": "480p"}, 'the unknown field "resoluton"', 'Write "resolution" instead.'),
        ({"negativePrompt": "x"}, '"negativePrompt"', 'Write "negative_prompt" instead.'),
        ({"Model": "x"}, '"Model"', 'Write "model" instead.'),
        ({"colour": "red"}, 'the unknown field "colour"', "Remove it."),
        ({"link": "red"}, 'the unknown field "link"', "Remove it."),
        ({"resolution": "720P"}, '"resolution" is "720P"', 'Write "720p" instead.'),
        ({"resolution": "4k"}, '"resolution" is "4k"', '"480p", "720p", "1080p"'),
        ({"model": "wan-2.2-speech2video"}, "speech2video", '"wan-2.2-speech-to-video" instead'),
        ({"model": "sora"}, '"sora"', '"wan-2.6-flash-image-to-video"'),
        ({"duration": "10"}, '"duration" is "10"', "Write 10 instead."),
        ({"duration": 7}, '"duration" is 7', "one of 5, 10, 15"),
        ({"duration": True}, '"duration" is true', "one of 5, 10, 15"),
        ({"generate_audio": "False"}, '"generate_audio" is "False"', "Write false instead."),
        ({"seed": "7"}, '"seed" is "7"', "without quotes"),
        ({"seed": 1.5}, '"seed" is 1.5', "a whole number"),
        ({"seed": 10**15}, '"seed" is 1000000000000000', "at most 15 digits"),
        ({"seed": None}, '"seed" is null', "a whole number"),
        ({"seed": [[1]]}, '"seed" is a list', "a whole number"),
        ({"seed": {"a": 1}}, '"seed" is an object', "a whole number"),
        ({"prompt": 1}, '"prompt" is 1', "text"),
        ({"prompt": " \n"}, '"prompt" holds an empty text', "Describe the video"),
        ({"prompt": "x" * 4001}, '"prompt" holds 4001 characters', "Shorten the prompt"),
        ({"template": "x" * 4001}, '"template" is too long', "at most 4000 characters"),
        ({"x" * 5000: 1}, '"' + "x" * 50, "Remove it."),
    ],
)
def test_a_refusal_says_what_was_found_and_what_to_write(
    document: dict[str, object], found: str, cure: str
) -> None:
    choices, (problem,) = said(document)

    assert choices == JobChoices()
    assert problem.file == ANNA
    assert found in problem.found
    assert cure in problem.cure
    assert len(problem.found) < 150


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "line 1, column 1"),
        (b'{"seed": 7,}', "line 1, column"),
        (b"{'seed': 7}", "line 1, column 2"),
        (b'{\n  "seed": 7\n  "style": "sing"\n}', "line 3, column 3"),
        (b"[1]", "it is a list"),
        (b'"anna"', 'it is "anna"'),
        (b"null", "it is null"),
        (b'{"seed": 1, "seed": 2}', '"seed" is there twice'),
        (b'{"prompt": "\\ud800"}', "a text or a number"),
        (b'{"\\ud800": 1}', "a text or a number"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "a text or a number"),
        (b"[" * 50_000, "it is a list"),
        (b'{"prompt": "caf\xe9"}', "another encoding"),
        (b"\x89PNG\r\n\x1a\n", "another encoding"),
        (b"\xff\xfea", "another encoding"),
    ],
)
def test_a_document_that_is_no_json_object_is_refused(content: bytes, found: str) -> None:
    choices, (problem,) = parse(Role.OPTIONS, ANNA, content)

    assert choices == JobChoices()
    assert problem.file == ANNA
    assert found in problem.found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b" \r\n", "an empty file"),
        (b"x" * 4001, "4001 characters"),
        (b"\x89PNG\r\n\x1a\n", "another encoding"),
    ],
)
def test_a_prompt_file_without_a_prompt_is_refused(content: bytes, found: str) -> None:
    choices, (problem,) = parse(Role.PROMPT, "inbox/anna.txt", content)

    assert choices == JobChoices()
    assert problem.file == "inbox/anna.txt"
    assert found in problem.found


# Words of many scripts: joiners that shape letters and emoji, marks that make vowels, a byte order
# mark inside, text from right to left, and what only looks like markup.
WORDS = (
    "می\u200cخواهم",  # Persian, with a zero-width non-joiner
    "श्री\u200dमान",
    "👩\u200d👩\u200d👧\u200d👦",
    "🏳️\u200d🌈",
    "1️⃣",
    "नमस्ते",
    "မြန်မာ",
    "e\u0301té",
    "שָׁלוֹם",
    "한국어",
    "ᄒ\u1160",
    "日本語",
    "co\u00adoperate",
    "5 < 6 <b>",
    "{rtf}",
    "⠓⠑⠇⠇⠕",
)
INVISIBLE = "\u200b\u2060\u00ad\u2800\u115f\u1160\u3164\uffa0\u180e\u034f\u0301\u20dd\u2028\u3000"
INVISIBLE += "\U0001d159 \t\n"
visible = st.characters(categories=["L", "N", "P", "S"], exclude_characters=INVISIBLE + "{<")
words = st.sampled_from(WORDS) | st.text(visible, min_size=1, max_size=5)
gaps = st.sampled_from([" ", "\n", "\t", "\u200f "])
prompts = st.builds(str.join, gaps, st.lists(words, min_size=1, max_size=8))


@given(prompts)
@example(" ".join(WORDS))
def test_a_prompt_in_any_script_stays_as_it_is(prompt: str) -> None:
    expected = Parsed(JobChoices(prompt=prompt))

    assert parse(Role.PROMPT, "inbox/anna.txt", prompt.encode()) == expected
    assert said({"prompt": prompt}) == expected


@given(st.text(st.sampled_from(INVISIBLE), max_size=20))
def test_a_prompt_that_nobody_can_see_is_an_empty_one(prompt: str) -> None:
    (in_text,) = parse(Role.PROMPT, "inbox/anna.txt", prompt.encode()).problems
    (in_json,) = said({"prompt": prompt}).problems

    assert in_text.found.startswith("an empty file")
    assert in_json.found.startswith('"prompt" holds an empty text')


@given(st.sampled_from(WORDS), st.characters(categories=["Cc"], exclude_characters="\t\n\r\0"))
def test_a_control_character_is_named(word: str, control: str) -> None:
    (in_text,) = parse(Role.PROMPT, "inbox/anna.txt", f"Hi {word} {control}".encode()).problems
    (in_json,) = said({"prompt": f"{control}{word}"}).problems

    assert f"U+{ord(control):04X} after" in in_text.found
    assert f"U+{ord(control):04X} at the beginning" in in_json.found


@pytest.mark.parametrize("prompt", ["<", "<3 she smiles", "A {rtf} <html> sign", "<p>She smiles"])
def test_a_prompt_may_have_marks_of_code(prompt: str) -> None:
    assert parse(Role.PROMPT, "inbox/anna.txt", prompt.encode()).choices.prompt == prompt


@pytest.mark.parametrize("role", [Role.PROMPT, Role.OPTIONS, Role.DEFAULTS])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"{\\rtf1\\ansi She smiles}", "RTF"),
        (b"\xef\xbb\xbf \n{\\rtf1}", "RTF"),
        (b"<!doctype HTML>\n<p>Hi", "HTML"),
        (b"<?xml version='1.0'?><!-- x -->\n<html xmlns='x'>", "HTML"),
        (b"<html><body>Hi</body></html>", "HTML"),
        (b"%PDF-1.4\n", "PDF"),
        ('{"prompt": "Hi"}'.encode("utf-16-le"), "another encoding"),
        ('{"prompt": "Hi"}'.encode("utf-16-be"), "another encoding"),
        ("Она улыбается. ".encode("utf-16-le"), "another encoding"),
        ("Hi".encode("utf-32"), "another encoding"),
    ],
)
def test_a_document_that_is_no_plain_text_is_refused_by_name(
    role: Role, content: bytes, found: str
) -> None:
    choices, (problem,) = parse(role, ANNA, content)

    assert choices == JobChoices()
    assert found in problem.found
    assert "plain text" in problem.cure


# Labels, and what to wait for

LABELS = {"customer": "4711", "Straße": "ü 😀", "empty": ""}


@pytest.mark.parametrize("role", [Role.OPTIONS, Role.DEFAULTS])
def test_labels_are_any_words(role: Role) -> None:
    assert said({"labels": LABELS}, role) == Parsed(JobChoices(labels=LABELS))


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({f"k{number}": "v" for number in range(MAX_LABELS + 1)}, "has 21 entries"),
        ({"": "v"}, "with 0 characters"),
        ({"k" * 257: "v"}, "with 257 characters"),
        ({"k": "v" * 257}, "257 characters"),
        ({"k": None}, '"k": null'),
        ({"k": {"a": "b"}}, '"k": an object'),
        (["k"], "is a list"),
        ("k", 'is "k"'),
    ],
)
def test_labels_are_bounded(labels: object, found: str) -> None:
    choices, (problem,) = said({"labels": labels, "seed": 7})

    assert choices == JobChoices(options={"seed": 7})
    assert found in problem.found
    assert len(problem.found) < 200


def test_the_nearest_label_wins_and_the_farthest_are_left_out() -> None:
    near = {f"k{number}": "near" for number in range(MAX_LABELS - 1)}
    far = {"k0": "far", "a": "far", "z": "far"}

    merged = nearest_wins([Parsed(JobChoices(labels=near)), Parsed(JobChoices(labels=far))])

    assert merged.choices.labels == near | {"a": "far"}


def test_the_nearest_defaults_say_what_to_wait_for() -> None:
    some = said({"wait_for": ["prompt", "options", "voice"]}, Role.DEFAULTS)
    none = said({"wait_for": []}, Role.DEFAULTS)

    assert some.choices.wait_for == frozenset({Role.PROMPT, Role.OPTIONS, Role.AUDIO})
    assert nearest_wins([none, some]).choices.wait_for == frozenset()
    assert nearest_wins([said({}), some, none]).choices.wait_for == some.choices.wait_for


def test_the_nearest_file_says_whether_it_is_a_dry_run() -> None:
    on, off = said({"dry_run": True}, Role.DEFAULTS), said({"dry_run": False})

    assert on.choices == JobChoices(dry_run=True)
    assert nearest_wins([off, on]).choices.dry_run is False
    assert nearest_wins([said({}), on, off]).choices.dry_run is True


@pytest.mark.parametrize("value", ["true", 1, None, []])
def test_a_dry_run_is_asked_for_by_true_and_by_nothing_else(value: object) -> None:
    choices, (problem,) = said({"dry_run": value})

    assert choices == JobChoices()
    assert "true" in problem.cure


@pytest.mark.parametrize("value", [["picture"], ["voice", "voice"], "voice", None, [1], {}])
def test_nothing_else_can_be_waited_for(value: object) -> None:
    choices, (problem,) = said({"wait_for": value}, Role.DEFAULTS)

    assert choices == JobChoices()
    assert 'list of "prompt", "options", "voice"' in problem.cure


def test_one_job_cannot_say_what_to_wait_for() -> None:
    choices, (problem,) = said({"wait_for": ["voice"], "seed": 7})

    assert choices == JobChoices(options={"seed": 7})
    assert "_defaults.json" in problem.cure


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("labels", JobChoices(labels={"a": "1"})),
        ("wait_for", JobChoices(wait_for=frozenset())),
        ("dry_run", JobChoices(dry_run=False)),
    ],
)
def test_two_files_of_a_job_cannot_both_set_them(name: str, choices: JobChoices) -> None:
    files = [("a.json", Parsed(choices)), ("a.JSON", Parsed(choices))]

    (problem,) = combined(files).problems

    assert problem.found == f'a second "{name}"'


def test_all_mistakes_are_named_at_once_and_the_rest_is_read() -> None:
    choices, problems = said({"sed": 1, "style": "rap", "image": "/x.png", "resolution": "720p"})

    assert [problem.found for problem in problems] == [
        '"image" is "/x.png"',
        'the unknown field "sed"',
        '"style" is "rap"',
    ]
    assert choices == JobChoices(options={"resolution": "720p"})


def test_a_refusal_stays_small_however_much_is_wrong() -> None:
    assert len(said({f"x{number}": 1 for number in range(5000)}).problems) == MAX_PROBLEMS


def test_a_recording_is_no_default() -> None:
    choices, (problem,) = said({"audio": "monday.mp3", "image": "face.png"}, Role.DEFAULTS)

    assert choices == JobChoices(files={Role.IMAGE: "inbox/team/face.png"})
    assert "audio" in problem.found


def test_a_file_too_large_to_be_read_is_refused() -> None:
    (problem,) = too_large(ANNA, 70_000).problems

    assert (problem.rule, problem.found) == ("at most 64 KiB", "69 KiB")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from([*JobFile.model_fields, "$schema"]) | st.text()


@given(
    st.sampled_from([Role.PROMPT, Role.OPTIONS, Role.DEFAULTS]),
    st.binary() | st.dictionaries(fields, json_values).map(lambda said: json.dumps(said).encode()),
)
def test_reading_never_raises_and_problems_travel(role: Role, content: bytes) -> None:
    choices, problems = parse(role, ANNA, content)

    assert len(problems) <= MAX_PROBLEMS + 1
    for problem in problems:
        assert problem.model_dump_json()
    json.dumps([choices.prompt, choices.options], ensure_ascii=False).encode()
    assert all(key.startswith("inbox/") and ".." not in key for key in choices.files.values())


# Several files


def test_a_prompt_in_both_files_is_a_problem_that_names_both() -> None:
    files = [
        (ANNA, Parsed(JobChoices(prompt="a"))),
        ("inbox/team/anna.txt", Parsed(JobChoices(prompt="b"))),
    ]

    (problem,) = combined(files).problems

    assert problem.file == "inbox/team/anna.txt"
    assert ANNA in problem.rule
    assert '"prompt"' in problem.found


def test_files_without_a_contradiction_add_up() -> None:
    files = [
        (ANNA, Parsed(JobChoices(options={"seed": 7}))),
        ("anna.txt", Parsed(JobChoices(prompt="b"))),
    ]

    assert combined(files) == Parsed(JobChoices(prompt="b", options={"seed": 7}))


keys = st.sampled_from(["inbox/a.png", "inbox/b.png"])
wishes = st.builds(
    JobChoices,
    model=st.none() | st.sampled_from(sorted(MODELS)),
    prompt=st.none() | st.sampled_from(["a", "b"]),
    files=st.dictionaries(st.just(Role.IMAGE), keys),
    options=st.dictionaries(
        st.sampled_from(["seed", "style", "generate_audio"]),
        st.sampled_from([0, False, "", "sing"]),
    ),
)


def flat(choices: JobChoices) -> dict[str, object]:
    values = {
        "model": choices.model,
        "prompt": choices.prompt,
        "image": choices.files.get(Role.IMAGE),
        **choices.options,
    }
    return {name: value for name, value in values.items() if value is not None}


@given(st.lists(wishes, max_size=4))
def test_the_nearest_file_that_says_a_field_wins(nearest_first: list[JobChoices]) -> None:
    merged = nearest_wins([Parsed(choices) for choices in nearest_first]).choices

    expected: dict[str, object] = {}
    for choices in reversed(nearest_first):
        expected |= flat(choices)
    assert flat(merged) == expected


NUMBERS = sorted(
    {
        option.name
        for model in MODELS.values()
        for offer in model.route
        for option in offer.options
        if option.kind == "integer"
    }
)


@given(st.sampled_from(NUMBERS), st.integers(-(2**80), 2**80))
@example("seed", 10**15 - 1)
@example("seed", 2**53 + 1)
@example("seed", -(2**53) - 1)
def test_a_number_that_a_double_does_not_keep_is_refused(name: str, number: int) -> None:
    choices, problems = said({name: number})

    assert bool(problems) != bool(choices.options)
    if choices.options:
        assert choices.options == {name: number}
        assert abs(number) < 10**15  # fewer than 2**53, also as 15 digits in a text
    elif name == "seed":
        assert abs(number) >= 10**15
