"""The ledger's table: its keys and its write conflicts, for all of its adapters."""

import random
import time
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

KEPT = timedelta(days=180)
"""Longer than the 90 days after which Step Functions could start a job again: no attempt may be
forgotten before."""

CONDITION_FAILED = "ConditionalCheckFailed"  # a cancelled transaction's reason code

_MAX_CONFLICTS = 12  # with the waits below, about eight seconds

P = ParamSpec("P")
R = TypeVar("R")


def is_conflict(error: ClientError) -> bool:
    """A concurrent transaction touched the same item; ours wrote nothing."""
    code = error.response["Error"].get("Code")
    cancelled: list[dict[str, str]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
    reasons = {reason.get("Code") for reason in cancelled}
    return code == "TransactionConflictException" or (
        code == "TransactionCanceledException"
        and "TransactionConflict" in reasons
        and CONDITION_FAILED not in reasons
    )


def again_on_conflict(write: Callable[P, R]) -> Callable[P, R]:
    """Retry a write after a transaction conflict, each time after a random wait."""

    @wraps(write)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> R:
        for conflict in range(_MAX_CONFLICTS):
            try:
                return write(*args, **kwargs)
            except ClientError as error:
                if not is_conflict(error):
                    raise
            time.sleep(min(0.02 * 2**conflict, 1) * random.random())  # noqa: S311 - jitter
        return write(*args, **kwargs)

    return repeated


def attempt_key(job_id: str, number: int) -> "dict[str, AttributeValueTypeDef]":
    return {"pk": {"S": f"job#{job_id}"}, "sk": {"S": f"attempt#{number:03}"}}


def run_key(job_id: str, number: int) -> "dict[str, AttributeValueTypeDef]":
    return {"pk": {"S": f"job#{job_id}"}, "sk": {"S": f"run#{number:03}"}}
