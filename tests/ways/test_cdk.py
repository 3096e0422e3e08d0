"""The CDK example over the template. Needs node; the first run installs aws-cdk-lib."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from local.embedded import PROJECT
from tests.support.sam_template import _Loader

EXAMPLE = PROJECT / "deploy/cdk"
TOOLS = PROJECT / ".venv/cdk"


@pytest.fixture(scope="module")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    npm, node = shutil.which("npm"), shutil.which("node")
    if not (npm and node):
        pytest.skip("node is not on this machine")
    TOOLS.mkdir(parents=True, exist_ok=True)
    for name in ("app.mjs", "package.json"):
        shutil.copy(EXAMPLE / name, TOOLS)
    install = [npm, "install", "--silent", "--ignore-scripts", "--no-package-lock"]
    subprocess.run(install, cwd=TOOLS, check=True)
    out = tmp_path_factory.mktemp("cdk")
    environment = {"CDK_OUTDIR": str(out), "DROPREEL_TEMPLATE": str(PROJECT / "template.yaml")}
    subprocess.run([node, "app.mjs"], cwd=TOOLS, check=True, env={**os.environ, **environment})
    made: dict[str, Any] = json.loads((out / "dropreel.template.json").read_text())
    return made


def test_cdk_keeps_each_resource_and_the_limit_that_is_set(synthesized: dict[str, Any]) -> None:
    source = yaml.load((PROJECT / "template.yaml").read_text(), _Loader)

    for name, resource in source["Resources"].items():
        made = synthesized["Resources"][name]
        assert made["Type"] == resource["Type"]
        assert set(made["Properties"]) == set(resource["Properties"]), name
    assert "DailyRenderLimit" not in synthesized["Parameters"]
    assert synthesized["Transform"] == source["Transform"]
    assert synthesized["Globals"].keys() == source["Globals"].keys()
