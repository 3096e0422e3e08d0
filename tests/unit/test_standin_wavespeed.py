"""The stand-in for WaveSpeed, over real HTTP: its dialect. What it shares with the stand-in for
RunComfy is tested there."""

import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from dropreel.provider import FailureCause, RenderState, UnknownRequest
from dropreel.wavespeed import WaveSpeed as Adapter
from local.standin.server import Settings, Standin, running
from local.standin.wavespeed import WaveSpeed
from tests.standin_files import FILES, served

TOKEN = "a-token-for-the-tests"
ENDPOINT = "wavespeed-ai/wan-2.2/speech-to-video"
MODEL = f"/api/v3/{ENDPOINT}"
PATIENCE_SECONDS = 20
FINAL = {RenderState.COMPLETED, RenderState.FAILED, RenderState.CANCELLED}

Json = dict[str, Any]
Body = Callable[..., Json]


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    with served() as url:
        yield url


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    settings = Settings(token=TOKEN, queue_seconds=0, render_seconds=0)
    with running(Standin(WaveSpeed(), settings).app(log=lambda _line: None)) as url:
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
def body(files: str) -> Body:
    def make(image: str = "least.jpg", audio: str = "brief.wav", **options: object) -> Json:
        return {
            "image": f"{files}/{image}?signature=good",
            "audio": f"{files}/{audio}?signature=good",
            **options,
        }

    return make


def submitted(api: httpx.Client, body: Json) -> str:
    answer = api.post(MODEL, json=body)
    assert answer.status_code == 200, answer.text
    request_id = answer.json()["data"]["id"]
    assert isinstance(request_id, str)
    return request_id


def asked(api: httpx.Client, request_id: str) -> httpx.Response:
    return api.get(f"/api/v3/predictions/{request_id}/result")


def awaited(api: httpx.Client, request_id: str, *states: str) -> Json:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up_at:
        task: Json = asked(api, request_id).json()["data"]
        if task["status"] in (states or ("completed", "failed")):
            return task
    raise AssertionError(f"still {task}")


def fault(api: httpx.Client, **wish: object) -> None:
    answer = api.post("/_standin/faults", json=wish)
    assert answer.status_code == 201, answer.text


def books(api: httpx.Client) -> Json:
    answer: Json = api.get("/_standin/requests").json()
    return answer


# The happy way


def test_submission_is_answered_with_the_task_in_its_envelope(
    api: httpx.Client, body: Body
) -> None:
    answer = api.post(MODEL, json=body(prompt="A dance.", seed=7)).json()

    assert (answer["code"], answer["message"]) == (200, "success")
    task = answer["data"]
    assert (task["status"], task["model"], task["outputs"]) == ("created", ENDPOINT, [])
    assert (task["code"], task["error"], task["has_nsfw_contents"]) == (0, "", [])
    assert task["urls"]["get"] == str(api.base_url.join(f"/api/v3/predictions/{task['id']}/result"))


def test_task_is_created_then_processing_then_completed(api: httpx.Client, body: Body) -> None:
    fault(api, at="render", queue_seconds=0.3, render_seconds=0.3)

    request_id = submitted(api, body())

    states = [awaited(api, request_id, state)["status"] for state in ("created", "processing")]
    task = awaited(api, request_id)
    assert [*states, task["status"]] == ["created", "processing", "completed"]
    assert task["timings"]["inference"] >= 600
    assert task["has_nsfw_contents"] == [False]


def test_output_is_a_video_as_long_as_the_voice(api: httpx.Client, body: Body) -> None:
    (url,) = awaited(api, submitted(api, body("least.jpg", "three.wav")))["outputs"]

    with av.open(io.BytesIO(httpx.get(url, trust_env=False).content), "r") as film:
        assert film.streams.video[0].height == 480
        assert film.duration == pytest.approx(3_000_000, abs=100_000)


def test_task_can_be_asked_for_without_the_word_result(api: httpx.Client, body: Body) -> None:
    request_id = submitted(api, body())

    assert api.get(f"/api/v3/predictions/{request_id}").json()["data"]["id"] == request_id


# Refusals


@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}])
@pytest.mark.parametrize(("method", "path"), [("POST", MODEL), ("GET", "/api/v3/predictions/x")])
def test_every_endpoint_wants_the_token(
    api: httpx.Client, method: str, path: str, given: dict[str, str]
) -> None:
    api.headers.pop("Authorization")

    answer = api.request(method, path, headers=given)

    assert (answer.status_code, answer.json()["code"]) == (401, 401)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v3/predictions/unknown/result"),
        ("POST", "/api/v3/wavespeed-ai/no-such-model"),
    ],
)
def test_unknown_things_are_404(api: httpx.Client, method: str, path: str) -> None:
    answer = api.request(method, path)

    assert (answer.status_code, answer.json()["code"]) == (404, 404)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"image": None}, 1400, "image: Field required."),
        ({"image": None, "seed": -2}, 1401, "image: Field required. seed: Input should be at"),
        ({"resolution": "720P"}, 1401, "resolution: Input should be one of 480p, 720p."),
        ({"style": "sing"}, 1401, "style: Extra inputs are not permitted."),
    ],
)
def test_body_that_breaks_the_page_is_400_and_names_the_field(
    api: httpx.Client, body: Body, change: Json, code: int, words: str
) -> None:
    wrong = {name: value for name, value in {**body(), **change}.items() if value is not None}

    answer = api.post(MODEL, json=wrong)

    assert (answer.status_code, answer.json()["code"]) == (400, 400)
    assert answer.json()["data"]["code"] == code
    assert answer.json()["message"].startswith(words)
    assert books(api)["in_flight"] == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_body_that_is_no_object_is_400(api: httpx.Client, content: bytes) -> None:
    assert api.post(MODEL, content=content).json()["code"] == 400


@pytest.mark.parametrize(
    ("image", "audio", "code", "error"),
    [
        ("nobody.png", "brief.wav", 1402, "image: The file could not be fetched: HTTP 404."),
        ("bitmap.bmp", "brief.wav", 1401, "image: Image format must be: jpeg, png, webp."),
        ("cut-off.png", "brief.wav", 1401, "image: The image is damaged."),
        ("least.jpg", "two-minutes.wav", 1401, "audio: The duration of the audio must be at most"),
        ("least.jpg", "text.mp3", 1401, "audio: Audio format must be: wav, mp3."),
    ],
)
def test_bad_input_fails_the_task_with_a_code(
    api: httpx.Client, body: Body, image: str, audio: str, code: int, error: str
) -> None:
    task = awaited(api, submitted(api, body(image, audio)))

    assert (task["status"], task["code"], task["outputs"]) == ("failed", code, [])
    assert task["error"].startswith(error)


# What it saw


def test_books_show_what_was_fetched(api: httpx.Client, body: Body) -> None:
    awaited(api, submitted(api, body()))

    (submission,) = books(api)["submissions"]
    assert submission["inputs"] == ["/inbox/least.jpg", "/inbox/brief.wav"]
    picture, voice = submission["media"]
    assert picture.pop("size_bytes") == len(FILES["least.jpg"])
    assert voice.pop("size_bytes") == len(FILES["brief.wav"])
    assert picture == {
        "field": "image",
        "path": "/inbox/least.jpg",
        "format": "jpeg",
        "width": 401,
        "height": 401,
        "metadata": [],
    }
    assert voice == {
        "field": "audio",
        "path": "/inbox/brief.wav",
        "format": "wav",
        "duration_seconds": 0.5,
        "metadata": [],
    }


def test_question_counts_as_status_until_the_task_is_over_and_as_result_then(
    api: httpx.Client, body: Body
) -> None:
    fault(api, do="stay_queued", match="anna.")
    queued = submitted(api, body("anna.png"))
    asked(api, queued)
    done = submitted(api, body())
    awaited(api, done)
    asked(api, done)

    calls = [it["calls"] for it in books(api)["submissions"]]
    assert calls[0] == {"status": 1}
    assert calls[1]["result"] == 2


# Faults


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 429, 500])
@pytest.mark.parametrize("stage", ["submit", "status"])
def test_error_status_comes_in_the_envelope(
    api: httpx.Client, body: Body, stage: str, status: int
) -> None:
    fault(api, do="stay_queued")
    fault(api, at=stage, status=status)

    answer = (
        api.post(MODEL, json=body()) if stage == "submit" else asked(api, submitted(api, body()))
    )

    assert (answer.status_code, answer.json()["code"]) == (status, status)
    assert answer.json()["message"]


def test_status_fault_strikes_a_finished_task_too(api: httpx.Client, body: Body) -> None:
    request_id = submitted(api, body())
    awaited(api, request_id)
    fault(api, do="forget")

    assert [asked(api, request_id).status_code for _ in range(2)] == [404, 404]


def test_result_fault_strikes_finished_tasks_only(api: httpx.Client, body: Body) -> None:
    fault(api, at="result", status=500, times=None)
    fault(api, do="stay_queued", match="anna.")
    queued, done = submitted(api, body("anna.png")), submitted(api, body("bob.png"))

    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while asked(api, done).status_code == 200 and time.monotonic() < give_up_at:
        pass
    assert (asked(api, queued).status_code, asked(api, done).status_code) == (200, 500)


# The adapter and the stand-in understand each other


@pytest.fixture
def adapter(server: str, api: httpx.Client) -> Adapter:
    return Adapter(server, lambda *, fresh=False: TOKEN)


def until_final(adapter: Adapter, request_id: str) -> tuple[RenderState, FailureCause]:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up_at:
        answer = adapter.ask(request_id)
        if answer.state in FINAL:
            return answer.state, answer.cause
    raise AssertionError(f"still {answer}")


@pytest.mark.parametrize(
    ("wish", "state", "cause"),
    [
        ({}, RenderState.COMPLETED, FailureCause.OTHER),
        ({"do": "fail_render"}, RenderState.FAILED, FailureCause.OTHER),
        ({"do": "moderate"}, RenderState.FAILED, FailureCause.MODERATED),
        ({"do": "unreadable"}, RenderState.FAILED, FailureCause.MEDIA_UNREADABLE),
        ({"do": "bad_input"}, RenderState.FAILED, FailureCause.BAD_INPUT),
        ({"do": "timed_out"}, RenderState.FAILED, FailureCause.OTHER),
        ({"do": "deleted"}, RenderState.CANCELLED, FailureCause.OTHER),
    ],
)
def test_adapter_understands_how_a_task_ends(
    api: httpx.Client,
    body: Body,
    adapter: Adapter,
    wish: Json,
    state: RenderState,
    cause: FailureCause,
) -> None:
    if wish:
        fault(api, **wish)

    assert until_final(adapter, adapter.submit(ENDPOINT, body())) == (state, cause)


@pytest.mark.parametrize(
    ("wish", "has_video", "nsfw"),
    [
        ({"do": "stay_queued", "match": "nobody"}, True, False),
        ({"do": "nsfw"}, True, True),
        ({"do": "several_videos"}, True, False),
        ({"do": "no_output"}, False, False),
        ({"do": "only_an_image"}, False, False),
    ],
)
def test_adapter_finds_the_video_and_what_the_detector_says(
    api: httpx.Client, body: Body, adapter: Adapter, wish: Json, has_video: bool, nsfw: bool
) -> None:
    fault(api, **wish)
    request_id = adapter.submit(ENDPOINT, body())
    until_final(adapter, request_id)

    result = adapter.result(request_id)

    assert (result.video_url is not None, result.nsfw) == (has_video, nsfw)


def test_adapter_learns_that_a_task_is_not_known(adapter: Adapter) -> None:
    with pytest.raises(UnknownRequest):
        adapter.ask("unknown")


# The program


def test_program_speaks_for_the_provider_that_it_is_told(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "local.standin", "--provider", "wavespeed", "--token", TOKEN],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'layers/dropreel'}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            line = program.stdout.readline()
            assert line.startswith("The stand-in for WaveSpeed listens on http://127.0.0.1:")
            url = line.split()[-1]
            assert httpx.get(f"{url}/api/v3/predictions/x", trust_env=False).status_code == 401
        finally:
            program.terminate()
