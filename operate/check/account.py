"""What the check does with AWS. Satisfies `chain.Account`."""

import io
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import boto3
from botocore.exceptions import ClientError

from dropreel.aws import clients
from dropreel.aws.s3 import S3Storage
from dropreel.aws.uploads import UsedUploads
from dropreel.model.closure import AskedProvider
from dropreel.model.executions import execution_arn
from dropreel.model.harmless import harmless
from dropreel.model.ledger import Outcome
from operate.accounts import ask_providers
from operate.check.links import Inflow
from operate.choice import Execution
from operate.errors import OperateError
from operate.stack import PATIENT, DeployedStack, environment_of, outputs_of

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

SAMPLES: Final = Path(__file__).resolve().parents[2] / "samples"
VOICE_SECONDS: Final = 3
"""The shortest that a provider bills as what it is."""

_PART_BYTES: Final = 5 << 20  # S3: the smallest that any part but the last may have
_MAX_MESSAGE_CHARACTERS: Final = 400
_DENIED: Final = {"AccessDenied", "AccessDeniedException", "AuthorizationError"}

T = TypeVar("T")


class DeployedAccount:
    """A stack and its buckets, with the credentials of who runs the check."""

    def __init__(self, name: str) -> None:
        """Raises `NoSuchStack` and `OutputMissing`, and `OperateError` without the settings."""
        outputs = outputs_of(name)
        self.name = name
        self.upload_bucket = outputs["UploadBucket"]
        self.video_bucket = outputs["VideoBucket"]
        self.prefix = outputs["UploadPrefix"]
        self._work_bucket = outputs["WorkBucket"]
        self._outputs = outputs
        self._machine = outputs["StateMachineArn"]
        self._stack = DeployedStack(outputs)
        self._uploads = UsedUploads(
            outputs["LedgerTable"], boto3.client("dynamodb", config=PATIENT)
        )
        self._s3: S3Client = clients.s3()
        self._storage = S3Storage(self._s3)
        self._sqs: SQSClient = boto3.client("sqs", config=PATIENT)
        self._lambda: LambdaClient = boto3.client("lambda", config=PATIENT)
        self._states: SFNClient = boto3.client("stepfunctions", config=PATIENT)
        settings = environment_of(f"{name}-intake")
        if "MODEL" not in settings:  # Lambda leaves out what the caller may not decrypt
            raise OperateError(
                f"You may not read the settings of the function {name}-intake. If the stack has a "
                "KMS key, you need kms:Decrypt with it."
            )
        self.model = settings["MODEL"]
        self.settle_seconds = float(settings["SETTLE_SECONDS"])

    # From the bucket to intake

    def inflow(self) -> Inflow:
        return Inflow(
            is_versioned=_if_allowed(lambda: self._storage.is_versioned(self.upload_bucket)),
            sends_events=_if_allowed(self._sends_events),
            rule=_if_allowed(self._rule),
            intake=_if_allowed(self._mapping),
            dead_letters=_if_allowed(lambda: self._waiting("IntakeDeadLettersUrl")),
            undelivered=_if_allowed(lambda: self._waiting("UndeliveredEventsUrl")),
        )

    def _sends_events(self) -> bool:
        set_up = self._s3.get_bucket_notification_configuration(Bucket=self.upload_bucket)
        return "EventBridgeConfiguration" in set_up

    def _rule(self) -> str:
        events: EventBridgeClient = boto3.client("events", config=PATIENT)
        rule = events.describe_rule(Name=self._physical("UploadRule").rpartition("|")[2])
        return rule["State"]

    def _mapping(self) -> str:
        mapping = self._lambda.get_event_source_mapping(
            UUID=self._physical("IntakeFunctionUploads")
        )
        return mapping["State"]

    def _physical(self, logical_id: str) -> str:
        client = boto3.client("cloudformation", config=PATIENT)
        pages = client.get_paginator("list_stack_resources").paginate(StackName=self.name)
        return next(
            one["PhysicalResourceId"]
            for page in pages
            for one in page["StackResourceSummaries"]
            if one["LogicalResourceId"] == logical_id
        )

    def _waiting(self, output: str) -> int:
        name: Any = "ApproximateNumberOfMessages"
        counted = self._sqs.get_queue_attributes(
            QueueUrl=self._outputs[output], AttributeNames=[name]
        )
        return int(counted["Attributes"][name])

    def ask_providers(self) -> tuple[AskedProvider, ...]:
        return ask_providers(self._outputs["WatchFunctionName"])

    # The files

    def samples(self) -> dict[str, bytes]:
        """By their endings."""
        return {"wav": _short_voice(), "png": (SAMPLES / "portrait.png").read_bytes()}

    def drop(self, key: str, body: bytes) -> str:
        put = self._s3.put_object(Bucket=self.upload_bucket, Key=key, Body=body)
        return put["VersionId"]

    def upload_in_parts(self, key: str) -> int:
        """As deliver does it: through the same adapter. Returns the size in bytes."""
        upload = self._storage.begin_upload(self.video_bucket, key, "application/octet-stream")
        try:
            upload.add(bytes(_PART_BYTES))
            upload.add(b"the last part")
            upload.complete()
        except BaseException:
            upload.abort()
            raise
        return self._s3.head_object(Bucket=self.video_bucket, Key=key)["ContentLength"]

    def has_output(self, key: str) -> bool:
        return self._storage.has(self.video_bucket, key)

    def erase(self, prefix: str, outputs: tuple[str, ...], jobs: tuple[str, ...]) -> None:
        """All versions of the uploads under a prefix, of the files in the videos bucket under
        others, and of the jobs' copies."""
        self._erase(self.upload_bucket, prefix)
        for output in outputs:
            self._erase(self.video_bucket, output)
        for job in jobs:
            self._erase(self._work_bucket, f"work/{job}/")

    def _erase(self, bucket: str, prefix: str) -> None:
        pages = self._s3.get_paginator("list_object_versions").paginate(
            Bucket=bucket, Prefix=prefix
        )
        for page in pages:
            for one in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
                self._s3.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])

    # The job

    def job_of(self, key: str, version_id: str) -> str | None:
        return self._uploads.job_of(self.upload_bucket, key, version_id)

    def execution(self, job_id: str) -> Execution | None:
        return self._stack.execution(job_id)

    def outcome(self, execution: Execution) -> Outcome | None:
        return self._stack.outcome(execution.job, execution.started_at)

    def last_fault(self, job_id: str) -> str:
        """What the step that failed last said, of a job without secrets: a dry run."""
        history = self._states.get_execution_history(
            executionArn=execution_arn(self._machine, job_id), reverseOrder=True, maxResults=100
        )
        for event in history["events"]:
            if details := event.get("taskFailedEventDetails"):
                return _words(details.get("error", ""), details.get("cause", ""))
        return ""


def _if_allowed(look: Callable[[], T]) -> T | None:
    try:
        return look()
    except ClientError as error:
        if error.response["Error"]["Code"] in _DENIED:
            return None
        raise


def _words(error: str, cause: str) -> str:
    try:
        message = json.loads(cause)["errorMessage"]
    except (ValueError, KeyError, TypeError):
        message = cause
    return harmless(f"{error}: {message}")[:_MAX_MESSAGE_CHARACTERS]


def _short_voice() -> bytes:
    """The beginning of the sample."""
    with wave.open(str(SAMPLES / "speech.wav")) as whole, io.BytesIO() as cut:
        with wave.open(cut, "wb") as part:
            part.setparams(whole.getparams())
            part.writeframes(whole.readframes(VOICE_SECONDS * whole.getframerate()))
        return cut.getvalue()
