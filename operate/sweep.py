"""Run the sweep now."""

from typing import Final

import boto3
from botocore.config import Config

from operate.errors import OperateError

# A function may run for 900 s and answers at its end. A retry would start a second sweep.
_ONE_LONG_CALL: Final = Config(
    connect_timeout=10, read_timeout=900, tcp_keepalive=True, retries={"total_max_attempts": 1}
)


def sweep(function: str) -> None:
    """Raises `OperateError` if the function fails."""
    answer = boto3.client("lambda", config=_ONE_LONG_CALL).invoke(FunctionName=function)
    if error := answer.get("FunctionError"):
        name = function.partition(":")[0]  # without the alias
        raise OperateError(f"The sweep failed ({error}): see the log group /aws/lambda/{name}")
