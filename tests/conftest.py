"""All tests: two workers share them, and one of the two has the embedded AWS to itself."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `--dist loadgroup`: the end-to-end tests share one deployed stack, so they are one
    group; any other file is one, because its fixtures are made once for it."""
    for item in items:
        file = item.path.name if item.path.parent.name != "e2e" else "e2e"
        item.add_marker(pytest.mark.xdist_group(file))
