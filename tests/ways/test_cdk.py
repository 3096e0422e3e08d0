"""The CDK example over the packaged template. Needs node; the first run installs aws-cdk-lib."""

import json
import os
import re
import shutil
import subprocess
from typing import Any

import pytest

from local.embedded import PROJECT
from tests.support.sam_template import TEMPLATE

EXAMPLE = PROJECT / "deploy/cdk"
TOOLS = PROJECT / ".venv/cdk"
URL = "https://artifacts.s3.eu-west-1.amazonaws.com/dropreel/0123abcd.yaml"


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
    context = {"CDK_OUTDIR": str(out), "CDK_CONTEXT_JSON": json.dumps({"template-url": URL})}
    subprocess.run([node, "app.mjs"], cwd=TOOLS, check=True, env={**os.environ, **context})
    made: dict[str, Any] = json.loads((out / "dropreel.template.json").read_text())
    return made


def test_cdk_nests_the_packaged_template(synthesized: dict[str, Any]) -> None:
    [nested] = [
        one["Properties"]
        for one in synthesized["Resources"].values()
        if one["Type"] == "AWS::CloudFormation::Stack"
    ]

    assert nested == {"TemplateURL": URL, "Parameters": {"DailyRenderLimit": "100"}}
    assert set(nested["Parameters"]) <= set(TEMPLATE["Parameters"])
    named = re.findall(r"Outputs\.(\w+)", (EXAMPLE / "app.mjs").read_text())
    assert named
    assert set(named) <= set(TEMPLATE["Outputs"])
