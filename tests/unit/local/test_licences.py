"""NOTICE names every locked library, and no other."""

import re
from itertools import chain

import pytest

from local.licences import NOTICE, notice, of_the_layers, of_the_tools


def test_notice_is_current() -> None:
    lines = re.findall(r"^([a-z0-9-]+) (\d\S*): (.+)$", NOTICE.read_text("utf-8"), re.MULTILINE)
    licences = {(name, version): said for name, version, said in lines}

    assert set(licences) == of_the_layers() | of_the_tools(), "run `make licences`"
    assert notice(licences) == NOTICE.read_text("utf-8")


def test_package_without_a_licence_is_not_passed_over() -> None:
    unknown = dict.fromkeys(chain(of_the_layers(), of_the_tools()), "UNKNOWN")

    with pytest.raises(KeyError):
        notice(unknown)
