"""The stand-in for RunComfy, over real HTTP."""

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from local.standin.runcomfy import RunComfy
from local.standin.server import Settings, Standin, running
from tests.standin_files import served

TOKEN = "a-token-for-the-tests"
MODEL = "/v1/models/wan-ai/wan-2-2/speech-to-video"
PATIENCE_SECONDS = 20

Json = dict[str, Any]


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    with served() as url:
        yield url


LOG: list[str] = []


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    settings = Settings(token=TOKEN, queue_seconds=0, render_seconds=0)
    with running(Standin(RunComfy(), settings).app(log=LOG.append)) as url:
        yield url


@pytest.fixture
def api(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=server,
        headers={"Authorization": f"Bearer {TOKEN}"},
        trust_env=False,
        verify=False,  # plain HTTP; reading the certificates would cost each test 60 ms
        timeout=PATIENCE_SECONDS,
    ) as client:
        client.post("/_standin/reset")
        yield client


@pytest.fixture
def body(files: str) -> Callable[..., Json]:
    def make(image: str = "least.jpg", audio: str = "brief.wav", **options: object) -> Json:
        return {
            "image_url": f"{files}/{image}?signature=good",
            "audio_url": f"{files}/{audio}?signature=good",
            **options,
        }

    return make


def submitted(api: httpx.Client, body: Json) -> str:
    answer = api.post(MODEL, json=body)
    assert answer.status_code == 200, answer.text
    request_id = answer.json()["request_id"]
    assert isinstance(request_id, str)
    return request_id


def awaited(api: httpx.Client, request_id: str, *states: str) -> Json:
    """Ask until the status is one of these."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up_at:
        status: Json = api.get(f"/v1/requests/{request_id}/status").json()
        if status["status"] in states:
            return status
    raise AssertionError(f"still {status}")


def result(api: httpx.Client, request_id: str) -> Json:
    awaited(api, request_id, "completed", "failed", "cancelled")
    answer: Json = api.get(f"/v1/requests/{request_id}/result").json()
    return answer


def video(api: httpx.Client, body: Json) -> str:
    url = result(api, submitted(api, body))["output"]["video"]
    assert isinstance(url, str)
    return url


def fault(api: httpx.Client, **wish: object) -> None:
    answer = api.post("/_standin/faults", json=wish)
    assert answer.status_code == 201, answer.text


def books(api: httpx.Client) -> Json:
    answer: Json = api.get("/_standin/requests").json()
    return answer


# The happy way


@pytest.mark.parametrize(
    ("options", "size"), [({}, (480, 480)), ({"resolution": "720P"}, (720, 720))]
)
def test_video_is_h264_and_aac_as_long_as_the_voice(
    api: httpx.Client, body: Callable[..., Json], options: Json, size: tuple[int, int]
) -> None:
    url = video(api, body("anna.png", "anna.mp3", **options))

    answer = httpx.get(url, trust_env=False)  # no token: whoever has the URL may have the video
    assert answer.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(answer.content), "r") as film:
        frames = list(film.decode(video=0))
        assert film.streams.video[0].codec_context.name == "h264"
        assert film.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert (frames[0].width, frames[0].height) == size
        assert len(frames) / 16 == pytest.approx(8.25, abs=0.1)
    with av.open(io.BytesIO(answer.content), "r") as film:
        heard = sum(frame.samples / frame.sample_rate for frame in film.decode(audio=0))
        assert film.streams.audio[0].codec_context.name == "aac"
        assert heard == pytest.approx(8.25, abs=0.1)


def test_submission_says_where_to_go_on(api: httpx.Client, body: Callable[..., Json]) -> None:
    answer = api.post(MODEL, json=body()).json()

    base = f"{api.base_url}/v1/requests/{answer['request_id']}".replace("//v1", "/v1")
    assert answer["status_url"] == f"{base}/status"
    assert answer["result_url"] == f"{base}/result"
    assert answer["cancel_url"] == f"{base}/cancel"


def test_result_of_unfinished_work_is_its_state(
    api: httpx.Client, body: Callable[..., Json]
) -> None:
    fault(api, do="never_finish")
    request_id = submitted(api, body())
    awaited(api, request_id, "in_progress")

    answer = api.get(f"/v1/requests/{request_id}/result")

    assert (answer.status_code, answer.json()) == (
        200,
        {"request_id": request_id, "status": "in_progress"},
    )


def test_result_of_completed_work_has_times_and_output(
    api: httpx.Client, body: Callable[..., Json]
) -> None:
    answer = result(api, submitted(api, body()))

    assert answer["status"] == "succeeded"
    assert answer["created_at"] <= answer["finished_at"]
    assert list(answer["output"]) == ["video"]


def test_input_may_redirect(api: httpx.Client, body: Callable[..., Json]) -> None:
    assert result(api, submitted(api, body("moved.png")))["status"] == "succeeded"


def test_time_passes_in_queue_and_rendering(api: httpx.Client, body: Callable[..., Json]) -> None:
    fault(api, at="render", queue_seconds=0.3, render_seconds=0.4)

    begun = time.monotonic()
    request_id = submitted(api, body())
    awaited(api, request_id, "in_queue")
    awaited(api, request_id, "in_progress")
    awaited(api, request_id, "completed")

    assert 0.7 <= time.monotonic() - begun < PATIENCE_SECONDS


# Cancelling


def test_queued_request_can_be_cancelled(api: httpx.Client, body: Callable[..., Json]) -> None:
    fault(api, do="stay_queued", times=2)
    submitted(api, body())
    request_id = submitted(api, body())
    assert awaited(api, request_id, "in_queue")["queue_position"] == 1

    answer = api.post(f"/v1/requests/{request_id}/cancel")

    assert answer.json() == {"request_id": request_id, "status": "cancelled"}
    assert result(api, request_id)["status"] == "cancelled"
    assert [it["cancelled"] for it in books(api)["submissions"]] == [False, True]


def test_request_in_progress_cannot_be_cancelled(
    api: httpx.Client, body: Callable[..., Json]
) -> None:
    fault(api, do="never_finish")
    request_id = submitted(api, body())
    awaited(api, request_id, "in_progress")

    answer = api.post(f"/v1/requests/{request_id}/cancel")

    assert answer.json() == {"request_id": request_id, "status": "in_progress"}


# Refusals


@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", MODEL),
        ("GET", "/v1/requests/x/status"),
        ("GET", "/v1/requests/x/result"),
        ("POST", "/v1/requests/x/cancel"),
    ],
)
def test_every_endpoint_wants_the_token(
    api: httpx.Client, method: str, path: str, given: dict[str, str]
) -> None:
    api.headers.pop("Authorization")

    answer = api.request(method, path, headers=given)

    assert (answer.status_code, answer.json()["error_code"]) == (401, 401001)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/requests/unknown/status"),
        ("GET", "/v1/requests/unknown/result"),
        ("POST", "/v1/requests/unknown/cancel"),
        ("POST", "/v1/models/wan-ai/no-such-model"),
    ],
)
def test_unknown_things_are_404(api: httpx.Client, method: str, path: str) -> None:
    answer = api.request(method, path)

    assert (answer.status_code, answer.json()["error_code"]) == (404, 404001)


@pytest.mark.parametrize(
    ("change", "field", "kind"),
    [
        ({"image_url": None}, "image_url", "missing"),
        ({"audio_url": None}, "audio_url", "missing"),
        ({"image_url": 5}, "image_url", "string_type"),
        ({"image_url": "inbox/anna.png"}, "image_url", "url_parsing"),
        ({"resolution": "480p"}, "resolution", "enum"),
        ({"resolution": 480}, "resolution", "string_type"),
        ({"style": "whisper"}, "style", "enum"),
        ({"prompt": "A dance."}, "prompt", "extra_forbidden"),
    ],
)
def test_body_that_breaks_the_schema_is_422_and_points_at_the_field(
    api: httpx.Client, body: Callable[..., Json], change: Json, field: str, kind: str
) -> None:
    wrong = {name: value for name, value in {**body(), **change}.items() if value is not None}

    answer = api.post(MODEL, json=wrong)

    assert (answer.status_code, answer.json()["error_code"]) == (422, 422001)
    (detail,) = answer.json()["detail"]
    assert (detail["loc"], detail["type"]) == (["body", field], kind)
    assert books(api)["in_flight"] == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_body_that_is_no_object_is_422(api: httpx.Client, content: bytes) -> None:
    assert api.post(MODEL, content=content).json()["error_code"] == 422001


@pytest.mark.parametrize(
    ("image", "audio", "error"),
    [
        ("too-small.png", "brief.wav", "image_url: The image width and height must exceed 400"),
        ("too-large.png", "brief.wav", "image_url: The image width and height must not exceed"),
        ("animation.gif", "brief.wav", "image_url: Image format must be: jpeg, png, bmp, webp."),
        ("text.png", "brief.wav", "image_url: Image format must be"),
        ("empty.png", "brief.wav", "image_url: Image format must be"),
        ("anna.mp3", "brief.wav", "image_url: Image format must be"),
        ("cut-off.png", "brief.wav", "image_url: The image is damaged."),
        ("nobody.png", "brief.wav", "image_url: The file could not be fetched: HTTP 404."),
        ("least.jpg", "too-long.wav", "audio_url: The duration of the audio must be less than 20s"),
        ("least.jpg", "text.mp3", "audio_url: Audio format must be: wav, mp3."),
        ("least.jpg", "anna.png", "audio_url: Audio format must be"),
        ("least.jpg", "too-heavy.mp3", "audio_url: The file is too large; the limit is 15 MB."),
    ],
)
def test_bad_input_fails_the_render(
    api: httpx.Client, body: Callable[..., Json], image: str, audio: str, error: str
) -> None:
    answer = result(api, submitted(api, body(image, audio)))

    assert answer["status"] == "failed"
    assert answer["error"].startswith(error)


def test_all_broken_rules_are_told(api: httpx.Client, body: Callable[..., Json]) -> None:
    error = result(api, submitted(api, body("too-small.png", "text.mp3")))["error"]

    assert "image_url:" in error
    assert "audio_url:" in error


def test_bad_signature_fails_the_render_without_a_word_of_the_url(
    api: httpx.Client, body: Callable[..., Json]
) -> None:
    wrong = {name: url.replace("good", "expired") for name, url in body().items()}

    error = result(api, submitted(api, wrong))["error"]

    assert error == "image_url: The file could not be fetched: HTTP 403."


def test_unreachable_input_fails_the_render(api: httpx.Client, body: Callable[..., Json]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    wrong = {**body(), "audio_url": f"http://127.0.0.1:{port}/anna.mp3?signature=good"}

    error = result(api, submitted(api, wrong))["error"]

    assert error == "audio_url: The file could not be fetched: ConnectError."


# Downloads


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("bytes=0-3", slice(0, 4)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=100-999999999", slice(100, None)),
    ],
)
def test_download_gives_the_range_that_is_asked_for(
    api: httpx.Client, body: Callable[..., Json], asked: str, found: slice
) -> None:
    url = video(api, body())
    whole = api.get(url)

    part = api.get(url, headers={"Range": asked, "If-Range": whole.headers["etag"]})

    assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "bytes")
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert (part.status_code, part.content) == (206, whole.content[found])
    assert part.headers["content-range"].endswith(f"/{len(whole.content)}")


def test_download_of_a_changed_or_wrong_range(api: httpx.Client, body: Callable[..., Json]) -> None:
    url = video(api, body())

    changed = api.get(url, headers={"Range": "bytes=5-", "If-Range": '"other"'})
    beyond = api.get(url, headers={"Range": "bytes=99999999-"})

    assert changed.status_code == 200
    assert beyond.status_code == 416
    assert api.head(url).headers["content-length"] == changed.headers["content-length"]


def test_video_nobody_made_is_forbidden(api: httpx.Client) -> None:
    assert api.get("/videos/guess.mp4").status_code == 403


# The books


def test_books_list_submissions_without_secrets(
    api: httpx.Client, body: Callable[..., Json]
) -> None:
    api.post(MODEL, json={**body(), "style": "whisper"})
    api.get(video(api, body("anna.png")))

    told = books(api)

    refused, accepted = told["submissions"]
    assert (refused["answered"], refused["accepted"], refused["request_id"]) == (422, False, None)
    assert (accepted["answered"], accepted["state"]) == (200, "completed")
    assert accepted["model"] == "wan-ai/wan-2-2/speech-to-video"
    assert accepted["inputs"] == ["/inbox/anna.png", "/inbox/brief.wav"]
    assert accepted["calls"]["result"] == accepted["calls"]["download"] == 1
    assert told["calls"]["submit"] == 2
    assert (told["in_flight"], told["most_in_flight"]) == (0, 1)
    assert "signature" not in json.dumps(told)


def test_books_count_the_calls_that_a_fault_struck(
    api: httpx.Client, body: Callable[..., Json]
) -> None:
    fault(api, at="status", status=500, percent=50, seed=1, times=2)
    fault(api, do="fail_render")
    request_id = submitted(api, body())

    answers = [api.get(f"/v1/requests/{request_id}/status").status_code for _ in range(20)]

    assert answers.count(500) == 2
    assert books(api)["struck"] == {
        "submit": 0,
        "status": 2,
        "result": 0,
        "cancel": 0,
        "download": 0,
        "render": 1,
    }
    api.post("/_standin/reset")
    assert not any(books(api)["struck"].values())


def test_most_in_flight_counts_what_was_accepted_and_not_final(
    api: httpx.Client, body: Callable[..., Json]
) -> None:
    fault(api, do="stay_queued", times=3)
    first = submitted(api, body())
    submitted(api, body())
    api.post(f"/v1/requests/{first}/cancel")
    submitted(api, body())

    assert (books(api)["in_flight"], books(api)["most_in_flight"]) == (2, 2)


def test_reset_forgets_everything(api: httpx.Client, body: Callable[..., Json]) -> None:
    request_id = submitted(api, body())
    fault(api, at="status", status=500)

    api.post("/_standin/reset")

    assert books(api)["submissions"] == []
    assert api.get("/_standin/faults").json() == {"faults": []}
    assert api.get(f"/v1/requests/{request_id}/status").status_code == 404


def test_log_names_each_call_and_no_secret(api: httpx.Client, body: Callable[..., Json]) -> None:
    LOG.clear()
    url = video(api, body())
    api.get(f"{url}?signature=secret")

    assert LOG[0] == f"POST {MODEL} 200"
    assert LOG[-1] == "GET /videos/... 200"
    for secret in (TOKEN, "signature", url.rpartition("/")[2]):
        assert secret not in str(LOG)


# Faults: whom they strike


def test_fault_strikes_the_job_whose_file_it_names(
    api: httpx.Client, body: Callable[..., Json]
) -> None:
    fault(api, match="/anna.", do="fail_render", times=None)

    anna, bob = submitted(api, body("anna.png")), submitted(api, body("bob.png"))

    assert result(api, anna)["error"] == "The generation failed."
    assert result(api, bob)["status"] == "succeeded"


def test_fault_matches_names_as_people_write_them(
    api: httpx.Client, files: str, body: Callable[..., Json]
) -> None:
    fault(api, match="my café/anna #1.png", at="submit", status=402)
    url = f"{files}/my%20caf%C3%A9/anna%20%231.png?signature=good"

    assert api.post(MODEL, json={**body(), "image_url": url}).status_code == 402


def test_fault_happens_as_often_as_ordered(api: httpx.Client, body: Callable[..., Json]) -> None:
    fault(api, at="status", status=503, times=2)
    request_id = submitted(api, body())

    told = [api.get(f"/v1/requests/{request_id}/status").status_code for _ in range(3)]

    assert told == [503, 503, 200]


def test_fault_for_ever_lasts_until_it_is_cleared(
    api: httpx.Client, body: Callable[..., Json]
) -> None:
    fault(api, at="submit", status=429, times=None)
    assert [api.post(MODEL, json=body()).status_code for _ in range(3)] == [429] * 3
    (active,) = api.get("/_standin/faults").json()["faults"]
    assert active == {"match": "", "at": "submit", "times": None, "status": 429}

    api.delete("/_standin/faults")

    assert api.post(MODEL, json=body()).status_code == 200


@pytest.mark.parametrize(
    "wish",
    [
        {},
        [],
        {"at": "lunch"},
        {"at": "submit", "unknown": 1},
        {"at": "submit", "stay": "queued"},
        {"at": "render", "status": 500},
        {"do": "no_such_preset"},
        {"do": "stall"},  # at which call?
    ],
)
def test_fault_that_makes_no_sense_is_refused(api: httpx.Client, wish: object) -> None:
    assert api.post("/_standin/faults", json=wish).status_code == 422


def test_wrong_token_uses_no_fault_up(api: httpx.Client, body: Callable[..., Json]) -> None:
    fault(api, at="submit", status=402)

    assert api.post(MODEL, headers={"Authorization": "no"}, json=body()).status_code == 401
    assert api.post(MODEL, json=body()).status_code == 402


# Faults: what they do to calls


@pytest.mark.parametrize(
    ("status", "error_code"),
    [
        (401, 401001),
        (402, None),
        (403, 403003),
        (404, 404001),
        (422, 422001),
        (429, None),
        (500, 500001),
    ],
)
@pytest.mark.parametrize("stage", ["submit", "status", "result", "cancel"])
def test_error_status_comes_with_runcomfys_words_and_does_no_work(
    api: httpx.Client,
    body: Callable[..., Json],
    stage: str,
    status: int,
    error_code: int | None,
) -> None:
    fault(api, do="stay_queued")
    fault(api, at=stage, status=status)

    if stage == "submit":
        answer = api.post(MODEL, json=body())
    else:
        request = f"/v1/requests/{submitted(api, body())}/{stage}"
        answer = api.request("POST" if stage == "cancel" else "GET", request)

    assert (answer.status_code, answer.json().get("error_code")) == (status, error_code)
    assert answer.json()["message"]
    if status == 422:
        assert answer.json()["detail"]
    (submission,) = books(api)["submissions"]
    assert submission["accepted"] is (stage != "submit")
    assert submission["cancelled"] is False


@pytest.mark.parametrize("status", [502, 503, 504])
def test_gateway_errors_are_html(api: httpx.Client, body: Callable[..., Json], status: int) -> None:
    fault(api, at="submit", status=status)

    answer = api.post(MODEL, json=body())

    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "text/html; charset=utf-8",
    )


@pytest.mark.parametrize(
    ("wish", "status", "content"),
    [
        ({"do": "error_in_200"}, 200, b'"error_code": 500001'),
        ({"do": "malformed_json"}, 200, b'{"request_id": "abc'),
        ({"do": "empty_body"}, 200, b""),
        ({"json": {"surprise": 1}}, 200, b'{"surprise": 1}'),
        ({"status": 418, "body": "tea"}, 418, b"tea"),
    ],
)
def test_answer_can_be_replaced(
    api: httpx.Client, body: Callable[..., Json], wish: Json, status: int, content: bytes
) -> None:
    fault(api, at="submit", **wish)

    answer = api.post(MODEL, json=body())

    assert answer.status_code == status
    assert content in answer.content
    assert books(api)["in_flight"] == 0


def test_throttling_says_when_to_come_back(api: httpx.Client, body: Callable[..., Json]) -> None:
    fault(api, at="submit", do="throttle")
    fault(api, at="submit", status=429)

    with_hint, without = api.post(MODEL, json=body()), api.post(MODEL, json=body())

    assert (with_hint.status_code, with_hint.headers["retry-after"]) == (429, "7")
    assert (without.status_code, without.headers.get("retry-after")) == (429, None)


def test_huge_body_is_50_mb(api: httpx.Client, body: Callable[..., Json]) -> None:
    fault(api, at="submit", do="huge_body")

    with api.stream("POST", MODEL, json=body()) as answer:
        assert sum(len(chunk) for chunk in answer.iter_raw()) == 50_000_000


@pytest.mark.parametrize(("preset", "accepted"), [("reset_before", False), ("reset_after", True)])
def test_reset_breaks_the_connection_before_or_after_the_work(
    api: httpx.Client, body: Callable[..., Json], preset: str, accepted: bool
) -> None:
    fault(api, at="submit", do=preset)

    with pytest.raises(httpx.ReadError):
        api.post(MODEL, json=body())

    (submission,) = books(api)["submissions"]
    assert (submission["accepted"], submission["answered"]) == (accepted, None)


@pytest.mark.parametrize(
    ("wish", "accepted"),
    [({"do": "stall"}, False), ({"do": "stall", "when": "after"}, True)],
)
def test_stall_outlasts_the_callers_patience(
    api: httpx.Client, body: Callable[..., Json], wish: Json, accepted: bool
) -> None:
    fault(api, at="submit", **wish)

    with pytest.raises(httpx.ReadTimeout):
        api.post(MODEL, json=body(), timeout=0.2)

    (submission,) = books(api)["submissions"]
    assert submission["accepted"] is accepted


@pytest.mark.parametrize("when", ["before", "after"])
def test_delay_that_the_caller_waits_out_ends_in_the_true_answer(
    api: httpx.Client, body: Callable[..., Json], when: str
) -> None:
    fault(api, at="submit", delay_seconds=0.2, when=when)

    begun = time.monotonic()
    answer = api.post(MODEL, json=body())

    assert time.monotonic() - begun >= 0.2
    assert answer.json()["request_id"] == books(api)["submissions"][0]["request_id"]


def test_accepted_work_with_an_error_for_an_answer(
    api: httpx.Client, body: Callable[..., Json]
) -> None:
    fault(api, at="submit", status=502, when="after")

    assert api.post(MODEL, json=body()).status_code == 502
    (submission,) = books(api)["submissions"]
    assert (submission["accepted"], submission["answered"]) == (True, 502)


# Faults: what they do to renders and results


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"do": "fail_render"}, "The generation failed."),
        ({"do": "moderate"}, "Content moderation"),
        ({"at": "render", "error": "Out of clay."}, "Out of clay."),
    ],
)
def test_render_fails_with_words(
    api: httpx.Client, body: Callable[..., Json], wish: Json, words: str
) -> None:
    fault(api, **wish)

    answer = result(api, submitted(api, body()))

    assert answer["status"] == "failed"
    assert answer["error"].startswith(words)
    assert "output" not in answer


def test_provider_can_forget_a_request(api: httpx.Client, body: Callable[..., Json]) -> None:
    fault(api, do="forget")
    request_id = submitted(api, body())

    told = [api.get(f"/v1/requests/{request_id}/status").json() for _ in range(2)]

    assert [it["error_code"] for it in told] == [404001, 404001]


def test_unknown_state(api: httpx.Client, body: Callable[..., Json]) -> None:
    fault(api, do="unknown_state")

    answer = api.get(f"/v1/requests/{submitted(api, body())}/status").json()

    assert answer["status"] == "warming_up"


def test_completed_with_another_output(api: httpx.Client, body: Callable[..., Json]) -> None:
    request_id = submitted(api, body())
    right = result(api, request_id)["output"]["video"]
    for preset in ("no_output", "several_videos", "only_an_image"):
        fault(api, do=preset)
    fault(api, at="result", patch={"output": {"video": "file:///etc/passwd"}})

    outputs = [result(api, request_id)["output"] for _ in range(4)]

    assert outputs == [
        {},
        {"videos": [right, right]},
        {"image": "https://example.com/image.png"},
        {"video": "file:///etc/passwd"},
    ]


# Faults: what they do to downloads


@pytest.mark.parametrize(
    ("wish", "status", "content_type", "size"),
    [
        ({"do": "expired_url"}, 403, "application/xml", None),
        ({"status": 404}, 404, "application/xml", None),
        ({"status": 500}, 500, "application/xml", None),
        ({"do": "html_page"}, 200, "text/html", None),
        ({"do": "empty_video"}, 200, "video/mp4", 0),
        ({"do": "wrong_length"}, 200, "video/mp4", 10_000),
    ],
)
def test_download_answers_something_else(
    api: httpx.Client,
    body: Callable[..., Json],
    wish: Json,
    status: int,
    content_type: str,
    size: int | None,
) -> None:
    url = video(api, body("anna.png", "anna.mp3"))
    fault(api, at="download", **wish)

    answer = api.get(url)

    assert (answer.status_code, answer.headers["content-type"]) == (status, content_type)
    assert size is None or len(answer.content) == size
    assert api.get(url).content[4:8] == b"ftyp"  # and is right again


@pytest.mark.parametrize("percent", [0, 50, 99])
def test_download_is_cut(api: httpx.Client, body: Callable[..., Json], percent: int) -> None:
    url = video(api, body())
    whole = api.get(url).content
    fault(api, do="cut_video", cut_percent=percent)

    received = b""
    with api.stream("GET", url) as answer, pytest.raises(httpx.RemoteProtocolError):
        for chunk in answer.iter_raw():
            received += chunk

    assert int(answer.headers["content-length"]) == len(whole)
    assert received == whole[: int(len(whole) * percent / 100)]


@pytest.mark.parametrize("declared", [3 * 1024**3, 50_000])
def test_download_declares_more_than_it_sends(
    api: httpx.Client, body: Callable[..., Json], declared: int
) -> None:
    url = video(api, body())
    fault(api, do="oversize_video", declared_bytes=declared)

    with api.stream("GET", url) as answer:
        assert int(answer.headers["content-length"]) == declared
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()


def test_download_without_a_length(api: httpx.Client, body: Callable[..., Json]) -> None:
    url = video(api, body())
    whole = api.get(url).content
    fault(api, do="no_length")
    fault(api, do="no_length", cut_percent=50)

    answer = api.get(url)

    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers
    assert answer.content == whole
    with pytest.raises(httpx.RemoteProtocolError):
        api.get(url)


def test_download_grows_beyond_its_end(api: httpx.Client, body: Callable[..., Json]) -> None:
    url = video(api, body())
    whole = api.get(url).content
    fault(api, at="download", filler_bytes=1_000_000)

    assert api.get(url).content == whole + b" " * 1_000_000


def test_download_redirects(api: httpx.Client, body: Callable[..., Json]) -> None:
    url = video(api, body())
    fault(api, at="download", status=302, headers={"Location": "http://elsewhere.test{video_path}"})
    fault(api, at="download", status=307, headers={"Location": "{video}"})

    away, back = api.get(url), api.get(url, follow_redirects=True)

    assert away.headers["location"] == "http://elsewhere.test" + httpx.URL(url).path
    assert back.content[4:8] == b"ftyp"


def test_download_is_slow(api: httpx.Client, body: Callable[..., Json]) -> None:
    url = video(api, body())
    size = len(api.get(url).content)
    fault(api, at="download", bytes_per_second=size * 4)

    begun = time.monotonic()
    answer = api.get(url)

    assert len(answer.content) == size
    assert time.monotonic() - begun >= 0.2


# The program


def test_program_writes_its_port_and_answers(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "local.standin", "--token", TOKEN, "--port-file"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [*command, port_file],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'layers/dropreel'}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            line = program.stdout.readline()
            while not port_file.exists():
                assert program.poll() is None
            url = f"http://127.0.0.1:{port_file.read_text().strip()}"
            assert line == f"The stand-in for RunComfy listens on {url}\n"
            answer = httpx.get(f"{url}/v1/requests/x/status", trust_env=False)
            assert answer.status_code == 401
        finally:
            program.terminate()
