"""The README says what is true now."""

import re

from local.embedded import PROJECT
from local.models import README, with_table

MAKEFILE = (PROJECT / "Makefile").read_text()


def test_the_table_of_models_is_the_catalogs() -> None:
    readme = README.read_text()

    assert readme == with_table(readme), "the catalog has changed: run `make events`"


def test_each_make_command_that_it_names_exists() -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README.read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))

    assert {"demo", "test", "deploy"} <= named
    assert named <= targets


def test_each_file_that_it_links_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())

    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []
