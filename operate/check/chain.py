"""The check: drop the samples, follow them link by link, and say where it breaks. Knows no boto3.

A dry run goes the way of every job as far as nothing is paid. What only a render does is tried by
itself: an upload in parts as deliver makes it. `render` pays for one short video, the whole proof.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from dropreel.model.catalog import MODELS, TITLES
from dropreel.model.closure import AskedProvider
from dropreel.model.errors import UnexpectedError
from dropreel.model.events import JobChecked, VideoFailed, VideoReady
from dropreel.model.harmless import harmless
from dropreel.model.ledger import Outcome
from operate.check.links import (
    Broken,
    Inflow,
    Link,
    State,
    account_links,
    cure_of,
    not_started,
    price_in_words,
    verdict,
)
from operate.choice import Execution
from operate.errors import OperateError

T = TypeVar("T")

FOLDER: Final = "dropreel-check/"

_CLEAN_UP: Final = "clean up"
_LOOK_SECONDS: Final = 2.0
_EVENT_SECONDS: Final = 420
"""After EventBridge is switched on for a bucket, S3 takes about five minutes."""
_AGAIN_SECONDS: Final = 60
"""A file that came before that time gets no event: it is dropped again."""
_END_SECONDS: Final = 300
_RENDER_SECONDS: Final = 3600


class Account(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def upload_bucket(self) -> str: ...
    @property
    def video_bucket(self) -> str: ...
    @property
    def prefix(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def settle_seconds(self) -> float: ...

    def inflow(self) -> Inflow: ...

    def samples(self) -> Mapping[str, bytes]: ...

    def drop(self, key: str, body: bytes) -> str:
        """Returns the version id."""

    def job_of(self, key: str, version_id: str) -> str | None:
        """The id of the job that was started with an upload."""

    def execution(self, job_id: str) -> Execution | None: ...

    def outcome(self, execution: Execution) -> Outcome | None: ...

    def last_fault(self, job_id: str) -> str: ...

    def has_output(self, key: str) -> bool: ...

    def upload_in_parts(self, key: str) -> int: ...

    def ask_providers(self) -> Sequence[AskedProvider]: ...

    def erase(self, prefix: str, outputs: tuple[str, ...], jobs: tuple[str, ...]) -> None: ...


@dataclass
class Chain:
    """One check of one stack."""

    account: Account
    say: Callable[[str], None]
    """Shows what is waited for."""
    now: Callable[[], datetime]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    links: list[Link] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    checked: JobChecked | None = None
    _video: str | None = None
    _renders: bool = False

    def __post_init__(self) -> None:
        self.stem = f"{self.now():%Y%m%dt%H%M%S}"

    @property
    def works(self) -> bool:
        """Whether the stack does: what is left over is none of its faults."""
        broken = (link.name for link in self.links if link.state is State.BROKEN)
        return all(name == _CLEAN_UP for name in broken)

    def check(self) -> None:
        """Go through all links that cost nothing."""
        self._link("upload bucket, rule and queue", self._look_at_inflow)
        self._link("upload", self._upload)
        self._link("S3 to intake", self._wait_for_intake)
        self._link("checks and copies", self._wait_for_verdict)
        self._link("event bus", self._wait_for_event)
        self._link("check file", self._look_for_check_file)
        self._link("videos bucket", self._upload_in_parts, after_a_fault=True)

        self._ask_providers()

    def render(self) -> None:
        """Pay for one video of the same files."""
        self._link("intake again", self._drop_for_render)
        self._link("render", self._wait_for_video)

    def clean_up(self) -> None:
        """Remove what was dropped and made, but not a video that was paid for, and nothing while a
        render needs it."""
        if self._renders:
            return
        endings = ("check.", "parts") if self._video else ("",)
        outputs = tuple(f"{FOLDER}{self.stem}.{ending}" for ending in endings)
        self._link(_CLEAN_UP, lambda: self._erase(outputs), after_a_fault=True)

    # One link

    def _link(self, name: str, look: Callable[[], str], *, after_a_fault: bool = False) -> None:
        if self.works or after_a_fault:
            self.links.append(self._tried(name, look))
        else:
            self.links.append(Link(name=name, state=State.NOT_TRIED))

    def _tried(self, name: str, look: Callable[[], str]) -> Link:
        begun, cure = self.clock(), None
        try:
            found = look()
        except Broken as broken:
            found, cure = broken.found, broken.cure
        except ClientError as error:
            answer = error.response["Error"]
            found = f"{error.operation_name}: {answer['Code']}: {answer['Message']}"
            cure = cure_of(found)
        except (BotoCoreError, OperateError) as error:
            found = " ".join(str(error).split())
            cure = cure_of(found)
        return Link(
            name=name,
            state=State.BROKEN if cure else State.WORKS,
            seconds=round(self.clock() - begun, 1),
            found=harmless(found),
            cure=cure,
        )

    def _until(self, look: Callable[[], T | None], seconds: float) -> T | None:
        deadline = self.clock() + seconds
        while (found := look()) is None and self.clock() < deadline:
            self.sleep(_LOOK_SECONDS)
        return found

    # The way to a check

    def _look_at_inflow(self) -> str:
        self.say("Looking at the bucket, the rule and the queue ...")
        inflow, bucket = self.account.inflow(), self.account.upload_bucket
        for fault in inflow.faults(bucket):
            raise fault
        if inflow.is_unread:
            return f"You may not read all settings. The others of {bucket} are right."
        return f"{bucket} keeps versions and sends events; intake listens."

    def _key(self, ending: str) -> str:
        return f"{self.account.prefix}{FOLDER}{self.stem}.{ending}"

    def _settings(self, *, dry_run: bool) -> bytes:
        model = self.account.model
        settings: dict[str, object] = {"model": model, "dry_run": dry_run}
        if MODELS[model].needs_prompt:
            settings["prompt"] = "The person looks into the camera and smiles."
        return json.dumps(settings).encode()

    def _upload(self) -> str:
        self.say("Dropping the samples ...")
        files = {"json": self._settings(dry_run=True), **self.account.samples()}
        if not MODELS[self.account.model].takes_audio:
            del files["wav"]
        for ending, body in files.items():
            self._versions = [self.account.drop(self._key(ending), body)]  # the last: the picture
        self._picture = files["png"]
        return f"Dropped under {self._key('*')}."

    def _wait_for_intake(self) -> str:
        settle = self.account.settle_seconds
        self.say(f"Waiting for S3's event, and {settle:.0f} seconds that files must be still ...")
        begun = self.clock()
        dropped_at = begun

        def started() -> str | None:
            nonlocal dropped_at
            for version in self._versions:
                if job := self.account.job_of(self._key("png"), version):
                    return job
            if self.clock() - dropped_at > settle + _AGAIN_SECONDS:
                self.say("Still no event: after a first deploy, S3 takes about five minutes ...")
                self._versions.append(self.account.drop(self._key("png"), self._picture))
                dropped_at = self.clock()
            return None

        job = self._until(started, _EVENT_SECONDS + settle)
        if job is None:
            raise not_started(self.account.inflow(), self.clock() - begun)
        self.jobs.append(job)
        times = len(self._versions)
        again = f" It took {times} drops: S3 had just begun to send events." if times > 1 else ""
        return f"Job {job} started. {settle:.0f} of the seconds are SettleSeconds.{again}"

    def _wait_for_verdict(self) -> str:
        self.say("Waiting for Prepare and Conclude ...")
        execution, outcome = self._end_of(self.jobs[-1], _END_SECONDS)
        checked = outcome.detail
        assert isinstance(checked, JobChecked)
        if checked.error and checked.error.code == UnexpectedError.__name__:
            fault = self.account.last_fault(self.jobs[-1]) or checked.error.message
            raise Broken(fault, cure_of(fault))
        self.checked = checked
        took = (checked.ended_at - execution.started_at).total_seconds()
        return f"{verdict(checked)} The execution took {took:.1f} seconds."

    def _end_of(self, job: str, seconds: float) -> tuple[Execution, Outcome]:
        def ended() -> tuple[Execution, Outcome] | None:
            execution = self.account.execution(job)
            outcome = self.account.outcome(execution) if execution else None
            return (execution, outcome) if execution and outcome else None

        found = self._until(ended, seconds)
        if found is None:
            fault = self.account.last_fault(job)
            raise Broken(
                f"Job {job} did not end within {seconds:.0f} seconds. {fault}".rstrip(),
                cure_of(fault) if fault else f"Look at the execution {job} in Step Functions.",
            )
        return found

    def _wait_for_event(self) -> str:
        self.say("Waiting for the event ...")
        job = self.jobs[-1]

        def sent() -> Outcome | None:
            execution = self.account.execution(job)
            outcome = self.account.outcome(execution) if execution else None
            return outcome if outcome and outcome.sent_at else None

        if self._until(sent, _END_SECONDS) is None:
            fault = self.account.last_fault(job) or "The event was not sent."
            raise Broken(fault, cure_of(fault))
        return "Job Checked is on the bus."

    def _look_for_check_file(self) -> str:
        key = f"{FOLDER}{self.stem}.check.json"
        if not self.account.has_output(key):
            raise Broken(
                f"{key} is not in {self.account.video_bucket}.",
                "The log of the function conclude says why.",
            )
        return f"{self.account.video_bucket}/{key}"

    def _upload_in_parts(self) -> str:
        self.say("Uploading in parts to the videos bucket ...")
        size_bytes = self.account.upload_in_parts(f"{FOLDER}{self.stem}.parts")
        return f"An upload in parts, {size_bytes / 1e6:.1f} MB, as a video is delivered."

    def _erase(self, outputs: tuple[str, ...]) -> str:
        self.say("Cleaning up ...")
        self.account.erase(self._key(""), outputs, tuple(self.jobs))
        return "What was dropped and made is deleted" + (
            ", except the video." if self._video else "."
        )

    def _ask_providers(self) -> None:
        self.say("Asking the providers, by free calls ...")
        asked: list[AskedProvider] = []

        def ask() -> str:
            asked.extend(self.account.ask_providers())
            return ""

        link = self._tried("providers", ask)
        self.links += account_links(asked) if link.state is State.WORKS else [link]

    # The way to a video

    def price(self) -> str:
        assert self.checked
        return price_in_words(self.checked)

    def _drop_for_render(self) -> str:
        version = self.account.drop(self._key("json"), self._settings(dry_run=False))
        self.say("Waiting for intake ...")
        patience = _EVENT_SECONDS + self.account.settle_seconds
        begun = self.clock()
        job = self._until(lambda: self.account.job_of(self._key("json"), version), patience)
        if job is None:
            raise not_started(self.account.inflow(), self.clock() - begun)
        self.jobs.append(job)
        self._renders = True
        return f"Job {job} started."

    def _wait_for_video(self) -> str:
        job = self.jobs[-1]
        self.say(f"Rendering. Ctrl-C stops the check, and not the render: make job ID={job}")
        _, outcome = self._end_of(job, _RENDER_SECONDS)
        self._renders = False
        match outcome.detail:
            case VideoReady() as ready:
                self._video = ready.video.key
                return "".join(self._story(ready))
            case VideoFailed(error=error):
                raise Broken(f"{error.code}: {error.message}", error.advice)
        raise AssertionError(outcome.code)

    def _story(self, ready: VideoReady) -> Iterator[str]:
        render, video = ready.render, ready.video
        yield f"s3://{video.bucket}/{video.key}, "
        yield f"by {TITLES.get(render.provider, render.provider)}: "
        yield f"{render.queued_seconds:.0f} s in its queue, {render.rendering_seconds:.0f} s to "
        yield f"render, {render.copying_seconds:.1f} s to copy. "
        if ready.actual_usd is not None:
            yield f"It cost ${ready.actual_usd:.2f}."
        elif ready.estimated_usd is not None:
            yield f"It cost about ${ready.estimated_usd:.2f}."
        else:
            yield "Its price is not known."
