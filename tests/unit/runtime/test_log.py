"""No log holds what grants access: the URLs that are asked for."""

import logging

import pytest

from dropreel.runtime import log as log_module


@pytest.mark.parametrize("name", ["httpx", "httpcore"])
def test_no_url_that_is_asked_for_is_logged(name: str) -> None:
    assert log_module.logger
    assert logging.getLogger(name).level == logging.WARNING
