"""Our requests in a provider's list: it has no name that we gave them, but it has our files."""

from collections.abc import Iterable
from urllib.parse import parse_qs, unquote, urlsplit

File = tuple[str, str]
"""A version of an object: the path of its URL, and its version id."""


def files_in(inputs: object) -> frozenset[File]:
    """The versions that the URLs in a request's inputs name, whoever signed them and when.

    A URL without a version id is none of ours.
    """
    return frozenset(filter(None, map(_file, _texts_in(inputs))))


def _texts_in(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(one)


def _file(url: str) -> File | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    versions = parse_qs(parts.query).get("versionId", [])
    return (unquote(parts.path), versions[0]) if len(versions) == 1 else None
