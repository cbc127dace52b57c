"""What the engine's tests share: a listener that remembers, and requests with keys."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bunny.core.chat import ChatEvent, ChatRequest, Finished, Piece
from bunny.core.types import GenerationSettings
from bunny.infer.engine import Engine
from bunny.infer.generate import Generator, Request

GREEDY = GenerationSettings(max_new_tokens=12)


class Heard:
    """One request and all it hears. pause: the engine waits for it before it goes on, after each piece."""

    def __init__(self, engine: Engine, request: ChatRequest, pause: threading.Event | None = None) -> None:
        self.events: list[ChatEvent] = []
        self.done, self.spoke, self._pause = threading.Event(), threading.Event(), pause
        self.ticket = engine.submit(request, self._listen)

    def _listen(self, event: ChatEvent) -> None:
        self.events.append(event)
        (self.done if isinstance(event, Finished) else self.spoke).set()
        if self._pause and isinstance(event, Piece):
            assert self._pause.wait(60)

    @property
    def end(self) -> Finished:
        assert self.done.wait(60)
        (end,) = [event for event in self.events if isinstance(event, Finished)]
        assert self.events[-1] is end
        return end

    @property
    def pieces(self) -> list[Piece]:
        assert self.end
        return [event for event in self.events if isinstance(event, Piece)]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def chat(request: Request, settings: GenerationSettings = GREEDY, **more: Any) -> ChatRequest:
    keys = tuple(str(hash(picture.tobytes())) for picture in request.images)
    return ChatRequest(request.turns, request.images, keys, settings, **more)


@contextmanager
def running(maker: Generator, **more: Any) -> Iterator[Engine]:
    """An engine on the generator's model."""
    engine = Engine(maker.model, maker.processor, "tiny", **more)
    try:
        yield engine
    finally:
        engine.close(0)


def texts(maker: Generator, requests: Sequence[ChatRequest], **more: Any) -> list[str]:
    """Answers to requests that come all at once."""
    with running(maker, **more) as engine:
        heard = [Heard(engine, request) for request in requests]
        assert {one.end.reason for one in heard} <= {"stop", "length"}
        return [one.text for one in heard]
