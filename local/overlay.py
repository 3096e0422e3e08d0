"""All changes that the embedded AWS needs in the built template.

The template that people deploy has none of them, and no switch for them.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parent.parent

_CALLBACKS = ["states:SendTaskSuccess", "states:SendTaskFailure"]
_DELIVER = """
import os
import app
from standin_videos import download_from

app.download = download_from(*os.environ["STANDINS"].split(","))
handler = app.handler
"""
_UNKNOWN = ("AWS::Events::Archive", "AWS::Events::EventBusPolicy")
_URL = re.compile(r'("(\w+)": \{"url": )"[^"]*"')


def lay_over(
    template: dict[str, Any],
    folder: Path,
    standins: Mapping[str, str],
    max_wait_seconds: float | None = None,
) -> None:
    """Change the template in place. The files that it then names are in `folder`.

    `standins` has the stand-ins' URLs by provider; `max_wait_seconds` shortens the waits between
    polls, for tests.
    """
    leave_out_what_is_unknown(template)
    resources = template["Resources"]
    _call_the_standins(template["Globals"]["Function"]["Environment"]["Variables"], standins)
    _fetch_from_the_standins(resources["DeliverFunction"]["Properties"], folder, standins)
    for kind in ("AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy"):
        for policy in _of_type(resources, kind):
            for statement in policy["PolicyDocument"]["Statement"]:
                if statement["Effect"] == "Deny":  # it has no TLS
                    statement["Condition"]["NotIpAddress"] = {"aws:SourceIp": "127.0.0.0/8"}
    for role in _of_type(resources, "AWS::IAM::Role"):
        for statement in role["Policies"][0]["PolicyDocument"]["Statement"]:
            if statement["Action"] == _CALLBACKS:
                statement["Resource"] = "*"  # MiniStack checks these without their state machine
    for alarm in _of_type(resources, "AWS::CloudWatch::Alarm"):
        _take_out_the_math(alarm)
    del resources["FailuresQuery"]  # MiniStack knows no queries of logs
    machine = resources["RenderStateMachine"]["Properties"]
    machine["DefinitionUri"] = str(_definition(folder, max_wait_seconds))


def leave_out_what_is_unknown(template: dict[str, Any]) -> None:
    """MiniStack refuses a stack with a resource of a type that it does not know."""
    for name, resource in list(template["Resources"].items()):
        if resource["Type"] in _UNKNOWN:
            del template["Resources"][name]
            template["Outputs"] = {
                output: it
                for output, it in template["Outputs"].items()
                if f'"{name}' not in json.dumps(it)
            }


def _call_the_standins(variables: dict[str, Any], standins: Mapping[str, str]) -> None:
    sub: list[Any] = variables["PROVIDERS"]["Fn::Sub"]
    sub[0] = _URL.sub(lambda found: f"{found[1]}{json.dumps(standins[found[2]])}", sub[0])


def _fetch_from_the_standins(
    deliver: dict[str, Any], folder: Path, standins: Mapping[str, str]
) -> None:
    """Deliver fetches only over https from public addresses. A handler around its own lets it fetch
    from the stand-ins, too."""
    code = folder / "deliver"
    shutil.copytree(PROJECT / "functions/deliver", code, dirs_exist_ok=True)
    shutil.copy(PROJECT / "local/standin_videos.py", code)
    (code / "embedded.py").write_text(_DELIVER)
    deliver["CodeUri"], deliver["Handler"] = str(code), "embedded.handler"
    deliver["Environment"]["Variables"]["STANDINS"] = ",".join(standins.values())


def _take_out_the_math(alarm: dict[str, Any]) -> None:
    """MiniStack knows alarms on one metric only: the first that the expression is made of."""
    queries: list[dict[str, Any]] = alarm.pop("Metrics", [])
    for measured in [query["MetricStat"] for query in queries if "MetricStat" in query][:1]:
        alarm |= measured["Metric"]
        alarm |= {"Period": measured["Period"], "Statistic": measured["Stat"]}


def _definition(folder: Path, max_wait_seconds: float | None) -> Path:
    """The state machine as JSON, because MiniStack reads no YAML."""
    definition = yaml.safe_load((PROJECT / "statemachine/render.asl.yaml").read_text())
    if max_wait_seconds is not None:
        wait = definition["States"]["Render"]["Branches"][0]["States"]["Wait"]
        wait["Seconds"] = f"{{% $min([$wait_seconds, {max_wait_seconds:g}]) %}}"
    written = folder / "render.asl.json"
    written.write_text(json.dumps(definition))
    return written


def _of_type(resources: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    return (it["Properties"] for it in resources.values() if it["Type"] == kind)
