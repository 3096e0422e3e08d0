"""A provider is one module, its offers, a secret and its account: a job goes through a third one.

Prepare, admit, submit, poll and deliver run as their handlers, with the settings, the registry and
the HTTP that all providers share. Acme's API is played here; moto plays AWS.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import boto3
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dropreel.aws.s3 import S3Storage
from dropreel.aws.task_tokens import WaitingExecutions
from dropreel.model.catalog import MODELS, TITLES
from dropreel.model.errors import TokenMissing
from dropreel.model.job import Input, Job, Role
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import ActiveRender, AdmitRequest, Plan, Progress, Submission
from dropreel.model.provider import RenderState
from local.standin.server import running
from local.standin_videos import download_from
from tests.support import acme
from tests.support.fault_account import (
    CONTEXT,
    copies_window,
    load_step,
    presigned_through,
)
from tests.support.final_answers import ends_in
from tests.support.render_account import UPLOADS, VIDEOS, RenderAccount, render_account
from tests.support.render_fakes import providers
from tests.support.standin_files import PICTURE, SAMPLES
from tests.support.videos import tiny_video

MODEL, TOKEN = "wan-2.2-speech-to-video", "acme-5ec7e7"


@dataclass
class AcmeApi:
    """Acme, which accepts whatever comes with its key."""

    phases: list[str] = field(default_factory=lambda: ["queued", "drawing", "drawing", "done"])
    orders: list[Any] = field(default_factory=list)
    fetched: dict[str, bytes] = field(default_factory=dict)
    films: str = ""

    def app(self) -> Starlette:
        job = f"/v2/{acme.OFFER.endpoint}/jobs/acme:1"
        return Starlette(
            routes=[
                Route("/v2/jobs", self._submit, methods=["POST"]),
                Route(job, self._state),
                Route(f"{job}/files", self._files),
                Route("/films/1.mp4", lambda _: Response(tiny_video(), media_type="video/mp4")),
            ]
        )

    async def _submit(self, request: Request) -> Response:
        if request.headers.get("X-Acme-Key") != TOKEN or "Authorization" in request.headers:
            return JSONResponse({"problem": {"status": 401, "title": "Who are you?"}}, 401)
        self.orders.append(await request.json())
        async with httpx.AsyncClient(trust_env=False) as web:
            for name in ("face", "voice"):
                got = await web.get(self.orders[-1]["input"][name])
                self.fetched[name] = got.content
        return JSONResponse({"job": {"uid": "acme:1", "phase": "queued"}}, 202)

    def _state(self, _: Request) -> Response:
        phase = self.phases.pop(0) if len(self.phases) > 1 else self.phases[0]
        return JSONResponse({"job": {"uid": "acme:1", "phase": phase}})

    def _files(self, _: Request) -> Response:
        return JSONResponse({"files": {"cover": "x.png", "film": f"{self.films}/films/1.mp4"}})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[AcmeApi]:
    """What adding a provider is: its module, its name, its offer."""
    monkeypatch.setitem(sys.modules, "dropreel.providers.acme", acme)
    monkeypatch.setitem(TITLES, "acme", "Acme")
    model = MODELS[MODEL]
    longer = model.model_copy(update={"route": (*model.route, acme.OFFER)})
    monkeypatch.setitem(MODELS, MODEL, longer)
    api = AcmeApi()
    with running(api.app()) as api.films:
        yield api


@pytest.fixture
def account(api: AcmeApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderAccount]:
    """And its account in `PROVIDERS`, with its secret. The others have no token."""
    with render_account(monkeypatch) as account, running(copies_window(account.s3)) as window:
        settings = {"url": api.films, "secret": "acme-token", "max_in_flight": 1}
        accounts = json.loads(providers()) | {"acme": settings}
        monkeypatch.setenv("PROVIDERS", json.dumps(accounts))
        boto3.client("secretsmanager").create_secret(Name="acme-token", SecretString=TOKEN)
        monkeypatch.setattr(
            S3Storage, "presigned_url", presigned_through(window, S3Storage.presigned_url)
        )
        yield account


def drop(account: RenderAccount, **options: Any) -> Job:  # noqa: ANN401 - as a job file has them
    inputs = tuple(
        Input(
            role=role,
            key=key,
            version_id=account.s3.put_object(Bucket=UPLOADS, Key=key, Body=body)["VersionId"],
            size_bytes=len(body),
        )
        for role, key, body in (
            (Role.IMAGE, "inbox/team/anna.png", PICTURE),
            (Role.AUDIO, "inbox/team/anna.wav", (SAMPLES / "speech.wav").read_bytes()),
        )
    )
    return Job(
        id="anna-0123456789abcdef",
        bucket=UPLOADS,
        folder="team/",
        stem="anna",
        model=MODEL,
        inputs=inputs,
        options=options,
    )


def run(step: str, event: dict[str, Any]) -> Any:  # noqa: ANN401 - each has its own answer
    app = load_step(step)
    if step == "deliver":
        app.download = download_from(app.settings.providers["acme"].url)
    return app.handler(event, CONTEXT)


def test_job_goes_through_a_third_provider(
    api: AcmeApi, account: RenderAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Mock(return_value=True)  # moto gives no task tokens
    monkeypatch.setattr(WaitingExecutions, "go_on", go_on)

    plan = Plan.model_validate(
        run("prepare", drop(account, resolution="720p").model_dump(mode="json"))
    )
    request = AdmitRequest(plan=plan, task_token="token", retry=0, started_at=datetime.now(UTC))
    run("admit", request.model_dump(mode="json"))
    submitted = Submission.model_validate(run("submit", {"plan": plan.model_dump(mode="json")}))
    assert submitted.ticket
    render = ActiveRender(plan=plan, ticket=submitted.ticket, started_at=datetime.now(UTC))
    seen: list[RenderState] = []
    while not seen or seen[-1] is not RenderState.COMPLETED:
        progress = Progress.model_validate(run("poll", render.model_dump(mode="json")))
        render = render.model_copy(update={"progress": progress})
        seen.append(progress.state)
    ready = run("deliver", render.model_dump(mode="json"))

    assert [offer.provider for offer in plan.route] == ["acme"]
    go_on.assert_called_once_with("token")
    [order] = api.orders
    assert (order["pipeline"], order["input"]["quality"]) == ("talking-heads/v3", "hd")
    assert api.fetched["face"].startswith(b"\x89PNG")
    assert api.fetched["voice"].startswith(b"RIFF")
    assert seen == ["queued", "rendering", "rendering", "completed"]
    video = account.s3.get_object(Bucket=VIDEOS, Key="team/anna.mp4")["Body"].read()
    assert video == tiny_video()
    assert ready["render"]["provider"] == "acme"
    [attempt] = account.ledger.attempts(plan.job.id)
    assert (attempt.provider, attempt.request_id) == ("acme", "acme:1")
    assert attempt.state is AttemptState.ACCEPTED


def test_message_about_missing_tokens_names_its_title(account: RenderAccount) -> None:
    boto3.client("secretsmanager").delete_secret(SecretId="acme-token")

    with ends_in(TokenMissing, "for RunComfy, WaveSpeed or Acme"):
        run("prepare", drop(account).model_dump(mode="json"))
