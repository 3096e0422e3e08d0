"""The event bus that Dropreel announces on: an adapter for EventBridge."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import BaseModel

from dropreel.aws import clients
from dropreel.model.events import SOURCE, DetailType

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient


class EventNotTaken(Exception):
    """EventBridge answered but refused the event. A retry can help."""


class Bus:
    def __init__(self, name: str, client: "EventBridgeClient | None" = None) -> None:
        self._name = name
        self._given = client

    @cached_property
    def _client(self) -> "EventBridgeClient":
        """Made on first use: most calls announce nothing, and a client adds 0.1 s to a start."""
        return self._given or clients.events()

    def announce(
        self, detail_type: DetailType, detail: BaseModel, resources: Sequence[str] = ()
    ) -> None:
        """Put one event, about the ARNs in `resources`, on the bus. Raises `EventNotTaken`."""
        answer = self._client.put_events(
            Entries=[
                {
                    "Source": SOURCE,
                    "DetailType": detail_type,
                    "Detail": detail.model_dump_json(),
                    "Resources": list(resources),
                    "EventBusName": self._name,
                }
            ]
        )
        if answer["FailedEntryCount"]:  # PutEvents succeeds even when an entry fails
            entry = answer["Entries"][0]
            raise EventNotTaken(
                f"{detail_type}: {entry.get('ErrorCode')}: {entry.get('ErrorMessage')}"
            )
