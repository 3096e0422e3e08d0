"""What is measured of a run that has ended: its outcome, how long its parts took, what it cost."""

from dropreel.model import errors
from dropreel.model.events import Ended, JobChecked, VideoFailed, VideoReady
from dropreel.model.metrics import Meter, Metric

OUTCOMES = (Metric.JOBS_READY, Metric.JOBS_REFUSED, Metric.JOBS_FAILED)
NO_FAULT = frozenset(
    kind.__name__
    for kind in (
        errors.InputRejected,
        errors.InputGone,
        errors.RenderModerated,
        errors.RenderRejected,
        errors.ExecutionAborted,
    )
)
"""The codes of runs that ended by what people dropped or did. An operator has nothing to mend."""


def measure(detail: Ended, meter: Meter) -> None:
    """Record the run, for the stack as a whole, and for its provider and model if it has any. A
    check is none of the jobs that are counted."""
    if isinstance(detail, JobChecked):
        return
    values = _values(detail)
    meter.record(values)
    if detail.render:
        # Prepare has found the model in the catalog, so it is none that a person invented.
        meter.record(values, provider=detail.render.provider, model=detail.job.model)


def _outcome(detail: VideoReady | VideoFailed) -> Metric:
    if isinstance(detail, VideoReady):
        return Metric.JOBS_READY
    return Metric.JOBS_REFUSED if detail.error.code in NO_FAULT else Metric.JOBS_FAILED


def _values(detail: VideoReady | VideoFailed) -> dict[Metric, float]:
    """Each outcome has a value, most of them 0: so a share of them is a division, and a metric
    without data means that nothing ended."""
    outcome = _outcome(detail)
    values: dict[Metric, float | None] = {
        **{metric: metric is outcome for metric in OUTCOMES},
        Metric.ESTIMATED_USD: detail.estimated_usd,
    }
    if isinstance(detail, VideoReady):
        values |= {
            Metric.QUEUED_SECONDS: detail.render.queued_seconds,
            Metric.RENDERING_SECONDS: detail.render.rendering_seconds,
            Metric.COPYING_SECONDS: detail.render.copying_seconds,
            Metric.ACTUAL_USD: detail.actual_usd,
        }
    return {metric: value for metric, value in values.items() if value is not None}
