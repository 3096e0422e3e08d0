"""Presigned URLs are made without a call to AWS, so what they promise is read off them."""

from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from dropreel.aws.s3 import S3Storage
from dropreel.model.job import Input, Role
from dropreel.render import submission

PICTURE = Input(role=Role.IMAGE, key="inbox/a b+c%/😀.png", version_id="v1", size_bytes=1)


@pytest.fixture(autouse=True)
def of_a_functions_role(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers the region
    for name in ("ENDPOINT_URL", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.setenv(f"AWS_{name}", "of-the-role")


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "uploads.s3.amazonaws.com"),  # where botocore still signs the old way
        ("eu-central-2", "uploads.s3.eu-central-2.amazonaws.com"),
        ("cn-north-1", "uploads.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_a_presigned_url_works_in_every_region(
    monkeypatch: pytest.MonkeyPatch, region: str, host: str
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)

    url = urlsplit(S3Storage().presigned_url("uploads", PICTURE, 3600))

    query = {name: value for name, (value,) in parse_qs(url.query).items()}
    assert (url.scheme, url.netloc) == ("https", host)
    assert url.path == "/inbox/a%20b%2Bc%25/%F0%9F%98%80.png"
    assert query["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert f"/{region}/s3/" in query["X-Amz-Credential"]
    assert query["X-Amz-Expires"] == "3600"
    assert query["versionId"] == PICTURE.version_id


def test_a_provider_that_queues_has_hours_to_fetch_its_inputs() -> None:
    assert 3600 <= submission.MAX_URL_SECONDS <= 7 * 24 * 3600  # more is no valid SigV4
