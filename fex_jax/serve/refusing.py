"""What is not answered: every error of the application is {"error": …}."""

import re
from collections.abc import Awaitable
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fex_jax.host import HostError
from fex_jax.serve import bodies
from fex_jax.serve.batching import Full

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


async def answer(work: Awaitable[dict[str, Any]]) -> Response:
    """What work comes to, or why it does not."""
    try:
        return JSONResponse(await work)
    except bodies.Refused as error:
        late = error.status == 408  # the rest is not waited for
        return _error(error.status, str(error), {"Connection": "close"} if late else None)
    except UnicodeEncodeError:
        return _error(400, "the request holds half of a surrogate pair; expected whole characters")
    except (ValueError, RecursionError) as error:
        return _error(400, str(error))
    except HostError as error:
        return _error(502, str(error))
    except Full as error:
        return _error(503, str(error), {"Retry-After": "1"})


class Loopback:
    """Refuses what names another machine: pages of elsewhere may have names that lead here."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self._app
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            if re.sub(r":\d*$", "", host).lower() not in LOOPBACK:
                app = _error(400, "Invalid host header: only this machine is answered")
        await app(scope, receive, send)


async def _no_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.url.path} takes no {request.method}",
    }
    return _error(error.status_code, said.get(error.status_code, error.detail), error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    return _error(500, f"the server has failed ({type(error).__name__}); its log says more")


HANDLERS = {HTTPException: _no_address, Exception: _failed}


def _error(status: int, reason: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers)
