"""Slots, queues and daily limits. For the items see docs/architecture.md, "The ledger".

Numbers are stored as numbers, so that DynamoDB can compare and add them.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from pydantic import TypeAdapter

from dropreel.aws import clients
from dropreel.aws.ledger import open_item
from dropreel.aws.table import KEPT, attempt_key, retry_on_conflict, run_key, spend_key, transact
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

_AFTER_ALL = chr(ord(ASIDE) + 1)
"""Sorts after every queue key."""


class DynamoDBSlots:
    """Satisfies `admission.Slots` and `standstill.Queues`."""

    def __init__(self, table: str, client: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._client = client or clients.dynamodb()

    # Reading

    def run_state(self, run: RunId) -> RunState:
        item = self._get(run_key(*run))
        return RunState.model_validate(item | {"is_closed": "closed_at" in item})

    def first_waiters(self, provider: ProviderName, at_most: int) -> Sequence[Waiter]:
        # No more than these: a page of a long queue would be a megabyte.
        return tuple(map(_waiter, self._all_of(f"waiters#{provider}", at_most=at_most)))

    def oldest_waiters(self, provider: ProviderName) -> Sequence[Waiter]:
        aside = self._client.query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk AND sk >= :aside",
            ExpressionAttributeValues=_values_named(pk=f"waiters#{provider}", aside=ASIDE),
            ConsistentRead=True,
            Limit=1,
        )
        first_aside = (_waiter(_plain(item)) for item in aside["Items"])
        return (*self.first_waiters(provider, 1), *first_aside)

    def count_waiters(self, provider: ProviderName, at_most: int, before: str = _AFTER_ALL) -> int:
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            Select="COUNT",
            KeyConditionExpression="pk = :pk AND sk < :before",
            ExpressionAttributeValues=_values_named(pk=f"waiters#{provider}", before=before),
            PaginationConfig={"PageSize": at_most},
        )
        waiters = 0
        for page in pages:  # of a megabyte at most
            waiters += page["Count"]
            if waiters >= at_most:
                return at_most
        return waiters

    def waiting_before(self, waiter: Waiter, at_most: int) -> int:
        return self.count_waiters(waiter.provider, at_most, before=waiter.queue_key)

    def leases(self, provider: ProviderName) -> Sequence[Lease]:
        return tuple(map(_lease, self._all_of(f"slots#{provider}")))

    def day(self, day: date) -> Day:
        item = self._get(spend_key(day))
        return Day(int(item.get("renders", 0)), Decimal(item.get("spent_usd", 0)))

    def _get(self, key: "Item") -> dict[str, Any]:
        got = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        return _plain(got.get("Item", {}))

    def _all_of(self, pk: str, at_most: int | None = None) -> "list[dict[str, Any]]":
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk}},
            ConsistentRead=True,
            PaginationConfig={"MaxItems": at_most, "PageSize": at_most} if at_most else {},
        )
        return [_plain(item) for page in pages for item in page["Items"]]

    # Waiting

    def join(self, waiter: Waiter, plan: Plan, started_at: datetime | None = None) -> bool:
        started_at = started_at or waiter.started_at
        run = _values(
            queue_key=waiter.queue_key,
            provider=waiter.provider,
            offer=waiter.offer,
            attempt=waiter.attempt,
            call=waiter.call,
            plan=plan.model_dump_json(),
            started_at=started_at.isoformat(),
            job_id=waiter.run.job_id,
            number=str(waiter.run.number),
            # Not in the lease, because admission reads all leases often.
            task_token=waiter.task_token,
            expires_at=_expires_at(started_at),
        )
        join = self._on(
            run_key(*waiter.run),
            UpdateExpression="SET "
            + ", ".join(f"#{name} = :{name}" for name in run)
            + " REMOVE rendered_at",
            # A call that Step Functions has given up may still run.
            ConditionExpression=(
                "attribute_not_exists(closed_at) AND attribute_not_exists(slot) "
                "AND (attribute_not_exists(left_attempt) OR left_attempt < :attempt) "
                "AND (attribute_not_exists(attempt) OR attempt < :attempt OR "
                "(attempt = :attempt AND (attribute_not_exists(#call) OR #call <= :call)))"
            ),
            ExpressionAttributeNames={f"#{name}": name for name in run},
            ExpressionAttributeValues={f":{name}": run[name] for name in run},
        )
        # In the same transaction: a late call of a run that is over lists it no more.
        item = open_item(plan.job, started_at)
        listed: TransactWriteItemTypeDef = {"Put": {"TableName": self._table, "Item": item}}
        return not self._refused({"Update": join}, self._put_in_queue(waiter), listed)

    def move(self, waiter: Waiter, to: Waiter) -> bool:
        run = self._update_waiting(
            waiter,
            "SET queue_key = :to_queue_key, provider = :to_provider, offer = :to_offer",
            to_queue_key=to.queue_key,
            to_provider=to.provider,
            to_offer=to.offer,
        )
        return not self._refused(self._end_wait(waiter), run, self._put_in_queue(to))

    def _put_in_queue(self, waiter: Waiter) -> "TransactWriteItemTypeDef":
        """Overwrites an older item of the same run, if one was left."""
        item = _queue_item_key(waiter.provider, waiter.queue_key) | _values(
            job_id=waiter.run.job_id,
            number=waiter.run.number,
            attempt=waiter.attempt,
            route=_ROUTE.dump_json(waiter.route).decode(),
            offer=waiter.offer,
            first=waiter.first,
            started_at=waiter.started_at.isoformat(),
            task_token=waiter.task_token,
            call=waiter.call,
            expires_at=_expires_at(waiter.started_at),
        )
        return {"Put": {"TableName": self._table, "Item": item}}

    def dismiss(self, waiter: Waiter) -> None:
        end_wait = self._end_wait(waiter)
        refused = self._refused(end_wait, self._update_waiting(waiter, "REMOVE queue_key"))
        if refused == [False, True]:
            self._refused(end_wait)  # the run no longer waits there: the item was left over

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
        lease = _values(
            job_id=waiter.run.job_id,
            number=waiter.run.number,
            granted_by=by,
            until=until.isoformat(),
        )
        return {
            "Put": {
                "TableName": self._table,
                "Item": _slot_key(waiter.provider, slot) | lease,
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }

    def _end_wait(self, waiter: Waiter) -> "TransactWriteItemTypeDef":
        return {
            "Delete": self._on(
                _queue_item_key(waiter.provider, waiter.queue_key),
                ConditionExpression="task_token = :token",
                ExpressionAttributeValues=_values_named(token=waiter.task_token),
            )
        }

    def _admit_run(
        self, waiter: Waiter, slot: int, usd: Decimal | None, now: datetime
    ) -> "TransactWriteItemTypeDef":
        update = "SET slot = :slot, admitted_at = :now, charged_on = :day"
        if usd is not None:
            update += ", charged_usd = :usd"
        return self._update_waiting(
            waiter,
            f"{update} REMOVE queue_key",
            "attribute_not_exists(closed_at)",
            slot=slot,
            now=now.isoformat(),
            day=now.date().isoformat(),
            usd=usd,
        )

    def _charge(self, usd: Decimal | None, day: date, limits: Limits) -> "TransactWriteItemTypeDef":
        """Add a render and its price to the day, if both limits allow it."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        values: dict[str, object] = {"one": 1, "expires_at": _expires_at(start)}
        added, conditions = ["renders :one"], []
        if limits.daily_renders:
            conditions.append("(attribute_not_exists(renders) OR renders < :max_renders)")
            values["max_renders"] = limits.daily_renders
        if usd is not None:
            added.append("spent_usd :usd")
            values["usd"] = usd
        if usd is not None and limits.daily_usd:
            conditions.append("(attribute_not_exists(spent_usd) OR spent_usd <= :room)")
            values["room"] = limits.daily_usd - usd
        charge = {"ConditionExpression": " AND ".join(conditions)} if conditions else {}
        return {
            "Update": self._on(
                spend_key(day),
                UpdateExpression=f"ADD {', '.join(added)} SET expires_at = :expires_at",
                ExpressionAttributeValues=_values_named(**values),
                **charge,
            )
        }

    @retry_on_conflict
    def renew(self, lease: Lease, until: datetime) -> Lease | None:
        # boto3 repeats a write when its answer is lost: the condition also holds after the first.
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

    @retry_on_conflict
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
        update = self._update_run(
            run,
            "SET rendered_at = :now, left_attempt = :attempt REMOVE slot",
            "attempt = :attempt AND slot = :slot",
            attempt=run_state.attempt,
            slot=run_state.slot,
            now=rendered_at.isoformat(),
        )
        return self._give_back(run, run_state, update)

    def leave(self, run: RunId, run_state: RunState, refund: Refund) -> bool:
        update = f"SET left_attempt = :attempt REMOVE {', '.join(_HELD)}"
        held: dict[str, object] = run_state.model_dump(include={*_HELD}, exclude_none=True)
        if run_state.charged_on:
            held["charged_on"] = run_state.charged_on.isoformat()
        if run_state.charged_usd is not None:
            kept = "kept_usd" if refund is Refund.NOTHING else "refunded_usd"
            update += f" ADD {kept} :charged_usd"
        unchanged = (
            f"{field} = :{field}" if field in held else f"attribute_not_exists({field})"
            for field in _HELD
        )
        condition = " AND ".join(("attempt = :attempt", *unchanged))
        writes = [self._update_run(run, update, condition, attempt=run_state.attempt, **held)]
        if run_state.provider and run_state.queue_key:
            key = _queue_item_key(run_state.provider, run_state.queue_key)
            writes.append({"Delete": self._on(key)})
        if run_state.charged_on:
            writes += self._close_charge(run, run_state, run_state.charged_on, refund)
        return self._give_back(run, run_state, *writes)

    def _close_charge(
        self, run: RunId, run_state: RunState, day: date, refund: Refund
    ) -> "list[TransactWriteItemTypeDef]":
        """The condition excludes that the attempt changes its state at the same time, as a `begin`
        would: one of the two transactions fails."""
        states: tuple[AttemptState, ...] = {
            Refund.ALL: NOT_SUBMITTED,
            Refund.USD: (AttemptState.LOST,),
            Refund.NOTHING: MAY_BE_PAID,
        }[refund]
        values = {f"state{number}": str(state) for number, state in enumerate(states)}
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
                spend_key(day),
                UpdateExpression="ADD renders :renders, spent_usd :usd",
                ExpressionAttributeValues=_values_named(**back),
            )
            writes.append({"Update": update})
        return writes

    def _give_back(
        self, run: RunId, run_state: RunState, *writes: "TransactWriteItemTypeDef"
    ) -> bool:
        """Do these writes and delete the lease, if the run still holds it: an expired lease may be
        another run's."""
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

    def _update_waiting(
        self, waiter: Waiter, update: str, *conditions: str, **values: object
    ) -> "TransactWriteItemTypeDef":
        """Update a run that still waits at its place in the queue."""
        waits = "queue_key = :queue_key AND provider = :provider AND attempt = :attempt"
        return self._update_run(
            waiter.run,
            update,
            " AND ".join((waits, *conditions)),
            queue_key=waiter.queue_key,
            provider=waiter.provider,
            attempt=waiter.attempt,
            **values,
        )

    def _refused(self, *writes: "TransactWriteItemTypeDef") -> list[bool]:
        return transact(self._client, *writes)


_HELD = ("queue_key", "slot", "charged_usd", "charged_on")
_LEASE_NAMES = {"#number": "number", "#until": "until"}


def _seen(lease: Lease) -> "Item":
    return _values_named(
        job_id=lease.run.job_id, number=lease.run.number, seen_until=lease.until.isoformat()
    )


def _slot_key(provider: ProviderName, slot: int) -> "Item":
    return _values(pk=f"slots#{provider}", sk=f"slot#{slot:04}")


def _queue_item_key(provider: ProviderName, queue_key: str) -> "Item":
    return _values(pk=f"waiters#{provider}", sk=queue_key)


def _waiter(item: dict[str, Any]) -> Waiter:
    run = RunId(item["job_id"], int(item["number"]))
    route = _ROUTE.validate_json(item["route"])
    is_aside = item["sk"].startswith(ASIDE)
    return Waiter.model_validate(item | {"run": run, "route": route, "is_aside": is_aside})


def _lease(item: dict[str, Any]) -> Lease:
    run = RunId(item["job_id"], int(item["number"]))
    provider = item["pk"].removeprefix("slots#")
    slot = int(item["sk"].removeprefix("slot#"))
    return Lease.model_validate(item | {"run": run, "provider": provider, "slot": slot})


def _expires_at(start: datetime) -> int:
    return int((start + KEPT).timestamp())


def _values(**fields: object) -> "Item":
    """The fields that are not None, in DynamoDB's types."""
    serialize = TypeSerializer().serialize
    return {name: serialize(value) for name, value in fields.items() if value is not None}


def _values_named(**fields: object) -> "Item":
    """The same, with the names of an expression's values."""
    return {f":{name}": value for name, value in _values(**fields).items()}


def _plain(item: "Item") -> dict[str, Any]:
    deserialize = TypeDeserializer().deserialize
    return {name: deserialize(value) for name, value in item.items()}
