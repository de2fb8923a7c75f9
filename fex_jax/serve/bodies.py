"""The JSON object that a request brings."""

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request


class Refused(Exception):
    """A request that is not read, and the status that says so."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


async def read(request: Request, megabytes: int, seconds: float) -> dict[str, Any]:
    """The object.

    Raises:
      Refused: another type of content, too much of it, one that breaks off or takes longer than
        `seconds`, or no JSON object.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "expected Content-Type: application/json")
    most, body = megabytes * 2**20, bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise Refused(413, f"the request has more than {megabytes} MiB")
    except TimeoutError:
        raise Refused(408, f"the request did not come in {seconds:g} seconds") from None
    except ClientDisconnect:  # nobody reads this
        raise Refused(400, "the request broke off") from None
    try:
        values = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"expected JSON in UTF-8: {error}") from None
    if not isinstance(values, dict):
        raise Refused(400, "expected a JSON object")
    return values
