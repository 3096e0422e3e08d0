"""Which upload belongs to which job. For the items see docs/architecture.md, "The ledger"."""

import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dropreel.aws import clients
from dropreel.aws.table import outcome_key
from dropreel.model.job import Job
from dropreel.outcome.ownership import AnsweredDrop
from dropreel.outcome.repetition import Maker

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        KeysAndAttributesOutputTypeDef,
        KeysAndAttributesTypeDef,
    )

_MAX_KEYS_A_CALL = 100  # DynamoDB: the most that BatchGetItem takes
_MAX_CALLS = 10
_ONCE = {"ConditionExpression": "attribute_not_exists(pk)"}


class UsedUploads:
    """Made once per function environment. Satisfies `intake.UsedUploads`."""

    def __init__(
        self,
        table: str,
        client: "DynamoDBClient | None" = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._table = table
        self._sleep = sleep
        self._client = client or clients.dynamodb()

    def claim(self, fingerprint: str, job: Job) -> Job:
        pk = f"uploads#{job.bucket}/{fingerprint}"
        if self._put(pk, "claim", _ONCE, job=job.model_dump_json()):
            return job
        item = self._item(pk, "claim")
        return Job.model_validate_json(item["job"]["S"]) if item else job

    def note(self, job_id: str, bucket: str, key: str, version_id: str) -> None:
        self._put(_upload(bucket, key, version_id), "job", job_id=job_id)

    def job_of(self, bucket: str, key: str, version_id: str) -> str | None:
        """The id of the job that was started with this upload; None while there is none."""
        note = self._item(_upload(bucket, key, version_id), "job")
        return note["job_id"]["S"] if "job_id" in note else None

    def is_answered(self, bucket: str, key: str, version_id: str) -> bool:
        return bool(self._item(_upload(bucket, key, version_id), "job"))

    def note_answered(self, bucket: str, key: str, version_id: str) -> None:
        self._put(_upload(bucket, key, version_id), "job", _ONCE)

    def unanswered(
        self, bucket: str, pins: Iterable[tuple[str, str]]
    ) -> frozenset[tuple[str, str]]:
        """The keys and version ids for which `is_answered` is false, in few calls.

        The read is eventually consistent: a note written just now can be missed.
        """
        by_pk = {_upload(bucket, key, version_id): (key, version_id) for key, version_id in pins}
        wanted, noted = list(by_pk), set[str]()
        for first in range(0, len(wanted), _MAX_KEYS_A_CALL):
            noted |= self._noted(wanted[first : first + _MAX_KEYS_A_CALL])
        return frozenset(pin for pk, pin in by_pk.items() if pk not in noted)

    def _noted(self, wanted: list[str]) -> set[str]:
        """Which of these partition keys hold a note. DynamoDB may leave keys of a call unread."""
        found = set[str]()
        asked: KeysAndAttributesTypeDef | KeysAndAttributesOutputTypeDef = {
            "Keys": [{"pk": {"S": pk}, "sk": {"S": "job"}} for pk in wanted],
            "ProjectionExpression": "pk",
        }
        for call in range(_MAX_CALLS):
            got = self._client.batch_get_item(RequestItems={self._table: asked})
            found |= {note["pk"]["S"] for note in got["Responses"].get(self._table, [])}
            if self._table not in got["UnprocessedKeys"]:
                return found
            asked = got["UnprocessedKeys"][self._table]
            self._sleep(min(0.05 * 2**call, 1) * random.random())  # noqa: S311 - jitter
        raise RuntimeError("DynamoDB left keys unread each time.")

    def note_used(self, bucket: str, key: str, version_id: str) -> None:
        self._put(_upload(bucket, key, version_id), "used")

    def was_used(self, bucket: str, key: str, version_id: str) -> bool:
        return bool(self._item(_upload(bucket, key, version_id), "used"))

    def note_drop(self, job: Job, answered_by: str | None = None) -> None:
        dropped_at = _sortable(job.dropped_at)
        later = "<=" if answered_by else "<"
        only_if = {
            "ConditionExpression": f"attribute_not_exists(pk) OR dropped_at {later} :dropped_at",
            "ExpressionAttributeValues": {":dropped_at": {"S": dropped_at}},
        }
        answered = {"answered_by": answered_by} if answered_by else {}
        job_id = answered_by or job.id
        self._put(_output(job), "drop", only_if, job_id=job_id, dropped_at=dropped_at, **answered)

    def answered_drop(self, job: Job) -> AnsweredDrop | None:
        item = self._item(_output(job), "drop")
        if "answered_by" not in item:
            return None
        return AnsweredDrop(
            item["answered_by"]["S"], datetime.fromisoformat(item["dropped_at"]["S"])
        )

    def last_drop(self, job: Job) -> str | None:
        """The id of the job that was dropped last for this job's output."""
        item = self._item(_output(job), "drop")
        return item["job_id"]["S"] if item else None

    def maker(self, job: Job) -> Maker | None:
        item = self._item(_output(job), "maker")
        return Maker.model_validate_json(item["maker"]["S"]) if item else None

    def is_under_way(self, maker: Maker) -> bool:
        key = outcome_key(maker.job_id, maker.run)
        return not self._item(key["pk"]["S"], key["sk"]["S"])

    def note_maker(self, job: Job, maker: Maker, instead_of: Maker | None) -> bool:
        # Ours, too: boto3 repeats a write whose answer was lost.
        before, ours = (instead_of or maker).model_dump_json(), maker.model_dump_json()
        only_if = {
            "ConditionExpression": "attribute_not_exists(pk) OR maker IN (:before, :ours)",
            "ExpressionAttributeValues": {":before": {"S": before}, ":ours": {"S": ours}},
        }
        return self._put(_output(job), "maker", only_if, maker=ours)

    def _item(self, pk: str, sk: str) -> "dict[str, AttributeValueTypeDef]":
        got = self._client.get_item(
            TableName=self._table, Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True
        )
        return got.get("Item", {})

    def _put(self, pk: str, sk: str, only_if: dict[str, Any] | None = None, **fields: str) -> bool:
        """Write an item. Returns False when the condition does not hold."""
        item = {name: {"S": text} for name, text in {"pk": pk, "sk": sk, **fields}.items()}
        try:
            self._client.put_item(TableName=self._table, Item=item, **(only_if or {}))
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


def _upload(bucket: str, key: str, version_id: str) -> str:
    return f"upload#{bucket}/{key}#{version_id}"


def _output(job: Job) -> str:
    return f"output#{job.bucket}/{job.folder}{job.stem}"


def _sortable(moment: datetime | None) -> str:
    """In UTC and with microseconds, so that DynamoDB can compare the texts."""
    known = moment or datetime.min.replace(tzinfo=UTC)
    return known.astimezone(UTC).isoformat(timespec="microseconds")
