"""A record of what MiniStack is asked over HTTP, for `tests.bench.costs`."""

import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import IO, Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_ACCESS_KEY = re.compile(r"Credential=(\w+)")


def recorded(app: App, file: IO[str], function_of: Callable[[str], str]) -> App:
    """The ASGI app, which then writes a line of JSON for each request that it has answered.

    `function_of` names the Lambda function that an access key was given to, or is empty. The body
    is recorded for DynamoDB and EventBridge only: those charge by what is in it.
    """

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = {
            name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        query, target = scope["query_string"].decode(), headers.get("x-amz-target", "")
        keeps_body = target.startswith(("DynamoDB", "AWSEvents"))
        body, answered_bytes, status = bytearray(), 0, 0

        async def receive_and_keep() -> Message:
            message = await receive()
            if keeps_body:
                body.extend(message.get("body", b""))
            return message

        async def send_and_count(message: Message) -> None:
            nonlocal answered_bytes, status
            answered_bytes += len(message.get("body", b""))
            status = message.get("status", status)
            await send(message)

        await app(scope, receive_and_keep, send_and_count)
        found = _ACCESS_KEY.search(headers.get("authorization", "") or query)
        line = {
            "at": time.time(),
            "function": function_of(found[1]) if found else "",
            "presigned": "X-Amz-Signature" in query,
            "target": target,
            "method": scope["method"],
            "path": scope["path"],
            "query": query if "X-Amz-Signature" not in query else "",
            "status": status,
            "answered_bytes": answered_bytes,
            "body": body.decode(),
        }
        file.write(json.dumps(line) + "\n")
        file.flush()

    return answer
