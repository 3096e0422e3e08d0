"""Drop files in every way that people and programs do, all at once, and count what is paid for:
`make bench-drops`.

    python -m tests.bench.drops [--only WORDS]

It deploys into an embedded AWS of its own. Each kind of drop has a folder of its own and several
names. The submissions are those that the providers' stand-ins accepted. Of a pair without options
RunComfy is asked, and only WaveSpeed takes a prompt or a seed: so a submission there shows that
options were not ignored. It fails unless each kind has what the rules of `docs/dropping-files.md`
say: so many submissions, videos, `Video Failed` and `Upload Incomplete`, and answers that say what
a person needs to know.
"""

import argparse
import copy
import json
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dropreel.model.job import INBOX
from local import embedded
from local.embedded import OUT, PROJECT, Environment, Home
from tests.bench.burst import DEAD_LETTERS, PROVIDERS, brief_voice, standin, warm_up
from tests.support.standin_files import picture

SETTLE_SECONDS = 2
STILL_SECONDS = SETTLE_SECONDS + 3  # for sure later than the files have settled
# All drop at once, and no partner may be given up while its message waits in the queue.
INCOMPLETE_AFTER_MINUTES = 0.75
# Longer than a copy takes to settle and to be looked at: so it is looked at during the render.
RENDER_SECONDS = 6

STANDIN_OPTIONS = ("--queue-seconds", "0", "--render-seconds", str(RENDER_SECONDS))
PARAMETERS = {
    "SettleSeconds": str(SETTLE_SECONDS),
    "IncompleteAfterMinutes": str(INCOMPLETE_AFTER_MINUTES),
    "RunComfyMaxInFlight": "60",
    "WaveSpeedMaxInFlight": "60",
    "RunComfyMaxSubmitsPerMinute": "0",
    "WaveSpeedMaxSubmitsPerMinute": "0",
    "DailyRenderLimit": "0",
    "DailySpendLimitUsd": "0",
}

# More jobs at once would wait for two cores, and nothing else be measured.
WARM_UP_JOBS = 8
BETWEEN_NAMES_SECONDS = 0.4

LOOK_SECONDS = 0.7
PATIENCE_SECONDS = 120  # of a step that waits for a video
QUIET_PATIENCE_SECONDS = 240
QUIET_SECONDS = 4

EVENT = json.loads((PROJECT / "events/samples/object_created.json").read_text())

PICTURE, OTHER_PICTURE = picture(480, 480, "JPEG"), picture(500, 500, "JPEG")
OPTIONS = b'{"seed": 7}'
VOICE, OTHER_VOICE = brief_voice(), brief_voice(periods=120)
BODIES = {"jpg": PICTURE, "wav": VOICE, "json": OPTIONS, "txt": b"She smiles and nods."}


# --- What people do ---


class GaveUp(Exception):
    """What a step waited for did not come."""


@dataclass
class Watch:
    """What is in the videos bucket, what was said, and what the providers were asked: looked up
    again and again, by one thread for all."""

    environment: Environment
    videos: dict[str, str] = field(default_factory=dict)  # version ids by key
    jobs: list[str] = field(default_factory=list)  # of each accepted submission
    with_options: list[str] = field(default_factory=list)  # those of them that WaveSpeed got
    events: dict[str, dict[str, Any]] = field(default_factory=dict)  # by id
    _looked: threading.Condition = field(default_factory=threading.Condition)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._s3 = embedded.client(self.environment, "s3")
        self._sqs = embedded.client(self.environment, "sqs")

    @contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self._go_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _go_on(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        pages = self._s3.get_paginator("list_object_versions").paginate(
            Bucket=self.environment["VIDEO_BUCKET"]
        )
        listed = [one for page in pages for one in page.get("Versions", []) if one["IsLatest"]]
        asked = {name: self._submissions(name) for name in PROVIDERS}
        heard = self._heard()
        with self._looked:
            self.videos = {one["Key"]: one["VersionId"] for one in listed}
            self.with_options = asked["wavespeed"]
            self.jobs = [job for jobs in asked.values() for job in jobs]
            self.events |= heard
            self._looked.notify_all()

    def _submissions(self, provider: str) -> list[str]:
        """The job of each accepted one: its inputs are at `/<bucket>/work/<job>/`."""
        return [
            submission["inputs"][0].split("/work/")[1].split("/")[0]
            for submission in standin(self.environment, provider, "requests")["submissions"]
            if submission["accepted"]
        ]

    def _heard(self) -> dict[str, dict[str, Any]]:
        heard = {}
        queue = self.environment["EVENTS_QUEUE_URL"]
        while messages := self._sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                event = json.loads(message["Body"])
                heard[event["id"]] = event
                self._sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return heard

    def until(self, there: Callable[[], bool], what: str) -> None:
        with self._looked:
            if not self._looked.wait_for(there, PATIENCE_SECONDS):
                raise GaveUp(f"{what} did not come within {PATIENCE_SECONDS} s")

    def text(self, key: str) -> str:
        body = self._s3.get_object(Bucket=self.environment["VIDEO_BUCKET"], Key=key)["Body"]
        text: str = body.read().decode()
        return text


@dataclass
class Place:
    """A kind's folder, and the person who drops into it. All names begin alike."""

    watch: Watch
    number: int
    drops: int = 0
    gave_up: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        environment = self.watch.environment
        self._bucket = environment["UPLOAD_BUCKET"]
        self._s3 = embedded.client(environment, "s3")
        self._sqs = embedded.client(environment, "sqs")
        (self._intake_queue,) = (
            url for url in self._sqs.list_queues()["QueueUrls"] if "-IntakeQueue-" in url
        )
        self._count = threading.Lock()

    @property
    def start(self) -> str:
        """What each of its names and its job ids begin with."""
        return f"k{self.number:02}-"

    @property
    def folder(self) -> str:
        return f"kind-{self.number:02}/"

    def _key(self, file: str) -> str:
        return f"{INBOX}{self.folder}{file}"

    def _dropped(self) -> None:
        with self._count:
            self.drops += 1

    def put(self, file: str, body: bytes | None = None) -> str:
        """Drop a file with these bytes, or with what its ending asks for; its version id."""
        content = BODIES[file.rpartition(".")[2].lower()] if body is None else body
        self._dropped()
        put = self._s3.put_object(Bucket=self._bucket, Key=self._key(file), Body=content)
        version_id: str = put["VersionId"]
        return version_id

    def put_in_parts(self, file: str, body: bytes) -> None:
        """The same, but the ETag is another."""
        self._dropped()
        where = {"Bucket": self._bucket, "Key": self._key(file)}
        where["UploadId"] = self._s3.create_multipart_upload(**where)["UploadId"]
        part = self._s3.upload_part(**where, PartNumber=1, Body=body)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        self._s3.complete_multipart_upload(**where, MultipartUpload=parts)

    def pair(self, stem: str) -> None:
        self.put(f"{stem}.jpg")
        self.put(f"{stem}.wav")

    def touch(self, file: str, **changes: str) -> None:
        """Copy it onto itself."""
        self._copy(file, {}, changes or {"MetadataDirective": "REPLACE"})

    def restore(self, file: str, version_id: str) -> None:
        self._copy(file, {"VersionId": version_id}, {})

    def _copy(self, file: str, source: Mapping[str, str], changes: Mapping[str, str]) -> None:
        self._dropped()
        key = self._key(file)
        copied = {"Bucket": self._bucket, "Key": key, **source}
        self._s3.copy_object(Bucket=self._bucket, Key=key, CopySource=copied, **changes)

    def delete(self, file: str) -> None:
        self._s3.delete_object(Bucket=self._bucket, Key=self._key(file))

    def tell_again(self, file: str, version_id: str) -> None:
        """S3's event once more, as EventBridge may deliver it."""
        event = copy.deepcopy(EVENT)
        event["time"] = datetime.now(UTC).isoformat()
        event["detail"]["bucket"]["name"] = self._bucket
        event["detail"]["object"] |= {"key": self._key(file), "version-id": version_id}
        self._sqs.send_message(QueueUrl=self._intake_queue, MessageBody=json.dumps(event))

    def settle(self) -> None:
        time.sleep(STILL_SECONDS)

    def submitted(self, stem: str) -> None:
        """Wait until a provider has the job."""
        self.watch.until(
            lambda: any(job.startswith(f"{stem}-".lower()) for job in self.watch.jobs),
            f"the submission of {stem}",
        )

    def video(self, stem: str, other_than: str | None = None) -> str:
        """Wait for the video, and its manifest; the video's version id."""
        name = self.folder + stem
        videos = self.watch

        def is_there() -> bool:
            found = videos.videos.get(f"{name}.mp4")
            return found not in (None, other_than) and f"{name}.json" in videos.videos

        videos.until(is_there, f"{name}.mp4")
        return videos.videos[f"{name}.mp4"]

    def delete_video(self, stem: str) -> None:
        key = f"{self.folder}{stem}.mp4"
        self._s3.delete_object(Bucket=self.watch.environment["VIDEO_BUCKET"], Key=key)
        self.watch.until(lambda: key not in self.watch.videos, f"the deletion of {key}")


# --- The kinds ---


@dataclass(frozen=True)
class Answers:
    """What each name of a kind must come to, and what a kind came to."""

    submissions: int = 0
    with_options: int = 0
    videos: int = 0
    failed: int = 0
    incomplete: int | None = 0
    """None where the rules leave it open."""

    def times(self, names: int) -> "Answers":
        return Answers(
            submissions=self.submissions * names,
            with_options=self.with_options * names,
            videos=self.videos * names,
            failed=self.failed * names,
            incomplete=None if self.incomplete is None else self.incomplete * names,
        )


RENDERED = Answers(submissions=1, videos=1)
RENDERED_AGAIN = Answers(submissions=2, videos=1)
WITH_OPTIONS = Answers(submissions=1, with_options=1, videos=1)
REFUSED = Answers(failed=1)
NOTHING = Answers()

Play = Callable[[Place, str], None]
Prepare = Callable[[Place], None]
Told = Callable[[str], Mapping[str, str]]


@dataclass(frozen=True)
class Kind:
    """One kind of drop: what is done with each of its names, and what each must come to.

    `told` gives, for a name, what an answer (an event or a manifest) must say, by the stem of the
    answer's job.
    """

    title: str
    play: Play
    names: tuple[str, ...]
    each: Answers
    told: Told
    prepare: Prepare | None = None


KINDS: list[Kind] = []


def _name(stem: str) -> str:
    """A kind's name for it, without what all stems of the kind begin with."""
    return stem.partition("-")[2]


def kind(
    title: str,
    names: str,
    each: Answers,
    told: Told = lambda _: {},
    prepare: Prepare | None = None,
) -> Callable[[Play], Play]:
    def add(play: Play) -> Play:
        KINDS.append(Kind(title, play, tuple(names.split()), each, told, prepare))
        return play

    return add


@kind("pairs, in any order", "anna bob cleo dora emil fay gus hana", RENDERED)
def _(place: Place, stem: str) -> None:
    endings = ("jpg", "wav") if ord(stem[-1]) % 2 else ("wav", "jpg")
    for ending in endings:
        place.put(f"{stem}.{ending}")


LETTERS = {"p": "jpg", "w": "wav", "j": "json", "t": "txt"}


@kind("pairs with options, in any order", "jwp jpw pjw wpj pwj wjp", WITH_OPTIONS)
@kind("pairs with a prompt, in any order", "twp tpw ptw wpt pwt wtp", WITH_OPTIONS)
def _(place: Place, stem: str) -> None:
    for letter in _name(stem):
        place.put(f"{stem}.{LETTERS[letter]}")


def _await_options(place: Place) -> None:
    place.put("_defaults.json", b'{"wait_for": ["options"]}')


def _await_prompt(place: Place) -> None:
    place.put("_defaults.json", b'{"wait_for": ["prompt"]}')


@kind("options that come late, `wait_for`", "anna bob cleo", WITH_OPTIONS, prepare=_await_options)
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}.jpg")
    place.settle()
    place.put(f"{stem}.wav")
    place.settle()
    place.put(f"{stem}.json")


@kind("a prompt that comes late, `wait_for`", "anna bob cleo", WITH_OPTIONS, prepare=_await_prompt)
def _(place: Place, stem: str) -> None:
    place.pair(stem)
    place.settle()
    place.put(f"{stem}.txt")


@kind("a copy in place, during the render", "anna bob cleo dora", RENDERED)
def _(place: Place, stem: str) -> None:
    place.pair(stem)
    place.submitted(stem)
    place.touch(f"{stem}.jpg")
    place.touch(f"{stem}.wav")


@kind("a copy in place, the video is there", "anna bob cleo dora", RENDERED)
def _(place: Place, stem: str) -> None:
    place.pair(stem)
    place.video(stem)
    place.touch(f"{stem}.jpg")
    place.settle()
    place.touch(f"{stem}.wav")


@kind("the same bytes again", "anna bob cleo dora", RENDERED)
def _(place: Place, stem: str) -> None:
    place.pair(stem)
    place.video(stem)
    place.pair(stem)


@kind("the same bytes again, in parts (another ETag)", "anna bob cleo", RENDERED)
def _(place: Place, stem: str) -> None:
    place.pair(stem)
    place.video(stem)
    place.put_in_parts(f"{stem}.jpg", PICTURE)
    place.put_in_parts(f"{stem}.wav", VOICE)


@kind("deleted, then the old version restored", "anna bob cleo", RENDERED)
def _(place: Place, stem: str) -> None:
    old = place.put(f"{stem}.jpg")
    place.put(f"{stem}.wav")
    place.video(stem)
    place.delete(f"{stem}.jpg")
    place.restore(f"{stem}.jpg", old)


@kind("replaced, and at once the old version restored", "anna bob cleo", RENDERED)
def _(place: Place, stem: str) -> None:
    old = place.put(f"{stem}.jpg")
    place.put(f"{stem}.wav")
    place.video(stem)
    place.put(f"{stem}.jpg", OTHER_PICTURE)
    place.restore(f"{stem}.jpg", old)


@kind(
    "corrected, and after its video the old version restored",
    "anna bob",
    Answers(submissions=3, videos=1),
)
def _(place: Place, stem: str) -> None:
    old = place.put(f"{stem}.jpg")
    place.put(f"{stem}.wav")
    first = place.video(stem)
    place.put(f"{stem}.jpg", OTHER_PICTURE)
    place.video(stem, other_than=first)
    place.settle()
    place.restore(f"{stem}.jpg", old)


@kind("another storage class", "anna bob cleo", RENDERED)
def _(place: Place, stem: str) -> None:
    place.pair(stem)
    place.video(stem)
    place.touch(f"{stem}.jpg", StorageClass="STANDARD_IA")
    place.touch(f"{stem}.wav", StorageClass="INTELLIGENT_TIERING")


@kind("a touched .txt or .json", "txt json", WITH_OPTIONS)
def _(place: Place, stem: str) -> None:
    document = f"{stem}.{_name(stem)}"
    place.put(document)
    place.pair(stem)
    place.video(stem)
    place.touch(document)
    place.settle()
    place.put(document)


def _with_defaults(place: Place, stem: str) -> str:
    place.put(f"{stem}/_defaults.json", b'{"seed": 1}')
    stem = f"{stem}/{stem}"
    place.pair(stem)
    place.video(stem)
    return stem


@kind("`_defaults.json` touched, then a file", "anna bob cleo", WITH_OPTIONS)
def _(place: Place, stem: str) -> None:
    dropped = _with_defaults(place, stem)
    place.touch(f"{stem}/_defaults.json")
    place.touch(f"{dropped}.jpg")


@kind("`_defaults.json` changed, no file", "anna bob", WITH_OPTIONS)
def _(place: Place, stem: str) -> None:
    _with_defaults(place, stem)
    place.put(f"{stem}/_defaults.json", b'{"seed": 2}')


@kind(
    "`_defaults.json` changed, then a file touched",
    "anna bob cleo",
    Answers(submissions=2, with_options=2, videos=1),
)
def _(place: Place, stem: str) -> None:
    dropped = _with_defaults(place, stem)
    place.put(f"{stem}/_defaults.json", b'{"seed": 2}')
    place.touch(f"{dropped}.jpg")


@kind("the video deleted, then a file touched", "anna bob cleo", RENDERED_AGAIN)
def _(place: Place, stem: str) -> None:
    place.pair(stem)
    place.video(stem)
    place.delete_video(stem)
    place.touch(f"{stem}.wav")


@kind("a corrected picture", "anna bob cleo", RENDERED_AGAIN)
def _(place: Place, stem: str) -> None:
    place.pair(stem)
    place.video(stem)
    place.put(f"{stem}.jpg", OTHER_PICTURE)


@kind("both corrected at once", "anna bob cleo", RENDERED_AGAIN)
def _(place: Place, stem: str) -> None:
    place.pair(stem)
    place.video(stem)
    place.put(f"{stem}.wav", OTHER_VOICE)
    place.put(f"{stem}.jpg", OTHER_PICTURE)


@kind(
    "a broken picture, then the right one",
    "anna bob cleo",
    Answers(submissions=1, videos=1, failed=1),
)
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}.jpg", b"I am no picture.")
    place.put(f"{stem}.wav")
    error = f"{place.folder}{stem}.error.json"
    place.watch.until(lambda: error in place.watch.videos, error)
    place.put(f"{stem}.jpg")


def _nfd(name: str) -> str:
    return unicodedata.normalize("NFD", name)


@kind("picture NFC, voice NFD", "caf\u00e9 zo\u00eb \u00c5se s\u0169n", RENDERED)
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}.jpg")
    place.put(f"{_nfd(stem)}.wav")


@kind("folder NFC, folder NFD", "M\u00fcnchen \u00c5rhus", RENDERED)
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}/{stem}.jpg")
    place.put(f"{_nfd(stem)}/{stem}.wav")


NEAR = {
    "capitals": ("-Anna", "-anna"),
    "spaces": ("-a b", "-a  b"),
    "end": ("-c ", "-c"),
    "no-break": ("-d e", "-d\u00a0e"),
    "percent": ("-f g", "-f%20g"),
}


def _near(stem: str) -> list[str]:
    return [stem + ending for ending in NEAR[_name(stem)]]


def _the_other(stem: str) -> dict[str, str]:
    one, other = _near(stem)
    return {one: f"{other}.wav", other: f"{one}.jpg"}


@kind("capitals, spaces, %20 differ", " ".join(NEAR), Answers(incomplete=2), told=_the_other)
def _(place: Place, stem: str) -> None:
    one, other = _near(stem)
    place.put(f"{one}.jpg")
    place.put(f"{other}.wav")


@kind(
    "a name inside `name.json` differs in capitals",
    "anna bob",
    Answers(incomplete=2),
    told=lambda stem: {stem: f"{stem}-face.jpg"},
)
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}-face.jpg")
    place.put(f"{stem}.json", json.dumps({"image": f"{stem}-Face.jpg"}).encode())
    place.put(f"{stem}.wav")


@kind("options and prompts in any case", "JSON Json Txt tXT TXT", WITH_OPTIONS)
def _(place: Place, stem: str) -> None:
    ending = _name(stem)
    place.put(f"{stem}.{ending}")
    place.pair(stem)


@kind("options named `name.json.txt`", "anna bob", WITH_OPTIONS)
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}.json.txt", OPTIONS)
    place.pair(stem)


@kind(
    "`_defaults.json` in other spellings",
    "_Defaults.JSON _DEFAULTS.json _defaults.json.txt _Defaults.Json.txt",
    WITH_OPTIONS,
)
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}/{_name(stem)}", OPTIONS)
    place.pair(f"{stem}/{stem}-job")


@kind(
    "options with a wrong ending",
    "yaml yml",
    REFUSED,
    told=lambda stem: {stem: f"{stem}.json"},
)
@kind("a prompt with a wrong ending", "md rtf", REFUSED, told=lambda stem: {stem: f"{stem}.txt"})
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}.{_name(stem)}", b"seed: 7\n")
    place.pair(stem)


@kind(
    "`_defaults.json` misnamed",
    "defaults.json _defaults.txt",
    Answers(failed=2),  # the job, and the file itself
    told=lambda stem: {f"{stem}-job": "_defaults.json"},
)
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}/{_name(stem)}", OPTIONS)
    place.pair(f"{stem}/{stem}-job")


@kind("an empty picture or voice, then the real one", "jpg wav", RENDERED)
@kind("empty options or prompt, then the real ones", "json txt", WITH_OPTIONS)
def _(place: Place, stem: str) -> None:
    ending = _name(stem)
    place.put(f"{stem}.{ending}", b"")
    for other in {"jpg", "wav"} - {ending}:
        place.put(f"{stem}.{other}")
    place.settle()
    place.put(f"{stem}.{ending}")


LITTER = (
    "Thumbs.db", "Thumbs.db:encryptable", "ehthumbs_vista.db", "desktop.ini", ".anna.jpg",
    "._anna.wav", "anna.jpg:Zone.Identifier", "~lock.anna.json#", "~$anna.jpg", "anna.jpg~",
    "anna.jpg.part", "anna.jpg.tmp", "anna.jpg.crdownload", "anna.wav.filepart",
    "anna.wav.partial", "@eaDir/anna.jpg", "#recycle/anna.jpg", "#snapshot/anna.jpg",
    "__MACOSX/anna.jpg", "$RECYCLE.BIN/anna.jpg", "lost+found/anna.jpg", ".Trash-1000/anna.jpg",
    "System Volume Information/anna.jpg",
)  # fmt: skip


@kind("litter", "anna bob", NOTHING)
def _(place: Place, stem: str) -> None:
    for file in LITTER:
        place.put(f"{stem}/{file}", PICTURE)


@kind("litter beside a pair", "anna bob", RENDERED)
def _(place: Place, stem: str) -> None:
    for file in LITTER:
        place.put(f"{stem}/{file.replace('anna', stem)}", PICTURE)
    place.pair(f"{stem}/{stem}")


@kind("20 folders deep", "anna bob cleo", RENDERED)
def _(place: Place, stem: str) -> None:
    place.pair(f"{'f/' * 19}{stem}")


@kind("21 folders deep", "anna bob cleo", REFUSED, told=lambda stem: {stem: "20"})
def _(place: Place, stem: str) -> None:
    place.pair(f"{'f/' * 20}{stem}")


@kind(
    "an unknown ending beside a job",
    "docx xyz srt",
    RENDERED,
    told=lambda stem: {stem: f"{stem}.{_name(stem)}"},
)
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}.{_name(stem)}", b"?")
    place.pair(stem)


@kind("events delivered again", "anna bob cleo dora", RENDERED)
def _(place: Place, stem: str) -> None:
    dropped = {file: place.put(file) for file in (f"{stem}.jpg", f"{stem}.wav")}
    for file, version_id in dropped.items():
        place.tell_again(file, version_id)
    place.video(stem)
    for file, version_id in dropped.items():
        place.tell_again(file, version_id)


def _avatar(place: Place) -> None:
    place.put("_defaults.json", b'{"image": "face.jpg"}')
    place.put("face.jpg")


@kind("an avatar folder", "anna bob cleo dora emil", RENDERED, prepare=_avatar)
def _(place: Place, stem: str) -> None:
    place.put(f"{stem}.wav")


@kind(
    "an avatar folder, a picture of its own",
    "anna bob",
    RENDERED,
    told=lambda stem: {stem: f"{stem}.jpg"},
    prepare=_avatar,
)
def _(place: Place, stem: str) -> None:
    place.pair(stem)


def _face_and_voice(place: Place) -> None:
    place.put("faces/face.jpg")
    place.put("voices/monday.wav")


@kind("named files", "anna bob cleo", WITH_OPTIONS, prepare=_face_and_voice)
def _(place: Place, stem: str) -> None:
    named = {"image": "faces/face.jpg", "audio": "voices/monday.wav", "seed": 3}
    place.put(f"{stem}.json", json.dumps(named).encode())


# --- The count ---


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    kind: Kind
    drops: int
    found: Answers
    untold: tuple[str, ...]
    gave_up: tuple[str, ...]

    @property
    def expected(self) -> Answers:
        return self.kind.each.times(len(self.kind.names))

    @property
    def is_as_expected(self) -> bool:
        same = all(
            count is None or vars(self.found)[name] == count
            for name, count in vars(self.expected).items()
        )
        return same and not self.untold and not self.gave_up


def run(environment: Environment, kinds: list[tuple[int, Kind]], console: Console) -> list[Row]:
    watch = Watch(environment)
    places = {number: Place(watch, number) for number, _ in kinds}
    with watch.going_on():
        begun = time.monotonic()
        for number, one in kinds:
            if one.prepare:
                one.prepare(places[number])
        names = _taking_turns(kinds)
        with ThreadPoolExecutor(len(names)) as people:
            for number, one, name in names:
                people.submit(_play, one, places[number], name)
                time.sleep(BETWEEN_NAMES_SECONDS)
        console.print(f"All drops are done after {time.monotonic() - begun:.0f} s")
        is_quiet = _wait_until_quiet(environment)
        console.print(
            f"{'Quiet' if is_quiet else 'Not quiet'} after {time.monotonic() - begun:.0f} s"
        )
    watch.look()
    return [_row(one, places[number]) for number, one in kinds]


def _taking_turns(kinds: list[tuple[int, Kind]]) -> list[tuple[int, Kind, str]]:
    """The first name of each kind, then the second of each, and so on."""
    turns = zip_longest(*([(n, one, name) for name in one.names] for n, one in kinds))
    return [name for turn in turns for name in turn if name]


def _play(one: Kind, place: Place, name: str) -> None:
    try:
        one.play(place, place.start + name)
    except Exception as error:
        place.gave_up.append(f"{name}: {error}")


def _wait_until_quiet(environment: Environment) -> bool:
    """No execution runs, and intake has no message, due or not, for a while."""
    states, sqs = (embedded.client(environment, name) for name in ("stepfunctions", "sqs"))
    queues = [url for url in sqs.list_queues()["QueueUrls"] if "-IntakeQueue-" in url]
    give_up_at = quiet_since = time.monotonic()
    give_up_at += QUIET_PATIENCE_SECONDS
    while (now := time.monotonic()) < give_up_at:
        running = states.list_executions(
            stateMachineArn=environment["STATE_MACHINE_ARN"], statusFilter="RUNNING"
        )["executions"]
        if running or any(_messages(sqs, queue) for queue in queues):
            quiet_since = now
        elif now - quiet_since >= QUIET_SECONDS:
            return True
        time.sleep(1)
    return False


def _messages(sqs: Any, queue_url: str) -> int:  # noqa: ANN401 - a client of the embedded AWS
    counts = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]
    return sum(int(counts.get(f"ApproximateNumberOfMessages{kind}", 0)) for kind in _SEEN)


_SEEN = ("", "NotVisible", "Delayed")


def _row(one: Kind, place: Place) -> Row:
    watch = place.watch
    details = [
        (event["detail-type"], event["detail"])
        for event in watch.events.values()
        if _job(event["detail"]).get("folder", "").startswith(place.folder)
    ]
    of_kind = [kind for kind, _ in details]
    found = Answers(
        submissions=sum(job.startswith(place.start) for job in watch.jobs),
        with_options=sum(job.startswith(place.start) for job in watch.with_options),
        videos=sum(key.startswith(place.folder) and key.endswith(".mp4") for key in watch.videos),
        failed=of_kind.count("Video Failed"),
        incomplete=of_kind.count("Upload Incomplete"),
    )
    answers = [detail for _, detail in details]
    return Row(one, place.drops, found, tuple(_untold(one, place, answers)), tuple(place.gave_up))


def _untold(one: Kind, place: Place, answers: list[dict[str, Any]]) -> Iterator[str]:
    """What no answer says that must be said."""
    for name in one.names:
        for stem, words in one.told(place.start + name).items():
            said = [
                json.dumps(it, ensure_ascii=False) for it in answers if _job(it)["stem"] == stem
            ]
            manifests = (key for key in place.watch.videos if key.endswith(f"/{stem}.json"))
            said += [place.watch.text(key) for key in manifests]
            if not any(words in text for text in said):
                yield f"{stem}: no word of {words}"


def _job(detail: dict[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = detail.get("job") or detail
    return job


# --- The verdict ---

COLUMNS = ("submissions", "with_options", "videos", "failed", "incomplete")


def show(console: Console, rows: list[Row]) -> None:
    table = Table(title="What came of each kind of drop", title_justify="left")
    table.add_column("kind")
    table.add_column("names", justify="right")
    table.add_column("drops", justify="right")
    for name in COLUMNS:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(
            escape(row.kind.title),
            str(len(row.kind.names)),
            str(row.drops),
            *(_cell(vars(row.found)[name], vars(row.expected)[name]) for name in COLUMNS),
            "[green]✓[/]" if row.is_as_expected else "[red]broken[/]",
        )
    table.add_section()
    found = [sum(vars(row.found)[name] for row in rows) for name in COLUMNS]
    drops = sum(row.drops for row in rows)
    names = sum(len(row.kind.names) for row in rows)
    table.add_row("in all", str(names), str(drops), *map(str, found))
    console.print(table)
    for row in rows:
        for line in (*row.gave_up, *row.untold):
            console.print(f"{row.kind.title}: {line}", markup=False, highlight=False)


def _cell(found: int, expected: int | None) -> str:
    return str(found) if expected in (None, found) else f"[red]{found}, not {expected}[/]"


def _letters(environment: Environment) -> int:
    """Messages in the dead letter queues."""
    cloudformation = embedded.client(environment, "cloudformation")
    (stack,) = cloudformation.describe_stacks(StackName=embedded.STACK)["Stacks"]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    sqs = embedded.client(environment, "sqs")
    return sum(_messages(sqs, outputs[name]) for name in DEAD_LETTERS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.drops")
    parser.add_argument("--only", default="", help="the kinds whose title has these words")
    asked = parser.parse_args()
    kinds = [(n, one) for n, one in enumerate(KINDS, 1) if asked.only in one.title]
    console, home = Console(width=max(Console().width, 120)), Home(OUT / "bench")
    embedded.down(home)  # what an interrupted one left
    environment = embedded.up(
        home,
        standin_options=STANDIN_OPTIONS,
        parameters=PARAMETERS,
        max_wait_seconds=RENDER_SECONDS,
        say=console.print,
    )
    try:
        warm_up(environment, WARM_UP_JOBS)
        rows = run(environment, kinds, console)
        letters = _letters(environment)
    finally:
        embedded.down(home)
    show(console, rows)
    console.print(f"dead letters: {letters}")
    return 0 if all(row.is_as_expected for row in rows) and not letters else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
