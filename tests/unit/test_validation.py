"""Bad input is an answer: file, rule, found value and cure, all rules at once."""

import json
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, BinaryIO

import pytest
from dropreel.media.pictures import Picture
from dropreel.media.recordings import Sound
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dropreel.media import kinds
from dropreel.model import catalog
from dropreel.model.catalog import MODELS, TITLES, ImageFormat, Model, OptionValue, ProviderName
from dropreel.model.errors import ErrorReport, InputGone, InputRejected, Reason, TokenMissing
from dropreel.model.job import Input, Job, Role
from dropreel.model.messages import Plan
from dropreel.render import validation
from tests.support import media_samples as samples

SPEECH = "wan-2.2-speech-to-video"
IMAGE = "wan-2.2-image-to-video"
FLASH = "wan-2.6-flash-image-to-video"
IMAGE_KEY = "inbox/team/anna.png"
AUDIO_KEY = "inbox/team/anna.mp3"
OPTIONS_KEY = "inbox/team/anna.json"
ROLES = {
    ".txt": Role.PROMPT,
    ".json": Role.OPTIONS,
    "_defaults.json": Role.DEFAULTS,
    ".mp3": Role.AUDIO,
    ".wav": Role.AUDIO,
}
BOTH = frozenset(TITLES)
RUNCOMFY = frozenset({"runcomfy"})
WAVESPEED = frozenset({"wavespeed"})

CLEAN = samples.picture("PNG")
SPEECH_OF_2_SECONDS = samples.wav(2)


@dataclass
class Bucket:
    """An upload bucket in memory that remembers what was opened."""

    contents: dict[str, bytes]
    opened: list[str] = field(default_factory=list)

    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        self.opened.append(pinned.key)
        if pinned.key not in self.contents:
            raise InputGone(f"{pinned.key} was deleted before it could be read.")
        return BytesIO(self.contents[pinned.key])


def upload(key: str, size_bytes: int) -> Input:
    role = next((ROLES[end] for end in reversed(ROLES) if key.endswith(end)), Role.IMAGE)
    if key.endswith("_defaults.json"):
        role = Role.DEFAULTS
    return Input(role=role, key=key, version_id="v1", size_bytes=size_bytes)


def job_of(
    *inputs: Input,
    model: str = SPEECH,
    prompt: str | None = None,
    options: dict[str, OptionValue] | None = None,
    problems: tuple[Reason, ...] = (),
) -> Job:
    return Job(
        id="anna-1",
        bucket="u",
        folder="team/",
        stem="anna",
        model=model,
        prompt=prompt,
        options=options or {},
        inputs=inputs,
        problems=problems,
    )


def dropped(
    contents: dict[str, bytes],
    model: str = SPEECH,
    prompt: str | None = None,
    options: dict[str, OptionValue] | None = None,
    problems: tuple[Reason, ...] = (),
) -> tuple[Job, Bucket]:
    uploads = (upload(key, len(content)) for key, content in contents.items())
    job = job_of(*uploads, model=model, prompt=prompt, options=options, problems=problems)
    return job, Bucket(contents)


def reasons_for(
    job: Job, bucket: Bucket, configured: frozenset[ProviderName] = BOTH
) -> tuple[Reason, ...]:
    with pytest.raises(InputRejected) as refusal:
        validation.plan(job, bucket, configured)
    return refusal.value.reasons


def plan_for(image: bytes, audio: bytes) -> Plan:
    job, bucket = dropped({IMAGE_KEY: image, AUDIO_KEY: audio})
    return validation.plan(job, bucket, RUNCOMFY)


def route_of(plan: Plan) -> list[str]:
    return [offer.provider for offer in plan.route]


Verdict = list[str] | list[tuple[str, str]]


def verdict_on(image: bytes, audio: bytes) -> dict[str, Verdict]:
    """By file, what is found wrong and the rule; or, when there is a plan, what conform must do.

    RunComfy alone has a token: the rules of one offer.
    """
    found: dict[str, Any] = {}
    try:
        plan = plan_for(image, audio)
    except InputRejected as refusal:
        for reason in refusal.reasons:
            assert reason.offer in (None, "RunComfy", "WaveSpeed")
            if reason.offer != "WaveSpeed":
                found.setdefault(reason.file, []).append((reason.found, reason.rule))
    else:
        for change in plan.conform:
            name, _, need = change.partition(": ")
            found.setdefault(f"inbox/team/{name}", []).append(need)
    return found


def test_good_job_gets_a_plan() -> None:
    job, bucket = dropped({IMAGE_KEY: CLEAN, AUDIO_KEY: samples.SPEECH_MP3})

    plan = validation.plan(job, bucket, BOTH)

    assert plan.job == job
    assert [(offer.provider, offer.endpoint, offer.fields) for offer in plan.route] == [
        ("runcomfy", "wan-ai/wan-2-2/speech-to-video", {}),
        ("wavespeed", "wavespeed-ai/wan-2.2/speech-to-video", {}),
    ]
    assert (plan.image.key, plan.audio and plan.audio.key) == (IMAGE_KEY, AUDIO_KEY)
    assert plan.image_facts is not None
    assert plan.audio_facts is not None
    assert (plan.image_facts.format, plan.image_facts.width) == (ImageFormat.PNG, 512)
    assert plan.audio_facts.duration_seconds == pytest.approx(8.28, abs=0.01)
    assert plan.conform == ()


WIDE = "more than 400 pixels wide"
HIGH = "more than 400 pixels high"
A_PICTURE = "a picture: JPEG, PNG, WebP, BMP, HEIC, AVIF, TIFF or GIF"
WHOLE_PICTURE = "a complete, undamaged picture"
REMOVED = "the place where it was taken (GPS) and camera data (EXIF) removed"


def fits_in(width: int, height: int) -> str:
    return f"scaled down from {width} x {height} to fit 6999 x 6999 pixels"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (CLEAN, []),
        (samples.picture("JPEG"), []),
        (samples.picture("BMP"), []),
        (samples.picture("WEBP"), []),
        (samples.picture("PNG", mode="RGBA"), []),
        (samples.PORTRAIT, []),
        # what conform makes fit
        (
            samples.with_chunk(samples.picture("PNG"), b"tEXt", b"Comment"),
            ["comments removed"],
        ),
        (samples.picture("JPEG", mode="CMYK"), ["the colours for print (CMYK) become RGB"]),
        (samples.animation("WEBP"), ["the animation becomes its first frame"]),
        (samples.picture("PNG", mode="I;16"), ["16 bits for each colour become 8"]),
        (samples.photo_with_place(), ["turned upright, as its EXIF data says", REMOVED]),
        (
            samples.motion_photo(),
            ["editing data (XMP) and what follows its end removed"],
        ),
        (samples.heic(), ["HEIC becomes JPEG, PNG, BMP or WebP"]),
        (samples.picture("AVIF"), ["AVIF becomes JPEG, PNG, BMP or WebP"]),
        (samples.picture("GIF"), ["GIF becomes JPEG, PNG, BMP or WebP"]),
        (
            samples.photo_with_place("TIFF"),
            ["TIFF becomes JPEG, PNG, BMP or WebP", "turned upright, as its EXIF data says"],
        ),
        # sides
        (samples.picture("PNG", 401, 401, "1"), []),
        (samples.picture("PNG", 6999, 401, "1"), []),
        (samples.picture("PNG", 401, 6999, "1"), []),
        (samples.picture("PNG", 400, 401, "1"), [("400 pixels wide", WIDE)]),
        (samples.picture("PNG", 401, 400, "1"), [("400 pixels high", HIGH)]),
        (samples.picture("PNG", 7000, 500, "1"), [fits_in(7000, 500)]),
        (samples.picture("PNG", 500, 7000, "1"), [fits_in(500, 7000)]),
        (
            samples.picture("PNG", 7000, 401, "1"),
            [
                (
                    "7000 x 401 pixels, too narrow to be scaled down: "
                    "the other side would have 400",
                    "fewer than 7000 and more than 400 pixels wide and high",
                )
            ],
        ),
        (samples.picture("GIF", 320, 7000), [("320 pixels wide", WIDE)]),
        (
            samples.picture("BMP", 320, 200),
            [("320 pixels wide", WIDE), ("200 pixels high", HIGH)],
        ),
        (
            samples.bomb_png(50_000),
            [("50000 x 50000 pixels, 2500 megapixels", "at most 100 megapixels")],
        ),
        (
            samples.bomb_webp(),
            [("16383 x 16383 pixels, 269 megapixels", "at most 100 megapixels")],
        ),
        (
            samples.bomb_jpeg(),
            [("65000 x 65000 pixels, 4225 megapixels", "at most 220 megapixels")],
        ),
        # broken
        (b"", [("an empty file", WHOLE_PICTURE)]),
        (
            samples.PORTRAIT[:300_000],
            [("a PNG picture that breaks off before its end", WHOLE_PICTURE)],
        ),
        (
            samples.picture("JPEG")[:9000],
            [("a JPEG picture that breaks off before its end", WHOLE_PICTURE)],
        ),
        (
            samples.picture("WEBP")[:9000],
            [("a WebP picture that breaks off before its end", WHOLE_PICTURE)],
        ),
        (
            samples.picture("AVIF")[:2000],
            [("an AVIF picture that breaks off before its end", WHOLE_PICTURE)],
        ),
        (
            samples.picture("BMP", 320, 500)[:9000],
            [
                ("a BMP picture that breaks off before its end", WHOLE_PICTURE),
                ("320 pixels wide", WIDE),
            ],
        ),
        (b"\x89PNG\r\n\x1a\n", [("a PNG picture that breaks off or is damaged", WHOLE_PICTURE)]),
        # something else
        (samples.TEXT, [("plain text", A_PICTURE)]),
        (samples.WEB_PAGE, [("a web page", A_PICTURE)]),
        (samples.NOISE, [("a file of an unknown kind", A_PICTURE)]),
        (samples.SPEECH_MP3, [("an MP3 recording", A_PICTURE)]),
        (samples.video(), [("an MP4 video", A_PICTURE)]),
    ],
)
def test_pictures_and_their_verdicts(image: bytes, expected: Verdict) -> None:
    assert verdict_on(image, samples.SPEECH_MP3) == ({IMAGE_KEY: expected} if expected else {})


SHORT = "shorter than 20 seconds"
A_RECORDING = (
    "a recording: MP3, WAV, M4A, AAC, Ogg, Opus, FLAC, AIFF, WMA, WebM or the sound of a video"
)
WHOLE_RECORDING = "a complete, undamaged recording"


@pytest.mark.parametrize(
    ("audio", "expected"),
    [
        (samples.SPEECH_MP3, []),
        (samples.SPEECH_WAV, []),
        (samples.mp3_without_header(), []),
        (samples.wav(2, bits=24, extensible=True), []),
        (samples.wav(2, bits=32, codec=3), []),
        (samples.wav(2, data_bytes=0xFFFF_FFFF), []),
        # what conform makes fit
        (samples.tagged_mp3(), ["tags (title, artist, picture...) removed"]),
        (samples.encoded("ipod", "aac"), ["M4A becomes WAV or MP3"]),
        (samples.encoded("adts", "aac"), ["AAC becomes WAV or MP3"]),
        (samples.encoded("ogg", "libopus"), ["Opus becomes WAV or MP3"]),
        (samples.encoded("webm", "libopus"), ["WebM becomes WAV or MP3"]),
        (samples.encoded("flac", "flac"), ["FLAC becomes WAV or MP3"]),
        (samples.encoded("aiff", "pcm_s16be"), ["AIFF becomes WAV or MP3"]),
        (samples.video(), ["the sound of an MP4 video becomes WAV or MP3"]),
        (samples.video(container="mov"), ["the sound of a QuickTime video becomes WAV or MP3"]),
        (samples.encoded("wav", "pcm_alaw"), ["WAV with A-law sound becomes WAV or MP3"]),
        (samples.wav(19.9, rate=192_000, bits=32), ["made smaller than 15 MB"]),
        # duration
        (samples.wav(19.99), []),
        (samples.wav(20), [("20.00 seconds long", SHORT)]),
        (samples.wav(25.3), [("25.30 seconds long", SHORT)]),
        (samples.wav(754), [("12 minutes 34 seconds long", SHORT)]),
        (samples.wav(179.6), [("3 minutes 0 seconds long", SHORT)]),
        (samples.mp3_of_rising_bitrate(833), []),
        (samples.mp3_of_rising_bitrate(834), [("20.02 seconds long", SHORT)]),
        (samples.encoded("flac", "flac", 20.1, rate=8000), ["FLAC becomes WAV or MP3"]),
        (samples.encoded("flac", "flac", 25, rate=8000), [("25.00 seconds long", SHORT)]),
        # broken
        (b"", [("an empty file", WHOLE_RECORDING)]),
        (
            samples.SPEECH_MP3[:50_000],
            [("an MP3 recording whose sound stops after 4.2 of 8.3 seconds", WHOLE_RECORDING)],
        ),
        (
            samples.wav(30)[:160_044],
            [
                ("30.00 seconds long", SHORT),
                ("a WAV recording whose sound stops after 10.0 of 30.0 seconds", WHOLE_RECORDING),
            ],
        ),
        (samples.wav(0), [("a WAV recording with no sound in it", WHOLE_RECORDING)]),
        (
            samples.id3_tag(),
            [("a file that begins like an MP3 but holds no sound", WHOLE_RECORDING)],
        ),
        (
            samples.video()[:9000],
            [("an MP4 video that breaks off before its end", WHOLE_RECORDING)],
        ),
        # something else
        (samples.video(sound=False), [("an MP4 video without sound", A_RECORDING)]),
        (samples.TEXT, [("plain text", A_RECORDING)]),
        (samples.NOISE, [("a file of an unknown kind", A_RECORDING)]),
        (CLEAN, [("a PNG picture", A_RECORDING)]),
    ],
)
def test_recordings_and_their_verdicts(audio: bytes, expected: Verdict) -> None:
    assert verdict_on(CLEAN, audio) == ({AUDIO_KEY: expected} if expected else {})


def test_all_reasons_come_at_once() -> None:
    problem = Reason(file=OPTIONS_KEY, rule="valid JSON", found="half of it", cure="Mend it.")
    job, bucket = dropped(
        {IMAGE_KEY: samples.picture("PNG", 320, 300, "1"), AUDIO_KEY: samples.wav(125)},
        options={"resolution": "4K"},
        problems=(problem,),
    )

    reasons = reasons_for(job, bucket)

    assert reasons[0] == problem
    assert [(reason.offer, reason.found) for reason in reasons[1:]] == [
        ("RunComfy", "320 pixels wide"),
        ("RunComfy", "300 pixels high"),
        (None, 'resolution: "4K"'),
        ("RunComfy", "2 minutes 5 seconds long"),
        ("WaveSpeed", "2 minutes 5 seconds long"),
    ]


@pytest.mark.parametrize(
    "media",
    [{IMAGE_KEY: CLEAN, AUDIO_KEY: SPEECH_OF_2_SECONDS}, {IMAGE_KEY: CLEAN}, {}],
    ids=["with its media", "before its voice", "before its media"],
)
def test_problem_of_the_job_file_alone_refuses_the_job(media: dict[str, bytes]) -> None:
    problem = Reason(file=OPTIONS_KEY, rule="valid JSON", found="half of it", cure="Mend it.")
    job, bucket = dropped(media, problems=(problem,))

    assert reasons_for(job, bucket) == (problem,)


def test_a_job_file_that_no_parser_stands_is_still_answered() -> None:
    problem = Reason(file=OPTIONS_KEY, rule="valid JSON", found="too deep", cure="Mend it.")
    files = {IMAGE_KEY: CLEAN, OPTIONS_KEY: b"[" * 60_000, DEFAULTS[0]: b"{}"}
    job, bucket = dropped(files, model="wan-2.2-image-to-video", problems=(problem,))

    assert problem in reasons_for(job, bucket)


def test_refusal_reads_well_to_who_dropped_the_file() -> None:
    job, bucket = dropped({IMAGE_KEY: samples.picture("BMP", 320, 500), AUDIO_KEY: samples.TEXT})

    with pytest.raises(InputRejected) as refusal:
        validation.plan(job, bucket, BOTH)

    assert refusal.value.message.startswith("2 files cannot be used. inbox/team/anna.png: 320 ")
    assert refusal.value.reasons == (
        Reason(
            file=IMAGE_KEY,
            offer="RunComfy",
            rule="more than 400 pixels wide",
            found="320 pixels wide",
            cure="Use a larger picture: at least 401 x 401 pixels.",
        ),
        Reason(
            file=AUDIO_KEY,
            rule=A_RECORDING,
            found="plain text",
            cure="Open the original recording in an app and export it as one of these; "
            "giving the file another name does not change what it is.",
        ),
    )


@pytest.mark.parametrize(
    ("key", "size_bytes", "found"),
    [
        (IMAGE_KEY, 50_000_000, None),
        (IMAGE_KEY, 250_000_000, None),
        (IMAGE_KEY, 250_000_001, ("250.1 MB large", "at most 250 MB")),
        (IMAGE_KEY, 3_000_000_000, ("3000 MB large", "at most 250 MB")),
        (AUDIO_KEY, 2_000_000_000, None),
        (AUDIO_KEY, 2_000_000_001, ("2000.1 MB large", "at most 2000 MB")),
    ],
)
def test_too_large_a_file_is_refused_unread(
    key: str, size_bytes: int, found: tuple[str, str] | None
) -> None:
    contents = {IMAGE_KEY: CLEAN, AUDIO_KEY: samples.encoded("flac", "flac")}
    bucket = Bucket(contents)
    job = job_of(*(upload(k, size_bytes if k == key else len(c)) for k, c in contents.items()))

    if found is None:
        assert validation.plan(job, bucket, BOTH)
        assert key in bucket.opened
    else:
        (reason,) = reasons_for(job, bucket)
        assert (reason.file, reason.found, reason.rule) == (key, *found)
        assert key not in bucket.opened


def test_picture_over_an_offers_bytes_is_made_smaller() -> None:
    contents = {IMAGE_KEY: CLEAN, AUDIO_KEY: SPEECH_OF_2_SECONDS}
    sizes = {IMAGE_KEY: 50_000_001, AUDIO_KEY: len(SPEECH_OF_2_SECONDS)}
    job = job_of(*(upload(key, size) for key, size in sizes.items()))

    plan = validation.plan(job, Bucket(contents), BOTH)

    assert plan.conform == ("anna.png: made smaller than 50 MB",)


def test_two_pictures_are_refused_by_name_and_the_voice_is_judged_too() -> None:
    audio = samples.wav(130)
    pictures = ["inbox/team/anna.png", "inbox/team/anna.jpg"]
    job = job_of(*(upload(key, 9) for key in pictures), upload(AUDIO_KEY, len(audio)))
    bucket = Bucket({AUDIO_KEY: audio})

    first, second, *voice = reasons_for(job, bucket)

    assert [first.file, second.file] == pictures
    assert first.found == "one of 2 pictures with the same name: anna.png and anna.jpg"
    assert first.cure == "Delete or rename all but one of them, then drop that one again."
    assert {reason.found for reason in voice} == {"2 minutes 10 seconds long"}


def test_three_recordings_are_refused_by_name() -> None:
    recordings = [f"inbox/team/anna{ending}" for ending in (".mp3", ".wav", ".MP3.wav")]
    job = job_of(upload(IMAGE_KEY, len(CLEAN)), *(upload(key, 9) for key in recordings))

    reasons = reasons_for(job, Bucket({IMAGE_KEY: CLEAN}))

    assert [reason.file for reason in reasons] == recordings
    assert {reason.found for reason in reasons} == {
        "one of 3 recordings with the same name: anna.mp3, anna.wav and anna.MP3.wav"
    }


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ([upload(AUDIO_KEY, len(samples.SPEECH_MP3))], [(AUDIO_KEY, "no picture has this name")]),
        (
            [],
            [
                ("inbox/team/anna", "no picture has this name"),
                ("inbox/team/anna", "no recording has this name"),
            ],
        ),
    ],
)
def test_job_without_its_halves_is_refused(
    inputs: list[Input], found: list[tuple[str, str]]
) -> None:
    reasons = reasons_for(job_of(*inputs), Bucket({AUDIO_KEY: samples.SPEECH_MP3}))

    assert [(reason.file, reason.found) for reason in reasons] == found


@pytest.mark.parametrize(
    ("model", "cure"),
    [
        ("wan-2.2-speech-to-vidoe", "Did you mean wan-2.2-speech-to-video? Name a known model"),
        ("Wan-2.2-Speech-To-Video", "Did you mean wan-2.2-speech-to-video? Name a known model"),
        ("sora", "Name a known model"),
    ],
)
def test_unknown_model_is_refused_with_the_known_ones(model: str, cure: str) -> None:
    (reason,) = reasons_for(job_of(upload(IMAGE_KEY, 9), model=model), Bucket({}))

    assert model in reason.found
    assert all(name in reason.rule for name in MODELS)
    assert reason.cure.startswith(cure)


def test_upload_that_is_gone_says_so() -> None:
    job = job_of(upload(IMAGE_KEY, 9), upload(AUDIO_KEY, 9))

    with pytest.raises(InputGone):
        validation.plan(job, Bucket({}), BOTH)


# The route


@pytest.mark.parametrize(
    ("seconds", "wishes", "route"),
    [
        (5, {}, ["runcomfy", "wavespeed"]),
        (25, {}, ["wavespeed"]),
        (5, {"options": {"style": "sing"}}, ["runcomfy"]),
        (5, {"options": {"seed": 7}}, ["wavespeed"]),
        (5, {"prompt": "She sings."}, ["wavespeed"]),
        (5, {"prompt": " "}, ["runcomfy", "wavespeed"]),
        (5, {"options": {"resolution": "720P"}}, ["runcomfy", "wavespeed"]),
    ],
)
def test_route_has_the_offers_that_take_everything(
    seconds: float, wishes: dict[str, Any], route: list[str]
) -> None:
    job, bucket = dropped({IMAGE_KEY: CLEAN, AUDIO_KEY: samples.wav(seconds)}, **wishes)

    assert route_of(validation.plan(job, bucket, BOTH)) == route


def test_no_offer_for_all_options_is_told_offer_by_offer() -> None:
    job, bucket = dropped(
        {IMAGE_KEY: CLEAN, AUDIO_KEY: samples.wav(2)},
        options={"style": "sing", "seed": 7},
    )

    assert [(reason.offer, reason.found) for reason in reasons_for(job, bucket)] == [
        ("RunComfy", "the option seed"),
        ("WaveSpeed", "the option style"),
    ]


def test_options_go_to_each_offer_in_its_own_words() -> None:
    job, bucket = dropped(
        {IMAGE_KEY: CLEAN, AUDIO_KEY: SPEECH_OF_2_SECONDS}, options={"resolution": "720p"}
    )

    first, second = validation.plan(job, bucket, BOTH).route

    assert (first.fields, second.fields) == ({"resolution": "720P"}, {"resolution": "720p"})


def test_one_copy_must_fit_every_offer_of_the_route() -> None:
    """RunComfy takes a BMP, WaveSpeed does not: it changes when both are on the route."""
    contents = {IMAGE_KEY: samples.picture("BMP"), AUDIO_KEY: SPEECH_OF_2_SECONDS}

    assert validation.plan(*dropped(contents), BOTH).conform == (
        "anna.png: BMP becomes JPEG, PNG or WebP",
    )
    assert validation.plan(*dropped(contents), RUNCOMFY).conform == ()


def test_offers_that_no_one_copy_can_serve_do_not_share_a_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = MODELS[SPEECH].route
    only_bmp = second.image.model_copy(update={"formats": (ImageFormat.BMP,)})
    only_png = first.image.model_copy(update={"formats": (ImageFormat.PNG,)})
    route = (
        first.model_copy(update={"image": only_png}),
        second.model_copy(update={"image": only_bmp}),
    )
    models = {SPEECH: Model(name=SPEECH, does="", route=route)}
    monkeypatch.setattr(validation, "MODELS", models)
    job, bucket = dropped({IMAGE_KEY: CLEAN, AUDIO_KEY: SPEECH_OF_2_SECONDS})

    assert route_of(validation.plan(job, bucket, BOTH)) == ["runcomfy"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SPEECH, "No token is stored for RunComfy or for WaveSpeed."),
        (IMAGE, "No token is stored for RunComfy."),
    ],
)
def test_without_any_token_the_job_says_whose_is_missing(model: str, message: str) -> None:
    configured = WAVESPEED if model == IMAGE else frozenset[ProviderName]()

    with pytest.raises(TokenMissing) as missing:
        validation.plan(job_of(model=model), Bucket({}), configured)

    assert missing.value.message == message


@pytest.mark.parametrize("configured", [RUNCOMFY, WAVESPEED])
def test_only_a_provider_with_a_token_is_on_the_route(configured: frozenset[ProviderName]) -> None:
    job, bucket = dropped({IMAGE_KEY: CLEAN, AUDIO_KEY: SPEECH_OF_2_SECONDS})

    plan = validation.plan(job, bucket, configured)

    assert {offer.provider for offer in plan.route} == configured


def test_token_that_would_help_is_told_beside_the_rule() -> None:
    job, bucket = dropped({IMAGE_KEY: CLEAN, AUDIO_KEY: samples.wav(25)})

    first, second = reasons_for(job, bucket, RUNCOMFY)

    assert (first.offer, first.rule) == ("RunComfy", SHORT)
    assert (second.offer, second.rule) == ("WaveSpeed", "a token for WaveSpeed")
    assert second.cure.startswith("WaveSpeed would take these files")


def test_token_that_would_not_help_is_not_told() -> None:
    job, bucket = dropped({IMAGE_KEY: CLEAN, AUDIO_KEY: samples.wav(130)})

    (reason,) = reasons_for(job, bucket, RUNCOMFY)

    assert (reason.offer, reason.rule) == ("RunComfy", SHORT)


# The other models


@pytest.mark.parametrize("model", [IMAGE, FLASH])
def test_picture_and_prompt_are_enough(model: str) -> None:
    job, bucket = dropped({IMAGE_KEY: CLEAN}, model=model, prompt="She waves.")

    plan = validation.plan(job, bucket, BOTH)

    assert (plan.audio, plan.audio_facts) == (None, None)
    assert plan.route[0].fields == {"prompt": "She waves."}


@pytest.mark.parametrize("model", [IMAGE, FLASH])
def test_missing_prompt_is_refused(model: str) -> None:
    job, bucket = dropped({IMAGE_KEY: CLEAN}, model=model)

    (reason,) = reasons_for(job, bucket)

    assert (reason.offer, reason.found, reason.rule) == (None, "no prompt", "a prompt")


def test_recording_for_a_model_that_takes_none_is_refused() -> None:
    job, bucket = dropped(
        {IMAGE_KEY: CLEAN, AUDIO_KEY: SPEECH_OF_2_SECONDS}, model=IMAGE, prompt="She waves."
    )

    (reason,) = reasons_for(job, bucket)

    assert (reason.file, reason.rule, reason.found) == (AUDIO_KEY, "no recording", "a recording")
    assert SPEECH in reason.cure
    assert FLASH in reason.cure


def test_recording_that_is_optional_is_judged_when_it_is_there() -> None:
    job, bucket = dropped(
        {IMAGE_KEY: CLEAN, AUDIO_KEY: SPEECH_OF_2_SECONDS}, model=FLASH, prompt="She waves."
    )

    (reason,) = reasons_for(job, bucket)

    assert (reason.rule, reason.found) == ("at least 3 seconds", "2.00 seconds long")


def test_transparency_is_filled_where_the_page_forbids_it() -> None:
    job, bucket = dropped(
        {IMAGE_KEY: samples.picture("PNG", mode="RGBA")}, model=IMAGE, prompt="She waves."
    )

    assert validation.plan(job, bucket, BOTH).conform == ("anna.png: transparent parts are filled",)


# Which file says it

DEFAULTS = ("inbox/_defaults.json", "inbox/team/_defaults.json")


@pytest.mark.parametrize(
    ("documents", "file"),
    [
        ({}, IMAGE_KEY),
        ({OPTIONS_KEY: {"style": "dance"}}, OPTIONS_KEY),
        ({DEFAULTS[0]: {"style": "dance"}}, DEFAULTS[0]),
        ({DEFAULTS[0]: {"style": "dance"}, OPTIONS_KEY: {"resolution": "720p"}}, DEFAULTS[0]),
        ({DEFAULTS[0]: {"style": "x"}, DEFAULTS[1]: {"style": "dance"}}, DEFAULTS[1]),
        ({DEFAULTS[1]: {"style": "x"}, OPTIONS_KEY: {"style": "dance"}}, OPTIONS_KEY),
    ],
)
def test_wrong_value_is_blamed_on_the_file_that_sets_it(
    documents: dict[str, dict[str, str]], file: str
) -> None:
    contents = {IMAGE_KEY: CLEAN, AUDIO_KEY: SPEECH_OF_2_SECONDS}
    contents |= {key: json.dumps(document).encode() for key, document in documents.items()}
    job, bucket = dropped(contents, options={"style": "dance"})

    assert reasons_for(job, bucket, RUNCOMFY)[0].file == file


def test_prompt_is_blamed_on_its_text_file() -> None:
    text_key = "inbox/team/anna.txt"
    job, bucket = dropped(
        {IMAGE_KEY: CLEAN, text_key: b"", OPTIONS_KEY: b"{}"}, model=IMAGE, prompt="x" * 800
    )

    (reason,) = reasons_for(job, bucket)

    assert (reason.file, reason.found) == (text_key, "prompt: 800 characters")


# After conform


@pytest.fixture
def planned() -> Plan:
    job, bucket = dropped({IMAGE_KEY: samples.heic(), AUDIO_KEY: samples.encoded("ipod", "aac")})
    plan = validation.plan(job, bucket, BOTH)
    assert plan.conform
    return plan


COPY = Picture(kinds.JPEG, 200_000, 640, 480)
COPY_OF_SOUND = Sound(kinds.MP3, 50_000, 2.0)


def test_settled_plan_has_the_exact_facts(planned: Plan) -> None:
    settled = validation.settle(planned, COPY, COPY_OF_SOUND)

    assert settled.image_facts == COPY.facts
    assert settled.audio_facts == COPY_OF_SOUND.facts
    assert settled.conform == ()
    assert settled.job == planned.job


def test_exact_duration_narrows_the_route(planned: Plan) -> None:
    settled = validation.settle(planned, COPY, replace(COPY_OF_SOUND, duration_seconds=20.1))

    assert route_of(settled) == ["wavespeed"]


def test_settling_without_a_recording() -> None:
    job, bucket = dropped({IMAGE_KEY: samples.heic()}, model=FLASH, prompt="She waves.")
    plan = validation.plan(job, bucket, BOTH)

    assert validation.settle(plan, COPY, None).audio_facts is None


@pytest.mark.parametrize(
    ("picture", "sound", "told"),
    [
        (
            COPY,
            replace(COPY_OF_SOUND, duration_seconds=121.0),
            [
                ("RunComfy", AUDIO_KEY, "2 minutes 1 seconds long", SHORT),
                ("WaveSpeed", AUDIO_KEY, "2 minutes 1 seconds long", "at most 120 seconds"),
            ],
        ),
        (
            replace(COPY, metadata=("captions (IPTC)",)),
            COPY_OF_SOUND,
            [(None, IMAGE_KEY, "a file that could not be made to fit", "captions (IPTC) removed")],
        ),
    ],
)
def test_what_does_not_fit_after_all_is_refused_by_the_name_it_was_dropped_with(
    planned: Plan, picture: Picture, sound: Sound, told: list[tuple[str | None, str, str, str]]
) -> None:
    with pytest.raises(InputRejected) as refusal:
        validation.settle(planned, picture, sound)

    assert [(r.offer, r.file, r.found, r.rule) for r in refusal.value.reasons] == told


# No job makes validation do anything but answer.

NAMES = sorted(
    {o.name for m in MODELS.values() for offer in m.route for o in offer.options} - {"prompt"}
)
VALUES: st.SearchStrategy[OptionValue] = (
    st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(("720p", 5, "sing"))
)


PICTURES = {"clean": CLEAN, "HEIC": samples.heic(), "text": samples.TEXT, "nothing": b""}
RECORDINGS = {"2 s": SPEECH_OF_2_SECONDS, "25 s": samples.wav(25), "text": samples.TEXT}


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    model=st.sampled_from(sorted(MODELS)),
    image=st.sampled_from(sorted(PICTURES)),
    audio=st.none() | st.sampled_from(sorted(RECORDINGS)),
    prompt=st.none() | st.text(max_size=30) | st.just("x" * 900),
    options=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), VALUES, max_size=3),
    configured=st.sampled_from((BOTH, RUNCOMFY, WAVESPEED)),
)
def test_no_job_makes_validation_crash(
    model: str,
    image: str,
    audio: str | None,
    prompt: str | None,
    options: dict[str, OptionValue],
    configured: frozenset[ProviderName],
) -> None:
    contents = {IMAGE_KEY: PICTURES[image]} | ({AUDIO_KEY: RECORDINGS[audio]} if audio else {})
    job, bucket = dropped(contents, model=model, prompt=prompt, options=options)
    try:
        plan = validation.plan(job, bucket, configured)
    except InputRejected as refusal:
        assert refusal.reasons
        assert ErrorReport.model_validate_json(str(refusal)) == refusal.report
    except TokenMissing:
        assert configured == WAVESPEED
    else:
        assert {offer.provider for offer in plan.route} <= configured
        for planned in plan.route:
            asked = len(options) + bool(prompt and prompt.strip())
            assert len(planned.fields) == asked  # nothing is dropped, nothing is added
            assert catalog.offer_of(planned.provider, planned.endpoint)
