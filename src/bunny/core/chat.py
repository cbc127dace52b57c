"""The seam between those who ask for answers one by one (the server, a terminal) and those who make them.

A `ChatEngine` takes requests at any moment and answers them piece by piece. `infer.engine` answers with a loaded model,
many requests at once; `serve.upstream` passes them on to another server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from bunny.core.types import GenerationSettings, Turn

Ended = Literal["stop", "length", "cancelled", "timeout", "error"]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One conversation that waits for its next turn.

    turns: the last one is the user's (or an assistant's to go on with); pictures stand where the `<image>` marks are.
    images: PIL pictures, decoded, RGB, in order of their marks. image_keys: a digest of each picture's bytes, by which
    features are found again; empty: no picture is looked up.
    seed: of the draws (with a temperature above 0); none: another one each time. The same seed gives the same answer,
    whatever else is answered meanwhile.
    logprobs: how many of the likeliest tokens come with each token; none: no probabilities; 0: the token's own alone.
    timeout_seconds: from submission to the last piece; none: no limit.
    """

    turns: tuple[Turn, ...]
    images: tuple[Any, ...] = ()
    image_keys: tuple[str, ...] = ()
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    seed: int | None = None
    logprobs: int | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TokenChance:
    """A token that was given (or could have been). text: as decoded alone; logprob: natural logarithm, before
    temperature."""

    text: str
    raw: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more of an answer. chances: of each token in it, with its alternatives, where they were asked for."""

    text: str
    chances: tuple[tuple[TokenChance, tuple[TokenChance, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer. cached_tokens: of the prompt, whose keys and values were there already.
    error: for `error`, what happened, in words for the one who asked."""

    reason: Ended
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    error: str = ""


ChatEvent = Piece | Finished


class Busy(Exception):
    """The queue is full. retry_after_seconds: when a place may be free."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("too many requests wait")
        self.retry_after_seconds = retry_after_seconds


class Ticket(Protocol):
    """A request under way."""

    def cancel(self) -> None:
        """Stop it; its listener still hears `Finished`. May be called at any time, from any thread, again."""
        ...


@runtime_checkable
class ChatEngine(Protocol):
    """Answers requests. All methods may be called from any thread."""

    @property
    def name(self) -> str:
        """What the model is called by those who ask for it."""
        ...

    def submit(self, request: ChatRequest, listen: Callable[[ChatEvent], None]) -> Ticket:
        """Start a request. listen: called from the engine's thread with every `Piece`, at last with one `Finished`; it
        must return at once. Raises Busy when the queue is full and UserError for a request that can never be answered
        (more tokens than the model reads, no user turn)."""
        ...

    def figures(self) -> Mapping[str, float]:
        """What an operator watches: `running`, `waiting`, counters whose names end in `_total`, seconds."""
        ...

    def close(self, timeout_seconds: float) -> None:
        """Take no more, finish what runs within the time, cancel the rest, free the model."""
        ...
