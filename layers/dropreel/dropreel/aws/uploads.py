"""The uploads that jobs were made of, in the ledger's table: an adapter.

| pk                               | sk      | what                                                |
| -------------------------------- | ------- | --------------------------------------------------- |
| `uploads#<bucket>/<fingerprint>` | `claim` | the job that was first made of exactly these        |
| `upload#<bucket>/<key>#<version>`| `job`   | the id of the last job that used it; none when it   |
|                                  |         | was answered without one                            |
| `upload#<bucket>/<key>#<version>`| `used`  | a job of another name was made with it              |
| `output#<bucket>/<folder><stem>` | `drop`  | the job that was dropped last for this output       |

None of these expires. The uploads stay in the inbox, and the sweep looks at all of them every day:
what it finds no note of is started, and paid for. A note has a few hundred bytes, a claim about a
thousand.
"""

import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dropreel.aws import clients
from dropreel.model.job import Job

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        KeysAndAttributesOutputTypeDef,
        KeysAndAttributesTypeDef,
    )

_MAX_KEYS_A_CALL = 100  # DynamoDB: the most that BatchGetItem takes
_MAX_CALLS = 10


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
        try:
            self._put(pk, "claim", job=job.model_dump_json(), only_once=True)
        except self._client.exceptions.ConditionalCheckFailedException:
            return Job.model_validate_json(self._get(pk, "claim", "job") or job.model_dump_json())
        return job

    def note(self, job_id: str, bucket: str, key: str, version_id: str) -> None:
        self._put(_upload(bucket, key, version_id), "job", job_id=job_id)

    def is_answered(self, bucket: str, key: str, version_id: str) -> bool:
        return bool(self._item(_upload(bucket, key, version_id), "job"))

    def note_answered(self, bucket: str, key: str, version_id: str) -> None:
        try:
            self._put(_upload(bucket, key, version_id), "job", only_once=True)
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    def unanswered(
        self, bucket: str, pins: Iterable[tuple[str, str]]
    ) -> frozenset[tuple[str, str]]:
        """Those keys and version ids of which `is_answered` would be false, in few calls.

        A note of this very moment can be missed.
        """
        by_pk = {_upload(bucket, key, version_id): (key, version_id) for key, version_id in pins}
        wanted, noted = list(by_pk), set[str]()
        for first in range(0, len(wanted), _MAX_KEYS_A_CALL):
            noted |= self._noted(wanted[first : first + _MAX_KEYS_A_CALL])
        return frozenset(pin for pk, pin in by_pk.items() if pk not in noted)

    def _noted(self, wanted: list[str]) -> set[str]:
        """Which of these partition keys hold a note. DynamoDB may answer a part of a call."""
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

    def note_drop(self, job: Job) -> None:
        dropped_at = _sortable(job.dropped_at)
        try:
            self._client.put_item(
                TableName=self._table,
                Item={
                    **_drop_key(job),
                    "job_id": {"S": job.id},
                    "dropped_at": {"S": dropped_at},
                },
                ConditionExpression="attribute_not_exists(pk) OR dropped_at < :dropped_at",
                ExpressionAttributeValues={":dropped_at": {"S": dropped_at}},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    def last_drop(self, job: Job) -> str | None:
        """The id of the job that was dropped last for this job's output."""
        got = self._client.get_item(TableName=self._table, Key=_drop_key(job), ConsistentRead=True)
        return got["Item"]["job_id"]["S"] if "Item" in got else None

    def _get(self, pk: str, sk: str, field: str) -> str | None:
        item = self._item(pk, sk)
        return item[field]["S"] if field in item else None

    def _item(self, pk: str, sk: str) -> "dict[str, AttributeValueTypeDef]":
        got = self._client.get_item(
            TableName=self._table, Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True
        )
        return got.get("Item", {})

    def _put(self, pk: str, sk: str, *, only_once: bool = False, **fields: str) -> None:
        item: dict[str, AttributeValueTypeDef] = {"pk": {"S": pk}, "sk": {"S": sk}}
        item |= {field: {"S": text} for field, text in fields.items()}
        if only_once:
            self._client.put_item(
                TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(pk)"
            )
        else:
            self._client.put_item(TableName=self._table, Item=item)


def _upload(bucket: str, key: str, version_id: str) -> str:
    return f"upload#{bucket}/{key}#{version_id}"


def _drop_key(job: Job) -> "dict[str, AttributeValueTypeDef]":
    return {"pk": {"S": f"output#{job.bucket}/{job.folder}{job.stem}"}, "sk": {"S": "drop"}}


def _sortable(moment: datetime | None) -> str:
    """In UTC and with all of its digits, so that DynamoDB can compare it."""
    return (
        (moment or datetime.min.replace(tzinfo=UTC))
        .astimezone(UTC)
        .isoformat(timespec="microseconds")
    )
