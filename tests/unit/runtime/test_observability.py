"""No log and no trace holds what grants access: URLs, answers of the steps, words of errors."""

import ast
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dropreel.runtime import log as log_module
from local.embedded import PROJECT

HANDLERS = sorted(PROJECT.glob("functions/*/app.py"))

# As in Lambda, where the tracer is on; it is off everywhere else.
PATCHED = """
import httpx
from aws_xray_sdk.core import patcher
from dropreel.runtime.tracing import tracer
assert not tracer.disabled
print(*patcher._PATCHED_MODULES)
"""


@pytest.mark.parametrize("name", ["httpx", "httpcore"])
def test_no_url_that_is_asked_for_is_logged(name: str) -> None:
    assert log_module.logger
    assert logging.getLogger(name).level == logging.WARNING


def test_no_http_call_is_traced() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PATCHED],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "LAMBDA_TASK_ROOT": "/var/task",
            "POWERTOOLS_TRACE_DISABLED": "false",
            "_X_AMZN_TRACE_ID": "",
        },
    )

    assert set(ran.stdout.split()) <= {"botocore"}


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda path: path.parent.name)
def test_a_trace_of_a_function_holds_neither_its_answer_nor_its_error(handler: Path) -> None:
    (function,) = (
        node
        for node in ast.parse(handler.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "handler"
    )

    assert [ast.unparse(decorator) for decorator in function.decorator_list] == [
        "logger.inject_lambda_context",
        "tracer.capture_lambda_handler(capture_response=False, capture_error=False)",
    ]


def test_each_function_has_a_handler() -> None:
    assert len(HANDLERS) == 8
