"""A `ChatEngine` of few lines that says back what it was asked, and a server on a real socket around any engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from bunny.core.chat import Busy, ChatEngine, ChatEvent, ChatRequest, Finished, Piece, TokenChance
from bunny.core.errors import UserError
from bunny.serve.app import Rules, make_app
from bunny.serve.curation import listen
from bunny.serve.running import Running
from bunny.serve.service import Service


class Stub:
    """Answers "<turns> turns, <sizes of the pictures>: <last words>", a word a piece.

    "wait for me" in a question: its answer waits for `go` behind its first piece. started, cancelled: whether one was.
    """

    def __init__(self, name: str = "stub") -> None:
        self.name = name
        self.asked: list[ChatRequest] = []
        self.go, self.cancelled, self.started = threading.Event(), threading.Event(), threading.Event()
        self.closed = False
        self.tickets: list[Ticket] = []

    def submit(self, request: ChatRequest, listen: Callable[[ChatEvent], None]) -> Ticket:
        words = request.turns[-1].text
        if "be busy" in words:
            raise Busy(7.2)
        if "too long" in words:
            raise UserError("the prompt has 9000 tokens", fix="ask for less")
        self.asked.append(request)
        ticket = Ticket(self, request, listen)
        self.tickets.append(ticket)
        threading.Thread(target=ticket.speak, daemon=True).start()
        return ticket

    def figures(self) -> Mapping[str, float]:
        return {"running": 0.0, "waiting": 0.0, "steps_total": float(len(self.asked))}

    def close(self, timeout_seconds: float) -> None:
        self.closed = True
        self.go.set()

    def cut(self) -> None:
        """Cancel what is under way."""
        for ticket in self.tickets:
            ticket.cancel()


class Ticket:
    """One request under way."""

    def __init__(self, stub: Stub, request: ChatRequest, listen: Callable[[ChatEvent], None]) -> None:
        self.stub, self.request, self.listen = stub, request, listen
        self.over = threading.Event()
        self.ended = False

    def cancel(self) -> None:
        self.over.set()
        if not self.ended:
            self.stub.cancelled.set()
            self.stub.go.set()

    def speak(self) -> None:
        request = self.request
        sizes = " ".join(f"{image.width}x{image.height}" for image in request.images)
        text = request.turns[-1].text
        words = f"{len(request.turns)} turns, {sizes}: {text}".split(" ")[: request.settings.max_new_tokens]
        for number, word in enumerate(words):
            piece = f" {word}" if number else word
            chances = ((chance(piece), (chance(piece), chance("?"))),) if request.logprobs is not None else ()
            self.listen(Piece(piece, chances))
            self.stub.started.set()
            if "wait for me" in text:
                self.stub.go.wait(30)
            if self.over.is_set():
                return self.finish(Finished("cancelled", 5, number))
        for word, reason in (("time out", "timeout"), ("fall over", "error")):
            if word in text:
                return self.finish(Finished(reason, 5, len(words), 0, "the model fell over"))  # type: ignore[arg-type]
        reason = "length" if len(words) == request.settings.max_new_tokens else "stop"
        return self.finish(Finished(reason, 5, len(words), 3))  # type: ignore[arg-type]

    def finish(self, end: Finished) -> None:
        self.ended = True
        self.listen(end)


def chance(text: str) -> TokenChance:
    return TokenChance(text, text.encode(), float("-inf") if text == "?" else -0.5)


@contextmanager
def served(*engines: ChatEngine, rules: Rules | None = None, drain_seconds: float = 5.0) -> Iterator[str]:
    """The address of a server of these engines, on a free port of this machine."""
    with running(*engines, rules=rules, drain_seconds=drain_seconds) as (address, _):
        yield address


@contextmanager
def running(
    *engines: Stub,
    rules: Rules | None = None,
    drain_seconds: float = 5.0,
    load: Callable[[Service], None] | None = None,
) -> Iterator[tuple[str, Running]]:
    """The address of a server and the server itself."""
    rules = rules or Rules()
    service = Service([engine.name for engine in engines], rules.limits.requests)

    def opened(service: Service) -> None:
        for engine in engines:
            service.opened(engine)

    server = Running(make_app(service, rules), service, load or opened, rules.limits, drain_seconds)
    listening = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_until_told, args=[listening], daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
