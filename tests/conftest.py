"""All tests: two workers share them, and one of the two has the deployed stack to itself."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support.environment import forget_clients

# No test reaches an account of the person who runs it.
os.environ |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
os.environ["AWS_DEFAULT_REGION"] = "eu-central-1"
for name in ("AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
    os.environ.pop(name, None)

# No test fails for being slow for a moment: other work may share the machine.
settings.register_profile("dropreel", deadline=None)
settings.load_profile("dropreel")


@pytest.fixture(autouse=True)
def _clients_of_its_own() -> Iterator[None]:
    """No test gets a client that was made for another's account or server."""
    forget_clients()
    yield
    forget_clients()


WITHOUT_THE_STACK = ("/test_consumers.py", "/test_embedded_aws.py")
"""They have an embedded AWS of their own."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """A file's tests stay together, because its fixtures are made once for it. So do all of the
    end-to-end tests that share one deployed stack."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        shares = file.startswith("tests/e2e/") and not file.endswith(WITHOUT_THE_STACK)
        return "e2e" if shares else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)
