"""Conform touches only what does not fit, tells every fault at once, and can run twice."""

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

import pytest
from dropreel.media.making import Alarm, Copy, Damaged, OutOfTime, TooLong, Unfit, Watched
from dropreel.media.pictures import Picture
from dropreel.media.recordings import Sound
from dropreel.render.conform import conform

from dropreel.model.catalog import AudioFormat, AudioLimits, ImageFormat, ImageLimits
from dropreel.model.errors import InputGone, InputRejected
from dropreel.model.job import Input, Job, Role
from dropreel.model.messages import Plan, PlannedOffer
from dropreel.render import conform as conforming
from tests.support import media_samples as samples

MODEL = "wan-2.2-speech-to-video"
CLEAN_PICTURE = samples.picture("PNG")
CLEAN_SOUND = samples.mp3(4)
HEIC = samples.heic()
M4A = samples.encoded("ipod", "aac", 4)
ROUTE = (
    PlannedOffer(
        provider="runcomfy",
        endpoint="wan-ai/wan-2-2/speech-to-video",
        fields={},
    ),
    PlannedOffer(
        provider="wavespeed",
        endpoint="wavespeed-ai/wan-2.2/speech-to-video",
        fields={},
    ),
)


@dataclass
class Bucket:
    """An upload bucket in memory."""

    contents: dict[str, bytes]
    kinds: dict[str, str] = field(default_factory=dict)

    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        if pinned.key not in self.contents:
            return _Gone(pinned.key)
        return BytesIO(self.contents[pinned.key])

    def put(self, bucket: str, key: str, body: BinaryIO, content_type: str) -> str:
        self.contents[key] = body.read()
        self.kinds[key] = content_type
        return f"version {len(self.kinds)}"


class _Gone(BytesIO):
    """An upload that was deleted."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def read(self, size: int | None = -1) -> bytes:
        raise InputGone(f"{self._key} was deleted before it could be read.")


@dataclass
class Codecs:
    """Codecs that answer as they are told, and remember what they were asked."""

    picture: bytes | Exception = CLEAN_PICTURE
    sound: bytes | Exception = CLEAN_SOUND
    asked: list[Role] = field(default_factory=list)
    longest_seconds: float = 0
    read: Callable[[Watched], object] = lambda _: None

    def fit_picture(
        self, file: Watched, picture: Picture, limits: ImageLimits, *, into: BinaryIO, alarm: Alarm
    ) -> Copy:
        self.asked.append(Role.IMAGE)
        self.read(file)
        into.write(_or_raise(self.picture))
        return Copy(ImageFormat.PNG, ("The picture was converted.",))

    def fit_recording(
        self,
        file: Watched,
        sound: Sound,
        limits: AudioLimits,
        *,
        longest_seconds: float,
        into: BinaryIO,
        alarm: Alarm,
    ) -> Copy:
        self.asked.append(Role.AUDIO)
        self.longest_seconds = longest_seconds
        into.write(_or_raise(self.sound))
        return Copy(AudioFormat.MP3, ("The recording was converted.",))


def _or_raise(answer: bytes | Exception) -> bytes:
    if isinstance(answer, Exception):
        raise answer
    return answer


def plan_of(picture: bytes, sound: bytes | None = CLEAN_SOUND) -> tuple[Plan, Bucket]:
    contents = {"inbox/anna.image": picture}
    if sound is not None:
        contents["inbox/anna.audio"] = sound
    image, *audio = (
        Input(role=Role(key.rpartition(".")[2]), key=key, version_id="v1", size_bytes=len(content))
        for key, content in contents.items()
    )
    job = Job(
        id="anna-1",
        bucket="uploads",
        folder="",
        stem="anna",
        model=MODEL,
        inputs=(image, *audio),
    )
    plan = Plan(
        job=job,
        route=ROUTE,
        image=image,
        image_facts=None,
        audio=audio[0] if audio else None,
        audio_facts=None,
        conform=("something",),
    )
    return plan, Bucket(contents)


def conformed(
    plan: Plan, bucket: Bucket, codecs: Codecs, seconds_left: Callable[[], float] = lambda: 60.0
) -> Plan:
    return conform(
        plan,
        uploads=bucket,
        fit_picture=codecs.fit_picture,
        fit_recording=codecs.fit_recording,
        seconds_left=seconds_left,
    )


@pytest.mark.parametrize(
    ("picture", "sound", "asked"),
    [
        (HEIC, CLEAN_SOUND, [Role.IMAGE]),
        (CLEAN_PICTURE, M4A, [Role.AUDIO]),
        (HEIC, M4A, [Role.IMAGE, Role.AUDIO]),
        (CLEAN_PICTURE, CLEAN_SOUND, []),
    ],
)
def test_only_what_does_not_fit_is_copied(picture: bytes, sound: bytes, asked: list[Role]) -> None:
    plan, bucket = plan_of(picture, sound)
    codecs = Codecs()

    settled = conformed(plan, bucket, codecs)

    assert codecs.asked == asked
    copied = {"image": "work/anna-1/image.png", "audio": "work/anna-1/audio.mp3"}
    assert settled.audio
    assert (
        settled.image.key == (copied if Role.IMAGE in asked else {"image": plan.image.key})["image"]
    )
    assert set(bucket.kinds) == {copied[role] for role in asked}
    assert settled.conform == ()
    assert len(settled.changes) == len(asked)
    assert settled.image_facts and settled.image_facts.format is ImageFormat.PNG
    assert settled.audio_facts and settled.audio_facts.duration_seconds == pytest.approx(4, abs=0.1)


def test_plan_pins_the_version_and_the_size_of_the_copy() -> None:
    plan, bucket = plan_of(HEIC)

    settled = conformed(plan, bucket, Codecs())

    assert settled.image == Input(
        role=Role.IMAGE,
        key="work/anna-1/image.png",
        version_id="version 1",
        size_bytes=len(CLEAN_PICTURE),
    )
    assert bucket.contents[settled.image.key] == CLEAN_PICTURE
    assert bucket.kinds == {settled.image.key: "image/png"}
    assert settled.job == plan.job


def test_second_run_makes_the_same_again() -> None:
    plan, bucket = plan_of(HEIC, M4A)

    first, contents = conformed(plan, bucket, Codecs()), dict(bucket.contents)
    second = conformed(plan, bucket, Codecs())

    assert bucket.contents == contents
    assert second.image.key == first.image.key


def test_faults_of_both_files_are_told_at_once_and_nothing_is_stored() -> None:
    plan, bucket = plan_of(HEIC, M4A)
    codecs = Codecs(
        picture=Damaged("a HEIC photo that is damaged"),
        sound=Unfit(rule="a recording", found="silence", cure="Speak."),
    )

    with pytest.raises(InputRejected) as refusal:
        conformed(plan, bucket, codecs)

    told = [(reason.file, reason.found) for reason in refusal.value.reasons]
    assert told == [
        ("inbox/anna.image", "a HEIC photo that is damaged"),
        ("inbox/anna.audio", "silence"),
    ]
    assert not bucket.kinds


def test_copy_that_no_offer_takes_is_refused_in_the_words_of_the_original() -> None:
    plan, bucket = plan_of(HEIC)
    offers = plan.model_copy(update={"route": ROUTE[:1]})

    with pytest.raises(InputRejected) as refusal:
        conformed(offers, bucket, Codecs(picture=samples.picture("PNG", 300, 300)))

    assert {reason.file for reason in refusal.value.reasons} == {"inbox/anna.image"}
    assert not bucket.kinds


def test_too_long_recording_is_told_with_the_bounds_of_each_offer() -> None:
    plan, bucket = plan_of(CLEAN_PICTURE, M4A)
    codecs = Codecs(sound=TooLong(125))

    with pytest.raises(InputRejected) as refusal:
        conformed(plan, bucket, codecs)

    assert codecs.longest_seconds == 120
    assert [(reason.offer, reason.rule, reason.found) for reason in refusal.value.reasons] == [
        ("RunComfy", "shorter than 20 seconds", "2 minutes 5 seconds long"),
        ("WaveSpeed", "at most 120 seconds", "2 minutes 5 seconds long"),
    ]


def test_recording_longer_than_it_promised_leaves_the_route_to_who_takes_it() -> None:
    plan, bucket = plan_of(CLEAN_PICTURE, M4A)

    settled = conformed(plan, bucket, Codecs(sound=samples.mp3_of_rising_bitrate(2500)))

    assert [offer.provider for offer in settled.route] == ["wavespeed"]
    assert settled.audio_facts
    assert settled.audio_facts.duration_seconds == pytest.approx(60, abs=0.1)


def test_copy_that_takes_too_long_is_refused_in_words() -> None:
    plan, bucket = plan_of(HEIC)

    with pytest.raises(InputRejected, match="takes more time"):
        conformed(plan, bucket, Codecs(picture=OutOfTime()))
    with pytest.raises(InputRejected, match="takes more time"):
        conformed(plan, bucket, Codecs(), seconds_left=lambda: 5.0)


def test_codec_that_works_on_and_on_is_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    worked_seconds = iter(range(0, 1000, 4))
    monkeypatch.setattr("time.process_time", lambda: next(worked_seconds))
    plan, bucket = plan_of(HEIC)

    with pytest.raises(InputRejected, match="takes more time"):
        conformed(plan, bucket, Codecs(read=lambda file: [file.read(1) for _ in range(9)]))


def test_deleted_upload_is_not_taken_for_a_broken_one() -> None:
    plan, bucket = plan_of(HEIC)
    del bucket.contents["inbox/anna.image"]

    with pytest.raises(InputGone):
        conformed(plan, bucket, Codecs())


def test_upload_deleted_while_it_is_decoded_is_not_taken_for_a_broken_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conforming, "FETCHED_AT_MOST_BYTES", 0)
    plan, bucket = plan_of(CLEAN_PICTURE, M4A)
    codecs = Codecs()

    def fit_recording(file: Watched, *_: object, **__: object) -> Copy:
        file.fault = InputGone("inbox/anna.audio was deleted before it could be read.")
        raise Damaged("an M4A recording that is damaged")

    with pytest.raises(InputGone):
        conform(
            plan,
            uploads=bucket,
            fit_picture=codecs.fit_picture,
            fit_recording=fit_recording,
            seconds_left=lambda: 60.0,
        )


def test_job_without_a_recording_needs_none() -> None:
    plan, bucket = plan_of(HEIC, None)
    image = plan.route[0].model_copy(update={"endpoint": "wan-ai/wan-2-2/image-to-video"})
    job = plan.job.model_copy(update={"model": "wan-2.2-image-to-video", "prompt": "She smiles."})

    settled = conformed(plan.model_copy(update={"route": (image,), "job": job}), bucket, Codecs())

    assert settled.audio is None
    assert settled.audio_facts is None
