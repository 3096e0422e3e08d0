"""How a step ends a job: the one error that the state machine does not retry."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from dropreel.model.errors import DropreelError, ErrorReport, FinalAnswer


@dataclass
class Ended:
    reports: list[ErrorReport] = field(default_factory=list)

    @property
    def report(self) -> ErrorReport:
        [report] = self.reports
        return report


@contextmanager
def ends_in(reason: type[DropreelError], words: str = "") -> Iterator[Ended]:
    """The handler ends the job for this reason, with these words, and keeps the cause."""
    ended = Ended()
    with pytest.raises(FinalAnswer) as raised:
        yield ended
    cause = raised.value.__cause__
    assert type(cause) is reason
    assert isinstance(cause, DropreelError)
    ended.reports.append(ErrorReport.model_validate_json(str(raised.value)))
    assert ended.report == cause.report
    assert words in ended.report.message
