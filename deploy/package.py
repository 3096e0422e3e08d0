"""Upload what is built, and write one template that deploys it from anywhere by its URL.

python -m deploy.package --bucket BUCKET [--prefix dropreel] [--stack dropreel]
"""

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import quote

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError

from deploy.build import BUILT, PROJECT, SAM
from deploy.stack_name import refusal

PACKAGED: Final = PROJECT / "out/package/template.yaml"
"""A copy of the last packaged template, for CDK."""

# AWS's partitions, by the hosts of their consoles ("AWS Management Console endpoints").
_CONSOLES: Final = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}


class PackagingFailed(Exception):
    """The artifacts or the template could not be uploaded."""


def package(bucket: str, prefix: str, *, built: Path = BUILT, packaged: Path = PACKAGED) -> str:
    """Upload the artifacts and the template; returns the template's URL.

    The key has a digest of the template, which names its artifacts by their digests: the same
    contents have the same URL, and other contents another one. Raises `PackagingFailed`.
    """
    region = region_of(bucket)
    packaged.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(str(SAM), "package", "--template-file", str(built), "--region", region),
        *("--s3-bucket", bucket, "--s3-prefix", _key(prefix, "artifacts"), "--no-progressbar"),
        *("--output-template-file", str(packaged)),
    ]
    ran = subprocess.run(
        command, cwd=PROJECT, check=False, capture_output=True, text=True, env=os.environ
    )
    if ran.returncode:
        raise PackagingFailed(f"sam package failed:\n{ran.stderr}")
    template = packaged.read_bytes()
    key = _key(prefix, _name(template))
    boto3.client("s3", region_name=region).put_object(
        Bucket=bucket, Key=key, Body=template, ContentType="application/yaml"
    )
    return url_of(bucket, key, region)


def region_of(bucket: str) -> str:
    """Where the bucket is. Lambda takes code only from a bucket of the stack's own region."""
    client = boto3.client("s3", region_name=boto3.Session().region_name or "us-east-1")
    headers = client.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
    return headers.get("x-amz-bucket-region") or client.meta.region_name


def url_of(bucket: str, key: str, region: str) -> str:
    """The object's address without a signature: CloudFormation reads with its caller's rights."""
    endpoint = boto3.client("s3", region_name=region).meta.endpoint_url
    return f"{endpoint}/{bucket}/{quote(key)}"


def quick_create_url(template_url: str, region: str, stack: str) -> str:
    """The console's page that makes a stack of this template."""
    partition = boto3.Session().get_partition_for_region(region)
    console = _CONSOLES.get(partition, _CONSOLES["aws"])
    return (
        f"https://{console}/cloudformation/home?region={region}#/stacks/create/review"
        f"?templateURL={quote(template_url, safe='')}&stackName={stack}"
    )


def _name(template: bytes) -> str:
    version = yaml.safe_load(template)["Mappings"]["Dropreel"]["Release"]["Version"]
    return f"dropreel-{version}-{hashlib.sha256(template).hexdigest()[:16]}.yaml"


def _key(prefix: str, name: str) -> str:
    return f"{prefix.strip('/')}/{name}".lstrip("/")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--prefix", default="dropreel")
    parser.add_argument("--stack", default="dropreel", help="for the quick-create link")
    asked = parser.parse_args()
    if refused := refusal(asked.stack):
        print(refused, file=sys.stderr)
        return 1
    try:
        url = package(asked.bucket, asked.prefix)
        region = region_of(asked.bucket)
    except (PackagingFailed, BotoCoreError, ClientError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Template, for stacks in {region}:\n  {url}")
    print(f"Make a stack in the console:\n  {quick_create_url(url, region, asked.stack)}")
    print(f"A copy for CDK: {PACKAGED.relative_to(PROJECT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
