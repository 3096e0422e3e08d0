"""The Terraform module with the packaged template, on the embedded AWS.

Needs terraform, and its AWS provider: from its registry, or from the folder that PLUGINS names.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.package import package
from local import embedded
from local.embedded import BUILD, PROJECT, Environment, Home
from local.overlay import lay_over

MODULE = PROJECT / "deploy/terraform"
BUCKET = "ways-artifacts"
ROOT = """
provider "aws" {
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  s3_use_path_style           = true
}
variable "template_url" {}
module "dropreel" {
  source               = "./module"
  template_url         = var.template_url
  daily_render_limit   = 100
  log_retention_days   = 90
}
output "all" { value = module.dropreel }
"""


def terraform(folder: Path, *arguments: str) -> str:
    """What terraform says; 2 is its answer to -detailed-exitcode with changes."""
    ran = subprocess.run(
        ["terraform", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode not in {0, 2}:
        raise AssertionError(f"terraform {arguments[0]}: {ran.stdout}{ran.stderr}")
    return ran.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that calls the module, with its provider."""
    if not shutil.which("terraform"):
        pytest.skip("terraform is not on this machine")
    folder = tmp_path_factory.mktemp("terraform")
    shutil.copytree(MODULE, folder / "module", ignore=shutil.ignore_patterns(".terraform*"))
    (folder / "main.tf").write_text(ROOT)
    plugins = os.environ.get("PLUGINS")
    try:
        terraform(folder, "init", *([f"-plugin-dir={plugins}"] if plugins else []))
    except AssertionError as error:
        if "provider packages" not in str(error):
            raise
        pytest.skip("terraform's AWS provider cannot be had here: set PLUGINS=folder")
    return folder


@pytest.fixture(scope="module")
def aws() -> Iterator[Environment]:
    home = Home(embedded.OUT / "ways")
    embedded.down(home)
    environment = embedded.start_ministack(home)
    embedded.wait_for_ministack(home, environment)
    embedded.build(home)
    embedded.client(environment, "s3").create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": embedded.REGION}
    )
    yield environment
    embedded.down(home)


def packaged(aws: Environment, patch: pytest.MonkeyPatch, folder: Path, does: str) -> str:
    """The URL of the packaged template, with what the embedded AWS needs, and this description."""
    for name, value in aws.items():
        patch.setenv(name, value)
    template = yaml.safe_load((BUILD / "template.yaml").read_text())
    lay_over(
        template, folder, {"runcomfy": "http://127.0.0.1:1", "wavespeed": "http://127.0.0.1:1"}
    )
    template["Description"] = does
    template["Resources"]["EventBus"]["Properties"]["Description"] = does
    template["Parameters"]["Architecture"]["Default"] = embedded.ARCHITECTURE
    built = BUILD / "ways.yaml"  # next to the built one: its paths are relative
    built.write_text(yaml.safe_dump(template, sort_keys=False))
    return package(BUCKET, "ways", built=built, packaged=folder / "packaged.yaml")


def test_the_module_is_valid_and_formatted(root: Path) -> None:
    assert "valid" in terraform(root, "validate", "-no-color")
    terraform(MODULE, "fmt", "-check", "-diff")


def test_it_applies_plans_no_change_updates_and_is_destroyed(
    root: Path, aws: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = packaged(aws, monkeypatch, tmp_path, "One.")
    again = packaged(aws, monkeypatch, tmp_path, "One.")
    second = packaged(aws, monkeypatch, tmp_path, "Two.")
    assert first == again != second

    def run(command: str, url: str, *more: str) -> str:
        variable = f"-var=template_url={url}"
        return terraform(root, command, "-no-color", "-input=false", variable, *more)

    cloudformation = embedded.client(aws, "cloudformation")
    run("apply", first, "-auto-approve")
    assert "No changes." in run("plan", first, "-detailed-exitcode")
    outputs = json.loads(terraform(root, "output", "-json"))["all"]["value"]
    assert outputs["upload_bucket"]
    assert outputs["event_bus_name"] == "dropreel"
    (stack,) = cloudformation.describe_stacks(StackName="dropreel")["Stacks"]
    given = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    assert given["DailyRenderLimit"] == "100"
    assert given["Architecture"] == embedded.ARCHITECTURE

    assert "1 to change" in run("plan", second, "-detailed-exitcode")
    run("apply", second, "-auto-approve")
    (stack,) = cloudformation.describe_stacks(StackName="dropreel")["Stacks"]
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert "No changes." in run("plan", second, "-detailed-exitcode")

    run("destroy", second, "-auto-approve")
    left = cloudformation.list_stacks()["StackSummaries"]
    assert {one["StackStatus"] for one in left} <= {"DELETE_COMPLETE"}
