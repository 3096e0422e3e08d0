"""The docs say what is true now: links, commands, parameters, outputs, codes and endings."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dropreel.inbox import pairing
from dropreel.model.errors import DropreelError
from dropreel.model.metrics import Metric
from dropreel.outcome.measurement import NO_FAULT

PROJECT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    str(page.relative_to(PROJECT))
    for pattern in ("*.md", "docs/*.md", "local/*.md", "samples/*.md", "examples/*/*.md")
    for page in PROJECT.glob(pattern)
)
README = "README.md"
DEPLOYING, DROPPING = "docs/deploying.md", "docs/dropping-files.md"
EVENTS, OPERATING = "docs/events.md", "docs/operating.md"

# These leave the template: the docs tell their values as fixed numbers.
NOT_TO_BE_SET = {
    "MaxSubmissions",
    "OnUnclearSubmission",
    "PollMaxSeconds",
    "PollMinSeconds",
    "RunComfyUrl",
    "ThrottlePatienceSeconds",
    "TrustedDownloadOrigins",
    "WaveSpeedUrl",
}

_ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)


class _Template(yaml.SafeLoader):
    """Reads the template without its short forms, such as `!Ref`."""


_Template.add_multi_constructor("!", lambda _loader, suffix, _node: suffix)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((PROJECT / "template.yaml").read_text("utf-8"), _Template)
    return loaded


def text(page: str) -> str:
    return (PROJECT / page).read_text("utf-8")


def prose(page: str) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text(page), flags=re.MULTILINE | re.DOTALL)


def section(page: str, heading: str) -> str:
    _, _, rest = text(page).partition(f"\n## {heading}\n")
    assert rest, f"{page} has no section {heading}"
    return rest.partition("\n## ")[0]


def cells(of: str) -> list[list[str]]:
    """The rows of all tables in a text."""
    return [[cell.strip() for cell in row.split("|")] for row in _ROW.findall(of)]


def quoted(of: str) -> list[str]:
    return re.findall(r"`([^`]+)`", of)


def anchors(page: str) -> set[str]:
    """The names that GitHub gives the page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Links and commands


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (PROJECT / page).parent / path if path else PROJECT / page

        assert target.exists(), link
        if anchor:
            assert anchor in anchors(str(target.resolve().relative_to(PROJECT))), link


def test_the_readme_leads_to_each_page_of_the_docs() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#\s]+\.md)", text(README)))

    assert linked == {page for page in PAGES if page.startswith("docs/")}


@pytest.mark.parametrize("page", PAGES)
def test_each_make_command_exists(page: str) -> None:
    named = set(re.findall(r"(?:^|`|\$ )make ([a-z-]+)", text(page), re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))

    assert named <= targets


def test_the_readme_says_how_to_try_test_and_deploy() -> None:
    commands = re.findall(r"^make ([a-z-]+)", text(README), re.MULTILINE)

    assert {"demo", "test", "deploy", "token"} <= set(commands)


def test_the_readme_fits_on_a_screen_or_two() -> None:
    without_the_table = re.sub(
        r"<!-- models:.*<!-- end of models -->", "", text(README), flags=re.DOTALL
    )

    assert len(without_the_table.splitlines()) <= 92


# The template


def documented_parameters() -> dict[str, str]:
    rows = [row for row in cells(section(DEPLOYING, "Parameters")) if len(row) == 3]
    return {
        name: "" if default == "empty" else default.strip("`")
        for row in rows
        for name, default in [(row[0].strip("`"), row[1])]
        if row[0].startswith("`")
    }


def test_each_parameter_is_documented_with_its_default(template: dict[str, Any]) -> None:
    parameters = {
        name: str(of.get("Default", ""))
        for name, of in template["Parameters"].items()
        if name not in NOT_TO_BE_SET
    }

    assert documented_parameters() == parameters


@pytest.mark.parametrize("page", PAGES)
def test_each_parameter_that_a_page_names_can_be_set(page: str, template: dict[str, Any]) -> None:
    in_commands = re.findall(r"PARAMETERS=\"([^\"]*)\"", text(page))
    set_there = [name for given in in_commands for name in re.findall(r"(\w+)=", given)]
    can_be_set = set(template["Parameters"]) - NOT_TO_BE_SET

    assert set(set_there) <= can_be_set
    assert not [name for name in NOT_TO_BE_SET if name in text(page)]


def test_the_template_to_import_names_what_a_stack_keeps(template: dict[str, Any]) -> None:
    commands = section(DEPLOYING, "Take over what a deleted stack kept")
    imported = yaml.safe_load(commands.partition("<<'END'\n")[2].partition("\nEND\n")[0])
    kept = {
        name: it
        for name, it in template["Resources"].items()
        if it.get("DeletionPolicy") and it["Type"] != "AWS::S3::BucketPolicy"
    }

    assert set(imported["Resources"]) == set(kept)
    for name, it in imported["Resources"].items():
        assert it["Type"] == kept[name]["Type"]
        assert it["DeletionPolicy"] == "Retain"  # an import is refused without one
        given = it.get("Properties", {})
        assert given.items() <= kept[name]["Properties"].items()
        assert not {"BucketName", "TableName"} & set(given)  # the deploy would replace it


def test_each_output_is_documented(template: dict[str, Any]) -> None:
    rows = cells(section(DEPLOYING, "Find the outputs"))
    documented = [name for row in rows for name in quoted(row[0])]

    assert set(documented) == set(template["Outputs"])


@pytest.mark.parametrize("page", PAGES)
def test_each_output_that_a_command_asks_for_exists(page: str, template: dict[str, Any]) -> None:
    asked = re.findall(r"OutputKey=='(\w+)'|\$\(output (\w+)\)", text(page))

    assert {one or other for one, other in asked} <= set(template["Outputs"])


def test_each_alarm_is_explained(template: dict[str, Any]) -> None:
    explained = dict(
        re.findall(r"^### (\w+)\n(.*?)(?=^###|\Z)", section(OPERATING, "Alarms"), re.M | re.S)
    )
    resources = template["Resources"].items()
    alarms = {name: of for name, of in resources if of["Type"] == "AWS::CloudWatch::Alarm"}

    assert set(explained) == set(alarms)
    for name, alarm in alarms.items():
        assert re.findall(r"^\*\*(.+?):\*\* \S", explained[name], re.MULTILINE) == [
            "What it means",
            "Where to look",
            "What to do",
        ]
        assert alarm["Properties"]["AlarmDescription"].endswith(f" See {OPERATING}#{name.lower()}.")


def test_each_metric_is_explained_and_what_counts_as_refused() -> None:
    rows = cells(section(OPERATING, "Metrics and the dashboard"))[2:]
    metrics = [name for row in rows for name in quoted(row[0])]

    assert sorted(metrics) == sorted(Metric)
    assert set(quoted(rows[0][1])) >= NO_FAULT


# The contract


def test_each_error_code_is_documented() -> None:
    rows = [row for row in cells(section(EVENTS, "Error codes")) if len(row) == 3]
    documented = {row[0].strip("`"): row[1] for row in rows if row[1] in ("yes", "no")}

    assert documented == {
        error.__name__: "yes" if error.retryable else "no"
        for error in DropreelError.__subclasses__()
    }


def test_each_ending_is_documented() -> None:
    rows = {row[0]: quoted(row[1]) for row in cells(section(DROPPING, "Which files count"))[2:]}
    documents: dict[str, list[str]] = {}
    for ending, role in pairing.DOCUMENT_ENDINGS.items():
        documents.setdefault(role.value, []).append(ending)

    assert rows["picture"] == list(pairing.IMAGE_ENDINGS)
    assert rows["picture, always refused"] == list(pairing.UNUSABLE_PICTURES)
    assert rows["voice"] + rows["voice, from a video"] == list(pairing.AUDIO_ENDINGS)
    assert rows["prompt"] == documents["prompt"]
    assert rows["options"] == documents["options"]


def test_each_ignored_file_is_documented() -> None:
    listed = {name.lower() for name in quoted(section(DROPPING, "Which files count"))}

    assert listed >= pairing.LITTER_FOLDERS
    assert listed >= {name for name in pairing.LITTER_FILES if not name.endswith(".db:*")} - {
        "thumbs.db:*"
    }
    assert pairing.DEFAULTS_FILE in quoted(prose(DROPPING))


def test_each_misnamed_document_is_documented() -> None:
    page = section(DROPPING, "Which files count")

    assert {f"anna.{ending}" for ending in pairing.UNUSABLE_DOCUMENTS} <= {*quoted(page)}
