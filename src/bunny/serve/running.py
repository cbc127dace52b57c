"""The process: it listens at once, loads the models beside that, and ends without breaking off an answer.

The first SIGTERM or Ctrl-C: no more requests, the answers under way are finished, within a time. The second: at once.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bunny.core.log import log
from bunny.serve.failures import ApiError
from bunny.serve.limits import Limits
from bunny.serve.service import Service

HEAD_BYTES = 32 << 10  # of a request's line and headers
CLOSE_SECONDS = 5  # for answers that were cut short at the end


class Running(uvicorn.Server):
    """A server that runs until it is told to end. load: opens the models, in a thread; called once."""

    def __init__(
        self,
        app: Any,
        service: Service,
        load: Callable[[Service], None],
        limits: Limits,
        drain_seconds: float,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_protocol(limits),
                ws="none",
                lifespan="off",
                log_level="critical",  # the door logs, and says more
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=HEAD_BYTES,
                timeout_keep_alive=limits.idle_seconds,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        self.service, self.drain_seconds = service, drain_seconds
        self._load = load
        self._failure: BaseException | None = None
        self._ending: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve_until_told(self, listening: socket.socket) -> None:
        """Serve on a listening socket until a signal, or until the models cannot be loaded: their error is raised."""
        with listening:
            self.run(sockets=[listening])
        if self._failure is not None:
            raise self._failure

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._loading, name="loading", daemon=True).start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What a signal does (and a test)."""
        if self._ending is not None or self._loop is None:
            self.force_exit = self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Begin to end; from the loop's thread."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        self.service.drain()
        left = self.service.in_flight
        log.info("ending%s", f": {left} answers under way get {self.drain_seconds:g} s" if left else "")
        await self._until_none_is_under_way(self.drain_seconds)
        closing = [asyncio.to_thread(engine.close, 0.0) for engine in self.service.engines]
        await asyncio.gather(*closing)  # what still runs hears of it, and its askers with it
        await self._until_none_is_under_way(CLOSE_SECONDS)
        self.should_exit = True

    async def _until_none_is_under_way(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.service.in_flight and time.monotonic() < end:
            await asyncio.sleep(0.05)

    def _loading(self) -> None:
        try:
            self._load(self.service)
        except BaseException as error:  # noqa: BLE001  it is raised again where the server was started
            self._failure = error
            self.should_exit = True
            return


def _protocol(limits: Limits) -> type[H11Protocol]:
    """HTTP/1.1 without the waits that uvicorn would never end: for a first request, for the rest of a request's
    headers, for a reader who does not read."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._waits = self.loop.call_later(limits.head_seconds, transport.close)
            self._stalls: asyncio.TimerHandle | None = None
            if len(self.connections) > limits.connections:
                transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._waits.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._waits.cancel()
            elif self._waits.cancelled():
                self._waits = self.loop.call_later(limits.head_seconds, self.transport.close)

        def send_400_response(self, msg: str) -> None:
            """What is no HTTP gets an error in the same form as all others."""
            refused = ApiError(400, "this is not HTTP/1.1 as its standard has it", code="invalid_http").response()
            head = [(b"connection", b"close"), *refused.raw_headers]
            try:
                for event in (
                    h11.Response(status_code=400, headers=head),
                    h11.Data(bytes(refused.body)),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            except h11.LocalProtocolError:  # it comes in the middle of an answer
                log.debug("broken HTTP behind a request")
            self.transport.close()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalls = self.loop.call_later(limits.body_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stalls is not None:
                self._stalls.cancel()

    return Protocol
