"""What a stack may be called: its functions, layers and event bus carry its name.

python -m deploy.stack_name NAME
"""

import re
import sys
from typing import Final

MAX_STACK_NAME_CHARACTERS: Final = 50
"""The longest name that the template adds a suffix to is a function's or a layer's, of 64."""

PATTERN: Final = rf"^[A-Za-z][A-Za-z0-9-]{{0,{MAX_STACK_NAME_CHARACTERS - 1}}}$"

RESERVED: Final = "(?i)^(aws|ssm)"
"""Systems Manager makes no parameter whose name begins so, and ours begin with the stack's name."""


def refusal(name: str) -> str | None:
    """Why a stack cannot have this name; None if it can."""
    if len(name) > MAX_STACK_NAME_CHARACTERS:
        return (
            f'The stack name "{name}" has {len(name)} characters. '
            f"Choose one of at most {MAX_STACK_NAME_CHARACTERS}."
        )
    if not re.fullmatch(PATTERN, name):
        return (
            f'The stack name "{name}" is not possible. '
            "Use letters, digits and hyphens, and begin with a letter."
        )
    if re.match(RESERVED, name):
        return f'The stack name "{name}" cannot begin with "aws" or "ssm": AWS keeps these names.'
    if name == "default":
        return (
            'The stack cannot be called "default", because its event bus has the same name, '
            "and each account has a default bus."
        )
    return None


if __name__ == "__main__":
    sys.exit(refusal(sys.argv[1]))
