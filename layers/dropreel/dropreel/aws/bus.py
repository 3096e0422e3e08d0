"""The event bus that Dropreel announces on: an adapter for EventBridge's PutEvents."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import BaseModel

from dropreel.aws import clients
from dropreel.model.events import SOURCE, DetailType

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient


class EventNotTaken(Exception):
    """EventBridge answered, and did not take the event. Announcing it again can help."""


class Bus:
    """The published events' way out. Made once per function environment."""

    def __init__(self, name: str, client: "EventBridgeClient | None" = None) -> None:
        self._name = name
        self._given = client

    @cached_property
    def _client(self) -> "EventBridgeClient":
        """Made when it is first needed: most runs say nothing here, and a client costs a cold
        start a tenth of a second."""
        return self._given or clients.events()

    def announce(
        self, detail_type: DetailType, detail: BaseModel, resources: Sequence[str] = ()
    ) -> None:
        """Put one event on the bus.

        `resources` are the ARNs of what the event is about. Raises `EventNotTaken`: PutEvents
        itself succeeds when an entry of it fails.
        """
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
        if answer["FailedEntryCount"]:
            entry = answer["Entries"][0]
            raise EventNotTaken(
                f"{detail_type}: {entry.get('ErrorCode')}: {entry.get('ErrorMessage')}"
            )
