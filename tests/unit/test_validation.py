"""Bad input is an answer: file, rule, found value and cure, all rules at once."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dropreel import validation
from dropreel.catalog import MODELS, ImageFormat, Model, ProviderName
from dropreel.errors import ErrorReport, InputGone, InputRejected, Reason
from dropreel.job import Input, Job, Role
from dropreel.render import Plan
from tests import media_samples as samples

MODEL = "wan-2.2-speech-to-video"
IMAGE_KEY = "inbox/team/anna.png"
AUDIO_KEY = "inbox/team/anna.mp3"


@dataclass
class Bucket:
    """An upload bucket in memory that remembers what was read."""

    contents: dict[str, bytes]
    read_keys: list[str] = field(default_factory=list)

    def read(self, bucket: str, pinned: Input) -> bytes:
        self.read_keys.append(pinned.key)
        if pinned.key not in self.contents:
            raise InputGone(f"{pinned.key} was deleted before it could be read.")
        return self.contents[pinned.key]


def upload(key: str, size_bytes: int) -> Input:
    role = Role.AUDIO if key.endswith(("mp3", "wav")) else Role.IMAGE
    return Input(role=role, key=key, version_id="v1", size_bytes=size_bytes)


def job_of(*inputs: Input, model: str = MODEL) -> Job:
    return Job(id="anna-1", bucket="u", folder="team/", stem="anna", model=model, inputs=inputs)


def reasons_for(job: Job, bucket: Bucket) -> tuple[Reason, ...]:
    with pytest.raises(InputRejected) as refusal:
        validation.plan(job, bucket)
    return refusal.value.reasons


def plan_for(image: bytes, audio: bytes) -> Plan:
    job = job_of(upload(IMAGE_KEY, len(image)), upload(AUDIO_KEY, len(audio)))
    return validation.plan(job, Bucket({IMAGE_KEY: image, AUDIO_KEY: audio}))


def found_by(image: bytes, audio: bytes) -> dict[str, list[tuple[str, str]]]:
    """What is found wrong, and the rule, by file; nothing when there is a plan."""
    found: dict[str, list[tuple[str, str]]] = {}
    try:
        plan_for(image, audio)
    except InputRejected as refusal:
        for reason in refusal.reasons:
            found.setdefault(reason.file, []).append((reason.found, reason.rule))
    return found


def test_good_job_gets_a_plan() -> None:
    job = job_of(
        upload(IMAGE_KEY, len(samples.PORTRAIT)), upload(AUDIO_KEY, len(samples.SPEECH_MP3))
    )

    plan = validation.plan(
        job, Bucket({IMAGE_KEY: samples.PORTRAIT, AUDIO_KEY: samples.SPEECH_MP3})
    )

    assert plan.job == job
    assert (plan.provider, plan.endpoint) == (
        ProviderName.RUNCOMFY,
        "wan-ai/wan-2-2/speech-to-video",
    )
    assert (plan.image.format, plan.image.width, plan.image.height) == (ImageFormat.PNG, 512, 512)
    assert plan.audio.duration_seconds == pytest.approx(8.28, abs=0.01)
    assert plan.estimated_usd is None


WIDE = "more than 400 pixels wide"
HIGH = "more than 400 pixels high"
NOT_SO_WIDE = "fewer than 7000 pixels wide"
NOT_SO_HIGH = "fewer than 7000 pixels high"
A_PICTURE = "a picture in the format JPEG (jpg), PNG, BMP or WebP"
WHOLE_PICTURE = "a complete, undamaged picture"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (samples.PORTRAIT, []),
        (samples.picture("JPEG"), []),
        (samples.picture("JPEG", mode="CMYK"), []),
        (samples.picture("BMP"), []),
        (samples.picture("WEBP"), []),
        (samples.animation("WEBP"), []),
        (samples.picture("PNG", mode="RGBA"), []),
        (samples.picture("PNG", mode="I;16"), []),
        # sides
        (samples.picture("PNG", 401, 401, "1"), []),
        (samples.picture("PNG", 6999, 401, "1"), []),
        (samples.picture("PNG", 401, 6999, "1"), []),
        (samples.picture("PNG", 400, 401, "1"), [("400 pixels wide", WIDE)]),
        (samples.picture("PNG", 401, 400, "1"), [("400 pixels high", HIGH)]),
        (samples.picture("PNG", 7000, 401, "1"), [("7000 pixels wide", NOT_SO_WIDE)]),
        (samples.picture("PNG", 401, 7000, "1"), [("7000 pixels high", NOT_SO_HIGH)]),
        (
            samples.picture("WEBP", 320, 7001),
            [("320 pixels wide", WIDE), ("7001 pixels high", NOT_SO_HIGH)],
        ),
        (
            samples.picture("BMP", 320, 200),
            [("320 pixels wide", WIDE), ("200 pixels high", HIGH)],
        ),
        (
            samples.bomb_png(50_000),
            [("50000 pixels wide", NOT_SO_WIDE), ("50000 pixels high", NOT_SO_HIGH)],
        ),
        (
            samples.bomb_webp(),
            [("16383 pixels wide", NOT_SO_WIDE), ("16383 pixels high", NOT_SO_HIGH)],
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
            [("a WebP picture that breaks off or is damaged", WHOLE_PICTURE)],
        ),
        (samples.spoiled_png(), [("a PNG picture that breaks off or is damaged", WHOLE_PICTURE)]),
        (
            samples.picture("BMP", 320, 500)[:9000],
            [
                ("320 pixels wide", WIDE),
                ("a BMP picture that breaks off before its end", WHOLE_PICTURE),
            ],
        ),
        (b"\x89PNG\r\n\x1a\n", [("a PNG picture that breaks off or is damaged", WHOLE_PICTURE)]),
        # something else
        (samples.TEXT, [("plain text", A_PICTURE)]),
        (samples.WEB_PAGE, [("a web page", A_PICTURE)]),
        (samples.NOISE, [("a file of an unknown kind", A_PICTURE)]),
        (samples.iso_media(b"heic"), [("a HEIC photo, as iPhones take them", A_PICTURE)]),
        (samples.picture("GIF"), [("a GIF picture", A_PICTURE)]),
        (samples.picture("TIFF"), [("a TIFF picture", A_PICTURE)]),
        (samples.SPEECH_MP3, [("an MP3 recording", A_PICTURE)]),
    ],
)
def test_pictures_and_their_verdicts(image: bytes, expected: list[tuple[str, str]]) -> None:
    assert found_by(image, samples.SPEECH_MP3) == ({IMAGE_KEY: expected} if expected else {})


SHORT = "shorter than 20 seconds"
A_RECORDING = "a recording in the format WAV or MP3"
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
        # duration
        (samples.wav(19.99), []),
        (samples.wav(20), [("20.00 seconds long", SHORT)]),
        (samples.wav(25.3), [("25.30 seconds long", SHORT)]),
        (samples.wav(754), [("12 minutes 34 seconds long", SHORT)]),
        (samples.wav(179.6), [("3 minutes 0 seconds long", SHORT)]),
        (samples.mp3_of_rising_bitrate(833), []),
        (samples.mp3_of_rising_bitrate(834), [("20.02 seconds long", SHORT)]),
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
        # something else
        (samples.TEXT, [("plain text", A_RECORDING)]),
        (samples.NOISE, [("a file of an unknown kind", A_RECORDING)]),
        (
            samples.encoded("ipod", "aac"),
            [("an M4A recording, as voice memo apps make them", A_RECORDING)],
        ),
        (samples.encoded("ogg", "libopus"), [("an Opus recording", A_RECORDING)]),
        (samples.encoded("flac", "flac"), [("a FLAC recording", A_RECORDING)]),
        (
            samples.encoded("wav", "pcm_alaw"),
            [("a WAV file with A-law sound inside, not plain WAV", A_RECORDING)],
        ),
        (samples.PORTRAIT, [("a PNG picture", A_RECORDING)]),
    ],
)
def test_recordings_and_their_verdicts(audio: bytes, expected: list[tuple[str, str]]) -> None:
    assert found_by(samples.PORTRAIT, audio) == ({AUDIO_KEY: expected} if expected else {})


def test_all_reasons_come_at_once() -> None:
    found = found_by(samples.picture("PNG", 320, 7000, "1"), samples.wav(25.3))

    assert [len(found[key]) for key in (IMAGE_KEY, AUDIO_KEY)] == [2, 1]


def test_refusal_reads_well_to_who_dropped_the_file() -> None:
    image, audio = samples.picture("BMP", 320, 500), samples.encoded("ipod", "aac")
    job = job_of(upload(IMAGE_KEY, len(image)), upload(AUDIO_KEY, len(audio)))

    with pytest.raises(InputRejected) as refusal:
        validation.plan(job, Bucket({IMAGE_KEY: image, AUDIO_KEY: audio}))

    assert refusal.value.message == (
        "2 files cannot be used: "
        "inbox/team/anna.png: 320 pixels wide; needed: more than 400 pixels wide. "
        "inbox/team/anna.mp3: an M4A recording, as voice memo apps make them; "
        "needed: a recording in the format WAV or MP3."
    )
    assert [reason.cure for reason in refusal.value.reasons] == [
        "Use a larger picture: at least 401 x 401 pixels.",
        "Open the original recording in an app and export it as WAV or MP3; "
        "giving the file another name does not change what it is.",
    ]


@pytest.mark.parametrize(
    ("key", "size_bytes", "found"),
    [
        (IMAGE_KEY, 50_000_000, None),
        (IMAGE_KEY, 50_000_001, ("50.1 MB large", "at most 50 MB")),
        (IMAGE_KEY, 3_000_000_000, ("3000 MB large", "at most 50 MB")),
        (AUDIO_KEY, 14_999_999, None),
        (AUDIO_KEY, 15_000_000, ("15 MB large", "less than 15 MB")),
        (AUDIO_KEY, 15_000_001, ("15.1 MB large", "less than 15 MB")),
    ],
)
def test_too_large_a_file_is_refused_unread(
    key: str, size_bytes: int, found: tuple[str, str] | None
) -> None:
    contents = {IMAGE_KEY: samples.PORTRAIT, AUDIO_KEY: samples.SPEECH_MP3}
    bucket = Bucket(contents)
    job = job_of(*(upload(k, size_bytes if k == key else len(c)) for k, c in contents.items()))

    if found is None:
        assert validation.plan(job, bucket)
        assert key in bucket.read_keys
    else:
        (reason,) = reasons_for(job, bucket)
        assert (reason.file, reason.found, reason.rule) == (key, *found)
        assert key not in bucket.read_keys


def test_two_pictures_are_refused_by_name_and_the_voice_is_judged_too() -> None:
    audio = samples.wav(25)
    pictures = ["inbox/team/anna.png", "inbox/team/anna.jpg"]
    job = job_of(*(upload(key, 9) for key in pictures), upload(AUDIO_KEY, len(audio)))
    bucket = Bucket({AUDIO_KEY: audio})

    first, second, voice = reasons_for(job, bucket)

    assert [first.file, second.file] == pictures
    assert first.found == "one of 2 pictures with the same name: anna.png and anna.jpg"
    assert first.cure == "Delete or rename all but one of them, then drop that one again."
    assert voice.found == "25.00 seconds long"


def test_three_recordings_are_refused_by_name() -> None:
    recordings = [f"inbox/team/anna{ending}" for ending in (".mp3", ".wav", ".MP3.wav")]
    job = job_of(upload(IMAGE_KEY, len(samples.PORTRAIT)), *(upload(key, 9) for key in recordings))

    reasons = reasons_for(job, Bucket({IMAGE_KEY: samples.PORTRAIT}))

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


def test_unknown_model_is_refused_with_the_known_ones() -> None:
    (reason,) = reasons_for(job_of(upload(IMAGE_KEY, 9), model="wan-9"), Bucket({}))

    assert "wan-9" in reason.found
    assert MODEL in reason.rule


def test_upload_that_is_gone_says_so() -> None:
    job = job_of(upload(IMAGE_KEY, 9), upload(AUDIO_KEY, 9))

    with pytest.raises(InputGone):
        validation.plan(job, Bucket({}))


@pytest.fixture
def two_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dear offer for short recordings, and a second one that takes longer ones."""
    (offer,) = MODELS[MODEL].route
    brief = offer.audio.model_copy(update={"duration_under_seconds": 5.0})
    route = (
        offer.model_copy(update={"audio": brief, "endpoint": "brief", "usd_per_second": 0.1}),
        offer.model_copy(update={"endpoint": "longer", "usd_per_second": 0.03}),
    )
    monkeypatch.setitem(MODELS, MODEL, Model(name=MODEL, route=route))


@pytest.mark.usefixtures("two_offers")
@pytest.mark.parametrize(("seconds", "endpoint", "usd"), [(4, "brief", 0.4), (6, "longer", 0.18)])
def test_first_offer_that_takes_everything_gets_the_job(
    seconds: float, endpoint: str, usd: float
) -> None:
    plan = plan_for(samples.PORTRAIT, samples.wav(seconds))

    assert (plan.endpoint, plan.estimated_usd) == (endpoint, usd)


@pytest.mark.usefixtures("two_offers")
def test_reasons_of_every_offer_are_told_once() -> None:
    image, audio = samples.picture("PNG", 320, 500), samples.wav(25)
    contents = {IMAGE_KEY: image, AUDIO_KEY: audio}
    bucket = Bucket(contents)

    reasons = reasons_for(job_of(*(upload(k, len(c)) for k, c in contents.items())), bucket)

    assert [reason.rule for reason in reasons] == [
        WIDE,
        "shorter than 5 seconds",
        "shorter than 20 seconds",
    ]
    assert bucket.read_keys == [IMAGE_KEY, AUDIO_KEY]


# No bytes make validation do anything but answer.

PICTURES = [
    samples.picture("JPEG", 420, 420),
    samples.picture("PNG", 420, 420, "P"),
    samples.picture("BMP", 420, 420, "P"),
    samples.picture("WEBP", 420, 420),
    samples.animation("WEBP"),
]
RECORDINGS = [
    samples.mp3(0.5),
    samples.mp3_without_header(0.5),
    samples.wav(0.5, extensible=True),
    samples.wav(0.5, before_data=b"LIST\x05\0\0\0a tag\0"),
]


@st.composite
def spoiled(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """An original with some bytes changed, mostly in its header, and perhaps cut."""
    content = bytearray(draw(st.sampled_from(originals)))
    near_start = st.integers(0, 200)
    anywhere = st.integers(0, len(content) - 1)
    for position in draw(st.lists(near_start | anywhere, max_size=6)):
        content[position] = draw(st.integers(0, 255))
    kept = draw(st.none() | near_start | anywhere)
    return bytes(content[:kept])


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    image=spoiled(PICTURES) | st.binary(max_size=300),
    audio=spoiled(RECORDINGS) | spoiled(PICTURES) | st.binary(max_size=300),
)
def test_no_bytes_make_validation_crash(image: bytes, audio: bytes) -> None:
    try:
        plan = plan_for(image, audio)
    except InputRejected as refusal:
        assert refusal.reasons
        assert ErrorReport.model_validate_json(str(refusal)) == refusal.report
    else:
        assert 400 < plan.image.width < 7000
        assert 0 < plan.audio.duration_seconds < 20
