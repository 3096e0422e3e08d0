"""What an operator is told instead of a traceback: one sentence."""


class OperateError(Exception):
    """It could not be done; the message says why."""

    exit_code = 1


class WrongUsage(OperateError):
    """It cannot be meant. The message names what was typed, for make and for Python."""

    exit_code = 2
