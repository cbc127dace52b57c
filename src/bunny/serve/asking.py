"""Between an engine, which speaks from a thread of its own, and the event loop: the events of `n` answers as they come.

Whatever ends the asking (an answer, an error, a client who hangs up) cancels what the engine still does for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
from anyio import to_thread

from bunny.core.chat import Busy, ChatEngine, ChatEvent, ChatRequest, Ticket
from bunny.core.errors import UserError
from bunny.serve.failures import ApiError

Events = asyncio.Queue[tuple[int, ChatEvent]]
"""(number of the answer, event)."""

SEEDS = 2**63


@asynccontextmanager
async def asked(
    engine: ChatEngine, request: ChatRequest, count: int, threads: anyio.CapacityLimiter
) -> AsyncIterator[Events]:
    """The events of `count` answers to a request. Raises ApiError 400 for a request the model cannot answer, 429."""
    events: Events = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def listener(number: int) -> Callable[[ChatEvent], None]:
        return lambda event: _hand_over(loop, events, (number, event))

    tickets: list[Ticket] = []
    try:
        for number, one in enumerate(_copies(request, count)):
            tickets.append(await to_thread.run_sync(engine.submit, one, listener(number), limiter=threads))
        yield events
    except Busy as error:
        raise ApiError(
            429, "too many requests wait", code="busy", retry_after_seconds=error.retry_after_seconds
        ) from None
    except UserError as error:
        raise ApiError(400, str(error), param="messages", code="invalid_value") from None
    finally:
        for ticket in tickets:
            ticket.cancel()


def _copies(request: ChatRequest, count: int) -> Sequence[ChatRequest]:
    """The request once for each answer; with a seed, each has another one, and the first that of a single answer."""
    if request.seed is None:
        return [request] * count
    return [replace(request, seed=(request.seed + number) % SEEDS) for number in range(count)]


def _hand_over(loop: asyncio.AbstractEventLoop, events: Events, event: tuple[int, ChatEvent]) -> None:
    if not loop.is_closed():  # at the very end nobody listens any more
        loop.call_soon_threadsafe(events.put_nowait, event)
