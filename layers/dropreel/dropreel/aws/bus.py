"""The event bus that Dropreel announces on: an adapter for EventBridge."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from pydantic import BaseModel

from dropreel.aws import clients
from dropreel.model.events import SOURCE, DetailType

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef


class EventNotTaken(Exception):
    """EventBridge answered but refused the event. A retry can help, also after a denial."""


class Bus:
    """Satisfies `events.Announcer`."""

    def __init__(
        self,
        name: str,
        client: "EventBridgeClient | None" = None,
        config: "Config" = clients.BUS,
    ) -> None:
        self._name = name
        self._given = client
        self._config = config

    @cached_property
    def _client(self) -> "EventBridgeClient":
        """Made on first use: most calls announce nothing, and a client adds 0.1 s to a start."""
        return self._given or clients.events(self._config)

    def announce(
        self, detail_type: DetailType, detail: BaseModel, resources: Sequence[str] = ()
    ) -> None:
        """Put one event, about the ARNs in `resources`, on the bus. Raises `EventNotTaken`."""
        entry: PutEventsRequestEntryTypeDef = {
            "Source": SOURCE,
            "DetailType": detail_type,
            "Detail": detail.model_dump_json(),
            "Resources": list(resources),
            "EventBusName": self._name,
        }
        try:
            answer = self._client.put_events(Entries=[entry])
        except ClientError as error:
            if error.response["Error"]["Code"] == "AccessDeniedException":
                raise EventNotTaken(self._denied(detail_type)) from error
            raise
        if answer["FailedEntryCount"]:  # PutEvents succeeds even when an entry fails
            refused = answer["Entries"][0]
            raise EventNotTaken(
                f"{detail_type}: {refused.get('ErrorCode')}: {refused.get('ErrorMessage')}"
            )

    def _denied(self, detail_type: DetailType) -> str:
        return (
            f"{detail_type}: the event bus {self._name} denies events:PutEvents to Dropreel. Allow "
            "it in the resource policy of the bus, or in the policies of your organization. Then "
            "do what docs/operating.md, Alarms, says of the alarm."
        )
