"""The providers' official clients meet our stand-ins: what they do there, they do at the providers.

WaveSpeed's Python SDK is run as it is. What the command lines of both providers call is called by
hand, in the same words.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import pytest
from wavespeed import Client

from dropreel.model.catalog import ProviderName
from local.standin.runcomfy import RunComfy
from local.standin.server import Dialect, Settings, Standin, running
from local.standin.wavespeed import WaveSpeed
from tests.support import render_fakes
from tests.support.standin_files import FILES, served

TOKEN = "a-token"
S2V = render_fakes.WAVESPEED.endpoint
RUNCOMFY_S2V = render_fakes.RUNCOMFY.endpoint
DIALECTS: dict[ProviderName, Dialect] = {"runcomfy": RunComfy(), "wavespeed": WaveSpeed()}

Json = dict[str, Any]


class Api:
    """A stand-in, called by hand."""

    def __init__(self, http: httpx.Client) -> None:
        self.url = str(http.base_url)
        self._http = http

    def get(self, path: str, **params: str) -> Json:
        answer: Json = self._http.get(path, params=params).json()
        return answer

    def post(self, path: str, body: object = None) -> Json:
        answer: Json = self._http.post(path, json=body).json()
        return answer

    def make_fail(self, **fault: object) -> None:
        assert self._http.post("/_standin/faults", json=fault).status_code == 201

    @property
    def submissions(self) -> list[Json]:
        submissions: list[Json] = self.get("/_standin/requests")["submissions"]
        return submissions

    def download(self, url: str) -> httpx.Response:
        return self._http.get(url)


def standin_of(provider: ProviderName) -> Iterator[Api]:
    settings = Settings(TOKEN, queue_seconds=0, render_seconds=0)
    app = Standin(DIALECTS[provider], settings).app(log=lambda _line: None)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with (
        running(app) as url,
        httpx.Client(base_url=url, headers=headers, trust_env=False) as http,
    ):
        yield Api(http)


@pytest.fixture
def wavespeed() -> Iterator[Api]:
    yield from standin_of("wavespeed")


@pytest.fixture
def runcomfy() -> Iterator[Api]:
    yield from standin_of("runcomfy")


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    with served() as url:
        yield url


# WaveSpeed's Python SDK


@pytest.fixture
def sdk(wavespeed: Api, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - it has no types
    """Its client; only its address is not the default."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return Client(api_key=TOKEN, base_url=wavespeed.url, retry_interval=0.01)


def inputs(sdk: Any) -> Json:  # noqa: ANN401
    named = {"image": "anna.png", "audio": "brief.wav"}
    return {field: sdk.upload(_file(name)) for field, name in named.items()}


def _file(name: str) -> BytesIO:
    file = BytesIO(FILES[name])
    file.name = name
    return file


def test_sdk_uploads_files_and_runs_a_model(sdk: Any, wavespeed: Api) -> None:  # noqa: ANN401
    run = sdk.run(S2V, {**inputs(sdk), "resolution": "480p"}, poll_interval=0.05)

    video = wavespeed.download(run["outputs"][0])
    assert video.content[4:8] == b"ftyp"
    assert [it["answered"] for it in wavespeed.submissions] == [200]


def test_sdk_reads_why_a_render_failed(sdk: Any, wavespeed: Api) -> None:  # noqa: ANN401
    wavespeed.make_fail(do="moderate")

    with pytest.raises(RuntimeError, match=r"failed \(task_id: .*Content moderation"):
        sdk.run(S2V, inputs(sdk), poll_interval=0.05)


def test_sdk_retries_its_questions(sdk: Any, wavespeed: Api) -> None:  # noqa: ANN401
    wavespeed.make_fail(at="status", status=503, times=2)

    assert sdk.run(S2V, inputs(sdk), poll_interval=0.05)["outputs"]
    assert len(wavespeed.submissions) == 1


def test_sdk_sends_no_submission_twice(sdk: Any, wavespeed: Api) -> None:  # noqa: ANN401
    wavespeed.make_fail(do="reset_after", at="submit")

    with pytest.raises(RuntimeError, match="may already have been created"):
        sdk.run(S2V, inputs(sdk), max_retries=3)

    listed = wavespeed.post("/api/v3/predictions", {"page": 1})["data"]["items"]
    assert [it["id"] for it in listed] == [it["request_id"] for it in wavespeed.submissions]


def test_sdk_in_sync_mode_gets_the_id_to_ask_for(sdk: Any, wavespeed: Api) -> None:  # noqa: ANN401
    run = sdk.run_no_throw(S2V, inputs(sdk), enable_sync_mode=True)

    assert run["task_id"] == wavespeed.submissions[0]["request_id"]
    assert sdk.get_result(run["task_id"])["data"]["model"] == S2V


def test_sdk_is_refused_with_another_token(sdk: Any, wavespeed: Api) -> None:  # noqa: ANN401
    sdk.api_key = "another"

    with pytest.raises(RuntimeError, match="HTTP 401"):
        sdk.run(S2V, {})


# What WaveSpeed's command line calls


@pytest.fixture
def prediction(wavespeed: Api, files: str) -> Json:
    """A completed one, as it was asked for."""
    body = {
        "image": f"{files}/anna.png?signature=good",
        "audio": f"{files}/three.wav?signature=good",
    }
    task = wavespeed.post(f"/api/v3/{S2V}", body)["data"]
    while wavespeed.get(f"/api/v3/predictions/{task['id']}")["data"]["status"] != "completed":
        pass
    return {"id": task["id"], "created_at": task["created_at"], "inputs": body}


def test_wavespeed_lists_predictions(wavespeed: Api, prediction: Json) -> None:
    def listed(**asked: object) -> list[str]:
        answer = wavespeed.post("/api/v3/predictions", {"page": 1, "page_size": 20, **asked})
        return [it["id"] for it in answer["data"]["items"]]

    (item,) = wavespeed.post("/api/v3/predictions", {"page": 1})["data"]["items"]
    assert item["inputs"] == prediction["inputs"]
    assert item["status"] == "completed"

    assert listed(model=S2V, created_after=prediction["created_at"]) == [prediction["id"]]
    assert listed(model="another/model") == []
    assert listed(status="failed") == []
    assert listed(created_before="2026-01-01T00:00:00Z") == []
    assert listed(page=2) == []
    assert wavespeed.post("/api/v3/predictions", {"page_size": 101})["code"] == 400


def test_wavespeed_deletes_predictions(wavespeed: Api, prediction: Json) -> None:
    (url,) = wavespeed.get(f"/api/v3/predictions/{prediction['id']}")["data"]["outputs"]

    for deleted in (1, 0):
        answer = wavespeed.post("/api/v3/predictions/delete", {"ids": [prediction["id"], "no"]})
        assert answer["data"] == {"deleted_count": deleted}

    assert wavespeed.post("/api/v3/predictions", {"page": 1})["data"]["items"] == []
    task = wavespeed.get(f"/api/v3/predictions/{prediction['id']}/result")["data"]
    assert (task["status"], task["outputs"]) == ("deleted", [])
    assert wavespeed.download(url).status_code == 403


def test_wavespeed_bills_what_it_priced(wavespeed: Api, prediction: Json) -> None:
    question = {"page": 1, "page_size": 10, "prediction_uuids": [prediction["id"]]}
    (billed,) = wavespeed.post("/api/v3/billings/search", question)["data"]["items"]
    assert billed["prediction"]["uuid"] == prediction["id"]
    assert billed["price"] == pytest.approx(0.09)  # three seconds

    priced = wavespeed.post("/api/v3/model/price", {"model_id": S2V, "inputs": {}})["data"]
    assert priced["price"] == pytest.approx(0.15)
    known = wavespeed.get("/api/v3/models")["data"]
    assert priced["price"] in [it["base_price"] for it in known if it["model_id"] == S2V]
    assert wavespeed.get("/api/v3/balance")["data"]["balance"] > 0
    assert wavespeed.post("/api/v3/model/price", {"model_id": "a/b"})["code"] == 404


# What RunComfy's command line and partner nodes call


def submit(runcomfy: Api, files: str) -> str:
    body = {
        "image_url": f"{files}/anna.png?signature=good",
        "audio_url": f"{files}/three.wav?signature=good",
    }
    request_id: str = runcomfy.post(f"/v1/models/{RUNCOMFY_S2V}", body)["request_id"]
    return request_id


def result_of(runcomfy: Api, request_id: str, **params: str) -> Json:
    while runcomfy.get(f"/v1/requests/{request_id}/status")["status"] != "completed":
        pass
    return runcomfy.get(f"/v1/requests/{request_id}/result", **params)


def test_runcomfy_tells_models_and_prices(runcomfy: Api) -> None:
    page = runcomfy.get("/v1/models", search="speech", limit="1")
    assert [it["model_id"] for it in page["models"]] == [RUNCOMFY_S2V]

    model = runcomfy.get(f"/v1/models/{RUNCOMFY_S2V}")
    assert (model["base_price_usd"], model["price_unit"]) == (pytest.approx(0.03), "second")
    assert model["input_schema"]["required"] == ["image_url", "audio_url"]
    assert runcomfy.get("/v1/models/a/b")["error_code"] == 404001
    assert runcomfy.get("/prod/v2/balance")["balance_usd"] > 0


def test_runcomfy_tells_the_cost_when_asked(runcomfy: Api, files: str) -> None:
    request_id = submit(runcomfy, files)

    assert result_of(runcomfy, request_id, include_cost="true")["cost"] == pytest.approx(0.09)
    assert "cost" not in result_of(runcomfy, request_id)


def test_runcomfy_cancels_only_what_is_queued(runcomfy: Api, files: str) -> None:
    runcomfy.make_fail(do="stay_queued")
    cancelled = f"/v1/requests/{submit(runcomfy, files)}/cancel"

    assert runcomfy.post(cancelled)["outcome"] == "cancelled"
    again = runcomfy.post(cancelled)
    assert (again["outcome"], again["status"]) == ("not_cancellable", "cancelled")


def test_runcomfy_tells_a_failure_in_the_result_only(runcomfy: Api, files: str) -> None:
    runcomfy.make_fail(do="failed_result")

    result = result_of(runcomfy, submit(runcomfy, files))

    assert (result["status"], "output" in result) == ("failed", False)
    assert result["error_message"]
