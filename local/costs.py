"""What AWS costs: `docs/costs.md`, from counts that `make costs` recorded beside it.

    python -m local.costs        writes the page anew from docs/costs.json and template.yaml

Nothing here counts: `tests.bench.costs` does. Functions, alarms, schedules and secrets are read
from the template, so the page follows it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from dropreel.model.timing import next_wait_seconds
from local.embedded import PROJECT

PAGE = PROJECT / "docs/costs.md"
RECORD = PROJECT / "docs/costs.json"
PAGE_TEXT = PROJECT / "local/costs_page.txt"
TEMPLATE = PROJECT / "template.yaml"

RENDER_MINUTES = (1, 5, 20)
MONTH_HOURS = 730
# AWS documents five batches at once for a standard queue. A long poll lasts 20 s at most.
QUEUE_POLLERS = 5
LONG_POLL_SECONDS = 20

Amounts = dict[str, float]
"""Amounts of what AWS charges for, by the names in `PRICES`."""


@dataclass(frozen=True)
class Price:
    """US dollars for a number of units."""

    usd: float
    units: float
    page: str
    """The service whose pricing page has it: aws.amazon.com/<page>/pricing."""

    def of(self, amount: float) -> float:
        return self.usd * amount / self.units


METRICS = "metrics, for a month"

PRICES_READ_ON = "29 November 2026"
PRICES: Mapping[str, Price] = {
    "state transitions": Price(0.025, 1_000, "step-functions"),
    "function calls": Price(0.20, 1e6, "lambda"),
    "GB-seconds of functions": Price(0.0000133334, 1, "lambda"),  # arm64, the default
    "ledger write units": Price(0.625, 1e6, "dynamodb"),
    "ledger read units": Price(0.125, 1e6, "dynamodb"),
    "S3 writes and lists": Price(0.005, 1_000, "s3"),
    "S3 reads": Price(0.0004, 1_000, "s3"),
    "events": Price(1.00, 1e6, "eventbridge"),
    "queue requests": Price(0.40, 1e6, "sqs"),
    "secret reads": Price(0.05, 10_000, "secrets-manager"),
    "kB of logs, written": Price(0.50, 1e6, "cloudwatch"),
    "kB of logs, kept for a month": Price(0.03, 1e6, "cloudwatch"),
    "MB sent to the provider": Price(0.09, 1_000, "s3"),
    "traces": Price(5.00, 1e6, "xray"),
    METRICS: Price(0.30, 1, "cloudwatch"),
    "alarms, for a month": Price(0.10, 1, "cloudwatch"),
    "dashboards, for a month": Price(3.00, 1, "cloudwatch"),
    "secrets, for a month": Price(0.40, 1, "secrets-manager"),
}
"""Of us-east-1, without the free tier."""


class Counted(BaseModel, frozen=True):
    """What one job, or one call of a schedule, came to."""

    calls: dict[str, float]
    """By function."""
    billed_ms: dict[str, float]
    """By function. Durations of the machine that measured."""
    amounts: Amounts
    """All but function calls and GB-seconds."""


class Recorded(BaseModel, frozen=True):
    """What `make costs` found."""

    measured_on: str
    machine: str
    input_bytes: int
    short: Counted
    """A job with a few polls."""
    long: Counted
    """The same job with more polls, so that the difference is what a poll costs."""
    schedules: dict[str, Counted]
    """One call of each rule that has a schedule."""


# --- A job ---


def polls(render_seconds: float) -> int:
    """How often a render of this length is asked for, from the first poll to the one that finds it
    ready."""
    at, count = 0.0, 0
    while at < render_seconds:
        at += next_wait_seconds(at)
        count += 1
    return count


def job_of(recorded: Recorded, number_of_polls: int) -> Counted:
    """A job with that many polls: the short one, and what a poll costs for each poll more."""
    short, long = recorded.short, recorded.long
    more = number_of_polls - short.calls["poll"]
    share = more / (long.calls["poll"] - short.calls["poll"])

    # Only the polls: other functions do the same in both, however long they took this time.
    def grown(few: Mapping[str, float], many: Mapping[str, float], name: str) -> float:
        return few.get(name, 0) + share * (many.get(name, 0) - few.get(name, 0))

    amounts = {
        name: grown(short.amounts, long.amounts, name)
        for name in {**short.amounts, **long.amounts}
        if name != METRICS  # AWS charges them by the hour, however many jobs end in it
    }
    return Counted(
        calls=short.calls | {"poll": number_of_polls},
        billed_ms=short.billed_ms | {"poll": grown(short.billed_ms, long.billed_ms, "poll")},
        amounts=amounts,
    )


def all_amounts(counted: Counted, memory_mb: Mapping[str, int]) -> Amounts:
    """What it came to, with its function calls and their memory."""
    return {
        **counted.amounts,
        "function calls": sum(counted.calls.values()),
        "GB-seconds of functions": sum(gb_seconds(counted, memory_mb).values()),
    }


def gb_seconds(counted: Counted, memory_mb: Mapping[str, int]) -> dict[str, float]:
    """By function: the time it is billed for, times the memory that the template gives it."""
    return {
        name: milliseconds / 1_000 * memory_mb[name] / 1_024
        for name, milliseconds in counted.billed_ms.items()
    }


def usd(amounts: Amounts) -> float:
    return sum(PRICES[name].of(amount) for name, amount in amounts.items())


# --- A month without a job ---


def month_without_jobs(template: Mapping[str, Any], recorded: Recorded) -> dict[str, Amounts]:
    """By what it is for."""
    resources: Mapping[str, Any] = template["Resources"]
    kinds = [resource["Type"] for resource in resources.values()]
    memory_mb = memory_of_functions(template)
    found: dict[str, Amounts] = {}
    for name, resource in resources.items():
        if schedule := resource.get("Properties", {}).get("ScheduleExpression"):
            if name not in recorded.schedules:
                raise SystemExit(f"A call of {name} was not counted yet: run `make costs`")
            once = all_amounts(recorded.schedules[name], memory_mb)
            metrics = once.pop(METRICS, 0)
            times = calls_a_month(schedule)
            found[f"the schedule `{name}`, {times:,.0f} calls"] = {
                **{unit: times * amount for unit, amount in once.items()},
                # A metric costs its hour as soon as it is sent in it, and each schedule is at
                # least hourly.
                **({METRICS: metrics} if metrics else {}),
            }
    queues = sum(
        event["Type"] == "SQS"
        for resource in resources.values()
        for event in resource.get("Properties", {}).get("Events", {}).values()
    )
    long_polls = queues * QUEUE_POLLERS * MONTH_HOURS * 3_600 / LONG_POLL_SECONDS
    found[f"Lambda's polls of the queue, {long_polls:,.0f}"] = {"queue requests": long_polls}
    for kind, unit in {
        "AWS::SecretsManager::Secret": "secrets, for a month",
        "AWS::CloudWatch::Alarm": "alarms, for a month",
        "AWS::CloudWatch::Dashboard": "dashboards, for a month",
    }.items():
        if number := kinds.count(kind):
            found[
                f"{number} {unit.partition(',')[0] if number > 1 else unit[: unit.index('s,')]}"
            ] = {unit: number}
    return found


def calls_a_month(schedule: str) -> float:
    """Of `rate(...)`, or of a `cron(...)` that names a minute, and an hour or none."""
    kind, _, inside = schedule.rstrip(")").partition("(")
    if kind == "rate":
        number, unit = inside.split()
        hours = {"minute": 1 / 60, "hour": 1, "day": 24}[unit.rstrip("s")] * int(number)
        return MONTH_HOURS / hours
    minute, hour, *_ = inside.split()
    if not minute.isdigit() or not (hour == "*" or hour.isdigit()):
        raise ValueError(f"How often is {schedule}?")
    return MONTH_HOURS if hour == "*" else MONTH_HOURS / 24


def memory_of_functions(template: Mapping[str, Any]) -> dict[str, int]:
    """In MB, by the function's name without the stack's."""
    common = template["Globals"]["Function"]["MemorySize"]
    return {
        name_of(resource): resource["Properties"].get("MemorySize", common)
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    }


def name_of(function: Mapping[str, Any]) -> str:
    name: str = function["Properties"]["FunctionName"]
    return name.removeprefix("${AWS::StackName}-")


# --- The page ---


class _Loader(yaml.SafeLoader):
    """Knows CloudFormation's short forms: `!Sub text` is its text, all others are lists or maps."""


def _short_form(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]


_Loader.add_multi_constructor("!", _short_form)


def read_template() -> dict[str, Any]:
    template: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)  # noqa: S506 - a SafeLoader
    return template


def read_record() -> Recorded:
    return Recorded.model_validate_json(RECORD.read_text())


def page(template: Mapping[str, Any], recorded: Recorded) -> str:
    memory_mb = memory_of_functions(template)
    numbers = {minutes: polls(60 * minutes) for minutes in RENDER_MINUTES}
    jobs = {minutes: job_of(recorded, number) for minutes, number in numbers.items()}
    amounts = {minutes: all_amounts(job, memory_mb) for minutes, job in jobs.items()}
    sums = {minutes: usd(found) for minutes, found in amounts.items()}
    month = month_without_jobs(template, recorded)
    metrics = {METRICS: recorded.short.amounts.get(METRICS, 0)}
    return PAGE_TEXT.read_text().format(
        five_cents=f"{100 * sums[5]:.2f}",
        month_usd=f"{sum(map(usd, month.values())):.2f}",
        minutes=" | ".join(f"{minutes} min" for minutes in RENDER_MINUTES),
        polls=" | ".join(str(number) for number in numbers.values()),
        job="\n".join(_job_lines(amounts)),
        job_sums=" | ".join(f"**{100 * found:.3f}**" for found in sums.values()),
        functions="\n".join(_function_lines(jobs[5], memory_mb)),
        month="\n".join(f"| {what} | ${usd(found):.2f} |" for what, found in month.items()),
        metrics=f"{metrics[METRICS] * MONTH_HOURS:.0f}",
        metrics_cents=f"{100 * usd(metrics):.1f}",
        prices="\n".join(_price_lines()),
        prices_read_on=PRICES_READ_ON,
        measured_on=recorded.measured_on,
        machine=recorded.machine,
        input_mb=f"{recorded.input_bytes / 1e6:.1f}",
    )


def _job_lines(amounts: Mapping[int, Amounts]) -> Iterator[str]:
    for name, price in PRICES.items():
        found = [amounts[minutes].get(name, 0) for minutes in RENDER_MINUTES]
        if any(found):
            cells = (f"{_short(amount)}: {100 * price.of(amount):.4f}" for amount in found)
            yield f"| {name} | {' | '.join(cells)} |"


def _function_lines(job: Counted, memory_mb: Mapping[str, int]) -> Iterator[str]:
    for name, spent in gb_seconds(job, memory_mb).items():
        seconds = job.billed_ms[name] / 1_000 / job.calls[name]
        cells = f"{job.calls[name]:g} | {memory_mb[name]} MB | {seconds:.2f} s | {spent:.3f}"
        yield f"| {name} | {cells} |"


def _price_lines() -> Iterator[str]:
    for name, price in PRICES.items():
        units = f"{price.units:,.0f} " if price.units != 1 else ""
        where = f"[{price.page}](https://aws.amazon.com/{price.page}/pricing/)"
        yield f"| {units}{name} | ${_plain(price.usd)} | {where} |"


def _short(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 20 or amount == int(amount) else f"{amount:.3g}"


def _plain(amount: float) -> str:
    digits = f"{amount:.10f}".rstrip("0")
    return digits if len(digits.partition(".")[2]) > 1 else f"{amount:.2f}"


def main() -> int:
    PAGE.write_text(page(read_template(), read_record()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
