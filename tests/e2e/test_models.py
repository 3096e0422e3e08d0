"""Every model on every provider that offers it, falling over, and files as people have them."""

import io
import json
from pathlib import Path
from typing import Any

import av
import pytest

from dropreel.model.catalog import MODELS
from tests.e2e.conftest import PORTRAIT, SPEECH, Event, Stack
from tests.support.phone import heic_photo, m4a_memo

SPEECH_SECONDS = 8.3


def drop_job(stack: Stack, stem: str, said: dict[str, Any], *files: tuple[str, bytes]) -> None:
    """A job file first, so that the job is complete with the last of the files."""
    for key, body in ((f"{stem}.json", json.dumps(said).encode()), *files):
        stack.upload(key, body)


def event_about(stack: Stack, stem: str) -> Event:
    folder, _, name = stem.rpartition("/")
    return stack.event(
        lambda e: (
            (job := e["detail"].get("job")) is not None
            and job["stem"] == name
            and job["folder"].rstrip("/") == folder
        )
    )


def length_seconds(film: bytes) -> float:
    """By decoding all of its pictures."""
    with av.open(io.BytesIO(film), "r") as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        return len(list(container.decode(stream))) / float(stream.average_rate)


PICTURE, VOICE = PORTRAIT.read_bytes(), SPEECH.read_bytes()

SPEECH_MODEL, IMAGE_MODEL = "wan-2.2-speech-to-video", "wan-2.2-image-to-video"
FLASH = "wan-2.6-flash-image-to-video"
NODS = {"prompt": "She nods."}
OFFERS: dict[str, tuple[str, str, dict[str, Any], bool, float]] = {
    "speech on RunComfy": (SPEECH_MODEL, "runcomfy", {"style": "sing"}, True, SPEECH_SECONDS),
    "speech on WaveSpeed": (SPEECH_MODEL, "wavespeed", {"seed": 7}, True, SPEECH_SECONDS),
    "image on RunComfy": (IMAGE_MODEL, "runcomfy", NODS | {"resolution": "480p"}, False, 5),
    "flash without a voice": (
        FLASH,
        "runcomfy",
        NODS | {"duration": 10, "generate_audio": False},
        False,
        10,
    ),
    "flash with a voice": (FLASH, "runcomfy", NODS | {"shot_type": "single"}, True, 5),
}


@pytest.mark.parametrize("case", OFFERS)
def test_each_model_on_each_offer_becomes_a_video_of_the_right_length(
    stack: Stack, case: str
) -> None:
    model, provider, options, voiced, seconds = OFFERS[case]
    stem = f"models/{case.replace(' ', '-')}"
    voice = [(f"{stem}.mp3", VOICE)] if voiced else []

    drop_job(stack, stem, {"model": model, **options}, *voice, (f"{stem}.png", PICTURE))
    event = event_about(stack, stem)

    assert event["detail-type"] == "Video Ready", event["detail"]
    assert event["detail"]["render"]["provider"] == provider
    assert event["detail"]["job"]["model"] == model
    film = stack.video_bucket(f"{stem}.mp4") or b""
    assert length_seconds(film) == pytest.approx(seconds, abs=0.3)
    assert event["detail"]["video"]["duration_seconds"] == pytest.approx(seconds, abs=0.3)
    assert len(stack.submissions(event["detail"]["job"]["id"], provider)) == 1


def test_the_cases_above_name_every_offer_of_the_catalog() -> None:
    tested = {(model, provider) for model, provider, *_ in OFFERS.values()}

    assert tested == {(m.name, o.provider) for m in MODELS.values() for o in m.route if o.on}


def test_a_job_falls_over_from_runcomfy_to_wavespeed(stack: Stack) -> None:
    stack.fault(match="broke", at="submit", status=403, times=None)

    event = stack.event_of(stack.drop("broke"))

    assert event["detail-type"] == "Video Ready"
    attempts = event["detail"]["render"]["attempts"]
    assert [(a["provider"], a["outcome"]) for a in attempts] == [
        ("runcomfy", "TokenRejected"),
        ("wavespeed", "VideoReady"),
    ]
    assert [s["accepted"] for s in stack.submissions("broke")] == [False]
    assert [s["accepted"] for s in stack.submissions("broke", "wavespeed")] == [True]
    assert json.loads(stack.video_bucket("broke.json") or b"")["render"]["attempts"] == attempts


def test_a_failed_render_is_submitted_once_more(stack: Stack) -> None:
    stack.fault(match="second", do="fail_render", times=None)
    stack.fault("wavespeed", match="second", do="fail_render", error="The GPU went away.")

    event = stack.event_of(stack.drop("second"))

    assert event["detail"]["error"]["code"] == "RenderFailed"
    assert "The GPU went away." in event["detail"]["error"]["message"]
    attempts = event["detail"]["render"]["attempts"]
    assert [(a["provider"], a["outcome"]) for a in attempts] == [
        ("runcomfy", "RenderFailed"),
        ("wavespeed", "RenderFailed"),
    ]
    assert len(stack.submissions("second")) == len(stack.submissions("second", "wavespeed")) == 1


def test_an_avatar_folder_makes_a_video_of_every_recording(stack: Stack) -> None:
    stack.upload("news/_defaults.json", json.dumps({"image": "face.png"}).encode())
    stack.upload("news/face.png", PICTURE)
    for day in ("monday", "tuesday"):
        stack.upload(f"news/{day}.mp3", VOICE)

    for day in ("monday", "tuesday"):
        event = event_about(stack, f"news/{day}")
        assert event["detail-type"] == "Video Ready"
        assert "inbox/news/face.png" in {i["key"] for i in event["detail"]["inputs"]}
        assert stack.video_bucket(f"news/{day}.mp4") is not None
    assert {e["name"].partition("-")[0] for e in stack.executions("")} >= {"monday", "tuesday"}
    assert stack.executions("face-") == []


def test_a_phones_photo_and_voice_memo_work_and_carry_no_place(
    stack: Stack, tmp_path: Path
) -> None:
    photo, memo = heic_photo(tmp_path), m4a_memo(tmp_path)
    assert b"GPS" in photo or b"Exif" in photo

    stack.upload("phone/IMG_2041.heic", photo)
    stack.upload("phone/IMG_2041.m4a", memo)
    event = event_about(stack, "phone/IMG_2041")

    assert event["detail-type"] == "Video Ready", event["detail"]
    changes = " ".join(event["detail"]["changes"])
    assert "HEIC" in changes
    assert "M4A" in changes
    (submission,) = [
        s for s in stack.submissions("") if any("img-2041" in path for path in s["inputs"])
    ]
    assert all("/work/" in path for path in submission["inputs"])
    assert [media["metadata"] for media in submission["media"]] == [[], []]
