"""Links to the AWS console: they open for who is signed in, and grant nothing."""

from typing import Final
from urllib.parse import quote

_DOMAINS: Final = {"aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}


class Console:
    """Of the partition and the region of an ARN."""

    def __init__(self, arn: str) -> None:
        _, partition, _, self._region, *_ = arn.split(":")
        self._start = f"https://{self._region}.{_DOMAINS.get(partition, 'console.aws.amazon.com')}"

    def execution(self, arn: str) -> str:
        page = f"#/v2/executions/details/{arn}"
        return f"{self._start}/states/home?region={self._region}{page}"

    def file(self, bucket: str, key: str) -> str:
        prefix = quote(key, safe="")
        return f"{self._start}/s3/object/{bucket}?region={self._region}&prefix={prefix}"

    def log_group(self, name: str) -> str:
        # The console wants it encoded twice, with $ for %.
        encoded = quote(quote(name, safe=""), safe="").replace("%", "$")
        page = f"#logsV2:log-groups/log-group/{encoded}"
        return f"{self._start}/cloudwatch/home?region={self._region}{page}"
