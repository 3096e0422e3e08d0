"""A job before it starts: its uploads, its settings, and what is still missing."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from dropreel.inbox.documents import Read, pinned
from dropreel.inbox.job_file import MAX_PROBLEMS, JobChoices
from dropreel.inbox.pairing import MAX_FOLDERS, Group, Name, as_seen, name_of
from dropreel.model.catalog import MODELS
from dropreel.model.errors import Reason
from dropreel.model.job import INBOX, Job, Role, job_id
from dropreel.model.uploads import ObjectVersion

# Hundreds of files can share a stem (`.png`, `.Png`, ...). A job carries this many of each role, to
# stay within the limits of Step Functions and EventBridge. It carries all defaults: one that it
# left out could change unseen.
MAX_NAMED = 10

MAX_IGNORED = 20  # so many unknown endings can share a stem: `shot.0001`, `shot.0002`

_MEDIA = (Role.IMAGE, Role.AUDIO)


@dataclass(frozen=True)
class PendingJob:
    """What intake knows about a job at one moment."""

    bucket: str
    name: Name
    group: Group
    own: Read
    """The job's own `.json` and `.txt`."""
    inherited: Read
    """The `_defaults.json` files of its folders."""
    found: dict[str, ObjectVersion]
    """By key: the existing files that `own` or `inherited` names."""
    deployed_model: str
    is_versioned: bool = True
    """Whether the bucket is. If not, Prepare refuses the job."""

    @cached_property
    def choices(self) -> JobChoices:
        """The job's own files win over the defaults, and those over the stack's parameters."""
        own, inherited = self.own.parsed.choices, self.inherited.parsed.choices
        return own.over(inherited).over(JobChoices(model=self.deployed_model))

    @property
    def model(self) -> str:
        return self.choices.model or self.deployed_model

    @cached_property
    def problems(self) -> tuple[Reason, ...]:
        """What is wrong with the names and the settings; prepare refuses the job for it."""
        return (
            *self._bad_names(),
            *self.unusable_pictures(),
            *self.own.parsed.problems,
            *self._rivalries(),
            *self.inherited.parsed.problems,
        )[:MAX_PROBLEMS]

    @property
    def awaited(self) -> dict[Role, str]:
        """The keys of named files that do not exist yet."""
        return {
            role: key for role in _MEDIA if (key := self._named(role)) and key not in self.found
        }

    @property
    def missing(self) -> tuple[Role, ...]:
        """What the job waits for: what its model needs, the files that it names, and what the
        folder says in `wait_for`."""
        model, awaited = MODELS[self.model], self.choices.wait_for or ()
        needed = {
            Role.IMAGE: True,
            Role.AUDIO: model.needs_audio
            or Role.AUDIO in self.awaited
            or (model.takes_audio and Role.AUDIO in awaited),
            Role.PROMPT: model.needs_prompt or Role.PROMPT in awaited,
            Role.OPTIONS: Role.OPTIONS in awaited,
        }
        prompt = self.own.parsed.choices if Role.PROMPT in awaited else self.choices
        there = {
            Role.IMAGE: bool(self.of(Role.IMAGE)),
            Role.AUDIO: bool(self.of(Role.AUDIO)),
            Role.PROMPT: prompt.prompt is not None,
            Role.OPTIONS: bool(self.of(Role.OPTIONS)),
        }
        return tuple(role for role, is_needed in needed.items() if is_needed and not there[role])

    @property
    def uploads(self) -> tuple[ObjectVersion, ...]:
        """All that the job is made of now."""
        return (*(one for role in Role for one in self.of(role)), *self.group.own)

    @property
    def empty(self) -> tuple[ObjectVersion, ...]:
        """Uploads that are still on their way: gateways and copy tools write 0 bytes first."""
        return tuple(one for one in dict.fromkeys(self.uploads) if one.size_bytes == 0)

    @property
    def is_ready(self) -> bool:
        """Whether it need not wait for files: it is complete, or it will be refused in any case.

        A usable picture may follow an unusable one: cameras write both.
        """
        crowded = any(len(self.of(role)) > 1 for role in _MEDIA)
        is_refused = len(self.problems) > len(tuple(self.unusable_pictures()))
        is_decided = is_refused or crowded or not self.missing or not self.is_versioned
        return bool(self.group.own) and not self.empty and is_decided

    def of(self, role: Role) -> tuple[ObjectVersion, ...]:
        """The job's uploads of a role."""
        if role is Role.DEFAULTS:
            return self.inherited.uploads
        if key := self._named(role):
            return (self.found[key],) if key in self.found else ()
        return self.group.of(role)

    def job(self) -> Job:
        """The job, with each upload pinned to its version."""
        sha256 = {**self.own.sha256, **self.inherited.sha256}
        inputs = tuple(
            pinned(role, upload, sha256.get(upload.key))
            for role in Role
            for upload in self.of(role)[: None if role is Role.DEFAULTS else MAX_NAMED]
        )
        rivals = tuple(pinned(role, upload) for role in _MEDIA for upload in self._rivals(role))
        dry_run = bool(self.choices.dry_run)
        return Job(
            id=job_id(self.group.stem, self.model, inputs + rivals, dry_run=dry_run),
            bucket=self.bucket,
            folder=self.group.folder,
            stem=self.group.stem,
            model=self.model,
            prompt=self.choices.prompt,
            options=self.choices.options,
            labels=self.choices.labels,
            dry_run=dry_run,
            inputs=inputs,
            ignored=tuple(one.key for one in self.group.of(None)[:MAX_IGNORED]),
            problems=self.problems,
        )

    def _named(self, role: Role) -> str | None:
        """The key in the job's own file; if no upload has the job's name, the key in the
        defaults (an avatar's face)."""
        own = self.own.parsed.choices.files.get(role)
        inherited = self.inherited.parsed.choices.files.get(role)
        return own or (None if self.group.meant_as(role) else inherited)

    def _rivals(self, role: Role) -> tuple[ObjectVersion, ...]:
        """Uploads with the job's name, although its own file names another file."""
        named = self.own.parsed.choices.files.get(role)
        return tuple(
            upload
            for upload in self.group.meant_as(role)
            if named and as_seen(upload.key) != as_seen(named)
        )

    def _bad_names(self) -> Iterator[Reason]:
        if self.name.is_too_deep:
            yield Reason(
                file=self.name.key,
                rule=f"at most {MAX_FOLDERS} folders below {INBOX}",
                found=f"{self.name.folder.count('/')} folders",
                cure=f"Drop the files into a folder that is at most {MAX_FOLDERS} deep.",
            )
        if any(unicodedata.category(one) == "Cc" for one in self.name.key):
            yield Reason(
                file=self.name.key,
                rule="a name that people can see",
                found="a name with control characters, such as line breaks",
                cure="Give the file and its folders another name, and drop it under that name.",
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
                options = " or ".join(one.key for one in self.group.of(Role.OPTIONS))
                named = self.own.parsed.choices.files[role]
                use_rival = f'remove "{role}" from {options}, and drop that file again'
                if named in self.found:
                    yield Reason(
                        file=rival.key,
                        rule=f"one {noun}: either {named}, which {options} names, or {rival.key}",
                        found=f"a second {noun}",
                        cure=f"To use {rival.key}, {use_rival}. To use {named}, delete {rival.key} "
                        f"and drop {options} again.",
                    )
                else:
                    yield Reason(
                        file=self.group.of(Role.OPTIONS)[0].key,
                        rule=f'"{role}" as a {noun} that is there',
                        found=f"{named} is not there",
                        cure=f"To use {rival.key}, {use_rival}. To use another {noun}, write the "
                        f"path of one that is there, and delete {rival.key}.",
                    )
