"""What the operator's reports cost with many jobs in the ledger, in moto: seconds, calls, units.

`python -m tests.bench.reports --jobs 100000` (see docs/operating.md). moto answers slower than
DynamoDB; the calls and the read units are those of AWS: half a unit for each 4 KB of a page.
"""

import argparse
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from math import ceil
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from dropreel.aws.ledger import DynamoDBLedger, open_item
from operate.__main__ import app
from operate.stack import Outputs
from tests.support.admission_fakes import Account, job_named
from tests.support.conclusion_bench import READY, told
from tests.support.render_account import LEDGER, REGION, UPLOADS, render_account
from tests.support.render_fakes import ENVIRONMENT

OUTPUTS = Outputs(
    StateMachineArn=ENVIRONMENT["STATE_MACHINE_ARN"],
    LedgerTable=LEDGER,
    SweepFunctionName="dropreel-sweep:live",
    UploadBucket=UPLOADS,
)


class Meter:
    """Counts the calls to DynamoDB, and the bytes of their answers."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.units = 0.0

    def read(self, parsed: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401
        self.calls[model.name] += 1
        size = len(json.dumps(parsed, default=str))
        self.units += ceil(size / 4096) / 2


def fill(ended: int, is_open: int, days: int) -> None:
    """Directly into moto's table: a hundred thousand calls would take minutes."""
    from moto.dynamodb.models import dynamodb_backends

    puts: list[dict[str, Any]] = []
    noted: Any = SimpleNamespace(
        put_item=lambda TableName, Item: puts.append(Item),  # noqa: N803
        delete_item=lambda **_: None,
    )
    ledger = DynamoDBLedger(LEDGER, noted)
    now = datetime.now(UTC)
    made = told("VideoReady", "", estimated_usd=0.5)
    render = READY.detail.render.model_copy(update={"attempts": (made,)})  # type: ignore[union-attr]
    for number in range(ended):
        job = job_named(f"video{number:06}")
        at = now - timedelta(days=days) * (number / ended)
        summary = READY.detail.job.model_copy(
            update={
                "id": job.id,
                "stem": job.stem,
                "folder": f"team{number % 20}/",
                "started_at": at,
            }
        )
        detail = READY.detail.model_copy(update={"job": summary, "ended_at": at, "render": render})
        ledger.list_ended(READY.model_copy(update={"detail": detail}))
    puts += [open_item(job_named(f"open{number:06}"), now) for number in range(is_open)]
    table = dynamodb_backends["123456789012"][REGION].get_table(LEDGER)
    for item in puts:
        table.put_item(item)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--open", type=int, default=1_000)
    asked = parser.parse_args()
    patch = pytest.MonkeyPatch()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "testing")
    patch.setenv("AWS_DEFAULT_REGION", REGION)
    patch.setattr("operate.__main__.outputs_of", lambda stack: OUTPUTS)
    patch.setattr("operate.reports.lists.environment_of", lambda _: ENVIRONMENT)
    with render_account(patch) as account:
        boto3.client("stepfunctions").create_state_machine(
            name="dropreel-render", definition="{}", roleArn="arn:aws:iam::123456789012:role/render"
        )
        admission = Account(account.dynamodb, patch)
        job = job_named("waits")
        admission.admit(job)  # first: moto copies the whole table for each transaction
        fill(asked.jobs, asked.open, days=30)
        really: Any = boto3.client

        def metered(name: str, **given: Any) -> Any:  # noqa: ANN401
            client = really(name, **given)
            if name == "dynamodb":
                client.meta.events.register("after-call.dynamodb", meter.read)
            return client

        patch.setattr(boto3, "client", metered)
        print(f"{asked.jobs} ended in 30 days, {asked.open} open")
        for command in (
            ["jobs", "--since", "1d"],
            ["jobs", "--since", "30d"],
            ["job", job.id, "--no-log"],
            ["cost", "--since", "1d"],
            ["jobs", "--since", "2d", "--state", "failed"],
            ["cost", "--since", "30d", "--by", "folder"],
        ):
            meter = Meter()
            begun = time.monotonic()
            said = CliRunner().invoke(app, [*command, "--json"])
            assert said.exit_code == 0, said.output
            seconds = time.monotonic() - begun
            print(
                f"{' '.join(command):45} {seconds:6.1f} s, {dict(meter.calls)}, "
                f"about {meter.units:.0f} read units",
                flush=True,
            )
    patch.undo()


if __name__ == "__main__":
    main()
