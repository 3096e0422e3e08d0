"""Attempts, runs and rate limits. For the items see docs/architecture.md, "The ledger"."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import uuid4

from dropreel.aws import clients
from dropreel.aws.table import (
    KEPT,
    attempt_key,
    ended_key,
    open_key,
    outcome_key,
    retry_on_conflict,
    run_key,
    spend_key,
    transact,
)
from dropreel.model.catalog import ProviderName
from dropreel.model.job import Job
from dropreel.model.ledger import (
    SAME_START,
    Admitted,
    Attempt,
    AttemptState,
    ListedRun,
    Outcome,
    Run,
    RunClosed,
)
from dropreel.model.messages import NextAttempt, Plan, PlannedOffer
from dropreel.model.provider import QUEUE_TIMEOUT_SECONDS, RENDER_TIMEOUT_SECONDS, Ticket

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef

    Item = dict[str, AttributeValueTypeDef]

_MAX_RACES = 20


class DynamoDBLedger:
    """Satisfies `ledger.Ledger`.

    boto3 repeats a write when its answer is lost, so each condition also holds for the state that
    the same write left (`begun_by` names our own write). It holds for no later state: a late copy
    of a write undoes nothing.
    """

    def __init__(self, table: str, client: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._client = client or clients.dynamodb()

    def find(self, job_id: str, number: int) -> Attempt | None:
        item = self._get(attempt_key(job_id, number))
        return _attempt(item) if item else None

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        return tuple(map(_attempt, self._all_of(job_id, "attempt#")))

    def admitted(self, job: Job, attempt: int) -> Admitted | None:
        item = self._get(run_key(job.id, job.run))
        run = {name: value["N"] for name, value in item.items() if "N" in value}
        if run.get("attempt") != str(attempt):
            return None
        return Admitted(
            offer=int(run["offer"]),
            estimated_usd=float(run["charged_usd"]) if "charged_usd" in run else None,
        )

    def begin(
        self,
        job_id: str,
        next_attempt: NextAttempt,
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
            number=next_attempt.attempt,
            run=run,
            provider=offer.provider,
            endpoint=offer.endpoint,
            offer=next_attempt.offer,
            state=AttemptState.BEGUN,
            begun_at=now,
            begun_by=uuid4().hex,
            estimated_usd=estimated_usd,
            queue_timeout_seconds=queue_timeout_seconds,
            render_timeout_seconds=render_timeout_seconds,
        )
        refused = transact(
            self._client,
            {
                "Put": {
                    "TableName": self._table,
                    "Item": attempt_key(job_id, attempt.number) | _fields(attempt),
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
        )
        if refused and refused[1]:
            raise RunClosed(job_id)
        return None if refused else attempt

    def accept(self, attempt: Attempt, request_id: str, now: datetime) -> None:
        accepted = {"state": AttemptState.ACCEPTED, "request_id": request_id, "accepted_at": now}
        self._replace(attempt, accepted)

    def postpone(self, attempt: Attempt, code: str, message: str) -> None:
        self._replace(attempt, {"state": AttemptState.POSTPONED, "code": code, "message": message})

    def refuse(
        self, attempt: Attempt, code: str, message: str, *, closes_provider: bool = False
    ) -> Attempt:
        refused = {"state": AttemptState.REFUSED, "code": code, "message": message}
        return self._replace(attempt, refused | {"closes_provider": closes_provider})

    def _replace(self, attempt: Attempt, changes: Mapping[str, object]) -> Attempt:
        changed = attempt.model_copy(update=changes)
        self._update(
            attempt_key(attempt.job_id, attempt.number),
            _fields(changed),
            "#begun_by = :begun_by AND #state IN (:begun, :state)",
        )
        return changed

    def lose(self, job_id: str, ticket: Ticket, code: str, message: str) -> None:
        # With the request id and its time: submit may have failed to write them.
        lost = {"state": AttemptState.LOST, "code": code, "message": message}
        self._update(
            attempt_key(job_id, ticket.attempt),
            _texts(lost | _accepted(ticket)),
            "#request_id = :request_id OR (#state = :begun AND attribute_not_exists(#request_id))",
        )

    def confirm(self, job_id: str, ticket: Ticket) -> None:
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._update(
                attempt_key(job_id, ticket.attempt),
                _texts({"state": AttemptState.ACCEPTED} | _accepted(ticket)),
                "#state = :begun AND attribute_not_exists(#request_id)",
            )

    def settle(self, job_id: str, ticket: Ticket, actual_usd: float) -> None:
        actual = Decimal(str(actual_usd))
        for _ in range(_MAX_RACES):
            attempt = self.find(job_id, ticket.attempt)
            if (
                attempt is None
                or attempt.actual_usd is not None
                or attempt.state is not AttemptState.ACCEPTED
                or attempt.request_id != ticket.request_id
            ):
                return
            note = self._note_cost(attempt, actual)
            if not transact(self._client, note, *self._correct_spending(attempt, actual)):
                return
        raise RuntimeError("Other calls changed the run between each two writes.")

    def _note_cost(self, attempt: Attempt, actual: Decimal) -> "TransactWriteItemTypeDef":
        return {
            "Update": {
                "TableName": self._table,
                "Key": attempt_key(attempt.job_id, attempt.number),
                "UpdateExpression": "SET actual_usd = :usd",
                "ConditionExpression": "#state = :accepted AND request_id = :request_id"
                " AND attribute_not_exists(actual_usd)",
                "ExpressionAttributeNames": {"#state": "state"},
                "ExpressionAttributeValues": {
                    ":usd": {"S": str(actual)},
                    ":accepted": {"S": AttemptState.ACCEPTED},
                    ":request_id": {"S": attempt.request_id or ""},
                },
            }
        }

    def _correct_spending(
        self, attempt: Attempt, actual: Decimal
    ) -> "list[TransactWriteItemTypeDef]":
        """Of the run that was charged for the attempt, and of its day. Empty when the run has
        been charged for a later attempt since, or the day is forgotten."""
        key = run_key(attempt.job_id, attempt.run)
        run = self._get(key)
        if "admitted_at" not in run or run.get("attempt") != {"N": str(attempt.number)}:
            return []
        seen = {
            name: run[name] for name in ("charged_on", "charged_usd", "kept_usd") if name in run
        }
        if "charged_on" in run:  # its charge is still open
            field, before = "charged_usd", Decimal(run.get("charged_usd", {"N": "0"})["N"])
            estimated = before
        else:
            field, before = "kept_usd", Decimal(run.get("kept_usd", {"N": "0"})["N"])
            estimated = Decimal(str(attempt.estimated_usd or 0))
        difference = actual - estimated
        day_key = spend_key(datetime.fromisoformat(run["admitted_at"]["S"]).date())
        spent = self._get(day_key)
        if not spent or Decimal(spent.get("spent_usd", {"N": "0"})["N"]) + difference < 0:
            return []
        unchanged = (
            f"{name} = :{name}" if name in seen else f"attribute_not_exists({name})"
            for name in ("charged_on", "charged_usd", "kept_usd")
        )
        values = {f":{name}": value for name, value in seen.items()}
        return [
            {
                "Update": {
                    "TableName": self._table,
                    "Key": key,
                    "UpdateExpression": f"SET {field} = :corrected",
                    "ConditionExpression": " AND ".join(("attempt = :attempt", *unchanged)),
                    "ExpressionAttributeValues": {
                        ":attempt": {"N": str(attempt.number)},
                        ":corrected": {"N": str(before + difference)},
                        **values,
                    },
                }
            },
            {
                "Update": {
                    "TableName": self._table,
                    "Key": day_key,
                    "UpdateExpression": "ADD spent_usd :difference",
                    "ConditionExpression": "attribute_exists(pk)"
                    + (" AND spent_usd >= :at_least" if difference < 0 else ""),
                    "ExpressionAttributeValues": {
                        ":difference": {"N": str(difference)},
                        **({":at_least": {"N": str(-difference)}} if difference < 0 else {}),
                    },
                }
            },
        ]

    @retry_on_conflict
    def _update(self, key: "Item", fields: "Item", condition: str) -> None:
        self._client.update_item(
            TableName=self._table,
            Key=key,
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in fields),
            ConditionExpression=condition,
            ExpressionAttributeNames={f"#{name}": name for name in fields},
            ExpressionAttributeValues={
                ":begun": {"S": AttemptState.BEGUN},
                **{f":{name}": value for name, value in fields.items()},
            },
        )

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
        raise RuntimeError("Other calls changed the turn between each two writes.")

    def runs(self, job_id: str) -> tuple[Run, ...]:
        return tuple(map(_run, self._all_of(job_id, "run#")))

    def record(self, job_id: str) -> tuple[list[Run], list[Attempt], dict[int, Outcome]]:
        """All of a job, in one query: its runs, its attempts, and the outcomes by run."""
        items = self._client.query(
            TableName=self._table,
            KeyConditionExpression="pk = :job",
            ExpressionAttributeValues={":job": {"S": f"job#{job_id}"}},
        )["Items"]

        def of(kind: str) -> "list[Item]":
            return [item for item in items if item["sk"]["S"].startswith(f"{kind}#")]

        outcomes = {int(it["sk"]["S"].rpartition("#")[2]): _outcome(it) for it in of("outcome")}
        return [*map(_run, of("run"))], [*map(_attempt, of("attempt"))], outcomes

    def _all_of(self, job_id: str, kind: str) -> "list[Item]":
        got = self._client.query(
            TableName=self._table,
            KeyConditionExpression="pk = :job AND begins_with(sk, :kind)",
            ExpressionAttributeValues={":job": {"S": f"job#{job_id}"}, ":kind": {"S": kind}},
            ConsistentRead=True,
        )
        return got["Items"]

    def _get(self, key: "Item") -> "Item":
        got = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        return got.get("Item", {})

    def resume(self, plan: Plan, started_at: datetime, now: datetime) -> None:
        key, item = run_key(plan.job.id, plan.job.run), open_item(plan.job, started_at)
        transact(  # nothing happens when conclude has ended the run
            self._client,
            {"Put": {"TableName": self._table, "Item": item}},
            {
                "ConditionCheck": {
                    "TableName": self._table,
                    "Key": key,
                    "ConditionExpression": "attribute_not_exists(closed_at)",
                }
            },
        )
        self._update_run(
            plan.job,
            "SET #plan = :plan, resumed_at = :now, started_at = :started_at",
            now,
            {"#plan": "plan"},
            plan=plan.model_dump_json(),
            started_at=started_at.isoformat(),
        )

    def is_closed(self, job: Job) -> bool:
        return "closed_at" in self._get(run_key(job.id, job.run))

    def close(self, job: Job, now: datetime) -> None:
        self._update_run(job, "SET closed_at = if_not_exists(closed_at, :now)", now)

    def end(self, job: Job, started_at: datetime, outcome: Outcome, now: datetime) -> Outcome:
        key = outcome_key(job.id, job.run)
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.put_item(
                TableName=self._table,
                Item={
                    **key,
                    "detail_type": {"S": outcome.detail_type},
                    "detail": {"S": outcome.detail.model_dump_json()},
                    **_texts({"code": outcome.code, "ended_at": now}),
                    "started_ms": {"N": _milliseconds(started_at)},
                    "expires_at": _expires_at(now),
                },
                # After 90 days, another execution may have the name of this one.
                ConditionExpression="attribute_not_exists(pk) OR started_ms < :since",
                ExpressionAttributeValues={":since": {"N": _milliseconds(started_at - SAME_START)}},
            )
        return _outcome(self._get(key))

    def outcome(self, job: Job, started_at: datetime) -> Outcome | None:
        item = self._get(outcome_key(job.id, job.run))
        if not item or int(item["started_ms"]["N"]) < int(_milliseconds(started_at - SAME_START)):
            return None
        return _outcome(item)

    def list_ended(self, outcome: Outcome) -> None:
        run = ListedRun.ended(outcome)
        key = ended_key(outcome.detail.ended_at, run.execution_name)
        self._client.put_item(TableName=self._table, Item=key | _listed(run))
        self._client.delete_item(TableName=self._table, Key=open_key(run.execution_name))

    def mark_sent(self, job: Job, now: datetime) -> bool:
        updated = self._client.update_item(
            TableName=self._table,
            Key=outcome_key(job.id, job.run),
            UpdateExpression="SET sent_at = if_not_exists(sent_at, :now)",
            ConditionExpression="attribute_exists(pk)",
            ExpressionAttributeValues={":now": {"S": now.isoformat()}},
            ReturnValues="ALL_OLD",
        )
        return "sent_at" not in updated["Attributes"]

    @retry_on_conflict
    def _update_run(
        self,
        job: Job,
        update: str,
        now: datetime,
        names: dict[str, str] | None = None,
        **values: str,
    ) -> None:
        texts = {"now": now, "job_id": job.id, "number": job.run, **values}
        self._client.update_item(
            TableName=self._table,
            Key=run_key(job.id, job.run),
            UpdateExpression=f"{update}, job_id = :job_id, #number = :number, "
            "expires_at = :expires_at",
            ExpressionAttributeNames={"#number": "number", **(names or {})},
            ExpressionAttributeValues={
                ":expires_at": _expires_at(now),
                **{f":{name}": text for name, text in _texts(texts).items()},
            },
        )


def open_item(job: Job, started_at: datetime) -> "Item":
    return open_key(job.execution_name) | _listed(ListedRun.open(job, started_at))


def _listed(run: ListedRun) -> "Item":
    fields = run.model_dump(mode="json", exclude={"renders"}, exclude_none=True)
    renders = json.dumps([made.model_dump(mode="json") for made in run.renders])
    return _texts(fields | {"renders": renders}) | {
        "expires_at": _expires_at(run.ended_at or run.started_at)
    }


def listed_run(item: "Item") -> ListedRun:
    fields = _strings(item)
    return ListedRun.model_validate(fields | {"renders": json.loads(fields.get("renders", "[]"))})


def _run(item: "Item") -> Run:
    fields = _strings(item)
    plan = fields.pop("plan", None)
    return Run.model_validate(fields | {"plan": Plan.model_validate_json(plan) if plan else None})


def _outcome(item: "Item") -> Outcome:
    fields = _strings(item)
    return Outcome.model_validate(fields | {"detail": json.loads(fields["detail"])})


def _milliseconds(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1000))


def _attempt(item: "Item") -> Attempt:
    return Attempt.model_validate(_strings(item))


def _strings(item: "Item") -> dict[str, str]:
    """Its text fields; the numbers in a run's item belong to `slots`."""
    return {name: value["S"] for name, value in item.items() if "S" in value}


def _fields(attempt: Attempt) -> "Item":
    fields = _texts(attempt.model_dump(mode="json", exclude_none=True))
    return {**fields, "expires_at": _expires_at(attempt.begun_at)}


def _expires_at(start: datetime) -> "AttributeValueTypeDef":
    return {"N": str(int((start + KEPT).timestamp()))}


def _accepted(ticket: Ticket) -> dict[str, object]:
    return {"request_id": ticket.request_id, "accepted_at": ticket.submitted_at}


def _texts(fields: Mapping[str, object]) -> "Item":
    return {
        name: {"S": value.isoformat() if isinstance(value, datetime) else str(value)}
        for name, value in fields.items()
    }
