"""Deliver's handler on the embedded AWS: it may fetch videos from the stand-ins, too, which speak
plain http on this machine. `overlay` puts this file beside the function's own."""

import os
from collections.abc import Collection

import app  # type: ignore[import-not-found]
import httpx

from dropreel.providers.deadline import Deadline
from dropreel.providers.download import Download, GuardedTransport


class StandInsToo(GuardedTransport):
    """Guards all requests but those to the stand-ins."""

    def __init__(self, origins: Collection[str], deadline: Deadline) -> None:
        super().__init__(deadline)
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


app.download = download_from(*os.environ["STANDINS"].split(","))
handler = app.handler
