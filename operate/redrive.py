"""Send the uploads on which intake failed through intake again."""

import boto3

from operate.stack import PATIENT


def redrive(dead_letters_url: str) -> None:
    """Move the dead letters back to the queue that they came from."""
    sqs = boto3.client("sqs", config=PATIENT)
    queue = sqs.get_queue_attributes(QueueUrl=dead_letters_url, AttributeNames=["QueueArn"])
    sqs.start_message_move_task(SourceArn=queue["Attributes"]["QueueArn"])
