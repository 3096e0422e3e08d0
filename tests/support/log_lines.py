"""What the functions log, as it arrives in CloudWatch."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

from dropreel.runtime.log import logger

Line = dict[str, Any]


class Lines(StringIO):
    def taken(self) -> list[Line]:
        """Those since the last look."""
        lines = [json.loads(line) for line in self.getvalue().splitlines()]
        self.seek(0)
        self.truncate()
        return lines


@contextmanager
def log_lines() -> Iterator[Lines]:
    handler = logger.registered_handler
    assert hasattr(handler, "setStream")
    lines = Lines()
    before = handler.setStream(lines)
    logger.clear_state()
    try:
        yield lines
    finally:
        handler.setStream(before)
        logger.clear_state()


def keys_of(line: Line) -> tuple[object, object, object]:
    """The job that a line names; a key that is missing is an error."""
    return line["job_id"], line["run"], line["folder"]
