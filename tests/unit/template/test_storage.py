"""Presigned URLs are made without a call to AWS, so what they promise is read off them."""

from urllib.parse import parse_qs, quote, urlsplit

import boto3
import pytest

from dropreel.aws.s3 import S3Storage
from dropreel.model.job import Input, Role, job_id
from dropreel.render import submission
from local.standin.orders import MAX_URL_CHARACTERS

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


@pytest.mark.parametrize(
    ("stem", "slug"),
    [("a" * 1000, "a" * 63), ("安娜" * 150, "job"), ("é !" * 300, "e-" * 31 + "e")],
)
def test_the_longest_presigned_url_has_room_for_a_session_token(
    monkeypatch: pytest.MonkeyPatch, stem: str, slug: str
) -> None:
    token = ("t" * 64 + "+/") * 20  # 1,400 characters in a URL
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-southeast-7")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A" * 20)
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    id_of_the_job = job_id(stem, "wan-2.2-speech-to-video", (PICTURE,))
    copy = Input(
        role=Role.IMAGE, key=f"work/{id_of_the_job}/image.jpg", version_id="v" * 32, size_bytes=1
    )

    url = S3Storage().presigned_url("b" * 63, copy, submission.MAX_URL_SECONDS)

    assert id_of_the_job.startswith(f"{slug}-")
    assert url.isascii()
    assert len(url) <= MAX_URL_CHARACTERS
    assert len(url) - len(quote(token, safe="")) <= 540


def test_a_provider_that_queues_has_hours_to_fetch_its_inputs() -> None:
    assert 3600 <= submission.MAX_URL_SECONDS <= 7 * 24 * 3600  # more is no valid SigV4
