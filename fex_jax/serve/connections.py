"""Connections that no slow client holds: uvicorn bounds no time in which a request must come."""

import asyncio
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """A connection that is closed where a request is not whole in twice `Limits.seconds`.

    `bodies` answers before that where the headers are there; the rest of what is refused or goes
    to no address is not waited for longer either. Between requests uvicorn's keep-alive counts.
    """

    _late: asyncio.TimerHandle | None = None  # while a request comes

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._wait()
        else:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._late is None:
            seconds = self.config.app.state.service.limits.seconds
            self._late = self.loop.call_later(2 * seconds, self.transport.close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def server(app: Starlette, **options: Any) -> uvicorn.Server:
    """What serves an `app.application`; the options are those of `uvicorn.Config`."""
    own = {"log_level": "warning", "access_log": False, "server_header": False} | options
    return uvicorn.Server(uvicorn.Config(app, http=Connection, **own))
