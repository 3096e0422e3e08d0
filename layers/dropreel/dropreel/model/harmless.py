"""Text from elsewhere, such as a file's name or a provider's message, made fit to be shown."""


def harmless(text: object) -> str:
    """One line, in which what a terminal or a reader's eye would act on is spelled out: ESC becomes
    `\\x1b`, and a mark that turns the order of letters around `\\u202e`."""
    return "".join(one if one.isprintable() else _spelled_out(one) for one in str(text))


def harmless_lines(text: object) -> str:
    """The same, line by line."""
    return "\n".join(map(harmless, str(text).split("\n")))


def _spelled_out(character: str) -> str:
    return character.encode("unicode_escape").decode()
