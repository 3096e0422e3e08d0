"""Slots, queues and what a day has had in the ledger's table: an adapter.

| pk                   | sk                      | what                                            |
| -------------------- | ----------------------- | ----------------------------------------------- |
| `slots#<provider>`   | `slot#0003`             | who holds it, and until when; free when missing |
| `waiters#<provider>` | `<start>Z#<execution>`  | who waits, with its task token; behind all      |
|                      |                         | others with a `~` before it                     |
| `spend`              | `2026-11-20`            | `spent_usd` (exact) and `renders` of a day (UTC)|
| `job#<id>`           | `run#001`               | how the run stands, beside what `Run` says      |

Numbers are numbers here, so that DynamoDB can compare and add them.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from pydantic import TypeAdapter

from dropreel.aws import clients
from dropreel.aws.table import (
    CONDITION_FAILED,
    KEPT,
    again_on_conflict,
    attempt_key,
    is_conflict,
    run_key,
)
from dropreel.model.catalog import ProviderName
from dropreel.model.ledger import AttemptState
from dropreel.model.messages import Plan
from dropreel.model.prices import Billed
from dropreel.render.admission import ASIDE, Granting, Lease, Refund, RunId, RunState, Waiter
from dropreel.render.attempts import MAY_BE_PAID, NOT_SUBMITTED
from dropreel.render.spending import Day, Limits

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef

    Item = dict[str, AttributeValueTypeDef]

_ROUTE = TypeAdapter(tuple[Billed, ...])


class DynamoDBSlots:
    """Made once per function environment. Satisfies `admission.Slots`."""

    def __init__(self, table: str, client: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._client = client or clients.dynamodb()

    # Reading

    def run_state(self, run: RunId) -> RunState:
        got = self._client.get_item(TableName=self._table, Key=run_key(*run), ConsistentRead=True)
        item = _plain(got.get("Item", {}))
        return RunState.model_validate(item | {"is_closed": "closed_at" in item})

    def first_waiters(self, provider: ProviderName, at_most: int) -> Sequence[Waiter]:
        # Those alone: a page of the queue would be a megabyte, when many wait.
        return tuple(map(self._waiter, self._all_of(f"waiters#{provider}", at_most=at_most)))

    def leases(self, provider: ProviderName) -> Sequence[Lease]:
        return tuple(map(_lease, self._all_of(f"slots#{provider}")))

    def day(self, day: date) -> Day:
        got = self._client.get_item(TableName=self._table, Key=_spend_key(day), ConsistentRead=True)
        item = _plain(got.get("Item", {}))
        return Day(int(item.get("renders", 0)), Decimal(item.get("spent_usd", 0)))

    def _all_of(self, pk: str, at_most: int | None = None) -> "list[dict[str, Any]]":
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk}},
            ConsistentRead=True,
            PaginationConfig={"MaxItems": at_most, "PageSize": at_most} if at_most else {},
        )
        return [_plain(item) for page in pages for item in page["Items"]]

    @staticmethod
    def _waiter(item: dict[str, Any]) -> Waiter:
        run = RunId(item["job_id"], int(item["number"]))
        route = _ROUTE.validate_json(item["route"])
        is_aside = item["sk"].startswith(ASIDE)
        return Waiter.model_validate(item | {"run": run, "route": route, "is_aside": is_aside})

    # Waiting

    def join(self, waiter: Waiter, plan: Plan) -> bool:
        run = _values(
            queue_key=waiter.queue_key,
            provider=waiter.provider,
            offer=waiter.offer,
            attempt=waiter.attempt,
            call=waiter.call,
            plan=plan.model_dump_json(),
            started_at=waiter.started_at.isoformat(),
            job_id=waiter.run.job_id,
            number=str(waiter.run.number),
            # Here and not in the lease, when there is one: each look reads all leases.
            task_token=waiter.task_token,
            expires_at=_expires_at(waiter.started_at),
        )
        names = {f"#{name}": name for name in run}
        join: TransactWriteItemTypeDef = {
            "Update": {
                "TableName": self._table,
                "Key": run_key(*waiter.run),
                "UpdateExpression": "SET "
                + ", ".join(f"#{name} = :{name}" for name in run)
                + " REMOVE rendered_at",
                # A call that Step Functions has given up on may still be at work.
                "ConditionExpression": (
                    "attribute_not_exists(closed_at) AND attribute_not_exists(slot) "
                    "AND (attribute_not_exists(left_attempt) OR left_attempt < :attempt) "
                    "AND (attribute_not_exists(attempt) OR attempt < :attempt OR "
                    "(attempt = :attempt AND (attribute_not_exists(#call) OR #call <= :call)))"
                ),
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": {f":{name}": run[name] for name in run},
            }
        }
        return not self._refused(join, self._put_in_queue(waiter))

    def move(self, waiter: Waiter, to: Waiter) -> bool:
        stand = self._update_run(
            waiter.run,
            "SET queue_key = :to_queue_key, provider = :to_provider, offer = :to_offer",
            _AS_IT_WAITS,
            queue_key=waiter.queue_key,
            provider=waiter.provider,
            attempt=waiter.attempt,
            to_queue_key=to.queue_key,
            to_provider=to.provider,
            to_offer=to.offer,
        )
        return not self._refused(self._end_wait(waiter), stand, self._put_in_queue(to))

    def _put_in_queue(self, waiter: Waiter) -> "TransactWriteItemTypeDef":
        """Over an older one of the same run, if it was left over there."""
        item = _queue_item_key(waiter.provider, waiter.queue_key) | _values(
            job_id=waiter.run.job_id,
            number=waiter.run.number,
            attempt=waiter.attempt,
            route=_ROUTE.dump_json(waiter.route).decode(),
            offer=waiter.offer,
            started_at=waiter.started_at.isoformat(),
            task_token=waiter.task_token,
            call=waiter.call,
            expires_at=_expires_at(waiter.started_at),
        )
        return {"Put": {"TableName": self._table, "Item": item}}

    def dismiss(self, waiter: Waiter) -> None:
        end_wait = self._end_wait(waiter)
        forget = self._update_run(
            waiter.run,
            "REMOVE queue_key",
            _AS_IT_WAITS,
            queue_key=waiter.queue_key,
            provider=waiter.provider,
            attempt=waiter.attempt,
        )
        if self._refused(end_wait, forget) == [False, True]:
            self._refused(end_wait)  # the run does not wait there any more: it was left over

    # Slots

    def grant(
        self,
        waiter: Waiter,
        slot: int,
        *,
        by: str,
        until: datetime,
        now: datetime,
        usd: Decimal | None,
        limits: Limits,
    ) -> Granting:
        refused = self._refused(
            self._put_lease(waiter, slot, by, until),
            self._end_wait(waiter),
            self._admit_run(waiter, slot, usd, now),
            self._charge(usd, now.date(), limits),
        )
        if not refused:
            return Granting.DONE
        lease, wait, run, _ = refused
        if lease or wait:
            return Granting.OVERTAKEN
        return Granting.CLOSED if run else Granting.NO_ROOM

    def _put_lease(
        self, waiter: Waiter, slot: int, by: str, until: datetime
    ) -> "TransactWriteItemTypeDef":
        return {
            "Put": {
                "TableName": self._table,
                "Item": _slot_key(waiter.provider, slot)
                | _values(
                    job_id=waiter.run.job_id,
                    number=waiter.run.number,
                    granted_by=by,
                    until=until.isoformat(),
                ),
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }

    def _end_wait(self, waiter: Waiter) -> "TransactWriteItemTypeDef":
        return {
            "Delete": {
                "TableName": self._table,
                "Key": _queue_item_key(waiter.provider, waiter.queue_key),
                "ConditionExpression": "task_token = :token",
                "ExpressionAttributeValues": _values_named(token=waiter.task_token),
            }
        }

    def _admit_run(
        self, waiter: Waiter, slot: int, usd: Decimal | None, now: datetime
    ) -> "TransactWriteItemTypeDef":
        update = "SET slot = :slot, admitted_at = :now, charged_on = :day"
        values: dict[str, object] = {"slot": slot, "now": now.isoformat()}
        if usd is not None:
            update += ", charged_usd = :usd"
            values["usd"] = usd
        return self._update_run(
            waiter.run,
            f"{update} REMOVE queue_key",
            f"{_AS_IT_WAITS} AND attribute_not_exists(closed_at)",
            queue_key=waiter.queue_key,
            provider=waiter.provider,
            attempt=waiter.attempt,
            day=now.date().isoformat(),
            **values,
        )

    def _charge(self, usd: Decimal | None, day: date, limits: Limits) -> "TransactWriteItemTypeDef":
        """One render more and its price, if the day has room for both."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        values: dict[str, object] = {"one": 1, "expires_at": _expires_at(start)}
        added, conditions = ["renders :one"], []
        if limits.daily_renders:
            conditions.append("(attribute_not_exists(renders) OR renders < :renders_at_most)")
            values["renders_at_most"] = limits.daily_renders
        if usd is not None:
            added.append("spent_usd :usd")
            values["usd"] = usd
        if usd is not None and limits.daily_usd:
            conditions.append("(attribute_not_exists(spent_usd) OR spent_usd <= :room)")
            values["room"] = limits.daily_usd - usd
        charge = {"ConditionExpression": " AND ".join(conditions)} if conditions else {}
        return {
            "Update": self._on(
                _spend_key(day),
                UpdateExpression=f"ADD {', '.join(added)} SET expires_at = :expires_at",
                ExpressionAttributeValues=_values_named(**values),
                **charge,
            )
        }

    @again_on_conflict
    def renew(self, lease: Lease, until: datetime) -> Lease | None:
        # boto3 sends it again when its answer is lost, so the condition also holds for what the
        # same write left behind.
        try:
            self._client.update_item(
                TableName=self._table,
                Key=_slot_key(lease.provider, lease.slot),
                UpdateExpression="SET #until = :until",
                ConditionExpression=(
                    "job_id = :job_id AND #number = :number AND #until IN (:seen_until, :until)"
                ),
                ExpressionAttributeNames=_LEASE_NAMES,
                ExpressionAttributeValues=_seen(lease) | _values_named(until=until.isoformat()),
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return None
        return lease.model_copy(update={"until": until})

    @again_on_conflict
    def take_back(self, lease: Lease) -> bool:
        try:
            self._client.delete_item(
                TableName=self._table,
                Key=_slot_key(lease.provider, lease.slot),
                ConditionExpression="attribute_not_exists(pk) OR "
                "(job_id = :job_id AND #number = :number AND #until = :seen_until)",
                ExpressionAttributeNames=_LEASE_NAMES,
                ExpressionAttributeValues=_seen(lease),
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    # Giving back

    def free(self, run: RunId, run_state: RunState, rendered_at: datetime) -> bool:
        return self._give_back(
            run,
            run_state,
            self._update_run(
                run,
                "SET rendered_at = :now, left_attempt = :attempt REMOVE slot",
                "attempt = :attempt AND slot = :slot",
                attempt=run_state.attempt,
                slot=run_state.slot,
                now=rendered_at.isoformat(),
            ),
        )

    def leave(self, run: RunId, run_state: RunState, refund: Refund) -> bool:
        update = f"SET left_attempt = :attempt REMOVE {', '.join(_HELD)}"
        has: dict[str, object] = run_state.model_dump(include={*_HELD}, exclude_none=True)
        if run_state.charged_on:
            has["charged_on"] = run_state.charged_on.isoformat()
        if run_state.charged_usd is not None:
            kept = "kept_usd" if refund is Refund.NOTHING else "refunded_usd"
            update += f" ADD {kept} :charged_usd"
        as_seen = (f"{it} = :{it}" if it in has else f"attribute_not_exists({it})" for it in _HELD)
        condition = " AND ".join(("attempt = :attempt", *as_seen))
        writes = [self._update_run(run, update, condition, attempt=run_state.attempt, **has)]
        if run_state.provider and run_state.queue_key:
            writes.append(
                {"Delete": self._on(_queue_item_key(run_state.provider, run_state.queue_key))}
            )
        if run_state.charged_on:
            writes += self._close_charge(run, run_state, run_state.charged_on, refund)
        return self._give_back(run, run_state, *writes)

    def _close_charge(
        self, run: RunId, run_state: RunState, day: date, refund: Refund
    ) -> "list[TransactWriteItemTypeDef]":
        """The condition excludes that the attempt changes its state in the same moment, as by a
        `begin`: one of the two transactions fails."""
        states: tuple[AttemptState, ...] = {
            Refund.ALL: NOT_SUBMITTED,
            Refund.USD: (AttemptState.LOST,),
            Refund.NOTHING: MAY_BE_PAID,
        }[refund]
        values = {f"state{queue_key}": str(state) for queue_key, state in enumerate(states)}
        condition = f"#state IN ({', '.join(f':{name}' for name in values)})"
        if refund is Refund.ALL:
            condition = f"attribute_not_exists(pk) OR {condition}"
        check = self._on(
            attempt_key(run.job_id, run_state.attempt or 0),
            ConditionExpression=condition,
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues=_values_named(**values),
        )
        writes: list[TransactWriteItemTypeDef] = [{"ConditionCheck": check}]
        if refund is not Refund.NOTHING:
            back = {"usd": -(run_state.charged_usd or 0), "renders": -(refund is Refund.ALL)}
            update = self._on(
                _spend_key(day),
                UpdateExpression="ADD renders :renders, spent_usd :usd",
                ExpressionAttributeValues=_values_named(**back),
            )
            writes.append({"Update": update})
        return writes

    def _give_back(
        self, run: RunId, run_state: RunState, *writes: "TransactWriteItemTypeDef"
    ) -> bool:
        """Do all that, and give back the lease if the run still holds it: it may have run out and
        be somebody else's."""
        if run_state.provider is None or run_state.slot is None:
            return not self._refused(*writes)
        lease: TransactWriteItemTypeDef = {
            "Delete": self._on(
                _slot_key(run_state.provider, run_state.slot),
                ConditionExpression="job_id = :job_id AND #number = :number",
                ExpressionAttributeNames={"#number": "number"},
                ExpressionAttributeValues=_values_named(job_id=run.job_id, number=run.number),
            )
        }
        refused = self._refused(*writes, lease)
        if refused and not any(refused[:-1]):
            refused = self._refused(*writes)
        return not refused

    # Writing

    def _on(self, key: "Item", **asked: object) -> Any:  # noqa: ANN401 - each write has its own type
        return {"TableName": self._table, "Key": key, **asked}

    def _update_run(
        self, run: RunId, update: str, condition: str, **values: object
    ) -> "TransactWriteItemTypeDef":
        return {
            "Update": self._on(
                run_key(*run),
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeValues=_values_named(**values),
            )
        }

    @again_on_conflict
    def _refused(self, *writes: "TransactWriteItemTypeDef") -> list[bool]:
        """Do all or nothing. Empty when it is done; else which of the conditions did not hold."""
        try:
            self._client.transact_write_items(TransactItems=list(writes))
        except self._client.exceptions.TransactionCanceledException as error:
            if is_conflict(error):
                raise
            codes = [reason.get("Code") for reason in error.response["CancellationReasons"]]
            if CONDITION_FAILED not in codes:
                raise
            return [code == CONDITION_FAILED for code in codes]
        return []


_HELD = ("queue_key", "slot", "charged_usd", "charged_on")
_AS_IT_WAITS = "queue_key = :queue_key AND provider = :provider AND attempt = :attempt"
_LEASE_NAMES = {"#number": "number", "#until": "until"}


def _seen(lease: Lease) -> "Item":
    return _values_named(
        job_id=lease.run.job_id, number=lease.run.number, seen_until=lease.until.isoformat()
    )


def _slot_key(provider: ProviderName, slot: int) -> "Item":
    return _values(pk=f"slots#{provider}", sk=f"slot#{slot:04}")


def _queue_item_key(provider: ProviderName, queue_key: str) -> "Item":
    return _values(pk=f"waiters#{provider}", sk=queue_key)


def _spend_key(day: date) -> "Item":
    return _values(pk="spend", sk=day.isoformat())


def _lease(item: dict[str, Any]) -> Lease:
    run = RunId(item["job_id"], int(item["number"]))
    slot = int(item["sk"].removeprefix("slot#"))
    return Lease.model_validate(item | {"run": run, "provider": _provider(item), "slot": slot})


def _provider(item: dict[str, Any]) -> str:
    provider: str = item["pk"].partition("#")[2]
    return provider


def _expires_at(start: datetime) -> int:
    return int((start + KEPT).timestamp())


def _values(**fields: object) -> "Item":
    """What is not None, as DynamoDB spells it."""
    serialize = TypeSerializer().serialize
    return {name: serialize(value) for name, value in fields.items() if value is not None}


def _values_named(**fields: object) -> "Item":
    """The same for the names of an expression."""
    return {f":{name}": value for name, value in _values(**fields).items()}


def _plain(item: "Item") -> dict[str, Any]:
    deserialize = TypeDeserializer().deserialize
    return {name: deserialize(value) for name, value in item.items()}
