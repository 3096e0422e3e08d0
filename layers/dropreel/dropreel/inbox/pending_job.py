"""A job before it starts: its uploads, its settings, and what is still missing."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from dropreel.inbox.job_file import MAX_PROBLEMS, JobChoices, Parsed
from dropreel.inbox.pairing import Group, name_of
from dropreel.model.catalog import MODELS
from dropreel.model.errors import Reason
from dropreel.model.job import Input, Job, Role, job_id
from dropreel.model.uploads import ObjectVersion

# Hundreds of files can share a stem (`.png`, `.Png`, ...). A job carries this many of each role, to
# stay within the limits of Step Functions and EventBridge.
MAX_NAMED = 10

_MEDIA = (Role.IMAGE, Role.AUDIO)


@dataclass(frozen=True)
class PendingJob:
    """What intake knows about a job at one moment."""

    bucket: str
    group: Group
    own: Parsed
    """From the job's own `.json` and `.txt`."""
    inherited: Parsed
    """From the `_defaults.json` files of its folders."""
    defaults: tuple[ObjectVersion, ...]
    """Those `_defaults.json` files, the nearest first."""
    found: dict[str, ObjectVersion]
    """By key: the existing files that `own` or `inherited` names."""
    deployed_model: str

    @cached_property
    def choices(self) -> JobChoices:
        """The job's own files win over the defaults, and those over the stack's parameters."""
        return self.own.choices.over(self.inherited.choices).over(
            JobChoices(model=self.deployed_model)
        )

    @property
    def model(self) -> str:
        return self.choices.model or self.deployed_model

    @cached_property
    def problems(self) -> tuple[Reason, ...]:
        """What is wrong with the names and the settings; prepare refuses the job for it."""
        return (
            *self.unusable_pictures(),
            *self.own.problems,
            *self._rivalries(),
            *self.inherited.problems,
        )[:MAX_PROBLEMS]

    @property
    def awaited(self) -> dict[Role, str]:
        """The keys of named files that do not exist yet."""
        return {
            role: key for role in _MEDIA if (key := self._named(role)) and key not in self.found
        }

    @property
    def missing(self) -> tuple[Role, ...]:
        """What the job waits for: what its model needs, and the files that it names."""
        model = MODELS[self.model]
        needed = {
            Role.IMAGE: True,
            Role.AUDIO: model.needs_audio or Role.AUDIO in self.awaited,
            Role.PROMPT: model.needs_prompt,
        }
        there = {
            Role.IMAGE: bool(self.of(Role.IMAGE)),
            Role.AUDIO: bool(self.of(Role.AUDIO)),
            Role.PROMPT: self.choices.prompt is not None,
        }
        return tuple(role for role, is_needed in needed.items() if is_needed and not there[role])

    @property
    def is_ready(self) -> bool:
        """Whether it need not wait: it is complete, or prepare will refuse it in any case.

        A usable picture may follow an unusable one: cameras write both.
        """
        crowded = any(len(self.of(role)) > 1 for role in _MEDIA)
        is_refused = len(self.problems) > len(tuple(self.unusable_pictures()))
        return bool(self.group.own) and (is_refused or crowded or not self.missing)

    def of(self, role: Role) -> tuple[ObjectVersion, ...]:
        """The job's uploads of a role."""
        if role is Role.DEFAULTS:
            return self.defaults
        if key := self._named(role):
            return (self.found[key],) if key in self.found else ()
        return self.group.of(role)

    def job(self) -> Job:
        """The job, with each upload pinned to its version."""
        inputs = tuple(
            pinned(role, upload) for role in Role for upload in self.of(role)[:MAX_NAMED]
        )
        rivals = tuple(pinned(role, upload) for role in _MEDIA for upload in self._rivals(role))
        return Job(
            id=job_id(self.group.stem, self.model, inputs + rivals),
            bucket=self.bucket,
            folder=self.group.folder,
            stem=self.group.stem,
            model=self.model,
            prompt=self.choices.prompt,
            options=self.choices.options,
            inputs=inputs,
            problems=self.problems,
        )

    def _named(self, role: Role) -> str | None:
        """The key in the job's own file; if no upload has the job's name, the key in the
        defaults (an avatar's face)."""
        own = self.own.choices.files.get(role)
        return own or (
            None if self.group.meant_as(role) else self.inherited.choices.files.get(role)
        )

    def _rivals(self, role: Role) -> tuple[ObjectVersion, ...]:
        """Uploads with the job's name, although its own file names another file."""
        named = self.own.choices.files.get(role)
        return tuple(
            upload for upload in self.group.meant_as(role) if named and upload.key != named
        )

    def unusable_pictures(self) -> Iterator[Reason]:
        for upload in self.of(Role.IMAGE)[:1]:
            if (name := name_of(upload.key)) and (kind := name.unusable_as):
                drop = f"drop {name.stem}.jpg or {name.stem}.png"
                then = "name the new file instead" if self._named(Role.IMAGE) else drop
                yield Reason(
                    file=upload.key,
                    rule="a picture that Dropreel can read, such as JPEG or PNG",
                    found=f"{kind} (.{name.ending})",
                    cure=f"Export it as JPEG or PNG, and {then}.",
                )

    def _rivalries(self) -> Iterator[Reason]:
        for role, noun in ((Role.IMAGE, "picture"), (Role.AUDIO, "recording")):
            for rival in self._rivals(role)[:1]:
                options = self.group.of(Role.OPTIONS)[0].key
                named = self.own.choices.files[role]
                yield Reason(
                    file=rival.key,
                    rule=f"one {noun}: either {named}, which {options} names, or {rival.key}",
                    found=f"a second {noun}",
                    cure=f'Delete {rival.key}, or remove "{role}" from {options}. '
                    f"Then drop {options} again.",
                )


def pinned(role: Role, upload: ObjectVersion) -> Input:
    """The upload as a job's input, pinned to its version."""
    return Input(
        role=role,
        key=upload.key,
        version_id=upload.version_id,
        size_bytes=upload.size_bytes,
        etag=upload.etag or None,
    )
