"""The models that answer, and whether more requests are taken: while they load and while the server ends, none are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from bunny.core.chat import ChatEngine
from bunny.serve.failures import ApiError


class Service:
    """names: of the models that will be there. most: requests under way at once.

    Used from the event loop's thread; `opened` and `drain` may be called from any.
    """

    def __init__(self, names: Sequence[str], most: int) -> None:
        self.names, self.most = tuple(names), most
        self.started = int(time.time())
        self.in_flight = 0
        self._engines: dict[str, ChatEngine] = {}
        self._draining = False

    @property
    def state(self) -> Literal["ok", "loading", "stopping"]:
        if self._draining:
            return "stopping"
        return "ok" if len(self._engines) == len(self.names) else "loading"

    @property
    def engines(self) -> tuple[ChatEngine, ...]:
        return tuple(self._engines.values())

    def opened(self, engine: ChatEngine) -> None:
        """A model has been loaded."""
        self._engines[engine.name] = engine

    def drain(self) -> None:
        """Take no more."""
        self._draining = True

    def known(self, name: str) -> str:
        """The name of a model. Raises ApiError 404."""
        if name not in self.names:
            listed = ", ".join(self.names)
            message = f"there is no model `{name[:100]}` here; there is {listed}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return name

    def engine(self, name: str) -> ChatEngine:
        """The model of that name. Raises ApiError 404, 503 while it loads."""
        if self.known(name) not in self._engines:
            raise ApiError(503, "the model is being loaded", code="loading", retry_after_seconds=5)
        return self._engines[name]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """A request under way. Raises ApiError 503 while the server ends, 429 if too many are."""
        if self._draining:
            raise ApiError(503, "the server is stopping", code="stopping", retry_after_seconds=5)
        if self.in_flight >= self.most:
            raise ApiError(429, "too many requests are under way", code="busy", retry_after_seconds=1)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
