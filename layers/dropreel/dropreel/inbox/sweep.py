"""The sweep of the inbox, in the intake function: it sends intake each upload that was never
answered, because its event was lost, or the rule was off, or it is older than Dropreel.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol

from dropreel.inbox.messages import MessageQueue, SeenUpload, Sweep
from dropreel.inbox.pairing import name_of
from dropreel.model.job import INBOX
from dropreel.model.uploads import ObjectVersion, Page
from dropreel.runtime.log import logger

SWEEP_UPLOADS_PER_MINUTE = 120
"""Leaves the intake function time for new drops; 170,000 uploads fit into a day. More jobs a minute
would only wait for their slots."""

_BATCH = 100  # DynamoDB's BatchGetItem


class Inbox(Protocol):
    def page(self, bucket: str, prefix: str, after: str | None) -> Page: ...


class Notes(Protocol):
    def unanswered(
        self, bucket: str, pins: Iterable[tuple[str, str]]
    ) -> frozenset[tuple[str, str]]:
        """Those keys and version ids that have no job and no answer."""


@dataclass(frozen=True)
class InboxSweep:
    """Goes through the inbox at a bounded pace, one message of intake's queue at a time.

    When it ends before the end of the inbox, the next sweep passes over what is answered.

    A duplicate message forks the sweep; intake answers each upload once all the same.
    """

    inbox: Inbox
    notes: Notes
    queue: MessageQueue
    upload_bucket: str
    now: Callable[[], datetime]

    def go_on(self, sweep: Sweep) -> None:
        """Send the unanswered uploads of the next page, then the message for the rest."""
        position = sweep.sweep
        bucket = position.bucket or self.upload_bucket
        page = self.inbox.page(bucket, INBOX, position.after)
        wanted = [
            upload
            for upload in page.objects
            if name_of(upload.key)
            and (position.since is None or upload.written_at >= position.since)
        ]
        found = list(islice(self._unanswered(bucket, wanted), SWEEP_UPLOADS_PER_MINUTE))
        for number, upload in enumerate(found):
            seen_upload = SeenUpload(
                bucket=bucket,
                key=upload.key,
                version_id=upload.version_id,
                first_seen=upload.written_at,
                swept=True,
            )
            self.queue.send(seen_upload, 1 + math.floor(_seconds_for(number)))
        is_cut = len(found) == SWEEP_UPLOADS_PER_MINUTE
        after = found[-1].key if is_cut else page.goes_on_after
        delay_seconds = max(math.ceil(_seconds_for(len(found))), 1)
        goes_on_at = self.now() + timedelta(seconds=delay_seconds)
        if after is not None and (position.ends_at is None or goes_on_at < position.ends_at):
            rest = position.model_copy(update={"after": after})
            self.queue.send(Sweep(sweep=rest), delay_seconds)
        logger.info(
            "Swept a part of the inbox",
            listed=len(page.objects),
            unanswered=len(found),
            is_over=after is None,
        )

    def _unanswered(self, bucket: str, uploads: Sequence[ObjectVersion]) -> Iterator[ObjectVersion]:
        for first in range(0, len(uploads), _BATCH):
            pins = {(one.key, one.version_id): one for one in uploads[first : first + _BATCH]}
            unanswered = self.notes.unanswered(bucket, pins)
            yield from (upload for pin, upload in pins.items() if pin in unanswered)


def _seconds_for(uploads: int) -> float:
    return uploads * 60 / SWEEP_UPLOADS_PER_MINUTE
