"""MiniStack, put right where Dropreel depends on AWS's behaviour and MiniStack's differs.

    python -m local.corrected_ministack

The Python of `.venv/aws` runs it, in place of the command `ministack`. Each correction replaces one
function of the running MiniStack, or the script of its Python environments; no file of MiniStack
changes. Another version of MiniStack does not start: read again what is replaced here, then raise
`VERSION`.
"""

import inspect
import io
import json
import os
import random
import re
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ministack.app
from ministack.core import lambda_runtime
from ministack.services import eventbridge, lambda_svc, stepfunctions, sts

from local.request_record import App, recorded

VERSION = "1.5.33"

# How many environments there may be, idle ones included. AWS has no such bound.
MAX_ENVIRONMENTS = int(os.environ.get("LAMBDA_MAX_ENVIRONMENTS", "0")) or None

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

    An exception of the handler becomes a result (see `name_errors`): MiniStack ends an environment
    whose status is an error, so the next call would be a cold start. AWS keeps it.
    """
    trace = "traceback.format_exc()"
    error = f'{{"status": "error", "error": str(e), "trace": {trace}}}'
    result = f'{{"_raised": _described(e), "_trace": {trace}}}'
    for old, new in {
        error: f'{{"status": "ok", "result": {result}}}',
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
        match result["body"]:
            case {"_raised": message, "_trace": trace}:
                log = "\n".join(filter(None, [result["log"], trace]))
                result = {"body": {"errorMessage": message}, "error": True, "log": log}
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


_task_token: ContextVar[str] = ContextVar("task_token", default="")


def know_token(invoke: Function) -> Function:
    """See `fail_callback_tasks`."""

    def invoked(resource: object, input_data: object, token: str, state_def: object) -> object:
        before = _task_token.set(token)
        try:
            return invoke(resource, input_data, token, state_def)
        finally:
            _task_token.reset(before)

    return invoked


def fail_callback_tasks(call: Function) -> Function:
    """A task with `.waitForTaskToken` fails when its function fails, and is retried.

    MiniStack ignores the failure, and waits for an answer to the token.
    """

    def failing(func_ref: object, event: object) -> object:
        try:
            return call(func_ref, event)
        except stepfunctions._ExecutionError as failure:
            waiting = stepfunctions._task_tokens.get(_task_token.get())
            if waiting and not waiting["event"].is_set():
                waiting["error"] = {"Error": failure.error, "Cause": failure.cause}
                waiting["event"].set()
            raise

    return failing


# --- Throttles ---


@dataclass(frozen=True)
class Patience:
    """How long a call that nobody waits for is tried again while Lambda throttles it."""

    until: float = 0
    max_wait_seconds: float = 0


_IMPATIENT = Patience()
_patience: ContextVar[Patience] = ContextVar("patience", default=_IMPATIENT)


@contextmanager
def _patient(until: float, max_wait_seconds: float) -> Iterator[None]:
    before = _patience.set(Patience(until, max_wait_seconds))
    try:
        yield
    finally:
        _patience.reset(before)


def try_throttled_again(execute: Function) -> Function:
    """A throttled call is tried again where the caller's `Patience` says so.

    The waits grow from one second, as those of asynchronous calls do on AWS.
    """

    def executed(func: Json, event: object) -> Json:
        patience, wait_seconds = _patience.get(), 1.0
        while True:
            result: Json = execute(func, event)
            if not result.get("throttle") or time.time() + wait_seconds > patience.until:
                return result
            time.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, patience.max_wait_seconds)

    return executed


def queue_async_calls(invoke: Function) -> Function:
    """An asynchronous call that Lambda throttles waits in Lambda's queue, by default for six hours.

    Such a wait is no attempt. The retries and the failure destination are those of the alias that
    was called. MiniStack counts a throttle as a failed attempt, and knows the settings of `$LATEST`
    only.
    """

    def queued(func: Json, event: object) -> None:
        arn = func["config"]["FunctionArn"]
        _, qualifier = lambda_svc._lambda_function_name_and_qualifier_from_arn(arn)
        base, _, _ = lambda_svc._get_base_func_record_for_ref(arn)
        settings = lambda_svc._event_invoke_config(base or func, qualifier) or {}
        age_seconds = settings.get("MaximumEventAgeInSeconds", 21600)
        with _patient(time.time() + age_seconds, max_wait_seconds=300):
            # It goes on in a thread, which gets a copy of the context.
            invoke({**func, "event_invoke_config": settings}, event)

    return queued


def call_from_rules_async(dispatch: Function) -> Function:
    """A rule of EventBridge calls a function asynchronously. MiniStack calls it once, whatever the
    answer."""

    def dispatched(arn: str, payload: str) -> None:
        func, config, _ = lambda_svc._get_func_record_for_ref(arn)
        if not func or not config:
            dispatch(arn, payload)  # it logs that there is none
            return
        config = {**config, "FunctionArn": arn}
        record = lambda_svc._execution_record_for_config(func, config)
        lambda_svc.invoke_async_with_retry(record, json.loads(payload))

    return dispatched


def hold_throttled_batches(run: Function) -> Function:
    """A batch of SQS messages that Lambda throttles is tried again until its messages are visible
    again. MiniStack leaves them to the next receive at once, which counts as one."""

    def held(esm: object, func: object, event: object, batch: list[Json], *queue: str) -> None:
        with _patient(min(message["visible_at"] for message in batch), max_wait_seconds=4):
            run(esm, func, event, batch, *queue)

    return held


def spread_retries(find: Function) -> Function:
    """A retry of a state waits as `MaxDelaySeconds` and `JitterStrategy` say.

    MiniStack ignores both, and waits at most 60 seconds. That bound stays.
    """

    def found(
        retriers: object, error: str, retry_counts: dict[int, int]
    ) -> tuple[Json | None, int]:
        retrier, place = find(retriers, error, retry_counts)
        if retrier is None:
            return None, place
        # After so many steps, every wait has grown to its bound.
        steps = min(retry_counts.get(place, 0), 100)
        wait_seconds = retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2.0) ** steps
        wait_seconds = min(wait_seconds, retrier.get("MaxDelaySeconds", wait_seconds))
        if retrier.get("JitterStrategy") == "FULL":
            wait_seconds = random.uniform(0, min(wait_seconds, 60))  # noqa: S311 - no secret
        return {**retrier, "IntervalSeconds": wait_seconds, "BackoffRate": 1}, place

    return found


# --- Environments of functions ---


def bound_environments(acquire: Function) -> Function:
    """There are never more than `MAX_ENVIRONMENTS`: a new one ends the one that was idle longest.

    Each is a process of some 50 MB. MiniStack bounds only how many run at once
    (`LAMBDA_ACCOUNT_CONCURRENCY`), and every function may keep as many idle ones.
    """

    def acquired(
        func_name: str, config: Json, code_zip: bytes, qualifier: str = "$LATEST"
    ) -> tuple[Any, str]:
        worker, how = acquire(func_name, config, code_zip, qualifier=qualifier)
        if how == "spawn" and MAX_ENVIRONMENTS:
            lambda_runtime.kill_workers(_take_idle(surplus_over=MAX_ENVIRONMENTS))
        return worker, how

    return acquired


def _take_idle(surplus_over: int) -> list[Any]:
    """Take the workers that were idle longest out of their pools, as many as are too many."""
    with lambda_runtime._lock:
        pools = lambda_runtime._workers
        workers = [(worker, pool) for pool in pools.values() for worker in pool]
        idle = sorted(
            ((worker, pool) for worker, pool in workers if not worker.in_use),
            key=lambda found: found[0].last_used,
        )
        taken = idle[: max(0, len(workers) - surplus_over)]
        for worker, pool in taken:
            pool.remove(worker)
    return [worker for worker, _ in taken]


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
    call = "(func_ref, event)"
    _replace(
        stepfunctions, "_call_lambda", call, lambda it: fail_callback_tasks(name_throttles(it))
    )
    callback = "(resource, input_data, token, state_def)"
    _replace(stepfunctions, "_invoke_with_callback", callback, know_token)
    call = "(func: dict, event: dict)"
    _replace(lambda_svc, "_execute_function", f"{call} -> dict", try_throttled_again)
    _replace(lambda_svc, "invoke_async_with_retry", f"{call} -> None", queue_async_calls)
    batch = "(esm, func_rec, event, batch, queue_url, queue_name)"
    _replace(lambda_svc, "_run_sqs_batch", batch, hold_throttled_batches)
    _replace(eventbridge, "_dispatch_to_lambda", "(arn, payload)", call_from_rules_async)
    retry = "(retriers, error, retry_counts)"
    _replace(stepfunctions, "_find_matching_retrier", retry, spread_retries)
    lease = (
        "(func_name: str, config: dict, code_zip: bytes, qualifier: str = '$LATEST',"
        " max_concurrency: int | None = None)"
    )
    _replace(lambda_svc, "acquire_worker", lease, bound_environments)
    _replace(lambda_runtime.Worker, "_spawn", "(self)", share_layers)
    credentials = "(config: dict) -> dict[str, str]"
    _replace(lambda_runtime, "execution_credentials", credentials, lengthen_session_tokens)


def record_requests(app: App) -> App:
    """Into the file that `REQUEST_RECORD` names."""
    return recorded(app, Path(os.environ["REQUEST_RECORD"]).open("w"), _function_of)


def _function_of(access_key: str) -> str:
    """The last part of `arn:aws:sts::...:assumed-role/<role>/<function>`."""
    arn: str = sts._sessions.get(access_key, {}).get("Arn", "")
    return arn.rpartition("/")[2]


if __name__ == "__main__":
    correct()
    if "REQUEST_RECORD" in os.environ:
        _replace(ministack.app, "app", "(scope, receive, send)", record_requests)
    ministack.app.main()
