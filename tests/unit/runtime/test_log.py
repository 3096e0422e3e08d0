"""No log holds what grants access, and each handler starts its log lines anew."""

import ast
import logging
from pathlib import Path

import pytest

from dropreel.runtime import log as log_module
from local.embedded import PROJECT
from tests.support.sam_template import of_type

HANDLERS = sorted(PROJECT.glob("functions/*/app.py"))
WITHOUT_A_JOB = {"intake", "sweep", "watch", "notify"}  # they serve many, or none


@pytest.mark.parametrize("name", ["httpx", "httpcore"])
def test_no_url_that_is_asked_for_is_logged(name: str) -> None:
    assert log_module.logger
    assert logging.getLogger(name).level == logging.WARNING


@pytest.mark.parametrize("path", HANDLERS, ids=lambda path: path.parent.name)
def test_each_handler_has_the_one_decorator_of_its_kind(path: Path) -> None:
    (function,) = (
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "handler"
    )

    [decorator] = function.decorator_list

    text = ast.unparse(decorator)
    if path.parent.name in WITHOUT_A_JOB:
        assert text == "logger.inject_lambda_context(clear_state=True)"
    else:
        assert text.startswith("step(")


def test_each_function_has_a_handler() -> None:
    assert len(HANDLERS) == len(of_type("AWS::Serverless::Function"))
