"""The ledger in DynamoDB: an adapter, and the only module that knows the table.

| pk         | sk            | what                                          |
| ---------- | ------------- | --------------------------------------------- |
| `job#<id>` | `attempt#001` | one attempt: the fields of `Attempt`, as text |

`expires_at`, in epoch seconds, is the table's TTL attribute.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from dropreel.ledger import Attempt, AttemptState
from dropreel.render import Next, PlannedOffer, Ticket

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

# Longer than the 90 days for which Step Functions remembers an execution's name: as long as a job
# cannot start again, its attempts are known.
_KEPT = timedelta(days=180)


class DynamoDBLedger:
    """Made once per function environment. Satisfies `ledger.Ledger`.

    boto3 sends a write again when its answer is lost, so each condition also holds for the
    state that the same write left behind: `begun_by` tells our own write from another call's. It
    holds for no later state: a copy of a write that comes late undoes nothing.
    """

    def __init__(self, table: str, client: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._client: DynamoDBClient = client or boto3.client("dynamodb", config=_config())

    def find(self, job_id: str, number: int) -> Attempt | None:
        got = self._client.get_item(
            TableName=self._table, Key=_key(job_id, number), ConsistentRead=True
        )
        return _attempt(got["Item"]) if "Item" in got else None

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        got = self._client.query(
            TableName=self._table,
            KeyConditionExpression="pk = :job AND begins_with(sk, :attempt)",
            ExpressionAttributeValues={
                ":job": {"S": f"job#{job_id}"},
                ":attempt": {"S": "attempt#"},
            },
            ConsistentRead=True,
        )
        return tuple(_attempt(item) for item in got["Items"])

    def begin(self, job_id: str, turn: Next, offer: PlannedOffer, now: datetime) -> Attempt | None:
        attempt = Attempt(
            job_id=job_id,
            number=turn.attempt,
            provider=offer.provider,
            endpoint=offer.endpoint,
            offer=turn.offer,
            state=AttemptState.BEGUN,
            begun_at=now,
            begun_by=uuid4().hex,
        )
        try:
            self._client.put_item(
                TableName=self._table,
                Item=_item(attempt),
                ConditionExpression=(
                    "attribute_not_exists(pk) OR (#state = :postponed AND begun_by <> :me)"
                    " OR (#state = :begun AND begun_by = :me)"
                ),
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues={
                    ":postponed": {"S": AttemptState.POSTPONED},
                    ":begun": {"S": AttemptState.BEGUN},
                    ":me": {"S": attempt.begun_by},
                },
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return None
            raise
        return attempt

    def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
        self._replace(
            attempt,
            {"state": AttemptState.ACCEPTED, "request_id": request_id, "accepted_at": now},
        )

    def postpone(self, attempt: Attempt, code: str, message: str) -> None:
        self._replace(attempt, {"state": AttemptState.POSTPONED, "code": code, "message": message})

    def refuse(self, attempt: Attempt, code: str, message: str) -> None:
        self._replace(attempt, {"state": AttemptState.REFUSED, "code": code, "message": message})

    def lose(self, job_id: str, ticket: Ticket, code: str, message: str) -> None:
        # The request id and its time too: submit may have failed to write them down.
        self._client.update_item(
            TableName=self._table,
            Key=_key(job_id, ticket.attempt),
            UpdateExpression=(
                "SET #state = :lost, #code = :code, #message = :message, "
                "request_id = :request_id, accepted_at = :accepted_at"
            ),
            ConditionExpression=(
                "request_id = :request_id OR (#state = :begun AND attribute_not_exists(request_id))"
            ),
            ExpressionAttributeNames={
                "#state": "state",
                "#code": "code",
                "#message": "message",
            },
            ExpressionAttributeValues={
                ":lost": {"S": AttemptState.LOST},
                ":begun": {"S": AttemptState.BEGUN},
                ":code": {"S": code},
                ":message": {"S": message},
                ":request_id": {"S": ticket.request_id},
                ":accepted_at": {"S": ticket.submitted_at.isoformat()},
            },
        )

    def _replace(self, attempt: Attempt, changes: dict[str, object]) -> None:
        changed = attempt.model_copy(update=changes)
        self._client.put_item(
            TableName=self._table,
            Item=_item(changed),
            ConditionExpression="begun_by = :me AND #state IN (:begun, :changed)",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={
                ":me": {"S": attempt.begun_by},
                ":begun": {"S": AttemptState.BEGUN},
                ":changed": {"S": changed.state},
            },
        )


def _key(job_id: str, number: int) -> "dict[str, AttributeValueTypeDef]":
    return {"pk": {"S": f"job#{job_id}"}, "sk": {"S": f"attempt#{number:03}"}}


def _item(attempt: Attempt) -> "dict[str, AttributeValueTypeDef]":
    fields = attempt.model_dump(mode="json", exclude_none=True)
    expires_at = int((attempt.begun_at + _KEPT).timestamp())
    return (
        _key(attempt.job_id, attempt.number)
        | {name: {"S": str(value)} for name, value in fields.items()}
        | {"expires_at": {"N": str(expires_at)}}
    )


def _attempt(item: "dict[str, AttributeValueTypeDef]") -> Attempt:
    return Attempt.model_validate(
        {name: value["S"] for name, value in item.items() if "S" in value}
    )


def _config() -> Config:
    """Short waits and many tries: the table answers in milliseconds, or not at all."""
    return Config(
        retries={"mode": "standard", "max_attempts": 5}, connect_timeout=2, read_timeout=3
    )
