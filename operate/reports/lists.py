"""Reads many runs in few calls: the ledger's lists, the queues, the newest executions."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import boto3
from boto3.dynamodb.types import TypeDeserializer
from botocore.config import Config
from pydantic import ValidationError

from dropreel.aws.ledger import listed_run
from dropreel.aws.slots import DynamoDBSlots
from dropreel.aws.table import KEPT, attempt_key, ended_key, run_key
from dropreel.aws.wiring import limits_of
from dropreel.model.catalog import TITLES, ProviderName
from dropreel.model.ledger import ListedRun
from dropreel.model.prices import estimated_usd
from dropreel.render.spending import Limits, Room
from dropreel.runtime.settings import AdmissionSettings
from operate.choice import Execution
from operate.stack import PATIENT, DeployedStack, Outputs, environment_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        KeysAndAttributesOutputTypeDef,
        KeysAndAttributesTypeDef,
    )
    from mypy_boto3_stepfunctions import SFNClient

    Key = dict[str, AttributeValueTypeDef]

MAX_COUNTED: Final = 1_000
"""Of a queue, so many places are read: all of a long one are megabytes."""

_KEYS_A_CALL: Final = 100  # DynamoDB: the most that BatchGetItem takes
_CALLS_AT_ONCE: Final = 8
_DESCRIBED: Final = 50
"""Executions that no list has are asked one by one: those that were started last."""

_OF_A_RUN: Final = (
    *("pk", "sk", "provider", "attempt", "queue_key", "admitted_at", "rendered_at", "closed_at"),
    *("charged_on", "charged_usd", "kept_usd"),
)
_OF_AN_ATTEMPT: Final = (*("pk", "sk", "state", "provider", "accepted_at", "estimated_usd"),)
_ALLOWED_TO_WAIT: Final = {
    Room.NO_RENDERS_LEFT: "DailyRenderLimit is reached: waits for midnight UTC",
    Room.NO_USD_LEFT: "DailySpendLimitUsd is reached: waits for midnight UTC",
    Room.NEVER: "its render costs more than DailySpendLimitUsd",
}

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Queue:
    """The runs that wait for a provider."""

    provider: str
    names: Sequence[str]
    """Of their executions, the next first: `MAX_COUNTED` at most."""
    waits_for: str
    """Why the first one waits, in words; empty when it is about to go on."""


class Lists:
    """Of one stack. Satisfies `jobs.Runs`."""

    def __init__(self, outputs: Outputs) -> None:
        """Raises `OutputMissing`."""
        self._table = outputs["LedgerTable"]
        self._machine = outputs["StateMachineArn"]
        self._settings_of = outputs["SweepFunctionName"]
        self._deployed = DeployedStack(outputs)
        config = PATIENT.merge(Config(max_pool_connections=_CALLS_AT_ONCE))
        self._client: DynamoDBClient = boto3.client("dynamodb", config=config)
        self._states: SFNClient = boto3.client("stepfunctions", config=config)

    def open(self) -> list[ListedRun]:
        return list(map(listed_run, self._query("open")))

    def ended_since(self, since: datetime, now: datetime) -> Iterator[ListedRun]:
        """The last first. A day is read when it is asked for."""
        since = max(since, now - KEPT).astimezone(UTC)
        day = now.astimezone(UTC)
        while day.date() >= since.date():
            pk = ended_key(day, "")["pk"]["S"]
            from_time = ended_key(since, "")["sk"]["S"] if day.date() == since.date() else ""
            yield from map(listed_run, self._query(pk, from_time))
            day -= timedelta(days=1)

    def _query(self, pk: str, from_sk: str = "") -> Iterator[Any]:
        values = {":pk": {"S": pk}} | ({":sk": {"S": from_sk}} if from_sk else {})
        for page in self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk" + " AND sk >= :sk" * bool(from_sk),
            ExpressionAttributeValues=values,
            ScanIndexForward=False,
        ):
            yield from page["Items"]

    def runs(self, listed: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Fields]:
        """What admission has recorded of these runs, by job id and number."""
        return self._by_number([run_key(*one) for one in listed], _OF_A_RUN)

    def attempts(self, numbers: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Fields]:
        """By job id and number."""
        return self._by_number([attempt_key(*one) for one in numbers], _OF_AN_ATTEMPT)

    def last_attempt(self, job_id: str) -> int | None:
        attempts = self._deployed.attempts(job_id)
        return attempts[-1].number if attempts else None

    def _by_number(
        self, keys: "Sequence[Key]", fields: Sequence[str]
    ) -> dict[tuple[str, int], Fields]:
        with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
            parts = pool.map(
                lambda first: self._batch(keys[first : first + _KEYS_A_CALL], fields),
                range(0, len(keys), _KEYS_A_CALL),
            )
        deserialize = TypeDeserializer().deserialize
        items = [
            {name: deserialize(value) for name, value in item.items()}
            for part in parts
            for item in part
        ]
        return {
            (item["pk"].removeprefix("job#"), int(item["sk"].rpartition("#")[2])): item
            for item in items
        }

    def _batch(self, keys: "Sequence[Key]", fields: Sequence[str]) -> "list[Any]":
        asked: KeysAndAttributesTypeDef | KeysAndAttributesOutputTypeDef = {
            "Keys": keys,
            "ProjectionExpression": ", ".join(f"#{name}" for name in fields),
            "ExpressionAttributeNames": {f"#{name}": name for name in fields},
        }
        found: list[Any] = []
        while True:
            got = self._client.batch_get_item(RequestItems={self._table: asked})
            found += got["Responses"].get(self._table, [])
            if self._table not in got["UnprocessedKeys"]:
                return found
            asked = got["UnprocessedKeys"][self._table]
            time.sleep(0.2)  # it is throttled

    def newest_running(self, but: frozenset[str]) -> list[Execution]:
        """Of the executions that were started last and run: those of which no list knows, 50 at
        most. They are in Prepare, or of an earlier release. May lag behind by seconds."""
        page = self._states.list_executions(
            stateMachineArn=self._machine, statusFilter="RUNNING", maxResults=1000
        )
        names = [one["name"] for one in page["executions"] if one["name"] not in but]
        with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
            described = list(pool.map(self._deployed.execution, names[:_DESCRIBED]))
        return [one for one in described if one and one.status == "RUNNING"]

    def queues(self, now: datetime) -> dict[str, Queue]:
        """Of each provider."""
        try:
            variables = environment_of(self._settings_of)
            limits: Limits | None = limits_of(AdmissionSettings.model_validate(variables))
        except ValidationError:
            limits = None
        return {name: self._queue(name, limits, now) for name in TITLES}

    def _queue(self, provider: ProviderName, limits: Limits | None, now: datetime) -> Queue:
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"waiters#{provider}"}},
            ProjectionExpression="sk",
            PaginationConfig={"MaxItems": MAX_COUNTED},
        )
        keys = [item["sk"]["S"] for page in pages for item in page["Items"]]
        names = [key.partition("#")[2] for key in keys]
        reason = self._reason(provider, limits, now) if names else ""
        return Queue(provider, names, reason)

    def _reason(self, provider: ProviderName, limits: Limits | None, now: datetime) -> str:
        closed = self._client.get_item(
            TableName=self._table, Key={"pk": {"S": "closed"}, "sk": {"S": provider}}
        ).get("Item")
        code = closed.get("code", {}).get("S", "") if closed else ""
        if closed and "trial_at" not in closed:
            what = "has no credit" if code == "NoCredit" else "has refused the token"
            return f"{TITLES[provider]} {what} ({code})"
        if limits is None:
            return "the settings cannot be read"
        allowed = limits.in_flight.get(provider, 0)
        if not allowed:
            return f"{TITLES[provider]} is paused: its MaxInFlight is 0"
        slots = DynamoDBSlots(self._table, self._client)
        first = next(iter(slots.first_waiters(provider, 1)), None)
        if first is None:
            return ""
        usd = estimated_usd(first.route[first.offer], limits.catalog)
        if reason := _ALLOWED_TO_WAIT.get(limits.room_for(usd, slots.day(now.date()))):
            return reason
        taken = len(slots.leases(provider))
        reason = f"all slots are taken ({taken} of {allowed})" if taken >= allowed else ""
        on_trial = f"{TITLES[provider]} is on trial after {code}: it gets one job at a time"
        return on_trial if closed else reason
