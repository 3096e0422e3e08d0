"""MiniStack, put right where Dropreel depends on AWS's behaviour and MiniStack's differs.

    python -m local.corrected_ministack

The Python of `.venv/aws` runs it, in place of the command `ministack`. Each correction replaces one
function of the running MiniStack, or the script of its Python environments; no file of MiniStack
changes. Another version of MiniStack does not start: read again what is replaced here, then raise
`VERSION`.
"""

import inspect
import io
import os
import re
import tempfile
import threading
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ministack.app import main
from ministack.core import lambda_runtime
from ministack.services import lambda_svc, stepfunctions, sts

VERSION = "1.5.33"

Json = dict[str, Any]
Function = Callable[..., Any]  # MiniStack has no types

_DESCRIBE_IN_WORKER = """
def _described(error, module=None):
    if module and isinstance(error, ImportError):
        return f"errorType=Runtime.ImportModuleError Unable to import module '{module}': {error}"
    return f"errorType={type(error).__name__} {error}"
"""
_DESCRIBED = re.compile(r"(?:Worker init failed: )?errorType=(\S+) (.*)", re.DOTALL)

_unpacking = threading.Lock()


def describe_errors(script: str) -> str:
    """The script of a Python environment, whose messages then begin with the error's type.

    On AWS that is the name of the exception's class, both in the handler and while its module is
    imported. If an ImportError ends the import, it is `Runtime.ImportModuleError`. MiniStack's
    script gives the text of the exception only.
    """
    for old, new in {
        '"error": str(e), "trace"': '"error": _described(e), "trace"',
        '"error": str(e)})': '"error": _described(e, module_name)})',
    }.items():
        if script.count(old) != 1:
            raise SystemExit(f"MiniStack's Python worker does not have {old} once")
        script = script.replace(old, new)
    return _DESCRIBE_IN_WORKER + script


def name_errors(execute: Function) -> Function:
    """The `errorType` of a failed call is the one that AWS gives it (see `describe_errors`).

    So `Retry` and `Catch` of a state machine go by the class of the exception. MiniStack calls
    each exception of a handler `Runtime.HandlerError`, and each one of an import `RuntimeError`.
    """

    def named(func: Json, event: object, request_id: str) -> Json:
        result: Json = execute(func, event, request_id)
        message = result["body"].get("errorMessage", "") if result.get("error") else ""
        if found := _DESCRIBED.fullmatch(message):
            result["body"] |= {"errorType": found[1], "errorMessage": found[2]}
        return result

    return named


def name_throttles(call: Function) -> Function:
    """A state machine's call that Lambda throttles fails with `Lambda.TooManyRequestsException`.

    MiniStack names it `Lambda.Unknown`, the name for an error without a type.
    """

    def named(func_ref: object, event: object) -> object:
        try:
            return call(func_ref, event)
        except stepfunctions._ExecutionError as failure:
            if '"__type": "TooManyRequestsException"' in failure.cause:
                failure.error = "Lambda.TooManyRequestsException"
            raise

    return named


def share_layers(spawn: Function) -> Function:
    """All environments of Python functions see the same files of a layer.

    On AWS a layer is a folder that nobody can write to. MiniStack unpacks all layers again for each
    environment, before the function can start.
    """

    def spawned(worker: Any) -> None:  # noqa: ANN401 - MiniStack has no types
        config = worker.config
        folders = [_unpacked(layer) for layer in config.get("Layers") or []]
        variables = config.get("Environment", {}).get("Variables", {})
        # The worker's script takes the layers' folders from this variable, whoever has set it.
        variables = {**variables, "_LAMBDA_LAYERS_DIRS": os.pathsep.join(filter(None, folders))}
        worker.config = {**config, "Layers": [], "Environment": {"Variables": variables}}
        try:
            spawn(worker)
        finally:
            worker.config = config

    return spawned


def _unpacked(attachment: Json) -> str:
    """The folder with the files of a layer; empty for one that MiniStack does not have.

    Its name is the ARN with the version: a version's content never changes. Two environments may
    add the same `.pyc` file to it, because Python writes such a file under another name first.
    """
    folder = Path(tempfile.gettempdir()) / "layers" / attachment["Arn"].replace(":", "-")
    with _unpacking:
        if not folder.exists():
            content = lambda_svc._resolve_layer_zip(attachment)
            if not content:
                return ""
            # A folder with the final name is complete, even after a full disk.
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            zipfile.ZipFile(io.BytesIO(content)).extractall(unfinished)
            unfinished.rename(folder)
    return str(folder)


def lengthen_session_tokens(credentials: Function) -> Function:
    """The session token of a function is as long as one in Lambda, with characters that a URL
    encodes: 1,320 characters, 1,400 in a URL.

    AWS's tokens have no fixed length: at most 4,096 bytes, and 1,000 to 1,500 are usual. They are
    most of a presigned URL. MiniStack's have 64.
    """

    def lengthened(config: Json) -> Json:
        short: Json = credentials(config)
        if not (session := sts._sessions.get(short["AWS_ACCESS_KEY_ID"])):
            return short  # without AUTH, nobody checks a token
        # A key of its own: the first one is registered anew, with its short token, at each start.
        access_key = f"ASIA{short['AWS_ACCESS_KEY_ID'][:3:-1]}"
        token = f"{short['AWS_SESSION_TOKEN']}+/" * 20
        sts.register_session(access_key, {**session, "SessionToken": token})
        return {**short, "AWS_ACCESS_KEY_ID": access_key, "AWS_SESSION_TOKEN": token}

    return lengthened


def _replace(owner: object, name: str, signature: str, correction: Function) -> None:
    function = getattr(owner, name)
    if (found := str(inspect.signature(function))) != signature:
        raise SystemExit(f"MiniStack's {name} is {found}, but the correction is for {signature}")
    setattr(owner, name, correction(function))


def correct() -> None:
    if (found := version("ministack")) != VERSION:
        raise SystemExit(f"The corrections are for MiniStack {VERSION}, this is {found}")
    lambda_runtime._PYTHON_WORKER_SCRIPT = describe_errors(lambda_runtime._PYTHON_WORKER_SCRIPT)
    execute = "(func: dict, event: dict, request_id: str) -> dict"
    _replace(lambda_svc, "_execute_function_warm", execute, name_errors)
    _replace(stepfunctions, "_call_lambda", "(func_ref, event)", name_throttles)
    _replace(lambda_runtime.Worker, "_spawn", "(self)", share_layers)
    credentials = "(config: dict) -> dict[str, str]"
    _replace(lambda_runtime, "execution_credentials", credentials, lengthen_session_tokens)


if __name__ == "__main__":
    correct()
    main()
