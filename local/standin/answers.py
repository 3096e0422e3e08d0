"""Answers that an ordinary web framework would not give: broken off, cut, slow, misdeclared."""

import asyncio
import socket
import struct
from collections.abc import Iterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from local.standin.connection import transport_of
from local.standin.faults import Fault

_CHUNK_BYTES = 256 * 1024
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class HangUp(Response):
    """No answer at all: the connection is reset, as by a server that died."""

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        transport = transport_of(scope)
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        transport.abort()
        await hung_up(receive)


class ShapedAnswer(Response):
    """An answer whose body is sent as a fault wants it."""

    def __init__(self, answer: Response, fault: Fault) -> None:
        super().__init__(bytes(answer.body), answer.status_code, dict(answer.headers))
        self._fault = fault
        whole_bytes = len(self.body) + fault.filler_bytes
        self._declared_bytes = whole_bytes if fault.declared_bytes is None else fault.declared_bytes
        self._sent_bytes = min(whole_bytes, self._declared_bytes)
        if fault.cut_percent is not None:
            self._sent_bytes = int(self._sent_bytes * fault.cut_percent / 100)
        if fault.chunked:
            del self.headers["content-length"]
        else:
            self.headers["content-length"] = str(self._declared_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        for chunk in self._chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if self._fault.bytes_per_second:
                await asyncio.sleep(len(chunk) / self._fault.bytes_per_second)
        cut = self._fault.cut_percent is not None or self._sent_bytes < self._declared_bytes
        if cut and scope["method"] != "HEAD":
            # What is sent arrives; then the connection ends as if it were all.
            transport_of(scope).close()
            await hung_up(receive)
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _chunks(self) -> Iterator[bytes]:
        at_most = _CHUNK_BYTES
        if self._fault.bytes_per_second:
            at_most = max(1, self._fault.bytes_per_second // 10)
        for start in range(0, self._sent_bytes, at_most):
            end = min(start + at_most, self._sent_bytes)
            yield bytes(self.body[start:end]).ljust(end - start)


async def hung_up(receive: Receive) -> None:
    """Returns when the connection is gone. The request's body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
