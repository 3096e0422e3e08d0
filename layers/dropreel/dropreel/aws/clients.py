"""boto3's clients, all with the same retries: one for each service and process.

To make one costs a cold start 10 to 50 ms, mostly to read the service's model.
"""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Protocol

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient


class Publisher(Protocol):
    """What we use of the client of SNS."""

    def publish(
        self,
        *,
        TopicArn: str,  # noqa: N803
        Subject: str,  # noqa: N803
        Message: str,  # noqa: N803
        MessageAttributes: Mapping[str, Mapping[str, str]],  # noqa: N803
    ) -> object: ...


_RETRIES = Config(retries={"mode": "standard", "max_attempts": 5})

BUS = _RETRIES.merge(Config(connect_timeout=2, read_timeout=5))
"""All tries together fit into the functions that announce."""

DISPLAY = Config(
    retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=1, read_timeout=2
)
"""One try: for events that nobody waits for."""

TABLE = _RETRIES.merge(Config(connect_timeout=2, read_timeout=3))
"""Short timeouts: the table answers in milliseconds, or not at all."""

# SigV4 and the bucket's regional address, as KMS and the newer regions require. By default
# botocore presigns the old way in us-east-1, and with the global address elsewhere.
BUCKETS = _RETRIES.merge(
    Config(
        signature_version="s3v4",
        s3={"addressing_style": "virtual"},
        connect_timeout=5,
        read_timeout=30,
    )
)


@cache
def dynamodb() -> "DynamoDBClient":
    return boto3.client("dynamodb", config=TABLE)


@cache
def events(config: Config = BUS) -> "EventBridgeClient":
    return boto3.client("events", config=config)


@cache
def functions() -> "LambdaClient":
    return boto3.client("lambda", config=_RETRIES)


@cache
def s3() -> "S3Client":
    return boto3.client("s3", config=BUCKETS)


@cache
def sns() -> "Publisher":
    client: Publisher = boto3.client("sns", config=BUS)
    return client


@cache
def sqs() -> "SQSClient":
    return boto3.client("sqs", config=_RETRIES)


@cache
def stepfunctions() -> "SFNClient":
    return boto3.client("stepfunctions", config=_RETRIES)
