"""The closed providers in the ledger. For the items see docs/architecture.md, "The ledger"."""

from typing import TYPE_CHECKING, TypedDict

from dropreel.aws import clients
from dropreel.model.closure import Closure

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = dict[str, AttributeValueTypeDef]

_PK: "Item" = {"pk": {"S": "closed"}}


class DynamoDBClosures:
    """Satisfies `closing.Closures`."""

    def __init__(self, table: str, client: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._client = client or clients.dynamodb()

    def all(self) -> tuple[Closure, ...]:
        found = self._client.query(  # one page: an item for each provider
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": _PK["pk"]},
            ConsistentRead=True,
        )
        return tuple(map(_closure, found["Items"]))

    def put(self, closure: Closure, seen: Closure | None) -> bool:
        if seen:
            condition: _Condition = _if_unchanged(seen)
        else:
            condition = {"ConditionExpression": "attribute_not_exists(pk)"}
        try:
            self._client.put_item(
                TableName=self._table, Item=_key(closure) | _item(closure), **condition
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def open(self, seen: Closure) -> bool:
        try:
            self._client.delete_item(TableName=self._table, Key=_key(seen), **_if_unchanged(seen))
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


class _Condition(TypedDict, total=False):
    ConditionExpression: str
    ExpressionAttributeValues: "Item"


def _if_unchanged(seen: Closure) -> _Condition:
    """Whether the item is the one that was seen, whenever the provider was asked since."""
    item = _item(seen)
    values = {f":{name}": item[name] for name in ("closed_at", "trial_at") if name in item}
    trial = "trial_at = :trial_at" if "trial_at" in item else "attribute_not_exists(trial_at)"
    return {
        "ConditionExpression": f"closed_at = :closed_at AND {trial}",
        "ExpressionAttributeValues": values,
    }


def _key(closure: Closure) -> "Item":
    return _PK | {"sk": {"S": closure.provider}}


def _item(closure: Closure) -> "Item":
    fields = closure.model_dump(mode="json", exclude_none=True, exclude={"provider"})
    return {
        name: {"N": str(value)} if isinstance(value, int) else {"S": value}
        for name, value in fields.items()
    }


def _closure(item: "Item") -> Closure:
    fields = {name: value.get("N") or value.get("S") for name, value in item.items()}
    return Closure.model_validate(fields | {"provider": item["sk"]["S"]})
