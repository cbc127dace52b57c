"""One HTTP answer under way: who listens to it, and what has been sent already."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from bunny.serve.failures import FRESH, ApiError, event

EVENTS = {**FRESH, "content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}


class Answer:
    """The answer to the request of an ASGI scope."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self._send = scope, receive, send
        self.started = False

    @asynccontextmanager
    async def while_listened(self) -> AsyncIterator[None]:
        """What is done inside is cancelled when the client hangs up. Enter it when the body has been read.

        An ApiError is answered here: out of a task group it would come as a group of errors.
        """

        async def watch() -> None:
            while (await self.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            try:
                yield
            except ApiError as error:
                await self.fail(error)
            group.cancel_scope.cancel()

    async def send(self, response: Response) -> None:
        """A whole answer."""
        await response(self.scope, self.receive, self._sending)

    async def stream(self, events: AsyncIterator[bytes]) -> None:
        """Server-sent events; the head goes with the first of them."""
        async for data in events:
            if not self.started:
                await self.send_head(200, EVENTS)
            await self._sending({"type": "http.response.body", "body": data, "more_body": True})
        await self._sending({"type": "http.response.body", "body": b"", "more_body": False})

    async def send_head(self, status: int, headers: dict[str, str]) -> None:
        """Status and headers."""
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._sending({"type": "http.response.start", "status": status, "headers": raw})

    async def fail(self, error: ApiError) -> None:
        """An error: as an answer, or as the last event of one that has begun."""
        if not self.started:
            await self.send(error.response())
            return
        with anyio.move_on_after(1):  # it may be the client who does not read
            await self._sending({"type": "http.response.body", "body": event(error.content), "more_body": False})

    async def _sending(self, message: Message) -> None:
        self.started = True
        await self._send(message)
