"""Downloads that may also come from the stand-ins, which use plain http on this machine."""

from collections.abc import Collection

import httpx

from dropreel.providers.deadline import Deadline
from dropreel.providers.download import Download, GuardedTransport


class StandInsToo(GuardedTransport):
    """Guards all requests but those to the stand-ins."""

    def __init__(
        self,
        origins: Collection[str],
        deadline: Deadline | None = None,
        *,
        inner: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(deadline, inner=inner)
        self._origins = {_origin(httpx.URL(origin)) for origin in origins}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if _origin(request.url) in self._origins:
            return self._inner.handle_request(request)
        return super().handle_request(request)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def download_from(*origins: str) -> Download:
    """A download that may also fetch from these origins."""
    deadline = Deadline()
    return Download(deadline=deadline, transport=StandInsToo(origins, deadline))
