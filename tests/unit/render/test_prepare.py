"""Prepare names all faults at once, or writes what every offer of the route takes."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Unpack

import pytest
from _pytest.mark.structures import ParameterSet
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dropreel.model import catalog
from dropreel.model.catalog import MODELS, TITLES, Catalog, ImageFormat, Model, OptionValue
from dropreel.model.errors import ErrorReport, InputGone, InputRejected, Reason, TokenMissing
from dropreel.model.job import Input, Role
from dropreel.model.messages import AudioFacts, ImageFacts, Plan
from dropreel.model.overrides import Override, Overrides, catalog_with
from dropreel.render import prepare as preparing
from tests.support.prepare_bench import (
    SPEECH,
    Asked,
    Bucket,
    in_this_process,
    plan_of,
    prepared,
    refusal,
)

IMAGE = "wan-2.2-image-to-video"
FLASH = "wan-2.6-flash-image-to-video"
FACE, VOICE = "inbox/team/anna.heic", "inbox/team/anna.m4a"
PROMPT, OPTIONS = "inbox/team/anna.txt", "inbox/team/anna.json"
DEFAULTS, NEAR_DEFAULTS = "inbox/_defaults.json", "inbox/team/_defaults.json"
BOTH, RUNCOMFY, WAVESPEED = frozenset(TITLES), frozenset({"runcomfy"}), frozenset({"wavespeed"})
GOOD = {FACE: b"512 x 512 jpeg", VOICE: b"2.5 s mp3"}
WAVES: Asked = {"model": IMAGE, "prompt": "She waves."}
FLASHES: Asked = {"model": FLASH, "prompt": "She waves."}
PROBLEM = Reason(file=OPTIONS, rule="valid JSON", found="half of it", cure="Mend it.")


@pytest.fixture(autouse=True, scope="module")
def without_a_process_for_each_medium() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "opened", in_this_process)
        yield


def route_of(plan: Plan) -> list[str]:
    return [offer.provider for offer in plan.route]


# The plan


def test_good_job_gets_a_plan_of_copies() -> None:
    plan, bucket = plan_of({FACE: b"800 x 600 jpeg", VOICE: b"2.5 s mp3"})

    image, audio = (
        Input(
            role=role, key=key, version_id=f"version of {key}", size_bytes=len(bucket.contents[key])
        )
        for role, key in (
            (Role.IMAGE, "work/anna-1/image.jpg"),
            (Role.AUDIO, "work/anna-1/audio.mp3"),
        )
    )
    facts = {"format": "jpeg", "width": 800, "height": 600, "size_bytes": image.size_bytes}
    heard = {"format": "mp3", "duration_seconds": 2.5, "size_bytes": audio.size_bytes}
    assert [(offer.provider, offer.endpoint, offer.fields) for offer in plan.route] == [
        ("runcomfy", "wan-ai/wan-2-2/speech-to-video", {}),
        ("wavespeed", "wavespeed-ai/wan-2.2/speech-to-video", {}),
    ]
    assert (plan.image, plan.image_facts) == (image, ImageFacts.model_validate(facts))
    assert (plan.audio, plan.audio_facts) == (audio, AudioFacts.model_validate(heard))
    assert plan.changes == ("The picture is jpeg now.", "The recording is mp3 now.")
    assert plan.sha256 == {
        FACE: hashlib.sha256(b"800 x 600 jpeg").hexdigest(),
        VOICE: hashlib.sha256(b"2.5 s mp3").hexdigest(),
    }


@pytest.mark.parametrize(
    ("picture", "sound", "types"),
    [
        ("jpeg", "mp3", {"image.jpg": "image/jpeg", "audio.mp3": "audio/mpeg"}),
        ("png", "wav", {"image.png": "image/png", "audio.wav": "audio/wav"}),
    ],
)
def test_copies_are_named_after_the_job_and_what_they_are_each_time(
    picture: str, sound: str, types: dict[str, str]
) -> None:
    contents = {FACE: f"512 x 512 {picture}".encode(), VOICE: f"2.5 s {sound}".encode()}
    bucket = Bucket(dict(contents))

    first, after_first = prepared(contents, bucket), dict(bucket.contents)

    assert prepared(contents, bucket) == first
    assert bucket.contents == after_first
    assert bucket.types == {f"work/anna-1/{name}": kind for name, kind in types.items()}


@pytest.mark.parametrize("name", ["安娜", "x" * 1000], ids=["not ASCII", "long"])
def test_every_file_is_sent_under_a_short_ascii_key_also_one_that_could_go_as_it_is(
    name: str,
) -> None:
    plan, _ = plan_of({f"inbox/{name}.jpg": b"512 x 512 jpeg", f"inbox/{name}.mp3": b"2.5 s mp3"})

    assert plan.audio
    assert plan.image.key == "work/anna-1/image.jpg"
    assert plan.audio.key == "work/anna-1/audio.mp3"


@pytest.mark.parametrize(
    ("contents", "asked", "route"),
    [
        (GOOD, {}, ["runcomfy", "wavespeed"]),
        (GOOD, {"configured": RUNCOMFY}, ["runcomfy"]),
        (GOOD, {"configured": WAVESPEED}, ["wavespeed"]),
        (GOOD | {VOICE: b"19.99 s mp3"}, {}, ["runcomfy", "wavespeed"]),
        (GOOD | {VOICE: b"20 s mp3"}, {}, ["wavespeed"]),
        (GOOD | {VOICE: b"120 s mp3"}, {}, ["wavespeed"]),
        (GOOD | {FACE: b"400 x 401 jpeg"}, {}, ["wavespeed"]),
        (GOOD | {FACE: b"401 x 401 jpeg"}, {}, ["runcomfy", "wavespeed"]),
        (GOOD, {"options": {"style": "sing"}}, ["runcomfy"]),
        (GOOD, {"options": {"seed": 7}}, ["wavespeed"]),
        (GOOD, {"prompt": "She sings."}, ["wavespeed"]),
        (GOOD, {"prompt": " "}, ["runcomfy", "wavespeed"]),
        (GOOD, {"options": {"resolution": "720p"}}, ["runcomfy", "wavespeed"]),
    ],
)
def test_route_has_the_offers_that_take_everything(
    contents: dict[str, bytes], asked: Asked, route: list[str]
) -> None:
    assert route_of(plan_of(contents, **asked)[0]) == route


def test_options_go_to_each_offer_in_its_own_words() -> None:
    first, second = plan_of(GOOD, options={"resolution": "720p"})[0].route

    assert (first.fields, second.fields) == ({"resolution": "720P"}, {"resolution": "720p"})


@pytest.mark.parametrize("asked", [WAVES, FLASHES])
def test_picture_and_prompt_are_enough_for_other_models(asked: Asked) -> None:
    plan, bucket = plan_of({FACE: GOOD[FACE]}, **asked)

    assert (plan.audio, plan.audio_facts) == (None, None)
    assert plan.route[0].fields == {"prompt": "She waves."}
    assert set(plan.sha256) == {FACE}
    assert set(bucket.types) == {"work/anna-1/image.jpg"}


@pytest.mark.parametrize(
    ("contents", "asked", "copy", "limits"),
    [
        (GOOD, {}, "image.jpg", {"formats": ["jpeg", "png", "webp"], "side_under_pixels": 7000}),
        (GOOD, {"configured": WAVESPEED}, "image.jpg", {"side_under_pixels": None}),
        (GOOD, {}, "audio.mp3", {"duration_under_seconds": 20, "duration_at_most_seconds": 120}),
        (GOOD, {"configured": WAVESPEED}, "audio.mp3", {"duration_under_seconds": None}),
    ],
)
def test_one_copy_keeps_the_limits_of_every_offer_of_the_route(
    contents: dict[str, bytes], asked: Asked, copy: str, limits: dict[str, Any]
) -> None:
    kept = json.loads(plan_of(contents, **asked)[1].contents[f"work/anna-1/{copy}"])

    assert kept == kept | limits


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"formats": (ImageFormat.PNG,)}, {"formats": (ImageFormat.BMP,)}),
        ({"side_under_pixels": 500}, {"side_over_pixels": 499}),
    ],
)
def test_offers_that_no_one_copy_can_serve_do_not_share_a_route(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    route = tuple(
        offer.model_copy(update={"image": offer.image.model_copy(update=limits)})
        for offer, limits in zip(MODELS[SPEECH].route[:2], (first, second), strict=True)
    )
    models = {SPEECH: Model(name=SPEECH, does="", route=route)}

    assert route_of(plan_of(GOOD, catalog=models)[0]) == ["runcomfy"]


TALK, S2V = "wavespeed-ai/infinitetalk", "wavespeed-ai/wan-2.2/speech-to-video"


@pytest.mark.parametrize(
    ("overrides", "seconds", "endpoints"),
    [
        ({}, 120, [S2V]),
        ({S2V: Override(audio_at_most_seconds=600)}, 600, [S2V]),
        ({TALK: Override(on=True)}, 120, [S2V, TALK]),
        ({TALK: Override(on=True)}, 600, [TALK]),
        ({TALK: Override(on=True), S2V: Override(on=False)}, 120, [TALK]),
    ],
)
def test_the_route_is_that_of_the_owners_limits_and_offers(
    overrides: Overrides, seconds: int, endpoints: list[str]
) -> None:
    contents = GOOD | {VOICE: f"{seconds} s mp3".encode()}

    plan, _ = plan_of(contents, catalog=catalog_with(overrides))

    assert [offer.endpoint for offer in plan.route] == endpoints


def all_off(*endpoints: str) -> Catalog:
    every = {offer.endpoint for model in MODELS.values() for offer in model.route}
    return catalog_with(dict.fromkeys(endpoints or every, Override(on=False)))


def test_a_model_that_is_off_is_answered_where_it_was_asked_for() -> None:
    contents = {**GOOD, OPTIONS: b'{"resolution": "480p"}', DEFAULTS: b'{"model": "infinitetalk"}'}

    [reason] = refusal(contents, model="infinitetalk").reasons

    assert reason.file == DEFAULTS
    assert f'Set "model" to "{SPEECH}" or "{FLASH}" in {DEFAULTS}, and drop' in reason.cure

    [reason] = refusal(GOOD, model="infinitetalk").reasons  # the stack's own model
    assert "in inbox/team/anna.json, and drop a file of the job again" in reason.cure


def test_without_another_model_only_the_operator_can_help() -> None:
    [reason] = refusal(GOOD, catalog=all_off()).reasons
    assert reason.cure.startswith("Ask your operator to turn this model on")

    takes_sound = [o.endpoint for m in MODELS.values() if m.takes_audio for o in m.route]
    [reason] = refusal(GOOD, catalog=all_off(*takes_sound), model=IMAGE, prompt="x").reasons
    assert reason.cure.startswith("Without the recording: ")
    assert "With it" not in reason.cure


# Refusals

JPG, MP3, WAV = (f"inbox/team/anna.{ending}" for ending in ("jpg", "mp3", "MP3.wav"))
TWO = "one of 2 pictures with the same name: anna.heic and anna.jpg | " + (
    ONE_PICTURE := "exactly one picture for each video"
)
THREE = "one of 3 recordings with the same name: anna.m4a, anna.mp3 and anna.MP3.wav | " + (
    ONE_RECORDING := "exactly one recording for each video"
)
PICTURES = "a picture: JPEG, PNG, WebP, BMP, HEIC, AVIF, TIFF or GIF"
RECORDINGS = (
    "a recording: MP3, WAV, M4A, AAC, Ogg, Opus, FLAC, AIFF, WMA, WebM or the sound of a video"
)


def case(
    name: str, contents: dict[str, bytes], *reasons: str, **asked: Unpack[Asked]
) -> ParameterSet:
    """A reason is the offer if one is named, then the file, what is found, and the rule."""
    return pytest.param(contents, asked, list(reasons), id=name)


@pytest.mark.parametrize(
    ("contents", "asked", "expected"),
    [
        case(
            "all at once, with the offer where offers differ",
            {FACE: b"320 x 300 jpeg", VOICE: b"125 s mp3"},
            "anna.json | half of it | valid JSON",
            "RunComfy | anna.heic | 320 pixels wide | more than 400 pixels wide",
            "RunComfy | anna.heic | 300 pixels high | more than 400 pixels high",
            'anna.heic | resolution: "4K" | resolution: 480p or 720p',
            "RunComfy | anna.m4a | 2 minutes 5 seconds long | shorter than 20 seconds",
            "WaveSpeed | anna.m4a | 2 minutes 5 seconds long | at most 120 seconds",
            options={"resolution": "4K"},
            problems=(PROBLEM,),
        ),
        case(
            "no offer for all options",
            GOOD,
            "anna.heic | seed and style together | options that one offer takes together",
            options={"style": "sing", "seed": 7},
        ),
        case(
            "a token that would help",
            GOOD | {VOICE: b"25 s mp3"},
            "RunComfy | anna.m4a | 25.00 seconds long | shorter than 20 seconds",
            "WaveSpeed | anna.heic | no token is stored | a token for WaveSpeed",
            configured=RUNCOMFY,
        ),
        case(
            "a token that would not help",
            GOOD | {VOICE: b"130 s mp3"},
            "RunComfy | anna.m4a | 2 minutes 10 seconds long | shorter than 20 seconds",
            configured=RUNCOMFY,
        ),
        case(
            "neither can be opened",
            {FACE: b"plain text", VOICE: b""},
            f"anna.heic | plain text | {PICTURES}",
            "anna.m4a | an empty file | a complete, undamaged recording",
        ),
        case(
            "neither picture nor recording, the other way",
            {FACE: b"", VOICE: b"plain text"},
            "anna.heic | an empty file | a complete, undamaged picture",
            f"anna.m4a | plain text | {RECORDINGS}",
        ),
        case(
            "neither copy can be made small enough",
            {FACE: b"512 x 512 large", VOICE: b"2.5 s large"},
            "anna.heic | a large picture | less than 9 MB",
            "anna.m4a | a large recording | less than 9 MB",
        ),
        case(
            "the copy of the recording cannot",
            GOOD | {VOICE: b"2.5 s large"},
            "anna.m4a | a large recording | less than 9 MB",
        ),
        case(
            "too narrow",
            {FACE: b"2000 x 361 jpeg"},
            "anna.heic | 2000 x 361 pixels. Scaled down to fit, its shorter side would have only "
            "360 pixels | fewer than 2000 and more than 360 pixels wide and high",
            **WAVES,
        ),
        case(
            "two pictures, and the voice is judged too",
            {FACE: GOOD[FACE], JPG: b"", VOICE: b"130 s mp3"},
            f"anna.heic | {TWO}",
            f"anna.jpg | {TWO}",
            "RunComfy | anna.m4a | 2 minutes 10 seconds long | shorter than 20 seconds",
            "WaveSpeed | anna.m4a | 2 minutes 10 seconds long | at most 120 seconds",
        ),
        *(
            case(
                f"three recordings for {model}",
                GOOD | {MP3: b"", WAV: b""},
                *(f"{name} | {THREE}" for name in ("anna.m4a", "anna.mp3", "anna.MP3.wav")),
                model=model,
                prompt=prompt,
            )
            for model, prompt in ((SPEECH, None), (FLASH, "She waves."))
        ),
        case(
            "no picture",
            {VOICE: GOOD[VOICE]},
            f"anna.m4a | no picture has this name | {ONE_PICTURE}",
        ),
        case(
            "nothing",
            {},
            f"anna | no picture has this name | {ONE_PICTURE}",
            f"anna | no recording has this name | {ONE_RECORDING}",
        ),
        *(
            case(model, {FACE: GOOD[FACE]}, "anna.heic | no prompt | a prompt", model=model)
            for model in (IMAGE, FLASH)
        ),
        case(
            "a recording for a model that takes none",
            GOOD | {VOICE: b"not even opened"},
            "anna.m4a | a recording | no recording",
            **WAVES,
        ),
        case(
            "a recording that is not needed, and too short",
            GOOD,
            "anna.m4a | 2.50 seconds long | at least 3 seconds",
            **FLASHES,
        ),
        *(
            case("the job file", media, "anna.json | half of it | valid JSON", problems=(PROBLEM,))
            for media in (GOOD, {FACE: GOOD[FACE]}, {})
        ),
        case(
            "a picture refused by its name is not opened",
            {FACE: b"320 x 300 jpeg", VOICE: GOOD[VOICE]},
            "anna.heic | half of it | valid JSON",
            problems=(PROBLEM.model_copy(update={"file": FACE}),),
        ),
    ],
)
def test_refusal_lists_every_fault(
    contents: dict[str, bytes], asked: Asked, expected: list[str]
) -> None:
    reasons = refusal(contents, **asked).reasons

    assert [
        " | ".join(filter(None, (one.offer, one.file.rpartition("/")[2], one.found, one.rule)))
        for one in reasons
    ] == expected


@pytest.mark.parametrize(
    ("contents", "asked", "cure"),
    [
        (GOOD | {FACE: b"text"}, {}, "Open the original picture in an app and export it as one of"),
        (GOOD | {VOICE: b""}, {}, "Upload the file again from the original. If that does not help"),
        (GOOD | {VOICE: b"5 s large"}, {}, "Cut it."),
        (GOOD | {JPG: b""}, {}, "Delete or rename all but one of them, then drop that one again."),
        ({FACE: GOOD[FACE]}, {}, "Drop a recording with the same name into the same folder."),
        (GOOD, WAVES, f"Without the recording: delete {VOICE} and drop one of the job's own files"),
    ],
)
def test_cures_say_what_to_do(contents: dict[str, bytes], asked: Asked, cure: str) -> None:
    assert refusal(contents, **asked).reasons[0].cure.startswith(cure)


def test_cures_name_what_would_take_the_files() -> None:
    (unwanted,) = refusal(GOOD, **WAVES).reasons
    _, token = refusal(GOOD | {VOICE: b"25 s mp3"}, configured=RUNCOMFY).reasons

    assert f'With it: set "model" to "{SPEECH}" or "{FLASH}".' in unwanted.cure
    assert token.cure.startswith("WaveSpeed would take these files")


@pytest.mark.parametrize(
    ("key", "size_bytes", "found"),
    [
        (FACE, 250_000_000, None),
        (FACE, 250_000_001, ("250.1 MB large", "at most 250 MB")),
        (FACE, 3_000_000_000, ("3000 MB large", "at most 250 MB")),
        (VOICE, 2_000_000_000, None),
        (VOICE, 2_000_000_001, ("2000.1 MB large", "at most 2000 MB")),
    ],
)
def test_too_large_a_file_is_refused_unread(
    key: str, size_bytes: int, found: tuple[str, str] | None
) -> None:
    bucket = Bucket(dict(GOOD))
    if found is None:
        assert prepared(GOOD, bucket, sizes={key: size_bytes})
    else:
        with pytest.raises(InputRejected) as refused:
            prepared(GOOD, bucket, sizes={key: size_bytes})
        assert [(one.file, one.found, one.rule) for one in refused.value.reasons] == [(key, *found)]

    assert bucket.read == {FACE, VOICE} - ({key} if found else set())
    assert bool(bucket.types) is (found is None)  # a refused job writes no copy


def test_recording_that_no_offer_takes_is_not_read() -> None:
    bucket = Bucket(dict(GOOD))

    with pytest.raises(InputRejected):
        prepared(GOOD, bucket, **WAVES)

    assert bucket.read == {FACE}


@pytest.mark.parametrize("key", [FACE, VOICE])
def test_upload_that_is_gone_says_so(key: str) -> None:
    bucket = Bucket({other: content for other, content in GOOD.items() if other != key})

    with pytest.raises(InputGone, match=key):
        prepared(GOOD, bucket)


def test_upload_that_s3_refuses_is_a_reason_among_the_others() -> None:
    unreadable = PROBLEM.model_copy(update={"file": FACE, "found": "archived"})
    contents = GOOD | {VOICE: b"700 s mp3"}
    bucket = Bucket(dict(contents), refused={FACE: unreadable})

    with pytest.raises(InputRejected) as raised:
        prepared(contents, bucket)

    assert raised.value.reasons[0] == unreadable
    assert {reason.file for reason in raised.value.reasons} == {FACE, VOICE}
    assert not raised.value.retryable


def test_options_that_were_archived_meanwhile_are_named_nevertheless() -> None:
    contents = GOOD | {OPTIONS: b"{}", DEFAULTS: b"{}"}
    bucket = Bucket(dict(contents), refused={OPTIONS: PROBLEM})

    with pytest.raises(InputRejected) as raised:
        prepared(contents, bucket, options={"resolution": "9000p"})

    assert {reason.file for reason in raised.value.reasons} == {OPTIONS}


@pytest.mark.parametrize(
    ("model", "configured", "message"),
    [
        (SPEECH, frozenset[str](), "No token is stored for RunComfy or WaveSpeed."),
        (IMAGE, WAVESPEED, "No token is stored for RunComfy."),
    ],
)
def test_without_any_token_the_job_says_whose_is_missing(
    model: str, configured: frozenset[str], message: str
) -> None:
    with pytest.raises(TokenMissing) as missing:
        plan_of(GOOD, model=model, configured=configured)

    assert missing.value.message == message


# Which file says it


@pytest.mark.parametrize(
    ("documents", "file"),
    [
        ({}, FACE),
        ({OPTIONS: {"style": "dance"}}, OPTIONS),
        ({DEFAULTS: {"style": "dance"}}, DEFAULTS),
        ({DEFAULTS: {"style": "dance"}, OPTIONS: {"resolution": "720p"}}, DEFAULTS),
        ({DEFAULTS: {"style": "x"}, NEAR_DEFAULTS: {"style": "dance"}}, NEAR_DEFAULTS),
        ({NEAR_DEFAULTS: {"style": "x"}, OPTIONS: {"style": "dance"}}, OPTIONS),
        ({DEFAULTS: {"style": "dance"}, OPTIONS: ["style"]}, DEFAULTS),
    ],
)
def test_wrong_value_is_blamed_on_the_file_that_sets_it(
    documents: dict[str, dict[str, str]], file: str
) -> None:
    contents = GOOD | {key: json.dumps(document).encode() for key, document in documents.items()}

    assert (
        refusal(contents, configured=RUNCOMFY, options={"style": "dance"}).reasons[0].file == file
    )


def test_prompt_is_blamed_on_its_text_file() -> None:
    contents = {FACE: GOOD[FACE], PROMPT: b"", OPTIONS: b"{}"}

    (reason,) = refusal(contents, model=IMAGE, prompt="x" * 800).reasons

    assert (reason.file, reason.found) == (PROMPT, "prompt: 800 characters")


def test_job_file_that_crashes_parsers_is_still_answered() -> None:
    contents = {FACE: GOOD[FACE], OPTIONS: b"[" * 60_000, DEFAULTS: b"{}"}

    assert PROBLEM in refusal(contents, model=IMAGE, problems=(PROBLEM,)).reasons


# No job makes prepare do anything but answer.

NAMES = sorted(
    {o.name for m in MODELS.values() for offer in m.route for o in offer.options} - {"prompt"}
)
VALUES: st.SearchStrategy[OptionValue] = (
    st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(("720p", 5, "sing"))
)


@hypothesis_settings(max_examples=300)
@given(
    picture=st.sampled_from((b"512 x 512 png", b"99 x 9999 png", b"512 x 512 large", b"text", b"")),
    sound=st.none() | st.sampled_from((b"2.5 s mp3", b"25 s wav", b"5 s large", b"text", b"")),
    asked=st.fixed_dictionaries(
        {
            "model": st.sampled_from(sorted(MODELS)),
            "prompt": st.none() | st.text(max_size=30) | st.just("x" * 900),
            "options": st.dictionaries(
                st.sampled_from(NAMES) | st.text(max_size=12), VALUES, max_size=3
            ),
            "configured": st.sampled_from((BOTH, RUNCOMFY, WAVESPEED)),
        }
    ),
)
def test_no_job_makes_prepare_crash(picture: bytes, sound: bytes | None, asked: Asked) -> None:
    contents = {FACE: picture} | ({} if sound is None else {VOICE: sound})
    try:
        plan, bucket = plan_of(contents, **asked)
    except InputRejected as refused:
        assert refused.reasons
        assert ErrorReport.model_validate_json(str(refused)) == refused.report
    except TokenMissing:
        assert asked["configured"] == WAVESPEED
    else:
        assert {offer.provider for offer in plan.route} <= asked["configured"]
        assert set(bucket.types) == {one.key for one in (plan.image, plan.audio) if one}
        for planned in plan.route:
            count = len(asked["options"]) + bool((asked["prompt"] or "").strip())
            assert len(planned.fields) == count  # nothing is dropped, nothing is added
            assert catalog.offer_of(planned.provider, planned.endpoint)
