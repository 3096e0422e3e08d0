"""The uploads that jobs were made of, in the ledger's table: an adapter.

| pk                               | sk      | what                                                |
| -------------------------------- | ------- | --------------------------------------------------- |
| `uploads#<bucket>/<fingerprint>` | `claim` | the job that was first made of exactly these        |
| `upload#<bucket>/<key>#<version>`| `job`   | the id of the last job that used it                 |
| `face#<bucket>/<key>`            | `face`  | the `_defaults.json` that named it last             |
| `named#<bucket>/<key>`           | `named` | the job file that named it last                     |

`expires_at`, in epoch seconds, is the table's TTL attribute.
"""

import time
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from dropreel.job import Job

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# Longer than the 90 days for which Step Functions remembers an execution's name, as the ledger.
_KEPT_SECONDS = 180 * 24 * 3600


class UsedUploads:
    """Made once per function environment. Satisfies `intake.UsedUploads`."""

    def __init__(self, table: str, client: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._client: DynamoDBClient = client or boto3.client(
            "dynamodb",
            config=Config(
                retries={"mode": "standard", "max_attempts": 5}, connect_timeout=2, read_timeout=3
            ),
        )

    def claim(self, fingerprint: str, job: Job) -> Job:
        """Make the job the one of these uploads, unless another is; return the one that is."""
        pk = f"uploads#{job.bucket}/{fingerprint}"
        try:
            self._put(pk, "claim", "job", job.model_dump_json(), only_once=True)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return Job.model_validate_json(self._get(pk, "claim", "job") or job.model_dump_json())
        return job

    def is_used(self, bucket: str, key: str, version_id: str) -> bool:
        return self._get(_upload(bucket, key, version_id), "job", "job_id") is not None

    def note(self, job_id: str, bucket: str, key: str, version_id: str) -> None:
        """A job of this id was started, and this upload is in it."""
        self._put(_upload(bucket, key, version_id), "job", "job_id", job_id)

    def note_face(self, bucket: str, key: str, named_by: str) -> None:
        """The defaults at a key name this picture as the face of their folder."""
        self._put(f"face#{bucket}/{key}", "face", "named_by", named_by)

    def face_named_by(self, bucket: str, key: str) -> str | None:
        """The key of the defaults that named this picture last."""
        return self._get(f"face#{bucket}/{key}", "face", "named_by")

    def note_named(self, bucket: str, key: str, named_by: str) -> None:
        """The job file at a key names this upload."""
        self._put(f"named#{bucket}/{key}", "named", "named_by", named_by)

    def named_by(self, bucket: str, key: str) -> str | None:
        """The key of the job file that named this upload last."""
        return self._get(f"named#{bucket}/{key}", "named", "named_by")

    def _get(self, pk: str, sk: str, field: str) -> str | None:
        got = self._client.get_item(
            TableName=self._table, Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True
        )
        return got["Item"][field]["S"] if "Item" in got else None

    def _put(self, pk: str, sk: str, field: str, text: str, only_once: bool = False) -> None:
        item = {
            "pk": {"S": pk},
            "sk": {"S": sk},
            field: {"S": text},
            "expires_at": {"N": str(int(time.time()) + _KEPT_SECONDS)},
        }
        if only_once:
            self._client.put_item(
                TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(pk)"
            )
        else:
            self._client.put_item(TableName=self._table, Item=item)


def _upload(bucket: str, key: str, version_id: str) -> str:
    return f"upload#{bucket}/{key}#{version_id}"
