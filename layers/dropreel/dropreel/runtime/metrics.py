"""Metrics as log lines in CloudWatch's embedded metric format (EMF). CloudWatch reads them there,
so they need no call and no right."""

from collections.abc import Mapping

from aws_lambda_powertools.metrics import EphemeralMetrics

from dropreel.model.metrics import Metric
from dropreel.runtime.log import logger

NAMESPACE = "Dropreel"
_NAMES_OF_A_JOB = {"job_id", "run", "folder", "attempt"}  # to be found in the logs; no dimensions


class EmfMeter:
    """Satisfies `Meter`. The dimension `service` is the stack's name, POWERTOOLS_SERVICE_NAME."""

    def record(
        self,
        values: Mapping[Metric, float],
        *,
        provider: str | None = None,
        model: str | None = None,
    ) -> None:
        line = EphemeralMetrics(namespace=NAMESPACE)  # one for each line: it shares no state
        for metric, value in values.items():
            line.add_metric(metric, metric.unit, value)
        for name, text in {"provider": provider, "model": model}.items():
            if text is not None:
                line.add_dimension(name, text)
        for name, known in logger.get_current_keys().items():
            if name in _NAMES_OF_A_JOB:
                line.add_metadata(name, known)
        line.flush_metrics()
