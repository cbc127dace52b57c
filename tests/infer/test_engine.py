"""Answers given together, in any order of arrival, are those given one by one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bunny.core.chat import ChatEvent, ChatRequest, Finished, Piece
from bunny.core.types import GenerationSettings
from bunny.infer.engine import Engine
from bunny.infer.generate import Generator, Request
from tests.infer.test_generate import MIXED, SAME, SEVERAL, generator, parts  # noqa: F401  # a fixture
from tests.infer.test_shared_prefix import KINDS, TWO_SETS, special
from tests.tiny import FAMILIES

ALL = [*MIXED, *SAME, *SEVERAL, *TWO_SETS]


class Heard:
    """One request and all it hears."""

    def __init__(self, engine: Engine, request: ChatRequest) -> None:
        self.events: list[ChatEvent] = []
        self.done = threading.Event()
        self.spoke = threading.Event()
        self.ticket = engine.submit(request, self._listen)

    def _listen(self, event: ChatEvent) -> None:
        self.events.append(event)
        (self.done if isinstance(event, Finished) else self.spoke).set()

    @property
    def end(self) -> Finished:
        assert self.done.wait(60)
        assert isinstance(self.events[-1], Finished)
        return self.events[-1]

    @property
    def text(self) -> str:
        assert self.end
        assert all(isinstance(event, Piece) for event in self.events[:-1])
        return "".join(event.text for event in self.events if isinstance(event, Piece))


def chat(request: Request, settings: GenerationSettings, **more: Any) -> ChatRequest:
    keys = tuple(str(hash(picture.tobytes())) for picture in request.images)
    return ChatRequest(request.turns, request.images, keys, settings, **more)


def engine_of(maker: Generator, **more: Any) -> Engine:
    return Engine(maker.model, maker.processor, "tiny", **more)


def texts(maker: Generator, requests: Sequence[ChatRequest], **more: Any) -> list[str]:
    """All at once."""
    engine = engine_of(maker, **more)
    try:
        heard = [Heard(engine, request) for request in requests]
        assert {one.end.reason for one in heard} <= {"stop", "length"}
        return [one.text for one in heard]
    finally:
        engine.close(0)


GREEDY = GenerationSettings(max_new_tokens=12)


@pytest.mark.parametrize("family", FAMILIES)
def test_many_at_once_say_what_the_generator_says(parts: Path, family: str) -> None:  # noqa: F811
    maker = generator(parts, family)
    alone = [maker.answer([request], GREEDY)[0] for request in ALL]
    said = texts(maker, [chat(request, GREEDY) for request in ALL], running=5, prefill_tokens=7)
    assert [one.strip() for one in said] == alone


@pytest.mark.parametrize("kind", KINDS)
def test_windows_and_positions_are_kept(tmp_path: Path, kind: str) -> None:
    maker = special(tmp_path, *KINDS[kind])
    alone = [maker.answer([request], GREEDY)[0] for request in ALL]
    said = texts(maker, [chat(request, GREEDY) for request in ALL], running=5, prefill_tokens=7)
    assert [one.strip() for one in said] == alone
