"""Validate: what the files really are, and which offers of the model take all of it.

Spends no money and decodes nothing. A refusal lists every rule that is broken, in the words of
someone who has pictures and recordings, not codecs.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import BinaryIO, Protocol

from dropreel.media import fitting
from dropreel.media.fitting import listed, megabytes, strictest
from dropreel.media.kinds import NotUsable
from dropreel.media.pictures import Picture, read_picture
from dropreel.media.recordings import Sound, read_recording
from dropreel.model.catalog import MODELS, TITLES, Model, Offer, ProviderName, offer_of
from dropreel.model.errors import InputRejected, Reason, TokenMissing
from dropreel.model.job import INBOX, Input, Job, Role
from dropreel.model.messages import Plan, PlannedOffer
from dropreel.render import options

__all__ = ["Uploads", "plan", "settle", "strictest"]

_Verdict = tuple[Offer, tuple[Reason, ...]]


class Uploads(Protocol):
    """The upload bucket, as far as validation needs it."""

    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        """The pinned version, read a range at a time. Reading it raises `InputGone`."""


def plan(
    job: Job,
    uploads: Uploads,
    configured: Collection[ProviderName],
) -> Plan:
    """The offers of the job's model that take all it brings, and what conform must do first.

    `configured` are the providers that have a token. Raises `InputRejected` with the reasons of
    every offer when none takes the job, `TokenMissing` and `InputGone`.
    """
    model = _model(job)
    names = [TITLES[name] for name in dict.fromkeys(offer.provider for offer in model.route)]
    if not any(offer.provider in configured for offer in model.route):
        raise TokenMissing(f"No token is stored for {listed(names, 'or for')}.")
    uploaded = _Uploaded(job, uploads)
    verdicts = [(offer, tuple(uploaded.objections(model, offer))) for offer in model.route]
    route = uploaded.fitting_together(
        [o for o, reasons in verdicts if not reasons and o.provider in configured]
    )
    if job.problems or not route:
        told = () if route else _told(job, verdicts, configured)
        raise InputRejected((*job.problems, *told))
    picture, sound = uploaded.picture, uploaded.sound if job.of(Role.AUDIO) else None
    image, audio = job.only(Role.IMAGE), job.only(Role.AUDIO) if sound else None
    return Plan(
        job=job,
        route=tuple(_planned(job, offer) for offer in route),
        image=image,
        image_facts=picture.facts,
        audio=audio,
        audio_facts=sound.facts if sound else None,
        conform=tuple(_needs(route, (image, picture), (audio, sound))),
    )


def settle(plan: Plan, picture: Picture, sound: Sound | None) -> Plan:
    """The plan with the exact facts of the media as they will be sent.

    Offers that do not take them after all leave the route. Raises `InputRejected`, in the words of
    the original files, when none is left.
    """
    job = plan.job
    image = job.only(Role.IMAGE).key
    audio = job.only(Role.AUDIO).key if sound else ""
    verdicts: list[_Verdict] = []
    for planned in plan.route:
        offer = offer_of(planned.provider, planned.endpoint)
        reasons = list(fitting.picture_objections(image, picture, offer.image))
        needs = [(image, need) for need in fitting.picture_needs(picture, offer.image)]
        if sound and offer.audio:
            reasons += fitting.sound_objections(audio, sound, offer.audio)
            needs += [(audio, need) for need in fitting.sound_needs(sound, offer.audio)]
        reasons += [_incurable(file, need) for file, need in needs]
        verdicts.append((offer, tuple(reasons)))
    route = [offer for offer, reasons in verdicts if not reasons]
    if not route:
        raise InputRejected(_told(job, verdicts, tuple(TITLES)))
    return plan.model_copy(
        update={
            "route": tuple(_planned(job, offer) for offer in route),
            "image_facts": picture.facts,
            "audio_facts": sound.facts if sound else None,
            "conform": (),
        }
    )


def _model(job: Job) -> Model:
    if model := MODELS.get(job.model):
        return model
    near = get_close_matches(job.model.lower(), MODELS, 1, cutoff=0.5)
    named = f"Did you mean {near[0]}? " if near else ""
    reason = Reason(
        file=_any_file(job),
        rule=f"one of the models {listed(sorted(MODELS), 'and')}",
        found=f"a job for the model {job.model}, which Dropreel does not know",
        cure=f"{named}Name a known model in the job's .json file or in _defaults.json, or ask "
        "whoever runs this Dropreel to; then drop the files again.",
    )
    raise InputRejected((*job.problems, reason))


def _planned(job: Job, offer: Offer) -> PlannedOffer:
    return PlannedOffer(
        provider=offer.provider,
        endpoint=offer.endpoint,
        fields=options.fields(offer, options.asked_of(job)),
    )


def _needs(
    route: Sequence[Offer],
    picture: tuple[Input, Picture],
    sound: tuple[Input | None, Sound | None],
) -> Iterator[str]:
    image_limits, audio_limits = strictest(route)
    for need in fitting.picture_needs(picture[1], image_limits):
        yield f"{_file_name(picture[0].key)}: {need}"
    if sound[0] and sound[1] and audio_limits:
        for need in fitting.sound_needs(sound[1], audio_limits):
            yield f"{_file_name(sound[0].key)}: {need}"


# The job's files


class _Uploaded:
    """The job's media, each read once, and only when it is not too large for any use."""

    def __init__(self, job: Job, uploads: Uploads) -> None:
        self._job = job
        self._uploads = uploads
        self._asked = options.asked_of(job)

    @cached_property
    def picture(self) -> Picture:
        given = self._job.only(Role.IMAGE)
        with self._uploads.open(self._job.bucket, given) as file:
            return read_picture(file, given.size_bytes)

    @cached_property
    def sound(self) -> Sound:
        given = self._job.only(Role.AUDIO)
        with self._uploads.open(self._job.bucket, given) as file:
            return read_recording(file, given.size_bytes)

    @cached_property
    def _picture_faults(self) -> tuple[Reason, ...]:
        """What is wrong with the picture, whoever is to take it."""
        return tuple(
            self._faults(
                Role.IMAGE,
                "picture",
                "JPEG, PNG, WebP, BMP, HEIC, AVIF, TIFF or GIF",
                fitting.PICTURE_AT_MOST_BYTES,
                lambda: self.picture,
            )
        )

    @cached_property
    def _sound_faults(self) -> tuple[Reason, ...]:
        return tuple(
            self._faults(
                Role.AUDIO,
                "recording",
                "MP3, WAV, M4A, AAC, Ogg, Opus, FLAC, AIFF, WMA, WebM or the sound of a video",
                fitting.RECORDING_AT_MOST_BYTES,
                lambda: self.sound,
            )
        )

    def objections(self, model: Model, offer: Offer) -> Iterator[Reason]:
        """Why an offer cannot do the job."""
        yield from self._picture_faults
        yield from self._sound_objections(offer)
        yield from self._limit_objections([offer])
        yield from options.objections(model, offer, self._asked, self._file_of)

    def fitting_together(self, offers: Sequence[Offer]) -> list[Offer]:
        """The offers that one copy of the media can serve, the first of them before all others."""
        route: list[Offer] = []
        for offer in offers:
            image, audio = strictest([*route, offer])
            formats = image.formats and (audio is None or audio.formats)
            if formats and not any(self._limit_objections([*route, offer])):
                route.append(offer)
        return route

    def _sound_objections(self, offer: Offer) -> Iterator[Reason]:
        given = self._job.of(Role.AUDIO)
        if offer.audio is None and given:
            takers = [model.name for model in MODELS.values() if model.takes_audio]
            for one in given:
                yield Reason(
                    file=one.key,
                    rule="no recording",
                    found="a recording",
                    cure="Drop the picture and the prompt without a recording, "
                    f"or ask for the model {listed(takers, 'or')}.",
                )
        elif offer.audio and (given or offer.audio.required):
            yield from self._sound_faults

    def _limit_objections(self, offers: Sequence[Offer]) -> Iterator[Reason]:
        """What of the media no copy can make fit all of the offers."""
        image_limits, audio_limits = strictest(offers)
        if self._job.of(Role.IMAGE) and not self._picture_faults:
            key = self._job.only(Role.IMAGE).key
            yield from fitting.picture_objections(key, self.picture, image_limits)
        if audio_limits and self._job.of(Role.AUDIO) and not self._sound_faults:
            key = self._job.only(Role.AUDIO).key
            yield from fitting.sound_objections(key, self.sound, audio_limits)

    def _faults(
        self,
        role: Role,
        noun: str,
        formats: str,
        at_most_bytes: int,
        read: Callable[[], Picture | Sound],
    ) -> Iterator[Reason]:
        given = self._job.of(role)
        if not given and self._job.problems:
            return  # the file that is wrong may be the one that names it: that is answer enough
        if len(given) != 1:
            yield from _miscount(self._job, given, noun)
            return
        (one,) = given
        if one.size_bytes > at_most_bytes:
            yield Reason(
                file=one.key,
                rule=f"at most {megabytes(at_most_bytes)}",
                found=f"{megabytes(one.size_bytes)} large",
                cure=f"Export the {noun} in a smaller format, then drop it again.",
            )
            return
        try:
            read()
        except NotUsable as error:
            if error.broken:
                yield fitting.broken(one.key, noun, error.found)
                return
            yield Reason(
                file=one.key,
                rule=f"a {noun}: {formats}",
                found=error.found,
                cure=f"Open the original {noun} in an app and export it as one of these; "
                "giving the file another name does not change what it is.",
            )

    def _file_of(self, name: str) -> str:
        """The file that sets an option, or else the one that could."""
        prompts = self._job.of(Role.PROMPT) if name == options.PROMPT else ()
        nearest_first = sorted(
            self._job.of(Role.DEFAULTS), key=lambda given: len(given.key), reverse=True
        )
        given = [*prompts, *self._job.of(Role.OPTIONS), *nearest_first]
        if len(given) > 1 and not prompts:
            given = [one for one in given if name in self._document(one)] or given
        return given[0].key if given else _any_file(self._job)

    def _document(self, given: Input) -> Collection[str]:
        with self._uploads.open(self._job.bucket, given) as file:
            try:
                document = json.loads(file.read(1 << 20))
            except (ValueError, RecursionError):
                return ()
        return document if isinstance(document, dict) else ()


def _miscount(job: Job, given: Sequence[Input], noun: str) -> Iterator[Reason]:
    """A job is made of one upload of each role: what is wrong when it is not."""
    rule = f"exactly one {noun} for each video"
    if not given:
        yield Reason(
            file=_any_file(job),
            rule=rule,
            found=f"no {noun} has this name",
            cure=f"Drop a {noun} with the same name into the same folder.",
        )
    names = [_file_name(one.key) for one in given]
    for one in given:
        yield Reason(
            file=one.key,
            rule=rule,
            found=f"one of {len(given)} {noun}s with the same name: {listed(names, 'and')}",
            cure="Delete or rename all but one of them, then drop that one again.",
        )


# The refusal


def _told(
    job: Job, verdicts: Sequence[_Verdict], configured: Collection[ProviderName]
) -> tuple[Reason, ...]:
    """Every reason once, file by file: with its offer, unless all offers of the model have it."""
    model = MODELS[job.model]
    told: list[Reason] = []
    for reason in dict.fromkeys(reason for _, reasons in verdicts for reason in reasons):
        having = [offer for offer, reasons in verdicts if reason in reasons]
        if len(having) == len(model.route):
            told.append(reason)
            continue
        # What nobody can ask without a token, nobody needs to make fit.
        told.extend(
            reason.model_copy(update={"offer": _title(model, offer)})
            for offer in having
            if offer.provider in configured
        )
    places = {given.key: place for place, given in enumerate(job.inputs)}
    told.sort(key=lambda reason: places.get(reason.file, 0))
    without_token = [
        _no_token(model, offer, _any_file(job))
        for offer, reasons in verdicts
        if not reasons and offer.provider not in configured
    ]
    return (*told, *without_token)


def _title(model: Model, offer: Offer) -> str:
    """How people tell an offer from the others of its model."""
    namesakes = [other for other in model.route if other.provider == offer.provider]
    return TITLES[offer.provider] if len(namesakes) == 1 else offer.page


def _no_token(model: Model, offer: Offer, file: str) -> Reason:
    return Reason(
        file=file,
        offer=_title(model, offer),
        rule=f"a token for {TITLES[offer.provider]}",
        found="no token is stored",
        cure=f"{TITLES[offer.provider]} would take these files: ask whoever runs this Dropreel "
        "to store its token, then drop the files again.",
    )


def _incurable(file: str, need: str) -> Reason:
    return Reason(
        file=file,
        rule=need,
        found="a file that could not be made to fit",
        cure="Open the original in an app and export it anew, simpler or smaller.",
    )


def _any_file(job: Job) -> str:
    """A file to name when the fault is none's."""
    return job.inputs[0].key if job.inputs else f"{INBOX}{job.folder}{job.stem}"


def _file_name(key: str) -> str:
    return key.rpartition("/")[2]
