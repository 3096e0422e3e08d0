"""Validate: what the files really are, against what the offers of the model take.

Spends no money. A refusal lists every rule that is broken, in the words of someone who has
pictures and recordings, not codecs.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import ceil
from typing import ClassVar, Final, Protocol

from dropreel import media
from dropreel.catalog import MODELS, AudioFormat, AudioLimits, ImageFormat, ImageLimits, Offer
from dropreel.errors import InputRejected, Reason
from dropreel.job import INBOX, Input, Job, Role
from dropreel.render import AudioFacts, ImageFacts, Plan


class Uploads(Protocol):
    """The upload bucket, as far as validation needs it."""

    def read(self, bucket: str, pinned: Input) -> bytes:
        """All bytes of the pinned version. Raises `InputGone`."""


def plan(job: Job, uploads: Uploads) -> Plan:
    """Pick the first offer of the job's model that takes every input.

    Raises `InputRejected` with the reasons of every offer when none does, and `InputGone`.
    """
    picture, voice = _Picture(job, uploads), _Voice(job, uploads)
    refused: list[Reason] = []
    for offer in _route(job):
        reasons = [*picture.objections(offer.image), *voice.objections(offer.audio)]
        if not reasons:
            return _planned(job, offer, picture.facts, voice.recording.facts)
        refused.extend(reasons)
    raise InputRejected(tuple(dict.fromkeys(refused)))


def _planned(job: Job, offer: Offer, image: ImageFacts, audio: AudioFacts) -> Plan:
    per_second = offer.usd_per_second
    return Plan(
        job=job,
        provider=offer.provider,
        endpoint=offer.endpoint,
        image=image,
        audio=audio,
        estimated_usd=None if per_second is None else round(per_second * audio.duration_seconds, 4),
    )


def _route(job: Job) -> Sequence[Offer]:
    if model := MODELS.get(job.model):
        return model.route
    reason = Reason(
        file=_any_file(job),
        rule=f"one of the models {_listed(sorted(MODELS), 'and')}",
        found=f"a job for the model {job.model}, which Dropreel does not know",
        cure="Ask whoever runs this Dropreel to set its model to one that it knows, "
        "then drop the files again.",
    )
    raise InputRejected((reason,))


class _Upload:
    """The job's upload of one role, read once, and only when something allows its size."""

    role: ClassVar[Role]
    noun: ClassVar[str]

    def __init__(self, job: Job, uploads: Uploads) -> None:
        self._job = job
        self._uploads = uploads
        self._offered = [given for given in job.inputs if given.role is self.role]

    @property
    def only(self) -> Input:
        return self._job.only(self.role)

    @cached_property
    def content(self) -> bytes:
        return self._uploads.read(self._job.bucket, self.only)

    def miscount(self) -> Iterator[Reason]:
        """A job is made of one upload of each role: what is wrong when it is not."""
        rule = f"exactly one {self.noun} for each video"
        if not self._offered:
            yield Reason(
                file=_any_file(self._job),
                rule=rule,
                found=f"no {self.noun} has this name",
                cure=f"Drop a {self.noun} with the same name into the same folder.",
            )
        if len(self._offered) > 1:
            names = _listed([given.key.rpartition("/")[2] for given in self._offered], "and")
            found = f"one of {len(self._offered)} {self.noun}s with the same name: {names}"
            cure = "Delete or rename all but one of them, then drop that one again."
            for given in self._offered:
                yield Reason(file=given.key, rule=rule, found=found, cure=cure)

    def reason(self, rule: str, found: str, cure: str) -> Reason:
        return Reason(file=self.only.key, rule=rule, found=found, cure=cure)

    def not_taken(self, formats: Sequence[str], found: str) -> Reason:
        listed = _listed(formats, "or")
        return self.reason(
            rule=f"a {self.noun} in the format {listed}",
            found=found,
            cure=f"Open the original {self.noun} in an app and export it as {listed}; "
            "giving the file another name does not change what it is.",
        )

    def broken(self, found: str) -> Reason:
        return self.reason(
            rule=f"a complete, undamaged {self.noun}",
            found=found,
            cure="Upload the file again from the original; if that does not help, "
            f"open the {self.noun} in an app and export it anew.",
        )


class _Picture(_Upload):
    role = Role.IMAGE
    noun = "picture"

    @cached_property
    def facts(self) -> ImageFacts:
        return media.image_facts(self.content)

    @cached_property
    def damage(self) -> str | None:
        return media.image_damage(self.content, self.facts)

    def objections(self, limits: ImageLimits) -> Iterator[Reason]:
        """Why an offer would not take the picture. Decodes nothing that is too large for it."""
        if len(self._offered) != 1:
            yield from self.miscount()
            return
        if self.only.size_bytes > limits.size_at_most_bytes:
            yield self.reason(
                rule=f"at most {_megabytes(limits.size_at_most_bytes)}",
                found=f"{_megabytes(self.only.size_bytes)} large",
                cure="Export the picture as a JPEG of good quality, which is much smaller.",
            )
            return
        formats = [_FORMAT_NAMES[taken] for taken in limits.formats]
        try:
            facts = self.facts
        except media.NotUsable as error:
            found = error.found
            yield self.broken(found) if error.broken else self.not_taken(formats, found)
            return
        if facts.format not in limits.formats:
            yield self.not_taken(formats, media.name_of(facts.format))
        yield from self._side_objections(facts.width, "wide", limits)
        yield from self._side_objections(facts.height, "high", limits)
        if max(facts.width, facts.height) < limits.side_under_pixels and self.damage:
            yield self.broken(self.damage)

    def _side_objections(self, pixels: int, way: str, limits: ImageLimits) -> Iterator[Reason]:
        smallest, largest = limits.side_over_pixels + 1, limits.side_under_pixels - 1
        if pixels < smallest:
            yield self.reason(
                rule=f"more than {limits.side_over_pixels} pixels {way}",
                found=f"{pixels} pixels {way}",
                cure=f"Use a larger picture: at least {smallest} x {smallest} pixels.",
            )
        if pixels > largest:
            yield self.reason(
                rule=f"fewer than {limits.side_under_pixels} pixels {way}",
                found=f"{pixels} pixels {way}",
                cure=f"Scale the picture down: at most {largest} x {largest} pixels.",
            )


class _Voice(_Upload):
    role = Role.AUDIO
    noun = "recording"

    @cached_property
    def recording(self) -> media.Recording:
        return media.audio_facts(self.content)

    def objections(self, limits: AudioLimits) -> Iterator[Reason]:
        """Why an offer would not take the recording."""
        if len(self._offered) != 1:
            yield from self.miscount()
            return
        if self.only.size_bytes >= limits.size_under_bytes:
            yield self.reason(
                rule=f"less than {_megabytes(limits.size_under_bytes)}",
                found=f"{_megabytes(self.only.size_bytes)} large",
                cure="Export the recording as an MP3, which is much smaller, "
                f"and keep it shorter than {limits.duration_under_seconds:g} seconds.",
            )
            return
        formats = [_FORMAT_NAMES[taken] for taken in limits.formats]
        try:
            recording = self.recording
        except media.NotUsable as error:
            found = error.found
            yield self.broken(found) if error.broken else self.not_taken(formats, found)
            return
        facts = recording.facts
        if facts.format not in limits.formats:
            yield self.not_taken(formats, media.name_of(facts.format))
        if facts.duration_seconds >= limits.duration_under_seconds:
            yield self.reason(
                rule=f"shorter than {limits.duration_under_seconds:g} seconds",
                found=f"{_duration(facts.duration_seconds)} long",
                cure=f"Cut the recording to less than {limits.duration_under_seconds:g} seconds.",
            )
        if recording.damage:
            yield self.broken(recording.damage)


_FORMAT_NAMES: Final[dict[ImageFormat | AudioFormat, str]] = {
    ImageFormat.JPEG: "JPEG (jpg)",
    ImageFormat.PNG: "PNG",
    ImageFormat.BMP: "BMP",
    ImageFormat.WEBP: "WebP",
    AudioFormat.WAV: "WAV",
    AudioFormat.MP3: "MP3",
}


def _any_file(job: Job) -> str:
    """A file to name when the fault is none's."""
    return job.inputs[0].key if job.inputs else f"{INBOX}{job.folder}{job.stem}"


def _listed(words: Sequence[str], last: str) -> str:
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _megabytes(size_bytes: int) -> str:
    """Rounded up, so that what is just over a limit never reads like the limit itself."""
    return f"{ceil(size_bytes / 100_000) / 10:g} MB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} seconds"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} minutes {rest} seconds"
