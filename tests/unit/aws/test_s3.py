"""What the S3 adapter makes of S3's refusals; botocore's stubber plays S3."""

from collections.abc import Iterator
from io import BytesIO

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from dropreel.aws.s3 import S3Storage
from dropreel.model.errors import InputGone
from dropreel.model.job import Input, Role
from dropreel.model.uploads import Unreadable

PICTURE = Input(role=Role.IMAGE, key="inbox/anna.png", version_id="v1", size_bytes=10)
KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture
def s3() -> Iterator[tuple[S3Storage, Stubber]]:
    client = boto3.client(
        "s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    with Stubber(client) as stub:
        yield S3Storage(client), stub


# Each GET is refused with a code of S3's list of error codes, or of AWS KMS's with "KMS." before.
@pytest.mark.parametrize(
    ("code", "status", "found", "cure"),
    [
        ("InvalidObjectState", 403, "archived", "storage class Standard"),
        ("InvalidRequest", 400, "customer key", "without a customer key"),
        ("AccessDenied", 403, "denies", "kms:Decrypt"),
        ("KMS.DisabledException", 400, "KMS.DisabledException", "enable the key"),
        ("KMS.NotFoundException", 400, "KMS.NotFoundException", "without this key"),
        ("KMS.KMSInvalidStateException", 400, "KMS.KMSInvalidStateException", "without this key"),
    ],
)
@pytest.mark.parametrize("reading", ["read", "copy", "open"])
def test_what_s3_refuses_for_good_is_an_answer(
    s3: tuple[S3Storage, Stubber], reading: str, code: str, status: int, found: str, cure: str
) -> None:
    storage, stub = s3
    stub.add_client_error("get_object", code, "no", status)

    with pytest.raises(Unreadable) as raised:
        match reading:
            case "read":
                storage.read("uploads", PICTURE)
            case "copy":
                storage.copy("uploads", PICTURE, BytesIO())
            case _:
                storage.open("uploads", PICTURE).read()

    reason = raised.value.reason
    assert reason.file == PICTURE.key
    assert found in reason.found
    assert cure in reason.cure


@pytest.mark.parametrize(
    ("says", "found"),
    [
        (
            "User: arn:aws:sts::111122223333:assumed-role/PrepareRole-x/dropreel-prepare is "
            "not authorized to perform: kms:Decrypt on resource: "
            f"arn:aws:kms:eu-central-1:111122223333:key/{KEY_ID} because no identity-based policy "
            "allows the kms:Decrypt action",
            f"its KMS key does: arn:aws:kms:eu-central-1:111122223333:key/{KEY_ID}",
        ),
        (
            f"on resource: arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-{KEY_ID}, no",
            f"its KMS key does: arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-{KEY_ID}",
        ),
        ("Access Denied", "most often, its KMS key does"),
    ],
)
def test_the_key_that_denies_a_file_is_named(
    s3: tuple[S3Storage, Stubber], says: str, found: str
) -> None:
    storage, stub = s3
    stub.add_client_error("get_object", "AccessDenied", says, 403)

    with pytest.raises(Unreadable) as raised:
        storage.read("uploads", PICTURE)

    assert raised.value.reason.found.endswith(found)
    assert "assumed-role" not in raised.value.reason.found


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("KMS.KMSInternalException", 500),
        ("KMS.KeyUnavailableException", 500),
        ("KMS.ThrottlingException", 400),
        ("SlowDown", 503),
        ("InternalError", 500),
        ("RequestTimeout", 400),
        ("ExpiredToken", 400),
    ],
)
def test_what_may_pass_by_itself_stays_a_fault(
    s3: tuple[S3Storage, Stubber], code: str, status: int
) -> None:
    storage, stub = s3
    stub.add_client_error("get_object", code, "wait", status)

    with pytest.raises(ClientError, match=code):
        storage.read("uploads", PICTURE)


def test_a_file_that_is_gone_is_not_unreadable(s3: tuple[S3Storage, Stubber]) -> None:
    storage, stub = s3
    stub.add_client_error("get_object", "NoSuchVersion", "gone", 404)

    with pytest.raises(InputGone):
        storage.read("uploads", PICTURE)


@pytest.mark.parametrize("refusal", ["400", "403"])  # as a HEAD names a customer key, and a denial
def test_what_cannot_be_read_exists(s3: tuple[S3Storage, Stubber], refusal: str) -> None:
    storage, stub = s3
    stub.add_client_error("head_object", refusal, "", int(refusal))
    stub.add_client_error("head_object", refusal, "", int(refusal))

    assert storage.exists("uploads", PICTURE)


def test_what_cannot_be_read_and_is_deleted_does_not_exist(s3: tuple[S3Storage, Stubber]) -> None:
    storage, stub = s3
    stub.add_client_error("head_object", "400", "", 400)
    stub.add_client_error("head_object", "404", "", 404)

    assert not storage.exists("uploads", PICTURE)


def test_a_bucket_that_was_never_versioned_has_the_version_null(
    s3: tuple[S3Storage, Stubber],
) -> None:
    storage, stub = s3
    stub.add_response("create_multipart_upload", {"UploadId": "u"})
    stub.add_response("upload_part", {"ETag": "e"})
    stub.add_response("complete_multipart_upload", {})
    stub.add_response("head_object", {})
    stub.add_response("put_object", {})

    upload = storage.begin_upload("videos", "anna.mp4", "video/mp4")
    upload.add(b"a video")

    assert upload.complete() == "null"
    assert storage.current_version("videos", "anna.mp4") == "null"
    assert storage.put("uploads", "work/a.png", BytesIO(b"a"), "image/png") == "null"
