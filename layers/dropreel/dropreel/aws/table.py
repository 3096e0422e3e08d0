"""The ledger's table: its keys and its write conflicts, for all of its adapters."""

import random
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef

KEPT = timedelta(days=180)
"""Longer than the 90 days after which Step Functions could start a job again: no attempt may be
forgotten before."""

_CONDITION_FAILED = "ConditionalCheckFailed"  # a cancelled transaction's reason code

_MAX_CONFLICTS = 12  # with the waits below, about eight seconds

P = ParamSpec("P")
R = TypeVar("R")


def _is_conflict(error: ClientError) -> bool:
    """A concurrent transaction touched the same item; ours wrote nothing."""
    cancelled: list[dict[str, str]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
    return error.response["Error"].get("Code") == "TransactionConflictException" or any(
        reason.get("Code") == "TransactionConflict" for reason in cancelled
    )


def retry_on_conflict(write: Callable[P, R]) -> Callable[P, R]:
    """Retry a write after a transaction conflict, each time after a random wait."""

    @wraps(write)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> R:
        for conflict in range(_MAX_CONFLICTS):
            try:
                return write(*args, **kwargs)
            except ClientError as error:
                if not _is_conflict(error):
                    raise
            time.sleep(min(0.02 * 2**conflict, 1) * random.random())  # noqa: S311 - jitter
        return write(*args, **kwargs)

    return repeated


@retry_on_conflict
def transact(client: "DynamoDBClient", *writes: "TransactWriteItemTypeDef") -> list[bool]:
    """Do all writes or none. Empty when done; else, for each, whether its condition failed."""
    try:
        client.transact_write_items(TransactItems=writes)
    except client.exceptions.TransactionCanceledException as error:
        codes = [reason.get("Code") for reason in error.response["CancellationReasons"]]
        if _CONDITION_FAILED not in codes:
            raise
        return [code == _CONDITION_FAILED for code in codes]
    return []


def attempt_key(job_id: str, number: int) -> "dict[str, AttributeValueTypeDef]":
    return {"pk": {"S": f"job#{job_id}"}, "sk": {"S": f"attempt#{number:03}"}}


def run_key(job_id: str, number: int) -> "dict[str, AttributeValueTypeDef]":
    return {"pk": {"S": f"job#{job_id}"}, "sk": {"S": f"run#{number:03}"}}


def spend_key(day: date) -> "dict[str, AttributeValueTypeDef]":
    return {"pk": {"S": "spend"}, "sk": {"S": day.isoformat()}}


def open_key(execution: str) -> "dict[str, AttributeValueTypeDef]":
    return {"pk": {"S": "open"}, "sk": {"S": execution}}


def ended_key(ended_at: datetime, execution: str) -> "dict[str, AttributeValueTypeDef]":
    moment = ended_at.astimezone(UTC)
    sk = f"{moment:%H:%M:%S.%f}#{execution}"
    return {"pk": {"S": f"ended#{moment:%Y-%m-%d}"}, "sk": {"S": sk}}


def outcome_key(job_id: str, number: int) -> "dict[str, AttributeValueTypeDef]":
    return {"pk": {"S": f"job#{job_id}"}, "sk": {"S": f"outcome#{number:03}"}}
