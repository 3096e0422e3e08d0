"""A stand-in for who writes metrics."""

from collections.abc import Mapping

from dropreel.model.metrics import Metric

Recorded = Mapping[Metric, float]


class FakeMeter:
    """Satisfies `Meter`."""

    def __init__(self) -> None:
        self.recorded: list[tuple[tuple[str | None, str | None], Recorded]] = []

    def record(
        self, values: Recorded, *, provider: str | None = None, model: str | None = None
    ) -> None:
        self.recorded.append(((provider, model), values))
