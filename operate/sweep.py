"""Do now what the daily sweep does."""

from typing import Final

import boto3
from botocore.config import Config

from operate.errors import OperateError

# As long as a function may run, and only once: the answer comes when it is through.
_WAITS: Final = Config(
    connect_timeout=10, read_timeout=900, tcp_keepalive=True, retries={"total_max_attempts": 1}
)


def sweep(function: str) -> None:
    """Raises `OperateError` if the function fails."""
    answer = boto3.client("lambda", config=_WAITS).invoke(FunctionName=function)
    if error := answer.get("FunctionError"):
        raise OperateError(f"The sweep failed ({error}): see the log group /aws/lambda/{function}")
