"""The ledger in DynamoDB: an adapter, and the only module that knows the table.

| pk                | sk            | what                                                   |
| ----------------- | ------------- | ------------------------------------------------------ |
| `job#<id>`        | `attempt#001` | one attempt: the fields of `Attempt`, as text          |
| `job#<id>`        | `run#001`     | one run: the fields of `Run`, as text, and what it has |
|                   |               | of `slots_dynamodb`                                    |
| `turns#<provider>`| `next`        | when the provider's next call may be made              |

`expires_at`, in epoch seconds, is the table's TTL attribute.

When a run leaves while its attempt may be paid for, `slots_dynamodb` notes with the attempt what
was charged for it (`kept_usd`), when (`kept_on`) and to which run (`kept_run`). If the attempt is
refused or lost after all, that is given back here; and the day has room for another render if it
was refused.
"""

import math
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import uuid4

from dropreel.aws import clients
from dropreel.aws.table import (
    CONDITION_FAILED,
    KEPT,
    again_on_conflict,
    attempt_key,
    give_back,
    is_conflict,
    run_key,
)
from dropreel.model.catalog import ProviderName
from dropreel.model.job import Job
from dropreel.model.ledger import Admitted, Attempt, AttemptState, Run, RunClosed
from dropreel.model.messages import Next, Plan, PlannedOffer
from dropreel.model.provider import QUEUE_TIMEOUT_SECONDS, RENDER_TIMEOUT_SECONDS, Ticket
from dropreel.render.attempts import NOT_KEPT
from dropreel.runtime.log import logger

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, UpdateTypeDef

_MAX_RACES = 20


class DynamoDBLedger:
    """Made once per function environment. Satisfies `ledger.Ledger`.

    boto3 sends a write again when its answer is lost, so each condition also holds for the
    state that the same write left behind: `begun_by` tells our own write from another call's. It
    holds for no later state: a copy of a write that comes late undoes nothing.
    """

    def __init__(self, table: str, client: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._client = client or clients.dynamodb()

    def find(self, job_id: str, number: int) -> Attempt | None:
        got = self._client.get_item(
            TableName=self._table, Key=attempt_key(job_id, number), ConsistentRead=True
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

    def admitted(self, job: Job, attempt: int) -> Admitted | None:
        got = self._client.get_item(
            TableName=self._table, Key=run_key(job.id, job.run), ConsistentRead=True
        )
        run = {name: value["N"] for name, value in got.get("Item", {}).items() if "N" in value}
        if run.get("attempt") != str(attempt):
            return None
        return Admitted(
            offer=int(run["offer"]),
            estimated_usd=float(run["charged_usd"]) if "charged_usd" in run else None,
        )

    @again_on_conflict
    def begin(
        self,
        job_id: str,
        turn: Next,
        offer: PlannedOffer,
        now: datetime,
        *,
        run: int = 1,
        queue_timeout_seconds: float = QUEUE_TIMEOUT_SECONDS,
        render_timeout_seconds: float = RENDER_TIMEOUT_SECONDS,
        estimated_usd: float | None = None,
    ) -> Attempt | None:
        attempt = Attempt(
            job_id=job_id,
            number=turn.attempt,
            provider=offer.provider,
            endpoint=offer.endpoint,
            offer=turn.offer,
            state=AttemptState.BEGUN,
            begun_at=now,
            begun_by=uuid4().hex,
            estimated_usd=estimated_usd,
            queue_timeout_seconds=queue_timeout_seconds,
            render_timeout_seconds=render_timeout_seconds,
        )
        try:
            self._client.transact_write_items(
                TransactItems=[
                    {
                        "Put": {
                            "TableName": self._table,
                            "Item": _item(attempt),
                            "ConditionExpression": (
                                "attribute_not_exists(pk)"
                                " OR (#state = :postponed AND begun_by <> :me)"
                                " OR (#state = :begun AND begun_by = :me)"
                            ),
                            "ExpressionAttributeNames": {"#state": "state"},
                            "ExpressionAttributeValues": {
                                ":postponed": {"S": AttemptState.POSTPONED},
                                ":begun": {"S": AttemptState.BEGUN},
                                ":me": {"S": attempt.begun_by},
                            },
                        }
                    },
                    {
                        "ConditionCheck": {
                            "TableName": self._table,
                            "Key": run_key(job_id, run),
                            "ConditionExpression": (
                                "attribute_not_exists(closed_at) AND "
                                "(attribute_not_exists(left_attempt) OR left_attempt < :number)"
                            ),
                            "ExpressionAttributeValues": {":number": {"N": str(attempt.number)}},
                        }
                    },
                ]
            )
        except self._client.exceptions.TransactionCanceledException as error:
            if is_conflict(error):
                raise
            of_attempt, of_run = error.response["CancellationReasons"]
            if of_run["Code"] == CONDITION_FAILED:
                raise RunClosed(job_id) from None
            if of_attempt["Code"] == CONDITION_FAILED:
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

    @again_on_conflict
    def lose(self, job_id: str, ticket: Ticket, code: str, message: str) -> None:
        # The request id and its time too: submit may have failed to write them down.
        written = self._client.update_item(
            TableName=self._table,
            Key=attempt_key(job_id, ticket.attempt),
            UpdateExpression=(
                "SET #state = :lost, #code = :code, #message = :message, "
                "request_id = :request_id, accepted_at = :accepted_at, changed_at = :now"
            ),
            ConditionExpression=(
                "request_id = :request_id OR (#state = :begun AND attribute_not_exists(request_id))"
            ),
            ExpressionAttributeNames={
                "#state": "state",
                "#code": "code",
                "#message": "message",
            },
            ReturnValues="ALL_NEW",
            ExpressionAttributeValues={
                ":lost": {"S": AttemptState.LOST},
                ":begun": {"S": AttemptState.BEGUN},
                ":code": {"S": code},
                ":message": {"S": message},
                ":request_id": {"S": ticket.request_id},
                ":accepted_at": {"S": ticket.submitted_at.isoformat()},
                ":now": {"S": datetime.now(UTC).isoformat()},
            },
        )
        self._refund_what_was_kept(written["Attributes"])

    def take_turn(self, provider: ProviderName, per_minute: int, now: datetime) -> datetime:
        now_ms, apart_ms = int(now.timestamp() * 1000), math.ceil(60_000 / per_minute)
        for _ in range(_MAX_RACES):
            for starting, condition in (
                ("next_at_ms", "next_at_ms > :now"),
                (":now", "attribute_not_exists(pk) OR next_at_ms <= :now"),
            ):
                try:
                    taken = self._client.update_item(
                        TableName=self._table,
                        Key={"pk": {"S": f"turns#{provider}"}, "sk": {"S": "next"}},
                        UpdateExpression=f"SET next_at_ms = {starting} + :apart",
                        ConditionExpression=condition,
                        ExpressionAttributeValues={
                            ":now": {"N": str(now_ms)},
                            ":apart": {"N": str(apart_ms)},
                        },
                        ReturnValues="UPDATED_NEW",
                    )
                except self._client.exceptions.ConditionalCheckFailedException:
                    continue
                next_at_ms = int(taken["Attributes"]["next_at_ms"]["N"])
                return datetime.fromtimestamp((next_at_ms - apart_ms) / 1000, UTC)
        raise RuntimeError("The turns changed under each look.")  # each time between two writes

    def runs(self, job_id: str) -> tuple[Run, ...]:
        got = self._client.query(
            TableName=self._table,
            KeyConditionExpression="pk = :job AND begins_with(sk, :run)",
            ExpressionAttributeValues={":job": {"S": f"job#{job_id}"}, ":run": {"S": "run#"}},
            ConsistentRead=True,
        )
        return tuple(_run(item) for item in got["Items"])

    def resume(self, plan: Plan, now: datetime) -> None:
        self._update_run(
            plan.job,
            "SET #plan = :plan, resumed_at = :now",
            now,
            {":plan": {"S": plan.model_dump_json()}},
            {"#plan": "plan"},
        )

    @again_on_conflict
    def confirm(self, job_id: str, ticket: Ticket) -> None:
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.update_item(
                TableName=self._table,
                Key=attempt_key(job_id, ticket.attempt),
                UpdateExpression=(
                    "SET #state = :accepted, request_id = :request_id, "
                    "accepted_at = :accepted_at, changed_at = :now"
                ),
                ConditionExpression="#state = :begun AND attribute_not_exists(request_id)",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues={
                    ":accepted": {"S": AttemptState.ACCEPTED},
                    ":begun": {"S": AttemptState.BEGUN},
                    ":request_id": {"S": ticket.request_id},
                    ":accepted_at": {"S": ticket.submitted_at.isoformat()},
                    ":now": {"S": datetime.now(UTC).isoformat()},
                },
            )

    def is_closed(self, job: Job) -> bool:
        got = self._client.get_item(
            TableName=self._table, Key=run_key(job.id, job.run), ConsistentRead=True
        )
        return "closed_at" in got.get("Item", {})

    def close(self, job: Job, now: datetime) -> None:
        self._update_run(job, "SET closed_at = if_not_exists(closed_at, :now)", now)

    def end(self, job: Job, outcome: str, now: datetime) -> None:
        self._update_run(
            job,
            "SET ended_at = if_not_exists(ended_at, :now), "
            "outcome = if_not_exists(outcome, :outcome)",
            now,
            {":outcome": {"S": outcome}},
        )

    @again_on_conflict
    def _update_run(
        self,
        job: Job,
        update: str,
        now: datetime,
        values: "dict[str, AttributeValueTypeDef] | None" = None,
        names: dict[str, str] | None = None,
    ) -> None:
        self._client.update_item(
            TableName=self._table,
            Key=run_key(job.id, job.run),
            UpdateExpression=f"{update}, job_id = :job_id, #number = :number, "
            "expires_at = :expires_at",
            ExpressionAttributeNames={"#number": "number", **(names or {})},
            ExpressionAttributeValues={
                ":now": {"S": now.isoformat()},
                ":job_id": {"S": job.id},
                ":number": {"S": str(job.run)},
                ":expires_at": {"N": str(int((now + KEPT).timestamp()))},
                **(values or {}),
            },
        )

    @again_on_conflict
    def _replace(self, attempt: Attempt, changes: dict[str, object]) -> None:
        new = _fields(attempt.model_copy(update=changes))
        names = {f"#{name}": name for name in new}
        written = self._client.update_item(
            TableName=self._table,
            Key=attempt_key(attempt.job_id, attempt.number),
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in new),
            ConditionExpression="#begun_by = :begun_by AND #state IN (:begun, :state)",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={
                **{f":{name}": value for name, value in new.items()},
                ":begun": {"S": AttemptState.BEGUN},
            },
            ReturnValues="ALL_NEW",
        )
        if changes["state"] in NOT_KEPT:
            self._refund_what_was_kept(written["Attributes"])

    def _refund_what_was_kept(self, attempt: "dict[str, AttributeValueTypeDef]") -> None:
        """What a run has left behind as paid for with an attempt that comes to nothing."""
        if "kept_on" not in attempt:
            return
        day, run = attempt["kept_on"]["S"], attempt["kept_run"]["N"]
        usd = Decimal(attempt["kept_usd"]["N"]) if "kept_usd" in attempt else None
        is_submitted = attempt["state"]["S"] == AttemptState.LOST
        writes: list[UpdateTypeDef] = [
            {
                "TableName": self._table,
                "Key": {"pk": attempt["pk"], "sk": attempt["sk"]},
                "UpdateExpression": "REMOVE kept_usd, kept_on, kept_run",
                "ConditionExpression": "attribute_exists(kept_on)",
            },
            give_back(self._table, day, usd, is_submitted=is_submitted),
        ]
        if usd is not None:
            writes.append(
                {
                    "TableName": self._table,
                    "Key": {"pk": attempt["pk"], "sk": run_key("", int(run))["sk"]},
                    "UpdateExpression": "ADD kept_usd :back, refunded_usd :usd",
                    "ExpressionAttributeValues": {
                        ":back": {"N": str(-usd)},
                        ":usd": {"N": str(usd)},
                    },
                }
            )
        try:
            self._client.transact_write_items(TransactItems=[{"Update": it} for it in writes])
        except self._client.exceptions.TransactionCanceledException as error:
            codes = [reason.get("Code") for reason in error.response["CancellationReasons"]]
            if CONDITION_FAILED not in codes:
                raise
            logger.info("Given back already", attempt=attempt["sk"]["S"])


def _run(item: "dict[str, AttributeValueTypeDef]") -> Run:
    fields = {name: value["S"] for name, value in item.items() if "S" in value}
    plan = fields.pop("plan", None)
    return Run.model_validate(fields | {"plan": Plan.model_validate_json(plan) if plan else None})


def _item(attempt: Attempt) -> "dict[str, AttributeValueTypeDef]":
    return attempt_key(attempt.job_id, attempt.number) | _fields(attempt)


def _fields(attempt: Attempt) -> "dict[str, AttributeValueTypeDef]":
    fields = attempt.model_dump(mode="json", exclude_none=True)
    expires_at = int((attempt.begun_at + KEPT).timestamp())
    return {
        **{name: {"S": str(value)} for name, value in fields.items()},
        "expires_at": {"N": str(expires_at)},
        # For who reads the table: when its state changed last.
        "changed_at": {"S": datetime.now(UTC).isoformat()},
    }


def _attempt(item: "dict[str, AttributeValueTypeDef]") -> Attempt:
    return Attempt.model_validate(
        {name: value["S"] for name, value in item.items() if "S" in value}
    )
