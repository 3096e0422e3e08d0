"""Prepare: decode the files, choose the offers that take them, and write copies for these.

The copies are in the work bucket, named after the job: a second call writes the same again. A
refusal lists every broken rule, in the words of people who have pictures and recordings, not
codecs.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from io import SEEK_END
from tempfile import TemporaryFile
from typing import BinaryIO, Final, Generic, Protocol, TypeVar
from unicodedata import normalize

from pydantic import BaseModel

from dropreel.media import fitting
from dropreel.media.fitting import listed, megabytes, strictest
from dropreel.media.opened import Copy, Fault, MediumRefused, PictureFacts, SoundFacts
from dropreel.media.shut_in import Codec, Opened, opened
from dropreel.media.source import Source
from dropreel.model.catalog import (
    TITLES,
    AudioFormat,
    Catalog,
    ImageFormat,
    Model,
    Offer,
    ProviderName,
)
from dropreel.model.errors import InputRejected, Reason, TokenMissing
from dropreel.model.job import INBOX, Input, Job, Role
from dropreel.model.messages import AudioFacts, ImageFacts, Plan, PlannedOffer
from dropreel.model.uploads import Unreadable
from dropreel.render import options

WORK: Final = "work/"
MAX_PICTURE_BYTES: Final = 250_000_000
MAX_RECORDING_BYTES: Final = 2_000_000_000

_PICTURES: Final = "JPEG, PNG, WebP, BMP, HEIC, AVIF, TIFF or GIF"
_RECORDINGS: Final = "MP3, WAV, M4A, AAC, Ogg, Opus, FLAC, AIFF, WMA, WebM or the sound of a video"
_ENDINGS: Final[dict[ImageFormat | AudioFormat, tuple[str, str]]] = {
    ImageFormat.JPEG: ("jpg", "image/jpeg"),
    ImageFormat.PNG: ("png", "image/png"),
    AudioFormat.MP3: ("mp3", "audio/mpeg"),
    AudioFormat.WAV: ("wav", "audio/wav"),
}

F = TypeVar("F", PictureFacts, SoundFacts)

_Verdict = tuple[Offer, tuple[Reason, ...]]


class PinnedUploads(Protocol):
    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        """The pinned version, read in ranges. Reading it raises `InputGone` and `Unreadable`."""

    def copy(self, bucket: str, pinned: Input, into: BinaryIO) -> None:
        """Write the pinned version into a file. Raises `InputGone` and `Unreadable`."""

    def put(self, bucket: str, key: str, body: BinaryIO, content_type: str) -> str:
        """Write an object and return its version id."""


@dataclass(frozen=True)
class Codecs:
    """Passed in, so that this module does not import the codec libraries."""

    picture: Codec[PictureFacts]
    sound: Codec[SoundFacts]


def prepare(
    job: Job,
    uploads: PinnedUploads,
    configured: Collection[ProviderName],
    codecs: Codecs,
    seconds_left: Callable[[], float],
    *,
    work_bucket: str,
    catalog: Catalog,
) -> Plan:
    """The offers of the job's model that take all its files and options, and the copies for them.

    `catalog` has the offers that are on, `configured` the providers that have a token. Raises
    `InputRejected` with the reasons of every offer when none takes the job, `TokenMissing` and
    `InputGone`.
    """
    picture = _Medium(job, Role.IMAGE, uploads, work_bucket, codecs.picture, seconds_left)
    sound = _Medium(job, Role.AUDIO, uploads, work_bucket, codecs.sound, seconds_left)
    judge = _Judge(job, uploads, picture, sound, catalog, configured)
    if job.model not in catalog:
        raise InputRejected((*job.problems, judge.model_is_off()))
    model = catalog[job.model]
    if not any(offer.provider in configured for offer in model.route):
        names = [TITLES[name] for name in dict.fromkeys(offer.provider for offer in model.route)]
        raise TokenMissing(f"No token is stored for {listed(names, 'or')}.")
    with ExitStack() as stack:
        picture.open(stack)
        if job.of(Role.AUDIO) and model.takes_audio:
            sound.open(stack)
        elif model.needs_audio:
            sound.require()
        verdicts = [(offer, tuple(judge.objections(model, offer))) for offer in model.route]
        route = judge.fitting_together(
            [o for o, reasons in verdicts if not reasons and o.provider in configured]
        )
        if job.problems or not route:
            reasons = () if route else _reasons(job, model, verdicts, configured)
            raise InputRejected((*job.problems, *reasons))
        asked = options.asked_of(job)
        image_limits, audio_limits = strictest(route)
        image = picture.written(image_limits)
        audio = sound.written(audio_limits) if sound.facts and audio_limits else None
        if image is None or picture.faults or sound.faults:
            raise InputRejected((*picture.faults, *sound.faults))
        return Plan(
            job=job,
            route=tuple(
                PlannedOffer(
                    provider=offer.provider,
                    endpoint=offer.endpoint,
                    fields=options.fields(offer, asked),
                )
                for offer in route
            ),
            image=image.input,
            image_facts=image.image_facts,
            audio=audio.input if audio else None,
            audio_facts=audio.audio_facts(sound.facts) if audio and sound.facts else None,
            changes=image.copy.changes + (audio.copy.changes if audio else ()),
            sha256=picture.sha256 | sound.sha256,
        )


# The job's media


@dataclass(frozen=True)
class _Written:
    """A copy in the bucket."""

    input: Input
    copy: Copy

    @property
    def image_facts(self) -> ImageFacts:
        return ImageFacts(
            format=ImageFormat(self.copy.format),
            width=self.copy.width,
            height=self.copy.height,
            size_bytes=self.input.size_bytes,
        )

    def audio_facts(self, sound: SoundFacts) -> AudioFacts:
        return AudioFacts(
            format=AudioFormat(self.copy.format),
            duration_seconds=sound.duration_seconds,
            size_bytes=self.input.size_bytes,
        )


@dataclass
class _Medium(Generic[F]):
    """The job's picture or its recording: opened once, judged, and written."""

    job: Job
    role: Role
    uploads: PinnedUploads
    work_bucket: str
    codec: Codec[F]
    seconds_left: Callable[[], float]
    facts: F | None = None
    faults: tuple[Reason, ...] = ()
    sha256: dict[str, str] = field(default_factory=dict)

    def open(self, stack: ExitStack) -> None:
        """Decode it, if there is exactly one and its size is allowed."""
        if not self.require():
            return
        given = self.job.only(self.role)
        bucket = self.job.bucket
        self._into = stack.enter_context(TemporaryFile())  # noqa: SIM115 - the stack closes it
        file = self.uploads.open(bucket, given)
        stack.callback(file.close)
        self._source = Source(
            partial(_read, file), partial(self.uploads.copy, bucket, given), given.size_bytes
        )
        try:
            self._opened: Opened[F] = stack.enter_context(
                opened(self.codec, self._source, self._into, self.seconds_left)
            )
        except MediumRefused as refused:
            self._refuse(refused.fault)
            return
        except Unreadable as unreadable:
            self.faults = (*self.faults, unreadable.reason)
            return
        self.facts = self._opened.facts

    def written(self, limits: BaseModel) -> _Written | None:
        """A copy within the limits, in the bucket; None when it cannot be made."""
        try:
            copy = self._opened.write(limits)
        except MediumRefused as refused:
            self._refuse(refused.fault)
            return None
        except Unreadable as unreadable:
            self.faults = (*self.faults, unreadable.reason)
            return None
        given = self.job.only(self.role)
        self.sha256[given.key] = self._source.sha256
        ending, content_type = _ENDINGS[copy.format]
        key = f"{WORK}{self.job.id}/{self.role}.{ending}"
        size_bytes = self._into.seek(0, SEEK_END)
        self._into.seek(0)
        version_id = self.uploads.put(self.work_bucket, key, self._into, content_type)
        pinned = Input(role=self.role, key=key, version_id=version_id, size_bytes=size_bytes)
        return _Written(pinned, copy)

    def require(self) -> bool:
        """Returns whether there is exactly one, of an allowed size; else notes the faults."""
        given, noun = self.job.of(self.role), self.codec.noun
        refused = {problem.file for problem in self.job.problems}
        if refused and (not given or given[0].key in refused):
            return False  # refused by its name, or by the file that may name it
        if len(given) != 1:
            self.faults = tuple(_miscount(self.job, given, noun))
            return False
        most = MAX_PICTURE_BYTES if self.role is Role.IMAGE else MAX_RECORDING_BYTES
        if given[0].size_bytes > most:
            too_large = Fault(
                rule=f"at most {megabytes(most)}",
                found=f"{megabytes(given[0].size_bytes)} large",
                cure=f"Export the {noun} in a smaller format, then drop it again.",
            )
            self._refuse(too_large)
            return False
        return True

    def _refuse(self, fault: Fault) -> None:
        key, noun = self.job.only(self.role).key, self.codec.noun
        if fault.broken:
            reason = fitting.broken(key, noun, fault.found)
        else:
            kinds = _PICTURES if self.role is Role.IMAGE else _RECORDINGS
            reason = Reason(
                file=key,
                rule=fault.rule or f"a {noun}: {kinds}",
                found=fault.found,
                cure=fault.cure
                or f"Open the original {noun} in an app and export it as one of these; "
                "giving the file another name does not change what it is.",
            )
        self.faults = (*self.faults, reason)


def _read(file: BinaryIO, start: int, size_bytes: int) -> bytes:
    file.seek(start)
    return file.read(size_bytes)


@dataclass(frozen=True)
class _Judge:
    """What the job's offers object to."""

    job: Job
    uploads: PinnedUploads
    picture: _Medium[PictureFacts]
    sound: _Medium[SoundFacts]
    catalog: Catalog
    configured: Collection[ProviderName]

    def model_is_off(self) -> Reason:
        """The job's model has no offer that is on."""
        file, has_recording = self._file_of("model"), bool(self.job.of(Role.AUDIO))
        takers = [
            f'"{model.name}"'
            for model in self.catalog.values()
            if (model.takes_audio if has_recording else not model.needs_audio)
        ]
        where = file if file.endswith(".json") else f"{INBOX}{self.job.folder}{self.job.stem}.json"
        ask = "sk your operator to turn this model on in the parameter CatalogOverrides."
        return Reason(
            file=file,
            rule="a model that is on",
            found=f'the model "{self.job.model}", which is off',
            cure=f'Set "model" to {listed(takers, "or")} in {where}, and drop a file of the '
            f"job again. Or a{ask}"
            if takers
            else f"A{ask}",
        )

    def objections(self, model: Model, offer: Offer) -> Iterator[Reason]:
        """Why an offer cannot take the job."""
        yield from self.picture.faults
        given = self.job.of(Role.AUDIO)
        if offer.audio is None and given:
            takers = [f'"{model.name}"' for model in self.catalog.values() if model.takes_audio]
            with_it = f' With it: set "model" to {listed(takers, "or")}.' if takers else ""
            for recording in given:
                yield Reason(
                    file=recording.key,
                    rule="no recording",
                    found="a recording",
                    cure=f"Without the recording: {self._without(recording)}.{with_it}",
                )
        elif offer.audio and (given or offer.audio.required):
            yield from self.sound.faults
        yield from self._media_objections([offer])
        yield from options.objections(
            model,
            offer,
            options.asked_of(self.job),
            self._file_of,
            self.configured,
            catalog=self.catalog,
        )

    def fitting_together(self, offers: Sequence[Offer]) -> list[Offer]:
        """The offers that one copy of the media can serve; the first offer always does."""
        route: list[Offer] = []
        for offer in offers:
            image, audio = strictest([*route, offer])
            formats = image.formats and (audio is None or audio.formats)
            if formats and not any(self._media_objections([*route, offer])):
                route.append(offer)
        return route

    def _media_objections(self, offers: Sequence[Offer]) -> Iterator[Reason]:
        """Why no copy of the media can fit all of these offers."""
        image_limits, audio_limits = strictest(offers)
        if self.picture.facts:
            key = self.job.only(Role.IMAGE).key
            yield from fitting.picture_objections(key, self.picture.facts, image_limits)
        if self.sound.facts and audio_limits:
            key = self.job.only(Role.AUDIO).key
            yield from fitting.sound_objections(key, self.sound.facts, audio_limits)

    def _without(self, recording: Input) -> str:
        """How to make the job without a recording, which may be that of another job."""
        own_files = f"{INBOX}{self.job.folder}{self.job.stem}."
        steps = [
            f'remove "audio" from {file.key}'
            for file in self.job.of(Role.OPTIONS)
            if Role.AUDIO in self._document(file)
        ]
        if normalize("NFC", recording.key).startswith(own_files):
            steps.append(f"delete {recording.key}")
        return listed([*steps, "drop one of the job's own files again"], "and")

    def _file_of(self, name: str) -> str:
        """The file that sets an option, else one that could."""
        prompts = self.job.of(Role.PROMPT) if name == options.PROMPT else ()
        nearest_first = sorted(
            self.job.of(Role.DEFAULTS), key=lambda given: len(given.key), reverse=True
        )
        given = [*prompts, *self.job.of(Role.OPTIONS), *nearest_first]
        if len(given) > 1 and not prompts:
            given = [file for file in given if name in self._document(file)] or given
        return given[0].key if given else _first_file(self.job)

    def _document(self, given: Input) -> Collection[str]:
        with self.uploads.open(self.job.bucket, given) as file:
            try:
                document = json.loads(file.read(1 << 20))
            except (ValueError, RecursionError, Unreadable):
                return ()
        return document if isinstance(document, dict) else ()


def _miscount(job: Job, given: Sequence[Input], noun: str) -> Iterator[Reason]:
    """Why it is wrong to have none of a role, or several."""
    rule = f"exactly one {noun} for each video"
    if not given:
        yield Reason(
            file=_first_file(job),
            rule=rule,
            found=f"no {noun} has this name",
            cure=f"Drop a {noun} with the same name into the same folder.",
        )
    names = [upload.key.rpartition("/")[2] for upload in given]
    for upload in given:
        yield Reason(
            file=upload.key,
            rule=rule,
            found=f"one of {len(given)} {noun}s with the same name: {listed(names, 'and')}",
            cure="Delete or rename all but one of them, then drop that one again.",
        )


# The refusal


def _reasons(
    job: Job, model: Model, verdicts: Sequence[_Verdict], configured: Collection[ProviderName]
) -> tuple[Reason, ...]:
    """Every reason once, file by file: with its offer, unless all offers of the model have it."""
    found: list[Reason] = []
    for reason in dict.fromkeys(reason for _, reasons in verdicts for reason in reasons):
        objecting = [offer for offer, reasons in verdicts if reason in reasons]
        if len(objecting) == len(model.route):
            found.append(reason)
            continue
        # An offer without a token cannot be asked, so its limits help nobody.
        found += [
            reason.model_copy(update={"offer": _title(model, offer)})
            for offer in objecting
            if offer.provider in configured
        ]
    order = {given.key: index for index, given in enumerate(job.inputs)}
    found.sort(key=lambda reason: order.get(reason.file, 0))
    without_token = [
        _no_token(model, offer, _first_file(job))
        for offer, reasons in verdicts
        if not reasons and offer.provider not in configured
    ]
    return (*found, *without_token)


def _title(model: Model, offer: Offer) -> str:
    """A name that no other offer of the model has."""
    namesakes = [other for other in model.route if other.provider == offer.provider]
    return TITLES[offer.provider] if len(namesakes) == 1 else offer.page


def _no_token(model: Model, offer: Offer, file: str) -> Reason:
    return Reason(
        file=file,
        offer=_title(model, offer),
        rule=f"a token for {TITLES[offer.provider]}",
        found="no token is stored",
        cure=f"{TITLES[offer.provider]} would take these files: ask your operator to "
        "store its token. Then drop the files again.",
    )


def _first_file(job: Job) -> str:
    """The file to name when the fault is in none of them."""
    return job.inputs[0].key if job.inputs else f"{INBOX}{job.folder}{job.stem}"
