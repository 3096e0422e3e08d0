"""Our requests in a provider's list: it has no name that we gave them, but it has our files."""

from collections.abc import Collection, Iterable
from urllib.parse import parse_qs, unquote, urlsplit

File = tuple[str, str]
"""A version of an object: the path of its URL, and its version id."""


def files_in(inputs: object) -> frozenset[File]:
    """The versions that the URLs in a request's inputs name, whoever signed them and when.

    A URL without a version id is none of ours.
    """
    return frozenset((path, version) for path, version in _files(inputs) if version)


def hides_versions(inputs: object, files: Collection[File]) -> bool:
    """Whether a URL in the inputs has the path of one of the files, without a version."""
    return any((path, "") in _files(inputs) for path, _ in files)


def _files(inputs: object) -> frozenset[File]:
    return frozenset(map(_file, _texts_in(inputs)))


def _texts_in(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(one)


def _file(url: str) -> File:
    """The version is empty when the URL names none, or several."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    versions = parse_qs(parts.query).get("versionId", [])
    return unquote(parts.path), versions[0] if len(versions) == 1 else ""
