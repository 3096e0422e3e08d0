"""Notify writes an event of the bus in words, and sends it to the topic for people."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from dropreel.aws.topic import Topic
from dropreel.outcome.notice import AnnouncedEvent, notice_of
from dropreel.runtime.log import logger
from dropreel.runtime.settings import NotifySettings

settings = NotifySettings.from_environment()
topic = Topic(settings.notify_topic)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    announced = AnnouncedEvent.model_validate(event)
    logger.append_keys(**announced.log_keys)
    notice = notice_of(announced)
    topic.publish(notice.subject, notice.text, event["detail-type"])
    logger.info("Notice sent: %s", event["detail-type"])
