"""A job in the making: its uploads, what is said about it, and what it still waits for."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from dropreel.inbox.job_file import MAX_PROBLEMS, JobChoices, Parsed
from dropreel.inbox.pairing import Group
from dropreel.model.catalog import MODELS
from dropreel.model.errors import Reason
from dropreel.model.job import Input, Job, Role, job_id
from dropreel.model.uploads import ObjectVersion

# Names spell an ending in upper and lower case, so hundreds of files can share a stem. A refusal
# names this many of a role; the job stays within what Step Functions and EventBridge carry.
MAX_NAMED = 10

_MEDIA = (Role.IMAGE, Role.AUDIO)


@dataclass(frozen=True)
class PendingJob:
    """What intake knows of a job at one moment."""

    bucket: str
    group: Group
    own: Parsed
    """What the job's own files say."""
    inherited: Parsed
    """What its folders' defaults say."""
    defaults: tuple[ObjectVersion, ...]
    """The files that say it, the nearest first."""
    found: dict[str, ObjectVersion]
    """What lies at the keys that the own files or the defaults name."""
    deployed_model: str

    @cached_property
    def choices(self) -> JobChoices:
        """The job's own files beat the defaults, deploy-time parameters come last."""
        return self.own.choices.over(self.inherited.choices).over(
            JobChoices(model=self.deployed_model)
        )

    @property
    def model(self) -> str:
        return self.choices.model or self.deployed_model

    @cached_property
    def problems(self) -> tuple[Reason, ...]:
        """What is wrong with what is said; validate refuses the job with it."""
        return (*self.own.problems, *self._rivalries(), *self.inherited.problems)[:MAX_PROBLEMS]

    @property
    def awaited(self) -> dict[Role, str]:
        """The keys that are named and hold nothing yet."""
        return {
            role: key for role in _MEDIA if (key := self._named(role)) and key not in self.found
        }

    @property
    def missing(self) -> tuple[Role, ...]:
        """What the job waits for: what its model needs, and what its own file names."""
        model = MODELS.get(self.model)  # None: validate says what the owner has to mend
        needed = {
            Role.IMAGE: True,
            Role.AUDIO: not model or model.needs_audio or Role.AUDIO in self.awaited,
            Role.PROMPT: bool(model and model.needs_prompt),
        }
        there = {
            Role.IMAGE: bool(self.of(Role.IMAGE)),
            Role.AUDIO: bool(self.of(Role.AUDIO)),
            Role.PROMPT: self.choices.prompt is not None,
        }
        return tuple(role for role, is_needed in needed.items() if is_needed and not there[role])

    @property
    def is_ready(self) -> bool:
        """Whether waiting cannot make it better: it is complete, or validate will refuse it
        whatever else comes."""
        crowded = any(len(self.of(role)) > 1 for role in _MEDIA)
        return bool(self.group.own) and (bool(self.problems) or crowded or not self.missing)

    def of(self, role: Role) -> tuple[ObjectVersion, ...]:
        """The uploads that are this to the job."""
        if role is Role.DEFAULTS:
            return self.defaults
        if key := self._named(role):
            return (self.found[key],) if key in self.found else ()
        return self.group.of(role)

    def job(self) -> Job:
        """The job, each upload pinned to its version."""
        inputs = tuple(
            _pinned(role, upload) for role in Role for upload in self.of(role)[:MAX_NAMED]
        )
        rivals = tuple(_pinned(role, upload) for role in _MEDIA for upload in self._rivals(role))
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
        """The key that the job's own file names, or, for want of a file of the job's name, the
        defaults: an avatar's face."""
        own = self.own.choices.files.get(role)
        return own or (None if self.group.of(role) else self.inherited.choices.files.get(role))

    def _rivals(self, role: Role) -> tuple[ObjectVersion, ...]:
        """Uploads of the job's name, while its own file names another one."""
        named = self.own.choices.files.get(role)
        return tuple(upload for upload in self.group.of(role) if named and upload.key != named)

    def _rivalries(self) -> Iterator[Reason]:
        for role in _MEDIA:
            for rival in self._rivals(role)[:1]:
                says = self.group.of(Role.OPTIONS)[0].key
                yield Reason(
                    file=rival.key,
                    rule=f"one {_WORDS[role]}: the one that {says} names, "
                    f"{self.own.choices.files[role]}, or one of the job's name beside it",
                    found=f"another {_WORDS[role]} beside it",
                    cure=f'Delete {rival.key}, or take "{role}" out of {says}; '
                    f"then drop {says} again.",
                )


_WORDS = {Role.IMAGE: "picture", Role.AUDIO: "recording"}


def _pinned(role: Role, upload: ObjectVersion) -> Input:
    return Input(
        role=role, key=upload.key, version_id=upload.version_id, size_bytes=upload.size_bytes
    )
