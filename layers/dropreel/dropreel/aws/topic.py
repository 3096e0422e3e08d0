"""The topic of notices to people: an adapter for SNS."""

from dropreel.aws import clients


class Topic:
    def __init__(self, arn: str) -> None:
        self._arn = arn
        self._client = clients.sns()

    def publish(self, subject: str, text: str, event: str) -> None:
        """Send one message to all who subscribed, with the attribute `event` to filter by. A second
        call sends it again."""
        self._client.publish(
            TopicArn=self._arn,
            Subject=subject,
            Message=text,
            MessageAttributes={"event": {"DataType": "String", "StringValue": event}},
        )
