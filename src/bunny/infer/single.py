"""The answering engine for one asker, who may also ask for beams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bunny.core.chat import ChatEvent, ChatRequest, Finished, Piece
from bunny.core.errors import UserError
from bunny.core.types import ImageRef
from bunny.infer.engine import Engine
from bunny.infer.generate import Request
from bunny.infer.spoken import Spoken


class Single(Engine):
    """An `Engine` that answers one request at a time."""

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        super().__init__(model, processor, name, running=1, queue=1)

    def beams(self, request: ChatRequest) -> Iterator[ChatEvent]:
        """The answer by beam search, whole, and its end. Raises UserError as `submit` does."""
        generator, settings = self._generator, request.settings
        refs = tuple(ImageRef(str(number)) for number in range(len(request.images)))
        tokens = len(generator.writer.prompt(request.turns, refs))
        context = int(generator.model.config.text_config.max_position_embeddings)
        if tokens >= context:
            raise UserError(f"the prompt has {tokens} tokens, the model reads {context}", fix="shorten it")
        (ids,) = generator.answer_ids([Request(request.turns, request.images)], settings)
        spoken = Spoken(generator.processor.tokenizer, settings.stop, generator.writer.template.assistant_turn.gap)
        yield Piece("".join(map(spoken.add, ids)) + spoken.end())
        ended = spoken.stopped or ids[-1] in self._ends
        yield Finished("stop" if ended else "length", tokens, len(ids))
