"""The notice of an event: a subject and a text that a person reads in a mail."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, Field

from dropreel.model.errors import Reason
from dropreel.model.events import (
    DeliveredVideo,
    StoredFile,
    UploadIncomplete,
    VideoFailed,
    VideoReady,
)
from dropreel.model.harmless import harmless
from dropreel.runtime.log import job_keys

# SNS's pages differ: "ASCII" in the older ones, "UTF-8" in the newer. Both say: fewer than 100
# characters, no line break and no control character.
MAX_SUBJECT_CHARACTERS = 99
MAX_TEXT_BYTES = 262_144
_MAX_LISTED = 20

_CONSOLES = {"cn": "console.amazonaws.cn", "us-gov": "console.amazonaws-us-gov.com"}


class AnnouncedEvent(BaseModel):
    """An event on the bus that people get a notice of."""

    region: str = Field(pattern="^[a-z0-9-]+$")
    detail: VideoReady | VideoFailed | UploadIncomplete

    @property
    def log_keys(self) -> dict[str, object]:
        """Names the job in a log line; an incomplete one has no id."""
        if isinstance(self.detail, UploadIncomplete):
            return {"folder": self.detail.job.folder, "stem": self.detail.job.stem}
        return job_keys(self.detail.job)


class Notice(NamedTuple):
    subject: str
    """At most 99 printable ASCII characters."""
    text: str
    """At most 256 KB of UTF-8. It names files as they are, with control characters spelled out."""


def notice_of(event: AnnouncedEvent) -> Notice:
    match event.detail:
        case VideoReady() as ready:
            return Notice(
                _subject("Video ready", ready.job.folder, ready.job.stem, ready.job.id),
                _text(_of_ready(ready, event.region)),
            )
        case VideoFailed() as failed:
            return Notice(
                _subject("Video failed", failed.job.folder, failed.job.stem, failed.job.id),
                _text(_of_failed(failed, event.region)),
            )
        case UploadIncomplete() as incomplete:
            return Notice(
                _subject("Upload incomplete", incomplete.job.folder, incomplete.job.stem),
                _text(_of_incomplete(incomplete, event.region)),
            )


def _of_ready(ready: VideoReady, region: str) -> Iterator[str]:
    video, cost = ready.video, _usd(ready.estimated_usd)
    yield f"The video of {_name(ready)} is ready."
    yield _place(video, region)
    yield _list("Look at it before you use it:", map(_sentences, ready.warnings))
    if video.nsfw:
        yield "The provider's detector says that it may be unsafe to show."
    yield _list("Changed in the copies that the provider got:", map(_sentences, ready.changes))
    yield _list(
        "Not used, because Dropreel does not know the ending:", map(harmless, ready.ignored)
    )
    if ready.actual_usd is not None:
        cost = f"{_usd(ready.actual_usd)}, as the provider says (estimated: {cost})"
    elif ready.estimated_usd is not None:
        cost = f"{cost}, estimated"
    length = "" if video.duration_seconds is None else f"{video.duration_seconds:.1f} seconds, "
    yield _lines(
        f"Video: {length}{video.width} x {video.height} pixels, {_megabytes(video.size_bytes)}",
        f"Cost: {cost}",
        *_job(ready),
    )


def _of_failed(failed: VideoFailed, region: str) -> Iterator[str]:
    error, cost = failed.error, _usd(failed.estimated_usd)
    yield f"The video of {_name(failed)} could not be made."
    yield f"What is wrong: {_sentences(error.message)}"
    match error.reasons:
        case [Reason(cure=cure)]:  # the message has the rest of it
            yield f"What to do: {_sentences(f'{cure} {error.advice}')}"
        case _:
            yield _list("All reasons:", map(_reason, error.reasons))
            yield f"What to do: {_sentences(error.advice)}"
    if failed.error_file:
        yield f"The same is in the error file:\n{_place(failed.error_file, region)}"
    if failed.older_video:
        yield f"An older video has this name:\n{_place(failed.older_video, region)}"
    if failed.estimated_usd:
        cost = f"perhaps {cost}: the provider may have been paid"
    yield _lines(f"Error: {error.code}", f"Cost: {cost}", *_job(failed))


def _of_incomplete(incomplete: UploadIncomplete, region: str) -> Iterator[str]:
    yield f"A file of {_name(incomplete)} is missing. No video is made."
    yield f"What is wrong, and what to do: {_sentences(incomplete.message)}"
    yield _list("What is there:", (_s3(one.bucket, one.key) for one in incomplete.uploads))
    yield f"The same is in the error file:\n{_place(incomplete.error_file, region)}"
    if incomplete.older_video:
        yield f"An older video has this name:\n{_place(incomplete.older_video, region)}"
    yield "Cost: nothing"


# Parts of the text


def _text(paragraphs: Iterable[str]) -> str:
    text = "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"
    return text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")


def _lines(*lines: str) -> str:
    return "\n".join(lines)


def _name(about: VideoReady | VideoFailed | UploadIncomplete) -> str:
    return f'"{harmless(about.job.folder + about.job.stem)}"'


def _job(about: VideoReady | VideoFailed) -> Iterator[str]:
    run = f", run {about.job.run}" if about.job.run > 1 else ""
    yield f"Job: {about.job.id}{run}"


def _place(file: StoredFile | DeliveredVideo, region: str) -> str:
    """The address, and the link for who is signed in at the console. It grants nothing."""
    return _lines(_s3(file.bucket, file.key), object_link(region, file.bucket, file.key))


def _s3(bucket: str, key: str) -> str:
    return harmless(f"s3://{bucket}/{key}")


def object_link(region: str, bucket: str, key: str) -> str:
    """A file's page in the S3 console of the region's partition."""
    partition = next((one for one in _CONSOLES if region.startswith(f"{one}-")), "")
    host = _CONSOLES.get(partition, f"{region}.console.aws.amazon.com")
    return f"https://{host}/s3/object/{quote(bucket)}?region={region}&prefix={quote(key, safe='')}"


def _list(title: str, points: Iterable[str]) -> str:
    """A title with one line for each point; empty without points."""
    shown = [f"- {point}" for point in points]
    if more := len(shown) - _MAX_LISTED:
        shown[_MAX_LISTED:] = [f"- and {more} more"] if more > 0 else []
    return _lines(title, *shown) if shown else ""


def _reason(reason: Reason) -> str:
    rule = f"{reason.offer} needs {reason.rule}" if reason.offer else f"needed: {reason.rule}"
    return f"{harmless(reason.file)}: " + _sentences(f"{reason.found}; {rule}. {reason.cure}")


def _sentences(text: str) -> str:
    """On one line: nobody's words look like lines of ours."""
    return harmless(" ".join(text.split()))


def _usd(usd: float | None) -> str:
    if usd is None:
        return "not known"
    return f"${usd:.2f}" if usd >= 0.005 else "nothing" if not usd else "less than a cent"


def _megabytes(size_bytes: int) -> str:
    return f"{max(size_bytes / 1e6, 0.1):.1f} MB"


# The subject


def _subject(state: str, folder: str, stem: str, job_id: str | None = None) -> str:
    """The end of a name says more than its folders, so a long one loses its beginning."""
    name = _ascii(folder + stem) if any(map(str.isalnum, _ascii(stem))) else job_id or "see below"
    room = MAX_SUBJECT_CHARACTERS - len(f"{state}: ")
    if len(name) > room:
        name = f"...{name[-(room - 3) :]}"
    return f"{state}: {name}"


def _ascii(name: str) -> str:
    """Letters without their accents. What has no such form is one `?` for all in a row; what
    nobody sees is left out."""
    shown: Sequence[str] = [
        one if one.isascii() else "?"
        for one in unicodedata.normalize("NFKD", name)
        if unicodedata.category(one) not in {"Mn", "Me", "Cc", "Cf"}
    ]
    return "".join(
        one for one, before in zip(shown, ["", *shown], strict=False) if (one, before) != ("?", "?")
    )
