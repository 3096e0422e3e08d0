"""The TCP connection under a request: out of reach in ASGI, and needed to break it off."""

import asyncio
from typing import cast

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol


class ReachableConnection(H11Protocol):
    """uvicorn's HTTP/1.1, which also puts the connection into each request's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def transport_of(scope: Scope) -> asyncio.Transport:
    return cast(asyncio.Transport, scope["state"]["transport"])
