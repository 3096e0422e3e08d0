"""S3, as Dropreel uses it: an adapter, and the only module that knows S3's API."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from botocore.exceptions import ClientError

from dropreel.aws import clients
from dropreel.media.source import buffered
from dropreel.model.errors import InputGone, Reason
from dropreel.model.job import Input
from dropreel.model.uploads import NULL_VERSION, ObjectVersion, Page, Unreadable

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        CompletedPartTypeDef,
        ListObjectVersionsRequestTypeDef,
        ObjectVersionTypeDef,
    )

_BLOCK_BYTES = 1 << 20
_LISTINGS_AT_ONCE = 16
_GONE = {"NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed"}

# A HEAD has no body, so its code is the HTTP status.
_ARCHIVED = {"InvalidObjectState"}
_WITH_CUSTOMER_KEY = {"InvalidRequest", "400"}  # SSE-C: we send nothing else that can be invalid
_DENIED = {"AccessDenied", "403"}  # also without the right to use the file's KMS key
# "... is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:...:key/..., because ..."
_KMS_KEY = re.compile(r"arn:[a-z-]+:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+")
_KMS = "KMS."
_KMS_FOR_NOW = {"KMS.ThrottlingException", "KMS.LimitExceededException"}
_DROP_AGAIN = "Drop the file again"


@contextmanager
def _reading(key: str) -> Iterator[None]:
    """Raise `InputGone` when the object or its version does not exist, and `Unreadable` when S3
    refuses it for good. All other errors may pass by themselves."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            raise InputGone(f"{key} was deleted before it could be read.") from error
        if reason := _refusal(key, error):
            raise Unreadable(reason) from error
        raise


def _refusal(key: str, error: ClientError) -> Reason | None:
    code = error.response["Error"]["Code"]
    if code in _ARCHIVED:
        found = "archived: S3 reads it only after it was restored"
        cure = f"{_DROP_AGAIN} with the storage class Standard."
    elif code in _WITH_CUSTOMER_KEY:
        found = "encrypted with a customer key (SSE-C), which Dropreel does not have"
        cure = f"{_DROP_AGAIN} without a customer key."
    elif code in _DENIED:
        found = f"S3 denies Dropreel access to it ({code}); {_denied_by(error)}"
        cure = (
            f"{_DROP_AGAIN} without a key of its own, or ask your operator to allow Dropreel's "
            "roles to read it and to use its KMS key (kms:Decrypt); then drop it again."
        )
    elif code.startswith(_KMS) and code not in _KMS_FOR_NOW and _is_clients_fault(error):
        found = f"encrypted with a KMS key that cannot be used ({code})"
        cure = (
            f"{_DROP_AGAIN} without this key, or ask your operator to enable the key; then drop it "
            "again."
        )
    else:
        return None
    return Reason(file=key, rule="a file that Dropreel can read in S3", found=found, cure=cure)


def _denied_by(error: ClientError) -> str:
    named = _KMS_KEY.search(error.response["Error"].get("Message", ""))
    return f"its KMS key does: {named[0]}" if named else "most often, its KMS key does"


def _is_clients_fault(error: ClientError) -> bool:
    return error.response["ResponseMetadata"]["HTTPStatusCode"] < 500


def _listed(version: "ObjectVersionTypeDef") -> ObjectVersion:
    return ObjectVersion(
        version["Key"],
        version["VersionId"],
        version["Size"],
        version["LastModified"],
        version["ETag"].strip('"'),
    )


@dataclass
class MultipartUpload:
    """An upload in parts of at least 5 MiB (the last may be smaller), at most 10,000 of them.

    The object is invisible until `complete`, and never exists after `abort`.
    """

    client: "S3Client"
    upload: dict[str, Any]  # Bucket, Key and UploadId
    parts: "list[CompletedPartTypeDef]" = field(default_factory=list)

    def add(self, body: bytes) -> None:
        number = len(self.parts) + 1
        sent = self.client.upload_part(**self.upload, PartNumber=number, Body=body)
        self.parts.append({"PartNumber": number, "ETag": sent["ETag"]})

    def complete(self) -> str:
        """Create the object and return its version id."""
        made = self.client.complete_multipart_upload(
            **self.upload, MultipartUpload={"Parts": self.parts}
        )
        return made.get("VersionId", NULL_VERSION)

    def abort(self) -> None:
        self.client.abort_multipart_upload(**self.upload)


class S3Storage:
    """Both buckets. Made once per function environment."""

    def __init__(self, client: "S3Client | None" = None) -> None:
        self._client = client or clients.s3()

    def current_versions(self, bucket: str, *prefixes: str) -> Iterator[ObjectVersion]:
        """The objects whose key begins with one of the prefixes, as they are now. Not those in the
        folders below, however many."""
        if len(prefixes) == 1:
            yield from self._current(bucket, prefixes[0])
            return
        with ThreadPoolExecutor(_LISTINGS_AT_ONCE) as pool:
            for found in pool.map(lambda prefix: [*self._current(bucket, prefix)], prefixes):
                yield from found

    def _current(self, bucket: str, prefix: str) -> Iterator[ObjectVersion]:
        pages = self._client.get_paginator("list_object_versions").paginate(
            Bucket=bucket, Prefix=prefix, Delimiter="/"
        )
        for page in pages:
            yield from (_listed(one) for one in page.get("Versions", []) if one["IsLatest"])

    def is_versioned(self, bucket: str) -> bool:
        return self._client.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"

    def page(self, bucket: str, prefix: str, after: str | None) -> Page:
        """One request's list of the current objects, starting after a key.

        It can be empty and not the last: old versions and delete markers count too.
        """
        request: ListObjectVersionsRequestTypeDef = {"Bucket": bucket, "Prefix": prefix}
        if after is not None:
            # With a key and no version, S3 starts after the key and all of its versions.
            request["KeyMarker"] = after
        listed = self._client.list_object_versions(**request)
        versions, deleted = listed.get("Versions", []), listed.get("DeleteMarkers", [])
        current = tuple(_listed(one) for one in versions if one["IsLatest"])
        keys = [one["Key"] for one in (*versions, *deleted)]
        return Page(objects=current, goes_on_after=max(keys) if listed["IsTruncated"] else None)

    def exists(self, bucket: str, pinned: Input) -> bool:
        """Whether the pinned version exists and its key is not deleted.

        A person who deletes a file withdraws it, although the bucket keeps the version. A person
        who replaces it does not: the new version belongs to another job. What cannot be read
        exists.
        """
        key = pinned.key
        try:
            with suppress(Unreadable), _reading(key):
                self._client.head_object(Bucket=bucket, Key=key, VersionId=pinned.version_id)
            with suppress(Unreadable), _reading(key):
                self._client.head_object(Bucket=bucket, Key=key)
        except InputGone:
            return False
        return True

    def open(self, bucket: str, pinned: Input) -> BinaryIO:
        """The pinned version as a file that fetches what is read. Reading raises `InputGone`
        and `Unreadable`."""

        def fetch(start: int, size_bytes: int) -> bytes:
            end = start + size_bytes
            with _reading(pinned.key):
                got = self._client.get_object(
                    Bucket=bucket,
                    Key=pinned.key,
                    VersionId=pinned.version_id,
                    Range=f"bytes={start}-{end - 1}",
                )
                body = got["Body"].read()
            # The embedded AWS ignores the range and sends the whole version.
            return body if "ContentRange" in got else body[start:end]

        return buffered(fetch, pinned.size_bytes)

    def copy(self, bucket: str, pinned: Input, into: BinaryIO) -> None:
        """Write the pinned version into a file. Raises `InputGone` and `Unreadable`."""
        for block in self._body(bucket, pinned).iter_chunks(_BLOCK_BYTES):
            into.write(block)

    def read(self, bucket: str, pinned: Input) -> bytes:
        """All bytes of the pinned version. Raises `InputGone` and `Unreadable`."""
        return self._body(bucket, pinned).read()

    def _body(self, bucket: str, pinned: Input) -> "StreamingBody":
        with _reading(pinned.key):
            got = self._client.get_object(
                Bucket=bucket, Key=pinned.key, VersionId=pinned.version_id
            )
            return got["Body"]

    def presigned_url(self, bucket: str, pinned: Input, valid_seconds: int) -> str:
        """A URL that lets its holder read the pinned version. A secret: never log or return it."""
        return self._client.generate_presigned_url(
            "get_object",
            Params={"Bucket": bucket, "Key": pinned.key, "VersionId": pinned.version_id},
            ExpiresIn=valid_seconds,
        )

    def text(self, bucket: str, key: str) -> str | None:
        """The current text of an object, None when there is none, "" when S3 refuses to read it.
        Anybody may have written it."""
        try:
            with _reading(key):
                body = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except InputGone:
            return None
        except Unreadable:
            return ""
        return body.decode(errors="replace")

    def written_at(self, bucket: str, key: str) -> datetime | None:
        """When the current version of an object was written, None when there is none."""
        with suppress(InputGone), _reading(key):
            return self._client.head_object(Bucket=bucket, Key=key)["LastModified"]
        return None

    def current_version(self, bucket: str, key: str) -> str | None:
        """The current version id of an object, None when there is none."""
        with suppress(InputGone), _reading(key):
            return self._client.head_object(Bucket=bucket, Key=key).get("VersionId", NULL_VERSION)
        return None

    def has(self, bucket: str, key: str) -> bool:
        """Whether there is an object. Needs the right to list, and none to read the object."""
        listed = self._client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        # A key lists first among all keys that begin with it.
        return any(it["Key"] == key for it in listed.get("Contents", []))

    def put_json(self, bucket: str, key: str, document: str) -> None:
        self._client.put_object(
            Bucket=bucket, Key=key, Body=document.encode(), ContentType="application/json"
        )

    def put(self, bucket: str, key: str, body: BinaryIO, content_type: str) -> str:
        """Write an object from a file and return its version id."""
        put = self._client.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)
        return put.get("VersionId", NULL_VERSION)

    def delete(self, bucket: str, key: str) -> None:
        """Hide the object; its versions stay. Does nothing when there is none."""
        self._client.delete_object(Bucket=bucket, Key=key)

    def begin_upload(self, bucket: str, key: str, content_type: str) -> MultipartUpload:
        begun = self._client.create_multipart_upload(
            Bucket=bucket, Key=key, ContentType=content_type
        )
        upload = {"Bucket": bucket, "Key": key, "UploadId": begun["UploadId"]}
        return MultipartUpload(self._client, upload)
