"""Errors that an operator reads as one sentence, without a traceback."""


class OperateError(Exception):
    """The command failed; the message says why."""

    exit_code = 1


class WrongUsage(OperateError):
    """Wrong arguments. The message names them as for make and as for Python."""

    exit_code = 2
