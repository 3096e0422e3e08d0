"""The sweep's way through the inbox, in the intake function: message by message, it has intake look
at each upload that was never answered, because its event was lost, or the rule was off, or it is
older than Dropreel.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from pydantic import BaseModel

from dropreel.inbox.messages import SeenUpload, Sweep
from dropreel.inbox.pairing import name_of
from dropreel.model.job import INBOX
from dropreel.model.uploads import Page, WrittenObject
from dropreel.runtime.log import logger

SWEEP_UPLOADS_PER_MINUTE = 120
"""Two a second leave the intake function time for what people drop meanwhile; 170,000 uploads still
fit into the day between two sweeps. More jobs would only wait for their slots."""

REST_SECONDS = 10
"""Before a look, as `SettleSeconds` before that of an event (5): what is being replaced is looked
at by its own event first."""

_ASKED_AT_ONCE = 100  # as DynamoDB reads them


class Inbox(Protocol):
    def page(self, bucket: str, prefix: str, after: str | None) -> Page: ...


class Notes(Protocol):
    """What intake noted of uploads."""

    def unanswered(
        self, bucket: str, pins: Iterable[tuple[str, str]]
    ) -> frozenset[tuple[str, str]]:
        """Those keys and version ids that intake made no job of and said nothing about."""


class Queue(Protocol):
    """Intake's queue."""

    def send(self, message: BaseModel, delay_seconds: int) -> None: ...


@dataclass(frozen=True)
class InboxSweep:
    """Goes through the inbox at a bounded pace, a message of intake's queue at a time.

    A message that comes twice makes two sweeps of one from there on; what they send, intake answers
    once.
    """

    inbox: Inbox
    notes: Notes
    queue: Queue
    upload_bucket: str

    def go_on(self, sweep: Sweep) -> None:
        """Send a sighting of each upload that was not answered, then the message for the rest."""
        mark = sweep.sweep
        bucket = mark.bucket or self.upload_bucket
        page = self.inbox.page(bucket, INBOX, mark.after)
        wanted = [upload for upload in page.objects if name_of(upload.key)]
        found = list(islice(self._unanswered(bucket, wanted), SWEEP_UPLOADS_PER_MINUTE))
        for number, upload in enumerate(found):
            seen_upload = SeenUpload(
                bucket=bucket,
                key=upload.key,
                version_id=upload.version_id,
                first_seen=upload.written_at,
                swept=True,
            )
            self.queue.send(seen_upload, REST_SECONDS + math.floor(_seconds_for(number)))
        is_cut = len(found) == SWEEP_UPLOADS_PER_MINUTE
        after = found[-1].key if is_cut else page.goes_on_after
        if after is not None:
            on = Sweep(sweep=mark.model_copy(update={"after": after}))
            self.queue.send(on, max(math.ceil(_seconds_for(len(found))), 1))
        logger.info(
            "Swept a part of the inbox",
            listed=len(page.objects),
            unanswered=len(found),
            is_over=after is None,
        )

    def _unanswered(self, bucket: str, uploads: Sequence[WrittenObject]) -> Iterator[WrittenObject]:
        for first in range(0, len(uploads), _ASKED_AT_ONCE):
            some = uploads[first : first + _ASKED_AT_ONCE]
            left = self.notes.unanswered(bucket, [(one.key, one.version_id) for one in some])
            yield from (one for one in some if (one.key, one.version_id) in left)


def _seconds_for(uploads: int) -> float:
    return uploads * 60 / SWEEP_UPLOADS_PER_MINUTE
